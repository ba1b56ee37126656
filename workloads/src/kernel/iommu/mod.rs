//! `drivers/iommu/iommu.c` and what the live-update series adds beside it.
//!
//! | file | what it is |
//! | --- | --- |
//! | this one | domains, map and unmap with their gather |
//! | [`group`] | groups, ownership, attach, replace, detach |
//! | [`probe`] | device probe, default domain, restore and re-attach |
//! | [`liveupdate`] | FLB callbacks, object arrays, preserve and unpreserve, getters |
//! | [`domain`] | layout of a domain and of what hangs on it |
//!
//! Locks, outer to inner: `iommu_probe_device_lock` > `group->mutex` > FLB `obj->lock` > `did_lock` > `domain->lock` >
//! `domain->cache_lock` > `qi->q_lock`.
//!
//! Not modelled: groups of several devices, PASIDs, deferred flushing, device reset hooks, direct mappings.

pub mod domain;
pub mod group;
pub mod liveupdate;
pub mod probe;

use iommu_model::addr::{Bdf, Iova, Pa};
use sim::memory::{Field, Ptr, field};
use sim::sync::Mutex;

use super::generic_pt::{self, IotlbGather};
use super::mm::{Gfp, kfree, list};
use super::{Section, Task, vtd};
use crate::abi::iommu::DeviceSer;
use crate::errno::{ENODEV, Errno};
use crate::verb;

pub use domain::{CacheTag, Domain, DomainInfo, DomainOps, UNITS_MAX};
pub use group::{
    Group, iommu_attach_group, iommu_detach_group, iommu_device_claim_dma_owner, iommu_device_claim_restored,
    iommu_device_release_dma_owner, iommu_replace_group, iommu_restored_domain,
};
pub use liveupdate::{
    dev_is_preserved, iommu_liveupdate_flb_finish, iommu_liveupdate_flb_preserve, iommu_liveupdate_flb_retrieve,
    iommu_liveupdate_flb_unpreserve, iommu_preserve_device, iommu_preserve_domain, iommu_unpreserve_device, iommu_unpreserve_domain,
};
/// Name of series v2.
pub use liveupdate::{iommu_preserve_domain as iommu_domain_preserve, iommu_unpreserve_domain as iommu_domain_unpreserve};
pub use probe::{DevInfo, iommu_init};

/// `IOMMU_READ`.
pub const IOMMU_READ: u8 = 1;
/// `IOMMU_WRITE`.
pub const IOMMU_WRITE: u8 = 2;

/// Most devices of a machine: entries of the per-device sections.
pub const DEVICES_MAX: usize = 64;

/// `iommu_probe_device_lock`.
pub(crate) const PROBE_DEVICE_LOCK: Field<Mutex> = field(0, "iommu_probe_device_lock");
/// The static blocking domain of VT-d: of a [`Domain`] only its operations.
const BLOCKING_DOMAIN: Field<Domain> = field(256, "blocking_domain");

/// The static blocking domain.
pub fn blocking_domain(t: &Task) -> Ptr<Domain> {
    t.sym(Section::Iommu, BLOCKING_DOMAIN)
}

/// `dev_iommu_priv_get()`: driver data of a device, NULL before probe or when probe failed. Which entry belongs to which device
/// is what the PCI core knows.
pub async fn dev_info(t: &Task, dev: Bdf) -> Ptr<DevInfo> {
    match t.k.topo.devices.iter().position(|device| device.bdf == dev) {
        Some(index) => t.read(dev_slot(t, index)).await,
        None => Ptr::NULL,
    }
}

/// Where the driver data of the device at `index` of the topology is published.
pub(crate) fn dev_slot(t: &Task, index: usize) -> Ptr<Ptr<DevInfo>> {
    assert!(index < DEVICES_MAX, "a machine has at most {DEVICES_MAX} devices");
    t.sym(Section::VtdDevices, field(index as u16 * 8, "dev->iommu->priv"))
}

/// `dev->iommu->device_ser`, read outside any lock.
pub(crate) async fn device_ser(t: &Task, info: Ptr<DevInfo>) -> Ptr<DeviceSer> {
    t.read_once(info.at(DevInfo::DEVICE_SER)).await
}

