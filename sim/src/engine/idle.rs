//! When a wait is endless.
//!
//! While every finite actor is blocked only daemons can end the wait, and they go on for ever: nothing the engine sees tells a wait that
//! is served slowly from one that nobody serves. A number of steps is no bound, since a policy may freeze the one daemon that serves for
//! as long as it likes. So the wait is measured in **rounds**, as asynchronous algorithms are: a round is over when every actor
//! that was enabled at its beginning has had a step or stopped being enabled. In each round a chain of daemons that serve one another
//! gets on by a step at least, whatever the policy does; a wait that outlasts [`ROUNDS_MAX`] rounds is endless. A policy that
//! freezes a daemon for good ends no round, and the run ends by the bound of its steps instead: that is no verdict.
//!
//! All this is looked at only while no finite actor is enabled.

use super::op::ActorId;

/// Rounds that a wait may take. A full ring of 256 invalidation descriptors, each with a few steps of the queue, stays below it; the
/// waits of clean updates, beside up to 8 devices, took 61 at most.
const ROUNDS_MAX: u32 = 2_000;

/// A set of actors, a bit for each.
type ActorSet = [u64; ActorId::LIMIT.div_ceil(64)];

/// How long no finite actor has been enabled, in rounds.
#[derive(Default)]
pub(super) struct Idle {
    /// Enabled since the round began, and without a step in it.
    owed: ActorSet,
    rounds: u32,
}

impl Idle {
    /// A finite actor is enabled, or another run begins.
    #[inline]
    pub(super) fn end(&mut self) {
        if self.rounds != 0 {
            *self = Idle::default();
        }
    }

    /// `id` had its step, or is enabled no more.
    #[inline]
    pub(super) fn settle(&mut self, id: ActorId) {
        self.owed[id.index() / 64] &= !(1 << (id.index() % 64));
    }

    /// Asked after each step of the wait, by `last`, with all that are `enabled`: true when the wait is endless.
    pub(super) fn is_endless(&mut self, last: Option<ActorId>, enabled: &[ActorId]) -> bool {
        if let Some(last) = last {
            self.settle(last);
        }
        if self.owed.iter().all(|owed| *owed == 0) {
            self.rounds += 1;
            for id in enabled {
                self.owed[id.index() / 64] |= 1 << (id.index() % 64);
            }
        }
        self.rounds > ROUNDS_MAX
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::{ActorId, Burst, Choice, Engine, Group, Life, Object, Op};
    use crate::policy::Policy;
    use std::rc::Rc;

    const DOORBELL: Object = Object(0x1000);
    const ANSWER: Object = Object(0x2000);

    /// Everybody in turn, except that the frozen one goes only before or after the freeze.
    struct Freeze {
        victim: ActorId,
        freeze: std::ops::Range<u64>,
    }

    impl Policy for Freeze {
        fn choose(&mut self, choice: Choice<'_>) -> u32 {
            let Choice::Schedule(enabled) = choice else { return 0 };
            let may_go = |id: &ActorId| *id != self.victim || !self.freeze.contains(&enabled.step);
            let nr = enabled.ids.iter().filter(|id| may_go(id)).count() as u64;
            let picked = enabled.ids.iter().filter(|id| may_go(id)).nth((enabled.step % nr) as usize);
            enabled.ids.iter().position(|id| Some(id) == picked).expect("somebody may go") as u32
        }

        fn name(&self) -> String {
            "freeze".to_owned()
        }
    }

    /// A caller that rings and waits, a queue that answers after `work` steps of its own, two devices that never rest.
    /// The queue is actor 1; it `dies` before it answers.
    fn run(freeze: std::ops::Range<u64>, work: u32, dies: bool) -> (Burst, u64) {
        let core = Rc::new(crate::engine::Core::new(Box::new(Freeze { victim: ActorId(1), freeze })));
        let mut engine = Engine::new(core.clone());
        let caller = core.clone();
        engine.spawn("caller", Group(0), Life::Finite, async move {
            caller.step(Op::begin()).await;
            caller.wake(DOORBELL);
            caller.block(ANSWER).await;
        });
        let queue = core.clone();
        engine.spawn("queue", Group(1), Life::Daemon, async move {
            queue.block(DOORBELL).await;
            for _ in 0..work {
                queue.step(Op::begin()).await;
            }
            if !dies {
                queue.wake(ANSWER);
            }
            queue.block(DOORBELL).await;
        });
        for name in ["device0", "device1"] {
            let device = core.clone();
            engine.spawn(name, Group(1), Life::Daemon, async move {
                loop {
                    device.step(Op::turn()).await;
                }
            });
        }
        let burst = engine.run(5_000_000);
        (burst, core.steps())
    }

    #[test]
    fn a_starved_daemon_does_not_make_a_deadlock() {
        let (burst, steps) = run(10..3_000_000, 100, false);
        assert_eq!(burst, Burst::Finished);
        assert!(steps > 3_000_000);
    }

    #[test]
    fn a_daemon_that_is_never_let_go_ends_in_the_bound_of_steps() {
        assert_eq!(run(10..u64::MAX, 100, false).0, Burst::Spent);
    }

    #[test]
    fn a_chain_as_long_as_a_full_ring_is_waited_for() {
        assert_eq!(run(0..0, 1_500, false).0, Burst::Finished);
    }

    #[test]
    fn an_endless_wait_is_found_and_soon() {
        for freeze in [0..0, 10..10_000] {
            let begun = freeze.end;
            let (burst, steps) = run(freeze, 100, true);
            assert_eq!(burst, Burst::Deadlock);
            assert!(steps < begun + 20_000, "{steps}");
        }
    }

    #[test]
    fn rounds_count_from_anew_after_each_wait() {
        let core = Rc::new(crate::engine::Core::new(Box::new(Freeze { victim: ActorId(9), freeze: 0..0 })));
        let mut engine = Engine::new(core.clone());
        let caller = core.clone();
        engine.spawn("caller", Group(0), Life::Finite, async move {
            for _ in 0..20 {
                caller.block(ANSWER).await;
                caller.step(Op::begin()).await;
            }
        });
        let server = core.clone();
        engine.spawn("server", Group(1), Life::Daemon, async move {
            loop {
                for _ in 0..1_500 {
                    server.step(Op::begin()).await;
                }
                server.wake(ANSWER);
            }
        });
        assert_eq!(engine.run(100_000), Burst::Finished);
    }
}
