//! The outer half of a walk in scalable mode: from the requester id and PASID to a PASID table entry.
//!
//! Steps 1 to 4 are those of `context_walk`. Then:
//!
//! 5. Root entry, by bus number; devfn bit 7 chooses the lower or the upper half: present, no reserved bits.
//! 6. Context entry, by devfn bits 6:0: present, no reserved bits; then it may be cached, without any domain.
//! 7. A request with PASID needs PASIDE; one without has RID_PASID, or PASID 0 on units without RPS. The PASID must
//!    lie within the directory. That a RID_PASID beyond it has the same reason is an assumption.
//! 8. PASID cache, by requester id and PASID.
//! 9. Directory entry, by the upper PASID bits: present, no reserved bits.
//! 10. PASID table entry, by PASID bits 5:0: present, no reserved bits, PGTT with its AW and FSPM supported. Fields
//!     that do not count for its PGTT are not looked at (assumption); nor are memory types.
//! 11. Privileged requests need SRE, execute requests ERE, where there is a first stage.
//!
//! Second-stage and pass-through requests go on in `second_stage`, the others in `first_stage`.

use super::unit::Unit;
use super::walk::{ScalableState, Stage};
use crate::addr::{DomainId, Pa, Pasid, Pfn};
use crate::ats::RequestKind;
use crate::cache::context::ContextTarget;
use crate::cache::pasid::{PasidEntryCached, PasidTarget, Stages};
use crate::decision::{Decisions, Question, ask_bool};
use crate::request::{CacheKind, FetchKind, Progress};
use crate::spec::vtd::fault::FaultReason;
use crate::spec::vtd::pasid::{
    FSPM_4, FSPM_5, PASID_DIRECTORY_BITS_MIN, PASID_DIRECTORY_ENTRY_BYTES, PASID_ENTRY_BYTES, PASID_TABLE_BITS, PGTT_FIRST, PGTT_NESTED,
    PGTT_PASS_THROUGH, PGTT_SECOND, PasidDirectoryEntry, PasidEntryFirstStage, PasidEntryLow, SCALABLE_CONTEXT_ENTRIES,
    SCALABLE_CONTEXT_ENTRY_BYTES, ScalableContextEntry,
};
use crate::spec::vtd::root::ScalableRootEntry;

/// The scalable-mode reason for what legacy mode and scalable mode check alike.
pub(crate) const fn scalable_reason(reason: FaultReason) -> FaultReason {
    match reason {
        FaultReason::ROOT_FETCH => FaultReason::SCALABLE_ROOT_FETCH,
        FaultReason::ROOT_NOT_PRESENT => FaultReason::SCALABLE_ROOT_NOT_PRESENT,
        FaultReason::ROOT_RESERVED => FaultReason::SCALABLE_ROOT_RESERVED,
        FaultReason::CONTEXT_FETCH => FaultReason::SCALABLE_CONTEXT_FETCH,
        FaultReason::CONTEXT_NOT_PRESENT => FaultReason::SCALABLE_CONTEXT_NOT_PRESENT,
        FaultReason::CONTEXT_RESERVED => FaultReason::SCALABLE_CONTEXT_RESERVED,
        FaultReason::BEYOND_WIDTH => FaultReason::BEYOND_SECOND_WIDTH,
        FaultReason::NO_WRITE => FaultReason::SCALABLE_NO_WRITE,
        FaultReason::NO_READ => FaultReason::SCALABLE_NO_READ,
        FaultReason::TABLE_FETCH => FaultReason::SECOND_FETCH,
        FaultReason::TABLE_RESERVED => FaultReason::SECOND_RESERVED,
        FaultReason::INTERRUPT_RANGE => FaultReason::SCALABLE_INTERRUPT_RANGE,
        other => other,
    }
}

impl Unit {
    /// The next step of a walk in a stage that legacy mode does not have.
    #[cold]
    pub(crate) fn step_scalable(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        match self.walks.at(slot).stage {
            Stage::Pasid => self.look_up_pasid(slot, d),
            Stage::FirstIotlb => self.look_up_first_iotlb(slot, 0, d),
            Stage::FirstPsc => self.look_up_first_psc(slot, d),
            Stage::FirstTable | Stage::FirstUpdate => self.fetch_first(slot, d),
            _ => self.fetch_directory(slot),
        }
    }

