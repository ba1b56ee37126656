//! Requests in flight while software stores and invalidates, as a set.
//!
//! A walk reads each entry when it comes to it. Once an invalidation is complete, a walk that has used what it covers must not
//! go on with it: it begins again, with what the caches hold then. One that has used nothing of it may go on, or begin again
//! as well, for hardware may always look anew.

use super::reference::{Cached, Configuration, Context, PAGE_LEVELS, POINTER_LEVELS, page_at, prefix, shift};
use super::world::{ADDRESS, Ask, Command, Memory, Outcome, P, PAGES, PS, R, ROOT, SOURCES, W};

/// What happens around a request.
#[derive(Clone, Copy)]
pub(crate) struct Between<'a> {
    pub(crate) before: &'a Memory,
    pub(crate) after: &'a Memory,
    /// The fetch that is answered from `after`, as are all behind it.
    pub(crate) at: usize,
    pub(crate) command: Option<Command>,
}

/// A walk in flight.
#[derive(Clone)]
struct Flight {
    configuration: Configuration,
    ask: Ask,
    /// Fetches so far.
    fetches: usize,
    /// The context in use.
    context: Option<Context>,
    /// A pointer in use: read, or from a cache.
    has_pointer: bool,
    flags: u64,
}

type Ends = Vec<(Configuration, Outcome)>;

impl Flight {
    fn iova(&self) -> u64 {
        PAGES[self.ask.page]
    }

    fn needed(&self) -> (u64, Outcome) {
        if self.ask.write { (W, Outcome::Fault(0x05)) } else { (R, Outcome::Fault(0x06)) }
    }

    /// The request is over; what has not happened yet happens now.
    fn end(mut self, between: &Between<'_>, outcome: Outcome, ends: &mut Ends) {
        if self.fetches <= between.at
            && let Some(command) = between.command
        {
            self.configuration.invalidate(command);
        }
        ends.push((self.configuration, outcome));
    }

    /// The next fetch; none if the walk has to begin again, whose ends are told then.
    fn fetch(&mut self, between: &Between<'_>, pa: u64, ends: &mut Ends) -> Option<u64> {
        let n = self.fetches;
        self.fetches += 1;
        if n < between.at {
            return Some(between.before.read(pa));
        }
        if n == between.at
            && let Some(command) = between.command
        {
            self.configuration.invalidate(command);
            ends.extend(self.configuration.ask(between.after, self.ask));
            if self.has_used(command) {
                return None;
            }
        }
        Some(between.after.read(pa))
    }

    /// Whether the command covers something that the walk holds.
    fn has_used(&self, command: Command) -> bool {
        let Some(context) = self.context else { return matches!(command, Command::ContextGlobal) };
        match command {
            Command::ContextGlobal => true,
            Command::ContextDomain { domain } => domain == context.domain,
            Command::ContextDevice { source, domain } => source == self.ask.source && domain == context.domain,
            Command::IotlbGlobal => self.has_pointer,
            Command::IotlbDomain { domain } => self.has_pointer && domain == context.domain,
            Command::IotlbPages { domain, page, order, leaf_only } => {
                let named = PAGES[self.ask.page] >> 12 >> order == page >> order;
                self.has_pointer && domain == context.domain && named && !leaf_only
            }
            Command::DeviceAll | Command::DevicePage { .. } => false,
        }
    }

    /// Root and context entry, then the rest.
    fn begin(mut self, between: &Between<'_>, ends: &mut Ends) {
        let Some(root) = self.fetch(between, ROOT, ends) else { return };
        if root & P == 0 {
            return self.end(between, Outcome::Fault(0x01), ends);
        }
        let pa = (root & ADDRESS) + u64::from(SOURCES[self.ask.source]) * 16;
        // Both words at once.
        let n = self.fetches;
        let Some(low) = self.fetch(between, pa, ends) else { return };
        let high = if n < between.at { between.before.read(pa + 8) } else { between.after.read(pa + 8) };
        if low & P == 0 {
            return self.end(between, Outcome::Fault(0x02), ends);
        }
        let context = Context { domain: high >> 8 & 0xffff, top: low & ADDRESS };
        self.configuration.contexts.insert(self.ask.source, context);
        self.translate(between, context, ends);
    }

    fn translate(mut self, between: &Between<'_>, context: Context, ends: &mut Ends) {
        self.context = Some(context);
        let (needed, denied) = self.needed();
        let mut without = self.clone();
        for level in PAGE_LEVELS {
            let key = (context.domain, level, prefix(self.iova(), level));
            let Some(page) = self.configuration.pages.get(&key).copied() else { continue };
            if page.flags & needed == 0 {
                self.clone().end(between, denied, ends);
                self.clone().walk(between, context.top, 3, ends);
            } else {
                self.clone().end(between, page_at(page.pa, self.iova(), level, page.flags), ends);
            }
            without.configuration.pages.remove(&key);
        }
        for level in POINTER_LEVELS {
            let key = (context.domain, level, prefix(self.iova(), level));
            let Some(pointer) = without.configuration.pointers.get(&key).copied() else { continue };
            if pointer.flags & needed == 0 {
                without.clone().end(between, denied, ends);
            } else {
                let start = Self { has_pointer: true, flags: pointer.flags, ..without.clone() };
                start.walk(between, pointer.pa, level - 1, ends);
            }
            without.clone().walk(between, context.top, 3, ends);
            without.configuration.pointers.remove(&key);
        }
        without.walk(between, context.top, 3, ends);
    }

    fn walk(mut self, between: &Between<'_>, mut table: u64, mut level: u8, ends: &mut Ends) {
        let (needed, denied) = self.needed();
        let domain = self.context.map_or(0, |context| context.domain);
        loop {
            let pa = table + (self.iova() >> shift(level)) % 512 * 8;
            let Some(entry) = self.fetch(between, pa, ends) else { return };
            let here = self.flags & entry & (R | W);
            if here & needed == 0 {
                return self.end(between, denied, ends);
            }
            self.flags = here;
            let (key, pa) = ((domain, level, prefix(self.iova(), level)), entry & ADDRESS);
            if level == 1 || entry & PS != 0 {
                self.configuration.pages.insert(key, Cached { pa, flags: here });
                let outcome = page_at(pa, self.iova(), level, here);
                return self.end(between, outcome, ends);
            }
            self.configuration.pointers.insert(key, Cached { pa, flags: here });
            self.has_pointer = true;
            (table, level) = (pa, level - 1);
        }
    }
}

/// Every way that a request in flight may end, with what the caches hold when everything has happened.
pub(crate) fn race(configuration: &Configuration, ask: Ask, between: &Between<'_>) -> Ends {
    let flight = Flight { configuration: configuration.clone(), ask, fetches: 0, context: None, has_pointer: false, flags: R | W };
    let mut ends = Ends::new();
    if let Some(&context) = configuration.contexts.get(&ask.source) {
        flight.clone().translate(between, context, &mut ends);
    }
    let mut fresh = flight;
    fresh.configuration.contexts.remove(&ask.source);
    fresh.begin(between, &mut ends);
    ends
}
