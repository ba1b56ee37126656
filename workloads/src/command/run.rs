//! `lurch run`: a scenario once.

use std::path::PathBuf;

use super::args::{RunFlags, SeedFlag};
use super::console::Console;
use super::{CommandError, Exit};
use crate::names;
use crate::report::history::History;
use crate::report::json::{self, VerdictJson};
use crate::report::text::{self, Case, Form};
use crate::report::trace::{self, TraceForm};
use crate::run::{How, Outcome, RunSpec, VerdictKind, Workspace, run};
use crate::seed_file::SeedFile;
use crate::sweep::store;
use crate::token;

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The scenario (`lurch list scenarios`).
    scenario: String,
    #[command(flatten)]
    flags: RunFlags,
    #[command(flatten)]
    seed: SeedFlag,
    /// Print every event first.
    #[arg(long, value_enum, value_name = "FORM", env = "LURCH_TRACE")]
    trace: Option<TraceForm>,
    /// Write a seed file with the exact choices into this folder.
    #[arg(long, short, value_name = "DIR", env = "LURCH_OUTPUT")]
    output: Option<PathBuf>,
    /// A run that a bound ended is exit code 104.
    #[arg(long, env = "LURCH_STRICT", value_parser = clap::builder::FalseyValueParser::new())]
    strict: bool,
}

pub(super) fn command(args: &Args, console: &mut Console) -> Result<Exit, CommandError> {
    let scenario = names::scenario(&args.scenario).map_err(CommandError::Usage)?;
    let spec = args.flags.selection(scenario)?.spec(args.seed.seed);
    let how = How { keep_log: true, ..How::default() };
    let outcome = run(&mut Workspace::new(), &spec, &how);
    let token = token::encode(&spec);
    // What a token cannot carry goes into a file, always.
    let dir = args.output.clone().or_else(|| token.is_none().then(|| PathBuf::from(".")));
    // A file that cannot be written must not cost the verdict.
    let mut unwritten = None;
    let file = dir.and_then(|dir| match store::write_seed_file(&dir, &SeedFile::of(&spec, &outcome)) {
        Ok(path) => {
            console.narrate(&format!("lurch: wrote {}", path.display()));
            Some(path.display().to_string())
        }
        Err(error) => {
            unwritten = Some(CommandError::Write { path: dir.display().to_string(), error });
            None
        }
    });
    if let Some(nth) = spec.fail_nth.filter(|&nth| nth >= outcome.nr_fallible) {
        let calls = outcome.nr_fallible;
        console.narrate(&format!("lurch: --fail-nth {nth}: nothing was made to fail, the run has {calls} fallible calls, from 0"));
    }
    if let Some(form) = args.trace {
        trace::write(&History::new(&outcome), form, console.out())?;
    }
    let source = token.or_else(|| file.clone());
    tell(console, &spec, &outcome, file, source.as_deref())?;
    match unwritten {
        None => Ok(exit(&outcome, args.strict)),
        Some(error) if outcome.verdict.kind == VerdictKind::Violation => {
            console.narrate(&format!("lurch: {error}; next: --output DIR"));
            Ok(Exit::Violation)
        }
        Some(error) => Err(error),
    }
}

/// Prints what a run came to.
pub(super) fn tell(
    console: &mut Console,
    spec: &RunSpec,
    outcome: &Outcome,
    file: Option<String>,
    source: Option<&str>,
) -> Result<(), CommandError> {
    console.json(&VerdictJson::of(spec, outcome, file))?;
    if console.is_json() {
        return Ok(());
    }
    let verdict = &outcome.verdict;
    if verdict.kind == VerdictKind::Violation {
        let report = text::report(&Case { spec, outcome, source: source.unwrap_or_default() }, Form::Terminal);
        console.out().write_all(report.as_bytes())?;
        return Ok(());
    }
    let what = match verdict.kind {
        VerdictKind::Clean => "clean".to_owned(),
        kind => format!("{}: {} ({})", kind.name(), verdict.title, verdict.property),
    };
    console.say(&what)?;
    for line in &verdict.details {
        console.say(&format!("  {line}"))?;
    }
    console.say(&format!(
        "scenario {}, kernel {}, policy {}, {} steps, {} cycles, {} fallible calls, trace hash {:016x}",
        spec.scenario.name,
        spec.kernel(),
        spec.policy.resolve(spec.seed),
        outcome.steps,
        outcome.cycles,
        outcome.nr_fallible,
        outcome.trace_hash
    ))?;
    if let Some(divergence) = &outcome.divergence {
        console.say(&format!("diverged: {}", json::divergence(divergence)))?;
    }
    match source {
        Some(source) => console.say(&format!("replay: lurch replay {source}"))?,
        None => console.say("replay: the same command again, where a file can be written")?,
    }
    Ok(())
}

/// The exit code of a verdict.
pub(super) fn exit(outcome: &Outcome, strict: bool) -> Exit {
    match outcome.verdict.kind {
        VerdictKind::Clean | VerdictKind::SafeStop => Exit::Clean,
        VerdictKind::Violation => Exit::Violation,
        VerdictKind::Bound if strict => Exit::NoVerdict,
        VerdictKind::Bound => Exit::Clean,
    }
}
