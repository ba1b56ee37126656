//! IOTLB look-up and the first stage: step 17 of "Process to translate an IOVA", after the privileged specification's
//! "Virtual Address Translation Process".

use super::cache::iotlb::{Permissions, TlbEntry};
use super::cache::space::Space;
use super::cache::walk::WalkEntry;
use super::paging::{Entry, Leaf, decode, entry_pa, is_canonical, is_guest_physical, page_shift, with_access_bits};
use super::unit::Unit;
use super::walk::{Purpose, Step, Walk};
use crate::addr::{Iova, Pa};
use crate::decision::{Decisions, Question, ask_bool};
use crate::request::{CacheHit, CacheKind, Progress};
use crate::spec::riscv::fault::Cause;

/// What a cached translation is good for.
enum Serves {
    Yes,
    /// Allowed, but D must be set first.
    NotDirty,
    No(Cause),
}

impl Walk {
    fn served_by(&self, entry: &TlbEntry) -> Serves {
        let needed = self.needed();
        if entry.space.has_first_stage() && (!entry.first.serves(needed) || !self.user_bit_allows(entry.user)) {
            return Serves::No(self.page_fault());
        }
        if !entry.second.serves(needed) {
            return Serves::No(self.guest_page_fault());
        }
        let writes = self.writes() && entry.first.and(entry.second).write;
        if writes && !entry.dirty { Serves::NotDirty } else { Serves::Yes }
    }
}

impl Unit {
    /// The checks of the address, and the IOTLB look-up for the request.
    #[inline]
    pub(crate) fn look_up_iotlb(&mut self, slot: usize, spent: u32, d: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
        let iova = walk.request.iova;
        let Some(space) = walk.space else { return self.translate_page(slot, Pa(iova.0), spent, d) };
        walk.second.purpose = Purpose::Page;
        if !walk.first.is_bare() && !is_canonical(iova.0, walk.first.levels) {
            let cause = walk.page_fault();
            return self.fault(slot, cause, 0, spent, d);
        }
        // The address of an MSI is looked at before the second stage would be.
        if matches!(space, Space::GuestPhysical(_)) && !is_guest_physical(iova.0, walk.context.second.levels) {
            return self.guest_fault(slot, iova.0, spent, d);
        }
        let cost = spent.saturating_add(self.params.timing.iotlb_lookup);
        let Some(entry) = self.caches.iotlb.lookup(space, iova.0, d).copied() else {
            walk.spend(cost);
            self.after_iotlb(slot);
            return Progress::Lookup { cache: CacheKind::Iotlb, hit: false, cost };
        };
        match walk.served_by(&entry) {
            Serves::Yes => {
                walk.from = CacheHit::Iotlb;
                let words = &mut self.caches.words;
                words.hold(entry.provenance);
                words.release(core::mem::replace(&mut walk.words, entry.provenance));
                return self.grant(slot, &entry, cost);
            }
            Serves::NotDirty => {}
            Serves::No(cause) => {
                if !ask_bool(d, Question::RewalkDenied) {
                    let guest = matches!(cause, Cause::INSTRUCTION_GUEST_PAGE | Cause::READ_GUEST_PAGE | Cause::WRITE_GUEST_PAGE);
                    let value2 = if guest { guest_value(entry.guest_page.0 | (iova.0 & ((1 << entry.shift) - 1))) } else { 0 };
                    return self.fault(slot, cause, value2, cost, d);
                }
            }
        }
        walk.spend(cost);
        self.after_iotlb(slot);
        Progress::Lookup { cache: CacheKind::Iotlb, hit: true, cost }
    }

    /// Chooses the step after an IOTLB look-up that did not answer.
    fn after_iotlb(&mut self, slot: usize) {
        let off = self.caches.walk.is_off();
        let walk = self.walkers.at(slot);
        walk.keep_base(&mut self.caches.words);
        if !walk.first.is_bare() {
            (walk.table, walk.level) = (walk.first.root, walk.first.levels);
            walk.first_touched = true;
            walk.step = if off { Step::First } else { Step::FirstLookup };
            return;
        }
        walk.second.input = walk.request.iova.0;
        walk.second_touched = true;
        if matches!(walk.space, Some(Space::GuestMessages(_))) {
            walk.step = Step::Message;
            return;
        }
        walk.step = if off { Step::Second } else { Step::SecondLookup };
        self.start_second(slot);
    }

    /// The look-up in the walk caches of the first stage.
    pub(crate) fn look_up_first(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
        let cost = walk.spend(self.params.timing.psc_lookup);
        walk.step = Step::First;
        let found = walk.space.and_then(|space| self.caches.walk.lookup(space, walk.request.iova.0, walk.first.levels)).copied();
        let mut hit = false;
        if let Some(entry) = found
            && !ask_bool(d, Question::UsePsc { level: entry.level })
        {
            (walk.table, walk.level, walk.global) = (entry.table, entry.level - 1, entry.global);
            walk.from = CacheHit::Psc(entry.level);
            let words = &mut self.caches.words;
            words.hold(entry.provenance);
            words.release(core::mem::replace(&mut walk.words, entry.provenance));
            hit = true;
        }
        Progress::Lookup { cache: CacheKind::Psc, hit, cost }
    }

    /// Step 2 of the privileged specification, the request.
    pub(crate) fn fetch_first(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let cost = self.params.timing.table_fetch;
        let walk = self.walkers.at(slot);
        walk.step = Step::First;
        let address = entry_pa(walk.table, walk.request.iova.0, walk.level);
        if walk.context.second.is_bare() {
            return self.fetch(slot, address, cost, d);
        }
        self.begin_second(slot, address.0, Purpose::Table, d)
    }

