//! The ledger: one independent record of what was promised at the outer boundary, kept from words, hardware events and bytes.
//!
//! It is registered first, so that every other oracle finds it up to date. It judges nothing. What it holds:
//!
//! - reference mappings of every domain: certain from the success of map to the entry of unmap, a candidate from the entry of
//!   map on, gone when unmap has returned;
//! - for each device the domain it is attached to (old and new while that changes), and for each of its requests under way the
//!   set of frames that were legal at some time of its life, and whether its mapping was valid all that time;
//! - the tracker as it lay in RAM at the jump or at the last quiet moment, with what was restored of it since;
//! - pins a frame, KHO records a frame with the version of the memory they were made for, files handed over;
//! - calls of userspace under way, the phase, and the faults injected: the causes of this run.
//!
//! # Over the jump
//!
//! Domains of preserved devices live on in hardware: their reference mappings stay legal, and stay promised, until the incoming
//! kernel unmaps through the adopted domain or attaches another domain because a user asked. What the boot path attaches on its
//! own is no legal ground for anything. Devices that nobody preserved have no mapping after the jump; what they still do from the
//! phase "shutdown" to the jump is exempt: whether a stopped device's last request is late is not a question of live update.

pub(crate) mod device;
pub(crate) mod mappings;

use std::cell::RefCell;
use std::rc::Rc;

use iommu_model::addr::{Bdf, Pa};
use sim::memory::Memory;
use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind, UnitId, Verb};
use smallvec::SmallVec;

use super::contract::call;
use super::inspect::{self, Reach, Role};
use super::{Context, kinds};
use crate::topology::Topology;
use crate::verb::{self, FileOp, Phase};
use device::{Device, DomainIndex, Request};
use mappings::{Extent, Mappings};

/// A domain object.
#[derive(Clone, Debug)]
pub(crate) struct Domain {
    /// Its address in the kernel that owns it now; 0 when none does.
    pub(crate) ptr: u64,
    /// Top table.
    pub(crate) top: Pa,
    /// Preserved by the running kernel.
    pub(crate) preserved: bool,
    /// Its IOAS is immutable.
    pub(crate) immutable: bool,
    /// Made by an earlier generation.
    pub(crate) inherited: bool,
    /// What is mapped in it.
    pub(crate) mappings: Mappings,
}

/// A call of userspace under way.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Call {
    /// Its number; 0 when the actor is in none.
    pub(crate) number: u8,
    /// Arguments are bad on purpose.
    pub(crate) hostile: bool,
    /// Another call overlapped it.
    pub(crate) overlapped: bool,
    /// A file said that it cannot be finished.
    pub(crate) cannot_finish: bool,
    /// A failure was injected into it, or it found no memory.
    pub(crate) failed: bool,
    /// Step at which it began.
    pub(crate) since: u64,
    /// Arguments.
    pub(crate) args: [u64; 2],
}

/// KHO records of a frame that heads a block.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Records {
    /// Bit n: a record of order n exists.
    pub(crate) orders: u16,
    /// Version of the memory when the last one was made.
    pub(crate) version: u32,
}

/// A file of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct File {
    /// Session object; 0 after the jump.
    pub(crate) session: u64,
    /// Token.
    pub(crate) token: u64,
    /// Number of its handler; 0 when the word did not say.
    pub(crate) handler: u8,
}

/// A set of frames.
#[derive(Clone, Default, Debug)]
pub(crate) struct FrameSet(Vec<u64>);

impl FrameSet {
    fn new(nr_frames: usize) -> FrameSet {
        FrameSet(vec![0; nr_frames.div_ceil(64)])
    }
    /// Makes it empty.
    pub(crate) fn clear(&mut self) {
        self.0.fill(0);
    }
    /// True when the frame is in the set.
    pub(crate) fn has(&self, pfn: u64) -> bool {
        self.0.get((pfn / 64) as usize).is_some_and(|word| word >> (pfn % 64) & 1 != 0)
    }
    /// Adds a frame.
    pub(crate) fn insert(&mut self, pfn: u64) {
        if let Some(word) = self.0.get_mut((pfn / 64) as usize) {
            *word |= 1 << (pfn % 64);
        }
    }
    /// True when some frame of the block is in the set.
    pub(crate) fn any(&self, pfn: u64, nr: u64) -> bool {
        (pfn..pfn.saturating_add(nr).min(self.0.len() as u64 * 64)).any(|pfn| self.has(pfn))
    }
    /// The members.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> {
        (0..self.0.len() as u64 * 64).filter(|pfn| self.has(*pfn))
    }
}

