//! POS: partial order sampling. Every announced operation has a random priority; what races with the one performed draws anew.
//!
//! Source: Yuan, Yang, Gu, "Partial order aware concurrency sampling" (CAV 2018). Needs the announced operation of every enabled
//! actor and the race relation, which is [`Op::conflicts`]. Guarantee: every partial order has a chance, which the paper bounds from
//! below by a term that falls with the number of races, not with the number of events; so it beats the random walk most where few
//! of many events race.
//!
//! A priority is drawn when an operation is announced, and again for every announced operation that conflicts with the one
//! performed. [`OpKind::Yield`] always draws below everything else, and anew whenever somebody else has paused: of two spinning
//! waiters the one that drew badly would else wait for ever longer.

use super::per_actor::PerActor;
use super::scheduler::Scheduler;
use crate::engine::{ActorId, Enabled, Op, OpKind};
use crate::entropy::Entropy;

/// The POS scheduler.
#[derive(Clone, Debug)]
pub struct Pos {
    entropy: Entropy,
    /// Priority of each actor's announced operation, higher first; 0 is not yet drawn.
    priorities: PerActor<u32>,
}

impl Pos {
    /// POS that draws from `entropy`.
    pub fn new(entropy: Entropy) -> Pos {
        Pos { entropy, priorities: PerActor::default() }
    }
}

impl Pos {
    /// The enabled actor of highest priority among those that are `free` to go, if any.
    #[inline]
    pub(super) fn pick_among(&mut self, enabled: Enabled<'_>, mut free: impl FnMut(ActorId, &Op) -> bool) -> Option<usize> {
        let (mut best, mut best_priority) = (None, 0);
        for (index, &id) in enabled.ids.iter().enumerate() {
            let op = &enabled.ops[id.index()];
            if !free(id, op) {
                continue;
            }
            let priority = self.priorities.at(id);
            if *priority == 0 {
                let draw = self.entropy.u32();
                *priority = if op.is(OpKind::Yield) { draw >> 1 | 1 } else { draw | 1 << 31 };
            }
            if *priority > best_priority {
                (best, best_priority) = (Some(index), *priority);
            }
        }
        if let Some(index) = best {
            self.redraw_racing(enabled, index);
        }
        best
    }

    /// Lets every announced operation draw anew that conflicts with the one picked.
    #[inline]
    pub(super) fn redraw_racing(&mut self, enabled: Enabled<'_>, picked: usize) {
        let picked = enabled.ops[enabled.ids[picked].index()];
        let pauses = picked.is(OpKind::Yield);
        for &id in enabled.ids {
            let op = &enabled.ops[id.index()];
            if picked.conflicts(op) || pauses && op.is(OpKind::Yield) {
                *self.priorities.at(id) = 0;
            }
        }
    }

    /// The stream, for a policy built on this one.
    #[inline]
    pub(super) fn entropy(&mut self) -> &mut Entropy {
        &mut self.entropy
    }
}

impl Scheduler for Pos {
    #[inline]
    fn pick(&mut self, enabled: Enabled<'_>) -> usize {
        self.pick_among(enabled, |_, _| true).expect("at least one actor is enabled")
    }

    #[inline]
    fn performed(&mut self, actor: ActorId, _: Op) {
        *self.priorities.at(actor) = 0;
    }

    fn name(&self) -> String {
        "pos".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{programs, seeds};
    use super::super::{FaultPlan, PolicySpec, Profile};
    use crate::engine::Burst;

    #[test]
    fn the_reordered_setters_are_caught() {
        let found = seeds(&PolicySpec::Pos, &Profile::default(), 2000, |policy| programs::reorder(policy, 2, 1));
        assert!(found > 5, "{found} of 2000");
    }

    #[test]
    fn a_lost_update_is_found_within_a_few_seeds() {
        assert!(seeds(&PolicySpec::Pos, &Profile::default(), 100, programs::lost_update) > 10);
    }

    #[test]
    fn a_daemon_that_only_yields_starves_nobody() {
        for seed in 0..100 {
            let outcome = programs::beside_yielding_daemons(PolicySpec::Pos.build(seed, &Profile::default(), FaultPlan::Never));
            assert_eq!(outcome.burst, Burst::Finished);
            assert!(outcome.steps < 100, "{}", outcome.steps);
        }
    }

    #[test]
    fn two_spinning_waiters_take_turns() {
        for seed in 0..300 {
            let outcome = programs::spinning_hand_over(PolicySpec::Pos.build(seed, &Profile::default(), FaultPlan::Never));
            assert_eq!(outcome.burst, Burst::Finished);
            assert!(outcome.steps < 1000, "{}", outcome.steps);
        }
    }

    #[test]
    fn independent_actors_keep_their_order_of_priority_between_races() {
        // One event each, no conflicts: the orders are as many as permutations and all of them occur.
        let mut orders: Vec<_> = (0..400)
            .map(|seed| programs::independent(PolicySpec::Pos.build(seed, &Profile::default(), FaultPlan::Never), 3, 1).record)
            .collect();
        orders.sort_by_key(|record| record.iter().map(|choice| choice.value()).collect::<Vec<_>>());
        orders.dedup();
        assert!(orders.len() >= 6, "{}", orders.len());
    }
}
