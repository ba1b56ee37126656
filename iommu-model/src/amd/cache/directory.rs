//! Page-directory caches: non-leaf entries of host and guest page tables, by the level of the entry.

use super::space::{SIZE_SHIFT, Space};
use crate::addr::{DomainId, Iova, Pa};
use crate::amd::paging::page_shift;
use crate::cache::store::{Cached, Key, Store};
use crate::decision::{Decisions, Question, ask};
use crate::provenance::{ProvenanceId, Words};
use crate::timing::Geometry;

/// Lowest level of a non-leaf entry.
const FIRST_LEVEL: u8 = 2;
/// Levels 2 to 6.
const LEVELS: usize = 5;

/// One cached non-leaf entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirectoryEntry {
    /// Tag: address space.
    pub space: Space,
    /// Tag: level of the table that the entry is in.
    pub level: u8,
    /// Tag: first address that the entry leads to.
    pub first: Iova,
    /// The next table; below a nested guest translation its address is one of the guest.
    pub table: Pa,
    /// Level of the next table: of a host entry, perhaps lower than the next one down.
    pub table_level: u8,
    /// This entry and those above allow reads.
    pub readable: bool,
    /// This entry and those above allow writes.
    pub writable: bool,
    /// This entry and those above allow user requests; true of host entries.
    pub user: bool,
    /// The words it was made from.
    pub provenance: ProvenanceId,
}

impl Cached for DirectoryEntry {
    const BLANK: Self = Self {
        space: Space::Host(DomainId(0)),
        level: 0,
        first: Iova(0),
        table: Pa(0),
        table_level: 0,
        readable: false,
        writable: false,
        user: false,
        provenance: ProvenanceId::NONE,
    };

    fn words(&self) -> ProvenanceId {
        self.provenance
    }
}

const fn key(space: Space, level: u8, address: u64) -> Key {
    let (code, space) = space.code();
    Key { tag: address >> page_shift(level) | (level as u64) << SIZE_SHIFT | code, space }
}

/// The caches of all levels.
#[derive(Clone, Debug)]
pub(crate) struct DirectoryCache {
    levels: [Store<DirectoryEntry>; LEVELS],
}

impl DirectoryCache {
    /// Level 6 is as large as level 5.
    pub(crate) fn new([two, three, four, five]: [Geometry; LEVELS - 1]) -> Self {
        Self { levels: [two, three, four, five, five].map(Store::new) }
    }

    /// Whether every level is switched off, so that there is nothing to look up.
    pub(crate) fn is_off(&self) -> bool {
        self.levels.iter().all(Store::is_off)
    }

    /// The entry nearest to the leaf for an address, in a table of level `top` at most, marked as used.
    pub(crate) fn lookup(&mut self, space: Space, address: u64, top: u8) -> Option<&DirectoryEntry> {
        for level in FIRST_LEVEL..=top {
            let store = &mut self.levels[usize::from(level - FIRST_LEVEL)];
            if let Some(place) = store.find(key(space, level, address)) {
                store.touch(place);
                return Some(self.levels[usize::from(level - FIRST_LEVEL)].get(place));
            }
        }
        None
    }

    pub(crate) fn install(&mut self, entry: DirectoryEntry, words: &mut Words, d: &mut dyn Decisions) {
        let Some(store) = entry.level.checked_sub(FIRST_LEVEL).and_then(|at| self.levels.get_mut(usize::from(at))) else { return };
        let key = key(entry.space, entry.level, entry.first.0);
        store.insert(key.tag, key, entry, words, |ways| ask(d, Question::EvictPsc { ways, level: entry.level }));
    }

    pub(crate) fn retain(&mut self, words: &mut Words, mut keep: impl FnMut(&DirectoryEntry) -> bool) -> u32 {
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
            if n < store.len() {
                return store.remove_nth(n, words);
            }
            n -= store.len();
        }
        false
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &DirectoryEntry> {
        self.levels.iter().flat_map(Store::iter)
    }
}
