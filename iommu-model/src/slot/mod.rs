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
//! architecture; [`Rules`] say what an entry of each kind is and needs. [`vtd`], [`smmu`], [`amd`] and [`riscv`] have those
//! of each architecture, with where its manual says so.
//!
//! Not seen: entries that were never declared; stores of less than 8 bytes; what a software-only invalidation counter claims.

pub mod amd;
pub mod riscv;
mod rules;
pub mod smmu;
pub mod vtd;

pub use rules::{Change, Frames, Needs, Place, Rules, Targets, WORDS_MAX};

use crate::addr::{Pa, Pfn};
use core::fmt::Debug;
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};

/// Words that an entry has held since a debt was paid, at most; beyond, its uses are no longer judged until the next one is.
const HISTORY_MAX: usize = 16;

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
    /// An aligned 16-byte store, by software, which hardware sees whole.
    StoredPair {
        /// Where.
        pa: Pa,
        /// What is there now.
        values: [u64; 2],
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
    /// Every invalidation issued so far is complete; accesses that were translated before may still be under way.
    Completed,
    /// Every invalidation issued so far is complete, and so are the accesses that were translated before.
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
    pub needs: Needs<N>,
    /// So many of them are clean.
    pub done: usize,
    /// So many of them have been issued for.
    pub issued: usize,
    /// The store is visible to the walker.
    pub flushed: bool,
    /// A meaning that the entry had may be cached, not only words that did not count.
    pub meant: bool,
}

impl<N: Copy> Debt<N> {
    /// Nothing is missing but that accesses land.
    fn is_clean(&self) -> bool {
        self.flushed && self.done == self.needs.len()
    }

