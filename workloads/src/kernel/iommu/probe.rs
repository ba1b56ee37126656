//! Device probe: group, default domain, and in the incoming kernel the restored domain in its place.
//!
//! Assumed: what tip does when a restore fails. v1 and v2 warn and go on with the default domain; tip's text was not seen and is
//! taken to do the same ([`ASSUME_FAILED_RESTORE_FALLS_BACK`]). In legacy mode the attach of the default domain then finds a present
//! context entry and leaves it (`domain_context_mapping`): the device runs on with the old tables, which nobody restored, until
//! its group is blocked.

use iommu_model::addr::Bdf;
use sim::memory::{Field, Ptr, field};

use super::super::mm::list::{self, ListHead};
use super::super::mm::{Gfp, kfree, kzalloc};
use super::super::{Section, Task, vtd};
use super::group::{Group, SetDomain, attach_dev, iommu_group_set_domain_internal};
use super::liveupdate::incoming::{iommu_get_device_preserved_data, iommu_restore_domain};
use super::liveupdate::restored_state;
use super::{Domain, DomainOps, PROBE_DEVICE_LOCK, blocking_domain, dev_slot, iommu_domain_free, iommu_paging_domain_alloc};
use crate::abi::iommu::DeviceSer;
use crate::errno::{ENOMEM, Errno};
use crate::mark::Mark;
use crate::revision::Iommu;
use crate::tag;
use crate::verb;

/// Tip falls back to the default domain when a restore fails, as v2 does. False: it panics.
pub const ASSUME_FAILED_RESTORE_FALLS_BACK: bool = true;

/// `struct device_domain_info`, with the two members of `struct dev_iommu` and `struct device` that matter.
#[derive(Clone, Copy, Debug)]
pub struct DevInfo;

impl DevInfo {
    /// What hardware uses; NULL when blocked.
    pub const DOMAIN: Field<Ptr<Domain>> = field(0, "domain");
    /// Link in the domain's list of devices.
    pub const LINK: Field<ListHead> = field(8, "link");
    /// `dev->iommu_group`.
    pub const GROUP: Field<Ptr<Group>> = field(24, "iommu_group");
    /// `dev->iommu->device_ser`: its record, in either direction.
    pub const DEVICE_SER: Field<Ptr<DeviceSer>> = field(32, "device_ser");
    /// Requester id.
    pub const BDF: Field<u16> = field(40, "bdf");
    /// Number of its unit.
    pub const IOMMU: Field<u16> = field(42, "iommu");
    /// `domain_attached`.
    pub const DOMAIN_ATTACHED: Field<u32> = field(44, "domain_attached");
    /// Bytes.
    pub const BYTES: u16 = 48;
}

/// Boot: `intel_iommu_init()` and the probe of every device it covers. The data of the image is zero before.
pub async fn iommu_init(t: &Task) {
    t.init_lock(t.sym(Section::Iommu, PROBE_DEVICE_LOCK)).await;
    t.write(blocking_domain(t).at(Domain::OPS), DomainOps::Blocking as u64).await;
    vtd::boot::intel_iommu_init(t).await;
}

/// `iommu_probe_device()`: a device that fails is left without IOMMU support.
pub(crate) async fn iommu_probe_device(t: &Task, index: usize, dev: Bdf, unit: u8) -> Errno {
    let _in = t.call("iommu_probe_device");
    let lock = t.sym(Section::Iommu, PROBE_DEVICE_LOCK);
    t.mutex_lock(lock).await;
    let ret = do_probe_device(t, index, dev, unit).await;
    t.mutex_unlock(lock).await;
    if ret != 0 {
        t.mark_of(Mark::DeviceNotRestored, dev.0);
    }
    ret
}

