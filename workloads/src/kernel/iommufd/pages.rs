//! `struct iopt_pages` and the filling of areas: `drivers/iommu/iommufd/pages.c`.
//!
//! A pages object pins its folios once, when the first domain appears, and keeps no list of them: while mapped, the pfns are read
//! back from the page table of the area's `storage_domain`. Everything here runs under the pages mutex.
//!
//! Nothing may be unpinned while DMA can still reach it: `iommu_unmap` has waited for the invalidation when it returns, then the
//! pins go.

use iommu_model::addr::PAGE_SIZE;
use sim::memory::{Field, Ptr, field};
use sim::sync::{Mutex, Refcount};

use super::batch::{
    PfnBatch, batch_from_domain, batch_to_domain, batch_unpin, iommu_unmap_nofail, iopt_area_index_to_iova, pfn_reader_init,
    pfn_reader_next, pfn_reader_release_pins,
};
use super::io_pagetable::{IoPagetable, IoptArea};
use super::object::refcount_dec_and_test;
use crate::callee;
use crate::errno::{EINVAL, ENOMEM, Errno};
use crate::kernel::Task;
use crate::kernel::file::{File, fput, get_file};
use crate::kernel::iommu::Domain;
use crate::kernel::memfd::memfd_get_seals;
use crate::kernel::mm::{Gfp, callee_fails, kfree, kzalloc};
use crate::tag;

/// `struct iopt_pages`.
#[derive(Clone, Copy, Debug)]
pub struct IoptPages;

/// `IOPT_ADDRESS_FILE`: the folios come from a memfd.
pub const IOPT_ADDRESS_FILE: u32 = 1;

impl IoptPages {
    /// `kref`.
    pub const KREF: Field<Refcount> = field(0, "pages.kref");
    /// `type`.
    pub const TYPE: Field<u32> = field(4, "pages.type");
    /// `mutex`.
    pub const MUTEX: Field<Mutex> = field(8, "pages.mutex");
    /// `file`.
    pub const FILE: Field<Ptr<File>> = field(16, "pages.file");
    /// `start`: first byte in the file.
    pub const START: Field<u64> = field(24, "pages.start");
    /// `npages`.
    pub const NPAGES: Field<u64> = field(32, "pages.npages");
    /// `npinned`.
    pub const NPINNED: Field<u64> = field(40, "pages.npinned");
    /// `last_npinned`: how many are charged.
    pub const LAST_NPINNED: Field<u64> = field(48, "pages.last_npinned");
    /// `writable`.
    pub const WRITABLE: Field<u8> = field(56, "pages.writable");
    /// `seals`: seals of the file when it was mapped (IOMMU series).
    pub const SEALS: Field<u32> = field(60, "pages.seals");
    const BYTES: u16 = 64;
}

/// `iopt_alloc_file_pages()`. ERR pointer on failure.
pub async fn iopt_alloc_file_pages(t: &Task, file: Ptr<File>, start: u64, length: u64, writable: bool) -> Ptr<IoptPages> {
    if length == 0 || start.checked_add(length).is_none() {
        return Ptr::err(-EINVAL);
    }
    let pages: Ptr<IoptPages> = kzalloc(t, IoptPages::BYTES, Gfp::Kernel, tag::IOPT_PAGES).await;
    if pages.is_null() {
        return Ptr::err(-ENOMEM);
    }
    t.refcount_set(pages.at(IoptPages::KREF), 1).await;
    t.init_lock(pages.at(IoptPages::MUTEX)).await;
    t.write(pages.at(IoptPages::NPAGES), length.div_ceil(PAGE_SIZE)).await;
    t.write(pages.at(IoptPages::WRITABLE), u8::from(writable)).await;
    get_file(t, file).await;
    t.write(pages.at(IoptPages::FILE), file).await;
    t.write(pages.at(IoptPages::START), start).await;
    t.write(pages.at(IoptPages::TYPE), IOPT_ADDRESS_FILE).await;
    let seals = memfd_get_seals(t, file).await;
    t.write(pages.at(IoptPages::SEALS), seals).await;
    pages
}

