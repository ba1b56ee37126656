//! Random entries: mostly right, sometimes wrong in one way, seldom noise. And addresses dense enough to share them.

use super::Mode;
use super::machine::{LAYOUT, ROOT};
use crate::architecture::Request;
use crate::dice::Dice;
use crate::memory::WORDS_MAX;
use iommu_model::spec::vtd::context::{AW_39, AW_48, ContextEntry, TT_PASS_THROUGH};
use iommu_model::spec::vtd::first_stage::FirstStageEntry;
use iommu_model::spec::vtd::pasid::{
    FSPM_4, PGTT_FIRST, PGTT_NESTED, PGTT_PASS_THROUGH, PGTT_SECOND, PasidDirectoryEntry, PasidEntryFirstStage, PasidEntryLow,
    ScalableContextEntry,
};
use iommu_model::spec::vtd::root::RootEntry;
use iommu_model::spec::vtd::second_stage::SecondStageEntry;

/// First addresses that an image's requests are near to.
pub(super) fn stems(mode: Mode, dice: &mut Dice) -> Vec<u64> {
    let width = match mode {
        Mode::Legacy { width: 39 } => 39,
        // The lower half only: what is above is not canonical for a first stage.
        Mode::First => 47,
        _ => 48,
    };
    let mut stems: Vec<u64> = (0..3).map(|_| dice.bits(width) & !0xfff).collect();
    // A low one, so that 1 GiB leaves at 0 meet RAM.
    stems.push(dice.bits(25) & !0xfff);
    stems
}

/// A request that shares most table entries with its neighbours.
pub(super) fn request(stems: &[u64], dice: &mut Dice) -> Request {
    let mut iova = dice.pick(stems);
    // Up to three neighbours at each of the lower levels.
    for level_shift in [12, 21, 30] {
        if dice.percent(40) {
            iova ^= u64::from(dice.below(4)) << level_shift;
        }
    }
    match dice.below(100) {
        0..3 => iova |= 1 << (39 + dice.below(25)),
        3..7 => iova |= 0xffff_8000_0000_0000,
        _ => {}
    }
    // QEMU hands reads and writes of the interrupt range to another device.
    if iova >> 20 == 0xfee {
        iova ^= 1 << 20;
    }
    Request { iova: (iova & !0xfff) | (u64::from(dice.below(1024)) * 4), write: dice.percent(40) }
}

/// A table, or seldom something else.
fn table(dice: &mut Dice) -> u64 {
    let pa = match dice.below(100) {
        0..2 => LAYOUT.draw_data(dice),
        2..4 => LAYOUT.draw_void(dice, 47),
        4 => LAYOUT.draw_void(dice, 39),
        _ => LAYOUT.draw_table(dice),
    };
    pa >> 12
}

/// A page for data of `1 << shift` bytes, or seldom something else.
fn page(shift: u32, dice: &mut Dice) -> u64 {
    let pa = match dice.below(100) {
        0..2 => LAYOUT.draw_void(dice, 47),
        2 => LAYOUT.draw_table(dice),
        // An interrupt address.
        3 => 0xfee0_0000 | u64::from(dice.below(256)) << 12,
        _ => LAYOUT.draw_data(dice),
    };
    // One in twenty-five is not aligned.
    if dice.percent(4) { pa >> 12 } else { (pa & !((1 << shift) - 1)) >> 12 }
}

/// Turns one of the bits over, seldom: one that must be 0, as often as any.
fn noise(bits: u32, percent: u32, zeros: &[u32], dice: &mut Dice) -> u128 {
    if !dice.percent(percent) {
        return 0;
    }
    1 << if dice.percent(50) { dice.pick(zeros) } else { dice.below(bits) }
}

pub(super) fn root(dice: &mut Dice) -> u128 {
    let entry = RootEntry::new().with_present(!dice.percent(2)).with_context_table(table(dice));
    entry.into_bits() ^ noise(128, 2, &[1, 11, 46, 47, 48, 63, 65, 75, 64, 127], dice)
}

pub(super) fn context(mode: Mode, dice: &mut Dice) -> u128 {
    let width = match mode {
        Mode::Legacy { width: 39 } => AW_39,
        _ if dice.percent(25) => AW_39,
        _ => AW_48,
    };
    let width = if dice.percent(2) { dice.below(8) as u8 } else { width };
    let kind = match dice.below(100) {
        0..5 => TT_PASS_THROUGH,
        5 | 6 => dice.below(4) as u8,
        _ => 0,
    };
    let entry = ContextEntry::new()
        .with_present(!dice.percent(2))
        .with_translation_type(kind)
        .with_second_stage(table(dice))
        .with_address_width(width)
        .with_domain(dice.below(1 << 16) as u16);
    entry.into_bits() ^ noise(128, 5, &[1, 4, 5, 11, 38, 39, 47, 48, 63, 71, 88, 127], dice)
}

