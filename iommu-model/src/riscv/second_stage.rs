//! The second stage: step 19 of "Process to translate an IOVA", and the translation of every address of the guest on the
//! way, after the privileged specification's "Guest Physical Address Translation". What it finds is cached by
//! GSCID and guest-physical address, whatever it was wanted for.

use super::cache::iotlb::{Permissions, TlbEntry};
use super::cache::space::Space;
use super::cache::walk::WalkEntry;
use super::first_stage::permissions;
use super::paging::{Entry, Leaf, decode, entry_pa, is_guest_physical, page_shift, root_entry_pa, with_access_bits};
use super::unit::Unit;
use super::walk::{Purpose, Step};
use crate::addr::{Iova, Pa};
use crate::decision::{Decisions, Question, ask_bool};
use crate::provenance::ProvenanceId;
use crate::request::{CacheHit, CacheKind, Progress};
use crate::spec::riscv::fault::FaultValue2;
use crate::spec::riscv::register::WORD_BYTES;

impl Unit {
    /// Sends an address of the guest through the second stage: its IOTLB look-up.
    pub(crate) fn begin_second(&mut self, slot: usize, input: u64, purpose: Purpose, d: &mut dyn Decisions) -> Progress {
        let off = self.caches.walk.is_off();
        let walk = self.walkers.at(slot);
        walk.second_touched = true;
        walk.second.purpose = purpose;
        walk.second.input = input;
        let (gscid, levels) = (walk.context.gscid, walk.context.second.levels);
        if !is_guest_physical(input, levels) {
            return self.guest_fault(slot, input, 0, d);
        }
        let cost = self.params.timing.iotlb_lookup;
        let mut hit = false;
        if let Some(entry) = self.caches.iotlb.lookup(Space::GuestPhysical(gscid), input, d).copied() {
            hit = true;
            let (needed, writes) = (walk.second_needed(), walk.second_writes());
            if !entry.second.serves(needed) {
                if !ask_bool(d, Question::RewalkDenied) {
                    return self.guest_fault(slot, input, cost, d);
                }
            } else if entry.dirty || !(writes && entry.second.write) {
                self.start_second(slot);
                let walk = self.walkers.at(slot);
                let words = &mut self.caches.words;
                words.hold(entry.provenance);
                words.release(core::mem::replace(&mut walk.words, entry.provenance));
                return self.second_done(slot, &entry, cost, d);
            }
        }
        self.start_second(slot);
        let walk = self.walkers.at(slot);
        walk.step = if off { Step::Second } else { Step::SecondLookup };
        walk.spend(cost);
        Progress::Lookup { cache: CacheKind::Iotlb, hit, cost }
    }

    /// From here on `words` holds those of the second stage.
    pub(crate) fn start_second(&mut self, slot: usize) {
        let walk = self.walkers.at(slot);
        self.caches.words.hold(walk.base_words);
        walk.outer_words = core::mem::replace(&mut walk.words, walk.base_words);
        (walk.second.table, walk.second.level) = (walk.context.second.root, walk.context.second.levels);
        walk.tries = 0;
    }

    /// The look-up in the walk caches of the second stage.
    pub(crate) fn look_up_second(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
        let cost = walk.spend(self.params.timing.psc_lookup);
        walk.step = Step::Second;
        let space = Space::GuestPhysical(walk.context.gscid);
        let found = self.caches.walk.lookup(space, walk.second.input, walk.context.second.levels).copied();
        let mut hit = false;
        if let Some(entry) = found
            && !ask_bool(d, Question::UsePsc { level: entry.level })
        {
            (walk.second.table, walk.second.level) = (entry.table, entry.level - 1);
            if walk.first.is_bare() && walk.second.purpose == Purpose::Page {
                walk.from = CacheHit::Psc(entry.level);
            }
            let words = &mut self.caches.words;
            words.hold(entry.provenance);
            words.release(core::mem::replace(&mut walk.words, entry.provenance));
            hit = true;
        }
        Progress::Lookup { cache: CacheKind::Psc, hit, cost }
    }

    /// The fetch of an entry.
    pub(crate) fn fetch_second(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
        walk.step = Step::Second;
        let second = walk.second;
        let pa = match second.level == walk.context.second.levels {
            true => root_entry_pa(second.table, second.input, second.level),
            false => entry_pa(second.table, second.input, second.level),
        };
        self.fetch(slot, pa, self.params.timing.table_fetch, d)
    }

