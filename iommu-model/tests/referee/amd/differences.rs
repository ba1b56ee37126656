//! Where QEMU is known to answer otherwise, and why.
//!
//! A check that QEMU does not make, or makes elsewhere, is taken away from the model by making the words right that it
//! objects to, or by one of its knobs. Only if the model then says what QEMU said is the difference explained.

use super::machine::LAYOUT;
use super::{Amd, Mode, model};
use crate::architecture::{Architecture, Difference, Outcome, Request, Side};
use crate::memory::{Place, TableMemory, Word};
use iommu_model::amd::Unit;
use iommu_model::spec::amd::device_table::{DeviceEntryHigh, DeviceEntryLow};
use iommu_model::spec::amd::event::EventCode;
use iommu_model::spec::amd::host_table::{HostEntry, NEXT_LEAF, NEXT_SIZED};

const RESERVED: Difference = Difference {
    name: "reserved bits of host entries",
    reason: "QEMU does not look at them; the model does, by a knob",
    side: Side::Model,
};
const WIDTH: Difference = Difference {
    name: "width of the address",
    reason: "QEMU does not look at address bits above what the levels decode; the model does, by a knob",
    side: Side::Open,
};
const WIDTH_FIRST: Difference = Difference {
    name: "width before the root table",
    reason: "QEMU looks at the width of the address (2) before it reads the root table (4)",
    side: Side::Open,
};
const DEVICE_RESERVED: Difference = Difference {
    name: "reserved bits of a device table entry",
    reason: "QEMU does not look at HAD, nor at what belongs to guest translation",
    side: Side::Model,
};
const INVALID_RESERVED: Difference = Difference {
    name: "reserved bits with V clear",
    reason: "QEMU refuses them (1) though nothing else counts where V is clear",
    side: Side::Model,
};
const INTERRUPT_RESERVED: Difference = Difference {
    name: "interrupt half of a device table entry",
    reason: "QEMU refuses reserved bits there (1) though IV is clear",
    side: Side::Open,
};
const SILENT_DEVICE: Difference =
    Difference { name: "TV clear, or mode 7", reason: "QEMU blocks the request and logs no event", side: Side::Open };
const RIGHTS: Difference = Difference {
    name: "rights above the leaf",
    reason: "QEMU goes on where the device table entry or a table entry lacks IR or IW; the request may pass, to an address not followed here",
    side: Side::Model,
};
const SUPPRESSED: Difference = Difference { name: "SA", reason: "QEMU logs page faults though SA is set", side: Side::Model };
const SKIPPED: Difference = Difference { name: "address bits of skipped levels", reason: "QEMU does not look at them", side: Side::Model };
const OVERSIZED: Difference = Difference {
    name: "size of leaves",
    reason: "QEMU takes the size that the address tells, whatever the level, and a leaf at level 6",
    side: Side::Open,
};
const INTERRUPT_RANGE: Difference =
    Difference { name: "output in the interrupt range", reason: "QEMU does not look at it", side: Side::Open };

pub(super) const ALL: [Difference; 12] = [
    RESERVED,
    WIDTH,
    WIDTH_FIRST,
    DEVICE_RESERVED,
    INVALID_RESERVED,
    INTERRUPT_RESERVED,
    SILENT_DEVICE,
    RIGHTS,
    SUPPRESSED,
    SKIPPED,
    OVERSIZED,
    INTERRUPT_RANGE,
];

/// Units without the checks that are knobs, and what it is called that QEMU lacks them.
pub(super) fn lenient_units() -> Vec<(Unit, Difference)> {
    vec![(model::unit(false, true), RESERVED), (model::unit(true, false), WIDTH), (model::unit(false, false), WIDTH)]
}

/// Checks that may have to be taken away one after another.
const STEPS_MAX: usize = 10;

