//! Random entries: mostly right, sometimes wrong in one way, seldom noise. And addresses dense enough to share them.

use super::machine::{LAYOUT, SPLIT};
use super::{Mode, Stages};
use crate::architecture::Request;
use crate::dice::Dice;
use crate::memory::WORDS_MAX;
use iommu_model::spec::smmu::context::{Context0, ContextLevel1, ContextTable, GRANULE_0_16K, GRANULE_1_16K};
use iommu_model::spec::smmu::descriptor::{LAST_LEVEL, Stage1Leaf, Stage1Table, Stage2Leaf};
use iommu_model::spec::smmu::stream::{
    CONFIG_BYPASS, CONFIG_NESTED, CONFIG_STAGE_1, CONFIG_STAGE_2, DEFAULT_FIRST, StreamEntry0, StreamEntry1, StreamEntry2, StreamEntry3,
    StreamLevel1,
};

/// First of the intermediate addresses that nested tables and pages lie at.
const INTERMEDIATE: u64 = 0x4000_0000;
/// How many of them there are.
const INTERMEDIATE_PAGES: u32 = 48;

/// The coding of 48 bits; what is above ends QEMU.
pub(super) const OUTPUT_SIZE_MAX: u8 = 5;

/// First addresses that an image's requests are near to.
pub(super) fn stems(mode: Mode, dice: &mut Dice) -> Vec<u64> {
    let width = if mode.stages == Stages::Two { 39 } else { 48 };
    let mut stems: Vec<u64> = (0..3).map(|_| dice.bits(width) & !0xfff).collect();
    // Low ones, for tables of few bits.
    stems.push(dice.bits(31) & !0xfff);
    stems.push(dice.bits(25) & !0xfff);
    stems
}

/// A request that shares most table entries with its neighbours.
pub(super) fn request(stems: &[u64], dice: &mut Dice) -> Request {
    let mut iova = dice.pick(stems);
    for level_shift in [12, 21, 30] {
        if dice.percent(40) {
            iova ^= u64::from(dice.below(4)) << level_shift;
        }
    }
    match dice.below(100) {
        0..3 => iova |= 1 << (31 + dice.below(33)),
        // The upper half, through TTB1.
        3..10 => iova |= 0xffff << 48,
        10 => iova |= 0xab << 56,
        _ => {}
    }
    Request { iova: (iova & !0xfff) | (u64::from(dice.below(1024)) * 4), write: dice.percent(40) }
}

/// Turns one of the bits over, seldom: one of these, as often as any.
fn noise(percent: u32, favoured: &[u32], dice: &mut Dice) -> u64 {
    if !dice.percent(percent) {
        return 0;
    }
    1 << if dice.percent(60) { dice.pick(favoured) } else { dice.below(64) }
}

/// A table at a physical address, or seldom something else.
fn physical_table(dice: &mut Dice) -> u64 {
    match dice.below(100) {
        0 => LAYOUT.draw_data(dice),
        1 => LAYOUT.draw_void(dice, 47),
        2 => LAYOUT.draw_void(dice, 40),
        _ => LAYOUT.draw_table(dice),
    }
}

/// A table as stage 1 knows it.
fn table(mode: Mode, dice: &mut Dice) -> u64 {
    match mode.stages {
        Stages::Nested if !dice.percent(2) => INTERMEDIATE + u64::from(dice.below(INTERMEDIATE_PAGES)) * 4096,
        _ => physical_table(dice),
    }
}

/// A page at a physical address, or seldom something else.
fn physical_page(dice: &mut Dice) -> u64 {
    match dice.below(100) {
        0 => LAYOUT.draw_void(dice, 47),
        1 => LAYOUT.draw_void(dice, 40),
        2 => LAYOUT.draw_table(dice),
        _ => LAYOUT.draw_data(dice),
    }
}

pub(super) fn stream_level_1(dice: &mut Dice) -> u64 {
    let span = if dice.percent(8) { dice.below(32) as u8 } else { SPLIT + 1 };
    StreamLevel1::new().with_span(span).with_table(LAYOUT.draw_table(dice) >> 6).into_bits() ^ noise(2, &[5, 56, 63], dice)
}

