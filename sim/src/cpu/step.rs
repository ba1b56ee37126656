//! The leaves beneath every program: an announced step, and the end of a program that does nothing any more.
//!
//! What a program awaits most is written by hand here and in the neighbouring files: the future of an `async fn` is moved as a whole
//! into the one that awaits it, and every level is one more call in each step.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Cpu;
use crate::engine::{Object, Op, OpKind};
use crate::memory_model::Barrier;

/// Future of [`Cpu::step`].
#[must_use = "a step is taken when it is awaited"]
pub struct Step<'a> {
    cpu: &'a Cpu,
    op: Op,
    stage: Stage<'a>,
}

enum Stage<'a> {
    Fresh,
    /// The barrier before the step is under way.
    Ordering(Barrier<'a>),
    Announced,
}

impl<'a> Step<'a> {
    #[inline]
    pub(super) fn new(cpu: &'a Cpu, op: Op) -> Step<'a> {
        Step { cpu, op, stage: Stage::Fresh }
    }

    #[inline]
    fn announce(&mut self) -> Poll<()> {
        self.cpu.machine.core.announce(self.op);
        self.stage = Stage::Announced;
        Poll::Pending
    }

    /// What goes before a step under a memory model: a full barrier, except before a pause.
    #[cold]
    fn order(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.stage {
                Stage::Fresh if self.op.is(OpKind::Yield) => break,
                Stage::Fresh => self.stage = Stage::Ordering(self.cpu.smp_mb()),
                Stage::Ordering(barrier) => match Pin::new(barrier).poll(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) => break,
                },
                Stage::Announced => {
                    if !self.op.is(OpKind::Yield) {
                        self.cpu.order_after();
                    }
                    return Poll::Ready(());
                }
            }
        }
        if self.cpu.machine.is_weak() {
            self.op = self.op.over_all_memory();
        }
        self.announce()
    }
}

impl Future for Step<'_> {
    type Output = ();

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.cpu.machine.overlay.is_some() {
            return this.order(context);
        }
        match this.stage {
            Stage::Announced => Poll::Ready(()),
            _ => this.announce(),
        }
    }
}

/// Future of [`Cpu::dead`].
#[must_use = "a program goes on unless this is awaited"]
pub struct Dead<'a> {
    cpu: &'a Cpu,
}

impl<'a> Dead<'a> {
    pub(super) fn new(cpu: &'a Cpu) -> Dead<'a> {
        Dead { cpu }
    }
}

impl Future for Dead<'_> {
    type Output = Infallible;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Infallible> {
        self.cpu.machine.core.wait_for(Object::nothing());
        Poll::Pending
    }
}
