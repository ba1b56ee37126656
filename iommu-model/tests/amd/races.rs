//! Races, each with the bad outcome that the hardware may produce, and with what forbids it.

use super::support::tables::{host_device, open};
use super::support::{Bench, DEVICE, DOMAIN, Guest, IOVA, OTHER_PAGE, PAGE, Scripted, commands};
use iommu_model::amd::{Capabilities, CommandInput, CommandProgress, Register};
use iommu_model::spec::amd::device_table::{DeviceEntryHigh, DeviceEntryLow, GUEST_PAGING_5};
use iommu_model::spec::amd::register::{BufferBase, DeviceTableBase};
use iommu_model::{Access, FetchKind, Fetched, Iova, Pa, Params, Plain, Progress, Question};

const STATUS: Pa = Pa(0x9_0000);

/// |  unit                         |  CPU                                     |
/// |  reads the level-2 entry      |                                          |
/// |                               |  clears it, frees the table              |
/// |                               |  the frame is used for data              |
/// |  reads data as a leaf entry   |                                          |
#[test]
fn a_walk_can_read_a_freed_table_unless_it_is_invalidated_before_the_frame_is_reused() {
    for invalidates in [false, true] {
        let (mut bench, leaf) = Bench::mapped();
        let walk = bench.begin(IOVA, Access::Read);
        bench.run_to_fetch(walk, FetchKind::Table { level: 1 });
        let directory = bench.host_entry(IOVA, 2);
        bench.memory.write(directory, 0);
        if invalidates {
            bench.invalidate(&[commands::page(DOMAIN, IOVA).with_directories(true).into_bits(), commands::wait(None, false)]);
        }
        bench.memory.write(leaf, open(0).with_frame(OTHER_PAGE.pfn().0).into_bits());
        let answer = bench.memory.fetch(leaf, 8);
        match bench.unit.advance(walk, Some(answer), &mut Plain) {
            Progress::Done(translation) => assert!(translation.pa == OTHER_PAGE && !invalidates, "data taken for an entry"),
            _ => {
                assert!(invalidates);
                assert!(matches!(bench.finish(walk).progress, Progress::Fault(_)));
            }
        }
    }
}

#[test]
fn an_old_non_leaf_entry_leads_to_the_old_table_until_pde_removes_it() {
    let (mut bench, _) = Bench::mapped();
    bench.read(IOVA);
    // A new table of level 1 replaces the old one; the neighbour page is mapped in the new one only.
    let fresh = bench.tables.frame();
    let neighbour = IOVA.offset(0x1000);
    bench.memory.write(fresh.offset((neighbour.page_number() & 0x1ff) * 8), open(0).with_frame(OTHER_PAGE.pfn().0).into_bits());
    let directory = bench.host_entry(IOVA, 2);
    bench.memory.write(directory, open(1).with_frame(fresh.pfn().0).into_bits());
    bench.invalidate(&[commands::page(DOMAIN, neighbour).into_bits(), commands::wait(None, false)]);
    assert!(matches!(bench.read(neighbour).progress, Progress::Fault(_)), "PDE = 0 leaves the old path");
    bench.invalidate(&[commands::page(DOMAIN, neighbour).with_directories(true).into_bits(), commands::wait(None, false)]);
    assert_eq!(bench.read(neighbour).pa(), OTHER_PAGE);
}

#[test]
fn a_cached_non_leaf_entry_need_not_be_used() {
    let (mut bench, _) = Bench::mapped();
    bench.read(IOVA);
    let neighbour = Bench::request(IOVA.offset(0x1000), Access::Read);
    assert_eq!(bench.run(neighbour).fetched.len(), 1);
    let ignored = bench.run_with(neighbour, &mut Scripted::new(|question| matches!(question, Question::UsePsc { .. }), 1));
    assert_eq!(ignored.fetched.len(), 4);
}

#[test]
fn an_old_device_entry_is_used_until_its_own_command_removes_it() {
    let (mut bench, _) = Bench::mapped();
    bench.read(IOVA);
    let fresh = (bench.tables.frame(), 4);
    bench.tables.map_host(&mut bench.memory, fresh, IOVA, OTHER_PAGE, 12);
    bench.attach(host_device(fresh, DOMAIN.0 + 1));
    bench.invalidate(&[commands::all_pages(DOMAIN).into_bits(), commands::wait(None, false)]);
    assert_eq!(bench.read(IOVA).pa(), PAGE, "translations refilled from the old device entry");
    bench.invalidate(&[commands::device(DEVICE), commands::wait(None, false)]);
    assert_eq!(bench.read(IOVA).pa(), OTHER_PAGE);
}

