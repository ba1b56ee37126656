//! `struct io_pagetable` and its areas: `drivers/iommu/iommufd/io_pagetable.c`.
//!
//! # The protocol of the two rwsems
//!
//! - `iova_rwsem` protects the areas. An area whose `pages` is NULL is reserved: it is being filled or torn down.
//! - `domains_rwsem` is held for reading all the while an area is in that state, so that whoever holds it for writing (a domain
//!   comes or goes, the address space becomes immutable) never sees such an area that is half filled.
//! - A map takes `iova_rwsem` alone first, to reserve. Between that and its `domains_rwsem` section it holds no lock: an area with
//!   NULL pages **can** be seen there by who looks at areas under `iova_rwsem` only.
//!
//! The areas are a list in RAM in order of IOVA; the kernel has an interval tree.

use iommu_model::addr::Iova;
use sim::memory::{Field, Ptr, field};
use sim::sync::RwSem;

use super::pages::{IoptPages, iopt_area_fill_domains, iopt_area_unfill_domains, iopt_put_pages};
use crate::defect::Defect;
use crate::errno::{EBUSY, EEXIST, EINVAL, ENOENT, ENOMEM, EOVERFLOW, EPERM, Errno};
use crate::kernel::Task;
use crate::kernel::iommu::{Domain, IOMMU_WRITE};
use crate::kernel::mm::list::{self, ListHead};
use crate::kernel::mm::{Gfp, kfree, kzalloc};
use crate::mark::Mark;
use crate::revision::MapRule;
use crate::tag;
use crate::verb;

/// `struct io_pagetable`, a member of the IOAS.
#[derive(Clone, Copy, Debug)]
pub struct IoPagetable;

/// Domains of one address space. The kernel's array grows.
pub const DOMAINS_MAX: u32 = 8;

impl IoPagetable {
    /// `domains_rwsem`.
    pub const DOMAINS_RWSEM: Field<RwSem> = field(0, "iopt.domains_rwsem");
    /// `iova_rwsem`.
    pub const IOVA_RWSEM: Field<RwSem> = field(8, "iopt.iova_rwsem");
    /// `area_itree`.
    pub const AREAS: Field<ListHead> = field(16, "iopt.area_itree");
    /// `iova_alignment`.
    pub const IOVA_ALIGNMENT: Field<u64> = field(32, "iopt.iova_alignment");
    /// `next_domain_id`: entries of `domains` in use.
    pub const NEXT_DOMAIN_ID: Field<u32> = field(40, "iopt.next_domain_id");
    /// `lu_immutable` (IOMMU series): mappings must not change.
    pub const IMMUTABLE: Field<u8> = field(44, "iopt.lu_immutable");
    /// Bytes.
    pub const BYTES: u16 = 48 + DOMAINS_MAX as u16 * 8;

    /// `domains[index]`.
    pub const fn domain(index: u32) -> Field<Ptr<Domain>> {
        field(48 + index as u16 * 8, "iopt.domains")
    }
}

/// `struct iopt_area`.
#[derive(Clone, Copy, Debug)]
pub struct IoptArea;

impl IoptArea {
    /// `node`: link in the list of areas.
    pub const NODE: Field<ListHead> = field(0, "area.node");
    /// `node.start`: first IOVA.
    pub const IOVA: Field<u64> = field(16, "area.node.start");
    /// `node.last`: last IOVA.
    pub const LAST: Field<u64> = field(24, "area.node.last");
    /// `pages`: NULL while the area is only reserved.
    pub const PAGES: Field<Ptr<IoptPages>> = field(32, "area.pages");
    /// `iopt`: NULL until the area is in the list.
    pub const IOPT: Field<Ptr<IoPagetable>> = field(40, "area.iopt");
    /// `storage_domain`: where the pfns are read back from.
    pub const STORAGE_DOMAIN: Field<Ptr<Domain>> = field(48, "area.storage_domain");
    /// `num_locks`.
    pub const NUM_LOCKS: Field<u32> = field(56, "area.num_locks");
    /// `iommu_prot`.
    pub const IOMMU_PROT: Field<u8> = field(60, "area.iommu_prot");
    /// 1 while `pages_node` is in `pages->domains_itree`.
    pub const IN_DOMAINS_ITREE: Field<u8> = field(61, "area.pages_node");
    const BYTES: u16 = 64;
}

