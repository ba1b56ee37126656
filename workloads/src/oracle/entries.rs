//! entries: a context entry that is present is complete.
//!
//! Formal: after each store of a CPU to a context table: an entry that is present names a domain id other than 0 and an address width of its
//! unit's.
//!
//! Why: hardware may fetch the entry the moment its present bit is set. What is stored after that comes too late: until then the device
//! walks whatever the other fields said before. Source: Intel VT-d specification, 9.3 (context entry; domain id 0 is reserved for caching
//! mode), 6.5.3.3 (software makes an entry present last).
//!
//! Judged where stores become visible in program order (memory models SC and TSO), as on every host that has this unit.
//!
//! Cannot see: fields that are valid and belong to another domain (I3, availability and I9 judge where that leads). Bad twin:
//! `present-too-early`.

use iommu_model::addr::Pa;
use iommu_model::spec::vtd::context::{AW_39, CONTEXT_ENTRY_BYTES, ContextEntry};
use sim::memory::FrameState;
use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};

use super::{finding, inspect, kinds};
use crate::tag;

/// The oracle.
pub(super) struct Entries;

impl Entries {
    fn stored(event: &Event, view: &View<'_>, pa: Pa) -> Option<Finding> {
        let table = view.memory.frame(pa).filter(|frame| frame.tag == tag::VTD_CONTEXT)?;
        if table.state == FrameState::Free {
            return None;
        }
        let at = pa.0 & !(CONTEXT_ENTRY_BYTES - 1);
        let word = |offset: u64| u128::from(view.memory.ram.load(Pa(at + offset), 8));
        let entry = ContextEntry::from_bits(word(0) | word(8) << 64);
        if !entry.present() || (entry.domain() != 0 && entry.address_width() >= AW_39) {
            return None;
        }
        let details = vec![
            format!("context entry at pa {at:#x}: domain id {}, address width {}", entry.domain(), entry.address_width()),
            inspect::describe(view.memory, pa),
        ];
        finding("entries", "present-before-complete", event, details)
    }
}

impl Oracle for Entries {
    fn name(&self) -> &'static str {
        "entries"
    }

    fn interests(&self) -> u32 {
        kinds::STORE
    }

    fn on_event(&mut self, event: &Event, view: &View<'_>) -> Option<Finding> {
        match event.kind {
            EventKind::Store { pa, .. } => Entries::stored(event, view, pa),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;

    // Goal: the present bit comes last. Method: the words of one entry, stored in both orders.
    #[test]
    fn an_entry_becomes_present_when_it_is_complete() {
        let complete = ContextEntry::new().with_present(true).with_second_stage(0x30).with_address_width(AW_39).with_domain(5).into_bits();
        let (low, high) = ((Pa(0x50_020), complete as u64), (Pa(0x50_028), (complete >> 64) as u64));
        for (order, found) in [([high, low], None), ([low, high], Some("present-before-complete".to_owned()))] {
            let mut bench = Bench::new().judge_with(|_| Box::new(Entries));
            bench.set_frame(Pa(0x50_000), FrameState::Owned, tag::VTD_CONTEXT);
            let titles = order.map(|(pa, word)| bench.store(pa, word).map(|found| found.title));
            assert_eq!(titles.into_iter().flatten().next(), found);
        }
    }

    // Goal: other memory may hold any bits.
    #[test]
    fn other_memory_is_not_judged() {
        let mut bench = Bench::new().judge_with(|_| Box::new(Entries));
        assert_eq!(bench.store(Pa(0x50_020), 1), None);
    }
}
