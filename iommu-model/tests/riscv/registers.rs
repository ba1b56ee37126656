//! Registers: offsets, widths, what is read-only, and the translation-request registers.

use crate::support::{DEVICE, Dc, IOVA, PAGE, PSCID, World, leaf};
use iommu_model::riscv::{Capabilities, InterruptSignalling, Register, Unit, locate_register};
use iommu_model::spec::riscv::capability::CapabilitiesRegister;
use iommu_model::spec::riscv::fault::Cause;
use iommu_model::spec::riscv::register::{TranslationRequestControl, TranslationResponse};
use iommu_model::{Iova, Pa, Params, Plain, Progress};

#[test]
fn registers_lie_where_the_specification_lists_them() {
    let expected = [
        (0, Register::Capabilities),
        (8, Register::Fctl),
        (16, Register::Ddtp),
        (24, Register::Cqb),
        (32, Register::Cqh),
        (36, Register::Cqt),
        (40, Register::Fqb),
        (48, Register::Fqh),
        (52, Register::Fqt),
        (56, Register::Pqb),
        (64, Register::Pqh),
        (68, Register::Pqt),
        (72, Register::Cqcsr),
        (76, Register::Fqcsr),
        (80, Register::Pqcsr),
        (84, Register::Ipsr),
        (0x258, Register::TrReqIova),
        (0x260, Register::TrReqCtl),
        (0x268, Register::TrResponse),
        (760, Register::Icvec),
        (768, Register::MsiAddress(0)),
        (776, Register::MsiData(0)),
        (780, Register::MsiControl(0)),
        (768 + 15 * 16 + 12, Register::MsiControl(15)),
    ];
    for (offset, register) in expected {
        assert_eq!(locate_register(offset).map(|(found, start, _)| (found, start)), Some((register, offset)));
    }
    assert_eq!(Register::fixed().count(), 20);
    for hole in [12, 88, 96, 600 + 24, 768 + 256, 4096, u64::MAX] {
        assert_eq!(locate_register(hole), None, "{hole}");
    }
}

#[test]
fn capabilities_say_what_the_unit_can_do() {
    let read = |cap| CapabilitiesRegister::from_bits(Unit::new(cap, Params::default()).read_register(Register::Capabilities));
    let all = read(Capabilities::default());
    assert_eq!((all.version(), all.sv39(), all.sv57x4(), all.pas(), all.igs()), (0x10, true, true, 56, 2));
    assert!(all.amo_hwad() && all.msi_flat() && all.ats() && all.dbg() && all.nl() && all.s() && !all.end() && !all.sv32() && !all.hpm());
    let poor = Capabilities { sv57: false, amo_hwad: false, interrupts: InterruptSignalling::Wires, ..Capabilities::default() };
    let poor = read(poor);
    assert!(poor.igs() == 1 && !poor.sv57() && poor.sv48() && !poor.amo_hwad());
}

#[test]
fn a_register_that_the_unit_lacks_reads_0_and_ignores_writes() {
    let cap = Capabilities { ats: false, t2gpa: false, debug: false, interrupts: InterruptSignalling::Wires, ..Capabilities::default() };
    let mut unit = Unit::new(cap, Params::default());
    assert_eq!(unit.read_register(Register::Fctl), 2, "wires it is");
    let lacking = [Register::Pqb, Register::Pqh, Register::Pqcsr, Register::TrReqIova, Register::TrReqCtl, Register::MsiAddress(0)];
    for register in lacking.into_iter().chain([Register::MsiData(3), Register::MsiControl(15)]) {
        assert!(!unit.write_register(register, u64::MAX).debug_request);
        assert_eq!(unit.read_register(register), 0, "{register:?}");
    }
}

#[test]
fn reserved_bits_of_registers_stay_0_and_read_only_ones_do_not_move() {
    let mut unit = Unit::new(Capabilities::default(), Params::default());
    let before = unit.read_register(Register::Capabilities);
    for (register, kept) in [
        (Register::Capabilities, before),
        (Register::Cqb, ((1 << 44) - 1) << 10 | 0x1f),
        (Register::Cqh, 0),
        (Register::Cqt, 0xffff_ffff),
        (Register::Fqt, 0),
        (Register::Icvec, 0xffff),
        (Register::MsiAddress(4), ((1 << 54) - 1) << 2),
        (Register::MsiData(4), 0xffff_ffff),
        (Register::MsiControl(4), 1),
        (Register::TrReqIova, !0xfff),
        (Register::TrResponse, 0),
        // A reserved mode keeps the old one; with it nothing is busy.
        (Register::Ddtp, ((1 << 44) - 1) << 10),
    ] {
        unit.write_register(register, u64::MAX);
        assert_eq!(unit.read_register(register), kept, "{register:?}");
    }
    unit.write_register(Register::Cqb, 0);
    assert_eq!(unit.read_register(Register::Cqt), 1, "two entries need one bit");
}

#[test]
fn halves_of_a_register_are_written_one_by_one() {
    let mut unit = Unit::new(Capabilities::default(), Params::default());
    unit.write_register_at(28, 4, 0x0012_3456);
    unit.write_register_at(24, 4, 0x789a_bc07);
    assert_eq!(unit.read_register(Register::Cqb), 0x12_3456_789a_bc07);
    assert_eq!((unit.read_register_at(24, 8), unit.read_register_at(28, 4)), (0x12_3456_789a_bc07, 0x12_3456));
    assert_eq!(unit.read_register_at(26, 4), 0, "misaligned");
    unit.write_register_at(776, 8, 0x1_0000_0099);
    assert_eq!((unit.read_register(Register::MsiData(0)), unit.read_register(Register::MsiControl(0))), (0x99, 1));
    assert_eq!(unit.read_register_at(776, 8), 0x1_0000_0099);
}

