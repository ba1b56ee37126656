//! The machine: RAM, allocator, locks, CPUs, remapping units and devices around one engine, with one event stream.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::pin::Pin;
use std::rc::Rc;

use iommu_model::addr::{Pa, Pfn};

use crate::alloc::{FrameAllocator, Placement, Zone, slab};
use crate::cpu::Cpu;
use crate::device::Fabric;
use crate::engine::{Actor, ActorId, ChoiceKind, Core, Engine, FutureActor, Group, Life, Object, Op, OpKind, Spawn};
use crate::memory::{Bad, Frame, FrameState, Memory, ObjectState, SHARED, Tag};
use crate::memory_model::{LINE_BYTES, MemoryModel, Overlay};
use crate::oracle::{Access, Finding, Judge, Oracle, RaceDetector, RaceRules, View};
use crate::sync::LockShadow;
use crate::trace::{Event, EventKind, Flavor, Functions, InFunction, UnitId, Verb};

/// How a kernel stopped itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopKind {
    /// `BUG()`, `BUG_ON()`.
    Bug,
    /// `panic()`.
    Panic,
}

/// A stop of the kernel under test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// How.
    pub kind: StopKind,
    /// Where: function and condition, stable, without numbers.
    pub title: String,
    /// Generation that stopped.
    pub era: u8,
    /// Actor that stopped it.
    pub actor: ActorId,
    /// Step at which it happened.
    pub step: u64,
}

/// Costs of CPU steps in cycles of a 3 GHz core. Knobs: order of magnitude of an L2 hit, an atomic, an uncontended lock, an
/// allocator call; no claim rests on them.
#[derive(Clone, Copy, Debug)]
pub struct CpuCosts {
    /// Load or store.
    pub access: u32,
    /// Atomic read-modify-write.
    pub atomic: u32,
    /// Allocator call.
    pub allocate: u32,
    /// Register access of a device.
    pub register: u32,
}

impl Default for CpuCosts {
    fn default() -> Self {
        CpuCosts { access: 4, atomic: 20, allocate: 120, register: 400 }
    }
}

/// What can be chosen about a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MachineConfig {
    /// Keep the events, for reports.
    pub keep_log: bool,
    /// How CPUs order their accesses.
    pub model: MemoryModel,
    /// Look for data races, by these rules.
    pub races: Option<RaceRules>,
    /// Which free memory is handed out.
    pub placement: Placement,
    /// A finding is recorded only and does not end the run: for searches that learn from whole runs
    /// ([`Explorer::needs_whole_runs`](crate::policy::Explorer::needs_whole_runs)).
    pub goes_on: bool,
}

/// Everything the actors of one run share.
pub struct Machine {
    /// Engine core: announcements, choices.
    pub core: Rc<Core>,
    /// Remapping units and devices.
    pub fabric: Fabric,
    /// Costs of CPU steps.
    pub costs: CpuCosts,
    memory: RefCell<Memory>,
    frames: RefCell<FrameAllocator>,
    judge: RefCell<Judge>,
    pub(crate) locks: RefCell<LockShadow>,
    stop: RefCell<Option<Stop>>,
    scratch_only: Cell<bool>,
    /// What lies over the coherent bytes; nothing under sequential consistency with walkers that snoop.
    pub(crate) overlay: Option<Box<Overlay>>,
    races: Option<Box<RefCell<RaceDetector>>>,
    functions: Functions,
    goes_on: bool,
}

impl Machine {
    /// A sequentially consistent machine over `memory` (its frames already described) with the given hardware and oracles.
    pub fn new(core: Rc<Core>, memory: Memory, fabric: Fabric, oracles: Vec<Box<dyn Oracle>>, keep_log: bool) -> Rc<Machine> {
        Machine::with_config(core, memory, fabric, oracles, MachineConfig { keep_log, ..MachineConfig::default() })
    }

