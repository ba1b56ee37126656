//! What a sweep may claim: `clean` only when everything it requires has happened in some run.
//!
//! Required are the scenario's marks, and DMA in every phase up to the furthest of kexec, adoption and FINISH among them. FINISH and
//! hitless replacement are asked only of kernels that have them (`reclaim`); where guests unmap, some DMA must have faulted (under the host level
//! the programs are others, and unmap nothing). A zero
//! among these fails the claim. Devices are off until the first kernel has booted: phase "cold-boot" is counted, never asked for.

use std::collections::BTreeMap;

use super::tally::Tally;
use super::{Selection, hunt::Catch};
use crate::mark::Mark;
use crate::report::json::SummaryJson;
use crate::report::words;
use crate::run::Counts;
use crate::token;
use crate::verb::Phase;
use iommu_model::spec::vtd::fault::FaultReason;

/// Marks a clean sweep of this selection must have hit.
pub fn required_marks(selection: &Selection) -> Vec<Mark> {
    let second_phase = |mark: Mark| matches!(mark, Mark::FinishReached | Mark::DomainReplaced);
    selection.scenario.requires.iter().copied().filter(|&mark| selection.incoming.reclaim || !second_phase(mark)).collect()
}

/// Phases in which a clean sweep of this selection must have seen DMA complete.
pub fn required_phases(selection: &Selection) -> Vec<Phase> {
    let marks = required_marks(selection);
    let last = [(Mark::FinishReached, Phase::Incoming), (Mark::AdoptionDone, Phase::Adopted), (Mark::KexecReached, Phase::EarlyBoot)];
    let last = last.into_iter().find(|(mark, _)| marks.contains(mark)).map(|(_, phase)| phase);
    Phase::ALL.into_iter().filter(|&phase| phase > Phase::ColdBoot && last.is_some_and(|last| phase <= last)).collect()
}

/// What is missing for a clean claim.
pub fn missing(selection: &Selection, tally: &Tally) -> Vec<String> {
    let marks = required_marks(selection).into_iter().filter(|&mark| tally.reached(mark) == 0);
    let mut missing: Vec<String> = marks.map(|mark| format!("mark {} was never hit", mark.name())).collect();
    let phases = required_phases(selection).into_iter().filter(|&phase| tally.counts.dma[phase as usize] == 0);
    missing.extend(phases.map(|phase| format!("no DMA completed in phase {}", words::phase_name(phase as u64))));
    let unmaps = selection.scenario.weights.unmap > 0 && !selection.spec(0).is_hosted();
    if unmaps && tally.counts.dma_faults.is_empty() {
        missing.push("no DMA fault of any kind, although guests use what was unmapped".to_owned());
    }
    missing
}

/// The summary of one selection's hunt.
///
/// `seed` is the seed of run 0.
pub fn summary(selection: &Selection, catch: &Catch, findings: u64, seed: u64) -> SummaryJson {
    let mut summary = total(&catch.tally, catch, findings);
    let again = |run: u64| {
        let spec = selection.run(seed, run);
        token::encode(&spec).unwrap_or_else(|| format!("--seed {:#x}", spec.seed))
    };
    summary.listed_first = catch.tally.listed.iter().map(|(&id, listed)| (id, again(listed.first))).collect();
    summary.r#type = "scenario";
    summary.scenario = Some(selection.scenario.name);
    summary.kernel = Some(selection.spec(0).kernel());
    summary.not_clean = missing(selection, &catch.tally);
    summary.clean = findings == 0 && summary.not_clean.is_empty();
    summary
}

/// The summary of everything, nothing required.
pub fn total(tally: &Tally, catch: &Catch, findings: u64) -> SummaryJson {
    let Counts { dma, dma_faults, injected, .. } = &tally.counts;
    let mark = |&mark: &Mark| (mark.name(), tally.reached(mark));
    SummaryJson {
        r#type: "summary",
        scenario: None,
        kernel: None,
        runs: tally.runs,
        distinct: catch.distinct.count(),
        distinct_is_lower_bound: catch.distinct.is_full(),
        findings,
        steps: tally.steps,
        runs_per_s: super::clock::rate(tally.runs, catch.time),
        steps_per_s: super::clock::rate(tally.steps, catch.time),
        canaries: None,
        marks_never_hit: Mark::ALL.iter().filter(|&&mark| tally.reached(mark) == 0).map(|mark| mark.name()).collect(),
        verdicts: tally.verdicts(),
        stops: tally.stops.clone(),
        bounds: tally.bounds.clone(),
        listed: tally.listed.iter().map(|(&id, listed)| (id, listed.count)).collect(),
        listed_first: BTreeMap::new(),
        runs_with_mark: Mark::ALL.iter().map(mark).filter(|(_, runs)| *runs > 0).collect(),
        dma: Phase::ALL.into_iter().map(|phase| (words::phase_name(phase as u64), dma[phase as usize])).collect(),
        dma_faults: dma_faults.iter().map(|(reason, count)| (FaultReason(*reason).to_string(), *count)).collect(),
        injected: injected.iter().map(|(failure, count)| (failure.name(), *count)).collect(),
        clean: findings == 0,
        not_clean: Vec::new(),
        not_claimed: not_claimed(tally),
    }
}