/// `__iommu_probe_device()`.
async fn do_probe_device(t: &Task, index: usize, dev: Bdf, unit: u8) -> Errno {
    // intel_iommu_probe_device()
    let info: Ptr<DevInfo> = kzalloc(t, DevInfo::BYTES, Gfp::Kernel, tag::DEVICE_INFO).await;
    if info.is_null() {
        return ENOMEM;
    }
    t.write(info.at(DevInfo::BDF), dev.0).await;
    t.write(info.at(DevInfo::IOMMU), u16::from(unit)).await;
    list::init(t, info.at(DevInfo::LINK)).await;
    // iommu_init_device(): the core looks the device up in what was handed over.
    let ser = iommu_get_device_preserved_data(t, dev).await;
    t.write_once(info.at(DevInfo::DEVICE_SER), ser).await;
    let group: Ptr<Group> = kzalloc(t, Group::BYTES, Gfp::Kernel, tag::GROUP).await;
    if group.is_null() {
        kfree(t, info).await;
        return ENOMEM;
    }
    t.init_lock(group.at(Group::MUTEX)).await;
    t.write(group.at(Group::DEVICE), info).await;
    t.write(info.at(DevInfo::GROUP), group).await;
    t.write(dev_slot(t, index), info).await;
    t.mutex_lock(group.at(Group::MUTEX)).await;
    let ret = iommu_setup_default_domain(t, group, info, dev).await;
    t.mutex_unlock(group.at(Group::MUTEX)).await;
    if ret != 0 {
        // err_remove_gdev: the group and what it holds go.
        t.write(dev_slot(t, index), Ptr::NULL).await;
        kfree(t, group).await;
        kfree(t, info).await;
    }
    ret
}

/// `iommu_setup_default_domain()` of a group without domain: an empty DMA domain; what is attached is the restored domain if the
/// device came with one.
async fn iommu_setup_default_domain(t: &Task, group: Ptr<Group>, info: Ptr<DevInfo>, dev: Bdf) -> Errno {
    let _in = t.call("iommu_setup_default_domain");
    let default = iommu_paging_domain_alloc(t, dev).await;
    if let Some(errno) = default.errno() {
        return -errno;
    }
    t.write(group.at(Group::DEFAULT_DOMAIN), default).await;
    let restored = restore_domain_of(t, group, info, dev).await;
    let ret = if restored.is_null() {
        iommu_group_set_domain_internal(t, group, default, SetDomain::MustSucceed).await
    } else {
        attach_restored_domain(t, group, info, restored).await
    };
    if t.warn_on(ret != 0, "iommu_setup_default_domain: first attach failed") {
        t.write(group.at(Group::DEFAULT_DOMAIN), Ptr::NULL).await;
        iommu_domain_free(t, default).await;
    }
    ret
}

/// The restored domain of the group's first device, and the group's owner with it; NULL when there is none.
async fn restore_domain_of(t: &Task, group: Ptr<Group>, info: Ptr<DevInfo>, dev: Bdf) -> Ptr<Domain> {
    let ser = restored_state(t, info).await;
    if ser.is_null() {
        return Ptr::NULL;
    }
    // v2: a variable of the caller that one branch of the restore does not set (R10).
    let mut owner = 0;
    let domain = iommu_restore_domain(t, info, ser, &mut owner).await;
    if t.warn_on(domain.errno().is_some(), "iommu_setup_default_domain: domain cannot be restored") {
        if t.k.rev.iommu == Iommu::Tip && !ASSUME_FAILED_RESTORE_FALLS_BACK {
            t.panic("iommu_setup_default_domain: domain cannot be restored").await;
        }
        t.mark_of(Mark::DeviceNotRestored, dev.0);
        return Ptr::NULL;
    }
    t.write(group.at(Group::OWNER), owner).await;
    t.write(group.at(Group::OWNER_CNT), 1).await;
    domain
}

/// First attach of a restored domain. Hardware goes on with the tables it has. v2 attaches like any other domain; tip has an
/// operation of its own that undoes only software state.
async fn attach_restored_domain(t: &Task, group: Ptr<Group>, info: Ptr<DevInfo>, domain: Ptr<Domain>) -> Errno {
    let ret = match t.k.rev.iommu {
        Iommu::V2 => attach_dev(t, domain, info).await,
        Iommu::Tip => vtd::domain::intel_iommu_restore_device(t, domain, info).await,
    };
    t.write(group.at(Group::DOMAIN), domain).await;
    if ret == 0 {
        let dev = t.read(info.at(DevInfo::BDF)).await;
        let did = vtd::domain::domain_id_iommu(t, domain, t.read(info.at(DevInfo::IOMMU)).await).await;
        t.mark(Mark::AdoptionDone);
        t.machine.note(verb::ADOPTED, [u64::from(dev), domain.value(), u64::from(did), 0]);
    }
    ret
}
