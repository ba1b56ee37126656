//! What reading and writing each register does.
//!
//! A command takes effect with the write, except where the manual makes it wait for traffic: a change of TE and a
//! register-based IOTLB invalidation with drain bits report [`RegisterEffect::drain`] and complete, with their status
//! bit, at [`Unit::register_drained`]. The bus and the time that a command takes are the caller's.

use super::descriptors::context_scope;
use super::invalidate::{Invalidation, InvalidationDone, Target, range_of};
use super::register_file::{Register, locate_register};
use super::unit::Unit;
use crate::decision::{Decisions, Question, ask_bool};
use crate::request::Message;
use crate::spec::vtd::capability::VERSION;
use crate::spec::vtd::descriptor::{GRANULARITY_DOMAIN, GRANULARITY_GLOBAL, GRANULARITY_NARROW};
use crate::spec::vtd::page_request::{PageQueueAddress, PageQueueIndex};
use crate::spec::vtd::register::{
    CompletionStatus, ContextCommand, GlobalCommand, InvalidateAddress, IotlbCommand, QueueAddress, QueueIndex,
};
use crate::spec::vtd::root::RootTableAddress;
use smallvec::SmallVec;

/// Which older translated requests must have landed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Drain {
    /// Reads.
    pub reads: bool,
    /// Writes.
    pub writes: bool,
}

impl Drain {
    /// Whether there is anything to wait for.
    #[must_use]
    pub const fn is_needed(self) -> bool {
        self.reads || self.writes
    }

    const fn and(self, other: Self) -> Self {
        Self { reads: self.reads || other.reads, writes: self.writes || other.writes }
    }
}

/// What a register access set off.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RegisterEffect {
    /// The queue has something to do: call `queue_advance`.
    pub queue_work: bool,
    /// The command completes only after these requests landed: call `register_drained` then.
    pub drain: Drain,
    /// The caller's write buffer is flushed (GCMD.WBF, or an invalidation under RWBF).
    pub flushes_write_buffer: bool,
    /// SRTP latched a root table.
    pub root_switched: bool,
    /// TES is now this.
    pub translation: Option<bool>,
    /// A register-based invalidation, or that of a root switch, was carried out.
    pub invalidated: Option<InvalidationDone>,
    /// Event messages that go out.
    pub messages: SmallVec<[Message; 2]>,
    /// Cycles.
    pub cost: u32,
}

impl RegisterEffect {
    fn merge(&mut self, other: Self) {
        self.queue_work |= other.queue_work;
        self.drain = self.drain.and(other.drain);
        self.flushes_write_buffer |= other.flushes_write_buffer;
        self.root_switched |= other.root_switched;
        self.translation = other.translation.or(self.translation);
        self.invalidated = other.invalidated.or(self.invalidated);
        self.messages.extend(other.messages);
        self.cost = self.cost.saturating_add(other.cost);
    }
}

/// Register state that no other part of the unit holds.
#[derive(Clone, Debug)]
pub(crate) struct Plain {
    /// RTADDR_REG as written.
    rtaddr: u64,
    irta: u64,
    iva: InvalidateAddress,
    ccmd: ContextCommand,
    iotlb: IotlbCommand,
    /// Status bits that are only mirrored.
    mirrored: GlobalCommand,
    root_pointer_set: bool,
    /// TES to be, once older requests landed.
    translation_target: Option<bool>,
    /// A register-based IOTLB invalidation waits for older requests.
    iotlb_draining: Option<InvalidationDone>,
}

impl Plain {
    pub(crate) fn new() -> Self {
        Self {
            rtaddr: 0,
            irta: 0,
            iva: InvalidateAddress::new(),
            ccmd: ContextCommand::new(),
            iotlb: IotlbCommand::new(),
            mirrored: GlobalCommand::new(),
            root_pointer_set: false,
            translation_target: None,
            iotlb_draining: None,
        }
    }
}

