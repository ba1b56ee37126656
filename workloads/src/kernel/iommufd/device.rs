//! `struct iommufd_device`: `drivers/iommu/iommufd/device.c`. Binding takes DMA ownership; attaching puts the device on a HWPT.
//!
//! Groups have one device, so `struct iommufd_group` is part of the device here: its lock and its HWPT.
//!
//! Not modelled: reserved regions, MSI windows, cache-coherency enforcement, automatic domains.

use iommu_model::addr::Bdf;
use sim::memory::{Field, Ptr, field};
use sim::sync::Mutex;

use super::hwpt::{HwptPaging, iommufd_hw_pagetable_put};
use super::object::{
    Object, ObjectType, iommufd_get_object, iommufd_object_abort, iommufd_object_alloc, iommufd_object_finalize, iommufd_object_remove,
    iommufd_put_object, refcount_inc, xa_get_mark,
};
use super::{IommufdCtx, iommufd_ctx_get, iommufd_ctx_put, reclaim};
use crate::errno::{EBUSY, EINVAL, ENOENT, Errno};
use crate::kernel::Task;
use crate::kernel::iommu::{
    iommu_attach_group, iommu_detach_group, iommu_device_claim_dma_owner, iommu_device_release_dma_owner, iommu_preserve_device,
    iommu_replace_group, iommu_unpreserve_device,
};
use crate::kernel::luo::{Session, liveupdate_get_token_outgoing};
use crate::mark::Mark;
use crate::tag;

/// `struct iommufd_device` with the `struct iommufd_group` of its only member.
#[derive(Clone, Copy, Debug)]
pub struct IommufdDevice;

impl IommufdDevice {
    /// `obj`.
    pub const OBJ: Field<Object> = field(0, "idev.obj");
    /// `dev`, as its requester id.
    pub const DEV: Field<u16> = field(16, "idev.dev");
    /// `ictx`.
    pub const ICTX: Field<Ptr<IommufdCtx>> = field(24, "idev.ictx");
    /// `igroup->lock`.
    pub const IGROUP_LOCK: Field<Mutex> = field(32, "igroup.lock");
    /// `igroup->hwpt`: NULL when not attached.
    pub const IGROUP_HWPT: Field<Ptr<HwptPaging>> = field(40, "igroup.hwpt");
    const BYTES: u16 = 48;

    /// The device.
    pub async fn bdf(t: &Task, idev: Ptr<IommufdDevice>) -> Bdf {
        Bdf(t.read(idev.at(IommufdDevice::DEV)).await)
    }
}

/// `iommufd_device_bind()`: the device belongs to this context. `incoming` is the token of the iommufd file under which the outgoing
/// kernel preserved the device (assumed: then ownership is handed on, and the device comes attached to its restored HWPT). ERR pointer
/// on failure.
pub async fn iommufd_device_bind(t: &Task, ictx: Ptr<IommufdCtx>, dev: Bdf, incoming: Option<u64>) -> Ptr<IommufdDevice> {
    let _in = t.call("iommufd_device_bind");
    let incoming = incoming.filter(|_| t.k.rev.reclaim);
    if incoming.is_none() {
        let rc = iommu_device_claim_dma_owner(t, dev, ictx.value()).await;
        if rc != 0 {
            return Ptr::err(-rc);
        }
    }
    let idev: Ptr<IommufdDevice> = iommufd_object_alloc(t, ictx, IommufdDevice::BYTES, ObjectType::Device, tag::IOMMUFD_DEVICE).await;
    if idev.errno().is_some() {
        if incoming.is_none() {
            iommu_device_release_dma_owner(t, dev).await;
        }
        return idev;
    }
    // Reclaim (assumed): ownership moves last. There is no way to give a restored device back without cutting its DMA off.
    let mut restored_hwpt = Ptr::NULL;
    if let Some(token) = incoming {
        let (rc, hwpt) = reclaim::iommufd_device_claim_restored(t, ictx, dev, token).await;
        if rc != 0 {
            iommufd_object_abort(t, ictx, idev.at(IommufdDevice::OBJ)).await;
            return Ptr::err(-rc);
        }
        restored_hwpt = hwpt;
    }
    t.init_lock(idev.at(IommufdDevice::IGROUP_LOCK)).await;
    iommufd_ctx_get(t, ictx).await;
    t.write(idev.at(IommufdDevice::ICTX), ictx).await;
    t.write(idev.at(IommufdDevice::DEV), dev.0).await;
    t.write(idev.at(IommufdDevice::IGROUP_HWPT), restored_hwpt).await;
    // The driver holds the object until iommufd_device_unbind(), so that userspace cannot destroy it.
    refcount_inc(t, idev.at(IommufdDevice::OBJ).at(Object::USERS)).await;
    iommufd_object_finalize(t, ictx, idev.at(IommufdDevice::OBJ)).await;
    idev
}

