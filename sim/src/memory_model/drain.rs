//! Stores on their way from a CPU's buffer to memory.

use std::rc::Rc;

use iommu_model::addr::Pa;

use super::Overlay;
use super::store_buffer::{Forward, Pending};
use crate::cpu::Cpu;
use crate::engine::{ActorId, ChoiceKind, Life, Object, Op, Spawn};
use crate::machine::Machine;
use crate::memory::Bad;
use crate::oracle::Finding;
use crate::trace::{EventKind, Flavor};

/// Drains the stores of `cpu` for ever.
async fn drain(machine: Rc<Machine>, cpu: ActorId) {
    let core = machine.core.clone();
    let Some(overlay) = machine.overlay.as_deref() else { return };
    loop {
        let Some(op) = machine.next_drain(overlay, cpu) else {
            core.block(Object::drain(cpu)).await;
            continue;
        };
        core.step(op).await;
        // A jump may have emptied the buffer meanwhile.
        let nr = overlay.nr_drainable(cpu);
        if nr > 0 {
            let nth = core.choose(ChoiceKind::Hardware, nr);
            machine.drain_nth(overlay, cpu, nth);
        }
    }
}

impl Overlay {
    fn nr_drainable(&self, cpu: ActorId) -> u32 {
        self.with_cpu(cpu, |cpu| cpu.buffer.drainable(self.model).count() as u32)
    }

    fn take_nth(&self, cpu: ActorId, nth: u32) -> Option<Pending> {
        self.with_cpu(cpu, |cpu| {
            let at = cpu.buffer.drainable(self.model).nth(nth as usize)?;
            Some(cpu.buffer.take(at))
        })
    }
}

impl Machine {
    /// Gives a CPU the actor that drains its stores, if it has a store buffer. Called where the CPU starts, so that the two have the
    /// same ids in every run.
    pub(crate) fn start_draining(self: &Rc<Machine>, name: &str, cpu: ActorId) {
        let Some(overlay) = self.overlay.as_deref().filter(|overlay| overlay.buffers_stores()) else { return };
        let now = overlay.now();
        overlay.with_cpu(cpu, |cpu| cpu.view.raise(now));
        let actor = Box::pin(crate::engine::FutureActor::new(self.core.clone(), drain(self.clone(), cpu)));
        let group = crate::device::HARDWARE;
        self.core.spawn(Spawn { name: self.core.name(&format!("{name} stores")), group, life: Life::Daemon, actor });
    }

    /// The step that drains a store of `cpu`. Where it is open which one, the step may touch any memory.
    fn next_drain(&self, overlay: &Overlay, cpu: ActorId) -> Option<Op> {
        let (pa, bytes) = overlay.with_cpu(cpu, |cpu| cpu.buffer.oldest().map(|oldest| (oldest.pa, oldest.bytes)))?;
        let op = self.store_op(pa, bytes);
        Some(if overlay.is_weak() { op.over_all_memory() } else { op })
    }

    fn drain_nth(&self, overlay: &Overlay, cpu: ActorId, nth: u32) {
        if let Some(entry) = overlay.take_nth(cpu, nth) {
            self.drain_entry(overlay, cpu, entry, true);
        }
    }

    /// Lets the quiet stores of `cpu` reach memory: nobody can tell when they do.
    pub(crate) fn settle_quiet(&self, cpu: ActorId) {
        let Some(overlay) = self.overlay.as_deref().filter(|overlay| overlay.is_weak()) else { return };
        while let Some(entry) = overlay.with_cpu(cpu, |cpu| cpu.buffer.take_quiet()) {
            self.drain_entry(overlay, cpu, entry, false);
        }
    }

    /// Lets all stores of the actor at work reach memory inside the step at hand: something is about to be changed beside its buffer.
    pub(crate) fn settle_own(&self) {
        let Some(overlay) = self.overlay.as_deref().filter(|overlay| overlay.buffers_stores()) else { return };
        let cpu = self.core.current();
        self.settle_quiet(cpu);
        while overlay.nr_drainable(cpu) > 0 {
            self.drain_nth(overlay, cpu, 0);
        }
    }

    /// Quiet stores whose memory others can reach by now drain as the others do; what they point to is public with them.
    fn publish_quiet(&self, overlay: &Overlay, cpu: ActorId) {
        loop {
            let published = overlay.with_cpu(cpu, |state| {
                let memory = self.memory();
                state.buffer.publish(|pa| !memory.is_private(pa, cpu))
            });
            let Some((entry, fits)) = published else { return };
            if entry.bytes == 8 {
                self.change_memory(|memory| memory.publish_value(entry.value));
            }
            if !fits {
                self.drain_entry(overlay, cpu, entry, true);
            }
        }
    }

    fn drain_entry(&self, overlay: &Overlay, cpu: ActorId, entry: Pending, shared: bool) {
        let Pending { pa, bytes, value, flavor, .. } = entry;
        let judged = self.memory().judge(pa, bytes, true);
        if let Err(bad) = judged {
            self.bad_drain(cpu, &entry, bad);
        } else {
            let old = self.change_memory(|memory| {
                overlay.before_store(&self.core, &memory.ram, pa, bytes, cpu, shared);
                memory.ram.store_unaligned(pa, bytes, value)
            });
            self.core.charge(self.costs.access);
            let new = if bytes == 8 { value } else { value & ((1 << (bytes * 8)) - 1) };
            self.emit_as(cpu, EventKind::Store { pa, bytes, old, new, flavor });
            self.wake_word(Pa(pa.0 & !7));
            if pa.0 & 7 != 0 {
                self.core.wake(Object(pa.0));
            }
        }
        self.core.wake(Object::store_buffer(cpu));
    }

