//! Live update of an iommufd file: `drivers/iommu/iommufd/liveupdate.c`, IOMMU series v2 patch 13 and the author's branch.
//!
//! Userspace marks HWPTs, then puts the file into a session. Preserving makes the address space of each marked HWPT immutable, checks
//! that everything mapped there is kept by a memfd of the same session, and preserves the domain. There is no way to unmark.
//!
//! Phase 1 of the series ends here: retrieve is -EOPNOTSUPP, so a session with an iommufd can never finish. What follows is in
//! [`super::reclaim`].
//!
//! All of it runs under `liveupdate_mutex`, so no mark is set between the pass that counts and the pass that fills; but a marked HWPT
//! may be destroyed there, then fewer entries are filled than counted (R32).

use iommu_model::addr::Pa;
use sim::memory::Ptr;

use super::hwpt::HwptPaging;
use super::io_pagetable::{IoPagetable, IoptArea, iopt_area_first, iopt_area_next, iopt_clear_immutable, iopt_set_immutable};
use super::ioas::Ioas;
use super::object::{Object, ObjectType, iommufd_get_object, iommufd_lock_obj, iommufd_put_object, xa_find, xa_set_mark};
use super::pages::{IOPT_ADDRESS_FILE, IoptPages};
use super::{IommufdCtx, iommufd_ctx, iommufd_ctx_from_fd, iommufd_ctx_put, reclaim};
use crate::abi::iommufd::{self as abi, HwptSer, IommufdSer};
use crate::defect::Defect;
use crate::errno::{EADDRINUSE, EINVAL, ENOENT, ENOMEM, EOPNOTSUPP, Errno};
use crate::kernel::Task;
use crate::kernel::file::{FileKind, Files, file_kind};
use crate::kernel::iommu::{iommu_preserve_domain, iommu_unpreserve_domain};
use crate::kernel::kho::{kho_alloc_preserve, kho_unpreserve_free};
use crate::kernel::luo::{FileOpArgs, Session, liveupdate_get_token_outgoing};
use crate::kernel::memfd::{F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK};
use crate::mark::Mark;
use crate::revision::{Iommu, MapRule};
use crate::tag;

/// `IOMMU_HWPT_LIVEUPDATE_MARK_PRESERVE`, `iommufd_hwpt_liveupdate_mark_preserve()`: for good.
pub async fn iommufd_hwpt_set_preserve(t: &Task, files: Ptr<Files>, fd: i32, hwpt_id: i32, token: u64) -> Errno {
    let _in = t.call("iommufd_hwpt_set_preserve");
    let Ok(token) = u32::try_from(token) else { return EINVAL };
    let ictx = iommufd_ctx_from_fd(t, files, fd).await;
    if let Some(errno) = ictx.errno() {
        return -errno;
    }
    t.mutex_lock(ictx.at(IommufdCtx::LIVEUPDATE_MUTEX)).await;
    let rc = 'out_unlock: {
        let hwpt: Ptr<HwptPaging> = iommufd_get_object(t, ictx, hwpt_id as u32, ObjectType::HwptPaging).await;
        if let Some(errno) = hwpt.errno() {
            break 'out_unlock -errno;
        }
        t.spin_lock(ictx.at(IommufdCtx::XA_LOCK)).await;
        let rc = 'out_put: {
            if t.read(hwpt.at(HwptPaging::RESTORED)).await != 0 {
                // Assumed: a restored HWPT cannot be preserved again.
                break 'out_put EINVAL;
            }
            let mut id = 1;
            loop {
                let (at, other) = xa_find(t, ictx, id, true).await;
                if other.is_null() {
                    break;
                }
                if t.read(other.cast::<HwptPaging>().at(HwptPaging::LIVEUPDATE_TOKEN)).await == token {
                    break 'out_put EADDRINUSE;
                }
                id = at + 1;
            }
            t.write(hwpt.at(HwptPaging::LIVEUPDATE_TOKEN), token).await;
            xa_set_mark(t, ictx, hwpt_id as u32).await;
            0
        };
        t.spin_unlock(ictx.at(IommufdCtx::XA_LOCK)).await;
        iommufd_put_object(t, ictx, hwpt.at(HwptPaging::OBJ)).await;
        rc
    };
    t.mutex_unlock(ictx.at(IommufdCtx::LIVEUPDATE_MUTEX)).await;
    iommufd_ctx_put(t, ictx).await;
    rc
}

