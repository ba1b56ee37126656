//! Everything a machine keeps beside its coherent bytes, and what an access makes of it.

use std::cell::RefCell;

use iommu_model::addr::Pa;
use smallvec::SmallVec;

use super::dirty_lines::DirtyLines;
use super::history::{History, Time};
use super::store_buffer::{Forward, StoreBuffer};
use super::view::CpuView;
use super::{LINE_BYTES, MemoryModel};
use crate::engine::{ActorId, ChoiceKind, Core};
use crate::memory::{Memory, Ram};
use crate::trace::Flavor;

/// How often a load of the weak model is stale where it may be, in 1/1024. Knob.
const STALE_PER_1024: u32 = 384;
/// How often a dirty line was evicted by the time somebody looks, in 1/1024. Knob.
const EVICTED_PER_1024: u32 = 256;

/// One CPU's own part.
#[derive(Clone, Default)]
pub(super) struct CpuState {
    pub(super) buffer: StoreBuffer,
    pub(super) view: CpuView,
    /// Lines whose write-back was asked for and is complete at the next barrier.
    pub(super) flushes: SmallVec<[Pa; 8]>,
}

/// What lies over the coherent bytes; a machine has one only if something does.
pub(crate) struct Overlay {
    pub(super) model: MemoryModel,
    pub(super) cpus: RefCell<Vec<CpuState>>,
    pub(super) history: RefCell<History>,
    lines: Option<RefCell<DirtyLines>>,
}

impl Overlay {
    /// The overlay of a machine; none when memory is sequentially consistent and all walkers snoop.
    pub(crate) fn new(model: MemoryModel, nr_frames: usize, walkers_snoop: bool) -> Option<Box<Overlay>> {
        (model != MemoryModel::Sc || !walkers_snoop).then(|| {
            Box::new(Overlay {
                model,
                cpus: RefCell::new(Vec::new()),
                history: RefCell::new(History::new()),
                lines: (!walkers_snoop).then(|| RefCell::new(DirtyLines::new(nr_frames))),
            })
        })
    }

    pub(crate) fn buffers_stores(&self) -> bool {
        self.model != MemoryModel::Sc
    }
    pub(crate) fn is_weak(&self) -> bool {
        self.model == MemoryModel::Weak
    }
    pub(crate) fn has_dirty_lines(&self) -> bool {
        self.lines.is_some()
    }
    /// The CPU in whose cache the line of `pa` is dirty.
    pub(crate) fn line_owner(&self, pa: Pa) -> Option<ActorId> {
        self.lines.as_ref()?.borrow().owner(pa)
    }

    /// The word at `pa` that `cpu` has stored and nobody else sees yet.
    pub(crate) fn own_word(&self, cpu: ActorId, pa: Pa) -> Option<u64> {
        match self.with_cpu(cpu, |cpu| cpu.buffer.forward(pa, 8)) {
            Forward::Value(value) => Some(value),
            Forward::None | Forward::Partial => None,
        }
    }

    /// What is known of `cpu`, from nothing on.
    pub(super) fn with_cpu<R>(&self, cpu: ActorId, use_it: impl FnOnce(&mut CpuState) -> R) -> R {
        let mut cpus = self.cpus.borrow_mut();
        if cpus.len() <= cpu.index() {
            cpus.resize_with(cpu.index() + 1, CpuState::default);
        }
        use_it(&mut cpus[cpu.index()])
    }

    /// The value of a load by the actor at work, and whether all its bytes were ever written.
    pub(crate) fn load(&self, core: &Core, memory: &Memory, pa: Pa, bytes: u8, flavor: Flavor) -> (u64, bool) {
        if self.buffers_stores() {
            let cpu = core.current();
            if let Forward::Value(value) = self.with_cpu(cpu, |cpu| cpu.buffer.forward(pa, bytes)) {
                return (value, true);
            }
            if self.is_weak() && (pa.0 & 7) + u64::from(bytes) <= 8 {
                return self.load_perhaps_stale(core, memory, pa, bytes, flavor);
            }
        }
        (memory.ram.load_unaligned(pa, bytes), memory.ram.is_defined(pa, bytes))
    }

    fn load_perhaps_stale(&self, core: &Core, memory: &Memory, pa: Pa, bytes: u8, flavor: Flavor) -> (u64, bool) {
        let word = Pa(pa.0 & !7);
        let history = self.history.borrow();
        let older = self.with_cpu(core.current(), |cpu| match flavor {
            Flavor::Atomic => Default::default(),
            Flavor::Plain | Flavor::Once | Flavor::Ordered => history.versions(word, cpu.view.floor_at(pa), cpu.view.seen(word)),
        });
        let stale = !older.is_empty() && core.odds(ChoiceKind::Hardware, STALE_PER_1024);
        let (value, defined, time) = if stale {
            let version = older[core.choose(ChoiceKind::Hardware, older.len() as u32) as usize];
            let wanted = (((1u16 << bytes) - 1) << (pa.0 & 7)) as u8;
            let value = version.word >> (8 * (pa.0 & 7));
            let value = if bytes == 8 { value } else { value & ((1 << (8 * bytes)) - 1) };
            (value, version.defined & wanted == wanted, version.begin)
        } else {
            (memory.ram.load(pa, bytes), memory.ram.is_defined(pa, bytes), history.stored_at(word))
        };
        self.with_cpu(core.current(), |cpu| {
            cpu.view.read(word, time);
            if flavor == Flavor::Ordered {
                cpu.view.raise(time);
            }
            if bytes == 8
                && let Some((first, bytes)) = memory.pointee(value)
            {
                cpu.view.read_pointer(first, bytes, time);
            }
        });
        (value, defined)
    }

