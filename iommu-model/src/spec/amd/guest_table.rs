//! Guest translation: GCR3 table and guest page tables ("v2"). 48882 section 2.2.6.

use bitfield_struct::bitfield;

/// Bytes of an entry of either kind of table.
pub const ENTRY_BYTES: u64 = 8;
/// PASID bits, or address bits, that each level decodes: 512 entries a table.
pub const LEVEL_BITS: u32 = 9;
/// Bits of a PASID.
pub const PASID_BITS: u32 = 20;

/// Entry of a GCR3 table: of the last level it points at a guest page table, else at the next GCR3 table. LX.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct GuestCr3Entry {
    /// V, bit 0.
    pub valid: bool,
    /// Bits 11:1: reserved, or cache attributes of the guest; ignored here.
    #[bits(11)]
    pub ignored_1: u16,
    /// Bits 51:12: a frame.
    #[bits(40)]
    pub frame: u64,
    /// Bits 63:52: reserved; ignored here.
    #[bits(12)]
    pub ignored_52: u16,
}

/// Guest page-table entry, every level: the AMD64 long-mode format.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct GuestEntry {
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
    /// D, bit 6: set in the leaf by a write.
    pub dirty: bool,
    /// PS, bit 7: leaf at level 2 or 3; PAT at level 1; reserved 0 at 4 and 5.
    pub page_size: bool,
    /// G, bit 8: leaf only.
    pub global: bool,
    /// Bits 11:9, ignored.
    #[bits(3)]
    pub ignored_9: u8,
    /// Bits 51:12: frame of the next table or of the page; in a large leaf bit 12 is PAT.
    #[bits(40)]
    pub frame: u64,
    /// Bits 62:52, ignored.
    #[bits(11)]
    pub ignored_52: u16,
    /// NX, bit 63: counts only for execute requests, which are not modelled.
    pub no_execute: bool,
}

const _: () = assert!(GuestCr3Entry::FRAME_OFFSET == 12 && GuestEntry::FRAME_OFFSET == 12 && GuestEntry::NO_EXECUTE_OFFSET == 63);
