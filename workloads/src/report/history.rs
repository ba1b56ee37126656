//! The event stream with an index: who was in which function, who wrote a word, what became of a frame.
//!
//! Every question takes a position in the stream and looks backwards from it, as one does with a trace.

use std::collections::BTreeMap;
use std::ops::Range;

use iommu_model::addr::Pa;
use sim::engine::ActorId;
use sim::memory::Tag;
use sim::trace::{Event, EventKind, UnitId};

use crate::run::{Outcome, Region};
use crate::{tag, verb};

/// Bytes of a frame.
pub const FRAME_BYTES: u64 = 4096;

/// A run's events with an index.
pub struct History<'a> {
    outcome: &'a Outcome,
    /// For each actor the positions of the functions it entered.
    calls: BTreeMap<ActorId, Vec<usize>>,
}

/// What memory was last known to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holding {
    /// Position of the event that says so.
    pub at: usize,
    /// Free, or handed out for what.
    pub tag: Option<Tag>,
    /// What was there before, for memory that is free.
    pub before: Tag,
    /// Where the block or object begins.
    pub base: Pa,
}

impl<'a> History<'a> {
    /// The history of a run whose log was kept.
    pub fn new(outcome: &'a Outcome) -> History<'a> {
        let mut calls: BTreeMap<ActorId, Vec<usize>> = BTreeMap::new();
        for (at, event) in outcome.log.iter().enumerate() {
            if matches!(event.kind, EventKind::Note { verb: verb::CALL, .. }) {
                calls.entry(event.actor).or_default().push(at);
            }
        }
        History { outcome, calls }
    }

    /// The run.
    pub fn outcome(&self) -> &'a Outcome {
        self.outcome
    }

