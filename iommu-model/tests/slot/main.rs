//! The slot automaton: for each rule of each architecture a program that keeps it and one that does not; and whether the model
//! itself ever acts on a word that was cleaned away.

mod amd;
mod riscv;
mod smmu;
mod vtd;
mod watch;

use iommu_model::slot::{Checker, Event, Rules, Violation};

/// Shows the events to the checker, up to the first that breaks a rule.
fn run<R: Rules>(checker: &mut Checker<R>, events: &[Event<R::Command>]) -> Result<(), Violation<R::Need>> {
    events.iter().try_for_each(|event| checker.step(event))
}
