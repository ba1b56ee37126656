//! The rules of SMMUv3 for the slot automaton.
//!
//! Sources: IHI 0070, section 3.21 (structure access rules and update procedures) and chapter 4 (commands); DDI 0487, chapter
//! D8, "Using break-before-make when updating translation table entries"; what Linux 7.3 makes of them in
//! `arm_smmu_write_entry`, `arm_smmu_get_ste_used`, `arm_smmu_get_cd_used` and `arm_smmu_domain_inv_range`.
//!
//! | entry | needs when it was valid, outermost first |
//! | --- | --- |
//! | level-1 stream descriptor | CFGI_STE of all its streams without Leaf, or CFGI_ALL |
//! | STE | CFGI_STE; with stage 2, TLBI_S12_VMALL |
//! | level-1 CD | CFGI_CD_ALL, or CFGI_STE |
//! | CD | CFGI_CD, TLBI_NH_ASID |
//! | stage 1 | TLBI_NH_VA or VAA; Leaf = 0 for a table |
//! | stage 2 | TLBI_S2_IPA; Leaf = 0 for a table; under a stage 1, TLBI_NH_ALL after it |
//!
//! ATC_INV comes last, where a device may translate for itself. A CMD_SYNC completes each stage before the next one is issued:
//! so Linux does it everywhere; whether the queue itself keeps the order is not verified. It waits for accesses too, and
//! so is [`Event::Waited`](super::Event::Waited).
//!
//! - STE and CD are read in pieces of 64 bits, at any time, valid or not. What a valid one says may change in one store of
//!   one word; the words that the new meaning is made of must be stored, cleaned and waited for before. What needs
//!   more than one such word needs V = 0 first, and V = 1 last, each cleaned and waited for.
//! - An invalid entry of either table may be cached: a fresh one owes an invalidation.
//! - An invalid descriptor, or one that faults, is never cached: a fresh one owes nothing.
//! - A valid descriptor whose output address, memory type, shareability or globality changes must be invalid and clean in
//!   between (break before make). So must one whose size changes, unless the unit does without (IDR3.BBML = 2).
//! - A pointer to another table of the same level is no change of size: it owes an invalidation and no break.
//!
//! MEV does not count (IHI 0070: records may be merged without it), nor do the attributes of table walks and execution.

mod need;
mod used;

use super::{Change, Frames, Needs, Rules, Targets};
use crate::addr::{Bdf, Iova, PAGE_SHIFT, Pasid, Pfn};
use crate::ats::DeviceInvalidation;
use crate::smmu::{Asid, Invalidation, StreamId, Vmid};
use crate::spec::smmu::context::{CONTEXT_BYTES, Context0, ContextLevel1, ContextTable};
use crate::spec::smmu::descriptor::{DESCRIPTOR_SHIFT, Descriptor, LAST_LEVEL, Stage1Leaf, Stage1Table, Stage2Leaf};
use crate::spec::smmu::stream::{
    CONFIG_HAS_STAGE_1, CONFIG_HAS_STAGE_2, CONFIG_NESTED, CONFIG_PASSES, FORMAT_2_LEVEL_4K, FORMAT_2_LEVEL_64K, SPAN_MAX,
    STREAM_ENTRY_BYTES, StreamEntry0, StreamEntry2, StreamEntry3, StreamLevel1,
};
pub use need::Need;
use need::covers;
use smallvec::smallvec;
use used::{could_count, counts, differing};

/// Kinds of entries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// Level-1 stream table descriptor.
    StreamLevel1,
    /// Stream table entry.
    Stream,
    /// Level-1 context descriptor.
    ContextLevel1,
    /// Context descriptor.
    Context,
    /// Stage-1 descriptor.
    Stage1 {
        /// 0 to 3; 3 maps a granule.
        level: u8,
        /// log2 of the granule.
        granule: u8,
    },
    /// Stage-2 descriptor.
    Stage2 {
        /// 0 to 3; 3 maps a granule.
        level: u8,
        /// log2 of the granule.
        granule: u8,
    },
}

