//! The LUO file handler of memfd: the pages of a guest's memory, kept where they are.
//!
//! Preserve freezes the inode, pins every page (filling holes, moving pages out of CMA), hands each to KHO, and hands over an
//! array of (frame, index). The content may still change: guests and devices go on writing. Retrieve builds a new file over the
//! same frames.
//!
//! Source: mm/memfd_luo.c, include/linux/kho/abi/memfd.h, version 2 (mainline, mid 2026).

use iommu_model::addr::{Pa, Pfn};
use sim::memory::{Field, Ptr};

use super::Task;
use super::file::{File, FileKind, file_kind, fput};
use super::kho::{
    KhoVmalloc, VmStruct, kho_alloc_preserve, kho_preserve_folio, kho_preserve_vmalloc, kho_restore_folio, kho_restore_free,
    kho_restore_vmalloc, kho_unpreserve_folio, kho_unpreserve_free, kho_unpreserve_vmalloc, vcalloc, vfree, vmalloc_to_addr,
};
use super::luo::FileOpArgs;
use super::memfd::{
    Inode, folio_make_uptodate, memfd_alloc_file, memfd_file_inode, memfd_pin_folio, shmem_add_to_page_cache, shmem_freeze, unpin_folio,
};
use super::mm::{
    PAGE_SIZE, PG_DIRTY, PG_LOCKED, PG_SWAPBACKED, PG_UPTODATE, Page, callee_fails, folio_order, folio_put, folio_set_flag, folio_unlock,
    kvfree, kvzalloc, page_to_pfn, pfn_to_page,
};
use crate::abi::memfd as abi;
use crate::callee;
use crate::defect::Defect;
use crate::errno::{EINVAL, EIO, ENOENT, ENOMEM, ENOSPC, Errno};
use crate::tag;
use crate::verb::owner;

/// `struct memfd_luo_ser`.
#[derive(Clone, Copy, Debug)]
pub struct Ser;

impl Ser {
    const POS: Field<u64> = abi::SER.field("pos");
    const SIZE: Field<u64> = abi::SER.field("size");
    const SEALS: Field<u32> = abi::SER.field("seals");
    const FLAGS: Field<u32> = abi::SER.field("flags");
    const NR_FOLIOS: Field<u64> = abi::SER.field("nr_folios");
    const FOLIOS: Field<KhoVmalloc> = abi::SER.field("folios");
}

const FOLIO_BYTES: u64 = abi::FOLIO.bytes as u64;

/// Word `field` of entry `index` of the array of folios.
async fn folio_word(t: &Task, array: Ptr<VmStruct>, index: u64, field: usize) -> Ptr<u64> {
    vmalloc_to_addr(t, array, index * FOLIO_BYTES + u64::from(abi::FOLIO.fields[field].offset)).await
}

/// `memfd_luo_can_preserve()`: a shmem file without name, not of huge TLB pages.
pub(super) async fn memfd_luo_can_preserve(t: &Task, args: &mut FileOpArgs) -> bool {
    file_kind(t, args.file).await == Some(FileKind::Memfd)
}

/// `memfd_luo_preserve()`.
pub(super) async fn memfd_luo_preserve(t: &Task, args: &mut FileOpArgs) -> Errno {
    let _in = t.call("memfd_luo_preserve");
    let inode = memfd_file_inode(t, args.file).await;
    t.down_write(inode.at(Inode::LOCK)).await;
    shmem_freeze(t, inode, true).await;
    let err;
    'err_unlock: {
        let ser = kho_alloc_preserve::<Ser>(t, u64::from(abi::SER.bytes), tag::MEMFD_SER).await;
        if let Some(errno) = ser.errno() {
            err = -errno;
            break 'err_unlock;
        }
        let pos = t.read(args.file.at(File::F_POS)).await;
        let size = t.read(inode.at(Inode::SIZE)).await;
        let seals = t.read(inode.at(Inode::SEALS)).await;
        t.write(ser.at(Ser::POS), pos).await;
        t.write(ser.at(Ser::SIZE), size).await;
        t.write(ser.at(Ser::SEALS), seals).await;
        let (error, array) = memfd_luo_preserve_folios(t, args.file, size, ser).await;
        err = error;
        if err != 0 {
            kho_unpreserve_free(t, ser).await;
            break 'err_unlock;
        }
        t.up_write(inode.at(Inode::LOCK)).await;
        args.private_data = array.value();
        args.serialized_data = ser.pa().0;
        return 0;
    }
    shmem_freeze(t, inode, false).await;
    t.up_write(inode.at(Inode::LOCK)).await;
    err
}

