//! What each command removes, and which walks in flight it sends back to their beginning. Specification, tables
//! "IOTINVAL.VMA operands and operations", "IOTINVAL.GVMA operands and operations", and "IOMMU directory cache invalidation
//! commands".
//!
//! IOTINVAL has no effect on the directory caches, IODIR none on the others. A translation that joins both stages may
//! be a fragment of a larger page of either; a command that names any address of that page removes it.

use super::cache::Caches;
use super::cache::space::Space;
use super::id::{DeviceId, Gscid, Pscid};
use super::paging::page_shift;
use super::walk::Walk;
use super::walkers::Walkers;
use crate::addr::{Iova, Pasid};
use crate::decision::{Decisions, Question, ask, ask_bool};
use crate::page_span::AddressRange;

/// IOTINVAL.VMA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VmaScope {
    /// GV: of this guest; else of the host.
    pub gscid: Option<Gscid>,
    /// PSCV: of this process, and not what is global.
    pub pscid: Option<Pscid>,
    /// AV: what leaves that map these addresses were made into.
    pub range: Option<AddressRange>,
    /// NL: non-leaf entries that lead there too.
    pub non_leaf: bool,
}

/// IOTINVAL.GVMA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GvmaScope {
    /// GV: of this guest; else of every guest.
    pub gscid: Option<Gscid>,
    /// AV, only with GV: what leaves that map these guest-physical addresses were made into.
    pub range: Option<AddressRange>,
    /// NL: non-leaf entries that lead there too.
    pub non_leaf: bool,
}

/// A command that removes something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invalidation {
    /// IOTINVAL.VMA.
    Vma(VmaScope),
    /// IOTINVAL.GVMA.
    Gvma(GvmaScope),
    /// IODIR.INVAL_DDT: with DV, the context of one device and everything of its process directory.
    Ddt(Option<DeviceId>),
    /// IODIR.INVAL_PDT: the context of one process of one device.
    Pdt(DeviceId, Pasid),
    /// Every page-table cache: what an IOTINVAL may do instead of what it was asked for.
    Translations,
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

