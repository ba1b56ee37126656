//! Guest translation: PASIDs, GCR3 tables, guest page tables, alone and on host tables.

use super::support::guest::uncached;
use super::support::tables::{guest_open, open};
use super::support::{Bench, DEVICE, DOMAIN, Guest, IOVA, OTHER_PAGE, PAGE, PASID, Scripted, Shape, commands};
use iommu_model::spec::amd::event::{EventCode, EventFlags};
use iommu_model::spec::amd::guest_table::GuestEntry;
use iommu_model::spec::amd::host_table::HostEntry;
use iommu_model::{Access, CacheHit, FetchKind, Iova, Pa, Pasid, Progress, Question};

const GUEST: EventFlags = EventFlags::new().with_guest(true).with_user(true);
const PRESENT: EventFlags = GUEST.with_present(true);
const DENIED: EventFlags = PRESENT.with_permission(true);
const RESERVED: EventFlags = PRESENT.with_reserved_not_zero(true);

#[test]
fn a_guest_walk_fetches_every_level_of_both_tables() {
    for root_levels in 1..=3 {
        for levels in [4, 5] {
            let mut guest = Guest::with(Shape { root_levels, levels, ..Shape::default() });
            let ended = guest.read();
            assert_eq!(ended.pa(), PAGE);
            let mut expected = vec![FetchKind::DeviceTableEntry];
            expected.extend((1..=root_levels).rev().map(|level| FetchKind::GuestCr3 { level }));
            expected.extend((1..=levels).rev().map(|level| FetchKind::FirstStage { level }));
            assert_eq!(ended.fetched, expected);
            assert_eq!(guest.read().translation().from, CacheHit::Iotlb);
        }
    }
}

#[test]
fn a_nested_walk_sends_each_guest_entry_through_the_host_tables() {
    for (levels, host_levels) in [(4, 4), (5, 6), (4, 3)] {
        let mut guest = Guest::with(Shape { levels, host_levels: Some(host_levels), params: uncached(), ..Shape::default() });
        let ended = guest.store();
        assert_eq!(ended.pa(), PAGE);
        let (levels, host_levels) = (u32::from(levels), u32::from(host_levels));
        assert_eq!(ended.translation().fetches, 1 + 1 + levels * (host_levels + 1) + host_levels);
        let words = 4 + 1 + levels * (host_levels + 1) + host_levels;
        assert_eq!(ended.provenance.len(), words as usize);
        assert_eq!(ended.provenance.last().map(|source| source.kind), Some(FetchKind::Table { level: 1 }));
    }
}

#[test]
fn under_gcr3trpmode_the_gcr3_table_is_in_the_guest() {
    let shape = Shape { root_levels: 2, host_levels: Some(4), params: uncached(), ..Shape::default() };
    let mut guest = Guest::with(shape);
    assert_eq!(guest.read().translation().fetches, 1 + 2 + 4 * 5 + 4);
    guest.bench.control(|control| control.with_guest_root_is_guest(true));
    let ended = guest.read();
    assert_eq!((ended.pa(), ended.translation().fetches), (PAGE, 1 + 2 * 5 + 4 * 5 + 4));
}

#[test]
fn a_is_set_level_by_level_and_d_in_the_leaf_of_a_write() {
    let mut guest = Guest::new();
    let entries: Vec<Pa> = (1..=4).rev().map(|level| guest.entry(level)).collect();
    assert_eq!(guest.read().updated, entries);
    assert!(!GuestEntry::from_bits(guest.bench.memory.read(guest.leaf)).dirty());
    assert_eq!(guest.store().updated, [guest.leaf]);
    assert!(guest.store().updated.is_empty());
}

#[test]
fn software_can_switch_the_updates_off() {
    let mut guest = Guest::new();
    guest.bench.control(|control| control.with_no_guest_accessed(true).with_no_guest_dirty(true));
    assert!(guest.store().updated.is_empty());
}

