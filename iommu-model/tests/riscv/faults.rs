//! Faults of both stages: causes, iotval2, and what is recorded.

use crate::support::world::GUEST;
use crate::support::{DEVICE, Dc, GSCID, IOVA, PAGE, PSCID, World, leaf};
use iommu_model::riscv::{Capabilities, DeviceId, Transaction, Unit};
use iommu_model::spec::riscv::fault::{Cause, FaultRecord, TTYP_READ, TTYP_WRITE};
use iommu_model::spec::riscv::paging::PageTableEntry;
use iommu_model::{Access, Geometry, Iova, Pa, Params, Pasid, Progress};

fn uncached() -> Params {
    let off = Geometry { sets: 1, ways: 0 };
    Params { context: off, pasid: off, iotlb: off, psc: [off; 4], ..Params::default() }
}

/// The same world with a unit that caches nothing.
fn forgetful(mut world: World, cap: Capabilities) -> World {
    let ddtp = world.unit.read_register(iommu_model::riscv::Register::Ddtp);
    world.unit = Unit::new(cap, uncached());
    world.write(iommu_model::riscv::Register::Ddtp, ddtp);
    world
}

type Change = fn(PageTableEntry) -> PageTableEntry;

/// What is wrong with a leaf whatever the access.
const MALFORMED: [(&str, Change); 6] = [
    ("V", |entry| entry.with_valid(false)),
    ("W without R", |entry| entry.with_read(false)),
    ("bits 58:54", |entry| entry.with_reserved_54(1)),
    ("bits 60:59", |entry| entry.with_software_59(1)),
    ("PBMT 3", |entry| entry.with_memory_type(3)),
    ("NAPOT of another size", |entry| entry.with_napot(true).with_ppn(entry.ppn() & !0xf | 4)),
];

#[test]
fn each_field_of_a_first_stage_leaf_that_can_fault_does() {
    let (world, tables, slot) = World::mapped_first(3);
    let mut world = forgetful(world, Capabilities::default());
    for (what, change) in
        MALFORMED.into_iter().chain([("U", (|entry| entry.with_user(false)) as Change), ("A", |e| e.with_accessed(false))])
    {
        world.memory.write(slot, change(leaf(PAGE)).into_bits());
        assert_eq!(world.read(IOVA).cause(), Cause::READ_PAGE, "{what}");
        assert_eq!(world.write_to(IOVA).cause(), Cause::WRITE_PAGE, "{what}");
    }
    world.memory.write(slot, leaf(PAGE).with_dirty(false).into_bits());
    assert_eq!(world.read(IOVA).translation().pa, PAGE);
    assert_eq!(world.write_to(IOVA).cause(), Cause::WRITE_PAGE, "D");
    world.memory.write(slot, leaf(PAGE).with_write(false).into_bits());
    assert_eq!(world.write_to(IOVA).cause(), Cause::WRITE_PAGE, "W");
    world.memory.write(slot, leaf(PAGE).with_write(false).with_read(false).into_bits());
    assert_eq!(world.read(IOVA).cause(), Cause::READ_PAGE, "R");
    world.memory.write(slot, PageTableEntry::new().with_valid(true).with_ppn(1).into_bits());
    assert_eq!(world.read(IOVA).cause(), Cause::READ_PAGE, "a pointer at the last level");
    world.map(tables, Iova(1 << 30), leaf(Pa(0x1000)), 21);
    assert_eq!(world.read(Iova(1 << 30)).cause(), Cause::READ_PAGE, "a misaligned superpage");
    let non_leaf = tables.slot(&mut world.memory, &mut world.next, IOVA.0, 2);
    let good = PageTableEntry::from_bits(world.memory.read(non_leaf));
    world.memory.write(slot, leaf(PAGE).into_bits());
    let changes: [(&str, Change); 4] = [
        ("PBMT in a pointer", |entry| entry.with_memory_type(1)),
        ("N in a pointer", |entry| entry.with_napot(true)),
        ("bits 58:54 in a pointer", |entry| entry.with_reserved_54(0x10)),
        ("bits 60:59 in a pointer", |entry| entry.with_software_59(2)),
    ];
    for (what, change) in changes {
        world.memory.write(non_leaf, change(good).into_bits());
        assert_eq!(world.read(IOVA).cause(), Cause::READ_PAGE, "{what}");
    }
    // A, D and U of a pointer: ignored by the reference model, reserved by the privileged specification.
    world.memory.write(non_leaf, good.with_user(true).into_bits());
    assert_eq!(world.read(IOVA).translation().pa, PAGE);
    let mut strict = forgetful(world, Capabilities { reserves_non_leaf_bits: true, ..Capabilities::default() });
    assert_eq!(strict.read(IOVA).cause(), Cause::READ_PAGE);
}

