//! Where QEMU is known to answer otherwise, and why.
//!
//! A check that QEMU does not make, or makes later, is taken away from the model by making the words right that it
//! objects to. Only if the model then says what QEMU said is the difference explained.

use super::machine::LAYOUT;
use super::{Mode, Vtd};
use crate::architecture::{Architecture, Difference, Outcome, Request, Side};
use crate::memory::{Place, TableMemory, Word};
use iommu_model::FaultReason;
use iommu_model::FetchKind;
use iommu_model::spec::vtd::context::{AW_48, ContextEntry, TT_PASS_THROUGH};
use iommu_model::spec::vtd::first_stage::FirstStageEntry;
use iommu_model::spec::vtd::pasid::{PGTT_PASS_THROUGH, PasidDirectoryEntry, PasidEntryFirstStage, PasidEntryLow};
use iommu_model::spec::vtd::root::ScalableRootEntry;
use iommu_model::spec::vtd::second_stage::SecondStageEntry;

const LEGACY_CODES: Difference = Difference {
    name: "legacy codes in scalable mode",
    reason: "QEMU reports faults of the root entry, the context entry and the second stage with the codes of legacy mode",
    side: Side::Model,
};
const TOP_TABLE: Difference = Difference {
    name: "top table cannot be read",
    reason: "QEMU blames the context entry (0x03) where the second-stage table that it leads to cannot be read",
    side: Side::Open,
};
const PASS_THROUGH_WIDTH: Difference = Difference {
    name: "width of pass-through",
    reason: "QEMU passes any address through; the model holds it to MGAW (0x04) or the host address width (0x83)",
    side: Side::Model,
};
const DIRECTORY_RESERVED: Difference = Difference {
    name: "reserved bits of a directory entry",
    reason: "QEMU does not look at them, nor whether the pointer is within the host address width",
    side: Side::Model,
};
const PASID_RESERVED: Difference = Difference {
    name: "reserved bits of a PASID entry",
    reason: "QEMU does not look at them, nor whether the pointer is within the host address width",
    side: Side::Model,
};
const PASID_PRESENT: Difference = Difference {
    name: "PASID entry neither present nor valid",
    reason: "QEMU looks at PGTT (0x5b) before it looks at P (0x59)",
    side: Side::Model,
};
const ROOT_HALVES: Difference = Difference {
    name: "other half of a scalable root entry",
    reason: "QEMU objects to reserved bits (0x0a) in the half that the request does not use, too",
    side: Side::Open,
};
const SNOOP: Difference = Difference {
    name: "SNP in scalable mode",
    reason: "QEMU accepts SNP in second-stage leaves of scalable mode though ECAP.SC is 0",
    side: Side::Model,
};
const FIRST_WIDTH: Difference = Difference {
    name: "width of the first stage",
    reason: "QEMU takes AW, the width of the second stage, for that of the first, too (0x80)",
    side: Side::Model,
};
const FIRST_ORDER: Difference = Difference {
    name: "reserved bits or rights first",
    reason: "QEMU looks at U/S (0x81) and R/W (0x85) of a first-stage entry before its reserved bits (0x72)",
    side: Side::Open,
};
const FAULT_DISABLE: Difference = Difference {
    name: "FPD above an invalid PASID entry",
    reason: "QEMU reports that the entry is not present or invalid before it looks at FPD in it and in its directory entry",
    side: Side::Model,
};
const WALK_SNOOP: Difference =
    Difference { name: "updates without snoop", reason: "QEMU sets A and D whether or not PWSNP lets it (0x90)", side: Side::Model };
const DIRTY: Difference = Difference {
    name: "one of A and D already set",
    reason: "QEMU then leaves a leaf that is written through as it is, instead of setting the other; corrected after 11.1",
    side: Side::Model,
};

pub(super) const ALL: [Difference; 13] = [
    LEGACY_CODES,
    TOP_TABLE,
    PASS_THROUGH_WIDTH,
    DIRECTORY_RESERVED,
    PASID_RESERVED,
    PASID_PRESENT,
    ROOT_HALVES,
    SNOOP,
    FIRST_WIDTH,
    FIRST_ORDER,
    FAULT_DISABLE,
    WALK_SNOOP,
    DIRTY,
];

/// Checks that may have to be taken away one after another.
const STEPS_MAX: usize = 6;

pub(super) fn explain(vtd: &mut Vtd, request: Request, image: &mut TableMemory, ours: Outcome, theirs: Outcome) -> Option<Difference> {
    let (mut ours, mut request) = (ours, request);
    let mut why = None;
    vtd.reset();
    vtd.translate(request, image);
    for _ in 0..STEPS_MAX {
        if let Some(same) = same(vtd, request, &image.trail, ours, theirs) {
            return why.or(same);
        }
        let by = match theirs {
            Outcome::Blocked(code) if code == code_of(FaultReason::ROOT_RESERVED) => return other_half(vtd, &image.trail),
            Outcome::Blocked(code) if code == code_of(FaultReason::NOT_CANONICAL) => return narrow(vtd, request, &image.trail),
            _ => heal(vtd, &mut request, image, ours)?,
        };
        why = why.or(Some(by));
        vtd.reset();
        ours = vtd.translate(request, image).outcome;
    }
    None
}

