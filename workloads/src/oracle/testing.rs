//! A bench for oracles: a small machine whose events are made by hand.

use std::cell::RefCell;
use std::rc::Rc;

use iommu_model::addr::{Bdf, DomainId, Iova, Pa, Pfn};
use iommu_model::decision::Plain;
use iommu_model::request::{Access, Fetched, Progress, Request};
use iommu_model::spec::vtd::context::{AW_39, ContextEntry};
use iommu_model::spec::vtd::root::RootEntry;
use iommu_model::timing::Params;
use iommu_model::vtd::{Capabilities, Register, Unit};
use sim::device::{DmaRange, Fabric};
use sim::engine::{ActorId, Core};
use sim::memory::{FrameState, Memory, Tag};
use sim::oracle::{Finding, Oracle, View};
use sim::policy::Replay;
use sim::trace::{DeviceId, Event, EventKind, Flavor, UnitId, Verb};

use super::Context;
use super::ledger::{Keeper, Ledger};
use crate::tag;
use crate::topology::{DeviceTopology, Topology, UnitTopology};
use crate::verb::{self, Phase};

/// The device.
pub(super) const DEVICE: Bdf = Bdf::new(0, 2, 0);
/// A second one, behind the same unit.
pub(super) const OTHER_DEVICE: Bdf = Bdf::new(0, 3, 0);
/// Root table, in frame 0x20; context table behind it.
pub(super) const ROOT: Pa = Pa(0x20_000);
const CONTEXT: Pa = Pa(0x21_000);
/// Top table of the device's domain.
pub(super) const TOP: Pa = Pa(0x30_000);
/// Root of the tracker; nodes behind it.
pub(super) const TRACKER: Pa = Pa(0x81_000);
const FDT: Pa = Pa(0x80_000);
const NR_FRAMES: u32 = 512;

/// See the module.
pub(super) struct Bench {
    /// Bytes and shadow.
    pub(super) memory: Memory,
    /// The machine's topology.
    pub(super) topo: Rc<Topology>,
    fabric: Fabric,
    core: Core,
    keeper: Keeper,
    judge: Option<Box<dyn Oracle>>,
    step: u64,
    serial: u32,
}

fn units() -> Vec<UnitTopology> {
    vec![UnitTopology {
        register_base: Pa(0xfed9_0000),
        levels: 3,
        root_switch_invalidates: false,
        page_selective: true,
        iotlb_entries: 16,
        psc_entries: 4,
        superpage_2m: true,
        coherent: true,
    }]
}

impl Bench {
    /// First frame of scratch.
    pub(super) const SCRATCH: Pa = Pa(0x10_000);

    /// A machine with one unit and two devices, all memory allocated, translation off.
    pub(super) fn new() -> Bench {
        let topo = Rc::new(Topology {
            nr_frames: NR_FRAMES,
            holes: Vec::new(),
            firmware: 0..1,
            scratch: 16..24,
            image: 4..6,
            units: units(),
            devices: vec![DeviceTopology { bdf: DEVICE, unit: 0 }, DeviceTopology { bdf: OTHER_DEVICE, unit: 0 }],
        });
        let mut memory = Memory::new(NR_FRAMES as usize);
        for (pfn, frame) in memory.frames.iter_mut().enumerate() {
            frame.state = FrameState::Owned;
            frame.tag = tag::MEMFD_FOLIO;
            frame.head = pfn as u32;
            frame.since = 1;
            frame.scratch = topo.scratch.contains(&(pfn as u32));
        }
        let mut fabric = Fabric::new();
        let unit = fabric.add_unit(Unit::new(Capabilities::default(), Params::default()));
        fabric.add_device(DEVICE, unit);
        fabric.add_device(OTHER_DEVICE, unit);
        let ledger = Rc::new(RefCell::new(Ledger::new(&topo, Context::default())));
        Bench {
            memory,
            topo,
            fabric,
            core: Core::new(Box::new(Replay::new(Vec::new()))),
            keeper: Keeper(ledger),
            judge: None,
            step: 1,
            serial: 0,
        }
    }

