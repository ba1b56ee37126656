//! The outer half of a walk: from a request to its stream table entry and context descriptor.
//!
//! Steps, IHI 0070 section 3.3 and the conditions of the events in section 7.3:
//!
//! 1. SMMUEN = 0: GBPA decides; no table is read.
//! 2. The StreamID must lie in the stream table, else C_BAD_STREAMID.
//! 3. Configuration caches; else the level-1 descriptor (two-level tables) and the STE are fetched. A level-1 descriptor
//!    that does not cover the stream is C_BAD_STREAMID, an invalid STE C_BAD_STE.
//! 4. Config: abort without an event, bypass both stages, or translate; whether requests of ATS are served is in `ats`.
//! 5. The SubstreamID must be one that the STE allows: C_BAD_SUBSTREAMID, F_STREAM_DISABLED. S1DSS says what requests without
//!    one do.
//! 6. With stage 1: the CD, through its level-1 descriptor if there are two levels. With stage 2, both lie at IPAs, and are
//!    translated first. An invalid CD is C_BAD_CD.
//! 7. Without stage 1 the address must fit OAS, else F_ADDR_SIZE of stage 1.

use super::cache::config::{ContextEntryCached, Level1, Level1Cached, StreamEntryCached};
use super::context::decode_context;
use super::ids::StreamId;
use super::params::ConfigFetch;
use super::step::Grant;
use super::stream::{StreamConfig, StreamTarget, decode_stream};
use super::unit::Unit;
use super::walk::{Purpose, Step};
use crate::addr::{PAGE_SIZE, Pa, Pasid};
use crate::ats::RequestKind;
use crate::decision::{Decisions, Question, ask_bool};
use crate::request::{Access, CacheKind, FetchKind, Progress};
use crate::spec::smmu::context::{CONTEXT_BYTES, CONTEXT_LEVEL_1_BYTES, ContextLevel1};
use crate::spec::smmu::event::EventId;
use crate::spec::smmu::register::{SPLIT_DEFAULT, SPLITS, STREAM_TABLE_2_LEVEL};
use crate::spec::smmu::stream::{DEFAULT_BYPASS, DEFAULT_FIRST, LEVEL_1_BYTES, SPAN_MAX, STREAM_ENTRY_BYTES, StreamLevel1};

/// Words of an STE that count.
const STREAM_WORDS: u8 = 4;
/// Words of a CD that count.
const CONTEXT_WORDS: u8 = 3;
/// Bytes of one unit of L2Ptr of a stream table, and of STRTAB_BASE.
const TABLE_UNIT: u64 = 64;

impl Unit {
    /// Steps 1 to 3.
    #[inline]
    pub(crate) fn begin_walk(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        if (!self.enabled || self.walks.at(slot).kind != RequestKind::Untranslated)
            && let Some(end) = self.begin_without_stream(slot, d)
        {
            return end;
        }
        let cost = self.params.timing.context_lookup;
        let walk = self.walks.at(slot);
        let stream = walk.stream;
        if u64::from(stream.0) >> self.stream_table.size.min(self.cap.stream_bits) != 0 {
            return self.terminate(slot, EventId::BAD_STREAM_ID, cost, d);
        }
        let Some(entry) = self.caches.config.stream(stream) else {
            walk.step = Step::StreamEntry;
            walk.spend(cost);
            return Progress::Lookup { cache: CacheKind::Context, hit: false, cost };
        };
        if let StreamTarget::Translate(config) = &entry.target {
            walk.config = *config;
            // Most streams have one CD and no stage 2; then nothing needs the words of the STE but the CD's, which hold them.
            let plain = config.has_stage_1 && !config.has_stage_2 && config.context_bits == 0 && walk.request.pasid.is_none();
            if plain
                && walk.kind == RequestKind::Untranslated
                && let Some(ContextEntryCached { config: Some(context), provenance, .. }) = self.caches.config.context(stream, Pasid(0))
            {
                (walk.context, walk.asid, walk.vmid) = (*context, context.asid, walk.config.vmid);
                (walk.has_stream, walk.has_context, walk.substream) = (true, true, Pasid(0));
                walk.stage_2.purpose = Purpose::Page;
                walk.words = *provenance;
                self.caches.words.hold(walk.words);
                walk.step = Step::Tlb;
                walk.spend(cost);
                return Progress::Lookup { cache: CacheKind::Context, hit: true, cost };
            }
            return self.enter_cached_stream(slot, cost, d);
        }
        let target = entry.target;
        walk.words = entry.provenance;
        self.caches.words.hold(entry.provenance);
        self.end_stream(slot, target, cost, d)
    }

