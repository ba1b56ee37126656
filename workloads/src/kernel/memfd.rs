//! memfd: shmem inodes, their page cache, seals, and long-term pins.
//!
//! The page cache is a two-level tree in RAM: the inode's words point to nodes of 64 slots, or straight to a folio that covers
//! whole nodes. A folio enters and leaves under the cache's spinlock and carries one reference for it. Whoever pins a folio for
//! DMA gets it out of scratch (CMA) first. A frozen inode (preserved by LUO) refuses every change of which pages it has.
//!
//! | supported | not supported |
//! | --- | --- |
//! | holes, fallocate, truncate, hole punch, seals, order-9 folios, pins, migration out of CMA | swap, reclaim, page tables of users, memcg accounting but its failure |
//!
//! Assumed: a pin is one count and one reference a page, for folios of any order; migration copies in one step, since the folio is
//! locked, unmapped and frozen meanwhile.
//!
//! Source: mm/shmem.c, mm/memfd.c, mm/gup.c (mainline, 2026).

use iommu_model::addr::{Pa, Pfn};
use sim::engine::{ChoiceKind, Object, Op, OpKind};
use sim::memory::{Field, Ptr, field};
use sim::sync::{RwSem, SpinLock};

use super::Task;
use super::file::{File, FileKind, Files, alloc_file, fd_install, fget_kind, fput, get_unused_fd, put_unused_fd};
use super::mm::{
    Gfp, PAGE_SIZE, PG_DIRTY, PG_SWAPBACKED, PG_UPTODATE, Page, alloc_pages, callee_fails, folio_get, folio_in_scratch, folio_lock,
    folio_order, folio_put, folio_set_flag, folio_try_get, folio_unlock, kfree, kzalloc, page_address, page_to_pfn,
};
use crate::callee;
use crate::errno::{EAGAIN, EBADF, EBUSY, EEXIST, EINVAL, ENOMEM, EPERM, Errno};
use crate::tag;
use crate::verb;

/// Seal: no more seals.
pub const F_SEAL_SEAL: u32 = 1;
/// Seal: cannot shrink.
pub const F_SEAL_SHRINK: u32 = 2;
/// Seal: cannot grow.
pub const F_SEAL_GROW: u32 = 4;
/// Seal: cannot be written.
pub const F_SEAL_WRITE: u32 = 8;

/// Inode flag: which pages it has does not change (`SHMEM_F_MAPPING_FROZEN`).
const MAPPING_FROZEN: u32 = 1;
/// Inode flag: huge pages where they fit.
const HUGE: u32 = 2;
/// Order of a huge page.
const HUGE_ORDER: u8 = 9;
/// Slots of a node.
const NODE_SLOTS: u64 = 64;
/// Marks a word of the inode that points to a node.
const NODE_TAG: u64 = 2;
/// How often a folio in CMA is tried to be moved before pinning fails.
const MIGRATE_TRIES: u32 = 3;
/// How often, in 1024, an unpinned folio is placed in CMA: free CMA is used when it is more than half of free memory.
const CMA_PER_1024: u32 = 64;

/// `struct shmem_inode_info` with its mapping.
#[derive(Clone, Copy, Debug)]
pub struct Inode;

impl Inode {
    /// `i_rwsem`.
    pub const LOCK: Field<RwSem> = field(0, "i_rwsem");
    /// Lock of the page cache.
    pub const XA_LOCK: Field<SpinLock> = field(8, "i_pages.xa_lock");
    /// Bytes of the file.
    pub const SIZE: Field<u64> = field(16, "i_size");
    /// Seals.
    pub const SEALS: Field<u32> = field(24, "seals");
    /// Flags.
    pub const FLAGS: Field<u32> = field(28, "flags");
    /// Pages in the cache.
    pub const NRPAGES: Field<u64> = field(32, "nrpages");
    /// First word of the cache's root.
    const ROOT: Field<u64> = field(40, "i_pages");
    const ROOT_SLOTS: u64 = 16;
    /// Bytes.
    pub const BYTES: u16 = 40 + 16 * 8;
    /// Largest file in pages.
    pub const PAGES_MAX: u64 = Inode::ROOT_SLOTS * NODE_SLOTS;

