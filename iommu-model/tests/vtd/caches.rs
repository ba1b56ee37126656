//! Caches: staleness until the proper invalidation, eviction and choice by the caller.

use super::support::bench::{DEVICE, DOMAIN, IOVA, OTHER_PAGE, PAGE};
use super::support::tables::{context, leaf, pointer};
use super::support::{Bench, Scripted, commands};
use iommu_model::{Access, Bdf, CacheHit, Capabilities, DomainId, FetchKind, Geometry, Iova, Pa, Params, Plain, Question};

#[test]
fn a_stale_iotlb_entry_survives_until_a_page_domain_or_global_iotlb_invalidation() {
    for removes in [commands::iotlb_pages(DOMAIN, IOVA, 0, true), commands::iotlb_domain(DOMAIN), commands::iotlb_global()] {
        let (mut bench, slot) = Bench::mapped();
        bench.read(IOVA);
        bench.memory.write(slot, leaf(OTHER_PAGE, 12).into_bits());
        assert_eq!(bench.read(IOVA).translation().pa, PAGE);
        bench.invalidate(&[
            commands::context_global(),
            commands::iotlb_pages(DOMAIN, IOVA.offset(4096), 0, false),
            commands::iotlb_domain(DomainId(6)),
        ]);
        assert_eq!(bench.read(IOVA).translation().pa, PAGE, "nothing of that covers it");
        bench.invalidate(&[removes]);
        assert_eq!(bench.read(IOVA).translation().pa, OTHER_PAGE);
    }
}

#[test]
fn a_stale_context_entry_survives_until_a_context_invalidation() {
    for removes in [commands::context_device(DOMAIN, DEVICE), commands::context_domain(DOMAIN), commands::context_global()] {
        let (mut bench, _) = Bench::mapped();
        bench.read(IOVA);
        let entry = bench.tables.context_entry_pa(&mut bench.memory, DEVICE);
        bench.memory.write(entry, 0);
        bench.invalidate(&[commands::iotlb_global(), commands::context_domain(DomainId(6))]);
        assert_eq!(bench.read(IOVA).fetched.len(), 4, "tables again, context from the cache");
        bench.invalidate(&[removes]);
        assert_eq!(bench.read(IOVA).fault().reason.code(), 0x02);
    }
}

#[test]
fn a_stale_paging_structure_entry_survives_a_leaf_only_invalidation() {
    let (mut bench, _) = Bench::mapped();
    let ended = bench.read(IOVA);
    let level_2 = ended.provenance[6].pa;
    let other_table = bench.tables.frame();
    bench.memory.write(level_2, pointer(other_table).into_bits());
    bench.memory.write(other_table.offset(3 * 8), leaf(OTHER_PAGE, 12).into_bits());
    bench.invalidate(&[commands::iotlb_pages(DOMAIN, IOVA, 0, true)]);
    assert_eq!(bench.read(IOVA).translation().pa, PAGE, "IH=1 keeps the pointer");
    bench.invalidate(&[commands::iotlb_pages(DOMAIN, IOVA, 0, false)]);
    assert_eq!(bench.read(IOVA).translation().pa, OTHER_PAGE);
}

#[test]
fn whether_ih_1_drops_non_leaf_entries_is_asked_once() {
    let (mut bench, _) = Bench::mapped();
    bench.read(IOVA);
    let before = bench.unit.caches().psc().count();
    let mut d = Scripted::new(|q| q == Question::KeepNonLeaf, 1);
    bench.submit(&[commands::iotlb_pages(DOMAIN, IOVA, 0, true)]);
    bench.run_queue_with(&mut d);
    assert_eq!((d.asked, before, bench.unit.caches().psc().count()), (1, 3, 0));
}

