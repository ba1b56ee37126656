//! The inner half of a walk through a first stage, alone or on a second stage; and the updates of A and D in both.
//!
//! Steps, continuing those of `scalable_walk`:
//!
//! 12. The address must be canonical for the number of levels.
//! 13. IOTLB, by domain, PASID and page. An entry whose D is not set does not serve a write.
//! 14. Paging-structure caches, by domain, PASID and longest prefix.
//! 15. Paging entries, one fetch a level. Nested, where the entry lies is translated by the second stage first, which
//!     must let it be read; each of these translations goes through IOTLB and paging-structure caches of the domain
//!     by itself. Each entry: present, no reserved bits, U/S and R/W for the request. A privileged request is refused by
//!     R/W only with WPE, and never by U/S.
//! 16. A is set in each entry used, D in the leaf by a write, with an atomic compare-exchange. If the word has changed,
//!     what is found instead is taken as the entry; nothing that software cleared comes back. The walk gives up
//!     after [`TRIES_MAX`] changes in a row (assumption). Walks that do not snoop cannot set bits. Nested, the second
//!     stage must let the table be written, and under SSADE counts it as written to (assumption: as soon as it is read).
//! 17. Nested, the page itself goes through the second stage; what is cached is the smaller page of both.
//!
//! Execution is denied by XD with NXE, to privileged requests by a user page with SMEP, and by the second stage with
//! SSEE. With EAFE, EA is set as A is. Global pages are treated as others.

use super::need::Need;
use super::step::{Grant, in_interrupt_range};
use super::unit::Unit;
use super::walk::{FirstStage, Outstanding, Stage, Walk};
use crate::addr::{Iova, Pa, Pfn};
use crate::cache::iotlb::{IotlbEntry, page_shift, space_of};
use crate::cache::pasid::Stages;
use crate::cache::psc::PscEntry;
use crate::decision::{Decisions, Question, ask_bool};
use crate::provenance::ProvenanceId;
use crate::request::{CacheHit, CacheKind, FetchKind, Progress};
use crate::spec::vtd::fault::FaultReason;
use crate::spec::vtd::first_stage::{FirstStageEntry, SUPERPAGE_PAT};
use crate::spec::vtd::second_stage::{ENTRY_BYTES, TABLE_ENTRIES};

/// Updates that may find another word before the walk gives up.
pub(crate) const TRIES_MAX: u8 = 16;

impl Walk {
    /// Whether the only or second stage sets D in a leaf: on writes, and where the first stage may set A or D.
    #[inline]
    pub(crate) fn writes_through(&self, writable: bool) -> bool {
        self.need.writes(writable) || (writable && self.is_nested() && !self.scalable.first.done)
    }

    /// The reason for what the second stage refuses, by what it was asked for.
    pub(crate) fn nested_reason(&self, reason: FaultReason) -> FaultReason {
        let first = self.scalable.first;
        if !self.is_nested() || first.done || !matches!(reason, FaultReason::NO_READ | FaultReason::SECOND_NOT_PRESENT) {
            return reason;
        }
        match first.level == self.scalable.target.first_levels {
            true => FaultReason::FIRST_ROOT_DENIED,
            false => FaultReason::FIRST_TABLE_DENIED,
        }
    }

    /// Whether the first stage, as far as it was walked, lets the request pass.
    fn first_allows(&self, writable: bool, user: bool) -> Result<(), FaultReason> {
        let privileged = self.scalable.privileged;
        if !user && !privileged {
            return Err(FaultReason::NOT_USER);
        }
        if self.wanted().is_write() && !writable && (!privileged || self.scalable.target.write_protect) {
            return Err(FaultReason::NO_WRITE);
        }
        Ok(())
    }

    /// Whether the first stage, walked to its leaf, lets the request execute.
    fn first_executes(&self, executable: bool, user: bool) -> Result<(), FaultReason> {
        let kept_out = self.scalable.privileged && user && self.scalable.target.supervisor_no_execute;
        if self.wanted().executes() && (!executable || kept_out) { Err(FaultReason::NO_EXECUTE) } else { Ok(()) }
    }
}

