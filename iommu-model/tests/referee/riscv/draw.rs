//! Random entries: mostly right, sometimes wrong in one way, seldom noise. And addresses dense enough to share them.

use super::machine::LAYOUT;
use super::{Mode, Stages};
use crate::architecture::Request;
use crate::dice::Dice;
use crate::memory::WORDS_MAX;
use iommu_model::spec::riscv::device_context::{
    DirectoryEntry, MODE_BARE, MODE_PD8, MODE_PD17, MODE_PD20, MODE_SV39, MODE_SV48, MODE_SV57, SecondStagePointer, TablePointer,
    TranslationAttributes, TranslationControl,
};
use iommu_model::spec::riscv::paging::{NAPOT_64K, PageTableEntry};
use iommu_model::spec::riscv::process_context::ProcessAttributes;

/// First of the guest-physical addresses that nested tables and pages lie at.
const GUEST: u64 = 0x4000_0000;
/// How many of them there are.
const GUEST_PAGES: u32 = 48;

/// First addresses that an image's requests are near to.
pub(super) fn stems(mode: Mode, dice: &mut Dice) -> Vec<u64> {
    // Below what Sv39 takes without its sign, and with the two bits more of a second stage.
    let width = if mode.stages == Stages::Second { 41 } else { 38 };
    let mut stems: Vec<u64> = (0..3).map(|_| dice.bits(width) & !0xfff).collect();
    stems.push(dice.bits(25) & !0xfff);
    // What the longer schemes take, and its mirror image in the upper half.
    let wider = dice.pick(&[47, 49, 56, 58]);
    stems.push(dice.bits(wider) & !0xfff);
    let width = dice.pick(&[38, 47, 56]);
    stems.push(!dice.bits(width) & !0xfff);
    stems
}

/// A request that shares most table entries with its neighbours.
pub(super) fn request(stems: &[u64], dice: &mut Dice) -> Request {
    // Mostly what Sv39 takes.
    let mut iova = if dice.percent(80) { dice.pick(&stems[..4]) } else { dice.pick(stems) };
    for level_shift in [12, 21, 30] {
        if dice.percent(40) {
            iova ^= u64::from(dice.below(4)) << level_shift;
        }
    }
    match dice.below(100) {
        0..4 => iova |= 1 << (38 + dice.below(26)),
        4..8 => iova |= u64::MAX << 38,
        8 => iova |= dice.bits(57) & !0xfff,
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
        1 => LAYOUT.draw_void(dice, 55),
        2 => LAYOUT.draw_void(dice, 40),
        _ => LAYOUT.draw_table(dice),
    }
}

/// A table as the first stage knows it.
fn table(mode: Mode, dice: &mut Dice) -> u64 {
    match mode.stages {
        Stages::Nested if !dice.percent(2) => GUEST + u64::from(dice.below(GUEST_PAGES)) * 4096,
        _ => physical_table(dice),
    }
}

/// A page at a physical address, or seldom something else.
fn physical_page(dice: &mut Dice) -> u64 {
    match dice.below(100) {
        0 => LAYOUT.draw_void(dice, 55),
        1 => LAYOUT.draw_void(dice, 40),
        2 => LAYOUT.draw_table(dice),
        _ => LAYOUT.draw_data(dice),
    }
}

pub(super) fn directory(dice: &mut Dice) -> u64 {
    let entry = DirectoryEntry::new().with_valid(!dice.percent(3)).with_ppn(physical_table(dice) >> 12);
    entry.into_bits() ^ noise(3, &[1, 9, 53, 54, 63], dice)
}

/// MODE of a first stage: mostly Sv39.
fn first_mode(dice: &mut Dice) -> u8 {
    match dice.below(100) {
        0..3 => dice.below(16) as u8,
        3..6 => MODE_BARE,
        6..20 => MODE_SV48,
        20..34 => MODE_SV57,
        _ => MODE_SV39,
    }
}

pub(super) fn context(mode: Mode, dice: &mut Dice) -> [u64; WORDS_MAX] {
    let processes = mode.stages != Stages::Second && dice.percent(15);
    let control = TranslationControl::new()
        .with_valid(!dice.percent(2))
        .with_process_directory(processes)
        .with_default_process(processes && !dice.percent(20))
        .with_disable_faults(dice.percent(2));
    let second = match mode.stages {
        Stages::First => MODE_BARE,
        _ => first_mode(dice),
    };
    let root = physical_table(dice) & if dice.percent(3) { !0 } else { !0x3fff };
    let second = SecondStagePointer::new().with_mode(second).with_ppn(root >> 12).with_gscid(dice.below(16) as u16);
    let attributes = TranslationAttributes::new().with_pscid(dice.below(16));
    let pointer = match mode.stages {
        _ if processes => match dice.below(100) {
            0..4 => dice.below(16) as u8,
            4..8 => MODE_BARE,
            8..30 => MODE_PD17,
            30..50 => MODE_PD20,
            _ => MODE_PD8,
        },
        Stages::Second => MODE_BARE,
        _ => first_mode(dice),
    };
    let first = TablePointer::new().with_mode(pointer).with_ppn(table(mode, dice) >> 12);
    let mut words = [
        control.into_bits() ^ noise(4, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 24, 32, 63], dice),
        second.into_bits() ^ noise(1, &[0, 1, 43, 44], dice),
        attributes.into_bits() ^ noise(2, &[0, 11, 32, 40, 52], dice),
        first.into_bits() ^ noise(2, &[43, 44, 59], dice),
        0,
        0,
        0,
        0,
    ];
    if dice.percent(2) {
        words[4 + dice.below(4) as usize] = 1 << dice.below(64);
    }
    words
}