    /// The oracle to ask.
    pub(super) fn judge_with(mut self, oracle: impl FnOnce(Rc<RefCell<Ledger>>) -> Box<dyn Oracle>) -> Bench {
        self.judge = Some(oracle(self.keeper.0.clone()));
        self
    }

    /// Puts an event before the ledger and the oracle.
    pub(super) fn feed(&mut self, kind: EventKind) -> Option<Finding> {
        self.feed_by(ActorId(3), kind)
    }

    fn feed_by(&mut self, actor: ActorId, kind: EventKind) -> Option<Finding> {
        self.step += 1;
        let event = Event { step: self.step, actor, era: self.memory.era, kind };
        let view = View { memory: &self.memory, fabric: &self.fabric };
        if self.keeper.interests() & kind.bit() != 0 {
            assert_eq!(self.keeper.on_event(&event, &view), None);
        }
        let judge = self.judge.as_mut()?;
        if judge.interests() & kind.bit() != 0 { judge.on_event(&event, &view) } else { None }
    }

    /// Says a word.
    pub(super) fn note(&mut self, verb: Verb, args: [u64; 4]) -> Option<Finding> {
        self.feed(EventKind::Note { verb, args })
    }

    /// Begins a phase.
    pub(super) fn phase(&mut self, phase: Phase) {
        self.note(verb::PHASE, [phase as u64, 0, 0, 0]);
    }

    /// Requester id of the device, as words carry it.
    pub(super) fn bdf(&self) -> u64 {
        u64::from(DEVICE.0)
    }

    /// A call of userspace begins.
    pub(super) fn user_call(&mut self, number: u8) {
        self.note(verb::USER_CALL, [u64::from(number), 0, 0, 0]);
    }

    /// A call of userspace begins on another actor.
    pub(super) fn user_call_by(&mut self, actor: u8, number: u8) {
        let kind = EventKind::Note { verb: verb::USER_CALL, args: [u64::from(number), 0, 0, 0] };
        self.feed_by(ActorId(actor), kind);
    }

    /// It is over.
    pub(super) fn user_return_by(&mut self, actor: u8, number: u8) {
        let event = Event { step: self.step, actor: ActorId(actor), era: self.memory.era, kind: EventKind::Jumped { era: 0 } };
        self.keeper.0.borrow_mut().end_call(&event, i64::from(-i32::from(number)));
    }

    /// Creates a domain and attaches the device to it.
    pub(super) fn attach(&mut self, domain: u64, id: u16) {
        self.note(verb::DOMAIN_CREATED, [domain, TOP.0, u64::from(id), 0]);
        self.changing(domain);
        self.attached(domain, id);
    }

    /// The device's domain begins to change.
    pub(super) fn changing(&mut self, domain: u64) {
        self.note(verb::DEVICE_CHANGING, [self.bdf(), domain, 0, 0]);
    }

    /// The device is attached.
    pub(super) fn attached(&mut self, domain: u64, id: u16) -> Option<Finding> {
        self.note(verb::DEVICE_ATTACHED, [self.bdf(), domain, u64::from(id), 0])
    }

    /// A map call that succeeds, for reads and writes.
    pub(super) fn map(&mut self, domain: u64, iova: u64, pa: u64, bytes: u64) {
        self.note(verb::MAP_BEGIN, [domain, iova, pa, bytes | 3 << 56]);
        self.note(verb::MAP_END, [domain, iova, bytes, 0]);
    }

    /// The device is preserved.
    pub(super) fn preserve_device(&mut self) {
        self.note(verb::DEVICE_PRESERVED, [self.bdf(), 0, 0, 0]);
    }

    /// A guest starts or stops its device.
    pub(super) fn start_device(&mut self, device: Bdf, on: bool) {
        self.note(verb::DEVICE_STARTED, [u64::from(device.0), u64::from(on), 0, 0]);
        self.fabric.set_bus_master(&self.core, device, on);
    }

