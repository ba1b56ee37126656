//! Command queue and event queue: order, errors, wrap, overflow, interrupts.

use super::support::Scripted;
use super::support::bench::{ASID, Bench, GUEST_PAGE, IOVA, STREAM, VMID};
use super::support::tables::{commands, context_0, page_1, page_2};
use iommu_model::smmu::{Capabilities, CommandInput, CommandProgress, Completion, EventInput, EventProgress, Params, Register, Signal};
use iommu_model::spec::smmu::command::{ATC_INV, AnyCommand, CFGI_CD, PREFETCH_ADDRESS, TLBI_NH_ALL, TLBI_S2_IPA, TLBI_S12_VMALL};
use iommu_model::spec::smmu::register::{Control0, GlobalError, InterruptControl, QueueIndex};
use iommu_model::spec::smmu::stream::StreamEntry1;
use iommu_model::{Access, Busy, Iova, Message, Pa, Pasid, Plain, Question, Request};

fn errors(bench: &Bench) -> GlobalError {
    let read = |register| bench.unit.read_register(register) as u32;
    GlobalError::from_bits(read(Register::Gerror) ^ read(Register::Gerrorn))
}

fn acknowledge(bench: &mut Bench) {
    let value = bench.unit.read_register(Register::Gerror);
    bench.unit.write_register(Register::Gerrorn, value);
}

#[test]
fn an_illegal_command_stops_the_queue_until_it_is_acknowledged() {
    let mut bench = Bench::new();
    bench.submit(&[AnyCommand::new().with_opcode(0xff).into_bits(), commands::nsnh_all()]);
    assert!(matches!(bench.run_commands_with(&mut Plain)[..], [CommandProgress::Stopped { error: 1, interrupt: None, .. }]));
    let cons = QueueIndex::from_bits(bench.unit.read_register(Register::CmdqCons) as u32);
    assert_eq!((cons.index(), cons.error()), (0, 1), "CONS stays on the command");
    assert!(errors(&bench).command_queue() && !bench.unit.commands_have_work());
    // Software mends the command and goes on; it is fetched anew.
    let mended = commands::cfgi_all();
    bench.set_words(Pa(0x200_0000), &[mended as u64, (mended >> 64) as u64]);
    acknowledge(&mut bench);
    assert_eq!(bench.run_commands_with(&mut Plain).len(), 2);
    assert_eq!(bench.unit.read_register(Register::CmdqCons) & 0xf_ffff, 2);
}

#[test]
fn a_command_that_cannot_be_fetched_is_an_abort() {
    let mut bench = Bench::new();
    bench.submit(&[commands::nsnh_all()]);
    assert!(matches!(bench.unit.command_advance(CommandInput::Continue, &mut Plain), CommandProgress::Fetch { .. }));
    let stopped = bench.unit.command_advance(CommandInput::Unreadable, &mut Plain);
    assert!(matches!(stopped, CommandProgress::Stopped { error: 2, .. }));
}

#[test]
fn commands_that_the_unit_or_the_queue_does_not_have_are_illegal() {
    let all = Capabilities::default();
    let any = |opcode| AnyCommand::new().with_opcode(opcode);
    let mut reserved_range = commands::nh_va(VMID, ASID, IOVA, true).with_granule(1);
    let cases = [
        (all, any(ATC_INV), false),
        (Capabilities { ats: true, ..all }, any(ATC_INV), true),
        (all, any(PREFETCH_ADDRESS), true),
        (all, any(PREFETCH_ADDRESS).with_secure(true), false),
        (all, any(CFGI_CD).with_secure(true), false),
        (Capabilities { stage_1: false, ..all }, any(CFGI_CD), false),
        (Capabilities { stage_1: false, ..all }, any(TLBI_NH_ALL), false),
        (Capabilities { stage_2: false, ..all }, any(TLBI_S12_VMALL), false),
        (Capabilities { stage_2: false, ..all }, any(TLBI_S2_IPA), false),
        (all, any(0x20), false),
        (all, any(0x44), false),
        (all, AnyCommand::from_bits(commands::sync().with_signal(3).into_bits()), false),
        (all, AnyCommand::from_bits(reserved_range.into_bits()), false),
        (Capabilities { range_invalidation: false, ..all }, AnyCommand::from_bits(reserved_range.into_bits()), true),
        (all, AnyCommand::from_bits(reserved_range.with_level(3).into_bits()), true),
    ];
    for (n, (cap, command, legal)) in cases.into_iter().enumerate() {
        let mut bench = Bench::with(cap, Params::default());
        bench.submit(&[command.into_bits()]);
        let stopped = matches!(bench.run_commands_with(&mut Plain)[0], CommandProgress::Stopped { error: 1, .. });
        assert_eq!(!stopped, legal, "case {n}");
    }
    reserved_range.set_granule(2);
    reserved_range.set_level(1);
    let mut bench = Bench::new();
    bench.submit(&[reserved_range.into_bits()]);
    let done = bench.run_commands_with(&mut Plain);
    assert!(matches!(done[0], CommandProgress::Stopped { error: 1, .. }), "level 1 of 16 KiB tables counts as no level");
}

