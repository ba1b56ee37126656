//! tracker: the KHO tracker is made of its own pages, and of all of them.
//!
//! Formal: when no call can be changing the tracker, each node and leaf that its root leads to is an allocated page of this kernel for
//! that purpose; and each such page is led to. At the jump the first half holds whatever was under way.
//!
//! Why: the next kernel walks the tree from physical addresses before it has an allocator. A slot that names a freed node makes somebody
//! else's words preserved memory; a node nobody names is lost. Source: facts/live-update.md 1.4 (error path of add: nodes freed, the
//! one slot where they hung zeroed).
//!
//! Looked at when nothing is open or under way, and when the only call under way returns in which something was made to fail: error
//! paths are where nodes are taken back.
//!
//! Cannot see: wrong bits in a leaf (I2, L1, L3 do). Bad twin: `tracker-slot-dangles`.

use std::cell::RefCell;
use std::rc::Rc;

use iommu_model::addr::Pa;
use sim::memory::{Frame, FrameState, Memory};
use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};

use super::ledger::Ledger;
use super::{finding, inspect, kinds};
use crate::{tag, verb};

/// The oracle.
pub(super) struct Tracker {
    ledger: Rc<RefCell<Ledger>>,
    nodes: Vec<Pa>,
}

/// An allocated page of the running kernel's tracker.
fn is_node(memory: &Memory, frame: &Frame) -> bool {
    frame.state == FrameState::Owned && frame.tag == tag::KHO_RADIX && frame.era == memory.era
}

impl Tracker {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>) -> Tracker {
        Tracker { ledger, nodes: Vec::new() }
    }

    fn judge(&mut self, event: &Event, view: &View<'_>, whole: bool) -> Option<Finding> {
        let memory = view.memory;
        let fdt = inspect::find_fdt(memory)?;
        // A tree that cannot be read is I2's.
        inspect::read_tracker_nodes(memory, fdt, &mut self.nodes).ok()?;
        let foreign = self.nodes.iter().find(|pa| !memory.frame(**pa).is_some_and(|frame| is_node(memory, frame)));
        if let Some(pa) = foreign {
            let details = vec![format!("a slot of the tracker names pa {pa}"), inspect::describe(memory, *pa)];
            return finding("tracker", "slot-names-foreign-memory", event, details);
        }
        if !whole {
            return None;
        }
        self.nodes.sort_unstable();
        let linked = |pfn: usize| self.nodes.binary_search(&Pa((pfn as u64) << 12)).is_ok();
        let lost = memory.frames.iter().enumerate().position(|(pfn, frame)| is_node(memory, frame) && !linked(pfn))?;
        finding("tracker", "node-is-lost", event, vec![inspect::describe(memory, Pa((lost as u64) << 12))])
    }
}

impl Oracle for Tracker {
    fn name(&self) -> &'static str {
        "tracker"
    }

    fn interests(&self) -> u32 {
        kinds::NOTE
    }

    fn verbs(&self) -> u64 {
        kinds::verbs(&[verb::QUIESCENT, verb::BEFORE_JUMP, verb::USER_RETURN])
    }

    fn on_event(&mut self, event: &Event, view: &View<'_>) -> Option<Finding> {
        let EventKind::Note { verb, .. } = event.kind else { return None };
        let (due, whole) = {
            let ledger = self.ledger.borrow();
            match verb {
                verb::QUIESCENT => (true, true),
                verb::BEFORE_JUMP => (ledger.handover, false),
                verb::USER_RETURN => (ledger.call_of(event).failed && ledger.alone(event), true),
                _ => (false, false),
            }
        };
        if due { self.judge(event, view, whole) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Bench};
    use super::*;

    const RECORDS: [(Pa, u8); 2] = [(Pa(0x60_000), 0), (Pa(0x62_000), 1)];

    /// A bench whose tracker pages are what they should be.
    fn bench() -> Bench {
        let mut bench = Bench::new().judge_with(|ledger| Box::new(Tracker::new(ledger)));
        let fdt = bench.write_tracker(&RECORDS);
        bench.set_frame(fdt, FrameState::Owned, tag::KHO_FDT);
        let mut nodes = Vec::new();
        inspect::read_tracker_nodes(&bench.memory, fdt, &mut nodes).expect("the bench writes a tracker");
        assert!(nodes.len() > 6, "two orders, two branches");
        for pa in nodes {
            bench.set_frame(pa, FrameState::Owned, tag::KHO_RADIX);
        }
        bench
    }

    fn title(bench: &mut Bench, verb: sim::trace::Verb) -> Option<String> {
        bench.note(verb, [0; 4]).map(|found| found.title)
    }

    // Goal: a freed node that is still named, and a page that nobody names, are found when nothing is under way.
    #[test]
    fn a_slot_names_a_page_of_the_tracker_and_no_page_is_lost() {
        let mut bench = bench();
        assert_eq!(title(&mut bench, verb::QUIESCENT), None);
        bench.set_frame(Pa(0x70_000), FrameState::Owned, tag::KHO_RADIX);
        assert_eq!(title(&mut bench, verb::QUIESCENT).as_deref(), Some("node-is-lost"));
        bench.set_frame(Pa(0x70_000), FrameState::Free, tag::KHO_RADIX);
        bench.set_frame(Pa(testing::TRACKER.0 + 0x1000), FrameState::Free, tag::KHO_RADIX);
        assert_eq!(title(&mut bench, verb::QUIESCENT).as_deref(), Some("slot-names-foreign-memory"));
    }

    // Goal: after an error path the tree is looked at as well, unless another call is under way.
    #[test]
    fn the_end_of_a_failed_call_is_looked_at() {
        let mut bench = bench();
        bench.set_frame(Pa(testing::TRACKER.0 + 0x1000), FrameState::Free, tag::KHO_RADIX);
        let mut call = |fails: bool| {
            bench.user_call(2);
            if fails {
                bench.feed(EventKind::Injected { kind: sim::engine::ChoiceKind::AllocFails, class: 4 });
            }
            bench.note(verb::USER_RETURN, [2, -12i64 as u64, 0, 0]).is_some()
        };
        assert!(!call(false));
        assert!(call(true));
    }
}
