//! The model's unit as QEMU's one claims to be, and one request through it.

use super::{DEVICE, Mode, draw, machine};
use crate::architecture::{Request, Walked};
use crate::dice::Dice;
use crate::memory::{TableMemory, WORDS_MAX};
use crate::walk;
use iommu_model::smmu::{Capabilities, HardwareUpdate, Params, Register, Unit};
use iommu_model::spec::smmu::register::{Control0, QueueBase};
use iommu_model::{FetchKind, Geometry};

pub(super) fn unit(mode: Mode) -> Unit {
    let cap = Capabilities {
        context_2_level: false,
        substream_bits: 0,
        hardware_update: HardwareUpdate::None,
        output_bits: 44,
        ..Capabilities::default()
    };
    let off = Geometry { sets: 1, ways: 0 };
    let caches = Params {
        stream: off,
        context: off,
        level_1: off,
        tlb: off,
        privileged: true,
        walk_1: [off; 3],
        walk_2: [off; 3],
        ..Params::default()
    };
    let mut unit = Unit::new(cap, caches);
    start(mode, &mut unit);
    unit
}

/// Reset, stream table set, translation and event queue on.
pub(super) fn start(mode: Mode, unit: &mut Unit) {
    unit.reset();
    let (base, config) = machine::stream_table(mode);
    unit.write_register(Register::StrtabBase, base.into_bits());
    unit.write_register(Register::StrtabBaseCfg, config.into_bits().into());
    unit.write_register(Register::EventqBase, QueueBase::new().with_size(4).into_bits());
    unit.write_register(Register::Cr2, 2);
    let on = Control0::new().with_enable(true).with_event_queue(true);
    unit.write_register(Register::Cr0, on.into_bits().into());
    unit.register_drained();
}

pub(super) fn translate(mode: Mode, unit: &mut Unit, request: Request, memory: &mut TableMemory) -> Walked {
    walk::translate(unit, DEVICE, request, memory, |kind, dice| draw_entry(mode, kind, dice))
}

fn draw_entry(mode: Mode, kind: FetchKind, dice: &mut Dice) -> [u64; WORDS_MAX] {
    let one = |word: u64| [word, 0, 0, 0, 0, 0, 0, 0];
    match kind {
        FetchKind::StreamLevel1 => one(draw::stream_level_1(dice)),
        FetchKind::StreamEntry => draw::stream_entry(mode, dice),
        FetchKind::ContextLevel1 => one(draw::context_level_1(mode, dice)),
        FetchKind::ContextDescriptor => draw::context(mode, dice),
        FetchKind::Stage1 { level } => one(draw::stage_1(mode, level, dice)),
        FetchKind::Stage2 { level } => one(draw::stage_2(mode, level, dice)),
        other => unreachable!("an SMMU fetches no {other:?}"),
    }
}