pub(super) fn process_directory(mode: Mode, dice: &mut Dice) -> u64 {
    let entry = DirectoryEntry::new().with_valid(!dice.percent(4)).with_ppn(table(mode, dice) >> 12);
    entry.into_bits() ^ noise(3, &[1, 9, 53, 54, 63], dice)
}

pub(super) fn process(mode: Mode, dice: &mut Dice) -> [u64; WORDS_MAX] {
    let attributes = ProcessAttributes::new()
        .with_valid(!dice.percent(4))
        .with_enable_supervisor(dice.percent(30))
        .with_supervisor_user_memory(dice.percent(30))
        .with_pscid(dice.below(16));
    let pointer = TablePointer::new().with_mode(first_mode(dice)).with_ppn(table(mode, dice) >> 12);
    [attributes.into_bits() ^ noise(3, &[3, 11, 32, 63], dice), pointer.into_bits() ^ noise(2, &[43, 44, 59], dice), 0, 0, 0, 0, 0, 0]
}

/// R, W, X: mostly readable and writable.
fn rights(entry: PageTableEntry, dice: &mut Dice) -> PageTableEntry {
    let (read, write, execute) = match dice.below(100) {
        0..8 => (true, false, false),
        8..11 => (false, true, false),
        11..14 => (false, false, true),
        14..17 => (true, false, true),
        17..19 => (false, true, true),
        19..30 => (true, true, true),
        _ => (true, true, false),
    };
    entry.with_read(read).with_write(write).with_execute(execute)
}

/// Whether an entry is a leaf; levels count down to 1.
fn is_leaf(level: u8, dice: &mut Dice) -> bool {
    match level {
        1 => !dice.percent(2),
        2 | 3 => dice.percent(12),
        _ => dice.percent(2),
    }
}

fn entry(leaf: bool, level: u8, frame: u64, dice: &mut Dice) -> u64 {
    let aligned = if dice.percent(5) { frame } else { frame & !((1 << (9 * u32::from(level.saturating_sub(1)))) - 1) };
    let mut entry = PageTableEntry::new()
        .with_valid(!dice.percent(4))
        .with_user(!dice.percent(if leaf { 4 } else { 97 }))
        .with_global(dice.percent(10))
        .with_ppn(if leaf { aligned } else { frame });
    if leaf {
        entry = rights(entry, dice).with_accessed(!dice.percent(5)).with_dirty(!dice.percent(12));
        if level == 1 && dice.percent(5) {
            let low = if dice.percent(20) { u64::from(dice.below(16)) } else { NAPOT_64K };
            entry = entry.with_napot(true).with_ppn(entry.ppn() & !0xf | low);
        }
    }
    entry.into_bits() ^ noise(4, &[4, 6, 7, 8, 10, 18, 19, 53, 54, 58, 59, 60, 61, 62, 63], dice)
}

pub(super) fn first_stage(mode: Mode, level: u8, dice: &mut Dice) -> u64 {
    if dice.percent(1) {
        return dice.bits(64);
    }
    let leaf = is_leaf(level, dice);
    let pa = match (leaf, mode.stages) {
        (true, Stages::Nested) => GUEST + u64::from(dice.below(GUEST_PAGES)) * 4096,
        (true, _) => physical_page(dice),
        _ => table(mode, dice),
    };
    entry(leaf, level, pa >> 12, dice)
}

pub(super) fn second_stage(mode: Mode, level: u8, dice: &mut Dice) -> u64 {
    // A nested walk goes through many of these: two of three are flawless.
    let nested = mode.stages == Stages::Nested;
    let leaf = is_leaf(level, dice);
    let pa = match (leaf, nested) {
        (true, true) if dice.percent(60) => LAYOUT.draw_table(dice),
        (true, _) => physical_page(dice),
        _ => physical_table(dice),
    };
    if nested && !dice.percent(33) {
        let frame = if leaf { (pa >> 12) & !((1 << (9 * u32::from(level.saturating_sub(1)))) - 1) } else { pa >> 12 };
        let entry = PageTableEntry::new().with_valid(true).with_ppn(frame);
        let entry = if leaf { entry.with_read(true).with_write(true).with_user(true).with_accessed(true).with_dirty(true) } else { entry };
        return entry.into_bits();
    }
    if dice.percent(1) {
        return dice.bits(64);
    }
    entry(leaf, level, pa >> 12, dice)
}