impl Unit {
    /// The value of a register. Reading changes nothing.
    #[must_use]
    pub fn read_register(&self, register: Register) -> u64 {
        if register.is_of_page_requests() && !self.cap.page_requests {
            return 0;
        }
        match register {
            Register::Ver => VERSION,
            Register::Cap => self.cap.cap(),
            Register::Ecap => self.cap.ecap(),
            Register::Gcmd | Register::Iva => 0,
            Register::Gsts => u64::from(self.global_status().into_bits()),
            Register::Rtaddr => self.plain.rtaddr,
            Register::Ccmd => self.plain.ccmd.into_bits(),
            Register::Fsts => u64::from(self.faults.read_status()),
            Register::Fectl => u64::from(self.faults.event.control.into_bits()),
            Register::Fedata => u64::from(self.faults.event.data),
            Register::Feaddr => u64::from(self.faults.event.address),
            Register::Feuaddr => u64::from(self.faults.event.address_upper),
            Register::Iqh => QueueIndex::new().with_index(self.queue.head).into_bits(),
            Register::Iqt => QueueIndex::new().with_index(self.queue.tail).into_bits(),
            Register::Iqa => self.queue.address.into_bits(),
            Register::Ics => u64::from(self.completion_status.into_bits()),
            Register::Iectl => u64::from(self.completion_event.control.into_bits()),
            Register::Iedata => u64::from(self.completion_event.data),
            Register::Ieaddr => u64::from(self.completion_event.address),
            Register::Ieuaddr => u64::from(self.completion_event.address_upper),
            Register::Iqercd => self.queue.error_record(self.faults.queue_errors()),
            Register::Pqh => PageQueueIndex::new().with_index(self.page_requests.head).into_bits(),
            Register::Pqt => PageQueueIndex::new().with_index(self.page_requests.tail).into_bits(),
            Register::Pqa => self.page_requests.address.into_bits(),
            Register::Prs => u64::from(self.page_requests.status.into_bits()),
            Register::Pectl => u64::from(self.page_requests.event.control.into_bits()),
            Register::Pedata => u64::from(self.page_requests.event.data),
            Register::Peaddr => u64::from(self.page_requests.event.address),
            Register::Peuaddr => u64::from(self.page_requests.event.address_upper),
            Register::Irta => self.plain.irta,
            Register::Iotlb => self.plain.iotlb.into_bits(),
            Register::FrcdLow(index) => self.faults.read_record(index)[0],
            Register::FrcdHigh(index) => self.faults.read_record(index)[1],
        }
    }

    /// Stores to a whole register; 32-bit registers take the low half of `value`.
    pub fn write_register(&mut self, register: Register, value: u64, d: &mut dyn Decisions) -> RegisterEffect {
        let mut effect = RegisterEffect { cost: self.params.timing.register, ..RegisterEffect::default() };
        let low = value as u32;
        if register.is_of_page_requests() && !self.cap.page_requests {
            return effect;
        }
        match register {
            Register::Ver | Register::Cap | Register::Ecap | Register::Gsts => {}
            Register::Iqh | Register::Iqercd | Register::FrcdLow(_) => {}
            Register::Gcmd => self.write_global_command(GlobalCommand::from_bits(low), &mut effect, d),
            Register::Rtaddr => self.plain.rtaddr = value,
            Register::Ccmd => self.write_context_command(ContextCommand::from_bits(value), &mut effect, d),
            Register::Fsts => self.faults.write_status(low),
            Register::Fectl => effect.messages.extend(self.faults.event.write_control(low)),
            Register::Fedata => self.faults.event.data = low,
            Register::Feaddr => self.faults.event.address = low,
            Register::Feuaddr => self.faults.event.address_upper = low,
            Register::Iqt => self.queue.tail = QueueIndex::from_bits(value).index(),
            Register::Iqa => {
                let address = QueueAddress::from_bits(value);
                let kept = QueueAddress::new().with_base(address.base()).with_size(address.size());
                // Wide descriptors come with scalable mode only.
                self.queue.address = kept.with_wide(self.cap.scalable.is_some() && address.wide());
            }
            Register::Ics => {
                if CompletionStatus::from_bits(low).wait_complete() {
                    self.completion_status.set_wait_complete(false);
                    self.completion_event.control.set_pending(false);
                }
            }
            Register::Iectl => effect.messages.extend(self.completion_event.write_control(low)),
            Register::Iedata => self.completion_event.data = low,
            Register::Ieaddr => self.completion_event.address = low,
            Register::Ieuaddr => self.completion_event.address_upper = low,
            Register::Pqh => self.page_requests.head = PageQueueIndex::from_bits(value).index(),
            Register::Pqt => self.page_requests.tail = PageQueueIndex::from_bits(value).index(),
            Register::Pqa => {
                let address = PageQueueAddress::from_bits(value);
                self.page_requests.address = PageQueueAddress::new().with_base(address.base()).with_size(address.size());
            }
            Register::Prs => self.page_requests.write_status(low),
            Register::Pectl => effect.messages.extend(self.page_requests.event.write_control(low)),
            Register::Pedata => self.page_requests.event.data = low,
            Register::Peaddr => self.page_requests.event.address = low,
            Register::Peuaddr => self.page_requests.event.address_upper = low,
            Register::Irta => self.plain.irta = value,
            Register::Iva => self.plain.iva = InvalidateAddress::from_bits(value),
            Register::Iotlb => self.write_iotlb_command(IotlbCommand::from_bits(value), &mut effect, d),
            Register::FrcdHigh(index) => self.faults.write_record_high(index, value),
        }
        effect.queue_work = self.queue_has_work();
        effect
    }

