//! Exhaustive search: every run of a small program, once.
//!
//! Source: depth-first stateless search after Godefroid, "Model checking for programming languages using VeriSoft" (POPL 1997), with
//! the sleep sets of the same author's "Partial-order methods for the verification of concurrent systems" (LNCS 1032,
//! 1996): after one order of two operations that commute, the other order is not tried. Needs runs that repeat exactly, and
//! announcements that name everything an operation touches ([`Op::conflicts`]). Guarantee: when the search ends, every
//! partial order of the program's steps has been run to its end exactly once, with every outcome of every other choice;
//! so has every deadlock and every failed check that depends on them.
//!
//! Sleep sets save runs, not beginnings of runs: one that turns out to repeat a known order is noticed on its way, is
//! [redundant](Explorer::is_redundant) from there on, and may be cut. Good for up to some 40 steps; a spinning waiter makes the tree
//! infinite, so bound the steps of each run.
//!
//! The search in use, without a [`World`](crate::shared::World), whose
//! [`explore`](crate::shared::World::explore) does all this:
//!
//! ```text
//! while let Some(policy) = exhaustive.next_policy() { run the program; stop early when exhaustive.is_redundant() }
//! ```

use std::cell::RefCell;
use std::rc::Rc;

use super::delay::turn;
use super::{Explorer, Policy};
use crate::engine::{ActorId, Choice, Enabled, Op};

/// The driver of an exhaustive search: hands out one policy a run.
pub struct Exhaustive {
    tree: Rc<RefCell<Tree>>,
    begun: bool,
}

/// What the search does about equivalent or remote schedules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reduction {
    None,
    SleepSets,
    Delays(u32),
}

/// The path of the run at hand: every choice made, with what is left to try there.
struct Tree {
    reduction: Reduction,
    path: Vec<Node>,
    /// Choices of the path that the run at hand has met.
    depth: usize,
    /// Actors whose announced operation need not be tried before something conflicting happens.
    sleep: Sleep,
    delays_left: u32,
    /// Set between a pick and the step it led to.
    picked: bool,
    redundant: bool,
}

type Sleep = Vec<(ActorId, Op)>;

enum Node {
    /// Who goes: `order[at]`, with `sleep` when the point was reached.
    Schedule { order: Vec<(ActorId, Op)>, at: usize, sleep: Sleep, delays_left: u32 },
    /// Outcome `at` of `options`.
    Other { options: u32, at: u32 },
}

impl Exhaustive {
    /// One run for each partial order (sleep sets).
    pub fn new() -> Exhaustive {
        Exhaustive::with(Reduction::SleepSets)
    }

    /// One run for each interleaving, equivalent or not.
    pub fn all_interleavings() -> Exhaustive {
        Exhaustive::with(Reduction::None)
    }

    /// One run for each interleaving that at most `delays` delays make of the round-robin schedule (see [`Delay`](super::Delay)).
    pub fn delay_bounded(delays: u32) -> Exhaustive {
        Exhaustive::with(Reduction::Delays(delays))
    }

    fn with(reduction: Reduction) -> Exhaustive {
        let tree = Tree { reduction, path: Vec::new(), depth: 0, sleep: Sleep::new(), delays_left: 0, picked: false, redundant: false };
        Exhaustive { tree: Rc::new(RefCell::new(tree)), begun: false }
    }
}

impl Explorer for Exhaustive {
    fn next_policy(&mut self) -> Option<Box<dyn Policy>> {
        let mut tree = self.tree.borrow_mut();
        if std::mem::replace(&mut self.begun, true) && !tree.advance() {
            return None;
        }
        tree.restart();
        Some(Box::new(Follow { tree: self.tree.clone() }))
    }

    fn is_redundant(&self) -> bool {
        self.tree.borrow().redundant
    }
}

impl Default for Exhaustive {
    fn default() -> Exhaustive {
        Exhaustive::new()
    }
}

impl Tree {
    fn restart(&mut self) {
        self.depth = 0;
        self.sleep.clear();
        self.picked = false;
        self.redundant = false;
        self.delays_left = match self.reduction {
            Reduction::Delays(delays) => delays,
            Reduction::None | Reduction::SleepSets => 0,
        };
    }

    /// Turns the deepest choice with something left to try to its next outcome; false when there is none.
    fn advance(&mut self) -> bool {
        while let Some(node) = self.path.last_mut() {
            let more = match node {
                Node::Schedule { order, at, .. } => {
                    *at += 1;
                    *at < order.len()
                }
                Node::Other { options, at } => {
                    *at += 1;
                    *at < *options
                }
            };
            if more {
                return true;
            }
            self.path.pop();
        }
        false
    }

