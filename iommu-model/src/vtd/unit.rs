//! The unit itself: what it owns, and the calls that drive it.

use super::capability::Capabilities;
use super::fault::{EventBlock, Faults};
use super::queue::{Queue, QueueInput, QueueProgress};
use super::registers::Plain;
use super::walk::{Stage, Stepper, WalkView, Walks};
use crate::cache::Caches;
use crate::decision::Decisions;
use crate::inspect::{self, UnitText};
use crate::request::{Busy, FaultInfo, Fetched, Progress, Request, WalkId};
use crate::spec::vtd::fault::{FaultReason, FaultRecord};
use crate::spec::vtd::register::CompletionStatus;
use crate::spec::vtd::root::RootTableAddress;
use crate::timing::Params;

/// One remapping unit, from power-on.
///
/// It allocates in [`Unit::new`] only. Between two calls it holds no lock and does nothing: the caller decides when
/// each walk and the queue take their next step.
#[derive(Clone, Debug)]
pub struct Unit {
    pub(crate) cap: Capabilities,
    pub(crate) params: Params,
    pub(crate) plain: Plain,
    /// The root table in use: what SRTP latched.
    pub(crate) root: RootTableAddress,
    pub(crate) translation_enabled: bool,
    pub(crate) caches: Caches,
    pub(crate) walks: Walks,
    pub(crate) queue: Queue,
    pub(crate) faults: Faults,
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
        assert!((1..=256).contains(&params.walks_max), "1 to 256 walks can be in flight");
        Self {
            plain: Plain::new(),
            root: RootTableAddress::new(),
            translation_enabled: false,
            caches: Caches::new(&params),
            walks: Walks::new(params.walks_max),
            queue: Queue::new(),
            faults: Faults::new(cap.fault_records),
            completion_status: CompletionStatus::new(),
            completion_event: EventBlock::new(),
            cap,
            params,
        }
    }

    /// Back to power-on state, keeping the buffers. Ids of walks that were in flight are gone.
    pub fn reset(&mut self) {
        self.plain = Plain::new();
        self.root = RootTableAddress::new();
        self.translation_enabled = false;
        self.caches.clear();
        self.walks.clear();
        self.queue = Queue::new();
        self.faults.reset();
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
    pub fn begin(&mut self, request: Request) -> Result<WalkId, Busy> {
        let merge = self.params.merge_same_page && self.translation_enabled;
        self.walks.begin(request, false, merge).ok_or(Busy)
    }

    /// The unit walks on its own account, as hardware may for any present entry. Such a walk fills the caches and
    /// never records a fault; who decides when and where is the caller.
    ///
    /// # Errors
    ///
    /// [`Busy`] if every walker is taken.
    pub fn begin_prefetch(&mut self, request: Request) -> Result<WalkId, Busy> {
        self.walks.begin(request, true, false).ok_or(Busy)
    }

    /// One look-up, or one fetched word, of a walk. After a restart the answer to the fetch that was outstanding may
    /// still be brought; it is thrown away.
    ///
    /// # Panics
    ///
    /// If the walk is not in flight, or an answer is brought that was not asked for.
    pub fn advance(&mut self, walk: WalkId, fetched: Option<Fetched>, d: &mut dyn Decisions) -> Progress {
        if let Some(leader) = self.leader_of(walk) {
            let cost = self.params.timing.merge;
            return Progress::Merged { leader, cost };
        }
        let state = self.walks.get_mut(walk).expect("the walk is in flight");
        let mut stepper = Stepper {
            cap: &self.cap,
            timing: &self.params.timing,
            root: self.root,
            translation_enabled: self.translation_enabled,
            caches: &mut self.caches,
            walk: state,
            d: &mut *d,
            spent: 0,
        };
        let outcome = stepper.step(fetched);
        let spent = stepper.spent;
        match outcome {
            Ok(progress) => {
                state.cost_total = state.cost_total.saturating_add(spent);
                if progress.is_end() {
                    self.walks.end(walk);
                }
                progress
            }
            Err(reason) => self.fault(walk, reason, spent, d),
        }
    }

    /// The walk that this one still waits for.
    fn leader_of(&mut self, walk: WalkId) -> Option<WalkId> {
        let Stage::Merged(leader) = self.walks.get_mut(walk)?.stage else { return None };
        self.walks.is_live(leader).then_some(leader)
    }

    fn fault(&mut self, walk: WalkId, reason: FaultReason, spent: u32, d: &mut dyn Decisions) -> Progress {
        let state = self.walks.get_mut(walk).expect("the walk is in flight");
        let (request, fault_disable, prefetch) = (state.request, state.fault_disable, state.prefetch);
        self.walks.end(walk);
        let record = if prefetch { super::fault::Recorded::default() } else { self.faults.record(reason, &request, fault_disable, d) };
        Progress::Fault(FaultInfo {
            reason,
            source: request.source,
            iova: request.iova,
            access: request.access,
            pasid: request.pasid,
            recorded: record.recorded,
            interrupt: record.message,
            cost: spent.saturating_add(self.params.timing.fault),
        })
    }

    /// Gives a walk up, without a trace. Returns whether it was in flight.
    pub fn cancel(&mut self, walk: WalkId) -> bool {
        self.walks.end(walk)
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
        self.queue.has_work(self.faults.queue_is_stopped())
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

    /// Drops one cached entry, as hardware may at any time: the `n`-th of contexts, IOTLB, paging-structure caches.
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
