//! SMMUv3: a stream table entry, and stage 2 of three levels.

use super::machine::Machine;
use super::reference::Rules;
use super::world::{CONTEXT, Command, Format, Outcome, PAGES, R, W};
use iommu_model::smmu::{Capabilities, CommandInput, CommandProgress, Params, Register, Unit};
use iommu_model::{Decisions, Geometry};

const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
/// Valid, table or page.
const ENTRY: u64 = 3;
const ACCESSED: u64 = 1 << 10;
const READ: u64 = 1 << 6;
const WRITE: u64 = 1 << 7;

pub(crate) const FORMAT: Format = Format {
    // V, Config 110; S2VMID, S2T0SZ 25, S2SL0 1, S2PS 48 bits, S2AA64, S2R; S2TTB.
    context: |top, domain| [1 | 6 << 1, 0, domain | 25 << 32 | 1 << 38 | 5 << 48 | 1 << 51 | 1 << 58, top],
    detached: [0; 4],
    pointer: |_, table| table | ENTRY,
    page: |frame, flags| {
        let rights = if flags & R != 0 { READ } else { 0 } | if flags & W != 0 { WRITE } else { 0 };
        frame | ENTRY | ACCESSED | rights
    },
};

pub(crate) const RULES: Rules = Rules {
    context: |words| (words[0] & 1 != 0).then_some((words[2] & 0xffff, words[3] & ADDRESS)),
    caches_detached: true,
    caches_missing: false,
    detached: Outcome::Fault(0x04, false),
    flags: |entry, level| {
        let flags = if entry & READ != 0 { R } else { 0 } | if entry & WRITE != 0 { W } else { 0 };
        (entry & 1 != 0).then_some(if level == 1 { flags } else { R | W })
    },
    address: |entry| entry & ADDRESS,
    missing: |_| Outcome::Fault(0x10, false),
    denied: |_| Outcome::Fault(0x13, false),
    looks_again_with_pointers: false,
};

impl Machine for Unit {
    fn new(_: bool) -> Self {
        let eight = Geometry::fully_associative(8);
        let params = Params {
            stream: eight,
            context: eight,
            level_1: eight,
            tlb: eight,
            walk_1: [eight; 3],
            walk_2: [eight; 3],
            ..Params::default()
        };
        let mut unit = Self::new(Capabilities::default(), params);
        unit.write_register(Register::StrtabBase, CONTEXT);
        unit.write_register(Register::CmdqBase, 8);
        // SMMUEN, CMDQEN.
        unit.write_register(Register::Cr0, 1 | 1 << 3);
        unit.register_drained();
        unit
    }

    fn invalidate(&mut self, command: Command, d: &mut dyn Decisions) {
        let words = match command {
            Command::Context => [0x03, 1],
            Command::Domain { domain } => [0x28 | domain << 32, 0],
            Command::Page { domain, page, non_leaf } => [0x2a | domain << 32, PAGES[page as usize] | u64::from(!non_leaf)],
        };
        // A CMD_SYNC without a signal comes after it.
        let mut commands = [words, [0x46, 0]].into_iter();
        let producer = (self.read_register(Register::CmdqProd) + 2) % 512;
        self.write_register(Register::CmdqProd, producer);
        let mut input = CommandInput::Continue;
        loop {
            input = match self.command_advance(input, d) {
                CommandProgress::Idle => return,
                CommandProgress::Fetch { .. } => CommandInput::Command(commands.next().expect("there are two")),
                CommandProgress::Drain { .. } => CommandInput::Drained,
                CommandProgress::Consumed { .. } | CommandProgress::Synchronised { .. } => CommandInput::Continue,
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
