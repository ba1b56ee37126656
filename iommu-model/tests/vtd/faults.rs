//! Faults: each reason, and how they are recorded.

use super::support::Bench;
use super::support::bench::{DEVICE, DOMAIN, IOVA, PAGE};
use super::support::tables::{context, leaf, pointer};
use super::support::{Scripted, tables::SecondStage};
use iommu_model::spec::vtd::fault::FaultRecord;
use iommu_model::spec::vtd::register::{EventControl, FaultStatus};
use iommu_model::spec::vtd::root::RootEntry;
use iommu_model::{Access, Bdf, Capabilities, Fault, FaultInfo, FaultReason, Iova, Message, Pa, Params, Plain, Question, Register};

fn status(bench: &Bench) -> FaultStatus {
    FaultStatus::from_bits(bench.unit.read_register(Register::Fsts) as u32)
}

fn clear_record(bench: &mut Bench, index: u8) {
    bench.write(Register::FrcdHigh(index), (FaultRecord::new().with_fault(true).into_bits() >> 64) as u64);
}

fn read_code(bench: &mut Bench) -> u16 {
    bench.read(IOVA).fault().reason.code()
}

#[test]
fn each_defect_of_root_and_context_has_its_code() {
    let (mut bench, _) = Bench::mapped();
    let root_slot = bench.tables.root_entry_pa(DEVICE);
    let good_root = bench.memory.read(root_slot);
    bench.memory.write(root_slot, 0);
    assert_eq!(read_code(&mut bench), 0x01);
    bench.memory.write_wide(root_slot, RootEntry::from(u128::from(good_root)).with_reserved_low(1).into_bits());
    assert_eq!(read_code(&mut bench), 0x0a);
    bench.memory.write_wide(root_slot, RootEntry::from(u128::from(good_root)).with_reserved_high(1).into_bits());
    assert_eq!(read_code(&mut bench), 0x0a);
    bench.memory.write_wide(root_slot, u128::from(good_root));

    let slot = bench.tables.context_entry_pa(&mut bench.memory, DEVICE);
    let good = context(DOMAIN, SecondStage { root: Pa(0x9000), levels: 4 });
    let cases = [
        (good.with_present(false), 0x02),
        (good.with_translation_type(3), 0x03),
        (good.with_address_width(0), 0x03),
        (good.with_address_width(7), 0x03),
        (good.with_reserved_low(1), 0x0b),
        (good.with_reserved_71(true), 0x0b),
        (good.with_reserved_high(1), 0x0b),
        (good.with_available(0xf).with_present(false), 0x02),
    ];
    for (entry, code) in cases {
        bench.memory.write_wide(slot, entry.into_bits());
        assert_eq!(read_code(&mut bench), code, "{entry:?}");
    }
}

#[test]
fn what_the_unit_does_not_support_makes_a_context_entry_invalid() {
    let cap = Capabilities { pass_through: false, device_tlb: false, five_level: false, ..Default::default() };
    let mut bench = Bench::with(cap, Params::default());
    let slot = bench.tables.context_entry_pa(&mut bench.memory, DEVICE);
    let good = context(DOMAIN, SecondStage { root: Pa(0x9000), levels: 4 });
    for entry in [good.with_translation_type(1), good.with_translation_type(2), good.with_address_width(3)] {
        bench.memory.write_wide(slot, entry.into_bits());
        assert_eq!(read_code(&mut bench), 0x03);
    }
}

#[test]
fn an_address_beyond_the_width_has_its_code() {
    let mut bench = Bench::new();
    bench.attach_and_map(3, 12);
    assert_eq!(bench.read(Iova(1 << 39)).fault().reason.code(), 0x04);
    let cap = Capabilities { guest_width: 32, ..Default::default() };
    let mut bench = Bench::with(cap, Params::default());
    bench.tables.attach_pass_through(&mut bench.memory, DEVICE, DOMAIN);
    assert_eq!(bench.read(Iova(1 << 32)).fault().reason.code(), 0x04);
    bench.read(Iova((1 << 32) - 1)).translation();
}

