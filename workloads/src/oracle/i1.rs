//! I1: no frame that a device can reach is free or owned by anybody else.
//!
//! Formal: let T be the frames of root, context and page tables that hardware reaches from the root pointer each unit has
//! latched, D the frames that present leaves or IOTLB entries translate to. At each free of a block b: b and T u D are disjoint;
//! at each unpin to zero of a frame f: no live leaf leads to f; at each hand-out of a block b: b and T u D are disjoint; at each
//! fetch of a walk at address a: the frame of a is not free.
//!
//! Why: whoever gets the frame next shares it with a device that writes there. Source: facts/live-update.md 7 (I1), 5.4.
//!
//! Tables are walked in RAM, bounded, from the unit's own root pointer; the kernel's lists are not asked. Only frees of frames
//! that can be tables or DMA targets are looked at (by tag, or pinned); hand-outs are checked against what preserved devices
//! reached at the jump, because within one kernel only a freed frame can be handed out.
//!
//! Cannot see: frames reachable only through another unit's stale root, device TLBs, frames freed under a tag that is neither
//! table nor pinned. Bad twin: `table-entry-kept`.

use std::cell::RefCell;
use std::rc::Rc;

use iommu_model::addr::{Pa, Pfn};
use sim::memory::{FrameState, Tag};
use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};

use super::ledger::Ledger;
use super::{finding, inspect, kinds};
use crate::{tag, verb};

/// True for frames that hardware walks.
pub(super) const fn is_table(tag: Tag) -> bool {
    matches!(tag, tag::IOMMU_TABLE | tag::VTD_ROOT | tag::VTD_CONTEXT)
}

/// The oracle.
pub(super) struct Reachable {
    ledger: Rc<RefCell<Ledger>>,
}

impl Reachable {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>) -> Reachable {
        Reachable { ledger }
    }

    fn freed(&self, event: &Event, view: &View<'_>, pfn: Pfn, order: u8, tag: Tag) -> Option<Finding> {
        let nr = 1u64 << order;
        let table = is_table(tag);
        let pinned = || (pfn.0..pfn.0 + nr).any(|pfn| self.ledger.borrow().pins.get(pfn as usize).is_some_and(|pins| *pins > 0));
        if !table && tag != tag::MEMFD_FOLIO && !pinned() {
            return None;
        }
        let (first, bytes) = (pfn.pa(), nr * 4096);
        let kind = if table { "table" } else { "page" };
        if let Some((bdf, role)) = inspect::reached(view.memory, view.fabric, first, bytes, !table) {
            let details = vec![format!("device {bdf} still reaches it as a {}", role.name()), inspect::describe(view.memory, first)];
            return finding("I1", format!("freed-{kind}-is-reachable"), event, details);
        }
        let cached = (!table).then(|| inspect::cached_page(view.fabric, first, bytes)).flatten()?;
        let details = vec![cached.to_string(), inspect::describe(view.memory, first)];
        finding("I1", "freed-page-is-cached", event, details)
    }

    fn taken(&self, event: &Event, view: &View<'_>, pfn: Pfn, order: u8, tag: Tag) -> Option<Finding> {
        let nr = 1u64 << order;
        if event.era == 0 || !self.ledger.borrow().reach_set.any(pfn.0, nr) {
            return None;
        }
        let (bdf, role) = inspect::reached(view.memory, view.fabric, pfn.pa(), nr * 4096, true)?;
        let details = vec![
            format!("handed out as {} while device {bdf} reaches it as a {}", tag::name(tag), role.name()),
            inspect::describe(view.memory, pfn.pa()),
        ];
        finding("I1", "reachable-frame-is-handed-out", event, details)
    }

    fn unpinned(&self, event: &Event, view: &View<'_>, pfn: u64, order: u64) -> Option<Finding> {
        let bytes = 4096u64 << order.min(18);
        let ledger = self.ledger.borrow();
        if ledger.pins.get(pfn as usize) != Some(&0) || ledger.unpin_leaves_inherited(pfn, order) {
            return None;
        }
        let (bdf, _) =
            inspect::reached(view.memory, view.fabric, Pa(pfn << 12), bytes, true).filter(|(_, role)| *role == inspect::Role::Page)?;
        let details = vec![format!("device {bdf} still reaches it"), inspect::describe(view.memory, Pa(pfn << 12))];
        finding("I1", "unpinned-page-is-mapped", event, details)
    }

    fn fetched(&self, event: &Event, view: &View<'_>, device: usize, pa: Pa) -> Option<Finding> {
        let frame = view.memory.frame(pa)?;
        if frame.state != FrameState::Free {
            return None;
        }
        let ledger = self.ledger.borrow();
        let device = ledger.devices.get(device)?;
        // Whether a stopped device's last walk is late is not a question of live update.
        if event.era > 0 && !device.inherited && (device.domains.is_empty() || device.requests.iter().any(|request| request.exempt)) {
            return None;
        }
        let details = vec![format!("walk of device {} reads pa {:#x}", device.bdf, pa.0), inspect::describe(view.memory, pa)];
        finding("I1", "walk-reads-free-memory", event, details)
    }
}

