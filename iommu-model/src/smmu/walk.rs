//! The state of walks in flight, and the step that each call of `advance` takes.

use super::context::{ContextConfig, Half};
use super::ids::{Asid, StreamId, Vmid};
use super::stream::StreamConfig;
use super::unit::Unit;
use crate::addr::{Bdf, DomainId, Iova, Pa, Pasid};
use crate::ats::RequestKind;
use crate::decision::Decisions;
use crate::provenance::{ProvenanceId, Words};
use crate::request::{Access, CacheHit, FetchKind, Fetched, Progress, Request, Translation, WalkId};
use crate::spec::smmu::descriptor::HALF_BIT;
use crate::spec::smmu::event::{EventId, FaultClass, Termination};

/// Where a walk stands; the next call of `advance` does this, or takes the answer to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Checks that need no table, then the look-up in the configuration caches.
    Begin,
    /// Nothing until the leader has ended.
    Merged,
    /// Fetch of the level-1 stream table descriptor.
    StreamLevel1,
    /// Fetch of the stream table entry, or of a part of it.
    StreamEntry,
    /// Fetch of the level-1 context descriptor.
    ContextLevel1,
    /// Fetch of the context descriptor, or of a part of it.
    Context,
    /// TLB look-up of a virtual address.
    Tlb,
    /// Look-up in the stage-1 walk caches.
    Walk1,
    /// Fetch of the stage-1 descriptor at [`Stage1Walk::level`].
    Table1,
    /// Update of that descriptor.
    Update1,
    /// TLB look-up of an intermediate address.
    Tlb2,
    /// Look-up in the stage-2 walk caches.
    Walk2,
    /// Fetch of the stage-2 descriptor at [`Stage2Walk::level`].
    Table2,
    /// Update of that descriptor.
    Update2,
}

/// What stage 2 translates an address for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// Fetch of the level-1 context descriptor.
    ContextLevel1,
    /// Fetch of the context descriptor.
    Context,
    /// Fetch of a stage-1 descriptor.
    Table,
    /// Update of a stage-1 descriptor.
    TableUpdate,
    /// The output of stage 1.
    Page,
    /// The request itself: there is no stage 1.
    Only,
}

impl Purpose {
    /// CLASS of a fault.
    pub(crate) const fn class(self) -> FaultClass {
        match self {
            Self::ContextLevel1 | Self::Context => FaultClass::Context,
            Self::Table | Self::TableUpdate => FaultClass::Table,
            Self::Page | Self::Only => FaultClass::Input,
        }
    }
}

/// Where stage 1 of a walk stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage1Walk {
    /// The virtual address, its top byte restored if that is ignored.
    pub(crate) address: u64,
    /// Table of the next descriptor; nested, an IPA.
    pub(crate) table: Pa,
    /// Level of the next descriptor.
    pub(crate) level: u8,
    /// APTable\[1\] so far.
    pub(crate) read_only: bool,
    /// APTable\[0\] so far.
    pub(crate) no_unprivileged: bool,
    /// The leaf is known: its span, permissions and scope.
    pub(crate) shift: u8,
    pub(crate) writable: bool,
    pub(crate) dirty: bool,
    pub(crate) global: bool,
}

/// Where stage 2 of a walk stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage2Walk {
    pub(crate) purpose: Purpose,
    pub(crate) input: u64,
    pub(crate) access: Access,
    /// Table of the next descriptor.
    pub(crate) table: Pa,
    /// Level of the next descriptor.
    pub(crate) level: u8,
}

/// What answer is still to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outstanding {
    None,
    /// To the fetch or update of what the step says, at [`Walk::pending_pa`].
    Wanted,
    /// To a fetch that a restart dropped.
    Dropped,
}

