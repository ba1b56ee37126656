//! The machine: where things lie, how the IOMMU is programmed, flushed and asked for faults.

use super::{DEVICE, Mode};
use crate::memory::{Layout, Word};
use crate::qemu::edu::{self, Edu};
use crate::qemu::pci::Pci;
use crate::qemu::qtest::Script;
use crate::qemu::{Machine, Qemu};
use crate::trial;
use iommu_model::riscv::Capabilities;
use iommu_model::spec::riscv::capability::CapabilitiesRegister;
use iommu_model::spec::riscv::command::{
    AnyCommand, FUNC_FENCE_C, FUNC_GVMA, FUNC_INVAL_DDT, FUNC_VMA, OPCODE_IODIR, OPCODE_IOFENCE, OPCODE_IOTINVAL,
};
use iommu_model::spec::riscv::device_context::{DirectoryEntry, EXTENDED_CONTEXT_BYTES, EXTENDED_INDEX_BITS, TranslationControl};
use iommu_model::spec::riscv::fault::FaultRecord;
use iommu_model::spec::riscv::register::{
    DirectoryPointer, MODE_1LVL, MODE_2LVL, OFFSET_CAPABILITIES, OFFSET_CQB, OFFSET_CQCSR, OFFSET_CQT, OFFSET_DDTP, OFFSET_FQB,
    OFFSET_FQCSR, OFFSET_FQH, OFFSET_FQT, QueueBase, RecordQueueControl,
};
use std::io;

const REGISTERS: u64 = 0x4000_0000;
const BAR: u64 = 0x4010_0000;
const CONFIGURATION: u64 = 0x3000_0000;
/// The IOMMU as a PCI device.
const IOMMU: u8 = 1;
const RAM: u64 = 0x8000_0000;
const MIB: u64 = 1 << 20;

const COMMANDS: u64 = RAM + MIB;
/// log2 of the number of commands that the queue holds.
const COMMAND_BITS: u8 = 8;
const FAULTS: u64 = RAM + MIB + 0x1_0000;
/// log2 of the number of fault records: more than one image makes.
const FAULT_BITS: u8 = 11;
/// A leaf of the device directory that leads to the mailbox.
const SERVICE: u64 = RAM + MIB + 0x4_0000;

/// The image's device directory.
pub(super) const DIRECTORY: u64 = RAM + 2 * MIB;

pub(super) const LAYOUT: Layout = Layout {
    mailbox: RAM + MIB + 0x8_0000,
    pool: DIRECTORY,
    // Roots of second stages are 16 KiB: the others are aligned to that.
    fixed_pages: 4,
    data: DIRECTORY + MIB,
    ram_end: RAM + 32 * MIB,
    void: 1 << 38,
    void_end: 1 << 55,
};

pub(super) const EDU: Edu = Edu { bar: BAR };

pub(super) fn machine() -> Machine {
    let device = format!("edu,addr={:#x},dma_mask=0xffffffffffffffff", DEVICE.devfn() >> 3);
    let args = ["-machine", "virt,memory-backend=ram", "-device", "riscv-iommu-pci,addr=1", "-device", &device].map(str::to_owned).to_vec();
    Machine { target: "riscv64", args, ram_base: RAM, ram_bytes: LAYOUT.ram_end - RAM }
}

/// What both have for ddtp.
pub(super) fn directory(mode: Mode) -> DirectoryPointer {
    DirectoryPointer::new().with_mode(if mode.two_level { MODE_2LVL } else { MODE_1LVL }).with_ppn(DIRECTORY >> 12)
}

pub(super) fn boot(mode: Mode, ours: &Capabilities, qemu: &mut Qemu) -> io::Result<()> {
    let pci = Pci::Memory(CONFIGURATION);
    pci.enable(&mut qemu.qtest, IOMMU, REGISTERS)?;
    let identity = pci.enable(&mut qemu.qtest, DEVICE.devfn() >> 3, BAR)?;
    if identity != edu::IDENTITY {
        return Err(io::Error::other(format!("the device is {identity:#x}")));
    }
    check_capabilities(ours, qemu)?;
    trial::fill_data(&LAYOUT, qemu)?;
    for (n, word) in service_context().into_iter().enumerate() {
        qemu.ram.write64(context_pa(SERVICE) + 8 * n as u64, word)?;
    }
    for (pa, value) in service_words(mode) {
        qemu.ram.write64(pa, value)?;
    }
    for (n, command) in flush_commands().into_iter().cycle().take(1 << COMMAND_BITS).enumerate() {
        qemu.ram.write64(COMMANDS + 16 * n as u64, command as u64)?;
        qemu.ram.write64(COMMANDS + 16 * n as u64 + 8, (command >> 64) as u64)?;
    }
    let mut script = Script::default();
    let on = RecordQueueControl::new().with_enable(true).into_bits();
    script.write64(REGISTERS + OFFSET_CQB, queue(COMMANDS, COMMAND_BITS));
    script.write32(REGISTERS + OFFSET_CQCSR, on);
    script.write64(REGISTERS + OFFSET_FQB, queue(FAULTS, FAULT_BITS));
    script.write32(REGISTERS + OFFSET_FQCSR, on);
    script.write64(REGISTERS + OFFSET_DDTP, directory(mode).into_bits());
    script.read64(REGISTERS + OFFSET_DDTP);
    let found = qemu.qtest.run(&script)?.first().copied().unwrap_or(0);
    if found == directory(mode).into_bits() {
        return Ok(());
    }
    Err(io::Error::other(format!("ddtp is {found:#x}; {}", qemu.errors())))
}