/// A frame on a preserved device's paths at the jump.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reached {
    /// The frame.
    pub(crate) pfn: u64,
    /// What it is to the walk.
    pub(crate) role: Role,
    /// Whose path.
    pub(crate) bdf: Bdf,
}

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    /// Declared by the run.
    pub(crate) context: Context,
    /// All domains that ever existed, by number.
    pub(crate) domains: Vec<Domain>,
    /// All devices, by number.
    pub(crate) devices: Vec<Device>,
    /// The request that the event at hand completed (landed, read, faulted, lost), with its device's place.
    pub(crate) completed: Option<(usize, Request)>,
    /// Phase.
    pub(crate) phase: Phase,
    /// Running generation.
    pub(crate) era: u8,
    /// Step of the last jump; 0 before any.
    pub(crate) jump_step: u64,
    /// The last jump handed something over.
    pub(crate) handover: bool,
    /// Records of the tracker at the last look, sorted; or why it could not be read.
    pub(crate) tracker: Vec<(Pa, u8)>,
    /// Why the tracker could not be read.
    pub(crate) tracker_error: Option<&'static str>,
    /// Frames handed over by the last jump.
    pub(crate) handed: FrameSet,
    /// Those of them restored since.
    pub(crate) restored: FrameSet,
    /// Version of a frame when it was restored.
    pub(crate) restored_version: Vec<u32>,
    /// Frames on the paths of preserved devices at the last jump.
    pub(crate) reach: Vec<Reached>,
    /// The same as a set.
    pub(crate) reach_set: FrameSet,
    /// KHO records by head frame.
    pub(crate) records: Vec<Records>,
    /// Pins by frame.
    pub(crate) pins: Vec<u16>,
    /// Domains that are immutable or preserved now.
    pub(crate) nr_guarded: u32,
    /// Files preserved in sessions of this kernel.
    pub(crate) nr_files: u32,
    /// Files whose entries the reboot call wrote.
    serialised: Vec<File>,
    /// Files handed over and not finished yet.
    pub(crate) handed_files: Vec<File>,
    /// Files finished since the last jump.
    pub(crate) finished_files: u32,
    /// Calls under way, by actor.
    calls: Vec<Call>,
    live_calls: SmallVec<[u8; 16]>,
    /// Step at which the last obstacle to a mutation went away.
    pub(crate) obstacle_until: u64,
    /// A close was under way when the reboot call serialised or jumped.
    pub(crate) close_met_reboot: bool,
    /// Failures injected in this run.
    pub(crate) injected: u32,
    /// A failure was injected since the last jump into what is no call of userspace: into boot, or into a helper of the kernel.
    pub(crate) failed_outside: bool,
    /// Calls of this kernel that returned an error after a failure was injected into them, by number.
    pub(crate) failed_calls: u32,
    /// Files that userspace has preserved: session descriptor, token. From the answers of the calls alone.
    preserved: SmallVec<[(u64, u64); 32]>,
    /// Sessions that userspace has created and not closed: descriptor, name. From the answers of the calls alone.
    sessions: SmallVec<[(u64, u64); 8]>,
    /// Names of the sessions that were open at the last jump.
    handed_sessions: SmallVec<[u64; 8]>,
    /// Failures injected since the last jump.
    pub(crate) injected_here: u32,
}

/// Actors a run may have.
const ACTORS: usize = 256;

impl Ledger {
    /// The ledger of a run that has not begun.
    pub(crate) fn new(topo: &Topology, context: Context) -> Ledger {
        let nr_frames = topo.nr_frames as usize;
        Ledger {
            context,
            domains: Vec::with_capacity(32),
            devices: topo.devices.iter().map(|device| Device::new(device.bdf, UnitId(device.unit))).collect(),
            completed: None,
            phase: Phase::ColdBoot,
            era: 0,
            jump_step: 0,
            handover: false,
            tracker: Vec::new(),
            tracker_error: None,
            handed: FrameSet::new(nr_frames),
            restored: FrameSet::new(nr_frames),
            restored_version: vec![0; nr_frames],
            reach: Vec::new(),
            reach_set: FrameSet::new(nr_frames),
            records: vec![Records::default(); nr_frames],
            pins: vec![0; nr_frames],
            nr_guarded: 0,
            nr_files: 0,
            serialised: Vec::new(),
            handed_files: Vec::new(),
            finished_files: 0,
            calls: vec![Call::default(); ACTORS],
            live_calls: SmallVec::new(),
            obstacle_until: 0,
            close_met_reboot: false,
            injected: 0,
            injected_here: 0,
            failed_outside: false,
            failed_calls: 0,
            sessions: SmallVec::new(),
            handed_sessions: SmallVec::new(),
            preserved: SmallVec::new(),
        }
    }

