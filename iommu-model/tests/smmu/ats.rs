//! ATS: translation requests and translated requests, the device TLB behind them, and CMD_ATC_INV.

use crate::support::bench::{ASID, Bench, DEVICE, Ended, GUEST, GUEST_PAGE, IOVA, OTHER_PAGE, PAGE, STREAM, VMID};
use crate::support::tables::{commands, page_1, page_2, stream_1, stream_nested};
use iommu_model::smmu::{Capabilities, CommandProgress, Params, Register};
use iommu_model::spec::smmu::command::{ATC_INV, ATC_SIZE_ALL, AtcCommand};
use iommu_model::spec::smmu::event::EventId;
use iommu_model::spec::smmu::register::Control0;
use iommu_model::spec::smmu::stream::{ATS_FULL, ATS_SPLIT, StreamEntry1};
use iommu_model::{
    Access, AtsAnswer, Attributes, DeviceInvalidation, DeviceTlb, Geometry, Iova, Pa, PageRange, Pasid, Plain, Progress, Request,
};

fn cap() -> Capabilities {
    Capabilities { ats: true, ..Capabilities::default() }
}

fn on() -> Control0 {
    Control0::new().with_enable(true).with_event_queue(true).with_command_queue(true).with_ats_check(true)
}

/// Sets EATS of the device's STE.
fn set_ats(bench: &mut Bench, ats: u8) {
    let pa = Bench::stream_pa(STREAM).offset(8);
    let word = StreamEntry1::from_bits(bench.memory.read(pa)).with_ats(ats);
    bench.memory.write(pa, word.into_bits());
}

/// Stage 1, a page at [`IOVA`], ATS on, ATSCHK. Returns where the leaf lies.
fn with_stage_1(ats: u8) -> (Bench, Pa) {
    let mut bench = Bench::with(cap(), Params::default());
    bench.control(on());
    let (_, stage) = bench.attach_1();
    let leaf = bench.map(stage, IOVA.0, 3, page_1(PAGE).into_bits());
    set_ats(&mut bench, ats);
    (bench, leaf)
}

/// Both stages. Returns where both leaves lie.
fn with_both(ats: u8) -> (Bench, Pa, Pa) {
    let (mut bench, first, second) = Bench::nested(cap(), Params::default());
    bench.control(on());
    let leaf_1 = bench.map_above(first, IOVA.0, 3, page_1(GUEST_PAGE).into_bits(), GUEST);
    let leaf_2 = bench.map(second, GUEST_PAGE.0, 3, page_2(PAGE).into_bits());
    set_ats(&mut bench, ats);
    (bench, leaf_1, leaf_2)
}

fn send(bench: &mut Bench, attributes: Attributes, iova: Iova, access: Access) -> Ended {
    let request = Request { source: DEVICE, iova, access, pasid: None };
    let walk = bench.unit.begin_as(request, attributes).expect("a walker is free");
    bench.finish(walk)
}

fn ask(bench: &mut Bench, iova: Iova) -> Ended {
    send(bench, Attributes::translation(false), iova, Access::Read)
}

fn ask_to_read(bench: &mut Bench, iova: Iova) -> Ended {
    send(bench, Attributes::translation(true), iova, Access::Write)
}

fn send_translated(bench: &mut Bench, pa: Pa) -> Ended {
    send(bench, Attributes::translated(), Iova(pa.0), Access::Read)
}

fn granted(end: &Ended) -> (bool, bool) {
    let translation = end.translation();
    (translation.readable, translation.writable)
}

fn passed(end: &Ended) -> Option<Pa> {
    match end.progress {
        Progress::Untranslated { pa, .. } => Some(pa),
        _ => None,
    }
}

fn events(bench: &mut Bench) -> Vec<u8> {
    bench.events().iter().map(|record| record[0] as u8).collect()
}

fn atc_inv(size: u8, iova: Iova) -> AtcCommand {
    AtcCommand::new().with_opcode(ATC_INV).with_stream(STREAM.0).with_size(size).with_page(iova.page_number())
}

