//! The state of one walk in flight.

use super::need::Need;
use crate::addr::{Bdf, DomainId, Iova, Pa, Pasid};
use crate::ats::{Attributes, RequestKind};
use crate::cache::context::ContextTarget;
use crate::cache::iotlb::page_shift;
use crate::cache::pasid::{PasidTarget, Stages};
use crate::provenance::{ProvenanceId, Words};
use crate::request::{Access, CacheHit, FetchKind, Request, WalkId};

/// Where a walk stands; the next call of `advance` does this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// Checks that need no table, then the context-cache look-up.
    Begin,
    /// Nothing until the leader has ended.
    Merged,
    /// Fetch of the root entry.
    Root,
    /// Fetch of the context entry.
    Context,
    /// PASID-cache look-up.
    Pasid,
    /// Fetch of the PASID directory entry.
    Directory,
    /// Fetch of the PASID table entry.
    PasidEntry,
    /// First stage: checks of the address, IOTLB look-up.
    FirstIotlb,
    /// First stage: look-up in the paging-structure caches.
    FirstPsc,
    /// Fetch of the first-stage entry at [`Walk::first`].
    FirstTable,
    /// Update of that entry.
    FirstUpdate,
    /// Only or second stage: width check, pass-through, IOTLB look-up.
    Iotlb,
    /// Look-up in the paging-structure caches.
    Psc,
    /// Fetch of the paging entry at [`Walk::level`].
    Table,
    /// Update of that entry.
    TableUpdate,
}

/// Where the first stage of a walk stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FirstStage {
    /// Table of the next entry; nested, an address of the second stage.
    pub(crate) table: Pa,
    /// Level of the next entry.
    pub(crate) level: u8,
    /// The last entry was the leaf: what is left is the second stage of the page.
    pub(crate) done: bool,
    /// AND of R/W so far.
    pub(crate) writable: bool,
    /// AND of U/S so far.
    pub(crate) user: bool,
    /// No entry so far denies execution.
    pub(crate) executable: bool,
    /// D of the leaf.
    pub(crate) dirty: bool,
    /// The second stage lets A and D be set in the table.
    pub(crate) table_writable: bool,
    pub(crate) from: CacheHit,
    /// log2 of the page size of the leaf.
    pub(crate) shift: u8,
}

/// What a walk has beyond legacy mode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScalableState {
    /// PASID of the request, or the one for requests without.
    pub(crate) pasid: Pasid,
    /// A PASID table entry is held: `target` and the walk's domain count.
    pub(crate) has_pasid: bool,
    pub(crate) privileged: bool,
    pub(crate) target: PasidTarget,
    pub(crate) first: FirstStage,
    /// Words of the whole nested walk, while those of its second stage are in [`Walk::words`].
    pub(crate) outer_words: ProvenanceId,
    /// Words up to the PASID table entry, held while the walk is nested.
    pub(crate) base_words: ProvenanceId,
    /// What the outstanding update expects and stores.
    pub(crate) update: [u64; 2],
    /// Updates that found another word, in a row.
    pub(crate) tries: u8,
}

impl FirstStage {
    /// A walk that begins at `table`.
    pub(crate) const fn at(table: Pa, level: u8) -> Self {
        Self {
            table,
            level,
            done: false,
            writable: true,
            user: true,
            executable: true,
            dirty: false,
            table_writable: true,
            from: CacheHit::None,
            shift: 0,
        }
    }
}

impl ScalableState {
    pub(crate) const IDLE: Self = Self {
        pasid: Pasid(0),
        has_pasid: false,
        privileged: false,
        target: PasidTarget::NOWHERE,
        first: FirstStage::at(Pa(0), 0),
        outer_words: ProvenanceId::NONE,
        base_words: ProvenanceId::NONE,
        update: [0; 2],
        tries: 0,
    };
}

/// What answer is still to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outstanding {
    None,
    /// To the fetch of what the stage says, at [`Walk::pending_pa`].
    Wanted,
    /// To a fetch that a restart dropped.
    Dropped,
}

