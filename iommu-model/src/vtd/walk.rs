//! The state of walks in flight, and the step that each call of `advance` takes.

use super::capability::Capabilities;
use crate::addr::{Bdf, DomainId, Iova, Pa};
use crate::cache::Caches;
use crate::cache::context::ContextTarget;
use crate::cache::iotlb::page_shift;
use crate::decision::Decisions;
use crate::provenance::{Provenance, Source};
use crate::request::{Access, CacheHit, FetchKind, Fetched, Progress, Request, Translation, WalkId};
use crate::spec::vtd::fault::FaultReason;
use crate::spec::vtd::register::{INTERRUPT_RANGE_FIRST, INTERRUPT_RANGE_LAST};
use crate::spec::vtd::root::RootTableAddress;
use crate::timing::Timing;

/// Where a walk stands; the next call of `advance` does this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// Checks that need no table, then the context-cache look-up.
    Begin,
    /// Nothing until the leader has ended.
    Merged(WalkId),
    /// Fetch of the root entry.
    Root,
    /// Fetch of the context entry.
    Context,
    /// Width check, pass-through, IOTLB look-up.
    Iotlb,
    /// Look-up in the paging-structure caches.
    Psc,
    /// Fetch of the paging entry at [`Walk::level`].
    Table,
}

/// What a walk took from the context entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HeldContext {
    pub(crate) domain: DomainId,
    pub(crate) target: ContextTarget,
}

/// An outstanding fetch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pending {
    pub(crate) pa: Pa,
    pub(crate) kind: FetchKind,
}

/// One walk.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    live: bool,
    pub(crate) request: Request,
    /// A prefetch never records a fault.
    pub(crate) prefetch: bool,
    pub(crate) stage: Stage,
    pub(crate) pending: Option<Pending>,
    /// A restart dropped a fetch whose answer is still to come.
    pub(crate) discard: bool,
    pub(crate) fault_disable: bool,
    pub(crate) context: Option<HeldContext>,
    /// Table of the next entry.
    pub(crate) table: Pa,
    /// Level of the next entry.
    pub(crate) level: u8,
    /// Level of the top table.
    pub(crate) top: u8,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) from: CacheHit,
    pub(crate) provenance: Provenance,
    pub(crate) cost_total: u32,
    pub(crate) fetches: u32,
}

impl Walk {
    /// A walker that nobody uses.
    fn idle() -> Self {
        Self {
            live: false,
            request: Request { source: Bdf(0), iova: Iova(0), access: Access::Read, pasid: None },
            prefetch: false,
            stage: Stage::Begin,
            pending: None,
            discard: false,
            fault_disable: false,
            context: None,
            table: Pa(0),
            level: 0,
            top: 0,
            readable: true,
            writable: true,
            from: CacheHit::None,
            provenance: Provenance::new(),
            cost_total: 0,
            fetches: 0,
        }
    }

    /// Takes the walker for a request.
    fn start(&mut self, request: Request, prefetch: bool, stage: Stage) {
        self.restart();
        self.live = true;
        (self.request, self.prefetch, self.stage) = (request, prefetch, stage);
        self.discard = false;
        self.cost_total = 0;
        self.fetches = 0;
    }

    /// Back to the beginning, without any word read so far.
    fn restart(&mut self) {
        self.discard |= self.pending.take().is_some();
        self.stage = Stage::Begin;
        self.fault_disable = false;
        self.context = None;
        self.from = CacheHit::None;
        self.provenance.clear();
    }

    fn awaits(&self, kind: FetchKind) -> bool {
        self.pending.is_some_and(|p| p.kind == kind)
    }

    /// Whether any word was read or is awaited.
    pub(crate) fn holds_anything(&self) -> bool {
        self.pending.is_some() || !self.provenance.is_empty()
    }

    /// Whether a context entry of `domain` is held, or one that may be is awaited.
    pub(crate) fn may_hold_context_of(&self, domain: DomainId) -> bool {
        self.awaits(FetchKind::Context) || self.domain() == Some(domain)
    }

    /// Whether a context entry is held or awaited.
    pub(crate) fn touches_context(&self) -> bool {
        self.awaits(FetchKind::Context) || self.context.is_some()
    }

    /// Whether a paging entry is held or awaited.
    pub(crate) fn touches_tables(&self) -> bool {
        self.stage == Stage::Table
    }

    pub(crate) fn domain(&self) -> Option<DomainId> {
        self.context.map(|context| context.domain)
    }

    /// First address and span of what the innermost held non-leaf entry leads to.
    pub(crate) fn innermost_held(&self) -> Option<(Iova, u64)> {
        (self.touches_tables() && self.level < self.top).then(|| self.span(self.level + 1))
    }

    /// Level, first address and span of the awaited paging entry.
    pub(crate) fn awaited(&self) -> Option<(u8, Iova, u64)> {
        if !self.touches_tables() || self.pending.is_none() {
            return None;
        }
        let (first, span) = self.span(self.level);
        Some((self.level, first, span))
    }

