//! Page-table entries of both stages. Privileged specification, "Sv39", "Sv48", "Sv57", "Svnapot", "Svpbmt", and
//! "Two-Stage Address Translation".

use bitfield_struct::bitfield;

/// Bytes of an entry.
pub const ENTRY_BYTES: u64 = 8;
/// Address bits that index a table.
pub const LEVEL_BITS: u32 = 9;
/// Address bits more that index the root table of a second stage, which is four times as large.
pub const ROOT_EXTRA_BITS: u32 = 2;
/// Frames of a second-stage root table, and its alignment in frames.
pub const SECOND_STAGE_ROOT_FRAMES: u64 = 4;
/// Low PPN bits of an entry with N that say 64 KiB: the only size there is.
pub const NAPOT_64K: u64 = 0b1000;
/// log2 of the frames that such an entry maps.
pub const NAPOT_64K_FRAMES: u32 = 4;
/// PBMT 3 is reserved.
pub const MEMORY_TYPE_RESERVED: u8 = 3;

/// A page-table entry.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PageTableEntry {
    /// V, bit 0.
    pub valid: bool,
    /// R, bit 1.
    pub read: bool,
    /// W, bit 2.
    pub write: bool,
    /// X, bit 3.
    pub execute: bool,
    /// U, bit 4.
    pub user: bool,
    /// G, bit 5.
    pub global: bool,
    /// A, bit 6.
    pub accessed: bool,
    /// D, bit 7.
    pub dirty: bool,
    /// RSW, bits 9:8, for software.
    #[bits(2)]
    pub software: u8,
    /// PPN, bits 53:10: frame of the page or of the next table.
    #[bits(44)]
    pub ppn: u64,
    /// Bits 58:54, reserved 0.
    #[bits(5)]
    pub reserved_54: u8,
    /// Bits 60:59, reserved 0 without Svrsw60t59b, else for software.
    #[bits(2)]
    pub software_59: u8,
    /// PBMT, bits 62:61; reserved 0 without Svpbmt and in non-leaf entries.
    #[bits(2)]
    pub memory_type: u8,
    /// N, bit 63: part of a 64 KiB page.
    pub napot: bool,
}
