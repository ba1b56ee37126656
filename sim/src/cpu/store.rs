//! Stores.

use std::pin::Pin;
use std::task::{Context, Poll};

use iommu_model::addr::Pa;

use super::Cpu;
use crate::engine::{Object, Op, OpKind};
use crate::memory::{Bad, PAGE_OFFSET};
use crate::trace::Flavor;

/// Future of a store of up to 8 bytes: a step where others can reach the memory and no store buffer takes it, at once where not.
#[must_use = "a store happens when it is awaited"]
pub struct Store<'a> {
    cpu: &'a Cpu,
    va: u64,
    value: u64,
    bytes: u8,
    flavor: Flavor,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    Fresh,
    /// Waits for room in the store buffer.
    Full,
    Announced,
    /// It was bad: the program has ended.
    Dead,
}

impl<'a> Store<'a> {
    #[inline]
    pub(super) fn new(cpu: &'a Cpu, va: u64, bytes: u8, value: u64, flavor: Flavor) -> Store<'a> {
        Store { cpu, va, value, bytes, flavor, stage: Stage::Fresh }
    }

    #[inline]
    fn begin(&mut self) -> Poll<()> {
        let machine = &self.cpu.machine;
        let (pa, shared) = machine.reach(self.va, self.cpu.id());
        if machine.overlay.is_some() && machine.buffers_stores() && (shared || machine.is_weak()) {
            return self.begin_buffered(shared);
        }
        if shared {
            let bytes = u16::from(self.bytes);
            let op = pa.map_or(Op::new(OpKind::Write, Object::nothing(), bytes), |pa| machine.store_op(pa, self.bytes));
            machine.core.announce(op);
            self.stage = Stage::Announced;
            return Poll::Pending;
        }
        self.perform(false)
    }

    #[cold]
    fn begin_buffered(&mut self, shared: bool) -> Poll<()> {
        if shared {
            return self.buffer();
        }
        let stored = self.cpu.store_quietly(self.va, self.bytes, self.value, self.flavor);
        self.end(stored)
    }

    #[cold]
    fn buffer(&mut self) -> Poll<()> {
        if self.cpu.store_buffer_is_full() {
            self.stage = Stage::Full;
            self.cpu.machine.core.wait_for(Object::store_buffer(self.cpu.id()));
            return Poll::Pending;
        }
        let stored = self.cpu.buffer_store(self.va, self.bytes, self.value, self.flavor, self.flavor == Flavor::Ordered);
        self.end(stored)
    }

    #[inline]
    fn perform(&mut self, shared: bool) -> Poll<()> {
        let machine = &self.cpu.machine;
        let stored = machine.perform_store(self.va, self.bytes, self.value, self.flavor, self.cpu.id());
        if stored.is_ok() && shared {
            // It was stored, so the address lies in the direct map.
            machine.wake_word(Pa(self.va.wrapping_sub(PAGE_OFFSET) & !7));
        }
        self.end(stored.map(|_| ()))
    }

    #[inline]
    fn end(&mut self, stored: Result<(), Bad>) -> Poll<()> {
        match stored {
            Ok(()) => Poll::Ready(()),
            Err(bad) => {
                self.cpu.oops(self.va, self.bytes, true, bad);
                self.die()
            }
        }
    }

    #[cold]
    fn die(&mut self) -> Poll<()> {
        self.stage = Stage::Dead;
        self.cpu.machine.core.wait_for(Object::nothing());
        Poll::Pending
    }
}

impl Future for Store<'_> {
    type Output = ();

    #[inline]
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        match this.stage {
            Stage::Announced => this.perform(true),
            Stage::Fresh => this.begin(),
            Stage::Full => this.buffer(),
            Stage::Dead => this.die(),
        }
    }
}
