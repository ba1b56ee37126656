//! A unit with memory around it, and the calls that tests make in sentences.

use super::tables::{DEVICE_TABLE_SIZE, host_device};
use super::{Memory, Tables};
use iommu_model::amd::{Capabilities, CommandInput, CommandProgress, Event, EventInput, EventProgress, Register, Unit};
use iommu_model::spec::amd::control::{Control, Status};
use iommu_model::spec::amd::device_table::{DeviceEntryHigh, DeviceEntryLow};
use iommu_model::spec::amd::event::{EventCode, EventFlags, EventWord};
use iommu_model::spec::amd::register::{BufferBase, BufferPointer, DeviceTableBase};
use iommu_model::{
    Access, Bdf, Decisions, DomainId, FaultInfo, FetchKind, Iova, Pa, Params, Pasid, Pfn, Plain, Progress, Provenance, Question, Request,
    Translation, WalkId,
};

/// Answers one kind of question with a fixed number, all others with 0, and counts what it was asked.
pub(crate) struct Scripted<P: Fn(Question) -> bool> {
    pub(crate) which: P,
    pub(crate) answer: u32,
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
    pub(crate) provenance: Provenance,
}

impl Ended {
    pub(crate) fn translation(&self) -> &Translation {
        match &self.progress {
            Progress::Done(translation) => translation,
            other => panic!("not translated: {other:?}"),
        }
    }

    pub(crate) fn pa(&self) -> Pa {
        self.translation().pa
    }

    pub(crate) fn fault(&self) -> FaultInfo {
        match &self.progress {
            Progress::Fault(fault) => *fault,
            other => panic!("no fault: {other:?}"),
        }
    }

    pub(crate) fn event(&self) -> Event {
        self.fault().reason.amd().expect("an event of this architecture")
    }

    pub(crate) fn expect_event(&self, code: EventCode, flags: EventFlags) {
        assert_eq!(self.event(), Event { code, flags });
    }
}

pub(crate) const DEVICE: Bdf = Bdf::new(0x3b, 0, 0);
pub(crate) const DOMAIN: DomainId = DomainId(5);
pub(crate) const IOVA: Iova = Iova(0x4020_3000);
pub(crate) const PAGE: Pa = Pa(0x7_7000);
pub(crate) const OTHER_PAGE: Pa = Pa(0x8_8000);
const COMMANDS: Pfn = Pfn(0x500);
const EVENTS: Pfn = Pfn(0x600);
const TABLES: Pfn = Pfn(0x1000);
/// Length code of both buffers: 256 entries.
const LENGTH: u8 = 8;

/// The bench.
#[derive(Clone)]
pub(crate) struct Bench {
    pub(crate) unit: Unit,
    pub(crate) memory: Memory,
    pub(crate) tables: Tables,
    tail: u16,
}

impl Bench {
    /// Device table set, buffers on, translation on, nothing attached.
    pub(crate) fn with(cap: Capabilities, params: Params) -> Self {
        let unit = Unit::new(cap, params);
        let mut bench = Self { unit, memory: Memory::default(), tables: Tables::new(TABLES), tail: 0 };
        let table = DeviceTableBase::new().with_frame(bench.tables.device_table.pfn().0).with_size(DEVICE_TABLE_SIZE);
        bench.write(Register::DeviceTableBase, table.into_bits());
        bench.write(Register::CommandBase, BufferBase::new().with_frame(COMMANDS.0).with_length(LENGTH).into_bits());
        bench.write(Register::EventBase, BufferBase::new().with_frame(EVENTS.0).with_length(LENGTH).into_bits());
        bench.control(|control| control.with_enable(true).with_command_buffer(true).with_event_log(true).with_guest_translation(true));
        bench
    }

    pub(crate) fn new() -> Self {
        Self::with(Capabilities::default(), Params::default())
    }

    /// One device, 4 levels, one 4 KiB page. Returns where the leaf entry lies.
    pub(crate) fn mapped() -> (Self, Pa) {
        Self::mapped_with(Capabilities::default(), Params::default())
    }

