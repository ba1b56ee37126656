//! Scalable mode: what is walked, each fault, A and D, caches and their invalidations, races.

use super::support::bench::{DEVICE, DOMAIN, IOVA, OTHER_PAGE, PAGE};
use super::support::scalable::{capabilities, commands, first, first_leaf, low, second};
use super::support::tables::{commands as legacy, leaf, pointer};
use super::support::{Scripted, World};
use iommu_model::spec::vtd::first_stage::FirstStageEntry;
use iommu_model::spec::vtd::pasid::{FSPM_5, PGTT_FIRST, PGTT_PASS_THROUGH, PasidDirectoryEntry, PasidEntryFirstStage, PasidEntryLow};
use iommu_model::spec::vtd::register::{FaultStatus, QueueAddress, QueueErrorRecord};
use iommu_model::spec::vtd::root::ScalableRootEntry;
use iommu_model::spec::vtd::second_stage::SecondStageEntry;
use iommu_model::{
    Access, Bdf, CacheHit, Capabilities, DomainId, Fault, FaultReason, FetchKind, Fetched, Geometry, IotlbEntry, Iova, Pa, Params, Pasid,
    Pfn, Plain, Progress, Question, QueueProgress, Register, SOURCES_NESTED_MAX, Scalable,
};

const RID: Option<Pasid> = None;
const ONE: Option<Pasid> = Some(Pasid(1));
const P0: Pasid = Pasid(0);
const P1: Pasid = Pasid(1);
const OUTER: [FetchKind; 4] = [FetchKind::Root, FetchKind::ScalableContext, FetchKind::PasidDirectory, FetchKind::PasidEntry];

/// PASID 0 through a second stage with one page.
fn with_second() -> (World, Pa) {
    let mut world = World::new();
    let tables = world.attach_second(P0, DOMAIN);
    let slot = world.bench.tables.map(&mut world.bench.memory, tables, IOVA, PAGE, 12);
    (world, slot)
}

/// PASID 1 through a first stage with one page.
fn with_first() -> (World, Pa) {
    let mut world = World::new();
    let tables = world.attach_first(P1, DOMAIN);
    let slot = world.map_first(tables, IOVA, PAGE, 12);
    (world, slot)
}

const GUEST_PAGE: Pa = Pa(0x44_4000);

/// PASID 1 nested, with one page; where the first-stage and the second-stage leaf lie.
fn with_nested(params: Params) -> (World, Pa, Pa) {
    let mut world = World::with(capabilities(), params);
    let tables = world.attach_nested(P1, DOMAIN);
    let slot = world.map_first(tables, IOVA, GUEST_PAGE, 12);
    let below = world.map_guest(tables.second.expect("it is nested"), GUEST_PAGE, PAGE);
    (world, slot, below)
}

fn no_caches() -> Params {
    let off = Geometry { sets: 1, ways: 0 };
    Params { context: off, pasid: off, iotlb: off, psc: [off; 4], ..Params::default() }
}

#[test]
fn a_cold_second_stage_request_takes_eight_fetches_in_order() {
    let (mut world, slot) = with_second();
    let ended = world.read(RID, IOVA.offset(8));
    let tables = [4, 3, 2, 1].map(|level| FetchKind::Table { level });
    assert_eq!(ended.fetched, [&OUTER[..], &tables[..]].concat());
    assert_eq!(ended.translation().pa, PAGE.offset(8));
    assert_eq!(ended.translation().domain, DOMAIN);
    assert_eq!(ended.provenance.last().map(|source| source.pa), Some(slot));
    let again = world.read(RID, IOVA);
    assert!(again.fetched.is_empty());
    assert_eq!(again.translation().from, CacheHit::Iotlb);
}

#[test]
fn a_cold_first_stage_request_takes_eight_fetches_in_order() {
    let (mut world, _) = with_first();
    let ended = world.read(ONE, IOVA.offset(8));
    let tables = [4, 3, 2, 1].map(|level| FetchKind::FirstStage { level });
    assert_eq!(ended.fetched, [&OUTER[..], &tables[..]].concat());
    assert_eq!(ended.translation().pa, PAGE.offset(8));
    assert!(world.read(ONE, IOVA).fetched.is_empty());
}

#[test]
fn a_nested_walk_without_caches_takes_twenty_eight_fetches() {
    let (mut world, ..) = with_nested(no_caches());
    let ended = world.read(ONE, IOVA.offset(8));
    assert_eq!(ended.fetched.len(), 4 + 4 * (4 + 1) + 4);
    assert_eq!(ended.translation().pa, PAGE.offset(8));
    assert_eq!(ended.translation().fetches, 28);
}

#[test]
fn the_caches_of_the_second_stage_shorten_a_nested_walk() {
    let (mut world, ..) = with_nested(Params::default());
    let cold = world.read(ONE, IOVA).fetched.len();
    assert!((10..28).contains(&cold), "{cold}: neighbouring tables share pointers");
    assert!(world.read(ONE, IOVA).fetched.is_empty());
    let all = world.bench.unit.caches().iotlb();
    let (combined, below): (Vec<&IotlbEntry>, Vec<&IotlbEntry>) = all.partition(|entry| entry.pasid.is_some());
    assert_eq!((combined.len(), below.len()), (1, 5), "four tables and the page by themselves");
    assert_eq!((combined[0].page, combined[0].frame), (IOVA, PAGE));
}

#[test]
fn a_nested_translation_names_every_word_it_came_from() {
    for params in [Params::default(), no_caches()] {
        let (mut world, ..) = with_nested(params);
        for _ in 0..2 {
            let ended = world.read(ONE, IOVA);
            assert_eq!(ended.provenance.len(), 8 + 4 * (4 + 1) + 4);
            assert!(ended.provenance.len() <= SOURCES_NESTED_MAX);
            for source in &ended.provenance {
                assert_eq!(world.bench.memory.read(source.pa), source.value, "{source:?}");
            }
        }
    }
}

