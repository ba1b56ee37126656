//! Registers: GCMD handshakes, root pointer, register-based invalidation (`intel/iommu.c`).
//!
//! Every GCMD write keeps the bits of the software copy; the status is polled until it follows. The kernel panics after ten
//! seconds of polling; the model's unit always follows.

use iommu_model::spec::vtd::register::{
    ContextCommand, GlobalCommand, IotlbCommand, OFFSET_CCMD, OFFSET_GCMD, OFFSET_GSTS, OFFSET_IOTLB, OFFSET_IVA, OFFSET_RTADDR,
};
use sim::memory::Ptr;

use super::super::Task;
use super::{IntelIommu, cap, qi, seq_id};
use crate::errno::Errno;

/// Writes GCMD and waits until GSTS says `done`. `register_lock` is held, or the kernel is down to one CPU.
pub(super) async fn gcmd(t: &Task, iommu: Ptr<IntelIommu>, command: GlobalCommand, done: impl Fn(GlobalCommand) -> bool) {
    let unit = seq_id(t, iommu);
    t.mmio_write(unit, OFFSET_GCMD as u16, 4, u64::from(command.into_bits())).await;
    t.mmio_poll(unit, OFFSET_GSTS as u16, 4, |status| done(GlobalCommand::from_bits(status as u32))).await;
}

/// GSTS.
pub(super) async fn gsts(t: &Task, iommu: Ptr<IntelIommu>) -> GlobalCommand {
    GlobalCommand::from_bits(t.mmio_read(seq_id(t, iommu), OFFSET_GSTS as u16, 4).await as u32)
}

/// The software copy of GCMD.
pub(super) async fn load_gcmd(t: &Task, iommu: Ptr<IntelIommu>) -> GlobalCommand {
    GlobalCommand::from_bits(t.read(iommu.at(IntelIommu::GCMD)).await)
}

/// Changes the software copy of GCMD.
pub(super) async fn store_gcmd(t: &Task, iommu: Ptr<IntelIommu>, command: GlobalCommand) {
    t.write(iommu.at(IntelIommu::GCMD), command.into_bits()).await;
}

/// `iommu_set_root_entry()`: root pointer, then context cache, then IOTLB, unless the switch flushes by itself.
pub async fn iommu_set_root_entry(t: &Task, iommu: Ptr<IntelIommu>) {
    let _in = t.call("iommu_set_root_entry");
    let root = t.read(iommu.at(IntelIommu::ROOT_ENTRY)).await;
    t.spin_lock(iommu.at(IntelIommu::REGISTER_LOCK)).await;
    t.mmio_write(seq_id(t, iommu), OFFSET_RTADDR as u16, 8, root.pa().0).await;
    let command = load_gcmd(t, iommu).await;
    gcmd(t, iommu, command.with_set_root_table(true), |status| status.set_root_table()).await;
    t.spin_unlock(iommu.at(IntelIommu::REGISTER_LOCK)).await;
    if cap(t, iommu).await.root_switch_invalidates() {
        return;
    }
    qi::flush_context(t, iommu, qi::ContextFlush::Global).await;
    qi::flush_iotlb(t, iommu, qi::IotlbFlush::Global).await;
}

/// `iommu_enable_translation()`.
pub async fn iommu_enable_translation(t: &Task, iommu: Ptr<IntelIommu>) {
    let _in = t.call("iommu_enable_translation");
    t.spin_lock(iommu.at(IntelIommu::REGISTER_LOCK)).await;
    let command = load_gcmd(t, iommu).await.with_translation_enable(true);
    store_gcmd(t, iommu, command).await;
    gcmd(t, iommu, command, |status| status.translation_enable()).await;
    t.spin_unlock(iommu.at(IntelIommu::REGISTER_LOCK)).await;
}

/// `iommu_disable_translation()`. `locked`: false where the machine is down to one CPU and no lock may be waited for.
pub async fn iommu_disable_translation(t: &Task, iommu: Ptr<IntelIommu>, locked: bool) {
    let _in = t.call("iommu_disable_translation");
    if locked {
        t.spin_lock(iommu.at(IntelIommu::REGISTER_LOCK)).await;
    }
    let command = load_gcmd(t, iommu).await.with_translation_enable(false);
    store_gcmd(t, iommu, command).await;
    gcmd(t, iommu, command, |status| !status.translation_enable()).await;
    if locked {
        t.spin_unlock(iommu.at(IntelIommu::REGISTER_LOCK)).await;
    }
}

/// `__iommu_flush_context()`: through CCMD, where there is no queue.
pub(super) async fn iommu_flush_context(t: &Task, iommu: Ptr<IntelIommu>, command: ContextCommand) -> Errno {
    let unit = seq_id(t, iommu);
    t.spin_lock(iommu.at(IntelIommu::REGISTER_LOCK)).await;
    t.mmio_write(unit, OFFSET_CCMD as u16, 8, command.with_invalidate(true).into_bits()).await;
    t.mmio_poll(unit, OFFSET_CCMD as u16, 8, |value| !ContextCommand::from_bits(value).invalidate()).await;
    t.spin_unlock(iommu.at(IntelIommu::REGISTER_LOCK)).await;
    0
}

/// `__iommu_flush_iotlb()`: through IVA and IOTLB, where there is no queue.
pub(super) async fn iommu_flush_iotlb(t: &Task, iommu: Ptr<IntelIommu>, address: u64, command: IotlbCommand) -> Errno {
    let unit = seq_id(t, iommu);
    t.spin_lock(iommu.at(IntelIommu::REGISTER_LOCK)).await;
    t.mmio_write(unit, OFFSET_IVA as u16, 8, address).await;
    t.mmio_write(unit, OFFSET_IOTLB as u16, 8, command.with_invalidate(true).into_bits()).await;
    t.mmio_poll(unit, OFFSET_IOTLB as u16, 8, |value| !IotlbCommand::from_bits(value).invalidate()).await;
    t.spin_unlock(iommu.at(IntelIommu::REGISTER_LOCK)).await;
    0
}
