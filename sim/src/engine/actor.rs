//! Actors: what the engine resumes. The engine knows no futures; [`FutureActor`] adapts them.

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
    /// 0 for done, 1 for blocked, else the operation's second word plus 2.
    rest: u64,
}

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
        Resumed { object: op.object(), rest: op.rest() + 2 }
    }
    /// The actor waits until somebody wakes `object`.
    #[inline]
    pub const fn blocked(object: Object) -> Resumed {
        Resumed { object, rest: 1 }
    }
    /// The actor has ended.
    #[inline]
    pub const fn done() -> Resumed {
        Resumed { object: Object::nothing(), rest: 0 }
    }
    /// What happened.
    #[inline]
    pub const fn next(self) -> Next {
        match self.rest {
            0 => Next::Done,
            1 => Next::Blocked(self.object),
            rest => Next::Announced(Op::from_words(self.object, rest - 2)),
        }
    }
    pub(super) const fn words(self) -> (u64, u64) {
        (self.object.0, self.rest)
    }
    pub(super) const fn from_words(object: u64, rest: u64) -> Resumed {
        Resumed { object: Object(object), rest }
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
            // A future that pends without having announced waits on something that is not ours: it can never go on.
            Poll::Pending => this.core.take_resumed(),
        }
    }
}
