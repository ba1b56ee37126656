//! Commands, decoded. Specification, "Command-Queue (CQ)": a command is illegal if it uses a reserved encoding or sets a
//! reserved bit, and unsupported if the capabilities do not have it; both stop the queue.

use super::id::{DeviceId, Gscid, Pscid};
use super::invalidate::{GvmaScope, Invalidation, VmaScope};
use super::unit::Unit;
use crate::addr::{Bdf, Pa, Pasid};
use crate::page_span::AddressRange;
use crate::spec::riscv::command::{
    AnyCommand, AtsCommand, DirectoryCommand, FUNC_ATS_INVAL, FUNC_ATS_PRGR, FUNC_FENCE_C, FUNC_GVMA, FUNC_INVAL_DDT, FUNC_INVAL_PDT,
    FUNC_VMA, FenceCommand, InvalidateCommand, OPCODE_ATS, OPCODE_IODIR, OPCODE_IOFENCE, OPCODE_IOTINVAL,
};
use crate::spec::riscv::register::WORD_BYTES;

/// A message to a device, as ATS.INVAL or ATS.PRGR gives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceMessage {
    /// Destination.
    pub requester: Bdf,
    /// Its segment, if DSV says so.
    pub segment: Option<u8>,
    /// PASID, if PV says so.
    pub process: Option<Pasid>,
    /// The body.
    pub payload: u64,
}

/// IOFENCE.C.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fence {
    pub(crate) reads: bool,
    pub(crate) writes: bool,
    pub(crate) wire: bool,
    pub(crate) store: Option<(Pa, u32)>,
}

/// A decoded command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    Invalidate(Invalidation),
    Fence(Fence),
    InvalidateDevice(DeviceMessage),
    Respond(DeviceMessage),
}

impl Unit {
    /// `None` if the command is illegal or unsupported.
    pub(crate) fn decode_command(&self, words: [u64; 2]) -> Option<Command> {
        let bits = u128::from(words[0]) | u128::from(words[1]) << 64;
        let any = AnyCommand::from_bits(bits);
        match any.opcode() {
            OPCODE_IOTINVAL => self.decode_invalidate(InvalidateCommand::from_bits(bits)),
            OPCODE_IOFENCE => self.decode_fence(FenceCommand::from_bits(bits)),
            OPCODE_IODIR => self.decode_directory(DirectoryCommand::from_bits(bits)),
            OPCODE_ATS if self.cap.ats => decode_ats(AtsCommand::from_bits(bits)),
            _ => None,
        }
    }

    fn decode_invalidate(&self, command: InvalidateCommand) -> Option<Command> {
        let reserved = command.reserved_11()
            || command.reserved_35() != 0
            || command.reserved_60() != 0
            || command.reserved_64() != 0
            || command.reserved_126() != 0
            || (command.non_leaf() && !self.cap.non_leaf_invalidation)
            || (command.range() && !self.cap.range_invalidation);
        if reserved {
            return None;
        }
        let gscid = command.gscid_valid().then(|| Gscid(command.gscid()));
        let range = command.address_valid().then(|| AddressRange::decode(command.page(), command.range()));
        let non_leaf = command.non_leaf();
        match command.func3() {
            FUNC_VMA => {
                let pscid = command.pscid_valid().then(|| Pscid(command.pscid()));
                Some(Command::Invalidate(Invalidation::Vma(VmaScope { gscid, pscid, range, non_leaf })))
            }
            FUNC_GVMA if !command.pscid_valid() => {
                let range = range.filter(|_| gscid.is_some());
                Some(Command::Invalidate(Invalidation::Gvma(GvmaScope { gscid, range, non_leaf })))
            }
            _ => None,
        }
    }

    fn decode_fence(&self, command: FenceCommand) -> Option<Command> {
        let reserved = command.reserved_14() != 0 || command.reserved_126() != 0 || (command.wire() && !self.interrupts.wires);
        if reserved || command.func3() != FUNC_FENCE_C {
            return None;
        }
        let store = command.address_valid().then(|| (Pa(command.address().wrapping_mul(WORD_BYTES)), command.data()));
        Some(Command::Fence(Fence { reads: command.reads(), writes: command.writes(), wire: command.wire(), store }))
    }

    fn decode_directory(&self, command: DirectoryCommand) -> Option<Command> {
        let reserved = command.reserved_10() != 0 || command.reserved_32() || command.reserved_34() != 0 || command.reserved_64() != 0;
        let too_wide = command.device_valid() && command.device() >> self.device_bits() != 0;
        if reserved || too_wide {
            return None;
        }
        let device = command.device_valid().then(|| DeviceId(command.device()));
        match (command.func3(), device) {
            (FUNC_INVAL_DDT, _) if command.process() == 0 => Some(Command::Invalidate(Invalidation::Ddt(device))),
            (FUNC_INVAL_PDT, Some(device)) if command.process() >> self.cap.process_bits() == 0 => {
                Some(Command::Invalidate(Invalidation::Pdt(device, Pasid(command.process()))))
            }
            _ => None,
        }
    }
}

fn decode_ats(command: AtsCommand) -> Option<Command> {
    if command.reserved_10() != 0 || command.reserved_34() != 0 {
        return None;
    }
    let message = DeviceMessage {
        requester: Bdf(command.requester()),
        segment: command.segment_valid().then(|| command.segment()),
        process: command.process_valid().then(|| Pasid(command.process())),
        payload: command.payload(),
    };
    match command.func3() {
        FUNC_ATS_INVAL => Some(Command::InvalidateDevice(message)),
        FUNC_ATS_PRGR => Some(Command::Respond(message)),
        _ => None,
    }
}
