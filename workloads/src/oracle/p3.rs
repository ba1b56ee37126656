//! P3: FLB callbacks alternate; retrieve succeeds at most once; finish runs at most once, after retrieve, when no file is left.
//!
//! Formal: per kernel and FLB: successful preserve and unpreserve strictly alternate, beginning with preserve; retrieve succeeds
//! at most once; finish is called at most once, only after a successful retrieve, and only when every handed-over file whose
//! handler carries this FLB was finished. It does not outlive its files either: when the only call under way returns and no
//! file of that handler is preserved, the FLB is not; when none is left to be finished, a retrieved FLB was finished.
//!
//! Why: an FLB is one object for many files; unpreserve and finish free it, and what nobody frees stays until the next reboot. Source: facts/live-update.md 7 (P3), 3.2, 3.3.
//!
//! Handlers are known where the word FILE_OP carries their number in bits 15:8 of its second argument (1 memfd, 2 iommufd,
//! 3 vfio); else only a finish before any file's is judged as early. The IOMMU FLB hangs on iommufd files, the test FLB on memfd files.
//!
//! Cannot see: references from inside the kernel while its call is under way. Bad twin: `flb-finish-early`.

use std::cell::RefCell;
use std::rc::Rc;

use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};

use super::ledger::{File, Ledger};
use super::{finding, kinds};
use crate::verb::{self, FileOp, FlbOp};

/// FLBs that are followed.
const FLBS: usize = 8;

/// One FLB in one kernel.
#[derive(Clone, Copy, Default)]
struct State {
    preserved: bool,
    retrieved: bool,
    finished: bool,
    /// Files of its handler that are preserved.
    files: u32,
    /// Files of its handler that came over the jump.
    handed: u32,
}

/// The handler on whose files an FLB hangs; 0 for none that is known.
const fn handler_of(flb: u64) -> u8 {
    match flb {
        1 => 2,
        2 => 1,
        _ => 0,
    }
}

/// The oracle.
pub(super) struct Flb {
    ledger: Rc<RefCell<Ledger>>,
    states: [State; FLBS],
}

impl Flb {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>) -> Flb {
        Flb { ledger, states: [State::default(); FLBS] }
    }

    fn called(&mut self, event: &Event, args: [u64; 4]) -> Option<Finding> {
        let [number, op, errno, _] = args;
        let state = self.states.get_mut(number as usize)?;
        let succeeded = errno == 0;
        let title = if op == FlbOp::Preserve as u64 {
            let twice = succeeded && state.preserved;
            state.preserved |= succeeded;
            twice.then_some("flb-preserved-twice")
        } else if op == FlbOp::Unpreserve as u64 {
            (!std::mem::take(&mut state.preserved)).then_some("flb-unpreserved-without-preserve")
        } else if op == FlbOp::Retrieve as u64 {
            let twice = succeeded && state.retrieved;
            state.retrieved |= succeeded;
            twice.then_some("flb-retrieved-twice")
        } else if op == FlbOp::Finish as u64 {
            let twice = std::mem::replace(&mut state.finished, true);
            let handler = handler_of(number);
            let ledger = self.ledger.borrow();
            let known = |file: &File| file.handler == handler && handler != 0;
            let untold = |file: &File| file.handler == 0 && ledger.finished_files == 0;
            let left = ledger.handed_files.iter().any(|file| known(file) || untold(file));
            match (twice, state.retrieved, left) {
                (true, ..) => Some("flb-finished-twice"),
                (_, false, _) => Some("flb-finished-before-retrieve"),
                (.., true) => Some("flb-finished-before-its-files"),
                _ => None,
            }
        } else {
            None
        }?;
        finding("P3", title, event, vec![format!("FLB {number}")])
    }
}

impl Flb {
    fn jump(&mut self) {
        let ledger = self.ledger.borrow();
        for (number, state) in (0..).zip(&mut self.states) {
            let handler = handler_of(number);
            let handed = ledger.handed_files.iter().filter(|file| file.handler == handler && handler != 0).count() as u32;
            *state = State { handed, ..State::default() };
        }
    }

    fn count_file(&mut self, [_, op, errno, _]: [u64; 4]) {
        let (op, handler) = (op & 0xff, (op >> 8) as u8);
        let Some(state) = (0..).zip(&mut self.states).find(|(number, _)| handler_of(*number) == handler && handler != 0) else { return };
        if op == FileOp::Preserve as u64 && errno == 0 {
            state.1.files += 1;
        } else if op == FileOp::Unpreserve as u64 {
            state.1.files = state.1.files.saturating_sub(1);
        } else if op == FileOp::Finish as u64 {
            state.1.handed = state.1.handed.saturating_sub(1);
        }
    }

    /// Nobody is in a call that could hold an FLB.
    fn at_rest(&self, event: &Event) -> Option<Finding> {
        if !self.ledger.borrow().alone(event) {
            return None;
        }
        let followed = || (0u64..).zip(&self.states).filter(|(number, _)| handler_of(*number) != 0);
        let kept = followed().find(|(_, state)| state.preserved && state.files == 0);
        let left = followed().find(|(_, state)| state.retrieved && !state.finished && state.handed == 0);
        let (title, number) = match (kept, left) {
            (Some((number, _)), _) => ("flb-outlives-its-files", number),
            (None, Some((number, _))) => ("flb-never-finished", number),
            (None, None) => return None,
        };
        finding("P3", title, event, vec![format!("FLB {number}")])
    }
}

