//! Each field that can fault, with the event and its flags.

use super::support::tables::{host_device, open};
use super::support::{Bench, DOMAIN, IOVA, PAGE};
use iommu_model::amd::{Capabilities, Register};
use iommu_model::spec::amd::device_table::{DeviceEntryLow, HAD_ACCESSED, HAD_ACCESSED_DIRTY};
use iommu_model::spec::amd::event::{EventCode, EventFlags};
use iommu_model::spec::amd::host_table::{HostEntry, NEXT_SIZED};
use iommu_model::spec::amd::register::DeviceTableBase;
use iommu_model::{Access, Bdf, Iova, Pa, Params, Pasid, Progress, Request};

const NONE: EventFlags = EventFlags::new();
const PRESENT: EventFlags = NONE.with_present(true);
const DENIED: EventFlags = PRESENT.with_permission(true);
const RESERVED: EventFlags = PRESENT.with_reserved_not_zero(true);

/// The read that a changed device table entry gets.
fn with_device(cap: Capabilities, change: impl Fn(DeviceEntryLow) -> DeviceEntryLow) -> Progress {
    let (mut bench, _) = Bench::mapped_with(cap, Params::default());
    bench.change_device(change);
    bench.read(IOVA).progress
}

fn illegal(progress: Progress) -> EventFlags {
    match progress {
        Progress::Fault(fault) => {
            let event = fault.reason.amd().expect("an event");
            assert_eq!(event.code, EventCode::ILLEGAL_DEVICE_ENTRY);
            event.flags
        }
        other => panic!("legal: {other:?}"),
    }
}

#[test]
fn reserved_bits_of_a_device_entry_make_it_illegal() {
    let rz = NONE.with_reserved_not_zero(true);
    for bit in 2..7 {
        let change = |entry: DeviceEntryLow| DeviceEntryLow::from_bits(entry.into_bits() | 1 << bit);
        assert_eq!(illegal(with_device(Capabilities::default(), change)), rz, "bit {bit}");
    }
    assert_eq!(illegal(with_device(Capabilities::default(), |entry| entry.with_reserved_63(true))), rz);
}

#[test]
fn fields_of_missing_features_are_reserved() {
    let all = Capabilities::default();
    let rz = NONE.with_reserved_not_zero(true);
    let no_guest = Capabilities { guest_translation: false, ..all };
    assert_eq!(illegal(with_device(no_guest, |entry| entry.with_guest_valid(true))), rz);
    assert_eq!(illegal(with_device(no_guest, |entry| entry.with_guest_root(1 << 39))), rz);
    assert_eq!(illegal(with_device(Capabilities { guest_io: false, ..all }, |entry| entry.with_guest_io_valid(true))), rz);
    assert_eq!(illegal(with_device(Capabilities { page_requests: false, ..all }, |entry| entry.with_page_requests(true))), rz);
    let no_dirty = Capabilities { host_dirty: false, ..all };
    assert_eq!(illegal(with_device(no_dirty, |entry| entry.with_host_access_dirty(HAD_ACCESSED_DIRTY))), rz);
    assert!(matches!(with_device(no_dirty, |entry| entry.with_host_access_dirty(HAD_ACCESSED)), Progress::Done(_)));
    let no_access = Capabilities { host_accessed: false, ..no_dirty };
    assert_eq!(illegal(with_device(no_access, |entry| entry.with_host_access_dirty(HAD_ACCESSED))), rz);
}

#[test]
fn an_invalid_level_makes_a_device_entry_illegal_without_rz() {
    assert_eq!(illegal(with_device(Capabilities::default(), |entry| entry.with_mode(7))), NONE);
    let four = Capabilities { host_levels: 4, ..Capabilities::default() };
    assert_eq!(illegal(with_device(four, |entry| entry.with_mode(5))), NONE);
    assert_eq!(illegal(with_device(Capabilities::default(), |entry| entry.with_guest_valid(true).with_guest_levels(3))), NONE);
}

#[test]
fn an_illegal_device_entry_is_not_cached() {
    let (mut bench, _) = Bench::mapped();
    bench.change_device(|entry| entry.with_mode(7));
    bench.read(IOVA).expect_event(EventCode::ILLEGAL_DEVICE_ENTRY, NONE);
    bench.change_device(|entry| entry.with_mode(4));
    assert_eq!(bench.read(IOVA).pa(), PAGE);
}

#[test]
fn a_device_beyond_the_table_is_a_page_fault_without_a_fetch() {
    let (mut bench, _) = Bench::mapped();
    let frame = bench.tables.device_table.pfn().0;
    bench.write(Register::DeviceTableBase, DeviceTableBase::new().with_frame(frame).with_size(0).into_bits());
    let ended = bench.read(IOVA);
    ended.expect_event(EventCode::PAGE_FAULT, NONE);
    assert!(ended.fetched.is_empty());
}