#[test]
fn each_defect_of_a_paging_entry_has_its_code() {
    let (mut bench, slot) = Bench::mapped();
    let good = leaf(PAGE, 12);
    let cases = [
        (good.with_read(false), Access::Read, 0x06),
        (good.with_write(false), Access::Write, 0x05),
        (good.with_reserved_62(true), Access::Read, 0x0c),
        (good.with_reserved_62(true).with_read(false).with_write(false), Access::Read, 0x06),
        (leaf(Pa(0xfee0_0000), 12), Access::Read, 0x0e),
    ];
    for (entry, access, code) in cases {
        bench.memory.write(slot, entry.into_bits());
        let fault = bench.translate_with(IOVA, access, &mut Plain).fault();
        assert_eq!(fault.reason.code(), code, "{entry:?}");
        assert_eq!(bench.unit.caches().iotlb().count(), 0);
    }
}

#[test]
fn bits_that_are_ignored_do_not_fault() {
    let (mut bench, slot) = Bench::mapped();
    let entry = leaf(PAGE, 12)
        .with_execute(true)
        .with_memory_type(7)
        .with_ignore_pat(true)
        .with_page_size(true)
        .with_accessed(true)
        .with_dirty(true)
        .with_ignored_10(true)
        .with_snoop(true)
        .with_ignored_high(0x3ff)
        .with_ignored_63(true);
    bench.memory.write(slot, entry.into_bits());
    assert_eq!(bench.read(IOVA).translation().pa, PAGE);
}

#[test]
fn reserved_bits_depend_on_level_and_capability() {
    let narrow = Capabilities { snoop_control: false, superpage_1g: false, host_width: 40, ..Capabilities::default() };
    let cases = [
        (Capabilities::default(), 12, leaf(PAGE, 12), None),
        (narrow, 12, leaf(PAGE, 12).with_snoop(true), Some(0x0c)),
        (narrow, 12, leaf(Pa(1 << 40), 12), Some(0x0c)),
        (narrow, 30, leaf(Pa(0), 30), Some(0x0c)),
        (narrow, 21, leaf(Pa(0), 21), None),
        (Capabilities::default(), 21, leaf(Pa(0x1000), 21), Some(0x0c)),
        (Capabilities::default(), 30, leaf(Pa(0x20_0000), 30), Some(0x0c)),
        (Capabilities::default(), 39, leaf(Pa(0), 39), Some(0x0c)),
        (Capabilities::default(), 21, pointer(Pa(0x9000)).with_snoop(true), Some(0x0c)),
    ];
    for (cap, shift, entry, code) in cases {
        let mut bench = Bench::with(cap, Params::default());
        let tables = bench.tables.second_stage(4);
        bench.tables.attach(&mut bench.memory, DEVICE, DOMAIN, tables);
        let slot = bench.tables.slot(&mut bench.memory, tables, IOVA, shift);
        bench.memory.write(slot, entry.into_bits());
        match code {
            Some(code) => assert_eq!(read_code(&mut bench), code, "{entry:?}"),
            None => assert_eq!(bench.read(IOVA).translation().page_bytes, 1 << shift),
        }
    }
}

#[test]
fn a_table_where_there_is_no_memory_has_its_code() {
    for (end, code) in [(0x1000, 0x08), (0x1001, 0x09), (0x1003, 0x07)] {
        let mut bench = Bench::new();
        // Frames from 0x1000 on: root table, second-stage root, context table, lower tables.
        bench.tables.context_entry_pa(&mut bench.memory, DEVICE);
        bench.attach_and_map(4, 12);
        bench.memory.end = Some(Pa(end << 12));
        assert_eq!(read_code(&mut bench), code);
    }
}

#[test]
fn an_unknown_root_table_mode_faults_every_request() {
    let (mut bench, _) = Bench::mapped();
    for mode in 1..4 {
        bench.switch_root(Pa(bench.tables.root.0 | (mode << 10)));
        assert_eq!(read_code(&mut bench), 0x30);
    }
}

#[test]
fn a_fault_is_recorded_with_all_its_fields() {
    let (mut bench, slot) = Bench::mapped();
    bench.memory.write(slot, 0);
    for (access, code) in [(Access::Read, 0x06), (Access::Write, 0x05)] {
        let fault = bench.translate_with(IOVA.offset(0x10), access, &mut Plain).fault();
        assert!(fault.recorded);
        let record = bench.unit.fault_records()[0];
        assert_eq!(record.source(), DEVICE.0);
        assert_eq!(record.page(), IOVA.page_number());
        assert_eq!(record.reason(), code);
        assert_eq!(record.type_1(), access == Access::Read);
        assert!(record.fault() && status(&bench).pending());
        clear_record(&mut bench, 0);
        assert!(!status(&bench).pending());
    }
}

fn fault_of(bench: &mut Bench, device: u8) -> FaultInfo {
    bench.read_from(Bdf::new(0x3b, device, 0), IOVA).fault()
}

