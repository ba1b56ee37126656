//! Search policies: who goes next, what fails, what the hardware decides. One file each, with its paper.
//!
//! Every choice of a run goes through [`Policy::choose`]; the engine records the answers. A policy may keep any state of its
//! own but sees only announcements, never values, so that a recorded list replays on any policy.

mod delay;
mod dpor;
mod drawn;
mod exhaustive;
mod fault;
mod feedback;
mod pct;
mod per_actor;
mod portfolio;
mod pos;
mod profile;
mod replay;
mod rff;
mod scheduler;
mod starve;
mod surw;
#[cfg(test)]
mod testing;
mod timed;
mod uniform;

pub use delay::Delay;
pub use dpor::Dpor;
pub use drawn::Drawn;
pub use exhaustive::Exhaustive;
pub use fault::FaultPlan;
pub use feedback::Feedback;
pub use pct::Pct;
pub use portfolio::{PolicyError, PolicySpec};
pub use pos::Pos;
pub use profile::{Fallible, Interesting, Profile, Profiler};
pub use replay::Replay;
pub use rff::{Before, Constraint, Rff, Site};
pub use scheduler::Scheduler;
pub use starve::Starve;
pub use surw::{Surw, Urw};
pub use timed::Timed;
pub use uniform::Uniform;

use crate::engine::{ActorId, Choice, Op, Runnable};

/// A way to answer choices.
pub trait Policy {
    /// Answers one choice: an index below the number of options (for [`Choice::Schedule`]: into the enabled ids).
    fn choose(&mut self, choice: Choice<'_>) -> u32;

    /// Picks who goes next: [`Policy::choose`] and [`Policy::performed`] in one, so that a step costs the engine one dynamic call.
    /// What it means is written here; a policy writes its own only to come there faster.
    #[inline]
    fn schedule(&mut self, runnable: &Runnable) -> ActorId {
        let enabled = runnable.enabled();
        let index = self.choose(Choice::Schedule(enabled)) as usize;
        let actor = enabled.ids[index];
        self.performed(actor, enabled.ops[actor.index()]);
        actor
    }

    /// Told after each scheduling decision, forced ones included, which announced operation is performed now.
    fn performed(&mut self, actor: ActorId, op: Op) {
        let _ = (actor, op);
    }

    /// Told that `after` goes on only because of what `before` has done so far: it was woken by it, or has seen it end.
    fn ordered(&mut self, before: ActorId, after: ActorId) {
        let _ = (before, after);
    }

    /// Told that an actor starts, before it can be picked, and what traces call it.
    fn started(&mut self, actor: ActorId, name: &str) {
        let _ = (actor, name);
    }

    /// Told that the step at hand has forgotten `actor` with its group: it does nothing any more.
    fn forgotten(&mut self, actor: ActorId) {
        let _ = actor;
    }

    /// Told that `actor` cannot be picked for `op`, which it has announced, until what others do allows it.
    fn withheld(&mut self, actor: ActorId, op: Op) {
        let _ = (actor, op);
    }

    /// Name with parameters, as `--policy` takes it (`pct:3`).
    fn name(&self) -> String;

    /// For replay: where the recorded list did not fit the run.
    fn divergence(&self) -> Option<Divergence> {
        None
    }
}

/// A search that makes run after run until nothing is left: hands out one policy a run, each fit for the next run only.
pub trait Explorer {
    /// The policy for the next run; `None` when all have been made. The run before must be over.
    fn next_policy(&mut self) -> Option<Box<dyn Policy>>;

    /// True once the run at hand can only repeat what another run did or will do; it may be cut. Its verdict is true all the same.
    fn is_redundant(&self) -> bool;

    /// True when the search learns from a run's last step on what to try next, so that a failed check must not end the run.
    fn needs_whole_runs(&self) -> bool {
        false
    }
}

/// The place where a recorded choice could not be honoured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// Position in the recorded list.
    pub position: usize,
    /// Steps performed when it was met.
    pub step: u64,
    /// What the list says, in words.
    pub expected: String,
    /// What the run offers, in words.
    pub offered: String,
}
