//! vmalloc areas and their preservation.
//!
//! An area is a `struct vm_struct` with its array of pages; code reaches byte n of the area through [`vmalloc_to_addr`], which
//! stands for the CPU's page tables. Blocks are order 0. What is handed over is a descriptor of 16 bytes and a chain of chunk
//! pages with the physical addresses of the blocks, ended by 0; the restored area has another address.
//!
//! Source: kernel/liveupdate/kexec_handover.c, `kho_preserve_vmalloc` and neighbours (linux-mm, 2026).

use iommu_model::addr::Pa;
use sim::memory::{Field, Ptr, field};

use super::super::Task;
use super::super::mm::{
    Gfp, KMALLOC_MAX, PAGE_SIZE, Page, alloc_pages, callee_fails, folio_put, free_page, get_zeroed_page, kfree, kzalloc, page_address,
    page_to_phys, virt_to_page,
};
use super::{kho_preserve_pages, kho_restore_pages, kho_unpreserve_pages};
use crate::callee;
use crate::errno::{EINVAL, ENOMEM, Errno};
use crate::tag;
use crate::verb::owner;

/// `KHO_VMALLOC_ALLOC`: the area came from `vmalloc`.
const KHO_VMALLOC_ALLOC: u16 = 1;
/// Addresses in a chunk.
pub const CHUNK_SLOTS: u64 = 511;

/// `struct vm_struct`: a vmalloc area.
#[derive(Clone, Copy, Debug)]
pub struct VmStruct;

impl VmStruct {
    /// Pages of the area.
    pub const NR_PAGES: Field<u64> = field(0, "nr_pages");
    /// First word of the array of page descriptors.
    pub const PAGES: Field<Ptr<Page>> = field(8, "pages");
    /// Most pages an area can have here.
    pub const NR_PAGES_MAX: u64 = (KMALLOC_MAX - 8) / 8;

    fn bytes(nr_pages: u64) -> u16 {
        (8 + nr_pages * 8) as u16
    }
    fn page_slot(self_: Ptr<VmStruct>, index: u64) -> Ptr<Ptr<Page>> {
        self_.at(VmStruct::PAGES).byte_add(index * 8)
    }
}

/// `struct kho_vmalloc`: descriptor in a subsystem's ABI structure.
#[derive(Clone, Copy, Debug)]
pub struct KhoVmalloc;

impl KhoVmalloc {
    /// Physical address of the first chunk.
    pub const FIRST: Field<u64> = field(0, "first");
    /// Pages of the area.
    pub const TOTAL_PAGES: Field<u32> = field(8, "total_pages");
    /// Flags.
    pub const FLAGS: Field<u16> = field(12, "flags");
    /// Order of its blocks.
    pub const ORDER: Field<u16> = field(14, "order");
}

/// `struct kho_vmalloc_chunk`: one page.
#[derive(Clone, Copy, Debug)]
pub struct Chunk;

impl Chunk {
    /// Physical address of the next chunk, or 0.
    pub const NEXT: Field<u64> = field(0, "next");

    fn phys(chunk: Ptr<Chunk>, index: u64) -> Ptr<u64> {
        chunk.byte_add(8 + index * 8)
    }
}

/// `vcalloc()`: a zeroed area of at least `bytes` bytes, or NULL.
pub async fn vcalloc(t: &Task, bytes: u64) -> Ptr<VmStruct> {
    let nr_pages = bytes.div_ceil(PAGE_SIZE);
    if nr_pages == 0 || nr_pages > VmStruct::NR_PAGES_MAX {
        return Ptr::NULL;
    }
    let area = kzalloc::<VmStruct>(t, VmStruct::bytes(nr_pages), Gfp::Kernel, tag::VMALLOC).await;
    if area.is_null() {
        return area;
    }
    for index in 0..nr_pages {
        let page = alloc_pages(t, Gfp::Kernel, 0, true, tag::VMALLOC).await;
        if page.is_null() {
            vfree(t, area).await;
            return Ptr::NULL;
        }
        t.write(VmStruct::page_slot(area, index), page).await;
        t.write(area.at(VmStruct::NR_PAGES), index + 1).await;
    }
    area
}

/// `vfree()`: frees the pages and the area; NULL does nothing.
pub async fn vfree(t: &Task, area: Ptr<VmStruct>) {
    if area.is_null() {
        return;
    }
    let nr_pages = t.read(area.at(VmStruct::NR_PAGES)).await.min(VmStruct::NR_PAGES_MAX);
    for index in 0..nr_pages {
        let page = t.read(VmStruct::page_slot(area, index)).await;
        folio_put(t, page).await;
    }
    kfree(t, area).await;
}

/// The direct-map address of byte `offset` of an area, as the CPU's page tables would translate it.
pub async fn vmalloc_to_addr<T>(t: &Task, area: Ptr<VmStruct>, offset: u64) -> Ptr<T> {
    let page = t.read(VmStruct::page_slot(area, offset / PAGE_SIZE)).await;
    page_address::<T>(t, page).byte_add(offset % PAGE_SIZE)
}