#[test]
fn each_level_can_be_not_present() {
    for level in 1..=4 {
        let (mut bench, _) = Bench::mapped();
        let pa = bench.host_entry(IOVA, level);
        let entry = HostEntry::from_bits(bench.memory.read(pa));
        bench.memory.write(pa, entry.with_present(false).into_bits());
        bench.read(IOVA).expect_event(EventCode::PAGE_FAULT, NONE);
        bench.store(IOVA).expect_event(EventCode::PAGE_FAULT, NONE.with_write(true));
    }
}

#[test]
fn missing_permission_is_reported_as_pe_with_the_direction() {
    let (mut bench, leaf) = Bench::mapped();
    bench.memory.write(leaf, open(0).with_write(false).with_frame(PAGE.pfn().0).into_bits());
    bench.store(IOVA).expect_event(EventCode::PAGE_FAULT, DENIED.with_write(true));
    assert_eq!(bench.read(IOVA).pa(), PAGE);
    // Now from the TLB.
    bench.store(IOVA).expect_event(EventCode::PAGE_FAULT, DENIED.with_write(true));
}

#[test]
fn reserved_bits_of_host_entries_fault_with_rz_where_the_unit_checks() {
    let (mut bench, leaf) = Bench::mapped();
    let table = bench.host_entry(IOVA, 2);
    let (leaf_word, table_word) = (bench.memory.read(leaf), bench.memory.read(table));
    for bit in 52..59 {
        bench.memory.write(leaf, leaf_word | 1 << bit);
        bench.read(IOVA).expect_event(EventCode::PAGE_FAULT, RESERVED);
    }
    bench.memory.write(leaf, leaf_word);
    for bit in 52..61 {
        bench.memory.write(table, table_word | 1 << bit);
        let mut fresh = bench.clone();
        fresh.invalidate(&[super::support::commands::all()]);
        fresh.read(IOVA).expect_event(EventCode::PAGE_FAULT, RESERVED);
    }
    bench.memory.write(table, table_word);
    let lax = Capabilities { checks_reserved: false, ..Capabilities::default() };
    let (mut bench, leaf) = Bench::mapped_with(lax, Params::default());
    bench.memory.write(leaf, leaf_word | 1 << 55);
    assert_eq!(bench.read(IOVA).pa(), PAGE);
}

#[test]
fn u_and_fc_of_a_leaf_are_attributes() {
    let (mut bench, leaf) = Bench::mapped();
    let entry = HostEntry::from_bits(bench.memory.read(leaf));
    bench.memory.write(leaf, entry.with_untranslated(true).with_force_coherent(true).into_bits());
    assert_eq!(bench.read(IOVA).pa(), PAGE);
}

#[test]
fn a_next_level_that_is_not_lower_faults() {
    for next in 2..=6 {
        let (mut bench, _) = Bench::mapped();
        let pa = bench.host_entry(IOVA, 2);
        let entry = HostEntry::from_bits(bench.memory.read(pa));
        bench.memory.write(pa, entry.with_next_level(next).into_bits());
        bench.read(IOVA).expect_event(EventCode::PAGE_FAULT, PRESENT);
    }
}

#[test]
fn a_leaf_size_outside_its_level_faults() {
    let (mut bench, leaf) = Bench::mapped();
    // 2 MiB at level 1.
    bench.memory.write(leaf, open(NEXT_SIZED).with_frame(0xff).into_bits());
    bench.read(IOVA).expect_event(EventCode::PAGE_FAULT, PRESENT);
    // 8 KiB at level 2.
    let pa = bench.host_entry(IOVA, 2);
    bench.memory.write(pa, open(NEXT_SIZED).into_bits());
    bench.invalidate(&[super::support::commands::all()]);
    bench.read(IOVA).expect_event(EventCode::PAGE_FAULT, PRESENT);
}

#[test]
fn level_six_has_no_leaves() {
    for next in [0, NEXT_SIZED] {
        let mut bench = Bench::new();
        bench.attach_and_map(6, Iova(0), PAGE, 12);
        let pa = bench.host_entry(Iova(0), 6);
        bench.memory.write(pa, open(next).into_bits());
        bench.read(Iova(0)).expect_event(EventCode::PAGE_FAULT, PRESENT);
    }
}

#[test]
fn skipped_address_bits_must_be_zero() {
    let mut bench = Bench::new();
    let root = (bench.tables.frame(), 3);
    bench.attach(host_device(root, DOMAIN.0));
    let last = bench.tables.frame();
    bench.memory.write(root.0, open(1).with_frame(last.pfn().0).into_bits());
    bench.memory.write(last, open(0).with_frame(PAGE.pfn().0).into_bits());
    assert_eq!(bench.read(Iova(0)).pa(), PAGE);
    bench.read(Iova(1 << 21)).expect_event(EventCode::PAGE_FAULT, PRESENT);
    assert_eq!(bench.read(Iova(0)).pa(), PAGE);
}

