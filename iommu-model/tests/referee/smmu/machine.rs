//! The machine: where things lie, how the SMMU is programmed, flushed and asked for events.

use super::{DEVICE, Mode};
use crate::memory::{Layout, Word};
use crate::qemu::edu::{self, Edu};
use crate::qemu::pci::Pci;
use crate::qemu::qtest::Script;
use crate::qemu::{Machine, Qemu};
use crate::trial;
use crate::walk::smmu_code;
use iommu_model::smmu::{Register, Unit};
use iommu_model::spec::smmu::capability::{Idr0, Idr3, Idr5};
use iommu_model::spec::smmu::command::{CFGI_STE_RANGE, CONFIG_RANGE_ALL, ConfigCommand, SYNC, TLBI_NSNH_ALL};
use iommu_model::spec::smmu::event::{Record0, Record1};
use iommu_model::spec::smmu::register::{
    Control0, OFFSET_CMDQ_BASE, OFFSET_CMDQ_PROD, OFFSET_CR0, OFFSET_CR0ACK, OFFSET_CR2, OFFSET_EVENTQ_BASE, OFFSET_EVENTQ_CONS,
    OFFSET_EVENTQ_PROD, OFFSET_IDR0, OFFSET_IDR3, OFFSET_IDR5, OFFSET_STRTAB_BASE, OFFSET_STRTAB_BASE_CFG, QueueBase, STREAM_TABLE_2_LEVEL,
    StreamTableBase, StreamTableConfig,
};
use iommu_model::spec::smmu::stream::{CONFIG_BYPASS, STREAM_ENTRY_BYTES, StreamEntry0, StreamEntry1, StreamLevel1};
use std::io;

const REGISTERS: u64 = 0x0905_0000;
const BAR: u64 = 0x1000_0000;
const CONFIGURATION: u64 = 0x3f00_0000;
const RAM: u64 = 0x4000_0000;
const MIB: u64 = 1 << 20;

const COMMANDS: u64 = RAM + MIB;
/// log2 of the number of commands that the queue holds.
const COMMAND_BITS: u8 = 8;
const EVENTS: u64 = RAM + MIB + 0x1_0000;
/// log2 of the number of event records: more than one image makes.
const EVENT_BITS: u8 = 11;
/// A level-2 stream table that leads to the mailbox.
const SERVICE: u64 = RAM + MIB + 0x4_0000;

/// The image's stream table.
pub(super) const STREAMS: u64 = RAM + 2 * MIB;
/// log2 of the number of streams.
const STREAM_BITS: u8 = 8;
/// Streams of a level-2 table, as a log2.
pub(super) const SPLIT: u8 = 6;

pub(super) const LAYOUT: Layout = Layout {
    mailbox: RAM + MIB + 0x8_0000,
    pool: STREAMS,
    fixed_pages: 4,
    data: STREAMS + 2 * MIB,
    ram_end: RAM + 32 * MIB,
    void: RAM + 32 * MIB,
    void_end: 1 << 47,
};

pub(super) const EDU: Edu = Edu { bar: BAR };

/// QEMU's SMMU has both stages, whichever of them the streams use.
pub(super) fn machine() -> Machine {
    let device = format!("edu,addr={:#x},dma_mask=0xffffffffffffffff", DEVICE.devfn() >> 3);
    let args = ["-machine", "virt,iommu=smmuv3,highmem=off,memory-backend=ram", "-device", &device].map(str::to_owned).to_vec();
    Machine { target: "aarch64", args, ram_base: RAM, ram_bytes: LAYOUT.ram_end - RAM }
}

/// What both have for STRTAB_BASE and STRTAB_BASE_CFG.
pub(super) fn stream_table(mode: Mode) -> (StreamTableBase, StreamTableConfig) {
    let config = StreamTableConfig::new().with_size(STREAM_BITS).with_split(SPLIT);
    let config = if mode.two_level { config.with_format(STREAM_TABLE_2_LEVEL) } else { config };
    (StreamTableBase::new().with_address(STREAMS >> 6), config)
}

