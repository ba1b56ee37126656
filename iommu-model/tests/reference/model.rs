//! The model in the same world: one run with given choices, or every run that any choices lead to.

use super::world::{Ask, Command, Edit, Memory, Op, Outcome, PAGES, ROOT, SOURCES, Trace};
use iommu_model::spec::vtd::descriptor::{
    ContextDescriptor, GRANULARITY_DOMAIN, GRANULARITY_GLOBAL, GRANULARITY_NARROW, IotlbDescriptor, TYPE_CONTEXT, TYPE_DEVICE_TLB,
    TYPE_IOTLB,
};
use iommu_model::spec::vtd::device_tlb::DeviceTlbDescriptor;
use iommu_model::{
    Access, Attributes, Bdf, Capabilities, Decisions, DeviceTlb, Fetched, Geometry, Iova, Params, Plain, Progress, Question, QueueInput,
    QueueProgress, Register, Request, Unit,
};
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// A unit and the device TLB of function 0.
#[derive(Clone)]
pub(crate) struct Machine {
    unit: Unit,
    device: DeviceTlb,
}

/// Both larger than this world.
pub(crate) fn machine() -> Machine {
    Machine { unit: unit(), device: DeviceTlb::new(Geometry::fully_associative(8)) }
}

fn unit() -> Unit {
    let eight = Geometry::fully_associative(8);
    let params = Params { context: eight, iotlb: eight, psc: [eight; 4], ..Params::default() };
    let mut unit = Unit::new(Capabilities::default(), params);
    unit.write_register(Register::Rtaddr, ROOT, &mut Plain);
    unit.write_register(Register::Gcmd, 1 << 30 | 1 << 26, &mut Plain);
    unit.write_register(Register::Gcmd, 1 << 31 | 1 << 26, &mut Plain);
    unit.register_drained();
    unit
}

fn run(unit: &mut Unit, memory: &Memory, request: Request, attributes: Attributes, d: &mut dyn Decisions) -> Progress {
    let walk = unit.begin_as(request, attributes).expect("a walker is free");
    let mut answer = None;
    for _ in 0..64 {
        match unit.advance(walk, answer.take(), d) {
            Progress::Fetch { pa, .. } => answer = Some(Fetched::Words([memory.read(pa.0), memory.read(pa.0 + 8)])),
            Progress::Lookup { .. } => {}
            end => return end,
        }
    }
    panic!("a walk without end");
}

fn ask(machine: &mut Machine, memory: &Memory, ask: Ask, d: &mut dyn Decisions) -> Outcome {
    let access = if ask.write { Access::Write } else { Access::Read };
    let request = Request { source: Bdf(SOURCES[ask.source]), iova: Iova(PAGES[ask.page]), access, pasid: None };
    outcome_of(&run(&mut machine.unit, memory, request, Attributes::PLAIN, d))
}

/// What happens while a request is in flight.
#[derive(Clone, Copy)]
struct Race {
    ask: Ask,
    at: usize,
    edit: Edit,
    command: Option<Command>,
}

/// A request that software overtakes.
fn race(machine: &mut Machine, memory: &Memory, race: Race, d: &mut dyn Decisions) -> Outcome {
    let access = if race.ask.write { Access::Write } else { Access::Read };
    let request = Request { source: Bdf(SOURCES[race.ask.source]), iova: Iova(PAGES[race.ask.page]), access, pasid: None };
    let walk = machine.unit.begin_as(request, Attributes::PLAIN).expect("a walker is free");
    let (mut answer, mut memory, mut fetches, mut pending) = (None, memory.clone(), 0, true);
    let overtake = |machine: &mut Machine, memory: &mut Memory, d: &mut dyn Decisions| {
        memory.edit(race.edit);
        if let Some(command) = race.command {
            invalidate(machine, command, d);
        }
    };
    for _ in 0..64 {
        let progress = machine.unit.advance(walk, answer.take(), d);
        if let Progress::Fetch { pa, .. } = progress {
            if fetches == race.at {
                overtake(machine, &mut memory, d);
                pending = false;
            }
            fetches += 1;
            answer = Some(Fetched::Words([memory.read(pa.0), memory.read(pa.0 + 8)]));
        } else if progress.is_end() {
            if pending {
                overtake(machine, &mut memory, d);
            }
            return outcome_of(&progress);
        }
    }
    panic!("a walk without end");
}

fn outcome_of(progress: &Progress) -> Outcome {
    match progress {
        Progress::Done(t) => Outcome::Page { pa: t.pa.0, readable: t.readable, writable: t.writable },
        Progress::Fault(fault) => Outcome::Fault(fault.reason.code() as u8),
        other => panic!("{other:?}"),
    }
}