/// One walk.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(crate) struct Walk {
    pub(crate) request: Request,
    pub(crate) attributes: Attributes,
    pub(crate) stage: Stage,
    pub(crate) outstanding: Outstanding,
    /// A prefetch never records a fault.
    pub(crate) prefetch: bool,
    pub(crate) fault_disable: bool,
    /// A context entry is held: `domain` and `target` count.
    pub(crate) has_context: bool,
    /// It goes by the rules and fault codes of scalable mode: `scalable` counts.
    pub(crate) is_scalable: bool,
    /// A and D of the only or second stage are maintained.
    pub(crate) second_update: bool,
    pub(crate) from: CacheHit,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// No entry of the only or second stage so far denies execution; counts in scalable mode.
    pub(crate) executable: bool,
    /// Level of the next entry.
    pub(crate) level: u8,
    /// Level of the top table.
    pub(crate) top: u8,
    pub(crate) domain: DomainId,
    pub(crate) words: ProvenanceId,
    pub(crate) target: ContextTarget,
    pub(crate) pending_pa: Pa,
    /// What the only or second stage translates.
    pub(crate) input: Iova,
    /// What the only or second stage is asked for.
    pub(crate) need: Need,
    /// The context entry lets the device use a device TLB.
    pub(crate) device_tlb: bool,
    /// The context entry lets the device send page requests.
    pub(crate) page_requests: bool,
    /// Words of a split fetch that are still to come; 0 if the fetch is not split.
    pub(crate) split_left: u8,
    /// A split fetch goes from the last word to the first.
    pub(crate) split_descending: bool,
    /// Table of the next entry.
    pub(crate) table: Pa,
    /// The walk it waits for, while `stage` says so.
    pub(crate) leader: WalkId,
    pub(crate) cost_total: u32,
    pub(crate) fetches: u32,
    /// Odd while the walker is taken.
    pub(crate) generation: u32,
    pub(crate) scalable: ScalableState,
}

impl Walk {
    /// A walker that nobody uses.
    pub(crate) fn idle() -> Self {
        Self {
            request: Request { source: Bdf(0), iova: Iova(0), access: Access::Read, pasid: None },
            attributes: Attributes::PLAIN,
            stage: Stage::Begin,
            outstanding: Outstanding::None,
            prefetch: false,
            fault_disable: false,
            has_context: false,
            is_scalable: false,
            second_update: false,
            input: Iova(0),
            need: Need::READ,
            device_tlb: false,
            page_requests: false,
            split_left: 0,
            split_descending: false,
            scalable: ScalableState::IDLE,
            from: CacheHit::None,
            readable: true,
            writable: true,
            executable: true,
            level: 0,
            top: 0,
            domain: DomainId(0),
            words: ProvenanceId::NONE,
            target: ContextTarget::PassThrough,
            pending_pa: Pa(0),
            table: Pa(0),
            leader: WalkId { slot: 0, generation: 0 },
            cost_total: 0,
            fetches: 0,
            generation: 0,
        }
    }

    /// Takes the walker for a request.
    #[inline]
    pub(crate) fn start(&mut self, request: Request, attributes: Attributes, prefetch: bool) {
        self.request = request;
        self.attributes = attributes;
        self.input = request.iova;
        self.need = Need::of(&request, attributes);
        self.split_left = 0;
        self.is_scalable = false;
        self.second_update = false;
        self.stage = Stage::Begin;
        self.outstanding = Outstanding::None;
        self.prefetch = prefetch;
        self.fault_disable = false;
        self.has_context = false;
        self.from = CacheHit::None;
        self.words = ProvenanceId::NONE;
        self.cost_total = 0;
        self.fetches = 0;
    }

    /// Back to the beginning, without any word read so far.
    pub(crate) fn restart(&mut self, words: &mut Words) {
        if self.is_pending() {
            self.outstanding = Outstanding::Dropped;
        }
        self.stage = Stage::Begin;
        self.fault_disable = false;
        self.has_context = false;
        self.from = CacheHit::None;
        self.input = self.request.iova;
        self.need = self.wanted();
        self.split_left = 0;
        self.second_update = false;
        words.release(core::mem::replace(&mut self.words, ProvenanceId::NONE));
        if self.is_scalable {
            self.forget_scalable(words);
        }
    }

    /// Lets go of what only scalable mode holds.
    #[cold]
    pub(crate) fn forget_scalable(&mut self, words: &mut Words) {
        words.release(self.scalable.outer_words);
        words.release(self.scalable.base_words);
        self.scalable = ScalableState::IDLE;
        self.is_scalable = false;
    }

    /// Whether an answer must not grant writes: the device said that it will not write.
    #[inline(always)]
    pub(crate) fn hides_write(&self) -> bool {
        matches!(self.attributes.kind, RequestKind::Translation { no_write: true })
    }

    /// What the request itself needs.
    #[inline]
    pub(crate) fn wanted(&self) -> Need {
        Need::of(&self.request, self.attributes)
    }

    /// Whether a first stage on a second one is walked.
    pub(crate) fn is_nested(&self) -> bool {
        self.is_scalable && self.scalable.has_pasid && self.scalable.target.stages == Stages::Nested
    }

