//! A unit with memory around it, and the calls that tests make in sentences.

use super::{Dc, Memory, Tables, leaf};
use iommu_model::riscv::{
    Capabilities, CommandInput, CommandProgress, DeviceId, Gscid, Pscid, RecordInput, RecordProgress, Register, Transaction, Unit,
};
use iommu_model::spec::riscv::device_context::DirectoryEntry;
use iommu_model::spec::riscv::fault::{Cause, FaultRecord};
use iommu_model::spec::riscv::paging::PageTableEntry;
use iommu_model::spec::riscv::register::{
    CommandQueueControl, DirectoryPointer, MODE_1LVL, MODE_2LVL, MODE_3LVL, QueueBase, RecordQueueControl,
};
use iommu_model::{Access, Decisions, FaultInfo, FetchKind, Iova, Pa, Params, Pfn, Plain, Progress, Question, Translation, WalkId};

pub(crate) const DEVICE: DeviceId = DeviceId(0x18);
pub(crate) const GSCID: Gscid = Gscid(9);
pub(crate) const PSCID: Pscid = Pscid(3);
pub(crate) const IOVA: Iova = Iova(0x4020_3000);
pub(crate) const PAGE: Pa = Pa(0x7_7000);
/// What guest addresses of tables are above their host addresses.
pub(crate) const GUEST: u64 = 0x10_0000_0000;
const COMMANDS: Pfn = Pfn(0x500);
const FAULTS: Pfn = Pfn(0x600);
const PAGE_REQUESTS: Pfn = Pfn(0x700);

/// Answers one kind of question with a fixed number, all others with 0, and counts what it was asked.
pub(crate) struct Scripted<P: Fn(Question) -> bool> {
    which: P,
    answer: u32,
    pub(crate) asked: u32,
}

impl<P: Fn(Question) -> bool> Scripted<P> {
    pub(crate) fn new(which: P, answer: u32) -> Self {
        Self { which, answer, asked: 0 }
    }
}

impl<P: Fn(Question) -> bool> Decisions for Scripted<P> {
    fn decide(&mut self, question: Question) -> u32 {
        if (self.which)(question) {
            self.asked += 1;
            return self.answer;
        }
        0
    }
}

/// How a walk ended, and what it fetched.
pub(crate) struct Ended {
    pub(crate) progress: Progress,
    pub(crate) fetched: Vec<FetchKind>,
    /// Where A or D was set.
    pub(crate) updated: Vec<Pa>,
}

impl Ended {
    pub(crate) fn translation(&self) -> Translation {
        match &self.progress {
            Progress::Done(translation) => *translation,
            other => panic!("not translated: {other:?}"),
        }
    }

    pub(crate) fn fault(&self) -> FaultInfo {
        match &self.progress {
            Progress::Fault(fault) => *fault,
            other => panic!("no fault: {other:?}"),
        }
    }

    pub(crate) fn cause(&self) -> Cause {
        self.fault().reason.riscv().expect("a RISC-V unit gives RISC-V causes")
    }
}

/// A fault record, as software reads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) head: FaultRecord,
    pub(crate) iotval: u64,
    pub(crate) iotval2: u64,
}

/// The world.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) unit: Unit,
    pub(crate) memory: Memory,
    pub(crate) next: Pfn,
    pub(crate) directory: Pa,
    levels: u8,
    tail: u64,
    read: u64,
}

impl World {
    /// Queues on, a device directory of as many levels, nobody in it.
    pub(crate) fn with(cap: Capabilities, params: Params, levels: u8) -> Self {
        let unit = Unit::new(cap, params);
        let directory = Pfn(0x1000).pa();
        let mut world = Self { unit, memory: Memory::default(), next: Pfn(0x1001), directory, levels, tail: 0, read: 0 };
        let base = |frame: Pfn, log2: u8| QueueBase::new().with_ppn(frame.0).with_log2_size_minus_1(log2 - 1).into_bits();
        world.write(Register::Cqb, base(COMMANDS, 8));
        world.write(Register::Cqcsr, u64::from(CommandQueueControl::new().with_enable(true).into_bits()));
        world.write(Register::Fqb, base(FAULTS, 5));
        world.write(Register::Fqcsr, u64::from(RecordQueueControl::new().with_enable(true).into_bits()));
        world.write(Register::Pqb, base(PAGE_REQUESTS, 3));
        world.write(Register::Pqcsr, u64::from(RecordQueueControl::new().with_enable(true).into_bits()));
        let mode = [MODE_1LVL, MODE_2LVL, MODE_3LVL][usize::from(levels) - 1];
        world.write(Register::Ddtp, DirectoryPointer::new().with_mode(mode).with_ppn(directory.pfn().0).into_bits());
        world.unit.register_drained();
        world
    }

    pub(crate) fn new() -> Self {
        Self::with(Capabilities::default(), Params::default(), 1)
    }

