//! What a run came to.

use std::ops::Range;

use iommu_model::addr::Pfn;
use sim::engine::{ActorId, ChoiceKind, Recorded};
use sim::memory::Tag;
use sim::policy::Divergence;
use sim::trace::Event;

use crate::mark::Mark;
use crate::verb::Phase;
use crate::{callee, tag};

/// The verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VerdictKind {
    /// Ran to its end, nothing violated.
    Clean,
    /// The incoming kernel stopped itself, and something in this run gave it cause.
    SafeStop,
    /// A property was violated.
    Violation,
    /// A bound ended the run.
    Bound,
}

impl VerdictKind {
    /// As JSON lines spell it.
    pub const fn name(self) -> &'static str {
        match self {
            VerdictKind::Clean => "clean",
            VerdictKind::SafeStop => "safe-stop",
            VerdictKind::Violation => "violation",
            VerdictKind::Bound => "bound",
        }
    }
}

/// Verdict with its property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Kind.
    pub kind: VerdictKind,
    /// Property that was violated, bound that was hit, or kind of the stop; empty when clean.
    pub property: String,
    /// Title, stable and free of numbers; empty when clean.
    pub title: String,
    /// What exactly, one line each.
    pub details: Vec<String>,
    /// Id of the listed finding it is; see `known.rs`.
    pub listed: Option<&'static str>,
}

/// A call that was made to fail.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Failure {
    /// [`ChoiceKind::AllocFails`] or [`ChoiceKind::CalleeFails`].
    pub kind: ChoiceKind,
    /// Its class: a tag, or a number of [`callee`](crate::callee).
    pub class: u16,
}

impl Failure {
    /// An allocation of memory for `tag`.
    pub const fn of(tag: Tag) -> Failure {
        Failure { kind: ChoiceKind::AllocFails, class: tag.0 }
    }

    /// Another callee.
    pub const fn in_callee(class: u16) -> Failure {
        Failure { kind: ChoiceKind::CalleeFails, class }
    }

    /// As reports name it.
    pub fn name(self) -> String {
        match self.kind {
            ChoiceKind::AllocFails => format!("allocation of {}", tag::name(Tag(self.class))),
            _ => callee::name(self.class).to_owned(),
        }
    }
}

/// What was counted in a run; sweeps add these up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// How often each mark was hit, indexed by `Mark as usize`.
    pub marks: Vec<u64>,
    /// DMA requests completed in each phase, indexed by `Phase as usize`.
    pub dma: Vec<u64>,
    /// DMA faults by architectural reason.
    pub dma_faults: std::collections::BTreeMap<u8, u64>,
    /// Injected failures.
    pub injected: std::collections::BTreeMap<Failure, u64>,
    /// What some marks befell, of one run: a device's requester id, a domain id.
    pub befell: Vec<(Mark, u16)>,
}

impl Default for Counts {
    fn default() -> Self {
        Counts {
            marks: vec![0; Mark::ALL.len()],
            dma: vec![0; Phase::ALL.len()],
            dma_faults: std::collections::BTreeMap::new(),
            injected: std::collections::BTreeMap::new(),
            befell: Vec::new(),
        }
    }
}

impl Counts {
    /// Adds another run's counts.
    pub fn add(&mut self, other: &Counts) {
        for (mine, theirs) in self.marks.iter_mut().zip(&other.marks) {
            *mine += theirs;
        }
        for (mine, theirs) in self.dma.iter_mut().zip(&other.dma) {
            *mine += theirs;
        }
        for (reason, n) in &other.dma_faults {
            *self.dma_faults.entry(*reason).or_default() += n;
        }
        for (class, n) in &other.injected {
            *self.injected.entry(*class).or_default() += n;
        }
    }
    /// How often a mark was hit.
    pub fn mark(&self, mark: Mark) -> u64 {
        self.marks[mark as usize]
    }
}

/// An actor of a run, as reports name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorName {
    /// Name (`reboot/2`, `dev 00:02.0`).
    pub name: String,
    /// Generation it belongs to; none for hardware.
    pub era: Option<u8>,
}

/// Where in a run a finding was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Whose step it was.
    pub by: ActorId,
    /// How many events had been kept by then.
    pub nr_events: usize,
}

/// Memory that is nobody's to hand out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Which frames.
    pub frames: Range<Pfn>,
    /// What they hold.
    pub tag: Tag,
    /// The generation whose image it is; none for what is there in all of them.
    pub era: Option<u8>,
}

/// Everything a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Verdict.
    pub verdict: Verdict,
    /// Steps performed.
    pub steps: u64,
    /// Simulated time in cycles of the furthest actor.
    pub cycles: u64,
    /// Hash of the event stream.
    pub trace_hash: u64,
    /// The choices.
    pub record: Vec<Recorded>,
    /// Number of fallible calls met.
    pub nr_fallible: u32,
    /// What was counted.
    pub counts: Counts,
    /// The events, when they were kept.
    pub log: Vec<Event>,
    /// The kernel function each of them was made in; empty where there is none.
    pub functions: Vec<&'static str>,
    /// Names of the actors, by id.
    pub actors: Vec<ActorName>,
    /// What lies in memory from the beginning, outside the allocator.
    pub regions: Vec<Region>,
    /// Where the finding was made; none where nothing was found.
    pub found: Option<Found>,
    /// Where a replay diverged.
    pub divergence: Option<Divergence>,
    /// Decoded state at the marks asked for, as text.
    pub snapshots: Vec<(String, String)>,
    /// Named assumptions this run depended on.
    pub assumptions: Vec<&'static str>,
}
