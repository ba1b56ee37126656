//! The unit itself: what it owns, and the calls that drive it.

use super::cache::Caches;
use super::cache::tlb::Space;
use super::capability::Capabilities;
use super::command::{CommandInput, CommandProgress, Commands};
use super::event::{EventInput, EventProgress, Events};
use super::ids::StreamId;
use super::page_requests::PageRequests;
use super::params::Params;
use super::registers::{Registers, StreamTable};
use super::stage_1::virtual_address;
use super::stream::StreamTarget;
use super::walk::{Step, WalkView};
use super::walks::{WALKS_MAX, Walks};
use crate::addr::{DomainId, Pasid};
use crate::ats::{Attributes, RequestKind};
use crate::decision::Decisions;
use crate::inspect::smmu::UnitText;
use crate::provenance::{Provenance, ProvenanceId};
use crate::request::{Access, Busy, CacheHit, Fetched, Progress, Request, Translation, WalkId};
use crate::translator::Translator;

/// One SMMUv3, from reset.
///
/// It allocates in [`Unit::new`] only. Between two calls it holds no lock and does nothing: the caller decides when
/// each walk, the command queue and the event queue take their next step.
#[derive(Clone, Debug)]
pub struct Unit {
    pub(crate) cap: Capabilities,
    pub(crate) params: Params,
    pub(crate) registers: Registers,
    /// SMMUEN: new requests are translated.
    pub(crate) enabled: bool,
    /// The stream table, as the registers say.
    pub(crate) stream_table: StreamTable,
    pub(crate) caches: Caches,
    pub(crate) walks: Walks,
    pub(crate) commands: Commands,
    pub(crate) events: Events,
    pub(crate) page_requests: PageRequests,
    /// Words of the walk that ended last.
    pub(crate) last_words: ProvenanceId,
}

impl Unit {
    /// A unit as reset leaves it. What the manual leaves unknown at reset reads 0, so that GBPA lets requests pass.
    ///
    /// # Panics
    ///
    /// If a capability or a limit is outside the range that its field comment gives.
    #[must_use]
    pub fn new(cap: Capabilities, params: Params) -> Self {
        cap.assert_valid();
        assert!((1..=WALKS_MAX).contains(&params.walks_max), "1 to 256 walks can be in flight");
        assert!(params.events_max >= 2, "one walk needs room for one event");
        Self {
            registers: Registers::new(),
            enabled: false,
            stream_table: StreamTable::default(),
            caches: Caches::new(&params),
            walks: Walks::new(params.walks_max),
            commands: Commands::new(cap.command_queue_bits),
            events: Events::new(cap.event_queue_bits, params.events_max),
            page_requests: PageRequests::new(cap.page_queue_bits),
            last_words: ProvenanceId::NONE,
            cap,
            params,
        }
    }

