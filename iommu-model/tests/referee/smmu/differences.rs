//! Where QEMU is known to answer otherwise, and why.

use super::draw::OUTPUT_SIZE_MAX;
use super::machine::LAYOUT;
use super::{Smmu, Stages};
use crate::architecture::{Architecture, Difference, Outcome, Request, Side};
use crate::memory::{Place, TableMemory, WORDS_MAX, Word};
use iommu_model::FetchKind;
use iommu_model::spec::smmu::capability::ADDRESS_SIZES;
use iommu_model::spec::smmu::context::{Context0, GRANULE_0_4K, GRANULE_0_16K, GRANULE_0_64K};
use iommu_model::spec::smmu::descriptor::{Descriptor, LAST_LEVEL, Stage1Table};
use iommu_model::spec::smmu::event::EventId;
use iommu_model::spec::smmu::stream::{
    CONFIG_HAS_STAGE_1, CONFIG_HAS_STAGE_2, CONFIG_NESTED, CONFIG_PASSES, CONFIG_STAGE_2, StreamEntry0, StreamEntry1, StreamEntry2,
    StreamEntry3, StreamLevel1,
};

const NESTED_STAGE: Difference = Difference {
    name: "stage and class of a nested fault",
    reason: "QEMU reports the same event, but tells S2 or CLASS otherwise: a table below the top counts as stage 1",
    side: Side::Model,
};
const CONTEXTS: Difference = Difference {
    name: "more than one context",
    reason: "QEMU refuses an STE with S1CDMax (0x04), though without SubstreamIDs the field does not count",
    side: Side::Model,
};
const SPAN: Difference = Difference {
    name: "Span of a level-1 descriptor",
    reason: "QEMU takes a level-2 table for twice as large as it is, and reports a stream beyond it as a bad STE (0x04)",
    side: Side::Model,
};
const LEVEL_1_RESERVED: Difference = Difference {
    name: "reserved bits of a level-1 descriptor",
    reason: "QEMU takes bits 63:56 for part of the address, and cannot read there (0x03)",
    side: Side::Model,
};
const TABLE_READ_ONLY: Difference = Difference {
    name: "APTable at once",
    reason: "QEMU denies a write at the table descriptor that forbids it (0x13), before the walk's later faults",
    side: Side::Model,
};
const BYPASS_SIZE: Difference = Difference {
    name: "address size without stage 1",
    reason: "QEMU reports no F_ADDR_SIZE where stage 1 is bypassed and the address is beyond the output size",
    side: Side::Model,
};
const ADDRESS_SIZE: Difference = Difference {
    name: "address size of descriptors",
    reason: "QEMU does not hold the address of a table to the output size (its read fails, 0x0b), and looks at AF before that of a page",
    side: Side::Model,
};
const BLOCK_LEVEL: Difference =
    Difference { name: "blocks where there are none", reason: "QEMU accepts a block at any level above the last", side: Side::Model };
const STAGE_2_START: Difference = Difference {
    name: "start level of stage 2",
    reason: "QEMU accepts an input so small that the start level has nothing to decode",
    side: Side::Model,
};
const TABLE_SIZE: Difference = Difference {
    name: "table base beyond the output size",
    reason: "QEMU does not refuse the CD for it (0x0a) where stage 2 is on, or TTB is not used",
    side: Side::Model,
};
const RECORD: Difference = Difference {
    name: "events without R",
    reason: "a fault that must not be recorded is another event in QEMU, which is recorded anyway",
    side: Side::Model,
};
const CONTEXT_POINTER: Difference = Difference {
    name: "context pointer beyond the output size",
    reason: "QEMU does not refuse the STE for it (0x04): the read of the CD fails (0x09)",
    side: Side::Model,
};
const STAGE_2_INPUT: Difference =
    Difference { name: "input of stage 2 larger than its output", reason: "QEMU refuses such an STE (0x04)", side: Side::Open };