    /// An answer that legacy mode does not ask for.
    #[cold]
    pub(crate) fn consume_scalable(&mut self, slot: usize, words: &[u64; 8], d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let (pa, kind, low) = (walk.pending_pa, walk.kind(), words[0]);
        let chains = &mut self.caches.words;
        match walk.stage {
            Stage::Context => {
                walk.words = chains.push_wide(walk.words, pa, [low, words[1]], kind);
                self.consume_scalable_context(slot, words, d)
            }
            Stage::Directory => {
                walk.words = chains.push(walk.words, pa, low, kind);
                self.consume_directory(slot, low, d)
            }
            Stage::PasidEntry => {
                // Only these three words say anything; the others are reserved.
                walk.words = chains.push_wide(walk.words, pa, [low, words[1]], kind);
                walk.words = chains.push(walk.words, pa.offset(16), words[2], kind);
                self.consume_pasid(slot, words, d)
            }
            Stage::FirstTable => {
                walk.words = chains.push(walk.words, pa, low, kind);
                self.consume_first(slot, low, d)
            }
            _ => self.consume_update(slot, low, d),
        }
    }

    /// Step 5, the answer.
    pub(crate) fn consume_scalable_root(&mut self, slot: usize, word: u128, d: &mut dyn Decisions) -> Progress {
        let entry = ScalableRootEntry::from_bits(word);
        let devfn = self.walks.at(slot).request.source.devfn();
        let upper = devfn >= SCALABLE_CONTEXT_ENTRIES;
        let (present, table, reserved) = if upper {
            (entry.upper_present(), Pfn(entry.upper()).pa(), entry.reserved_65())
        } else {
            (entry.lower_present(), Pfn(entry.lower()).pa(), entry.reserved_1())
        };
        if !present {
            return self.refuse_context(slot, FaultReason::ROOT_NOT_PRESENT, d);
        }
        if reserved != 0 || !self.cap.frame_fits(table) {
            return self.refuse_context(slot, FaultReason::ROOT_RESERVED, d);
        }
        self.walks.at(slot).stage = Stage::Context;
        let index = u64::from(devfn % SCALABLE_CONTEXT_ENTRIES);
        let pa = table.offset(index * SCALABLE_CONTEXT_ENTRY_BYTES);
        self.fetch_wide(slot, pa, FetchKind::ScalableContext, self.params.timing.context_fetch, d)
    }

    /// Step 6, the answer; then steps 7 and 8.
    fn consume_scalable_context(&mut self, slot: usize, words: &[u64; 8], d: &mut dyn Decisions) -> Progress {
        let entry = ScalableContextEntry::from_bits(u128::from(words[0]) | (u128::from(words[1]) << 64));
        self.walks.at(slot).fault_disable = entry.fault_disable();
        if !entry.present() {
            return self.refuse_context(slot, FaultReason::CONTEXT_NOT_PRESENT, d);
        }
        let directory = Pfn(entry.directory()).pa();
        let reserved = entry.reserved_5() != 0 || entry.reserved_85() != 0 || words[2] != 0 || words[3] != 0;
        if reserved || !self.cap.frame_fits(directory) {
            return self.refuse_context(slot, FaultReason::CONTEXT_RESERVED, d);
        }
        let scalable = self.cap.scalable.unwrap_or_default();
        let target = ContextTarget::Scalable {
            directory,
            pasid_bits: entry.directory_size() + (PASID_DIRECTORY_BITS_MIN + PASID_TABLE_BITS) as u8,
            rid_pasid: Pasid(if scalable.rid_pasid { entry.rid_pasid() } else { 0 }),
            rid_privileged: scalable.rid_privileged && entry.rid_privileged(),
            pasid_enabled: scalable.pasid && entry.pasid_enable(),
        };
        let walk = self.walks.at(slot);
        walk.device_tlb = self.cap.device_tlb && entry.device_tlb();
        walk.page_requests = self.cap.page_requests && entry.page_requests();
        self.install_context(slot, DomainId(0), target, d);
        let walk = self.walks.at(slot);
        (walk.has_context, walk.target) = (true, target);
        if walk.attributes.kind != RequestKind::Untranslated
            && let Some(end) = self.admit(slot, 0, d)
        {
            return end;
        }
        self.look_up_pasid(slot, d)
    }

