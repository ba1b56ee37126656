//! The unit itself: what it owns, and the calls that drive it.

use super::capability::Capabilities;
use super::fault::{EventBlock, Faults, Recorded};
use super::page_requests::PageRequests;
use super::queue::{Queue, QueueInput, QueueProgress};
use super::registers::Plain;
use super::scalable_walk::scalable_reason;
use super::second_stage::{SecondStageReserved, beyond_width};
use super::step::in_interrupt_range;
use super::walk::Stage;
use super::walkers::{WALKS_MAX, WalkView, Walks};
use crate::ats::{Attributes, RequestKind};
use crate::cache::Caches;
use crate::cache::context::ContextTarget;
use crate::cache::iotlb::page_shift;
use crate::decision::Decisions;
use crate::inspect::{self, UnitText};
use crate::invalidation_tags::InvalidationTags;
use crate::provenance::{Provenance, ProvenanceId, SOURCES_NESTED_MAX, Source};
use crate::request::{Access, Busy, CacheHit, Fault, FaultInfo, Fetched, Progress, Request, Translation, WalkId};
use crate::spec::vtd::fault::{FaultReason, FaultRecord};
use crate::spec::vtd::register::CompletionStatus;
use crate::spec::vtd::root::{RootTableAddress, TTM_ABORT, TTM_LEGACY};
use crate::timing::Params;
use crate::translator::Translator;

/// One remapping unit, from power-on.
///
/// It allocates in [`Unit::new`] only. Between two calls it holds no lock and does nothing: the caller decides when
/// each walk and the queue take their next step.
#[derive(Clone, Debug)]
pub struct Unit {
    pub(crate) cap: Capabilities,
    pub(crate) params: Params,
    pub(crate) reserved: SecondStageReserved,
    pub(crate) plain: Plain,
    /// The root table in use: what SRTP latched.
    pub(crate) root: RootTableAddress,
    pub(crate) translation_enabled: bool,
    pub(crate) caches: Caches,
    pub(crate) walks: Walks,
    pub(crate) queue: Queue,
    pub(crate) faults: Faults,
    pub(crate) page_requests: PageRequests,
    pub(crate) devices: InvalidationTags,
    pub(crate) completion_status: CompletionStatus,
    pub(crate) completion_event: EventBlock,
}

impl Unit {
    /// A unit in power-on state.
    ///
    /// # Panics
    ///
    /// If a capability or a limit is outside the range that its field comment gives.
    #[must_use]
    pub fn new(cap: Capabilities, params: Params) -> Self {
        cap.assert_valid();
        assert!((1..=WALKS_MAX).contains(&params.walks_max), "1 to 256 walks can be in flight");
        Self {
            reserved: SecondStageReserved::of_unit(&cap),
            plain: Plain::new(),
            root: RootTableAddress::new(),
            translation_enabled: false,
            caches: Caches::new(&params, cap.scalable.is_some()),
            walks: Walks::new(params.walks_max, params.split_fetches),
            queue: Queue::new(),
            faults: Faults::new(cap.fault_records),
            page_requests: PageRequests::new(params.walks_max),
            devices: InvalidationTags::new(),
            completion_status: CompletionStatus::new(),
            completion_event: EventBlock::new(),
            cap,
            params,
        }
    }

    /// Back to power-on state, keeping the buffers, at a cost that does not grow with what was cached. Ids of walks
    /// that were in flight are gone.
    pub fn reset(&mut self) {
        self.plain = Plain::new();
        self.root = RootTableAddress::new();
        self.translation_enabled = false;
        self.caches.reset();
        self.walks.reset();
        self.queue = Queue::new();
        self.faults.reset();
        self.page_requests.reset();
        self.devices = InvalidationTags::new();
        self.completion_status = CompletionStatus::new();
        self.completion_event = EventBlock::new();
    }

    /// What the unit can do.
    #[must_use]
    pub const fn capabilities(&self) -> &Capabilities {
        &self.cap
    }

    /// Its sizes and costs.
    #[must_use]
    pub const fn params(&self) -> &Params {
        &self.params
    }

    /// A request arrives and takes a walker.
    ///
    /// # Errors
    ///
    /// [`Busy`] if every walker is taken.
    #[inline]
    pub fn begin(&mut self, request: Request) -> Result<WalkId, Busy> {
        self.begin_as(request, Attributes::PLAIN)
    }

