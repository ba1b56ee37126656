//! `lurch shrink`: a run that fails, made as small as can be while it fails the same way.

use std::path::PathBuf;

use serde::Serialize;
use sim::shrink::{Budget, Measure};

use super::console::Console;
use super::{CommandError, Exit};
use crate::run::Workspace;
use crate::seed_file::{self, SeedFile};
use crate::shrink::{ShrinkError, ShrunkRun, shrink_run};

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// A token (`lu1-...`) or a seed file.
    #[arg(value_parser = super::args::source())]
    source: String,
    /// Where to write the shrunk run: a file, or a folder; the name is made from the finding where none is given.
    #[arg(long, short, value_name = "FILE", env = "LURCH_OUTPUT")]
    output: Option<PathBuf>,
    /// Most runs to try; more may shrink further. The result depends on this number, not on how fast the machine is.
    #[arg(long, value_name = "N", env = "LURCH_RUNS", value_parser = crate::names::number)]
    runs: Option<u64>,
}

#[derive(Serialize)]
struct MeasureJson {
    steps: u64,
    switches: u64,
    preemptions: u64,
    actors: u64,
    operations: u64,
    failures: u64,
    oddities: u64,
}

impl From<Measure> for MeasureJson {
    fn from(measure: Measure) -> MeasureJson {
        let Measure { actors, operations, failures, switches, preemptions, oddities, steps } = measure;
        MeasureJson { steps, switches, preemptions, actors, operations, failures, oddities }
    }
}

#[derive(Serialize)]
struct ShrunkJson {
    r#type: &'static str,
    from: MeasureJson,
    to: MeasureJson,
    /// What to type after `lurch replay`: the file, since no token carries a shrunk run.
    token: String,
    seed_file: String,
    verdict: &'static str,
    property: String,
    title: String,
    trace_hash: String,
    signature: String,
    runs: u64,
    complete: bool,
}

pub(super) fn command(args: &Args, console: &mut Console) -> Result<Exit, CommandError> {
    let file = seed_file::read(&args.source)?;
    let budget = args.runs.map_or(Budget::default(), |runs| Budget { runs, steps: u64::MAX });
    let result = match shrink_run(&mut Workspace::new(), &file, budget) {
        Ok(result) => result,
        Err(error) => return Ok(refuse(&args.source, &error, console)),
    };
    let path = write(args, &file, &result)?;
    let ShrunkRun { shrunk, outcome, signatures, .. } = &result;
    if console.is_json() {
        console.json(&ShrunkJson {
            r#type: "shrunk",
            from: shrunk.from.into(),
            to: shrunk.to.into(),
            token: path.clone(),
            seed_file: path,
            verdict: outcome.verdict.kind.name(),
            property: outcome.verdict.property.clone(),
            title: outcome.verdict.title.clone(),
            trace_hash: format!("{:016x}", outcome.trace_hash),
            signature: signatures.1.clone(),
            runs: shrunk.runs,
            complete: shrunk.complete,
        })?;
        return Ok(Exit::Clean);
    }
    let verdict = &outcome.verdict;
    console.say(&format!("{}: {} ({})", verdict.kind.name(), verdict.title, verdict.property))?;
    console.say(&format!("{:>26} {:>9}", "before", "after"))?;
    let (from, to) = (shrunk.from, shrunk.to);
    for (what, from, to) in [
        ("steps", from.steps, to.steps),
        ("context switches", from.switches, to.switches),
        ("  of them preemptions", from.preemptions, to.preemptions),
        ("actors", from.actors, to.actors),
        ("draws of operations", from.operations, to.operations),
        ("injected failures", from.failures, to.failures),
        ("odd answers", from.oddities, to.oddities),
    ] {
        console.say(&format!("  {what:<17} {from:>8} {to:>9}").replace("preemptions ", "preemptions"))?;
    }
    let end = if shrunk.complete { "nothing more can be left out singly" } else { "the budget ended it; more with --runs N" };
    console.say(&format!("{} runs; {end}", shrunk.runs))?;
    if signatures.0 != signatures.1 {
        console.say(&format!("signature: {} (before: {}, with failures that it does not need)", signatures.1, signatures.0))?;
    }
    console.say(&format!("wrote {path}"))?;
    console.say(&format!("replay: lurch replay {path}"))?;
    Ok(Exit::Clean)
}

/// Says why a run cannot be shrunk; the exit code.
pub(super) fn refuse(source: &str, error: &ShrinkError, console: &mut Console) -> Exit {
    console.narrate(&format!("lurch: {}: {error}", source.trim()));
    match error {
        ShrinkError::Clean => Exit::NothingSelected,
        ShrinkError::Bound(_) => Exit::NoVerdict,
        ShrinkError::Diverged(_) => Exit::Diverged,
        ShrinkError::Hosted => Exit::Usage,
    }
}

/// Writes the shrunk run's file and returns its path.
fn write(args: &Args, origin: &SeedFile, result: &ShrunkRun) -> Result<String, CommandError> {
    let file = result.file(origin, &args.source);
    let own = PathBuf::from(seed_file::file_name(&file));
    let path = match &args.output {
        Some(dir) if dir.is_dir() => dir.join(own),
        Some(path) => path.clone(),
        None => own,
    };
    let written = std::fs::write(&path, seed_file::write(&file));
    written.map_err(|error| CommandError::Write { path: path.display().to_string(), error })?;
    Ok(path.display().to_string())
}
