//! unexplained: every error, warning and stop has a cause in the run.
//!
//! Formal: reboot(KEXEC) returns no success. A negative result of a call needs one of: arguments that are bad on purpose, a failure injected into this very call, a
//! failure injected while this kernel booted, or a true row of [`contract::ROWS`] for call and error. A WARN needs a failure injected
//! into the call or the boot it comes from, or kernels of different revisions. A failure long ago excuses nothing by itself.
//! (How a run that stopped ends is decided from [`Ledger`]'s causes by the run.)
//!
//! Why: a refusal without cause is a lost update; a WARN on an ordinary path panics many fleets. Source: design.md 6;
//! facts/live-update.md 2, 4.11 to 4.13.
//!
//! Cannot see: a wrong error where another one was due; success where there should be none. Bad twin: `stray-warn`.

use std::cell::RefCell;
use std::rc::Rc;

use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};

use super::contract::{self, When, call};
use super::ledger::{Call, Ledger};
use super::{finding, kinds};
use crate::errno;
use crate::verb;

/// The oracle.
pub(super) struct Unexplained {
    ledger: Rc<RefCell<Ledger>>,
    image_loaded: bool,
    /// The first half of the title of the WARN that is being told.
    warn_head: String,
}

impl Unexplained {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>) -> Unexplained {
        Unexplained { ledger, image_loaded: false, warn_head: String::new() }
    }

    fn holds(&self, ledger: &Ledger, call: &Call, when: When) -> bool {
        let (page, pages) = (call.args[0] >> 12, call.args[1]);
        let mut mappings = ledger.domains.iter().filter(|domain| domain.ptr != 0).map(|domain| &domain.mappings);
        match when {
            When::Always => true,
            When::Obstacle => ledger.obstacle() || (ledger.obstacle_until >= call.since && call.since > 0),
            When::Overlapped => call.overlapped,
            When::Incoming => ledger.era > 0,
            When::NothingHandedOver => !ledger.handover || ledger.handed_files.is_empty() || ledger.close_met_reboot,
            When::SessionUnknown => !ledger.is_handed_session(call.args[0]),
            When::TokenUnknown => !ledger.handed_files.iter().any(|file| file.token == call.args[1]),
            When::CannotFinish => call.cannot_finish && call.args[1] == 0,
            When::RangeTaken => mappings.any(|mappings| mappings.any_in(page, pages)),
            When::RangeNotMapped => mappings.all(|mappings| !mappings.all_in(page, pages)),
            When::NoImage => !self.image_loaded,
            When::Failed(number) => ledger.has_failed(number),
            When::TokenPreserved => ledger.is_preserved(call.args[1]),
            When::Rebooting => ledger.rebooting(),
            When::HandedOver => !ledger.handed_files.is_empty(),
        }
    }

    fn returned(&self, event: &Event, args: [u64; 4]) -> Option<Finding> {
        let (number, result) = (args[0] as u8, args[1] as i64 as i32);
        let ledger = self.ledger.borrow();
        let call = ledger.call_of(event);
        if number == call::REBOOT && result >= 0 {
            let details = vec!["reboot(KEXEC) comes back only with an error: the caller takes the machine for gone".to_owned()];
            return finding("unexplained", "reboot returns success", event, details);
        }
        if result >= 0 || call.hostile || call.failed || ledger.failed_outside {
            return None;
        }
        let rows = contract::ROWS.iter().filter(|row| (row.call == number || row.call == 0) && row.errno == result);
        if rows.clone().any(|row| self.holds(&ledger, call, row.when)) {
            return None;
        }
        let mut details =
            vec![format!("{} returned {} with arguments {:#x}, {:#x}", call::name(number), errno::name(result), args[2], args[3])];
        details.extend(rows.map(|row| format!("it may when: {:?}; that was not so", row.when)));
        finding("unexplained", format!("{} returns {} without cause", call::name(number), errno::name(result)), event, details)
    }
}