    /// The call an actor is in.
    pub(crate) fn call_of(&self, event: &Event) -> &Call {
        &self.calls[usize::from(event.actor.0)]
    }

    /// True when the acting program is in a call and nobody else is in one.
    pub(crate) fn alone(&self, event: &Event) -> bool {
        matches!(self.live_calls.as_slice(), [only] if *only == event.actor.0)
    }

    /// Files whose entries the reboot call wrote, and that were not withdrawn since.
    pub(crate) fn serialised(&self) -> impl Iterator<Item = &File> {
        self.serialised.iter()
    }

    /// True while a reboot call is under way.
    pub(crate) fn rebooting(&self) -> bool {
        self.live_calls.iter().any(|actor| self.calls[usize::from(*actor)].number == call::REBOOT)
    }

    /// True while an actor other than that of the event is in a reboot call.
    pub(crate) fn others_reboot(&self, event: &Event) -> bool {
        let others = self.live_calls.iter().filter(|actor| **actor != event.actor.0);
        others.into_iter().any(|actor| self.calls[usize::from(*actor)].number == call::REBOOT)
    }

    /// True when something preserved, immutable or rebooting can make the kernel refuse a mutation now.
    pub(crate) fn obstacle(&self) -> bool {
        self.nr_guarded > 0 || self.nr_files > 0 || !self.handed_files.is_empty() || self.rebooting()
    }

    /// True when the device must be served now.
    pub(crate) fn promised(&self, device: &Device) -> bool {
        device.promise && (self.phase != Phase::Shutdown || device.preserved)
    }

    /// True when the allocation that has this frame, of this version, is the one the last jump handed over.
    pub(crate) fn came_over(&self, pfn: u64, version: u32) -> bool {
        self.handed.has(pfn) && (!self.restored.has(pfn) || self.restored_version[pfn as usize] == version)
    }

    /// Place of the device with this requester id.
    pub(crate) fn device_at(&self, bdf: u64) -> Option<usize> {
        self.devices.iter().position(|device| u64::from(device.bdf.0) == bdf)
    }

    /// The live domain of the running kernel at this address.
    pub(crate) fn domain_at(&self, ptr: u64) -> Option<usize> {
        self.domains.iter().rposition(|domain| domain.ptr == ptr && ptr != 0)
    }

    /// True when some domain of an earlier generation is still in hardware.
    pub(crate) fn inherited_domain_in_use(&self) -> bool {
        let inherited = |domain: &Option<DomainIndex>| domain.is_some_and(|index| self.domains[usize::from(index)].inherited);
        self.devices.iter().any(|device| device.domains.iter().any(inherited))
    }

    /// True when the last unpin of a block leaves it mapped by a restored domain: the kernel before pinned those pages, this one never
    /// did. A block may be mapped in part only: what is pinned is the folio.
    pub(crate) fn unpin_leaves_inherited(&self, pfn: u64, order: u64) -> bool {
        self.reach_set.any(pfn, 1 << order.min(18)) && self.inherited_domain_in_use()
    }

    /// A folio that is pinned although none of its pages is, or may be, mapped in a domain of this kernel.
    pub(crate) fn pinned_but_not_mapped(&self, memory: &Memory) -> Option<u64> {
        let mut mapped = FrameSet::new(memory.frames.len());
        for domain in self.domains.iter().filter(|domain| domain.ptr != 0) {
            domain.mappings.frames(|pfn| {
                if let Some(frame) = memory.frames.get(pfn as usize) {
                    mapped.insert(u64::from(frame.head));
                }
            });
        }
        let head = |pfn: usize| memory.frames.get(pfn).map_or(pfn as u64, |frame| u64::from(frame.head));
        let pinned = self.pins.iter().enumerate().filter(|(_, pins)| **pins > 0);
        pinned.map(|(pfn, _)| pfn).find(|&pfn| !mapped.has(head(pfn))).map(|pfn| pfn as u64)
    }

