//! What runs have shown of who reads from whom, and what to demand of the next one.
//!
//! Source: Wolff, Shi, Duck, Mathur, Roychoudhury, "Greybox fuzzing for concurrency testing" (ASPLOS 2024); the scheduler that carries out
//! the demands is [`Rff`]. A pair of a write and the read that found it, by [`Site`], is what coverage is made of. The constraints of
//! a run that showed a new pair are kept and built upon; the next demand is first of all one for a pair that nobody has seen
//! yet, between sites that have been seen, the least tried first.
//!
//! All state is in the [`Feedback`] that the caller keeps; the same seeds in the same order make the same runs. A single run is not made
//! anew by its seed: it repeats by its recorded choices, or by the constraints that [`Feedback::constraints`] tells. Where a seed
//! alone must be enough, [`PolicySpec::Rff`](super::PolicySpec::Rff) draws constraints from a profile instead.
//!
//! Objects are told apart by the address an operation begins at.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::drawn::Drawn;
use super::fault::FaultPlan;
use super::rff::{Before, Constraint, Rff, Site};
use super::{Divergence, Policy};
use crate::engine::{ActorId, Choice, Object, Op};
use crate::entropy::{Entropy, Stream};

/// A read, and the write it found; `None` is what was there at the start.
type Pair = (Object, Site, Option<Site>);

/// Most constraints of a run.
const CONSTRAINTS_MAX: usize = 4;

/// Most constraint sets kept; the oldest go first.
const CORPUS_MAX: usize = 1024;

/// Most objects that are learnt about.
const OBJECTS_MAX: usize = 1 << 16;

/// What a search by reads-from feedback has learnt.
#[derive(Default)]
pub struct Feedback {
    observed: Rc<RefCell<Observed>>,
    /// Pairs seen.
    seen: BTreeSet<Pair>,
    objects: BTreeMap<Object, Known>,
    /// How often each pair was demanded.
    tries: BTreeMap<Pair, u32>,
    /// Constraints of runs that showed something new.
    corpus: Vec<Vec<Constraint>>,
    current: Vec<Constraint>,
    steps_max: u64,
}

/// What the run at hand shows.
#[derive(Default)]
struct Observed {
    steps: u64,
    pairs: BTreeSet<Pair>,
    objects: BTreeMap<Object, Known>,
    last_write: BTreeMap<Object, Site>,
    nr_accesses: BTreeMap<(Object, ActorId), u32>,
    before: BTreeMap<ActorId, Before>,
}

/// What is known of one object.
#[derive(Default)]
struct Known {
    sites: BTreeSet<Site>,
    /// Largest size of an access.
    bytes: u16,
    /// Who came first.
    first: Option<ActorId>,
    /// Somebody else came too.
    shared: bool,
}

impl Known {
    fn performed(&mut self, actor: ActorId, op: Op, site: Site) {
        self.sites.insert(site);
        self.bytes = op.bytes().max(self.bytes);
        self.shared |= *self.first.get_or_insert(actor) != actor;
    }

    fn append(&mut self, mut other: Known) {
        self.sites.append(&mut other.sites);
        self.bytes = other.bytes.max(self.bytes);
        self.shared |= other.shared;
    }
}

impl Observed {
    fn performed(&mut self, actor: ActorId, op: Op) {
        self.steps += 1;
        let before = self.before.entry(actor).or_default();
        let before = std::mem::replace(before, before.then(op.kind()));
        let object = op.object();
        if object == Object::nothing() || self.objects.len() >= OBJECTS_MAX && !self.objects.contains_key(&object) {
            return;
        }
        let nr_accesses = self.nr_accesses.entry((object, actor)).or_default();
        let site = Site::new(op.kind(), *nr_accesses, before);
        *nr_accesses += 1;
        self.objects.entry(object).or_default().performed(actor, op, site);
        if site.reads() {
            self.pairs.insert((object, site, self.last_write.get(&object).copied()));
        }
        if op.kind().writes() {
            self.last_write.insert(object, site);
        }
    }
}

impl Feedback {
    /// Feedback that knows nothing.
    pub fn new() -> Feedback {
        Feedback::default()
    }

    /// The policy for the next run. Learns from the run before, which must be over.
    pub fn policy(&mut self, seed: u64, faults: FaultPlan) -> Box<dyn Policy> {
        self.learn();
        self.current = self.demand(&mut Entropy::new(seed, Stream::Policy));
        let rff = Rff::with(Entropy::new(seed, Stream::Schedule), &self.current, self.steps_max);
        Box::new(Watch { inner: Box::new(Drawn::new(rff, seed, faults)), observed: self.observed.clone() })
    }

    /// What is demanded of the run at hand.
    pub fn constraints(&self) -> &[Constraint] {
        &self.current
    }

    /// Number of different pairs of write and read that have been seen, up to the last run learnt from.
    pub fn nr_pairs(&self) -> usize {
        self.seen.len()
    }

    fn learn(&mut self) {
        let observed = self.observed.take();
        self.steps_max = self.steps_max.max(observed.steps);
        for (object, known) in observed.objects {
            self.objects.entry(object).or_default().append(known);
        }
        let nr_before = self.seen.len();
        self.seen.extend(observed.pairs);
        if self.seen.len() > nr_before && !self.current.is_empty() {
            if self.corpus.len() >= CORPUS_MAX {
                self.corpus.remove(0);
            }
            self.corpus.push(std::mem::take(&mut self.current));
        }
    }

