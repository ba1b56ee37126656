//! What the manual allows in scalable mode, as a set.

use super::world::{ADDRESS, Ask, Command, Memory, Op, Outcome, P, PAGES, Pages, R, ROOT, Trace, W};
use crate::reference::{prefix, shift};
use std::collections::{BTreeMap, BTreeSet};

/// A cached PASID table entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Entry {
    domain: u64,
    first: bool,
    table: u64,
}

/// A cached translation, or a cached pointer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Cached {
    pa: u64,
    flags: u64,
}

/// Domain, PASID of a first stage, level of the entry, first address.
type Key = (u64, Option<u64>, u8, u64);

/// What the caches hold.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
struct Configuration {
    /// The directory that the function's context entry leads to.
    context: Option<u64>,
    pasids: BTreeMap<u64, Entry>,
    pages: BTreeMap<Key, Cached>,
    pointers: BTreeMap<Key, Cached>,
}

type Ends = Vec<(Configuration, Outcome)>;

/// A request on its way through tables.
#[derive(Clone, Copy)]
struct Walk {
    entry: Entry,
    pasid: u64,
    iova: u64,
    write: bool,
}

impl Walk {
    fn key(&self, level: u8) -> Key {
        (self.entry.domain, self.entry.first.then_some(self.pasid), level, prefix(self.iova, level))
    }

    const fn levels(&self) -> u8 {
        if self.entry.first { 4 } else { 3 }
    }

    /// What an entry with such rights says to the request, all levels taken together.
    const fn refusal(&self, entry: u64, flags: u64) -> Option<Outcome> {
        let fault = match (self.entry.first, self.write) {
            (true, _) if entry & P == 0 => 0x71,
            (false, _) if entry & (R | W) == 0 => 0x79,
            (_, true) if flags & W == 0 => 0x85,
            (false, false) if flags & R == 0 => 0x86,
            _ => return None,
        };
        Some(Outcome::Fault(fault))
    }
}

impl Configuration {
    fn ask(&self, memory: &Memory, ask: Ask) -> Ends {
        let mut ends = Ends::new();
        if let Some(directory) = self.context {
            self.find(memory, directory, ask, &mut ends);
        }
        let mut fresh = self.clone();
        fresh.context = None;
        let context = memory.read(memory.read(ROOT) & ADDRESS);
        if context & P == 0 {
            ends.push((fresh, Outcome::Fault(0x41)));
        } else {
            fresh.context = Some(context & ADDRESS);
            fresh.find(memory, context & ADDRESS, ask, &mut ends);
        }
        ends
    }

    fn find(&self, memory: &Memory, directory: u64, ask: Ask, ends: &mut Ends) {
        let pasid = ask.pasid.unwrap_or(0);
        let walk = |entry| Walk { entry, pasid, iova: PAGES[ask.page], write: ask.write };
        if let Some(&entry) = self.pasids.get(&pasid) {
            self.translate(memory, walk(entry), ends);
        }
        let mut fresh = self.clone();
        fresh.pasids.remove(&pasid);
        let pa = (memory.read(directory) & ADDRESS) + pasid * 64;
        let (low, high, third) = (memory.read(pa), memory.read(pa + 8), memory.read(pa + 16));
        if low & P == 0 {
            ends.push((fresh, Outcome::Fault(0x59)));
            return;
        }
        let first = low >> 6 & 7 == 1;
        let entry = Entry { domain: high & 0xffff, first, table: if first { third } else { low } & ADDRESS };
        fresh.pasids.insert(pasid, entry);
        fresh.translate(memory, walk(entry), ends);
    }

    fn translate(&self, memory: &Memory, walk: Walk, ends: &mut Ends) {
        let top = (walk.entry.table, walk.levels(), R | W);
        let mut without = self.clone();
        if let Some(page) = self.pages.get(&walk.key(1)) {
            match walk.refusal(P | R, page.flags) {
                Some(denied) => {
                    ends.push((self.clone(), denied));
                    // Or hardware looks again before it refuses.
                    ends.push(self.walk(memory, walk, top));
                }
                None => ends.push((self.clone(), page_at(page.pa, walk.iova, page.flags))),
            }
            without.pages.remove(&walk.key(1));
        }
        for level in 2..=walk.levels() {
            let Some(pointer) = without.pointers.get(&walk.key(level)).copied() else { continue };
            match walk.refusal(P | R, pointer.flags) {
                Some(denied) => ends.push((without.clone(), denied)),
                None => ends.push(without.walk(memory, walk, (pointer.pa, level - 1, pointer.flags))),
            }
            ends.push(without.walk(memory, walk, top));
            without.pointers.remove(&walk.key(level));
        }
        ends.push(without.walk(memory, walk, top));
    }

