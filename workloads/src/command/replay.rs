//! `lurch replay`: what a token or a seed file names, again. Replay writes nothing.

use sim::policy::PolicySpec;

use super::console::Console;
use super::{CommandError, Exit, args, run::exit, run::tell};
use crate::report::json;
use crate::run::{How, Outcome, Workspace, run};
use crate::seed_file::{self, SeedFile};

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// A token (`lu1-...`) or a seed file.
    source: String,
    /// Where the recorded choices end or no longer fit, go on with this policy.
    #[arg(long, value_name = "POLICY", env = "LURCH_THEN", value_parser = args::policy)]
    then: Option<PolicySpec>,
    /// A run that a bound ended is exit code 104.
    #[arg(long, env = "LURCH_STRICT", value_parser = clap::builder::FalseyValueParser::new())]
    strict: bool,
}

pub(super) fn command(args: &Args, console: &mut Console) -> Result<Exit, CommandError> {
    let file = seed_file::read(&args.source)?;
    if args.then.is_some() && file.choices.is_none() {
        console.narrate("lurch: --then has no effect: there are no recorded choices to leave");
    }
    let outcome = again(&file, args.then);
    tell(console, &file.spec, &outcome, None, &args.source)?;
    let differences = differences(&file, &outcome, args.then.is_some());
    for difference in &differences {
        console.narrate(&format!("lurch: {difference}"));
    }
    if differences.is_empty() { Ok(exit(&outcome, args.strict)) } else { Ok(Exit::Diverged) }
}

/// Runs what the file names, by its choices where it has them, with events kept.
pub(super) fn again(file: &SeedFile, then: Option<PolicySpec>) -> Outcome {
    let how = How { keep_log: true, replay: file.choices.as_deref(), then, ..How::default() };
    run(&mut Workspace::new(), &file.spec, &how)
}

/// What is not as the file says. With `--then` another end is what was asked for.
fn differences(file: &SeedFile, outcome: &Outcome, then: bool) -> Vec<String> {
    let mut differences = Vec::new();
    if let Some(divergence) = &outcome.divergence
        && !then
    {
        differences.push(format!("replay diverged at {}; next: lurch replay FILE --then portfolio", json::divergence(divergence)));
    }
    if then {
        return differences;
    }
    if let Some(hash) = file.trace_hash.filter(|&hash| hash != outcome.trace_hash) {
        differences.push(format!("trace hash {:016x}, the file says {hash:016x}: not the build that wrote it", outcome.trace_hash));
    }
    if let Some(expect) = file.expect.filter(|&expect| expect != outcome.verdict.kind) {
        differences.push(format!("verdict {}, the file says {}: fixed, or another run", outcome.verdict.kind.name(), expect.name()));
    } else if !file.property.is_empty() && file.property != outcome.verdict.property {
        differences.push(format!("property {}, the file says {}", outcome.verdict.property, file.property));
    }
    differences
}