    fn root_slot(inode: Ptr<Inode>, index: u64) -> Ptr<u64> {
        inode.at(Inode::ROOT).byte_add(index / NODE_SLOTS * 8)
    }
}

/// `file_inode()` of a memfd.
pub async fn memfd_file_inode(t: &Task, file: Ptr<File>) -> Ptr<Inode> {
    Ptr::new(t.read(file.at(File::PRIVATE_DATA)).await)
}

/// `memfd_alloc_file()`: a memfd of `size` bytes without pages, or NULL.
pub async fn memfd_alloc_file(t: &Task, size: u64, seals: u32, huge: bool) -> Ptr<File> {
    if callee_fails(t, callee::ANON_INODE) {
        return Ptr::NULL;
    }
    let inode = kzalloc::<Inode>(t, Inode::BYTES, Gfp::Kernel, tag::SHMEM_INODE).await;
    if inode.is_null() {
        return Ptr::NULL;
    }
    t.init_lock(inode.at(Inode::LOCK)).await;
    t.init_lock(inode.at(Inode::XA_LOCK)).await;
    t.write(inode.at(Inode::SIZE), size).await;
    t.write(inode.at(Inode::SEALS), seals).await;
    t.write(inode.at(Inode::FLAGS), if huge { HUGE } else { 0 }).await;
    let file = alloc_file(t, FileKind::Memfd, inode.value()).await;
    if file.is_null() {
        kfree(t, inode).await;
    }
    file
}

/// memfd_create(2), ftruncate and sealing against resizing, as a VMM does it; the descriptor.
pub async fn sys_memfd_create(t: &Task, files: Ptr<Files>, nr_pages: u32) -> i32 {
    sys_memfd_create_flags(t, files, nr_pages, F_SEAL_SEAL | F_SEAL_GROW | F_SEAL_SHRINK, false).await
}

/// As [`sys_memfd_create`], with huge pages where they fit.
pub async fn sys_memfd_create_huge(t: &Task, files: Ptr<Files>, nr_pages: u32) -> i32 {
    sys_memfd_create_flags(t, files, nr_pages, F_SEAL_SEAL | F_SEAL_GROW | F_SEAL_SHRINK, true).await
}

/// As [`sys_memfd_create`] with seals and huge pages as asked.
pub async fn sys_memfd_create_flags(t: &Task, files: Ptr<Files>, nr_pages: u32, seals: u32, huge: bool) -> i32 {
    let _in = t.call("sys_memfd_create");
    if u64::from(nr_pages) > Inode::PAGES_MAX {
        return EINVAL;
    }
    let fd = get_unused_fd(t, files).await;
    if fd < 0 {
        return fd;
    }
    let file = memfd_alloc_file(t, u64::from(nr_pages) * PAGE_SIZE, seals, huge).await;
    if file.is_null() {
        put_unused_fd(t, files, fd).await;
        return ENOMEM;
    }
    fd_install(t, files, fd, file).await;
    fd
}

/// `shmem_evict_inode()`: the last close drops every page and the inode. Pinned folios live on until they are unpinned.
pub(super) async fn shmem_release(t: &Task, file: Ptr<File>) {
    let _in = t.call("shmem_evict_inode");
    let inode = memfd_file_inode(t, file).await;
    shmem_truncate(t, inode, 0, Inode::PAGES_MAX).await;
    for slot in 0..Inode::ROOT_SLOTS {
        let word = t.read(Inode::root_slot(inode, slot * NODE_SLOTS)).await;
        if word & NODE_TAG != 0 {
            kfree(t, Ptr::<u64>::new(word & !NODE_TAG)).await;
        }
    }
    kfree(t, inode).await;
}

/// The slot of a page index: in a node, or the root word itself for a folio of whole nodes; none without node.
async fn cache_slot(t: &Task, inode: Ptr<Inode>, index: u64) -> Option<Ptr<u64>> {
    let root = Inode::root_slot(inode, index);
    let word = t.read_once(root).await;
    if word == 0 {
        None
    } else if word & NODE_TAG != 0 {
        Some(Ptr::new((word & !NODE_TAG) + index % NODE_SLOTS * 8))
    } else {
        Some(root)
    }
}