    /// The memory was given away before the store reached it.
    #[cold]
    fn bad_drain(&self, cpu: ActorId, entry: &Pending, bad: Bad) {
        let Pending { pa, bytes, .. } = *entry;
        let mut details = vec![format!("write of {bytes} bytes at pa {:#x}, by a store that was still in the store buffer of {cpu}", pa.0)];
        details.extend(self.describe(pa));
        let title = format!("{} in write", bad.title());
        self.found(Finding { property: "LIFE", title, details, step: self.core.steps(), actor: cpu });
    }

    /// Lets every buffered store reach memory inside the step at hand, in an order that the policy chooses.
    pub(crate) fn drain_all(&self) {
        let Some(overlay) = self.overlay.as_deref().filter(|overlay| overlay.buffers_stores()) else { return };
        let nr_cpus = overlay.cpus.borrow().len();
        let cpus = || (0..nr_cpus).map(|index| ActorId(index as u8));
        cpus().for_each(|cpu| self.settle_quiet(cpu));
        loop {
            let total: u32 = cpus().map(|cpu| overlay.nr_drainable(cpu)).sum();
            if total == 0 {
                return;
            }
            let mut nth = self.core.choose(ChoiceKind::Hardware, total);
            for cpu in cpus() {
                let nr = overlay.nr_drainable(cpu);
                if nth < nr {
                    self.drain_nth(overlay, cpu, nth);
                    break;
                }
                nth -= nr;
            }
        }
    }

    /// The end of all CPUs: their stores reach memory, what they had seen is forgotten, dirty lines stay.
    pub(crate) fn drain_for_jump(&self) {
        self.drain_all();
        if let Some(overlay) = &self.overlay {
            overlay.reset_cpus();
        }
    }

    /// Waits, as `cpu`, until what `creator` has stored so far is in memory: a program sees what was stored before it was started.
    pub(crate) async fn wait_for_stores_of(&self, creator: ActorId) {
        let Some(overlay) = self.overlay.as_deref() else { return };
        while !overlay.with_cpu(creator, |cpu| cpu.buffer.is_empty()) {
            self.core.block(Object::store_buffer(creator)).await;
        }
    }
}

impl Cpu {
    /// Before a load of `bytes` bytes at `pa`: lets what an own store has left in part go on.
    #[cold]
    pub(crate) fn before_load(&self, pa: Pa, bytes: u8) {
        if self.is_behind(pa, bytes) {
            self.machine.settle_quiet(self.id());
        }
    }

    /// True while an own store in the buffer covers `bytes` bytes at `pa` in part: a load has to wait for it.
    #[cold]
    pub(crate) fn is_behind(&self, pa: Pa, bytes: u8) -> bool {
        let Some(overlay) = self.machine.overlay.as_deref() else { return false };
        overlay.with_cpu(self.id(), |cpu| cpu.buffer.forward(pa, bytes)) == Forward::Partial
    }

    /// A store of the weak model to memory that nobody else can reach. It waits as others do: should the memory be published without
    /// a barrier, others may find it without this store.
    pub(crate) fn store_quietly(&self, va: u64, bytes: u8, value: u64, flavor: Flavor) -> Result<(), Bad> {
        let Some(overlay) = self.machine.overlay.as_deref() else { return Ok(()) };
        let pa = {
            let memory = self.machine.memory();
            let pa = memory.direct_map(va)?;
            memory.judge(pa, bytes, true)?;
            pa
        };
        let old = self.machine.memory().ram.load_unaligned(pa, bytes);
        self.machine.note_access(pa, bytes, true, flavor, value, old);
        if let Some(entry) = overlay.with_cpu(self.id(), |cpu| cpu.buffer.push_quiet(pa, bytes, value, flavor)) {
            self.machine.drain_entry(overlay, self.id(), entry, false);
        }
        Ok(())
    }

    /// True while a store has to wait for room in the store buffer.
    pub(crate) fn store_buffer_is_full(&self) -> bool {
        self.machine.overlay.as_deref().is_some_and(|overlay| overlay.with_cpu(self.id(), |cpu| cpu.buffer.is_full()))
    }

    /// A store into the store buffer, which has room: no step.
    pub(crate) fn buffer_store(&self, va: u64, bytes: u8, value: u64, flavor: Flavor, release: bool) -> Result<(), Bad> {
        let Some(overlay) = self.machine.overlay.as_deref() else { return Ok(()) };
        if release {
            self.machine.settle_quiet(self.id());
        }
        let pa = self.machine.change_memory(|memory| {
            let pa = memory.direct_map(va)?;
            memory.judge(pa, bytes, true)?;
            memory.note_store(pa, self.id(), bytes, value);
            Ok(pa)
        })?;
        self.machine.publish_quiet(overlay, self.id());
        let old = self.machine.memory().ram.load_unaligned(pa, bytes);
        self.machine.note_access(pa, bytes, true, flavor, value, old);
        overlay.with_cpu(self.id(), |cpu| cpu.buffer.push(pa, bytes, value, flavor, release));
        self.machine.core.wake(Object::drain(self.id()));
        Ok(())
    }
}
