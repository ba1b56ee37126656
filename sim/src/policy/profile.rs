//! What a policy may know about a scenario before a run: measured once, in a fixed profiling run.
//!
//! **A profile is part of the identity of a run.** PCT, URW, SURW and starvation schedule by it, so that the same seed with another
//! profile is another run. The caller must make it from a run that the token pins down completely (the same scenario under
//! [`PolicySpec::Uniform`](super::PolicySpec::Uniform) and a fixed seed), never from whatever ran before.
//!
//! [`Profiler::watch`] wraps the policy of a profiling run and counts; [`Profiler::finish`] makes the [`Profile`]. A few runs (16 are
//! plenty) see more than one: an actor that returned early in one of them has its steps from another.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::rff::{Before, Site};
use super::{Divergence, Policy};
use crate::engine::{ActorId, Choice, Object, Op, OpKind};

/// Numbers of steps per actor and per object: of several runs the largest. Yields ([`OpKind::Yield`]) are not counted except in `steps`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Steps of the whole run: the k of PCT. 0 is unknown.
    pub steps: u64,
    /// Steps per actor, indexed by [`ActorId::index`], without those of the actors it started.
    pub per_actor: Vec<u32>,
    /// Who started each actor, indexed by [`ActorId::index`]; `None` for those that were there from the start.
    pub parents: Vec<Option<ActorId>>,
    /// Objects that are worth interleaving, in ascending order: SURW draws one for each run.
    pub interesting: Vec<Interesting>,
    /// Fallible calls by class, in ascending order.
    pub fallible: Vec<Fallible>,
}

/// Fallible calls of one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallible {
    /// The class, as the workload numbers them.
    pub class: u16,
    /// How often it was called in the run that called it most.
    pub calls: u32,
}

/// One range of objects that at least two actors touch and at least one changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interesting {
    /// First object of the range.
    pub start: Object,
    /// First object after the range.
    pub end: Object,
    /// Steps per actor that touch the range, indexed by [`ActorId::index`].
    pub per_actor: Vec<u32>,
    /// From where the range is touched, in ascending order.
    pub sites: Vec<Site>,
    /// Which reads have found which writes (`None`: what was there at the start), in ascending order.
    pub pairs: Vec<(Site, Option<Site>)>,
}

impl Interesting {
    /// True when `op` touches the range.
    #[inline]
    pub fn touches(&self, op: &Op) -> bool {
        op.object() < self.end && self.start.0 < op.object().0.saturating_add(u64::from(op.bytes().max(1)))
    }
}

/// Most sites kept for one object; a loop over a table has many.
const SITES_MAX: usize = 64;

/// Most pairs of read and write kept for one object.
const PAIRS_MAX: usize = 1024;

/// Largest weight of one actor; keeps the sum over all actors below 2^32.
const WEIGHT_MAX: u32 = 1 << 24;

impl Profile {
    /// The counts of `per_actor` with those of all descendants added.
    pub(super) fn with_descendants(&self, per_actor: &[u32]) -> Vec<u32> {
        let mut sums: Vec<u32> = per_actor.iter().map(|&count| count.min(WEIGHT_MAX)).collect();
        // Children have higher numbers than their parents.
        for index in (0..sums.len()).rev() {
            if let Some(parent) = self.parents.get(index).copied().flatten().filter(|parent| parent.index() < index) {
                sums[parent.index()] = (sums[parent.index()] + sums[index]).min(WEIGHT_MAX);
            }
        }
        sums
    }
}

/// Counts the steps of profiling runs.
pub struct Profiler {
    counts: Rc<RefCell<Counts>>,
    most: Counts,
}

/// Steps of one run, or the most of several.
#[derive(Default)]
struct Counts {
    block_bytes: u64,
    steps: u64,
    per_actor: Vec<u32>,
    parents: Vec<Option<ActorId>>,
    last: Option<ActorId>,
    /// What each actor did last, indexed by [`ActorId::index`].
    before: Vec<Before>,
    /// By block of memory or exact object.
    objects: BTreeMap<u64, Block>,
    /// Fallible calls by class.
    fallible: BTreeMap<u16, u32>,
}

