//! The second phase of live update for iommufd. **Assumed code**: only a sketch exists ("[RFC PATCH v2 00/32]", 2025-12-02).
//!
//! What the sketch says: retrieve makes a context; an ioctl restores a HWPT by token and wraps the domain that the IOMMU core
//! restored; finish requires that the file was retrieved, every HWPT reclaimed, and nothing is attached to a restored domain;
//! ownership of a device goes to the new context by token; the switch to a new domain is hitless.
//!
//! The order for userspace:
//!
//! 1. retrieve memfd, iommufd and device files from the session, in any order;
//! 2. [`iommufd_hwpt_restore`] for each token: a HWPT that wraps the restored domain;
//! 3. bind each device: ownership is handed on, and it comes attached to its wrapper, still running;
//! 4. new IOAS, the same maps from the retrieved memfd, new HWPT;
//! 5. attach each device to the new HWPT: this replaces the restored domain, which the IOMMU core frees with its last device;
//! 6. destroy the wrappers, or leave that to finish;
//! 7. FINISH: the header goes.
//!
//! Everything that looks at the header holds `liveupdate_mutex`. The header stays read-only until finish restores and frees it; what
//! is reclaimed stands in a bitmap of the context instead of the `reclaimed` byte.

use iommu_model::addr::{Bdf, Pa};
use sim::memory::Ptr;

use super::hwpt::{HwptPaging, iommufd_hw_pagetable_put};
use super::object::{
    Object, ObjectType, SLOTS, iommufd_object_alloc, iommufd_object_finalize, iommufd_object_remove, refcount_inc, xa_find,
};
use super::{IommufdCtx, iommufd_ctx, iommufd_ctx_from_fd, iommufd_ctx_put, iommufd_fops_open};
use crate::abi::iommu::{DomainSer, IommuAbi};
use crate::abi::iommufd::{self as abi, IommufdSer};
use crate::defect::Defect;
use crate::errno::{EEXIST, ENOENT, ENOTTY, EPERM, Errno};
use crate::kernel::Task;
use crate::kernel::file::Files;
use crate::kernel::iommu::{Domain, iommu_device_claim_restored, iommu_restored_domain};
use crate::kernel::kho::kho_restore_free;
use crate::kernel::luo::FileOpArgs;
use crate::kernel::mm::list;
use crate::tag;

/// Retrieve: a context that knows its header. Nothing else is done yet.
pub async fn iommufd_liveupdate_retrieve(t: &Task, args: &mut FileOpArgs) -> Errno {
    let filp = iommufd_fops_open(t).await;
    if let Some(errno) = filp.errno() {
        return -errno;
    }
    let ictx = iommufd_ctx(t, filp).await;
    t.write(ictx.at(IommufdCtx::INCOMING_SER), Ptr::from_pa(Pa(args.serialized_data))).await;
    args.file = filp;
    0
}

/// The domain that the IOMMU core restored for entry `index`, NULL when it did not.
async fn restored_domain_of(t: &Task, ser: Ptr<IommufdSer>, index: u32) -> Ptr<Domain> {
    let domain_ser: Ptr<DomainSer> = Ptr::from_pa(Pa(t.read(abi::hwpt(ser, index).at(abi::DOMAIN_DATA)).await));
    Ptr::new(t.read(domain_ser.at(IommuAbi::of(t.k.rev.iommu).domain.restored_domain)).await)
}

/// Entry of `domain`, or `nr_hwpts`.
async fn find_entry(t: &Task, ser: Ptr<IommufdSer>, domain: Ptr<Domain>) -> u32 {
    let nr_hwpts = t.read(ser.at(abi::NR_HWPTS)).await;
    let mut index = 0;
    while index < nr_hwpts && (domain.is_null() || restored_domain_of(t, ser, index).await != domain) {
        index += 1;
    }
    index
}

