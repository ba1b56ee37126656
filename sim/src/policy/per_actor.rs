//! A table indexed by actor, with a place for every actor a run may have: a look-up is a load.

use crate::engine::ActorId;

/// Every value of an [`ActorId`].
const ACTORS: usize = u8::MAX as usize + 1;

/// One `T` per actor, the default at first.
#[derive(Clone, Debug)]
pub(super) struct PerActor<T>([T; ACTORS]);

impl<T: Copy + Default> Default for PerActor<T> {
    fn default() -> PerActor<T> {
        PerActor([T::default(); ACTORS])
    }
}

impl<T: Copy + Default> PerActor<T> {
    /// Entries for the first actors.
    pub(super) fn from_slice(entries: &[T]) -> PerActor<T> {
        let mut table = PerActor::default();
        table.0[..entries.len()].copy_from_slice(entries);
        table
    }

    /// The entry of `actor`.
    #[inline]
    pub(super) fn get(&self, actor: ActorId) -> T {
        self.0[actor.index()]
    }

    /// The entry of `actor`, to be changed.
    #[inline]
    pub(super) fn at(&mut self, actor: ActorId) -> &mut T {
        &mut self.0[actor.index()]
    }
}
