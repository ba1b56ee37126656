//! The model in the same world: every run that any choices lead to.

use super::world::{Ask, Command, Memory, Op, Outcome, PAGES, Pages, ROOT, Trace};
use crate::model::{every, held_by};
use iommu_model::spec::vtd::descriptor::{
    ContextDescriptor, GRANULARITY_DOMAIN, GRANULARITY_GLOBAL, GRANULARITY_NARROW, IotlbDescriptor, PASID_GRANULARITY_DOMAIN,
    PASID_GRANULARITY_GLOBAL, PASID_GRANULARITY_PASID, PasidCacheDescriptor, PasidIotlbDescriptor, TYPE_CONTEXT, TYPE_IOTLB,
    TYPE_PASID_CACHE, TYPE_PASID_IOTLB,
};
use iommu_model::{
    Access, Bdf, Capabilities, Decisions, Fetched, Geometry, Iova, Params, Pasid, Plain, Progress, QueueInput, QueueProgress, Register,
    Request, Scalable, Unit,
};
use std::collections::{BTreeMap, BTreeSet};

fn unit() -> Unit {
    let eight = Geometry::fully_associative(8);
    let params = Params { context: eight, pasid: eight, iotlb: eight, psc: [eight; 4], ..Params::default() };
    let cap = Capabilities { scalable: Some(Scalable::default()), ..Capabilities::default() };
    let mut unit = Unit::new(cap, params);
    // TTM 01; 32-byte descriptors.
    unit.write_register(Register::Rtaddr, ROOT | 1 << 10, &mut Plain);
    unit.write_register(Register::Iqa, 1 << 11, &mut Plain);
    unit.write_register(Register::Gcmd, 1 << 30 | 1 << 26, &mut Plain);
    unit.write_register(Register::Gcmd, 1 << 31 | 1 << 26, &mut Plain);
    unit.register_drained();
    unit
}

fn ask(unit: &mut Unit, memory: &Memory, ask: Ask, d: &mut dyn Decisions) -> Outcome {
    let access = if ask.write { Access::Write } else { Access::Read };
    let request = Request { source: Bdf(0), iova: Iova(PAGES[ask.page]), access, pasid: ask.pasid.map(|pasid| Pasid(pasid as u32)) };
    let walk = unit.begin(request).expect("a walker is free");
    let mut answer = None;
    for _ in 0..64 {
        match unit.advance(walk, answer.take(), d) {
            Progress::Fetch { pa, bytes, .. } => {
                let words: [u64; 8] = core::array::from_fn(|n| memory.read(pa.0 + 8 * n as u64));
                answer = Some(if bytes <= 16 { Fetched::Words([words[0], words[1]]) } else { Fetched::Wide(words) });
            }
            Progress::Lookup { .. } => {}
            Progress::Done(t) => {
                assert!(t.readable, "everything that is mapped here can be read");
                return Outcome::Page { pa: t.pa.0, writable: t.writable };
            }
            Progress::Fault(fault) => return Outcome::Fault(fault.reason.code() as u8),
            other => panic!("{other:?}"),
        }
    }
    panic!("a walk without end");
}

fn descriptor(command: Command) -> u128 {
    let context = |granularity| ContextDescriptor::new().with_kind(TYPE_CONTEXT).with_granularity(granularity).into_bits();
    let cache = |granularity, domain: u64, pasid: u64| {
        let descriptor = PasidCacheDescriptor::new().with_kind(TYPE_PASID_CACHE).with_granularity(granularity);
        descriptor.with_domain(domain as u16).with_pasid(pasid as u32).into_bits()
    };
    let iotlb =
        |granularity, domain: u64| IotlbDescriptor::new().with_kind(TYPE_IOTLB).with_granularity(granularity).with_domain(domain as u16);
    match command {
        Command::ContextGlobal => context(GRANULARITY_GLOBAL),
        Command::ContextDevice => context(GRANULARITY_NARROW),
        Command::PasidGlobal => cache(PASID_GRANULARITY_GLOBAL, 0, 0),
        Command::PasidDomain { domain } => cache(PASID_GRANULARITY_DOMAIN, domain, 0),
        Command::PasidOne { domain, pasid } => cache(PASID_GRANULARITY_PASID, domain, pasid),
        Command::IotlbGlobal => iotlb(GRANULARITY_GLOBAL, 0).into_bits(),
        Command::IotlbDomain { domain } => iotlb(GRANULARITY_DOMAIN, domain).into_bits(),
        Command::IotlbPages { domain, pages: Pages { page, order, leaf_only } } => {
            iotlb(GRANULARITY_NARROW, domain).with_page(page).with_address_mask(order).with_leaf_only(leaf_only).into_bits()
        }
        Command::PasidIotlb { domain, pasid, pages } => {
            let descriptor = PasidIotlbDescriptor::new().with_kind(TYPE_PASID_IOTLB).with_granularity(GRANULARITY_DOMAIN);
            let descriptor = descriptor.with_domain(domain as u16).with_pasid(pasid as u32);
            let Some(Pages { page, order, leaf_only }) = pages else { return descriptor.into_bits() };
            let descriptor = descriptor.with_granularity(GRANULARITY_NARROW).with_page(page);
            descriptor.with_address_mask(order).with_leaf_only(leaf_only).into_bits()
        }
    }
}

fn invalidate(unit: &mut Unit, command: Command, d: &mut dyn Decisions) {
    let tail = (unit.read_register(Register::Iqt) + 32) % 4096;
    unit.write_register(Register::Iqt, tail, d);
    let bits = descriptor(command);
    let mut input = QueueInput::Continue;
    loop {
        input = match unit.queue_advance(input, d) {
            QueueProgress::Idle => return,
            QueueProgress::FetchDescriptor { .. } => QueueInput::WideDescriptor([bits as u64, (bits >> 64) as u64, 0, 0]),
            QueueProgress::Invalidated { .. } => QueueInput::Continue,
            QueueProgress::Drain { .. } => QueueInput::Drained,
            other => panic!("{other:?}"),
        };
    }
}

/// Every trace that any choices lead to: answers to the hardware's questions, and entries dropped before each request.
pub(crate) fn traces(ops: &[Op]) -> BTreeSet<Trace> {
    let mut memory = Memory::new();
    let mut all: BTreeMap<(Vec<String>, Trace), Unit> = BTreeMap::from([((Vec::new(), Trace::new()), unit())]);
    for op in ops {
        let mut next = BTreeMap::new();
        for ((_, trace), unit) in &all {
            match *op {
                Op::Edit(_) => {}
                Op::Invalidate(command) => {
                    for (end, ()) in every(unit, |unit, d| invalidate(unit, command, d)) {
                        next.insert((held_by(&end), trace.clone()), end);
                    }
                }
                Op::Ask(request) => {
                    let cached = unit.caches().len();
                    for dropped in 0u32..1 << cached {
                        let mut unit = unit.clone();
                        for n in (0..cached).rev().filter(|n| dropped & (1 << n) != 0) {
                            assert!(unit.drop_cached(n));
                        }
                        for (end, outcome) in every(&unit, |unit, d| ask(unit, &memory, request, d)) {
                            next.insert((held_by(&end), [trace.as_slice(), &[outcome]].concat()), end);
                        }
                    }
                }
            }
        }
        match *op {
            Op::Edit(edit) => memory.edit(edit),
            _ => all = next,
        }
    }
    all.into_keys().map(|(_, trace)| trace).collect()
}
