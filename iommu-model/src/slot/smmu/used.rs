//! The bits of an entry that hardware looks at.

use super::{Kind, is_leaf};
use crate::spec::smmu::context::{Context0, ContextTable};
use crate::spec::smmu::descriptor::{Descriptor, Stage1Leaf, Stage1Table, Stage2Leaf};
use crate::spec::smmu::stream::{
    CONFIG_HAS_STAGE_1, CONFIG_HAS_STAGE_2, CONFIG_NESTED, CONFIG_PASSES, DEFAULT_BYPASS, OVERRIDES_ACCESS, OVERRIDES_MEMORY, StreamEntry0,
    StreamEntry1, StreamEntry2, StreamEntry3,
};

/// The bits of an STE that count under a configuration (Config, S1DSS).
fn stream_mask(config: u8, default: u8) -> [u64; 8] {
    let mut mask = [0; 8];
    let first = StreamEntry0::new().with_valid(true).with_config(CONFIG_NESTED);
    mask[0] = first.into_bits();
    if config & CONFIG_PASSES == 0 {
        return mask;
    }
    let mut second = StreamEntry1::new().with_attributes(OVERRIDES_ACCESS);
    let mut third = StreamEntry2::new();
    let stage_1 = config & CONFIG_HAS_STAGE_1 != 0;
    if stage_1 {
        let context = StreamEntry0::new().with_format(3).with_context((1 << 50) - 1).with_context_bits(31);
        mask[0] |= context.into_bits();
        second = second.with_default_substream(3).with_context_attributes(0x3f).with_stall_disable(true).with_ats(3).with_world(3);
        third = third.with_vmid(u16::MAX);
    }
    if config & CONFIG_HAS_STAGE_2 != 0 {
        second = second.with_ats(3).with_reserved_84(0x7f);
        third = StreamEntry2::from_bits(u64::MAX).with_reserved_144(0).with_reserved_187(0);
        mask[3] = StreamEntry3::new().with_table((1 << 48) - 1).into_bits();
    }
    if !stage_1 || default == DEFAULT_BYPASS {
        second = second.with_attributes(OVERRIDES_ACCESS | OVERRIDES_MEMORY);
    }
    mask[1] = second.into_bits();
    mask[2] = third.into_bits();
    mask
}

/// The bits of a CD that count, with TTB0 or TTB1 in use or not. MAIR0 and MAIR1 are the fourth and fifth word.
fn context_mask(half_0: bool, half_1: bool) -> [u64; 8] {
    let without_0 = Context0::new().with_size_0(0x3f).with_granule_0(3).with_walk_attributes_0(0x3f).into_bits();
    let without_1 = Context0::new().with_size_1(0x3f).with_granule_1(3).with_walk_attributes_1(0x3f).into_bits();
    let table = ContextTable::from_bits(u64::MAX).with_reserved_116(0).into_bits();
    let first = !(if half_0 { 0 } else { without_0 } | if half_1 { 0 } else { without_1 });
    // NSCFG, HAD and others of the second word hold beside the pointer.
    let second = if half_0 { table } else { ContextTable::from_bits(table).with_table(0).into_bits() };
    [first, second, if half_1 { table } else { 0 }, u64::MAX, u64::MAX, 0, 0, 0]
}

/// The bits that hardware looks at in an entry that says `words`.
pub(super) fn counts(kind: Kind, words: &[u64]) -> [u64; 8] {
    let low = words.first().copied().unwrap_or(0);
    let one = |mask| [mask, 0, 0, 0, 0, 0, 0, 0];
    match kind {
        Kind::Stream => {
            let entry = StreamEntry0::from_bits(low);
            let default = StreamEntry1::from_bits(words.get(1).copied().unwrap_or(0)).default_substream();
            if entry.valid() { stream_mask(entry.config(), default) } else { one(StreamEntry0::new().with_valid(true).into_bits()) }
        }
        Kind::Context => {
            let entry = Context0::from_bits(low);
            if entry.valid() {
                context_mask(!entry.disable_0(), !entry.disable_1())
            } else {
                one(Context0::new().with_valid(true).into_bits())
            }
        }
        Kind::StreamLevel1 | Kind::ContextLevel1 => one(u64::MAX),
        Kind::Stage1 { level, .. } if is_leaf(level, low) => one(!Stage1Leaf::new().with_software(0x1ff).into_bits()),
        Kind::Stage1 { .. } => one(Stage1Table::from_bits(u64::MAX).with_low(LOW_COUNTS).with_reserved_48(0).into_bits()),
        Kind::Stage2 { level, .. } if is_leaf(level, low) => one(!Stage2Leaf::new().with_software(0x1ff).into_bits()),
        Kind::Stage2 { .. } => one(Descriptor::new().with_valid(true).with_table_or_page(true).with_frame((1 << 36) - 1).into_bits()),
    }
}

/// Valid and type, of the low bits of a table descriptor.
const LOW_COUNTS: u16 = 3;

/// The bits that can ever count.
pub(super) fn could_count(kind: Kind, words: &[u64]) -> [u64; 8] {
    match kind {
        Kind::Stream => stream_mask(CONFIG_NESTED, DEFAULT_BYPASS),
        Kind::Context => context_mask(true, true),
        _ => counts(kind, words),
    }
}

/// How many words differ in the bits of a mask.
pub(super) fn differing(old: &[u64], new: &[u64], mask: [u64; 8]) -> usize {
    old.iter().zip(new).zip(mask).filter(|((old, new), mask)| (*old ^ *new) & mask != 0).count()
}
