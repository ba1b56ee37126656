//! Seed files: a whole run in one reviewed TOML file, with its story and its exact choices.
//!
//! | key | meaning |
//! | --- | --- |
//! | `format` | 1 |
//! | `token` | the same run as a token, where a token can carry it |
//! | `scenario`, `kernel`, `defects`, `policy`, `seed`, `settings`, `fail_nth` | what makes the run: see [`RunSpec`] |
//! | `property`, `title`, `expect` | what it showed: verdict `clean`, `safe-stop`, `violation` or `bound` |
//! | `trace_hash` | hash of its event stream, 16 hex digits |
//! | `shrunk_from` | token or file of the larger run that `choices` were shrunk from: seed and policy are that run's |
//! | `first_seen`, `fixed_by` | commit or revision, free text |
//! | `story` | why it happens, for people |
//! | `choices_check` | check of `choices`, 8 hex digits; without it damage shows only when the run diverges |
//! | `choices` | every choice of the run: see [`sim::replay::choices`] |
//!
//! With `choices` the run replays exactly, without the random numbers it came from; without them it is drawn again from policy
//! and seed. Only `format`, `scenario` and `seed` must be there. A file comes from outside and is hostile: at most
//! [`FILE_BYTES_MAX`] bytes are read, unknown keys are errors, every error names line and column.

mod parse;
mod write;

use std::fmt;
use std::io::Read;
use std::path::Path;

use sim::engine::Recorded;

use crate::run::{Outcome, RunSpec, VerdictKind};
use crate::token;

pub use parse::parse;
pub use write::{file_name, slug, write};

/// Largest seed file that is read, in bytes.
pub const FILE_BYTES_MAX: u64 = 8 << 20;
/// The format this build reads and writes.
pub const FORMAT: i64 = 1;

/// A seed file.
#[derive(Clone, Debug)]
pub struct SeedFile {
    /// What makes the run.
    pub spec: RunSpec,
    /// Property that was violated.
    pub property: String,
    /// Title of the finding.
    pub title: String,
    /// The verdict it shows.
    pub expect: Option<VerdictKind>,
    /// Hash of its event stream.
    pub trace_hash: Option<u64>,
    /// The larger run it was shrunk from; empty for a run as policy and seed make it.
    pub shrunk_from: String,
    /// Where it was seen first.
    pub first_seen: String,
    /// What mended it.
    pub fixed_by: String,
    /// Why it happens.
    pub story: String,
    /// Its choices.
    pub choices: Option<Vec<Recorded>>,
}

impl SeedFile {
    /// The file of a run and what it came to.
    pub fn of(spec: &RunSpec, outcome: &Outcome) -> SeedFile {
        SeedFile {
            spec: spec.clone(),
            property: outcome.verdict.property.clone(),
            title: outcome.verdict.title.clone(),
            expect: Some(outcome.verdict.kind),
            trace_hash: Some(outcome.trace_hash),
            shrunk_from: String::new(),
            first_seen: String::new(),
            fixed_by: String::new(),
            story: String::new(),
            choices: Some(outcome.record.clone()),
        }
    }

    /// A run without anything known about it: what a token says.
    pub fn bare(spec: RunSpec) -> SeedFile {
        SeedFile {
            spec,
            property: String::new(),
            title: String::new(),
            expect: None,
            trace_hash: None,
            shrunk_from: String::new(),
            first_seen: String::new(),
            fixed_by: String::new(),
            story: String::new(),
            choices: None,
        }
    }
}

/// A place in a text, both from 1, the column in characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

impl Place {
    /// The place of a byte offset; an offset inside a character counts as that character's.
    pub fn of(text: &str, offset: usize) -> Place {
        let end = (0..=offset.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        let before = &text[..end];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Why a text is not a seed file, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{place}: {fault}")]
pub struct SeedFileError {
    /// Where.
    pub place: Place,
    /// What is wrong there.
    pub fault: String,
}

/// Why a token or seed file could not be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SourceError {
    /// The token is bad.
    #[error(transparent)]
    Token(#[from] token::TokenError),
    /// The file's text is bad.
    #[error("{path}:{error}")]
    Text {
        /// The file.
        path: String,
        /// What is wrong, with the place.
        error: SeedFileError,
    },
    /// The file cannot be read.
    #[error("{path}: {fault}")]
    File {
        /// The file.
        path: String,
        /// What is wrong.
        fault: String,
    },
}

/// Reads what the user calls a run: a token, or the path of a seed file.
///
/// # Errors
/// When it is neither, or damaged.
pub fn read(source: &str) -> Result<SeedFile, SourceError> {
    // Mail wraps and quotes, people shout.
    let bare = source.trim().trim_matches(['<', '>', '`', '\'', '"']).to_ascii_lowercase();
    let source = if token::looks_like_token(&bare) { &bare } else { source };
    if token::looks_like_token(source) {
        return Ok(SeedFile::bare(token::decode(source)?));
    }
    let path = Path::new(source);
    if !path.exists() {
        let path = crate::names::shortened(source, 80);
        return Err(SourceError::File { path, fault: "neither a token (`lu1-...`) nor a file; next: ls seeds/".to_owned() });
    }
    let fail = |fault: String| SourceError::File { path: crate::names::shortened(source, 200), fault };
    let file = std::fs::File::open(path).map_err(|error| fail(error.to_string()))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| fail(error.to_string()))?;
    parse_bytes(bytes).map_err(|error| SourceError::Text { path: crate::names::shortened(source, 200), error })
}

/// Reads the bytes of a file.
///
/// # Errors
/// When they are too many, not UTF-8, or not a seed file.
pub fn parse_bytes(bytes: Vec<u8>) -> Result<SeedFile, SeedFileError> {
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let fault = format!("more than {FILE_BYTES_MAX} bytes: not a seed file");
        return Err(SeedFileError { place: Place { line: 1, column: 1 }, fault });
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let place = Place::of(&String::from_utf8_lossy(&error.as_bytes()[..valid]), valid);
        SeedFileError { place, fault: "a byte that is not UTF-8".to_owned() }
    })?;
    parse(&text)
}

/// The check of a list of choices: 8 hex digits.
fn check_of(list: &[Recorded]) -> String {
    blake3::hash(sim::replay::choices::write(list).as_bytes()).to_hex()[..8].to_owned()
}

#[cfg(test)]
mod tests;
