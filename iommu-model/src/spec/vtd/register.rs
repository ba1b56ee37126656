//! Memory-mapped registers other than the capabilities: offsets and fields.
//!
//! VT-d specification, register descriptions; facts agree in Linux `intel/iommu.h` 7.3 and Intel's register texts.

use bitfield_struct::bitfield;

/// VER_REG.
pub const OFFSET_VER: u64 = 0x00;
/// CAP_REG.
pub const OFFSET_CAP: u64 = 0x08;
/// ECAP_REG.
pub const OFFSET_ECAP: u64 = 0x10;
/// GCMD_REG, 32 bits, write-only.
pub const OFFSET_GCMD: u64 = 0x18;
/// GSTS_REG, 32 bits, read-only.
pub const OFFSET_GSTS: u64 = 0x1c;
/// RTADDR_REG.
pub const OFFSET_RTADDR: u64 = 0x20;
/// CCMD_REG.
pub const OFFSET_CCMD: u64 = 0x28;
/// FSTS_REG, 32 bits.
pub const OFFSET_FSTS: u64 = 0x34;
/// FECTL_REG, 32 bits.
pub const OFFSET_FECTL: u64 = 0x38;
/// FEDATA_REG, 32 bits.
pub const OFFSET_FEDATA: u64 = 0x3c;
/// FEADDR_REG, 32 bits.
pub const OFFSET_FEADDR: u64 = 0x40;
/// FEUADDR_REG, 32 bits.
pub const OFFSET_FEUADDR: u64 = 0x44;
/// IQH_REG, read-only.
pub const OFFSET_IQH: u64 = 0x80;
/// IQT_REG.
pub const OFFSET_IQT: u64 = 0x88;
/// IQA_REG.
pub const OFFSET_IQA: u64 = 0x90;
/// ICS_REG, 32 bits.
pub const OFFSET_ICS: u64 = 0x9c;
/// IECTL_REG, 32 bits.
pub const OFFSET_IECTL: u64 = 0xa0;
/// IEDATA_REG, 32 bits.
pub const OFFSET_IEDATA: u64 = 0xa4;
/// IEADDR_REG, 32 bits.
pub const OFFSET_IEADDR: u64 = 0xa8;
/// IEUADDR_REG, 32 bits.
pub const OFFSET_IEUADDR: u64 = 0xac;
/// IQERCD_REG, read-only.
pub const OFFSET_IQERCD: u64 = 0xb0;
/// IRTA_REG.
pub const OFFSET_IRTA: u64 = 0xb8;
/// IVA_REG: 16 x IRO. 0x100 is one of the places real units use.
pub const OFFSET_IVA: u64 = 0x100;
/// IOTLB_REG: 16 x IRO + 8.
pub const OFFSET_IOTLB: u64 = OFFSET_IVA + 8;
/// FRCD_REG 0: 16 x FRO (a knob; above the IOTLB registers so that 256 records fit).
pub const OFFSET_FRCD: u64 = 0x400;

/// GCMD_REG and GSTS_REG: the same positions, command on one side, status on the other.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct GlobalCommand {
    /// Bits 22:0, reserved.
    #[bits(23)]
    pub reserved: u32,
    /// CFI / CFIS, bit 23.
    pub compatibility_interrupts: bool,
    /// SIRTP / IRTPS, bit 24: one-shot.
    pub set_interrupt_table: bool,
    /// IRE / IRES, bit 25.
    pub interrupt_remapping: bool,
    /// QIE / QIES, bit 26.
    pub queue_enable: bool,
    /// WBF / WBFS, bit 27: one-shot; the status is 1 while the flush is under way.
    pub write_buffer_flush: bool,
    /// EAFL / AFLS, bit 28.
    pub advanced_fault_log: bool,
    /// SFL / FLS, bit 29: one-shot.
    pub set_fault_log: bool,
    /// SRTP / RTPS, bit 30: one-shot.
    pub set_root_table: bool,
    /// TE / TES, bit 31.
    pub translation_enable: bool,
}

/// CCMD_REG: register-based context-cache invalidation.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ContextCommand {
    /// DID, bits 15:0.
    pub domain: u16,
    /// SID, bits 31:16.
    pub source: u16,
    /// FM, bits 33:32.
    #[bits(2)]
    pub function_mask: u8,
    /// Bits 58:34, reserved.
    #[bits(25)]
    pub reserved: u32,
    /// CAIG, bits 60:59: granularity really used; 0 says that the request was refused.
    #[bits(2)]
    pub actual: u8,
    /// CIRG, bits 62:61: 1 global, 2 domain, 3 device.
    #[bits(2)]
    pub granularity: u8,
    /// ICC, bit 63: start; cleared when done.
    pub invalidate: bool,
}

/// IVA_REG: the range of a register-based page-selective invalidation, written before IOTLB_REG.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct InvalidateAddress {
    /// AM, bits 5:0.
    #[bits(6)]
    pub address_mask: u8,
    /// IH, bit 6.
    pub leaf_only: bool,
    /// Bits 11:7, reserved.
    #[bits(5)]
    pub reserved: u8,
    /// ADDR, bits 63:12.
    #[bits(52)]
    pub page: u64,
}