#[test]
fn a_nested_page_is_the_smaller_one_of_both_stages() {
    let mut world = World::new();
    let tables = world.attach_nested(P1, DOMAIN);
    world.map_first(tables, IOVA, Pa(0x40_0000), 21);
    let stage = tables.second.expect("it is nested");
    world.map_guest(stage, Pa(0x40_3000), PAGE);
    let ended = world.read(ONE, IOVA);
    assert_eq!((ended.translation().page_bytes, ended.translation().pa), (4096, PAGE));
    assert_eq!(world.code(ONE, IOVA.offset(4096)), 0x79, "the rest of the large page is not mapped below");
}

#[test]
fn five_levels_large_pages_and_high_addresses_go_through_the_first_stage() {
    let mut world = World::new();
    let mut tables = world.attach_first(P1, DOMAIN);
    tables.levels = 5;
    world.set_pasid(P1, low(DOMAIN).with_translation_type(PGTT_FIRST), first(tables.root).with_paging_mode(FSPM_5));
    let high = Iova(0xff12_3456_4000_0000);
    world.map_first(tables, high, Pa(0x4000_0000), 30);
    world.map_first(tables, IOVA, Pa(0x20_0000), 21);
    assert_eq!(world.read(ONE, high.offset(0x123)).translation().pa, Pa(0x4000_0123));
    assert_eq!(world.read(ONE, high.offset(0x1123)).translation().pa, Pa(0x4000_1123), "from the IOTLB");
    assert_eq!(world.read(ONE, IOVA).translation().pa, Pa(0x20_3000));
}

#[test]
fn pass_through_needs_four_fetches_and_no_table() {
    let mut world = World::new();
    world.set_pasid(P0, low(DOMAIN).with_translation_type(PGTT_PASS_THROUGH), PasidEntryFirstStage::new());
    let ended = world.read(RID, IOVA);
    assert_eq!(ended.fetched, OUTER);
    assert!(ended.translation().pass_through);
    assert_eq!(ended.translation().pa, Pa(IOVA.0));
    assert_eq!(world.code(RID, Iova(1 << 53)), 0x83);
}

#[test]
fn a_request_without_pasid_uses_rid_pasid_or_zero() {
    for (counts, expected) in [(true, PAGE), (false, OTHER_PAGE)] {
        let scalable = Scalable { rid_pasid: counts, ..Scalable::default() };
        let mut world = World::with(Capabilities { scalable: Some(scalable), ..capabilities() }, Params::default());
        for (pasid, page) in [(Pasid(5), PAGE), (P0, OTHER_PAGE)] {
            let tables = world.attach_second(pasid, DomainId(pasid.0 as u16 + 1));
            world.bench.tables.map(&mut world.bench.memory, tables, IOVA, page, 12);
        }
        world.set_context(DEVICE, world.context().with_rid_pasid(5));
        assert_eq!(world.read(RID, IOVA).translation().pa, expected);
    }
}

#[test]
fn the_upper_half_of_the_root_entry_serves_devfn_128_and_above() {
    let (mut world, _) = with_second();
    let upper = Bdf::new(0x3b, 0x10, 0);
    assert_eq!(world.bench.read_from(upper, IOVA).fault().reason.code(), 0x39);
    let slot = world.bench.tables.root_entry_pa(DEVICE);
    let entry = ScalableRootEntry::new().with_upper_present(true).with_upper(world.context_table.pfn().0);
    world.bench.memory.write_wide(slot, entry.into_bits());
    assert_eq!(world.bench.read_from(upper, IOVA).translation().pa, PAGE, "devfn 128 is entry 0 of the upper table");
    world.bench.invalidate(&[legacy::context_global()]);
    assert_eq!(world.code(RID, IOVA), 0x39);
}

#[test]
fn each_defect_of_root_and_context_has_its_code() {
    let (mut world, _) = with_second();
    let slot = world.bench.tables.root_entry_pa(DEVICE);
    let good = ScalableRootEntry::new().with_lower_present(true).with_lower(world.context_table.pfn().0);
    for (entry, code) in [(ScalableRootEntry::new(), 0x39), (good.with_reserved_1(1), 0x3a)] {
        world.bench.memory.write_wide(slot, entry.into_bits());
        assert_eq!(world.code(RID, IOVA), code);
    }
    world.bench.memory.write_wide(slot, good.into_bits());
    let good = world.context();
    for (entry, code) in [(good.with_present(false), 0x41), (good.with_reserved_5(1), 0x42), (good.with_reserved_85(1), 0x42)] {
        world.set_context(DEVICE, entry);
        assert_eq!(world.code(RID, IOVA), code);
    }
    world.set_context(DEVICE, good);
    let high = world.context_table.offset(24);
    world.bench.memory.write(high, 1);
    assert_eq!(world.code(RID, IOVA), 0x42, "the upper half of the entry is reserved");
    world.bench.memory.write(high, 0);
    world.set_context(DEVICE, good.with_pasid_enable(false));
    assert_eq!(world.code(ONE, IOVA), 0x45);
    world.read(RID, IOVA).translation();
    assert_eq!(world.code(Some(Pasid(1 << 13)), IOVA), 0x45);
    world.set_context(DEVICE, good);
    world.bench.invalidate(&[legacy::context_global()]);
    assert_eq!(world.code(Some(Pasid(1 << 13)), IOVA), 0x46, "PDTS 0 makes 2^13 PASIDs");
    assert_eq!(world.code(Some(Pasid((1 << 13) - 1)), IOVA), 0x51);
}