    /// Steps 7 and 8.
    fn look_up_pasid(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let ContextTarget::Scalable { pasid_bits, rid_pasid, rid_privileged, pasid_enabled, .. } = walk.target else {
            return self.fault(slot, FaultReason::PASID_DISABLED, 0, d);
        };
        let (pasid, privileged) = match walk.request.pasid {
            Some(_) if !pasid_enabled => return self.fault(slot, FaultReason::PASID_DISABLED, 0, d),
            Some(pasid) => (pasid, walk.attributes.privileged),
            None => (rid_pasid, rid_privileged),
        };
        let bits = pasid_bits.min(self.cap.scalable.unwrap_or_default().pasid_bits);
        if pasid.0 >> bits != 0 {
            return self.fault(slot, FaultReason::PASID_BEYOND_DIRECTORY, 0, d);
        }
        (walk.scalable.pasid, walk.scalable.privileged) = (pasid, privileged);
        let cost = walk.spend(self.params.timing.pasid_lookup);
        let Some(entry) = self.caches.pasid.lookup(walk.request.source, pasid) else {
            walk.stage = Stage::Directory;
            return Progress::Lookup { cache: CacheKind::Pasid, hit: false, cost };
        };
        let entry = *entry;
        walk.fault_disable |= entry.fault_disable;
        let words = &mut self.caches.words;
        words.hold(entry.provenance);
        words.release(core::mem::replace(&mut walk.words, entry.provenance));
        if let Some(reason) = entry.target.fault {
            return self.fault(slot, reason, cost, d);
        }
        match self.adopt_pasid(slot, entry.domain, entry.target) {
            Ok(()) => Progress::Lookup { cache: CacheKind::Pasid, hit: true, cost },
            Err(reason) => self.fault(slot, reason, cost, d),
        }
    }

    /// Step 9, the request.
    fn fetch_directory(&mut self, slot: usize) -> Progress {
        let walk = self.walks.at(slot);
        walk.stage = Stage::Directory;
        let directory = match walk.target {
            ContextTarget::Scalable { directory, .. } => directory,
            _ => Pa(0),
        };
        let index = u64::from(walk.scalable.pasid.0 >> PASID_TABLE_BITS);
        let pa = directory.offset(index * PASID_DIRECTORY_ENTRY_BYTES);
        self.fetch(slot, pa, FetchKind::PasidDirectory, self.params.timing.directory_fetch)
    }

    /// Step 9, the answer; then the request of step 10.
    fn consume_directory(&mut self, slot: usize, word: u64, d: &mut dyn Decisions) -> Progress {
        let entry = PasidDirectoryEntry::from_bits(word);
        let table = Pfn(entry.table()).pa();
        let walk = self.walks.at(slot);
        walk.fault_disable |= entry.fault_disable();
        if !entry.present() {
            return self.refuse_pasid(slot, FaultReason::DIRECTORY_NOT_PRESENT, d);
        }
        if entry.reserved() != 0 || !self.cap.frame_fits(table) {
            return self.refuse_pasid(slot, FaultReason::DIRECTORY_RESERVED, d);
        }
        walk.stage = Stage::PasidEntry;
        let index = u64::from(walk.scalable.pasid.0 % (1 << PASID_TABLE_BITS));
        let pa = table.offset(index * PASID_ENTRY_BYTES);
        self.fetch_wide(slot, pa, FetchKind::PasidEntry, self.params.timing.pasid_fetch, d)
    }

    /// Step 10, the answer; then step 11 and the first step of the inner half.
    fn consume_pasid(&mut self, slot: usize, words: &[u64; 8], d: &mut dyn Decisions) -> Progress {
        let low = PasidEntryLow::from_bits(u128::from(words[0]) | (u128::from(words[1]) << 64));
        self.walks.at(slot).fault_disable |= low.fault_disable();
        let target = match self.decode_pasid(low, words) {
            Ok(target) => target,
            Err(reason) => return self.refuse_pasid(slot, reason, d),
        };
        let domain = DomainId(low.domain());
        self.install_pasid(slot, domain, target, d);
        match self.adopt_pasid(slot, domain, target) {
            Err(reason) => self.fault(slot, reason, 0, d),
            Ok(()) if self.walks.at(slot).stage == Stage::Iotlb => self.look_up_iotlb_next(slot, 0, d),
            Ok(()) => self.look_up_first_iotlb(slot, 0, d),
        }
    }

