//! handover: what one kernel hands to the next names what was promised, once, and nothing else.
//!
//! Formal, at the jump, over the bytes that the root FDT leads to, read by their `compatible` strings:
//!
//! - files: sessions have different names, the files of a session different tokens; the entries are, one for one, the files whose
//!   entry the reboot call wrote; every block of a chain has entries, none more than fits, and the counts agree with the chains;
//! - FLBs: different names; each counts as many files as hang on it;
//! - object arrays: no page holds more objects than fit, and a page that is not full is the last; each live object has holders, and none
//!   is marked for the kernel it is handed to; units, devices and top tables are named once each;
//! - references: each live device record leads to a live domain record and to the live record of its unit, which counts it; what it
//!   says of hardware (unit, domain id, top table, level) is what the device's context entry says; each live domain record is
//!   led to by a device's record or by a file; each reference in a file leads to a live record;
//! - promises: the live device records are the preserved devices, the live domain records the tables of preserved domains;
//! - the tracker: every record of it is memory that one of these structures names.
//!
//! Why: the next kernel believes all of it. A record too many makes it adopt what nobody keeps, a record too few makes it forget a device
//! that goes on running. Source: facts/live-update.md 4.3 to 4.8 (records), 2.6 and 3.2 (files, FLBs), 7 (P4, P6, L4).
//!
//! The reader shares offsets with the kernels (`abi`), and nothing else.
//!
//! Cannot see: what has no second statement to be compared with (seals, positions). Bad twin: `deleted-flag-forgotten`.

mod files;
mod iommu;
mod read;

use std::cell::RefCell;
use std::rc::Rc;

use iommu_model::addr::Pa;
use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};

use super::ledger::Ledger;
use super::{finding, inspect, kinds};
use crate::abi::{kho, luo};
use crate::topology::Topology;
use crate::verb;
use read::Reader;

/// What is wrong: title, and the details.
type Fault = (&'static str, String);

/// The oracle.
pub(super) struct Handover {
    ledger: Rc<RefCell<Ledger>>,
    topo: Rc<Topology>,
}

impl Handover {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>, topo: &Rc<Topology>) -> Handover {
        Handover { ledger, topo: topo.clone() }
    }

    fn judge(&self, view: &View<'_>, fdt: Pa) -> Result<(), Fault> {
        let ledger = self.ledger.borrow();
        let mut reader = Reader::new(view.memory);
        reader.name(fdt);
        // Without files nothing was promised, and LUO may be off.
        let blob = inspect::property(view.memory, fdt, Some(luo::SUBTREE), kho::PROP_PRESERVED_DATA);
        let Some(blob) = blob.map(Pa) else { return Ok(()) };
        let state = files::read(&mut reader, blob)?;
        files::judge(&state, &ledger)?;
        if let Some(flb) = &state.iommu {
            let iommu = iommu::read(&mut reader, flb)?;
            iommu::judge(&iommu, &state, &ledger, &self.topo, view)?;
        }
        let lost = ledger.tracker.iter().find(|(pa, order)| !reader.names(*pa, *order));
        match lost {
            Some((pa, order)) => Err(("record-of-memory-nobody-names", format!("order {order}: {}", inspect::describe(view.memory, *pa)))),
            None => Ok(()),
        }
    }
}

impl Oracle for Handover {
    fn name(&self) -> &'static str {
        "handover"
    }

    fn interests(&self) -> u32 {
        kinds::NOTE
    }

    fn verbs(&self) -> u64 {
        kinds::verbs(&[verb::BEFORE_JUMP])
    }

    fn on_event(&mut self, event: &Event, view: &View<'_>) -> Option<Finding> {
        let EventKind::Note { verb: verb::BEFORE_JUMP, args } = event.kind else { return None };
        if args[0] == 0 {
            return None;
        }
        let (title, detail) = self.judge(view, Pa(args[0])).err()?;
        finding("handover", title, event, vec![detail])
    }
}

#[cfg(test)]
mod tests;