/// Submits commands and runs the queue; each invalidation that leaves is given to `device`, which completes it.
fn obeyed(bench: &mut Bench, device: &mut DeviceTlb, commands: &[u128]) -> Vec<CommandProgress> {
    bench.submit(commands);
    let mut all = Vec::new();
    loop {
        let some = bench.run_commands_with(&mut Plain);
        let sent: Vec<DeviceInvalidation> = some
            .iter()
            .filter_map(|progress| match progress {
                CommandProgress::InvalidateDevice { request, .. } => Some(*request),
                _ => None,
            })
            .collect();
        all.extend(some);
        for request in &sent {
            device.invalidate(request);
            assert_eq!(bench.unit.device_completes(request.source, 1 << request.itag), 1);
        }
        if sent.is_empty() {
            return all;
        }
    }
}

/// An access of a device that translates for itself.
fn read_by(bench: &mut Bench, device: &mut DeviceTlb, iova: Iova) -> Option<Pa> {
    if let Some(pa) = device.look_up(None, iova, Access::Read) {
        return Some(pa);
    }
    let tag = device.ask(None, iova).expect("a question is free");
    let end = ask(bench, iova);
    let answer = *end.translation();
    device.keep(tag, &answer, &end.provenance, &mut Plain);
    answer.readable.then_some(answer.pa)
}

fn device() -> DeviceTlb {
    DeviceTlb::new(Geometry::fully_associative(4))
}

#[test]
fn without_eats_neither_kind_of_request_is_served_and_both_are_told() {
    for ats in [0, 3] {
        let (mut bench, _) = with_stage_1(ats);
        assert_eq!(ask(&mut bench, IOVA).event(), EventId::BAD_ATS_REQUEST);
        assert_eq!(send_translated(&mut bench, PAGE).event(), EventId::TRANSLATION_FORBIDDEN);
        let records = bench.events();
        assert_eq!(records.iter().map(|record| (record[0] as u8, record[2])).collect::<Vec<_>>(), [(5, IOVA.0), (7, PAGE.0)]);
        assert_eq!(bench.read(IOVA).translation().pa, PAGE, "plain requests pass");
        // The same from the configuration caches.
        assert_eq!(ask(&mut bench, IOVA).event(), EventId::BAD_ATS_REQUEST);
        assert_eq!(send_translated(&mut bench, PAGE).event(), EventId::TRANSLATION_FORBIDDEN);
    }
    assert_eq!(AtsAnswer::of_event(EventId::BAD_ATS_REQUEST), AtsAnswer::UnsupportedRequest);
}

#[test]
fn a_unit_without_ats_ignores_eats_and_refuses_both() {
    let mut bench = Bench::with(Capabilities { ats: false, ..cap() }, Params::default());
    let (_, stage) = bench.attach_1();
    bench.map(stage, IOVA.0, 3, page_1(PAGE).into_bits());
    set_ats(&mut bench, ATS_SPLIT);
    assert_eq!(bench.read(IOVA).translation().pa, PAGE, "an EATS that would be illegal");
    assert_eq!(ask(&mut bench, IOVA).event(), EventId::BAD_ATS_REQUEST);
    assert_eq!(send_translated(&mut bench, PAGE).event(), EventId::TRANSLATION_FORBIDDEN);
    assert_eq!(bench.unit.read_register(Register::Idr0) & (1 << 10 | 1 << 11 | 1 << 23), 0);
}

#[test]
fn without_atschk_translated_requests_pass_and_no_table_is_read() {
    let (mut bench, _) = with_stage_1(0);
    bench.control(on().with_ats_check(false));
    let end = send_translated(&mut bench, OTHER_PAGE);
    assert_eq!((passed(&end), end.fetched.len(), end.provenance.len()), (Some(OTHER_PAGE), 0, 0));
    assert_eq!(send_translated(&mut bench, Pa(1 << 48)).event(), EventId::NONE, "but not beyond what addresses there are");
    assert_eq!(ask(&mut bench, IOVA).event(), EventId::BAD_ATS_REQUEST, "EATS always counts for those that ask");
}

