//! Random entries: mostly right, sometimes wrong in one way, seldom noise. And addresses dense enough to share them.

use super::Mode;
use super::machine::LAYOUT;
use crate::architecture::Request;
use crate::dice::Dice;
use crate::memory::WORDS_MAX;
use iommu_model::spec::amd::device_table::DeviceEntryLow;
use iommu_model::spec::amd::host_table::{HostEntry, NEXT_LEAF, NEXT_SIZED};

/// The frames that an entry can name.
const FRAMES: u64 = (1 << 40) - 1;

/// First addresses that an image's requests are near to.
pub(super) fn stems(dice: &mut Dice) -> Vec<u64> {
    let mut stems: Vec<u64> = [48, 48, 39, 57].into_iter().map(|bits| dice.bits(bits) & !0xfff).collect();
    // Low ones, for few levels and for skipped ones.
    stems.push(dice.bits(31) & !0xfff);
    stems.push(dice.bits(25) & !0xfff);
    // All that six levels decode.
    stems.push(dice.bits(64) & !0xfff);
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
    if dice.percent(3) {
        iova |= 1 << (31 + dice.below(33));
    }
    // Interrupt addresses are another device's.
    if iova >> 20 == 0xfee {
        iova ^= 1 << 20;
    }
    Request { iova: (iova & !0xfff) | (u64::from(dice.below(1024)) * 4), write: dice.percent(40) }
}

/// Turns one of the bits over, seldom: one of these, as often as any.
fn noise(bits: u32, percent: u32, favoured: &[u32], dice: &mut Dice) -> u128 {
    if !dice.percent(percent) {
        return 0;
    }
    1 << if dice.percent(60) { dice.pick(favoured) } else { dice.below(bits) }
}

/// A table, or seldom something else.
fn table(dice: &mut Dice) -> u64 {
    let pa = match dice.below(100) {
        0 => LAYOUT.draw_data(dice),
        1 | 2 => LAYOUT.draw_void(dice, 51),
        _ => LAYOUT.draw_table(dice),
    };
    pa >> 12
}

pub(super) fn device(mode: Mode, dice: &mut Dice) -> [u64; WORDS_MAX] {
    let levels = match (mode, dice.below(100)) {
        (_, 0..3) => dice.below(8) as u8,
        (Mode::Any, _) => 1 + dice.below(6) as u8,
        (Mode::Four, _) => 4,
    };
    let entry = DeviceEntryLow::new()
        .with_valid(!dice.percent(3))
        .with_translation_valid(!dice.percent(3))
        .with_mode(levels)
        .with_root(table(dice))
        .with_read(!dice.percent(3))
        .with_write(!dice.percent(6))
        .with_domain(dice.below(16) as u16);
    let bits = entry.into_bits()
        ^ noise(128, 5, &[2, 3, 4, 5, 6, 7, 8, 51, 52, 53, 54, 55, 56, 57, 60, 63, 80, 96, 97, 98, 99, 101, 102, 103, 106], dice);
    let high = noise(128, 2, &[0, 5, 52, 54, 64], dice);
    [bits as u64, (bits >> 64) as u64, high as u64, (high >> 64) as u64, 0, 0, 0, 0]
}

/// The next level of an entry: mostly the one below, or a leaf at the end.
fn next_level(mode: Mode, level: u8, dice: &mut Dice) -> u8 {
    let end = if dice.percent(20) { NEXT_SIZED } else { NEXT_LEAF };
    match dice.below(100) {
        0..2 => dice.below(8) as u8,
        _ if level <= 1 => end,
        2..14 if level <= 3 => end,
        14..30 if mode == Mode::Any && level > 2 => level - 2,
        30..34 if mode == Mode::Any && level > 3 => 1 + dice.below(u32::from(level) - 2) as u8,
        14..17 if level > 2 => level - 2,
        _ => level - 1,
    }
}

pub(super) fn host(mode: Mode, level: u8, dice: &mut Dice) -> u64 {
    if dice.percent(1) {
        return dice.bits(64);
    }
    let next = next_level(mode, level, dice);
    let page = match dice.below(100) {
        0 => LAYOUT.draw_void(dice, 51),
        1 => LAYOUT.draw_table(dice),
        // An interrupt address.
        2 => 0xfee0_0000 | u64::from(dice.below(256)) << 12,
        _ => LAYOUT.draw_data(dice),
    } >> 12;
    let natural = 9 * u32::from(level.saturating_sub(1));
    let frame = match next {
        // The size is in the address: mostly one that belongs to the level.
        NEXT_SIZED => {
            let bits = natural + 1 + dice.below(9);
            ((page & !((1 << bits) - 1)) | ((1 << (bits - 1)) - 1)) & FRAMES
        }
        NEXT_LEAF if dice.percent(5) => page,
        NEXT_LEAF => page & !((1 << natural) - 1),
        _ => table(dice),
    };
    let (read, write) = match dice.below(100) {
        0..5 => (false, false),
        5..12 => (true, false),
        12..17 => (false, true),
        _ => (true, true),
    };
    let entry = HostEntry::new().with_present(!dice.percent(4)).with_next_level(next).with_frame(frame).with_read(read).with_write(write);
    entry.into_bits() ^ noise(64, 4, &[1, 2, 5, 6, 7, 12, 21, 30, 51, 52, 58, 59, 60, 63], dice) as u64
}
