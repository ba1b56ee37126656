//! The model's unit as QEMU's one claims to be, and one request through it.

use super::machine::ROOT;
use super::{DEVICE, Mode, draw};
use crate::architecture::{Request, Walked};
use crate::dice::Dice;
use crate::memory::{TableMemory, WORDS_MAX};
use crate::walk;
use iommu_model::spec::vtd::register::GlobalCommand;
use iommu_model::spec::vtd::root::{RootTableAddress, TTM_SCALABLE};
use iommu_model::{Capabilities, FetchKind, Geometry, Params, Plain, Register, Scalable, Unit};

pub(super) fn unit(mode: Mode) -> Unit {
    let width = match mode {
        Mode::Legacy { width } => width,
        Mode::Second | Mode::First => 48,
    };
    let scalable = Scalable {
        first_stage: mode == Mode::First,
        first_stage_5: false,
        first_stage_1g: mode == Mode::First,
        second_stage: mode == Mode::Second,
        nested: false,
        rid_pasid: false,
        rid_privileged: false,
        supervisor_requests: false,
        second_stage_accessed_dirty: false,
        extended_accessed: false,
        ..Scalable::default()
    };
    let cap = Capabilities {
        four_level: width == 48,
        five_level: false,
        guest_width: width,
        host_width: width,
        device_tlb: false,
        snoop_control: false,
        scalable: (!matches!(mode, Mode::Legacy { .. })).then_some(scalable),
        ..Capabilities::default()
    };
    let off = Geometry { sets: 1, ways: 0 };
    let mut unit = Unit::new(cap, Params { context: off, pasid: off, iotlb: off, psc: [off; 4], ..Params::default() });
    start(mode, &mut unit);
    unit
}

/// Power-on, root table set, translation on.
pub(super) fn start(mode: Mode, unit: &mut Unit) {
    unit.reset();
    let ttm = if matches!(mode, Mode::Legacy { .. }) { 0 } else { TTM_SCALABLE };
    let root = RootTableAddress::new().with_table(ROOT >> 12).with_mode(ttm);
    unit.write_register(Register::Rtaddr, root.into_bits(), &mut Plain);
    for command in [GlobalCommand::new().with_set_root_table(true), GlobalCommand::new().with_translation_enable(true)] {
        unit.write_register(Register::Gcmd, u64::from(command.into_bits()), &mut Plain);
    }
    unit.register_drained();
}

pub(super) fn translate(mode: Mode, unit: &mut Unit, request: Request, memory: &mut TableMemory) -> Walked {
    walk::translate(unit, DEVICE, request, memory, |kind, dice| draw_entry(mode, kind, dice))
}

fn draw_entry(mode: Mode, kind: FetchKind, dice: &mut Dice) -> [u64; WORDS_MAX] {
    let mut words = [0; WORDS_MAX];
    let wide = |value: u128| [value as u64, (value >> 64) as u64];
    match kind {
        FetchKind::Root => words[..2].copy_from_slice(&wide(draw::root(dice))),
        FetchKind::Context => words[..2].copy_from_slice(&wide(draw::context(mode, dice))),
        FetchKind::ScalableContext => words[..4].copy_from_slice(&draw::scalable_context(dice)),
        FetchKind::PasidDirectory => words[0] = draw::directory(dice),
        FetchKind::PasidEntry => words = draw::pasid(mode, dice),
        FetchKind::Table { level } => words[0] = draw::second_stage(level, dice),
        FetchKind::FirstStage { level } => words[0] = draw::first_stage(level, dice),
        other => unreachable!("VT-d fetches no {other:?}"),
    }
    words
}
