//! The rules of AMD-Vi for the slot automaton.
//!
//! Sources: 48882, sections 2.2.2 (device table), 2.2.3 (host tables), 2.2.6 (guest tables) and 2.4 (commands); what Linux 7.3
//! makes of them in `update_dte256`, `amd_iommu_make_clear_dte`, `amd_iommu_domain_flush_pages`, `update_gcr3` and
//! `build_inv_iommu_pages`.
//!
//! | entry | needs when it was present, outermost first |
//! | --- | --- |
//! | device table entry | INVALIDATE_DEVTAB_ENTRY, INVALIDATE_IOMMU_PAGES of all of the old domain with PDE; with guest tables also with GN |
//! | host | INVALIDATE_IOMMU_PAGES; PDE for a pointer |
//! | GCR3 table | INVALIDATE_IOMMU_PAGES of all of the PASID, with GN and PDE |
//! | guest | INVALIDATE_IOMMU_PAGES of the PASID, with GN; PDE for a pointer |
//!
//! INVALIDATE_IOTLB_PAGES comes last, where a device may translate for itself. COMPLETION_WAIT completes all that was issued
//! before, accesses included ([`Event::Waited`](super::Event::Waited)). Commands are carried out in order here: so Linux issues them, with one wait at the end; with
//! [`AmdRules::wait_between`] each stage must be complete before the next one is issued.
//!
//! - A device table entry is read as one unit of 256 bits, and software stores at most 128. An entry that is present may
//!   change in one store of either half; with guest tables the depth of those lies in the upper half and everything else
//!   in the lower, so that the depth may change only while the entry is absent. Half of a half is no unit: what an 8-byte
//!   store changes in the lower half must be clean before the next one.
//! - Absent is V = 1 with TV = 0, as Linux leaves an entry that must block: IR and IW are 0 then (that they are is not
//!   looked at). V = 0 lets every address pass untranslated: to clear an entry so opens the device. A fresh
//!   entry owes an invalidation all the same: what was absent said something, and may be cached.
//! - Host and guest entries may be replaced in one store. A fresh one owes nothing, unless the unit caches absence
//!   (NpCache in the capability header).
//! - Copies of an entry with NextLevel 7 stand for themselves.

use super::{Change, Frames, Needs, Place, Rules, Targets};
use crate::addr::{Bdf, DomainId, Iova, Pasid, Pfn};
use crate::amd::{Invalidation, PagesScope};
use crate::ats::DeviceInvalidation;
use crate::spec::amd::device_table::{DeviceEntryHigh, DeviceEntryLow};
use crate::spec::amd::guest_table::{GuestCr3Entry, GuestEntry};
use crate::spec::amd::host_table::{HostEntry, LEVEL_BITS, NEXT_LEAF, NEXT_SIZED};
use smallvec::smallvec;

/// Kinds of entries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// Device table entry.
    Device,
    /// Entry of a host page table.
    Host {
        /// 1 maps 4 KiB.
        level: u8,
    },
    /// Entry of a GCR3 table, of any level.
    GuestRoot,
    /// Entry of a guest page table.
    Guest {
        /// 1 maps 4 KiB.
        level: u8,
    },
}

/// A cache to clean, and of what.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Need {
    /// Device table entry of a function.
    Device(Bdf),
    /// Translations.
    Pages {
        /// Domain.
        domain: DomainId,
        /// The PASID, for what went through a guest table.
        pasid: Option<Pasid>,
        /// First address.
        first: Iova,
        /// Bytes; 0 for everything.
        span_bytes: u64,
        /// A pointer changed, so that PDE must be 1.
        non_leaf: bool,
    },
    /// Device TLB of a function.
    DeviceTlb {
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
    /// To the unit.
    Unit(Invalidation),
    /// INVALIDATE_IOTLB_PAGES.
    Device(DeviceInvalidation),
}

/// The rules of one unit.
#[derive(Clone, Copy, Debug)]
pub struct AmdRules {
    /// Stores must be flushed: the unit's table reads are not coherent.
    pub flush: bool,
    /// NpCache: absent entries of page tables may be cached.
    pub caches_absence: bool,
    /// A stage must be complete before the next one is issued. Not verified either way.
    pub wait_between: bool,
}

/// The depth of guest tables: what of the upper half translation looks at.
const fn depth(words: &[u64]) -> u8 {
    match words {
        [_, _, low, ..] => DeviceEntryHigh::from_bits(*low as u128).guest_paging(),
        _ => 0,
    }
}

