//! `lurch sweep`: many seeds, findings told apart and confirmed, oracles checked by canaries, a clean claim only when it is earned.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;

use super::args::{JobsFlag, RunFlags, SeedFlag};
use super::console::Console;
use super::{CommandError, Exit};
use crate::names;
use crate::report::json::{FindingJson, RunJson, line};
use crate::report::text::{self, Case, Form};
use crate::run::{Way, Workspace};
use crate::scenario::{self, Scenario};
use crate::seed_file::SeedFile;
use crate::shrink::shrink_run;
use crate::sweep::hunt::{Catch, Hunt};
use crate::sweep::product::Product;
use crate::sweep::progress::Progress;
use crate::sweep::store::{self, Store};
use crate::sweep::triage::{Finding, triage};
use crate::sweep::{Budget, Partition, Selection, canaries, claim, confirm};
use crate::token;

/// Runs of each scenario when no budget is given.
const RUNS_DEFAULT: u64 = 2_000;

/// Most schedules of `--fail-every`.
const SCHEDULES_MAX: u64 = 10_000;

/// Findings of a sweep that are shrunk, where they are stored: the first ones.
const SHRUNK_MAX: usize = 16;

/// What shrinking one of them may cost: a fraction of a second, enough to see what matters. `lurch shrink` takes its time.
const SHRINK_BUDGET: sim::shrink::Budget = sim::shrink::Budget { runs: 1_000, steps: 1_000_000 };

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Scenarios (`lurch list scenarios`); `*` stands for any characters. All of them when none is given.
    #[arg(value_name = "SCENARIO|GLOB")]
    scenarios: Vec<String>,
    #[command(flatten)]
    flags: RunFlags,
    #[command(flatten)]
    seed: SeedFlag,
    #[command(flatten)]
    jobs: JobsFlag,
    /// Runs of each scenario, over all partitions.
    #[arg(long, value_name = "N", env = "LURCH_RUNS", conflicts_with = "time_budget", value_parser = names::number)]
    runs: Option<u64>,
    /// Wall-clock time (90s, 30m, 24h), shared equally by the scenarios; canaries and confirmation come on top.
    #[arg(long, value_name = "TIME", env = "LURCH_TIME_BUDGET", value_parser = names::duration)]
    time_budget: Option<Duration>,
    /// Make only these of the runs: `slice:2/8` is the second of eight disjoint parts.
    #[arg(long, value_name = "slice:I/N", env = "LURCH_PARTITION", value_parser = Partition::parse)]
    partition: Option<Partition>,
    /// Not one seed after another: fail each fallible call in turn, in each way (`lurch list settings`, `fail`), under K schedules with at
    /// most two delays (or --policy), each with one way of placing memory. --runs and --time-budget end it early.
    #[arg(long, value_name = "K", env = "LURCH_FAIL_EVERY", conflicts_with_all = ["fail_nth", "hosted"], value_parser = names::number)]
    fail_every: Option<u64>,
    /// Write findings into this folder, each with its seed file and a shrunk one; findings.ndjson in it is only appended to.
    #[arg(long, value_name = "DIR", env = "LURCH_RESULTS")]
    results: Option<PathBuf>,
    /// A sweep in which a bound ended a run is exit code 104.
    #[arg(long, env = "LURCH_STRICT", value_parser = clap::builder::FalseyValueParser::new())]
    strict: bool,
}

