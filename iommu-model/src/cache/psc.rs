//! Paging-structure caches, one a level: tag domain and address prefix, content the pointer to the next table and
//! the AND of the permissions so far.

use super::iotlb::{page_shift, space_of};
use super::store::{Cached, Key, Store};
use crate::addr::{DomainId, Iova, Pa, Pasid};
use crate::decision::{Decisions, Question, ask};
use crate::provenance::{ProvenanceId, Words};
use crate::timing::Geometry;

/// Lowest level whose non-leaf entries are cached.
const FIRST_LEVEL: u8 = 2;

/// One cached non-leaf entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PscEntry {
    /// Tag: domain.
    pub domain: DomainId,
    /// Tag: the PASID, if it is a first-stage entry.
    pub pasid: Option<Pasid>,
    /// Level of the cached entry, 2 to 5; its table is of the level below.
    pub level: u8,
    /// Tag: first address that the entry leads to.
    pub first: Iova,
    /// Bytes of address space that it leads to.
    pub span_bytes: u64,
    /// The next table; below a nested first stage its address is one of the guest.
    pub table: Pa,
    /// AND of R so far.
    pub readable: bool,
    /// AND of W so far.
    pub writable: bool,
    /// AND of U/S so far; always set in second-stage entries.
    pub user: bool,
    /// No entry so far denies execution.
    pub executable: bool,
    /// The words it was made from: root, context, the levels down to this one.
    pub provenance: ProvenanceId,
}

impl Cached for PscEntry {
    const BLANK: Self = Self {
        domain: DomainId(0),
        pasid: None,
        level: 0,
        first: Iova(0),
        span_bytes: 0,
        table: Pa(0),
        readable: false,
        writable: false,
        user: false,
        executable: false,
        provenance: ProvenanceId::NONE,
    };

    fn words(&self) -> ProvenanceId {
        self.provenance
    }
}

/// A prefix has at most 36 bits: 57 address bits without the 21 below the lowest cached level.
const fn key(domain: DomainId, space: u32, prefix: u64) -> Key {
    Key { tag: ((domain.0 as u64) << 48) | (prefix & 0xffff_ffff_ffff), space }
}

/// The caches of all levels.
#[derive(Clone, Debug)]
pub(crate) struct PscCache {
    levels: [Store<PscEntry>; 4],
    /// Bit n: entries of level n are cached at all.
    held: u8,
}

impl PscCache {
    pub(crate) fn new(geometry: &[Geometry; 4]) -> Self {
        let levels = geometry.map(Store::new);
        let held = (FIRST_LEVEL..).zip(&levels).fold(0, |held, (level, store)| held | u8::from(!store.is_off()) << level);
        Self { levels, held }
    }

    /// Whether every level is switched off, so that there is nothing to look up.
    pub(crate) fn is_off(&self) -> bool {
        self.held == 0
    }

    /// The entry with the longest prefix of `iova` whose level is at most `top`, marked as used.
    #[inline]
    pub(crate) fn lookup(&mut self, domain: DomainId, space: u32, iova: Iova, top: u8) -> Option<&PscEntry> {
        for level in FIRST_LEVEL..=top {
            let prefix = iova.0 >> page_shift(level);
            let store = &self.levels[usize::from(level - FIRST_LEVEL)];
            if let Some(place) = store.find(key(domain, space, prefix)) {
                let store = &mut self.levels[usize::from(level - FIRST_LEVEL)];
                store.touch(place);
                return Some(store.get(place));
            }
        }
        None
    }

    /// Whether entries of this level are cached at all.
    pub(crate) fn holds(&self, level: u8) -> bool {
        self.held >> level & 1 != 0
    }

    #[inline(always)]
    pub(crate) fn install(&mut self, entry: &PscEntry, words: &mut Words, d: &mut dyn Decisions) {
        let level = entry.level;
        let prefix = entry.first.0 >> page_shift(level);
        let key = key(entry.domain, space_of(entry.pasid), prefix);
        let store = &mut self.levels[usize::from(level - FIRST_LEVEL)];
        store.insert(prefix, key, *entry, words, |ways| ask(d, Question::EvictPsc { ways, level }));
    }

    pub(crate) fn retain(&mut self, words: &mut Words, mut keep: impl FnMut(&PscEntry) -> bool) -> u32 {
        self.levels.iter_mut().map(|store| store.retain(words, &mut keep)).sum()
    }

    pub(crate) fn clear(&mut self, words: &mut Words) -> u32 {
        self.levels.iter_mut().map(|store| store.clear(words)).sum()
    }

    pub(crate) fn reset(&mut self) {
        self.levels.iter_mut().for_each(Store::reset);
    }

    pub(crate) fn capacity(&self) -> usize {
        self.levels.iter().map(Store::capacity).sum()
    }

    pub(crate) fn len(&self) -> usize {
        self.levels.iter().map(Store::len).sum()
    }

    pub(crate) fn remove_nth(&mut self, mut n: usize, words: &mut Words) -> bool {
        for store in &mut self.levels {
            if store.remove_nth(n, words) {
                return true;
            }
            n -= store.len();
        }
        false
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &PscEntry> {
        self.levels.iter().flat_map(Store::iter)
    }
}
