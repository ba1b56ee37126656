//! Domains of an address space come and go: the other half of `drivers/iommu/iommufd/io_pagetable.c`.
//!
//! Both rwsems are held for writing throughout, so no area is between reserved and filled. The array of domains is dense: the last
//! one moves into the gap.
//!
//! Not modelled: the aperture's reserved ranges, IOVA alignment other than that of 4 KiB pages.

use iommu_model::addr::PAGE_SIZE;
use sim::engine::ChoiceKind;
use sim::memory::Ptr;

use super::io_pagetable::{DOMAINS_MAX, IoPagetable, IoptArea, iopt_area_first, iopt_area_next};
use super::pages::{IoptPages, iopt_area_fill_domain, iopt_area_last_index, iopt_area_unfill_domain, iopt_area_unmap_domain_range};
use crate::errno::{EADDRINUSE, EEXIST, ENOMEM, Errno};
use crate::kernel::Task;
use crate::kernel::iommu::Domain;
use crate::tag;

/// `iopt_fill_domain()`: every area goes into the new domain, or none.
async fn iopt_fill_domain(t: &Task, iopt: Ptr<IoPagetable>, domain: Ptr<Domain>) -> Errno {
    let _in = t.call("iopt_fill_domain");
    let mut area = iopt_area_first(t, iopt).await;
    let rc = 'out_unfill: {
        while !area.is_null() {
            let pages = t.read(area.at(IoptArea::PAGES)).await;
            if !pages.is_null() {
                t.mutex_lock(pages.at(IoptPages::MUTEX)).await;
                let rc = iopt_area_fill_domain(t, area, pages, domain).await;
                if rc != 0 {
                    t.mutex_unlock(pages.at(IoptPages::MUTEX)).await;
                    break 'out_unfill rc;
                }
                if t.read(area.at(IoptArea::STORAGE_DOMAIN)).await.is_null() {
                    let nr_domains = t.read(iopt.at(IoPagetable::NEXT_DOMAIN_ID)).await;
                    t.warn_on(nr_domains != 0, "iopt_fill_domain");
                    t.write(area.at(IoptArea::STORAGE_DOMAIN), domain).await;
                    t.write(area.at(IoptArea::IN_DOMAINS_ITREE), 1).await;
                }
                t.mutex_unlock(pages.at(IoptPages::MUTEX)).await;
            }
            area = iopt_area_next(t, iopt, area).await;
        }
        return 0;
    };
    let end_area = area;
    area = iopt_area_first(t, iopt).await;
    while area != end_area {
        let pages = t.read(area.at(IoptArea::PAGES)).await;
        if !pages.is_null() {
            t.mutex_lock(pages.at(IoptPages::MUTEX)).await;
            if t.read(iopt.at(IoPagetable::NEXT_DOMAIN_ID)).await == 0 {
                t.write(area.at(IoptArea::IN_DOMAINS_ITREE), 0).await;
                t.write(area.at(IoptArea::STORAGE_DOMAIN), Ptr::NULL).await;
            }
            iopt_area_unfill_domain(t, area, pages, domain).await;
            t.mutex_unlock(pages.at(IoptPages::MUTEX)).await;
        }
        area = iopt_area_next(t, iopt, area).await;
    }
    rc
}

/// `iopt_unfill_domain()`: the domain has left the array. Another one takes over as storage, or everything is unpinned.
async fn iopt_unfill_domain(t: &Task, iopt: Ptr<IoPagetable>, domain: Ptr<Domain>) {
    let _in = t.call("iopt_unfill_domain");
    let others = t.read(iopt.at(IoPagetable::NEXT_DOMAIN_ID)).await != 0;
    let storage_domain = if others { t.read(iopt.at(IoPagetable::domain(0))).await } else { Ptr::NULL };
    let mut area = iopt_area_first(t, iopt).await;
    while !area.is_null() {
        let pages = t.read(area.at(IoptArea::PAGES)).await;
        if !pages.is_null() {
            t.mutex_lock(pages.at(IoptPages::MUTEX)).await;
            let storage = t.read(area.at(IoptArea::STORAGE_DOMAIN)).await;
            if others {
                if storage == domain {
                    t.write(area.at(IoptArea::STORAGE_DOMAIN), storage_domain).await;
                }
                let last = iopt_area_last_index(t, area).await;
                iopt_area_unmap_domain_range(t, area, domain, 0, last).await;
            } else {
                t.write(area.at(IoptArea::IN_DOMAINS_ITREE), 0).await;
                t.warn_on(storage != domain, "iopt_unfill_domain");
                t.write(area.at(IoptArea::STORAGE_DOMAIN), Ptr::NULL).await;
                iopt_area_unfill_domain(t, area, pages, domain).await;
            }
            t.mutex_unlock(pages.at(IoptPages::MUTEX)).await;
        }
        area = iopt_area_next(t, iopt, area).await;
    }
}