#[test]
fn each_field_of_a_second_stage_leaf_that_can_fault_does_with_the_guest_address() {
    let (mut world, _, slot) = World::mapped_second(3);
    let changes: [(&str, Change); 2] = [("U", |entry| entry.with_user(false)), ("A", |entry| entry.with_accessed(false))];
    for (what, change) in MALFORMED.into_iter().chain(changes) {
        world.memory.write(slot, change(leaf(PAGE)).into_bits());
        assert_eq!(world.read(Iova(IOVA.0 + 0x123)).cause(), Cause::READ_GUEST_PAGE, "{what}");
        let record = world.fault();
        assert_eq!((record.iotval, record.iotval2), (IOVA.0 + 0x123, IOVA.0 + 0x120), "{what}");
        assert_eq!(world.write_to(IOVA).cause(), Cause::WRITE_GUEST_PAGE, "{what}");
        world.faults();
    }
    world.memory.write(slot, leaf(PAGE).with_dirty(false).into_bits());
    assert_eq!(world.write_to(IOVA).cause(), Cause::WRITE_GUEST_PAGE, "D");
    world.memory.write(slot, leaf(PAGE).with_write(false).into_bits());
    assert_eq!(world.write_to(IOVA).cause(), Cause::WRITE_GUEST_PAGE, "W");
}

#[test]
fn a_refused_first_stage_entry_is_told_as_an_implicit_access() {
    let (mut world, first, second, _) = World::mapped_nested(3);
    let table = Iova(GUEST + (first.root.0 & !0x1f_ffff));
    world.map(second, table, leaf(Pa(0)).with_valid(false), 21);
    assert_eq!(world.write_to(IOVA).cause(), Cause::WRITE_GUEST_PAGE);
    let entry = GUEST + first.root.0 + (IOVA.0 >> 30) * 8;
    assert_eq!(world.fault().iotval2, entry | 1, "a read, of the first entry");
    // Where A and D are set by the unit, tables count as written to.
    let dc = Dc::bare().first(first, PSCID).second(second, GSCID).control(|tc| tc.set_first_stage_update(true));
    world.set_device(DEVICE, dc);
    world.command(crate::support::commands::inval_ddt(None).into_bits());
    world.map(second, table, leaf(Pa(table.0 - GUEST)).with_write(false), 21);
    assert_eq!(world.read(IOVA).cause(), Cause::READ_GUEST_PAGE);
    assert_eq!(world.fault().iotval2, entry | 3);
}

#[test]
fn the_page_itself_refused_by_the_second_stage_is_no_implicit_access() {
    let (mut world, first, _, _) = World::mapped_nested(3);
    let lost = Iova(IOVA.0 + 0x1000);
    world.map(first, lost, leaf(Pa(1 << 38)), 12);
    assert_eq!(world.read(Iova(lost.0 + 0x10)).cause(), Cause::READ_GUEST_PAGE);
    let record = world.fault();
    assert_eq!((record.iotval, record.iotval2), (lost.0 + 0x10, (1 << 38) + 0x10));
}

