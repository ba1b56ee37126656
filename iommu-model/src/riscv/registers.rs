//! What reading and writing registers does.

use super::capability::InterruptSignalling;
use super::interrupt::Source;
use super::register_file::{Register, locate_register};
use super::unit::Unit;
use crate::request::Message;
use crate::spec::riscv::capability::FeaturesControl;
use crate::spec::riscv::register::{
    CommandQueueControl, DirectoryPointer, InterruptPending, InterruptVectors, MODE_3LVL, MODE_OFF, MessageAddress, QueueBase,
    RecordQueueControl, TranslationRequestControl, TranslationRequestIova, VectorControl,
};
use smallvec::SmallVec;

/// What a register write set going.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RegisterEffect {
    /// Cycles inside the unit.
    pub cost: u32,
    /// ddtp.iommu_mode has changed; ddtp.busy is set until every walk in flight has ended, every request that was
    /// translated before has landed, and [`Unit::register_drained`] says so.
    pub mode_changed: bool,
    /// The command queue has work.
    pub command_work: bool,
    /// A request in the translation-request registers waits for [`Unit::begin_debug`].
    pub debug_request: bool,
    /// Interrupt messages that go out.
    pub messages: SmallVec<[Message; 3]>,
}

const LOW_HALF: u64 = 0xffff_ffff;

impl Unit {
    /// Reads a register. A register that the unit lacks reads 0.
    #[must_use]
    pub fn read_register(&self, register: Register) -> u64 {
        if !self.has_register(register) {
            return 0;
        }
        match register {
            Register::Capabilities => self.cap.register(),
            Register::Fctl => u64::from(FeaturesControl::new().with_wsi(self.interrupts.wires).into_bits()),
            Register::Ddtp => self.directory.into_bits(),
            Register::Cqb => self.commands.base.into_bits(),
            Register::Cqh => u64::from(self.commands.head),
            Register::Cqt => u64::from(self.commands.tail),
            Register::Fqb => self.fault_queue.base.into_bits(),
            Register::Fqh => u64::from(self.fault_queue.head),
            Register::Fqt => u64::from(self.fault_queue.tail),
            Register::Pqb => self.page_queue.base.into_bits(),
            Register::Pqh => u64::from(self.page_queue.head),
            Register::Pqt => u64::from(self.page_queue.tail),
            Register::Cqcsr => u64::from(self.commands.control.into_bits()),
            Register::Fqcsr => u64::from(self.fault_queue.control.into_bits()),
            Register::Pqcsr => u64::from(self.page_queue.control.into_bits()),
            Register::Ipsr => u64::from(self.interrupts.pending.into_bits()),
            Register::TrReqIova => self.debug.iova.into_bits(),
            Register::TrReqCtl => self.debug.control.into_bits(),
            Register::TrResponse => self.debug.response.into_bits(),
            Register::Icvec => self.interrupts.vectors.into_bits(),
            Register::MsiAddress(vector) => self.entry(vector).map_or(0, |entry| entry.address.into_bits()),
            Register::MsiData(vector) => self.entry(vector).map_or(0, |entry| u64::from(entry.data)),
            Register::MsiControl(vector) => self.entry(vector).map_or(0, |entry| u64::from(entry.control.into_bits())),
        }
    }

    fn entry(&self, vector: u8) -> Option<&super::interrupt::MessageEntry> {
        self.interrupts.table.get(usize::from(vector))
    }

    /// Whether the capabilities have a register.
    fn has_register(&self, register: Register) -> bool {
        match register {
            Register::Pqb | Register::Pqh | Register::Pqt | Register::Pqcsr => self.cap.ats,
            Register::TrReqIova | Register::TrReqCtl | Register::TrResponse => self.cap.debug,
            Register::MsiAddress(_) | Register::MsiData(_) | Register::MsiControl(_) => self.cap.interrupts != InterruptSignalling::Wires,
            _ => true,
        }
    }