#[test]
fn a_sync_signals_as_it_was_told() {
    let cases = [
        (true, commands::sync(), Completion::Silent),
        (true, commands::sync().with_signal(1).with_address(0x8000 >> 2).with_data(42), Completion::Message),
        (true, commands::sync().with_signal(1).with_data(42), Completion::Wired),
        (false, commands::sync().with_signal(1).with_address(0x8000 >> 2), Completion::Wired),
        (true, commands::sync().with_signal(2), Completion::Event),
    ];
    for (msi, command, expected) in cases {
        let mut bench = Bench::with(Capabilities { msi, ..Capabilities::default() }, Params::default());
        bench.submit(&[command.into_bits()]);
        let done = bench.run_commands_with(&mut Plain);
        let last = done.last().expect("it did something");
        assert!(matches!(last, CommandProgress::Synchronised { signal, .. } if *signal == expected), "{last:?}");
        assert_eq!(bench.memory.read(Pa(0x8000)), if expected == Completion::Message { 42 } else { 0 });
    }
}

#[test]
fn an_aborted_completion_message_is_a_global_error() {
    let mut bench = Bench::new();
    bench.submit(&[commands::sync().with_signal(1).with_address(0x8000 >> 2).into_bits()]);
    assert!(matches!(bench.step_commands(CommandInput::Continue, &mut Plain), CommandProgress::WriteMessage { .. }));
    bench.step_commands(CommandInput::Aborted, &mut Plain);
    assert!(errors(&bench).command_message_abort());
    assert_eq!(bench.unit.read_register(Register::CmdqCons), 1, "consumed all the same");
}

#[test]
fn the_command_queue_wraps() {
    let mut bench = Bench::new();
    for _ in 0..5 {
        bench.submit(&[commands::nsnh_all(); 13]);
        assert_eq!(bench.run_commands_with(&mut Plain).len(), 13);
    }
    assert_eq!(bench.unit.read_register(Register::CmdqCons), 65 % 32);
}

#[test]
fn a_sync_waits_until_committed_events_are_written() {
    let mut bench = Bench::new();
    bench.read(IOVA);
    bench.submit(&[commands::sync().into_bits()]);
    assert_eq!(bench.step_commands(CommandInput::Continue, &mut Plain), CommandProgress::AwaitEvents);
    assert_eq!(bench.unit.read_register(Register::EventqProd), 0);
    bench.run_events();
    assert!(matches!(bench.step_commands(CommandInput::Continue, &mut Plain), CommandProgress::Synchronised { .. }));
}

#[test]
fn a_record_holds_what_the_fault_was() {
    let (mut bench, _, leaf_2) = Bench::mapped_nested();
    bench.memory.write(leaf_2, page_2(Pa(0)).with_writable(false).into_bits());
    assert!(bench.write(Iova(IOVA.0 | 0x18)).fault().recorded);
    let [head, access, address, ipa] = bench.events()[0];
    assert_eq!((head & 0xff, head >> 32, head >> 11 & 1), (0x13, u64::from(STREAM.0), 0));
    assert_eq!(access, 1 << 39 | 2 << 40, "a write, stage 2, its input");
    assert_eq!((address, ipa), (IOVA.0 | 0x18, GUEST_PAGE.0));
    // A read with SubstreamID, refused for it.
    let request = Request { source: super::support::DEVICE, iova: IOVA, access: Access::Read, pasid: Some(Pasid(0xabcde)) };
    bench.request_with(request, &mut Plain);
    assert_eq!(bench.events(), [[u64::from(STREAM.0) << 32 | 0xabcde << 12 | 8, 0, 0, 0]]);
}

