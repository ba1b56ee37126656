//! Names of policies, and the portfolio: the seed itself chooses how to search.
//!
//! Source of the idea: Groce, Zhang, Eide, Chen, Regehr, "Swarm testing" (ISSTA 2012): runs that differ in how they search find more
//! than the best single way. The shares: 35% SURW and 35% RFF, which need fewest schedules on the programs of
//! [`programs`](crate::programs) (`cargo run --release -p sim --example search`); 15% POS, which did as well as these on planted defects of
//! the whole machine (`lurch matrix`); 5% each of PCT with a depth of 1 to 5, starvation and the random walk, for what the others are blind
//! to. The draw comes from a stream of its own, so that seed N under `portfolio` and under the policy it chose are the same run.

use std::fmt;
use std::str::FromStr;

use super::delay::Delay;
use super::drawn::Drawn;
use super::fault::FaultPlan;
use super::pct::Pct;
use super::pos::Pos;
use super::profile::Profile;
use super::rff::Rff;
use super::starve::Starve;
use super::surw::{Surw, Urw};
use super::timed::Timed;
use super::uniform::Uniform;
use super::{Policy, Scheduler};
use crate::entropy::{Entropy, Stream};

/// A policy by name, with its parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PolicySpec {
    /// `uniform`: [`Uniform`].
    Uniform,
    /// `pct:D`: [`Pct`] for bugs of depth D, 1 to [`PolicySpec::DEPTH_MAX`]; `pct` is `pct:3`.
    Pct {
        /// Bug depth d.
        depth: u8,
    },
    /// `pos`: [`Pos`].
    Pos,
    /// `urw`: [`Urw`].
    Urw,
    /// `surw`: [`Surw`].
    Surw,
    /// `rff`: [`Rff`], with constraints drawn from the profile.
    Rff,
    /// `starve`: [`Starve`].
    Starve,
    /// `delay:N`: [`Delay`] with at most N delays, 0 to [`PolicySpec::DELAYS_MAX`]; `delay` is `delay:2`.
    Delay {
        /// Largest number of delays.
        budget: u8,
    },
    /// `timed`: [`Timed`].
    Timed,
    /// `portfolio`: one of the others, chosen by the seed.
    #[default]
    Portfolio,
}

/// A policy that nobody knows.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PolicyError {
    /// The name is not one of ours.
    #[error("unknown policy `{name}`; policies are {}", PolicySpec::NAMES.join(", "))]
    Unknown {
        /// What was given, shortened.
        name: String,
    },
    /// The parameter is not a number in range.
    #[error("policy `{name}` takes a number from {min} to {max} after the colon, not `{parameter}`")]
    Parameter {
        /// The policy's name.
        name: &'static str,
        /// What was given, shortened.
        parameter: String,
        /// Smallest value.
        min: u32,
        /// Largest value.
        max: u32,
    },
    /// The policy has no parameter.
    #[error("policy `{name}` takes no parameter")]
    NoParameter {
        /// The policy's name.
        name: &'static str,
    },
}

impl PolicySpec {
    /// Largest depth of [`PolicySpec::Pct`].
    pub const DEPTH_MAX: u8 = 99;

    /// Largest budget of [`PolicySpec::Delay`].
    pub const DELAYS_MAX: u8 = 99;

    /// What users may write.
    pub const NAMES: [&str; 10] = ["portfolio", "surw", "pos", "rff", "pct:D", "starve", "urw", "delay:N", "uniform", "timed"];

    /// The policy that runs with `seed`: for a portfolio what it chooses, else this one.
    pub fn resolve(self, seed: u64) -> PolicySpec {
        if self != PolicySpec::Portfolio {
            return self;
        }
        let mut entropy = Entropy::new(seed, Stream::Policy);
        match entropy.below(100) {
            0..35 => PolicySpec::Surw,
            35..70 => PolicySpec::Rff,
            70..85 => PolicySpec::Pos,
            85..90 => PolicySpec::Pct { depth: 1 + entropy.below(5) as u8 },
            90..95 => PolicySpec::Starve,
            _ => PolicySpec::Uniform,
        }
    }

