//! Which commands are legal, and what they say. 48882 section 2.4. Reserved bits that are set, and commands that the
//! unit lacks, are illegal.

use super::capability::Capabilities;
use super::device_commands::{DeviceTarget, decode_response};
use super::invalidate::{Invalidation, PagesScope};
use crate::addr::{Bdf, DomainId, Iova, PAGE_SHIFT, Pa, Pasid};
use crate::ats::PageResponse;
use crate::page_span::AddressRange;
use crate::spec::amd::command::{
    AnyCommand, CompletePpr, CompletionWait, InvalidateDevice, InvalidateIotlb, InvalidatePages, OPCODE_COMPLETE_PPR,
    OPCODE_COMPLETION_WAIT, OPCODE_INVALIDATE_ALL, OPCODE_INVALIDATE_DEVICE, OPCODE_INVALIDATE_INTERRUPTS, OPCODE_INVALIDATE_IOTLB,
    OPCODE_INVALIDATE_PAGES, OPCODE_PREFETCH, Prefetch,
};
use crate::spec::amd::guest_table::ENTRY_BYTES;

/// A legal command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    Wait(Wait),
    Invalidate(Invalidation),
    InvalidateDevice(DeviceTarget),
    Respond(PageResponse),
    Prefetch(PrefetchHint),
}

/// COMPLETION_WAIT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Wait {
    pub(crate) store: Option<(Pa, u64)>,
    pub(crate) interrupt: bool,
}

/// PREFETCH_IOMMU_PAGES. The caller may begin such walks, as it may begin any; hardware need not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PrefetchHint {
    /// The device.
    pub device: Bdf,
    /// GN: the PASID.
    pub pasid: Option<Pasid>,
    /// First address.
    pub address: Iova,
    /// How many pages.
    pub count: u8,
}

/// Reads a command; `None` if it is illegal.
pub(crate) fn decode(words: [u64; 2], cap: &Capabilities) -> Option<Command> {
    let bits = u128::from(words[0]) | u128::from(words[1]) << 64;
    let any = AnyCommand::from_bits(bits);
    match any.opcode() {
        OPCODE_COMPLETION_WAIT => decode_wait(CompletionWait::from_bits(bits)),
        OPCODE_INVALIDATE_DEVICE => decode_device(bits).map(|device| Command::Invalidate(Invalidation::Device(device))),
        OPCODE_INVALIDATE_PAGES => decode_pages(InvalidatePages::from_bits(bits), cap),
        OPCODE_INVALIDATE_IOTLB if cap.device_tlb => DeviceTarget::decode(InvalidateIotlb::from_bits(bits)).map(Command::InvalidateDevice),
        OPCODE_INVALIDATE_INTERRUPTS => decode_device(bits).map(|device| Command::Invalidate(Invalidation::Interrupts(device))),
        OPCODE_PREFETCH if cap.prefetch => decode_prefetch(Prefetch::from_bits(bits)),
        OPCODE_COMPLETE_PPR if cap.page_requests => Some(Command::Respond(decode_response(CompletePpr::from_bits(bits)))),
        OPCODE_INVALIDATE_ALL if cap.invalidate_all && any.operand_1() == 0 && any.operand_2() == 0 => {
            Some(Command::Invalidate(Invalidation::All))
        }
        _ => None,
    }
}

/// f makes later commands wait; here they always do.
fn decode_wait(command: CompletionWait) -> Option<Command> {
    let store = command.store().then(|| (Pa(command.address() * ENTRY_BYTES), command.data()));
    (command.reserved_52() == 0).then_some(Command::Wait(Wait { store, interrupt: command.interrupt() }))
}

fn decode_device(bits: u128) -> Option<Bdf> {
    let command = InvalidateDevice::from_bits(bits);
    (command.reserved_16() == 0 && command.reserved_64() == 0).then_some(Bdf(command.device()))
}

/// A PASID without GN is ignored (assumption); GN needs guest translation.
fn decode_pages(command: InvalidatePages, cap: &Capabilities) -> Option<Command> {
    let reserved = command.reserved_20() != 0 || command.reserved_48() != 0 || command.reserved_67() != 0;
    if reserved || (command.guest() && !cap.guest_translation) {
        return None;
    }
    Some(Command::Invalidate(Invalidation::Pages(PagesScope {
        domain: DomainId(command.domain()),
        pasid: command.guest().then(|| Pasid(command.pasid())),
        range: AddressRange::decode(command.page(), command.sized()),
        directories: command.directories(),
    })))
}

fn decode_prefetch(command: Prefetch) -> Option<Command> {
    let reserved = command.reserved_16() != 0
        || command.reserved_52() != 0
        || command.reserved_65()
        || command.reserved_67()
        || command.reserved_69() != 0;
    (!reserved).then_some(Command::Prefetch(PrefetchHint {
        device: Bdf(command.device()),
        pasid: command.guest().then(|| Pasid(command.pasid())),
        address: Iova(command.page() << PAGE_SHIFT),
        count: command.count(),
    }))
}
