//! The rules of VT-d for the slot automaton.
//!
//! Source: VT-d specification, guidance to software for invalidations, as Linux 7.3 `intel_pasid_tear_down_entry`,
//! `intel_context_flush_no_pasid` and `iommu_set_root_entry` follow it. Outermost first:
//!
//! | entry | needs when it was present |
//! | --- | --- |
//! | root | context global, PASID cache global (scalable mode), IOTLB global |
//! | context, legacy | context device-selective, IOTLB of the old DID |
//! | context, scalable | context device-selective, PASID cache and IOTLB of the domain |
//! | PASID directory | PASID cache and IOTLB of the domain |
//! | PASID entry, second stage or nested | PASID cache of (DID, PASID), IOTLB of the DID |
//! | PASID entry, first stage or pass-through | PASID cache of (DID, PASID), PASID-based IOTLB of both |
//! | second stage | IOTLB pages; IH = 0 for a pointer |
//! | first stage | PASID-based IOTLB pages; IH = 0 for a pointer |
//!
//! Each is followed by the device TLB of the function where one is in use. A stage is complete before the next one is
//! issued; only the device TLB may be issued together with what comes before it. A fresh entry owes nothing unless the
//! unit has caching mode; then everything but first-stage entries does.
//!
//! A wait after invalidations with DR and DW (or of units that always drain) is [`Event::Waited`](super::Event::Waited); without
//! drains it is [`Event::Completed`](super::Event::Completed): entries may be used again, frames may not be given away.
//!
//! Entries of more than one word must be cleared by their first word before anything else changes. Paging entries
//! may be replaced in one store. Software bits do not count.

use super::{Change, Frames, Needs, Place, Rules, Targets};
use crate::addr::{Bdf, DomainId, Iova, Pasid, Pfn};
use crate::ats::DeviceInvalidation;
use crate::spec::vtd::context::{ContextEntry, TT_DEVICE_TLB, TT_PASS_THROUGH};
use crate::spec::vtd::first_stage::FirstStageEntry;
use crate::spec::vtd::pasid::{
    PGTT_FIRST, PGTT_NESTED, PGTT_SECOND, PasidDirectoryEntry, PasidEntryFirstStage, PasidEntryLow, ScalableContextEntry,
};
use crate::spec::vtd::root::{RootEntry, ScalableRootEntry};
use crate::spec::vtd::second_stage::SecondStageEntry;
use crate::vtd::{Capabilities, ContextScope, Invalidation, IotlbScope, PasidScope, matches_source};
use smallvec::smallvec;

/// Kinds of entries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// Root entry of either mode.
    Root,
    /// Legacy context entry.
    Context,
    /// Scalable-mode context entry.
    ScalableContext,
    /// PASID directory entry.
    PasidDirectory,
    /// PASID table entry.
    PasidEntry,
    /// Paging entry of the only or the second stage.
    Second {
        /// 1 maps 4 KiB.
        level: u8,
    },
    /// Paging entry of the first stage.
    First {
        /// 1 maps 4 KiB.
        level: u8,
    },
}

/// A cache to clean, and of what.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Need {
    /// Context cache: one function and the domain that its entry had, or all.
    Context(Option<(Bdf, Option<DomainId>)>),
    /// PASID cache: a domain and perhaps one PASID of it, or all.
    Pasid(Option<(DomainId, Option<Pasid>)>),
    /// IOTLB and paging-structure caches of a domain, or all.
    Iotlb(Option<DomainId>),
    /// Those of some pages.
    Pages {
        /// Domain.
        domain: DomainId,
        /// The PASID, for what went through a first stage.
        pasid: Option<Pasid>,
        /// First address.
        first: Iova,
        /// Bytes.
        span_bytes: u64,
        /// A pointer changed, so that IH must be 0.
        non_leaf: bool,
    },
    /// Device TLB of a function.
    Device {
        /// The function.
        source: Bdf,
        /// The PASID, if the device uses one here.
        pasid: Option<Pasid>,
        /// First address.
        first: Iova,
        /// Bytes; 0 for everything.
        span_bytes: u64,
    },
}