#[test]
fn a_superpage_entry_needs_an_address_mask_that_covers_it() {
    let mut bench = Bench::new();
    let slot = bench.attach_and_map(4, 21);
    bench.read(IOVA);
    bench.memory.write(slot, leaf(Pa(0x20_0000), 21).into_bits());
    bench.invalidate(&[commands::iotlb_pages(DOMAIN, IOVA, 8, false)]);
    assert_eq!(bench.read(IOVA).translation().pa, Pa(0x3000), "kept: the plain answer");
    let mut d = Scripted::new(|q| q == Question::KeepSuperpage, 1);
    bench.submit(&[commands::iotlb_pages(DOMAIN, IOVA, 0, false)]);
    bench.run_queue_with(&mut d);
    assert_eq!(d.asked, 1);
    assert_eq!(bench.read(IOVA).translation().pa, Pa(0x20_3000), "dropped: the other answer");
    bench.memory.write(slot, leaf(Pa(0), 21).into_bits());
    let mut d = Scripted::new(|q| q == Question::KeepSuperpage, 0);
    bench.submit(&[commands::iotlb_pages(DOMAIN, IOVA, 9, false)]);
    bench.run_queue_with(&mut d);
    assert_eq!(d.asked, 0, "AM 9 covers 2 MiB");
    assert_eq!(bench.read(IOVA).translation().pa, Pa(0x3000));
}

#[test]
fn which_iotlb_entry_is_evicted_is_asked_of_the_caller() {
    for (answer, gone) in [(0, 0u64), (1, 1)] {
        let params = Params { iotlb: Geometry::fully_associative(2), ..Params::default() };
        let (mut bench, slot) = Bench::mapped_with(Capabilities::default(), params);
        for n in 1..3 {
            bench.memory.write(slot.offset(n * 8), leaf(Pa(PAGE.0 + n * 4096), 12).into_bits());
        }
        bench.read(IOVA);
        bench.read(IOVA.offset(4096));
        let mut d = Scripted::new(|q| matches!(q, Question::EvictIotlb { ways: 2 }), answer);
        bench.translate_with(IOVA.offset(2 * 4096), Access::Read, &mut d);
        assert_eq!(d.asked, 1);
        let left: Vec<_> = bench.unit.caches().iotlb().map(|e| e.page.page_number() - IOVA.page_number()).collect();
        assert!(!left.contains(&gone) && left.contains(&(1 - gone)) && left.contains(&2), "{left:?}");
    }
}

#[test]
fn context_and_paging_structure_evictions_are_asked_too() {
    let one = Geometry::fully_associative(1);
    let params = Params { context: one, psc: [one, one, one, one], ..Params::default() };
    let (mut bench, _) = Bench::mapped_with(Capabilities::default(), params);
    bench.read(IOVA);
    let tables = bench.tables.second_stage(4);
    let other = Bdf::new(0x3b, 1, 0);
    bench.tables.attach(&mut bench.memory, other, DomainId(6), tables);
    bench.tables.map(&mut bench.memory, tables, IOVA, PAGE, 12);
    // A single way leaves no choice, so nothing is asked.
    let mut asked = 0;
    let mut d = |_: Question| -> u32 {
        asked += 1;
        0
    };
    let request = iommu_model::Request { source: other, iova: IOVA, access: Access::Read, pasid: None };
    let walk = bench.unit.begin(request).expect("a walker is free");
    bench.finish_with(walk, &mut d).translation();
    assert_eq!(asked, 0);
    assert_eq!(bench.unit.caches().contexts().count(), 1);
    assert_eq!(bench.unit.caches().psc().count(), 3);
    assert!(bench.unit.caches().psc().all(|e| e.domain == DomainId(6)));

    let two = Geometry::fully_associative(2);
    let params = Params { context: two, psc: [two, two, two, two], ..Params::default() };
    let mut bench = Bench::with(Capabilities::default(), params);
    for n in 0..3u8 {
        let tables = bench.tables.second_stage(4);
        bench.tables.attach(&mut bench.memory, Bdf::new(0x3b, n, 0), DomainId(u16::from(n) + 1), tables);
        bench.tables.map(&mut bench.memory, tables, IOVA, PAGE, 12);
    }
    let mut seen = Vec::new();
    for n in 0..3 {
        let request = iommu_model::Request { source: Bdf::new(0x3b, n, 0), iova: IOVA, access: Access::Read, pasid: None };
        let walk = bench.unit.begin(request).expect("a walker is free");
        bench.finish_with(walk, &mut |question: Question| -> u32 {
            seen.push(question);
            0
        });
    }
    let psc = |level| Question::EvictPsc { ways: 2, level };
    assert_eq!(seen, [Question::EvictContext { ways: 2 }, psc(4), psc(3), psc(2)]);
}

