//! ATS: translation requests and translated requests, the device TLB behind them, and what goes to devices.

use super::support::bench::Ended;
use super::support::guest::{Guest, PASID};
use super::support::tables::{guest_open, open};
use super::support::{Bench, DEVICE, DOMAIN, IOVA, OTHER_PAGE, PAGE, commands};
use iommu_model::amd::{Capabilities, CommandProgress, Event};
use iommu_model::spec::amd::command::{CompletePpr, InvalidateIotlb, OPCODE_COMPLETE_PPR, OPCODE_INVALIDATE_IOTLB};
use iommu_model::spec::amd::event::{EventCode, EventFlags};
use iommu_model::spec::amd::guest_table::GuestEntry;
use iommu_model::{
    Access, AtsAnswer, Attributes, Bdf, DeviceInvalidation, DeviceTlb, Geometry, Iova, Pa, PageRange, PageResponse, Params, Pasid, Plain,
    Progress, Question, Request, ResponseCode,
};

const STATUS: Pa = Pa(0x9_0000);

/// One page mapped, ATS on. Returns where the leaf entry lies.
fn with_ats() -> (Bench, Pa) {
    let (mut bench, leaf) = Bench::mapped();
    bench.change_device(|entry| entry.with_iotlb(true));
    (bench, leaf)
}

fn send(bench: &mut Bench, attributes: Attributes, request: Request) -> Ended {
    let walk = bench.unit.begin_as(request, attributes).expect("a walker is free");
    bench.finish(walk)
}

fn ask(bench: &mut Bench, iova: Iova) -> Ended {
    send(bench, Attributes::translation(false), Bench::request(iova, Access::Read))
}

fn ask_to_read(bench: &mut Bench, iova: Iova) -> Ended {
    send(bench, Attributes::translation(true), Bench::request(iova, Access::Write))
}

fn send_translated(bench: &mut Bench, pa: Pa) -> Ended {
    send(bench, Attributes::translated(), Bench::request(Iova(pa.0), Access::Write))
}

fn granted(end: &Ended) -> (bool, bool) {
    let translation = end.translation();
    (translation.readable, translation.writable)
}

fn iotlb(iova: Iova) -> InvalidateIotlb {
    InvalidateIotlb::new().with_opcode(OPCODE_INVALIDATE_IOTLB).with_device(DEVICE.0).with_page(iova.page_number())
}

