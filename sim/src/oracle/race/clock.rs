//! Vector clocks.

use smallvec::SmallVec;

use crate::engine::ActorId;

/// For each actor how much of it is known: an absent place is 0. Clocks grow to the number of actors and then allocate no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Clock(SmallVec<[u32; 16]>);

impl Clock {
    pub(super) fn of(&self, actor: ActorId) -> u32 {
        self.0.get(actor.index()).copied().unwrap_or(0)
    }
    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|epoch| *epoch == 0)
    }
    pub(super) fn tick(&mut self, actor: ActorId) {
        if self.0.len() <= actor.index() {
            self.0.resize(actor.index() + 1, 0);
        }
        self.0[actor.index()] += 1;
    }
    pub(super) fn join(&mut self, other: &Clock) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine = (*mine).max(*theirs);
        }
    }
    /// Becomes equal to `other`, keeping the buffer.
    pub(super) fn copy(&mut self, other: &Clock) {
        self.0.clear();
        self.0.extend_from_slice(&other.0);
    }
}
