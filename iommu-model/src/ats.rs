//! Address translation services: what devices, units and software say to each other beside plain requests.
//!
//! A device that translates for itself asks the unit first (a translation request), keeps the answer in its
//! [`DeviceTlb`](crate::DeviceTlb), and then sends translated requests. Software takes the answer back with an
//! invalidation that only the device can complete. A device may also ask software for a page (a page request).
//!
//! Source: PCI Express base specification, chapter 10. Nothing here is particular to one architecture.

use crate::addr::{Bdf, Iova, PAGE_SHIFT, PAGE_SIZE, Pasid};

/// What a request is (AT field of the bus, and page requests).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub enum RequestKind {
    /// AT 00: a memory access at an address that the unit translates.
    #[default]
    Untranslated,
    /// AT 01: the device asks for a translation to keep.
    Translation {
        /// NW: the device will not write, so that neither write permission nor D is wanted.
        no_write: bool,
    },
    /// AT 10: a memory access at an address that the device has translated.
    Translated,
    /// A page request message: only whether the device may send such is looked up.
    PageRequest,
}

/// What the bus says of a request beside address, direction and PASID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Attributes {
    /// Untranslated, translation, translated, page request.
    pub kind: RequestKind,
    /// Privileged mode requested; a property of the PASID prefix, so that it counts only with a PASID.
    pub privileged: bool,
    /// Execute requested; a property of the PASID prefix, so that it counts only with a PASID.
    pub execute: bool,
}

impl Attributes {
    /// A plain memory access.
    pub const PLAIN: Self = Self { kind: RequestKind::Untranslated, privileged: false, execute: false };

    /// A translation request.
    #[must_use]
    pub const fn translation(no_write: bool) -> Self {
        Self { kind: RequestKind::Translation { no_write }, ..Self::PLAIN }
    }

    /// A translated request.
    #[must_use]
    pub const fn translated() -> Self {
        Self { kind: RequestKind::Translated, ..Self::PLAIN }
    }
}

/// How a translation request that met a fault is answered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum AtsAnswer {
    /// Success, with no permission granted; nothing is recorded.
    NoAccess,
    /// Unsupported Request.
    UnsupportedRequest,
    /// Completer Abort.
    CompleterAbort,
}

/// An aligned power-of-two range of pages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PageRange {
    /// Any address in the range; its low bits do not count.
    pub address: Iova,
    /// 2^order pages.
    pub order: u8,
}

impl PageRange {
    /// Every page.
    pub const ALL: Self = Self { address: Iova(0), order: 63 };

    /// The range that an address and a size bit mean (S of a device-TLB invalidation): without S one page; with it the
    /// position of the lowest 0 in the page number gives the size, so that all ones mean everything.
    #[must_use]
    pub const fn of_size_bit(page_number: u64, sized: bool) -> Self {
        let order = if sized { page_number.trailing_ones() as u8 + 1 } else { 0 };
        Self { address: Iova(page_number << PAGE_SHIFT), order }
    }

    /// First and last page number.
    #[must_use]
    pub const fn pages(self) -> (u64, u64) {
        if self.order as u32 >= u64::BITS - PAGE_SHIFT {
            return (0, u64::MAX >> PAGE_SHIFT);
        }
        let mask = (1u64 << self.order) - 1;
        let page = self.address.page_number();
        (page & !mask, page | mask)
    }

    /// Whether the range shares a page with the `span_bytes` at `first`, an aligned power of two.
    #[must_use]
    pub const fn overlaps(self, first: Iova, span_bytes: u64) -> bool {
        let (low, high) = self.pages();
        let first_page = first.page_number();
        let last_page = first_page + (span_bytes / PAGE_SIZE - 1);
        first_page <= high && low <= last_page
    }

    /// Whether the range holds all of the `span_bytes` at `first`; 0 bytes stand for every address.
    #[must_use]
    pub(crate) const fn holds(self, first: Iova, span_bytes: u64) -> bool {
        let (low, high) = self.pages();
        let (all_low, all_high) = Self::ALL.pages();
        if span_bytes == 0 {
            // All pages below bit 63 are all there are of a device TLB.
            return low == all_low && high >= all_high >> 1;
        }
        let first_page = first.page_number();
        let pages = if span_bytes < PAGE_SIZE { 1 } else { span_bytes / PAGE_SIZE };
        low <= first_page && first_page + (pages - 1) <= high
    }

    /// Whether the range is at least as large as a page of `page_bytes`.
    #[must_use]
    pub const fn covers_page_of(self, page_bytes: u64) -> bool {
        self.order as u32 >= page_bytes.trailing_zeros() - PAGE_SHIFT
    }
}

/// An invalidation on its way to a device. It is complete when the device says so.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeviceInvalidation {
    /// The function whose device TLB is meant.
    pub source: Bdf,
    /// Translations of this PASID, or those without.
    pub pasid: Option<Pasid>,
    /// Those of every PASID (G).
    pub every_pasid: bool,
    /// The pages.
    pub range: PageRange,
    /// ITag, 0 to 31: what the completion names.
    pub itag: u8,
}

/// A device asks software for a page (PRI).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PageRequest {
    /// The function that asks.
    pub source: Bdf,
    /// The address space.
    pub pasid: Option<Pasid>,
    /// The page; the low bits do not count.
    pub address: Iova,
    /// Read access is wanted.
    pub read: bool,
    /// Write access is wanted.
    pub write: bool,
    /// Execute access is wanted.
    pub execute: bool,
    /// For privileged use.
    pub privileged: bool,
    /// Last request of its group: software responds to the group.
    pub last: bool,
    /// Page request group index, 9 bits.
    pub group: u16,
}

/// How a page request group ended. Open: other codes are carried as they are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ResponseCode(pub u8);

impl ResponseCode {
    /// All pages are there now.
    pub const SUCCESS: Self = Self(0);
    /// Some page will never be there.
    pub const INVALID: Self = Self(1);
    /// Software or the unit cannot serve page requests of this device any more.
    pub const FAILURE: Self = Self(15);
}

/// The answer to a page request group, on its way to the device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PageResponse {
    /// The function that asked.
    pub source: Bdf,
    /// The address space, if the request named one.
    pub pasid: Option<Pasid>,
    /// The group.
    pub group: u16,
    /// The answer.
    pub code: ResponseCode,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ignores_the_low_bits_of_its_address() {
        let range = PageRange { address: Iova(0x1234_5000), order: 9 };
        assert_eq!(range.pages(), (0x1_2200, 0x1_23ff));
        assert!(range.overlaps(Iova(0x1220_0000), 4096));
        assert!(!range.overlaps(Iova(0x1240_0000), 4096));
        assert!(range.covers_page_of(2 << 20));
        assert!(!range.covers_page_of(1 << 30));
        assert!(PageRange::ALL.overlaps(Iova(u64::MAX), 4096));
    }

    #[test]
    fn the_lowest_zero_of_a_sized_address_gives_the_size() {
        assert_eq!(PageRange::of_size_bit(0x1_2345, false).pages(), (0x1_2345, 0x1_2345));
        assert_eq!(PageRange::of_size_bit(0x1_2344, true).pages(), (0x1_2344, 0x1_2345), "8 KiB");
        assert_eq!(PageRange::of_size_bit(0x1_22ff, true).pages(), (0x1_2200, 0x1_23ff), "2 MiB");
        assert_eq!(PageRange::of_size_bit(0x7_ffff_ffff_ffff, true).pages(), PageRange::ALL.pages());
        assert_eq!(PageRange::of_size_bit(u64::MAX >> 12, true).pages(), PageRange::ALL.pages());
    }
}
