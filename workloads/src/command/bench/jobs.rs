//! How runs a second grow with workers, and what memory each takes.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::Args;
use crate::command::CommandError;
use crate::command::console::Console;
use crate::run::{How, Workspace, run};
use crate::sweep::Selection;
use crate::sweep::clock::{Stopwatch, rate};

#[derive(Serialize)]
struct JobsJson {
    r#type: &'static str,
    jobs: usize,
    runs: u64,
    per_s: f64,
    /// Runs a second, where one worker is 1.
    ratio: f64,
    /// Most memory the process has ever had, after these workers; none where the system does not tell.
    peak_bytes: Option<u64>,
}

pub(super) fn command(args: &Args, jobs_max: usize, selection: &Selection, console: &mut Console) -> Result<(), CommandError> {
    let counts: Vec<usize> = std::iter::successors(Some(1), |jobs| Some(jobs * 2)).take_while(|jobs| *jobs <= jobs_max).collect();
    let mut one = None;
    for &jobs in &counts {
        let next = AtomicU64::new(0);
        let runs = AtomicU64::new(0);
        let budget = args.time_budget / counts.len() as u32;
        let watch = Stopwatch::start();
        crossbeam::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|_| {
                    let mut workspace = Workspace::new();
                    while watch.elapsed() < budget {
                        let seed = args.seed.seed.wrapping_add(next.fetch_add(1, Ordering::Relaxed));
                        run(&mut workspace, &selection.spec(seed), &How::default());
                        runs.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        })
        .expect("a run does not panic");
        let runs = runs.into_inner();
        let per_s = rate(runs, watch.elapsed());
        let ratio = per_s / *one.get_or_insert(per_s);
        let peak_bytes = peak_bytes();
        let peak = peak_bytes.map_or_else(|| "unknown".to_owned(), |bytes| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)));
        console.say(&format!("{jobs} jobs: {per_s} runs a second, {ratio:.2} times one; peak memory {peak}"))?;
        console.json(&JobsJson { r#type: "jobs", jobs, runs, per_s, ratio, peak_bytes })?;
    }
    Ok(())
}

/// The most memory this process has had at once, as Linux counts it (`VmHWM` of proc(5)).
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(kib.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
