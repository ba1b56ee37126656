//! The causes of a finding as one short word: findings with the same property, title and signature are one finding.
//!
//! It is made from what happened, not from where: no address, number, step, seed or owner of the memory that happened to be hit.

use super::cause::{Cause, Role};
use super::history::History;
use super::words;

/// The causes in words, in the order of the run.
pub fn parts(history: &History<'_>, cause: &Cause) -> Vec<String> {
    let mut parts = Vec::new();
    let window = cause.last_good.as_ref().map_or(0, |good| good.issued);
    for link in &cause.links {
        let decides = cause.decider == Some(link.at);
        let kept = match link.role {
            Role::Injected => link.at >= window,
            Role::Finding | Role::Filled => true,
            Role::Request => cause.request.as_ref().is_some_and(|request| request.translated == Some(link.at)),
            _ => decides,
        };
        if !kept {
            continue;
        }
        let mut part = words::key(history, link.at);
        if let Some(function) = history.function(link.at).filter(|_| decides) {
            part = format!("{part} in {function}");
        }
        if parts.last() != Some(&part) {
            parts.push(part);
        }
    }
    parts
}

/// The signature: 8 hex digits.
pub fn signature(history: &History<'_>, cause: &Cause) -> String {
    let hash = blake3::hash(parts(history, cause).join("\n").as_bytes()).to_hex();
    hash[..8].to_owned()
}
