//! Arm SMMUv3: `virt` with `iommu=smmuv3`, against [`iommu_model::smmu::Unit`].

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
use iommu_model::smmu::Unit;
use std::io;

/// What the stream table entries of an image mostly say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stages {
    One,
    Two,
    Nested,
}

/// A configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mode {
    stages: Stages,
    /// The stream table has two levels.
    two_level: bool,
    /// Nested: both stages have 16 KiB granules, not 4 KiB.
    large: bool,
}

/// The configurations that are refereed.
pub(crate) fn configurations() -> Vec<Box<dyn Architecture>> {
    let modes = [(Stages::One, false, false), (Stages::Two, true, false), (Stages::Nested, false, false), (Stages::Nested, false, true)];
    let new = |(stages, two_level, large)| Box::new(Smmu::new(Mode { stages, two_level, large })) as Box<dyn Architecture>;
    modes.into_iter().map(new).collect()
}

/// The device, in QEMU and in the model; its StreamID is its requester id.
const DEVICE: Bdf = Bdf::new(0, 4, 0);

/// An SMMU in one configuration.
pub(crate) struct Smmu {
    mode: Mode,
    unit: Unit,
    /// CMDQ_PROD of QEMU.
    commands: u32,
    /// EVENTQ_PROD of QEMU, as last seen.
    events: u32,
}

impl Smmu {
    pub(crate) fn new(mode: Mode) -> Self {
        Self { mode, unit: model::unit(mode), commands: 0, events: 0 }
    }
}

impl Architecture for Smmu {
    fn name(&self) -> &'static str {
        match self.mode.stages {
            Stages::One => "smmu stage 1",
            Stages::Two => "smmu stage 2, two-level",
            Stages::Nested if self.mode.large => "smmu nested, 16 KiB",
            Stages::Nested => "smmu nested",
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
        (self.commands, self.events) = (0, 0);
        machine::boot(self.mode, &self.unit, qemu)
    }

    fn service_iova(&self) -> u64 {
        // The service stream bypasses both stages.
        machine::LAYOUT.mailbox
    }

    fn service_words(&self) -> Vec<Word> {
        machine::service_words(self.mode)
    }

    fn prepare(&mut self, script: &mut Script) {
        machine::acknowledge(self.events, script);
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
        let seen = self.events;
        self.events = values.first().map_or(seen, |value| *value as u32);
        if self.events == seen { Ok(None) } else { machine::event(seen, qemu).map(Some) }
    }

    fn draw_stems(&self, dice: &mut Dice) -> Vec<u64> {
        draw::stems(self.mode, dice)
    }

    fn shared_words(&self) -> usize {
        // STE, and CD.
        8 + if self.mode.stages == Stages::Two { 1 } else { 8 }
    }

    fn ends_qemu(&self, trail: &[Word]) -> bool {
        differences::ends_qemu(trail)
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
