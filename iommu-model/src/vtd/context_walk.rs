//! The outer half of a walk: from the requester id to a context entry.
//!
//! Steps, legacy mode:
//!
//! 1. A write in the interrupt range is no memory request.
//! 2. With translation off the address passes as it is.
//! 3. The root table must be of a mode that the unit has; legacy mode refuses requests with PASID.
//! 4. Context cache, by requester id.
//! 5. Root entry, by bus number: present, no reserved bits.
//! 6. Context entry, by devfn: present, no reserved bits, T and AW supported; then it may be cached.
//!
//! The inner half is in `second_stage`.

use super::step::in_interrupt_range;
use super::unit::Unit;
use super::walk::Stage;
use crate::addr::{DomainId, Pa, Pfn};
use crate::ats::RequestKind;
use crate::cache::context::{ContextEntryCached, ContextTarget};
use crate::decision::{Decisions, Question, ask_bool};
use crate::request::{Access, CacheKind, FetchKind, Progress};
use crate::spec::vtd::context::{CONTEXT_ENTRY_BYTES, ContextEntry, TT_DEVICE_TLB, TT_PASS_THROUGH, TT_UNTRANSLATED};
use crate::spec::vtd::fault::FaultReason;
use crate::spec::vtd::root::{ROOT_ENTRY_BYTES, RootEntry, TTM_LEGACY, TTM_SCALABLE};

impl Unit {
    /// Steps 1 to 4.
    #[inline]
    pub(crate) fn begin_walk(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let (source, iova, access) = (walk.request.source, walk.request.iova, walk.request.access);
        let has_pasid = walk.request.pasid.is_some();
        // Step 1.
        let plain = !has_pasid && walk.attributes.kind == RequestKind::Untranslated;
        if access == Access::Write && plain && in_interrupt_range(iova.0) {
            return Progress::InterruptMessage { address: iova, cost: self.pass(slot) };
        }
        // Step 2.
        if !self.translation_enabled {
            if walk.attributes.kind != RequestKind::Untranslated {
                return self.fault(slot, FaultReason::BLOCKED_BY_TYPE, 0, d);
            }
            return Progress::Untranslated { pa: Pa(iova.0), cost: self.pass(slot) };
        }
        // Step 3.
        if self.root.mode() != TTM_LEGACY {
            // In abort mode nobody is told why.
            if self.root.mode() != TTM_SCALABLE || self.cap.scalable.is_none() {
                return self.fault(slot, FaultReason::ROOT_MODE, 0, d);
            }
            walk.is_scalable = true;
        } else if walk.attributes.kind == RequestKind::PageRequest {
            return self.fault(slot, FaultReason::PAGE_REQUEST_IN_LEGACY, 0, d);
        } else if has_pasid {
            return self.fault(slot, FaultReason::PASID_IN_LEGACY, 0, d);
        }
        // Step 4.
        let cost = walk.spend(self.params.timing.context_lookup);
        let Some(entry) = self.caches.context.lookup(source) else {
            walk.stage = Stage::Root;
            return Progress::Lookup { cache: CacheKind::Context, hit: false, cost };
        };
        walk.fault_disable = entry.fault_disable;
        if let ContextTarget::Fault(reason) = entry.target {
            return self.fault(slot, reason, cost, d);
        }
        (walk.has_context, walk.domain, walk.target) = (true, entry.domain, entry.target);
        // The entry may be left over from the other mode; what it says counts.
        walk.is_scalable = matches!(entry.target, ContextTarget::Scalable { .. });
        walk.stage = if walk.is_scalable { Stage::Pasid } else { Stage::Iotlb };
        walk.words = entry.provenance;
        (walk.device_tlb, walk.page_requests) = (entry.device_tlb, entry.page_requests);
        self.caches.words.hold(walk.words);
        if walk.attributes.kind != RequestKind::Untranslated
            && let Some(end) = self.admit(slot, cost, d)
        {
            return end;
        }
        Progress::Lookup { cache: CacheKind::Context, hit: true, cost }
    }

    /// Step 5, the request.
    pub(crate) fn fetch_root(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        walk.stage = Stage::Root;
        let index = u64::from(walk.request.source.bus());
        let pa = Pfn(self.root.table()).pa().offset(index * ROOT_ENTRY_BYTES);
        self.fetch_wide(slot, pa, FetchKind::Root, self.params.timing.root_fetch, d)
    }

