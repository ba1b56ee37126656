//! From a run that fails to the smallest run found that fails the same way: fewer actors, then fewer operations, fewer injected
//! failures, fewer context switches, and plain answers to whatever is left.
//!
//! Source of the method: Zeller, Hildebrandt, "Simplifying and isolating failure-inducing input" (IEEE TSE 2002): leave out large parts
//! first, halve them where the run then passes. What is left out here are parts of a run's decisions, sorted by whom they concern (the
//! module `script`), so that what stays still fits; a rule fills the gaps. Every candidate is a whole run: the caller makes it and says
//! whether it fails *the same way*.
//!
//! Guarantees: the result was run and failed; it is a plain list of choices that [`Replay`] repeats; the same program, list and
//! [`Budget`] give the same result, since the budget counts runs and steps and no clock. No part of the kinds named can be left out
//! singly, unless the budget ended the search ([`Shrunk::complete`]). That is a local minimum: fewer may be possible by changing
//! several things at once.
//!
//! ```
//! use sim::policy::{PolicySpec, Replay};
//! use sim::programs::Program;
//! use sim::shrink::{Budget, shrink};
//!
//! let program = Program::Reorder { setters: 4, checkers: 1 };
//! let profile = program.profile();
//! let found = (0..).map(|seed| program.run(PolicySpec::Surw.build(seed, &profile, Default::default()))).find(|run| run.is_bug());
//! let found = found.expect("some seed fails");
//! let fails = |policy, _steps_max| program.run(policy).failure == found.failure;
//! let shrunk = shrink(&found.record, Budget::default(), fails).expect("it fails again");
//! assert!(shrunk.to.switches <= shrunk.from.switches);
//! assert_eq!(program.run(Box::new(Replay::new(shrunk.list))).failure, found.failure);
//! ```

mod cast;
mod passes;
mod performer;
mod scribe;
mod script;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;

use crate::engine::Recorded;
use crate::policy::{Policy, Replay};
pub(crate) use cast::{Cast, Label, Labels};
pub(crate) use performer::Performer;
pub(crate) use scribe::{Observed, Scribe, Source};
use script::Script;

/// How large a run is. Of two runs that fail the same way the one that is smaller in this order is the better one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Measure {
    /// Actors that performed a step.
    pub actors: u64,
    /// Questions about what a program or device does next ([`Workload`](crate::engine::ChoiceKind::Workload)).
    pub operations: u64,
    /// Calls that were made to fail.
    pub failures: u64,
    /// Context switches: steps by another actor than the step before. Those that nobody can avoid, because the actor before waits or has
    /// ended, count.
    pub switches: u64,
    /// Switches away from an actor that could have gone on and did not pause; turns of daemons do not count.
    pub preemptions: u64,
    /// Answers other than the plain one, to questions about other things than who goes and what fails.
    pub oddities: u64,
    /// Steps.
    pub steps: u64,
}

/// What a search may cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Most runs.
    pub runs: u64,
    /// Most steps of all runs together.
    pub steps: u64,
}

impl Default for Budget {
    /// Less than a second of the whole machine, for most runs half of that.
    fn default() -> Budget {
        Budget { runs: 1_200, steps: 3_000_000 }
    }
}

/// A shrunk run.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// Its choices.
    pub list: Vec<Recorded>,
    /// What there was.
    pub from: Measure,
    /// What is left.
    pub to: Measure,
    /// Runs made.
    pub runs: u64,
    /// Steps of all runs.
    pub steps: u64,
    /// Nothing can be left out singly any more; false when the budget ended the search.
    pub complete: bool,
}

/// Shrinks the run that `list` recorded. `fails` makes a run under the policy it is given, of at most so many steps, and says whether
/// it fails the same way; a run that was cut has not failed.
///
/// `None` when the list does not fit the program, or its run does not fail.
pub fn shrink(list: &[Recorded], budget: Budget, fails: impl FnMut(Box<dyn Policy>, u64) -> bool) -> Option<Shrunk> {
    let mut shrinker =
        Shrinker { fails, labels: Rc::default(), budget, runs: 0, steps: 0, best: Observed::default(), from: Measure::default() };
    let first = shrinker.run(Source::List(Replay::new(list.to_vec())), u64::MAX)?;
    shrinker.from = first.measure;
    shrinker.best = first;
    let complete = shrinker.shrink();
    let Shrinker { best, from, runs, steps, .. } = shrinker;
    Some(Shrunk { list: best.list, from, to: best.measure, runs, steps, complete })
}

/// A search under way.
struct Shrinker<F> {
    fails: F,
    labels: Rc<RefCell<Labels>>,
    budget: Budget,
    runs: u64,
    steps: u64,
    from: Measure,
    /// The smallest run yet that fails.
    best: Observed,
}

impl<F: FnMut(Box<dyn Policy>, u64) -> bool> Shrinker<F> {
    /// Makes one run; what it was, if it failed and its answers fitted.
    fn run(&mut self, source: Source, steps_max: u64) -> Option<Observed> {
        let observed = Rc::<RefCell<Observed>>::default();
        let scribe = Scribe::new(source, self.labels.clone(), observed.clone());
        let failed = (self.fails)(Box::new(scribe), steps_max);
        let observed = observed.take();
        self.runs += 1;
        self.steps += observed.measure.steps;
        (failed && !observed.diverged).then_some(observed)
    }

    /// True when nothing more may be tried.
    fn is_spent(&self) -> bool {
        self.runs >= self.budget.runs || self.steps >= self.budget.steps
    }

    /// Keeps `script`'s run as the best if it fails and is smaller.
    fn attempt(&mut self, script: Script) -> bool {
        self.attempt_from(Source::Script(Performer::new(script)))
    }

    /// Keeps the run that `source` makes as the best if it fails and is smaller.
    fn attempt_from(&mut self, source: Source) -> bool {
        if self.is_spent() {
            return false;
        }
        // One that takes much longer to fail is no smaller one.
        let steps_max = self.best.measure.steps + self.best.measure.steps / 4 + 64;
        match self.run(source, steps_max) {
            Some(run) if run.measure < self.best.measure => {
                self.best = run;
                true
            }
            _ => false,
        }
    }
}
