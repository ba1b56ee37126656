//! Mapping (`map_range` of `iommu_pt.h`).

use iommu_model::addr::{Iova, Pa};
use sim::memory::Ptr;

use super::super::Task;
use super::super::iommu::{Domain, IOMMU_READ, IOMMU_WRITE, iommu_iotlb_sync};
use super::super::iommu_pages::{iommu_alloc_pages, iommu_free_pages, iommu_pages_list_add, iommu_pages_start_incoherent};
use super::super::mm::Gfp;

use super::collect::collect_below;
use super::{
    Entry, GRANULE_LG2, IotlbGather, LEVELS_MAX, Path, SW_FLUSHED, classify, dma_incoherent, flush_writes, index, last_of_top, leaf_entry,
    load_top, size_lg2, size_of_leaf, slot, table_entry,
};
use crate::defect::Defect;
use crate::errno::{EADDRINUSE, EAGAIN, EINVAL, ENOMEM, ENXIO, EOVERFLOW, ERANGE, Errno};
use crate::tag;

/// `struct pt_iommu_map_args` on the stack of a map.
struct MapArgs {
    gather: IotlbGather,
    gfp: Gfp,
    prot: u8,
    /// Output address of the next leaf.
    oa: Pa,
    leaf_level: u8,
    /// Leaves left before the best size has to be computed again.
    num_leaves: u64,
}

/// `map_range()` of 7.3: the whole range in one call. Returns the error and the bytes mapped, which stay mapped on an error, too.
pub async fn map_range(t: &Task, domain: Ptr<Domain>, iova: Iova, pa: Pa, bytes: u64, prot: u8, gfp: Gfp) -> (Errno, u64) {
    let _in = t.call("map_range");
    if t.warn_on(prot & (IOMMU_READ | IOMMU_WRITE) == 0, "map_range: neither read nor write") {
        return (EINVAL, 0);
    }
    let sizes = t.read(domain.at(Domain::PGSIZE_BITMAP)).await;
    if (pa.0 | bytes) >> 52 != 0 {
        return (ERANGE, 0);
    }
    let Some(end) = iova.0.checked_add(bytes).filter(|_| bytes != 0) else { return (EOVERFLOW, 0) };
    let mut map = MapArgs { gather: IotlbGather::EMPTY, gfp, prot, oa: pa, leaf_level: 0, num_leaves: 0 };
    let single_page = bytes == size_of_leaf(0);
    if single_page {
        if (iova.0 | pa.0) & (size_of_leaf(0) - 1) != 0 {
            return (ENXIO, 0);
        }
        map.num_leaves = 1;
    } else if !choose_leaf_size(&mut map, sizes, iova.0, end) {
        return (ENXIO, 0);
    }
    let (top, top_level) = load_top(t, domain).await;
    if end - 1 > last_of_top(top_level) {
        return (ERANGE, 0);
    }
    let mut va = iova.0;
    let mut ret = if single_page && !dma_incoherent(t) { do_map_single_page(t, top, top_level, iova, &map).await } else { EAGAIN };
    if ret == EAGAIN {
        ret = do_map(t, top, top_level, &mut va, end, sizes, &mut map).await;
    } else if ret == 0 {
        va = end;
    }
    // Tables were replaced by a large leaf: the flush comes after the new leaves are installed.
    if !map.gather.freelist.is_empty() {
        iommu_iotlb_sync(t, domain, &mut map.gather).await;
    }
    (ret, va - iova.0)
}

/// Takes the largest leaf that fits at `va`; the count is how many of it follow before a larger one would fit. False: none fits.
fn choose_leaf_size(map: &mut MapArgs, sizes: u64, va: u64, end: u64) -> bool {
    let fits = |level: u8| {
        sizes >> size_lg2(level) & 1 != 0 && (va | map.oa.0) & (size_of_leaf(level) - 1) == 0 && end - va >= size_of_leaf(level)
    };
    let Some(level) = (0..=2).rev().find(|level| fits(*level)) else { return false };
    let mut last = end;
    for larger in level + 1..=2 {
        let mask = size_of_leaf(larger) - 1;
        let aligned = (va | mask) + 1;
        // A larger size is possible further on only where both addresses become aligned together.
        if sizes >> size_lg2(larger) & 1 != 0 && (va ^ map.oa.0) & mask == 0 && end > aligned && end - aligned > mask {
            last = last.min(aligned);
        }
    }
    map.leaf_level = level;
    map.num_leaves = (last - va) >> size_lg2(level);
    map.num_leaves != 0
}

/// `pt_iommu_map_single_page()`: one load a level, one store; -EAGAIN where the full path is needed.
async fn do_map_single_page(t: &Task, top: Ptr<u64>, top_level: u8, iova: Iova, map: &MapArgs) -> Errno {
    let (mut table, mut level) = (top, top_level);
    loop {
        let at = slot(table, level, iova.0);
        let entry = t.read_once(at).await;
        match classify(entry, level) {
            Entry::Table(next) => table = next,
            Entry::Leaf(_) if level == 0 => return EADDRINUSE,
            Entry::Empty if level == 0 => {
                t.write_once(at, leaf_entry(output_address(t, map, 1), 0, map.prot)).await;
                return 0;
            }
            Entry::Leaf(_) | Entry::Empty => return EAGAIN,
        }
        level -= 1;
    }
}

