//! A unit with memory around it, and the calls that tests make in sentences.

use super::memory::Memory;
use super::tables::{context_0, context_table, page_1, page_2, pointer, shift_of, stream_1, stream_2, stream_nested};
use iommu_model::smmu::{
    Asid, Capabilities, CommandInput, CommandProgress, EventInput, EventProgress, Params, Register, StreamId, Unit, Vmid,
};
use iommu_model::spec::smmu::event::{EventId, Termination};
use iommu_model::spec::smmu::register::{Control0, QueueBase, QueueIndex, StreamTableBase, StreamTableConfig};
use iommu_model::{
    Access, Bdf, Decisions, FaultInfo, FetchKind, Iova, Pa, Pasid, Plain, Progress, Provenance, Question, Request, Translation, WalkId,
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
    /// Where descriptors were updated.
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

    pub(crate) fn fault(&self) -> FaultInfo {
        match &self.progress {
            Progress::Fault(fault) => *fault,
            other => panic!("no fault: {other:?}"),
        }
    }

    pub(crate) fn why(&self) -> Termination {
        self.fault().reason.smmu().expect("it is of this architecture")
    }

    pub(crate) fn event(&self) -> EventId {
        self.why().event
    }
}

pub(crate) const DEVICE: Bdf = Bdf::new(0, 4, 0);
pub(crate) const STREAM: StreamId = StreamId(DEVICE.0 as u32);
pub(crate) const VMID: Vmid = Vmid(7);
pub(crate) const ASID: Asid = Asid(5);
pub(crate) const IOVA: Iova = Iova(0x12_3456_7000);
pub(crate) const PAGE: Pa = Pa(0x7_7000);
pub(crate) const OTHER_PAGE: Pa = Pa(0x8_8000);
const STREAM_TABLE: Pa = Pa(0x100_0000);
const COMMANDS: Pa = Pa(0x200_0000);
const EVENTS: Pa = Pa(0x210_0000);
const FRAMES: u64 = 0x300_0000;
/// log2 of the entries of both queues.
const QUEUE_BITS: u8 = 4;
/// What IPAs of a nested stream's tables and pages are above their physical addresses.
pub(crate) const GUEST: u64 = 0x10_0000_0000;

/// One set of tables that a test builds.
#[derive(Clone, Copy)]
pub(crate) struct Stage {
    pub(crate) root: Pa,
    pub(crate) granule: u32,
    pub(crate) start: u8,
}

/// The bench.
#[derive(Clone)]
pub(crate) struct Bench {
    pub(crate) unit: Unit,
    pub(crate) memory: Memory,
    next: u64,
    producer: u32,
    consumer: u32,
}

impl Bench {
    /// Queues on, translation on, a linear stream table of 256 streams, nothing attached.
    pub(crate) fn with(cap: Capabilities, params: Params) -> Self {
        let mut unit = Unit::new(cap, params);
        unit.write_register(Register::StrtabBase, StreamTableBase::new().with_address(STREAM_TABLE.0 >> 6).into_bits());
        unit.write_register(Register::StrtabBaseCfg, StreamTableConfig::new().with_size(8).into_bits().into());
        let queue = |base: Pa| QueueBase::new().with_size(QUEUE_BITS).with_address(base.0 >> 5).into_bits();
        unit.write_register(Register::CmdqBase, queue(COMMANDS));
        unit.write_register(Register::EventqBase, queue(EVENTS));
        unit.write_register(Register::Cr2, 2);
        let mut bench = Self { unit, memory: Memory::default(), next: FRAMES, producer: 0, consumer: 0 };
        bench.control(Control0::new().with_enable(true).with_event_queue(true).with_command_queue(true));
        bench
    }

    pub(crate) fn new() -> Self {
        Self::with(Capabilities::default(), Params::default())
    }

    pub(crate) fn control(&mut self, value: Control0) {
        self.unit.write_register(Register::Cr0, value.into_bits().into());
        self.unit.register_drained();
        assert_eq!(self.unit.read_register(Register::Cr0Ack), value.into_bits().into());
    }

    /// A fresh run of `frames` frames, aligned to its size.
    pub(crate) fn frames(&mut self, frames: u64) -> Pa {
        let bytes = (frames << 12).next_power_of_two();
        self.next = self.next.next_multiple_of(bytes);
        self.next += bytes;
        Pa(self.next - bytes)
    }

    pub(crate) fn stream_pa(stream: StreamId) -> Pa {
        STREAM_TABLE.offset(u64::from(stream.0) * 64)
    }

    pub(crate) fn set_words(&mut self, pa: Pa, words: &[u64]) {
        for (n, &word) in words.iter().enumerate() {
            self.memory.write(pa.offset(n as u64 * 8), word);
        }
    }

    pub(crate) fn set_stream(&mut self, stream: StreamId, words: [u64; 4]) {
        self.set_words(Self::stream_pa(stream), &words);
    }

    /// Empty tables.
    pub(crate) fn stage(&mut self, granule: u32, start: u8) -> Stage {
        let root = self.frames(1 << (granule - 12));
        Stage { root, granule, start }
    }