/// What a claim quotes and no run reached: kexec, adoption, FINISH, a phase without DMA, no fault of any kind. Where the scenario requires
/// it, the claim fails ([`missing`]); elsewhere (a kernel without FINISH, a kernel that stops for safety) it does not reach so far.
fn not_claimed(tally: &Tally) -> Vec<String> {
    let marks = [(Mark::KexecReached, "kexec"), (Mark::AdoptionDone, "adoption"), (Mark::FinishReached, "FINISH")];
    let mut zeros: Vec<String> = marks.iter().filter(|(mark, _)| tally.reached(*mark) == 0).map(|(_, name)| (*name).to_owned()).collect();
    let silent = Phase::ALL.into_iter().filter(|&phase| phase > Phase::ColdBoot && tally.counts.dma[phase as usize] == 0);
    let silent: Vec<&str> = silent.map(|phase| words::phase_name(phase as u64)).collect();
    if !silent.is_empty() {
        zeros.push(format!("DMA in {}", silent.join(" and ")));
    }
    if tally.counts.dma_faults.is_empty() {
        zeros.push("DMA faults".to_owned());
    }
    zeros
}

/// The summary for people, one fact a line.
pub fn lines(summary: &SummaryJson) -> Vec<String> {
    let name = summary
        .scenario
        .map_or("all scenarios".to_owned(), |name| format!("{name} on {}", summary.kernel.as_deref().unwrap_or("its kernel")));
    let at_least = if summary.distinct_is_lower_bound { "at least " } else { "" };
    let mut lines = vec![format!(
        "{name}: {} runs, {at_least}{} distinct, {} steps ({} runs/s, {} steps/s)",
        summary.runs, summary.distinct, summary.steps, summary.runs_per_s, summary.steps_per_s
    )];
    let list = |pairs: &mut dyn Iterator<Item = (String, u64)>| {
        let parts: Vec<String> = pairs.map(|(name, count)| format!("{name} {count}")).collect();
        if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
    };
    lines.push(format!("  verdicts: {}", list(&mut summary.verdicts.iter().map(|(name, count)| ((*name).to_owned(), *count)))));
    for (id, count) in &summary.listed {
        let first = summary.listed_first.get(id).map_or(String::new(), |first| format!("; the first: {first}"));
        lines.push(format!("    {count} x listed finding {id} (workloads/docs/findings.md){first}"));
    }
    for (title, count) in summary.stops.iter().chain(&summary.bounds) {
        lines.push(format!("    {count} x {title}"));
    }
    let reached = |mark: Mark| summary.runs_with_mark.get(mark.name()).copied().unwrap_or(0);
    lines.push(format!(
        "  reached: kexec {}, adoption {}, FINISH {}",
        reached(Mark::KexecReached),
        reached(Mark::AdoptionDone),
        reached(Mark::FinishReached)
    ));
    let phases = Phase::ALL.into_iter().map(|phase| words::phase_name(phase as u64));
    lines.push(format!("  DMA: {}", list(&mut phases.map(|phase| (phase.to_owned(), summary.dma.get(phase).copied().unwrap_or(0))))));
    lines.push(format!("  DMA faults: {}", list(&mut summary.dma_faults.iter().map(|(name, count)| (name.clone(), *count)))));
    lines.push(format!("  injected failures: {}", list(&mut summary.injected.iter().map(|(name, count)| (name.clone(), *count)))));
    if !summary.marks_never_hit.is_empty() {
        lines.push(format!("  marks never hit: {}", summary.marks_never_hit.join(", ")));
    }
    if !summary.not_claimed.is_empty() {
        lines.push(format!("  never reached, so nothing is claimed of it: {}", summary.not_claimed.join(", ")));
    }
    lines.extend(summary.not_clean.iter().map(|what| format!("  not clean: {what}")));
    lines
}
