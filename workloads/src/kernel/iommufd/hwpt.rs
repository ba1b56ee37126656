//! `struct iommufd_hwpt_paging`: `drivers/iommu/iommufd/hw_pagetable.c`.
//!
//! A HWPT owns one paging domain that maps what its IOAS maps. It holds the IOAS; each attached device holds the HWPT; so does a
//! live update while the HWPT is preserved.

use sim::memory::{Field, Ptr, field};

use super::device::{IommufdDevice, iommufd_get_device};
use super::ioas::{Ioas, iommufd_get_ioas};
use super::iopt_domain::{iopt_table_add_domain, iopt_table_remove_domain};
use super::object::{
    Object, ObjectType, iommufd_object_abort, iommufd_object_alloc, iommufd_object_finalize, iommufd_put_object, refcount_dec, refcount_inc,
};
use super::{IommufdCtx, iommufd_ctx_from_fd, iommufd_ctx_put};
use crate::errno::EFAULT;
use crate::kernel::Task;
use crate::kernel::file::{Files, copy_to_user_fails};
use crate::kernel::iommu::{Domain, iommu_domain_free, iommu_paging_domain_alloc};
use crate::kernel::mm::list::{self, ListHead};
use crate::tag;

/// `struct iommufd_hwpt_paging`.
#[derive(Clone, Copy, Debug)]
pub struct HwptPaging;

impl HwptPaging {
    /// `common.obj`.
    pub const OBJ: Field<Object> = field(0, "hwpt.obj");
    /// `common.domain`.
    pub const DOMAIN: Field<Ptr<Domain>> = field(16, "hwpt.domain");
    /// `ioas`. NULL for a restored HWPT (assumed): nothing can be mapped there.
    pub const IOAS: Field<Ptr<Ioas>> = field(24, "hwpt.ioas");
    /// `hwpt_item`: link in `ioas->hwpt_list`.
    pub const HWPT_ITEM: Field<ListHead> = field(32, "hwpt.hwpt_item");
    /// `liveupdate_token` (IOMMU series): valid while the object is marked, or restored.
    pub const LIVEUPDATE_TOKEN: Field<u32> = field(48, "hwpt.liveupdate_token");
    /// `preserved` (IOMMU series).
    pub const PRESERVED: Field<u8> = field(52, "hwpt.preserved");
    /// Wraps a domain that the IOMMU core restored, which the core frees (assumed, `reclaim` only).
    pub const RESTORED: Field<u8> = field(53, "hwpt.restored");
    /// Bytes.
    pub const BYTES: u16 = 56;
}

/// `IOMMU_HWPT_ALLOC` of a paging HWPT, `iommufd_hwpt_alloc()`: the id or an error.
pub async fn iommufd_hwpt_alloc(t: &Task, files: Ptr<Files>, fd: i32, dev_id: i32, ioas_id: i32) -> i32 {
    let _in = t.call("iommufd_hwpt_alloc");
    let ictx = iommufd_ctx_from_fd(t, files, fd).await;
    if let Some(errno) = ictx.errno() {
        return -errno;
    }
    let rc = 'out_put_ctx: {
        let idev = iommufd_get_device(t, ictx, dev_id).await;
        if let Some(errno) = idev.errno() {
            break 'out_put_ctx -errno;
        }
        let rc = 'out_put_idev: {
            let ioas = iommufd_get_ioas(t, ictx, ioas_id).await;
            if let Some(errno) = ioas.errno() {
                break 'out_put_idev -errno;
            }
            t.mutex_lock(ioas.at(Ioas::MUTEX)).await;
            let hwpt = iommufd_hwpt_paging_alloc(t, ictx, ioas, idev).await;
            let rc = 'out_unlock: {
                if let Some(errno) = hwpt.errno() {
                    break 'out_unlock -errno;
                }
                let id = t.read(hwpt.at(HwptPaging::OBJ).at(Object::ID)).await;
                if copy_to_user_fails(t) {
                    iommufd_hwpt_paging_abort(t, hwpt).await;
                    iommufd_object_abort(t, ictx, hwpt.at(HwptPaging::OBJ)).await;
                    break 'out_unlock EFAULT;
                }
                iommufd_object_finalize(t, ictx, hwpt.at(HwptPaging::OBJ)).await;
                id as i32
            };
            t.mutex_unlock(ioas.at(Ioas::MUTEX)).await;
            iommufd_put_object(t, ictx, ioas.at(Ioas::OBJ)).await;
            rc
        };
        iommufd_put_object(t, ictx, idev.at(IommufdDevice::OBJ)).await;
        rc
    };
    iommufd_ctx_put(t, ictx).await;
    rc
}