/// `iommufd_device_unbind()`: the driver is done with the device.
pub async fn iommufd_device_unbind(t: &Task, idev: Ptr<IommufdDevice>) {
    let _in = t.call("iommufd_device_unbind");
    let ictx = t.read(idev.at(IommufdDevice::ICTX)).await;
    let id = t.read(idev.at(IommufdDevice::OBJ).at(Object::ID)).await;
    let rc = iommufd_object_remove(t, ictx, idev.at(IommufdDevice::OBJ), id).await;
    t.warn_on(rc != 0, "iommufd_object_destroy_user");
}

/// `iommufd_device_destroy()`.
pub async fn iommufd_device_destroy(t: &Task, idev: Ptr<IommufdDevice>) {
    let _in = t.call("iommufd_device_destroy");
    let dev = IommufdDevice::bdf(t, idev).await;
    iommu_device_release_dma_owner(t, dev).await;
    let ictx = t.read(idev.at(IommufdDevice::ICTX)).await;
    iommufd_ctx_put(t, ictx).await;
}

/// `iommufd_get_device()`. ERR pointer when `id` is not a device.
pub async fn iommufd_get_device(t: &Task, ictx: Ptr<IommufdCtx>, id: i32) -> Ptr<IommufdDevice> {
    iommufd_get_object(t, ictx, id as u32, ObjectType::Device).await
}

/// `iommufd_hw_pagetable_attach()`: the first attachment of the group.
async fn iommufd_hw_pagetable_attach(t: &Task, hwpt: Ptr<HwptPaging>, idev: Ptr<IommufdDevice>) -> Errno {
    let _in = t.call("iommufd_hw_pagetable_attach");
    t.mutex_lock(idev.at(IommufdDevice::IGROUP_LOCK)).await;
    let rc = 'out_unlock: {
        if !t.read(idev.at(IommufdDevice::IGROUP_HWPT)).await.is_null() {
            break 'out_unlock EBUSY;
        }
        if t.read(hwpt.at(HwptPaging::RESTORED)).await != 0 {
            // Assumed: there is no way back to a restored domain.
            break 'out_unlock EINVAL;
        }
        let dev = IommufdDevice::bdf(t, idev).await;
        let domain = t.read(hwpt.at(HwptPaging::DOMAIN)).await;
        let rc = iommu_attach_group(t, domain, dev).await;
        if rc != 0 {
            break 'out_unlock rc;
        }
        t.write(idev.at(IommufdDevice::IGROUP_HWPT), hwpt).await;
        refcount_inc(t, hwpt.at(HwptPaging::OBJ).at(Object::USERS)).await;
        0
    };
    t.mutex_unlock(idev.at(IommufdDevice::IGROUP_LOCK)).await;
    rc
}

/// `iommufd_device_do_replace()`: the hitless switch. Returns the old HWPT, whose hold the caller drops after all locks.
async fn iommufd_device_do_replace(t: &Task, hwpt: Ptr<HwptPaging>, idev: Ptr<IommufdDevice>) -> (Errno, Ptr<HwptPaging>) {
    let _in = t.call("iommufd_device_do_replace");
    t.mutex_lock(idev.at(IommufdDevice::IGROUP_LOCK)).await;
    let mut old_hwpt = Ptr::NULL;
    let rc = 'out_unlock: {
        let old = t.read(idev.at(IommufdDevice::IGROUP_HWPT)).await;
        if old.is_null() {
            break 'out_unlock EINVAL;
        }
        if old == hwpt {
            break 'out_unlock 0;
        }
        if t.read(hwpt.at(HwptPaging::RESTORED)).await != 0 {
            // Assumed: there is no way back to a restored domain.
            break 'out_unlock EINVAL;
        }
        let dev = IommufdDevice::bdf(t, idev).await;
        let domain = t.read(hwpt.at(HwptPaging::DOMAIN)).await;
        let rc = iommu_replace_group(t, domain, dev).await;
        if rc != 0 {
            break 'out_unlock rc;
        }
        if t.read(old.at(HwptPaging::RESTORED)).await != 0 {
            t.mark(Mark::DomainReplaced);
        }
        refcount_inc(t, hwpt.at(HwptPaging::OBJ).at(Object::USERS)).await;
        t.write(idev.at(IommufdDevice::IGROUP_HWPT), hwpt).await;
        old_hwpt = old;
        0
    };
    t.mutex_unlock(idev.at(IommufdDevice::IGROUP_LOCK)).await;
    (rc, old_hwpt)
}

/// `iommufd_device_change_pt()`: attach, or replace when `replace`.
async fn iommufd_device_change_pt(t: &Task, idev: Ptr<IommufdDevice>, pt_id: i32, replace: bool) -> Errno {
    let ictx = t.read(idev.at(IommufdDevice::ICTX)).await;
    let hwpt: Ptr<HwptPaging> = iommufd_get_object(t, ictx, pt_id as u32, ObjectType::HwptPaging).await;
    if let Some(errno) = hwpt.errno() {
        return -errno;
    }
    let (rc, destroy_hwpt) = if replace {
        iommufd_device_do_replace(t, hwpt, idev).await
    } else {
        (iommufd_hw_pagetable_attach(t, hwpt, idev).await, Ptr::NULL)
    };
    iommufd_put_object(t, ictx, hwpt.at(HwptPaging::OBJ)).await;
    if !destroy_hwpt.is_null() {
        iommufd_hw_pagetable_put(t, destroy_hwpt).await;
    }
    rc
}