    /// The same for a request that the bus marks as something else than a plain memory access.
    ///
    /// # Errors
    ///
    /// [`Busy`] if every walker is taken.
    ///
    /// # Panics
    ///
    /// On a page request: that is begun by [`Unit::begin_page_request`].
    #[inline]
    pub fn begin_as(&mut self, request: Request, attributes: Attributes) -> Result<WalkId, Busy> {
        assert!(attributes.kind != RequestKind::PageRequest, "a page request says more than this");
        let merge = self.params.merge_same_page && self.translation_enabled;
        self.walks.begin(request, attributes, false, merge).ok_or(Busy)
    }

    /// The unit walks on its own account, as hardware may for any present entry. Such a walk fills the caches and
    /// never records a fault; who decides when and where is the caller.
    ///
    /// # Errors
    ///
    /// [`Busy`] if every walker is taken.
    pub fn begin_prefetch(&mut self, request: Request) -> Result<WalkId, Busy> {
        self.walks.begin(request, Attributes::PLAIN, true, false).ok_or(Busy)
    }

    /// One look-up, or one fetched word, of a walk. After a restart the answer to the fetch that was outstanding may
    /// still be brought; it is thrown away.
    ///
    /// # Panics
    ///
    /// If the walk is not in flight, or an answer is brought that was not asked for.
    #[inline]
    pub fn advance(&mut self, walk: WalkId, fetched: Option<Fetched>, d: &mut dyn Decisions) -> Progress {
        assert!(self.walks.is_live(walk), "the walk is in flight");
        let slot = usize::from(walk.slot);
        let state = self.walks.at(slot);
        if state.stage == Stage::Merged {
            let leader = state.leader;
            if self.walks.is_live(leader) {
                return Progress::Merged { leader, cost: self.params.timing.merge };
            }
        }
        self.step(slot, fetched, d)
    }

    /// A request answered from the caches in one call: what `begin` and two `advance` would say if both look-ups hit
    /// and nobody did anything in between, at the cost of both. `None`, with nothing changed, if it is not that
    /// simple: a miss, a refusal, a bypass, scalable mode, a walk to merge with, no free walker. Then `begin` it.
    #[inline]
    pub fn translate_cached(&mut self, request: &Request) -> Option<Translation> {
        let simple = self.translation_enabled && self.root.mode() == TTM_LEGACY && request.pasid.is_none();
        if !simple || self.walks.would_wait(request, self.params.merge_same_page) {
            return None;
        }
        if request.access == Access::Write && in_interrupt_range(request.iova.0) {
            return None;
        }
        let context_place = self.caches.context.find(request.source)?;
        let context = self.caches.context.get(context_place);
        let domain = context.domain;
        let ContextTarget::Tables { levels, .. } = context.target else { return None };
        if beyond_width(request.iova, self.cap.guest_width.min(page_shift(levels + 1) as u8)) {
            return None;
        }
        let place = self.caches.iotlb.find_one(domain, 0, request.iova)?;
        let entry = self.caches.iotlb.get(place);
        let pa = entry.translate(request.iova);
        if !entry.serves(request.access) || in_interrupt_range(pa.0) {
            return None;
        }
        let cost = self.params.timing.iotlb_lookup;
        let translation = Translation {
            pa,
            readable: entry.readable,
            writable: entry.writable,
            page_bytes: entry.page_bytes,
            domain,
            pass_through: false,
            cost,
            cost_total: cost.saturating_add(self.params.timing.context_lookup),
            fetches: 0,
            from: CacheHit::Iotlb,
        };
        self.caches.words.end_with_cached(entry.provenance);
        self.caches.context.touch(context_place);
        self.caches.iotlb.touch(place);
        Some(translation)
    }

    /// Ends the walk with a fault. `spent` is the cost of the step before it failed.
    #[cold]
    pub(crate) fn fault(&mut self, slot: usize, reason: FaultReason, spent: u32, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let (request, attributes, fault_disable) = (walk.request, walk.attributes, walk.fault_disable);
        let reason = if walk.is_scalable { scalable_reason(reason) } else { reason };
        // Nobody is told of a prefetch, nor of what came while nothing is remapped.
        let unknown = !self.translation_enabled && attributes.kind != RequestKind::Untranslated;
        let aborts = self.cap.abort_mode && self.root.mode() == TTM_ABORT;
        let quiet = walk.prefetch || unknown || aborts;
        if walk.is_scalable {
            // What the whole walk read, if its second stage failed.
            if walk.scalable.outer_words.is_some() {
                let inner = core::mem::replace(&mut walk.words, core::mem::replace(&mut walk.scalable.outer_words, ProvenanceId::NONE));
                walk.words = self.caches.words.append_tables(walk.words, inner);
                self.caches.words.release(inner);
            }
        }
        if attributes.kind != RequestKind::Untranslated {
            if let Some(answer) = self.answer_instead(slot, reason, spent) {
                return answer;
            }
            self.page_requests.refuse(slot);
        }
        self.end(slot);
        let record = if quiet { Recorded::default() } else { self.faults.record(reason, &request, attributes, fault_disable, d) };
        Progress::Fault(FaultInfo {
            reason: Fault::Vtd(reason),
            source: request.source,
            iova: request.iova,
            access: request.access,
            recorded: record.recorded,
            interrupt: record.message,
            cost: spent.saturating_add(self.params.timing.fault),
        })
    }

