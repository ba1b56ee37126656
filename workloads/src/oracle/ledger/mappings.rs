//! Reference mappings of one domain: what successful calls promised, and what calls under way may be changing.

use smallvec::SmallVec;

/// A run of pages that is, or may become, mapped. All in pages and frames of 4 KiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Extent {
    /// First page.
    pub(crate) page: u64,
    /// Number of pages.
    pub(crate) pages: u64,
    /// Frame of the first page.
    pub(crate) pfn: u64,
    /// Bit 0 read, bit 1 write.
    pub(crate) prot: u8,
    /// A call promised it; else it may be gone (an unmap ended before it was done).
    pub(crate) sure: bool,
}

impl Extent {
    fn end(&self) -> u64 {
        self.page + self.pages
    }
    fn holds(&self, page: u64) -> bool {
        page >= self.page && page < self.end()
    }
    fn pfn_of(&self, page: u64) -> u64 {
        self.pfn + (page - self.page)
    }
    /// The part of it inside `[page, page + pages)`, which must not be empty.
    fn part(&self, page: u64, pages: u64) -> Extent {
        let first = self.page.max(page);
        let end = self.end().min(page + pages);
        Extent { page: first, pages: end - first, pfn: self.pfn_of(first), ..*self }
    }
}

/// What a page may lead to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    /// The frame.
    pub(crate) pfn: u64,
    /// Bit 0 read, bit 1 write.
    pub(crate) prot: u8,
    /// True when nothing else, and no fault, is legal.
    pub(crate) sure: bool,
}

/// The mappings of a domain.
#[derive(Clone, Default, Debug)]
pub(crate) struct Mappings {
    /// Mapped, sorted by page, no overlaps.
    settled: Vec<Extent>,
    /// Maps under way.
    mapping: SmallVec<[Extent; 4]>,
    /// Unmaps under way: first page, number of pages.
    unmapping: SmallVec<[(u64, u64); 4]>,
}

impl Mappings {
    /// A map call is entered.
    pub(crate) fn begin_map(&mut self, extent: Extent) {
        self.mapping.push(extent);
    }

    /// It returned. On failure nothing of it is left.
    pub(crate) fn end_map(&mut self, page: u64, pages: u64, success: bool) {
        let Some(at) = self.mapping.iter().position(|extent| extent.page == page && extent.pages == pages) else { return };
        let extent = self.mapping.swap_remove(at);
        if success {
            self.carve(page, pages);
            let at = self.settled.partition_point(|other| other.page < page);
            self.settled.insert(at, extent);
        }
    }

    /// An unmap call is entered.
    pub(crate) fn begin_unmap(&mut self, page: u64, pages: u64) {
        self.unmapping.push((page, pages));
    }

    /// It returned: the first `unmapped` pages are gone, the rest of the range may be either way.
    pub(crate) fn end_unmap(&mut self, page: u64, pages: u64, unmapped: u64) {
        if let Some(at) = self.unmapping.iter().position(|range| *range == (page, pages)) {
            self.unmapping.swap_remove(at);
        }
        self.carve(page, unmapped);
        let rest = page + unmapped;
        for extent in self.settled.iter_mut().filter(|extent| extent.page < page + pages && rest < extent.end()) {
            extent.sure = false;
        }
    }

    /// Every frame that some page leads to, or may lead to.
    pub(crate) fn frames(&self, mut each: impl FnMut(u64)) {
        let extents = self.settled.iter().chain(&self.mapping);
        extents.flat_map(|extent| extent.pfn..extent.pfn + extent.pages).for_each(&mut each);
    }

    /// Every page that certainly is mapped, with the frame it leads to.
    pub(crate) fn sure_pages(&self) -> impl Iterator<Item = (u64, u64)> {
        let going = |page: u64| self.unmapping.iter().any(|(first, pages)| page >= *first && page < first + pages);
        let sure = self.settled.iter().filter(|extent| extent.sure);
        let pages = sure.flat_map(|extent| (extent.page..extent.end()).map(|page| (page, extent.pfn_of(page))));
        pages.filter(move |(page, _)| !going(*page))
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.settled.clear();
        self.mapping.clear();
        self.unmapping.clear();
    }