    fn span(&self, level: u8) -> (Iova, u64) {
        let span = 1 << page_shift(level);
        (Iova(self.request.iova.0 & !(span - 1)), span)
    }
}

/// What can be seen of a walk in flight from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalkView {
    /// Its id.
    pub id: WalkId,
    /// What it translates.
    pub request: Request,
    /// Its domain, once the context entry is known.
    pub domain: Option<DomainId>,
    /// The fetch it waits for.
    pub fetch: Option<(Pa, FetchKind)>,
    /// The walk it waits for.
    pub leader: Option<WalkId>,
    /// Begun by the unit itself, not by a request.
    pub prefetch: bool,
}

/// All walkers of a unit.
#[derive(Clone, Debug)]
pub(crate) struct Walks {
    slots: Vec<Slot>,
    live: usize,
}

#[derive(Clone, Debug)]
struct Slot {
    generation: u32,
    walk: Walk,
}

impl Walks {
    pub(crate) fn new(walks_max: u16) -> Self {
        let slot = Slot { generation: 0, walk: Walk::idle() };
        Self { slots: vec![slot; usize::from(walks_max)], live: 0 }
    }

    /// Drops every walk; old ids stay invalid.
    pub(crate) fn clear(&mut self) {
        for slot in &mut self.slots {
            if core::mem::take(&mut slot.walk.live) {
                slot.generation = slot.generation.wrapping_add(1);
            }
        }
        self.live = 0;
    }

    /// Takes a free walker.
    pub(crate) fn begin(&mut self, request: Request, prefetch: bool, merge: bool) -> Option<WalkId> {
        if self.live == self.slots.len() {
            return None;
        }
        let stage = match self.leader_of(request) {
            Some(leader) if merge => Stage::Merged(leader),
            _ => Stage::Begin,
        };
        let slot = self.slots.iter().position(|slot| !slot.walk.live)?;
        self.slots[slot].walk.start(request, prefetch, stage);
        self.live += 1;
        Some(WalkId { slot: slot as u16, generation: self.slots[slot].generation })
    }

    fn leader_of(&self, request: Request) -> Option<WalkId> {
        if self.live == 0 {
            return None;
        }
        self.iter().find_map(|(id, walk)| {
            let same_page = walk.request.source == request.source
                && walk.request.pasid == request.pasid
                && walk.request.iova.page() == request.iova.page();
            (same_page && !matches!(walk.stage, Stage::Merged(_))).then_some(id)
        })
    }

    pub(crate) fn is_live(&self, id: WalkId) -> bool {
        self.slots.get(usize::from(id.slot)).is_some_and(|s| s.generation == id.generation && s.walk.live)
    }

    pub(crate) fn get_mut(&mut self, id: WalkId) -> Option<&mut Walk> {
        let slot = self.slots.get_mut(usize::from(id.slot))?;
        (slot.walk.live && slot.generation == id.generation).then_some(&mut slot.walk)
    }

    /// Frees the walker. Returns whether the id was live.
    pub(crate) fn end(&mut self, id: WalkId) -> bool {
        if !self.is_live(id) {
            return false;
        }
        let slot = &mut self.slots[usize::from(id.slot)];
        slot.walk.live = false;
        slot.generation = slot.generation.wrapping_add(1);
        self.live -= 1;
        true
    }

    pub(crate) fn len(&self) -> usize {
        self.live
    }

    fn iter(&self) -> impl Iterator<Item = (WalkId, &Walk)> {
        self.slots.iter().enumerate().filter_map(|(slot, s)| {
            let id = WalkId { slot: slot as u16, generation: s.generation };
            s.walk.live.then_some((id, &s.walk))
        })
    }

    pub(crate) fn views(&self) -> impl Iterator<Item = WalkView> {
        self.iter().map(|(id, walk)| WalkView {
            id,
            request: walk.request,
            domain: walk.domain(),
            fetch: walk.pending.map(|p| (p.pa, p.kind)),
            leader: match walk.stage {
                Stage::Merged(leader) => Some(leader),
                _ => None,
            },
            prefetch: walk.prefetch,
        })
    }

    /// Restarts the walks for which `covered` holds; returns how many.
    pub(crate) fn restart(&mut self, covered: impl Fn(&Walk) -> bool) -> u32 {
        if self.live == 0 {
            return 0;
        }
        let mut restarted = 0;
        for walk in self.slots.iter_mut().map(|slot| &mut slot.walk).filter(|walk| walk.live) {
            if walk.holds_anything() && covered(walk) {
                walk.restart();
                restarted += 1;
            }
        }
        restarted
    }
}

