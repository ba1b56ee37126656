//! I5: a kernel hands out nothing outside scratch before it knows what was preserved, and never preserved memory it has not
//! restored.
//!
//! Formal: let K be the tracker as it lay in RAM at the jump, R what was restored since. Each block handed out after a
//! hand-over is disjoint from K \ R; before the phase "boot" it lies wholly in scratch. At the jump no record of K meets scratch.
//!
//! Why: preserved memory has no other protection in the next kernel than that nobody allocates it.
//! Source: facts/live-update.md 7 (I4, I5), 1.7, 1.8.
//!
//! Cannot see: memory used without being allocated (image segments). Bad twin: `alloc-before-reserve`.

use std::cell::RefCell;
use std::rc::Rc;

use iommu_model::addr::{Pa, Pfn};
use sim::memory::Tag;
use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};

use super::ledger::Ledger;
use super::{finding, inspect, kinds};
use crate::tag;
use crate::verb::{self, Phase};

/// The oracle.
pub(super) struct Allocation {
    ledger: Rc<RefCell<Ledger>>,
}

impl Allocation {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>) -> Allocation {
        Allocation { ledger }
    }

    fn taken(&self, event: &Event, view: &View<'_>, pfn: Pfn, order: u8, tag: Tag) -> Option<Finding> {
        let ledger = self.ledger.borrow();
        if event.era == 0 || !ledger.handover {
            return None;
        }
        let frames = pfn.0..pfn.0 + (1 << order);
        let details = |pfn: u64| vec![format!("handed out for {}", tag::name(tag)), inspect::describe(view.memory, Pa(pfn << 12))];
        if let Some(bad) = frames.clone().find(|pfn| ledger.handed.has(*pfn) && !ledger.restored.has(*pfn)) {
            return finding("I5", "preserved-memory-is-handed-out", event, details(bad));
        }
        if ledger.phase != Phase::EarlyBoot {
            return None;
        }
        let outside = frames.clone().find(|pfn| view.memory.frames.get(*pfn as usize).is_none_or(|frame| !frame.scratch))?;
        finding("I5", "early-allocation-outside-scratch", event, details(outside))
    }

    fn before_jump(&self, event: &Event, scratch: Pa, bytes: u64) -> Option<Finding> {
        let ledger = self.ledger.borrow();
        let meets = |record: &&(Pa, u8)| record.0.0 < scratch.0 + bytes && scratch.0 < record.0.0 + (4096u64 << record.1.min(40));
        let (pa, order) = ledger.tracker.iter().find(meets).filter(|_| ledger.handover && bytes > 0)?;
        finding("I5", "preserved-memory-in-scratch", event, vec![format!("record pa {:#x} order {order} lies in scratch", pa.0)])
    }
}

impl Oracle for Allocation {
    fn name(&self) -> &'static str {
        "I5"
    }

    fn interests(&self) -> u32 {
        kinds::FRAMES_TAKEN | kinds::NOTE
    }

    fn verbs(&self) -> u64 {
        kinds::verbs(&[verb::BEFORE_JUMP])
    }

    fn on_event(&mut self, event: &Event, view: &View<'_>) -> Option<Finding> {
        match event.kind {
            EventKind::FramesTaken { pfn, order, tag } => self.taken(event, view, pfn, order, tag),
            EventKind::Note { verb: verb::BEFORE_JUMP, args } => self.before_jump(event, Pa(args[1]), args[2]),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;

    fn booting() -> Bench {
        let mut bench = Bench::new().judge_with(|ledger| Box::new(Allocation::new(ledger)));
        bench.jump(&[(Pa(0x40_000), 1)]);
        bench
    }

    // Goal: in early boot only scratch, later everything but what is preserved and not restored.
    #[test]
    fn memory_is_handed_out_only_where_it_may_be() {
        let mut bench = booting();
        assert_eq!(bench.take(Bench::SCRATCH, 0, tag::OTHER), None);
        assert_eq!(bench.take(Pa(0x60_000), 0, tag::OTHER).expect("not scratch").title, "early-allocation-outside-scratch");
        let mut bench = booting();
        bench.phase(Phase::Boot);
        assert_eq!(bench.take(Pa(0x60_000), 0, tag::OTHER), None);
        assert_eq!(bench.take(Pa(0x41_000), 0, tag::OTHER).expect("preserved").title, "preserved-memory-is-handed-out");
        bench.note(verb::KHO_RESTORED, [0x40_000, 1, 0, 0]);
        assert_eq!(bench.take(Pa(0x41_000), 0, tag::OTHER), None);
    }

    // Goal: a record in scratch is found before the jump.
    #[test]
    fn nothing_in_scratch_is_preserved() {
        let mut bench = Bench::new().judge_with(|ledger| Box::new(Allocation::new(ledger)));
        assert_eq!(bench.before_jump(&[(Pa(0x60_000), 0)]), None);
        assert_eq!(bench.before_jump(&[(Bench::SCRATCH, 0)]).expect("scratch").title, "preserved-memory-in-scratch");
    }
}