#[test]
fn with_atschk_the_stream_table_entry_decides() {
    let (mut bench, _) = with_stage_1(ATS_FULL);
    let end = send_translated(&mut bench, OTHER_PAGE);
    assert_eq!((passed(&end), end.fetched.len()), (Some(OTHER_PAGE), 1), "the SMMU cannot know better");
    assert_eq!(end.provenance.len(), 4, "the words that count");
    bench.set_stream(STREAM, [0b1001, 0, 0, 0]);
    assert_eq!(passed(&send_translated(&mut bench, OTHER_PAGE)), Some(OTHER_PAGE), "a cached entry decides until it is invalidated");
    bench.invalidate(&[commands::cfgi_ste(STREAM, true)]);
    assert_eq!(send_translated(&mut bench, OTHER_PAGE).event(), EventId::TRANSLATION_FORBIDDEN, "bypass");
    assert_eq!(ask(&mut bench, IOVA).event(), EventId::BAD_ATS_REQUEST);
    bench.set_stream(STREAM, [1, 0, 0, 0]);
    bench.invalidate(&[commands::cfgi_ste(STREAM, true)]);
    for end in [send_translated(&mut bench, OTHER_PAGE), ask(&mut bench, IOVA)] {
        assert_eq!(end.event(), EventId::NONE, "abort");
    }
    assert_eq!(AtsAnswer::of_event(EventId::NONE), AtsAnswer::UnsupportedRequest);
}

#[test]
fn with_smmuen_clear_neither_kind_passes_whatever_gbpa_says() {
    let (mut bench, _) = with_stage_1(ATS_FULL);
    bench.control(on().with_enable(false));
    assert!(passed(&bench.read(IOVA)).is_some());
    assert_eq!(ask(&mut bench, IOVA).event(), EventId::BAD_ATS_REQUEST);
    assert_eq!(send_translated(&mut bench, PAGE).event(), EventId::TRANSLATION_FORBIDDEN);
}

#[test]
fn a_translation_request_is_granted_what_both_stages_allow() {
    let (mut bench, leaf_1, leaf_2) = with_both(ATS_FULL);
    let mut told = |one: u64, two: u64| {
        bench.memory.write(leaf_1, one);
        bench.memory.write(leaf_2, two);
        bench.invalidate(&[commands::nsnh_all()]);
        let walked = granted(&ask(&mut bench, IOVA));
        assert_eq!(granted(&ask(&mut bench, IOVA)), walked, "from the TLB as well");
        let read_only = granted(&ask_to_read(&mut bench, IOVA));
        assert_eq!(read_only, (walked.0, false), "NW hides the right to write");
        walked
    };
    let (one, two) = (page_1(GUEST_PAGE), page_2(PAGE));
    assert_eq!(told(one.into_bits(), two.into_bits()), (true, true));
    assert_eq!(told(one.with_read_only(true).into_bits(), two.into_bits()), (true, false));
    assert_eq!(told(one.into_bits(), two.with_writable(false).into_bits()), (true, false));
    assert_eq!(told(one.into_bits(), two.with_readable(false).into_bits()), (false, true));
    assert_eq!(told(one.into_bits(), two.with_readable(false).with_writable(false).into_bits()), (false, false));
    assert_eq!(told(one.with_unprivileged(false).into_bits(), two.into_bits()), (false, false));
    assert_eq!(told(one.with_accessed(false).into_bits(), two.into_bits()), (false, false), "access flag");
    assert_eq!(told(0, two.into_bits()), (false, false));
    assert_eq!(told(one.into_bits(), 0), (false, false));
    assert!(events(&mut bench).is_empty(), "none of that is an event");
    assert_eq!(AtsAnswer::of_event(EventId::TRANSLATION), AtsAnswer::NoAccess);
}

#[test]
fn what_is_wrong_with_the_configuration_is_a_completer_abort_recorded_only_if_asked_for() {
    for record in [false, true] {
        let (mut bench, _) = with_stage_1(ATS_FULL);
        bench.control(on().with_enable(false));
        bench.unit.write_register(Register::Cr2, if record { 0b1010 } else { 0b0010 });
        bench.control(on());
        bench.set_stream(STREAM, [0, 0, 0, 0]);
        let end = ask(&mut bench, IOVA);
        assert_eq!((end.event(), end.fault().recorded), (EventId::BAD_STREAM_ENTRY, record));
        assert_eq!(AtsAnswer::of_event(end.event()), AtsAnswer::CompleterAbort);
        assert_eq!(send_translated(&mut bench, PAGE).fault().recorded, record);
        assert_eq!(events(&mut bench).len(), 2 * usize::from(record));
        assert!(bench.read(IOVA).fault().recorded, "plain requests always are");
    }
}