    /// The words of the walk that ended last, by translation or fault, outermost first. It stays until the next one
    /// ends, whatever happens to the caches; a walk that needed no table, or was given up, leaves none.
    #[must_use]
    pub fn last_provenance(&self) -> Provenance {
        self.caches.words.last()
    }

    /// The same as [`Unit::last_provenance`], into a buffer of the caller; it never allocates.
    #[must_use]
    pub fn last_sources<'a>(&self, buffer: &'a mut [Source; SOURCES_NESTED_MAX]) -> &'a [Source] {
        self.caches.words.last_into(buffer)
    }

    /// The words that a walk in flight holds by now, outermost first.
    #[must_use]
    pub fn provenance(&self, walk: WalkId) -> Option<Provenance> {
        self.walks.words_of(walk).map(|words| self.caches.words.read(words))
    }

    /// Gives a walk up, without a trace. Returns whether it was in flight.
    pub fn cancel(&mut self, walk: WalkId) -> bool {
        let Some(words) = self.walks.words_of(walk) else { return false };
        self.caches.words.release(words);
        self.page_requests.refuse(usize::from(walk.slot));
        let state = self.walks.at(usize::from(walk.slot));
        if state.is_scalable {
            state.forget_scalable(&mut self.caches.words);
        }
        self.walks.free(usize::from(walk.slot));
        true
    }

    /// Walks in flight, by walker.
    pub fn in_flight(&self) -> impl Iterator<Item = WalkView> {
        self.walks.views()
    }

    /// How many walks are in flight.
    #[must_use]
    pub fn in_flight_count(&self) -> usize {
        self.walks.len()
    }

    /// Whether translation is on (GSTS.TES).
    #[must_use]
    pub const fn translation_enabled(&self) -> bool {
        self.translation_enabled
    }

    /// The root table in use, as SRTP latched it.
    #[must_use]
    pub const fn root_in_use(&self) -> RootTableAddress {
        self.root
    }

    /// Whether `queue_advance` would do more than say [`QueueProgress::Idle`].
    #[must_use]
    pub fn queue_has_work(&self) -> bool {
        self.queue.has_work(self.faults.queue_is_stopped()) && !self.queue_is_blocked()
    }

    /// One step of the invalidation queue.
    pub fn queue_advance(&mut self, input: QueueInput, d: &mut dyn Decisions) -> QueueProgress {
        self.step_queue(input, d)
    }

    /// What is cached now.
    #[must_use]
    pub const fn caches(&self) -> &Caches {
        &self.caches
    }

    /// Drops one cached entry, as hardware may at any time: the `n`-th of contexts, PASIDs, IOTLB, paging-structure caches.
    /// Returns whether there was one.
    pub fn drop_cached(&mut self, n: usize) -> bool {
        self.caches.drop_nth(n)
    }

    /// Fault records, whether pending or not.
    #[must_use]
    pub fn fault_records(&self) -> &[FaultRecord] {
        self.faults.records()
    }

    /// State as stable text: registers, caches, walks. Costs a sort; meant for reports, not for steps.
    #[must_use]
    pub const fn snapshot(&self) -> UnitText<'_> {
        inspect::unit(self)
    }
}

impl Translator for Unit {
    fn begin(&mut self, request: Request) -> Result<WalkId, Busy> {
        Self::begin(self, request)
    }

    fn advance(&mut self, walk: WalkId, fetched: Option<Fetched>, d: &mut dyn Decisions) -> Progress {
        Self::advance(self, walk, fetched, d)
    }

    fn cancel(&mut self, walk: WalkId) -> bool {
        Self::cancel(self, walk)
    }

    fn last_provenance(&self) -> Provenance {
        Self::last_provenance(self)
    }

    fn in_flight_count(&self) -> usize {
        Self::in_flight_count(self)
    }
}
