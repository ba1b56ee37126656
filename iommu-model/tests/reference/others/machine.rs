//! A unit of the model in the same world: every run that any choices lead to.

use super::Odometer;
use super::world::{Ask, Command, Format, Memory, Op, Outcome, PAGES, Trace};
use crate::model::{every, lines_of};
use iommu_model::translator::Translator;
use iommu_model::{Access, Bdf, Decisions, Fetched, Iova, Progress, Request};
use std::collections::{BTreeMap, BTreeSet};

/// What an architecture's unit has of its own.
pub(crate) trait Machine: Translator + Clone {
    /// Switched on, with caches larger than this world.
    fn new(caches_missing: bool) -> Self;

    /// Carries out a command, and waits for it.
    fn invalidate(&mut self, command: Command, d: &mut dyn Decisions);

    /// Its state as text.
    fn text(&self) -> String;

    /// Entries in all caches.
    fn cached(&self) -> usize;

    /// Drops one of them.
    fn drop_one(&mut self, n: usize) -> bool;
}

fn ask(unit: &mut impl Machine, memory: &Memory, ask: Ask, d: &mut dyn Decisions) -> Outcome {
    let access = if ask.write { Access::Write } else { Access::Read };
    let request = Request { source: Bdf(0), iova: Iova(PAGES[ask.page]), access, pasid: None };
    let end = iommu_model::translator::translate(unit, request, d, |progress| match *progress {
        Progress::Fetch { pa, .. } => Fetched::Wide(core::array::from_fn(|n| memory.read(pa.0 + 8 * n as u64))),
        ref other => panic!("nothing here is to be updated: {other:?}"),
    });
    match end.expect("a walker is free") {
        Progress::Done(t) => {
            assert!(t.readable, "everything that is mapped here can be read");
            Outcome::Page { pa: t.pa.0, writable: t.writable }
        }
        Progress::Fault(fault) => Outcome::Fault(fault.reason.code(), fault.reason.amd().is_some_and(|event| event.flags.present())),
        other => panic!("{other:?}"),
    }
}

/// Every trace that any choices lead to: answers to the hardware's questions, and entries dropped before each request.
pub(crate) fn traces<M: Machine>(format: Format, caches_missing: bool, ops: &[Op]) -> BTreeSet<Trace> {
    let mut memory = Memory::new(format);
    let mut all: BTreeMap<(Vec<String>, Trace), M> = BTreeMap::from([((Vec::new(), Trace::new()), M::new(caches_missing))]);
    for op in ops {
        let mut next = BTreeMap::new();
        for ((_, trace), unit) in &all {
            match *op {
                Op::Edit(_) => {}
                Op::Invalidate(command) => {
                    for (end, ()) in every(unit, |unit, d: &mut Odometer| unit.invalidate(command, d)) {
                        next.insert((lines_of(&end.text()), trace.clone()), end);
                    }
                }
                Op::Ask(request) => {
                    let cached = unit.cached();
                    for dropped in 0u32..1 << cached {
                        let mut unit = unit.clone();
                        for n in (0..cached).rev().filter(|n| dropped & (1 << n) != 0) {
                            assert!(unit.drop_one(n));
                        }
                        for (end, outcome) in every(&unit, |unit, d| ask(unit, &memory, request, d)) {
                            next.insert((lines_of(&end.text()), [trace.as_slice(), &[outcome]].concat()), end);
                        }
                    }
                }
            }
        }
        match *op {
            Op::Edit(edit) => memory.edit(format, edit),
            _ => all = next,
        }
    }
    all.into_keys().map(|(_, trace)| trace).collect()
}
