//! Walks: which words are fetched in which order, and what comes out.

use crate::support::world::GUEST;
use crate::support::{DEVICE, Dc, GSCID, IOVA, PAGE, PSCID, World, leaf};
use iommu_model::riscv::{Capabilities, Transaction, Unit};
use iommu_model::spec::riscv::fault::Cause;
use iommu_model::{Access, CacheHit, FetchKind, Iova, Pa, Params, Plain, Progress};

fn no_caches() -> Params {
    let off = iommu_model::Geometry { sets: 1, ways: 0 };
    Params { context: off, pasid: off, iotlb: off, psc: [off; 4], ..Params::default() }
}

#[test]
fn a_cold_first_stage_fetches_the_context_and_one_entry_a_level() {
    for levels in 3..=5u8 {
        let (mut world, ..) = World::mapped_first(levels);
        let ended = world.read(Iova(IOVA.0 + 0x123));
        let mut expected = vec![FetchKind::ExtendedDeviceContext];
        expected.extend((1..=levels).rev().map(|level| FetchKind::FirstStage { level }));
        assert_eq!(ended.fetched, expected);
        let translation = ended.translation();
        assert_eq!((translation.pa, translation.page_bytes, translation.from), (Pa(PAGE.0 + 0x123), 4096, CacheHit::None));
        assert_eq!(u32::from(translation.domain.0), PSCID.0);
        let again = world.read(IOVA);
        assert!(again.fetched.is_empty());
        assert_eq!(again.translation().from, CacheHit::Iotlb);
    }
}

#[test]
fn a_cold_second_stage_fetches_the_context_and_one_entry_a_level() {
    for levels in 3..=5u8 {
        let (mut world, tables, _) = World::mapped_second(levels);
        let ended = world.write_to(IOVA);
        let mut expected = vec![FetchKind::ExtendedDeviceContext];
        expected.extend((1..=levels).rev().map(|level| FetchKind::Table { level }));
        assert_eq!(ended.fetched, expected);
        assert_eq!((ended.translation().pa, ended.translation().domain.0), (PAGE, GSCID.0));
        // The root table has two index bits more.
        let high = Iova(3 << (12 + 9 * u32::from(levels)));
        world.map(tables, high, leaf(Pa(0x5000)), 12);
        assert_eq!(world.where_is(high), Pa(0x5000));
    }
}

#[test]
fn a_cold_nested_walk_translates_the_address_of_every_first_stage_entry() {
    for levels in 3..=5u8 {
        let (mut world, ..) = World::mapped_nested(levels);
        world.unit = Unit::new(Capabilities::default(), no_caches());
        let (copy, ..) = World::mapped_nested(levels);
        world.write(
            iommu_model::riscv::Register::Ddtp,
            iommu_model::spec::riscv::register::DirectoryPointer::new().with_mode(2).with_ppn(copy.directory.pfn().0).into_bits(),
        );
        let ended = world.read(IOVA);
        let second = || (2..=levels).rev().map(|level| FetchKind::Table { level });
        let mut expected = vec![FetchKind::ExtendedDeviceContext];
        for level in (1..=levels).rev() {
            // Tables and page are mapped with 2 MiB pages.
            expected.extend(second());
            expected.push(FetchKind::FirstStage { level });
        }
        expected.extend(second());
        assert_eq!(ended.fetched, expected);
        assert_eq!(ended.translation().pa, PAGE);
    }
}

#[test]
fn a_nested_page_is_as_large_as_the_smaller_leaf_of_both() {
    let (mut world, first, second, _) = World::mapped_nested(4);
    let wide = Iova(0x8000_0000);
    world.map(first, wide, leaf(Pa(GUEST)), 30);
    assert_eq!(world.read(Iova(wide.0 + 0x3_1234)).translation().page_bytes, 1 << 21);
    world.map(second, Iova(GUEST + (1 << 30)), leaf(Pa(1 << 30)), 30);
    assert_eq!(world.where_is(Iova(wide.0 + 0x3_1234)), Pa(0x3_1234));
}

