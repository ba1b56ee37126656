//! What the manuals allow, as a set. See the reference of legacy mode for the idea: hardware may drop anything at any time, which is
//! decided when it is looked up.

use super::world::{Ask, CONTEXT, Command, Format, Memory, Op, Outcome, PAGES, R, Trace, W};
use crate::reference::{prefix, shift};
use std::collections::{BTreeMap, BTreeSet};

/// What an architecture has of its own.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    /// The domain and top table of an entry, unless it lets nothing pass.
    pub(crate) context: fn(words: [u64; 4]) -> Option<(u64, u64)>,
    /// An entry that lets nothing pass may be cached, too.
    pub(crate) caches_detached: bool,
    /// That a page is missing may be cached, too.
    pub(crate) caches_missing: bool,
    /// How a request ends whose entry lets nothing pass.
    pub(crate) detached: Outcome,
    /// Rights of an entry, those of a pointer included; `None` if it is not present.
    pub(crate) flags: fn(entry: u64, level: u8) -> Option<u64>,
    /// The address in an entry.
    pub(crate) address: fn(entry: u64) -> u64,
    /// How a request ends, a write or not, where an entry is missing, and where one denies it.
    pub(crate) missing: fn(write: bool) -> Outcome,
    pub(crate) denied: fn(write: bool) -> Outcome,
    /// Hardware that looks again, because a cached page denies, may use cached pointers.
    pub(crate) looks_again_with_pointers: bool,
}

/// A cached entry of what leads to the tables: domain and top, or nothing.
type Context = Option<(u64, u64)>;

/// A cached page or pointer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Cached {
    pa: u64,
    flags: u64,
}

/// Domain, level of the entry, first address.
type Key = (u64, u8, u64);

/// What the caches hold.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
struct Configuration {
    context: Option<Context>,
    /// Pages; `None` for one that is missing.
    pages: BTreeMap<Key, Option<Cached>>,
    pointers: BTreeMap<Key, Cached>,
}

type Ends = Vec<(Configuration, Outcome)>;

/// A request, and what it is judged by.
#[derive(Clone, Copy)]
struct Request<'a> {
    rules: Rules,
    memory: &'a Memory,
    iova: u64,
    write: bool,
}

impl Request<'_> {
    const fn needed(&self) -> u64 {
        if self.write { W } else { R }
    }
}

impl Configuration {
    fn ask(&self, request: Request<'_>) -> Ends {
        let mut ends = Ends::new();
        if let Some(context) = self.context {
            self.enter(request, context, &mut ends);
        }
        let words = [0, 8, 16, 24].map(|n| request.memory.read(CONTEXT + n));
        let context = (request.rules.context)(words);
        let cached = context.is_some() || request.rules.caches_detached;
        Self { context: cached.then_some(context), ..self.clone() }.enter(request, context, &mut ends);
        ends
    }

    fn enter(&self, request: Request<'_>, context: Context, ends: &mut Ends) {
        let Some((domain, top)) = context else { return ends.push((self.clone(), request.rules.detached)) };
        let key = (domain, 1, prefix(request.iova, 1));
        let mut without = self.clone();
        if let Some(page) = self.pages.get(&key) {
            let refusal = match page {
                None => Some(request.rules.missing),
                Some(page) if page.flags & request.needed() == 0 => Some(request.rules.denied),
                Some(page) => {
                    ends.push((self.clone(), page_at(page.pa, request.iova, page.flags)));
                    None
                }
            };
            if let Some(refusal) = refusal {
                ends.push((self.clone(), refusal(request.write)));
                if request.rules.looks_again_with_pointers {
                    self.walk_somehow(request, domain, top, ends);
                } else {
                    ends.push(self.walk(request, domain, (top, 3, R | W)));
                }
            }
            without.pages.remove(&key);
        }
        without.walk_somehow(request, domain, top, ends);
    }

    /// From any cached pointer, or from the top.
    fn walk_somehow(&self, request: Request<'_>, domain: u64, top: u64, ends: &mut Ends) {
        let mut without = self.clone();
        for level in [2, 3] {
            let key = (domain, level, prefix(request.iova, level));
            let Some(pointer) = without.pointers.get(&key).copied() else { continue };
            ends.push(without.walk(request, domain, (pointer.pa, level - 1, pointer.flags)));
            // Or it is there, but not used.
            ends.push(without.walk(request, domain, (top, 3, R | W)));
            without.pointers.remove(&key);
        }
        ends.push(without.walk(request, domain, (top, 3, R | W)));
    }

    fn walk(&self, request: Request<'_>, domain: u64, (mut table, mut level, mut flags): (u64, u8, u64)) -> (Self, Outcome) {
        let mut next = self.clone();
        loop {
            let entry = request.memory.read(table + (request.iova >> shift(level)) % 512 * 8);
            let Some(here) = (request.rules.flags)(entry, level) else {
                if request.rules.caches_missing {
                    next.pages.insert((domain, 1, prefix(request.iova, 1)), None);
                }
                return (next, (request.rules.missing)(request.write));
            };
            flags &= here;
            if flags & request.needed() == 0 {
                return (next, (request.rules.denied)(request.write));
            }
            let (key, pa) = ((domain, level, prefix(request.iova, level)), (request.rules.address)(entry));
            if level == 1 {
                next.pages.insert(key, Some(Cached { pa, flags }));
                return (next, page_at(pa, request.iova, flags));
            }
            next.pointers.insert(key, Cached { pa, flags });
            (table, level) = (pa, level - 1);
        }
    }

    /// Removes what the command must remove.
    fn invalidate(&mut self, command: Command) {
        match command {
            Command::Context => self.context = None,
            Command::Domain { domain } => {
                self.pages.retain(|key, _| key.0 != domain);
                self.pointers.retain(|key, _| key.0 != domain);
            }
            Command::Page { domain, page, non_leaf } => {
                let named = |key: &Key| key.0 == domain && key.2 == prefix(PAGES[page as usize], key.1);
                self.pages.retain(|key, _| !named(key));
                if non_leaf {
                    self.pointers.retain(|key, _| !named(key));
                }
            }
        }
    }
}

const fn page_at(pa: u64, iova: u64, flags: u64) -> Outcome {
    Outcome::Page { pa: pa | (iova & 0xfff), writable: flags & W != 0 }
}

/// Every trace that a sequence may leave.
pub(crate) fn traces(format: Format, rules: Rules, ops: &[Op]) -> BTreeSet<Trace> {
    let mut memory = Memory::new(format);
    let mut all = BTreeSet::from([(Configuration::default(), Trace::new())]);
    for op in ops {
        match *op {
            Op::Edit(edit) => memory.edit(format, edit),
            Op::Invalidate(command) => {
                let each = |(mut configuration, trace): (Configuration, Trace)| {
                    configuration.invalidate(command);
                    (configuration, trace)
                };
                all = all.into_iter().map(each).collect();
            }
            Op::Ask(Ask { page, write }) => {
                let request = Request { rules, memory: &memory, iova: PAGES[page], write };
                let each = |(configuration, trace): (Configuration, Trace)| {
                    let ends = configuration.ask(request).into_iter();
                    ends.map(move |(end, outcome)| (end, [trace.as_slice(), &[outcome]].concat()))
                };
                all = all.into_iter().flat_map(each).collect();
            }
        }
    }
    all.into_iter().map(|(_, trace)| trace).collect()
}
