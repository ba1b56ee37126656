//! A run as something that can be changed: who goes until when, and what each actor is answered.
//!
//! In a recorded list every choice stands at a position, so that leaving one out moves all that follow to where they do not belong. Here
//! nothing has a position in the run: a stretch of the schedule says *until which of its own steps* an actor goes, and the answers to an
//! actor's questions are a list of its own. Leaving something out of one actor's part leaves the others' parts as they are.

use std::collections::BTreeMap;
use std::ops::Range;

use super::cast::{Asked, Label, Topic};
use crate::engine::ChoiceKind;

/// A stretch of the schedule without a switch: `who` goes on until it has performed `steps.end` steps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stretch {
    pub(crate) who: Label,
    /// Its own steps, from 0.
    pub(crate) steps: Range<u32>,
}

/// A turn of a daemon: from one announcement of a turn to the next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Turn {
    pub(crate) who: Label,
    /// Its own steps that belong to the turn.
    pub(crate) steps: Range<u32>,
    /// Its questions that belong to the turn.
    pub(crate) asked: (Asked, Asked),
}

/// Everything that decides a run, sorted by who is concerned.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Script {
    pub(crate) stretches: Vec<Stretch>,
    /// Answers by who asked and what about, in the order of the questions. What is not there is answered plainly: 0.
    pub(crate) answers: BTreeMap<(Label, Topic), Vec<u16>>,
}

/// One answer of a [`Script`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) who: Label,
    pub(crate) topic: Topic,
    pub(crate) nth: u32,
}

impl Script {
    /// The answers of these kinds that are not plain.
    pub(crate) fn odd(&self, kinds: &[ChoiceKind]) -> Vec<Place> {
        let lists = self.answers.iter().filter(|((_, topic), _)| kinds.contains(&topic.kind));
        lists
            .flat_map(|(&(who, topic), list)| {
                let odd = list.iter().enumerate().filter(|(_, answer)| **answer != 0);
                odd.map(move |(nth, _)| Place { who, topic, nth: nth as u32 })
            })
            .collect()
    }

    /// Makes answers plain.
    pub(crate) fn plain(&mut self, places: &[Place]) {
        for place in places {
            if let Some(answer) = self.answers.get_mut(&(place.who, place.topic)).and_then(|list| list.get_mut(place.nth as usize)) {
                *answer = 0;
            }
        }
    }

    /// Leaves it to the program when `who` goes, and answers it plainly.
    pub(crate) fn forget(&mut self, who: Label) {
        self.stretches.retain(|stretch| stretch.who != who);
        self.answers.retain(|(asker, _), _| *asker != who);
    }

    /// Takes turns out, as if the daemon had never had them. They must be in ascending order.
    pub(crate) fn skip(&mut self, turns: &[Turn]) {
        for turn in turns.iter().rev() {
            for (kind, (from, to)) in ChoiceKind::ALL.iter().zip(turn.asked.0.iter().zip(turn.asked.1)) {
                if let Some(list) = self.answers.get_mut(&(turn.who, Topic { kind: *kind, class: 0 })) {
                    let end = (to as usize).min(list.len());
                    list.drain((*from as usize).min(end)..end);
                }
            }
            let gone = turn.steps.end - turn.steps.start;
            let moved = |step: u32| match step {
                step if step <= turn.steps.start => step,
                step if step >= turn.steps.end => step - gone,
                _ => turn.steps.start,
            };
            for stretch in self.stretches.iter_mut().filter(|stretch| stretch.who == turn.who) {
                stretch.steps = moved(stretch.steps.start)..moved(stretch.steps.end);
            }
        }
        self.stretches.retain(|stretch| !stretch.steps.is_empty());
    }

    /// Takes stretches out: who went there goes on when it is its turn again.
    pub(crate) fn postpone(&mut self, stretches: Range<usize>) {
        self.stretches.drain(stretches);
    }

    /// Lets the steps of stretches happen as soon as who goes there went before; false when nothing moves.
    pub(crate) fn hasten(&mut self, stretches: Range<usize>) -> bool {
        let mut moved = false;
        for at in stretches.clone() {
            let Stretch { who, steps } = self.stretches[at].clone();
            if let Some(before) = (0..stretches.start).rev().find(|&before| self.stretches[before].who == who) {
                self.stretches[before].steps.end = steps.end;
                self.stretches[at].steps = steps.end..steps.end;
                moved = true;
            }
        }
        self.stretches.retain(|stretch| !stretch.steps.is_empty());
        moved
    }
}