/// The order rule: device entry first, then the pages of its domain. The other way round what was refilled in between stays.
#[test]
fn pages_invalidated_before_the_device_entry_can_come_back_under_the_same_domain() {
    for device_first in [false, true] {
        let (mut bench, _) = Bench::mapped();
        bench.read(IOVA);
        let fresh = (bench.tables.frame(), 4);
        bench.tables.map_host(&mut bench.memory, fresh, IOVA, OTHER_PAGE, 12);
        bench.attach(host_device(fresh, DOMAIN.0));
        let (device, pages) = (commands::device(DEVICE), commands::all_pages(DOMAIN).into_bits());
        let [first, second] = if device_first { [device, pages] } else { [pages, device] };
        bench.invalidate(&[first, commands::wait(None, false)]);
        bench.read(IOVA);
        bench.invalidate(&[second, commands::wait(None, false)]);
        assert_eq!(bench.read(IOVA).pa(), if device_first { OTHER_PAGE } else { PAGE });
    }
}

#[test]
fn a_new_device_table_is_not_seen_by_devices_whose_entry_is_cached() {
    let (mut bench, _) = Bench::mapped();
    bench.read(IOVA);
    let old = bench.tables.device_table;
    bench.write(Register::DeviceTableBase, DeviceTableBase::new().with_frame(0x8_0000).with_size(0x1ff).into_bits());
    assert_ne!(old, Pa(0x8000_0000));
    assert_eq!(bench.read(IOVA).pa(), PAGE, "the old kernel's mapping");
    bench.invalidate(&[commands::all(), commands::wait(None, false)]);
    assert!(bench.read(IOVA).translation().pass_through, "the new table is empty: the device is open");
}

#[test]
fn clearing_a_whole_device_entry_opens_the_device_and_clearing_all_but_v_closes_it() {
    let (mut bench, _) = Bench::mapped();
    bench.attach(DeviceEntryLow::new());
    assert_eq!(bench.store(Iova(0xdead_b000)).pa(), Pa(0xdead_b000));
    bench.attach(DeviceEntryLow::new().with_valid(true));
    bench.invalidate(&[commands::device(DEVICE), commands::wait(None, false)]);
    assert!(matches!(bench.store(Iova(0xdead_b000)).progress, Progress::Fault(_)));
}

#[test]
fn a_reused_domain_id_finds_the_translations_of_its_former_owner() {
    let (mut bench, _) = Bench::mapped();
    bench.read(IOVA);
    let fresh = (bench.tables.frame(), 4);
    bench.attach(host_device(fresh, DOMAIN.0));
    bench.invalidate(&[commands::device(DEVICE), commands::wait(None, false)]);
    assert_eq!(bench.read(IOVA).pa(), PAGE, "the new tables are empty");
    bench.invalidate(&[commands::all_pages(DOMAIN).into_bits(), commands::wait(None, false)]);
    assert!(matches!(bench.read(IOVA).progress, Progress::Fault(_)));
}

#[test]
fn a_wait_that_drains_stores_only_after_translated_requests_have_landed() {
    for wait_drains in [true, false] {
        let (mut bench, _) = Bench::mapped_with(Capabilities { wait_drains, ..Capabilities::default() }, Params::default());
        bench.store(IOVA);
        bench.submit(&[commands::page(DOMAIN, IOVA).into_bits(), commands::wait(Some((STATUS, 1)), false)]);
        let mut last = bench.step_commands(CommandInput::Continue, &mut Plain);
        while let CommandProgress::Invalidated { .. } = last {
            last = bench.step_commands(CommandInput::Continue, &mut Plain);
        }
        if wait_drains {
            assert!(matches!(last, CommandProgress::Drain { .. }));
            assert!(matches!(bench.step_commands(CommandInput::Continue, &mut Plain), CommandProgress::Drain { .. }), "it waits");
            last = bench.step_commands(CommandInput::Drained, &mut Plain);
        }
        assert!(matches!(last, CommandProgress::Write { pa: STATUS, data: 1, .. }), "without a drain the write may still be on its way");
    }
}

