//! The profiling run: what PCT, SURW and the fault plan know of a scenario beforehand.
//!
//! A profile is part of a run's identity, so it comes from runs that are fixed: the same scenario, kernels and settings, policy
//! uniform, the first few seeds, no defect, no failure.

use sim::policy::{FaultPlan, PolicySpec, Profile, Profiler};

use super::{How, Run, RunSpec, Workspace};
use crate::defect::Defects;
use crate::scenario::Faults;

/// How many runs are measured; the largest counts hold.
const PROFILING_RUNS: u64 = 8;

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
        format!("{} {} {} {:?}", spec.scenario.name, spec.outgoing.name, spec.incoming.name, spec.settings)
    }

    /// The fault plan of a run: what `--fail-nth` says, else what the scenario's weights and the seed say.
    pub(super) fn faults(&self, spec: &RunSpec) -> FaultPlan {
        if let Some(nth) = spec.fail_nth {
            return FaultPlan::Nth(nth);
        }
        let calls = u64::from(self.nr_fallible.max(1));
        // Position and share come from the seed alone, so that neighbouring seeds fail neighbouring calls.
        let mixed = (spec.seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let nth = (mixed >> 20) % (calls + calls / 4 + 1);
        match spec.scenario.weights.faults {
            Faults::Never => FaultPlan::Never,
            Faults::One { per_1024 } if (mixed & 0x3ff) < u64::from(per_1024) => FaultPlan::Nth(nth as u32),
            Faults::One { .. } => FaultPlan::Never,
            Faults::Class { class, skip } => FaultPlan::Class { class, skip },
            Faults::Sweep => FaultPlan::NthAndRetry { nth: (spec.seed % (calls + calls / 4 + 1)) as u32, again: mixed & 7 == 0 },
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