#[test]
fn a_cached_pointer_may_be_ignored_and_the_walk_starts_at_the_top() {
    let (mut bench, slot) = Bench::mapped();
    bench.memory.write(slot.offset(8), leaf(OTHER_PAGE, 12).into_bits());
    bench.read(IOVA);
    let mut d = Scripted::new(|q| matches!(q, Question::UsePsc { level: 2 }), 1);
    let ended = bench.translate_with(IOVA.offset(4096), Access::Read, &mut d);
    assert_eq!((d.asked, ended.fetched.len()), (1, 4));
    assert_eq!(ended.translation().from, CacheHit::None);
}

#[test]
fn an_old_small_page_and_a_new_superpage_stand_side_by_side() {
    let (mut bench, _) = Bench::mapped();
    let level_2 = bench.read(IOVA).provenance[6].pa;
    bench.memory.write(level_2, leaf(Pa(0x20_0000), 21).into_bits());
    bench.invalidate(&[commands::iotlb_pages(DOMAIN, IOVA.offset(4096), 0, false)]);
    assert_eq!(bench.read(IOVA.offset(4096)).translation().page_bytes, 2 << 20);
    for (answer, pa) in [(0, PAGE), (1, Pa(0x20_3000))] {
        let mut d = Scripted::new(|q| matches!(q, Question::ChooseIotlb { ways: 2 }), answer);
        let ended = bench.translate_with(IOVA, Access::Read, &mut d);
        assert_eq!((d.asked, ended.translation().pa), (1, pa));
    }
}

#[test]
fn an_entry_that_denies_the_access_faults_or_is_walked_again_as_asked() {
    let (mut bench, slot) = Bench::mapped();
    bench.memory.write(slot, leaf(PAGE, 12).with_write(false).into_bits());
    bench.read(IOVA);
    bench.memory.write(slot, leaf(PAGE, 12).into_bits());
    let faults = bench.translate_with(IOVA, Access::Write, &mut Plain);
    assert_eq!(faults.fault().reason.code(), 0x05, "a spurious fault from the narrower entry");
    let mut d = Scripted::new(|q| q == Question::RewalkDenied, 1);
    let ended = bench.translate_with(IOVA, Access::Write, &mut d);
    assert!(ended.translation().writable);
    assert!(bench.translate_with(IOVA, Access::Write, &mut Plain).fetched.is_empty(), "replaced");
}

#[test]
fn nothing_that_faults_is_cached_without_caching_mode() {
    let (mut bench, slot) = Bench::mapped();
    for word in [0, leaf(PAGE, 12).with_reserved_62(true).into_bits()] {
        bench.memory.write(slot, word);
        let mut d = Scripted::new(|q| q == Question::CacheNotPresent, 1);
        bench.translate_with(IOVA, Access::Read, &mut d).fault();
        assert_eq!((d.asked, bench.unit.caches().iotlb().count()), (0, 0));
    }
    bench.read_from(Bdf::new(0x3b, 9, 0), IOVA).fault();
    assert_eq!(bench.unit.caches().contexts().count(), 1, "only the good one");
}

#[test]
fn caching_mode_may_keep_a_not_present_page_until_it_is_invalidated() {
    let cap = Capabilities { caching_mode: true, ..Capabilities::default() };
    let (mut bench, slot) = Bench::mapped_with(cap, Params::default());
    bench.memory.write(slot, 0);
    let mut d = Scripted::new(|q| q == Question::CacheNotPresent, 1);
    assert_eq!(bench.translate_with(IOVA, Access::Read, &mut d).fault().reason.code(), 0x06);
    bench.memory.write(slot, leaf(PAGE, 12).into_bits());
    assert_eq!(bench.read(IOVA).fault().reason.code(), 0x06, "mapped without a flush");
    bench.invalidate(&[commands::iotlb_pages(DOMAIN, IOVA, 0, true)]);
    bench.read(IOVA).translation();
}

#[test]
fn caching_mode_keeps_a_not_present_context_entry_in_domain_zero() {
    let cap = Capabilities { caching_mode: true, ..Capabilities::default() };
    let mut bench = Bench::with(cap, Params::default());
    bench.tables.context_entry_pa(&mut bench.memory, DEVICE);
    let mut d = Scripted::new(|q| q == Question::CacheNotPresent, 1);
    assert_eq!(bench.translate_with(IOVA, Access::Read, &mut d).fault().reason.code(), 0x02);
    bench.attach_and_map(4, 12);
    assert_eq!(bench.read(IOVA).fault().reason.code(), 0x02);
    bench.invalidate(&[commands::context_domain(DOMAIN)]);
    assert_eq!(bench.read(IOVA).fault().reason.code(), 0x02, "it is not of the new domain");
    bench.invalidate(&[commands::context_device(DomainId(0), DEVICE)]);
    bench.read(IOVA).translation();
}