fn queue(pa: u64, bits: u8) -> u64 {
    QueueBase::new().with_ppn(pa >> 12).with_log2_size_minus_1(bits - 1).into_bits()
}

/// The model must claim what QEMU claims, where it makes a difference to a walk.
fn check_capabilities(ours: &Capabilities, qemu: &mut Qemu) -> io::Result<()> {
    let walk = |bits: u64| {
        let cap = CapabilitiesRegister::from_bits(bits);
        let first = (cap.sv39(), cap.sv48(), cap.sv57(), cap.svpbmt());
        let second = (cap.sv39x4(), cap.sv48x4(), cap.sv57x4());
        (
            first,
            second,
            (cap.msi_flat(), cap.amo_hwad(), cap.pas(), cap.ats(), cap.t2gpa()),
            (cap.pd8(), cap.pd17(), cap.pd20()),
            cap.qosid(),
        )
    };
    let theirs = walk(qemu.qtest.read64(REGISTERS + OFFSET_CAPABILITIES)?);
    if walk(ours.register()) == theirs {
        return Ok(());
    }
    Err(io::Error::other(format!("the model claims {:?}, QEMU {theirs:?}", walk(ours.register()))))
}

/// A device context that lets addresses pass.
fn service_context() -> [u64; 8] {
    [TranslationControl::new().with_valid(true).into_bits(), 0, 0, 0, 0, 0, 0, 0]
}

/// The device's context in a leaf of the directory.
fn context_pa(leaf: u64) -> u64 {
    leaf + (u64::from(DEVICE.0) % (1 << EXTENDED_INDEX_BITS[0])) * EXTENDED_CONTEXT_BYTES
}

/// The context of the device, or the entry above it.
pub(super) fn service_words(mode: Mode) -> Vec<Word> {
    if mode.two_level {
        let entry = DirectoryEntry::new().with_valid(true).with_ppn(SERVICE >> 12).into_bits();
        return vec![(DIRECTORY + 8 * (u64::from(DEVICE.0) >> EXTENDED_INDEX_BITS[0]), entry)];
    }
    (0..8).map(|n| context_pa(DIRECTORY) + 8 * n).zip(service_context()).collect()
}

/// What the command queue holds, over and over: a flush is a move of the tail.
fn flush_commands() -> [u128; 4] {
    let command = |opcode, func3| AnyCommand::new().with_opcode(opcode).with_func3(func3).into_bits();
    [
        command(OPCODE_IODIR, FUNC_INVAL_DDT),
        command(OPCODE_IOTINVAL, FUNC_VMA),
        command(OPCODE_IOTINVAL, FUNC_GVMA),
        command(OPCODE_IOFENCE, FUNC_FENCE_C),
    ]
}

/// Flushes everything; returns the new tail.
pub(super) fn flush(tail: u32, script: &mut Script) -> u32 {
    let tail = (tail + flush_commands().len() as u32) % (1 << COMMAND_BITS);
    script.write32(REGISTERS + OFFSET_CQT, tail);
    tail
}

/// Makes room in the fault queue.
pub(super) fn acknowledge(tail: u32, script: &mut Script) {
    script.write32(REGISTERS + OFFSET_FQH, tail);
}

pub(super) fn probe(script: &mut Script) {
    script.read32(REGISTERS + OFFSET_FQT);
}

/// The cause of the fault at a place of the queue.
pub(super) fn cause(place: u32, qemu: &Qemu) -> io::Result<u16> {
    let pa = FAULTS + 32 * u64::from(place % (1 << FAULT_BITS));
    Ok(FaultRecord::from_bits(qemu.ram.read64(pa)?).cause())
}
