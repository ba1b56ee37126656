//! Actors: what the engine resumes. The engine knows no futures; [`FutureActor`] adapts them.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::core::Core;
use super::op::{Object, Op};

/// What resuming an actor led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resumed {
    /// It announced its next operation and waits to be picked.
    Announced(Op),
    /// It waits until somebody wakes the object.
    Blocked(Object),
    /// It has ended.
    Done,
}

/// A program the engine drives step by step.
pub trait Actor {
    /// Performs the announced operation, if any, and runs on to the next announcement.
    fn resume(&mut self) -> Resumed;
}

/// An `async` program as an actor.
pub struct FutureActor<F> {
    core: Rc<Core>,
    future: Pin<Box<F>>,
}

impl<F: Future<Output = ()>> FutureActor<F> {
    /// Wraps `future`, whose awaits must all come from `core`.
    pub fn new(core: Rc<Core>, future: F) -> FutureActor<F> {
        FutureActor { core, future: Box::pin(future) }
    }
}

impl<F: Future<Output = ()>> Actor for FutureActor<F> {
    fn resume(&mut self) -> Resumed {
        let mut context = Context::from_waker(Waker::noop());
        match self.future.as_mut().poll(&mut context) {
            Poll::Ready(()) => Resumed::Done,
            // A future that pends without having announced waits on something that is not ours: it can never go on.
            Poll::Pending => self.core.take_resumed().unwrap_or(Resumed::Blocked(Object::nothing())),
        }
    }
}
