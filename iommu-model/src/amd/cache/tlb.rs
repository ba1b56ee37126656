//! TLB: translations by address space, page and page size. Every power of two from 4 KiB up is a page size.

use super::space::{SIZE_SHIFT, Space};
use crate::addr::{DomainId, Iova, PAGE_SHIFT, Pa};
use crate::cache::store::{Cached, Key, Place, Store};
use crate::decision::{Decisions, Question, ask};
use crate::provenance::{ProvenanceId, Words};
use crate::request::Access;
use crate::timing::Geometry;

/// One cached translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TlbEntry {
    /// Tag: address space.
    pub space: Space,
    /// Tag: first address of the page.
    pub page: Iova,
    /// Tag: log2 of the page size, the smaller one of guest and host.
    pub shift: u8,
    /// First byte of the host page.
    pub frame: Pa,
    /// An entry was not present; only on units with NpCache.
    pub not_present: bool,
    /// The tables allow reads; the device table entry has its own say.
    pub readable: bool,
    /// The tables allow writes.
    pub writable: bool,
    /// It may serve writes without a walk: no D is left to be set.
    pub dirty: bool,
    /// The words it was made from.
    pub provenance: ProvenanceId,
}

impl Cached for TlbEntry {
    const BLANK: Self = Self {
        space: Space::Host(DomainId(0)),
        page: Iova(0),
        shift: PAGE_SHIFT as u8,
        frame: Pa(0),
        not_present: false,
        readable: false,
        writable: false,
        dirty: false,
        provenance: ProvenanceId::NONE,
    };

    fn words(&self) -> ProvenanceId {
        self.provenance
    }
}

impl TlbEntry {
    /// The host address of an address in this page.
    #[inline]
    #[must_use]
    pub const fn translate(&self, iova: Iova) -> Pa {
        Pa(self.frame.0 | (iova.0 & ((1 << self.shift) - 1)))
    }

    /// Whether an access needs no walk.
    #[inline]
    pub(crate) const fn serves(&self, access: Access) -> bool {
        let set = match access {
            Access::Read => true,
            Access::Write => self.dirty,
        };
        !self.not_present && set && access.allowed_by(self.readable, self.writable)
    }
}

#[inline(always)]
const fn key(space: Space, shift: u32, address: u64) -> Key {
    let (code, space) = space.code();
    Key { tag: address >> shift | (shift as u64) << SIZE_SHIFT | code, space }
}

/// The cache.
#[derive(Clone, Debug)]
pub(crate) struct Tlb {
    store: Store<TlbEntry>,
    /// Bit n: a page of 2^n bytes was installed since the last clear. Other sizes need no look-up.
    sizes: u64,
}

impl Tlb {
    pub(crate) fn new(geometry: Geometry) -> Self {
        Self { store: Store::new(geometry), sizes: 0 }
    }

    /// The only entry that serves an address; `None` also if there are several. Does not count as use.
    #[inline(always)]
    pub(crate) fn find_one(&self, space: Space, address: u64) -> Option<Place> {
        const SMALL: u64 = 1 << PAGE_SHIFT;
        // Most units see one page size only.
        if self.sizes == SMALL { self.store.find(key(space, PAGE_SHIFT, address)) } else { self.find_one_of_any_size(space, address) }
    }

    #[cold]
    fn find_one_of_any_size(&self, space: Space, address: u64) -> Option<Place> {
        let mut found = None;
        for place in self.matching(space, address) {
            if found.is_some() {
                return None;
            }
            found = Some(place);
        }
        found
    }

    fn matching(&self, space: Space, address: u64) -> impl Iterator<Item = Place> {
        let mut left = self.sizes;
        core::iter::from_fn(move || {
            let shift = left.trailing_zeros();
            left &= left.wrapping_sub(1);
            (shift < u64::BITS).then_some(shift)
        })
        .filter_map(move |shift| self.store.find(key(space, shift, address)))
    }

    #[inline(always)]
    pub(crate) fn get(&self, place: Place) -> &TlbEntry {
        self.store.get(place)
    }

    #[inline(always)]
    pub(crate) fn touch(&mut self, place: Place) {
        self.store.touch(place);
    }

    /// The entry that serves an address, marked as used.
    #[inline(always)]
    pub(crate) fn lookup(&mut self, space: Space, address: u64, d: &mut dyn Decisions) -> Option<&TlbEntry> {
        let place = match self.find_one(space, address) {
            Some(place) => place,
            None if self.sizes.count_ones() <= 1 => return None,
            None => self.choose(space, address, d)?,
        };
        self.store.touch(place);
        Some(self.store.get(place))
    }

    /// None matches, or entries of more than one size do.
    #[cold]
    fn choose(&self, space: Space, address: u64, d: &mut dyn Decisions) -> Option<Place> {
        let ways = self.matching(space, address).count() as u32;
        let chosen = if ways == 0 { return None } else { ask(d, Question::ChooseIotlb { ways }) };
        self.matching(space, address).nth(chosen as usize)
    }

    pub(crate) fn install(&mut self, entry: TlbEntry, words: &mut Words, d: &mut dyn Decisions) {
        if self.store.is_off() {
            return;
        }
        self.sizes |= 1 << entry.shift;
        let key = key(entry.space, u32::from(entry.shift), entry.page.0);
        self.store.insert(entry.page.0 >> entry.shift, key, entry, words, |ways| ask(d, Question::EvictIotlb { ways }));
    }

    pub(crate) fn retain(&mut self, words: &mut Words, keep: impl FnMut(&TlbEntry) -> bool) -> u32 {
        self.store.retain(words, keep)
    }

    pub(crate) fn clear(&mut self, words: &mut Words) -> u32 {
        self.sizes = 0;
        self.store.clear(words)
    }

    pub(crate) fn reset(&mut self) {
        self.sizes = 0;
        self.store.reset();
    }

    pub(crate) fn capacity(&self) -> usize {
        self.store.capacity()
    }

    pub(crate) fn len(&self) -> usize {
        self.store.len()
    }

    pub(crate) fn remove_nth(&mut self, n: usize, words: &mut Words) -> bool {
        self.store.remove_nth(n, words)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &TlbEntry> {
        self.store.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Pasid;

    #[test]
    fn keys_of_different_spaces_sizes_and_pages_differ() {
        let spaces = [
            Space::Host(DomainId(0)),
            Space::Host(DomainId(0xffff)),
            Space::Guest(DomainId(0), Pasid(0)),
            Space::Guest(DomainId(0), Pasid(0xf_0000)),
            Space::Guest(DomainId(0), Pasid(0x1_0000)),
            Space::Guest(DomainId(1), Pasid(0xffff)),
        ];
        let mut seen = Vec::new();
        for space in spaces {
            for shift in [12, 13, 21, 51, 56] {
                for address in [0, 1 << 57, u64::MAX] {
                    let key = key(space, shift, address);
                    assert!(!seen.contains(&(key.tag, key.space)), "{space:?} {shift} {address:#x}");
                    seen.push((key.tag, key.space));
                }
            }
        }
    }
}
