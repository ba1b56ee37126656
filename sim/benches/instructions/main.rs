//! Instructions a step and a run take, counted by callgrind: guards the hot path where no clock can be trusted.
//!
//!     cargo bench -p sim --bench instructions               counts, and compares with the committed baseline
//!     cargo bench -p sim --bench instructions -- --update   writes the baseline anew
//!     cargo bench -p sim --bench instructions -- --require  as the first, and fails where valgrind is missing
//!
//! The program runs itself under callgrind twice with different numbers of runs; the difference is what the runs cost, start-up and
//! profile cancelled out. A count above the baseline by more than the tolerance fails (exit code 1), one below asks for `--update`.
//! Counts change with the compiler; they do not change with the load of the machine. On a processor without AVX2 a refill of entropy
//! takes more of them.

#[path = "../common/workload.rs"]
mod workload;

use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode};

use sim::policy::{FaultPlan, PolicySpec};
use workload::{Workload, new_engine, profile, run};

/// How far from the baseline a count may be, in percent.
const TOLERANCE_PERCENT: f64 = 5.0;

/// One figure: a policy, a workload, and whether steps or runs are counted.
struct Case {
    name: &'static str,
    policy: &'static str,
    workload: Workload,
    per_step: bool,
}

const STEPS: Workload = Workload { actors: 4, steps: 1000 };
const MANY: Workload = Workload { actors: 32, steps: 125 };
const TINY: Workload = Workload { actors: 3, steps: 10 };

const CASES: [Case; 8] = [
    Case { name: "step/uniform", policy: "uniform", workload: STEPS, per_step: true },
    Case { name: "step/pct:3", policy: "pct:3", workload: STEPS, per_step: true },
    Case { name: "step/pos", policy: "pos", workload: STEPS, per_step: true },
    Case { name: "step/surw", policy: "surw", workload: STEPS, per_step: true },
    Case { name: "step/uniform/32-actors", policy: "uniform", workload: MANY, per_step: true },
    Case { name: "step/pct:3/32-actors", policy: "pct:3", workload: MANY, per_step: true },
    Case { name: "tiny-run/uniform", policy: "uniform", workload: TINY, per_step: false },
    Case { name: "tiny-run/portfolio", policy: "portfolio", workload: TINY, per_step: false },
];

/// What runs under callgrind: `runs` runs of a case.
fn make_runs(case: &Case, runs: u64) {
    let spec: PolicySpec = case.policy.parse().expect("the table names policies");
    let (profile, mut engine) = (profile(case.workload), new_engine());
    for seed in 0..runs {
        black_box(run(&mut engine, spec.build(seed, &profile, FaultPlan::Never), case.workload));
    }
}

/// Instructions of this program making `runs` runs of a case; `None` when there is no valgrind.
fn count(case: &Case, runs: u64) -> Option<u64> {
    let this = std::env::current_exe().expect("a running program has a file");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .args(["--runs", &runs.to_string(), case.name])
        .output()
        .ok()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let collected = said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    assert!(output.status.success() && collected.is_some(), "valgrind failed: {said}");
    collected
}

/// Instructions a step or a run of a case takes.
fn measure(case: &Case) -> Option<f64> {
    let (few, many) = if case.per_step { (4, 24) } else { (64, 564) };
    let units = (many - few) * if case.per_step { case.workload.total() } else { 1 };
    Some((count(case, many)? - count(case, few)?) as f64 / units as f64)
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (update, require) = match words[..] {
        ["--runs", runs, name] => {
            let case = CASES.iter().find(|case| case.name == name).expect("called by this program");
            make_runs(case, runs.parse().expect("called by this program"));
            return ExitCode::SUCCESS;
        }
        [] => (false, false),
        ["--update"] => (true, true),
        ["--require"] => (false, true),
        _ => {
            eprintln!("instructions: usage: cargo bench -p sim --bench instructions -- [--update | --require]");
            return ExitCode::from(2);
        }
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions/baseline.txt");
    let baseline = std::fs::read_to_string(&path).unwrap_or_default();
    let known = |name: &str| baseline.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    let (mut written, mut failed) = (String::from("# Instructions, by cargo bench -p sim --bench instructions -- --update\n"), false);
    for case in &CASES {
        let Some(counted) = measure(case) else {
            eprintln!("instructions: NOT CHECKED: valgrind is not installed (apt-get install valgrind)");
            return ExitCode::from(u8::from(require));
        };
        writeln!(written, "{} {counted:.1}", case.name).expect("a string takes all");
        let verdict = match known(case.name).map(|known| (counted / known - 1.0) * 100.0) {
            _ if update => "written".to_owned(),
            None => {
                failed = true;
                "NOT IN THE BASELINE: run with --update".to_owned()
            }
            Some(percent) if percent > TOLERANCE_PERCENT => {
                failed = true;
                format!("{percent:+.1}%: TOO MANY")
            }
            Some(percent) if percent < -TOLERANCE_PERCENT => format!("{percent:+.1}%: fewer; write it down with --update"),
            Some(percent) => format!("{percent:+.1}%"),
        };
        println!("{:<26} {counted:>10.1}  {verdict}", case.name);
    }
    if update && let Err(error) = std::fs::write(&path, written) {
        eprintln!("instructions: {}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    ExitCode::from(u8::from(failed))
}