pub(super) fn command(args: &Args, console: &mut Console) -> Result<Exit, CommandError> {
    let mut selections = select(args)?;
    if let Some(nr_schedules) = args.fail_every {
        for selection in &mut selections {
            selection.product = Some(Arc::new(product(selection, nr_schedules, args.seed.seed)?));
        }
    }
    let store = args.results.as_deref().map(|dir| Store::open(dir).map_err(|error| failed(dir.display().to_string(), error)));
    let mut sweep = Sweep {
        args,
        store: store.transpose()?,
        nr_shrunk: 0,
        exit: Exit::Clean,
        total: Catch::default(),
        findings: 0,
        not_clean: Vec::new(),
    };
    let progress = Progress::new();
    let share = u32::try_from(selections.len()).unwrap_or(u32::MAX);
    let hunt = Hunt {
        budget: match (args.time_budget, args.runs) {
            (Some(time), _) => Budget::Time(time / share),
            (None, Some(runs)) => Budget::Runs(runs),
            (None, None) if args.fail_every.is_some() => Budget::Runs(u64::MAX),
            (None, None) => Budget::Runs(RUNS_DEFAULT),
        },
        jobs: args.jobs.jobs(),
        seed: args.seed.seed,
        partition: args.partition.unwrap_or(Partition::WHOLE),
    };
    if hunt.budget == Budget::Runs(0) {
        return Err(CommandError::NothingSelected("no run was asked for; next: --runs N with N from 1".to_owned()));
    }
    let interrupted = interrupted();
    for selection in &selections {
        let catch = hunt.run(selection, &progress, sweep.store.as_ref(), interrupted);
        if let Some(error) = &catch.unwritten {
            return Err(failed("results".to_owned(), std::io::Error::other(error.clone())));
        }
        if let Some((number, message)) = &catch.panic {
            let spec = &selection.run(hunt.seed, *number);
            let again = token::encode(spec)
                .map_or_else(|| format!("run {} --seed {}", spec.scenario.name, spec.seed), |token| format!("replay {token}"));
            console.narrate(&format!("lurch: internal error, a bug of lurch: {message}; next: lurch {again}"));
            return Ok(Exit::Internal);
        }
        sweep.judge(console, selection, catch, hunt.seed, hunt.partition)?;
        if interrupted.load(Ordering::Relaxed) {
            sweep.not_clean.push("interrupted: the sweep is not complete".to_owned());
            sweep.raise(Exit::NoVerdict);
            break;
        }
    }

    console.flush()?;
    let caught = canaries::run_all(hunt.jobs);
    let missed = canaries::missed(&caught);
    if !missed.is_empty() {
        sweep.raise(Exit::CanaryMissed);
    }
    sweep.close(console, canaries::summary(&caught), missed)
}

/// Set by Ctrl-C. The runs in flight are finished then, and what was found is told and written; a second Ctrl-C ends the process at once.
fn interrupted() -> &'static AtomicBool {
    static INTERRUPTED: AtomicBool = AtomicBool::new(false);
    // Refused only when there is a handler already, which sets the same flag.
    let _ = ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    });
    &INTERRUPTED
}

/// The scenarios asked for, in the order of the list.
fn select(args: &Args) -> Result<Vec<Selection>, CommandError> {
    let wanted = |scenario: &&Scenario| args.scenarios.is_empty() || args.scenarios.iter().any(|glob| matches(glob, scenario.name));
    let chosen: Vec<&'static Scenario> = scenario::all().iter().filter(wanted).collect();
    for glob in args.scenarios.iter().filter(|glob| !glob.contains('*')) {
        names::scenario(glob).map_err(CommandError::Usage)?;
    }
    if chosen.is_empty() {
        return Err(CommandError::NothingSelected("no scenario was selected; next: lurch list scenarios".to_owned()));
    }
    chosen.into_iter().map(|scenario| args.flags.selection(scenario)).collect()
}

/// True when `name` is what `glob` says, `*` standing for any characters.
fn matches(glob: &str, name: &str) -> bool {
    let mut parts = glob.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// The fault positions of `selection`, in product with schedules.
fn product(selection: &Selection, nr_schedules: u64, seed: u64) -> Result<Product, CommandError> {
    if !(1..=SCHEDULES_MAX).contains(&nr_schedules) {
        return Err(CommandError::Usage(format!("--fail-every takes a number from 1 to {SCHEDULES_MAX}")));
    }
    let product = Product::count(selection, nr_schedules, seed);
    if product.nr_runs() == 0 {
        return Err(CommandError::NothingSelected(format!("{} makes no call that can fail", selection.scenario.name)));
    }
    Ok(product)
}

/// How much of the product of fault positions and schedules a sweep covered.
#[derive(Serialize)]
struct ProductJson {
    r#type: &'static str,
    scenario: &'static str,
    schedules: usize,
    /// Fallible calls of all schedules together.
    calls: u64,
    /// Ways in which each fails.
    ways: usize,
    runs: u64,
    of: u64,
    /// Runs in which something was made to fail.
    failed: u64,
}

/// A sweep under way.
struct Sweep<'a> {
    args: &'a Args,
    store: Option<Store>,
    nr_shrunk: usize,
    exit: Exit,
    total: Catch,
    findings: u64,
    not_clean: Vec<String>,
}

