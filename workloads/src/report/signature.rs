//! The causes of a finding as one short word: findings with the same property, title and signature are one finding.
//!
//! It is made from what happened, not from where: no address, number, step, seed or owner of the memory that happened to be hit.

use sim::trace::EventKind;

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

/// What was made to fail, each kind once.
pub fn injected(history: &History<'_>, cause: &Cause) -> Vec<String> {
    // What is judged as a whole, at a boundary, has its name in the title; who was near it is chance.
    if cause.at_boundary {
        return Vec::new();
    }
    let injected = cause.links.iter().filter(|link| link.role == Role::Injected);
    let mut parts: Vec<String> = injected.map(|link| words::key(history, link.at)).collect();
    parts.sort_unstable();
    parts.dedup();
    parts
}

/// What decided, and how the request was answered.
pub fn decisive(history: &History<'_>, cause: &Cause) -> Vec<String> {
    let mut parts = Vec::new();
    let decided = cause.decider.or_else(|| freed(history, cause));
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

/// Where the memory in question was freed last.
fn freed(history: &History<'_>, cause: &Cause) -> Option<usize> {
    let frees = |at: &usize| matches!(history.event(*at).kind, EventKind::FramesFreed { .. } | EventKind::ObjectFreed { .. });
    cause.fates.iter().rev().copied().find(frees)
}

/// The signature: 8 hex digits.
pub fn signature(history: &History<'_>, cause: &Cause) -> String {
    let hash = blake3::hash(parts(history, cause).join("\n").as_bytes()).to_hex();
    hash[..8].to_owned()
}