const fn lower(words: &[u64]) -> DeviceEntryLow {
    match words {
        [low, high, ..] => DeviceEntryLow::from_bits(*low as u128 | (*high as u128) << 64),
        [low] => DeviceEntryLow::from_bits(*low as u128),
        [] => DeviceEntryLow::new(),
    }
}

/// The lower half with what plays no part in where a request goes: faults, ports, interrupts.
fn lower_relevant(words: &[u64]) -> u128 {
    let entry = lower(words).with_suppress_repeated(false).with_suppress_all(false).with_port_io(0).with_system_management(0);
    entry.into_bits()
}

fn is_leaf(kind: Kind, word: u64) -> bool {
    match kind {
        Kind::Host { .. } => matches!(HostEntry::from_bits(word).next_level(), NEXT_LEAF | NEXT_SIZED),
        Kind::Guest { level } => level == 1 || GuestEntry::from_bits(word).page_size(),
        Kind::Device | Kind::GuestRoot => false,
    }
}

/// The bits of a page-table entry that hardware looks at.
fn relevant(kind: Kind) -> u64 {
    let ignored = match kind {
        Kind::Host { .. } => HostEntry::new().with_ignored_1(0xf).with_ignored_7(3).with_ignored_63(true).into_bits(),
        Kind::Guest { .. } => GuestEntry::new().with_ignored_9(7).with_ignored_52(0x7ff).into_bits(),
        Kind::GuestRoot => GuestCr3Entry::new().with_ignored_1(0x7ff).with_ignored_52(0xfff).into_bits(),
        Kind::Device => 0,
    };
    !ignored
}

/// Whether a walker with the old word in a cache does no harm.
fn only_widens(kind: Kind, old: u64, new: u64) -> bool {
    let (lost, won) = (old & !new & relevant(kind), new & !old & relevant(kind));
    let (denies, grants) = match kind {
        Kind::Host { .. } => (0, HostEntry::new().with_read(true).with_write(true).with_accessed(true).with_dirty(true).into_bits()),
        Kind::Guest { .. } => {
            let grants = GuestEntry::new().with_write(true).with_user(true).with_accessed(true).with_dirty(true);
            (GuestEntry::new().with_no_execute(true).into_bits(), grants.into_bits())
        }
        Kind::GuestRoot | Kind::Device => return false,
    };
    lost & !denies == 0 && won & !grants == 0
}

impl Rules for AmdRules {
    type Kind = Kind;
    type Place = Place;
    type Need = Need;
    type Command = Command;

    fn words(&self, kind: Kind) -> usize {
        if kind == Kind::Device { 4 } else { 1 }
    }

    fn is_present(&self, kind: Kind, words: &[u64]) -> bool {
        let low = words.first().copied().unwrap_or(0);
        match kind {
            Kind::Device => lower(words).valid() && lower(words).translation_valid(),
            Kind::Host { .. } => HostEntry::from_bits(low).present(),
            Kind::GuestRoot => GuestCr3Entry::from_bits(low).valid(),
            Kind::Guest { .. } => GuestEntry::from_bits(low).present(),
        }
    }

    fn change(&self, kind: Kind, old: &[u64], new: &[u64], stored: usize) -> Change {
        let present = (self.is_present(kind, old), self.is_present(kind, new));
        if kind == Kind::Device {
            let guest = lower(old).guest_valid() || lower(new).guest_valid();
            let depth_changed = guest && depth(old) != depth(new);
            return match present {
                _ if lower(old).valid() && !lower(new).valid() => Change::Opens,
                _ if lower_relevant(old) == lower_relevant(new) && !depth_changed => Change::Nothing,
                (false, false) => Change::Prepares,
                (false, true) => Change::Sets,
                (true, false) => Change::Clears,
                (true, true) if depth_changed => Change::Tears,
                (true, true) if stored < 2 => Change::Switches,
                (true, true) => Change::Alters,
            };
        }
        if (old[0] ^ new[0]) & relevant(kind) == 0 {
            return Change::Nothing;
        }
        match present {
            (false, false) => Change::Prepares,
            (false, true) => Change::Sets,
            (true, false) => Change::Clears,
            (true, true) if only_widens(kind, old[0], new[0]) => Change::Widens,
            (true, true) => Change::Alters,
        }
    }

