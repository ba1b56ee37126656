//! Stage 2 of a walk: from an intermediate physical address to a page. It serves requests of streams without stage 1, and
//! every address that stage 1 and the CD table of a nested stream name.
//!
//! Steps:
//!
//! 14. The address must fit S2T0SZ, else F_TRANSLATION.
//! 15. TLB, by VMID and page.
//! 16. Walk caches, by VMID and longest prefix.
//! 17. Descriptors, one fetch a level, checked as in step 11.
//! 18. Under S2HA and S2HD, AF is set and a writable-clean leaf made dirty by one atomic update.

use super::cache::tlb::{Found, Space, TlbEntry};
use super::cache::walk::WalkEntry;
use super::step::Grant;
use super::unit::Unit;
use super::walk::{Purpose, Step};
use crate::addr::{Iova, Pa, Pfn};
use crate::decision::{Decisions, Question, ask_bool};
use crate::provenance::ProvenanceId;
use crate::request::{Access, CacheHit, CacheKind, Progress};
use crate::spec::smmu::descriptor::{Descriptor, LAST_LEVEL, Stage2Leaf};
use crate::spec::smmu::event::{EventId, Termination};

/// An event that reports an IPA reports its page only.
const IPA_MASK: u64 = !0xfff;

impl Unit {
    /// Sends an address of the walk through stage 2.
    pub(crate) fn begin_stage_2(&mut self, slot: usize, purpose: Purpose, input: u64, access: Access, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        (walk.stage_2.purpose, walk.stage_2.input, walk.stage_2.access) = (purpose, input, access);
        self.caches.words.hold(walk.base_words);
        walk.outer_words = core::mem::replace(&mut walk.words, walk.base_words);
        self.look_up_tlb_2(slot, 0, d)
    }

    /// Steps 14 and 15.
    pub(crate) fn look_up_tlb_2(&mut self, slot: usize, spent: u32, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        walk.step = Step::Tlb2;
        let (input, access) = (walk.stage_2.input, walk.stage_2.access);
        let tables = walk.config.stage_2.tables;
        if input >> tables.input_bits != 0 {
            return self.refuse_2(slot, EventId::TRANSLATION, spent, d);
        }
        let cost = spent.saturating_add(self.params.timing.iotlb_lookup);
        let conflicts = self.cap.break_before_make < 2;
        let entry = match self.caches.tlb.lookup(walk.vmid, Space::Intermediate, input, conflicts, d) {
            Found::Hit(entry) => *entry,
            Found::Miss => return self.begin_tables_2(slot, false, cost),
            Found::Conflict => return self.refuse_2(slot, EventId::TLB_CONFLICT, cost, d),
        };
        let denied = !access.allowed_by(entry.readable, entry.writable);
        let takes_what_there_is = denied && walk.asks_stage_2();
        if !(entry.serves(access) || takes_what_there_is) {
            if denied && !ask_bool(d, Question::RewalkDenied) {
                return self.refuse_2(slot, EventId::PERMISSION, cost, d);
            }
            return self.begin_tables_2(slot, true, cost);
        }
        let words = &mut self.caches.words;
        words.hold(entry.provenance);
        words.release(core::mem::replace(&mut walk.words, entry.provenance));
        if walk.stage_2.purpose == Purpose::Only {
            walk.from = CacheHit::Iotlb;
        }
        self.stage_2_done(slot, &entry, cost, d)
    }

    fn begin_tables_2(&mut self, slot: usize, hit: bool, cost: u32) -> Progress {
        let skip = hit || self.caches.walk.is_off(Space::Intermediate);
        let walk = self.walks.at(slot);
        let tables = walk.config.stage_2.tables;
        (walk.stage_2.table, walk.stage_2.level) = (tables.base, tables.start);
        walk.step = if skip { Step::Table2 } else { Step::Walk2 };
        walk.spend(cost);
        Progress::Lookup { cache: CacheKind::Iotlb, hit, cost }
    }

    /// Step 16.
    pub(crate) fn look_up_walk_2(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let cost = self.params.timing.psc_lookup;
        let walk = self.walks.at(slot);
        walk.spend(cost);
        walk.step = Step::Table2;
        let tables = walk.config.stage_2.tables;
        let mut hit = false;
        if let Some(entry) = self.caches.walk.lookup(walk.vmid, Space::Intermediate, walk.stage_2.input, &tables)
            && !ask_bool(d, Question::UseWalk { level: entry.level })
        {
            (walk.stage_2.table, walk.stage_2.level) = (entry.table, entry.level + 1);
            let words = &mut self.caches.words;
            words.hold(entry.provenance);
            words.release(core::mem::replace(&mut walk.words, entry.provenance));
            if walk.stage_2.purpose == Purpose::Only {
                walk.from = CacheHit::Psc(entry.level);
            }
            hit = true;
        }
        Progress::Lookup { cache: CacheKind::Psc, hit, cost }
    }

    /// Step 17, the request.
    #[inline]
    pub(crate) fn fetch_table_2(&mut self, slot: usize) -> Progress {
        let walk = self.walks.at(slot);
        walk.step = Step::Table2;
        let second = &walk.stage_2;
        let pa = walk.config.stage_2.tables.entry(second.table, second.level, second.input);
        self.fetch(slot, pa, 8, self.params.timing.table_fetch)
    }

