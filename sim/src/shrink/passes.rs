//! What is left out, in which order, and how much at a time.

use super::cast::Label;
use super::performer::Performer;
use super::scribe::{Observed, Source};
use super::script::{Place, Script};
use super::{Budget, Shrinker};
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

/// Schedules that are tried before a world, or a place to start from, is given up.
const SCHEDULES: u64 = 16;

/// The part of the budget that is spent before nobody starts from elsewhere any more.
const RESTART_SHARE: u64 = 3;

/// Places to start from beside the run given.
const RESTARTS: u64 = 3;

/// Parts of a kind that are left out first are no smaller than this part of all.
const COARSE: usize = 16;

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

/// The answers given before anybody acted that are not plain: how many devices there are, how large things are.
fn world(script: &Script) -> Vec<Place> {
    let mut odd = script.odd(&[ChoiceKind::Workload]);
    odd.retain(|place| place.who == Label::NOBODY);
    odd
}

impl<F: FnMut(Box<dyn Policy>, u64) -> bool> Shrinker<F> {
    /// Leaves out all that can be left out; false when the budget ended that before it was so.
    pub(super) fn shrink(&mut self) -> bool {
        let original = self.best.clone();
        self.leave_out_large_parts();
        // A smaller world next. There nothing comes at the same step as before, so that the schedule found fits no more; others may do.
        let mut tried = 0;
        while let Some(&place) = world(&self.best.script).get(tried) {
            let all = world(&self.best.script);
            let smaller = tried == 0 && all.len() > 1 && self.restart(&original, &all, 0, Self::leave_out_large_parts);
            tried += usize::from(!smaller && !self.restart(&original, &[place], 0, Self::leave_out_large_parts));
        }
        let complete = self.settle();
        // What cannot be left out singly depends on where one started: from elsewhere less may be left. It rarely is, so only what is left of
        // a part of the budget goes into it.
        let whole = self.budget;
        self.budget = Budget { runs: whole.runs / RESTART_SHARE, steps: whole.steps / RESTART_SHARE };
        for attempt in 1..=RESTARTS {
            self.restart(&original, &[], attempt * SCHEDULES, |shrinker| {
                shrinker.leave_out_large_parts();
                shrinker.settle();
            });
        }
        self.budget = whole;
        complete
    }

    /// Starts again from another schedule of the original's parts, in the world of the best run with some answers made plain; true when
    /// that, gone on with, led to a smaller run. `seed` is that of the first schedule.
    fn restart(&mut self, original: &Observed, plain: &[Place], seed: u64, go_on: impl FnOnce(&mut Self)) -> bool {
        let mut script = original.script.clone();
        script.answers.retain(|(asker, _), _| *asker != Label::NOBODY);
        let own = self.best.script.answers.iter().filter(|((asker, _), _)| *asker == Label::NOBODY);
        script.answers.extend(own.map(|(key, list)| (*key, list.clone())));
        script.plain(plain);
        let steps_max = original.measure.steps + original.measure.steps / 4 + 64;
        let found = (seed..seed + SCHEDULES).find_map(|seed| {
            let spec = [PolicySpec::Uniform, PolicySpec::Pos][seed as usize % 2];
            let policy = spec.build(seed, &Profile::default(), FaultPlan::Never);
            if self.is_spent() { None } else { self.run(Source::Search(Performer::new(script.clone()), policy), steps_max) }
        });
        let Some(found) = found else { return false };
        let best = std::mem::replace(&mut self.best, found);
        go_on(self);
        // One that the budget has cut short may have fewer operations and many a switch that could have gone.
        let settled = !self.is_spent() || self.best.measure.switches <= best.measure.switches;
        let smaller = settled && self.best.measure < best.measure;
        if !smaller {
            self.best = best;
        }
        smaller
    }

    /// Leaves out large parts of every kind: that makes the runs short in which the small ones are tried.
    fn leave_out_large_parts(&mut self) {
        for part in ORDER {
            self.leave_out(part, COARSE);
        }
    }

    /// Leaves parts out until none can be left out singly; false when the budget ended that.
    fn settle(&mut self) -> bool {
        loop {
            let before = self.best.measure;
            for part in ORDER {
                self.leave_out(part, usize::MAX);
            }
            if self.is_spent() {
                return false;
            }
            if self.best.measure == before {
                return true;
            }
        }
    }

    /// Leaves out parts of one kind: all, halves, quarters, down to single ones or to a `finest`-th, from the end of the run to its start.
    fn leave_out(&mut self, part: Part, finest: usize) {
        let mut size = part.count(&self.best);
        let smallest = (size / finest).max(1);
        while size >= smallest {
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
