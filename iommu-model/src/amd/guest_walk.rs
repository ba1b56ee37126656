//! Guest translation, step 4: GCR3 table and guest page table. 48882 section 2.2.6.
//!
//! Pointers of guest page tables, and those in entries of the last GCR3 level, are addresses of the guest. The GCR3 table
//! itself lies in the host, or under GCR3TRPMode in the guest. Every request is one of a user. A is set in each entry
//! before the walk goes on, D with A in the leaf of a write.

use super::cache::directory::DirectoryEntry;
use super::cache::guest_root::GuestRootCached;
use super::cache::tlb::TlbEntry;
use super::host_walk::DENIED;
use super::paging::{entry_pa, is_canonical, is_guest_leaf, page_shift};
use super::unit::Unit;
use super::walk::{Purpose, Step};
use crate::addr::{Iova, Pa, Pfn};
use crate::decision::{Decisions, Question, ask_bool};
use crate::request::{CacheHit, CacheKind, Progress};
use crate::spec::amd::event::{EventCode, EventFlags};
use crate::spec::amd::guest_table::{ENTRY_BYTES, GuestCr3Entry, GuestEntry, LEVEL_BITS};

impl Unit {
    /// The look-up of the GCR3 table entry.
    pub(crate) fn look_up_guest_root(&mut self, slot: usize) -> Progress {
        let off = self.caches.directories.is_off();
        let walk = self.walkers.at(slot);
        let cost = walk.spend(self.params.timing.pasid_lookup);
        let (source, pasid) = (walk.request.source, walk.pasid.unwrap_or_default());
        let guest = walk.device.guest;
        let Some(cached) = self.caches.guest_roots.lookup(source, pasid).copied() else {
            (walk.guest.table, walk.guest.level) = guest.map_or((Pa(0), 1), |guest| (guest.root, guest.root_levels));
            walk.step = Step::GuestRoot;
            return Progress::Lookup { cache: CacheKind::Pasid, hit: false, cost };
        };
        walk.adopt_words(cached.provenance, &mut self.caches.words);
        (walk.guest.table, walk.guest.level) = (cached.root, guest.map_or(4, |guest| guest.levels));
        walk.step = if off { Step::Guest } else { Step::GuestLookup };
        Progress::Lookup { cache: CacheKind::Pasid, hit: true, cost }
    }

    /// The fetch of a GCR3 table entry, or of the host entries that lead to it.
    pub(crate) fn fetch_guest_root(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let in_guest = self.control.guest_root_is_guest();
        let walk = self.walkers.at(slot);
        let pasid = u64::from(walk.pasid.unwrap_or_default().0);
        let index = pasid >> (LEVEL_BITS * u32::from(walk.guest.level.saturating_sub(1))) & ((1 << LEVEL_BITS) - 1);
        let pa = walk.guest.table.offset(index * ENTRY_BYTES);
        if in_guest && walk.is_nested() {
            return self.begin_nested(slot, pa.0, Purpose::GuestRoot, d);
        }
        self.fetch_guest_root_at(slot, pa, 0)
    }

    /// It is known where the entry lies.
    pub(crate) fn fetch_guest_root_at(&mut self, slot: usize, pa: Pa, spent: u32) -> Progress {
        let timing = &self.params.timing;
        let walk = self.walkers.at(slot);
        let cost = if walk.guest.level > 1 { timing.directory_fetch } else { timing.pasid_fetch };
        walk.step = Step::GuestRoot;
        self.fetch(slot, pa, cost.saturating_add(spent))
    }

    /// Its answer.
    pub(crate) fn consume_guest_root(&mut self, slot: usize, word: u64, d: &mut dyn Decisions) -> Progress {
        let off = self.caches.directories.is_off();
        let walk = self.walkers.at(slot);
        let entry = GuestCr3Entry::from_bits(word);
        if !entry.valid() {
            return self.fault(slot, EventCode::PAGE_FAULT, EventFlags::new(), 0, d);
        }
        walk.guest.table = Pfn(entry.frame()).pa();
        if walk.guest.level > 1 {
            walk.guest.level -= 1;
            return self.fetch_guest_root(slot, d);
        }
        let cached = GuestRootCached {
            device: walk.request.source,
            pasid: walk.pasid.unwrap_or_default(),
            domain: walk.device.domain,
            root: walk.guest.table,
            provenance: walk.words,
        };
        walk.guest.level = walk.device.guest.map_or(4, |guest| guest.levels);
        walk.step = if off { Step::Guest } else { Step::GuestLookup };
        self.caches.guest_roots.install(cached, &mut self.caches.words, d);
        if off { self.fetch_guest(slot, d) } else { self.look_up_guest(slot, d) }
    }

    /// The look-up in the page-directory caches.
    pub(crate) fn look_up_guest(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
        let cost = walk.spend(self.params.timing.psc_lookup);
        walk.step = Step::Guest;
        let found = self.caches.directories.lookup(walk.space(), walk.request.iova.0, walk.guest.level).copied();
        let mut hit = false;
        if let Some(entry) = found
            && !ask_bool(d, Question::UsePsc { level: entry.level })
        {
            (walk.guest.table, walk.guest.level) = (entry.table, entry.table_level);
            (walk.guest.writable, walk.guest.user) = (entry.writable, entry.user);
            walk.from = CacheHit::Psc(entry.level);
            walk.adopt_words(entry.provenance, &mut self.caches.words);
            hit = true;
        }
        Progress::Lookup { cache: CacheKind::Psc, hit, cost }
    }