pub(super) fn scalable_context(dice: &mut Dice) -> [u64; 4] {
    // Most lie within the smallest directory.
    let bits = dice.pick(&[4, 8, 12, 13, 14, 20]);
    let rid_pasid = if dice.percent(30) { dice.below(1 << bits) } else { 0 };
    let entry = ScalableContextEntry::new()
        .with_present(!dice.percent(2))
        .with_directory(table(dice))
        .with_directory_size(dice.below(3) as u8)
        // These concern requests that no device here makes.
        .with_device_tlb(dice.percent(5))
        .with_pasid_enable(dice.percent(20))
        .with_rid_pasid(rid_pasid);
    let bits = entry.into_bits() ^ noise(128, 2, &[1, 5, 8, 47, 48, 63, 85, 127], dice);
    let high = noise(128, 2, &[0, 127], dice);
    [bits as u64, (bits >> 64) as u64, high as u64, (high >> 64) as u64]
}

pub(super) fn directory(dice: &mut Dice) -> u64 {
    let entry = PasidDirectoryEntry::new().with_present(!dice.percent(2)).with_table(table(dice));
    entry.into_bits() ^ noise(64, 2, &[1, 2, 11, 47, 48, 63], dice) as u64
}

pub(super) fn pasid(mode: Mode, dice: &mut Dice) -> [u64; WORDS_MAX] {
    let own = if mode == Mode::First { PGTT_FIRST } else { PGTT_SECOND };
    let kind = match dice.below(100) {
        0..5 => PGTT_PASS_THROUGH,
        5 | 6 => dice.pick(&[PGTT_FIRST, PGTT_SECOND, PGTT_NESTED]),
        7 => dice.below(8) as u8,
        _ => own,
    };
    let width = match dice.below(100) {
        0..20 if mode == Mode::Second => AW_39,
        20 | 21 => dice.below(8) as u8,
        _ => AW_48,
    };
    let low = PasidEntryLow::new()
        .with_present(!dice.percent(2))
        .with_address_width(width)
        .with_translation_type(kind)
        .with_second_stage(table(dice))
        .with_domain(dice.below(1 << 16) as u16)
        .with_walk_snoop(true);
    let low = low.into_bits() ^ noise(128, 4, &[1, 9, 10, 11, 47, 48, 63, 80, 86], dice);
    let mode = if dice.percent(2) { dice.below(4) as u8 } else { FSPM_4 };
    let first = PasidEntryFirstStage::new().with_first_stage(table(dice)).with_paging_mode(mode).with_write_protect(dice.percent(20));
    // SRE, ERE, NXE, SMEP, EAFE too.
    let first = first.into_bits() ^ noise(64, 5, &[0, 1, 5, 6, 7, 8, 11, 47, 48, 63], dice) as u64;
    let mut words = [low as u64, (low >> 64) as u64, first, 0, 0, 0, 0, 0];
    if dice.percent(2) {
        words[3 + dice.below(5) as usize] = 1 << dice.below(64);
    }
    words
}

/// Whether an entry that may be a leaf at this level is one.
fn is_leaf(level: u8, dice: &mut Dice) -> bool {
    match level {
        1 => true,
        2 | 3 => dice.percent(15),
        _ => dice.percent(1),
    }
}

/// R and W, or P and R/W: mostly both.
fn rights(dice: &mut Dice) -> (bool, bool) {
    match dice.below(100) {
        0..5 => (false, false),
        5..13 => (true, false),
        13..18 => (false, true),
        _ => (true, true),
    }
}

pub(super) fn second_stage(level: u8, dice: &mut Dice) -> u64 {
    if dice.percent(1) {
        return dice.bits(64);
    }
    let leaf = is_leaf(level, dice);
    let (read, write) = rights(dice);
    let frame = if leaf { page(12 + 9 * u32::from(level.saturating_sub(1)), dice) } else { table(dice) };
    let entry = SecondStageEntry::new().with_read(read).with_write(write).with_page_size(leaf && level > 1).with_frame(frame);
    entry.into_bits() ^ noise(64, 5, &[2, 3, 6, 7, 8, 9, 10, 11, 12, 21, 29, 38, 39, 47, 48, 51, 52, 61, 62, 63], dice) as u64
}

pub(super) fn first_stage(level: u8, dice: &mut Dice) -> u64 {
    if dice.percent(1) {
        return dice.bits(64);
    }
    let leaf = is_leaf(level, dice);
    let frame = if leaf { page(12 + 9 * u32::from(level.saturating_sub(1)), dice) } else { table(dice) };
    let entry = FirstStageEntry::new()
        .with_present(!dice.percent(5))
        .with_write(!dice.percent(10))
        .with_user(!dice.percent(4))
        .with_accessed(dice.percent(50))
        .with_dirty(dice.percent(30))
        .with_page_size(leaf && level > 1)
        .with_frame(frame);
    entry.into_bits() ^ noise(64, 5, &[3, 4, 7, 8, 9, 10, 11, 12, 13, 21, 29, 47, 48, 51, 52, 62, 63], dice) as u64
}

const _: () = assert!(ROOT == LAYOUT.pool, "the image's root table is the pool's first page");
