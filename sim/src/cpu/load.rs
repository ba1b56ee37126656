//! Loads.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use iommu_model::addr::Pa;

use super::Cpu;
use crate::engine::{Object, Op, OpKind};
use crate::memory::Scalar;
use crate::trace::Flavor;

/// Future of a load of up to 8 bytes: a step where others can reach the memory, at once where not.
pub(super) struct Load<'a> {
    cpu: &'a Cpu,
    va: u64,
    bytes: u8,
    flavor: Flavor,
    checked: bool,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    Fresh,
    /// Waits until an own store that covers it in part has reached memory.
    Behind {
        pa: Pa,
        shared: bool,
    },
    Announced,
    /// It was bad: the program has ended.
    Dead,
}

impl<'a> Load<'a> {
    #[inline]
    pub(super) fn new(cpu: &'a Cpu, va: u64, bytes: u8, flavor: Flavor, checked: bool) -> Load<'a> {
        Load { cpu, va, bytes, flavor, checked, stage: Stage::Fresh }
    }

    #[inline]
    fn begin(&mut self) -> Poll<u64> {
        let (pa, shared) = self.cpu.machine.reach(self.va, self.cpu.id());
        match pa.filter(|_| self.cpu.machine.overlay.is_some()) {
            Some(pa) => {
                self.cpu.before_load(pa, self.bytes);
                self.wait_behind(pa, shared)
            }
            None => self.go_on(pa, shared),
        }
    }

    #[cold]
    fn wait_behind(&mut self, pa: Pa, shared: bool) -> Poll<u64> {
        if self.cpu.is_behind(pa, self.bytes) {
            self.cpu.machine.core.wait_for(Object::store_buffer(self.cpu.id()));
            self.stage = Stage::Behind { pa, shared };
            return Poll::Pending;
        }
        self.go_on(Some(pa), shared)
    }

    #[inline]
    fn go_on(&mut self, pa: Option<Pa>, shared: bool) -> Poll<u64> {
        if shared {
            let object = pa.map_or(Object::nothing(), |pa| Object(pa.0));
            self.cpu.machine.core.announce(Op::new(OpKind::Read, object, u16::from(self.bytes)));
            self.stage = Stage::Announced;
            return Poll::Pending;
        }
        self.perform()
    }

    #[inline]
    fn perform(&mut self) -> Poll<u64> {
        match self.cpu.machine.perform_load(self.va, self.bytes, self.flavor, self.checked) {
            Ok(value) => Poll::Ready(value),
            Err(bad) => {
                self.cpu.oops(self.va, self.bytes, false, bad);
                self.stage = Stage::Dead;
                self.cpu.machine.core.wait_for(Object::nothing());
                Poll::Pending
            }
        }
    }
}

impl Future for Load<'_> {
    type Output = u64;

    #[inline]
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<u64> {
        let this = self.get_mut();
        match this.stage {
            Stage::Announced => this.perform(),
            Stage::Fresh => this.begin(),
            Stage::Behind { pa, shared } => this.wait_behind(pa, shared),
            Stage::Dead => {
                this.cpu.machine.core.wait_for(Object::nothing());
                Poll::Pending
            }
        }
    }
}

/// Future of a load of a `T`.
#[must_use = "a load happens when it is awaited"]
pub struct Read<'a, T> {
    load: Load<'a>,
    value: PhantomData<fn() -> T>,
}

impl<'a, T: Scalar> Read<'a, T> {
    #[inline]
    pub(super) fn new(cpu: &'a Cpu, va: u64, flavor: Flavor) -> Read<'a, T> {
        Read { load: Load::new(cpu, va, T::BYTES, flavor, true), value: PhantomData }
    }
}

impl<T: Scalar> Future for Read<'_, T> {
    type Output = T;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.load).poll(context).map(T::from_bits)
    }
}
