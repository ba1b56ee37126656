//! Command buffer. 48882 section 2.4. LX and VB agree but where a row says otherwise.

use bitfield_struct::bitfield;

/// Bytes of a command.
pub const COMMAND_BYTES: u64 = 16;

/// COMPLETION_WAIT.
pub const OPCODE_COMPLETION_WAIT: u8 = 1;
/// INVALIDATE_DEVTAB_ENTRY.
pub const OPCODE_INVALIDATE_DEVICE: u8 = 2;
/// INVALIDATE_IOMMU_PAGES.
pub const OPCODE_INVALIDATE_PAGES: u8 = 3;
/// INVALIDATE_IOTLB_PAGES.
pub const OPCODE_INVALIDATE_IOTLB: u8 = 4;
/// INVALIDATE_INTERRUPT_TABLE.
pub const OPCODE_INVALIDATE_INTERRUPTS: u8 = 5;
/// PREFETCH_IOMMU_PAGES.
pub const OPCODE_PREFETCH: u8 = 6;
/// COMPLETE_PPR_REQUEST.
pub const OPCODE_COMPLETE_PPR: u8 = 7;
/// INVALIDATE_IOMMU_ALL.
pub const OPCODE_INVALIDATE_ALL: u8 = 8;

/// Any command; also INVALIDATE_IOMMU_ALL, whose operands are reserved 0.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct AnyCommand {
    /// Bits 59:0, first operand.
    #[bits(60)]
    pub operand_1: u64,
    /// Opcode, bits 63:60.
    #[bits(4)]
    pub opcode: u8,
    /// Bits 127:64, second operand.
    pub operand_2: u64,
}

/// COMPLETION_WAIT.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct CompletionWait {
    /// s, bit 0: store the data.
    pub store: bool,
    /// i, bit 1: set ComWaitInt.
    pub interrupt: bool,
    /// f, bit 2: later commands wait.
    pub flush: bool,
    /// Store address, bits 51:3, in units of 8 bytes.
    #[bits(49)]
    pub address: u64,
    /// Bits 59:52, reserved 0.
    pub reserved_52: u8,
    /// Opcode, bits 63:60.
    #[bits(4)]
    pub opcode: u8,
    /// Store data, bits 127:64.
    pub data: u64,
}

/// INVALIDATE_DEVTAB_ENTRY and INVALIDATE_INTERRUPT_TABLE.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct InvalidateDevice {
    /// Device id, bits 15:0.
    pub device: u16,
    /// Bits 59:16, reserved 0.
    #[bits(44)]
    pub reserved_16: u64,
    /// Opcode, bits 63:60.
    #[bits(4)]
    pub opcode: u8,
    /// Bits 127:64, reserved 0.
    pub reserved_64: u64,
}

/// INVALIDATE_IOMMU_PAGES.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct InvalidatePages {
    /// PASID, bits 19:0: counts with GN.
    #[bits(20)]
    pub pasid: u32,
    /// Bits 31:20, reserved 0.
    #[bits(12)]
    pub reserved_20: u16,
    /// Domain id, bits 47:32.
    pub domain: u16,
    /// Bits 59:48, reserved 0.
    #[bits(12)]
    pub reserved_48: u16,
    /// Opcode, bits 63:60.
    #[bits(4)]
    pub opcode: u8,
    /// S, bit 64: the address tells a size: its lowest 0 bit from 12 up has half of it.
    pub sized: bool,
    /// PDE, bit 65: non-leaf entries too.
    pub directories: bool,
    /// GN, bit 66: the address is one of a guest translation, and the PASID counts.
    pub guest: bool,
    /// Bits 75:67, reserved 0.
    #[bits(9)]
    pub reserved_67: u16,
    /// Address, bits 127:76: a page number.
    #[bits(52)]
    pub page: u64,
}

