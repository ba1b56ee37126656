//! The machine: where things lie, how the unit is programmed, flushed and asked for events.

use super::DEVICE;
use crate::memory::{Layout, Word};
use crate::qemu::edu::{self, Edu};
use crate::qemu::pci::Pci;
use crate::qemu::qtest::Script;
use crate::qemu::{Machine, Qemu};
use crate::trial;
use iommu_model::spec::amd::command::{AnyCommand, InvalidateDevice, OPCODE_INVALIDATE_ALL, OPCODE_INVALIDATE_DEVICE};
use iommu_model::spec::amd::control::Control;
use iommu_model::spec::amd::device_table::{DEVICE_ENTRY_BYTES, DeviceEntryLow};
use iommu_model::spec::amd::event::EventWord;
use iommu_model::spec::amd::host_table::HostEntry;
use iommu_model::spec::amd::register::{
    BufferBase, BufferPointer, DeviceTableBase, OFFSET_COMMAND_BASE, OFFSET_COMMAND_HEAD, OFFSET_COMMAND_TAIL, OFFSET_CONTROL,
    OFFSET_DEVICE_TABLE, OFFSET_EVENT_BASE, OFFSET_EVENT_HEAD, OFFSET_EVENT_TAIL,
};
use std::io;

const REGISTERS: u64 = 0xfed8_0000;
const BAR: u64 = 0xe000_0000;
const MIB: u64 = 1 << 20;

/// What the service tables map to the mailbox.
pub(super) const SERVICE_IOVA: u64 = 0x7f00_0000;
/// The service tables, four pages from the top level on.
const SERVICE: u64 = MIB;
const COMMANDS: u64 = MIB + 0x1_0000;
/// log2 of the number of commands that the buffer holds.
const COMMAND_BITS: u8 = 8;
const EVENTS: u64 = MIB + 0x2_0000;
/// log2 of the number of events: more than one image makes.
const EVENT_BITS: u8 = 11;

/// The image's device table.
pub(super) const DEVICES: u64 = MIB + 0x8_0000;

pub(super) const LAYOUT: Layout = Layout {
    mailbox: MIB + 0x4_0000,
    pool: DEVICES,
    fixed_pages: 1,
    data: MIB + 0xc_0000,
    ram_end: 32 * MIB,
    // Above everything that a PC has.
    void: 1 << 41,
    void_end: 1 << 51,
};

pub(super) const EDU: Edu = Edu { bar: BAR };

pub(super) fn machine() -> Machine {
    let device = format!("edu,addr={:#x},dma_mask=0xffffffffffffffff", DEVICE.devfn() >> 3);
    let args = ["-machine", "q35,memory-backend=ram", "-device", "amd-iommu,dma-remap=on", "-device", &device].map(str::to_owned).to_vec();
    Machine { target: "x86_64", args, ram_base: 0, ram_bytes: LAYOUT.ram_end }
}

/// What both have for the device table.
pub(super) fn device_table() -> DeviceTableBase {
    DeviceTableBase::new().with_frame(DEVICES >> 12)
}

pub(super) fn boot(qemu: &mut Qemu) -> io::Result<()> {
    let identity = Pci::Ports.enable(&mut qemu.qtest, DEVICE.devfn() >> 3, BAR)?;
    if identity != edu::IDENTITY {
        return Err(io::Error::other(format!("the device is {identity:#x}")));
    }
    trial::fill_data(&LAYOUT, qemu)?;
    restore(qemu)?;
    for (pa, value) in service_words() {
        qemu.ram.write64(pa, value)?;
    }
    let buffer = |pa: u64, bits: u8| BufferBase::new().with_frame(pa >> 12).with_length(bits).into_bits();
    let on = Control::new().with_enable(true).with_event_log(true).with_command_buffer(true).into_bits();
    let mut script = Script::default();
    script.write64(REGISTERS + OFFSET_DEVICE_TABLE, device_table().into_bits());
    script.write64(REGISTERS + OFFSET_COMMAND_BASE, buffer(COMMANDS, COMMAND_BITS));
    script.write64(REGISTERS + OFFSET_EVENT_BASE, buffer(EVENTS, EVENT_BITS));
    for offset in [OFFSET_COMMAND_HEAD, OFFSET_COMMAND_TAIL, OFFSET_EVENT_HEAD, OFFSET_EVENT_TAIL] {
        script.write64(REGISTERS + offset, 0);
    }
    script.write64(REGISTERS + OFFSET_CONTROL, on);
    script.read64(REGISTERS + OFFSET_CONTROL);
    let found = qemu.qtest.run(&script)?.first().copied().unwrap_or(0);
    if found & on == on {
        return Ok(());
    }
    Err(io::Error::other(format!("the control register is {found:#x}; {}", qemu.errors())))
}

