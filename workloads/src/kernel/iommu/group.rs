//! Groups: the unit of attachment and of ownership. Every group here has one device.
//!
//! All changes happen under `group->mutex`. There is no detach operation: attaching another domain replaces. A group that user
//! space owns is on the blocking domain until it is given another one.
//!
//! Refusing to change the domain of a preserved device: the list digests say that tip does so; the code was not seen. Assumed
//! for tip: -EBUSY from attach, replace and detach while `device_ser` is an outgoing record. v2 does not look.

use iommu_model::addr::Bdf;
use sim::engine::ChoiceKind;
use sim::memory::{Field, Ptr, field};
use sim::sync::Mutex;

use super::super::mm::list;
use super::super::{Task, vtd};
use super::liveupdate::incoming::forget_restored_domain;
use super::liveupdate::preserved_state;
use super::probe::DevInfo;
use super::{Domain, DomainOps, blocking_domain, dev_info, iommu_domain_free};
use crate::errno::{EBUSY, EINVAL, ENODEV, ENOMEM, EPERM, Errno};
use crate::mark::Mark;
use crate::revision::Iommu;
use crate::tag;

/// `struct iommu_group`.
#[derive(Clone, Copy, Debug)]
pub struct Group;

impl Group {
    /// `mutex`.
    pub const MUTEX: Field<Mutex> = field(0, "mutex");
    /// What the device is attached to; NULL before the first attach.
    pub const DOMAIN: Field<Ptr<Domain>> = field(8, "domain");
    /// What it goes back to when nobody owns it.
    pub const DEFAULT_DOMAIN: Field<Ptr<Domain>> = field(16, "default_domain");
    /// Set when user space first claims the group.
    pub const BLOCKING_DOMAIN: Field<Ptr<Domain>> = field(24, "blocking_domain");
    /// Who owns the DMA of the group, any number but 0.
    pub const OWNER: Field<u64> = field(32, "owner");
    /// How often it was claimed.
    pub const OWNER_CNT: Field<u32> = field(40, "owner_cnt");
    /// Its device.
    pub const DEVICE: Field<Ptr<DevInfo>> = field(48, "devices");
    /// Bytes.
    pub const BYTES: u16 = 56;
}

/// How hard a change of domain must try.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetDomain {
    /// Undo on failure.
    MayFail,
    /// `IOMMU_SET_DOMAIN_MUST_SUCCEED`: go on; a device that fails is blocked.
    MustSucceed,
}

/// Group of a device; NULL when it was not probed.
pub(crate) async fn iommu_group_get(t: &Task, dev: Bdf) -> (Ptr<DevInfo>, Ptr<Group>) {
    let info = dev_info(t, dev).await;
    if info.is_null() {
        return (info, Ptr::NULL);
    }
    (info, t.read(info.at(DevInfo::GROUP)).await)
}

/// `__iommu_attach_device()`: the driver's `attach_dev`.
pub(crate) async fn attach_dev(t: &Task, domain: Ptr<Domain>, info: Ptr<DevInfo>) -> Errno {
    match t.read(domain.at(Domain::OPS)).await {
        ops if ops == DomainOps::Blocking as u64 => {
            vtd::domain::blocking_domain_attach_dev(t, info).await;
            0
        }
        _ => vtd::domain::intel_iommu_attach_device(t, domain, info).await,
    }
}

/// `__iommu_group_set_domain_internal()`.
pub(crate) async fn iommu_group_set_domain_internal(t: &Task, group: Ptr<Group>, new: Ptr<Domain>, how: SetDomain) -> Errno {
    let _in = t.call("__iommu_group_set_domain_internal");
    let current = t.read(group.at(Group::DOMAIN)).await;
    if current == new {
        return 0;
    }
    let info = t.read(group.at(Group::DEVICE)).await;
    let ret = attach_dev(t, new, info).await;
    if ret != 0 {
        if how == SetDomain::MayFail {
            return ret;
        }
        let blocking = t.read(group.at(Group::BLOCKING_DOMAIN)).await;
        if !blocking.is_null() && blocking != new {
            attach_dev(t, blocking, info).await;
        }
    }
    t.write(group.at(Group::DOMAIN), new).await;
    ret
}

/// `__iommu_group_set_domain_nofail()`.
pub(crate) async fn iommu_group_set_domain_nofail(t: &Task, group: Ptr<Group>, new: Ptr<Domain>) {
    let ret = iommu_group_set_domain_internal(t, group, new, SetDomain::MustSucceed).await;
    t.warn_on(ret != 0, "__iommu_group_set_domain_nofail: attach failed");
}