/// A device entry is read as one, but software stores it in halves.
#[test]
fn a_device_entry_read_between_two_stores_mixes_old_and_new() {
    let mut guest = Guest::new();
    let request = iommu_model::Request { pasid: Some(super::support::PASID), ..Bench::request(IOVA, Access::Read) };
    let walk = guest.bench.unit.begin(request).expect("a walker is free");
    // The upper half already says five levels, the lower one still points at the old tables.
    let pa = guest.bench.device_pa();
    guest.bench.memory.write_wide(pa.offset(16), DeviceEntryHigh::new().with_guest_paging(GUEST_PAGING_5).into_bits());
    guest.bench.run_to_fetch(walk, FetchKind::FirstStage { level: 5 });
    guest.bench.memory.write_wide(pa.offset(16), DeviceEntryHigh::new().into_bits());
    guest.bench.invalidate(&[commands::device(DEVICE), commands::wait(None, false)]);
    guest.bench.unit.advance(walk, Some(Fetched::word(0)), &mut Plain);
    assert_eq!(guest.bench.finish(walk).pa(), PAGE, "the invalidation that follows restarts what used the mix");
}

#[test]
fn with_npcache_a_new_mapping_faults_until_it_is_invalidated() {
    let cap = Capabilities { not_present_cached: true, ..Capabilities::default() };
    let (mut bench, leaf) = Bench::mapped_with(cap, Params::default());
    let word = bench.memory.read(leaf);
    bench.memory.write(leaf, 0);
    let mut caches = Scripted::new(|question| question == Question::CacheNotPresent, 1);
    assert!(matches!(bench.run_with(Bench::request(IOVA, Access::Read), &mut caches).progress, Progress::Fault(_)));
    assert_eq!(caches.asked, 1);
    bench.memory.write(leaf, word);
    let ended = bench.read(IOVA);
    assert!(matches!(ended.progress, Progress::Fault(_)) && ended.fetched.is_empty());
    bench.invalidate(&[commands::page(DOMAIN, IOVA).into_bits(), commands::wait(None, false)]);
    assert_eq!(bench.read(IOVA).pa(), PAGE);
    // Without NpCache nobody is asked.
    let (mut bench, leaf) = Bench::mapped();
    bench.memory.write(leaf, 0);
    let mut caches = Scripted::new(|question| question == Question::CacheNotPresent, 1);
    bench.run_with(Bench::request(IOVA, Access::Read), &mut caches);
    assert_eq!(caches.asked, 0);
}

/// A new kernel switches the buffer off while the old one's wait is under way, and finds its memory written.
#[test]
fn a_wait_under_way_stores_for_its_former_owner_unless_cmdbufrun_is_waited_for() {
    let (mut bench, _) = Bench::mapped();
    bench.submit(&[commands::wait(Some((STATUS, 0x01d)), false), commands::all()]);
    assert!(matches!(bench.step_commands(CommandInput::Continue, &mut Plain), CommandProgress::Write { .. }));
    bench.control(|control| control.with_command_buffer(false));
    assert!(bench.status().command_run(), "which is what software has to look at");
    bench.write(Register::CommandBase, BufferBase::new().with_frame(0x700).with_length(8).into_bits());
    assert!(matches!(bench.step_commands(CommandInput::Continue, &mut Plain), CommandProgress::Write { pa: STATUS, data: 0x01d, .. }));
    bench.step_commands(CommandInput::Written, &mut Plain);
    assert!(!bench.status().command_run() && !bench.unit.command_has_work(), "the command behind it is not begun");
}

#[test]
fn whatever_is_cached_can_be_dropped_at_any_time() {
    let (mut bench, leaf) = Bench::mapped();
    bench.read(IOVA);
    bench.memory.write(leaf, open(0).with_frame(OTHER_PAGE.pfn().0).into_bits());
    assert_eq!(bench.unit.caches().len(), 5);
    assert!(bench.unit.drop_cached(1), "the translation");
    assert_eq!(bench.read(IOVA).pa(), OTHER_PAGE);
    while bench.unit.drop_cached(0) {}
    assert!(bench.unit.caches().is_empty());
}
