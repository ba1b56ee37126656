//! One run: from a spec to an outcome. The same spec gives the same outcome on every host and thread.

mod env;
mod faults;
mod judges;
mod outcome;
mod profile;
mod spec;
mod verdict;
mod workspace;

pub use env::Env;
pub use faults::Way;
pub use judges::Judges;
pub use outcome::{ActorName, Counts, Failure, Found, Outcome, Region, Verdict, VerdictKind};
pub use spec::RunSpec;
pub use workspace::Workspace;

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use iommu_model::addr::{Pa, Pfn};
use iommu_model::timing::{Geometry, Params};
use iommu_model::vtd::{Capabilities, Unit};
use sim::alloc::Placement;
use sim::device::Fabric;
use sim::engine::{ActorId, Burst, Engine, Recorded};
use sim::machine::{Machine, MachineConfig};
use sim::memory::{FrameState, Memory};
use sim::memory_model::MemoryModel;
use sim::oracle::RaceRules;
use sim::policy::{FaultPlan, Policy, PolicySpec, Replay};
use sim::trace::UnitId;

use crate::host::Mailbox;
use crate::kernel::boot;
use crate::kernel::kexec::{self, group_of};
use crate::oracle;
use crate::scenario::Plan;
use crate::tag;
use crate::topology::Topology;

/// Steps after which a run is ended by the bound `steps`, unless `--set steps=N` says otherwise.
pub const STEPS_MAX: u64 = 2_000_000;
/// Steps between two looks at the outside world: also the burst under madsim.
const BURST: u64 = 1024;

/// How to run, beside what.
#[derive(Clone, Copy, Default)]
pub struct How<'a> {
    /// Keep the events, for reports.
    pub keep_log: bool,
    /// Repeat this list instead of asking the spec's policy.
    pub replay: Option<&'a [Recorded]>,
    /// After the list ends or diverges go on with this policy, seeded by the spec.
    pub then: Option<PolicySpec>,
    /// Take a snapshot of the decoded state at this mark.
    pub snapshot_at: Option<crate::inspect::At>,
    /// Who judges: all oracles, unless what they cost is measured.
    pub judges: Judges,
}

/// Runs `spec`: under the host level if it says so. There the nodes' own course belongs to the run, so it is drawn again from policy
/// and seed, whatever choices were recorded.
pub fn run(workspace: &mut Workspace, spec: &RunSpec, how: &How<'_>) -> Outcome {
    if spec.is_hosted() {
        return crate::host::run_keeping(spec, how.keep_log).outcome;
    }
    let mut build = |policy: PolicySpec| {
        let profile = workspace.profile(spec);
        policy.build(spec.seed, &profile.schedule, profile.faults(spec))
    };
    let policy: Box<dyn Policy> = match (how.replay, how.then) {
        (Some(list), Some(then)) => Box::new(Replay::new(list.to_vec()).then(build(then))),
        (Some(list), None) => Box::new(Replay::new(list.to_vec())),
        (None, _) => build(spec.policy),
    };
    run_under(workspace, spec, policy, how, u64::MAX)
}

/// Runs `spec` with its own failures, under a search of the caller's: `policy` makes the policy from what fails.
pub fn run_searching(workspace: &mut Workspace, spec: &RunSpec, policy: impl FnOnce(FaultPlan) -> Box<dyn Policy>) -> Outcome {
    let faults = workspace.profile(spec).faults(spec);
    run_under(workspace, spec, policy(faults), &How::default(), u64::MAX)
}

/// Runs `spec` under a policy of the caller's, for at most `steps_max` steps: a run that is cut ends in the bound `steps`.
pub fn run_under(workspace: &mut Workspace, spec: &RunSpec, policy: Box<dyn Policy>, how: &How<'_>, steps_max: u64) -> Outcome {
    let mut run = Run::start(workspace, spec, policy, how);
    run.steps_max = run.steps_max.min(steps_max);
    while run.burst(BURST) {}
    run.end(workspace)
}

/// A run under way: can be driven in bursts from outside.
pub struct Run {
    spec: RunSpec,
    machine: Rc<Machine>,
    engine: Engine,
    counts: Rc<RefCell<Counts>>,
    ended: Option<Burst>,
    steps_max: u64,
    snapshots: Rc<RefCell<Vec<(String, String)>>>,
    regions: Vec<Region>,
}

