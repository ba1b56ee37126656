//! A table indexed by actor that grows as actors appear, without allocation for the usual number of actors.

use smallvec::SmallVec;

use crate::engine::ActorId;

/// One `T` per actor; absent entries read as the default.
#[derive(Clone, Debug, Default)]
pub(super) struct PerActor<T>(SmallVec<[T; 16]>);

impl<T: Copy + Default> PerActor<T> {
    /// Entries for the first actors.
    pub(super) fn from_slice(entries: &[T]) -> PerActor<T> {
        PerActor(SmallVec::from_slice(entries))
    }

    /// The entry of `actor`.
    #[inline]
    pub(super) fn get(&self, actor: ActorId) -> T {
        self.0.get(actor.index()).copied().unwrap_or_default()
    }

    /// The entry of `actor`, to be changed.
    #[inline]
    pub(super) fn at(&mut self, actor: ActorId) -> &mut T {
        let index = actor.index();
        if index >= self.0.len() {
            self.0.resize(index + 1, T::default());
        }
        &mut self.0[index]
    }
}
