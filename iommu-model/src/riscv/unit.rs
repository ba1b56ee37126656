//! The unit itself: what it owns, and the calls that drive it.

use super::cache::Caches;
use super::capability::{Capabilities, InterruptSignalling};
use super::command_queue::CommandQueue;
use super::debug::DebugRegisters;
use super::interrupt::Interrupts;
use super::messages::InterruptFile;
use super::record_queue::RecordQueue;
use super::request::{PageRequestOutcome, Transaction};
use super::walk::{Origin, Step, WalkView};
use super::walkers::{WALKS_MAX, Walkers};
use crate::decision::Decisions;
use crate::inspect::riscv::UnitText;
use crate::provenance::{Provenance, ProvenanceId};
use crate::request::{Busy, Fetched, Progress, Request, WalkId};
use crate::spec::riscv::fault::FAULT_RECORD_BYTES;
use crate::spec::riscv::page_request::PAGE_REQUEST_BYTES;
use crate::spec::riscv::register::{DirectoryPointer, MODE_BARE, MODE_OFF};
use crate::timing::Params;
use crate::translator::Translator;

/// One IOMMU, from reset.
///
/// It allocates in [`Unit::new`] only. Between two calls it holds no lock and does nothing: the caller decides when
/// each walk and each queue take their next step.
#[derive(Clone, Debug)]
pub struct Unit {
    pub(crate) cap: Capabilities,
    pub(crate) params: Params,
    /// ddtp.
    pub(crate) directory: DirectoryPointer,
    pub(crate) caches: Caches,
    pub(crate) walkers: Walkers,
    pub(crate) commands: CommandQueue,
    pub(crate) fault_queue: RecordQueue,
    pub(crate) page_queue: RecordQueue,
    pub(crate) interrupts: Interrupts,
    pub(crate) debug: DebugRegisters,
    /// Words of the walk that ended last.
    pub(crate) last_words: ProvenanceId,
    pub(crate) last_file: Option<InterruptFile>,
    pub(crate) last_page_request: Option<PageRequestOutcome>,
    /// The page-request queue has overflowed and not said so yet.
    pub(crate) page_overflow_pending: bool,
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
            directory: reset_directory(&cap),
            caches: Caches::new(&params),
            walkers: Walkers::new(params.walks_max),
            commands: CommandQueue::new(),
            fault_queue: RecordQueue::new(FAULT_RECORD_BYTES),
            page_queue: RecordQueue::new(PAGE_REQUEST_BYTES),
            interrupts: Interrupts::new(cap.interrupts == InterruptSignalling::Wires),
            debug: DebugRegisters::new(),
            last_words: ProvenanceId::NONE,
            last_file: None,
            last_page_request: None,
            page_overflow_pending: false,
            cap,
            params,
        }
    }

    /// Back to the state after reset, keeping the buffers, at a cost that does not grow with what was cached. Ids of
    /// walks that were in flight are gone.
    pub fn reset(&mut self) {
        self.directory = reset_directory(&self.cap);
        self.caches.reset();
        self.walkers.reset();
        self.commands = CommandQueue::new();
        self.fault_queue.reset();
        self.page_queue.reset();
        self.interrupts = Interrupts::new(self.cap.interrupts == InterruptSignalling::Wires);
        self.debug = DebugRegisters::new();
        self.last_words = ProvenanceId::NONE;
        self.last_file = None;
        self.last_page_request = None;
        self.page_overflow_pending = false;
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
    pub fn begin(&mut self, request: impl Into<Transaction>) -> Result<WalkId, Busy> {
        let merge = self.params.merge_same_page && self.directory.mode() > MODE_BARE;
        self.walkers.begin(request.into(), Origin::Request, merge).ok_or(Busy)
    }

    /// The unit walks on its own account. Such a walk fills the caches and never records a fault.
    ///
    /// # Errors
    ///
    /// [`Busy`] if every walker is taken.
    pub fn begin_prefetch(&mut self, request: impl Into<Transaction>) -> Result<WalkId, Busy> {
        self.walkers.begin(request.into(), Origin::Prefetch, false).ok_or(Busy)
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

    /// Gives a walk up, without a trace. Returns whether it was in flight. A request of the translation-request registers
    /// waits for a walker again.
    pub fn cancel(&mut self, walk: WalkId) -> bool {
        if !self.walkers.is_live(walk) {
            return false;
        }
        let slot = usize::from(walk.slot);
        let state = self.walkers.at(slot);
        state.release(&mut self.caches.words);
        self.debug.waiting |= state.origin == Origin::Debug;
        self.walkers.free(slot);
        true
    }

    /// The words of the walk that ended last, by translation or fault, outermost first. It stays until the next one
    /// ends, whatever happens to the caches; a walk that needed no table leaves none.
    #[must_use]
    pub fn last_provenance(&self) -> Provenance {
        self.caches.words.read(self.last_words)
    }

    /// The words that a walk in flight holds by now, outermost first; inside the second stage, only those of it.
    #[must_use]
    pub fn provenance(&self, walk: WalkId) -> Option<Provenance> {
        self.walkers.words_of(walk).map(|words| self.caches.words.read(words))
    }

    /// Where the message went that ended last with [`Progress::InterruptMessage`].
    #[must_use]
    pub const fn last_interrupt_file(&self) -> Option<InterruptFile> {
        self.last_file
    }

    /// Walks in flight, by walker.
    pub fn in_flight(&self) -> impl Iterator<Item = WalkView> {
        self.walkers.views(self.cap.msi_flat)
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

    /// Drops one cached entry, as hardware may at any time: the `n`-th of device contexts, what leads to them, process
    /// contexts, what leads to them, IOTLB, walk caches. Returns whether there was one.
    pub fn drop_cached(&mut self, n: usize) -> bool {
        self.caches.drop_nth(n)
    }
}

fn reset_directory(cap: &Capabilities) -> DirectoryPointer {
    DirectoryPointer::new().with_mode(if cap.resets_to_bare { MODE_BARE } else { MODE_OFF })
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
