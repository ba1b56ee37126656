//! A ring of two slots, one producer, one consumer. `cargo run -p sim --example bounded_queue`
//!
//! Goal: explore every run of it; the right one publishes the index after the slot, the wrong one before.

use sim::policy::Exhaustive;
use sim::shared::{Explored, World};

const SLOTS: usize = 2;
const ITEMS: usize = 3;

fn explore(slot_first: bool) -> Explored {
    World::explore(&mut Exhaustive::new(), 100_000, 200, |world| {
        let slots = [world.cell(0usize), world.cell(0usize)];
        let (head, tail, room) = (world.cell(0usize), world.cell(0usize), slots.clone());
        let (consumed, produced, check) = (head.clone(), tail.clone(), world.clone());
        world.spawn("producer", async move {
            let mut item = 0;
            // A full ring ends the production: a spinning producer would make the tree of runs infinite.
            while item < ITEMS && item - head.get().await < SLOTS {
                if slot_first {
                    room[item % SLOTS].set(item + 1).await;
                    tail.set(item + 1).await;
                } else {
                    tail.set(item + 1).await;
                    room[item % SLOTS].set(item + 1).await;
                }
                item += 1;
            }
        });
        world.spawn("consumer", async move {
            let mut item = 0;
            while produced.get().await > item {
                check.check(slots[item % SLOTS].get().await == item + 1, "took what was not there yet");
                item += 1;
                consumed.set(item).await;
            }
        });
    })
}

fn main() {
    println!("slot, then index: {}", explore(true));
    println!("index, then slot: {}", explore(false));
    assert!(explore(true).complete && explore(true).bugs == 0);
    assert!(explore(false).bugs > 0);
}
