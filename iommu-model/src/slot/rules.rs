//! What an architecture has to say of its entries, for the automaton to judge them.

use crate::addr::{Bdf, DomainId, Iova, Pasid, Pfn};
use core::fmt::Debug;
use smallvec::SmallVec;

/// Most words of an entry.
pub const WORDS_MAX: usize = 8;

/// Where an entry of VT-d or AMD-Vi stands: what caches tag it with, as far as its words do not say so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The function that a device-table entry is of; for others, one that uses the tables.
    pub source: Bdf,
    /// The domain that a paging entry belongs to.
    pub domain: DomainId,
    /// The address space of a first-stage or guest entry, or the index of a PASID entry.
    pub pasid: Option<Pasid>,
    /// First address that a paging entry maps or leads to.
    pub first: Iova,
    /// Bytes that it maps or leads to.
    pub span_bytes: u64,
    /// The device may keep what it maps in a device TLB.
    pub device_tlb: bool,
}

/// What a store does to an entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Change {
    /// No bit that hardware looks at.
    Nothing,
    /// Absent before and after.
    Prepares,
    /// Absent before, present after.
    Sets,
    /// Present before, absent after.
    Clears,
    /// Not absent before, and after it hardware lets everything pass.
    Opens,
    /// Present before and after, and the old meaning does no harm: more permission, same memory.
    Widens,
    /// Present before and after, in bits that do not count yet or do not count any more.
    Readies,
    /// Present before and after, in one store, with another meaning; what else the new meaning is made of lies in words
    /// that must be clean by then.
    Switches,
    /// Present before and after, in one store, with another meaning.
    Alters,
    /// Present before and after, where only an absent entry may be changed so.
    Tears,
}

/// Frames that an entry leads to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Frames {
    /// The first.
    pub first: Pfn,
    /// How many.
    pub count: u64,
}

impl Frames {
    pub(super) const fn one(frame: u64) -> Self {
        Self { first: Pfn(frame), count: 1 }
    }

    pub(super) const fn holds(self, frame: Pfn) -> bool {
        frame.0 >= self.first.0 && frame.0 - self.first.0 < self.count
    }
}

/// Everything that an entry leads to.
pub type Targets = SmallVec<[Frames; 3]>;

/// Caches to clean, outermost first.
pub type Needs<N> = SmallVec<[N; 4]>;

/// What an architecture demands.
pub trait Rules {
    /// Kinds of entries.
    type Kind: Copy + Eq + Debug;
    /// What caches tag an entry with, as far as its words do not say so.
    type Place: Copy + Debug;
    /// One cache that must be cleaned, and of what.
    type Need: Copy + Eq + Debug;
    /// What software can issue.
    type Command: Copy + Debug;

    /// 64-bit words of such an entry, 1 to [`WORDS_MAX`].
    fn words(&self, kind: Self::Kind) -> usize;

    /// Whether such an entry leads anywhere, so that hardware may keep what it says.
    fn is_present(&self, kind: Self::Kind, words: &[u64]) -> bool;

    /// What the change from `old` to `new` by one store of `stored` words, 1 or 2, is.
    fn change(&self, kind: Self::Kind, old: &[u64], new: &[u64], stored: usize) -> Change;

    /// What must be cleaned when an entry has said `old`.
    fn needs(&self, kind: Self::Kind, place: &Self::Place, old: &[u64]) -> Needs<Self::Need>;

    /// Whether a fresh entry must be cleaned too, because absence may be cached.
    fn caches_absence(&self, kind: Self::Kind) -> bool;

    /// Whether hardware reads the words of such an entry at different times, and of an absent one too: what was prepared
    /// must be clean before the entry becomes present.
    fn reads_apart(&self, kind: Self::Kind) -> bool {
        let _ = kind;
        false
    }

    /// Whether the command cleans all that is needed.
    fn covers(&self, command: &Self::Command, need: &Self::Need) -> bool;

    /// Whether `before` must be complete before `after` is issued.
    fn waits_between(&self, before: &Self::Need, after: &Self::Need) -> bool;

    /// Whether a store must be flushed before the walker sees it.
    fn needs_flush(&self) -> bool;

    /// What a present entry leads to; nothing for an absent one.
    fn targets(&self, kind: Self::Kind, words: &[u64]) -> Targets;
}