/// `iommu_paging_domain_alloc(dev)`: a paging domain that fits the unit of `dev`; an error pointer on failure.
pub async fn iommu_paging_domain_alloc(t: &Task, dev: Bdf) -> Ptr<Domain> {
    let _in = t.call("iommu_paging_domain_alloc");
    let info = dev_info(t, dev).await;
    if info.is_null() {
        return Ptr::err(-ENODEV);
    }
    let domain = vtd::domain::intel_iommu_domain_alloc_paging(t, info).await;
    if domain.errno().is_none() {
        let (top, _) = generic_pt::load_top(t, domain).await;
        t.machine.note(verb::DOMAIN_CREATED, [domain.value(), top.pa().0, 0, 0]);
    }
    domain
}

/// `iommu_domain_free()`: no device may be attached.
pub async fn iommu_domain_free(t: &Task, domain: Ptr<Domain>) {
    let _in = t.call("iommu_domain_free");
    t.machine.note(verb::DOMAIN_FREED, [domain.value(), 0, 0, 0]);
    let idle = list::empty(t, domain.at(Domain::DEVICES)).await;
    t.warn_on(!idle, "intel_iommu_domain_free: devices are attached");
    generic_pt::pt_iommu_deinit(t, domain).await;
    kfree(t, domain).await;
}

/// `iommu_map()`: all or nothing. -ENODEV on a domain without map operation.
pub async fn iommu_map(t: &Task, domain: Ptr<Domain>, iova: Iova, pa: Pa, bytes: u64, prot: u8, gfp: Gfp) -> Errno {
    let _in = t.call("iommu_map");
    if gfp != Gfp::Atomic {
        t.might_sleep("iommu_map");
    }
    t.machine.note(verb::MAP_BEGIN, [domain.value(), iova.0, pa.0, bytes | u64::from(prot) << 56]);
    let ret = map_nosync(t, domain, iova, pa, bytes, prot, gfp).await;
    t.machine.note(verb::MAP_END, [domain.value(), iova.0, bytes, ret as i64 as u64]);
    ret
}

/// `iommu_map_nosync()`; `iotlb_sync_map` has nothing to do without caching mode.
async fn map_nosync(t: &Task, domain: Ptr<Domain>, iova: Iova, pa: Pa, bytes: u64, prot: u8, gfp: Gfp) -> Errno {
    let ops = t.read(domain.at(Domain::OPS)).await;
    if ops != DomainOps::Paging as u64 {
        return ENODEV;
    }
    let (ret, mapped) = generic_pt::map_range(t, domain, iova, pa, bytes, prot, gfp).await;
    if ret != 0 && mapped != 0 {
        do_unmap(t, domain, iova, mapped).await;
    }
    ret
}

/// `iommu_unmap()`: returns the bytes removed; the invalidation is complete and tables are freed.
pub async fn iommu_unmap(t: &Task, domain: Ptr<Domain>, iova: Iova, bytes: u64) -> u64 {
    let _in = t.call("iommu_unmap");
    t.machine.note(verb::UNMAP_BEGIN, [domain.value(), iova.0, bytes, 0]);
    let ops = t.read(domain.at(Domain::OPS)).await;
    let unmapped = if ops == DomainOps::Paging as u64 { do_unmap(t, domain, iova, bytes).await } else { 0 };
    t.machine.note(verb::UNMAP_END, [domain.value(), iova.0, bytes, unmapped]);
    unmapped
}

/// `__iommu_unmap()` and the sync behind it.
async fn do_unmap(t: &Task, domain: Ptr<Domain>, iova: Iova, bytes: u64) -> u64 {
    let mut gather = IotlbGather::EMPTY;
    let unmapped = generic_pt::unmap_range(t, domain, iova, bytes, &mut gather).await;
    iommu_iotlb_sync(t, domain, &mut gather).await;
    unmapped
}

/// `iommu_iotlb_sync()`: calls the driver only for a range that is not inverted, then starts the gather anew in every case.
pub async fn iommu_iotlb_sync(t: &Task, domain: Ptr<Domain>, gather: &mut IotlbGather) {
    if gather.start < gather.end {
        vtd::cache::intel_iommu_tlb_sync(t, domain, gather).await;
    }
    *gather = IotlbGather::EMPTY;
}

/// `iommu_iova_to_phys()`: `Pa(0)` when nothing is mapped there.
pub async fn iommu_iova_to_phys(t: &Task, domain: Ptr<Domain>, iova: Iova) -> Pa {
    generic_pt::iova_to_phys(t, domain, iova).await
}
