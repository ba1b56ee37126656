//! Reclaim: a restored domain is replaced by a newly built one while the device runs.
//!
//! The RFC ("[RFC PATCH v2 00/32]", 2025-12-02) names a "hitless switch of the context entry" and shows no code; all of this is
//! assumed. What makes it legal:
//!
//! - both domains have tables of the same height, and userspace has mapped everything alike before it asks;
//! - hardware fetches the 16 bytes of an entry at once and sees each 8-byte store whole. The high word (new id, same width) goes
//!   first, then the low word (new table). Between the stores the entry says new id, old table: it translates alike, but what is
//!   cached meanwhile under the new id comes from the old tables;
//! - after the stores: context cache of the device (it may hold the entry under either id), then the IOTLB and
//!   paging-structure caches of the new id and of the old one, each waited for. Only then are the old tables unreachable.
//!
//! Cache tags of the new domain are assigned before the entry, those of the old one removed after it, as PASID attach does.

use iommu_model::addr::{Bdf, DomainId};
use sim::memory::Ptr;

use super::super::iommu::{DevInfo, Domain};
use super::super::{Task, generic_pt};
use super::domain::{device_add, device_del, domain_detach_iommu, domain_id_iommu};
use super::qi::{self, ContextFlush, IotlbFlush};
use super::{cache, context, domain, iommu_of};
use crate::errno::{EINVAL, Errno};
use crate::verb;

/// Attaches `new` in place of the restored domain `old`. An error changes nothing.
pub async fn intel_iommu_replace_restored(t: &Task, new: Ptr<Domain>, info: Ptr<DevInfo>, old: Ptr<Domain>) -> Errno {
    let _in = t.call("intel_iommu_replace_restored");
    let unit = t.read(info.at(DevInfo::IOMMU)).await;
    let iommu = iommu_of(t, unit);
    let dev = Bdf(t.read(info.at(DevInfo::BDF)).await);
    let (_, new_level) = generic_pt::load_top(t, new).await;
    let (_, old_level) = generic_pt::load_top(t, old).await;
    if new_level != old_level {
        return EINVAL;
    }
    let ret = domain::domain_attach_iommu(t, new, iommu).await;
    if ret != 0 {
        return ret;
    }
    let ret = cache::cache_tag_assign_domain(t, new, info).await;
    if ret != 0 {
        domain_detach_iommu(t, new, iommu).await;
        return ret;
    }
    let new_did = DomainId(domain_id_iommu(t, new, unit).await);
    let old_did = DomainId(domain_id_iommu(t, old, unit).await);
    t.machine.note(verb::DEVICE_CHANGING, [u64::from(dev.0), new.value(), 0, 0]);
    context::context_entry_replace(t, new, info, new_did).await;
    qi::flush_context(t, iommu, ContextFlush::Device(old_did, dev)).await;
    qi::flush_context(t, iommu, ContextFlush::Device(new_did, dev)).await;
    qi::flush_iotlb(t, iommu, IotlbFlush::Domain(new_did)).await;
    qi::flush_iotlb(t, iommu, IotlbFlush::Domain(old_did)).await;
    cache::cache_tag_unassign_domain(t, old, info).await;
    device_del(t, old, info).await;
    device_add(t, new, info).await;
    domain_detach_iommu(t, old, iommu).await;
    t.machine.note(verb::DEVICE_ATTACHED, [u64::from(dev.0), new.value(), u64::from(new_did.0), 0]);
    0
}
