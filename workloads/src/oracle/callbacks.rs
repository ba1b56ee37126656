//! callbacks: the callbacks of a file come in the order of its life; none is skipped, none doubled.
//!
//! Formal: each file of a session is in one state. Outgoing: preserved, frozen, written. Freeze is for a preserved file, the entry is
//! written for a frozen one, unfreeze is for a frozen or written one, and every other callback is wrong. When the last reboot call under
//! way returns, no file is frozen any more; at the jump every preserved file is written, and none that was frozen has been given up since.
//! Incoming, for each file written: retrieve is called until it has answered once, for good or bad; finish is called once, and
//! nothing after it.
//!
//! Why: a handler keeps state from one callback to the next; whoever is frozen and never unfrozen stays stopped, whoever is preserved and
//! not written is lost, whoever is finished twice frees twice. Source: facts/live-update.md 7 (P2, P4, P5), 2.5 to 2.7.
//!
//! Judged from the words FILE_OP alone, which name handler, token and session: what LUO's own lists and counts say does not matter.
//! Preserve and unpreserve as a stack are P1's.
//!
//! Cannot see: what a callback did. Bad twin: `unfreeze-skipped`.

use std::cell::RefCell;
use std::rc::Rc;

use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};
use smallvec::SmallVec;

use super::contract::call;
use super::ledger::Ledger;
use super::{finding, kinds};
use crate::verb::{self, FileOp};

/// Where a file of the running kernel's sessions is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outgoing {
    Preserved,
    Frozen,
    Written,
    /// Unpreserved while it was frozen: wrong once it is too late to take the freeze back.
    GivenUp,
}

/// Where a file that was handed over is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Incoming {
    Waiting,
    Retrieved,
    Finished,
}

/// A file, by what the words call it.
#[derive(Clone, Copy, Debug)]
struct File<S> {
    session: u64,
    token: u64,
    handler: u64,
    state: S,
}

/// The oracle.
pub(super) struct Callbacks {
    ledger: Rc<RefCell<Ledger>>,
    outgoing: SmallVec<[File<Outgoing>; 32]>,
    /// Their session objects are known from their first callback on.
    incoming: SmallVec<[File<Incoming>; 32]>,
}

impl Callbacks {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>) -> Callbacks {
        Callbacks { ledger, outgoing: SmallVec::new(), incoming: SmallVec::new() }
    }

    fn jump(&mut self) {
        self.incoming.clear();
        let written = self.outgoing.iter().filter(|file| file.state == Outgoing::Written);
        self.incoming.extend(written.map(|file| File { session: 0, token: file.token, handler: file.handler, state: Incoming::Waiting }));
        self.outgoing.clear();
        if !self.ledger.borrow().handover {
            self.incoming.clear();
        }
    }

    /// What is wrong with a callback, if anything.
    fn called(&mut self, args: [u64; 4]) -> Option<&'static str> {
        let [token, op, errno, session] = args;
        let (op, handler, succeeded) = (op & 0xff, op >> 8 & 0xff, errno == 0);
        if op == FileOp::Retrieve as u64 || op == FileOp::Finish as u64 {
            return self.called_incoming(op, [session, token, handler]);
        }
        let same = |file: &File<Outgoing>| (file.session, file.token) == (session, token);
        let at = self.outgoing.iter().position(same);
        if op == FileOp::Preserve as u64 && succeeded {
            let state = Outgoing::Preserved;
            self.outgoing.push(File { session, token, handler, state });
            return at.filter(|at| self.outgoing[*at].state != Outgoing::GivenUp).map(|_| "preserved-twice");
        }
        let state = at.map(|at| self.outgoing[at].state);
        let (wrong, next) = match op {
            op if op == FileOp::Unpreserve as u64 => {
                // Of a file that is not there, P1 speaks.
                if let Some(at) = at {
                    match state {
                        Some(Outgoing::Preserved) => drop(self.outgoing.remove(at)),
                        _ => self.outgoing[at].state = Outgoing::GivenUp,
                    }
                }
                return None;
            }
            _ if state == Some(Outgoing::GivenUp) => return None,
            op if op == FileOp::Freeze as u64 => {
                ((state != Some(Outgoing::Preserved)).then_some("frozen-out-of-turn"), succeeded.then_some(Outgoing::Frozen))
            }
            op if op == FileOp::Serialised as u64 => {
                ((state != Some(Outgoing::Frozen)).then_some("written-without-freeze"), succeeded.then_some(Outgoing::Written))
            }
            op if op == FileOp::Unfreeze as u64 => {
                let frozen = matches!(state, Some(Outgoing::Frozen | Outgoing::Written));
                ((!frozen).then_some("unfrozen-without-freeze"), Some(Outgoing::Preserved))
            }
            _ => (None, None),
        };
        if let (Some(at), Some(next)) = (at, next) {
            self.outgoing[at].state = next;
        }
        wrong
    }

    fn called_incoming(&mut self, op: u64, [session, token, handler]: [u64; 3]) -> Option<&'static str> {
        let same = |file: &File<Incoming>| (file.token, file.handler) == (token, handler) && (file.session == session || file.session == 0);
        let finish = op == FileOp::Finish as u64;
        // Two sessions may use one token: the session's own file first, then one whose session is not known yet.
        let own = self.incoming.iter().position(|file| same(file) && file.session == session);
        let Some(at) = own.or_else(|| self.incoming.iter().position(same)) else {
            return Some(if finish { "finished-without-entry" } else { "retrieved-without-entry" });
        };
        let file = &mut self.incoming[at];
        file.session = session;
        let before = std::mem::replace(&mut file.state, if finish { Incoming::Finished } else { Incoming::Retrieved });
        match (before, finish) {
            (Incoming::Finished, true) => Some("finished-twice"),
            (Incoming::Finished, false) => Some("retrieved-after-finish"),
            (Incoming::Retrieved, false) => Some("retrieved-twice"),
            _ => None,
        }
    }

    fn report<S>(event: &Event, title: &str, file: &File<S>) -> Option<Finding> {
        let handler = handler_name(file.handler);
        finding("callbacks", title, event, vec![format!("{handler} file, token {:#x} of session {:#x}", file.token, file.session)])
    }
}

