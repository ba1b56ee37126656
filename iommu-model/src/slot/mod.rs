//! The slot automaton: whether software changes table entries as the hardware's manual demands.
//!
//! An entry that hardware may have cached does not belong to software, whatever the memory says. So each entry that the
//! caller declares is in one of four states:
//!
//! | state | the entry is | software may |
//! | --- | --- | --- |
//! | [`State::InvalidClean`] | absent, and cached nowhere | do anything |
//! | [`State::Valid`] | present, as cached | clear it, or change it as far as one store may |
//! | [`State::ValidUnclean`] | present, and what it said before may be cached | the same; frames it led to stay untouchable |
//! | [`State::InvalidUnclean`] | absent, and what it said may be cached | nothing but clean |
//!
//! Cleaning is a [`Debt`]: the store must be visible to the walker (flushed, on units that do not snoop), then each
//! needed invalidation is issued, outer caches before inner ones, and a wait completes each stage. An invalidation that is too
//! narrow, too early or out of order pays nothing. The debt stays until it is paid, and what it forbids is found whether or
//! not a walk ever hit the window.
//!
//! The [`Checker`] sees events only: stores, flushes, invalidations, waits, releases of frames, uses by hardware. It knows no
//! architecture; [`Rules`] say what an entry of each kind is and needs. [`vtd`] has those of VT-d.
//!
//! Not seen: entries that were never declared; stores of less than 8 bytes; what a software-only invalidation counter claims.

pub mod vtd;

use crate::addr::{Bdf, DomainId, Iova, Pa, Pasid, Pfn};
use core::fmt::Debug;
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};

/// Most words of an entry.
pub const WORDS_MAX: usize = 8;

/// Words that an entry has held since a debt was paid, at most; beyond, its uses are no longer judged until the next one is.
const HISTORY_MAX: usize = 16;

/// Where an entry stands: what caches tag it with, as far as its words do not say so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The function that a device-table entry is of; for others, one that uses the tables.
    pub source: Bdf,
    /// The domain that a paging entry belongs to.
    pub domain: DomainId,
    /// The address space of a first-stage entry, or the index of a PASID entry.
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
    /// Present before and after, and the old meaning does no harm: more permission, same memory.
    Widens,
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
    fn holds(self, frame: Pfn) -> bool {
        frame.0 >= self.first.0 && frame.0 - self.first.0 < self.count
    }
}

/// What an architecture demands.
pub trait Rules {
    /// Kinds of entries.
    type Kind: Copy + Eq + Debug;
    /// One cache that must be cleaned, and of what.
    type Need: Copy + Eq + Debug;
    /// What software can issue.
    type Command: Copy + Debug;

    /// 64-bit words of such an entry, 1 to [`WORDS_MAX`].
    fn words(&self, kind: Self::Kind) -> usize;

    /// What the change from `old` to `new`, which differ in one word, is.
    fn change(&self, kind: Self::Kind, old: &[u64], new: &[u64]) -> Change;

    /// What must be cleaned when an entry has said `old`, outermost first.
    fn needs(&self, kind: Self::Kind, place: &Place, old: &[u64]) -> SmallVec<[Self::Need; 4]>;

    /// Whether a fresh entry must be cleaned too, because absence may be cached.
    fn caches_absence(&self, kind: Self::Kind) -> bool;

    /// Whether the command cleans all that is needed.
    fn covers(&self, command: &Self::Command, need: &Self::Need) -> bool;

    /// Whether `before` must be complete before `after` is issued.
    fn waits_between(&self, before: &Self::Need, after: &Self::Need) -> bool;

    /// Whether a store must be flushed before the walker sees it.
    fn needs_flush(&self) -> bool;