/// The wrapper of `domain` with one more user, which becomes an attachment. NULL when there is none.
async fn get_wrapper(t: &Task, ictx: Ptr<IommufdCtx>, domain: Ptr<Domain>) -> Ptr<HwptPaging> {
    let mut id = 1;
    let mut found = Ptr::NULL;
    t.spin_lock(ictx.at(IommufdCtx::XA_LOCK)).await;
    loop {
        let (at, obj) = xa_find(t, ictx, id, false).await;
        if obj.is_null() {
            break;
        }
        let hwpt: Ptr<HwptPaging> = obj.cast();
        if t.read(obj.at(Object::TYPE)).await == ObjectType::HwptPaging as u32
            && t.read(hwpt.at(HwptPaging::RESTORED)).await != 0
            && t.read(hwpt.at(HwptPaging::DOMAIN)).await == domain
        {
            refcount_inc(t, obj.at(Object::USERS)).await;
            found = hwpt;
            break;
        }
        id = at + 1;
    }
    t.spin_unlock(ictx.at(IommufdCtx::XA_LOCK)).await;
    found
}

/// Ioctl of a retrieved context: wraps the restored domain of `token`, once. The id or an error.
pub async fn iommufd_hwpt_restore(t: &Task, files: Ptr<Files>, fd: i32, token: u64) -> i32 {
    let _in = t.call("iommufd_hwpt_restore");
    let ictx = iommufd_ctx_from_fd(t, files, fd).await;
    if let Some(errno) = ictx.errno() {
        return -errno;
    }
    t.mutex_lock(ictx.at(IommufdCtx::LIVEUPDATE_MUTEX)).await;
    let rc = 'out_unlock: {
        let ser = t.read(ictx.at(IommufdCtx::INCOMING_SER)).await;
        if ser.is_null() {
            break 'out_unlock ENOTTY;
        }
        let nr_hwpts = t.read(ser.at(abi::NR_HWPTS)).await;
        let mut index = 0;
        while index < nr_hwpts && u64::from(t.read(abi::hwpt(ser, index).at(abi::TOKEN)).await) != token {
            index += 1;
        }
        if index == nr_hwpts || index >= SLOTS {
            break 'out_unlock ENOENT;
        }
        let reclaimed = t.read(ictx.at(IommufdCtx::RECLAIMED)).await;
        if reclaimed & 1 << index != 0 {
            break 'out_unlock EEXIST;
        }
        let domain = restored_domain_of(t, ser, index).await;
        if domain.is_null() {
            break 'out_unlock ENOENT;
        }
        let hwpt: Ptr<HwptPaging> = iommufd_object_alloc(t, ictx, HwptPaging::BYTES, ObjectType::HwptPaging, tag::HWPT).await;
        if let Some(errno) = hwpt.errno() {
            break 'out_unlock -errno;
        }
        list::init(t, hwpt.at(HwptPaging::HWPT_ITEM)).await;
        t.write(hwpt.at(HwptPaging::DOMAIN), domain).await;
        t.write(hwpt.at(HwptPaging::RESTORED), 1).await;
        t.write(ictx.at(IommufdCtx::RECLAIMED), reclaimed | 1 << index).await;
        let id = t.read(hwpt.at(HwptPaging::OBJ).at(Object::ID)).await;
        iommufd_object_finalize(t, ictx, hwpt.at(HwptPaging::OBJ)).await;
        id as i32
    };
    t.mutex_unlock(ictx.at(IommufdCtx::LIVEUPDATE_MUTEX)).await;
    iommufd_ctx_put(t, ictx).await;
    rc
}