#[test]
fn a_second_fault_overflows_a_single_record_until_software_clears_the_bit() {
    let mut bench = Bench::new();
    assert!(fault_of(&mut bench, 1).recorded);
    assert!(!fault_of(&mut bench, 2).recorded);
    assert!(status(&bench).overflow());
    clear_record(&mut bench, 0);
    assert!(!fault_of(&mut bench, 3).recorded, "lost while the overflow bit is set");
    bench.write(Register::Fsts, u64::from(FaultStatus::new().with_overflow(true).into_bits()));
    assert!(fault_of(&mut bench, 4).recorded);
    assert_eq!(bench.unit.fault_records()[0].source(), Bdf::new(0x3b, 4, 0).0);
}

#[test]
fn faults_of_one_source_collapse_unless_the_caller_says_otherwise() {
    let cap = Capabilities { fault_records: 4, ..Default::default() };
    let mut bench = Bench::with(cap, Params::default());
    assert!(fault_of(&mut bench, 1).recorded);
    assert!(!fault_of(&mut bench, 1).recorded);
    assert!(!status(&bench).overflow());
    let mut d = Scripted::new(|q| q == Question::RecordRepeatedFault, 1);
    let request = iommu_model::Request { source: Bdf::new(0x3b, 1, 0), iova: IOVA, access: Access::Read, pasid: None };
    let walk = bench.unit.begin(request).expect("a walker is free");
    assert!(bench.finish_with(walk, &mut d).fault().recorded);
    assert_eq!(d.asked, 1);
}

#[test]
fn records_fill_in_turn_and_wrap_around() {
    let cap = Capabilities { fault_records: 2, ..Default::default() };
    let mut bench = Bench::with(cap, Params::default());
    for device in 1..4 {
        assert!(fault_of(&mut bench, device).recorded);
        let index = (device - 1) % 2;
        assert_eq!(bench.unit.fault_records()[usize::from(index)].source(), Bdf::new(0x3b, device, 0).0);
        assert_eq!(status(&bench).record_index(), index);
        clear_record(&mut bench, index);
    }
}

#[test]
fn fault_processing_disable_suppresses_qualified_faults_only() {
    let mut bench = Bench::new();
    let slot = bench.tables.context_entry_pa(&mut bench.memory, DEVICE);
    let tables = bench.tables.second_stage(4);
    let quiet = context(DOMAIN, tables).with_fault_disable(true);
    bench.memory.write_wide(slot, quiet.with_reserved_low(1).into_bits());
    let fault = bench.read(IOVA).fault();
    assert_eq!((fault.reason, fault.recorded), (Fault::Vtd(FaultReason::CONTEXT_RESERVED), true));
    clear_record(&mut bench, 0);
    for entry in [quiet.with_present(false), quiet] {
        bench.memory.write_wide(slot, entry.into_bits());
        assert!(!bench.read(IOVA).fault().recorded);
    }
    assert!(!bench.read(IOVA).fault().recorded, "from the context cache as well");
    assert!(!status(&bench).pending());
}

#[test]
fn the_event_goes_out_with_the_first_pending_record_unless_masked() {
    let cap = Capabilities { fault_records: 4, ..Default::default() };
    let mut bench = Bench::with(cap, Params::default());
    bench.write(Register::Fedata, 0x4041);
    bench.write(Register::Feaddr, 0xfee0_1000);
    let control = |bench: &Bench| EventControl::from_bits(bench.unit.read_register(Register::Fectl) as u32);
    assert!(control(&bench).masked(), "after reset");
    assert_eq!(fault_of(&mut bench, 1).interrupt, None);
    assert!(control(&bench).pending());
    let message = Message { address: Pa(0xfee0_1000), data: 0x4041 };
    assert_eq!(bench.write(Register::Fectl, 0).messages.as_slice(), [message]);
    assert!(!control(&bench).pending());
    assert_eq!(fault_of(&mut bench, 2).interrupt, None, "one is pending already");
    clear_record(&mut bench, 0);
    clear_record(&mut bench, 1);
    assert_eq!(fault_of(&mut bench, 3).interrupt, Some(message));
}

#[test]
fn a_masked_event_is_forgotten_when_its_cause_is_cleared() {
    let mut bench = Bench::new();
    fault_of(&mut bench, 1);
    clear_record(&mut bench, 0);
    assert!(bench.write(Register::Fectl, 0).messages.is_empty());
}
