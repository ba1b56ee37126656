//! The report in kernel form: what happened, because of what, to whose memory, in which order, and how to see it again.
//!
//! The title is free of numbers; the last line before the closing rule is the one to copy.

use iommu_model::addr::Pa;
use sim::trace::EventKind;

use super::cause::{self, Cause, Link, Role};
use super::columns::{self, side};
use super::history::{History, Holding};
use super::{signature, words};
use crate::oracle;
use crate::run::{Outcome, RunSpec, VerdictKind};

/// Columns of a report on a terminal.
const WIDTH: usize = 100;
/// Columns of a report in a mail.
const MAIL_WIDTH: usize = 72;
/// Most lines of a memory's history.
const FATES_MAX: usize = 8;

/// The form of a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// For a terminal.
    Terminal,
    /// For a mail: 72 columns, with a head and the tags to add.
    Mail,
}

/// A run to report on.
pub struct Case<'a> {
    /// What was run.
    pub spec: &'a RunSpec,
    /// What it came to, with its events.
    pub outcome: &'a Outcome,
    /// What to type after `lurch replay`: a token or a file's name.
    pub source: &'a str,
}

/// Draws the report.
pub fn report(case: &Case<'_>, form: Form) -> String {
    let mut page = Page { width: if form == Form::Mail { MAIL_WIDTH } else { WIDTH }, lines: Vec::new() };
    if form == Form::Mail {
        mail_head(&mut page, case);
    }
    let rule = "=".repeat(page.width.min(80));
    page.plain(&rule);
    body(&mut page, case);
    page.plain(&rule);
    if form == Form::Mail {
        page.plain("");
        page.wrapped("", "Found by lurch in a model of the series, not on hardware: the functions named are modelled after it. If you fix this, please add:");
        page.plain("  Reported-by: <your name and address>");
        page.plain("  Closes: <link to this report>");
    }
    page.lines.join("\n") + "\n"
}

fn body(page: &mut Page, case: &Case<'_>) {
    let verdict = &case.outcome.verdict;
    if verdict.kind == VerdictKind::Clean {
        page.wrapped("", "Nothing was violated: this run is clean.");
        tail(page, case);
        return;
    }
    let history = History::new(case.outcome);
    let cause = cause::analyse(&history);
    let kind = if verdict.kind == VerdictKind::Violation { "BUG" } else { verdict.kind.name() };
    page.wrapped("", &format!("{kind}: lurch: {}", verdict.title));
    page.plain("");
    what_happened(page, case, &history, &cause);
    because(page, &history, &cause);
    memory(page, &history, &cause);
    if !cause.links.is_empty() {
        page.plain("");
        page.plain("Decisive steps, in the order of the run:");
        page.plain("");
        let starred =
            if verdict.kind == VerdictKind::Violation { verdict.title.to_uppercase() } else { verdict.kind.name().to_uppercase() };
        page.lines.extend(columns::draw(&history, &drawn(&cause), &starred, page.width));
    }
    if let Some(at) = cause.finding
        && !is_of_the_machine(&verdict.property)
        && let EventKind::DmaLanded { old, new, .. } | EventKind::Store { old, new, .. } = history.event(at).kind
    {
        page.plain("");
        page.plain(&format!("value changed: {old:#018x} -> {new:#018x}"));
    }
    page.plain("");
    page.wrapped("  ", &format!("property: {}", property(&verdict.property)));
    if verdict.kind == VerdictKind::Violation {
        page.plain(&format!("signature: {}", signature::signature(&history, &cause)));
    }
    tail(page, case);
}

/// The steps side by side: those of the two parties. Where it is known what decided, what befell the memory before the last good access, or
/// before the entry was made, is told above.
fn drawn(cause: &Cause) -> Vec<Link> {
    let good = cause.last_good.as_ref().map(|good| good.translated.unwrap_or(good.issued));
    let decided = cause.decider.is_some() && (cause.translation_changed || cause.kept.is_some());
    let begins = cause.kept.or(good).filter(|_| decided).unwrap_or(0);
    let beside = |link: &Link| link.role == Role::Fate && link.at < begins && cause.decider != Some(link.at);
    let mut drawn: Vec<Link> = cause.links.iter().copied().filter(|link| !beside(link)).collect();
    let first = drawn.iter().position(|link| link.role != Role::Jump).unwrap_or(0);
    drawn.drain(..first);
    drawn
}