/// `memfd_luo_preserve_folios()`: pins and preserves every folio and the array of them.
async fn memfd_luo_preserve_folios(t: &Task, file: Ptr<File>, size: u64, ser: Ptr<Ser>) -> (Errno, Ptr<VmStruct>) {
    let _in = t.call("memfd_luo_preserve_folios");
    if size == 0 {
        return (0, Ptr::NULL);
    }
    let max_folios = size.div_ceil(PAGE_SIZE);
    let folios = kvzalloc::<Ptr<Page>>(t, max_folios * 8, tag::MEMFD_PRIVATE).await;
    if folios.is_null() {
        return (ENOMEM, Ptr::NULL);
    }
    let slot = |index: u64| -> Ptr<Ptr<Page>> { folios.byte_add(index * 8) };
    let mut err;
    'err_free_folios: {
        let (error, nr_folios) = memfd_pin_folios(t, file, max_folios, folios).await;
        err = error;
        if err != 0 {
            break 'err_free_folios;
        }
        'err_unpin: {
            let array = vcalloc(t, nr_folios * FOLIO_BYTES).await;
            if array.is_null() {
                err = ENOMEM;
                break 'err_unpin;
            }
            let mut done = 0;
            'err_unpreserve: {
                while done < nr_folios {
                    let folio = t.read(slot(done)).await;
                    err = kho_preserve_folio(t, folio, owner::MEMFD).await;
                    if err != 0 {
                        break 'err_unpreserve;
                    }
                    // Filled now, or the next kernel would zero it on first use and lose what is written until the jump.
                    folio_make_uptodate(t, folio).await;
                    folio_set_flag(t, folio, PG_DIRTY).await;
                    let word = page_to_pfn(t, folio).0 & abi::FOLIO_PFN_MASK | abi::FOLIO_DIRTY | abi::FOLIO_UPTODATE;
                    let index = t.read(folio.at(Page::INDEX)).await;
                    t.write(folio_word(t, array, done, 0).await, word).await;
                    t.write(folio_word(t, array, done, 1).await, index).await;
                    done += 1;
                }
                err = kho_preserve_vmalloc(t, array, ser.at(Ser::FOLIOS)).await;
                if err != 0 {
                    break 'err_unpreserve;
                }
                kvfree(t, folios, max_folios * 8).await;
                t.write(ser.at(Ser::NR_FOLIOS), nr_folios).await;
                return (0, array);
            }
            while done > 0 {
                done -= 1;
                let folio = t.read(slot(done)).await;
                kho_unpreserve_folio(t, folio, owner::MEMFD).await;
            }
            vfree(t, array).await;
        }
        for index in 0..nr_folios {
            let folio = t.read(slot(index)).await;
            unpin_folio(t, folio).await;
        }
    }
    kvfree(t, folios, max_folios * 8).await;
    (err, Ptr::NULL)
}

/// `memfd_pin_folios()` of a whole file: the number of folios; an error unpins those already pinned.
async fn memfd_pin_folios(t: &Task, file: Ptr<File>, nr_pages: u64, folios: Ptr<Ptr<Page>>) -> (Errno, u64) {
    let mut index = 0;
    let mut nr = 0;
    while index < nr_pages {
        let folio = memfd_pin_folio(t, file, index).await;
        if let Some(errno) = folio.errno() {
            for at in 0..nr {
                let folio = t.read(folios.byte_add::<Ptr<Page>>(at * 8)).await;
                unpin_folio(t, folio).await;
            }
            return (-errno, 0);
        }
        t.write(folios.byte_add::<Ptr<Page>>(nr * 8), folio).await;
        nr += 1;
        let first = t.read(folio.at(Page::INDEX)).await;
        index = (first + (1 << folio_order(t, folio).await)).max(index + 1);
    }
    (0, nr)
}