/// `iommufd_liveupdate_can_preserve()`: any iommufd file.
pub async fn iommufd_liveupdate_can_preserve(t: &Task, args: &mut FileOpArgs) -> bool {
    file_kind(t, args.file).await == Some(FileKind::Iommufd)
}

/// First pass of preserve: how many marked HWPTs there are. An error when one has no domain.
async fn iommufd_count_hwpts(t: &Task, ictx: Ptr<IommufdCtx>) -> (Errno, u32) {
    let mut nr_hwpts = 0;
    let mut rc = 0;
    let mut id = 1;
    t.spin_lock(ictx.at(IommufdCtx::XA_LOCK)).await;
    loop {
        let (at, obj) = xa_find(t, ictx, id, true).await;
        if obj.is_null() {
            break;
        }
        if t.read(obj.cast::<HwptPaging>().at(HwptPaging::DOMAIN)).await.is_null() {
            rc = EINVAL;
            break;
        }
        nr_hwpts += 1;
        id = at + 1;
    }
    t.spin_unlock(ictx.at(IommufdCtx::XA_LOCK)).await;
    (rc, nr_hwpts)
}

/// `iommufd_save_ioas()` check: each area must be backed by a file that cannot change its size any more and that this session keeps.
async fn check_areas(t: &Task, session: Ptr<Session>, iopt: Ptr<IoPagetable>) -> Errno {
    let _in = t.call("iopt_check_liveupdate_areas");
    const SEALS: u32 = F_SEAL_SEAL | F_SEAL_GROW | F_SEAL_SHRINK;
    t.down_read(iopt.at(IoPagetable::IOVA_RWSEM)).await;
    let rc = 'out_unlock: {
        let mut area = iopt_area_first(t, iopt).await;
        while !area.is_null() {
            // R3: a map that has only reserved its area yet left NULL here. No revision read tests for it.
            let pages = t.read(area.at(IoptArea::PAGES)).await;
            if t.read(pages.at(IoptPages::TYPE)).await != IOPT_ADDRESS_FILE {
                break 'out_unlock EINVAL;
            }
            if t.read(pages.at(IoptPages::SEALS)).await & SEALS != SEALS {
                break 'out_unlock EINVAL;
            }
            let file = t.read(pages.at(IoptPages::FILE)).await;
            let (rc, _token) = liveupdate_get_token_outgoing(t, session, file).await;
            let _in = t.call("iopt_check_liveupdate_areas");
            if rc != 0 {
                break 'out_unlock rc;
            }
            area = iopt_area_next(t, iopt, area).await;
        }
        0
    };
    t.up_read(iopt.at(IoPagetable::IOVA_RWSEM)).await;
    rc
}

/// `iommufd_save_hwpt()`: address space, then domain, then the entry. A second HWPT of an immutable address space skips the check.
async fn iommufd_save_hwpt(t: &Task, session: Ptr<Session>, hwpt: Ptr<HwptPaging>, entry: Ptr<HwptSer>) -> Errno {
    let _in = t.call("iommufd_save_hwpt");
    let ioas = t.read(hwpt.at(HwptPaging::IOAS)).await;
    let iopt = ioas.at(Ioas::IOPT);
    // All writers hold the liveupdate_mutex of this context.
    let mine = t.read(iopt.at(IoPagetable::IMMUTABLE)).await == 0;
    if mine {
        iopt_set_immutable(t, iopt).await;
        let rc = check_areas(t, session, iopt).await;
        if rc != 0 {
            iopt_clear_immutable(t, iopt).await;
            return rc;
        }
    }
    let token = t.read(hwpt.at(HwptPaging::LIVEUPDATE_TOKEN)).await;
    t.write(entry.at(abi::TOKEN), token).await;
    t.write(entry.at(abi::RECLAIMED), 0).await;
    let domain = t.read(hwpt.at(HwptPaging::DOMAIN)).await;
    let (rc, domain_ser) = iommu_preserve_domain(t, domain).await;
    if rc != 0 {
        if mine && !t.k.has(Defect::RollbackKeepsImmutable) {
            iopt_clear_immutable(t, iopt).await;
        }
        return rc;
    }
    t.write(entry.at(abi::DOMAIN_DATA), domain_ser.0).await;
    0
}