    fn domain_or_new(&mut self, ptr: u64) -> usize {
        self.domain_at(ptr).unwrap_or_else(|| self.new_domain(ptr, Pa(0)))
    }

    fn new_domain(&mut self, ptr: u64, top: Pa) -> usize {
        let fresh = Domain { ptr, top, preserved: false, immutable: false, inherited: false, mappings: Mappings::default() };
        self.domains.push(fresh);
        self.domains.len() - 1
    }

    fn note(&mut self, event: &Event, verb: Verb, args: [u64; 4], memory: &Memory) {
        match verb {
            verb::USER_CALL => self.begin_call(event, args),
            verb::NO_MEMORY => self.fail(event),
            verb::PHASE => self.begin_phase(args[0]),
            verb::KHO_ADD => {
                if let (Some(records), Some(frame)) = (self.records.get_mut((args[0] >> 12) as usize), memory.frame(Pa(args[0]))) {
                    *records = Records { orders: records.orders | 1u16.checked_shl(args[1] as u32).unwrap_or(0), version: frame.version };
                }
            }
            verb::KHO_DEL => {
                if let Some(records) = self.records.get_mut((args[0] >> 12) as usize) {
                    records.orders &= !1u16.checked_shl(args[1] as u32).unwrap_or(0);
                }
            }
            verb::DOMAIN_CREATED => {
                if let Some(stale) = self.domain_at(args[0]) {
                    self.domains[stale].ptr = 0;
                }
                self.new_domain(args[0], Pa(args[1]));
            }
            verb::DOMAIN_FREED => self.free_domain(event, args[0]),
            verb::DEVICE_CHANGING => self.change_device(event, args),
            verb::DEVICE_ATTACHED => self.attach_device(event, args),
            verb::ADOPTED => self.adopt(args),
            verb::MAP_BEGIN => self.begin_map(args),
            verb::MAP_END => {
                let domain = self.domain_or_new(args[0]);
                let (page, pages, failed) = (args[1] >> 12, args[2] >> 12, args[3] as i64 != 0);
                self.domains[domain].mappings.end_map(page, pages, !failed);
                if failed {
                    self.settle(domain, page, pages);
                }
            }
            verb::UNMAP_BEGIN => {
                let domain = self.domain_or_new(args[0]);
                let (page, pages) = (args[1] >> 12, args[2] >> 12);
                self.domains[domain].mappings.begin_unmap(page, pages);
                self.each_request(domain, page, pages, |request| request.must = None);
            }
            verb::UNMAP_END => {
                let domain = self.domain_or_new(args[0]);
                let (page, pages, unmapped) = (args[1] >> 12, args[2] >> 12, args[3] >> 12);
                self.domains[domain].mappings.end_unmap(page, pages, unmapped);
                self.settle(domain, page, pages.max(unmapped));
            }
            verb::PINNED => self.folio_pins(args).iter_mut().for_each(|pins| *pins = pins.saturating_add(1)),
            verb::UNPINNED => self.folio_pins(args).iter_mut().for_each(|pins| *pins = pins.saturating_sub(1)),
            verb::DOMAIN_PRESERVED if args[2] == 0 => self.guard(event, args[0], |domain| domain.preserved = true),
            verb::DOMAIN_UNPRESERVED => self.guard(event, args[0], |domain| domain.preserved = false),
            verb::IMMUTABLE => self.guard(event, args[0], |domain| domain.immutable = args[1] != 0),
            verb::DEVICE_PRESERVED if args[2] == 0 => {
                if let Some(at) = self.device_at(args[0]) {
                    self.devices[at].preserved = true;
                }
            }
            verb::DEVICE_UNPRESERVED => {
                if let Some(at) = self.device_at(args[0]) {
                    self.devices[at].preserved = false;
                    if self.phase == Phase::Shutdown {
                        self.devices[at].exempt_requests();
                    }
                }
            }
            verb::FILE_OP => self.file_op(event, args),
            verb::KHO_RESTORED => self.restored(args, memory),
            verb::QUIESCENT => match if args[0] == 0 { inspect::find_fdt(memory) } else { Some(Pa(args[0])) } {
                Some(fdt) => self.read_tracker(memory, fdt),
                None => {
                    self.tracker.clear();
                    self.tracker_error = Some("there is no root FDT");
                }
            },
            _ => {}
        }
    }

