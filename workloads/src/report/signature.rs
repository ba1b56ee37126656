//! The causes of a finding as one short word: findings with the same property, title and signature are one finding.
//!
//! It is made from what happened, not from where: no address, number, step, seed or owner of the memory that happened to be hit.

use super::cause::{Cause, Role};
use super::history::History;
use super::words;

/// The causes in words: what was made to fail, each kind once, what decided, and how the request was answered. What came of the
/// answer is in the title already.
pub fn parts(history: &History<'_>, cause: &Cause) -> Vec<String> {
    let mut parts = injected(history, cause);
    parts.extend(decisive(history, cause));
    parts
}

/// What was made to fail, each kind once, where it says how the request came to be answered so: by the program that decided, in its
/// call. What a program does wrong itself has its name in the title, and in the function it was in: on which of many failures it ran
/// into it is chance, and so is who was near what is judged as a whole.
pub fn injected(history: &History<'_>, cause: &Cause) -> Vec<String> {
    let Some(decider) = cause.decider.filter(|_| cause.request.is_some()) else { return Vec::new() };
    let began = history.begin_of_call(decider);
    let by = history.event(decider).actor;
    let led = |at: usize| at >= began && history.event(at).actor == by;
    let injected = cause.links.iter().filter(|link| link.role == Role::Injected && led(link.at));
    let mut parts: Vec<String> = injected.map(|link| words::key(history, link.at)).collect();
    parts.sort_unstable();
    parts.dedup();
    parts
}

/// What decided, and how the request was answered.
pub fn decisive(history: &History<'_>, cause: &Cause) -> Vec<String> {
    let mut parts = Vec::new();
    // That a word changed which a program had read need not have mattered: who changed it is told, and tells no causes apart.
    let decider = cause.decider.filter(|_| cause.check.is_none());
    let decided = decider.or_else(|| freed(history, cause));
    if let Some(at) = decided {
        let function = history.function(at).map(|function| format!(" in {function}")).unwrap_or_default();
        parts.push(words::key(history, at) + &function);
    }
    // Nothing decided: then where it went wrong is all there is to tell causes apart.
    if let (None, None, Some(at)) = (decided, &cause.request, cause.finding) {
        parts.extend(history.function(at).map(|function| format!("in {function}")));
    }
    parts.extend(cause.request.as_ref().and_then(|request| request.translated).map(|at| words::key(history, at)));
    parts
}

/// Where the memory in question was freed, if it is free.
fn freed(history: &History<'_>, cause: &Cause) -> Option<usize> {
    let finding = cause.finding?;
    let held = cause.subjects.iter().filter_map(|&pa| history.holding(pa, finding));
    held.filter(|holding| holding.tag.is_none()).map(|holding| holding.at).max()
}

/// The signature: 8 hex digits.
pub fn signature(history: &History<'_>, cause: &Cause) -> String {
    let hash = blake3::hash(parts(history, cause).join("\n").as_bytes()).to_hex();
    hash[..8].to_owned()
}