/// One walk.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    /// Of a translation request, the access is a write if NW is clear.
    pub(crate) request: Request,
    pub(crate) kind: RequestKind,
    pub(crate) step: Step,
    pub(crate) outstanding: Outstanding,
    /// A prefetch never records an event.
    pub(crate) prefetch: bool,
    /// An STE that translates is held: `config` and `vmid` count.
    pub(crate) has_stream: bool,
    /// A CD is held: `context` and `asid` count.
    pub(crate) has_context: bool,
    pub(crate) from: CacheHit,
    pub(crate) stream: StreamId,
    /// Index of the CD.
    pub(crate) substream: Pasid,
    pub(crate) vmid: Vmid,
    pub(crate) asid: Asid,
    pub(crate) words: ProvenanceId,
    /// Words of the whole walk, while those of its stage 2 are in `words`.
    pub(crate) outer_words: ProvenanceId,
    /// Words up to the STE, held by streams with stage 2.
    pub(crate) base_words: ProvenanceId,
    pub(crate) pending_pa: Pa,
    /// The walk it waits for, while `step` says so.
    pub(crate) leader: WalkId,
    pub(crate) cost_total: u32,
    pub(crate) fetches: u32,
    /// Odd while the walker is taken.
    pub(crate) generation: u32,
    /// Updates that found another word, in a row.
    pub(crate) tries: u8,
    /// Words of the STE or CD that have been read.
    pub(crate) raw_count: u8,
    pub(crate) raw: [u64; 4],
    /// What the outstanding update expects and stores.
    pub(crate) update: [u64; 2],
    /// The update of a stage-1 descriptor that waits until stage 2 allows it.
    pub(crate) table_update: [u64; 2],
    pub(crate) stage_1: Stage1Walk,
    pub(crate) stage_2: Stage2Walk,
    pub(crate) config: StreamConfig,
    pub(crate) context: ContextConfig,
}

impl Walk {
    /// A walker that nobody uses.
    pub(crate) fn idle() -> Self {
        Self {
            request: Request { source: Bdf(0), iova: Iova(0), access: Access::Read, pasid: None },
            kind: RequestKind::Untranslated,
            step: Step::Begin,
            outstanding: Outstanding::None,
            prefetch: false,
            has_stream: false,
            has_context: false,
            from: CacheHit::None,
            stream: StreamId(0),
            substream: Pasid(0),
            vmid: Vmid(0),
            asid: Asid(0),
            words: ProvenanceId::NONE,
            outer_words: ProvenanceId::NONE,
            base_words: ProvenanceId::NONE,
            pending_pa: Pa(0),
            leader: WalkId { slot: 0, generation: 0 },
            cost_total: 0,
            fetches: 0,
            generation: 0,
            tries: 0,
            raw_count: 0,
            raw: [0; 4],
            update: [0; 2],
            table_update: [0; 2],
            stage_1: Stage1Walk {
                address: 0,
                table: Pa(0),
                level: 0,
                read_only: false,
                no_unprivileged: false,
                shift: 0,
                writable: false,
                dirty: false,
                global: false,
            },
            stage_2: Stage2Walk { purpose: Purpose::Only, input: 0, access: Access::Read, table: Pa(0), level: 0 },
            config: StreamConfig::NONE,
            context: ContextConfig::NONE,
        }
    }

    /// Takes the walker for a request.
    #[inline]
    pub(crate) fn start(&mut self, request: Request, kind: RequestKind, stream: StreamId, prefetch: bool) {
        self.request = request;
        self.kind = kind;
        self.stream = stream;
        self.step = Step::Begin;
        self.outstanding = Outstanding::None;
        self.prefetch = prefetch;
        self.has_stream = false;
        self.has_context = false;
        self.from = CacheHit::None;
        self.words = ProvenanceId::NONE;
        self.cost_total = 0;
        self.fetches = 0;
        self.tries = 0;
    }

    /// Back to the beginning, without any word read so far.
    pub(crate) fn restart(&mut self, words: &mut Words) {
        if self.is_pending() {
            self.outstanding = Outstanding::Dropped;
        }
        self.step = Step::Begin;
        self.has_stream = false;
        self.has_context = false;
        self.from = CacheHit::None;
        self.tries = 0;
        self.release(words);
    }

    /// Lets go of every word but returns those of the walk as a whole, which become the caller's.
    pub(crate) fn take_words(&mut self, words: &mut Words) -> ProvenanceId {
        let mut all = core::mem::replace(&mut self.words, ProvenanceId::NONE);
        if self.outer_words.is_some() {
            let inner = core::mem::replace(&mut all, core::mem::replace(&mut self.outer_words, ProvenanceId::NONE));
            all = words.append_tables(all, inner);
            words.release(inner);
        }
        words.release(core::mem::replace(&mut self.base_words, ProvenanceId::NONE));
        all
    }

    /// Lets go of every word.
    pub(crate) fn release(&mut self, words: &mut Words) {
        for id in [&mut self.words, &mut self.outer_words, &mut self.base_words] {
            words.release(core::mem::replace(id, ProvenanceId::NONE));
        }
    }