    /// The same where more than the STE and one CD is asked for.
    #[inline(never)]
    fn enter_cached_stream(&mut self, slot: usize, cost: u32, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        if let Some(entry) = self.caches.config.stream(walk.stream) {
            walk.words = entry.provenance;
            self.caches.words.hold(entry.provenance);
        }
        self.enter_stream(slot, true, cost, d)
    }

    /// Step 1.
    #[cold]
    pub(crate) fn bypass_globally(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let cost = self.params.timing.bypass;
        let iova = self.walks.at(slot).request.iova;
        if self.registers.gbpa.abort() || iova.0 >> self.cap.output_bits != 0 {
            return self.terminate(slot, EventId::NONE, cost, d);
        }
        self.finish_without_words(slot);
        Progress::Untranslated { pa: Pa(iova.0), cost }
    }

    /// Step 4, without translation.
    #[cold]
    fn end_stream(&mut self, slot: usize, target: StreamTarget, spent: u32, d: &mut dyn Decisions) -> Progress {
        match target {
            StreamTarget::Abort => self.terminate(slot, EventId::NONE, spent, d),
            StreamTarget::Fault(event) => self.terminate(slot, event, spent, d),
            _ if self.walks.at(slot).kind != RequestKind::Untranslated => self.forbid_ats(slot, spent, d),
            _ if self.walks.at(slot).request.pasid.is_some() => self.terminate(slot, EventId::BAD_SUBSTREAM_ID, spent, d),
            _ => self.pass_through(slot, spent, d),
        }
    }

    /// Step 7, without any stage.
    fn pass_through(&mut self, slot: usize, spent: u32, d: &mut dyn Decisions) -> Progress {
        let iova = self.walks.at(slot).request.iova;
        if iova.0 >> self.cap.output_bits != 0 {
            return self.terminate(slot, EventId::ADDRESS_SIZE, spent, d);
        }
        let grant = Grant { pa: Pa(iova.0), readable: true, writable: true, page_bytes: PAGE_SIZE, pass_through: true };
        self.grant(slot, grant, spent)
    }

    /// Steps 5 to 7. `cached` if the STE comes from the cache, so that this is still the look-up step.
    fn enter_stream(&mut self, slot: usize, cached: bool, spent: u32, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        walk.has_stream = true;
        walk.vmid = walk.config.vmid;
        walk.stage_2.purpose = Purpose::Page;
        if walk.config.has_stage_2 {
            walk.base_words = walk.words;
            self.caches.words.hold(walk.words);
        }
        if walk.kind != RequestKind::Untranslated
            && let Some(progress) = self.admit_ats(slot, cached, spent, d)
        {
            return progress;
        }
        let walk = self.walks.at(slot);
        let plain = walk.config.has_stage_1 && walk.config.context_bits == 0 && walk.request.pasid.is_none();
        let substream = if plain { Some(Pasid(0)) } else { substream_of(&walk.config, walk.request.pasid) };
        let Some(substream) = substream else { return self.enter_without_context(slot, cached, spent, d) };
        walk.substream = substream;
        let Some(entry) = self.caches.config.context(walk.stream, substream) else {
            walk.step = Step::Context;
            if cached {
                walk.spend(spent);
                return Progress::Lookup { cache: CacheKind::Context, hit: false, cost: spent };
            }
            return self.fetch_context(slot, d);
        };
        self.caches.words.hold(entry.provenance);
        self.caches.words.release(core::mem::replace(&mut walk.words, entry.provenance));
        let Some(config) = entry.config else { return self.terminate(slot, EventId::BAD_CONTEXT, spent, d) };
        (walk.context, walk.asid, walk.has_context) = (config, config.asid, true);
        walk.step = Step::Tlb;
        if cached {
            walk.spend(spent);
            return Progress::Lookup { cache: CacheKind::Context, hit: true, cost: spent };
        }
        self.look_up_tlb(slot, spent, d)
    }

