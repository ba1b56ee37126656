//! The state of a walk in flight. What each call of `advance` does with it is in `step`.

use super::cache::iotlb::Permissions;
use super::cache::space::Space;
use super::context::{DeviceContext, Stage};
use super::id::{DeviceId, Pscid};
use super::paging::Leaf;
use super::request::Transaction;
use crate::addr::{DomainId, Iova, Pa, Pasid};
use crate::provenance::{ProvenanceId, Words};
use crate::request::{Access, CacheHit, FetchKind, WalkId};
use crate::spec::riscv::fault::Cause;

/// Where a walk stands; the next call of `advance` does this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Checks that need no table, then the look-up of the device context.
    Begin,
    /// Nothing until the leader has ended.
    Merged,
    /// Fetch of a non-leaf device directory entry, or of the device context.
    Device,
    /// Look-up of the process context.
    ProcessLookup,
    /// Fetch of a non-leaf process directory entry, or of the process context.
    Process,
    /// IOTLB look-up for the request.
    Iotlb,
    /// First stage: look-up in the walk caches.
    FirstLookup,
    /// First stage: fetch of the entry at [`Walk::level`].
    First,
    /// Update of that entry.
    FirstUpdate,
    /// Fetch of the MSI page-table entry.
    Message,
    /// Second stage: look-up in the walk caches.
    SecondLookup,
    /// Second stage: fetch of the entry at [`SecondWalk::level`].
    Second,
    /// Update of that entry.
    SecondUpdate,
}

/// What answer is still to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outstanding {
    None,
    /// To the fetch of what the step says, at [`Walk::pending_pa`].
    Wanted,
    /// To a fetch that a restart dropped.
    Dropped,
}

/// Who began a walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// A request of a device.
    Request,
    /// The unit itself; never records a fault.
    Prefetch,
    /// The translation-request registers.
    Debug,
    /// A page request with this payload; needs the device context only.
    PageRequest { payload: u64, execute: bool },
}

/// What the second stage translates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// The address of a process directory entry or process context.
    Process,
    /// The address of a first-stage entry.
    Table,
    /// The address of the request itself.
    Page,
}

/// Where the second stage of a walk stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SecondWalk {
    pub(crate) purpose: Purpose,
    pub(crate) input: u64,
    pub(crate) table: Pa,
    pub(crate) level: u8,
}

/// One walk.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    pub(crate) request: Transaction,
    pub(crate) origin: Origin,
    pub(crate) step: Step,
    pub(crate) outstanding: Outstanding,
    /// A device context is held: `context` counts.
    pub(crate) has_device: bool,
    /// A process context is held.
    pub(crate) has_process: bool,
    /// A first-stage entry is held or awaited.
    pub(crate) first_touched: bool,
    /// A second-stage entry is held or awaited.
    pub(crate) second_touched: bool,
    /// A leaf of the first stage is held: `leaf` counts.
    pub(crate) has_leaf: bool,
    /// G of any first-stage entry so far.
    pub(crate) global: bool,
    /// Supervisor requests may touch user pages.
    pub(crate) supervisor_user_memory: bool,
    /// Updates that found another word, in a row.
    pub(crate) tries: u8,
    /// Level of the next entry: of a directory, 0 is the context; of the first stage, 1 maps 4 KiB.
    pub(crate) level: u8,
    pub(crate) from: CacheHit,
    pub(crate) context: DeviceContext,
    /// process_id in use.
    pub(crate) process: Option<Pasid>,
    /// First stage in use.
    pub(crate) first: Stage,
    /// What is cached of it is tagged with this; none if neither stage translates.
    pub(crate) space: Option<Space>,
    /// Table of the next entry; of the process directory and first stage on a second stage, an address of the guest.
    pub(crate) table: Pa,
    pub(crate) leaf: Leaf,
    pub(crate) second: SecondWalk,
    /// What the outstanding update expects and stores.
    pub(crate) update: [u64; 2],
    pub(crate) pending_pa: Pa,
    pub(crate) words: ProvenanceId,
    /// Words of the whole walk, while those of its second stage are in `words`.
    pub(crate) outer_words: ProvenanceId,
    /// Words up to the device context.
    pub(crate) base_words: ProvenanceId,
    /// The walk it waits for, while `step` says so.
    pub(crate) leader: WalkId,
    pub(crate) cost_total: u32,
    pub(crate) fetches: u32,
    /// Odd while the walker is taken.
    pub(crate) generation: u32,
}

