//! Goal: stalls are where and as long as one would work them out by hand, and the computed sum is the least. Method: programs of a few
//! steps that all take a nanosecond, and random orders small enough to try all times.

use super::order::Edge;
use super::*;
use crate::engine::{Burst, Op, OpKind};
use crate::entropy::{Entropy, Stream};
use crate::policy::{FaultPlan, PolicySpec, Profile};
use crate::shared::{Outcome, World};

const STEP: u64 = 1_000;

/// The window of the first failing run under a uniform schedule, all steps taking the same time.
fn window_of(program: impl Fn(Box<dyn Policy>) -> Outcome) -> Window {
    let build = |seed| PolicySpec::Uniform.build(seed, &Profile::default(), FaultPlan::Never);
    let found = (0..10_000).map(|seed| program(build(seed))).find(|run| run.failure.is_some()).expect("some seed fails");
    let costs = vec![STEP; found.steps as usize];
    let window = window(&found.record, &costs, |policy| program(policy).failure == found.failure).expect("it fails again");
    let replayed = program(Box::new(Replay::new(window.list.clone())));
    assert_eq!(replayed.failure, found.failure);
    window
}

/// The reader fails when its only read comes after the writer's last step, of which there are `padding` before.
fn late_reader(policy: Box<dyn Policy>, padding: u32) -> Outcome {
    let world = World::new(policy);
    let (flag, own) = (world.cell(0u32), world.cell(0u32));
    let set = flag.clone();
    world.spawn("writer", async move {
        for step in 0..padding {
            own.set(step).await;
        }
        set.set(1).await;
    });
    let check = world.clone();
    world.spawn("reader", async move { check.check(flag.get().await == 0, "too late") });
    world.run(10_000)
}

#[test]
fn who_comes_too_early_is_stalled_for_the_difference() {
    let window = window_of(|policy| late_reader(policy, 10));
    let [stall] = &window.stalls[..] else { panic!("{window:?}") };
    // The writer begins, pads and sets: its last step ends at 12 ns. The reader begins and reads at 2 ns.
    assert_eq!((stall.who.as_str(), stall.nth, stall.op.kind()), ("reader", 1, OpKind::Read));
    assert!(window.confirmed && (10 * STEP..=11 * STEP).contains(&stall.picoseconds), "{stall:?}");
    assert!((10 * STEP..=10 * STEP + 1).contains(&window.all_picoseconds), "{window:?}");
    let after = stall.after.expect("the writer's last step");
    assert_eq!((after.actor, after.op.kind()), (ActorId(0), OpKind::Write));
}

#[test]
fn what_comes_about_by_itself_needs_no_stall() {
    // The reader has more to do than the writer: it is late without any help.
    let program = |policy: Box<dyn Policy>| {
        let world = World::new(policy);
        let (flag, own) = (world.cell(0u32), world.cell(0u32));
        let set = flag.clone();
        world.spawn("writer", async move { set.set(1).await });
        let check = world.clone();
        world.spawn("reader", async move {
            for step in 0..5 {
                own.set(step).await;
            }
            check.check(flag.get().await == 0, "too late");
        });
        world.run(10_000)
    };
    let window = window_of(program);
    assert!(window.confirmed && window.stalls.is_empty() && window.all_picoseconds == 0, "{window:?}");
}

#[test]
fn waiting_for_a_lock_and_resting_between_turns_are_no_stalls() {
    let program = |policy: Box<dyn Policy>| {
        let world = World::new(policy);
        let (lock, own, flag) = (world.lock(), world.cell(0u32), world.cell(0u32));
        let held = lock.clone();
        world.spawn("holder", async move {
            held.lock().await;
            for step in 0..50 {
                own.set(step).await;
            }
            flag.set(1).await;
            held.unlock().await;
        });
        let check = world.clone();
        world.spawn_daemon("daemon", async move {
            let core = check.core().clone();
            core.step(Op::turn()).await;
            lock.lock().await;
            check.check(false, "the lock was got");
        });
        world.run(10_000)
    };
    let window = window_of(program);
    assert!(window.confirmed && window.stalls.is_empty(), "{window:?}");
}

#[test]
fn who_must_not_go_on_is_stalled_to_the_end() {
    // The reader fails between the writer's two writes; it begins with three steps more than the writer.
    let program = |policy: Box<dyn Policy>| {
        let world = World::new(policy);
        let (pair, own) = (world.cell(0u32), world.cell(0u32));
        let set = pair.clone();
        world.spawn("writer", async move {
            set.set(1).await;
            set.set(2).await;
        });
        let check = world.clone();
        world.spawn("reader", async move {
            for step in 0..3 {
                own.set(step).await;
            }
            check.check(pair.get().await != 1, "half written");
        });
        world.run(10_000)
    };
    let window = window_of(program);
    let [stall] = &window.stalls[..] else { panic!("{window:?}") };
    // The reader reads at 5 ns, the writer would have written again at 3 ns: a write of the policy's own cost, since it never came to it.
    assert_eq!((stall.who.as_str(), stall.nth, stall.step, stall.own_before.is_some()), ("writer", 2, None, true), "{stall:?}");
    let natural = 2 * STEP + Timed::picoseconds(OpKind::Write);
    let least = 5 * STEP - natural;
    assert!(window.confirmed && (least..=least + STEP).contains(&stall.picoseconds), "{stall:?}");
}

