//! The state of walks in flight. What each call of `advance` does with it is in `step`.

use super::context::{ContextConfig, Half};
use super::ids::{Asid, StreamId, Vmid};
use super::stream::StreamConfig;
use crate::addr::{Bdf, Iova, Pa, Pasid};
use crate::ats::RequestKind;
use crate::provenance::{ProvenanceId, Words};
use crate::request::{Access, CacheHit, FetchKind, Request, WalkId};
use crate::spec::smmu::descriptor::HALF_BIT;
use crate::spec::smmu::event::FaultClass;

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
