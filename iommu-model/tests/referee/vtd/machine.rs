//! The machine: where things lie, how the unit is programmed, how it is flushed and asked for faults. Layouts come from
//! [`iommu_model::spec`].

use super::{DEVICE, Mode};
use crate::memory::{Layout, Word};
use crate::qemu::edu::{self, Edu};
use crate::qemu::pci::Pci;
use crate::qemu::qtest::Script;
use crate::qemu::{Machine, Qemu};
use crate::trial;
use iommu_model::Capabilities;
use iommu_model::spec::vtd::capability::{Cap, Ecap};
use iommu_model::spec::vtd::context::{AW_39, AW_48, ContextEntry};
use iommu_model::spec::vtd::descriptor::{
    ContextDescriptor, GRANULARITY_GLOBAL, IotlbDescriptor, PASID_GRANULARITY_GLOBAL, PasidCacheDescriptor, TYPE_CONTEXT, TYPE_IOTLB,
    TYPE_PASID_CACHE,
};
use iommu_model::spec::vtd::fault::FaultRecord;
use iommu_model::spec::vtd::first_stage::FirstStageEntry;
use iommu_model::spec::vtd::pasid::{
    PGTT_FIRST, PGTT_SECOND, PasidDirectoryEntry, PasidEntryFirstStage, PasidEntryLow, ScalableContextEntry,
};
use iommu_model::spec::vtd::register::{
    FaultStatus, GlobalCommand, OFFSET_CAP, OFFSET_ECAP, OFFSET_FSTS, OFFSET_GCMD, OFFSET_GSTS, OFFSET_IQA, OFFSET_IQT, OFFSET_RTADDR,
    QueueAddress,
};
use iommu_model::spec::vtd::root::{RootEntry, RootTableAddress, TTM_SCALABLE};
use iommu_model::spec::vtd::second_stage::SecondStageEntry;
use std::io;

const REGISTERS: u64 = 0xfed9_0000;
const BAR: u64 = 0xe000_0000;
const MIB: u64 = 1 << 20;

/// What the service tables map to the mailbox.
pub(super) const SERVICE_IOVA: u64 = 0x7f00_0000;
/// The service tables, from the first MiB on, a page each.
const SERVICE: u64 = MIB;
const SERVICE_PAGES: u64 = 8;
const QUEUE: u64 = MIB + 0x1_0000;

/// The image's root table: the only table at a fixed place.
pub(super) const ROOT: u64 = MIB + 0x4_0000;

pub(super) const LAYOUT: Layout = Layout {
    mailbox: MIB + 0x2_0000,
    pool: ROOT,
    fixed_pages: 1,
    data: MIB + 0x8_0000,
    ram_end: 32 * MIB,
    // Above everything that a PC has, and below every address width used here.
    void: 1 << 38,
    void_end: 1 << 47,
};

pub(super) const EDU: Edu = Edu { bar: BAR };

pub(super) fn machine(mode: Mode) -> Machine {
    let unit = match mode {
        Mode::Legacy { width } => format!("intel-iommu,intremap=off,aw-bits={width}"),
        Mode::Second => "intel-iommu,intremap=off,scalable-mode=on,fsts=off,aw-bits=48".to_owned(),
        Mode::First => "intel-iommu,intremap=off,scalable-mode=on,fsts=on,aw-bits=48".to_owned(),
    };
    let device = format!("edu,addr={:#x},dma_mask=0xffffffffffffffff", DEVICE.devfn() >> 3);
    let args = ["-machine", "q35,memory-backend=ram", "-device", &unit, "-device", &device].map(str::to_owned).to_vec();
    Machine { target: "x86_64", args, ram_base: 0, ram_bytes: LAYOUT.ram_end }
}

/// Where the fault record lies, as the unit says.
fn fault_record(qemu: &mut Qemu) -> io::Result<u64> {
    let cap = Cap::from_bits(qemu.qtest.read64(REGISTERS + OFFSET_CAP)?);
    Ok(REGISTERS + u64::from(cap.fault_offset()) * 16)
}

/// Where QEMU has its record; checked when the machine boots.
const FAULT_RECORD: u64 = REGISTERS + 0x220;

