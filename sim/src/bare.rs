//! The shortest way to simulated memory: CPUs over one page of shared words. No devices, no kernel.
//!
//! For lock-free code under the memory models, for litmus tests, and for the race detector. Protocols over plain values are
//! shorter in [`shared`](crate::shared).
//!
//! ```
//! use sim::bare::Bare;
//! use sim::machine::MachineConfig;
//! use sim::memory_model::MemoryModel;
//! use sim::policy::Dpor;
//! use std::cell::Cell;
//! use std::rc::Rc;
//!
//! // Store buffering: can both CPUs miss the other's store?
//! let both_missed = |model| {
//!     let mut missed = false;
//!     let config = MachineConfig { model, ..MachineConfig::default() };
//!     let explored = Bare::explore(&mut Dpor::new(), config, |bare| {
//!         let seen = Rc::new(Cell::new([9u64; 2]));
//!         for me in 0..2 {
//!             let seen = seen.clone();
//!             bare.spawn("cpu", move |cpu| async move {
//!                 cpu.write_once(Bare::word::<u64>(me), 1).await;
//!                 let other = cpu.read_once(Bare::word::<u64>(1 - me)).await;
//!                 let mut now = seen.get();
//!                 now[me as usize] = other;
//!                 seen.set(now);
//!             });
//!         }
//!         seen
//!     }, |_, seen| missed |= seen.get() == [0, 0]);
//!     assert!(explored.complete);
//!     missed
//! };
//! assert!(!both_missed(MemoryModel::Sc));
//! assert!(both_missed(MemoryModel::Tso));
//! ```

use std::rc::Rc;

use iommu_model::addr::Pa;

use crate::cpu::Cpu;
use crate::device::Fabric;
use crate::engine::{ActorId, Burst, Core, Engine, Group, Recorded};
use crate::machine::{Machine, MachineConfig};
use crate::memory::{FRAME_BYTES, FrameState, Memory, Ptr};
use crate::memory_model::LINE_BYTES;
use crate::oracle::Finding;
use crate::policy::{Explorer, Policy};

/// Frames: one of shared words, the others free.
const FRAMES: usize = 16;

/// Runs after which [`Bare::explore`] gives up.
const RUNS_MAX: u64 = 1_000_000;

/// Steps of each of its runs.
const STEPS_MAX: u64 = 10_000;

/// A machine of CPUs and RAM, and its engine.
pub struct Bare {
    machine: Rc<Machine>,
    engine: Engine,
}

/// How a run of a [`Bare`] machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BareOutcome {
    /// Why the engine stopped; [`Burst::Spent`] means the bound on steps was hit: no verdict.
    pub burst: Burst,
    /// The first finding: a race, a misused lock, an access to freed memory.
    pub finding: Option<Finding>,
    /// Steps performed.
    pub steps: u64,
    /// The choices made, for replay.
    pub record: Vec<Recorded>,
}

impl BareOutcome {
    /// True when something was found or the programs wait for each other.
    pub fn is_bug(&self) -> bool {
        self.finding.is_some() || self.burst == Burst::Deadlock
    }
}

/// What an exhaustive search of a [`Bare`] machine did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BareExplored {
    /// Runs made to their end.
    pub runs: u64,
    /// Runs begun and cut because they repeated another one's order.
    pub redundant: u64,
    /// Runs that showed a bug.
    pub bugs: u64,
    /// True when nothing is left to run and no bound was hit.
    pub complete: bool,
}

impl Bare {
    /// A machine whose choices are answered by `policy`. The shared words are cleared.
    pub fn new(policy: Box<dyn Policy>, config: MachineConfig) -> Bare {
        let core = Rc::new(Core::new(policy));
        let mut memory = Memory::new(FRAMES);
        memory.frames.iter_mut().for_each(|frame| frame.state = FrameState::Free);
        // Nobody can point to address 0, and the words are no allocator's.
        memory.frames[0].state = FrameState::Reserved;
        memory.frames[1].state = FrameState::Reserved;
        memory.ram.fill(Pa(FRAME_BYTES), FRAME_BYTES, 0, true);
        let machine = Machine::with_config(core.clone(), memory, Fabric::new(), Vec::new(), config);
        machine.rebuild_free_lists();
        Bare { machine, engine: Engine::new(core) }
    }

    /// The shared word with this number, in a cache line of its own.
    ///
    /// # Panics
    /// When there are no so many.
    pub fn word<T>(number: u64) -> Ptr<T> {
        assert!(number < FRAME_BYTES / LINE_BYTES, "there are {} shared words", FRAME_BYTES / LINE_BYTES);
        Ptr::from_pa(Pa(FRAME_BYTES + number * LINE_BYTES))
    }

    /// Adds a CPU with its program.
    pub fn spawn<F: Future<Output = ()> + 'static>(&self, name: &str, program: impl FnOnce(Cpu) -> F) -> ActorId {
        self.machine.spawn_cpu(&self.engine, name, Group(0), program)
    }

    /// The machine.
    pub fn machine(&self) -> &Rc<Machine> {
        &self.machine
    }

    /// What a shared word holds when the run is over.
    pub fn final_word(&self, number: u64) -> u64 {
        self.machine.memory().ram.load(Bare::word::<u64>(number).pa(), 8)
    }

    /// Runs to the end, or for `steps_max` steps.
    pub fn run(&mut self, steps_max: u64) -> BareOutcome {
        self.run_until(steps_max, steps_max, || false)
    }

    fn run_until(&mut self, steps_max: u64, burst_steps: u64, stop: impl Fn() -> bool) -> BareOutcome {
        let core = self.engine.core().clone();
        let mut burst = Burst::Spent;
        while burst == Burst::Spent && core.steps() < steps_max && !stop() {
            burst = self.engine.run(burst_steps.min(steps_max - core.steps()));
        }
        if burst == Burst::Finished {
            self.machine.finish();
        }
        let finding = self.machine.judge().finding().cloned();
        let record = core.choices().borrow_mut().take_record();
        BareOutcome { burst, finding, steps: core.steps(), record }
    }

    /// Makes every run of the programs that `setup` adds, as `explorer` understands it, and shows each with what `setup` returned.
    pub fn explore<S>(
        explorer: &mut impl Explorer,
        config: MachineConfig,
        setup: impl Fn(&Bare) -> S,
        mut look: impl FnMut(&Bare, S),
    ) -> BareExplored {
        let mut explored = BareExplored::default();
        let mut bounded = false;
        while explored.runs + explored.redundant < RUNS_MAX {
            let Some(policy) = explorer.next_policy() else {
                explored.complete = !bounded;
                break;
            };
            let config = MachineConfig { goes_on: explorer.needs_whole_runs(), ..config };
            let mut bare = Bare::new(policy, config);
            let state = setup(&bare);
            let outcome = bare.run_until(STEPS_MAX, 8, || explorer.is_redundant());
            if explorer.is_redundant() {
                explored.redundant += 1;
                continue;
            }
            explored.runs += 1;
            explored.bugs += u64::from(outcome.is_bug());
            bounded |= outcome.burst == Burst::Spent || outcome.burst == Burst::Halted && explorer.needs_whole_runs();
            look(&bare, state);
        }
        explored
    }
}
