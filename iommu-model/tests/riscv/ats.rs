//! ATS: translated and translation requests, T2GPA, messages to devices, page requests.

use crate::support::world::GUEST;
use crate::support::{DEVICE, Dc, GSCID, IOVA, PAGE, PSCID, World, commands, leaf};
use iommu_model::riscv::{
    AddressKind, AtsAnswer, CommandProgress, PageRequest, PageRequestOutcome, RecordInput, RecordProgress, Register, ResponseCode,
    Transaction,
};
use iommu_model::spec::riscv::command::{AtsCommand, FUNC_ATS_INVAL, FUNC_ATS_PRGR, OPCODE_ATS};
use iommu_model::spec::riscv::device_context::TranslationControl;
use iommu_model::spec::riscv::fault::Cause;
use iommu_model::spec::riscv::page_request::PageRequestPayload;
use iommu_model::{Access, Bdf, Iova, Pa, Pasid, Plain, Progress};

fn of_kind(kind: AddressKind, iova: Iova, access: Access) -> Transaction {
    Transaction { kind, ..Transaction::new(DEVICE, iova, access) }
}

fn ask(iova: Iova, access: Access) -> Transaction {
    of_kind(AddressKind::TranslationRequest, iova, access)
}

/// A nested world whose device may use ATS.
fn with_ats(change: fn(&mut TranslationControl)) -> (World, crate::support::Tables, crate::support::Tables) {
    let (mut world, first, second, _) = World::mapped_nested(3);
    let dc = Dc::bare().first(first, PSCID).second(second, GSCID).control(|tc| {
        tc.set_enable_ats(true);
        change(tc);
    });
    world.set_device(DEVICE, dc);
    (world, first, second)
}

#[test]
fn without_en_ats_neither_kind_of_request_is_allowed() {
    let (mut world, ..) = World::mapped_first(3);
    for kind in [AddressKind::Translated, AddressKind::TranslationRequest] {
        assert_eq!(world.send(of_kind(kind, IOVA, Access::Read)).cause(), Cause::TYPE_DISALLOWED);
        assert_eq!(AtsAnswer::of(Cause::TYPE_DISALLOWED), AtsAnswer::UnsupportedRequest);
    }
    let types: Vec<_> = world.faults().iter().map(|record| record.head.transaction_type()).collect();
    assert_eq!(types, [6, 8]);
    let bare = iommu_model::riscv::Capabilities { resets_to_bare: true, ..Default::default() };
    world.unit = iommu_model::riscv::Unit::new(bare, iommu_model::Params::default());
    assert_eq!(world.send(of_kind(AddressKind::Translated, IOVA, Access::Read)).cause(), Cause::TYPE_DISALLOWED);
}

#[test]
fn a_translation_request_is_told_what_both_stages_allow_and_denied_ones_record_nothing() {
    let (mut world, first, _) = with_ats(|_| {});
    let told = |world: &mut World, iova, access| {
        let translation = world.send(ask(iova, access)).translation();
        (translation.readable, translation.writable)
    };
    assert_eq!(told(&mut world, IOVA, Access::Write), (true, true));
    let readable = Iova(IOVA.0 + 0x1000);
    world.map(first, readable, leaf(Pa(GUEST + 0x1000)).with_write(false).with_dirty(false), 12);
    assert_eq!(told(&mut world, readable, Access::Write), (true, false), "success, without what is not there");
    assert_eq!(told(&mut world, readable, Access::Write), (true, false), "from the IOTLB as well");
    assert_eq!(told(&mut world, Iova(0), Access::Read), (false, false));
    let supervisor_page = Iova(IOVA.0 + 0x2000);
    world.map(first, supervisor_page, leaf(Pa(GUEST)).with_user(false), 12);
    assert_eq!(told(&mut world, supervisor_page, Access::Read), (false, false));
    let lost = Iova(IOVA.0 + 0x3000);
    world.map(first, lost, leaf(Pa(1 << 37)), 12);
    assert_eq!(told(&mut world, lost, Access::Read), (false, false));
    assert!(world.faults().is_empty());
    world.memory.end = Some(Pa(0x1000));
    assert_eq!(world.send(ask(Iova(1 << 30), Access::Read)).cause(), Cause::READ_ACCESS);
    assert_eq!(AtsAnswer::of(Cause::READ_ACCESS), AtsAnswer::CompleterAbort);
    world.memory.end = None;
    assert_eq!(world.faults().len(), 1);
}

