//! I2: at the jump every frame on the paths of preserved devices is in the tracker with exactly its block.
//!
//! Formal: for each preserved device, for each frame f of T u D that hardware reaches for it from the latched root pointer, the
//! tracker as it lies in RAM has the record (first byte, order) of the block that f belongs to.
//!
//! Why: what is not in the tracker is free memory for the next kernel, while the device goes on using it.
//! Source: facts/live-update.md 7 (I2, rows 4 and 6), 1.8.
//!
//! Both sides are read from bytes: the tables by the same walk as hardware's, the root FDT and the radix tree as the next
//! kernel will read them. A block may also be covered by a larger record that holds it wholly: that is L3's business.
//!
//! Cannot see: structures this machine does not walk (PASID tables, device TLBs). Bad twin: `table-not-preserved`.

use std::cell::RefCell;
use std::rc::Rc;

use iommu_model::addr::Pa;
use sim::memory::FrameState;
use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};

use super::inspect::{self, Role};
use super::ledger::Ledger;
use super::{finding, kinds};
use crate::verb;

/// The oracle.
pub(super) struct Closure {
    ledger: Rc<RefCell<Ledger>>,
}

impl Closure {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>) -> Closure {
        Closure { ledger }
    }
}

impl Oracle for Closure {
    fn name(&self) -> &'static str {
        "I2"
    }

    fn interests(&self) -> u32 {
        kinds::NOTE
    }

    fn verbs(&self) -> u64 {
        kinds::verbs(&[verb::BEFORE_JUMP])
    }

    fn on_event(&mut self, event: &Event, view: &View<'_>) -> Option<Finding> {
        let EventKind::Note { verb: verb::BEFORE_JUMP, .. } = event.kind else { return None };
        let ledger = self.ledger.borrow();
        if !ledger.handover {
            return None;
        }
        if let Some(error) = ledger.tracker_error {
            return finding("I2", "tracker-is-unreadable", event, vec![error.to_owned()]);
        }
        for reached in &ledger.reach {
            let frame = &view.memory.frames[reached.pfn as usize];
            if frame.state == FrameState::Absent {
                continue;
            }
            let head = if frame.state == FrameState::Owned { u64::from(frame.head) } else { reached.pfn };
            let order = if frame.state == FrameState::Owned { frame.order } else { 0 };
            if ledger.tracker.binary_search(&(Pa(head << 12), order)).is_ok() {
                continue;
            }
            let covers =
                |record: &&(Pa, u8)| record.0.0 >> 12 <= head && head + (1 << order) <= (record.0.0 >> 12) + (1u64 << record.1.min(40));
            let title = match (ledger.tracker.iter().find(covers), reached.role) {
                (Some(_), _) => continue,
                (None, Role::Page) => "dma-target-not-preserved",
                (None, _) => "table-not-preserved",
            };
            let details = vec![
                format!(
                    "device {} is preserved; its {} at pa {:#x} is in no record of the tracker",
                    reached.bdf,
                    reached.role.name(),
                    reached.pfn << 12
                ),
                inspect::describe(view.memory, Pa(reached.pfn << 12)),
            ];
            return finding("I2", title, event, details);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Bench};
    use super::*;

    fn bench() -> Bench {
        let mut bench = Bench::new();
        bench.attach_tables(testing::TOP, &[(0x1000, Pa(0x40_000))]);
        bench.preserve_device();
        bench.judge_with(|ledger| Box::new(Closure::new(ledger)))
    }

    // Goal: a full tracker passes; each record left out is found, under a title that says what it was.
    #[test]
    fn every_frame_on_the_path_needs_its_record() {
        let mut bench = bench();
        let records: Vec<(Pa, u8)> = bench.path_frames().into_iter().map(|pa| (pa, 0)).collect();
        assert_eq!(bench.before_jump(&records), None);
        for left_out in 0..records.len() {
            let mut bench = self::bench();
            let mut some = records.clone();
            let (pa, _) = some.remove(left_out);
            let found = bench.before_jump(&some).expect("a record is missing");
            let title = if pa == Pa(0x40_000) { "dma-target-not-preserved" } else { "table-not-preserved" };
            assert_eq!((found.property, found.title.as_str()), ("I2", title));
        }
    }

    // Goal: a record of the wrong order does not count.
    #[test]
    fn a_record_must_have_the_order_of_the_block() {
        let mut bench = bench();
        bench.set_order(Pa(0x40_000), 1);
        let records: Vec<(Pa, u8)> = bench.path_frames().into_iter().map(|pa| (pa, 0)).collect();
        assert_eq!(bench.before_jump(&records).expect("order 1 block, order 0 record").title, "dma-target-not-preserved");
    }

    // Goal: devices that are not preserved, and kexec without hand-over, promise nothing.
    #[test]
    fn an_unpreserved_device_needs_no_record() {
        let mut bench = bench();
        bench.note(verb::DEVICE_UNPRESERVED, [u64::from(testing::DEVICE.0), 0, 0, 0]);
        assert_eq!(bench.before_jump(&[]), None);
    }
}
