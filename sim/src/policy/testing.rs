//! Small programs for the tests of the policies.

use super::{FaultPlan, Policy, PolicySpec, Profile};
use crate::shared::Outcome;

/// The profile of a few uniform runs of `program`.
pub(super) fn profile_of(program: impl Fn(Box<dyn Policy>) -> Outcome) -> Profile {
    crate::search::Search::profile(program)
}

/// In how many of the seeds from 0 below `runs` the program fails.
pub(super) fn seeds(spec: &PolicySpec, profile: &Profile, runs: u64, program: impl Fn(Box<dyn Policy>) -> Outcome) -> u64 {
    (0..runs).filter(|&seed| program(spec.build(seed, profile, FaultPlan::Never)).is_bug()).count() as u64
}

/// The programs. None runs longer than 10,000 steps, except beside devices.
pub(super) mod programs {
    use std::cell::Cell;
    use std::rc::Rc;

    use crate::engine::Op;
    use crate::policy::Policy;
    use crate::programs::Program;
    use crate::shared::{Outcome, World};

    const STEPS_MAX: u64 = 10_000;

    /// Two actors read, add 1, write.
    pub(crate) fn lost_update(policy: Box<dyn Policy>) -> Outcome {
        let world = World::new(policy);
        let counter = world.cell(0u32);
        for name in ["left", "right"] {
            let counter = counter.clone();
            world.spawn(name, async move {
                let seen = counter.get().await;
                counter.set(seen + 1).await;
            });
        }
        let mut outcome = world.run(STEPS_MAX);
        outcome.failure = (counter.peek() != 2).then(|| "an update was lost".to_owned());
        outcome
    }

    /// A bug of depth 2: the reader must come between two adjacent writes, amid `padding` other steps on both sides.
    pub(crate) fn depth_2(policy: Box<dyn Policy>, padding: u32) -> Outcome {
        let world = World::new(policy);
        let (a, b) = (world.cell(0u32), world.cell(0u32));
        {
            let (a, b, own) = (a.clone(), b.clone(), world.cell(0u32));
            world.spawn("writer", async move {
                for step in 0..padding {
                    own.set(step).await;
                }
                a.set(1).await;
                b.set(1).await;
                for step in 0..padding {
                    own.set(step).await;
                }
            });
        }
        let check = world.clone();
        world.spawn("reader", async move {
            let seen = (a.get().await, b.get().await);
            check.check(seen != (1, 0), "a half written pair");
        });
        world.run(STEPS_MAX)
    }

    /// A bug of depth 1: the second actor's only step comes first.
    pub(crate) fn depth_1(policy: Box<dyn Policy>, padding: u32) -> Outcome {
        let world = World::new(policy);
        let cell = world.cell(0u32);
        let set = cell.clone();
        world.spawn("first", async move {
            for _ in 0..padding {
                set.set(1).await;
            }
        });
        let check = world.clone();
        world.spawn("second", async move { check.check(cell.get().await == 1, "used before it was made") });
        world.run(STEPS_MAX)
    }

    /// A bug of depth 3: the reader's first look must come between two adjacent writes and its second look after them.
    pub(crate) fn depth_3(policy: Box<dyn Policy>, padding: u32) -> Outcome {
        let world = World::new(policy);
        let cell = world.cell(0u32);
        let (set, own) = (cell.clone(), world.cell(0u32));
        world.spawn("writer", async move {
            for step in 0..padding {
                own.set(step).await;
            }
            set.set(1).await;
            set.set(2).await;
            for step in 0..padding {
                own.set(step).await;
            }
        });
        let check = world.clone();
        world.spawn("reader", async move {
            let seen = (cell.get().await, cell.get().await);
            check.check(seen != (1, 2), "saw the change happen");
        });
        world.run(STEPS_MAX)
    }

    /// The program of that name.
    pub(crate) fn reorder(policy: Box<dyn Policy>, setters: u32, checkers: u32) -> Outcome {
        Program::Reorder { setters, checkers }.run(policy)
    }