/// Where an entry stands: what caches tag it with, as far as its words do not say so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The stream of an STE or CD; the first of those behind a level-1 descriptor.
    pub stream: StreamId,
    /// Index of a CD.
    pub substream: Pasid,
    /// The VMID that a CD or descriptor belongs to.
    pub vmid: Vmid,
    /// The ASID that a stage-1 descriptor belongs to.
    pub asid: Asid,
    /// A stage 1 lies above this stage-2 descriptor.
    pub nested: bool,
    /// First address that a descriptor maps or leads to.
    pub first: Iova,
    /// Bytes that it maps or leads to.
    pub span_bytes: u64,
    /// The function that may keep what the entry maps in a device TLB.
    pub device_tlb: Option<Bdf>,
}

/// What software can issue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// To the SMMU.
    Unit(Invalidation),
    /// CMD_ATC_INV.
    Device(DeviceInvalidation),
}

/// The rules of one unit.
#[derive(Clone, Copy, Debug)]
pub struct SmmuRules {
    /// Stores must be flushed: IDR0.COHACC = 0.
    pub flush: bool,
    /// IDR3.BBML = 2: sizes may change without a break.
    pub no_break: bool,
}

/// Level and granule of a descriptor.
const fn shape(kind: Kind) -> Option<(u8, u8)> {
    match kind {
        Kind::Stage1 { level, granule } | Kind::Stage2 { level, granule } => Some((level, granule)),
        _ => None,
    }
}

fn is_leaf(level: u8, word: u64) -> bool {
    level == LAST_LEVEL || !Descriptor::from_bits(word).table_or_page()
}

/// log2 of what a descriptor of a level maps.
const fn level_shift(level: u8, granule: u8) -> u8 {
    granule + LAST_LEVEL.saturating_sub(level) * (granule - DESCRIPTOR_SHIFT)
}

impl SmmuRules {
    /// What the change of a valid descriptor to another valid one is.
    fn change_descriptor(self, kind: Kind, level: u8, old: u64, new: u64) -> Change {
        let [old, new] = [old, new].map(|word| word & counts(kind, &[word])[0]);
        if is_leaf(level, old) != is_leaf(level, new) {
            return if self.no_break { Change::Alters } else { Change::Tears };
        }
        if !is_leaf(level, old) {
            // Limits that a table descriptor of stage 1 sets for what is below may be lifted.
            let limits = Stage1Table::new().with_no_execute(3).with_no_unprivileged(true).with_read_only(true).into_bits();
            let lifted = matches!(kind, Kind::Stage1 { .. }) && old ^ new == old & !new & limits;
            return if lifted { Change::Widens } else { Change::Alters };
        }
        let descriptor = Descriptor::from_bits(old ^ new);
        let (broken, denies, grants) = match kind {
            Kind::Stage2 { .. } => {
                let leaf = Stage2Leaf::from_bits(old ^ new);
                let broken = leaf.memory_attributes() != 0 || leaf.shareability() != 0;
                let grants = Stage2Leaf::new().with_readable(true).with_writable(true).with_accessed(true).with_dirty_bit_modifier(true);
                (broken, Stage2Leaf::new().with_no_execute(3).into_bits(), grants.into_bits())
            }
            _ => {
                let leaf = Stage1Leaf::from_bits(old ^ new);
                let broken = leaf.attribute_index() != 0 || leaf.shareability() != 0 || leaf.not_global() || leaf.non_secure();
                let denies = Stage1Leaf::new().with_no_execute(3).with_read_only(true).into_bits();
                let grants = Stage1Leaf::new().with_unprivileged(true).with_accessed(true).with_dirty_bit_modifier(true);
                (broken, denies, grants.into_bits())
            }
        };
        if broken || descriptor.frame() != 0 || (descriptor.contiguous() && !self.no_break) {
            return Change::Tears;
        }
        let (lost, won) = (old & !new, new & !old);
        if lost & !denies == 0 && won & !grants == 0 { Change::Widens } else { Change::Alters }
    }
}

