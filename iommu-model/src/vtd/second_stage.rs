//! The inner half of a walk: from a context entry through the second-stage tables to a page.
//!
//! Steps, continuing those of `context_walk`:
//!
//! 7. The address must lie within MGAW and within the width of the context entry.
//! 8. Pass-through ends here.
//! 9. IOTLB, by domain and page.
//! 10. Paging-structure caches, by domain and longest prefix.
//! 11. Paging entries, one fetch a level. Each: permission for the access (an entry without R and W is not
//!     present), no reserved bits, leaf or pointer. Permissions are the AND of all levels. Whether the manual has
//!     the permission or the reserved bits checked first is open; the order here is the one QEMU has.
//! 12. The output must not lie in the interrupt range.

use super::capability::Capabilities;
use super::step::{Grant, in_interrupt_range};
use super::unit::Unit;
use super::walk::{Stage, Walk};
use crate::addr::{Iova, PAGE_SIZE, Pa, Pfn};
use crate::cache::context::ContextTarget;
use crate::cache::iotlb::{IotlbEntry, page_shift};
use crate::cache::psc::PscEntry;
use crate::decision::{Decisions, Question, ask_bool};
use crate::request::{CacheHit, CacheKind, FetchKind, Progress};
use crate::spec::vtd::fault::FaultReason;
use crate::spec::vtd::second_stage::{ENTRY_BYTES, SecondStageEntry, TABLE_ENTRIES};

impl Unit {
    /// Steps 7 to 9.
    #[inline(always)]
    pub(crate) fn look_up_iotlb(&mut self, slot: usize, spent: u32, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let (iova, need) = (walk.input, walk.need);
        // Steps 7 and 8.
        let ContextTarget::Tables { root, levels } = walk.target else { return self.pass_through(slot, spent, d) };
        if beyond_width(iova, self.cap.guest_width.min(page_shift(levels + 1) as u8)) {
            return self.refuse_width(slot, spent, d);
        }
        // Step 9.
        let cost = spent.saturating_add(self.params.timing.iotlb_lookup);
        let Some(entry) = self.caches.iotlb.lookup(walk.domain, 0, iova, d) else {
            walk.stage = if self.caches.psc.is_off() { Stage::Table } else { Stage::Psc };
            (walk.table, walk.level, walk.top) = (root, levels, levels);
            (walk.readable, walk.writable, walk.executable) = (true, true, true);
            walk.spend(cost);
            return Progress::Lookup { cache: CacheKind::Iotlb, hit: false, cost };
        };
        if !need.served_by(entry) {
            let reason = entry.fault.unwrap_or(Self::denied(need));
            let clean = need.allowed_by(entry.readable, entry.writable) && (entry.executable || !need.executes());
            return self.refuse_cached(slot, (!clean).then_some(reason), cost, d);
        }
        let pa = entry.translate(iova);
        if walk.is_nested() {
            let entry = *entry;
            return self.second_stage_hit(slot, &entry, cost, d);
        }
        if in_interrupt_range(pa.0) {
            return self.fault(slot, FaultReason::INTERRUPT_RANGE, cost, d);
        }
        let grant = Grant { pa, readable: entry.readable, writable: entry.writable, page_bytes: entry.page_bytes, pass_through: false };
        let words = entry.provenance;
        self.grant_cached(slot, grant, words, cost)
    }

    /// The same, as the end of another step.
    pub(crate) fn look_up_iotlb_next(&mut self, slot: usize, spent: u32, d: &mut dyn Decisions) -> Progress {
        self.look_up_iotlb(slot, spent, d)
    }

    /// A cached page denies the access, or (without a reason) its D has to be set first.
    #[cold]
    fn refuse_cached(&mut self, slot: usize, reason: Option<FaultReason>, cost: u32, d: &mut dyn Decisions) -> Progress {
        if let Some(reason) = reason
            && !ask_bool(d, Question::RewalkDenied)
        {
            return self.refuse_access(slot, reason, cost, d);
        }
        let walk = self.walks.at(slot);
        if let ContextTarget::Tables { root, levels } = walk.target {
            (walk.table, walk.level, walk.top) = (root, levels, levels);
        }
        (walk.readable, walk.writable, walk.executable) = (true, true, true);
        walk.stage = Stage::Table;
        walk.spend(cost);
        Progress::Lookup { cache: CacheKind::Iotlb, hit: true, cost }
    }

    /// Step 8.
    #[cold]
    fn pass_through(&mut self, slot: usize, spent: u32, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        if let ContextTarget::Fault(reason) = walk.target {
            return self.fault(slot, reason, spent, d);
        }
        let iova = walk.request.iova;
        if walk.is_scalable && beyond_width(iova, self.cap.host_width) {
            return self.fault(slot, FaultReason::BEYOND_DMA_WIDTH, spent, d);
        }
        if beyond_width(iova, self.cap.guest_width) {
            return self.fault(slot, FaultReason::BEYOND_WIDTH, spent, d);
        }
        if in_interrupt_range(iova.0) {
            return self.fault(slot, FaultReason::INTERRUPT_RANGE, spent, d);
        }
        let grant = Grant { pa: Pa(iova.0), readable: true, writable: true, page_bytes: PAGE_SIZE, pass_through: true };
        self.grant_aside(slot, grant, spent)
    }

