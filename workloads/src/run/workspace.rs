//! Buffers a worker keeps between runs.

use sim::memory::Memory;

use super::RunSpec;
use super::profile::{RunProfile, measure};

/// Buffers and profiles of one worker thread. Nothing in it changes the outcome of a run.
#[derive(Default)]
pub struct Workspace {
    /// At most one of each size.
    memories: Vec<Memory>,
    profiles: Vec<(String, std::rc::Rc<RunProfile>)>,
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

    /// The profile that runs like `spec` schedule by: measured once, in a run that the spec's scenario, kernels, defects and
    /// settings pin down.
    pub(super) fn profile(&mut self, spec: &RunSpec) -> std::rc::Rc<RunProfile> {
        let key = RunProfile::key(spec);
        if let Some((_, profile)) = self.profiles.iter().find(|(known, _)| *known == key) {
            return profile.clone();
        }
        let profile = std::rc::Rc::new(measure(self, spec));
        self.profiles.push((key, profile.clone()));
        profile
    }
}
