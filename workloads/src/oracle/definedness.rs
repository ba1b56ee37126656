//! definedness: no byte of handed-over metadata is undefined.
//!
//! Formal: at the jump, for each record of the tracker whose memory holds serialized structures: every byte of it was written
//! since it was allocated. (`sim` judges the other half: no undefined byte is acted on.)
//!
//! Why: padding and unused slots reach the next kernel as they are; what is zero by luck today is a stale pointer tomorrow.
//! Source: design.md 6; facts/live-update.md 8 (R20, R32), 4.3.
//!
//! Cannot see: bytes that were written, but not for this use. Bad twin: `undefined-byte`.

use std::cell::RefCell;
use std::rc::Rc;

use sim::memory::{FrameState, Tag};
use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};

use super::ledger::Ledger;
use super::{finding, inspect, kinds};
use crate::{tag, verb};

/// Memory that holds serialized structures from its first byte to its last.
const CONTAINERS: [Tag; 12] = [
    tag::KHO_FDT,
    tag::LUO,
    tag::LUO_FLB,
    tag::IOMMU_FLB_SER,
    tag::IOMMU_DOMAIN_ARRAY,
    tag::IOMMU_DEVICE_ARRAY,
    tag::IOMMU_HW_ARRAY,
    tag::IOMMUFD_SER,
    tag::VFIO_SER,
    tag::MEMFD_SER,
    tag::VMALLOC_CHUNK,
    tag::TEST_FLB,
];

/// The oracle.
pub(super) struct Definedness {
    ledger: Rc<RefCell<Ledger>>,
}

impl Definedness {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>) -> Definedness {
        Definedness { ledger }
    }
}

impl Oracle for Definedness {
    fn name(&self) -> &'static str {
        "definedness"
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
            let first = pa.0 >> 12;
            let end = first.saturating_add(1u64.checked_shl(u32::from(*order)).unwrap_or(0)).min(view.memory.frames.len() as u64);
            for pfn in first..end {
                let frame = &view.memory.frames[pfn as usize];
                if frame.state != FrameState::Owned || frame.slab != 0 || !CONTAINERS.contains(&frame.tag) {
                    continue;
                }
                let Some(at) = view.memory.ram.first_undefined(pfn) else { continue };
                let details = vec![
                    format!("byte {:#x} of the block at pa {:#x} was never written", at.0 - pa.0, pa.0),
                    inspect::describe(view.memory, at),
                ];
                return finding("definedness", format!("undefined-byte-handed-over: {}", tag::name(frame.tag)), event, details);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use iommu_model::addr::Pa;

    // Goal: one byte that nobody wrote is found in a container, and is nobody's business in guest memory.
    #[test]
    fn an_unwritten_byte_is_found() {
        for (tag, bad) in [(tag::IOMMUFD_SER, true), (tag::MEMFD_FOLIO, false)] {
            let mut bench = Bench::new().judge_with(|ledger| Box::new(Definedness::new(ledger)));
            let pa = Pa(0x60_000);
            bench.set_frame(pa, FrameState::Owned, tag);
            bench.memory.ram.fill(pa, 4096, 0, true);
            assert_eq!(bench.before_jump(&[(pa, 0)]), None);
            bench.memory.ram.undefine(Pa(pa.0 + 13), 1);
            let found = bench.before_jump(&[(pa, 0)]);
            assert_eq!(found.is_some(), bad);
            if let Some(found) = found {
                assert_eq!(found.title, "undefined-byte-handed-over: iommufd_ser");
                assert!(found.details[0].contains("byte 0xd"));
            }
        }
    }
}