/// `iopt_put_pages()`, and `iopt_release_pages()` for the last one.
pub async fn iopt_put_pages(t: &Task, pages: Ptr<IoptPages>) {
    if !refcount_dec_and_test(t, pages.at(IoptPages::KREF)).await {
        return;
    }
    let npinned = t.read(pages.at(IoptPages::NPINNED)).await;
    t.warn_on(npinned != 0, "iopt_release_pages");
    let file = t.read(pages.at(IoptPages::FILE)).await;
    fput(t, file).await;
    kfree(t, pages).await;
}

/// `iopt_pages_add_npinned()`.
pub async fn iopt_pages_add_npinned(t: &Task, pages: Ptr<IoptPages>, npages: u64) {
    let npinned = t.read(pages.at(IoptPages::NPINNED)).await;
    t.write(pages.at(IoptPages::NPINNED), npinned + npages).await;
}

/// `iopt_pages_sub_npinned()`.
pub async fn iopt_pages_sub_npinned(t: &Task, pages: Ptr<IoptPages>, npages: u64) {
    let npinned = t.read(pages.at(IoptPages::NPINNED)).await;
    t.warn_on(npages > npinned, "iopt_pages_sub_npinned");
    t.write(pages.at(IoptPages::NPINNED), npinned.wrapping_sub(npages)).await;
}

/// `pfn_reader_update_pinned()`: charges what was pinned; the limit on locked memory may refuse.
async fn pfn_reader_update_pinned(t: &Task, pages: Ptr<IoptPages>) -> Errno {
    let npinned = t.read(pages.at(IoptPages::NPINNED)).await;
    if npinned == t.read(pages.at(IoptPages::LAST_NPINNED)).await {
        return 0;
    }
    if callee_fails(t, callee::LOCKED_VM) {
        return ENOMEM;
    }
    t.write(pages.at(IoptPages::LAST_NPINNED), npinned).await;
    0
}

/// `update_unpinned()`: gives the charge back, which cannot fail.
async fn update_unpinned(t: &Task, pages: Ptr<IoptPages>) {
    let npinned = t.read(pages.at(IoptPages::NPINNED)).await;
    let last = t.read(pages.at(IoptPages::LAST_NPINNED)).await;
    if t.warn_on(npinned > last, "update_unpinned") || npinned == last {
        return;
    }
    t.write(pages.at(IoptPages::LAST_NPINNED), npinned).await;
}

/// `iopt_area_last_index()`.
pub async fn iopt_area_last_index(t: &Task, area: Ptr<IoptArea>) -> u64 {
    let first = t.read(area.at(IoptArea::IOVA)).await;
    let last = t.read(area.at(IoptArea::LAST)).await;
    (last - first) / PAGE_SIZE
}

/// `iopt_area_unmap_domain_range()`: one unmap, nothing is unpinned.
pub async fn iopt_area_unmap_domain_range(t: &Task, area: Ptr<IoptArea>, domain: Ptr<Domain>, start_index: u64, last_index: u64) {
    let iova = iopt_area_index_to_iova(t, area, start_index).await;
    iommu_unmap_nofail(t, domain, iova, (last_index - start_index + 1) * PAGE_SIZE).await;
}

/// `iopt_area_unpin_domain()`: reads pfns back, unmaps them, unpins them, batch by batch. An unmap cuts where a map cut: when a batch
/// is full, it ended at the end of a contiguous run.
async fn iopt_area_unpin_domain(t: &Task, area: Ptr<IoptArea>, pages: Ptr<IoptPages>, domain: Ptr<Domain>, last_index: u64) {
    let mut batch = PfnBatch::default();
    let mut start_index = 0;
    while start_index <= last_index {
        batch.clear();
        batch_from_domain(t, &mut batch, domain, area, start_index, last_index).await;
        let batch_last_index = start_index + batch.total_pfns - 1;
        iopt_area_unmap_domain_range(t, area, domain, start_index, batch_last_index).await;
        batch_unpin(t, &batch, pages, batch.total_pfns).await;
        start_index = batch_last_index + 1;
    }
}