pub(super) fn explain(amd: &mut Amd, request: Request, image: &mut TableMemory, ours: Outcome, theirs: Outcome) -> Option<Difference> {
    let mode = amd.mode;
    amd.reset();
    amd.translate(request, image);
    if let Some(why) = by_device(request, &image.trail, theirs) {
        return Some(why);
    }
    let page_fault = Outcome::Blocked(u16::from(EventCode::PAGE_FAULT.0));
    if ours == page_fault && matches!(theirs, Outcome::Passed(_)) && lacks_right_above_leaf(request, &image.trail) {
        return Some(RIGHTS);
    }
    let before = image.image();
    let mut tried = explain_by(mode, &mut amd.unit, request, image, ours, theirs, None);
    for (unit, difference) in &mut amd.lenient {
        if tried.is_none() {
            image.restore(&before);
            model::start(unit);
            let ours = model::translate(mode, unit, request, image).outcome;
            tried = explain_by(mode, unit, request, image, ours, theirs, Some(*difference));
        }
    }
    tried
}

fn explain_by(
    mode: Mode,
    unit: &mut Unit,
    request: Request,
    image: &mut TableMemory,
    ours: Outcome,
    theirs: Outcome,
    why: Option<Difference>,
) -> Option<Difference> {
    let (mut ours, mut request, mut why) = (ours, request, why);
    for _ in 0..STEPS_MAX {
        // Where a healed walk leaves what is known, nobody can say what QEMU finds.
        if ours == theirs || (why.is_some() && (image.lost || untold(request, ours, theirs))) {
            return why;
        }
        let by = heal(&mut request, image, ours, theirs)?;
        why = why.or(Some(by));
        if by == OVERSIZED || by == INTERRUPT_RANGE {
            return why;
        }
        model::start(unit);
        ours = model::translate(mode, unit, request, image).outcome;
    }
    None
}

/// Whether the walk ended at a device table entry or a table entry that denies the request.
fn lacks_right_above_leaf(request: Request, trail: &[Word]) -> bool {
    if trail.len() == 4 {
        return device_entry(trail).is_some_and(|(low, _)| !if request.write { low.write() } else { low.read() });
    }
    let entry = trail.last().map_or(HostEntry::new(), |(_, word)| HostEntry::from_bits(*word));
    let leaf = matches!(entry.next_level(), NEXT_LEAF | NEXT_SIZED);
    entry.present() && !leaf && !if request.write { entry.write() } else { entry.read() }
}

/// Both passed, and nothing tells where to.
fn untold(request: Request, ours: Outcome, theirs: Outcome) -> bool {
    match (ours, theirs) {
        (Outcome::Passed(pa), Outcome::Passed(_)) => request.write || LAYOUT.place(pa) != Place::Data,
        _ => false,
    }
}

/// The device table entry that a walk has read.
fn device_entry(trail: &[Word]) -> Option<(DeviceEntryLow, DeviceEntryHigh)> {
    let wide = |n: usize| Some(u128::from(trail.get(n)?.1) | u128::from(trail.get(n + 1)?.1) << 64);
    Some((DeviceEntryLow::from_bits(wide(0)?), DeviceEntryHigh::from_bits(wide(2)?)))
}

/// Why QEMU may say so of a device table entry alone.
fn by_device(request: Request, trail: &[Word], theirs: Outcome) -> Option<Difference> {
    let (low, high) = device_entry(trail)?;
    let silent = matches!(theirs, Outcome::Passed(pa) if request.write || pa == 0);
    let illegal = theirs == Outcome::Blocked(u16::from(EventCode::ILLEGAL_DEVICE_ENTRY.0));
    if silent && low.valid() && (!low.translation_valid() || low.mode() == 7) {
        return Some(SILENT_DEVICE);
    }
    if illegal && !low.valid() {
        return Some(INVALID_RESERVED);
    }
    (illegal && high.into_bits() != 0).then_some(INTERRUPT_RESERVED)
}

