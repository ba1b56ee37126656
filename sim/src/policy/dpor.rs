//! Source-DPOR: one run for each class of equivalent interleavings, found from the races of the runs made.
//!
//! Source: Abdulla, Aronis, Jonsson, Sagonas, "Optimal dynamic partial order reduction" (POPL 2014), source sets with sleep sets. Two
//! interleavings are equivalent when one becomes the other by swapping neighbours that commute ([`Op::conflicts`]); what a program
//! does, and every verdict, is the same for a whole class. The search runs the program once, orders its steps by happens-before (vector
//! clocks over the announced operations, over waking, joining and starting), and for each race, that is two conflicting steps with
//! nothing ordered between them, sees to it that a run in the other order will be made, unless one is planned already.
//!
//! Needs runs that repeat exactly, announcements that name everything an operation touches, and whole runs
//! ([`Explorer::needs_whole_runs`]): races of steps that were never made are never seen. Guarantee: when the search ends, every class
//! has been run to its end **exactly once**, with every outcome of every other choice. So the runs made are the number of classes, and
//! "explored all N" is a verdict. Sleep sets may have to cut some more runs on their way, which [`Exhaustive`](super::Exhaustive),
//! with sleep sets alone, does far more often; wake-up trees, which would avoid even these, are not built.
//!
//! Locks are as in section 5 of the long version (JACM 2017): an acquisition races with the acquisition before it, not with the release that
//! made it possible, and an actor that waits for ever races with whoever it waits for. Generally, a [guarded](Op::guarded) step is set against
//! every earlier conflicting step that its actor did not know of; where it could not have come before one of them, nothing is planned.

use std::cell::RefCell;
use std::rc::Rc;

use super::delay::turn;
use super::{Explorer, Policy};
use crate::engine::{ActorId, Choice, Enabled, Object, Op, OpKind};

/// The driver of a source-DPOR search: hands out one policy a run.
pub struct Dpor {
    tree: Rc<RefCell<Tree>>,
    begun: bool,
}

type Sleep = Vec<(ActorId, Op)>;

/// Number of steps of each actor that happened before, indexed by [`ActorId::index`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Clock(Vec<u32>);

impl Clock {
    fn of(&self, actor: ActorId) -> u32 {
        self.0.get(actor.index()).copied().unwrap_or(0)
    }
    fn set(&mut self, actor: ActorId, nr: u32) {
        self.0.resize(self.0.len().max(actor.index() + 1), 0);
        self.0[actor.index()] = nr;
    }
    fn join(&mut self, other: &Clock) {
        self.0.resize(self.0.len().max(other.0.len()), 0);
        self.0.iter_mut().zip(&other.0).for_each(|(mine, &theirs)| *mine = theirs.max(*mine));
    }
}

/// A step of the run at hand.
#[derive(Debug)]
struct Event {
    actor: ActorId,
    op: Op,
    /// How many steps the actor has made, this one included.
    nr: u32,
    /// What happened before, this step included.
    clock: Clock,
    /// The choice that led to it; `None` when nobody else could go.
    node: Option<usize>,
}

impl Event {
    fn happens_before(&self, later: &Event) -> bool {
        later.clock.of(self.actor) >= self.nr
    }
}

/// A choice on the path of the run at hand.
#[derive(Debug)]
enum Node {
    Schedule(Point),
    /// Outcome `at` of `options`, asked for once `nr_events` steps had begun.
    Other {
        options: u32,
        at: u32,
        nr_events: usize,
    },
}

/// A point at which several actors could go.
#[derive(Debug)]
struct Point {
    enabled: Vec<(ActorId, Op)>,
    /// Who goes in the run at hand.
    at: (ActorId, Op),
    /// Who shall have gone from here, `at` and `done` included.
    backtrack: Vec<ActorId>,
    /// Who went from here in earlier runs.
    done: Sleep,
    /// Who need not go from here.
    sleep: Sleep,
    /// Steps made before.
    nr_events: usize,
}

impl Point {
    /// Turns to the next actor that shall go; false when there is none.
    fn advance(&mut self) -> bool {
        self.done.push(self.at);
        let settled = |actor: ActorId| self.done.iter().chain(&self.sleep).any(|&(done, _)| done == actor);
        let next = self.enabled.iter().find(|(actor, _)| self.backtrack.contains(actor) && !settled(*actor)).copied();
        next.inspect(|&next| self.at = next).is_some()
    }
}

/// The path of the run at hand, its steps, and what is left to try.
#[derive(Default)]
struct Tree {
    path: Vec<Node>,
    /// Choices of the path that the run at hand has met.
    depth: usize,
    events: Vec<Event>,
    /// Steps the run at hand has made.
    nr_events: usize,
    /// Steps it has in common with the run before: their races are known.
    nr_known: usize,
    /// What happened before the next step of each actor, indexed by [`ActorId::index`].
    clocks: Vec<Clock>,
    /// Actors whose announced operation need not be tried before something conflicting happens.
    sleep: Sleep,
    /// Who waits with an operation that cannot be performed.
    withheld: Vec<(ActorId, Op)>,
    /// The choice that led to the step about to be made.
    picked: Option<usize>,
    redundant: bool,
}

