//! adoption: once units and devices are probed, a device walks only tables that this kernel has restored.
//!
//! Formal: from the phase "adopted" on, no walk of a device fetches a word of a frame that is in K \ R: K the tracker as it lay in RAM
//! at the jump, R what was restored since.
//!
//! Why: a table nobody restored belongs to nobody. No kernel object can change or flush it, nothing that is unmapped later is taken out
//! of it, and its frames stay reserved for ever; the device goes on all the same. A kernel that cannot restore a device's tables must
//! stop (facts/live-update.md 7, I3 and I4: adopt or stop).
//!
//! Cannot see: tables that are restored but not linked to a domain. Bad twin: `restore-skips-table`.

use std::cell::RefCell;
use std::rc::Rc;

use iommu_model::addr::Pa;
use sim::oracle::{Finding, Oracle, View};
use sim::trace::{DeviceId, Event, EventKind};

use super::ledger::Ledger;
use super::{finding, inspect, kinds};
use crate::verb::Phase;

/// The oracle.
pub(super) struct Adoption {
    ledger: Rc<RefCell<Ledger>>,
}

impl Adoption {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>) -> Adoption {
        Adoption { ledger }
    }

    fn fetched(&self, event: &Event, view: &View<'_>, device: DeviceId, pa: Pa) -> Option<Finding> {
        let ledger = self.ledger.borrow();
        let pfn = pa.pfn().0;
        if !ledger.handover || ledger.phase < Phase::Adopted || !ledger.handed.has(pfn) || ledger.restored.has(pfn) {
            return None;
        }
        let bdf = view.fabric.devices().get(usize::from(device.0)).map_or_else(|| device.0.to_string(), |device| device.bdf.to_string());
        let details = vec![format!("device {bdf} fetches from pa {pa}"), inspect::describe(view.memory, pa)];
        finding("adoption", "device-walks-tables-nobody-restored", event, details)
    }
}

impl Oracle for Adoption {
    fn name(&self) -> &'static str {
        "adoption"
    }

    fn interests(&self) -> u32 {
        kinds::FETCHED
    }

    fn on_event(&mut self, event: &Event, view: &View<'_>) -> Option<Finding> {
        match event.kind {
            EventKind::Fetched { device: Some(device), pa, .. } => self.fetched(event, view, device, pa),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use crate::verb;
    use sim::trace::UnitId;

    const TABLE: Pa = Pa(0x40_000);

    fn walk(bench: &mut Bench) -> Option<String> {
        let fetched = EventKind::Fetched { unit: UnitId(0), device: Some(DeviceId(0)), pa: TABLE.offset(8), bytes: 8, value: 0 };
        bench.feed(fetched).map(|found| found.title)
    }

    // Goal: before the devices are probed the tables may wait for their restore, later they may not.
    #[test]
    fn tables_are_restored_before_userspace_runs_on_them() {
        let mut bench = Bench::new().judge_with(|ledger| Box::new(Adoption::new(ledger)));
        bench.jump(&[(TABLE, 0)]);
        bench.phase(Phase::Boot);
        assert_eq!(walk(&mut bench), None);
        bench.phase(Phase::Adopted);
        assert_eq!(walk(&mut bench).as_deref(), Some("device-walks-tables-nobody-restored"));
        bench.note(verb::KHO_RESTORED, [TABLE.0, 0, 0, 0]);
        assert_eq!(walk(&mut bench), None);
    }
}
