//! Unmapping (`unmap_range` of `iommu_pt.h`). Never allocates, frees nothing: pages that leave the tree go to the gather.

use iommu_model::addr::Iova;
use sim::memory::Ptr;

use super::super::Task;
use super::super::iommu::Domain;
use super::super::iommu_pages::{IommuPagesList, iommu_pages_list_add, iommu_pages_list_splice};
use super::{Entry, IotlbGather, LEVELS_MAX, Path, classify, flush_writes, index, last_of_top, load_top, size_of_leaf, slot};
use crate::defect::Defect;

/// `unmap_range()`: returns the bytes removed, which may be less (something was not mapped) or more (a large leaf reaches beyond
/// the end) than asked.
pub async fn unmap_range(t: &Task, domain: Ptr<Domain>, iova: Iova, bytes: u64, gather: &mut IotlbGather) -> u64 {
    let _in = t.call("unmap_range");
    let (top, top_level) = load_top(t, domain).await;
    let Some(last) = iova.0.checked_add(bytes.wrapping_sub(1)).filter(|last| bytes != 0 && *last <= last_of_top(top_level)) else {
        return 0;
    };
    let mut pending = IommuPagesList::EMPTY;
    let unmapped = do_unmap(t, top, top_level, iova.0, last, &mut pending).await;
    gather_range_pending(t, gather, iova.0, unmapped, &mut pending).await;
    unmapped
}

/// `__unmap_range()`: leaves first, then the tables the range covers wholly, from below.
async fn do_unmap(t: &Task, top: Ptr<u64>, top_level: u8, start: u64, last: u64, pending: &mut IommuPagesList) -> u64 {
    let mut path: Path = [Ptr::NULL; LEVELS_MAX];
    let mut level = top_level;
    path[usize::from(level)] = top;
    let mut changed: Changed = [None; LEVELS_MAX];
    let mut va = start;
    let mut unmapped = 0;
    loop {
        let at = slot(path[usize::from(level)], level, va);
        let entry = t.read_once(at).await;
        let next = (va & !(size_of_leaf(level) - 1)).wrapping_add(size_of_leaf(level));
        match classify(entry, level) {
            // Nothing there: -EINVAL ends the walk on all levels.
            Entry::Empty => {
                flush_changed(t, &mut changed, top_level).await;
                return unmapped;
            }
            Entry::Leaf(_) => {
                // A leaf that begins before the range would have to be split.
                if va & (size_of_leaf(level) - 1) != 0 {
                    flush_changed(t, &mut changed, top_level).await;
                    return unmapped;
                }
                t.write_once(at, 0).await;
                note_changed(&mut changed, level, at);
                unmapped += size_of_leaf(level);
            }
            Entry::Table(lower) => {
                level -= 1;
                path[usize::from(level)] = lower;
                continue;
            }
        }
        // Leave every table that is done. One the range covers wholly goes before its parent's next entry is looked at.
        loop {
            if level == top_level || (next <= last && index(level, next) != 0) {
                break;
            }
            let lower = path[usize::from(level)];
            let table_first = (next - 1) & !(size_of_leaf(level + 1) - 1);
            let covered = start <= table_first && last - table_first >= size_of_leaf(level + 1) - 1;
            flush_changed(t, &mut changed, level).await;
            level += 1;
            if covered {
                iommu_pages_list_add(t, pending, lower).await;
                let parent = slot(path[usize::from(level)], level, table_first);
                if !t.k.has(Defect::TableEntryKept) {
                    t.write_once(parent, 0).await;
                }
                note_changed(&mut changed, level, parent);
            }
        }
        if next > last || next == 0 {
            flush_changed(t, &mut changed, top_level).await;
            return unmapped;
        }
        va = next;
    }
}

/// For each level the first and the last slot of its table that was cleared and not flushed.
type Changed = [Option<(Ptr<u64>, Ptr<u64>)>; LEVELS_MAX];

fn note_changed(changed: &mut Changed, level: u8, at: Ptr<u64>) {
    let range = &mut changed[usize::from(level)];
    *range = Some((range.map_or(at, |(first, _)| first), at));
}

/// The end of the loops of all levels up to `level`: what they cleared reaches memory, from below.
async fn flush_changed(t: &Task, changed: &mut Changed, level: u8) {
    for range in &mut changed[..=usize::from(level)] {
        if let Some((first, last)) = range.take() {
            flush_writes(t, first, last).await;
        }
    }
}

/// `gather_range_pending()`: the range goes to the gather in every mode, then the pages.
pub(super) async fn gather_range_pending(t: &Task, gather: &mut IotlbGather, iova: u64, bytes: u64, pending: &mut IommuPagesList) {
    gather.add_range(iova, bytes);
    iommu_pages_list_splice(t, pending, &mut gather.freelist).await;
}
