//! The small world: one function; PASID 0, for requests without one, on a second stage of three levels; PASID 1 on a first stage
//! of four, both of domain 1. Entries are built from bit positions written down here.

use std::collections::BTreeMap;

pub(crate) const P: u64 = 1;
pub(crate) const R: u64 = 1;
pub(crate) const W: u64 = 2;
pub(crate) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Of a first-stage entry: P, U/S, A, and of a leaf D, so that nothing is left to set.
const FIRST_POINTER: u64 = 0x27;
const FIRST_LEAF: u64 = 0x65;

pub(crate) const ROOT: u64 = 0x1000;
const CONTEXTS: u64 = 0x2000;
const DIRECTORY: u64 = 0x3000;
const PASIDS: u64 = 0x4000;
/// Tables of the first stages: from the top, level 4 to 1; a second set shares nothing with the first.
const FIRST_TABLES: [[u64; 4]; 2] = [[0x1_0000, 0x1_1000, 0x1_2000, 0x1_3000], [0x1_4000, 0x1_5000, 0x1_6000, 0x1_7000]];
/// Tables of the second stages: level 3 to 1.
const SECOND_TABLES: [[u64; 3]; 2] = [[0x2_0000, 0x2_1000, 0x2_2000], [0x2_3000, 0x2_4000, 0x2_5000]];

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

    pub(crate) fn new() -> Self {
        let mut memory = Self::default();
        memory.write(ROOT, CONTEXTS | P);
        // PASIDE.
        memory.write(CONTEXTS, DIRECTORY | P | 1 << 3);
        memory.write(DIRECTORY, PASIDS | P);
        for set in 0..2 {
            for tables in FIRST_TABLES[set].windows(2) {
                memory.write(tables[0], tables[1] | FIRST_POINTER);
            }
            for tables in SECOND_TABLES[set].windows(2) {
                memory.write(tables[0], tables[1] | R | W);
            }
            for page in 0..2u64 {
                let frame = 0x10_0000 + set as u64 * 0x10_0000 + page * 0x1000;
                memory.write(FIRST_TABLES[set][3] + page * 8, frame | FIRST_LEAF | W);
                memory.write(SECOND_TABLES[set][2] + page * 8, (frame + 0x8_0000) | R | W);
            }
        }
        memory.edit(Edit::Second { pasid: 0, set: 0, domain: 1 });
        memory.edit(Edit::First { pasid: 1, set: 0, domain: 1 });
        memory
    }

    pub(crate) fn edit(&mut self, edit: Edit) {
        let entry = |pasid: u64| PASIDS + pasid * 64;
        match edit {
            Edit::Leaf { first, page, flags } => {
                let frame = 0x30_0000 + page * 0x1000;
                let (table, present) = if first { (FIRST_TABLES[0][3], FIRST_LEAF) } else { (SECOND_TABLES[0][2], 0) };
                let entry = if flags == 0 { 0 } else { frame | present | flags };
                self.write(table + page * 8, entry);
            }
            Edit::Middle { first: true, set } => self.write(FIRST_TABLES[0][2], FIRST_TABLES[set][3] | FIRST_POINTER),
            Edit::Middle { first: false, set } => self.write(SECOND_TABLES[0][1], SECOND_TABLES[set][2] | R | W),
            // AW 001; PGTT 001 with FSPM 00, or 010; DID; PWSNP.
            Edit::First { pasid, set, domain } => {
                self.write(entry(pasid) + 8, domain | 1 << 23);
                self.write(entry(pasid) + 16, FIRST_TABLES[set][0]);
                self.write(entry(pasid), P | 1 << 6);
            }
            Edit::Second { pasid, set, domain } => {
                self.write(entry(pasid) + 8, domain | 1 << 23);
                self.write(entry(pasid), SECOND_TABLES[set][0] | P | 1 << 2 | 2 << 6);
            }
            Edit::Clear { pasid } => self.write(entry(pasid), 0),
            Edit::Detach => self.write(CONTEXTS, 0),
        }
    }
}

/// One thing that software stores; of an entry of several words all at once, for no walk is under way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Edit {
    Leaf { first: bool, page: u64, flags: u64 },
    Middle { first: bool, set: usize },
    First { pasid: u64, set: usize, domain: u64 },
    Second { pasid: u64, set: usize, domain: u64 },
    Clear { pasid: u64 },
    Detach,
}

/// 2^order pages around one, and IH.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Pages {
    pub(crate) page: u64,
    pub(crate) order: u8,
    pub(crate) leaf_only: bool,
}

/// One invalidation, waited for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Command {
    ContextGlobal,
    ContextDevice,
    PasidGlobal,
    PasidDomain { domain: u64 },
    PasidOne { domain: u64, pasid: u64 },
    IotlbGlobal,
    IotlbDomain { domain: u64 },
    IotlbPages { domain: u64, pages: Pages },
    PasidIotlb { domain: u64, pasid: u64, pages: Option<Pages> },
}

/// One request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Ask {
    pub(crate) pasid: Option<u64>,
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
    /// Fault reason.
    Fault(u8),
}

/// How all requests of a sequence ended.
pub(crate) type Trace = Vec<Outcome>;

pub(crate) fn edits() -> Vec<Edit> {
    let mut all = vec![Edit::Detach, Edit::Clear { pasid: 1 }, Edit::Clear { pasid: 0 }];
    for first in [false, true] {
        all.extend([0, R, R | W].map(|flags| Edit::Leaf { first, page: 0, flags }));
        all.push(Edit::Middle { first, set: 1 });
    }
    for domain in [1, 2] {
        all.push(Edit::First { pasid: 1, set: 1, domain });
        all.push(Edit::Second { pasid: 1, set: 0, domain });
        all.push(Edit::Second { pasid: 0, set: 1, domain });
    }
    all
}

pub(crate) fn commands() -> Vec<Command> {
    let page = |leaf_only| Pages { page: 0, order: 0, leaf_only };
    let mut all = vec![Command::ContextGlobal, Command::ContextDevice, Command::PasidGlobal, Command::IotlbGlobal];
    all.extend([1, 2].map(|domain| Command::PasidOne { domain, pasid: 1 }));
    all.extend([Command::PasidDomain { domain: 1 }, Command::PasidOne { domain: 1, pasid: 0 }, Command::IotlbDomain { domain: 1 }]);
    for leaf_only in [false, true] {
        all.push(Command::IotlbPages { domain: 1, pages: page(leaf_only) });
        all.push(Command::PasidIotlb { domain: 1, pasid: 1, pages: Some(page(leaf_only)) });
    }
    all.push(Command::PasidIotlb { domain: 1, pasid: 1, pages: Some(Pages { page: 1, order: 0, leaf_only: false }) });
    all.extend([0, 1].map(|pasid| Command::PasidIotlb { domain: 1, pasid, pages: None }));
    all
}
