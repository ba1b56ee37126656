//! The width of a race window: how long who has to be stalled, and where, before the order of a run comes about by itself.
//!
//! An adversarial schedule needs no time; a machine does. Given what each step takes, everybody acts as soon as it can:
//! a step ends its cost after the actor's step before, or after the step that woke or started the actor. A run whose order differs needs
//! **stalls**: an interrupt, a preemption, a slow link, in front of single steps. Free of charge are only the turns of daemons, which come
//! when they like, and pauses in loops that wait for something, as long as it has not happened.
//!
//! 1. Steps that depend on each other (program order, wakes, steps that do not commute) stay in their order, and what had not happened when
//!    the run ended comes after its last step. The stalls with the **least sum** that keep this are computed exactly: the module `least`.
//! 2. They are tried: a run in which nothing but time decides who goes next, and the other choices are as recorded. Where it does not fail,
//!    something that no announcement tells has decided; then all steps are kept in their order. Where that fails neither, the answer is
//!    not confirmed.
//! 3. Order that does not matter for the failure is given up: stalls are left out, all of them, halves, down to single ones, while the run
//!    still fails; what is left is shortened by halves until a nanosecond less does not suffice.
//!
//! So every stall reported was tried, and each of them is needed, singly, to a nanosecond. That is relative to the costs, which the
//! caller brings; it is not the least over all schedules that fail, only over those found on this way.

mod least;
mod order;
mod stalled;
#[cfg(test)]
mod tests;
mod witness;

use std::cell::RefCell;
use std::rc::Rc;

use crate::engine::{ActorId, Op, OpKind, Recorded};
use crate::policy::{Policy, Replay, Timed};
use crate::shrink::{Labels, Observed, Performer, Scribe, Source};
use order::{Kept, Order};
use stalled::{Own, Stalled, Times, Timetable};
use witness::{Step, Witness, Witnessed};

/// One stall.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stall {
    /// Name of the actor that is stalled.
    pub who: String,
    /// The same, in [`Window::list`]'s run.
    pub actor: ActorId,
    /// Number, among the actor's own, of the step before which it is stalled, from 0.
    pub nth: u32,
    /// The step.
    pub op: Op,
    /// Number of the step in [`Window::list`]'s run, counted from 1; `None` when the run is over before it is performed.
    pub step: Option<u64>,
    /// Number in the same run of the actor's own step before.
    pub own_before: Option<u64>,
    /// Least length, in picoseconds.
    pub picoseconds: u64,
    /// The last step before it that does not commute with it; the last step of all for one that is not performed.
    pub after: Option<After>,
}

/// What a stalled step comes after.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct After {
    /// Number of the step in [`Window::list`]'s run, counted from 1.
    pub step: u64,
    /// Who does it.
    pub actor: ActorId,
    /// What it is.
    pub op: Op,
}

/// What a run needs.
#[derive(Clone, Debug)]
pub struct Window {
    /// The stalls, in the order of the run. Empty: it comes about by itself.
    pub stalls: Vec<Stall>,
    /// Sum of the computed stalls, that keep the order also where it does not matter, in picoseconds.
    pub all_picoseconds: u64,
    /// A run with these stalls was made and failed. Otherwise the stalls are the computed ones.
    pub confirmed: bool,
    /// Choices of the run with these stalls; those of the run given where it is not confirmed.
    pub list: Vec<Recorded>,
    /// Runs made.
    pub runs: u64,
}

/// Most runs that are made to leave out and shorten stalls.
const RUNS_MAX: u64 = 2_000;

/// How exactly stalls are shortened, in picoseconds.
const EXACT: u64 = 1_000;

