//! The rules of the RISC-V IOMMU for the slot automaton.
//!
//! Source: the specification's software guidelines, "Guidelines for invalidations" and "Caching invalid entries", and the rules
//! of in-memory data structures ("Caching in-memory data structures").
//!
//! | entry | needs when it was valid, outermost first |
//! | --- | --- |
//! | non-leaf DDT | IODIR.INVAL_DDT without DV |
//! | device context, second stage on | IODIR.INVAL_DDT of the device; IOTINVAL.VMA and IOTINVAL.GVMA of all of the GSCID |
//! | device context, process directory | IODIR.INVAL_DDT of the device; IOTINVAL.VMA of everything of the host |
//! | device context, first stage only | IODIR.INVAL_DDT of the device; IOTINVAL.VMA of the PSCID |
//! | non-leaf PDT | IODIR.INVAL_DDT of the device |
//! | process context | IODIR.INVAL_PDT; IOTINVAL.VMA of its PSCID, within the GSCID if there is one |
//! | MSI page table | IOTINVAL.GVMA of the GSCID, and of the address or all |
//! | second stage | IOTINVAL.GVMA of the GSCID; of all addresses (or with NL) for a pointer |
//! | first stage | IOTINVAL.VMA, within the GSCID if there is one; of all addresses (or with NL) for a pointer |
//!
//! ATS.INVAL comes last, where a device may translate for itself; IOTINVAL must be complete before it is sent. IOFENCE.C
//! completes what was issued before: with PR and PW it is [`Event::Waited`](super::Event::Waited), without them
//! [`Event::Completed`](super::Event::Completed), which is enough to use an entry again and not enough to give memory away.
//! Whether IODIR must be complete before IOTINVAL is sent is not said; here it need not be.
//!
//! - V = 0 is never cached: a fresh entry owes nothing.
//! - A context may be read in pieces: what is valid must be cleared by its first word before anything else changes.
//! - The only change of a valid page-table entry is one of its size, to one that says the same; A and D may be cleared,
//!   which owes an invalidation, and set. More or less permission in place is no such change.

use super::{Change, Frames, Needs, Rules, Targets};
use crate::addr::{Bdf, Iova, PAGE_SIZE, Pasid, Pfn};
use crate::ats::DeviceInvalidation;
use crate::riscv::{AddressRange, DeviceId, Gscid, GvmaScope, Invalidation, Pscid, VmaScope};
use crate::spec::riscv::device_context::{
    BASE_CONTEXT_BYTES, DirectoryEntry, EXTENDED_CONTEXT_BYTES, MODE_BARE, MODE_MSI_OFF, SecondStagePointer, TablePointer,
    TranslationAttributes, TranslationControl,
};
use crate::spec::riscv::msi::{MSI_ENTRY_BYTES, MSI_MODE_BASIC, MsiEntryBasic, MsiEntryMrif};
use crate::spec::riscv::paging::{LEVEL_BITS, NAPOT_64K_FRAMES, PageTableEntry, SECOND_STAGE_ROOT_FRAMES};
use crate::spec::riscv::process_context::{PROCESS_CONTEXT_BYTES, ProcessAttributes};
use smallvec::smallvec;

/// Kinds of entries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// Non-leaf entry of the device directory.
    Directory,
    /// Device context.
    Device {
        /// Of the extended format.
        extended: bool,
    },
    /// Non-leaf entry of a process directory.
    ProcessDirectory,
    /// Process context.
    Process,
    /// Entry of an MSI page table.
    Message,
    /// Page-table entry of the first stage.
    First {
        /// 0 maps 4 KiB.
        level: u8,
    },
    /// Page-table entry of the second stage.
    Second {
        /// 0 maps 4 KiB.
        level: u8,
    },
}

