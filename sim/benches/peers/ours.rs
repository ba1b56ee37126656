//! The workload on our engine: as the machine builds it, with nothing switched off. Every step is announced, every choice goes through
//! the policy by name, and every choice is recorded.

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::rc::Rc;

use sim::engine::{Burst, Core, Engine, Group, Life, Object, Op, OpKind, Recorded};
use sim::policy::{FaultPlan, Policy, PolicySpec, Profile, Profiler, Replay};
use sim::shared::World;

use super::Workload;

/// What all actors touch.
const COUNTER: Object = Object(0x1000);

/// One run under `policy`; returns the recorded choices.
pub(super) fn run(policy: Box<dyn Policy>, workload: Workload) -> Vec<Recorded> {
    let core = Rc::new(Core::new(policy));
    let mut engine = Engine::new(core.clone());
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
pub(super) fn run_world(policy: Box<dyn Policy>, workload: Workload) {
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
pub(super) fn profile(workload: Workload) -> Profile {
    let mut profiler = Profiler::new(8);
    for seed in 0..8 {
        run(profiler.watch(PolicySpec::Uniform.build(seed, &Profile::default(), FaultPlan::Never)), workload);
    }
    profiler.finish()
}

/// Runs with fresh seeds under the policy of that name.
pub(super) fn under(spec: PolicySpec, workload: Workload) -> Box<dyn FnMut(u64)> {
    let (profile, mut seed) = (profile(workload), 0);
    Box::new(move |runs| {
        for _ in 0..runs {
            seed += 1;
            run(spec.build(seed, &profile, FaultPlan::Never), workload);
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
    let record = |seed| run(PolicySpec::Uniform.build(seed, &Profile::default(), FaultPlan::Never), workload);
    let lists: RefCell<Vec<Vec<Recorded>>> = RefCell::new((0..16).map(record).collect());
    let mut nth = 0;
    Box::new(move |runs| {
        for _ in 0..runs {
            nth = (nth + 1) % 16;
            // The list travels into the policy, and what the run recorded is the same list again.
            let list = std::mem::take(&mut lists.borrow_mut()[nth]);
            let again = run(Box::new(Replay::new(list)), workload);
            lists.borrow_mut()[nth] = again;
        }
    })
}
