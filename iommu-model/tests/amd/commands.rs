//! The command buffer: what each command removes, and how it goes wrong.

use super::support::tables::{host_device, open};
use super::support::{Bench, DEVICE, DOMAIN, IOVA, OTHER_PAGE, PAGE, Scripted, commands};
use iommu_model::amd::{Capabilities, CommandInput, CommandProgress, Invalidation, Register};
use iommu_model::spec::amd::command::{
    AnyCommand, OPCODE_COMPLETE_PPR, OPCODE_INVALIDATE_ALL, OPCODE_INVALIDATE_INTERRUPTS, OPCODE_INVALIDATE_IOTLB, OPCODE_PREFETCH,
    Prefetch,
};
use iommu_model::spec::amd::event::EventCode;
use iommu_model::spec::amd::register::BufferPointer;
use iommu_model::{Access, Bdf, DomainId, Iova, Message, Pa, Params, Plain, Question, Request};

const STATUS: Pa = Pa(0x9_0000);

/// A bench that has its page cached, and the entry changed.
fn stale() -> Bench {
    let (mut bench, leaf) = Bench::mapped();
    assert_eq!(bench.read(IOVA).pa(), PAGE);
    bench.memory.write(leaf, open(0).with_frame(OTHER_PAGE.pfn().0).into_bits());
    assert_eq!(bench.read(IOVA).pa(), PAGE, "stale, as hardware may");
    bench
}

#[test]
fn a_page_invalidation_removes_its_page_and_no_other() {
    let mut bench = stale();
    bench.invalidate(&[commands::page(DOMAIN, IOVA.offset(0x1000)).into_bits()]);
    assert_eq!(bench.read(IOVA).pa(), PAGE);
    bench.invalidate(&[commands::page(DomainId(DOMAIN.0 + 1), IOVA).into_bits()]);
    assert_eq!(bench.read(IOVA).pa(), PAGE, "another domain");
    bench.invalidate(&[commands::page(DOMAIN, IOVA).into_bits()]);
    assert_eq!(bench.read(IOVA).pa(), OTHER_PAGE);
}

#[test]
fn the_size_bit_names_twice_the_lowest_zero_bit() {
    // 8 KiB, 16 KiB and 64 KiB around the page.
    for (page, bits) in [(0x4_0202, 13), (0x4_0201, 14), (0x4_0207, 16)] {
        let mut bench = stale();
        let command = commands::page(DOMAIN, Iova(0)).with_sized(true).with_page(page);
        bench.invalidate(&[command.into_bits()]);
        assert_eq!(bench.read(IOVA).pa(), OTHER_PAGE, "2^{bits} bytes");
    }
    let mut bench = stale();
    bench.invalidate(&[commands::page(DOMAIN, Iova(0)).with_sized(true).with_page(0x4_0204).into_bits()]);
    assert_eq!(bench.read(IOVA).pa(), PAGE, "the 8 KiB after it");
    bench.invalidate(&[commands::all_pages(DOMAIN).into_bits()]);
    assert_eq!(bench.read(IOVA).pa(), OTHER_PAGE);
}

#[test]
fn non_leaf_entries_go_with_pde_and_may_stay_without() {
    let (mut bench, _) = Bench::mapped();
    bench.read(IOVA);
    let sized = commands::all_pages(DOMAIN).with_directories(false);
    bench.invalidate(&[sized.into_bits()]);
    assert_eq!(bench.unit.caches().tlb().count(), 0);
    assert_eq!(bench.unit.caches().directories().count(), 3);
    bench.submit(&[sized.into_bits()]);
    let mut drops = Scripted::new(|question| question == Question::KeepNonLeaf, 1);
    bench.run_commands_with(&mut drops);
    assert_eq!((drops.asked, bench.unit.caches().directories().count()), (1, 0));
    bench.read(IOVA);
    bench.invalidate(&[commands::page(DOMAIN, IOVA).with_directories(true).into_bits()]);
    assert_eq!(bench.unit.caches().directories().count(), 0, "each of them leads to the page");
    assert_eq!(bench.unit.caches().devices().count(), 1);
}