/// What software can issue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// To the unit. SRTP with ESRTPS counts as [`Invalidation::All`].
    Unit(Invalidation),
    /// To a device.
    Device(DeviceInvalidation),
}

/// The rules of one unit.
#[derive(Clone, Copy, Debug)]
pub struct VtdRules {
    /// Stores must be flushed: ECAP.C = 0 (ECAP.SMPWC = 0 for what the PASID entry leads to), or CAP.RWBF.
    pub flush: bool,
    /// CAP.CM.
    pub caching_mode: bool,
    /// The root table is one of scalable mode.
    pub scalable: bool,
}

impl VtdRules {
    /// Those of a unit with these capabilities.
    #[must_use]
    pub const fn of(cap: &Capabilities, scalable: bool) -> Self {
        Self { flush: !cap.coherent || cap.write_buffer, caching_mode: cap.caching_mode, scalable }
    }

    /// The bits of a word that hardware looks at.
    fn relevant(kind: Kind, index: usize) -> u64 {
        match (kind, index) {
            (Kind::Context, 1) => !((ContextEntry::new().with_available(0xf).into_bits() >> 64) as u64),
            (Kind::Second { .. }, _) => {
                let software = SecondStageEntry::new().with_ignored_10(true).with_ignored_high(0x3ff).with_ignored_63(true);
                !software.into_bits()
            }
            (Kind::First { .. }, _) => {
                let software = FirstStageEntry::new().with_ignored_9(true).with_ignored_11(true).with_ignored_52(0x7ff);
                !software.into_bits()
            }
            _ => u64::MAX,
        }
    }

    /// Whether a walker with the old word in a cache does no harm. Bits that were set may be gone only where they denied.
    fn only_widens(kind: Kind, old: u64, new: u64) -> bool {
        let relevant = Self::relevant(kind, 0);
        let (lost, won) = (old & !new & relevant, new & !old & relevant);
        match kind {
            Kind::Second { .. } => {
                let grants = SecondStageEntry::new().with_read(true).with_write(true).with_execute(true);
                let grants = grants.with_accessed(true).with_dirty(true).into_bits();
                lost == 0 && won & !grants == 0
            }
            Kind::First { .. } => {
                let grants = FirstStageEntry::new().with_write(true).with_user(true).with_accessed(true).with_dirty(true);
                let grants = grants.with_extended_accessed(true).into_bits();
                let denies = FirstStageEntry::new().with_execute_disable(true).into_bits();
                lost & !denies == 0 && won & !grants == 0
            }
            _ => false,
        }
    }

    fn is_leaf(kind: Kind, word: u64) -> bool {
        match kind {
            Kind::Second { level } => level == 1 || SecondStageEntry::from_bits(word).page_size(),
            Kind::First { level } => level == 1 || FirstStageEntry::from_bits(word).page_size(),
            _ => false,
        }
    }
}

const fn wide(words: &[u64]) -> u128 {
    match words {
        [low, high, ..] => *low as u128 | (*high as u128) << 64,
        [low] => *low as u128,
        [] => 0,
    }
}

impl Rules for VtdRules {
    type Kind = Kind;
    type Place = Place;
    type Need = Need;
    type Command = Command;

    fn words(&self, kind: Kind) -> usize {
        match kind {
            Kind::Root | Kind::Context => 2,
            Kind::ScalableContext => 4,
            Kind::PasidEntry => 8,
            Kind::PasidDirectory | Kind::Second { .. } | Kind::First { .. } => 1,
        }
    }

    fn is_present(&self, kind: Kind, words: &[u64]) -> bool {
        let low = words.first().copied().unwrap_or(0);
        match kind {
            Kind::Second { .. } => SecondStageEntry::from_bits(low).read() || SecondStageEntry::from_bits(low).write(),
            Kind::Root => low & 1 != 0 || (self.scalable && words.get(1).is_some_and(|upper| upper & 1 != 0)),
            _ => low & 1 != 0,
        }
    }