    fn walk(&self, memory: &Memory, walk: Walk, (mut table, mut level, mut flags): (u64, u8, u64)) -> (Self, Outcome) {
        let mut next = self.clone();
        loop {
            let entry = memory.read(table + (walk.iova >> shift(level)) % 512 * 8);
            flags &= entry;
            if let Some(denied) = walk.refusal(entry, flags) {
                return (next, denied);
            }
            let pa = entry & ADDRESS;
            if level == 1 {
                next.pages.insert(walk.key(1), Cached { pa, flags });
                return (next, page_at(pa, walk.iova, flags));
            }
            next.pointers.insert(walk.key(level), Cached { pa, flags });
            (table, level) = (pa, level - 1);
        }
    }

    /// Removes what the command must remove.
    fn invalidate(&mut self, command: Command) {
        let touches = |pages: Pages, start: u64, level: u8| {
            let (first, bytes) = ((pages.page >> pages.order << pages.order) << 12, 4096u64 << pages.order);
            start < first + bytes && first < start + (1 << shift(level))
        };
        match command {
            Command::ContextGlobal | Command::ContextDevice => self.context = None,
            Command::PasidGlobal => self.pasids.clear(),
            Command::PasidDomain { domain } => self.pasids.retain(|_, entry| entry.domain != domain),
            Command::PasidOne { domain, pasid } => self.pasids.retain(|key, entry| entry.domain != domain || *key != pasid),
            Command::IotlbGlobal => {
                self.pages.clear();
                self.pointers.clear();
            }
            Command::IotlbDomain { domain } => {
                self.pages.retain(|key, _| key.0 != domain);
                self.pointers.retain(|key, _| key.0 != domain);
            }
            // It names no address of a first stage.
            Command::IotlbPages { domain, pages } => self.remove(domain, None, |key| touches(pages, key.3, key.2), pages.leaf_only),
            Command::PasidIotlb { domain, pasid, pages } => {
                let leaf_only = pages.is_some_and(|pages| pages.leaf_only);
                self.remove(domain, Some(pasid), |key| pages.is_none_or(|pages| touches(pages, key.3, key.2)), leaf_only);
            }
        }
    }

    fn remove(&mut self, domain: u64, pasid: Option<u64>, touches: impl Fn(&Key) -> bool, leaf_only: bool) {
        let named = |key: &Key| key.0 == domain && key.1 == pasid && touches(key);
        self.pages.retain(|key, _| !named(key));
        if !leaf_only {
            self.pointers.retain(|key, _| !named(key));
        }
    }
}

const fn page_at(pa: u64, iova: u64, flags: u64) -> Outcome {
    Outcome::Page { pa: pa | (iova & 0xfff), writable: flags & W != 0 }
}

/// Every trace that a sequence may leave.
pub(crate) fn traces(ops: &[Op]) -> BTreeSet<Trace> {
    let mut memory = Memory::new();
    let mut all = BTreeSet::from([(Configuration::default(), Trace::new())]);
    for op in ops {
        match *op {
            Op::Edit(edit) => memory.edit(edit),
            Op::Invalidate(command) => {
                let each = |(mut configuration, trace): (Configuration, Trace)| {
                    configuration.invalidate(command);
                    (configuration, trace)
                };
                all = all.into_iter().map(each).collect();
            }
            Op::Ask(ask) => {
                let each = |(configuration, trace): (Configuration, Trace)| {
                    let ends = configuration.ask(&memory, ask).into_iter();
                    ends.map(move |(end, outcome)| (end, [trace.as_slice(), &[outcome]].concat()))
                };
                all = all.into_iter().flat_map(each).collect();
            }
        }
    }
    all.into_iter().map(|(_, trace)| trace).collect()
}