pub(super) fn boot(mode: Mode, capabilities: &Capabilities, qemu: &mut Qemu) -> io::Result<()> {
    let identity = Pci::Ports.enable(&mut qemu.qtest, DEVICE.devfn() >> 3, BAR)?;
    check("the device's identity", u64::from(identity), u64::from(edu::IDENTITY))?;
    check("the fault record's place", fault_record(qemu)?, FAULT_RECORD)?;
    check_capabilities(capabilities, qemu)?;
    trial::fill_data(&LAYOUT, qemu)?;
    build_service(mode, qemu)?;
    for (pa, value) in service_words() {
        qemu.ram.write64(pa, value)?;
    }
    let scalable = !matches!(mode, Mode::Legacy { .. });
    for (n, descriptor) in flush_descriptors(scalable).into_iter().cycle().take(queue_slots(scalable) as usize).enumerate() {
        let pa = QUEUE + n as u64 * slot_bytes(scalable);
        qemu.ram.write64(pa, descriptor as u64)?;
        qemu.ram.write64(pa + 8, (descriptor >> 64) as u64)?;
    }
    let root = RootTableAddress::new().with_table(ROOT >> 12).with_mode(if scalable { TTM_SCALABLE } else { 0 });
    let queue = QueueAddress::new().with_base(QUEUE >> 12).with_wide(scalable);
    let mut script = Script::default();
    script.write64(REGISTERS + OFFSET_RTADDR, root.into_bits());
    script.write64(REGISTERS + OFFSET_IQA, queue.into_bits());
    let on = GlobalCommand::new().with_set_root_table(true);
    script.write32(REGISTERS + OFFSET_GCMD, on.into_bits());
    let on = GlobalCommand::new().with_queue_enable(true);
    script.write32(REGISTERS + OFFSET_GCMD, on.into_bits());
    script.write32(REGISTERS + OFFSET_GCMD, on.with_translation_enable(true).into_bits());
    script.read32(REGISTERS + OFFSET_GSTS);
    let status = qemu.qtest.run(&script)?.first().copied().unwrap_or(0);
    let status = GlobalCommand::from_bits(status as u32);
    if status.translation_enable() && status.queue_enable() {
        return Ok(());
    }
    Err(io::Error::other(format!("the unit does not start: {status:?}; {}", qemu.errors())))
}

fn check(what: &str, found: u64, wanted: u64) -> io::Result<()> {
    if found == wanted { Ok(()) } else { Err(io::Error::other(format!("{what} is {found:#x}, not {wanted:#x}"))) }
}

/// The model must claim what QEMU claims, where it makes a difference to a walk.
fn check_capabilities(ours: &Capabilities, qemu: &mut Qemu) -> io::Result<()> {
    let theirs = (Cap::from_bits(qemu.qtest.read64(REGISTERS + OFFSET_CAP)?), Ecap::from_bits(qemu.qtest.read64(REGISTERS + OFFSET_ECAP)?));
    let ours = (Cap::from_bits(ours.cap()), Ecap::from_bits(ours.ecap()));
    let walk = |(cap, ecap): (Cap, Ecap)| {
        let widths = (cap.sagaw(), cap.mgaw(), cap.superpages(), cap.domains());
        let stages = (ecap.scalable(), ecap.first_stage(), ecap.second_stage(), ecap.nested(), cap.first_stage_1g(), cap.first_stage_5());
        let rid = (ecap.rid_pasid(), ecap.rid_privileged(), ecap.extended_accessed());
        (widths, stages, rid, (ecap.pass_through(), ecap.snoop_control(), ecap.device_tlb(), cap.caching_mode()))
    };
    if walk(ours) == walk(theirs) {
        return Ok(());
    }
    Err(io::Error::other(format!("the model claims {:?}, QEMU {:?}", walk(ours), walk(theirs))))
}