const STAGE_2_FLAGS: Difference = Difference {
    name: "flags that the SMMU does not have",
    reason: "QEMU does not refuse an STE for S2HA, S2HD, S2S or S2ENDI (0x04)",
    side: Side::Model,
};
const BOTH_BASES: Difference = Difference {
    name: "both table bases at once",
    reason: "nested, QEMU translates TTB0 and TTB1 when it reads the CD: what stage 2 says to either ends every request",
    side: Side::Model,
};
const STALL_DISABLE: Difference = Difference {
    name: "S1STALLD without stage 1",
    reason: "QEMU refuses an STE with S1STALLD (0x04), though without stage 1 the field does not count",
    side: Side::Model,
};
const NEVER_PRIVILEGED: Difference = Difference {
    name: "PAN",
    reason: "QEMU lets privileged requests touch what unprivileged ones may, though CD.PAN is set",
    side: Side::Model,
};
const CONCATENATED: Difference = Difference {
    name: "concatenated tables",
    reason: "of several stage-2 tables at the start level QEMU adds the one's place to the base before it aligns that: it uses the first, or strays",
    side: Side::Model,
};

pub(super) const ALL: [Difference; 18] = [
    NESTED_STAGE,
    CONTEXTS,
    SPAN,
    LEVEL_1_RESERVED,
    TABLE_READ_ONLY,
    BYPASS_SIZE,
    ADDRESS_SIZE,
    BLOCK_LEVEL,
    STAGE_2_START,
    TABLE_SIZE,
    RECORD,
    CONTEXT_POINTER,
    STAGE_2_INPUT,
    STAGE_2_FLAGS,
    STALL_DISABLE,
    NEVER_PRIVILEGED,
    BOTH_BASES,
    CONCATENATED,
];

/// Checks that may have to be taken away one after another.
const STEPS_MAX: usize = 6;

pub(super) fn explain(smmu: &mut Smmu, request: Request, image: &mut TableMemory, ours: Outcome, theirs: Outcome) -> Option<Difference> {
    let before = image.image();
    lead(smmu, request, image, ours, theirs, true).flatten().or_else(|| {
        // A read of nested translation may end at the bases of the context, whatever the walk would say.
        image.restore(&before);
        smmu.reset();
        smmu.translate(request, image);
        other_base_faults(smmu, request, image, theirs).then_some(BOTH_BASES)
    })
}

/// Takes checks away from the model until it says what QEMU says. If that is so at once, there is nothing to explain.
fn lead(
    smmu: &mut Smmu,
    request: Request,
    image: &mut TableMemory,
    ours: Outcome,
    theirs: Outcome,
    may_use_other: bool,
) -> Option<Option<Difference>> {
    let mut ours = ours;
    let mut why = None;
    smmu.reset();
    smmu.translate(request, image);
    let misplaced = beyond_first_table(smmu, image);
    if !misplaced.is_empty() && event(ours) != Some(EventId::BAD_STREAM_ENTRY) {
        for (pa, elsewhere) in misplaced {
            image.amend(pa, image.read(elsewhere));
        }
        why = Some(CONCATENATED);
        smmu.reset();
        ours = smmu.translate(request, image).outcome;
    }
    for _ in 0..STEPS_MAX {
        if let Some(same) = same(smmu, request, &image.trail, ours, theirs) {
            return Some(why.or(same));
        }
        if may_use_other && other_base_faults(smmu, request, image, theirs) {
            return Some(Some(BOTH_BASES));
        }
        let by = heal(smmu, image, ours)?;
        why = why.or(Some(by));
        smmu.reset();
        ours = smmu.translate(request, image).outcome;
    }
    None
}

/// Whether a request through the other table base would end as QEMU says that this one does.
fn other_base_faults(smmu: &mut Smmu, request: Request, image: &mut TableMemory, theirs: Outcome) -> bool {
    if smmu.mode.stages != Stages::Nested {
        return false;
    }
    let (trail, kinds, before) = (image.trail.clone(), image.kinds.clone(), image.image());
    let found = [0, !0xfff].into_iter().any(|iova| {
        let other = Request { iova, ..request };
        smmu.reset();
        let ours = smmu.translate(other, image).outcome;
        let found = match theirs {
            // That the other base lets it pass says nothing of this one.
            Outcome::Blocked(_) => lead(smmu, other, image, ours, theirs, false).is_some(),
            _ => ours == Outcome::Silent && (request.write || theirs == Outcome::Passed(0)),
        };
        image.restore(&before);
        found
    });
    (image.trail, image.kinds) = (trail, kinds);
    found
}