    /// Step 17, the answer; then the next request, or step 18.
    pub(crate) fn consume_table_2(&mut self, slot: usize, word: u64, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let tables = walk.config.stage_2.tables;
        let descriptor = Descriptor::from_bits(word);
        let level = walk.stage_2.level;
        if !descriptor.valid() {
            return self.refuse_2(slot, EventId::TRANSLATION, 0, d);
        }
        if level == LAST_LEVEL || !descriptor.table_or_page() {
            let stands = if level == LAST_LEVEL { descriptor.table_or_page() } else { tables.block_allowed(level) };
            if !stands {
                return self.refuse_2(slot, EventId::TRANSLATION, 0, d);
            }
            return self.consume_leaf_2(slot, word, d);
        }
        let table = Pa(Pfn(descriptor.frame()).pa().0 & !((1 << tables.granule) - 1));
        if !tables.output_fits(table) {
            return self.refuse_2(slot, EventId::ADDRESS_SIZE, 0, d);
        }
        walk.tries = 0;
        (walk.stage_2.table, walk.stage_2.level) = (table, level + 1);
        let span_bytes = 1 << tables.shift(level);
        let entry = WalkEntry {
            vmid: walk.vmid,
            space: Space::Intermediate,
            level,
            first: Iova(walk.stage_2.input & !(span_bytes - 1)),
            span_bytes,
            granule: tables.granule,
            table,
            read_only: false,
            no_unprivileged: false,
            provenance: walk.words,
        };
        self.caches.walk.install(entry, &mut self.caches.words, d);
        self.fetch_table_2(slot)
    }

    /// Steps 17 and 18, the leaf.
    fn consume_leaf_2(&mut self, slot: usize, word: u64, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let config = walk.config.stage_2;
        let (tables, level, access) = (config.tables, walk.stage_2.level, walk.stage_2.access);
        let leaf = Stage2Leaf::from_bits(word);
        let mut shift = tables.shift(level);
        let frame = Pa(Pfn(leaf.frame()).pa().0 & !((1 << shift) - 1));
        if !tables.output_fits(frame) {
            return self.refuse_2(slot, EventId::ADDRESS_SIZE, 0, d);
        }
        if !leaf.accessed() && !config.updates_access && !config.ignores_access {
            return self.refuse_2(slot, EventId::ACCESS, 0, d);
        }
        let writable = leaf.writable() || (config.updates_dirty && leaf.dirty_bit_modifier());
        let serves = if walk.asks_stage_2() { leaf.readable() || writable } else { access.allowed_by(leaf.readable(), writable) };
        if !serves {
            return self.refuse_2(slot, EventId::PERMISSION, 0, d);
        }
        let new = leaf
            .with_accessed(leaf.accessed() || config.updates_access)
            .with_writable(leaf.writable() || (access == Access::Write && writable));
        if new != leaf {
            walk.update = [word, new.into_bits()];
            let pa = walk.pending_pa;
            return self.ask_update(slot, Step::Update2, pa);
        }
        walk.tries = 0;
        let input = walk.stage_2.input;
        let contiguous = tables.contiguous_shift(level);
        let run = (1 << contiguous) - 1;
        let is_run = leaf.contiguous() && contiguous <= tables.input_bits && frame.0 & run == input & run & !((1 << shift) - 1);
        if is_run && ask_bool(d, Question::UseContiguous) {
            shift = contiguous;
        }
        let page_bytes = 1 << shift;
        let entry = TlbEntry {
            vmid: walk.vmid,
            space: Space::Intermediate,
            page: Iova(input & !(page_bytes - 1)),
            page_bytes,
            frame: Pa(frame.0 & !(page_bytes - 1)),
            readable: leaf.readable(),
            writable,
            dirty: leaf.writable(),
            combined: false,
            level,
            granule: tables.granule,
            provenance: walk.words,
        };
        self.caches.tlb.install(entry, &mut self.caches.words, d);
        self.stage_2_done(slot, &entry, 0, d)
    }

    /// Stage 2 has translated what it was asked for. `cost` is still to be spent.
    fn stage_2_done(&mut self, slot: usize, entry: &TlbEntry, cost: u32, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let pa = entry.translate(walk.stage_2.input);
        let purpose = walk.stage_2.purpose;
        if purpose == Purpose::Only {
            let pa = if self.holds_ipa(slot) { Pa(self.walks.at(slot).stage_2.input) } else { pa };
            let TlbEntry { readable, writable, page_bytes, .. } = *entry;
            return self.grant(slot, Grant { pa, readable, writable, page_bytes, pass_through: false }, cost);
        }
        let words = &mut self.caches.words;
        let inner = core::mem::replace(&mut walk.words, core::mem::replace(&mut walk.outer_words, ProvenanceId::NONE));
        if purpose != Purpose::TableUpdate {
            // The right to update adds nothing: the same address was translated for the fetch.
            walk.words = words.append_tables(walk.words, inner);
        }
        words.release(inner);
        if purpose == Purpose::Page {
            return self.finish_nested(slot, entry, pa, cost, d);
        }
        walk.spend(cost);
        let mut progress = match purpose {
            Purpose::Table => self.fetch_table_1_at(slot, pa),
            Purpose::TableUpdate => {
                walk.update = walk.table_update;
                self.ask_update(slot, Step::Update1, pa)
            }
            _ => self.fetch_context_structure(slot, purpose, pa),
        };
        if let Progress::Fetch { cost: total, .. } | Progress::Update { cost: total, .. } = &mut progress {
            *total = total.saturating_add(cost);
        }
        progress
    }

    /// Stage 2 refuses what it was asked for.
    #[cold]
    fn refuse_2(&mut self, slot: usize, event: EventId, spent: u32, d: &mut dyn Decisions) -> Progress {
        let second = &self.walks.at(slot).stage_2;
        let (class, ipa) = (second.purpose.class(), second.input & IPA_MASK);
        self.terminate_walk_after(slot, Termination { event, stage_2: true, class }, ipa, spent, d)
    }
}