pub(super) fn stream_entry(mode: Mode, dice: &mut Dice) -> [u64; WORDS_MAX] {
    let own = match mode.stages {
        Stages::One => CONFIG_STAGE_1,
        Stages::Two => CONFIG_STAGE_2,
        Stages::Nested if dice.percent(10) => dice.pick(&[CONFIG_STAGE_1, CONFIG_STAGE_2]),
        Stages::Nested => CONFIG_NESTED,
    };
    let config = match dice.below(100) {
        0..2 => CONFIG_BYPASS,
        2..5 => dice.below(8) as u8,
        _ => own,
    };
    let context_bits = if dice.percent(2) { dice.below(32) as u8 } else { 0 };
    let first = StreamEntry0::new()
        .with_valid(!dice.percent(2))
        .with_config(config)
        .with_context(table(mode, dice) >> 6 | u64::from(dice.below(4)))
        .with_format(if dice.percent(2) { dice.below(4) as u8 } else { 0 })
        .with_context_bits(context_bits);
    let second = StreamEntry1::new().with_default_substream(DEFAULT_FIRST).with_attributes(1 << 12);
    // S1DSS, S1STALLD, EATS, STRW and what lies about them.
    let second = second.into_bits() ^ noise(4, &[0, 1, 19, 25, 27, 28, 29, 30, 31, 47, 49], dice);
    let (size, start) = stage_2_size(dice);
    let third = StreamEntry2::new()
        .with_vmid(dice.below(16) as u16)
        .with_input_size(size)
        .with_start_level(start)
        .with_granule(if dice.percent(15) { dice.below(4) as u8 } else { 0 })
        .with_output_size(if dice.percent(15) { dice.below(6) as u8 } else { 4 })
        .with_access_flag_fault_disable(dice.percent(10))
        .with_record(!dice.percent(3));
    let fourth = StreamEntry3::new().with_table(physical_table(dice) >> 4);
    let noisy = |word: u64, dice: &mut Dice| word ^ noise(1, &[0, 48, 63], dice);
    // S2ENDI, S2PTW, S2HD, S2HA, S2S.
    let third = third.into_bits() ^ noise(2, &[52, 54, 55, 56, 57], dice);
    let words = [first.into_bits(), second, third, fourth.into_bits()];
    let [a, b, c, d] = words.map(|word| noisy(word, dice));
    // AArch32 tables and reserved sizes end QEMU.
    let c = StreamEntry2::from_bits(c);
    let c = c.with_aarch64(true).with_output_size(c.output_size().min(OUTPUT_SIZE_MAX));
    // What stage 1 has of tables must lie in one page of stage 2.
    let c = if mode.large { c.with_granule(GRANULE_0_16K) } else { c }.into_bits();
    [a, b, c, d, 0, 0, 0, 0]
}

/// S2T0SZ and S2SL0: mostly such as fit together with 4 KiB granules.
fn stage_2_size(dice: &mut Dice) -> (u8, u8) {
    match dice.below(100) {
        0..5 => (dice.below(64) as u8, dice.below(4) as u8),
        5..20 => (20 + dice.below(4) as u8, 2),
        20..30 => (24, 1),
        30..40 => (16 + dice.below(24) as u8, 1),
        _ => (25, 1),
    }
}

pub(super) fn context_level_1(mode: Mode, dice: &mut Dice) -> u64 {
    ContextLevel1::new().with_valid(!dice.percent(5)).with_table(table(mode, dice) >> 12).into_bits()
}

pub(super) fn context(mode: Mode, dice: &mut Dice) -> [u64; WORDS_MAX] {
    // Of a nested table QEMU translates the base only: those that are larger than a page of stage 2 are not drawn.
    let large = mode.stages != Stages::Nested;
    let granule = if large && dice.percent(12) { dice.below(4) as u8 } else { 0 };
    let size = |dice: &mut Dice| match dice.below(100) {
        0..4 => dice.below(64) as u8,
        4..30 => 16 + dice.below(24) as u8,
        _ => 16,
    };
    let first = Context0::new()
        .with_size_0(size(dice))
        .with_granule_0(granule)
        .with_disable_0(dice.percent(2))
        .with_size_1(size(dice))
        .with_granule_1(if large && dice.percent(12) { dice.below(4) as u8 } else { 2 })
        .with_disable_1(dice.percent(50))
        .with_valid(!dice.percent(2))
        .with_output_size(if dice.percent(15) { dice.below(6) as u8 } else { 4 })
        .with_access_flag_fault_disable(dice.percent(10))
        .with_top_byte_ignore_0(dice.percent(20))
        .with_top_byte_ignore_1(dice.percent(20))
        .with_aarch64(!dice.percent(2))
        .with_record(!dice.percent(3))
        .with_abort(true)
        .with_asid(dice.below(16) as u16);
    let ttb = |dice: &mut Dice| {
        ContextTable::new().with_hierarchical_disable(dice.percent(20)).with_table(table(mode, dice) >> 4).into_bits()
            ^ noise(1, &[48, 51], dice)
    };
    let first = first.into_bits() ^ noise(3, &[14, 15, 31, 35, 36, 37, 40, 41, 42, 43, 44, 45, 46], dice);
    let first = Context0::from_bits(first);
    let first = first.with_output_size(first.output_size().min(OUTPUT_SIZE_MAX));
    let first = if mode.large { first.with_granule_0(GRANULE_0_16K).with_granule_1(GRANULE_1_16K) } else { first }.into_bits();
    [first, ttb(dice), ttb(dice), 0, 0, 0, 0, 0]
}

