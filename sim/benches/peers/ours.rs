//! The workload on our engine, directly and through [`World`].

use std::hint::black_box;

use sim::engine::Recorded;
use sim::policy::{FaultPlan, Policy, PolicySpec, Profile, Replay};
use sim::shared::World;

use super::workload::{Workload, new_engine, profile, run};

/// The same through [`World`], the smallest way in.
fn run_world(policy: Box<dyn Policy>, workload: Workload) {
    let world = World::new(policy);
    let counter = world.cell(0u64);
    for _ in 0..workload.actors {
        let counter = counter.clone();
        world.spawn("actor", async move {
            for _ in 0..workload.steps {
                counter.fetch_add(1).await;
            }
        });
    }
    black_box(world.run(u64::MAX));
    assert_eq!(counter.peek(), workload.total());
}

/// Runs with fresh seeds under the policy of that name.
pub(super) fn under(spec: PolicySpec, workload: Workload) -> Box<dyn FnMut(u64)> {
    let (profile, mut engine, mut seed) = (profile(workload), new_engine(), 0);
    Box::new(move |runs| {
        for _ in 0..runs {
            seed += 1;
            black_box(run(&mut engine, spec.build(seed, &profile, FaultPlan::Never), workload));
        }
    })
}

/// Runs with fresh seeds through [`World`], under the uniform policy.
pub(super) fn through_world(workload: Workload) -> Box<dyn FnMut(u64)> {
    let mut seed = 0;
    Box::new(move |runs| {
        for _ in 0..runs {
            seed += 1;
            run_world(PolicySpec::Uniform.build(seed, &Profile::default(), FaultPlan::Never), workload);
        }
    })
}

/// Replays of recorded runs, of 16 seeds in turn.
pub(super) fn replay(workload: Workload) -> Box<dyn FnMut(u64)> {
    let mut engine = new_engine();
    let mut record = |seed| run(&mut engine, PolicySpec::Uniform.build(seed, &Profile::default(), FaultPlan::Never), workload);
    let mut lists: Vec<Vec<Recorded>> = (0..16).map(&mut record).collect();
    let mut nth = 0;
    Box::new(move |runs| {
        for _ in 0..runs {
            nth = (nth + 1) % 16;
            // The list travels into the policy, and what the run recorded is the same list again.
            let list = std::mem::take(&mut lists[nth]);
            lists[nth] = run(&mut engine, Box::new(Replay::new(list)), workload);
        }
    })
}