    /// As [`Machine::new`], with all that can be chosen. Table fetches of units that report ECAP.C = 0 do not snoop.
    pub fn with_config(
        core: Rc<Core>,
        memory: Memory,
        fabric: Fabric,
        oracles: Vec<Box<dyn Oracle>>,
        config: MachineConfig,
    ) -> Rc<Machine> {
        let MachineConfig { keep_log, model, races, placement, goes_on } = config;
        let walkers_snoop = fabric.units().iter().all(|slot| slot.unit.borrow().capabilities().coherent);
        let overlay = Overlay::new(model, memory.frames.len(), walkers_snoop);
        Rc::new(Machine {
            overlay,
            races: races.map(|rules| Box::new(RefCell::new(RaceDetector::new(rules, model != MemoryModel::Sc)))),
            core,
            fabric,
            costs: CpuCosts::default(),
            memory: RefCell::new(memory),
            frames: RefCell::new(FrameAllocator::new(placement)),
            judge: RefCell::new(Judge::new(oracles, keep_log)),
            locks: RefCell::new(LockShadow::default()),
            stop: RefCell::new(None),
            scratch_only: Cell::new(false),
            functions: Functions::default(),
            goes_on,
        })
    }

    /// Spawns a CPU program into `group`. The program gets the [`Cpu`] it runs on.
    pub fn spawn_cpu<F, P>(self: &Rc<Machine>, engine: &Engine, name: &str, group: Group, program: P) -> ActorId
    where
        F: Future<Output = ()> + 'static,
        P: FnOnce(Cpu) -> F,
    {
        let cpu = Cpu::new(self.clone());
        let handle = cpu.clone();
        let program = program(cpu);
        let id = if self.overlay.is_none() {
            engine.spawn(name, group, Life::Finite, program)
        } else {
            engine.spawn(name, group, Life::Finite, handle.clone().run_to_the_last_drain(program))
        };
        handle.assume(id);
        self.start_draining(name, id);
        id
    }

    /// As [`Machine::spawn_cpu`], from inside a step.
    pub fn spawn_from_step<F, P>(self: &Rc<Machine>, name: &str, group: Group, life: Life, program: P) -> ActorId
    where
        F: Future<Output = ()> + 'static,
        P: FnOnce(Cpu) -> F,
    {
        let cpu = Cpu::new(self.clone());
        let handle = cpu.clone();
        let program = program(cpu);
        let actor: Pin<Box<dyn Actor>> = if self.overlay.is_none() {
            Box::pin(FutureActor::new(self.core.clone(), program))
        } else {
            let (machine, creator, cpu) = (self.clone(), self.core.current(), handle.clone());
            self.settle_quiet(creator);
            Box::pin(FutureActor::new(self.core.clone(), async move {
                machine.wait_for_stores_of(creator).await;
                cpu.order_after();
                cpu.run_to_the_last_drain(program).await;
            }))
        };
        let id = self.core.spawn(Spawn { name: self.core.name(name), group, life, actor });
        handle.assume(id);
        self.start_draining(name, id);
        self.with_races(|races| races.create(self.core.current(), id));
        id
    }

    /// Tells the race detector, if there is one.
    #[inline]
    pub(crate) fn with_races(&self, tell: impl FnOnce(&mut RaceDetector)) {
        if let Some(races) = &self.races {
            tell(&mut races.borrow_mut());
        }
    }

    /// Says which function the actor at work is in until the guard goes, for reports.
    #[inline]
    pub fn enter(&self, function: &'static str) -> InFunction<'_> {
        self.with_races(|races| races.enter(self.core.current(), function));
        self.functions.enter(self.core.current(), function)
    }

    #[cold]
    fn judge_race(&self, access: Access) {
        let Some(races) = &self.races else { return };
        let race = races.borrow_mut().access(&access);
        if let Some(race) = race {
            let mut details = race.details;
            details.extend(self.describe(access.pa));
            self.violate("RACE", race.title, details);
        }
    }

    /// Tells the race detector of an access of the actor at work.
    #[inline]
    pub(crate) fn note_access(&self, pa: Pa, bytes: u8, store: bool, flavor: Flavor, value: u64, old: u64) {
        if self.races.is_some() {
            let (actor, step) = (self.core.current(), self.core.steps());
            self.judge_race(Access { actor, pa, bytes, store, flavor, value, old, step });
        }
    }

    /// The memory, for reading.
    pub fn memory(&self) -> Ref<'_, Memory> {
        self.memory.borrow()
    }

