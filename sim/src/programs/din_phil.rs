//! Dining philosophers who all take the right fork first: they can starve.

use crate::shared::World;

pub(super) fn spawn(world: &World, philosophers: u32) {
    let forks: Vec<_> = (0..philosophers).map(|_| world.lock()).collect();
    let eaten = world.cell(0u32);
    let main = world.clone();
    world.spawn("main", async move {
        let mut tasks = Vec::new();
        for seat in 0..forks.len() {
            let (left, right, eaten) = (forks[seat].clone(), forks[(seat + 1) % forks.len()].clone(), eaten.clone());
            let philosopher = async move {
                right.lock().await;
                left.lock().await;
                left.unlock().await;
                right.unlock().await;
                eaten.fetch_add(1).await;
            };
            tasks.push(main.create("philosopher", philosopher).await);
        }
        for task in tasks {
            task.join().await;
        }
    });
}