/// INVALIDATE_IOTLB_PAGES. The PASID as LX has it since it was mended there; VB names 7:0 in bits 23:16, the rest above 48.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct InvalidateIotlb {
    /// Device id, bits 15:0.
    pub device: u16,
    /// PASID 15:8, bits 23:16.
    pub pasid_8: u8,
    /// Maxpend, bits 31:24: most invalidations that may be under way to the queue.
    pub pending_max: u8,
    /// Queue id, bits 47:32.
    pub queue: u16,
    /// PASID 7:0, bits 55:48.
    pub pasid_0: u8,
    /// PASID 19:16, bits 59:56.
    #[bits(4)]
    pub pasid_16: u8,
    /// Opcode, bits 63:60.
    #[bits(4)]
    pub opcode: u8,
    /// S, bit 64.
    pub sized: bool,
    /// Bit 65, reserved 0.
    pub reserved_65: bool,
    /// GN, bit 66.
    pub guest: bool,
    /// Bit 67, reserved 0.
    pub reserved_67: bool,
    /// Type, bits 69:68.
    #[bits(2)]
    pub kind: u8,
    /// Bits 75:70, reserved 0.
    #[bits(6)]
    pub reserved_70: u8,
    /// Address, bits 127:76: a page number.
    #[bits(52)]
    pub page: u64,
}

impl InvalidateIotlb {
    /// PASID, put together.
    #[must_use]
    pub const fn pasid(self) -> u32 {
        self.pasid_0() as u32 | (self.pasid_8() as u32) << 8 | (self.pasid_16() as u32) << 16
    }

    /// Takes a PASID apart.
    #[must_use]
    pub const fn with_pasid(self, pasid: u32) -> Self {
        self.with_pasid_0(pasid as u8).with_pasid_8((pasid >> 8) as u8).with_pasid_16((pasid >> 16 & 0xf) as u8)
    }
}

/// COMPLETE_PPR_REQUEST. LX.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct CompletePpr {
    /// Device id, bits 15:0.
    pub device: u16,
    /// Bits 31:16.
    pub reserved_16: u16,
    /// PASID, bits 51:32: counts with GN.
    #[bits(20)]
    pub pasid: u32,
    /// Bits 59:52.
    pub reserved_52: u8,
    /// Opcode, bits 63:60.
    #[bits(4)]
    pub opcode: u8,
    /// Bits 65:64.
    #[bits(2)]
    pub reserved_64: u8,
    /// GN, bit 66: the response has a PASID.
    pub guest: bool,
    /// Bits 95:67.
    #[bits(29)]
    pub reserved_67: u32,
    /// Completion tag, bits 104:96: the page request group.
    #[bits(9)]
    pub tag: u16,
    /// Bits 107:105.
    #[bits(3)]
    pub reserved_105: u8,
    /// Status, bits 111:108: 0 success, 1 invalid request, 15 failure.
    #[bits(4)]
    pub status: u8,
    /// Bits 127:112.
    pub reserved_112: u16,
}

/// PREFETCH_IOMMU_PAGES. VB.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct Prefetch {
    /// Device id, bits 15:0.
    pub device: u16,
    /// Bits 23:16, reserved 0.
    pub reserved_16: u8,
    /// PFCount, bits 31:24: how many translations.
    pub count: u8,
    /// PASID, bits 51:32: counts with GN.
    #[bits(20)]
    pub pasid: u32,
    /// Bits 59:52, reserved 0.
    pub reserved_52: u8,
    /// Opcode, bits 63:60.
    #[bits(4)]
    pub opcode: u8,
    /// S, bit 64: size of the pages.
    pub sized: bool,
    /// Bit 65, reserved 0.
    pub reserved_65: bool,
    /// GN, bit 66.
    pub guest: bool,
    /// Bit 67, reserved 0.
    pub reserved_67: bool,
    /// Inval, bit 68: invalidate before.
    pub invalidate: bool,
    /// Bits 75:69, reserved 0.
    #[bits(7)]
    pub reserved_69: u8,
    /// Address, bits 127:76: a page number.
    #[bits(52)]
    pub page: u64,
}

const _: () = assert!(AnyCommand::OPCODE_OFFSET == 60 && CompletionWait::OPCODE_OFFSET == 60 && InvalidateDevice::OPCODE_OFFSET == 60);
const _: () = assert!(InvalidatePages::OPCODE_OFFSET == 60 && InvalidatePages::PAGE_OFFSET == 76 && Prefetch::PAGE_OFFSET == 76);
const _: () = assert!(CompletePpr::OPCODE_OFFSET == 60 && CompletePpr::TAG_OFFSET == 96 && CompletePpr::STATUS_OFFSET == 108);
const _: () = assert!(InvalidateIotlb::OPCODE_OFFSET == 60 && InvalidateIotlb::PAGE_OFFSET == 76 && Prefetch::OPCODE_OFFSET == 60);