#[test]
fn large_guest_pages_translate_and_their_low_bits_are_reserved() {
    for (level, bytes) in [(2, 2u64 << 20), (3, 1 << 30)] {
        let mut guest = Guest::new();
        let page = Pa(bytes * 4);
        let iova = Iova(0x80_0000_0000);
        let leaf = guest.bench.tables.map_guest(&mut guest.bench.memory, guest.root, iova, page, level);
        let last = bytes - 8;
        let ended = guest.bench.access_pasid(iova.offset(last), Access::Read, PASID);
        assert_eq!((ended.pa(), ended.translation().page_bytes), (page.offset(last), bytes));
        // Bit 12 is PAT, bit 13 is reserved.
        guest.change_entry(leaf, |entry| entry.with_frame(entry.frame() | 1));
        guest.bench.invalidate(&[commands::all()]);
        assert_eq!(guest.bench.access_pasid(iova, Access::Read, PASID).pa(), page);
        guest.change_entry(leaf, |entry| entry.with_frame(entry.frame() | 2));
        guest.bench.invalidate(&[commands::all()]);
        guest.bench.access_pasid(iova, Access::Read, PASID).expect_event(EventCode::PAGE_FAULT, RESERVED);
    }
}

#[test]
fn ps_is_reserved_at_the_upper_levels() {
    for level in [4, 5] {
        let mut guest = Guest::with(Shape { levels: 5, ..Shape::default() });
        let pa = guest.entry(level);
        guest.change_entry(pa, |entry| entry.with_page_size(true));
        guest.read().expect_event(EventCode::PAGE_FAULT, RESERVED);
    }
}

#[test]
fn each_guest_level_can_be_not_present() {
    for level in 1..=4 {
        let mut guest = Guest::new();
        let pa = guest.entry(level);
        guest.change_entry(pa, |entry| entry.with_present(false));
        guest.read().expect_event(EventCode::PAGE_FAULT, GUEST);
    }
    let mut guest = Guest::new();
    guest.bench.memory.write(guest.guest_root_entry, 0);
    guest.store().expect_event(EventCode::PAGE_FAULT, GUEST.with_write(true));
}

#[test]
fn write_and_user_permission_are_those_of_every_guest_level() {
    for level in 1..=4 {
        let mut guest = Guest::new();
        let pa = guest.entry(level);
        guest.change_entry(pa, |entry| entry.with_write(false));
        guest.store().expect_event(EventCode::PAGE_FAULT, DENIED.with_write(true));
        assert!(!guest.read().translation().writable);
        let mut guest = Guest::new();
        guest.change_entry(pa, |entry| entry.with_user(false));
        guest.read().expect_event(EventCode::PAGE_FAULT, DENIED);
    }
}

#[test]
fn a_guest_address_must_be_canonical() {
    let mut guest = Guest::new();
    guest.bench.access_pasid(Iova(1 << 47), Access::Read, PASID).expect_event(EventCode::PAGE_FAULT, GUEST);
    let mut five = Guest::with(Shape { levels: 5, ..Shape::default() });
    let upper = Iova(u64::MAX << 56);
    five.bench.tables.map_guest(&mut five.bench.memory, five.root, upper, PAGE, 1);
    assert_eq!(five.bench.access_pasid(upper, Access::Read, PASID).pa(), PAGE);
}

#[test]
fn a_pasid_beyond_the_gcr3_table_faults() {
    let mut guest = Guest::new();
    let ended = guest.bench.access_pasid(IOVA, Access::Read, Pasid(512));
    ended.expect_event(EventCode::PAGE_FAULT, GUEST);
    let (word, _) = guest.bench.run_events()[0];
    assert_eq!((word.domain_or_pasid(), word.pasid_high()), (512, 0));
}

#[test]
fn without_gten_or_gv_there_is_no_guest_translation() {
    let mut guest = Guest::new();
    guest.bench.control(|control| control.with_guest_translation(false));
    assert_eq!(guest.read().event().code, EventCode::INVALID_DEVICE_REQUEST);
    let mut guest = Guest::new();
    guest.attach(|entry| entry.with_guest_valid(false));
    assert_eq!(guest.read().event().code, EventCode::INVALID_DEVICE_REQUEST);
}

