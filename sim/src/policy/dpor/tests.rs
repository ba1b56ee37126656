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
fn reading_down_to_the_last_zero_has_the_published_number_of_classes() {
    // The program lastzero(n) of the paper: 9 * 2^14 classes for n = 15, that is (n + 3) * 2^n / 4.
    for n in 1..=8usize {
        let explored = explore(|world| {
            let array = world.cells(n + 1, 0u32);
            let read = array.clone();
            world.spawn("reader", async move {
                let mut place = n;
                while read[place].get().await != 0 {
                    place -= 1;
                }
            });
            for place in 1..=n {
                let array = array.clone();
                world.spawn("writer", async move {
                    let seen = array[place - 1].get().await;
                    array[place].set(seen + 1).await;
                });
            }
        });
        assert_eq!((explored.runs, explored.complete), ((n as u64 + 3) << n >> 2, true), "{n}");
    }
}

#[test]
fn actors_under_one_lock_have_a_class_for_each_order_in_which_they_take_it() {
    for (nr_actors, orders) in [(2, 2), (3, 6), (4, 24)] {
        for is_given_back in [true, false] {
            let explored = explore(|world| {
                let lock = world.lock();
                for _ in 0..nr_actors {
                    let lock = lock.clone();
                    world.spawn("taker", async move {
                        lock.lock().await;
                        if is_given_back {
                            lock.unlock().await;
                        }
                    });
                }
            });
            // Where the first keeps it, the others wait for ever, in no order.
            let classes = if is_given_back { orders } else { nr_actors };
            assert_eq!((explored.runs, explored.complete), (classes, true), "{nr_actors} {is_given_back}");
        }
    }
}

#[test]
fn readers_of_a_lock_have_no_order_and_a_writer_comes_between_any_of_them() {
    for (readers, writers, classes) in [(3, 0, 1), (1, 1, 2), (2, 1, 4), (3, 1, 8), (0, 3, 6)] {
        let explored = explore(|world| {
            let lock = world.rwlock();
            for number in 0..readers + writers {
                let lock = lock.clone();
                world.spawn("taker", async move {
                    if number < readers {
                        lock.read().await
                    } else {
                        lock.write().await
                    }
                    lock.unlock().await;
                });
            }
        });
        assert_eq!((explored.runs, explored.complete), (classes, true), "{readers} {writers}");
    }
}

#[test]
fn a_value_that_is_waited_for_is_read_once_where_it_is_there() {
    for (writes, wanted, classes, endless) in [(&[1][..], 1, 1, 0), (&[1, 0, 1], 1, 2, 0), (&[1, 2], 1, 2, 1), (&[1], 2, 1, 1)] {
        let explored = explore(|world| {
            let cell = world.cell(0u32);
            let written = cell.clone();
            world.spawn("writer", async move {
                for &value in writes {
                    written.set(value).await;
                }
            });
            world.spawn("waiter", async move { assert_eq!(cell.until(move |value| value == wanted).await, wanted) });
        });
        assert_eq!((explored.runs, explored.bugs, explored.complete), (classes, endless, true), "{writes:?} {wanted}");
    }
}

#[test]
fn two_counters_under_one_lock_have_exactly_the_classes_that_force_finds() {
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
    let programs = [(Program::BluetoothDriver, 10, 1), (Program::Deadlock01, 3, 1), (twostage, 3, 1), (Program::Stringbuffer, 3, 1)];
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
    TryLocked(usize, usize),
    Kept(usize),
    Reading(usize),
    Writing(usize),
    Until(usize),
    Both,
    Acquire,
    Release,
    WriteIfZero(usize, usize),
}

fn random_op(entropy: &mut Entropy) -> Random {
    let (one, two) = (entropy.below(2) as usize, entropy.below(2) as usize);
    match entropy.below(18) {
        0..2 => Random::Read(one),
        2..4 => Random::Write(one),
        4 => Random::Add(one),
        5..7 => Random::Locked(one, two),
        7 => Random::Both,
        8 => Random::Acquire,
        9 => Random::Release,
        10 => Random::TryLocked(one, two),
        11 => Random::Kept(one),
        12 => Random::Reading(one),
        13 => Random::Writing(one),
        14..16 => Random::Until(one),
        _ => Random::WriteIfZero(one, two),
    }
}

/// A program of two or three actors, some started and joined by the first, with locks in both orders, a lock that is kept, a semaphore and
/// a value waited for, which can leave them blocked for ever.
fn spawn_random(seed: u64, world: &World) {
    let mut entropy = Entropy::new(seed, Stream::Workload);
    let cells: Vec<Shared<u32>> = (0..2).map(|_| world.cell(0u32)).collect();
    let locks: Vec<_> = (0..2).map(|_| world.lock()).collect();
    let semaphore = world.semaphore(entropy.below(2));
    let rwlock = world.rwlock();
    let nr_actors = 2 + entropy.below(2) as usize;
    let length = if nr_actors == 2 { 4 } else { 3 };
    let mut programs: Vec<_> = (0..nr_actors)
        .map(|_| {
            let ops: Vec<Random> = (0..1 + entropy.below(length)).map(|_| random_op(&mut entropy)).collect();
            let (cells, locks, semaphore, rwlock) = (cells.clone(), locks.clone(), semaphore.clone(), rwlock.clone());
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
                        Random::TryLocked(lock, cell) => {
                            if locks[lock].try_lock().await {
                                cells[cell].set(4).await;
                                locks[lock].unlock().await;
                            }
                        }
                        Random::Kept(lock) => locks[lock].lock().await,
                        Random::Reading(cell) => {
                            rwlock.read().await;
                            cells[cell].get().await;
                            rwlock.unlock().await;
                        }
                        Random::Writing(cell) => {
                            rwlock.write().await;
                            cells[cell].set(2).await;
                            rwlock.unlock().await;
                        }
                        Random::Until(cell) => drop(cells[cell].until(|value| value > 2).await),
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
    for seed in 0..400 {
        let Some(classes) = classes_by_force(|world| spawn_random(seed, world), 12_000) else { continue };
        let explored = explore(|world| spawn_random(seed, world));
        assert!(explored.complete, "seed {seed}");
        assert_eq!(explored.runs, classes, "seed {seed}: {explored}");
        compared += 1;
        blocked += u32::from(explored.bugs > 0);
        most = most.max(classes);
    }
    // The comparison must have had something to compare.
    assert!(compared > 150 && blocked > 20 && most > 24, "{compared} programs, {blocked} that block, at most {most} classes");
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