/// Where an entry stands: what caches tag it with, as far as its words do not say so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The device of a context; for others, one that uses the tables.
    pub device: DeviceId,
    /// Index of a process context.
    pub process: Pasid,
    /// The guest that page tables and process contexts belong to; none for the host.
    pub gscid: Option<Gscid>,
    /// The address space of a first-stage entry.
    pub pscid: Pscid,
    /// First address that a page-table entry maps or leads to.
    pub first: Iova,
    /// Bytes that it maps or leads to.
    pub span_bytes: u64,
    /// The function that may keep what the entry maps in a device TLB.
    pub device_tlb: Option<Bdf>,
}

/// A cache to clean, and of what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// Directory caches: of one device, or all.
    Directory(Option<DeviceId>),
    /// Directory caches: one process context.
    Process(DeviceId, Pasid),
    /// First-stage translations.
    First {
        /// Of a guest; else of the host.
        gscid: Option<Gscid>,
        /// Of one address space; else of all.
        pscid: Option<Pscid>,
        /// First address and bytes; none for all.
        pages: Option<(Iova, u64)>,
        /// It may be cached for every address space.
        global: bool,
        /// A pointer changed.
        non_leaf: bool,
    },
    /// Second-stage translations.
    Second {
        /// Of this guest.
        gscid: Gscid,
        /// First guest-physical address and bytes; none for all.
        pages: Option<(Iova, u64)>,
        /// A pointer changed.
        non_leaf: bool,
    },
    /// Device TLB of a function.
    DeviceTlb {
        /// The function.
        source: Bdf,
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
    /// ATS.INVAL.
    Device(DeviceInvalidation),
}

/// The rules of one unit.
#[derive(Clone, Copy, Debug)]
pub struct RiscvRules {
    /// Stores must be flushed: the unit's table reads are not coherent.
    pub flush: bool,
}

/// Whether a page-table entry is a leaf.
const fn is_leaf(entry: PageTableEntry) -> bool {
    entry.read() || entry.write() || entry.execute()
}

/// The words of a context or entry that hardware looks at, each with its bits.
fn relevant(kind: Kind, index: usize) -> u64 {
    match (kind, index) {
        (Kind::First { .. } | Kind::Second { .. }, _) => !PageTableEntry::new().with_software(3).into_bits(),
        (Kind::Device { .. }, 0) => !TranslationControl::new().with_custom(u8::MAX).into_bits(),
        // Bandwidth and capacity are no part of a translation, and the last word is reserved.
        (Kind::Device { .. }, 2) => !TranslationAttributes::new().with_rcid(0xfff).with_mcid(0xfff).into_bits(),
        (Kind::Device { .. }, 7) => 0,
        _ => u64::MAX,
    }
}

fn change_page_entry(old: u64, new: u64) -> Change {
    let (old, new) = (PageTableEntry::from_bits(old), PageTableEntry::from_bits(new));
    let plain = |entry: PageTableEntry| entry.with_accessed(false).with_dirty(false).with_software(0);
    if is_leaf(old) != is_leaf(new) || (is_leaf(old) && old.napot() != new.napot()) {
        // A change of size. That both say the same cannot be seen here.
        return Change::Alters;
    }
    if plain(old) != plain(new) {
        return Change::Tears;
    }
    let cleared = (old.accessed() && !new.accessed()) || (old.dirty() && !new.dirty());
    if cleared { Change::Alters } else { Change::Widens }
}

impl Rules for RiscvRules {
    type Kind = Kind;
    type Place = Place;
    type Need = Need;
    type Command = Command;

    fn words(&self, kind: Kind) -> usize {
        let bytes = match kind {
            Kind::Device { extended: false } => BASE_CONTEXT_BYTES,
            Kind::Device { extended: true } => EXTENDED_CONTEXT_BYTES,
            Kind::Process => PROCESS_CONTEXT_BYTES,
            Kind::Message => MSI_ENTRY_BYTES,
            Kind::Directory | Kind::ProcessDirectory | Kind::First { .. } | Kind::Second { .. } => 8,
        };
        (bytes / 8) as usize
    }

