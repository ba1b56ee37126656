//! The smallest way to use the engine: shared cells, a lock, and a [`World`] of `async` actors that use them.
//!
//! For protocols over plain values, without simulated memory. Every access is one step, announced before it happens; between two
//! steps nothing is shared, so plain Rust code there needs no care. See the crate's examples for a lock, a queue and a stack.
//!
//! ```
//! use sim::policy::PolicySpec;
//! use sim::shared::World;
//!
//! let lost = (0..100).find_map(|seed| {
//!     let world = World::new(PolicySpec::Uniform.build(seed, &Default::default(), Default::default()));
//!     let counter = world.cell(0u32);
//!     for name in ["left", "right"] {
//!         let counter = counter.clone();
//!         world.spawn(name, async move {
//!             let seen = counter.get().await;
//!             counter.set(seen + 1).await;
//!         });
//!     }
//!     world.run(100);
//!     (counter.peek() == 1).then_some(seed)
//! });
//! assert!(lost.is_some(), "no seed lost an update");
//! ```

mod sync;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use sync::Gate;
pub use sync::{Barrier, Condvar, Lock, RwLock, Semaphore};

use crate::engine::{ActorId, Burst, Core, Engine, FutureActor, Group, Life, Object, Op, OpKind, Recorded, Spawn};
use crate::policy::{Explorer, Policy};

/// What creating an actor touches.
const ACTOR_TABLE: Object = Object::free_list(1 << 40);

/// One run: its actors, its cells, and how it ended. Clones are handles to the same run.
#[derive(Clone)]
pub struct World {
    core: Rc<Core>,
    inner: Rc<Inner>,
}

struct Inner {
    next_address: Cell<u64>,
    failure: RefCell<Option<String>>,
    /// A failed check does not end the run.
    goes_on: Cell<bool>,
}

/// How a run of a [`World`] ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Why the engine stopped; [`Burst::Spent`] means the bound on steps was hit: no verdict.
    pub burst: Burst,
    /// The first failed check, if any.
    pub failure: Option<String>,
    /// Steps performed.
    pub steps: u64,
    /// The choices made, for replay.
    pub record: Vec<Recorded>,
}

impl Outcome {
    /// True when a check failed or the actors that should have ended wait for each other.
    pub fn is_bug(&self) -> bool {
        self.failure.is_some() || self.burst == Burst::Deadlock
    }
}

impl World {
    /// An empty world whose choices are answered by `policy`.
    pub fn new(policy: Box<dyn Policy>) -> World {
        let inner = Inner { next_address: Cell::new(0x1000), failure: RefCell::new(None), goes_on: Cell::new(false) };
        World { core: Rc::new(Core::new(policy)), inner: Rc::new(inner) }
    }

    /// The core beneath, for choices and hand-made steps.
    pub fn core(&self) -> &Rc<Core> {
        &self.core
    }

    /// A new shared cell.
    pub fn cell<T: Copy>(&self, value: T) -> Shared<T> {
        let (core, object) = (self.core.clone(), self.address());
        let slot = Slot { value: Cell::new(value), is_watched: Cell::new(false), watchers: Gate::new(core.clone(), object) };
        Shared { core, object, slot: Rc::new(slot) }
    }

    /// New shared cells, all with the same value: an array each of whose elements is an object of its own.
    pub fn cells<T: Copy>(&self, nr: usize, value: T) -> Rc<[Shared<T>]> {
        (0..nr).map(|_| self.cell(value)).collect()
    }

    /// A new lock, free.
    pub fn lock(&self) -> Lock {
        Lock::new(self.core.clone(), self.address())
    }

    /// A new lock for readers and writers, free.
    pub fn rwlock(&self) -> RwLock {
        RwLock::new(self.core.clone(), self.address())
    }

    /// A new condition variable that nobody waits for.
    pub fn condvar(&self) -> Condvar {
        Condvar::new(self.core.clone(), self.address())
    }

    /// A new semaphore with `permits` permits.
    pub fn semaphore(&self, permits: u32) -> Semaphore {
        Semaphore::new(self.core.clone(), self.address(), permits)
    }

    /// A new barrier that lets actors go on in groups of `nr_parties`.
    pub fn barrier(&self, nr_parties: u32) -> Barrier {
        Barrier::new(self.core.clone(), self.address(), nr_parties)
    }

    /// Pauses: one step that touches nothing, put last by policies that go by priorities. For the inside of spinning loops.
    pub async fn pause(&self) {
        self.core.step(Op::pause()).await;
    }

    /// Starts an actor that the run waits for. Not a step by itself; the actor's own first step touches nothing.
    pub fn spawn(&self, name: &str, program: impl Future<Output = ()> + 'static) -> Task {
        self.spawn_as(name, Life::Finite, program)
    }

    /// Starts an actor that never keeps the run alive.
    pub fn spawn_daemon(&self, name: &str, program: impl Future<Output = ()> + 'static) -> Task {
        self.spawn_as(name, Life::Daemon, program)
    }

