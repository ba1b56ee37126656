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

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::rc::Rc;

use crate::engine::{Burst, Core, Engine, FutureActor, Group, Life, Object, Op, OpKind, Recorded, Spawn};
use crate::policy::{Exhaustive, Policy};

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
        let inner = Inner { next_address: Cell::new(0x1000), failure: RefCell::new(None) };
        World { core: Rc::new(Core::new(policy)), inner: Rc::new(inner) }
    }

    /// The core beneath, for choices and hand-made steps.
    pub fn core(&self) -> &Rc<Core> {
        &self.core
    }

    /// A new shared cell.
    pub fn cell<T: Copy>(&self, value: T) -> Shared<T> {
        Shared { core: self.core.clone(), object: self.address(), value: Rc::new(Cell::new(value)) }
    }

    /// A new lock, free.
    pub fn lock(&self) -> Lock {
        Lock { core: self.core.clone(), object: self.address(), held: Rc::new(Cell::new(false)) }
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

    /// Records a failure and ends the run unless `holds`. The first failure counts.
    pub fn check(&self, holds: bool, what: &str) {
        if !holds {
            self.inner.failure.borrow_mut().get_or_insert_with(|| what.to_owned());
            self.core.halt();
        }
    }

    /// Runs to the end, or for `steps_max` steps.
    pub fn run(&self, steps_max: u64) -> Outcome {
        self.run_bursts(steps_max, steps_max, || false)
    }

    /// Runs to the end, for `steps_max` steps, or until `stop`, asked every few steps, answers true.
    pub fn run_until(&self, steps_max: u64, stop: impl Fn() -> bool) -> Outcome {
        self.run_bursts(steps_max, 8, stop)
    }

    /// Makes every run of the program that `setup` spawns, as `exhaustive` understands it: at most `runs_max` runs of at most
    /// `steps_max` steps.
    pub fn explore(exhaustive: &mut Exhaustive, runs_max: u64, steps_max: u64, setup: impl Fn(&World)) -> Explored {
        let mut explored = Explored::default();
        while explored.runs + explored.redundant < runs_max {
            let Some(policy) = exhaustive.next_policy() else {
                explored.complete = explored.bounded == 0;
                break;
            };
            let world = World::new(policy);
            setup(&world);
            let outcome = world.run_until(steps_max, || exhaustive.is_redundant());
            if exhaustive.is_redundant() {
                explored.redundant += 1;
                continue;
            }
            explored.runs += 1;
            explored.bounded += u64::from(outcome.burst == Burst::Spent);
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
        let task = Task { core: self.core.clone(), object: self.address(), done: done.clone() };
        let (core, object) = (self.core.clone(), task.object);
        let program = async move {
            program.await;
            done.set(true);
            core.wake(object);
        };
        let actor = Box::pin(FutureActor::new(self.core.clone(), program));
        self.core.spawn(Spawn { name: self.core.name(name), group: Group(0), life, actor });
        task
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
    /// Runs that hit the bound on steps: no verdict.
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
    done: Rc<Cell<bool>>,
}

impl Task {
    /// Waits until the actor has ended. Takes no step.
    pub async fn join(&self) {
        while !self.done.get() {
            self.core.block(self.object).await;
        }
    }
}

/// A value that actors share. Clones are handles to the same cell.
#[derive(Clone)]
pub struct Shared<T> {
    core: Rc<Core>,
    object: Object,
    value: Rc<Cell<T>>,
}

impl<T: Copy> Shared<T> {
    /// Reads: one step.
    pub async fn get(&self) -> T {
        self.step(OpKind::Read).await;
        self.value.get()
    }

    /// Writes: one step.
    pub async fn set(&self, value: T) {
        self.step(OpKind::Write).await;
        self.value.set(value);
    }

    /// Replaces the value by what `change` makes of it, atomically: one step. Returns the value before.
    pub async fn update(&self, change: impl FnOnce(T) -> T) -> T {
        self.step(OpKind::Rmw).await;
        let before = self.value.get();
        self.value.set(change(before));
        before
    }

    /// Looks at the value without a step: for checks after the run, or together with the step that just happened.
    pub fn peek(&self) -> T {
        self.value.get()
    }

    /// Changes the value without a step: for set-up, or together with the step that just happened.
    pub fn poke(&self, value: T) {
        self.value.set(value);
    }

    /// The object that announcements name.
    pub fn object(&self) -> Object {
        self.object
    }

    async fn step(&self, kind: OpKind) {
        self.core.step(Op::new(kind, self.object, 8)).await;
    }
}

impl<T: Copy + std::ops::Add<Output = T>> Shared<T> {
    /// Adds atomically: one step. Returns the value before.
    pub async fn fetch_add(&self, summand: T) -> T {
        self.update(|value| value + summand).await
    }
}

impl<T: Copy + PartialEq> Shared<T> {
    /// Compare and swap: one step.
    ///
    /// # Errors
    /// The value found, when it is not `expected`; nothing is written then.
    pub async fn cas(&self, expected: T, new: T) -> Result<T, T> {
        let found = self.update(|value| if value == expected { new } else { value }).await;
        if found == expected { Ok(found) } else { Err(found) }
    }
}

/// A sleeping lock. Who finds it held waits without steps until it is released, then tries again. Clones are handles.
#[derive(Clone)]
pub struct Lock {
    core: Rc<Core>,
    object: Object,
    held: Rc<Cell<bool>>,
}

impl Lock {
    /// Takes the lock: one step when it is free, and one for every attempt that finds it held.
    pub async fn lock(&self) {
        self.core.step(Op::new(OpKind::Lock, self.object, 8)).await;
        while self.held.get() {
            self.core.block(self.object).await;
            self.core.step(Op::new(OpKind::Lock, self.object, 8)).await;
        }
        self.held.set(true);
    }

    /// Releases the lock: one step.
    ///
    /// # Panics
    /// When the lock is free: the program is wrong.
    pub async fn unlock(&self) {
        self.core.step(Op::new(OpKind::Unlock, self.object, 8)).await;
        assert!(self.held.replace(false), "unlock of a free lock");
        self.core.wake(self.object);
    }
}
