//! From the finding backwards to what decided it.
//!
//! The analysis knows how requests, tables, allocators and locks work, and no bug. It starts at the last event of the run, where
//! the finding was made, and at the addresses that the verdict names:
//!
//! 1. A DMA request: how it was translated, which words its walk fetched (or the walk that filled the cache entry it used), who
//!    stored each of them last.
//! 2. The device's last good access before it, and what changed translation in between: registers that decide it, stores to words
//!    that either walk fetched, the jump. The last of these is the **decider**. Where the translation did not change, what became of
//!    the frame did: the decider is its free or its next owner.
//! 3. The frame or object hit: everything that befell it.
//! 4. Injected failures, warnings, and errors that calls returned, from the first injected failure on.
//! 5. For anything else than DMA: the fate of each address named, and the locks there; the words the acting program had read and somebody
//!    else changed before it acted (the last of these changes is the decider); for a bad access where its pointer came from.
//!
//! Each event found is a [`Link`]; the chain is in the order of the run.

use iommu_model::addr::{Iova, Pa};
use sim::trace::{Event, EventKind};

use super::history::{FRAME_BYTES, History, overlap};
use super::request::{self, Request};
use super::{cached, stale, translation, words};
use crate::verb;

/// Most links of one role that are kept: those nearest to the finding.
const LINKS_PER_ROLE_MAX: usize = 8;
/// How far back the pointer of a bad access is looked for, in events of its program.
const POINTER_LOADS_MAX: usize = 64;
/// Most addresses of the verdict's details that are followed.
const SUBJECTS_MAX: usize = 8;

/// Why an event is in the chain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// A failure the run injected.
    Injected,
    /// A call that failed, or a warning.
    Error,
    /// A store of a word that the request's walk fetched, or of the pointer that was followed.
    Source,
    /// A load whose word was changed before the program acted on it.
    Check,
    /// The load of the pointer that a bad access followed.
    Pointer,
    /// The walk that filled the cache entry.
    Filled,
    /// The device's last good access.
    LastGood,
    /// A change of what decides translation, after the last good access.
    Changed,
    /// Where the hardware began to go by what decided.
    Effect,
    /// The jump into the next kernel.
    Jump,
    /// What became of the memory in question.
    Fate,
    /// A lock in question.
    Lock,
    /// A step of the request found.
    Request,
    /// Where the finding was made.
    Finding,
}

/// One event of the chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its position in the stream.
    pub at: usize,
    /// Why it is here.
    pub role: Role,
}

/// What the analysis found.
#[derive(Clone, Debug, Default)]
pub struct Cause {
    /// The chain, in the order of the run.
    pub links: Vec<Link>,
    /// The request the finding is about.
    pub request: Option<Request>,
    /// The device's last good request before it.
    pub last_good: Option<Request>,
    /// The walk that filled the cache entry it used.
    pub filled: Option<Request>,
    /// The fetch from which the entry was made that a unit still keeps.
    pub kept: Option<usize>,
    /// Where the acting program read what the decider changed.
    pub check: Option<usize>,
    /// What changed translation, or the owner of the memory, between the last good access and the finding.
    pub decider: Option<usize>,
    /// Where the hardware began to go by that, when it is another event: a unit waits for requests under way, a cache for its invalidation.
    pub took_effect: Option<usize>,
    /// The device's first access that was answered as the decider has it.
    pub first_bad: Option<usize>,
    /// Whether the decider changed the translation (else the memory).
    pub translation_changed: bool,
    /// Invalidations performed between the decider and the finding.
    pub nr_invalidations: usize,
    /// The addresses in question.
    pub subjects: Vec<Pa>,
    /// What befell the memory in question.
    pub fates: Vec<usize>,
    /// Position of the event at which the finding was made.
    pub finding: Option<usize>,
}

