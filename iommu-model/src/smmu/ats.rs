//! Requests of devices that translate for themselves: which are served, and how they end. IHI 0070 sections 3.9.1 and 13.6.
//!
//! | | translation request | translated request |
//! | --- | --- | --- |
//! | SMMUEN = 0 | F_BAD_ATS_TREQ | F_TRANSL_FORBIDDEN |
//! | ATSCHK = 0 | as below | passes, no table is read |
//! | Config 000 | refused without an event | the same |
//! | Config 100, or EATS off | F_BAD_ATS_TREQ | F_TRANSL_FORBIDDEN |
//! | EATS full | translated by every stage | passes |
//! | EATS split | told the IPA, with the rights of both stages | its address is an IPA; stage 2 translates it |
//!
//! A page that is missing or denied is no event of a translation request: the device is told that it has no rights there.
//! What is wrong with a configuration is a Completer Abort, recorded under REC_CFG_ATS. An address that passes untranslated
//! must fit OAS, else the request is aborted without an event, one of the two behaviours that section 3.9.1.1 allows. With NW
//! no right to write is granted, which section 13.7 allows too.
//!
//! A unit without ATS refuses both kinds as if EATS were off (assumption: none should reach it).

use super::cache::tlb::TlbEntry;
use super::step::Grant;
use super::stream::AtsMode;
use super::tables::{GRANULE_4K, GRANULE_16K, GRANULE_64K};
use super::unit::Unit;
use crate::addr::Pa;
use crate::ats::{AtsAnswer, RequestKind};
use crate::decision::Decisions;
use crate::request::{Access, CacheHit, Progress};
use crate::spec::smmu::event::EventId;

impl AtsAnswer {
    /// The answer for an event of an SMMU, recorded or not; [`EventId::NONE`] is that of an STE that aborts.
    #[must_use]
    pub const fn of_event(event: EventId) -> Self {
        match event {
            EventId::TRANSLATION | EventId::ADDRESS_SIZE | EventId::ACCESS | EventId::PERMISSION => Self::NoAccess,
            EventId::NONE | EventId::BAD_ATS_REQUEST => Self::UnsupportedRequest,
            _ => Self::CompleterAbort,
        }
    }
}

impl Unit {
    /// Ends a request for which no table is read: all with SMMUEN clear, translated ones with ATSCHK clear.
    #[cold]
    pub(crate) fn begin_without_stream(&mut self, slot: usize, d: &mut dyn Decisions) -> Option<Progress> {
        let cost = self.params.timing.bypass;
        let unchecked = self.cap.ats && !self.registers.cr0.ats_check();
        match self.walks.at(slot).kind {
            RequestKind::Untranslated if !self.enabled => Some(self.bypass_globally(slot, d)),
            RequestKind::Translated if self.enabled && unchecked => Some(self.pass_translated(slot, cost, d)),
            _ if !self.enabled => Some(self.forbid_ats(slot, cost, d)),
            _ => None,
        }
    }

    /// Neither kind of request is for this stream.
    #[cold]
    pub(crate) fn forbid_ats(&mut self, slot: usize, spent: u32, d: &mut dyn Decisions) -> Progress {
        let event = if self.walks.at(slot).asks() { EventId::BAD_ATS_REQUEST } else { EventId::TRANSLATION_FORBIDDEN };
        self.terminate(slot, event, spent, d)
    }

    /// What EATS says of a stream that is translated: `None` if a translation request goes on.
    #[cold]
    pub(crate) fn admit_ats(&mut self, slot: usize, cached: bool, spent: u32, d: &mut dyn Decisions) -> Option<Progress> {
        let walk = self.walks.at(slot);
        match (walk.config.ats, walk.asks()) {
            (AtsMode::Disabled, _) => Some(self.forbid_ats(slot, spent, d)),
            (_, true) => None,
            (AtsMode::Full, false) => Some(self.pass_translated(slot, spent, d)),
            (AtsMode::Split, false) => Some(self.enter_stage_2(slot, cached, spent, d)),
        }
    }

    /// A translated request passes.
    fn pass_translated(&mut self, slot: usize, cost: u32, d: &mut dyn Decisions) -> Progress {
        let pa = Pa(self.walks.at(slot).request.iova.0);
        if pa.0 >> self.cap.output_bits != 0 {
            return self.terminate(slot, EventId::NONE, cost, d);
        }
        let all = self.walks.at(slot).take_words(&mut self.caches.words);
        self.caches.words.release(core::mem::replace(&mut self.last_words, all));
        self.walks.free(slot);
        Progress::Untranslated { pa, cost }
    }

    /// Whether what a walk tells its device is the output of stage 1.
    pub(crate) fn holds_ipa(&mut self, slot: usize) -> bool {
        let walk = self.walks.at(slot);
        walk.config.ats == AtsMode::Split && walk.asks()
    }

    /// The TLB has what a translation request asks for: not the IPA of split-stage ATS, nor a clean page to be written.
    #[cold]
    pub(crate) fn answer_cached_1(&mut self, slot: usize, entry: &TlbEntry, cost: u32, d: &mut dyn Decisions) -> Progress {
        let split = self.holds_ipa(slot);
        let walk = self.walks.at(slot);
        let cleans = walk.request.access == Access::Write && entry.writable && !entry.dirty;
        if split || cleans {
            return self.begin_tables_1(slot, true, cost, d);
        }
        walk.from = CacheHit::Iotlb;
        let pa = entry.translate(walk.stage_1.address);
        let words = &mut self.caches.words;
        words.hold(entry.provenance);
        words.release(core::mem::replace(&mut walk.words, entry.provenance));
        let TlbEntry { readable, writable, page_bytes, .. } = *entry;
        self.answer(slot, Grant { pa, readable, writable, page_bytes, pass_through: false }, cost)
    }

    /// Answers a translation request.
    #[cold]
    pub(crate) fn answer(&mut self, slot: usize, grant: Grant, cost: u32) -> Progress {
        let wants_to_write = self.walks.at(slot).request.access == Access::Write;
        let writable = grant.writable && wants_to_write;
        if grant.readable || writable {
            return self.grant_walked(slot, Grant { writable, ..grant }, cost);
        }
        self.answer_nothing(slot, cost)
    }

    /// Tells a device that it has no rights. The size is that of the smallest granule, as section 3.9.1.2 wants it.
    #[cold]
    pub(crate) fn answer_nothing(&mut self, slot: usize, cost: u32) -> Progress {
        let smallest = [GRANULE_4K, GRANULE_16K].into_iter().find(|&shift| self.cap.has_granule(shift));
        let page_bytes = 1 << smallest.unwrap_or(GRANULE_64K);
        let grant = Grant { pa: Pa(0), readable: false, writable: false, page_bytes, pass_through: false };
        self.grant_walked(slot, grant, cost)
    }
}