#[test]
fn faults_are_recorded_only_if_the_configuration_says_so() {
    let (mut bench, leaf) = Bench::mapped_1();
    bench.memory.write(leaf, 0);
    bench.memory.write(Pa(0x300_0000), context_0(ASID, 48).with_record(false).into_bits());
    assert!(!bench.read(IOVA).fault().recorded, "CD.R");
    let (mut bench, leaf) = Bench::mapped_2();
    bench.memory.write(leaf, 0);
    let pa = Bench::stream_pa(STREAM).offset(16);
    bench.memory.write(pa, bench.memory.read(pa) & !(1 << 58));
    assert!(!bench.read(IOVA).fault().recorded, "STE.S2R");
    let mut bench = Bench::new();
    bench.control(Control0::new());
    bench.unit.write_register(Register::Cr2, 0);
    bench.control(Control0::new().with_enable(true).with_event_queue(true));
    let beyond = Request { source: iommu_model::Bdf(0x1000), iova: IOVA, access: Access::Read, pasid: None };
    assert!(!bench.request_with(beyond, &mut Plain).fault().recorded, "RECINVSID");
    bench.control(Control0::new().with_enable(true));
    assert!(!bench.read(IOVA).fault().recorded, "EVENTQEN");
}

#[test]
fn a_full_event_queue_overflows_once_and_loses_what_comes_after() {
    let mut bench = Bench::new();
    for n in 0..20 {
        assert_eq!(bench.read(IOVA).fault().recorded, n < 16, "{n}");
    }
    let overflow = |bench: &Bench| QueueIndex::from_bits(bench.unit.read_register(Register::EventqProd) as u32).overflow();
    assert!(!overflow(&bench), "not before the full queue can be seen");
    bench.run_events();
    assert!(overflow(&bench));
    bench.read(IOVA);
    assert!(overflow(&bench), "a second loss does not toggle it again");
    assert_eq!(bench.events().len(), 16);
    assert!(bench.read(IOVA).fault().recorded, "an unacknowledged overflow does not stop delivery");
}

#[test]
fn the_event_queue_interrupts_when_it_becomes_non_empty() {
    let mut bench = Bench::new();
    bench.unit.write_register(Register::EventqIrqCfg0, 0x9000);
    bench.unit.write_register(Register::EventqIrqCfg1, 77);
    bench.unit.write_register(Register::IrqCtrl, InterruptControl::new().with_event_queue(true).into_bits().into());
    bench.unit.write_register(Register::EventqIrqCfg1, 78);
    bench.read(IOVA);
    bench.read(IOVA);
    let signals: Vec<_> = bench
        .run_events()
        .into_iter()
        .filter_map(|progress| match progress {
            EventProgress::Recorded { interrupt, .. } => Some(interrupt),
            _ => None,
        })
        .collect();
    let message = Signal::Message(Message { address: Pa(0x9000), data: 77 });
    assert_eq!(signals, [Some(message), None], "the data is fixed while the interrupt is on");
}

#[test]
fn an_aborted_record_stops_delivery_until_it_is_acknowledged() {
    let mut bench = Bench::new();
    bench.unit.write_register(Register::IrqCtrl, InterruptControl::new().with_global_error(true).into_bits().into());
    bench.read(IOVA);
    bench.read(IOVA);
    assert!(matches!(bench.unit.event_advance(EventInput::Continue), EventProgress::Write { .. }));
    let aborted = bench.unit.event_advance(EventInput::Aborted);
    assert!(matches!(aborted, EventProgress::Aborted { interrupt: Some(Signal::Wired), .. }));
    assert!(errors(&bench).event_queue_abort() && !bench.unit.events_have_work());
    assert!(!bench.read(IOVA).fault().recorded);
    acknowledge(&mut bench);
    assert!(bench.read(IOVA).fault().recorded);
}

#[test]
fn equal_events_merge_only_if_the_stream_allows_it_and_the_unit_chooses_to() {
    for (mev, answer, records) in [(false, 1, 2), (true, 0, 2), (true, 1, 1)] {
        let (mut bench, leaf) = Bench::mapped_1();
        bench.memory.write(leaf, page_1(Pa(0)).with_valid(false).into_bits());
        bench.memory.write(Bench::stream_pa(STREAM).offset(8), StreamEntry1::new().with_merge_events(mev).into_bits());
        let mut d = Scripted::new(|q| matches!(q, Question::MergeEvent), answer);
        bench.read_with(IOVA, &mut d);
        assert!(bench.read_with(Iova(IOVA.0 | 0x80), &mut d).fault().recorded);
        assert_eq!(bench.events().len(), records);
    }
}

#[test]
fn a_unit_with_too_many_unwritten_events_takes_no_request() {
    let params = Params { events_max: 3, ..Params::default() };
    let mut bench = Bench::with(Capabilities::default(), params);
    let request = Request { source: super::support::DEVICE, iova: IOVA, access: Access::Read, pasid: None };
    for _ in 0..3 {
        bench.read(IOVA);
    }
    assert_eq!(bench.unit.begin(request), Err(Busy));
    bench.run_events();
    assert!(bench.unit.begin(request).is_ok());
}
