//! Oracles: judges of the event stream.
//!
//! An oracle reads events and shadow state, changes nothing, and never trusts the bookkeeping of the code under test.

mod race;

pub use race::RaceRules;
pub(crate) use race::{Access, RaceDetector};

use iommu_model::addr::Pa;

use crate::device::Fabric;
use crate::engine::ActorId;
use crate::memory::Memory;
use crate::trace::{Event, EventKind, Flavor, TraceHash};

/// A property that was violated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Short name of the property (`I2`, `lock`, `unexplained-stop`).
    pub property: &'static str,
    /// Title without numbers: the deduplication key together with the property.
    pub title: String,
    /// What exactly, with addresses, one line each.
    pub details: Vec<String>,
    /// Step at which it was seen.
    pub step: u64,
    /// The actor whose step it was.
    pub actor: ActorId,
}

/// What an oracle may look at: the machine as it is after the event.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Bytes and shadow.
    pub memory: &'a Memory,
    /// Units with their caches, devices with their writes in flight.
    pub fabric: &'a Fabric,
}

/// A judge.
pub trait Oracle {
    /// Name, as `lurch list oracles` shows it.
    fn name(&self) -> &'static str;
    /// The kinds of events it wants: a union of [`EventKind::bit`]s.
    fn interests(&self) -> u32;
    /// Of the words of the workload, those it wants: a union of [`Verb::bit`](crate::trace::Verb::bit)s. Asked only if its interests have the bit of notes.
    fn verbs(&self) -> u64 {
        u64::MAX
    }
    /// Of the stores that change the bits `changed` at `pa`, those it wants. Asked only if its interests have the bit of stores: most
    /// events are stores, and most of them concern nobody.
    fn wants_store(&self, pa: Pa, changed: u64, memory: &Memory) -> bool {
        let _ = (pa, changed, memory);
        true
    }
    /// Judges one event.
    fn on_event(&mut self, event: &Event, view: &View<'_>) -> Option<Finding>;
    /// Judges the end of a run that nothing stopped.
    fn at_end(&mut self, view: &View<'_>) -> Option<Finding> {
        let _ = view;
        None
    }
}

/// The number of [`EventKind::Store`].
const STORE: usize = EventKind::Store { pa: Pa(0), bytes: 0, old: 0, new: 0, flavor: Flavor::Plain }.index();

/// Events that room is made for before a run whose events are kept.
const LOG_RESERVE: usize = 1 << 13;

/// Keeps the trace hash, feeds the oracles and remembers the first finding.
pub struct Judge {
    oracles: Vec<Box<dyn Oracle>>,
    /// Bit n: an event of kind n is wanted by more than the hash.
    interests: u32,
    /// For each kind of event the oracles that want it: bit n is the n-th.
    by_kind: [u32; EventKind::KINDS],
    /// For each bit of a verb the oracles that want such notes.
    by_verb: [u32; u64::BITS as usize],
    hash: TraceHash,
    log: Option<Vec<Event>>,
    finding: Option<Finding>,
    /// Events kept when the finding was made.
    nr_events: usize,
    /// The function each kept event was made in.
    functions: Vec<&'static str>,
    /// The function the finding was made in.
    found_in: &'static str,
}

impl Default for Judge {
    fn default() -> Judge {
        Judge::new(Vec::new(), false)
    }
}

impl Judge {
    /// A judge with `oracles`. With `keep_log` the events themselves are kept, for reports.
    ///
    /// # Panics
    /// When there are more than 32 oracles.
    pub fn new(oracles: Vec<Box<dyn Oracle>>, keep_log: bool) -> Judge {
        assert!(oracles.len() <= u32::BITS as usize, "a judge has at most {} oracles", u32::BITS);
        let wanted_by = |wants: &dyn Fn(&dyn Oracle) -> bool| {
            oracles.iter().enumerate().filter(|(_, oracle)| wants(&***oracle)).fold(0, |set, (place, _)| set | 1 << place)
        };
        let by_kind = std::array::from_fn(|kind| wanted_by(&|oracle| oracle.interests() >> kind & 1 != 0));
        let by_verb = std::array::from_fn(|bit| wanted_by(&|oracle| oracle.verbs() >> bit & 1 != 0));
        let asked = by_kind.iter().enumerate().filter(|(_, set)| **set != 0).fold(0, |mask, (kind, _)| mask | 1 << kind);
        let interests = if keep_log { u32::MAX } else { asked };
        Judge {
            oracles,
            interests,
            by_kind,
            by_verb,
            hash: TraceHash::default(),
            log: keep_log.then(|| Vec::with_capacity(LOG_RESERVE)),
            finding: None,
            nr_events: 0,
            functions: Vec::new(),
            found_in: "",
        }
    }

