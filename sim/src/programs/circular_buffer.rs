//! `circular_buffer_bad`: sender and receiver count their rounds even when it was not their turn, and so go out of step.

use std::rc::Rc;

use crate::shared::World;

const SIZE: usize = 10;
const ROUNDS: i32 = 7;

pub(super) fn spawn(world: &World) {
    let (m, send, receive) = (world.lock(), world.cell(true), world.cell(false));
    let (first, next) = (world.cell(0usize), world.cell(0usize));
    let slots: Rc<Vec<_>> = Rc::new((0..SIZE).map(|_| world.cell(0i32)).collect());
    let main = world.clone();
    let sender = {
        let (m, send, receive, next, slots) = (m.clone(), send.clone(), receive.clone(), next.clone(), slots.clone());
        async move {
            for round in 0..ROUNDS {
                m.lock().await;
                if send.get().await {
                    let index = next.get().await;
                    slots[index].set(round).await;
                    next.set((index + 1) % SIZE).await;
                    send.set(false).await;
                    receive.set(true).await;
                }
                m.unlock().await;
            }
        }
    };
    let check = world.clone();
    let receiver = async move {
        for round in 0..ROUNDS {
            m.lock().await;
            if receive.get().await {
                let index = first.get().await;
                let value = if next.get().await > 0 && index < SIZE {
                    first.set(index + 1).await;
                    slots[index].get().await
                } else {
                    -1
                };
                check.check(value == round, "received another value than was sent in this round");
                receive.set(false).await;
                send.set(true).await;
            }
            m.unlock().await;
        }
    };
    world.spawn("main", async move {
        let sender = main.create("sender", sender).await;
        let receiver = main.create("receiver", receiver).await;
        sender.join().await;
        receiver.join().await;
    });
}
