//! What the referee needs to know of one architecture: its machine in QEMU, its unit in the model, what its entries look
//! like when they are mostly right, and which differences are known.

use crate::dice::Dice;
use crate::memory::{Layout, TableMemory, Word};
use crate::qemu::edu::Edu;
use crate::qemu::qtest::Script;
use crate::qemu::{Machine, Qemu};
use std::io;

/// What a request of the device is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Request {
    /// First byte, a multiple of 4. Four bytes are moved.
    pub(crate) iova: u64,
    /// To memory.
    pub(crate) write: bool,
}

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Outcome {
    /// It reached this byte.
    Passed(u64),
    /// It was blocked, with the architecture's fault code.
    Blocked(u16),
    /// It was blocked, and nobody is told.
    Silent,
    /// It is no access to memory (an interrupt message).
    Message,
}

/// What a translation claims to allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rights {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

/// The end of a walk of the model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Walked {
    pub(crate) outcome: Outcome,
    /// Of a request that passed.
    pub(crate) rights: Option<Rights>,
}

/// One reason for which QEMU may answer otherwise than the model.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Difference {
    /// Name in tables.
    pub(crate) name: &'static str,
    /// Why, in one line.
    pub(crate) reason: &'static str,
    /// Whose side the architecture takes.
    pub(crate) side: Side,
}

/// Whose side the architecture takes in a difference.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Side {
    /// The model follows the manual, QEMU does not.
    Model,
    /// The manual allows both, or does not say.
    Open,
}

/// One configuration of one architecture. Implementations hold a unit of the model.
pub(crate) trait Architecture {
    /// Name in tables and vectors; ASCII, at most 32 bytes.
    fn name(&self) -> &'static str;

    fn layout(&self) -> Layout;

    fn machine(&self) -> Machine;

    /// The device that makes the requests.
    fn device(&self) -> Edu;

    /// Programs devices and the IOMMU after power-on: tables that lead from `service_iova` to the mailbox in place, translation on.
    fn boot(&mut self, qemu: &mut Qemu) -> io::Result<()>;

    /// Makes RAM outside the pool and the data pages what `boot` has made it.
    fn restore(&self, qemu: &Qemu) -> io::Result<()> {
        let _ = qemu;
        Ok(())
    }

    /// The address at which the service tables map the layout's mailbox.
    fn service_iova(&self) -> u64;

    /// What has to be written before an image's requests, besides the image.
    fn prepare(&mut self, script: &mut Script) {
        let _ = script;
    }

    /// The words that make the device go through the service tables. An image replaces all of them by its own.
    fn service_words(&self) -> Vec<Word>;

    /// Drops everything that the IOMMU has cached.
    fn flush(&mut self, script: &mut Script);

    /// Asks whether the last request was blocked, and clears what would hide the next fault.
    fn probe(&self, script: &mut Script);

    /// How many values a probe reads.
    fn probe_values(&self) -> usize;

    /// The fault code that a probe's values tell. Called for every request in order.
    fn fault(&mut self, values: &[u64], qemu: &Qemu) -> io::Result<Option<u16>>;

    /// Addresses of a new image: every request of it is drawn from what is returned.
    fn draw_stems(&self, dice: &mut Dice) -> Vec<u64>;

    /// Words at the beginning of a walk that nearly all requests of an image read; races change them more seldom.
    fn shared_words(&self) -> usize;

    /// A request near one of the stems.
    fn draw_request(&self, stems: &[u64], dice: &mut Dice) -> Request;

    /// Whether QEMU's process would end of what a walk has fetched: such a request cannot be put to it.
    fn ends_qemu(&self, trail: &[Word]) -> bool {
        let _ = trail;
        false
    }

    /// Whether a translation's rights are all that decides about an access. Not so where a clear D refuses a write.
    fn rights_decide(&self) -> bool {
        true
    }

    /// Forgets everything cached, as `flush` does to QEMU.
    fn reset(&mut self);

    /// One request through the model's unit, with nothing cached.
    fn translate(&mut self, request: Request, memory: &mut TableMemory) -> Walked;

    /// Why QEMU may say `theirs` where the model says `ours`. `image` holds the words that QEMU saw; it may be changed, to
    /// try what the model says without a check that QEMU is known not to make. Only a reason that leads to what QEMU
    /// said counts.
    fn explain(&mut self, request: Request, image: &mut TableMemory, ours: Outcome, theirs: Outcome) -> Option<Difference>;

    /// Why QEMU may leave a word that walks set A or D in as `theirs`, where the model has `ours`.
    fn explain_word(&self, ours: u64, theirs: u64) -> Option<Difference> {
        let _ = (ours, theirs);
        None
    }

    /// Every difference that `explain` knows.
    fn differences(&self) -> &'static [Difference];
}