    /// Step 5, the answer; then the request of step 6.
    pub(crate) fn consume_root(&mut self, slot: usize, word: u128, d: &mut dyn Decisions) -> Progress {
        if self.walks.at(slot).is_scalable {
            return self.consume_scalable_root(slot, word, d);
        }
        let entry = RootEntry::from_bits(word);
        if !entry.present() {
            return self.refuse_context(slot, FaultReason::ROOT_NOT_PRESENT, d);
        }
        let table = Pfn(entry.context_table()).pa();
        if entry.reserved_low() != 0 || entry.reserved_high() != 0 || !self.cap.frame_fits(table) {
            return self.refuse_context(slot, FaultReason::ROOT_RESERVED, d);
        }
        let walk = self.walks.at(slot);
        walk.stage = Stage::Context;
        let index = u64::from(walk.request.source.devfn());
        let pa = table.offset(index * CONTEXT_ENTRY_BYTES);
        self.fetch_wide(slot, pa, FetchKind::Context, self.params.timing.context_fetch, d)
    }

    /// Step 6, the answer; then the first step of the inner half.
    pub(crate) fn consume_context(&mut self, slot: usize, word: u128, d: &mut dyn Decisions) -> Progress {
        let entry = ContextEntry::from_bits(word);
        // FPD counts even where P does not: reason 0x02 is among the qualified faults.
        self.walks.at(slot).fault_disable = entry.fault_disable();
        if !entry.present() {
            return self.refuse_context(slot, FaultReason::CONTEXT_NOT_PRESENT, d);
        }
        let root = Pfn(entry.second_stage()).pa();
        if entry.reserved_low() != 0
            || entry.reserved_71()
            || entry.reserved_high() != 0
            || !self.cap.domain_fits(entry.domain())
            || !self.cap.frame_fits(root)
        {
            return self.refuse_context(slot, FaultReason::CONTEXT_RESERVED, d);
        }
        let Some(levels) = self.cap.levels(entry.address_width()) else {
            return self.refuse_context(slot, FaultReason::CONTEXT_INVALID, d);
        };
        let target = match entry.translation_type() {
            TT_UNTRANSLATED => ContextTarget::Tables { root, levels },
            TT_DEVICE_TLB if self.cap.device_tlb => ContextTarget::Tables { root, levels },
            TT_PASS_THROUGH if self.cap.pass_through => ContextTarget::PassThrough,
            _ => return self.refuse_context(slot, FaultReason::CONTEXT_INVALID, d),
        };
        let domain = DomainId(entry.domain());
        let walk = self.walks.at(slot);
        (walk.device_tlb, walk.page_requests) = (entry.translation_type() == TT_DEVICE_TLB, false);
        self.install_context(slot, domain, target, d);
        let walk = self.walks.at(slot);
        (walk.has_context, walk.domain, walk.target) = (true, domain, target);
        walk.stage = Stage::Iotlb;
        if walk.attributes.kind != RequestKind::Untranslated
            && let Some(end) = self.admit(slot, 0, d)
        {
            return end;
        }
        self.look_up_iotlb_next(slot, 0, d)
    }

    #[inline(never)]
    pub(crate) fn install_context(&mut self, slot: usize, domain: DomainId, target: ContextTarget, d: &mut dyn Decisions) {
        let walk = self.walks.at(slot);
        let entry = ContextEntryCached {
            source: walk.request.source,
            domain,
            fault_disable: walk.fault_disable,
            device_tlb: walk.device_tlb,
            page_requests: walk.page_requests,
            target,
            provenance: walk.words,
        };
        self.caches.context.install(&entry, &mut self.caches.words, d);
    }

    /// Under caching mode a not-present or erroneous entry may be cached, in the special domain 0.
    #[cold]
    pub(crate) fn refuse_context(&mut self, slot: usize, reason: FaultReason, d: &mut dyn Decisions) -> Progress {
        if self.cap.caching_mode && ask_bool(d, Question::CacheNotPresent) {
            self.install_context(slot, DomainId(0), ContextTarget::Fault(reason), d);
        }
        self.fault(slot, reason, 0, d)
    }
}