    /// The fetch of a guest entry, or of the host entries that lead to it.
    pub(crate) fn fetch_guest(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
        walk.step = Step::Guest;
        walk.guest.entry_writable = true;
        let levels = walk.device.guest.map_or(4, |guest| guest.levels);
        if !is_canonical(walk.request.iova.0, levels) {
            return self.fault(slot, EventCode::PAGE_FAULT, EventFlags::new(), 0, d);
        }
        let pa = entry_pa(walk.guest.table, walk.request.iova.0, walk.guest.level);
        if walk.is_nested() {
            return self.begin_nested(slot, pa.0, Purpose::GuestTable, d);
        }
        self.fetch_guest_at(slot, pa, 0)
    }

    /// It is known where the entry lies.
    pub(crate) fn fetch_guest_at(&mut self, slot: usize, pa: Pa, spent: u32) -> Progress {
        self.walkers.at(slot).step = Step::Guest;
        self.fetch(slot, pa, self.params.timing.table_fetch.saturating_add(spent))
    }

    /// Its answer.
    pub(crate) fn consume_guest(&mut self, slot: usize, word: u64, d: &mut dyn Decisions) -> Progress {
        let disable = self.cap.guest_update_disable;
        let keeps_accessed = disable && self.control.no_guest_accessed();
        let keeps_dirty = disable && self.control.no_guest_dirty();
        let walk = self.walkers.at(slot);
        let entry = GuestEntry::from_bits(word);
        let level = walk.guest.level;
        if !entry.present() {
            return self.fault(slot, EventCode::PAGE_FAULT, EventFlags::new(), 0, d);
        }
        let Ok(is_leaf) = is_guest_leaf(entry, level) else {
            return self.fault(slot, EventCode::PAGE_FAULT, EventFlags::new().with_present(true).with_reserved_not_zero(true), 0, d);
        };
        let (writable, user) = (walk.guest.writable && entry.write(), walk.guest.user && entry.user());
        let writes = walk.writes() && writable;
        if is_leaf && (!user || (walk.writes() && !writable && !walk.asks())) {
            return self.fault(slot, EventCode::PAGE_FAULT, DENIED, 0, d);
        }
        let sets_dirty = is_leaf && writes && !entry.dirty() && !keeps_dirty;
        if (!entry.accessed() && !keeps_accessed) || sets_dirty {
            if !walk.guest.entry_writable {
                // The host lets the guest's table be read only.
                return self.fault(slot, EventCode::PAGE_FAULT, DENIED, 0, d);
            }
            let new = entry.with_accessed(entry.accessed() || !keeps_accessed).with_dirty(entry.dirty() || sets_dirty);
            return self.ask_update(slot, Step::GuestUpdate, [word, new.into_bits()]);
        }
        walk.tries = 0;
        (walk.guest.writable, walk.guest.user) = (writable, user);
        if is_leaf {
            let shift = page_shift(level);
            walk.guest.leaf_shift = Some(shift as u8);
            walk.guest.dirty = entry.dirty() || keeps_dirty;
            let low = (1 << shift) - 1;
            let address = Pfn(entry.frame()).pa().0 & !low | walk.request.iova.0 & low;
            walk.host.input = address;
            if walk.is_nested() {
                return self.begin_nested(slot, address, Purpose::Page, d);
            }
            return self.finish_guest(slot, None, 0, d);
        }
        let table = Pfn(entry.frame()).pa();
        (walk.guest.table, walk.guest.level) = (table, level - 1);
        let directory = DirectoryEntry {
            space: walk.space(),
            level,
            first: Iova(walk.request.iova.0 & (u64::MAX << page_shift(level))),
            table,
            table_level: level - 1,
            readable: true,
            writable,
            user,
            provenance: walk.words,
        };
        self.caches.directories.install(directory, &mut self.caches.words, d);
        self.fetch_guest(slot, d)
    }

    /// Joins guest and host page, caches the result and ends the walk. Without `host`, addresses of the guest are those
    /// of the host.
    pub(crate) fn finish_guest(&mut self, slot: usize, host: Option<&TlbEntry>, cost: u32, d: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
        let leaf_shift = walk.guest.leaf_shift.unwrap_or_default();
        let shift = host.map_or(leaf_shift, |host| host.shift.min(leaf_shift));
        let page = u64::MAX << shift;
        let pa = host.map_or(walk.host.input, |host| host.translate(Iova(walk.host.input)).0);
        let entry = TlbEntry {
            space: walk.space(),
            page: Iova(walk.request.iova.0 & page),
            shift,
            frame: Pa(pa & page),
            not_present: false,
            readable: host.is_none_or(|host| host.readable),
            writable: walk.guest.writable && host.is_none_or(|host| host.writable),
            dirty: walk.guest.dirty && host.is_none_or(|host| host.dirty),
            provenance: walk.words,
        };
        self.caches.tlb.install(entry, &mut self.caches.words, d);
        self.grant(slot, &entry, cost)
    }
}