/// True for properties that the machine judges at the access, not an oracle at an event.
fn is_of_the_machine(property: &str) -> bool {
    matches!(property, "LIFE" | "LOCK" | "P7" | "definedness" | "RACE")
}

/// The property with its sentence.
fn property(name: &str) -> String {
    let known = oracle::CATALOGUE.iter().find(|info| info.name == name);
    known.map_or_else(|| name.to_owned(), |info| format!("{name}: {}", info.sentence))
}

/// `by luod/412, outgoing, step 31, in iommu_unmap`.
fn by(history: &History<'_>, at: usize) -> String {
    let event = history.event(at);
    let last_era = history.events().last().map_or(0, |event| event.era);
    let mut text = history.name(event.actor);
    if !history.is_hardware(event.actor) {
        // The old kernel jumps.
        let era = event.era - u8::from(event.era > 0 && matches!(event.kind, EventKind::Jumped { .. }));
        text.push_str(&format!(", {}", side(era, last_era)));
    }
    text.push_str(&format!(", step {}", event.step));
    if let Some(function) = history.function(at).filter(|_| !history.is_hardware(event.actor)) {
        text.push_str(&format!(", in {function}"));
    }
    text
}

fn what_happened(page: &mut Page, case: &Case<'_>, history: &History<'_>, cause: &Cause) {
    if let Some(request) = &cause.request {
        let device = history.name(history.event(request.issued).actor);
        let what = if request.write { "write to" } else { "read of" };
        page.wrapped(
            "  ",
            &format!(
                "DMA {what} iova {:#018x} by {device} (request {}), {}:",
                request.iova.0,
                request.serial,
                when(history, request.issued)
            ),
        );
        if let Some(at) = request.translated {
            page.wrapped("   ", &format!(" {}, {}", words::long(history, at), when(history, at)));
        }
        if let Some(at) = cause.filled.as_ref().and_then(|filled| filled.translated) {
            page.wrapped("   ", &format!(" that entry was filled by a walk, {}", when(history, at)));
        }
        // Of a request that was blocked: the frame it should have reached.
        let expected = || cause.subjects.first().copied().filter(|_| request.translated.is_none());
        if let Some(pa) = request.pa.or_else(expected).filter(|_| !case.outcome.log.is_empty()) {
            let (owner, holding) = words::owner(history, pa, cause.finding.unwrap_or(0));
            let since = holding.map_or(String::new(), |holding| format!(", since: {}", by(history, holding.at)));
            page.wrapped("   ", &format!(" frame pa {:#018x}, owner: {owner}{since}", pa.pfn().pa().0));
        }
    } else if let Some(at) = cause.finding {
        // What the machine itself judges is no event: an access that is refused does not happen.
        let seen = if is_of_the_machine(&case.outcome.verdict.property) { "Found in the program's step after" } else { "Seen at" };
        page.wrapped("  ", &format!("{seen} {}:", by(history, at)));
        page.wrapped("   ", &format!(" {}", words::long(history, at)));
    }
    for line in &case.outcome.verdict.details {
        page.wrapped("   ", &format!(" {line}"));
    }
}

fn when(history: &History<'_>, at: usize) -> String {
    let event = history.event(at);
    let last_era = history.events().last().map_or(0, |event| event.era);
    format!("{}, step {}", side(event.era, last_era), event.step)
}

