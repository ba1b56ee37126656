//! P1: each preserved file is unpreserved at most once, the last preserved first, and none is forgotten.
//!
//! Formal: for each session the callbacks "preserve succeeded" and "unpreserve" of its files form a stack: an unpreserve names
//! the file on top. When no session exists the stacks are empty.
//!
//! Why: later files depend on earlier ones (vfio on iommufd on memfd). Source: facts/live-update.md 7 (P1), 2.5.
//!
//! Cannot see: what a callback did. Bad twin: `close-in-order`.

use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};
use smallvec::SmallVec;

use super::{finding, kinds};
use crate::verb::{self, FileOp};

/// The oracle: files preserved, oldest first, of all sessions.
#[derive(Default)]
pub(super) struct Unpreserve {
    files: SmallVec<[(u64, u64); 32]>,
}

impl Unpreserve {
    pub(super) fn new() -> Unpreserve {
        Unpreserve::default()
    }

    fn unpreserve(&mut self, event: &Event, session: u64, token: u64) -> Option<Finding> {
        let top = self.files.iter().rposition(|file| file.0 == session);
        let at = self.files.iter().rposition(|file| *file == (session, token));
        let details = vec![format!("token {token:#x} of session {session:#x}")];
        let Some(at) = at else { return finding("P1", "unpreserved-without-preserve", event, details) };
        self.files.remove(at);
        if top != Some(at) { finding("P1", "unpreserved-out-of-order", event, details) } else { None }
    }
}

impl Oracle for Unpreserve {
    fn name(&self) -> &'static str {
        "P1"
    }

    fn interests(&self) -> u32 {
        kinds::NOTE | kinds::JUMPED
    }

    fn verbs(&self) -> u64 {
        kinds::verbs(&[verb::FILE_OP, verb::QUIESCENT])
    }

    fn on_event(&mut self, event: &Event, _view: &View<'_>) -> Option<Finding> {
        match event.kind {
            EventKind::Jumped { .. } => {
                self.files.clear();
                None
            }
            EventKind::Note { verb: verb::FILE_OP, args: [token, op, errno, session] } => match op & 0xff {
                op if op == FileOp::Preserve as u64 && errno == 0 => {
                    self.files.push((session, token));
                    None
                }
                op if op == FileOp::Unpreserve as u64 => self.unpreserve(event, session, token),
                _ => None,
            },
            EventKind::Note { verb: verb::QUIESCENT, .. } => {
                let (session, token) = self.files.first()?;
                finding("P1", "never-unpreserved", event, vec![format!("token {token:#x} of session {session:#x}")])
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;

    const PRESERVE: u64 = FileOp::Preserve as u64;
    const UNPRESERVE: u64 = FileOp::Unpreserve as u64;

    fn run(ops: &[(u64, u64, u64)]) -> Option<String> {
        let mut bench = Bench::new().judge_with(|_| Box::new(Unpreserve::new()));
        let found = ops.iter().find_map(|(session, token, op)| bench.note(verb::FILE_OP, [*token, *op, 0, *session]));
        found.or_else(|| bench.note(verb::QUIESCENT, [0; 4])).map(|found| found.title)
    }

    // Goal: reverse order passes, also with two sessions interleaved; each deviation has its title.
    #[test]
    fn files_leave_in_reverse_order() {
        let good = [(9, 1, PRESERVE), (8, 1, PRESERVE), (9, 2, PRESERVE), (9, 2, UNPRESERVE), (9, 1, UNPRESERVE), (8, 1, UNPRESERVE)];
        assert_eq!(run(&good), None);
        assert_eq!(run(&[(9, 1, PRESERVE), (9, 2, PRESERVE), (9, 1, UNPRESERVE)]).as_deref(), Some("unpreserved-out-of-order"));
        assert_eq!(run(&[(9, 1, PRESERVE), (9, 1, UNPRESERVE), (9, 1, UNPRESERVE)]).as_deref(), Some("unpreserved-without-preserve"));
        assert_eq!(run(&[(9, 1, PRESERVE)]).as_deref(), Some("never-unpreserved"));
    }
}
