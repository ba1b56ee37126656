//! availability: a mapping valid during a device's whole request is never faulted, lost, or served from another frame.
//!
//! Formal: for a request r of device d at address x: if from issue to answer d was attached, without change, to a domain in which
//! x was mapped with r's permission, then r is neither blocked with a fault nor sent where no memory is, and reaches that frame.
//! For preserved devices this holds through shutdown, jump and boot, up to the finish of its files or until a user asks for
//! another domain; for others it ends with the phase "shutdown".
//!
//! Why: a guest's disk that sees one fault is broken for good, though nothing was corrupted. Source: facts/live-update.md 5.5,
//! 4.10 step 3, 10.3 ("device must not be given an empty translation silently").
//!
//! Cannot see: requests that take long. Bad twin: `LU-054`.

use std::cell::RefCell;
use std::rc::Rc;

use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};

use iommu_model::spec::vtd::fault::FaultReason;

use super::ledger::Ledger;
use super::{finding, kinds};

/// The oracle.
pub(super) struct Availability {
    ledger: Rc<RefCell<Ledger>>,
}

impl Availability {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>) -> Availability {
        Availability { ledger }
    }
}

impl Oracle for Availability {
    fn name(&self) -> &'static str {
        "availability"
    }

    fn interests(&self) -> u32 {
        kinds::DMA_FAULTED | kinds::DMA_LANDED | kinds::DMA_READ | kinds::DMA_LOST
    }

    fn on_event(&mut self, event: &Event, _view: &View<'_>) -> Option<Finding> {
        let ledger = self.ledger.borrow();
        let (at, request) = ledger.completed.as_ref()?;
        let must = request.must?;
        let device = &ledger.devices[*at];
        if request.exempt || !ledger.promised(device) {
            return None;
        }
        let access = if request.write { "write" } else { "read" };
        let (title, what) = match event.kind {
            EventKind::DmaFaulted { reason, .. } => ("valid-mapping-faults", format!("blocked with reason {}", FaultReason(reason))),
            EventKind::DmaLost { pa, .. } => ("valid-mapping-leads-nowhere", format!("went to pa {:#x}, where no memory is", pa.0)),
            EventKind::DmaLanded { pa, .. } | EventKind::DmaRead { pa, .. } if pa.0 >> 12 != must => {
                ("valid-mapping-leads-elsewhere", format!("served from pa {:#x}", pa.0))
            }
            _ => return None,
        };
        let title = if device.inherited { format!("{title}-after-the-jump") } else { title.to_owned() };
        let id = device.domain_id.map_or(String::new(), |id| format!(" (domain id {id:#x})"));
        let details = vec![
            format!("device {}{id}: {access} at iova {:#x} {what}", device.bdf, request.iova.0),
            format!("mapped there the whole time: frame pa {:#x}", must << 12),
        ];
        finding("availability", title, event, details)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use crate::verb::{self, FileOp, Phase};

    const D: u64 = 0x1000_0000;

    fn bench() -> Bench {
        let mut bench = Bench::new();
        bench.attach(D, 5);
        bench.map(D, 0x1000, 0x40_000, 4096);
        bench.judge_with(|ledger| Box::new(Availability::new(ledger)))
    }

    // Goal: a fault on a valid mapping is found; on an unmapped or forbidden address it is right.
    #[test]
    fn a_fault_on_a_valid_mapping_is_found() {
        let mut bench = bench();
        assert_eq!(bench.fault(0x1000, true).expect("mapped").title, "valid-mapping-faults");
        assert_eq!(bench.fault(0x2000, true), None);
        bench.note(verb::MAP_BEGIN, [D, 0x3000, 0x43_000, 4096 | 1 << 56]);
        assert_eq!(bench.fault(0x3000, false), None, "the map is under way");
        bench.note(verb::MAP_END, [D, 0x3000, 4096, 0]);
        assert!(bench.fault(0x3000, false).is_some());
        assert_eq!(bench.fault(0x3000, true), None, "read-only");
    }

    // Goal: a request that an unmap or a change of domain met may fault.
    #[test]
    fn a_request_that_met_a_change_may_fault() {
        let mut bench = bench();
        let serial = bench.issue(0x1000, true);
        bench.note(verb::UNMAP_BEGIN, [D, 0x1000, 4096, 0]);
        assert_eq!(bench.fault_of(serial, 0x1000), None);
        bench.note(verb::UNMAP_END, [D, 0x1000, 4096, 0]);
        let mut bench = self::bench();
        let serial = bench.issue(0x1000, true);
        bench.changing(0);
        assert_eq!(bench.fault_of(serial, 0x1000), None);
        bench.attached(0, 0);
        assert_eq!(bench.fault(0x1000, true), None);
    }

    // Goal: shutdown ends the promise to devices that are not preserved, and to no other.
    #[test]
    fn shutdown_ends_the_promise_to_unpreserved_devices() {
        let mut bench = bench();
        let serial = bench.issue(0x1000, true);
        bench.phase(Phase::Shutdown);
        assert_eq!(bench.fault_of(serial, 0x1000), None);
        assert_eq!(bench.fault(0x1000, true), None);
        let mut bench = self::bench();
        bench.preserve_device();
        bench.phase(Phase::Shutdown);
        assert!(bench.fault(0x1000, true).is_some());
    }

    // Goal: a preserved device is served through the boot of the next kernel, whatever the boot path attaches, until its files
    // are finished.
    #[test]
    fn a_preserved_device_is_served_until_finish() {
        let mut bench = bench();
        bench.preserve_device();
        bench.jump(&[]);
        bench.changing(0x77_0000);
        assert_eq!(bench.fault(0x1000, true).expect("boot").title, "valid-mapping-faults-after-the-jump");
        bench.note(verb::FILE_OP, [2, FileOp::Finish as u64 | 2 << 8, 0, 7]);
        assert_eq!(bench.fault(0x1000, true), None);
    }

    // Goal: a domain that a user of the next kernel asks for is legal ground.
    #[test]
    fn a_user_of_the_next_kernel_may_attach_something_else() {
        let mut bench = bench();
        bench.preserve_device();
        bench.jump(&[]);
        bench.user_call(super::super::contract::call::VFIO_REPLACE);
        bench.changing(0x77_0000);
        assert_eq!(bench.fault(0x1000, true), None);
        bench.attached(0x77_0000, 9);
        assert_eq!(bench.fault(0x1000, true), None);
        bench.map(0x77_0000, 0x1000, 0x40_000, 4096);
        assert!(bench.fault(0x1000, true).is_some());
    }
}