#[test]
fn each_defect_of_directory_and_pasid_entry_has_its_code() {
    let (mut world, _) = with_first();
    let good = PasidDirectoryEntry::from_bits(world.bench.memory.read(world.directory));
    for (entry, code) in [(good.with_present(false), 0x51), (good.with_reserved(1), 0x52)] {
        world.bench.memory.write(world.directory, entry.into_bits());
        assert_eq!(world.code(ONE, IOVA), code);
    }
    world.bench.memory.write(world.directory, good.into_bits());
    let (good, stage) = (low(DOMAIN).with_translation_type(PGTT_FIRST), first(Pa(0x9000)));
    let cases = [
        (good.with_present(false), stage, 0x59),
        (good.with_reserved_10(1), stage, 0x5a),
        (good.with_reserved_80(1), stage, 0x5a),
        (good, stage.with_reserved_136(1), 0x5a),
        (good.with_translation_type(0), stage, 0x5b),
        (good.with_translation_type(7), stage, 0x5b),
        (good.with_translation_type(2), stage, 0x5b),
        (good, stage.with_paging_mode(2), 0x5b),
    ];
    for (entry, stage, code) in cases {
        world.set_pasid(P1, entry, stage);
        assert_eq!(world.code(ONE, IOVA), code, "{entry:?} {stage:?}");
    }
    world.set_pasid(P1, good, stage);
    let reserved = world.pasid_pa(P1).offset(56);
    world.bench.memory.write(reserved, 1);
    assert_eq!(world.code(ONE, IOVA), 0x5a);
}

#[test]
fn what_the_unit_does_not_support_makes_a_pasid_entry_invalid() {
    let scalable = Scalable { first_stage: false, nested: false, second_stage: false, ..Scalable::default() };
    let cap = Capabilities { scalable: Some(scalable), pass_through: false, ..capabilities() };
    let mut world = World::with(cap, Params::default());
    for kind in 1..=4 {
        world.set_pasid(P1, low(DOMAIN).with_translation_type(kind).with_address_width(2), first(Pa(0x9000)));
        assert_eq!(world.code(ONE, IOVA), 0x5b);
    }
}

#[test]
fn each_defect_of_a_first_stage_entry_has_its_code() {
    let (mut world, slot) = with_first();
    let good = first_leaf(PAGE, 12);
    let cases = [
        (good.with_present(false), Access::Read, 0x71),
        (good.with_user(false), Access::Read, 0x81),
        (good.with_write(false), Access::Write, 0x85),
        (first_leaf(Pa(0xfee0_0000), 12), Access::Read, 0x87),
    ];
    for (entry, access, code) in cases {
        world.bench.memory.write(slot, entry.into_bits());
        let fault = world.translate_with(ONE, IOVA, access, &mut Plain).fault();
        assert_eq!(fault.reason.code(), code, "{entry:?}");
    }
    assert_eq!(world.bench.unit.caches().iotlb().count(), 0);
    assert_eq!(world.code(ONE, Iova(1 << 47)), 0x80);
    let mut world = World::new();
    let tables = world.attach_first(P1, DOMAIN);
    for (shift, entry) in [(39, first_leaf(Pa(0), 39)), (21, first_leaf(Pa(0x2000), 21))] {
        let slot = world.map_first(tables, IOVA, Pa(0), shift);
        world.bench.memory.write(slot, entry.into_bits());
        assert_eq!(world.code(ONE, IOVA), 0x72);
        world.bench.memory.write(slot, 0);
    }
}

#[test]
fn each_defect_of_a_second_stage_entry_has_its_code() {
    let (mut world, slot) = with_second();
    let good = leaf(PAGE, 12);
    let cases = [
        (SecondStageEntry::new(), Access::Read, 0x79),
        (good.with_read(false), Access::Read, 0x86),
        (good.with_write(false), Access::Write, 0x85),
        (good.with_reserved_62(true), Access::Read, 0x7a),
        (leaf(Pa(0xfee0_0000), 12), Access::Read, 0x87),
    ];
    for (entry, access, code) in cases {
        world.bench.memory.write(slot, entry.into_bits());
        let fault = world.translate_with(RID, IOVA, access, &mut Plain).fault();
        assert_eq!(fault.reason.code(), code, "{entry:?}");
    }
    assert_eq!(world.code(RID, Iova(1 << 48)), 0x84);
}

#[test]
fn a_table_where_there_is_no_memory_has_its_code() {
    let first = [(4, 0x73), (3, 0x70), (1, 0x70)].map(|(level, code)| (FetchKind::FirstStage { level }, code));
    let outer = OUTER.into_iter().zip([0x38, 0x40, 0x50, 0x58]);
    for (kind, code) in outer.chain(first) {
        let (mut world, _) = with_first();
        let walk = world.begin(ONE, IOVA, Access::Read);
        world.bench.run_to_fetch(walk, kind);
        let end = world.bench.unit.advance(walk, Some(Fetched::NoMemory), &mut Plain);
        assert!(matches!(end, Progress::Fault(fault) if fault.reason.code() == code), "{kind:?}: {end:?}");
    }
    let (mut world, _) = with_second();
    let walk = world.begin(RID, IOVA, Access::Read);
    world.bench.run_to_fetch(walk, FetchKind::Table { level: 3 });
    let end = world.bench.unit.advance(walk, Some(Fetched::NoMemory), &mut Plain);
    assert!(matches!(end, Progress::Fault(fault) if fault.reason.code() == 0x78));
}

#[test]
fn the_second_stage_may_deny_a_first_stage_table() {
    for (level, code) in [(4u8, 0x75), (3, 0x76), (1, 0x76)] {
        let (mut world, ..) = with_nested(no_caches());
        let sources = world.read(ONE, IOVA).provenance;
        let at = sources.iter().position(|source| source.kind == FetchKind::FirstStage { level }).expect("it was read");
        // The word before it is the second-stage leaf of its table.
        world.bench.memory.write(sources[at - 1].pa, 0);
        assert_eq!(world.code(ONE, IOVA), code);
    }
    let (mut world, slot, below) = with_nested(no_caches());
    world.bench.memory.write(below, leaf(PAGE, 12).with_write(false).into_bits());
    assert_eq!(world.write(ONE, IOVA).fault().reason.code(), 0x85, "the page itself");
    world.bench.memory.write(slot, first_leaf(Pa(1 << 50), 12).into_bits());
    assert_eq!(world.code(ONE, IOVA), 0x84, "a page beyond the second stage");
}

