//! `reorder_N_bad`: a setter must be stopped between its two writes before any other has finished, with a checker running there.

use crate::shared::World;

pub(super) fn spawn(world: &World, setters: u32, checkers: u32) {
    let (a, b) = (world.cell(0i32), world.cell(0i32));
    let main = world.clone();
    world.spawn("main", async move {
        let mut tasks = Vec::new();
        for _ in 0..setters {
            let (a, b) = (a.clone(), b.clone());
            let setter = async move {
                a.set(1).await;
                b.set(-1).await;
            };
            tasks.push(main.create("setter", setter).await);
        }
        for _ in 0..checkers {
            let (a, b, world) = (a.clone(), b.clone(), main.clone());
            let checker = async move {
                let holds = a.get().await == 0 && b.get().await == 0 || a.get().await == 1 && b.get().await == -1;
                world.check(holds, "neither both old nor both new");
            };
            tasks.push(main.create("checker", checker).await);
        }
        for task in tasks {
            task.join().await;
        }
    });
}
