//! The caches themselves, and several walks at once: eviction, several sizes for one address, merging, prefetch.

use super::support::bench::{ASID, Bench, IOVA, OTHER_PAGE, PAGE, STREAM, VMID};
use super::support::tables::{commands, page_1, pointer};
use super::support::{DEVICE, Scripted};
use iommu_model::smmu::{Capabilities, Params};
use iommu_model::spec::smmu::event::EventId;
use iommu_model::{Access, Busy, CacheHit, Geometry, Iova, Pa, Plain, Progress, Question, Request};

/// `pages` neighbours, each read once.
fn filled(params: Params, pages: u64) -> Bench {
    let mut bench = Bench::with(Capabilities::default(), params);
    let (_, stage) = bench.attach_1();
    for n in 0..pages {
        bench.map(stage, IOVA.0 + n * 4096, 3, page_1(Pa(PAGE.0 + n * 4096)).into_bits());
    }
    for n in 0..pages {
        bench.read(IOVA.offset(n * 4096));
    }
    bench
}

#[test]
fn which_entry_a_full_tlb_gives_up_is_the_callers_choice() {
    for (rank, gone) in [(0, 0), (1, 1), (3, 3)] {
        let mut bench = Bench::with(Capabilities::default(), Params { tlb: Geometry::fully_associative(4), ..Params::default() });
        let (_, stage) = bench.attach_1();
        for n in 0..5 {
            bench.map(stage, IOVA.0 + n * 4096, 3, page_1(PAGE).into_bits());
        }
        for n in 0..4 {
            bench.read(IOVA.offset(n * 4096));
        }
        let mut d = Scripted::new(|q| matches!(q, Question::EvictIotlb { ways: 4 }), rank);
        bench.read_with(IOVA.offset(4 * 4096), &mut d);
        let held: Vec<_> = bench.unit.caches().tlb().map(|entry| (entry.page.0 - IOVA.0) >> 12).collect();
        assert_eq!((d.asked, held.len(), held.contains(&gone)), (1, 4, false), "{held:?}");
    }
}

#[test]
fn a_walk_cache_may_be_passed_over() {
    for (answer, fetched) in [(0, 1), (1, 4)] {
        let mut bench = filled(Params::default(), 2);
        bench.invalidate(&[commands::nh_va(VMID, ASID, IOVA, true).into_bits()]);
        let mut d = Scripted::new(|q| matches!(q, Question::UseWalk { level: 2 }), answer);
        let ended = bench.read_with(IOVA, &mut d);
        assert_eq!((ended.fetched.len(), d.asked), (fetched, 1));
        assert_eq!(ended.translation().from, if answer == 0 { CacheHit::Psc(2) } else { CacheHit::None });
    }
}

/// A block replaced by a table without break-before-make: both sizes are cached, and one of them answers, or it is a conflict.
#[test]
fn two_sizes_for_one_address_are_a_choice_or_a_conflict() {
    for (level, conflict) in [(2u8, 0), (1, 0), (1, 1), (0, 1)] {
        let cap = Capabilities { break_before_make: level, ..Capabilities::default() };
        let mut bench = Bench::with(cap, Params::default());
        let (_, stage) = bench.attach_1();
        let base = Iova(IOVA.0 & !0x1f_ffff);
        let block = bench.map(stage, base.0, 2, page_1(Pa(0x4000_0000)).with_page(false).with_read_only(true).into_bits());
        bench.read(base.offset(0x1000));
        // The table takes the block's place. A write that the cached block denies walks again, and installs the small page
        // beside the large one.
        let table = bench.frames(1);
        bench.memory.write(table.offset(8), page_1(OTHER_PAGE).into_bits());
        bench.memory.write(block, pointer(table));
        let mut again = Scripted::new(|q| matches!(q, Question::RewalkDenied), 1);
        let write = Request { source: DEVICE, iova: base.offset(0x1000), access: Access::Write, pasid: None };
        assert_eq!(bench.request_with(write, &mut again).translation().pa, OTHER_PAGE);
        assert_eq!(bench.unit.caches().tlb().count(), 2);
        for size in [0, 1] {
            let mut asked = 0;
            let mut d = |question: Question| match question {
                Question::RaiseConflict => conflict,
                Question::ChooseIotlb { ways } => {
                    asked += ways;
                    size
                }
                _ => 0,
            };
            let ended = bench.read_with(base.offset(0x1000), &mut d);
            if level < 2 && conflict == 1 {
                assert_eq!(ended.event(), EventId::TLB_CONFLICT);
            } else {
                let expected = [OTHER_PAGE, Pa(0x4000_1000)][size as usize];
                assert_eq!((ended.translation().pa, asked), (expected, 2));
            }
        }
    }
}

