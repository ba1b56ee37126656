//! Buffers a worker keeps between runs.

use std::rc::Rc;

use sim::engine::{Core, Engine};
use sim::memory::Memory;
use sim::policy::Policy;

use super::RunSpec;
use super::profile::{RunProfile, measure};

/// Buffers and profiles of one worker thread. Nothing in it changes the outcome of a run.
#[derive(Default)]
pub struct Workspace {
    /// At most one of each size.
    memories: Vec<Memory>,
    engine: Option<Engine>,
    profiles: Vec<(String, Rc<RunProfile>)>,
}

impl Workspace {
    /// An empty workspace.
    pub fn new() -> Workspace {
        Workspace::default()
    }

    pub(super) fn take_memory(&mut self, nr_frames: usize) -> Memory {
        match self.memories.iter().position(|memory| memory.frames.len() == nr_frames) {
            Some(at) => {
                let mut memory = self.memories.swap_remove(at);
                memory.reset();
                memory
            }
            None => Memory::new(nr_frames),
        }
    }

    pub(super) fn give_memory(&mut self, memory: Memory) {
        self.memories.push(memory);
    }

    /// An engine without actors, whose choices `policy` answers.
    pub(super) fn take_engine(&mut self, policy: Box<dyn Policy>) -> Engine {
        match self.engine.take() {
            Some(mut engine) => {
                engine.restart(policy);
                engine
            }
            None => Engine::new(Rc::new(Core::new(policy))),
        }
    }

    /// Keeps the engine for the next run; its actors are gone then.
    pub(super) fn give_engine(&mut self, mut engine: Engine) {
        engine.clear();
        self.engine = Some(engine);
    }

    /// The profile that runs like `spec` schedule by: measured once, in a run that the spec's scenario, kernels, defects and
    /// settings pin down.
    pub(super) fn profile(&mut self, spec: &RunSpec) -> Rc<RunProfile> {
        let key = RunProfile::key(spec);
        if let Some((_, profile)) = self.profiles.iter().find(|(known, _)| *known == key) {
            return profile.clone();
        }
        let profile = Rc::new(measure(self, spec));
        self.profiles.push((key, profile.clone()));
        profile
    }
}
