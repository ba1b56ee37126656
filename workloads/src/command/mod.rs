//! The `lurch` command. One subcommand a file; what they share is here.
//!
//! Results go to stdout, narration and progress to stderr. With `--message-format json` stdout is one JSON object a line (see
//! [`report::json`](crate::report::json)). Every flag has an environment twin, named in `--help`. Exit codes: [`Exit`].

mod args;
mod bench;
mod console;
mod doctor;
mod explain;
mod list;
mod matrix;
mod replay;
mod run;
mod shrink;
mod snapshot;
mod sweep;
mod window;

use clap::{Parser, Subcommand, ValueEnum};

use crate::seed_file::SourceError;
use console::Console;

/// Exit codes. Numbers from 100 on stay clear of shells, clap and signals. 101 is what a Rust panic exits with: never ours to use,
/// always a bug.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Exit {
    /// Ran, nothing violated.
    Clean = 0,
    /// Unexpected internal error.
    Internal = 1,
    /// Usage error.
    Usage = 2,
    /// Nothing was selected to run.
    NothingSelected = 4,
    /// A property was violated.
    Violation = 100,
    /// A canary was not caught.
    CanaryMissed = 102,
    /// Input of an unknown version, or corrupt.
    BadInput = 103,
    /// Ended by a bound without a verdict (`--strict`), or nothing was found but something that a clean claim requires never happened.
    NoVerdict = 104,
    /// A replay, or a run made again, came out differently: not deterministic, or another build.
    Diverged = 105,
}

impl Exit {
    /// The number.
    pub const fn code(self) -> i32 {
        self as i32
    }
}

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// A token or seed file is bad.
    #[error(transparent)]
    Input(#[from] SourceError),
    /// Nothing was selected.
    #[error("{0}")]
    NothingSelected(String),
    /// Something could not be written.
    #[error("{path}: {error}")]
    Write {
        /// What.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// The reader of our output has gone, or the output cannot be written.
    #[error("output: {0}")]
    Output(#[from] std::io::Error),
}

impl CommandError {
    fn exit(&self) -> Exit {
        match self {
            CommandError::Usage(_) => Exit::Usage,
            CommandError::Input(_) => Exit::BadInput,
            CommandError::NothingSelected(_) => Exit::NothingSelected,
            CommandError::Write { .. } | CommandError::Output(_) => Exit::Internal,
        }
    }
}

/// The form of results on stdout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum MessageFormat {
    /// Text for people.
    Human,
    /// One JSON object a line.
    Json,
}

const EXAMPLES: &str = "\
Examples:
  lurch sweep flb-retrieve-enomem --kernel v2 --runs 1000
  lurch replay lu1-flb-retrieve-enomem-surw-1-xxxx
  lurch shrink lu1-flb-retrieve-enomem-surw-1-xxxx
  lurch explain lu1-flb-retrieve-enomem-surw-1-xxxx --mail
  lurch list scenarios

Exit codes:
  0 clean   1 internal error   2 usage   4 nothing selected   100 a property was violated
  102 a canary was not caught   103 bad token or seed file   104 no verdict, or a clean claim lacks something
  105 not the same again: replay diverged";

/// Live Update Race CHecker: finds, replays and explains races of Linux live update with DMA running.
#[derive(Parser, Debug)]
#[command(name = "lurch", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Form of results on stdout.
    #[arg(long, global = true, value_enum, value_name = "FORM", env = "LURCH_MESSAGE_FORMAT", default_value = "human")]
    message_format: MessageFormat,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Show what there is: scenarios, kernels, defects, oracles, policies, marks, settings
    List(list::Args),
    /// Run a scenario once
    Run(run::Args),
    /// Run many seeds of scenarios, tell findings apart, check the oracles by canaries
    Sweep(sweep::Args),
    /// Run again what a token or seed file names
    Replay(replay::Args),
    /// Make a run that fails as small as can be: fewer actors, operations, failures, context switches
    Shrink(shrink::Args),
    /// Say why a run failed: chain of causes, memory, order of the decisive steps
    Explain(explain::Args),
    /// Decode the state that is handed over at a mark
    Snapshot(snapshot::Args),
    /// Check this build: determinism, canaries, versions
    Doctor(doctor::Args),
    /// Measure runs and steps a second
    Bench(bench::Args),
    /// Measure which policies find what, in how many runs
    Matrix(matrix::Args),
}

/// Runs the command that the process was started with; returns the exit code.
pub fn main() -> i32 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Where the reader has gone there is nobody to tell.
            let _ = error.print();
            return error.exit_code();
        }
    };
    let mut console = Console::new(cli.message_format);
    let result = match &cli.command {
        Command::List(args) => list::command(args, &mut console),
        Command::Run(args) => run::command(args, &mut console),
        Command::Sweep(args) => sweep::command(args, &mut console),
        Command::Replay(args) => replay::command(args, &mut console),
        Command::Shrink(args) => shrink::command(args, &mut console),
        Command::Explain(args) => explain::command(args, &mut console),
        Command::Snapshot(args) => snapshot::command(args, &mut console),
        Command::Doctor(args) => doctor::command(args, &mut console),
        Command::Bench(args) => bench::command(args, &mut console),
        Command::Matrix(args) => matrix::command(args, &mut console),
    };
    let result = result.and_then(|exit| console.flush().map(|()| exit).map_err(CommandError::from));
    match result {
        Ok(exit) => exit.code(),
        Err(error) => {
            let gone = matches!(&error, CommandError::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe);
            if !gone {
                console.narrate(&format!("lurch: {error}"));
            }
            error.exit().code()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_every_flag_has_an_environment_twin() {
        let command = Cli::command();
        command.clone().debug_assert();
        for sub in command.get_subcommands() {
            for arg in sub.get_arguments().filter(|arg| arg.get_long().is_some() && !["help", "version"].contains(&arg.get_id().as_str())) {
                let name = arg.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                let expected = format!("LURCH_{}", arg.get_long().expect("filtered").replace('-', "_").to_uppercase());
                assert_eq!(name, expected, "{} --{}", sub.get_name(), arg.get_id());
            }
        }
    }
}