impl Target<'_> {
    /// Carries out a command, perhaps wider than asked.
    pub(crate) fn invalidate(&mut self, asked: Invalidation, d: &mut dyn Decisions) -> InvalidationDone {
        let done = widen(asked, d);
        let (entries_dropped, walks_restarted) = match done {
            Invalidation::Vma(scope) => self.invalidate_vma(scope, d),
            Invalidation::Gvma(scope) => self.invalidate_gvma(scope, d),
            Invalidation::Ddt(device) => self.invalidate_ddt(device),
            Invalidation::Pdt(device, process) => self.invalidate_pdt(device, process),
            Invalidation::Translations => {
                (self.caches.clear_translations(), self.restart(|walk| walk.first_touched || walk.second_touched))
            }
        };
        InvalidationDone { asked, done, entries_dropped, walks_restarted }
    }

    fn restart(&mut self, covered: impl Fn(&Walk) -> bool) -> u32 {
        self.walkers.restart(&mut self.caches.words, covered)
    }

    fn invalidate_vma(&mut self, scope: VmaScope, d: &mut dyn Decisions) -> (u32, u32) {
        let Caches { iotlb, walk, words, .. } = &mut *self.caches;
        let VmaScope { range, .. } = scope;
        let leaves = iotlb.retain(words, |entry| {
            if !names(&scope, entry.space) {
                return true;
            }
            // An address names first-stage leaves, so not what no first stage had a part in.
            range.is_some_and(|range| {
                let (first, shift) = entry.first_leaf();
                !entry.space.has_first_stage() || !range.overlaps(Iova(first), u32::from(shift))
            })
        });
        let leads_there = |first: Iova, level: u8| range.is_none_or(|range| range.overlaps(first, page_shift(level)));
        let keep_global = scope.pscid.is_some();
        let mine = |entry: &super::cache::walk::WalkEntry| {
            let of_first_stage = entry.space.has_first_stage() || range.is_none();
            names(&scope, entry.space) && of_first_stage && !(keep_global && entry.global) && leads_there(entry.first, entry.level)
        };
        let must_go = range.is_none() || scope.non_leaf;
        let keep = !must_go && (!walk.iter().any(mine) || !ask_bool(d, Question::KeepNonLeaf));
        let non_leaves = if keep { 0 } else { walk.retain(words, |entry| !mine(entry)) };
        let restarted = self.restart(|walk| {
            let Some(space) = walk.space else { return false };
            let touched = if range.is_none() { walk.first_touched || walk.second_touched } else { walk.first_touched };
            names(&scope, space) && touched && covers_page(range, walk)
        });
        (leaves + non_leaves, restarted)
    }

    fn invalidate_gvma(&mut self, scope: GvmaScope, d: &mut dyn Decisions) -> (u32, u32) {
        let Caches { iotlb, walk, words, .. } = &mut *self.caches;
        let GvmaScope { gscid, range, .. } = scope;
        let of_guest = |other: Option<Gscid>| other.is_some() && gscid.is_none_or(|gscid| Some(gscid) == other);
        let leaves = iotlb.retain(words, |entry| {
            let (first, shift) = entry.second_leaf();
            !of_guest(entry.guest()) || range.is_some_and(|range| !range.overlaps(Iova(first), u32::from(shift)))
        });
        let mine = |entry: &super::cache::walk::WalkEntry| {
            let second = matches!(entry.space, Space::GuestPhysical(_));
            let leads_there = range.is_none_or(|range| range.overlaps(entry.first, page_shift(entry.level)));
            second && of_guest(entry.space.gscid()) && leads_there
        };
        let must_go = range.is_none() || scope.non_leaf;
        let keep = !must_go && (!walk.iter().any(mine) || !ask_bool(d, Question::KeepNonLeaf));
        let non_leaves = if keep { 0 } else { walk.retain(words, |entry| !mine(entry)) };
        // A walk does not remember which pages of the guest its tables were on.
        let restarted = self.restart(|walk| walk.second_touched && of_guest(walk.context.guest()));
        (leaves + non_leaves, restarted)
    }

    fn invalidate_ddt(&mut self, device: Option<DeviceId>) -> (u32, u32) {
        let Caches { devices, device_nodes, processes, process_nodes, words, .. } = &mut *self.caches;
        let Some(device) = device else {
            let contexts = devices.store.clear(words) + device_nodes.store.clear(words);
            let dropped = contexts + processes.store.clear(words) + process_nodes.store.clear(words);
            return (dropped, self.restart(Walk::holds_anything));
        };
        let dropped = devices.store.retain(words, |entry| entry.device != device)
            + processes.store.retain(words, |entry| entry.device != device)
            + process_nodes.store.retain(words, |entry| entry.device != device);
        (dropped, self.restart(|walk| walk.request.device == device && walk.touches_device()))
    }

    fn invalidate_pdt(&mut self, device: DeviceId, process: Pasid) -> (u32, u32) {
        let Caches { processes, words, .. } = &mut *self.caches;
        let dropped = processes.store.retain(words, |entry| entry.device != device || entry.process != process);
        let restarted = self.restart(|walk| walk.request.device == device && walk.process == Some(process) && walk.touches_process());
        (dropped, restarted)
    }
}

/// Whether VMA may act on what is tagged with a space, addresses apart.
fn names(scope: &VmaScope, space: Space) -> bool {
    let process = scope.pscid.is_none_or(|pscid| space.pscid() == Some(pscid));
    space.gscid() == scope.gscid && process
}

/// Whether a walk may have used, or may be about to use, a leaf that maps an address of the range.
fn covers_page(range: Option<AddressRange>, walk: &Walk) -> bool {
    let Some(range) = range else { return true };
    let shift = if walk.has_leaf { walk.leaf.shift } else { page_shift(walk.level) as u8 };
    range.overlaps(walk.request.iova, u32::from(shift))
}

/// A unit may ignore the operands of IOTINVAL and remove everything.
fn widen(asked: Invalidation, d: &mut dyn Decisions) -> Invalidation {
    let (wider, one_step) = match asked {
        Invalidation::Vma(_) => (1, Invalidation::Translations),
        Invalidation::Gvma(GvmaScope { gscid: gscid @ Some(_), range: Some(_), .. }) => {
            (2, Invalidation::Gvma(GvmaScope { gscid, range: None, non_leaf: false }))
        }
        Invalidation::Gvma(_) => (1, Invalidation::Translations),
        Invalidation::Ddt(_) | Invalidation::Pdt(..) | Invalidation::Translations => return asked,
    };
    match ask(d, Question::OverInvalidate { wider }) {
        0 => asked,
        1 => one_step,
        _ => Invalidation::Translations,
    }
}