impl Rules for SmmuRules {
    type Kind = Kind;
    type Place = Place;
    type Need = Need;
    type Command = Command;

    fn words(&self, kind: Kind) -> usize {
        match kind {
            Kind::Stream => (STREAM_ENTRY_BYTES / 8) as usize,
            Kind::Context => (CONTEXT_BYTES / 8) as usize,
            _ => 1,
        }
    }

    fn is_present(&self, kind: Kind, words: &[u64]) -> bool {
        let low = words.first().copied().unwrap_or(0);
        match kind {
            Kind::StreamLevel1 => (1..=SPAN_MAX).contains(&StreamLevel1::from_bits(low).span()),
            Kind::Stream => StreamEntry0::from_bits(low).valid(),
            Kind::ContextLevel1 => ContextLevel1::from_bits(low).valid(),
            Kind::Context => Context0::from_bits(low).valid(),
            Kind::Stage1 { level, .. } | Kind::Stage2 { level, .. } => {
                let descriptor = Descriptor::from_bits(low);
                descriptor.valid() && (level != LAST_LEVEL || descriptor.table_or_page())
            }
        }
    }

    fn change(&self, kind: Kind, old: &[u64], new: &[u64], _: usize) -> Change {
        match (self.is_present(kind, old), self.is_present(kind, new)) {
            (false, false) if differing(old, new, could_count(kind, new)) == 0 => Change::Nothing,
            (false, false) => Change::Prepares,
            (false, true) => Change::Sets,
            (true, false) => Change::Clears,
            (true, true) => {
                let used = differing(old, new, counts(kind, old)).max(differing(old, new, counts(kind, new)));
                let could = differing(old, new, could_count(kind, new));
                match (shape(kind), used) {
                    (_, 0) if could == 0 => Change::Nothing,
                    (None, 0) => Change::Readies,
                    (Some((level, _)), _) => self.change_descriptor(kind, level, old[0], new[0]),
                    (None, 1) => Change::Switches,
                    (None, _) => Change::Tears,
                }
            }
        }
    }

    fn needs(&self, kind: Kind, place: &Place, old: &[u64]) -> Needs<Need> {
        let low = old.first().copied().unwrap_or(0);
        let stream = place.stream;
        let pages = |asid, global, level, granule, non_leaf| {
            let (vmid, first, span_bytes) = (place.vmid, place.first, place.span_bytes);
            Need::Pages { vmid, asid, global, first, span_bytes, level, granule, non_leaf }
        };
        let mut needs: Needs<Need> = match kind {
            Kind::StreamLevel1 => {
                let span = StreamLevel1::from_bits(low).span().clamp(1, SPAN_MAX) - 1;
                smallvec![Need::Streams { first: stream, last: StreamId(stream.0 | ((1 << span) - 1)), level_1: true }]
            }
            Kind::Stream => {
                let entry = StreamEntry0::from_bits(low);
                let mut needs: Needs<Need> = smallvec![Need::Streams { first: stream, last: stream, level_1: false }];
                if entry.valid() && entry.config() & CONFIG_NESTED > CONFIG_PASSES {
                    let vmid = Vmid(StreamEntry2::from_bits(old.get(2).copied().unwrap_or(0)).vmid());
                    // What a CD tags is its own affair; what stage 2 tags, alone or joined, has the VMID.
                    if entry.config() & CONFIG_HAS_STAGE_2 != 0 {
                        needs.push(Need::Vmid(vmid));
                    }
                }
                needs
            }
            Kind::ContextLevel1 => smallvec![Need::Contexts(stream)],
            Kind::Context => {
                let entry = Context0::from_bits(low);
                let mut needs: Needs<Need> = smallvec![Need::Context { stream, substream: place.substream }];
                if entry.valid() {
                    needs.push(Need::Asid(place.vmid, Asid(entry.asid())));
                }
                needs
            }
            Kind::Stage1 { level, granule } => {
                let leaf = is_leaf(level, low);
                let global = leaf && !Stage1Leaf::from_bits(low).not_global();
                smallvec![pages(Some(place.asid), global, level, granule, !leaf)]
            }
            Kind::Stage2 { level, granule } => {
                let mut needs: Needs<Need> = smallvec![pages(None, false, level, granule, !is_leaf(level, low))];
                if place.nested {
                    needs.push(Need::Stage1(place.vmid));
                }
                needs
            }
        };
        if let Some(source) = place.device_tlb {
            // Behind a stage 1 the device knows virtual addresses, and which of them an IPA is behind nobody knows.
            let whole = shape(kind).is_none() || (place.nested && matches!(kind, Kind::Stage2 { .. }));
            let (first, span_bytes) = if whole { (Iova(0), 0) } else { (place.first, place.span_bytes) };
            needs.push(Need::Device { source, first, span_bytes });
        }
        needs
    }

