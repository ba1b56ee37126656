//! What the context entry says to requests of devices that translate for themselves, and how such requests end.
//!
//! | request | legacy mode | scalable mode | ends with |
//! | --- | --- | --- | --- |
//! | translation | T must be 01 (0x0d) | DTE must be set (0x44) | a [`Translation`] to keep; without any permission if the page is missing or denied |
//! | translated | same | same | the address as it is, without a walk |
//! | page request | never allowed (0x32) | PRE must be set (0x47) | a record in the page request queue |
//!
//! A missing or denied page is no fault of a translation request: the device is told, and may ask for the page. What is
//! wrong with a structure stays a fault. With translation off, in abort mode and (translated) in the interrupt range, all
//! three are refused without a record; a translation request in the interrupt range is granted nothing (assumptions).

use super::step::in_interrupt_range;
use super::unit::Unit;
use crate::addr::Pa;
use crate::ats::RequestKind;
use crate::decision::Decisions;
use crate::provenance::ProvenanceId;
use crate::request::{CacheHit, Progress, Translation};
use crate::spec::vtd::fault::FaultReason;

/// Whether a translation request is answered instead of faulted.
const fn is_recoverable(reason: FaultReason) -> bool {
    matches!(
        reason,
        FaultReason::NO_READ
            | FaultReason::NO_WRITE
            | FaultReason::SCALABLE_NO_READ
            | FaultReason::SCALABLE_NO_WRITE
            | FaultReason::FIRST_NOT_PRESENT
            | FaultReason::SECOND_NOT_PRESENT
            | FaultReason::NOT_USER
            | FaultReason::NO_EXECUTE
            | FaultReason::FIRST_ROOT_DENIED
            | FaultReason::FIRST_TABLE_DENIED
            | FaultReason::FIRST_UPDATE_DENIED
    )
}

impl Unit {
    /// The context entry is known. What is left of a request that is not a plain one: `None` if the walk goes on.
    #[cold]
    pub(crate) fn admit(&mut self, slot: usize, cost: u32, d: &mut dyn Decisions) -> Option<Progress> {
        let walk = self.walks.at(slot);
        let (device_tlb, page_requests, scalable) = (walk.device_tlb, walk.page_requests, walk.is_scalable);
        let iova = walk.request.iova;
        match walk.attributes.kind {
            RequestKind::Untranslated => None,
            RequestKind::PageRequest if !page_requests => {
                let reason = if scalable { FaultReason::PAGE_REQUESTS_DISABLED } else { FaultReason::PAGE_REQUEST_IN_LEGACY };
                Some(self.fault(slot, reason, cost, d))
            }
            RequestKind::PageRequest => {
                self.page_requests.accept(slot);
                Some(self.answer(slot, cost))
            }
            _ if !device_tlb => {
                let reason = if scalable { FaultReason::DEVICE_TLB_DISABLED } else { FaultReason::BLOCKED_BY_TYPE };
                Some(self.fault(slot, reason, cost, d))
            }
            RequestKind::Translated if in_interrupt_range(iova.0) => Some(self.fault(slot, FaultReason::INTERRUPT_RANGE, cost, d)),
            RequestKind::Translated => {
                walk.spend(cost);
                self.end(slot);
                Some(Progress::Untranslated { pa: Pa(iova.0), cost })
            }
            RequestKind::Translation { .. } if in_interrupt_range(iova.0) => Some(self.answer(slot, cost)),
            RequestKind::Translation { .. } => None,
        }
    }

    /// A translation request is told that it gets nothing, where that is the answer to this reason.
    #[cold]
    pub(crate) fn answer_instead(&mut self, slot: usize, reason: FaultReason, spent: u32) -> Option<Progress> {
        let asks = matches!(self.walks.at(slot).attributes.kind, RequestKind::Translation { .. });
        (asks && is_recoverable(reason)).then(|| self.answer(slot, spent))
    }

    /// Ends the walk without any permission.
    fn answer(&mut self, slot: usize, cost: u32) -> Progress {
        let walk = self.walks.at(slot);
        walk.spend(cost);
        let translation = Translation {
            pa: Pa(0),
            readable: false,
            writable: false,
            page_bytes: crate::addr::PAGE_SIZE,
            domain: walk.domain,
            pass_through: false,
            cost,
            cost_total: walk.cost_total,
            fetches: walk.fetches,
            from: CacheHit::None,
        };
        self.end(slot);
        Progress::Done(translation)
    }

    /// Frees the walker; its words are those of the walk that ended last.
    pub(crate) fn end(&mut self, slot: usize) {
        let walk = self.walks.at(slot);
        self.caches.words.end(core::mem::replace(&mut walk.words, ProvenanceId::NONE));
        if walk.is_scalable {
            walk.forget_scalable(&mut self.caches.words);
        }
        self.walks.free(slot);
    }
}
