//! Page and slab allocation as kernel code sees it, over the array of `struct page` that each generation keeps in RAM.
//!
//! A call of the allocator is one step; which block is handed out and whether the call fails are choices. The descriptor words
//! of a block change in the same step, as they do under the zone lock. From then on every access to a descriptor word is an
//! access to shared memory like any other.
//!
//! | supported | not supported |
//! | --- | --- |
//! | order 0 to 10, refcounts, compound order, one list link, private word, pins, page lock | migrate types other than scratch/CMA, reclaim, memcg, NUMA |

pub mod boot;
pub mod list;

use iommu_model::addr::{Pa, Pfn};
use sim::alloc::{MAX_ORDER, Zone};
use sim::engine::{ChoiceKind, Object, Op, OpKind};
use sim::memory::{Field, PAGE_DESCRIPTOR_BYTES, Ptr, Tag, field};
use sim::sync::Refcount;

pub use self::boot::{mm_init, reserve_memmap};
use self::list::ListHead;
use super::Task;
use crate::mark::Mark;
use crate::tag;
use crate::verb;

/// Bytes of a page.
pub const PAGE_SIZE: u64 = 4096;
/// Largest object `kzalloc` hands out; larger ones are pages.
pub const KMALLOC_MAX: u64 = 2048;

/// `struct page`: one descriptor of 64 bytes a frame. Offsets are ours; the words are those the modelled code uses.
#[derive(Clone, Copy, Debug)]
pub struct Page;

impl Page {
    /// Flags: see the `PG_` constants.
    pub const FLAGS: Field<u64> = field(0, "flags");
    /// The one list link, shared by preserve lists, free lists and the unmap gather.
    pub const LRU: Field<ListHead> = field(8, "lru");
    /// First word of [`Page::LRU`].
    pub const LRU_NEXT: Field<u64> = field(8, "lru.next");
    /// Second word of [`Page::LRU`].
    pub const LRU_PREV: Field<u64> = field(16, "lru.prev");
    /// Private word; KHO keeps magic << 32 | order here from early boot until the restore.
    pub const PRIVATE: Field<u64> = field(24, "private");
    /// References.
    pub const REFCOUNT: Field<Refcount> = field(32, "_refcount");
    /// Order of the block, valid in its head.
    pub const ORDER: Field<u32> = field(36, "order");
    /// Long-term pins.
    pub const PINCOUNT: Field<u32> = field(40, "_pincount");
    /// The inode whose page cache holds the folio.
    pub const MAPPING: Field<u64> = field(48, "mapping");
    /// Page index in that file.
    pub const INDEX: Field<u64> = field(56, "index");
    /// Bytes of a descriptor.
    pub const BYTES: u64 = PAGE_DESCRIPTOR_BYTES;
}

/// Page flag: the folio lock.
pub const PG_LOCKED: u64 = 1 << 0;
/// Page flag: the content is valid.
pub const PG_UPTODATE: u64 = 1 << 3;
/// Page flag: the content is newer than any backing store.
pub const PG_DIRTY: u64 = 1 << 4;
/// Page flag: shmem folio.
pub const PG_SWAPBACKED: u64 = 1 << 18;

/// What an allocation may do and where it may land.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gfp {
    /// `GFP_KERNEL`: may sleep, unmovable, never in scratch.
    Kernel,
    /// `GFP_ATOMIC`: does not sleep.
    Atomic,
    /// `GFP_HIGHUSER_MOVABLE`: may sleep, may land in scratch (CMA).
    Movable,
}

/// The descriptor of a frame (`pfn_to_page`).
pub fn pfn_to_page(t: &Task, pfn: Pfn) -> Ptr<Page> {
    Ptr::from_pa(Pa(t.k.memmap.0.wrapping_add(pfn.0.wrapping_mul(Page::BYTES))))
}

/// The frame of a descriptor (`page_to_pfn`).
pub fn page_to_pfn(t: &Task, page: Ptr<Page>) -> Pfn {
    Pfn(page.pa().0.wrapping_sub(t.k.memmap.0) / Page::BYTES)
}

/// The physical address of a descriptor's frame (`page_to_phys`).
pub fn page_to_phys(t: &Task, page: Ptr<Page>) -> Pa {
    page_to_pfn(t, page).pa()
}

/// The direct-map address of a descriptor's frame (`page_address`).
pub fn page_address<T>(t: &Task, page: Ptr<Page>) -> Ptr<T> {
    Ptr::from_pa(page_to_phys(t, page))
}