    fn change(&self, kind: Kind, old: &[u64], new: &[u64], _: usize) -> Change {
        let differs = (0..old.len()).any(|n| (old[n] ^ new[n]) & Self::relevant(kind, n) != 0);
        if !differs {
            return Change::Nothing;
        }
        match (self.is_present(kind, old), self.is_present(kind, new)) {
            (false, false) => Change::Prepares,
            (false, true) => Change::Sets,
            (true, false) => Change::Clears,
            (true, true) if Self::only_widens(kind, old[0], new[0]) => Change::Widens,
            // The halves of a scalable-mode root entry stand for themselves, and each is one word.
            (true, true) if old.len() == 1 || kind == Kind::Root => Change::Alters,
            (true, true) => Change::Tears,
        }
    }

    fn needs(&self, kind: Kind, place: &Place, old: &[u64]) -> Needs<Need> {
        let bits = wide(old);
        let device = |pasid, first, span_bytes| Need::Device { source: place.source, pasid, first, span_bytes };
        let mut device_tlb = place.device_tlb;
        let mut needs: Needs<Need> = match kind {
            Kind::Root if self.scalable => smallvec![Need::Context(None), Need::Pasid(None), Need::Iotlb(None)],
            Kind::Root => smallvec![Need::Context(None), Need::Iotlb(None)],
            Kind::Context => {
                let entry = ContextEntry::from_bits(bits);
                device_tlb |= entry.translation_type() == TT_DEVICE_TLB;
                let domain = Some(DomainId(entry.domain()));
                smallvec![Need::Context(Some((place.source, domain))), Need::Iotlb(domain)]
            }
            // It leads to 64 PASIDs, of this domain as far as the caller knows.
            Kind::PasidDirectory => {
                let domain = place.domain;
                smallvec![Need::Pasid(Some((domain, None))), Need::Iotlb(Some(domain))]
            }
            Kind::ScalableContext => {
                device_tlb |= ScalableContextEntry::from_bits(bits).device_tlb();
                let domain = place.domain;
                smallvec![Need::Context(Some((place.source, None))), Need::Pasid(Some((domain, None))), Need::Iotlb(Some(domain))]
            }
            Kind::PasidEntry => {
                let entry = PasidEntryLow::from_bits(bits);
                let domain = DomainId(entry.domain());
                let pasid = Need::Pasid(Some((domain, place.pasid)));
                let whole = Need::Pages { domain, pasid: place.pasid, first: Iova(0), span_bytes: 0, non_leaf: true };
                match entry.translation_type() {
                    PGTT_SECOND | PGTT_NESTED => smallvec![pasid, Need::Iotlb(Some(domain))],
                    _ => smallvec![pasid, whole],
                }
            }
            Kind::Second { .. } | Kind::First { .. } => {
                let pasid = if let Kind::First { .. } = kind { place.pasid } else { None };
                let (first, span_bytes) = (place.first, place.span_bytes);
                let non_leaf = !Self::is_leaf(kind, old.first().copied().unwrap_or(0));
                smallvec![Need::Pages { domain: place.domain, pasid, first, span_bytes, non_leaf }]
            }
        };
        if device_tlb {
            needs.push(match kind {
                Kind::Second { .. } | Kind::First { .. } => device(place.pasid, place.first, place.span_bytes),
                _ => device(place.pasid, Iova(0), 0),
            });
        }
        needs
    }

    fn caches_absence(&self, kind: Kind) -> bool {
        self.caching_mode && !matches!(kind, Kind::First { .. })
    }

