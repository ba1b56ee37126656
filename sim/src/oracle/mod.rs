//! Oracles: judges of the event stream.
//!
//! An oracle reads events and shadow state, changes nothing, and never trusts the bookkeeping of the code under test.

use crate::device::Fabric;
use crate::engine::ActorId;
use crate::memory::Memory;
use crate::trace::{Event, EventKind, TraceHash};

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
    /// Judges one event.
    fn on_event(&mut self, event: &Event, view: &View<'_>) -> Option<Finding>;
    /// Judges the end of a run that nothing stopped.
    fn at_end(&mut self, view: &View<'_>) -> Option<Finding> {
        let _ = view;
        None
    }
}

/// Keeps the trace hash, feeds the oracles and remembers the first finding.
#[derive(Default)]
pub struct Judge {
    /// Each with its interests, so that an event asks only those that want it.
    oracles: Vec<(u32, Box<dyn Oracle>)>,
    interests: u32,
    hash: TraceHash,
    log: Option<Vec<Event>>,
    finding: Option<Finding>,
}

impl Judge {
    /// A judge with `oracles`. With `keep_log` the events themselves are kept, for reports.
    pub fn new(oracles: Vec<Box<dyn Oracle>>, keep_log: bool) -> Judge {
        let oracles: Vec<_> = oracles.into_iter().map(|oracle| (oracle.interests(), oracle)).collect();
        let interests = oracles.iter().fold(0, |mask, (wanted, _)| mask | wanted);
        Judge { oracles, interests, log: keep_log.then(Vec::new), ..Judge::default() }
    }

    /// Takes in one event; true when it made a finding.
    #[inline]
    pub fn take(&mut self, event: &Event, view: &View<'_>) -> bool {
        self.hash.add(event);
        if let Some(log) = &mut self.log {
            log.push(*event);
        }
        self.interests & event.kind.bit() != 0 && self.ask(event, view)
    }

    fn ask(&mut self, event: &Event, view: &View<'_>) -> bool {
        let bit = event.kind.bit();
        let before = self.finding.is_some();
        for (wanted, oracle) in &mut self.oracles {
            if *wanted & bit != 0
                && let Some(finding) = oracle.on_event(event, view)
            {
                self.finding.get_or_insert(finding);
            }
        }
        !before && self.finding.is_some()
    }

    /// Asks every oracle about the end of the run.
    pub fn end(&mut self, view: &View<'_>) {
        for (_, oracle) in &mut self.oracles {
            if let Some(finding) = oracle.at_end(view) {
                self.finding.get_or_insert(finding);
            }
        }
    }

    /// Records a finding made elsewhere; the first one stays.
    pub fn found(&mut self, finding: Finding) {
        self.finding.get_or_insert(finding);
    }

    /// The first finding.
    pub fn finding(&self) -> Option<&Finding> {
        self.finding.as_ref()
    }

    /// The trace hash so far.
    pub fn hash(&self) -> u64 {
        self.hash.value()
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
