//! The step engine.
//!
//! Actors announce their next operation and suspend; a [`Policy`] picks one of the enabled actors; the
//! operation happens and the actor runs on to its next announcement. Between two steps nothing is shared. The loop here is
//! free of futures, memory and hardware: `resume -> announced | blocked | done` is all it knows.

mod actor;
mod choice;
mod core;
mod idle;
mod op;

use std::pin::Pin;
use std::rc::Rc;

use crate::policy::Policy;

pub use actor::{Actor, FutureActor, Next, Resumed};
pub use choice::{Choice, ChoiceKind, Choices, Enabled, RECORD_LIMIT, Recorded, Runnable};
pub use core::{Core, Group, Life, Name, Spawn, Suspend};
pub use op::{ActorId, Object, Op, OpKind};

use idle::Idle;

/// Why [`Engine::run`] returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Burst {
    /// The steps asked for are done; more can follow.
    Spent,
    /// Every finite actor is done.
    Finished,
    /// An actor ended the run.
    Halted,
    /// Finite actors are left, all blocked, and nothing that could wake them is enabled, or nothing has woken them although every
    /// daemon had its turns again and again.
    Deadlock,
}

struct Slot {
    name: Name,
    group: Group,
    life: Life,
    actor: Option<Pin<Box<dyn Actor>>>,
    /// It has announced, and waits all the same.
    withheld: bool,
    clock: u64,
}

/// Owns the actors of one run and steps them.
pub struct Engine {
    core: Rc<Core>,
    slots: Vec<Slot>,
    /// The names of the run's actors, end to end.
    names: String,
    runnable: Runnable,
    /// What each actor waits for, by actor; [`AWAKE`] for those that wait for nothing.
    blocked: Vec<Object>,
    /// All objects that some actor waits for, and perhaps some that nobody waits for any more.
    waited_for: Filter,
    nr_finite: usize,
    nr_finite_enabled: usize,
    idle: Idle,
    driven: bool,
}

/// Stands for no object in [`Engine::blocked`]; nobody can wake it.
const AWAKE: Object = Object(u64::MAX);

/// A set of objects that answers yes too often, rarely: most wakes meet nobody, and are to cost nothing.
#[derive(Clone, Copy, Default)]
struct Filter([u64; 8]);

impl Filter {
    const fn place(object: Object) -> (usize, u64) {
        let hash = object.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((hash >> 61) as usize, 1 << (hash >> 55 & 63))
    }
    #[inline]
    fn add(&mut self, object: Object) {
        let (word, bit) = Filter::place(object);
        self.0[word] |= bit;
    }
    #[inline]
    fn may_have(&self, object: Object) -> bool {
        let (word, bit) = Filter::place(object);
        self.0[word] & bit != 0
    }
}

impl Engine {
    /// An engine without actors. Spawn through [`Core::spawn`].
    pub fn new(core: Rc<Core>) -> Engine {
        Engine {
            core,
            slots: Vec::with_capacity(16),
            names: String::new(),
            runnable: Runnable::default(),
            blocked: Vec::with_capacity(16),
            waited_for: Filter::default(),
            nr_finite: 0,
            nr_finite_enabled: 0,
            idle: Idle::default(),
            driven: false,
        }
    }

    /// The core that its actors share.
    pub fn core(&self) -> &Rc<Core> {
        &self.core
    }

    /// Begins another run: no actors, nothing recorded, `policy` answers. What the run before has allocated is used again, except a core
    /// that somebody still holds: its holder keeps it as it was left.
    ///
    /// A run in a used engine is the same as in a new one.
    pub fn restart(&mut self, policy: Box<dyn Policy>) {
        self.clear();
        self.names.clear();
        match Rc::get_mut(&mut self.core) {
            Some(core) => core.restart(policy),
            None => self.core = Rc::new(Core::new(policy)),
        }
    }

    /// Drops all actors, and with them what they hold.
    pub fn clear(&mut self) {
        // Written out, so that a field cannot be forgotten.
        let Engine { core, slots, names: _, runnable, blocked, waited_for, nr_finite, nr_finite_enabled, idle, driven } = self;
        core.spawns().borrow_mut().clear();
        slots.clear();
        runnable.clear();
        blocked.clear();
        idle.end();
        (*waited_for, *nr_finite, *nr_finite_enabled, *driven) = (Filter::default(), 0, 0, false);
    }

    /// Says that something outside wakes actors between bursts: that nobody can go on is then no deadlock but a burst cut short.
    pub fn set_driven_from_outside(&mut self) {
        self.driven = true;
    }

