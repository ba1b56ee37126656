//! The storage that all caches share: sets of tagged entries in order of use, bounded and allocated once.
//!
//! A look-up goes through one hash index over all sets; the order of use is a linked list in each set. Emptying the
//! whole store for a new run is a change of its epoch, whatever it held.

use crate::provenance::{ProvenanceId, Words};
use crate::timing::Geometry;

/// What an entry is found by: the tag proper, and the address space that it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    pub(crate) tag: u64,
    pub(crate) space: u32,
}

/// What a cache stores.
pub(crate) trait Cached: Copy {
    /// Fills places that nothing was stored in yet.
    const BLANK: Self;

    /// The words that the entry was made from. The store holds them as long as it holds the entry.
    fn words(&self) -> ProvenanceId;
}

/// No place: the end of a list.
const NOWHERE: u32 = u32::MAX;

/// The key of what holds nothing.
const NO_KEY: Key = Key { tag: 0, space: 0 };

/// Where an entry lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place(u32);

/// A bounded set-associative array.
#[derive(Clone, Debug)]
pub(crate) struct Store<T> {
    slots: Vec<Slot<T>>,
    sets: Vec<Set>,
    cells: Vec<Cell>,
    ways: u32,
    epoch: u32,
    len: u32,
    /// The slot that was used last, if it still holds what it held.
    last: u32,
}

#[derive(Clone, Copy, Debug)]
struct Slot<T> {
    key: Key,
    /// The set that it is a way of.
    set: u32,
    /// The entry of the set that was used just before this one; in a free slot, the next free one.
    older: u32,
    /// The entry of the set that was used just after this one.
    newer: u32,
    entry: T,
}

/// One set; as good as empty unless it is of the store's epoch.
#[derive(Clone, Copy, Debug)]
struct Set {
    epoch: u32,
    len: u32,
    /// Slots from here on were never used in this epoch.
    fresh: u32,
    free: u32,
    oldest: u32,
    newest: u32,
}

/// A cell of the hash index; free unless it is of the store's epoch.
#[derive(Clone, Copy, Debug)]
struct Cell {
    key: Key,
    slot: u32,
    epoch: u32,
}

impl<T: Cached> Store<T> {
    pub(crate) fn new(geometry: Geometry) -> Self {
        let ways = geometry.ways;
        let sets = if ways == 0 { 1 } else { geometry.sets.max(1).next_power_of_two() };
        let places = sets as usize * ways as usize;
        let slot = |n| Slot { key: NO_KEY, set: n / ways, older: NOWHERE, newer: NOWHERE, entry: T::BLANK };
        let set = Set { epoch: 0, len: 0, fresh: 0, free: NOWHERE, oldest: NOWHERE, newest: NOWHERE };
        let cells = (2 * places).next_power_of_two().max(2);
        Self {
            slots: (0..places as u32).map(slot).collect(),
            sets: vec![set; sets as usize],
            cells: vec![Cell { key: NO_KEY, slot: NOWHERE, epoch: 0 }; cells],
            ways,
            epoch: 1,
            len: 0,
            last: NOWHERE,
        }
    }

    /// Whether the cache has no entries at all by construction.
    #[inline]
    pub(crate) fn is_off(&self) -> bool {
        self.ways == 0
    }

