//! Devices that translate for themselves: who may, what they are told, what they keep, and how it is taken back.

use super::support::bench::{DEVICE, DOMAIN, IOVA, OTHER_PAGE, PAGE};
use super::support::device::{Device, commands, granted, invalidate, obey, run};
use super::support::scalable::capabilities;
use super::support::tables::{context, leaf};
use super::support::{Bench, World, commands as unit_commands};
use iommu_model::spec::vtd::context::TT_DEVICE_TLB;
use iommu_model::spec::vtd::device_tlb::DeviceTlbDescriptor;
use iommu_model::spec::vtd::fault::{AT_TRANSLATED, AT_TRANSLATION};
use iommu_model::spec::vtd::register::{FaultStatus, QueueErrorRecord};
use iommu_model::{
    Access, Bdf, Capabilities, DeviceTlb, DomainId, Geometry, Iova, Pa, PageRange, Params, Pasid, Plain, Progress, QueueProgress, Register,
    SOURCES_NESTED_MAX, Source,
};

const STATUS: Pa = Pa(0x600_0000);

/// A device that may use a device TLB, with one page; and where the leaf entry lies.
fn attached() -> (Bench, Device, Pa) {
    attached_with(Capabilities::default())
}

fn attached_with(cap: Capabilities) -> (Bench, Device, Pa) {
    let mut bench = Bench::with(cap, Params::default());
    let tables = bench.tables.second_stage(4);
    let slot = bench.tables.map(&mut bench.memory, tables, IOVA, PAGE, 12);
    let pa = bench.tables.context_entry_pa(&mut bench.memory, DEVICE);
    bench.memory.write_wide(pa, context(DOMAIN, tables).with_translation_type(TT_DEVICE_TLB).into_bits());
    (bench, Device::new(DEVICE), slot)
}

fn errors(bench: &Bench) -> FaultStatus {
    FaultStatus::from_bits(bench.unit.read_register(Register::Fsts) as u32)
}

fn error_record(bench: &Bench) -> QueueErrorRecord {
    QueueErrorRecord::from_bits(bench.unit.read_register(Register::Iqercd))
}

#[test]
fn translation_and_translated_requests_need_t_01() {
    let (mut bench, _) = Bench::mapped();
    let device = Device::new(DEVICE);
    for (translated, address_type) in [(false, AT_TRANSLATION), (true, AT_TRANSLATED)] {
        let end = if translated { device.send_translated(&mut bench, PAGE) } else { device.ask(&mut bench, None, IOVA) };
        assert_eq!(end.fault().reason.code(), 0x0d);
        assert_eq!(bench.unit.fault_records()[0].address_type(), address_type);
        bench.write(Register::FrcdHigh(0), 1 << 63);
    }
    assert_eq!(bench.read(IOVA).translation().pa, PAGE, "plain requests are not touched by that");
}

#[test]
fn a_unit_without_device_tlb_support_calls_t_01_invalid() {
    let (mut bench, device, _) = attached_with(Capabilities { device_tlb: false, ..Default::default() });
    assert_eq!(device.ask(&mut bench, None, IOVA).fault().reason.code(), 0x03);
}

#[test]
fn a_translation_request_is_granted_what_the_tables_allow() {
    let (mut bench, device, slot) = attached();
    let end = device.ask(&mut bench, None, IOVA);
    assert_eq!((end.translation().pa, granted(&end)), (PAGE, (true, true)));
    assert_eq!(granted(&device.ask_to_read(&mut bench, None, IOVA)), (true, false), "NW hides the write permission");
    bench.memory.write(slot, leaf(PAGE, 12).with_write(false).into_bits());
    bench.invalidate(&[unit_commands::iotlb_global()]);
    assert_eq!(granted(&device.ask(&mut bench, None, IOVA)), (true, false));
    bench.memory.write(slot, leaf(PAGE, 12).with_read(false).into_bits());
    bench.invalidate(&[unit_commands::iotlb_global()]);
    assert_eq!(granted(&device.ask(&mut bench, None, IOVA)), (false, true));
    assert_eq!(granted(&device.ask_to_read(&mut bench, None, IOVA)), (false, false));
}

