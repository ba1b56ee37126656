//! What memory held a moment ago: the values that loads of the weak model may still return.
//!
//! A clock counts the stores that reached memory. For each of the last [`OVERWRITES_MAX`] of them the word that was overwritten is
//! kept, with the time at which it had been stored. What is older is forgotten: a bound that allows less, never more.

use iommu_model::addr::Pa;
use smallvec::SmallVec;

/// Overwritten words that are remembered. Knob.
const OVERWRITES_MAX: usize = 64;

/// A moment: the number of stores that had reached memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Time(pub(super) u64);

/// One value of a word, with the time during which memory held it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Version {
    pub(super) word: u64,
    /// Which bytes of the word had ever been written.
    pub(super) defined: u8,
    /// When it was stored; zero for what is older than the memory of the history.
    pub(super) begin: Time,
    /// When it was overwritten.
    pub(super) end: Time,
}

/// The last overwritten words, oldest first in a ring.
#[derive(Debug, Default)]
pub(super) struct History {
    now: Time,
    ring: Vec<(Pa, Version)>,
    next: usize,
}

/// Overwritten values of one word that a load may choose from.
const VERSIONS_MAX: usize = 4;

/// Overwritten values of one word, newest first.
pub(super) type Versions = SmallVec<[Version; VERSIONS_MAX]>;

impl History {
    pub(super) fn new() -> History {
        History { now: Time(0), ring: Vec::with_capacity(OVERWRITES_MAX), next: 0 }
    }

    pub(super) fn now(&self) -> Time {
        self.now
    }

    /// Notes that the word at `pa` (8-byte aligned) is about to be overwritten; returns the time of that store.
    pub(super) fn overwrite(&mut self, pa: Pa, word: u64, defined: u8) -> Time {
        self.now.0 += 1;
        let version = Version { word, defined, begin: self.stored_at(pa), end: self.now };
        if self.ring.len() < OVERWRITES_MAX {
            self.ring.push((pa, version));
        } else {
            self.ring[self.next] = (pa, version);
            self.next = (self.next + 1) % OVERWRITES_MAX;
        }
        self.now
    }

    /// When the current value of the word at `pa` was stored.
    pub(super) fn stored_at(&self, pa: Pa) -> Time {
        self.ring.iter().filter(|(at, _)| *at == pa).map(|(_, version)| version.end).max().unwrap_or_default()
    }

    /// Earlier values of the word at `pa` that memory still held after `floor`, and that are not older than what was stored at
    /// `seen`; newest first.
    pub(super) fn versions(&self, pa: Pa, floor: Time, seen: Time) -> Versions {
        let nr = self.ring.len();
        let newest_first = (0..nr).rev().map(|age| &self.ring[(self.next + age) % nr]);
        let allowed = |(at, version): &&(Pa, Version)| *at == pa && version.end > floor && version.begin >= seen;
        newest_first.filter(allowed).map(|(_, version)| *version).take(VERSIONS_MAX).collect()
    }

    /// Forgets what `bytes` bytes at `pa` held: the memory begins a new life.
    pub(super) fn forget(&mut self, pa: Pa, bytes: u64) {
        for (at, version) in &mut self.ring {
            if (pa.0..pa.0 + bytes).contains(&at.0) {
                *version = Version { word: 0, defined: 0, begin: Time(0), end: Time(0) };
            }
        }
    }

    /// Forgets everything; time goes on.
    pub(super) fn clear(&mut self) {
        self.ring.clear();
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_allowed_while_it_outlived_the_floor_and_is_not_older_than_what_was_seen() {
        let mut history = History::new();
        let x = Pa(0x100);
        let first = history.overwrite(x, 10, 0xff);
        let second = history.overwrite(x, 11, 0xff);
        let words = |floor, seen| history.versions(x, floor, seen).iter().map(|version| version.word).collect::<Vec<_>>();
        assert_eq!(words(Time(0), Time(0)), [11, 10]);
        assert_eq!(words(first, Time(0)), [11], "10 was gone at the floor");
        assert_eq!(words(Time(0), first), [11], "10 is older than what was seen");
        assert_eq!(words(second, Time(0)), [0u64; 0]);
        assert_eq!(history.stored_at(x), second);
    }

    #[test]
    fn only_the_newest_overwrites_are_remembered() {
        let mut history = History::new();
        for n in 0..OVERWRITES_MAX as u64 + 10 {
            history.overwrite(Pa(n * 8), n, 0xff);
        }
        assert!(history.versions(Pa(0), Time(0), Time(0)).is_empty());
        assert_eq!(history.versions(Pa(10 * 8), Time(0), Time(0)).len(), 1);
    }
}
