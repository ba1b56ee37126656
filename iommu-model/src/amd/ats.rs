//! Requests of devices that translate for themselves: which are served, and how they end. 48882 section 2.2.2 (I) and 2.1.
//!
//! | | translation request | translated request |
//! | --- | --- | --- |
//! | translation off | refused, nothing is logged | the same |
//! | I = 0 | INVALID_DEVICE_REQUEST | the same |
//! | I = 1 | translated; told the rights there are | passes |
//! | interrupt range | told that there are no rights | INVALID_DEVICE_REQUEST |
//!
//! Sources: LX sets I for a device whose ATS it switches on, and waits for INVALIDATE_IOTLB_PAGES; VB has the layout of the
//! event. The text of 48882 was not at hand. Assumptions, so: every row but those of I = 1; that an entry with V = 0 counts as
//! one with I = 0; Type of the event, which is 0 here; that PCIe's Unsupported Request answers INVALID_DEVICE_REQUEST; that a
//! missing or denied page of a translation request is not logged. With NW no right to write is granted.

use super::device_walk::After;
use super::fault::Event;
use super::unit::Unit;
use crate::addr::{PAGE_SIZE, Pa};
use crate::ats::{AtsAnswer, RequestKind};
use crate::decision::Decisions;
use crate::request::{CacheHit, Progress, Translation};
use crate::spec::amd::address::{INTERRUPT_RANGE_FIRST, INTERRUPT_RANGE_LAST};
use crate::spec::amd::event::{EventCode, EventFlags};

impl AtsAnswer {
    /// The answer for an event of AMD-Vi.
    #[must_use]
    pub const fn of_amd(event: Event) -> Self {
        match event.code {
            EventCode::PAGE_FAULT => Self::NoAccess,
            EventCode::INVALID_DEVICE_REQUEST => Self::UnsupportedRequest,
            _ => Self::CompleterAbort,
        }
    }
}

impl Unit {
    /// Ends a request of ATS for which no table is read; `None` if the walk goes on.
    #[cold]
    pub(crate) fn begin_ats(&mut self, slot: usize, d: &mut dyn Decisions) -> Option<Progress> {
        let (enabled, cost) = (self.control.enable(), self.params.timing.bypass);
        let walk = self.walkers.at(slot);
        let in_interrupt_range = (INTERRUPT_RANGE_FIRST..=INTERRUPT_RANGE_LAST).contains(&walk.request.iova.0);
        match walk.asks() {
            _ if !enabled => Some(self.refuse_ats(slot, cost, d)),
            true if in_interrupt_range => {
                walk.spend(cost);
                Some(self.answer_nothing(slot, cost))
            }
            false if in_interrupt_range => Some(self.refuse_ats(slot, cost, d)),
            _ => None,
        }
    }

    /// What the device table entry says to a request of ATS; `None` if a translation request goes on.
    #[cold]
    pub(crate) fn admit_ats(&mut self, slot: usize) -> Option<After> {
        let walk = self.walkers.at(slot);
        match walk.kind {
            _ if !(self.cap.device_tlb && walk.device.device_tlb) => {
                Some(After::Fault(EventCode::INVALID_DEVICE_REQUEST, EventFlags::new()))
            }
            RequestKind::Translated => Some(After::PassTranslated),
            _ => None,
        }
    }

    fn refuse_ats(&mut self, slot: usize, cost: u32, d: &mut dyn Decisions) -> Progress {
        self.fault(slot, EventCode::INVALID_DEVICE_REQUEST, EventFlags::new(), cost, d)
    }

    /// A translated request passes.
    pub(crate) fn pass_translated(&mut self, slot: usize, cost: u32) -> Progress {
        let pa = Pa(self.walkers.at(slot).request.iova.0);
        self.end(slot);
        Progress::Untranslated { pa, cost }
    }

    /// Tells a device that it has no rights. `cost` is spent already.
    #[cold]
    pub(crate) fn answer_nothing(&mut self, slot: usize, cost: u32) -> Progress {
        let walk = self.walkers.at(slot);
        let translation = Translation {
            pa: Pa(0),
            readable: false,
            writable: false,
            page_bytes: PAGE_SIZE,
            domain: walk.device.domain,
            pass_through: false,
            cost,
            cost_total: walk.cost_total,
            fetches: walk.fetches,
            from: CacheHit::None,
        };
        self.end(slot);
        Progress::Done(translation)
    }

    /// What a translation request is told of a translation with these rights.
    #[cold]
    pub(crate) fn answer(&mut self, slot: usize, mut translation: Translation) -> Progress {
        translation.writable &= self.walkers.at(slot).writes();
        if !translation.readable && !translation.writable {
            return self.answer_nothing(slot, translation.cost);
        }
        self.end(slot);
        Progress::Done(translation)
    }
}