/// `iopt_init_table()`.
pub async fn iopt_init_table(t: &Task, iopt: Ptr<IoPagetable>) {
    t.init_lock(iopt.at(IoPagetable::IOVA_RWSEM)).await;
    t.init_lock(iopt.at(IoPagetable::DOMAINS_RWSEM)).await;
    list::init(t, iopt.at(IoPagetable::AREAS)).await;
    t.write(iopt.at(IoPagetable::IOVA_ALIGNMENT), 1).await;
}

/// The first area, NULL when there is none. Needs `iova_rwsem`.
pub async fn iopt_area_first(t: &Task, iopt: Ptr<IoPagetable>) -> Ptr<IoptArea> {
    match list::first(t, iopt.at(IoPagetable::AREAS)).await {
        Some(node) => list::entry(node, IoptArea::NODE),
        None => Ptr::NULL,
    }
}

/// The area after `area`, NULL at the end.
pub async fn iopt_area_next(t: &Task, iopt: Ptr<IoPagetable>, area: Ptr<IoptArea>) -> Ptr<IoptArea> {
    match list::next(t, area.at(IoptArea::NODE), iopt.at(IoPagetable::AREAS)).await {
        Some(node) => list::entry(node, IoptArea::NODE),
        None => Ptr::NULL,
    }
}

/// `iopt_area_iter_first()`: the lowest area that touches `[start, last]`.
pub async fn iopt_area_iter_first(t: &Task, iopt: Ptr<IoPagetable>, start: u64, last: u64) -> Ptr<IoptArea> {
    let mut area = iopt_area_first(t, iopt).await;
    while !area.is_null() {
        if t.read(area.at(IoptArea::IOVA)).await > last {
            return Ptr::NULL;
        }
        if t.read(area.at(IoptArea::LAST)).await >= start {
            return area;
        }
        area = iopt_area_next(t, iopt, area).await;
    }
    area
}

/// `interval_tree_insert()`: before the first area that lies higher.
async fn iopt_area_insert(t: &Task, iopt: Ptr<IoPagetable>, area: Ptr<IoptArea>, iova: u64) {
    let mut before = iopt_area_first(t, iopt).await;
    while !before.is_null() && t.read(before.at(IoptArea::IOVA)).await < iova {
        before = iopt_area_next(t, iopt, before).await;
    }
    let at = if before.is_null() { iopt.at(IoPagetable::AREAS) } else { before.at(IoptArea::NODE) };
    list::add_tail(t, area.at(IoptArea::NODE), at).await;
}

/// `iopt_check_iova()`: a fixed IOVA must be aligned and free.
async fn iopt_check_iova(t: &Task, iopt: Ptr<IoPagetable>, iova: u64, length: u64) -> Errno {
    if iova & (t.read(iopt.at(IoPagetable::IOVA_ALIGNMENT)).await - 1) != 0 {
        return EINVAL;
    }
    let Some(last) = iova.checked_add(length - 1) else { return EOVERFLOW };
    if !iopt_area_iter_first(t, iopt, iova, last).await.is_null() {
        return EEXIST;
    }
    0
}

/// `iopt_insert_area()`: the range is reserved, `pages` stays NULL.
async fn iopt_insert_area(
    t: &Task,
    iopt: Ptr<IoPagetable>,
    area: Ptr<IoptArea>,
    pages: Ptr<IoptPages>,
    iova: u64,
    length: u64,
    prot: u8,
) -> Errno {
    if prot & IOMMU_WRITE != 0 && t.read(pages.at(IoptPages::WRITABLE)).await == 0 {
        return EPERM;
    }
    t.write(area.at(IoptArea::IOMMU_PROT), prot).await;
    t.write(area.at(IoptArea::IOVA), iova).await;
    t.write(area.at(IoptArea::LAST), iova + length - 1).await;
    t.write(area.at(IoptArea::IOPT), iopt).await;
    iopt_area_insert(t, iopt, area, iova).await;
    0
}