impl Oracle for Unexplained {
    fn name(&self) -> &'static str {
        "unexplained"
    }

    fn interests(&self) -> u32 {
        kinds::NOTE | kinds::JUMPED
    }

    fn verbs(&self) -> u64 {
        kinds::verbs(&[verb::USER_RETURN, verb::WARN_HEAD, verb::WARN])
    }

    fn on_event(&mut self, event: &Event, _: &View<'_>) -> Option<Finding> {
        match event.kind {
            EventKind::Jumped { .. } => {
                self.image_loaded = false;
                None
            }
            EventKind::Note { verb: verb::USER_RETURN, args } => {
                let found = self.returned(event, args);
                self.image_loaded |= args[0] as u8 == call::KEXEC_LOAD && args[1] as i64 >= 0;
                self.ledger.borrow_mut().end_call(event, args[1] as i64);
                found
            }
            EventKind::Note { verb: verb::WARN_HEAD, args } => {
                self.warn_head = verb::unpack_name(args);
                None
            }
            EventKind::Note { verb: verb::WARN, args } => {
                let head = std::mem::take(&mut self.warn_head);
                let ledger = self.ledger.borrow();
                if ledger.call_of(event).failed || ledger.failed_outside || ledger.context.incompatible {
                    return None;
                }
                let title = head + &verb::unpack_name(args);
                finding("unexplained", format!("WARN: {title}"), event, vec![format!("WARN in generation {}", event.era)])
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use crate::errno::{EBUSY, EEXIST, EINVAL, ENOENT, ENOMEM};
    use crate::verb::FileOp;
    use sim::engine::ChoiceKind;

    fn bench() -> Bench {
        Bench::new().judge_with(|ledger| Box::new(Unexplained::new(ledger)))
    }

    fn call(bench: &mut Bench, number: u8, result: i32, args: [u64; 3]) -> Option<String> {
        bench.note(verb::USER_CALL, [u64::from(number), args[0], args[1], args[2]]);
        bench.note(verb::USER_RETURN, [u64::from(number), i64::from(result) as u64, args[0], args[1]]).map(|found| found.title)
    }

    // Goal: an error needs its precondition; bad arguments and injected failures excuse any.
    #[test]
    fn an_error_needs_its_precondition() {
        let mut bench = bench();
        let map = call::IOAS_MAP;
        assert_eq!(call(&mut bench, map, 0, [0x1000, 1, 0]), None);
        assert_eq!(call(&mut bench, map, EBUSY, [0x1000, 1, 0]).as_deref(), Some("ioas-map returns -EBUSY without cause"));
        assert_eq!(call(&mut bench, map, EBUSY, [0x1000, 1, 1]), None, "bad on purpose");
        bench.note(verb::IMMUTABLE, [0x1000_0000, 1, 0, 0]);
        assert_eq!(call(&mut bench, map, EBUSY, [0x1000, 1, 0]), None);
        assert!(call(&mut bench, map, ENOMEM, [0x1000, 1, 0]).is_some(), "memory is not short");
        bench.note(verb::IMMUTABLE, [0x1000_0000, 0, 0, 0]);
        assert!(call(&mut bench, map, EBUSY, [0x1000, 1, 0]).is_some());
        let mut failing = |inside: bool| {
            bench.note(verb::USER_CALL, [u64::from(map), 0x1000, 1, 0]);
            if inside {
                bench.feed(EventKind::Injected { kind: ChoiceKind::AllocFails, class: 12 });
            }
            bench.note(verb::USER_RETURN, [u64::from(map), i64::from(ENOMEM) as u64, 0x1000, 1])
        };
        assert_eq!(failing(true), None, "its own failure");
        assert!(failing(false).is_some(), "somebody else's failure, long ago");
        bench.feed(EventKind::Injected { kind: ChoiceKind::AllocFails, class: 12 });
        assert_eq!(call(&mut bench, map, ENOMEM, [0x1000, 1, 0]), None, "the kernel itself is damaged");
    }

    // Goal: a refusal is in order when its reason existed at some time during the call.
    #[test]
    fn an_obstacle_during_the_call_is_enough() {
        let mut bench = bench();
        bench.note(verb::FILE_OP, [1, FileOp::Preserve as u64, 0, 9]);
        bench.note(verb::USER_CALL, [u64::from(call::IOAS_UNMAP), 0x1000, 1, 0]);
        bench.note(verb::FILE_OP, [1, FileOp::Unpreserve as u64, 0, 9]);
        let answer = [u64::from(call::IOAS_UNMAP), i64::from(EBUSY) as u64, 0x1000, 1];
        assert_eq!(bench.note(verb::USER_RETURN, answer), None);
    }

    // Goal: range errors follow the reference mappings.
    #[test]
    fn range_errors_follow_the_mappings() {
        let mut bench = bench();
        bench.attach(0x1000_0000, 5);
        bench.map(0x1000_0000, 0x1000, 0x40_000, 8192);
        assert_eq!(call(&mut bench, call::IOAS_MAP, EEXIST, [0x2000, 4, 0]), None);
        assert!(call(&mut bench, call::IOAS_MAP, EEXIST, [0x9000, 4, 0]).is_some());
        assert_eq!(call(&mut bench, call::IOAS_UNMAP, ENOENT, [0x2000, 4, 0]), None);
        assert!(call(&mut bench, call::IOAS_UNMAP, ENOENT, [0x1000, 2, 0]).is_some());
    }

    // Goal: kexec without an image, and retrieve of a token that was not handed over.
    #[test]
    fn the_run_itself_can_be_the_cause() {
        let mut bench = bench();
        assert_eq!(call(&mut bench, call::REBOOT, EINVAL, [0, 0, 0]), None);
        assert_eq!(call(&mut bench, call::KEXEC_LOAD, 0, [0, 0, 0]), None);
        assert!(call(&mut bench, call::REBOOT, EINVAL, [0, 0, 0]).is_some());
        assert_eq!(call(&mut bench, call::REBOOT, 0, [0, 0, 0]).as_deref(), Some("reboot returns success"));
        bench.note(verb::FILE_OP, [3, FileOp::Serialised as u64, 0, 9]);
        bench.jump(&[]);
        assert!(call(&mut bench, call::RETRIEVE_FD, ENOENT, [5, 3, 0]).is_some());
        assert_eq!(call(&mut bench, call::RETRIEVE_FD, ENOENT, [5, 4, 0]), None);
    }

    // Goal: a WARN needs a cause.
    #[test]
    fn a_warning_needs_a_cause() {
        let mut bench = bench();
        let mut title = |text: &'static str| {
            let found: Vec<_> = verb::warn(text).filter_map(|(word, args)| bench.note(word, args)).collect();
            found.first().expect("stray").title.clone()
        };
        assert_eq!(title("kho_restore_page: bad magic"), "WARN: kho_restore_page: bad magic");
        assert_eq!(
            title("iommu_setup_default_domain: domain cannot be restored"),
            "WARN: iommu_setup_default_domain: domain cannot be restored"
        );
        let warn = verb::pack_name("kho_restore_page: bad magic");
        bench.feed(EventKind::Injected { kind: ChoiceKind::CalleeFails, class: 1 });
        assert_eq!(bench.note(verb::WARN, warn), None);
    }
}
