//! Writes down who did what, and who let whom go on, while a recorded run is made again.

use std::cell::RefCell;
use std::rc::Rc;

use crate::engine::{ActorId, Choice, Op};
use crate::policy::{Divergence, Policy};
use crate::shrink::Scribe;

/// One step of a run.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) actor: ActorId,
    /// Its number among the actor's own steps, from 0.
    pub(super) nth: u32,
    pub(super) op: Op,
    /// The actor's step before.
    pub(super) before: Option<usize>,
    /// The step that started or woke the actor after that.
    pub(super) cause: Option<usize>,
    /// Other steps it comes after in every run.
    pub(super) follows: Vec<usize>,
}

/// The steps of a run.
#[derive(Default)]
pub(super) struct Witnessed {
    pub(super) steps: Vec<Step>,
    /// Who else could have gone instead of the last step, and what each had announced.
    pending: Vec<(ActorId, Op)>,
    /// Steps performed when that was so.
    chosen_at: usize,
    actors: Vec<Known>,
}

/// What is known of one actor.
#[derive(Clone, Copy, Default)]
struct Known {
    steps: u32,
    last: Option<usize>,
    cause: Option<usize>,
}

impl Witnessed {
    /// The steps that were announced and not performed when the run ended.
    pub(super) fn announced(&self) -> Vec<Step> {
        if self.chosen_at + 1 != self.steps.len() {
            // Nobody else could.
            return Vec::new();
        }
        let others = self.pending.iter().filter(|(actor, _)| self.steps.last().is_some_and(|last| last.actor != *actor));
        let announced = others.map(|&(actor, op)| {
            let Known { steps: nth, last: before, cause } = self.actors.get(actor.index()).copied().unwrap_or_default();
            Step { actor, nth, op, before, cause, follows: Vec::new() }
        });
        announced.collect()
    }

    fn known(&mut self, actor: ActorId) -> &mut Known {
        self.actors.resize(self.actors.len().max(actor.index() + 1), Known::default());
        &mut self.actors[actor.index()]
    }
}

/// The policy that writes down, around the one that answers.
pub(super) struct Witness {
    pub(super) inner: Scribe,
    pub(super) witnessed: Rc<RefCell<Witnessed>>,
}

impl Policy for Witness {
    fn choose(&mut self, choice: Choice<'_>) -> u32 {
        if let Choice::Schedule(enabled) = choice {
            let mut witnessed = self.witnessed.borrow_mut();
            witnessed.pending.clear();
            // Turns of daemons are theirs to leave.
            witnessed.pending.extend(enabled.others.iter().map(|&id| (id, enabled.ops[id.index()])));
            witnessed.chosen_at = witnessed.steps.len();
        }
        self.inner.choose(choice)
    }

    fn performed(&mut self, actor: ActorId, op: Op) {
        self.inner.performed(actor, op);
        let mut witnessed = self.witnessed.borrow_mut();
        let at = witnessed.steps.len();
        let known = witnessed.known(actor);
        let (nth, before, cause) = (known.steps, known.last, known.cause.take());
        (known.steps, known.last) = (nth + 1, Some(at));
        witnessed.steps.push(Step { actor, nth, op, before, cause, follows: Vec::new() });
    }

    fn ordered(&mut self, before: ActorId, after: ActorId) {
        self.inner.ordered(before, after);
        let mut witnessed = self.witnessed.borrow_mut();
        let at = witnessed.steps.len();
        let Some(last) = witnessed.known(before).last else { return };
        match witnessed.steps.last_mut() {
            // What is under way has seen something of `before`.
            Some(step) if step.actor == after && before != after => step.follows.push(last),
            _ if at > 0 => witnessed.known(after).cause = Some(at - 1),
            _ => {}
        }
    }

    fn started(&mut self, actor: ActorId, name: &str) {
        self.inner.started(actor, name);
        let mut witnessed = self.witnessed.borrow_mut();
        let cause = witnessed.steps.len().checked_sub(1);
        witnessed.known(actor).cause = cause;
    }

    fn forgotten(&mut self, actor: ActorId) {
        let mut witnessed = self.witnessed.borrow_mut();
        let last = witnessed.known(actor).last;
        // Its steps are made before it is gone, or not at all.
        if let (Some(last), Some(step)) = (last, witnessed.steps.last_mut())
            && step.actor != actor
        {
            step.follows.push(last);
        }
    }

    fn name(&self) -> String {
        self.inner.name()
    }

    fn divergence(&self) -> Option<Divergence> {
        self.inner.divergence()
    }
}