    /// What has shown something new before, or nothing, changed in one place.
    fn demand(&mut self, entropy: &mut Entropy) -> Vec<Constraint> {
        let nr = self.corpus.len() as u32;
        let mut constraints = if nr > 0 && entropy.one_in(2) { self.corpus[entropy.below(nr) as usize].clone() } else { Vec::new() };
        let place = |entropy: &mut Entropy, constraints: &[Constraint]| entropy.below(constraints.len() as u32) as usize;
        match entropy.below(8) {
            0 if !constraints.is_empty() => {
                let place = place(entropy, &constraints);
                constraints.remove(place);
            }
            1 if !constraints.is_empty() => {
                let place = place(entropy, &constraints);
                constraints[place].holds ^= true;
            }
            _ => {
                if constraints.len() >= CONSTRAINTS_MAX {
                    let place = place(entropy, &constraints);
                    constraints.remove(place);
                }
                constraints.extend(self.target(entropy));
            }
        }
        constraints
    }

    /// A pair that nobody has seen, among those least tried; one in four times any pair, to be or not to be.
    fn target(&mut self, entropy: &mut Entropy) -> Option<Constraint> {
        let any = entropy.one_in(4);
        let (mut least, mut candidates) = (u32::MAX, Vec::new());
        for (&object, Known { sites, bytes, .. }) in self.objects.iter().filter(|(_, known)| known.shared) {
            for &read in sites.iter().filter(|site| site.reads()) {
                let writes = sites.iter().copied().filter(|site| site.kind().writes()).map(Some);
                for from in writes.chain([None]) {
                    let pair = (object, read, from);
                    let tries = if any { 0 } else { self.tries.get(&pair).copied().unwrap_or(0) };
                    if tries > least || !any && self.seen.contains(&pair) {
                        continue;
                    }
                    if tries < least {
                        least = tries;
                        candidates.clear();
                    }
                    candidates.push((pair, *bytes));
                }
            }
        }
        let nr = u32::try_from(candidates.len()).ok().filter(|&nr| nr > 0)?;
        let (pair, bytes) = candidates[entropy.below(nr) as usize];
        *self.tries.entry(pair).or_default() += 1;
        let (object, read, from) = pair;
        let end = Object(object.0.saturating_add(u64::from(bytes.max(1))));
        Some(Constraint { start: object, end, read, from, holds: !(any && entropy.one_in(2)) })
    }
}

/// The policy of one run.
struct Watch {
    inner: Box<dyn Policy>,
    observed: Rc<RefCell<Observed>>,
}

impl Policy for Watch {
    fn choose(&mut self, choice: Choice<'_>) -> u32 {
        self.inner.choose(choice)
    }

    fn performed(&mut self, actor: ActorId, op: Op) {
        self.observed.borrow_mut().performed(actor, op);
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
    use super::super::Replay;
    use super::super::testing::programs;
    use super::*;
    use crate::shared::Outcome;

    /// Runs until the first bug.
    fn runs_to_bug(first_seed: u64, program: impl Fn(Box<dyn Policy>) -> Outcome) -> Option<u64> {
        let mut feedback = Feedback::new();
        (0..2000).find(|run| program(feedback.policy(first_seed + run, FaultPlan::Never)).is_bug()).map(|run| run + 1)
    }

    #[test]
    fn the_reordered_setters_take_no_more_runs_when_there_are_more_of_them() {
        let mean = |setters| {
            let runs = (0..20).map(|trial| runs_to_bug(trial << 32, |policy| programs::reorder(policy, setters, 1)));
            runs.map(|runs| runs.expect("the bug is found")).sum::<u64>() as f64 / 20.0
        };
        let (few, many) = (mean(2), mean(50));

        assert!(few < 8.0 && many < 8.0, "{few} for 2 setters, {many} for 50");
    }

    #[test]
    fn the_same_seeds_in_the_same_order_make_the_same_runs() {
        let runs = || {
            let mut feedback = Feedback::new();
            let run = |seed| programs::reorder(feedback.policy(seed, FaultPlan::Never), 4, 2).record;
            (0..50).map(run).collect::<Vec<_>>()
        };
        assert_eq!(runs(), runs());
    }

    #[test]
    fn a_run_repeats_by_its_recorded_choices_alone() {
        let mut feedback = Feedback::new();
        for seed in 0..50 {
            let outcome = programs::reorder(feedback.policy(seed, FaultPlan::Never), 4, 2);
            assert_eq!(programs::reorder(Box::new(Replay::new(outcome.record.clone())), 4, 2), outcome);
        }
    }

    #[test]
    fn demands_show_pairs_that_chance_does_not() {
        // Twenty setters: that the checker finds b untouched after it has found a written is next to impossible by chance.
        let mut feedback = Feedback::new();
        let mut unguided = Feedback::new();
        for seed in 0..60 {
            programs::reorder(feedback.policy(seed, FaultPlan::Never), 20, 1);
            // Without the memory of earlier runs nothing is demanded.
            let mut fresh = Feedback::new();
            programs::reorder(fresh.policy(seed, FaultPlan::Never), 20, 1);
            fresh.learn();
            unguided.seen.append(&mut fresh.seen);
        }
        feedback.learn();
        assert!(feedback.nr_pairs() > unguided.nr_pairs(), "{} against {}", feedback.nr_pairs(), unguided.nr_pairs());
    }
}
