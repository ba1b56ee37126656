//! `struct pfn_batch` and `struct pfn_reader`, `drivers/iommu/iommufd/pages.c`: runs of contiguous frames on their way between page
//! cache, domains and unpinning.
//!
//! Both live on the kernel's stack, here as there. A batch holds at most [`PFN_BATCH_RUNS`] runs, so a large area takes several
//! rounds; each round is pinned before it is mapped. Pins are taken once per pages object: while another domain stores the pfns of an area, they are read back from
//! that domain instead.

use iommu_model::addr::{Iova, PAGE_SIZE, Pa, Pfn};
use sim::memory::Ptr;

use super::io_pagetable::IoptArea;
use super::pages::{IoptPages, iopt_pages_add_npinned, iopt_pages_sub_npinned};
use crate::errno::Errno;
use crate::kernel::Task;
use crate::kernel::iommu::{Domain, iommu_iova_to_phys, iommu_map, iommu_unmap};
use crate::kernel::memfd::{memfd_pin_folio, unpin_folio};
use crate::kernel::mm::{Gfp, page_to_phys, pfn_to_page};

/// Runs in a batch. A narrowing point: the kernel has 21 on the stack and up to 341 in a page.
pub const PFN_BATCH_RUNS: usize = 4;

/// `struct pfn_batch`.
#[derive(Clone, Copy, Debug, Default)]
pub struct PfnBatch {
    pfns: [u64; PFN_BATCH_RUNS],
    npfns: [u32; PFN_BATCH_RUNS],
    end: usize,
    /// Frames in all runs.
    pub total_pfns: u64,
}

impl PfnBatch {
    /// `batch_clear()`.
    pub fn clear(&mut self) {
        *self = PfnBatch::default();
    }

    /// `batch_add_pfn()`: false when the frame continues no run and all runs are used.
    pub fn add_pfn(&mut self, pfn: u64) -> bool {
        if let Some(last) = self.end.checked_sub(1)
            && pfn == self.pfns[last] + u64::from(self.npfns[last])
        {
            self.npfns[last] += 1;
        } else if self.end == PFN_BATCH_RUNS {
            return false;
        } else {
            self.pfns[self.end] = pfn;
            self.npfns[self.end] = 1;
            self.end += 1;
        }
        self.total_pfns += 1;
        true
    }
}

/// `batch_to_domain()`: one `iommu_map` a run; on failure what this batch mapped is unmapped again.
pub async fn batch_to_domain(t: &Task, batch: &PfnBatch, domain: Ptr<Domain>, area: Ptr<IoptArea>, start_index: u64) -> Errno {
    let start_iova = iopt_area_index_to_iova(t, area, start_index).await;
    let prot = t.read(area.at(IoptArea::IOMMU_PROT)).await;
    let mut iova = start_iova;
    let mut cur = 0;
    while cur < batch.end {
        let bytes = u64::from(batch.npfns[cur]) * PAGE_SIZE;
        let rc = iommu_map(t, domain, iova, Pfn(batch.pfns[cur]).pa(), bytes, prot, Gfp::Kernel).await;
        if rc != 0 {
            if start_iova != iova {
                iommu_unmap_nofail(t, domain, start_iova, iova.0 - start_iova.0).await;
            }
            return rc;
        }
        iova = iova.offset(bytes);
        cur += 1;
    }
    0
}

/// `batch_from_domain()`, `batch_from_domain_continue()`: reads pfns back from the domain's page table until the batch is full.
pub async fn batch_from_domain(
    t: &Task,
    batch: &mut PfnBatch,
    domain: Ptr<Domain>,
    area: Ptr<IoptArea>,
    start_index: u64,
    last_index: u64,
) {
    let mut iova = iopt_area_index_to_iova(t, area, start_index).await;
    let mut index = start_index;
    while index <= last_index {
        let phys: Pa = iommu_iova_to_phys(t, domain, iova).await;
        if !batch.add_pfn(phys.pfn().0) {
            break;
        }
        iova = iova.offset(PAGE_SIZE);
        index += 1;
    }
}

/// `batch_unpin()`: the first `npages` frames of the batch. Marking written pages dirty is not modelled.
pub async fn batch_unpin(t: &Task, batch: &PfnBatch, pages: Ptr<IoptPages>, npages: u64) {
    let mut left = npages;
    let mut cur = 0;
    while cur < batch.end && left != 0 {
        let mut i = 0;
        while i < u64::from(batch.npfns[cur]) && left != 0 {
            let page = pfn_to_page(t, Pfn(batch.pfns[cur] + i));
            unpin_folio(t, page).await;
            i += 1;
            left -= 1;
        }
        cur += 1;
    }
    iopt_pages_sub_npinned(t, pages, npages - left).await;
}