/// The service tables and the command buffer.
pub(super) fn restore(qemu: &Qemu) -> io::Result<()> {
    build_service(qemu)?;
    for (n, command) in flush_commands().into_iter().cycle().take(1 << COMMAND_BITS).enumerate() {
        qemu.ram.write64(COMMANDS + 16 * n as u64, command as u64)?;
        qemu.ram.write64(COMMANDS + 16 * n as u64 + 8, (command >> 64) as u64)?;
    }
    Ok(())
}

/// Tables that map the mailbox and nothing else.
fn build_service(qemu: &Qemu) -> io::Result<()> {
    let page = |level: u64| SERVICE + (4 - level) * 4096;
    qemu.ram.write(SERVICE, &[0; 4 * 4096])?;
    for level in 1..=4 {
        let slot = page(level) + 8 * (SERVICE_IOVA >> (12 + 9 * (level - 1)) & 511);
        let entry = |pa: u64| HostEntry::new().with_present(true).with_read(true).with_write(true).with_frame(pa >> 12);
        if level > 1 {
            qemu.ram.write64(slot, entry(page(level - 1)).with_next_level(level as u8 - 1).into_bits())?;
            continue;
        }
        qemu.ram.write64(slot, entry(LAYOUT.mailbox).into_bits())?;
        qemu.ram.write64(slot + 8, entry(LAYOUT.mailbox + 4096).into_bits())?;
    }
    Ok(())
}

/// The device table entry of the device.
pub(super) fn service_words() -> Vec<Word> {
    let entry = DeviceEntryLow::new().with_valid(true).with_translation_valid(true).with_mode(4).with_root(SERVICE >> 12);
    let bits = entry.with_read(true).with_write(true).with_domain(1).into_bits();
    let pa = DEVICES + u64::from(DEVICE.0) * DEVICE_ENTRY_BYTES;
    vec![(pa, bits as u64), (pa + 8, (bits >> 64) as u64), (pa + 16, 0), (pa + 24, 0)]
}

/// What the command buffer holds, over and over: a flush is a move of the tail.
fn flush_commands() -> [u128; 2] {
    let device = InvalidateDevice::new().with_opcode(OPCODE_INVALIDATE_DEVICE).with_device(DEVICE.0).into_bits();
    [device, AnyCommand::new().with_opcode(OPCODE_INVALIDATE_ALL).into_bits()]
}

/// Flushes everything; returns the new tail.
pub(super) fn flush(tail: u64, script: &mut Script) -> u64 {
    let tail = (tail + flush_commands().len() as u64) % (1 << COMMAND_BITS);
    script.write64(REGISTERS + OFFSET_COMMAND_TAIL, BufferPointer::new().with_index(tail as u16).into_bits());
    tail
}

/// Makes room in the event log.
pub(super) fn acknowledge(tail: u64, script: &mut Script) {
    script.write64(REGISTERS + OFFSET_EVENT_HEAD, tail);
}

pub(super) fn probe(script: &mut Script) {
    script.read64(REGISTERS + OFFSET_EVENT_TAIL);
}

/// The code of the event at a place of the log.
pub(super) fn event(place: u64, qemu: &Qemu) -> io::Result<u16> {
    let word = qemu.ram.read64(EVENTS + place % (16 << EVENT_BITS))?;
    Ok(u16::from(EventWord::from_bits(word).code()))
}
