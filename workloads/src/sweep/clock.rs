//! The wall clock: rates, budgets and the progress line look at it; no run does.

#![allow(clippy::disallowed_types, reason = "sweeps have wall-clock budgets and rates; this is the one place that looks")]

use std::time::Duration;

/// Time since a moment.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    start: std::time::Instant,
}

impl Stopwatch {
    /// Starts.
    pub fn start() -> Stopwatch {
        Stopwatch { start: std::time::Instant::now() }
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// `count` per second since the start.
    pub fn rate(&self, count: u64) -> f64 {
        rate(count, self.elapsed())
    }
}

/// Processor time that this thread has had since a moment: it stands still while others have the processor, so that figures do not
/// depend on them.
#[derive(Clone, Copy, Debug)]
pub struct ProcessorWatch {
    start: Duration,
}

impl ProcessorWatch {
    /// Starts.
    pub fn start() -> ProcessorWatch {
        ProcessorWatch { start: processor_time() }
    }

    /// Processor time since the start.
    pub fn elapsed(&self) -> Duration {
        processor_time().saturating_sub(self.start)
    }
}

fn processor_time() -> Duration {
    rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).try_into().expect("processor time is positive")
}

/// `count` per second, to a tenth.
pub fn rate(count: u64, time: Duration) -> f64 {
    (count as f64 / time.as_secs_f64().max(1e-9) * 10.0).round() / 10.0
}