/// `filemap_get_folio()`: the folio at `index` with a reference, or NULL.
async fn filemap_get_folio(t: &Task, inode: Ptr<Inode>, index: u64) -> Ptr<Page> {
    loop {
        let Some(slot) = cache_slot(t, inode, index).await else { return Ptr::NULL };
        let page = Ptr::<Page>::new(t.read_once(slot).await);
        if page.is_null() {
            return page;
        }
        if !folio_try_get(t, page).await {
            continue;
        }
        if t.read_once(slot).await == page.value() {
            return page;
        }
        folio_put(t, page).await;
    }
}

/// `shmem_add_to_page_cache()`: the cache takes a reference of its own. -EEXIST when the index is taken, -ENOMEM without node.
pub(super) async fn shmem_add_to_page_cache(t: &Task, inode: Ptr<Inode>, page: Ptr<Page>, index: u64) -> Errno {
    let order = folio_order(t, page).await;
    let large = 1 << order >= NODE_SLOTS;
    let mut node = Ptr::<u64>::NULL;
    if !large && t.read_once(Inode::root_slot(inode, index)).await == 0 {
        node = kzalloc::<u64>(t, (NODE_SLOTS * 8) as u16, Gfp::Kernel, tag::XA_NODE).await;
        if node.is_null() {
            return ENOMEM;
        }
    }
    folio_get(t, page).await;
    t.write(page.at(Page::MAPPING), inode.value()).await;
    t.write(page.at(Page::INDEX), index).await;
    t.spin_lock(inode.at(Inode::XA_LOCK)).await;
    if !node.is_null() && t.read(Inode::root_slot(inode, index)).await == 0 {
        t.store_release(Inode::root_slot(inode, index), node.value() | NODE_TAG).await;
        node = Ptr::NULL;
    }
    let mut err = 0;
    let step = if large { NODE_SLOTS } else { 1 };
    for at in (index..index + (1 << order)).step_by(step as usize) {
        let slot = if large { Inode::root_slot(inode, at) } else { cache_slot(t, inode, at).await.unwrap_or(Ptr::NULL) };
        if t.read(slot).await != 0 {
            err = EEXIST;
            break;
        }
        t.store_release(slot, page.value()).await;
    }
    if err == 0 {
        let nr = t.read(inode.at(Inode::NRPAGES)).await;
        t.write(inode.at(Inode::NRPAGES), nr + (1 << order)).await;
    }
    t.spin_unlock(inode.at(Inode::XA_LOCK)).await;
    if err != 0 {
        t.write(page.at(Page::MAPPING), 0).await;
        folio_put(t, page).await;
    }
    kfree(t, node).await;
    err
}

/// `shmem_truncate_range()`: drops the folios that lie in `[start, end)`.
async fn shmem_truncate(t: &Task, inode: Ptr<Inode>, start: u64, end: u64) {
    let mut index = start;
    while index < end {
        let Some(slot) = cache_slot(t, inode, index).await else {
            index = (index / NODE_SLOTS + 1) * NODE_SLOTS;
            continue;
        };
        let page = Ptr::<Page>::new(t.read_once(slot).await);
        if page.is_null() {
            index += 1;
            continue;
        }
        let order = folio_order(t, page).await;
        folio_lock(t, page).await;
        t.spin_lock(inode.at(Inode::XA_LOCK)).await;
        let present = t.read(slot).await == page.value();
        if present {
            let step = if 1 << order >= NODE_SLOTS { NODE_SLOTS } else { 1 };
            for at in (index..index + (1 << order)).step_by(step as usize) {
                if let Some(slot) = cache_slot(t, inode, at).await {
                    t.write_once(slot, 0).await;
                }
            }
            t.write(page.at(Page::MAPPING), 0).await;
            let nr = t.read(inode.at(Inode::NRPAGES)).await;
            t.write(inode.at(Inode::NRPAGES), nr.wrapping_sub(1 << order)).await;
        }
        t.spin_unlock(inode.at(Inode::XA_LOCK)).await;
        folio_unlock(t, page).await;
        if present {
            folio_put(t, page).await;
        }
        index += 1 << order;
    }
}

