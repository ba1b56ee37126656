//! The invalidation queue.

use super::support::bench::{DOMAIN, IOVA};
use super::support::{Bench, commands};
use iommu_model::spec::vtd::register::{CompletionStatus, FaultStatus, QueueIndex};
use iommu_model::{Capabilities, Invalidation, IotlbScope, Message, Pa, Params, Plain, QueueInput, QueueProgress, Register};

const STATUS: Pa = Pa(0x600_0000);

fn index(bench: &Bench, register: Register) -> u16 {
    QueueIndex::from_bits(bench.unit.read_register(register)).index()
}

fn errors(bench: &Bench) -> FaultStatus {
    FaultStatus::from_bits(bench.unit.read_register(Register::Fsts) as u32)
}

#[test]
fn an_idle_queue_has_no_work() {
    let mut bench = Bench::new();
    assert!(!bench.unit.queue_has_work());
    assert_eq!(bench.unit.queue_advance(QueueInput::Continue, &mut Plain), QueueProgress::Idle);
    bench.submit(&[commands::iotlb_global()]);
    assert!(bench.unit.queue_has_work());
}

#[test]
fn a_wait_descriptor_writes_its_status_after_everything_before_it() {
    let (mut bench, _) = Bench::mapped();
    bench.read(IOVA);
    let all = bench.invalidate(&[commands::context_global(), commands::iotlb_domain(DOMAIN), commands::wait(STATUS, 0x1234)]);
    assert!(matches!(all[0], QueueProgress::Invalidated { what, .. } if what.entries_dropped == 1));
    assert!(matches!(all[1], QueueProgress::Invalidated { what, .. } if what.entries_dropped == 4));
    assert!(matches!(all[2], QueueProgress::WriteStatus { pa: STATUS, data: 0x1234, .. }));
    assert!(matches!(all[3], QueueProgress::Invalidated { what, .. } if what.asked == Invalidation::Wait));
    assert_eq!(all.len(), 4);
    assert_eq!(bench.memory.read(STATUS), 0x1234);
}

#[test]
fn the_head_moves_when_a_descriptor_is_found_valid_not_when_it_is_complete() {
    let mut bench = Bench::new();
    bench.submit(&[commands::iotlb_domain_draining(DOMAIN), commands::wait(STATUS, 1)]);
    assert!(matches!(bench.step_queue(QueueInput::Continue, &mut Plain), QueueProgress::Drain { .. }));
    assert_eq!(index(&bench, Register::Iqh), 1);
    bench.step_queue(QueueInput::Drained, &mut Plain);
    assert!(matches!(bench.step_queue(QueueInput::Continue, &mut Plain), QueueProgress::WriteStatus { .. }));
    assert_eq!(index(&bench, Register::Iqh), 2);
    assert_eq!(index(&bench, Register::Iqt), 2);
    assert!(bench.unit.queue_has_work(), "head equals tail, yet the wait is not over");
}

#[test]
fn a_wait_is_written_only_after_the_drain_before_it() {
    let mut bench = Bench::new();
    bench.submit(&[commands::iotlb_domain_draining(DOMAIN), commands::wait(STATUS, 1)]);
    let drain = bench.step_queue(QueueInput::Continue, &mut Plain);
    assert!(matches!(drain, QueueProgress::Drain { reads: true, writes: true, .. }));
    for _ in 0..3 {
        let still = bench.step_queue(QueueInput::Continue, &mut Plain);
        assert!(matches!(still, QueueProgress::Drain { cost: 0, .. }));
    }
    let done = bench.step_queue(QueueInput::Drained, &mut Plain);
    assert!(matches!(done, QueueProgress::Invalidated { what, .. }
        if what.done == Invalidation::Iotlb(IotlbScope::Domain(DOMAIN))));
    assert!(matches!(bench.step_queue(QueueInput::Continue, &mut Plain), QueueProgress::WriteStatus { .. }));
}