    /// Its answer.
    pub(crate) fn consume_second(&mut self, slot: usize, word: u64, d: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
        let (level, input) = (walk.second.level, walk.second.input);
        match decode(word, level, &self.cap) {
            None => self.guest_fault(slot, input, 0, d),
            Some(Entry::NonLeaf { table, .. }) => {
                (walk.second.table, walk.second.level) = (table, level - 1);
                walk.tries = 0;
                let first = Iova(input & !((1 << page_shift(level)) - 1));
                let space = Space::GuestPhysical(walk.context.gscid);
                let entry = WalkEntry { space, level, first, table, global: false, provenance: walk.words };
                self.caches.walk.install(entry, &mut self.caches.words, d);
                self.fetch_second(slot, d)
            }
            Some(Entry::Leaf(leaf)) => self.take_second_leaf(slot, word, leaf, d),
        }
    }

    fn take_second_leaf(&mut self, slot: usize, word: u64, leaf: Leaf, d: &mut dyn Decisions) -> Progress {
        let fits = self.cap.fits(leaf.frame);
        let walk = self.walkers.at(slot);
        let (input, writes) = (walk.second.input, walk.second_writes());
        if !fits {
            return self.refuse_page(slot, d);
        }
        // Every access counts as one of a user.
        if !permissions(&leaf).serves(walk.second_needed()) || !leaf.user {
            return self.guest_fault(slot, input, 0, d);
        }
        if leaf.needs_update(writes) {
            if walk.context.second_update {
                return self.ask_update(slot, Step::SecondUpdate, word, with_access_bits(word, writes));
            }
            return self.guest_fault(slot, input, 0, d);
        }
        let page = input & !((1 << leaf.shift) - 1);
        let entry = TlbEntry {
            space: Space::GuestPhysical(walk.context.gscid),
            page: Iova(page),
            shift: leaf.shift,
            frame: leaf.frame,
            guest_page: Pa(page),
            first_shift: 0,
            second_shift: leaf.shift,
            first: Permissions::ALL,
            second: permissions(&leaf),
            user: true,
            dirty: leaf.dirty,
            memory_type: leaf.memory_type,
            provenance: walk.words,
        };
        self.caches.iotlb.install(entry, &mut self.caches.words, d);
        self.second_done(slot, &entry, 0, d)
    }

    /// The page of the guest is known. `cost` is still to be spent.
    fn second_done(&mut self, slot: usize, entry: &TlbEntry, cost: u32, d: &mut dyn Decisions) -> Progress {
        self.join_words(slot);
        let walk = self.walkers.at(slot);
        let pa = entry.translate(Iova(walk.second.input));
        match walk.second.purpose {
            Purpose::Process => self.fetch_process_at(slot, pa, cost, d),
            Purpose::Table => self.fetch_first_at(slot, pa, cost, d),
            Purpose::Page => self.finish(slot, Some(entry), cost, d),
        }
    }

    /// Puts the words of the second stage behind those of the whole walk.
    pub(crate) fn join_words(&mut self, slot: usize) {
        let walk = self.walkers.at(slot);
        let words = &mut self.caches.words;
        let inner = core::mem::replace(&mut walk.words, core::mem::replace(&mut walk.outer_words, ProvenanceId::NONE));
        walk.words = words.append_tables(walk.words, inner);
        words.release(inner);
    }

    /// The second stage refuses an address of the guest.
    #[cold]
    pub(crate) fn guest_fault(&mut self, slot: usize, address: u64, spent: u32, d: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
        let (cause, purpose) = (walk.guest_page_fault(), walk.second.purpose);
        let value = FaultValue2::new()
            .with_address(address / WORD_BYTES)
            .with_implicit(purpose != Purpose::Page)
            .with_implicit_write(walk.second_writes() && purpose == Purpose::Table);
        self.fault(slot, cause, value.into_bits(), spent, d)
    }

    /// A page beyond the physical addresses.
    #[cold]
    fn refuse_page(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
        let cause = match walk.second.purpose {
            Purpose::Process => crate::spec::riscv::fault::Cause::PDT_LOAD,
            _ => walk.access_fault(),
        };
        self.fault(slot, cause, 0, 0, d)
    }
}
