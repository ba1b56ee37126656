//! A spin lock that tests and then sets: two owners. `cargo run -p sim --example spin_lock`
//!
//! Goal: find the run in which both get in, print it as a list that replays, and show that compare-and-swap mends it.

use sim::engine::Op;
use sim::policy::{PolicySpec, Replay};
use sim::replay::choices;
use sim::shared::{Outcome, World};

fn run(world: &World, atomic: bool) -> Outcome {
    let (lock, owners) = (world.cell(false), world.cell(0u32));
    for name in ["left", "right"] {
        let (world, lock, owners) = (world.clone(), lock.clone(), owners.clone());
        world.clone().spawn(name, async move {
            if atomic {
                while lock.cas(false, true).await.is_err() {
                    world.core().step(Op::pause()).await;
                }
            } else {
                while lock.get().await {
                    world.core().step(Op::pause()).await;
                }
                lock.set(true).await;
            }
            world.check(owners.update(|owners| owners + 1).await == 0, "two owners at once");
            owners.update(|owners| owners - 1).await;
            lock.set(false).await;
        });
    }
    world.run(1000)
}

fn main() {
    let policy = |seed| PolicySpec::Portfolio.build(seed, &Default::default(), Default::default());
    let (seed, bug) = (0..).map(|seed| (seed, run(&World::new(policy(seed)), false))).find(|(_, run)| run.is_bug()).expect("endless");
    println!("seed {seed}: {} after {} steps: {}", bug.failure.as_deref().unwrap_or("deadlock"), bug.steps, choices::write(&bug.record));
    assert_eq!(run(&World::new(Box::new(Replay::new(bug.record.clone()))), false), bug);
    let bugs = (0..10_000).filter(|&seed| run(&World::new(policy(seed)), true).is_bug()).count();
    println!("with compare-and-swap: {bugs} of 10000 runs");
    assert_eq!(bugs, 0);
}