    /// Writes a register. Of a 32-bit register the low half counts. A write to a read-only register, or to one that the
    /// unit lacks, is ignored.
    pub fn write_register(&mut self, register: Register, value: u64) -> RegisterEffect {
        let mut effect = RegisterEffect { cost: self.params.timing.register, ..Default::default() };
        if !self.has_register(register) {
            return effect;
        }
        let low = value as u32;
        match register {
            Register::Capabilities | Register::Cqh | Register::Fqt | Register::Pqt | Register::TrResponse => {}
            Register::Fctl => self.write_features(FeaturesControl::from_bits(low)),
            Register::Ddtp => self.write_directory(DirectoryPointer::from_bits(value), &mut effect),
            Register::Cqb => self.commands.write_base(QueueBase::from_bits(value)),
            Register::Cqt => self.commands.write_tail(low),
            Register::Fqb => self.fault_queue.write_base(QueueBase::from_bits(value)),
            Register::Fqh => self.fault_queue.write_head(low),
            Register::Pqb => self.page_queue.write_base(QueueBase::from_bits(value)),
            Register::Pqh => self.page_queue.write_head(low),
            Register::Cqcsr => self.commands.write_control(CommandQueueControl::from_bits(low)),
            Register::Fqcsr => self.fault_queue.write_control(RecordQueueControl::from_bits(low)),
            Register::Pqcsr => self.page_queue.write_control(RecordQueueControl::from_bits(low)),
            Register::Ipsr => self.interrupts.clear(InterruptPending::from_bits(low)),
            Register::TrReqIova if self.debug.control.go() => {}
            Register::TrReqIova => self.debug.iova = TranslationRequestIova::from_bits(value).with_reserved(0),
            Register::TrReqCtl => effect.debug_request = self.debug.write_control(TranslationRequestControl::from_bits(value)),
            Register::Icvec => self.interrupts.vectors = InterruptVectors::from_bits(value).with_reserved(0),
            Register::MsiAddress(vector) => {
                if let Some(entry) = self.interrupts.table.get_mut(usize::from(vector)) {
                    entry.address = MessageAddress::from_bits(value).with_zero(0).with_reserved(0);
                }
            }
            Register::MsiData(vector) => {
                if let Some(entry) = self.interrupts.table.get_mut(usize::from(vector)) {
                    entry.data = low;
                }
            }
            Register::MsiControl(vector) if usize::from(vector) < self.interrupts.table.len() => {
                effect.messages.extend(self.interrupts.write_control(vector, VectorControl::from_bits(low)));
            }
            Register::MsiControl(_) => {}
        }
        self.raise_asserted(&mut effect);
        effect.command_work = self.commands.has_work();
        effect
    }

    /// What still holds sets the pending bit again.
    fn raise_asserted(&mut self, effect: &mut RegisterEffect) {
        if self.commands.asserts_interrupt() {
            effect.messages.extend(self.interrupts.raise(Source::Command));
        }
        if self.fault_queue.asserts_interrupt() {
            effect.messages.extend(self.interrupts.raise(Source::Fault));
        }
        if self.page_queue.asserts_interrupt() {
            effect.messages.extend(self.interrupts.raise(Source::PageRequest));
        }
    }

    /// Only WSI is not hardwired, and only where there is a choice. Ignored while the unit or a queue is on.
    fn write_features(&mut self, value: FeaturesControl) {
        let idle = self.directory.mode() == MODE_OFF
            && !self.commands.control.on()
            && !self.fault_queue.control.on()
            && !self.page_queue.control.on();
        if idle && self.cap.interrupts == InterruptSignalling::Both {
            self.interrupts.wires = value.wsi();
        }
    }

    /// A reserved mode keeps the old one. Ignored while busy. The caches keep what they have.
    fn write_directory(&mut self, value: DirectoryPointer, effect: &mut RegisterEffect) {
        if self.directory.busy() {
            return;
        }
        let old = self.directory.mode();
        let mode = if value.mode() <= MODE_3LVL { value.mode() } else { old };
        effect.mode_changed = mode != old;
        self.directory = DirectoryPointer::new().with_mode(mode).with_ppn(value.ppn()).with_busy(mode != old);
    }

    /// Walks that were in flight at the change of the mode have ended, and what was translated before it has landed.
    pub fn register_drained(&mut self) {
        self.directory.set_busy(false);
    }

    /// Whether a change of the mode waits for [`Unit::register_drained`].
    #[must_use]
    pub const fn register_drain_pending(&self) -> bool {
        self.directory.busy()
    }

    /// Vectors whose interrupt wire is up, a bit each; none unless fctl.WSI.
    #[must_use]
    pub fn wires(&self) -> u16 {
        self.interrupts.wires_up()
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
        if bytes == 4 { word(offset) } else { word(offset) | (word(offset.wrapping_add(4)) << 32) }
    }

    /// Writes 4 or 8 bytes at an aligned offset; anything else, and a hole, is ignored. An 8-byte write to two 32-bit
    /// registers is two writes, low one first. A write to half of a 64-bit register keeps the other half; only the low
    /// half of tr_req_ctl starts a request.
    pub fn write_register_at(&mut self, offset: u64, bytes: u8, value: u64) -> RegisterEffect {
        if !is_access(offset, bytes) {
            return RegisterEffect::default();
        }
        match locate_register(offset) {
            Some((register, start, 8)) if bytes == 8 && start == offset => self.write_register(register, value),
            _ if bytes == 8 => {
                let mut effect = self.write_register_at(offset, 4, value & LOW_HALF);
                let high = self.write_register_at(offset.wrapping_add(4), 4, value >> 32);
                effect.cost = effect.cost.saturating_add(high.cost);
                effect.command_work = high.command_work;
                effect.messages.extend(high.messages);
                effect
            }
            Some((register, _, 4)) => self.write_register(register, value),
            Some((register, start, _)) => {
                let old = self.read_register(register);
                let half = value & LOW_HALF;
                let value = if offset == start { (old & !LOW_HALF) | half } else { (old & LOW_HALF) | half << 32 };
                self.write_register(register, value)
            }
            None => RegisterEffect::default(),
        }
    }
}

fn is_access(offset: u64, bytes: u8) -> bool {
    matches!(bytes, 4 | 8) && offset.is_multiple_of(u64::from(bytes))
}