    fn needs(&self, kind: Kind, place: &Place, old: &[u64]) -> Needs<Need> {
        let low = old.first().copied().unwrap_or(0);
        let pages = |domain, pasid, whole: bool, non_leaf| {
            let (first, span_bytes) = if whole { (Iova(0), 0) } else { (place.first, place.span_bytes) };
            Need::Pages { domain, pasid, first, span_bytes, non_leaf }
        };
        let mut needs: Needs<Need> = Needs::new();
        let mut device_tlb = place.device_tlb;
        match kind {
            Kind::Device => {
                let entry = lower(old);
                needs.push(Need::Device(place.source));
                // What was not translated has left nothing behind.
                if entry.valid() && entry.translation_valid() {
                    device_tlb |= entry.iotlb();
                    let domain = DomainId(entry.domain());
                    needs.push(pages(domain, None, true, true));
                    if entry.guest_valid() {
                        needs.push(pages(domain, Some(place.pasid.unwrap_or(Pasid(0))), true, true));
                    }
                }
            }
            Kind::Host { .. } => needs.push(pages(place.domain, None, false, !is_leaf(kind, low))),
            Kind::GuestRoot => needs.push(pages(place.domain, place.pasid, true, true)),
            Kind::Guest { .. } => needs.push(pages(place.domain, place.pasid, false, !is_leaf(kind, low))),
        }
        if device_tlb {
            let whole = matches!(kind, Kind::Device | Kind::GuestRoot);
            let (first, span_bytes) = if whole { (Iova(0), 0) } else { (place.first, place.span_bytes) };
            needs.push(Need::DeviceTlb { source: place.source, pasid: place.pasid, first, span_bytes });
        }
        needs
    }

    fn caches_absence(&self, kind: Kind) -> bool {
        kind == Kind::Device || self.caches_absence
    }

    fn covers(&self, command: &Command, need: &Need) -> bool {
        match (*command, *need) {
            (Command::Unit(Invalidation::All), need) => !matches!(need, Need::DeviceTlb { .. }),
            (Command::Unit(Invalidation::Device(named)), Need::Device(source)) => named == source,
            (Command::Unit(Invalidation::Pages(scope)), Need::Pages { domain, pasid, first, span_bytes, non_leaf }) => {
                let PagesScope { domain: named, pasid: one, range, directories } = scope;
                named == domain && one == pasid && (directories || !non_leaf) && range.holds(first, span_bytes)
            }
            (Command::Device(command), Need::DeviceTlb { source, pasid, first, span_bytes }) => {
                command.source == source && (command.every_pasid || command.pasid == pasid) && command.range.holds(first, span_bytes)
            }
            _ => false,
        }
    }

    fn waits_between(&self, _: &Need, _: &Need) -> bool {
        self.wait_between
    }

    fn needs_flush(&self) -> bool {
        self.flush
    }

    fn targets(&self, kind: Kind, words: &[u64]) -> Targets {
        if !self.is_present(kind, words) {
            return Targets::new();
        }
        match kind {
            Kind::Device => {
                let entry = lower(words);
                let host = (entry.mode() != 0).then(|| entry.root());
                let guest = entry.guest_valid().then(|| entry.guest_root());
                host.into_iter().chain(guest).map(Frames::one).collect()
            }
            Kind::Host { level } => {
                let entry = HostEntry::from_bits(words[0]);
                let pages = match entry.next_level() {
                    NEXT_LEAF => level_pages(level),
                    // Half of the size is where the lowest 0 is.
                    NEXT_SIZED => 2 << entry.frame().trailing_ones().min(LEVEL_BITS * 6),
                    _ => 1,
                };
                smallvec![aligned(entry.frame(), pages)]
            }
            Kind::GuestRoot => smallvec![Frames::one(GuestCr3Entry::from_bits(words[0]).frame())],
            Kind::Guest { level } => {
                let pages = if is_leaf(kind, words[0]) { level_pages(level) } else { 1 };
                smallvec![aligned(GuestEntry::from_bits(words[0]).frame(), pages)]
            }
        }
    }
}

/// Frames that a leaf of a level maps.
fn level_pages(level: u8) -> u64 {
    1 << (LEVEL_BITS * u32::from(level.clamp(1, 6) - 1))
}

const fn aligned(frame: u64, pages: u64) -> Frames {
    Frames { first: Pfn(frame & !(pages - 1)), count: pages }
}