impl Dpor {
    /// A search that has made no run.
    pub fn new() -> Dpor {
        Dpor { tree: Rc::new(RefCell::new(Tree::default())), begun: false }
    }
}

impl Default for Dpor {
    fn default() -> Dpor {
        Dpor::new()
    }
}

impl Explorer for Dpor {
    fn next_policy(&mut self) -> Option<Box<dyn Policy>> {
        let mut tree = self.tree.borrow_mut();
        if std::mem::replace(&mut self.begun, true) {
            tree.finish();
            if !tree.advance() {
                return None;
            }
        }
        tree.restart();
        Some(Box::new(Follow { tree: self.tree.clone() }))
    }

    fn is_redundant(&self) -> bool {
        self.tree.borrow().redundant
    }

    fn needs_whole_runs(&self) -> bool {
        true
    }
}

impl Tree {
    fn restart(&mut self) {
        self.depth = 0;
        self.nr_events = 0;
        self.clocks.clear();
        self.sleep.clear();
        self.withheld.clear();
        self.picked = None;
        self.redundant = false;
    }

    /// The run at hand is over: who still waits would have gone on had somebody else gone later.
    fn finish(&mut self) {
        for (actor, op) in std::mem::take(&mut self.withheld) {
            if !self.redundant {
                let races = self.push(actor, op, None);
                races.into_iter().for_each(|earlier| self.reverse(earlier));
                self.events.pop();
            }
        }
    }

    /// Turns the deepest choice with something left to try to its next outcome; false when there is none.
    fn advance(&mut self) -> bool {
        while let Some(node) = self.path.last_mut() {
            let (more, nr_known) = match node {
                Node::Schedule(point) => (point.advance(), point.nr_events),
                Node::Other { options, at, nr_events } => {
                    *at += 1;
                    (*at < *options, *nr_events)
                }
            };
            if more {
                self.nr_known = nr_known;
                self.events.truncate(nr_known);
                return true;
            }
            self.path.pop();
        }
        false
    }

    /// Actors seen for the first time were started by the last step.
    fn appear(&mut self, actor: ActorId) {
        let Tree { clocks, events, nr_events, .. } = self;
        let starter = nr_events.checked_sub(1).map_or(Clock::default(), |last| events[last].clock.clone());
        clocks.resize(clocks.len().max(actor.index() + 1), starter);
    }

    /// # Panics
    /// When the run does not repeat the path: the program is not deterministic.
    fn pick(&mut self, enabled: Enabled<'_>) -> usize {
        if let Some(&highest) = enabled.ids.last().filter(|highest| highest.index() >= self.clocks.len()) {
            self.appear(highest);
        }
        if self.redundant {
            return 0;
        }
        if self.depth == self.path.len() {
            let nr = enabled.ids.len();
            let first = turn(enabled);
            let awake = |id: &ActorId| self.sleep.iter().all(|(asleep, _)| asleep != id);
            let Some(id) = (0..nr).map(|delay| enabled.ids[(first + delay) % nr]).find(awake) else {
                self.redundant = true;
                return 0;
            };
            self.path.push(Node::Schedule(Point {
                enabled: enabled.ids.iter().map(|&id| (id, enabled.ops[id.index()])).collect(),
                at: (id, enabled.ops[id.index()]),
                backtrack: vec![id],
                done: Sleep::new(),
                sleep: self.sleep.clone(),
                nr_events: self.nr_events,
            }));
        }
        let Node::Schedule(point) = &self.path[self.depth] else {
            panic!("the program is not deterministic: choice {} was no schedule before", self.depth);
        };
        self.picked = Some(self.depth);
        self.depth += 1;
        self.sleep.clone_from(&point.sleep);
        self.sleep.extend_from_slice(&point.done);
        let (actor, op) = point.at;
        let index = enabled.ids.binary_search(&actor).ok().filter(|_| enabled.ops[actor.index()] == op);
        index.unwrap_or_else(|| panic!("the program is not deterministic: {actor} did not announce what it did before"))
    }

    /// # Panics
    /// When the run does not repeat the path: the program is not deterministic.
    fn other(&mut self, options: u32) -> u32 {
        if self.redundant {
            return 0;
        }
        if self.depth == self.path.len() {
            self.path.push(Node::Other { options, at: 0, nr_events: self.nr_events });
        }
        let Node::Other { options: before, at, .. } = self.path[self.depth] else {
            panic!("the program is not deterministic: choice {} was a schedule before", self.depth);
        };
        assert_eq!(before, options, "the program is not deterministic: choice {} had other outcomes before", self.depth);
        self.depth += 1;
        at
    }

