//! The step that each call of `advance` takes.
//!
//! 1. Translation off, interrupt range: `device_walk`
//! 2. Device table entry, and what it says before any table is read: `device_walk`
//! 3. TLB: here
//! 4. Guest translation, if the request has a PASID or GIoV gives it one: GCR3 table, then guest page table: `guest_walk`
//! 5. Host translation of the address, or of each address of the guest on the way: `host_walk`
//! 6. The end: here, or in `fault`

use super::cache::tlb::TlbEntry;
use super::unit::Unit;
use super::walk::{Outstanding, Purpose, Step};
use crate::addr::Pa;
use crate::decision::{Decisions, Question, ask_bool};
use crate::provenance::ProvenanceId;
use crate::request::{CacheHit, CacheKind, Fetched, Progress, Translation};
use crate::spec::amd::event::{EventCode, EventFlags};

/// Updates that may find another word, in a row, before the walk gives up with a hardware error (assumption).
pub(crate) const TRIES_MAX: u8 = 16;

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
            Step::Tlb => self.look_up_tlb(slot, 0, d),
            Step::Device => self.fetch_device(slot, d),
            Step::GuestRootLookup => self.look_up_guest_root(slot),
            Step::GuestRoot => self.fetch_guest_root(slot, d),
            Step::GuestLookup => self.look_up_guest(slot, d),
            Step::Guest | Step::GuestUpdate => self.fetch_guest(slot, d),
            Step::HostLookup => self.look_up_host(slot, d),
            Step::Host | Step::HostUpdate => self.fetch_host(slot),
        }
    }

    fn consume(&mut self, slot: usize, answer: Fetched, d: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
        walk.outstanding = Outstanding::None;
        let Some([word, high]) = answer.pair() else { return self.refuse_fetch(slot, d) };
        let (pa, kind) = (walk.pending_pa, walk.awaited());
        let words = &mut self.caches.words;
        match walk.step {
            Step::GuestUpdate | Step::HostUpdate => return self.consume_update(slot, word, d),
            Step::GuestRoot | Step::Guest | Step::Host => walk.words = words.push(walk.words, pa, word, kind),
            _ => {
                let [.., third, fourth, _, _, _, _] = answer.all();
                walk.words = words.push_wide(walk.words, pa, [word, high], kind);
                walk.words = words.push_wide(walk.words, pa.offset(16), [third, fourth], kind);
                return self.consume_device(slot, [word, high, third, fourth], d);
            }
        }
        match walk.step {
            Step::GuestRoot => self.consume_guest_root(slot, word, d),
            Step::Guest => self.consume_guest(slot, word, d),
            _ => self.consume_host(slot, word, d),
        }
    }

    /// There is no memory where the walk wanted to read.
    #[cold]
    fn refuse_fetch(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let code = match self.walkers.at(slot).step {
            Step::Device => EventCode::DEVICE_TABLE_HARDWARE,
            _ => EventCode::PAGE_TABLE_HARDWARE,
        };
        self.fault(slot, code, EventFlags::new(), 0, d)
    }

    /// Issues the fetch of what the step says.
    #[inline]
    pub(crate) fn fetch(&mut self, slot: usize, pa: Pa, cost: u32) -> Progress {
        let walk = self.walkers.at(slot);
        let kind = walk.awaited();
        walk.outstanding = Outstanding::Wanted;
        walk.pending_pa = pa;
        walk.fetches = walk.fetches.saturating_add(1);
        walk.spend(cost);
        Progress::Fetch { pa, bytes: kind.bytes(), kind, cost }
    }

    /// Asks for the atomic update of the entry that was fetched last.
    pub(crate) fn ask_update(&mut self, slot: usize, step: Step, [old, new]: [u64; 2]) -> Progress {
        let cost = self.params.timing.table_update;
        let walk = self.walkers.at(slot);
        walk.step = step;
        walk.update = [old, new];
        walk.outstanding = Outstanding::Wanted;
        walk.spend(cost);
        Progress::Update { pa: walk.pending_pa, old, new, kind: walk.awaited(), cost }
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
            return self.fault(slot, EventCode::PAGE_TABLE_HARDWARE, EventFlags::new(), 0, d);
        }
        if walk.step == Step::GuestUpdate {
            walk.step = Step::Guest;
            return self.consume_guest(slot, word, d);
        }
        walk.step = Step::Host;
        self.consume_host(slot, word, d)
    }

    /// Asks again for what is outstanding.
    fn ask_again(&mut self, slot: usize) -> Progress {
        let walk = self.walkers.at(slot);
        let (pa, kind) = (walk.pending_pa, walk.awaited());
        if let Step::GuestUpdate | Step::HostUpdate = walk.step {
            let [old, new] = walk.update;
            return Progress::Update { pa, old, new, kind, cost: 0 };
        }
        Progress::Fetch { pa, bytes: kind.bytes(), kind, cost: 0 }
    }

    /// Step 3.
    #[inline]
    pub(crate) fn look_up_tlb(&mut self, slot: usize, spent: u32, d: &mut dyn Decisions) -> Progress {
        let cost = spent.saturating_add(self.params.timing.iotlb_lookup);
        let walk = self.walkers.at(slot);
        let (iova, access) = (walk.request.iova, walk.request.access);
        let Some(entry) = self.caches.tlb.lookup(walk.space(), iova.0, d) else { return self.miss_tlb(slot, false, cost) };
        if entry.serves(access) {
            let entry = *entry;
            walk.from = CacheHit::Iotlb;
            walk.adopt_words(entry.provenance, &mut self.caches.words);
            return self.grant(slot, &entry, cost);
        }
        let entry = *entry;
        self.refuse_cached(slot, &entry, cost, d)
    }

    /// A cached entry does not serve the request: it faults, or it is walked again.
    #[cold]
    fn refuse_cached(&mut self, slot: usize, entry: &TlbEntry, cost: u32, d: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
        let cleans = walk.writes() && entry.writable && !entry.dirty;
        if walk.asks() && !entry.not_present && !cleans {
            walk.from = CacheHit::Iotlb;
            walk.adopt_words(entry.provenance, &mut self.caches.words);
            return self.grant(slot, entry, cost);
        }
        let denied = entry.not_present || !walk.request.access.allowed_by(entry.readable, entry.writable);
        if !denied || ask_bool(d, Question::RewalkDenied) {
            return self.miss_tlb(slot, true, cost);
        }
        walk.adopt_words(entry.provenance, &mut self.caches.words);
        let flags = match entry.not_present {
            true => EventFlags::new(),
            false => EventFlags::new().with_present(true).with_permission(true),
        };
        self.fault(slot, EventCode::PAGE_FAULT, flags, cost, d)
    }

    fn miss_tlb(&mut self, slot: usize, hit: bool, cost: u32) -> Progress {
        let walk = self.walkers.at(slot);
        walk.spend(cost);
        if walk.pasid.is_some() {
            walk.start_guest();
            walk.step = Step::GuestRootLookup;
        } else {
            let input = walk.request.iova.0;
            self.start_host(slot, input, Purpose::Page);
        }
        Progress::Lookup { cache: CacheKind::Iotlb, hit, cost }
    }

    /// Ends the walk with what a table or the TLB gave.
    #[inline]
    pub(crate) fn grant(&mut self, slot: usize, entry: &TlbEntry, cost: u32) -> Progress {
        let walk = self.walkers.at(slot);
        walk.spend(cost);
        let translation = Translation {
            pa: entry.translate(walk.request.iova),
            readable: entry.readable && walk.device.readable,
            writable: entry.writable && walk.device.writable,
            page_bytes: 1 << entry.shift,
            domain: walk.device.domain,
            pass_through: false,
            cost,
            cost_total: walk.cost_total,
            fetches: walk.fetches,
            from: walk.from,
        };
        if walk.asks() {
            return self.answer(slot, translation);
        }
        self.end(slot);
        Progress::Done(translation)
    }

    /// Ends the walk with the address as it is.
    pub(crate) fn pass(&mut self, slot: usize, cost: u32) -> Progress {
        let walk = self.walkers.at(slot);
        walk.spend(cost);
        let translation = Translation {
            pa: Pa(walk.request.iova.0),
            readable: walk.device.readable,
            writable: walk.device.writable,
            page_bytes: crate::addr::PAGE_SIZE,
            domain: walk.device.domain,
            pass_through: true,
            cost,
            cost_total: walk.cost_total,
            fetches: walk.fetches,
            from: walk.from,
        };
        if walk.asks() {
            return self.answer(slot, translation);
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
