//! Host page tables: levels, sizes, permissions, and what a walk fetches.

use super::support::tables::{host_device, open, shift_of};
use super::support::{Bench, DEVICE, DOMAIN, IOVA, PAGE, Scripted};
use iommu_model::amd::Capabilities;
use iommu_model::spec::amd::device_table::{DeviceEntryLow, HAD_ACCESSED, HAD_ACCESSED_DIRTY};
use iommu_model::spec::amd::host_table::HostEntry;
use iommu_model::{Access, CacheHit, FetchKind, Geometry, Iova, PAGE_SIZE, Pa, Params, Progress, Question, Request};

#[test]
fn a_walk_fetches_the_device_entry_and_one_entry_a_level() {
    for levels in 1..=6 {
        let mut bench = Bench::new();
        let iova = Iova(0x3000);
        bench.attach_and_map(levels, iova, PAGE, 12);
        let ended = bench.read(iova.offset(0x123));
        assert_eq!(ended.pa(), PAGE.offset(0x123), "{levels} levels");
        let mut expected = vec![FetchKind::DeviceTableEntry];
        expected.extend((1..=levels).rev().map(|level| FetchKind::Table { level }));
        assert_eq!(ended.fetched, expected);
        assert_eq!(ended.translation().fetches, u32::from(levels) + 1);
        assert_eq!(ended.provenance.len(), 4 + usize::from(levels), "four words of the device entry");
        assert_eq!(ended.translation().domain, DOMAIN);
    }
}

#[test]
fn six_levels_translate_the_whole_address_space() {
    let mut bench = Bench::new();
    let iova = Iova(0xfedc_ba98_7654_3000);
    bench.attach_and_map(6, iova, PAGE, 12);
    assert_eq!(bench.read(iova).pa(), PAGE);
}

#[test]
fn every_power_of_two_is_a_page_size() {
    for shift in 12..=51 {
        let mut bench = Bench::new();
        let iova = Iova(1 << 51);
        let page = Pa(1 << shift & ((1 << 52) - 1));
        bench.attach_and_map(6, iova, page, shift);
        let last = (1u64 << shift) - 8;
        let ended = bench.read(iova.offset(last));
        assert_eq!((ended.pa(), ended.translation().page_bytes), (page.offset(last), 1 << shift));
        let again = bench.read(iova.offset(last));
        assert_eq!((again.pa(), again.translation().from), (page.offset(last), CacheHit::Iotlb), "shift {shift}");
        assert!(matches!(bench.read(iova.offset(1 << shift)).progress, Progress::Fault(_)), "beyond the page");
    }
}

#[test]
fn a_table_entry_may_skip_levels_whose_address_bits_are_zero() {
    let mut bench = Bench::new();
    let iova = Iova(0x5000);
    let root = (bench.tables.frame(), 4);
    bench.attach(host_device(root, DOMAIN.0));
    let last = bench.tables.frame();
    bench.memory.write(root.0, open(1).with_frame(last.pfn().0).into_bits());
    bench.memory.write(last.offset(5 * 8), open(0).with_frame(PAGE.pfn().0).into_bits());
    let ended = bench.read(iova);
    assert_eq!(ended.pa(), PAGE);
    assert_eq!(ended.fetched, [FetchKind::DeviceTableEntry, FetchKind::Table { level: 4 }, FetchKind::Table { level: 1 }]);
    // The cached entry of level 4 leads there too; the skipped bits are checked as if it had been fetched.
    let skipped = bench.read(iova.offset(1 << shift_of(2)));
    let fresh = {
        let mut bench = bench.clone();
        bench.invalidate(&[super::support::commands::all()]);
        bench.read(iova.offset(1 << shift_of(2)))
    };
    assert_eq!(skipped.event(), fresh.event());
}

#[test]
fn permissions_are_those_of_every_level_and_of_the_device_entry() {
    for (level, deny_read) in [(1, true), (2, false), (3, true), (4, false)] {
        let (mut bench, _) = Bench::mapped();
        let pa = bench.host_entry(IOVA, level);
        let entry = HostEntry::from_bits(bench.memory.read(pa));
        let denied = if deny_read { entry.with_read(false) } else { entry.with_write(false) };
        bench.memory.write(pa, denied.into_bits());
        assert_eq!(matches!(bench.read(IOVA).progress, Progress::Done(_)), !deny_read, "level {level}");
        assert_eq!(matches!(bench.store(IOVA).progress, Progress::Done(_)), deny_read, "level {level}");
    }
    let (mut bench, _) = Bench::mapped();
    bench.change_device(|entry| entry.with_write(false));
    assert!(!bench.read(IOVA).translation().writable);
    assert!(matches!(bench.store(IOVA).progress, Progress::Fault(_)));
}

