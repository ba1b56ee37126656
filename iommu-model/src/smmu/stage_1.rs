//! Stage 1 of a walk: from a context descriptor through the tables of one half of the address space to a page.
//!
//! Steps, continuing those of `config_walk`:
//!
//! 8. Bit 55 of the address chooses the half; the bits above the input size must be copies of it, but for a top byte that
//!    is ignored, else F_TRANSLATION.
//! 9. TLB, by VMID, ASID and page. After a miss, EPD is F_TRANSLATION.
//! 10. Walk caches, by VMID, ASID and longest prefix.
//! 11. Descriptors, one fetch a level; with stage 2 the address of each is translated first. Each: valid, a kind that may stand
//!     at its level (F_TRANSLATION), output in range (F_ADDR_SIZE); of the leaf, the access flag (F_ACCESS), then permissions
//!     (F_PERMISSION), in this order of priority.
//! 12. Under HA and HD, AF is set and a writable-clean leaf made dirty by one atomic update; nested, stage 2 must allow that write.
//! 13. With stage 2, the output goes through it too; what is cached then is the combination of both.

use super::cache::tlb::{Found, Space, TlbEntry};
use super::cache::walk::WalkEntry;
use super::context::ContextConfig;
use super::step::Grant;
use super::unit::Unit;
use super::walk::{Outstanding, Purpose, Step};
use crate::addr::{Iova, Pa, Pfn};
use crate::ats::RequestKind;
use crate::decision::{Decisions, Question, ask_bool};
use crate::request::{Access, CacheHit, CacheKind, Progress};
use crate::spec::smmu::descriptor::{ADDRESS_BITS, Descriptor, HALF_BIT, LAST_LEVEL, Stage1Leaf, Stage1Table};
use crate::spec::smmu::event::{EventId, FaultClass, Termination};

/// Updates that may find another word in a row. Whoever stores that often keeps the walker from its work; F_WALK_EABT is the
/// model's answer then, so that every walk ends. An assumption: the manual bounds nothing here.
const TRIES_MAX: u8 = 8;

impl Unit {
    /// Steps 8 and 9.
    #[inline(always)]
    pub(crate) fn look_up_tlb(&mut self, slot: usize, spent: u32, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let iova = walk.request.iova.0;
        let access = walk.request.access;
        let Some(address) = virtual_address(&walk.context, iova) else { return self.refuse_1(slot, EventId::TRANSLATION, spent, d) };
        walk.stage_1.address = address;
        walk.step = Step::Walk1;
        let cost = spent.saturating_add(self.params.timing.iotlb_lookup);
        let conflicts = self.cap.break_before_make < 2;
        let entry = match self.caches.tlb.lookup(walk.vmid, Space::Virtual(walk.asid), address, conflicts, d) {
            Found::Hit(entry) => entry,
            Found::Miss => return self.begin_tables_1(slot, false, cost, d),
            Found::Conflict => return self.refuse_1(slot, EventId::TLB_CONFLICT, cost, d),
        };
        if !entry.serves(access) || walk.kind != RequestKind::Untranslated {
            let entry = *entry;
            return if walk.asks() { self.answer_cached_1(slot, &entry, cost, d) } else { self.refuse_cached_1(slot, &entry, cost, d) };
        }
        let grant = Grant {
            pa: entry.translate(address),
            readable: entry.readable,
            writable: entry.writable,
            page_bytes: entry.page_bytes,
            pass_through: false,
        };
        walk.from = CacheHit::Iotlb;
        let provenance = entry.provenance;
        self.grant_cached(slot, grant, provenance, cost)
    }

    /// A cached translation does not serve the access: a clean leaf has to be updated; a leaf that stage 1 denies faults as
    /// cached, or is read again. What stage 2 denies is always read again: the event wants the IPA, which is not cached.
    #[cold]
    fn refuse_cached_1(&mut self, slot: usize, entry: &TlbEntry, cost: u32, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let denied = !walk.request.access.allowed_by(entry.readable, entry.writable);
        if denied && !entry.combined && !ask_bool(d, Question::RewalkDenied) {
            return self.refuse_1(slot, EventId::PERMISSION, cost, d);
        }
        self.begin_tables_1(slot, true, cost, d)
    }

