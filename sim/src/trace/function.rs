//! Which function each actor is in, as programs say it themselves. For people only: reports and titles name it, nothing else looks at it, and
//! no event tells of a return.

use std::cell::Cell;

use crate::engine::ActorId;

/// The function each actor is in; the empty name where it has not said.
pub(crate) struct Functions(Box<[Cell<&'static str>]>);

impl Default for Functions {
    fn default() -> Self {
        Functions(std::iter::repeat_with(|| Cell::new("")).take(usize::from(u8::MAX) + 1).collect())
    }
}

impl Functions {
    /// The function `actor` is in.
    #[inline]
    pub(crate) fn of(&self, actor: ActorId) -> &'static str {
        self.0[actor.index()].get()
    }

    /// Says that `actor` is in `function` until the guard goes.
    #[inline]
    pub(crate) fn enter(&self, actor: ActorId, function: &'static str) -> InFunction<'_> {
        let place = &self.0[actor.index()];
        InFunction { place, before: place.replace(function) }
    }
}

/// Lasts as long as the program is in the function. Dropping it names the caller again, and does nothing else.
#[must_use = "a program is in its function as long as this lives"]
pub struct InFunction<'a> {
    place: &'a Cell<&'static str>,
    before: &'static str,
}

impl Drop for InFunction<'_> {
    #[inline]
    fn drop(&mut self) {
        self.place.set(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_is_named_again_when_a_function_returns() {
        let functions = Functions::default();
        let (one, other) = (ActorId(1), ActorId(2));
        let _outer = functions.enter(one, "luo_preserve_file");
        {
            let _inner = functions.enter(one, "kho_preserve_folio");
            assert_eq!((functions.of(one), functions.of(other)), ("kho_preserve_folio", ""));
        }
        assert_eq!(functions.of(one), "luo_preserve_file");
    }
}
