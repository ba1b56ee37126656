//! The state of a walk in flight. What each call of `advance` does with it is in `step`.

use super::cache::space::Space;
use super::device_entry::{DeviceEntry, HostTranslation};
use crate::addr::{Bdf, DomainId, Iova, Pa, Pasid};
use crate::ats::RequestKind;
use crate::provenance::{ProvenanceId, Words};
use crate::request::{Access, CacheHit, FetchKind, Request, WalkId};

/// Where a walk stands; the next call of `advance` does this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Checks that need no table, then the look-up of the device table entry.
    Begin,
    /// Nothing until the leader has ended.
    Merged,
    /// Fetch of the device table entry.
    Device,
    /// TLB look-up for the request.
    Tlb,
    /// Look-up of the GCR3 table entry.
    GuestRootLookup,
    /// Fetch of a GCR3 table entry of [`Walk::level`].
    GuestRoot,
    /// Guest page table: look-up in the page-directory caches.
    GuestLookup,
    /// Guest page table: fetch of the entry at [`Walk::level`].
    Guest,
    /// Update of that entry.
    GuestUpdate,
    /// Host page table: look-up in the page-directory caches.
    HostLookup,
    /// Host page table: fetch of the entry at [`HostWalk::level`].
    Host,
    /// Update of that entry.
    HostUpdate,
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

/// What the host page table translates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// The address of a GCR3 table entry.
    GuestRoot,
    /// The address of a guest page-table entry.
    GuestTable,
    /// The address of the request itself.
    Page,
}

/// Where the host side of a walk stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostWalk {
    pub(crate) purpose: Purpose,
    pub(crate) input: u64,
    pub(crate) table: Pa,
    pub(crate) level: u8,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

/// Where the guest side of a walk stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GuestWalk {
    /// Next GCR3 table or guest page table.
    pub(crate) table: Pa,
    /// Its level.
    pub(crate) level: u8,
    pub(crate) writable: bool,
    pub(crate) user: bool,
    /// The host lets the entry that was fetched last be written.
    pub(crate) entry_writable: bool,
    /// log2 of the page size, once a leaf is held.
    pub(crate) leaf_shift: Option<u8>,
    /// D of the leaf is set, or need not be.
    pub(crate) dirty: bool,
}

impl GuestWalk {
    const IDLE: Self = Self { table: Pa(0), level: 0, writable: true, user: true, entry_writable: true, leaf_shift: None, dirty: true };
}

/// One walk.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    /// Of a translation request, the access is a write if NW is clear.
    pub(crate) request: Request,
    pub(crate) kind: RequestKind,
    /// Begun by the unit itself; never logs an event.
    pub(crate) prefetch: bool,
    pub(crate) step: Step,
    pub(crate) outstanding: Outstanding,
    /// A device table entry is held: `device` counts.
    pub(crate) has_device: bool,
    /// A GCR3 table entry or guest page-table entry is held or awaited.
    pub(crate) guest_touched: bool,
    /// A host entry is held or awaited.
    pub(crate) host_touched: bool,
    /// Updates that found another word, in a row.
    pub(crate) tries: u8,
    pub(crate) from: CacheHit,
    pub(crate) device: DeviceEntry,
    /// The PASID of guest translation, if there is any.
    pub(crate) pasid: Option<Pasid>,
    pub(crate) guest: GuestWalk,
    pub(crate) host: HostWalk,
    /// What the outstanding update expects and stores.
    pub(crate) update: [u64; 2],
    pub(crate) pending_pa: Pa,
    pub(crate) words: ProvenanceId,
    /// Words of the whole walk, while those of a host walk inside it are in `words`.
    pub(crate) outer_words: ProvenanceId,
    /// Words of the device table entry.
    pub(crate) base_words: ProvenanceId,
    /// The walk it waits for, while `step` says so.
    pub(crate) leader: WalkId,
    pub(crate) cost_total: u32,
    pub(crate) fetches: u32,
    /// Odd while the walker is taken.
    pub(crate) generation: u32,
}

