//! What the manual allows, as a set: every way that requests may end, given that hardware may hold, keep or drop anything
//! legal.
//!
//! A configuration is what the caches hold. Hardware may drop an entry at any time; that is decided here when the entry is
//! looked up, which makes no difference to what can be seen, so that an invalidation has only to remove what it must. What
//! is cached is found again; no other memory than that of the walk at hand is looked at. Capacity has no bound.
//!
//! Legacy mode, three levels, no caching mode. Requests are whole here: nothing happens inside a walk. `race` has those in flight.

use super::race::{Between, race};
use super::world::{ADDRESS, Ask, Command, Memory, Op, Outcome, P, PAGES, PS, R, ROOT, SOURCES, Trace, W};
use std::collections::{BTreeMap, BTreeSet};

/// A cached context entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Context {
    pub(crate) domain: u64,
    pub(crate) top: u64,
}

/// A cached translation, or a cached pointer: address, permissions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Cached {
    pub(crate) pa: u64,
    pub(crate) flags: u64,
}

/// What the caches hold: contexts by source, pages and pointers by domain, level of the entry, and first address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(crate) struct Configuration {
    pub(crate) contexts: BTreeMap<usize, Context>,
    pub(crate) pages: BTreeMap<(u64, u8, u64), Cached>,
    pub(crate) pointers: BTreeMap<(u64, u8, u64), Cached>,
    /// What function 0 keeps in its device TLB, by level and first address.
    device: BTreeMap<(u8, u64), Cached>,
}

/// Levels that may hold pages, and pointers, as they are looked up.
pub(crate) const PAGE_LEVELS: [u8; 2] = [1, 2];
pub(crate) const POINTER_LEVELS: [u8; 2] = [2, 3];

pub(crate) const fn shift(level: u8) -> u32 {
    12 + 9 * (level as u32 - 1)
}

pub(crate) const fn prefix(iova: u64, level: u8) -> u64 {
    iova >> shift(level) << shift(level)
}

/// Where a walk begins.
#[derive(Clone, Copy)]
struct Start {
    table: u64,
    level: u8,
    flags: u64,
}

impl Configuration {
    /// Every way that an access of a device with a device TLB may end.
    fn access(&self, memory: &Memory, page: usize, write: bool) -> Vec<(Self, Outcome)> {
        let (iova, needed) = (PAGES[page], if write { W } else { R });
        let mut ends = Vec::new();
        let mut without = self.clone();
        for level in [1, 2] {
            let key = (level, prefix(iova, level));
            let Some(kept) = self.device.get(&key) else { continue };
            if kept.flags & needed != 0 {
                ends.push((without.clone(), page_at(kept.pa, iova, level, kept.flags)));
                without.device.remove(&key);
            }
        }
        // None that allows it, or all dropped: the device asks, for whatever it can get.
        for (mut next, outcome, level) in without.find(memory, 0, iova, R | W, Outcome::Told) {
            if let Outcome::Page { pa, readable, writable } = outcome {
                let flags = if readable { R } else { 0 } | if writable { W } else { 0 };
                next.device.insert((level, prefix(iova, level)), Cached { pa: prefix(pa, level), flags });
                let told = if flags & needed == 0 { Outcome::Told } else { outcome };
                ends.push((next, told));
            } else {
                ends.push((next, outcome));
            }
        }
        ends
    }

    /// Every way that a request may end, with what the caches hold then.
    pub(crate) fn ask(&self, memory: &Memory, ask: Ask) -> Vec<(Self, Outcome)> {
        let (needed, denied) = if ask.write { (W, Outcome::Fault(0x05)) } else { (R, Outcome::Fault(0x06)) };
        let ends = self.find(memory, ask.source, PAGES[ask.page], needed, denied);
        ends.into_iter().map(|(next, outcome, _)| (next, outcome)).collect()
    }

    /// The same for one who is content with any permission in `needed`, with the level of the page.
    fn find(&self, memory: &Memory, source: usize, iova: u64, needed: u64, denied: Outcome) -> Vec<(Self, Outcome, u8)> {
        let mut ends = Vec::new();
        if let Some(&context) = self.contexts.get(&source) {
            self.translate(memory, context, iova, needed, denied, &mut ends);
        }
        // There is none, or it has been dropped.
        let mut fresh = self.clone();
        fresh.contexts.remove(&source);
        match fresh.fetch_context(memory, source) {
            Ok(context) => {
                fresh.contexts.insert(source, context);
                fresh.translate(memory, context, iova, needed, denied, &mut ends);
            }
            Err(reason) => ends.push((fresh, Outcome::Fault(reason), 0)),
        }
        ends
    }

    fn fetch_context(&self, memory: &Memory, source: usize) -> Result<Context, u8> {
        let root = memory.read(ROOT);
        if root & P == 0 {
            return Err(0x01);
        }
        let pa = (root & ADDRESS) + u64::from(SOURCES[source]) * 16;
        let (low, high) = (memory.read(pa), memory.read(pa + 8));
        if low & P == 0 { Err(0x02) } else { Ok(Context { domain: high >> 8 & 0xffff, top: low & ADDRESS }) }
    }