    /// Pins of the frames of the folio that a word names: first frame, order.
    fn folio_pins(&mut self, args: [u64; 4]) -> &mut [u16] {
        let nr = 1usize.checked_shl(args[1] as u32).unwrap_or(0);
        let first = (args[0] as usize).min(self.pins.len());
        let end = first.saturating_add(nr).min(self.pins.len());
        &mut self.pins[first..end]
    }

    fn read_tracker(&mut self, memory: &Memory, fdt: Pa) {
        self.tracker_error = inspect::read_tracker(memory, fdt, &mut self.tracker).err();
    }

    /// Something failed for a reason that lies outside the kernel: the call it happened in, or the kernel's own work.
    fn fail(&mut self, event: &Event) {
        let call = &mut self.calls[usize::from(event.actor.0)];
        match call.number {
            0 => self.failed_outside = true,
            _ => call.failed = true,
        }
    }

    fn begin_call(&mut self, event: &Event, args: [u64; 4]) {
        let overlapped = !self.live_calls.is_empty();
        for actor in &self.live_calls {
            self.calls[usize::from(*actor)].overlapped = true;
        }
        self.calls[usize::from(event.actor.0)] = Call {
            number: args[0] as u8,
            hostile: args[3] & 1 != 0,
            overlapped,
            cannot_finish: false,
            failed: false,
            since: event.step,
            args: [args[1], args[2]],
        };
        if !self.live_calls.contains(&event.actor.0) {
            self.live_calls.push(event.actor.0);
        }
        self.meet_reboot();
    }

    /// True when a failure was injected into an earlier call of this number, in this kernel, and that call returned an error.
    pub(crate) fn has_failed(&self, number: u8) -> bool {
        self.failed_calls >> number & 1 != 0
    }

    /// True when a session of this name was open when the kernel before was left.
    pub(crate) fn is_handed_session(&self, name: u64) -> bool {
        self.handed_sessions.contains(&name)
    }

    /// True when userspace preserved a file under this token and has not given its session up.
    pub(crate) fn is_preserved(&self, token: u64) -> bool {
        self.preserved.iter().any(|file| file.1 == token)
    }

    /// Ends a call with its result; called after the oracles have judged its return.
    pub(crate) fn end_call(&mut self, event: &Event, result: i64) {
        let obstacle = self.obstacle();
        let call = &self.calls[usize::from(event.actor.0)];
        if call.failed && result < 0 {
            self.failed_calls |= 1 << call.number;
        }
        match call.number {
            call::PRESERVE_FD if result == 0 => self.preserved.push((call.args[0], call.args[1])),
            call::CREATE_SESSION if result >= 0 => self.sessions.push((result as u64, call.args[0])),
            call::CLOSE => {
                let closed = call.args[0];
                self.preserved.retain(|file| file.0 != closed);
                self.sessions.retain(|session| session.0 != closed);
            }
            _ => {}
        }
        self.calls[usize::from(event.actor.0)] = Call::default();
        self.live_calls.retain(|actor| *actor != event.actor.0);
        if obstacle && !self.obstacle() {
            self.obstacle_until = event.step;
        }
    }

    fn meet_reboot(&mut self) {
        let close = self.live_calls.iter().any(|actor| self.calls[usize::from(*actor)].number == call::CLOSE);
        self.close_met_reboot |= close && self.rebooting();
    }

    fn begin_phase(&mut self, phase: u64) {
        let Some(phase) = Phase::ALL.get(phase as usize).copied() else { return };
        self.phase = phase;
        match phase {
            Phase::Serialise => self.serialised.clear(),
            Phase::Shutdown => {
                for device in self.devices.iter_mut().filter(|device| !device.preserved) {
                    device.exempt_requests();
                }
            }
            _ => {}
        }
    }

    fn guard(&mut self, event: &Event, ptr: u64, change: impl FnOnce(&mut Domain)) {
        let domain = self.domain_or_new(ptr);
        let obstacle = self.obstacle();
        change(&mut self.domains[domain]);
        self.nr_guarded = self.domains.iter().filter(|domain| domain.immutable || domain.preserved).count() as u32;
        if obstacle && !self.obstacle() {
            self.obstacle_until = event.step;
        }
    }

