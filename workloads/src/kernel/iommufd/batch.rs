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
use crate::kernel::memfd::{folio_add_pins, memfd_pin_folio, unpin_folio_pages};
use crate::kernel::mm::{Gfp, compound_head, folio_order, page_to_pfn, pfn_to_page};

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
        self.add_pfn_num(pfn, 1)
    }

    /// `batch_add_pfn_num()`: as [`PfnBatch::add_pfn`] for `nr` frames in a row.
    pub fn add_pfn_num(&mut self, pfn: u64, nr: u32) -> bool {
        if let Some(last) = self.end.checked_sub(1)
            && pfn == self.pfns[last] + u64::from(self.npfns[last])
        {
            self.npfns[last] += nr;
        } else if self.end == PFN_BATCH_RUNS {
            return false;
        } else {
            self.pfns[self.end] = pfn;
            self.npfns[self.end] = nr;
            self.end += 1;
        }
        self.total_pfns += u64::from(nr);
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
            let nr = left.min(u64::from(batch.npfns[cur]) - i);
            let done = unpin_run(t, Pfn(batch.pfns[cur] + i), nr).await;
            i += done;
            left -= done;
        }
        cur += 1;
    }
    iopt_pages_sub_npinned(t, pages, npages - left).await;
}

/// `unpin_user_page_range_dirty_lock()` for the folio that begins a run of `nr` frames: how many of them were its pages.
async fn unpin_run(t: &Task, pfn: Pfn, nr: u64) -> u64 {
    let folio = compound_head(t, pfn_to_page(t, pfn)).await;
    let end = page_to_pfn(t, folio).0 + (1 << folio_order(t, folio).await);
    let nr = nr.min(end.saturating_sub(pfn.0)).max(1);
    unpin_folio_pages(t, folio, nr as u32).await;
    nr
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
    /// Pages of a folio that were pinned and did not fit the batch (`user.ufolios` beyond `batch_end_index`): the first frame, and
    /// how many.
    ahead: Option<(Pfn, u32)>,
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
        let (pfn, nr) = match pfns.ahead.take() {
            Some(ahead) => ahead,
            None => {
                let file = t.read(pfns.pages.at(IoptPages::FILE)).await;
                let index = t.read(pfns.pages.at(IoptPages::START)).await / PAGE_SIZE + pfns.batch_end_index;
                let folio = memfd_pin_folio(t, file, index).await;
                if let Some(errno) = folio.errno() {
                    return -errno;
                }
                // Folios lie in the file at multiples of their size.
                let nr_pages = 1u64 << folio_order(t, folio).await;
                let offset = index & (nr_pages - 1);
                let nr = (nr_pages - offset).min(pfns.last_index + 1 - pfns.batch_end_index);
                if nr > 1 {
                    folio_add_pins(t, folio, nr as u32 - 1).await;
                }
                iopt_pages_add_npinned(t, pfns.pages, nr).await;
                (Pfn(page_to_pfn(t, folio).0 + offset), nr as u32)
            }
        };
        if !pfns.batch.add_pfn_num(pfn.0, nr) {
            pfns.ahead = Some((pfn, nr));
            break;
        }
        pfns.batch_end_index += u64::from(nr);
    }
    0
}

/// `pfn_reader_release_pins()`: drops the pins of the unfinished batch. Their pages may be mapped in the domains before the one that
/// failed; the caller unmaps there next, in this order in the kernel, too.
pub async fn pfn_reader_release_pins(t: &Task, pfns: &mut PfnReader) {
    if let Some((pfn, nr)) = pfns.ahead.take() {
        let folio = compound_head(t, pfn_to_page(t, pfn)).await;
        unpin_folio_pages(t, folio, nr).await;
        iopt_pages_sub_npinned(t, pfns.pages, u64::from(nr)).await;
    }
    if pfns.batch_start_index != pfns.batch_end_index {
        if pfns.storage.is_null() {
            batch_unpin(t, &pfns.batch, pfns.pages, pfns.batch.total_pfns).await;
        }
        pfns.batch_start_index = pfns.batch_end_index;
    }
}