/// `new_vmalloc_chunk()`: a preserved chunk linked behind `cur`, or NULL.
async fn new_vmalloc_chunk(t: &Task, cur: Ptr<Chunk>) -> Ptr<Chunk> {
    let chunk = get_zeroed_page::<Chunk>(t, Gfp::Kernel, tag::VMALLOC_CHUNK).await;
    if chunk.is_null() {
        return Ptr::NULL;
    }
    let err = kho_preserve_pages(t, virt_to_page(t, chunk), 1, owner::VMALLOC).await;
    if err != 0 {
        free_page(t, chunk).await;
        return Ptr::NULL;
    }
    if !cur.is_null() {
        t.write(cur.at(Chunk::NEXT), chunk.pa().0).await;
    }
    chunk
}

/// `kho_preserve_vmalloc()`: preserves blocks and chunks and fills `desc`; an error undoes all of it.
pub async fn kho_preserve_vmalloc(t: &Task, area: Ptr<VmStruct>, desc: Ptr<KhoVmalloc>) -> Errno {
    let _in = t.call("kho_preserve_vmalloc");
    if area.is_null() {
        return EINVAL;
    }
    let mut chunk = new_vmalloc_chunk(t, Ptr::NULL).await;
    if chunk.is_null() {
        return ENOMEM;
    }
    t.write(desc.at(KhoVmalloc::FIRST), chunk.pa().0).await;
    let nr_pages = t.read(area.at(VmStruct::NR_PAGES)).await.min(VmStruct::NR_PAGES_MAX);
    let mut used = 0;
    let mut err = 0;
    for index in 0..nr_pages {
        let page = t.read(VmStruct::page_slot(area, index)).await;
        err = kho_preserve_pages(t, page, 1, owner::VMALLOC).await;
        if err != 0 {
            break;
        }
        t.write(Chunk::phys(chunk, used), page_to_phys(t, page).0).await;
        used += 1;
        if used == CHUNK_SLOTS {
            chunk = new_vmalloc_chunk(t, chunk).await;
            if chunk.is_null() {
                err = ENOMEM;
                break;
            }
            used = 0;
        }
    }
    if err != 0 {
        // err_free
        kho_unpreserve_vmalloc(t, desc).await;
        return err;
    }
    t.write(desc.at(KhoVmalloc::TOTAL_PAGES), nr_pages as u32).await;
    t.write(desc.at(KhoVmalloc::FLAGS), KHO_VMALLOC_ALLOC).await;
    t.write(desc.at(KhoVmalloc::ORDER), 0).await;
    0
}

/// `kho_unpreserve_vmalloc()`: unpreserves each block and chunk and frees the chunks; the area stays.
pub async fn kho_unpreserve_vmalloc(t: &Task, desc: Ptr<KhoVmalloc>) {
    let _in = t.call("kho_unpreserve_vmalloc");
    let mut at = t.read(desc.at(KhoVmalloc::FIRST)).await;
    while at != 0 {
        let chunk = Ptr::<Chunk>::from_pa(Pa(at));
        kho_unpreserve_pages(t, virt_to_page(t, chunk), 1, owner::VMALLOC).await;
        for index in 0..CHUNK_SLOTS {
            let phys = t.read(Chunk::phys(chunk, index)).await;
            if phys == 0 {
                break;
            }
            kho_unpreserve_pages(t, super::super::mm::pfn_to_page(t, Pa(phys).pfn()), 1, owner::VMALLOC).await;
        }
        at = t.read(chunk.at(Chunk::NEXT)).await;
        free_page(t, chunk).await;
    }
}

/// `kho_restore_vmalloc()`: a new area over the restored blocks; the chunks are freed. NULL on failure: what was restored by
/// then is lost, as in the kernel.
pub async fn kho_restore_vmalloc(t: &Task, desc: Ptr<KhoVmalloc>) -> Ptr<VmStruct> {
    let _in = t.call("kho_restore_vmalloc");
    let total = u64::from(t.read(desc.at(KhoVmalloc::TOTAL_PAGES)).await);
    let flags = t.read(desc.at(KhoVmalloc::FLAGS)).await;
    let order = t.read(desc.at(KhoVmalloc::ORDER)).await;
    if flags != KHO_VMALLOC_ALLOC || order != 0 || total == 0 || total > VmStruct::NR_PAGES_MAX {
        return Ptr::NULL;
    }
    let area = kzalloc::<VmStruct>(t, VmStruct::bytes(total), Gfp::Kernel, tag::VMALLOC).await;
    if area.is_null() {
        return Ptr::NULL;
    }
    let mut at = t.read(desc.at(KhoVmalloc::FIRST)).await;
    let mut index = 0;
    let whole = 'restore: {
        while at != 0 {
            let chunk = Ptr::<Chunk>::from_pa(Pa(at));
            for slot in 0..CHUNK_SLOTS {
                let phys = t.read(Chunk::phys(chunk, slot)).await;
                if phys == 0 {
                    break;
                }
                if index + 1 > total {
                    break 'restore false;
                }
                let page = kho_restore_pages(t, Pa(phys), 1).await;
                if page.is_null() {
                    break 'restore false;
                }
                t.write(VmStruct::page_slot(area, index), page).await;
                index += 1;
            }
            let page = kho_restore_pages(t, Pa(at), 1).await;
            if page.is_null() {
                break 'restore false;
            }
            at = t.read(chunk.at(Chunk::NEXT)).await;
            folio_put(t, page).await;
        }
        index == total && !callee_fails(t, callee::VM_AREA)
    };
    if !whole {
        // err_free_pages_array
        kfree(t, area).await;
        return Ptr::NULL;
    }
    t.write(area.at(VmStruct::NR_PAGES), total).await;
    area
}
