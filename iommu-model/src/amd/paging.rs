//! Levels, sizes, and which page-table entries are well formed.

use crate::addr::{PAGE_SHIFT, Pa, Pfn};
use crate::spec::amd::event::EventFlags;
use crate::spec::amd::guest_table::GuestEntry;
use crate::spec::amd::host_table::{ENTRY_BYTES, HostEntry, LEVEL_BITS, LEVELS_MAX, NEXT_LEAF, NEXT_SIZED};

/// log2 of what an entry of a table of `level` leads to or maps by nature: 12 at level 1.
pub(crate) const fn page_shift(level: u8) -> u32 {
    PAGE_SHIFT + LEVEL_BITS * (level as u32).saturating_sub(1)
}

/// Where the entry for an address lies in a table of `level`.
pub(crate) const fn entry_pa(table: Pa, address: u64, level: u8) -> Pa {
    table.offset(((address >> page_shift(level)) & ((1 << LEVEL_BITS) - 1)) * ENTRY_BYTES)
}

/// Address bits from those that a table of `level` decodes up.
const fn bits_from(level: u8) -> u64 {
    if page_shift(level) >= u64::BITS { 0 } else { u64::MAX << page_shift(level) }
}

/// Address bits that a pointer from a table of `level` to one of `next` skips.
pub(crate) const fn skipped_bits(level: u8, next: u8) -> u64 {
    bits_from(next + 1) & !bits_from(level)
}

/// Address bits above those that a host page table of `levels` levels decodes.
pub(crate) const fn bits_above(levels: u8) -> u64 {
    bits_from(levels + 1)
}

/// Whether all bits above an address of a guest page table are copies of its top bit.
pub(crate) const fn is_canonical(address: u64, levels: u8) -> bool {
    let top = (address as i64) >> (page_shift(levels + 1) - 1);
    top == 0 || top == -1
}

/// A well-formed host entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HostStep {
    /// Points at a table of a lower level.
    Table { table: Pa, level: u8 },
    /// Maps a page.
    Leaf { frame: Pa, shift: u8 },
}

/// What a present host entry leads to. 48882 section 2.2.3.
///
/// # Errors
///
/// Flags of the page fault: with RZ a reserved bit is set, without it the level is invalid.
pub(crate) fn decode_host(entry: HostEntry, level: u8, checks_reserved: bool) -> Result<HostStep, EventFlags> {
    let malformed = EventFlags::new().with_present(true);
    let next = entry.next_level();
    let is_leaf = next == NEXT_LEAF || next == NEXT_SIZED;
    let reserved = entry.reserved_52() != 0 || (!is_leaf && (entry.untranslated() || entry.force_coherent()));
    if is_leaf && level >= LEVELS_MAX || !is_leaf && next >= level {
        return Err(malformed);
    }
    if reserved && checks_reserved {
        return Err(malformed.with_reserved_not_zero(true));
    }
    let natural = page_shift(level);
    let shift = match next {
        NEXT_LEAF => natural,
        NEXT_SIZED => PAGE_SHIFT + entry.frame().trailing_ones() + 1,
        _ => return Ok(HostStep::Table { table: Pfn(entry.frame()).pa(), level: next }),
    };
    // A size has to be larger than that of its level and smaller than that of the next one.
    if next == NEXT_SIZED && !(natural < shift && shift < page_shift(level + 1)) {
        return Err(malformed);
    }
    Ok(HostStep::Leaf { frame: Pa(Pfn(entry.frame()).pa().0 & !((1 << shift) - 1)), shift: shift as u8 })
}

/// Whether a guest entry is a leaf.
///
/// # Errors
///
/// A reserved bit is set.
pub(crate) fn is_guest_leaf(entry: GuestEntry, level: u8) -> Result<bool, ()> {
    match level {
        1 => Ok(true),
        2 | 3 if entry.page_size() => {
            // The lowest bit of the frame is PAT.
            let low = (1 << (page_shift(level) - PAGE_SHIFT)) - 1;
            if entry.frame() & low & !1 == 0 { Ok(true) } else { Err(()) }
        }
        _ if entry.page_size() && level >= 4 => Err(()),
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_zero_bit_of_the_address_tells_the_size_of_a_page() {
        let sized = HostEntry::new().with_present(true).with_next_level(NEXT_SIZED);
        let leaf = |frame, level| decode_host(sized.with_frame(frame), level, true);
        assert_eq!(leaf(0x10, 1), Ok(HostStep::Leaf { frame: Pa(0x1_0000), shift: 13 }));
        assert_eq!(leaf(0x17, 1), Ok(HostStep::Leaf { frame: Pa(0x1_0000), shift: 16 }));
        assert_eq!(leaf(0xff, 1), Err(EventFlags::new().with_present(true)), "2 MiB is a leaf of level 2 by nature");
        assert_eq!(leaf(0x1ff, 2), Ok(HostStep::Leaf { frame: Pa(0), shift: 22 }));
        assert!(leaf(0x10, 2).is_err(), "8 KiB at level 2");
        assert!(leaf((1 << 40) - 1, 4).is_err(), "no zero bit at all");
        assert!(leaf(0, 6).is_err(), "a table of level 6 has no leaves");
    }

    #[test]
    fn skipped_bits_are_those_between_both_levels() {
        assert_eq!(skipped_bits(3, 2), 0);
        assert_eq!(skipped_bits(4, 1), 0x7f_ffe0_0000);
        assert_eq!(bits_above(6), 0);
        assert_eq!(bits_above(5), !((1 << 57) - 1));
        assert!(is_canonical(u64::MAX << 47, 4) && !is_canonical(1 << 47, 4) && is_canonical(1 << 47, 5));
    }
}