    /// Writes a leaf for `address` at `level`, with tables on the way; returns where it lies. Table addresses in descriptors
    /// are `above` what they are in memory.
    pub(crate) fn map_above(&mut self, stage: Stage, address: u64, level: u8, leaf: u64, above: u64) -> Pa {
        let slot = |table: Pa, level: u8| {
            let index = (address >> shift_of(stage.granule, level)) & ((1 << (stage.granule - 3)) - 1);
            table.offset(index * 8)
        };
        let mut table = stage.root;
        for at in stage.start..level {
            let pa = slot(table, at);
            if self.memory.read(pa) & 1 == 0 {
                let next = self.frames(1 << (stage.granule - 12));
                self.memory.write(pa, pointer(next.offset(above)));
            }
            table = Pa((self.memory.read(pa) & 0xffff_ffff_f000) - above);
        }
        let pa = slot(table, level);
        self.memory.write(pa, leaf);
        pa
    }

    pub(crate) fn map(&mut self, stage: Stage, address: u64, level: u8, leaf: u64) -> Pa {
        self.map_above(stage, address, level, leaf, 0)
    }

    /// The device with stage 1: 4 KiB granule, 48 bits. Returns the CD and the tables.
    pub(crate) fn attach_1(&mut self) -> (Pa, Stage) {
        let (context, stage) = (self.frames(1), self.stage(12, 0));
        self.set_words(context, &[context_0(ASID, 48).into_bits(), context_table(stage.root).into_bits(), 0]);
        let mut words = stream_1(context);
        words[2] = u64::from(VMID.0);
        self.set_stream(STREAM, words);
        (context, stage)
    }

    /// Stage 1, and one page at [`IOVA`]. Returns where its leaf lies.
    pub(crate) fn mapped_1() -> (Self, Pa) {
        let mut bench = Self::new();
        let (_, stage) = bench.attach_1();
        let leaf = bench.map(stage, IOVA.0, 3, page_1(PAGE).into_bits());
        (bench, leaf)
    }

    /// The device with stage 2: 4 KiB granule, 39 bits.
    pub(crate) fn attach_2(&mut self) -> Stage {
        let stage = self.stage(12, 1);
        self.set_stream(STREAM, stream_2(VMID, stage.root));
        stage
    }

    /// Stage 2, and one page at [`IOVA`]. Returns where its leaf lies.
    pub(crate) fn mapped_2() -> (Self, Pa) {
        let mut bench = Self::new();
        let stage = bench.attach_2();
        let leaf = bench.map(stage, IOVA.0, 3, page_2(PAGE).into_bits());
        (bench, leaf)
    }

    /// The device with both stages. Every frame of the first gigabyte is at IPA [`GUEST`] above it, by one block.
    pub(crate) fn nested(cap: Capabilities, params: Params) -> (Self, Stage, Stage) {
        let mut bench = Self::with(cap, params);
        let (first, second) = (bench.stage(12, 0), bench.stage(12, 1));
        let context = bench.frames(1);
        let table = context_table(first.root.offset(GUEST));
        bench.set_words(context, &[context_0(ASID, 48).into_bits(), table.into_bits(), 0]);
        bench.set_stream(STREAM, stream_nested(context.offset(GUEST), VMID, second.root));
        bench.map(second, GUEST, 1, page_2(Pa(0)).with_page(false).into_bits());
        (bench, first, second)
    }

    /// Both stages, and one page at [`IOVA`] whose IPA has its own stage-2 page. Returns where both leaves lie.
    pub(crate) fn mapped_nested() -> (Self, Pa, Pa) {
        let (mut bench, first, second) = Self::nested(Capabilities::default(), Params::default());
        let leaf_1 = bench.map_above(first, IOVA.0, 3, page_1(GUEST_PAGE).into_bits(), GUEST);
        let leaf_2 = bench.map(second, GUEST_PAGE.0, 3, page_2(PAGE).into_bits());
        (bench, leaf_1, leaf_2)
    }

    pub(crate) fn begin(&mut self, iova: Iova, access: Access) -> WalkId {
        self.unit.begin(Request { source: DEVICE, iova, access, pasid: None }).expect("a walker is free")
    }

