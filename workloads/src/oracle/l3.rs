//! L3: at the jump each record of the tracker is allocated memory of exactly its order, the same that was preserved.
//!
//! Formal: for each record (pa, order): every frame of it is allocated; blocks tile it exactly (a range preserved page by page is
//! several blocks under one record); and its head has not been freed or allocated since the record was made.
//!
//! Why: a record whose folio was freed or changed order makes a page of somebody else unusable, or lets two blocks overlap.
//! Source: facts/live-update.md 7 (L3), 1.4 (del must name the exact order), 8 (R4).
//!
//! Cannot see: a stale record whose memory was never touched again by the allocator. Bad twin: `free-without-unpreserve`.

use std::cell::RefCell;
use std::rc::Rc;

use iommu_model::addr::Pa;
use sim::memory::{FrameState, Memory};
use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};

use super::ledger::Ledger;
use super::{finding, inspect, kinds};
use crate::verb;

/// The oracle.
pub(super) struct Records {
    ledger: Rc<RefCell<Ledger>>,
}

impl Records {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>) -> Records {
        Records { ledger }
    }
}

/// What is wrong with a record, and where.
fn fault_of(memory: &Memory, ledger: &Ledger, pa: Pa, order: u8) -> Option<(&'static str, u64)> {
    let first = pa.0 >> 12;
    let end = first.saturating_add(1u64.checked_shl(u32::from(order)).unwrap_or(u64::MAX));
    let mut pfn = first;
    while pfn < end {
        let Some(frame) = memory.frames.get(pfn as usize) else { return Some(("record-outside-ram", pfn)) };
        match frame.state {
            FrameState::Owned => {}
            FrameState::Reserved => {
                pfn += 1;
                continue;
            }
            FrameState::Free => return Some(("record-of-free-memory", pfn)),
            FrameState::HandedOver => return Some(("record-of-memory-not-restored", pfn)),
            FrameState::Absent => return Some(("record-outside-ram", pfn)),
        }
        let block_end = pfn + (1 << frame.order);
        if u64::from(frame.head) != pfn || block_end > end {
            return Some(("record-of-another-order", pfn));
        }
        pfn = block_end;
    }
    let records = ledger.records.get(first as usize)?;
    let made_here = records.orders >> u32::from(order.min(15)) & 1 != 0;
    (made_here && memory.frames[first as usize].version != records.version).then_some(("record-outlives-its-memory", first))
}

impl Oracle for Records {
    fn name(&self) -> &'static str {
        "L3"
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
        for (pa, order) in &ledger.tracker {
            if let Some((title, pfn)) = fault_of(view.memory, &ledger, *pa, *order) {
                let details = vec![format!("record pa {:#x} order {order}", pa.0), inspect::describe(view.memory, Pa(pfn << 12))];
                return finding("L3", title, event, details);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use crate::tag;

    fn judge(prepare: impl FnOnce(&mut Bench)) -> Option<String> {
        let mut bench = Bench::new().judge_with(|ledger| Box::new(Records::new(ledger)));
        for pfn in 0..4 {
            bench.set_frame(Pa(0x60_000 + pfn * 4096), FrameState::Owned, tag::LUO);
        }
        prepare(&mut bench);
        bench.before_jump(&[(Pa(0x60_000), 1)]).map(|found| found.title)
    }

    // Goal: a block of its order, or blocks that tile it, pass; anything else has its title.
    #[test]
    fn a_record_is_a_block_of_its_order() {
        assert_eq!(judge(|_| {}), None);
        assert_eq!(judge(|bench| bench.set_order(Pa(0x60_000), 1)), None);
        assert_eq!(judge(|bench| bench.set_order(Pa(0x60_000), 2)).as_deref(), Some("record-of-another-order"));
        let free = |bench: &mut Bench| bench.set_frame(Pa(0x61_000), FrameState::Free, tag::LUO);
        assert_eq!(judge(free).as_deref(), Some("record-of-free-memory"));
    }

    // Goal: memory freed and allocated again under a live record is found by its version.
    #[test]
    fn a_record_does_not_outlive_its_memory() {
        let reuse = |bench: &mut Bench| {
            bench.note(verb::KHO_ADD, [0x60_000, 1, 1, 0]);
            bench.memory.frames[0x60].version += 2;
        };
        assert_eq!(judge(reuse).as_deref(), Some("record-outlives-its-memory"));
        let again = |bench: &mut Bench| {
            reuse(bench);
            bench.note(verb::KHO_DEL, [0x60_000, 1, 1, 0]);
            bench.note(verb::KHO_ADD, [0x60_000, 1, 1, 0]);
        };
        assert_eq!(judge(again), None);
    }
}