/// Who touched an object.
#[derive(Default)]
struct Block {
    written: bool,
    per_actor: Vec<u32>,
    sites: BTreeSet<Site>,
    pairs: BTreeSet<(Site, Option<Site>)>,
    last_write: Option<Site>,
}

impl Profiler {
    /// A profiler that has seen nothing. Memory is divided into aligned blocks of `block_bytes` (a power of two: 8 for words, 4096
    /// for pages), each of which is one candidate for [`Profile::interesting`]; objects outside memory stand for themselves.
    ///
    /// # Panics
    /// When `block_bytes` is not a power of two.
    pub fn new(block_bytes: u64) -> Profiler {
        assert!(block_bytes.is_power_of_two(), "blocks of {block_bytes} bytes");
        let counts = Counts { block_bytes, ..Counts::default() };
        Profiler { counts: Rc::new(RefCell::new(counts)), most: Counts::default() }
    }

    /// The policy for the next profiling run: answers like `inner`, and counts. Ends the counting of the run before.
    pub fn watch(&mut self, inner: Box<dyn Policy>) -> Box<dyn Policy> {
        self.end_run();
        Box::new(Watch { inner, counts: self.counts.clone() })
    }

    /// The profile of all runs watched.
    pub fn finish(mut self) -> Profile {
        self.end_run();
        let block_bytes = self.counts.borrow().block_bytes;
        let shared = |block: &Block| block.written && block.per_actor.iter().filter(|&&count| count > 0).count() > 1;
        let blocks = self.most.objects.into_iter().filter(|(_, block)| shared(block));
        let interesting = blocks.map(|(start, Block { per_actor, sites, pairs, .. })| {
            let bytes = if Object(start).is_memory() { block_bytes } else { 1 };
            let (sites, pairs) = (sites.into_iter().collect(), pairs.into_iter().collect());
            Interesting { start: Object(start), end: Object(start + bytes), per_actor, sites, pairs }
        });
        let interesting = interesting.collect();
        let fallible = self.most.fallible.into_iter().map(|(class, calls)| Fallible { class, calls }).collect();
        Profile { steps: self.most.steps, per_actor: self.most.per_actor, parents: self.most.parents, interesting, fallible }
    }

    fn end_run(&mut self) {
        let mut counts = self.counts.borrow_mut();
        let fresh = Counts { block_bytes: counts.block_bytes, ..Counts::default() };
        self.most.rise_to(std::mem::replace(&mut counts, fresh));
    }
}

impl Counts {
    /// Takes the larger of each pair of counts. The parents of the run that had more actors hold.
    fn rise_to(&mut self, run: Counts) {
        fn rise(most: &mut Vec<u32>, run: &[u32]) {
            most.resize(most.len().max(run.len()), 0);
            most.iter_mut().zip(run).for_each(|(most, &run)| *most = run.max(*most));
        }
        self.steps = self.steps.max(run.steps);
        rise(&mut self.per_actor, &run.per_actor);
        if run.parents.len() > self.parents.len() {
            self.parents = run.parents;
        }
        for (object, mut block) in run.objects {
            let most = self.objects.entry(object).or_default();
            most.written |= block.written;
            most.sites.append(&mut block.sites);
            most.pairs.append(&mut block.pairs);
            rise(&mut most.per_actor, &block.per_actor);
        }
        for (class, calls) in run.fallible {
            let most = self.fallible.entry(class).or_default();
            *most = calls.max(*most);
        }
    }

    /// Actors that show up after `last` performed a step were started by it.
    fn appear(&mut self, actor: ActorId) {
        while self.per_actor.len() <= actor.index() {
            self.per_actor.push(0);
            self.before.push(Before::default());
            self.parents.push(self.last);
        }
    }

