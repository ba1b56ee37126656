//! Fault positions in product with schedules: each fallible call of a run fails in turn, in each way there is, under each of a few
//! schedules of small depth.
//!
//! Assumption: an error path that is wrong is wrong whenever it is taken, or needs one more thing: that the retry fails too, that the next
//! calls fail as well, that somebody else goes at the wrong moment, or that the memory freed on the way out is handed to the one it
//! hurts. So a schedule is drawn with at most two delays ([`Delay`](sim::policy::Delay)), and each has one of the ways to place memory
//! ([`sim::alloc::Placement`]). Calls are counted in a run without failures under the same schedule: up to the call that
//! fails both runs are the same, so every one of the calls is met.
//!
//! Which run has which number depends on the selection and the number of schedules alone.

use sim::alloc::Placement;
use sim::policy::PolicySpec;

use super::Selection;
use crate::run::{How, RunSpec, Way, Workspace, run};

/// Stands for a call that no run makes.
const NO_CALL: u32 = u32::MAX;

/// The product for one selection.
#[derive(Clone, Debug)]
pub struct Product {
    schedules: Vec<Schedule>,
}

/// A schedule whose calls fail.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    seed: u64,
    placement: usize,
    /// Fallible calls.
    calls: u32,
    /// Number of its first run.
    first: u64,
}

impl Product {
    /// Counts the fallible calls of `selection` under `nr_schedules` schedules, with the seeds from `seed` on.
    pub fn count(selection: &Selection, nr_schedules: u64, seed: u64) -> Product {
        let mut workspace = Workspace::new();
        let mut first = 0;
        let schedules = (0..nr_schedules).map(|number| {
            let at =
                Schedule { seed: seed.wrapping_add(number), placement: (number % Placement::ALL.len() as u64) as usize, calls: 0, first };
            let calls = run(&mut workspace, &at.spec(selection, NO_CALL, Way::Once), &How::default()).nr_fallible;
            first += u64::from(calls) * Way::ALL.len() as u64;
            Schedule { calls, ..at }
        });
        Product { schedules: schedules.collect() }
    }

    /// Number of schedules.
    pub fn nr_schedules(&self) -> usize {
        self.schedules.len()
    }

    /// Fallible calls of all schedules together.
    pub fn nr_calls(&self) -> u64 {
        self.schedules.iter().map(|schedule| u64::from(schedule.calls)).sum()
    }

    /// Number of runs.
    pub fn nr_runs(&self) -> u64 {
        self.nr_calls() * Way::ALL.len() as u64
    }

    /// The run with this number; beyond the last the last one.
    ///
    /// # Panics
    /// When there are no runs.
    pub fn spec(&self, selection: &Selection, number: u64) -> RunSpec {
        let number = number.min(self.nr_runs() - 1);
        let after = self.schedules.partition_point(|schedule| schedule.first <= number);
        let schedule = self.schedules[after - 1];
        let (way, nth) = ((number - schedule.first) / u64::from(schedule.calls), (number - schedule.first) % u64::from(schedule.calls));
        schedule.spec(selection, nth as u32, Way::ALL[way as usize])
    }
}

impl Schedule {
    fn spec(&self, selection: &Selection, nth: u32, way: Way) -> RunSpec {
        let policy = if selection.policy == PolicySpec::Portfolio { PolicySpec::Delay { budget: 2 } } else { selection.policy };
        let mut spec = RunSpec { policy, fail_nth: Some(nth), ..selection.spec(self.seed) };
        // What the command line says stays.
        let mut set = |key: &str, value: usize| {
            if value != 0 {
                spec.settings.entry(key.to_owned()).or_insert(value as u64);
            }
        };
        set("placement", self.placement);
        set(Way::SETTING, way as usize);
        spec
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::defect::Defects;
    use crate::names;
    use crate::scenario::{self, Settings};

    fn selection() -> Selection {
        let scenario = scenario::by_name("update-with-dma").expect("a scenario");
        let (outgoing, incoming) = names::kernels(scenario.kernel).expect("its kernel");
        let (defects, policy) = (Defects::NONE, PolicySpec::Portfolio);
        Selection { scenario, outgoing, incoming, defects, policy, fail_nth: None, settings: Settings::new(), product: None }
    }

    #[test]
    fn every_call_fails_in_every_way_under_every_schedule_once() {
        let selection = selection();
        let product = Product::count(&selection, 3, 7);
        assert!(product.nr_calls() > 100, "{}", product.nr_calls());
        let all: BTreeSet<_> = (0..product.nr_runs())
            .map(|number| {
                let spec = product.spec(&selection, number);
                (spec.seed, spec.fail_nth.expect("something fails"), Way::of(&spec) as u8)
            })
            .collect();
        assert_eq!(all.len() as u64, product.nr_runs());
        for schedule in &product.schedules {
            let last = (schedule.seed, schedule.calls - 1, Way::LowMemory as u8);
            assert!(all.contains(&last) && all.contains(&(schedule.seed, 0, Way::Once as u8)));
        }
    }

    #[test]
    fn the_call_that_is_to_fail_is_met_and_fails() {
        let selection = selection();
        let product = Product::count(&selection, 2, 0);
        let mut workspace = Workspace::new();
        for number in (0..product.nr_runs()).step_by(37) {
            let spec = product.spec(&selection, number);
            let outcome = run(&mut workspace, &spec, &How::default());
            let (nth, failed) = (spec.fail_nth.expect("something fails"), outcome.counts.injected.values().sum::<u64>());
            assert!(outcome.nr_fallible > nth, "{spec:?}");
            match Way::of(&spec) {
                Way::Once => assert_eq!(failed, 1, "{spec:?}"),
                Way::Again => assert!(failed >= 1, "{spec:?}"),
                Way::Burst => assert!((1..=4).contains(&failed), "{spec:?}"),
                Way::LowMemory => {}
            }
        }
    }

    #[test]
    fn what_the_command_line_sets_stays() {
        let mut selection = selection();
        selection.settings.insert("placement".to_owned(), 4);
        let product = Product::count(&selection, 2, 0);
        for number in [0, product.nr_runs() - 1, u64::MAX] {
            assert_eq!(product.spec(&selection, number).settings["placement"], 4);
        }
    }
}