/// `shmem_get_folio()`: the folio at `index` with a reference, allocated when there is none; an error pointer on failure. `fill`
/// zeroes a new folio and marks it valid; fallocate leaves that to the first use.
async fn shmem_get_folio(t: &Task, inode: Ptr<Inode>, index: u64, fill: bool) -> Ptr<Page> {
    if index * PAGE_SIZE >= t.read_once(inode.at(Inode::SIZE)).await {
        return Ptr::err(-EINVAL);
    }
    loop {
        let page = filemap_get_folio(t, inode, index).await;
        if !page.is_null() {
            if fill {
                folio_make_uptodate(t, page).await;
            }
            return page;
        }
        let (page, first) = shmem_alloc_folio(t, inode, index, fill).await;
        if page.is_null() {
            return Ptr::err(-ENOMEM);
        }
        if callee_fails(t, callee::CHARGE) {
            folio_put(t, page).await;
            return Ptr::err(-ENOMEM);
        }
        let flags = PG_SWAPBACKED | if fill { PG_UPTODATE } else { 0 };
        t.write(page.at(Page::FLAGS), flags).await;
        let err = shmem_add_to_page_cache(t, inode, page, first).await;
        if err == 0 {
            return page;
        }
        folio_put(t, page).await;
        if err != EEXIST {
            return Ptr::err(-err);
        }
    }
}

/// A new folio and the index it is for: huge where the file wants it and the range is whole, else one page.
async fn shmem_alloc_folio(t: &Task, inode: Ptr<Inode>, index: u64, fill: bool) -> (Ptr<Page>, u64) {
    let gfp = if t.machine.core.odds(ChoiceKind::Placement, CMA_PER_1024) { Gfp::Movable } else { Gfp::Kernel };
    let first = index & !((1 << HUGE_ORDER) - 1);
    let size = t.read_once(inode.at(Inode::SIZE)).await;
    if t.read(inode.at(Inode::FLAGS)).await & HUGE != 0 && (first + (1 << HUGE_ORDER)) * PAGE_SIZE <= size {
        let mut free = true;
        for slot in (first..first + (1 << HUGE_ORDER)).step_by(NODE_SLOTS as usize) {
            free &= t.read_once(Inode::root_slot(inode, slot)).await == 0;
        }
        if free {
            let page = alloc_pages(t, gfp, HUGE_ORDER, fill, tag::MEMFD_FOLIO).await;
            if !page.is_null() {
                return (page, first);
            }
        }
    }
    (alloc_pages(t, gfp, 0, fill, tag::MEMFD_FOLIO).await, index)
}

/// Zeroes a folio that was allocated without being filled, under its lock.
pub(super) async fn folio_make_uptodate(t: &Task, page: Ptr<Page>) {
    if t.read_once(page.at(Page::FLAGS)).await & PG_UPTODATE != 0 {
        return;
    }
    folio_lock(t, page).await;
    if t.read(page.at(Page::FLAGS)).await & PG_UPTODATE == 0 {
        let order = folio_order(t, page).await;
        t.clear_frames(page_address::<u64>(t, page), PAGE_SIZE << order).await;
        folio_set_flag(t, page, PG_UPTODATE).await;
    }
    folio_unlock(t, page).await;
}

/// `memfd_pin_folios()` for one index, mm/gup.c: the folio, out of CMA, with a long-term pin; an error pointer on failure.
pub async fn memfd_pin_folio(t: &Task, file: Ptr<File>, index: u64) -> Ptr<Page> {
    let _in = t.call("memfd_pin_folios");
    let inode = memfd_file_inode(t, file).await;
    for _ in 0..MIGRATE_TRIES {
        let page = shmem_get_folio(t, inode, index, true).await;
        if page.errno().is_some() {
            return page;
        }
        let order = folio_order(t, page).await;
        if !folio_in_scratch(t, page, order) {
            t.rmw(page.at(Page::PINCOUNT), |old| Some(old + 1)).await;
            t.machine.note(verb::PINNED, [page_to_pfn(t, page).0, u64::from(order), 0, 0]);
            return page;
        }
        let err = migrate_folio(t, inode, page, order).await;
        folio_put(t, page).await;
        if err != 0 && err != EAGAIN {
            return Ptr::err(-err);
        }
    }
    Ptr::err(-EBUSY)
}