/// Analyses a run that ended in a finding.
pub fn analyse(history: &History<'_>) -> Cause {
    let mut cause = Cause::default();
    let Some(end) = history.events().len().checked_sub(1) else { return cause };
    let finding = found_at(history, end);
    cause.finding = Some(finding);
    cause.request = request::request_of(history, finding).filter(|request| concerns(history, request));
    cause.subjects = subjects(history, finding, cause.request.as_ref());
    if cause.request.is_some() {
        follow_request(history, &mut cause, finding);
        // The fate of the word that decided is as telling as that of the memory hit.
        if let Some(EventKind::Store { pa, .. }) = cause.decider.map(|at| history.event(at).kind)
            && !cause.subjects.contains(&pa)
        {
            cause.subjects.push(pa);
        }
    }
    // Being looked at when at rest is nothing a program does.
    let at_rest = matches!(history.event(finding).kind, EventKind::Note { verb: verb::QUIESCENT | verb::ALL_FINISHED, .. });
    if cause.request.is_none() && !follow_cached(history, &mut cause, finding) && !at_rest {
        follow_program(history, &mut cause, finding);
    }
    follow_memory(history, &mut cause, finding);
    follow_errors(history, &mut cause, finding);
    cause.links.push(Link { at: finding, role: Role::Finding });
    let jumps = history.positions(0..finding, |event| matches!(event.kind, EventKind::Jumped { .. }));
    let first = cause.links.iter().map(|link| link.at).min().unwrap_or(finding);
    cause.links.extend(jumps.into_iter().filter(|&at| at > first).map(|at| Link { at, role: Role::Jump }));
    tidy(&mut cause.links);
    cause
}

/// The event that made the finding: the last hardware access of the last step, else the last event that says something.
fn found_at(history: &History<'_>, end: usize) -> usize {
    let found = history.outcome().found;
    let end = found.map_or(end, |found| end.min(found.nr_events.saturating_sub(1)));
    // Judged at a boundary: the boundary is where it was seen, whatever its program did before.
    if found.is_some_and(|found| found.nr_events == end + 1 && is_boundary(&history.event(end).kind)) {
        return end;
    }
    // A program's own finding: what it did last. The access itself may have left no event.
    if let Some(by) = found.map(|found| found.by).filter(|&by| !history.is_hardware(by))
        && let Some(at) = (0..=end).rev().find(|&at| history.event(at).actor == by && is_telling(&history.event(at).kind))
    {
        return at;
    }
    let step = history.event(end).step;
    let tail = |at: &usize| history.event(*at).step == step;
    // Of a step of a CPU, what a device did in it before is another matter.
    let actor = history.event(end).actor;
    let same = |at: usize| history.is_hardware(actor) || history.event(at).actor == actor;
    let dma = (0..=end).rev().take_while(tail).find(|&at| request::request_id(&history.event(at).kind).is_some() && same(at));
    let telling = |at: &usize| is_telling(&history.event(*at).kind);
    dma.or_else(|| (0..=end).rev().take_while(tail).find(telling)).unwrap_or(end)
}

/// True for the moments at which what a kernel keeps is judged as a whole.
fn is_boundary(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Note { verb: verb::BEFORE_JUMP | verb::QUIESCENT | verb::ALL_FINISHED, .. })
}

/// True for events that say what somebody did.
fn is_telling(kind: &EventKind) -> bool {
    !matches!(kind, EventKind::Note { verb: verb::CALL | verb::PHASE | verb::MARK | verb::BEFORE_JUMP | verb::QUIESCENT, .. })
}

/// True when the verdict is about this request: it says nothing particular, or names the device or an address of the request. A verdict
/// about the end of the run comes right after whatever happened last.
fn concerns(history: &History<'_>, request: &Request) -> bool {
    let details = &history.outcome().verdict.details;
    let device = history.name(history.event(request.issued).actor);
    let device = device.rsplit(' ').next().unwrap_or(&device);
    let names = |line: &String| {
        line.contains(device)
            || numbers(line)
                .any(|number| Iova(number).page() == request.iova.page() || request.pa.is_some_and(|pa| Pa(number).pfn() == pa.pfn()))
    };
    details.is_empty() || details.iter().any(names)
}

/// All hex numbers of a line.
fn numbers(line: &str) -> impl Iterator<Item = u64> {
    let words = line.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter_map(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok())
}

