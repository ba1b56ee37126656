//! Visiting every table of a tree (`__collect_tables` of `iommu_pt.h`).

use iommu_model::spec::vtd::second_stage::TABLE_ENTRIES;
use sim::memory::Ptr;

use super::super::Task;
use super::super::iommu::Domain;
use super::super::iommu_pages::{IommuPagesList, iommu_pages_list_add};
use super::{Entry, LEVELS_MAX, Path, classify, load_top};

/// Reads a table from entry `from` on up to the next entry that is not zero: one step for the scan. Returns its index and value;
/// `None` when only zeros are left.
///
/// Entries skipped count as read when the scan began: storing one of them after that is as if it came later, which a scan
/// entry by entry allows as well.
pub async fn scan_table(t: &Task, table: Ptr<u64>, from: u64) -> Option<(u64, u64)> {
    let mut index = from;
    while index < TABLE_ENTRIES {
        let at = next_not_zero(t, table, index);
        let entry = t.read_once(table.byte_add::<u64>(at * 8)).await;
        if entry != 0 {
            return Some((at, entry));
        }
        index = at + 1;
    }
    None
}

/// Index of the first word from `from` on that is not zero now, or of the last word.
fn next_not_zero(t: &Task, table: Ptr<u64>, from: u64) -> u64 {
    let pa = table.pa();
    if t.machine.memory().frame(pa).is_none() {
        return from;
    }
    let found = t.machine.peek_not_zero(pa.offset(from * 8), pa.offset(TABLE_ENTRIES * 8));
    found.map_or(TABLE_ENTRIES - 1, |at| (at.0 - pa.0) / 8)
}

/// Puts the top table and then every lower table on `list`, depth first, each before its own entries are read.
///
/// Takes no lock: nobody may map or unmap meanwhile.
pub async fn collect_tables(t: &Task, domain: Ptr<Domain>, list: &mut IommuPagesList) {
    let (top, level) = load_top(t, domain).await;
    iommu_pages_list_add(t, list, top).await;
    collect_below(t, top, level, list, true).await;
}

/// `__collect_tables()`: the tables below `table`. With `leaves_allowed` false, stops at the first leaf and returns false.
pub(super) async fn collect_below(t: &Task, table: Ptr<u64>, level: u8, list: &mut IommuPagesList, leaves_allowed: bool) -> bool {
    if level == 0 {
        return leaves_allowed || scan_table(t, table, 0).await.is_none();
    }
    let mut path: Path = [Ptr::NULL; LEVELS_MAX];
    let mut next = [0u64; LEVELS_MAX];
    let mut at = usize::from(level);
    path[at] = table;
    loop {
        match scan_table(t, path[at], next[at]).await {
            Some((index, entry)) => {
                next[at] = index + 1;
                match classify(entry, at as u8) {
                    Entry::Empty => {}
                    Entry::Leaf(_) if leaves_allowed => {}
                    Entry::Leaf(_) => return false,
                    Entry::Table(lower) => {
                        iommu_pages_list_add(t, list, lower).await;
                        if at > 1 {
                            at -= 1;
                            path[at] = lower;
                            next[at] = 0;
                        } else if !leaves_allowed && scan_table(t, lower, 0).await.is_some() {
                            return false;
                        }
                    }
                }
            }
            None if at == usize::from(level) => return true,
            None => at += 1,
        }
    }
}
