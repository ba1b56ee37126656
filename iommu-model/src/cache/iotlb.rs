//! IOTLB: tag domain, page and page size, and the PASID for what went through a first stage; content the final address
//! and permissions. All page sizes share it.
//!
//! Entries of different sizes for one address may stand side by side, as on hardware when software changes a
//! page size without invalidating; which one a look-up takes is asked of the caller.

use super::store::{Cached, Key, Place, Store};
use crate::addr::{DomainId, Iova, PAGE_SHIFT, Pa, Pasid};
use crate::decision::{Decisions, Question, ask};
use crate::provenance::{ProvenanceId, Words};
use crate::request::Access;
use crate::spec::vtd::fault::FaultReason;
use crate::spec::vtd::second_stage::LEVEL_BITS;
use crate::timing::Geometry;

/// Levels that can hold a leaf: 4 KiB, 2 MiB, 1 GiB.
const LEAF_LEVELS: u32 = 3;

/// log2 of the page size of a leaf at `level`.
pub(crate) const fn page_shift(level: u8) -> u32 {
    PAGE_SHIFT + LEVEL_BITS * (level as u32).saturating_sub(1)
}

/// One cached translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IotlbEntry {
    /// Tag: domain.
    pub domain: DomainId,
    /// Tag: the PASID, if a first stage was used, alone or on a second stage; else the domain alone is the tag.
    pub pasid: Option<Pasid>,
    /// Tag: first address of the page.
    pub page: Iova,
    /// Tag: page size in bytes.
    pub page_bytes: u64,
    /// First byte of the host page.
    pub frame: Pa,
    /// AND of R over all levels.
    pub readable: bool,
    /// AND of W over all levels.
    pub writable: bool,
    /// It may serve writes without a walk: D is set, or nobody maintains it.
    pub dirty: bool,
    /// No entry denies execution.
    pub executable: bool,
    /// Set for an erroneous entry that CM = 1 let in. A not-present entry let in by CM = 1 is one with neither
    /// permission and no reason here.
    pub fault: Option<FaultReason>,
    /// The words it was made from: root, context, every level.
    pub provenance: ProvenanceId,
}

impl Cached for IotlbEntry {
    const BLANK: Self = Self {
        domain: DomainId(0),
        pasid: None,
        page: Iova(0),
        page_bytes: 0,
        frame: Pa(0),
        readable: false,
        writable: false,
        dirty: false,
        executable: false,
        fault: None,
        provenance: ProvenanceId::NONE,
    };

    fn words(&self) -> ProvenanceId {
        self.provenance
    }
}

impl IotlbEntry {
    /// Whether the access needs no walk and no refusal.
    #[inline]
    #[must_use]
    pub const fn serves(&self, access: Access) -> bool {
        match access {
            Access::Read => self.readable,
            Access::Write => self.writable && self.dirty,
        }
    }

    /// The host address of an address in this page.
    #[must_use]
    pub const fn translate(&self, iova: Iova) -> Pa {
        Pa(self.frame.0 | (iova.0 & (self.page_bytes - 1)))
    }
}

/// Bits of the number of a 4 KiB page in a 57-bit address.
const NUMBER_BITS: u32 = 45;

/// The address space of a domain without PASID, or of one PASID of it.
#[inline(always)]
pub(crate) const fn space_of(pasid: Option<Pasid>) -> u32 {
    match pasid {
        Some(pasid) => pasid.0 | PASID_SPACE,
        None => 0,
    }
}

/// Set in the space of a PASID; PASIDs have 20 bits.
const PASID_SPACE: u32 = 1 << 31;

/// Domain, size and page number in one word; a canonical address keeps its meaning without the copies of its top bit.
#[inline(always)]
pub(crate) const fn key(domain: DomainId, space: u32, level: u8, number: u64) -> Key {
    let number = number & ((1 << NUMBER_BITS) - 1);
    Key { tag: ((domain.0 as u64) << (NUMBER_BITS + 2)) | ((level as u64) << NUMBER_BITS) | number, space }
}

/// The cache.
#[derive(Clone, Debug)]
pub(crate) struct IotlbCache {
    store: Store<IotlbEntry>,
    /// Bit n: an entry of leaf level n + 1 was installed since the last clear. Other sizes need no look-up.
    sizes: u8,
}

impl IotlbCache {
    pub(crate) fn new(geometry: Geometry) -> Self {
        Self { store: Store::new(geometry), sizes: 0 }
    }

    /// The only entry that serves an address; `None` also if there are several. Does not count as use.
    #[inline(always)]
    pub(crate) fn find_one(&self, domain: DomainId, space: u32, iova: Iova) -> Option<Place> {
        // Most units see one page size only.
        if self.sizes == 1 { self.find(domain, space, iova, 1) } else { self.find_one_of_any_size(domain, space, iova) }
    }

    #[cold]
    fn find_one_of_any_size(&self, domain: DomainId, space: u32, iova: Iova) -> Option<Place> {
        let mut found = None;
        let mut left = self.sizes;
        while left != 0 {
            let place = self.find(domain, space, iova, left.trailing_zeros() as u8 + 1);
            left &= left - 1;
            if place.is_some() && found.is_some() {
                return None;
            }
            found = found.or(place);
        }
        found
    }

    #[inline(always)]
    pub(crate) fn get(&self, place: Place) -> &IotlbEntry {
        self.store.get(place)
    }

    #[inline(always)]
    pub(crate) fn touch(&mut self, place: Place) {
        self.store.touch(place);
    }

    /// The entry that serves an address, marked as used.
    #[inline(always)]
    pub(crate) fn lookup(&mut self, domain: DomainId, space: u32, iova: Iova, d: &mut dyn Decisions) -> Option<&IotlbEntry> {
        let Some(place) = self.find_one(domain, space, iova) else {
            return if self.sizes <= 1 { None } else { self.lookup_several(domain, space, iova, d) };
        };
        self.store.touch(place);
        Some(self.store.get(place))
    }

    #[inline(always)]
    fn find(&self, domain: DomainId, space: u32, iova: Iova, level: u8) -> Option<Place> {
        let number = iova.0 >> page_shift(level);
        self.store.find(key(domain, space, level, number))
    }

    /// None matches, or entries of more than one size do.
    #[cold]
    fn lookup_several(&mut self, domain: DomainId, space: u32, iova: Iova, d: &mut dyn Decisions) -> Option<&IotlbEntry> {
        let matching = || (1..=LEAF_LEVELS as u8).filter_map(|level| self.find(domain, space, iova, level));
        let ways = matching().count() as u32;
        let place = matching().nth(ask(d, Question::ChooseIotlb { ways }) as usize)?;
        self.store.touch(place);
        Some(self.store.get(place))
    }

    #[inline(never)]
    pub(crate) fn install(&mut self, entry: &IotlbEntry, words: &mut Words, d: &mut dyn Decisions) {
        if self.store.is_off() {
            return;
        }
        let shift = entry.page_bytes.trailing_zeros();
        let level = ((shift - PAGE_SHIFT) / LEVEL_BITS + 1) as u8;
        let number = entry.page.0 >> shift;
        self.sizes |= 1 << (level - 1);
        let key = key(entry.domain, space_of(entry.pasid), level, number);
        self.store.insert(number, key, *entry, words, |ways| ask(d, Question::EvictIotlb { ways }));
    }

    pub(crate) fn retain(&mut self, words: &mut Words, keep: impl FnMut(&IotlbEntry) -> bool) -> u32 {
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

    pub(crate) fn iter(&self) -> impl Iterator<Item = &IotlbEntry> {
        self.store.iter()
    }
}