/// True when the rule refuses a change. The defect drops the test.
async fn iopt_map_is_refused(t: &Task, iopt: Ptr<IoPagetable>) -> bool {
    if t.k.has(Defect::MapWhileImmutable) || t.read(iopt.at(IoPagetable::IMMUTABLE)).await == 0 {
        return false;
    }
    t.mark(Mark::MapRefused);
    true
}

/// `iopt_alloc_area_pages()` for one element at a fixed IOVA. The area is returned even on an error: the caller aborts it.
async fn iopt_alloc_area_pages(
    t: &Task,
    iopt: Ptr<IoPagetable>,
    pages: Ptr<IoptPages>,
    length: u64,
    iova: u64,
    prot: u8,
) -> (Errno, Ptr<IoptArea>) {
    let _in = t.call("iopt_alloc_area_pages");
    let area: Ptr<IoptArea> = kzalloc(t, IoptArea::BYTES, Gfp::Kernel, tag::AREA).await;
    if area.is_null() {
        return (ENOMEM, area);
    }
    t.down_write(iopt.at(IoPagetable::IOVA_RWSEM)).await;
    let rc = 'out_unlock: {
        if length == 0 || length & (t.read(iopt.at(IoPagetable::IOVA_ALIGNMENT)).await - 1) != 0 {
            break 'out_unlock EINVAL;
        }
        match t.k.rev.map_rule {
            // IOMMU series v1: nothing orders this test against a preserve that follows.
            MapRule::AreaAllocation => {
                if iopt_map_is_refused(t, iopt).await {
                    break 'out_unlock EBUSY;
                }
            }
            MapRule::DomainsLocked => {}
        }
        let rc = iopt_check_iova(t, iopt, iova, length).await;
        if rc != 0 {
            break 'out_unlock rc;
        }
        iopt_insert_area(t, iopt, area, pages, iova, length, prot).await
    };
    t.up_write(iopt.at(IoPagetable::IOVA_RWSEM)).await;
    (rc, area)
}

/// `iopt_abort_area()`: an area with NULL pages goes away.
async fn iopt_abort_area(t: &Task, area: Ptr<IoptArea>) {
    let iopt = t.read(area.at(IoptArea::IOPT)).await;
    if !iopt.is_null() {
        t.down_write(iopt.at(IoPagetable::IOVA_RWSEM)).await;
        list::del(t, area.at(IoptArea::NODE)).await;
        t.up_write(iopt.at(IoPagetable::IOVA_RWSEM)).await;
    }
    kfree(t, area).await;
}

/// `iopt_map_pages()` and its caller `iopt_map_common()`, for one pages object. Takes the reference to `pages`.
pub async fn iopt_map_pages(t: &Task, iopt: Ptr<IoPagetable>, pages: Ptr<IoptPages>, length: u64, iova: Iova, prot: u8) -> Errno {
    let _in = t.call("iopt_map_pages");
    let (mut rc, mut area) = iopt_alloc_area_pages(t, iopt, pages, length, iova.0, prot).await;
    if rc == 0 {
        t.down_read(iopt.at(IoPagetable::DOMAINS_RWSEM)).await;
        'out_unlock_domains: {
            match t.k.rev.map_rule {
                MapRule::AreaAllocation => {}
                // IOMMU series v2: who makes the address space immutable holds domains_rwsem for writing.
                MapRule::DomainsLocked => {
                    if iopt_map_is_refused(t, iopt).await {
                        rc = EBUSY;
                        break 'out_unlock_domains;
                    }
                }
            }
            rc = iopt_area_fill_domains(t, area, pages).await;
            if rc != 0 {
                break 'out_unlock_domains;
            }
            t.down_write(iopt.at(IoPagetable::IOVA_RWSEM)).await;
            // Inside domains_rwsem, so that a domain that comes next fills this area. The reference moves.
            t.write(area.at(IoptArea::PAGES), pages).await;
            area = Ptr::NULL;
            t.up_write(iopt.at(IoPagetable::IOVA_RWSEM)).await;
        }
        t.up_read(iopt.at(IoPagetable::DOMAINS_RWSEM)).await;
    }
    if rc != 0 {
        if !area.is_null() {
            iopt_abort_area(t, area).await;
        }
        iopt_put_pages(t, pages).await;
    }
    rc
}