/// The window of the run that `list` recorded, whose steps took `costs`, in picoseconds. `fails` makes a run under the policy it is given
/// and says whether it fails the same way.
///
/// `None` when the list does not fit, its run does not fail, or has another number of steps than there are costs.
pub fn window(list: &[Recorded], costs: &[u64], fails: impl FnMut(Box<dyn Policy>) -> bool) -> Option<Window> {
    let mut search = Search { fails, labels: Rc::default(), answers: Observed::default(), costs: Rc::default(), runs: 0 };
    let witnessed = search.witness(list)?;
    let nr_performed = witnessed.steps.len();
    if nr_performed != costs.len() || nr_performed == 0 {
        return None;
    }
    let steps: Vec<Step> = witnessed.steps.iter().cloned().chain(witnessed.announced()).collect();
    let own: Vec<Own> = steps.iter().map(|step| (search.answers.labels[step.actor.index()], step.nth)).collect();
    let cost = |at: usize| costs.get(at).copied().unwrap_or_else(|| Timed::picoseconds(steps[at].op.kind()));
    search.costs = Rc::new(own.iter().copied().zip((0..steps.len()).map(cost)).collect());
    let plans = [Kept::Dependent, Kept::Whole].map(|kept| Plan::of(&steps, &own, &Order::of(&steps, nr_performed, kept, cost), cost));
    let sum = |plan: &Plan| plan.stalls.iter().map(|(_, stall)| stall).sum();
    let [dependent, _] = &plans;
    let computed = search.describe(&dependent.stalls, &witnessed);
    let mut window = Window { stalls: computed, all_picoseconds: sum(dependent), confirmed: false, list: list.to_vec(), runs: 0 };
    for mut plan in plans {
        if let Some(mut best) = search.attempt(&plan, &plan.stalls) {
            let all_picoseconds = sum(&plan);
            search.leave_out(&mut plan, &mut best);
            search.shorten(&mut plan, &mut best);
            let witnessed = search.witness(&best.list)?;
            let stalls = search.describe(&plan.stalls, &witnessed);
            window = Window { stalls, all_picoseconds, confirmed: true, list: best.list, runs: 0 };
            break;
        }
    }
    Some(Window { runs: search.runs, ..window })
}

/// What is added to steps.
#[derive(Clone, Default)]
struct Plan {
    /// Turns and pauses.
    free: Timetable,
    stalls: Vec<(Own, u64)>,
}

impl Plan {
    /// The stalls with the least sum that keep `order`.
    fn of(steps: &[Step], own: &[Own], order: &Order, cost: impl Fn(usize) -> u64) -> Plan {
        let times = least::times(order);
        let mut plan = Plan::default();
        let mut by_time: Vec<usize> = (0..steps.len()).collect();
        by_time.sort_by_key(|&at| times[at + 1]);
        for (at, step) in steps.iter().enumerate() {
            let ended = |before: Option<usize>| before.map_or(0, |before| times[before + 1]);
            let local = ended(step.before).max(ended(step.cause));
            let added = times[at + 1].saturating_sub(local + cost(at));
            let stall = match order.ready[at + 1] {
                Some(ready) => added.min(times[at + 1].saturating_sub(times[ready] + cost(at))),
                None => 0,
            };
            if step.op.is(OpKind::Turn) {
                // The last step of somebody else before it.
                let end = by_time.partition_point(|&other| times[other + 1] <= times[at + 1]);
                if let Some(&after) = by_time[..end].iter().rev().find(|&&other| steps[other].actor != step.actor) {
                    plan.free.turns.insert(own[at], (own[after], times[at + 1] - times[after + 1]));
                    continue;
                }
            }
            plan.free.added.insert(own[at], added - stall);
            if stall > 0 {
                plan.stalls.push((own[at], stall));
            }
        }
        plan
    }
}

struct Search<F> {
    fails: F,
    labels: Rc<RefCell<Labels>>,
    /// The run given.
    answers: Observed,
    costs: Rc<Times>,
    runs: u64,
}