    fn is_present(&self, _: Kind, words: &[u64]) -> bool {
        // V is the same bit everywhere.
        words.first().is_some_and(|low| PageTableEntry::from_bits(*low).valid())
    }

    fn change(&self, kind: Kind, old: &[u64], new: &[u64], _: usize) -> Change {
        if (0..old.len()).all(|n| (old[n] ^ new[n]) & relevant(kind, n) == 0) {
            return Change::Nothing;
        }
        match (self.is_present(kind, old), self.is_present(kind, new)) {
            (false, false) => Change::Prepares,
            (false, true) => Change::Sets,
            (true, false) => Change::Clears,
            (true, true) if matches!(kind, Kind::First { .. } | Kind::Second { .. }) => change_page_entry(old[0], new[0]),
            (true, true) => Change::Tears,
        }
    }

    fn needs(&self, kind: Kind, place: &Place, old: &[u64]) -> Needs<Need> {
        let word = |n: usize| old.get(n).copied().unwrap_or(0);
        let gscid = place.gscid;
        let pages = Some((place.first, place.span_bytes));
        let all_first = |gscid, pscid| Need::First { gscid, pscid, pages: None, global: false, non_leaf: true };
        let mut needs: Needs<Need> = match kind {
            Kind::Directory => smallvec![Need::Directory(None)],
            Kind::Device { .. } => {
                let second = SecondStagePointer::from_bits(word(1));
                let mut needs: Needs<Need> = smallvec![Need::Directory(Some(place.device))];
                if second.mode() != MODE_BARE {
                    let gscid = Gscid(second.gscid());
                    needs.extend([all_first(Some(gscid), None), Need::Second { gscid, pages: None, non_leaf: true }]);
                } else if TranslationControl::from_bits(word(0)).process_directory() {
                    needs.push(all_first(None, None));
                } else if TablePointer::from_bits(word(3)).mode() != MODE_BARE {
                    needs.push(all_first(None, Some(Pscid(TranslationAttributes::from_bits(word(2)).pscid()))));
                }
                needs
            }
            Kind::ProcessDirectory => smallvec![Need::Directory(Some(place.device))],
            Kind::Process => {
                let pscid = Pscid(ProcessAttributes::from_bits(word(0)).pscid());
                smallvec![Need::Process(place.device, place.process), all_first(gscid, Some(pscid))]
            }
            Kind::Message => smallvec![Need::Second { gscid: gscid.unwrap_or_default(), pages, non_leaf: false }],
            Kind::First { .. } => {
                let entry = PageTableEntry::from_bits(word(0));
                let non_leaf = !is_leaf(entry);
                smallvec![Need::First { gscid, pscid: Some(place.pscid), pages, global: entry.global(), non_leaf }]
            }
            Kind::Second { .. } => {
                let non_leaf = !is_leaf(PageTableEntry::from_bits(word(0)));
                smallvec![Need::Second { gscid: gscid.unwrap_or_default(), pages, non_leaf }]
            }
        };
        if let Some(source) = place.device_tlb {
            // Which addresses of the device an address of its guest is behind, nobody knows.
            let (first, span_bytes) = if let Kind::First { .. } = kind { (place.first, place.span_bytes) } else { (Iova(0), 0) };
            needs.push(Need::DeviceTlb { source, first, span_bytes });
        }
        needs
    }

    fn caches_absence(&self, _: Kind) -> bool {
        false
    }