    fn file_op(&mut self, event: &Event, args: [u64; 4]) {
        let [token, op, errno, session] = args;
        let (op, handler) = (op & 0xff, (op >> 8) as u8);
        let file = File { session, token, handler };
        let same = |other: &File| other.session == session && other.token == token;
        let obstacle = self.obstacle();
        if op == FileOp::CannotFinish as u64 {
            self.calls[usize::from(event.actor.0)].cannot_finish = true;
        } else if op == FileOp::Finish as u64 {
            self.finished_files += 1;
            if let Some(at) = self.handed_files.iter().position(|other| other.token == token) {
                self.handed_files.remove(at);
            }
            // What was restored for iommufd and VFIO need not be served any more.
            if handler != 1 {
                for device in self.devices.iter_mut().filter(|device| device.inherited) {
                    device.promise = false;
                    device.requests.iter_mut().for_each(|request| request.must = None);
                }
            }
        } else if op == FileOp::Unpreserve as u64 {
            self.nr_files = self.nr_files.saturating_sub(1);
            self.serialised.retain(|other| !same(other));
        } else if errno == 0 && op == FileOp::Preserve as u64 {
            self.nr_files += 1;
        } else if errno == 0 && op == FileOp::Serialised as u64 {
            if !self.serialised.iter().any(same) {
                self.serialised.push(file);
            }
        } else if op == FileOp::Unfreeze as u64 {
            self.serialised.retain(|other| !same(other));
        }
        if obstacle && !self.obstacle() {
            self.obstacle_until = event.step;
        }
    }

    fn restored(&mut self, args: [u64; 4], memory: &Memory) {
        let first = args[0] >> 12;
        let nr = 1u64.checked_shl(args[1] as u32).unwrap_or(0);
        for pfn in first..first.saturating_add(nr).min(memory.frames.len() as u64) {
            self.restored.insert(pfn);
            self.restored_version[pfn as usize] = memory.frames[pfn as usize].version;
        }
    }

    // Mappings.

    /// Every request for a page of the range that may go through the domain and has no answer yet.
    fn each_request(&mut self, domain: usize, page: u64, pages: u64, mut change: impl FnMut(&mut Request)) {
        let domain = domain as DomainIndex;
        for device in self.devices.iter_mut().filter(|device| device.may_use(domain)) {
            for request in &mut device.requests {
                if request.page() >= page && request.page() < page.saturating_add(pages) {
                    change(request);
                }
            }
        }
    }

    /// What the domain had mapped there is legal no more, except what still is mapped. That holds for writes that were posted
    /// before, too: unmap has drained them.
    fn settle(&mut self, domain: usize, page: u64, pages: u64) {
        let Ledger { devices, domains, .. } = self;
        let index = domain as DomainIndex;
        for device in devices {
            let uses = device.may_use(index);
            for request in &mut device.requests {
                if request.page() < page || request.page() >= page.saturating_add(pages) {
                    continue;
                }
                let known = request.forbid(|other| other == index);
                if known || uses {
                    domains[domain].mappings.targets(request.page(), |target| request.permit(index, target));
                }
            }
        }
    }

    fn begin_map(&mut self, args: [u64; 4]) {
        let domain = self.domain_or_new(args[0]);
        let bytes = args[3] & ((1 << 56) - 1);
        let extent = Extent { page: args[1] >> 12, pages: bytes >> 12, pfn: args[2] >> 12, prot: (args[3] >> 56) as u8 & 3, sure: true };
        self.domains[domain].mappings.begin_map(extent);
        self.each_request(domain, extent.page, extent.pages, |request| {
            if request.translated.is_none() {
                let target = mappings::Target { pfn: extent.pfn + (request.page() - extent.page), prot: extent.prot, sure: false };
                request.permit(domain as DomainIndex, target);
            }
        });
    }

    fn free_domain(&mut self, event: &Event, ptr: u64) {
        let asked = self.call_of(event).number != 0;
        let Some(at) = self.domain_at(ptr) else { return };
        let kept = !asked && self.devices.iter().any(|device| device.inherited && device.may_use(at as DomainIndex));
        let domain = &mut self.domains[at];
        domain.ptr = 0;
        if !kept {
            domain.mappings.clear();
            domain.immutable = false;
            domain.preserved = false;
            self.nr_guarded = self.domains.iter().filter(|domain| domain.immutable || domain.preserved).count() as u32;
            self.settle(at, 0, u64::MAX);
        }
    }