    /// A guest lets its device use a page.
    pub(super) fn program(&mut self, device: Bdf, iova: u64) {
        self.note(verb::DEVICE_PROGRAMMED, [u64::from(device.0), iova, 4096, 0]);
        self.fabric.program(&self.core, device, DmaRange { iova: Iova(iova), bytes: 4096, writable: true });
    }

    /// Bus mastering goes off, and nobody says so.
    pub(super) fn clear_bus_master(&mut self, device: Bdf) {
        self.fabric.set_bus_master(&self.core, device, false);
    }

    /// The device forgets what it was programmed with, and nobody says so.
    pub(super) fn forget_ranges(&mut self, device: Bdf) {
        self.fabric.unprogram(device, Iova(0), u64::MAX);
    }

    /// Writes a tracker with these records, and says BEFORE_JUMP.
    pub(super) fn before_jump(&mut self, records: &[(Pa, u8)]) -> Option<Finding> {
        let fdt = self.write_tracker(records);
        self.note(verb::BEFORE_JUMP, [fdt.0, Bench::SCRATCH.0, 8 * 4096, 0])
    }

    /// Jumps, handing over these records.
    pub(super) fn jump(&mut self, records: &[(Pa, u8)]) {
        self.before_jump(records);
        self.memory.era += 1;
        let era = self.memory.era;
        self.feed(EventKind::Jumped { era });
    }

    // Requests of the device.

    /// Issues a request.
    pub(super) fn issue(&mut self, iova: u64, write: bool) -> u32 {
        self.serial += 1;
        self.feed(EventKind::DmaIssued { device: DeviceId(0), serial: self.serial, iova: Iova(iova), write });
        self.serial
    }

    fn translated(&mut self, serial: u32, iova: u64, pa: u64, domain: Option<DomainId>) -> Option<Finding> {
        self.feed(EventKind::DmaTranslated { device: DeviceId(0), serial, iova: Iova(iova), pa: Pa(pa), domain, cached: false })
    }

    /// The request is translated, and lands.
    pub(super) fn land(&mut self, serial: u32, iova: u64, pa: u64) -> Option<Finding> {
        let early = self.translated(serial, iova, pa, Some(DomainId(5)));
        let late = self.feed(EventKind::DmaLanded { device: DeviceId(0), serial, iova: Iova(iova), pa: Pa(pa), old: 0, new: 1 });
        early.or(late)
    }

    /// A whole request.
    pub(super) fn dma(&mut self, iova: u64, write: bool, pa: u64) -> Option<Finding> {
        let serial = self.issue(iova, write);
        if write {
            return self.land(serial, iova, pa);
        }
        self.translated(serial, iova, pa, Some(DomainId(5)));
        self.feed(EventKind::DmaRead { device: DeviceId(0), serial, iova: Iova(iova), pa: Pa(pa), value: 0 })
    }

    /// A whole request that passes untranslated.
    pub(super) fn dma_untranslated(&mut self, iova: u64, write: bool) -> Option<Finding> {
        let serial = self.issue(iova, write);
        self.translated(serial, iova, iova, None);
        self.feed(EventKind::DmaLanded { device: DeviceId(0), serial, iova: Iova(iova), pa: Pa(iova), old: 0, new: 1 })
    }

    /// A request that faults.
    pub(super) fn fault(&mut self, iova: u64, write: bool) -> Option<Finding> {
        let serial = self.issue(iova, write);
        self.feed(EventKind::DmaFaulted { device: DeviceId(0), serial, iova: Iova(iova), reason: 6, write })
    }

    /// A request under way faults.
    pub(super) fn fault_of(&mut self, serial: u32, iova: u64) -> Option<Finding> {
        self.feed(EventKind::DmaFaulted { device: DeviceId(0), serial, iova: Iova(iova), reason: 5, write: true })
    }

    /// The device's walk fetches a word.
    pub(super) fn fetch(&mut self, pa: Pa) -> Option<Finding> {
        self.feed(EventKind::Fetched { unit: UnitId(0), device: Some(DeviceId(0)), pa, bytes: 8, value: 0 })
    }

