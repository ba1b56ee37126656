//! `lurch snapshot`: the state that is handed over, decoded by field.

use std::path::PathBuf;

use serde::Serialize;

use super::args::RunFlags;
use super::console::Console;
use super::{CommandError, Exit};
use crate::inspect::At;
use crate::names;
use crate::run::{How, Workspace, run};

/// Runs tried until one comes so far.
const SEEDS_TRIED: u64 = 100;

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The scenario (`lurch list scenarios`).
    scenario: String,
    /// When: `kexec`, `adoption`, `finish`, or a mark (`lurch list marks`).
    #[arg(long, value_name = "MARK", env = "LURCH_AT", default_value = "kexec", value_parser = At::parse)]
    at: At,
    #[command(flatten)]
    flags: RunFlags,
    /// Seed of the run, in decimal or hex; when not given, the first run from 0 on that comes so far.
    #[arg(long, value_name = "N", env = "LURCH_SEED", value_parser = names::number)]
    seed: Option<u64>,
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
    let selection = args.flags.selection(scenario)?;
    let how = How { snapshot_at: Some(args.at), ..How::default() };
    let mut workspace = Workspace::new();
    let (first, last) = args.seed.map_or((0, SEEDS_TRIED - 1), |seed| (seed, seed));
    let mut runs = (first..=last).map(|seed| {
        let spec = selection.spec(seed);
        let outcome = run(&mut workspace, &spec, &how);
        (spec, outcome)
    });
    let Some((spec, outcome)) = runs.find(|(_, outcome)| !outcome.snapshots.is_empty()) else {
        let (at, which) =
            (args.at.name(), args.seed.map_or(format!("none of the runs 0 to {}", SEEDS_TRIED - 1), |seed| format!("run {seed}")));
        return Err(CommandError::NothingSelected(format!("{which} came to `{at}`; next: another --seed N, or lurch list marks")));
    };
    if args.seed.is_none() {
        console.narrate(&format!("lurch: from run {0} (--seed {0})", spec.seed));
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
