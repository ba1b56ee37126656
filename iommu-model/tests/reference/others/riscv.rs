//! RISC-V: a device context, and a first stage of Sv39.

use super::machine::Machine;
use super::reference::Rules;
use super::world::{CONTEXT, Command, Format, Outcome, PAGES, R, W};
use iommu_model::riscv::{Capabilities, CommandInput, CommandProgress, Register, Unit};
use iommu_model::{Decisions, Geometry, Params};

const VALID: u64 = 1;
const READ: u64 = 1 << 1;
const WRITE: u64 = 1 << 2;
/// U, A and D.
const USED: u64 = 1 << 4 | 1 << 6 | 1 << 7;

pub(crate) const FORMAT: Format = Format {
    // V; no second stage; PSCID; Sv39.
    context: |top, domain| [VALID, 0, domain << 12, 8 << 60 | top >> 12],
    detached: [0; 4],
    pointer: |_, table| table >> 12 << 10 | VALID,
    page: |frame, flags| frame >> 12 << 10 | VALID | USED | if flags & R != 0 { READ } else { 0 } | if flags & W != 0 { WRITE } else { 0 },
};

/// Missing and denied alike.
const fn page_fault(write: bool) -> Outcome {
    Outcome::Fault(if write { 15 } else { 13 }, false)
}

pub(crate) const RULES: Rules = Rules {
    context: |words| (words[0] & VALID != 0).then_some((words[2] >> 12 & 0xf_ffff, (words[3] & 0xfff_ffff_ffff) << 12)),
    caches_detached: false,
    caches_missing: false,
    detached: Outcome::Fault(258, false),
    flags: |entry, level| {
        let flags = if entry & READ != 0 { R } else { 0 } | if entry & WRITE != 0 { W } else { 0 };
        (entry & VALID != 0).then_some(if level == 1 { flags } else { R | W })
    },
    address: |entry| entry >> 10 << 12,
    missing: page_fault,
    denied: page_fault,
    looks_again_with_pointers: true,
};

impl Machine for Unit {
    fn new(_: bool) -> Self {
        let eight = Geometry::fully_associative(8);
        let params = Params { context: eight, pasid: eight, iotlb: eight, psc: [eight; 4], ..Params::default() };
        let mut unit = Self::new(Capabilities::default(), params);
        // 2^8 commands; cqen.
        unit.write_register(Register::Cqb, 7);
        unit.write_register(Register::Cqcsr, 1);
        // 1LVL.
        unit.write_register(Register::Ddtp, CONTEXT >> 12 << 10 | 2);
        unit.register_drained();
        unit
    }

    fn invalidate(&mut self, command: Command, d: &mut dyn Decisions) {
        // PSCV and PSCID; AV, and NL.
        let vma = |domain: u64| 1 | domain << 12 | 1 << 32;
        let words = match command {
            // IODIR.INVAL_DDT, DV.
            Command::Context => [3 | 1 << 33, 0],
            Command::Domain { domain } => [vma(domain), 0],
            Command::Page { domain, page, non_leaf } => [vma(domain) | 1 << 10 | u64::from(non_leaf) << 34, PAGES[page as usize] >> 2],
        };
        // An IOFENCE.C that stores nothing comes after it.
        let mut commands = [words, [2, 0]].into_iter();
        let tail = (self.read_register(Register::Cqt) + 2) % 256;
        self.write_register(Register::Cqt, tail);
        let mut input = CommandInput::Continue;
        loop {
            input = match self.command_queue_advance(input, d) {
                CommandProgress::Idle => return,
                CommandProgress::Fetch { .. } => CommandInput::Command(commands.next().expect("there are two")),
                CommandProgress::Deferred { .. } | CommandProgress::Invalidated { .. } | CommandProgress::Fenced { .. } => {
                    CommandInput::Continue
                }
                other => panic!("{other:?}"),
            };
        }
    }

    fn text(&self) -> String {
        self.snapshot().to_string()
    }

    fn cached(&self) -> usize {
        self.caches().len()
    }

    fn drop_one(&mut self, n: usize) -> bool {
        self.drop_cached(n)
    }
}
