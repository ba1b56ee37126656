//! `twostage_bad`: two variables that belong together, each under a lock of its own.

use crate::shared::World;

pub(super) fn spawn(world: &World, writers: u32, readers: u32) {
    let (lock1, data1) = (world.lock(), world.cell(0i32));
    let (lock2, data2) = (world.lock(), world.cell(0i32));
    let main = world.clone();
    world.spawn("main", async move {
        let mut tasks = Vec::new();
        for _ in 0..writers {
            let (lock1, data1, lock2, data2) = (lock1.clone(), data1.clone(), lock2.clone(), data2.clone());
            let writer = async move {
                lock1.lock().await;
                data1.set(1).await;
                lock1.unlock().await;
                lock2.lock().await;
                let first = data1.get().await;
                data2.set(first + 1).await;
                lock2.unlock().await;
            };
            tasks.push(main.create("writer", writer).await);
        }
        for _ in 0..readers {
            let (lock1, data1, lock2, data2) = (lock1.clone(), data1.clone(), lock2.clone(), data2.clone());
            let world = main.clone();
            let reader = async move {
                lock1.lock().await;
                let first = data1.get().await;
                if first == 0 {
                    lock1.unlock().await;
                    return;
                }
                // The second look at the same variable, as the original has it.
                let first = data1.get().await;
                lock1.unlock().await;
                lock2.lock().await;
                let second = data2.get().await;
                lock2.unlock().await;
                world.check(second == first + 1, "the second stage is missing");
            };
            tasks.push(main.create("reader", reader).await);
        }
        for task in tasks {
            task.join().await;
        }
    });
}
