//! A unit with memory around it, and the calls that tests make in sentences.

use super::{Memory, Tables};
use iommu_model::spec::vtd::register::{GlobalCommand, QueueAddress, QueueIndex};
use iommu_model::{
    Access, Bdf, Capabilities, Decisions, DomainId, FaultInfo, FetchKind, Iova, Pa, Params, Pfn, Plain, Progress, Provenance, Question,
    QueueInput, QueueProgress, Register, RegisterEffect, Request, Translation, Unit, WalkId,
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

    pub(crate) fn fault(&self) -> FaultInfo {
        match &self.progress {
            Progress::Fault(fault) => *fault,
            other => panic!("no fault: {other:?}"),
        }
    }
}

pub(crate) const DEVICE: Bdf = Bdf::new(0x3b, 0, 0);
pub(crate) const DOMAIN: DomainId = DomainId(5);
pub(crate) const IOVA: Iova = Iova(0x4020_3000);
pub(crate) const PAGE: Pa = Pa(0x7_7000);
pub(crate) const OTHER_PAGE: Pa = Pa(0x8_8000);
const QUEUE: Pfn = Pfn(0x500);
const TABLES: Pfn = Pfn(0x1000);

/// The bench.
#[derive(Clone)]
pub(crate) struct Bench {
    pub(crate) unit: Unit,
    pub(crate) memory: Memory,
    pub(crate) tables: Tables,
    tail: u16,
    /// Descriptors of 256 bits.
    wide_queue: bool,
}

impl Bench {
    /// Root table set, queue on, translation on, nothing attached.
    pub(crate) fn with(cap: Capabilities, params: Params) -> Self {
        let unit = Unit::new(cap, params);
        let wide_queue = cap.scalable.is_some();
        let mut bench = Self { unit, memory: Memory::default(), tables: Tables::new(TABLES), tail: 0, wide_queue };
        bench.switch_root(bench.tables.root);
        bench.write(Register::Iqa, QueueAddress::new().with_base(QUEUE.0).with_wide(wide_queue).into_bits());
        bench.command(|command| command.set_queue_enable(true));
        bench.enable(true);
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
        let leaf = bench.attach_and_map(4, 12);
        (bench, leaf)
    }

    /// Attaches the device to fresh tables with one page; returns where the leaf entry lies.
    pub(crate) fn attach_and_map(&mut self, levels: u8, shift: u32) -> Pa {
        let tables = self.tables.second_stage(levels);
        self.tables.attach(&mut self.memory, DEVICE, DOMAIN, tables);
        let iova = Iova(IOVA.0 & !((1 << shift) - 1));
        let page = if shift == 12 { PAGE } else { Pa(0) };
        self.tables.map(&mut self.memory, tables, iova, page, shift)
    }

    pub(crate) fn write(&mut self, register: Register, value: u64) -> RegisterEffect {
        self.unit.write_register(register, value, &mut Plain)
    }

    /// Changes the command register as software does: from the status, without one-shot bits.
    pub(crate) fn command(&mut self, change: impl Fn(&mut GlobalCommand)) -> RegisterEffect {
        self.command_with(change, &mut Plain)
    }

    pub(crate) fn command_with(&mut self, change: impl Fn(&mut GlobalCommand), d: &mut dyn Decisions) -> RegisterEffect {
        let mut command = self.status().with_set_root_table(false).with_set_interrupt_table(false);
        change(&mut command);
        self.unit.write_register(Register::Gcmd, u64::from(command.into_bits()), d)
    }

    pub(crate) fn status(&self) -> GlobalCommand {
        GlobalCommand::from_bits(self.unit.read_register(Register::Gsts) as u32)
    }

    pub(crate) fn switch_root(&mut self, root: Pa) -> RegisterEffect {
        self.write(Register::Rtaddr, root.0);
        self.command(|command| command.set_set_root_table(true))
    }

