//! `drivers/iommu/iommu-pages.c`: pages of IOMMU tables, their lists, and what the series adds to hand them over.
//!
//! A list of table pages is linked through the descriptor of each page. That is **one** link: the list of a preserve walk and the
//! free list of an unmap use the same words, and two walks over one domain corrupt each other. The list head lies on the
//! stack of its user and is [`IommuPagesList`]; only its owner reaches it.
//!
//! Not modelled: the two counters of node statistics, and the `incoherent` flag of a page: on x86 a flush leaves nothing to undo.

use iommu_model::addr::Pa;
use sim::memory::{Ptr, Tag};

use super::Task;
use super::kho::{kho_preserve_folio, kho_restore_folio, kho_unpreserve_folio};
use super::mm::{Gfp, Page, alloc_pages, folio_put, page_address, virt_to_page};
use crate::defect::Defect;
use crate::errno::Errno;
use crate::mark::Mark;
use crate::verb::owner;

/// `struct iommu_pages_list` on the stack of its user: the two words of its list head.
#[derive(Clone, Copy, Debug)]
pub struct IommuPagesList {
    first: Ptr<Page>,
    last: Ptr<Page>,
}

impl IommuPagesList {
    /// `IOMMU_PAGES_LIST_INIT`: an empty list.
    pub const EMPTY: IommuPagesList = IommuPagesList { first: Ptr::NULL, last: Ptr::NULL };

    /// `iommu_pages_list_empty()`.
    pub const fn is_empty(&self) -> bool {
        self.first.is_null()
    }
}

/// `iommu_alloc_pages_node_sz()` for one page: zeroed; NULL on failure.
pub async fn iommu_alloc_pages(t: &Task, gfp: Gfp, tag: Tag) -> Ptr<u64> {
    let page = alloc_pages(t, gfp, 0, true, tag).await;
    if page.is_null() {
        return Ptr::NULL;
    }
    page_address(t, page)
}

/// `iommu_pages_start_incoherent()`, x86: the page is about to be read by a walker that does not snoop.
pub async fn iommu_pages_start_incoherent(t: &Task, table: Ptr<u64>) {
    t.clflush_cache_range(table, super::mm::PAGE_SIZE).await;
}

/// `iommu_pages_flush_incoherent()`, x86: `bytes` bytes of a table reach memory.
pub async fn iommu_pages_flush_incoherent(t: &Task, at: Ptr<u64>, bytes: u64) {
    t.clflush_cache_range(at, bytes).await;
}

/// `iommu_free_pages()`: drops the reference of the table's user.
pub async fn iommu_free_pages(t: &Task, table: Ptr<u64>) {
    if table.is_null() {
        return;
    }
    folio_put(t, virt_to_page(t, table)).await;
}

/// `iommu_pages_list_add()`: `list_add_tail` on the link in the page descriptor.
pub async fn iommu_pages_list_add(t: &Task, list: &mut IommuPagesList, table: Ptr<u64>) {
    let page = virt_to_page(t, table);
    t.write(page.at(Page::LRU_NEXT), 0).await;
    t.write(page.at(Page::LRU_PREV), list.last.value()).await;
    if list.is_empty() {
        list.first = page;
    } else {
        t.write(list.last.at(Page::LRU_NEXT), page.value()).await;
    }
    list.last = page;
}

/// `iommu_pages_list_splice()`: moves all of `from` to the end of `to`.
pub async fn iommu_pages_list_splice(t: &Task, from: &mut IommuPagesList, to: &mut IommuPagesList) {
    if from.is_empty() {
        return;
    }
    if to.is_empty() {
        to.first = from.first;
    } else {
        t.write(from.first.at(Page::LRU_PREV), to.last.value()).await;
        t.write(to.last.at(Page::LRU_NEXT), from.first.value()).await;
    }
    to.last = from.last;
    *from = IommuPagesList::EMPTY;
}

/// `iommu_put_pages_list()`: frees in list order. The list is invalid afterwards.
pub async fn iommu_put_pages_list(t: &Task, list: &mut IommuPagesList) {
    let mut page = list.first;
    *list = IommuPagesList::EMPTY;
    while !page.is_null() {
        let next = Ptr::new(t.read(page.at(Page::LRU_NEXT)).await);
        folio_put(t, page).await;
        page = next;
    }
}

/// `iommu_preserve_page()`, series patch 05.
pub async fn iommu_preserve_page(t: &Task, table: Ptr<u64>) -> Errno {
    kho_preserve_folio(t, virt_to_page(t, table), owner::IOMMU_PAGES).await
}

/// `iommu_unpreserve_page()`, series patch 05.
pub async fn iommu_unpreserve_page(t: &Task, table: Ptr<u64>) {
    kho_unpreserve_folio(t, virt_to_page(t, table), owner::IOMMU_PAGES).await;
}

/// `iommu_unpreserve_pages_list(list, count)`: the first `count` pages, or all of them.
pub async fn iommu_unpreserve_pages_list(t: &Task, list: &IommuPagesList, count: Option<u32>) {
    let mut left = count;
    let mut page = list.first;
    while !page.is_null() && left != Some(0) {
        kho_unpreserve_folio(t, page, owner::IOMMU_PAGES).await;
        left = left.map(|left| left - 1);
        page = Ptr::new(t.read(page.at(Page::LRU_NEXT)).await);
    }
}

/// `iommu_preserve_pages_list()`: in list order; an error takes back what was done.
pub async fn iommu_preserve_pages_list(t: &Task, list: &IommuPagesList) -> Errno {
    let _in = t.call("iommu_preserve_pages_list");
    let mut count = 0;
    let mut page = list.first;
    while !page.is_null() {
        let next: Ptr<Page> = Ptr::new(t.read(page.at(Page::LRU_NEXT)).await);
        if t.k.has(Defect::PreserveSkipsTable) && next.is_null() {
            break;
        }
        let ret = kho_preserve_folio(t, page, owner::IOMMU_PAGES).await;
        if ret != 0 {
            if t.k.has(Defect::RollbackShort) && count > 0 {
                count -= 1;
            }
            iommu_unpreserve_pages_list(t, list, Some(count)).await;
            t.mark(Mark::PreserveRolledBack);
            return ret;
        }
        count += 1;
        page = next;
    }
    0
}

/// `iommu_restore_page()`: BUG when the page was not handed over.
pub async fn iommu_restore_page(t: &Task, pa: Pa) -> Ptr<u64> {
    let page = kho_restore_folio(t, pa).await;
    t.bug_on(page.is_null(), "iommu_restore_page: page was not preserved").await;
    page_address(t, page)
}