    pub(crate) fn mapped_with(cap: Capabilities, params: Params) -> (Self, Pa) {
        let mut bench = Self::with(cap, params);
        let leaf = bench.attach_and_map(4, IOVA, PAGE, 12);
        (bench, leaf)
    }

    /// Attaches the device to fresh host tables with one page; returns where the leaf entry lies.
    pub(crate) fn attach_and_map(&mut self, levels: u8, iova: Iova, page: Pa, shift: u32) -> Pa {
        let root = (self.tables.frame(), levels);
        self.attach(host_device(root, DOMAIN.0));
        self.tables.map_host(&mut self.memory, root, iova, page, shift)
    }

    pub(crate) fn attach(&mut self, low: DeviceEntryLow) {
        self.tables.set_device(&mut self.memory, DEVICE, low, DeviceEntryHigh::new());
    }

    /// Changes the device table entry.
    pub(crate) fn change_device(&mut self, change: impl Fn(DeviceEntryLow) -> DeviceEntryLow) {
        self.memory.write_wide(self.device_pa(), change(self.device_entry()).into_bits());
    }

    pub(crate) fn device_pa(&self) -> Pa {
        self.tables.device_entry_pa(DEVICE)
    }

    pub(crate) fn device_entry(&self) -> DeviceEntryLow {
        let word = |n: u64| u128::from(self.memory.read(self.device_pa().offset(8 * n)));
        DeviceEntryLow::from_bits(word(0) | word(1) << 64)
    }

    /// Root and levels of the device's host tables.
    pub(crate) fn host_root(&self) -> (Pa, u8) {
        let entry = self.device_entry();
        (Pfn(entry.root()).pa(), entry.mode())
    }

    /// Where the host entry of a table of `level` lies that leads to the page.
    pub(crate) fn host_entry(&mut self, iova: Iova, level: u8) -> Pa {
        let root = self.host_root();
        self.tables.host_entry(&mut self.memory, root, iova, level)
    }

    pub(crate) fn write(&mut self, register: Register, value: u64) {
        self.unit.write_register(register, value);
    }

    pub(crate) fn control(&mut self, change: impl Fn(Control) -> Control) {
        let control = Control::from_bits(self.unit.read_register(Register::Control));
        self.write(Register::Control, change(control).into_bits());
    }

    pub(crate) fn status(&self) -> Status {
        Status::from_bits(self.unit.read_register(Register::Status))
    }

    pub(crate) fn request(iova: Iova, access: Access) -> Request {
        Request { source: DEVICE, iova, access, pasid: None }
    }

    pub(crate) fn begin(&mut self, iova: Iova, access: Access) -> WalkId {
        self.unit.begin(Self::request(iova, access)).expect("a walker is free")
    }

    /// Runs a walk to its end.
    pub(crate) fn finish_with(&mut self, walk: WalkId, d: &mut dyn Decisions) -> Ended {
        let (mut fetched, mut updated) = (Vec::new(), Vec::new());
        let mut answer = None;
        for _ in 0..512 {
            match self.unit.advance(walk, answer.take(), d) {
                Progress::Fetch { pa, bytes, kind, .. } => {
                    fetched.push(kind);
                    answer = Some(self.memory.fetch(pa, bytes));
                }
                Progress::Update { pa, old, new, .. } => {
                    updated.push(pa);
                    answer = Some(self.memory.compare_exchange(pa, old, new));
                }
                Progress::Merged { .. } => panic!("nobody else runs the leader"),
                progress if progress.is_end() => return Ended { progress, fetched, updated, provenance: self.unit.last_provenance() },
                _ => {}
            }
        }
        panic!("a walk without end");
    }

    pub(crate) fn run_with(&mut self, request: Request, d: &mut dyn Decisions) -> Ended {
        let walk = self.unit.begin(request).expect("a walker is free");
        self.finish_with(walk, d)
    }

    pub(crate) fn run(&mut self, request: Request) -> Ended {
        self.run_with(request, &mut Plain)
    }

    pub(crate) fn finish(&mut self, walk: WalkId) -> Ended {
        self.finish_with(walk, &mut Plain)
    }