/// Everything one step of a walk may touch.
pub(crate) struct Stepper<'a> {
    pub(crate) cap: &'a Capabilities,
    pub(crate) timing: &'a Timing,
    pub(crate) root: RootTableAddress,
    pub(crate) translation_enabled: bool,
    pub(crate) caches: &'a mut Caches,
    pub(crate) walk: &'a mut Walk,
    pub(crate) d: &'a mut dyn Decisions,
    /// Cycles of this step so far.
    pub(crate) spent: u32,
}

impl Stepper<'_> {
    /// One look-up, or one fetched word.
    pub(crate) fn step(&mut self, fetched: Option<Fetched>) -> Result<Progress, FaultReason> {
        match (fetched, self.walk.pending) {
            // The answer belongs to what a restart threw away.
            _ if self.walk.discard => self.walk.discard = false,
            (Some(answer), Some(pending)) => {
                self.walk.pending = None;
                return self.consume(pending, answer);
            }
            (None, Some(pending)) => return Ok(self.announce(pending)),
            (Some(_), None) => panic!("an answer without a fetch"),
            (None, None) => {}
        }
        match self.walk.stage {
            Stage::Begin | Stage::Merged(_) => self.begin(),
            Stage::Root | Stage::Context => Ok(self.fetch_root()),
            Stage::Iotlb => self.look_up_iotlb(),
            Stage::Psc => self.look_up_psc(),
            Stage::Table => Ok(self.fetch_table()),
        }
    }

    fn consume(&mut self, pending: Pending, answer: Fetched) -> Result<Progress, FaultReason> {
        let words = match (answer, pending.kind) {
            (Fetched::Words(words), _) => words,
            (Fetched::NoMemory, FetchKind::Root) => return Err(FaultReason::ROOT_FETCH),
            (Fetched::NoMemory, FetchKind::Context) => return Err(FaultReason::CONTEXT_FETCH),
            (Fetched::NoMemory, FetchKind::Table { .. }) => return Err(FaultReason::TABLE_FETCH),
        };
        let kind = pending.kind;
        self.walk.provenance.push(Source { pa: pending.pa, value: words[0], kind });
        if fetch_bytes(kind) == 16 {
            self.walk.provenance.push(Source { pa: pending.pa.offset(8), value: words[1], kind });
        }
        let wide = u128::from(words[0]) | (u128::from(words[1]) << 64);
        match kind {
            FetchKind::Root => self.consume_root(wide),
            FetchKind::Context => self.consume_context(wide),
            FetchKind::Table { level } => self.consume_table(words[0], level),
        }
    }

    /// Issues a fetch.
    pub(crate) fn fetch(&mut self, pa: Pa, kind: FetchKind) -> Progress {
        let pending = Pending { pa, kind };
        self.walk.pending = Some(pending);
        self.walk.fetches = self.walk.fetches.saturating_add(1);
        self.spent += match kind {
            FetchKind::Root => self.timing.root_fetch,
            FetchKind::Context => self.timing.context_fetch,
            FetchKind::Table { .. } => self.timing.table_fetch,
        };
        self.announce(pending)
    }

    fn announce(&self, pending: Pending) -> Progress {
        Progress::Fetch { pa: pending.pa, bytes: fetch_bytes(pending.kind), kind: pending.kind, cost: self.spent }
    }

    /// Ends the walk with a translation, unless its output is in the interrupt range.
    pub(crate) fn grant(&mut self, grant: Grant) -> Result<Progress, FaultReason> {
        if in_interrupt_range(grant.pa.0) {
            return Err(FaultReason::INTERRUPT_RANGE);
        }
        Ok(Progress::Done(Translation {
            pa: grant.pa,
            readable: grant.readable,
            writable: grant.writable,
            page_bytes: grant.page_bytes,
            domain: grant.domain,
            pass_through: grant.pass_through,
            cost: self.spent,
            cost_total: self.walk.cost_total.saturating_add(self.spent),
            fetches: self.walk.fetches,
            from: self.walk.from,
            provenance: self.walk.provenance,
        }))
    }

    /// The reason for a refused access.
    pub(crate) fn denied(&self) -> FaultReason {
        match self.walk.request.access {
            Access::Read => FaultReason::NO_READ,
            Access::Write => FaultReason::NO_WRITE,
        }
    }

    pub(crate) fn source(&self) -> Bdf {
        self.walk.request.source
    }
}

/// What a finished walk grants.
pub(crate) struct Grant {
    pub(crate) pa: Pa,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) page_bytes: u64,
    pub(crate) domain: DomainId,
    pub(crate) pass_through: bool,
}

const fn fetch_bytes(kind: FetchKind) -> u8 {
    match kind {
        FetchKind::Root | FetchKind::Context => 16,
        FetchKind::Table { .. } => 8,
    }
}

/// Whether an address is in 0xFEEx_xxxx.
pub(crate) const fn in_interrupt_range(address: u64) -> bool {
    address >= INTERRUPT_RANGE_FIRST && address <= INTERRUPT_RANGE_LAST
}
