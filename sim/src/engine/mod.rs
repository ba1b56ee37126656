//! The step engine.
//!
//! Actors announce their next operation and suspend; a [`Policy`](crate::policy::Policy) picks one of the enabled actors; the
//! operation happens and the actor runs on to its next announcement. Between two steps nothing is shared. The loop here is
//! free of futures, memory and hardware: `resume -> announced | blocked | done` is all it knows.

mod actor;
mod choice;
mod core;
mod op;

use std::rc::Rc;

pub use actor::{Actor, FutureActor, Next, Resumed};
pub use choice::{Choice, ChoiceKind, Choices, Enabled, RECORD_LIMIT, Recorded};
pub use core::{Core, Group, Life, Spawn, Suspend};
pub use op::{ActorId, Object, Op, OpKind};

/// Why [`Engine::run`] returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Burst {
    /// The steps asked for are done; more can follow.
    Spent,
    /// Every finite actor is done.
    Finished,
    /// An actor ended the run.
    Halted,
    /// Finite actors are left, all blocked, and nothing that could wake them is enabled.
    Deadlock,
}

struct Slot {
    name: String,
    group: Group,
    life: Life,
    actor: Option<Box<dyn Actor>>,
    enabled: bool,
    clock: u64,
}

/// Owns the actors of one run and steps them.
pub struct Engine {
    core: Rc<Core>,
    slots: Vec<Slot>,
    ops: Vec<Op>,
    /// What each actor waits for, by actor; [`AWAKE`] for those that wait for nothing.
    blocked: Vec<Object>,
    /// A bit for each object that some actor waits for, and perhaps for some that nobody waits for any more.
    waited_for: u64,
    enabled: Vec<ActorId>,
    last: Option<ActorId>,
    nr_finite: usize,
    nr_finite_enabled: usize,
    idle_steps: u32,
    driven: bool,
}

/// Stands for no object in [`Engine::blocked`]; nobody can wake it.
const AWAKE: Object = Object(u64::MAX);

/// The bit of an object in [`Engine::waited_for`].
const fn filter_bit(object: Object) -> u64 {
    1 << (object.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58)
}

/// Steps that daemons may perform while no finite actor is enabled before the run counts as deadlocked. Generous: a drain
/// and a wait descriptor take a few dozen.
const IDLE_STEPS_MAX: u32 = 20_000;

impl Engine {
    /// An engine without actors. Spawn through [`Core::spawn`].
    pub fn new(core: Rc<Core>) -> Engine {
        Engine {
            core,
            slots: Vec::with_capacity(16),
            ops: Vec::with_capacity(16),
            blocked: Vec::with_capacity(16),
            waited_for: 0,
            enabled: Vec::with_capacity(16),
            last: None,
            nr_finite: 0,
            nr_finite_enabled: 0,
            idle_steps: 0,
            driven: false,
        }
    }

    /// Says that something outside wakes actors between bursts: that nobody can go on is then no deadlock but a burst cut short.
    pub fn set_driven_from_outside(&mut self) {
        self.driven = true;
    }

    /// Spawns an `async` program; see [`Core::spawn`].
    pub fn spawn(&self, name: &str, group: Group, life: Life, future: impl Future<Output = ()> + 'static) -> ActorId {
        let actor = Box::new(FutureActor::new(self.core.clone(), future));
        self.core.spawn(Spawn { name: name.to_owned(), group, life, actor })
    }

    /// Performs at most `steps` steps.
    pub fn run(&mut self, steps: u64) -> Burst {
        self.settle();
        for _ in 0..steps {
            if self.core.is_halted() {
                return Burst::Halted;
            }
            if self.nr_finite == 0 {
                return Burst::Finished;
            }
            if self.enabled.is_empty() || self.idle_steps > IDLE_STEPS_MAX {
                return if self.driven { Burst::Spent } else { Burst::Deadlock };
            }
            let enabled = Enabled { ids: &self.enabled, ops: &self.ops, last: self.last, step: self.core.steps() };
            let actor = self.core.choices().borrow_mut().schedule(enabled);
            self.last = Some(actor);
            self.core.begin_step();
            self.resume(actor);
            let slot = &mut self.slots[actor.index()];
            slot.clock += u64::from(self.core.step_cost());
            self.settle();
            self.idle_steps = if self.nr_finite_enabled > 0 || self.driven { 0 } else { self.idle_steps + 1 };
        }
        if self.core.is_halted() { Burst::Halted } else { Burst::Spent }
    }

    /// Name of an actor.
    pub fn name(&self, actor: ActorId) -> &str {
        &self.slots[actor.index()].name
    }

    /// All actors ever spawned in this run with their groups, in order of id.
    pub fn actors(&self) -> impl Iterator<Item = (ActorId, &str, Group)> {
        self.slots.iter().enumerate().map(|(index, slot)| (ActorId(index as u8), slot.name.as_str(), slot.group))
    }