    fn covers(&self, command: &Command, need: &Need) -> bool {
        match (*command, *need) {
            (Command::Unit(Invalidation::All), need) => !matches!(need, Need::Device { .. }),
            (Command::Unit(Invalidation::Context(scope)), Need::Context(source)) => match (scope, source) {
                (ContextScope::Global, _) => true,
                (ContextScope::Device { source: named, function_mask, .. }, Some((source, _))) => {
                    matches_source(named, function_mask, source)
                }
                // An entry of scalable mode is of no domain.
                (ContextScope::Domain(named), Some((_, Some(domain)))) => named == domain,
                _ => false,
            },
            (Command::Unit(Invalidation::Pasid(scope)), Need::Pasid(which)) => match (scope, which) {
                (PasidScope::Global, _) => true,
                (PasidScope::Domain(named), Some((domain, _))) => named == domain,
                (PasidScope::One { domain: named, pasid }, Some((domain, one))) => named == domain && one == Some(pasid),
                _ => false,
            },
            (Command::Unit(Invalidation::Iotlb(scope)), Need::Iotlb(which)) => match (scope, which) {
                (IotlbScope::Global, _) => true,
                (IotlbScope::Domain(named), Some(domain)) => named == domain,
                _ => false,
            },
            (Command::Unit(Invalidation::Iotlb(scope)), Need::Pages { domain, pasid, first, span_bytes, non_leaf }) => match scope {
                IotlbScope::Global => true,
                IotlbScope::Domain(named) => named == domain,
                // A page-selective command without PASID names no address of a first stage.
                IotlbScope::Pages { domain: named, range, leaf_only } => {
                    named == domain && pasid.is_none() && range.holds(first, span_bytes) && !(leaf_only && non_leaf)
                }
            },
            (Command::Unit(Invalidation::PasidIotlb(scope)), Need::Pages { domain, pasid, first, span_bytes, non_leaf }) => {
                scope.domain == domain
                    && Some(scope.pasid) == pasid
                    && scope.pages.is_none_or(|(range, leaf_only)| range.holds(first, span_bytes) && !(leaf_only && non_leaf))
            }
            (Command::Device(command), Need::Device { source, pasid, first, span_bytes }) => {
                command.source == source && (command.every_pasid || command.pasid == pasid) && command.range.holds(first, span_bytes)
            }
            _ => false,
        }
    }

    fn waits_between(&self, _: &Need, after: &Need) -> bool {
        !matches!(after, Need::Device { .. })
    }

    fn needs_flush(&self) -> bool {
        self.flush
    }

    fn targets(&self, kind: Kind, words: &[u64]) -> Targets {
        if !self.is_present(kind, words) {
            return Targets::new();
        }
        let bits = wide(words);
        match kind {
            Kind::Root if self.scalable => {
                let entry = ScalableRootEntry::from_bits(bits);
                let halves = [(entry.lower_present(), entry.lower()), (entry.upper_present(), entry.upper())];
                halves.into_iter().filter(|(present, _)| *present).map(|(_, frame)| Frames::one(frame)).collect()
            }
            Kind::Root => smallvec![Frames::one(RootEntry::from_bits(bits).context_table())],
            Kind::Context => match ContextEntry::from_bits(bits) {
                entry if entry.translation_type() == TT_PASS_THROUGH => Targets::new(),
                entry => smallvec![Frames::one(entry.second_stage())],
            },
            Kind::ScalableContext => {
                let entry = ScalableContextEntry::from_bits(bits);
                // 2^(PDTS + 7) entries of 8 bytes, 512 a frame.
                let count = (1u64 << (entry.directory_size() + 7)).div_ceil(512);
                smallvec![Frames { first: Pfn(entry.directory()), count }]
            }
            Kind::PasidDirectory => smallvec![Frames::one(PasidDirectoryEntry::from_bits(words[0]).table())],
            Kind::PasidEntry => {
                let low = PasidEntryLow::from_bits(bits);
                let first = Frames::one(words.get(2).map_or(0, |word| PasidEntryFirstStage::from_bits(*word).first_stage()));
                let second = Frames::one(low.second_stage());
                match low.translation_type() {
                    PGTT_FIRST => smallvec![first],
                    PGTT_SECOND => smallvec![second],
                    PGTT_NESTED => smallvec![first, second],
                    _ => Targets::new(),
                }
            }
            Kind::Second { level } | Kind::First { level } => {
                let pages = if Self::is_leaf(kind, words[0]) { 1 << (9 * u32::from(level.clamp(1, 5) - 1)) } else { 1 };
                let frame = SecondStageEntry::from_bits(words[0]).frame();
                smallvec![Frames { first: Pfn(frame & !(pages - 1)), count: pages }]
            }
        }
    }
}
