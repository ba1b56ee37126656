//! Host page tables, step 5, and the translation of every address of the guest on the way. 48882 section 2.2.3.
//!
//! Each level: present; permissions, ANDed with those above; NextLevel below the level of the table, or a leaf; no
//! reserved bits; skipped address bits 0; then A, and in the leaf D, if HAD says so. What host tables yield for an
//! address of the guest is cached under the domain, whatever it was wanted for.

use super::cache::directory::DirectoryEntry;
use super::cache::space::Space;
use super::cache::tlb::TlbEntry;
use super::paging::{HostStep, bits_above, decode_host, entry_pa, page_shift, skipped_bits};
use super::unit::Unit;
use super::walk::{Purpose, Step};
use crate::addr::{Iova, PAGE_SHIFT, Pa};
use crate::decision::{Decisions, Question, ask_bool};
use crate::provenance::ProvenanceId;
use crate::request::{CacheHit, CacheKind, Progress};
use crate::spec::amd::event::{EventCode, EventFlags};
use crate::spec::amd::host_table::HostEntry;

/// Of a page fault where permission is missing.
pub(crate) const DENIED: EventFlags = EventFlags::new().with_present(true).with_permission(true);

impl Unit {
    /// Puts the walk at the root of the host page table. Inside a guest walk, `words` holds those of the host from here on.
    pub(crate) fn start_host(&mut self, slot: usize, input: u64, purpose: Purpose) {
        let off = self.caches.directories.is_off();
        let walk = self.walkers.at(slot);
        let (table, level) = walk.host_tables().unwrap_or((Pa(0), 1));
        walk.host_touched = true;
        walk.tries = 0;
        walk.host = super::walk::HostWalk { purpose, input, table, level, readable: true, writable: true };
        walk.step = if off { Step::Host } else { Step::HostLookup };
        if walk.pasid.is_some() {
            self.caches.words.hold(walk.base_words);
            walk.outer_words = core::mem::replace(&mut walk.words, walk.base_words);
        }
    }

    /// Sends an address of the guest through the host page table: its TLB look-up.
    pub(crate) fn begin_nested(&mut self, slot: usize, input: u64, purpose: Purpose, d: &mut dyn Decisions) -> Progress {
        self.start_host(slot, input, purpose);
        let cost = self.params.timing.iotlb_lookup;
        let walk = self.walkers.at(slot);
        let writes = walk.host_writes(purpose);
        let mut hit = false;
        if let Some(entry) = self.caches.tlb.lookup(Space::Host(walk.device.domain), input, d).copied() {
            hit = true;
            let allowed = walk.host_serves(purpose, entry.readable, entry.writable);
            if allowed && !entry.not_present && (entry.dirty || !(writes && entry.writable)) {
                walk.adopt_words(entry.provenance, &mut self.caches.words);
                return self.host_done(slot, &entry, cost, d);
            }
            // What misses D only is walked again without a question.
            if (entry.not_present || !allowed) && !ask_bool(d, Question::RewalkDenied) {
                let flags = if entry.not_present { EventFlags::new() } else { DENIED };
                return self.fault(slot, EventCode::PAGE_FAULT, flags, cost, d);
            }
        }
        self.walkers.at(slot).spend(cost);
        Progress::Lookup { cache: CacheKind::Iotlb, hit, cost }
    }

    /// The look-up in the page-directory caches.
    pub(crate) fn look_up_host(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
        let cost = walk.spend(self.params.timing.psc_lookup);
        walk.step = Step::Host;
        let found = self.caches.directories.lookup(Space::Host(walk.device.domain), walk.host.input, walk.host.level).copied();
        let mut hit = false;
        if let Some(entry) = found
            && !ask_bool(d, Question::UsePsc { level: entry.level })
        {
            (walk.host.table, walk.host.level) = (entry.table, entry.table_level);
            (walk.host.readable, walk.host.writable) = (entry.readable, entry.writable);
            if walk.pasid.is_none() {
                walk.from = CacheHit::Psc(entry.level);
            }
            walk.adopt_words(entry.provenance, &mut self.caches.words);
            hit = true;
            if walk.host.input & skipped_bits(entry.level, entry.table_level) != 0 {
                return self.fault(slot, EventCode::PAGE_FAULT, EventFlags::new().with_present(true), 0, d);
            }
        }
        Progress::Lookup { cache: CacheKind::Psc, hit, cost }
    }

    /// The fetch of an entry.
    pub(crate) fn fetch_host(&mut self, slot: usize) -> Progress {
        let walk = self.walkers.at(slot);
        walk.step = Step::Host;
        let pa = entry_pa(walk.host.table, walk.host.input, walk.host.level);
        self.fetch(slot, pa, self.params.timing.table_fetch)
    }

