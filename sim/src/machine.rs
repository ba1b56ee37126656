//! The machine: RAM, allocator, locks, CPUs, remapping units and devices around one engine, with one event stream.

use std::cell::{Cell, Ref, RefCell};
use std::rc::Rc;

use iommu_model::addr::{Pa, Pfn};

use crate::alloc::{FrameAllocator, Zone, slab};
use crate::cpu::Cpu;
use crate::device::Fabric;
use crate::engine::{ActorId, ChoiceKind, Core, Engine, Group, Life, Object};
use crate::memory::{Bad, Frame, FrameState, Memory, ObjectState, SHARED, Tag};
use crate::oracle::{Finding, Judge, Oracle, View};
use crate::sync::LockShadow;
use crate::trace::{Event, EventKind, Flavor, Verb};

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
}

impl Machine {
    /// A machine over `memory` (its frames already described) with the given hardware and oracles.
    pub fn new(core: Rc<Core>, memory: Memory, fabric: Fabric, oracles: Vec<Box<dyn Oracle>>, keep_log: bool) -> Rc<Machine> {
        Rc::new(Machine {
            core,
            fabric,
            costs: CpuCosts::default(),
            memory: RefCell::new(memory),
            frames: RefCell::new(FrameAllocator::new()),
            judge: RefCell::new(Judge::new(oracles, keep_log)),
            locks: RefCell::new(LockShadow::default()),
            stop: RefCell::new(None),
            scratch_only: Cell::new(false),
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
        let id = engine.spawn(name, group, Life::Finite, program(cpu));
        handle.assume(id);
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
        let actor = Box::pin(crate::engine::FutureActor::new(self.core.clone(), program(cpu)));
        let id = self.core.spawn(crate::engine::Spawn { name: self.core.name(name), group, life, actor });
        handle.assume(id);
        id
    }

    /// The memory, for reading.
    pub fn memory(&self) -> Ref<'_, Memory> {
        self.memory.borrow()
    }

    /// The judge, for reading.
    pub fn judge(&self) -> Ref<'_, Judge> {
        self.judge.borrow()
    }

    /// Changes shadow or bytes outside any step: set-up of a run.
    pub fn with_memory<R>(&self, change: impl FnOnce(&mut Memory) -> R) -> R {
        change(&mut self.memory.borrow_mut())
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
            self.tell(kind);
        }
    }

    fn tell(&self, kind: EventKind) {
        let memory = self.memory.borrow();
        let event = Event { step: self.core.steps(), actor: self.core.current(), era: memory.era, kind };
        if self.judge.borrow_mut().tell(&event, &View { memory: &memory, fabric: &self.fabric }) {
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
        self.judge.borrow_mut().found(Finding { property, title, details, step, actor });
        self.core.halt();
    }

    /// Records that the kernel stopped itself and ends the run.
    pub fn stop(&self, kind: StopKind, title: &str) {
        let era = self.memory.borrow().era;
        let (actor, step) = (self.core.current(), self.core.steps());
        self.stop.borrow_mut().get_or_insert(Stop { kind, title: title.to_owned(), era, actor, step });
        self.core.halt();
    }

    /// Asks the oracles about the end of the run.
    pub fn finish(&self) {
        self.judge.borrow_mut().end(&View { memory: &self.memory.borrow(), fabric: &self.fabric });
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
            let value = if (pa.0 & 7) + u64::from(bytes) <= 8 { memory.ram.load(pa, bytes) } else { memory.ram.load_unaligned(pa, bytes) };
            (pa, value, !checked || memory.ram.is_defined(pa, bytes))
        };
        if !defined {
            let mut details = vec![format!("read of {bytes} bytes at pa {pa:#x} that nothing has written", pa = pa.0)];
            details.extend(self.describe(pa));
            self.violate("definedness", "use-of-uninitialised-memory".to_owned(), details);
        }
        self.core.charge(self.costs.access);
        self.emit_here(EventKind::Load { pa, bytes, value, flavor });
        Ok(value)
    }

    pub(crate) fn perform_store(&self, va: u64, bytes: u8, value: u64, flavor: Flavor, actor: ActorId) -> Result<u64, Bad> {
        let (pa, old) = {
            let mut memory = self.memory.borrow_mut();
            let pa = memory.direct_map(va)?;
            memory.judge(pa, bytes, true)?;
            memory.note_store(pa, actor, bytes, value);
            let old = if (pa.0 & 7) + u64::from(bytes) <= 8 {
                memory.ram.store(pa, bytes, value)
            } else {
                memory.ram.store_unaligned(pa, bytes, value)
            };
            (pa, old)
        };
        self.core.charge(self.costs.access);
        let new = if bytes == 8 { value } else { value & ((1 << (bytes * 8)) - 1) };
        self.emit_here(EventKind::Store { pa, bytes, old, new, flavor });
        Ok(old)
    }

    /// Fills memory that only `actor` can reach, or that no actor runs beside: one event, no step.
    pub fn fill_at_once(&self, pa: Pa, bytes: u64, word: u64) {
        self.memory.borrow_mut().ram.fill(pa, bytes, word, true);
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
        self.frames.borrow_mut().give(&mut self.memory.borrow_mut(), &self.core, pfn, order, actor);
        self.core.charge(self.costs.allocate);
        self.emit(EventKind::FramesFreed { pfn, order, tag });
    }

    /// Takes a slab object of `bytes` bytes; a new slab page is tagged `page_tag`.
    pub fn take_object(&self, bytes: u16, tag: Tag, page_tag: Tag) -> Option<Pa> {
        let actor = self.core.current();
        let found = slab::take_slot(&mut self.memory.borrow_mut(), &self.core, bytes, tag, actor);
        let pa = match found {
            Some(pa) => pa,
            None => {
                let pfn = self.take_frames(0, Zone::Normal, page_tag)?;
                slab::add_page(&mut self.memory.borrow_mut(), pfn, bytes);
                slab::take_slot(&mut self.memory.borrow_mut(), &self.core, bytes, tag, actor)?
            }
        };
        self.core.charge(self.costs.allocate);
        self.emit(EventKind::ObjectTaken { pa, bytes, tag });
        Some(pa)
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

    /// Wakes every actor that waits for the word at `pa` to change.
    pub fn wake_word(&self, pa: Pa) {
        self.core.wake(Object(pa.0));
    }
}
