//! What reading and writing registers does. 48882 section 3.4. No cache is emptied by any of it.

use super::register_file::{Register, locate_register};
use super::unit::Unit;
use crate::addr::Pa;
use crate::request::Message;
use crate::spec::amd::control::{Control, Status};
use crate::spec::amd::register::{BufferBase, BufferPointer, DeviceTableBase, ExclusionBase, ExclusionLimit, MsiHeader};

/// What a register write set going.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RegisterEffect {
    /// Cycles inside the unit.
    pub cost: u32,
    /// The command buffer has work.
    pub command_work: bool,
}

/// The MSI registers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageRegisters {
    header: MsiHeader,
    low: u32,
    high: u32,
    data: u32,
}

impl MessageRegisters {
    pub(crate) const fn new() -> Self {
        Self { header: MsiHeader::new(), low: 0, high: 0, data: 0 }
    }
}

const LOW_HALF: u64 = 0xffff_ffff;

const fn pointer(index: u16) -> u64 {
    BufferPointer::new().with_index(index).into_bits()
}

impl Unit {
    /// The interrupt message of the unit, if MSI is on. Units without the MSI registers have them in PCI configuration space,
    /// which is set here too.
    pub(crate) fn message(&self) -> Option<Message> {
        let MessageRegisters { header, low, high, data } = self.msi;
        header.enable().then_some(Message { address: Pa(u64::from(low) | u64::from(high) << 32), data })
    }

    /// Software sets up the MSI capability in PCI configuration space; `None` switches it off.
    pub fn set_interrupt_message(&mut self, message: Option<Message>) {
        self.msi.header.set_enable(message.is_some());
        if let Some(Message { address, data }) = message {
            (self.msi.low, self.msi.high, self.msi.data) = (address.0 as u32, (address.0 >> 32) as u32, data);
        }
    }

    /// Reads a register. A register that the unit lacks reads 0.
    #[must_use]
    pub fn read_register(&self, register: Register) -> u64 {
        if !self.has_register(register) {
            return 0;
        }
        match register {
            Register::DeviceTableBase => self.device_table.into_bits(),
            Register::CommandBase => self.commands.base.into_bits(),
            Register::EventBase => self.events.base.into_bits(),
            Register::Control => self.control.into_bits(),
            Register::ExclusionBase => self.exclusion.into_bits(),
            Register::ExclusionLimit => self.exclusion_limit.into_bits(),
            Register::ExtendedFeatures => self.cap.features(),
            Register::ExtendedFeatures2 => self.cap.features_2(),
            Register::MsiHeader => u64::from(self.msi.header.into_bits()),
            Register::MsiAddressLow => u64::from(self.msi.low),
            Register::MsiAddressHigh => u64::from(self.msi.high),
            Register::MsiData => u64::from(self.msi.data),
            Register::CommandHead => pointer(self.commands.head),
            Register::CommandTail => pointer(self.commands.tail),
            Register::EventHead => pointer(self.events.head),
            Register::EventTail => pointer(self.events.tail),
            Register::Status => self.status.with_event_run(self.events.running).with_command_run(self.commands.running).into_bits(),
        }
    }

    fn has_register(&self, register: Register) -> bool {
        match register {
            Register::MsiHeader | Register::MsiAddressLow | Register::MsiAddressHigh | Register::MsiData => self.cap.msi_registers,
            _ => true,
        }
    }

    /// Writes a register. Of a 32-bit register the low half counts. A write to a read-only register, or to one that the
    /// unit lacks, is ignored.
    pub fn write_register(&mut self, register: Register, value: u64) -> RegisterEffect {
        if self.has_register(register) {
            self.write(register, value);
        }
        RegisterEffect { cost: self.params.timing.register, command_work: self.commands.has_work() }
    }

    fn write(&mut self, register: Register, value: u64) {
        match register {
            Register::ExtendedFeatures | Register::ExtendedFeatures2 => {}
            Register::DeviceTableBase => self.device_table = DeviceTableBase::from_bits(value).with_reserved_9(0).with_reserved_52(0),
            Register::CommandBase => self.commands.write_base(BufferBase::from_bits(value)),
            Register::EventBase => self.events.write_base(BufferBase::from_bits(value)),
            Register::Control => self.write_control(Control::from_bits(value)),
            Register::ExclusionBase => self.exclusion = ExclusionBase::from_bits(value).with_reserved_2(0).with_reserved_52(0),
            Register::ExclusionLimit => self.exclusion_limit = ExclusionLimit::from_bits(value).with_reserved_0(0).with_reserved_52(0),
            Register::MsiHeader => self.msi.header.set_enable(MsiHeader::from_bits(value as u32).enable()),
            Register::MsiAddressLow => self.msi.low = value as u32,
            Register::MsiAddressHigh => self.msi.high = value as u32,
            Register::MsiData => self.msi.data = value as u32,
            Register::CommandHead => self.commands.write_head(BufferPointer::from_bits(value)),
            Register::CommandTail => self.commands.write_tail(BufferPointer::from_bits(value)),
            Register::EventHead => self.events.write_head(BufferPointer::from_bits(value)),
            Register::EventTail => self.events.write_tail(BufferPointer::from_bits(value)),
            Register::Status => self.write_status(Status::from_bits(value)),
        }
    }

    /// The command buffer and the event log run with IommuEn and their own bit, and start as both become 1. GTEn and
    /// GCR3TRPMode are kept 0 on units without the feature.
    fn write_control(&mut self, value: Control) {
        let old = self.control;
        self.control = value
            .with_guest_translation(value.guest_translation() && self.cap.guest_translation)
            .with_guest_root_is_guest(value.guest_root_is_guest() && self.cap.guest_root_in_guest);
        let changed = |of: fn(&Control) -> bool| {
            let (before, after) = (old.enable() && of(&old), value.enable() && of(&value));
            (before != after).then_some(after)
        };
        if let Some(on) = changed(Control::command_buffer) {
            self.commands.switch(on);
        }
        if let Some(on) = changed(Control::event_log) {
            self.events.running = on;
        }
    }

    /// Bits 2:0 are cleared by writing 1.
    fn write_status(&mut self, value: Status) {
        self.status = self
            .status
            .with_event_overflow(self.status.event_overflow() && !value.event_overflow())
            .with_event_interrupt(self.status.event_interrupt() && !value.event_interrupt())
            .with_wait_interrupt(self.status.wait_interrupt() && !value.wait_interrupt());
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
    /// registers is two writes, low one first. A write to half of a 64-bit register keeps the other half, but writes 0 to
    /// the other half of the status.
    pub fn write_register_at(&mut self, offset: u64, bytes: u8, value: u64) -> RegisterEffect {
        if !is_access(offset, bytes) {
            return RegisterEffect::default();
        }
        match locate_register(offset) {
            Some((register, start, 8)) if bytes == 8 && start == offset => self.write_register(register, value),
            _ if bytes == 8 => {
                let low = self.write_register_at(offset, 4, value & LOW_HALF);
                let high = self.write_register_at(offset.wrapping_add(4), 4, value >> 32);
                RegisterEffect { cost: low.cost.saturating_add(high.cost), command_work: high.command_work }
            }
            Some((register, _, 4)) => self.write_register(register, value),
            Some((register, start, _)) => {
                let old = if register == Register::Status { 0 } else { self.read_register(register) };
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
