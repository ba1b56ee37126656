//! Handing a tree over (series patch 06, tip; v2 has the same steps).

use iommu_model::addr::Pa;
use sim::memory::Ptr;

use super::super::Task;
use super::super::iommu::{Domain, DomainOps};
use super::super::iommu_pages::{
    IommuPagesList, iommu_free_pages, iommu_preserve_pages_list, iommu_restore_page, iommu_unpreserve_pages_list,
};
use super::collect::collect_tables;
use super::{Entry, LEVELS_MAX, Path, classify, load_top, scan_table, top_of_table};
use crate::abi::iommu::{DomainSer, IommuAbi};
use crate::defect::Defect;
use crate::errno::Errno;

/// `pt_iommu_preserve()`: collects every table, hands the list to KHO, records the top. The pages that leaves point to are
/// the business of whoever owns them.
///
/// The walk takes no lock: the caller guarantees that nobody maps or unmaps.
pub async fn preserve(t: &Task, domain: Ptr<Domain>, ser: Ptr<DomainSer>) -> Errno {
    let _in = t.call("pt_iommu_preserve");
    let abi = &IommuAbi::of(t.k.rev.iommu).domain;
    let mut list = IommuPagesList::EMPTY;
    collect_tables(t, domain, &mut list).await;
    let ret = iommu_preserve_pages_list(t, &list).await;
    if ret != 0 {
        return ret;
    }
    let (top, level) = load_top(t, domain).await;
    t.write(ser.at(abi.top_table_phys), top.pa().0).await;
    t.write(ser.at(abi.top_level), u64::from(level)).await;
    let vasz = t.read(domain.at(Domain::VASZ)).await;
    t.write(ser.at(abi.vasz), vasz).await;
    t.write(ser.at(abi.sign_extend), 0).await;
    0
}

/// `pt_iommu_unpreserve()`: the same walk again, over the tree as it is now.
pub async fn unpreserve(t: &Task, domain: Ptr<Domain>) {
    let _in = t.call("pt_iommu_unpreserve");
    let mut list = IommuPagesList::EMPTY;
    collect_tables(t, domain, &mut list).await;
    iommu_unpreserve_pages_list(t, &list, None).await;
}

/// `pt_iommu_restore()`: adopts the tables of a record; the domain can only be freed from now on. A missing page is a BUG.
pub async fn restore(t: &Task, domain: Ptr<Domain>, ser: Ptr<DomainSer>) -> Errno {
    let _in = t.call("pt_iommu_restore");
    let abi = &IommuAbi::of(t.k.rev.iommu).domain;
    let vasz = t.read(ser.at(abi.vasz)).await;
    t.write(domain.at(Domain::VASZ), vasz).await;
    t.write(domain.at(Domain::OPS), DomainOps::Restored as u64).await;
    t.write(domain.at(Domain::FEATURES), 0).await;
    let top_pa = t.read(ser.at(abi.top_table_phys)).await;
    let top = iommu_restore_page(t, Pa(top_pa)).await;
    let (placeholder, _) = load_top(t, domain).await;
    iommu_free_pages(t, placeholder).await;
    let level = t.read(ser.at(abi.top_level)).await;
    t.bug_on(level >= LEVELS_MAX as u64, "pt_iommu_restore: no such level").await;
    let level = level as u8;
    t.write_once(domain.at(Domain::TOP_OF_TABLE), top_of_table(top, level)).await;
    restore_below(t, top, level).await;
    0
}

/// Restores every table below `top`; each before its own entries are read.
async fn restore_below(t: &Task, top: Ptr<u64>, level: u8) {
    let mut path: Path = [Ptr::NULL; LEVELS_MAX];
    let mut next = [0u64; LEVELS_MAX];
    let mut at = usize::from(level);
    path[at] = top;
    loop {
        match scan_table(t, path[at], next[at]).await {
            Some((index, entry)) => {
                next[at] = index + 1;
                if let Entry::Table(lower) = classify(entry, at as u8) {
                    if at > 1 || !t.k.has(Defect::RestoreSkipsTable) {
                        iommu_restore_page(t, lower.pa()).await;
                    }
                    if at > 1 {
                        at -= 1;
                        path[at] = lower;
                        next[at] = 0;
                    }
                }
            }
            None if at == usize::from(level) => return,
            None => at += 1,
        }
    }
}
