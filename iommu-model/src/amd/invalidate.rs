//! What each command removes, and which walks in flight it sends back to their beginning. 48882 section 2.4.
//!
//! INVALIDATE_IOMMU_PAGES does not touch device table entries, INVALIDATE_DEVTAB_ENTRY does not touch translations.

use super::cache::Caches;
use super::cache::directory::DirectoryEntry;
use super::cache::space::Space;
use super::paging::page_shift;
use super::walk::{Outstanding, Step, Walk};
use super::walkers::Walkers;
use crate::addr::{Bdf, DomainId, Iova, Pasid};
use crate::decision::{Decisions, Question, ask, ask_bool};
use crate::page_span::AddressRange;

/// INVALIDATE_IOMMU_PAGES.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PagesScope {
    /// The domain.
    pub domain: DomainId,
    /// GN: of this PASID; else host translations.
    pub pasid: Option<Pasid>,
    /// Which pages.
    pub range: AddressRange,
    /// PDE: non-leaf entries that lead there too.
    pub directories: bool,
}

/// A command that removes something, or could.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invalidation {
    /// INVALIDATE_DEVTAB_ENTRY.
    Device(Bdf),
    /// INVALIDATE_IOMMU_PAGES.
    Pages(PagesScope),
    /// INVALIDATE_IOMMU_ALL.
    All,
    /// INVALIDATE_INTERRUPT_TABLE: nothing in this unit.
    Interrupts(Bdf),
}

/// A command that has been carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidationDone {
    /// What software asked for.
    pub asked: Invalidation,
    /// What was done: the same, or wider.
    pub done: Invalidation,
    /// Cached entries that went.
    pub entries_dropped: u32,
    /// Walks in flight that start over.
    pub walks_restarted: u32,
}

/// What an invalidation acts on.
pub(crate) struct Target<'a> {
    pub(crate) caches: &'a mut Caches,
    pub(crate) walkers: &'a mut Walkers,
}

impl Walk {
    /// Whether a device table entry is held or awaited.
    fn touches_device(&self) -> bool {
        self.has_device || (self.step == Step::Device && self.outstanding == Outstanding::Wanted)
    }

    /// Whether it may have used, or may be about to use, an entry that a command names.
    fn touches_pages(&self, scope: &PagesScope) -> bool {
        if !self.has_device || self.device.domain != scope.domain {
            return false;
        }
        match scope.pasid {
            // A walk does not remember which pages of the guest its tables were on.
            None if self.pasid.is_some() => self.host_touched,
            None => {
                let top = self.host_tables().map_or(1, |(_, levels)| levels);
                self.host_touched && covers(scope, self.host.input, self.host.level, top)
            }
            Some(pasid) => {
                let top = self.device.guest.map_or(4, |guest| guest.levels);
                let in_root = matches!(self.step, Step::GuestRoot | Step::GuestRootLookup);
                let level = if in_root || self.guest.leaf_shift.is_some() { top } else { self.guest.level };
                self.pasid == Some(pasid) && self.guest_touched && covers(scope, self.request.iova.0, level, top)
            }
        }
    }
}

/// Whether a command names what a walk at `level`, from a root of level `top`, awaits or holds. A leaf of one level may be
/// almost as large as what the level above leads to.
fn covers(scope: &PagesScope, input: u64, level: u8, top: u8) -> bool {
    let widest = if scope.directories { top } else { level };
    scope.range.overlaps(Iova(input), page_shift(widest.max(level) + 1))
}

impl Target<'_> {
    /// Carries out a command, perhaps wider than asked.
    pub(crate) fn invalidate(&mut self, asked: Invalidation, d: &mut dyn Decisions) -> InvalidationDone {
        let done = widen(asked, d);
        let (entries_dropped, walks_restarted) = match done {
            Invalidation::Device(device) => self.invalidate_device(device),
            Invalidation::Pages(scope) => self.invalidate_pages(&scope, d),
            Invalidation::All => (self.caches.clear(), self.restart(Walk::holds_anything)),
            Invalidation::Interrupts(_) => (0, 0),
        };
        InvalidationDone { asked, done, entries_dropped, walks_restarted }
    }

    fn restart(&mut self, covered: impl Fn(&Walk) -> bool) -> u32 {
        self.walkers.restart(&mut self.caches.words, covered)
    }

    /// What was cached of the GCR3 table of a device goes with its entry.
    fn invalidate_device(&mut self, device: Bdf) -> (u32, u32) {
        let Caches { devices, guest_roots, words, .. } = &mut *self.caches;
        let dropped =
            devices.store.retain(words, |entry| entry.device != device) + guest_roots.store.retain(words, |entry| entry.device != device);
        (dropped, self.restart(|walk| walk.request.source == device && walk.touches_device()))
    }

    fn invalidate_pages(&mut self, scope: &PagesScope, d: &mut dyn Decisions) -> (u32, u32) {
        let Caches { guest_roots, tlb, directories, words, .. } = &mut *self.caches;
        let &PagesScope { domain, pasid, range, directories: takes_directories } = scope;
        let space = pasid.map_or(Space::Host(domain), |pasid| Space::Guest(domain, pasid));
        let leaves = tlb.retain(words, |entry| {
            if entry.space == space {
                let shift = u32::from(entry.shift);
                let named = range.overlaps(entry.page, shift);
                return !named || (!range.is_as_large_as(shift) && !ask_bool(&mut *d, Question::KeepSuperpage));
            }
            // Nested translations are made of host translations. That an invalidation of all of them takes those too, and one
            // of some may, is an assumption.
            let nested = pasid.is_none() && entry.space.domain() == domain;
            !nested || (!range.is_all() && !ask_bool(&mut *d, Question::KeepFirstStage))
        });
        let mine = |entry: &DirectoryEntry| entry.space == space && range.overlaps(entry.first, page_shift(entry.level));
        let keep = !takes_directories && (!directories.iter().any(mine) || !ask_bool(d, Question::KeepNonLeaf));
        let non_leaves = if keep { 0 } else { directories.retain(words, |entry| !mine(entry)) };
        // Linux changes a GCR3 table entry and then names every page of its PASID.
        let roots = match pasid {
            Some(pasid) if takes_directories && range.is_all() => {
                guest_roots.store.retain(words, |entry| entry.domain != domain || entry.pasid != pasid)
            }
            _ => 0,
        };
        let restarted = self.restart(|walk| walk.touches_pages(scope));
        (leaves + non_leaves + roots, restarted)
    }
}

/// Hardware may do more than it is asked for.
fn widen(asked: Invalidation, d: &mut dyn Decisions) -> Invalidation {
    let (wider, one_step) = match asked {
        Invalidation::Pages(scope) if !scope.range.is_all() => {
            (2, Invalidation::Pages(PagesScope { range: AddressRange::ALL, directories: true, ..scope }))
        }
        Invalidation::Pages(_) | Invalidation::Device(_) => (1, Invalidation::All),
        _ => return asked,
    };
    match ask(d, Question::OverInvalidate { wider }) {
        0 => asked,
        1 => one_step,
        _ => Invalidation::All,
    }
}
