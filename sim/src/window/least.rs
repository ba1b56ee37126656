//! The times with the least sum of stalls that keep an order.
//!
//! Method: the sum is linear and every constraint is a difference, so that this is the dual of a minimum-cost flow (Ahuja, Magnanti, Orlin,
//! "Network Flows", 1993, sections 9.4 and 9.7): each step that should go as soon as it is ready takes one unit of flow from where it was
//! ready; the flow goes the longest way; the potentials are the times. Solved by successive shortest paths, exactly, in integers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::order::Order;

/// One direction of an edge with flow.
#[derive(Clone, Copy)]
struct Arc {
    to: usize,
    /// Least time from here to there; of a way back, minus that.
    gap: i64,
    /// Units that may still go; ways forth take any number.
    room: u32,
    /// The same edge in the other direction.
    back: usize,
}

/// When each node ends, node 0 among them at the time of the first.
pub(super) fn times(order: &Order) -> Vec<u64> {
    let mut network = Network::new(order);
    network.start();
    while network.augment() {}
    let first = network.times[0];
    network.times.iter().map(|time| u64::try_from(time - first).unwrap_or(0)).collect()
}

struct Network {
    arcs: Vec<Vec<Arc>>,
    /// Units to be sent from a node; negative: to be taken there.
    excess: Vec<i64>,
    times: Vec<i64>,
}

impl Network {
    fn new(order: &Order) -> Network {
        let mut network = Network { arcs: vec![Vec::new(); order.nodes], excess: vec![0; order.nodes], times: vec![0; order.nodes] };
        for edge in &order.edges {
            network.connect(edge.earlier, edge.later, edge.gap as i64);
        }
        for (node, ready) in order.ready.iter().enumerate() {
            if let Some(ready) = *ready {
                network.excess[ready] += 1;
                network.excess[node] -= 1;
            }
        }
        network
    }

    fn connect(&mut self, from: usize, to: usize, gap: i64) {
        let (forth, back) = (self.arcs[from].len(), self.arcs[to].len());
        self.arcs[from].push(Arc { to, gap, room: u32::MAX, back });
        self.arcs[to].push(Arc { to: from, gap: -gap, room: 0, back: forth });
    }

    /// Starts with the earliest times: the longest ways from the start.
    fn start(&mut self) {
        let mut waiting: std::collections::VecDeque<usize> = (0..self.arcs.len()).collect();
        let mut queued = vec![true; self.arcs.len()];
        while let Some(node) = waiting.pop_front() {
            queued[node] = false;
            for arc in &self.arcs[node] {
                if arc.room > 0 && self.times[arc.to] < self.times[node] + arc.gap {
                    self.times[arc.to] = self.times[node] + arc.gap;
                    if !std::mem::replace(&mut queued[arc.to], true) {
                        waiting.push_back(arc.to);
                    }
                }
            }
        }
    }

    /// Sends a unit from some node that has too many to the nearest that wants one, by slack; false when none is left.
    fn augment(&mut self) -> bool {
        let nodes = self.arcs.len();
        let mut slack = vec![i64::MAX; nodes];
        let mut came_by = vec![None; nodes];
        let mut heap = BinaryHeap::new();
        for node in (0..nodes).filter(|&node| self.excess[node] > 0) {
            slack[node] = 0;
            heap.push((Reverse(0), node));
        }
        let mut found = None;
        while let Some((Reverse(so_far), node)) = heap.pop() {
            if so_far > slack[node] {
                continue;
            }
            if self.excess[node] < 0 {
                found = Some((node, so_far));
                break;
            }
            for (index, arc) in self.arcs[node].iter().enumerate().filter(|(_, arc)| arc.room > 0) {
                let next = so_far + (self.times[arc.to] - self.times[node] - arc.gap);
                if next < slack[arc.to] {
                    slack[arc.to] = next;
                    came_by[arc.to] = Some((node, index));
                    heap.push((Reverse(next), arc.to));
                }
            }
        }
        let Some((end, reach)) = found else { return false };
        for (time, slack) in self.times.iter_mut().zip(&slack) {
            *time -= (*slack).min(reach);
        }
        self.excess[end] += 1;
        let mut node = end;
        while let Some((from, index)) = came_by[node] {
            let arc = &mut self.arcs[from][index];
            arc.room -= u32::from(arc.room != u32::MAX);
            let back = arc.back;
            let opposite = &mut self.arcs[node][back];
            opposite.room += u32::from(opposite.room != u32::MAX);
            node = from;
        }
        self.excess[node] -= 1;
        true
    }
}
