//! What each invalidation removes from the caches, and which walks in flight it sends back to their beginning.
//!
//! | command | context cache | IOTLB | paging-structure caches | walks that |
//! | --- | --- | --- | --- | --- |
//! | context global | all | - | - | hold or await anything |
//! | context domain | of the DID | - | - | hold such a context entry, or await one |
//! | context device | of the source-ids | - | - | are of such a source and hold or await a context entry |
//! | IOTLB global | - | all | all | hold or await a paging entry |
//! | IOTLB domain | - | of the DID | of the DID | same, of the DID |
//! | IOTLB page, IH=0 | - | overlapping, of the DID | leading to the range | same, and the innermost held entry leads to the range, or the awaited one may be a leaf there |
//! | IOTLB page, IH=1 | - | same | asked | await what may be a leaf there |
//! | all (ESRTPS, TE off on units with scalable mode) | all | all | all | hold or await anything |
//!
//! Scalable mode: a context entry is of no domain, so that only global and device-selective commands reach it. IOTLB
//! commands reach every PASID of the domain, but page-selective ones carry no first-stage address: whether they drop
//! first-stage and nested pages is asked. Walks through a first stage restart whenever a command may cover them.
//!
//! | command | PASID cache | IOTLB | paging-structure caches | walks that |
//! | --- | --- | --- | --- | --- |
//! | PASID global | all | - | - | hold or await a directory or PASID entry |
//! | PASID domain | of the DID | - | - | hold such an entry, or await one |
//! | PASID one | of the DID and PASID | - | - | same, of the PASID |
//! | PASID-IOTLB all | - | of the DID and PASID | same | of both, hold or await a paging entry |
//! | PASID-IOTLB page, IH=0 | - | overlapping, of both | leading to the range, of both | same, in the range |
//! | PASID-IOTLB page, IH=1 | - | same | asked | same, and the entry may be a leaf |

use super::capability::Capabilities;
use super::walk::Walk;
use super::walkers::Walks;
use crate::addr::{Bdf, DomainId, Iova, PAGE_SHIFT, Pasid};
use crate::ats::PageRange;
use crate::cache::Caches;
use crate::cache::context::ContextTarget;
use crate::cache::psc::PscEntry;
use crate::decision::{Decisions, Question, ask, ask_bool};
use crate::spec::vtd::register::InvalidateAddress;

/// What of the context cache is invalidated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContextScope {
    /// Everything.
    Global,
    /// Entries of a domain.
    Domain(DomainId),
    /// Entries of one function, or of several that differ only in masked function bits.
    Device {
        /// The domain that software says the entry had.
        domain: DomainId,
        /// Source-id.
        source: Bdf,
        /// FM: how many of the top bits of the function number to ignore, 0 to 3.
        function_mask: u8,
    },
}

/// What of the IOTLB and the paging-structure caches is invalidated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IotlbScope {
    /// Everything.
    Global,
    /// Everything of a domain.
    Domain(DomainId),
    /// A range of one domain.
    Pages {
        /// The domain.
        domain: DomainId,
        /// The range.
        range: PageRange,
        /// IH: only leaves changed, so non-leaf entries may stay.
        leaf_only: bool,
    },
}

/// What of the PASID cache is invalidated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PasidScope {
    /// Everything.
    Global,
    /// Every PASID of a domain.
    Domain(DomainId),
    /// One PASID of a domain.
    One {
        /// The domain.
        domain: DomainId,
        /// The PASID.
        pasid: Pasid,
    },
}

/// What of the first-stage and nested translations of one PASID is invalidated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PasidIotlbScope {
    /// The domain.
    pub domain: DomainId,
    /// The PASID.
    pub pasid: Pasid,
    /// A range, and whether only leaves changed (IH); `None` for every page.
    pub pages: Option<(PageRange, bool)>,
}

