//! How a walk ends with an event, and what of it is logged. 48882 section 2.5.

use super::unit::Unit;
use crate::addr::Pa;
use crate::ats::RequestKind;
use crate::decision::Decisions;
use crate::request::{Fault, FaultInfo, Message, Progress};
use crate::spec::amd::event::{
    EventCode, EventFlags, EventWord, HARDWARE_DATA_ERROR, HARDWARE_TARGET_ABORT, ILLEGAL_ENTRY_RESERVED_LOW, PASID_HIGH_MASK,
    PASID_LOW_BITS,
};

/// An event that blocked a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Event {
    /// Which.
    pub code: EventCode,
    /// Its flags.
    pub flags: EventFlags,
}

impl Unit {
    /// Ends the walk with an event. `spent` is the cost of the step before it failed. A page fault is not logged if the device
    /// table entry has SA; SE is ignored.
    #[cold]
    pub(crate) fn fault(&mut self, slot: usize, code: EventCode, flags: EventFlags, spent: u32, _: &mut dyn Decisions) -> Progress {
        if self.walkers.at(slot).outer_words.is_some() {
            // What the whole walk read, if the host refused an address of the guest.
            self.join_words(slot);
        }
        let walk = self.walkers.at(slot);
        let asks = walk.asks();
        if asks && code == EventCode::PAGE_FAULT {
            walk.spend(spent);
            return self.answer_nothing(slot, spent);
        }
        let cost = walk.spend(spent.saturating_add(self.params.timing.fault));
        let enabled = self.control.enable();
        let (request, pasid) = (walk.request, walk.pasid.or(walk.request.pasid));
        let is_hardware = matches!(code, EventCode::DEVICE_TABLE_HARDWARE | EventCode::PAGE_TABLE_HARDWARE);
        let mut flags = flags.with_write(walk.writes()).with_translation(asks);
        if is_hardware {
            flags.set_hardware(HARDWARE_TARGET_ABORT);
        }
        // Every request of a guest translation is one of a user.
        let is_guest = walk.pasid.is_some() && code != EventCode::DEVICE_TABLE_HARDWARE;
        flags = flags.with_guest(flags.guest() || is_guest).with_user(is_guest && code == EventCode::PAGE_FAULT);
        let address = match code {
            EventCode::ILLEGAL_DEVICE_ENTRY => request.iova.0 & !ILLEGAL_ENTRY_RESERVED_LOW,
            _ if is_hardware => walk.pending_pa.0,
            _ => request.iova.0,
        };
        let domain = if walk.has_device { walk.device.domain.0 } else { 0 };
        let pasid = pasid.filter(|_| flags.guest()).map(|pasid| pasid.0);
        let word = EventWord::new()
            .with_device(request.source.0)
            .with_pasid_high(pasid.map_or(0, |pasid| (pasid >> PASID_LOW_BITS & PASID_HIGH_MASK) as u8))
            .with_domain_or_pasid(pasid.map_or(domain, |pasid| pasid as u16))
            .with_flags(flags.into_bits())
            .with_code(code.0);
        // With translation off there is nobody to tell.
        let unseen = walk.prefetch || (walk.kind != RequestKind::Untranslated && !enabled);
        let suppressed = unseen || (walk.has_device && walk.device.suppress_all && code == EventCode::PAGE_FAULT);
        self.end(slot);
        let (recorded, interrupt) = if suppressed { (false, None) } else { self.log([word.into_bits(), address]) };
        Progress::Fault(FaultInfo {
            reason: Fault::Amd(Event { code, flags }),
            source: request.source,
            iova: request.iova,
            access: request.access,
            recorded,
            interrupt,
            cost,
        })
    }

    /// Logs an error of the command buffer. Returns the message that goes out.
    pub(crate) fn log_command(&mut self, code: EventCode, command: Pa) -> Option<Message> {
        let flags = match code {
            EventCode::COMMAND_HARDWARE => EventFlags::new().with_hardware(HARDWARE_DATA_ERROR),
            _ => EventFlags::new(),
        };
        let word = EventWord::new().with_flags(flags.into_bits()).with_code(code.0);
        self.log([word.into_bits(), command.0]).1
    }
}
