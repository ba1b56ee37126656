//! The storage that all caches share: sets of tagged entries with recency, bounded and allocated once.

use crate::timing::Geometry;

/// Where an entry lies.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    set: usize,
    way: usize,
}

/// A bounded set-associative array. Tags lie together, so that a look-up touches little memory.
#[derive(Clone, Debug)]
pub(crate) struct Store<T> {
    sets: Vec<Set<T>>,
    ways: usize,
    clock: u64,
    len: usize,
}

#[derive(Clone, Debug)]
struct Set<T> {
    keys: Vec<u64>,
    stamps: Vec<u64>,
    entries: Vec<T>,
    /// The way that the last look-up found: most look-ups repeat.
    recent: usize,
}

impl<T> Store<T> {
    pub(crate) fn new(geometry: Geometry) -> Self {
        let ways = geometry.ways as usize;
        let sets = if ways == 0 { 1 } else { (geometry.sets.max(1) as usize).next_power_of_two() };
        let set = || Set { keys: Vec::with_capacity(ways), stamps: Vec::with_capacity(ways), entries: Vec::with_capacity(ways), recent: 0 };
        Self { sets: (0..sets).map(|_| set()).collect(), ways, clock: 0, len: 0 }
    }

    /// Whether the cache has no entries at all by construction.
    pub(crate) fn is_off(&self) -> bool {
        self.ways == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn set_of(&self, index: u64) -> usize {
        (index as usize) & (self.sets.len() - 1)
    }

    /// The entry with this key; does not count as use.
    pub(crate) fn find(&self, index: u64, key: u64) -> Option<Place> {
        if self.len == 0 {
            return None;
        }
        let set = self.set_of(index);
        let Set { keys, recent, .. } = &self.sets[set];
        if keys.get(*recent) == Some(&key) {
            return Some(Place { set, way: *recent });
        }
        keys.iter().position(|k| *k == key).map(|way| Place { set, way })
    }

    pub(crate) fn get(&self, place: Place) -> &T {
        &self.sets[place.set].entries[place.way]
    }

    /// Marks the entry as the most recently used.
    pub(crate) fn touch(&mut self, place: Place) {
        self.clock += 1;
        let set = &mut self.sets[place.set];
        set.stamps[place.way] = self.clock;
        set.recent = place.way;
    }

    /// Stores an entry, replacing one with the same key, else into a free way, else where `choose` says.
    pub(crate) fn insert(&mut self, index: u64, key: u64, entry: T, choose: impl FnOnce(u32) -> u32) {
        if self.is_off() {
            return;
        }
        self.clock += 1;
        let stamp = self.clock;
        let (set_index, ways) = (self.set_of(index), self.ways);
        let set = &mut self.sets[set_index];
        let way = match set.keys.iter().position(|k| *k == key) {
            Some(way) => way,
            None if set.keys.len() < ways => {
                set.keys.push(key);
                set.stamps.push(stamp);
                set.entries.push(entry);
                self.len += 1;
                return;
            }
            None => set.by_recency(choose(ways as u32) as usize),
        };
        set.keys[way] = key;
        set.stamps[way] = stamp;
        set.entries[way] = entry;
    }

    /// Keeps what `keep` says; returns how many entries went.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) -> u32 {
        if self.len == 0 {
            return 0;
        }
        let mut dropped = 0;
        for set in &mut self.sets {
            let mut way = 0;
            while way < set.keys.len() {
                if keep(&set.entries[way]) {
                    way += 1;
                } else {
                    set.remove(way);
                    dropped += 1;
                }
            }
        }
        self.len -= dropped as usize;
        dropped
    }

    pub(crate) fn clear(&mut self) -> u32 {
        let dropped = self.len as u32;
        for set in &mut self.sets {
            set.keys.clear();
            set.stamps.clear();
            set.entries.clear();
        }
        self.len = 0;
        dropped
    }

    pub(crate) fn remove_nth(&mut self, mut n: usize) -> bool {
        for set in &mut self.sets {
            if n < set.keys.len() {
                set.remove(n);
                self.len -= 1;
                return true;
            }
            n -= set.keys.len();
        }
        false
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.sets.iter().flat_map(|set| set.entries.iter())
    }
}

impl<T> Set<T> {
    /// The way that `rank` others were used before.
    fn by_recency(&self, rank: usize) -> usize {
        let mut floor = 0;
        let mut found = 0;
        for _ in 0..=rank.min(self.stamps.len() - 1) {
            let oldest = self.stamps.iter().enumerate().filter(|(_, s)| **s > floor).min_by_key(|(_, s)| **s);
            let Some((way, stamp)) = oldest else { break };
            (found, floor) = (way, *stamp);
        }
        found
    }

    fn remove(&mut self, way: usize) {
        self.keys.swap_remove(way);
        self.stamps.swap_remove(way);
        self.entries.swap_remove(way);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full_store() -> Store<u8> {
        let mut store = Store::new(Geometry::fully_associative(3));
        for k in 1..=3 {
            store.insert(0, u64::from(k), k, |_| unreachable!("there is room"));
        }
        store
    }

    #[test]
    fn option_zero_evicts_the_least_recently_used_entry() {
        let mut store = full_store();
        let one = store.find(0, 1).expect("it was stored");
        store.touch(one);
        store.insert(0, 4, 4, |ways| {
            assert_eq!(ways, 3);
            0
        });
        assert!(store.find(0, 2).is_none());
        assert!(store.find(0, 1).is_some());
    }

    #[test]
    fn option_k_evicts_the_kth_least_recently_used_entry() {
        let mut store = full_store();
        store.insert(0, 4, 4, |_| 2);
        assert!(store.find(0, 3).is_none());
        assert_eq!(store.len(), 3);
    }

    #[test]
    fn a_second_entry_with_the_same_tag_replaces_the_first_without_a_question() {
        let mut store = full_store();
        store.insert(0, 2, 9, |_| unreachable!("the tag is there"));
        assert_eq!(*store.get(store.find(0, 2).expect("it was stored")), 9);
    }

    #[test]
    fn sets_do_not_evict_each_other() {
        let mut store = Store::new(Geometry { sets: 2, ways: 1 });
        store.insert(0, 0, (), |_| 0);
        store.insert(1, 1, (), |_| unreachable!("another set"));
        assert_eq!(store.len(), 2);
        assert!(store.remove_nth(1));
        assert!(!store.remove_nth(1));
        assert_eq!(store.len(), 1);
    }
}