#[test]
fn what_no_announcement_tells_is_kept_by_the_whole_order() {
    // The late reader again, but the flag is read and written beside the steps.
    let program = |policy: Box<dyn Policy>| {
        let world = World::new(policy);
        let (flag, own, other) = (world.cell(0u32), world.cell(0u32), world.cell(0u32));
        let set = flag.clone();
        world.spawn("writer", async move {
            for step in 0..10 {
                own.set(step).await;
            }
            set.poke(1);
        });
        let check = world.clone();
        world.spawn("reader", async move {
            other.set(1).await;
            check.check(flag.peek() == 0, "too late");
        });
        world.run(10_000)
    };
    let window = window_of(program);
    let [stall] = &window.stalls[..] else { panic!("{window:?}") };
    assert_eq!((stall.who.as_str(), window.confirmed), ("reader", true));
    assert!((9 * STEP..=10 * STEP).contains(&stall.picoseconds), "{stall:?}");
}

#[test]
fn order_that_does_not_matter_is_given_up() {
    // Beside the late reader two others change a cell each in the order found, which may be anything.
    let program = |policy: Box<dyn Policy>| {
        let world = World::new(policy);
        let (flag, noise) = (world.cell(0u32), world.cell(0u32));
        let set = flag.clone();
        for _ in 0..2 {
            let noise = noise.clone();
            world.spawn("noise", async move {
                for step in 0..10 {
                    noise.set(step).await;
                }
            });
        }
        world.spawn("writer", async move {
            noise.set(0).await;
            set.set(1).await;
        });
        let check = world.clone();
        world.spawn("reader", async move { check.check(flag.get().await == 0, "too late") });
        world.run(10_000)
    };
    let window = window_of(program);
    let names: Vec<&str> = window.stalls.iter().map(|stall| stall.who.as_str()).collect();
    assert_eq!((names, window.confirmed), (vec!["reader"], true), "{window:?}");
    assert!(window.all_picoseconds >= window.stalls[0].picoseconds);
}

#[test]
fn what_does_not_fit_has_no_window() {
    let mut found = (0..1000).map(|seed| late_reader(PolicySpec::Uniform.build(seed, &Profile::default(), FaultPlan::Never), 3));
    let found = found.find(|run| run.failure.is_some() && run.burst == Burst::Halted).expect("some seed fails");
    let costs = vec![STEP; found.steps as usize];
    let fails = |policy| late_reader(policy, 3).failure == found.failure;
    assert!(window(&found.record, &costs, fails).is_some());
    assert!(window(&found.record, &costs[1..], fails).is_none());
    assert!(
        window(&found.record, &costs, |policy| {
            late_reader(policy, 3);
            false
        })
        .is_none()
    );
}

/// The least sum of stalls, by trying all times below `limit`.
fn by_trying(order: &Order, limit: u64) -> u64 {
    fn go(order: &Order, times: &mut Vec<u64>, limit: u64, best: &mut u64) {
        let node = times.len();
        if node == order.nodes {
            let stalls = order.ready.iter().enumerate().filter_map(|(node, ready)| Some(times[node] - times[(*ready)?]));
            *best = stalls.sum::<u64>().min(*best);
            return;
        }
        let bounds = order.edges.iter().filter(|edge| edge.later == node).map(|edge| times[edge.earlier] + edge.gap);
        for time in bounds.max().unwrap_or(0)..limit {
            times.push(time);
            go(order, times, limit, best);
            times.pop();
        }
    }
    let mut best = u64::MAX;
    go(order, &mut vec![0], limit, &mut best);
    best
}

#[test]
fn the_computed_sum_is_the_least() {
    let mut entropy = Entropy::new(7, Stream::Workload);
    let mut interesting = 0;
    for _ in 0..300 {
        let nodes = 3 + entropy.below(3) as usize;
        let mut order = Order { nodes, edges: Vec::new(), ready: vec![None; nodes] };
        for later in 1..nodes {
            order.edges.push(Edge { earlier: 0, later, gap: 1 });
            for _ in 0..2 {
                let earlier = entropy.below(later as u32) as usize;
                order.edges.push(Edge { earlier, later, gap: u64::from(1 + entropy.below(3)) });
            }
            let ready = entropy.below(later as u32) as usize;
            if entropy.below(4) > 0 {
                order.edges.push(Edge { earlier: ready, later, gap: 1 });
                order.ready[later] = Some(ready);
            }
        }
        let times = least::times(&order);
        for edge in &order.edges {
            assert!(times[edge.later] >= times[edge.earlier] + edge.gap, "{:?} {times:?}", order.edges);
        }
        let sum: u64 = order.ready.iter().enumerate().filter_map(|(node, ready)| Some(times[node] - times[(*ready)?])).sum();
        // Nothing has to come later than after the longest gap from each node to the next.
        assert_eq!(sum, by_trying(&order, 3 * nodes as u64), "{:?} {:?} {times:?}", order.edges, order.ready);
        interesting += u64::from(sum > order.ready.iter().flatten().count() as u64);
    }
    assert!(interesting > 100, "{interesting}");
}
