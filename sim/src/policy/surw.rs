//! URW and SURW: walks weighted by how much each actor has still to do.
//!
//! Source: Zhao, Wolff, Mathur, Roychoudhury, "Selectively uniform concurrency testing" (ASPLOS 2025). Both need the number of
//! steps of every actor from a [`Profile`], the steps of the actors it will start included.
//!
//! **URW** picks an actor with probability proportional to the steps it has left. Guarantee: with exact counts and no blocking, every
//! interleaving is equally likely.
//!
//! **SURW** does so only for *interesting* steps: it draws which actor shall make the next one, and holds back the others in front of
//! theirs; everything else goes by [`Pos`], which did better than fixed priorities and than a random walk on
//! [`programs`](crate::programs). Guarantee: every interleaving of the interesting steps is equally likely, however long the rest is.
//! What is interesting is drawn for each run: mostly the steps on one object of [`Profile::interesting`], as in the paper; in a quarter
//! of the runs all steps on locks, since who gets which of several locks is one matter and not several; in one of eight all steps.
//!
//! Beyond the paper: an actor whose count is used up keeps weight 1 (counts are estimates, daemons have no end); yields weigh nothing
//! while anything else is enabled; an actor that appears takes its share from its parent's weight; and a drawn actor that
//! cannot go on to the interesting object is given up once everybody else waits for it.

use super::per_actor::PerActor;
use super::pos::Pos;
use super::profile::{Interesting, Profile};
use super::scheduler::Scheduler;
use crate::engine::{ActorId, Enabled, Op, OpKind};
use crate::entropy::Entropy;

/// Steps left by actor, those of its unborn descendants included.
#[derive(Clone, Debug)]
struct Weights {
    left: PerActor<u32>,
    shares: Vec<u32>,
    parents: Vec<Option<ActorId>>,
    /// Actors with smaller numbers have appeared.
    nr_seen: usize,
}

impl Weights {
    fn new(profile: &Profile, per_actor: &[u32]) -> Weights {
        let shares = profile.with_descendants(per_actor);
        Weights { left: PerActor::from_slice(&shares), shares, parents: profile.parents.clone(), nr_seen: 0 }
    }

    /// Moves the share of an actor seen for the first time from its parent to itself. Calls `born` with the parent, the share
    /// and the parent's weight before.
    #[inline]
    fn appear(&mut self, enabled: Enabled<'_>, mut born: impl FnMut(ActorId, ActorId, u32, u32)) {
        let Some(highest) = enabled.ids.last() else { return };
        while self.nr_seen <= highest.index() {
            let index = self.nr_seen;
            self.nr_seen += 1;
            if let Some(parent) = self.parents.get(index).copied().flatten() {
                let share = self.shares.get(index).copied().unwrap_or(0);
                let before = self.left.get(parent);
                *self.left.at(parent) = before.saturating_sub(share);
                born(parent, ActorId(index as u8), share, before);
            }
        }
    }

    #[inline]
    fn performed(&mut self, actor: ActorId) {
        let left = self.left.at(actor);
        *left = left.saturating_sub(1);
    }
}

/// Draws an index with probability proportional to its weight; `None` when all weigh nothing.
#[inline]
fn draw(entropy: &mut Entropy, nr: usize, weight: impl Fn(usize) -> u32) -> Option<usize> {
    let total: u32 = (0..nr).map(&weight).sum();
    if total == 0 {
        return None;
    }
    let mut at = entropy.below(total);
    (0..nr).find(|&index| {
        let weight = weight(index);
        let here = at < weight;
        at = at.wrapping_sub(weight);
        here
    })
}

/// The uniform random walk over interleavings.
#[derive(Clone, Debug)]
pub struct Urw {
    entropy: Entropy,
    weights: Weights,
}

impl Urw {
    /// URW by the counts of `profile`.
    pub fn new(entropy: Entropy, profile: &Profile) -> Urw {
        Urw { entropy, weights: Weights::new(profile, &profile.per_actor) }
    }
}

impl Scheduler for Urw {
    fn pick(&mut self, enabled: Enabled<'_>) -> usize {
        self.weights.appear(enabled, |_, _, _, _| ());
        let left = &self.weights.left;
        let weight = |index: usize| {
            let id: ActorId = enabled.ids[index];
            if enabled.ops[id.index()].is(OpKind::Yield) { 0 } else { left.get(id).max(1) }
        };
        match draw(&mut self.entropy, enabled.ids.len(), weight) {
            Some(index) => index,
            None => self.entropy.below(enabled.ids.len() as u32) as usize,
        }
    }