    fn performed(&mut self, actor: ActorId, op: Op) {
        let node = self.picked.take();
        if node.is_none() && self.sleep.iter().any(|&(asleep, _)| asleep == actor) {
            self.redundant = true;
        }
        self.sleep.retain(|&(asleep, other)| asleep != actor && !other.conflicts(&op));
        self.withheld.retain(|&(waiting, _)| waiting != actor);
        if actor.index() >= self.clocks.len() {
            self.appear(actor);
        }
        if self.redundant {
            return;
        }
        if self.nr_events < self.nr_known {
            self.clocks[actor.index()].clone_from(&self.events[self.nr_events].clock);
            self.nr_events += 1;
            return;
        }
        let races = self.push(actor, op, node);
        self.clocks[actor.index()].clone_from(&self.events[self.nr_events].clock);
        self.nr_events += 1;
        races.into_iter().for_each(|earlier| self.reverse(earlier));
    }

    /// Appends a step to the run at hand; the steps it races with.
    fn push(&mut self, actor: ActorId, op: Op, node: Option<usize>) -> Vec<usize> {
        let known = &self.clocks[actor.index()];
        let mut clock = known.clone();
        let mut races = Vec::new();
        if op.object() != Object::nothing() {
            // The latest first: what happens before a conflicting step is no race with this one. What made a guarded step possible, such as
            // the release of its lock, could not have come after it; what came before that could.
            for (index, event) in self.events.iter().enumerate().rev() {
                let before = if op.is_guarded() { known } else { &clock };
                if before.of(event.actor) < event.nr && event.op.conflicts(&op) {
                    let opened = op.is_guarded() && event.op.is(OpKind::Unlock);
                    races.extend((!opened).then_some(index));
                    clock.join(&event.clock);
                }
            }
        }
        let nr = clock.of(actor) + 1;
        clock.set(actor, nr);
        self.events.push(Event { actor, op, nr, clock, node });
        races
    }

    /// Sees to it that the last step will come before step `earlier`, with which it races.
    fn reverse(&mut self, earlier: usize) {
        let (event, later) = (&self.events[earlier], &self.events[earlier + 1..]);
        let racing = later.last().expect("the step that was just made").actor;
        // What can come before `event`, the last step included, and who can be the first of it: who depends on nothing else there.
        let last = later.len() - 1;
        let movable = later.iter().enumerate().filter(|&(index, step)| index == last || !event.happens_before(step));
        let mut firsts: Vec<(ActorId, u32)> = Vec::new();
        let mut initials: Vec<ActorId> = Vec::new();
        for (_, step) in movable {
            if firsts.iter().all(|&(actor, nr)| step.clock.of(actor) < nr) {
                initials.push(step.actor);
            }
            if firsts.iter().all(|&(actor, _)| actor != step.actor) {
                firsts.push((step.actor, step.nr));
            }
        }
        let guarded = later.last().is_some_and(|step| step.op.is_guarded());
        let Some(Node::Schedule(point)) = event.node.map(|node| &mut self.path[node]) else {
            debug_assert!(guarded, "a race with a step that had no alternative");
            return;
        };
        let planned = point.backtrack.iter().chain(point.sleep.iter().map(|(asleep, _)| asleep));
        if planned.into_iter().any(|actor| initials.contains(actor)) {
            return;
        }
        initials.retain(|initial| point.enabled.iter().any(|(enabled, _)| enabled == initial));
        debug_assert!(guarded || !initials.is_empty(), "nobody can begin to reverse a race");
        let chosen = if initials.contains(&racing) { Some(racing) } else { initials.first().copied() };
        point.backtrack.extend(chosen);
    }

    fn ordered(&mut self, before: ActorId, after: ActorId) {
        self.appear_both(before, after);
        let earlier = self.clocks[before.index()].clone();
        self.clocks[after.index()].join(&earlier);
    }

    fn withheld(&mut self, actor: ActorId, op: Op) {
        if self.withheld.iter().all(|&(waiting, _)| waiting != actor) {
            self.withheld.push((actor, op));
        }
    }

    fn appear_both(&mut self, one: ActorId, other: ActorId) {
        let highest = one.max(other);
        if highest.index() >= self.clocks.len() {
            self.appear(highest);
        }
    }
}

/// The policy of one run.
struct Follow {
    tree: Rc<RefCell<Tree>>,
}

impl Policy for Follow {
    fn choose(&mut self, choice: Choice<'_>) -> u32 {
        let mut tree = self.tree.borrow_mut();
        match choice {
            Choice::Schedule(enabled) => tree.pick(enabled) as u32,
            Choice::Of { options, .. } => tree.other(options),
            Choice::Odds { .. } | Choice::Fault { .. } => tree.other(2),
        }
    }

    fn performed(&mut self, actor: ActorId, op: Op) {
        self.tree.borrow_mut().performed(actor, op);
    }

    fn ordered(&mut self, before: ActorId, after: ActorId) {
        self.tree.borrow_mut().ordered(before, after);
    }

    fn withheld(&mut self, actor: ActorId, op: Op) {
        self.tree.borrow_mut().withheld(actor, op);
    }

    fn name(&self) -> String {
        "dpor".to_owned()
    }
}

#[cfg(test)]
mod tests;