#[test]
fn a_device_entry_without_v_lets_every_address_pass_untranslated() {
    let mut bench = Bench::new();
    let ended = bench.store(IOVA);
    assert_eq!((ended.pa(), ended.translation().pass_through), (Pa(IOVA.0), true), "a device table full of zeroes is open");
    bench.attach(DeviceEntryLow::new().with_mode(7).with_reserved_2(3).with_domain(9));
    bench.invalidate(&[super::support::commands::device(DEVICE)]);
    assert!(bench.store(IOVA).translation().pass_through, "nothing but V counts");
}

#[test]
fn mode_zero_passes_what_ir_and_iw_allow() {
    let mut bench = Bench::new();
    bench.attach(DeviceEntryLow::new().with_valid(true).with_translation_valid(true).with_read(true).with_domain(3));
    let ended = bench.read(IOVA);
    assert_eq!((ended.pa(), ended.translation().pass_through, ended.translation().writable), (Pa(IOVA.0), true, false));
    assert!(matches!(bench.store(IOVA).progress, Progress::Fault(_)));
    assert!(bench.unit.caches().tlb().next().is_none(), "nothing was translated");
}

#[test]
fn a_disabled_unit_looks_at_no_table() {
    let (mut bench, _) = Bench::mapped();
    bench.control(|control| control.with_enable(false));
    let ended = bench.store(IOVA);
    assert!(matches!(ended.progress, Progress::Untranslated { pa, .. } if pa.0 == IOVA.0));
    assert!(ended.fetched.is_empty());
}

#[test]
fn a_write_in_the_interrupt_range_is_a_message_and_a_read_is_not() {
    let (mut bench, _) = Bench::mapped();
    assert!(matches!(bench.store(Iova(0xfeef_fffc)).progress, Progress::InterruptMessage { .. }));
    assert!(matches!(bench.read(Iova(0xfee0_0000)).progress, Progress::Fault(_)));
    assert!(matches!(bench.store(Iova(0xfef0_0000)).progress, Progress::Fault(_)));
}

#[test]
fn the_exclusion_range_passes_for_devices_with_ex_or_for_all() {
    use iommu_model::amd::Register;
    use iommu_model::spec::amd::register::{ExclusionBase, ExclusionLimit};
    let (mut bench, _) = Bench::mapped();
    let inside = Iova(0x10_1ff8);
    let base = ExclusionBase::new().with_enable(true).with_page(0x100);
    bench.write(Register::ExclusionBase, base.into_bits());
    bench.write(Register::ExclusionLimit, ExclusionLimit::new().with_page(0x101).into_bits());
    assert!(matches!(bench.store(inside).progress, Progress::Fault(_)), "neither EX nor Allow");
    bench.write(Register::ExclusionBase, base.with_allow(true).into_bits());
    assert_eq!(bench.store(inside).pa(), Pa(inside.0));
    assert!(matches!(bench.store(Iova(0x10_2000)).progress, Progress::Fault(_)), "the limit names the last page");
    bench.write(Register::ExclusionBase, base.into_bits());
    bench.change_device(|entry| entry.with_exclusion(true));
    bench.invalidate(&[super::support::commands::device(DEVICE)]);
    assert_eq!(bench.store(inside).pa(), Pa(inside.0));
}

#[test]
fn with_had_a_is_set_in_every_entry_and_d_in_the_leaf_of_a_write() {
    let (mut bench, leaf) = Bench::mapped();
    bench.change_device(|entry| entry.with_host_access_dirty(HAD_ACCESSED_DIRTY));
    let entries: Vec<Pa> = (1..=4).rev().map(|level| bench.host_entry(IOVA, level)).collect();
    assert_eq!(bench.read(IOVA).updated, entries);
    let word = |bench: &Bench| HostEntry::from_bits(bench.memory.read(leaf));
    assert!(word(&bench).accessed() && !word(&bench).dirty());
    let ended = bench.store(IOVA);
    assert_eq!(ended.updated, [leaf], "the translation of the read does not serve the write");
    assert!(word(&bench).dirty());
    assert_eq!(bench.store(IOVA).translation().from, CacheHit::Iotlb);
}

#[test]
fn had_01_sets_a_only_and_00_nothing() {
    let (mut bench, leaf) = Bench::mapped();
    assert!(bench.store(IOVA).updated.is_empty());
    let (mut accessed, leaf_accessed) = Bench::mapped();
    assert_eq!(leaf, leaf_accessed);
    accessed.change_device(|entry| entry.with_host_access_dirty(HAD_ACCESSED));
    assert_eq!(accessed.store(IOVA).updated.len(), 4);
    assert!(!HostEntry::from_bits(accessed.memory.read(leaf)).dirty());
}

