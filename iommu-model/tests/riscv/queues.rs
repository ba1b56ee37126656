//! The three queues: order, errors, overflow, interrupts.

use crate::support::{DEVICE, IOVA, PSCID, World, commands};
use iommu_model::riscv::{CommandInput, CommandProgress, RecordInput, RecordProgress, Register, Transaction};
use iommu_model::spec::riscv::command::{AtsCommand, DirectoryCommand, FenceCommand, OPCODE_ATS};
use iommu_model::spec::riscv::register::{CommandQueueControl, RecordQueueControl};
use iommu_model::{Access, Message, Pa, Params, Plain};

fn cqcsr(world: &World) -> CommandQueueControl {
    CommandQueueControl::from_bits(world.unit.read_register(Register::Cqcsr) as u32)
}

fn fqcsr(world: &World) -> RecordQueueControl {
    RecordQueueControl::from_bits(world.unit.read_register(Register::Fqcsr) as u32)
}

/// Whether a command stops the queue as illegal, with the head on it.
fn is_illegal(world: &mut World, bits: u128) -> bool {
    let head = world.unit.read_register(Register::Cqh);
    let said = world.command(bits);
    let Some(CommandProgress::Stopped(error)) = said.last() else { return false };
    assert!(error.illegal && cqcsr(world).illegal());
    assert_eq!(world.unit.read_register(Register::Cqh), head, "the head stays on it");
    assert!(!world.unit.command_queue_has_work());
    // Software skips it by starting anew.
    *world = World::new();
    true
}

#[test]
fn every_reserved_bit_and_encoding_of_a_command_is_illegal() {
    let mut world = World::new();
    let vma = commands::vma(None, Some(PSCID), Some(IOVA)).into_bits();
    let fence = commands::fence(None).into_bits();
    let ddt = commands::inval_ddt(Some(DEVICE)).into_bits();
    let pdt = commands::inval_pdt(DEVICE, iommu_model::Pasid(5)).into_bits();
    let ats = AtsCommand::new().with_opcode(OPCODE_ATS).into_bits();
    for (what, good, reserved) in [
        ("IOTINVAL", vma, [11].into_iter().chain(35..44).chain(60..73).chain(126..128).collect::<Vec<_>>()),
        ("IOFENCE", fence, [11].into_iter().chain(14..32).chain(126..128).collect()),
        ("INVAL_DDT", ddt, (10..32).chain([32]).chain(34..40).chain(64..128).collect()),
        ("INVAL_PDT", pdt, [10, 11, 32].into_iter().chain(34..40).chain(64..128).collect()),
        ("ATS", ats, [10, 11].into_iter().chain(34..40).collect()),
    ] {
        assert!(!is_illegal(&mut world, good), "{what}");
        for bit in reserved {
            assert!(is_illegal(&mut world, good | 1 << bit), "{what} bit {bit}");
        }
        for func in 2..8u128 {
            assert!(is_illegal(&mut world, good & !(7 << 7) | func << 7), "{what} func3 {func}");
        }
    }
    assert!(is_illegal(&mut world, fence | 1 << 7), "IOFENCE func3 1");
    for opcode in [0].into_iter().chain(5..128u128) {
        assert!(is_illegal(&mut world, opcode), "opcode {opcode}");
    }
}

#[test]
fn a_command_that_contradicts_its_operands_or_the_capabilities_is_illegal() {
    let mut world = World::new();
    assert!(is_illegal(&mut world, commands::gvma(None, None).with_pscid_valid(true).into_bits()), "GVMA with PSCV");
    let no_device = DirectoryCommand::from_bits(commands::inval_pdt(DEVICE, iommu_model::Pasid(0)).into_bits()).with_device_valid(false);
    assert!(is_illegal(&mut world, no_device.into_bits()), "INVAL_PDT without DV");
    // One level of extended contexts: six bits.
    assert!(is_illegal(&mut world, commands::inval_ddt(Some(iommu_model::riscv::DeviceId(64))).into_bits()));
    assert!(!is_illegal(&mut world, commands::inval_ddt(Some(iommu_model::riscv::DeviceId(63))).into_bits()));
    let poor = iommu_model::riscv::Capabilities {
        ats: false,
        t2gpa: false,
        pd20: false,
        pd17: false,
        non_leaf_invalidation: false,
        range_invalidation: false,
        ..Default::default()
    };
    for bits in [
        AtsCommand::new().with_opcode(OPCODE_ATS).into_bits(),
        commands::inval_pdt(DEVICE, iommu_model::Pasid(256)).into_bits(),
        commands::vma(None, None, None).with_non_leaf(true).into_bits(),
        commands::vma(None, None, None).with_range(true).into_bits(),
    ] {
        let mut world = World::with(poor, Params::default(), 1);
        assert!(is_illegal(&mut world, bits), "{bits:#x}");
        assert!(!is_illegal(&mut World::new(), bits), "{bits:#x}");
    }
}

