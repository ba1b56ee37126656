//! AMD-Vi: `q35` with `amd-iommu`, against [`iommu_model::amd::Unit`]. QEMU has host page tables only.

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
use iommu_model::amd::Unit;
use std::io;

/// How deep the host page tables of an image mostly are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// Four levels, each table on the next level.
    Four,
    /// One to six levels, some of them skipped.
    Any,
}

/// The configurations that are refereed.
pub(crate) fn configurations() -> Vec<Box<dyn Architecture>> {
    [Mode::Four, Mode::Any].into_iter().map(|mode| Box::new(Amd::new(mode)) as Box<dyn Architecture>).collect()
}

/// The device, in QEMU and in the model.
const DEVICE: Bdf = Bdf::new(0, 4, 0);

/// An AMD-Vi unit.
pub(crate) struct Amd {
    mode: Mode,
    unit: Unit,
    /// Units that leave out one or both of the checks that the model has as knobs.
    lenient: Vec<(Unit, Difference)>,
    /// Command buffer tail of QEMU.
    commands: u64,
    /// Event log tail of QEMU, as last seen.
    events: u64,
}

impl Amd {
    pub(crate) fn new(mode: Mode) -> Self {
        Self { mode, unit: model::unit(true, true), lenient: differences::lenient_units(), commands: 0, events: 0 }
    }
}

impl Architecture for Amd {
    fn name(&self) -> &'static str {
        match self.mode {
            Mode::Four => "amd four levels",
            Mode::Any => "amd any levels",
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
        machine::boot(qemu)
    }

    fn restore(&self, qemu: &Qemu) -> io::Result<()> {
        machine::restore(qemu)
    }

    fn service_iova(&self) -> u64 {
        machine::SERVICE_IOVA
    }

    fn service_words(&self) -> Vec<Word> {
        machine::service_words()
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
        self.events = values.first().map_or(seen, |value| *value);
        if self.events == seen { Ok(None) } else { machine::event(seen, qemu).map(Some) }
    }

    fn draw_stems(&self, dice: &mut Dice) -> Vec<u64> {
        draw::stems(dice)
    }

    fn shared_words(&self) -> usize {
        // The device table entry.
        4
    }

    fn draw_request(&self, stems: &[u64], dice: &mut Dice) -> Request {
        draw::request(stems, dice)
    }

    fn reset(&mut self) {
        model::start(&mut self.unit);
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