    pub(crate) fn write(&mut self, register: Register, value: u64) {
        self.unit.write_register(register, value);
    }

    pub(crate) fn frames(&mut self, n: u64) -> Pa {
        let first = self.next.0.next_multiple_of(n);
        self.next = Pfn(first + n);
        Pfn(first).pa()
    }

    /// Where the device's context lies; tables on the way are made.
    pub(crate) fn context_pa(&mut self, device: DeviceId) -> Pa {
        let extended = self.unit.capabilities().msi_flat;
        let (bits, bytes) = if extended { ([6, 9, 9], 64) } else { ([7, 9, 8], 32) };
        let mut table = self.directory;
        for level in (1..usize::from(self.levels)).rev() {
            let below: u32 = bits[..level].iter().sum();
            let slot = table.offset(u64::from(device.0 >> below) % (1 << bits[level]) * 8);
            let entry = DirectoryEntry::from_bits(self.memory.read(slot));
            table = if entry.valid() {
                Pfn(entry.ppn()).pa()
            } else {
                let fresh = self.frames(1);
                self.memory.write(slot, DirectoryEntry::new().with_valid(true).with_ppn(fresh.pfn().0).into_bits());
                fresh
            };
        }
        table.offset(u64::from(device.0) % (1 << bits[0]) * bytes)
    }

    pub(crate) fn set_device(&mut self, device: DeviceId, dc: Dc) -> Pa {
        let pa = self.context_pa(device);
        let words = if self.unit.capabilities().msi_flat { 8 } else { 4 };
        for (n, word) in dc.words().into_iter().enumerate().take(words) {
            self.memory.write(pa.offset(8 * n as u64), word);
        }
        pa
    }

    pub(crate) fn first_stage(&mut self, levels: u8) -> Tables {
        Tables { root: self.frames(1), levels, is_second: false, guest: 0 }
    }

    pub(crate) fn second_stage(&mut self, levels: u8) -> Tables {
        Tables { root: self.frames(4), levels, is_second: true, guest: 0 }
    }

    /// A first stage whose tables a guest sees at [`GUEST`], mapped there by `second` with 2 MiB pages.
    pub(crate) fn guest_stage(&mut self, levels: u8, second: Tables) -> Tables {
        for n in 0..16 {
            let pa = Pa(n << 21);
            self.map(second, Iova(GUEST + pa.0), leaf(pa), 21);
        }
        Tables { guest: GUEST, ..self.first_stage(levels) }
    }

    /// Writes a leaf of 2^`shift` bytes; returns where it lies.
    pub(crate) fn map(&mut self, tables: Tables, address: Iova, entry: PageTableEntry, shift: u32) -> Pa {
        let level = ((shift - 12) / 9 + 1) as u8;
        let slot = tables.slot(&mut self.memory, &mut self.next, address.0, level);
        self.memory.write(slot, entry.into_bits());
        slot
    }

    /// The device through a first stage alone, with one page at [`IOVA`]. Returns where its leaf lies.
    pub(crate) fn mapped_first(levels: u8) -> (Self, Tables, Pa) {
        let mut world = Self::new();
        let tables = world.first_stage(levels);
        world.set_device(DEVICE, Dc::bare().first(tables, PSCID));
        let slot = world.map(tables, IOVA, leaf(PAGE), 12);
        (world, tables, slot)
    }

    /// The same through a second stage alone.
    pub(crate) fn mapped_second(levels: u8) -> (Self, Tables, Pa) {
        let mut world = Self::new();
        let tables = world.second_stage(levels);
        world.set_device(DEVICE, Dc::bare().second(tables, GSCID));
        let slot = world.map(tables, IOVA, leaf(PAGE), 12);
        (world, tables, slot)
    }

    /// The same through both: [`IOVA`] to [`PAGE`] above [`GUEST`] to [`PAGE`]. Returns both sets of tables and where the
    /// first-stage leaf lies.
    pub(crate) fn mapped_nested(levels: u8) -> (Self, Tables, Tables, Pa) {
        let mut world = Self::new();
        let second = world.second_stage(levels);
        let first = world.guest_stage(levels, second);
        world.set_device(DEVICE, Dc::bare().first(first, PSCID).second(second, GSCID));
        let slot = world.map(first, IOVA, leaf(Pa(GUEST + PAGE.0)), 12);
        (world, first, second, slot)
    }

    pub(crate) fn begin(&mut self, transaction: Transaction) -> WalkId {
        self.unit.begin(transaction).expect("a walker is free")
    }

