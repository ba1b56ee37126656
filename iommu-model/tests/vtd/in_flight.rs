//! Several walks at once: bounds, merging, and invalidations that meet them halfway.

use super::support::bench::{DEVICE, DOMAIN, IOVA, OTHER_PAGE, PAGE};
use super::support::tables::leaf;
use super::support::{Bench, commands};
use iommu_model::{Access, Busy, FetchKind, Iova, Plain, Progress, Request};

const LEAF: FetchKind = FetchKind::Table { level: 1 };

#[test]
fn the_seventeenth_walk_finds_every_walker_taken() {
    let (mut bench, _) = Bench::mapped();
    let walks: Vec<_> = (0..16).map(|n| bench.begin(IOVA.offset(n * 4096), Access::Read)).collect();
    let request = Request { source: DEVICE, iova: Iova(0), access: Access::Read, pasid: None };
    assert_eq!(bench.unit.begin(request), Err(Busy));
    assert!(bench.unit.cancel(walks[3]));
    assert!(!bench.unit.cancel(walks[3]), "it is gone");
    let again = bench.unit.begin(request).expect("a walker is free again");
    assert_eq!(again.slot(), walks[3].slot());
    assert_ne!(again, walks[3]);
    assert_eq!(bench.unit.in_flight().count(), 16);
}

#[test]
fn a_second_request_to_the_same_page_waits_for_the_first_and_then_hits() {
    let (mut bench, _) = Bench::mapped();
    let first = bench.begin(IOVA, Access::Read);
    let second = bench.begin(IOVA.offset(8), Access::Write);
    let waits = bench.unit.advance(second, None, &mut Plain);
    assert!(matches!(waits, Progress::Merged { leader, .. } if leader == first));
    assert_eq!(bench.finish(first).fetched.len(), 6);
    assert!(bench.finish(second).fetched.is_empty());
}

#[test]
fn a_merged_request_goes_on_when_its_leader_is_cancelled() {
    let (mut bench, _) = Bench::mapped();
    let first = bench.begin(IOVA, Access::Read);
    let second = bench.begin(IOVA, Access::Read);
    bench.unit.cancel(first);
    assert_eq!(bench.finish(second).fetched.len(), 6);
}

#[test]
fn merging_can_be_switched_off() {
    let params = iommu_model::Params { merge_same_page: false, ..Default::default() };
    let (mut bench, _) = Bench::mapped_with(Default::default(), params);
    let first = bench.begin(IOVA, Access::Read);
    let second = bench.begin(IOVA, Access::Read);
    assert_eq!(bench.finish(second).fetched.len(), 6);
    assert!(bench.finish(first).fetched.is_empty(), "the other one filled the caches");
}

/// A walk has fetched the old leaf word but not yet delivered it when the page is remapped and invalidated.
#[test]
fn an_invalidation_throws_away_the_word_that_a_walk_still_waits_for() {
    let (mut bench, slot) = Bench::mapped();
    let walk = bench.begin(IOVA, Access::Read);
    let (pa, bytes) = bench.run_to_fetch(walk, LEAF);
    let old = bench.memory.fetch(pa, bytes);
    bench.memory.write(slot, leaf(OTHER_PAGE, 12).into_bits());
    bench.invalidate(&[commands::iotlb_pages(DOMAIN, IOVA, 0, true)]);
    let next = bench.unit.advance(walk, Some(old), &mut Plain);
    assert!(matches!(next, Progress::Lookup { .. }), "it starts over: {next:?}");
    assert_eq!(bench.finish(walk).translation().pa, OTHER_PAGE);
    assert!(bench.unit.caches().iotlb().all(|entry| entry.frame == OTHER_PAGE));
}

