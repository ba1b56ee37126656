//! Which fallible calls fail: a plan that is searched as systematically as the schedule.
//!
//! Assumption behind the plans: most error paths are reached by one failure, the rest by a failure that persists when the caller
//! retries, or by a burst (memory is short for a while). So a search runs once with [`FaultPlan::Never`], counts the calls
//! ([`Choices::nr_fallible`](crate::engine::Choices::nr_fallible)), and fails each in turn, with and without `again`.

use crate::engine::ChoiceKind;

/// Which fallible calls of a run fail. Calls are numbered from 0 in the order they are met, allocations and other callees together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FaultPlan {
    /// None.
    #[default]
    Never,
    /// The call with this number.
    Nth(u32),
    /// The call with number `nth` and, with `again`, every later call of the same class.
    NthAndRetry {
        /// Running number of the first call that fails.
        nth: u32,
        /// Whether later calls of its class fail as well.
        again: bool,
    },
    /// `len` calls in a row, whatever their class.
    Burst {
        /// Running number of the first call that fails.
        from: u32,
        /// Number of calls that fail.
        len: u32,
    },
    /// Every call of `class` after the first `skip` ones of that class.
    Class {
        /// The class, as the workload numbers them.
        class: u16,
        /// Calls of the class that succeed first.
        skip: u32,
    },
    /// The call of `class` with this number among those of its class and, with `again`, every later one of the class. Rare classes
    /// get as much attention this way as frequent ones.
    NthOfClass {
        /// The class, as the workload numbers them.
        class: u16,
        /// Calls of the class that succeed first.
        nth: u32,
        /// Whether later calls of the class fail as well.
        again: bool,
    },
    /// Memory is short for a while: of `len` calls in a row each allocation fails with a probability, other callees do not.
    LowMemory {
        /// Running number of the first call of the phase.
        from: u32,
        /// Number of calls that the phase lasts.
        len: u32,
        /// Probability of failing, in 1/1024.
        per_1024: u32,
    },
    /// Each call with a probability.
    Random {
        /// Probability of failing, in 1/1024.
        per_1024: u32,
    },
}

/// A plan at work: remembers what it needs of the calls met.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    plan: FaultPlan,
    /// Class of the call that failed first.
    failed_class: Option<u16>,
    nr_of_class: u32,
}

impl Faults {
    pub(super) fn new(plan: FaultPlan) -> Faults {
        Faults { plan, failed_class: None, nr_of_class: 0 }
    }

    /// The probability with which this call fails, in 1/1024; 1024 and more is certain.
    pub(super) fn per_1024(&mut self, kind: ChoiceKind, nth: u32, class: u16) -> u32 {
        let fails = match self.plan {
            FaultPlan::Never => false,
            FaultPlan::Nth(target) => nth == target,
            FaultPlan::NthAndRetry { nth: target, again } => {
                if nth == target {
                    self.failed_class = Some(class);
                }
                nth == target || again && nth > target && self.failed_class == Some(class)
            }
            FaultPlan::Burst { from, len } => nth >= from && nth - from < len,
            FaultPlan::Class { class: target, skip } => {
                let before = self.nr_of_class;
                self.nr_of_class += u32::from(class == target);
                class == target && before >= skip
            }
            FaultPlan::NthOfClass { class: target, nth: index, again } => {
                let before = self.nr_of_class;
                self.nr_of_class += u32::from(class == target);
                class == target && (before == index || again && before > index)
            }
            FaultPlan::LowMemory { from, len, per_1024 } => {
                let short = kind == ChoiceKind::AllocFails && nth >= from && nth - from < len;
                return if short { per_1024 } else { 0 };
            }
            FaultPlan::Random { per_1024 } => return per_1024,
        };
        if fails { 1024 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of ten calls fail; even ones are allocations of class 1, odd ones callees of class 2.
    fn failing(plan: FaultPlan) -> Vec<u32> {
        let mut faults = Faults::new(plan);
        let mut fails = |nth| match nth % 2 {
            0 => faults.per_1024(ChoiceKind::AllocFails, nth, 1),
            _ => faults.per_1024(ChoiceKind::CalleeFails, nth, 2),
        };
        (0..10).filter(|&nth| fails(nth) >= 1024).collect()
    }

    #[test]
    fn each_plan_fails_the_calls_it_names() {
        assert_eq!(failing(FaultPlan::Never), []);
        assert_eq!(failing(FaultPlan::Nth(3)), [3]);
        assert_eq!(failing(FaultPlan::NthAndRetry { nth: 3, again: false }), [3]);
        assert_eq!(failing(FaultPlan::NthAndRetry { nth: 3, again: true }), [3, 5, 7, 9]);
        assert_eq!(failing(FaultPlan::Burst { from: 4, len: 3 }), [4, 5, 6]);
        assert_eq!(failing(FaultPlan::Class { class: 1, skip: 2 }), [4, 6, 8]);
        assert_eq!(failing(FaultPlan::NthOfClass { class: 2, nth: 1, again: false }), [3]);
        assert_eq!(failing(FaultPlan::NthOfClass { class: 2, nth: 1, again: true }), [3, 5, 7, 9]);
        assert_eq!(failing(FaultPlan::LowMemory { from: 3, len: 4, per_1024: 1024 }), [4, 6], "allocations only");
        assert_eq!(failing(FaultPlan::Random { per_1024: 0 }), []);
    }
}