const NO_LEAF: Leaf = Leaf {
    frame: Pa(0),
    shift: 0,
    readable: false,
    writable: false,
    executable: false,
    user: false,
    global: false,
    accessed: false,
    dirty: false,
    memory_type: 0,
};

impl Walk {
    /// A walker that nobody uses.
    pub(crate) fn idle() -> Self {
        Self {
            request: Transaction::new(DeviceId(0), Iova(0), Access::Read),
            origin: Origin::Request,
            step: Step::Begin,
            outstanding: Outstanding::None,
            has_device: false,
            has_process: false,
            first_touched: false,
            second_touched: false,
            has_leaf: false,
            global: false,
            supervisor_user_memory: false,
            tries: 0,
            level: 0,
            from: CacheHit::None,
            context: DeviceContext::BLANK,
            process: None,
            first: Stage::BARE,
            space: None,
            table: Pa(0),
            leaf: NO_LEAF,
            second: SecondWalk { purpose: Purpose::Page, input: 0, table: Pa(0), level: 0 },
            update: [0; 2],
            pending_pa: Pa(0),
            words: ProvenanceId::NONE,
            outer_words: ProvenanceId::NONE,
            base_words: ProvenanceId::NONE,
            leader: WalkId { slot: 0, generation: 0 },
            cost_total: 0,
            fetches: 0,
            generation: 0,
        }
    }

    /// Takes the walker for a request.
    #[inline]
    pub(crate) fn start(&mut self, request: Transaction, origin: Origin) {
        self.request = request;
        self.origin = origin;
        self.outstanding = Outstanding::None;
        self.cost_total = 0;
        self.fetches = 0;
        self.forget();
    }

    /// Back to the beginning, without any word read so far. The words are released already.
    #[inline]
    fn forget(&mut self) {
        self.step = Step::Begin;
        self.has_device = false;
        self.has_process = false;
        self.first_touched = false;
        self.second_touched = false;
        self.has_leaf = false;
        self.global = false;
        self.supervisor_user_memory = false;
        self.tries = 0;
        self.from = CacheHit::None;
        self.process = self.request.process;
        self.first = Stage::BARE;
        self.space = None;
        self.words = ProvenanceId::NONE;
        self.outer_words = ProvenanceId::NONE;
        self.base_words = ProvenanceId::NONE;
    }

    /// Starts over, because an invalidation covers something it holds or awaits.
    pub(crate) fn restart(&mut self, words: &mut Words) {
        if self.is_pending() {
            self.outstanding = Outstanding::Dropped;
        }
        self.release(words);
        self.forget();
    }

    /// Remembers the words up to the device context, which is all that is held now, for a second stage to start from.
    pub(crate) fn keep_base(&mut self, words: &mut Words) {
        if !self.base_words.is_some() {
            words.hold(self.words);
            self.base_words = self.words;
        }
    }

