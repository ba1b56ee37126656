//! Walk caches, one a stage and level: tag VMID (in stage 1 also ASID) and address prefix, content the pointer to the next
//! table and the limits of the levels so far.

use super::tlb::Space;
use crate::addr::{Iova, Pa};
use crate::cache::store::{Cached, Key, Store};
use crate::decision::{Decisions, Question, ask};
use crate::provenance::{ProvenanceId, Words};
use crate::smmu::ids::{Asid, Vmid};
use crate::smmu::params::Params;
use crate::smmu::tables::Tables;

/// Levels above the last.
const LEVELS: usize = 3;

/// One cached table descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalkEntry {
    /// Tag.
    pub vmid: Vmid,
    /// Tag: the ASID of a stage-1 entry, never `Global`.
    pub space: Space,
    /// Level of the descriptor, 0 to 2.
    pub level: u8,
    /// Tag: first address that it leads to.
    pub first: Iova,
    /// Bytes of address space that it leads to.
    pub span_bytes: u64,
    /// log2 of the granule.
    pub granule: u8,
    /// The next table; of stage 1 in a nested stream an IPA.
    pub table: Pa,
    /// APTable\[1\] of any level so far.
    pub read_only: bool,
    /// APTable\[0\] of any level so far.
    pub no_unprivileged: bool,
    /// The words it was made from.
    pub provenance: ProvenanceId,
}

impl Cached for WalkEntry {
    const BLANK: Self = Self {
        vmid: Vmid(0),
        space: Space::Virtual(Asid(0)),
        level: 0,
        first: Iova(0),
        span_bytes: 0,
        granule: 0,
        table: Pa(0),
        read_only: false,
        no_unprivileged: false,
        provenance: ProvenanceId::NONE,
    };

    fn words(&self) -> ProvenanceId {
        self.provenance
    }
}

/// An address prefix has at most 49 - 21 bits.
const fn key(vmid: Vmid, space: Space, prefix: u64) -> Key {
    let space = match space {
        Space::Virtual(asid) => asid.0 as u32,
        _ => 1 << 16,
    };
    Key { tag: ((vmid.0 as u64) << 48) | (prefix & 0xffff_ffff_ffff), space }
}

/// The caches of all levels of both stages.
#[derive(Clone, Debug)]
pub(crate) struct WalkCache {
    /// Stage 1 levels 0 to 2, then stage 2.
    levels: [Store<WalkEntry>; 2 * LEVELS],
}

const fn first_of(space: Space) -> usize {
    if space.is_stage_1() { 0 } else { LEVELS }
}

impl WalkCache {
    pub(crate) fn new(params: &Params) -> Self {
        let [a, b, c] = params.walk_1;
        let [d, e, f] = params.walk_2;
        Self { levels: [a, b, c, d, e, f].map(Store::new) }
    }

    /// Whether a stage has no such cache.
    pub(crate) fn is_off(&self, space: Space) -> bool {
        let first = first_of(space);
        self.levels[first..first + LEVELS].iter().all(Store::is_off)
    }

    /// The entry with the longest prefix of an address, marked as used.
    pub(crate) fn lookup(&mut self, vmid: Vmid, space: Space, address: u64, tables: &Tables) -> Option<&WalkEntry> {
        let first = first_of(space);
        let level = (usize::from(tables.start)..LEVELS).rev().find(|&level| {
            let prefix = address >> tables.shift(level as u8);
            self.levels[first + level].find(key(vmid, space, prefix)).is_some()
        })?;
        let store = &mut self.levels[first + level];
        let place = store.find(key(vmid, space, address >> tables.shift(level as u8)))?;
        store.touch(place);
        Some(store.get(place))
    }

    pub(crate) fn install(&mut self, entry: WalkEntry, words: &mut Words, d: &mut dyn Decisions) {
        let store = &mut self.levels[first_of(entry.space) + usize::from(entry.level)];
        if store.is_off() {
            return;
        }
        let prefix = entry.first.0 >> entry.span_bytes.trailing_zeros();
        let level = entry.level;
        store.insert(prefix, key(entry.vmid, entry.space, prefix), entry, words, |ways| ask(d, Question::EvictWalk { ways, level }));
    }

    pub(crate) fn retain(&mut self, words: &mut Words, mut keep: impl FnMut(&WalkEntry) -> bool) -> u32 {
        self.levels.iter_mut().map(|store| store.retain(words, &mut keep)).sum()
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
