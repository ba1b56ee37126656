//! `carter01_bad`: the first of a class takes a second lock under the first, and the last of the class takes the first while it holds
//! the second.

use crate::shared::{Lock, Shared, World};

async fn in_class(members: Shared<i32>, m: Lock, l: Lock) {
    m.lock().await;
    let before = members.get().await;
    members.set(before + 1).await;
    if members.get().await == 1 {
        l.lock().await;
    }
    m.unlock().await;
    m.lock().await;
    let before = members.get().await;
    members.set(before - 1).await;
    if members.get().await == 0 {
        l.unlock().await;
    }
    m.unlock().await;
}

pub(super) fn spawn(world: &World) {
    let (m, l) = (world.lock(), world.lock());
    let (a, b) = (world.cell(0i32), world.cell(0i32));
    let main = world.clone();
    world.spawn("main", async move {
        let tasks = [
            main.create("a", in_class(a, m.clone(), l.clone())).await,
            main.create("b", in_class(b, m, l)).await,
            main.create("idle", async {}).await,
            main.create("idle", async {}).await,
        ];
        for task in tasks {
            task.join().await;
        }
    });
}
