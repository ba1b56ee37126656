//! Barriers and cache maintenance of CPUs. Where the machine has no overlay they do nothing and take no step.

use iommu_model::addr::Pa;

use super::store_buffer::Forward;
use super::{LINE_BYTES, Overlay};
use crate::cpu::Cpu;
use crate::engine::{Object, Op, OpKind};
use crate::memory::Ptr;

impl Cpu {
    fn overlay(&self) -> Option<&Overlay> {
        self.machine.overlay.as_deref()
    }

    /// `smp_mb()`, `mb()`: every earlier access happens before every later one, and lines whose flush was asked for are in memory.
    pub async fn smp_mb(&self) {
        self.machine.with_races(|races| races.barrier(self.id()));
        let Some(overlay) = self.overlay() else { return };
        self.drain_own_stores(overlay).await;
        while let Some(line) = overlay.with_cpu(self.id(), |cpu| cpu.flushes.pop()) {
            // No walker can reach memory that is private to this CPU: when its lines are written back is seen by nobody.
            let shared = !self.machine.memory().is_private(line, self.id());
            if !shared {
                overlay.write_back(line);
                continue;
            }
            self.machine.core.step(Op::new(OpKind::Write, Object(line.0), LINE_BYTES as u16)).await;
            overlay.write_back(line);
        }
        let now = overlay.now();
        overlay.with_cpu(self.id(), |cpu| cpu.view.raise(now));
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

    /// What goes before a step that is announced by hand or atomic: a full barrier, except before a pause.
    #[cold]
    pub(crate) async fn order_before(&self, op: Op) -> Op {
        let Some(overlay) = self.overlay() else { return op };
        if !op.is(OpKind::Yield) {
            self.smp_mb().await;
        }
        if overlay.is_weak() { op.over_all_memory() } else { op }
    }

    /// What follows such a step: loads see memory as it is from now on.
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
