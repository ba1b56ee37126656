//! Which kernel function each actor entered last: titles name it.

use std::cell::RefCell;
use std::rc::Rc;

use sim::engine::ActorId;
use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind, Verb};

use crate::verb;

/// The packed name of the function each actor entered last, indexed by actor.
#[derive(Default)]
pub(super) struct Callers {
    last: Vec<[u64; 4]>,
}

impl Callers {
    /// The function `actor` entered last.
    pub(super) fn function(&self, actor: ActorId) -> Option<String> {
        self.last.get(actor.index()).filter(|packed| packed[0] != 0).map(|packed| verb::unpack_name(*packed))
    }
}

/// Keeps [`Callers`] up to date. Judges nothing.
pub(super) struct CallerTrack(pub(super) Rc<RefCell<Callers>>);

impl Oracle for CallerTrack {
    fn name(&self) -> &'static str {
        "callers"
    }
    fn interests(&self) -> u32 {
        EventKind::Note { verb: Verb(0), args: [0; 4] }.bit()
    }
    fn verbs(&self) -> u64 {
        verb::CALL.bit()
    }
    fn on_event(&mut self, event: &Event, _: &View<'_>) -> Option<Finding> {
        if let EventKind::Note { verb: verb::CALL, args } = event.kind {
            let mut callers = self.0.borrow_mut();
            if callers.last.len() <= event.actor.index() {
                callers.last.resize(event.actor.index() + 1, [0; 4]);
            }
            callers.last[event.actor.index()] = args;
        }
        None
    }
}
