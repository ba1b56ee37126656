//! Timed, without jitter, with stalls: the earliest step next, each after its cost and after what is added to it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::engine::{ActorId, Choice, Op, OpKind};
use crate::policy::{Policy, Timed};
use crate::shrink::{Cast, Label, Labels};

/// A step in every run: whose, and its number among the actor's own.
pub(super) type Own = (Label, u32);

/// Times by step, in picoseconds.
pub(super) type Times = BTreeMap<Own, u64>;

/// The policy; asked only who goes next.
pub(super) struct Stalled {
    cast: Cast,
    costs: Rc<Times>,
    /// What is added to the cost of a step: a stall, or the pause or rest before it.
    added: Times,
    /// When each actor did its last step, or was started or woken after it.
    local: Vec<u64>,
    now: u64,
}

impl Stalled {
    pub(super) fn new(labels: Rc<RefCell<Labels>>, costs: Rc<Times>, added: Times) -> Stalled {
        Stalled { cast: Cast::new(labels), costs, added, local: Vec::new(), now: 0 }
    }

    /// When the announced step of `actor` ends.
    fn due(&self, actor: ActorId, op: Op) -> u64 {
        let who = self.cast.label(actor);
        let own = (who, self.cast.steps(who));
        let cost = match self.costs.get(&own) {
            Some(&cost) => cost,
            // A turn that was not taken in the run found is not taken here.
            None if op.is(OpKind::Turn) => return u64::MAX,
            None => Timed::picoseconds(op.kind()),
        };
        self.local[actor.index()] + cost + self.added.get(&own).copied().unwrap_or(0)
    }
}

impl Policy for Stalled {
    fn choose(&mut self, choice: Choice<'_>) -> u32 {
        let Choice::Schedule(enabled) = choice else { return 0 };
        let due = |(_, id): &(usize, &ActorId)| self.due(**id, enabled.ops[id.index()]);
        let first = enabled.ids.iter().enumerate().min_by_key(due);
        first.map_or(0, |(index, _)| index as u32)
    }

    fn performed(&mut self, actor: ActorId, op: Op) {
        self.now = self.due(actor, op).min(u64::MAX / 2).max(self.now);
        self.local[actor.index()] = self.now;
        self.cast.step(actor);
    }

    fn ordered(&mut self, _: ActorId, after: ActorId) {
        self.local[after.index()] = self.local[after.index()].max(self.now);
    }

    fn started(&mut self, actor: ActorId, name: &str) {
        self.cast.start(actor, name);
        self.local.resize(actor.index() + 1, 0);
        self.local[actor.index()] = self.now;
    }

    fn name(&self) -> String {
        "stalled".to_owned()
    }
}