/// Function 0 accesses a page as a device with a device TLB does.
fn access(machine: &mut Machine, memory: &Memory, page: usize, write: bool, d: &mut dyn Decisions) -> Outcome {
    let access = if write { Access::Write } else { Access::Read };
    let request = Request { source: Bdf(SOURCES[0]), iova: Iova(PAGES[page]), access, pasid: None };
    if let Some(pa) = machine.device.look_up(None, request.iova, access) {
        let entry = machine.device.entries().find(|entry| {
            let inside = request.iova.0.checked_sub(entry.page.0).is_some_and(|offset| offset < entry.page_bytes);
            inside && entry.frame.0 | (request.iova.0 & (entry.page_bytes - 1)) == pa.0 && access.allowed_by(entry.readable, entry.writable)
        });
        let entry = entry.expect("it was looked up");
        return Outcome::Page { pa: pa.0, readable: entry.readable, writable: entry.writable };
    }
    let tag = machine.device.ask(None, request.iova).expect("a question is free");
    match run(&mut machine.unit, memory, request, Attributes::translation(false), d) {
        Progress::Done(t) => {
            machine.device.keep(tag, &t, &machine.unit.last_provenance(), d);
            if access.allowed_by(t.readable, t.writable) {
                Outcome::Page { pa: t.pa.0, readable: t.readable, writable: t.writable }
            } else {
                Outcome::Told
            }
        }
        Progress::Fault(fault) => {
            machine.device.forget(tag);
            Outcome::Fault(fault.reason.code() as u8)
        }
        other => panic!("{other:?}"),
    }
}

fn invalidate(machine: &mut Machine, command: Command, d: &mut dyn Decisions) {
    let Machine { unit, device } = machine;
    let device_tlb = DeviceTlbDescriptor::new().with_kind(TYPE_DEVICE_TLB).with_source(SOURCES[0]);
    let context = |granularity: u8| ContextDescriptor::new().with_kind(TYPE_CONTEXT).with_granularity(granularity);
    let iotlb = |granularity: u8| IotlbDescriptor::new().with_kind(TYPE_IOTLB).with_granularity(granularity);
    let bits = match command {
        Command::ContextGlobal => context(GRANULARITY_GLOBAL).into_bits(),
        Command::ContextDomain { domain } => context(GRANULARITY_DOMAIN).with_domain(domain as u16).into_bits(),
        Command::ContextDevice { source, domain } => {
            context(GRANULARITY_NARROW).with_source(SOURCES[source]).with_domain(domain as u16).into_bits()
        }
        Command::DeviceAll => device_tlb.with_sized(true).with_page(u64::MAX >> 13).into_bits(),
        Command::DevicePage { page } => device_tlb.with_page(page).into_bits(),
        Command::IotlbGlobal => iotlb(GRANULARITY_GLOBAL).into_bits(),
        Command::IotlbDomain { domain } => iotlb(GRANULARITY_DOMAIN).with_domain(domain as u16).into_bits(),
        Command::IotlbPages { domain, page, order, leaf_only } => {
            let pages = iotlb(GRANULARITY_NARROW).with_domain(domain as u16).with_page(page);
            pages.with_address_mask(order).with_leaf_only(leaf_only).into_bits()
        }
    };
    let tail = (unit.read_register(Register::Iqt) + 16) % 4096;
    unit.write_register(Register::Iqt, tail, d);
    let mut input = QueueInput::Continue;
    loop {
        input = match unit.queue_advance(input, d) {
            QueueProgress::Idle => return,
            QueueProgress::FetchDescriptor { .. } => QueueInput::Descriptor([bits as u64, (bits >> 64) as u64]),
            QueueProgress::Invalidated { .. } => QueueInput::Continue,
            QueueProgress::InvalidateDevice { request, .. } => {
                device.invalidate(&request);
                assert_eq!(unit.device_completes(request.source, 1 << request.itag).completed, 1);
                QueueInput::Continue
            }
            other => panic!("{other:?}"),
        };
    }
}

/// One list of answers after the other, until there is no other one.
#[derive(Default)]
pub(crate) struct Odometer {
    answers: Vec<(u32, u32)>,
    next: usize,
}

impl Odometer {
    /// Goes on to the next list; whether there is one.
    fn turn(&mut self) -> bool {
        self.next = 0;
        while let Some((answer, options)) = self.answers.pop() {
            if answer + 1 < options {
                self.answers.push((answer + 1, options));
                return true;
            }
        }
        false
    }
}

