//! KHO, kexec handover, generation B: a set of (address, order) that the next kernel leaves alone, and a small tree that names
//! what lies there.
//!
//! Map: [`radix`] the tracker; [`fdt`] the root page and its format; [`vmalloc`] arrays of pages; [`boot`] set-up in either
//! kernel, and the scratch-only phase. Here: preserve, unpreserve and restore of folios and page ranges.
//!
//! The caller keeps the memory alive between preserve and unpreserve; KHO takes no reference and does not count. A restored
//! folio is an ordinary one.
//!
//! | supported | not supported |
//! | --- | --- |
//! | folios, page ranges, kho_alloc, vmalloc, subtrees, one scratch area | generation A bitmaps, NUMA splitting, extended scratch |
//!
//! Source: kernel/liveupdate/kexec_handover.c (linux-mm, 2026).

pub mod boot;
pub mod fdt;
pub mod radix;
pub mod vmalloc;

use iommu_model::addr::{Pa, Pfn};
use sim::memory::{Field, FrameState, Ptr, SHARED, Tag, field};
use sim::sync::Mutex;

use super::mm::{
    self, Gfp, Page, alloc_pages, folio_in_scratch, folio_order, folio_put, get_order, page_address, page_to_pfn, pfn_to_online_page,
};
use super::{Section, Task};
use crate::defect::Defect;
use crate::errno::{E2BIG, EINVAL, ENOMEM, Errno};
use crate::verb::{self, owner};

pub use boot::{kho_init, kho_memory_init};
pub use fdt::{kho_add_subtree, kho_remove_subtree, kho_retrieve_subtree};
pub use vmalloc::{
    KhoVmalloc, VmStruct, kho_preserve_vmalloc, kho_restore_vmalloc, kho_unpreserve_vmalloc, vcalloc, vfree, vmalloc_to_addr,
};

/// Where KHO keeps its globals.
pub const SECTION: Section = Section::Kho;
/// "KHOP", in the high half of a preserved head page's private word.
pub const KHO_PAGE_MAGIC: u64 = 0x4b48_4f50;

/// Globals of KHO.
#[derive(Clone, Copy, Debug)]
pub struct Kho;

impl Kho {
    /// `kho_enable`.
    pub const ENABLE: Field<u64> = field(0, "kho_enable");
    /// `kho_out.radix_tree.root`.
    pub const RADIX_ROOT: Field<Ptr<radix::KhoRadixNode>> = field(8, "kho_out.radix_tree.root");
    /// `kho_out.radix_tree.lock`.
    pub const RADIX_LOCK: Field<Mutex> = field(16, "kho_out.radix_tree.lock");
    /// `kho_out.fdt`.
    pub const OUT_FDT: Field<Ptr<fdt::Fdt>> = field(24, "kho_out.fdt");
    /// `kho_out.lock`.
    pub const OUT_LOCK: Field<Mutex> = field(32, "kho_out.lock");
    /// `kho_in.fdt_phys`, 0 without hand-over.
    pub const IN_FDT: Field<u64> = field(40, "kho_in.fdt_phys");
    /// `kho_scratch`: first byte.
    pub const SCRATCH: Field<u64> = field(48, "kho_scratch.addr");
    /// `kho_scratch`: bytes.
    pub const SCRATCH_BYTES: Field<u64> = field(56, "kho_scratch.size");
}

/// `kho_is_enabled()`.
pub async fn kho_is_enabled(t: &Task) -> bool {
    t.read(t.sym(SECTION, Kho::ENABLE)).await != 0
}

/// What `kho_fill_kimage()` attaches to an image: the address of the root FDT, 0 while KHO is off.
pub async fn kho_fdt_pa(t: &Task) -> Pa {
    let _in = t.call("kho_fill_kimage");
    if !kho_is_enabled(t).await {
        return Pa(0);
    }
    t.read(t.sym(SECTION, Kho::OUT_FDT)).await.pa()
}

/// Adds a record and says so.
async fn add(t: &Task, pa: Pa, order: u8, owner: u64) -> Errno {
    let err = radix::kho_radix_add_page(t, pa, order).await;
    if err == 0 {
        t.machine.note(verb::KHO_ADD, [pa.0, u64::from(order), owner, 0]);
    }
    err
}

/// Removes a record, after saying so.
async fn del(t: &Task, pa: Pa, order: u8, owner: u64) {
    t.machine.note(verb::KHO_DEL, [pa.0, u64::from(order), owner, 0]);
    radix::kho_radix_del_page(t, pa, order).await;
}

