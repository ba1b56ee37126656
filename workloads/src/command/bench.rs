//! `lurch bench`: runs and steps a second of the whole machine, all oracles on, one worker.

use std::time::Duration;

use serde::Serialize;

use super::args::{RunFlags, SeedFlag};
use super::console::Console;
use super::{CommandError, Exit};
use crate::names;
use crate::run::{How, Workspace, run};
use crate::sweep::clock::{Stopwatch, rate};

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The scenario.
    #[arg(default_value = "update-with-dma")]
    scenario: String,
    #[command(flatten)]
    flags: RunFlags,
    #[command(flatten)]
    seed: SeedFlag,
    /// How long to measure.
    #[arg(long, value_name = "TIME", env = "LURCH_TIME_BUDGET", default_value = "5s", value_parser = names::duration)]
    time_budget: Duration,
    /// JSON lines, as with --message-format json.
    #[arg(long, env = "LURCH_JSON", value_parser = clap::builder::FalseyValueParser::new())]
    json: bool,
}

#[derive(Serialize)]
struct BenchJson {
    r#type: &'static str,
    name: String,
    per_s: f64,
    total: u64,
    seconds: f64,
}

pub(super) fn command(args: &Args, console: &mut Console) -> Result<Exit, CommandError> {
    if args.json {
        console.set_json();
    }
    let scenario = names::scenario(&args.scenario).map_err(CommandError::Usage)?;
    let selection = args.flags.selection(scenario)?;
    let mut workspace = Workspace::new();
    // The first run measures the profile that the others share.
    run(&mut workspace, &selection.spec(args.seed.seed), &How::default());
    let watch = Stopwatch::start();
    let (mut runs, mut steps, mut cycles) = (0, 0, 0);
    while watch.elapsed() < args.time_budget {
        let outcome = run(&mut workspace, &selection.spec(args.seed.seed.wrapping_add(runs)), &How::default());
        (runs, steps, cycles) = (runs + 1, steps + outcome.steps, cycles + outcome.cycles);
    }
    let time = watch.elapsed();
    if cfg!(debug_assertions) {
        console.narrate("lurch: this is a debug build; figures are for --release");
    }
    for (what, total) in [("runs", runs), ("steps", steps), ("cycles", cycles)] {
        let name = format!("{}/{what}", scenario.name);
        console.say(&format!("{name}: {} a second ({total} in {:.1} s)", rate(total, time), time.as_secs_f64()))?;
        console.json(&BenchJson { r#type: "bench", name, per_s: rate(total, time), total, seconds: time.as_secs_f64() })?;
    }
    console.say(&format!("{}/steps a run: {}", scenario.name, steps / runs.max(1)))?;
    Ok(Exit::Clean)
}
