//! Walks: what is fetched, in which order, and what comes out.

use super::support::Bench;
use super::support::bench::{DEVICE, DOMAIN, IOVA, PAGE};
use iommu_model::{Access, Bdf, CacheHit, CacheKind, FetchKind, Fetched, Iova, Pa, Params, Pasid, Plain, Progress, Request, Unit};

fn cold(levels: u8, shift: u32) -> (Vec<FetchKind>, u64) {
    let mut bench = Bench::new();
    bench.attach_and_map(levels, shift);
    let ended = bench.read(IOVA);
    let translation = ended.translation();
    assert_eq!(translation.fetches as usize, ended.fetched.len());
    assert_eq!(translation.from, CacheHit::None);
    (ended.fetched.clone(), translation.page_bytes)
}

#[test]
fn a_cold_four_level_walk_takes_six_fetches_in_order() {
    let (fetched, page_bytes) = cold(4, 12);
    let table = |level| FetchKind::Table { level };
    assert_eq!(fetched, [FetchKind::Root, FetchKind::Context, table(4), table(3), table(2), table(1)]);
    assert_eq!(page_bytes, 4096);
}

#[test]
fn three_levels_take_five_fetches_and_five_levels_take_seven() {
    assert_eq!(cold(3, 12).0.len(), 5);
    assert_eq!(cold(5, 12).0.len(), 7);
}

#[test]
fn a_2m_leaf_saves_one_fetch_and_a_1g_leaf_two() {
    assert_eq!((cold(4, 21).0.len(), cold(4, 21).1), (5, 2 << 20));
    assert_eq!((cold(4, 30).0.len(), cold(4, 30).1), (4, 1 << 30));
    assert_eq!(cold(5, 30).0.len(), 5);
    assert_eq!(cold(3, 30).0.len(), 3);
}

#[test]
fn the_offset_in_the_page_is_kept_for_every_page_size() {
    let mut bench = Bench::new();
    bench.attach_and_map(4, 12);
    assert_eq!(bench.read(IOVA.offset(0x123)).translation().pa, PAGE.offset(0x123));
    for shift in [21, 30] {
        let mut bench = Bench::new();
        bench.attach_and_map(4, shift);
        let iova = IOVA.offset(0x123);
        let expected = Pa(iova.0 & ((1 << shift) - 1));
        assert_eq!(bench.read(iova).translation().pa, expected, "walk");
        assert_eq!(bench.read(iova).translation().pa, expected, "hit");
    }
}

#[test]
fn a_translation_names_every_word_it_came_from() {
    let (mut bench, leaf) = Bench::mapped();
    let ended = bench.read(IOVA);
    let provenance = &ended.provenance;
    assert_eq!(provenance.len(), 8, "two of root, two of context, four levels");
    for source in provenance {
        assert_eq!(bench.memory.read(source.pa), source.value);
    }
    assert_eq!(provenance[7].pa, leaf);
    assert_eq!(provenance[7].kind, FetchKind::Table { level: 1 });
    let hit = bench.read(IOVA);
    assert_eq!(&hit.provenance, provenance);
    assert_eq!(hit.translation().from, CacheHit::Iotlb);
}

#[test]
fn a_five_level_translation_fits_its_provenance() {
    let mut bench = Bench::new();
    bench.attach_and_map(5, 12);
    let ended = bench.read(IOVA);
    assert_eq!(ended.provenance.len(), iommu_model::SOURCES_MAX);
}

#[test]
fn a_second_request_hits_the_context_cache_and_the_iotlb() {
    let (mut bench, _) = Bench::mapped();
    bench.read(IOVA);
    let ended = bench.read(IOVA);
    assert!(ended.fetched.is_empty());
    assert_eq!(ended.translation().from, CacheHit::Iotlb);
    assert_eq!(ended.translation().domain, DOMAIN);
}

#[test]
fn a_neighbour_page_hits_the_lowest_paging_structure_cache_and_fetches_one_word() {
    let (mut bench, leaf) = Bench::mapped();
    bench.memory.write(leaf.offset(8), bench.memory.read(leaf));
    bench.read(IOVA);
    let ended = bench.read(IOVA.offset(4096));
    assert_eq!(ended.fetched, [FetchKind::Table { level: 1 }]);
    assert_eq!(ended.translation().from, CacheHit::Psc(2));
    assert_eq!(ended.provenance.len(), 8);
}

#[test]
fn without_paging_structure_caches_every_level_is_fetched_again() {
    let off = iommu_model::Geometry { sets: 1, ways: 0 };
    let (mut bench, leaf) = Bench::mapped_with(Default::default(), Params { psc: [off; 4], ..Params::default() });
    bench.memory.write(leaf.offset(8), bench.memory.read(leaf));
    bench.read(IOVA);
    assert_eq!(bench.read(IOVA.offset(4096)).fetched.len(), 4);
}

#[test]
fn devices_of_one_domain_share_the_iotlb() {
    let (mut bench, _) = Bench::mapped();
    bench.read(IOVA);
    let other = Bdf::new(0x3b, 1, 0);
    let entry = bench.tables.context_entry_pa(&mut bench.memory, DEVICE);
    let copy = bench.tables.context_entry_pa(&mut bench.memory, other);
    for word in [0, 8] {
        let value = bench.memory.read(entry.offset(word));
        bench.memory.write(copy.offset(word), value);
    }
    let ended = bench.read_from(other, IOVA);
    assert_eq!(ended.fetched, [FetchKind::Root, FetchKind::Context]);
    assert_eq!(ended.translation().from, CacheHit::Iotlb);
}