const fn code_of(reason: FaultReason) -> u16 {
    reason.0 as u16
}

/// Whether both say the same in other words; if so, which difference that is, if any.
fn same(vtd: &Vtd, request: Request, trail: &[Word], ours: Outcome, theirs: Outcome) -> Option<Option<Difference>> {
    match (ours, theirs) {
        _ if ours == theirs => Some(None),
        (Outcome::Passed(pa), Outcome::Passed(_)) => (request.write || LAYOUT.place(pa) != Place::Data).then_some(None),
        // Nobody is told of it; a read that gets 0 was blocked.
        (Outcome::Silent, Outcome::Passed(pa)) => (request.write || pa == 0).then_some(None),
        (Outcome::Blocked(ours), Outcome::Blocked(theirs)) => {
            let (ours, theirs) = (FaultReason(ours as u8), FaultReason(theirs as u8));
            let unread = matches!(ours, FaultReason::TABLE_FETCH | FaultReason::SECOND_FETCH);
            if unread && theirs == FaultReason::CONTEXT_INVALID {
                return Some(Some(TOP_TABLE));
            }
            (legacy_reason(ours, request) == Some(theirs)).then_some(Some(LEGACY_CODES))
        }
        (Outcome::Blocked(ours), Outcome::Passed(_)) => {
            let ours = FaultReason(ours as u8);
            let width = matches!(ours, FaultReason::BEYOND_WIDTH | FaultReason::BEYOND_DMA_WIDTH);
            (width && passes_through(vtd, trail)).then_some(Some(PASS_THROUGH_WIDTH))
        }
        _ => None,
    }
}

/// Whether the context entry, or in scalable mode the PASID entry, lets addresses pass through.
fn passes_through(vtd: &Vtd, trail: &[Word]) -> bool {
    let word = |place: usize| trail.get(place).map_or(0, |(_, value)| u128::from(*value));
    match vtd.is_scalable() {
        true => PasidEntryLow::from_bits(word(vtd.shared_words() - 8)).translation_type() == PGTT_PASS_THROUGH,
        false => ContextEntry::from_bits(word(2)).translation_type() == TT_PASS_THROUGH,
    }
}

/// The legacy reason for what scalable mode tells as another one.
const fn legacy_reason(reason: FaultReason, request: Request) -> Option<FaultReason> {
    Some(match reason {
        FaultReason::SCALABLE_ROOT_FETCH => FaultReason::ROOT_FETCH,
        FaultReason::SCALABLE_ROOT_NOT_PRESENT => FaultReason::ROOT_NOT_PRESENT,
        FaultReason::SCALABLE_ROOT_RESERVED => FaultReason::ROOT_RESERVED,
        FaultReason::SCALABLE_CONTEXT_FETCH => FaultReason::CONTEXT_FETCH,
        FaultReason::SCALABLE_CONTEXT_NOT_PRESENT => FaultReason::CONTEXT_NOT_PRESENT,
        FaultReason::SCALABLE_CONTEXT_RESERVED => FaultReason::CONTEXT_RESERVED,
        FaultReason::BEYOND_SECOND_WIDTH => FaultReason::BEYOND_WIDTH,
        FaultReason::SECOND_FETCH => FaultReason::TABLE_FETCH,
        FaultReason::SECOND_RESERVED => FaultReason::TABLE_RESERVED,
        FaultReason::SCALABLE_NO_WRITE => FaultReason::NO_WRITE,
        FaultReason::SCALABLE_NO_READ => FaultReason::NO_READ,
        FaultReason::SECOND_NOT_PRESENT if request.write => FaultReason::NO_WRITE,
        FaultReason::SECOND_NOT_PRESENT => FaultReason::NO_READ,
        _ => return None,
    })
}

