//! Trace hashes that must not change: what `lurch doctor` and the tests compare with, in debug and in release.
//!
//! The file holds a token and a hash a line. A change that is meant to change event streams refreshes it:
//! `LURCH_REFRESH=1 cargo test -p workloads --test determinism`, and says so in its message.

use crate::run::{How, RunSpec, Workspace, run};
use crate::token;

/// The lines.
pub const TEXT: &str = include_str!("../../snapshots/golden-hashes.txt");

/// One line: the token, the run it names, the hash of its events.
#[derive(Clone, Debug)]
pub struct Golden {
    /// The token.
    pub token: &'static str,
    /// The run.
    pub spec: RunSpec,
    /// The hash.
    pub trace_hash: u64,
}

/// All lines.
///
/// # Errors
/// Names the line that is none.
pub fn all() -> Result<Vec<Golden>, String> {
    let lines = TEXT.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (token, hash) = line.split_once(' ').ok_or_else(|| format!("`{line}`: token and hash are wanted"))?;
            let trace_hash = u64::from_str_radix(hash, 16).map_err(|error| format!("`{line}`: {error}"))?;
            Ok(Golden { token, spec: token::decode(token).map_err(|error| error.to_string())?, trace_hash })
        })
        .collect()
}

/// Runs them all; the lines that came out otherwise.
///
/// # Errors
/// Names a line that cannot be read.
pub fn differences() -> Result<Vec<String>, String> {
    let mut workspace = Workspace::new();
    let mut differences = Vec::new();
    for golden in all()? {
        let hash = run(&mut workspace, &golden.spec, &How::default()).trace_hash;
        if hash != golden.trace_hash {
            differences.push(format!("{}: {:016x} became {hash:016x}", golden.token, golden.trace_hash));
        }
    }
    Ok(differences)
}
