//! What reading and writing each register does.
//!
//! A change takes effect with the write. CR0ACK follows CR0 when the change is complete: SMMUEN at
//! [`Unit::register_drained`], when older requests have landed; CMDQEN = 0 when no command is under way; EVENTQEN = 0 and
//! PRIQEN = 0 when all committed records are written. A register that IHI 0070 section 6.3 guards by an enable ignores writes while the enable
//! or its acknowledgement is set.

use super::register_file::{Register, locate_register};
use super::unit::Unit;
use crate::addr::Pa;
use crate::request::Message;
use crate::spec::smmu::capability::ARCHITECTURE_3_2;
use crate::spec::smmu::register::{
    Control0, Control2, GlobalBypass, GlobalError, InterruptControl, MessageAddress, QueueBase, QueueIndex, StreamTableBase,
    StreamTableConfig,
};
use smallvec::SmallVec;

/// How the unit draws attention.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// A 32-bit write.
    Message(Message),
    /// The wired interrupt of that cause.
    Wired,
}

/// What a register access set off.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RegisterEffect {
    /// The command queue has something to do: call `command_advance`.
    pub command_work: bool,
    /// SMMUEN changed; it is acknowledged at `register_drained`, when the requests that were translated before have landed.
    pub drain: bool,
    /// SMMUEN is now this, for new requests.
    pub translation: Option<bool>,
    /// Interrupts that go out.
    pub signals: SmallVec<[Signal; 1]>,
    /// Cycles.
    pub cost: u32,
}

/// The stream table, as the registers say.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct StreamTable {
    pub(crate) base: u64,
    /// LOG2SIZE as written.
    pub(crate) size: u8,
    pub(crate) split: u8,
    pub(crate) format: u8,
}

/// Address and data of an interrupt message, and a word without effect.
#[derive(Clone, Copy, Debug)]
struct MessageConfig {
    address: MessageAddress,
    data: u32,
    attributes: u32,
}

impl MessageConfig {
    const NONE: Self = Self { address: MessageAddress::new(), data: 0, attributes: 0 };
}

/// Register state that no other part of the unit holds.
#[derive(Clone, Debug)]
pub(crate) struct Registers {
    pub(crate) cr0: Control0,
    cr1: u32,
    pub(crate) cr2: Control2,
    pub(crate) gbpa: GlobalBypass,
    interrupts: InterruptControl,
    errors: GlobalError,
    acknowledged: GlobalError,
    error_message: MessageConfig,
    event_message: MessageConfig,
    page_message: MessageConfig,
    strtab_base: u64,
    strtab_base_cfg: u32,
    /// CR0ACK.SMMUEN.
    enable_acknowledged: bool,
}

impl Registers {
    pub(crate) fn new() -> Self {
        Self {
            cr0: Control0::new(),
            cr1: 0,
            cr2: Control2::new(),
            gbpa: GlobalBypass::new(),
            interrupts: InterruptControl::new(),
            errors: GlobalError::new(),
            acknowledged: GlobalError::new(),
            error_message: MessageConfig::NONE,
            event_message: MessageConfig::NONE,
            page_message: MessageConfig::NONE,
            strtab_base: 0,
            strtab_base_cfg: 0,
            enable_acknowledged: false,
        }
    }

    /// Errors that are active.
    fn active(&self) -> GlobalError {
        GlobalError::from_bits(self.errors.into_bits() ^ self.acknowledged.into_bits())
    }
}

/// Bytes of one unit of STRTAB_BASE.ADDR.
const STREAM_TABLE_UNIT: u64 = 64;
/// Bytes of one unit of a message address.
const MESSAGE_UNIT: u64 = 4;
const LOW_HALF: u64 = 0xffff_ffff;

