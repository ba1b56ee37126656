//! Searching for a bug in a program of one's own, and measuring how well that goes.
//!
//! A program is a function from a policy to an [`Outcome`]; [`World`](crate::shared::World) is the shortest way to write one.
//!
//! ```
//! use sim::policy::Policy;
//! use sim::search::Search;
//! use sim::shared::{Outcome, World};
//!
//! fn lost_update(policy: Box<dyn Policy>) -> Outcome {
//!     let world = World::new(policy);
//!     let main = world.clone();
//!     world.spawn("main", async move {
//!         let counter = main.cell(0u32);
//!         let mut tasks = Vec::new();
//!         for _ in 0..2 {
//!             let counter = counter.clone();
//!             let adder = async move {
//!                 let seen = counter.get().await;
//!                 counter.set(seen + 1).await;
//!             };
//!             tasks.push(main.create("adder", adder).await);
//!         }
//!         for task in tasks {
//!             task.join().await;
//!         }
//!         main.check(counter.get().await == 2, "an update was lost");
//!     });
//!     world.run(1000)
//! }
//!
//! let (schedules, bug) = Search::Feedback.first_bug(lost_update, &Default::default(), 0, 1000).expect("a frequent bug");
//! assert_eq!(bug.failure.as_deref(), Some("an update was lost"));
//! let found = "surw".parse::<Search>().expect("a name").measure(lost_update, &Search::profile(lost_update), 20, 1000);
//! assert_eq!(found.found, 20);
//! # assert!(schedules >= 1);
//! ```

use std::fmt;
use std::str::FromStr;

use crate::policy::{FaultPlan, Feedback, Policy, PolicyError, PolicySpec, Profile, Profiler};
use crate::shared::Outcome;

/// A way to search.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Search {
    /// One seed after another under this policy.
    Policy(PolicySpec),
    /// [`Feedback`]: each run builds on what the runs of its trial before have shown. Uses no profile.
    Feedback,
}

/// Outcome of the trials of one search on one program.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Found {
    /// Trials made.
    pub trials: u32,
    /// Trials that found the bug.
    pub found: u32,
    /// Mean number of schedules up to and including the first that showed the bug, over the trials that found it; 0 if none did.
    pub mean: f64,
}

impl Search {
    /// The searches that a table shows unless told otherwise.
    pub fn all() -> Vec<Search> {
        let specs = ["portfolio", "surw", "rff", "feedback", "pos", "pct:3", "urw", "starve", "delay:2", "uniform"];
        specs.iter().map(|name| name.parse().expect("the name of a search")).collect()
    }

    /// Runs of [`Search::profile`].
    pub const PROFILE_RUNS: u64 = 16;

    /// What policies may know of `program` beforehand: the profile of uniform runs with the seeds from 0.
    pub fn profile(program: impl Fn(Box<dyn Policy>) -> Outcome) -> Profile {
        let mut profiler = Profiler::new(8);
        for seed in 0..Self::PROFILE_RUNS {
            program(profiler.watch(PolicySpec::Uniform.build(seed, &Profile::default(), FaultPlan::Never)));
        }
        profiler.finish()
    }

    /// Runs `program` under one policy after another until a run fails: how many runs that took, and the failing one. `None` when
    /// `runs_max` are not enough. Trials with different numbers share no seed.
    pub fn first_bug(
        self,
        program: impl Fn(Box<dyn Policy>) -> Outcome,
        profile: &Profile,
        trial: u32,
        runs_max: u32,
    ) -> Option<(u32, Outcome)> {
        let first_seed = u64::from(trial) << 32;
        let mut feedback = Feedback::new();
        (0..runs_max).find_map(|run| {
            let seed = first_seed + u64::from(run);
            let policy = match self {
                Search::Policy(spec) => spec.build(seed, profile, FaultPlan::Never),
                Search::Feedback => feedback.policy(seed, FaultPlan::Never),
            };
            let outcome = program(policy);
            outcome.is_bug().then_some((run + 1, outcome))
        })
    }

    /// `trials` trials of at most `runs_max` schedules each.
    pub fn measure(self, program: impl Fn(Box<dyn Policy>) -> Outcome, profile: &Profile, trials: u32, runs_max: u32) -> Found {
        let counts: Vec<u32> = (0..trials).filter_map(|trial| Some(self.first_bug(&program, profile, trial, runs_max)?.0)).collect();
        let mean = counts.iter().map(|&count| f64::from(count)).sum::<f64>() / (counts.len().max(1) as f64);
        Found { trials, found: counts.len() as u32, mean }
    }
}

impl fmt::Display for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Search::Policy(spec) => spec.fmt(f),
            Search::Feedback => f.write_str("feedback"),
        }
    }
}

impl FromStr for Search {
    type Err = PolicyError;

    /// The name of a policy, or `feedback`.
    fn from_str(text: &str) -> Result<Search, PolicyError> {
        if text == "feedback" { Ok(Search::Feedback) } else { text.parse().map(Search::Policy) }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match (self.found, self.mean) {
            (0, _) => "-".to_owned(),
            (_, 0.0..100.0) => format!("{:.1}", self.mean),
            _ => format!("{:.0}", self.mean),
        };
        let part = if self.found < self.trials { format!(" ({}/{})", self.found, self.trials) } else { String::new() };
        f.pad(&(text + &part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Replay;
    use crate::programs::Program;

    #[test]
    fn a_trial_counts_the_schedules_up_to_the_first_bug() {
        let program = |policy| Program::Lazy01.run(policy);
        let profile = Search::profile(program);
        let search = Search::Policy(PolicySpec::Uniform);
        for trial in 0..10 {
            let (runs, outcome) = search.first_bug(program, &profile, trial, 10_000).expect("a frequent bug");
            assert_eq!(search.first_bug(program, &profile, trial, runs), Some((runs, outcome.clone())));
            assert_eq!(search.first_bug(program, &profile, trial, runs - 1), None);
            assert_eq!(program(Box::new(Replay::new(outcome.record.clone()))), outcome);
        }
    }

    #[test]
    fn what_was_not_found_is_said() {
        let program = |policy| Program::Reorder { setters: 9, checkers: 1 }.run(policy);
        let found = Search::Policy(PolicySpec::Uniform).measure(program, &Profile::default(), 3, 5);
        assert_eq!((found.found, found.to_string()), (0, "- (0/3)".to_owned()));
        let found = Found { trials: 20, found: 16, mean: 3225.0 };
        assert_eq!(found.to_string(), "3225 (16/20)");
    }
}