    #[inline]
    fn performed(&mut self, actor: ActorId, op: Op) {
        if !op.is(OpKind::Yield) {
            self.weights.performed(actor);
        }
    }

    fn name(&self) -> String {
        "urw".to_owned()
    }
}

/// What SURW spreads evenly in one run.
#[derive(Clone, Debug)]
enum Interest {
    /// Steps on one object.
    One(Interesting),
    /// Taking and releasing of locks.
    Locks,
    /// Every step.
    All,
}

impl Interest {
    #[inline]
    fn includes(&self, op: &Op) -> bool {
        match self {
            Interest::One(range) => range.touches(op),
            Interest::Locks => op.is(OpKind::Lock) || op.is(OpKind::Unlock),
            Interest::All => !op.is(OpKind::Yield),
        }
    }
}

/// URW over the steps of interest, POS for the rest.
#[derive(Clone, Debug)]
pub struct Surw {
    interest: Interest,
    weights: Weights,
    /// Who shall touch the interesting object next.
    intended: Option<ActorId>,
    rest: Pos,
}

impl Surw {
    /// SURW over one interest that `profile` offers, drawn from `entropy`; `None` when it offers none.
    pub fn new(mut entropy: Entropy, profile: &Profile) -> Option<Surw> {
        let nr_objects = u32::try_from(profile.interesting.len()).ok().filter(|&nr| nr > 0)?;
        let is_lock = |range: &&Interesting| range.sites.iter().any(|site| site.kind() == OpKind::Lock);
        let nr_locks = profile.interesting.iter().filter(is_lock).count();
        let (interest, per_actor) = match entropy.below(8) {
            0 => (Interest::All, profile.per_actor.clone()),
            1..3 if nr_locks > 0 => {
                let mut sums = vec![0u32; profile.per_actor.len()];
                for range in profile.interesting.iter().filter(is_lock) {
                    sums.iter_mut().zip(&range.per_actor).for_each(|(sum, &count)| *sum = sum.saturating_add(count));
                }
                (Interest::Locks, sums)
            }
            _ => {
                let range = &profile.interesting[entropy.below(nr_objects) as usize];
                (Interest::One(range.clone()), range.per_actor.clone())
            }
        };
        Some(Surw::over(interest, &per_actor, profile, entropy))
    }

    /// SURW over `interest`, of which each actor makes `per_actor` steps.
    fn over(interest: Interest, per_actor: &[u32], profile: &Profile, entropy: Entropy) -> Surw {
        Surw { interest, weights: Weights::new(profile, per_actor), intended: None, rest: Pos::new(entropy) }
    }

    /// Draws the intended actor among the enabled ones by weight. An actor that stands before an interesting step weighs at least 1.
    fn intend(&mut self, enabled: Enabled<'_>) {
        let (left, interest) = (&self.weights.left, &self.interest);
        let drawn = draw(self.rest.entropy(), enabled.ids.len(), |index| {
            let id = enabled.ids[index];
            left.get(id).max(u32::from(interest.includes(&enabled.ops[id.index()])))
        });
        self.intended = drawn.map(|index| enabled.ids[index]);
    }

    /// Picks when everybody who is not pausing stands before an interesting step and the intended actor cannot come.
    #[cold]
    fn pick_held(&mut self, enabled: Enabled<'_>) -> usize {
        let left = &self.weights.left;
        let weight = |index: usize| {
            let id: ActorId = enabled.ids[index];
            if enabled.ops[id.index()].is(OpKind::Yield) { 0 } else { left.get(id).max(1) }
        };
        let nr = enabled.ids.len();
        let drawn = draw(self.rest.entropy(), nr, weight);
        let index = drawn.unwrap_or_else(|| self.rest.entropy().below(nr as u32) as usize);
        self.rest.redraw_racing(enabled, index);
        index
    }
}

impl Scheduler for Surw {
    fn pick(&mut self, enabled: Enabled<'_>) -> usize {
        let (entropy, intended) = (self.rest.entropy(), &mut self.intended);
        self.weights.appear(enabled, |parent, child, share, before| {
            if *intended == Some(parent) && before > 0 && entropy.below(before) < share {
                *intended = Some(child);
            }
        });
        if self.intended.is_none() {
            self.intend(enabled);
        }
        let (intended, interest) = (self.intended, &self.interest);
        let free = |id, op: &Op| !op.is(OpKind::Yield) && (intended == Some(id) || !interest.includes(op));
        self.rest.pick_among(enabled, free).unwrap_or_else(|| self.pick_held(enabled))
    }

