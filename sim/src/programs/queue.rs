//! `queue_bad`: producer and consumer of a queue count rounds that were not theirs, after one element that needs no turn.

use crate::shared::World;

const ROUNDS: usize = 20;

pub(super) fn spawn(world: &World) {
    let (m, enqueue, dequeue) = (world.lock(), world.cell(true), world.cell(false));
    let (head, tail) = (world.cell(0usize), world.cell(0usize));
    let (elements, stored) = (world.cells(ROUNDS + 1, 0usize), world.cells(ROUNDS + 1, 0usize));
    let main = world.clone();
    let producer = {
        let (m, enqueue, dequeue) = (m.clone(), enqueue.clone(), dequeue.clone());
        let (tail, elements, stored) = (tail.clone(), elements.clone(), stored.clone());
        async move {
            for round in 0..ROUNDS {
                m.lock().await;
                if round == 0 || enqueue.get().await {
                    let at = tail.get().await;
                    elements[at].set(round + 1).await;
                    tail.set(at + 1).await;
                    stored[round].set(round + 1).await;
                    if round > 0 {
                        enqueue.set(false).await;
                        dequeue.set(true).await;
                    }
                }
                m.unlock().await;
            }
        }
    };
    let check = world.clone();
    let consumer = async move {
        for round in 0..ROUNDS {
            m.lock().await;
            if dequeue.get().await {
                let at = head.get().await;
                head.set(at + 1).await;
                let taken = elements[at].get().await;
                check.check(taken == stored[round].get().await, "another element than was stored in this round");
                dequeue.set(false).await;
                enqueue.set(true).await;
            }
            m.unlock().await;
        }
    };
    world.spawn("main", async move {
        let producer = main.create("producer", producer).await;
        let consumer = main.create("consumer", consumer).await;
        producer.join().await;
        consumer.join().await;
    });
}
