//! The meeting place of actors and engine: announcements, blocking, waking, spawning, and the choices of the run.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::actor::{Actor, Resumed, Said};
use super::choice::{ChoiceKind, Choices};
use super::op::{ActorId, Object, Op};
use crate::policy::Policy;

/// A number that stands for a group of actors that end together: one generation of a kernel, or the hardware.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Group(pub u8);

/// How an actor counts for the end of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// The run lasts until it is done.
    Finite,
    /// Serves the others for ever: devices, queues. Never keeps a run alive.
    Daemon,
}

/// What traces call an actor: a place among the names of its run. [`Core::name`] makes one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Name {
    start: usize,
    bytes: usize,
}

impl Name {
    /// The name, where `names` are those of the run.
    pub(super) fn of(self, names: &str) -> &str {
        &names[self.start..self.start + self.bytes]
    }
}

/// A request to start an actor.
pub struct Spawn {
    /// What traces call it.
    pub name: Name,
    /// The group it ends with.
    pub group: Group,
    /// Whether the run waits for it.
    pub life: Life,
    /// Its program.
    pub actor: Pin<Box<dyn Actor>>,
}

/// State shared by the engine and all actors of one run. Single threaded; actors hold it in an `Rc`.
pub struct Core {
    current: Cell<ActorId>,
    said: Said,
    wakes: RefCell<Vec<Object>>,
    spawns: RefCell<Vec<Spawn>>,
    nr_spawned: Cell<usize>,
    /// Names given that the engine has not taken over yet, end to end.
    names: RefCell<String>,
    /// Bytes of all names given in this run.
    nr_named: Cell<usize>,
    forgets: RefCell<Vec<(Group, Option<ActorId>)>>,
    /// Who cannot be picked although it has announced, and until which object is woken.
    withheld: RefCell<Vec<(ActorId, Object)>>,
    halted: Cell<bool>,
    /// What the engine has to look after before the next step: which of wakes, spawns and forgets something stands in, and more.
    requests: Cell<u8>,
    steps: Cell<u64>,
    cost: Cell<u32>,
    choices: RefCell<Choices>,
}

impl Core {
    /// Request: something stands in wakes.
    pub(super) const WAKE: u8 = 1;
    /// Request: something stands in spawns.
    pub(super) const SPAWN: u8 = 2;
    /// Request: something stands in forgets.
    pub(super) const FORGET: u8 = 4;
    /// Request: the run ends.
    pub(super) const HALT: u8 = 8;
    /// Request: no finite actor is enabled.
    pub(super) const IDLE: u8 = 16;

    /// Request: something stands in withheld.
    pub(super) const WITHHOLD: u8 = 32;

    /// A core whose choices are answered by `policy`.
    pub fn new(policy: Box<dyn Policy>) -> Core {
        Core {
            current: Cell::new(ActorId(0)),
            said: Said::nothing(),
            wakes: RefCell::new(Vec::with_capacity(8)),
            spawns: RefCell::new(Vec::with_capacity(8)),
            nr_spawned: Cell::new(0),
            names: RefCell::new(String::new()),
            nr_named: Cell::new(0),
            forgets: RefCell::new(Vec::new()),
            withheld: RefCell::new(Vec::new()),
            halted: Cell::new(false),
            requests: Cell::new(0),
            steps: Cell::new(0),
            cost: Cell::new(0),
            choices: RefCell::new(Choices::new(policy)),
        }
    }

    /// Begins another run in the same allocations.
    pub(super) fn restart(&mut self, policy: Box<dyn Policy>) {
        // Written out, so that a field cannot be forgotten.
        #[rustfmt::skip]
        let Core {
            current, said, wakes, spawns, nr_spawned, names, nr_named, forgets, withheld, halted, requests, steps, cost, choices,
        } = self;
        *said = Said::nothing();
        (*current.get_mut(), *nr_spawned.get_mut(), *nr_named.get_mut(), *halted.get_mut()) = (ActorId(0), 0, 0, false);
        names.get_mut().clear();
        (*requests.get_mut(), *steps.get_mut(), *cost.get_mut()) = (0, 0, 0);
        wakes.get_mut().clear();
        spawns.get_mut().clear();
        forgets.get_mut().clear();
        withheld.get_mut().clear();
        choices.get_mut().restart(policy);
    }

    /// Announces `op` and suspends until the policy picks this actor; the caller performs the operation when this returns.
    #[inline]
    pub fn step(&self, op: Op) -> Suspend {
        self.announce(op);
        Suspend { announced: true }
    }

    /// Suspends until some actor wakes `object`. The caller must test its condition again.
    #[inline]
    pub fn block(&self, object: Object) -> Suspend {
        self.wait_for(object);
        Suspend { announced: true }
    }

    /// Lets every actor blocked on `object` go on to its next announcement once the step at hand is over.
    pub fn wake(&self, object: Object) {
        self.request(Core::WAKE);
        self.wakes.borrow_mut().push(object);
    }

    /// Lets `actor` be picked no more, from the end of the step at hand until `object` is woken: what it has announced, or announces in
    /// this very step, cannot be performed now (its lock is held). It is not resumed in between: its announcement stands, and must
    /// be a [guarded](Op::guarded) one. No step is spent on an attempt, and who is picked finds what it was waiting for.
    pub fn withhold(&self, actor: ActorId, object: Object) {
        self.request(Core::WITHHOLD);
        self.withheld.borrow_mut().push((actor, object));
    }