#[test]
fn the_second_stage_may_deny_setting_a_bit_in_a_first_stage_table() {
    let (mut world, slot, _) = with_nested(no_caches());
    let sources = world.read(ONE, IOVA).provenance;
    let below = sources[sources.iter().position(|source| source.pa == slot).expect("it was read") - 1].pa;
    let entry = SecondStageEntry::from_bits(world.bench.memory.read(below));
    world.bench.memory.write(below, entry.with_write(false).into_bits());
    world.read(ONE, IOVA).translation();
    world.bench.memory.write(slot, first_leaf(GUEST_PAGE, 12).into_bits());
    assert_eq!(world.code(ONE, IOVA), 0x77);
    assert_eq!(world.bench.memory.read(slot), first_leaf(GUEST_PAGE, 12).into_bits());
}

#[test]
fn a_is_set_in_every_first_stage_entry_and_d_in_the_leaf_by_a_write() {
    let (mut world, slot) = with_first();
    let ended = world.read(ONE, IOVA);
    assert_eq!(ended.updated.len(), 4);
    for source in ended.provenance.iter().filter(|source| matches!(source.kind, FetchKind::FirstStage { .. })) {
        let entry = FirstStageEntry::from_bits(world.bench.memory.read(source.pa));
        assert!(entry.accessed() && !entry.dirty());
    }
    let ended = world.write(ONE, IOVA);
    assert_eq!(ended.updated, [slot], "a translation with D clear does not serve a write");
    assert!(FirstStageEntry::from_bits(world.bench.memory.read(slot)).dirty());
    assert!(world.write(ONE, IOVA).fetched.is_empty());
}

#[test]
fn a_and_d_of_the_second_stage_are_set_only_with_ssade() {
    for enabled in [false, true] {
        let (mut world, slot) = with_second();
        let entry = PasidEntryLow::from_bits(
            u128::from(world.bench.memory.read(world.pasid_pa(P0)))
                | u128::from(world.bench.memory.read(world.pasid_pa(P0).offset(8))) << 64,
        );
        world.set_pasid(P0, entry.with_second_stage_accessed_dirty(enabled), PasidEntryFirstStage::new());
        let updated = world.write(RID, IOVA).updated.len();
        let entry = SecondStageEntry::from_bits(world.bench.memory.read(slot));
        assert_eq!((updated, entry.accessed(), entry.dirty()), if enabled { (4, true, true) } else { (0, false, false) });
        assert!(world.write(RID, IOVA).fetched.is_empty());
    }
}

#[test]
fn a_and_d_cannot_be_set_without_snooping() {
    let (mut world, slot) = with_first();
    let sources = world.read(ONE, IOVA).provenance;
    let quiet = low(DOMAIN).with_translation_type(PGTT_FIRST).with_walk_snoop(false);
    let root = sources.iter().find(|s| s.kind == FetchKind::FirstStage { level: 4 }).expect("it was read").pa.pfn().pa();
    world.set_pasid(P1, quiet, first(root));
    world.bench.invalidate(&[commands::pasid_global(), commands::pasid_iotlb_all(DOMAIN, P1)]);
    world.read(ONE, IOVA).translation();
    assert_eq!(world.write(ONE, IOVA).fault().reason.code(), 0x90);
    assert!(!FirstStageEntry::from_bits(world.bench.memory.read(slot)).dirty());

    let mut world = World::new();
    let tables = world.attach_second(P0, DOMAIN);
    world.bench.tables.map(&mut world.bench.memory, tables, IOVA, PAGE, 12);
    world.set_pasid(P0, second(DOMAIN, tables).with_walk_snoop(false).with_second_stage_accessed_dirty(true), PasidEntryFirstStage::new());
    assert_eq!(world.code(RID, IOVA), 0x7c);
}

/// Race 9.
///
/// ```text
/// walker                         CPU
/// reads the leaf, A clear
///                                clears the leaf
/// wants to set A
/// ```
#[test]
fn race_9_setting_a_never_brings_a_cleared_entry_back() {
    let (mut world, slot) = with_first();
    let walk = world.begin(ONE, IOVA, Access::Write);
    let mut answer = None;
    let progress = loop {
        match world.bench.unit.advance(walk, answer.take(), &mut Plain) {
            Progress::Fetch { pa, bytes, .. } => answer = Some(world.bench.memory.fetch(pa, bytes)),
            Progress::Update { pa, old, new, .. } => {
                if pa == slot {
                    world.bench.memory.write(slot, 0);
                }
                answer = Some(world.bench.memory.compare_exchange(pa, old, new));
            }
            progress if progress.is_end() => break progress,
            _ => {}
        }
    };
    assert!(matches!(progress, Progress::Fault(fault) if fault.reason == Fault::Vtd(FaultReason::FIRST_NOT_PRESENT)), "{progress:?}");
    assert_eq!(world.bench.memory.read(slot), 0, "it stays cleared");
    assert_eq!(world.bench.unit.caches().iotlb().count(), 0);
}

#[test]
fn an_update_that_finds_another_entry_goes_on_with_that_one() {
    let (mut world, slot) = with_first();
    let other = first_leaf(OTHER_PAGE, 12).with_accessed(true);
    let walk = world.begin(ONE, IOVA, Access::Read);
    let mut answer = None;
    let translation = loop {
        match world.bench.unit.advance(walk, answer.take(), &mut Plain) {
            Progress::Fetch { pa, bytes, .. } => answer = Some(world.bench.memory.fetch(pa, bytes)),
            Progress::Update { pa, .. } if pa == slot => answer = Some(Fetched::word(other.into_bits())),
            Progress::Update { pa, old, new, .. } => answer = Some(world.bench.memory.compare_exchange(pa, old, new)),
            Progress::Done(translation) => break translation,
            Progress::Lookup { .. } => {}
            unexpected => panic!("{unexpected:?}"),
        }
    };
    assert_eq!(translation.pa, OTHER_PAGE);
    assert_eq!(world.bench.unit.last_provenance().last().map(|source| source.value), Some(other.into_bits()));
}

