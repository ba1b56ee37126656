//! `wronglock_bad`: one thread counts under one lock and checks itself, the others count under another lock.

use crate::shared::World;

pub(super) fn spawn(world: &World, others: u32) {
    let (data_lock, other_lock, data) = (world.lock(), world.lock(), world.cell(0u32));
    let main = world.clone();
    world.spawn("main", async move {
        let mut tasks = Vec::new();
        let (check, checked) = (main.clone(), data.clone());
        let counter = async move {
            data_lock.lock().await;
            let expected = checked.get().await + 1;
            let before = checked.get().await;
            checked.set(before + 1).await;
            check.check(checked.get().await == expected, "somebody else counted");
            data_lock.unlock().await;
        };
        tasks.push(main.create("counter", counter).await);
        for _ in 0..others {
            let (lock, data) = (other_lock.clone(), data.clone());
            let other = async move {
                lock.lock().await;
                let before = data.get().await;
                data.set(before + 1).await;
                lock.unlock().await;
            };
            tasks.push(main.create("other", other).await);
        }
        for task in tasks {
            task.join().await;
        }
    });
}
