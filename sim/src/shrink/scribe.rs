//! Writes down what a run was made of while it is made: its script, its list of choices, and how large it is.

use std::cell::RefCell;
use std::rc::Rc;

use super::Measure;
use super::cast::{Cast, Label, Labels, Topic};
use super::performer::Performer;
use super::script::{Script, Stretch, Turn};
use crate::engine::{ActorId, Choice, ChoiceKind, Op, OpKind, Recorded};
use crate::policy::{Divergence, Policy, Replay};

/// What a run was.
#[derive(Clone, Default)]
pub(crate) struct Observed {
    pub(crate) script: Script,
    pub(crate) turns: Vec<Turn>,
    pub(crate) list: Vec<Recorded>,
    pub(crate) measure: Measure,
    /// Labels by actor.
    pub(crate) labels: Vec<Label>,
    /// The recorded list did not fit.
    pub(crate) diverged: bool,
}

/// Where the answers come from.
pub(crate) enum Source {
    /// A recorded list.
    List(Replay),
    /// A script.
    Script(Performer),
    /// A script's answers, under a schedule of another policy.
    Search(Performer, Box<dyn Policy>),
}

/// The policy of one run.
pub(crate) struct Scribe {
    source: Source,
    cast: Cast,
    last: Option<ActorId>,
    /// The turn under way, by label: its place among the turns.
    open: Vec<Option<usize>>,
    observed: Rc<RefCell<Observed>>,
}

impl Scribe {
    /// A policy that answers from `source` and writes into `observed`.
    pub(crate) fn new(source: Source, labels: Rc<RefCell<Labels>>, observed: Rc<RefCell<Observed>>) -> Scribe {
        Scribe { source, cast: Cast::new(labels), last: None, open: Vec::new(), observed }
    }

    fn open_turn(&self, who: Label) -> Option<usize> {
        self.open.get(who.index()).copied().flatten()
    }
}

impl Policy for Scribe {
    fn choose(&mut self, choice: Choice<'_>) -> u32 {
        if let Choice::Schedule(enabled) = choice {
            let index = match &mut self.source {
                Source::List(replay) => replay.choose(choice),
                Source::Search(_, policy) => policy.choose(choice),
                Source::Script(performer) => {
                    let actor = performer.pick(enabled, &self.cast);
                    enabled.ids.binary_search(&actor).expect("an enabled actor was picked") as u32
                }
            };
            let actor = enabled.ids[index as usize];
            let diverged = matches!(&self.source, Source::List(replay) if replay.divergence().is_some());
            let mut observed = self.observed.borrow_mut();
            observed.diverged |= diverged;
            observed.list.push(Recorded::new(ChoiceKind::Schedule, u32::from(actor.0)));
            // Left although it could have gone on, and did not say that it need not.
            if let Some(last) = self.last.filter(|last| *last != actor && enabled.others.binary_search(last).is_ok()) {
                observed.measure.preemptions += u64::from(!enabled.ops[last.index()].is(OpKind::Yield));
            }
            return index;
        }
        let topic = Topic::of(&choice);
        let kind = topic.kind;
        let nth = self.cast.ask(topic);
        let value = match &mut self.source {
            Source::List(replay) => replay.choose(choice),
            Source::Script(performer) | Source::Search(performer, _) => performer.answer(&choice, nth, &self.cast),
        };
        let diverged = matches!(&self.source, Source::List(replay) if replay.divergence().is_some());
        let mut observed = self.observed.borrow_mut();
        observed.diverged |= diverged;
        if let Some(turn) = self.open_turn(self.cast.current()) {
            observed.turns[turn].asked.1[kind as usize] += 1;
        }
        observed.list.push(Recorded::new(kind, value));
        observed.script.answers.entry((self.cast.current(), topic)).or_default().push(value as u16);
        let measure = &mut observed.measure;
        measure.operations += u64::from(kind == ChoiceKind::Workload);
        *(if topic.is_fallible() { &mut measure.failures } else { &mut measure.oddities }) += u64::from(value != 0);
        value
    }

    fn performed(&mut self, actor: ActorId, op: Op) {
        match &mut self.source {
            Source::List(replay) => replay.performed(actor, op),
            Source::Search(_, policy) => policy.performed(actor, op),
            Source::Script(_) => {}
        }
        let who = self.cast.label(actor);
        let before = self.cast.steps(who);
        let observed = self.observed.clone();
        let mut observed = observed.borrow_mut();
        if op.is(OpKind::Turn) {
            let asked = self.cast.asked(who);
            self.open.resize(self.open.len().max(who.index() + 1), None);
            self.open[who.index()] = Some(observed.turns.len());
            observed.turns.push(Turn { who, steps: before..before, asked: (asked, asked) });
        }
        if let Some(turn) = self.open_turn(who) {
            observed.turns[turn].steps.end += 1;
        }
        self.cast.step(actor);
        let Observed { script, measure, .. } = &mut *observed;
        measure.steps += 1;
        measure.actors += u64::from(before == 0);
        if self.last == Some(actor) {
            script.stretches.last_mut().expect("somebody went last").steps.end += 1;
        } else {
            measure.switches += u64::from(self.last.is_some());
            script.stretches.push(Stretch { who, steps: before..before + 1 });
            self.last = Some(actor);
        }
    }

    fn ordered(&mut self, before: ActorId, after: ActorId) {
        if let Source::Search(_, policy) = &mut self.source {
            policy.ordered(before, after);
        }
        // Who is woken makes its choices before its next step.
        self.cast.turn_to(after);
    }

    fn started(&mut self, actor: ActorId, name: &str) {
        self.cast.start(actor, name);
        self.observed.borrow_mut().labels.push(self.cast.label(actor));
        if let Source::Search(_, policy) = &mut self.source {
            policy.started(actor, name);
        }
    }

    fn name(&self) -> String {
        "shrink".to_owned()
    }

    fn divergence(&self) -> Option<Divergence> {
        match &self.source {
            Source::List(replay) => replay.divergence(),
            Source::Script(_) | Source::Search(..) => None,
        }
    }
}
