//! Steps 1 and 2: from the requester id to a device table entry, and what it says before any table is read.
//!
//! - Requests of ATS: `ats`. What follows is of plain requests, and of translation requests that may be made.
//! - Translation off: the address passes. Writes in the interrupt range are not memory.
//! - An id beyond the device table is a page fault.
//! - V = 0: the address passes untranslated, it is not blocked.
//! - Exclusion range: the address passes.
//! - PASID: a request with one needs GV, one without has PASID 0 with GIoV. That the event is INVALID_DEVICE_REQUEST
//!   without GV is an assumption. A PASID beyond the GCR3 table is a page fault.
//! - IR and IW gate every access, with or without tables.

use super::cache::device::DeviceCached;
use super::capability::Capabilities;
use super::device_entry::{DeviceEntry, HostTranslation};
use super::unit::Unit;
use super::walk::Step;
use crate::addr::{PAGE_SIZE, Pa, Pasid, Pfn};
use crate::ats::RequestKind;
use crate::decision::Decisions;
use crate::provenance::ProvenanceId;
use crate::request::{Access, CacheKind, Progress, Request};
use crate::spec::amd::address::{INTERRUPT_RANGE_FIRST, INTERRUPT_RANGE_LAST};
use crate::spec::amd::control::Control;
use crate::spec::amd::device_table::DEVICE_ENTRY_BYTES;
use crate::spec::amd::event::{EventCode, EventFlags};
use crate::spec::amd::guest_table::{LEVEL_BITS, PASID_BITS};
use crate::spec::amd::register::{ExclusionBase, ExclusionLimit};

/// What follows once the device table entry is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum After {
    /// The address passes as it is.
    Pass,
    /// The TLB.
    Translate,
    /// A translated request passes.
    PassTranslated,
    /// An event.
    Fault(EventCode, EventFlags),
}

/// Whether a request is an interrupt.
#[inline]
pub(crate) fn is_interrupt(request: &Request) -> bool {
    request.access == Access::Write && (INTERRUPT_RANGE_FIRST..=INTERRUPT_RANGE_LAST).contains(&request.iova.0)
}

impl Unit {
    /// Step 1, and the look-up of step 2.
    #[inline]
    pub(crate) fn begin_walk(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let enabled = self.control.enable();
        let walk = self.walkers.at(slot);
        walk.step = Step::Begin;
        if walk.kind != RequestKind::Untranslated {
            if let Some(end) = self.begin_ats(slot, d) {
                return end;
            }
        } else if !enabled || is_interrupt(&walk.request) {
            return self.bypass(slot, enabled);
        }
        let walk = self.walkers.at(slot);
        let source = walk.request.source;
        let cost = self.params.timing.context_lookup;
        let Some(cached) = self.caches.devices.lookup(source) else {
            walk.step = Step::Device;
            walk.spend(cost);
            return Progress::Lookup { cache: CacheKind::Context, hit: false, cost };
        };
        walk.device = cached.entry;
        walk.words = cached.provenance;
        self.caches.words.hold(walk.words);
        match self.enter_device(slot) {
            After::Pass => self.pass(slot, cost),
            After::PassTranslated => self.pass_translated(slot, cost),
            After::Fault(code, flags) => self.fault(slot, code, flags, cost, d),
            After::Translate => {
                let walk = self.walkers.at(slot);
                walk.step = Step::Tlb;
                walk.spend(cost);
                Progress::Lookup { cache: CacheKind::Context, hit: true, cost }
            }
        }
    }

    /// Step 1: no table is looked at.
    #[cold]
    fn bypass(&mut self, slot: usize, enabled: bool) -> Progress {
        let cost = self.params.timing.bypass;
        let iova = self.walkers.at(slot).request.iova;
        self.end(slot);
        if enabled { Progress::InterruptMessage { address: iova, cost } } else { Progress::Untranslated { pa: Pa(iova.0), cost } }
    }

    /// Step 2, the request.
    pub(crate) fn fetch_device(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let index = u64::from(self.walkers.at(slot).request.source.0);
        let entries = (u64::from(self.device_table.size()) + 1) * PAGE_SIZE / DEVICE_ENTRY_BYTES;
        if index >= entries {
            return self.fault(slot, EventCode::PAGE_FAULT, EventFlags::new(), 0, d);
        }
        let pa = Pfn(self.device_table.frame()).pa().offset(index * DEVICE_ENTRY_BYTES);
        self.fetch(slot, pa, self.params.timing.context_fetch)
    }

