//! running: a device that its guest started stays able to issue what it was programmed with while it is preserved.
//!
//! Formal: let d be started (its guest set bus mastering and has not cleared it since), and preserved by the running kernel or come over
//! the last jump and still be promised service (as in availability). Then at every boundary (return of a call, callback of a file,
//! phase, jump) d's bus mastering is on, and d holds every range that its driver programmed and has not taken back.
//!
//! Why: a device whose bus mastering is off or that was reset issues nothing, so no request of it is ever refused: what availability
//! demands of landings is kept, and the guest waits for ever. Source: design of PCI preservation (`pci_device_shutdown` leaves
//! preserved devices alone), facts/live-update.md 5.5, 6.5 (no reset at the first open of an incoming device).
//!
//! Cannot see: a device that is stopped and started again between two boundaries. Bad twin: `preserved-device-stopped`.

use std::cell::RefCell;
use std::rc::Rc;

use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};

use super::ledger::Ledger;
use super::{finding, kinds};
use crate::verb;

/// What a guest did with a device.
#[derive(Clone, Default, Debug)]
struct Guest {
    started: bool,
    /// First addresses of the ranges it may use.
    ranges: Vec<u64>,
}

/// The oracle.
pub(super) struct Running {
    ledger: Rc<RefCell<Ledger>>,
    guests: Vec<Guest>,
}

impl Running {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>) -> Running {
        let guests = vec![Guest::default(); ledger.borrow().devices.len()];
        Running { ledger, guests }
    }

    fn guest(&mut self, bdf: u64) -> Option<&mut Guest> {
        let at = self.ledger.borrow().device_at(bdf)?;
        self.guests.get_mut(at)
    }

    fn judge(&self, event: &Event, view: &View<'_>) -> Option<Finding> {
        let ledger = self.ledger.borrow();
        for ((guest, device), hardware) in self.guests.iter().zip(&ledger.devices).zip(view.fabric.devices()) {
            if !guest.started || !(device.preserved || device.inherited) || !ledger.promised(device) {
                continue;
            }
            let bdf = device.bdf;
            if !hardware.is_bus_master() {
                let details = vec![format!("device {bdf}: bus mastering is off, its guest has not switched it off")];
                return finding("running", "preserved-device-is-stopped", event, details);
            }
            let left = hardware.ranges();
            if let Some(lost) = guest.ranges.iter().find(|iova| !left.iter().any(|range| range.iova.0 == **iova)) {
                let details = vec![format!("device {bdf}: forgot that it may use iova {lost:#x}")];
                return finding("running", "preserved-device-is-reset", event, details);
            }
        }
        None
    }
}

impl Oracle for Running {
    fn name(&self) -> &'static str {
        "running"
    }

    fn interests(&self) -> u32 {
        kinds::NOTE | kinds::JUMPED
    }

    fn verbs(&self) -> u64 {
        kinds::verbs(&[
            verb::DEVICE_STARTED,
            verb::DEVICE_PROGRAMMED,
            verb::DEVICE_UNPROGRAMMED,
            verb::DEVICE_PRESERVED,
            verb::FILE_OP,
            verb::PHASE,
            verb::USER_RETURN,
            verb::BEFORE_JUMP,
        ])
    }

    fn on_event(&mut self, event: &Event, view: &View<'_>) -> Option<Finding> {
        match event.kind {
            EventKind::Note { verb: verb::DEVICE_STARTED, args } => {
                self.guest(args[0])?.started = args[1] != 0;
                None
            }
            EventKind::Note { verb: verb::DEVICE_PROGRAMMED, args } => {
                self.guest(args[0])?.ranges.push(args[1]);
                None
            }
            EventKind::Note { verb: verb::DEVICE_UNPROGRAMMED, args } => {
                self.guest(args[0])?.ranges.retain(|iova| !(args[1]..args[1].saturating_add(args[2])).contains(iova));
                None
            }
            _ => self.judge(event, view),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, DEVICE};
    use super::*;
    use crate::verb::{FileOp, Phase};

    const D: u64 = 0x1000_0000;

    fn bench() -> Bench {
        let mut bench = Bench::new().judge_with(|ledger| Box::new(Running::new(ledger)));
        bench.attach(D, 5);
        bench.start_device(DEVICE, true);
        bench.program(DEVICE, 0x1000);
        bench
    }

    fn asked(bench: &mut Bench) -> Option<String> {
        bench.note(verb::PHASE, [Phase::Serialise as u64, 0, 0, 0]).map(|found| found.title)
    }

    // Goal: bus mastering of a preserved device stays on; of another one it may go; a guest may stop its own device.
    #[test]
    fn a_preserved_device_is_not_stopped() {
        let mut bench = bench();
        bench.clear_bus_master(DEVICE);
        assert_eq!(asked(&mut bench), None, "nobody preserved it");
        let mut bench = self::bench();
        bench.preserve_device();
        assert_eq!(asked(&mut bench), None);
        bench.clear_bus_master(DEVICE);
        assert_eq!(asked(&mut bench).as_deref(), Some("preserved-device-is-stopped"));
        let mut bench = self::bench();
        bench.preserve_device();
        bench.start_device(DEVICE, false);
        assert_eq!(asked(&mut bench), None, "its guest stopped it");
    }

    // Goal: a reset is seen by what the device forgot, also after the jump and until its files are finished.
    #[test]
    fn a_device_that_came_over_is_not_reset() {
        let mut bench = bench();
        bench.preserve_device();
        bench.jump(&[]);
        assert_eq!(asked(&mut bench), None);
        bench.forget_ranges(DEVICE);
        assert_eq!(asked(&mut bench).as_deref(), Some("preserved-device-is-reset"));
        bench.note(verb::FILE_OP, [2, FileOp::Finish as u64 | 2 << 8, 0, 7]);
        assert_eq!(asked(&mut bench), None);
    }

    // Goal: what a guest takes back from its device is not missed.
    #[test]
    fn a_range_taken_back_is_not_missed() {
        let mut bench = bench();
        bench.preserve_device();
        bench.note(verb::DEVICE_UNPROGRAMMED, [bench.bdf(), 0x1000, 4096, 0]);
        bench.forget_ranges(DEVICE);
        assert_eq!(asked(&mut bench), None);
    }
}