    /// # Panics
    /// When the run does not repeat the path: the program is not deterministic.
    fn pick(&mut self, enabled: Enabled<'_>) -> usize {
        if self.redundant {
            return 0;
        }
        if self.depth == self.path.len() {
            let order = self.order(enabled);
            if order.is_empty() {
                self.redundant = true;
                return 0;
            }
            self.path.push(Node::Schedule { order, at: 0, sleep: self.sleep.clone(), delays_left: self.delays_left });
        }
        let Node::Schedule { order, at, sleep, delays_left } = &self.path[self.depth] else {
            panic!("the program is not deterministic: choice {} was no schedule before", self.depth);
        };
        self.depth += 1;
        self.picked = true;
        let (actor, op) = order[*at];
        self.sleep.clone_from(sleep);
        if self.reduction == Reduction::SleepSets {
            self.sleep.extend_from_slice(&order[..*at]);
        }
        self.delays_left = delays_left.saturating_sub(*at as u32);
        let index = enabled.ids.binary_search(&actor).ok().filter(|_| enabled.ops[actor.index()] == op);
        index.unwrap_or_else(|| panic!("the program is not deterministic: {actor} did not announce what it did before"))
    }

    /// Whom to try at a new point, in order.
    fn order(&self, enabled: Enabled<'_>) -> Vec<(ActorId, Op)> {
        let nr = enabled.ids.len();
        let nr_tried = match self.reduction {
            Reduction::Delays(_) => nr.min(self.delays_left as usize + 1),
            Reduction::None | Reduction::SleepSets => nr,
        };
        let first = turn(enabled);
        let ids = (0..nr_tried).map(|delays| enabled.ids[(first + delays) % nr]);
        let awake = ids.filter(|&id| self.sleep.iter().all(|&(asleep, _)| asleep != id));
        awake.map(|id| (id, enabled.ops[id.index()])).collect()
    }

    fn performed(&mut self, actor: ActorId, op: Op) {
        let was_choice = std::mem::replace(&mut self.picked, false);
        if !was_choice && self.sleep.iter().any(|&(asleep, _)| asleep == actor) {
            self.redundant = true;
        }
        self.sleep.retain(|&(asleep, other)| asleep != actor && !other.conflicts(&op));
    }

