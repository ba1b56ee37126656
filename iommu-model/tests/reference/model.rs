//! The model in the same world: one run with given choices, or every run that any choices lead to.

use super::world::{Ask, Command, Memory, Op, Outcome, PAGES, ROOT, SOURCES, Trace};
use iommu_model::spec::vtd::descriptor::{
    ContextDescriptor, GRANULARITY_DOMAIN, GRANULARITY_GLOBAL, GRANULARITY_NARROW, IotlbDescriptor, TYPE_CONTEXT, TYPE_IOTLB,
};
use iommu_model::{
    Access, Bdf, Capabilities, Decisions, Fetched, Geometry, Iova, Params, Plain, Progress, Question, QueueInput, QueueProgress, Register,
    Request, Unit,
};
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// A unit whose caches are larger than this world.
pub(crate) fn unit() -> Unit {
    let eight = Geometry::fully_associative(8);
    let params = Params { context: eight, iotlb: eight, psc: [eight; 4], ..Params::default() };
    let mut unit = Unit::new(Capabilities::default(), params);
    unit.write_register(Register::Rtaddr, ROOT, &mut Plain);
    unit.write_register(Register::Gcmd, 1 << 30 | 1 << 26, &mut Plain);
    unit.write_register(Register::Gcmd, 1 << 31 | 1 << 26, &mut Plain);
    unit.register_drained();
    unit
}

pub(crate) fn ask(unit: &mut Unit, memory: &Memory, ask: Ask, d: &mut dyn Decisions) -> Outcome {
    let access = if ask.write { Access::Write } else { Access::Read };
    let request = Request { source: Bdf(SOURCES[ask.source]), iova: Iova(PAGES[ask.page]), access, pasid: None };
    let walk = unit.begin(request).expect("a walker is free");
    let mut answer = None;
    for _ in 0..64 {
        match unit.advance(walk, answer.take(), d) {
            Progress::Fetch { pa, .. } => answer = Some(Fetched::Words([memory.read(pa.0), memory.read(pa.0 + 8)])),
            Progress::Done(t) => return Outcome::Page { pa: t.pa.0, readable: t.readable, writable: t.writable },
            Progress::Fault(fault) => return Outcome::Fault(fault.reason.code() as u8),
            Progress::Lookup { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    panic!("a walk without end");
}

pub(crate) fn invalidate(unit: &mut Unit, command: Command, d: &mut dyn Decisions) {
    let context = |granularity: u8| ContextDescriptor::new().with_kind(TYPE_CONTEXT).with_granularity(granularity);
    let iotlb = |granularity: u8| IotlbDescriptor::new().with_kind(TYPE_IOTLB).with_granularity(granularity);
    let bits = match command {
        Command::ContextGlobal => context(GRANULARITY_GLOBAL).into_bits(),
        Command::ContextDomain { domain } => context(GRANULARITY_DOMAIN).with_domain(domain as u16).into_bits(),
        Command::ContextDevice { source, domain } => {
            context(GRANULARITY_NARROW).with_source(SOURCES[source]).with_domain(domain as u16).into_bits()
        }
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
            other => panic!("{other:?}"),
        };
    }
}

/// One list of answers after the other, until there is no other one.
#[derive(Default)]
struct Odometer {
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
fn every(unit: &Unit, mut act: impl FnMut(&mut Unit, &mut Odometer) -> Option<Outcome>) -> Vec<(Unit, Option<Outcome>)> {
    let mut all = Vec::new();
    let mut odometer = Odometer::default();
    loop {
        let mut copy = unit.clone();
        let outcome = act(&mut copy, &mut odometer);
        all.push((copy, outcome));
        if !odometer.turn() {
            return all;
        }
    }
}

/// What a unit's caches hold, as a key.
fn held(unit: &Unit) -> String {
    let text = unit.snapshot().to_string();
    text.lines().filter(|line| line.starts_with(|c: char| c.is_lowercase())).collect::<Vec<_>>().join("\n")
}

/// Every trace that any choices lead to: answers to the hardware's questions, and entries dropped before each request.
pub(crate) fn traces(ops: &[Op]) -> BTreeSet<Trace> {
    let mut memory = Memory::new();
    let mut all: BTreeMap<(String, Trace), Unit> = BTreeMap::from([((String::new(), Trace::new()), unit())]);
    for op in ops {
        let mut next = BTreeMap::new();
        match *op {
            Op::Edit(edit) => {
                memory.edit(edit);
                continue;
            }
            Op::Invalidate(command) => {
                for ((_, trace), unit) in &all {
                    for (end, _) in every(unit, |unit, d| {
                        invalidate(unit, command, d);
                        None
                    }) {
                        next.insert((held(&end), trace.clone()), end);
                    }
                }
            }
            Op::Ask(request) => {
                for ((_, trace), unit) in &all {
                    for dropped in 0u32..1 << unit.caches().len() {
                        let mut unit = unit.clone();
                        (0..32).rev().filter(|n| dropped & (1 << n) != 0).for_each(|n| assert!(unit.drop_cached(n)));
                        for (end, outcome) in every(&unit, |unit, d| Some(ask(unit, &memory, request, d))) {
                            let outcome = outcome.expect("a request ends");
                            next.insert((held(&end), [trace.as_slice(), &[outcome]].concat()), end);
                        }
                    }
                }
            }
        }
        all = next;
    }
    all.into_keys().map(|(_, trace)| trace).collect()
}

/// The trace of one run: `d` answers, and before each request may drop one entry by its `drop`.
pub(crate) fn trace(ops: &[Op], drops: &[usize], d: &mut dyn Decisions) -> Trace {
    let mut memory = Memory::new();
    let mut unit = unit();
    let mut trace = Trace::new();
    let mut drops = drops.iter().copied().cycle();
    for op in ops {
        match *op {
            Op::Edit(edit) => memory.edit(edit),
            Op::Invalidate(command) => invalidate(&mut unit, command, d),
            Op::Ask(request) => {
                if let Some(n) = drops.next() {
                    unit.drop_cached(n);
                }
                trace.push(ask(&mut unit, &memory, request, d));
            }
        }
    }
    trace
}