/// One command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invalidation {
    /// Context cache.
    Context(ContextScope),
    /// IOTLB and paging-structure caches.
    Iotlb(IotlbScope),
    /// PASID cache.
    Pasid(PasidScope),
    /// IOTLB and paging-structure caches of one PASID.
    PasidIotlb(PasidIotlbScope),
    /// Every cache, at a root switch.
    All,
    /// Device TLB: nothing in this unit. The device has it ([`QueueProgress::InvalidateDevice`](super::QueueProgress)).
    DeviceTlb,
    /// Interrupt entry cache: nothing in this unit.
    InterruptEntry,
    /// A wait descriptor: everything before it is complete.
    Wait,
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
    /// CAP.RWBF: the caller's write buffer is flushed first.
    pub flushes_write_buffer: bool,
}

impl InvalidationDone {
    pub(crate) const fn nothing(what: Invalidation) -> Self {
        Self { asked: what, done: what, entries_dropped: 0, walks_restarted: 0, flushes_write_buffer: false }
    }
}

/// What an invalidation acts on.
pub(crate) struct Target<'a> {
    pub(crate) cap: &'a Capabilities,
    pub(crate) caches: &'a mut Caches,
    pub(crate) walks: &'a mut Walks,
}

impl Target<'_> {
    /// Carries out a command, perhaps wider than asked.
    pub(crate) fn invalidate(&mut self, asked: Invalidation, d: &mut dyn Decisions) -> InvalidationDone {
        let done = self.widen(asked, d);
        let (entries_dropped, walks_restarted) = match done {
            Invalidation::Context(scope) => self.invalidate_context(scope, d),
            Invalidation::Iotlb(scope) => self.invalidate_iotlb(scope, d),
            Invalidation::Pasid(scope) => self.invalidate_pasid(scope),
            Invalidation::PasidIotlb(scope) => self.invalidate_pasid_iotlb(scope, d),
            Invalidation::All => (self.caches.clear(), self.restart(Walk::holds_anything)),
            Invalidation::DeviceTlb | Invalidation::InterruptEntry | Invalidation::Wait => (0, 0),
        };
        let touches_caches =
            matches!(done, Invalidation::Context(_) | Invalidation::Iotlb(_) | Invalidation::Pasid(_) | Invalidation::PasidIotlb(_));
        InvalidationDone { asked, done, entries_dropped, walks_restarted, flushes_write_buffer: self.cap.write_buffer && touches_caches }
    }

    /// A device-selective context request widens to global at once: the domain it names may not be the entry's.
    fn widen(&self, asked: Invalidation, d: &mut dyn Decisions) -> Invalidation {
        let global = match asked {
            Invalidation::Context(_) => Invalidation::Context(ContextScope::Global),
            Invalidation::Pasid(_) => Invalidation::Pasid(PasidScope::Global),
            _ => Invalidation::Iotlb(IotlbScope::Global),
        };
        let (wider, one_step) = match asked {
            Invalidation::Iotlb(IotlbScope::Pages { domain, .. }) => (2, Invalidation::Iotlb(IotlbScope::Domain(domain))),
            Invalidation::Context(ContextScope::Device { .. } | ContextScope::Domain(_)) | Invalidation::Iotlb(IotlbScope::Domain(_)) => {
                (1, global)
            }
            Invalidation::Pasid(PasidScope::One { domain, .. }) => (2, Invalidation::Pasid(PasidScope::Domain(domain))),
            Invalidation::Pasid(PasidScope::Domain(_)) => (1, global),
            Invalidation::PasidIotlb(PasidIotlbScope { domain, .. }) => (2, Invalidation::Iotlb(IotlbScope::Domain(domain))),
            _ => return asked,
        };
        match ask(d, Question::OverInvalidate { wider }) {
            0 => self.widen_without_page_selection(asked),
            1 => one_step,
            _ => global,
        }
    }

    /// A unit without PSI performs a page-selective request domain-wide.
    fn widen_without_page_selection(&self, asked: Invalidation) -> Invalidation {
        match asked {
            Invalidation::Iotlb(IotlbScope::Pages { domain, .. }) if !self.cap.page_selective => {
                Invalidation::Iotlb(IotlbScope::Domain(domain))
            }
            _ => asked,
        }
    }

    fn restart(&mut self, covered: impl Fn(&Walk) -> bool) -> u32 {
        self.walks.restart(&mut self.caches.words, covered)
    }

    fn invalidate_context(&mut self, scope: ContextScope, d: &mut dyn Decisions) -> (u32, u32) {
        match scope {
            ContextScope::Global => (self.caches.context.clear(&mut self.caches.words), self.restart(Walk::holds_anything)),
            ContextScope::Domain(domain) => (
                self.caches.context.retain(&mut self.caches.words, |entry| is_scalable(&entry.target) || entry.domain != domain),
                self.restart(|walk| walk.may_hold_context_of(domain)),
            ),
            ContextScope::Device { domain, source, function_mask } => {
                let covered = |other: Bdf| matches_source(source, function_mask, other);
                let dropped = self.caches.context.retain(&mut self.caches.words, |entry| {
                    let other_domain = entry.domain != domain && !is_scalable(&entry.target);
                    !covered(entry.source) || (other_domain && ask_bool(&mut *d, Question::KeepOtherDomain))
                });
                let restarted = self.restart(|walk| covered(walk.request.source) && walk.touches_context());
                (dropped, restarted)
            }
        }
    }

    fn invalidate_iotlb(&mut self, scope: IotlbScope, d: &mut dyn Decisions) -> (u32, u32) {
        match scope {
            IotlbScope::Global => (
                self.caches.iotlb.clear(&mut self.caches.words) + self.caches.psc.clear(&mut self.caches.words),
                self.restart(Walk::touches_tables),
            ),
            IotlbScope::Domain(domain) => (
                self.caches.iotlb.retain(&mut self.caches.words, |entry| entry.domain != domain)
                    + self.caches.psc.retain(&mut self.caches.words, |entry| entry.domain != domain),
                self.restart(|walk| walk.domain() == Some(domain) && walk.touches_tables()),
            ),
            IotlbScope::Pages { domain, range, leaf_only } => self.invalidate_pages(domain, range, leaf_only, d),
        }
    }

    fn invalidate_pages(&mut self, domain: DomainId, range: PageRange, leaf_only: bool, d: &mut dyn Decisions) -> (u32, u32) {
        let leaves = self.caches.iotlb.retain(&mut self.caches.words, |entry| {
            if entry.domain != domain {
                return true;
            }
            if entry.pasid.is_some() {
                return !ask_bool(&mut *d, Question::KeepFirstStage);
            }
            if !range.overlaps(entry.page, entry.page_bytes) {
                return true;
            }
            !range.covers_page_of(entry.page_bytes) && !ask_bool(&mut *d, Question::KeepSuperpage)
        });
        let leads_there = |first: Iova, span: u64| range.overlaps(first, span);
        let any = || self.caches.psc.iter().any(|e| e.domain == domain && e.pasid.is_none() && leads_there(e.first, e.span_bytes));
        let keep_non_leaf = leaf_only && (!any() || !ask_bool(&mut *d, Question::KeepNonLeaf));
        let non_leaves = if keep_non_leaf {
            0
        } else {
            self.caches
                .psc
                .retain(&mut self.caches.words, |e| e.domain != domain || e.pasid.is_some() || !leads_there(e.first, e.span_bytes))
        };
        let cap = self.cap;
        let restarted = self.restart(|walk| {
            let leaf_awaited = walk.awaited().is_some_and(|(level, first, span)| cap.leaf_allowed(level) && leads_there(first, span));
            let non_leaf_awaited = walk.awaited().is_some_and(|(_, first, span)| leads_there(first, span));
            let non_leaf_held = walk.innermost_held().is_some_and(|(first, span)| leads_there(first, span));
            if walk.tag_pasid().is_some() {
                return walk.domain() == Some(domain) && walk.touches_tables();
            }
            walk.domain() == Some(domain) && (leaf_awaited || (!leaf_only && (non_leaf_awaited || non_leaf_held)))
        });
        (leaves + non_leaves, restarted)
    }
}