/// Tables that map the mailbox and nothing else, below the root table.
fn build_service(mode: Mode, qemu: &Qemu) -> io::Result<()> {
    let page = |n: u64| SERVICE + n * 4096;
    for n in 0..SERVICE_PAGES {
        qemu.ram.write(page(n), &[0; 4096])?;
    }
    // Page 0 the context table, 1 to 4 the paging levels from the top, 5 the PASID directory, 6 the PASID table.
    let [context, directory, pasids] = [0, 5, 6].map(page);
    for level in (1..=4).rev() {
        let slot = page(5 - level) + 8 * (SERVICE_IOVA >> (12 + 9 * (level - 1)) & 511);
        let entry = |pa: u64| match mode {
            Mode::First => FirstStageEntry::new().with_present(true).with_write(true).with_user(true).with_frame(pa >> 12).into_bits(),
            _ => SecondStageEntry::new().with_read(true).with_write(true).with_frame(pa >> 12).into_bits(),
        };
        let next = if level == 1 { LAYOUT.mailbox } else { page(6 - level) };
        qemu.ram.write64(slot, entry(next))?;
        if level == 1 {
            qemu.ram.write64(slot + 8, entry(next + 4096))?;
        }
    }
    let devfn = u64::from(DEVICE.devfn());
    if let Mode::Legacy { width } = mode {
        // With 39 bits there are three levels; the tables are the same without the top one.
        let (top, width) = if width == 39 { (2, AW_39) } else { (1, AW_48) };
        let entry = ContextEntry::new().with_present(true).with_address_width(width).with_second_stage(page(top) >> 12).with_domain(1);
        return write_wide(qemu, context + 16 * devfn, entry.into_bits());
    }
    let entry = ScalableContextEntry::new().with_present(true).with_directory(directory >> 12);
    write_wide(qemu, context + 32 * devfn, entry.into_bits())?;
    qemu.ram.write64(directory, PasidDirectoryEntry::new().with_present(true).with_table(pasids >> 12).into_bits())?;
    let low = PasidEntryLow::new().with_present(true).with_address_width(AW_48).with_domain(1);
    if mode == Mode::First {
        qemu.ram.write64(pasids + 16, PasidEntryFirstStage::new().with_first_stage(page(1) >> 12).into_bits())?;
        return write_wide(qemu, pasids, low.with_translation_type(PGTT_FIRST).into_bits());
    }
    write_wide(qemu, pasids, low.with_translation_type(PGTT_SECOND).with_second_stage(page(1) >> 12).into_bits())
}

fn write_wide(qemu: &Qemu, pa: u64, value: u128) -> io::Result<()> {
    qemu.ram.write64(pa, value as u64)?;
    qemu.ram.write64(pa + 8, (value >> 64) as u64)
}

/// The root entry of bus 0. Its lower half reads the same in both modes.
pub(super) fn service_words() -> Vec<Word> {
    let entry = RootEntry::new().with_present(true).with_context_table(SERVICE >> 12).into_bits();
    vec![(ROOT, entry as u64), (ROOT + 8, (entry >> 64) as u64)]
}

/// What the queue holds, over and over: a flush is a move of the tail.
fn flush_descriptors(scalable: bool) -> Vec<u128> {
    let context = ContextDescriptor::new().with_kind(TYPE_CONTEXT).with_granularity(GRANULARITY_GLOBAL).into_bits();
    let pasid = PasidCacheDescriptor::new().with_kind(TYPE_PASID_CACHE).with_granularity(PASID_GRANULARITY_GLOBAL).into_bits();
    let iotlb = IotlbDescriptor::new().with_kind(TYPE_IOTLB).with_granularity(GRANULARITY_GLOBAL).into_bits();
    if scalable { vec![context, pasid, iotlb, iotlb] } else { vec![context, iotlb] }
}

const fn slot_bytes(scalable: bool) -> u64 {
    if scalable { 32 } else { 16 }
}

const fn queue_slots(scalable: bool) -> u64 {
    4096 / slot_bytes(scalable)
}

/// Flushes everything; returns the new tail.
pub(super) fn flush(scalable: bool, tail: u64, script: &mut Script) -> u64 {
    let tail = (tail + flush_descriptors(scalable).len() as u64) % queue_slots(scalable);
    script.write64(REGISTERS + OFFSET_IQT, tail * slot_bytes(scalable));
    tail
}

/// Reads the high half of the fault record and clears it, and what else would keep the next fault out.
pub(super) fn probe(script: &mut Script) {
    script.read64(FAULT_RECORD + 8);
    script.write64(FAULT_RECORD + 8, 1 << 63);
    script.write32(REGISTERS + OFFSET_FSTS, FaultStatus::new().with_overflow(true).into_bits());
}

pub(super) fn fault(values: &[u64]) -> Option<u16> {
    let record = FaultRecord::from_bits(u128::from(*values.first()?) << 64);
    record.fault().then(|| u16::from(record.reason()))
}
