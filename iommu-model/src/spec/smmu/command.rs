//! Command queue entries, chapter 4: 16 bytes each.

use bitfield_struct::bitfield;

/// Bytes of a command.
pub const COMMAND_BYTES: u64 = 16;

/// CMD_PREFETCH_CONFIG.
pub const PREFETCH_CONFIG: u8 = 0x01;
/// CMD_PREFETCH_ADDR.
pub const PREFETCH_ADDRESS: u8 = 0x02;
/// CMD_CFGI_STE.
pub const CFGI_STE: u8 = 0x03;
/// CMD_CFGI_STE_RANGE; with Range 31, CMD_CFGI_ALL.
pub const CFGI_STE_RANGE: u8 = 0x04;
/// CMD_CFGI_CD.
pub const CFGI_CD: u8 = 0x05;
/// CMD_CFGI_CD_ALL.
pub const CFGI_CD_ALL: u8 = 0x06;
/// CMD_TLBI_NH_ALL.
pub const TLBI_NH_ALL: u8 = 0x10;
/// CMD_TLBI_NH_ASID.
pub const TLBI_NH_ASID: u8 = 0x11;
/// CMD_TLBI_NH_VA.
pub const TLBI_NH_VA: u8 = 0x12;
/// CMD_TLBI_NH_VAA.
pub const TLBI_NH_VAA: u8 = 0x13;
/// CMD_TLBI_S12_VMALL.
pub const TLBI_S12_VMALL: u8 = 0x28;
/// CMD_TLBI_S2_IPA.
pub const TLBI_S2_IPA: u8 = 0x2a;
/// CMD_TLBI_NSNH_ALL.
pub const TLBI_NSNH_ALL: u8 = 0x30;
/// CMD_ATC_INV.
pub const ATC_INV: u8 = 0x40;
/// CMD_PRI_RESP.
pub const PRI_RESP: u8 = 0x41;
/// CMD_SYNC.
pub const SYNC: u8 = 0x46;

/// Size of a CMD_ATC_INV for every address; more is illegal here.
pub const ATC_SIZE_ALL: u8 = 52;

/// CS 00: no signal.
pub const SIGNAL_NONE: u8 = 0;
/// CS 01: interrupt.
pub const SIGNAL_INTERRUPT: u8 = 1;
/// CS 10: event to the PE.
pub const SIGNAL_EVENT: u8 = 2;

/// Any command, section 4.1.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct AnyCommand {
    /// Opcode, bits 7:0.
    pub opcode: u8,
    /// Bits 9:8.
    #[bits(2)]
    pub reserved_8: u8,
    /// SSec, bit 10: the StreamID is a secure one; illegal here.
    pub secure: bool,
    /// SSV, bit 11, of commands that have it.
    pub substream_valid: bool,
    /// The rest.
    #[bits(116)]
    pub rest: u128,
}

/// CMD_CFGI_STE, CMD_CFGI_STE_RANGE, CMD_CFGI_CD, CMD_CFGI_CD_ALL, sections 4.3.1 to 4.3.4.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct ConfigCommand {
    /// Opcode, bits 7:0.
    pub opcode: u8,
    /// Bits 9:8.
    #[bits(2)]
    pub reserved_8: u8,
    /// SSec, bit 10.
    pub secure: bool,
    /// Bit 11.
    pub reserved_11: bool,
    /// SubstreamID, bits 31:12, of CMD_CFGI_CD.
    #[bits(20)]
    pub substream: u32,
    /// StreamID, bits 63:32.
    pub stream: u32,
    /// Range, bits 68:64, of CMD_CFGI_STE_RANGE: the aligned 2^(Range + 1) streams. Bit 64 alone is Leaf of the others.
    #[bits(5)]
    pub range: u8,
    /// Bits 127:69.
    #[bits(59)]
    pub reserved_69: u64,
}

/// Leaf of CMD_CFGI_STE and CMD_CFGI_CD, in the bits of [`ConfigCommand::range`].
pub const CONFIG_LEAF: u8 = 1;
/// Range of CMD_CFGI_ALL.
pub const CONFIG_RANGE_ALL: u8 = 31;

/// CMD_TLBI_*, sections 4.4.1 to 4.4.4.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct TlbCommand {
    /// Opcode, bits 7:0.
    pub opcode: u8,
    /// Bits 11:8.
    #[bits(4)]
    pub reserved_8: u8,
    /// NUM, bits 16:12: the range is (NUM + 1) x 2^SCALE granules.
    #[bits(5)]
    pub number: u8,
    /// Bits 19:17.
    #[bits(3)]
    pub reserved_17: u8,
    /// SCALE, bits 25:20.
    #[bits(6)]
    pub scale: u8,
    /// Bits 31:26.
    #[bits(6)]
    pub reserved_26: u8,
    /// VMID, bits 47:32.
    pub vmid: u16,
    /// ASID, bits 63:48.
    pub asid: u16,
    /// Leaf, bit 64: what was cached from table descriptors may stay.
    pub leaf: bool,
    /// Bits 71:65.
    #[bits(7)]
    pub reserved_65: u8,
    /// TTL, bits 73:72: level of the leaf, 0 for any.
    #[bits(2)]
    pub level: u8,
    /// TG, bits 75:74: 0 no range, 1 4 KiB, 2 16 KiB, 3 64 KiB.
    #[bits(2)]
    pub granule: u8,
    /// Address, bits 127:76: frame of the VA or IPA.
    #[bits(52)]
    pub frame: u64,
}