/// `folio_add_pins()`, mm/gup.c: `pins` more pins of a folio that is pinned, one for each further page in use.
pub async fn folio_add_pins(t: &Task, page: Ptr<Page>, pins: u32) {
    t.rmw(page.at(Page::REFCOUNT).cast::<u32>(), |old| Some(old + pins)).await;
    t.rmw(page.at(Page::PINCOUNT), |old| Some(old + pins)).await;
}

/// `unpin_folio()`: drops a pin of [`memfd_pin_folio`].
pub async fn unpin_folio(t: &Task, page: Ptr<Page>) {
    unpin_folio_pages(t, page, 1).await;
}

/// `gup_put_folio()`, mm/gup.c: drops the pins of `nr` pages of a folio at once.
pub async fn unpin_folio_pages(t: &Task, page: Ptr<Page>, nr: u32) {
    let order = folio_order(t, page).await;
    let old = t.rmw(page.at(Page::PINCOUNT), |old| (old >= nr).then(|| old - nr)).await;
    t.warn_on(old < nr, "unpin_folio: not pinned");
    t.machine.note(verb::UNPINNED, [page_to_pfn(t, page).0, u64::from(order), 0, 0]);
    if nr > 1 {
        t.rmw(page.at(Page::REFCOUNT).cast::<u32>(), |old| Some(old.wrapping_sub(nr - 1))).await;
    }
    folio_put(t, page).await;
}

/// `migrate_folio()`, mm/migrate.c: replaces `page`, on which the caller holds a reference, by an unmovable copy. -EAGAIN when
/// somebody else holds references.
async fn migrate_folio(t: &Task, inode: Ptr<Inode>, page: Ptr<Page>, order: u8) -> Errno {
    let _in = t.call("migrate_folio");
    if callee_fails(t, callee::MIGRATE) {
        return EBUSY;
    }
    let new = alloc_pages(t, Gfp::Kernel, order, false, tag::MEMFD_FOLIO).await;
    if new.is_null() {
        return ENOMEM;
    }
    folio_lock(t, page).await;
    let index = t.read(page.at(Page::INDEX)).await;
    let mapping = t.read(page.at(Page::MAPPING)).await;
    t.spin_lock(inode.at(Inode::XA_LOCK)).await;
    // folio_ref_freeze: the cache's reference and ours, nobody else's.
    let frozen = mapping == inode.value() && t.cmpxchg(page.at(Page::REFCOUNT).cast::<u32>(), 2, 0).await == 2;
    if frozen {
        t.step(Op::new(OpKind::Read, Object(page_address::<u64>(t, page).pa().0), PAGE_SIZE as u16)).await;
        copy_at_once(t, page_to_pfn(t, page), page_to_pfn(t, new), order);
        let flags = t.read(page.at(Page::FLAGS)).await;
        t.write(new.at(Page::FLAGS), flags & !super::mm::PG_LOCKED).await;
        t.write(new.at(Page::MAPPING), mapping).await;
        t.write(new.at(Page::INDEX), index).await;
        let step = if 1 << order >= NODE_SLOTS { NODE_SLOTS } else { 1 };
        for at in (index..index + (1 << order)).step_by(step as usize) {
            if let Some(slot) = cache_slot(t, inode, at).await {
                t.store_release(slot, new.value()).await;
            }
        }
        t.write(page.at(Page::MAPPING), 0).await;
        // folio_ref_unfreeze: the caller's reference is the last one.
        t.store_release(page.at(Page::REFCOUNT).cast::<u32>(), 1).await;
    }
    t.spin_unlock(inode.at(Inode::XA_LOCK)).await;
    folio_unlock(t, page).await;
    if !frozen {
        folio_put(t, new).await;
        return EAGAIN;
    }
    0
}

