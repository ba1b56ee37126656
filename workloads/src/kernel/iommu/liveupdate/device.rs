//! Preserve and unpreserve of devices, and of the units they are behind (patch 04), in the outgoing kernel.
//!
//! A unit is preserved with its first device and unpreserved with its last: `hdr.ref_count` of its record counts them.

use iommu_model::addr::{Bdf, Pa};
use sim::memory::Ptr;

use super::super::super::Task;
use super::super::super::luo::{FlbId, liveupdate_flb_get_outgoing};
use super::super::super::vtd::{self, IntelIommu};
use super::super::group::{Group, iommu_group_dma_owner_claimed};
use super::super::probe::DevInfo;
use super::super::{Domain, dev_info};
use super::{Array, FlbObj, abi, alloc_object_slot, preserved_state, put_outgoing, set_flag};
use crate::abi::iommu::{DELETED, DeviceSer, DomainSer, HdrSer};
use crate::defect::Defect;
use crate::errno::{EBUSY, EINVAL, ENOENT, EOPNOTSUPP, Errno};
use crate::revision::Iommu;
use crate::verb;

/// `iommu_preserve_device()`, patch 04. Returns the PA of the record, which v2's caller hands over. `token` is the DMA owner of
/// the group in the next kernel (tip).
pub async fn iommu_preserve_device(t: &Task, domain: Ptr<Domain>, dev: Bdf, token: u64) -> (Errno, Pa) {
    let _in = t.call("iommu_preserve_device");
    let info = dev_info(t, dev).await;
    let (ret, slot) = if info.is_null() { (EOPNOTSUPP, Ptr::NULL) } else { do_preserve_device(t, domain, info, dev, token).await };
    t.machine.note(verb::DEVICE_PRESERVED, [u64::from(dev.0), domain.value(), ret as i64 as u64, 0]);
    (ret, if ret == 0 { slot.pa() } else { Pa(0) })
}

async fn do_preserve_device(t: &Task, domain: Ptr<Domain>, info: Ptr<DevInfo>, dev: Bdf, token: u64) -> (Errno, Ptr<HdrSer>) {
    let group: Ptr<Group> = t.read(info.at(DevInfo::GROUP)).await;
    if !iommu_group_dma_owner_claimed(t, group).await {
        return (EINVAL, Ptr::NULL);
    }
    // v2 asks for the domain's record before the lock: it may be gone when the slot is filled (R8).
    let early = match t.k.rev.iommu {
        Iommu::V2 => {
            let state = t.read(domain.at(Domain::PRESERVED_STATE)).await;
            if state.is_null() {
                return (EINVAL, Ptr::NULL);
            }
            state
        }
        Iommu::Tip => Ptr::NULL,
    };
    let (ret, obj) = liveupdate_flb_get_outgoing(t, FlbId::Iommu).await;
    if ret != 0 {
        return (ret, Ptr::NULL);
    }
    let obj: Ptr<FlbObj> = Ptr::new(obj);
    t.mutex_lock(obj.at(FlbObj::LOCK)).await;
    let (ret, slot) = preserve_device_locked(t, obj, domain, info, dev, token, early).await;
    t.mutex_unlock(obj.at(FlbObj::LOCK)).await;
    put_outgoing(t).await;
    (ret, slot)
}

/// The part under `obj->lock`.
async fn preserve_device_locked(
    t: &Task,
    obj: Ptr<FlbObj>,
    domain: Ptr<Domain>,
    info: Ptr<DevInfo>,
    dev: Bdf,
    token: u64,
    early: Ptr<DomainSer>,
) -> (Errno, Ptr<HdrSer>) {
    let abi = abi(t);
    match t.k.rev.iommu {
        Iommu::V2 => {}
        Iommu::Tip => {
            if t.read(domain.at(Domain::PRESERVED_STATE)).await.is_null() {
                return (EINVAL, Ptr::NULL);
            }
            if !preserved_state(t, info).await.is_null() {
                return (EBUSY, Ptr::NULL);
            }
        }
    }
    let slot = alloc_object_slot(t, obj, Array::Device).await;
    if let Some(errno) = slot.errno() {
        return (-errno, Ptr::NULL);
    }
    let device: Ptr<DeviceSer> = slot.cast();
    let iommu = vtd::iommu_of(t, t.read(info.at(DevInfo::IOMMU)).await);
    let ret = iommu_preserve_locked(t, obj, iommu).await;
    if ret != 0 {
        set_flag(t, slot, DELETED).await;
        return (ret, Ptr::NULL);
    }
    let hw = t.read(iommu.at(IntelIommu::OUTGOING_PRESERVED_STATE)).await;
    let state = match t.k.rev.iommu {
        Iommu::V2 => early,
        Iommu::Tip => t.read(domain.at(Domain::PRESERVED_STATE)).await,
    };
    t.write(device.at(abi.device.domain_phys), state.pa().0).await;
    t.write(device.at(abi.device.iommu_phys), hw.pa().0).await;
    t.write(device.at(abi.device.devid), u32::from(dev.0)).await;
    t.write(device.at(abi.device.pci_domain_nr), 0).await;
    if let Some(dma_owner_token) = abi.device.dma_owner_token {
        t.write(device.at(dma_owner_token), token).await;
    }
    let ret = vtd::liveupdate::intel_iommu_preserve_device(t, info, device).await;
    if ret != 0 {
        set_flag(t, slot, DELETED).await;
        iommu_unpreserve_locked(t, iommu).await;
        return (ret, Ptr::NULL);
    }
    // Tip asks afterwards that the group has no other device: here none ever has.
    t.write_once(info.at(DevInfo::DEVICE_SER), device).await;
    (0, slot)
}