    /// # Panics
    /// When the run does not repeat the path: the program is not deterministic.
    fn other(&mut self, options: u32) -> u32 {
        if self.redundant {
            return 0;
        }
        if self.depth == self.path.len() {
            self.path.push(Node::Other { options, at: 0 });
        }
        let Node::Other { options: before, at } = self.path[self.depth] else {
            panic!("the program is not deterministic: choice {} was a schedule before", self.depth);
        };
        assert_eq!(before, options, "the program is not deterministic: choice {} had other outcomes before", self.depth);
        self.depth += 1;
        at
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

    fn name(&self) -> String {
        match self.tree.borrow().reduction {
            Reduction::None => "exhaustive:all".to_owned(),
            Reduction::SleepSets => "exhaustive".to_owned(),
            Reduction::Delays(delays) => format!("exhaustive:delay:{delays}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ChoiceKind;
    use crate::programs::Program;
    use crate::shared::{Explored, World};

    const RUNS_MAX: u64 = 2_000_000;

    fn explore(mut exhaustive: Exhaustive, setup: impl Fn(&World)) -> Explored {
        World::explore(&mut exhaustive, RUNS_MAX, 1000, setup)
    }

    /// One actor for each entry, with so many writes to a cell of its own, or to one cell for all.
    fn writers<'a>(writes: &'a [u32], one_cell: bool) -> impl Fn(&World) + 'a {
        move |world| {
            let shared = world.cell(0u32);
            for &writes in writes {
                let cell = if one_cell { shared.clone() } else { world.cell(0u32) };
                world.spawn("writer", async move {
                    for value in 0..writes {
                        cell.set(value).await;
                    }
                });
            }
        }
    }

    #[test]
    fn all_interleavings_are_as_many_as_arithmetic_says() {
        // Each actor also has its first step: (2+3)! / 2! 3! and so on.
        for (writes, count) in [(&[1, 2][..], 10), (&[0, 0, 0], 6), (&[1, 1, 1], 90), (&[2, 2, 2], 1680), (&[9], 1)] {
            for one_cell in [false, true] {
                let explored = explore(Exhaustive::all_interleavings(), writers(writes, one_cell));
                assert_eq!((explored.runs, explored.redundant, explored.complete), (count, 0, true));
            }
        }
    }

    #[test]
    fn actors_that_share_nothing_have_one_partial_order() {
        for writes in [&[1, 2][..], &[3, 3, 3], &[1, 1, 1, 1, 1]] {
            let explored = explore(Exhaustive::new(), writers(writes, false));
            assert_eq!((explored.runs, explored.complete), (1, true), "{writes:?}");
        }
    }

    #[test]
    fn writers_of_one_cell_have_one_partial_order_for_each_order_of_their_writes() {
        // First steps commute with everything, so only the writes count: 3! / 1! 2! and so on.
        for (writes, count) in [(&[1, 2][..], 3), (&[1, 1, 1], 6), (&[2, 2, 2], 90)] {
            let explored = explore(Exhaustive::new(), writers(writes, true));
            assert_eq!((explored.runs, explored.complete), (count, true), "{writes:?}");
        }
    }

    #[test]
    fn two_read_and_write_pairs_have_four_partial_orders_two_of_which_lose_an_update() {
        let setup = |world: &World| {
            let counter = world.cell(0u32);
            let done = world.cell(0u32);
            for _ in 0..2 {
                let (counter, done, world) = (counter.clone(), done.clone(), world.clone());
                world.clone().spawn("adder", async move {
                    let seen = counter.get().await;
                    counter.set(seen + 1).await;
                    // Counts without a step: the second to come here is the last.
                    done.poke(done.peek() + 1);
                    world.check(done.peek() < 2 || counter.peek() == 2, "an update was lost");
                });
            }
        };
        let explored = explore(Exhaustive::new(), setup);
        assert_eq!((explored.runs, explored.bugs, explored.complete), (4, 2, true));
        assert_eq!(explored.to_string(), format!("explored all 4 runs ({} more cut as redundant): 2 with a bug", explored.redundant));
    }

    #[test]
    fn sleep_sets_lose_no_final_state() {
        // Final values over all interleavings, with and without reduction, for programs with conflicts of every kind.
        use std::collections::BTreeSet;
        for shape in 0..4u32 {
            let finals = |exhaustive: Exhaustive| {
                let seen = RefCell::new(BTreeSet::new());
                let mut exhaustive = exhaustive;
                while let Some(policy) = exhaustive.next_policy() {
                    let world = World::new(policy);
                    let (a, b, lock) = (world.cell(1u32), world.cell(1u32), world.lock());
                    for me in 1..=3u32 {
                        let (a, b, lock) = (a.clone(), b.clone(), lock.clone());
                        world.spawn("mixer", async move {
                            if shape & 1 == 1 {
                                lock.lock().await;
                            }
                            let seen = if me % 2 == 0 { a.get().await } else { b.get().await };
                            a.set(seen * 3 + me).await;
                            if shape & 1 == 1 {
                                lock.unlock().await;
                            }
                            if shape & 2 == 2 {
                                b.fetch_add(me * 10).await;
                            }
                        });
                    }
                    let outcome = world.run_until(1000, || exhaustive.is_redundant());
                    if !exhaustive.is_redundant() {
                        seen.borrow_mut().insert((a.peek(), b.peek(), outcome.burst == crate::engine::Burst::Deadlock));
                    }
                }
                seen.into_inner()
            };
            // Without reduction the larger shapes are too many; delays up to 8 reach all of their final states as well.
            let all = if shape == 0 { finals(Exhaustive::all_interleavings()) } else { finals(Exhaustive::delay_bounded(6)) };
            let reduced = finals(Exhaustive::new());
            assert!(all.is_subset(&reduced), "shape {shape}: {all:?} against {reduced:?}");
            assert!(shape != 0 || all == reduced);
        }
    }

    #[test]
    fn small_programs_are_explored_to_the_end_and_their_bugs_found() {
        for program in [Program::BluetoothDriver, Program::Deadlock01, Program::Twostage { writers: 1, readers: 1 }, Program::Lazy01] {
            let explored = explore(Exhaustive::new(), |world| program.spawn(world));
            assert!(explored.complete && explored.bugs > 0 && explored.bugs < explored.runs, "{program}: {explored}");
        }
    }

    #[test]
    fn other_choices_are_explored_too() {
        let setup = |world: &World| {
            let core = world.core().clone();
            let world = world.clone();
            world.clone().spawn("chooser", async move {
                let placed = core.choose(ChoiceKind::Placement, 3);
                let failed = core.fails(ChoiceKind::AllocFails, 0);
                let evicted = core.odds(ChoiceKind::Hardware, 1);
                world.check(!(placed == 2 && failed && evicted), "the one combination out of twelve");
            });
        };
        let explored = explore(Exhaustive::new(), setup);
        assert_eq!((explored.runs, explored.bugs, explored.complete), (12, 1, true));
    }

    #[test]
    fn more_delays_make_more_runs_and_one_is_enough_for_a_lost_pair() {
        let run = |delays| explore(Exhaustive::delay_bounded(delays), |world| Program::Twostage { writers: 1, readers: 1 }.spawn(world));
        let explored: Vec<_> = (0..3).map(run).collect();
        assert_eq!(explored[0].runs, 1);
        assert!(explored.iter().all(|explored| explored.complete && explored.redundant == 0));
        assert!(explored[0].runs < explored[1].runs && explored[1].runs < explored[2].runs);
        let first = explored.iter().position(|explored| explored.bugs > 0);
        assert!(first.is_some_and(|delays| delays > 0), "{explored:?}");
    }

    #[test]
    fn a_search_cut_short_says_so() {
        let mut exhaustive = Exhaustive::all_interleavings();
        let explored = World::explore(&mut exhaustive, 100, 1000, writers(&[4, 4, 4], true));
        assert_eq!((explored.runs, explored.complete), (100, false));
        assert_eq!(explored.to_string(), "explored 100 runs, not all: 0 with a bug");
    }
}
