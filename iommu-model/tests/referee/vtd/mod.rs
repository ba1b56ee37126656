//! Intel VT-d: `q35` with `intel-iommu`, against [`iommu_model::Unit`], in legacy mode and in scalable mode.

mod differences;
mod draw;
mod machine;
mod model;

use crate::architecture::{Architecture, Difference, Outcome, Request, Walked};
use crate::dice::Dice;
use crate::memory::{Layout, TableMemory, Word};
use crate::qemu::edu::Edu;
use crate::qemu::qtest::Script;
use crate::qemu::{Machine, Qemu};
use iommu_model::{Bdf, Unit};
use std::io;

/// What QEMU can be told to be, and the model with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// Legacy mode; input addresses have so many bits.
    Legacy { width: u8 },
    /// Scalable mode on a unit without first stage: second stage and pass-through.
    Second,
    /// Scalable mode on a unit without second stage: first stage and pass-through.
    First,
}

/// The configurations that are refereed.
pub(crate) fn configurations() -> Vec<Box<dyn Architecture>> {
    let modes = [Mode::Legacy { width: 48 }, Mode::Legacy { width: 39 }, Mode::Second, Mode::First];
    modes.into_iter().map(|mode| Box::new(Vtd::new(mode)) as Box<dyn Architecture>).collect()
}

/// The device, in QEMU and in the model.
const DEVICE: Bdf = Bdf::new(0, 4, 0);

/// VT-d in one mode.
pub(crate) struct Vtd {
    mode: Mode,
    unit: Unit,
    /// Where the next descriptor goes in QEMU's queue.
    tail: u64,
}

impl Vtd {
    pub(crate) fn new(mode: Mode) -> Self {
        Self { mode, unit: model::unit(mode), tail: 0 }
    }

    const fn is_scalable(&self) -> bool {
        !matches!(self.mode, Mode::Legacy { .. })
    }
}

impl Architecture for Vtd {
    fn name(&self) -> &'static str {
        match self.mode {
            Mode::Legacy { width: 39 } => "vtd legacy 39",
            Mode::Legacy { .. } => "vtd legacy 48",
            Mode::Second => "vtd scalable second",
            Mode::First => "vtd scalable first",
        }
    }

    fn layout(&self) -> Layout {
        machine::LAYOUT
    }

    fn machine(&self) -> Machine {
        machine::machine(self.mode)
    }

    fn device(&self) -> Edu {
        machine::EDU
    }

    fn boot(&mut self, qemu: &mut Qemu) -> io::Result<()> {
        self.tail = 0;
        machine::boot(self.mode, self.unit.capabilities(), qemu)
    }

    fn service_iova(&self) -> u64 {
        machine::SERVICE_IOVA
    }

    fn service_words(&self) -> Vec<Word> {
        machine::service_words()
    }

    fn flush(&mut self, script: &mut Script) {
        self.tail = machine::flush(self.is_scalable(), self.tail, script);
    }

    fn probe(&self, script: &mut Script) {
        machine::probe(script);
    }

    fn probe_values(&self) -> usize {
        1
    }

    fn fault(&mut self, values: &[u64], _: &Qemu) -> io::Result<Option<u16>> {
        Ok(machine::fault(values))
    }

    fn draw_stems(&self, dice: &mut Dice) -> Vec<u64> {
        draw::stems(self.mode, dice)
    }

    fn draw_request(&self, stems: &[u64], dice: &mut Dice) -> Request {
        draw::request(stems, dice)
    }

    fn reset(&mut self) {
        model::start(self.mode, &mut self.unit);
    }

    fn translate(&mut self, request: Request, memory: &mut TableMemory) -> Walked {
        model::translate(self.mode, &mut self.unit, request, memory)
    }

    fn shared_words(&self) -> usize {
        // Root entry, context entry; directory entry, PASID entry.
        if self.is_scalable() { 2 + 4 + 1 + 8 } else { 2 + 2 }
    }

    fn explain(&mut self, request: Request, image: &mut TableMemory, ours: Outcome, theirs: Outcome) -> Option<Difference> {
        differences::explain(self, request, image, ours, theirs)
    }

    fn explain_word(&self, ours: u64, theirs: u64) -> Option<Difference> {
        differences::explain_word(ours, theirs)
    }

    fn differences(&self) -> &'static [Difference] {
        &differences::ALL
    }
}
