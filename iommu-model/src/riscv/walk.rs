//! The state of a walk in flight, and the step that each call of `advance` takes.
//!
//! Steps of the specification's "Process to translate an IOVA", and where they are:
//!
//! - 1 to 6, locating the device context: `device_walk`
//! - 7 to 16, locating the process context: `process_walk`
//! - 17, first stage: `first_stage`; each of its fetches, and those of the process directory, goes through 19
//! - 18, MSI page table: `messages`
//! - 19, second stage: `second_stage`
//! - 20, the end: here

use super::cache::iotlb::{Permissions, TlbEntry};
use super::cache::space::Space;
use super::context::{DeviceContext, Stage};
use super::id::{DeviceId, Pscid};
use super::paging::Leaf;
use super::request::Transaction;
use super::unit::Unit;
use crate::addr::{DomainId, Iova, Pa, Pasid};
use crate::decision::Decisions;
use crate::provenance::{ProvenanceId, Words};
use crate::request::{Access, CacheHit, FetchKind, Fetched, Progress, Translation, WalkId};
use crate::spec::riscv::fault::Cause;

/// Updates that may find another word, in a row, before the walk gives up with an internal error (assumption: the
/// specification lets it go on for ever).
pub(crate) const TRIES_MAX: u8 = 16;

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
    fn domain(&self) -> DomainId {
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

impl Unit {
    /// One look-up, or one fetched word, of the walk in a taken slot.
    #[inline]
    pub(crate) fn step(&mut self, slot: usize, fetched: Option<Fetched>, d: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
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
            Step::Iotlb => self.look_up_iotlb(slot, 0, d),
            Step::Device => self.fetch_device(slot, d),
            Step::ProcessLookup => self.look_up_process(slot, d),
            Step::Process => self.fetch_process(slot, d),
            Step::FirstLookup => self.look_up_first(slot, d),
            Step::First | Step::FirstUpdate => self.fetch_first(slot, d),
            Step::Message => self.fetch_message(slot, d),
            Step::SecondLookup => self.look_up_second(slot, d),
            Step::Second | Step::SecondUpdate => self.fetch_second(slot, d),
        }
    }

    fn consume(&mut self, slot: usize, answer: Fetched, d: &mut dyn Decisions) -> Progress {
        let extended = self.cap.msi_flat;
        let walk = self.walkers.at(slot);
        walk.outstanding = Outstanding::None;
        let Some([low, high]) = answer.pair() else { return self.refuse_fetch(slot, d) };
        let (pa, kind) = (walk.pending_pa, walk.kind(extended));
        let words = &mut self.caches.words;
        match walk.step {
            Step::Device if walk.level == 0 => {
                let all = answer.all();
                for at in 0..usize::from(kind.bytes() / 16) {
                    let pair = [all[2 * at], all[2 * at + 1]];
                    walk.words = words.push_wide(walk.words, pa.offset(16 * at as u64), pair, kind);
                }
                self.consume_device_context(slot, &all, d)
            }
            Step::Device => {
                walk.words = words.push(walk.words, pa, low, kind);
                self.consume_device_node(slot, low, d)
            }
            Step::Process if walk.level == 0 => {
                walk.words = words.push_wide(walk.words, pa, [low, high], kind);
                self.consume_process_context(slot, [low, high], d)
            }
            Step::Process => {
                walk.words = words.push(walk.words, pa, low, kind);
                self.consume_process_node(slot, low, d)
            }
            Step::Message => {
                walk.words = words.push_wide(walk.words, pa, [low, high], kind);
                self.consume_message(slot, [low, high], d)
            }
            Step::First => {
                walk.words = words.push(walk.words, pa, low, kind);
                self.consume_first(slot, low, d)
            }
            Step::FirstUpdate | Step::SecondUpdate => self.consume_update(slot, low, d),
            _ => {
                walk.words = words.push(walk.words, pa, low, kind);
                self.consume_second(slot, low, d)
            }
        }
    }

    /// There is no memory where the walk wanted to read.
    #[cold]
    fn refuse_fetch(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
        let cause = match walk.step {
            Step::Device => Cause::DDT_LOAD,
            Step::Process => Cause::PDT_LOAD,
            Step::Message => Cause::MSI_LOAD,
            Step::Second | Step::SecondUpdate if walk.second.purpose == Purpose::Process => Cause::PDT_LOAD,
            _ => walk.access_fault(),
        };
        self.fault(slot, cause, 0, 0, d)
    }

    /// Issues the fetch of what the step says; beyond PAS there is no memory.
    pub(crate) fn fetch(&mut self, slot: usize, pa: Pa, cost: u32, d: &mut dyn Decisions) -> Progress {
        let extended = self.cap.msi_flat;
        if !self.cap.fits(pa) {
            return self.refuse_fetch(slot, d);
        }
        let walk = self.walkers.at(slot);
        let kind = walk.kind(extended);
        walk.outstanding = Outstanding::Wanted;
        walk.pending_pa = pa;
        walk.fetches = walk.fetches.saturating_add(1);
        walk.spend(cost);
        Progress::Fetch { pa, bytes: kind.bytes(), kind, cost }
    }

    /// Asks for the atomic update of the entry that was fetched last.
    pub(crate) fn ask_update(&mut self, slot: usize, step: Step, old: u64, new: u64) -> Progress {
        let cost = self.params.timing.table_update;
        let walk = self.walkers.at(slot);
        walk.step = step;
        walk.update = [old, new];
        walk.outstanding = Outstanding::Wanted;
        walk.spend(cost);
        Progress::Update { pa: walk.pending_pa, old, new, kind: walk.kind(false), cost }
    }

    /// The word that an update found. If it is not the one that was read, it is taken as the entry instead, so that
    /// nothing that software cleared comes back.
    fn consume_update(&mut self, slot: usize, found: u64, d: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
        let [old, new] = walk.update;
        let word = if found == old { new } else { found };
        self.caches.words.amend(walk.words, word);
        walk.tries = if found == old { 0 } else { walk.tries + 1 };
        if walk.tries >= TRIES_MAX {
            return self.fault(slot, Cause::INTERNAL, 0, 0, d);
        }
        if walk.step == Step::FirstUpdate {
            walk.step = Step::First;
            return self.consume_first(slot, word, d);
        }
        walk.step = Step::Second;
        self.consume_second(slot, word, d)
    }

    /// Asks again for what is outstanding.
    fn ask_again(&mut self, slot: usize) -> Progress {
        let extended = self.cap.msi_flat;
        let walk = self.walkers.at(slot);
        let (pa, kind) = (walk.pending_pa, walk.kind(extended));
        if let Step::FirstUpdate | Step::SecondUpdate = walk.step {
            let [old, new] = walk.update;
            return Progress::Update { pa, old, new, kind, cost: 0 };
        }
        Progress::Fetch { pa, bytes: kind.bytes(), kind, cost: 0 }
    }

    /// Step 20 for what came out of a table or the IOTLB.
    #[inline]
    pub(crate) fn grant(&mut self, slot: usize, entry: &TlbEntry, cost: u32) -> Progress {
        let walk = self.walkers.at(slot);
        walk.spend(cost);
        let iova = walk.request.iova;
        let offset = iova.0 & ((1 << entry.shift) - 1);
        let allowed = entry.first.and(entry.second);
        let guest_address = walk.request.is_ats() && walk.context.t2gpa;
        let translation = Translation {
            pa: if guest_address { Pa(entry.guest_page.0 | offset) } else { Pa(entry.frame.0 | offset) },
            readable: allowed.read,
            writable: allowed.write,
            page_bytes: 1 << entry.shift,
            domain: walk.domain(),
            pass_through: false,
            cost,
            cost_total: walk.cost_total,
            fetches: walk.fetches,
            from: walk.from,
        };
        let debugs = walk.origin == Origin::Debug;
        if debugs {
            self.debug_done(Ok((entry, translation.pa)));
        }
        self.end(slot);
        Progress::Done(translation)
    }

    /// Step 20 for an address that passes as it is, because no stage translates it or the device has translated it.
    pub(crate) fn pass(&mut self, slot: usize, cost: u32) -> Progress {
        let walk = self.walkers.at(slot);
        walk.spend(cost);
        let translation = Translation {
            pa: Pa(walk.request.iova.0),
            readable: true,
            writable: true,
            page_bytes: crate::addr::PAGE_SIZE,
            domain: walk.domain(),
            pass_through: true,
            cost,
            cost_total: walk.cost_total,
            fetches: walk.fetches,
            from: walk.from,
        };
        if walk.origin == Origin::Debug {
            let entry = TlbEntry::identity(walk.request.iova);
            self.debug_done(Ok((&entry, translation.pa)));
        }
        self.end(slot);
        Progress::Done(translation)
    }

    /// Frees the walker; its words become those of the walk that ended last.
    #[inline]
    pub(crate) fn end(&mut self, slot: usize) {
        let walk = self.walkers.at(slot);
        let words = core::mem::replace(&mut walk.words, ProvenanceId::NONE);
        walk.release(&mut self.caches.words);
        self.caches.words.release(core::mem::replace(&mut self.last_words, words));
        self.walkers.free(slot);
    }
}