/// The event's number alone.
const fn event(outcome: Outcome) -> Option<EventId> {
    match outcome {
        Outcome::Blocked(code) => Some(EventId(code as u8)),
        _ => None,
    }
}

/// Whether QEMU says the same in other words, or stops for a reason that is there; if so, which difference that is, if any.
fn same(smmu: &Smmu, request: Request, trail: &[Word], ours: Outcome, theirs: Outcome) -> Option<Option<Difference>> {
    if ours == theirs {
        return Some(None);
    }
    let stream = stream_entry(smmu, trail);
    let config = stream.map_or(0, |words| StreamEntry0::from_bits(words[0].1).config());
    let found = match (event(ours), event(theirs)) {
        (Some(ours), Some(theirs)) if ours == theirs && config == CONFIG_NESTED => NESTED_STAGE,
        (_, Some(EventId::BAD_STREAM_ENTRY))
            if config & CONFIG_HAS_STAGE_1 == 0 && stream.is_some_and(|words| StreamEntry1::from_bits(words[1].1).stall_disable()) =>
        {
            STALL_DISABLE
        }
        (Some(EventId::BAD_STREAM_ID), Some(EventId::BAD_STREAM_ENTRY)) if smmu.mode.two_level => SPAN,
        (_, Some(EventId::BAD_STREAM_ENTRY)) if stream.is_some_and(|words| StreamEntry0::from_bits(words[0].1).context_bits() != 0) => {
            CONTEXTS
        }
        (_, Some(EventId::BAD_STREAM_ENTRY)) if config & CONFIG_HAS_STAGE_2 != 0 && stream.is_some_and(input_exceeds_output) => {
            STAGE_2_INPUT
        }
        (_, Some(EventId::STREAM_FETCH)) if smmu.mode.two_level && StreamLevel1::from_bits(trail.first()?.1).reserved_56() != 0 => {
            LEVEL_1_RESERVED
        }
        (_, Some(EventId::PERMISSION)) if request.write && trail.iter().any(|(_, word)| forbids_writes(*word)) => TABLE_READ_ONLY,
        // The same without R: nobody is told.
        (Some(_), None) if request.write && !records(trail) && trail.iter().any(|(_, word)| forbids_writes(*word)) => TABLE_READ_ONLY,
        (Some(EventId::ADDRESS_SIZE), None) if config & CONFIG_HAS_STAGE_1 == 0 => BYPASS_SIZE,
        (Some(EventId::TRANSLATION), _) if trail.last().is_some_and(|(_, word)| word & 3 == 1) => match event(theirs) {
            None | Some(EventId::ACCESS | EventId::PERMISSION | EventId::ADDRESS_SIZE | EventId::TRANSLATION) => BLOCK_LEVEL,
            // What is found at a wrong address of a table may end in anything.
            _ if config == CONFIG_NESTED => BLOCK_LEVEL,
            _ => return None,
        },
        (None, None) if ours == Outcome::Silent && (request.write || theirs == Outcome::Passed(0)) => return Some(None),
        (Some(EventId::BAD_STREAM_ENTRY), None | Some(EventId::ADDRESS_SIZE | EventId::TRANSLATION))
            if config == CONFIG_NESTED && stream.is_some_and(|words| StreamEntry0::from_bits(words[0].1).context() >> 38 != 0) =>
        {
            CONTEXT_POINTER
        }
        (Some(EventId::BAD_STREAM_ENTRY), _) if stream.is_some_and(starts_too_high) => STAGE_2_START,
        (None, None) if request.write || matches!(ours, Outcome::Passed(pa) if LAYOUT.place(pa) != Place::Data) => return Some(None),
        _ => return None,
    };
    Some(Some(found))
}