    /// A store of `cpu` is about to reach the coherent bytes at `pa`. `shared` says whether anybody else can reach them.
    pub(crate) fn before_store(&self, core: &Core, ram: &Ram, pa: Pa, bytes: u8, cpu: ActorId, shared: bool) {
        if shared {
            self.remember(ram, pa, bytes, Some(cpu));
        }
        let Some(lines) = &self.lines else { return };
        let last = Pa(pa.0 + u64::from(bytes) - 1);
        for pa in std::iter::once(pa).chain((pa.0 / LINE_BYTES != last.0 / LINE_BYTES).then_some(last)) {
            // A line that was evicted between two stores shows the walker the first without the second.
            let evicted = shared && lines.borrow().is_dirty(pa) && core.odds(ChoiceKind::Hardware, EVICTED_PER_1024);
            let mut lines = lines.borrow_mut();
            if evicted {
                lines.write_back(pa);
            }
            lines.dirty(ram, pa, cpu);
        }
    }

    /// A device is about to store at `pa`: what a CPU has there leaves its cache first.
    pub(crate) fn before_dma_write(&self, ram: &Ram, pa: Pa, bytes: u8) {
        if let Some(lines) = &self.lines {
            lines.borrow_mut().write_back(pa);
        }
        self.remember(ram, pa, bytes, None);
    }

    /// Keeps the words that a store of `cpu`, or of a device, overwrites.
    fn remember(&self, ram: &Ram, pa: Pa, bytes: u8, cpu: Option<ActorId>) {
        if !self.is_weak() {
            return;
        }
        let (first, last) = (pa.0 & !7, (pa.0 + u64::from(bytes) - 1) & !7);
        for word in std::iter::once(first).chain((first != last).then_some(last)).map(Pa) {
            let time = self.history.borrow_mut().overwrite(word, ram.load(word, 8), ram.defined_bytes(word));
            if let Some(cpu) = cpu {
                self.with_cpu(cpu, |cpu| cpu.view.see(word, time));
            }
        }
    }

    /// `cpu` is about to fill `bytes` bytes at `pa`, which nobody else can reach.
    pub(crate) fn before_fill(&self, ram: &Ram, pa: Pa, bytes: u64, cpu: ActorId) {
        let Some(lines) = &self.lines else { return };
        for line in (pa.0 & !(LINE_BYTES - 1)..pa.0 + bytes).step_by(LINE_BYTES as usize) {
            lines.borrow_mut().dirty(ram, Pa(line), cpu);
        }
    }

    /// Memory at `pa` begins a new life: no load returns what its last owner had there.
    pub(crate) fn forget(&self, pa: Pa, bytes: u64) {
        if self.is_weak() {
            self.history.borrow_mut().forget(pa, bytes);
        }
    }

    /// The word at `pa` as a walker that does not snoop reads it.
    pub(crate) fn fetch(&self, core: &Core, ram: &Ram, pa: Pa) -> u64 {
        let Some(lines) = &self.lines else { return ram.load(pa, 8) };
        if lines.borrow().is_dirty(pa) && core.odds(ChoiceKind::Hardware, EVICTED_PER_1024) {
            lines.borrow_mut().write_back(pa);
        }
        lines.borrow().behind(pa).unwrap_or_else(|| ram.load(pa, 8))
    }

    /// The line of `pa` reaches memory.
    pub(super) fn write_back(&self, pa: Pa) {
        if let Some(lines) = &self.lines {
            lines.borrow_mut().write_back(pa);
        }
    }

    /// The frame's bytes were replaced behind the caches.
    pub(crate) fn frame_was_replaced(&self, pfn: u64) {
        if let Some(lines) = &self.lines {
            lines.borrow_mut().write_back_frame(pfn);
        }
    }

    pub(super) fn now(&self) -> Time {
        self.history.borrow().now()
    }

    /// All CPUs begin anew; dirty lines stay.
    pub(super) fn reset_cpus(&self) {
        let now = self.now();
        for cpu in self.cpus.borrow_mut().iter_mut() {
            *cpu = CpuState::default();
            cpu.view.raise(now);
        }
        self.history.borrow_mut().clear();
    }
}
