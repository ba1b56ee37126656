//! `intel_iommu_init()`, `init_dmars()`: queues, root tables, adoption or the pre-enabled path, probe, translation on.
//!
//! A unit whose record was handed over keeps its root pointer: tables are adopted, the same pointer is written again, caches are
//! flushed, translation stays on throughout. A unit that is found enabled and has no record is taken for a foreign one: its
//! translation is switched off first, and whatever its devices do from then on goes untranslated until it is on again.
//!
//! Assumed: an error of one unit ends the initialisation of all of them, with translation switched off where it was on, as in the
//! classical code; what the series does there was not read.

use iommu_model::spec::vtd::register::{OFFSET_CAP, OFFSET_ECAP};
use sim::memory::Ptr;

use super::super::Task;
use super::super::iommu::liveupdate::incoming::iommu_get_preserved_data;
use super::super::iommu::probe::iommu_probe_device;
use super::super::iommu_pages::iommu_alloc_pages;
use super::super::mm::{Gfp, PAGE_SIZE};
use super::registers::{gsts, iommu_disable_translation, iommu_enable_translation, iommu_set_root_entry, store_gcmd};
use super::{IntelIommu, TRANS_PRE_ENABLED, UNIT_IN_USE, iommu_flush_cache, iommu_of, liveupdate, qi, reg_phys, seq_id};
use crate::abi::iommu::HwSer;
use crate::errno::{ENOMEM, Errno};
use crate::mark::Mark;
use crate::tag;

/// `intel_iommu_init()`. Without units that work, devices are left without IOMMU support.
pub async fn intel_iommu_init(t: &Task) {
    let _in = t.call("intel_iommu_init");
    let nr_units = t.k.topo.units.len() as u16;
    for unit in 0..nr_units {
        alloc_iommu(t, iommu_of(t, unit)).await;
    }
    let ret = init_dmars(t, nr_units).await;
    if ret != 0 {
        for unit in 0..nr_units {
            disable_dmar_iommu(t, iommu_of(t, unit)).await;
        }
        return;
    }
    for (index, device) in t.k.topo.devices.iter().enumerate() {
        // What it returns goes to the log only.
        iommu_probe_device(t, index, device.bdf, device.unit).await;
    }
    for unit in 0..nr_units {
        let iommu = iommu_of(t, unit);
        if t.read(iommu.at(IntelIommu::FLAGS)).await & TRANS_PRE_ENABLED == 0 {
            iommu_enable_translation(t, iommu).await;
        }
    }
}

/// `alloc_iommu()` of `dmar.c`: locks, capabilities, what the unit is doing now.
async fn alloc_iommu(t: &Task, iommu: Ptr<IntelIommu>) {
    let unit = seq_id(t, iommu);
    t.init_lock(iommu.at(IntelIommu::LOCK)).await;
    t.init_lock(iommu.at(IntelIommu::REGISTER_LOCK)).await;
    t.init_lock(iommu.at(IntelIommu::DID_LOCK)).await;
    let cap = t.mmio_read(unit, OFFSET_CAP as u16, 8).await;
    t.write(iommu.at(IntelIommu::CAP), cap).await;
    let ecap = t.mmio_read(unit, OFFSET_ECAP as u16, 8).await;
    t.write(iommu.at(IntelIommu::ECAP), ecap).await;
    // GCMD is write-only: the copy starts from the status, without its one-shot bits.
    let status = gsts(t, iommu).await;
    let command =
        status.with_set_root_table(false).with_set_fault_log(false).with_write_buffer_flush(false).with_set_interrupt_table(false);
    store_gcmd(t, iommu, command).await;
}

/// `init_dmars()`.
async fn init_dmars(t: &Task, nr_units: u16) -> Errno {
    let _in = t.call("init_dmars");
    for unit in 0..nr_units {
        let iommu = iommu_of(t, unit);
        intel_iommu_init_qi(t, iommu).await;
        let ret = init_root(t, iommu).await;
        if ret != 0 {
            return ret;
        }
        let flags = t.read(iommu.at(IntelIommu::FLAGS)).await;
        t.write(iommu.at(IntelIommu::FLAGS), flags | UNIT_IN_USE).await;
    }
    // All units have a root before any of them gets it.
    for unit in 0..nr_units {
        iommu_set_root_entry(t, iommu_of(t, unit)).await;
    }
    0
}

/// `intel_iommu_init_qi()`: a queue left on by the previous kernel is switched off first. Without memory the registers serve.
async fn intel_iommu_init_qi(t: &Task, iommu: Ptr<IntelIommu>) {
    let _in = t.call("intel_iommu_init_qi");
    qi::dmar_disable_qi(t, iommu).await;
    qi::dmar_enable_qi(t, iommu).await;
}

/// Decides what a unit's root table is. Tip and v2 ask for the record before they touch a unit that is on; what counts as "no
/// record" differs: see `flb_get_incoming()`.
async fn init_root(t: &Task, iommu: Ptr<IntelIommu>) -> Errno {
    // init_translation_status()
    let pre_enabled = gsts(t, iommu).await.translation_enable();
    t.write(iommu.at(IntelIommu::FLAGS), if pre_enabled { TRANS_PRE_ENABLED } else { 0 }).await;
    let hw: Ptr<HwSer> = iommu_get_preserved_data(t, reg_phys(t, iommu).0).await;
    if !hw.is_null() {
        // Translation is set again at the end, as on any other unit; it is never off.
        t.write(iommu.at(IntelIommu::FLAGS), 0).await;
        liveupdate::restore_root_table(t, iommu, hw).await;
        return 0;
    }
    if pre_enabled {
        // A unit somebody else left on, and this is no kdump kernel.
        t.mark(Mark::PreEnabledDisabled);
        iommu_disable_translation(t, iommu, true).await;
        t.write(iommu.at(IntelIommu::FLAGS), 0).await;
    }
    let root = iommu_alloc_pages(t, Gfp::Atomic, tag::VTD_ROOT).await;
    if root.is_null() {
        return ENOMEM;
    }
    iommu_flush_cache(t, iommu, root, PAGE_SIZE).await;
    t.write(iommu.at(IntelIommu::ROOT_ENTRY), root).await;
    0
}

/// `disable_dmar_iommu()`, `free_dmar_iommu()` on the error path of [`init_dmars`].
async fn disable_dmar_iommu(t: &Task, iommu: Ptr<IntelIommu>) {
    let _in = t.call("disable_dmar_iommu");
    if gsts(t, iommu).await.translation_enable() {
        // A unit that was adopted already goes with the one that failed.
        let unit = seq_id(t, iommu);
        for device in t.k.topo.devices.iter().filter(|device| device.unit == unit.0) {
            t.mark_of(Mark::AdoptedUnitDisabled, device.bdf.0);
        }
        iommu_disable_translation(t, iommu, true).await;
    }
    qi::dmar_disable_qi(t, iommu).await;
    qi::free_qi(t, iommu).await;
    t.write(iommu.at(IntelIommu::FLAGS), 0).await;
}