    /// The PASID that tags what is cached of this walk.
    pub(crate) fn tag_pasid(&self) -> Option<Pasid> {
        let tagged = self.is_scalable && self.scalable.has_pasid && matches!(self.scalable.target.stages, Stages::First | Stages::Nested);
        tagged.then_some(self.scalable.pasid)
    }

    /// Adds the cost of a step and returns it.
    #[inline]
    pub(crate) fn spend(&mut self, cost: u32) -> u32 {
        self.cost_total = self.cost_total.saturating_add(cost);
        cost
    }

    /// Which word of a split entry is awaited.
    pub(crate) fn split_index(&self) -> usize {
        let total = self.kind().bytes() / 8;
        usize::from(if self.split_descending { self.split_left - 1 } else { total - self.split_left })
    }

    /// Where the awaited words lie.
    pub(crate) fn awaited_pa(&self) -> Pa {
        if self.split_left == 0 { self.pending_pa } else { self.pending_pa.offset(8 * self.split_index() as u64) }
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.outstanding == Outstanding::Wanted
    }

    /// What the outstanding fetch reads.
    pub(crate) fn awaited_kind(&self) -> Option<FetchKind> {
        self.is_pending().then(|| self.kind())
    }

    /// What the present stage fetches.
    pub(crate) fn kind(&self) -> FetchKind {
        match self.stage {
            Stage::Root => FetchKind::Root,
            Stage::Context if self.is_scalable => FetchKind::ScalableContext,
            Stage::Context => FetchKind::Context,
            Stage::Directory => FetchKind::PasidDirectory,
            Stage::PasidEntry => FetchKind::PasidEntry,
            Stage::FirstTable | Stage::FirstUpdate => FetchKind::FirstStage { level: self.scalable.first.level },
            _ => FetchKind::Table { level: self.level },
        }
    }

    fn awaits_context(&self) -> bool {
        self.is_pending() && self.stage == Stage::Context
    }

    /// Whether any word was read or is awaited.
    pub(crate) fn holds_anything(&self) -> bool {
        self.is_pending() || self.words.is_some()
    }

    /// Whether a context entry of `domain` is held, or one that may be is awaited.
    pub(crate) fn may_hold_context_of(&self, domain: DomainId) -> bool {
        // A scalable-mode context entry is of no domain.
        !self.is_scalable && (self.awaits_context() || self.domain() == Some(domain))
    }

    /// Whether a PASID table entry that may be of this domain, and of this PASID if one is named, is held or awaited.
    pub(crate) fn may_hold_pasid_of(&self, domain: DomainId, pasid: Option<Pasid>) -> bool {
        let awaited = matches!(self.stage, Stage::Directory | Stage::PasidEntry) && self.is_pending();
        let named = pasid.is_none_or(|pasid| pasid == self.scalable.pasid);
        self.is_scalable && named && (awaited || self.domain() == Some(domain))
    }

    /// Whether a directory or PASID table entry is held or awaited.
    pub(crate) fn touches_pasid(&self) -> bool {
        self.is_scalable && (self.scalable.has_pasid || matches!(self.stage, Stage::Directory | Stage::PasidEntry))
    }

    /// Whether a context entry is held or awaited.
    pub(crate) fn touches_context(&self) -> bool {
        self.awaits_context() || self.has_context
    }

    /// Whether a paging entry is held or awaited.
    pub(crate) fn touches_tables(&self) -> bool {
        match self.stage {
            Stage::Table | Stage::TableUpdate | Stage::FirstTable | Stage::FirstUpdate => true,
            Stage::Iotlb | Stage::Psc => self.is_nested(),
            _ => false,
        }
    }

    pub(crate) fn domain(&self) -> Option<DomainId> {
        let known = if self.is_scalable { self.scalable.has_pasid } else { self.has_context };
        known.then_some(self.domain)
    }

    /// Level, first address and span of what the next or awaited first-stage entry leads to.
    pub(crate) fn first_span(&self, above: u8) -> (Iova, u64) {
        let span = 1 << page_shift(self.scalable.first.level + above);
        (Iova(self.request.iova.0 & !(span - 1)), span)
    }

    /// First address and span of what the innermost held non-leaf entry leads to.
    pub(crate) fn innermost_held(&self) -> Option<(Iova, u64)> {
        (self.touches_tables() && self.level < self.top).then(|| self.span(self.level + 1))
    }

    /// Level, first address and span of the awaited paging entry.
    pub(crate) fn awaited(&self) -> Option<(u8, Iova, u64)> {
        if !self.touches_tables() || !self.is_pending() {
            return None;
        }
        let (first, span) = self.span(self.level);
        Some((self.level, first, span))
    }

    fn span(&self, level: u8) -> (Iova, u64) {
        let span = 1 << page_shift(level);
        (Iova(self.input.0 & !(span - 1)), span)
    }
}