#[test]
fn addresses_beyond_a_stage_fault_before_any_fetch_of_it() {
    for levels in 3..=5u8 {
        let width = 12 + 9 * u32::from(levels);
        let (mut world, tables, _) = World::mapped_first(levels);
        let top = Iova(u64::MAX << (width - 1));
        world.map(tables, top, leaf(PAGE), 12);
        assert_eq!(world.where_is(top), PAGE);
        let ended = world.read(Iova(1 << (width - 1)));
        assert_eq!((ended.cause(), ended.fetched.len()), (Cause::READ_PAGE, 0), "not canonical");
        let (mut world, ..) = World::mapped_second(levels);
        assert_eq!(world.read(Iova(1 << (width + 2))).cause(), Cause::READ_GUEST_PAGE);
        assert_eq!(world.read(Iova(1 << (width + 1))).cause(), Cause::READ_GUEST_PAGE, "in range, not mapped");
    }
}

#[test]
fn where_there_is_no_memory_the_access_faults_by_its_kind() {
    let (mut world, tables, _) = World::mapped_first(3);
    world.memory.end = Some(tables.root);
    assert_eq!(world.read(IOVA).cause(), Cause::READ_ACCESS);
    assert_eq!(world.write_to(IOVA).cause(), Cause::WRITE_ACCESS);
    let (mut world, tables, _) = World::mapped_second(3);
    world.memory.end = Some(tables.root);
    assert_eq!(world.read(IOVA).cause(), Cause::READ_ACCESS);
    let narrow = Capabilities { physical_bits: 32, ..Capabilities::default() };
    let mut world = World::with(narrow, Params::default(), 1);
    let tables = world.first_stage(3);
    world.set_device(DEVICE, Dc::bare().first(tables, PSCID));
    world.map(tables, IOVA, leaf(Pa(1 << 32)), 12);
    assert_eq!(world.write_to(IOVA).cause(), Cause::WRITE_ACCESS, "beyond PAS");
}

#[test]
fn a_record_says_who_wanted_what() {
    let mut world = World::with(Capabilities::default(), Params::default(), 3);
    let device = DeviceId(0xab_cdef);
    let request = Transaction {
        process: Some(Pasid(0xf_1234)),
        privileged: true,
        execute: true,
        ..Transaction::new(device, Iova(0x1234_5678), Access::Read)
    };
    let Progress::Fault(fault) = world.send(request).progress else { panic!("nobody is there") };
    assert!(fault.recorded);
    let record = world.fault();
    let head = record.head;
    assert_eq!((head.cause(), head.device(), head.process(), head.process_valid()), (258, 0xab_cdef, 0xf_1234, true));
    assert_eq!((head.privileged(), head.transaction_type(), record.iotval), (true, 1, 0x1234_5678));
    for (access, kind) in [(Access::Read, TTYP_READ), (Access::Write, TTYP_WRITE)] {
        world.send(Transaction { privileged: true, ..Transaction::new(device, IOVA, access) });
        let head = world.fault().head;
        assert_eq!((head.transaction_type(), head.privileged(), head.process_valid()), (kind, false, false));
    }
    assert_eq!(FaultRecord::new().with_cause(0xfff).with_device(0xff_ffff).into_bits(), 0xff_ffff << 40 | 0xfff);
}

#[test]
fn dtf_hides_translation_faults_and_no_others() {
    let mut world = World::new();
    let tables = world.first_stage(3);
    world.set_device(DEVICE, Dc::bare().first(tables, PSCID).control(|tc| tc.set_disable_faults(true)));
    assert!(!world.read(IOVA).fault().recorded);
    let with_process = Transaction { process: Some(Pasid(1)), ..Transaction::new(DEVICE, IOVA, Access::Read) };
    assert!(!world.send(with_process).fault().recorded, "transaction type disallowed");
    assert!(world.faults().is_empty());
    let pa = world.context_pa(DEVICE);
    world.memory.write(pa.offset(56), 1);
    world.command(crate::support::commands::inval_ddt(None).into_bits());
    assert!(world.read(IOVA).fault().recorded, "a context that is misconfigured has no DTF");
    assert_eq!(world.fault().head.cause(), Cause::DDT_MISCONFIGURED.0);
}
