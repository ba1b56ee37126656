//! `lazy01_bad`: add 1, add 2, and a check that the sum is below 3, each under one lock.

use crate::shared::World;

pub(super) fn spawn(world: &World) {
    let (m, data) = (world.lock(), world.cell(0i32));
    let main = world.clone();
    let add = |summand: i32| {
        let (m, data) = (m.clone(), data.clone());
        async move {
            m.lock().await;
            let before = data.get().await;
            data.set(before + summand).await;
            m.unlock().await;
        }
    };
    let (one, two) = (add(1), add(2));
    let check = {
        let (m, data, world) = (m.clone(), data.clone(), world.clone());
        async move {
            m.lock().await;
            world.check(data.get().await < 3, "both additions came first");
            m.unlock().await;
        }
    };
    world.spawn("main", async move {
        let tasks = [main.create("one", one).await, main.create("two", two).await, main.create("check", check).await];
        for task in tasks {
            task.join().await;
        }
    });
}