impl Oracle for Reachable {
    fn name(&self) -> &'static str {
        "I1"
    }

    fn interests(&self) -> u32 {
        kinds::FRAMES_FREED | kinds::FRAMES_TAKEN | kinds::FETCHED | kinds::NOTE
    }

    fn verbs(&self) -> u64 {
        kinds::verbs(&[verb::UNPINNED])
    }

    fn on_event(&mut self, event: &Event, view: &View<'_>) -> Option<Finding> {
        match event.kind {
            EventKind::Fetched { device: Some(device), pa, .. } => self.fetched(event, view, usize::from(device.0), pa),
            EventKind::FramesFreed { pfn, order, tag } => self.freed(event, view, pfn, order, tag),
            EventKind::FramesTaken { pfn, order, tag } => self.taken(event, view, pfn, order, tag),
            EventKind::Note { verb: verb::UNPINNED, args } => self.unpinned(event, view, args[0], args[1]),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Bench};
    use super::*;

    fn bench() -> Bench {
        let mut bench = Bench::new();
        bench.attach_tables(testing::TOP, &[(0x1000, Pa(0x40_000))]);
        bench.judge_with(|ledger| Box::new(Reachable::new(ledger)))
    }

    // Goal: freeing what live tables reach is a finding, whatever it is to them. Method: each table and the page, in turn.
    #[test]
    fn freeing_a_reachable_frame_is_found() {
        for (pa, tag) in [(testing::ROOT, tag::VTD_ROOT), (testing::TOP, tag::IOMMU_TABLE), (Pa(0x40_000), tag::MEMFD_FOLIO)] {
            let mut bench = bench();
            let found = bench.free(pa, 0, tag).expect("reachable");
            assert_eq!((found.property, found.title.contains("is-reachable")), ("I1", true));
        }
    }

    // Goal: frames nobody reaches, and everything while translation is off, may be freed.
    #[test]
    fn freeing_an_unreachable_frame_is_fine() {
        let mut bench = bench();
        assert_eq!(bench.free(Pa(0x50_000), 0, tag::IOMMU_TABLE), None);
        bench.translation(false);
        assert_eq!(bench.free(testing::TOP, 0, tag::IOMMU_TABLE), None);
    }

    // Goal: a page is unpinned after its leaf is gone, not before; a second pin keeps it.
    #[test]
    fn unpinning_a_mapped_page_is_found_at_the_last_pin() {
        let mut bench = bench();
        bench.note(verb::PINNED, [0x40, 0, 0, 0]);
        bench.note(verb::PINNED, [0x40, 0, 0, 0]);
        assert_eq!(bench.note(verb::UNPINNED, [0x40, 0, 0, 0]), None);
        let found = bench.note(verb::UNPINNED, [0x40, 0, 0, 0]).expect("mapped");
        assert_eq!(found.title, "unpinned-page-is-mapped");
        bench.clear_leaf(0x1000);
        bench.note(verb::PINNED, [0x40, 0, 0, 0]);
        assert_eq!(bench.note(verb::UNPINNED, [0x40, 0, 0, 0]), None);
    }

    // Goal: a walk that reads a frame on the free list is found.
    #[test]
    fn a_walk_in_free_memory_is_found() {
        let mut bench = bench();
        assert_eq!(bench.fetch(testing::TOP), None);
        bench.set_frame(testing::TOP, FrameState::Free, tag::IOMMU_TABLE);
        assert_eq!(bench.fetch(testing::TOP).expect("free").title, "walk-reads-free-memory");
    }

    // Goal: what a preserved device reached at the jump is not handed out by the next kernel.
    #[test]
    fn handing_out_a_frame_of_a_preserved_device_is_found() {
        let mut bench = bench();
        bench.preserve_device();
        bench.jump(&[]);
        assert_eq!(bench.take(Pa(0x50_000), 0, tag::OTHER), None);
        assert_eq!(bench.take(testing::TOP, 0, tag::OTHER).expect("reached").title, "reachable-frame-is-handed-out");
    }
}
