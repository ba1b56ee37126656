//! The incoming kernel: getters of what was handed over, and the restore of a domain (patches 08, 09, 11).
//!
//! Assumed where no code was to be had: the name of the wrapper that tip's consumers use (`flb_get_incoming`), and the order of
//! unlock and put in tip's restore (unlock first).

use iommu_model::addr::{Bdf, Pa};
use sim::memory::Ptr;

use super::super::super::luo::{FlbId, liveupdate_flb_get_incoming, liveupdate_flb_put_incoming};
use super::super::super::mm::kfree;
use super::super::super::vtd::{self, IntelIommu};
use super::super::super::{Task, generic_pt};
use super::super::Domain;
use super::super::group::domain_is_idle;
use super::super::probe::DevInfo;
use super::{Array, FlbObj, abi, first_object, next_object, restored_state, set_flag};
use crate::abi::iommu::{DeviceSer, DomainSer, FLB_VERSION, HW_TYPE_INTEL, HwSer, INCOMING};
use crate::errno::{ENODATA, ENOENT, EOPNOTSUPP};
use crate::revision::Iommu;
use crate::verb;

/// Gets the incoming FLB with `obj->lock` held, or NULL when nothing was preserved.
///
/// v2 takes any error for "nothing preserved", a failed allocation as well (R9). Tip lets only the three errors that mean it
/// through and panics on all others, on another version and on an array that is missing.
pub(crate) async fn flb_get_incoming(t: &Task) -> Ptr<FlbObj> {
    let (ret, obj) = liveupdate_flb_get_incoming(t, FlbId::Iommu).await;
    match t.k.rev.iommu {
        Iommu::V2 => {
            if ret != 0 || obj == 0 {
                return Ptr::NULL;
            }
        }
        Iommu::Tip => {
            if matches!(ret, ENODATA | ENOENT | EOPNOTSUPP) {
                return Ptr::NULL;
            }
            if ret != 0 {
                t.panic("iommu_liveupdate: incoming FLB cannot be retrieved").await;
            }
        }
    }
    let obj: Ptr<FlbObj> = Ptr::new(obj);
    t.mutex_lock(obj.at(FlbObj::LOCK)).await;
    if let Some(version) = abi(t).flb.version {
        let ser = t.read(obj.at(FlbObj::SER)).await;
        if t.read(ser.at(version)).await != FLB_VERSION {
            t.panic("iommu_liveupdate: unknown version of iommu_flb_ser").await;
        }
        for array in Array::ALL {
            if t.read(ser.at(array.first(abi(t)))).await == 0 {
                t.panic("iommu_liveupdate: an object array is missing").await;
            }
        }
    }
    obj
}

/// Lets go of what [`flb_get_incoming`] got.
pub(crate) async fn flb_put_incoming(t: &Task, obj: Ptr<FlbObj>) {
    t.mutex_unlock(obj.at(FlbObj::LOCK)).await;
    liveupdate_flb_put_incoming(t, FlbId::Iommu).await;
}

/// `iommu_get_preserved_data(token, type)`: the record of a unit. The pointer is returned after the FLB reference is given back
/// (R19).
pub(crate) async fn iommu_get_preserved_data(t: &Task, token: u64) -> Ptr<HwSer> {
    let _in = t.call("iommu_get_preserved_data");
    let obj = flb_get_incoming(t).await;
    if obj.is_null() {
        return Ptr::NULL;
    }
    let hw_abi = &abi(t).hw;
    let mut cursor = first_object(t, obj, Array::Iommu).await;
    let found = loop {
        let slot: Ptr<HwSer> = next_object(t, Array::Iommu, &mut cursor).await.cast();
        if slot.is_null() {
            break slot;
        }
        if t.read(slot.at(hw_abi.kind)).await == HW_TYPE_INTEL && t.read(slot.at(hw_abi.token)).await == token {
            break slot;
        }
    };
    flb_put_incoming(t, obj).await;
    found
}

/// `iommu_get_device_preserved_data(dev)`: the record of a device, marked INCOMING; NULL when it has none.
pub(crate) async fn iommu_get_device_preserved_data(t: &Task, dev: Bdf) -> Ptr<DeviceSer> {
    let _in = t.call("iommu_get_device_preserved_data");
    let obj = flb_get_incoming(t).await;
    if obj.is_null() {
        return Ptr::NULL;
    }
    let device_abi = &abi(t).device;
    let mut cursor = first_object(t, obj, Array::Device).await;
    let found = loop {
        let slot: Ptr<DeviceSer> = next_object(t, Array::Device, &mut cursor).await.cast();
        if slot.is_null() {
            break slot;
        }
        if t.read(slot.at(device_abi.devid)).await == u32::from(dev.0) && t.read(slot.at(device_abi.pci_domain_nr)).await == 0 {
            set_flag(t, slot.cast(), INCOMING).await;
            break slot;
        }
    };
    flb_put_incoming(t, obj).await;
    found
}