    /// Runs a walk to its end.
    pub(crate) fn finish_with(&mut self, walk: WalkId, d: &mut dyn Decisions) -> Ended {
        let (mut fetched, mut updated) = (Vec::new(), Vec::new());
        let mut answer = None;
        for _ in 0..256 {
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

    pub(crate) fn finish(&mut self, walk: WalkId) -> Ended {
        self.finish_with(walk, &mut Plain)
    }

    pub(crate) fn request_with(&mut self, request: Request, d: &mut dyn Decisions) -> Ended {
        let walk = self.unit.begin(request).expect("a walker is free");
        self.finish_with(walk, d)
    }

    pub(crate) fn read_with(&mut self, iova: Iova, d: &mut dyn Decisions) -> Ended {
        self.request_with(Request { source: DEVICE, iova, access: Access::Read, pasid: None }, d)
    }

    pub(crate) fn read(&mut self, iova: Iova) -> Ended {
        self.read_with(iova, &mut Plain)
    }

    pub(crate) fn write(&mut self, iova: Iova) -> Ended {
        self.request_with(Request { source: DEVICE, iova, access: Access::Write, pasid: None }, &mut Plain)
    }

    pub(crate) fn read_as(&mut self, pasid: Pasid, iova: Iova) -> Ended {
        self.request_with(Request { source: DEVICE, iova, access: Access::Read, pasid: Some(pasid) }, &mut Plain)
    }

    /// Runs a walk until it has asked for `kind`; the answer is left to the test.
    pub(crate) fn run_to_fetch(&mut self, walk: WalkId, kind: FetchKind) -> (Pa, u8) {
        let mut answer = None;
        for _ in 0..128 {
            match self.unit.advance(walk, answer.take(), &mut Plain) {
                Progress::Fetch { pa, bytes, kind: asked, .. } if asked == kind => return (pa, bytes),
                Progress::Fetch { pa, bytes, .. } => answer = Some(self.memory.fetch(pa, bytes)),
                Progress::Update { pa, old, new, .. } => answer = Some(self.memory.compare_exchange(pa, old, new)),
                other => assert!(!other.is_end(), "{kind:?} was never fetched: {other:?}"),
            }
        }
        panic!("{kind:?} was never fetched");
    }

    /// Puts commands into the queue and tells the unit.
    pub(crate) fn submit(&mut self, commands: &[u128]) {
        for &command in commands {
            let pa = COMMANDS.offset(u64::from(self.producer % (1 << QUEUE_BITS)) * 16);
            self.set_words(pa, &[command as u64, (command >> 64) as u64]);
            self.producer = (self.producer + 1) % (2 << QUEUE_BITS);
        }
        let effect = self.unit.write_register(Register::CmdqProd, self.producer.into());
        assert_eq!(effect.command_work, self.unit.commands_have_work());
    }

    /// One step of the command queue, memory answered.
    pub(crate) fn step_commands(&mut self, input: CommandInput, d: &mut dyn Decisions) -> CommandProgress {
        let progress = self.unit.command_advance(input, d);
        if let CommandProgress::Fetch { pa, .. } = progress {
            let words = [self.memory.read(pa), self.memory.read(pa.offset(8))];
            return self.unit.command_advance(CommandInput::Command(words), d);
        }
        progress
    }

    /// Runs the command queue until it is idle or stopped; nothing is in flight, so drains are over at once.
    pub(crate) fn run_commands_with(&mut self, d: &mut dyn Decisions) -> Vec<CommandProgress> {
        let mut all = Vec::new();
        let mut input = CommandInput::Continue;
        for _ in 0..4096 {
            let progress = self.step_commands(input, d);
            input = match progress {
                CommandProgress::Idle => return all,
                CommandProgress::Drain { .. } => CommandInput::Drained,
                CommandProgress::AwaitEvents => {
                    self.run_events();
                    CommandInput::Continue
                }
                CommandProgress::WriteMessage { pa, data, .. } => {
                    self.memory.write(Pa(pa.0 & !7), u64::from(data));
                    CommandInput::Written
                }
                _ => CommandInput::Continue,
            };
            all.push(progress);
            if let CommandProgress::Stopped { .. } | CommandProgress::AwaitDevices { .. } = progress {
                return all;
            }
        }
        panic!("a queue without end");
    }

    /// Submits commands and a CMD_SYNC, and runs them all.
    pub(crate) fn invalidate_with(&mut self, commands: &[u128], d: &mut dyn Decisions) -> Vec<CommandProgress> {
        self.submit(commands);
        self.submit(&[super::tables::commands::sync().into_bits()]);
        self.run_commands_with(d)
    }

    pub(crate) fn invalidate(&mut self, commands: &[u128]) -> Vec<CommandProgress> {
        self.invalidate_with(commands, &mut Plain)
    }

    /// Writes the committed event records; returns what happened.
    pub(crate) fn run_events(&mut self) -> Vec<EventProgress> {
        let mut all = Vec::new();
        let mut input = EventInput::Continue;
        loop {
            let progress = self.unit.event_advance(input);
            input = match progress {
                EventProgress::Idle => return all,
                EventProgress::Write { pa, record, .. } => {
                    self.set_words(pa, &record);
                    EventInput::Written
                }
                _ => EventInput::Continue,
            };
            all.push(progress);
        }
    }

    /// The records that software has not read yet; it has then.
    pub(crate) fn events(&mut self) -> Vec<[u64; 4]> {
        self.run_events();
        let producer = QueueIndex::from_bits(self.unit.read_register(Register::EventqProd) as u32).index();
        let mut records = Vec::new();
        while self.consumer != producer {
            let pa = EVENTS.offset(u64::from(self.consumer % (1 << QUEUE_BITS)) * 32);
            records.push([0, 8, 16, 24].map(|n| self.memory.read(pa.offset(n))));
            self.consumer = (self.consumer + 1) % (2 << QUEUE_BITS);
        }
        self.unit.write_register(Register::EventqCons, self.consumer.into());
        records
    }
}

/// The IPA that [`IOVA`] has in a nested stream.
pub(crate) const GUEST_PAGE: Pa = Pa(0x6000_0000);
