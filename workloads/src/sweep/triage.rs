//! Triage: runs that violated the same property with the same title are run again with their events kept, and told apart by
//! causal signature. One finding is left for each signature: the one with the lowest run number.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Selection;
use super::hunt::{Catch, message};
use super::tally::Name;
use crate::report::{cause, history::History, signature};
use crate::run::{How, Outcome, RunSpec, Workspace, run};

/// A finding of a sweep.
pub struct Finding {
    /// Property and title.
    pub name: Name,
    /// Causal signature.
    pub signature: String,
    /// The run with the lowest number.
    pub spec: RunSpec,
    /// Its number, from 0.
    pub run: u64,
    /// What it came to, with its events.
    pub outcome: Outcome,
    /// Runs with this signature among those looked at.
    pub runs: u64,
}

/// What triage found out.
#[derive(Default)]
pub struct Triage {
    /// The findings, by number of their run.
    pub findings: Vec<Finding>,
    /// Runs that did not come out the same when they were run again: the simulator is broken. Seed and what differs.
    pub unstable: Vec<(u64, String)>,
    /// Runs with a known property and title that were not looked at again.
    pub not_looked_at: u64,
}

/// Tells the suspects of a hunt apart. `seed` is the seed of run 0.
pub fn triage(selection: &Selection, catch: &Catch, seed: u64) -> Triage {
    let mut workspace = Workspace::new();
    let mut result = Triage::default();
    let mut groups: BTreeMap<(Name, String), Finding> = BTreeMap::new();
    for (name, suspects) in &catch.tally.suspects {
        result.not_looked_at += suspects.count - suspects.lowest.len() as u64;
        for (&number, &hash) in &suspects.lowest {
            let spec = selection.run(seed, number);
            let how = How { keep_log: true, ..How::default() };
            let outcome = match catch_unwind(AssertUnwindSafe(|| run(&mut workspace, &spec, &how))) {
                Ok(outcome) => outcome,
                Err(panic) => {
                    workspace = Workspace::new();
                    result.unstable.push((spec.seed, format!("panicked when it was run again: {}", message(panic.as_ref()))));
                    continue;
                }
            };
            let again = (&outcome.verdict.property, &outcome.verdict.title);
            if outcome.trace_hash != hash || again != (&name.0, &name.1) {
                let what = format!("trace hash {hash:016x} became {:016x} when it was run again", outcome.trace_hash);
                result.unstable.push((spec.seed, what));
                continue;
            }
            let history = History::new(&outcome);
            let signature = signature::signature(&history, &cause::analyse(&history));
            let finding = Finding { name: name.clone(), signature: signature.clone(), spec, run: number, outcome, runs: 0 };
            groups.entry((name.clone(), signature)).or_insert(finding).runs += 1;
        }
    }
    result.findings = groups.into_values().collect();
    result.findings.sort_by(|a, b| (a.run, &a.name, &a.signature).cmp(&(b.run, &b.name, &b.signature)));
    result
}