    /// Its answer.
    pub(crate) fn consume_host(&mut self, slot: usize, word: u64, d: &mut dyn Decisions) -> Progress {
        let cap = &self.cap;
        let walk = self.walkers.at(slot);
        let entry = HostEntry::from_bits(word);
        let (host, level) = (walk.host, walk.host.level);
        let levels = walk.host_tables().map_or(level, |(_, levels)| levels);
        if cap.checks_input_width && host.input & bits_above(levels) != 0 {
            return self.fault(slot, EventCode::PAGE_FAULT, EventFlags::new(), 0, d);
        }
        if !entry.present() {
            return self.not_present(slot, d);
        }
        let (readable, writable) = (host.readable && entry.read(), host.writable && entry.write());
        let writes = walk.host_writes(host.purpose) && writable;
        if !walk.host_serves(host.purpose, readable, writable) {
            return self.fault(slot, EventCode::PAGE_FAULT, DENIED, 0, d);
        }
        let step = match decode_host(entry, level, cap.checks_reserved) {
            Ok(step) => step,
            Err(flags) => return self.fault(slot, EventCode::PAGE_FAULT, flags, 0, d),
        };
        let is_leaf = matches!(step, HostStep::Leaf { .. });
        if let HostStep::Table { level: next, .. } = step
            && host.input & skipped_bits(level, next) != 0
        {
            return self.fault(slot, EventCode::PAGE_FAULT, EventFlags::new().with_present(true), 0, d);
        }
        let device = walk.device;
        let sets_dirty = device.sets_dirty && is_leaf && writes && !entry.dirty();
        if (device.sets_accessed && !entry.accessed()) || sets_dirty {
            let new = entry.with_accessed(true).with_dirty(entry.dirty() || sets_dirty);
            return self.ask_update(slot, Step::HostUpdate, [word, new.into_bits()]);
        }
        walk.tries = 0;
        (walk.host.readable, walk.host.writable) = (readable, writable);
        match step {
            HostStep::Table { table, level: next } => {
                (walk.host.table, walk.host.level) = (table, next);
                let first = Iova(host.input & (u64::MAX << page_shift(level)));
                let space = Space::Host(device.domain);
                let provenance = walk.words;
                let directory =
                    DirectoryEntry { space, level, first, table, table_level: next, readable, writable, user: true, provenance };
                self.caches.directories.install(directory, &mut self.caches.words, d);
                self.fetch_host(slot)
            }
            HostStep::Leaf { frame, shift } => {
                let leaf = TlbEntry {
                    space: Space::Host(device.domain),
                    page: Iova(host.input & (u64::MAX << shift)),
                    shift,
                    frame,
                    not_present: false,
                    readable,
                    writable,
                    dirty: entry.dirty() || !device.sets_dirty,
                    provenance: walk.words,
                };
                self.caches.tlb.install(leaf, &mut self.caches.words, d);
                self.host_done(slot, &leaf, 0, d)
            }
        }
    }

    /// An entry is not present. Units with NpCache may remember it, as a page of 4 KiB (assumption).
    fn not_present(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        if self.cap.not_present_cached && ask_bool(d, Question::CacheNotPresent) {
            let walk = self.walkers.at(slot);
            let entry = TlbEntry {
                space: Space::Host(walk.device.domain),
                page: Iova(walk.host.input & (u64::MAX << PAGE_SHIFT)),
                shift: PAGE_SHIFT as u8,
                frame: Pa(0),
                not_present: true,
                readable: false,
                writable: false,
                dirty: false,
                provenance: walk.words,
            };
            self.caches.tlb.install(entry, &mut self.caches.words, d);
        }
        self.fault(slot, EventCode::PAGE_FAULT, EventFlags::new(), 0, d)
    }

    /// The host page is known. `cost` is still to be spent.
    fn host_done(&mut self, slot: usize, entry: &TlbEntry, cost: u32, d: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
        if walk.pasid.is_none() {
            return self.grant(slot, entry, cost);
        }
        self.join_words(slot);
        let walk = self.walkers.at(slot);
        let pa = entry.translate(Iova(walk.host.input));
        match walk.host.purpose {
            Purpose::GuestRoot => self.fetch_guest_root_at(slot, pa, cost),
            Purpose::GuestTable => {
                walk.guest.entry_writable = entry.writable;
                self.fetch_guest_at(slot, pa, cost)
            }
            Purpose::Page => self.finish_guest(slot, Some(entry), cost, d),
        }
    }

    /// Puts the words of a host walk behind those of the whole walk.
    pub(crate) fn join_words(&mut self, slot: usize) {
        let walk = self.walkers.at(slot);
        let words = &mut self.caches.words;
        let inner = core::mem::replace(&mut walk.words, core::mem::replace(&mut walk.outer_words, ProvenanceId::NONE));
        walk.words = words.append_tables(walk.words, inner);
        words.release(inner);
    }
}
