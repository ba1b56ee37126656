//! Canaries: every planted bug must be caught by the property it is for, in every sweep. A missed one is a broken oracle.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::canary::{self, Canary};
use crate::defect::Defects;
use crate::report::json::CanariesJson;
use crate::revision::Revision;
use crate::run::{How, RunSpec, VerdictKind, Workspace, run};
use crate::scenario::{self, Settings};

/// What became of one canary.
#[derive(Clone, Debug)]
pub struct Caught {
    /// The canary.
    pub canary: &'static Canary,
    /// Runs until it was caught, from 1; none when it was missed.
    pub after: Option<u64>,
    /// What else was seen, when it was missed: properties by which runs were ended instead, or what went wrong.
    pub instead: Vec<String>,
}

/// Runs all canaries, a worker each at a time. The result is in the order of the list, whatever the number of workers.
pub fn run_all(jobs: usize) -> Vec<Caught> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    crossbeam::scope(|scope| {
        for _ in 0..jobs.clamp(1, canary::ALL.len().max(1)) {
            scope.spawn(|_| {
                let mut workspace = Workspace::new();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(canary) = canary::ALL.get(index) else { break };
                    let caught = hunt(&mut workspace, canary);
                    results.lock().push((index, caught));
                }
            });
        }
    })
    .expect("a worker catches the panics of its runs");
    let mut results = results.into_inner();
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, caught)| caught).collect()
}

/// Seeds 0, 1, 2.. until the canary is caught.
fn hunt(workspace: &mut Workspace, canary: &'static Canary) -> Caught {
    let mut caught = Caught { canary, after: None, instead: Vec::new() };
    let (Some(scenario), Some(revision)) = (scenario::by_name(canary.scenario), Revision::by_name(canary.kernel)) else {
        caught.instead.push("its scenario or kernel does not exist".to_owned());
        return caught;
    };
    for seed in 0..u64::from(canary.runs) {
        let spec = RunSpec {
            scenario,
            outgoing: revision,
            incoming: revision,
            defects: Defects::NONE.with(canary.defect),
            policy: sim::policy::PolicySpec::default(),
            seed,
            fail_nth: None,
            settings: canary.defect.needs().iter().map(|&(key, value)| (key.to_owned(), value)).collect::<Settings>(),
        };
        let outcome = match catch_unwind(AssertUnwindSafe(|| run(workspace, &spec, &How::default()))) {
            Ok(outcome) => outcome,
            Err(panic) => {
                *workspace = Workspace::new();
                caught.instead.push(format!("panic with seed {seed}: {}", super::hunt::message(panic.as_ref())));
                return caught;
            }
        };
        if outcome.verdict.kind != VerdictKind::Violation {
            continue;
        }
        if outcome.verdict.property == canary.defect.oracle() {
            caught.after = Some(seed + 1);
            return caught;
        }
        let other = format!("{}: {}", outcome.verdict.property, outcome.verdict.title);
        if !caught.instead.contains(&other) {
            caught.instead.push(other);
        }
    }
    caught
}

/// The canaries as a JSON object.
pub fn summary(caught: &[Caught]) -> CanariesJson {
    CanariesJson {
        run: caught.len(),
        caught: caught.iter().filter(|one| one.after.is_some()).count(),
        missed: caught.iter().filter(|one| one.after.is_none()).map(|one| one.canary.defect.id()).collect(),
    }
}

/// A line about each missed canary.
pub fn missed(caught: &[Caught]) -> Vec<String> {
    let line = |one: &Caught| {
        let canary = one.canary;
        let instead = if one.instead.is_empty() { "nothing".to_owned() } else { one.instead.join("; ") };
        format!(
            "canary {} was not caught by {} in {} runs of {} ({}); found instead: {instead}",
            canary.defect.id(),
            canary.defect.oracle(),
            canary.runs,
            canary.scenario,
            canary.kernel
        )
    };
    caught.iter().filter(|one| one.after.is_none()).map(line).collect()
}