#[test]
fn drain_bits_are_ignored_where_the_unit_does_not_drain() {
    let cap = Capabilities { read_drain: false, ..Default::default() };
    let mut bench = Bench::with(cap, Params::default());
    bench.submit(&[commands::iotlb_domain_draining(DOMAIN)]);
    let drain = bench.step_queue(QueueInput::Continue, &mut Plain);
    assert!(matches!(drain, QueueProgress::Drain { reads: false, writes: true, .. }));
    let cap = Capabilities { read_drain: false, write_drain: false, ..Default::default() };
    let mut bench = Bench::with(cap, Params::default());
    bench.submit(&[commands::iotlb_domain_draining(DOMAIN)]);
    let done = bench.step_queue(QueueInput::Continue, &mut Plain);
    assert!(matches!(done, QueueProgress::Invalidated { .. }));
}

#[test]
fn the_queue_wraps_around() {
    let mut bench = Bench::new();
    for n in 0..600u32 {
        let all = bench.invalidate(&[commands::wait(STATUS, n)]);
        assert_eq!(all.len(), 2, "round {n}");
        assert_eq!(bench.memory.read(STATUS), u64::from(n));
    }
    assert_eq!(index(&bench, Register::Iqh), 600 % 256);
}

#[test]
fn a_bad_descriptor_stops_the_queue_with_the_head_on_it() {
    let reserved = commands::iotlb_global() | (1 << 8);
    let bad_type = 0xeu128;
    let high_type = commands::iotlb_global() | (1 << 9);
    let no_granularity = commands::iotlb_global() & !0x30;
    let wide_mask = commands::iotlb_pages(DOMAIN, IOVA, 19, false);
    for (bad, info) in [(reserved, 4), (bad_type, 3), (high_type, 3), (no_granularity, 4), (wide_mask, 4), (0, 3)] {
        let (mut bench, _) = Bench::mapped();
        bench.read(IOVA);
        let all = bench.invalidate(&[commands::context_global(), bad, commands::wait(STATUS, 1)]);
        assert!(matches!(all[1], QueueProgress::Stopped(e) if e.info == info), "{bad:#x}: {all:?}");
        assert_eq!(all.len(), 2);
        assert_eq!(index(&bench, Register::Iqh), 1);
        assert!(errors(&bench).queue_error());
        assert_eq!(bench.unit.read_register(Register::Iqercd), u64::from(info));
        assert!(!bench.unit.queue_has_work(), "nothing is fetched while the bit is set");
        bench.submit(&[commands::wait(STATUS, 2)]);
        assert_eq!(bench.run_queue_with(&mut Plain), []);
        assert_eq!(bench.memory.read(STATUS), 0);
    }
}

#[test]
fn the_queue_goes_on_at_its_head_once_the_error_is_cleared() {
    let mut bench = Bench::new();
    bench.invalidate(&[0xe, commands::wait(STATUS, 7)]);
    let queue = Pa(0x50_0000);
    bench.memory.write_wide(queue, commands::iotlb_global());
    let effect = bench.write(Register::Fsts, u64::from(FaultStatus::new().with_queue_error(true).into_bits()));
    assert!(effect.queue_work);
    bench.run_queue_with(&mut Plain);
    assert_eq!(bench.memory.read(STATUS), 7);
    assert_eq!(bench.unit.read_register(Register::Iqercd), 0, "valid only while the bit is set");
}

#[test]
fn an_unreadable_descriptor_and_a_tail_outside_the_queue_stop_it_too() {
    let mut bench = Bench::new();
    bench.submit(&[commands::iotlb_global()]);
    bench.unit.queue_advance(QueueInput::Continue, &mut Plain);
    let stopped = bench.unit.queue_advance(QueueInput::DescriptorUnreadable, &mut Plain);
    assert!(matches!(stopped, QueueProgress::Stopped(e) if e.info == 2));
    let mut bench = Bench::new();
    bench.write(Register::Iqt, QueueIndex::new().with_index(256).into_bits());
    let stopped = bench.unit.queue_advance(QueueInput::Continue, &mut Plain);
    assert!(matches!(stopped, QueueProgress::Stopped(e) if e.info == 1));
}

