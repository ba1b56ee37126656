//! Registers: identification, guards, acknowledgement, partial access.

use super::support::bench::{Bench, IOVA, PAGE};
use iommu_model::smmu::{Capabilities, HardwareUpdate, Params, Register, Unit};
use iommu_model::spec::smmu::capability::{Idr0, Idr1, Idr3, Idr5};
use iommu_model::spec::smmu::register::Control0;
use iommu_model::{Access, Progress};

#[test]
fn the_identification_registers_say_what_the_unit_can() {
    let cap = Capabilities { hardware_update: HardwareUpdate::Access, granule_16k: false, output_bits: 44, ..Capabilities::default() };
    let unit = Unit::new(cap, Params::default());
    let idr0 = Idr0::from_bits(unit.read_register(Register::Idr0) as u32);
    assert!(idr0.stage_1() && idr0.stage_2() && idr0.context_2_level() && idr0.terminate_model() && !idr0.ats());
    assert_eq!((idr0.hardware_update(), idr0.table_formats(), idr0.stall_model(), idr0.stream_levels()), (1, 2, 1, 1));
    let idr1 = Idr1::from_bits(unit.read_register(Register::Idr1) as u32);
    assert_eq!((idr1.stream_bits(), idr1.substream_bits()), (16, 20));
    let idr3 = Idr3::from_bits(unit.read_register(Register::Idr3) as u32);
    assert_eq!((idr3.range_invalidation(), idr3.break_before_make()), (true, 2));
    let idr5 = Idr5::from_bits(unit.read_register(Register::Idr5) as u32);
    assert_eq!((idr5.output_size(), idr5.granule_4k(), idr5.granule_16k(), idr5.granule_64k()), (4, true, false, true));
}

#[test]
fn what_an_enable_guards_can_only_change_while_it_is_off() {
    let mut bench = Bench::new();
    let guarded = [Register::StrtabBase, Register::StrtabBaseCfg, Register::Cr2, Register::CmdqBase, Register::EventqBase];
    for register in guarded {
        let before = bench.unit.read_register(register);
        bench.unit.write_register(register, !before & 0xff_ffff);
        assert_eq!(bench.unit.read_register(register), before, "{register:?}");
    }
    bench.unit.write_register(Register::CmdqCons, 5);
    assert_eq!(bench.unit.read_register(Register::CmdqCons), 0);
    bench.unit.write_register(Register::EventqProd, 5);
    assert_eq!(bench.unit.read_register(Register::EventqProd), 0);
    bench.control(Control0::new());
    for register in guarded {
        bench.unit.write_register(register, 0x7);
        assert_eq!(bench.unit.read_register(register), 7, "{register:?}");
    }
}

#[test]
fn smmuen_is_acknowledged_when_older_requests_have_landed() {
    let (mut bench, _) = Bench::mapped_1();
    let walk = bench.begin(IOVA, Access::Read);
    let effect = bench.unit.write_register(Register::Cr0, 0xc);
    assert!(effect.drain && effect.translation == Some(false));
    assert_eq!(bench.unit.read_register(Register::Cr0Ack), 0xd);
    bench.unit.write_register(Register::StrtabBase, 0);
    assert_ne!(bench.unit.read_register(Register::StrtabBase), 0, "the table is still in use");
    assert!(matches!(bench.finish(walk).progress, Progress::Untranslated { .. } | Progress::Done(_)));
    bench.unit.register_drained();
    assert_eq!(bench.unit.read_register(Register::Cr0Ack), 0xc);
}

#[test]
fn the_event_queue_is_off_only_when_its_records_are_written() {
    let mut bench = Bench::new();
    bench.read(IOVA);
    bench.unit.write_register(Register::Cr0, 0x9);
    assert_eq!(bench.unit.read_register(Register::Cr0Ack), 0xd);
    bench.run_events();
    assert_eq!(bench.unit.read_register(Register::Cr0Ack), 0x9);
    assert_eq!(bench.unit.read_register(Register::EventqProd), 1);
}

#[test]
fn registers_can_be_reached_by_offset_whole_and_in_halves() {
    let mut unit = Unit::new(Capabilities::default(), Params::default());
    unit.write_register_at(0x80, 4, 0x1234_5640);
    unit.write_register_at(0x84, 4, 0x12);
    assert_eq!(unit.read_register_at(0x80, 8), 0x12_1234_5640);
    assert_eq!(unit.read_register_at(0x84, 4), 0x12);
    unit.write_register_at(0x98, 8, 0x5_0000_0003);
    assert_eq!((unit.read_register(Register::CmdqProd), unit.read_register(Register::CmdqCons)), (3, 5));
    assert_eq!(unit.read_register_at(0x98, 8), 0x5_0000_0003);
    unit.write_register_at(0x1_00ac, 4, 0x8000_0002);
    assert_eq!(unit.read_register(Register::EventqCons), 0x8000_0002);
    assert_eq!((unit.read_register_at(0x82, 4), unit.read_register_at(0x80, 2), unit.read_register_at(0x8, 4)), (0, 0, 0));
}

#[test]
fn a_reset_forgets_everything_but_its_buffers() {
    let (mut bench, _) = Bench::mapped_1();
    assert_eq!(bench.read(IOVA).translation().pa, PAGE);
    let walk = bench.begin(IOVA, Access::Read);
    bench.unit.reset();
    assert!(!bench.unit.cancel(walk) && bench.unit.caches().is_empty() && !bench.unit.translation_enabled());
    assert_eq!(bench.unit.read_register(Register::Cr0Ack), 0);
    assert!(bench.unit.last_provenance().is_empty());
}
