//! `deadlock01_bad`: two locks in opposite orders.

use crate::shared::{Lock, World};

pub(super) fn spawn(world: &World) {
    let (a, b, counter) = (world.lock(), world.lock(), world.cell(0i32));
    let main = world.clone();
    let program = |first: &Lock, second: &Lock, change: i32| {
        let (first, second, counter) = (first.clone(), second.clone(), counter.clone());
        async move {
            first.lock().await;
            second.lock().await;
            let before = counter.get().await;
            counter.set(before + change).await;
            second.unlock().await;
            first.unlock().await;
        }
    };
    let (up, down) = (program(&a, &b, 1), program(&b, &a, -1));
    world.spawn("main", async move {
        let up = main.create("up", up).await;
        let down = main.create("down", down).await;
        up.join().await;
        down.join().await;
    });
}
