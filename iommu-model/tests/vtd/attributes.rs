//! Privileged and execute requests, the extended accessed bit, abort mode, and fetches that can be torn.

use super::support::bench::{DEVICE, DOMAIN, Ended, IOVA, OTHER_PAGE, PAGE};
use super::support::scalable::{capabilities, first, low, second};
use super::support::tables::context;
use super::support::{Bench, Scripted, World};
use iommu_model::spec::vtd::first_stage::FirstStageEntry;
use iommu_model::spec::vtd::pasid::{PGTT_FIRST, PasidEntryFirstStage};
use iommu_model::spec::vtd::root::{RootTableAddress, TTM_ABORT};
use iommu_model::spec::vtd::second_stage::SecondStageEntry;
use iommu_model::{
    Access, Attributes, Capabilities, FetchKind, Geometry, Pa, Params, Pasid, Progress, Question, Request, Scalable, Unit, WalkId,
};

const PASID: Pasid = Pasid(3);

fn begin(unit: &mut Unit, access: Access, privileged: bool, execute: bool) -> WalkId {
    let request = Request { source: DEVICE, iova: IOVA, access, pasid: Some(PASID) };
    unit.begin_as(request, Attributes { privileged, execute, ..Attributes::PLAIN }).expect("a walker is free")
}

fn send(world: &mut World, privileged: bool, execute: bool) -> Ended {
    let walk = begin(&mut world.bench.unit, Access::Read, privileged, execute);
    world.bench.finish(walk)
}

/// One page through a first stage, with these flags in the PASID entry; and where the leaf lies.
fn first_stage(flags: impl Fn(PasidEntryFirstStage) -> PasidEntryFirstStage) -> (World, Pa) {
    let mut world = World::new();
    let tables = world.attach_first(PASID, DOMAIN);
    let slot = world.map_first(tables, IOVA, PAGE, 12);
    world.set_pasid(PASID, low(DOMAIN).with_translation_type(PGTT_FIRST), flags(first(tables.root)));
    (world, slot)
}

fn deny_execution(world: &mut World, slot: Pa) {
    let entry = FirstStageEntry::from_bits(world.bench.memory.read(slot)).with_execute_disable(true);
    world.bench.memory.write(slot, entry.into_bits());
}

#[test]
fn execute_requests_need_ere() {
    let (mut world, _) = first_stage(|entry| entry);
    assert_eq!(send(&mut world, false, true).fault().reason.code(), 0x5c);
    let record = world.bench.unit.fault_records()[0];
    assert!(record.execute() && !record.privileged());
    let (mut world, _) = first_stage(|entry| entry.with_execute_requests(true));
    assert_eq!(send(&mut world, false, true).translation().pa, PAGE);
}

#[test]
fn xd_denies_execution_only_with_nxe() {
    for nxe in [false, true] {
        let (mut world, slot) = first_stage(|entry| entry.with_execute_requests(true).with_no_execute(nxe));
        deny_execution(&mut world, slot);
        assert_eq!(send(&mut world, false, false).translation().pa, PAGE);
        // From the tables, and from the IOTLB that the read has filled.
        let end = send(&mut world, false, true);
        match nxe {
            true => assert_eq!(end.fault().reason.code(), 0x82, "the cached page sends it to the tables"),
            false => assert_eq!(end.translation().pa, PAGE),
        }
        let (mut world, slot) = first_stage(|entry| entry.with_execute_requests(true).with_no_execute(nxe));
        deny_execution(&mut world, slot);
        let end = send(&mut world, false, true);
        match nxe {
            true => assert_eq!(end.fault().reason.code(), 0x82),
            false => assert_eq!(end.translation().pa, PAGE),
        }
    }
}

#[test]
fn privileged_requests_need_sre_and_smep_keeps_them_from_user_pages() {
    let (mut world, _) = first_stage(|entry| entry);
    assert_eq!(send(&mut world, true, false).fault().reason.code(), 0x5d);
    assert!(world.bench.unit.fault_records()[0].privileged());
    for smep in [false, true] {
        let flags = |entry: PasidEntryFirstStage| entry.with_execute_requests(true).with_supervisor_requests(true);
        let (mut world, _) = first_stage(|entry| flags(entry).with_supervisor_no_execute(smep));
        assert_eq!(send(&mut world, true, false).translation().pa, PAGE);
        let end = send(&mut world, true, true);
        match smep {
            true => assert_eq!(end.fault().reason.code(), 0x82),
            false => assert_eq!(end.translation().pa, PAGE),
        }
    }
}

#[test]
fn the_second_stage_denies_execution_only_with_ssee() {
    for (ssee, x, granted) in [(false, false, true), (true, false, false), (true, true, true)] {
        let mut world = World::new();
        let tables = world.attach_second(PASID, DOMAIN);
        let slot = world.bench.tables.map(&mut world.bench.memory, tables, IOVA, PAGE, 12);
        world.set_pasid(PASID, second(DOMAIN, tables).with_second_stage_execute(ssee), PasidEntryFirstStage::new());
        let mut table = tables.root;
        for level in (1..=4u32).rev() {
            let pa = table.offset((IOVA.0 >> (12 + 9 * (level - 1))) % 512 * 8);
            let entry = SecondStageEntry::from_bits(world.bench.memory.read(pa)).with_execute(x);
            world.bench.memory.write(pa, entry.into_bits());
            table = Pa(entry.frame() << 12);
        }
        let end = send(&mut world, false, true);
        assert_eq!(matches!(end.progress, Progress::Done(_)), granted);
        assert_eq!(send(&mut world, false, false).translation().pa, PAGE, "reads are not touched by that");
        // Only X: present where X counts, and then readable for nobody.
        let entry = SecondStageEntry::from_bits(world.bench.memory.read(slot)).with_read(false).with_write(false);
        world.bench.memory.write(slot, entry.into_bits());
        world.bench.invalidate(&[super::support::commands::iotlb_global()]);
        let expected = if ssee && x { 0x86 } else { 0x79 };
        assert_eq!(send(&mut world, false, false).fault().reason.code(), expected);
    }
}