impl Unit {
    /// Steps 12 and 13.
    pub(crate) fn look_up_first_iotlb(&mut self, slot: usize, spent: u32, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let (iova, need) = (walk.request.iova, walk.wanted());
        let target = walk.scalable.target;
        if !is_canonical(iova, target.first_levels) {
            return self.fault(slot, FaultReason::NOT_CANONICAL, spent, d);
        }
        let cost = spent.saturating_add(self.params.timing.iotlb_lookup);
        walk.scalable.first = FirstStage::at(target.first_root, target.first_levels);
        let miss = if self.caches.psc.is_off() { Stage::FirstTable } else { Stage::FirstPsc };
        let found = self.caches.iotlb.lookup(walk.domain, space_of(Some(walk.scalable.pasid)), iova, d);
        let Some(entry) = found.copied() else {
            walk.stage = miss;
            walk.spend(cost);
            return Progress::Lookup { cache: CacheKind::Iotlb, hit: false, cost };
        };
        if !need.served_by(&entry) {
            // A privileged request may be allowed what the entry denies to users.
            let clean = need.allowed_by(entry.readable, entry.writable) || walk.scalable.privileged;
            if !clean && !ask_bool(d, Question::RewalkDenied) {
                return self.fault(slot, entry.fault.unwrap_or(Self::denied(need)), cost, d);
            }
            walk.stage = Stage::FirstTable;
            walk.spend(cost);
            return Progress::Lookup { cache: CacheKind::Iotlb, hit: true, cost };
        }
        let words = &mut self.caches.words;
        words.hold(entry.provenance);
        words.release(core::mem::replace(&mut walk.words, entry.provenance));
        walk.from = CacheHit::Iotlb;
        let (readable, writable, page_bytes) = (entry.readable, entry.writable, entry.page_bytes);
        self.grant_aside(slot, Grant { pa: entry.translate(iova), readable, writable, page_bytes, pass_through: false }, cost)
    }

    /// Step 14.
    pub(crate) fn look_up_first_psc(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let cost = walk.spend(self.params.timing.psc_lookup);
        walk.stage = Stage::FirstTable;
        let top = walk.scalable.target.first_levels;
        let found = self.caches.psc.lookup(walk.domain, space_of(Some(walk.scalable.pasid)), walk.request.iova, top).copied();
        let mut hit = false;
        if let Some(entry) = found {
            let level = entry.level;
            if let Err(reason) = walk.first_allows(entry.writable, entry.user) {
                if !ask_bool(d, Question::RewalkDenied) {
                    return self.fault(slot, reason, cost, d);
                }
            } else if !ask_bool(d, Question::UsePsc { level }) {
                let first = &mut walk.scalable.first;
                (first.table, first.level) = (entry.table, level - 1);
                (first.writable, first.user, first.executable) = (entry.writable, entry.user, entry.executable);
                first.from = CacheHit::Psc(level);
                let words = &mut self.caches.words;
                words.hold(entry.provenance);
                words.release(core::mem::replace(&mut walk.words, entry.provenance));
                hit = true;
            }
        }
        Progress::Lookup { cache: CacheKind::Psc, hit, cost }
    }

    /// Step 15, the request: where the entry lies, or the look-up that begins to find it out.
    pub(crate) fn fetch_first(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let level = walk.scalable.first.level;
        let index = (walk.request.iova.0 >> page_shift(level)) % TABLE_ENTRIES;
        let pa = walk.scalable.first.table.offset(index * ENTRY_BYTES);
        if walk.scalable.target.stages == Stages::Nested {
            return self.begin_second_stage(slot, Iova(pa.0), Need::READ, d);
        }
        walk.stage = Stage::FirstTable;
        self.fetch(slot, pa, FetchKind::FirstStage { level }, self.params.timing.table_fetch)
    }

    /// Sends an address of the nested walk through the second stage.
    fn begin_second_stage(&mut self, slot: usize, input: Iova, need: Need, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        (walk.input, walk.need) = (input, need);
        self.caches.words.hold(walk.scalable.base_words);
        walk.scalable.outer_words = core::mem::replace(&mut walk.words, walk.scalable.base_words);
        walk.stage = Stage::Iotlb;
        self.look_up_iotlb_next(slot, 0, d)
    }

    /// The IOTLB answered the second stage of a nested walk.
    #[cold]
    pub(crate) fn second_stage_hit(&mut self, slot: usize, entry: &IotlbEntry, cost: u32, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let words = &mut self.caches.words;
        words.hold(entry.provenance);
        words.release(core::mem::replace(&mut walk.words, entry.provenance));
        self.second_stage_done(slot, entry, cost, d)
    }

    /// The second stage of a nested walk has translated what it was asked for. `cost` is still to be spent.
    #[cold]
    pub(crate) fn second_stage_done(&mut self, slot: usize, entry: &IotlbEntry, cost: u32, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let words = &mut self.caches.words;
        let inner = core::mem::replace(&mut walk.words, core::mem::replace(&mut walk.scalable.outer_words, ProvenanceId::NONE));
        walk.words = words.append_tables(walk.words, inner);
        words.release(inner);
        let pa = entry.translate(walk.input);
        let first = &mut walk.scalable.first;
        if first.done {
            return self.finish_nested(slot, entry, pa, cost, d);
        }
        first.table_writable = entry.writable;
        let level = first.level;
        walk.stage = Stage::FirstTable;
        walk.spend(cost);
        let mut progress = self.fetch(slot, pa, FetchKind::FirstStage { level }, self.params.timing.table_fetch);
        if let Progress::Fetch { cost: total, .. } = &mut progress {
            *total = total.saturating_add(cost);
        }
        progress
    }