/// `iopt_check_iova_alignment()`: do all areas fit the new alignment?
async fn iopt_check_iova_alignment(t: &Task, iopt: Ptr<IoPagetable>, alignment: u64) -> Errno {
    let mut area = iopt_area_first(t, iopt).await;
    while !area.is_null() {
        let first = t.read(area.at(IoptArea::IOVA)).await;
        let last = t.read(area.at(IoptArea::LAST)).await;
        if (first | (last - first + 1)) & (alignment - 1) != 0 {
            return EADDRINUSE;
        }
        area = iopt_area_next(t, iopt, area).await;
    }
    0
}

/// `iopt_table_add_domain()`: on success the domain maps what the address space maps, now and later.
pub async fn iopt_table_add_domain(t: &Task, iopt: Ptr<IoPagetable>, domain: Ptr<Domain>) -> Errno {
    let _in = t.call("iopt_table_add_domain");
    t.down_write(iopt.at(IoPagetable::DOMAINS_RWSEM)).await;
    t.down_write(iopt.at(IoPagetable::IOVA_RWSEM)).await;
    let rc = 'out_unlock: {
        let id = t.read(iopt.at(IoPagetable::NEXT_DOMAIN_ID)).await;
        let mut index = 0;
        while index < id {
            let other = t.read(iopt.at(IoPagetable::domain(index))).await;
            if t.warn_on(other == domain, "iopt_table_add_domain") {
                break 'out_unlock EEXIST;
            }
            index += 1;
        }
        if t.read(iopt.at(IoPagetable::IOVA_ALIGNMENT)).await != PAGE_SIZE {
            let rc = iopt_check_iova_alignment(t, iopt, PAGE_SIZE).await;
            if rc != 0 {
                break 'out_unlock rc;
            }
        }
        // xa_reserve(): an xarray needs a node for any index but 0.
        if id == DOMAINS_MAX || (id != 0 && t.machine.fails(ChoiceKind::AllocFails, tag::XA_NODE.0)) {
            break 'out_unlock ENOMEM;
        }
        let rc = iopt_fill_domain(t, iopt, domain).await;
        if rc != 0 {
            break 'out_unlock rc;
        }
        t.write(iopt.at(IoPagetable::IOVA_ALIGNMENT), PAGE_SIZE).await;
        t.write(iopt.at(IoPagetable::domain(id)), domain).await;
        t.write(iopt.at(IoPagetable::NEXT_DOMAIN_ID), id + 1).await;
        0
    };
    t.up_write(iopt.at(IoPagetable::IOVA_RWSEM)).await;
    t.up_write(iopt.at(IoPagetable::DOMAINS_RWSEM)).await;
    rc
}

/// `iopt_table_remove_domain()`. Not refused while the address space is immutable: only this domain's tables change.
pub async fn iopt_table_remove_domain(t: &Task, iopt: Ptr<IoPagetable>, domain: Ptr<Domain>) {
    let _in = t.call("iopt_table_remove_domain");
    t.down_write(iopt.at(IoPagetable::DOMAINS_RWSEM)).await;
    t.down_write(iopt.at(IoPagetable::IOVA_RWSEM)).await;
    'out_unlock: {
        let nr_domains = t.read(iopt.at(IoPagetable::NEXT_DOMAIN_ID)).await;
        let mut index = 0;
        while index < nr_domains && t.read(iopt.at(IoPagetable::domain(index))).await != domain {
            index += 1;
        }
        if t.warn_on(index >= nr_domains, "iopt_table_remove_domain") {
            break 'out_unlock;
        }
        let tail = nr_domains - 1;
        t.write(iopt.at(IoPagetable::NEXT_DOMAIN_ID), tail).await;
        let moved = t.read(iopt.at(IoPagetable::domain(tail))).await;
        t.write(iopt.at(IoPagetable::domain(tail)), Ptr::NULL).await;
        if index != tail {
            t.write(iopt.at(IoPagetable::domain(index)), moved).await;
        }
        iopt_unfill_domain(t, iopt, domain).await;
        if tail == 0 {
            t.write(iopt.at(IoPagetable::IOVA_ALIGNMENT), 1).await;
        }
    }
    t.up_write(iopt.at(IoPagetable::IOVA_RWSEM)).await;
    t.up_write(iopt.at(IoPagetable::DOMAINS_RWSEM)).await;
}