impl Oracle for Flb {
    fn name(&self) -> &'static str {
        "P3"
    }

    fn interests(&self) -> u32 {
        kinds::NOTE | kinds::JUMPED
    }

    fn verbs(&self) -> u64 {
        kinds::verbs(&[verb::FLB_OP, verb::FILE_OP, verb::USER_RETURN])
    }

    fn on_event(&mut self, event: &Event, _view: &View<'_>) -> Option<Finding> {
        match event.kind {
            EventKind::Jumped { .. } => {
                self.jump();
                None
            }
            EventKind::Note { verb: verb::FLB_OP, args } => self.called(event, args),
            EventKind::Note { verb: verb::FILE_OP, args } => {
                self.count_file(args);
                None
            }
            EventKind::Note { verb: verb::USER_RETURN, .. } => self.at_rest(event),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;

    fn bench() -> Bench {
        Bench::new().judge_with(|ledger| Box::new(Flb::new(ledger)))
    }

    fn call(bench: &mut Bench, op: FlbOp, errno: i64) -> Option<String> {
        bench.note(verb::FLB_OP, [1, op as u64, errno as u64, 0]).map(|found| found.title)
    }

    // Goal: the outgoing side alternates.
    #[test]
    fn preserve_and_unpreserve_alternate() {
        let mut bench = bench();
        assert_eq!(call(&mut bench, FlbOp::Preserve, -12), None);
        assert_eq!(call(&mut bench, FlbOp::Preserve, 0), None);
        assert_eq!(call(&mut bench, FlbOp::Unpreserve, 0), None);
        assert_eq!(call(&mut bench, FlbOp::Preserve, 0), None);
        assert_eq!(call(&mut bench, FlbOp::Preserve, 0).as_deref(), Some("flb-preserved-twice"));
        call(&mut bench, FlbOp::Unpreserve, 0);
        assert_eq!(call(&mut bench, FlbOp::Unpreserve, 0).as_deref(), Some("flb-unpreserved-without-preserve"));
    }

    // Goal: the incoming side: retrieve once, finish once, after it, and after the last file.
    #[test]
    fn finish_comes_once_and_last() {
        let mut bench = bench();
        let file = |op: FileOp, token: u64| [token, op as u64 | 2 << 8, 0, 7];
        bench.note(verb::FILE_OP, file(FileOp::Serialised, 1));
        bench.note(verb::FILE_OP, file(FileOp::Serialised, 2));
        bench.jump(&[]);
        assert_eq!(call(&mut bench, FlbOp::Retrieve, -12), None);
        assert_eq!(call(&mut bench, FlbOp::Retrieve, 0), None);
        bench.note(verb::FILE_OP, file(FileOp::Finish, 2));
        assert_eq!(call(&mut bench, FlbOp::Finish, 0).as_deref(), Some("flb-finished-before-its-files"));
        bench.note(verb::FILE_OP, file(FileOp::Finish, 1));
        assert_eq!(call(&mut bench, FlbOp::Finish, 0).as_deref(), Some("flb-finished-twice"));
        assert_eq!(call(&mut bench, FlbOp::Retrieve, 0).as_deref(), Some("flb-retrieved-twice"));
        bench.jump(&[]);
        assert_eq!(call(&mut bench, FlbOp::Finish, 0).as_deref(), Some("flb-finished-before-retrieve"));
    }

    /// A call that does nothing comes and goes.
    fn quiet_call(bench: &mut Bench) -> Option<String> {
        bench.user_call(3);
        bench.note(verb::USER_RETURN, [3, 0, 0, 0]).map(|found| found.title)
    }

    // Goal: the FLB goes with its last file, in either direction. Method: the callback comes late.
    #[test]
    fn an_flb_goes_with_its_last_file() {
        let mut bench = bench();
        let file = |op: FileOp| [1, op as u64 | 2 << 8, 0, 7];
        call(&mut bench, FlbOp::Preserve, 0);
        bench.note(verb::FILE_OP, file(FileOp::Preserve));
        assert_eq!(quiet_call(&mut bench), None);
        bench.note(verb::FILE_OP, file(FileOp::Unpreserve));
        assert_eq!(quiet_call(&mut bench).as_deref(), Some("flb-outlives-its-files"));
        call(&mut bench, FlbOp::Unpreserve, 0);
        assert_eq!(quiet_call(&mut bench), None);
        bench.note(verb::FILE_OP, file(FileOp::Serialised));
        bench.jump(&[]);
        call(&mut bench, FlbOp::Retrieve, 0);
        assert_eq!(quiet_call(&mut bench), None);
        bench.note(verb::FILE_OP, file(FileOp::Finish));
        assert_eq!(quiet_call(&mut bench).as_deref(), Some("flb-never-finished"));
        call(&mut bench, FlbOp::Finish, 0);
        assert_eq!(quiet_call(&mut bench), None);
    }
}