    fn covers(&self, command: &Command, need: &Need) -> bool {
        match (*command, *need) {
            (Command::Unit(Invalidation::Ddt(None)), Need::Directory(_) | Need::Process(..)) => true,
            (Command::Unit(Invalidation::Ddt(Some(named))), Need::Directory(Some(device)) | Need::Process(device, _)) => named == device,
            (Command::Unit(Invalidation::Pdt(named, one)), Need::Process(device, process)) => named == device && one == process,
            (Command::Unit(Invalidation::Translations), Need::First { .. } | Need::Second { .. }) => true,
            (Command::Unit(Invalidation::Vma(scope)), need @ Need::First { .. }) => covers_first(&scope, &need),
            (Command::Unit(Invalidation::Gvma(scope)), Need::Second { gscid, pages, non_leaf }) => {
                let GvmaScope { gscid: named, range, non_leaf: takes_pointers } = scope;
                named.is_none_or(|named| named == gscid) && range.is_none_or(|range| reaches(range, takes_pointers, pages, non_leaf))
            }
            (Command::Device(command), Need::DeviceTlb { source, first, span_bytes }) => {
                command.source == source && command.range.holds(first, span_bytes)
            }
            _ => false,
        }
    }

    fn waits_between(&self, _: &Need, after: &Need) -> bool {
        matches!(after, Need::DeviceTlb { .. })
    }

    fn needs_flush(&self) -> bool {
        self.flush
    }

    fn targets(&self, kind: Kind, words: &[u64]) -> Targets {
        if !self.is_present(kind, words) {
            return Targets::new();
        }
        let word = |n: usize| words.get(n).copied().unwrap_or(0);
        match kind {
            Kind::Directory | Kind::ProcessDirectory => smallvec![Frames::one(DirectoryEntry::from_bits(word(0)).ppn())],
            Kind::Device { extended } => {
                let (second, first) = (SecondStagePointer::from_bits(word(1)), TablePointer::from_bits(word(3)));
                let messages = TablePointer::from_bits(if extended { word(4) } else { 0 });
                let mut targets = Targets::new();
                if second.mode() != MODE_BARE {
                    targets.push(Frames { first: Pfn(second.ppn()), count: SECOND_STAGE_ROOT_FRAMES });
                }
                if first.mode() != MODE_BARE {
                    targets.push(Frames::one(first.ppn()));
                }
                if messages.mode() != MODE_MSI_OFF {
                    targets.push(Frames::one(messages.ppn()));
                }
                targets
            }
            Kind::Process => match TablePointer::from_bits(word(1)) {
                pointer if pointer.mode() == MODE_BARE => Targets::new(),
                pointer => smallvec![Frames::one(pointer.ppn())],
            },
            Kind::Message => match MsiEntryBasic::from_bits(word(0)) {
                entry if entry.mode() == MSI_MODE_BASIC => smallvec![Frames::one(entry.ppn())],
                // Eight files to a frame.
                _ => smallvec![Frames::one(MsiEntryMrif::from_bits(word(0)).file() >> 3)],
            },
            Kind::First { level } | Kind::Second { level } => {
                let entry = PageTableEntry::from_bits(word(0));
                let shift = match () {
                    () if !is_leaf(entry) => 0,
                    () if entry.napot() => NAPOT_64K_FRAMES,
                    () => LEVEL_BITS * u32::from(level.min(4)),
                };
                smallvec![Frames { first: Pfn(entry.ppn() >> shift << shift), count: 1 << shift }]
            }
        }
    }
}

/// Specification, table "IOTINVAL.VMA operands and operations".
fn covers_first(scope: &VmaScope, need: &Need) -> bool {
    let Need::First { gscid, pscid, pages, global, non_leaf } = *need else { return false };
    let space = match scope.pscid {
        None => true,
        // What is global stays.
        Some(named) => pscid == Some(named) && !global,
    };
    scope.gscid == gscid && space && scope.range.is_none_or(|range| reaches(range, scope.non_leaf, pages, non_leaf))
}

/// Whether a command with addresses reaches what a leaf maps, or, with NL, all that a pointer leads to.
fn reaches(range: AddressRange, takes_pointers: bool, pages: Option<(Iova, u64)>, non_leaf: bool) -> bool {
    let Some((first, span_bytes)) = pages else { return false };
    let page = first.page_number();
    let last = page + (span_bytes.max(PAGE_SIZE) / PAGE_SIZE - 1);
    if non_leaf { takes_pointers && range.first <= page && last <= range.last } else { page <= range.last && range.first <= last }
}