/// `iommu_device_claim_dma_owner()`: the group leaves its default domain and is blocked. -EPERM: another owner; -EBUSY: not on its
/// default domain.
pub async fn iommu_device_claim_dma_owner(t: &Task, dev: Bdf, owner: u64) -> Errno {
    let _in = t.call("iommu_device_claim_dma_owner");
    if t.warn_on(owner == 0, "iommu_device_claim_dma_owner: no owner") {
        return EINVAL;
    }
    let (_, group) = iommu_group_get(t, dev).await;
    if group.is_null() {
        return ENODEV;
    }
    t.mutex_lock(group.at(Group::MUTEX)).await;
    let owner_cnt = t.read(group.at(Group::OWNER_CNT)).await;
    let ret = if owner_cnt != 0 {
        let current = t.read(group.at(Group::OWNER)).await;
        if current == owner {
            t.write(group.at(Group::OWNER_CNT), owner_cnt + 1).await;
            0
        } else {
            EPERM
        }
    } else {
        iommu_take_dma_ownership(t, group, owner).await
    };
    t.mutex_unlock(group.at(Group::MUTEX)).await;
    ret
}

/// `__iommu_take_dma_ownership()`.
async fn iommu_take_dma_ownership(t: &Task, group: Ptr<Group>, owner: u64) -> Errno {
    let current = t.read(group.at(Group::DOMAIN)).await;
    let default = t.read(group.at(Group::DEFAULT_DOMAIN)).await;
    if current != default {
        return EBUSY;
    }
    // The driver has a static blocking domain: nothing is allocated.
    t.write(group.at(Group::BLOCKING_DOMAIN), blocking_domain(t)).await;
    let ret = iommu_group_set_domain_internal(t, group, blocking_domain(t), SetDomain::MayFail).await;
    if ret != 0 {
        return ret;
    }
    t.write(group.at(Group::OWNER), owner).await;
    t.write(group.at(Group::OWNER_CNT), 1).await;
    0
}

/// `iommu_device_release_dma_owner()`: the last release puts the default domain back.
pub async fn iommu_device_release_dma_owner(t: &Task, dev: Bdf) {
    let _in = t.call("iommu_device_release_dma_owner");
    let (info, group) = iommu_group_get(t, dev).await;
    if group.is_null() {
        return;
    }
    t.mutex_lock(group.at(Group::MUTEX)).await;
    let owner_cnt = t.read(group.at(Group::OWNER_CNT)).await;
    if owner_cnt > 1 {
        t.write(group.at(Group::OWNER_CNT), owner_cnt - 1).await;
    } else if !t.warn_on(owner_cnt == 0, "iommu_device_release_dma_owner: not owned") {
        t.write(group.at(Group::OWNER_CNT), 0).await;
        t.write(group.at(Group::OWNER), 0).await;
        let old = t.read(group.at(Group::DOMAIN)).await;
        let restored = t.k.rev.reclaim && is_restored(t, old).await;
        let default = t.read(group.at(Group::DEFAULT_DOMAIN)).await;
        iommu_group_set_domain_nofail(t, group, default).await;
        if restored {
            put_restored_domain(t, old, info).await;
        }
    }
    t.mutex_unlock(group.at(Group::MUTEX)).await;
}

/// `iommu_group_dma_owner_claimed()`: true at the moment of the question.
pub(crate) async fn iommu_group_dma_owner_claimed(t: &Task, group: Ptr<Group>) -> bool {
    t.mutex_lock(group.at(Group::MUTEX)).await;
    let owner_cnt = t.read(group.at(Group::OWNER_CNT)).await;
    t.mutex_unlock(group.at(Group::MUTEX)).await;
    owner_cnt != 0
}

/// True when this revision refuses to change what a preserved device is attached to. Assumed for tip.
async fn refuses_change(t: &Task, info: Ptr<DevInfo>) -> bool {
    match t.k.rev.iommu {
        Iommu::V2 => false,
        Iommu::Tip => !preserved_state(t, info).await.is_null(),
    }
}

/// Room for the handle in the group's xarray: the one step of an attach that may fail before hardware is touched.
fn reserve_handle(t: &Task) -> Errno {
    if t.machine.fails(ChoiceKind::AllocFails, tag::XA_NODE.0) {
        t.mark(Mark::AllocFailed);
        return ENOMEM;
    }
    0
}

/// `iommu_attach_group_handle()`: -EBUSY unless the group is on its default or blocking domain.
pub async fn iommu_attach_group(t: &Task, domain: Ptr<Domain>, dev: Bdf) -> Errno {
    let _in = t.call("iommu_attach_group");
    let (info, group) = iommu_group_get(t, dev).await;
    if group.is_null() {
        return ENODEV;
    }
    t.mutex_lock(group.at(Group::MUTEX)).await;
    let mut ret = reserve_handle(t);
    if ret == 0 {
        let current = t.read(group.at(Group::DOMAIN)).await;
        let default = t.read(group.at(Group::DEFAULT_DOMAIN)).await;
        let blocking = t.read(group.at(Group::BLOCKING_DOMAIN)).await;
        ret = if (current != default && current != blocking) || refuses_change(t, info).await {
            EBUSY
        } else {
            iommu_group_set_domain_internal(t, group, domain, SetDomain::MayFail).await
        };
    }
    t.mutex_unlock(group.at(Group::MUTEX)).await;
    ret
}

