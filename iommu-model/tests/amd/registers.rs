//! Registers: offsets, what sticks, what starts and stops.

use super::support::{Bench, IOVA, commands};
use iommu_model::Progress;
use iommu_model::amd::{Capabilities, Register, Unit, locate_register};
use iommu_model::spec::amd::control::{Control, ExtendedFeatures, ExtendedFeatures2, HATS_5};
use iommu_model::spec::amd::register::{BufferBase, BufferPointer};
use iommu_model::{Params, Pfn};

#[test]
fn every_register_lies_where_the_specification_puts_it() {
    let expected = [
        (0x00, Register::DeviceTableBase),
        (0x08, Register::CommandBase),
        (0x10, Register::EventBase),
        (0x18, Register::Control),
        (0x20, Register::ExclusionBase),
        (0x28, Register::ExclusionLimit),
        (0x30, Register::ExtendedFeatures),
        (0x158, Register::MsiHeader),
        (0x15c, Register::MsiAddressLow),
        (0x160, Register::MsiAddressHigh),
        (0x164, Register::MsiData),
        (0x1a0, Register::ExtendedFeatures2),
        (0x2000, Register::CommandHead),
        (0x2008, Register::CommandTail),
        (0x2010, Register::EventHead),
        (0x2018, Register::EventTail),
        (0x2020, Register::Status),
    ];
    assert_eq!(expected.map(|(_, register)| register).to_vec(), Register::all().collect::<Vec<_>>());
    for (offset, register) in expected {
        assert_eq!(locate_register(offset).map(|(found, start, _)| (found, start)), Some((register, offset)));
    }
    assert_eq!(locate_register(0x38), None);
}

#[test]
fn features_say_what_the_capabilities_do() {
    let cap = Capabilities { host_levels: 5, pasid_bits: 16, guest_root_levels: 2, host_dirty: false, ..Capabilities::default() };
    let mut unit = Unit::new(cap, Params::default());
    let features = ExtendedFeatures::from_bits(unit.read_register_at(0x30, 8));
    assert_eq!((features.host_levels(), features.pasid_bits(), features.guest_root_levels()), (HATS_5, 15, 1));
    assert!(features.host_accessed() && !features.host_dirty() && features.guest_translation());
    unit.write_register_at(0x30, 8, 0);
    assert_eq!(unit.read_register_at(0x30, 8), features.into_bits());
    assert!(ExtendedFeatures2::from_bits(unit.read_register_at(0x1a0, 8)).guest_root_is_guest());
}

#[test]
fn halves_of_a_register_can_be_written_apart() {
    let mut unit = Unit::new(Capabilities::default(), Params::default());
    unit.write_register_at(0x04, 4, 0x000f_0000);
    unit.write_register_at(0x00, 4, 0x1234_5fff);
    assert_eq!(unit.read_register_at(0x00, 8), 0x000f_0000_1234_51ff, "bits 11:9 are reserved");
    assert_eq!(unit.read_register_at(0x00, 4), 0x1234_51ff);
    unit.write_register_at(0x02, 4, 0);
    unit.write_register_at(0x00, 2, 0);
    assert_eq!(unit.read_register_at(0x00, 8), 0x000f_0000_1234_51ff, "misaligned or of another size");
    unit.write_register_at(0x15c, 4, 0xfee0_0000);
    unit.write_register_at(0x160, 8, 0x41_0000_0001);
    assert_eq!((unit.read_register(Register::MsiAddressHigh), unit.read_register(Register::MsiData)), (1, 0x41));
}

#[test]
fn a_new_base_puts_both_pointers_to_zero() {
    let mut unit = Unit::new(Capabilities::default(), Params::default());
    for (base, head, tail) in [
        (Register::CommandBase, Register::CommandHead, Register::CommandTail),
        (Register::EventBase, Register::EventHead, Register::EventTail),
    ] {
        unit.write_register(head, BufferPointer::new().with_index(5).into_bits());
        unit.write_register(tail, BufferPointer::new().with_index(0x105).into_bits());
        assert_eq!(unit.read_register(tail), 0x50, "an index of 256 entries");
        unit.write_register(base, BufferBase::new().with_frame(Pfn(7).0).with_length(9).into_bits());
        assert_eq!((unit.read_register(head), unit.read_register(tail)), (0, 0));
        unit.write_register(tail, BufferPointer::new().with_index(0x105).into_bits());
        assert_eq!(unit.read_register(tail), 0x1050, "of 512");
    }
}

#[test]
fn buffers_run_only_while_the_unit_is_on() {
    let mut unit = Unit::new(Capabilities::default(), Params::default());
    let both = Control::new().with_command_buffer(true).with_event_log(true);
    let running = |unit: &Unit| unit.read_register(Register::Status) >> 3 & 3;
    unit.write_register(Register::Control, both.into_bits());
    assert_eq!(running(&unit), 0);
    unit.write_register(Register::Control, both.with_enable(true).into_bits());
    assert_eq!(running(&unit), 3);
    unit.write_register(Register::Control, both.into_bits());
    assert_eq!(running(&unit), 0);
}

#[test]
fn control_bits_of_missing_features_stay_zero() {
    let cap = Capabilities { guest_translation: false, guest_root_in_guest: false, ..Capabilities::default() };
    let mut unit = Unit::new(cap, Params::default());
    unit.write_register(Register::Control, Control::new().with_guest_translation(true).with_guest_root_is_guest(true).into_bits());
    assert_eq!(unit.read_register(Register::Control), 0);
}

#[test]
fn switching_the_unit_off_and_on_keeps_what_is_cached() {
    let (mut bench, _) = Bench::mapped();
    bench.read(IOVA);
    bench.control(|control| control.with_enable(false));
    assert!(matches!(bench.read(IOVA).progress, Progress::Untranslated { .. }));
    bench.control(|control| control.with_enable(true));
    assert!(bench.read(IOVA).fetched.is_empty());
    bench.invalidate(&[commands::all()]);
    assert_eq!(bench.read(IOVA).fetched.len(), 5);
}

#[test]
fn a_reset_forgets_everything() {
    let (mut bench, _) = Bench::mapped();
    bench.begin(IOVA.offset(0x1000), iommu_model::Access::Read);
    bench.read(IOVA);
    bench.unit.reset();
    assert!(bench.unit.caches().is_empty());
    assert_eq!(bench.unit.in_flight_count(), 0);
    let fresh = Unit::new(Capabilities::default(), Params::default());
    for register in Register::all() {
        assert_eq!(bench.unit.read_register(register), fresh.read_register(register), "{register:?}");
    }
}

#[test]
fn the_command_buffer_does_not_move_while_it_runs() {
    let (mut bench, _) = Bench::mapped();
    let before = [Register::CommandBase, Register::CommandHead].map(|register| bench.unit.read_register(register));
    bench.write(Register::CommandBase, BufferBase::new().with_frame(7).with_length(9).into_bits());
    bench.write(Register::CommandHead, BufferPointer::new().with_index(3).into_bits());
    assert_eq!([Register::CommandBase, Register::CommandHead].map(|register| bench.unit.read_register(register)), before);
    bench.control(|control| control.with_command_buffer(false));
    bench.write(Register::CommandHead, BufferPointer::new().with_index(3).into_bits());
    assert_eq!(bench.unit.read_register(Register::CommandHead), 0x30);
}
