//! `lurch snapshot`: the state that is handed over, decoded by field.

use std::path::PathBuf;

use serde::Serialize;

use super::args::{RunFlags, SeedFlag};
use super::console::Console;
use super::{CommandError, Exit};
use crate::inspect::At;
use crate::names;
use crate::run::{How, Workspace, run};

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The scenario (`lurch list scenarios`).
    scenario: String,
    /// When: `kexec`, `adoption`, `finish`, or a mark (`lurch list marks`).
    #[arg(long, value_name = "MARK", env = "LURCH_AT", default_value = "kexec", value_parser = At::parse)]
    at: At,
    #[command(flatten)]
    flags: RunFlags,
    #[command(flatten)]
    seed: SeedFlag,
    /// Write a file for each snapshot into this folder instead.
    #[arg(long, short, value_name = "DIR", env = "LURCH_OUTPUT")]
    output: Option<PathBuf>,
}

#[derive(Serialize)]
struct SnapshotJson<'a> {
    r#type: &'static str,
    at: &'a str,
    text: &'a str,
}

pub(super) fn command(args: &Args, console: &mut Console) -> Result<Exit, CommandError> {
    let scenario = names::scenario(&args.scenario).map_err(CommandError::Usage)?;
    let spec = args.flags.selection(scenario)?.spec(args.seed.seed);
    let how = How { snapshot_at: Some(args.at), ..How::default() };
    let outcome = run(&mut Workspace::new(), &spec, &how);
    if outcome.snapshots.is_empty() {
        let (at, ended) = (args.at.name(), outcome.verdict.kind.name());
        let reason = format!("this run never came to `{at}` (it ended: {ended}); next: --seed N, or lurch list marks");
        return Err(CommandError::NothingSelected(reason));
    }
    for (nr, (at, text)) in outcome.snapshots.iter().enumerate() {
        let Some(dir) = &args.output else {
            console.say(text.trim_end())?;
            console.json(&SnapshotJson { r#type: "snapshot", at, text })?;
            continue;
        };
        let again = if nr == 0 { String::new() } else { format!("-{}", nr + 1) };
        let kernel = spec.kernel().replace(':', "-to-");
        let path = dir.join(format!("{}-{kernel}-{}{again}.txt", scenario.name, crate::seed_file::slug(at)));
        let written = std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&path, text));
        written.map_err(|error| CommandError::Write { path: path.display().to_string(), error })?;
        console.say(&path.display().to_string())?;
        console.json(&SnapshotJson { r#type: "snapshot", at, text })?;
    }
    Ok(Exit::Clean)
}