#[test]
fn giov_gives_requests_without_pasid_the_pasid_zero() {
    let mut guest = Guest::new();
    guest.bench.tables.set_guest_root(&mut guest.bench.memory, guest.guest_root, Pasid(0), guest.root.0);
    assert!(guest.bench.read(IOVA).translation().pass_through, "mode 0 without GIoV");
    guest.attach(|entry| entry.with_guest_io_valid(true));
    guest.bench.invalidate(&[commands::device(DEVICE)]);
    let ended = guest.bench.read(IOVA);
    assert_eq!((ended.pa(), ended.translation().pass_through), (PAGE, false));
}

#[test]
fn nested_requests_without_pasid_use_the_host_tables_alone() {
    let mut guest = Guest::nested();
    let ended = guest.bench.read(Iova(PAGE.0));
    assert_eq!(ended.pa(), PAGE);
    assert!(!ended.fetched.iter().any(|kind| matches!(kind, FetchKind::FirstStage { .. })));
}

#[test]
fn the_host_can_deny_the_page_the_table_and_the_update() {
    let deny = |guest: &mut Guest, frame: Pa, change: fn(HostEntry) -> HostEntry| {
        let pa = guest.map_host(frame).expect("it is nested");
        guest.bench.memory.write(pa, change(open(0).with_frame(frame.pfn().0)).into_bits());
    };
    let mut guest = Guest::nested();
    deny(&mut guest, PAGE, |entry| entry.with_write(false));
    guest.store().expect_event(EventCode::PAGE_FAULT, DENIED.with_write(true));
    assert!(!guest.read().translation().writable);

    let mut guest = Guest::nested();
    let table = Pa(guest.leaf.0 & !0xfff);
    deny(&mut guest, table, |entry| entry.with_present(false));
    guest.read().expect_event(EventCode::PAGE_FAULT, GUEST);

    // The table can be read, but A cannot be set.
    let mut guest = Guest::nested();
    deny(&mut guest, table, |entry| entry.with_write(false));
    guest.read().expect_event(EventCode::PAGE_FAULT, DENIED);
    guest.point_leaf_at(PAGE);
    assert_eq!(guest.read().pa(), PAGE);
}

#[test]
fn a_nested_translation_is_as_large_as_the_smaller_page() {
    let mut guest = Guest::nested();
    let iova = Iova(0x80_0000_0000);
    let pa = guest.bench.tables.guest_entry(&mut guest.bench.memory, guest.root, iova, 2);
    guest.bench.memory.write(pa, guest_open().with_page_size(true).with_frame(0).into_bits());
    let frames: Vec<Pa> = guest.bench.tables.frames().collect();
    frames.into_iter().for_each(|frame| {
        guest.map_host(frame);
    });
    let ended = guest.bench.access_pasid(iova.offset(PAGE.0), Access::Read, PASID);
    assert_eq!((ended.pa(), ended.translation().page_bytes), (PAGE, 4096));
}

#[test]
fn an_invalidation_with_gn_takes_its_pasid_and_leaves_the_others() {
    let mut guest = Guest::new();
    let other = Pasid(4);
    guest.bench.tables.set_guest_root(&mut guest.bench.memory, guest.guest_root, other, guest.root.0);
    guest.read();
    guest.bench.access_pasid(IOVA, Access::Read, other);
    guest.point_leaf_at(OTHER_PAGE);
    guest.bench.invalidate(&[commands::of_pasid(commands::page(DOMAIN, IOVA), PASID)]);
    assert_eq!(guest.read().pa(), OTHER_PAGE);
    assert_eq!(guest.bench.access_pasid(IOVA, Access::Read, other).pa(), PAGE, "stale");
    guest.bench.invalidate(&[commands::page(DOMAIN, IOVA).into_bits()]);
    assert_eq!(guest.bench.access_pasid(IOVA, Access::Read, other).pa(), PAGE, "GN = 0 names addresses of another kind");
}

#[test]
fn a_changed_gcr3_entry_is_seen_once_every_page_of_its_pasid_is_invalidated() {
    let mut guest = Guest::new();
    guest.read();
    let fresh = (guest.bench.tables.frame(), 4);
    guest.bench.tables.map_guest(&mut guest.bench.memory, fresh, IOVA, OTHER_PAGE, 1);
    guest.bench.tables.set_guest_root(&mut guest.bench.memory, guest.guest_root, PASID, fresh.0);
    guest.bench.invalidate(&[commands::of_pasid(commands::page(DOMAIN, IOVA).with_directories(true), PASID)]);
    assert_eq!(guest.read().pa(), PAGE, "the GCR3 entry is still cached");
    guest.bench.invalidate(&[commands::of_pasid(commands::all_pages(DOMAIN), PASID)]);
    assert_eq!(guest.read().pa(), OTHER_PAGE);
}

