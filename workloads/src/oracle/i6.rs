//! I6: only what was handed over is restored, and that at most once.
//!
//! Formal: let K be the tracker at the jump. For each successful restore of a block b: b lies in K, no frame of b was
//! restored before in this kernel, and the descriptor of its head does not say any more that it can be restored.
//!
//! Why: a second restore gives one folio two owners, each of which frees it. Source: facts/live-update.md 7 (I6), 1.6.
//! Stores to memory before its restore are judged by `sim` (LIFE: write-before-restore).
//!
//! Cannot see: a restore that races with another inside one step. Bad twin: `restore-keeps-magic`.

use std::cell::RefCell;
use std::rc::Rc;

use iommu_model::addr::Pa;
use sim::memory::PAGE_DESCRIPTOR_BYTES;
use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};

use super::ledger::{FrameSet, Ledger};
use super::{finding, inspect, kinds};
use crate::kernel::kho::KHO_PAGE_MAGIC;
use crate::kernel::mm::Page;
use crate::verb;

/// The oracle.
pub(super) struct RestoreOnce {
    ledger: Rc<RefCell<Ledger>>,
    /// Restored in this kernel; the ledger's own set already has the restore at hand.
    seen: FrameSet,
}

impl RestoreOnce {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>) -> RestoreOnce {
        let seen = ledger.borrow().handed.clone();
        RestoreOnce { ledger, seen }
    }
}

impl Oracle for RestoreOnce {
    fn name(&self) -> &'static str {
        "I6"
    }

    fn interests(&self) -> u32 {
        kinds::NOTE | kinds::JUMPED
    }

    fn verbs(&self) -> u64 {
        kinds::verbs(&[verb::KHO_RESTORED])
    }

    fn on_event(&mut self, event: &Event, view: &View<'_>) -> Option<Finding> {
        let args = match event.kind {
            EventKind::Jumped { .. } => {
                self.seen.clear();
                return None;
            }
            EventKind::Note { verb: verb::KHO_RESTORED, args } => args,
            _ => return None,
        };
        let ledger = self.ledger.borrow();
        let first = args[0] >> 12;
        let nr_frames = view.memory.frames.len() as u64;
        for pfn in first..first.saturating_add(1u64.checked_shl(args[1] as u32).unwrap_or(0)).min(nr_frames) {
            let title = match (ledger.handed.has(pfn), self.seen.has(pfn)) {
                (true, false) => {
                    self.seen.insert(pfn);
                    continue;
                }
                (_, true) => "restored-twice",
                (false, false) => "restored-without-hand-over",
            };
            return finding("I6", title, event, vec![inspect::describe(view.memory, Pa(pfn << 12))]);
        }
        let descriptor = Pa(view.memory.descriptors?.0 + first * PAGE_DESCRIPTOR_BYTES);
        let private = inspect::word(view.memory, Pa(descriptor.0 + u64::from(Page::PRIVATE.offset)))?;
        if private >> 32 != KHO_PAGE_MAGIC {
            return None;
        }
        let details = vec![format!("private of its struct page is still {private:#x}"), inspect::describe(view.memory, Pa(first << 12))];
        finding("I6", "restored-memory-can-be-restored-again", event, details)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;

    // Goal: each record is restored at most once, and nothing else ever.
    #[test]
    fn a_second_restore_and_a_foreign_one_are_found() {
        let mut bench = Bench::new().judge_with(|ledger| Box::new(RestoreOnce::new(ledger)));
        bench.jump(&[(Pa(0x40_000), 1), (Pa(0x44_000), 0)]);
        assert_eq!(bench.note(verb::KHO_RESTORED, [0x40_000, 1, 0, 0]), None);
        assert_eq!(bench.note(verb::KHO_RESTORED, [0x44_000, 0, 0, 0]), None);
        assert_eq!(bench.note(verb::KHO_RESTORED, [0x41_000, 0, 0, 0]).expect("again").title, "restored-twice");
        assert_eq!(bench.note(verb::KHO_RESTORED, [0x50_000, 0, 0, 0]).expect("never").title, "restored-without-hand-over");
        bench.jump(&[(Pa(0x40_000), 1)]);
        assert_eq!(bench.note(verb::KHO_RESTORED, [0x40_000, 1, 0, 0]), None);
    }

    // Goal: the magic word must go with the restore. Method: the descriptor array of the bench, with and without the word.
    #[test]
    fn the_magic_word_goes_with_the_restore() {
        for (private, bad) in [(0, false), (KHO_PAGE_MAGIC << 32, true)] {
            let mut bench = Bench::new().judge_with(|ledger| Box::new(RestoreOnce::new(ledger)));
            bench.jump(&[(Pa(0x40_000), 0)]);
            bench.memory.descriptors = Some(Pa(0x10_0000));
            bench.memory.ram.store(Pa(0x10_0000 + 0x40 * 64 + 24), 8, private);
            assert_eq!(bench.note(verb::KHO_RESTORED, [0x40_000, 0, 0, 0]).is_some(), bad);
        }
    }
}