    /// All events.
    pub fn events(&self) -> &'a [Event] {
        &self.outcome.log
    }

    /// The event at a position.
    pub fn event(&self, at: usize) -> &'a Event {
        &self.outcome.log[at]
    }

    /// The last event before `end` for which `wanted` holds.
    pub fn last_before(&self, end: usize, wanted: impl Fn(&EventKind) -> bool) -> Option<usize> {
        self.events()[..end].iter().rposition(|event| wanted(&event.kind))
    }

    /// The positions in `range` for which `wanted` holds.
    pub fn positions(&self, range: Range<usize>, wanted: impl Fn(&Event) -> bool) -> Vec<usize> {
        let end = range.end.min(self.events().len());
        (range.start.min(end)..end).filter(|&at| wanted(self.event(at))).collect()
    }

    /// The function an event's actor was in; of a stream that does not say, the one it entered last. None for hardware.
    pub fn function(&self, at: usize) -> Option<String> {
        if let Some(function) = self.outcome.functions.get(at) {
            return Some((*function).to_owned()).filter(|function| !function.is_empty());
        }
        let calls = self.calls.get(&self.event(at).actor)?;
        let entered = calls.partition_point(|&call| call <= at).checked_sub(1)?;
        // A function of a kernel that is gone says nothing about what its CPU does in the next one.
        let call = self.event(calls[entered]);
        if call.era != self.event(at).era {
            return None;
        }
        match call.kind {
            EventKind::Note { args, .. } => Some(verb::unpack_name(args)),
            _ => None,
        }
    }

    /// Where the call began in which the program that acts at `at` is: its system call, or the boot of its kernel.
    pub fn begin_of_call(&self, at: usize) -> usize {
        let acting = self.event(at).actor;
        let begins = |event: &Event| match event.kind {
            EventKind::Note { verb: verb::USER_CALL, .. } => event.actor == acting,
            EventKind::Jumped { .. } => true,
            _ => false,
        };
        self.events()[..at].iter().rposition(begins).unwrap_or(0)
    }

    /// An actor's name. A device is one to its reader, though its writes land by themselves.
    pub fn name(&self, actor: ActorId) -> String {
        let Some(known) = self.outcome.actors.get(actor.index()) else { return actor.to_string() };
        let name = known.name.as_str();
        if known.era.is_none() { name.strip_suffix(" writes").unwrap_or(name).to_owned() } else { name.to_owned() }
    }

    /// True for a device or a remapping unit.
    pub fn is_hardware(&self, actor: ActorId) -> bool {
        self.outcome.actors.get(actor.index()).is_some_and(|known| known.era.is_none())
    }

    /// The last store to a word before `end`, by a CPU or by DMA; none when its memory was handed out anew since.
    pub fn last_writer(&self, word: Pa, end: usize) -> Option<usize> {
        let last = self.last_before(end, |kind| match *kind {
            EventKind::FramesTaken { pfn, order, .. } => overlap(pfn.pa(), FRAME_BYTES << order, word, 8),
            EventKind::Store { pa, bytes, .. } => overlap(pa, u64::from(bytes), word, 8),
            EventKind::DmaLanded { pa, .. } => overlap(pa, 8, word, 8),
            EventKind::StatusWritten { pa, .. } => overlap(pa, 4, word, 8),
            _ => false,
        });
        last.filter(|&at| !matches!(self.event(at).kind, EventKind::FramesTaken { .. }))
    }

    /// The value last written to a register of a unit before `end`.
    pub fn register(&self, unit: UnitId, offset: u16, end: usize) -> Option<u64> {
        self.events()[..end].iter().rev().find_map(|event| match event.kind {
            EventKind::RegisterWritten { unit: u, offset: o, value } if u == unit && o == offset => Some(value),
            _ => None,
        })
    }

    /// What the allocator last said of the memory at `pa` before `end`: a slab object's fate goes before its page's.
    pub fn holding(&self, pa: Pa, end: usize) -> Option<Holding> {
        for at in (0..end).rev() {
            let holding = match self.event(at).kind {
                EventKind::ObjectTaken { pa: object, bytes, tag } if overlap(object, u64::from(bytes), pa, 1) => {
                    Holding { at, tag: Some(tag), before: tag, base: object }
                }
                EventKind::ObjectFreed { pa: object, tag } if object == pa => Holding { at, tag: None, before: tag, base: object },
                EventKind::FramesTaken { pfn, order, tag } if overlap(pfn.pa(), FRAME_BYTES << order, pa, 1) => {
                    Holding { at, tag: Some(tag), before: tag, base: pfn.pa() }
                }
                EventKind::FramesFreed { pfn, order, tag } if overlap(pfn.pa(), FRAME_BYTES << order, pa, 1) => {
                    Holding { at, tag: None, before: tag, base: pfn.pa() }
                }
                _ => continue,
            };
            return Some(holding);
        }
        None
    }

    /// True when the memory at `pa`, handed out at `taken`, was in use when a kernel jumped before `end`, and the next one neither reserved nor
    /// restored it: it is nobody's until that kernel hands it out.
    pub fn is_lost_at_jump(&self, pa: Pa, taken: usize, end: usize) -> bool {
        let jumps = self.positions(taken..end, |event| matches!(event.kind, EventKind::Jumped { .. }));
        jumps.last().is_some_and(|&jump| !self.is_handed_over(pa, jump, end))
    }

    /// True when the kernel that begins at `jump` reserved or restored the memory at `pa` before `end`.
    pub fn is_handed_over(&self, pa: Pa, jump: usize, end: usize) -> bool {
        let era = self.event(jump).era;
        self.of_frame(pa, jump..end).into_iter().any(|at| {
            let event = self.event(at);
            event.era == era && matches!(event.kind, EventKind::Note { verb: verb::KHO_RESERVED | verb::KHO_RESTORED, .. })
        })
    }

    /// What lies at `pa` outside the allocator when the event at `at` happens.
    pub fn region(&self, pa: Pa, at: usize) -> Option<&'a Region> {
        let era = self.events().get(at).map_or(0, |event| event.era);
        let outcome: &'a Outcome = self.outcome;
        outcome.regions.iter().find(|region| region.frames.contains(&pa.pfn()) && region.era.is_none_or(|of| of == era))
    }

    /// Everything that befell the frame of `pa` in `range`: handed out, freed, preserved, restored, pinned. Where an object is or was at
    /// `pa`, the page that the slab carved it from tells nothing.
    pub fn of_frame(&self, pa: Pa, range: Range<usize>) -> Vec<usize> {
        let frame = pa.pfn().pa();
        let mut found = self.positions(range, |event| match event.kind {
            EventKind::FramesTaken { pfn, order, .. } | EventKind::FramesFreed { pfn, order, .. } => {
                overlap(pfn.pa(), FRAME_BYTES << order, frame, FRAME_BYTES)
            }
            EventKind::ObjectTaken { pa: object, bytes, .. } => overlap(object, u64::from(bytes), pa, 1),
            EventKind::ObjectFreed { pa: object, .. } => object == pa,
            EventKind::Note { verb, args } => match verb {
                verb::KHO_ADD | verb::KHO_DEL | verb::KHO_RESTORED | verb::KHO_RESERVED => {
                    overlap(Pa(args[0]), FRAME_BYTES.checked_shl(args[1] as u32).unwrap_or(FRAME_BYTES), frame, FRAME_BYTES)
                }
                verb::KHO_RESTORE_FAILED => Pa(args[0]).pfn() == pa.pfn(),
                verb::PINNED | verb::UNPINNED => args[0] == pa.pfn().0,
                _ => false,
            },
            _ => false,
        });
        let of_object = |at: &usize| matches!(self.event(*at).kind, EventKind::ObjectTaken { .. } | EventKind::ObjectFreed { .. });
        if found.iter().any(of_object) {
            found.retain(|&at| !matches!(self.event(at).kind, EventKind::FramesTaken { tag: tag::SLAB, .. }));
        }
        found
    }
}

/// True when the two ranges of bytes share one.
pub fn overlap(a: Pa, a_bytes: u64, b: Pa, b_bytes: u64) -> bool {
    a.0 < b.0.saturating_add(b_bytes) && b.0 < a.0.saturating_add(a_bytes)
}
