//! `lurch doctor`: is this build fit to be believed?

use serde::Serialize;

use super::args::JobsFlag;
use super::console::Console;
use super::{CommandError, Exit};
use crate::golden;
use crate::host;
use crate::report::json::CanariesJson;
use crate::run::{How, RunSpec, Workspace, run};
use crate::scenario;
use crate::sweep::{Selection, canaries, confirm};
use crate::token;
use crate::{defect::Defects, names, scenario::Settings};

/// Seeds tried for each scenario.
const SEEDS: [u64; 3] = [0, 1, 0x5eed];
/// Kernels tried under the host level.
const HOSTED_KERNELS: [&str; 3] = ["v2", "tip", "tip-reclaim"];

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    jobs: JobsFlag,
}

#[derive(Serialize)]
struct CheckJson {
    r#type: &'static str,
    check: String,
    ok: bool,
    detail: String,
}

#[derive(Serialize)]
struct SummaryJson {
    r#type: &'static str,
    ok: bool,
    canaries: CanariesJson,
}

pub(super) fn command(args: &Args, console: &mut Console) -> Result<Exit, CommandError> {
    // The crate does not compile without the cfg, so a binary that runs was built with it.
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let versions = format!(
        "lurch {}, {build} build, {}-{}, cfg madsim {}, formats: token lu1, seed file {}, JSON lines {}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        std::env::consts::OS,
        if cfg!(madsim) { "on" } else { "LOST: RUSTFLAGS overrides .cargo/config.toml" },
        crate::seed_file::FORMAT,
        crate::report::json::FORMAT_VERSION
    );
    check(console, "versions", cfg!(madsim), &versions)?;

    let mut deterministic = true;
    for scenario in scenario::all() {
        let (outgoing, incoming) = names::kernels(scenario.kernel).map_err(CommandError::Usage)?;
        let selection = Selection {
            scenario,
            outgoing,
            incoming,
            defects: Defects::NONE,
            policy: sim::policy::PolicySpec::default(),
            fail_nth: None,
            settings: Settings::new(),
            product: None,
        };
        let faults: Vec<String> = SEEDS.iter().filter_map(|&seed| compare(&selection.spec(seed)).err()).collect();
        deterministic &= faults.is_empty();
        let detail = if faults.is_empty() {
            format!("{} seeds, twice on a thread, on two threads, in a fresh process, from the recorded choices: the same", SEEDS.len())
        } else {
            faults.join("; ")
        };
        check(console, &format!("determinism of {}", scenario.name), faults.is_empty(), &detail)?;
    }

    let differences = match golden::differences() {
        Ok(differences) => differences,
        Err(fault) => vec![fault],
    };
    deterministic &= differences.is_empty();
    let detail = if differences.is_empty() { "as every build before".to_owned() } else { differences.join("; ") };
    check(console, "golden trace hashes", differences.is_empty(), &detail)?;

    let faults: Vec<String> = HOSTED_KERNELS.iter().filter_map(|kernel| compare_hosted(kernel).err()).collect();
    deterministic &= faults.is_empty();
    let detail = if faults.is_empty() {
        format!("update-with-dma on {}, twice on a thread, on two threads: the same", HOSTED_KERNELS.join(", "))
    } else {
        faults.join("; ")
    };
    check(console, "determinism of the host level", faults.is_empty(), &detail)?;

    let caught = canaries::run_all(args.jobs.jobs());
    for one in &caught {
        let name = format!("canary {}", one.canary.defect.id());
        let detail = match one.after {
            Some(runs) => format!("caught by {} after {runs} runs of {}", one.canary.defect.oracle(), one.canary.scenario),
            None => format!("not caught in {} runs of {}; found instead: {}", one.canary.runs, one.canary.scenario, one.instead.join("; ")),
        };
        check(console, &name, one.after.is_some(), &detail)?;
    }
    let summary = canaries::summary(&caught);
    let missed = !summary.missed.is_empty();
    console.say(&format!("canaries: {} of {} caught", summary.caught, summary.run))?;
    console.json(&SummaryJson { r#type: "doctor", ok: deterministic && !missed, canaries: summary })?;
    Ok(match (deterministic, missed) {
        (false, _) => Exit::Diverged,
        (true, true) => Exit::CanaryMissed,
        (true, false) => Exit::Clean,
    })
}

fn check(console: &mut Console, name: &str, ok: bool, detail: &str) -> Result<(), CommandError> {
    console.say(&format!("{}  {name}: {detail}", if ok { "ok    " } else { "FAILED" }))?;
    console.json(&CheckJson { r#type: "check", check: name.to_owned(), ok, detail: detail.to_owned() })?;
    console.flush()?;
    Ok(())
}

/// A hosted run of a kernel, again and elsewhere.
fn compare_hosted(kernel: &str) -> Result<(), String> {
    let (outgoing, incoming) = names::kernels(kernel)?;
    let scenario = names::scenario("update-with-dma")?;
    let policy = sim::policy::PolicySpec::default();
    let selection = Selection {
        scenario,
        outgoing,
        incoming,
        defects: Defects::NONE,
        policy,
        fail_nth: None,
        settings: Settings::new(),
        product: None,
    };
    let spec = selection.spec(SEEDS[1]);
    let first = host::run(&spec).outcome.trace_hash;
    let other = || host::run(&spec).outcome.trace_hash;
    let threads = crossbeam::scope(|scope| [scope.spawn(|_| other()), scope.spawn(|_| other())].map(|thread| thread.join().unwrap_or(0)));
    let threads = threads.map_err(|_| format!("{kernel}: panicked on another thread"))?;
    match [other(), threads[0], threads[1]].into_iter().find(|&hash| hash != first) {
        None => Ok(()),
        Some(hash) => Err(format!("{kernel}: trace hash {first:016x} became {hash:016x}")),
    }
}

/// The same run in every way there is.
fn compare(spec: &RunSpec) -> Result<(), String> {
    let mut workspace = Workspace::new();
    let first = run(&mut workspace, spec, &How::default());
    let differs = |what: &str, hash: u64| match hash == first.trace_hash {
        true => Ok(()),
        false => Err(format!("seed {:#x}: trace hash {:016x} became {hash:016x} {what}", spec.seed, first.trace_hash)),
    };
    differs("in the same workspace", run(&mut workspace, spec, &How::default()).trace_hash)?;
    differs("with events kept", run(&mut workspace, spec, &How { keep_log: true, ..How::default() }).trace_hash)?;
    differs("from the recorded choices", run(&mut workspace, spec, &How { replay: Some(&first.record), ..How::default() }).trace_hash)?;
    let other = || run(&mut Workspace::new(), spec, &How::default()).trace_hash;
    let (one, two) = crossbeam::scope(|scope| {
        let threads = [scope.spawn(|_| other()), scope.spawn(|_| other())];
        let [one, two] = threads.map(|thread| thread.join().unwrap_or(0));
        (one, two)
    })
    .map_err(|_| format!("seed {:#x}: panicked on another thread", spec.seed))?;
    differs("on another thread", one)?;
    differs("on a third thread", two)?;
    match token::encode(spec) {
        Some(token) => confirm::confirm(&token, &first).map_err(|error| error.to_string()),
        None => Ok(()),
    }
}