/// The chain of causes, and what decided.
fn because(page: &mut Page, history: &History<'_>, cause: &Cause) {
    let failure = |at: usize| matches!(history.event(at).kind, EventKind::Injected { .. });
    let told = |link: &&Link| match link.role {
        // Where nothing decided, who counted what is in question up and down is the story, or who freed it; of what nobody wrote, who made it.
        Role::Fate if cause.decider.is_none() => match history.event(link.at).kind {
            EventKind::Store { .. } => true,
            EventKind::FramesFreed { .. } | EventKind::ObjectFreed { .. } if history.outcome().verdict.kind == VerdictKind::Violation => {
                let last = |&pa: &Pa| history.holding(pa, cause.finding.unwrap_or(0)).is_some_and(|holding| holding.at == link.at);
                cause.subjects.iter().any(last)
            }
            EventKind::FramesTaken { .. } | EventKind::ObjectTaken { .. } => history.outcome().verdict.property == "definedness",
            _ => false,
        },
        Role::Lock if cause.decider.is_none() => matches!(history.event(link.at).kind, EventKind::Locked { .. }),
        Role::Request | Role::Fate | Role::Lock => cause.decider == Some(link.at),
        Role::Finding => cause.decider == Some(link.at) || failure(link.at),
        _ => true,
    };
    let mut chain: Vec<&Link> = cause.links.iter().filter(told).collect();
    if chain.iter().all(|link| link.role == Role::Jump) {
        // Nothing else is known to have led there: then what befell the memory in question is the story.
        chain = cause.links.iter().filter(|link| !matches!(link.role, Role::Request | Role::Finding)).collect();
    }
    if chain.iter().any(|link| link.role != Role::Jump) {
        page.plain("");
        page.plain("Chain of causes:");
        for (nr, link) in chain.iter().enumerate() {
            page.wrapped(
                "     ",
                &format!(" {:>2}. {}: {}{}", nr + 1, by(history, link.at), words::long(history, link.at), remark(cause, link)),
            );
        }
    }
    if let (Some(decider), Some(check), Some(finding)) = (cause.decider, cause.check, cause.finding) {
        page.plain("");
        let step = |at: usize| history.event(at).step;
        let changed = format!("was changed by {}: {}", by(history, decider), words::long(history, decider));
        if check > decider {
            page.wrapped("  ", &format!("The program lost a compare-and-exchange (step {}): the word {changed}", step(check)));
        } else {
            let steps = format!("(step {}) and what it did (step {})", step(check), step(finding));
            page.wrapped("  ", &format!("Between the program's last look at the word {steps}, the word {changed}"));
        }
    }
    if let Some(kept) = cause.kept {
        page.plain("");
        let made = format!("The entry was made by a walk for {}", by(history, kept));
        match cause.decider {
            Some(decider) => {
                page.wrapped(
                    "  ",
                    &format!("{made}; the word was changed since by {}: {}", by(history, decider), words::long(history, decider)),
                );
                page.wrapped("  ", &format!("Expected next: invalidation of the entry; {}.", invalidations(cause)));
            }
            None => page.wrapped("  ", &format!("{made}; the word is as it was then: nobody took the mapping away before the memory.")),
        }
    }
    let (Some(decider), Some(good), Some(request)) = (cause.decider, &cause.last_good, &cause.request) else { return };
    page.plain("");
    let step = |at: usize| history.event(at).step;
    let bad_at = cause.first_bad.unwrap_or(request.translated.unwrap_or(request.issued));
    // A write is translated when it is issued and lands later; what was commanded before takes effect when caches were emptied.
    let translated = good.translated.unwrap_or(good.issued);
    let done =
        good.done.filter(|&done| step(done) != step(translated)).map_or(String::new(), |done| format!(", done at step {}", step(done)));
    // Others of its accesses may have been good since, through other mappings.
    let which = if good.iova.page() == request.iova.page() && !request.is_untranslated() { " to this page" } else { "" };
    let good = format!("the device's last good access{which} (translated at step {}{done})", step(translated));
    let bad = format!("its first bad one (step {})", step(bad_at));
    let what = if cause.translation_changed { "what decides translation was changed by" } else { "the owner of the memory was changed by" };
    let decided = format!("{}: {}", by(history, decider), words::long(history, decider));
    let told = match cause.took_effect {
        Some(effect) => {
            let effect = format!("{} (step {})", words::long(history, effect), step(effect));
            format!("Between {good} and {bad}, {effect}; {what} {decided}")
        }
        None if decider < translated => format!("Before {good}, to take effect by {bad}, {what} {decided}"),
        None if decider < bad_at => format!("Between {good} and {bad}, {what} {decided}"),
        None => format!("After {bad}, while it was under way, {what} {decided}"),
    };
    page.wrapped("  ", &told);
    if request.cached {
        page.wrapped("  ", &format!("Expected next: invalidation of the entry; {}.", invalidations(cause)));
    }
}

/// What was invalidated between the decider and the finding, in words.
fn invalidations(cause: &Cause) -> String {
    match cause.nr_invalidations {
        0 => "no invalidation was performed between that and this".to_owned(),
        n => format!("{n} invalidations were performed between that and this; none removed this entry"),
    }
}

fn remark(cause: &Cause, link: &Link) -> &'static str {
    if cause.decider == Some(link.at) {
        // That what a program had read was changed is a fact; that it mattered is the reader's to judge.
        return if cause.check.is_some() { "  <== changed under it" } else { "  <== this decided" };
    }
    match link.role {
        Role::Source if cause.request.is_none() => " (where that pointer came from)",
        Role::Source => " (fetched by the walk)",
        Role::Filled if cause.kept.is_some() => " (from this the entry was made)",
        Role::Filled => " (this filled the IOTLB entry)",
        Role::LastGood => " (last good access)",
        Role::Effect => " (the change takes effect)",
        Role::Check if cause.decider.is_some_and(|decider| decider < link.at) => " (the exchange it lost)",
        Role::Check => " (changed before it acted on it)",
        Role::Pointer => " (the pointer it followed)",
        Role::Changed | Role::Injected | Role::Error | Role::Jump | Role::Fate | Role::Lock | Role::Request | Role::Finding => "",
    }
}