/// Undoes the second pass of preserve: domain, address space, hold, one HWPT after the other. When two HWPTs share an address space
/// it becomes mutable with the first of them (R4). Series v1 stores to all address spaces of the context afterwards.
async fn iommufd_unpreserve_hwpts(t: &Task, ictx: Ptr<IommufdCtx>) {
    let _in = t.call("iommufd_unpreserve_hwpts");
    let mut id = 1;
    let mut done = 0;
    loop {
        t.spin_lock(ictx.at(IommufdCtx::XA_LOCK)).await;
        let (at, obj) = xa_find(t, ictx, id, true).await;
        let hwpt: Ptr<HwptPaging> = obj.cast();
        let preserved = !obj.is_null() && t.read(hwpt.at(HwptPaging::PRESERVED)).await != 0;
        t.spin_unlock(ictx.at(IommufdCtx::XA_LOCK)).await;
        if obj.is_null() {
            break;
        }
        id = at + 1;
        if !preserved {
            continue;
        }
        let domain = t.read(hwpt.at(HwptPaging::DOMAIN)).await;
        iommu_unpreserve_domain(t, domain).await;
        t.write(hwpt.at(HwptPaging::PRESERVED), 0).await;
        match t.k.rev.map_rule {
            MapRule::DomainsLocked => {
                done += 1;
                if t.k.env.plan.vms.iter().any(|vm| vm.own_tables && vm.devices.len() > done) {
                    t.mark(Mark::MutableWithFirstHwpt);
                }
                let ioas = t.read(hwpt.at(HwptPaging::IOAS)).await;
                iopt_clear_immutable(t, ioas.at(Ioas::IOPT)).await;
            }
            MapRule::AreaAllocation => {}
        }
        if !t.k.has(Defect::UnpreserveKeepsHold) {
            iommufd_put_object(t, ictx, obj).await;
        }
    }
    if t.k.rev.map_rule == MapRule::DomainsLocked {
        return;
    }
    let mut id = 1;
    loop {
        t.spin_lock(ictx.at(IommufdCtx::XA_LOCK)).await;
        let (at, obj) = xa_find(t, ictx, id, false).await;
        let held = !obj.is_null() && t.read(obj.at(Object::TYPE)).await == ObjectType::Ioas as u32 && iommufd_lock_obj(t, obj).await;
        t.spin_unlock(ictx.at(IommufdCtx::XA_LOCK)).await;
        if obj.is_null() {
            break;
        }
        id = at + 1;
        if held {
            iopt_clear_immutable(t, obj.cast::<Ioas>().at(Ioas::IOPT)).await;
            iommufd_put_object(t, ictx, obj).await;
        }
    }
}

