//! Counts of classes, against arithmetic and against all interleavings.

use std::collections::BTreeSet;

use super::super::{Exhaustive, FaultPlan, PolicySpec};
use super::*;
use crate::engine::ChoiceKind;
use crate::entropy::{Entropy, Stream};
use crate::programs::Program;
use crate::shared::{Explored, Shared, World};

const RUNS_MAX: u64 = 400_000;

fn explore(setup: impl Fn(&World)) -> Explored {
    World::explore(&mut Dpor::new(), RUNS_MAX, 2000, setup)
}

/// A step with the steps it conflicts with and that came before, all named by actor and number.
type Described = (ActorId, u32, u8, Object, Vec<u32>, Vec<(ActorId, u32)>);

/// A step as it was made: who, what, and the outcomes of its other choices.
type Step = (ActorId, Op, Vec<u32>);

/// Counts classes the slow way: describes each run by the order of its conflicting steps, with no clocks and no reduction.
struct Describe {
    inner: Box<dyn Policy>,
    steps: Rc<RefCell<Vec<Step>>>,
}

impl Policy for Describe {
    fn choose(&mut self, choice: Choice<'_>) -> u32 {
        let value = self.inner.choose(choice);
        if !matches!(choice, Choice::Schedule(_)) {
            self.steps.borrow_mut().last_mut().expect("a step").2.push(value);
        }
        value
    }
    fn performed(&mut self, actor: ActorId, op: Op) {
        self.steps.borrow_mut().push((actor, op, Vec::new()));
        self.inner.performed(actor, op);
    }
    fn name(&self) -> String {
        self.inner.name()
    }
}

fn description(steps: &[Step]) -> Vec<Described> {
    let nr_of = |index: usize| steps[..=index].iter().filter(|step| step.0 == steps[index].0).count() as u32;
    let mut described: Vec<Described> = (0..steps.len())
        .map(|index| {
            let (actor, op, outcomes) = &steps[index];
            let earlier = (0..index).filter(|&earlier| steps[earlier].1.conflicts(op));
            let mut earlier: Vec<(ActorId, u32)> = earlier.map(|earlier| (steps[earlier].0, nr_of(earlier))).collect();
            earlier.sort_unstable();
            (*actor, nr_of(index), op.kind() as u8, op.object(), outcomes.clone(), earlier)
        })
        .collect();
    described.sort_unstable();
    described
}

/// Number of classes, over all interleavings; `None` when there are more interleavings than can be made.
fn classes_by_force(setup: impl Fn(&World), runs_max: u64) -> Option<u64> {
    let mut all = Exhaustive::all_interleavings();
    let mut classes = BTreeSet::new();
    for _ in 0..runs_max {
        let Some(inner) = all.next_policy() else { return Some(classes.len() as u64) };
        let steps = Rc::new(RefCell::new(Vec::new()));
        let world = World::new(Box::new(Describe { inner, steps: steps.clone() }));
        setup(&world);
        world.run(2000);
        classes.insert(description(&steps.borrow()));
    }
    None
}

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
fn writers_of_one_cell_have_one_class_for_each_order_of_their_writes() {
    for (writes, count) in [(&[1, 2][..], 3), (&[1, 1, 1], 6), (&[2, 2, 2], 90), (&[1, 1, 1, 1, 1], 120)] {
        let explored = explore(writers(writes, true));
        assert_eq!((explored.runs, explored.complete), (count, true), "{writes:?}");
    }
}

#[test]
fn actors_that_share_nothing_have_one_class_and_take_one_run() {
    for writes in [&[1, 2][..], &[5, 5, 5, 5], &[1; 12]] {
        let explored = explore(writers(writes, false));
        assert_eq!((explored.runs, explored.redundant, explored.complete), (1, 0, true), "{writes:?}");
    }
}

