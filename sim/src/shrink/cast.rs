//! Who is who in two runs of the same program.
//!
//! Numbers of actors are given in the order of their start, so that leaving one out renumbers all that follow. What stays is the name:
//! an actor is the n-th of its name, and its [`Label`] stands for that in every run of one search.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::engine::{ActorId, Choice, ChoiceKind};

/// An actor in every run of one search. Number 0 is nobody: what was chosen before anybody acted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Label(pub(crate) u16);

impl Label {
    pub(crate) const NOBODY: Label = Label(0);

    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The labels given so far, shared by all runs of a search.
#[derive(Default)]
pub(crate) struct Labels {
    by_name: BTreeMap<String, Vec<Label>>,
    given: u16,
}

impl Labels {
    /// The name that a label was given for.
    pub(crate) fn name(&self, label: Label) -> Option<&str> {
        let mut known = self.by_name.iter();
        known.find(|(_, labels)| labels.contains(&label)).map(|(name, _)| name.as_str())
    }

    /// The label of the `nth` actor called `name`, from 0.
    fn of(&mut self, name: &str, nth: usize) -> Label {
        if !self.by_name.contains_key(name) {
            self.by_name.insert(name.to_owned(), Vec::new());
        }
        let known = self.by_name.get_mut(name).expect("inserted");
        while known.len() <= nth {
            self.given += 1;
            known.push(Label(self.given));
        }
        known[nth]
    }
}

/// How many choices of each kind somebody was asked for.
pub(crate) type Asked = [u32; ChoiceKind::ALL.len()];

/// What a question is about. Calls that may fail are told apart by class, so that a failure stays where it was when calls of another class
/// before it come or go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Topic {
    pub(crate) kind: ChoiceKind,
    /// 0 where the kind has no classes.
    pub(crate) class: u16,
}

impl Topic {
    /// The topic of a choice that is not about who goes next.
    pub(crate) fn of(choice: &Choice<'_>) -> Topic {
        match *choice {
            Choice::Schedule(_) => Topic { kind: ChoiceKind::Schedule, class: 0 },
            Choice::Of { kind, .. } | Choice::Odds { kind, .. } => Topic { kind, class: 0 },
            Choice::Fault { kind, class, .. } => Topic { kind, class },
        }
    }

    /// True for a call that may fail.
    pub(crate) fn is_fallible(self) -> bool {
        matches!(self.kind, ChoiceKind::AllocFails | ChoiceKind::CalleeFails)
    }
}

/// What one run's actors have done so far.
pub(crate) struct Cast {
    labels: Rc<RefCell<Labels>>,
    /// How many actors of each name have started.
    started: BTreeMap<String, usize>,
    by_actor: Vec<Label>,
    by_label: Vec<Role>,
    /// Questions about calls that may fail.
    fallible: BTreeMap<(Label, Topic), u32>,
    /// Whose choices those at hand are.
    current: Label,
}

/// What one actor has done so far.
#[derive(Clone, Copy, Default)]
struct Role {
    actor: Option<ActorId>,
    steps: u32,
    asked: Asked,
}

impl Cast {
    pub(crate) fn new(labels: Rc<RefCell<Labels>>) -> Cast {
        Cast {
            labels,
            started: BTreeMap::new(),
            by_actor: Vec::new(),
            by_label: vec![Role::default()],
            fallible: BTreeMap::new(),
            current: Label::NOBODY,
        }
    }

    pub(crate) fn start(&mut self, actor: ActorId, name: &str) {
        let nth = match self.started.get_mut(name) {
            Some(started) => {
                *started += 1;
                *started
            }
            None => {
                self.started.insert(name.to_owned(), 0);
                0
            }
        };
        let label = self.labels.borrow_mut().of(name, nth);
        self.by_label.resize(self.by_label.len().max(label.index() + 1), Role::default());
        self.by_label[label.index()].actor = Some(actor);
        self.by_actor.resize(actor.index() + 1, Label::NOBODY);
        self.by_actor[actor.index()] = label;
    }

    /// The label of an actor that has started.
    pub(crate) fn label(&self, actor: ActorId) -> Label {
        self.by_actor.get(actor.index()).copied().unwrap_or(Label::NOBODY)
    }

    /// The actor that a label stands for, once it has started.
    pub(crate) fn actor(&self, label: Label) -> Option<ActorId> {
        self.by_label.get(label.index())?.actor
    }

    /// Steps that `label` has performed.
    pub(crate) fn steps(&self, label: Label) -> u32 {
        self.by_label.get(label.index()).map_or(0, |role| role.steps)
    }

    /// Choices that `label` was asked for.
    pub(crate) fn asked(&self, label: Label) -> Asked {
        self.by_label.get(label.index()).map_or([0; ChoiceKind::ALL.len()], |role| role.asked)
    }

    /// Whose choices those at hand are.
    pub(crate) fn current(&self) -> Label {
        self.current
    }

    /// What comes next is done by `actor`.
    pub(crate) fn turn_to(&mut self, actor: ActorId) {
        self.current = self.label(actor);
    }

    /// `actor` performs a step.
    pub(crate) fn step(&mut self, actor: ActorId) {
        self.turn_to(actor);
        self.by_label[self.current.index()].steps += 1;
    }

    /// Counts a question of the actor at work and returns its number among those on its topic.
    pub(crate) fn ask(&mut self, topic: Topic) -> u32 {
        let asked = &mut self.by_label[self.current.index()].asked[topic.kind as usize];
        *asked += 1;
        if !topic.is_fallible() {
            return *asked - 1;
        }
        let asked = self.fallible.entry((self.current, topic)).or_default();
        *asked += 1;
        *asked - 1
    }
}