impl Run {
    /// Builds the machine, boots nothing yet.
    pub fn start(workspace: &mut Workspace, spec: &RunSpec, policy: Box<dyn Policy>, how: &How<'_>) -> Run {
        Run::build(workspace, spec, policy, how, None)
    }

    /// As [`Run::start`] under the spec's own policy, with calls coming from `mailbox` instead of the scenario's programs.
    pub fn start_hosted(workspace: &mut Workspace, spec: &RunSpec, how: &How<'_>, mailbox: Rc<Mailbox>) -> Run {
        let profile = workspace.profile(spec);
        let policy = spec.policy.build(spec.seed, &profile.schedule, profile.faults(spec));
        Run::build(workspace, spec, policy, how, Some(mailbox))
    }

    fn build(workspace: &mut Workspace, spec: &RunSpec, policy: Box<dyn Policy>, how: &How<'_>, host: Option<Rc<Mailbox>>) -> Run {
        let mut engine = workspace.take_engine(policy);
        let core = engine.core().clone();
        let plan = Plan::draw(&core, &spec.scenario.weights, &spec.settings);
        let topo = plan.topo.clone();
        let mut memory = workspace.take_memory(topo.nr_frames as usize);
        describe_memory(&mut memory, &topo);
        let regions = regions_of(&topo);
        let fabric = build_fabric(&topo);
        let counts = Rc::new(RefCell::new(Counts::default()));
        let snapshots = Rc::new(RefCell::new(Vec::new()));
        let model = config_of(spec, how).model;
        let mut oracles =
            oracle::all_in(&topo, &counts, oracle::Context { incompatible: spec.outgoing != spec.incoming, slots: plan.slots, model });
        oracles.retain(|oracle| how.judges.has(oracle.name()));
        if let Some(at) = how.snapshot_at {
            oracles.push(Box::new(crate::inspect::Snapshotter::new(at, snapshots.clone())));
        }
        let machine = Machine::with_config(core, memory, fabric, oracles, config_of(spec, how));
        if host.is_some() {
            engine.set_driven_from_outside();
        }
        Fabric::start(&machine, &engine);
        let env = Rc::new(Env::new(spec, plan, host));
        let data = Pa(u64::from(topo.image.start) << 12);
        let first = env.clone();
        machine.spawn_cpu(&engine, "swapper/0", group_of(0), move |cpu| boot::start_kernel(cpu, first, 0, data, None));
        let steps_max = spec.settings.get("steps").copied().unwrap_or(STEPS_MAX);
        Run { spec: spec.clone(), machine, engine, counts, ended: None, steps_max, snapshots, regions }
    }

    /// Performs at most `steps` steps; false when the run is over.
    pub fn burst(&mut self, steps: u64) -> bool {
        if self.ended.is_some() {
            return false;
        }
        let left = self.steps_max.saturating_sub(self.machine.core.steps());
        match self.engine.run(steps.min(left)) {
            Burst::Spent if left > steps => true,
            burst => {
                self.ended = Some(burst);
                false
            }
        }
    }

    /// Performs a step; who did and what it has cost, in cycles of that component. `None` when the run is over.
    pub fn step(&mut self) -> Option<(ActorId, u32)> {
        let before = self.machine.core.steps();
        // A burst may pass without a step where somebody has to be woken first.
        while self.machine.core.steps() == before {
            if !self.burst(1) && self.machine.core.steps() == before {
                return None;
            }
        }
        self.engine.last_step()
    }

    /// The machine.
    pub fn machine(&self) -> &Rc<Machine> {
        &self.machine
    }

