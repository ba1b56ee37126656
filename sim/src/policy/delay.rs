//! Delay bounding: a deterministic scheduler, and a budget of delays that each skip the actor whose turn it is.
//!
//! Source: Emmi, Qadeer, Rakamarić, "Delay-bounded scheduling" (POPL 2011). Needs an estimate of the number of steps k. Guarantee: the
//! schedules of at most D delays number k^D / D! whatever the number of actors; each of them has a chance of at least about
//! D! / (D+1) k^D a run. Most bugs need one or two delays, which makes D = 0, 1, 2 the order in which to explore
//! systematically: [`Exhaustive::delay_bounded`](super::Exhaustive::delay_bounded).
//!
//! The base scheduler goes round: the actor that went last goes on until it blocks, ends or yields; then comes the next higher
//! enabled number, and after the highest the lowest.

use smallvec::SmallVec;

use super::scheduler::Scheduler;
use crate::engine::{ActorId, Enabled, Op, OpKind};
use crate::entropy::Entropy;

/// Number of steps assumed when no profile tells.
const STEPS_GUESS: u64 = 1000;

/// Whose turn it is in the base scheduler: an index into the enabled ids. Each delay moves on to the next index, round.
pub(super) fn turn(enabled: Enabled<'_>) -> usize {
    let Some(last) = enabled.last else { return 0 };
    match enabled.ids.binary_search(&last) {
        Ok(index) if !matches!(enabled.ops[last.index()].kind(), OpKind::Yield | OpKind::Turn) => index,
        Ok(index) => (index + 1) % enabled.ids.len(),
        Err(index) => index % enabled.ids.len(),
    }
}

/// A random delay-bounded scheduler.
#[derive(Clone, Debug)]
pub struct Delay {
    budget: u8,
    /// Steps at which an actor is skipped, the next one last.
    delays: SmallVec<[u64; 8]>,
    step: u64,
}

impl Delay {
    /// At most `budget` delays, at random among the first `steps` steps; 0 is taken for unknown.
    pub fn new(mut entropy: Entropy, budget: u8, steps: u64) -> Delay {
        let steps = if steps == 0 { STEPS_GUESS } else { steps.min(u64::from(u32::MAX)) };
        // As many delays as drawn, 0 to the budget, so that the small numbers have their share.
        let nr_delays = entropy.below(u32::from(budget) + 1);
        let mut delays: SmallVec<[u64; 8]> = (0..nr_delays).map(|_| u64::from(entropy.below(steps as u32))).collect();
        delays.sort_unstable_by(|a, b| b.cmp(a));
        Delay { budget, delays, step: 0 }
    }
}

impl Scheduler for Delay {
    fn pick(&mut self, enabled: Enabled<'_>) -> usize {
        let mut index = turn(enabled);
        while self.delays.last() == Some(&self.step) {
            self.delays.pop();
            index = (index + 1) % enabled.ids.len();
        }
        index
    }

    #[inline]
    fn performed(&mut self, _: ActorId, _: Op) {
        // Delays that fell on a step without a choice are spent.
        while self.delays.last() == Some(&self.step) {
            self.delays.pop();
        }
        self.step += 1;
    }

    fn name(&self) -> String {
        format!("delay:{}", self.budget)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{profile_of, programs, seeds};
    use super::super::{Exhaustive, Explorer, FaultPlan, PolicySpec};
    use crate::engine::Burst;

    #[test]
    fn without_delays_there_is_one_schedule() {
        let run = |seed| programs::lost_update(PolicySpec::Delay { budget: 0 }.build(seed, &Default::default(), FaultPlan::Never));
        assert!((1..50).all(|seed| run(seed) == run(0)));
    }

    #[test]
    fn one_delay_finds_a_lost_update() {
        let profile = profile_of(programs::lost_update);
        assert!(seeds(&PolicySpec::Delay { budget: 1 }, &profile, 200, programs::lost_update) > 10);
        assert_eq!(seeds(&PolicySpec::Delay { budget: 0 }, &profile, 200, programs::lost_update), 0);
    }

    #[test]
    fn exactly_the_schedules_within_the_budget_are_drawn_and_each_has_its_chance() {
        let profile = profile_of(programs::lost_update);
        for budget in 0..3 {
            let mut all = Exhaustive::delay_bounded(u32::from(budget));
            let mut bounded = Vec::new();
            while let Some(policy) = all.next_policy() {
                bounded.push(programs::lost_update(policy).record);
            }
            let run = |seed| programs::lost_update(PolicySpec::Delay { budget }.build(seed, &profile, FaultPlan::Never)).record;
            let drawn: Vec<_> = (0..2000).map(run).collect();
            assert!(drawn.iter().all(|record| bounded.contains(record)), "budget {budget}");
            // k^D / D! schedules at most, each with a chance of D! / (D+1) k^D.
            assert!(bounded.len() as u64 <= 1 + profile.steps.pow(u32::from(budget)));
            assert!(bounded.iter().all(|record| drawn.contains(record)), "budget {budget}");
        }
    }

    #[test]
    fn spinning_waiters_and_daemons_take_turns() {
        for seed in 0..100 {
            let build = |budget| PolicySpec::Delay { budget }.build(seed, &Default::default(), FaultPlan::Never);
            assert_eq!(programs::spinning_hand_over(build(2)).burst, Burst::Finished);
            assert_eq!(programs::beside_yielding_daemons(build(2)).burst, Burst::Finished);
        }
    }
}