/// `memfd_luo_unpreserve_folios()`.
async fn memfd_luo_unpreserve_folios(t: &Task, ser: Ptr<Ser>, array: Ptr<VmStruct>, nr_folios: u64) {
    let _in = t.call("memfd_luo_unpreserve_folios");
    if nr_folios == 0 {
        return;
    }
    kho_unpreserve_vmalloc(t, ser.at(Ser::FOLIOS)).await;
    for index in 0..nr_folios {
        let word = t.read(folio_word(t, array, index, 0).await).await;
        let folio = pfn_to_page(t, Pfn(word & abi::FOLIO_PFN_MASK));
        if !(t.k.has(Defect::UnpreserveSkipsFolio) && index + 1 == nr_folios) {
            kho_unpreserve_folio(t, folio, owner::MEMFD).await;
        }
        if !t.k.has(Defect::UnpreserveKeepsPins) {
            unpin_folio(t, folio).await;
        }
    }
    vfree(t, array).await;
}

/// `memfd_luo_unpreserve()`.
pub(super) async fn memfd_luo_unpreserve(t: &Task, args: &mut FileOpArgs) {
    let _in = t.call("memfd_luo_unpreserve");
    let inode = memfd_file_inode(t, args.file).await;
    t.down_write(inode.at(Inode::LOCK)).await;
    shmem_freeze(t, inode, false).await;
    let ser = Ptr::<Ser>::from_pa(Pa(args.serialized_data));
    let nr_folios = t.read(ser.at(Ser::NR_FOLIOS)).await;
    memfd_luo_unpreserve_folios(t, ser, Ptr::new(args.private_data), nr_folios).await;
    kho_unpreserve_free(t, ser).await;
    t.up_write(inode.at(Inode::LOCK)).await;
}

/// `memfd_luo_freeze()`: the position may have moved since preserve.
pub(super) async fn memfd_luo_freeze(t: &Task, args: &mut FileOpArgs) -> Errno {
    let _in = t.call("memfd_luo_freeze");
    if callee_fails(t, callee::MEMFD_FREEZE) {
        return EIO;
    }
    let ser = Ptr::<Ser>::from_pa(Pa(args.serialized_data));
    let pos = t.read(args.file.at(File::F_POS)).await;
    t.write(ser.at(Ser::POS), pos).await;
    0
}

/// `memfd_luo_retrieve()`.
pub(super) async fn memfd_luo_retrieve(t: &Task, args: &mut FileOpArgs) -> Errno {
    let _in = t.call("memfd_luo_retrieve");
    let folio = kho_restore_folio(t, Pa(args.serialized_data)).await;
    if folio.is_null() {
        return ENOENT;
    }
    let ser = Ptr::<Ser>::from_pa(Pa(args.serialized_data));
    let err;
    'free_ser: {
        let size = t.read(ser.at(Ser::SIZE)).await;
        let seals = t.read(ser.at(Ser::SEALS)).await;
        let flags = t.read(ser.at(Ser::FLAGS)).await;
        if size > Inode::PAGES_MAX * PAGE_SIZE || flags != 0 {
            err = EINVAL;
            break 'free_ser;
        }
        let file = memfd_alloc_file(t, size, seals, false).await;
        if file.is_null() {
            err = ENOMEM;
            break 'free_ser;
        }
        'put_file: {
            let pos = t.read(ser.at(Ser::POS)).await;
            t.write(file.at(File::F_POS), pos).await;
            let nr_folios = t.read(ser.at(Ser::NR_FOLIOS)).await;
            if nr_folios != 0 {
                let array = kho_restore_vmalloc(t, ser.at(Ser::FOLIOS)).await;
                if array.is_null() {
                    err = EINVAL;
                    break 'put_file;
                }
                err = memfd_luo_retrieve_folios(t, file, array, nr_folios).await;
                vfree(t, array).await;
                if err != 0 {
                    break 'put_file;
                }
            }
            args.file = file;
            folio_put(t, folio).await;
            return 0;
        }
        fput(t, file).await;
    }
    folio_put(t, folio).await;
    err
}

