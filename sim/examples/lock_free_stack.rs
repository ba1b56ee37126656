//! A lock-free stack, and the ABA problem. `cargo run -p sim --example lock_free_stack`
//!
//! Goal: `pop` reads the head and its successor, then swaps the head for the successor. If the head was popped and pushed again in
//! between, the swap succeeds with a stale successor. A version beside the head mends it.

use sim::policy::Exhaustive;
use sim::shared::{Explored, Shared, World};

/// Index of the top node, and how often the head was changed.
type Head = (Option<usize>, u32);

#[derive(Clone)]
struct Stack {
    head: Shared<Head>,
    next: Vec<Shared<Option<usize>>>,
    versions: bool,
}

impl Stack {
    async fn pop(&self) -> Option<usize> {
        loop {
            let seen = self.head.get().await;
            let top = seen.0?;
            let below = self.next[top].get().await;
            if self.head.cas(seen, (below, self.version(seen))).await.is_ok() {
                return Some(top);
            }
        }
    }
    async fn push(&self, node: usize) {
        loop {
            let seen = self.head.get().await;
            self.next[node].set(seen.0).await;
            if self.head.cas(seen, (Some(node), self.version(seen))).await.is_ok() {
                return;
            }
        }
    }
    fn version(&self, seen: Head) -> u32 {
        seen.1 + u32::from(self.versions)
    }
}

fn explore(versions: bool) -> Explored {
    World::explore(&mut Exhaustive::new(), 1_000_000, 200, |world| {
        // 0 -> 1 -> 2
        let next = [Some(1), Some(2), None].map(|next| world.cell(next)).to_vec();
        let stack = Stack { head: world.cell((Some(0), 0)), next, versions };
        let owners = [(); 3].map(|_| world.cell(0u32));
        let (other, other_owners, check) = (stack.clone(), owners.clone(), world.clone());
        let own = move |node: usize, owners: &[Shared<u32>; 3]| {
            owners[node].poke(owners[node].peek() + 1);
            check.check(owners[node].peek() == 1, "a node has two owners");
        };
        let own_too = own.clone();
        world.spawn("popper", async move {
            for _ in 0..2 {
                if let Some(node) = stack.pop().await {
                    own(node, &owners);
                }
            }
        });
        world.spawn("recycler", async move {
            let (Some(first), Some(second)) = (other.pop().await, other.pop().await) else { return };
            own_too(second, &other_owners);
            other.push(first).await;
        });
    })
}

fn main() {
    println!("bare head:      {}", explore(false));
    println!("versioned head: {}", explore(true));
    assert!(explore(false).bugs > 0);
    assert!(explore(true).complete && explore(true).bugs == 0);
}