/// Whether a word is a stage-1 table descriptor with APTable\[1\].
fn forbids_writes(word: u64) -> bool {
    let entry = Stage1Table::from_bits(word);
    entry.read_only() && entry.low() & 3 == 3
}

/// Bits that one table decodes, and bits below the last level, by S2TG.
fn granule(entry: StreamEntry2) -> Option<(u32, u32)> {
    match entry.granule() {
        GRANULE_0_4K => Some((9, 12)),
        GRANULE_0_16K => Some((11, 14)),
        GRANULE_0_64K => Some((13, 16)),
        _ => None,
    }
}

/// Input bits, and bits below the start level, of stage 2.
fn stage_2_bits(words: &[Word]) -> Option<(u32, u32, u32)> {
    let entry = StreamEntry2::from_bits(words[2].1);
    let (stride, page) = granule(entry)?;
    // With 4 KiB SL0 counts down from level 2, else from level 3.
    let from_last = u32::from(entry.start_level()) + u32::from(entry.granule() == GRANULE_0_4K);
    Some((64 - u32::from(entry.input_size()), page + stride * from_last, stride))
}

/// Whether the start level of stage 2 has nothing to decode.
fn starts_too_high(words: &[Word]) -> bool {
    stage_2_bits(words).is_some_and(|(input, below, _)| input <= below)
}

/// The words of a walk that lie in another than the first of the tables that stage 2 begins with, and where QEMU looks for them.
fn beyond_first_table(smmu: &Smmu, image: &TableMemory) -> Vec<(u64, u64)> {
    let trail = &image.trail;
    let has_stage_2 =
        |words: &&[Word]| StreamEntry0::from_bits(words[0].1).config() & CONFIG_NESTED & !CONFIG_HAS_STAGE_1 == CONFIG_STAGE_2;
    let Some(words) = stream_entry(smmu, trail).filter(has_stage_2) else { return Vec::new() };
    let Some((input, below, stride)) = stage_2_bits(words).filter(|(input, below, stride)| *input > below + stride && *input < 64) else {
        return Vec::new();
    };
    let page = stride + 3;
    let (all, one) = (8_u64 << (input - below), 8_u64 << stride);
    let raw = StreamEntry3::from_bits(words[3].1).table() << 4;
    let base = raw & !(all - 1);
    // Other tables may lie there too: only where stage 2 begins does the place count.
    let level = LAST_LEVEL.saturating_sub(((below - page) / stride) as u8);
    let begins = image.kinds.iter().zip(trail).filter(|(kind, _)| **kind == FetchKind::Stage2 { level }).map(|(_, (pa, _))| *pa);
    let inside = begins.filter(|pa| (base + one..base + all).contains(pa));
    inside.map(|pa| (pa, ((raw + (pa - base) / one * one) & !(all - 1)) | ((pa - base) % one))).collect()
}

/// Whether stage 2 takes longer addresses than it gives.
fn input_exceeds_output(words: &[Word]) -> bool {
    let entry = StreamEntry2::from_bits(words[2].1);
    let output = ADDRESS_SIZES.get(usize::from(entry.output_size())).copied().unwrap_or(48).min(44);
    64 - u32::from(entry.input_size()) > u32::from(output)
}

/// The STE of a trail.
fn stream_entry<'a>(smmu: &Smmu, trail: &'a [Word]) -> Option<&'a [Word]> {
    let first = usize::from(smmu.mode.two_level);
    trail.get(first..first + WORDS_MAX)
}

