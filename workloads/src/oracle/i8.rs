//! I8: no table page is freed and no page unpinned while a unit holds something made from it.
//!
//! Formal: at each free of a table frame f: no cached entry of any unit was made from a word in f or points to f as a table,
//! and no walk under way awaits a word of f. At each unpin to zero of a frame f: no IOTLB entry translates to f. No walk ever
//! fetches from a table frame that this kernel has freed.
//!
//! Why: clear, invalidate, wait, then free. Until the invalidation is complete the device may use old leaves, old table
//! pointers, and set bits in old tables. Source: facts/live-update.md 7 (I8), 5.4; iommu-hardware.md 2.3.
//!
//! The caches are the model's own, each entry with the words it was made from; that an invalidation was *asked* for is not
//! enough, and not needed where nothing is held.
//!
//! Cannot see: that an invalidation is missing where nothing was cached at that moment (other schedules show it).
//! Bad twin: `LU-078`.

use std::cell::RefCell;
use std::rc::Rc;

use iommu_model::addr::{Pa, Pfn};
use sim::memory::{FrameState, Tag};
use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};

use super::i1::is_table;
use super::ledger::Ledger;
use super::{finding, inspect, kinds};
use crate::verb;

/// The oracle.
pub(super) struct BeforeInvalidation {
    ledger: Rc<RefCell<Ledger>>,
}

impl BeforeInvalidation {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>) -> BeforeInvalidation {
        BeforeInvalidation { ledger }
    }

    fn freed(event: &Event, view: &View<'_>, pfn: Pfn, order: u8, tag: Tag) -> Option<Finding> {
        let cached = is_table(tag).then(|| inspect::cached_table(view.fabric, pfn.pa(), 4096 << order)).flatten()?;
        let details = vec![cached.to_string(), inspect::describe(view.memory, pfn.pa())];
        finding("I8", "table-freed-before-invalidation", event, details)
    }

    fn unpinned(&self, event: &Event, view: &View<'_>, pfn: u64, order: u64) -> Option<Finding> {
        let bytes = 4096u64 << order.min(18);
        let ledger = self.ledger.borrow();
        if ledger.pins.get(pfn as usize) != Some(&0) || ledger.unpin_leaves_inherited(pfn, order) {
            return None;
        }
        let cached = inspect::cached_page(view.fabric, Pa(pfn << 12), bytes)?;
        let details = vec![cached.to_string(), inspect::describe(view.memory, Pa(pfn << 12))];
        finding("I8", "page-unpinned-before-invalidation", event, details)
    }

    fn fetched(&self, event: &Event, view: &View<'_>, pa: Pa) -> Option<Finding> {
        let frame = view.memory.frame(pa).filter(|frame| frame.state == FrameState::Free)?;
        if !is_table(frame.tag) || u64::from(frame.since) <= self.ledger.borrow().jump_step {
            return None;
        }
        let details = vec![format!("a walk reads pa {:#x}", pa.0), inspect::describe(view.memory, pa)];
        finding("I8", "walk-reads-freed-table", event, details)
    }
}

impl Oracle for BeforeInvalidation {
    fn name(&self) -> &'static str {
        "I8"
    }

    fn interests(&self) -> u32 {
        kinds::FRAMES_FREED | kinds::FETCHED | kinds::NOTE
    }

    fn verbs(&self) -> u64 {
        kinds::verbs(&[verb::UNPINNED])
    }

    fn on_event(&mut self, event: &Event, view: &View<'_>) -> Option<Finding> {
        match event.kind {
            EventKind::Fetched { device: Some(_), pa, .. } => self.fetched(event, view, pa),
            EventKind::FramesFreed { pfn, order, tag } => Self::freed(event, view, pfn, order, tag),
            EventKind::Note { verb: verb::UNPINNED, args } => self.unpinned(event, view, args[0], args[1]),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Bench};
    use super::*;
    use crate::tag;

    fn bench() -> Bench {
        let mut bench = Bench::new();
        bench.attach_tables(testing::TOP, &[(0x1000, Pa(0x40_000))]);
        bench.judge_with(|ledger| Box::new(BeforeInvalidation::new(ledger)))
    }

    // Goal: a table with a cached descendant must not be freed; after the invalidation it may.
    #[test]
    fn a_table_is_freed_after_the_invalidation() {
        let mut bench = bench();
        bench.translate(0x1000);
        let found = bench.free(testing::TOP, 0, tag::IOMMU_TABLE).expect("cached");
        assert_eq!(found.title, "table-freed-before-invalidation");
        bench.invalidate_all();
        assert_eq!(bench.free(testing::TOP, 0, tag::IOMMU_TABLE), None);
    }

    // Goal: a walk that awaits a word of the table counts as well.
    #[test]
    fn a_walk_under_way_holds_its_table() {
        let mut bench = bench();
        bench.begin_walk(0x1000, 2);
        assert!(bench.free(testing::TOP, 0, tag::IOMMU_TABLE).is_some());
    }

    // Goal: the last unpin needs an IOTLB without the page; other frees and pages do not matter.
    #[test]
    fn a_page_is_unpinned_after_the_invalidation() {
        let mut bench = bench();
        bench.translate(0x1000);
        bench.note(verb::PINNED, [0x40, 0, 0, 0]);
        assert_eq!(bench.note(verb::UNPINNED, [0x40, 0, 0, 0]).expect("cached").title, "page-unpinned-before-invalidation");
        bench.note(verb::PINNED, [0x41, 0, 0, 0]);
        assert_eq!(bench.note(verb::UNPINNED, [0x41, 0, 0, 0]), None);
        assert_eq!(bench.free(Pa(0x40_000), 0, tag::OTHER), None);
        bench.invalidate_all();
        bench.note(verb::PINNED, [0x40, 0, 0, 0]);
        assert_eq!(bench.note(verb::UNPINNED, [0x40, 0, 0, 0]), None);
    }

    // Goal: pages of a restored domain were pinned by the kernel before; whoever pins and unpins their folio now may do so. Method: of
    // a folio of two pages only the second is mapped.
    #[test]
    fn a_folio_that_a_restored_domain_maps_in_part_may_be_pinned_and_unpinned() {
        let unpin_after = |preserved: bool| {
            let mut bench = Bench::new();
            bench.attach_tables(testing::TOP, &[(0x1000, Pa(0x41_000))]);
            let mut bench = bench.judge_with(|ledger| Box::new(BeforeInvalidation::new(ledger)));
            bench.attach(0x55_0000, 5);
            if preserved {
                bench.preserve_device();
            }
            bench.jump(&[(Pa(0x40_000), 1)]);
            bench.translate(0x1000);
            bench.note(verb::PINNED, [0x40, 1, 0, 0]);
            bench.note(verb::UNPINNED, [0x40, 1, 0, 0]).map(|found| found.title)
        };
        assert_eq!(unpin_after(true), None);
        assert_eq!(unpin_after(false).as_deref(), Some("page-unpinned-before-invalidation"));
    }

    // Goal: a fetch from a table on the free list is found.
    #[test]
    fn a_walk_in_a_freed_table_is_found() {
        let mut bench = bench();
        bench.set_frame(testing::TOP, FrameState::Free, tag::IOMMU_TABLE);
        assert_eq!(bench.fetch(testing::TOP).expect("freed").title, "walk-reads-freed-table");
    }
}