    /// The policy for one run. `profile` is part of the run's identity: see [`Profile`].
    pub fn build(self, seed: u64, profile: &Profile, faults: FaultPlan) -> Box<dyn Policy> {
        fn drawn<S: Scheduler + 'static>(scheduler: S, seed: u64, faults: FaultPlan) -> Box<dyn Policy> {
            Box::new(Drawn::new(scheduler, seed, faults))
        }
        let entropy = Entropy::new(seed, Stream::Schedule);
        match self {
            PolicySpec::Uniform => drawn(Uniform::new(entropy), seed, faults),
            PolicySpec::Pct { depth } => drawn(Pct::new(entropy, depth, profile.steps), seed, faults),
            PolicySpec::Pos => drawn(Pos::new(entropy), seed, faults),
            PolicySpec::Urw => drawn(Urw::new(entropy, profile), seed, faults),
            PolicySpec::Surw => match Surw::new(entropy.clone(), profile) {
                Some(surw) => drawn(surw, seed, faults),
                None => drawn(Urw::new(entropy, profile), seed, faults),
            },
            PolicySpec::Rff => drawn(Rff::new(entropy, profile), seed, faults),
            PolicySpec::Starve => drawn(Starve::new(entropy, profile.steps), seed, faults),
            PolicySpec::Delay { budget } => drawn(Delay::new(entropy, budget, profile.steps), seed, faults),
            PolicySpec::Timed => drawn(Timed::new(entropy), seed, faults),
            PolicySpec::Portfolio => self.resolve(seed).build(seed, profile, faults),
        }
    }

    fn name(self) -> &'static str {
        match self {
            PolicySpec::Uniform => "uniform",
            PolicySpec::Pct { .. } => "pct",
            PolicySpec::Pos => "pos",
            PolicySpec::Urw => "urw",
            PolicySpec::Surw => "surw",
            PolicySpec::Rff => "rff",
            PolicySpec::Starve => "starve",
            PolicySpec::Delay { .. } => "delay",
            PolicySpec::Timed => "timed",
            PolicySpec::Portfolio => "portfolio",
        }
    }
}

impl fmt::Display for PolicySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PolicySpec::Pct { depth } => write!(f, "pct:{depth}"),
            PolicySpec::Delay { budget } => write!(f, "delay:{budget}"),
            plain => f.write_str(plain.name()),
        }
    }
}

impl FromStr for PolicySpec {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<PolicySpec, PolicyError> {
        let (name, parameter) = text.split_once(':').map_or((text, None), |(name, parameter)| (name, Some(parameter)));
        let spec = match name {
            "uniform" => PolicySpec::Uniform,
            "pct" => PolicySpec::Pct { depth: number("pct", parameter.unwrap_or("3"), 1, Self::DEPTH_MAX)? },
            "delay" => PolicySpec::Delay { budget: number("delay", parameter.unwrap_or("2"), 0, Self::DELAYS_MAX)? },
            "pos" => PolicySpec::Pos,
            "urw" => PolicySpec::Urw,
            "surw" => PolicySpec::Surw,
            "rff" => PolicySpec::Rff,
            "starve" => PolicySpec::Starve,
            "timed" => PolicySpec::Timed,
            "portfolio" => PolicySpec::Portfolio,
            _ => return Err(PolicyError::Unknown { name: shortened(text) }),
        };
        if parameter.is_some() && !matches!(spec, PolicySpec::Pct { .. } | PolicySpec::Delay { .. }) {
            return Err(PolicyError::NoParameter { name: spec.name() });
        }
        Ok(spec)
    }
}

fn number(name: &'static str, parameter: &str, min: u8, max: u8) -> Result<u8, PolicyError> {
    let digits = !parameter.is_empty() && parameter.bytes().all(|byte| byte.is_ascii_digit());
    match parameter.parse() {
        Ok(value) if digits && (min..=max).contains(&value) => Ok(value),
        _ => Err(PolicyError::Parameter { name, parameter: shortened(parameter), min: u32::from(min), max: u32::from(max) }),
    }
}

