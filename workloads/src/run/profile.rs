//! The profiling run: what PCT, SURW and the fault plan know of a scenario beforehand.
//!
//! A profile is part of a run's identity, so it comes from runs that are fixed: the same scenario, kernels and settings, policy
//! uniform, the first few seeds, no defect, no failure.

use sim::policy::{FaultPlan, PolicySpec, Profile, Profiler};

use super::{How, Run, RunSpec, Way, Workspace, faults};
use crate::defect::Defects;
use crate::scenario::Faults;

/// How many runs are measured; the largest counts hold.
const PROFILING_RUNS: u64 = 8;

/// Spreads neighbouring seeds: 2^64 divided by the golden ratio.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// What was measured.
pub(super) struct RunProfile {
    /// For the scheduler.
    pub(super) schedule: Profile,
    /// Fallible calls met.
    pub(super) nr_fallible: u32,
}

impl RunProfile {
    /// What the profiling run depends on.
    pub(super) fn key(spec: &RunSpec) -> String {
        // In the profiling runs nothing fails.
        let settings = spec.settings.iter().filter(|(key, _)| *key != Way::SETTING);
        format!("{} {} {} {:?}", spec.scenario.name, spec.outgoing.name, spec.incoming.name, settings.collect::<Vec<_>>())
    }

    /// The fault plan of a run: what `--fail-nth` says, else what the scenario's weights and the seed say.
    pub(super) fn faults(&self, spec: &RunSpec) -> FaultPlan {
        if let Some(nth) = spec.fail_nth {
            return Way::of(spec).plan(nth);
        }
        match spec.scenario.weights.faults {
            Faults::Never => FaultPlan::Never,
            // The share comes from bits of the seed, so that of neighbouring seeds the same number fail something.
            Faults::Drawn { per_1024 } if spec.seed.wrapping_mul(MIX) >> 54 < u64::from(per_1024) => {
                faults::draw(spec.seed, &self.schedule)
            }
            Faults::Drawn { .. } => FaultPlan::Never,
            Faults::Class { class, skip } => FaultPlan::Class { class, skip },
            Faults::Sweep => {
                let calls = u64::from(self.nr_fallible.max(1));
                let again = spec.seed.wrapping_mul(MIX) >> 61 == 0;
                FaultPlan::NthAndRetry { nth: (spec.seed % (calls + calls / 4 + 1)) as u32, again }
            }
        }
    }
}

/// Runs the profiling runs.
pub(super) fn measure(workspace: &mut Workspace, spec: &RunSpec) -> RunProfile {
    let mut profiler = Profiler::new(64);
    let mut nr_fallible = 0;
    for seed in 0..PROFILING_RUNS {
        let spec = RunSpec { policy: PolicySpec::Uniform, seed, defects: Defects::NONE, fail_nth: None, ..spec.clone() };
        let policy = profiler.watch(PolicySpec::Uniform.build(seed, &Profile::default(), FaultPlan::Never));
        let mut run = Run::start(workspace, &spec, policy, &How::default());
        while run.burst(4096) {}
        nr_fallible = nr_fallible.max(run.end(workspace).nr_fallible);
    }
    RunProfile { schedule: profiler.finish(), nr_fallible }
}
