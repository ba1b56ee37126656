//! The lines other programs rely on. More fields may follow; none goes away within a format version.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::run::{Outcome, RunSpec};
use crate::token;

/// Version of the lines.
pub const FORMAT_VERSION: u32 = 1;

/// Any line: the version comes first.
#[derive(Serialize)]
struct Line<T: Serialize> {
    format_version: u32,
    #[serde(flatten)]
    body: T,
}

/// One line of JSON, without line break.
pub fn line(body: &impl Serialize) -> String {
    serde_json::to_string(&Line { format_version: FORMAT_VERSION, body }).expect("plain data has a JSON form")
}

/// What identifies a run.
#[derive(Clone, Debug, Serialize)]
pub struct RunJson {
    /// Its token, when one can carry it.
    pub token: Option<String>,
    /// Its scenario.
    pub scenario: &'static str,
    /// Its kernel, or `outgoing:incoming`.
    pub kernel: String,
    /// Its planted defects.
    pub defects: Vec<&'static str>,
    /// Its policy.
    pub policy: String,
    /// Its seed, in hex: JSON numbers are too small.
    pub seed: String,
}

impl RunJson {
    /// What identifies `spec`.
    pub fn of(spec: &RunSpec) -> RunJson {
        RunJson {
            token: token::encode(spec),
            scenario: spec.scenario.name,
            kernel: spec.kernel(),
            defects: spec.defects.iter().map(|defect| defect.id()).collect(),
            policy: spec.policy.to_string(),
            seed: format!("{:#x}", spec.seed),
        }
    }
}

/// What a run or replay came to.
#[derive(Clone, Debug, Serialize)]
pub struct VerdictJson {
    /// `verdict`.
    pub r#type: &'static str,
    /// `clean`, `safe-stop`, `violation`, `bound`.
    pub verdict: &'static str,
    /// Property violated, or name of the bound.
    pub property: String,
    /// Title.
    pub title: String,
    /// Details, one line each.
    pub details: Vec<String>,
    /// Id of the listed finding it is; see findings.md.
    pub listed: Option<&'static str>,
    /// What identifies the run.
    #[serde(flatten)]
    pub run: RunJson,
    /// Steps.
    pub steps: u64,
    /// Cycles of the furthest actor.
    pub cycles: u64,
    /// Hash of the event stream, 16 hex digits.
    pub trace_hash: String,
    /// Fallible calls met.
    pub fallible_calls: u32,
    /// Where a seed file was written.
    pub seed_file: Option<String>,
    /// Where a replay diverged.
    pub diverged: Option<String>,
}

impl VerdictJson {
    /// The line of a run.
    pub fn of(spec: &RunSpec, outcome: &Outcome, seed_file: Option<String>) -> VerdictJson {
        VerdictJson {
            r#type: "verdict",
            verdict: outcome.verdict.kind.name(),
            property: outcome.verdict.property.clone(),
            title: outcome.verdict.title.clone(),
            details: outcome.verdict.details.clone(),
            listed: outcome.verdict.listed,
            run: RunJson::of(spec),
            steps: outcome.steps,
            cycles: outcome.cycles,
            trace_hash: format!("{:016x}", outcome.trace_hash),
            fallible_calls: outcome.nr_fallible,
            seed_file,
            diverged: outcome.divergence.as_ref().map(divergence),
        }
    }
}

/// Where a replay left its list, in one line.
pub fn divergence(divergence: &sim::policy::Divergence) -> String {
    format!(
        "choice {} at step {}: the list says {}, the run offers {}",
        divergence.position, divergence.step, divergence.expected, divergence.offered
    )
}

