//! Barriers and cache maintenance of CPUs. Where the machine has no overlay they do nothing and take no step.

use std::pin::Pin;
use std::task::{Context, Poll};

use iommu_model::addr::Pa;

use super::store_buffer::Forward;
use super::{LINE_BYTES, Overlay};
use crate::cpu::Cpu;
use crate::engine::{Object, Op, OpKind};
use crate::memory::Ptr;

/// Future of [`Cpu::smp_mb`].
#[must_use = "a barrier is passed when it is awaited"]
pub struct Barrier<'a> {
    cpu: &'a Cpu,
    stage: Stage,
}

enum Stage {
    Fresh,
    /// Waits until this CPU's stores have reached memory.
    Draining,
    /// The line is about to be written back.
    Flushing(Pa),
}

impl Barrier<'_> {
    #[cold]
    fn go_on(&mut self, overlay: &Overlay) -> Poll<()> {
        let Barrier { cpu, stage } = self;
        let (id, core) = (cpu.id(), &cpu.machine.core);
        match stage {
            Stage::Fresh => cpu.machine.settle_quiet(id),
            Stage::Draining => {}
            Stage::Flushing(line) => overlay.write_back(*line),
        }
        if !matches!(stage, Stage::Flushing(_)) && !overlay.with_cpu(id, |cpu| cpu.buffer.is_empty()) {
            *stage = Stage::Draining;
            core.wait_for(Object::store_buffer(id));
            return Poll::Pending;
        }
        while let Some(line) = overlay.with_cpu(id, |cpu| cpu.flushes.pop()) {
            // No walker can reach memory that is private to this CPU: when its lines are written back is seen by nobody.
            let shared = !cpu.machine.memory().is_private(line, id);
            if shared {
                *stage = Stage::Flushing(line);
                core.announce(Op::new(OpKind::Write, Object(line.0), LINE_BYTES as u16));
                return Poll::Pending;
            }
            overlay.write_back(line);
        }
        let now = overlay.now();
        overlay.with_cpu(id, |cpu| cpu.view.raise(now));
        Poll::Ready(())
    }
}

impl Future for Barrier<'_> {
    type Output = ();

    #[inline]
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let machine = &this.cpu.machine;
        if matches!(this.stage, Stage::Fresh) {
            machine.with_races(|races| races.barrier(this.cpu.id()));
        }
        match machine.overlay.as_deref() {
            Some(overlay) => this.go_on(overlay),
            None => Poll::Ready(()),
        }
    }
}

impl Cpu {
    fn overlay(&self) -> Option<&Overlay> {
        self.machine.overlay.as_deref()
    }

    /// `smp_mb()`, `mb()`: every earlier access happens before every later one, and lines whose flush was asked for are in memory.
    #[inline]
    pub fn smp_mb(&self) -> Barrier<'_> {
        Barrier { cpu: self, stage: Stage::Fresh }
    }

    /// `smp_wmb()`, `dma_wmb()`: earlier stores are seen before later ones. Nothing to do where stores drain in order.
    pub fn smp_wmb(&self) {
        self.machine.with_races(|races| races.barrier(self.id()));
        self.machine.settle_quiet(self.id());
        if let Some(overlay) = self.overlay() {
            overlay.with_cpu(self.id(), |cpu| cpu.buffer.barrier());
        }
    }

    /// `smp_rmb()`, `dma_rmb()`: earlier loads are performed before later ones.
    pub fn smp_rmb(&self) {
        if let Some(overlay) = self.overlay() {
            overlay.with_cpu(self.id(), |cpu| cpu.view.read_barrier());
        }
    }

    /// `clflushopt`, `clwb`, `dc cvac`: asks for the line of `at` to be written back. That is certain only after the next full barrier.
    /// A line that is clean stays as it is.
    pub fn flush_line<T>(&self, at: Ptr<T>) {
        if let Some(overlay) = self.overlay().filter(|overlay| overlay.has_dirty_lines()) {
            let line = Pa(at.pa().0 & !(LINE_BYTES - 1));
            overlay.with_cpu(self.id(), |cpu| {
                let stored = cpu.buffer.forward(line, LINE_BYTES as u8) != Forward::None;
                if (stored || overlay.line_owner(line).is_some()) && !cpu.flushes.contains(&line) {
                    cpu.flushes.push(line);
                }
            });
        }
    }

    /// `clflush_cache_range()` (Linux, arch/x86/mm/pat/set_memory.c): barrier, a flush for each line, barrier.
    pub async fn clflush_cache_range<T>(&self, at: Ptr<T>, bytes: u64) {
        if self.overlay().is_none() {
            return;
        }
        self.smp_mb().await;
        let first = at.value() & !(LINE_BYTES - 1);
        for line in (first..at.value().saturating_add(bytes)).step_by(LINE_BYTES as usize) {
            self.flush_line(Ptr::<u64>::new(line));
        }
        self.smp_mb().await;
    }

    /// Waits until this CPU's stores have reached memory.
    pub(crate) async fn drain_own_stores(&self, overlay: &Overlay) {
        self.machine.settle_quiet(self.id());
        while !overlay.with_cpu(self.id(), |cpu| cpu.buffer.is_empty()) {
            self.machine.core.block(Object::store_buffer(self.id())).await;
        }
    }

    /// Runs `program` and lasts until its stores are in memory: the run is not over while drains are left, so that they are steps
    /// like all others, and a search that learns from the steps it has seen sees them.
    pub(crate) async fn run_to_the_last_drain(self, program: impl Future<Output = ()>) {
        program.await;
        if let Some(overlay) = self.overlay() {
            self.drain_own_stores(overlay).await;
        }
    }

    /// What follows a step that is announced by hand or atomic: loads see memory as it is from now on.
    pub(crate) fn order_after(&self) {
        if let Some(overlay) = self.overlay().filter(|overlay| overlay.is_weak()) {
            let now = overlay.now();
            overlay.with_cpu(self.id(), |cpu| cpu.view.raise(now));
        }
    }

    /// True when this CPU's last loads may have been stale; from now on it sees memory as it is. Who is about to wait for a
    /// change asks this, so as not to miss the change it has not seen.
    pub(crate) fn catch_up(&self) -> bool {
        let Some(overlay) = self.overlay().filter(|overlay| overlay.is_weak()) else { return false };
        let now = overlay.now();
        overlay.with_cpu(self.id(), |cpu| {
            let behind = cpu.view.floor() < now;
            cpu.view.raise(now);
            behind
        })
    }
}