/// The descriptor of the frame a direct-map address lies in (`virt_to_page`).
pub fn virt_to_page<T>(t: &Task, at: Ptr<T>) -> Ptr<Page> {
    pfn_to_page(t, at.pa().pfn())
}

/// `pfn_to_online_page()`: NULL where there is no memory.
pub fn pfn_to_online_page(t: &Task, pfn: Pfn) -> Ptr<Page> {
    let online = t.machine.memory().frames.get(pfn.0 as usize).is_some_and(|frame| frame.state != sim::memory::FrameState::Absent);
    if online { pfn_to_page(t, pfn) } else { Ptr::NULL }
}

/// `get_order()`: the smallest order whose block holds `bytes` bytes.
pub const fn get_order(bytes: u64) -> u8 {
    let pages = bytes.div_ceil(PAGE_SIZE);
    if pages <= 1 { 0 } else { (u64::BITS - (pages - 1).leading_zeros()) as u8 }
}

/// Asks whether a callee of class `class` fails here, and counts the coverage mark when it does.
pub fn callee_fails(t: &Task, class: u16) -> bool {
    let fails = t.machine.fails(ChoiceKind::CalleeFails, class);
    if fails {
        t.mark(Mark::CalleeFailed);
    }
    fails
}

/// `alloc_pages()` (`folio_alloc()`), mm/page_alloc.c: a block of 2^`order` frames with refcount 1, or NULL. The fault class is
/// the tag.
pub async fn alloc_pages(t: &Task, gfp: Gfp, order: u8, zero: bool, tag: Tag) -> Ptr<Page> {
    if gfp != Gfp::Atomic {
        t.might_sleep("alloc_pages");
    }
    if order > MAX_ORDER {
        return Ptr::NULL;
    }
    if t.machine.fails(ChoiceKind::AllocFails, tag.0) {
        t.mark(Mark::AllocFailed);
        return Ptr::NULL;
    }
    t.step(Op::new(OpKind::Alloc, Object::free_list(0), 0)).await;
    let zone = if gfp == Gfp::Movable { Zone::Movable } else { Zone::Normal };
    let Some(pfn) = t.machine.take_frames(order, zone, tag) else {
        t.machine.note(verb::NO_MEMORY, [u64::from(tag.0), PAGE_SIZE << order, 0, 0]);
        return Ptr::NULL;
    };
    boot::prep_new_page(t, pfn, order);
    let page = pfn_to_page(t, pfn);
    if zero {
        t.clear_frames(page_address::<u64>(t, page), PAGE_SIZE << order).await;
    }
    page
}

/// `get_zeroed_page()`: the direct-map address of one zeroed page, or NULL.
pub async fn get_zeroed_page<T>(t: &Task, gfp: Gfp, tag: Tag) -> Ptr<T> {
    let page = alloc_pages(t, gfp, 0, true, tag).await;
    if page.is_null() {
        return Ptr::NULL;
    }
    page_address(t, page)
}

/// `free_page()`: drops the reference of a page named by its address; NULL does nothing.
pub async fn free_page<T>(t: &Task, at: Ptr<T>) {
    if at.is_null() {
        return;
    }
    folio_put(t, virt_to_page(t, at)).await;
}

/// `folio_get()`: one more reference on a folio that has one.
pub async fn folio_get(t: &Task, page: Ptr<Page>) {
    let live = t.refcount_inc(page.at(Page::REFCOUNT)).await;
    t.warn_on(!live, "folio_get of a free folio");
}

/// `folio_try_get()`: a reference unless the folio is free.
pub async fn folio_try_get(t: &Task, page: Ptr<Page>) -> bool {
    t.refcount_inc_not_zero(page.at(Page::REFCOUNT)).await
}

/// `folio_put()`: drops a reference; the last one frees the block.
pub async fn folio_put(t: &Task, page: Ptr<Page>) {
    match t.refcount_dec_and_test(page.at(Page::REFCOUNT)).await {
        Ok(true) => free_unref_folio(t, page).await,
        Ok(false) => {}
        Err(_) => {
            t.warn_on(true, "folio refcount underflow");
        }
    }
}

/// `free_unref_page()`, mm/page_alloc.c: the block goes back to the free lists in one step.
async fn free_unref_folio(t: &Task, page: Ptr<Page>) {
    let order = t.read(page.at(Page::ORDER)).await;
    if t.warn_on(order > u32::from(MAX_ORDER), "bad_page") {
        return;
    }
    t.step(Op::new(OpKind::Free, Object::free_list(0), 0)).await;
    t.machine.give_frames(page_to_pfn(t, page), order as u8);
}