#[test]
fn an_update_never_brings_back_an_entry_that_was_cleared_meanwhile() {
    let (mut bench, leaf) = Bench::mapped();
    bench.change_device(|entry| entry.with_host_access_dirty(HAD_ACCESSED));
    let walk = bench.begin(IOVA, Access::Read);
    let mut answer = None;
    let progress = loop {
        match bench.unit.advance(walk, answer.take(), &mut iommu_model::Plain) {
            Progress::Fetch { pa, bytes, .. } => answer = Some(bench.memory.fetch(pa, bytes)),
            Progress::Update { pa, old, new, .. } => {
                if pa == leaf {
                    bench.memory.write(leaf, 0);
                }
                answer = Some(bench.memory.compare_exchange(pa, old, new));
            }
            progress if progress.is_end() => break progress,
            _ => {}
        }
    };
    assert!(matches!(progress, Progress::Fault(_)));
    assert_eq!(bench.memory.read(leaf), 0);
}

#[test]
fn one_call_answers_what_two_look_ups_would() {
    let (mut bench, _) = Bench::mapped();
    let request = Request { source: DEVICE, iova: IOVA.offset(8), access: Access::Write, pasid: None };
    assert_eq!(bench.unit.translate_cached(&request), None);
    bench.read(IOVA);
    let mut stepped = bench.clone();
    let translation = bench.unit.translate_cached(&request).expect("it is cached");
    assert_eq!(translation, *stepped.run(request).translation());
    assert_eq!(*bench.unit.last_provenance(), *stepped.unit.last_provenance());
}

#[test]
fn a_translation_that_a_write_found_grants_reads_only_if_every_level_does() {
    for level in 1..=4 {
        let (mut bench, _) = Bench::mapped();
        let pa = bench.host_entry(IOVA, level);
        let entry = HostEntry::from_bits(bench.memory.read(pa));
        bench.memory.write(pa, entry.with_read(false).into_bits());
        assert!(!bench.store(IOVA).translation().readable, "level {level}");
        // From the TLB, and by way of the cached entries above.
        assert!(matches!(bench.read(IOVA).progress, Progress::Fault(_)));
        bench.unit.drop_cached(1);
        assert!(matches!(bench.read(IOVA).progress, Progress::Fault(_)));
    }
}

#[test]
fn a_cached_denial_may_be_walked_again() {
    let (mut bench, leaf) = Bench::mapped();
    let word = bench.memory.read(leaf);
    bench.memory.write(leaf, HostEntry::from_bits(word).with_write(false).into_bits());
    bench.read(IOVA);
    bench.memory.write(leaf, word);
    assert!(matches!(bench.store(IOVA).progress, Progress::Fault(_)), "the denial is cached");
    let mut again = Scripted::new(|question| question == Question::RewalkDenied, 1);
    let ended = bench.run_with(Bench::request(IOVA, Access::Write), &mut again);
    assert_eq!((ended.pa(), ended.fetched.len(), again.asked), (PAGE, 1, 1));
}

#[test]
fn who_has_to_leave_a_full_cache_is_asked() {
    let params = Params { iotlb: Geometry::fully_associative(2), ..Params::default() };
    for (answer, survivor) in [(0, 1), (1, 0)] {
        let (mut bench, _) = Bench::mapped_with(Capabilities::default(), params.clone());
        let root = bench.host_root();
        let pages: Vec<Iova> = (0..3).map(|n| IOVA.offset(n * PAGE_SIZE)).collect();
        for &page in &pages {
            bench.tables.map_host(&mut bench.memory, root, page, PAGE, 12);
        }
        let mut evicts = Scripted::new(|question| matches!(question, Question::EvictIotlb { ways: 2 }), answer);
        for &page in &pages {
            bench.run_with(Bench::request(page, Access::Read), &mut evicts);
        }
        assert_eq!(evicts.asked, 1);
        let left: Vec<Iova> = bench.unit.caches().tlb().map(|entry| entry.page).collect();
        assert_eq!(left, [pages[survivor], pages[2]]);
    }
}

#[test]
fn pages_of_two_sizes_at_one_address_are_chosen_from() {
    let mut bench = Bench::new();
    let root = (bench.tables.frame(), 4);
    bench.attach(host_device(root, DOMAIN.0));
    let iova = Iova(0x20_0000);
    bench.tables.map_host(&mut bench.memory, root, iova, PAGE, 12);
    bench.read(iova);
    // Software puts a large page in its place, and touches its second half first.
    let pa = bench.tables.host_entry(&mut bench.memory, root, iova, 2);
    bench.memory.write(pa, open(0).with_frame(0x400).into_bits());
    bench.invalidate(&[super::support::commands::page(DOMAIN, iova.offset(0x1000)).with_directories(true).into_bits()]);
    bench.read(iova.offset(0x1000));
    assert_eq!(bench.read(iova).pa(), PAGE, "the smaller page");
    let mut larger = Scripted::new(|question| question == Question::ChooseIotlb { ways: 2 }, 1);
    assert_eq!(bench.run_with(Bench::request(iova, Access::Read), &mut larger).pa(), Pa(0x40_0000));
}
