//! P3: FLB callbacks alternate; retrieve succeeds at most once; finish runs at most once, after retrieve, when no file is left.
//!
//! Formal: per kernel and FLB: successful preserve and unpreserve strictly alternate, beginning with preserve; retrieve succeeds
//! at most once; finish is called at most once, only after a successful retrieve, and only when every handed-over file whose
//! handler carries this FLB was finished.
//!
//! Why: an FLB is one object for many files; unpreserve and finish free it. Source: facts/live-update.md 7 (P3), 3.2, 3.3.
//!
//! Handlers are known where the word FILE_OP carries their number in bits 15:8 of its second argument (1 memfd, 2 iommufd,
//! 3 vfio); else only a finish before any file's is judged as early. The IOMMU FLB hangs on iommufd files, the test FLB on memfd files.
//!
//! Cannot see: references from inside the kernel. Bad twin: `flb-finish-early`.

use std::cell::RefCell;
use std::rc::Rc;

use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};

use super::ledger::{File, Ledger};
use super::{finding, kinds};
use crate::verb::{self, FlbOp};

/// FLBs that are followed.
const FLBS: usize = 8;

/// One FLB in one kernel.
#[derive(Clone, Copy, Default)]
struct State {
    preserved: bool,
    retrieved: bool,
    finished: bool,
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
            let handler = match number {
                1 => 2,
                2 => 1,
                _ => 0,
            };
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

impl Oracle for Flb {
    fn name(&self) -> &'static str {
        "P3"
    }

    fn interests(&self) -> u32 {
        kinds::NOTE | kinds::JUMPED
    }

    fn verbs(&self) -> u64 {
        kinds::verbs(&[verb::FLB_OP])
    }

    fn on_event(&mut self, event: &Event, _view: &View<'_>) -> Option<Finding> {
        match event.kind {
            EventKind::Jumped { .. } => {
                self.states = [State::default(); FLBS];
                None
            }
            EventKind::Note { verb: verb::FLB_OP, args } => self.called(event, args),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use crate::verb::FileOp;

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
}
