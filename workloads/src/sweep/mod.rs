//! Sweeps: many seeds of a scenario, in parallel, counted, judged, and their findings told apart.
//!
//! Runs are independent, so a sweep is: workers draw run numbers from one counter until the budget is spent ([`hunt`]); every
//! violation is noted under its property and title with the lowest run numbers; these are run again with their events kept and
//! grouped by causal signature ([`triage`]); the lowest run of each group is confirmed in a fresh process ([`confirm`]); a clean
//! claim is made only when everything the scenario requires has happened ([`claim`]). With a run budget the result depends on
//! nothing but the plan: not on the number of workers, nor on which finished first.
//!
//! The wall clock is looked at in [`clock`] only.

pub mod canaries;
pub mod claim;
pub mod clock;
pub mod confirm;
pub mod distinct;
pub mod hunt;
pub mod product;
pub mod progress;
pub mod store;
pub mod tally;
pub mod triage;

use std::sync::Arc;
use std::time::Duration;

use sim::policy::PolicySpec;

use crate::defect::Defects;
use crate::revision::Revision;
use crate::run::RunSpec;
use crate::scenario::{Scenario, Settings};
use product::Product;

/// What every run of one part of a sweep has in common: everything but the seed.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The scenario.
    pub scenario: &'static Scenario,
    /// The kernel that is replaced.
    pub outgoing: Revision,
    /// The kernel that takes over.
    pub incoming: Revision,
    /// Planted defects.
    pub defects: Defects,
    /// Search policy.
    pub policy: PolicySpec,
    /// Fail exactly this fallible call.
    pub fail_nth: Option<u32>,
    /// Parameters changed.
    pub settings: Settings,
    /// Not one seed after another, but each fault position in turn.
    pub product: Option<Arc<Product>>,
}

impl Selection {
    /// The run with this number, where run 0 has the seed `first_seed`.
    pub fn run(&self, first_seed: u64, number: u64) -> RunSpec {
        match &self.product {
            Some(product) => product.spec(self, number),
            None => self.spec(first_seed.wrapping_add(number)),
        }
    }

    /// The run with `seed`.
    pub fn spec(&self, seed: u64) -> RunSpec {
        RunSpec {
            scenario: self.scenario,
            outgoing: self.outgoing,
            incoming: self.incoming,
            defects: self.defects,
            policy: self.policy,
            seed,
            fail_nth: self.fail_nth,
            settings: self.settings.clone(),
        }
    }
}

/// When a hunt ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Budget {
    /// After this many runs, over all partitions.
    Runs(u64),
    /// When this much wall-clock time is spent.
    Time(Duration),
}

/// Which runs belong to this process: those whose number is `index` modulo `of`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Partition {
    /// From 0.
    pub index: u64,
    /// At least 1.
    pub of: u64,
}

impl Partition {
    /// Everything.
    pub const WHOLE: Partition = Partition { index: 0, of: 1 };

    /// Reads `slice:i/n`, with i from 1 to n.
    ///
    /// # Errors
    /// Says what a partition looks like.
    pub fn parse(text: &str) -> Result<Partition, String> {
        let parse = || {
            let (index, of) = text.strip_prefix("slice:")?.split_once('/')?;
            let (index, of): (u64, u64) = (index.parse().ok()?, of.parse().ok()?);
            (1..=of).contains(&index).then(|| Partition { index: index - 1, of })
        };
        parse().ok_or_else(|| format!("`{}` is not a partition (slice:2/8 is the second of eight)", crate::names::shortened(text, 40)))
    }

    /// The number, in the whole sweep, of the n-th run of this partition.
    pub fn run(self, n: u64) -> u64 {
        n.saturating_mul(self.of).saturating_add(self.index)
    }

    /// How many of the first `runs` runs belong to this partition.
    pub fn share(self, runs: u64) -> u64 {
        runs / self.of + u64::from(self.index < runs % self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_disjoint_and_complete() {
        for of in 1..7 {
            for runs in 0..40 {
                let mut all: Vec<u64> = (0..of)
                    .flat_map(|index| {
                        let partition = Partition { index, of };
                        (0..partition.share(runs)).map(move |n| partition.run(n))
                    })
                    .collect();
                all.sort_unstable();
                assert_eq!(all, (0..runs).collect::<Vec<_>>(), "{runs} runs in {of}");
            }
        }
    }

    #[test]
    fn a_partition_is_written_as_nextest_writes_it() {
        assert_eq!(Partition::parse("slice:2/8"), Ok(Partition { index: 1, of: 8 }));
        for text in ["", "2/8", "slice:0/8", "slice:9/8", "slice:1/0", "slice:a/b", "hash:1/2"] {
            assert!(Partition::parse(text).is_err(), "{text}");
        }
    }
}