    /// Step 9, after a look-up that was not enough: the walk starts at the top. `hit` if there was an entry.
    pub(crate) fn begin_tables_1(&mut self, slot: usize, hit: bool, cost: u32, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let half = *walk.half();
        let Some(tables) = half.tables else { return self.refuse_1(slot, EventId::TRANSLATION, cost, d) };
        let first = &mut walk.stage_1;
        (first.table, first.level) = (tables.base, tables.start);
        (first.read_only, first.no_unprivileged) = (false, false);
        let skip = hit || self.caches.walk.is_off(Space::Virtual(walk.asid));
        walk.step = if skip { Step::Table1 } else { Step::Walk1 };
        walk.spend(cost);
        Progress::Lookup { cache: CacheKind::Iotlb, hit, cost }
    }

    /// Step 10.
    pub(crate) fn look_up_walk_1(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let cost = self.params.timing.psc_lookup;
        let walk = self.walks.at(slot);
        walk.spend(cost);
        walk.step = Step::Table1;
        let tables = walk.half().tables;
        let first = &mut walk.stage_1;
        let mut hit = false;
        if let Some(tables) = tables
            && let Some(entry) = self.caches.walk.lookup(walk.vmid, Space::Virtual(walk.asid), first.address, &tables)
            && !ask_bool(d, Question::UseWalk { level: entry.level })
        {
            (first.table, first.level) = (entry.table, entry.level + 1);
            (first.read_only, first.no_unprivileged) = (entry.read_only, entry.no_unprivileged);
            let words = &mut self.caches.words;
            words.hold(entry.provenance);
            words.release(core::mem::replace(&mut walk.words, entry.provenance));
            walk.from = CacheHit::Psc(entry.level);
            hit = true;
        }
        Progress::Lookup { cache: CacheKind::Psc, hit, cost }
    }

    /// Step 11, the request: where the descriptor lies, or the look-up that begins to find it out.
    pub(crate) fn fetch_table_1(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let first = &walk.stage_1;
        let half = *walk.half();
        let Some(tables) = half.tables else { return self.refuse_1(slot, EventId::TRANSLATION, 0, d) };
        let pa = tables.entry(first.table, first.level, first.address);
        if walk.config.has_stage_2 {
            return self.begin_stage_2(slot, Purpose::Table, pa.0, Access::Read, d);
        }
        self.fetch_table_1_at(slot, pa)
    }

    /// The descriptor's address is known as a physical one.
    #[inline]
    pub(crate) fn fetch_table_1_at(&mut self, slot: usize, pa: Pa) -> Progress {
        self.walks.at(slot).step = Step::Table1;
        self.fetch(slot, pa, 8, self.params.timing.table_fetch)
    }

    /// Step 11, the answer; then the next request, or step 12.
    #[inline]
    pub(crate) fn consume_table_1(&mut self, slot: usize, word: u64, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let first = walk.stage_1;
        let half = *walk.half();
        let Some(tables) = half.tables else { return self.refuse_1(slot, EventId::TRANSLATION, 0, d) };
        let descriptor = Descriptor::from_bits(word);
        let level = first.level;
        if !descriptor.valid() {
            return self.refuse_1(slot, EventId::TRANSLATION, 0, d);
        }
        let output = Pfn(descriptor.frame()).pa();
        if level == LAST_LEVEL || !descriptor.table_or_page() {
            let stands = if level == LAST_LEVEL { descriptor.table_or_page() } else { tables.block_allowed(level) };
            if !stands {
                return self.refuse_1(slot, EventId::TRANSLATION, 0, d);
            }
            return self.consume_leaf_1(slot, word, d);
        }
        let table = Pa(output.0 & !((1 << tables.granule) - 1));
        if !tables.output_fits(table) {
            return self.refuse_1(slot, EventId::ADDRESS_SIZE, 0, d);
        }
        let limits = Stage1Table::from_bits(word);
        let first = &mut walk.stage_1;
        first.read_only |= limits.read_only() && !half.ignores_limits;
        first.no_unprivileged |= limits.no_unprivileged() && !half.ignores_limits;
        (first.table, first.level) = (table, level + 1);
        walk.tries = 0;
        let span_bytes = 1 << tables.shift(level);
        let entry = WalkEntry {
            vmid: walk.vmid,
            space: Space::Virtual(walk.asid),
            level,
            first: Iova(first.address & !(span_bytes - 1)),
            span_bytes,
            granule: tables.granule,
            table,
            read_only: first.read_only,
            no_unprivileged: first.no_unprivileged,
            provenance: walk.words,
        };
        self.caches.walk.install(entry, &mut self.caches.words, d);
        self.fetch_table_1(slot, d)
    }