/// `iommu_detach_group_handle()`: back to the blocking domain, or to the default one when nobody owns the group. The kernel's
/// function is void; the error is that of the assumed refusal.
pub async fn iommu_detach_group(t: &Task, domain: Ptr<Domain>, dev: Bdf) -> Errno {
    let _in = t.call("iommu_detach_group");
    let (info, group) = iommu_group_get(t, dev).await;
    if group.is_null() {
        return ENODEV;
    }
    t.mutex_lock(group.at(Group::MUTEX)).await;
    let current = t.read(group.at(Group::DOMAIN)).await;
    t.warn_on(current != domain, "iommu_detach_group: another domain is attached");
    let mut ret = 0;
    if refuses_change(t, info).await {
        ret = EBUSY;
    } else {
        let restored = t.k.rev.reclaim && is_restored(t, current).await;
        let owner = t.read(group.at(Group::OWNER)).await;
        let back = t.read(group.at(if owner != 0 { Group::BLOCKING_DOMAIN } else { Group::DEFAULT_DOMAIN })).await;
        iommu_group_set_domain_nofail(t, group, back).await;
        if restored {
            put_restored_domain(t, current, info).await;
        }
    }
    t.mutex_unlock(group.at(Group::MUTEX)).await;
    ret
}

/// `iommu_replace_group_handle()`. With the RFC's second phase, a restored domain is replaced without a gap: see
/// [`vtd::replace`].
pub async fn iommu_replace_group(t: &Task, domain: Ptr<Domain>, dev: Bdf) -> Errno {
    let _in = t.call("iommu_replace_group");
    let (info, group) = iommu_group_get(t, dev).await;
    if group.is_null() {
        return ENODEV;
    }
    t.mutex_lock(group.at(Group::MUTEX)).await;
    let mut ret = reserve_handle(t);
    if ret == 0 {
        let current = t.read(group.at(Group::DOMAIN)).await;
        if refuses_change(t, info).await {
            ret = EBUSY;
        } else if t.k.rev.reclaim && is_restored(t, current).await {
            ret = vtd::replace::intel_iommu_replace_restored(t, domain, info, current).await;
            if ret == 0 {
                t.write(group.at(Group::DOMAIN), domain).await;
                put_restored_domain(t, current, info).await;
            }
        } else {
            ret = iommu_group_set_domain_internal(t, group, domain, SetDomain::MayFail).await;
        }
    }
    t.mutex_unlock(group.at(Group::MUTEX)).await;
    ret
}

/// True when the group's domain is a restored one. Only a device that is attached may ask: the last one to leave frees it.
async fn is_restored(t: &Task, domain: Ptr<Domain>) -> bool {
    !domain.is_null() && t.read(domain.at(Domain::OPS)).await == DomainOps::Restored as u64
}

/// Reclaim (assumed): the device left the restored domain `old`. The last one to leave frees it; its tables were flushed then.
async fn put_restored_domain(t: &Task, old: Ptr<Domain>, info: Ptr<DevInfo>) {
    let last = forget_restored_domain(t, old, info).await;
    t.write_once(info.at(DevInfo::DEVICE_SER), Ptr::NULL).await;
    if last {
        iommu_domain_free(t, old).await;
    }
}

/// Reclaim: the restored domain a device is attached to, or NULL.
pub async fn iommu_restored_domain(t: &Task, dev: Bdf) -> Ptr<Domain> {
    let (_, group) = iommu_group_get(t, dev).await;
    if group.is_null() {
        return Ptr::NULL;
    }
    t.mutex_lock(group.at(Group::MUTEX)).await;
    let mut domain = t.read(group.at(Group::DOMAIN)).await;
    if !is_restored(t, domain).await {
        domain = Ptr::NULL;
    }
    t.mutex_unlock(group.at(Group::MUTEX)).await;
    domain
}

/// Reclaim (assumed; RFC v2 "ownership is transferred to the new iommufd by matching the token"): the group stays on its restored
/// domain. -EBUSY: it is not on one; -EPERM: its owner is not `token`.
pub async fn iommu_device_claim_restored(t: &Task, dev: Bdf, token: u64, new_owner: u64) -> Errno {
    let _in = t.call("iommu_device_claim_restored");
    let (_, group) = iommu_group_get(t, dev).await;
    if group.is_null() {
        return ENODEV;
    }
    t.mutex_lock(group.at(Group::MUTEX)).await;
    let domain = t.read(group.at(Group::DOMAIN)).await;
    let owner = t.read(group.at(Group::OWNER)).await;
    let ret = if !is_restored(t, domain).await {
        EBUSY
    } else if owner != token {
        EPERM
    } else {
        t.write(group.at(Group::BLOCKING_DOMAIN), blocking_domain(t)).await;
        t.write(group.at(Group::OWNER), new_owner).await;
        0
    };
    t.mutex_unlock(group.at(Group::MUTEX)).await;
    ret
}

/// True when no device is attached to `domain`, under its lock.
pub(crate) async fn domain_is_idle(t: &Task, domain: Ptr<Domain>) -> bool {
    t.spin_lock(domain.at(Domain::LOCK)).await;
    let idle = list::empty(t, domain.at(Domain::DEVICES)).await;
    t.spin_unlock(domain.at(Domain::LOCK)).await;
    idle
}