/// Whether an entry that may be a block at this level is one.
fn is_block(level: u8, dice: &mut Dice) -> bool {
    match level {
        1 | 2 => dice.percent(15),
        _ => dice.percent(1),
    }
}

pub(super) fn stage_1(mode: Mode, level: u8, dice: &mut Dice) -> u64 {
    if dice.percent(1) {
        return dice.bits(64);
    }
    let valid = !dice.percent(4);
    if level < LAST_LEVEL && !is_block(level, dice) {
        let entry = Stage1Table::new()
            .with_low(u16::from(valid) | 2)
            .with_frame(table(mode, dice) >> 12)
            .with_no_unprivileged(dice.percent(3))
            .with_read_only(dice.percent(8));
        // PXNTable, UXNTable and NSTable play no part.
        return entry.into_bits() ^ noise(3, &[12, 47, 48, 51, 59, 60, 63], dice);
    }
    let page = match mode.stages {
        Stages::Nested => INTERMEDIATE + u64::from(dice.below(INTERMEDIATE_PAGES)) * 4096,
        _ => physical_page(dice),
    };
    let entry = Stage1Leaf::new()
        .with_valid(valid)
        .with_page(level == LAST_LEVEL && !dice.percent(2))
        .with_unprivileged(!dice.percent(5))
        .with_read_only(dice.percent(12))
        .with_accessed(!dice.percent(5))
        .with_not_global(dice.percent(50))
        .with_contiguous(dice.percent(5))
        .with_attribute_index(dice.below(8) as u8)
        .with_shareability(dice.below(4) as u8)
        .with_no_execute(dice.below(4) as u8)
        .with_frame(page >> 12);
    entry.into_bits() ^ noise(4, &[5, 12, 13, 21, 47, 48, 51, 55, 63], dice)
}

pub(super) fn stage_2(mode: Mode, level: u8, dice: &mut Dice) -> u64 {
    // A nested walk goes through many of these.
    let rare = if mode.stages == Stages::Nested { 3 } else { 1 };
    if dice.below(100 * rare) == 0 {
        return dice.bits(64);
    }
    let mut seldom = |percent: u32| dice.below(100 * rare) < percent;
    let (invalid, unreadable, read_only, stale, wrong) = (seldom(4), seldom(5), seldom(12), seldom(5), seldom(3));
    let address = if wrong { noise(100, &[12, 13, 21, 47, 48, 51, 52, 54, 55, 63], dice) } else { 0 };
    if level < LAST_LEVEL && !is_block(level, dice) {
        let entry = Stage1Table::new().with_low(u16::from(!invalid) | 2).with_frame(physical_table(dice) >> 12);
        return entry.into_bits() ^ address;
    }
    // A nested walk's tables are among what stage 2 maps.
    let to_table = mode.stages == Stages::Nested && dice.percent(80);
    let page = if to_table { LAYOUT.draw_table(dice) } else { physical_page(dice) };
    let entry = Stage2Leaf::new()
        .with_valid(!invalid)
        .with_page(level == LAST_LEVEL && !dice.percent(2))
        .with_memory_attributes(0xf)
        .with_readable(!unreadable)
        .with_writable(!read_only)
        .with_shareability(3)
        .with_accessed(!stale)
        .with_contiguous(dice.percent(5))
        .with_no_execute(dice.below(4) as u8)
        .with_frame(page >> 12);
    entry.into_bits() ^ address
}