/// Bind of an incoming device: only the context retrieved with the device's domain gets it, without touching the translation, and
/// only after its HWPT was restored. Returns the wrapper, with a user for the attachment.
pub async fn iommufd_device_claim_restored(t: &Task, ictx: Ptr<IommufdCtx>, dev: Bdf, token: u64) -> (Errno, Ptr<HwptPaging>) {
    let _in = t.call("iommufd_device_claim_restored");
    let mut hwpt = Ptr::NULL;
    t.mutex_lock(ictx.at(IommufdCtx::LIVEUPDATE_MUTEX)).await;
    let rc = 'out_unlock: {
        let ser = t.read(ictx.at(IommufdCtx::INCOMING_SER)).await;
        if ser.is_null() {
            break 'out_unlock EPERM;
        }
        let domain = iommu_restored_domain(t, dev).await;
        if find_entry(t, ser, domain).await == t.read(ser.at(abi::NR_HWPTS)).await {
            break 'out_unlock EPERM;
        }
        hwpt = get_wrapper(t, ictx, domain).await;
        if hwpt.is_null() {
            break 'out_unlock ENOENT;
        }
        let rc = iommu_device_claim_restored(t, dev, token, ictx.value()).await;
        if rc != 0 {
            iommufd_hw_pagetable_put(t, hwpt).await;
        }
        rc
    };
    t.mutex_unlock(ictx.at(IommufdCtx::LIVEUPDATE_MUTEX)).await;
    (rc, hwpt)
}

/// Can finish: retrieved, every HWPT reclaimed, no device left on any restored domain.
pub async fn iommufd_liveupdate_can_finish(t: &Task, args: &mut FileOpArgs) -> bool {
    if args.retrieve_status <= 0 || args.file.is_null() {
        return false;
    }
    let ictx = iommufd_ctx(t, args.file).await;
    t.mutex_lock(ictx.at(IommufdCtx::LIVEUPDATE_MUTEX)).await;
    let can_finish = 'out_unlock: {
        let ser = t.read(ictx.at(IommufdCtx::INCOMING_SER)).await;
        let nr_hwpts = t.read(ser.at(abi::NR_HWPTS)).await;
        if t.read(ictx.at(IommufdCtx::RECLAIMED)).await != (1 << nr_hwpts.min(SLOTS)) - 1 {
            break 'out_unlock false;
        }
        for device in &t.k.topo.devices {
            let domain = iommu_restored_domain(t, device.bdf).await;
            if find_entry(t, ser, domain).await != nr_hwpts {
                break 'out_unlock false;
            }
        }
        true
    };
    t.mutex_unlock(ictx.at(IommufdCtx::LIVEUPDATE_MUTEX)).await;
    can_finish
}

/// Finish: from here on the context is an ordinary one. Wrappers that userspace did not destroy go, unless a short-term holder is in
/// the way: then they stay, with no domain behind them.
pub async fn iommufd_liveupdate_finish(t: &Task, args: &mut FileOpArgs) {
    let ictx = iommufd_ctx(t, args.file).await;
    t.mutex_lock(ictx.at(IommufdCtx::LIVEUPDATE_MUTEX)).await;
    let ser = t.read(ictx.at(IommufdCtx::INCOMING_SER)).await;
    t.write(ictx.at(IommufdCtx::INCOMING_SER), Ptr::NULL).await;
    let mut id = 1;
    loop {
        t.spin_lock(ictx.at(IommufdCtx::XA_LOCK)).await;
        let (at, obj) = xa_find(t, ictx, id, false).await;
        let wrapper = !obj.is_null()
            && t.read(obj.at(Object::TYPE)).await == ObjectType::HwptPaging as u32
            && t.read(obj.cast::<HwptPaging>().at(HwptPaging::RESTORED)).await != 0;
        t.spin_unlock(ictx.at(IommufdCtx::XA_LOCK)).await;
        if obj.is_null() {
            break;
        }
        if wrapper {
            iommufd_object_remove(t, ictx, Ptr::<Object>::NULL, at).await;
        }
        id = at + 1;
    }
    if !t.k.has(Defect::FinishKeepsHeader) {
        kho_restore_free(t, ser).await;
    }
    t.mutex_unlock(ictx.at(IommufdCtx::LIVEUPDATE_MUTEX)).await;
}

const _: () = assert!(SLOTS < 64, "one word holds a bit for each HWPT");