#[test]
fn an_entry_that_changes_at_every_update_ends_the_walk() {
    let (mut world, _) = with_first();
    let walk = world.begin(ONE, IOVA, Access::Read);
    let (mut answer, mut page) = (None, 0);
    for _ in 0..64 {
        match world.bench.unit.advance(walk, answer.take(), &mut Plain) {
            Progress::Fetch { pa, bytes, .. } => answer = Some(world.bench.memory.fetch(pa, bytes)),
            Progress::Update { .. } => {
                page += 0x1000;
                answer = Some(Fetched::word(first_leaf(Pa(page), 12).into_bits()));
            }
            Progress::Fault(fault) => return assert_eq!(fault.reason.code(), 0x91),
            _ => {}
        }
    }
    panic!("a walk without end");
}

#[test]
fn a_d_bit_that_software_clears_is_not_set_again_until_the_page_is_invalidated() {
    let (mut world, slot) = with_first();
    world.write(ONE, IOVA);
    let clean = FirstStageEntry::from_bits(world.bench.memory.read(slot)).with_dirty(false).into_bits();
    world.bench.memory.write(slot, clean);
    world.write(ONE, IOVA).translation();
    assert_eq!(world.bench.memory.read(slot), clean, "the write went by the cached D");
    world.bench.invalidate(&[commands::pasid_iotlb_pages(DOMAIN, P1, IOVA, 0, true)]);
    world.write(ONE, IOVA).translation();
    assert_ne!(world.bench.memory.read(slot), clean);
}

#[test]
fn privileged_requests_need_sre_and_ignore_u_s() {
    for (allowed, expected) in [(true, None), (false, Some(0x5d))] {
        let mut world = World::new();
        let tables = world.attach_first(P0, DOMAIN);
        let slot = world.map_first(tables, IOVA, PAGE, 12);
        world.bench.memory.write(slot, first_leaf(PAGE, 12).with_user(false).into_bits());
        assert_eq!(world.code(RID, IOVA), 0x81, "a user request");
        world.set_context(DEVICE, world.context().with_rid_privileged(true));
        world.set_pasid(P0, low(DOMAIN).with_translation_type(PGTT_FIRST), first(tables.root).with_supervisor_requests(allowed));
        world.bench.invalidate(&[legacy::context_global(), commands::pasid_global()]);
        let ended = world.read(RID, IOVA);
        match expected {
            None => assert_eq!(ended.translation().pa, PAGE),
            Some(code) => assert_eq!(ended.fault().reason.code(), code),
        }
        assert_eq!(world.bench.unit.caches().iotlb().count(), 0, "nothing that a user could use");
    }
}

#[test]
fn a_stale_pasid_entry_survives_until_a_pasid_cache_invalidation() {
    for removes in [commands::pasid_one(DOMAIN, P0), commands::pasid_domain(DOMAIN), commands::pasid_global()] {
        let (mut world, _) = with_second();
        world.read(RID, IOVA);
        let (low, first) = (PasidEntryLow::new(), PasidEntryFirstStage::new());
        world.set_pasid(P0, low, first);
        world.bench.invalidate(&[
            legacy::iotlb_global(),
            legacy::context_global(),
            commands::pasid_one(DOMAIN, P1),
            commands::pasid_domain(DomainId(6)),
            commands::pasid_one(DomainId(6), P0),
        ]);
        assert_eq!(world.read(RID, IOVA).translation().pa, PAGE, "nothing of that covers it");
        world.bench.invalidate(&[removes]);
        assert_eq!(world.code(RID, IOVA), 0x59);
    }
}

#[test]
fn a_context_entry_is_of_no_domain() {
    let (mut world, _) = with_second();
    world.read(RID, IOVA);
    world.bench.invalidate(&[legacy::context_domain(DOMAIN), legacy::context_domain(DomainId(0))]);
    assert_eq!(world.bench.unit.caches().contexts().count(), 1);
    let asked = world.invalidate_with(&[legacy::context_device(DomainId(77), DEVICE)], |q| q == Question::KeepOtherDomain, 1);
    assert_eq!((asked, world.bench.unit.caches().contexts().count()), (0, 0), "the domain does not count");
}

/// A context entry that leads to another directory leaves the PASID entries of the old one behind.
#[test]
fn a_changed_context_entry_needs_a_pasid_cache_invalidation_too() {
    let (mut world, _) = with_second();
    world.read(RID, IOVA);
    let directory = world.bench.tables.frame();
    world.set_context(DEVICE, world.context().with_directory(directory.pfn().0));
    world.bench.invalidate(&[legacy::context_device(DOMAIN, DEVICE), legacy::iotlb_domain(DOMAIN)]);
    assert_eq!(world.read(RID, IOVA).translation().pa, PAGE, "the old tables");
    world.bench.invalidate(&[commands::pasid_global()]);
    assert_eq!(world.code(RID, IOVA), 0x51);
}

#[test]
fn a_stale_first_stage_page_survives_until_an_invalidation_of_its_pasid_or_domain() {
    let removing = [
        commands::pasid_iotlb_all(DOMAIN, P1),
        commands::pasid_iotlb_pages(DOMAIN, P1, IOVA, 0, true),
        legacy::iotlb_domain(DOMAIN),
        legacy::iotlb_global(),
    ];
    for removes in removing {
        let (mut world, slot) = with_first();
        world.read(ONE, IOVA);
        world.bench.memory.write(slot, first_leaf(OTHER_PAGE, 12).into_bits());
        world.bench.invalidate(&[
            commands::pasid_global(),
            commands::pasid_iotlb_all(DOMAIN, P0),
            commands::pasid_iotlb_all(DomainId(6), P1),
            commands::pasid_iotlb_pages(DOMAIN, P1, IOVA.offset(4096), 0, false),
            legacy::iotlb_pages(DOMAIN, IOVA, 0, false),
        ]);
        assert_eq!(world.read(ONE, IOVA).translation().pa, PAGE, "nothing of that has to cover it");
        world.bench.invalidate(&[removes]);
        assert_eq!(world.read(ONE, IOVA).translation().pa, OTHER_PAGE);
    }
}