/// `__map_range()` and `__map_range_leaf()`: from `va` on, up to `end`.
async fn do_map(t: &Task, top: Ptr<u64>, top_level: u8, va: &mut u64, end: u64, sizes: u64, map: &mut MapArgs) -> Errno {
    let mut path: Path = [Ptr::NULL; LEVELS_MAX];
    let mut level = top_level;
    path[usize::from(level)] = top;
    while *va < end {
        if level > map.leaf_level {
            let at = slot(path[usize::from(level)], level, *va);
            let entry = t.read_once(at).await;
            match classify(entry, level) {
                Entry::Empty => {
                    let ret = pt_iommu_new_table(t, at, entry, map.gfp).await;
                    if ret != 0 && ret != EAGAIN {
                        return ret;
                    }
                }
                Entry::Leaf(_) => return EADDRINUSE,
                Entry::Table(lower) => {
                    // Another mapper has installed the table and perhaps not flushed the entry yet.
                    if dma_incoherent(t) && entry & SW_FLUSHED == 0 && !t.k.has(Defect::ParentNotFlushed) {
                        t.smp_mb().await;
                        flush_writes(t, at, at).await;
                    }
                    level -= 1;
                    path[usize::from(level)] = lower;
                }
            }
            continue;
        }
        let ret = map_range_leaf(t, path[usize::from(level)], level, va, map).await;
        if ret != 0 {
            return ret;
        }
        if *va >= end {
            break;
        }
        if map.num_leaves == 0 && !choose_leaf_size(map, sizes, *va, end) {
            return ENXIO;
        }
        // Leave the tables that end here, and those below the next leaf.
        while level < top_level && (level < map.leaf_level || index(level, *va) == 0) {
            level += 1;
        }
    }
    0
}

/// `__map_range_leaf()`: leaves of one size in one table.
async fn map_range_leaf(t: &Task, table: Ptr<u64>, level: u8, va: &mut u64, map: &mut MapArgs) -> Errno {
    let first = slot(table, level, *va);
    let mut next = first;
    let ret = install_leaves(t, table, level, va, map, &mut next).await;
    if next != first && !t.k.has(Defect::LeafNotFlushed) {
        flush_writes(t, first, Ptr::new(next.value() - 8)).await;
    }
    ret
}

/// The loop of `__map_range_leaf()`. `next` is the slot behind the last one written.
async fn install_leaves(t: &Task, table: Ptr<u64>, level: u8, va: &mut u64, map: &mut MapArgs, next: &mut Ptr<u64>) -> Errno {
    loop {
        let at = slot(table, level, *va);
        let entry = t.read_once(at).await;
        if entry != 0 {
            let ret = clear_contig(t, at, entry, level, *va, map).await;
            if ret != 0 {
                return ret;
            }
        }
        t.write_once(at, leaf_entry(output_address(t, map, map.num_leaves), level, map.prot)).await;
        *next = at.byte_add(8);
        *va += size_of_leaf(level);
        map.oa = map.oa.offset(size_of_leaf(level));
        map.num_leaves -= 1;
        if map.num_leaves == 0 || index(level, *va) == 0 {
            return 0;
        }
    }
}

/// Output address of the next leaf.
fn output_address(t: &Task, map: &MapArgs, leaves_left: u64) -> Pa {
    if t.k.has(Defect::WrongFrameMapped) && map.leaf_level == 0 {
        return if leaves_left > 1 { map.oa.offset(size_of_leaf(0)) } else { Pa(map.oa.0 ^ size_of_leaf(0)) };
    }
    map.oa
}

/// `pt_iommu_new_table()`, `pt_table_install64()`: the zeros are visible before the pointer. -EAGAIN: another mapper was first.
async fn pt_iommu_new_table(t: &Task, at: Ptr<u64>, seen: u64, gfp: Gfp) -> Errno {
    let table = iommu_alloc_pages(t, gfp, tag::IOMMU_TABLE).await;
    if table.is_null() {
        return ENOMEM;
    }
    if dma_incoherent(t) {
        iommu_pages_start_incoherent(t, table).await;
    }
    if t.k.has(Defect::TableInstallByStore) {
        t.write_once(at, table_entry(table)).await;
        return 0;
    }
    if t.cmpxchg(at, seen, table_entry(table)).await != seen {
        if !t.k.has(Defect::LostRaceLeaksTable) {
            iommu_free_pages(t, table).await;
        }
        return EAGAIN;
    }
    if dma_incoherent(t) {
        flush_writes(t, at, at).await;
        // Only CPUs read the bit: no second flush.
        t.rmw(at, |entry| Some(entry | SW_FLUSHED)).await;
    }
    0
}

/// `clear_contig()`: an empty tree below the slot of a new large leaf goes to the gather. -EADDRINUSE: something is mapped there.
async fn clear_contig(t: &Task, at: Ptr<u64>, entry: u64, level: u8, va: u64, map: &mut MapArgs) -> Errno {
    let Entry::Table(lower) = classify(entry, level) else { return EADDRINUSE };
    let mut list = IotlbGather::EMPTY.freelist;
    if !collect_below(t, lower, level - 1, &mut list, false).await {
        return EADDRINUSE;
    }
    t.write_once(at, 0).await;
    flush_writes(t, at, at).await;
    iommu_pages_list_add(t, &mut list, lower).await;
    super::unmap::gather_range_pending(t, &mut map.gather, va, size_of_leaf(level), &mut list).await;
    0
}

const _: () = assert!(GRANULE_LG2 == 12);