/// Copies a folio nobody can reach, defined words only.
fn copy_at_once(t: &Task, from: Pfn, to: Pfn, order: u8) {
    t.machine.with_memory(|memory| {
        for offset in (0..PAGE_SIZE << order).step_by(8) {
            let source = Pa(from.pa().0 + offset);
            if memory.ram.is_defined(source, 8) {
                let word = memory.ram.load(source, 8);
                memory.ram.store(Pa(to.pa().0 + offset), 8, word);
            }
        }
    });
}

/// `shmem_freeze()`: whether the set of pages may change; the caller holds the inode's lock.
pub(super) async fn shmem_freeze(t: &Task, inode: Ptr<Inode>, freeze: bool) {
    let flags = t.read(inode.at(Inode::FLAGS)).await;
    t.write(inode.at(Inode::FLAGS), if freeze { flags | MAPPING_FROZEN } else { flags & !MAPPING_FROZEN }).await;
}

/// `memfd_get_seals()`.
pub async fn memfd_get_seals(t: &Task, file: Ptr<File>) -> u32 {
    let inode = memfd_file_inode(t, file).await;
    t.read(inode.at(Inode::SEALS)).await
}

/// A change of which pages the file has: what freeze and seals refuse it for.
async fn refusal(t: &Task, inode: Ptr<Inode>, seals: u32) -> Errno {
    let frozen = t.read(inode.at(Inode::FLAGS)).await & MAPPING_FROZEN != 0;
    let sealed = t.read(inode.at(Inode::SEALS)).await & seals != 0;
    if frozen || sealed { EPERM } else { 0 }
}

/// fcntl(F_ADD_SEALS).
pub async fn memfd_add_seals(t: &Task, files: Ptr<Files>, fd: i32, seals: u32) -> Errno {
    let _in = t.call("memfd_add_seals");
    let file = fget_kind(t, files, fd, FileKind::Memfd).await;
    if file.is_null() {
        return EBADF;
    }
    let inode = memfd_file_inode(t, file).await;
    t.down_write(inode.at(Inode::LOCK)).await;
    let old = t.read(inode.at(Inode::SEALS)).await;
    let err = if old & F_SEAL_SEAL != 0 { EPERM } else { 0 };
    if err == 0 {
        t.write(inode.at(Inode::SEALS), old | seals).await;
    }
    t.up_write(inode.at(Inode::LOCK)).await;
    fput(t, file).await;
    err
}

/// fallocate(2): allocates the pages of a range. -EPERM while frozen.
pub async fn sys_fallocate(t: &Task, files: Ptr<Files>, fd: i32, page: u32, pages: u32) -> Errno {
    let _in = t.call("shmem_fallocate");
    let file = fget_kind(t, files, fd, FileKind::Memfd).await;
    if file.is_null() {
        return EBADF;
    }
    let inode = memfd_file_inode(t, file).await;
    t.down_write(inode.at(Inode::LOCK)).await;
    let mut err = refusal(t, inode, 0).await;
    let mut index = u64::from(page);
    while err == 0 && index < u64::from(page) + u64::from(pages) {
        let folio = shmem_get_folio(t, inode, index, false).await;
        match folio.errno() {
            Some(errno) => err = -errno,
            None => folio_put(t, folio).await,
        }
        index += 1;
    }
    t.up_write(inode.at(Inode::LOCK)).await;
    fput(t, file).await;
    err
}

/// fallocate(FALLOC_FL_PUNCH_HOLE): drops the pages of a range. -EPERM while frozen or sealed against writing.
pub async fn sys_punch_hole(t: &Task, files: Ptr<Files>, fd: i32, page: u32, pages: u32) -> Errno {
    let _in = t.call("shmem_fallocate");
    let file = fget_kind(t, files, fd, FileKind::Memfd).await;
    if file.is_null() {
        return EBADF;
    }
    let inode = memfd_file_inode(t, file).await;
    t.down_write(inode.at(Inode::LOCK)).await;
    let err = refusal(t, inode, F_SEAL_WRITE).await;
    if err == 0 {
        let end = (u64::from(page) + u64::from(pages)).min(Inode::PAGES_MAX);
        shmem_truncate(t, inode, u64::from(page), end).await;
    }
    t.up_write(inode.at(Inode::LOCK)).await;
    fput(t, file).await;
    err
}

