//! Host page tables ("v1"). 48882 section 2.2.3.

use bitfield_struct::bitfield;

/// Bytes of an entry.
pub const ENTRY_BYTES: u64 = 8;
/// Address bits that each level decodes: 512 entries a table. The table of level 6 decodes the last seven.
pub const LEVEL_BITS: u32 = 9;
/// Most levels; a table of this level has no leaves (LX, "Page Table Level Parameters").
pub const LEVELS_MAX: u8 = 6;

/// Host page-table entry, every level. LX and VB agree.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct HostEntry {
    /// PR, bit 0.
    pub present: bool,
    /// Bits 4:1, ignored.
    #[bits(4)]
    pub ignored_1: u8,
    /// A, bit 5: set with HAD.
    pub accessed: bool,
    /// D, bit 6: of a leaf, set with HAD.
    pub dirty: bool,
    /// Bits 8:7, ignored.
    #[bits(2)]
    pub ignored_7: u8,
    /// NextLevel, bits 11:9: level of the table that is pointed at, or a `NEXT_` constant.
    #[bits(3)]
    pub next_level: u8,
    /// Bits 51:12: frame of the next table or of the page; with [`NEXT_SIZED`] also the size of the page.
    #[bits(40)]
    pub frame: u64,
    /// Bits 58:52, reserved 0.
    #[bits(7)]
    pub reserved_52: u8,
    /// U, bit 59: of a leaf, an attribute for ATS; else reserved 0.
    pub untranslated: bool,
    /// FC, bit 60: of a leaf, force coherent; else reserved 0.
    pub force_coherent: bool,
    /// IR, bit 61: reads are allowed.
    pub read: bool,
    /// IW, bit 62: writes are allowed.
    pub write: bool,
    /// Bit 63, ignored.
    pub ignored_63: bool,
}

/// NextLevel 0: a leaf of the size that its level has by nature.
pub const NEXT_LEAF: u8 = 0;
/// NextLevel 7: a leaf whose size the address tells: its lowest 0 bit from 12 up has half the size.
pub const NEXT_SIZED: u8 = 7;

const _: () = assert!(size_of::<HostEntry>() as u64 == ENTRY_BYTES);
const _: () = assert!(HostEntry::NEXT_LEVEL_OFFSET == 9 && HostEntry::RESERVED_52_OFFSET == 52 && HostEntry::READ_OFFSET == 61);