    /// Step 10.
    pub(crate) fn look_up_psc(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let cost = self.params.timing.psc_lookup;
        walk.stage = Stage::Table;
        let mut hit = false;
        if let Some(entry) = self.caches.psc.lookup(walk.domain, 0, walk.input, walk.top) {
            let level = entry.level;
            if !walk.need.allowed_by(entry.readable, entry.writable) {
                if !ask_bool(d, Question::RewalkDenied) {
                    let reason = Self::denied(walk.need);
                    return self.refuse_access(slot, reason, cost, d);
                }
            } else if !ask_bool(d, Question::UsePsc { level }) {
                (walk.table, walk.level) = (entry.table, level - 1);
                (walk.readable, walk.writable, walk.executable) = (entry.readable, entry.writable, entry.executable);
                let words = &mut self.caches.words;
                words.hold(entry.provenance);
                words.release(core::mem::replace(&mut walk.words, entry.provenance));
                walk.from = CacheHit::Psc(level);
                hit = true;
            }
        }
        walk.spend(cost);
        Progress::Lookup { cache: CacheKind::Psc, hit, cost }
    }

    /// Step 11, the request.
    #[inline]
    pub(crate) fn fetch_table(&mut self, slot: usize) -> Progress {
        let walk = self.walks.at(slot);
        walk.stage = Stage::Table;
        let (table, level, input) = (walk.table, walk.level, walk.input);
        self.fetch_entry(slot, table, level, input)
    }

    #[inline(always)]
    fn fetch_entry(&mut self, slot: usize, table: Pa, level: u8, input: Iova) -> Progress {
        let index = (input.0 >> page_shift(level)) % TABLE_ENTRIES;
        self.fetch(slot, table.offset(index * ENTRY_BYTES), FetchKind::Table { level }, self.params.timing.table_fetch)
    }

    /// Step 11, the answer; then the next request, or step 12.
    #[inline]
    pub(crate) fn consume_table(&mut self, slot: usize, word: u64, level: u8, d: &mut dyn Decisions) -> Progress {
        let entry = SecondStageEntry::from_bits(word);
        let walk = self.walks.at(slot);
        let need = walk.need;
        if !entry.read() && !entry.write() && !walk.may_execute_only(entry) {
            let reason = if walk.is_scalable { FaultReason::SECOND_NOT_PRESENT } else { Self::denied(need) };
            return self.refuse_page(slot, reason, None, d);
        }
        let (readable, writable) = (walk.readable && entry.read(), walk.writable && entry.write());
        if !need.allowed_by(readable, writable) {
            return self.refuse_access(slot, Self::denied(need), 0, d);
        }
        let leaf = level == 1 || entry.page_size();
        if word & self.reserved.of(level, leaf) != 0 {
            return self.refuse_page(slot, FaultReason::TABLE_RESERVED, Some(FaultReason::TABLE_RESERVED), d);
        }
        let walk = self.walks.at(slot);
        let writes = leaf && walk.writes_through(writable);
        if walk.second_update && (!entry.accessed() || (writes && !entry.dirty())) {
            let new = entry.with_accessed(true).with_dirty(entry.dirty() || writes);
            return self.update_table(slot, word, new.into_bits(), d);
        }
        (walk.readable, walk.writable) = (readable, writable);
        if walk.is_scalable {
            walk.executable &= entry.execute() || !walk.scalable.target.second_execute;
        }
        let frame = Pfn(entry.frame()).pa();
        if leaf {
            let dirty = !walk.second_update || entry.dirty();
            return self.install_and_grant(slot, frame, level, dirty, d);
        }
        if self.caches.psc.holds(level) {
            self.install_psc(slot, frame, level, d);
        }
        let walk = self.walks.at(slot);
        (walk.stage, walk.table, walk.level) = (Stage::Table, frame, level - 1);
        let input = walk.input;
        self.fetch_entry(slot, frame, level - 1, input)
    }

    /// Apart from the step, so that the entry goes from registers to where it stays.
    #[inline(never)]
    fn install_psc(&mut self, slot: usize, table: Pa, level: u8, d: &mut dyn Decisions) {
        let walk = self.walks.at(slot);
        let span_bytes = 1 << page_shift(level);
        let entry = PscEntry {
            domain: walk.domain,
            pasid: None,
            level,
            first: Iova(walk.input.0 & !(span_bytes - 1)),
            span_bytes,
            table,
            readable: walk.readable,
            writable: walk.writable,
            user: true,
            executable: walk.executable,
            provenance: walk.words,
        };
        self.caches.psc.install(&entry, &mut self.caches.words, d);
    }

