//! What the engine allocates: nothing in a step, and a few blocks a run. A test binary of its own: the counting allocator serves a
//! whole process.

#[path = "../benches/common/workload.rs"]
mod workload;

use sim::policy::{FaultPlan, PolicySpec};
use workload::{Workload, new_engine, profile, run};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Blocks that each of eight runs of `workload` allocates, after runs in the same engine that made the longest record known to it.
fn blocks_a_run(spec: PolicySpec, workload: Workload) -> Vec<u64> {
    let (profile, mut engine) = (profile(workload), new_engine());
    let runs = (0..40).map(|seed| {
        let before = dhat::HeapStats::get().total_blocks;
        run(&mut engine, spec.build(seed, &profile, FaultPlan::Never), workload);
        dhat::HeapStats::get().total_blocks - before
    });
    runs.skip(32).collect()
}

#[test]
fn no_step_allocates_and_a_run_allocates_its_actors_policy_and_record() {
    let _profiler = dhat::Profiler::builder().testing().build();
    for name in ["uniform", "pct:3", "pos", "urw", "surw", "starve", "delay:2"] {
        let spec: PolicySpec = name.parse().expect("a known name");
        for actors in [2, 4, 8] {
            // An actor each; policy, record, and the counter that they share.
            let expected = actors as u64 + 3 + tables_of(name);
            for steps in [100, 1000, 4000] {
                assert_eq!(blocks_a_run(spec, Workload { actors, steps }), [expected; 8], "{name}, {actors} actors of {steps} steps");
            }
        }
    }
}

/// Blocks in which policies by counts keep what their profile says.
fn tables_of(policy: &str) -> u64 {
    match policy {
        "urw" => 2,
        "surw" => 3,
        _ => 0,
    }
}
