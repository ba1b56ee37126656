//! Which steps of a run depend on which: everything its order has to keep so that it stays the same run.

use super::witness::Step;
use crate::engine::OpKind;

/// `later` ends at least `gap` after `earlier`. Nodes are steps, counted from 1; node 0 is the start of the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Edge {
    pub(super) earlier: usize,
    pub(super) later: usize,
    pub(super) gap: u64,
}

/// How much of a run's order is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kept {
    /// That of steps that depend on each other, as far as announcements tell.
    Dependent,
    /// That of all steps.
    Whole,
}

/// The dependences of a run.
pub(super) struct Order {
    /// Number of nodes.
    pub(super) nodes: usize,
    pub(super) edges: Vec<Edge>,
    /// For each node from when on it could have gone: its time less this one's, less its cost, is a stall. `None`: it goes when it likes.
    pub(super) ready: Vec<Option<usize>>,
}

/// Time that must lie between two steps of different actors that do not commute, in picoseconds.
const APART: u64 = 1;

impl Order {
    /// The dependences of `steps`, whose costs are in picoseconds. The first `nr_performed` of them were performed in this order, the others
    /// were announced when the run ended.
    pub(super) fn of(steps: &[Step], nr_performed: usize, kept: Kept, cost: impl Fn(usize) -> u64) -> Order {
        let nodes = steps.len() + 1;
        let mut order = Order { nodes, edges: Vec::new(), ready: vec![None; nodes] };
        let nr_actors = steps.iter().map(|step| step.actor.index() + 1).max().unwrap_or(0);
        for (at, step) in steps.iter().enumerate() {
            order.add(steps, at, step, cost(at), nr_actors);
        }
        for step in steps {
            // Who is woken waited already.
            if let (Some(cause), Some(before)) = (step.cause, step.before)
                && before < cause
            {
                order.edges.push(Edge { earlier: before + 1, later: cause + 1, gap: APART });
            }
        }
        if kept == Kept::Whole {
            order.edges.extend((2..=nr_performed).map(|later| Edge { earlier: later - 1, later, gap: APART }));
        }
        // Steps announced and not performed would have come after the last one.
        order.edges.extend((nr_performed + 1..nodes).map(|later| Edge { earlier: nr_performed, later, gap: APART }));
        order
    }

    fn add(&mut self, steps: &[Step], at: usize, step: &Step, cost: u64, nr_actors: usize) {
        let later = at + 1;
        let mut edge = |earlier: usize, gap| self.edges.push(Edge { earlier, later, gap });
        edge(0, cost);
        if let Some(before) = step.before {
            edge(before + 1, cost);
        }
        if let Some(cause) = step.cause {
            edge(cause + 1, cost);
        }
        for &before in &step.follows {
            edge(before + 1, APART);
        }
        // The last conflicting step of each other actor: those before it come before it anyway.
        let mut seen = vec![false; nr_actors];
        seen[step.actor.index()] = true;
        let mut left = nr_actors - 1;
        let mut latest = None;
        for (before, other) in steps[..at].iter().enumerate().rev() {
            if left == 0 {
                break;
            }
            if !seen[other.actor.index()] && other.op.conflicts(&step.op) {
                seen[other.actor.index()] = true;
                left -= 1;
                edge(before + 1, APART);
                latest = latest.or(Some(before));
            }
        }
        self.ready[later] = match (step.op.kind(), step.cause, step.before) {
            // A daemon takes its turn when it likes; a pause takes as long as it takes.
            (OpKind::Turn | OpKind::Yield, ..) => None,
            (_, None, None) => Some(0),
            (_, Some(cause), _) => Some(cause + 1),
            (_, None, Some(before)) => Some(polled(steps, before, latest).unwrap_or(before) + 1),
        };
    }
}

/// A step after a pause looks again at what somebody else has changed meanwhile: from then on it could go.
fn polled(steps: &[Step], before: usize, latest: Option<usize>) -> Option<usize> {
    let mut own = Some(before).filter(|&before| steps[before].op.is(OpKind::Yield))?;
    while steps[own].op.is(OpKind::Yield) {
        own = steps[own].before?;
    }
    latest.filter(|&latest| latest > own)
}