    /// Takes one event into the hash; true when it must be told, too.
    #[inline(always)]
    pub fn take(&mut self, step: u64, actor: ActorId, kind: &EventKind) -> bool {
        self.hash.add(step, actor, kind);
        self.interests & kind.bit() != 0
    }

    /// Whether a store that was taken must be told after all: the log keeps it, or some oracle wants just this one.
    #[inline]
    pub fn wants_store(&self, pa: Pa, changed: u64, memory: &Memory) -> bool {
        let mut asked = self.by_kind[STORE];
        while asked != 0 {
            if self.oracles[asked.trailing_zeros() as usize].wants_store(pa, changed, memory) {
                return true;
            }
            asked &= asked - 1;
        }
        self.log.is_some()
    }

    /// Tells the oracles that want it, and the log, of an event that was taken, made in `function`; true when it made a finding.
    pub fn tell(&mut self, event: &Event, view: &View<'_>, function: &'static str) -> bool {
        if let Some(log) = &mut self.log {
            log.push(*event);
            self.functions.push(function);
        }
        let mut asked = self.by_kind[event.kind.index()];
        if let EventKind::Note { verb, .. } = event.kind {
            asked &= self.by_verb[verb.bit().trailing_zeros() as usize];
        }
        let before = self.finding.is_some();
        while asked != 0 {
            let place = asked.trailing_zeros() as usize;
            asked &= asked - 1;
            if let Some(finding) = self.oracles[place].on_event(event, view) {
                self.found(finding, function);
            }
        }
        !before && self.finding.is_some()
    }

    /// Asks every oracle about the end of the run.
    pub fn end(&mut self, view: &View<'_>) {
        for place in 0..self.oracles.len() {
            if let Some(finding) = self.oracles[place].at_end(view) {
                self.found(finding, "");
            }
        }
    }

    /// Records a finding made elsewhere, in `function`; the first one stays.
    pub fn found(&mut self, finding: Finding, function: &'static str) {
        if self.finding.is_none() {
            self.found_in = function;
            self.finding = Some(finding);
            self.nr_events = self.log().len();
        }
    }

    /// The first finding.
    pub fn finding(&self) -> Option<&Finding> {
        self.finding.as_ref()
    }

    /// How many of the kept events there were when the finding was made: what follows is the rest of its step.
    pub fn nr_events_to_finding(&self) -> usize {
        self.nr_events
    }

    /// The function the finding was made in; none where its program has not said.
    pub fn found_in(&self) -> Option<&'static str> {
        Some(self.found_in).filter(|function| !function.is_empty())
    }

    /// The function each kept event was made in, empty where its program has not said; as many as there are events.
    pub fn functions(&self) -> &[&'static str] {
        &self.functions
    }

    /// The trace hash so far.
    pub fn hash(&self) -> u64 {
        self.hash.value()
    }

    /// Takes the kept events out, with the function each was made in.
    pub fn take_log(&mut self) -> (Vec<Event>, Vec<&'static str>) {
        (self.log.take().unwrap_or_default(), std::mem::take(&mut self.functions))
    }

    /// The kept events.
    pub fn log(&self) -> &[Event] {
        self.log.as_deref().unwrap_or(&[])
    }
}

/// The union of the bits of the given kinds, for [`Oracle::interests`].
pub const fn interests(kinds: &[EventKind]) -> u32 {
    let mut mask = 0;
    let mut i = 0;
    while i < kinds.len() {
        mask |= kinds[i].bit();
        i += 1;
    }
    mask
}