#[test]
fn one_writer_and_n_readers_have_two_to_the_n_classes() {
    // The program of the paper's introduction to source sets: each reader comes before the write or after it.
    for readers in 1..=8 {
        let explored = explore(|world| {
            let cell = world.cell(0u32);
            let read = cell.clone();
            world.spawn("writer", async move { cell.set(1).await });
            for _ in 0..readers {
                let read = read.clone();
                world.spawn("reader", async move {
                    read.get().await;
                });
            }
        });
        assert_eq!((explored.runs, explored.complete), (1 << readers, true));
    }
}

#[test]
fn three_actors_under_one_lock_have_as_many_classes_as_orders_of_attempts() {
    let program = |world: &World| {
        let (lock, counter) = (world.lock(), world.cell(0u32));
        for _ in 0..2 {
            let (lock, counter) = (lock.clone(), counter.clone());
            world.spawn("counter", async move {
                lock.lock().await;
                let seen = counter.get().await;
                counter.set(seen + 1).await;
                lock.unlock().await;
            });
        }
    };
    let explored = explore(program);
    assert!(explored.complete && explored.bugs == 0);
    assert_eq!(Some(explored.runs), classes_by_force(program, 100_000));
}

#[test]
fn small_public_programs_have_exactly_the_classes_that_force_finds() {
    let twostage = Program::Twostage { writers: 1, readers: 1 };
    let programs = [(Program::BluetoothDriver, 10, 1), (Program::Deadlock01, 9, 1), (twostage, 10, 4), (Program::Stringbuffer, 10, 4)];
    for (program, classes, bugs) in programs {
        let explored = explore(|world| program.spawn(world));
        assert_eq!((explored.runs, explored.bugs, explored.complete), (classes, bugs, true), "{program}");
        // By force the runs must not end at a failed check either.
        assert_eq!(classes_by_force(|world| spawn_unchecked(program, world), 300_000), Some(classes), "{program}");
    }
}

fn spawn_unchecked(program: Program, world: &World) {
    world.set_goes_on(true);
    program.spawn(world);
}

#[test]
fn fewer_runs_are_cut_than_by_sleep_sets_alone() {
    let program = Program::Reorder { setters: 2, checkers: 1 };
    let by_sleep = World::explore(&mut Exhaustive::new(), RUNS_MAX, 2000, |world| spawn_unchecked(program, world));
    let explored = explore(|world| program.spawn(world));
    assert!(explored.complete && by_sleep.complete);
    assert_eq!(explored.runs, by_sleep.runs, "both make one run for each class");
    assert!(explored.redundant * 2 < by_sleep.redundant, "{} against {}", explored.redundant, by_sleep.redundant);
}

#[test]
fn outcomes_of_other_choices_are_all_tried_in_every_class() {
    let program = |world: &World| {
        let cell = world.cell(0u32);
        for _ in 0..2 {
            let (cell, core) = (cell.clone(), world.core().clone());
            world.spawn("chooser", async move {
                cell.set(1).await;
                core.choose(ChoiceKind::Placement, 3);
                cell.get().await;
            });
        }
    };
    let explored = explore(program);
    assert_eq!((Some(explored.runs), explored.complete), (classes_by_force(program, 100_000), true));
}

/// One operation of a random program.
#[derive(Clone, Copy, Debug)]
enum Random {
    Read(usize),
    Write(usize),
    Add(usize),
    Locked(usize, usize),
    Both,
    Acquire,
    Release,
    WriteIfZero(usize, usize),
}

fn random_op(entropy: &mut Entropy) -> Random {
    let (one, two) = (entropy.below(2) as usize, entropy.below(2) as usize);
    match entropy.below(12) {
        0..2 => Random::Read(one),
        2..4 => Random::Write(one),
        4 => Random::Add(one),
        5..7 => Random::Locked(one, two),
        7 => Random::Both,
        8 => Random::Acquire,
        9 => Random::Release,
        _ => Random::WriteIfZero(one, two),
    }
}

