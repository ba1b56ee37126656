//! The workload on our engine: as the machine uses it, with nothing switched off. Every step is announced, every choice goes through
//! the policy by name, every choice is recorded, the record is taken out, and a worker keeps its engine from run to run.

use std::cell::Cell;
use std::hint::black_box;
use std::rc::Rc;

use sim::engine::{Burst, Core, Engine, Group, Life, Object, Op, OpKind, Recorded};
use sim::policy::{FaultPlan, Policy, PolicySpec, Profile, Profiler, Replay};
use sim::shared::World;

use super::Workload;

/// What all actors touch.
const COUNTER: Object = Object(0x1000);

/// The engine of a worker, before its first run.
fn new_engine() -> Engine {
    Engine::new(Rc::new(Core::new(PolicySpec::Uniform.build(0, &Profile::default(), FaultPlan::Never))))
}

/// One run under `policy`; returns the recorded choices.
fn run(engine: &mut Engine, policy: Box<dyn Policy>, workload: Workload) -> Vec<Recorded> {
    engine.restart(policy);
    let core = engine.core().clone();
    let counter = Rc::new(Cell::new(0u64));
    for _ in 0..workload.actors {
        let (actor, counter) = (core.clone(), counter.clone());
        engine.spawn("actor", Group(0), Life::Finite, async move {
            for _ in 0..workload.steps {
                actor.step(Op::new(OpKind::Rmw, COUNTER, 8)).await;
                counter.set(counter.get() + 1);
            }
        });
    }
    assert_eq!(engine.run(u64::MAX), Burst::Finished);
    assert_eq!(counter.get(), workload.total());
    let record = core.choices().borrow_mut().take_record();
    black_box(record)
}

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

/// The profile that policies by counts need, from eight runs, as the machine makes it.
fn profile(workload: Workload) -> Profile {
    let (mut profiler, mut engine) = (Profiler::new(8), new_engine());
    for seed in 0..8 {
        run(&mut engine, profiler.watch(PolicySpec::Uniform.build(seed, &Profile::default(), FaultPlan::Never)), workload);
    }
    profiler.finish()
}

/// Runs with fresh seeds under the policy of that name.
pub(super) fn under(spec: PolicySpec, workload: Workload) -> Box<dyn FnMut(u64)> {
    let (profile, mut engine, mut seed) = (profile(workload), new_engine(), 0);
    Box::new(move |runs| {
        for _ in 0..runs {
            seed += 1;
            run(&mut engine, spec.build(seed, &profile, FaultPlan::Never), workload);
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