impl Target<'_> {
    fn invalidate_pasid(&mut self, scope: PasidScope) -> (u32, u32) {
        let words = &mut self.caches.words;
        match scope {
            PasidScope::Global => (self.caches.pasid.clear(words), self.restart(Walk::touches_pasid)),
            PasidScope::Domain(domain) => {
                (self.caches.pasid.retain(words, |entry| entry.domain != domain), self.restart(|walk| walk.may_hold_pasid_of(domain, None)))
            }
            PasidScope::One { domain, pasid } => (
                self.caches.pasid.retain(words, |entry| entry.domain != domain || entry.pasid != pasid),
                self.restart(|walk| walk.may_hold_pasid_of(domain, Some(pasid))),
            ),
        }
    }

    fn invalidate_pasid_iotlb(&mut self, scope: PasidIotlbScope, d: &mut dyn Decisions) -> (u32, u32) {
        let PasidIotlbScope { domain, pasid, pages } = scope;
        let in_range = |first: Iova, span: u64| pages.is_none_or(|(range, _)| range.overlaps(first, span));
        let leaf_only = pages.is_some_and(|(_, leaf_only)| leaf_only);
        let leaves = self.caches.iotlb.retain(&mut self.caches.words, |entry| {
            if entry.domain != domain || entry.pasid != Some(pasid) || !in_range(entry.page, entry.page_bytes) {
                return true;
            }
            let covered = pages.is_none_or(|(range, _)| range.covers_page_of(entry.page_bytes));
            !covered && !ask_bool(&mut *d, Question::KeepSuperpage)
        });
        let mine = |entry: &PscEntry| entry.domain == domain && entry.pasid == Some(pasid) && in_range(entry.first, entry.span_bytes);
        let keep_non_leaf = leaf_only && (!self.caches.psc.iter().any(mine) || !ask_bool(&mut *d, Question::KeepNonLeaf));
        let non_leaves = if keep_non_leaf { 0 } else { self.caches.psc.retain(&mut self.caches.words, |entry| !mine(entry)) };
        let restarted = self.restart(|walk| {
            if walk.domain() != Some(domain) || walk.tag_pasid() != Some(pasid) || !walk.touches_tables() {
                return false;
            }
            let (first, span) = walk.first_span(0);
            let (above, span_above) = walk.first_span(1);
            let here = in_range(first, span) && (!leaf_only || walk.scalable.first.level <= 3);
            here || (!leaf_only && in_range(above, span_above))
        });
        (leaves + non_leaves, restarted)
    }
}