/// `iommu_preserve_locked()`: the unit of a device, counted.
async fn iommu_preserve_locked(t: &Task, obj: Ptr<FlbObj>, iommu: Ptr<IntelIommu>) -> Errno {
    let abi = abi(t);
    let hw = t.read(iommu.at(IntelIommu::OUTGOING_PRESERVED_STATE)).await;
    if !hw.is_null() {
        let count = hw.cast::<HdrSer>().at(abi.hdr.ref_count);
        let ref_count = t.read(count).await;
        t.write(count, ref_count + 1).await;
        return 0;
    }
    let slot = alloc_object_slot(t, obj, Array::Iommu).await;
    if let Some(errno) = slot.errno() {
        return -errno;
    }
    let ret = vtd::liveupdate::intel_iommu_preserve(t, iommu, slot.cast()).await;
    if ret != 0 {
        set_flag(t, slot, DELETED).await;
        return ret;
    }
    t.write(iommu.at(IntelIommu::OUTGOING_PRESERVED_STATE), slot.cast()).await;
    0
}

/// `iommu_unpreserve_locked()`.
async fn iommu_unpreserve_locked(t: &Task, iommu: Ptr<IntelIommu>) {
    let hw = t.read(iommu.at(IntelIommu::OUTGOING_PRESERVED_STATE)).await;
    if t.warn_on(hw.is_null(), "iommu_unpreserve_locked: unit is not preserved") {
        return;
    }
    let count = hw.cast::<HdrSer>().at(abi(t).hdr.ref_count);
    let ref_count = t.read(count).await - 1;
    t.write(count, ref_count).await;
    if ref_count > 0 {
        return;
    }
    t.write(iommu.at(IntelIommu::OUTGOING_PRESERVED_STATE), Ptr::NULL).await;
    vtd::liveupdate::intel_iommu_unpreserve(t, iommu, hw).await;
    set_flag(t, hw.cast(), DELETED).await;
}

/// `iommu_unpreserve_device()`. Returns silently when nobody owns the group any more (R7).
pub async fn iommu_unpreserve_device(t: &Task, domain: Ptr<Domain>, dev: Bdf) {
    let _in = t.call("iommu_unpreserve_device");
    let ret = do_unpreserve_device(t, domain, dev).await;
    t.machine.note(verb::DEVICE_UNPRESERVED, [u64::from(dev.0), ret as i64 as u64, 0, 0]);
}

async fn do_unpreserve_device(t: &Task, domain: Ptr<Domain>, dev: Bdf) -> Errno {
    let _ = domain;
    let info = dev_info(t, dev).await;
    if info.is_null() {
        return EOPNOTSUPP;
    }
    let group: Ptr<Group> = t.read(info.at(DevInfo::GROUP)).await;
    if !iommu_group_dma_owner_claimed(t, group).await {
        return EINVAL;
    }
    let (ret, obj) = liveupdate_flb_get_outgoing(t, FlbId::Iommu).await;
    if t.warn_on(ret != 0, "iommu_unpreserve_device: no outgoing FLB") {
        return ret;
    }
    let obj: Ptr<FlbObj> = Ptr::new(obj);
    t.mutex_lock(obj.at(FlbObj::LOCK)).await;
    let device = preserved_state(t, info).await;
    let mut ret = 0;
    if t.warn_on(device.is_null(), "iommu_unpreserve_device: device is not preserved") {
        ret = ENOENT;
    } else {
        match t.k.rev.iommu {
            // The slot stays alive for the next kernel to find (R6).
            Iommu::V2 => {}
            Iommu::Tip if t.k.has(Defect::DeletedFlagForgotten) => {}
            Iommu::Tip => set_flag(t, device.cast(), DELETED).await,
        }
        let iommu = vtd::iommu_of(t, t.read(info.at(DevInfo::IOMMU)).await);
        vtd::liveupdate::intel_iommu_unpreserve_device(t, info, device).await;
        t.write_once(info.at(DevInfo::DEVICE_SER), Ptr::NULL).await;
        iommu_unpreserve_locked(t, iommu).await;
    }
    t.mutex_unlock(obj.at(FlbObj::LOCK)).await;
    put_outgoing(t).await;
    ret
}