    /// Says that whatever the current actor does from now on comes after all that `before` has done so far, in every run; what no
    /// announcement tells, such as the end of an actor that was joined. For searches that go by causality.
    pub fn follows(&self, before: ActorId) {
        self.choices.borrow_mut().ordered(before, self.current.get());
    }

    /// A name for an actor of this run. All names of a run lie in one buffer that the next run uses again.
    #[inline(always)]
    pub fn name(&self, name: &str) -> Name {
        let start = self.nr_named.get();
        self.nr_named.set(start + name.len());
        self.names.borrow_mut().push_str(name);
        Name { start, bytes: name.len() }
    }

    /// Starts an actor once the step at hand is over; returns the id it will have.
    ///
    /// # Panics
    /// When more than [`ActorId::LIMIT`] actors are spawned in one run.
    #[inline(always)]
    pub fn spawn(&self, spawn: Spawn) -> ActorId {
        let id = self.nr_spawned.get();
        assert!(id < ActorId::LIMIT, "a run has at most {} actors", ActorId::LIMIT);
        self.nr_spawned.set(id + 1);
        self.request(Core::SPAWN);
        self.spawns.borrow_mut().push(spawn);
        ActorId(id as u8)
    }

    /// Forgets a whole group in one step, after the step at hand: none of its actors does anything any more.
    pub fn forget(&self, group: Group) {
        self.request(Core::FORGET);
        self.forgets.borrow_mut().push((group, None));
    }

    /// Forgets a group except the actor whose step is being performed: every other CPU stops wherever it is.
    pub fn forget_others(&self, group: Group) {
        self.request(Core::FORGET);
        self.forgets.borrow_mut().push((group, Some(self.current.get())));
    }

    /// Ends the run after the step at hand.
    pub fn halt(&self) {
        self.request(Core::HALT);
        self.halted.set(true);
    }

    /// True once the run was told to end.
    pub fn is_halted(&self) -> bool {
        self.halted.get()
    }

    /// The actor whose step is being performed.
    pub fn current(&self) -> ActorId {
        self.current.get()
    }

    /// Number of steps performed, the one at hand included.
    pub fn steps(&self) -> u64 {
        self.steps.get()
    }

    /// Adds to the cost of the step at hand, in cycles of the acting component.
    pub fn charge(&self, cycles: u32) {
        self.cost.set(self.cost.get().saturating_add(cycles));
    }

    /// Asks for one of `options` outcomes; see [`Choices::of`].
    pub fn choose(&self, kind: ChoiceKind, options: u32) -> u32 {
        self.choices.borrow_mut().of(kind, options)
    }

    /// Asks a yes/no question; see [`Choices::odds`].
    pub fn odds(&self, kind: ChoiceKind, per_1024: u32) -> bool {
        self.choices.borrow_mut().odds(kind, per_1024)
    }

    /// Asks whether a fallible call fails; see [`Choices::fails`].
    pub fn fails(&self, kind: ChoiceKind, class: u16) -> bool {
        self.choices.borrow_mut().fails(kind, class)
    }

    /// The choices of the run.
    pub fn choices(&self) -> &RefCell<Choices> {
        &self.choices
    }

    /// As [`Core::step`], for a future written by hand: it pends itself.
    #[inline]
    pub(crate) fn announce(&self, op: Op) {
        self.said.say(Resumed::announced(op));
    }

    /// As [`Core::block`], for a future written by hand: it pends itself.
    #[inline]
    pub(crate) fn wait_for(&self, object: Object) {
        self.said.say(Resumed::blocked(object));
    }
    /// What was said last.
    #[inline]
    pub(super) fn take_said(&self) -> Resumed {
        self.said.take()
    }
    pub(super) fn enter(&self, actor: ActorId) {
        self.current.set(actor);
    }
    /// Step number `step`, counted from 1, begins. The engine brings the number, since a sum read back from here the moment after its
    /// neighbours were written would wait for the store.
    #[inline]
    pub(super) fn begin_step(&self, step: u64) {
        self.steps.set(step);
        self.cost.set(1);
    }
    #[inline]
    pub(super) fn take_requests(&self) -> u8 {
        self.requests.take()
    }
    #[inline]
    pub(super) fn requests(&self) -> u8 {
        self.requests.get()
    }
    #[inline]
    pub(super) fn request(&self, what: u8) {
        self.requests.set(self.requests.get() | what);
    }
    pub(super) fn step_cost(&self) -> u32 {
        self.cost.get()
    }
    pub(super) fn wakes(&self) -> &RefCell<Vec<Object>> {
        &self.wakes
    }
    pub(super) fn take_withheld(&self) -> Option<(ActorId, Object)> {
        self.withheld.borrow_mut().pop()
    }
    pub(super) fn names(&self) -> &RefCell<String> {
        &self.names
    }
    pub(super) fn spawns(&self) -> &RefCell<Vec<Spawn>> {
        &self.spawns
    }
    pub(super) fn forgets(&self) -> &RefCell<Vec<(Group, Option<ActorId>)>> {
        &self.forgets
    }
}

/// Future of [`Core::step`] and [`Core::block`]: pends once. To be awaited at once, since the announcement has been made.
#[must_use = "an announcement is followed by a suspension"]
pub struct Suspend {
    announced: bool,
}

impl Future for Suspend {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if !self.announced {
            return Poll::Ready(());
        }
        self.announced = false;
        Poll::Pending
    }
}