#[test]
fn a_wait_with_interrupt_raises_the_completion_event_once_until_serviced() {
    let mut bench = Bench::new();
    bench.write(Register::Iedata, 0x55);
    bench.write(Register::Ieaddr, 0xfee0_2000);
    let completed = |bench: &Bench| bench.unit.read_register(Register::Ics) != 0;
    assert_eq!(bench.invalidate(&[commands::wait_interrupt()]).len(), 1, "masked after reset");
    assert!(completed(&bench));
    let message = Message { address: Pa(0xfee0_2000), data: 0x55 };
    assert_eq!(bench.write(Register::Iectl, 0).messages.as_slice(), [message]);
    assert_eq!(bench.invalidate(&[commands::wait_interrupt()]).len(), 1, "not serviced yet");
    bench.write(Register::Ics, u64::from(CompletionStatus::new().with_wait_complete(true).into_bits()));
    assert!(!completed(&bench));
    let all = bench.invalidate(&[commands::wait_interrupt()]);
    assert!(matches!(all[0], QueueProgress::Interrupt { message: m, .. } if m == message));
    assert_eq!(all.len(), 2);
}

#[test]
fn a_queue_error_raises_the_fault_event() {
    let mut bench = Bench::new();
    bench.write(Register::Fectl, 0);
    let all = bench.invalidate(&[0xe]);
    assert!(matches!(all[0], QueueProgress::Stopped(e) if e.message.is_some()));
}

#[test]
fn switching_the_queue_off_waits_for_the_descriptor_under_way() {
    let mut bench = Bench::new();
    bench.submit(&[commands::iotlb_domain_draining(DOMAIN), commands::iotlb_global()]);
    bench.step_queue(QueueInput::Continue, &mut Plain);
    bench.command(|command| command.set_queue_enable(false));
    assert!(bench.status().queue_enable());
    bench.step_queue(QueueInput::Drained, &mut Plain);
    assert!(!bench.status().queue_enable());
    assert_eq!(index(&bench, Register::Iqh), 0);
    assert!(!bench.unit.queue_has_work(), "the second one is never fetched");
}

#[test]
fn interrupt_entry_descriptors_only_cost_time() {
    let (mut bench, _) = Bench::mapped();
    bench.read(IOVA);
    let before = bench.unit.caches().len();
    let all = bench.invalidate(&[4]);
    assert!(matches!(all[0], QueueProgress::Invalidated { what, cost } if what.asked == Invalidation::InterruptEntry && cost > 0));
    assert_eq!(bench.unit.caches().len(), before);
}

#[test]
fn the_status_counts_as_stored_with_written_and_with_continue() {
    for input in [QueueInput::Written, QueueInput::Continue] {
        let mut bench = Bench::new();
        bench.submit(&[commands::wait(STATUS, 1)]);
        bench.step_queue(QueueInput::Continue, &mut Plain);
        let again = bench.step_queue(QueueInput::Drained, &mut Plain);
        assert!(matches!(again, QueueProgress::WriteStatus { cost: 0, .. }), "anything else repeats the wish");
        let done = bench.step_queue(input, &mut Plain);
        assert!(matches!(done, QueueProgress::Invalidated { .. }));
    }
}

#[test]
fn an_invalidation_flushes_the_write_buffer_of_a_unit_that_has_one() {
    for write_buffer in [false, true] {
        let cap = Capabilities { write_buffer, ..Default::default() };
        let mut bench = Bench::with(cap, Params::default());
        let all = bench.invalidate(&[commands::iotlb_global()]);
        assert!(matches!(all[0], QueueProgress::Invalidated { what, .. } if what.flushes_write_buffer == write_buffer));
    }
}