#[test]
fn a_change_of_mode_is_busy_until_what_was_before_has_landed() {
    let mut unit = Unit::new(Capabilities::default(), Params::default());
    let effect = unit.write_register(Register::Ddtp, 2);
    assert!(effect.mode_changed && unit.register_drain_pending());
    assert_eq!(unit.read_register(Register::Ddtp), 2 | 1 << 4);
    unit.write_register(Register::Ddtp, 0);
    assert_eq!(unit.read_register(Register::Ddtp) & 0xf, 2, "ignored while busy");
    unit.register_drained();
    assert_eq!(unit.read_register(Register::Ddtp), 2);
    assert!(!unit.write_register(Register::Ddtp, 2 | 5 << 10).mode_changed);
    assert_eq!(unit.read_register(Register::Ddtp), 2 | 5 << 10);
}

/// Asks the translation-request registers.
fn ask(world: &mut World, iova: Iova, control: TranslationRequestControl) -> TranslationResponse {
    world.write(Register::TrReqIova, iova.0);
    let effect = world.unit.write_register(Register::TrReqCtl, control.with_go(true).into_bits());
    assert!(effect.debug_request && world.unit.debug_request_waits());
    let walk = world.unit.begin_debug().expect("a walker is free").expect("a request waits");
    assert!(TranslationRequestControl::from_bits(world.unit.read_register(Register::TrReqCtl)).go());
    world.drive(walk, &mut Plain);
    assert!(!TranslationRequestControl::from_bits(world.unit.read_register(Register::TrReqCtl)).go());
    TranslationResponse::from_bits(world.unit.read_register(Register::TrResponse))
}

fn of_device() -> TranslationRequestControl {
    TranslationRequestControl::new().with_device(DEVICE.0).with_no_write(true)
}

#[test]
fn the_translation_request_registers_answer_with_page_and_size() {
    let (mut world, tables, _) = World::mapped_first(3);
    let response = ask(&mut world, Iova(IOVA.0 + 0xfff), of_device());
    assert_eq!((response.fault(), response.large(), response.ppn()), (false, false, PAGE.pfn().0));
    world.map(tables, Iova(2 << 30), leaf(Pa(3 << 30)).with_memory_type(2), 30);
    let response = ask(&mut world, Iova((2 << 30) | 0x1234_5000), of_device());
    assert_eq!((response.large(), response.memory_type()), (true, 2));
    assert_eq!(response.ppn(), 3 << 18 | 0x1_ffff, "the lowest 0 is bit 17: 2^18 pages");
    for n in 0..16 {
        world.map(tables, Iova(0x10_0000 + n * 4096), leaf(Pa(0xa_8000)).with_napot(true), 12);
    }
    assert_eq!(ask(&mut world, Iova(0x10_5000), of_device()).ppn(), 0xa0 | 0b0111);
}

#[test]
fn a_fault_of_a_translation_request_is_told_and_recorded() {
    let (mut world, tables, _) = World::mapped_second(3);
    world.map(tables, Iova(0x5000), leaf(PAGE).with_write(false), 12);
    assert!(ask(&mut world, Iova(1 << 35), of_device()).fault());
    assert_eq!(world.fault().head.cause(), Cause::READ_GUEST_PAGE.0);
    assert!(!ask(&mut world, Iova(0x5000), of_device()).fault());
    // Without NW writing is asked for too, and the fault is that of a write.
    assert!(ask(&mut world, Iova(0x5000), of_device().with_no_write(false)).fault());
    assert_eq!(world.fault().head.cause(), Cause::WRITE_GUEST_PAGE.0);
    assert!(ask(&mut world, Iova(0x5000), of_device().with_process_valid(true).with_process(3)).fault());
    let record = world.fault().head;
    assert_eq!((record.cause(), record.process(), record.process_valid()), (260, 3, true));
}

#[test]
fn a_translation_request_waits_for_a_walker_and_is_not_changed_meanwhile() {
    let mut world = World::with(Capabilities::default(), Params { walks_max: 1, ..Params::default() }, 1);
    let tables = world.first_stage(3);
    world.map(tables, IOVA, leaf(PAGE), 12);
    world.set_device(DEVICE, Dc::bare().first(tables, PSCID));
    assert_eq!(world.unit.begin_debug(), Ok(None));
    let other = world.begin(iommu_model::riscv::Transaction::new(DEVICE, IOVA, iommu_model::Access::Read));
    world.write(Register::TrReqIova, IOVA.0);
    world.write(Register::TrReqCtl, of_device().with_go(true).into_bits());
    assert!(world.unit.begin_debug().is_err());
    world.write(Register::TrReqIova, 0);
    assert!(!world.unit.write_register(Register::TrReqCtl, 0).debug_request);
    assert_eq!(world.unit.read_register(Register::TrReqIova), IOVA.0);
    world.unit.cancel(other);
    let walk = world.unit.begin_debug().expect("a walker is free").expect("it waits");
    world.unit.cancel(walk);
    assert!(world.unit.debug_request_waits());
    let walk = world.unit.begin_debug().expect("a walker is free").expect("it waits again");
    assert!(matches!(world.drive(walk, &mut Plain).progress, Progress::Done(_)));
}

#[test]
fn a_reset_forgets_everything_but_what_the_unit_is() {
    let (mut world, ..) = World::mapped_nested(3);
    world.where_is(IOVA);
    let fresh = Unit::new(Capabilities::default(), Params::default());
    world.unit.reset();
    for register in Register::fixed() {
        assert_eq!(world.unit.read_register(register), fresh.read_register(register), "{register:?}");
    }
    assert!(world.unit.caches().is_empty() && world.unit.last_provenance().is_empty());
}