/// `iopt_area_index_to_iova()`.
pub async fn iopt_area_index_to_iova(t: &Task, area: Ptr<IoptArea>, index: u64) -> Iova {
    let iova = t.read(area.at(IoptArea::IOVA)).await;
    Iova(iova).offset(index * PAGE_SIZE)
}

/// `iommu_unmap_nofail()`: another size than asked is only warned of.
pub async fn iommu_unmap_nofail(t: &Task, domain: Ptr<Domain>, iova: Iova, bytes: u64) {
    let ret = iommu_unmap(t, domain, iova, bytes).await;
    t.warn_on(ret != bytes, "iommu_unmap_nofail");
}

/// `struct pfn_reader`: walks an area in batches of frames that are pinned.
#[derive(Clone, Copy, Debug)]
pub struct PfnReader {
    /// The batch at hand.
    pub batch: PfnBatch,
    /// First page of the batch.
    pub batch_start_index: u64,
    /// First page after it.
    pub batch_end_index: u64,
    area: Ptr<IoptArea>,
    pages: Ptr<IoptPages>,
    /// The domain that stores the pfns of this area already, or NULL: then they are pinned here.
    storage: Ptr<Domain>,
    last_index: u64,
    /// A frame that was pinned and did not fit the batch (`user.ufolios` beyond `batch_end_index`).
    ahead: Option<Pfn>,
}

impl PfnReader {
    /// `pfn_reader_done()`.
    pub const fn done(&self) -> bool {
        self.batch_start_index == self.last_index + 1
    }
}

/// `pfn_reader_init()`. The caller reads the first batch by [`pfn_reader_next`] (`pfn_reader_first()` in the kernel).
pub async fn pfn_reader_init(t: &Task, area: Ptr<IoptArea>, pages: Ptr<IoptPages>, last_index: u64) -> PfnReader {
    let covered = t.read(area.at(IoptArea::IN_DOMAINS_ITREE)).await != 0;
    let storage = if covered { t.read(area.at(IoptArea::STORAGE_DOMAIN)).await } else { Ptr::NULL };
    PfnReader { batch: PfnBatch::default(), batch_start_index: 0, batch_end_index: 0, area, pages, storage, last_index, ahead: None }
}

/// `pfn_reader_next()`: fills the next batch. On failure the pins taken so far stay for [`pfn_reader_release_pins`].
pub async fn pfn_reader_next(t: &Task, pfns: &mut PfnReader) -> Errno {
    pfns.batch.clear();
    pfns.batch_start_index = pfns.batch_end_index;
    if !pfns.storage.is_null() {
        if pfns.batch_end_index <= pfns.last_index {
            batch_from_domain(t, &mut pfns.batch, pfns.storage, pfns.area, pfns.batch_start_index, pfns.last_index).await;
        }
        pfns.batch_end_index += pfns.batch.total_pfns;
        return 0;
    }
    while pfns.batch_end_index <= pfns.last_index {
        let pfn = match pfns.ahead.take() {
            Some(pfn) => pfn,
            None => {
                let file = t.read(pfns.pages.at(IoptPages::FILE)).await;
                let first = t.read(pfns.pages.at(IoptPages::START)).await / PAGE_SIZE;
                let page = memfd_pin_folio(t, file, first + pfns.batch_end_index).await;
                if let Some(errno) = page.errno() {
                    return -errno;
                }
                iopt_pages_add_npinned(t, pfns.pages, 1).await;
                page_to_phys(t, page).pfn()
            }
        };
        if !pfns.batch.add_pfn(pfn.0) {
            pfns.ahead = Some(pfn);
            break;
        }
        pfns.batch_end_index += 1;
    }
    0
}

/// `pfn_reader_release_pins()`: drops the pins of the unfinished batch. Their pages may be mapped in the domains before the one that
/// failed; the caller unmaps there next, in this order in the kernel, too.
pub async fn pfn_reader_release_pins(t: &Task, pfns: &mut PfnReader) {
    if let Some(pfn) = pfns.ahead.take() {
        unpin_folio(t, pfn_to_page(t, pfn)).await;
        iopt_pages_sub_npinned(t, pfns.pages, 1).await;
    }
    if pfns.batch_start_index != pfns.batch_end_index {
        if pfns.storage.is_null() {
            batch_unpin(t, &pfns.batch, pfns.pages, pfns.batch.total_pfns).await;
        }
        pfns.batch_start_index = pfns.batch_end_index;
    }
}
