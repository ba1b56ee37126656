//! What each invalidation removes from the caches, and which walks in flight it sends back to their beginning.
//!
//! | command | STE | CD | level-1 | TLB | walk caches | walks that |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | CFGI_STE | of the stream | of the stream | CDs' of the stream; the stream's, unless Leaf | - | - | are of the stream |
//! | CFGI_STE_RANGE, CFGI_ALL | of the range | of the range | of the range | - | - | are of the range |
//! | CFGI_CD | - | of stream and SubstreamID | that leads to it, unless Leaf | - | - | hold or await that CD |
//! | CFGI_CD_ALL | - | of the stream | CDs' of the stream | - | - | of the stream hold or await a CD |
//! | TLBI_NH_ALL | - | - | - | VA, of the VMID | stage 1, of the VMID | of the VMID are in stage 1 |
//! | TLBI_NH_ASID | - | - | - | VA, of VMID and ASID, not global | stage 1, of both | of both are in stage 1 |
//! | TLBI_NH_VA | - | - | - | VA, of VMID, and of ASID or global, in the range | stage 1, of both, leading there, unless Leaf | same, in the range |
//! | TLBI_NH_VAA | - | - | - | VA, of the VMID, in the range | same of every ASID | same |
//! | TLBI_S2_IPA | - | - | - | IPA, of the VMID, in the range; combined asked | stage 2, leading there, unless Leaf | of the VMID use stage 2 there; nested ones always |
//! | TLBI_S12_VMALL | - | - | - | of the VMID | of the VMID | of the VMID are in a table |
//! | TLBI_NSNH_ALL | - | - | - | all | all | are in a table |
//!
//! A TLB entry goes if the range touches any address that it maps, whatever its size (IHI 0070 section 4.4). With TG and TTL
//! the command need not reach entries of another granule or leaf level: whether it does is asked. So is whether table
//! descriptors go under Leaf, and whether the unit does more than it must.

use super::cache::config::Level1;
use super::cache::tlb::{Space, TlbEntry};
use super::cache::walk::WalkEntry;
use super::ids::{Asid, StreamId, Vmid};
use super::unit::Unit;
use super::walk::{Purpose, Step, Walk};
use crate::addr::{Iova, Pasid};
use crate::decision::{Decisions, Question, ask, ask_bool};
use crate::spec::smmu::descriptor::LAST_LEVEL;

/// The addresses of an invalidation by VA or IPA.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AddressRange {
    /// First address.
    pub first: Iova,
    /// Last address; the same for a command without a range.
    pub last: Iova,
    /// Leaf: what was cached from table descriptors may stay.
    pub leaf_only: bool,
    /// TG: entries of other granules may stay.
    pub granule: Option<u8>,
    /// TTL: entries of other leaf levels may stay.
    pub level: Option<u8>,
}

impl AddressRange {
    /// Whether it touches the `bytes` from `first` on.
    const fn touches(&self, first: Iova, bytes: u64) -> bool {
        first.0 <= self.last.0 && self.first.0 <= first.0.saturating_add(bytes - 1)
    }
}

/// One invalidation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Invalidation {
    /// CMD_CFGI_STE.
    Stream {
        /// The stream.
        stream: StreamId,
        /// Level-1 stream descriptors may stay.
        leaf_only: bool,
    },
    /// CMD_CFGI_STE_RANGE and CMD_CFGI_ALL.
    Streams {
        /// First stream.
        first: StreamId,
        /// Last stream.
        last: StreamId,
    },
    /// CMD_CFGI_CD.
    Context {
        /// The stream.
        stream: StreamId,
        /// Index of the CD.
        substream: Pasid,
        /// Level-1 context descriptors may stay.
        leaf_only: bool,
    },
    /// CMD_CFGI_CD_ALL.
    Contexts {
        /// The stream.
        stream: StreamId,
    },
    /// CMD_TLBI_NH_ALL.
    Stage1 {
        /// The VMID.
        vmid: Vmid,
    },
    /// CMD_TLBI_NH_ASID.
    Stage1Asid {
        /// The VMID.
        vmid: Vmid,
        /// The ASID.
        asid: Asid,
    },
    /// CMD_TLBI_NH_VA, or without an ASID CMD_TLBI_NH_VAA.
    Stage1Range {
        /// The VMID.
        vmid: Vmid,
        /// The ASID, or all.
        asid: Option<Asid>,
        /// Virtual addresses.
        range: AddressRange,
    },
    /// CMD_TLBI_S2_IPA.
    Stage2Range {
        /// The VMID.
        vmid: Vmid,
        /// Intermediate physical addresses.
        range: AddressRange,
    },
    /// CMD_TLBI_S12_VMALL.
    Vmid {
        /// The VMID.
        vmid: Vmid,
    },
    /// CMD_TLBI_NSNH_ALL.
    TlbAll,
}