/// Takes the check away that the model's last answer came from.
fn heal(request: &mut Request, image: &mut TableMemory, ours: Outcome, theirs: Outcome) -> Option<Difference> {
    let (low, _) = device_entry(&image.trail)?;
    let (device, nr_words) = (image.trail[0].0, image.trail.len());
    let mut amend_device = |entry: DeviceEntryLow| {
        image.amend(device, entry.into_bits() as u64);
        image.amend(device + 8, (entry.into_bits() >> 64) as u64);
    };
    if ours == Outcome::Silent && low.suppress_all() {
        amend_device(low.with_suppress_all(false));
        return Some(SUPPRESSED);
    }
    let Outcome::Blocked(code) = ours else { return None };
    match EventCode(code as u8) {
        EventCode::ILLEGAL_DEVICE_ENTRY => {
            // What has nothing to do with host translation.
            let legal = DeviceEntryLow::new().with_valid(low.valid()).with_translation_valid(low.translation_valid());
            let legal = legal.with_mode(low.mode()).with_root(low.root()).with_read(low.read()).with_write(low.write());
            let legal = legal.with_domain(low.domain());
            amend_device(legal);
            (legal != low).then_some(DEVICE_RESERVED)
        }
        EventCode::PAGE_TABLE_HARDWARE if nr_words == 4 && theirs == Outcome::Blocked(u16::from(EventCode::PAGE_FAULT.0)) => {
            amend_device(low.with_root(LAYOUT.pool >> 12));
            Some(WIDTH_FIRST)
        }
        EventCode::PAGE_FAULT if nr_words == 4 => {
            amend_device(low.with_read(true).with_write(true));
            (!low.read() || !low.write()).then_some(RIGHTS)
        }
        EventCode::PAGE_FAULT => heal_entry(request, image, low, theirs),
        _ => None,
    }
}

/// Where a leaf leads if its level does not count.
fn leaf_target(entry: HostEntry, levels: u8, nr_words: usize, iova: u64) -> Option<u64> {
    let bytes_bits = match entry.next_level() {
        NEXT_SIZED => entry.frame().trailing_ones() + 13,
        // A leaf at level 6 maps all that a table there has; at other levels it is only its target that can be refused.
        NEXT_LEAF if nr_words == 5 && levels == 6 => 57,
        NEXT_LEAF => 12,
        _ => return None,
    };
    let mask = (1_u64 << bytes_bits.min(63)) - 1;
    Some((entry.frame() << 12) & !mask | iova & mask)
}

/// The same for the host entry that the walk ended at.
fn heal_entry(request: &mut Request, image: &mut TableMemory, device: DeviceEntryLow, theirs: Outcome) -> Option<Difference> {
    let (pa, word) = *image.trail.last()?;
    let entry = HostEntry::from_bits(word);
    if !entry.present() {
        return None;
    }
    let amd_rights = device.read() && device.write();
    if !entry.read() || !entry.write() || !amd_rights {
        let leaf = matches!(entry.next_level(), NEXT_LEAF | NEXT_SIZED);
        // QEMU does look at the leaf.
        if leaf && amd_rights && !if request.write { entry.write() } else { entry.read() } {
            return None;
        }
        image.amend(pa, entry.with_read(true).with_write(true).into_bits());
        let (first, low) = (image.trail[0].0, device.with_read(true).with_write(true));
        image.amend(first, low.into_bits() as u64);
        return Some(RIGHTS);
    }
    if let Some(to) = leaf_target(entry, device.mode(), image.trail.len(), request.iova) {
        let interrupt = to >> 20 == 0xfee;
        let goes_there = theirs == Outcome::Passed(to) || untold(*request, Outcome::Passed(to), theirs);
        return goes_there.then_some(if interrupt { INTERRUPT_RANGE } else { OVERSIZED });
    }
    // The entry's level is told by the one above it.
    let above =
        image.trail.len().checked_sub(2).filter(|place| *place >= 4).map(|place| HostEntry::from_bits(image.trail[place].1).next_level());
    let level = above.unwrap_or(device.mode());
    let skipped = entry.next_level() + 1..level;
    let bits = |level: u8| 0x1ff_u64 << (12 + 9 * u32::from(level.saturating_sub(1))).min(63);
    let cleared = skipped.fold(request.iova, |iova, level| iova & !bits(level));
    (core::mem::replace(&mut request.iova, cleared) != cleared).then_some(SKIPPED)
}