/// The addresses in question: where the request went, what the event touched, what the verdict names.
fn subjects(history: &History<'_>, finding: usize, request: Option<&Request>) -> Vec<Pa> {
    let mut subjects = Vec::new();
    let mut add = |pa: Pa| {
        if subjects.len() < SUBJECTS_MAX && !subjects.contains(&pa) {
            subjects.push(pa);
        }
    };
    if let Some(pa) = request.and_then(|request| request.pa) {
        add(pa);
    }
    match history.event(finding).kind {
        // Which locks are in question the verdict says: what the program did last is beside it.
        _ if matches!(history.outcome().verdict.property.as_str(), "LOCK" | "P7") => {}
        EventKind::Load { pa, .. }
        | EventKind::Store { pa, .. }
        | EventKind::Locked { pa, .. }
        | EventKind::Unlocked { pa, .. }
        | EventKind::ObjectTaken { pa, .. }
        | EventKind::ObjectFreed { pa, .. }
        | EventKind::StatusWritten { pa, .. } => add(pa),
        EventKind::FramesTaken { pfn, .. } | EventKind::FramesFreed { pfn, .. } => add(pfn.pa()),
        _ => {}
    }
    for line in &history.outcome().verdict.details {
        for pa in named_addresses(line) {
            add(pa);
        }
    }
    subjects
}

/// Numbers that follow the words `pa` or `frame` in a line.
fn named_addresses(line: &str) -> Vec<Pa> {
    let mut words = line.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).peekable();
    let mut found = Vec::new();
    while let Some(word) = words.next() {
        let number = words.peek().and_then(|next| next.strip_prefix("0x")).and_then(|hex| u64::from_str_radix(hex, 16).ok());
        match (word, number) {
            ("pa" | "frame", Some(number)) => found.push(Pa(number)),
            ("pfn", Some(number)) => found.push(Pa(number.wrapping_mul(FRAME_BYTES))),
            _ => {}
        }
    }
    found
}

fn follow_request(history: &History<'_>, cause: &mut Cause, finding: usize) {
    let Some(request) = cause.request.clone() else { return };
    let decided = request.translated.unwrap_or(finding);
    cause.links.push(Link { at: request.issued, role: Role::Request });
    cause.links.push(Link { at: decided, role: Role::Request });
    if request.cached {
        cause.filled = request::filling(history, &request, decided);
    }
    let walk = cause.filled.as_ref().unwrap_or(&request);
    let fetched = request::fetches(history, walk);
    for &fetch in &fetched {
        let EventKind::Fetched { pa, bytes, .. } = history.event(fetch).kind else { continue };
        for word in (0..u64::from(bytes)).step_by(8) {
            let writer = history.last_writer(pa.offset(word), fetch);
            cause.links.extend(writer.map(|at| Link { at, role: Role::Source }));
        }
    }
    if let Some(at) = cause.filled.as_ref().and_then(|filled| filled.translated) {
        cause.links.push(Link { at, role: Role::Filled });
    }
    cause.last_good = request::last_good(history, &request, decided);
    let Some(good) = cause.last_good.clone() else { return };
    cause.links.push(Link { at: good.done.unwrap_or(good.issued), role: Role::LastGood });

    let from = good.translated.unwrap_or(good.issued);
    let read: Vec<(Pa, u64)> = fetched.iter().filter_map(|&at| request::fetched_word(history, at)).collect();
    let mut words = read.clone();
    // What the good access read tells of this one only where both were for one page.
    if request.iova.page() == good.iova.page() {
        words.extend(request::fetches(history, &good).iter().filter_map(|&at| request::fetched_word(history, at)));
        words.extend(cause.filled.as_ref().and_then(|_| request::good_walk(history, &good)).into_iter().flatten());
        words.sort_unstable();
        words.dedup();
    }
    let touches = |words: &[(Pa, u64)], kind: &EventKind| match *kind {
        EventKind::Store { pa, bytes, old, new, .. } => {
            old != new && words.iter().any(|&(word, nr_bytes)| overlap(pa, u64::from(bytes), word, nr_bytes))
        }
        _ => false,
    };
    let mut changed = history.positions(from..finding, |event| touches(&words, &event.kind));
    let stores = changed.clone();
    let unit = translation::unit_of(history, request.device);
    let untranslated = request.is_untranslated();
    // A command counts from where it takes effect.
    let effect = |at: usize| translation::effect(history, at, finding);
    let commands = (0..finding).filter(|&at| translation::is_about(history, at, unit));
    changed.extend(commands.filter(|&at| effect(at).is_some_and(|effect| effect >= from)));
    changed.sort_unstable();
    let could_decide = |at: &usize| translation::decides(history, *at, unit, untranslated) || !untranslated && stores.contains(at);
    let differs = request.pa.map(|pa| pa.pfn()) != good.pa.map(|pa| pa.pfn()) && request.iova.page() == good.iova.page()
        || request.domain != good.domain;
    let in_effect = |at: &usize| effect(*at).is_some_and(|effect| effect < decided);
    let mut before_decided = changed.iter().rev().copied().find(|at| in_effect(at) && could_decide(at));
    // A blocked request says nothing about how it would have been answered.
    if before_decided.is_none() && differs && request.pa.is_some() {
        // What was decided takes effect when caches were emptied: it may stand before the last good translation. Of the commands and
        // of the words this request read, the latest change decided.
        let written = |at: &usize| {
            let kind = &history.event(*at).kind;
            !untranslated && touches(&read, kind) || translation::decides(history, *at, unit, untranslated)
        };
        before_decided = (0..from).rev().find(written);
        changed.extend(before_decided);
    }
    cause.took_effect = before_decided.filter(|_| differs).and_then(|at| took_effect(history, at, from, decided));
    cause.decider = before_decided.filter(|_| differs).or_else(|| {
        // The translation is the old one. Whoever removed its source, or gave its frame away, decided.
        changed
            .iter()
            .rev()
            .copied()
            .find(|at| request.cached && could_decide(at))
            .or_else(|| ownership_change(history, &request, from, finding))
    });
    cause.translation_changed = cause.decider.is_some_and(|at| changed.contains(&at));
    cause.links.extend(changed.into_iter().map(|at| Link { at, role: Role::Changed }));
    cause.links.extend(cause.took_effect.map(|at| Link { at, role: Role::Effect }));
    if let Some(decider) = cause.decider {
        let role = if cause.translation_changed { Role::Changed } else { Role::Fate };
        cause.links.push(Link { at: decider, role });
        let invalidations =
            history.positions(decider..finding, |event| matches!(event.kind, EventKind::Invalidated { descriptor: 1..=3, .. }));
        cause.nr_invalidations = invalidations.len();
        cause.first_bad = first_after(history, &request, decider.max(from + 1), finding);
        cause.links.extend(invalidations.last().map(|&at| Link { at, role: Role::Changed }));
    }
}