    /// What the page may lead to, one call a candidate.
    pub(crate) fn targets(&self, page: u64, mut each: impl FnMut(Target)) {
        let at = self.settled.partition_point(|extent| extent.page <= page);
        if let Some(extent) = at.checked_sub(1).map(|at| &self.settled[at]).filter(|extent| extent.holds(page)) {
            let going = self.unmapping.iter().any(|(first, pages)| page >= *first && page < first + pages);
            each(Target { pfn: extent.pfn_of(page), prot: extent.prot, sure: extent.sure && !going });
        }
        for extent in self.mapping.iter().filter(|extent| extent.holds(page)) {
            each(Target { pfn: extent.pfn_of(page), prot: extent.prot, sure: false });
        }
    }

    /// True when some page of the range is, or may become, mapped.
    pub(crate) fn any_in(&self, page: u64, pages: u64) -> bool {
        let overlaps = |extent: &Extent| extent.page < page + pages && page < extent.end();
        self.settled.iter().chain(&self.mapping).any(overlaps)
    }

    /// True when every page of the range is mapped for sure.
    pub(crate) fn all_in(&self, page: u64, pages: u64) -> bool {
        let mut at = page;
        for extent in self.settled.iter().filter(|extent| extent.sure && extent.end() > page) {
            if extent.page > at {
                break;
            }
            at = extent.end();
        }
        at >= page + pages && self.unmapping.is_empty()
    }

    /// Takes the range out of what is settled.
    fn carve(&mut self, page: u64, pages: u64) {
        if pages == 0 {
            return;
        }
        let end = page.saturating_add(pages);
        let mut at = self.settled.partition_point(|extent| extent.end() <= page);
        while at < self.settled.len() && self.settled[at].page < end {
            let extent = self.settled[at];
            let before = (extent.page < page).then(|| extent.part(0, page));
            let after = (extent.end() > end).then(|| extent.part(end, extent.end() - end));
            match (before, after) {
                (None, None) => {
                    self.settled.remove(at);
                }
                (Some(part), None) | (None, Some(part)) => {
                    self.settled[at] = part;
                    at += 1;
                }
                (Some(before), Some(after)) => {
                    self.settled[at] = before;
                    self.settled.insert(at + 1, after);
                    at += 2;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mappings: &Mappings, page: u64) -> Vec<Target> {
        let mut out = Vec::new();
        mappings.targets(page, |target| out.push(target));
        out
    }

    fn extent(page: u64, pages: u64, pfn: u64) -> Extent {
        Extent { page, pages, pfn, prot: 3, sure: true }
    }

    // Goal: a page is a candidate from the entry of map, and certain from its success on.
    #[test]
    fn a_map_under_way_promises_nothing() {
        let mut m = Mappings::default();
        m.begin_map(extent(10, 4, 100));
        assert_eq!(all(&m, 11), [Target { pfn: 101, prot: 3, sure: false }]);
        m.end_map(10, 4, true);
        assert_eq!(all(&m, 11), [Target { pfn: 101, prot: 3, sure: true }]);
        m.begin_map(extent(20, 1, 7));
        m.end_map(20, 1, false);
        assert_eq!(all(&m, 20), []);
    }

    // Goal: an unmap takes exactly what it says it unmapped, and leaves the rest of its range in doubt.
    #[test]
    fn an_unmap_that_stops_early_leaves_the_rest_in_doubt() {
        let mut m = Mappings::default();
        m.begin_map(extent(0, 16, 100));
        m.end_map(0, 16, true);
        m.begin_unmap(4, 8);
        assert!(!all(&m, 5)[0].sure);
        m.end_unmap(4, 8, 2);
        assert_eq!(all(&m, 5), []);
        assert_eq!(all(&m, 3), [Target { pfn: 103, prot: 3, sure: true }]);
        assert!(!all(&m, 6)[0].sure);
        assert!(m.any_in(5, 2) && !m.any_in(4, 2));
        assert!(m.all_in(0, 4) && !m.all_in(0, 5));
    }
}