#[test]
fn a_command_or_a_store_without_memory_stops_the_queue_until_the_bit_is_cleared() {
    let mut world = World::new();
    world.submit(&[commands::fence(Some((Pa(0x3000), 7))).into_bits()]);
    world.unit.command_queue_advance(CommandInput::Continue, &mut Plain);
    let stopped = world.unit.command_queue_advance(CommandInput::Unreadable, &mut Plain);
    assert!(matches!(stopped, CommandProgress::Stopped(error) if error.memory_fault && error.message.is_none()));
    assert!(cqcsr(&world).memory_fault() && world.run() == [CommandProgress::Idle]);
    world.write(Register::Cqcsr, u64::from(cqcsr(&world).into_bits()));
    assert!(!cqcsr(&world).memory_fault(), "write 1 to clear");
    let CommandProgress::Fetch { pa, .. } = world.unit.command_queue_advance(CommandInput::Continue, &mut Plain) else { panic!("goes on") };
    let words = [world.memory.read(pa), world.memory.read(pa.offset(8))];
    let asked = world.unit.command_queue_advance(CommandInput::Command(words), &mut Plain);
    assert!(matches!(asked, CommandProgress::Write { pa: Pa(0x3000), data: 7, .. }));
    let again = world.unit.command_queue_advance(CommandInput::Continue, &mut Plain);
    assert!(matches!(again, CommandProgress::Write { pa: Pa(0x3000), data: 7, cost: 0 }));
    let stopped = world.unit.command_queue_advance(CommandInput::WriteFailed, &mut Plain);
    assert!(matches!(stopped, CommandProgress::Stopped(error) if error.memory_fault));
    assert_eq!(world.unit.read_register(Register::Cqh), 0, "on the fence");
}

#[test]
fn the_queue_wraps_and_starts_anew_at_0() {
    let mut world = World::new();
    for n in 1..=300u64 {
        world.command(commands::fence(None).into_bits());
        assert_eq!(world.unit.read_register(Register::Cqh), n % 256);
    }
    world.write(Register::Cqcsr, 0);
    assert!(!cqcsr(&world).on());
    world.write(Register::Cqcsr, 1);
    assert_eq!((world.unit.read_register(Register::Cqh), cqcsr(&world).on()), (0, true));
    assert_eq!(world.unit.read_register(Register::Cqt), 300 % 256, "the tail is software's");
}

#[test]
fn a_queue_switched_off_amid_a_command_is_busy_until_that_is_over() {
    let mut world = World::new();
    world.submit(&[commands::fence(None).with_reads(true).into_bits(), commands::fence(None).into_bits()]);
    world.unit.command_queue_advance(CommandInput::Continue, &mut Plain);
    world.write(Register::Cqcsr, 0);
    assert!(cqcsr(&world).busy() && cqcsr(&world).on());
    world.write(Register::Cqcsr, 1);
    assert!(!cqcsr(&world).enable(), "a write while busy is ignored");
    world.run();
    assert!(!cqcsr(&world).busy() && !cqcsr(&world).on());
    assert_eq!(world.unit.read_register(Register::Cqh), 1);
}

fn miss(world: &mut World) -> bool {
    world.send(Transaction::new(DEVICE, IOVA, Access::Read)).fault().recorded
}

#[test]
fn a_full_fault_queue_drops_records_until_the_overflow_bit_is_cleared() {
    let mut world = World::new();
    // 32 entries hold 31.
    for _ in 0..31 {
        assert!(miss(&mut world));
    }
    assert!(!miss(&mut world) && fqcsr(&world).overflow());
    assert_eq!(world.faults().len(), 31);
    assert!(!miss(&mut world), "there is room again, but the bit is set");
    world.write(Register::Fqcsr, 1 | 1 << 9);
    assert!(miss(&mut world));
    assert_eq!(world.faults().len(), 1);
}

#[test]
fn a_record_without_memory_is_dropped_with_all_that_follow() {
    let mut world = World::new();
    miss(&mut world);
    miss(&mut world);
    assert!(matches!(world.unit.fault_queue_advance(RecordInput::Continue), RecordProgress::Write { bytes: 32, .. }));
    assert!(matches!(world.unit.fault_queue_advance(RecordInput::WriteFailed), RecordProgress::Done { stored: false, .. }));
    assert!(fqcsr(&world).memory_fault() && !world.unit.fault_queue_has_work() && !miss(&mut world));
    world.write(Register::Fqcsr, 1 | 1 << 8);
    assert!(miss(&mut world));
    assert_eq!(world.unit.read_register(Register::Fqt), 0);
}

