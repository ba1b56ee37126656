//! CONTENT: guest memory keeps its place and its bytes over the update.
//!
//! Formal: when a user of the incoming kernel replaces the domain a device came with by one of its own, each address that is mapped in
//! both leads to the same frame in both. And as long as a page of guest memory that a preserved device was mapped to is the
//! allocation that came over the jump, no CPU stores to it.
//!
//! Why: the guest runs on. Whatever it finds at an address of its memory, and whatever its devices read and write there, must be what
//! was there before; a page in the wrong place or filled with zeros is its data lost. Source: facts/live-update.md 6.3 (memfd: index
//! and flags of each folio), 4.12 (a new address space over the retrieved memory).
//!
//! Cannot see: pages that no device was mapped to. Bad twin: `retrieve-loses-uptodate`.

use std::cell::RefCell;
use std::rc::Rc;

use iommu_model::addr::Pa;
use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};

use super::contract::call;
use super::ledger::Ledger;
use super::ledger::device::DomainIndex;
use super::{finding, inspect, kinds};
use crate::{tag, verb};

/// The oracle.
pub(super) struct Content {
    ledger: Rc<RefCell<Ledger>>,
    /// For each device the domain it came over the jump with, until it gets another one.
    came_with: Vec<Option<DomainIndex>>,
}

impl Content {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>) -> Content {
        Content { ledger, came_with: Vec::new() }
    }

    /// A user's domain takes the place of the one the device came with.
    fn attached(&mut self, event: &Event, view: &View<'_>, bdf: u64) -> Option<Finding> {
        let ledger = self.ledger.borrow();
        let at = ledger.device_at(bdf)?;
        let device = &ledger.devices[at];
        if device.inherited {
            return None;
        }
        let old = self.came_with.get_mut(at)?.take()?;
        if ledger.call_of(event).number != call::VFIO_REPLACE {
            return None;
        }
        let new = &ledger.domains[usize::from(device.domain()?)].mappings;
        for (page, before) in ledger.domains[usize::from(old)].mappings.sure_pages() {
            let mut now = None;
            new.targets(page, |target| now = target.sure.then_some(target.pfn));
            if let Some(now) = now.filter(|now| *now != before) {
                let details = vec![
                    format!("device {}: iova {:#x} led to pa {:#x}, now to pa {:#x}", device.bdf, page << 12, before << 12, now << 12),
                    inspect::describe(view.memory, Pa(before << 12)),
                ];
                return finding("CONTENT", "guest-memory-is-moved", event, details);
            }
        }
        None
    }

    fn stored(&self, event: &Event, view: &View<'_>, pa: Pa) -> Option<Finding> {
        let pfn = pa.pfn().0;
        let frame = view.memory.frame(pa).filter(|frame| frame.tag == tag::MEMFD_FOLIO)?;
        let ledger = self.ledger.borrow();
        if event.era == 0 || !ledger.reach_set.has(pfn) || !ledger.came_over(pfn, frame.version) {
            return None;
        }
        finding("CONTENT", "kernel-writes-guest-memory", event, vec![inspect::describe(view.memory, pa)])
    }
}

impl Oracle for Content {
    fn name(&self) -> &'static str {
        "CONTENT"
    }

    fn interests(&self) -> u32 {
        kinds::STORE | kinds::JUMPED | kinds::NOTE
    }

    fn verbs(&self) -> u64 {
        kinds::verbs(&[verb::DEVICE_ATTACHED])
    }

    fn on_event(&mut self, event: &Event, view: &View<'_>) -> Option<Finding> {
        match event.kind {
            EventKind::Store { pa, .. } => self.stored(event, view, pa),
            EventKind::Jumped { .. } => {
                let ledger = self.ledger.borrow();
                let domain = |device: &super::ledger::device::Device| device.domain().filter(|_| device.inherited);
                self.came_with = ledger.devices.iter().map(domain).collect();
                None
            }
            EventKind::Note { verb: verb::DEVICE_ATTACHED, args } => self.attached(event, view, args[0]),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Bench};
    use super::*;

    const OLD: u64 = 0x1000_0000;
    const NEW: u64 = 0x2000_0000;

    /// A device with one page came over the jump.
    fn bench() -> Bench {
        let mut bench = Bench::new();
        bench.attach_tables(testing::TOP, &[(0x1000, Pa(0x40_000))]);
        let mut bench = bench.judge_with(|ledger| Box::new(Content::new(ledger)));
        bench.attach(OLD, 5);
        bench.map(OLD, 0x1000, 0x40_000, 4096);
        bench.preserve_device();
        bench.jump(&[(Pa(0x40_000), 0)]);
        bench
    }

    fn replace(number: u8, pa: u64) -> Option<String> {
        let mut bench = bench();
        bench.note(verb::DOMAIN_CREATED, [NEW, 0x60_000, 0, 0]);
        bench.map(NEW, 0x1000, pa, 4096);
        bench.map(NEW, 0x9000, 0x48_000, 4096);
        bench.user_call(number);
        bench.changing(NEW);
        bench.attached(NEW, 6).map(|found| found.title)
    }

    // Goal: a replaced domain leads where the old one led; what is mapped in one of them only does not matter.
    #[test]
    fn an_address_keeps_its_frame() {
        assert_eq!(replace(call::VFIO_REPLACE, 0x40_000), None);
        assert_eq!(replace(call::VFIO_REPLACE, 0x41_000).as_deref(), Some("guest-memory-is-moved"));
        assert_eq!(replace(call::VFIO_ATTACH, 0x41_000), None, "whoever attaches starts anew");
    }

    // Goal: a CPU's store to guest memory that came over is found; a page that did not, or that was freed since, is anybody's.
    #[test]
    fn no_cpu_writes_guest_memory() {
        let mut bench = bench();
        assert_eq!(bench.store(Pa(0x41_000), 7), None);
        assert_eq!(bench.store(Pa(0x40_008), 7).expect("guest memory").title, "kernel-writes-guest-memory");
        bench.note(verb::KHO_RESTORED, [0x40_000, 0, 0, 0]);
        assert!(bench.store(Pa(0x40_008), 8).is_some());
        bench.memory.frames[0x40].version += 1;
        assert_eq!(bench.store(Pa(0x40_008), 9), None);
    }
}