    /// Drives a walk to its end.
    pub(crate) fn drive(&mut self, walk: WalkId, d: &mut dyn Decisions) -> Ended {
        let (mut fetched, mut updated, mut answer) = (Vec::new(), Vec::new(), None);
        for _ in 0..1000 {
            match self.unit.advance(walk, answer.take(), d) {
                Progress::Fetch { pa, bytes, kind, .. } => {
                    fetched.push(kind);
                    answer = Some(self.memory.fetch(pa, bytes));
                }
                Progress::Update { pa, old, new, .. } => {
                    let found = self.memory.compare_exchange(pa, old, new);
                    updated.push(pa);
                    answer = Some(found);
                }
                Progress::Lookup { .. } => {}
                progress => return Ended { progress, fetched, updated },
            }
        }
        panic!("a walk without end");
    }

    pub(crate) fn send_with(&mut self, transaction: Transaction, d: &mut dyn Decisions) -> Ended {
        let walk = self.begin(transaction);
        self.drive(walk, d)
    }

    pub(crate) fn send(&mut self, transaction: Transaction) -> Ended {
        self.send_with(transaction, &mut Plain)
    }

    pub(crate) fn read(&mut self, iova: Iova) -> Ended {
        self.send(Transaction::new(DEVICE, iova, Access::Read))
    }

    pub(crate) fn write_to(&mut self, iova: Iova) -> Ended {
        self.send(Transaction::new(DEVICE, iova, Access::Write))
    }

    /// Where an address goes, by a read.
    pub(crate) fn where_is(&mut self, iova: Iova) -> Pa {
        self.read(iova).translation().pa
    }

    /// Queues commands without running them.
    pub(crate) fn submit(&mut self, commands: &[u128]) {
        for bits in commands {
            self.memory.write_wide(COMMANDS.pa().offset(self.tail * 16), *bits);
            self.tail = (self.tail + 1) % 256;
        }
        self.write(Register::Cqt, self.tail);
    }

    /// Runs the command queue until it has nothing to do; returns what it said.
    pub(crate) fn run_with(&mut self, d: &mut dyn Decisions) -> Vec<CommandProgress> {
        let mut said = Vec::new();
        let mut input = CommandInput::Continue;
        for _ in 0..10_000 {
            let progress = self.unit.command_queue_advance(input, d);
            said.push(progress);
            input = match progress {
                CommandProgress::Idle | CommandProgress::Stopped(_) | CommandProgress::AwaitDevices { .. } => return said,
                CommandProgress::Fetch { pa, .. } => CommandInput::Command([self.memory.read(pa), self.memory.read(pa.offset(8))]),
                CommandProgress::Drain { .. } => CommandInput::Drained,
                CommandProgress::Write { pa, data, .. } => {
                    let word = Pa(pa.0 & !7);
                    let shift = 8 * (pa.0 & 4);
                    let kept = self.memory.read(word) & !(0xffff_ffff << shift);
                    self.memory.write(word, kept | u64::from(data) << shift);
                    CommandInput::Written
                }
                _ => CommandInput::Continue,
            };
        }
        panic!("a queue without end");
    }

    pub(crate) fn run(&mut self) -> Vec<CommandProgress> {
        self.run_with(&mut Plain)
    }

    pub(crate) fn command(&mut self, bits: u128) -> Vec<CommandProgress> {
        self.submit(&[bits]);
        self.run()
    }

    /// Entries that one command removed.
    pub(crate) fn dropped_by(&mut self, bits: u128) -> u32 {
        let said = self.command(bits);
        let removed = said.iter().find_map(|progress| match progress {
            CommandProgress::Invalidated { what, .. } => Some(what.entries_dropped),
            _ => None,
        });
        removed.unwrap_or_else(|| panic!("not carried out: {said:?}"))
    }

    /// Lets the fault queue write, and reads what is new in it.
    pub(crate) fn faults(&mut self) -> Vec<Record> {
        let mut input = RecordInput::Continue;
        loop {
            match self.unit.fault_queue_advance(input) {
                RecordProgress::Idle => break,
                RecordProgress::Write { pa, words, bytes, .. } => {
                    for (n, word) in words.into_iter().enumerate().take(usize::from(bytes / 8)) {
                        self.memory.write(pa.offset(8 * n as u64), word);
                    }
                    input = RecordInput::Written;
                }
                RecordProgress::Done { .. } => input = RecordInput::Continue,
            }
        }
        let tail = self.unit.read_register(Register::Fqt);
        let mut records = Vec::new();
        while self.read != tail {
            let at = FAULTS.pa().offset(self.read * 32);
            let word = |n: u64| self.memory.read(at.offset(8 * n));
            records.push(Record { head: FaultRecord::from_bits(word(0)), iotval: word(2), iotval2: word(3) });
            self.read = (self.read + 1) % 32;
        }
        self.write(Register::Fqh, self.read);
        records
    }

    pub(crate) fn fault(&mut self) -> Record {
        let faults = self.faults();
        assert_eq!(faults.len(), 1, "{faults:?}");
        faults[0]
    }
}