#[test]
fn a_prefetch_fills_the_caches_and_records_nothing() {
    let (mut bench, leaf) = Bench::mapped_1();
    let request = Request { source: DEVICE, iova: IOVA, access: Access::Read, pasid: None };
    let walk = bench.unit.begin_prefetch(request).expect("a walker is free");
    bench.finish(walk);
    assert!(bench.read(IOVA).fetched.is_empty());
    bench.memory.write(leaf.offset(8), 0);
    let walk = bench.unit.begin_prefetch(Request { iova: IOVA.offset(4096), ..request }).expect("a walker is free");
    assert!(!bench.finish(walk).fault().recorded);
    assert!(bench.events().is_empty());
}

#[test]
fn requests_to_one_page_wait_for_each_other_and_walkers_are_bounded() {
    let mut bench = filled(Params { walks_max: 2, ..Params::default() }, 1);
    bench.invalidate(&[commands::nsnh_all()]);
    let first = bench.begin(IOVA, Access::Read);
    let second = bench.begin(IOVA.offset(8), Access::Write);
    let request = Request { source: DEVICE, iova: Iova(0), access: Access::Read, pasid: None };
    assert_eq!(bench.unit.begin(request), Err(Busy));
    assert!(matches!(bench.unit.advance(second, None, &mut Plain), Progress::Merged { leader, .. } if leader == first));
    assert_eq!(bench.finish(first).fetched.len(), 4);
    assert!(bench.finish(second).fetched.is_empty());
}

#[test]
fn costs_are_those_of_the_table_and_add_up() {
    let mut bench = filled(Params::default(), 1);
    bench.invalidate(&[commands::nsnh_all(), commands::cfgi_all()]);
    let timing = bench.unit.params().timing;
    let walk = bench.begin(IOVA, Access::Read);
    let (mut total, mut answer) = (0, None);
    let translation = loop {
        let progress = bench.unit.advance(walk, answer.take(), &mut Plain);
        total += progress.cost();
        match progress {
            Progress::Fetch { pa, bytes, .. } => answer = Some(bench.memory.fetch(pa, bytes)),
            Progress::Done(translation) => break translation,
            _ => {}
        }
    };
    let expected = timing.context_lookup + timing.context_fetch + timing.pasid_fetch + timing.iotlb_lookup + timing.psc_lookup;
    assert_eq!(translation.cost_total, expected + 4 * timing.table_fetch);
    assert_eq!(total, translation.cost_total);
    assert_eq!(bench.read(IOVA).translation().cost_total, timing.context_lookup + timing.iotlb_lookup);
    let view = bench.unit.in_flight().count();
    assert_eq!((view, bench.unit.stream_of(&Request { source: DEVICE, iova: IOVA, access: Access::Read, pasid: None })), (0, STREAM));
}

/// Whatever the state, the shortcut says what the two look-ups would, or nothing.
#[test]
fn the_shortcut_agrees_with_the_walk_or_keeps_out_of_it() {
    let benches = [Bench::mapped_1().0, Bench::mapped_2().0, Bench::mapped_nested().0];
    for mut bench in benches {
        let request = |iova, access| Request { source: DEVICE, iova, access, pasid: None };
        assert_eq!(bench.unit.translate_cached(&request(IOVA, Access::Read)), None, "nothing is cached");
        bench.read(IOVA);
        for access in [Access::Read, Access::Write] {
            let iova = Iova(IOVA.0 | 0x40);
            let mut copy = bench.clone();
            let ended = copy.request_with(request(iova, access), &mut Plain);
            assert_eq!(bench.unit.translate_cached(&request(iova, access)), Some(*ended.translation()));
            assert_eq!(bench.unit.last_provenance(), ended.provenance);
        }
        assert_eq!(bench.unit.translate_cached(&request(IOVA.offset(4096), Access::Read)), None);
        assert_eq!(bench.unit.translate_cached(&Request { pasid: Some(iommu_model::Pasid(0)), ..request(IOVA, Access::Read) }), None);
        let walk = bench.begin(IOVA, Access::Read);
        assert_eq!(bench.unit.translate_cached(&request(IOVA, Access::Read)), None, "it would be merged");
        bench.unit.cancel(walk);
        bench.invalidate(&[commands::nsnh_all()]);
        assert_eq!(bench.unit.translate_cached(&request(IOVA, Access::Read)), None);
    }
    let mut bench = filled(Params::default(), 1);
    let (access, leaf) = (Access::Write, bench.read(IOVA).provenance.last().expect("the leaf").pa);
    bench.invalidate(&[commands::nsnh_all()]);
    bench.memory.write(leaf, page_1(PAGE).with_read_only(true).into_bits());
    bench.read(IOVA);
    assert_eq!(bench.unit.translate_cached(&Request { source: DEVICE, iova: IOVA, access, pasid: None }), None, "refused");
}