#[test]
fn a_translation_request_makes_a_page_dirty_only_where_it_may_write() {
    for (no_write, read_only) in [(true, true), (false, false)] {
        let (mut bench, leaf) = with_stage_1(ATS_FULL);
        let context = Pa((bench.memory.read(Bench::stream_pa(STREAM)) >> 6 << 6) & 0xffff_ffff_ffff);
        let word = bench.memory.read(context) | 1 << 43 | 1 << 42;
        bench.memory.write(context, word);
        let clean = page_1(PAGE).with_accessed(false).with_read_only(true).with_dirty_bit_modifier(true);
        bench.memory.write(leaf, clean.into_bits());
        let end = if no_write { ask_to_read(&mut bench, IOVA) } else { ask(&mut bench, IOVA) };
        assert_eq!((granted(&end), end.updated.len()), ((true, !no_write), 1));
        let now = bench.memory.read(leaf);
        assert_eq!(now, clean.with_accessed(true).with_read_only(read_only).into_bits());
        // A clean translation in the TLB does not make anything dirty behind the tables' back.
        assert_eq!(granted(&ask(&mut bench, IOVA)), (true, true));
        assert_eq!(bench.memory.read(leaf), clean.with_accessed(true).with_read_only(false).into_bits());
    }
}

#[test]
fn split_stage_ats_tells_ipas_and_sends_them_through_stage_2() {
    let (mut bench, _, leaf_2) = with_both(ATS_SPLIT);
    for _ in 0..2 {
        let end = ask(&mut bench, IOVA.offset(8));
        assert_eq!((end.translation().pa, granted(&end)), (GUEST_PAGE.offset(8), (true, true)));
    }
    let back = send_translated(&mut bench, GUEST_PAGE.offset(8));
    assert_eq!(back.translation().pa, PAGE.offset(8));
    let forged = send_translated(&mut bench, PAGE);
    assert_eq!((forged.event(), forged.why().stage_2, forged.fault().recorded), (EventId::TRANSLATION, true, true));
    bench.memory.write(leaf_2, page_2(PAGE).with_writable(false).into_bits());
    bench.invalidate(&[commands::nsnh_all()]);
    assert_eq!(granted(&ask(&mut bench, IOVA)), (true, false), "the rights are those of both stages");
}

#[test]
fn split_stage_ats_is_for_both_stages_under_atschk_only() {
    let (mut bench, _) = with_stage_1(ATS_SPLIT);
    assert_eq!(bench.read(IOVA).event(), EventId::BAD_STREAM_ENTRY);
    let (mut bench, ..) = with_both(ATS_SPLIT);
    bench.control(on().with_ats_check(false));
    assert_eq!(ask(&mut bench, IOVA).event(), EventId::BAD_ATS_REQUEST);
    bench.control(on());
    assert_eq!(ask(&mut bench, IOVA).event(), EventId::BAD_ATS_REQUEST, "ATSCHK is cached with the entry");
    bench.invalidate(&[commands::cfgi_ste(STREAM, true)]);
    assert_eq!(ask(&mut bench, IOVA).translation().pa, GUEST_PAGE);
    let mut bench = Bench::with(Capabilities { split_ats: false, ..cap() }, Params::default());
    bench.set_stream(STREAM, stream_nested(Pa(0), VMID, Pa(0)));
    set_ats(&mut bench, ATS_SPLIT);
    assert_eq!(bench.read(IOVA).event(), EventId::BAD_STREAM_ENTRY);
    assert_eq!(bench.unit.read_register(Register::Idr0) >> 10 & 3, 3);
}