#[test]
fn a_fault_queue_that_is_off_records_nothing() {
    let mut world = World::new();
    world.write(Register::Fqcsr, 0);
    assert!(!fqcsr(&world).on() && !miss(&mut world));
    world.write(Register::Fqcsr, 1);
    miss(&mut world);
    world.write(Register::Fqcsr, 0);
    assert!(fqcsr(&world).busy() && fqcsr(&world).on(), "a record is on its way");
    assert_eq!(world.faults().len(), 1);
    assert!(!fqcsr(&world).on());
}

/// Vector 2 for commands, 5 for faults; both messages set up.
fn with_messages(world: &mut World) {
    world.write(Register::Icvec, 0x52);
    for vector in [2, 5] {
        world.write(Register::MsiAddress(vector), 0x2800_0000 + u64::from(vector) * 4096);
        world.write(Register::MsiData(vector), u64::from(vector) + 100);
    }
}

fn message(vector: u64) -> Message {
    Message { address: Pa(0x2800_0000 + vector * 4096), data: vector as u32 + 100 }
}

#[test]
fn a_new_record_sends_one_message_until_software_clears_the_pending_bit() {
    let mut world = World::new();
    with_messages(&mut world);
    world.write(Register::Fqcsr, 3);
    let store = |world: &mut World| {
        miss(world);
        world.unit.fault_queue_advance(RecordInput::Continue);
        match world.unit.fault_queue_advance(RecordInput::Written) {
            RecordProgress::Done { stored: true, message, .. } => message,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(store(&mut world), Some(message(5)));
    assert_eq!(world.unit.read_register(Register::Ipsr), 2);
    assert_eq!(store(&mut world), None, "still pending");
    world.write(Register::Ipsr, 2);
    assert_eq!(world.unit.read_register(Register::Ipsr), 0);
    assert_eq!(store(&mut world), Some(message(5)));
    // Masked, it waits.
    world.write(Register::Ipsr, 2);
    world.write(Register::MsiControl(5), 1);
    assert_eq!(store(&mut world), None);
    let effect = world.unit.write_register(Register::MsiControl(5), 0);
    assert_eq!(effect.messages[..], [message(5)]);
    let effect = world.unit.write_register(Register::MsiControl(5), 0);
    assert!(effect.messages.is_empty());
}

#[test]
fn an_error_that_is_not_cleared_raises_the_interrupt_again() {
    let mut world = World::new();
    with_messages(&mut world);
    world.write(Register::Cqcsr, 3);
    let said = world.command(0);
    assert!(matches!(said.last(), Some(CommandProgress::Stopped(error)) if error.message == Some(message(2))));
    let effect = world.unit.write_register(Register::Ipsr, 1);
    assert_eq!(effect.messages[..], [message(2)], "cmd_ill is still set");
    world.write(Register::Cqcsr, 3 | 1 << 10);
    let effect = world.unit.write_register(Register::Ipsr, 1);
    assert!(effect.messages.is_empty());
    assert_eq!(world.unit.read_register(Register::Ipsr), 0);
}

#[test]
fn a_fence_with_wsi_raises_a_wire() {
    let mut world = World::new();
    // fctl.WSI can be changed only while everything is off.
    world.write(Register::Fctl, 2);
    assert_eq!(world.unit.read_register(Register::Fctl), 0);
    let ddtp = world.unit.read_register(Register::Ddtp);
    for register in [Register::Ddtp, Register::Cqcsr, Register::Fqcsr, Register::Pqcsr] {
        world.write(register, 0);
    }
    world.unit.register_drained();
    world.write(Register::Fctl, 2);
    world.write(Register::Ddtp, ddtp);
    world.unit.register_drained();
    world.write(Register::Cqcsr, 3);
    world.write(Register::Icvec, 7);
    let fence = FenceCommand::from_bits(commands::fence(None).into_bits()).with_wire(true);
    let said = world.command(fence.into_bits());
    assert!(said.iter().any(|progress| matches!(progress, CommandProgress::Fenced { message: None, .. })));
    assert_eq!((world.unit.wires(), cqcsr(&world).fence_pending()), (1 << 7, true));
    world.write(Register::Cqcsr, 3 | 1 << 11);
    world.write(Register::Ipsr, 1);
    assert_eq!(world.unit.wires(), 0);
}

#[test]
fn an_interrupt_message_without_memory_is_a_fault_of_nobody() {
    let mut world = World::new();
    world.unit.message_failed(message(5));
    let record = world.fault();
    assert_eq!((record.head.cause(), record.head.transaction_type(), record.head.device()), (273, 0, 0));
    assert_eq!(record.iotval, message(5).address.0);
}