    /// The second stage has found where the entry lies.
    pub(crate) fn fetch_first_at(&mut self, slot: usize, pa: Pa, spent: u32, d: &mut dyn Decisions) -> Progress {
        self.walkers.at(slot).step = Step::First;
        self.fetch(slot, pa, self.params.timing.table_fetch.saturating_add(spent), d)
    }

    /// Steps 3 to 7.
    pub(crate) fn consume_first(&mut self, slot: usize, word: u64, d: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
        let level = walk.level;
        match decode(word, level, &self.cap) {
            None => {
                let cause = walk.page_fault();
                self.fault(slot, cause, 0, 0, d)
            }
            Some(Entry::NonLeaf { table, global }) => {
                walk.global |= global;
                walk.tries = 0;
                (walk.table, walk.level) = (table, level - 1);
                if let Some(space) = walk.space {
                    let first = Iova(walk.request.iova.0 & !((1 << page_shift(level)) - 1));
                    let entry = WalkEntry { space, level, first, table, global: walk.global, provenance: walk.words };
                    self.caches.walk.install(entry, &mut self.caches.words, d);
                }
                self.fetch_first(slot, d)
            }
            Some(Entry::Leaf(leaf)) => self.take_first_leaf(slot, word, leaf, d),
        }
    }

    /// Steps 5 and 7.
    fn take_first_leaf(&mut self, slot: usize, word: u64, leaf: Leaf, d: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
        let writes = walk.writes();
        if !permissions(&leaf).serves(walk.needed()) || !walk.user_bit_allows(leaf.user) {
            let cause = walk.page_fault();
            return self.fault(slot, cause, 0, 0, d);
        }
        if leaf.needs_update(writes) {
            if walk.context.first_update {
                return self.ask_update(slot, Step::FirstUpdate, word, with_access_bits(word, writes));
            }
            let cause = walk.page_fault();
            return self.fault(slot, cause, 0, 0, d);
        }
        walk.tries = 0;
        walk.global |= leaf.global;
        (walk.leaf, walk.has_leaf) = (leaf, true);
        let address = leaf.frame.0 | (walk.request.iova.0 & ((1 << leaf.shift) - 1));
        self.translate_page(slot, Pa(address), 0, d)
    }

    /// Steps 18 and 19: the address of the guest, or of the host if there is none, is known.
    fn translate_page(&mut self, slot: usize, address: Pa, spent: u32, d: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
        walk.second.input = address.0;
        walk.second.purpose = Purpose::Page;
        if walk.context.is_message(address.0) {
            walk.step = Step::Message;
            walk.spend(spent);
            return self.fetch_message(slot, d);
        }
        if !walk.context.second.is_bare() {
            return self.begin_second(slot, address.0, Purpose::Page, d);
        }
        if walk.has_leaf {
            return self.finish(slot, None, spent, d);
        }
        let cost = spent.saturating_add(self.params.timing.bypass);
        self.pass(slot, cost)
    }

    /// Joins both stages, caches the result and ends the walk. `second` is what the second stage or the MSI page table
    /// answered for the page; without it the first stage has found the host page.
    pub(crate) fn finish(&mut self, slot: usize, second: Option<&TlbEntry>, cost: u32, d: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
        let iova = walk.request.iova;
        let Some(space) = walk.space.filter(|_| walk.has_leaf) else {
            return match second {
                Some(entry) => {
                    let entry = *entry;
                    self.grant(slot, &entry, cost)
                }
                None => self.pass(slot, cost),
            };
        };
        let leaf = walk.leaf;
        let guest = walk.second.input;
        let shift = second.map_or(leaf.shift, |entry| leaf.shift.min(entry.shift));
        let page = !((1u64 << shift) - 1);
        let host = second.map_or(guest, |entry| entry.frame.0 | (guest & ((1 << entry.shift) - 1)));
        if second.is_none() && !self.cap.fits(Pa(host)) {
            let cause = walk.access_fault();
            return self.fault(slot, cause, 0, cost, d);
        }
        let from_messages = second.is_some_and(|entry| matches!(entry.space, Space::GuestMessages(_)));
        let entry = TlbEntry {
            space: if walk.global { space.global() } else { space },
            page: Iova(iova.0 & page),
            shift,
            frame: Pa(host & page),
            guest_page: Pa(guest & page),
            first_shift: leaf.shift,
            second_shift: second.map_or(0, |entry| entry.second_shift),
            first: permissions(&leaf),
            second: second.map_or(Permissions::ALL, |entry| entry.second),
            user: leaf.user,
            dirty: leaf.dirty && second.is_none_or(|entry| entry.dirty),
            memory_type: match leaf.memory_type {
                0 => second.map_or(0, |entry| entry.memory_type),
                memory_type => memory_type,
            },
            provenance: walk.words,
        };
        // What an MSI page table of the host gave has no tag that an invalidation could name.
        if !from_messages || space.gscid().is_some() {
            self.caches.iotlb.install(entry, &mut self.caches.words, d);
        }
        self.grant(slot, &entry, cost)
    }
}

/// R, W and X of a leaf.
pub(crate) const fn permissions(leaf: &Leaf) -> Permissions {
    Permissions { read: leaf.readable, write: leaf.writable, execute: leaf.executable }
}

/// iotval2 of a guest page fault of the request itself.
pub(crate) const fn guest_value(address: u64) -> u64 {
    use crate::spec::riscv::fault::FaultValue2;
    use crate::spec::riscv::register::WORD_BYTES;
    FaultValue2::new().with_address(address / WORD_BYTES).into_bits()
}