#[test]
fn translated_requests_pass_unless_t2gpa_makes_them_guest_addresses() {
    let (mut world, ..) = with_ats(|_| {});
    let translation = world.send(of_kind(AddressKind::Translated, Iova(0x123_4568), Access::Write)).translation();
    assert_eq!((translation.pa, translation.pass_through), (Pa(0x123_4568), true));
    let (mut world, ..) = with_ats(|tc| tc.set_t2gpa(true));
    let answer = world.send(ask(IOVA, Access::Read)).translation();
    assert_eq!(answer.pa, Pa(GUEST + PAGE.0), "the completion holds a guest address");
    let back = world.send(of_kind(AddressKind::Translated, Iova(answer.pa.0), Access::Read)).translation();
    assert_eq!(back.pa, PAGE);
    let forged = world.send(of_kind(AddressKind::Translated, Iova(PAGE.0), Access::Write));
    assert_eq!(forged.cause(), Cause::WRITE_GUEST_PAGE, "a device cannot make up host addresses");
    assert_eq!(world.fault().head.transaction_type(), 7);
}

#[test]
fn a_device_that_is_asked_before_the_iotlb_takes_the_stale_translation_again() {
    let (mut world, first, _) = with_ats(|_| {});
    let mut device_tlb = world.send(ask(IOVA, Access::Read)).translation().pa;
    world.map(first, IOVA, leaf(Pa(GUEST + 0x5000)), 12);
    let invalidate = AtsCommand::new().with_opcode(OPCODE_ATS).with_func3(FUNC_ATS_INVAL).with_requester(DEVICE.0 as u16).into_bits();
    let vma = commands::vma(Some(GSCID), Some(PSCID), Some(IOVA)).into_bits();
    // The wrong order: between both the device asks again.
    world.command(invalidate);
    world.unit.device_answered(0);
    device_tlb = Pa(device_tlb.0.max(world.send(ask(IOVA, Access::Read)).translation().pa.0));
    world.command(vma);
    assert_eq!(device_tlb, PAGE);
    // The right one.
    world.command(invalidate);
    world.unit.device_answered(0);
    assert_eq!(world.send(ask(IOVA, Access::Read)).translation().pa, Pa(0x5000));
}

#[test]
fn a_fence_waits_for_devices_and_reports_those_that_never_answer() {
    let mut world = World::new();
    let invalidate = AtsCommand::new()
        .with_opcode(OPCODE_ATS)
        .with_func3(FUNC_ATS_INVAL)
        .with_requester(0x318)
        .with_segment_valid(true)
        .with_segment(2)
        .with_process_valid(true)
        .with_process(0xf_0001)
        .with_payload(0x1234_5000);
    world.submit(&[invalidate.into_bits(), invalidate.into_bits(), commands::fence(None).into_bits()]);
    let said = world.run();
    let sent: Vec<_> = said
        .iter()
        .filter_map(|progress| match progress {
            CommandProgress::InvalidateDevice { message, tag, .. } => Some((*message, *tag)),
            _ => None,
        })
        .collect();
    assert_eq!(sent.len(), 2);
    let message = sent[0].0;
    assert_eq!((message.requester, message.segment, message.process), (Bdf(0x318), Some(2), Some(Pasid(0xf_0001))));
    assert_eq!(message.payload, 0x1234_5000);
    assert_eq!(said.last(), Some(&CommandProgress::AwaitDevices { tags: 0b11 }));
    assert!(world.unit.device_answered(0) && !world.unit.device_answered(0) && !world.unit.device_answered(77));
    assert_eq!(world.run(), [CommandProgress::AwaitDevices { tags: 0b10 }]);
    assert!(world.unit.device_timed_out(1));
    let said = world.run();
    assert!(matches!(said[..], [CommandProgress::Stopped(error)] if error.timeout && !error.illegal), "{said:?}");
    assert_eq!(world.unit.read_register(Register::Cqh), 2, "the fence that found it");
    world.write(Register::Cqcsr, 1 | 1 << 9);
    assert!(matches!(world.run().as_slice(), [.., CommandProgress::Fenced { .. }, CommandProgress::Idle]));
}

