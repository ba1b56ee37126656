//! The actor of a remapping unit's invalidation queue, and register access by CPUs.

use std::rc::Rc;

use iommu_model::addr::Pa;
use iommu_model::vtd::{Drain, Invalidation, QueueInput, QueueProgress};

use super::Dice;
use crate::cpu::Cpu;
use crate::engine::{Object, Op, OpKind};
use crate::machine::Machine;
use crate::trace::{EventKind, UnitId};

/// The object that stands for a unit's registers and caches.
pub(super) const fn registers(unit: UnitId) -> Object {
    Object::register(unit.0 as u64)
}

/// Serves the queue for ever: one descriptor step at a time, drains waiting for the writes that are under way.
pub(super) async fn serve_queue(machine: Rc<Machine>, id: UnitId) {
    let core = machine.core.clone();
    let slot = &machine.fabric.units()[usize::from(id.0)];
    let mut input = QueueInput::Continue;
    loop {
        if matches!(input, QueueInput::Continue) && !slot.unit.borrow().queue_has_work() {
            core.block(registers(id)).await;
            continue;
        }
        core.step(Op::new(OpKind::Register, registers(id), 8)).await;
        let progress = slot.unit.borrow_mut().queue_advance(input, &mut Dice(&core));
        input = QueueInput::Continue;
        core.wake(registers(id));
        core.charge(cost_of(&progress));
        match progress {
            QueueProgress::Idle => core.block(registers(id)).await,
            QueueProgress::Stopped(_) => core.block(registers(id)).await,
            QueueProgress::FetchDescriptor { pa, .. } => {
                core.step(Op::new(OpKind::Fetch, Object(pa.0), 16)).await;
                input = match machine.read_words(pa, 2) {
                    Some(words) => {
                        machine.emit(EventKind::Fetched { unit: id, device: None, pa, bytes: 16, value: words[0] });
                        QueueInput::Descriptor(words)
                    }
                    None => QueueInput::DescriptorUnreadable,
                };
            }
            QueueProgress::Invalidated { what, .. } => {
                machine.emit(EventKind::Invalidated { unit: id, descriptor: descriptor_type(what.asked) });
            }
            QueueProgress::Drain { reads, writes, .. } => {
                drain(&machine, id, reads, writes).await;
                input = QueueInput::Drained;
            }
            QueueProgress::WriteStatus { pa, data, .. } => {
                core.step(Op::new(OpKind::DmaWrite, Object(pa.0), 4)).await;
                machine.emit(EventKind::StatusWritten { unit: id, pa, data });
                let exists = machine.memory().frame(pa).is_some();
                if exists && pa.0.is_multiple_of(4) {
                    machine.store_by_device(pa, 4, u64::from(data));
                }
                machine.wake_word(Pa(pa.0 & !7));
                input = QueueInput::Written;
            }
            QueueProgress::Interrupt { .. } => {}
            // No device here keeps translations or asks for pages: each has done at once what it is told.
            QueueProgress::InvalidateDevice { request, .. } => {
                slot.unit.borrow_mut().device_completes(request.source, 1 << request.itag);
                machine.emit(EventKind::Invalidated { unit: id, descriptor: descriptor_type(Invalidation::DeviceTlb) });
            }
            QueueProgress::Respond { .. } | QueueProgress::Blocked { .. } => {}
        }
    }
}

const fn cost_of(progress: &QueueProgress) -> u32 {
    match *progress {
        QueueProgress::FetchDescriptor { cost, .. }
        | QueueProgress::Invalidated { cost, .. }
        | QueueProgress::Drain { cost, .. }
        | QueueProgress::WriteStatus { cost, .. }
        | QueueProgress::InvalidateDevice { cost, .. }
        | QueueProgress::Respond { cost, .. }
        | QueueProgress::Blocked { cost, .. }
        | QueueProgress::Interrupt { cost, .. } => cost,
        QueueProgress::Idle | QueueProgress::Stopped(_) => 0,
    }
}

/// The manual's number of a descriptor; 0 for what is no descriptor.
const fn descriptor_type(asked: Invalidation) -> u8 {
    match asked {
        Invalidation::All => 0,
        Invalidation::Context(_) => 1,
        Invalidation::Iotlb(_) => 2,
        Invalidation::DeviceTlb => 3,
        Invalidation::InterruptEntry => 4,
        Invalidation::Wait => 5,
        Invalidation::PasidIotlb(_) => 6,
        Invalidation::Pasid(_) => 7,
    }
}

