//! The store buffer of one CPU.

use iommu_model::addr::Pa;
use smallvec::SmallVec;

use super::MemoryModel;
use crate::trace::Flavor;

/// Stores a buffer holds. Knob: x86 cores have some 50 entries; more than a few only add drains that are never told apart, while
/// every one of them lengthens the tree of an exhaustive search.
pub(super) const ENTRIES_MAX: usize = 8;

/// Quiet stores a buffer holds: as many as a missing barrier before a publication can overtake. Knob.
const QUIET_MAX: usize = 4;

/// A store on its way to memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) pa: Pa,
    pub(super) bytes: u8,
    pub(super) value: u64,
    pub(super) flavor: Flavor,
    /// Drains after everything older.
    pub(super) release: bool,
    /// Write barriers that were passed before it.
    group: u32,
}

impl Pending {
    /// True when the two share a word: their order is the program's in every model.
    fn shares_word(&self, other: &Pending) -> bool {
        let words = |pending: &Pending| (pending.pa.0 >> 3, (pending.pa.0 + u64::from(pending.bytes) - 1) >> 3);
        let ((first, last), (other_first, other_last)) = (words(self), words(other));
        first <= other_last && other_first <= last
    }
}

/// What a load finds in the buffer of its own CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Forward {
    /// Nothing: the value is in memory.
    None,
    /// The newest store that overlaps covers the load.
    Value(u64),
    /// The newest store that overlaps does not cover it.
    Partial,
}

/// The stores of one CPU that nobody else sees yet, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct StoreBuffer {
    entries: SmallVec<[Pending; ENTRIES_MAX]>,
    group: u32,
    /// Stores to memory that only this CPU can reach: when they drain is seen by nobody, unless the memory is published first.
    quiet: SmallVec<[Pending; QUIET_MAX]>,
}