    /// What a present entry leads to.
    fn target(&self, kind: Self::Kind, words: &[u64]) -> Option<Frames>;
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event<C> {
    /// An aligned 8-byte store, by software.
    Stored {
        /// Where.
        pa: Pa,
        /// What is there now.
        value: u64,
    },
    /// The stores to this 64-byte line have become visible to the walker.
    Flushed {
        /// Any byte of the line.
        line: Pa,
    },
    /// Every store has become visible (a write-buffer flush).
    FlushedAll,
    /// An invalidation was issued.
    Issued(C),
    /// Every invalidation issued so far is complete.
    Waited,
    /// A frame was given back, or to another owner.
    Released(Pfn),
    /// Hardware acted on a word that it had read here, now or earlier.
    Used {
        /// Where it read.
        pa: Pa,
        /// What it read.
        value: u64,
    },
}

/// What must happen before the old meaning of an entry is gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Debt<N> {
    /// Caches to clean, outermost first.
    pub needs: SmallVec<[N; 4]>,
    /// So many of them are clean.
    pub done: usize,
    /// So many of them have been issued for.
    pub issued: usize,
    /// The store is visible to the walker.
    pub flushed: bool,
}

/// The state of an entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State<N> {
    /// Absent and cached nowhere.
    InvalidClean,
    /// Present.
    Valid,
    /// Present; what it said before may be cached.
    ValidUnclean(Debt<N>),
    /// Absent; what it said before may be cached.
    InvalidUnclean(Debt<N>),
}

impl<N> State<N> {
    fn debt(&mut self) -> Option<&mut Debt<N>> {
        match self {
            Self::InvalidClean | Self::Valid => None,
            Self::ValidUnclean(debt) | Self::InvalidUnclean(debt) => Some(debt),
        }
    }

    const fn is_valid(&self) -> bool {
        matches!(self, Self::Valid | Self::ValidUnclean(_))
    }
}

/// A rule was broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation<N: Debug> {
    /// A present entry was changed in a way that needs it absent first; a walker may see half of each.
    #[error("present entry at {pa} changed in place")]
    Torn {
        /// The entry.
        pa: Pa,
    },
    /// An absent entry was changed or set while its old meaning may be cached.
    #[error("entry at {pa} used again before it is clean: {missing:?} is missing")]
    ReusedUnclean {
        /// The entry.
        pa: Pa,
        /// What is missing first; nothing if only the flush is.
        missing: Option<N>,
    },
    /// A frame was given away that a present entry leads to.
    #[error("frame {frame} released under the present entry at {pa}")]
    ReleasedInUse {
        /// The entry.
        pa: Pa,
        /// The frame.
        frame: Pfn,
    },
    /// A frame was given away while the old meaning of an entry may still lead there.
    #[error("frame {frame} released before the entry at {pa} is clean: {missing:?} is missing")]
    ReleasedUnclean {
        /// The entry.
        pa: Pa,
        /// The frame.
        frame: Pfn,
        /// What is missing first; nothing if only the flush is.
        missing: Option<N>,
    },
    /// Hardware acted on a word that no invalidation had left it.
    #[error("hardware used {value:#x} of the entry at {pa}, which was cleaned since")]
    StaleUse {
        /// The word.
        pa: Pa,
        /// What it used.
        value: u64,
    },
}

/// One declared entry.
#[derive(Clone, Debug)]
struct Entry<R: Rules> {
    kind: R::Kind,
    place: Place,
    words: [u64; WORDS_MAX],
    state: State<R::Need>,
    /// What words it has held since a debt was paid, with their index. A change that owes nothing stays here.
    history: SmallVec<[(u8, u64); 4]>,
    /// Frames that those led to.
    led_to: SmallVec<[Frames; 2]>,
    /// `history` is not complete any more.
    lossy: bool,
}

/// The automaton of every declared entry.
#[derive(Clone, Debug)]
pub struct Checker<R: Rules> {
    rules: R,
    entries: BTreeMap<Pa, Entry<R>>,
    unclean: BTreeSet<Pa>,
}

impl<R: Rules> Checker<R> {
    /// No entry is declared.
    #[must_use]
    pub const fn new(rules: R) -> Self {
        Self { rules, entries: BTreeMap::new(), unclean: BTreeSet::new() }
    }