/// Completes, for ever, the register commands that wait for requests to land (a change of TE drains). A request is remapped wholly or not at
/// all: those that are being translated when the command comes are finished as they were begun (VT-d specification, Global Command Register, TE).
pub(super) async fn complete_commands(machine: Rc<Machine>, id: UnitId) {
    let core = machine.core.clone();
    let slot = &machine.fabric.units()[usize::from(id.0)];
    loop {
        let pending = slot.pending_drain.take();
        if !(pending.reads || pending.writes) {
            core.block(registers(id)).await;
            continue;
        }
        finish_translating(&machine, id).await;
        drain(&machine, id, pending.reads, pending.writes).await;
        core.step(Op::new(OpKind::Register, registers(id), 8)).await;
        let effect = slot.unit.borrow_mut().register_drained();
        if let Some(on) = effect.translation {
            machine.emit(EventKind::TranslationSwitched { unit: id, on });
        }
        core.wake(registers(id));
    }
}

/// Waits until the requests that are being translated now have their answer.
async fn finish_translating(machine: &Machine, id: UnitId) {
    for device in machine.fabric.devices().iter().filter(|device| device.unit == id) {
        let under_way = device.translating.get();
        while under_way.is_some() && device.translating.get() == under_way {
            machine.core.block(device.queue()).await;
        }
    }
}

/// Waits until all translated requests that are under way now have reached memory.
async fn drain(machine: &Machine, id: UnitId, reads: bool, writes: bool) {
    for device in machine.fabric.devices().iter().filter(|device| device.unit == id) {
        let newest = device.posted.borrow().back().map(|posted| posted.serial);
        if let Some(newest) = newest.filter(|_| writes) {
            while device.posted.borrow().front().is_some_and(|posted| posted.serial <= newest) {
                machine.core.block(device.queue()).await;
            }
        }
        // Only the read that is under way now: a device that never pauses would hold the drain for ever.
        let under_way = device.reading.get().filter(|_| reads);
        while under_way.is_some() && device.reading.get() == under_way {
            machine.core.block(device.queue()).await;
        }
    }
}

impl Cpu {
    /// Reads `bytes` (4 or 8) bytes of a register of `unit` at byte `offset`.
    pub async fn mmio_read(&self, unit: UnitId, offset: u16, bytes: u8) -> u64 {
        self.step(Op::new(OpKind::Register, registers(unit), 8)).await;
        self.machine.core.charge(self.machine.costs.register);
        let slot = &self.machine.fabric.units()[usize::from(unit.0)];
        slot.unit.borrow().read_register_at(u64::from(offset), bytes)
    }

    /// Writes `bytes` (4 or 8) bytes of a register of `unit` at byte `offset`. Addresses written become reachable by hardware.
    pub async fn mmio_write(&self, unit: UnitId, offset: u16, bytes: u8, value: u64) {
        self.step(Op::new(OpKind::Register, registers(unit), 8)).await;
        self.write_register(unit, offset, bytes, value);
    }

    /// As [`Cpu::mmio_write`] without the barrier (`writel_relaxed`): where the memory model does not order stores, the unit may be
    /// told before what was stored earlier is in memory. On x86 the register is uncached, and stores before it stay before it.
    pub async fn mmio_write_relaxed(&self, unit: UnitId, offset: u16, bytes: u8, value: u64) {
        if self.machine.is_weak() {
            self.machine.core.step(Op::new(OpKind::Register, registers(unit), 8)).await;
        } else {
            self.step(Op::new(OpKind::Register, registers(unit), 8)).await;
        }
        self.write_register(unit, offset, bytes, value);
    }

    /// Writes a register inside the step at hand.
    fn write_register(&self, unit: UnitId, offset: u16, bytes: u8, value: u64) {
        self.machine.core.charge(self.machine.costs.register);
        self.machine.change_memory(|memory| memory.publish_value(value));
        let slot = &self.machine.fabric.units()[usize::from(unit.0)];
        let effect = slot.unit.borrow_mut().write_register_at(u64::from(offset), bytes, value, &mut Dice(&self.machine.core));
        self.machine.core.charge(effect.cost);
        let pending = slot.pending_drain.get();
        slot.pending_drain.set(Drain { reads: pending.reads || effect.drain.reads, writes: pending.writes || effect.drain.writes });
        self.machine.emit(EventKind::RegisterWritten { unit, offset, value });
        if let Some(on) = effect.translation {
            self.machine.emit(EventKind::TranslationSwitched { unit, on });
        }
        self.machine.core.wake(registers(unit));
    }

    /// Reads a register until `done`: a polling loop without the polling. A read follows each change of the unit's registers.
    pub async fn mmio_poll(&self, unit: UnitId, offset: u16, bytes: u8, done: impl Fn(u64) -> bool) -> u64 {
        loop {
            let value = self.mmio_read(unit, offset, bytes).await;
            if done(value) {
                return value;
            }
            self.machine.core.block(registers(unit)).await;
        }
    }
}