    /// Steps 5 and 7, where no CD is used.
    fn enter_without_context(&mut self, slot: usize, cached: bool, spent: u32, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let (config, pasid) = (&walk.config, walk.request.pasid);
        if config.has_stage_1 {
            match pasid {
                // Either out of range, or the one that requests without SubstreamID own.
                Some(pasid) if config.context_bits == 0 || pasid.0 >> config.context_bits != 0 => {
                    return self.terminate(slot, EventId::BAD_SUBSTREAM_ID, spent, d);
                }
                None if config.default_substream == DEFAULT_BYPASS => {}
                _ => return self.terminate(slot, EventId::STREAM_DISABLED, spent, d),
            }
        } else if pasid.is_some() {
            return self.terminate(slot, EventId::BAD_SUBSTREAM_ID, spent, d);
        }
        if !config.has_stage_2 {
            return self.pass_through(slot, spent, d);
        }
        self.enter_stage_2(slot, cached, spent, d)
    }

    /// Step 7: the request itself is for stage 2.
    pub(crate) fn enter_stage_2(&mut self, slot: usize, cached: bool, spent: u32, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let iova = walk.request.iova.0;
        if iova >> self.cap.output_bits != 0 {
            return self.terminate(slot, EventId::ADDRESS_SIZE, spent, d);
        }
        (walk.stage_2.purpose, walk.stage_2.input, walk.stage_2.access) = (Purpose::Only, iova, walk.request.access);
        walk.step = Step::Tlb2;
        if cached {
            walk.spend(spent);
            return Progress::Lookup { cache: CacheKind::Context, hit: true, cost: spent };
        }
        self.look_up_tlb_2(slot, spent, d)
    }

    /// SPLIT of a two-level stream table, or `None` if the table is linear.
    fn split(&self) -> Option<u8> {
        let config = self.stream_table;
        let two_levels = self.cap.stream_2_level && config.format == STREAM_TABLE_2_LEVEL;
        two_levels.then_some(if SPLITS.contains(&config.split) { config.split } else { SPLIT_DEFAULT })
    }

    /// Step 3: where the first missing structure lies, and its fetch.
    pub(crate) fn fetch_stream(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let stream = self.walks.at(slot).stream;
        let size = self.stream_table.size;
        let base = self.stream_table.base;
        let Some(split) = self.split() else {
            let table = aligned(base, STREAM_ENTRY_BYTES, size);
            return self.fetch_config(slot, Step::StreamEntry, table.offset(u64::from(stream.0) * STREAM_ENTRY_BYTES));
        };
        let first = StreamId(stream.0 & !((1 << split) - 1));
        if let Some(entry) = self.caches.config.level_1(Level1::Streams { first, bits: split }).copied() {
            self.caches.words.hold(entry.provenance);
            let walk = self.walks.at(slot);
            self.caches.words.release(core::mem::replace(&mut walk.words, entry.provenance));
            return self.consume_stream_level_1(slot, entry.word, true, d);
        }
        let table = aligned(base, LEVEL_1_BYTES, size.saturating_sub(split));
        let pa = table.offset(u64::from(stream.0 >> split) * LEVEL_1_BYTES);
        self.walks.at(slot).step = Step::StreamLevel1;
        self.fetch(slot, pa, LEVEL_1_BYTES as u8, self.params.timing.root_fetch)
    }

    /// Step 3, the level-1 descriptor.
    pub(crate) fn consume_stream_level_1(&mut self, slot: usize, word: u64, cached: bool, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let stream = walk.stream;
        let Some(split) = self.split() else {
            // The table was made linear in between, which software must not do while it is in use.
            self.walks.at(slot).step = Step::StreamEntry;
            return self.fetch_stream(slot, d);
        };
        let entry = StreamLevel1::from_bits(word);
        let valid = (1..=SPAN_MAX.min(split + 1)).contains(&entry.span());
        if !cached && (valid || ask_bool(d, Question::CacheInvalidConfig)) {
            let covers = Level1::Streams { first: StreamId(stream.0 & !((1 << split) - 1)), bits: split };
            let entry = Level1Cached { covers, word, provenance: self.walks.at(slot).words };
            self.caches.config.install_level_1(entry, &mut self.caches.words, d);
        }
        let index = stream.0 & ((1 << split) - 1);
        if !valid || index >> (entry.span() - 1) != 0 {
            return self.terminate(slot, EventId::BAD_STREAM_ID, 0, d);
        }
        let table = aligned(entry.table() * TABLE_UNIT, STREAM_ENTRY_BYTES, entry.span() - 1);
        self.fetch_config(slot, Step::StreamEntry, table.offset(u64::from(index) * STREAM_ENTRY_BYTES))
    }