    fn caches_absence(&self, kind: Kind) -> bool {
        shape(kind).is_none()
    }

    fn reads_apart(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Stream | Kind::Context)
    }

    fn covers(&self, command: &Command, need: &Need) -> bool {
        match (*command, *need) {
            (Command::Device(command), Need::Device { source, first, span_bytes }) => {
                command.source == source && command.range.holds(first, span_bytes)
            }
            (Command::Unit(command), need) => covers(command, need),
            _ => false,
        }
    }

    fn waits_between(&self, _: &Need, _: &Need) -> bool {
        true
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
            Kind::StreamLevel1 => {
                let entry = StreamLevel1::from_bits(word(0));
                smallvec![frames(entry.table() * UNIT_64, STREAM_ENTRY_BYTES << (entry.span() - 1))]
            }
            Kind::Stream => {
                let entry = StreamEntry0::from_bits(word(0));
                let mut targets = Targets::new();
                if entry.config() & (CONFIG_PASSES | CONFIG_HAS_STAGE_1) == CONFIG_PASSES | CONFIG_HAS_STAGE_1 {
                    let contexts = 1u64 << entry.context_bits();
                    let bytes = match entry.format() {
                        FORMAT_2_LEVEL_4K if entry.context_bits() != 0 => contexts.div_ceil(64) * 8,
                        FORMAT_2_LEVEL_64K if entry.context_bits() != 0 => contexts.div_ceil(1024) * 8,
                        _ => contexts * CONTEXT_BYTES,
                    };
                    targets.push(frames(entry.context() * UNIT_64, bytes));
                }
                if entry.config() & (CONFIG_PASSES | CONFIG_HAS_STAGE_2) == CONFIG_PASSES | CONFIG_HAS_STAGE_2 {
                    targets.push(frames(StreamEntry3::from_bits(word(3)).table() * UNIT_16, 1));
                }
                targets
            }
            Kind::ContextLevel1 => smallvec![Frames::one(ContextLevel1::from_bits(word(0)).table())],
            Kind::Context => {
                let entry = Context0::from_bits(word(0));
                let halves = [(!entry.disable_0(), word(1)), (!entry.disable_1(), word(2))];
                let used = halves.into_iter().filter(|(used, _)| *used);
                used.map(|(_, word)| frames(ContextTable::from_bits(word).table() * UNIT_16, 1)).collect()
            }
            Kind::Stage1 { level, granule } | Kind::Stage2 { level, granule } => {
                let leaf = is_leaf(level, word(0));
                let bytes = 1u64 << if leaf { level_shift(level, granule) } else { granule };
                let first = Descriptor::from_bits(word(0)).frame() << PAGE_SHIFT;
                smallvec![frames(first & !(bytes - 1), bytes)]
            }
        }
    }
}

/// Bytes of a unit of the address in an STE or level-1 descriptor.
const UNIT_64: u64 = 64;
/// Bytes of a unit of a table's address in an STE or CD.
const UNIT_16: u64 = 16;

/// Frames that hold these bytes.
const fn frames(first: u64, bytes: u64) -> Frames {
    let frame = first >> PAGE_SHIFT;
    Frames { first: Pfn(frame), count: ((first + bytes - 1) >> PAGE_SHIFT) - frame + 1 }
}