    /// Step 17.
    fn finish_nested(&mut self, slot: usize, second: &IotlbEntry, pa: Pa, cost: u32, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let first = walk.scalable.first;
        let page_bytes = second.page_bytes.min(1 << first.shift);
        let iova = walk.request.iova;
        let entry = IotlbEntry {
            domain: walk.domain,
            pasid: walk.tag_pasid(),
            page: Iova(iova.0 & !(page_bytes - 1)),
            page_bytes,
            frame: Pa(pa.0 & !(page_bytes - 1)),
            readable: second.readable,
            writable: second.writable && first.writable,
            dirty: second.dirty && first.dirty,
            executable: second.executable && first.executable,
            fault: None,
            provenance: walk.words,
        };
        walk.from = first.from;
        self.install_first(slot, entry, pa, cost, d)
    }

    /// The reason for a first-stage fetch where there is no memory.
    pub(crate) fn first_fetch_reason(&mut self, slot: usize) -> FaultReason {
        let scalable = &self.walks.at(slot).scalable;
        if scalable.first.level == scalable.target.first_levels { FaultReason::FIRST_ROOT_FETCH } else { FaultReason::FIRST_FETCH }
    }

    /// Step 15, the answer; then step 16, the next request, or the end.
    pub(crate) fn consume_first(&mut self, slot: usize, word: u64, d: &mut dyn Decisions) -> Progress {
        let entry = FirstStageEntry::from_bits(word);
        let walk = self.walks.at(slot);
        let first = walk.scalable.first;
        let level = first.level;
        if !entry.present() {
            return self.fault(slot, FaultReason::FIRST_NOT_PRESENT, 0, d);
        }
        let leaf = level == 1 || entry.page_size();
        if self.first_has_reserved_bits(slot, entry, level, leaf) {
            return self.fault(slot, FaultReason::FIRST_RESERVED, 0, d);
        }
        let walk = self.walks.at(slot);
        let (writable, user) = (first.writable && entry.write(), first.user && entry.user());
        if let Err(reason) = walk.first_allows(writable, user) {
            return self.fault(slot, reason, 0, d);
        }
        let executable = first.executable && !(walk.scalable.target.no_execute && entry.execute_disable());
        if leaf && let Err(reason) = walk.first_executes(executable, user) {
            return self.fault(slot, reason, 0, d);
        }
        let wanted = walk.wanted();
        let writes = leaf && (wanted.is_write() || wanted.writes(writable));
        let extended = walk.scalable.target.extended_accessed;
        if !entry.accessed() || (writes && !entry.dirty()) || (extended && !entry.extended_accessed()) {
            let new = entry.with_accessed(true).with_dirty(entry.dirty() || writes);
            let new = new.with_extended_accessed(entry.extended_accessed() || extended);
            return self.update_first(slot, word, new.into_bits(), d);
        }
        let frame = Pa(Pfn(entry.frame()).pa().0 & !((1 << page_shift(level)) - 1));
        walk.scalable.tries = 0;
        let first = &mut walk.scalable.first;
        (first.writable, first.user, first.executable) = (writable, user, executable);
        if leaf {
            walk.scalable.first.dirty = entry.dirty();
            return self.finish_first(slot, frame, level, d);
        }
        let table = Pfn(entry.frame()).pa();
        (walk.scalable.first.table, walk.scalable.first.level) = (table, level - 1);
        self.install_first_psc(slot, table, level, d);
        self.fetch_first(slot, d)
    }

    fn first_has_reserved_bits(&mut self, slot: usize, entry: FirstStageEntry, level: u8, leaf: bool) -> bool {
        let nested = self.walks.at(slot).is_nested();
        let pages = if leaf && level > 1 { entry.frame() & !SUPERPAGE_PAT } else { entry.frame() };
        let frame = Pfn(pages).pa();
        let large = match level {
            2 => true,
            3 => self.cap.scalable.is_some_and(|scalable| scalable.first_stage_1g),
            _ => level == 1,
        };
        // Nested, the address is one of the second stage, which has its own check.
        (!nested && !self.cap.frame_fits(frame)) || (leaf && !large) || (leaf && !frame.is_aligned(1 << page_shift(level)))
    }

    #[inline(never)]
    fn install_first_psc(&mut self, slot: usize, table: Pa, level: u8, d: &mut dyn Decisions) {
        if !self.caches.psc.holds(level) {
            return;
        }
        let walk = self.walks.at(slot);
        let span_bytes = 1 << page_shift(level);
        let entry = PscEntry {
            domain: walk.domain,
            pasid: walk.tag_pasid(),
            level,
            first: Iova(walk.request.iova.0 & !(span_bytes - 1)),
            span_bytes,
            table,
            readable: true,
            writable: walk.scalable.first.writable,
            user: walk.scalable.first.user,
            executable: walk.scalable.first.executable,
            provenance: walk.words,
        };
        self.caches.psc.install(&entry, &mut self.caches.words, d);
    }