/// Takes the check away that the model's last answer came from.
fn heal(vtd: &Vtd, request: &mut Request, image: &mut TableMemory, ours: Outcome) -> Option<Difference> {
    if ours == Outcome::Silent && vtd.is_scalable() {
        // FPD is bit 1 of the directory entry and of the PASID entry, which follow one another.
        let entries = image.trail.get(vtd.shared_words() - 9..)?.iter().take(2).copied().collect::<Vec<_>>();
        for ((pa, value), kind) in entries.into_iter().zip([FetchKind::PasidDirectory, FetchKind::PasidEntry]) {
            image.amend_as(pa, kind, PasidDirectoryEntry::from_bits(value).with_fault_disable(false).into_bits());
        }
        return Some(FAULT_DISABLE);
    }
    let Outcome::Blocked(code) = ours else { return None };
    let last = |nr_words: usize| image.trail.len().checked_sub(nr_words).map(|first| image.trail[first..].to_vec());
    let fits = |frame: u64| frame >> 36 == 0;
    let nowhere = LAYOUT.void >> 12;
    match FaultReason(code as u8) {
        FaultReason::DIRECTORY_RESERVED => {
            let (pa, value) = last(1)?[0];
            let entry = PasidDirectoryEntry::from_bits(value).with_reserved(0);
            let entry = if fits(entry.table()) { entry } else { entry.with_table(nowhere) };
            image.amend_as(pa, FetchKind::PasidDirectory, entry.into_bits());
            Some(DIRECTORY_RESERVED)
        }
        FaultReason::PASID_RESERVED => {
            let words = last(8)?;
            let low = PasidEntryLow::from_bits(u128::from(words[0].1) | u128::from(words[1].1) << 64);
            let low = low.with_reserved_10(0).with_reserved_80(0);
            let low = if fits(low.second_stage()) { low } else { low.with_second_stage(nowhere) }.into_bits();
            let first = PasidEntryFirstStage::from_bits(words[2].1).with_reserved_136(0);
            let first = if fits(first.first_stage()) { first } else { first.with_first_stage(nowhere) };
            for (n, value) in [low as u64, (low >> 64) as u64, first.into_bits(), 0, 0, 0, 0, 0].into_iter().enumerate() {
                image.amend_as(words[n].0, FetchKind::PasidEntry, value);
            }
            Some(PASID_RESERVED)
        }
        FaultReason::PASID_NOT_PRESENT => {
            let (pa, value) = last(8)?[0];
            image.amend_as(pa, FetchKind::PasidEntry, value | 1);
            Some(PASID_PRESENT)
        }
        FaultReason::SECOND_RESERVED => {
            let (pa, value) = last(1)?[0];
            let entry = SecondStageEntry::from_bits(value);
            image.amend(pa, entry.with_snoop(false).into_bits());
            entry.snoop().then_some(SNOOP)
        }
        FaultReason::FIRST_RESERVED => {
            let (pa, value) = last(1)?[0];
            let entry = FirstStageEntry::from_bits(value).with_page_size(false).with_frame(nowhere);
            image.amend(pa, entry.into_bits());
            Some(FIRST_ORDER)
        }
        FaultReason::FIRST_UPDATE_NO_SNOOP => {
            let (pa, value) = *image.trail.get(vtd.shared_words() - 7..)?.first()?;
            let low = PasidEntryLow::from_bits(u128::from(value) << 64).with_walk_snoop(true);
            image.amend_as(pa, FetchKind::PasidEntry, (low.into_bits() >> 64) as u64);
            Some(WALK_SNOOP)
        }
        FaultReason::NOT_CANONICAL if first_stage_width(vtd, &image.trail)? > AW_48 => {
            let unused = u64::BITS - 48;
            request.iova = ((request.iova << unused) as i64 >> unused) as u64;
            Some(FIRST_WIDTH)
        }
        _ => None,
    }
}

/// AW of the PASID entry that a first-stage walk has read.
fn first_stage_width(vtd: &Vtd, trail: &[Word]) -> Option<u8> {
    let entry = trail.get(vtd.shared_words() - 8..)?.first()?.1;
    (vtd.mode == Mode::First).then(|| PasidEntryLow::from_bits(u128::from(entry)).address_width())
}

/// Why QEMU finds an address not canonical.
fn narrow(vtd: &Vtd, request: Request, trail: &[Word]) -> Option<Difference> {
    let unused = u64::BITS - (30 + 9 * u32::from(first_stage_width(vtd, trail)?));
    let canonical = ((request.iova << unused) as i64 >> unused) as u64 == request.iova;
    (!canonical).then_some(FIRST_WIDTH)
}

/// Why QEMU finds reserved bits in a root entry.
fn other_half(vtd: &Vtd, trail: &[Word]) -> Option<Difference> {
    let (low, high) = (trail.first()?.1, trail.get(1)?.1);
    let entry = ScalableRootEntry::from_bits(u128::from(low) | u128::from(high) << 64);
    (vtd.is_scalable() && (entry.reserved_65() != 0 || entry.upper() >> 36 != 0)).then_some(ROOT_HALVES)
}

pub(super) fn explain_word(ours: u64, theirs: u64) -> Option<Difference> {
    let entry = FirstStageEntry::from_bits(theirs);
    let one_of_two = entry.accessed() != entry.dirty();
    (one_of_two && entry.with_accessed(true).with_dirty(true).into_bits() == ours).then_some(DIRTY)
}
