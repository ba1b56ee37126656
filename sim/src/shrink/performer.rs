//! A script performed: as it says where it fits, and by a rule of its own where it does not.
//!
//! The rule: whoever went last goes on. Who pauses, waits or ends gives way to the next one in the order of numbers, those that pause
//! last, and turns of daemons, which are theirs to take or leave, only when nobody else is there. A stretch whose actor has not
//! started yet is waited for; one whose actor waits for something, or has ended, is passed over. A question beyond the end of its list,
//! or with fewer options than the answer needs, is answered with 0: succeed, the first frame, the plain behaviour.

use super::cast::{Cast, Topic};
use super::script::Script;
use crate::engine::{ActorId, Choice, Enabled, OpKind};

/// See the module.
pub(crate) struct Performer {
    script: Script,
    /// The stretch at hand.
    at: usize,
}

impl Performer {
    pub(crate) fn new(script: Script) -> Performer {
        Performer { script, at: 0 }
    }

    /// Who goes next.
    pub(crate) fn pick(&mut self, enabled: Enabled<'_>, cast: &Cast) -> ActorId {
        while let Some(stretch) = self.script.stretches.get(self.at) {
            match cast.actor(stretch.who) {
                None => break,
                Some(id) if cast.steps(stretch.who) < stretch.steps.end && enabled.ids.binary_search(&id).is_ok() => return id,
                Some(_) => self.at += 1,
            }
        }
        by_rule(enabled)
    }

    /// The answer to any other choice: number `nth` of those on its topic that the actor at work asks.
    pub(crate) fn answer(&self, choice: &Choice<'_>, nth: u32, cast: &Cast) -> u32 {
        let options = match *choice {
            Choice::Of { options, .. } => options,
            Choice::Schedule(_) | Choice::Odds { .. } | Choice::Fault { .. } => 2,
        };
        let list = self.script.answers.get(&(cast.current(), Topic::of(choice)));
        let answer = list.and_then(|list| list.get(nth as usize)).map_or(0, |&answer| u32::from(answer));
        if answer < options { answer } else { 0 }
    }
}

/// Who goes on when nobody says so.
fn by_rule(enabled: Enabled<'_>) -> ActorId {
    let Enabled { ids, others, ops, last, .. } = enabled;
    let busy = |id: &ActorId| !ops[id.index()].is(OpKind::Yield);
    if let Some(last) = last.filter(|last| others.binary_search(last).is_ok() && busy(last)) {
        return last;
    }
    let after = |list: &[ActorId], wanted: &dyn Fn(&ActorId) -> bool| {
        let from = list.partition_point(|id| last.is_some_and(|last| *id <= last));
        list[from..].iter().chain(&list[..from]).copied().find(wanted)
    };
    let next = after(others, &busy).or_else(|| after(others, &|_| true)).or_else(|| after(ids, &|_| true));
    next.expect("somebody is enabled")
}