impl Sweep<'_> {
    /// Tells what a hunt found, and counts it.
    fn judge(
        &mut self,
        console: &mut Console,
        selection: &Selection,
        catch: Catch,
        seed: u64,
        partition: Partition,
    ) -> Result<(), CommandError> {
        let triage = triage(selection, &catch, seed);
        for (seed, what) in &triage.unstable {
            console.narrate(&format!("lurch: {} seed {seed:#x}: {what}; next: lurch doctor", selection.scenario.name));
            self.raise(Exit::Diverged);
        }
        for finding in &triage.findings {
            self.tell(console, finding)?;
        }
        let findings = triage.findings.len() as u64;
        let summary = claim::summary(selection, &catch, findings, seed);
        for line in claim::lines(&summary) {
            console.say(&line)?;
        }
        if let Some(product) = &selection.product {
            self.tell_product(console, selection, product, &catch, partition)?;
        }
        if triage.not_looked_at > 0 {
            let line = format!("  {} more runs had a property and title found above; they were not told apart", triage.not_looked_at);
            console.say(&line)?;
        }
        console.json(&summary)?;
        let name = selection.scenario.name;
        self.not_clean.extend(summary.not_clean.iter().map(|what| format!("{name}: {what}")));
        if !summary.not_clean.is_empty() || (self.args.strict && !summary.bounds.is_empty()) {
            self.raise(Exit::NoVerdict);
        }
        self.findings += findings;
        self.total.time += catch.time;
        self.total.tally.add(&catch.tally);
        self.total.distinct.extend(&catch.distinct);
        Ok(())
    }

    /// Tells how much of the product of fault positions and schedules was covered; what is missing spoils the clean claim.
    fn tell_product(
        &mut self,
        console: &mut Console,
        selection: &Selection,
        product: &Product,
        catch: &Catch,
        partition: Partition,
    ) -> Result<(), CommandError> {
        let (runs, share) = (catch.tally.runs, partition.share(product.nr_runs()));
        let (schedules, calls, ways) = (product.nr_schedules(), product.nr_calls(), Way::ALL.len());
        console.say(&format!(
            "  faults: {calls} fallible calls of {schedules} schedules, each in {ways} ways: {runs} of {share} runs made; in {} something failed",
            catch.tally.failed
        ))?;
        console.json(&ProductJson {
            r#type: "faults",
            scenario: selection.scenario.name,
            schedules,
            calls,
            ways,
            runs,
            of: share,
            failed: catch.tally.failed,
        })?;
        if runs < share {
            let name = selection.scenario.name;
            self.not_clean.push(format!("{name}: {} of {share} pairs of fault and schedule were not run", share - runs));
            self.raise(Exit::NoVerdict);
        }
        Ok(())
    }

    /// Confirms a finding in a fresh process and shows it.
    fn tell(&mut self, console: &mut Console, finding: &Finding) -> Result<(), CommandError> {
        let token = token::encode(&finding.spec);
        let file = match (&self.store, &token) {
            (Some(store), _) => Some(store.seed_file(finding)),
            (None, Some(_)) => None,
            (None, None) => Some(store::write_seed_file(&PathBuf::from("."), &SeedFile::of(&finding.spec, &finding.outcome))),
        };
        // A file that cannot be written must not cost the finding.
        let file = file.and_then(|written| match written {
            Ok(path) => Some(path),
            Err(error) => {
                console.narrate(&format!("lurch: {}; next: --results DIR", failed("seed file".to_owned(), error)));
                None
            }
        });
        let file = file.map(|path| path.display().to_string());
        let source = token.clone().or_else(|| file.clone()).unwrap_or_default();
        let confirmed = confirm::confirm(&source, &finding.outcome);
        // Without token and file there is nothing a fresh process could be given.
        if let Err(error) = &confirmed
            && !source.is_empty()
        {
            console.narrate(&format!("lurch: {source} was not confirmed: {error}; next: lurch doctor"));
            self.raise(Exit::Diverged);
        }
        self.raise(Exit::Violation);
        let shrunk = if confirmed.is_ok() { self.shrink(finding, &source)? } else { None };
        let json = FindingJson {
            r#type: "finding",
            property: finding.name.0.clone(),
            title: finding.name.1.clone(),
            signature: finding.signature.clone(),
            run: RunJson::of(&finding.spec),
            seed_file: file.clone(),
            shrunk_file: shrunk.as_ref().map(|(path, _)| path.clone()),
            runs: finding.runs,
            first_run: finding.run + 1,
            steps: finding.outcome.steps,
            trace_hash: format!("{:016x}", finding.outcome.trace_hash),
            confirmed: confirmed.is_ok(),
        };
        let report = text::report(&Case { spec: &finding.spec, outcome: &finding.outcome, source: &source }, Form::Terminal);
        if let (Some(store), Ok(())) = (&self.store, &confirmed) {
            store.add(finding, &report, &line(&json)).map_err(|error| failed("results".to_owned(), error))?;
        }
        console.json(&json)?;
        if !console.is_json() {
            console.out().write_all(report.as_bytes())?;
            let word = if confirmed.is_ok() { "confirmed in a fresh process" } else { "NOT CONFIRMED in a fresh process" };
            console.say(&format!("{word}; {} runs like this, the first was run {}", finding.runs, finding.run + 1))?;
            if let Some((path, measures)) = &shrunk {
                console.say(&format!("shrunk: {measures}: {path}"))?;
            }
            console.say("")?;
        }
        Ok(())
    }

    /// Shrinks a stored finding, unless there have been many; its file, and what went.
    fn shrink(&mut self, finding: &Finding, source: &str) -> Result<Option<(String, String)>, CommandError> {
        let Some(store) = self.store.as_ref().filter(|_| self.nr_shrunk < SHRUNK_MAX) else { return Ok(None) };
        self.nr_shrunk += 1;
        let origin = SeedFile::bare(finding.spec.clone());
        // What cannot be shrunk, such as a hosted run, stays as it is.
        let Ok(result) = shrink_run(&mut Workspace::new(), &origin, SHRINK_BUDGET) else { return Ok(None) };
        let path = store.shrunk_file(finding, &result.file(&origin, source));
        let path = path.map_err(|error| failed("shrunk seed file".to_owned(), error))?;
        let (from, to) = (result.shrunk.from, result.shrunk.to);
        let measures = format!("{} of {} context switches, {} of {} steps", to.switches, from.switches, to.steps, from.steps);
        Ok(Some((path.display().to_string(), measures)))
    }

    /// The last line: everything in all.
    fn close(
        &mut self,
        console: &mut Console,
        canaries: crate::report::json::CanariesJson,
        missed: Vec<String>,
    ) -> Result<Exit, CommandError> {
        let mut summary = claim::total(&self.total.tally, &self.total, self.findings);
        summary.not_clean = std::mem::take(&mut self.not_clean);
        summary.not_clean.extend(missed);
        summary.clean = self.findings == 0 && summary.not_clean.is_empty() && self.exit == Exit::Clean;
        console.say(&format!("canaries: {} of {} caught", canaries.caught, canaries.run))?;
        for what in &summary.not_clean {
            console.say(&format!("not clean: {what}"))?;
        }
        let verdict = match (self.findings, summary.clean) {
            (0, true) if summary.listed.is_empty() => {
                let stops: u64 = summary.stops.values().sum();
                let stopped = if stops > 0 { format!("; {stops} ended in a provoked safe stop") } else { String::new() };
                let reach = if summary.not_claimed.is_empty() { "clean" } else { "clean as far as the runs went" };
                format!("{reach}: {} runs, nothing violated{stopped}", summary.runs)
            }
            (0, true) => {
                let masked: u64 = summary.listed.values().sum();
                let which: Vec<String> = summary.listed.iter().map(|(id, runs)| format!("{id} in {runs}")).collect();
                let which = which.join(", ");
                format!(
                    "clean but for listed findings: {} runs, {masked} of them violate what is listed ({which}), none anything else",
                    summary.runs
                )
            }
            (0, false) => format!("{} runs, nothing unlisted violated, but this is no clean claim", summary.runs),
            (1, _) => format!("1 finding in {} runs", summary.runs),
            (n, _) => format!("{n} findings in {} runs", summary.runs),
        };
        console.say(&verdict)?;
        summary.canaries = Some(canaries);
        console.json(&summary)?;
        Ok(self.exit)
    }

    /// Keeps the exit code that weighs more. A finding stands on its own; a missed canary only takes away the claim that there are no
    /// more; a run that is not the same again takes away everything.
    fn raise(&mut self, exit: Exit) {
        let weight = |exit| match exit {
            Exit::Diverged => 4,
            Exit::Violation => 3,
            Exit::CanaryMissed => 2,
            Exit::NoVerdict => 1,
            _ => 0,
        };
        if weight(exit) > weight(self.exit) {
            self.exit = exit;
        }
    }
}

fn failed(path: String, error: std::io::Error) -> CommandError {
    CommandError::Write { path, error }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (glob, name, expected) in [
            ("any", "any", true),
            ("any", "anything", false),
            ("*", "any", true),
            ("*-dma", "unmap-vs-dma", true),
            ("u*dma", "unmap-vs-dma", true),
            ("u*vs*a", "unmap-vs-dma", true),
            ("u*xx*a", "unmap-vs-dma", false),
            ("a*a", "a", false),
            ("", "any", false),
        ] {
            assert_eq!(matches(glob, name), expected, "{glob} {name}");
        }
    }
}