    /// Judges the end and gives the buffers back.
    pub fn end(self, workspace: &mut Workspace) -> Outcome {
        let Run { spec, machine, engine, counts, ended, snapshots, regions, .. } = self;
        let ended = ended.unwrap_or(Burst::Spent);
        if ended == Burst::Finished {
            machine.finish();
        }
        let verdict = verdict::of(&spec, &machine, &engine, ended, &counts.borrow());
        let found = {
            let judge = machine.judge();
            judge.finding().map(|finding| Found { by: finding.actor, nr_events: judge.nr_events_to_finding() })
        };
        let actors = engine
            .actors()
            .map(|(_, name, group)| ActorName { name: name.to_owned(), era: (group != sim::device::HARDWARE).then_some(group.0) })
            .collect();
        let cycles = engine.cycles();
        workspace.give_engine(engine);
        let (trace_hash, log, functions) = {
            let mut judge = machine.judge_mut();
            let (log, functions) = judge.take_log();
            (judge.hash(), log, functions)
        };
        let (record, nr_fallible, divergence) = {
            let mut choices = machine.core.choices().borrow_mut();
            (choices.take_record(), choices.nr_fallible(), choices.divergence())
        };
        let steps = machine.core.steps();
        let counts = counts.borrow().clone();
        let snapshots = snapshots.borrow().clone();
        if let Ok(machine) = Rc::try_unwrap(machine) {
            workspace.give_memory(machine.into_memory());
        }
        let assumptions = verdict::assumptions(&spec, &counts);
        Outcome {
            regions,
            found,
            verdict,
            steps,
            cycles,
            trace_hash,
            record,
            nr_fallible,
            counts,
            log,
            functions,
            actors,
            divergence,
            snapshots,
            assumptions,
        }
    }
}

/// What the settings say about the machine beside its topology.
fn config_of(spec: &RunSpec, how: &How<'_>) -> MachineConfig {
    let setting = |key: &str| spec.settings.get(key).copied().unwrap_or(0);
    MachineConfig {
        keep_log: how.keep_log,
        model: MemoryModel::ALL[setting("memory-model").min(2) as usize],
        placement: Placement::ALL[setting("placement").min(4) as usize],
        races: match setting("races") {
            0 => None,
            1 => Some(RaceRules::PlainStoresAtomic),
            _ => Some(RaceRules::Strict),
        },
        goes_on: false,
    }
}

/// Generations whose images reports can name; more updates in a row than that are not drawn.
const GENERATIONS_MAX: u8 = 8;

/// What the allocator never has: firmware, and the images of all generations a run can come to.
fn regions_of(topo: &Topology) -> Vec<Region> {
    let region = |frames: Range<u32>, tag, era| Region { frames: Pfn(u64::from(frames.start))..Pfn(u64::from(frames.end)), tag, era };
    let image = |era| region(kexec::image_of(topo, era), tag::KERNEL_IMAGE, Some(era));
    let mut regions = vec![region(topo.firmware.clone(), tag::FIRMWARE, None)];
    regions.extend((0..=GENERATIONS_MAX).map(image));
    regions
}

/// Writes the memory map into the shadow.
fn describe_memory(memory: &mut Memory, topo: &Topology) {
    for (index, frame) in memory.frames.iter_mut().enumerate() {
        let pfn = index as u32;
        frame.state = FrameState::Free;
        frame.scratch = topo.scratch.contains(&pfn);
        if topo.holes.iter().any(|hole| hole.contains(&pfn)) {
            frame.state = FrameState::Absent;
        } else if topo.firmware.contains(&pfn) {
            frame.state = FrameState::Reserved;
            frame.tag = tag::FIRMWARE;
        } else if topo.image.contains(&pfn) {
            frame.state = FrameState::Reserved;
            frame.tag = tag::KERNEL_IMAGE;
        }
    }
    for pfn in topo.image.clone().chain(topo.firmware.clone()) {
        memory.ram.fill(Pa(u64::from(pfn) << 12), 4096, 0, true);
    }
}

/// Builds the units and devices.
fn build_fabric(topo: &Topology) -> Fabric {
    let mut fabric = Fabric::new();
    for unit in &topo.units {
        let capabilities = Capabilities {
            root_switch_invalidates: unit.root_switch_invalidates,
            page_selective: unit.page_selective,
            superpage_2m: unit.superpage_2m,
            coherent: unit.coherent,
            ..Capabilities::default()
        };
        let ways = u32::from(unit.psc_entries);
        let params = Params {
            iotlb: Geometry::fully_associative(u32::from(unit.iotlb_entries)),
            psc: [Geometry::fully_associative(ways); 4],
            ..Params::default()
        };
        fabric.add_unit(Unit::new(capabilities, params));
    }
    for device in &topo.devices {
        fabric.add_device(device.bdf, UnitId(device.unit));
    }
    fabric
}
