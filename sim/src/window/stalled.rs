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

/// When a step happens that does not.
const NEVER: u64 = u64::MAX;

/// What decides when steps happen, beside costs.
#[derive(Clone, Default)]
pub(super) struct Timetable {
    /// What is added to the cost of a step: a stall, or the pause before it.
    pub(super) added: Times,
    /// Turns of daemons: after which step of another actor, and how long after. Tied to what happens around it, a turn stays where it is when
    /// everything gets faster.
    pub(super) turns: BTreeMap<Own, (Own, u64)>,
}

/// The policy; asked only who goes next.
pub(super) struct Stalled {
    cast: Cast,
    costs: Rc<Times>,
    timetable: Timetable,
    /// When the steps that turns come after were done.
    done: Times,
    /// When each actor did its last step, or was started or woken after it.
    local: Vec<u64>,
    now: u64,
}

impl Stalled {
    pub(super) fn new(labels: Rc<RefCell<Labels>>, costs: Rc<Times>, timetable: Timetable) -> Stalled {
        let done = timetable.turns.values().map(|&(after, _)| (after, NEVER)).collect();
        Stalled { cast: Cast::new(labels), costs, timetable, done, local: Vec::new(), now: 0 }
    }

    /// When the announced step of `actor` ends.
    fn due(&self, actor: ActorId, op: Op) -> u64 {
        let who = self.cast.label(actor);
        let own = (who, self.cast.steps(who));
        let cost = match self.costs.get(&own) {
            Some(&cost) => cost,
            // A turn that was not taken in the run found is not taken here.
            None if op.is(OpKind::Turn) => return NEVER,
            None => Timed::picoseconds(op.kind()),
        };
        let ready = self.local[actor.index()] + cost + self.timetable.added.get(&own).copied().unwrap_or(0);
        match self.timetable.turns.get(&own) {
            Some((after, later)) => self.done[after].saturating_add(*later).max(ready),
            None => ready,
        }
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
        // Where only those are left that never come, one of them does, at once.
        let due = self.due(actor, op);
        self.now = if due == NEVER { self.now } else { due.max(self.now) };
        self.local[actor.index()] = self.now;
        let who = self.cast.label(actor);
        if let Some(done) = self.done.get_mut(&(who, self.cast.steps(who))) {
            *done = self.now;
        }
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