    // Memory.

    /// Sets a frame's shadow.
    pub(super) fn set_frame(&mut self, pa: Pa, state: FrameState, tag: Tag) {
        let frame = &mut self.memory.frames[(pa.0 >> 12) as usize];
        frame.state = state;
        frame.tag = tag;
        frame.since = self.step as u32;
    }

    /// Makes the frames at `pa` one block of `order`.
    pub(super) fn set_order(&mut self, pa: Pa, order: u8) {
        let first = (pa.0 >> 12) as usize;
        for frame in &mut self.memory.frames[first..first + (1 << order)] {
            frame.order = order;
            frame.head = first as u32;
        }
    }

    /// A block is freed; the frames themselves stay as they are.
    pub(super) fn free(&mut self, pa: Pa, order: u8, tag: Tag) -> Option<Finding> {
        self.feed(EventKind::FramesFreed { pfn: Pfn(pa.0 >> 12), order, tag })
    }

    /// A block is handed out.
    pub(super) fn take(&mut self, pa: Pa, order: u8, tag: Tag) -> Option<Finding> {
        self.feed(EventKind::FramesTaken { pfn: Pfn(pa.0 >> 12), order, tag })
    }

    /// A CPU stores a word.
    pub(super) fn store(&mut self, pa: Pa, new: u64) -> Option<Finding> {
        let old = self.memory.ram.store(pa, 8, new);
        self.feed(EventKind::Store { pa, bytes: 8, old, new, flavor: Flavor::Plain })
    }

    // Tables and units.

    /// Writes root, context and three levels of tables for the device, and switches translation on.
    pub(super) fn attach_tables(&mut self, top: Pa, mappings: &[(u64, Pa)]) {
        let root = RootEntry::new().with_present(true).with_context_table(CONTEXT.0 >> 12);
        self.memory.ram.store(ROOT, 8, root.into_bits() as u64);
        let context =
            ContextEntry::new().with_present(true).with_second_stage(top.0 >> 12).with_address_width(AW_39).with_domain(5).into_bits();
        let at = CONTEXT.0 + u64::from(DEVICE.devfn()) * 16;
        self.memory.ram.store(Pa(at), 8, context as u64);
        self.memory.ram.store(Pa(at + 8), 8, (context >> 64) as u64);
        self.memory.ram.store(top, 8, (top.0 + 0x1000) | 3);
        self.memory.ram.store(Pa(top.0 + 0x1000), 8, (top.0 + 0x2000) | 3);
        for (iova, pa) in mappings {
            self.memory.ram.store(self.leaf_address(*iova), 8, pa.0 | 3);
        }
        for pa in [ROOT, CONTEXT] {
            self.set_frame(pa, FrameState::Owned, tag::VTD_ROOT);
        }
        for level in 0..3 {
            self.set_frame(Pa(top.0 + level * 0x1000), FrameState::Owned, tag::IOMMU_TABLE);
        }
        self.register(Register::Rtaddr, ROOT.0);
        self.register(Register::Gcmd, 1 << 30);
        self.translation(true);
    }

    /// Address of the leaf of an address below 2 MiB.
    pub(super) fn leaf_address(&self, iova: u64) -> Pa {
        Pa(TOP.0 + 0x2000 + (iova >> 12) * 8)
    }

    /// Clears a leaf, silently.
    pub(super) fn clear_leaf(&mut self, iova: u64) {
        self.memory.ram.store(self.leaf_address(iova), 8, 0);
    }

    /// Frames on the path that [`Bench::attach_tables`] made, the page included.
    pub(super) fn path_frames(&self) -> Vec<Pa> {
        vec![ROOT, CONTEXT, TOP, Pa(TOP.0 + 0x1000), Pa(TOP.0 + 0x2000), Pa(0x40_000)]
    }

