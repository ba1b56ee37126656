//! What each oracle costs: the same runs with one oracle less, with the shared record alone, and with none.
//!
//! A difference of a percent drowns in the noise of a machine, so each seed is run in all variants one after the other, the first one
//! another each time, and the fastest of [`PASSES`] passes counts, in processor time. Runs that end otherwise without the oracle (it has a finding
//! there) say nothing about its cost and are left out.

use std::time::Duration;

use serde::Serialize;

use super::Args;
use crate::command::CommandError;
use crate::command::console::Console;
use crate::run::{How, Judges, Workspace, run};
use crate::sweep::Selection;
use crate::sweep::clock::{ProcessorWatch, Stopwatch};

/// Times each run is repeated.
const PASSES: usize = 3;

#[derive(Serialize)]
struct OracleJson {
    r#type: &'static str,
    oracles: String,
    runs: u64,
    steps: u64,
    ns_per_step: f64,
    /// Time a step takes, where all oracles are 1.
    ratio: f64,
}

/// One way to judge, and what its runs took.
struct Variant {
    judges: Judges,
    time: Duration,
}

pub(super) fn command(args: &Args, selection: &Selection, console: &mut Console) -> Result<(), CommandError> {
    let mut workspace = Workspace::new();
    let (mut variants, mut runs, mut steps) = (variants(), 0u64, 0u64);
    let nr = variants.len();
    let watch = Stopwatch::start();
    let mut seed = args.seed.seed;
    while runs == 0 || watch.elapsed() < args.time_budget {
        let spec = selection.spec(seed);
        let mut fastest = vec![Duration::MAX; nr];
        let expected = run(&mut workspace, &spec, &How::default()).steps;
        let mut comparable = true;
        for turn in 0..nr * PASSES {
            let at = (turn + seed as usize) % nr;
            let how = How { judges: variants[at].judges, ..How::default() };
            let watch = ProcessorWatch::start();
            let outcome = run(&mut workspace, &spec, &how);
            fastest[at] = fastest[at].min(watch.elapsed());
            comparable &= outcome.steps == expected;
        }
        seed = seed.wrapping_add(1);
        if comparable {
            (runs, steps) = (runs + 1, steps + expected);
            variants.iter_mut().zip(fastest).for_each(|(variant, time)| variant.time += time);
        }
    }
    let all = variants[0].time;
    console.say(&format!("{runs} runs of {} steps, each judged in {nr} ways; the fastest of {PASSES} passes", steps / runs))?;
    for Variant { judges, time } in &variants {
        let ns_per_step = time.as_secs_f64() * 1e9 / steps as f64;
        let ratio = time.as_secs_f64() / all.as_secs_f64();
        console.say(&format!("{judges:<24} {ns_per_step:6.1} ns a step, {:+6.1} %", (ratio - 1.0) * 100.0))?;
        console.json(&OracleJson { r#type: "oracle-cost", oracles: judges.to_string(), runs, steps, ns_per_step, ratio })?;
    }
    Ok(())
}

/// All oracles first, to which the others are compared.
fn variants() -> Vec<Variant> {
    let judges = [Judges::All, Judges::Record, Judges::Nobody].into_iter().chain(Judges::each());
    judges.map(|judges| Variant { judges, time: Duration::ZERO }).collect()
}
