//! Legacy context entry.

use bitfield_struct::bitfield;

/// Bytes of a legacy context entry; the table holds one for each of the 256 devfn values of a bus.
pub const CONTEXT_ENTRY_BYTES: u64 = 16;
/// Entries of a context table, one a devfn.
pub const CONTEXT_ENTRIES: u16 = 256;

/// Context entry, legacy mode. VT-d specification, context entry; facts agree in Linux `intel/iommu.h` 7.3.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct ContextEntry {
    /// P, bit 0.
    pub present: bool,
    /// FPD, bit 1: qualified faults of this device are not recorded.
    pub fault_disable: bool,
    /// T, bits 3:2: see the `TT_` constants.
    #[bits(2)]
    pub translation_type: u8,
    /// Bits 11:4, reserved 0.
    #[bits(8)]
    pub reserved_low: u8,
    /// SSPTPTR, bits 63:12: frame of the second-stage root table.
    #[bits(52)]
    pub second_stage: u64,
    /// AW, bits 66:64: see the `AW_` constants.
    #[bits(3)]
    pub address_width: u8,
    /// Bits 70:67, left to software.
    #[bits(4)]
    pub available: u8,
    /// Bit 71, reserved 0.
    pub reserved_71: bool,
    /// DID, bits 87:72: tags context cache, IOTLB and paging-structure caches.
    #[bits(16)]
    pub domain: u16,
    /// Bits 127:88, reserved 0.
    #[bits(40)]
    pub reserved_high: u64,
}

/// T 00: second stage, untranslated requests only.
pub const TT_UNTRANSLATED: u8 = 0;
/// T 01: as 00, and device-TLB traffic is allowed.
pub const TT_DEVICE_TLB: u8 = 1;
/// T 10: pass-through.
pub const TT_PASS_THROUGH: u8 = 2;

/// AW 001: 39-bit addresses, 3 levels.
pub const AW_39: u8 = 1;
/// AW 010: 48-bit addresses, 4 levels.
pub const AW_48: u8 = 2;
/// AW 011: 57-bit addresses, 5 levels.
pub const AW_57: u8 = 3;

const _: () = assert!(size_of::<ContextEntry>() as u64 == CONTEXT_ENTRY_BYTES);
const _: () = assert!(ContextEntry::DOMAIN_OFFSET == 72 && ContextEntry::ADDRESS_WIDTH_OFFSET == 64);