impl Decisions for Odometer {
    fn decide(&mut self, question: Question) -> u32 {
        if self.next == self.answers.len() {
            self.answers.push((0, question.options()));
        }
        self.next += 1;
        self.answers[self.next - 1].0
    }
}

/// Every state that any answers lead to.
pub(crate) fn every<M: Clone, T>(machine: &M, mut act: impl FnMut(&mut M, &mut Odometer) -> T) -> Vec<(M, T)> {
    let mut all = Vec::new();
    let mut odometer = Odometer::default();
    loop {
        let mut copy = machine.clone();
        let outcome = act(&mut copy, &mut odometer);
        all.push((copy, outcome));
        if !odometer.turn() {
            return all;
        }
    }
}

/// What a unit's caches hold, line by line.
pub(crate) fn held_by(unit: &Unit) -> Vec<String> {
    lines_of(&unit.snapshot().to_string())
}

/// The lines of a unit's text that are not about registers.
pub(crate) fn lines_of(text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text.lines().filter(|line| line.starts_with(|c: char| c.is_lowercase())).map(str::to_owned).collect();
    lines.sort();
    lines
}

/// The same with the device TLB, as a key.
fn held(machine: &Machine) -> String {
    let mut lines = held_by(&machine.unit);
    let kept = machine.device.entries().map(|e| format!("kept {}+{:#x} {} {} {}", e.page, e.page_bytes, e.frame, e.readable, e.writable));
    lines.extend(kept);
    lines.sort();
    lines.join("\n")
}

/// Every trace that any choices lead to: answers to the hardware's questions, and entries dropped before each request.
pub(crate) fn traces(ops: &[Op]) -> BTreeSet<Trace> {
    let mut memory = Memory::new();
    let mut all: BTreeMap<(String, Trace), Machine> = BTreeMap::from([((String::new(), Trace::new()), machine())]);
    for op in ops {
        let mut next = BTreeMap::new();
        match *op {
            Op::Edit(edit) => {
                memory.edit(edit);
                continue;
            }
            Op::Invalidate(command) => {
                for ((_, trace), machine) in &all {
                    for (end, ()) in every(machine, |machine, d| invalidate(machine, command, d)) {
                        next.insert((held(&end), trace.clone()), end);
                    }
                }
            }
            Op::Ask(_) | Op::Device { .. } | Op::Race { .. } => {
                for ((_, trace), machine) in &all {
                    let cached = machine.unit.caches().len();
                    for dropped in 0u32..1 << (cached + machine.device.entries().count()) {
                        let mut machine = machine.clone();
                        let chosen = (0..32).rev().filter(|n| dropped & (1 << n) != 0);
                        for n in chosen {
                            assert!(if n < cached { machine.unit.drop_cached(n) } else { machine.device.drop_kept(n - cached) });
                        }
                        for (end, outcome) in every(&machine, |machine, d| one(machine, &memory, op, d)) {
                            let outcome = outcome.expect("a request ends");
                            next.insert((held(&end), [trace.as_slice(), &[outcome]].concat()), end);
                        }
                    }
                }
            }
        }
        if let Op::Race { edit, .. } = *op {
            memory.edit(edit);
        }
        all = next;
    }
    all.into_keys().map(|(_, trace)| trace).collect()
}

/// One request of either kind.
fn one(machine: &mut Machine, memory: &Memory, op: &Op, d: &mut dyn Decisions) -> Option<Outcome> {
    match *op {
        Op::Ask(request) => Some(ask(machine, memory, request, d)),
        Op::Device { page, write } => Some(access(machine, memory, page, write, d)),
        Op::Race { ask, at, edit, command } => Some(race(machine, memory, Race { ask, at, edit, command }, d)),
        Op::Edit(_) | Op::Invalidate(_) => None,
    }
}

/// The trace of one run: `d` answers, and before each request may drop one entry by its `drop`.
pub(crate) fn trace(ops: &[Op], drops: &[usize], d: &mut dyn Decisions) -> Trace {
    let mut memory = Memory::new();
    let mut machine = machine();
    let mut trace = Trace::new();
    let mut drops = drops.iter().copied().cycle();
    for op in ops {
        match *op {
            Op::Edit(edit) => memory.edit(edit),
            Op::Invalidate(command) => invalidate(&mut machine, command, d),
            Op::Ask(_) | Op::Device { .. } | Op::Race { .. } => {
                if let Some(n) = drops.next() {
                    let _ = machine.unit.drop_cached(n) || machine.device.drop_kept(n);
                }
                trace.extend(one(&mut machine, &memory, op, d));
                if let Op::Race { edit, .. } = *op {
                    memory.edit(edit);
                }
            }
        }
    }
    trace
}
