//! The workload of all benches, on our engine: as the machine uses it, with nothing switched off. Every step is announced, every choice
//! goes through the policy by name, every choice is recorded, the record is taken out, and a worker keeps its engine from run to run.

use std::cell::Cell;
use std::rc::Rc;

use sim::engine::{Burst, Core, Engine, Group, Life, Object, Op, OpKind, Recorded};
use sim::policy::{FaultPlan, Policy, PolicySpec, Profile, Profiler};

/// Actors that each make the same number of steps on one shared counter.
#[derive(Clone, Copy)]
pub(crate) struct Workload {
    /// Number of actors.
    pub(crate) actors: usize,
    /// Steps of each actor, beside its first, which touches nothing.
    pub(crate) steps: u64,
}

impl Workload {
    /// Steps of all actors.
    pub(crate) fn total(self) -> u64 {
        self.actors as u64 * self.steps
    }
}

/// What all actors touch.
const COUNTER: Object = Object(0x1000);

/// The engine of a worker, before its first run.
pub(crate) fn new_engine() -> Engine {
    Engine::new(Rc::new(Core::new(PolicySpec::Uniform.build(0, &Profile::default(), FaultPlan::Never))))
}

/// One run under `policy`; returns the recorded choices.
pub(crate) fn run(engine: &mut Engine, policy: Box<dyn Policy>, workload: Workload) -> Vec<Recorded> {
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
    core.choices().borrow_mut().take_record()
}

/// The profile that policies by counts need, from eight runs, as the machine makes it.
pub(crate) fn profile(workload: Workload) -> Profile {
    let (mut profiler, mut engine) = (Profiler::new(8), new_engine());
    for seed in 0..8 {
        run(&mut engine, profiler.watch(PolicySpec::Uniform.build(seed, &Profile::default(), FaultPlan::Never)), workload);
    }
    profiler.finish()
}
