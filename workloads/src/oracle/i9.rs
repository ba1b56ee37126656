//! I9: a domain id that hardware uses for a device is not given to another domain of its unit.
//!
//! Formal: at each moment at which domain D takes id n of unit u: no device behind u is attached, or came over the jump, with id
//! n and another domain. In the incoming kernel the restored domain takes the id its devices came with; a reservation names no
//! domain, and is of an id that a device behind this very unit came with.
//!
//! Why: caches are tagged by id alone; two domains under one id serve each other's translations.
//! Source: facts/live-update.md 7 (I9), 4.10, 11.8 (R30).
//!
//! Cannot see: ids beyond what the words say; an id reused within one kernel while stale entries of it are cached (I3, I8 do).
//! Bad twin: `did-not-reserved`.

use std::cell::RefCell;
use std::rc::Rc;

use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};
use smallvec::SmallVec;

use super::ledger::Ledger;
use super::ledger::device::Device;
use super::{finding, kinds};
use crate::topology::Topology;
use crate::verb;

/// An id of a unit that a domain holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Held {
    unit: u8,
    id: u16,
    domain: u64,
}

/// The oracle.
pub(super) struct DomainIds {
    ledger: Rc<RefCell<Ledger>>,
    units: u8,
    held: SmallVec<[Held; 32]>,
}

impl DomainIds {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>, topo: &Topology) -> DomainIds {
        DomainIds { ledger, units: topo.units.len() as u8, held: SmallVec::new() }
    }

    fn taken(&mut self, event: &Event, args: [u64; 4]) -> Option<Finding> {
        let held = Held { unit: args[0] as u8, id: args[1] as u16, domain: args[3] };
        if args[2] == 0 || held.unit >= self.units {
            self.held.retain(|other| (other.unit, other.id) != (held.unit, held.id));
            return None;
        }
        let same_id = |other: &&Held| (other.unit, other.id) == (held.unit, held.id);
        let other = self.held.iter().copied().find(|other| same_id(&other) && other.domain != held.domain && other.domain != 0);
        self.held.retain(|other| !same_id(&&*other) || other.domain == held.domain);
        if !self.held.contains(&held) {
            self.held.push(held);
        }
        if let Some(other) = other.filter(|_| held.domain != 0) {
            return self.report(event, held, format!("domain {:#x} has it and has not given it back", other.domain));
        }
        if held.domain == 0 {
            return self.reserved(event, held);
        }
        let ledger = self.ledger.borrow();
        let mine = ledger.domain_at(held.domain);
        // A restored domain may take its own id before the word says whose it is: such a case is judged at the attach.
        let user = ledger.devices.iter().find(|device| {
            device.unit.0 == held.unit
                && device.domain_id == Some(held.id)
                && !device.inherited
                && device.domain().is_some_and(|domain| Some(usize::from(domain)) != mine)
        })?;
        let bdf = user.bdf;
        drop(ledger);
        self.report(event, held, format!("device {bdf} is attached with it"))
    }

    /// An id that no device of the unit came with is taken away from it for nothing.
    fn reserved(&self, event: &Event, held: Held) -> Option<Finding> {
        let ledger = self.ledger.borrow();
        let came_with = |device: &Device| device.unit.0 == held.unit && device.inherited && device.domain_id == Some(held.id);
        if ledger.devices.iter().any(came_with) {
            return None;
        }
        let what = format!("domain id {:#x} of iommu{} is reserved; no device behind it came over with that id", held.id, held.unit);
        finding("I9", "domain-id-reserved-for-nobody", event, vec![what])
    }

    fn attached(&self, event: &Event, args: [u64; 4]) -> Option<Finding> {
        let ledger = self.ledger.borrow();
        let at = ledger.device_at(args[0])?;
        let (device, id) = (&ledger.devices[at], args[2] as u16);
        if args[1] == 0 || (device.inherited && device.domain_id == Some(id)) {
            return None;
        }
        let mine = ledger.domain_at(args[1]);
        let user = ledger.devices.iter().enumerate().find(|(other, user)| {
            *other != at
                && user.inherited
                && user.unit == device.unit
                && user.domain_id == Some(id)
                && user.domain().is_some_and(|domain| Some(usize::from(domain)) != mine)
        })?;
        let held = Held { unit: device.unit.0, id, domain: args[1] };
        let text =
            format!("preserved device {} came with it, and device {} is attached to another domain under it", user.1.bdf, device.bdf);
        drop(ledger);
        self.report(event, held, text)
    }

    fn report(&self, event: &Event, held: Held, why: String) -> Option<Finding> {
        let what = format!("domain id {:#x} of iommu{} is given to domain {:#x}", held.id, held.unit, held.domain);
        finding("I9", "domain-id-in-use-is-given-out", event, vec![what, why])
    }
}

impl Oracle for DomainIds {
    fn name(&self) -> &'static str {
        "I9"
    }

    fn interests(&self) -> u32 {
        kinds::NOTE | kinds::JUMPED
    }

    fn verbs(&self) -> u64 {
        kinds::verbs(&[verb::DOMAIN_ID, verb::DEVICE_ATTACHED])
    }

    fn on_event(&mut self, event: &Event, _view: &View<'_>) -> Option<Finding> {
        match event.kind {
            EventKind::Jumped { .. } => {
                self.held.clear();
                None
            }
            EventKind::Note { verb: verb::DOMAIN_ID, args } => self.taken(event, args),
            EventKind::Note { verb: verb::DEVICE_ATTACHED, args } => self.attached(event, args),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Bench};
    use super::*;

    const D: u64 = 0x1000_0000;

    fn bench() -> Bench {
        let bench = Bench::new();
        let topo = bench.topo.clone();
        let mut bench = bench.judge_with(|ledger| Box::new(DomainIds::new(ledger, &topo)));
        bench.attach(D, 5);
        bench
    }

    // Goal: within a kernel an id has one holder at a time.
    #[test]
    fn an_id_has_one_holder() {
        let mut bench = bench();
        assert_eq!(bench.note(verb::DOMAIN_ID, [0, 5, 1, D]), None);
        assert_eq!(bench.note(verb::DOMAIN_ID, [0, 6, 1, D + 64]), None);
        assert!(bench.note(verb::DOMAIN_ID, [0, 6, 1, D + 128]).is_some());
        bench.note(verb::DOMAIN_ID, [0, 7, 1, D]);
        bench.note(verb::DOMAIN_ID, [0, 7, 0, D]);
        assert_eq!(bench.note(verb::DOMAIN_ID, [0, 7, 1, D + 128]), None);
    }

    // Goal: after the jump the id a device came with may be reserved and taken by the restored domain, by no other.
    #[test]
    fn an_inherited_id_belongs_to_the_restored_domain() {
        let mut bench = bench();
        bench.preserve_device();
        bench.jump(&[]);
        assert_eq!(bench.note(verb::DOMAIN_ID, [0, 5, 1, 0]), None);
        assert_eq!(bench.note(verb::DOMAIN_ID, [0, 6, 1, 0]).expect("nobody's").title, "domain-id-reserved-for-nobody");
        assert_eq!(bench.note(verb::DOMAIN_ID, [0, 5, 1, 0x77_0000]), None);
        assert_eq!(bench.attached(0x77_0000, 5), None);
        bench.note(verb::ADOPTED, [bench.bdf(), 0x77_0000, 5, 0]);
        let other = u64::from(testing::OTHER_DEVICE.0);
        assert!(bench.note(verb::DEVICE_ATTACHED, [other, 0x88_0000, 5, 0]).is_some());
    }
}