/// `iommufd_device_attach()`.
pub async fn iommufd_device_attach(t: &Task, idev: Ptr<IommufdDevice>, pt_id: i32) -> Errno {
    let _in = t.call("iommufd_device_attach");
    iommufd_device_change_pt(t, idev, pt_id, false).await
}

/// `iommufd_device_replace()`.
pub async fn iommufd_device_replace(t: &Task, idev: Ptr<IommufdDevice>, pt_id: i32) -> Errno {
    let _in = t.call("iommufd_device_replace");
    iommufd_device_change_pt(t, idev, pt_id, true).await
}

/// `iommufd_device_detach()`: back to the blocking domain. In the kernel it cannot fail; here the core may refuse for a preserved
/// device (an assumption of the IOMMU core's model), then nothing has changed.
pub async fn iommufd_device_detach(t: &Task, idev: Ptr<IommufdDevice>) -> Errno {
    let _in = t.call("iommufd_device_detach");
    t.mutex_lock(idev.at(IommufdDevice::IGROUP_LOCK)).await;
    let hwpt = t.read(idev.at(IommufdDevice::IGROUP_HWPT)).await;
    let rc = 'out_unlock: {
        if hwpt.is_null() {
            break 'out_unlock 0;
        }
        let dev = IommufdDevice::bdf(t, idev).await;
        let domain = t.read(hwpt.at(HwptPaging::DOMAIN)).await;
        let rc = iommu_detach_group(t, domain, dev).await;
        if rc != 0 {
            break 'out_unlock rc;
        }
        t.write(idev.at(IommufdDevice::IGROUP_HWPT), Ptr::NULL).await;
        0
    };
    t.mutex_unlock(idev.at(IommufdDevice::IGROUP_LOCK)).await;
    if rc == 0 && !hwpt.is_null() {
        iommufd_hw_pagetable_put(t, hwpt).await;
    }
    rc
}

/// `iommufd_device_preserve()` (IOMMU series, "Add APIs to preserve/unpreserve a vfio cdev"): returns the token of the iommufd file.
pub async fn iommufd_device_preserve(t: &Task, session: Ptr<Session>, idev: Ptr<IommufdDevice>) -> (Errno, u64) {
    let _in = t.call("iommufd_device_preserve");
    let mut token = 0;
    t.mutex_lock(idev.at(IommufdDevice::IGROUP_LOCK)).await;
    let rc = 'out: {
        let hwpt = t.read(idev.at(IommufdDevice::IGROUP_HWPT)).await;
        if hwpt.is_null() {
            break 'out ENOENT;
        }
        let ictx = t.read(idev.at(IommufdDevice::ICTX)).await;
        let id = t.read(hwpt.at(HwptPaging::OBJ).at(Object::ID)).await;
        if !xa_get_mark(t, ictx, id).await {
            break 'out EINVAL;
        }
        let file = t.read(ictx.at(IommufdCtx::FILE)).await;
        let rc;
        (rc, token) = liveupdate_get_token_outgoing(t, session, file).await;
        if rc != 0 {
            break 'out rc;
        }
        let domain = t.read(hwpt.at(HwptPaging::DOMAIN)).await;
        let dev = IommufdDevice::bdf(t, idev).await;
        let (rc, _) = iommu_preserve_device(t, domain, dev, token).await;
        rc
    };
    t.mutex_unlock(idev.at(IommufdDevice::IGROUP_LOCK)).await;
    (rc, token)
}

/// `iommufd_device_unpreserve()`: of the attachment there is **now**. When it is gone or its HWPT is not marked, the record stays
/// behind, with a warning.
pub async fn iommufd_device_unpreserve(t: &Task, idev: Ptr<IommufdDevice>) {
    let _in = t.call("iommufd_device_unpreserve");
    t.mutex_lock(idev.at(IommufdDevice::IGROUP_LOCK)).await;
    'out: {
        let hwpt = t.read(idev.at(IommufdDevice::IGROUP_HWPT)).await;
        if t.warn_on(hwpt.is_null(), "iommufd_device_unpreserve") {
            break 'out;
        }
        let ictx = t.read(idev.at(IommufdDevice::ICTX)).await;
        let id = t.read(hwpt.at(HwptPaging::OBJ).at(Object::ID)).await;
        if t.warn_on(!xa_get_mark(t, ictx, id).await, "iommufd_device_unpreserve") {
            break 'out;
        }
        let domain = t.read(hwpt.at(HwptPaging::DOMAIN)).await;
        let dev = IommufdDevice::bdf(t, idev).await;
        iommu_unpreserve_device(t, domain, dev).await;
    }
    t.mutex_unlock(idev.at(IommufdDevice::IGROUP_LOCK)).await;
}
