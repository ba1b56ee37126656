//! What is left out, in which order, and how much at a time.

use super::Shrinker;
use super::cast::Label;
use super::performer::Performer;
use super::scribe::{Observed, Source};
use super::script::{Place, Script};
use crate::engine::ChoiceKind;
use crate::policy::{FaultPlan, Policy, PolicySpec, Profile};

/// One kind of part that can be left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    /// All that one actor does of its own accord.
    Actor,
    /// A turn of a daemon.
    Turn,
    /// An operation that is not the first one of its alphabet.
    Operation,
    /// A failure.
    Failure,
    /// A switch, by letting the stretch happen later.
    Later,
    /// A switch, by letting the stretch happen earlier.
    Earlier,
    /// An answer that is not the plain one.
    Oddity,
}

/// All parts, in the order in which they are left out.
const ORDER: [Part; 7] = [Part::Actor, Part::Turn, Part::Operation, Part::Failure, Part::Later, Part::Earlier, Part::Oddity];

/// Schedules that are tried in a smaller world.
const SCHEDULES: u64 = 16;

const FAILURES: [ChoiceKind; 2] = [ChoiceKind::AllocFails, ChoiceKind::CalleeFails];
const ODDITIES: [ChoiceKind; 3] = [ChoiceKind::Placement, ChoiceKind::Hardware, ChoiceKind::Poison];

impl Part {
    /// How many parts of this kind a run has.
    fn count(self, run: &Observed) -> usize {
        match self {
            Part::Actor => actors(&run.script).len(),
            Part::Turn => run.turns.len(),
            Part::Operation => run.script.odd(&[ChoiceKind::Workload]).len(),
            Part::Failure => run.script.odd(&FAILURES).len(),
            Part::Later | Part::Earlier => run.script.stretches.len(),
            Part::Oddity => run.script.odd(&ODDITIES).len(),
        }
    }

    /// The script of `run` without its parts from `from` to `to`; `None` where that changes nothing.
    fn left_out(self, run: &Observed, from: usize, to: usize) -> Option<Script> {
        let mut script = run.script.clone();
        match self {
            Part::Actor => actors(&run.script)[from..to].iter().for_each(|&who| script.forget(who)),
            Part::Turn => script.skip(&run.turns[from..to]),
            Part::Operation => script.plain(&run.script.odd(&[ChoiceKind::Workload])[from..to]),
            Part::Failure => script.plain(&run.script.odd(&FAILURES)[from..to]),
            Part::Later => script.postpone(from..to),
            Part::Earlier => {
                if !script.hasten(from..to) {
                    return None;
                }
            }
            Part::Oddity => script.plain(&run.script.odd(&ODDITIES)[from..to]),
        }
        Some(script)
    }
}

/// Who the schedule names, in order of label.
fn actors(script: &Script) -> Vec<Label> {
    let mut actors: Vec<_> = script.stretches.iter().map(|stretch| stretch.who).collect();
    actors.sort_unstable();
    actors.dedup();
    actors
}

impl<F: FnMut(Box<dyn Policy>, u64) -> bool> Shrinker<F> {
    /// Leaves out all that can be left out; false when the budget ended that.
    pub(super) fn shrink(&mut self) -> bool {
        self.search_smaller_worlds();
        loop {
            let before = self.best.measure;
            for part in ORDER {
                self.leave_out(part);
            }
            if self.is_spent() {
                return false;
            }
            if self.best.measure == before {
                return true;
            }
        }
    }

    /// What was drawn before anybody acted is the world of the run: how many devices there are, how large things are. In a smaller one
    /// nothing comes at the same step as before, so that the schedule found fits no more; others may do.
    fn search_smaller_worlds(&mut self) {
        let world = |run: &Observed| {
            let mut odd = run.script.odd(&[ChoiceKind::Workload]);
            odd.retain(|place| place.who == Label::NOBODY);
            odd
        };
        let mut tried = 0;
        // All at once first, then one by one.
        if self.found_with(&world(&self.best)) {
            return;
        }
        while let Some(&place) = world(&self.best).get(tried) {
            let before = self.best.measure;
            if !self.found_with(&[place]) || self.best.measure == before {
                tried += 1;
            }
        }
    }

    /// Whether some schedule fails when these answers are plain.
    fn found_with(&mut self, plain: &[Place]) -> bool {
        let mut script = self.best.script.clone();
        script.plain(plain);
        if plain.is_empty() || self.attempt(script.clone()) {
            return !plain.is_empty();
        }
        (0..SCHEDULES).any(|seed| {
            let spec = [PolicySpec::Uniform, PolicySpec::Pos][seed as usize % 2];
            let policy = spec.build(seed, &Profile::default(), FaultPlan::Never);
            self.attempt_from(Source::Search(Performer::new(script.clone()), policy))
        })
    }

    /// Leaves out parts of one kind: all, halves, quarters, down to single ones, from the end of the run to its start.
    fn leave_out(&mut self, part: Part) {
        let mut size = part.count(&self.best);
        while size > 0 {
            let mut end = part.count(&self.best);
            while end > 0 && !self.is_spent() {
                let start = end.saturating_sub(size);
                let script = part.left_out(&self.best, start, end);
                if script.is_some_and(|script| self.attempt(script)) {
                    // What is left may be fewer or, rarely, more; those after `start` have been tried or are gone.
                    end = start.min(part.count(&self.best));
                } else {
                    end = start;
                }
            }
            size = (size / 2).min(part.count(&self.best));
        }
    }
}