/// Submits commands and runs the buffer; each invalidation that leaves is given to `device`, which completes it.
fn obeyed(bench: &mut Bench, device: &mut DeviceTlb, commands: &[u128]) -> Vec<CommandProgress> {
    bench.submit(commands);
    let mut all = Vec::new();
    loop {
        let some = bench.run_commands_with(&mut Plain);
        let sent: Vec<DeviceInvalidation> = some
            .iter()
            .filter_map(|progress| if let CommandProgress::InvalidateDevice { request, .. } = *progress { Some(request) } else { None })
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
fn without_i_neither_kind_of_request_is_served() {
    let (mut bench, _) = Bench::mapped();
    let flags = EventFlags::new().with_write(true);
    for _ in 0..2 {
        ask(&mut bench, IOVA).expect_event(EventCode::INVALID_DEVICE_REQUEST, flags.with_translation(true));
        send_translated(&mut bench, PAGE).expect_event(EventCode::INVALID_DEVICE_REQUEST, flags);
    }
    let events = bench.run_events();
    let first = &events[0];
    assert_eq!((events.len(), first.0.code(), first.0.device(), first.1), (4, 8, DEVICE.0, IOVA.0));
    assert_eq!(bench.read(IOVA).pa(), PAGE, "plain requests pass");
    let event = Event { code: EventCode::INVALID_DEVICE_REQUEST, flags };
    assert_eq!(AtsAnswer::of_amd(event), AtsAnswer::UnsupportedRequest);
    assert_eq!(AtsAnswer::of_amd(Event { code: EventCode::DEVICE_TABLE_HARDWARE, flags }), AtsAnswer::CompleterAbort);
}

#[test]
fn a_unit_without_iotlb_support_does_not_look_at_i() {
    let (mut bench, _) = Bench::mapped_with(Capabilities { device_tlb: false, ..Capabilities::default() }, Params::default());
    bench.change_device(|entry| entry.with_iotlb(true));
    assert_eq!(ask(&mut bench, IOVA).event().code, EventCode::INVALID_DEVICE_REQUEST);
    assert_eq!(send_translated(&mut bench, PAGE).event().code, EventCode::INVALID_DEVICE_REQUEST);
}

#[test]
fn a_translated_request_passes_wherever_it_goes_but_not_as_an_interrupt() {
    let (mut bench, _) = with_ats();
    let end = send_translated(&mut bench, OTHER_PAGE);
    assert!(matches!(end.progress, Progress::Untranslated { pa, .. } if pa == OTHER_PAGE), "the unit cannot know better");
    assert_eq!((end.fetched.len(), end.provenance.len()), (1, 4));
    assert_eq!(send_translated(&mut bench, Pa(0xfee0_1000)).event().code, EventCode::INVALID_DEVICE_REQUEST);
    assert_eq!(granted(&ask(&mut bench, Iova(0xfee0_1000))), (false, false));
}

#[test]
fn a_cached_device_table_entry_lets_translated_requests_pass_until_it_is_invalidated() {
    let (mut bench, _) = with_ats();
    send_translated(&mut bench, OTHER_PAGE);
    bench.change_device(|entry| entry.with_iotlb(false));
    assert!(matches!(send_translated(&mut bench, OTHER_PAGE).progress, Progress::Untranslated { .. }), "stale, as hardware may");
    bench.invalidate(&[commands::device(DEVICE)]);
    assert_eq!(send_translated(&mut bench, OTHER_PAGE).event().code, EventCode::INVALID_DEVICE_REQUEST);
}

#[test]
fn with_translation_off_nothing_of_the_kind_is_served_or_logged() {
    let (mut bench, _) = with_ats();
    bench.control(|control| control.with_enable(false));
    assert!(!ask(&mut bench, IOVA).fault().recorded);
    assert!(!send_translated(&mut bench, PAGE).fault().recorded);
}

#[test]
fn a_translation_request_is_granted_what_the_host_allows() {
    let (mut bench, leaf) = with_ats();
    let page = open(0).with_frame(PAGE.pfn().0);
    for (entry, rights) in [
        (page, (true, true)),
        (page.with_write(false), (true, false)),
        (page.with_read(false), (false, true)),
        (page.with_read(false).with_write(false), (false, false)),
        (page.with_present(false), (false, false)),
    ] {
        bench.memory.write(leaf, entry.into_bits());
        bench.invalidate(&[commands::all_pages(DOMAIN).into_bits()]);
        assert_eq!(granted(&ask(&mut bench, IOVA)), rights);
        assert_eq!(granted(&ask(&mut bench, IOVA)), rights, "from the TLB as well");
        assert_eq!(granted(&ask_to_read(&mut bench, IOVA)), (rights.0, false), "NW hides the right to write");
    }
    bench.memory.write(leaf, page.into_bits());
    bench.change_device(|entry| entry.with_write(false));
    bench.invalidate(&[commands::all()]);
    assert_eq!(granted(&ask(&mut bench, IOVA)), (true, false), "IW of the device table entry");
    assert!(bench.run_events().is_empty(), "none of that is an event");
}

#[test]
fn a_translation_request_through_guest_tables_sets_d_only_where_it_may_write() {
    for nested in [false, true] {
        for (no_write, guest_writes) in [(true, true), (false, true), (false, false)] {
            let mut guest = if nested { Guest::nested() } else { Guest::new() };
            guest.attach(|entry| entry.with_iotlb(true));
            let leaf = guest.leaf;
            guest.change_entry(leaf, |entry| entry.with_write(guest_writes));
            let request = Request { pasid: Some(PASID), ..Bench::request(IOVA, Access::Read) };
            let end = send(&mut guest.bench, Attributes::translation(no_write), request);
            let writable = guest_writes && !no_write;
            assert_eq!((end.pa(), granted(&end)), (PAGE, (true, writable)));
            let entry = GuestEntry::from_bits(guest.bench.memory.read(leaf));
            assert_eq!((entry.accessed(), entry.dirty()), (true, writable));
            // What is clean in the TLB is made dirty in the table before the right is given.
            let end = send(&mut guest.bench, Attributes::translation(false), request);
            assert_eq!(granted(&end), (true, guest_writes));
            assert_eq!(GuestEntry::from_bits(guest.bench.memory.read(leaf)).dirty(), guest_writes);
        }
    }
}

#[test]
fn a_supervisor_page_of_the_guest_and_a_host_that_refuses_are_answers() {
    let mut guest = Guest::nested();
    guest.attach(|entry| entry.with_iotlb(true));
    let (leaf, request) = (guest.leaf, Request { pasid: Some(PASID), ..Bench::request(IOVA, Access::Read) });
    guest.change_entry(leaf, |entry| entry.with_user(false));
    assert_eq!(granted(&send(&mut guest.bench, Attributes::translation(false), request)), (false, false));
    guest.bench.memory.write(leaf, guest_open().with_frame(PAGE.pfn().0).into_bits());
    let host = guest.map_host(PAGE).expect("it is nested");
    guest.bench.memory.write(host, open(0).with_write(false).with_frame(PAGE.pfn().0).into_bits());
    let end = send(&mut guest.bench, Attributes::translation(false), request);
    assert_eq!(granted(&end), (true, false), "the host has the last word");
    assert!(guest.bench.run_events().is_empty());
}

#[test]
fn a_device_keeps_what_it_is_told_until_it_is_told_to_forget() {
    let (mut bench, leaf) = with_ats();
    let mut device = device();
    assert_eq!(read_by(&mut bench, &mut device, IOVA), Some(PAGE));
    bench.memory.write(leaf, open(0).with_frame(OTHER_PAGE.pfn().0).into_bits());
    obeyed(&mut bench, &mut device, &[commands::all(), commands::wait(None, false)]);
    assert_eq!(read_by(&mut bench, &mut device, IOVA), Some(PAGE), "no invalidation of the unit reaches it");
    let stale = *device.entries().next().expect("it is kept");
    assert_eq!(device.provenance(stale.provenance).last().expect("it has words").pa, leaf);
    obeyed(&mut bench, &mut device, &[iotlb(IOVA).into_bits(), commands::wait(Some((STATUS, 7)), false)]);
    assert_eq!(bench.memory.read(STATUS), 7);
    assert_eq!(read_by(&mut bench, &mut device, IOVA), Some(OTHER_PAGE));
}

#[test]
fn a_device_that_is_told_before_the_unit_is_clean_takes_the_stale_translation_again() {
    let (pages, device_tlb, wait) = (commands::page(DOMAIN, IOVA).into_bits(), iotlb(IOVA).into_bits(), commands::wait(None, false));
    for (wrong, order) in [(true, [device_tlb, wait, pages, wait]), (false, [pages, wait, device_tlb, wait])] {
        let (mut bench, leaf) = with_ats();
        let mut device = device();
        read_by(&mut bench, &mut device, IOVA);
        bench.memory.write(leaf, open(0).with_frame(OTHER_PAGE.pfn().0).into_bits());
        obeyed(&mut bench, &mut device, &order[..2]);
        // Between both the device asks again.
        read_by(&mut bench, &mut device, IOVA);
        obeyed(&mut bench, &mut device, &order[2..]);
        assert_eq!(read_by(&mut bench, &mut device, IOVA), Some(if wrong { PAGE } else { OTHER_PAGE }));
    }
}

#[test]
fn without_a_wait_between_them_an_invalidation_that_was_put_off_is_overtaken() {
    let (mut bench, leaf) = with_ats();
    let mut device = device();
    read_by(&mut bench, &mut device, IOVA);
    bench.memory.write(leaf, open(0).with_frame(OTHER_PAGE.pfn().0).into_bits());
    bench.submit(&[commands::page(DOMAIN, IOVA).into_bits(), iotlb(IOVA).into_bits(), commands::wait(None, false)]);
    let mut late = |question: Question| u32::from(question == Question::DelayCommand);
    let mut said = Vec::new();
    let request = loop {
        let progress = bench.step_commands(iommu_model::amd::CommandInput::Continue, &mut late);
        said.push(progress);
        if let CommandProgress::InvalidateDevice { request, .. } = progress {
            break request;
        }
        assert!(said.len() < 8, "{said:?}");
    };
    assert!(matches!(said[0], CommandProgress::Deferred { .. }));
    device.invalidate(&request);
    assert_eq!(read_by(&mut bench, &mut device, IOVA), Some(PAGE), "from the TLB that is not clean yet");
    bench.unit.device_completes(request.source, 1 << request.itag);
    bench.run_commands_with(&mut Plain);
    assert_eq!(read_by(&mut bench, &mut device, IOVA), Some(PAGE), "the wait came too late");
}

#[test]
fn a_completion_wait_waits_for_devices() {
    let (mut bench, _) = with_ats();
    bench.submit(&[iotlb(IOVA).into_bits(), iotlb(IOVA).into_bits(), commands::wait(Some((STATUS, 1)), false)]);
    let said = bench.run_commands_with(&mut Plain);
    assert_eq!(said.last(), Some(&CommandProgress::AwaitDevices { itags: 0b11 }));
    assert!(!bench.unit.command_has_work());
    assert_eq!(bench.unit.device_completes(Bdf(DEVICE.0 + 1), 0b11), 0, "a stranger");
    assert_eq!(bench.unit.device_completes(DEVICE, 0b10), 1);
    assert_eq!((bench.memory.read(STATUS), bench.unit.device_invalidations_under_way()), (0, 1));
    bench.unit.device_completes(DEVICE, 0b01);
    bench.run_commands_with(&mut Plain);
    assert_eq!(bench.memory.read(STATUS), 1);
}

#[test]
fn a_device_that_never_answers_is_logged_with_its_command() {
    let (mut bench, _) = with_ats();
    bench.submit(&[commands::wait(None, false), iotlb(IOVA).into_bits(), commands::wait(Some((STATUS, 1)), false)]);
    bench.run_commands_with(&mut Plain);
    assert_eq!(bench.unit.device_times_out(5), None, "nothing is under way there");
    bench.unit.device_times_out(0);
    let events = bench.run_events();
    let [(word, address)] = events[..] else { panic!("{events:?}") };
    assert_eq!((word.code(), word.device()), (EventCode::IOTLB_TIMEOUT.0, DEVICE.0));
    assert_eq!(bench.memory.read(Pa(address)), iotlb(IOVA).into_bits() as u64, "where the command lies");
    bench.run_commands_with(&mut Plain);
    assert_eq!(bench.memory.read(STATUS), 1);
}

#[test]
fn no_more_are_sent_than_maxpend_and_the_tags_allow() {
    let (mut bench, _) = with_ats();
    let shallow = iotlb(IOVA).with_pending_max(2).with_queue(9);
    bench.submit(&[shallow.into_bits(), shallow.with_device(DEVICE.0 + 1).into_bits(), shallow.into_bits()]);
    assert_eq!(bench.run_commands_with(&mut Plain).last(), Some(&CommandProgress::AwaitDevices { itags: 0b11 }));
    assert!(!bench.unit.command_has_work());
    bench.unit.device_completes(Bdf(DEVICE.0 + 1), 0b10);
    assert!(bench.unit.command_has_work());
    assert!(matches!(bench.run_commands_with(&mut Plain)[0], CommandProgress::InvalidateDevice { request, .. } if request.itag == 1));
    let (mut bench, _) = with_ats();
    bench.submit(&[iotlb(IOVA).into_bits(); 33]);
    assert_eq!(bench.run_commands_with(&mut Plain).last(), Some(&CommandProgress::AwaitDevices { itags: u32::MAX }));
}

#[test]
fn an_invalidation_names_pages_and_a_pasid() {
    let (mut bench, _) = with_ats();
    let mut sent = |command: InvalidateIotlb| match bench.invalidate(&[command.into_bits()])[..] {
        [CommandProgress::InvalidateDevice { request, .. }] => {
            bench.unit.device_completes(request.source, 1 << request.itag);
            request
        }
        ref other => panic!("{other:?}"),
    };
    let request = sent(iotlb(IOVA));
    assert_eq!((request.source, request.pasid, request.range), (DEVICE, None, PageRange { address: IOVA, order: 0 }));
    assert_eq!(sent(iotlb(Iova(0)).with_sized(true).with_page(0x1ff)).range.pages(), (0, 0x3ff), "2 MiB and its neighbour");
    assert_eq!(sent(iotlb(Iova(0x7fff_ffff_ffff_f000)).with_sized(true)).range.pages(), PageRange::ALL.pages());
    assert_eq!(sent(iotlb(IOVA).with_guest(true).with_pasid(0x9_8765)).pasid, Some(Pasid(0x9_8765)));
    assert_eq!(iotlb(Iova(0)).with_pasid(0x9_8765).into_bits() as u64 & 0x0fff_0000_00ff_0000, 0x0965_0000_0087_0000);
    let stopped = bench.invalidate(&[iotlb(IOVA).with_reserved_65(true).into_bits()]);
    assert!(matches!(stopped[..], [CommandProgress::Stopped(error)] if error.code == EventCode::ILLEGAL_COMMAND));
}

#[test]
fn complete_ppr_answers_a_group_of_page_requests() {
    let (mut bench, _) = with_ats();
    let command = CompletePpr::new().with_opcode(OPCODE_COMPLETE_PPR).with_device(DEVICE.0).with_tag(0x155).with_status(1);
    let said = bench.invalidate(&[command.into_bits(), command.with_guest(true).with_pasid(0xf_0001).into_bits()]);
    let response = PageResponse { source: DEVICE, pasid: None, group: 0x155, code: ResponseCode::INVALID };
    let tagged = PageResponse { pasid: Some(Pasid(0xf_0001)), ..response };
    let told: Vec<_> = said
        .iter()
        .filter_map(|progress| if let CommandProgress::Respond { response, .. } = *progress { Some(response) } else { None })
        .collect();
    assert_eq!(told, [response, tagged]);
}

#[test]
fn a_question_and_a_plain_request_do_not_wait_for_each_other() {
    let (mut bench, _) = with_ats();
    let plain = bench.begin(IOVA, Access::Read);
    let asks = bench.unit.begin_as(Bench::request(IOVA, Access::Read), Attributes::translation(false)).expect("a walker is free");
    assert!(bench.unit.in_flight().all(|view| view.leader.is_none()));
    assert_eq!(granted(&bench.finish(asks)), (true, true));
    assert_eq!(bench.finish(plain).pa(), PAGE);
}