/// Hostile input does not get to fill the screen.
fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{profile_of, programs};
    use super::*;

    #[test]
    fn every_name_parses_and_prints_back() {
        for text in ["uniform", "pct:1", "pct:99", "pos", "urw", "surw", "rff", "starve", "delay:0", "delay:99", "timed", "portfolio"] {
            assert_eq!(text.parse::<PolicySpec>().map(|spec| spec.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("pct".parse(), Ok(PolicySpec::Pct { depth: 3 }));
        assert_eq!("delay".parse(), Ok(PolicySpec::Delay { budget: 2 }));
    }

    #[test]
    fn errors_say_what_would_be_valid() {
        let error = |text: &str| text.parse::<PolicySpec>().expect_err("not a policy").to_string();
        assert_eq!(
            error("pso"),
            "unknown policy `pso`; policies are portfolio, surw, pos, rff, pct:D, starve, urw, delay:N, uniform, timed"
        );
        assert_eq!(error(""), "unknown policy ``; policies are portfolio, surw, pos, rff, pct:D, starve, urw, delay:N, uniform, timed");
        for text in ["pct:0", "pct:100", "pct:", "pct:+3", "pct:x", "pct:3:3"] {
            assert!(error(text).starts_with("policy `pct` takes a number from 1 to 99 after the colon"), "{text}");
        }
        assert_eq!(error("pos:3"), "policy `pos` takes no parameter");
        assert!(error(&"x".repeat(1 << 20)).len() < 200);
    }

    #[test]
    fn the_portfolio_keeps_its_shares() {
        let mut hits = [0; 6];
        let mut depths = [0; 6];
        for seed in 0..10_000 {
            let place = match PolicySpec::Portfolio.resolve(seed) {
                PolicySpec::Surw => 0,
                PolicySpec::Pos => 1,
                PolicySpec::Pct { depth } => {
                    depths[usize::from(depth)] += 1;
                    2
                }
                PolicySpec::Starve => 3,
                PolicySpec::Uniform => 4,
                PolicySpec::Rff => 5,
                other => panic!("{other}"),
            };
            hits[place] += 1;
        }
        for (hits, percent) in hits.into_iter().zip([35, 15, 5, 5, 5, 35]) {
            assert!((percent * 85..percent * 115).contains(&hits), "{hits} for {percent}%");
        }
        assert!(depths[0] == 0 && depths[1..].iter().all(|&n| n > 60), "{depths:?}");
    }

    #[test]
    fn a_seed_runs_the_same_under_the_portfolio_and_under_what_it_chose() {
        let program = |policy| programs::reorder(policy, 3, 2);
        let profile = profile_of(program);
        for seed in 0..100 {
            let under = |spec: PolicySpec| program(spec.build(seed, &profile, FaultPlan::Never)).record;
            assert_eq!(under(PolicySpec::Portfolio), under(PolicySpec::Portfolio.resolve(seed)));
            let policy = PolicySpec::Portfolio.build(seed, &profile, FaultPlan::Never);
            assert_eq!(policy.name(), PolicySpec::Portfolio.resolve(seed).to_string());
        }
    }

    #[test]
    fn the_same_seed_picks_the_same_and_another_seed_does_not() {
        let program = |policy| programs::reorder(policy, 4, 2);
        let profile = profile_of(program);
        for text in ["uniform", "pct:3", "pos", "urw", "surw", "rff", "starve", "delay:2", "timed", "portfolio"] {
            let spec: PolicySpec = text.parse().expect("known");
            let runs: Vec<_> = (0..20).map(|seed| program(spec.build(seed, &profile, FaultPlan::Never)).record).collect();
            let again: Vec<_> = (0..20).map(|seed| program(spec.build(seed, &profile, FaultPlan::Never)).record).collect();
            assert_eq!(runs, again, "{text}");
            assert!(runs.iter().any(|run| *run != runs[0]), "{text}");
        }
    }
}