    /// From now on the words at `pa` are such an entry; they are `words` now, and are taken to be clean. What was declared
    /// there before is forgotten.
    ///
    /// # Panics
    ///
    /// If `words` are not as many as such an entry has.
    pub fn declare(&mut self, pa: Pa, kind: R::Kind, place: Place, words: &[u64]) {
        assert_eq!(words.len(), self.rules.words(kind), "an entry of this kind has a fixed size");
        let mut all = [0; WORDS_MAX];
        all[..words.len()].copy_from_slice(words);
        let present = self.rules.target(kind, words).is_some();
        let state = if present { State::Valid } else { State::InvalidClean };
        let entry = Entry { kind, place, words: all, state, history: SmallVec::new(), led_to: SmallVec::new(), lossy: false };
        self.entries.insert(pa, entry);
        self.unclean.remove(&pa);
    }

    /// The words are no entry any more: the table that they were in is gone.
    pub fn retire(&mut self, pa: Pa) {
        self.entries.remove(&pa);
        self.unclean.remove(&pa);
    }

    /// The state of a declared entry.
    #[must_use]
    pub fn state(&self, pa: Pa) -> Option<&State<R::Need>> {
        self.entries.get(&pa).map(|entry| &entry.state)
    }

    /// Entries whose old meaning may be cached. After an operation that promises its effect there must be none.
    pub fn unclean(&self) -> impl Iterator<Item = Pa> {
        self.unclean.iter().copied()
    }

    /// Takes one event.
    ///
    /// # Errors
    ///
    /// The rule that it breaks. The automaton goes on as if it had been kept.
    pub fn step(&mut self, event: &Event<R::Command>) -> Result<(), Violation<R::Need>> {
        match *event {
            Event::Stored { pa, value } => self.store(pa, value),
            Event::Flushed { line } => {
                self.flush(|pa| pa.0 >> LINE_SHIFT == line.0 >> LINE_SHIFT);
                Ok(())
            }
            Event::FlushedAll => {
                self.flush(|_| true);
                Ok(())
            }
            Event::Issued(command) => {
                self.issue(&command);
                Ok(())
            }
            Event::Waited => {
                self.wait();
                Ok(())
            }
            Event::Released(frame) => self.release(frame),
            Event::Used { pa, value } => self.judge_use(pa, value),
        }
    }

    /// The entry that a word belongs to, and the word's index in it.
    fn entry_of(&self, pa: Pa) -> Option<(Pa, usize)> {
        let (&start, entry) = self.entries.range(..=pa).next_back()?;
        let index = ((pa.0 - start.0) / 8) as usize;
        (index < self.rules.words(entry.kind)).then_some((start, index))
    }

    fn store(&mut self, pa: Pa, value: u64) -> Result<(), Violation<R::Need>> {
        let Some((start, index)) = self.entry_of(pa) else { return Ok(()) };
        let Some(entry) = self.entries.get_mut(&start) else { return Ok(()) };
        let count = self.rules.words(entry.kind);
        let old = entry.words;
        entry.words[index] = value;
        let change = self.rules.change(entry.kind, &old[..count], &entry.words[..count]);
        remember(&mut entry.history, &mut entry.lossy, (index as u8, old[index]));
        if change == Change::Nothing {
            return Ok(());
        }
        let flushed = !self.rules.needs_flush();
        let missing = entry.state.debt().map(|debt| debt.needs.get(debt.done).copied());
        let unclean = !entry.state.is_valid() && missing.is_some();
        let broken = match change {
            Change::Tears => Some(Violation::Torn { pa: start }),
            // One word is replaced as a whole; its absent forms are all the same.
            Change::Prepares if unclean && count > 1 => Some(Violation::ReusedUnclean { pa: start, missing: missing.flatten() }),
            Change::Sets if unclean => Some(Violation::ReusedUnclean { pa: start, missing: missing.flatten() }),
            _ => None,
        };
        let owes = match change {
            Change::Clears | Change::Alters | Change::Tears => true,
            Change::Sets => self.rules.caches_absence(entry.kind),
            Change::Nothing | Change::Prepares | Change::Widens => false,
        };
        if owes {
            entry.led_to.extend(self.rules.target(entry.kind, &old[..count]).filter(|frames| !entry.led_to.contains(frames)));
        }
        let debt = if owes {
            let said = if change == Change::Sets { &entry.words } else { &old };
            let needs = self.rules.needs(entry.kind, &entry.place, &said[..count]);
            Some(Debt { needs, done: 0, issued: 0, flushed })
        } else {
            // What was owed before is still owed.
            entry.state.debt().cloned()
        };
        let present = match change {
            Change::Sets | Change::Widens | Change::Alters | Change::Tears => true,
            Change::Clears | Change::Prepares | Change::Nothing => false,
        };
        entry.state = match (present, debt) {
            (true, None) => State::Valid,
            (false, None) => State::InvalidClean,
            (true, Some(debt)) => State::ValidUnclean(debt),
            (false, Some(debt)) => State::InvalidUnclean(debt),
        };
        if entry.state.debt().is_some() {
            self.unclean.insert(start);
        }
        broken.map_or(Ok(()), Err)
    }

