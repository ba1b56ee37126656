//! Devices that ask software for pages: the queue in memory, its overflow, its drain, and the answers.

use super::support::World;
use super::support::bench::{DEVICE, DOMAIN, IOVA, OTHER_PAGE, PAGE};
use super::support::scalable::capabilities;
use super::support::{Bench, commands};
use iommu_model::spec::vtd::descriptor::{TYPE_PAGE_RESPONSE, WaitDescriptor};
use iommu_model::spec::vtd::page_request::{
    PageQueueAddress, PageQueueIndex, PageRequestRecord, PageRequestStatus, PageResponseDescriptor, RECORD_PAGE_REQUEST,
};
use iommu_model::{
    Access, Busy, Capabilities, Iova, Message, Pa, PageQueueInput, PageQueueProgress, PageRequest, Params, Pasid, Pfn, Progress,
    QueueProgress, Register, ResponseCode,
};

const QUEUE: Pfn = Pfn(0x700);
const STATUS: Pa = Pa(0x600_0000);

/// A device that may ask for pages, and a queue of 128 records in memory.
fn world() -> World {
    let mut world = World::with(Capabilities { page_requests: true, ..capabilities() }, Params::default());
    let entry = world.context().with_device_tlb(true).with_page_requests(true);
    world.set_context(DEVICE, entry);
    world.bench.write(Register::Pqa, PageQueueAddress::new().with_base(QUEUE.0).into_bits());
    world
}

fn request(group: u16) -> PageRequest {
    PageRequest {
        source: DEVICE,
        pasid: Some(Pasid(3)),
        address: IOVA,
        read: true,
        write: true,
        execute: false,
        privileged: false,
        last: true,
        group,
    }
}

/// Looks the request up; whether it was allowed, or the reason why not.
fn send(bench: &mut Bench, request: PageRequest) -> Result<(), u16> {
    let walk = bench.unit.begin_page_request(request).expect("a walker is free");
    match bench.finish(walk).progress {
        Progress::Done(translation) => {
            assert!(!translation.readable && !translation.writable);
            Ok(())
        }
        Progress::Fault(fault) => Err(fault.reason.code()),
        other => panic!("{other:?}"),
    }
}

/// Runs the page request queue until it is idle.
fn write_records(bench: &mut Bench) -> Vec<PageQueueProgress> {
    let mut all = Vec::new();
    let mut input = PageQueueInput::Continue;
    loop {
        let progress = bench.unit.page_queue_advance(input);
        input = PageQueueInput::Continue;
        match progress {
            PageQueueProgress::Idle => return all,
            PageQueueProgress::WriteRecord { pa, words, .. } => {
                for (n, word) in words.into_iter().enumerate() {
                    bench.memory.write(pa.offset(n as u64 * 8), word);
                }
                input = PageQueueInput::Written;
            }
            other => all.push(other),
        }
    }
}

fn status(bench: &Bench) -> PageRequestStatus {
    PageRequestStatus::from_bits(bench.unit.read_register(Register::Prs) as u32)
}

fn tail(bench: &Bench) -> u16 {
    PageQueueIndex::from_bits(bench.unit.read_register(Register::Pqt)).index()
}

#[test]
fn a_page_request_becomes_a_record_in_memory() {
    let mut world = world();
    let bench = &mut world.bench;
    bench.write(Register::Pedata, 0x66);
    bench.write(Register::Peaddr, 0xfee0_3000);
    bench.write(Register::Pectl, 0);
    assert_eq!(send(bench, PageRequest { privileged: true, ..request(0x155) }), Ok(()));
    assert!(bench.unit.page_queue_has_work());
    let message = Message { address: Pa(0xfee0_3000), data: 0x66 };
    assert_eq!(write_records(bench), [PageQueueProgress::Recorded { message: Some(message), cost: 0 }]);
    let words = [0, 1].map(|n| bench.memory.read(QUEUE.pa().offset(n * 8)));
    let record = PageRequestRecord::from_bits(u128::from(words[0]) | (u128::from(words[1]) << 64));
    let expected = PageRequestRecord::new()
        .with_kind(RECORD_PAGE_REQUEST)
        .with_pasid_present(true)
        .with_source(DEVICE.0)
        .with_pasid(3)
        .with_privileged(true)
        .with_read(true)
        .with_write(true)
        .with_last(true)
        .with_group(0x155)
        .with_page(IOVA.page_number());
    assert_eq!(record, expected);
    assert_eq!((tail(bench), status(bench).pending(), status(bench).overflow()), (1, true, false));
}

#[test]
fn the_event_goes_out_once_until_software_clears_the_status() {
    let mut world = world();
    let bench = &mut world.bench;
    bench.write(Register::Pectl, 0);
    let sent = |bench: &mut Bench| {
        send(bench, request(1)).expect("it is allowed");
        matches!(write_records(bench)[..], [PageQueueProgress::Recorded { message: Some(_), .. }])
    };
    assert!(sent(bench));
    assert!(!sent(bench));
    bench.write(Register::Prs, u64::from(PageRequestStatus::new().with_pending(true).into_bits()));
    assert!(!status(bench).pending());
    assert!(sent(bench));
}

#[test]
fn only_a_context_entry_with_pre_lets_page_requests_through() {
    let mut world = world();
    let entry = world.context();
    world.set_context(DEVICE, entry);
    assert_eq!(send(&mut world.bench, request(1)), Err(0x47));
    assert!(!world.bench.unit.page_queue_has_work());
    let record = world.bench.unit.fault_records()[0];
    assert!(record.type_2() && !record.type_1(), "the record says that it was a page request");
    let (mut bench, _) = Bench::mapped();
    assert_eq!(send(&mut bench, request(1)), Err(0x32), "never in legacy mode");
}