/// The same without the invalidation: the old word is used and cached, which is legal.
#[test]
fn without_an_invalidation_the_old_word_is_used_and_stays() {
    let (mut bench, slot) = Bench::mapped();
    let walk = bench.begin(IOVA, Access::Read);
    let (pa, bytes) = bench.run_to_fetch(walk, LEAF);
    let old = bench.memory.fetch(pa, bytes);
    bench.memory.write(slot, leaf(OTHER_PAGE, 12).into_bits());
    let Progress::Done(translation) = bench.unit.advance(walk, Some(old), &mut Plain) else { panic!("no end") };
    assert_eq!(translation.pa, PAGE);
    assert_eq!(bench.read(IOVA).translation().pa, PAGE, "stale until invalidated");
}

#[test]
fn an_invalidation_of_another_range_or_domain_leaves_the_walk_alone() {
    let far = Iova(IOVA.0 + (4 << 20));
    let cases = [
        commands::iotlb_pages(DOMAIN, IOVA.offset(4096), 0, true),
        commands::iotlb_pages(DOMAIN, far, 0, false),
        commands::iotlb_domain(iommu_model::DomainId(6)),
        commands::context_domain(iommu_model::DomainId(6)),
        commands::context_device(DOMAIN, iommu_model::Bdf(0)),
    ];
    for case in cases {
        let (mut bench, slot) = Bench::mapped();
        let walk = bench.begin(IOVA, Access::Read);
        let (pa, bytes) = bench.run_to_fetch(walk, LEAF);
        let old = bench.memory.fetch(pa, bytes);
        bench.memory.write(slot, leaf(OTHER_PAGE, 12).into_bits());
        bench.invalidate(&[case]);
        let end = bench.unit.advance(walk, Some(old), &mut Plain);
        assert!(matches!(&end, Progress::Done(t) if t.pa == PAGE), "{case:#x}: {end:?}");
    }
}

#[test]
fn every_covering_invalidation_restarts_the_walk() {
    let cases = [
        commands::iotlb_pages(DOMAIN, IOVA, 0, true),
        commands::iotlb_pages(DOMAIN, IOVA, 0, false),
        commands::iotlb_pages(DOMAIN, IOVA.offset(4096), 0, false),
        commands::iotlb_domain(DOMAIN),
        commands::iotlb_global(),
        commands::context_device(DOMAIN, DEVICE),
        commands::context_domain(DOMAIN),
        commands::context_global(),
    ];
    for case in cases {
        let (mut bench, slot) = Bench::mapped();
        let walk = bench.begin(IOVA, Access::Read);
        let (pa, bytes) = bench.run_to_fetch(walk, LEAF);
        let old = bench.memory.fetch(pa, bytes);
        bench.memory.write(slot, leaf(OTHER_PAGE, 12).into_bits());
        bench.invalidate(&[case]);
        bench.unit.advance(walk, Some(old), &mut Plain);
        let view = bench.unit.in_flight().next();
        assert!(view.is_some(), "{case:#x}: still walking");
    }
}

#[test]
fn a_walk_that_awaits_a_context_entry_is_restarted_by_context_invalidations_only() {
    for (case, restarted) in [
        (commands::context_device(DOMAIN, DEVICE), true),
        (commands::context_domain(DOMAIN), true),
        (commands::context_global(), true),
        (commands::iotlb_global(), false),
        (commands::iotlb_domain(DOMAIN), false),
    ] {
        let (mut bench, _) = Bench::mapped();
        let walk = bench.begin(IOVA, Access::Read);
        bench.run_to_fetch(walk, FetchKind::Context);
        bench.invalidate(&[case]);
        let waits = bench.unit.in_flight().next().is_some_and(|view| view.fetch.is_some());
        assert_eq!(!waits, restarted, "{case:#x}");
    }
}

#[test]
fn a_restarted_walk_may_go_on_without_the_answer_that_was_on_its_way() {
    let (mut bench, _) = Bench::mapped();
    let walk = bench.begin(IOVA, Access::Read);
    bench.run_to_fetch(walk, LEAF);
    bench.invalidate(&[commands::iotlb_global()]);
    assert_eq!(bench.finish(walk).translation().pa, PAGE);
}