#[test]
fn a_device_keeps_what_it_is_told_until_cmd_atc_inv_takes_it_back() {
    let (mut bench, leaf) = with_stage_1(ATS_FULL);
    let mut device = device();
    assert_eq!(read_by(&mut bench, &mut device, IOVA), Some(PAGE));
    bench.memory.write(leaf, page_1(OTHER_PAGE).into_bits());
    obeyed(&mut bench, &mut device, &[commands::nsnh_all(), commands::cfgi_all(), commands::sync().into_bits()]);
    assert_eq!(read_by(&mut bench, &mut device, IOVA), Some(PAGE), "no invalidation of the SMMU reaches it");
    let stale = *device.entries().next().expect("it is kept");
    assert_eq!(device.provenance(stale.provenance).last().expect("it has words").pa, leaf);
    let said = obeyed(&mut bench, &mut device, &[atc_inv(0, IOVA).into_bits(), commands::sync().into_bits()]);
    assert!(matches!(said.last(), Some(CommandProgress::Synchronised { .. })), "{said:?}");
    assert_eq!(read_by(&mut bench, &mut device, IOVA), Some(OTHER_PAGE));
}

#[test]
fn a_device_that_is_told_before_the_smmu_is_clean_takes_the_stale_translation_again() {
    let va = commands::nh_va(VMID, ASID, IOVA, true).into_bits();
    let (atc, sync) = (atc_inv(0, IOVA).into_bits(), commands::sync().into_bits());
    for (wrong, order) in [(true, [atc, sync, va, sync]), (false, [va, sync, atc, sync])] {
        let (mut bench, leaf) = with_stage_1(ATS_FULL);
        let mut device = device();
        read_by(&mut bench, &mut device, IOVA);
        bench.memory.write(leaf, page_1(OTHER_PAGE).into_bits());
        obeyed(&mut bench, &mut device, &order[..2]);
        // Between both the device asks again.
        read_by(&mut bench, &mut device, IOVA);
        obeyed(&mut bench, &mut device, &order[2..]);
        assert_eq!(read_by(&mut bench, &mut device, IOVA), Some(if wrong { PAGE } else { OTHER_PAGE }));
    }
}

#[test]
fn without_cmd_sync_between_them_cmd_atc_inv_overtakes_an_invalidation_that_was_put_off() {
    let va = commands::nh_va(VMID, ASID, IOVA, true).into_bits();
    let (mut bench, leaf) = with_stage_1(ATS_FULL);
    let mut device = device();
    read_by(&mut bench, &mut device, IOVA);
    bench.memory.write(leaf, page_1(OTHER_PAGE).into_bits());
    bench.submit(&[va, atc_inv(0, IOVA).into_bits()]);
    let said = bench.run_commands_with(&mut |question: iommu_model::Question| question.options() - 1);
    let Some(CommandProgress::InvalidateDevice { request, .. }) = said.last().copied() else { panic!("{said:?}") };
    assert_eq!(bench.unit.deferred_invalidations().len(), 1);
    device.invalidate(&request);
    assert_eq!(read_by(&mut bench, &mut device, IOVA), Some(PAGE), "from the TLB that is not clean yet");
    bench.unit.device_completes(request.source, 1 << request.itag);
    bench.submit(&[commands::sync().into_bits()]);
    bench.run_commands_with(&mut Plain);
    assert_eq!(read_by(&mut bench, &mut device, IOVA), Some(PAGE), "the CMD_SYNC came too late");
}

#[test]
fn cmd_sync_waits_for_devices_and_stops_for_those_that_never_answer() {
    let (mut bench, _) = with_stage_1(ATS_FULL);
    bench.submit(&[atc_inv(0, IOVA).into_bits(), atc_inv(0, IOVA).into_bits(), commands::sync().into_bits()]);
    let said = bench.run_commands_with(&mut Plain);
    assert_eq!(said.last(), Some(&CommandProgress::AwaitDevices { itags: 0b11 }));
    assert!(!bench.unit.commands_have_work());
    assert_eq!(bench.unit.device_completes(iommu_model::Bdf(DEVICE.0 + 1), 0b11), 0, "a stranger");
    assert_eq!(bench.unit.device_completes(DEVICE, 0b01), 1);
    assert_eq!(bench.unit.device_invalidations_under_way(), 1);
    assert!(bench.unit.device_times_out(1) && !bench.unit.device_times_out(1));
    let said = bench.run_commands_with(&mut Plain);
    assert!(matches!(said[..], [CommandProgress::Stopped { error: 3, .. }]), "{said:?}");
    assert_eq!(bench.unit.read_register(Register::CmdqCons), 3 << 24 | 2, "the CMD_SYNC that found it");
    bench.unit.write_register(Register::Gerrorn, 1);
    let said = bench.run_commands_with(&mut Plain);
    assert!(matches!(said.last(), Some(CommandProgress::Synchronised { .. })), "{said:?}");
}