/// `iommufd_hwpt_paging_alloc()`: a domain, filled with everything the IOAS maps. The caller holds the IOAS mutex until the object is
/// finalized. ERR pointer on failure.
async fn iommufd_hwpt_paging_alloc(t: &Task, ictx: Ptr<IommufdCtx>, ioas: Ptr<Ioas>, idev: Ptr<IommufdDevice>) -> Ptr<HwptPaging> {
    let _in = t.call("iommufd_hwpt_paging_alloc");
    let hwpt: Ptr<HwptPaging> = iommufd_object_alloc(t, ictx, HwptPaging::BYTES, ObjectType::HwptPaging, tag::HWPT).await;
    if hwpt.errno().is_some() {
        return hwpt;
    }
    list::init(t, hwpt.at(HwptPaging::HWPT_ITEM)).await;
    refcount_inc(t, ioas.at(Ioas::OBJ).at(Object::USERS)).await;
    t.write(hwpt.at(HwptPaging::IOAS), ioas).await;

    let rc = 'out_abort: {
        let dev = IommufdDevice::bdf(t, idev).await;
        let domain = iommu_paging_domain_alloc(t, dev).await;
        if let Some(errno) = domain.errno() {
            break 'out_abort -errno;
        }
        t.write(hwpt.at(HwptPaging::DOMAIN), domain).await;
        let rc = iopt_table_add_domain(t, ioas.at(Ioas::IOPT), domain).await;
        if rc != 0 {
            break 'out_abort rc;
        }
        list::add_tail(t, hwpt.at(HwptPaging::HWPT_ITEM), ioas.at(Ioas::HWPT_LIST)).await;
        return hwpt;
    };
    iommufd_hwpt_paging_abort(t, hwpt).await;
    iommufd_object_abort(t, ictx, hwpt.at(HwptPaging::OBJ)).await;
    Ptr::err(-rc)
}

/// `__iommufd_hwpt_destroy()` and the end of `iommufd_hwpt_paging_destroy()`.
async fn __iommufd_hwpt_destroy(t: &Task, hwpt: Ptr<HwptPaging>) {
    let domain = t.read(hwpt.at(HwptPaging::DOMAIN)).await;
    if !domain.is_null() {
        iommu_domain_free(t, domain).await;
    }
    let ioas = t.read(hwpt.at(HwptPaging::IOAS)).await;
    refcount_dec(t, ioas.at(Ioas::OBJ).at(Object::USERS)).await;
}

/// `iommufd_hwpt_paging_destroy()`: the object is out of the table already.
pub async fn iommufd_hwpt_paging_destroy(t: &Task, hwpt: Ptr<HwptPaging>) {
    let _in = t.call("iommufd_hwpt_paging_destroy");
    if t.read(hwpt.at(HwptPaging::RESTORED)).await != 0 {
        // Assumed: the core frees the restored domain when its last device leaves it.
        return;
    }
    if !list::empty(t, hwpt.at(HwptPaging::HWPT_ITEM)).await {
        let ioas = t.read(hwpt.at(HwptPaging::IOAS)).await;
        t.mutex_lock(ioas.at(Ioas::MUTEX)).await;
        list::del(t, hwpt.at(HwptPaging::HWPT_ITEM)).await;
        t.mutex_unlock(ioas.at(Ioas::MUTEX)).await;
        let domain = t.read(hwpt.at(HwptPaging::DOMAIN)).await;
        iopt_table_remove_domain(t, ioas.at(Ioas::IOPT), domain).await;
    }
    __iommufd_hwpt_destroy(t, hwpt).await;
}

/// `iommufd_hwpt_paging_abort()`: as destroy, with the IOAS mutex held.
async fn iommufd_hwpt_paging_abort(t: &Task, hwpt: Ptr<HwptPaging>) {
    if !list::empty(t, hwpt.at(HwptPaging::HWPT_ITEM)).await {
        let ioas = t.read(hwpt.at(HwptPaging::IOAS)).await;
        list::del(t, hwpt.at(HwptPaging::HWPT_ITEM)).await;
        let domain = t.read(hwpt.at(HwptPaging::DOMAIN)).await;
        iopt_table_remove_domain(t, ioas.at(Ioas::IOPT), domain).await;
    }
    __iommufd_hwpt_destroy(t, hwpt).await;
}

/// `iommufd_hw_pagetable_put()`: an attachment's hold goes. Manual HWPTs stay until userspace destroys them.
pub async fn iommufd_hw_pagetable_put(t: &Task, hwpt: Ptr<HwptPaging>) {
    refcount_dec(t, hwpt.at(HwptPaging::OBJ).at(Object::USERS)).await;
}
