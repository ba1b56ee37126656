//! Actors: what the engine resumes. The engine knows no futures; [`FutureActor`] adapts them.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::core::Core;
use super::op::{Object, Op};

/// What resuming an actor led to, in two words: it is returned in registers, since a copy through memory of words that were stored one
/// by one a moment ago stalls the processor for longer than the rest of a step takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resumed {
    object: Object,
    /// [`DONE`], [`SILENT`] or [`BLOCKED`], else the operation's second word plus [`ANNOUNCED`].
    rest: u64,
}

const DONE: u64 = 0;
/// It pended without having said anything: what stands in `object` is from before.
const SILENT: u64 = 1;
const BLOCKED: u64 = 2;
const ANNOUNCED: u64 = 3;

/// [`Resumed`], taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// It announced its next operation and waits to be picked.
    Announced(Op),
    /// It waits until somebody wakes the object.
    Blocked(Object),
    /// It has ended.
    Done,
}

impl Resumed {
    /// The actor announced `op` and waits to be picked.
    #[inline]
    pub const fn announced(op: Op) -> Resumed {
        Resumed { object: op.object(), rest: op.rest() + ANNOUNCED }
    }
    /// The actor waits until somebody wakes `object`.
    #[inline]
    pub const fn blocked(object: Object) -> Resumed {
        Resumed { object, rest: BLOCKED }
    }
    /// The actor has ended.
    #[inline]
    pub const fn done() -> Resumed {
        Resumed { object: Object::nothing(), rest: DONE }
    }
    /// What happened.
    #[inline]
    pub const fn next(self) -> Next {
        match self.rest {
            ANNOUNCED.. => Next::Announced(Op::from_words(self.object, self.rest - ANNOUNCED)),
            BLOCKED => Next::Blocked(self.object),
            // It waits on something that is not ours: it can never go on.
            SILENT => Next::Blocked(Object::nothing()),
            DONE => Next::Done,
        }
    }
}

/// What the actor being resumed has said last: the two words of a [`Resumed`].
pub(super) struct Said {
    object: Cell<Object>,
    rest: Cell<u64>,
}

impl Said {
    /// Nothing has been said.
    pub(super) const fn nothing() -> Said {
        Said { object: Cell::new(Object::nothing()), rest: Cell::new(SILENT) }
    }
    #[inline]
    pub(super) fn say(&self, resumed: Resumed) {
        self.object.set(resumed.object);
        self.rest.set(resumed.rest);
    }
    #[inline]
    pub(super) fn take(&self) -> Resumed {
        Resumed { object: self.object.get(), rest: self.rest.replace(SILENT) }
    }
}

/// A program the engine drives step by step.
pub trait Actor {
    /// Performs the announced operation, if any, and runs on to the next announcement.
    fn resume(self: Pin<&mut Self>) -> Resumed;
}

pin_project_lite::pin_project! {
    /// An `async` program as an actor. The program lies in the actor itself: one allocation for both.
    pub struct FutureActor<F> {
        core: Rc<Core>,
        #[pin]
        future: F,
    }
}

impl<F: Future<Output = ()>> FutureActor<F> {
    /// Wraps `future`, whose awaits must all come from `core`.
    #[inline(always)]
    pub fn new(core: Rc<Core>, future: F) -> FutureActor<F> {
        FutureActor { core, future }
    }
}

impl<F: Future<Output = ()>> Actor for FutureActor<F> {
    fn resume(self: Pin<&mut Self>) -> Resumed {
        let this = self.project();
        let mut context = Context::from_waker(Waker::noop());
        match this.future.poll(&mut context) {
            Poll::Ready(()) => Resumed::done(),
            Poll::Pending => this.core.take_said(),
        }
    }
}