/// A finding of a sweep.
#[derive(Clone, Debug, Serialize)]
pub struct FindingJson {
    /// `finding`.
    pub r#type: &'static str,
    /// Property violated.
    pub property: String,
    /// Title.
    pub title: String,
    /// Causal signature.
    pub signature: String,
    /// What identifies the run of the lowest seed.
    #[serde(flatten)]
    pub run: RunJson,
    /// Where its seed file was written.
    pub seed_file: Option<String>,
    /// Where the shrunk run was written.
    pub shrunk_file: Option<String>,
    /// Runs with this property and title that were looked at and have this signature.
    pub runs: u64,
    /// Number of the first of them in the sweep, from 1.
    pub first_run: u64,
    /// Steps.
    pub steps: u64,
    /// Hash of the event stream.
    pub trace_hash: String,
    /// True when a fresh process saw the same.
    pub confirmed: bool,
}

/// A run that violated something not listed, as it is met: kept when the sweep is cut short before it tells findings apart.
#[derive(Clone, Debug, Serialize)]
pub struct SuspectJson {
    /// `suspect`.
    pub r#type: &'static str,
    /// Property violated.
    pub property: String,
    /// Title.
    pub title: String,
    /// What identifies the run.
    #[serde(flatten)]
    pub run: RunJson,
    /// Parameters changed; with the other fields enough for `lurch run` where there is no token.
    pub settings: BTreeMap<String, u64>,
    /// Number of the run in the sweep, from 1.
    pub number: u64,
    /// Hash of the event stream.
    pub trace_hash: String,
}

impl SuspectJson {
    /// The line of the run with this number, from 0.
    pub fn of(spec: &RunSpec, number: u64, outcome: &Outcome) -> SuspectJson {
        SuspectJson {
            r#type: "suspect",
            property: outcome.verdict.property.clone(),
            title: outcome.verdict.title.clone(),
            run: RunJson::of(spec),
            settings: spec.settings.iter().map(|(key, &value)| (key.clone(), value)).collect(),
            number: number + 1,
            trace_hash: format!("{:016x}", outcome.trace_hash),
        }
    }
}

/// Canaries of a sweep or of the doctor.
#[derive(Clone, Debug, Serialize)]
pub struct CanariesJson {
    /// How many were run.
    pub run: usize,
    /// How many were caught.
    pub caught: usize,
    /// Ids of those that were not.
    pub missed: Vec<&'static str>,
}

/// What a sweep counted: of one scenario (`scenario`), or in all (`summary`).
#[derive(Clone, Debug, Serialize)]
pub struct SummaryJson {
    /// `scenario` or `summary`.
    pub r#type: &'static str,
    /// The scenario; none in the summary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scenario: Option<&'static str>,
    /// Its kernel; none in the summary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Runs.
    pub runs: u64,
    /// Distinct trace hashes.
    pub distinct: u64,
    /// True when there may be more than were counted.
    pub distinct_is_lower_bound: bool,
    /// Findings.
    pub findings: u64,
    /// Steps of all runs.
    pub steps: u64,
    /// Runs a second, of the wall clock.
    pub runs_per_s: f64,
    /// Steps a second, of the wall clock.
    pub steps_per_s: f64,
    /// Canaries; none for a single scenario.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canaries: Option<CanariesJson>,
    /// Marks that no run hit.
    pub marks_never_hit: Vec<&'static str>,
    /// Runs by verdict.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// Safe stops by title.
    pub stops: BTreeMap<String, u64>,
    /// Bounds by title.
    pub bounds: BTreeMap<String, u64>,
    /// Runs that ended in a listed finding, by its id; see findings.md.
    pub listed: BTreeMap<&'static str, u64>,
    /// Of each of them the first run: its token, or its seed; of a single scenario.
    pub listed_first: BTreeMap<&'static str, String>,
    /// Runs that hit each mark.
    pub runs_with_mark: BTreeMap<&'static str, u64>,
    /// DMA requests completed, by phase.
    pub dma: BTreeMap<&'static str, u64>,
    /// DMA faults by reason.
    pub dma_faults: BTreeMap<String, u64>,
    /// Injected failures by kind.
    pub injected: BTreeMap<String, u64>,
    /// True when nothing was violated beyond what `listed` counts, and nothing required is missing.
    pub clean: bool,
    /// Why not, beside findings.
    pub not_clean: Vec<String>,
    /// What no run reached although nothing required it: of this the sweep claims nothing.
    pub not_claimed: Vec<String>,
}