    /// Spawns an `async` program; see [`Core::spawn`].
    #[inline(always)]
    pub fn spawn(&self, name: &str, group: Group, life: Life, future: impl Future<Output = ()> + 'static) -> ActorId {
        let actor = Box::pin(FutureActor::new(self.core.clone(), future));
        self.core.spawn(Spawn { name: self.core.name(name), group, life, actor })
    }

    /// Performs at most `steps` steps.
    pub fn run(&mut self, steps: u64) -> Burst {
        let core = self.core.clone();
        let mut left = steps;
        self.settle();
        while left > 0 {
            if let Some(burst) = self.stopped() {
                return burst;
            }
            while left > 0 {
                left -= 1;
                let actor = core.choices().borrow_mut().schedule(&self.runnable);
                self.runnable.last = Some(actor);
                self.runnable.step += 1;
                core.begin_step(self.runnable.step);
                self.perform(&core, actor);
                // Most steps leave nothing to look after: the next one follows at once.
                if core.requests() != 0 {
                    self.settle();
                    break;
                }
            }
        }
        if core.is_halted() { Burst::Halted } else { Burst::Spent }
    }

    /// Why the run cannot go on, if it cannot; asked before every step that is not known to be possible.
    fn stopped(&mut self) -> Option<Burst> {
        if self.core.is_halted() {
            return Some(Burst::Halted);
        }
        if self.nr_finite_enabled > 0 {
            self.idle.end();
            return None;
        }
        if self.nr_finite == 0 {
            return Some(Burst::Finished);
        }
        // One step, or one attempt, lies between two of these questions.
        self.core.request(Core::IDLE);
        let enabled = &self.runnable.ids;
        if self.driven {
            return enabled.is_empty().then_some(Burst::Spent);
        }
        (enabled.is_empty() || self.idle.is_endless(self.runnable.last, enabled)).then_some(Burst::Deadlock)
    }

    /// Name of an actor.
    pub fn name(&self, actor: ActorId) -> &str {
        self.slots[actor.index()].name.of(&self.names)
    }

    /// All actors ever spawned in this run with their groups, in order of id.
    pub fn actors(&self) -> impl Iterator<Item = (ActorId, &str, Group)> {
        self.slots.iter().enumerate().map(|(index, slot)| (ActorId(index as u8), slot.name.of(&self.names), slot.group))
    }

    /// Finite actors that are blocked, and on what.
    pub fn blocked(&self) -> impl Iterator<Item = (ActorId, Object)> {
        self.slots.iter().zip(&self.blocked).enumerate().filter_map(|(index, (slot, &object))| {
            let waiting = slot.actor.is_some() && slot.life == Life::Finite && object != AWAKE;
            waiting.then_some((ActorId(index as u8), object))
        })
    }

    /// Who performed the last step, and what it has cost in cycles of that component.
    pub fn last_step(&self) -> Option<(ActorId, u32)> {
        Some((self.runnable.last?, self.core.step_cost()))
    }

    /// Local time of the actor that is furthest, in cycles.
    pub fn cycles(&self) -> u64 {
        self.slots.iter().map(|slot| slot.clock).max().unwrap_or(0)
    }

    /// Performs the announced operation of `id`: a step.
    #[inline(always)]
    fn perform(&mut self, core: &Core, id: ActorId) {
        let slot = &mut self.slots[id.index()];
        let Some(actor) = &mut slot.actor else { return };
        core.enter(id);
        let resumed = actor.as_mut().resume();
        slot.clock += u64::from(core.step_cost());
        match resumed.next() {
            Next::Announced(op) => {
                let before = std::mem::replace(&mut self.runnable.ops[id.index()], op);
                if before.differs_in_turn(op) {
                    self.admit(id, op);
                }
            }
            next => self.stop(id, next),
        }
    }

    /// Lets `id`, woken, go on to its next announcement: no step.
    fn resume(&mut self, id: ActorId) {
        let Some(actor) = &mut self.slots[id.index()].actor else { return };
        self.core.enter(id);
        match actor.as_mut().resume().next() {
            Next::Announced(op) => {
                self.runnable.ops[id.index()] = op;
                self.blocked[id.index()] = AWAKE;
                self.admit(id, op);
            }
            next => self.stop(id, next),
        }
    }

    /// Takes down that `id` announced nothing.
    fn stop(&mut self, id: ActorId, next: Next) {
        match next {
            Next::Announced(_) => {}
            Next::Blocked(object) => {
                self.blocked[id.index()] = object;
                self.waited_for.add(object);
                self.disable(id);
            }
            Next::Done => self.end(id),
        }
    }