#[test]
fn a_device_entry_invalidation_removes_that_entry_only() {
    let (mut bench, _) = Bench::mapped();
    let other = Bdf(DEVICE.0 + 1);
    let low = bench.device_entry();
    bench.tables.set_device(&mut bench.memory, other, low, Default::default());
    bench.read(IOVA);
    bench.run(Request { source: other, ..Bench::request(IOVA, Access::Read) });
    bench.invalidate(&[commands::device(DEVICE)]);
    let left: Vec<_> = bench.unit.caches().devices().map(|entry| entry.device).collect();
    assert_eq!(left, [other]);
    assert_eq!(bench.unit.caches().tlb().count(), 1);
}

#[test]
fn invalidate_all_removes_everything() {
    let mut bench = stale();
    bench.invalidate(&[commands::all()]);
    assert!(bench.unit.caches().is_empty());
    assert_eq!(bench.read(IOVA).pa(), OTHER_PAGE);
}

#[test]
fn a_wait_drains_stores_and_interrupts_in_that_order() {
    let (mut bench, _) = Bench::mapped();
    let message = Message { address: Pa(0xfee0_0000), data: 9 };
    bench.unit.set_interrupt_message(Some(message));
    bench.control(|control| control.with_wait_interrupt(true));
    let done = bench.invalidate(&[commands::all_pages(DOMAIN).into_bits(), commands::wait(Some((STATUS, 77)), true)]);
    assert!(matches!(
        done[..],
        [
            CommandProgress::Invalidated { .. },
            CommandProgress::Drain { .. },
            CommandProgress::Write { pa: STATUS, data: 77, .. },
            CommandProgress::Completed { message: Some(sent), .. }
        ] if sent == message
    ));
    assert!(bench.status().wait_interrupt());
    let again = bench.invalidate(&[commands::wait(None, true)]);
    assert!(matches!(again[..], [CommandProgress::Completed { message: None, .. }]), "nothing to drain, the bit is still set");
}

#[test]
fn an_invalidation_may_be_carried_out_as_late_as_the_next_wait() {
    let mut bench = stale();
    bench.submit(&[commands::page(DOMAIN, IOVA).into_bits()]);
    let mut late = Scripted::new(|question| question == Question::DelayCommand, 1);
    assert!(matches!(bench.step_commands(CommandInput::Continue, &mut late), CommandProgress::Deferred { .. }));
    let head = bench.unit.read_register(Register::CommandHead);
    assert_eq!(head, bench.unit.read_register(Register::CommandTail), "the buffer looks done");
    assert_eq!(bench.read(IOVA).pa(), PAGE, "and is not");
    bench.invalidate(&[commands::wait(None, false)]);
    assert_eq!(bench.read(IOVA).pa(), OTHER_PAGE);
}

#[test]
fn an_illegal_command_stops_the_buffer_until_it_is_switched_off_and_on() {
    for bad in [0, AnyCommand::new().with_opcode(9).into_bits(), commands::device(DEVICE) | 1 << 20, commands::all() | 1] {
        let mut bench = stale();
        let done = bench.invalidate(&[bad, commands::page(DOMAIN, IOVA).into_bits()]);
        match done[..] {
            [CommandProgress::Stopped(error)] => assert_eq!(error.code, EventCode::ILLEGAL_COMMAND),
            ref other => panic!("{other:?}"),
        }
        assert!(!bench.status().command_run());
        assert_eq!(bench.unit.read_register(Register::CommandHead), 0);
        assert!(!bench.unit.command_has_work());
        let (word, address) = bench.run_events()[0];
        assert_eq!((word.code(), address), (5, 0x50_0000));
        bench.control(|control| control.with_command_buffer(false));
        bench.write(Register::CommandHead, BufferPointer::new().with_index(1).into_bits());
        bench.control(|control| control.with_command_buffer(true));
        bench.run_commands_with(&mut Plain);
        assert_eq!(bench.read(IOVA).pa(), OTHER_PAGE);
    }
}

#[test]
fn a_command_that_cannot_be_read_stops_the_buffer() {
    let (mut bench, _) = Bench::mapped();
    bench.memory.end = Some(Pa(0x50_0000));
    let done = bench.invalidate(&[commands::all()]);
    assert!(matches!(done[..], [CommandProgress::Stopped(error)] if error.code == EventCode::COMMAND_HARDWARE));
    assert_eq!(bench.run_events()[0].0.code(), 6);
}