    #[inline]
    fn performed(&mut self, actor: ActorId, op: Op) {
        self.rest.performed(actor, op);
        if self.interest.includes(&op) {
            self.weights.performed(actor);
            self.intended = None;
        }
    }

    fn name(&self) -> String {
        "surw".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::rc::Rc;

    use super::super::drawn::Drawn;
    use super::super::testing::{profile_of, programs, seeds};
    use super::super::{FaultPlan, Policy, PolicySpec};
    use super::*;
    use crate::engine::Burst;
    use crate::entropy::Stream;
    use crate::shared::World;

    #[test]
    fn urw_reaches_every_interleaving_equally_often() {
        // Actors of 1+1 and 1+2 steps: 5! / (2! 3!) interleavings.
        let program = |policy| programs::uneven(policy, &[1, 2]);
        let profile = profile_of(program);
        let mut hits: BTreeMap<Vec<u32>, u32> = BTreeMap::new();
        for seed in 0..10_000 {
            let record = program(PolicySpec::Urw.build(seed, &profile, FaultPlan::Never)).record;
            *hits.entry(record.iter().map(|choice| choice.value()).collect()).or_default() += 1;
        }
        assert_eq!(hits.len(), 10, "{hits:?}");
        assert!(hits.values().all(|&n| (850..1150).contains(&n)), "{hits:?}");
    }

    #[test]
    fn surw_reaches_every_order_of_the_interesting_steps_equally_often_however_long_the_rest_is() {
        // Two writes each to one cell, amid 40 steps of one's own and none: 4! / (2! 2!) orders.
        let program = |policy: Box<dyn Policy>| {
            let world = World::new(policy);
            let (cell, own) = (world.cell(0u32), world.cell(0u32));
            let order = Rc::new(RefCell::new(Vec::new()));
            for (me, padding) in [(0u32, 40), (1, 0)] {
                let (cell, own, order) = (cell.clone(), own.clone(), order.clone());
                world.spawn("writer", async move {
                    for _ in 0..2 {
                        for step in 0..padding {
                            own.set(step).await;
                        }
                        cell.set(me).await;
                        order.borrow_mut().push(me);
                    }
                });
            }
            let outcome = world.run(1000);
            (outcome, order.take())
        };
        let profile = profile_of(|policy| program(policy).0);
        let [cell] = &profile.interesting[..] else { panic!("{profile:?}") };
        let mut hits: BTreeMap<Vec<u32>, u32> = BTreeMap::new();
        for seed in 0..6000 {
            let surw = Surw::over(Interest::One(cell.clone()), &cell.per_actor, &profile, Entropy::new(seed, Stream::Schedule));
            let (_, order) = program(Box::new(Drawn::new(surw, seed, FaultPlan::Never)));
            *hits.entry(order).or_default() += 1;
        }
        assert_eq!(hits.len(), 6, "{hits:?}");
        assert!(hits.values().all(|&n| (880..1120).contains(&n)), "{hits:?}");
    }

    #[test]
    fn surw_catches_the_reordered_setters_in_a_few_runs_however_many_there_are() {
        for setters in [2, 4, 9, 19] {
            let program = |policy| programs::reorder(policy, setters, 1);
            let found = seeds(&PolicySpec::Surw, &profile_of(program), 1000, program);
            assert!(found >= 10, "{setters} setters: {found} of 1000");
        }
    }

    #[test]
    fn surw_without_an_interesting_object_is_still_a_walk() {
        let outcome = programs::lost_update(PolicySpec::Surw.build(1, &Profile::default(), FaultPlan::Never));
        assert_eq!(outcome.burst, Burst::Finished);
    }

    #[test]
    fn actors_started_later_and_daemons_are_served() {
        let profile = profile_of(programs::beside_yielding_daemons);
        for spec in [PolicySpec::Urw, PolicySpec::Surw] {
            for seed in 0..100 {
                let outcome = programs::beside_yielding_daemons(spec.build(seed, &profile, FaultPlan::Never));
                assert_eq!(outcome.burst, Burst::Finished);
                assert!(outcome.steps < 100, "{spec} {}", outcome.steps);
            }
        }
    }

    #[test]
    fn an_intended_actor_that_waits_for_a_lock_does_not_stop_the_run() {
        let profile = profile_of(programs::locked_counter);
        for seed in 0..300 {
            let outcome = programs::locked_counter(PolicySpec::Surw.build(seed, &profile, FaultPlan::Never));
            assert_eq!((outcome.burst, outcome.failure), (Burst::Finished, None));
        }
    }
}