    /// Steps 11 and 12, the leaf.
    fn consume_leaf_1(&mut self, slot: usize, word: u64, d: &mut dyn Decisions) -> Progress {
        let privileged = self.params.privileged;
        let walk = self.walks.at(slot);
        let first = walk.stage_1;
        let (context, access) = (&walk.context, walk.request.access);
        let half = *walk.half();
        let Some(tables) = half.tables else { return self.refuse_1(slot, EventId::TRANSLATION, 0, d) };
        let leaf = Stage1Leaf::from_bits(word);
        let shift = tables.shift(first.level);
        let frame = Pa(Pfn(leaf.frame()).pa().0 & !((1 << shift) - 1));
        if !tables.output_fits(frame) {
            return self.refuse_1(slot, EventId::ADDRESS_SIZE, 0, d);
        }
        if !leaf.accessed() && !context.updates_access && !context.ignores_access {
            return self.refuse_1(slot, EventId::ACCESS, 0, d);
        }
        let unprivileged = leaf.unprivileged() && !first.no_unprivileged;
        let reachable = if privileged { !(context.privileged_access_never && unprivileged) } else { unprivileged };
        let cleanable = context.updates_dirty && leaf.dirty_bit_modifier();
        let writable = !first.read_only && (!leaf.read_only() || cleanable);
        if !reachable || (access == Access::Write && !writable && !walk.asks()) {
            return self.refuse_1(slot, EventId::PERMISSION, 0, d);
        }
        let new = leaf
            .with_accessed(leaf.accessed() || context.updates_access)
            .with_read_only(leaf.read_only() && !(access == Access::Write && writable));
        if new != leaf {
            return self.update_1(slot, [word, new.into_bits()], d);
        }
        walk.tries = 0;
        let first = &mut walk.stage_1;
        (first.writable, first.dirty, first.global) = (writable, writable && !leaf.read_only(), !leaf.not_global());
        first.shift = shift;
        let output = Pa(frame.0 | (first.address & ((1 << shift) - 1)));
        if walk.config.has_stage_2 {
            // Nobody asks stage 2 for a right that stage 1 does not give.
            let access = if writable { access } else { Access::Read };
            return self.begin_stage_2(slot, Purpose::Page, output.0, access, d);
        }
        let contiguous = tables.contiguous_shift(first.level);
        let run = (1 << contiguous) - 1;
        // A run whose outputs are not one run is a mistake of software that the hint must not make worse.
        let is_run = leaf.contiguous() && contiguous <= tables.input_bits && frame.0 & run == first.address & run & !((1 << shift) - 1);
        if is_run && ask_bool(d, Question::UseContiguous) {
            first.shift = contiguous;
        }
        let page_bytes = 1 << first.shift;
        let entry = self.entry_1(slot, page_bytes, Pa(output.0 & !(page_bytes - 1)), tables.granule);
        self.install_and_grant_1(slot, entry, output, 0, d)
    }

    /// What the TLB holds of a walk that stage 1 has finished.
    fn entry_1(&mut self, slot: usize, page_bytes: u64, frame: Pa, granule: u8) -> TlbEntry {
        let walk = self.walks.at(slot);
        let first = &walk.stage_1;
        TlbEntry {
            vmid: walk.vmid,
            space: if first.global { Space::Global } else { Space::Virtual(walk.asid) },
            page: Iova(first.address & !(page_bytes - 1)),
            page_bytes,
            frame,
            readable: true,
            writable: first.writable,
            dirty: first.dirty,
            combined: false,
            level: first.level,
            granule,
            provenance: walk.words,
        }
    }

