//! A work-stealing queue after the THE protocol (Frigo, Leiserson, Randall, PLDI 1998): the owner works at the tail without a lock, the
//! thief at the head under one. The bug: the owner reads the head before it has published the lower tail, so that both may take the
//! last element. The threads and items are those of the `WorkStealQueue` test of the CHESS suite; the queue is ours.

use std::rc::Rc;

use crate::shared::{Lock, Shared, World};

const ITEMS: usize = 4;
const STEALS: usize = 2;

#[derive(Clone)]
struct Queue {
    head: Shared<usize>,
    tail: Shared<usize>,
    elements: Rc<[Shared<usize>]>,
    foreign: Lock,
}

impl Queue {
    async fn push(&self, item: usize) {
        let tail = self.tail.get().await;
        self.elements[tail % self.elements.len()].set(item).await;
        self.tail.set(tail + 1).await;
    }

    async fn pop(&self) -> Option<usize> {
        let tail = self.tail.get().await;
        // Right would be to store tail - 1 first, and only then to look where the head is.
        if self.head.get().await >= tail {
            return None;
        }
        self.tail.set(tail - 1).await;
        Some(self.elements[(tail - 1) % self.elements.len()].get().await)
    }

    async fn steal(&self) -> Option<usize> {
        self.foreign.lock().await;
        let head = self.head.get().await;
        self.head.set(head + 1).await;
        let item = if head < self.tail.get().await {
            Some(self.elements[head % self.elements.len()].get().await)
        } else {
            self.head.set(head).await;
            None
        };
        self.foreign.unlock().await;
        item
    }
}

pub(super) fn spawn(world: &World) {
    let (head, tail, elements) = (world.cell(0), world.cell(0), world.cells(ITEMS, 0));
    let queue = Queue { head, tail, elements, foreign: world.lock() };
    let taken = world.cells(ITEMS, 0u32);
    let main = world.clone();
    let thief = {
        let (queue, taken) = (queue.clone(), taken.clone());
        async move {
            for _ in 0..STEALS {
                if let Some(item) = queue.steal().await {
                    taken[item].fetch_add(1).await;
                }
            }
        }
    };
    world.spawn("main", async move {
        let thief = main.create("thief", thief).await;
        for pair in 0..ITEMS / 2 {
            queue.push(2 * pair).await;
            queue.push(2 * pair + 1).await;
            if let Some(item) = queue.pop().await {
                taken[item].fetch_add(1).await;
            }
        }
        for _ in 0..ITEMS / 2 {
            if let Some(item) = queue.pop().await {
                taken[item].fetch_add(1).await;
            }
        }
        thief.join().await;
        main.check(taken.iter().all(|taken| taken.peek() <= 1), "an item was taken twice");
    });
}