/// `__iopt_area_unfill_domain()`: pages up to `last_index` leave the domain; those that no other domain stores are unpinned.
async fn __iopt_area_unfill_domain(t: &Task, area: Ptr<IoptArea>, pages: Ptr<IoptPages>, domain: Ptr<Domain>, last_index: u64) {
    let _in = t.call("__iopt_area_unfill_domain");
    if t.read(area.at(IoptArea::IN_DOMAINS_ITREE)).await != 0 {
        iopt_area_unmap_domain_range(t, area, domain, 0, last_index).await;
    } else {
        iopt_area_unpin_domain(t, area, pages, domain, last_index).await;
    }
    update_unpinned(t, pages).await;
}

/// `iopt_area_unfill_partial_domain()`: undoes a fill that got to `end_index`.
async fn iopt_area_unfill_partial_domain(t: &Task, area: Ptr<IoptArea>, pages: Ptr<IoptPages>, domain: Ptr<Domain>, end_index: u64) {
    if end_index != 0 {
        __iopt_area_unfill_domain(t, area, pages, domain, end_index - 1).await;
    }
}

/// `iopt_area_unfill_domain()`.
pub async fn iopt_area_unfill_domain(t: &Task, area: Ptr<IoptArea>, pages: Ptr<IoptPages>, domain: Ptr<Domain>) {
    let last = iopt_area_last_index(t, area).await;
    __iopt_area_unfill_domain(t, area, pages, domain, last).await;
}

/// `iopt_area_fill_domain()`: a new domain gets one area. The caller holds the pages mutex.
pub async fn iopt_area_fill_domain(t: &Task, area: Ptr<IoptArea>, pages: Ptr<IoptPages>, domain: Ptr<Domain>) -> Errno {
    let _in = t.call("iopt_area_fill_domain");
    let last = iopt_area_last_index(t, area).await;
    let mut pfns = pfn_reader_init(t, area, pages, last).await;
    let mut rc = pfn_reader_next(t, &mut pfns).await;
    if rc != 0 {
        pfn_reader_release_pins(t, &mut pfns).await;
        return rc;
    }
    let mut done_end_index = 0;
    'out_unmap: {
        while !pfns.done() {
            done_end_index = pfns.batch_start_index;
            rc = batch_to_domain(t, &pfns.batch, domain, area, pfns.batch_start_index).await;
            if rc != 0 {
                break 'out_unmap;
            }
            done_end_index = pfns.batch_end_index;
            rc = pfn_reader_next(t, &mut pfns).await;
            if rc != 0 {
                break 'out_unmap;
            }
        }
        rc = pfn_reader_update_pinned(t, pages).await;
        if rc != 0 {
            break 'out_unmap;
        }
        return 0;
    }
    pfn_reader_release_pins(t, &mut pfns).await;
    iopt_area_unfill_partial_domain(t, area, pages, domain, done_end_index).await;
    rc
}