    // Devices.

    /// The boot path's own changes to a device that came over the jump are no legal ground for anything.
    fn is_ground(&mut self, event: &Event, at: usize) -> bool {
        if call::ASK_FOR_A_DOMAIN.contains(&self.call_of(event).number) {
            self.devices[at].inherited = false;
        }
        !self.devices[at].inherited
    }

    fn change_device(&mut self, event: &Event, args: [u64; 4]) {
        let Some(at) = self.device_at(args[0]) else { return };
        if !self.is_ground(event, at) {
            return;
        }
        let new = (args[1] != 0).then(|| self.domain_or_new(args[1]) as DomainIndex);
        let Ledger { devices, domains, .. } = self;
        let device = &mut devices[at];
        device.changing = true;
        if !device.domains.contains(&new) {
            device.domains.push(new);
        }
        for request in &mut device.requests {
            request.must = None;
            permit(request, new, domains);
        }
    }

    fn attach_device(&mut self, event: &Event, args: [u64; 4]) {
        let Some(at) = self.device_at(args[0]) else { return };
        if !self.is_ground(event, at) {
            return;
        }
        let new = (args[1] != 0).then(|| self.domain_or_new(args[1]) as DomainIndex);
        let Ledger { devices, domains, .. } = self;
        let device = &mut devices[at];
        device.changing = false;
        device.domains.clear();
        device.domains.push(new);
        device.domain_id = new.is_some().then_some(args[2] as u16);
        device.promise = true;
        device.late = false;
        for request in &mut device.requests {
            request.must = None;
            if request.translated.is_none() {
                request.forbid(|other| Some(other) != new);
                permit(request, new, domains);
            }
        }
    }

    /// The incoming kernel's domain object stands for the domain the device came with.
    fn adopt(&mut self, args: [u64; 4]) {
        let Some(at) = self.device_at(args[0]).filter(|at| self.devices[*at].inherited) else { return };
        let Some(old) = self.devices[at].domain().map(usize::from) else { return };
        match self.domain_at(args[1]) {
            Some(fresh) if fresh == old => return,
            // Another inherited domain has this object already: then this device keeps its own reference.
            Some(fresh) if self.domains[fresh].inherited => return,
            Some(fresh) => self.domains[fresh].ptr = 0,
            None => {}
        }
        self.domains[old].ptr = args[1];
    }

    // Requests.

    fn issue(&mut self, at: usize, request: Request) {
        let Ledger { devices, domains, phase, .. } = self;
        let device = &mut devices[at];
        let mut request = request;
        let stopping = *phase == Phase::Shutdown && !device.preserved;
        request.exempt = std::mem::take(&mut device.late) || stopping;
        let certain = !device.changing && device.domains.len() == 1;
        let mut must = None;
        for domain in device.domains.iter().flatten().copied() {
            domains[usize::from(domain)].mappings.targets(request.page(), |target| {
                if target.sure && request.allowed_by(target.prot) {
                    must = Some(target.pfn);
                }
                request.permit(domain, target);
            });
        }
        request.must = must.filter(|_| certain && device.promise && !stopping && request.legal_frames().count() == 1);
        device.add(request);
    }

    fn jump(&mut self, event: &Event, era: u8) {
        self.era = era;
        self.jump_step = event.step;
        self.phase = Phase::EarlyBoot;
        self.meet_reboot();
        for device in &mut self.devices {
            device.inherited = device.preserved && self.handover;
            device.preserved = false;
            device.promise = device.inherited;
            if !device.inherited {
                device.domains.clear();
                device.changing = false;
                device.domain_id = None;
                device.late = true;
                device.exempt_requests();
            }
        }
        for domain in &mut self.domains {
            domain.ptr = 0;
            domain.preserved = false;
            domain.immutable = false;
            domain.inherited = true;
        }
        self.nr_guarded = 0;
        self.nr_files = 0;
        self.injected_here = 0;
        self.failed_outside = false;
        self.failed_calls = 0;
        self.preserved.clear();
        self.handed_sessions = self.sessions.drain(..).map(|session| session.1).collect();
        self.finished_files = 0;
        self.handed_files.clear();
        self.handed_files.extend(self.serialised.drain(..).map(|file| File { session: 0, ..file }));
        self.records.fill(Records::default());
        self.pins.fill(0);
        self.calls.fill(Call::default());
        self.live_calls.clear();
        self.obstacle_until = event.step;
        self.handed.clear();
        self.restored.clear();
        if self.handover {
            for (pa, order) in &self.tracker {
                let first = pa.0 >> 12;
                for pfn in first..first.saturating_add(1 << (*order).min(40)).min(self.pins.len() as u64) {
                    self.handed.insert(pfn);
                }
            }
        }
    }