#[test]
fn an_invalidation_may_reach_further_than_asked() {
    let (mut bench, _) = Bench::mapped();
    for (answer, left) in [(0, 1), (1, 0), (2, 0)] {
        bench.read(IOVA);
        let mut d = Scripted::new(|q| q == Question::OverInvalidate { wider: 2 }, answer);
        bench.submit(&[commands::iotlb_pages(DOMAIN, IOVA.offset(4096), 0, false)]);
        bench.run_queue_with(&mut d);
        assert_eq!((d.asked, bench.unit.caches().iotlb().count()), (1, left));
    }
}

#[test]
fn a_unit_without_page_selection_drops_the_whole_domain() {
    let cap = Capabilities { page_selective: false, mask_max: 0, ..Capabilities::default() };
    let (mut bench, _) = Bench::mapped_with(cap, Params::default());
    bench.read(IOVA);
    bench.invalidate(&[commands::iotlb_pages(DOMAIN, Iova(0), 0, true)]);
    assert_eq!(bench.unit.caches().iotlb().count(), 0);
}

#[test]
fn a_device_selective_invalidation_with_a_wrong_domain_is_asked_about() {
    for (answer, left) in [(1, 1), (0, 0)] {
        let (mut bench, _) = Bench::mapped();
        bench.read(IOVA);
        let mut d = Scripted::new(|q| q == Question::KeepOtherDomain, answer);
        bench.submit(&[commands::context_device(DomainId(6), DEVICE)]);
        bench.run_queue_with(&mut d);
        assert_eq!((d.asked, bench.unit.caches().contexts().count()), (1, left));
    }
}

#[test]
fn an_entry_may_vanish_at_any_time() {
    let (mut bench, _) = Bench::mapped();
    bench.read(IOVA);
    let mut n = 0;
    while bench.unit.drop_cached(0) {
        n += 1;
    }
    assert_eq!(n, 1 + 1 + 3, "context, page, three pointers");
    assert!(bench.unit.caches().is_empty());
    assert_eq!(bench.read(IOVA).fetched.len(), 6);
}

/// A context entry that still names the old domain refills the IOTLB after the IOTLB was flushed.
#[test]
fn flushing_the_iotlb_before_the_context_cache_leaves_the_old_domain_behind() {
    let run = |order: [u128; 2]| {
        let (mut bench, _) = Bench::mapped();
        bench.read(IOVA);
        let tables = bench.tables.second_stage(4);
        bench.tables.map(&mut bench.memory, tables, IOVA, OTHER_PAGE, 12);
        let entry = bench.tables.context_entry_pa(&mut bench.memory, DEVICE);
        bench.memory.write_wide(entry, context(DOMAIN, tables).into_bits());
        bench.invalidate(&order[..1]);
        bench.read(IOVA);
        bench.invalidate(&order[1..]);
        bench.read(IOVA).translation().pa
    };
    let (context, iotlb) = (commands::context_device(DOMAIN, DEVICE), commands::iotlb_domain(DOMAIN));
    assert_eq!(run([iotlb, context]), PAGE, "refilled in between");
    assert_eq!(run([context, iotlb]), OTHER_PAGE);
}

#[test]
fn provenance_tells_a_stale_entry_from_a_fresh_one() {
    let (mut bench, slot) = Bench::mapped();
    bench.read(IOVA);
    let stale = |bench: &Bench| {
        let entries = bench.unit.caches().iotlb();
        entries.flat_map(|e| bench.unit.caches().provenance(e.provenance)).filter(|s| bench.memory.read(s.pa) != s.value).count()
    };
    assert_eq!(stale(&bench), 0);
    bench.memory.write(slot, leaf(OTHER_PAGE, 12).into_bits());
    assert_eq!(stale(&bench), 1);
    let kinds: Vec<_> = bench.unit.caches().psc().map(|e| bench.unit.caches().provenance(e.provenance).last().map(|s| s.kind)).collect();
    assert_eq!(kinds, [2, 3, 4].map(|level| Some(FetchKind::Table { level })));
}
