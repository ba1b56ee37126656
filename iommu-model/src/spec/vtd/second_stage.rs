//! Second-stage paging entries.

use bitfield_struct::bitfield;

/// Bytes of a paging entry.
pub const ENTRY_BYTES: u64 = 8;
/// Address bits that each level decodes: 512 entries a table.
pub const LEVEL_BITS: u32 = 9;
/// Entries of one table.
pub const TABLE_ENTRIES: u64 = 1 << LEVEL_BITS;

/// Second-stage paging entry, every level. VT-d specification, second-stage paging entries; facts agree in Linux
/// `generic_pt/fmt/vtdss.h` 7.3. There is no present bit: an entry is present if R or W is set.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct SecondStageEntry {
    /// R, bit 0.
    pub read: bool,
    /// W, bit 1.
    pub write: bool,
    /// X, bit 2: ignored without execute enable, so always in legacy mode.
    pub execute: bool,
    /// EMT, bits 5:3: leaf only, ignored without MTS.
    #[bits(3)]
    pub memory_type: u8,
    /// IPAT, bit 6: ignored without MTS.
    pub ignore_pat: bool,
    /// PS, bit 7: leaf at level 2 or 3 where CAP.SSLPS allows, reserved at 4 and 5, ignored at 1.
    pub page_size: bool,
    /// A, bit 8: maintained only with SSADE, so ignored in legacy mode.
    pub accessed: bool,
    /// D, bit 9: maintained in leaves only with SSADE, so ignored in legacy mode.
    pub dirty: bool,
    /// Bit 10, ignored.
    pub ignored_10: bool,
    /// SNP, bit 11: leaf only; reserved in other entries, and everywhere if ECAP.SC is 0.
    pub snoop: bool,
    /// Bits 51:12: frame of the next table or of the page; bits from the host address width up are reserved.
    #[bits(40)]
    pub frame: u64,
    /// Bits 61:52, ignored.
    #[bits(10)]
    pub ignored_high: u16,
    /// Bit 62, reserved (TM of older revisions).
    pub reserved_62: bool,
    /// Bit 63, ignored.
    pub ignored_63: bool,
}

const _: () = assert!(size_of::<SecondStageEntry>() as u64 == ENTRY_BYTES);
const _: () = assert!(SecondStageEntry::FRAME_OFFSET == 12 && SecondStageEntry::RESERVED_62_OFFSET == 62);