impl Invalidation {
    /// Whether it is one of the configuration caches.
    #[must_use]
    pub const fn is_config(&self) -> bool {
        matches!(self, Self::Stream { .. } | Self::Streams { .. } | Self::Context { .. } | Self::Contexts { .. })
    }
}

/// An invalidation that was consumed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidationDone {
    /// What software asked for.
    pub asked: Invalidation,
    /// What was done: the same, or wider.
    pub done: Invalidation,
    /// It takes effect with the next CMD_SYNC only; nothing was dropped yet.
    pub deferred: bool,
    /// Cached entries that went.
    pub entries_dropped: u32,
    /// Walks in flight that start over.
    pub walks_restarted: u32,
}

impl InvalidationDone {
    pub(crate) const fn deferred(what: Invalidation) -> Self {
        Self { asked: what, done: what, deferred: true, entries_dropped: 0, walks_restarted: 0 }
    }
}

impl Walk {
    /// Whether it is past the configuration: a table is read, or a page known to stage 1.
    fn is_in_tables(&self) -> bool {
        self.has_stream && (self.has_context || !self.outer_words_missing())
    }

    /// Whether nothing of stage 2 is held or awaited.
    fn outer_words_missing(&self) -> bool {
        !matches!(self.step, Step::Tlb2 | Step::Walk2 | Step::Table2 | Step::Update2 | Step::Context | Step::ContextLevel1)
    }
}

impl Unit {
    /// Carries out an invalidation, perhaps wider than asked.
    pub(crate) fn invalidate(&mut self, asked: Invalidation, d: &mut dyn Decisions) -> InvalidationDone {
        let done = widen(asked, d);
        let (entries_dropped, walks_restarted) = match done {
            Invalidation::Stream { stream, leaf_only } => self.invalidate_streams(stream, stream, leaf_only, d),
            Invalidation::Streams { first, last } => self.invalidate_streams(first, last, false, d),
            Invalidation::Context { stream, substream, leaf_only } => self.invalidate_contexts(stream, Some(substream), leaf_only, d),
            Invalidation::Contexts { stream } => self.invalidate_contexts(stream, None, false, d),
            Invalidation::Stage1 { vmid } => self.invalidate_tlb(
                |e| e.vmid == vmid && e.space.is_stage_1(),
                |e| e.vmid == vmid && e.space.is_stage_1(),
                |walk| walk.vmid == vmid && walk.has_context,
            ),
            Invalidation::Stage1Asid { vmid, asid } => self.invalidate_tlb(
                |e| e.vmid == vmid && e.space == Space::Virtual(asid),
                |e| e.vmid == vmid && e.space == Space::Virtual(asid),
                |walk| walk.vmid == vmid && walk.has_context && walk.asid == asid,
            ),
            Invalidation::Stage1Range { vmid, asid, range } => self.invalidate_stage_1(vmid, asid, range, d),
            Invalidation::Stage2Range { vmid, range } => self.invalidate_stage_2(vmid, range, d),
            Invalidation::Vmid { vmid } => {
                self.invalidate_tlb(|e| e.vmid == vmid, |e| e.vmid == vmid, |walk| walk.vmid == vmid && walk.is_in_tables())
            }
            Invalidation::TlbAll => self.invalidate_tlb(|_| true, |_| true, Walk::is_in_tables),
        };
        InvalidationDone { asked, done, deferred: false, entries_dropped, walks_restarted }
    }