#[test]
fn whether_a_page_selective_invalidation_without_pasid_drops_first_stage_pages_is_asked() {
    let (mut world, _) = with_first();
    world.read(ONE, IOVA);
    let asked = world.invalidate_with(&[legacy::iotlb_pages(DOMAIN, Iova(0), 0, true)], |q| q == Question::KeepFirstStage, 1);
    assert_eq!((asked, world.bench.unit.caches().iotlb().count()), (1, 0));
}

#[test]
fn a_pasid_based_invalidation_leaves_second_stage_pages_alone() {
    let (mut world, slot) = with_second();
    world.read(RID, IOVA);
    world.bench.memory.write(slot, leaf(OTHER_PAGE, 12).into_bits());
    world.bench.invalidate(&[commands::pasid_iotlb_all(DOMAIN, P0), commands::pasid_iotlb_pages(DOMAIN, P0, IOVA, 0, false)]);
    assert_eq!(world.read(RID, IOVA).translation().pa, PAGE);
    world.bench.invalidate(&[legacy::iotlb_pages(DOMAIN, IOVA, 0, true)]);
    assert_eq!(world.read(RID, IOVA).translation().pa, OTHER_PAGE);
}

#[test]
fn a_changed_second_stage_leaf_leaves_the_nested_page_behind_unless_the_domain_is_flushed() {
    let (mut world, _, below) = with_nested(Params::default());
    world.read(ONE, IOVA);
    world.bench.memory.write(below, leaf(OTHER_PAGE, 12).into_bits());
    world.bench.invalidate(&[legacy::iotlb_pages(DOMAIN, Iova(GUEST_PAGE.0), 0, true)]);
    assert_eq!(world.read(ONE, IOVA).translation().pa, PAGE, "the combined page is tagged by another address");
    world.bench.invalidate(&[legacy::iotlb_domain(DOMAIN)]);
    assert_eq!(world.read(ONE, IOVA).translation().pa, OTHER_PAGE);
}

#[test]
fn a_leaf_only_hint_keeps_first_stage_pointers() {
    for (leaf_only, expected) in [(true, PAGE), (false, OTHER_PAGE)] {
        let (mut world, _) = with_first();
        let level_2 = world.read(ONE, IOVA).provenance.iter().find(|s| s.kind == FetchKind::FirstStage { level: 2 }).expect("read").pa;
        let table = world.bench.tables.frame();
        world.bench.memory.write(table.offset(3 * 8), first_leaf(OTHER_PAGE, 12).into_bits());
        world.bench.memory.write(level_2, first_leaf(table, 12).into_bits());
        world.bench.invalidate(&[commands::pasid_iotlb_pages(DOMAIN, P1, IOVA, 0, leaf_only)]);
        assert_eq!(world.read(ONE, IOVA).translation().pa, expected);
    }
}

#[test]
fn pasids_of_one_domain_do_not_share_first_stage_pages() {
    let (mut world, _) = with_first();
    world.read(ONE, IOVA);
    let tables = world.attach_first(Pasid(2), DOMAIN);
    world.map_first(tables, IOVA, OTHER_PAGE, 12);
    assert_eq!(world.read(Some(Pasid(2)), IOVA).translation().pa, OTHER_PAGE);
    assert_eq!(world.read(ONE, IOVA).translation().pa, PAGE);
}

#[test]
fn covering_invalidations_restart_a_first_stage_walk_and_others_do_not() {
    let other = Pasid(2);
    let cases = [
        (commands::pasid_one(DOMAIN, P1), true),
        (commands::pasid_domain(DOMAIN), true),
        (commands::pasid_global(), true),
        (legacy::context_device(DOMAIN, DEVICE), true),
        (legacy::iotlb_domain(DOMAIN), true),
        (commands::pasid_iotlb_all(DOMAIN, P1), true),
        (commands::pasid_iotlb_pages(DOMAIN, P1, IOVA, 0, true), true),
        (commands::pasid_iotlb_pages(DOMAIN, P1, IOVA.offset(4096), 0, false), true),
        (commands::pasid_iotlb_pages(DOMAIN, P1, IOVA.offset(4096), 0, true), false),
        (commands::pasid_one(DOMAIN, other), false),
        (commands::pasid_one(DomainId(6), P1), false),
        (commands::pasid_iotlb_all(DOMAIN, other), false),
        (legacy::iotlb_domain(DomainId(6)), false),
        (legacy::context_domain(DOMAIN), false),
    ];
    for (case, restarts) in cases {
        let (mut world, slot) = with_first();
        let walk = world.begin(ONE, IOVA, Access::Read);
        let (pa, bytes) = world.bench.run_to_fetch(walk, FetchKind::FirstStage { level: 1 });
        let old = world.bench.memory.fetch(pa, bytes);
        world.bench.memory.write(slot, first_leaf(OTHER_PAGE, 12).with_accessed(true).into_bits());
        world.bench.invalidate(&[case]);
        let walking = world.bench.unit.in_flight().next().is_some_and(|view| view.fetch.is_some());
        assert_eq!(!walking, restarts, "{case:#x}");
        let next = world.bench.unit.advance(walk, Some(old), &mut Plain);
        assert_eq!(matches!(next, Progress::Lookup { .. }), restarts, "{case:#x}: {next:?}");
    }
}

#[test]
fn an_invalidation_in_the_middle_of_a_nested_walk_restarts_it() {
    for level in [4, 2, 1] {
        let (mut world, slot, _) = with_nested(Params::default());
        let walk = world.begin(ONE, IOVA, Access::Read);
        world.bench.run_to_fetch(walk, FetchKind::Table { level });
        let other = Pa(0x55_5000);
        let stage = world.bench.unit.caches().pasids().next().expect("it is cached").target;
        let stage = super::support::tables::SecondStage { root: stage.second_root, levels: stage.second_levels };
        world.map_guest(stage, other, OTHER_PAGE);
        world.bench.memory.write(slot, first_leaf(other, 12).into_bits());
        world.bench.invalidate(&[legacy::iotlb_domain(DOMAIN)]);
        assert_eq!(world.bench.finish(walk).translation().pa, OTHER_PAGE);
    }
}

