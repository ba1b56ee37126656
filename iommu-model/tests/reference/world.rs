//! The small world that model and reference are compared in: two functions, two sets of three-level tables, a handful of
//! slots, and everything that software does to them.
//!
//! Entries are built from bit positions written down here, not from the crate's layouts: the reference must not share a
//! mistake with the model.

use std::collections::BTreeMap;

pub(crate) const P: u64 = 1;
pub(crate) const R: u64 = 1;
pub(crate) const W: u64 = 2;
pub(crate) const PS: u64 = 1 << 7;
pub(crate) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

pub(crate) const ROOT: u64 = 0x1000;
const CONTEXTS: u64 = 0x2000;
/// Top tables.
const TOPS: [u64; 2] = [0x3000, 0x4000];
/// Level-2 tables, one a top table.
const MIDDLES: [u64; 2] = [0x5000, 0x6000];
/// Level-1 tables.
const LEAVES: [u64; 2] = [0x7000, 0x8000];

/// A function of bus 0.
pub(crate) const SOURCES: [u16; 2] = [0, 8];
/// Two pages below one level-1 table.
pub(crate) const PAGES: [u64; 2] = [0x0, 0x1000];

/// Memory by words.
#[derive(Clone, Default)]
pub(crate) struct Memory(BTreeMap<u64, u64>);

impl Memory {
    pub(crate) fn read(&self, pa: u64) -> u64 {
        self.0.get(&pa).copied().unwrap_or(0)
    }

    fn write(&mut self, pa: u64, value: u64) {
        self.0.insert(pa, value);
    }

    /// Everything mapped: each function has its own domain and tables, the second one reads only.
    pub(crate) fn new() -> Self {
        let mut memory = Self::default();
        memory.write(ROOT, CONTEXTS | P);
        for n in 0..2 {
            memory.set_context(n, n, n as u64 + 1);
            memory.write(TOPS[n], MIDDLES[n] | R | W);
            memory.write(MIDDLES[n], LEAVES[n] | R | W);
            for (page, frame) in [(0, 0x10_0000), (1, 0x20_0000)] {
                memory.write(LEAVES[n] + page * 8, (frame + n as u64 * 0x1000) | R | if n == 0 { W } else { 0 });
            }
        }
        memory
    }

    fn set_context(&mut self, source: usize, tables: usize, domain: u64) {
        let pa = CONTEXTS + u64::from(SOURCES[source]) * 16;
        // AW 001: three levels. T 01: a device TLB is allowed.
        self.write(pa + 8, 1 | domain << 8);
        self.write(pa, TOPS[tables] | P | 1 << 2);
    }

    pub(crate) fn edit(&mut self, edit: Edit) {
        match edit {
            Edit::Leaf { tables, page, flags } => {
                let frame = 0x30_0000 + (tables as u64) * 0x2000 + page as u64 * 0x1000;
                self.write(LEAVES[tables] + page as u64 * 8, if flags == 0 { 0 } else { frame | flags });
            }
            Edit::Top { tables, middles } => self.write(TOPS[tables], MIDDLES[middles] | R | W),
            Edit::Middle { tables, to: To::Table(leaves) } => self.write(MIDDLES[tables], LEAVES[leaves] | R | W),
            Edit::Middle { tables, to: To::Superpage } => self.write(MIDDLES[tables], 0x4000_0000 | R | W | PS),
            Edit::Middle { tables, to: To::ReadOnly } => self.write(MIDDLES[tables], LEAVES[tables] | R),
            Edit::Middle { tables, to: To::Nothing } => self.write(MIDDLES[tables], 0),
            Edit::Context { source, tables, domain } => self.set_context(source, tables, domain),
            Edit::Detach { source } => self.write(CONTEXTS + u64::from(SOURCES[source]) * 16, 0),
        }
    }
}

/// What a level-2 entry becomes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum To {
    Table(usize),
    Superpage,
    ReadOnly,
    Nothing,
}

/// One store by software; of a context entry both words at once, for no walk is under way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Edit {
    Leaf { tables: usize, page: usize, flags: u64 },
    Middle { tables: usize, to: To },
    Top { tables: usize, middles: usize },
    Context { source: usize, tables: usize, domain: u64 },
    Detach { source: usize },
}

/// One invalidation, waited for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Command {
    ContextGlobal,
    ContextDomain {
        domain: u64,
    },
    ContextDevice {
        source: usize,
        domain: u64,
    },
    IotlbGlobal,
    IotlbDomain {
        domain: u64,
    },
    IotlbPages {
        domain: u64,
        page: u64,
        order: u8,
        leaf_only: bool,
    },
    /// To the device TLB of function 0.
    DeviceAll,
    DevicePage {
        page: u64,
    },
}

impl Command {
    /// Whether the unit itself carries it out.
    pub(crate) const fn is_of_unit(&self) -> bool {
        !matches!(self, Self::DeviceAll | Self::DevicePage { .. })
    }
}

/// One request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Ask {
    pub(crate) source: usize,
    pub(crate) page: usize,
    pub(crate) write: bool,
}

/// One thing that happens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Op {
    Edit(Edit),
    Invalidate(Command),
    Ask(Ask),
    /// The same by function 0 through its device TLB: from what it keeps, or after a translation request.
    Device {
        page: usize,
        write: bool,
    },
    /// A request in flight: before its fetch number `at` is answered (0 is the first), the edit lands, then the command
    /// completes. If it fetches less than that, both happen after it has ended.
    Race {
        ask: Ask,
        at: usize,
        edit: Edit,
        command: Option<Command>,
    },
}

/// How a request ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Outcome {
    /// Host address, and what else the translation allows.
    Page { pa: u64, readable: bool, writable: bool },
    /// Fault reason.
    Fault(u8),
    /// The device is told that it may not.
    Told,
}

/// How all requests of a sequence ended.
pub(crate) type Trace = Vec<Outcome>;

pub(crate) fn edits() -> Vec<Edit> {
    let mut all = vec![Edit::Detach { source: 0 }, Edit::Top { tables: 0, middles: 1 }];
    for tables in 0..2 {
        all.extend([0, R, R | W].map(|flags| Edit::Leaf { tables, page: 0, flags }));
        all.extend([To::Table(0), To::Table(1), To::Superpage, To::ReadOnly, To::Nothing].map(|to| Edit::Middle { tables, to }));
        all.extend([1, 2].map(|domain| Edit::Context { source: 0, tables, domain }));
    }
    all
}

pub(crate) fn commands() -> Vec<Command> {
    let mut all = vec![Command::ContextGlobal, Command::IotlbGlobal, Command::DeviceAll, Command::DevicePage { page: 0 }];
    for domain in 1..3 {
        all.push(Command::ContextDevice { source: 0, domain });
        all.extend([Command::ContextDomain { domain }, Command::IotlbDomain { domain }]);
        for (page, order) in [(0, 0), (1, 0), (0, 9)] {
            all.extend([false, true].map(|leaf_only| Command::IotlbPages { domain, page, order, leaf_only }));
        }
    }
    all
}

pub(crate) fn asks() -> Vec<Ask> {
    let mut all = Vec::new();
    for source in 0..2 {
        for page in 0..2 {
            all.extend([false, true].map(|write| Ask { source, page, write }));
        }
    }
    all
}