#[test]
fn a_missing_page_is_an_answer_and_no_fault() {
    let (mut bench, mut device, slot) = attached();
    bench.memory.write(slot, 0);
    assert_eq!(granted(&device.ask(&mut bench, None, IOVA)), (false, false));
    assert!(!bench.unit.fault_records()[0].fault());
    assert_eq!(device.read(&mut bench, IOVA), None);
    assert_eq!(device.tlb.entries().count(), 0, "such an answer is not kept");
    bench.memory.write(slot, leaf(PAGE, 12).into_bits());
    assert_eq!(device.read(&mut bench, IOVA), Some(PAGE));
}

#[test]
fn a_broken_entry_stays_a_fault_for_a_translation_request() {
    let (mut bench, device, slot) = attached();
    bench.memory.write(slot, leaf(PAGE, 12).with_reserved_62(true).into_bits());
    assert_eq!(device.ask(&mut bench, None, IOVA).fault().reason.code(), 0x0c);
    assert_eq!(bench.unit.fault_records()[0].address_type(), AT_TRANSLATION);
}

#[test]
fn a_translated_request_passes_without_a_walk_wherever_it_goes() {
    let (mut bench, device, _) = attached();
    let end = device.send_translated(&mut bench, OTHER_PAGE);
    assert!(matches!(end.progress, Progress::Untranslated { pa, .. } if pa == OTHER_PAGE), "the unit cannot know better");
    assert_eq!(end.fetched.len(), 2, "root and context entry only");
    assert_eq!(end.provenance.len(), 4);
    let end = device.send_translated(&mut bench, Pa(0xfee0_1000));
    assert_eq!(end.fault().reason.code(), 0x0e, "but not into the interrupt range");
}

#[test]
fn with_translation_off_nothing_of_the_kind_is_served() {
    let (mut bench, device, _) = attached();
    bench.enable(false);
    assert!(matches!(bench.read(IOVA).progress, Progress::Untranslated { .. }));
    assert!(!device.ask(&mut bench, None, IOVA).fault().recorded);
    assert!(!device.send_translated(&mut bench, PAGE).fault().recorded);
}

#[test]
fn dte_decides_in_scalable_mode() {
    let mut world = World::new();
    let device = Device::new(DEVICE);
    let stage = world.attach_second(Pasid(0), DOMAIN);
    world.bench.tables.map(&mut world.bench.memory, stage, IOVA, PAGE, 12);
    assert_eq!(device.ask(&mut world.bench, None, IOVA).fault().reason.code(), 0x44);
    assert_eq!(device.send_translated(&mut world.bench, PAGE).fault().reason.code(), 0x44);
    let entry = world.context().with_device_tlb(true);
    world.set_context(DEVICE, entry);
    world.bench.invalidate(&[unit_commands::context_device(DomainId(0), DEVICE)]);
    assert_eq!(granted(&device.ask(&mut world.bench, None, IOVA)), (true, true));
    assert!(matches!(device.send_translated(&mut world.bench, PAGE).progress, Progress::Untranslated { .. }));
}

#[test]
fn a_translation_request_through_a_first_stage_sets_a_and_d_only_where_it_may_write() {
    for (no_write, dirty) in [(true, false), (false, true)] {
        let mut world = World::new();
        let entry = world.context().with_device_tlb(true);
        world.set_context(DEVICE, entry);
        let tables = world.attach_first(Pasid(3), DOMAIN);
        let slot = world.map_first(tables, IOVA, PAGE, 12);
        let device = Device::new(DEVICE);
        let end = if no_write {
            device.ask_to_read(&mut world.bench, Some(Pasid(3)), IOVA)
        } else {
            device.ask(&mut world.bench, Some(Pasid(3)), IOVA)
        };
        assert_eq!(granted(&end), (true, !no_write));
        let word = world.bench.memory.read(slot);
        assert_eq!((word & 1 << 5 != 0, word & 1 << 6 != 0), (true, dirty));
    }
}