impl Unit {
    /// The value of a register. Reading changes nothing.
    #[must_use]
    pub fn read_register(&self, register: Register) -> u64 {
        let r = &self.registers;
        let word = match register {
            Register::GerrorIrqCfg0 => return r.error_message.address.into_bits(),
            Register::StrtabBase => return r.strtab_base,
            Register::CmdqBase => return self.commands.ring.base.into_bits(),
            Register::EventqBase => return self.events.ring.base.into_bits(),
            Register::EventqIrqCfg0 => return r.event_message.address.into_bits(),
            Register::PriqBase => return self.page_requests.ring.base.into_bits(),
            Register::PriqIrqCfg0 => return r.page_message.address.into_bits(),
            Register::PriqIrqCfg1 => r.page_message.data,
            Register::PriqIrqCfg2 => r.page_message.attributes,
            Register::PriqProd => {
                QueueIndex::from_bits(self.page_requests.ring.producer).with_overflow(self.page_requests.overflow).into_bits()
            }
            Register::PriqCons => {
                QueueIndex::from_bits(self.page_requests.ring.consumer).with_overflow(self.page_requests.overflow_acknowledged).into_bits()
            }
            Register::Idr0 => self.cap.idr0(),
            Register::Idr1 => self.cap.idr1(),
            Register::Idr3 => self.cap.idr3(),
            Register::Idr5 => self.cap.idr5(),
            Register::Aidr => ARCHITECTURE_3_2,
            Register::Cr0 => r.cr0.into_bits(),
            Register::Cr0Ack => self.acknowledged_control().into_bits(),
            Register::Cr1 => r.cr1,
            Register::Cr2 => r.cr2.into_bits(),
            Register::Gbpa => r.gbpa.into_bits(),
            Register::IrqCtrl | Register::IrqCtrlAck => r.interrupts.into_bits(),
            Register::Gerror => r.errors.into_bits(),
            Register::Gerrorn => r.acknowledged.into_bits(),
            Register::GerrorIrqCfg1 => r.error_message.data,
            Register::GerrorIrqCfg2 => r.error_message.attributes,
            Register::StrtabBaseCfg => r.strtab_base_cfg,
            Register::CmdqProd => self.commands.ring.producer,
            Register::CmdqCons => QueueIndex::from_bits(self.commands.ring.consumer).with_error(self.commands.error).into_bits(),
            Register::EventqIrqCfg1 => r.event_message.data,
            Register::EventqIrqCfg2 => r.event_message.attributes,
            Register::EventqProd => QueueIndex::from_bits(self.events.ring.producer).with_overflow(self.events.overflow).into_bits(),
            Register::EventqCons => {
                QueueIndex::from_bits(self.events.ring.consumer).with_overflow(self.events.overflow_acknowledged).into_bits()
            }
        };
        u64::from(word)
    }

    /// CR0ACK.
    fn acknowledged_control(&self) -> Control0 {
        let cr0 = self.registers.cr0;
        cr0.with_enable(self.registers.enable_acknowledged)
            .with_event_queue(cr0.event_queue() || self.events.pending() != 0)
            .with_command_queue(cr0.command_queue() || self.commands.is_busy())
            .with_page_requests(cr0.page_requests() || self.page_requests.pending() != 0)
    }