/// Race 8: a PASID entry changed without clearing P first, with no invalidation, is used half old by whom it was cached for.
#[test]
fn race_8_a_replaced_pasid_entry_serves_old_and_new_until_it_is_invalidated() {
    let (mut world, _) = with_second();
    world.read(RID, IOVA);
    let tables = world.attach_second(P0, DomainId(6));
    for n in 0..2 {
        world.bench.tables.map(&mut world.bench.memory, tables, IOVA.offset(n * 4096), OTHER_PAGE, 12);
    }
    let newcomer = Bdf::new(0x3b, 1, 0);
    world.set_context(newcomer, world.context());
    assert_eq!(world.bench.read_from(newcomer, IOVA).translation().pa, OTHER_PAGE);
    assert_eq!(world.read(RID, IOVA).translation().pa, PAGE, "the first device still goes by the old entry");
    world.bench.invalidate(&[commands::pasid_one(DOMAIN, P0)]);
    assert_eq!(world.read(RID, IOVA).translation().pa, OTHER_PAGE);
}

/// Race 6: SRTP without ESRTPS to a table of the other mode leaves the context entries of the old mode in use.
#[test]
fn race_6_a_switch_of_modes_mixes_old_and_new_until_all_is_flushed() {
    let (mut world, _) = with_second();
    world.read(RID, IOVA);
    let root = world.bench.tables.frame();
    world.bench.switch_root(root);
    assert_eq!(world.read(RID, IOVA).translation().pa, PAGE, "legacy mode, and the scalable-mode entry");
    world.bench.switch_root(Pa(world.bench.tables.root.0 | 1 << 10));
    world.bench.invalidate(&[legacy::context_global(), commands::pasid_global(), legacy::iotlb_global()]);
    world.bench.switch_root(root);
    assert_eq!(world.code(RID, IOVA), 0x01);
}

#[test]
fn switching_translation_off_empties_every_cache_of_a_unit_with_scalable_mode() {
    let (mut world, _) = with_second();
    world.read(RID, IOVA);
    assert!(!world.bench.unit.caches().is_empty());
    world.bench.enable(false);
    assert!(world.bench.unit.caches().is_empty());
}

#[test]
fn which_pasid_entry_is_evicted_is_asked_of_the_caller() {
    let params = Params { pasid: Geometry::fully_associative(2), ..Params::default() };
    let mut world = World::with(capabilities(), params);
    for n in 0..3 {
        let tables = world.attach_second(Pasid(n), DOMAIN);
        world.bench.tables.map(&mut world.bench.memory, tables, IOVA, PAGE, 12);
    }
    world.read(Some(P0), IOVA);
    world.read(Some(P1), IOVA);
    let mut d = Scripted::new(|q| q == Question::EvictPasid { ways: 2 }, 1);
    world.translate_with(Some(Pasid(2)), IOVA, Access::Read, &mut d);
    let left: Vec<_> = world.bench.unit.caches().pasids().map(|entry| entry.pasid.0).collect();
    assert_eq!((d.asked, left), (1, vec![0, 2]));
}

#[test]
fn caching_mode_may_keep_a_not_present_pasid_entry() {
    let mut world = World::with(Capabilities { caching_mode: true, ..capabilities() }, Params::default());
    let mut d = Scripted::new(|q| q == Question::CacheNotPresent, 1);
    assert_eq!(world.translate_with(RID, IOVA, Access::Read, &mut d).fault().reason.code(), 0x59);
    let tables = world.attach_second(P0, DOMAIN);
    world.bench.tables.map(&mut world.bench.memory, tables, IOVA, PAGE, 12);
    assert_eq!(world.code(RID, IOVA), 0x59, "attached without a flush");
    world.bench.invalidate(&[commands::pasid_one(DomainId(0), P0)]);
    world.read(RID, IOVA).translation();
}

#[test]
fn fault_processing_disable_of_a_pasid_entry_suppresses_its_faults() {
    let (mut world, slot) = with_second();
    let tables = world.attach_second(P0, DOMAIN);
    world.bench.memory.write(slot, pointer(Pa(0)).into_bits());
    world.set_pasid(P0, second(DOMAIN, tables).with_fault_disable(true), PasidEntryFirstStage::new());
    let fault = world.read(RID, IOVA).fault();
    assert_eq!((fault.reason.code(), fault.recorded), (0x79, false));
    let fault = world.read(ONE, IOVA).fault();
    assert_eq!((fault.reason.code(), fault.recorded), (0x59, true));
    let record = world.bench.unit.fault_records()[0];
    assert_eq!((record.pasid_present(), record.pasid(), record.reason()), (true, 1, 0x59));
}

#[test]
fn scalable_mode_needs_the_capability() {
    let mut world = World::new();
    world.bench = super::support::Bench::new();
    world.bench.switch_root(Pa(world.bench.tables.root.0 | 1 << 10));
    assert_eq!(world.code(RID, IOVA), 0x30);
    assert_eq!(world.bench.unit.read_register(Register::Ecap) >> 43 & 1, 0);
    assert_eq!(World::new().bench.unit.read_register(Register::Ecap) >> 43 & 1, 1);
}

