//! The RISC-V IOMMU: `virt` with `riscv-iommu-pci`, against [`iommu_model::riscv::Unit`].

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
use iommu_model::Bdf;
use iommu_model::riscv::Unit;
use std::io;

/// What the device contexts of an image mostly say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stages {
    First,
    Second,
    Nested,
}

/// A configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mode {
    stages: Stages,
    /// The device directory has two levels.
    two_level: bool,
}

/// The configurations that are refereed.
pub(crate) fn configurations() -> Vec<Box<dyn Architecture>> {
    let modes = [(Stages::First, false), (Stages::Second, true), (Stages::Nested, false)];
    let new = |(stages, two_level)| Box::new(Riscv::new(Mode { stages, two_level })) as Box<dyn Architecture>;
    modes.into_iter().map(new).collect()
}

/// The device, in QEMU and in the model; its device_id is its requester id.
const DEVICE: Bdf = Bdf::new(0, 2, 0);

/// A RISC-V IOMMU in one configuration.
pub(crate) struct Riscv {
    mode: Mode,
    unit: Unit,
    /// cqt of QEMU.
    commands: u32,
    /// fqt of QEMU, as last seen.
    faults: u32,
}

impl Riscv {
    pub(crate) fn new(mode: Mode) -> Self {
        Self { mode, unit: model::unit(mode), commands: 0, faults: 0 }
    }
}

impl Architecture for Riscv {
    fn name(&self) -> &'static str {
        match self.mode.stages {
            Stages::First => "riscv first stage",
            Stages::Second => "riscv second stage, two-level",
            Stages::Nested => "riscv nested",
        }
    }

    fn layout(&self) -> Layout {
        machine::LAYOUT
    }

    fn machine(&self) -> Machine {
        machine::machine()
    }

    fn device(&self) -> Edu {
        machine::EDU
    }

    fn boot(&mut self, qemu: &mut Qemu) -> io::Result<()> {
        (self.commands, self.faults) = (0, 0);
        machine::boot(self.mode, self.unit.capabilities(), qemu)
    }

    fn service_iova(&self) -> u64 {
        // Both stages of the service context are Bare.
        machine::LAYOUT.mailbox
    }

    fn service_words(&self) -> Vec<Word> {
        machine::service_words(self.mode)
    }

    fn prepare(&mut self, script: &mut Script) {
        machine::acknowledge(self.faults, script);
    }

    fn flush(&mut self, script: &mut Script) {
        self.commands = machine::flush(self.commands, script);
    }

    fn probe(&self, script: &mut Script) {
        machine::probe(script);
    }

    fn probe_values(&self) -> usize {
        1
    }

    fn fault(&mut self, values: &[u64], qemu: &Qemu) -> io::Result<Option<u16>> {
        let seen = self.faults;
        self.faults = values.first().map_or(seen, |value| *value as u32);
        if self.faults == seen { Ok(None) } else { machine::cause(seen, qemu).map(Some) }
    }

    fn draw_stems(&self, dice: &mut Dice) -> Vec<u64> {
        draw::stems(self.mode, dice)
    }

    fn shared_words(&self) -> usize {
        // The device context, and what leads to it.
        8 + usize::from(self.mode.two_level)
    }

    fn rights_decide(&self) -> bool {
        // QEMU does not advertise AMO_HWAD: nobody sets D.
        false
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

    fn explain(&mut self, request: Request, image: &mut TableMemory, ours: Outcome, theirs: Outcome) -> Option<Difference> {
        differences::explain(self, request, image, ours, theirs)
    }

    fn differences(&self) -> &'static [Difference] {
        &differences::ALL
    }
}