    /// Back to the state of reset, keeping the buffers. Ids of walks that were in flight are gone.
    pub fn reset(&mut self) {
        self.registers = Registers::new();
        self.enabled = false;
        self.stream_table = StreamTable::default();
        self.caches.reset();
        self.walks.reset();
        self.commands = Commands::new(self.cap.command_queue_bits);
        self.events.reset();
        self.page_requests.reset();
        self.last_words = ProvenanceId::NONE;
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

    /// The StreamID of a request.
    #[must_use]
    pub const fn stream_of(&self, request: &Request) -> StreamId {
        StreamId(self.params.stream_base.0.wrapping_add(request.source.0 as u32))
    }

    /// A request arrives and takes a walker.
    ///
    /// # Errors
    ///
    /// [`Busy`] if every walker is taken, or if so many event records wait to be written that one more might be lost.
    #[inline]
    pub fn begin(&mut self, request: Request) -> Result<WalkId, Busy> {
        self.begin_kind(request, RequestKind::Untranslated)
    }

    /// The same for a request that the bus marks as something else than a plain memory access. Its privilege and execution do
    /// not count. Of a translation request, the access does not count; a translated request has no SubstreamID (IDR3.PASIDTT
    /// is 0).
    ///
    /// # Errors
    ///
    /// As [`Unit::begin`].
    ///
    /// # Panics
    ///
    /// On a page request: that is [`Unit::page_request`].
    pub fn begin_as(&mut self, request: Request, attributes: Attributes) -> Result<WalkId, Busy> {
        let request = match attributes.kind {
            RequestKind::Untranslated => request,
            RequestKind::Translation { no_write } => Request { access: if no_write { Access::Read } else { Access::Write }, ..request },
            RequestKind::Translated => Request { pasid: None, ..request },
            RequestKind::PageRequest => panic!("a page request says more than this"),
        };
        self.begin_kind(request, attributes.kind)
    }

    #[inline]
    fn begin_kind(&mut self, request: Request, kind: RequestKind) -> Result<WalkId, Busy> {
        if self.events.is_crowded(self.walks.len()) {
            return Err(Busy);
        }
        let merge = self.params.merge_same_page && self.enabled;
        let stream = self.stream_of(&request);
        self.walks.begin(request, kind, stream, false, merge).ok_or(Busy)
    }

    /// The unit walks on its own account, as hardware may for anything that it can reach. Such a walk fills the caches and
    /// never records an event; who decides when and where is the caller.
    ///
    /// # Errors
    ///
    /// [`Busy`] if every walker is taken.
    pub fn begin_prefetch(&mut self, request: Request) -> Result<WalkId, Busy> {
        let stream = self.stream_of(&request);
        self.walks.begin(request, RequestKind::Untranslated, stream, true, false).ok_or(Busy)
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
        if state.step == Step::Merged {
            let leader = state.leader;
            if self.walks.is_live(leader) {
                return Progress::Merged { leader, cost: self.params.timing.merge };
            }
        }
        self.step(slot, fetched, d)
    }

    /// A request answered from the caches in one call: what `begin` and two `advance` would say if both look-ups hit and nobody
    /// did anything in between, at the cost of both. `None`, with nothing changed, if it is not that simple: a miss, a
    /// refusal, a bypass, a SubstreamID, a CD table, several page sizes, a walk to merge with, no free walker. Then
    /// `begin` it.
    #[inline]
    pub fn translate_cached(&mut self, request: &Request) -> Option<Translation> {
        let simple = self.enabled && request.pasid.is_none() && !self.events.is_crowded(self.walks.len());
        if !simple || self.walks.would_wait(request, self.params.merge_same_page) {
            return None;
        }
        let stream = self.stream_of(request);
        if u64::from(stream.0) >> self.stream_table.size.min(self.cap.stream_bits) != 0 {
            return None;
        }
        let (stream_place, entry) = self.caches.config.find_stream(stream)?;
        let StreamTarget::Translate(config) = &entry.target else { return None };
        let iova = request.iova.0;
        let (context_place, space, address, tag) = if config.has_stage_1 {
            let (place, entry) = self.caches.config.find_context(stream, Pasid(0))?;
            let context = entry.config.as_ref().filter(|_| config.context_bits == 0)?;
            (Some(place), Space::Virtual(context.asid), virtual_address(context, iova)?, context.asid.0)
        } else {
            let fits = iova >> config.stage_2.tables.input_bits == 0 && iova >> self.cap.output_bits == 0;
            (None, Space::Intermediate, fits.then_some(iova)?, config.vmid.0)
        };
        let place = self.caches.tlb.find_one(config.vmid, space, address)?;
        let entry = self.caches.tlb.get(place);
        if !entry.serves(request.access) {
            return None;
        }
        let timing = &self.params.timing;
        let translation = Translation {
            pa: entry.translate(address),
            readable: entry.readable,
            writable: entry.writable,
            page_bytes: entry.page_bytes,
            domain: DomainId(tag),
            pass_through: false,
            cost: timing.iotlb_lookup,
            cost_total: timing.iotlb_lookup.saturating_add(timing.context_lookup),
            fetches: 0,
            from: CacheHit::Iotlb,
        };
        let words = entry.provenance;
        if words != self.last_words {
            self.caches.words.hold(words);
            self.caches.words.release(core::mem::replace(&mut self.last_words, words));
        }
        self.caches.config.touch(stream_place, context_place);
        self.caches.tlb.touch(place);
        Some(translation)
    }

    /// Ends a walk that came from no table.
    pub(crate) fn finish_without_words(&mut self, slot: usize) {
        self.walks.at(slot).release(&mut self.caches.words);
        self.caches.words.release(core::mem::replace(&mut self.last_words, ProvenanceId::NONE));
        self.walks.free(slot);
    }

    /// The words of the walk that ended last, by translation or fault, outermost first. It stays until the next one
    /// ends, whatever happens to the caches; a walk that needed no table, or was given up, leaves none.
    #[must_use]
    pub fn last_provenance(&self) -> Provenance {
        self.caches.words.read(self.last_words)
    }

    /// The words that a walk in flight holds by now, outermost first; while stage 2 works for a nested walk, those of stage 2.
    #[must_use]
    pub fn provenance(&self, walk: WalkId) -> Option<Provenance> {
        self.walks.get(walk).map(|walk| self.caches.words.read(walk.words))
    }

    /// Gives a walk up, without a trace. Returns whether it was in flight.
    pub fn cancel(&mut self, walk: WalkId) -> bool {
        if !self.walks.is_live(walk) {
            return false;
        }
        let slot = usize::from(walk.slot);
        self.walks.at(slot).release(&mut self.caches.words);
        self.walks.free(slot);
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

    /// Whether new requests are translated (CR0.SMMUEN).
    #[must_use]
    pub const fn translation_enabled(&self) -> bool {
        self.enabled
    }

    /// Whether `command_advance` would do more than say [`CommandProgress::Idle`].
    #[must_use]
    pub fn commands_have_work(&self) -> bool {
        self.commands.has_work(self.command_error_active())
    }

    /// One step of the command queue.
    pub fn command_advance(&mut self, input: CommandInput, d: &mut dyn Decisions) -> CommandProgress {
        self.step_commands(input, d)
    }

    /// Whether `event_advance` would do more than say [`EventProgress::Idle`].
    #[must_use]
    pub fn events_have_work(&self) -> bool {
        self.events.pending() != 0
    }

    /// One step of the event queue.
    pub fn event_advance(&mut self, input: EventInput) -> EventProgress {
        self.step_events(input)
    }

    /// What is cached now.
    #[must_use]
    pub const fn caches(&self) -> &Caches {
        &self.caches
    }

    /// The whole state as stable text: registers, caches, walks.
    #[must_use]
    pub const fn snapshot(&self) -> UnitText<'_> {
        UnitText(self)
    }

    /// Drops one cached entry, as hardware may at any time: the `n`-th of STEs, CDs, level-1 descriptors, TLB, walk caches.
    /// Returns whether there was one.
    pub fn drop_cached(&mut self, n: usize) -> bool {
        self.caches.drop_nth(n)
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
