//! Timed: the earliest event next. What would happen on a machine whose steps take about as long as we think they do.
//!
//! Source: discrete-event simulation (Lamport, "Time, clocks, and the ordering of events in a distributed system", CACM 1978, for what
//! a local time may and may not order). Every actor has a local time; its next step ends one cost later; who ends first goes. A
//! woken or started actor is at least as late as who woke or started it. Needs nothing beforehand. Guarantee: steps come in
//! the order of their times, and no actor waits while it could go: a bug that needs somebody to stall for longer than costs and
//! their jitter explain is *not* found. That is its use: it tells likely orders from remote ones. To find bugs take any other.
//!
//! Costs are in cycles of a 3 GHz core by kind of step, orders of magnitude and no measurements; each is stretched by a factor from 1/2
//! to 2, drawn anew for every step. Caches, contention and interrupts are not modelled.

use super::per_actor::PerActor;
use super::scheduler::Scheduler;
use crate::engine::{ActorId, Enabled, Op, OpKind};
use crate::entropy::Entropy;

/// The timed scheduler.
#[derive(Clone, Debug)]
pub struct Timed {
    entropy: Entropy,
    /// When each actor's announced operation ends, in units of 1/1024 cycle; 0 is not yet drawn.
    due: PerActor<u64>,
    /// When each actor was last known to do something.
    local: PerActor<u64>,
    now: u64,
}

/// About how many cycles a step takes.
const fn cycles(kind: OpKind) -> u64 {
    match kind {
        OpKind::Read | OpKind::Write => 4,
        OpKind::Rmw | OpKind::Lock | OpKind::Unlock => 20,
        OpKind::Yield => 40,
        OpKind::Alloc | OpKind::Free => 120,
        OpKind::Fetch => 100,
        OpKind::DmaRead | OpKind::DmaWrite | OpKind::Turn => 200,
        OpKind::Register => 400,
        // A thread or a call starts: the longest of all, so that actors do not start in step.
        OpKind::Begin => 1000,
    }
}

/// Cycles in a microsecond.
const CLOCK_MHZ: u64 = 3000;

/// Times are in units of this part of a cycle.
const UNIT: u64 = 1024;

impl Timed {
    /// Time at 0; jitter from `entropy`.
    pub fn new(entropy: Entropy) -> Timed {
        Timed { entropy, due: PerActor::default(), local: PerActor::default(), now: 0 }
    }

    /// About how long a step of this kind takes, in picoseconds, without jitter.
    pub const fn picoseconds(kind: OpKind) -> u64 {
        cycles(kind) * 1_000_000 / CLOCK_MHZ
    }

    /// When the announced operation of `actor` ends.
    #[inline]
    fn due(&mut self, actor: ActorId, op: &Op) -> u64 {
        let due = self.due.get(actor);
        if due != 0 {
            return due;
        }
        // From a half to twice: 512 to 2047 parts of 1024.
        let stretched = cycles(op.kind()) * u64::from(512 + self.entropy.below(1536)) * UNIT / 1024;
        // Who has never gone was started by the last step, or is there from the start.
        let from = if self.local.get(actor) == 0 { self.now } else { self.local.get(actor) };
        let due = from + stretched;
        *self.due.at(actor) = due;
        due
    }
}

impl Scheduler for Timed {
    fn pick(&mut self, enabled: Enabled<'_>) -> usize {
        let (mut best, mut best_due) = (0, u64::MAX);
        for (index, &id) in enabled.ids.iter().enumerate() {
            let due = self.due(id, &enabled.ops[id.index()]);
            if due < best_due {
                (best, best_due) = (index, due);
            }
        }
        best
    }

    fn performed(&mut self, actor: ActorId, op: Op) {
        self.now = self.due(actor, &op).max(self.now);
        *self.local.at(actor) = self.now;
        *self.due.at(actor) = 0;
    }

    fn ordered(&mut self, before: ActorId, after: ActorId) {
        let local = self.local.get(after).max(self.local.get(before));
        *self.local.at(after) = local;
    }

    fn name(&self) -> String {
        "timed".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{profile_of, programs, seeds};
    use super::super::{FaultPlan, PolicySpec, Profile};
    use super::*;
    use crate::engine::{Burst, Object};
    use crate::entropy::Stream;
    use crate::shared::World;

    #[test]
    fn steps_come_in_the_order_of_their_times() {
        let ops = [OpKind::Read, OpKind::Lock, OpKind::Register, OpKind::Alloc].map(|kind| Op::new(kind, Object(64), 8));
        let ids = [ActorId(0), ActorId(1), ActorId(2), ActorId(3)];
        for seed in 0..50 {
            let mut timed = Timed::new(Entropy::new(seed, Stream::Schedule));
            let mut turns = [0u32; 4];
            let mut before = 0;
            for step in 0..2000 {
                let index = timed.pick(Enabled { ids: &ids, others: &ids, ops: &ops, last: None, step, version: 0 });
                timed.performed(ids[index], ops[index]);
                assert!(timed.now >= before);
                before = timed.now;
                turns[index] += 1;
            }
            // A read takes a fifth of a lock and a hundredth of a register access.
            assert!((3..8).contains(&(turns[0] / turns[1])), "{turns:?}");
            assert!((60..160).contains(&(turns[0] / turns[2].max(1))), "{turns:?}");
        }
    }

    #[test]
    fn what_needs_a_stall_that_no_jitter_explains_is_not_found() {
        // The reader's one step must come after a thousand steps of the writer: more than its start can be late.
        let program = |policy| programs::late_reader(policy, 1000);
        assert_eq!(seeds(&PolicySpec::Timed, &Profile::default(), 500, program), 0);
        assert!(seeds(&PolicySpec::Starve, &profile_of(program), 500, program) > 0);
    }

    #[test]
    fn what_happens_within_the_jitter_is_found() {
        assert!(seeds(&PolicySpec::Timed, &Profile::default(), 2000, programs::lost_update) > 0);
    }

    #[test]
    fn who_is_woken_is_not_earlier_than_who_woke_it() {
        // main waits for a child that takes long, and then accesses a register. Were its time still that of before the wait, the access
        // would be long done; as it is, the bystander reads a few dozen times meanwhile.
        for seed in 0..50 {
            let world = World::new(PolicySpec::Timed.build(seed, &Profile::default(), FaultPlan::Never));
            let (cell, progress) = (world.cell(0u32), world.cell(0u32));
            let (main, counted, read) = (world.clone(), cell.clone(), progress.clone());
            world.spawn("main", async move {
                let child = async move {
                    for _ in 0..100 {
                        counted.fetch_add(1).await;
                    }
                };
                main.create("child", child).await.join().await;
                let before = read.peek();
                main.core().step(Op::new(OpKind::Register, Object::register(0), 8)).await;
                main.check((20..400).contains(&(read.peek() - before)), "the access did not take its time");
            });
            let own = world.cell(0u32);
            world.spawn("bystander", async move {
                for _ in 0..3000 {
                    own.get().await;
                    progress.poke(progress.peek() + 1);
                }
            });
            let outcome = world.run(10_000);
            assert_eq!((outcome.burst, outcome.failure), (Burst::Finished, None));
        }
    }

    #[test]
    fn spinning_waiters_and_daemons_take_turns() {
        for seed in 0..100 {
            let build = || PolicySpec::Timed.build(seed, &Profile::default(), FaultPlan::Never);
            assert_eq!(programs::spinning_hand_over(build()).burst, Burst::Finished);
            assert_eq!(programs::beside_yielding_daemons(build()).burst, Burst::Finished);
        }
    }
}
