//! What both stages have in common: levels, sizes, and which page-table entries are well formed.

use super::capability::Capabilities;
use crate::addr::{PAGE_SHIFT, Pa, Pfn};
use crate::spec::riscv::paging::{
    ENTRY_BYTES, LEVEL_BITS, MEMORY_TYPE_RESERVED, NAPOT_64K, NAPOT_64K_FRAMES, PageTableEntry, ROOT_EXTRA_BITS,
};

/// log2 of what an entry at `level` leads to or maps: 12 at level 1.
pub(crate) const fn page_shift(level: u8) -> u32 {
    PAGE_SHIFT + LEVEL_BITS * (level as u32).saturating_sub(1)
}

/// Where the entry for an address lies in a table of `level`.
pub(crate) const fn entry_pa(table: Pa, address: u64, level: u8) -> Pa {
    table.offset(((address >> page_shift(level)) & ((1 << LEVEL_BITS) - 1)) * ENTRY_BYTES)
}

/// The same in the root table of a second stage, which two address bits more index.
pub(crate) const fn root_entry_pa(table: Pa, address: u64, level: u8) -> Pa {
    table.offset(((address >> page_shift(level)) & ((1 << (LEVEL_BITS + ROOT_EXTRA_BITS)) - 1)) * ENTRY_BYTES)
}

/// Whether all bits above an address of the first stage are copies of its top bit.
pub(crate) const fn is_canonical(address: u64, levels: u8) -> bool {
    let width = page_shift(levels + 1);
    let top = (address as i64) >> (width - 1);
    top == 0 || top == -1
}

/// Whether an address is one of a second stage: two bits wider than a first stage, zero above.
pub(crate) const fn is_guest_physical(address: u64, levels: u8) -> bool {
    address >> (page_shift(levels + 1) + ROOT_EXTRA_BITS) == 0
}

/// A well-formed entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    /// Points at a table.
    NonLeaf { table: Pa, global: bool },
    /// Maps a page.
    Leaf(Leaf),
}

/// A leaf, before any check of permissions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leaf {
    /// First byte of the page.
    pub(crate) frame: Pa,
    /// log2 of its size.
    pub(crate) shift: u8,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) executable: bool,
    pub(crate) user: bool,
    pub(crate) global: bool,
    pub(crate) accessed: bool,
    pub(crate) dirty: bool,
    pub(crate) memory_type: u8,
}

impl Leaf {
    /// Whether A or D must be set for an access.
    pub(crate) const fn needs_update(&self, writes: bool) -> bool {
        !self.accessed || (writes && self.writable && !self.dirty)
    }
}

/// Privileged specification, "Virtual Address Translation Process", steps 3, 4 and 6, without the permissions. `None` is a
/// page fault.
pub(crate) fn decode(word: u64, level: u8, cap: &Capabilities) -> Option<Entry> {
    let entry = PageTableEntry::from_bits(word);
    let memory_type = entry.memory_type();
    let reserved = entry.reserved_54() != 0
        || (entry.software_59() != 0 && !cap.svrsw60t59b)
        || (memory_type != 0 && !cap.svpbmt)
        || memory_type == MEMORY_TYPE_RESERVED
        || (entry.napot() && level != 1);
    if !entry.valid() || (entry.write() && !entry.read()) || reserved {
        return None;
    }
    if !entry.read() && !entry.execute() {
        let leaf_bits = entry.accessed() || entry.dirty() || entry.user();
        if level <= 1 || memory_type != 0 || (leaf_bits && cap.reserves_non_leaf_bits) {
            return None;
        }
        return Some(Entry::NonLeaf { table: Pfn(entry.ppn()).pa(), global: entry.global() });
    }
    let (ppn, shift) = match entry.napot() {
        true if entry.ppn() % (1 << NAPOT_64K_FRAMES) == NAPOT_64K => (entry.ppn() - NAPOT_64K, PAGE_SHIFT + NAPOT_64K_FRAMES),
        true => return None,
        false => (entry.ppn(), page_shift(level)),
    };
    let frame = Pfn(ppn).pa();
    if !frame.is_aligned(1 << shift) {
        return None;
    }
    Some(Entry::Leaf(Leaf {
        frame,
        shift: shift as u8,
        readable: entry.read(),
        writable: entry.write(),
        executable: entry.execute(),
        user: entry.user(),
        global: entry.global(),
        accessed: entry.accessed(),
        dirty: entry.dirty(),
        memory_type,
    }))
}

/// The word with A set, and D if the access writes to a writable page.
pub(crate) fn with_access_bits(word: u64, writes: bool) -> u64 {
    let entry = PageTableEntry::from_bits(word);
    entry.with_accessed(true).with_dirty(entry.dirty() || (writes && entry.write())).into_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_stage_addresses_are_canonical_and_second_stage_ones_are_two_bits_wider() {
        assert!(is_canonical(0x3f_ffff_ffff, 3) && !is_canonical(0x40_0000_0000, 3) && is_canonical(u64::MAX << 38, 3));
        assert!(is_guest_physical((1 << 41) - 1, 3) && !is_guest_physical(1 << 41, 3));
        assert_eq!(root_entry_pa(Pa(0), (1 << 41) - 1, 3), Pa(2047 * 8));
        assert_eq!(entry_pa(Pa(0), (1 << 41) - 1, 3), Pa(511 * 8));
    }
}