    /// Writes a register.
    pub(super) fn register(&mut self, register: Register, value: u64) {
        {
            let mut unit = self.fabric.units()[0].unit.borrow_mut();
            unit.write_register(register, value, &mut Plain);
            unit.register_drained();
        }
        self.feed(EventKind::RegisterWritten { unit: UnitId(0), offset: register.offset() as u16, value });
    }

    /// Switches translation.
    pub(super) fn translation(&mut self, on: bool) {
        self.register(Register::Gcmd, u64::from(on) << 31);
    }

    /// Begins a walk of the unit and lets it do its first `fetches` fetches; true when it is done.
    pub(super) fn begin_walk(&mut self, iova: u64, fetches: u32) -> bool {
        let mut unit = self.fabric.units()[0].unit.borrow_mut();
        let request = Request { source: DEVICE, iova: Iova(iova), access: Access::Read, pasid: None };
        let walk = unit.begin(request).expect("a walker is free");
        let (mut left, mut answer) = (fetches, None);
        loop {
            match unit.advance(walk, answer.take(), &mut Plain) {
                Progress::Fetch { .. } if left == 0 => return false,
                Progress::Fetch { pa, .. } => {
                    left -= 1;
                    answer = Some(Fetched::Words([self.memory.ram.load(pa, 8), self.memory.ram.load(Pa(pa.0 + 8), 8)]));
                }
                Progress::Lookup { .. } | Progress::Merged { .. } => {}
                _ => return true,
            }
        }
    }

    /// Translates an address, so that it is cached.
    pub(super) fn translate(&mut self, iova: u64) {
        assert!(self.begin_walk(iova, 16), "the walk ends");
    }

    /// Drops every cached entry.
    pub(super) fn invalidate_all(&mut self) {
        let mut unit = self.fabric.units()[0].unit.borrow_mut();
        while unit.drop_cached(0) {}
    }

    // The tracker.

    /// Writes a root FDT and a radix tree with these records; returns where the FDT is.
    pub(super) fn write_tracker(&mut self, records: &[(Pa, u8)]) -> Pa {
        for pfn in 0x80..0xf0 {
            self.memory.ram.fill(Pa(pfn << 12), 4096, 0, true);
        }
        let strings = 0x100u64;
        let words = [0xd00d_feed, 4096, 56, strings as u32, 40, 17, 16, 0, 21, 40];
        let structure = [1, 0, 3, 8, 0];
        let put = |memory: &mut Memory, offset: u64, value: u32| memory.ram.store(Pa(FDT.0 + offset), 4, u64::from(value.swap_bytes()));
        for (i, value) in words.into_iter().enumerate() {
            put(&mut self.memory, i as u64 * 4, value);
        }
        for (i, value) in structure.into_iter().enumerate() {
            put(&mut self.memory, 56 + i as u64 * 4, value);
        }
        self.memory.ram.store_unaligned(Pa(FDT.0 + 76), 8, TRACKER.0);
        put(&mut self.memory, 84, 2);
        put(&mut self.memory, 88, 9);
        for (i, byte) in b"preserved-memory-map".iter().enumerate() {
            self.memory.ram.store(Pa(FDT.0 + strings + i as u64), 1, u64::from(*byte));
        }
        let mut next = TRACKER.0 + 0x1000;
        for (pa, order) in records {
            let key = 1u64 << (52 - order) | pa.0 >> (12 + order);
            let mut node = TRACKER.0;
            for level in (1..6u32).rev() {
                let slot = Pa(node + (key >> (15 + 9 * (level - 1)) & 511) * 8);
                if self.memory.ram.load(slot, 8) == 0 {
                    self.memory.ram.store(slot, 8, next);
                    next += 0x1000;
                }
                node = self.memory.ram.load(slot, 8);
            }
            let word = Pa(node + (key & 0x7fff) / 64 * 8);
            let bits = self.memory.ram.load(word, 8);
            self.memory.ram.store(word, 8, bits | 1 << (key % 64));
        }
        assert!(next <= 0xf0_000, "the bench has room for the tracker");
        FDT
    }
}
