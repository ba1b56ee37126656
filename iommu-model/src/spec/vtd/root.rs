//! Root table and root-table address register.

use bitfield_struct::bitfield;

/// Bytes of a root entry; the table holds one for each of the 256 buses.
pub const ROOT_ENTRY_BYTES: u64 = 16;
/// Entries of a root table, one a bus.
pub const ROOT_ENTRIES: u16 = 256;

/// Root entry, legacy mode. VT-d specification, root entry; facts agree in Linux `intel/iommu.h` 7.3.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct RootEntry {
    /// P, bit 0: the context-table pointer is valid.
    pub present: bool,
    /// Bits 11:1, reserved 0.
    #[bits(11)]
    pub reserved_low: u16,
    /// CTP, bits 63:12: frame of the context table of this bus.
    #[bits(52)]
    pub context_table: u64,
    /// Bits 127:64, reserved 0 in legacy mode.
    #[bits(64)]
    pub reserved_high: u64,
}

/// Root entry, scalable mode. VT-d specification, scalable-mode root entry.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct ScalableRootEntry {
    /// LP, bit 0: the lower pointer is valid.
    pub lower_present: bool,
    /// Bits 11:1, reserved 0.
    #[bits(11)]
    pub reserved_1: u16,
    /// LCTP, bits 63:12: frame of the context table of devfn 0 to 127.
    #[bits(52)]
    pub lower: u64,
    /// UP, bit 64: the upper pointer is valid.
    pub upper_present: bool,
    /// Bits 75:65, reserved 0.
    #[bits(11)]
    pub reserved_65: u16,
    /// UCTP, bits 127:76: frame of the context table of devfn 128 to 255.
    #[bits(52)]
    pub upper: u64,
}

/// RTADDR_REG, offset 0x20: latched by GCMD.SRTP only.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct RootTableAddress {
    /// Bits 9:0, reserved.
    #[bits(10)]
    pub reserved: u16,
    /// TTM, bits 11:10: 00 legacy, 01 scalable, 10 reserved, 11 abort DMA.
    #[bits(2)]
    pub mode: u8,
    /// Bits 63:12: frame of the root table.
    #[bits(52)]
    pub table: u64,
}

/// TTM 00: legacy mode.
pub const TTM_LEGACY: u8 = 0;
/// TTM 01: scalable mode.
pub const TTM_SCALABLE: u8 = 1;
/// TTM 11: every request is aborted; only with ECAP.ADMS.
pub const TTM_ABORT: u8 = 3;

const _: () = assert!(size_of::<RootEntry>() as u64 == ROOT_ENTRY_BYTES);
const _: () = assert!(ScalableRootEntry::UPPER_PRESENT_OFFSET == 64 && ScalableRootEntry::UPPER_OFFSET == 76);
const _: () = assert!(RootEntry::CONTEXT_TABLE_OFFSET == 12 && RootTableAddress::MODE_OFFSET == 10);
