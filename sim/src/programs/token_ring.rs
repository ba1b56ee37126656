//! `token_ring_bad`: three threads pass a value round, each in one atomic step of several accesses; in most orders it does not get all
//! the way. main does not join.

use crate::shared::{Lock, Shared, World};

/// Copies a value on and says so, under the lock that makes it atomic.
async fn pass(atomic: Lock, from: Shared<i32>, to: Shared<i32>, step: i32, done: Shared<bool>) {
    atomic.lock().await;
    let value = from.get().await;
    to.set((value + step) % 4).await;
    done.set(true).await;
    atomic.unlock().await;
}

pub(super) fn spawn(world: &World) {
    let atomic = world.lock();
    let x = [world.cell(1i32), world.cell(2i32), world.cell(1i32)];
    let done = [(); 3].map(|()| world.cell(false));
    let main = world.clone();
    world.spawn("main", async move {
        for (name, from, to, step) in [("one", 2, 0, 1), ("two", 0, 1, 0), ("three", 1, 2, 0)] {
            main.create(name, pass(atomic.clone(), x[from].clone(), x[to].clone(), step, done[to].clone())).await;
        }
        let check = main.clone();
        let checker = async move {
            atomic.lock().await;
            if done[0].get().await && done[1].get().await && done[2].get().await {
                let first = x[0].get().await;
                let second = x[1].get().await;
                check.check(first == second && second == x[2].get().await, "the token did not get round");
            }
            atomic.unlock().await;
        };
        main.create("checker", checker).await;
    });
}