#[test]
fn superpages_of_every_level_and_64_kib_pages_translate() {
    for (levels, shift) in [(3, 21), (3, 30), (4, 39), (5, 48)] {
        for second in [false, true] {
            let (mut world, tables, _) = if second { World::mapped_second(levels) } else { World::mapped_first(levels) };
            let iova = Iova(1 << shift);
            world.map(tables, iova, leaf(Pa(0)), shift);
            let inside = Iova(iova.0 + 0x12_3456);
            let translation = world.read(inside).translation();
            assert_eq!((translation.pa, translation.page_bytes), (Pa(0x12_3456), 1 << shift), "{levels} {shift} {second}");
            assert_eq!(world.read(inside).translation().from, CacheHit::Iotlb);
        }
    }
    let (mut world, tables, _) = World::mapped_first(3);
    let napot = leaf(Pa(0xa_8000)).with_napot(true);
    for n in 0..16 {
        world.map(tables, Iova(0x10_0000 + n * 4096), napot, 12);
    }
    let translation = world.read(Iova(0x10_5678)).translation();
    assert_eq!((translation.pa, translation.page_bytes), (Pa(0xa_5678), 1 << 16));
    assert_eq!(world.read(Iova(0x10_f000)).translation().from, CacheHit::Iotlb, "one entry covers all sixteen pages");
}

#[test]
fn a_walk_cache_of_each_level_saves_the_entries_above_it() {
    let (mut world, tables, _) = World::mapped_first(4);
    world.where_is(IOVA);
    world.map(tables, Iova(IOVA.0 + 0x1000), leaf(Pa(0x5000)), 12);
    let ended = world.read(Iova(IOVA.0 + 0x1000));
    assert_eq!(ended.fetched, [FetchKind::FirstStage { level: 1 }]);
    assert_eq!(ended.translation().from, CacheHit::Psc(2));
    world.map(tables, Iova(IOVA.0 + (1 << 21)), leaf(Pa(0x6000)), 12);
    assert_eq!(world.read(Iova(IOVA.0 + (1 << 21))).fetched.len(), 2);
    world.map(tables, Iova(IOVA.0 + (1 << 30)), leaf(Pa(0x8000)), 12);
    assert_eq!(world.read(Iova(IOVA.0 + (1 << 30))).fetched.len(), 3);
}

#[test]
fn off_blocks_everything_and_bare_passes_everything_untranslated() {
    let mut unit = Unit::new(Capabilities::default(), Params::default());
    let walk = unit.begin(Transaction::new(DEVICE, IOVA, Access::Read)).expect("a walker is free");
    match unit.advance(walk, None, &mut Plain) {
        Progress::Fault(fault) => assert_eq!(fault.reason.riscv(), Some(Cause::ALL_DISALLOWED)),
        other => panic!("{other:?}"),
    }
    let bare = Capabilities { resets_to_bare: true, ..Capabilities::default() };
    let mut unit = Unit::new(bare, Params::default());
    let walk = unit.begin(Transaction::new(DEVICE, IOVA, Access::Write)).expect("a walker is free");
    assert!(matches!(unit.advance(walk, None, &mut Plain), Progress::Untranslated { pa, .. } if pa.0 == IOVA.0));
}

#[test]
fn two_bare_stages_pass_the_address_and_cache_nothing_of_it() {
    let mut world = World::new();
    world.set_device(DEVICE, Dc::bare());
    let translation = world.read(Iova(u64::MAX - 0xfff)).translation();
    assert_eq!((translation.pa, translation.pass_through), (Pa(u64::MAX - 0xfff), true));
    assert_eq!(world.unit.caches().iotlb().count(), 0);
}

#[test]
fn the_words_of_a_translation_can_be_told_outermost_first() {
    let (mut world, _, slot) = World::mapped_first(3);
    world.where_is(IOVA);
    let words = world.unit.last_provenance();
    assert_eq!(words.len(), 8 + 3);
    assert_eq!((words[10].pa, words[10].value), (slot, leaf(PAGE).into_bits()));
    let (mut world, ..) = World::mapped_nested(3);
    world.where_is(IOVA);
    let cold = world.unit.last_provenance();
    // Three first-stage entries and the page, each below two second-stage ones.
    assert_eq!(cold.len(), 8 + 3 * 3 + 2);
    world.where_is(IOVA);
    assert_eq!(world.unit.last_provenance(), cold, "a cached translation keeps them");
}