/// `kho_preserve_folio()`: the folio, at its order, is left alone by the next kernel.
pub async fn kho_preserve_folio(t: &Task, page: Ptr<Page>, owner: u64) -> Errno {
    let _in = t.call("kho_preserve_folio");
    let order = folio_order(t, page).await;
    if t.warn_on(folio_in_scratch(t, page, order), "kho_preserve_folio: scratch") {
        return EINVAL;
    }
    add(t, page_to_pfn(t, page).pa(), order, owner).await
}

/// `kho_unpreserve_folio()`: the folio must still exist with the order it was preserved at.
pub async fn kho_unpreserve_folio(t: &Task, page: Ptr<Page>, owner: u64) {
    let _in = t.call("kho_unpreserve_folio");
    let mut order = folio_order(t, page).await;
    if t.k.has(Defect::UnpreserveWrongOrder) {
        order += 1;
    }
    del(t, page_to_pfn(t, page).pa(), order, owner).await;
}

/// Order of the largest naturally aligned block at `pfn` that has no more than `nr_pages` pages.
const fn block_order(pfn: u64, nr_pages: u64) -> u8 {
    let align = pfn.trailing_zeros();
    let size = u64::BITS - 1 - nr_pages.leading_zeros();
    let order = if align < size { align } else { size };
    if order > 10 { 10 } else { order as u8 }
}

/// `kho_preserve_pages()`: splits `[page, page + nr_pages)` into naturally aligned blocks and adds each; on an error removes those.
pub async fn kho_preserve_pages(t: &Task, page: Ptr<Page>, nr_pages: u64, owner: u64) -> Errno {
    let _in = t.call("kho_preserve_pages");
    let start = page_to_pfn(t, page).0;
    let end = start + nr_pages;
    let scratch = (start..end).any(|pfn| t.machine.memory().frames.get(pfn as usize).is_some_and(|frame| frame.scratch));
    if t.warn_on(scratch, "kho_preserve_pages: scratch") {
        return EINVAL;
    }
    let mut err = 0;
    let mut pfn = start;
    while pfn < end {
        let order = block_order(pfn, end - pfn);
        err = add(t, Pfn(pfn).pa(), order, owner).await;
        if err != 0 {
            break;
        }
        pfn += 1 << order;
    }
    if err != 0 {
        unpreserve_range(t, start, pfn, owner).await;
    }
    err
}

/// `kho_unpreserve_pages()`: takes what was given to [`kho_preserve_pages`].
pub async fn kho_unpreserve_pages(t: &Task, page: Ptr<Page>, nr_pages: u64, owner: u64) {
    let _in = t.call("kho_unpreserve_pages");
    let start = page_to_pfn(t, page).0;
    unpreserve_range(t, start, start + nr_pages, owner).await;
}

/// `__kho_unpreserve()`.
async fn unpreserve_range(t: &Task, start: u64, end: u64, owner: u64) {
    let mut pfn = start;
    while pfn < end {
        let order = block_order(pfn, end - pfn);
        del(t, Pfn(pfn).pa(), order, owner).await;
        pfn += 1 << order;
    }
}

/// `kho_alloc_preserve()`: zeroed, preserved memory, or an error pointer; never NULL.
pub async fn kho_alloc_preserve<T>(t: &Task, bytes: u64, tag: Tag) -> Ptr<T> {
    let _in = t.call("kho_alloc_preserve");
    if bytes == 0 {
        return Ptr::err(-EINVAL);
    }
    let order = get_order(bytes);
    if order > 10 {
        return Ptr::err(-E2BIG);
    }
    let zero = !t.k.has(Defect::UndefinedByte);
    let folio = alloc_pages(t, Gfp::Kernel, order, zero, tag).await;
    if folio.is_null() {
        return Ptr::err(-ENOMEM);
    }
    let err = kho_preserve_folio(t, folio, owner::ALLOC).await;
    if err != 0 {
        folio_put(t, folio).await;
        return Ptr::err(-err);
    }
    page_address(t, folio)
}

/// `kho_unpreserve_free()`: undoes [`kho_alloc_preserve`] in the same kernel; NULL does nothing.
pub async fn kho_unpreserve_free<T>(t: &Task, at: Ptr<T>) {
    let _in = t.call("kho_unpreserve_free");
    if at.is_null() {
        return;
    }
    let folio = mm::virt_to_page(t, at);
    if !t.k.has(Defect::FreeWithoutUnpreserve) {
        kho_unpreserve_folio(t, folio, owner::ALLOC).await;
    }
    folio_put(t, folio).await;
}

