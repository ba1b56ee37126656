//! RFF: schedules with demands on who reads from whom.
//!
//! Source: Wolff, Shi, Duck, Mathur, Roychoudhury, "Greybox fuzzing for concurrency testing" (ASPLOS 2024). An *abstract schedule* is
//! a few constraints, each about one shared object: the access at one [`Site`] reads what the write at another site wrote (or finds the
//! object as it was at the start), or does not. A run steers towards them: an access that would break one waits as long as
//! anything else can go on, and so does a write that would destroy what the reader shall find. Everything else goes by [`Pos`].
//! Sites name no threads, so that a constraint is as easy to meet among a hundred threads as among three: the one published
//! method whose cost does not grow with their number.
//!
//! Two ways to find constraints. [`Rff`] draws them from the [`Profile`] of the scenario: nothing is learnt, and a seed alone makes
//! the run. [`Feedback`](super::Feedback) keeps what has shown new pairs of write and read, as the paper does; its runs repeat by
//! their recorded choices. Needs announcements only. Guarantee: none beyond that of POS, in the share of runs whose
//! constraints no program can meet; constraints hold actors back, they never stop a run.
//!
//! Other than in the paper a site is no place in the source, which announcements do not tell. What stands for it is what the actor does,
//! what it did in the two steps before, and how often it has touched the object, coarsely from 4 on.

use smallvec::SmallVec;

use super::per_actor::PerActor;
use super::pos::Pos;
use super::profile::{Interesting, Profile};
use super::scheduler::Scheduler;
use crate::engine::{ActorId, Enabled, Object, Op, OpKind};
use crate::entropy::Entropy;

/// What stands for a place in a program, in terms of what an actor does; the same for all actors that do the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Site {
    /// Number of the kind in [`OpKind::ALL`].
    kind: u8,
    /// Accesses to the object before, coarsely: 0 to 3, then 4 for up to 7 and 5 for more.
    nth: u8,
    before: Before,
}

/// The kinds of an actor's last two steps, four bits each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Before(u8);

impl Before {
    /// The same one step later.
    #[inline]
    pub fn then(self, kind: OpKind) -> Before {
        Before(self.0 << 4 | kind as u8)
    }
}

impl Site {
    /// The site of an access of `kind` after the steps `before` and `nr_before` other accesses of the same actor to the same object.
    #[inline]
    pub fn new(kind: OpKind, nr_before: u32, before: Before) -> Site {
        let nth = match nr_before {
            0..4 => nr_before as u8,
            4..8 => 4,
            _ => 5,
        };
        Site { kind: kind as u8, nth, before }
    }

    /// The kind of access.
    pub fn kind(self) -> OpKind {
        OpKind::ALL[usize::from(self.kind)]
    }

    /// True when the access finds out what was written before.
    pub fn reads(self) -> bool {
        use OpKind::*;
        !matches!(self.kind(), Write | Unlock | Free | DmaWrite | Yield | Turn | Begin)
    }
}

/// A demand on one object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Constraint {
    /// First object of the range it is about.
    pub start: Object,
    /// First object after the range.
    pub end: Object,
    /// Who reads.
    pub read: Site,
    /// Whose write is read; `None` is what was there at the start.
    pub from: Option<Site>,
    /// False when that is what shall not happen.
    pub holds: bool,
}

impl Constraint {
    /// A constraint on `range`: a pair of read and write that the profile has not seen, if a few draws find one; else any pair, to be
    /// or not to be. `None` when nobody reads there.
    pub(super) fn draw(entropy: &mut Entropy, range: &Interesting) -> Option<Constraint> {
        fn one(entropy: &mut Entropy, nr: usize) -> Option<usize> {
            (nr > 0).then(|| entropy.below(nr as u32) as usize)
        }
        let nr_reads = range.sites.iter().filter(|site| site.reads()).count();
        let nr_writes = range.sites.iter().filter(|site| site.kind().writes()).count();
        let mut draw = || {
            let nth_read = one(entropy, nr_reads)?;
            let nth_write = one(entropy, nr_writes + 1)?;
            let read = range.sites.iter().filter(|site| site.reads()).nth(nth_read)?;
            Some((*read, range.sites.iter().filter(|site| site.kind().writes()).nth(nth_write).copied()))
        };
        let mut pair = draw()?;
        let mut unseen = range.pairs.binary_search(&pair).is_err();
        for _ in 0..DRAWS_MAX {
            if !unseen {
                pair = draw()?;
                unseen = range.pairs.binary_search(&pair).is_err();
            }
        }
        let (read, from) = pair;
        Some(Constraint { start: range.start, end: range.end, read, from, holds: unseen || entropy.one_in(2) })
    }