    /// Two daemons that only yield, one finite actor of 10 steps that starts another of 10 steps.
    pub(crate) fn beside_yielding_daemons(policy: Box<dyn Policy>) -> Outcome {
        let world = World::new(policy);
        let cell = world.cell(0u32);
        for name in ["device0", "device1"] {
            let core = world.core().clone();
            world.spawn_daemon(name, async move {
                loop {
                    core.step(Op::pause()).await;
                }
            });
        }
        let main = world.clone();
        world.spawn("main", async move {
            let child = cell.clone();
            let task = main.create("child", async move { counts(&child).await }).await;
            counts(&cell).await;
            task.join().await;
        });
        world.run(STEPS_MAX)
    }

    /// An actor of 100 steps beside devices that for ever take a turn and work for ten steps on it. Tells beside the outcome how many
    /// devices were at work at once, at most.
    pub(crate) fn beside_devices(policy: Box<dyn Policy>, nr_devices: usize) -> (Outcome, u32) {
        let world = World::new(policy);
        let at_work = Rc::new(Cell::new((0u32, 0u32)));
        for _ in 0..nr_devices {
            let (core, own, at_work) = (world.core().clone(), world.cell(0u32), at_work.clone());
            world.spawn_daemon("device", async move {
                loop {
                    core.step(Op::turn()).await;
                    let (now, most) = at_work.get();
                    at_work.set((now + 1, most.max(now + 1)));
                    for step in 0..10 {
                        own.set(step).await;
                    }
                    let (now, most) = at_work.get();
                    at_work.set((now - 1, most));
                }
            });
        }
        let cell = world.cell(0u32);
        world.spawn("cpu", async move {
            for step in 0..100 {
                cell.set(step).await;
            }
        });
        (world.run(50 * STEPS_MAX), at_work.get().1)
    }

    async fn counts(cell: &crate::shared::Shared<u32>) {
        for _ in 0..10 {
            cell.fetch_add(1).await;
        }
    }

    /// Two actors pass a flag to and fro, spinning with yields.
    pub(crate) fn spinning_hand_over(policy: Box<dyn Policy>) -> Outcome {
        let world = World::new(policy);
        let turn = world.cell(0u32);
        for me in 0..2 {
            let (core, turn) = (world.core().clone(), turn.clone());
            world.spawn("player", async move {
                for _ in 0..5 {
                    while turn.get().await != me {
                        core.step(Op::pause()).await;
                    }
                    turn.set(1 - me).await;
                }
            });
        }
        world.run(STEPS_MAX)
    }

    /// Actors that share nothing, `steps` steps each beside their first.
    pub(crate) fn independent(policy: Box<dyn Policy>, actors: usize, steps: u32) -> Outcome {
        uneven(policy, &vec![steps; actors])
    }

    /// Actors that share nothing; one for each entry, with so many steps beside its first.
    pub(crate) fn uneven(policy: Box<dyn Policy>, steps: &[u32]) -> Outcome {
        let world = World::new(policy);
        for &steps in steps {
            let own = world.cell(0u32);
            world.spawn("alone", async move {
                for step in 0..steps {
                    own.set(step).await;
                }
            });
        }
        world.run(STEPS_MAX)
    }

    /// Three actors count under one lock; never fails.
    pub(crate) fn locked_counter(policy: Box<dyn Policy>) -> Outcome {
        let world = World::new(policy);
        let (lock, counter) = (world.lock(), world.cell(0u32));
        for name in ["one", "two", "three"] {
            let (lock, counter) = (lock.clone(), counter.clone());
            world.spawn(name, async move {
                for _ in 0..3 {
                    lock.lock().await;
                    let seen = counter.get().await;
                    counter.set(seen + 1).await;
                    lock.unlock().await;
                }
            });
        }
        let mut outcome = world.run(STEPS_MAX);
        outcome.failure = (counter.peek() != 9).then(|| "an update was lost under the lock".to_owned());
        outcome
    }

    /// Fails when the reader sleeps until the writer has made `steps` steps.
    pub(crate) fn late_reader(policy: Box<dyn Policy>, steps: u32) -> Outcome {
        let world = World::new(policy);
        let progress = world.cell(0u32);
        {
            let progress = progress.clone();
            world.spawn("writer", async move {
                for step in 1..=steps {
                    progress.set(step).await;
                }
                // Not the last of its steps: the reader must not merely be left over.
                for _ in 0..steps {
                    progress.get().await;
                }
            });
        }
        let check = world.clone();
        world.spawn("reader", async move { check.check(progress.get().await < steps, "the reader came late") });
        world.run(STEPS_MAX)
    }
}