    /// The checks of step 10.
    fn decode_pasid(&self, low: PasidEntryLow, words: &[u64; 8]) -> Result<PasidTarget, FaultReason> {
        if !low.present() {
            return Err(FaultReason::PASID_NOT_PRESENT);
        }
        let first = PasidEntryFirstStage::from_bits(words[2]);
        let (second_root, first_root) = (Pfn(low.second_stage()).pa(), Pfn(first.first_stage()).pa());
        if low.reserved_10() != 0 || low.reserved_80() != 0 || first.reserved_136() != 0 || words[3..].iter().any(|word| *word != 0) {
            return Err(FaultReason::PASID_RESERVED);
        }
        let scalable = self.cap.scalable.unwrap_or_default();
        let stages = match low.translation_type() {
            PGTT_FIRST if scalable.first_stage => Stages::First,
            PGTT_SECOND if scalable.second_stage => Stages::Second,
            PGTT_NESTED if scalable.nested => Stages::Nested,
            PGTT_PASS_THROUGH if self.cap.pass_through => Stages::PassThrough,
            _ => return Err(FaultReason::PASID_INVALID),
        };
        let (uses_first, uses_second) = match stages {
            Stages::First => (true, false),
            Stages::Second => (false, true),
            Stages::Nested => (true, true),
            Stages::PassThrough => (false, false),
        };
        let second_beyond = uses_second && !self.cap.frame_fits(second_root);
        // A nested first-stage pointer is an address of the second stage, which has its own check.
        let first_beyond = uses_first && !uses_second && !self.cap.frame_fits(first_root);
        if second_beyond || first_beyond || !self.cap.domain_fits(low.domain()) {
            return Err(FaultReason::PASID_RESERVED);
        }
        let second_levels = if uses_second { self.cap.levels(low.address_width()).ok_or(FaultReason::PASID_INVALID)? } else { 4 };
        let first_levels = match first.paging_mode() {
            _ if !uses_first => 4,
            FSPM_4 => 4,
            FSPM_5 if scalable.first_stage_5 => 5,
            _ => return Err(FaultReason::PASID_INVALID),
        };
        Ok(PasidTarget {
            stages,
            first_root,
            first_levels,
            second_root,
            second_levels,
            second_update: uses_second && low.second_stage_accessed_dirty() && scalable.second_stage_accessed_dirty,
            snoop: scalable.walk_coherent && low.walk_snoop(),
            supervisor: scalable.supervisor_requests && first.supervisor_requests(),
            write_protect: first.write_protect(),
            execute: scalable.execute_requests && first.execute_requests(),
            no_execute: first.no_execute(),
            supervisor_no_execute: first.supervisor_no_execute(),
            extended_accessed: uses_first && scalable.extended_accessed && first.extended_accessed(),
            second_execute: uses_second && scalable.execute_requests && low.second_stage_execute(),
            fault: None,
        })
    }

    fn install_pasid(&mut self, slot: usize, domain: DomainId, target: PasidTarget, d: &mut dyn Decisions) {
        let walk = self.walks.at(slot);
        let entry = PasidEntryCached {
            source: walk.request.source,
            pasid: walk.scalable.pasid,
            domain,
            fault_disable: walk.fault_disable,
            target,
            provenance: walk.words,
        };
        self.caches.pasid.install(&entry, &mut self.caches.words, d);
    }

    /// Under caching mode a not-present or erroneous entry may be cached, in the special domain 0.
    fn refuse_pasid(&mut self, slot: usize, reason: FaultReason, d: &mut dyn Decisions) -> Progress {
        if self.cap.caching_mode && ask_bool(d, Question::CacheNotPresent) {
            self.install_pasid(slot, DomainId(0), PasidTarget { fault: Some(reason), ..PasidTarget::NOWHERE }, d);
        }
        self.fault(slot, reason, 0, d)
    }

    /// Step 11; then the walk goes by this entry.
    fn adopt_pasid(&mut self, slot: usize, domain: DomainId, target: PasidTarget) -> Result<(), FaultReason> {
        let walk = self.walks.at(slot);
        let has_first = matches!(target.stages, Stages::First | Stages::Nested);
        if walk.scalable.privileged && !target.supervisor && has_first {
            return Err(FaultReason::NO_SUPERVISOR);
        }
        if walk.need.executes() && !target.execute && has_first {
            return Err(FaultReason::NO_EXECUTE_REQUESTS);
        }
        walk.domain = domain;
        walk.second_update = target.second_update;
        walk.scalable = ScalableState { has_pasid: true, target, ..walk.scalable };
        walk.target = match target.stages {
            Stages::PassThrough => ContextTarget::PassThrough,
            _ => ContextTarget::Tables { root: target.second_root, levels: target.second_levels },
        };
        walk.stage = match target.stages {
            Stages::First | Stages::Nested => Stage::FirstIotlb,
            Stages::Second | Stages::PassThrough => Stage::Iotlb,
        };
        if target.stages == Stages::Nested {
            self.caches.words.hold(walk.words);
            walk.scalable.base_words = walk.words;
        }
        Ok(())
    }
}