    /// Stores to a whole register; 32-bit registers take the low half of `value`.
    pub fn write_register(&mut self, register: Register, value: u64) -> RegisterEffect {
        let mut effect = RegisterEffect { cost: self.params.timing.register, ..RegisterEffect::default() };
        let low = value as u32;
        let acknowledged = self.acknowledged_control();
        let tables_fixed = self.enabled || acknowledged.enable();
        let commands_fixed = acknowledged.command_queue();
        let events_fixed = acknowledged.event_queue();
        let pages_fixed = acknowledged.page_requests();
        let pri = self.cap.has_page_requests();
        let r = &mut self.registers;
        match register {
            Register::Idr0 | Register::Idr1 | Register::Idr3 | Register::Idr5 | Register::Aidr => {}
            Register::Cr0Ack | Register::IrqCtrlAck | Register::Gerror => {}
            Register::Cr0 => self.write_control(Control0::from_bits(low), &mut effect),
            Register::Cr1 => r.cr1 = low,
            Register::Cr2 if !tables_fixed => r.cr2 = Control2::from_bits(low),
            Register::Gbpa => {
                let value = GlobalBypass::from_bits(low);
                if value.update() {
                    r.gbpa = value.with_update(false);
                }
            }
            Register::IrqCtrl => r.interrupts = InterruptControl::from_bits(low),
            Register::Gerrorn => r.acknowledged = GlobalError::from_bits(low),
            Register::GerrorIrqCfg0 if !r.interrupts.global_error() => r.error_message.address = MessageAddress::from_bits(value),
            Register::GerrorIrqCfg1 if !r.interrupts.global_error() => r.error_message.data = low,
            Register::GerrorIrqCfg2 if !r.interrupts.global_error() => r.error_message.attributes = low,
            Register::EventqIrqCfg0 if !r.interrupts.event_queue() => r.event_message.address = MessageAddress::from_bits(value),
            Register::EventqIrqCfg1 if !r.interrupts.event_queue() => r.event_message.data = low,
            Register::EventqIrqCfg2 if !r.interrupts.event_queue() => r.event_message.attributes = low,
            Register::PriqIrqCfg0 if pri && !r.interrupts.page_requests() => r.page_message.address = MessageAddress::from_bits(value),
            Register::PriqIrqCfg1 if pri && !r.interrupts.page_requests() => r.page_message.data = low,
            Register::PriqIrqCfg2 if pri && !r.interrupts.page_requests() => r.page_message.attributes = low,
            Register::PriqBase if pri && !pages_fixed => self.page_requests.ring.base = QueueBase::from_bits(value),
            Register::PriqProd if pri && !pages_fixed => {
                self.page_requests.ring.producer = QueueIndex::from_bits(low).index();
                self.page_requests.overflow = QueueIndex::from_bits(low).overflow();
            }
            Register::PriqCons if pri => {
                self.page_requests.ring.consumer = QueueIndex::from_bits(low).index();
                self.page_requests.overflow_acknowledged = QueueIndex::from_bits(low).overflow();
            }
            Register::StrtabBase if !tables_fixed => {
                r.strtab_base = value;
                self.stream_table.base = StreamTableBase::from_bits(value).address() * STREAM_TABLE_UNIT;
            }
            Register::StrtabBaseCfg if !tables_fixed => {
                r.strtab_base_cfg = low;
                let config = StreamTableConfig::from_bits(low);
                let table = &mut self.stream_table;
                (table.size, table.split, table.format) = (config.size(), config.split(), config.format());
            }
            Register::CmdqBase if !commands_fixed => self.commands.ring.base = QueueBase::from_bits(value),
            Register::CmdqProd => self.commands.ring.producer = QueueIndex::from_bits(low).index(),
            Register::CmdqCons if !commands_fixed => {
                self.commands.ring.consumer = QueueIndex::from_bits(low).index();
                self.commands.error = QueueIndex::from_bits(low).error();
            }
            Register::EventqBase if !events_fixed => self.events.ring.base = QueueBase::from_bits(value),
            Register::EventqProd if !events_fixed => {
                self.events.ring.producer = QueueIndex::from_bits(low).index();
                self.events.overflow = QueueIndex::from_bits(low).overflow();
            }
            Register::EventqCons => {
                self.events.ring.consumer = QueueIndex::from_bits(low).index();
                self.events.overflow_acknowledged = QueueIndex::from_bits(low).overflow();
            }
            // Guarded, and the guard is up.
            _ => {}
        }
        effect.command_work = self.commands_have_work();
        effect
    }

    fn write_control(&mut self, value: Control0, effect: &mut RegisterEffect) {
        self.registers.cr0 = value;
        self.commands.enabled = value.command_queue();
        if value.enable() != self.enabled {
            self.enabled = value.enable();
            effect.translation = Some(self.enabled);
        }
        effect.drain = self.register_drain_pending();
    }