    /// Starts an actor from inside another one: a step of the creator.
    pub async fn create(&self, name: &str, program: impl Future<Output = ()> + 'static) -> Task {
        // Two creations do not commute: the order decides who gets which number.
        self.core.step(Op::new(OpKind::Alloc, ACTOR_TABLE, 0)).await;
        self.spawn(name, program)
    }

    /// Records a failure and ends the run unless `holds`. The first failure counts. Under a search that learns from whole runs
    /// ([`Explorer::needs_whole_runs`], [`World::set_goes_on`]) the run goes on, and so does the caller.
    pub fn check(&self, holds: bool, what: &str) {
        if !holds {
            self.inner.failure.borrow_mut().get_or_insert_with(|| what.to_owned());
            if !self.inner.goes_on.get() {
                self.core.halt();
            }
        }
    }

    /// Whether a failed check is recorded only, so that the run goes on, instead of ending it.
    pub fn set_goes_on(&self, goes_on: bool) {
        self.inner.goes_on.set(goes_on);
    }

    /// Runs to the end, or for `steps_max` steps.
    pub fn run(&self, steps_max: u64) -> Outcome {
        self.run_bursts(steps_max, steps_max, || false)
    }

    /// Runs to the end, for `steps_max` steps, or until `stop`, asked every few steps, answers true.
    pub fn run_until(&self, steps_max: u64, stop: impl Fn() -> bool) -> Outcome {
        self.run_bursts(steps_max, 8, stop)
    }

    /// Makes every run of the program that `setup` spawns, as `explorer` understands it: at most `runs_max` runs of at most
    /// `steps_max` steps.
    pub fn explore(explorer: &mut impl Explorer, runs_max: u64, steps_max: u64, setup: impl Fn(&World)) -> Explored {
        let mut explored = Explored::default();
        while explored.runs + explored.redundant < runs_max {
            let Some(policy) = explorer.next_policy() else {
                explored.complete = explored.bounded == 0;
                break;
            };
            let world = World::new(policy);
            world.set_goes_on(explorer.needs_whole_runs());
            setup(&world);
            let outcome = world.run_until(steps_max, || explorer.is_redundant());
            if explorer.is_redundant() {
                explored.redundant += 1;
                continue;
            }
            explored.runs += 1;
            let cut = outcome.burst == Burst::Spent || outcome.burst == Burst::Halted && explorer.needs_whole_runs();
            explored.bounded += u64::from(cut);
            if outcome.is_bug() {
                explored.bugs += 1;
                explored.first_bug.get_or_insert(outcome);
            }
        }
        explored
    }

    fn run_bursts(&self, steps_max: u64, burst_steps: u64, stop: impl Fn() -> bool) -> Outcome {
        let mut engine = Engine::new(self.core.clone());
        let mut burst = Burst::Spent;
        while burst == Burst::Spent && self.core.steps() < steps_max && !stop() {
            burst = engine.run(burst_steps.min(steps_max - self.core.steps()));
        }
        // The engine's actors hold the core: without the engine nothing keeps a run alive.
        drop(engine);
        Outcome {
            burst,
            failure: self.inner.failure.borrow().clone(),
            steps: self.core.steps(),
            record: self.core.choices().borrow_mut().take_record(),
        }
    }

    fn spawn_as(&self, name: &str, life: Life, program: impl Future<Output = ()> + 'static) -> Task {
        let done = Rc::new(Cell::new(false));
        let (core, object, ended) = (self.core.clone(), self.address(), done.clone());
        let program = async move {
            program.await;
            ended.set(true);
            core.wake(object);
        };
        let actor = Box::pin(FutureActor::new(self.core.clone(), program));
        let id = self.core.spawn(Spawn { name: self.core.name(name), group: Group(0), life, actor });
        Task { core: self.core.clone(), object, id, done }
    }

    /// Objects lie a cache line apart, so that no two of them overlap.
    fn address(&self) -> Object {
        let address = self.inner.next_address.get();
        self.inner.next_address.set(address + 64);
        Object(address)
    }
}

/// What an exhaustive search of a [`World`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explored {
    /// Runs made to their end.
    pub runs: u64,
    /// Runs begun and cut because they repeated another one's order.
    pub redundant: u64,
    /// Runs that hit the bound on steps, or were ended though the search needs whole runs: no verdict.
    pub bounded: u64,
    /// Runs that showed a bug.
    pub bugs: u64,
    /// The first of these.
    pub first_bug: Option<Outcome>,
    /// True when nothing is left to run and no bound was hit.
    pub complete: bool,
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.complete {
            true => write!(f, "explored all {} runs", self.runs)?,
            false => write!(f, "explored {} runs, not all", self.runs)?,
        }
        if self.redundant > 0 {
            write!(f, " ({} more cut as redundant)", self.redundant)?;
        }
        write!(f, ": {} with a bug", self.bugs)
    }
}

