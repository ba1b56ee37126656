//! The state of walks in flight, and the step that each call of `advance` takes.

use super::unit::Unit;
use crate::addr::{Bdf, DomainId, Iova, Pa, Pasid};
use crate::cache::context::ContextTarget;
use crate::cache::iotlb::page_shift;
use crate::cache::pasid::{PasidTarget, Stages};
use crate::decision::Decisions;
use crate::provenance::{ProvenanceId, Words};
use crate::request::{Access, CacheHit, FetchKind, Fetched, Progress, Request, Translation, WalkId};
use crate::spec::vtd::fault::FaultReason;
use crate::spec::vtd::register::{INTERRUPT_RANGE_FIRST, INTERRUPT_RANGE_LAST};

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

impl ScalableState {
    const IDLE: Self = Self {
        pasid: Pasid(0),
        has_pasid: false,
        privileged: false,
        target: PasidTarget::NOWHERE,
        first: FirstStage {
            table: Pa(0),
            level: 0,
            done: false,
            writable: true,
            user: true,
            dirty: false,
            table_writable: true,
            from: CacheHit::None,
            shift: 0,
        },
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
    pub(crate) access: Access,
    /// Table of the next entry.
    pub(crate) table: Pa,
    /// The walk it waits for, while `stage` says so.
    pub(crate) leader: WalkId,
    pub(crate) cost_total: u32,
    pub(crate) fetches: u32,
    /// Odd while the walker is taken.
    generation: u32,
    pub(crate) scalable: ScalableState,
}

impl Walk {
    /// A walker that nobody uses.
    fn idle() -> Self {
        Self {
            request: Request { source: Bdf(0), iova: Iova(0), access: Access::Read, pasid: None },
            stage: Stage::Begin,
            outstanding: Outstanding::None,
            prefetch: false,
            fault_disable: false,
            has_context: false,
            is_scalable: false,
            second_update: false,
            input: Iova(0),
            access: Access::Read,
            scalable: ScalableState::IDLE,
            from: CacheHit::None,
            readable: true,
            writable: true,
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
    fn start(&mut self, request: Request, prefetch: bool) {
        self.request = request;
        self.input = request.iova;
        self.access = request.access;
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
    fn restart(&mut self, words: &mut Words) {
        if self.is_pending() {
            self.outstanding = Outstanding::Dropped;
        }
        self.stage = Stage::Begin;
        self.fault_disable = false;
        self.has_context = false;
        self.from = CacheHit::None;
        self.input = self.request.iova;
        self.access = self.request.access;
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

/// Most walkers of a unit.
pub(crate) const WALKS_MAX: u16 = 256;

/// All walkers of a unit.
#[derive(Clone, Debug)]
pub(crate) struct Walks {
    slots: Vec<Walk>,
    /// Which walkers are taken, a bit each.
    live: [u64; WALKS_MAX as usize / 64],
    nr_live: u16,
}

impl Walks {
    pub(crate) fn new(walks_max: u16) -> Self {
        Self { slots: vec![Walk::idle(); usize::from(walks_max)], live: [0; WALKS_MAX as usize / 64], nr_live: 0 }
    }

    /// Drops every walk; old ids stay invalid. The caller forgets their words.
    pub(crate) fn reset(&mut self) {
        for group in 0..self.live.len() {
            while self.live[group] != 0 {
                let slot = group * 64 + self.live[group].trailing_zeros() as usize;
                self.slots[slot].scalable = ScalableState::IDLE;
                self.free(slot);
            }
        }
    }

    /// Takes a free walker, the lowest one.
    #[inline]
    pub(crate) fn begin(&mut self, request: Request, prefetch: bool, merge: bool) -> Option<WalkId> {
        let leader = if merge && self.nr_live != 0 { self.leader_of(request) } else { None };
        let (group, bit) = self.live.iter().enumerate().find_map(|(group, live)| {
            let bit = live.trailing_ones();
            (bit < u64::BITS).then_some((group, bit))
        })?;
        let slot = group * 64 + bit as usize;
        let walk = self.slots.get_mut(slot)?;
        walk.start(request, prefetch);
        walk.generation = walk.generation.wrapping_add(1);
        if let Some(leader) = leader {
            walk.stage = Stage::Merged;
            walk.leader = leader;
        }
        let id = WalkId { slot: slot as u16, generation: walk.generation };
        self.live[group] |= 1 << bit;
        self.nr_live += 1;
        Some(id)
    }

    /// Whether a request would find no walker, or one that it had to wait for.
    #[inline]
    pub(crate) fn would_wait(&self, request: &Request, merge: bool) -> bool {
        self.nr_live != 0 && (usize::from(self.nr_live) == self.slots.len() || (merge && self.leader_of(*request).is_some()))
    }

    fn leader_of(&self, request: Request) -> Option<WalkId> {
        self.iter().find_map(|(id, walk)| {
            let same_page = walk.request.iova.page() == request.iova.page()
                && walk.request.source == request.source
                && walk.request.pasid == request.pasid;
            (same_page && walk.stage != Stage::Merged).then_some(id)
        })
    }

    #[inline]
    pub(crate) fn is_live(&self, id: WalkId) -> bool {
        // Ids are given out with odd generations only.
        self.slots.get(usize::from(id.slot)).is_some_and(|walk| walk.generation == id.generation)
    }

    /// The words that a walk holds, if it is in flight.
    pub(crate) fn words_of(&self, id: WalkId) -> Option<ProvenanceId> {
        self.is_live(id).then(|| self.slots[usize::from(id.slot)].words)
    }

    /// The walk in a taken slot.
    #[inline]
    pub(crate) fn at(&mut self, slot: usize) -> &mut Walk {
        &mut self.slots[slot]
    }

    /// Frees the walker; its words are the caller's.
    #[inline]
    pub(crate) fn free(&mut self, slot: usize) {
        let walk = &mut self.slots[slot];
        walk.generation = walk.generation.wrapping_add(1);
        self.live[slot / 64] &= !(1 << (slot % 64));
        self.nr_live -= 1;
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.nr_live)
    }

    fn iter(&self) -> impl Iterator<Item = (WalkId, &Walk)> {
        self.live.iter().enumerate().flat_map(move |(group, &live)| {
            let mut left = live;
            core::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                left &= left.wrapping_sub(1);
                (bit < u64::BITS).then_some(group * 64 + bit as usize)
            })
            .map(|slot| {
                let walk = &self.slots[slot];
                (WalkId { slot: slot as u16, generation: walk.generation }, walk)
            })
        })
    }

    pub(crate) fn views(&self) -> impl Iterator<Item = WalkView> {
        self.iter().map(|(id, walk)| WalkView {
            id,
            request: walk.request,
            domain: walk.domain(),
            fetch: walk.awaited_kind().map(|kind| (walk.pending_pa, kind)),
            leader: (walk.stage == Stage::Merged).then_some(walk.leader),
            prefetch: walk.prefetch,
        })
    }

    /// Restarts the walks for which `covered` holds; returns how many.
    pub(crate) fn restart(&mut self, words: &mut Words, covered: impl Fn(&Walk) -> bool) -> u32 {
        if self.nr_live == 0 {
            return 0;
        }
        let mut restarted = 0;
        for walk in self.slots.iter_mut().filter(|walk| walk.generation % 2 != 0) {
            if walk.holds_anything() && covered(walk) {
                walk.restart(words);
                restarted += 1;
            }
        }
        restarted
    }
}

impl Unit {
    /// One look-up, or one fetched word, of the walk in a taken slot.
    #[inline]
    pub(crate) fn step(&mut self, slot: usize, fetched: Option<Fetched>, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        match walk.outstanding {
            Outstanding::None => assert!(fetched.is_none(), "an answer without a fetch"),
            Outstanding::Wanted => {
                return match fetched {
                    Some(answer) => self.consume(slot, answer, d),
                    None => self.ask_again(slot),
                };
            }
            // The answer belongs to what a restart threw away.
            Outstanding::Dropped => walk.outstanding = Outstanding::None,
        }
        match walk.stage {
            Stage::Begin | Stage::Merged => self.begin_walk(slot, d),
            Stage::Iotlb => self.look_up_iotlb(slot, 0, d),
            Stage::Psc => self.look_up_psc(slot, d),
            Stage::Table | Stage::TableUpdate => self.fetch_table(slot),
            Stage::Root | Stage::Context => self.fetch_root(slot),
            _ => self.step_scalable(slot, d),
        }
    }

    #[inline]
    fn consume(&mut self, slot: usize, answer: Fetched, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        walk.outstanding = Outstanding::None;
        let pa = walk.pending_pa;
        let Some([low, high]) = answer.pair() else { return self.refuse_fetch(slot, d) };
        let words = &mut self.caches.words;
        match walk.stage {
            Stage::Root => {
                walk.words = words.push_wide(walk.words, pa, [low, high], FetchKind::Root);
                self.consume_root(slot, wide([low, high]), d)
            }
            Stage::Context if !walk.is_scalable => {
                walk.words = words.push_wide(walk.words, pa, [low, high], FetchKind::Context);
                self.consume_context(slot, wide([low, high]), d)
            }
            Stage::Table => {
                let level = walk.level;
                walk.words = words.push(walk.words, pa, low, FetchKind::Table { level });
                self.consume_table(slot, low, level, d)
            }
            _ => self.consume_scalable(slot, &answer.all(), d),
        }
    }

    /// There is no memory where the walk wanted to read.
    #[cold]
    fn refuse_fetch(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let reason = match self.walks.at(slot).stage {
            Stage::Root => FaultReason::ROOT_FETCH,
            Stage::Context => FaultReason::CONTEXT_FETCH,
            Stage::Directory => FaultReason::DIRECTORY_FETCH,
            Stage::PasidEntry => FaultReason::PASID_FETCH,
            Stage::FirstTable => self.first_fetch_reason(slot),
            Stage::FirstUpdate => FaultReason::FIRST_UPDATE_FAILED,
            _ => FaultReason::TABLE_FETCH,
        };
        self.fault(slot, reason, 0, d)
    }

    /// Issues the fetch of what the stage says.
    #[inline]
    pub(crate) fn fetch(&mut self, slot: usize, pa: Pa, kind: FetchKind, cost: u32) -> Progress {
        let walk = self.walks.at(slot);
        walk.outstanding = Outstanding::Wanted;
        walk.pending_pa = pa;
        walk.fetches = walk.fetches.saturating_add(1);
        walk.spend(cost);
        Progress::Fetch { pa, bytes: kind.bytes(), kind, cost }
    }

    /// Asks again for what is outstanding.
    fn ask_again(&mut self, slot: usize) -> Progress {
        let walk = self.walks.at(slot);
        let kind = walk.kind();
        if let Stage::FirstUpdate | Stage::TableUpdate = walk.stage {
            let [old, new] = walk.scalable.update;
            return Progress::Update { pa: walk.pending_pa, old, new, kind, cost: 0 };
        }
        Progress::Fetch { pa: walk.pending_pa, bytes: kind.bytes(), kind, cost: 0 }
    }

    /// Ends the walk with a translation. The output is known not to be in the interrupt range.
    #[inline(always)]
    pub(crate) fn grant(&mut self, slot: usize, grant: Grant, cost: u32) -> Progress {
        let walk = self.walks.at(slot);
        walk.spend(cost);
        let translation = Translation {
            pa: grant.pa,
            readable: grant.readable,
            writable: grant.writable,
            page_bytes: grant.page_bytes,
            domain: walk.domain,
            pass_through: grant.pass_through,
            cost,
            cost_total: walk.cost_total,
            fetches: walk.fetches,
            from: walk.from,
        };
        let words = core::mem::replace(&mut self.last_words, walk.words);
        self.caches.words.release(words);
        if walk.is_scalable {
            walk.forget_scalable(&mut self.caches.words);
        }
        self.walks.free(slot);
        Progress::Done(translation)
    }

    /// The same, off the path that requests of legacy mode take.
    #[cold]
    pub(crate) fn grant_aside(&mut self, slot: usize, grant: Grant, cost: u32) -> Progress {
        self.grant(slot, grant, cost)
    }

    /// Ends the walk with something that came from no table.
    #[inline]
    pub(crate) fn pass(&mut self, slot: usize) -> u32 {
        let words = core::mem::replace(&mut self.last_words, ProvenanceId::NONE);
        self.caches.words.release(words);
        self.walks.free(slot);
        self.params.timing.bypass
    }

    /// The reason for a refused access.
    pub(crate) const fn denied(access: Access) -> FaultReason {
        match access {
            Access::Read => FaultReason::NO_READ,
            Access::Write => FaultReason::NO_WRITE,
        }
    }
}

/// What a finished walk grants.
#[derive(Clone, Copy)]
pub(crate) struct Grant {
    pub(crate) pa: Pa,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) page_bytes: u64,
    pub(crate) pass_through: bool,
}

const fn wide(words: [u64; 2]) -> u128 {
    words[0] as u128 | (words[1] as u128) << 64
}

/// Whether an address is in 0xFEEx_xxxx.
#[inline]
pub(crate) const fn in_interrupt_range(address: u64) -> bool {
    address >= INTERRUPT_RANGE_FIRST && address <= INTERRUPT_RANGE_LAST
}