    fn invalidate_streams(&mut self, first: StreamId, last: StreamId, leaf_only: bool, d: &mut dyn Decisions) -> (u32, u32) {
        let covers = |stream: StreamId| (first..=last).contains(&stream);
        let leads = |from: StreamId, bits: u8| from <= last && first.0 <= from.0 | ((1 << bits) - 1);
        let words = &mut self.caches.words;
        let config = &mut self.caches.config;
        let streams = config.streams.retain(words, |entry| !covers(entry.stream));
        let contexts = config.contexts.retain(words, |entry| !covers(entry.stream));
        let level_1 = config.level_1.retain(words, |entry| match entry.covers {
            Level1::Streams { first, bits } => !leads(first, bits) || (leaf_only && !ask_bool(&mut *d, Question::KeepNonLeaf)),
            Level1::Contexts { stream, .. } => !covers(stream),
        });
        (streams + contexts + level_1, self.walks.restart(words, |walk| covers(walk.stream)))
    }

    fn invalidate_contexts(&mut self, of: StreamId, only: Option<Pasid>, leaf_only: bool, d: &mut dyn Decisions) -> (u32, u32) {
        let words = &mut self.caches.words;
        let config = &mut self.caches.config;
        let covers = |stream: StreamId, substream: Pasid| stream == of && only.is_none_or(|only| only == substream);
        let contexts = config.contexts.retain(words, |entry| !covers(entry.stream, entry.substream));
        let level_1 = config.level_1.retain(words, |entry| match entry.covers {
            Level1::Contexts { stream, first, bits } => {
                let leads = stream == of && only.is_none_or(|only| only.0 & !((1 << bits) - 1) == first.0);
                !leads || (leaf_only && !ask_bool(&mut *d, Question::KeepNonLeaf))
            }
            Level1::Streams { .. } => true,
        });
        let restarted = self.walks.restart(words, |walk| {
            let touches = walk.has_context || (walk.has_stream && !walk.outer_words_missing() && walk.stage_2.purpose != Purpose::Only);
            touches && covers(walk.stream, walk.substream)
        });
        (contexts + level_1, restarted)
    }

    fn invalidate_tlb(
        &mut self,
        tlb: impl Fn(&TlbEntry) -> bool,
        tables: impl Fn(&WalkEntry) -> bool,
        walks: impl Fn(&Walk) -> bool,
    ) -> (u32, u32) {
        let words = &mut self.caches.words;
        let dropped = self.caches.tlb.retain(words, |entry| !tlb(entry)) + self.caches.walk.retain(words, |entry| !tables(entry));
        (dropped, self.walks.restart(words, walks))
    }

    fn invalidate_stage_1(&mut self, vmid: Vmid, asid: Option<Asid>, range: AddressRange, d: &mut dyn Decisions) -> (u32, u32) {
        let mine = |space: Space| match space {
            Space::Virtual(tag) => asid.is_none_or(|asid| asid == tag),
            Space::Global => true,
            Space::Intermediate => false,
        };
        let words = &mut self.caches.words;
        let leaves = self.caches.tlb.retain(words, |e| {
            let covered = e.vmid == vmid && mine(e.space) && range.touches(e.page, e.page_bytes);
            !covered || keeps_by_hint(e, &range, d)
        });
        let tables = |e: &WalkEntry| e.vmid == vmid && mine(e.space) && range.touches(e.first, e.span_bytes);
        let keep = range.leaf_only && (!self.caches.walk.iter().any(tables) || !ask_bool(d, Question::KeepNonLeaf));
        let non_leaves = if keep { 0 } else { self.caches.walk.retain(words, |e| !tables(e)) };
        let restarted = self.walks.restart(words, |walk| {
            // The leaf that a walk of another ASID awaits may be a global one; the tables above it are of its own ASID.
            let same_asid = asid.is_none_or(|asid| asid == walk.asid);
            walk.has_context && walk.vmid == vmid && walk_1_is_in(walk, &range, range.leaf_only || !same_asid)
        });
        (leaves + non_leaves, restarted)
    }