/// The folio of entry `index`: address, page index, flags; none for an empty entry.
async fn folio_entry(t: &Task, array: Ptr<VmStruct>, index: u64) -> Option<(Pa, u64, u64)> {
    let word = t.read(folio_word(t, array, index, 0).await).await;
    let at = t.read(folio_word(t, array, index, 1).await).await;
    let pfn = word & abi::FOLIO_PFN_MASK;
    (pfn != 0).then_some((Pfn(pfn).pa(), at, word & !abi::FOLIO_PFN_MASK))
}

/// `memfd_luo_retrieve_folios()`: each folio enters the page cache of the new file. After an error the folios not yet reached are
/// restored and freed; those already in the file go with it.
async fn memfd_luo_retrieve_folios(t: &Task, file: Ptr<File>, array: Ptr<VmStruct>, nr_folios: u64) -> Errno {
    let _in = t.call("memfd_luo_retrieve_folios");
    let inode = memfd_file_inode(t, file).await;
    let room = t.read(array.at(VmStruct::NR_PAGES)).await * PAGE_SIZE / FOLIO_BYTES;
    let nr_folios = nr_folios.min(room);
    let mut err;
    let mut index = 0;
    'put_folios: {
        while index < nr_folios {
            let Some((pa, at, flags)) = folio_entry(t, array, index).await else {
                index += 1;
                continue;
            };
            let folio = kho_restore_folio(t, pa).await;
            let _in = t.call("memfd_luo_retrieve_folios");
            if folio.is_null() {
                err = EIO;
                break 'put_folios;
            }
            'unlock_folio: {
                t.write(folio.at(Page::FLAGS), PG_LOCKED | PG_SWAPBACKED).await;
                if callee_fails(t, callee::CHARGE) {
                    err = ENOMEM;
                    break 'unlock_folio;
                }
                // Assumed bound: the kernel's page cache takes any index.
                if at >= Inode::PAGES_MAX {
                    err = EINVAL;
                    break 'unlock_folio;
                }
                err = shmem_add_to_page_cache(t, inode, folio, at).await;
                if err != 0 {
                    break 'unlock_folio;
                }
                if flags & abi::FOLIO_UPTODATE != 0 && !t.k.has(Defect::RetrieveLosesUptodate) {
                    folio_set_flag(t, folio, PG_UPTODATE).await;
                }
                if flags & abi::FOLIO_DIRTY != 0 {
                    folio_set_flag(t, folio, PG_DIRTY).await;
                }
                if callee_fails(t, callee::ACCT_BLOCKS) {
                    err = ENOSPC;
                    break 'unlock_folio;
                }
            }
            folio_unlock(t, folio).await;
            folio_put(t, folio).await;
            index += 1;
            if err != 0 {
                break 'put_folios;
            }
        }
        return 0;
    }
    memfd_luo_discard_folios(t, array, index, nr_folios).await;
    err
}

/// `memfd_luo_discard_folios()`: restores and frees the folios from entry `from` on.
async fn memfd_luo_discard_folios(t: &Task, array: Ptr<VmStruct>, from: u64, nr_folios: u64) {
    let _in = t.call("memfd_luo_discard_folios");
    for index in from..nr_folios {
        if let Some((pa, _, _)) = folio_entry(t, array, index).await {
            let folio = kho_restore_folio(t, pa).await;
            let _in = t.call("memfd_luo_discard_folios");
            if !folio.is_null() {
                folio_put(t, folio).await;
            }
        }
    }
}

/// `memfd_luo_finish()`: nothing to do for a file that was retrieved or failed to be; else its memory is freed.
pub(super) async fn memfd_luo_finish(t: &Task, args: &mut FileOpArgs) {
    let _in = t.call("memfd_luo_finish");
    if args.retrieve_status != 0 {
        return;
    }
    let ser = Ptr::<Ser>::from_pa(Pa(args.serialized_data));
    let nr_folios = t.read(ser.at(Ser::NR_FOLIOS)).await;
    if nr_folios != 0 {
        let array = kho_restore_vmalloc(t, ser.at(Ser::FOLIOS)).await;
        if !array.is_null() {
            let room = t.read(array.at(VmStruct::NR_PAGES)).await * PAGE_SIZE / FOLIO_BYTES;
            memfd_luo_discard_folios(t, array, 0, nr_folios.min(room)).await;
            vfree(t, array).await;
        }
    }
    kho_restore_free(t, ser).await;
}