impl StoreBuffer {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() == ENTRIES_MAX
    }

    /// # Panics
    /// When the buffer is full.
    pub(super) fn push(&mut self, pa: Pa, bytes: u8, value: u64, flavor: Flavor, release: bool) {
        assert!(!self.is_full(), "a store waits while its buffer is full");
        self.entries.push(Pending { pa, bytes, value, flavor, release, group: self.group });
    }

    /// Enters a store to memory nobody else can reach. Returns the one that has to drain at once to make room.
    pub(super) fn push_quiet(&mut self, pa: Pa, bytes: u8, value: u64, flavor: Flavor) -> Option<Pending> {
        let out = (self.quiet.len() == QUIET_MAX).then(|| self.quiet.remove(0));
        self.quiet.push(Pending { pa, bytes, value, flavor, release: false, group: 0 });
        out
    }

    /// Takes out the oldest quiet store.
    pub(super) fn take_quiet(&mut self) -> Option<Pending> {
        (!self.quiet.is_empty()).then(|| self.quiet.remove(0))
    }

    /// Takes out the oldest quiet store whose memory is public by now, and says whether it went over to the others, to drain as they
    /// do; where they leave no room for it and one more, it has to drain at once.
    pub(super) fn publish(&mut self, is_public: impl Fn(Pa) -> bool) -> Option<(Pending, bool)> {
        let at = self.quiet.iter().position(|entry| is_public(entry.pa))?;
        let entry = self.quiet.remove(at);
        let fits = self.entries.len() + 1 < ENTRIES_MAX;
        if fits {
            self.entries.push(Pending { group: self.group, ..entry });
        }
        Some((entry, fits))
    }

    /// A write barrier: what is stored from now on drains after what is in the buffer.
    pub(super) fn barrier(&mut self) {
        if !self.is_empty() {
            self.group += 1;
        }
    }

    /// The oldest store, which may always drain.
    pub(super) fn oldest(&self) -> Option<&Pending> {
        self.entries.first()
    }

    /// Positions of the stores that may drain next.
    pub(super) fn drainable(&self, model: MemoryModel) -> impl Iterator<Item = usize> {
        let nr = if model == MemoryModel::Weak { self.entries.len() } else { self.entries.len().min(1) };
        (0..nr).filter(|&at| {
            let entry = &self.entries[at];
            let older = &self.entries[..at];
            (older.is_empty() || !entry.release) && older.iter().all(|other| other.group == entry.group && !other.shares_word(entry))
        })
    }

    /// Takes out the store at position `at`.
    pub(super) fn take(&mut self, at: usize) -> Pending {
        self.entries.remove(at)
    }

    /// What a load of `bytes` bytes at `pa` finds here.
    pub(super) fn forward(&self, pa: Pa, bytes: u8) -> Forward {
        let end = pa.0 + u64::from(bytes);
        let overlaps = |entry: &&Pending| entry.pa.0 < end && pa.0 < entry.pa.0 + u64::from(entry.bytes);
        // Memory is either quiet or not, so no load finds stores of both kinds.
        match self.quiet.iter().rev().chain(self.entries.iter().rev()).find(overlaps) {
            None => Forward::None,
            Some(entry) if entry.pa.0 <= pa.0 && end <= entry.pa.0 + u64::from(entry.bytes) => {
                let value = entry.value >> (8 * (pa.0 - entry.pa.0));
                Forward::Value(if bytes == 8 { value } else { value & ((1 << (8 * bytes)) - 1) })
            }
            Some(_) => Forward::Partial,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(stores: &[(u64, u8, u64)]) -> StoreBuffer {
        let mut buffer = StoreBuffer::default();
        for &(pa, bytes, value) in stores {
            buffer.push(Pa(pa), bytes, value, Flavor::Plain, false);
        }
        buffer
    }

    #[test]
    fn a_load_takes_the_newest_store_that_covers_it() {
        let buffer = buffer(&[(0x100, 8, 0x1111), (0x100, 8, 0x8877_6655_4433_2211), (0x108, 4, 5)]);
        assert_eq!(buffer.forward(Pa(0x100), 8), Forward::Value(0x8877_6655_4433_2211));
        assert_eq!(buffer.forward(Pa(0x102), 2), Forward::Value(0x4433));
        assert_eq!(buffer.forward(Pa(0x108), 8), Forward::Partial);
        assert_eq!(buffer.forward(Pa(0x10c), 4), Forward::None);
    }

    #[test]
    fn a_fifo_buffer_drains_its_oldest_store_only() {
        let buffer = buffer(&[(0x100, 8, 1), (0x200, 8, 2)]);
        assert_eq!(buffer.drainable(MemoryModel::Tso).collect::<Vec<_>>(), [0]);
        assert_eq!(buffer.drainable(MemoryModel::Weak).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn stores_to_one_word_drain_in_program_order_in_every_model() {
        let buffer = buffer(&[(0x100, 4, 1), (0x104, 4, 2), (0x200, 8, 3)]);
        assert_eq!(buffer.drainable(MemoryModel::Weak).collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn quiet_stores_make_room_for_themselves_and_join_the_others_when_published() {
        let mut buffer = StoreBuffer::default();
        for n in 0..QUIET_MAX as u64 {
            assert!(buffer.push_quiet(Pa(0x100 + n * 8), 8, n, Flavor::Plain).is_none());
        }
        assert_eq!(buffer.push_quiet(Pa(0x200), 8, 9, Flavor::Plain).map(|out| out.pa), Some(Pa(0x100)));
        assert_eq!(buffer.forward(Pa(0x200), 8), Forward::Value(9));
        assert_eq!(buffer.drainable(MemoryModel::Weak).count(), 0);
        assert!(buffer.publish(|pa| pa == Pa(0x200)).is_some_and(|(entry, fits)| entry.value == 9 && fits));
        assert_eq!(buffer.drainable(MemoryModel::Weak).count(), 1);
        assert!(buffer.publish(|pa| pa == Pa(0x200)).is_none());
    }

    #[test]
    fn a_barrier_and_a_release_hold_later_stores_back_and_a_release_lets_later_ones_pass() {
        let mut fenced = buffer(&[(0x100, 8, 1)]);
        fenced.barrier();
        fenced.push(Pa(0x200), 8, 2, Flavor::Plain, false);
        assert_eq!(fenced.drainable(MemoryModel::Weak).collect::<Vec<_>>(), [0]);
        let mut released = buffer(&[(0x100, 8, 1)]);
        released.push(Pa(0x200), 8, 2, Flavor::Ordered, true);
        released.push(Pa(0x300), 8, 3, Flavor::Plain, false);
        assert_eq!(released.drainable(MemoryModel::Weak).collect::<Vec<_>>(), [0, 2]);
    }
}