    /// Reads 4 or 8 bytes at an aligned offset; anything else, and a hole, reads 0.
    #[must_use]
    pub fn read_register_at(&self, offset: u64, bytes: u8) -> u64 {
        if !is_access(offset, bytes) {
            return 0;
        }
        let word = |offset: u64| match locate_register(offset) {
            Some((register, start, _)) => (self.read_register(register) >> (8 * (offset - start))) & LOW_HALF,
            None => 0,
        };
        if bytes == 4 { word(offset) } else { word(offset) | (word(offset + 4) << 32) }
    }

    /// Writes 4 or 8 bytes at an aligned offset; anything else, and a hole, is ignored. An 8-byte write to two 32-bit
    /// registers is two writes, low one first. A write to half of a 64-bit register keeps the other half; only the
    /// half that holds a start bit starts anything.
    pub fn write_register_at(&mut self, offset: u64, bytes: u8, value: u64, d: &mut dyn Decisions) -> RegisterEffect {
        if !is_access(offset, bytes) {
            return RegisterEffect::default();
        }
        match locate_register(offset) {
            Some((register, start, 8)) if bytes == 8 && start == offset => self.write_register(register, value, d),
            _ if bytes == 8 => {
                let mut effect = self.write_register_at(offset, 4, value & LOW_HALF, d);
                effect.merge(self.write_register_at(offset + 4, 4, value >> 32, d));
                effect
            }
            Some((register, _, 4)) => self.write_register(register, value, d),
            Some((register, start, _)) => self.write_half(register, offset != start, value & LOW_HALF, d),
            None => RegisterEffect::default(),
        }
    }

    fn write_half(&mut self, register: Register, high: bool, half: u64, d: &mut dyn Decisions) -> RegisterEffect {
        let old = match register {
            Register::Iva => self.plain.iva.into_bits(),
            // What is write 1 to clear must not be written back.
            Register::FrcdHigh(_) => 0,
            _ => self.read_register(register),
        };
        let value = if high { (old & LOW_HALF) | (half << 32) } else { (old & !LOW_HALF) | half };
        match register {
            Register::Ccmd if !high => self.plain.ccmd = ContextCommand::from_bits(value),
            Register::Iotlb if !high => self.plain.iotlb = IotlbCommand::from_bits(value),
            _ => return self.write_register(register, value, d),
        }
        RegisterEffect { cost: self.params.timing.register, queue_work: self.queue_has_work(), ..Default::default() }
    }

    /// The older requests that a register write waited for have landed. Without such a write nothing happens.
    pub fn register_drained(&mut self) -> RegisterEffect {
        let mut effect = RegisterEffect { queue_work: self.queue_has_work(), ..RegisterEffect::default() };
        if let Some(on) = self.plain.translation_target.take() {
            self.set_translation(on, &mut effect);
        }
        if let Some(done) = self.plain.iotlb_draining.take() {
            self.finish_iotlb_command(done, &mut effect);
        }
        effect
    }

    /// Whether a register write waits for [`Unit::register_drained`].
    #[must_use]
    pub fn register_drain_pending(&self) -> bool {
        self.plain.translation_target.is_some() || self.plain.iotlb_draining.is_some()
    }

    pub(crate) fn global_status(&self) -> GlobalCommand {
        self.plain
            .mirrored
            .with_translation_enable(self.translation_enabled)
            .with_set_root_table(self.plain.root_pointer_set)
            .with_queue_enable(self.queue.enabled)
    }

    /// Software changes one bit a write; several at once are carried out in the order written here.
    fn write_global_command(&mut self, command: GlobalCommand, effect: &mut RegisterEffect, d: &mut dyn Decisions) {
        effect.flushes_write_buffer |= command.write_buffer_flush();
        self.queue.switch(command.queue_enable());
        if command.set_interrupt_table() {
            self.plain.mirrored.set_set_interrupt_table(true);
        }
        self.plain.mirrored.set_interrupt_remapping(command.interrupt_remapping());
        self.plain.mirrored.set_compatibility_interrupts(command.compatibility_interrupts());
        if command.set_root_table() {
            self.switch_root(effect, d);
        }
        self.switch_translation(command.translation_enable(), effect);
    }