/// `kho_restore_free()`: frees memory of [`kho_alloc_preserve`] in the next kernel; NULL does nothing.
pub async fn kho_restore_free<T>(t: &Task, at: Ptr<T>) {
    let _in = t.call("kho_restore_free");
    if at.is_null() {
        return;
    }
    let folio = kho_restore_folio(t, at.pa()).await;
    if t.warn_on(folio.is_null(), "kho_restore_free") {
        return;
    }
    folio_put(t, folio).await;
}

/// `kho_restore_folio()`: the preserved folio at `pa` becomes ordinary memory with one reference; NULL when there is none.
pub async fn kho_restore_folio(t: &Task, pa: Pa) -> Ptr<Page> {
    let _in = t.call("kho_restore_folio");
    kho_restore_page(t, pa, true).await
}

/// `kho_restore_pages()`: a range preserved by [`kho_preserve_pages`], as single pages; NULL at the first that fails.
pub async fn kho_restore_pages(t: &Task, pa: Pa, nr_pages: u64) -> Ptr<Page> {
    let _in = t.call("kho_restore_pages");
    let start = pa.pfn().0;
    let end = start.saturating_add(nr_pages);
    let mut pfn = start;
    while pfn < end {
        let page = kho_restore_page(t, Pfn(pfn).pa(), false).await;
        if page.is_null() {
            return Ptr::NULL;
        }
        pfn += 1 << block_order(pfn, end - pfn);
    }
    mm::pfn_to_page(t, Pfn(start))
}

/// `kho_restore_page()`: takes no lock, so that two restores of one address are not serialised here.
async fn kho_restore_page(t: &Task, pa: Pa, is_folio: bool) -> Ptr<Page> {
    let page = pfn_to_online_page(t, pa.pfn());
    if page.is_null() {
        t.machine.note(verb::KHO_RESTORE_FAILED, [pa.0, 0, 0, 0]);
        return Ptr::NULL;
    }
    let info = t.read(page.at(Page::PRIVATE)).await;
    let order = (info & 0xffff_ffff) as u8;
    if t.warn_on(info >> 32 != KHO_PAGE_MAGIC || order > 10 || !pa.is_aligned(4096), "kho_restore_page: bad magic") {
        t.machine.note(verb::KHO_RESTORE_FAILED, [pa.0, 0, 0, 0]);
        return Ptr::NULL;
    }
    // Clears the magic first, so that a second restore of the same address fails.
    if !t.k.has(Defect::RestoreKeepsMagic) {
        t.write(page.at(Page::PRIVATE), 0).await;
    }
    let kept = if t.k.has(Defect::RestoreKeepsMagic) { info } else { 0 };
    t.refcount_set(page.at(Page::REFCOUNT), 1).await;
    init_restored(t, pa.pfn(), order, is_folio, kept);
    t.machine.note(verb::KHO_RESTORED, [pa.0, u64::from(order), kept, 0]);
    page
}

/// `kho_init_folio()` / `kho_init_pages()`: descriptors of head and tails, in the step of the refcount; and what the shadow must
/// know, that the frames have an owner again.
fn init_restored(t: &Task, pfn: Pfn, order: u8, is_folio: bool, private: u64) {
    t.machine.with_memory(|memory| {
        mm::boot::init_block(memory, t.k.memmap, pfn, order, !is_folio);
        memory.ram.store(mm::pfn_to_page(t, pfn).at(Page::PRIVATE).pa(), 8, private);
        let era = memory.era;
        for index in pfn.0..(pfn.0 + (1 << order)).min(memory.frames.len() as u64) {
            let frame = &mut memory.frames[index as usize];
            if frame.state == FrameState::Absent {
                continue;
            }
            frame.state = FrameState::Owned;
            frame.order = if is_folio { order } else { 0 };
            frame.head = if is_folio { pfn.0 as u32 } else { index as u32 };
            frame.era = era;
            frame.private_to = SHARED;
            frame.version += 1;
            frame.since = t.machine.core.steps() as u32;
            frame.by = t.machine.core.current();
        }
    });
}

/// True when the frame at `pa` heads a record that was handed over and not restored (the magic word is there).
pub async fn kho_is_preserved(t: &Task, pa: Pa) -> bool {
    let page = pfn_to_online_page(t, pa.pfn());
    !page.is_null() && pa.is_aligned(4096) && t.read(page.at(Page::PRIVATE)).await >> 32 == KHO_PAGE_MAGIC
}