/// `iommufd_liveupdate_preserve()`.
pub async fn iommufd_liveupdate_preserve(t: &Task, args: &mut FileOpArgs) -> Errno {
    let _in = t.call("iommufd_liveupdate_preserve");
    let ictx = iommufd_ctx(t, args.file).await;
    t.mutex_lock(ictx.at(IommufdCtx::LIVEUPDATE_MUTEX)).await;
    let mut rc;
    let nr_hwpts;
    'out_unlock: {
        (rc, nr_hwpts) = iommufd_count_hwpts(t, ictx).await;
        if rc != 0 {
            break 'out_unlock;
        }
        let ser: Ptr<IommufdSer> = kho_alloc_preserve(t, abi::bytes(nr_hwpts), tag::IOMMUFD_SER).await;
        match t.k.rev.iommu {
            // R15, LU-070: an error pointer is not NULL.
            Iommu::V2 => {
                if ser.is_null() {
                    rc = ENOMEM;
                    break 'out_unlock;
                }
            }
            Iommu::Tip => {
                if let Some(errno) = ser.errno() {
                    rc = -errno;
                    break 'out_unlock;
                }
            }
        }
        t.write(ser.at(abi::NR_HWPTS), nr_hwpts).await;

        'err: {
            let mut index = 0;
            let mut id = 1;
            t.spin_lock(ictx.at(IommufdCtx::XA_LOCK)).await;
            loop {
                let (at, obj) = xa_find(t, ictx, id, true).await;
                if obj.is_null() {
                    break;
                }
                if !iommufd_lock_obj(t, obj).await {
                    t.spin_unlock(ictx.at(IommufdCtx::XA_LOCK)).await;
                    rc = ENOENT;
                    break 'err;
                }
                t.spin_unlock(ictx.at(IommufdCtx::XA_LOCK)).await;

                rc = iommufd_save_hwpt(t, args.session, obj.cast(), abi::hwpt(ser, index)).await;
                if rc != 0 {
                    if !t.k.has(Defect::RollbackLeaksHold) {
                        iommufd_put_object(t, ictx, obj).await;
                    }
                    break 'err;
                }
                t.write(obj.cast::<HwptPaging>().at(HwptPaging::PRESERVED), 1).await;
                index += 1;
                id = at + 1;
                t.spin_lock(ictx.at(IommufdCtx::XA_LOCK)).await;
            }
            t.spin_unlock(ictx.at(IommufdCtx::XA_LOCK)).await;
            args.serialized_data = ser.pa().0;
            break 'out_unlock;
        }
        t.mark(Mark::PreserveRolledBack);
        iommufd_unpreserve_hwpts(t, ictx).await;
        kho_unpreserve_free(t, ser).await;
    }
    t.mutex_unlock(ictx.at(IommufdCtx::LIVEUPDATE_MUTEX)).await;
    rc
}

/// `iommufd_liveupdate_unpreserve()`.
pub async fn iommufd_liveupdate_unpreserve(t: &Task, args: &mut FileOpArgs) {
    let _in = t.call("iommufd_liveupdate_unpreserve");
    let ictx = iommufd_ctx(t, args.file).await;
    t.mutex_lock(ictx.at(IommufdCtx::LIVEUPDATE_MUTEX)).await;
    iommufd_unpreserve_hwpts(t, ictx).await;
    kho_unpreserve_free(t, Ptr::<IommufdSer>::from_pa(Pa(args.serialized_data))).await;
    t.mutex_unlock(ictx.at(IommufdCtx::LIVEUPDATE_MUTEX)).await;
}

/// `iommufd_liveupdate_retrieve()`: not supported in phase 1.
pub async fn iommufd_liveupdate_retrieve(t: &Task, args: &mut FileOpArgs) -> Errno {
    let _in = t.call("iommufd_liveupdate_retrieve");
    if t.k.rev.reclaim { reclaim::iommufd_liveupdate_retrieve(t, args).await } else { EOPNOTSUPP }
}

/// `iommufd_liveupdate_can_finish()`: never in phase 1.
pub async fn iommufd_liveupdate_can_finish(t: &Task, args: &mut FileOpArgs) -> bool {
    let _in = t.call("iommufd_liveupdate_can_finish");
    t.k.rev.reclaim && reclaim::iommufd_liveupdate_can_finish(t, args).await
}

/// `iommufd_liveupdate_finish()`: empty in phase 1.
pub async fn iommufd_liveupdate_finish(t: &Task, args: &mut FileOpArgs) {
    let _in = t.call("iommufd_liveupdate_finish");
    if t.k.rev.reclaim {
        reclaim::iommufd_liveupdate_finish(t, args).await;
    }
}