    /// Counts a cost and returns it.
    #[inline(always)]
    pub(crate) fn spend(&mut self, cost: u32) -> u32 {
        self.cost_total = self.cost_total.saturating_add(cost);
        cost
    }

    /// Whether an answer is awaited that still counts.
    #[inline(always)]
    pub(crate) fn is_pending(&self) -> bool {
        self.outstanding == Outstanding::Wanted
    }

    /// The half of the virtual address space that its address lies in.
    #[inline(always)]
    pub(crate) fn half(&self) -> &Half {
        &self.context.halves[(self.stage_1.address >> HALF_BIT & 1) as usize]
    }

    /// Whether it is a translation request, which takes what rights there are.
    pub(crate) fn asks(&self) -> bool {
        matches!(self.kind, RequestKind::Translation { .. })
    }

    /// Whether stage 2 now translates what a translation request asks for.
    pub(crate) fn asks_stage_2(&self) -> bool {
        self.asks() && matches!(self.stage_2.purpose, Purpose::Page | Purpose::Only)
    }

    /// What is awaited.
    pub(crate) fn awaited(&self) -> FetchKind {
        match self.step {
            Step::StreamLevel1 => FetchKind::StreamLevel1,
            Step::StreamEntry => FetchKind::StreamEntry,
            Step::ContextLevel1 => FetchKind::ContextLevel1,
            Step::Context => FetchKind::ContextDescriptor,
            Step::Table1 | Step::Update1 => FetchKind::Stage1 { level: self.stage_1.level },
            _ => FetchKind::Stage2 { level: self.stage_2.level },
        }
    }

    /// Whether any word was read or is awaited.
    pub(crate) fn holds_anything(&self) -> bool {
        self.is_pending() || self.words.is_some() || self.has_stream
    }
}

/// What can be seen of a walk in flight from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalkView {
    /// Its id.
    pub id: WalkId,
    /// What it translates.
    pub request: Request,
    /// Its stream.
    pub stream: StreamId,
    /// Its VMID, once the STE is known.
    pub vmid: Option<Vmid>,
    /// Its ASID, once the CD is known.
    pub asid: Option<Asid>,
    /// The fetch or update it waits for.
    pub fetch: Option<(Pa, FetchKind)>,
    /// The walk it waits for.
    pub leader: Option<WalkId>,
    /// Begun by the unit itself, not by a request.
    pub prefetch: bool,
}