    /// Bytes that one fetch of an STE or CD reads.
    pub(crate) fn config_bytes(&self) -> u8 {
        match self.params.config_fetch {
            ConfigFetch::Whole => STREAM_ENTRY_BYTES as u8,
            ConfigFetch::Pairs => 16,
            ConfigFetch::Words => 8,
        }
    }

    /// Fetches an STE or CD, or its first part.
    pub(crate) fn fetch_config(&mut self, slot: usize, step: Step, pa: Pa) -> Progress {
        let walk = self.walks.at(slot);
        walk.step = step;
        walk.raw_count = 0;
        self.fetch_config_part(slot, pa)
    }

    fn fetch_config_part(&mut self, slot: usize, pa: Pa) -> Progress {
        let timing = &self.params.timing;
        let cost = if self.walks.at(slot).step == Step::StreamEntry { timing.context_fetch } else { timing.pasid_fetch };
        self.fetch(slot, pa, self.config_bytes(), cost)
    }

    /// Steps 3 and 6: an STE or CD, or a part of it.
    pub(crate) fn consume_config(&mut self, slot: usize, answer: &[u64; 8], d: &mut dyn Decisions) -> Progress {
        let part = self.config_bytes() / 8;
        let walk = self.walks.at(slot);
        let is_stream = walk.step == Step::StreamEntry;
        let wanted = if is_stream { STREAM_WORDS } else { CONTEXT_WORDS };
        let pa = walk.pending_pa;
        for (n, &word) in answer.iter().enumerate().take(usize::from(part)) {
            if let Some(raw) = walk.raw.get_mut(usize::from(walk.raw_count) + n) {
                *raw = word;
            }
        }
        walk.raw_count += part;
        if walk.raw_count < wanted {
            return self.fetch_config_part(slot, pa.offset(u64::from(part) * 8));
        }
        let first = Pa(pa.0.wrapping_sub(u64::from(walk.raw_count - part) * 8));
        let words = &mut self.caches.words;
        let kind = if is_stream { FetchKind::StreamEntry } else { FetchKind::ContextDescriptor };
        let [a, b, c, e] = walk.raw;
        walk.words = words.push_wide(walk.words, first, [a, b], kind);
        walk.words = if is_stream {
            words.push_wide(walk.words, first.offset(16), [c, e], kind)
        } else {
            words.push(walk.words, first.offset(16), c, kind)
        };
        if is_stream { self.consume_stream(slot, [a, b, c, e], d) } else { self.consume_context(slot, [a, b, c], d) }
    }

    fn consume_stream(&mut self, slot: usize, raw: [u64; 4], d: &mut dyn Decisions) -> Progress {
        let decoded = decode_stream(raw, &self.cap, self.registers.cr0.ats_check());
        let target = decoded.unwrap_or(StreamTarget::Fault(EventId::BAD_STREAM_ENTRY));
        let walk = self.walks.at(slot);
        let (stream, provenance) = (walk.stream, walk.words);
        if decoded.is_some() || ask_bool(d, Question::CacheInvalidConfig) {
            let entry = StreamEntryCached { stream, target, provenance };
            self.caches.config.install_stream(entry, &mut self.caches.words, d);
        }
        match target {
            StreamTarget::Translate(config) => {
                self.walks.at(slot).config = config;
                self.enter_stream(slot, false, 0, d)
            }
            target => self.end_stream(slot, target, 0, d),
        }
    }

    /// Step 6: where the first missing structure lies, and its fetch, or the translation of its address.
    pub(crate) fn fetch_context(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let StreamConfig { context, context_leaf_bits, .. } = walk.config;
        let (stream, substream) = (walk.stream, walk.substream);
        if context_leaf_bits == 0 {
            let address = context.offset(u64::from(substream.0) * CONTEXT_BYTES);
            return self.fetch_context_at(slot, Purpose::Context, address, d);
        }
        let covers = Level1::Contexts { stream, first: Pasid(substream.0 & !((1 << context_leaf_bits) - 1)), bits: context_leaf_bits };
        if let Some(entry) = self.caches.config.level_1(covers).copied() {
            self.caches.words.hold(entry.provenance);
            self.caches.words.release(core::mem::replace(&mut walk.words, entry.provenance));
            return self.consume_context_level_1(slot, entry.word, true, d);
        }
        let address = context.offset(u64::from(substream.0 >> context_leaf_bits) * CONTEXT_LEVEL_1_BYTES);
        self.fetch_context_at(slot, Purpose::ContextLevel1, address, d)
    }

