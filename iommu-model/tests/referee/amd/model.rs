//! The model's unit as QEMU's one claims to be, and one request through it.

use super::{DEVICE, Mode, draw, machine};
use crate::architecture::{Request, Walked};
use crate::dice::Dice;
use crate::memory::{TableMemory, WORDS_MAX};
use crate::walk;
use iommu_model::amd::{Capabilities, Register, Unit};
use iommu_model::spec::amd::control::Control;
use iommu_model::spec::amd::register::BufferBase;
use iommu_model::{FetchKind, Geometry, Params};

/// A unit with or without the checks that the model has as knobs.
pub(super) fn unit(checks_reserved: bool, checks_input_width: bool) -> Unit {
    let cap = Capabilities {
        guest_translation: false,
        host_accessed: false,
        host_dirty: false,
        checks_reserved,
        checks_input_width,
        ..Capabilities::default()
    };
    let off = Geometry { sets: 1, ways: 0 };
    let mut unit = Unit::new(cap, Params { context: off, pasid: off, iotlb: off, psc: [off; 4], ..Params::default() });
    start(&mut unit);
    unit
}

/// Reset, device table set, translation and event log on.
pub(super) fn start(unit: &mut Unit) {
    unit.reset();
    let on = Control::new().with_enable(true).with_event_log(true).into_bits();
    unit.write_register(Register::DeviceTableBase, machine::device_table().into_bits());
    unit.write_register(Register::EventBase, BufferBase::new().with_length(8).into_bits());
    unit.write_register(Register::Control, on);
}

pub(super) fn translate(mode: Mode, unit: &mut Unit, request: Request, memory: &mut TableMemory) -> Walked {
    walk::translate(unit, DEVICE, request, memory, |kind, dice| draw_entry(mode, kind, dice))
}

fn draw_entry(mode: Mode, kind: FetchKind, dice: &mut Dice) -> [u64; WORDS_MAX] {
    match kind {
        FetchKind::DeviceTableEntry => draw::device(mode, dice),
        FetchKind::Table { level } => [draw::host(mode, level, dice), 0, 0, 0, 0, 0, 0, 0],
        other => unreachable!("without guest translation nothing fetches {other:?}"),
    }
}