    pub(crate) fn read(&mut self, iova: Iova) -> Ended {
        self.run(Self::request(iova, Access::Read))
    }

    pub(crate) fn store(&mut self, iova: Iova) -> Ended {
        self.run(Self::request(iova, Access::Write))
    }

    pub(crate) fn access_pasid(&mut self, iova: Iova, access: Access, pasid: Pasid) -> Ended {
        self.run(Request { pasid: Some(pasid), ..Self::request(iova, access) })
    }

    /// Runs a walk until it has asked for `kind`; the answer is left to the test.
    pub(crate) fn run_to_fetch(&mut self, walk: WalkId, kind: FetchKind) -> (Pa, u8) {
        let mut answer = None;
        for _ in 0..128 {
            match self.unit.advance(walk, answer.take(), &mut Plain) {
                Progress::Fetch { pa, bytes, kind: asked, .. } if asked == kind => return (pa, bytes),
                Progress::Fetch { pa, bytes, .. } => answer = Some(self.memory.fetch(pa, bytes)),
                Progress::Update { pa, old, new, .. } => answer = Some(self.memory.compare_exchange(pa, old, new)),
                _ => {}
            }
        }
        panic!("{kind:?} was never fetched");
    }

    /// Puts commands into the buffer and tells the unit.
    pub(crate) fn submit(&mut self, commands: &[u128]) {
        for &command in commands {
            self.memory.write_wide(COMMANDS.pa().offset(u64::from(self.tail) * 16), command);
            self.tail = (self.tail + 1) % 256;
        }
        self.write(Register::CommandTail, BufferPointer::new().with_index(self.tail).into_bits());
    }

    /// One step of the command buffer, memory answered.
    pub(crate) fn step_commands(&mut self, input: CommandInput, d: &mut dyn Decisions) -> CommandProgress {
        let progress = self.unit.command_advance(input, d);
        if let CommandProgress::Fetch { pa, .. } = progress {
            let answer = match self.memory.end {
                Some(end) if pa >= end => CommandInput::Unreadable,
                _ => CommandInput::Command([self.memory.read(pa), self.memory.read(pa.offset(8))]),
            };
            return self.unit.command_advance(answer, d);
        }
        progress
    }

    /// Runs the command buffer until it is idle or stopped; nothing is in flight, so drains are over at once.
    pub(crate) fn run_commands_with(&mut self, d: &mut dyn Decisions) -> Vec<CommandProgress> {
        let mut all = Vec::new();
        let mut input = CommandInput::Continue;
        for _ in 0..4096 {
            let progress = self.step_commands(input, d);
            input = match progress {
                CommandProgress::Idle => return all,
                CommandProgress::Drain { .. } => CommandInput::Drained,
                CommandProgress::Write { pa, data, .. } => {
                    self.memory.write(pa, data);
                    CommandInput::Written
                }
                _ => CommandInput::Continue,
            };
            all.push(progress);
            if let CommandProgress::Stopped(_) | CommandProgress::AwaitDevices { .. } = progress {
                return all;
            }
        }
        panic!("a command buffer without end");
    }

    /// Submits commands and runs them all.
    pub(crate) fn invalidate(&mut self, commands: &[u128]) -> Vec<CommandProgress> {
        self.submit(commands);
        self.run_commands_with(&mut Plain)
    }

    /// Runs the event log until it is idle. Returns the events that were stored, and messages that went out.
    pub(crate) fn run_events(&mut self) -> Vec<(EventWord, u64)> {
        let mut stored = Vec::new();
        let mut input = EventInput::Continue;
        for _ in 0..4096 {
            input = match self.unit.event_log_advance(input) {
                EventProgress::Idle => return stored,
                EventProgress::Write { pa, words, .. } => {
                    self.memory.write(pa, words[0]);
                    self.memory.write(pa.offset(8), words[1]);
                    stored.push((EventWord::from_bits(words[0]), words[1]));
                    EventInput::Written
                }
                EventProgress::Done { .. } => EventInput::Continue,
            };
        }
        panic!("an event log without end");
    }
}