    pub(crate) fn capacity(&self) -> usize {
        self.slots.len()
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    #[inline]
    fn set_of(&self, index: u64) -> u32 {
        (index as u32) & (self.sets.len() as u32 - 1)
    }

    #[inline]
    fn home_of(&self, key: Key) -> usize {
        // Fibonacci hashing; the high half mixes all bits of the key.
        ((key.tag ^ u64::from(key.space).rotate_left(40)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & (self.cells.len() - 1)
    }

    /// The cell that holds the key, or the free cell where it would go.
    #[inline(always)]
    fn cell_of(&self, key: Key) -> (usize, Option<u32>) {
        let mut at = self.home_of(key);
        loop {
            let cell = &self.cells[at];
            if cell.epoch != self.epoch {
                return (at, None);
            }
            if cell.key == key {
                return (at, Some(cell.slot));
            }
            at = (at + 1) & (self.cells.len() - 1);
        }
    }

    /// The entry with this key; does not count as use.
    #[inline(always)]
    pub(crate) fn find(&self, key: Key) -> Option<Place> {
        // Most look-ups repeat the one before.
        match self.slots.get(self.last as usize) {
            Some(slot) if slot.key == key => Some(Place(self.last)),
            _ => self.cell_of(key).1.map(Place),
        }
    }

    #[inline(always)]
    pub(crate) fn get(&self, place: Place) -> &T {
        &self.slots[place.0 as usize].entry
    }

    /// Marks the entry as the most recently used.
    #[inline(always)]
    pub(crate) fn touch(&mut self, place: Place) {
        self.last = place.0;
        if self.slots[place.0 as usize].newer != NOWHERE {
            self.relink(place);
        }
    }

    fn relink(&mut self, place: Place) {
        self.unlink(place);
        self.link_newest(place);
    }

    fn unlink(&mut self, place: Place) {
        let Slot { set, older, newer, .. } = self.slots[place.0 as usize];
        let set = &mut self.sets[set as usize];
        match older {
            NOWHERE => set.oldest = newer,
            _ => self.slots[older as usize].newer = newer,
        }
        match newer {
            NOWHERE => set.newest = older,
            _ => self.slots[newer as usize].older = older,
        }
    }

    #[inline(always)]
    fn link_newest(&mut self, place: Place) {
        let slot = &mut self.slots[place.0 as usize];
        let set = &mut self.sets[slot.set as usize];
        let older = core::mem::replace(&mut set.newest, place.0);
        (slot.older, slot.newer) = (older, NOWHERE);
        match older {
            NOWHERE => set.oldest = place.0,
            _ => self.slots[older as usize].newer = place.0,
        }
    }

    /// Stores an entry, replacing one with the same key, else into a free way, else where `choose` says.
    #[inline(always)]
    pub(crate) fn insert(&mut self, index: u64, key: Key, entry: T, words: &mut Words, choose: impl FnOnce(u32) -> u32) {
        if self.is_off() {
            return;
        }
        words.hold(entry.words());
        let set = self.set_of(index);
        let (mut at, found) = self.cell_of(key);
        if let Some(slot) = found {
            let place = Place(slot);
            let old = core::mem::replace(&mut self.slots[slot as usize].entry, entry);
            words.release(old.words());
            return self.touch(place);
        }
        let place = match self.enlist(set) {
            Some(place) => place,
            None => {
                let place = self.evict(set, choose(self.ways), words);
                at = self.cell_of(key).0;
                self.link_newest(place);
                place
            }
        };
        self.cells[at] = Cell { key, slot: place.0, epoch: self.epoch };
        let slot = &mut self.slots[place.0 as usize];
        (slot.key, slot.entry) = (key, entry);
        self.last = place.0;
    }

    /// Frees the way of the entry that `rank` others were used before.
    #[inline(never)]
    fn evict(&mut self, set: u32, rank: u32, words: &mut Words) -> Place {
        let place = self.by_recency(set, rank);
        words.release(self.get(place).words());
        self.unlink(place);
        self.erase_cell(self.slots[place.0 as usize].key);
        place
    }

    /// A way that held nothing, now the most recently used of its set.
    #[inline(always)]
    fn enlist(&mut self, set: u32) -> Option<Place> {
        let state = &mut self.sets[set as usize];
        if state.epoch != self.epoch {
            let slot = set * self.ways;
            *state = Set { epoch: self.epoch, len: 1, fresh: 1, free: NOWHERE, oldest: slot, newest: slot };
            let place = &mut self.slots[slot as usize];
            (place.older, place.newer) = (NOWHERE, NOWHERE);
            self.len += 1;
            return Some(Place(slot));
        }
        if state.len == self.ways {
            return None;
        }
        let slot = match state.free {
            NOWHERE => {
                state.fresh += 1;
                set * self.ways + state.fresh - 1
            }
            slot => {
                state.free = self.slots[slot as usize].older;
                slot
            }
        };
        state.len += 1;
        self.len += 1;
        self.link_newest(Place(slot));
        Some(Place(slot))
    }

    /// The entry that `rank` others were used before.
    fn by_recency(&self, set: u32, rank: u32) -> Place {
        let mut slot = self.sets[set as usize].oldest;
        for _ in 0..rank.min(self.ways - 1) {
            slot = self.slots[slot as usize].newer;
        }
        Place(slot)
    }

    /// Frees a cell and moves up what had to make way for it.
    fn erase_cell(&mut self, key: Key) {
        let mask = self.cells.len() - 1;
        let mut hole = self.cell_of(key).0;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let cell = self.cells[at];
            if cell.epoch != self.epoch {
                break;
            }
            let displaced = at.wrapping_sub(self.home_of(cell.key)) & mask;
            if displaced >= at.wrapping_sub(hole) & mask {
                self.cells[hole] = cell;
                hole = at;
            }
        }
        self.cells[hole].epoch = self.epoch.wrapping_sub(1);
    }

    fn remove(&mut self, place: Place, words: &mut Words) {
        self.last = NOWHERE;
        words.release(self.get(place).words());
        self.unlink(place);
        self.erase_cell(self.slots[place.0 as usize].key);
        let slot = &mut self.slots[place.0 as usize];
        let state = &mut self.sets[slot.set as usize];
        slot.older = core::mem::replace(&mut state.free, place.0);
        state.len -= 1;
        self.len -= 1;
    }

    fn oldest_of(&self, set: usize) -> u32 {
        let set = &self.sets[set];
        if set.epoch == self.epoch { set.oldest } else { NOWHERE }
    }

    /// Keeps what `keep` says; returns how many entries went.
    pub(crate) fn retain(&mut self, words: &mut Words, mut keep: impl FnMut(&T) -> bool) -> u32 {
        let before = self.len;
        if before == 0 {
            return 0;
        }
        for set in 0..self.sets.len() {
            let mut slot = self.oldest_of(set);
            while slot != NOWHERE {
                let Slot { newer, ref entry, .. } = self.slots[slot as usize];
                if !keep(entry) {
                    self.remove(Place(slot), words);
                }
                slot = newer;
            }
        }
        before - self.len
    }

    /// Removes every entry; returns how many there were.
    pub(crate) fn clear(&mut self, words: &mut Words) -> u32 {
        let dropped = self.len;
        if dropped != 0 {
            for set in 0..self.sets.len() {
                let mut slot = self.oldest_of(set);
                while slot != NOWHERE {
                    let Slot { newer, ref entry, .. } = self.slots[slot as usize];
                    words.release(entry.words());
                    slot = newer;
                }
            }
            self.reset();
        }
        dropped
    }

    /// Forgets every entry without a look at any; the caller forgets their words.
    pub(crate) fn reset(&mut self) {
        self.len = 0;
        self.last = NOWHERE;
        // The epoch before the present one marks erased cells, so that it must not come back.
        self.epoch = self.epoch.wrapping_add(2);
        if self.epoch == 1 {
            self.cells.fill(Cell { key: NO_KEY, slot: NOWHERE, epoch: 0 });
            self.sets.fill(Set { epoch: 0, len: 0, fresh: 0, free: NOWHERE, oldest: NOWHERE, newest: NOWHERE });
        }
    }

    pub(crate) fn remove_nth(&mut self, mut n: usize, words: &mut Words) -> bool {
        if n >= self.len() {
            return false;
        }
        for set in 0..self.sets.len() {
            let mut slot = self.oldest_of(set);
            while slot != NOWHERE {
                if n == 0 {
                    self.remove(Place(slot), words);
                    return true;
                }
                n -= 1;
                slot = self.slots[slot as usize].newer;
            }
        }
        false
    }

    /// Every entry, by set, the least recently used first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        (0..self.sets.len()).flat_map(move |set| {
            let place = |slot: u32| (slot != NOWHERE).then_some(slot);
            core::iter::successors(place(self.oldest_of(set)), move |slot| place(self.slots[*slot as usize].newer))
                .map(|slot| &self.slots[slot as usize].entry)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Cached for u8 {
        const BLANK: Self = 0;

        fn words(&self) -> ProvenanceId {
            ProvenanceId::NONE
        }
    }

    fn key(tag: u64) -> Key {
        Key { tag, space: (tag % 3) as u32 }
    }

    fn words() -> Words {
        Words::new(0)
    }

    fn full_store() -> Store<u8> {
        let mut store = Store::new(Geometry::fully_associative(3));
        for k in 1..=3 {
            store.insert(0, key(u64::from(k)), k, &mut words(), |_| unreachable!("there is room"));
        }
        store
    }

    #[test]
    fn option_zero_evicts_the_least_recently_used_entry() {
        let mut store = full_store();
        let one = store.find(key(1)).expect("it was stored");
        store.touch(one);
        store.insert(0, key(4), 4, &mut words(), |ways| {
            assert_eq!(ways, 3);
            0
        });
        assert!(store.find(key(2)).is_none());
        assert!(store.find(key(1)).is_some());
    }

    #[test]
    fn option_k_evicts_the_kth_least_recently_used_entry() {
        let mut store = full_store();
        store.insert(0, key(4), 4, &mut words(), |_| 2);
        assert!(store.find(key(3)).is_none());
        assert_eq!(store.len(), 3);
    }

    #[test]
    fn a_second_entry_with_the_same_tag_replaces_the_first_without_a_question() {
        let mut store = full_store();
        store.insert(0, key(2), 9, &mut words(), |_| unreachable!("the tag is there"));
        assert_eq!(*store.get(store.find(key(2)).expect("it was stored")), 9);
    }

    #[test]
    fn sets_do_not_evict_each_other() {
        let mut store = Store::new(Geometry { sets: 2, ways: 1 });
        store.insert(0, key(0), 0, &mut words(), |_| 0);
        store.insert(1, key(1), 1, &mut words(), |_| unreachable!("another set"));
        assert_eq!(store.len(), 2);
        assert!(store.remove_nth(1, &mut words()));
        assert!(!store.remove_nth(1, &mut words()));
        assert_eq!(store.len(), 1);
    }

    #[derive(Clone, Debug)]
    enum Act {
        Insert { tag: u64, rank: u32 },
        Use(u64),
        Drop(usize),
        DropOdd,
        Clear,
        Reset,
    }

    fn act() -> impl Strategy<Value = Act> {
        // Multiples of a large power of two crowd the index.
        let tag = || prop_oneof![0u64..12, (0u64..6).prop_map(|k| k << 33)];
        prop_oneof![
            8 => (tag(), 0u32..4).prop_map(|(tag, rank)| Act::Insert { tag, rank }),
            4 => tag().prop_map(Act::Use),
            2 => (0usize..8).prop_map(Act::Drop),
            1 => Just(Act::DropOdd),
            1 => Just(Act::Clear),
            1 => Just(Act::Reset),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Against lists in order of use, one a set.
        #[test]
        fn a_store_does_what_plain_lists_do(acts in prop::collection::vec(act(), 1..120), ways in 1u32..5, sets in 1u32..3) {
            let mut store = Store::new(Geometry { sets, ways });
            let mut lists: Vec<Vec<(u64, u8)>> = vec![Vec::new(); sets as usize];
            for (n, act) in acts.into_iter().enumerate() {
                match act {
                    Act::Insert { tag, rank } => {
                        store.insert(tag, key(tag), n as u8, &mut words(), |_| rank);
                        let list = &mut lists[(tag % u64::from(sets)) as usize];
                        match list.iter().position(|(k, _)| *k == tag) {
                            Some(at) => drop(list.remove(at)),
                            None if list.len() == ways as usize => drop(list.remove(rank.min(ways - 1) as usize)),
                            None => {}
                        }
                        list.push((tag, n as u8));
                    }
                    Act::Use(tag) => {
                        let list = &mut lists[(tag % u64::from(sets)) as usize];
                        let at = list.iter().position(|(k, _)| *k == tag);
                        let place = store.find(key(tag));
                        prop_assert_eq!(place.is_some(), at.is_some());
                        if let (Some(place), Some(at)) = (place, at) {
                            let used = list.remove(at);
                            prop_assert_eq!(*store.get(place), used.1);
                            store.touch(place);
                            list.push(used);
                        }
                    }
                    Act::Drop(mut n) => {
                        let all: usize = lists.iter().map(Vec::len).sum();
                        prop_assert_eq!(store.remove_nth(n, &mut words()), n < all);
                        if n < all {
                            for list in &mut lists {
                                if n < list.len() {
                                    list.remove(n);
                                    break;
                                }
                                n -= list.len();
                            }
                        }
                    }
                    Act::DropOdd => {
                        store.retain(&mut words(), |entry| entry % 2 == 0);
                        lists.iter_mut().for_each(|list| list.retain(|(_, entry)| entry % 2 == 0));
                    }
                    Act::Clear => {
                        store.clear(&mut words());
                        lists.iter_mut().for_each(Vec::clear);
                    }
                    Act::Reset => {
                        store.reset();
                        lists.iter_mut().for_each(Vec::clear);
                    }
                }
                let expected: Vec<u8> = lists.iter().flatten().map(|(_, entry)| *entry).collect();
                prop_assert_eq!(store.iter().copied().collect::<Vec<_>>(), expected);
                prop_assert_eq!(store.len(), lists.iter().map(Vec::len).sum::<usize>());
            }
        }
    }
}