    fn switch_root(&mut self, effect: &mut RegisterEffect, d: &mut dyn Decisions) {
        self.root = RootTableAddress::from_bits(self.plain.rtaddr);
        self.plain.root_pointer_set = true;
        effect.root_switched = true;
        if self.cap.root_switch_invalidates || ask_bool(d, Question::RootSwitchDropsAll) {
            let mut target = Target { cap: &self.cap, caches: &mut self.caches, walks: &mut self.walks };
            let done = target.invalidate(Invalidation::All, d);
            effect.cost = effect.cost.saturating_add(self.cost_of(Invalidation::All));
            effect.invalidated = Some(done);
        }
    }

    fn switch_translation(&mut self, on: bool, effect: &mut RegisterEffect) {
        self.plain.translation_target = None;
        if on == self.translation_enabled {
            return;
        }
        let drain = self.drain_of(true, true);
        if drain.is_needed() {
            self.plain.translation_target = Some(on);
            effect.drain = effect.drain.and(drain);
        } else {
            self.set_translation(on, effect);
        }
    }

    /// The caches survive, but for TE off on a unit with scalable mode.
    fn set_translation(&mut self, on: bool, effect: &mut RegisterEffect) {
        if !on && self.translation_enabled && self.cap.scalable.is_some() {
            let mut target = Target { cap: &self.cap, caches: &mut self.caches, walks: &mut self.walks };
            effect.invalidated = Some(target.invalidate(Invalidation::All, &mut crate::decision::Plain));
        }
        self.translation_enabled = on;
        effect.translation = Some(on);
    }

    fn write_context_command(&mut self, command: ContextCommand, effect: &mut RegisterEffect, d: &mut dyn Decisions) {
        self.plain.ccmd = command.with_actual(self.plain.ccmd.actual());
        if !command.invalidate() {
            return;
        }
        let scope = context_scope(command.granularity(), command.domain(), command.source(), command.function_mask());
        let actual = match scope {
            Some(scope) if !self.queue.enabled => self.invalidate_from_register(Invalidation::Context(scope), effect, d),
            _ => 0,
        };
        self.plain.ccmd = command.with_invalidate(false).with_actual(actual);
    }

    fn write_iotlb_command(&mut self, command: IotlbCommand, effect: &mut RegisterEffect, d: &mut dyn Decisions) {
        self.plain.iotlb = command.with_actual(self.plain.iotlb.actual());
        if !command.invalidate() {
            return;
        }
        let iva = self.plain.iva;
        let scope = self.iotlb_scope(command.granularity(), command.domain(), range_of(iva), iva.leaf_only());
        let actual = match scope {
            Some(scope) if !self.queue.enabled => self.invalidate_from_register(Invalidation::Iotlb(scope), effect, d),
            _ => 0,
        };
        self.plain.iotlb = command.with_actual(actual);
        let drain = self.drain_of(command.drain_reads(), command.drain_writes());
        match effect.invalidated {
            Some(done) if drain.is_needed() => {
                self.plain.iotlb_draining = Some(done);
                effect.drain = effect.drain.and(drain);
            }
            _ => {
                self.plain.iotlb_draining = None;
                self.plain.iotlb.set_invalidate(false);
            }
        }
    }

    fn finish_iotlb_command(&mut self, done: InvalidationDone, effect: &mut RegisterEffect) {
        self.plain.iotlb.set_invalidate(false);
        effect.invalidated = Some(done);
    }

    /// Returns the granularity that was really used.
    fn invalidate_from_register(&mut self, what: Invalidation, effect: &mut RegisterEffect, d: &mut dyn Decisions) -> u8 {
        use super::invalidate::{ContextScope, IotlbScope};
        let mut target = Target { cap: &self.cap, caches: &mut self.caches, walks: &mut self.walks };
        let done = target.invalidate(what, d);
        effect.cost = effect.cost.saturating_add(self.cost_of(what));
        effect.flushes_write_buffer |= done.flushes_write_buffer;
        effect.invalidated = Some(done);
        match done.done {
            Invalidation::Context(ContextScope::Domain(_)) | Invalidation::Iotlb(IotlbScope::Domain(_)) => GRANULARITY_DOMAIN,
            Invalidation::Context(ContextScope::Device { .. }) | Invalidation::Iotlb(IotlbScope::Pages { .. }) => GRANULARITY_NARROW,
            _ => GRANULARITY_GLOBAL,
        }
    }
}

const LOW_HALF: u64 = 0xffff_ffff;

fn is_access(offset: u64, bytes: u8) -> bool {
    matches!(bytes, 4 | 8) && offset.is_multiple_of(u64::from(bytes))
}
