//! The progress line of a sweep, on stderr: a bar on a terminal, a line now and then elsewhere.

use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::clock::Stopwatch;
use super::hunt::{Catch, Hunt};
use super::{Budget, Selection};

const BAR_INTERVAL: Duration = Duration::from_millis(200);
const LINE_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two lines where there is no terminal.
const LINES_EVERY: Duration = Duration::from_secs(30);

/// The progress of a sweep.
pub struct Progress {
    bar: Option<ProgressBar>,
    /// Seconds of the last line, where there is no bar.
    last_line: Cell<u64>,
}

impl Progress {
    /// Progress that shows on stderr.
    pub fn new() -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg}").expect("a valid template");
            ProgressBar::new_spinner().with_style(style)
        });
        Progress { bar, last_line: Cell::new(0) }
    }

    /// How often [`Progress::show`] wants to be called.
    pub(super) fn interval(&self) -> Duration {
        if self.bar.is_some() { BAR_INTERVAL } else { LINE_INTERVAL }
    }

    pub(super) fn show(&self, selection: &Selection, catch: &Catch, watch: &Stopwatch, hunt: &Hunt) {
        let time = watch.elapsed();
        let line = || {
            let tally = &catch.tally;
            let budget = match hunt.budget {
                Budget::Runs(_) => format!("{} of {} runs", tally.runs, hunt.limit(selection)),
                Budget::Time(budget) => format!("{}s of {}s  {} runs", time.as_secs(), budget.as_secs(), tally.runs),
            };
            format!(
                "{}  {budget}  {:.0}/s  {} distinct  {} findings",
                selection.scenario.name,
                watch.rate(tally.runs),
                catch.distinct.count(),
                tally.suspects.len()
            )
        };
        match &self.bar {
            Some(bar) => {
                bar.set_message(line());
                bar.tick();
            }
            None if time.as_secs() >= self.last_line.get() + LINES_EVERY.as_secs() => {
                self.last_line.set(time.as_secs());
                let _ = writeln!(std::io::stderr(), "{}", line());
            }
            None => {}
        }
    }

    pub(super) fn finish(&self) {
        self.last_line.set(0);
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Progress::new()
    }
}