#[test]
fn the_device_uses_what_it_keeps_until_it_is_told_to_forget() {
    let (mut bench, mut device, slot) = attached();
    assert_eq!(device.read(&mut bench, IOVA), Some(PAGE));
    bench.memory.write(slot, leaf(OTHER_PAGE, 12).into_bits());
    bench.invalidate(&[unit_commands::iotlb_global(), unit_commands::context_global()]);
    assert_eq!(device.read(&mut bench, IOVA.offset(8)), Some(PAGE.offset(8)), "no invalidation of the unit reaches it");
    let entry = *device.tlb.entries().next().expect("it is kept");
    assert_eq!(device.tlb.provenance(entry.provenance).last().expect("it has words").pa, slot);
    invalidate(&mut bench, &mut device, true, &[commands::device_page(DEVICE, IOVA)]);
    assert_eq!(device.read(&mut bench, IOVA), Some(OTHER_PAGE));
}

#[test]
fn an_answer_from_before_an_invalidation_is_thrown_away() {
    let (mut bench, mut device, slot) = attached();
    let tag = device.tlb.ask(None, IOVA).expect("a question is free");
    let end = device.ask(&mut bench, None, IOVA);
    bench.memory.write(slot, 0);
    invalidate(&mut bench, &mut device, true, &[unit_commands::iotlb_global(), commands::device_all(DEVICE)]);
    assert!(!device.tlb.keep(tag, end.translation(), &end.provenance, &mut Plain));
    assert_eq!(device.tlb.look_up(None, IOVA, Access::Read), None);
}

#[test]
fn a_wait_completes_only_when_the_device_has() {
    let (mut bench, mut device, _) = attached();
    let all = invalidate(&mut bench, &mut device, false, &[commands::device_all(DEVICE), unit_commands::wait(STATUS, 7)]);
    assert!(matches!(all[..], [QueueProgress::InvalidateDevice { .. }, QueueProgress::Blocked { devices: 1, page_requests: 0, .. }]));
    assert!(!bench.unit.queue_has_work());
    assert_eq!((bench.memory.read(STATUS), bench.unit.device_invalidations_under_way()), (0, 1));
    let answer = bench.unit.device_completes(DEVICE, 1);
    assert!(answer.queue_work && answer.completed == 1);
    run(&mut bench, &mut device, false);
    assert_eq!(bench.memory.read(STATUS), 7);
}

#[test]
fn what_is_not_a_wait_does_not_wait_for_devices() {
    let (mut bench, mut device, _) = attached();
    bench.read(IOVA);
    let all = invalidate(&mut bench, &mut device, false, &[commands::device_all(DEVICE), unit_commands::iotlb_global()]);
    assert!(matches!(all[1], QueueProgress::Invalidated { what, .. } if what.entries_dropped > 0));
    assert_eq!(bench.unit.device_invalidations_under_way(), 1);
}

