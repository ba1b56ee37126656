//! First-stage paging entries: the x86-64 format.

use bitfield_struct::bitfield;

/// First-stage paging entry, every level. VT-d specification, first-stage paging entries; facts agree in Linux
/// `generic_pt/fmt/x86_64.h` 7.3.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct FirstStageEntry {
    /// P, bit 0.
    pub present: bool,
    /// R/W, bit 1: writes are allowed.
    pub write: bool,
    /// U/S, bit 2: user requests are allowed.
    pub user: bool,
    /// PWT, PCD, bits 4:3.
    #[bits(2)]
    pub cache: u8,
    /// A, bit 5: set in every entry used.
    pub accessed: bool,
    /// D, bit 6: set in the leaf by a write; ignored in other entries.
    pub dirty: bool,
    /// PS, bit 7: leaf at level 2 or 3; PAT at level 1; reserved at 4 and 5.
    pub page_size: bool,
    /// G, bit 8: leaf only.
    pub global: bool,
    /// Bit 9, ignored.
    pub ignored_9: bool,
    /// EA, bit 10: only with EAFE.
    pub extended_accessed: bool,
    /// Bit 11, ignored.
    pub ignored_11: bool,
    /// Bits 51:12: frame of the next table or of the page; in a superpage leaf bit 12 is PAT.
    #[bits(40)]
    pub frame: u64,
    /// Bits 62:52, ignored.
    #[bits(11)]
    pub ignored_52: u16,
    /// XD, bit 63: counts only for execute requests, which are not modelled.
    pub execute_disable: bool,
}

/// PAT in a superpage leaf, as a bit of the frame field.
pub const SUPERPAGE_PAT: u64 = 1;

const _: () = assert!(FirstStageEntry::FRAME_OFFSET == 12 && FirstStageEntry::EXECUTE_DISABLE_OFFSET == 63);