    fn translate(&self, memory: &Memory, context: Context, iova: u64, needed: u64, denied: Outcome, ends: &mut Vec<(Self, Outcome, u8)>) {
        let top = Start { table: context.top, level: 3, flags: R | W };
        // A cached page of either size.
        let mut without = self.clone();
        for level in PAGE_LEVELS {
            let key = (context.domain, level, prefix(iova, level));
            let Some(page) = self.pages.get(&key) else { continue };
            if page.flags & needed == 0 {
                ends.push((self.clone(), denied, 0));
                // Or hardware looks again before it refuses.
                ends.push(self.walk(memory, context.domain, iova, needed, top, denied));
            } else {
                ends.push((self.clone(), page_at(page.pa, iova, level, page.flags), level));
            }
            without.pages.remove(&key);
        }
        // None, or all dropped. A cached pointer of either level; the lower one first, unless it is dropped.
        for level in POINTER_LEVELS {
            let key = (context.domain, level, prefix(iova, level));
            let Some(pointer) = without.pointers.get(&key).copied() else { continue };
            if pointer.flags & needed == 0 {
                ends.push((without.clone(), denied, 0));
            } else {
                let start = Start { table: pointer.pa, level: level - 1, flags: pointer.flags };
                ends.push(without.walk(memory, context.domain, iova, needed, start, denied));
            }
            // Or it is there, but not used.
            ends.push(without.walk(memory, context.domain, iova, needed, top, denied));
            without.pointers.remove(&key);
        }
        ends.push(without.walk(memory, context.domain, iova, needed, top, denied));
    }

    fn walk(&self, memory: &Memory, domain: u64, iova: u64, needed: u64, start: Start, denied: Outcome) -> (Self, Outcome, u8) {
        let mut next = self.clone();
        let Start { mut table, mut level, mut flags } = start;
        loop {
            let entry = memory.read(table + (iova >> shift(level)) % 512 * 8);
            let here = flags & entry & (R | W);
            if here & needed == 0 {
                return (next, denied, 0);
            }
            flags = here;
            let (key, pa) = ((domain, level, prefix(iova, level)), entry & ADDRESS);
            if level == 1 || entry & PS != 0 {
                next.pages.insert(key, Cached { pa, flags });
                return (next, page_at(pa, iova, level, flags), level);
            }
            next.pointers.insert(key, Cached { pa, flags });
            (table, level) = (pa, level - 1);
        }
    }

    /// Removes what the command must remove.
    pub(crate) fn invalidate(&mut self, command: Command) {
        match command {
            Command::ContextGlobal => self.contexts.clear(),
            Command::ContextDomain { domain } => self.contexts.retain(|_, context| context.domain != domain),
            // An entry of another domain than the command names may stay.
            Command::ContextDevice { source, domain } => self.contexts.retain(|key, context| *key != source || context.domain != domain),
            Command::DeviceAll => self.device.clear(),
            Command::DevicePage { page } => self.device.retain(|key, _| prefix(page << 12, key.0) != key.1),
            Command::IotlbGlobal => {
                self.pages.clear();
                self.pointers.clear();
            }
            Command::IotlbDomain { domain } => {
                self.pages.retain(|key, _| key.0 != domain);
                self.pointers.retain(|key, _| key.0 != domain);
            }
            Command::IotlbPages { domain, page, order, leaf_only } => {
                let (first, bytes) = ((page >> order << order) << 12, 4096u64 << order);
                let touches = |start: u64, level: u8| start < first + bytes && first < start + (1 << shift(level));
                // A page larger than the range may stay.
                self.pages.retain(|key, _| key.0 != domain || !touches(key.2, key.1) || (1 << shift(key.1)) > bytes);
                if !leaf_only {
                    self.pointers.retain(|key, _| key.0 != domain || !touches(key.2, key.1));
                }
            }
        }
    }
}

pub(crate) const fn page_at(pa: u64, iova: u64, level: u8, flags: u64) -> Outcome {
    Outcome::Page { pa: pa | (iova & ((1 << shift(level)) - 1)), readable: flags & R != 0, writable: flags & W != 0 }
}

/// Every trace that a sequence may leave.
pub(crate) fn traces(ops: &[Op]) -> BTreeSet<Trace> {
    let mut memory = Memory::new();
    let mut all = BTreeSet::from([(Configuration::default(), Trace::new())]);
    for op in ops {
        match *op {
            Op::Edit(edit) => memory.edit(edit),
            Op::Invalidate(command) => {
                all = all
                    .into_iter()
                    .map(|(mut configuration, trace)| {
                        configuration.invalidate(command);
                        (configuration, trace)
                    })
                    .collect();
            }
            Op::Race { ask, at, edit, command } => {
                let before = memory.clone();
                memory.edit(edit);
                let between = Between { before: &before, after: &memory, at, command };
                let ends = |(configuration, trace): &(Configuration, Trace)| {
                    let trace = trace.clone();
                    let ends = race(configuration, ask, &between).into_iter();
                    ends.map(move |(end, outcome)| (end, [trace.as_slice(), &[outcome]].concat())).collect::<Vec<_>>()
                };
                all = all.iter().flat_map(ends).collect();
            }
            Op::Ask(_) | Op::Device { .. } => {
                let mut next = BTreeSet::new();
                for (configuration, trace) in &all {
                    let ends = match *op {
                        Op::Ask(ask) => configuration.ask(&memory, ask),
                        Op::Device { page, write } => configuration.access(&memory, page, write),
                        _ => Vec::new(),
                    };
                    for (end, outcome) in ends {
                        next.insert((end, [trace.as_slice(), &[outcome]].concat()));
                    }
                }
                all = next;
            }
        }
    }
    all.into_iter().map(|(_, trace)| trace).collect()
}