/// `compound_head()`: the head of the folio that a page belongs to.
pub async fn compound_head(t: &Task, page: Ptr<Page>) -> Ptr<Page> {
    let head = t.read_once(page.at(Page::LRU_NEXT)).await;
    if head & 1 != 0 { Ptr::new(head - 1) } else { page }
}

/// `folio_order()`.
pub async fn folio_order(t: &Task, page: Ptr<Page>) -> u8 {
    t.read(page.at(Page::ORDER)).await.min(u32::from(MAX_ORDER)) as u8
}

/// `folio_lock()`: the bit lock of a folio; sleeps.
pub async fn folio_lock(t: &Task, page: Ptr<Page>) {
    t.might_sleep("folio_lock");
    let flags = page.at(Page::FLAGS);
    loop {
        let old = t.rmw(flags, |old| (old & PG_LOCKED == 0).then_some(old | PG_LOCKED)).await;
        if old & PG_LOCKED == 0 {
            return;
        }
        t.machine.core.block(Object(flags.pa().0 & !7)).await;
    }
}

/// `folio_unlock()`.
pub async fn folio_unlock(t: &Task, page: Ptr<Page>) {
    let old = t.rmw(page.at(Page::FLAGS), |old| Some(old & !PG_LOCKED)).await;
    t.warn_on(old & PG_LOCKED == 0, "folio_unlock: not locked");
}

/// `set_bit()` on the flags word.
pub async fn folio_set_flag(t: &Task, page: Ptr<Page>, flag: u64) {
    t.rmw(page.at(Page::FLAGS), |old| Some(old | flag)).await;
}

/// `folio_is_longterm_pinnable()` turned round: true for a folio in scratch (CMA), which must not be pinned for long or preserved.
pub fn folio_in_scratch(t: &Task, page: Ptr<Page>, order: u8) -> bool {
    let first = page_to_pfn(t, page).0 as usize;
    let memory = t.machine.memory();
    (first..first.saturating_add(1 << order)).any(|pfn| memory.frames.get(pfn).is_some_and(|frame| frame.scratch))
}

/// `kzalloc()`, mm/slab_common.c: a zeroed object of `bytes` bytes, or NULL. The fault class is the tag.
pub async fn kzalloc<T>(t: &Task, bytes: u16, gfp: Gfp, tag: Tag) -> Ptr<T> {
    if gfp != Gfp::Atomic {
        t.might_sleep("kzalloc");
    }
    if t.machine.fails(ChoiceKind::AllocFails, tag.0) {
        t.mark(Mark::AllocFailed);
        return Ptr::NULL;
    }
    t.step(Op::new(OpKind::Alloc, Object::free_list(1), 0)).await;
    let Some(pa) = t.machine.take_object(bytes, tag, tag::SLAB) else {
        t.machine.note(verb::NO_MEMORY, [u64::from(tag.0), u64::from(bytes), 0, 0]);
        return Ptr::NULL;
    };
    boot::prep_slab_page(t, pa);
    t.machine.fill_at_once(pa, u64::from(bytes).next_multiple_of(8), 0);
    Ptr::from_pa(pa)
}

/// `kfree()`; NULL does nothing.
pub async fn kfree<T>(t: &Task, object: Ptr<T>) {
    if object.is_null() {
        return;
    }
    t.step(Op::new(OpKind::Free, Object::free_list(1), 0)).await;
    t.machine.give_object(object.pa());
}

/// `kvmalloc_array()`, zeroed: a slab object where it fits, else whole pages. NULL on failure.
pub async fn kvzalloc<T>(t: &Task, bytes: u64, tag: Tag) -> Ptr<T> {
    if bytes <= KMALLOC_MAX {
        return kzalloc(t, bytes as u16, Gfp::Kernel, tag).await;
    }
    let page = alloc_pages(t, Gfp::Kernel, get_order(bytes), true, tag).await;
    if page.is_null() {
        return Ptr::NULL;
    }
    page_address(t, page)
}

/// `kvfree()` of what [`kvzalloc`] handed out for `bytes` bytes; NULL does nothing.
pub async fn kvfree<T>(t: &Task, at: Ptr<T>, bytes: u64) {
    if bytes <= KMALLOC_MAX { kfree(t, at).await } else { free_page(t, at).await }
}