/// Name of a handler, by the number that words carry.
const fn handler_name(number: u64) -> &'static str {
    match number {
        1 => "memfd",
        2 => "iommufd",
        3 => "vfio",
        _ => "unknown",
    }
}

impl Oracle for Callbacks {
    fn name(&self) -> &'static str {
        "callbacks"
    }

    fn interests(&self) -> u32 {
        kinds::NOTE | kinds::JUMPED
    }

    fn verbs(&self) -> u64 {
        kinds::verbs(&[verb::FILE_OP, verb::USER_RETURN, verb::BEFORE_JUMP])
    }

    fn on_event(&mut self, event: &Event, _view: &View<'_>) -> Option<Finding> {
        match event.kind {
            EventKind::Jumped { .. } => {
                self.jump();
                None
            }
            EventKind::Note { verb: verb::FILE_OP, args } => {
                let title = self.called(args)?;
                let [token, op, _, session] = args;
                Self::report(event, title, &File { session, token, handler: op >> 8 & 0xff, state: () })
            }
            // A call that is refused because another one is under way has frozen nothing.
            EventKind::Note { verb: verb::USER_RETURN, args }
                if args[0] == u64::from(call::REBOOT) && !self.ledger.borrow().others_reboot(event) =>
            {
                self.outgoing.retain(|file| file.state != Outgoing::GivenUp);
                let frozen = self.outgoing.iter().find(|file| file.state != Outgoing::Preserved)?;
                Self::report(event, "frozen-after-a-refused-reboot", frozen)
            }
            EventKind::Note { verb: verb::BEFORE_JUMP, .. } if self.ledger.borrow().handover => {
                let wrong = self.outgoing.iter().find(|file| file.state != Outgoing::Written)?;
                let title = match wrong.state {
                    Outgoing::GivenUp => "given-up-and-handed-over",
                    _ => "preserved-and-not-handed-over",
                };
                Self::report(event, title, wrong)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;

    fn bench() -> Bench {
        Bench::new().judge_with(|ledger| Box::new(Callbacks::new(ledger)))
    }

    fn op(bench: &mut Bench, op: FileOp, token: u64) -> Option<String> {
        let failed = |title: Finding| title.title;
        bench.note(verb::FILE_OP, [token, op as u64 | 1 << 8, 0, 7]).map(failed)
    }

    fn refused(bench: &mut Bench) -> Option<String> {
        bench.user_call(call::REBOOT);
        bench.note(verb::USER_RETURN, [u64::from(call::REBOOT), -16i64 as u64, 0, 0]).map(|found| found.title)
    }

    // Goal: a refused reboot takes every freeze back. Method: the second of two files fails to freeze; then an unfreeze is left out.
    #[test]
    fn a_refused_reboot_leaves_nobody_frozen() {
        let mut bench = bench();
        for token in 1..3 {
            assert_eq!(op(&mut bench, FileOp::Preserve, token), None);
        }
        assert_eq!(op(&mut bench, FileOp::Freeze, 1), None);
        assert_eq!(op(&mut bench, FileOp::Serialised, 1), None);
        assert_eq!(bench.note(verb::FILE_OP, [2, FileOp::Freeze as u64 | 1 << 8, -12i64 as u64, 7]), None);
        assert_eq!(op(&mut bench, FileOp::Unfreeze, 1), None);
        assert_eq!(refused(&mut bench), None);
        assert_eq!(op(&mut bench, FileOp::Freeze, 1), None);
        assert_eq!(refused(&mut bench).as_deref(), Some("frozen-after-a-refused-reboot"));
    }

    // Goal: a reboot call that meets another one and is refused says nothing about what that one has frozen.
    #[test]
    fn a_call_refused_for_another_has_frozen_nothing() {
        let mut bench = bench();
        assert_eq!(op(&mut bench, FileOp::Preserve, 1), None);
        bench.user_call_by(9, call::REBOOT);
        assert_eq!(op(&mut bench, FileOp::Freeze, 1), None);
        assert_eq!(refused(&mut bench), None);
        bench.user_return_by(9, call::REBOOT);
        assert_eq!(refused(&mut bench).as_deref(), Some("frozen-after-a-refused-reboot"));
    }

    // Goal: each outgoing callback out of its place is named.
    #[test]
    fn a_callback_out_of_its_place_is_found() {
        let mut bench = bench();
        assert_eq!(op(&mut bench, FileOp::Freeze, 1).as_deref(), Some("frozen-out-of-turn"));
        assert_eq!(op(&mut bench, FileOp::Preserve, 1), None);
        assert_eq!(op(&mut bench, FileOp::Preserve, 1).as_deref(), Some("preserved-twice"));
        assert_eq!(op(&mut bench, FileOp::Serialised, 1).as_deref(), Some("written-without-freeze"));
        let mut bench = self::bench();
        op(&mut bench, FileOp::Preserve, 1);
        assert_eq!(op(&mut bench, FileOp::Unfreeze, 1).as_deref(), Some("unfrozen-without-freeze"));
        assert_eq!(op(&mut bench, FileOp::Freeze, 1), None);
        assert_eq!(op(&mut bench, FileOp::Freeze, 1).as_deref(), Some("frozen-out-of-turn"));
    }

    // Goal: a file may not be given up behind the back of a reboot that goes on; one that is refused has handed nothing over.
    #[test]
    fn a_frozen_file_is_not_given_up() {
        let mut bench = bench();
        for _ in 0..2 {
            op(&mut bench, FileOp::Preserve, 1);
            op(&mut bench, FileOp::Freeze, 1);
            assert_eq!(op(&mut bench, FileOp::Unpreserve, 1), None);
            assert_eq!(op(&mut bench, FileOp::Serialised, 1), None);
            assert_eq!(refused(&mut bench), None);
            assert_eq!(bench.before_jump(&[]), None);
        }
        op(&mut bench, FileOp::Preserve, 1);
        op(&mut bench, FileOp::Freeze, 1);
        op(&mut bench, FileOp::Unpreserve, 1);
        assert_eq!(bench.before_jump(&[]).expect("its entry may be there").title, "given-up-and-handed-over");
    }

    // Goal: the next kernel gets every preserved file, and each file's callbacks there come once.
    #[test]
    fn a_file_is_retrieved_and_finished_once() {
        let mut bench = bench();
        for token in 1..3 {
            op(&mut bench, FileOp::Preserve, token);
        }
        for token in 1..3 {
            let lost = bench.before_jump(&[]).map(|found| found.title);
            assert_eq!(lost.as_deref(), Some("preserved-and-not-handed-over"));
            op(&mut bench, FileOp::Freeze, token);
            op(&mut bench, FileOp::Serialised, token);
        }
        assert_eq!(bench.before_jump(&[]), None);
        bench.jump(&[]);
        assert_eq!(op(&mut bench, FileOp::Retrieve, 1), None);
        assert_eq!(op(&mut bench, FileOp::Retrieve, 1).as_deref(), Some("retrieved-twice"));
        assert_eq!(op(&mut bench, FileOp::Finish, 1), None);
        assert_eq!(op(&mut bench, FileOp::Finish, 1).as_deref(), Some("finished-twice"));
        assert_eq!(op(&mut bench, FileOp::Finish, 2), None, "nobody has to retrieve it");
        assert_eq!(op(&mut bench, FileOp::Retrieve, 2).as_deref(), Some("retrieved-after-finish"));
        assert_eq!(op(&mut bench, FileOp::Finish, 3).as_deref(), Some("finished-without-entry"));
    }
}