#[test]
fn address_bits_above_the_root_must_be_zero_where_the_unit_checks() {
    let (mut bench, _) = Bench::mapped();
    let beyond = IOVA.offset(1 << 48);
    bench.read(beyond).expect_event(EventCode::PAGE_FAULT, NONE);
    let lax = Capabilities { checks_input_width: false, ..Capabilities::default() };
    let (mut bench, _) = Bench::mapped_with(lax, Params::default());
    assert_eq!(bench.read(beyond).pa(), PAGE);
}

#[test]
fn tv_zero_leaves_it_to_ir_and_iw_or_blocks() {
    let off = |entry: DeviceEntryLow| entry.with_translation_valid(false).with_write(false);
    let (mut bench, _) = Bench::mapped();
    bench.change_device(off);
    assert_eq!(bench.read(IOVA).pa(), Pa(IOVA.0));
    bench.store(IOVA).expect_event(EventCode::PAGE_FAULT, DENIED.with_write(true));
    let blocks = Capabilities { blocks_without_translation: true, ..Capabilities::default() };
    let (mut bench, _) = Bench::mapped_with(blocks, Params::default());
    bench.change_device(off);
    bench.read(IOVA).expect_event(EventCode::PAGE_FAULT, NONE);
}

#[test]
fn v_alone_blocks_as_linux_relies_on() {
    for blocks_without_translation in [false, true] {
        let mut bench = Bench::with(Capabilities { blocks_without_translation, ..Capabilities::default() }, Params::default());
        bench.attach(DeviceEntryLow::new().with_valid(true));
        assert_eq!(bench.read(IOVA).event().code, EventCode::PAGE_FAULT);
        assert_eq!(bench.store(IOVA).event().code, EventCode::PAGE_FAULT);
    }
}

#[test]
fn where_there_is_no_memory_the_table_has_a_hardware_error() {
    let (mut bench, leaf) = Bench::mapped();
    let abort = NONE.with_hardware(2);
    bench.memory.end = Some(Pa(leaf.0 & !0xfff));
    let ended = bench.read(IOVA);
    ended.expect_event(EventCode::PAGE_TABLE_HARDWARE, abort);
    let (word, address) = bench.run_events()[0];
    assert_eq!((word.code(), Pa(address)), (4, leaf));
    let (mut bench, _) = Bench::mapped();
    bench.memory.end = Some(bench.device_pa());
    bench.store(IOVA).expect_event(EventCode::DEVICE_TABLE_HARDWARE, abort.with_write(true));
    let (word, address) = bench.run_events()[0];
    assert_eq!((word.code(), Pa(address)), (3, bench.device_pa()));
}

#[test]
fn a_request_with_pasid_needs_guest_translation() {
    let (mut bench, _) = Bench::mapped();
    let ended = bench.access_pasid(IOVA, Access::Read, Pasid(7));
    ended.expect_event(EventCode::INVALID_DEVICE_REQUEST, NONE.with_guest(true));
}

#[test]
fn the_first_device_beyond_the_table_is_beyond_it() {
    // One page of 128 entries.
    let mut bench = Bench::new();
    let frame = bench.tables.device_table.pfn().0;
    bench.write(Register::DeviceTableBase, DeviceTableBase::new().with_frame(frame).with_size(0).into_bits());
    let mut from = |source| bench.run(Request { source: Bdf(source), ..Bench::request(IOVA, Access::Read) }).progress;
    assert!(matches!(from(127), Progress::Done(_)));
    assert!(matches!(from(128), Progress::Fault(_)));
}

#[test]
fn an_event_without_gn_names_no_pasid() {
    let (mut bench, _) = Bench::mapped();
    bench.memory.end = Some(bench.device_pa());
    bench.access_pasid(IOVA, Access::Read, Pasid(0x1_2345)).expect_event(EventCode::DEVICE_TABLE_HARDWARE, NONE.with_hardware(2));
    let (word, _) = bench.run_events()[0];
    assert_eq!((word.domain_or_pasid(), word.pasid_high()), (0, 0));
}

#[test]
fn an_event_with_gn_names_all_bits_of_the_pasid() {
    let (mut bench, _) = Bench::mapped();
    bench.access_pasid(IOVA, Access::Read, Pasid(0x1_2345));
    let (word, _) = bench.run_events()[0];
    assert_eq!((word.code(), word.domain_or_pasid(), word.pasid_high()), (8, 0x2345, 1));
}
