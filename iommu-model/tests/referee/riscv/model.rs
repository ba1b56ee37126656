//! The model's unit as QEMU's one claims to be, and one request through it.

use super::{DEVICE, Mode, draw, machine};
use crate::architecture::{Request, Walked};
use crate::dice::Dice;
use crate::memory::{TableMemory, WORDS_MAX};
use crate::walk;
use iommu_model::riscv::{Capabilities, Register, Unit};
use iommu_model::spec::riscv::register::{QueueBase, RecordQueueControl};
use iommu_model::{FetchKind, Geometry, Params};

pub(super) fn unit(mode: Mode) -> Unit {
    let cap = Capabilities { svpbmt: false, amo_hwad: false, t2gpa: false, pd17: false, pd20: false, ..Capabilities::default() };
    let off = Geometry { sets: 1, ways: 0 };
    let mut unit = Unit::new(cap, Params { context: off, pasid: off, iotlb: off, psc: [off; 4], ..Params::default() });
    start(mode, &mut unit);
    unit
}

/// Reset, fault queue on, device directory set.
pub(super) fn start(mode: Mode, unit: &mut Unit) {
    unit.reset();
    unit.write_register(Register::Fqb, QueueBase::new().with_log2_size_minus_1(4).into_bits());
    unit.write_register(Register::Fqcsr, u64::from(RecordQueueControl::new().with_enable(true).into_bits()));
    unit.write_register(Register::Ddtp, machine::directory(mode).into_bits());
    unit.register_drained();
}

pub(super) fn translate(mode: Mode, unit: &mut Unit, request: Request, memory: &mut TableMemory) -> Walked {
    walk::translate(unit, DEVICE, request, memory, |kind, dice| draw_entry(mode, kind, dice))
}

fn draw_entry(mode: Mode, kind: FetchKind, dice: &mut Dice) -> [u64; WORDS_MAX] {
    let one = |word: u64| [word, 0, 0, 0, 0, 0, 0, 0];
    match kind {
        FetchKind::DeviceDirectory { .. } => one(draw::directory(dice)),
        FetchKind::ExtendedDeviceContext => draw::context(mode, dice),
        FetchKind::ProcessDirectory { .. } => one(draw::process_directory(mode, dice)),
        FetchKind::ProcessContext => draw::process(mode, dice),
        FetchKind::FirstStage { level } => one(draw::first_stage(mode, level, dice)),
        FetchKind::Table { level } => one(draw::second_stage(mode, level, dice)),
        FetchKind::MessageEntry => one(dice.bits(3)),
        other => unreachable!("a RISC-V IOMMU fetches no {other:?}"),
    }
}