const fn is_scalable(target: &ContextTarget) -> bool {
    matches!(target, ContextTarget::Scalable { .. })
}

/// Whether two requester ids differ only in the function bits that FM masks, counted from the top.
pub(crate) fn matches_source(source: Bdf, function_mask: u8, other: Bdf) -> bool {
    let kept = 3u16.saturating_sub(u16::from(function_mask));
    let ignored = 0b111 & !((1 << kept) - 1);
    source.0 & !ignored == other.0 & !ignored
}

/// The range that IVA_REG holds.
pub(crate) fn range_of(address: InvalidateAddress) -> PageRange {
    PageRange { address: Iova(address.page() << PAGE_SHIFT), order: address.address_mask() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_function_mask_ignores_bits_from_the_top() {
        let base = Bdf::new(1, 2, 0);
        assert!(!matches_source(base, 0, Bdf::new(1, 2, 4)));
        assert!(matches_source(base, 1, Bdf::new(1, 2, 4)));
        assert!(!matches_source(base, 1, Bdf::new(1, 2, 2)));
        assert!(matches_source(base, 2, Bdf::new(1, 2, 6)));
        assert!(matches_source(base, 3, Bdf::new(1, 2, 7)));
        assert!(!matches_source(base, 3, Bdf::new(1, 3, 0)));
    }
}