/// TG of a command: 4 KiB.
pub const RANGE_GRANULE_4K: u8 = 1;
/// TG of a command: 16 KiB.
pub const RANGE_GRANULE_16K: u8 = 2;
/// TG of a command: 64 KiB.
pub const RANGE_GRANULE_64K: u8 = 3;

/// CMD_ATC_INV, section 4.5.1.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct AtcCommand {
    /// Opcode, bits 7:0.
    pub opcode: u8,
    /// Bit 8.
    pub reserved_8: bool,
    /// Global, bit 9: with SSV, translations of every PASID.
    pub global: bool,
    /// SSec, bit 10.
    pub secure: bool,
    /// SSV, bit 11: translations of the SubstreamID.
    pub substream_valid: bool,
    /// SubstreamID, bits 31:12.
    #[bits(20)]
    pub substream: u32,
    /// StreamID, bits 63:32.
    pub stream: u32,
    /// Size, bits 69:64: the aligned 2^Size pages of 4 KiB.
    #[bits(6)]
    pub size: u8,
    /// Bits 75:70.
    #[bits(6)]
    pub reserved_70: u8,
    /// Address, bits 127:76: a page number.
    #[bits(52)]
    pub page: u64,
}

/// CMD_PRI_RESP, section 4.5.2. The places of the second word as Linux 7.3 `arm-smmu-v3.h` has them.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct PageResponseCommand {
    /// Opcode, bits 7:0.
    pub opcode: u8,
    /// Bits 9:8.
    #[bits(2)]
    pub reserved_8: u8,
    /// SSec, bit 10.
    pub secure: bool,
    /// SSV, bit 11: the response has a PASID.
    pub substream_valid: bool,
    /// SubstreamID, bits 31:12.
    #[bits(20)]
    pub substream: u32,
    /// StreamID, bits 63:32.
    pub stream: u32,
    /// PRGIndex, bits 72:64.
    #[bits(9)]
    pub group: u16,
    /// Bits 75:73.
    #[bits(3)]
    pub reserved_73: u8,
    /// Resp, bits 77:76: 0 failure, 1 invalid request, 2 success, 3 illegal.
    #[bits(2)]
    pub response: u8,
    /// Bits 127:78.
    #[bits(50)]
    pub reserved_78: u64,
}

/// Resp of CMD_PRI_RESP: Response Failure.
pub const RESPONSE_FAILURE: u8 = 0;
/// Resp of CMD_PRI_RESP: Invalid Request.
pub const RESPONSE_INVALID: u8 = 1;
/// Resp of CMD_PRI_RESP: Success.
pub const RESPONSE_SUCCESS: u8 = 2;

/// CMD_SYNC, section 4.7.3.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct SyncCommand {
    /// Opcode, bits 7:0.
    pub opcode: u8,
    /// Bits 11:8.
    #[bits(4)]
    pub reserved_8: u8,
    /// CS, bits 13:12: see the `SIGNAL_` constants; 11 is illegal.
    #[bits(2)]
    pub signal: u8,
    /// Bits 21:14.
    pub reserved_14: u8,
    /// MSH, MSIAttr, bits 27:22: memory attributes.
    #[bits(6)]
    pub attributes: u8,
    /// Bits 31:28.
    #[bits(4)]
    pub reserved_28: u8,
    /// MSIData, bits 63:32.
    pub data: u32,
    /// Bits 65:64.
    #[bits(2)]
    pub reserved_64: u8,
    /// MSIAddress, bits 119:66, in units of 4 bytes; 0 for none.
    #[bits(54)]
    pub address: u64,
    /// Bits 127:120.
    pub reserved_120: u8,
}

const _: () = assert!(PageResponseCommand::GROUP_OFFSET == 64 && PageResponseCommand::RESPONSE_OFFSET == 76);
const _: () = assert!(AtcCommand::SIZE_OFFSET == 64 && AtcCommand::PAGE_OFFSET == 76 && AtcCommand::SUBSTREAM_OFFSET == 12);
const _: () = assert!(TlbCommand::FRAME_OFFSET == 76 && TlbCommand::LEVEL_OFFSET == 72 && TlbCommand::ASID_OFFSET == 48);
const _: () = assert!(SyncCommand::ADDRESS_OFFSET == 66 && SyncCommand::SIGNAL_OFFSET == 12 && ConfigCommand::RANGE_OFFSET == 64);