    /// Step 2, the answer; then step 3 in the same call. That an entry with V = 0 is cached like any other is an assumption;
    /// an illegal one is not.
    pub(crate) fn consume_device(&mut self, slot: usize, words: [u64; 4], d: &mut dyn Decisions) -> Progress {
        let entry = match DeviceEntry::decode(words, &self.cap) {
            Ok(entry) => entry,
            Err(flags) => return self.fault(slot, EventCode::ILLEGAL_DEVICE_ENTRY, flags, 0, d),
        };
        let walk = self.walkers.at(slot);
        walk.device = entry;
        let cached = DeviceCached { device: walk.request.source, entry, provenance: walk.words };
        self.caches.devices.install(cached, &mut self.caches.words, d);
        match self.enter_device(slot) {
            After::Pass => self.pass(slot, 0),
            After::PassTranslated => self.pass_translated(slot, 0),
            After::Fault(code, flags) => self.fault(slot, code, flags, 0, d),
            After::Translate => self.look_up_tlb(slot, 0, d),
        }
    }

    /// What the entry says before any table is read. The walk holds it from now on.
    #[inline]
    fn enter_device(&mut self, slot: usize) -> After {
        if self.walkers.at(slot).kind != RequestKind::Untranslated
            && let Some(after) = self.admit_ats(slot)
        {
            self.walkers.at(slot).has_device = true;
            return after;
        }
        let rules = Rules { cap: &self.cap, control: self.control, exclusion: self.exclusion, exclusion_limit: self.exclusion_limit };
        let walk = self.walkers.at(slot);
        walk.has_device = true;
        let asks = walk.asks();
        let (pasid, after) = rules.judge(&walk.request, asks, &walk.device);
        walk.pasid = pasid;
        if pasid.is_some() {
            // Each host walk inside the guest's starts from these.
            self.caches.words.hold(walk.words);
            self.caches.words.release(core::mem::replace(&mut walk.base_words, walk.words));
        } else {
            debug_assert_eq!(walk.base_words, ProvenanceId::NONE);
        }
        after
    }
}

/// What of the unit's state a device table entry is judged by.
pub(crate) struct Rules<'a> {
    pub(crate) cap: &'a Capabilities,
    pub(crate) control: Control,
    pub(crate) exclusion: ExclusionBase,
    pub(crate) exclusion_limit: ExclusionLimit,
}

impl Rules<'_> {
    /// The PASID of guest translation, and what follows. A translation request (`asks`) takes what rights there are.
    #[inline]
    pub(crate) fn judge(&self, request: &Request, asks: bool, device: &DeviceEntry) -> (Option<Pasid>, After) {
        if device.host == HostTranslation::Invalid {
            return (None, After::Pass);
        }
        if self.exclusion.enable() && self.is_excluded(request.iova.0, device.exclusion) {
            return (None, After::Pass);
        }
        let pasid = match (request.pasid, device.guest) {
            (None, None) => None,
            _ => match self.judge_guest(request, device) {
                Ok(pasid) => pasid,
                Err((code, flags)) => return (request.pasid, After::Fault(code, flags)),
            },
        };
        if !asks && !request.access.allowed_by(device.readable, device.writable) {
            return (pasid, After::Fault(EventCode::PAGE_FAULT, EventFlags::new().with_present(true).with_permission(true)));
        }
        let after = match device.host {
            HostTranslation::Off if self.cap.blocks_without_translation => After::Fault(EventCode::PAGE_FAULT, EventFlags::new()),
            HostTranslation::Tables { .. } => After::Translate,
            _ if pasid.is_some() => After::Translate,
            _ => After::Pass,
        };
        (pasid, after)
    }

    #[cold]
    fn judge_guest(&self, request: &Request, device: &DeviceEntry) -> Result<Option<Pasid>, (EventCode, EventFlags)> {
        let guest = device.guest.filter(|_| self.control.guest_translation());
        match (request.pasid, guest) {
            (Some(_), None) => Err((EventCode::INVALID_DEVICE_REQUEST, EventFlags::new().with_guest(true))),
            (Some(pasid), Some(guest)) => {
                let bits = (u32::from(guest.root_levels) * LEVEL_BITS).min(u32::from(self.cap.pasid_bits)).min(PASID_BITS);
                match pasid.0 >> bits {
                    0 => Ok(Some(pasid)),
                    _ => Err((EventCode::PAGE_FAULT, EventFlags::new().with_guest(true))),
                }
            }
            (None, Some(guest)) if guest.without_pasid => Ok(Some(Pasid(0))),
            (None, _) => Ok(None),
        }
    }

    /// Whether an address passes because it lies in the exclusion range.
    #[cold]
    fn is_excluded(&self, address: u64, for_device: bool) -> bool {
        let page = Pa(address).pfn().0;
        (self.exclusion.allow() || for_device) && (self.exclusion.page()..=self.exclusion_limit.page()).contains(&page)
    }
}