    /// What is missing first; nothing if only the flush is.
    fn missing(&self) -> Option<N> {
        self.needs.get(self.done).copied()
    }
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
    /// An entry was cleared in a way that lets everything pass.
    #[error("entry at {pa} cleared so that everything passes")]
    Opened {
        /// The entry.
        pa: Pa,
    },
    /// An entry was changed or set while what it said, or half of what it says now, may be cached.
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
        /// What is missing first; nothing if only the flush is, or that accesses land.
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
    place: R::Place,
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
    pub fn declare(&mut self, pa: Pa, kind: R::Kind, place: R::Place, words: &[u64]) {
        assert_eq!(words.len(), self.rules.words(kind), "an entry of this kind has a fixed size");
        let mut all = [0; WORDS_MAX];
        all[..words.len()].copy_from_slice(words);
        let present = self.rules.is_present(kind, words);
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
            Event::Stored { pa, value } => self.store(pa, &[value]),
            Event::StoredPair { pa, values } => self.store(pa, &values),
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
            Event::Completed => {
                self.wait(false);
                Ok(())
            }
            Event::Waited => {
                self.wait(true);
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

    fn store(&mut self, pa: Pa, values: &[u64]) -> Result<(), Violation<R::Need>> {
        let Some((start, index)) = self.entry_of(pa) else {
            // A pair may begin in front of an entry of one word.
            return match values {
                [_, rest @ ..] if !rest.is_empty() => self.store(pa.offset(8), rest),
                _ => Ok(()),
            };
        };
        let Some(entry) = self.entries.get_mut(&start) else { return Ok(()) };
        let count = self.rules.words(entry.kind);
        let (mine, rest) = values.split_at(values.len().min(count - index));
        let result = Self::change(&self.rules, entry, start, index, mine);
        if entry.state.debt().is_some() {
            self.unclean.insert(start);
        }
        let other = if rest.is_empty() { Ok(()) } else { self.store(pa.offset(8 * mine.len() as u64), rest) };
        result.and(other)
    }

    /// An entry's words from `index` on become `values`, in one store.
    fn change(rules: &R, entry: &mut Entry<R>, pa: Pa, index: usize, values: &[u64]) -> Result<(), Violation<R::Need>> {
        let count = rules.words(entry.kind);
        let old = entry.words;
        entry.words[index..index + values.len()].copy_from_slice(values);
        let change = rules.change(entry.kind, &old[..count], &entry.words[..count], values.len());
        for (n, value) in old.iter().enumerate().skip(index).take(values.len()) {
            remember(&mut entry.history, &mut entry.lossy, (n as u8, *value));
        }
        if change == Change::Nothing {
            return Ok(());
        }
        let was_valid = entry.state.is_valid();
        let owed = entry.state.debt().filter(|debt| !debt.is_clean()).cloned();
        let (unclean, meant) = (owed.is_some(), owed.as_ref().is_some_and(|debt| debt.meant));
        let missing = owed.and_then(|debt| debt.missing());
        let reused = match change {
            // One word is replaced as a whole; its absent forms are all the same.
            Change::Prepares => meant && count > 1,
            Change::Sets => unclean && !was_valid,
            Change::Readies => meant,
            Change::Switches => unclean,
            _ => false,
        };
        let broken = match change {
            Change::Tears => Some(Violation::Torn { pa }),
            Change::Opens => Some(Violation::Opened { pa }),
            _ if reused => Some(Violation::ReusedUnclean { pa, missing }),
            _ => None,
        };
        let owes = match change {
            Change::Clears | Change::Opens | Change::Switches | Change::Alters | Change::Tears => true,
            Change::Sets => rules.caches_absence(entry.kind),
            Change::Prepares | Change::Readies => rules.reads_apart(entry.kind),
            Change::Nothing | Change::Widens => false,
        };
        if owes {
            let targets = rules.targets(entry.kind, &old[..count]);
            entry.led_to.extend(targets.into_iter().filter(|frames| !entry.led_to.contains(frames)).collect::<Targets>());
        }
        let debt = if owes {
            let said = if change == Change::Sets { &entry.words } else { &old };
            let needs = rules.needs(entry.kind, &entry.place, &said[..count]);
            let meant = meant || !matches!(change, Change::Sets | Change::Prepares | Change::Readies);
            Some(Debt { needs, done: 0, issued: 0, flushed: !rules.needs_flush(), meant })
        } else {
            // What was owed before is still owed.
            entry.state.debt().cloned()
        };
        let present = match change {
            Change::Sets | Change::Widens | Change::Readies | Change::Switches | Change::Alters | Change::Tears => true,
            Change::Clears | Change::Opens | Change::Prepares | Change::Nothing => false,
        };
        entry.state = match (present, debt) {
            (true, None) => State::Valid,
            (false, None) => State::InvalidClean,
            (true, Some(debt)) => State::ValidUnclean(debt),
            (false, Some(debt)) => State::InvalidUnclean(debt),
        };
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
            // One command may serve several needs in a row; it does so at once.
            let complete = debt.done == debt.issued;
            let before = debt.issued.checked_sub(1).and_then(|before| debt.needs.get(before).copied());
            if let (false, Some(before), Some(need)) = (complete, before, debt.needs.get(debt.issued))
                && rules.waits_between(&before, need)
            {
                return;
            }
            while debt.flushed && debt.needs.get(debt.issued).is_some_and(|need| rules.covers(command, need)) {
                debt.issued += 1;
            }
        });
    }

    fn wait(&mut self, landed: bool) {
        self.debts(|_, _, debt| debt.done = debt.issued);
        let entries = &mut self.entries;
        self.unclean.retain(|pa| {
            let Some(entry) = entries.get_mut(pa) else { return false };
            let present = entry.state.is_valid();
            let paid = landed && entry.state.debt().is_none_or(|debt| debt.is_clean());
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
            if self.rules.targets(entry.kind, &entry.words[..count]).iter().any(|frames| frames.holds(frame)) {
                return Err(Violation::ReleasedInUse { pa, frame });
            }
            let Some(debt) = entry.state.debt() else { continue };
            let missing = debt.missing();
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
        let absent = !self.rules.is_present(entry.kind, &words[..self.rules.words(entry.kind)]);
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
