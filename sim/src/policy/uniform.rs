//! Uniform random walk: every enabled actor is equally likely at every step.
//!
//! Source: folklore; measured as a baseline by Thomson, Donaldson, Betts, "Concurrency testing using controlled
//! schedulers" (TOPC 2016). Needs nothing. Guarantee: none beyond every schedule having a chance; a schedule of k steps among n
//! actors has at least n^-k, so anything that needs one actor to be held back for long is out of reach.

use super::scheduler::Scheduler;
use crate::engine::Enabled;
use crate::entropy::Entropy;

/// The uniform random walk.
#[derive(Clone, Debug)]
pub struct Uniform {
    entropy: Entropy,
}

impl Uniform {
    /// A walk that draws from `entropy`.
    pub fn new(entropy: Entropy) -> Uniform {
        Uniform { entropy }
    }
}

impl Scheduler for Uniform {
    #[inline]
    fn pick(&mut self, enabled: Enabled<'_>) -> usize {
        self.entropy.below(enabled.ids.len() as u32) as usize
    }

    fn name(&self) -> String {
        "uniform".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{programs, seeds};
    use super::super::{FaultPlan, PolicySpec, Profile};

    #[test]
    fn a_lost_update_is_found_within_a_few_seeds() {
        let found = seeds(&PolicySpec::Uniform, &Profile::default(), 100, programs::lost_update);
        assert!(found > 10, "{found} of 100");
    }

    #[test]
    fn the_same_seed_picks_the_same() {
        for seed in 0..20 {
            let run = || programs::lost_update(PolicySpec::Uniform.build(seed, &Profile::default(), FaultPlan::Never)).record;
            assert_eq!(run(), run());
        }
    }
}