/// What befell the memory in question, as KASAN tells it.
fn memory(page: &mut Page, history: &History<'_>, cause: &Cause) {
    let end = cause.finding.unwrap_or(0);
    let mut told_before: Vec<Vec<usize>> = Vec::new();
    for &pa in &cause.subjects {
        let fates = history.of_frame(pa, 0..end);
        // Two words of one frame have one history.
        if fates.is_empty() || told_before.contains(&fates) {
            continue;
        }
        told_before.push(fates.clone());
        page.plain("");
        page.plain(&format!("Memory at pa {:#018x}:", pa.0));
        let jumps = history.positions(0..end, |event| matches!(event.kind, EventKind::Jumped { .. }));
        let skipped = fates.len().saturating_sub(FATES_MAX);
        if skipped > 0 {
            page.plain(&format!("  ({skipped} earlier events)"));
        }
        let mut told: Vec<usize> = fates[skipped..].iter().chain(jumps.iter().filter(|&&jump| jump > fates[skipped])).copied().collect();
        told.sort_unstable();
        for at in told {
            if jumps.contains(&at) {
                page.wrapped("    ", &format!("  step {}: kexec: {}", history.event(at).step, handed_over(history, pa, at, end)));
            } else {
                page.wrapped("    ", &format!("  {}: {}", by(history, at), words::long(history, at)));
            }
        }
    }
}

/// What became of the memory at `pa` at the jump at `jump`.
fn handed_over(history: &History<'_>, pa: Pa, jump: usize, end: usize) -> &'static str {
    match (history.is_handed_over(pa, jump, end), history.holding(pa, jump)) {
        (true, _) => "handed over",
        (false, Some(Holding { tag: Some(_), .. })) => "in use, and not reserved by the next kernel",
        (false, _) => "not in use",
    }
}

/// What identifies the run, and the line to copy.
fn tail(page: &mut Page, case: &Case<'_>) {
    let spec = case.spec;
    for assumption in &case.outcome.assumptions {
        page.wrapped("  ", &format!("assumes: {assumption}"));
    }
    let defects: Vec<&str> = spec.defects.iter().map(|defect| defect.id()).collect();
    let defects = if defects.is_empty() { String::new() } else { format!(", planted defects: {}", defects.join(" ")) };
    page.wrapped("  ", &format!("scenario: {}, kernel: {}{defects}, policy: {}", spec.scenario.name, spec.kernel(), spec.policy));
    let outcome = case.outcome;
    page.wrapped("  ", &format!("steps: {}, choices: {}, trace hash: {:016x}", outcome.steps, outcome.record.len(), outcome.trace_hash));
    page.plain(&format!("replay: lurch replay {}", case.source));
}

fn mail_head(page: &mut Page, case: &Case<'_>) {
    page.plain("Hello,");
    page.plain("");
    page.wrapped("", "lurch found the following issue in its model of the live update series:");
    page.plain("");
    page.plain(&format!("revision:    {}", case.spec.kernel()));
    page.plain(&format!("scenario:    {}", case.spec.scenario.name));
    page.plain(&format!("lurch:       {}", env!("CARGO_PKG_VERSION")));
    page.plain(&format!("reproducer:  lurch replay {}", case.source));
    page.plain("");
}

/// Lines of bounded width.
struct Page {
    width: usize,
    lines: Vec<String>,
}

impl Page {
    /// A line as it is.
    fn plain(&mut self, line: &str) {
        self.lines.push(line.to_owned());
    }

    /// A line broken at the width; it keeps its own indent, later lines get `indent`.
    fn wrapped(&mut self, indent: &str, line: &str) {
        let own: String = line.chars().take_while(|c| *c == ' ').collect();
        let widest = own.len().max(indent.len());
        for (nr, part) in columns::wrap(line, self.width.saturating_sub(widest)).into_iter().enumerate() {
            let indent = if nr == 0 { own.as_str() } else { indent };
            self.lines.push(format!("{indent}{part}"));
        }
    }
}
