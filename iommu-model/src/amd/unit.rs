//! The unit itself: what it owns, and the calls that drive it.

use super::cache::Caches;
use super::capability::Capabilities;
use super::command_buffer::CommandBuffer;
use super::device_walk::{After, Rules, is_interrupt};
use super::event_log::EventLog;
use super::registers::MessageRegisters;
use super::walk::{Step, WalkView};
use super::walkers::{WALKS_MAX, Walkers};
use crate::ats::{Attributes, RequestKind};
use crate::cache::store::Cached;
use crate::decision::Decisions;
use crate::inspect::amd::UnitText;
use crate::provenance::{Provenance, ProvenanceId};
use crate::request::{Access, Busy, CacheHit, Fetched, Progress, Request, Translation, WalkId};
use crate::spec::amd::control::{Control, Status};
use crate::spec::amd::register::{DeviceTableBase, ExclusionBase, ExclusionLimit};
use crate::timing::Params;
use crate::translator::Translator;

/// One IOMMU, from reset.
///
/// It allocates in [`Unit::new`] only. Between two calls it holds no lock and does nothing: the caller decides when
/// each walk, the command buffer and the event log take their next step.
#[derive(Clone, Debug)]
pub struct Unit {
    pub(crate) cap: Capabilities,
    pub(crate) params: Params,
    pub(crate) device_table: DeviceTableBase,
    pub(crate) control: Control,
    /// Without EventLogRun and CmdBufRun, which are kept with their buffers.
    pub(crate) status: Status,
    pub(crate) exclusion: ExclusionBase,
    pub(crate) exclusion_limit: ExclusionLimit,
    pub(crate) msi: MessageRegisters,
    pub(crate) caches: Caches,
    pub(crate) walkers: Walkers,
    pub(crate) commands: CommandBuffer,
    pub(crate) events: EventLog,
    /// Words of the walk that ended last.
    pub(crate) last_words: ProvenanceId,
}

impl Unit {
    /// A unit after reset.
    ///
    /// # Panics
    ///
    /// If a capability or a limit is outside the range that its field comment gives.
    #[must_use]
    pub fn new(cap: Capabilities, params: Params) -> Self {
        cap.assert_valid();
        assert!((1..=WALKS_MAX).contains(&params.walks_max), "1 to 256 walks can be in flight");
        Self {
            device_table: DeviceTableBase::new(),
            control: Control::new(),
            status: Status::new(),
            exclusion: ExclusionBase::new(),
            exclusion_limit: ExclusionLimit::new(),
            msi: MessageRegisters::new(),
            caches: Caches::new(&params),
            walkers: Walkers::new(params.walks_max),
            commands: CommandBuffer::new(),
            events: EventLog::new(),
            last_words: ProvenanceId::NONE,
            cap,
            params,
        }
    }

