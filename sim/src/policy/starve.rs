//! Starvation: one actor is frozen for a power-of-two number of steps, again and again.
//!
//! Source: O'Callahan, Jones, Froyd, Huey, Noll, Partush, "Engineering record and replay for deployability" (USENIX ATC 2017) and the
//! chaos mode of rr, whose lesson is that some bugs need short and frequent starvation and others long one, so that the length must be
//! guessed by powers of two. Needs an estimate of the number of steps. Guarantee: a bug that shows when one given actor sleeps
//! through a given window of 2^j steps, whatever the others do, has a chance of about 1 / (n k log k) a run.
//!
//! Between freezes all actors run, for a power-of-two number of steps too; who is not frozen goes by the uniform random walk. A
//! frozen actor still goes when nobody else can: for a device or an old CPU that is a stall, never an end.

use super::scheduler::Scheduler;
use crate::engine::{ActorId, Enabled};
use crate::entropy::Entropy;

/// Shortest and longest possible longest freeze, as powers of two.
const LENGTHS: std::ops::RangeInclusive<u32> = 4..=20;

/// The starving scheduler.
#[derive(Clone, Debug)]
pub struct Starve {
    entropy: Entropy,
    /// A freeze takes at most 2 to this power steps.
    length_log2_max: u32,
    victim: Option<ActorId>,
    until: u64,
}

impl Starve {
    /// Starvation in runs of about `steps` steps.
    pub fn new(mut entropy: Entropy, steps: u64) -> Starve {
        let length_log2_max = steps.max(1).ilog2().clamp(*LENGTHS.start(), *LENGTHS.end());
        // Half of the runs begin with a freeze.
        let until = if entropy.one_in(2) { 0 } else { 1 << entropy.below(length_log2_max + 1) };
        Starve { entropy, length_log2_max, victim: None, until }
    }
}

impl Scheduler for Starve {
    fn pick(&mut self, enabled: Enabled<'_>) -> usize {
        let nr = enabled.ids.len() as u32;
        if enabled.step >= self.until {
            self.victim = match self.victim {
                Some(_) => None,
                None => Some(enabled.ids[self.entropy.below(nr) as usize]),
            };
            self.until = enabled.step + (1 << self.entropy.below(self.length_log2_max + 1));
        }
        match self.victim.and_then(|victim| enabled.ids.binary_search(&victim).ok()) {
            Some(frozen) => {
                let index = self.entropy.below(nr - 1) as usize;
                index + usize::from(index >= frozen)
            }
            None => self.entropy.below(nr) as usize,
        }
    }

    fn name(&self) -> String {
        "starve".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{profile_of, programs, seeds};
    use super::super::{FaultPlan, PolicySpec};
    use crate::engine::Burst;

    #[test]
    fn an_actor_that_must_sleep_through_the_life_of_the_others_is_found() {
        // Uniform has 2^-40 of this.
        let program = |policy| programs::late_reader(policy, 40);
        let profile = profile_of(program);
        assert!(seeds(&PolicySpec::Starve, &profile, 1000, program) > 5);
        assert_eq!(seeds(&PolicySpec::Uniform, &profile, 1000, program), 0);
    }

    #[test]
    fn a_frozen_actor_goes_when_nobody_else_can() {
        let profile = profile_of(programs::locked_counter);
        for seed in 0..300 {
            let outcome = programs::locked_counter(PolicySpec::Starve.build(seed, &profile, FaultPlan::Never));
            assert_eq!((outcome.burst, outcome.failure), (Burst::Finished, None));
        }
    }
}
