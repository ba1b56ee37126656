//! What the searching policies have in common: they answer only who goes next.

use crate::engine::{ActorId, Enabled, Op};

/// Picks the next actor. [`Drawn`](super::Drawn) makes a whole [`Policy`](super::Policy) of it.
pub trait Scheduler {
    /// An index into [`Enabled::ids`]. Asked only when at least two actors are enabled.
    fn pick(&mut self, enabled: Enabled<'_>) -> usize;

    /// Told after each pick, and for each step that was no choice, which announced operation is performed now.
    #[inline]
    fn performed(&mut self, actor: ActorId, op: Op) {
        let _ = (actor, op);
    }

    /// Told that `after` goes on only because of what `before` has done so far.
    fn ordered(&mut self, before: ActorId, after: ActorId) {
        let _ = (before, after);
    }

    /// Name with parameters, as `--policy` takes it.
    fn name(&self) -> String;
}

impl Scheduler for Box<dyn Scheduler> {
    fn pick(&mut self, enabled: Enabled<'_>) -> usize {
        (**self).pick(enabled)
    }
    fn performed(&mut self, actor: ActorId, op: Op) {
        (**self).performed(actor, op);
    }
    fn ordered(&mut self, before: ActorId, after: ActorId) {
        (**self).ordered(before, after);
    }
    fn name(&self) -> String {
        (**self).name()
    }
}