    /// The judge, for reading.
    pub fn judge(&self) -> Ref<'_, Judge> {
        self.judge.borrow()
    }

    /// The judge, when the run is over.
    pub fn judge_mut(&self) -> RefMut<'_, Judge> {
        self.judge.borrow_mut()
    }

    /// Changes shadow or bytes outside any step: set-up of a run, or what takes no step of its own. Own buffered stores go before.
    pub fn with_memory<R>(&self, change: impl FnOnce(&mut Memory) -> R) -> R {
        if self.overlay.is_some() {
            self.settle_own();
        }
        self.change_memory(change)
    }

    /// Changes shadow or bytes and nothing else.
    pub(crate) fn change_memory<R>(&self, change: impl FnOnce(&mut Memory) -> R) -> R {
        change(&mut self.memory.borrow_mut())
    }

    /// The word at `pa` (8-byte aligned) as a load of the actor at work would find it if nothing were stale: no step, no event.
    pub fn peek(&self, pa: Pa) -> u64 {
        let own = self.overlay.as_ref().and_then(|overlay| overlay.own_word(self.core.current(), pa));
        own.unwrap_or_else(|| self.memory.borrow().ram.load(pa, 8))
    }

    /// Where the first word from `from` on and before `end` lies (word aligned, in RAM) that [`Machine::peek`] would not find to be 0.
    pub fn peek_not_zero(&self, from: Pa, end: Pa) -> Option<Pa> {
        match &self.overlay {
            None => self.memory.borrow().ram.next_nonzero(from, end).map(|(at, _)| at),
            Some(_) => (from.0..end.0).step_by(8).map(Pa).find(|at| self.peek(*at) != 0),
        }
    }

    /// Takes the memory out, for the next run.
    pub fn into_memory(self) -> Memory {
        self.memory.into_inner()
    }

    /// How the kernel stopped, if it did.
    pub fn stopped(&self) -> Option<Stop> {
        self.stop.borrow().clone()
    }

    /// Puts an event on the stream.
    pub fn emit(&self, kind: EventKind) {
        self.emit_here(kind);
    }

    /// As [`Machine::emit`], for the accesses: inlined, the hash of an event that nobody wants costs a dozen instructions.
    #[inline(always)]
    fn emit_here(&self, kind: EventKind) {
        if self.judge.borrow_mut().take(self.core.steps(), self.core.current(), &kind) {
            self.tell(self.core.current(), kind);
        }
    }

    /// As [`Machine::emit_here`], for a store.
    #[inline(always)]
    fn emit_store(&self, kind: EventKind, pa: Pa, changed: u64) {
        let wanted = {
            let mut judge = self.judge.borrow_mut();
            judge.take(self.core.steps(), self.core.current(), &kind) && judge.wants_store(pa, changed, &self.memory.borrow())
        };
        if wanted {
            self.tell(self.core.current(), kind);
        }
    }

    /// Puts an event on the stream that another actor than the one at work has caused.
    pub(crate) fn emit_as(&self, actor: ActorId, kind: EventKind) {
        if self.judge.borrow_mut().take(self.core.steps(), actor, &kind) {
            self.tell(actor, kind);
        }
    }

    fn tell(&self, actor: ActorId, kind: EventKind) {
        let memory = self.memory.borrow();
        let event = Event { step: self.core.steps(), actor, era: memory.era, kind };
        let function = self.functions.of(actor);
        if self.judge.borrow_mut().tell(&event, &View { memory: &memory, fabric: &self.fabric }, function) && !self.goes_on {
            self.core.halt();
        }
    }

    /// Puts a word of the workload on the stream.
    pub fn note(&self, verb: Verb, args: [u64; 4]) {
        self.emit(EventKind::Note { verb, args });
    }

    /// Records a finding and ends the run.
    pub fn violate(&self, property: &'static str, title: String, details: Vec<String>) {
        let (step, actor) = (self.core.steps(), self.core.current());
        self.found(Finding { property, title, details, step, actor });
    }

    /// As [`Machine::violate`], for a finding of another actor.
    pub(crate) fn found(&self, finding: Finding) {
        let function = self.functions.of(finding.actor);
        self.judge.borrow_mut().found(finding, function);
        if !self.goes_on {
            self.core.halt();
        }
    }

    /// Records that the kernel stopped itself and ends the run.
    pub fn stop(&self, kind: StopKind, title: &str) {
        let era = self.memory.borrow().era;
        let (actor, step) = (self.core.current(), self.core.steps());
        self.stop.borrow_mut().get_or_insert(Stop { kind, title: title.to_owned(), era, actor, step });
        self.core.halt();
    }

    /// Lets the last buffered stores reach memory and asks the oracles about the end of the run.
    pub fn finish(&self) {
        self.drain_all();
        self.judge.borrow_mut().end(&View { memory: &self.memory.borrow(), fabric: &self.fabric });
    }

    /// True when a store is not a step but enters a store buffer.
    #[inline]
    pub(crate) fn buffers_stores(&self) -> bool {
        self.overlay.as_ref().is_some_and(|overlay| overlay.buffers_stores())
    }

    /// True when even stores to memory nobody else can reach wait.
    pub(crate) fn is_weak(&self) -> bool {
        self.overlay.as_ref().is_some_and(|overlay| overlay.is_weak())
    }

    /// The physical address of `va` and whether others can reach it. A bad address counts as reachable: the access is a step,
    /// and judged there.
    #[inline]
    pub(crate) fn reach(&self, va: u64, actor: ActorId) -> (Option<Pa>, bool) {
        let memory = self.memory.borrow();
        match memory.direct_map(va) {
            Ok(pa) => (Some(pa), !memory.is_private(pa, actor)),
            Err(_) => (None, true),
        }
    }

    pub(crate) fn perform_load(&self, va: u64, bytes: u8, flavor: Flavor, checked: bool) -> Result<u64, Bad> {
        let (pa, value, defined) = {
            let memory = self.memory.borrow();
            let pa = memory.direct_map(va)?;
            memory.judge(pa, bytes, false)?;
            let (value, defined) = match &self.overlay {
                None => {
                    let one_word = (pa.0 & 7) + u64::from(bytes) <= 8;
                    let value = if one_word { memory.ram.load(pa, bytes) } else { memory.ram.load_unaligned(pa, bytes) };
                    (value, !checked || memory.ram.is_defined(pa, bytes))
                }
                Some(overlay) => {
                    let (value, defined) = overlay.load(&self.core, &memory, pa, bytes, flavor);
                    (value, defined || !checked)
                }
            };
            (pa, value, defined)
        };
        if !defined {
            let mut details = vec![format!("read of {bytes} bytes at pa {pa:#x} that nothing has written", pa = pa.0)];
            details.extend(self.describe(pa));
            self.violate("definedness", "use-of-uninitialised-memory".to_owned(), details);
        }
        self.core.charge(self.costs.access);
        self.emit_here(EventKind::Load { pa, bytes, value, flavor });
        self.note_access(pa, bytes, false, flavor, value, value);
        Ok(value)
    }

    pub(crate) fn perform_store(&self, va: u64, bytes: u8, value: u64, flavor: Flavor, actor: ActorId) -> Result<u64, Bad> {
        let (pa, old) = {
            let mut memory = self.memory.borrow_mut();
            let pa = memory.direct_map(va)?;
            memory.judge(pa, bytes, true)?;
            memory.note_store(pa, actor, bytes, value);
            if let Some(overlay) = &self.overlay {
                let shared = !memory.is_private(pa, actor);
                overlay.before_store(&self.core, &memory.ram, pa, bytes, actor, shared);
            }
            let old = if (pa.0 & 7) + u64::from(bytes) <= 8 {
                memory.ram.store(pa, bytes, value)
            } else {
                memory.ram.store_unaligned(pa, bytes, value)
            };
            (pa, old)
        };
        self.core.charge(self.costs.access);
        let new = if bytes == 8 { value } else { value & ((1 << (bytes * 8)) - 1) };
        self.emit_store(EventKind::Store { pa, bytes, old, new, flavor }, pa, old ^ new);
        self.note_access(pa, bytes, true, flavor, new, old);
        Ok(old)
    }

    /// Fills memory that only `actor` can reach, or that no actor runs beside: one event, no step.
    pub fn fill_at_once(&self, pa: Pa, bytes: u64, word: u64) {
        let mut memory = self.memory.borrow_mut();
        if let Some(overlay) = &self.overlay {
            overlay.before_fill(&memory.ram, pa, bytes, self.core.current());
        }
        memory.ram.fill(pa, bytes, word, true);
    }

    /// Takes a block of frames for `tag`; the words keep whatever they had and count as undefined.
    pub fn take_frames(&self, order: u8, zone: Zone, tag: Tag) -> Option<Pfn> {
        let zone = if self.scratch_only.get() { Zone::ScratchOnly } else { zone };
        let actor = self.core.current();
        let pfn = self.frames.borrow_mut().take(&mut self.memory.borrow_mut(), &self.core, order, zone, tag, actor)?;
        for i in 0..1u64 << order {
            let mut memory = self.memory.borrow_mut();
            if memory.ram.is_touched(pfn.0 + i) {
                let base = Pa((pfn.0 + i) << 12);
                memory.ram.undefine_frame(base);
            }
        }
        if let Some(overlay) = &self.overlay {
            overlay.forget(Pa(pfn.0 << 12), 4096 << order);
        }
        self.with_races(|races| races.allocate(actor, Pa(pfn.0 << 12), 4096 << order));
        self.core.charge(self.costs.allocate);
        self.emit(EventKind::FramesTaken { pfn, order, tag });
        Some(pfn)
    }

    /// Gives a block back. A block that is not wholly allocated is a double free: a finding.
    pub fn give_frames(&self, pfn: Pfn, order: u8) {
        let bad = {
            let memory = self.memory.borrow();
            let range = pfn.0 as usize..(pfn.0 as usize + (1 << order)).min(memory.frames.len());
            range.clone().len() != 1 << order || memory.frames[range].iter().any(|frame| frame.state != FrameState::Owned)
        };
        if bad {
            let pa = Pa(pfn.0 << 12);
            let mut details = vec![format!("free of order {order} at pa {:#x}, which is not allocated", pa.0)];
            details.extend(self.describe(pa));
            self.violate("LIFE", "double-free of a folio".to_owned(), details);
            return;
        }
        self.check_no_lock_held_in(Pa(pfn.0 << 12), 4096 << order);
        let tag = self.memory.borrow().frames[pfn.0 as usize].tag;
        let actor = self.core.current();
        self.with_races(|races| races.free(actor, Pa(pfn.0 << 12), 4096 << order));
        self.frames.borrow_mut().give(&mut self.memory.borrow_mut(), &self.core, pfn, order, actor);
        self.core.charge(self.costs.allocate);
        self.emit(EventKind::FramesFreed { pfn, order, tag });
    }

    /// Takes a slab object of `bytes` bytes; a new slab page is tagged `page_tag`.
    pub fn take_object(&self, bytes: u16, tag: Tag, page_tag: Tag) -> Option<Pa> {
        let actor = self.core.current();
        let found = self.take_slot(bytes, tag, actor);
        let pa = match found {
            Some(pa) => pa,
            None => {
                let pfn = self.take_frames(0, Zone::Normal, page_tag)?;
                slab::add_page(&mut self.memory.borrow_mut(), pfn, bytes);
                self.take_slot(bytes, tag, actor)?
            }
        };
        if let Some(overlay) = &self.overlay {
            overlay.forget(pa, u64::from(bytes));
        }
        self.with_races(|races| races.allocate(actor, pa, u64::from(bytes)));
        self.core.charge(self.costs.allocate);
        self.emit(EventKind::ObjectTaken { pa, bytes, tag });
        Some(pa)
    }

    fn take_slot(&self, bytes: u16, tag: Tag, actor: ActorId) -> Option<Pa> {
        let placement = self.frames.borrow().placement();
        slab::take_slot(&mut self.memory.borrow_mut(), &self.core, placement, bytes, tag, actor)
    }

    /// Frees the slab object at `pa`; anything else there is a finding.
    pub fn give_object(&self, pa: Pa) {
        let bytes = {
            let memory = self.memory.borrow();
            memory.slot_at(pa).map_or(0, |(page, slot)| u64::from(memory.slabs[page].slots[slot].bytes))
        };
        self.check_no_lock_held_in(pa, bytes);
        let actor = self.core.current();
        let given = slab::give_slot(&mut self.memory.borrow_mut(), &self.core, pa, actor);
        match given {
            Ok(tag) => {
                self.with_races(|races| races.free(actor, pa, bytes));
                self.core.charge(self.costs.allocate);
                self.emit(EventKind::ObjectFreed { pa, tag });
            }
            Err(state) => {
                let title = match state {
                    Some(ObjectState::Quarantined) => "double-free of a slab object",
                    Some(_) | None => "invalid-free",
                };
                let mut details = vec![format!("kfree of pa {:#x}", pa.0)];
                details.extend(self.describe(pa));
                self.violate("LIFE", title.to_owned(), details);
            }
        }
    }

    /// Asks whether the fallible call at hand fails; the failure goes on the event stream.
    pub fn fails(&self, kind: ChoiceKind, class: u16) -> bool {
        let fails = self.core.fails(kind, class);
        if fails {
            self.emit(EventKind::Injected { kind, class });
        }
        fails
    }

    /// From now on allocations come from scratch only (early boot), or from everywhere again.
    pub fn set_scratch_only(&self, on: bool) {
        self.scratch_only.set(on);
    }

    /// Rebuilds the free lists from the shadow: free frames become allocatable.
    pub fn rebuild_free_lists(&self) {
        self.frames.borrow_mut().rebuild(&mut self.memory.borrow_mut());
    }

    /// Ends the running generation in one step: its group is forgotten, its memory is free except what `keep` says, locks and
    /// objects are gone. What is free now keeps its bytes, is zeroed or filled with junk, as the policy chooses.
    pub fn jump(&self, groups: &[Group], keep: impl Fn(Pfn, &Frame) -> FrameState) {
        for group in groups {
            self.core.forget(*group);
        }
        self.drain_for_jump();
        self.with_races(RaceDetector::jump);
        let poison = self.core.choose(ChoiceKind::Poison, 3);
        let era = {
            let mut memory = self.memory.borrow_mut();
            let memory = &mut *memory;
            memory.publish_all();
            memory.slabs.clear();
            memory.descriptors = None;
            memory.era += 1;
            for index in 0..memory.frames.len() {
                let pfn = Pfn(index as u64);
                let state = match memory.frames[index].state {
                    FrameState::Absent => FrameState::Absent,
                    _ => keep(pfn, &memory.frames[index]),
                };
                let frame = &mut memory.frames[index];
                frame.state = state;
                frame.slab = 0;
                frame.free_order = 0;
                frame.private_to = SHARED;
                frame.version += 1;
                if state == FrameState::Free && memory.ram.is_touched(pfn.0) {
                    let pa = Pa(pfn.0 << 12);
                    if let Some(overlay) = self.overlay.as_deref().filter(|_| poison != 0) {
                        overlay.frame_was_replaced(pfn.0);
                    }
                    match poison {
                        0 => memory.ram.undefine_frame(pa),
                        1 => memory.ram.fill(pa, 4096, 0, false),
                        _ => memory.ram.fill(pa, 4096, 0x6b6b_6b6b_6b6b_6b6b, false),
                    }
                }
            }
            memory.era
        };
        self.locks.borrow_mut().clear();
        self.frames.borrow_mut().reset();
        self.emit(EventKind::Jumped { era });
    }

    /// Says what lies at `pa`, for reports: one or two lines.
    pub fn describe(&self, pa: Pa) -> Vec<String> {
        let memory = self.memory.borrow();
        let Some(frame) = memory.frame(pa) else { return vec![format!("pa {:#x} is outside RAM", pa.0)] };
        let mut lines = vec![format!(
            "frame pa {:#x}: {:?}, tag {}, order {}, era {}, since step {} by {}",
            pa.0 & !0xfff,
            frame.state,
            frame.tag.0,
            frame.order,
            frame.era,
            frame.since,
            frame.by
        )];
        if let Some((page, slot)) = memory.slot_at(pa) {
            let object = &memory.slabs[page].slots[slot];
            lines.push(format!(
                "object of {} bytes: {:?}, tag {}, since step {} by {}",
                object.bytes, object.state, object.tag.0, object.since, object.by
            ));
        }
        lines
    }

    fn check_no_lock_held_in(&self, pa: Pa, bytes: u64) {
        let held = self.locks.borrow().held_in(pa, bytes);
        if let Some((lock, holder)) = held {
            let details = vec![format!("lock at pa {:#x} held by {holder} when its memory was freed", lock.0)];
            self.violate("LOCK", "held lock freed".to_owned(), details);
        }
    }

    /// Actors that hold the lock at `pa`.
    pub fn lock_holders(&self, pa: Pa) -> Vec<ActorId> {
        self.locks.borrow().holders(pa).collect()
    }

    /// Reads one or two words as hardware does; none where there is no RAM.
    pub(crate) fn read_words(&self, pa: Pa, nr: usize) -> Option<[u64; 2]> {
        let memory = self.memory.borrow();
        let exists = |pa: Pa| memory.frame(pa).is_some_and(|frame| frame.state != FrameState::Absent);
        let aligned = Pa(pa.0 & !7);
        let first = exists(aligned).then(|| memory.ram.load(aligned, 8))?;
        let second = if nr > 1 {
            let next = Pa(aligned.0 + 8);
            exists(next).then(|| memory.ram.load(next, 8))?
        } else {
            0
        };
        Some([first, second])
    }

    /// The step in which a CPU's store of `bytes` bytes at `pa` reaches the caches.
    pub(crate) fn store_op(&self, pa: Pa, bytes: u8) -> Op {
        let op = Op::new(OpKind::Write, Object(pa.0), u16::from(bytes));
        match &self.overlay {
            Some(overlay) if overlay.has_dirty_lines() => op.over_lines(LINE_BYTES),
            _ => op,
        }
    }

    /// The step in which the table walker of `unit` fetches `bytes` bytes at `pa`.
    pub fn fetch_op(&self, unit: UnitId, pa: Pa, bytes: u16) -> Op {
        let op = Op::new(OpKind::Fetch, Object(pa.0), bytes);
        if self.fabric.snoops(unit) { op } else { op.over_lines(LINE_BYTES) }
    }

    /// Reads one or two words, inside the step at hand, as the table walker of `unit` does: dirty lines are behind where it does not
    /// snoop. None where there is no RAM.
    pub fn fetch_words(&self, unit: UnitId, pa: Pa, nr: usize) -> Option<[u64; 2]> {
        let words = self.read_words(pa, nr)?;
        let Some(overlay) = self.overlay.as_deref().filter(|_| !self.fabric.snoops(unit)) else { return Some(words) };
        let memory = self.memory.borrow();
        let aligned = pa.0 & !7;
        let second = if nr > 1 { overlay.fetch(&self.core, &memory.ram, Pa(aligned + 8)) } else { 0 };
        Some([overlay.fetch(&self.core, &memory.ram, Pa(aligned)), second])
    }

    /// Stores as a device does: coherently. The caller has made sure that there is RAM. Returns what was there.
    pub(crate) fn store_by_device(&self, pa: Pa, bytes: u8, value: u64) -> u64 {
        let mut memory = self.memory.borrow_mut();
        if let Some(overlay) = &self.overlay {
            overlay.before_dma_write(&memory.ram, pa, bytes);
        }
        memory.ram.store(pa, bytes, value)
    }

    /// The CPU in whose cache the line of `pa` is dirty, where that can matter: a unit does not snoop.
    pub fn dirty_line_owner(&self, pa: Pa) -> Option<ActorId> {
        self.overlay.as_ref()?.line_owner(pa)
    }

    /// Wakes every actor that waits for the word at `pa` to change.
    pub fn wake_word(&self, pa: Pa) {
        self.core.wake(Object(pa.0));
    }
}