/// A started actor.
#[derive(Clone)]
pub struct Task {
    core: Rc<Core>,
    object: Object,
    id: ActorId,
    done: Rc<Cell<bool>>,
}

impl Task {
    /// Waits until the actor has ended. Takes no step.
    pub async fn join(&self) {
        while !self.done.get() {
            self.core.block(self.object).await;
        }
        // Also when nothing had to be waited for: no announcement says so.
        self.core.follows(self.id);
    }
}

/// A value that actors share. Clones are handles to the same cell.
#[derive(Clone)]
pub struct Shared<T> {
    core: Rc<Core>,
    object: Object,
    slot: Rc<Slot<T>>,
}

struct Slot<T> {
    value: Cell<T>,
    /// Somebody waits for a value: a word of its own, since every write looks at it.
    is_watched: Cell<bool>,
    watchers: Gate<Box<dyn Fn(T) -> bool>>,
}

impl<T: Copy> Slot<T> {
    #[inline]
    fn store(&self, value: T) {
        self.value.set(value);
        if self.is_watched.get() {
            self.tell();
        }
    }

    #[cold]
    fn tell(&self) {
        self.watchers.open();
        self.watchers.close(|holds| holds(self.value.get()));
    }
}

/// An access to a [`Shared`] cell: announced when it is first polled, performed when its actor is picked. Written by hand, since every level
/// of `async fn` is one more call in each step.
struct Access<'a, T, F> {
    cell: &'a Shared<T>,
    kind: OpKind,
    announced: bool,
    perform: Option<F>,
}

impl<'a, T, F> Access<'a, T, F> {
    #[inline]
    fn new(cell: &'a Shared<T>, kind: OpKind, perform: F) -> Access<'a, T, F> {
        Access { cell, kind, announced: false, perform: Some(perform) }
    }
}

// Nothing in it is pinned.
impl<T, F> Unpin for Access<'_, T, F> {}

impl<T, R, F: FnOnce(&Slot<T>) -> R> Future for Access<'_, T, F> {
    type Output = R;

    #[inline]
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<R> {
        let this = self.get_mut();
        if !this.announced {
            this.announced = true;
            this.cell.core.announce(Op::new(this.kind, this.cell.object, 8));
            return Poll::Pending;
        }
        let perform = this.perform.take().expect("an access is performed once");
        Poll::Ready(perform(&this.cell.slot))
    }
}

impl<T: Copy> Shared<T> {
    /// Reads: one step.
    #[inline]
    pub fn get(&self) -> impl Future<Output = T> {
        Access::new(self, OpKind::Read, |slot: &Slot<T>| slot.value.get())
    }

    /// Writes: one step.
    #[inline]
    pub fn set(&self, value: T) -> impl Future<Output = ()> {
        Access::new(self, OpKind::Write, move |slot: &Slot<T>| slot.store(value))
    }

    /// Replaces the value by what `change` makes of it, atomically: one step. Returns the value before.
    #[inline]
    pub fn update(&self, change: impl FnOnce(T) -> T) -> impl Future<Output = T> {
        Access::new(self, OpKind::Rmw, move |slot: &Slot<T>| {
            let before = slot.value.get();
            slot.store(change(before));
            before
        })
    }

    /// Waits until the value satisfies `holds`, and reads it: one step, made when it does. What a loop that reads and pauses does, without
    /// the rounds; an exhaustive search comes to an end with it.
    pub async fn until(&self, holds: impl Fn(T) -> bool + 'static) -> T {
        let Slot { value, is_watched, watchers } = &*self.slot;
        is_watched.set(true);
        watchers.pass(Op::new(OpKind::Read, self.object, 8), holds(value.get()), Box::new(holds)).await;
        is_watched.set(watchers.is_waited_for());
        value.get()
    }

    /// Looks at the value without a step: for checks after the run, or together with the step that just happened.
    pub fn peek(&self) -> T {
        self.slot.value.get()
    }

    /// Changes the value without a step: for set-up, or together with the step that just happened.
    pub fn poke(&self, value: T) {
        self.slot.store(value);
    }

    /// The object that announcements name.
    pub fn object(&self) -> Object {
        self.object
    }
}

impl<T: Copy + std::ops::Add<Output = T>> Shared<T> {
    /// Adds atomically: one step. Returns the value before.
    #[inline]
    pub fn fetch_add(&self, summand: T) -> impl Future<Output = T> {
        self.update(move |value| value + summand)
    }
}

impl<T: Copy + PartialEq> Shared<T> {
    /// Compare and swap: one step.
    ///
    /// # Errors
    /// The value found, when it is not `expected`; nothing is written then.
    #[inline]
    pub fn cas(&self, expected: T, new: T) -> impl Future<Output = Result<T, T>> {
        Access::new(self, OpKind::Rmw, move |slot: &Slot<T>| {
            let found = slot.value.get();
            if found == expected {
                slot.store(new);
                Ok(found)
            } else {
                Err(found)
            }
        })
    }
}