/// Where the hardware began to go by the change at `at`, between the last good translation (`from`) and the bad one (`decided`): the unit's
/// switch for a command, the last invalidation for a word that was still cached. None when the change itself stands between them.
fn took_effect(history: &History<'_>, at: usize, from: usize, decided: usize) -> Option<usize> {
    let switched = translation::effect(history, at, decided).filter(|&effect| effect != at);
    switched.or_else(|| {
        let invalidates = |&at: &usize| matches!(history.event(at).kind, EventKind::Invalidated { descriptor: 1..=2, .. });
        (from..decided).rev().find(invalidates).filter(|_| at < from)
    })
}

/// The first answer to the device after `decider` that is like the one to `request`.
fn first_after(history: &History<'_>, request: &Request, decider: usize, finding: usize) -> Option<usize> {
    let like = history.positions(decider..finding + 1, |event| match event.kind {
        EventKind::DmaTranslated { device, domain, .. } => device == request.device && domain == request.domain,
        EventKind::DmaFaulted { device, .. } => device == request.device,
        _ => false,
    });
    like.first().copied()
}

/// The last change of who owns the frame that `request` hit, since `from`.
fn ownership_change(history: &History<'_>, request: &Request, from: usize, finding: usize) -> Option<usize> {
    let pa = request.pa?;
    let fates = history.of_frame(pa, from..finding);
    let freed = fates
        .iter()
        .rev()
        .copied()
        .find(|&at| matches!(history.event(at).kind, EventKind::FramesFreed { .. } | EventKind::FramesTaken { .. }));
    freed.or_else(|| history.positions(from..finding, |event| matches!(event.kind, EventKind::Jumped { .. })).last().copied())
}

