//! Which fallible calls a run's seed makes fail.
//!
//! Most error paths are reached by one failure. A path that is taken once in a run, among calls that are made by the hundred, is
//! found by failing *classes* in turn, not calls: so half of the plans draw a class first. The others are those that one failure
//! does not reach: a failure that is still there on retry, a burst, a while in which memory is short.

use sim::entropy::{Entropy, Stream};
use sim::policy::{FaultPlan, Profile};

use super::RunSpec;

/// How the call fails that `--fail-nth` names, and what fails after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Way {
    /// That call.
    #[default]
    Once,
    /// That call and every later one of its class: the failure is still there on retry.
    Again,
    /// That call and the next three, whatever they are.
    Burst,
    /// From that call on memory is short for a while: most allocations fail.
    LowMemory,
}

/// Calls of [`Way::Burst`].
const BURST: u32 = 4;
/// Calls that [`Way::LowMemory`] lasts, and how likely an allocation among them fails, in 1/1024.
const LOW_MEMORY: (u32, u32) = (64, 640);

impl Way {
    /// All ways, in the order of the setting's values.
    pub const ALL: [Way; 4] = [Way::Once, Way::Again, Way::Burst, Way::LowMemory];

    /// The setting that says it.
    pub const SETTING: &str = "fail";

    /// The way that the settings of `spec` say.
    pub fn of(spec: &RunSpec) -> Way {
        let value = spec.settings.get(Way::SETTING).copied().unwrap_or(0);
        usize::try_from(value).ok().and_then(|at| Way::ALL.get(at)).copied().unwrap_or_default()
    }

    /// The plan in which the call `nth` fails this way.
    pub(super) fn plan(self, nth: u32) -> FaultPlan {
        match self {
            Way::Once => FaultPlan::Nth(nth),
            Way::Again => FaultPlan::NthAndRetry { nth, again: true },
            Way::Burst => FaultPlan::Burst { from: nth, len: BURST },
            Way::LowMemory => FaultPlan::LowMemory { from: nth, len: LOW_MEMORY.0, per_1024: LOW_MEMORY.1 },
        }
    }
}

/// Longest burst.
const BURST_MAX: u32 = 8;

/// A failure somewhere in a run like those that were profiled.
pub(super) fn draw(seed: u64, profile: &Profile) -> FaultPlan {
    let mut entropy = Entropy::new(seed, Stream::FaultPlan);
    let calls: u32 = profile.fallible.iter().map(|class| class.calls).sum::<u32>().max(1);
    // A quarter beyond the end: a run with failures makes calls that the profiled ones did not.
    let nth = entropy.below(calls + calls / 4 + 1);
    match entropy.below(8) {
        0..=1 => FaultPlan::Nth(nth),
        2..=5 => match profile.fallible.get(entropy.below(profile.fallible.len().max(1) as u32) as usize) {
            Some(class) => FaultPlan::NthOfClass { class: class.class, nth: entropy.below(class.calls), again: entropy.below(4) == 0 },
            None => FaultPlan::Nth(nth),
        },
        6 => FaultPlan::Burst { from: nth, len: 2 + entropy.below(BURST_MAX - 1) },
        _ => FaultPlan::LowMemory { from: nth, len: 1 + entropy.below(calls), per_1024: 1 << (4 + entropy.below(7)) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sim::policy::Fallible;

    /// One class is called a thousand times, the other once.
    fn lopsided() -> Profile {
        let fallible = vec![Fallible { class: 1, calls: 1000 }, Fallible { class: 2, calls: 1 }];
        Profile { fallible, ..Profile::default() }
    }

    #[test]
    fn a_class_that_is_called_once_fails_in_a_quarter_of_the_runs() {
        let plans = (0..4000).map(|seed| draw(seed, &lopsided()));
        let hits = plans.filter(|plan| matches!(plan, FaultPlan::NthOfClass { class: 2, nth: 0, .. })).count();
        assert!((800..1200).contains(&hits), "{hits} of 4000");
    }

    #[test]
    fn a_run_without_fallible_calls_has_a_plan_that_fails_nothing_it_does_not_make() {
        for seed in 0..100 {
            assert!(!matches!(draw(seed, &Profile::default()), FaultPlan::NthOfClass { .. }));
        }
    }
}
