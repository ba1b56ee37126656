//! Confirmation: a finding is shown only after a fresh process, started from nothing but its token or seed file, saw the same.

use std::process::{Command, Stdio};

use crate::run::Outcome;

/// Why a finding could not be confirmed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfirmError {
    /// No process could be started.
    #[error("no fresh process: {0}")]
    Start(String),
    /// It said nothing that can be read.
    #[error("the fresh process ended with {status} and no verdict")]
    Silent {
        /// How it ended.
        status: String,
    },
    /// It saw something else.
    #[error("a fresh process saw {theirs} where this one saw {ours}")]
    Different {
        /// Ours.
        ours: String,
        /// Theirs.
        theirs: String,
    },
}

/// Replays `source` (a token or the path of a seed file) in a fresh process with an empty environment and compares.
///
/// # Errors
/// When it did not see the same property, title and trace hash.
pub fn confirm(source: &str, outcome: &Outcome) -> Result<(), ConfirmError> {
    let program = std::env::current_exe().map_err(|error| ConfirmError::Start(error.to_string()))?;
    let output = Command::new(program)
        .args(["replay", source, "--message-format", "json"])
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .map_err(|error| ConfirmError::Start(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line =
        text.lines().find_map(|line| serde_json::from_str::<serde_json::Value>(line).ok().filter(|value| value["type"] == "verdict"));
    let Some(line) = line else { return Err(ConfirmError::Silent { status: output.status.to_string() }) };
    let field = |name: &str| line[name].as_str().unwrap_or("").to_owned();
    let ours = format!("{} / {} / {:016x}", outcome.verdict.property, outcome.verdict.title, outcome.trace_hash);
    let theirs = format!("{} / {} / {}", field("property"), field("title"), field("trace_hash"));
    if ours == theirs { Ok(()) } else { Err(ConfirmError::Different { ours, theirs }) }
}
