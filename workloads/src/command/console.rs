//! Where a command speaks: results on stdout, narration on stderr, neither of them ever panics.

use std::io::{self, BufWriter, Stdout, Write};

use serde::Serialize;

use super::MessageFormat;
use crate::report::json;

/// The two streams and the form of results.
pub(super) struct Console {
    out: BufWriter<Stdout>,
    format: MessageFormat,
}

impl Console {
    pub(super) fn new(format: MessageFormat) -> Console {
        Console { out: BufWriter::new(io::stdout()), format }
    }

    /// Results are JSON lines.
    pub(super) fn is_json(&self) -> bool {
        self.format == MessageFormat::Json
    }

    /// From now on results are JSON lines (`--json` of a subcommand).
    pub(super) fn set_json(&mut self) {
        self.format = MessageFormat::Json;
    }

    /// A line of results for people; nothing with JSON.
    pub(super) fn say(&mut self, line: &str) -> io::Result<()> {
        if self.is_json() { Ok(()) } else { writeln!(self.out, "{line}") }
    }

    /// A JSON line; nothing for people.
    pub(super) fn json(&mut self, body: &impl Serialize) -> io::Result<()> {
        if self.is_json() {
            writeln!(self.out, "{}", json::line(body))?;
            // A reader of lines wants them as they come.
            self.out.flush()?;
        }
        Ok(())
    }

    /// The stream of results itself.
    pub(super) fn out(&mut self) -> &mut dyn Write {
        &mut self.out
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Narration, on stderr; who closed it does not want it.
    pub(super) fn narrate(&self, line: &str) {
        let _ = writeln!(io::stderr(), "{line}");
    }
}
