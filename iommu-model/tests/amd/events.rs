//! The event log: layout, suppression, overflow, interrupts.

use super::support::{Bench, DEVICE, DOMAIN, IOVA, commands};
use iommu_model::amd::{EventInput, EventProgress, Register};
use iommu_model::spec::amd::control::Status;
use iommu_model::spec::amd::event::EventCode;
use iommu_model::spec::amd::register::BufferPointer;
use iommu_model::{Iova, Message, Pa, Progress};

const MESSAGE: Message = Message { address: Pa(0xfee0_1000), data: 0x41 };

/// An address that is not mapped.
const BAD: Iova = Iova(0x1234_5000);

#[test]
fn a_page_fault_is_logged_with_device_domain_direction_and_address() {
    let (mut bench, _) = Bench::mapped();
    let fault = bench.store(BAD.offset(0x678)).fault();
    assert!(fault.recorded);
    let events = bench.run_events();
    let (word, address) = events[0];
    assert_eq!((events.len(), word.device(), word.domain_or_pasid(), word.code()), (1, DEVICE.0, DOMAIN.0, 2));
    assert_eq!((word.flags(), address), (1 << (53 - 48), BAD.0 + 0x678));
    assert_eq!(bench.unit.read_register(Register::EventTail), BufferPointer::new().with_index(1).into_bits());
}

#[test]
fn sa_suppresses_page_faults_but_not_illegal_entries() {
    let (mut bench, _) = Bench::mapped();
    bench.change_device(|entry| entry.with_suppress_all(true));
    assert!(!bench.read(BAD).fault().recorded);
    bench.change_device(|entry| entry.with_mode(7));
    bench.invalidate(&[commands::device(DEVICE)]);
    assert!(bench.read(BAD).fault().recorded);
}

#[test]
fn a_prefetch_logs_nothing() {
    let (mut bench, _) = Bench::mapped();
    let walk = bench.unit.begin_prefetch(Bench::request(BAD, iommu_model::Access::Read)).expect("a walker is free");
    assert!(!bench.finish(walk).fault().recorded);
    assert!(!bench.unit.event_log_has_work());
}

#[test]
fn a_full_log_overflows_stops_and_starts_again_when_software_switches_it() {
    let (mut bench, _) = Bench::mapped();
    for n in 0..255 {
        assert!(bench.read(BAD).fault().recorded, "event {n}");
        bench.run_events();
    }
    assert!(!bench.read(BAD).fault().recorded);
    assert!(bench.status().event_overflow() && !bench.status().event_run());
    // Room alone does not help.
    bench.write(Register::EventHead, BufferPointer::new().with_index(255).into_bits());
    assert!(!bench.read(BAD).fault().recorded);
    bench.control(|control| control.with_event_log(false));
    bench.write(Register::Status, Status::new().with_event_overflow(true).into_bits());
    bench.control(|control| control.with_event_log(true));
    assert!(!bench.status().event_overflow() && bench.status().event_run());
    assert!(bench.read(BAD).fault().recorded);
}

#[test]
fn the_interrupt_goes_out_once_until_software_clears_its_bit() {
    let (mut bench, _) = Bench::mapped();
    bench.unit.set_interrupt_message(Some(MESSAGE));
    bench.control(|control| control.with_event_interrupt(true));
    let mut messages = Vec::new();
    for round in 0..3 {
        if round == 2 {
            bench.write(Register::Status, Status::new().with_event_interrupt(true).into_bits());
        }
        bench.read(BAD);
        assert!(matches!(bench.unit.event_log_advance(EventInput::Continue), EventProgress::Write { .. }));
        match bench.unit.event_log_advance(EventInput::Written) {
            EventProgress::Done { message, .. } => messages.push(message),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(messages, [Some(MESSAGE), None, Some(MESSAGE)]);
}

#[test]
fn without_the_log_events_are_lost() {
    let (mut bench, _) = Bench::mapped();
    bench.control(|control| control.with_event_log(false));
    let ended = bench.read(BAD);
    assert_eq!((ended.event().code, ended.fault().recorded), (EventCode::PAGE_FAULT, false));
    assert!(matches!(bench.read(IOVA).progress, Progress::Done(_)));
}
