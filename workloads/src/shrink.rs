//! Shrinking a run of the whole machine: `sim` leaves parts out, and here is what "fails the same way" means.
//!
//! **The same finding** is the same verdict with the same property and title, decided by the same event in the same function and, for
//! DMA, answered the same way: its causal [`signature`]. Injected failures alone may go: one that the run
//! can do without is no cause, however much the signature of the larger run was made with it.

use sim::shrink::{Budget, Shrunk, shrink};

use crate::report::{cause, history::History, signature};
use crate::run::{How, Outcome, RunSpec, Verdict, VerdictKind, Workspace, run, run_under};
use crate::seed_file::SeedFile;
use crate::token;
use sim::policy::{Policy, Replay};

/// Why a run cannot be shrunk.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ShrinkError {
    /// It does not fail.
    #[error("the run is clean: there is nothing to shrink")]
    Clean,
    /// A bound ended it.
    #[error("the bound `{0}` ended the run: there is no verdict to keep")]
    Bound(String),
    /// The choices do not fit, or what comes of them is not what the file says.
    #[error("{0}")]
    Diverged(String),
    /// Nodes on madsim issue the calls.
    #[error("a hosted run has programs outside the machine, whose course no list of choices holds; next: shrink it without --hosted")]
    Hosted,
}

/// A shrunk run, run once more with its events.
pub struct ShrunkRun {
    /// What the search came to.
    pub shrunk: Shrunk,
    /// The run it came from.
    pub from: Outcome,
    /// The run as it is now.
    pub outcome: Outcome,
    /// Causal signature before and after: they differ by injected failures that are gone, or not at all.
    pub signatures: (String, String),
}

impl ShrunkRun {
    /// The file of the shrunk run, with the story of the one it came from. `source` is what that one is called where it has no token.
    pub fn file(&self, origin: &SeedFile, source: &str) -> SeedFile {
        let shrunk_from = match origin.shrunk_from.is_empty() {
            false => origin.shrunk_from.clone(),
            true => token::encode(&origin.spec).unwrap_or_else(|| source.to_owned()),
        };
        SeedFile {
            shrunk_from,
            first_seen: origin.first_seen.clone(),
            fixed_by: origin.fixed_by.clone(),
            story: origin.story.clone(),
            ..SeedFile::of(&origin.spec, &self.outcome)
        }
    }
}

/// What makes a finding this one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    verdict: (VerdictKind, String, String),
    injected: Vec<String>,
    decisive: Vec<String>,
}

impl Identity {
    /// Of a run whose events were kept.
    pub fn of(outcome: &Outcome) -> Identity {
        let history = History::new(outcome);
        let cause = cause::analyse(&history);
        let Verdict { kind, property, title, .. } = &outcome.verdict;
        Identity {
            verdict: (*kind, property.clone(), title.clone()),
            injected: signature::injected(&history, &cause),
            decisive: signature::decisive(&history, &cause),
        }
    }

    /// Makes a run of at most `steps_max` steps; true for the same finding, with the same injected failures or some of them.
    pub fn is_found(&self, workspace: &mut Workspace, spec: &RunSpec, policy: Box<dyn Policy>, steps_max: u64) -> bool {
        let outcome = run_under(workspace, spec, policy, &How::default(), steps_max);
        let Verdict { kind, property, title, .. } = &outcome.verdict;
        let (wanted, wanted_property, wanted_title) = &self.verdict;
        // Events cost time: they are kept only where they decide.
        (kind, property, title) == (wanted, wanted_property, wanted_title) && {
            let other = Identity::of(&replayed(workspace, spec, &outcome));
            self.decisive == other.decisive && other.injected.iter().all(|failure| self.injected.contains(failure))
        }
    }
}

/// Shrinks what `file` names.
///
/// # Errors
/// When it does not fail, or not as the file says.
pub fn shrink_run(workspace: &mut Workspace, file: &SeedFile, budget: Budget) -> Result<ShrunkRun, ShrinkError> {
    let spec = &file.spec;
    if spec.is_hosted() {
        return Err(ShrinkError::Hosted);
    }
    let from = run(workspace, spec, &How { keep_log: true, replay: file.choices.as_deref(), ..How::default() });
    check(file, &from)?;
    let wanted = Identity::of(&from);
    let shrunk = shrink(&from.record, budget, |policy, steps_max| wanted.is_found(workspace, spec, policy, steps_max));
    let shrunk = shrunk.ok_or_else(|| ShrinkError::Diverged("the run came out differently when it was made again".to_owned()))?;
    let outcome = run(workspace, spec, &How { keep_log: true, replay: Some(&shrunk.list), ..How::default() });
    if outcome.divergence.is_some() || !same(&outcome.verdict, &from.verdict) {
        return Err(ShrinkError::Diverged("the shrunk run came out differently when it was replayed".to_owned()));
    }
    let signatures = (signed(&from), signed(&outcome));
    Ok(ShrunkRun { shrunk, from, outcome, signatures })
}

fn check(file: &SeedFile, outcome: &Outcome) -> Result<(), ShrinkError> {
    if let Some(divergence) = &outcome.divergence {
        return Err(ShrinkError::Diverged(format!("replay diverged at {}", crate::report::json::divergence(divergence))));
    }
    let verdict = &outcome.verdict;
    match verdict.kind {
        _ if file.expect.is_some_and(|expect| expect != verdict.kind) => {
            Err(ShrinkError::Diverged(format!("verdict {}, the file says otherwise: fixed, or another run", verdict.kind.name())))
        }
        VerdictKind::Clean => Err(ShrinkError::Clean),
        VerdictKind::Bound => Err(ShrinkError::Bound(verdict.property.clone())),
        VerdictKind::SafeStop | VerdictKind::Violation => Ok(()),
    }
}

fn same(a: &Verdict, b: &Verdict) -> bool {
    (a.kind, &a.property, &a.title) == (b.kind, &b.property, &b.title)
}

/// The same run with its events.
fn replayed(workspace: &mut Workspace, spec: &RunSpec, outcome: &Outcome) -> Outcome {
    let how = How { keep_log: true, ..How::default() };
    run_under(workspace, spec, Box::new(Replay::new(outcome.record.clone())), &how, outcome.steps)
}

fn signed(outcome: &Outcome) -> String {
    let history = History::new(outcome);
    signature::signature(&history, &cause::analyse(&history))
}