#[test]
fn there_are_as_many_unanswered_invalidations_as_tags() {
    let mut world = World::new();
    let invalidate = AtsCommand::new().with_opcode(OPCODE_ATS).with_func3(FUNC_ATS_INVAL).into_bits();
    world.submit(&[invalidate; 40]);
    assert_eq!(world.run().last(), Some(&CommandProgress::AwaitDevices { tags: u32::MAX }));
    world.unit.device_answered(7);
    assert!(matches!(world.run()[0], CommandProgress::InvalidateDevice { tag: 7, .. }));
    let respond = AtsCommand::new().with_opcode(OPCODE_ATS).with_func3(FUNC_ATS_PRGR).with_payload(5).into_bits();
    let mut world = World::new();
    assert!(
        matches!(world.command(respond)[1], CommandProgress::Respond { message, .. } if message.payload == 5 && message.process.is_none())
    );
}

fn page_request(world: &mut World, payload: PageRequestPayload, process: Option<Pasid>) -> PageRequestOutcome {
    let request = PageRequest { device: DEVICE, payload: payload.into_bits(), process, privileged: false, execute: true };
    let walk = world.unit.begin_page_request(request).expect("a walker is free");
    assert!(matches!(world.drive(walk, &mut Plain).progress, Progress::Untranslated { .. }));
    world.unit.last_page_request().expect("it has ended")
}

fn wants(page: u64, last: bool) -> PageRequestPayload {
    PageRequestPayload::new().with_read(true).with_last(last).with_page(page).with_group(5)
}

#[test]
fn a_page_request_of_a_device_that_may_ask_goes_into_the_queue() {
    let (mut world, ..) = with_ats(|tc| tc.set_enable_pri(true));
    assert_eq!(page_request(&mut world, wants(0x40, true), Some(Pasid(9))), PageRequestOutcome::Queued);
    let RecordProgress::Write { pa, bytes: 16, words, .. } = world.unit.page_queue_advance(RecordInput::Continue) else {
        panic!("a record is written")
    };
    assert_eq!(pa, Pa(0x700 << 12));
    assert_eq!(words[0], u64::from(DEVICE.0) << 40 | 1 << 34 | 1 << 32 | 9 << 12);
    assert_eq!(words[1], wants(0x40, true).into_bits());
    assert_eq!(world.unit.read_register(Register::Pqt), 0);
    world.unit.page_queue_advance(RecordInput::Written);
    assert_eq!(world.unit.read_register(Register::Pqt), 1);
    assert!(!world.unit.page_queue_has_work());
}

#[test]
fn the_unit_itself_answers_page_requests_that_find_no_queue() {
    use PageRequestOutcome::{Answered, Discarded, Queued};
    let pasid = Some(Pasid(9));
    let (mut world, ..) = with_ats(|_| {});
    let refused = Answered { code: ResponseCode::InvalidRequest, process: None };
    assert_eq!(page_request(&mut world, wants(1, true), pasid), refused, "EN_PRI is 0");
    let record = world.fault();
    assert_eq!((record.head.cause(), record.head.transaction_type()), (260, 9));
    assert_eq!(page_request(&mut world, wants(1, false), pasid), Discarded, "not the last of its group");
    assert_eq!(page_request(&mut world, PageRequestPayload::new().with_last(true), pasid), Discarded, "a stop marker");
    let mut world = World::new();
    let failed = Answered { code: ResponseCode::Failure, process: pasid };
    assert_eq!(page_request(&mut world, wants(1, true), pasid), failed, "nobody is there");
    let (mut world, ..) = with_ats(|tc| {
        tc.set_enable_pri(true);
        tc.set_response_pasid(true);
    });
    // A queue of eight holds seven.
    for _ in 0..7 {
        assert_eq!(page_request(&mut world, wants(1, true), pasid), Queued);
    }
    let full = Answered { code: ResponseCode::Success, process: pasid };
    assert_eq!(page_request(&mut world, wants(1, true), pasid), full);
    assert_eq!(world.unit.read_register(Register::Pqcsr) >> 9 & 1, 1, "pqof");
    assert_eq!(page_request(&mut world, wants(1, true), pasid), full, "as long as the bit is set");
    world.write(Register::Pqcsr, 0);
    assert_eq!(page_request(&mut world, wants(1, true), pasid), failed, "switched off");
}