#[test]
fn a_unit_without_execute_requests_ignores_ere() {
    let scalable = Scalable { execute_requests: false, ..Scalable::default() };
    let cap = Capabilities { scalable: Some(scalable), ..capabilities() };
    let mut world = World::with(cap, Params::default());
    let tables = world.attach_first(PASID, DOMAIN);
    world.map_first(tables, IOVA, PAGE, 12);
    world.set_pasid(PASID, low(DOMAIN).with_translation_type(PGTT_FIRST), first(tables.root).with_execute_requests(true));
    assert_eq!(send(&mut world, false, true).fault().reason.code(), 0x5c);
}

#[test]
fn eafe_sets_the_extended_accessed_bit_in_every_entry_used() {
    for eafe in [false, true] {
        let (mut world, slot) = first_stage(|entry| entry.with_extended_accessed(eafe));
        let end = send(&mut world, false, false);
        assert_eq!(end.updated.len(), 4);
        for pa in end.updated {
            assert_eq!(FirstStageEntry::from_bits(world.bench.memory.read(pa)).extended_accessed(), eafe, "{pa}");
        }
        assert!(FirstStageEntry::from_bits(world.bench.memory.read(slot)).accessed());
    }
}

#[test]
fn abort_mode_lets_nothing_pass_and_tells_nobody() {
    for supported in [false, true] {
        let cap = Capabilities { abort_mode: supported, ..Default::default() };
        let (mut bench, _) = Bench::mapped_with(cap, Params::default());
        let root = RootTableAddress::new().with_mode(TTM_ABORT).with_table(bench.tables.root.pfn().0);
        bench.switch_root(Pa(root.into_bits()));
        let fault = bench.read(IOVA).fault();
        assert_eq!((fault.reason.code(), fault.recorded), (0x30, !supported));
    }
}

/// The context entry is replaced while a unit that fetches word by word is between its words.
fn torn(descending: bool) -> (Pa, Pa) {
    let params = Params { split_fetches: true, ..Params::default() };
    let mut bench = Bench::with(Capabilities::default(), params);
    let old = bench.tables.second_stage(4);
    let new = bench.tables.second_stage(3);
    let entry = bench.tables.attach(&mut bench.memory, DEVICE, DOMAIN, old);
    bench.tables.map(&mut bench.memory, old, IOVA, PAGE, 12);
    bench.tables.map(&mut bench.memory, new, IOVA, OTHER_PAGE, 12);
    let mut d = Scripted::new(|question| question == Question::FetchDescending, u32::from(descending));
    let walk = bench.begin(IOVA, Access::Read);
    let mut answer = None;
    let mut parts = Vec::new();
    let end = loop {
        match bench.unit.advance(walk, answer.take(), &mut d) {
            Progress::Fetch { pa, bytes, kind, .. } => {
                assert_eq!(bytes, 8, "every fetch is one word");
                answer = Some(bench.memory.fetch(pa, bytes));
                if kind == FetchKind::Context {
                    parts.push(pa);
                    if parts.len() == 1 {
                        bench.memory.write_wide(entry, context(DOMAIN, new).into_bits());
                    }
                }
                if let FetchKind::Table { .. } = kind {
                    break pa;
                }
            }
            Progress::Lookup { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(parts.len(), 2);
    assert_eq!(d.asked, 2, "root and context entry");
    bench.unit.cancel(walk);
    (parts[0], end)
}

#[test]
fn a_split_fetch_can_see_half_of_a_replaced_entry() {
    // Upwards: the old root pointer with the new width, so that three levels are walked from a top table of four.
    let (first_part, table) = torn(false);
    let (second_part, other_table) = torn(true);
    assert_eq!(second_part.0, first_part.0 + 8);
    assert_ne!(table.pfn(), other_table.pfn(), "each order mixes its own halves");
}

#[test]
fn a_split_walk_ends_like_a_whole_one() {
    let params = Params { split_fetches: true, ..Params::default() };
    for descending in [0, 1] {
        let (mut bench, slot) = Bench::mapped_with(Capabilities::default(), params.clone());
        let mut d = Scripted::new(|question| question == Question::FetchDescending, descending);
        let end = bench.translate_with(IOVA, Access::Read, &mut d);
        assert_eq!((end.translation().pa, end.translation().fetches), (PAGE, 8));
        assert_eq!(end.provenance.len(), 8);
        assert_eq!(end.provenance.last().expect("it has words").pa, slot);
        let off = Geometry { sets: 1, ways: 0 };
        let bare = Params { iotlb: off, psc: [off; 4], ..params.clone() };
        let mut world = World::with(capabilities(), bare);
        let tables = world.attach_nested(PASID, DOMAIN);
        world.map_first(tables, IOVA, Pa(0x5000), 12);
        let stage = tables.second.expect("it is nested");
        world.map_guest(stage, Pa(0x5000), PAGE);
        let end = world.translate_with(Some(PASID), IOVA, Access::Write, &mut d);
        assert_eq!(end.translation().pa, PAGE);
        assert_eq!(end.translation().fetches, 28 + 1 + 3 + 7, "one of 16 bytes, one of 32, one of 64");
    }
}