    fn count(&mut self, actor: ActorId, op: Op) {
        self.appear(actor);
        self.steps += 1;
        self.last = Some(actor);
        let before = self.before[actor.index()];
        self.before[actor.index()] = before.then(op.kind());
        if op.is(OpKind::Yield) {
            return;
        }
        self.per_actor[actor.index()] += 1;
        if op.object() == Object::nothing() {
            return;
        }
        let start = if op.object().is_memory() { op.object().0 & !(self.block_bytes - 1) } else { op.object().0 };
        let end = if op.object().is_memory() { op.object().0.saturating_add(u64::from(op.bytes().max(1))) } else { start + 1 };
        for block in (start..end).step_by(self.block_bytes as usize) {
            let Block { written, per_actor, sites, pairs, last_write } = self.objects.entry(block).or_default();
            *written |= op.kind().writes();
            per_actor.resize(per_actor.len().max(actor.index() + 1), 0);
            let site = Site::new(op.kind(), per_actor[actor.index()], before);
            if sites.len() < SITES_MAX {
                sites.insert(site);
            }
            if site.reads() && pairs.len() < PAIRS_MAX {
                pairs.insert((site, *last_write));
            }
            if op.kind().writes() {
                *last_write = Some(site);
            }
            per_actor[actor.index()] += 1;
        }
    }
}

/// The policy of one profiling run.
struct Watch {
    inner: Box<dyn Policy>,
    counts: Rc<RefCell<Counts>>,
}

impl Policy for Watch {
    fn choose(&mut self, choice: Choice<'_>) -> u32 {
        match choice {
            Choice::Schedule(enabled) => {
                let mut counts = self.counts.borrow_mut();
                enabled.ids.iter().for_each(|&id| counts.appear(id));
            }
            Choice::Fault { class, .. } => *self.counts.borrow_mut().fallible.entry(class).or_default() += 1,
            Choice::Of { .. } | Choice::Odds { .. } => {}
        }
        self.inner.choose(choice)
    }

    fn performed(&mut self, actor: ActorId, op: Op) {
        self.counts.borrow_mut().count(actor, op);
        self.inner.performed(actor, op);
    }

    fn ordered(&mut self, before: ActorId, after: ActorId) {
        self.inner.ordered(before, after);
    }

    fn name(&self) -> String {
        self.inner.name()
    }

    fn divergence(&self) -> Option<Divergence> {
        self.inner.divergence()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{profile_of, programs};
    use super::super::{FaultPlan, PolicySpec};
    use super::*;

    #[test]
    fn a_profile_counts_steps_by_actor_and_by_shared_object() {
        let profile = profile_of(programs::lost_update);
        // Two actors: begin, read, write. Only the counter is shared.
        assert_eq!((profile.steps, &profile.per_actor[..]), (6, &[3, 3][..]));
        assert_eq!(profile.parents, [None, None]);
        let [counter] = &profile.interesting[..] else { panic!("{profile:?}") };
        assert_eq!(counter.per_actor, [2, 2]);
    }

    #[test]
    fn of_several_runs_the_most_steps_count() {
        // A checker that fails early makes fewer steps than one that reads all four times.
        let mut profiler = Profiler::new(8);
        let steps = (0..32).map(|seed| {
            let policy = PolicySpec::Uniform.build(seed, &Profile::default(), FaultPlan::Never);
            programs::reorder(profiler.watch(policy), 2, 1).steps
        });
        let steps: Vec<u64> = steps.collect();
        let profile = profiler.finish();
        assert!(steps.iter().min() < steps.iter().max());
        assert_eq!(Some(&profile.steps), steps.iter().max());
        assert_eq!(profile.per_actor[3], 5, "begin, and four reads");
    }

    #[test]
    fn started_actors_count_for_their_parents_too() {
        let profile = profile_of(|policy| programs::reorder(policy, 2, 1));
        let main = ActorId(0);
        assert_eq!(profile.parents, [None, Some(main), Some(main), Some(main)]);
        let sums = profile.with_descendants(&profile.per_actor);
        assert_eq!(sums[0], profile.per_actor.iter().sum::<u32>());
        assert_eq!(sums[1..], profile.per_actor[1..]);
    }

    #[test]
    fn a_range_is_touched_by_what_overlaps_it() {
        let range = Interesting { start: Object(0x1000), end: Object(0x1008), per_actor: vec![], ..Interesting::default() };
        let write = |address, bytes| Op::new(OpKind::Write, Object(address), bytes);
        assert!(range.touches(&write(0x1000, 8)) && range.touches(&write(0xffc, 8)) && range.touches(&write(0x1007, 0)));
        assert!(!range.touches(&write(0x1008, 8)) && !range.touches(&write(0xff8, 8)));
    }
}
