//! MSI page-table entries. Advanced Interrupt Architecture, "IOMMU support for MSIs to virtual machines"; IOMMU specification,
//! "Process to translate addresses of MSIs".

use bitfield_struct::bitfield;

/// Bytes of an entry.
pub const MSI_ENTRY_BYTES: u64 = 16;
/// M: memory-resident interrupt file.
pub const MSI_MODE_MRIF: u8 = 1;
/// M: basic translate mode.
pub const MSI_MODE_BASIC: u8 = 3;
/// Bytes of a unit of [`MsiEntryMrif::file`].
pub const MRIF_BYTES: u64 = 512;

/// First doubleword of an entry in basic translate mode; the second is ignored.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct MsiEntryBasic {
    /// V, bit 0.
    pub valid: bool,
    /// M, bits 2:1.
    #[bits(2)]
    pub mode: u8,
    /// Bits 9:3, reserved 0.
    #[bits(7)]
    pub reserved_3: u8,
    /// PPN, bits 53:10: frame of the interrupt file.
    #[bits(44)]
    pub ppn: u64,
    /// Bits 62:54, reserved 0.
    #[bits(9)]
    pub reserved_54: u16,
    /// C, bit 63: custom format.
    pub custom: bool,
}

/// First doubleword of an entry in MRIF mode.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct MsiEntryMrif {
    /// V, bit 0.
    pub valid: bool,
    /// M, bits 2:1.
    #[bits(2)]
    pub mode: u8,
    /// Bits 6:3, reserved 0.
    #[bits(4)]
    pub reserved_3: u8,
    /// MRIF address 55:9, bits 53:7: address of the file in units of 512 bytes.
    #[bits(47)]
    pub file: u64,
    /// Bits 62:54, reserved 0.
    #[bits(9)]
    pub reserved_54: u16,
    /// C, bit 63: custom format.
    pub custom: bool,
}

/// Second doubleword of an entry in MRIF mode.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct MsiEntryNotice {
    /// NID 9:0, bits 9:0.
    #[bits(10)]
    pub notice_low: u16,
    /// NPPN, bits 53:10: frame that the notice is written to.
    #[bits(44)]
    pub ppn: u64,
    /// Bits 59:54, reserved 0.
    #[bits(6)]
    pub reserved_54: u8,
    /// NID 10, bit 60.
    pub notice_high: bool,
    /// Bits 63:61, reserved 0.
    #[bits(3)]
    pub reserved_61: u8,
}

/// Place of [`MsiEntryNotice::notice_high`] in the notice identity.
pub const NOTICE_HIGH_SHIFT: u32 = 10;
