//! `lurch explain`: why a run failed. Reads, and always exits with 0 when there was something to explain.

use super::console::Console;
use super::{CommandError, Exit, replay, window};
use crate::report::json::{self, VerdictJson};
use crate::report::text::{self, Case, Form};
use crate::report::{cause, history::History, signature, words};
use crate::seed_file;
use serde::Serialize;

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// A token (`lu1-...`) or a seed file.
    #[arg(value_parser = super::args::source())]
    source: String,
    /// Plain text for a mail, 72 columns.
    #[arg(long, env = "LURCH_MAIL", value_parser = clap::builder::FalseyValueParser::new())]
    mail: bool,
    /// How wide the race window is: who has to be stalled where, for how long, before the order found comes about by itself. The run is
    /// shrunk first.
    #[arg(long, env = "LURCH_WINDOW", conflicts_with = "mail", value_parser = clap::builder::FalseyValueParser::new())]
    window: bool,
}

#[derive(Serialize)]
struct LinkJson {
    r#type: &'static str,
    step: u64,
    actor: String,
    era: u8,
    function: Option<String>,
    role: String,
    decider: bool,
    words: String,
}

#[derive(Serialize)]
struct ExplanationJson {
    r#type: &'static str,
    #[serde(flatten)]
    verdict: ExplainedJson,
    signature: String,
    signature_parts: Vec<String>,
}

#[derive(Serialize)]
struct ExplainedJson {
    verdict: &'static str,
    property: String,
    title: String,
}

pub(super) fn command(args: &Args, console: &mut Console) -> Result<Exit, CommandError> {
    let file = seed_file::read(&args.source)?;
    if args.window {
        return window::command(&args.source, &file, console);
    }
    let outcome = replay::again(&file, None);
    if let Some(divergence) = &outcome.divergence {
        console.narrate(&format!("lurch: replay diverged at {}: this explains another run", json::divergence(divergence)));
    }
    if console.is_json() {
        let history = History::new(&outcome);
        let cause = cause::analyse(&history);
        for link in &cause.links {
            let event = history.event(link.at);
            console.json(&LinkJson {
                r#type: "link",
                step: event.step,
                actor: history.name(event.actor),
                era: event.era,
                function: history.function(link.at),
                role: format!("{:?}", link.role).to_lowercase(),
                decider: cause.decider == Some(link.at),
                words: words::long(&history, link.at),
            })?;
        }
        let verdict = VerdictJson::of(&file.spec, &outcome, None);
        console.json(&ExplanationJson {
            r#type: "explanation",
            verdict: ExplainedJson { verdict: verdict.verdict, property: verdict.property, title: verdict.title },
            signature: signature::signature(&history, &cause),
            signature_parts: signature::parts(&history, &cause),
        })?;
    } else {
        let form = if args.mail { Form::Mail } else { Form::Terminal };
        let report = text::report(&Case { spec: &file.spec, outcome: &outcome, source: &args.source }, form);
        console.out().write_all(report.as_bytes())?;
    }
    Ok(Exit::Clean)
}
