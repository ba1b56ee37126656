//! Cache tags and the flush of a range (`intel/cache.c`).
//!
//! A domain knows by its tags which unit caches its translations under which id. A flush runs with `cache_lock` held, so flushes of
//! one domain are serialised. An unmap that finds no tag invalidates nothing.

use iommu_model::addr::DomainId;
use sim::memory::Ptr;

use super::super::Task;
use super::super::generic_pt::IotlbGather;
use super::super::iommu::{CacheTag, DevInfo, Domain};
use super::super::iommu_pages::iommu_put_pages_list;
use super::super::mm::list;
use super::super::mm::{Gfp, kfree, kzalloc};
use super::domain::domain_id_iommu;
use super::qi::{self, IotlbFlush};
use super::{cap, iommu_of};
use crate::defect::Defect;
use crate::errno::{ENOMEM, Errno};
use crate::mark::Mark;
use crate::tag;

/// The tag of a unit and id in the domain's list; NULL when there is none. `cache_lock` is held.
async fn find_tag(t: &Task, domain: Ptr<Domain>, unit: u16, did: u16) -> Ptr<CacheTag> {
    let head = domain.at(Domain::CACHE_TAGS);
    let mut node = list::first(t, head).await;
    while let Some(at) = node {
        let tag: Ptr<CacheTag> = list::entry(at, CacheTag::NODE);
        if t.read(tag.at(CacheTag::IOMMU)).await == unit && t.read(tag.at(CacheTag::DOMAIN_ID)).await == did {
            return tag;
        }
        node = list::next(t, at, head).await;
    }
    Ptr::NULL
}

/// `cache_tag_assign_domain()`: one more user of the tag of the device's unit. -ENOMEM.
pub(super) async fn cache_tag_assign_domain(t: &Task, domain: Ptr<Domain>, info: Ptr<DevInfo>) -> Errno {
    let _in = t.call("cache_tag_assign_domain");
    let unit = t.read(info.at(DevInfo::IOMMU)).await;
    let did = domain_id_iommu(t, domain, unit).await;
    let new: Ptr<CacheTag> = kzalloc(t, CacheTag::BYTES, Gfp::Kernel, tag::CACHE_TAG).await;
    if new.is_null() {
        return ENOMEM;
    }
    t.write(new.at(CacheTag::IOMMU), unit).await;
    t.write(new.at(CacheTag::DOMAIN_ID), did).await;
    t.write(new.at(CacheTag::USERS), 1).await;
    t.spin_lock(domain.at(Domain::CACHE_LOCK)).await;
    let tag = find_tag(t, domain, unit, did).await;
    if tag.is_null() {
        list::add(t, new.at(CacheTag::NODE), domain.at(Domain::CACHE_TAGS)).await;
    } else {
        let users = t.read(tag.at(CacheTag::USERS)).await;
        t.write(tag.at(CacheTag::USERS), users + 1).await;
    }
    t.spin_unlock(domain.at(Domain::CACHE_LOCK)).await;
    if !tag.is_null() {
        kfree(t, new).await;
    }
    0
}

/// `cache_tag_unassign_domain()`.
pub(super) async fn cache_tag_unassign_domain(t: &Task, domain: Ptr<Domain>, info: Ptr<DevInfo>) {
    let _in = t.call("cache_tag_unassign_domain");
    let unit = t.read(info.at(DevInfo::IOMMU)).await;
    let did = domain_id_iommu(t, domain, unit).await;
    t.spin_lock(domain.at(Domain::CACHE_LOCK)).await;
    let tag = find_tag(t, domain, unit, did).await;
    if !tag.is_null() {
        let users = t.read(tag.at(CacheTag::USERS)).await - 1;
        t.write(tag.at(CacheTag::USERS), users).await;
        if users == 0 {
            list::del(t, tag.at(CacheTag::NODE)).await;
            kfree(t, tag).await;
        }
    }
    t.spin_unlock(domain.at(Domain::CACHE_LOCK)).await;
}

/// `calculate_psi_aligned_address()`: the smallest aligned power-of-two block of pages that holds `start..=end`, as address and
/// log2 of its pages.
const fn aligned_block(start: u64, end: u64) -> (u64, u8) {
    let pages = (end >> 12) ^ (start >> 12);
    let order = u64::BITS - pages.leading_zeros();
    if order >= 52 { (0, 52) } else { (start >> 12 >> order << order << 12, order as u8) }
}

/// `cache_tag_flush_range()`: page-selective where the unit can, else the whole domain; `leaf_only` when no table left the tree.
pub async fn cache_tag_flush_range(t: &Task, domain: Ptr<Domain>, start: u64, end: u64, leaf_only: bool) {
    let _in = t.call("cache_tag_flush_range");
    let (address, order) = aligned_block(start, end);
    t.spin_lock(domain.at(Domain::CACHE_LOCK)).await;
    let head = domain.at(Domain::CACHE_TAGS);
    let mut node = list::first(t, head).await;
    while let Some(at) = node {
        let tag: Ptr<CacheTag> = list::entry(at, CacheTag::NODE);
        let iommu = iommu_of(t, t.read(tag.at(CacheTag::IOMMU)).await);
        let did = DomainId(t.read(tag.at(CacheTag::DOMAIN_ID)).await);
        let cap = cap(t, iommu).await;
        let flush = if cap.page_selective() && order <= cap.mask_max() {
            IotlbFlush::Pages { did, address, order, leaf_only }
        } else {
            IotlbFlush::Domain(did)
        };
        qi::flush_iotlb(t, iommu, flush).await;
        node = list::next(t, at, head).await;
    }
    t.spin_unlock(domain.at(Domain::CACHE_LOCK)).await;
}

/// `intel_iommu_tlb_sync()`: flush and wait, then free the tables that left the tree.
pub async fn intel_iommu_tlb_sync(t: &Task, domain: Ptr<Domain>, gather: &mut IotlbGather) {
    let _in = t.call("intel_iommu_tlb_sync");
    let leaf_only = gather.freelist.is_empty();
    if !leaf_only {
        t.mark(Mark::TableFreed);
    }
    if t.k.has(Defect::FreeBeforeFlush) {
        iommu_put_pages_list(t, &mut gather.freelist).await;
    }
    // The defect leaves out flushes of leaves alone; where tables are freed the flush stays.
    if !(t.k.has(Defect::NoFlushOnUnmap) && leaf_only) {
        cache_tag_flush_range(t, domain, gather.start, gather.end, leaf_only).await;
    }
    iommu_put_pages_list(t, &mut gather.freelist).await;
}