    fn debts(&mut self, mut act: impl FnMut(&R, Pa, &mut Debt<R::Need>)) {
        for pa in &self.unclean {
            if let Some(debt) = self.entries.get_mut(pa).and_then(|entry| entry.state.debt()) {
                act(&self.rules, *pa, debt);
            }
        }
    }

    fn flush(&mut self, covered: impl Fn(Pa) -> bool) {
        self.debts(|_, pa, debt| debt.flushed |= covered(pa));
    }

    fn issue(&mut self, command: &R::Command) {
        self.debts(|rules, _, debt| {
            // One command may serve several needs in a row.
            while debt.flushed
                && let Some(need) = debt.needs.get(debt.issued)
                && rules.covers(command, need)
            {
                let before = debt.issued.checked_sub(1).and_then(|before| debt.needs.get(before));
                if debt.done < debt.issued && before.is_some_and(|before| rules.waits_between(before, need)) {
                    return;
                }
                debt.issued += 1;
            }
        });
    }

    fn wait(&mut self) {
        self.debts(|_, _, debt| debt.done = debt.issued);
        let entries = &mut self.entries;
        self.unclean.retain(|pa| {
            let Some(entry) = entries.get_mut(pa) else { return false };
            let present = entry.state.is_valid();
            let paid = entry.state.debt().is_none_or(|debt| debt.flushed && debt.done == debt.needs.len());
            if paid {
                entry.state = if present { State::Valid } else { State::InvalidClean };
                entry.history.clear();
                entry.led_to.clear();
                entry.lossy = false;
            }
            !paid
        });
    }

    fn release(&mut self, frame: Pfn) -> Result<(), Violation<R::Need>> {
        for (&pa, entry) in &mut self.entries {
            let count = self.rules.words(entry.kind);
            if self.rules.target(entry.kind, &entry.words[..count]).is_some_and(|frames| frames.holds(frame)) {
                return Err(Violation::ReleasedInUse { pa, frame });
            }
            let Some(debt) = entry.state.debt() else { continue };
            let missing = debt.needs.get(debt.done).copied();
            if entry.led_to.iter().any(|frames| frames.holds(frame)) {
                return Err(Violation::ReleasedUnclean { pa, frame, missing });
            }
        }
        Ok(())
    }

    fn judge_use(&self, pa: Pa, value: u64) -> Result<(), Violation<R::Need>> {
        let Some((start, index)) = self.entry_of(pa) else { return Ok(()) };
        let Some(entry) = self.entries.get(&start) else { return Ok(()) };
        let known = entry.words[index] == value || entry.history.contains(&(index as u8, value));
        // What was absent owes nothing, so that nothing says when it was read for the last time.
        let mut words = entry.words;
        words[index] = value;
        let absent = self.rules.target(entry.kind, &words[..self.rules.words(entry.kind)]).is_none();
        if known || absent || entry.lossy { Ok(()) } else { Err(Violation::StaleUse { pa, value }) }
    }
}

/// log2 of the bytes that a flush covers.
const LINE_SHIFT: u32 = 6;

fn remember(history: &mut SmallVec<[(u8, u64); 4]>, lossy: &mut bool, word: (u8, u64)) {
    if history.contains(&word) {
        return;
    }
    if history.len() == HISTORY_MAX {
        *lossy = true;
        return;
    }
    history.push(word);
}