impl WalkView {
    pub(crate) fn of(id: WalkId, walk: &Walk) -> Self {
        Self {
            id,
            request: walk.request,
            stream: walk.stream,
            vmid: walk.has_stream.then_some(walk.vmid),
            asid: walk.has_context.then_some(walk.asid),
            fetch: walk.is_pending().then(|| (walk.pending_pa, walk.awaited())),
            leader: (walk.step == Step::Merged).then_some(walk.leader),
            prefetch: walk.prefetch,
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
        match walk.step {
            Step::Begin | Step::Merged => self.begin_walk(slot, d),
            Step::Tlb => self.look_up_tlb(slot, 0, d),
            Step::Walk1 => self.look_up_walk_1(slot, d),
            Step::Table1 | Step::Update1 => self.fetch_table_1(slot, d),
            Step::Tlb2 => self.look_up_tlb_2(slot, 0, d),
            Step::Walk2 => self.look_up_walk_2(slot, d),
            Step::Table2 | Step::Update2 => self.fetch_table_2(slot),
            Step::StreamLevel1 | Step::StreamEntry => self.fetch_stream(slot, d),
            Step::ContextLevel1 | Step::Context => self.fetch_context(slot, d),
        }
    }

    #[inline]
    fn consume(&mut self, slot: usize, answer: Fetched, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        walk.outstanding = Outstanding::None;
        let pa = walk.pending_pa;
        let Some([word, _]) = answer.pair() else { return self.refuse_fetch(slot, d) };
        let kind = walk.awaited();
        let words = &mut self.caches.words;
        match walk.step {
            Step::Table1 => {
                walk.words = words.push(walk.words, pa, word, kind);
                self.consume_table_1(slot, word, d)
            }
            Step::Table2 => {
                walk.words = words.push(walk.words, pa, word, kind);
                self.consume_table_2(slot, word, d)
            }
            Step::Update1 | Step::Update2 => self.consume_update(slot, word, d),
            Step::StreamLevel1 => {
                walk.words = words.push(walk.words, pa, word, kind);
                self.consume_stream_level_1(slot, word, false, d)
            }
            Step::ContextLevel1 => {
                walk.words = words.push(walk.words, pa, word, kind);
                self.consume_context_level_1(slot, word, false, d)
            }
            _ => self.consume_config(slot, &answer.all(), d),
        }
    }

    /// There is no memory where the walk wanted to read or write.
    #[cold]
    fn refuse_fetch(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let (address, purpose) = (walk.pending_pa.0, walk.stage_2.purpose);
        match walk.step {
            Step::StreamLevel1 | Step::StreamEntry => self.terminate_at(slot, EventId::STREAM_FETCH, address, d),
            Step::ContextLevel1 | Step::Context => self.terminate_at(slot, EventId::CONTEXT_FETCH, address, d),
            step => {
                let of_stage_1 = matches!(step, Step::Table1 | Step::Update1);
                let class = if of_stage_1 { FaultClass::Table } else { purpose.class() };
                let why = Termination { event: EventId::WALK_ABORT, stage_2: !of_stage_1, class };
                self.terminate_walk_after(slot, why, address, 0, d)
            }
        }
    }

    /// Issues the fetch of what the step says.
    #[inline]
    pub(crate) fn fetch(&mut self, slot: usize, pa: Pa, bytes: u8, cost: u32) -> Progress {
        let walk = self.walks.at(slot);
        walk.outstanding = Outstanding::Wanted;
        walk.pending_pa = pa;
        walk.fetches = walk.fetches.saturating_add(1);
        walk.spend(cost);
        Progress::Fetch { pa, bytes, kind: walk.awaited(), cost }
    }

    /// Asks again for what is outstanding.
    fn ask_again(&mut self, slot: usize) -> Progress {
        let config_bytes = self.config_bytes();
        let walk = self.walks.at(slot);
        let (pa, kind) = (walk.pending_pa, walk.awaited());
        match walk.step {
            Step::Update1 | Step::Update2 => {
                let [old, new] = walk.update;
                Progress::Update { pa, old, new, kind, cost: 0 }
            }
            Step::StreamEntry | Step::Context => Progress::Fetch { pa, bytes: config_bytes, kind, cost: 0 },
            _ => Progress::Fetch { pa, bytes: kind.bytes(), kind, cost: 0 },
        }
    }

    /// Ends the walk with a translation.
    pub(crate) fn grant(&mut self, slot: usize, grant: Grant, cost: u32) -> Progress {
        if self.walks.at(slot).asks() {
            return self.answer(slot, grant, cost);
        }
        self.grant_walked(slot, grant, cost)
    }

    /// The same for whatever request.
    pub(crate) fn grant_walked(&mut self, slot: usize, grant: Grant, cost: u32) -> Progress {
        let all = self.walks.at(slot).take_words(&mut self.caches.words);
        self.caches.words.release(core::mem::replace(&mut self.last_words, all));
        self.end_granted(slot, grant, cost)
    }

    /// Ends the walk with a translation that the TLB held, made from these words.
    #[inline(always)]
    pub(crate) fn grant_cached(&mut self, slot: usize, grant: Grant, made_from: ProvenanceId, cost: u32) -> Progress {
        let words = &mut self.caches.words;
        // Most look-ups repeat the one before.
        if made_from != self.last_words {
            words.hold(made_from);
            words.release(core::mem::replace(&mut self.last_words, made_from));
        }
        let walk = self.walks.at(slot);
        if walk.base_words.is_some() {
            words.release(core::mem::replace(&mut walk.base_words, ProvenanceId::NONE));
        }
        words.release(core::mem::replace(&mut walk.words, ProvenanceId::NONE));
        self.end_granted(slot, grant, cost)
    }

    #[inline(always)]
    fn end_granted(&mut self, slot: usize, grant: Grant, cost: u32) -> Progress {
        let walk = self.walks.at(slot);
        walk.spend(cost);
        let tag = if walk.has_context { walk.asid.0 } else { walk.vmid.0 };
        let translation = Translation {
            pa: grant.pa,
            readable: grant.readable,
            writable: grant.writable,
            page_bytes: grant.page_bytes,
            domain: DomainId(if grant.pass_through { 0 } else { tag }),
            pass_through: grant.pass_through,
            cost,
            cost_total: walk.cost_total,
            fetches: walk.fetches,
            from: walk.from,
        };
        self.walks.free(slot);
        Progress::Done(translation)
    }
}
