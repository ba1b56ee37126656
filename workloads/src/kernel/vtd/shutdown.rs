//! `intel_iommu_shutdown()`: called by machine_shutdown after all other CPUs have stopped, each wherever it was.
//!
//! It takes no lock, because a stopped CPU may hold any of them, and fills the queue by hand. A unit without preserved devices has
//! its translation switched off: what its devices still do goes untranslated. A unit with preserved devices stays on; every
//! path to memory that was not handed over is cut and the caches are flushed.
//!
//! | step | v2 (assumed: as v1) | tip |
//! | --- | --- | --- |
//! | context entries of devices that are not preserved | cleared | cleared |
//! | root entries whose context table is not preserved | kept | cleared |
//! | context cache, IOTLB | flushed globally | flushed globally |

use iommu_model::addr::Bdf;
use iommu_model::spec::vtd::context::CONTEXT_ENTRY_BYTES;
use sim::memory::Ptr;

use super::super::Task;
use super::super::generic_pt::scan_table;
use super::super::iommu::dev_info;
use super::super::iommu::liveupdate::preserved_state;
use super::super::mm::kfree;
use super::context::{context_table_of, root_slot};
use super::liveupdate::context_table_is_preserved;
use super::qi::{self, ContextFlush, IotlbFlush, qi_submit_on_last_cpu};
use super::registers::iommu_disable_translation;
use super::{IntelIommu, UNIT_IN_USE, cap, iommu_flush_cache, iommu_of, seq_id};
use crate::abi::iommu::HwSer;
use crate::defect::Defect;
use crate::revision::Iommu;
use crate::verb;

/// `intel_iommu_shutdown()`.
pub async fn intel_iommu_shutdown(t: &Task) {
    let _in = t.call("intel_iommu_shutdown");
    for unit in 0..t.k.topo.units.len() as u16 {
        let iommu = iommu_of(t, unit);
        if t.read(iommu.at(IntelIommu::FLAGS)).await & UNIT_IN_USE == 0 {
            continue;
        }
        let hw = t.read(iommu.at(IntelIommu::OUTGOING_PRESERVED_STATE)).await;
        if hw.is_null() {
            note_devices(t, iommu, verb::DEVICE_CHANGING).await;
            iommu_disable_translation(t, iommu, false).await;
            note_devices(t, iommu, verb::DEVICE_ATTACHED).await;
        } else {
            clear_unpreserved(t, iommu, hw).await;
        }
    }
}

/// Says of the unit's devices that are not preserved that they change to, or are, blocked.
async fn note_devices(t: &Task, iommu: Ptr<IntelIommu>, verb: sim::trace::Verb) {
    for device in t.k.topo.devices.iter().filter(|device| device.unit == seq_id(t, iommu).0) {
        if !is_preserved(t, device.bdf).await {
            t.machine.note(verb, [u64::from(device.bdf.0), 0, 0, 0]);
        }
    }
}

async fn is_preserved(t: &Task, dev: Bdf) -> bool {
    let info = dev_info(t, dev).await;
    !info.is_null() && !preserved_state(t, info).await.is_null()
}

/// `intel_iommu_shutdown` of the series for a unit with preserved devices.
async fn clear_unpreserved(t: &Task, iommu: Ptr<IntelIommu>, hw: Ptr<HwSer>) {
    let _in = t.call("clear_unpreserved_context_entries");
    note_devices(t, iommu, verb::DEVICE_CHANGING).await;
    let root = t.read(iommu.at(IntelIommu::ROOT_ENTRY)).await;
    for device in t.k.topo.devices.iter().filter(|device| device.unit == seq_id(t, iommu).0) {
        if is_preserved(t, device.bdf).await {
            continue;
        }
        let table = context_table_of(t.read(root_slot(root, device.bdf.bus())).await);
        if !table.is_null() {
            let context: Ptr<u64> = table.byte_add(u64::from(device.bdf.devfn()) * CONTEXT_ENTRY_BYTES);
            t.write_once(context, 0).await;
            t.write_once(context.byte_add::<u64>(8), 0).await;
            iommu_flush_cache(t, iommu, context, CONTEXT_ENTRY_BYTES).await;
        }
    }
    match t.k.rev.iommu {
        Iommu::V2 => {}
        Iommu::Tip => {
            let mut from = 0;
            while let Some((index, _)) = scan_table(t, root, from).await {
                from = index + 1;
                let bus = (index / 2) as u8;
                if index % 2 == 0 && !context_table_is_preserved(t, hw, bus).await {
                    t.write_once(root_slot(root, bus), 0).await;
                    iommu_flush_cache(t, iommu, root_slot(root, bus), 8).await;
                }
            }
        }
    }
    if !t.k.has(Defect::ShutdownWithoutFlush) {
        flush_globally(t, iommu).await;
    }
    note_devices(t, iommu, verb::DEVICE_ATTACHED).await;
}

/// Context cache, then IOTLB, each waited for.
async fn flush_globally(t: &Task, iommu: Ptr<IntelIommu>) {
    if t.read(iommu.at(IntelIommu::QI_DESC)).await.is_null() {
        // No queue: the register interface. Its lock was the queue's to give: nobody else runs.
        qi::flush_context(t, iommu, ContextFlush::Global).await;
        qi::flush_iotlb(t, iommu, IotlbFlush::Global).await;
        return;
    }
    let cap = cap(t, iommu).await;
    let iotlb = qi::iotlb_descriptor(IotlbFlush::Global, cap.read_drain(), cap.write_drain());
    qi_submit_on_last_cpu(t, iommu, qi::context_descriptor(ContextFlush::Global), true).await;
    qi_submit_on_last_cpu(t, iommu, iotlb, true).await;
    if t.k.has(Defect::QueueFreedInUse) {
        // Gives the status words back while a wait is under way and the queue is on.
        qi_submit_on_last_cpu(t, iommu, iotlb, false).await;
        let status = t.read(iommu.at(IntelIommu::QI_DESC_STATUS)).await;
        kfree(t, status).await;
    }
}