    pub(crate) fn enable(&mut self, on: bool) {
        self.command(|command| command.set_translation_enable(on));
        self.unit.register_drained();
        assert_eq!(self.status().translation_enable(), on);
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

    pub(crate) fn translate_with(&mut self, iova: Iova, access: Access, d: &mut dyn Decisions) -> Ended {
        let walk = self.begin(iova, access);
        self.finish_with(walk, d)
    }

    pub(crate) fn read(&mut self, iova: Iova) -> Ended {
        self.translate_with(iova, Access::Read, &mut Plain)
    }

    pub(crate) fn read_from(&mut self, source: Bdf, iova: Iova) -> Ended {
        let request = Request { source, iova, access: Access::Read, pasid: None };
        let walk = self.unit.begin(request).expect("a walker is free");
        self.finish(walk)
    }

    /// Runs a walk until it has asked for `kind`; the answer is left to the test.
    pub(crate) fn run_to_fetch(&mut self, walk: WalkId, kind: FetchKind) -> (Pa, u8) {
        let mut answer = None;
        for _ in 0..64 {
            match self.unit.advance(walk, answer.take(), &mut Plain) {
                Progress::Fetch { pa, bytes, kind: asked, .. } if asked == kind => return (pa, bytes),
                Progress::Fetch { pa, bytes, .. } => answer = Some(self.memory.fetch(pa, bytes)),
                Progress::Update { pa, old, new, .. } => answer = Some(self.memory.compare_exchange(pa, old, new)),
                _ => {}
            }
        }
        panic!("{kind:?} was never fetched");
    }

    /// Puts descriptors into the queue and tells the unit.
    pub(crate) fn submit(&mut self, descriptors: &[u128]) {
        for &descriptor in descriptors {
            let pa = QUEUE.pa().offset(u64::from(self.tail) * 16);
            self.memory.write_wide(pa, descriptor);
            if self.wide_queue {
                self.memory.write_wide(pa.offset(16), 0);
            }
            self.tail = (self.tail + 1 + u16::from(self.wide_queue)) % 256;
        }
        self.write(Register::Iqt, QueueIndex::new().with_index(self.tail).into_bits());
    }

    /// One step of the queue, memory answered.
    pub(crate) fn step_queue(&mut self, input: QueueInput, d: &mut dyn Decisions) -> QueueProgress {
        let progress = self.unit.queue_advance(input, d);
        if let QueueProgress::FetchDescriptor { pa, bytes, .. } = progress {
            let word = |n: u64| self.memory.read(pa.offset(n * 8));
            let answer = match bytes {
                16 => QueueInput::Descriptor([word(0), word(1)]),
                _ => QueueInput::WideDescriptor([word(0), word(1), word(2), word(3)]),
            };
            return self.unit.queue_advance(answer, d);
        }
        progress
    }

    /// Runs the queue until it is idle or stopped; nothing is in flight, so drains are over at once.
    pub(crate) fn run_queue_with(&mut self, d: &mut dyn Decisions) -> Vec<QueueProgress> {
        let mut all = Vec::new();
        let mut input = QueueInput::Continue;
        for _ in 0..4096 {
            let progress = self.step_queue(input, d);
            input = match progress {
                QueueProgress::Idle => return all,
                QueueProgress::Drain { .. } => QueueInput::Drained,
                QueueProgress::WriteStatus { pa, data, .. } => {
                    self.memory.write(Pa(pa.0 & !7), u64::from(data));
                    QueueInput::Written
                }
                _ => QueueInput::Continue,
            };
            all.push(progress);
            if let QueueProgress::Stopped(_) = progress {
                return all;
            }
        }
        panic!("a queue without end");
    }

    /// Submits descriptors and runs them all.
    pub(crate) fn invalidate(&mut self, descriptors: &[u128]) -> Vec<QueueProgress> {
        self.submit(descriptors);
        self.run_queue_with(&mut Plain)
    }
}