    fn invalidate_stage_2(&mut self, vmid: Vmid, range: AddressRange, d: &mut dyn Decisions) -> (u32, u32) {
        let words = &mut self.caches.words;
        let leaves = self.caches.tlb.retain(words, |e| {
            if e.vmid != vmid {
                return true;
            }
            if e.space.is_stage_1() {
                return !e.combined || !ask_bool(&mut *d, Question::KeepCombined);
            }
            !range.touches(e.page, e.page_bytes) || keeps_by_hint(e, &range, d)
        });
        let tables = |e: &WalkEntry| e.vmid == vmid && !e.space.is_stage_1() && range.touches(e.first, e.span_bytes);
        let keep = range.leaf_only && (!self.caches.walk.iter().any(tables) || !ask_bool(d, Question::KeepNonLeaf));
        let non_leaves = if keep { 0 } else { self.caches.walk.retain(words, |e| !tables(e)) };
        let restarted = self.walks.restart(words, |walk| {
            let uses = walk.vmid == vmid && walk.config.has_stage_2 && walk.is_in_tables();
            uses && (walk.stage_2.purpose != Purpose::Only || walk_2_is_in(walk, &range))
        });
        (leaves + non_leaves, restarted)
    }
}

/// Whether an entry that the addresses cover stays, because TG or TTL names another kind. Asked.
fn keeps_by_hint(entry: &TlbEntry, range: &AddressRange, d: &mut dyn Decisions) -> bool {
    let other_granule = range.granule.is_some_and(|granule| granule != entry.granule);
    let other_level = range.level.is_some_and(|level| level != entry.level);
    (other_granule || other_level) && !ask_bool(d, Question::KeepOtherLevel)
}

/// Whether stage 1 of a walk holds or awaits a descriptor that a command for these virtual addresses covers. A hint never
/// spares a walk.
fn walk_1_is_in(walk: &Walk, range: &AddressRange, leaf_only: bool) -> bool {
    if walk.step == Step::Tlb {
        return false;
    }
    let address = walk.stage_1.address;
    let Some(tables) = walk.half().tables else { return false };
    let level = walk.stage_1.level.min(LAST_LEVEL);
    let spans = |shift: u8| range.touches(Iova(address & !((1 << shift) - 1)), 1 << shift);
    // The awaited descriptor may be a leaf; what was read above it is a table.
    let awaited = spans(tables.shift(level));
    awaited || (!leaf_only && level > tables.start && spans(tables.shift(level - 1)))
}

/// The same for stage 2 and IPAs.
fn walk_2_is_in(walk: &Walk, range: &AddressRange) -> bool {
    let tables = walk.config.stage_2.tables;
    let (input, level) = (walk.stage_2.input, walk.stage_2.level.min(LAST_LEVEL));
    let spans = |shift: u8| range.touches(Iova(input & !((1 << shift) - 1)), 1 << shift);
    spans(tables.shift(level)) || (!range.leaf_only && level > tables.start && spans(tables.shift(level - 1)))
}

/// What the hardware makes of a command: the same, or one step more, or everything of its kind.
fn widen(asked: Invalidation, d: &mut dyn Decisions) -> Invalidation {
    let all_streams = Invalidation::Streams { first: StreamId(0), last: StreamId(u32::MAX) };
    let (wider, one_step, all) = match asked {
        Invalidation::Stream { .. } => (1, all_streams, all_streams),
        Invalidation::Streams { .. } if asked != all_streams => (1, all_streams, all_streams),
        Invalidation::Context { stream, .. } => (2, Invalidation::Contexts { stream }, all_streams),
        Invalidation::Contexts { stream } => (2, Invalidation::Stream { stream, leaf_only: false }, all_streams),
        Invalidation::Stage1 { vmid } => (2, Invalidation::Vmid { vmid }, Invalidation::TlbAll),
        Invalidation::Stage1Asid { vmid, .. } | Invalidation::Stage1Range { vmid, .. } => {
            (2, Invalidation::Stage1 { vmid }, Invalidation::TlbAll)
        }
        Invalidation::Stage2Range { vmid, .. } => (2, Invalidation::Vmid { vmid }, Invalidation::TlbAll),
        Invalidation::Vmid { .. } => (1, Invalidation::TlbAll, Invalidation::TlbAll),
        _ => return asked,
    };
    match ask(d, Question::OverInvalidate { wider }) {
        0 => asked,
        1 => one_step,
        _ => all,
    }
}