/// ftruncate(2): -EPERM while frozen or sealed.
pub async fn sys_ftruncate(t: &Task, files: Ptr<Files>, fd: i32, pages: u32) -> Errno {
    let _in = t.call("shmem_setattr");
    if u64::from(pages) > Inode::PAGES_MAX {
        return EINVAL;
    }
    let file = fget_kind(t, files, fd, FileKind::Memfd).await;
    if file.is_null() {
        return EBADF;
    }
    let inode = memfd_file_inode(t, file).await;
    t.down_write(inode.at(Inode::LOCK)).await;
    let old = t.read(inode.at(Inode::SIZE)).await;
    let new = u64::from(pages) * PAGE_SIZE;
    let seals = if new < old { F_SEAL_SHRINK } else { F_SEAL_GROW };
    let err = if new == old { 0 } else { refusal(t, inode, seals).await };
    if err == 0 {
        t.write_once(inode.at(Inode::SIZE), new).await;
        shmem_truncate(t, inode, u64::from(pages), Inode::PAGES_MAX).await;
    }
    t.up_write(inode.at(Inode::LOCK)).await;
    fput(t, file).await;
    err
}

/// A store by a user through a shared mapping: fault, then the store. Freezing does not prevent it.
pub async fn memfd_store(t: &Task, files: Ptr<Files>, fd: i32, page: u32, offset: u16, value: u64) -> Errno {
    let file = fget_kind(t, files, fd, FileKind::Memfd).await;
    if file.is_null() {
        return EBADF;
    }
    let inode = memfd_file_inode(t, file).await;
    let folio = shmem_get_folio(t, inode, u64::from(page), true).await;
    let mut err = 0;
    match folio.errno() {
        Some(errno) => err = -errno,
        None => {
            folio_set_flag(t, folio, PG_DIRTY).await;
            t.write_once(user_word(t, folio, page, offset).await, value).await;
            folio_put(t, folio).await;
        }
    }
    fput(t, file).await;
    err
}

/// A load by a user through a shared mapping.
pub async fn memfd_load(t: &Task, files: Ptr<Files>, fd: i32, page: u32, offset: u16) -> (Errno, u64) {
    let file = fget_kind(t, files, fd, FileKind::Memfd).await;
    if file.is_null() {
        return (EBADF, 0);
    }
    let inode = memfd_file_inode(t, file).await;
    let folio = shmem_get_folio(t, inode, u64::from(page), true).await;
    let mut answer = (0, 0);
    match folio.errno() {
        Some(errno) => answer.0 = -errno,
        None => {
            answer.1 = t.read_once(user_word(t, folio, page, offset).await).await;
            folio_put(t, folio).await;
        }
    }
    fput(t, file).await;
    answer
}

/// The physical address of a page of a memfd, as a user's page tables would name it; 0 when there is none. For notes about content.
pub async fn memfd_page_pa(t: &Task, files: Ptr<Files>, fd: i32, page: u32) -> Pa {
    let file = fget_kind(t, files, fd, FileKind::Memfd).await;
    if file.is_null() {
        return Pa(0);
    }
    let inode = memfd_file_inode(t, file).await;
    let folio = filemap_get_folio(t, inode, u64::from(page)).await;
    let mut pa = Pa(0);
    if !folio.is_null() {
        pa = user_word(t, folio, page, 0).await.pa();
        folio_put(t, folio).await;
    }
    fput(t, file).await;
    pa
}

async fn user_word(t: &Task, folio: Ptr<Page>, page: u32, offset: u16) -> Ptr<u64> {
    let first = t.read(folio.at(Page::INDEX)).await;
    page_address::<u64>(t, folio).byte_add(u64::from(page).wrapping_sub(first) * PAGE_SIZE + u64::from(offset & 0xff8))
}