/// `iopt_area_fill_domains()`: a new area goes into all domains; nothing is pinned while there is none.
pub async fn iopt_area_fill_domains(t: &Task, area: Ptr<IoptArea>, pages: Ptr<IoptPages>) -> Errno {
    let _in = t.call("iopt_area_fill_domains");
    let iopt = t.read(area.at(IoptArea::IOPT)).await;
    if t.read(iopt.at(IoPagetable::NEXT_DOMAIN_ID)).await == 0 {
        return 0;
    }
    t.mutex_lock(pages.at(IoptPages::MUTEX)).await;
    let last = iopt_area_last_index(t, area).await;
    let mut pfns = pfn_reader_init(t, area, pages, last).await;
    let mut rc = pfn_reader_next(t, &mut pfns).await;
    if rc != 0 {
        pfn_reader_release_pins(t, &mut pfns).await;
        t.mutex_unlock(pages.at(IoptPages::MUTEX)).await;
        return rc;
    }
    let mut done_first_end_index = 0;
    let mut done_all_end_index = 0;
    let mut index = 0;
    'out_unmap: {
        while !pfns.done() {
            done_first_end_index = pfns.batch_end_index;
            done_all_end_index = pfns.batch_start_index;
            index = 0;
            while index < t.read(iopt.at(IoPagetable::NEXT_DOMAIN_ID)).await {
                let domain = t.read(iopt.at(IoPagetable::domain(index))).await;
                rc = batch_to_domain(t, &pfns.batch, domain, area, pfns.batch_start_index).await;
                if rc != 0 {
                    break 'out_unmap;
                }
                index += 1;
            }
            done_all_end_index = done_first_end_index;
            rc = pfn_reader_next(t, &mut pfns).await;
            if rc != 0 {
                break 'out_unmap;
            }
        }
        rc = pfn_reader_update_pinned(t, pages).await;
        if rc != 0 {
            break 'out_unmap;
        }
        let storage = t.read(iopt.at(IoPagetable::domain(0))).await;
        t.write(area.at(IoptArea::STORAGE_DOMAIN), storage).await;
        t.write(area.at(IoptArea::IN_DOMAINS_ITREE), 1).await;
        t.mutex_unlock(pages.at(IoptPages::MUTEX)).await;
        return 0;
    }
    pfn_reader_release_pins(t, &mut pfns).await;
    let nr_domains = t.read(iopt.at(IoPagetable::NEXT_DOMAIN_ID)).await;
    let mut unmap_index = 0;
    while unmap_index < nr_domains {
        let domain = t.read(iopt.at(IoPagetable::domain(unmap_index))).await;
        let end_index = if unmap_index < index { done_first_end_index } else { done_all_end_index };
        // The area is in no tree yet: the last domain unpins, the others only unmap.
        if unmap_index != nr_domains - 1 {
            if end_index != 0 {
                iopt_area_unmap_domain_range(t, area, domain, 0, end_index - 1).await;
            }
        } else {
            iopt_area_unfill_partial_domain(t, area, pages, domain, end_index).await;
        }
        unmap_index += 1;
    }
    t.mutex_unlock(pages.at(IoptPages::MUTEX)).await;
    rc
}

/// `iopt_area_unfill_domains()`: an area leaves all domains, then its pages are unpinned.
pub async fn iopt_area_unfill_domains(t: &Task, area: Ptr<IoptArea>, pages: Ptr<IoptPages>) {
    let _in = t.call("iopt_area_unfill_domains");
    let iopt = t.read(area.at(IoptArea::IOPT)).await;
    t.mutex_lock(pages.at(IoptPages::MUTEX)).await;
    let storage = t.read(area.at(IoptArea::STORAGE_DOMAIN)).await;
    if !storage.is_null() {
        let last = iopt_area_last_index(t, area).await;
        let mut index = 0;
        while index < t.read(iopt.at(IoPagetable::NEXT_DOMAIN_ID)).await {
            let domain = t.read(iopt.at(IoPagetable::domain(index))).await;
            if domain != storage {
                iopt_area_unmap_domain_range(t, area, domain, 0, last).await;
            }
            index += 1;
        }
        t.write(area.at(IoptArea::IN_DOMAINS_ITREE), 0).await;
        iopt_area_unfill_domain(t, area, pages, storage).await;
        t.write(area.at(IoptArea::STORAGE_DOMAIN), Ptr::NULL).await;
    }
    t.mutex_unlock(pages.at(IoptPages::MUTEX)).await;
}