    /// Lets go of every word.
    #[inline]
    pub(crate) fn release(&mut self, words: &mut Words) {
        for held in [&mut self.words, &mut self.outer_words, &mut self.base_words] {
            words.release(core::mem::replace(held, ProvenanceId::NONE));
        }
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

    /// Whether any word was read or is awaited.
    pub(crate) fn holds_anything(&self) -> bool {
        self.is_pending() || self.has_device
    }

    /// Whether a device context, or the process context, is held or awaited.
    pub(crate) fn touches_device(&self) -> bool {
        self.has_device || (self.is_pending() && self.step == Step::Device && self.level == 0)
    }

    /// Whether the process context is held or awaited.
    pub(crate) fn touches_process(&self) -> bool {
        self.has_process || (self.is_pending() && self.step == Step::Process && self.level == 0)
    }

    /// Whether D is to be set in a leaf of the first stage.
    pub(crate) fn writes(&self) -> bool {
        self.request.access == Access::Write
    }

    /// What the request needs of a leaf; a translation request takes what it gets.
    pub(crate) fn needed(&self) -> Permissions {
        let executes = self.request.executes();
        match self.request.access {
            _ if self.request.is_ats() => Permissions::NONE,
            Access::Read => Permissions { read: !executes, write: false, execute: executes },
            Access::Write => Permissions { read: false, write: true, execute: false },
        }
    }

    /// What the second stage must allow for what it translates now. With SADE the tables of the first stage count as
    /// written to as soon as they are read, as in the reference model.
    pub(crate) fn second_needed(&self) -> Permissions {
        match self.second.purpose {
            Purpose::Process => Permissions { read: true, write: false, execute: false },
            Purpose::Table => Permissions { read: true, write: self.context.first_update, execute: false },
            Purpose::Page => self.needed(),
        }
    }

    /// Whether the second stage sets D for what it translates now.
    pub(crate) fn second_writes(&self) -> bool {
        match self.second.purpose {
            Purpose::Process => false,
            Purpose::Table => self.context.first_update,
            Purpose::Page => self.writes(),
        }
    }

    /// Whether U of a first-stage leaf lets the request pass: user requests need it, supervisor requests are kept out by
    /// it, but for data with SUM.
    pub(crate) fn user_bit_allows(&self, user: bool) -> bool {
        if !self.request.is_supervisor() {
            return user;
        }
        !user || (self.supervisor_user_memory && !self.request.executes())
    }

    /// What the present step fetches.
    pub(crate) fn kind(&self, extended: bool) -> FetchKind {
        match self.step {
            Step::Device if self.level > 0 => FetchKind::DeviceDirectory { level: self.level },
            Step::Device if extended => FetchKind::ExtendedDeviceContext,
            Step::Device => FetchKind::DeviceContext,
            Step::Process if self.level > 0 => FetchKind::ProcessDirectory { level: self.level },
            Step::Process => FetchKind::ProcessContext,
            Step::Message => FetchKind::MessageEntry,
            Step::First | Step::FirstUpdate => FetchKind::FirstStage { level: self.level },
            _ => FetchKind::Table { level: self.second.level },
        }
    }

    /// The cause of an access where there is no memory.
    pub(crate) fn access_fault(&self) -> Cause {
        self.by_access([Cause::INSTRUCTION_ACCESS, Cause::READ_ACCESS, Cause::WRITE_ACCESS])
    }

    /// The cause of what the first stage refuses.
    pub(crate) fn page_fault(&self) -> Cause {
        self.by_access([Cause::INSTRUCTION_PAGE, Cause::READ_PAGE, Cause::WRITE_PAGE])
    }

    /// The cause of what the second stage refuses. Reads of the process directory count as reads whatever the request
    /// is, as in the reference model.
    pub(crate) fn guest_page_fault(&self) -> Cause {
        if self.second.purpose == Purpose::Process {
            return Cause::READ_GUEST_PAGE;
        }
        self.by_access([Cause::INSTRUCTION_GUEST_PAGE, Cause::READ_GUEST_PAGE, Cause::WRITE_GUEST_PAGE])
    }

    fn by_access(&self, [execute, read, write]: [Cause; 3]) -> Cause {
        match self.request.access {
            Access::Read if self.request.executes() => execute,
            Access::Read => read,
            // A translation request reads first.
            Access::Write if self.request.is_ats() => read,
            Access::Write => write,
        }
    }

    /// The id that the caller sees as the domain: the GSCID, else the low bits of the PSCID.
    pub(crate) fn domain(&self) -> DomainId {
        match (self.space.and_then(Space::gscid), self.space.and_then(Space::pscid)) {
            (Some(gscid), _) => DomainId(gscid.0),
            (None, Some(Pscid(pscid))) => DomainId(pscid as u16),
            (None, None) => DomainId(0),
        }
    }
}

/// What can be seen of a walk in flight from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalkView {
    /// Its id.
    pub id: WalkId,
    /// What it translates.
    pub request: Transaction,
    /// The fetch it waits for.
    pub fetch: Option<(Pa, FetchKind)>,
    /// The walk it waits for.
    pub leader: Option<WalkId>,
    /// Begun by the unit itself, not by a request.
    pub prefetch: bool,
}
