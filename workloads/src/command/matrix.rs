//! `lurch matrix`: what finds what. Runs to the first catch for each target, by policy, over several trials.
//!
//! Beside the policies stands the search by feedback, which learns from the runs of its trial.
//!
//! A target is a revision or a planted defect with the scenario that is meant to find it, and the same under `any`, whose weights
//! know nothing of it. Listed findings do not count as catches.

use serde::Serialize;
use sim::policy::{Feedback, PolicySpec};
use sim::search::Search;

use super::console::Console;
use super::{CommandError, Exit};
use crate::defect::{Defect, Defects};
use crate::revision::Revision;
use crate::run::{How, RunSpec, VerdictKind, Workspace, run, run_searching};
use crate::scenario::{self, Settings};

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Most runs of one trial.
    #[arg(long, value_name = "N", env = "LURCH_RUNS", default_value_t = 2000)]
    runs: u64,
    /// Trials of each cell.
    #[arg(long, value_name = "N", env = "LURCH_TRIALS", default_value_t = 20)]
    trials: u64,
    /// Only these columns: names of policies, or `feedback`.
    #[arg(long, value_name = "POLICY", env = "LURCH_POLICY", value_delimiter = ',')]
    policy: Vec<Search>,
}

/// Something to be found.
struct Target {
    name: &'static str,
    scenario: &'static str,
    kernel: &'static str,
    defect: Option<Defect>,
    /// Properties that count as a catch.
    properties: &'static [&'static str],
}

const fn target(
    name: &'static str,
    scenario: &'static str,
    kernel: &'static str,
    defect: Option<Defect>,
    properties: &'static [&'static str],
) -> Target {
    Target { name, scenario, kernel, defect, properties }
}

const LOST_TABLES: &[&str] = &["I3", "availability"];
const LATE_MAP: &[&str] = &["I2", "I7"];
const OLD_LUO: &[&str] = &["handover", "LIFE", "unexplained", "L3"];
const LEAK: &[&str] = &["L1", "L3"];
const EARLY_FREE: &[&str] = &["I8", "I1"];

const TARGETS: &[Target] = &[
    target("LU-040 (v2)", "flb-retrieve-enomem", "v2", None, LOST_TABLES),
    target("LU-040 (v2)", "any", "v2", None, LOST_TABLES),
    target("LU-055 (v1)", "map-vs-preserve", "v1", None, LATE_MAP),
    target("LU-055 (v1)", "any", "v1", None, LATE_MAP),
    target("LU-013 (v2)", "update-with-dma", "v2", None, OLD_LUO),
    target("LU-013 (v2)", "any", "v2", None, OLD_LUO),
    target("rollback-short", "preserve-fails-midway", "tip", Some(Defect::RollbackShort), LEAK),
    target("rollback-short", "any", "tip", Some(Defect::RollbackShort), LEAK),
    target("unpreserve-skips-folio", "abort-and-reuse", "tip", Some(Defect::UnpreserveSkipsFolio), LEAK),
    target("unpreserve-skips-folio", "any", "tip", Some(Defect::UnpreserveSkipsFolio), LEAK),
    target("LU-078", "unmap-vs-dma", "tip", Some(Defect::FreeBeforeFlush), EARLY_FREE),
    target("LU-078", "any", "tip", Some(Defect::FreeBeforeFlush), EARLY_FREE),
];

const SEARCHES: [Search; 9] = [
    Search::Policy(PolicySpec::Portfolio),
    Search::Policy(PolicySpec::Surw),
    Search::Policy(PolicySpec::Pos),
    Search::Policy(PolicySpec::Rff),
    // Learns from the runs of its trial; no seed alone repeats such a run.
    Search::Feedback,
    Search::Policy(PolicySpec::Pct { depth: 3 }),
    Search::Policy(PolicySpec::Urw),
    Search::Policy(PolicySpec::Starve),
    Search::Policy(PolicySpec::Uniform),
];

#[derive(Serialize)]
struct CellJson {
    r#type: &'static str,
    defect: &'static str,
    scenario: &'static str,
    kernel: &'static str,
    policy: String,
    seeds: u64,
    found: u64,
    runs_to_first: RunsToFirst,
}

/// Over the trials that found it; 0 where none did.
#[derive(Serialize)]
struct RunsToFirst {
    median: u64,
    max: u64,
}

pub(super) fn command(args: &Args, console: &mut Console) -> Result<Exit, CommandError> {
    let mut workspace = Workspace::new();
    console.say(&format!(
        "runs to the first catch, {} trials of at most {} runs: median (largest), trials that found it",
        args.trials, args.runs
    ))?;
    for target in TARGETS {
        console.say(&format!("{} under {} on {}", target.name, target.scenario, target.kernel))?;
        let all: &[Search] = if args.policy.is_empty() { &SEARCHES } else { &args.policy };
        for &search in all {
            let mut firsts: Vec<u64> =
                (0..args.trials).filter_map(|trial| first_catch(&mut workspace, target, search, trial, args.runs)).collect();
            firsts.sort_unstable();
            let found = firsts.len() as u64;
            let runs_to_first =
                RunsToFirst { median: firsts.get(firsts.len() / 2).copied().unwrap_or(0), max: firsts.last().copied().unwrap_or(0) };
            console.say(&format!(
                "  {:<10} {:>6} ({:>6})  {found}/{}",
                search.to_string(),
                runs_to_first.median,
                runs_to_first.max,
                args.trials
            ))?;
            console.json(&CellJson {
                r#type: "cell",
                defect: target.name,
                scenario: target.scenario,
                kernel: target.kernel,
                policy: search.to_string(),
                seeds: args.trials,
                found,
                runs_to_first,
            })?;
        }
    }
    Ok(Exit::Clean)
}

/// Number of the run, from 1, in which a trial first caught its target. Trials use seeds of their own.
fn first_catch(workspace: &mut Workspace, target: &Target, search: Search, trial: u64, runs: u64) -> Option<u64> {
    let kernel = Revision::by_name(target.kernel).expect("targets name known kernels");
    let mut spec = RunSpec {
        scenario: scenario::by_name(target.scenario).expect("targets name known scenarios"),
        outgoing: kernel,
        incoming: kernel,
        defects: target.defect.map_or(Defects::NONE, |defect| Defects::NONE.with(defect)),
        policy: match search {
            Search::Policy(policy) => policy,
            Search::Feedback => PolicySpec::default(),
        },
        seed: 0,
        fail_nth: None,
        settings: Settings::new(),
    };
    let mut feedback = Feedback::new();
    (1..=runs).find(|n| {
        spec.seed = (trial << 32) + n;
        let outcome = match search {
            Search::Policy(_) => run(workspace, &spec, &How::default()),
            Search::Feedback => run_searching(workspace, &spec, |faults| feedback.policy(spec.seed, faults)),
        };
        let verdict = outcome.verdict;
        verdict.kind == VerdictKind::Violation && verdict.listed.is_none() && target.properties.contains(&verdict.property.as_str())
    })
}