    #[inline]
    fn touches(&self, op: &Op) -> bool {
        op.object() < self.end && self.start.0 < op.object().0.saturating_add(u64::from(op.bytes().max(1)))
    }
}

/// A constraint at work.
#[derive(Clone, Debug)]
struct Monitor {
    constraint: Constraint,
    /// The write that a read would find now.
    last_write: Option<Site>,
    /// Accesses to the range, by actor.
    nr_accesses: PerActor<u32>,
    met: bool,
}

impl Monitor {
    #[inline]
    fn site(&self, actor: ActorId, op: &Op, before: Before) -> Site {
        Site::new(op.kind(), self.nr_accesses.get(actor), before)
    }

    /// True when the constraint is better served if `op` waits.
    #[inline]
    fn delays(&self, actor: ActorId, op: &Op, before: Before) -> bool {
        if !self.constraint.touches(op) {
            return false;
        }
        let site = self.site(actor, op, before);
        let as_named = self.last_write == self.constraint.from;
        if site == self.constraint.read {
            return as_named != self.constraint.holds;
        }
        // What the reader shall find must stay until it has come.
        self.constraint.holds && as_named && op.kind().writes() && Some(site) != self.constraint.from
    }

    #[inline]
    fn performed(&mut self, actor: ActorId, op: &Op, before: Before) {
        if !self.constraint.touches(op) {
            return;
        }
        let site = self.site(actor, op, before);
        if site == self.constraint.read && (self.last_write == self.constraint.from) == self.constraint.holds {
            self.met = true;
        }
        if op.kind().writes() {
            self.last_write = Some(site);
        }
        *self.nr_accesses.at(actor) += 1;
    }
}

/// The scheduler that steers towards constraints.
#[derive(Clone, Debug)]
pub struct Rff {
    monitors: SmallVec<[Monitor; 2]>,
    before: PerActor<Before>,
    /// Picks that may still hold somebody back. A waiter may spin until what is held back happens: nobody waits longer than for the
    /// length of a usual run.
    patience: u64,
    rest: Pos,
}

/// Most constraints that [`Rff::new`] draws for a run.
const CONSTRAINTS_MAX: u32 = 3;

/// How often a pair that the profile has seen is drawn anew.
const DRAWS_MAX: u32 = 3;

/// Shortest patience.
const PATIENCE_MIN: u64 = 256;

impl Rff {
    /// One to three constraints drawn from `entropy` among what `profile` has seen; none when it has seen nothing shared.
    pub fn new(mut entropy: Entropy, profile: &Profile) -> Rff {
        let mut constraints = SmallVec::<[Constraint; 4]>::new();
        if let Some(nr_ranges) = u32::try_from(profile.interesting.len()).ok().filter(|&nr| nr > 0) {
            let nr_wanted = 1 + entropy.below(CONSTRAINTS_MAX);
            for _ in 0..nr_wanted {
                let range = &profile.interesting[entropy.below(nr_ranges) as usize];
                constraints.extend(Constraint::draw(&mut entropy, range));
            }
        }
        Rff::with(entropy, &constraints, profile.steps)
    }

    /// The given constraints, over POS that draws from `entropy`, in runs of about `steps` steps; 0 is unknown.
    pub fn with(entropy: Entropy, constraints: &[Constraint], steps: u64) -> Rff {
        let monitor = |&constraint| Monitor { constraint, last_write: None, nr_accesses: PerActor::default(), met: false };
        Rff {
            monitors: constraints.iter().map(monitor).collect(),
            before: PerActor::default(),
            patience: steps.max(PATIENCE_MIN),
            rest: Pos::new(entropy),
        }
    }
}