    /// Reads the tracker, and what hardware can reach for preserved devices, just before the jump.
    fn before_jump(&mut self, args: [u64; 4], view: &View<'_>) {
        self.handover = args[0] != 0;
        self.tracker.clear();
        self.tracker_error = None;
        if self.handover {
            self.read_tracker(view.memory, Pa(args[0]));
        }
        self.reach.clear();
        self.reach_set.clear();
        for index in 0..self.devices.len() {
            let (bdf, unit) = (self.devices[index].bdf, self.devices[index].unit);
            let Some(slot) = view.fabric.units().get(usize::from(unit.0)) else { continue };
            if !self.devices[index].preserved || !self.handover {
                continue;
            }
            let unit = slot.unit.borrow();
            if !unit.translation_enabled() {
                continue;
            }
            let root = Pa(unit.root_in_use().table() << 12);
            let Ledger { reach, reach_set, .. } = self;
            let nr_frames = view.memory.frames.len() as u64;
            Reach::new(view.memory, true).device(root, bdf, &mut |pa, bytes, role| {
                for pfn in pa.0 >> 12..((pa.0 + bytes) >> 12).min(nr_frames) {
                    if !reach_set.has(pfn) {
                        reach_set.insert(pfn);
                        reach.push(Reached { pfn, role, bdf });
                    }
                }
                false
            });
        }
    }
}

fn permit(request: &mut Request, domain: Option<DomainIndex>, domains: &[Domain]) {
    if let Some(domain) = domain
        && request.translated.is_none()
    {
        domains[usize::from(domain)].mappings.targets(request.page(), |target| request.permit(domain, target));
    }
}

/// The oracle that keeps the ledger.
pub(crate) struct Keeper(pub(crate) Rc<RefCell<Ledger>>);

impl Oracle for Keeper {
    fn name(&self) -> &'static str {
        "ledger"
    }

    fn interests(&self) -> u32 {
        kinds::INJECTED | kinds::DMA | kinds::JUMPED | kinds::NOTE
    }

    fn verbs(&self) -> u64 {
        // The most frequent words are of no use to it.
        !kinds::verbs(&[verb::CALL, verb::MARK, verb::WARN, verb::USER_RETURN, verb::KHO_RESERVED])
    }

    fn on_event(&mut self, event: &Event, view: &View<'_>) -> Option<Finding> {
        let mut ledger = self.0.borrow_mut();
        let ledger = &mut *ledger;
        ledger.completed = None;
        match event.kind {
            EventKind::DmaIssued { device, serial, iova, write } => {
                let at = usize::from(device.0);
                if at < ledger.devices.len() {
                    ledger.issue(at, Request::new(serial, iova, write, event.era));
                }
            }
            EventKind::DmaTranslated { device, serial, pa, domain, cached, .. } => {
                if let Some(request) = ledger.devices.get_mut(usize::from(device.0)).and_then(|device| device.find(serial)) {
                    request.translated = Some(pa);
                    request.domain = domain;
                    request.cached = cached;
                }
            }
            EventKind::DmaFaulted { device, serial, .. }
            | EventKind::DmaLanded { device, serial, .. }
            | EventKind::DmaRead { device, serial, .. }
            | EventKind::DmaLost { device, serial, .. } => {
                let at = usize::from(device.0);
                ledger.completed = ledger.devices.get_mut(at).and_then(|device| device.take(serial)).map(|request| (at, request));
            }
            EventKind::Injected { .. } => {
                ledger.injected += 1;
                ledger.injected_here += 1;
                ledger.fail(event);
            }
            EventKind::Jumped { era } => ledger.jump(event, era),
            EventKind::Note { verb: verb::BEFORE_JUMP, args } => ledger.before_jump(args, view),
            EventKind::Note { verb, args } => ledger.note(event, verb, args, view.memory),
            _ => {}
        }
        None
    }
}
