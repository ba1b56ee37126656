//! The small world: one function, two sets of tables that share nothing at first, two pages.

use std::collections::BTreeMap;

pub(crate) const R: u64 = 1;
pub(crate) const W: u64 = 2;

/// What leads to the tables: a stream table, device table or device directory of one entry.
pub(crate) const CONTEXT: u64 = 0x1_0000;
const TOPS: [u64; 2] = [0x2_0000, 0x2_1000];
const MIDDLES: [u64; 2] = [0x3_0000, 0x3_1000];
const LEAVES: [u64; 2] = [0x4_0000, 0x4_1000];
pub(crate) const PAGES: [u64; 2] = [0x0, 0x1000];

/// How an architecture writes its entries.
#[derive(Clone, Copy)]
pub(crate) struct Format {
    /// The entry that leads to a top table under a domain.
    pub(crate) context: fn(top: u64, domain: u64) -> [u64; 4],
    /// One that lets nothing pass.
    pub(crate) detached: [u64; 4],
    /// A pointer, in a table of this level, to the next table.
    pub(crate) pointer: fn(level: u8, table: u64) -> u64,
    /// A page with these rights.
    pub(crate) page: fn(frame: u64, flags: u64) -> u64,
}

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

    /// Everything mapped, for reading and writing.
    pub(crate) fn new(format: Format) -> Self {
        let mut memory = Self::default();
        memory.edit(format, Edit::Context { tables: 0, domain: 1 });
        for (n, leaves) in LEAVES.into_iter().enumerate() {
            memory.edit(format, Edit::Top { tables: n, middles: n });
            memory.edit(format, Edit::Middle { tables: n, leaves: n });
            for page in 0..2u64 {
                memory.write(leaves + page * 8, (format.page)(0x10_0000 + n as u64 * 0x10_0000 + page * 0x1000, R | W));
            }
        }
        memory
    }

    pub(crate) fn edit(&mut self, format: Format, edit: Edit) {
        match edit {
            Edit::Leaf { tables, page, flags } => {
                let frame = 0x30_0000 + tables as u64 * 0x10_0000 + page * 0x1000;
                self.write(LEAVES[tables] + page * 8, if flags == 0 { 0 } else { (format.page)(frame, flags) });
            }
            Edit::Middle { tables, leaves } => self.write(MIDDLES[tables], (format.pointer)(2, LEAVES[leaves])),
            Edit::NoMiddle { tables } => self.write(MIDDLES[tables], 0),
            Edit::Top { tables, middles } => self.write(TOPS[tables], (format.pointer)(3, MIDDLES[middles])),
            Edit::Context { tables, domain } => self.set_context((format.context)(TOPS[tables], domain)),
            Edit::Detach => self.set_context(format.detached),
        }
    }

    fn set_context(&mut self, words: [u64; 4]) {
        for (n, word) in words.into_iter().enumerate() {
            self.write(CONTEXT + 8 * n as u64, word);
        }
    }
}

/// One thing that software stores; of an entry of several words all at once, for no walk is under way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Edit {
    Leaf { tables: usize, page: u64, flags: u64 },
    Middle { tables: usize, leaves: usize },
    NoMiddle { tables: usize },
    Top { tables: usize, middles: usize },
    Context { tables: usize, domain: u64 },
    Detach,
}

/// One invalidation, waited for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Command {
    /// Of what leads to the tables.
    Context,
    /// Of every page and pointer of a domain.
    Domain { domain: u64 },
    /// Of one page, and of what leads to it.
    Page { domain: u64, page: u64, non_leaf: bool },
}

/// One request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Ask {
    pub(crate) page: usize,
    pub(crate) write: bool,
}

/// One thing that happens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Op {
    Edit(Edit),
    Invalidate(Command),
    Ask(Ask),
}

/// How a request ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Outcome {
    /// Host address, and whether it may be written; all may be read.
    Page { pa: u64, writable: bool },
    /// Fault code, and of AMD-Vi whether PR is set.
    Fault(u16, bool),
}

/// How all requests of a sequence ended.
pub(crate) type Trace = Vec<Outcome>;

pub(crate) fn edits() -> Vec<Edit> {
    let mut all =
        vec![Edit::Detach, Edit::Top { tables: 0, middles: 1 }, Edit::Middle { tables: 0, leaves: 1 }, Edit::NoMiddle { tables: 0 }];
    all.extend([0, R, R | W].map(|flags| Edit::Leaf { tables: 0, page: 0, flags }));
    for domain in [1, 2] {
        all.push(Edit::Context { tables: 1, domain });
    }
    all
}

pub(crate) fn commands() -> Vec<Command> {
    let mut all = vec![Command::Context];
    for domain in [1, 2] {
        all.push(Command::Domain { domain });
    }
    for page in 0..2 {
        all.extend([false, true].map(|non_leaf| Command::Page { domain: 1, page, non_leaf }));
    }
    all
}
