//! PCT: random priorities, and d-1 random steps at which the running actor's priority falls below all others.
//!
//! Source: Burckhardt, Kothari, Musuvathi, Nagarakatte, "A randomized scheduler with probabilistic guarantees of finding bugs"
//! (ASPLOS 2010). Needs an estimate of the number of steps k and a bug depth d. Guarantee: a bug of depth d in a program of n
//! actors and k steps shows with probability at least 1 / (n k^(d-1)) in each run, as long as k is not underestimated.
//!
//! Two things the paper does not have. Actors may appear at any time: each gets a random priority when it is first enabled, which is
//! as good as having drawn all at the start. And an actor that performs [`OpKind::Yield`] falls below everybody, so that daemons
//! and spinning waiters, which never block, cannot starve the others; the bound holds for runs without yields.

use smallvec::SmallVec;

use super::per_actor::PerActor;
use super::scheduler::Scheduler;
use crate::engine::{ActorId, Enabled, Op, OpKind};
use crate::entropy::Entropy;

/// Priorities as first drawn lie at and above this; change points below it; yields below those.
const DRAWN: u32 = 1 << 31;
const CHANGED: u32 = 1 << 30;

/// No [`Enabled::version`].
const NO_VERSION: u64 = u64::MAX;

/// Number of steps assumed when no profile tells.
const STEPS_GUESS: u64 = 1000;

/// The PCT scheduler.
#[derive(Clone, Debug)]
pub struct Pct {
    entropy: Entropy,
    depth: u8,
    /// Priority per actor, higher first; 0 is not yet drawn.
    priorities: PerActor<u32>,
    /// Steps at which a priority falls, with the priority it falls to; the next one last.
    changes: SmallVec<[(u64, u32); 8]>,
    /// Who has the highest priority of those enabled, an index, and the [`Enabled::version`] for which that holds.
    best: usize,
    best_of: u64,
    step: u64,
    next_yield: u32,
}

impl Pct {
    /// PCT for bugs of `depth` (at least 1) in runs of about `steps` steps; 0 is taken for unknown.
    pub fn new(mut entropy: Entropy, depth: u8, steps: u64) -> Pct {
        let depth = depth.max(1);
        let steps = if steps == 0 { STEPS_GUESS } else { steps.min(u64::from(u32::MAX)) };
        let mut changes: SmallVec<[(u64, u32); 8]> =
            (1..u32::from(depth)).map(|rank| (u64::from(entropy.below(steps as u32)), CHANGED + rank)).collect();
        // Later changes first, so that the next one is popped from the end.
        changes.sort_unstable_by(|a, b| b.cmp(a));
        Pct { entropy, depth, priorities: PerActor::default(), changes, best: 0, best_of: NO_VERSION, step: 0, next_yield: CHANGED }
    }

    #[inline]
    fn highest(&mut self, ids: &[ActorId]) -> usize {
        let (mut best, mut best_priority) = (0, 0);
        for (index, &id) in ids.iter().enumerate() {
            let priority = self.priorities.at(id);
            if *priority == 0 {
                *priority = self.entropy.u32() | DRAWN;
            }
            if *priority > best_priority {
                (best, best_priority) = (index, *priority);
            }
        }
        best
    }

    /// The priority to fall to, when the step about to be performed is a change point.
    #[inline(always)]
    fn take_change(&mut self) -> Option<u32> {
        let &(step, priority) = self.changes.last()?;
        if step > self.step {
            return None;
        }
        self.changes.pop();
        self.best_of = NO_VERSION;
        Some(priority)
    }
}

impl Scheduler for Pct {
    #[inline(always)]
    fn pick(&mut self, enabled: Enabled<'_>) -> usize {
        // Between two changes of who is enabled or of a priority the same actor goes on.
        let mut index = if self.best_of == enabled.version { self.best } else { self.highest(enabled.ids) };
        (self.best, self.best_of) = (index, enabled.version);
        while let Some(priority) = self.take_change() {
            *self.priorities.at(enabled.ids[index]) = priority;
            index = self.highest(enabled.ids);
        }
        index
    }

    #[inline(always)]
    fn performed(&mut self, actor: ActorId, op: Op) {
        // Only a step that was no choice still finds its change point here.
        while let Some(priority) = self.take_change() {
            *self.priorities.at(actor) = priority;
        }
        if op.is(OpKind::Yield) {
            self.best_of = NO_VERSION;
            self.next_yield = self.next_yield.saturating_sub(1).max(1);
            *self.priorities.at(actor) = self.next_yield;
        }
        self.step += 1;
    }

    fn name(&self) -> String {
        format!("pct:{}", self.depth)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{programs, seeds};
    use super::super::{FaultPlan, Policy, PolicySpec, Profile};
    use crate::engine::Burst;
    use crate::shared::Outcome;

    fn profile(steps: u64) -> Profile {
        Profile { steps, ..Profile::default() }
    }

    /// Checks the paper's bound, counted over 20,000 seeds, for a bug of depth d in a program of two actors.
    fn bound_holds(depth: u8, program: impl Fn(Box<dyn Policy>) -> Outcome) {
        let steps = program(PolicySpec::Uniform.build(0, &Profile::default(), FaultPlan::Never)).steps;
        let runs = 20_000;
        let found = seeds(&PolicySpec::Pct { depth }, &profile(steps), runs, &program);
        let promised = runs / (2 * steps.pow(u32::from(depth) - 1));
        assert!(promised > 5, "too few runs to tell");
        // Four standard deviations of a count: where the bound is tight, the seeds may lie a little below it.
        assert!(found + 4 * promised.isqrt() >= promised, "depth {depth}, k = {steps}: {found} of {runs}, promised {promised}");
    }

    #[test]
    fn bugs_are_found_at_least_as_often_as_the_paper_promises() {
        for padding in [1, 8, 64] {
            bound_holds(1, |policy| programs::depth_1(policy, padding));
            bound_holds(2, |policy| programs::depth_2(policy, padding));
        }
        for padding in [1, 4, 8] {
            bound_holds(3, |policy| programs::depth_3(policy, padding));
        }
    }

    #[test]
    fn a_bug_of_depth_2_is_out_of_reach_at_depth_1() {
        let found = seeds(&PolicySpec::Pct { depth: 1 }, &profile(20), 500, |policy| programs::depth_2(policy, 8));
        assert_eq!(found, 0);
    }

    #[test]
    fn a_daemon_that_only_yields_starves_nobody() {
        for depth in 1..5 {
            for seed in 0..50 {
                let policy = PolicySpec::Pct { depth }.build(seed, &profile(100), FaultPlan::Never);
                assert_eq!(programs::beside_yielding_daemons(policy).burst, Burst::Finished);
            }
        }
    }

    #[test]
    fn two_spinning_waiters_take_turns() {
        for seed in 0..100 {
            let policy = PolicySpec::Pct { depth: 3 }.build(seed, &profile(50), FaultPlan::Never);
            assert_eq!(programs::spinning_hand_over(policy).burst, Burst::Finished);
        }
    }

    #[test]
    fn without_change_points_actors_run_one_after_the_other() {
        for seed in 0..20 {
            let record = programs::independent(PolicySpec::Pct { depth: 1 }.build(seed, &profile(20), FaultPlan::Never), 3, 5).record;
            let switches = record.windows(2).filter(|pair| pair[0] != pair[1]).count();
            assert!(switches <= 2, "{record:?}");
        }
    }
}