#[test]
fn permission_is_the_and_of_all_levels() {
    let mut bench = Bench::new();
    let leaf = bench.attach_and_map(4, 12);
    let root_slot = {
        let ended = bench.read(IOVA);
        ended.provenance[4].pa
    };
    let mut bench = Bench::new();
    assert_eq!(bench.attach_and_map(4, 12), leaf, "the builder is deterministic");
    let read_only = bench.memory.read(root_slot) & !0b10;
    bench.memory.write(root_slot, read_only);
    let ended = bench.read(IOVA);
    assert!(ended.translation().readable && !ended.translation().writable);
    let write = bench.translate_with(IOVA, Access::Write, &mut Plain);
    assert_eq!(write.fault().reason.code(), 0x05);
}

#[test]
fn pass_through_needs_two_fetches_and_no_table() {
    let mut bench = Bench::new();
    bench.tables.attach_pass_through(&mut bench.memory, DEVICE, DOMAIN);
    let ended = bench.read(Iova(0x1234_5678));
    assert_eq!(ended.fetched.len(), 2);
    assert_eq!(ended.translation().pa, Pa(0x1234_5678));
    assert!(ended.translation().pass_through);
    assert!(bench.read(Iova(0x9999_0000)).fetched.is_empty(), "the context cache has it");
}

#[test]
fn with_translation_off_the_address_passes_as_it_is() {
    let (mut bench, _) = Bench::mapped();
    bench.enable(false);
    let ended = bench.read(IOVA.offset(5));
    assert!(matches!(ended.progress, Progress::Untranslated { pa, .. } if pa == Pa(IOVA.0 + 5)));
    assert_eq!(bench.unit.in_flight_count(), 0);
}

#[test]
fn a_write_in_the_interrupt_range_is_not_memory() {
    let (mut bench, _) = Bench::mapped();
    for on in [true, false] {
        bench.enable(on);
        let ended = bench.translate_with(Iova(0xfee0_1004), Access::Write, &mut Plain);
        assert!(matches!(ended.progress, Progress::InterruptMessage { address: Iova(0xfee0_1004), .. }));
    }
}

#[test]
fn every_step_has_its_cost_and_the_total_is_their_sum() {
    let (mut bench, _) = Bench::mapped();
    let walk = bench.begin(IOVA, Access::Read);
    let (mut sum, mut answer) = (0, None);
    loop {
        let progress = bench.unit.advance(walk, answer.take(), &mut Plain);
        sum += progress.cost();
        match progress {
            Progress::Fetch { pa, bytes, .. } => answer = Some(bench.memory.fetch(pa, bytes)),
            Progress::Done(translation) => {
                assert_eq!(translation.cost_total, sum);
                let timing = Params::default().timing;
                let look_ups = timing.context_lookup + timing.iotlb_lookup + timing.psc_lookup;
                assert_eq!(sum, look_ups + timing.root_fetch + timing.context_fetch + 4 * timing.table_fetch);
                return;
            }
            Progress::Lookup { cache, hit, .. } => assert!(!hit, "{cache:?}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_fetch_is_asked_again_until_it_is_answered() {
    let (mut bench, _) = Bench::mapped();
    let walk = bench.begin(IOVA, Access::Read);
    let (pa, _) = bench.run_to_fetch(walk, FetchKind::Root);
    for _ in 0..3 {
        let again = bench.unit.advance(walk, None, &mut Plain);
        assert!(matches!(again, Progress::Fetch { pa: p, cost: 0, .. } if p == pa));
    }
    bench.finish(walk).translation();
}

#[test]
fn look_ups_go_context_then_iotlb_then_paging_structures() {
    let (mut bench, leaf) = Bench::mapped();
    bench.read(IOVA);
    bench.memory.write(leaf.offset(8), bench.memory.read(leaf));
    let walk = bench.begin(IOVA.offset(4096), Access::Read);
    let mut seen = Vec::new();
    while let Progress::Lookup { cache, hit, .. } = bench.unit.advance(walk, None, &mut Plain) {
        seen.push((cache, hit));
    }
    assert_eq!(seen, [(CacheKind::Context, true), (CacheKind::Iotlb, false), (CacheKind::Psc, true)]);
}

#[test]
fn a_prefetch_fills_the_caches_and_never_records_a_fault() {
    let (mut bench, _) = Bench::mapped();
    for (iova, faults) in [(IOVA, false), (IOVA.offset(4096), true)] {
        let request = Request { source: DEVICE, iova, access: Access::Read, pasid: None };
        let walk = bench.unit.begin_prefetch(request).expect("a walker is free");
        let ended = bench.finish(walk);
        assert_eq!(matches!(ended.progress, Progress::Fault(f) if !f.recorded), faults);
    }
    assert!(bench.read(IOVA).fetched.is_empty());
    assert!(bench.unit.fault_records().iter().all(|record| !record.fault()));
}

#[test]
fn a_request_with_pasid_is_refused_in_legacy_mode() {
    let (mut bench, _) = Bench::mapped();
    let request = Request { source: DEVICE, iova: IOVA, access: Access::Read, pasid: Some(Pasid(1)) };
    let walk = bench.unit.begin(request).expect("a walker is free");
    assert_eq!(bench.finish(walk).fault().reason.code(), 0x31);
}

#[test]
#[should_panic(expected = "an answer without a fetch")]
fn an_answer_that_nobody_asked_for_is_the_callers_bug() {
    let mut unit = Unit::new(Default::default(), Params::default());
    let request = Request { source: DEVICE, iova: IOVA, access: Access::Read, pasid: None };
    let walk = unit.begin(request).expect("a walker is free");
    unit.advance(walk, Some(Fetched::word(0)), &mut Plain);
}
