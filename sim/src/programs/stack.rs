//! `stack_bad`: the flag that says the stack has been filled is never taken back, so the consumer pops from an empty stack.

use crate::shared::World;

const ROUNDS: i32 = 10;

pub(super) fn spawn(world: &World) {
    let (m, filled, top) = (world.lock(), world.cell(false), world.cell(0i32));
    let slots = world.cells(ROUNDS as usize, 0i32);
    let main = world.clone();
    let pusher = {
        let (m, filled, top, slots) = (m.clone(), filled.clone(), top.clone(), slots.clone());
        async move {
            for round in 0..ROUNDS {
                m.lock().await;
                let at = top.get().await;
                slots[at as usize].set(round).await;
                top.set(at + 1).await;
                filled.set(true).await;
                m.unlock().await;
            }
        }
    };
    let check = world.clone();
    let popper = async move {
        for _ in 0..ROUNDS {
            m.lock().await;
            if filled.get().await {
                let at = top.get().await;
                check.check(at > 0, "popped from an empty stack");
                if at > 0 {
                    top.set(at - 1).await;
                    slots[at as usize - 1].get().await;
                }
            }
            m.unlock().await;
        }
    };
    world.spawn("main", async move {
        let pusher = main.create("pusher", pusher).await;
        let popper = main.create("popper", popper).await;
        pusher.join().await;
        popper.join().await;
    });
}