impl Scheduler for Rff {
    #[inline]
    fn pick(&mut self, enabled: Enabled<'_>) -> usize {
        let (monitors, before) = (&self.monitors, &self.before);
        if self.patience == 0 {
            return self.rest.pick(enabled);
        }
        let mut held_back = false;
        let free = |id, op: &Op| {
            let delayed = monitors.iter().any(|monitor| monitor.delays(id, op, before.get(id)));
            held_back |= delayed;
            !delayed && !op.is(OpKind::Yield)
        };
        let picked = self.rest.pick_among(enabled, free);
        self.patience -= u64::from(held_back);
        // Rather a constraint is broken than that somebody spins for ever.
        let picked = picked.or_else(|| self.rest.pick_among(enabled, |_, op| !op.is(OpKind::Yield)));
        picked.unwrap_or_else(|| self.rest.pick(enabled))
    }

    #[inline]
    fn performed(&mut self, actor: ActorId, op: Op) {
        self.rest.performed(actor, op);
        let before = self.before.at(actor);
        // A constraint that has been met steers nothing any more.
        self.monitors.retain(|monitor| {
            monitor.performed(actor, &op, *before);
            !monitor.met
        });
        *before = before.then(op.kind());
    }

    fn name(&self) -> String {
        "rff".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::drawn::Drawn;
    use super::super::testing::{profile_of, programs, seeds};
    use super::super::{FaultPlan, PolicySpec};
    use super::*;
    use crate::engine::Burst;
    use crate::entropy::Stream;
    use crate::shared::World;

    #[test]
    fn the_right_constraint_shows_the_reordered_setters_nearly_always() {
        // The checker's first look at b must find it untouched; who looks at b at all has found a written.
        let program = |policy| programs::reorder(policy, 30, 1);
        let profile = profile_of(program);
        let b = &profile.interesting[1];
        let read = Site::new(OpKind::Read, 0, Before::default().then(OpKind::Read).then(OpKind::Read));
        let constraint = Constraint { start: b.start, end: b.end, read, from: None, holds: true };
        let found = (0..200).filter(|&seed| {
            let rff = Rff::with(Entropy::new(seed, Stream::Schedule), &[constraint], profile.steps);
            program(Box::new(Drawn::new(rff, seed, FaultPlan::Never))).is_bug()
        });
        assert!(found.count() > 150);
    }

    #[test]
    fn drawn_constraints_find_the_reordered_setters_in_a_few_runs_however_many_there_are() {
        for setters in [2, 9, 40] {
            let program = |policy| programs::reorder(policy, setters, 1);
            let found = seeds(&PolicySpec::Rff, &profile_of(program), 400, program);
            assert!(found >= 20, "{setters} setters: {found} of 400");
        }
    }

    #[test]
    fn constraints_that_cannot_be_met_stop_no_run() {
        let programs = [programs::locked_counter, programs::spinning_hand_over, programs::beside_yielding_daemons];
        for (nth, program) in programs.into_iter().enumerate() {
            let profile = profile_of(program);
            for seed in 0..300 {
                let outcome = program(PolicySpec::Rff.build(seed, &profile, FaultPlan::Never));
                assert_eq!((outcome.burst, outcome.failure), (Burst::Finished, None), "program {nth}, seed {seed}");
            }
        }
    }

    #[test]
    fn patience_with_a_constraint_ends() {
        // The flag must stay as it is until somebody swaps it, which nobody does, while somebody spins for it to change.
        let read = Site::new(OpKind::Rmw, 0, Before::default());
        for seed in 0..50 {
            let constraint = Constraint { start: Object(0x1000), end: Object(0x1008), read, from: None, holds: true };
            let rff = Rff::with(Entropy::new(seed, Stream::Schedule), &[constraint], 100);
            let world = World::new(Box::new(Drawn::new(rff, seed, FaultPlan::Never)));
            let flag = world.cell(false);
            assert_eq!(flag.object(), Object(0x1000));
            let waited_for = flag.clone();
            world.spawn("waiter", async move { while !waited_for.get().await {} });
            world.spawn("setter", async move { flag.set(true).await });
            let outcome = world.run(10_000);
            assert_eq!(outcome.burst, Burst::Finished);
            assert!(outcome.steps > 200, "the setter was held back first");
        }
    }

    #[test]
    fn a_site_counts_exactly_to_three_and_coarsely_beyond() {
        let nths: Vec<u8> = (0..12).map(|nr| Site::new(OpKind::Read, nr, Before::default()).nth).collect();
        assert_eq!(nths, [0, 1, 2, 3, 4, 4, 4, 4, 5, 5, 5, 5]);
        assert!(Site::new(OpKind::Lock, 0, Before::default()).reads() && !Site::new(OpKind::Unlock, 0, Before::default()).reads());
    }
}