    /// Step 12. A translation that faults here is not cached.
    #[inline]
    fn install_and_grant(&mut self, slot: usize, frame: Pa, level: u8, dirty: bool, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let page_bytes = 1 << page_shift(level);
        let iova = walk.input;
        let entry = IotlbEntry {
            domain: walk.domain,
            pasid: None,
            dirty,
            executable: walk.executable,
            page: Iova(iova.0 & !(page_bytes - 1)),
            page_bytes,
            frame,
            readable: walk.readable,
            writable: walk.writable,
            fault: None,
            provenance: walk.words,
        };
        let pa = entry.translate(iova);
        if in_interrupt_range(pa.0) {
            return self.fault(slot, FaultReason::INTERRUPT_RANGE, 0, d);
        }
        if walk.is_nested() {
            self.caches.iotlb.install(&entry, &mut self.caches.words, d);
            return self.second_stage_done(slot, &entry, 0, d);
        }
        self.caches.iotlb.install(&entry, &mut self.caches.words, d);
        if self.walks.at(slot).need.executes() && !entry.executable {
            return self.refuse_access(slot, FaultReason::NO_READ, 0, d);
        }
        let grant = Grant { pa, readable: entry.readable, writable: entry.writable, page_bytes, pass_through: false };
        self.grant(slot, grant, 0)
    }

    /// A paging entry is not present or erroneous. Under caching mode that may be cached, as a 4 KiB page.
    #[cold]
    fn refuse_page(&mut self, slot: usize, reason: FaultReason, cached: Option<FaultReason>, d: &mut dyn Decisions) -> Progress {
        if self.cap.caching_mode && ask_bool(d, Question::CacheNotPresent) {
            let walk = self.walks.at(slot);
            let entry = IotlbEntry {
                domain: walk.domain,
                pasid: None,
                dirty: false,
                executable: false,
                page: walk.input.page(),
                page_bytes: PAGE_SIZE,
                frame: Pa(0),
                readable: false,
                writable: false,
                fault: cached,
                provenance: walk.words,
            };
            self.caches.iotlb.install(&entry, &mut self.caches.words, d);
        }
        self.refuse_access(slot, reason, 0, d)
    }

    /// The only or second stage refuses what it was asked for.
    #[cold]
    fn refuse_access(&mut self, slot: usize, reason: FaultReason, spent: u32, d: &mut dyn Decisions) -> Progress {
        let reason = self.walks.at(slot).nested_reason(reason);
        self.fault(slot, reason, spent, d)
    }

    #[cold]
    fn refuse_width(&mut self, slot: usize, spent: u32, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let of_table = walk.is_nested() && !walk.scalable.first.done;
        let reason = if of_table { FaultReason::FIRST_TABLE_BEYOND_WIDTH } else { FaultReason::BEYOND_WIDTH };
        self.fault(slot, reason, spent, d)
    }
}

/// Reserved bits of second-stage entries, by level: what a present entry must have clear.
#[derive(Clone, Debug)]
pub(crate) struct SecondStageReserved {
    pointers: [u64; 8],
    leaves: [u64; 8],
}

impl SecondStageReserved {
    /// Those of a unit.
    pub(crate) fn of_unit(cap: &Capabilities) -> Self {
        let beyond = !0u64 << cap.host_width;
        let frames = SecondStageEntry::new().with_frame((1 << 40) - 1).into_bits();
        let always = (beyond & frames) | SecondStageEntry::new().with_reserved_62(true).into_bits();
        let snoop = SecondStageEntry::new().with_snoop(true).into_bits();
        let leaf = |level: u8| {
            if !cap.leaf_allowed(level) {
                // A leaf has PS set, so that this is never clear.
                return SecondStageEntry::new().with_page_size(true).into_bits() | always;
            }
            let inside = frames & ((1u64 << page_shift(level)) - 1);
            always | inside | if cap.snoop_control { 0 } else { snoop }
        };
        Self { pointers: [always | snoop; 8], leaves: core::array::from_fn(|level| leaf(level as u8)) }
    }

    #[inline(always)]
    const fn of(&self, level: u8, leaf: bool) -> u64 {
        let level = (level & 7) as usize;
        if leaf { self.leaves[level] } else { self.pointers[level] }
    }
}

impl Walk {
    /// Whether an entry without R and W is present, as X counts here.
    #[cold]
    fn may_execute_only(&self, entry: SecondStageEntry) -> bool {
        self.is_scalable && self.scalable.target.second_execute && entry.execute()
    }
}

#[inline]
pub(crate) const fn beyond_width(iova: Iova, bits: u8) -> bool {
    bits < 64 && iova.0 >> bits != 0
}
