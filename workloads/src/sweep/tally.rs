//! What a hunt counts. Tallies of workers add up in any order to the same sum.

use std::collections::BTreeMap;

use crate::mark::Mark;
use crate::run::{Counts, Outcome, VerdictKind};

/// Most runs with one property and title that are looked at again, those with the lowest numbers.
pub const SUSPECTS_MAX: usize = 32;

/// Property and title: what a finding is called.
pub type Name = (String, String);

/// Runs that violated one property with one title.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Suspects {
    /// How many.
    pub count: u64,
    /// Number of the run and its trace hash, for the lowest numbers.
    pub lowest: BTreeMap<u64, u64>,
}

impl Suspects {
    fn add(&mut self, run: u64, trace_hash: u64) {
        self.lowest.insert(run, trace_hash);
        if self.lowest.len() > SUSPECTS_MAX {
            self.lowest.pop_last();
        }
    }
}

/// Runs that ended in one listed finding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listed {
    /// How many.
    pub count: u64,
    /// The lowest number of such a run.
    pub first: u64,
}

impl Listed {
    const NONE: Listed = Listed { count: 0, first: u64::MAX };

    fn add(&mut self, other: Listed) {
        self.count += other.count;
        self.first = self.first.min(other.first);
    }
}

/// Sums over runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tally {
    /// Runs.
    pub runs: u64,
    /// Steps of all runs.
    pub steps: u64,
    /// Cycles of all runs.
    pub cycles: u64,
    /// Clean runs.
    pub clean: u64,
    /// Runs in which something was made to fail.
    pub failed: u64,
    /// Safe stops by title.
    pub stops: BTreeMap<String, u64>,
    /// Bounds by title.
    pub bounds: BTreeMap<String, u64>,
    /// Violations that are listed findings, by id.
    pub listed: BTreeMap<&'static str, Listed>,
    /// Other violations.
    pub suspects: BTreeMap<Name, Suspects>,
    /// Events counted in the runs.
    pub counts: Counts,
    /// Runs that hit each mark, indexed by `Mark as usize`.
    pub runs_with_mark: Vec<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        Tally {
            runs: 0,
            steps: 0,
            cycles: 0,
            clean: 0,
            failed: 0,
            stops: BTreeMap::new(),
            bounds: BTreeMap::new(),
            listed: BTreeMap::new(),
            suspects: BTreeMap::new(),
            counts: Counts::default(),
            runs_with_mark: vec![0; Mark::ALL.len()],
        }
    }
}

impl Tally {
    /// Counts the run with this number.
    pub fn count(&mut self, run: u64, outcome: &Outcome) {
        self.runs += 1;
        self.steps += outcome.steps;
        self.cycles += outcome.cycles;
        self.counts.add(&outcome.counts);
        self.failed += u64::from(!outcome.counts.injected.is_empty());
        for (runs, hits) in self.runs_with_mark.iter_mut().zip(&outcome.counts.marks) {
            *runs += u64::from(*hits > 0);
        }
        let verdict = &outcome.verdict;
        match verdict.kind {
            VerdictKind::Clean => self.clean += 1,
            VerdictKind::SafeStop => increment(&mut self.stops, &verdict.title),
            VerdictKind::Bound => increment(&mut self.bounds, &verdict.title),
            VerdictKind::Violation if verdict.listed.is_some() => {
                let listed = self.listed.entry(verdict.listed.unwrap_or_default()).or_insert(Listed::NONE);
                listed.add(Listed { count: 1, first: run });
            }
            VerdictKind::Violation => {
                let name = (verdict.property.clone(), verdict.title.clone());
                let suspects = self.suspects.entry(name).or_default();
                suspects.count += 1;
                suspects.add(run, outcome.trace_hash);
            }
        }
    }

    /// Adds what others counted.
    pub fn add(&mut self, other: &Tally) {
        self.runs += other.runs;
        self.steps += other.steps;
        self.cycles += other.cycles;
        self.clean += other.clean;
        self.failed += other.failed;
        self.counts.add(&other.counts);
        for (mine, theirs) in self.runs_with_mark.iter_mut().zip(&other.runs_with_mark) {
            *mine += theirs;
        }
        for (mine, theirs) in [(&mut self.stops, &other.stops), (&mut self.bounds, &other.bounds)] {
            for (title, count) in theirs {
                *mine.entry(title.clone()).or_default() += count;
            }
        }
        for (id, theirs) in &other.listed {
            self.listed.entry(id).or_insert(Listed::NONE).add(*theirs);
        }
        for (name, theirs) in &other.suspects {
            let mine = self.suspects.entry(name.clone()).or_default();
            mine.count += theirs.count;
            for (&run, &hash) in &theirs.lowest {
                mine.add(run, hash);
            }
        }
    }

    /// Runs by verdict.
    pub fn verdicts(&self) -> BTreeMap<&'static str, u64> {
        BTreeMap::from([
            (VerdictKind::Clean.name(), self.clean),
            (VerdictKind::SafeStop.name(), self.stops.values().sum()),
            (
                VerdictKind::Violation.name(),
                self.suspects.values().map(|suspects| suspects.count).sum::<u64>()
                    + self.listed.values().map(|listed| listed.count).sum::<u64>(),
            ),
            (VerdictKind::Bound.name(), self.bounds.values().sum()),
        ])
    }

    /// Runs that hit a mark.
    pub fn reached(&self, mark: Mark) -> u64 {
        self.runs_with_mark[mark as usize]
    }
}

fn increment(map: &mut BTreeMap<String, u64>, title: &str) {
    match map.get_mut(title) {
        Some(count) => *count += 1,
        None => {
            map.insert(title.to_owned(), 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_suspects_stay_in_whatever_order_they_come() {
        let runs: Vec<u64> = (0..200).map(|n| n * 77 % 200).collect();
        let (mut forwards, mut backwards) = (Suspects::default(), Suspects::default());
        runs.iter().for_each(|&run| forwards.add(run, run));
        runs.iter().rev().for_each(|&run| backwards.add(run, run));
        assert_eq!(forwards, backwards);
        assert_eq!(forwards.lowest.keys().copied().collect::<Vec<_>>(), (0..SUSPECTS_MAX as u64).collect::<Vec<_>>());
    }
}