    /// Fetches a structure of the CD table, after translation of its address if there is a stage 2.
    fn fetch_context_at(&mut self, slot: usize, purpose: Purpose, address: Pa, d: &mut dyn Decisions) -> Progress {
        if self.walks.at(slot).config.has_stage_2 {
            return self.begin_stage_2(slot, purpose, address.0, Access::Read, d);
        }
        self.fetch_context_structure(slot, purpose, address)
    }

    /// The address is known as a physical one.
    pub(crate) fn fetch_context_structure(&mut self, slot: usize, purpose: Purpose, pa: Pa) -> Progress {
        if purpose == Purpose::Context {
            return self.fetch_config(slot, Step::Context, pa);
        }
        self.walks.at(slot).step = Step::ContextLevel1;
        self.fetch(slot, pa, CONTEXT_LEVEL_1_BYTES as u8, self.params.timing.directory_fetch)
    }

    /// Step 6, the level-1 descriptor.
    pub(crate) fn consume_context_level_1(&mut self, slot: usize, word: u64, cached: bool, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let bits = walk.config.context_leaf_bits;
        let (stream, substream) = (walk.stream, walk.substream);
        let entry = ContextLevel1::from_bits(word);
        let table = aligned(entry.table() << 12, CONTEXT_BYTES, bits);
        let valid = entry.valid() && table.0 >> self.cap.output_bits == 0;
        if !cached && (valid || ask_bool(d, Question::CacheInvalidConfig)) {
            let covers = Level1::Contexts { stream, first: Pasid(substream.0 & !((1 << bits) - 1)), bits };
            let entry = Level1Cached { covers, word, provenance: self.walks.at(slot).words };
            self.caches.config.install_level_1(entry, &mut self.caches.words, d);
        }
        if !valid {
            return self.terminate(slot, EventId::BAD_SUBSTREAM_ID, 0, d);
        }
        let index = substream.0 & ((1 << bits) - 1);
        self.fetch_context_at(slot, Purpose::Context, table.offset(u64::from(index) * CONTEXT_BYTES), d)
    }

    fn consume_context(&mut self, slot: usize, raw: [u64; 3], d: &mut dyn Decisions) -> Progress {
        let config = decode_context(raw, &self.cap);
        let walk = self.walks.at(slot);
        let entry = ContextEntryCached { stream: walk.stream, substream: walk.substream, config, provenance: walk.words };
        if config.is_some() || ask_bool(d, Question::CacheInvalidConfig) {
            self.caches.config.install_context(entry, &mut self.caches.words, d);
        }
        let Some(config) = config else { return self.terminate(slot, EventId::BAD_CONTEXT, 0, d) };
        let walk = self.walks.at(slot);
        (walk.context, walk.asid, walk.has_context) = (config, config.asid, true);
        self.look_up_tlb(slot, 0, d)
    }
}

/// Which CD a request uses; `None` if it uses none, for whatever reason.
fn substream_of(config: &StreamConfig, pasid: Option<Pasid>) -> Option<Pasid> {
    if !config.has_stage_1 {
        return None;
    }
    let owned = config.default_substream == DEFAULT_FIRST;
    match pasid {
        None if config.context_bits == 0 => Some(Pasid(0)),
        None => owned.then_some(Pasid(0)),
        Some(pasid) => {
            let in_range = config.context_bits != 0 && pasid.0 >> config.context_bits == 0;
            (in_range && !(owned && pasid.0 == 0)).then_some(pasid)
        }
    }
}

/// A table of 2^`bits` entries, aligned to its size, but to 64 bytes at least.
fn aligned(address: u64, entry_bytes: u64, bits: u8) -> Pa {
    let shift = (entry_bytes.trailing_zeros() + u32::from(bits)).clamp(6, 63);
    Pa(address & !((1 << shift) - 1))
}