    /// Finite actors that are blocked, and on what.
    pub fn blocked(&self) -> impl Iterator<Item = (ActorId, Object)> {
        self.slots.iter().zip(&self.blocked).enumerate().filter_map(|(index, (slot, &object))| {
            let waiting = slot.actor.is_some() && slot.life == Life::Finite && object != AWAKE;
            waiting.then_some((ActorId(index as u8), object))
        })
    }

    /// Local time of the actor that is furthest, in cycles.
    pub fn cycles(&self) -> u64 {
        self.slots.iter().map(|slot| slot.clock).max().unwrap_or(0)
    }

    #[inline]
    fn resume(&mut self, id: ActorId) {
        let slot = &mut self.slots[id.index()];
        let Some(actor) = &mut slot.actor else { return };
        self.core.enter(id);
        match actor.resume().next() {
            Next::Announced(op) => {
                self.ops[id.index()] = op;
                if !slot.enabled {
                    slot.enabled = true;
                    self.blocked[id.index()] = AWAKE;
                    self.enable(id);
                }
            }
            Next::Blocked(object) => {
                slot.enabled = false;
                self.blocked[id.index()] = object;
                self.waited_for |= filter_bit(object);
                self.disable(id);
            }
            Next::Done => self.end(id),
        }
    }

    /// Carries out what the step asked for: forget groups, let woken ones announce, start actors.
    #[inline]
    fn settle(&mut self) {
        let requests = self.core.take_requests();
        if requests & Core::FORGET != 0 {
            self.settle_forgets();
        }
        if requests & Core::WAKE != 0 {
            self.settle_wakes();
        }
        // What was woken may have started others.
        if (requests | self.core.requests()) & Core::SPAWN != 0 {
            self.settle_spawns();
        }
    }

    #[cold]
    fn settle_forgets(&mut self) {
        while !self.core.forgets().borrow().is_empty() {
            let groups = std::mem::take(&mut *self.core.forgets().borrow_mut());
            for index in 0..self.slots.len() {
                let id = ActorId(index as u8);
                if groups.iter().any(|(group, except)| *group == self.slots[index].group && *except != Some(id)) {
                    self.end(id);
                }
            }
        }
    }

    /// Most wakes meet nobody: every store is one.
    fn settle_wakes(&mut self) {
        loop {
            let Some(object) = self.core.wakes().borrow_mut().pop() else { break };
            if self.waited_for & filter_bit(object) == 0 {
                continue;
            }
            if !self.blocked.contains(&object) {
                let waited_for = self.blocked.iter().filter(|object| **object != AWAKE);
                self.waited_for = waited_for.fold(0, |bits, object| bits | filter_bit(*object));
                continue;
            }
            let clock = self.last.map_or(0, |last| self.slots[last.index()].clock);
            for index in 0..self.slots.len() {
                if self.blocked[index] == object {
                    if let Some(waker) = self.last {
                        self.core.choices().borrow_mut().ordered(waker, ActorId(index as u8));
                    }
                    self.slots[index].clock = self.slots[index].clock.max(clock);
                    self.resume(ActorId(index as u8));
                }
            }
        }
    }

    #[cold]
    fn settle_spawns(&mut self) {
        while !self.core.spawns().borrow().is_empty() {
            let spawns = std::mem::take(&mut *self.core.spawns().borrow_mut());
            for Spawn { name, group, life, actor } in spawns {
                let clock = self.last.map_or(0, |last| self.slots[last.index()].clock);
                let id = ActorId(self.slots.len() as u8);
                self.slots.push(Slot { name, group, life, actor: Some(actor), enabled: true, clock });
                self.ops.push(Op::begin());
                self.blocked.push(AWAKE);
                self.nr_finite += usize::from(life == Life::Finite);
                self.enable(id);
            }
        }
    }

    fn enable(&mut self, id: ActorId) {
        if let Err(at) = self.enabled.binary_search(&id) {
            self.enabled.insert(at, id);
            self.nr_finite_enabled += usize::from(self.slots[id.index()].life == Life::Finite);
        }
    }

    fn disable(&mut self, id: ActorId) {
        if let Ok(at) = self.enabled.binary_search(&id) {
            self.enabled.remove(at);
            self.nr_finite_enabled -= usize::from(self.slots[id.index()].life == Life::Finite);
        }
    }

    fn end(&mut self, id: ActorId) {
        let slot = &mut self.slots[id.index()];
        if slot.actor.take().is_some() {
            slot.enabled = false;
            self.blocked[id.index()] = AWAKE;
            self.nr_finite -= usize::from(slot.life == Life::Finite);
            self.disable(id);
        }
    }
}
