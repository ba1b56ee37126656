//! Walk caches, one a level: tag space and address prefix, content the pointer to the next table. Non-leaf entries of
//! RISC-V hold no permissions.

use super::space::Space;
use crate::addr::{Iova, Pa};
use crate::cache::store::{Cached, Key, Store};
use crate::decision::{Decisions, Question, ask};
use crate::provenance::{ProvenanceId, Words};
use crate::riscv::id::Pscid;
use crate::riscv::paging::page_shift;
use crate::timing::Geometry;

/// Lowest level whose non-leaf entries are cached.
const FIRST_LEVEL: u8 = 2;

/// One cached non-leaf entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalkEntry {
    /// Tag: address space.
    pub space: Space,
    /// Level of the cached entry, 2 to 5; its table is of the level below.
    pub level: u8,
    /// Tag: first address that the entry leads to.
    pub first: Iova,
    /// The next table; below a first stage on a second one its address is one of the guest.
    pub table: Pa,
    /// G of this entry or one above.
    pub global: bool,
    /// The words it was made from.
    pub provenance: ProvenanceId,
}

impl Cached for WalkEntry {
    const BLANK: Self =
        Self { space: Space::Host(Pscid(0)), level: 0, first: Iova(0), table: Pa(0), global: false, provenance: ProvenanceId::NONE };

    fn words(&self) -> ProvenanceId {
        self.provenance
    }
}

/// A prefix has at most 38 bits: 59 address bits without the 21 below the lowest cached level.
const PREFIX_BITS: u32 = 38;

fn key(space: Space, level: u8, address: u64) -> Key {
    let (gscid, code) = space.code();
    let prefix = (address >> page_shift(level)) & ((1 << PREFIX_BITS) - 1);
    Key { tag: prefix | gscid << PREFIX_BITS, space: code }
}

/// The caches of all levels.
#[derive(Clone, Debug)]
pub(crate) struct WalkCache {
    levels: [Store<WalkEntry>; 4],
}

impl WalkCache {
    pub(crate) fn new(geometry: &[Geometry; 4]) -> Self {
        Self { levels: geometry.map(Store::new) }
    }

    /// Whether every level is switched off, so that there is nothing to look up.
    pub(crate) fn is_off(&self) -> bool {
        self.levels.iter().all(Store::is_off)
    }

    /// The entry with the longest prefix of an address whose level is at most `top`, marked as used.
    pub(crate) fn lookup(&mut self, space: Space, address: u64, top: u8) -> Option<&WalkEntry> {
        for level in FIRST_LEVEL..=top {
            let at = usize::from(level - FIRST_LEVEL);
            if let Some(place) = self.levels[at].find(key(space, level, address)) {
                self.levels[at].touch(place);
                return Some(self.levels[at].get(place));
            }
        }
        None
    }

    pub(crate) fn install(&mut self, entry: WalkEntry, words: &mut Words, d: &mut dyn Decisions) {
        let Some(store) = entry.level.checked_sub(FIRST_LEVEL).and_then(|at| self.levels.get_mut(usize::from(at))) else { return };
        let key = key(entry.space, entry.level, entry.first.0);
        store.insert(key.tag, key, entry, words, |ways| ask(d, Question::EvictPsc { ways, level: entry.level }));
    }

    pub(crate) fn retain(&mut self, words: &mut Words, mut keep: impl FnMut(&WalkEntry) -> bool) -> u32 {
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

    pub(crate) fn iter(&self) -> impl Iterator<Item = &WalkEntry> {
        self.levels.iter().flat_map(Store::iter)
    }
}