#[test]
fn a_full_queue_drops_requests_and_the_unit_answers_the_last_of_a_group() {
    let mut world = world();
    let bench = &mut world.bench;
    for n in 0..127 {
        send(bench, request(n)).expect("it is allowed");
        assert!(matches!(write_records(bench)[..], [PageQueueProgress::Recorded { .. }]));
    }
    for (last, answered) in [(false, false), (true, true)] {
        send(bench, PageRequest { last, ..request(200) }).expect("it is allowed");
        let all = write_records(bench);
        let [PageQueueProgress::Dropped { response, .. }] = all[..] else { panic!("{all:?}") };
        assert_eq!(response.is_some(), answered);
        if let Some(response) = response {
            assert_eq!((response.code, response.group, response.source), (ResponseCode::FAILURE, 200, DEVICE));
        }
        assert!(status(bench).overflow());
    }
    // There is room, but the bit is still set.
    bench.write(Register::Pqh, PageQueueIndex::new().with_index(tail(bench)).into_bits());
    send(bench, request(3)).expect("it is allowed");
    assert!(matches!(write_records(bench)[..], [PageQueueProgress::Dropped { .. }]));
    bench.write(Register::Prs, u64::from(PageRequestStatus::new().with_overflow(true).into_bits()));
    send(bench, request(3)).expect("it is allowed");
    assert!(matches!(write_records(bench)[..], [PageQueueProgress::Recorded { .. }]));
    assert_eq!(tail(bench), 0, "and the tail wraps around");
}

#[test]
fn a_wait_with_pd_completes_only_when_the_records_are_written() {
    for drains in [false, true] {
        let mut world = world();
        let bench = &mut world.bench;
        send(bench, request(1)).expect("it is allowed");
        let wait = WaitDescriptor::from_bits(commands::wait(STATUS, 5)).with_page_request_drain(drains);
        bench.submit(&[wait.into_bits()]);
        let first = bench.step_queue(iommu_model::QueueInput::Continue, &mut iommu_model::Plain);
        if drains {
            assert!(matches!(first, QueueProgress::Blocked { devices: 0, page_requests: 1, .. }));
            assert!(!bench.unit.queue_has_work());
            write_records(bench);
            assert!(bench.unit.queue_has_work());
            bench.run_queue_with(&mut iommu_model::Plain);
            assert_eq!(bench.memory.read(STATUS), 5);
        } else {
            assert!(matches!(first, QueueProgress::WriteStatus { .. }), "the record may still be on its way");
        }
    }
}

#[test]
fn pd_is_reserved_on_units_without_page_requests() {
    let mut bench = Bench::new();
    let wait = WaitDescriptor::from_bits(commands::wait(STATUS, 5)).with_page_request_drain(true);
    assert!(matches!(bench.invalidate(&[wait.into_bits()])[..], [QueueProgress::Stopped(e)] if e.info == 4));
    bench.write(Register::Pqt, 0x20);
    assert_eq!(bench.unit.read_register(Register::Pqt), 0, "and there are no registers for it");
}

#[test]
fn a_page_request_drops_what_the_unit_caches_of_the_page() {
    let mut world = world();
    let tables = world.attach_first(Pasid(3), DOMAIN);
    let slot = world.map_first(tables, IOVA, PAGE, 12);
    world.map_first(tables, IOVA.offset(4096), PAGE, 12);
    world.read(Some(Pasid(3)), IOVA);
    world.read(Some(Pasid(3)), IOVA.offset(4096));
    let entry = super::support::scalable::first_leaf(OTHER_PAGE, 12);
    world.bench.memory.write(slot, entry.into_bits());
    world.bench.memory.write(slot.offset(8), entry.into_bits());
    send(&mut world.bench, request(1)).expect("it is allowed");
    write_records(&mut world.bench);
    assert_eq!(world.read(Some(Pasid(3)), IOVA).translation().pa, OTHER_PAGE);
    assert_eq!(world.read(Some(Pasid(3)), IOVA.offset(4096)).translation().pa, PAGE, "and nothing else");
}

#[test]
fn a_response_descriptor_goes_to_the_device() {
    let mut world = world();
    let descriptor =
        PageResponseDescriptor::new().with_kind(TYPE_PAGE_RESPONSE).with_pasid_present(true).with_source(DEVICE.0).with_pasid(3);
    let descriptor = descriptor.with_group(0x155).with_code(ResponseCode::INVALID.0);
    let all = world.bench.invalidate(&[descriptor.into_bits()]);
    let [QueueProgress::Respond { response, .. }] = all[..] else { panic!("{all:?}") };
    assert_eq!((response.source, response.pasid, response.group), (DEVICE, Some(Pasid(3)), 0x155));
    assert_eq!(response.code, ResponseCode::INVALID);
    let reserved = descriptor.with_reserved_64(1).into_bits();
    assert!(matches!(world.bench.invalidate(&[reserved])[..], [QueueProgress::Stopped(e)] if e.info == 4));
}

#[test]
fn as_many_page_requests_wait_as_there_are_walkers() {
    let mut world = world();
    for n in 0..16 {
        send(&mut world.bench, request(n)).expect("it is allowed");
    }
    assert_eq!(world.bench.unit.begin_page_request(request(16)), Err(Busy));
    write_records(&mut world.bench);
    let walk = world.bench.unit.begin_page_request(request(16)).expect("there is room again");
    assert!(world.bench.unit.cancel(walk));
    assert!(!world.bench.unit.page_queue_has_work(), "what was given up leaves nothing");
    let plain = world.begin(None, Iova(0), Access::Read);
    assert!(world.bench.unit.cancel(plain));
}