    /// The leaf is known: the page is there, or the second stage is asked for it.
    fn finish_first(&mut self, slot: usize, frame: Pa, level: u8, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let page_bytes = 1 << page_shift(level);
        let (iova, wanted) = (walk.request.iova, walk.wanted());
        let pa = Pa(frame.0 | (iova.0 & (page_bytes - 1)));
        (walk.scalable.first.done, walk.scalable.first.shift) = (true, page_shift(level) as u8);
        if walk.is_nested() {
            let need = wanted.unless_writable(walk.scalable.first.writable);
            return self.begin_second_stage(slot, Iova(pa.0), need, d);
        }
        let entry = IotlbEntry {
            domain: walk.domain,
            pasid: walk.tag_pasid(),
            page: Iova(iova.0 & !(page_bytes - 1)),
            page_bytes,
            frame,
            readable: true,
            writable: walk.scalable.first.writable,
            dirty: walk.scalable.first.dirty,
            executable: walk.scalable.first.executable,
            fault: None,
            provenance: walk.words,
        };
        walk.from = walk.scalable.first.from;
        self.install_first(slot, entry, pa, 0, d)
    }

    #[inline(never)]
    fn install_first(&mut self, slot: usize, entry: IotlbEntry, pa: Pa, cost: u32, d: &mut dyn Decisions) -> Progress {
        if in_interrupt_range(pa.0) {
            return self.fault(slot, FaultReason::INTERRUPT_RANGE, cost, d);
        }
        // What a privileged request got past R/W or U/S must not serve a user.
        if !self.walks.at(slot).scalable.privileged {
            self.caches.iotlb.install(&entry, &mut self.caches.words, d);
        }
        let (readable, writable, page_bytes) = (entry.readable, entry.writable, entry.page_bytes);
        self.grant_aside(slot, Grant { pa, readable, writable, page_bytes, pass_through: false }, cost)
    }

    /// Step 16 in the first stage, the request.
    fn update_first(&mut self, slot: usize, old: u64, new: u64, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        if !walk.scalable.target.snoop {
            return self.fault(slot, FaultReason::FIRST_UPDATE_NO_SNOOP, 0, d);
        }
        if !walk.scalable.first.table_writable {
            return self.fault(slot, FaultReason::FIRST_UPDATE_DENIED, 0, d);
        }
        walk.stage = Stage::FirstUpdate;
        self.ask_update(slot, [old, new])
    }

    /// Step 16 in the second stage, the request.
    #[cold]
    pub(crate) fn update_table(&mut self, slot: usize, old: u64, new: u64, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        if !walk.scalable.target.snoop {
            return self.fault(slot, FaultReason::SECOND_UPDATE_NO_SNOOP, 0, d);
        }
        walk.stage = Stage::TableUpdate;
        self.ask_update(slot, [old, new])
    }

    fn ask_update(&mut self, slot: usize, update: [u64; 2]) -> Progress {
        let cost = self.params.timing.table_update;
        let walk = self.walks.at(slot);
        walk.outstanding = Outstanding::Wanted;
        walk.scalable.update = update;
        walk.spend(cost);
        let [old, new] = update;
        Progress::Update { pa: walk.pending_pa, old, new, kind: walk.kind(), cost }
    }

    /// Step 16, the answer: the entry is what was stored, or what was found instead.
    pub(crate) fn consume_update(&mut self, slot: usize, found: u64, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let [old, new] = walk.scalable.update;
        let of_first = walk.stage == Stage::FirstUpdate;
        let word = if found == old { new } else { found };
        walk.scalable.tries = if found == old { 0 } else { walk.scalable.tries + 1 };
        if walk.scalable.tries > TRIES_MAX {
            let reason = if of_first { FaultReason::FIRST_UPDATE_FAILED } else { FaultReason::TABLE_FETCH };
            return self.fault(slot, reason, 0, d);
        }
        self.caches.words.amend(walk.words, word);
        if of_first {
            walk.stage = Stage::FirstTable;
            return self.consume_first(slot, word, d);
        }
        walk.stage = Stage::Table;
        let level = walk.level;
        self.consume_table(slot, word, level, d)
    }
}

/// Whether all bits above those that the levels decode are copies of the highest of them.
const fn is_canonical(iova: Iova, levels: u8) -> bool {
    let unused = u64::BITS - page_shift(levels + 1);
    ((iova.0 << unused) as i64 >> unused) as u64 == iova.0
}
