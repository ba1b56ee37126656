//! L2: after everything was finished nothing handed over is left, and its metadata is freed.
//!
//! Formal: when every session of the update was finished and closed, and no file handed over is left: each frame of K is restored, except the previous root FDT,
//! LUO's header and FLB page, and kexec metadata; and no block of K with a metadata tag is still the allocation it was when it
//! was restored.
//!
//! Why: what is left stays unusable until the next reboot, and more with each update. Source: facts/live-update.md 7 (L2, row 13).
//!
//! Where a failure was injected in this kernel, leftovers of memfd files and of vmalloc areas are documented (1.5: partially
//! restored blocks leak) and are not judged.
//!
//! Cannot see: restored guest memory and page tables that nobody uses any more. Bad twin: `finish-keeps-header`.

use std::cell::RefCell;
use std::rc::Rc;

use iommu_model::addr::Pa;
use sim::memory::{FrameState, Tag};
use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};

use super::l1::METADATA;
use super::ledger::Ledger;
use super::{finding, inspect, kinds};
use crate::{tag, verb};

/// What may stay behind: one FDT, one LUO header, one FLB page an update, kexec metadata.
const ALLOWED: [Tag; 4] = [tag::KHO_FDT, tag::LUO, tag::LUO_FLB, tag::OTHER];
/// What may stay behind where restoring a memfd failed.
const MEMFD: [Tag; 4] = [tag::MEMFD_FOLIO, tag::MEMFD_SER, tag::VMALLOC, tag::VMALLOC_CHUNK];

/// The oracle.
pub(super) struct Finished {
    ledger: Rc<RefCell<Ledger>>,
}

impl Finished {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>) -> Finished {
        Finished { ledger }
    }
}

impl Oracle for Finished {
    fn name(&self) -> &'static str {
        "L2"
    }

    fn interests(&self) -> u32 {
        kinds::NOTE
    }

    fn verbs(&self) -> u64 {
        kinds::verbs(&[verb::ALL_FINISHED])
    }

    fn on_event(&mut self, event: &Event, view: &View<'_>) -> Option<Finding> {
        let EventKind::Note { verb: verb::ALL_FINISHED, .. } = event.kind else { return None };
        let ledger = self.ledger.borrow();
        // A file of a session that nobody retrieved keeps its own memory, and its FLB's.
        if !ledger.handed_files.is_empty() {
            return None;
        }
        for pfn in ledger.handed.iter() {
            let frame = &view.memory.frames[pfn as usize];
            if ALLOWED.contains(&frame.tag) || (ledger.injected_here > 0 && MEMFD.contains(&frame.tag)) {
                continue;
            }
            let kind = match frame.state {
                FrameState::HandedOver => "never-restored",
                FrameState::Owned if ledger.came_over(pfn, frame.version) && METADATA.contains(&frame.tag) => "never-freed",
                _ => continue,
            };
            let title = format!("{kind}: {}", tag::name(frame.tag));
            return finding("L2", title, event, vec![inspect::describe(view.memory, Pa(pfn << 12))]);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;

    fn finished(pa: Pa, state: FrameState, tag: Tag, restore: bool) -> Option<Finding> {
        let mut bench = Bench::new().judge_with(|ledger| Box::new(Finished::new(ledger)));
        bench.jump(&[(pa, 0)]);
        bench.set_frame(pa, state, tag);
        if restore {
            bench.note(verb::KHO_RESTORED, [pa.0, 0, 0, 0]);
        }
        bench.note(verb::ALL_FINISHED, [0; 4])
    }

    // Goal: what is still reserved is found, except what may stay.
    #[test]
    fn memory_that_nobody_restored_is_found() {
        let pa = Pa(0x60_000);
        let found = finished(pa, FrameState::HandedOver, tag::MEMFD_FOLIO, false).expect("left");
        assert_eq!(found.title, "never-restored: memfd folio");
        assert_eq!(finished(pa, FrameState::HandedOver, tag::KHO_FDT, false), None);
    }

    // Goal: restored metadata must be freed; restored guest memory lives on.
    #[test]
    fn restored_metadata_is_freed() {
        let pa = Pa(0x60_000);
        let found = finished(pa, FrameState::Owned, tag::IOMMUFD_SER, true).expect("kept");
        assert_eq!(found.title, "never-freed: iommufd_ser");
        assert_eq!(finished(pa, FrameState::Owned, tag::MEMFD_FOLIO, true), None);
        assert_eq!(finished(pa, FrameState::Free, tag::IOMMUFD_SER, true), None);
    }
}
