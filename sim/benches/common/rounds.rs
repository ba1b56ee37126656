//! Interleaved rounds: every entrant runs for a short slice in each round, so that whatever else the machine does hits all of them.
//!
//! The clock is the processor time of the thread, which stands still while others have the processor; on an idle machine it is the
//! wall clock. Everything measured here runs on one thread. What is left of the noise (caches, a sibling on the same core) moves single
//! figures by a quarter from one process to the next; so a ratio is taken inside each round and its median over the rounds is reported.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Something that can be run many times.
pub(crate) struct Entrant<'a> {
    /// What figures are reported under.
    pub(crate) name: String,
    /// What is counted: steps or runs in one call's one run.
    pub(crate) units_per_run: u64,
    /// Makes so many runs, with other seeds each time.
    pub(crate) run: Box<dyn FnMut(u64) + 'a>,
}

/// What was measured of one entrant.
pub(crate) struct Figure {
    /// The entrant's name.
    pub(crate) name: String,
    /// Nanoseconds a unit, one value a round, in the order of the rounds.
    pub(crate) ns: Vec<f64>,
}

impl Figure {
    /// Nanoseconds a unit: the median over the rounds.
    pub(crate) fn ns_median(&self) -> f64 {
        median(self.ns.clone())
    }
}

/// Runs every entrant for about `slice` in each of `rounds` rounds, in turn.
pub(crate) fn measure(mut entrants: Vec<Entrant<'_>>, rounds: usize, slice: Duration) -> Vec<Figure> {
    let runs: Vec<u64> = entrants.iter_mut().map(|entrant| runs_in(entrant, slice)).collect();
    let mut figures: Vec<Figure> = entrants.iter().map(|entrant| Figure { name: entrant.name.clone(), ns: Vec::new() }).collect();
    for _ in 0..rounds {
        for ((entrant, runs), figure) in entrants.iter_mut().zip(&runs).zip(&mut figures) {
            let took = time(entrant, *runs);
            figure.ns.push(took.as_nanos() as f64 / (*runs * entrant.units_per_run) as f64);
        }
    }
    figures
}

/// How many runs take about `slice`; warms up on the way.
fn runs_in(entrant: &mut Entrant<'_>, slice: Duration) -> u64 {
    let mut runs = 1;
    loop {
        let took = time(entrant, runs);
        if took * 4 >= slice {
            return (runs as f64 * slice.as_secs_f64() / took.as_secs_f64()).ceil().max(1.0) as u64;
        }
        runs *= 2;
    }
}

fn time(entrant: &mut Entrant<'_>, runs: u64) -> Duration {
    let start = now();
    (entrant.run)(runs);
    now() - start
}

/// Processor time this thread has had.
fn now() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().expect("processor time is positive")
}

/// The middle of the values; of an even number the upper one of the two.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
