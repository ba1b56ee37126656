//! The window of a finding on the whole machine: what [`sim::window`] computes, with the costs that the machine charges.
//!
//! Costs are those of the machine's own clocks: CPU steps by [`CpuCosts`](sim::machine::CpuCosts) in cycles of a 3 GHz core, steps of
//! remapping units and devices by [`Timing`]. All of them are knobs, orders of magnitude and no measurements of a particular part; so
//! are the stalls that follow from them. What the model leaves out (caches of CPUs, interrupts, how long a VM-exit takes) is not in them.

use iommu_model::timing::Timing;
use sim::engine::Recorded;
use sim::policy::Replay;
use sim::window::{Window, window};

use crate::run::{ActorName, How, Outcome, Run, RunSpec, Workspace, run};
use crate::shrink::Identity;

/// Cycles of a CPU in a microsecond: what [`CpuCosts`](sim::machine::CpuCosts) counts in.
pub const CPU_MHZ: u64 = 3000;

/// A window, and the run with its stalls with its events kept.
pub struct WindowOf {
    /// What was computed and tried.
    pub window: Window,
    /// The run in which nothing but time and these stalls decides who goes next; the run found where that did not fail.
    pub outcome: Outcome,
}

/// The window of the run that `list` recorded; `None` when it cannot be made again.
pub fn window_of(workspace: &mut Workspace, spec: &RunSpec, list: &[Recorded]) -> Option<WindowOf> {
    let found = run(workspace, spec, &How { keep_log: true, replay: Some(list), ..How::default() });
    let identity = Identity::of(&found);
    let costs = costs(workspace, spec, list, &found.actors);
    // Where time decides, what the run found has done in its steps takes no more of them, but others go on meanwhile.
    let steps_max = found.steps.saturating_mul(4) + 1000;
    let window = window(list, &costs, |policy| identity.is_found(workspace, spec, policy, steps_max))?;
    let outcome = run(workspace, spec, &How { keep_log: true, replay: Some(&window.list), ..How::default() });
    Some(WindowOf { window, outcome })
}

/// What each step of a recorded run has cost, in picoseconds.
fn costs(workspace: &mut Workspace, spec: &RunSpec, list: &[Recorded], actors: &[ActorName]) -> Vec<u64> {
    let unit_mhz = u64::from(Timing::default().clock_mhz);
    let mut run = Run::start(workspace, spec, Box::new(Replay::new(list.to_vec())), &How::default());
    let mut costs = Vec::new();
    while let Some((actor, cycles)) = run.step() {
        let is_hardware = actors.get(actor.index()).is_some_and(|actor| actor.era.is_none());
        costs.push(u64::from(cycles) * 1_000_000 / if is_hardware { unit_mhz } else { CPU_MHZ });
    }
    run.end(workspace);
    costs
}