#[test]
fn commands_for_others_remove_nothing_and_are_accepted_where_the_unit_has_them() {
    for opcode in [OPCODE_INVALIDATE_IOTLB, OPCODE_INVALIDATE_INTERRUPTS, OPCODE_COMPLETE_PPR] {
        let mut bench = stale();
        let done = bench.invalidate(&[AnyCommand::new().with_opcode(opcode).with_operand_1(u64::from(DEVICE.0)).into_bits()]);
        match done[..] {
            [CommandProgress::Invalidated { what, .. }] => assert_eq!(what.entries_dropped, 0),
            [CommandProgress::InvalidateDevice { .. } | CommandProgress::Respond { .. }] => {}
            ref other => panic!("{opcode}: {other:?}"),
        }
        assert_eq!(bench.read(IOVA).pa(), PAGE);
    }
    let bare = Capabilities { device_tlb: false, prefetch: false, page_requests: false, invalidate_all: false, ..Capabilities::default() };
    for opcode in [OPCODE_INVALIDATE_IOTLB, OPCODE_COMPLETE_PPR, OPCODE_PREFETCH, OPCODE_INVALIDATE_ALL] {
        let mut bench = Bench::with(bare, Params::default());
        let done = bench.invalidate(&[AnyCommand::new().with_opcode(opcode).into_bits()]);
        assert!(matches!(done[..], [CommandProgress::Stopped(_)]), "{opcode}");
    }
}

#[test]
fn a_prefetch_is_handed_to_the_caller() {
    let (mut bench, _) = Bench::mapped();
    let command = Prefetch::new().with_opcode(OPCODE_PREFETCH).with_device(DEVICE.0).with_page(IOVA.0 >> 12).with_count(2);
    match bench.invalidate(&[command.into_bits()])[..] {
        [CommandProgress::Prefetch { hint, .. }] => {
            assert_eq!((hint.device, hint.address, hint.count, hint.pasid), (DEVICE, IOVA, 2, None));
            let walk = bench.unit.begin_prefetch(Bench::request(hint.address, Access::Read)).expect("a walker is free");
            bench.finish(walk);
        }
        ref other => panic!("{other:?}"),
    }
    assert!(bench.read(IOVA).fetched.is_empty());
}

#[test]
fn an_invalidation_may_be_done_wider() {
    for (answer, devices, tlb) in [(0, 1, 1), (1, 1, 0), (2, 0, 0)] {
        let (mut bench, _) = Bench::mapped();
        bench.read(IOVA);
        bench.submit(&[commands::page(DOMAIN, IOVA.offset(0x1000)).into_bits()]);
        bench.run_commands_with(&mut Scripted::new(|question| matches!(question, Question::OverInvalidate { .. }), answer));
        let caches = bench.unit.caches();
        assert_eq!((caches.devices().count(), caches.tlb().count()), (devices, tlb), "{answer}");
    }
}

#[test]
fn a_large_page_may_survive_an_invalidation_of_a_part_of_it() {
    let mut bench = Bench::new();
    bench.attach_and_map(4, Iova(0x20_0000), Pa(0x40_0000), 21);
    bench.read(Iova(0x20_0000));
    let part = commands::page(DOMAIN, Iova(0x20_5000)).into_bits();
    bench.invalidate(&[part]);
    assert_eq!(bench.unit.caches().tlb().count(), 1);
    bench.submit(&[part]);
    bench.run_commands_with(&mut Scripted::new(|question| question == Question::KeepSuperpage, 1));
    assert_eq!(bench.unit.caches().tlb().count(), 0);
    bench.read(Iova(0x20_0000));
    bench.invalidate(&[commands::page(DOMAIN, Iova(0)).with_sized(true).with_page(0x2ff).into_bits()]);
    assert_eq!(bench.unit.caches().tlb().count(), 0, "all 2 MiB");
}

#[test]
fn domains_do_not_invalidate_each_other() {
    let (mut bench, _) = Bench::mapped();
    let other = Bdf(DEVICE.0 + 1);
    let root = bench.host_root();
    bench.tables.set_device(&mut bench.memory, other, host_device(root, 9), Default::default());
    bench.read(IOVA);
    bench.run(Request { source: other, ..Bench::request(IOVA, Access::Read) });
    let done = bench.invalidate(&[commands::all_pages(DomainId(9)).into_bits()]);
    match done[..] {
        [CommandProgress::Invalidated { what, .. }] => {
            assert_eq!((what.entries_dropped, what.asked), (4, what.done));
            assert!(matches!(what.done, Invalidation::Pages(_)));
        }
        ref other => panic!("{other:?}"),
    }
    assert_eq!(bench.unit.caches().tlb().count(), 1);
}