pub(super) fn boot(mode: Mode, unit: &Unit, qemu: &mut Qemu) -> io::Result<()> {
    let identity = Pci::Memory(CONFIGURATION).enable(&mut qemu.qtest, DEVICE.devfn() >> 3, BAR)?;
    if identity != edu::IDENTITY {
        return Err(io::Error::other(format!("the device is {identity:#x}")));
    }
    check_capabilities(unit, qemu)?;
    trial::fill_data(&LAYOUT, qemu)?;
    for (n, word) in bypass_entry().into_iter().enumerate() {
        qemu.ram.write64(SERVICE + (u64::from(DEVICE.0) % (1 << SPLIT)) * STREAM_ENTRY_BYTES + 8 * n as u64, word)?;
    }
    for (pa, value) in service_words(mode) {
        qemu.ram.write64(pa, value)?;
    }
    for (n, command) in flush_commands().into_iter().cycle().take(1 << COMMAND_BITS).enumerate() {
        qemu.ram.write64(COMMANDS + 16 * n as u64, command as u64)?;
        qemu.ram.write64(COMMANDS + 16 * n as u64 + 8, (command >> 64) as u64)?;
    }
    let (base, config) = stream_table(mode);
    let on = Control0::new().with_enable(true).with_event_queue(true).with_command_queue(true);
    let mut script = Script::default();
    script.write64(REGISTERS + OFFSET_STRTAB_BASE, base.into_bits());
    script.write32(REGISTERS + OFFSET_STRTAB_BASE_CFG, config.into_bits());
    script.write64(REGISTERS + OFFSET_CMDQ_BASE, queue(COMMANDS, COMMAND_BITS).into_bits());
    script.write64(REGISTERS + OFFSET_EVENTQ_BASE, queue(EVENTS, EVENT_BITS).into_bits());
    // C_BAD_STREAMID is recorded.
    script.write32(REGISTERS + OFFSET_CR2, 2);
    script.write32(REGISTERS + OFFSET_CR0, on.into_bits());
    script.read32(REGISTERS + OFFSET_CR0ACK);
    let acknowledged = qemu.qtest.run(&script)?.first().copied().unwrap_or(0);
    if acknowledged == u64::from(on.into_bits()) {
        return Ok(());
    }
    Err(io::Error::other(format!("CR0ACK is {acknowledged:#x}; {}", qemu.errors())))
}

fn queue(pa: u64, bits: u8) -> QueueBase {
    QueueBase::new().with_address(pa >> 5).with_size(bits)
}

/// The model must claim what QEMU claims, where it makes a difference to a walk.
fn check_capabilities(unit: &Unit, qemu: &mut Qemu) -> io::Result<()> {
    let mut script = Script::default();
    for offset in [OFFSET_IDR0, OFFSET_IDR3, OFFSET_IDR5] {
        script.read32(REGISTERS + offset);
    }
    let theirs: Vec<u32> = qemu.qtest.run(&script)?.into_iter().map(|value| value as u32).collect();
    let ours = [Register::Idr0, Register::Idr3, Register::Idr5].map(|register| unit.read_register(register) as u32);
    let walk = |words: &[u32]| {
        let (idr0, idr3, idr5) = (Idr0::from_bits(words[0]), Idr3::from_bits(words[1]), Idr5::from_bits(words[2]));
        let stages = (idr0.stage_1(), idr0.stage_2(), idr0.hardware_update(), idr0.context_2_level(), idr0.stream_levels());
        let granules = (idr5.granule_4k(), idr5.granule_16k(), idr5.granule_64k());
        (stages, idr3.hierarchical_disable(), granules, idr5.output_size())
    };
    if walk(&ours) == walk(&theirs) {
        return Ok(());
    }
    Err(io::Error::other(format!("the model claims {:?}, QEMU {:?}", walk(&ours), walk(&theirs))))
}

/// A stream table entry that bypasses both stages, with the shareability that comes in.
fn bypass_entry() -> [u64; 8] {
    let first = StreamEntry0::new().with_valid(true).with_config(CONFIG_BYPASS).into_bits();
    [first, StreamEntry1::new().with_attributes(1 << 12).into_bits(), 0, 0, 0, 0, 0, 0]
}

/// The entry of the device, or the level-1 descriptor above it.
pub(super) fn service_words(mode: Mode) -> Vec<Word> {
    let stream = u64::from(DEVICE.0);
    if mode.two_level {
        let entry = StreamLevel1::new().with_span(SPLIT + 1).with_table(SERVICE >> 6).into_bits();
        return vec![(STREAMS + 8 * (stream >> SPLIT), entry)];
    }
    (0..8).map(|n| STREAMS + stream * STREAM_ENTRY_BYTES + 8 * n).zip(bypass_entry()).collect()
}

/// What the command queue holds, over and over: a flush is a move of PROD.
fn flush_commands() -> [u128; 4] {
    let all = ConfigCommand::new().with_opcode(CFGI_STE_RANGE).with_range(CONFIG_RANGE_ALL).into_bits();
    [all, u128::from(TLBI_NSNH_ALL), u128::from(SYNC), u128::from(SYNC)]
}

/// Flushes everything; returns the new CMDQ_PROD.
pub(super) fn flush(producer: u32, script: &mut Script) -> u32 {
    let producer = (producer + flush_commands().len() as u32) % (2 << COMMAND_BITS);
    script.write32(REGISTERS + OFFSET_CMDQ_PROD, producer);
    producer
}

/// Makes room in the event queue.
pub(super) fn acknowledge(producer: u32, script: &mut Script) {
    script.write32(REGISTERS + OFFSET_EVENTQ_CONS, producer);
}

pub(super) fn probe(script: &mut Script) {
    script.read32(REGISTERS + OFFSET_EVENTQ_PROD);
}

/// The number of the event at a place of the queue.
pub(super) fn event(place: u32, qemu: &Qemu) -> io::Result<u16> {
    let pa = EVENTS + 32 * u64::from(place % (1 << EVENT_BITS));
    let (first, second) = (Record0::from_bits(qemu.ram.read64(pa)?), Record1::from_bits(qemu.ram.read64(pa + 8)?));
    Ok(smmu_code(first.event(), second.stage_2(), second.class()))
}