#[test]
fn nested_translations_go_with_all_host_pages_and_may_stay_with_some() {
    let mut guest = Guest::nested();
    guest.read();
    let pa = guest.map_host(PAGE).expect("it is nested");
    guest.bench.memory.write(pa, open(0).with_frame(OTHER_PAGE.pfn().0).into_bits());
    let some = commands::page(DOMAIN, Iova(PAGE.0)).into_bits();
    guest.bench.invalidate(&[some]);
    assert_eq!(guest.read().pa(), PAGE, "kept");
    let mut dropped = guest.clone();
    dropped.bench.submit(&[some]);
    dropped.bench.run_commands_with(&mut Scripted::new(|question| question == Question::KeepFirstStage, 1));
    assert_eq!(dropped.read().pa(), OTHER_PAGE);
    guest.bench.invalidate(&[commands::all_pages(DOMAIN).into_bits()]);
    assert_eq!(guest.read().pa(), OTHER_PAGE);
}

#[test]
fn a_device_entry_invalidation_takes_what_was_cached_of_its_gcr3_table() {
    let mut guest = Guest::new();
    guest.read();
    assert_eq!(guest.bench.unit.caches().guest_roots().count(), 1);
    guest.bench.invalidate(&[commands::device(DEVICE)]);
    assert_eq!(guest.bench.unit.caches().guest_roots().count(), 0);
    assert_eq!(guest.bench.unit.caches().tlb().count(), 1);
}

#[test]
fn where_there_is_no_memory_a_guest_walk_has_a_hardware_error_at_that_entry() {
    let mut guest = Guest::nested();
    let walk = guest.bench.unit.begin(iommu_model::Request { pasid: Some(PASID), ..Bench::request(IOVA, Access::Read) });
    let walk = walk.expect("a walker is free");
    let (pa, _) = guest.bench.run_to_fetch(walk, FetchKind::FirstStage { level: 2 });
    match guest.bench.unit.advance(walk, Some(iommu_model::Fetched::NoMemory), &mut iommu_model::Plain) {
        Progress::Fault(fault) => assert_eq!(fault.reason.amd().map(|event| event.code), Some(EventCode::PAGE_TABLE_HARDWARE)),
        other => panic!("{other:?}"),
    }
    assert_eq!(guest.bench.run_events()[0].1, pa.0);
    assert_eq!(guest.bench.unit.in_flight_count(), 0);
}

#[test]
fn a_write_only_reads_the_guest_tables_unless_a_bit_is_to_be_set() {
    let mut guest = Guest::nested();
    guest.store();
    // Every table frame is read-only in the host now, but the page is not.
    let frames: Vec<Pa> = guest.bench.tables.frames().filter(|frame| *frame != PAGE).collect();
    for frame in frames {
        let pa = guest.map_host(frame).expect("it is nested");
        guest.bench.memory.write(pa, open(0).with_write(false).with_frame(frame.pfn().0).into_bits());
    }
    guest.bench.invalidate(&[commands::all()]);
    assert_eq!(guest.store().pa(), PAGE);
    // The host translations of the tables are cached now, and serve a walk for another page of the same table.
    let other = IOVA.offset(0x1000);
    let entry = guest_open().with_accessed(true).with_dirty(true).with_frame(PAGE.pfn().0);
    guest.bench.memory.write(guest.leaf.offset(8), entry.into_bits());
    assert_eq!(guest.bench.access_pasid(other, Access::Write, PASID).pa(), PAGE);
}

#[test]
fn guest_translation_needs_tv() {
    let mut guest = Guest::new();
    guest.attach(|entry| entry.with_translation_valid(false));
    assert_eq!(guest.read().event().code, EventCode::INVALID_DEVICE_REQUEST);
}