#[test]
fn a_thirty_third_invalidation_waits_for_a_tag() {
    let (mut bench, mut device, _) = attached();
    let all = invalidate(&mut bench, &mut device, false, &[commands::device_page(DEVICE, IOVA); 33]);
    assert_eq!(all.len(), 33);
    assert!(matches!(all[32], QueueProgress::Blocked { devices: 32, .. }));
    let itags: Vec<_> = all[..32]
        .iter()
        .map(|progress| match progress {
            QueueProgress::InvalidateDevice { request, .. } => request.itag,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(itags, (0..32).collect::<Vec<u8>>());
    bench.unit.device_completes(DEVICE, 1 << 17);
    let all = run(&mut bench, &mut device, false);
    assert!(matches!(all[0], QueueProgress::InvalidateDevice { request, .. } if request.itag == 17));
}

#[test]
fn a_throttling_unit_keeps_to_the_depth_of_the_device() {
    let cap = Capabilities { device_throttle: true, ..Default::default() };
    let (mut bench, mut device, _) = attached_with(cap);
    let shallow = DeviceTlbDescriptor::from_bits(commands::device_page(DEVICE, IOVA)).with_depth(2);
    let function = |n: u16| shallow.with_source(DEVICE.0 + n).with_physical_low(1).into_bits();
    let all = invalidate(&mut bench, &mut device, false, &[function(0), function(1), function(2)]);
    assert!(matches!(all[2], QueueProgress::Blocked { devices: 2, .. }), "virtual functions share the depth of the physical one");
    bench.unit.device_completes(Bdf(DEVICE.0 + 1), 0b10);
    assert!(matches!(run(&mut bench, &mut device, false)[0], QueueProgress::InvalidateDevice { .. }));
}

#[test]
fn a_device_that_does_not_answer_stops_the_queue_and_its_wait_is_never_written() {
    let (mut bench, mut device, _) = attached();
    bench.write(Register::Fectl, 0);
    invalidate(&mut bench, &mut device, false, &[commands::device_all(DEVICE), unit_commands::wait(STATUS, 1)]);
    let answer = bench.unit.device_times_out(0);
    assert!(answer.error && answer.message.is_some() && !answer.queue_work);
    assert!(errors(&bench).timeout_error());
    assert_eq!(error_record(&bench).timeout_source(), DEVICE.0);
    let other = Device::new(Bdf::new(7, 0, 0));
    bench.submit(&[unit_commands::wait(STATUS, 2)]);
    assert!(run(&mut bench, &mut device, true).is_empty(), "nothing is fetched, {:?} or not", other.source);
    bench.write(Register::Fsts, u64::from(FaultStatus::new().with_timeout_error(true).into_bits()));
    run(&mut bench, &mut device, true);
    assert_eq!(bench.memory.read(STATUS), 2, "the first wait is gone for good");
    assert_eq!(error_record(&bench).timeout_source(), 0, "valid only while the bit is set");
    assert!(!bench.unit.device_times_out(0).error, "nothing is under way any more");
}

#[test]
fn a_completion_that_nobody_waits_for_is_an_error_that_stops_nothing() {
    let (mut bench, mut device, _) = attached();
    invalidate(&mut bench, &mut device, false, &[commands::device_all(DEVICE)]);
    let stranger = Bdf::new(7, 0, 0);
    for (source, itags) in [(stranger, 1), (DEVICE, 2), (DEVICE, 0x8000_0000)] {
        let answer = bench.unit.device_completes(source, itags);
        assert!(answer.error && answer.completed == 0);
        assert!(errors(&bench).completion_error());
        assert_eq!(error_record(&bench).completion_source(), source.0);
    }
    run(&mut bench, &mut device, true);
    bench.submit(&[unit_commands::iotlb_global()]);
    assert_eq!(run(&mut bench, &mut device, true).len(), 1, "the queue goes on");
    assert_eq!(bench.unit.device_completes(DEVICE, 0b11).completed, 1, "what is right in it counts");
}

#[test]
fn pasid_invalidations_remove_one_pasid_or_all() {
    let mut tlb = DeviceTlb::new(Geometry::fully_associative(4));
    let mut world = World::with(capabilities(), Params::default());
    let entry = world.context().with_device_tlb(true);
    world.set_context(DEVICE, entry);
    let device = Device::new(DEVICE);
    for pasid in [Pasid(1), Pasid(2)] {
        let tables = world.attach_first(pasid, DOMAIN);
        world.map_first(tables, IOVA, PAGE, 12);
        let tag = tlb.ask(Some(pasid), IOVA).expect("a question is free");
        let end = device.ask(&mut world.bench, Some(pasid), IOVA);
        assert!(tlb.keep(tag, end.translation(), &end.provenance, &mut Plain));
    }
    let sent = |world: &mut World, descriptor| {
        let mut device = Device::new(DEVICE);
        match invalidate(&mut world.bench, &mut device, true, &[descriptor])[..] {
            [QueueProgress::InvalidateDevice { request, .. }] => request,
            ref other => panic!("{other:?}"),
        }
    };
    let request = sent(&mut world, commands::device_page(DEVICE, IOVA));
    assert_eq!(tlb.invalidate(&request), 0, "without PASID it means translations without");
    let request = sent(&mut world, commands::device_pasid(DEVICE, Pasid(2), false));
    assert_eq!(request.range.pages(), PageRange::ALL.pages());
    assert_eq!(tlb.invalidate(&request), 1);
    assert_eq!(tlb.look_up(Some(Pasid(1)), IOVA, Access::Write), Some(PAGE));
    let request = sent(&mut world, commands::device_pasid(DEVICE, Pasid(9), true));
    assert_eq!(tlb.invalidate(&request), 1, "G means every PASID");
}

#[test]
fn which_translation_makes_room_is_the_callers_choice() {
    let (mut bench, _, _) = attached();
    let tables = bench.tables.second_stage(4);
    let pa = bench.tables.context_entry_pa(&mut bench.memory, DEVICE);
    bench.memory.write_wide(pa, context(DOMAIN, tables).with_translation_type(TT_DEVICE_TLB).into_bits());
    let mut device = Device::new(DEVICE);
    for n in 0..4 {
        bench.tables.map(&mut bench.memory, tables, IOVA.offset(n << 12), PAGE.offset(n << 12), 12);
        device.read(&mut bench, IOVA.offset(n << 12));
    }
    bench.tables.map(&mut bench.memory, tables, Iova(0), PAGE, 12);
    let tag = device.tlb.ask(None, Iova(0)).expect("a question is free");
    let end = device.ask(&mut bench, None, Iova(0));
    device.tlb.keep(tag, end.translation(), &end.provenance, &mut |question: iommu_model::Question| question.options() - 1);
    let kept = |n: u64| device.tlb.clone().look_up(None, IOVA.offset(n << 12), Access::Read).is_some();
    assert_eq!([0, 1, 2, 3].map(kept), [true, true, true, false], "the most recently used one went");
}

#[test]
fn a_superpage_goes_as_a_whole() {
    let mut bench = Bench::new();
    let tables = bench.tables.second_stage(4);
    bench.tables.map(&mut bench.memory, tables, Iova(0x4020_0000), Pa(0), 21);
    let pa = bench.tables.context_entry_pa(&mut bench.memory, DEVICE);
    bench.memory.write_wide(pa, context(DOMAIN, tables).with_translation_type(TT_DEVICE_TLB).into_bits());
    let mut device = Device::new(DEVICE);
    assert_eq!(device.read(&mut bench, IOVA), Some(Pa(0x3000)));
    assert_eq!(device.tlb.entries().next().expect("it is kept").page_bytes, 2 << 20);
    let all = invalidate(&mut bench, &mut device, false, &[commands::device_page(DEVICE, Iova(0x402f_f000))]);
    let [QueueProgress::InvalidateDevice { request, .. }] = all[..] else { panic!("{all:?}") };
    obey(&mut bench, &mut device, &request);
    assert_eq!(device.tlb.entries().count(), 0);
}

#[test]
fn the_words_of_the_last_walk_read_the_same_with_and_without_a_list() {
    let (mut bench, device, slot) = attached();
    for end in [device.ask(&mut bench, None, IOVA), device.ask(&mut bench, None, IOVA)] {
        let mut buffer = [Source::BLANK; SOURCES_NESTED_MAX];
        assert_eq!(bench.unit.last_sources(&mut buffer), &*end.provenance);
        assert_eq!(end.provenance.len(), 8);
        // Nothing holds the words of a cached page but the cache: they stay readable when it goes.
        bench.memory.write(slot, leaf(OTHER_PAGE, 12).into_bits());
        bench.invalidate(&[unit_commands::iotlb_global(), unit_commands::context_global()]);
        assert_eq!(bench.unit.last_sources(&mut buffer), &*end.provenance);
    }
}