/// Takes the check away that the model's last answer came from.
fn heal(smmu: &Smmu, image: &mut TableMemory, ours: Outcome) -> Option<Difference> {
    let in_void = Descriptor::new().with_frame(LAYOUT.void >> 12).into_bits();
    let address = Descriptor::new().with_frame(u64::MAX >> 28).with_reserved_48(7).into_bits();
    match ours {
        Outcome::Silent => {
            let entries: Vec<Vec<Word>> = wide_entries(&image.trail).map(<[Word]>::to_vec).collect();
            let stream = stream_entry(smmu, &image.trail)?.to_vec();
            for entry in entries.iter().filter(|entry| entry[0].0 != stream[0].0) {
                image.amend(entry[0].0, Context0::from_bits(entry[0].1).with_record(true).into_bits());
            }
            image.amend(stream[2].0, StreamEntry2::from_bits(stream[2].1).with_record(true).into_bits());
            Some(RECORD)
        }
        Outcome::Blocked(_) if event(ours) == Some(EventId::ADDRESS_SIZE) => {
            let (pa, word) = *image.trail.last()?;
            image.amend(pa, word & !address | in_void);
            Some(ADDRESS_SIZE)
        }
        Outcome::Blocked(_) if event(ours) == Some(EventId::PERMISSION) => {
            let (pa, word) = wide_entries(&image.trail).nth(1)?[0];
            let entry = Context0::from_bits(word);
            image.amend(pa, entry.with_privileged_access_never(false).into_bits());
            entry.privileged_access_never().then_some(NEVER_PRIVILEGED)
        }
        Outcome::Blocked(_) if event(ours) == Some(EventId::BAD_STREAM_ENTRY) => {
            let (place, word) = stream_entry(smmu, &image.trail)?[2];
            let third = StreamEntry2::from_bits(word);
            let plain = third.with_hardware_dirty(false).with_hardware_access(false).with_stall(false).with_big_endian(false);
            if plain != third {
                image.amend(place, plain.into_bits());
                return Some(STAGE_2_FLAGS);
            }
            let (pa, word) = stream_entry(smmu, &image.trail)?[0];
            let entry = StreamEntry0::from_bits(word);
            image.amend(pa, entry.with_context(LAYOUT.void >> 6).into_bits());
            (entry.context() >> 38 != 0).then_some(CONTEXT_POINTER)
        }
        Outcome::Blocked(_) if event(ours) == Some(EventId::BAD_CONTEXT) => {
            let entry = wide_entries(&image.trail).last()?.to_vec();
            let first = Context0::from_bits(entry[0].1);
            if smmu.mode.stages == Stages::Nested && !first.disable_1() {
                image.amend(entry[0].0, first.with_disable_1(true).into_bits());
                return Some(BOTH_BASES);
            }
            for (pa, word) in &entry[1..3] {
                image.amend(*pa, word & !address | in_void);
            }
            Some(TABLE_SIZE)
        }
        _ => None,
    }
}

/// Whether the CD of a walk has R.
fn records(trail: &[Word]) -> bool {
    wide_entries(trail).nth(1).is_some_and(|words| Context0::from_bits(words[0].1).record())
}

/// The first words of entries of 64 bytes in a trail: the STE, then the CD.
fn wide_entries(trail: &[Word]) -> impl Iterator<Item = &[Word]> {
    let is_wide =
        |words: &&[Word]| words[0].0.is_multiple_of(64) && words.iter().enumerate().all(|(n, (pa, _))| *pa == words[0].0 + 8 * n as u64);
    trail.windows(WORDS_MAX).filter(is_wide)
}

/// QEMU's assertions: stage-2 tables of AArch32, and output sizes that are reserved or need more than 48 bits.
pub(super) fn ends_qemu(trail: &[Word]) -> bool {
    let mut entries = wide_entries(trail);
    let stream_ends = entries.next().is_some_and(|words| {
        let (first, third) = (StreamEntry0::from_bits(words[0].1), StreamEntry2::from_bits(words[2].1));
        let stage_2 = first.config() & CONFIG_PASSES != 0 && first.config() & CONFIG_HAS_STAGE_2 != 0;
        stage_2 && (!third.aarch64() || third.output_size() > OUTPUT_SIZE_MAX)
    });
    stream_ends || entries.any(|words| Context0::from_bits(words[0].1).output_size() > OUTPUT_SIZE_MAX)
}
