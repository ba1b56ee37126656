//! Search policies: who goes next, what fails, what the hardware decides. One file each, with its paper.
//!
//! Every choice of a run goes through [`Policy::choose`]; the engine records the answers. A policy may keep any state of its
//! own but sees only announcements, never values, so that a recorded list replays on any policy.

mod delay;
mod drawn;
mod exhaustive;
mod fault;
mod pct;
mod per_actor;
mod portfolio;
mod pos;
mod profile;
mod replay;
mod scheduler;
mod starve;
mod surw;
#[cfg(test)]
mod testing;
mod uniform;

pub use delay::Delay;
pub use drawn::Drawn;
pub use exhaustive::Exhaustive;
pub use fault::FaultPlan;
pub use pct::Pct;
pub use portfolio::{PolicyError, PolicySpec};
pub use pos::Pos;
pub use profile::{Interesting, Profile, Profiler};
pub use replay::Replay;
pub use scheduler::Scheduler;
pub use starve::Starve;
pub use surw::{Surw, Urw};
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

    /// Name with parameters, as `--policy` takes it (`pct:3`).
    fn name(&self) -> String;

    /// For replay: where the recorded list did not fit the run.
    fn divergence(&self) -> Option<Divergence> {
        None
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
