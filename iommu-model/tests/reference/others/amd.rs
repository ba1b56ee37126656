//! AMD-Vi: a device table entry, and host tables of three levels.

use super::machine::Machine;
use super::reference::Rules;
use super::world::{CONTEXT, Command, Format, Outcome, PAGES, R, W};
use iommu_model::amd::{Capabilities, CommandInput, CommandProgress, Register, Unit};
use iommu_model::{Decisions, Geometry, Params};

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const PRESENT: u64 = 1;
const READ: u64 = 1 << 61;
const WRITE: u64 = 1 << 62;
/// V alone: TV, IR and IW are clear.
const BLOCKED: u64 = 1;

pub(crate) const FORMAT: Format = Format {
    // V, TV, mode 3.
    context: |top, domain| [1 | 2 | 3 << 9 | top | READ | WRITE, domain, 0, 0],
    detached: [BLOCKED, 0, 0, 0],
    pointer: |level, table| PRESENT | u64::from(level - 1) << 9 | table | READ | WRITE,
    page: |frame, flags| PRESENT | frame | if flags & R != 0 { READ } else { 0 } | if flags & W != 0 { WRITE } else { 0 },
};

pub(crate) const RULES: Rules = Rules {
    context: |words| (words[0] != BLOCKED).then_some((words[1] & 0xffff, words[0] & ADDRESS)),
    caches_detached: true,
    caches_missing: false,
    detached: Outcome::Fault(2, true),
    flags: |entry, _| {
        let flags = if entry & READ != 0 { R } else { 0 } | if entry & WRITE != 0 { W } else { 0 };
        (entry & PRESENT != 0).then_some(flags)
    },
    address: |entry| entry & ADDRESS,
    missing: |_| Outcome::Fault(2, false),
    denied: |_| Outcome::Fault(2, true),
    looks_again_with_pointers: true,
};

impl Machine for Unit {
    fn new(caches_missing: bool) -> Self {
        let eight = Geometry::fully_associative(8);
        let params = Params { context: eight, pasid: eight, iotlb: eight, psc: [eight; 4], ..Params::default() };
        let mut unit = Self::new(Capabilities { not_present_cached: caches_missing, ..Capabilities::default() }, params);
        unit.write_register(Register::DeviceTableBase, CONTEXT);
        // IommuEn, CmdBufEn.
        unit.write_register(Register::Control, 1 | 1 << 12);
        unit
    }

    fn invalidate(&mut self, command: Command, d: &mut dyn Decisions) {
        let pages = |domain: u64, address: u64, directories: bool| [3 << 60 | domain << 32, address | u64::from(directories) << 1];
        let words = match command {
            Command::Context => [2 << 60, 0],
            // S, and the address that means everything.
            Command::Domain { domain } => pages(domain, 0x7fff_ffff_ffff_f000 | 1, true),
            Command::Page { domain, page, non_leaf } => pages(domain, PAGES[page as usize], non_leaf),
        };
        // A COMPLETION_WAIT that stores nothing comes after it.
        let mut commands = [words, [1 << 60, 0]].into_iter();
        let tail = (self.read_register(Register::CommandTail) + 32) % 4096;
        self.write_register(Register::CommandTail, tail);
        let mut input = CommandInput::Continue;
        loop {
            input = match self.command_advance(input, d) {
                CommandProgress::Idle => return,
                CommandProgress::Fetch { .. } => CommandInput::Command(commands.next().expect("there are two")),
                CommandProgress::Drain { .. } => CommandInput::Drained,
                CommandProgress::Deferred { .. } | CommandProgress::Invalidated { .. } | CommandProgress::Completed { .. } => {
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