/// What a unit keeps of a word that changed. False when the verdict is about no such entry.
fn follow_cached(history: &History<'_>, cause: &mut Cause, finding: usize) -> bool {
    let Some(kept) = cached::follow(history, finding) else { return false };
    cause.links.push(Link { at: kept.filled, role: Role::Filled });
    (cause.kept, cause.decider) = (Some(kept.filled), kept.changed);
    if let Some(changed) = kept.changed {
        cause.links.push(Link { at: changed, role: Role::Changed });
        let invalidations =
            history.positions(changed..finding, |event| matches!(event.kind, EventKind::Invalidated { descriptor: 1..=2, .. }));
        cause.nr_invalidations = invalidations.len();
        cause.links.extend(invalidations.last().map(|&at| Link { at, role: Role::Changed }));
    }
    true
}

/// What a program that went wrong relied on: words it had read and that changed, and the pointer it followed.
fn follow_program(history: &History<'_>, cause: &mut Cause, finding: usize) {
    // A lock, or a word that nobody wrote, is not what somebody else changed.
    if matches!(history.outcome().verdict.property.as_str(), "LOCK" | "P7" | "RACE" | "definedness") {
        return;
    }
    let mut stale = stale::reads(history, finding);
    if stale.is_empty() {
        // Of a program that made something to install: that another one was faster.
        stale.extend(stale::lost_exchange(history, finding).filter(|lost| made(history, cause, lost.read)));
    }
    for stale in stale.iter().rev().take(LINKS_PER_ROLE_MAX) {
        cause.links.push(Link { at: stale.read, role: Role::Check });
        cause.links.push(Link { at: stale.changed, role: Role::Changed });
    }
    (cause.check, cause.decider) = (stale.last().map(|stale| stale.read), stale.last().map(|stale| stale.changed));
    let Some(pointer) = followed(history, finding) else { return };
    cause.links.push(Link { at: pointer, role: Role::Pointer });
    if let EventKind::Load { pa, .. } = history.event(pointer).kind {
        cause.links.extend(history.last_writer(pa, pointer).map(|at| Link { at, role: Role::Source }));
    }
}

/// True when the program that acts at `at` made something in question in its call.
fn made(history: &History<'_>, cause: &Cause, at: usize) -> bool {
    let by = history.event(at).actor;
    let taken = |at: usize| matches!(history.event(at).kind, EventKind::FramesTaken { .. } | EventKind::ObjectTaken { .. });
    let of_call = || history.begin_of_call(at)..at;
    cause.subjects.iter().any(|&pa| history.of_frame(pa, of_call()).into_iter().any(|at| taken(at) && history.event(at).actor == by))
}

/// The load of the pointer behind a bad access, which the verdict names by its virtual address.
fn followed(history: &History<'_>, finding: usize) -> Option<usize> {
    let verdict = &history.outcome().verdict;
    let line = verdict.details.first().filter(|_| verdict.property == "LIFE")?;
    let address = numbers(line).next()?;
    let acting = history.event(finding).actor;
    (0..=finding).rev().filter(|&at| history.event(at).actor == acting).take(POINTER_LOADS_MAX).find(|&at| match history.event(at).kind {
        EventKind::Load { value, bytes: 8, .. } => value <= address && address - value < FRAME_BYTES,
        _ => false,
    })
}

fn follow_memory(history: &History<'_>, cause: &mut Cause, finding: usize) {
    let mut fates = Vec::new();
    let mut locks = Vec::new();
    // Who pinned a page matters where pins do.
    let verdict = &history.outcome().verdict;
    let pins = verdict.details.iter().chain([&verdict.title]).any(|line| line.contains("pin"));
    let told = |at: &usize| pins || !matches!(history.event(*at).kind, EventKind::Note { verb: verb::PINNED | verb::UNPINNED, .. });
    for &pa in &cause.subjects {
        let at_lock =
            |event: &Event| matches!(event.kind, EventKind::Locked { pa: lock, .. } | EventKind::Unlocked { pa: lock, .. } if lock == pa);
        let used = if cause.request.is_none() { history.positions(0..finding, at_lock) } else { Vec::new() };
        if let Some(&last) = used.last() {
            // Who holds it; of one that nobody holds, who did last. The words of a lock are its own affair, and so is its memory while it lives.
            let held = matches!(history.event(last).kind, EventKind::Locked { .. });
            locks.extend(used.iter().rev().take(if held { 1 } else { 2 }));
            if history.holding(pa, finding).is_none_or(|holding| holding.tag.is_some()) {
                continue;
            }
        }
        fates.extend(history.of_frame(pa, 0..finding).into_iter().rev().filter(told).take(LINKS_PER_ROLE_MAX));
        if cause.request.is_none() && used.is_empty() {
            fates.extend(writers(history, pa, finding));
        }
    }
    fates.sort_unstable();
    fates.dedup();
    cause.links.extend(locks.into_iter().map(|at| Link { at, role: Role::Lock }));
    // The latest ones belong to the story; the rest is listed apart.
    let shown = if cause.request.is_some() { 2 } else { LINKS_PER_ROLE_MAX };
    cause.links.extend(fates.iter().rev().take(shown).map(|&at| Link { at, role: Role::Fate }));
    cause.fates = fates;
}