#[test]
fn the_queue_of_a_scalable_unit_takes_wide_descriptors_only() {
    let status = |world: &World| FaultStatus::from_bits(world.bench.unit.read_register(Register::Fsts) as u32).queue_error();
    let info = |world: &World| QueueErrorRecord::from_bits(world.bench.unit.read_register(Register::Iqercd)).info();
    let mut world = World::new();
    let address = QueueAddress::from_bits(world.bench.unit.read_register(Register::Iqa));
    assert!(address.wide());
    let ran = world.bench.invalidate(&[commands::pasid_global()]);
    assert!(matches!(ran[..], [QueueProgress::Invalidated { .. }]), "{ran:?}");
    assert_eq!(world.bench.unit.read_register(Register::Iqh), 32);
    world.bench.write(Register::Iqt, 48);
    world.bench.run_queue_with(&mut Plain);
    assert_eq!((status(&world), info(&world)), (true, 1), "a tail in the middle of a descriptor");

    let mut world = World::new();
    world.bench.memory.write(address.base().checked_shl(12).map(Pa).expect("it fits").offset(24), 1);
    world.bench.memory.write_wide(Pfn(address.base()).pa(), commands::pasid_global());
    world.bench.write(Register::Iqt, 32);
    world.bench.run_queue_with(&mut Plain);
    assert_eq!((status(&world), info(&world)), (true, 4), "the upper half is reserved");

    let mut world = World::new();
    world.bench.write(Register::Iqa, address.with_wide(false).into_bits());
    world.bench.write(Register::Iqt, 16);
    world.bench.run_queue_with(&mut Plain);
    assert_eq!((status(&world), info(&world)), (true, 5), "narrow descriptors in scalable mode");
}

#[test]
fn a_snapshot_shows_pasids() {
    let (mut world, _) = with_first();
    world.read(ONE, IOVA);
    let text = world.bench.unit.snapshot().to_string();
    for part in
        ["context 3b:00.0 did=0x0 directory=0x1002000 pasid-bits=13", "pasid 3b:00.0 pasid=0x1 did=0x5 First", "iotlb did=0x5 pasid=0x1"]
    {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn fault_processing_disable_of_a_directory_entry_suppresses_faults_of_all_its_pasids() {
    let (mut world, _) = with_second();
    let entry = PasidDirectoryEntry::from_bits(world.bench.memory.read(world.directory)).with_fault_disable(true);
    world.bench.memory.write(world.directory, entry.into_bits());
    let fault = world.read(ONE, IOVA).fault();
    assert_eq!((fault.reason.code(), fault.recorded), (0x59, false));
}

#[test]
fn a_leaf_only_hint_leaves_a_walk_alone_that_awaits_what_cannot_be_a_leaf() {
    for (level, restarts) in [(4, false), (3, true)] {
        let (mut world, _) = with_first();
        let walk = world.begin(ONE, IOVA, Access::Read);
        world.bench.run_to_fetch(walk, FetchKind::FirstStage { level });
        world.bench.invalidate(&[commands::pasid_iotlb_pages(DOMAIN, P1, IOVA, 0, true)]);
        let walking = world.bench.unit.in_flight().next().is_some_and(|view| view.fetch.is_some());
        assert_eq!(!walking, restarts, "level {level}");
    }
}

#[test]
fn a_nested_walk_between_two_look_ups_of_its_second_stage_is_restarted_too() {
    let (mut world, ..) = with_nested(Params::default());
    let walk = world.begin(ONE, IOVA, Access::Read);
    let mut answer = None;
    loop {
        let words = world.bench.unit.provenance(walk).expect("it is in flight");
        let holds_first = words.iter().any(|source| matches!(source.kind, FetchKind::Table { .. }));
        match world.bench.unit.advance(walk, answer.take(), &mut Plain) {
            Progress::Lookup { .. } if holds_first => break,
            Progress::Fetch { pa, bytes, .. } => answer = Some(world.bench.memory.fetch(pa, bytes)),
            Progress::Update { pa, old, new, .. } => answer = Some(world.bench.memory.compare_exchange(pa, old, new)),
            progress => assert!(!progress.is_end()),
        }
    }
    world.bench.invalidate(&[legacy::iotlb_domain(DOMAIN)]);
    assert!(world.bench.unit.provenance(walk).expect("it is in flight").is_empty());
    assert_eq!(world.bench.finish(walk).translation().pa, PAGE);
}

/// The room for words is bounded, and running out of it is a panic.
#[test]
fn a_nested_walk_lets_go_of_its_words_wherever_it_is_cut_off() {
    let (mut world, ..) = with_nested(no_caches());
    for round in 0..8_000u32 {
        let walk = world.begin(ONE, IOVA, Access::Read);
        let mut answer = None;
        let mut ended = false;
        for _ in 0..round % 50 {
            match world.bench.unit.advance(walk, answer.take(), &mut Plain) {
                Progress::Fetch { pa, bytes, .. } => answer = Some(world.bench.memory.fetch(pa, bytes)),
                Progress::Update { pa, old, new, .. } => answer = Some(world.bench.memory.compare_exchange(pa, old, new)),
                progress if progress.is_end() => {
                    ended = true;
                    break;
                }
                _ => {}
            }
        }
        if ended {
            continue;
        }
        if round % 100 < 50 {
            assert!(world.bench.unit.cancel(walk));
        } else {
            world.bench.invalidate(&[legacy::iotlb_global()]);
            assert_eq!(world.bench.finish(walk).translation().pa, PAGE);
        }
    }
}

#[test]
fn under_ssade_a_first_stage_table_counts_as_written_and_a_page_that_is_read_does_not() {
    let (mut world, slot, below) = with_nested(no_caches());
    let pa = world.pasid_pa(P1);
    let entry = PasidEntryLow::from_bits(u128::from(world.bench.memory.read(pa)) | u128::from(world.bench.memory.read(pa.offset(8))) << 64);
    let stage = PasidEntryFirstStage::from_bits(world.bench.memory.read(pa.offset(16)));
    world.set_pasid(P1, entry.with_second_stage_accessed_dirty(true), stage);
    let sources = world.read(ONE, IOVA).provenance;
    let table = sources[sources.iter().position(|source| source.pa == slot).expect("it was read") - 1].pa;
    let bits = |world: &World, pa| {
        let entry = SecondStageEntry::from_bits(world.bench.memory.read(pa));
        (entry.accessed(), entry.dirty())
    };
    assert_eq!(bits(&world, table), (true, true));
    assert_eq!(bits(&world, below), (true, false));
    world.write(ONE, IOVA).translation();
    assert_eq!(bits(&world, below), (true, true));
}
