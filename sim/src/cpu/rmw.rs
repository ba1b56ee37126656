//! Atomic read-modify-writes.

use std::pin::Pin;
use std::task::{Context, Poll};

use iommu_model::addr::Pa;

use super::{Cpu, Step};
use crate::engine::{Object, Op, OpKind};
use crate::memory::{Bad, Ptr, Scalar};
use crate::trace::Flavor;

/// Future of [`Cpu::rmw`].
#[must_use = "nothing happens unless it is awaited"]
pub struct Rmw<'a, T, F> {
    cpu: &'a Cpu,
    at: Ptr<T>,
    change: Option<F>,
    stage: Stage<'a>,
}

enum Stage<'a> {
    Fresh,
    Stepping(Step<'a>),
    /// It was bad: the program has ended.
    Dead,
}

impl<'a, T: Scalar, F: FnOnce(T) -> Option<T>> Rmw<'a, T, F> {
    #[inline]
    pub(super) fn new(cpu: &'a Cpu, at: Ptr<T>, change: F) -> Rmw<'a, T, F> {
        Rmw { cpu, at, change: Some(change), stage: Stage::Fresh }
    }

    #[inline]
    fn perform(&mut self, shared: bool) -> Poll<T> {
        let (machine, va) = (&self.cpu.machine, self.at.value());
        machine.core.charge(machine.costs.atomic);
        let old = match machine.perform_load(va, T::BYTES, Flavor::Atomic, true) {
            Ok(old) => T::from_bits(old),
            Err(bad) => return self.die(false, bad),
        };
        let change = self.change.take().expect("it is performed once");
        if let Some(new) = change(old) {
            match machine.perform_store(va, T::BYTES, new.to_bits(), Flavor::Atomic, self.cpu.id()) {
                Ok(_) if shared => machine.wake_word(Pa(self.at.pa().0 & !7)),
                Ok(_) => {}
                Err(bad) => return self.die(true, bad),
            }
        }
        Poll::Ready(old)
    }

    #[cold]
    fn die(&mut self, store: bool, bad: Bad) -> Poll<T> {
        self.cpu.oops(self.at.value(), T::BYTES, store, bad);
        self.stage = Stage::Dead;
        self.cpu.machine.core.wait_for(Object::nothing());
        Poll::Pending
    }
}

impl<T: Scalar, F: FnOnce(T) -> Option<T> + Unpin> Future for Rmw<'_, T, F> {
    type Output = T;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let this = self.get_mut();
        if let Stage::Fresh = this.stage {
            let machine = &this.cpu.machine;
            let (pa, shared) = machine.reach(this.at.value(), this.cpu.id());
            if !shared {
                machine.settle_quiet(this.cpu.id());
                return this.perform(false);
            }
            let object = pa.map_or(Object::nothing(), |pa| Object(pa.0));
            this.stage = Stage::Stepping(this.cpu.step(Op::new(OpKind::Rmw, object, u16::from(T::BYTES))));
        }
        match &mut this.stage {
            Stage::Stepping(step) => match Pin::new(step).poll(context) {
                Poll::Ready(()) => this.perform(true),
                Poll::Pending => Poll::Pending,
            },
            Stage::Fresh | Stage::Dead => {
                this.cpu.machine.core.wait_for(Object::nothing());
                Poll::Pending
            }
        }
    }
}