/// Who stored to a word in question: the last one; of a member of an object, which may be a count, the last few.
fn writers(history: &History<'_>, word: Pa, finding: usize) -> Vec<usize> {
    let held = history.holding(word, finding).map(|holding| holding.at);
    let Some(taken) = held.filter(|&at| matches!(history.event(at).kind, EventKind::ObjectTaken { .. })) else {
        return history.last_writer(word, finding).into_iter().collect();
    };
    let stores = history.positions(taken..finding, |event| match event.kind {
        EventKind::Store { pa, bytes, old, new, .. } => old != new && overlap(pa, u64::from(bytes), word, 4),
        _ => false,
    });
    stores[stores.len().saturating_sub(LINKS_PER_ROLE_MAX)..].to_vec()
}

fn follow_errors(history: &History<'_>, cause: &mut Cause, finding: usize) {
    let injected = history.positions(0..finding, |event| matches!(event.kind, EventKind::Injected { .. }));
    let from = injected.first().copied().or_else(|| cause.last_good.as_ref().map(|good| good.issued)).unwrap_or(0);
    cause.links.extend(injected.iter().rev().take(LINKS_PER_ROLE_MAX).map(|&at| Link { at, role: Role::Injected }));
    // Without a failure in question, what calls of other programs returned is their own story.
    let acting = history.event(finding).actor;
    let warns = |at: usize| matches!(history.event(at).kind, EventKind::Note { verb: verb::WARN | verb::KHO_RESTORE_FAILED, .. });
    let told = |at: &usize| !injected.is_empty() || history.event(*at).actor == acting || warns(*at);
    let errors: Vec<usize> = (from..finding).filter(|&at| is_error(history, at)).filter(told).collect();
    // Those that came first are nearest to the cause.
    cause.links.extend(errors.into_iter().take(LINKS_PER_ROLE_MAX).map(|at| Link { at, role: Role::Error }));
}

fn is_error(history: &History<'_>, at: usize) -> bool {
    let event = history.event(at);
    let EventKind::Note { verb, args } = event.kind else { return false };
    match verb {
        verb::WARN | verb::KHO_RESTORE_FAILED => true,
        verb::USER_RETURN => {
            // A call with deliberately bad arguments is meant to be refused.
            let call = history.events()[..at].iter().rev().find_map(|before| match before.kind {
                EventKind::Note { verb: verb::USER_CALL, args } if before.actor == event.actor => Some(args[3]),
                _ => None,
            });
            call.is_none_or(|flags| flags & 1 == 0) && words::error_of(verb, args).is_some()
        }
        _ => words::error_of(verb, args).is_some(),
    }
}

/// In the order of the run; one link an event, with the role that tells most; each role bounded.
fn tidy(links: &mut Vec<Link>) {
    links.sort_by_key(|link| (link.at, std::cmp::Reverse(link.role)));
    links.dedup_by_key(|link| link.at);
    for role in [Role::Source, Role::Changed] {
        let mut left = LINKS_PER_ROLE_MAX;
        let mut at = links.len();
        while at > 0 {
            at -= 1;
            if links[at].role == role {
                if left == 0 {
                    links.remove(at);
                } else {
                    left -= 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_the_words_of_a_verdict() {
        assert_eq!(named_addresses("DMA write at iova 0x10 hit pa 0x1000: frame 0x2000, order 1"), [Pa(0x1000), Pa(0x2000)]);
        assert_eq!(named_addresses("page at pfn 0x3 (pa=0x5008) of map 0x77"), [Pa(0x3000), Pa(0x5008)]);
        assert_eq!(named_addresses("nothing 0x5, pa"), []);
    }
}
