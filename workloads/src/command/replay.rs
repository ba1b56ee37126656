//! `lurch replay`: what a token or a seed file names, again. Replay writes nothing, except with `--rewrite`.

use sim::policy::PolicySpec;

use super::console::Console;
use super::{CommandError, Exit, args, run::exit, run::tell};
use crate::report::json;
use crate::run::{How, Outcome, Workspace, run};
use crate::seed_file::{self, SeedFile};
use crate::token;

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// A token (`lu1-...`) or a seed file.
    #[arg(value_parser = args::source())]
    source: String,
    /// Where the recorded choices end or no longer fit, go on with this policy.
    #[arg(long, value_name = "POLICY", env = "LURCH_THEN", value_parser = args::policy)]
    then: Option<PolicySpec>,
    /// A run that a bound ended is exit code 104.
    #[arg(long, env = "LURCH_STRICT", value_parser = clap::builder::FalseyValueParser::new())]
    strict: bool,
    /// The exit code says whether the run is as the seed file says, whatever its verdict: what CI asks.
    #[arg(long, env = "LURCH_EXPECTED", value_parser = clap::builder::FalseyValueParser::new())]
    expected: bool,
    /// After a change that is meant to change event streams: draw the run again from policy and seed, and write its trace hash and
    /// choices into the seed file. Refused when verdict, property or title are not what the file says.
    #[arg(long, env = "LURCH_REWRITE", conflicts_with_all = ["then", "expected"], value_parser = clap::builder::FalseyValueParser::new())]
    rewrite: bool,
}

pub(super) fn command(args: &Args, console: &mut Console) -> Result<Exit, CommandError> {
    let file = seed_file::read(&args.source)?;
    if args.rewrite {
        return rewrite(args, file, console);
    }
    if args.then.is_some() && file.choices.is_none() {
        console.narrate("lurch: --then has no effect: there are no recorded choices to leave");
    }
    let outcome = again(&file, args.then);
    tell(console, &file.spec, &outcome, None, Some(&args.source))?;
    let differences = differences(&file, &outcome, args.then.is_some());
    if let (Some(divergence), Some(then)) = (&outcome.divergence, args.then) {
        let then = then.resolve(file.spec.seed);
        console.narrate(&format!("lurch: replay diverged at {}; it went on with {then}", json::divergence(divergence)));
    }
    for difference in &differences {
        console.narrate(&format!("lurch: {difference}"));
    }
    Ok(match (differences.is_empty(), args.expected) {
        (false, _) => Exit::Diverged,
        (true, true) => Exit::Clean,
        (true, false) => exit(&outcome, args.strict),
    })
}

/// Writes the run as it is drawn today into its file, when it still shows what the file says.
fn rewrite(args: &Args, mut file: SeedFile, console: &mut Console) -> Result<Exit, CommandError> {
    if token::looks_like_token(&args.source) {
        return Err(CommandError::Usage("--rewrite is for seed files; a token has nothing to rewrite".to_owned()));
    }
    if !file.shrunk_from.is_empty() {
        let next = format!("lurch shrink {} -o {}", file.shrunk_from, args.source);
        return Err(CommandError::Usage(format!("--rewrite: policy and seed make the run that this one was shrunk from; next: {next}")));
    }
    let outcome = run(&mut Workspace::new(), &file.spec, &How::default());
    let verdict = &outcome.verdict;
    let same = file.expect.is_none_or(|expect| expect == verdict.kind)
        && (file.property.is_empty() || file.property == verdict.property)
        && (file.title.is_empty() || file.title == verdict.title);
    if !same {
        let now = format!("{} {} {}", verdict.kind.name(), verdict.property, verdict.title);
        let then = format!("{} {} {}", file.expect.map_or("", |expect| expect.name()), file.property, file.title);
        let now = now.trim_end();
        console.narrate(&format!(
            "lurch: {}: not rewritten: the run now shows `{now}`, the file says `{}`; next: find another seed with lurch sweep {}",
            args.source,
            then.trim(),
            file.spec.scenario.name
        ));
        return Ok(Exit::Diverged);
    }
    file.trace_hash = Some(outcome.trace_hash);
    file.choices = Some(outcome.record);
    let written = std::fs::write(&args.source, seed_file::write(&file));
    written.map_err(|error| CommandError::Write { path: args.source.clone(), error })?;
    console.say(&format!("rewrote {}", args.source))?;
    Ok(Exit::Clean)
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
    } else if !file.title.is_empty() && file.title != outcome.verdict.title {
        differences.push(format!("title `{}`, the file says `{}`", outcome.verdict.title, file.title));
    }
    differences
}