impl<F: FnMut(Box<dyn Policy>) -> bool> Search<F> {
    /// Makes a recorded run again and looks at it.
    fn witness(&mut self, list: &[Recorded]) -> Option<Witnessed> {
        let observed = Rc::<RefCell<Observed>>::default();
        let witnessed = Rc::<RefCell<Witnessed>>::default();
        let inner = Scribe::new(Source::List(Replay::new(list.to_vec())), self.labels.clone(), observed.clone());
        let failed = (self.fails)(Box::new(Witness { inner, witnessed: witnessed.clone() }));
        self.runs += 1;
        let observed = observed.take();
        if !failed || observed.diverged {
            return None;
        }
        self.answers = observed;
        Some(witnessed.take())
    }

    /// Makes the run in which time decides; what it was, if it failed.
    fn attempt(&mut self, plan: &Plan, stalls: &[(Own, u64)]) -> Option<Observed> {
        self.runs += 1;
        let mut timetable = plan.free.clone();
        for &(own, stall) in stalls {
            *timetable.added.entry(own).or_default() += stall;
        }
        let timed = Stalled::new(self.labels.clone(), self.costs.clone(), timetable);
        let source = Source::Search(Performer::new(self.answers.script.clone()), Box::new(timed));
        let observed = Rc::<RefCell<Observed>>::default();
        let failed = (self.fails)(Box::new(Scribe::new(source, self.labels.clone(), observed.clone())));
        failed.then(|| observed.take())
    }

    /// Leaves stalls out while the run still fails.
    fn leave_out(&mut self, plan: &mut Plan, best: &mut Observed) {
        let mut size = plan.stalls.len();
        while size > 0 {
            let mut end = plan.stalls.len();
            while end > 0 && self.runs < RUNS_MAX {
                let start = end.saturating_sub(size);
                let mut stalls = plan.stalls.clone();
                stalls.drain(start..end);
                if let Some(run) = self.attempt(plan, &stalls) {
                    (plan.stalls, *best) = (stalls, run);
                }
                end = start;
            }
            size = (size / 2).min(plan.stalls.len());
        }
    }

    /// Shortens each stall until a nanosecond less does not suffice.
    fn shorten(&mut self, plan: &mut Plan, best: &mut Observed) {
        for index in 0..plan.stalls.len() {
            let (mut short, mut enough) = (0, plan.stalls[index].1);
            while enough - short > EXACT && self.runs < RUNS_MAX {
                let middle = short + (enough - short) / 2;
                let mut stalls = plan.stalls.clone();
                stalls[index].1 = middle;
                match self.attempt(plan, &stalls) {
                    Some(run) => {
                        (plan.stalls, *best) = (stalls, run);
                        enough = middle;
                    }
                    None => short = middle,
                }
            }
        }
    }

    /// The stalls as the run just witnessed has them.
    fn describe(&self, stalls: &[(Own, u64)], witnessed: &Witnessed) -> Vec<Stall> {
        let labels = self.labels.borrow();
        let steps: Vec<Step> = witnessed.steps.iter().cloned().chain(witnessed.announced()).collect();
        let found = stalls.iter().filter_map(|&((who, nth), picoseconds)| {
            let at = steps.iter().position(|step| self.answers.labels[step.actor.index()] == who && step.nth == nth)?;
            let step = &steps[at];
            let number = |at: usize| at as u64 + 1;
            let performed = at < witnessed.steps.len();
            let other = |before: &Step| before.actor != step.actor && before.op.conflicts(&step.op);
            let before = match performed {
                true => steps[..at].iter().rposition(other),
                false => witnessed.steps.len().checked_sub(1),
            };
            Some(Stall {
                who: labels.name(who).unwrap_or("?").to_owned(),
                actor: step.actor,
                nth,
                op: step.op,
                step: performed.then_some(number(at)),
                own_before: step.before.map(number),
                picoseconds,
                after: before.map(|before| After { step: number(before), actor: steps[before].actor, op: steps[before].op }),
            })
        });
        let mut found: Vec<Stall> = found.collect();
        found.sort_by_key(|stall| (stall.step.is_none(), stall.step));
        found
    }
}