impl Walk {
    /// A walker that nobody uses.
    pub(crate) const fn idle() -> Self {
        Self {
            request: Request { source: Bdf(0), iova: Iova(0), access: Access::Read, pasid: None },
            kind: RequestKind::Untranslated,
            prefetch: false,
            step: Step::Begin,
            outstanding: Outstanding::None,
            has_device: false,
            guest_touched: false,
            host_touched: false,
            tries: 0,
            from: CacheHit::None,
            device: DeviceEntry::BLANK,
            pasid: None,
            guest: GuestWalk::IDLE,
            host: HostWalk { purpose: Purpose::Page, input: 0, table: Pa(0), level: 0, readable: true, writable: true },
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
    pub(crate) fn start(&mut self, request: Request, kind: RequestKind, prefetch: bool) {
        self.request = request;
        self.kind = kind;
        self.prefetch = prefetch;
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
        self.guest_touched = false;
        self.host_touched = false;
        self.tries = 0;
        self.from = CacheHit::None;
        self.pasid = None;
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

    /// Lets go of every word.
    #[inline]
    pub(crate) fn release(&mut self, words: &mut Words) {
        for held in [&mut self.words, &mut self.outer_words, &mut self.base_words] {
            words.release(core::mem::replace(held, ProvenanceId::NONE));
        }
    }

    /// Takes the words of a cached entry instead of those held.
    #[inline]
    pub(crate) fn adopt_words(&mut self, of: ProvenanceId, words: &mut Words) {
        words.hold(of);
        words.release(core::mem::replace(&mut self.words, of));
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

    /// Starts guest translation from nothing.
    pub(crate) fn start_guest(&mut self) {
        self.guest = GuestWalk::IDLE;
        self.guest_touched = true;
    }

    /// What the request is translated in.
    #[inline]
    pub(crate) const fn space(&self) -> Space {
        match self.pasid {
            None => Space::Host(self.device.domain),
            Some(pasid) => Space::Guest(self.device.domain, pasid),
        }
    }

    /// Root and levels of the host page table.
    pub(crate) const fn host_tables(&self) -> Option<(Pa, u8)> {
        match self.device.host {
            HostTranslation::Tables { root, levels } => Some((root, levels)),
            _ => None,
        }
    }

    /// Whether the host page table translates what the guest's yields.
    pub(crate) const fn is_nested(&self) -> bool {
        self.pasid.is_some() && self.host_tables().is_some()
    }

    pub(crate) const fn writes(&self) -> bool {
        matches!(self.request.access, Access::Write)
    }

    /// Whether it is a translation request, which takes what rights there are.
    pub(crate) const fn asks(&self) -> bool {
        matches!(self.kind, RequestKind::Translation { .. })
    }

    /// Whether the host translates, for this purpose, what is to be written to. Nobody asks for a right that the guest does not
    /// give.
    pub(crate) fn host_writes(&self, purpose: Purpose) -> bool {
        self.writes() && purpose == Purpose::Page && (self.pasid.is_none() || self.guest.writable)
    }

    /// Whether these rights of the host serve what it translates for this purpose.
    pub(crate) fn host_serves(&self, purpose: Purpose, readable: bool, writable: bool) -> bool {
        match self.asks() && purpose == Purpose::Page {
            true => readable || writable,
            false if self.host_writes(purpose) => writable,
            false => readable,
        }
    }

    /// What the present step fetches.
    pub(crate) fn awaited(&self) -> FetchKind {
        match self.step {
            Step::GuestRoot => FetchKind::GuestCr3 { level: self.guest.level },
            Step::Guest | Step::GuestUpdate => FetchKind::FirstStage { level: self.guest.level },
            Step::Host | Step::HostUpdate => FetchKind::Table { level: self.host.level },
            _ => FetchKind::DeviceTableEntry,
        }
    }
}

/// What can be seen of a walk in flight from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalkView {
    /// Its id.
    pub id: WalkId,
    /// What it translates.
    pub request: Request,
    /// Its domain, once the device table entry is known.
    pub domain: Option<DomainId>,
    /// The fetch it waits for.
    pub fetch: Option<(Pa, FetchKind)>,
    /// The walk it waits for.
    pub leader: Option<WalkId>,
    /// Begun by the unit itself, not by a request.
    pub prefetch: bool,
}