/// `iommu_for_each_preserved_device()` for the one use VT-d has of it: reserves the domain ids of the preserved devices behind the
/// unit with this record. False when there is no incoming FLB.
pub(crate) async fn reserve_domain_ids(t: &Task, iommu: Ptr<IntelIommu>, reg_phys: u64) -> bool {
    let _in = t.call("iommu_for_each_preserved_device");
    let obj = flb_get_incoming(t).await;
    if obj.is_null() {
        return false;
    }
    let abi = abi(t);
    let mut cursor = first_object(t, obj, Array::Device).await;
    loop {
        let slot: Ptr<DeviceSer> = next_object(t, Array::Device, &mut cursor).await.cast();
        if slot.is_null() {
            break;
        }
        let hw: Ptr<HwSer> = Ptr::from_pa(Pa(t.read(slot.at(abi.device.iommu_phys)).await));
        if t.read(hw.at(abi.hw.phys_addr)).await == reg_phys {
            let did = t.read(slot.at(abi.device.attachment_id)).await;
            vtd::domain::reserve_domain_id(t, iommu, did as u16).await;
        }
    }
    flb_put_incoming(t, obj).await;
    true
}

/// `iommu_restore_domain(dev, ser, owner)`, patch 09: the domain of a device's record, restored once. An error pointer on failure.
///
/// v2 leaves `owner` untouched when the domain was restored before (R10), and its owner is the address of the record; tip's
/// is the token in it.
pub(crate) async fn iommu_restore_domain(t: &Task, info: Ptr<DevInfo>, ser: Ptr<DeviceSer>, owner: &mut u64) -> Ptr<Domain> {
    let _in = t.call("iommu_restore_domain");
    let abi = abi(t);
    let domain_ser: Ptr<DomainSer> = Ptr::from_pa(Pa(t.read(ser.at(abi.device.domain_phys)).await));
    let obj = flb_get_incoming(t).await;
    if obj.is_null() {
        return Ptr::err(-ENOENT);
    }
    if let Some(token) = abi.device.dma_owner_token {
        *owner = t.read(ser.at(token)).await;
    }
    let restored = t.read(domain_ser.at(abi.domain.restored_domain)).await;
    if restored != 0 {
        flb_put_incoming(t, obj).await;
        return Ptr::new(restored);
    }
    set_flag(t, domain_ser.cast(), INCOMING).await;
    let domain = vtd::domain::intel_iommu_domain_alloc_paging(t, info).await;
    if domain.errno().is_some() {
        flb_put_incoming(t, obj).await;
        return domain;
    }
    let ret = generic_pt::restore(t, domain, domain_ser).await;
    if ret != 0 {
        generic_pt::pt_iommu_deinit(t, domain).await;
        kfree(t, domain).await;
        flb_put_incoming(t, obj).await;
        return Ptr::err(-ret);
    }
    if t.k.rev.iommu == Iommu::V2 {
        *owner = ser.value();
    }
    t.write(domain.at(Domain::PRESERVED_STATE), domain_ser).await;
    t.write(domain_ser.at(abi.domain.restored_domain), domain.value()).await;
    flb_put_incoming(t, obj).await;
    let (top, _) = generic_pt::load_top(t, domain).await;
    t.machine.note(verb::DOMAIN_CREATED, [domain.value(), top.pa().0, 0, 0]);
    domain
}

/// Reclaim (assumed): the device of `info` left the restored domain `old`. True for the last one: nobody finds the domain through
/// its record any more, and the caller frees it.
pub(crate) async fn forget_restored_domain(t: &Task, old: Ptr<Domain>, info: Ptr<DevInfo>) -> bool {
    let abi = abi(t);
    let ser = restored_state(t, info).await;
    if ser.is_null() {
        return false;
    }
    let obj = flb_get_incoming(t).await;
    if obj.is_null() {
        return false;
    }
    let domain_ser: Ptr<DomainSer> = Ptr::from_pa(Pa(t.read(ser.at(abi.device.domain_phys)).await));
    let known = t.read(domain_ser.at(abi.domain.restored_domain)).await == old.value();
    let last = known && domain_is_idle(t, old).await;
    if last {
        t.write(domain_ser.at(abi.domain.restored_domain), 0).await;
    }
    flb_put_incoming(t, obj).await;
    last
}