    /// Back to the state after reset, keeping the buffers, at a cost that does not grow with what was cached. Ids of
    /// walks that were in flight are gone.
    pub fn reset(&mut self) {
        self.device_table = DeviceTableBase::new();
        self.control = Control::new();
        self.status = Status::new();
        self.exclusion = ExclusionBase::new();
        self.exclusion_limit = ExclusionLimit::new();
        self.msi = MessageRegisters::new();
        self.caches.reset();
        self.walkers.reset();
        self.commands = CommandBuffer::new();
        self.events.reset();
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

    /// A request arrives and takes a walker.
    ///
    /// # Errors
    ///
    /// [`Busy`] if every walker is taken.
    #[inline]
    pub fn begin(&mut self, request: Request) -> Result<WalkId, Busy> {
        self.begin_kind(request, RequestKind::Untranslated)
    }

    /// The same for a request that the bus marks as something else than a plain memory access. Its privilege and execution do
    /// not count. Of a translation request, the access does not count.
    ///
    /// # Errors
    ///
    /// [`Busy`] if every walker is taken.
    ///
    /// # Panics
    ///
    /// On a page request: there is no log for them.
    pub fn begin_as(&mut self, request: Request, attributes: Attributes) -> Result<WalkId, Busy> {
        let request = match attributes.kind {
            RequestKind::Untranslated | RequestKind::Translated => request,
            RequestKind::Translation { no_write } => Request { access: if no_write { Access::Read } else { Access::Write }, ..request },
            RequestKind::PageRequest => panic!("page requests are not modelled"),
        };
        self.begin_kind(request, attributes.kind)
    }

    #[inline]
    fn begin_kind(&mut self, request: Request, kind: RequestKind) -> Result<WalkId, Busy> {
        let merge = self.params.merge_same_page && self.control.enable();
        self.walkers.begin(request, kind, false, merge).ok_or(Busy)
    }

    /// The unit walks on its own account. Such a walk fills the caches and never logs an event; who decides when and
    /// where is the caller.
    ///
    /// # Errors
    ///
    /// [`Busy`] if every walker is taken.
    pub fn begin_prefetch(&mut self, request: Request) -> Result<WalkId, Busy> {
        self.walkers.begin(request, RequestKind::Untranslated, true, false).ok_or(Busy)
    }

    /// One look-up, or one answered fetch or update, of a walk. After a restart the answer to the fetch that was
    /// outstanding may still be brought; it is thrown away.
    ///
    /// # Panics
    ///
    /// If the walk is not in flight, or an answer is brought that was not asked for.
    #[inline]
    pub fn advance(&mut self, walk: WalkId, fetched: Option<Fetched>, d: &mut dyn Decisions) -> Progress {
        assert!(self.walkers.is_live(walk), "the walk is in flight");
        let slot = usize::from(walk.slot);
        let state = self.walkers.at(slot);
        if state.step == Step::Merged {
            let leader = state.leader;
            if self.walkers.is_live(leader) {
                return Progress::Merged { leader, cost: self.params.timing.merge };
            }
        }
        self.step(slot, fetched, d)
    }

    /// A request answered from the caches in one call: what `begin` and two `advance` would say if both look-ups hit
    /// and nobody did anything in between, at the cost of both. `None`, with nothing changed, if it is not that
    /// simple. Then `begin` it.
    #[inline]
    pub fn translate_cached(&mut self, request: &Request) -> Option<Translation> {
        if !self.control.enable() || is_interrupt(request) || self.walkers.would_wait(request, self.params.merge_same_page) {
            return None;
        }
        let device = &self.caches.devices.peek(request.source)?.entry;
        let rules = Rules { cap: &self.cap, control: self.control, exclusion: self.exclusion, exclusion_limit: self.exclusion_limit };
        let (None, After::Translate) = rules.judge(request, false, device) else { return None };
        let place = self.caches.tlb.find_one(super::cache::space::Space::Host(device.domain), request.iova.0)?;
        let entry = self.caches.tlb.get(place);
        if !entry.serves(request.access) {
            return None;
        }
        let cost = self.params.timing.iotlb_lookup;
        let translation = Translation {
            pa: entry.translate(request.iova),
            readable: entry.readable && device.readable,
            writable: entry.writable && device.writable,
            page_bytes: 1 << entry.shift,
            domain: device.domain,
            pass_through: false,
            cost,
            cost_total: cost.saturating_add(self.params.timing.context_lookup),
            fetches: 0,
            from: CacheHit::Iotlb,
        };
        let words = entry.words();
        if words != self.last_words {
            self.caches.words.hold(words);
            self.caches.words.release(core::mem::replace(&mut self.last_words, words));
        }
        self.caches.devices.lookup(request.source);
        self.caches.tlb.touch(place);
        Some(translation)
    }

    /// Gives a walk up, without a trace. Returns whether it was in flight.
    pub fn cancel(&mut self, walk: WalkId) -> bool {
        if !self.walkers.is_live(walk) {
            return false;
        }
        let slot = usize::from(walk.slot);
        self.walkers.at(slot).release(&mut self.caches.words);
        self.walkers.free(slot);
        true
    }

    /// The words of the walk that ended last, by translation or fault, outermost first. It stays until the next one
    /// ends, whatever happens to the caches; a walk that needed no table leaves none.
    #[must_use]
    pub fn last_provenance(&self) -> Provenance {
        self.caches.words.read(self.last_words)
    }

    /// The words that a walk in flight holds by now, outermost first; inside a host walk for the guest, only those of it.
    #[must_use]
    pub fn provenance(&self, walk: WalkId) -> Option<Provenance> {
        self.walkers.words_of(walk).map(|words| self.caches.words.read(words))
    }

    /// Walks in flight, by walker.
    pub fn in_flight(&self) -> impl Iterator<Item = WalkView> {
        self.walkers.views()
    }

    /// How many walks are in flight.
    #[must_use]
    pub fn in_flight_count(&self) -> usize {
        self.walkers.len()
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

    /// Drops one cached entry, as hardware may at any time: the `n`-th of device table entries, GCR3 table entries, TLB,
    /// page-directory caches. Returns whether there was one.
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
