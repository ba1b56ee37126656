//! `lurch bench`: runs and steps a second of the whole machine, all oracles on, one worker; by itself and under the host level. Seconds are
//! seconds of processor time.
//! With `--oracles`: what each oracle costs. With `--jobs`: how runs a second grow with workers, and the memory they take.
//! With `--search`: how many schedules each search needs to the first bug of the public programs of [`sim::programs`].

mod jobs;
mod oracles;

use std::time::Duration;

use serde::Serialize;
use sim::programs::{Program, Table};
use sim::search::Search;

use super::args::{RunFlags, SeedFlag};
use super::console::Console;
use super::{CommandError, Exit};
use crate::host;
use crate::names;
use crate::run::{How, Outcome, Workspace, run};
use crate::sweep::clock::{ProcessorWatch, Stopwatch, rate};

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The scenario.
    #[arg(default_value = "update-with-dma")]
    scenario: String,
    #[command(flatten)]
    flags: RunFlags,
    #[command(flatten)]
    seed: SeedFlag,
    /// How long to measure; without other flags, half of it under the host level.
    #[arg(long, value_name = "TIME", env = "LURCH_TIME_BUDGET", default_value = "5s", value_parser = names::duration)]
    time_budget: Duration,
    /// Measure what each oracle costs instead: the same runs with one oracle less, and with none.
    #[arg(long, env = "LURCH_ORACLES", conflicts_with = "search", value_parser = clap::builder::FalseyValueParser::new())]
    oracles: bool,
    /// Measure 1, 2, 4 ... up to N workers instead, and the memory they take.
    #[arg(long, value_name = "N", env = "LURCH_JOBS", conflicts_with_all = ["search", "oracles"], value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Measure the searches instead: mean schedules to the first bug of small public programs, beside what was published.
    #[arg(long, env = "LURCH_SEARCH", value_parser = clap::builder::FalseyValueParser::new())]
    search: bool,
    /// Trials for each program, with --search.
    #[arg(long, value_name = "N", env = "LURCH_TRIALS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    trials: u32,
    /// Most schedules of a trial, with --search.
    #[arg(long, value_name = "N", env = "LURCH_RUNS", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    runs: u32,
    /// All programs, not only those with published figures; with --search.
    #[arg(long, env = "LURCH_ALL", value_parser = clap::builder::FalseyValueParser::new())]
    all: bool,
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
    if args.search {
        return search(args, console);
    }
    let scenario = names::scenario(&args.scenario).map_err(CommandError::Usage)?;
    let selection = args.flags.selection(scenario)?;
    if cfg!(debug_assertions) {
        console.narrate("lurch: this is a debug build; figures are for --release");
    }
    if args.oracles {
        oracles::command(args, &selection, console)?;
        return Ok(Exit::Clean);
    }
    if let Some(jobs) = args.jobs {
        jobs::command(args, usize::from(jobs), &selection, console)?;
        return Ok(Exit::Clean);
    }
    let mut workspace = Workspace::new();
    let plain = measure(args, |seed| run(&mut workspace, &selection.spec(seed), &How::default()));
    let hosted = measure(args, |seed| host::run(&selection.spec(seed)).outcome);
    for (name, sum) in [(scenario.name.to_owned(), &plain), (format!("{}/hosted", scenario.name), &hosted)] {
        for (what, total) in [("runs", sum.runs), ("steps", sum.steps), ("cycles", sum.cycles)] {
            let name = format!("{name}/{what}");
            let (per_s, seconds) = (rate(total, sum.time), sum.time.as_secs_f64());
            console.say(&format!("{name}: {per_s} a second ({total} in {seconds:.1} s)"))?;
            console.json(&BenchJson { r#type: "bench", name, per_s, total, seconds })?;
        }
        let (a_run, a_step) = (sum.seconds_each(sum.runs), sum.seconds_each(sum.steps));
        let steps = sum.steps / sum.runs.max(1);
        console.say(&format!("{name}: {steps} steps a run, {:.1} us a run, {:.0} ns a step", a_run * 1e6, a_step * 1e9))?;
    }
    let times = |of: fn(&Sum) -> u64| hosted.seconds_each(of(&hosted)) / plain.seconds_each(of(&plain));
    console.say(&format!(
        "the host level costs {:.2} times a plain step, {:.2} times a plain run; its programs replace the scenario's, so its runs are others",
        times(|sum| sum.steps),
        times(|sum| sum.runs)
    ))?;
    Ok(Exit::Clean)
}

#[derive(Serialize)]
struct SearchJson {
    r#type: &'static str,
    program: String,
    search: String,
    trials: u32,
    found: u32,
    /// Mean schedules to the first bug, over the trials that found it; 0 where none did.
    mean: f64,
    /// What was published for SURW, PCT-3, POS and the random walk: mean, and trials of 20 that found the bug.
    published: Option<[(u32, u32); 4]>,
}

/// The table of searches by public programs.
fn search(args: &Args, console: &mut Console) -> Result<Exit, CommandError> {
    let searches = Search::all();
    let programs = Program::ALL.into_iter().filter(|program| args.all || program.published().is_some());
    console.say(&format!("mean schedules to the first bug over {} trials of at most {}", args.trials, args.runs))?;
    console.say(&Table::heading(&searches))?;
    let mut rows = Vec::new();
    for program in programs {
        let mut table = Table::measure(searches.clone(), &[program], args.trials, args.runs, |_| ());
        let row = table.rows.remove(0);
        console.say(&Table::line(&row))?;
        for (search, found) in searches.iter().zip(&row.found) {
            console.json(&SearchJson {
                r#type: "search",
                program: program.to_string(),
                search: search.to_string(),
                trials: found.trials,
                found: found.found,
                mean: found.mean,
                published: program.published().map(sim::programs::Published::entries),
            })?;
        }
        rows.push(row);
    }
    let table = Table { searches, rows };
    console.say(&table.summary(args.runs))?;
    Ok(Exit::Clean)
}

/// What was measured.
#[derive(Default)]
struct Sum {
    runs: u64,
    steps: u64,
    cycles: u64,
    time: Duration,
}

impl Sum {
    fn seconds_each(&self, of: u64) -> f64 {
        self.time.as_secs_f64() / of.max(1) as f64
    }
}

/// Runs seed after seed for half of the budget.
fn measure(args: &Args, mut run: impl FnMut(u64) -> Outcome) -> Sum {
    let mut sum = Sum::default();
    // The first run measures the profile that the others share.
    run(args.seed.seed);
    let (watch, processor) = (Stopwatch::start(), ProcessorWatch::start());
    while sum.runs == 0 || watch.elapsed() < args.time_budget / 2 {
        let outcome = run(args.seed.seed.wrapping_add(sum.runs));
        (sum.runs, sum.steps, sum.cycles) = (sum.runs + 1, sum.steps + outcome.steps, sum.cycles + outcome.cycles);
    }
    sum.time = processor.elapsed();
    sum
}
