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

use super::walk::{HeldContext, Stage, Stepper, in_interrupt_range};
use crate::addr::{DomainId, Pa, Pfn};
use crate::cache::context::{ContextEntryCached, ContextTarget};
use crate::decision::{Question, ask_bool};
use crate::request::{Access, CacheKind, FetchKind, Progress};
use crate::spec::vtd::context::{CONTEXT_ENTRY_BYTES, ContextEntry, TT_DEVICE_TLB, TT_PASS_THROUGH, TT_UNTRANSLATED};
use crate::spec::vtd::fault::FaultReason;
use crate::spec::vtd::root::{ROOT_ENTRY_BYTES, RootEntry, TTM_LEGACY};

impl Stepper<'_> {
    /// Steps 1 to 4.
    pub(crate) fn begin(&mut self) -> Result<Progress, FaultReason> {
        let request = self.walk.request;
        // Step 1.
        if request.access == Access::Write && request.pasid.is_none() && in_interrupt_range(request.iova.0) {
            self.spent += self.timing.bypass;
            return Ok(Progress::InterruptMessage { address: request.iova, cost: self.spent });
        }
        // Step 2.
        if !self.translation_enabled {
            self.spent += self.timing.bypass;
            return Ok(Progress::Untranslated { pa: Pa(request.iova.0), cost: self.spent });
        }
        // Step 3.
        if self.root.mode() != TTM_LEGACY {
            return Err(FaultReason::ROOT_MODE);
        }
        if request.pasid.is_some() {
            return Err(FaultReason::PASID_IN_LEGACY);
        }
        // Step 4.
        self.spent += self.timing.context_lookup;
        let (stage, hit) = match self.caches.context.lookup(request.source) {
            Some(entry) => {
                self.walk.fault_disable = entry.fault_disable;
                if let ContextTarget::Fault(reason) = entry.target {
                    return Err(reason);
                }
                self.walk.context = Some(HeldContext { domain: entry.domain, target: entry.target });
                self.walk.provenance = entry.provenance;
                (Stage::Iotlb, true)
            }
            None => (Stage::Root, false),
        };
        self.walk.stage = stage;
        Ok(Progress::Lookup { cache: CacheKind::Context, hit, cost: self.spent })
    }

    /// Step 5, the request.
    pub(crate) fn fetch_root(&mut self) -> Progress {
        let index = u64::from(self.source().bus());
        let pa = Pfn(self.root.table()).pa().offset(index * ROOT_ENTRY_BYTES);
        self.fetch(pa, FetchKind::Root)
    }

    /// Step 5, the answer; then the request of step 6.
    pub(crate) fn consume_root(&mut self, word: u128) -> Result<Progress, FaultReason> {
        let entry = RootEntry::from_bits(word);
        if !entry.present() {
            return Err(self.refuse_context(FaultReason::ROOT_NOT_PRESENT));
        }
        let table = Pfn(entry.context_table()).pa();
        if entry.reserved_low() != 0 || entry.reserved_high() != 0 || !self.cap.frame_fits(table) {
            return Err(self.refuse_context(FaultReason::ROOT_RESERVED));
        }
        self.walk.stage = Stage::Context;
        let index = u64::from(self.source().devfn());
        Ok(self.fetch(table.offset(index * CONTEXT_ENTRY_BYTES), FetchKind::Context))
    }

    /// Step 6, the answer; then the first step of the inner half.
    pub(crate) fn consume_context(&mut self, word: u128) -> Result<Progress, FaultReason> {
        let entry = ContextEntry::from_bits(word);
        // FPD counts even where P does not: reason 0x02 is among the qualified faults.
        self.walk.fault_disable = entry.fault_disable();
        if !entry.present() {
            return Err(self.refuse_context(FaultReason::CONTEXT_NOT_PRESENT));
        }
        let root = Pfn(entry.second_stage()).pa();
        if entry.reserved_low() != 0
            || entry.reserved_71()
            || entry.reserved_high() != 0
            || !self.cap.domain_fits(entry.domain())
            || !self.cap.frame_fits(root)
        {
            return Err(self.refuse_context(FaultReason::CONTEXT_RESERVED));
        }
        let Some(levels) = self.cap.levels(entry.address_width()) else {
            return Err(self.refuse_context(FaultReason::CONTEXT_INVALID));
        };
        let target = match entry.translation_type() {
            TT_UNTRANSLATED => ContextTarget::Tables { root, levels },
            TT_DEVICE_TLB if self.cap.device_tlb => ContextTarget::Tables { root, levels },
            TT_PASS_THROUGH if self.cap.pass_through => ContextTarget::PassThrough,
            _ => return Err(self.refuse_context(FaultReason::CONTEXT_INVALID)),
        };
        let domain = DomainId(entry.domain());
        self.walk.context = Some(HeldContext { domain, target });
        self.install_context(domain, target);
        self.walk.stage = Stage::Iotlb;
        self.look_up_iotlb()
    }

    fn install_context(&mut self, domain: DomainId, target: ContextTarget) {
        let entry = ContextEntryCached {
            source: self.source(),
            domain,
            fault_disable: self.walk.fault_disable,
            target,
            provenance: self.walk.provenance,
        };
        self.caches.context.install(entry, &mut *self.d);
    }

    /// Under caching mode a not-present or erroneous entry may be cached, in the special domain 0.
    fn refuse_context(&mut self, reason: FaultReason) -> FaultReason {
        if self.cap.caching_mode && ask_bool(&mut *self.d, Question::CacheNotPresent) {
            self.install_context(DomainId(0), ContextTarget::Fault(reason));
        }
        reason
    }
}