/// IOTLB_REG: register-based IOTLB invalidation.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct IotlbCommand {
    /// Bits 31:0, reserved.
    pub reserved_low: u32,
    /// DID, bits 47:32.
    pub domain: u16,
    /// DW, bit 48.
    pub drain_writes: bool,
    /// DR, bit 49.
    pub drain_reads: bool,
    /// Bits 56:50, reserved.
    #[bits(7)]
    pub reserved_50: u8,
    /// IAIG, bits 58:57: granularity really used; 0 says that the request was refused.
    #[bits(2)]
    pub actual: u8,
    /// Bit 59, reserved.
    pub reserved_59: bool,
    /// IIRG, bits 61:60: 1 global, 2 domain, 3 page.
    #[bits(2)]
    pub granularity: u8,
    /// Bit 62, reserved.
    pub reserved_62: bool,
    /// IVT, bit 63: start; cleared when done.
    pub invalidate: bool,
}

/// FSTS_REG.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct FaultStatus {
    /// PFO, bit 0: a fault found no free record; write 1 to clear.
    pub overflow: bool,
    /// PPF, bit 1: some record has F set; read-only.
    pub pending: bool,
    /// AFO, APF, bits 3:2: advanced fault log, not modelled.
    #[bits(2)]
    pub advanced: u8,
    /// IQE, bit 4: the queue stopped at a bad descriptor; write 1 to clear.
    pub queue_error: bool,
    /// ICE, bit 5: invalidation completion error; write 1 to clear.
    pub completion_error: bool,
    /// ITE, bit 6: device-TLB time-out; write 1 to clear.
    pub timeout_error: bool,
    /// PRO, bit 7: page-request overflow of old units.
    pub page_request_overflow: bool,
    /// FRI, bits 15:8: the record that set PPF.
    pub record_index: u8,
    /// Bits 31:16, reserved.
    #[bits(16)]
    pub reserved: u16,
}

/// FECTL_REG and IECTL_REG.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct EventControl {
    /// Bits 29:0, reserved.
    #[bits(30)]
    pub reserved: u32,
    /// IP, bit 30: an event waits for unmasking; read-only.
    pub pending: bool,
    /// IM, bit 31: masked; 1 after reset.
    #[bits(default = true)]
    pub masked: bool,
}

/// ICS_REG.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CompletionStatus {
    /// IWC, bit 0: a wait descriptor with IF completed; write 1 to clear.
    pub wait_complete: bool,
    /// Bits 31:1, reserved.
    #[bits(31)]
    pub reserved: u32,
}

/// IQH_REG and IQT_REG.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct QueueIndex {
    /// Bits 3:0, reserved.
    #[bits(4)]
    pub reserved_low: u8,
    /// Bits 18:4: index in units of 16 bytes; its lowest bit is reserved with 256-bit descriptors.
    #[bits(15)]
    pub index: u16,
    /// Bits 63:19, reserved.
    #[bits(45)]
    pub reserved_high: u64,
}

/// IQA_REG.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct QueueAddress {
    /// QS, bits 2:0: 2^QS pages.
    #[bits(3)]
    pub size: u8,
    /// Bits 10:3, reserved.
    #[bits(8)]
    pub reserved: u8,
    /// DW, bit 11: 256-bit descriptors, only with scalable mode.
    pub wide: bool,
    /// Bits 63:12: frame of the queue.
    #[bits(52)]
    pub base: u64,
}

/// IQERCD_REG.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct QueueErrorRecord {
    /// IQEI, bits 3:0: see the `IQEI_` constants.
    #[bits(4)]
    pub info: u8,
    /// Bits 31:4, reserved.
    #[bits(28)]
    pub reserved: u32,
    /// ITESID, bits 47:32.
    pub timeout_source: u16,
    /// ICESID, bits 63:48.
    pub completion_source: u16,
}

/// log2 of the 128-bit descriptors in one queue page.
pub const QUEUE_SHIFT: u32 = 8;

/// IQEI 1: the tail lies outside the queue.
pub const IQEI_BAD_TAIL: u8 = 1;
/// IQEI 2: the descriptor could not be fetched.
pub const IQEI_FETCH: u8 = 2;
/// IQEI 3: unknown descriptor type.
pub const IQEI_TYPE: u8 = 3;
/// IQEI 4: a reserved field is set.
pub const IQEI_RESERVED: u8 = 4;

/// IQEI 5: the width of descriptors does not fit the mode.
pub const IQEI_WIDTH: u8 = 5;

/// First byte of the interrupt range, 0xFEEx_xxxx.
pub const INTERRUPT_RANGE_FIRST: u64 = 0xfee0_0000;
/// Last byte of the interrupt range.
pub const INTERRUPT_RANGE_LAST: u64 = 0xfeef_ffff;

const _: () = assert!(GlobalCommand::TRANSLATION_ENABLE_OFFSET == 31 && GlobalCommand::QUEUE_ENABLE_OFFSET == 26);
const _: () = assert!(ContextCommand::GRANULARITY_OFFSET == 61 && ContextCommand::ACTUAL_OFFSET == 59);
const _: () = assert!(IotlbCommand::GRANULARITY_OFFSET == 60 && IotlbCommand::ACTUAL_OFFSET == 57);
const _: () = assert!(IotlbCommand::DRAIN_WRITES_OFFSET == 48 && FaultStatus::QUEUE_ERROR_OFFSET == 4);
const _: () = assert!(QueueErrorRecord::TIMEOUT_SOURCE_OFFSET == 32 && QueueAddress::WIDE_OFFSET == 11);