    /// Gives an actor that can be picked its places, by what it announced.
    fn admit(&mut self, id: ActorId, op: Op) {
        if self.runnable.admit(id, op) {
            self.nr_finite_enabled += usize::from(self.slots[id.index()].life == Life::Finite);
        }
    }

    /// Carries out what the step asked for: forget groups, let woken ones announce, start actors.
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
        // Who was woken or started may have announced what cannot be performed.
        if (requests | self.core.requests()) & Core::WITHHOLD != 0 {
            self.settle_withheld();
        }
    }

    #[cold]
    fn settle_withheld(&mut self) {
        while let Some((id, object)) = self.core.take_withheld() {
            let op = self.runnable.ops[id.index()];
            if self.slots[id.index()].actor.is_none() || self.blocked[id.index()] != AWAKE {
                continue;
            }
            debug_assert!(op.is_guarded(), "{id} announced {op:?}, which cannot be withheld");
            self.slots[id.index()].withheld = true;
            self.blocked[id.index()] = object;
            self.waited_for.add(object);
            self.core.choices().borrow_mut().withheld(id, op);
            self.disable(id);
        }
    }

    #[cold]
    fn settle_forgets(&mut self) {
        while !self.core.forgets().borrow().is_empty() {
            let groups = std::mem::take(&mut *self.core.forgets().borrow_mut());
            for index in 0..self.slots.len() {
                let id = ActorId(index as u8);
                if groups.iter().any(|(group, except)| *group == self.slots[index].group && *except != Some(id)) {
                    self.core.choices().borrow_mut().forgotten(id);
                    self.end(id);
                }
            }
        }
    }

    /// Most wakes meet nobody: every store is one.
    fn settle_wakes(&mut self) {
        loop {
            let next = {
                let mut wakes = self.core.wakes().borrow_mut();
                std::iter::from_fn(|| wakes.pop()).find(|object| self.waited_for.may_have(*object))
            };
            let Some(object) = next else { break };
            if !self.blocked.contains(&object) {
                self.waited_for = Filter::default();
                self.blocked.iter().filter(|object| **object != AWAKE).for_each(|object| self.waited_for.add(*object));
                continue;
            }
            let clock = self.runnable.last.map_or(0, |last| self.slots[last.index()].clock);
            for index in 0..self.slots.len() {
                if self.blocked[index] == object && std::mem::take(&mut self.slots[index].withheld) {
                    self.blocked[index] = AWAKE;
                    self.slots[index].clock = self.slots[index].clock.max(clock);
                    self.admit(ActorId(index as u8), self.runnable.ops[index]);
                } else if self.blocked[index] == object {
                    if let Some(waker) = self.runnable.last {
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
        {
            let mut names = self.core.names().borrow_mut();
            self.names.push_str(&names);
            names.clear();
        }
        while !self.core.spawns().borrow().is_empty() {
            let mut spawns = std::mem::take(&mut *self.core.spawns().borrow_mut());
            for Spawn { name, group, life, actor } in spawns.drain(..) {
                let clock = self.runnable.last.map_or(0, |last| self.slots[last.index()].clock);
                let id = ActorId(self.slots.len() as u8);
                self.core.choices().borrow_mut().started(id, name.of(&self.names));
                self.slots.push(Slot { name, group, life, actor: Some(actor), withheld: false, clock });
                self.runnable.ops.push(Op::begin());
                self.blocked.push(AWAKE);
                self.nr_finite += usize::from(life == Life::Finite);
                self.admit(id, Op::begin());
            }
            // The allocation serves again, unless somebody has been spawned meanwhile.
            let mut next = self.core.spawns().borrow_mut();
            if next.is_empty() {
                *next = spawns;
            }
        }
    }

    fn disable(&mut self, id: ActorId) {
        if self.runnable.expel(id) {
            self.idle.settle(id);
            self.nr_finite_enabled -= usize::from(self.slots[id.index()].life == Life::Finite);
            if self.nr_finite_enabled == 0 {
                self.core.request(Core::IDLE);
            }
        }
    }

    fn end(&mut self, id: ActorId) {
        let slot = &mut self.slots[id.index()];
        if slot.actor.take().is_some() {
            self.blocked[id.index()] = AWAKE;
            self.nr_finite -= usize::from(slot.life == Life::Finite);
            self.disable(id);
        }
    }
}