#[test]
fn a_thirty_third_invalidation_waits_for_a_tag() {
    let (mut bench, _) = with_stage_1(ATS_FULL);
    for n in 0..3 {
        bench.submit(&[atc_inv(0, IOVA).into_bits(); 11]);
        let said = bench.run_commands_with(&mut Plain);
        assert_eq!(said.last() == Some(&CommandProgress::AwaitDevices { itags: u32::MAX }), n == 2);
    }
    bench.unit.device_completes(DEVICE, 1 << 17);
    assert!(matches!(bench.run_commands_with(&mut Plain)[0], CommandProgress::InvalidateDevice { request, .. } if request.itag == 17));
}

#[test]
fn cmd_atc_inv_names_pages_substreams_or_everything() {
    let (mut bench, _) = with_stage_1(ATS_FULL);
    let mut sent = |command: AtcCommand| {
        bench.submit(&[command.into_bits()]);
        match bench.run_commands_with(&mut Plain)[..] {
            [CommandProgress::InvalidateDevice { request, .. }] => {
                bench.unit.device_completes(request.source, 1 << request.itag);
                Some(request)
            }
            _ => None,
        }
    };
    let request = sent(atc_inv(9, IOVA)).expect("it is legal");
    assert_eq!((request.source, request.pasid, request.range), (DEVICE, None, PageRange { address: IOVA, order: 9 }));
    let request = sent(atc_inv(ATC_SIZE_ALL, IOVA).with_global(true)).expect("it is legal");
    assert_eq!((request.every_pasid, request.range.pages()), (false, PageRange::ALL.pages()), "G is for SSV only");
    let request = sent(atc_inv(0, IOVA).with_substream_valid(true).with_substream(9).with_global(true)).expect("it is legal");
    assert_eq!((request.pasid, request.every_pasid), (Some(Pasid(9)), true));
    assert_eq!(sent(atc_inv(0, IOVA).with_stream(0x7_0000)), None, "nobody is there");
    bench.control(on().with_enable(false));
    bench.submit(&[atc_inv(0, IOVA).into_bits()]);
    assert!(matches!(bench.run_commands_with(&mut Plain)[..], [CommandProgress::Consumed { done: None, .. }]), "SMMUEN is clear");
    bench.submit(&[atc_inv(53, IOVA).into_bits()]);
    assert!(matches!(bench.run_commands_with(&mut Plain)[..], [CommandProgress::Stopped { error: 1, .. }]));
}

#[test]
fn a_question_and_a_plain_request_do_not_wait_for_each_other() {
    let (mut bench, _) = with_stage_1(ATS_FULL);
    let plain = bench.begin(IOVA, Access::Read);
    let request = Request { source: DEVICE, iova: IOVA, access: Access::Read, pasid: None };
    let asks = bench.unit.begin_as(request, Attributes::translation(false)).expect("a walker is free");
    assert!(bench.unit.in_flight().all(|view| view.leader.is_none()));
    assert_eq!(granted(&bench.finish(asks)), (true, true));
    assert_eq!(bench.finish(plain).translation().pa, PAGE);
}

#[test]
fn a_stream_that_skips_stage_1_is_told_what_it_asked_with() {
    let (mut bench, _) = with_stage_1(ATS_FULL);
    let context = bench.frames(1);
    let mut words = stream_1(context);
    words[0] |= 1 << 59;
    words[1] = StreamEntry1::new().with_default_substream(1).with_ats(ATS_FULL).into_bits();
    bench.set_stream(STREAM, words);
    let end = ask(&mut bench, IOVA);
    assert_eq!((end.translation().pa, granted(&end)), (Pa(IOVA.0), (true, true)));
    assert_eq!(granted(&ask(&mut bench, Iova(1 << 50))), (false, false), "beyond OAS");
}
