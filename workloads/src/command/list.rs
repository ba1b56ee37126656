//! `lurch list`: what there is.

use clap::ValueEnum;
use serde::Serialize;
use sim::policy::PolicySpec;

use super::console::Console;
use super::{CommandError, Exit};
use crate::defect::Defect;
use crate::mark::Mark;
use crate::oracle;
use crate::revision::REVISIONS;
use crate::scenario::{self, PARAMETERS};

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// What to list; everything when not given.
    #[arg(value_enum)]
    what: Option<What>,
    /// JSON lines, as with --message-format json.
    #[arg(long, env = "LURCH_JSON", value_parser = clap::builder::FalseyValueParser::new())]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum What {
    Scenarios,
    Kernels,
    Defects,
    Oracles,
    Policies,
    Marks,
    Settings,
}

#[derive(Serialize)]
struct Item {
    r#type: &'static str,
    name: String,
    about: String,
}

pub(super) fn command(args: &Args, console: &mut Console) -> Result<Exit, CommandError> {
    if args.json {
        console.set_json();
    }
    let all = What::value_variants();
    let wanted = args.what.as_ref().map_or(all, std::slice::from_ref);
    for (nr, &what) in wanted.iter().enumerate() {
        if wanted.len() > 1 {
            let heading = what.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned());
            console.say(&format!("{}{heading}:", if nr == 0 { "" } else { "\n" }))?;
        }
        let items = items(what);
        let widest = items.iter().map(|item| item.name.len()).max().unwrap_or(0);
        for item in items {
            console.say(format!("  {:<widest$}  {}", item.name, item.about).trim_end())?;
            console.json(&item)?;
        }
    }
    Ok(Exit::Clean)
}

fn items(what: What) -> Vec<Item> {
    let item = |r#type, name: &str, about: String| Item { r#type, name: name.to_owned(), about };
    match what {
        What::Scenarios => scenario::all()
            .iter()
            .map(|scenario| item("scenario", scenario.name, format!("{} (kernel {})", scenario.about, scenario.kernel)))
            .collect(),
        What::Kernels => REVISIONS.iter().map(|revision| item("kernel", revision.name, revision.about.to_owned())).collect(),
        What::Defects => Defect::ALL
            .iter()
            .map(|defect| item("defect", defect.id(), format!("{} (caught by {})", defect.source(), defect.oracle())))
            .collect(),
        What::Oracles => oracle::CATALOGUE.iter().map(|info| item("oracle", info.name, info.sentence.to_owned())).collect(),
        What::Policies => PolicySpec::NAMES.iter().map(|name| item("policy", name, policy_about(name).to_owned())).collect(),
        What::Marks => Mark::ALL.iter().map(|mark| item("mark", mark.name(), String::new())).collect(),
        What::Settings => PARAMETERS
            .iter()
            .map(|parameter| {
                item(
                    "setting",
                    parameter.key,
                    match parameter.names {
                        [] => format!("{} ({} to {})", parameter.about, parameter.min, parameter.max),
                        names => format!("{} ({})", parameter.about, names.join(", ")),
                    },
                )
            })
            .collect(),
    }
}

fn policy_about(name: &str) -> &'static str {
    match name {
        "portfolio" => "one of the others, chosen by the seed (default)",
        "surw" => "selectively uniform random walk over interesting objects",
        "pos" => "partial order sampling",
        "rff" => "partial order sampling towards reads of writes that profiling has not seen",
        "pct:D" => "priorities with D-1 change points, for bugs of depth D from 1 to 99",
        "starve" => "one actor is kept waiting",
        "urw" => "uniform random walk over interleavings",
        "uniform" => "any enabled actor",
        "timed" => "the earliest event next, by the costs of steps",
        "delay:N" => "round robin with at most N actors skipped, N from 0 to 99",
        _ => "",
    }
}