    /// Step 13: stage 2 has translated the output. `cost` is still to be spent.
    pub(crate) fn finish_nested(&mut self, slot: usize, second: &TlbEntry, output: Pa, cost: u32, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let page_bytes = second.page_bytes.min(1 << walk.stage_1.shift);
        let half = *walk.half();
        let granule = half.tables.map_or(0, |tables| tables.granule);
        let first = self.entry_1(slot, page_bytes, Pa(output.0 & !(page_bytes - 1)), granule);
        let entry = TlbEntry {
            readable: second.readable,
            writable: first.writable && second.writable,
            dirty: first.dirty && second.dirty,
            combined: true,
            ..first
        };
        let granted = if self.holds_ipa(slot) { Pa(self.walks.at(slot).stage_2.input) } else { output };
        self.install_and_grant_1(slot, entry, granted, cost, d)
    }

    fn install_and_grant_1(&mut self, slot: usize, entry: TlbEntry, pa: Pa, cost: u32, d: &mut dyn Decisions) -> Progress {
        self.caches.tlb.install(entry, &mut self.caches.words, d);
        let TlbEntry { readable, writable, page_bytes, .. } = entry;
        self.grant(slot, Grant { pa, readable, writable, page_bytes, pass_through: false }, cost)
    }

    /// Step 12, the request: nested, stage 2 is asked for the right to write first.
    fn update_1(&mut self, slot: usize, update: [u64; 2], d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        if walk.config.has_stage_2 {
            walk.table_update = update;
            let first = &walk.stage_1;
            let half = *walk.half();
            let Some(tables) = half.tables else { return self.refuse_1(slot, EventId::TRANSLATION, 0, d) };
            let ipa = tables.entry(first.table, first.level, first.address);
            return self.begin_stage_2(slot, Purpose::TableUpdate, ipa.0, Access::Write, d);
        }
        walk.update = update;
        let pa = walk.pending_pa;
        self.ask_update(slot, Step::Update1, pa)
    }

    /// Asks for the update that the walk holds.
    pub(crate) fn ask_update(&mut self, slot: usize, step: Step, pa: Pa) -> Progress {
        let walk = self.walks.at(slot);
        walk.step = step;
        walk.outstanding = Outstanding::Wanted;
        walk.pending_pa = pa;
        let cost = walk.spend(self.params.timing.table_update);
        let [old, new] = walk.update;
        Progress::Update { pa, old, new, kind: walk.awaited(), cost }
    }

    /// Step 12, the answer, of either stage: the descriptor is what was stored, or what was found instead.
    pub(crate) fn consume_update(&mut self, slot: usize, found: u64, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let [old, new] = walk.update;
        let word = if found == old { new } else { found };
        walk.tries = if found == old { 0 } else { walk.tries + 1 };
        let (pa, purpose, of_stage_1) = (walk.pending_pa, walk.stage_2.purpose, walk.step == Step::Update1);
        if walk.tries > TRIES_MAX {
            let class = if of_stage_1 { FaultClass::Table } else { purpose.class() };
            let why = Termination { event: EventId::WALK_ABORT, stage_2: !of_stage_1, class };
            return self.terminate_walk_after(slot, why, pa.0, 0, d);
        }
        self.caches.words.amend(walk.words, word);
        if of_stage_1 {
            walk.step = Step::Table1;
            return self.consume_table_1(slot, word, d);
        }
        walk.step = Step::Table2;
        self.consume_table_2(slot, word, d)
    }

    /// Stage 1 refuses its input.
    #[cold]
    fn refuse_1(&mut self, slot: usize, event: EventId, spent: u32, d: &mut dyn Decisions) -> Progress {
        self.terminate(slot, event, spent, d)
    }
}

/// Step 8: the address without an ignored top byte, if it is in the range of its half.
#[inline(always)]
pub(crate) fn virtual_address(context: &ContextConfig, iova: u64) -> Option<u64> {
    let high = iova >> HALF_BIT & 1;
    let half = &context.halves[high as usize];
    let address = if half.ignores_top_byte { ((iova << (63 - HALF_BIT)) as i64 >> (63 - HALF_BIT)) as u64 } else { iova };
    // What no walk can find, no entry may serve: without walks (EPD) the range is the largest.
    let input_bits = half.tables.map_or(ADDRESS_BITS, |tables| tables.input_bits);
    (address >> input_bits == high.wrapping_neg() >> input_bits).then_some(address)
}