/// `iopt_unmap_iova_range()`: whole areas only. Areas unmapped before an error stay unmapped. Returns the bytes, too.
pub async fn iopt_unmap_iova_range(t: &Task, iopt: Ptr<IoPagetable>, mut start: u64, last: u64) -> (Errno, u64) {
    let _in = t.call("iopt_unmap_iova_range");
    let mut unmapped_bytes = 0;
    let mut rc = 0;
    t.down_read(iopt.at(IoPagetable::DOMAINS_RWSEM)).await;
    t.down_write(iopt.at(IoPagetable::IOVA_RWSEM)).await;
    'out_unlock_iova: {
        if t.read(iopt.at(IoPagetable::IMMUTABLE)).await != 0 {
            rc = EBUSY;
            break 'out_unlock_iova;
        }
        loop {
            let area = iopt_area_iter_first(t, iopt, start, last).await;
            if area.is_null() {
                break;
            }
            let area_first = t.read(area.at(IoptArea::IOVA)).await;
            let area_last = t.read(area.at(IoptArea::LAST)).await;
            let pages = t.read(area.at(IoptArea::PAGES)).await;
            if pages.is_null() || t.read(area.at(IoptArea::NUM_LOCKS)).await != 0 {
                rc = EBUSY;
                break 'out_unlock_iova;
            }
            if area_first < start || area_last > last {
                rc = ENOENT;
                break 'out_unlock_iova;
            }
            t.write(area.at(IoptArea::PAGES), Ptr::NULL).await;
            t.up_write(iopt.at(IoPagetable::IOVA_RWSEM)).await;

            iopt_area_unfill_domains(t, area, pages).await;
            iopt_abort_area(t, area).await;
            iopt_put_pages(t, pages).await;
            unmapped_bytes += area_last - area_first + 1;

            t.down_write(iopt.at(IoPagetable::IOVA_RWSEM)).await;
            // What was mapped meanwhile below this point is not ours (8602018b1f17).
            if area_last >= last {
                break;
            }
            start = area_last + 1;
        }
    }
    t.up_write(iopt.at(IoPagetable::IOVA_RWSEM)).await;
    t.up_read(iopt.at(IoPagetable::DOMAINS_RWSEM)).await;
    (rc, unmapped_bytes)
}

/// `iopt_set_immutable()` (IOMMU series): waits for maps and unmaps that are inside their `domains_rwsem` section.
pub async fn iopt_set_immutable(t: &Task, iopt: Ptr<IoPagetable>) {
    let _in = t.call("iopt_set_immutable");
    t.down_write(iopt.at(IoPagetable::DOMAINS_RWSEM)).await;
    t.write(iopt.at(IoPagetable::IMMUTABLE), 1).await;
    iopt_note_immutable(t, iopt, 1).await;
    t.up_write(iopt.at(IoPagetable::DOMAINS_RWSEM)).await;
}

/// `iopt_clear_immutable()` (IOMMU series).
pub async fn iopt_clear_immutable(t: &Task, iopt: Ptr<IoPagetable>) {
    let _in = t.call("iopt_clear_immutable");
    match t.k.rev.map_rule {
        // IOMMU series v1: a plain store.
        MapRule::AreaAllocation => {
            iopt_note_immutable(t, iopt, 0).await;
            t.write(iopt.at(IoPagetable::IMMUTABLE), 0).await;
        }
        MapRule::DomainsLocked => {
            t.down_write(iopt.at(IoPagetable::DOMAINS_RWSEM)).await;
            iopt_note_immutable(t, iopt, 0).await;
            t.write(iopt.at(IoPagetable::IMMUTABLE), 0).await;
            t.up_write(iopt.at(IoPagetable::DOMAINS_RWSEM)).await;
        }
    }
}

/// Says for each domain of the address space that its state changed: while the flag is certain to hold.
async fn iopt_note_immutable(t: &Task, iopt: Ptr<IoPagetable>, state: u64) {
    let mut index = 0;
    while index < t.read(iopt.at(IoPagetable::NEXT_DOMAIN_ID)).await {
        let domain = t.read(iopt.at(IoPagetable::domain(index))).await;
        t.machine.note(verb::IMMUTABLE, [domain.value(), state, 0, 0]);
        index += 1;
    }
}