    /// The requests that were translated before SMMUEN changed have landed. Without such a change nothing happens.
    pub fn register_drained(&mut self) {
        self.registers.enable_acknowledged = self.enabled;
    }

    /// Whether a change of SMMUEN waits for [`Unit::register_drained`].
    #[must_use]
    pub const fn register_drain_pending(&self) -> bool {
        self.registers.enable_acknowledged != self.enabled
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
    /// registers is two writes, low one first; a write to half of a 64-bit register keeps the other half.
    pub fn write_register_at(&mut self, offset: u64, bytes: u8, value: u64) -> RegisterEffect {
        if !is_access(offset, bytes) {
            return RegisterEffect::default();
        }
        match locate_register(offset) {
            Some((register, start, 8)) if bytes == 8 && start == offset => self.write_register(register, value),
            _ if bytes == 8 => {
                let mut effect = self.write_register_at(offset, 4, value & LOW_HALF);
                let other = self.write_register_at(offset + 4, 4, value >> 32);
                effect.command_work |= other.command_work;
                effect.drain |= other.drain;
                effect.translation = other.translation.or(effect.translation);
                effect.signals.extend(other.signals);
                effect.cost = effect.cost.saturating_add(other.cost);
                effect
            }
            Some((register, start, 8)) => {
                let old = self.read_register(register);
                let half = value & LOW_HALF;
                let value = if offset == start { (old & !LOW_HALF) | half } else { (old & LOW_HALF) | (half << 32) };
                self.write_register(register, value)
            }
            Some((register, _, _)) => self.write_register(register, value),
            None => RegisterEffect::default(),
        }
    }

    /// Whether the event queue takes records, space apart.
    pub(crate) fn events_writable(&self) -> bool {
        self.registers.cr0.event_queue() && !self.registers.active().event_queue_abort()
    }

    /// Whether the PRI queue takes requests, overflow apart.
    pub(crate) fn page_requests_writable(&self) -> bool {
        let on = self.cap.has_page_requests() && self.registers.cr0.page_requests() && self.enabled;
        on && !self.registers.active().page_request_abort()
    }

    /// Whether an unacknowledged error stops the command queue.
    pub(crate) fn command_error_active(&self) -> bool {
        self.registers.active().command_queue()
    }

    /// Activates errors that are not active yet; the interrupt, if one goes out.
    pub(crate) fn raise_error(&mut self, set: impl FnOnce(&mut GlobalError)) -> Option<Signal> {
        let mut wanted = GlobalError::new();
        set(&mut wanted);
        let r = &mut self.registers;
        let new = wanted.into_bits() & !r.active().into_bits();
        r.errors = GlobalError::from_bits(r.errors.into_bits() ^ new);
        let config = r.error_message;
        (new != 0 && r.interrupts.global_error()).then(|| self.signal(config.address.address() * MESSAGE_UNIT, config.data))
    }

    /// The interrupt of the event queue, if it is enabled.
    pub(crate) fn event_interrupt(&self) -> Option<Signal> {
        let config = self.registers.event_message;
        self.registers.interrupts.event_queue().then(|| self.signal(config.address.address() * MESSAGE_UNIT, config.data))
    }

    /// The interrupt of the PRI queue, if it is enabled.
    pub(crate) fn page_request_interrupt(&self) -> Option<Signal> {
        let config = self.registers.page_message;
        self.registers.interrupts.page_requests().then(|| self.signal(config.address.address() * MESSAGE_UNIT, config.data))
    }

    /// A message if the unit sends messages and has an address for this one, else a wire.
    pub(crate) fn signal(&self, address: u64, data: u32) -> Signal {
        if self.cap.msi && address != 0 { Signal::Message(Message { address: Pa(address), data }) } else { Signal::Wired }
    }
}

const fn is_access(offset: u64, bytes: u8) -> bool {
    (bytes == 4 || bytes == 8) && offset.is_multiple_of(bytes as u64)
}