/// A program of two or three actors, some started and joined by the first, with locks in both orders and a semaphore that can
/// leave them blocked for ever.
fn spawn_random(seed: u64, world: &World) {
    let mut entropy = Entropy::new(seed, Stream::Workload);
    let cells: Vec<Shared<u32>> = (0..2).map(|_| world.cell(0u32)).collect();
    let locks: Vec<_> = (0..2).map(|_| world.lock()).collect();
    let semaphore = world.semaphore(entropy.below(2));
    let nr_actors = 2 + entropy.below(2) as usize;
    let length = if nr_actors == 2 { 3 } else { 2 };
    let mut programs: Vec<_> = (0..nr_actors)
        .map(|_| {
            let ops: Vec<Random> = (0..1 + entropy.below(length)).map(|_| random_op(&mut entropy)).collect();
            let (cells, locks, semaphore) = (cells.clone(), locks.clone(), semaphore.clone());
            async move {
                for op in ops {
                    match op {
                        Random::Read(cell) => drop(cells[cell].get().await),
                        Random::Write(cell) => cells[cell].set(7).await,
                        Random::Add(cell) => drop(cells[cell].fetch_add(1).await),
                        Random::Locked(lock, cell) => {
                            locks[lock].lock().await;
                            cells[cell].set(3).await;
                            locks[lock].unlock().await;
                        }
                        Random::Both => {
                            // Which lock comes first depends on what is read.
                            let first = cells[0].get().await as usize % 2;
                            locks[first].lock().await;
                            locks[1 - first].lock().await;
                            locks[first].unlock().await;
                            locks[1 - first].unlock().await;
                        }
                        Random::Acquire => semaphore.acquire().await,
                        Random::Release => semaphore.release().await,
                        Random::WriteIfZero(read, write) => {
                            if cells[read].get().await == 0 {
                                cells[write].set(5).await;
                            }
                        }
                    }
                }
            }
        })
        .collect();
    if entropy.one_in(3) {
        // The first starts the second and joins it before its own program.
        let (first, second) = (programs.remove(0), programs.remove(0));
        let main = world.clone();
        world.spawn("main", async move {
            let task = main.create("child", second).await;
            task.join().await;
            first.await;
        });
    }
    for program in programs {
        world.spawn("actor", program);
    }
}

#[test]
fn random_programs_have_exactly_the_classes_that_force_finds() {
    let (mut compared, mut blocked, mut most) = (0, 0, 0);
    for seed in 0..300 {
        let Some(classes) = classes_by_force(|world| spawn_random(seed, world), 6000) else { continue };
        let explored = explore(|world| spawn_random(seed, world));
        assert!(explored.complete, "seed {seed}");
        assert_eq!(explored.runs, classes, "seed {seed}: {explored}");
        compared += 1;
        blocked += u32::from(explored.bugs > 0);
        most = most.max(classes);
    }
    // The comparison must have had something to compare.
    assert!(compared > 150 && blocked > 20 && most > 30, "{compared} programs, {blocked} that block, at most {most} classes");
}

#[test]
fn the_random_policies_reach_every_class() {
    // POS, URW and the random walk promise a chance to every class. 10 classes, see above; each must come.
    for spec in [PolicySpec::Uniform, PolicySpec::Pos, PolicySpec::Urw, PolicySpec::Surw, PolicySpec::Rff, PolicySpec::Portfolio] {
        let program = Program::BluetoothDriver;
        let profile = program.profile();
        let mut classes = BTreeSet::new();
        for seed in 0..4000 {
            let inner = spec.build(seed, &profile, FaultPlan::Never);
            let steps = Rc::new(RefCell::new(Vec::new()));
            let world = World::new(Box::new(Describe { inner, steps: steps.clone() }));
            spawn_unchecked(program, &world);
            world.run(2000);
            classes.insert(description(&steps.borrow()));
        }
        assert_eq!(classes.len(), 10, "{spec}");
    }
}
