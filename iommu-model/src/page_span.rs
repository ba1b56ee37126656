//! Pages that an invalidation names, as AMD-Vi and RISC-V code them.

use crate::addr::{Iova, PAGE_SHIFT, PAGE_SIZE};

/// Pages of 4 KiB, first to last, both in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressRange {
    /// Number of the first page.
    pub first: u64,
    /// Number of the last page.
    pub last: u64,
}

/// Largest page number.
const PAGE_LAST: u64 = u64::MAX >> PAGE_SHIFT;

impl AddressRange {
    /// Every page.
    pub const ALL: Self = Self { first: 0, last: PAGE_LAST };

    /// One page.
    #[must_use]
    pub const fn page(address: Iova) -> Self {
        Self { first: address.page_number(), last: address.page_number() }
    }

    /// What a page number and a size bit name: with the bit the lowest 0 of the number has half the size. With no 0 at all
    /// everything, which both manuals leave open.
    pub(crate) const fn decode(page: u64, sized: bool) -> Self {
        if !sized {
            return Self { first: page, last: page };
        }
        let bits = page.trailing_ones() + 1;
        let low = if bits >= u64::BITS - PAGE_SHIFT { PAGE_LAST } else { (1 << bits) - 1 };
        Self { first: page & !low, last: page | low }
    }

    /// Whether it shares a page with the 2^`shift` bytes around an address.
    #[must_use]
    pub const fn overlaps(self, address: Iova, shift: u32) -> bool {
        let page = address.page_number();
        let low = if shift >= u64::BITS { PAGE_LAST } else { (1 << (shift - PAGE_SHIFT)) - 1 };
        page & !low <= self.last && self.first <= page | low
    }

    /// Whether it holds all of the `span_bytes` at `first`; 0 bytes stand for every address.
    #[must_use]
    pub(crate) const fn holds(self, first: Iova, span_bytes: u64) -> bool {
        if span_bytes == 0 {
            return self.is_all();
        }
        let page = first.page_number();
        let pages = if span_bytes < PAGE_SIZE { 1 } else { span_bytes / PAGE_SIZE };
        self.first <= page && page + (pages - 1) <= self.last
    }

    /// Whether it is at least as large as 2^`shift` bytes.
    #[must_use]
    pub const fn is_as_large_as(self, shift: u32) -> bool {
        self.last - self.first >= (1 << (shift - PAGE_SHIFT)) - 1
    }

    /// Whether it is every page.
    #[must_use]
    pub const fn is_all(self) -> bool {
        self.first == 0 && self.last == PAGE_LAST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_zero_bit_gives_the_size_of_a_range() {
        assert_eq!(AddressRange::decode(0b1000, true), AddressRange { first: 0b1000, last: 0b1001 });
        assert_eq!(AddressRange::decode(0b1011, true), AddressRange { first: 0b1000, last: 0b1111 });
        assert_eq!(AddressRange::decode(0x7_ffff_ffff_ffff, true), AddressRange::ALL, "what Linux sends for everything");
        assert_eq!(AddressRange::decode(PAGE_LAST, true), AddressRange::ALL);
        assert_eq!(AddressRange::decode(7, false), AddressRange { first: 7, last: 7 });
    }

    #[test]
    fn a_range_meets_and_holds_pages_of_any_size() {
        let two = AddressRange::decode(0x200, true);
        assert!(two.overlaps(Iova(0x20_0000), 21) && !two.overlaps(Iova(0x40_0000), 21) && two.overlaps(Iova(0), 64));
        assert!(two.is_as_large_as(13) && !two.is_as_large_as(14));
        assert!(AddressRange::page(Iova(0x20_3000)).overlaps(Iova(0x20_0000), 21));
        assert!(!AddressRange::page(Iova(0x40_0000)).overlaps(Iova(0x20_0000), 21));
        assert!(two.holds(Iova(0x20_0000), 0x2000) && !two.holds(Iova(0x20_1000), 0x2000) && !two.holds(Iova(0), 0));
        assert!(AddressRange::ALL.holds(Iova(0), 0));
    }
}
