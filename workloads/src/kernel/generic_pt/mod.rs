//! `drivers/iommu/generic_pt/`: page tables of an IOMMU, in the format of the VT-d second stage (`fmt/vtdss.h`).
//!
//! Rules the code states, and callers must keep:
//!
//! 1. The caller holds a range lock: no two threads map or unmap the same address at once.
//! 2. Threads with disjoint ranges may run at once and share tables above the leaves: installing a table pointer is a
//!    compare-and-exchange, everything else is one plain 64-bit store.
//! 3. `top_of_table` is one word. It never changes after initialisation in this format.
//! 4. `deinit`: hardware and caches must have let go of the tables before.
//!
//! | feature | here |
//! | --- | --- |
//! | 4 KiB, 2 MiB, 1 GiB leaves; 3, 4, 5 levels | yes |
//! | walker that does not snoop (`DMA_INCOHERENT`), software bit 10 | yes |
//! | growing top (`DYNAMIC_TOP`) | no: not in this format |
//! | contiguous leaves | no: not in this format |
//! | dirty tracking | no |
//!
//! The kernel walks ranges by nested functions, one a level; here the same steps run in one loop with the tables of the
//! current path in an array, as the kernel has them on its stack.

mod collect;
mod map;
mod preserve;
mod unmap;

use iommu_model::addr::{Iova, Pa};
use iommu_model::spec::vtd::second_stage::{LEVEL_BITS, SecondStageEntry, TABLE_ENTRIES};
use sim::memory::Ptr;

use super::Task;
use super::iommu::{Domain, DomainOps};
use super::iommu_pages::{
    IommuPagesList, iommu_alloc_pages, iommu_pages_flush_incoherent, iommu_pages_start_incoherent, iommu_put_pages_list,
};
use super::mm::Gfp;
use crate::errno::{ENOMEM, Errno};
use crate::tag;

pub use collect::{collect_tables, scan_table};
pub use map::map_range;
pub use preserve::{preserve, restore, unpreserve};
pub use unmap::unmap_range;

/// Most levels of a table.
pub const LEVELS_MAX: usize = 5;
/// Bytes of a granule.
pub const GRANULE_LG2: u32 = 12;

/// `struct iommu_iotlb_gather`: what an unmap has to invalidate. Lies on the stack of the unmap.
#[derive(Clone, Copy, Debug)]
pub struct IotlbGather {
    /// Lowest address.
    pub start: u64,
    /// Highest address, inclusive.
    pub end: u64,
    /// Table pages to free after the invalidation.
    pub freelist: IommuPagesList,
}

impl IotlbGather {
    /// `iommu_iotlb_gather_init()`: an inverted range.
    pub const EMPTY: IotlbGather = IotlbGather { start: u64::MAX, end: 0, freelist: IommuPagesList::EMPTY };

    /// `iommu_iotlb_gather_add_range()`.
    pub const fn add_range(&mut self, iova: u64, bytes: u64) {
        let end = iova.wrapping_add(bytes).wrapping_sub(1);
        if self.start > iova {
            self.start = iova;
        }
        if self.end < end {
            self.end = end;
        }
    }
}

/// `PT_FEAT_FLUSH_RANGE`.
const FEAT_FLUSH_RANGE: u32 = 1 << 0;
/// `PT_FEAT_DMA_INCOHERENT`: the walker does not snoop.
const FEAT_DMA_INCOHERENT: u32 = 1 << 1;
/// `DMA_INCOHERENT_VTDSS_SW_BIT`, bit 10: whoever installed the table entry has flushed it. Hardware ignores the bit.
const SW_FLUSHED: u64 = 1 << 10;

/// `pt_feature(common, PT_FEAT_DMA_INCOHERENT)`, which never changes: all units of a machine here are alike.
pub(crate) fn dma_incoherent(t: &Task) -> bool {
    t.k.topo.units.iter().any(|unit| !unit.coherent)
}

/// `pt_clear_entries`/`pt_install_leaf_entry` are followed by this: the entries from `first` to `last` reach memory.
async fn flush_writes(t: &Task, first: Ptr<u64>, last: Ptr<u64>) {
    if dma_incoherent(t) {
        iommu_pages_flush_incoherent(t, first, last.value() + 8 - first.value()).await;
    }
}

/// `pt_iommu_init()`: a fresh table of `levels` levels whose leaves may have the sizes in `pgsize_bitmap`. -ENOMEM.
pub async fn pt_iommu_init(t: &Task, domain: Ptr<Domain>, levels: u8, pgsize_bitmap: u64) -> Errno {
    t.write(domain.at(Domain::VASZ), GRANULE_LG2 + LEVEL_BITS * u32::from(levels)).await;
    let features = FEAT_FLUSH_RANGE | if dma_incoherent(t) { FEAT_DMA_INCOHERENT } else { 0 };
    t.write(domain.at(Domain::FEATURES), features).await;
    t.write(domain.at(Domain::PGSIZE_BITMAP), pgsize_bitmap).await;
    let top = iommu_alloc_pages(t, Gfp::Kernel, tag::IOMMU_TABLE).await;
    if top.is_null() {
        return ENOMEM;
    }
    if dma_incoherent(t) {
        iommu_pages_start_incoherent(t, top).await;
    }
    t.write(domain.at(Domain::TOP_OF_TABLE), top_of_table(top, levels - 1)).await;
    t.write(domain.at(Domain::OPS), DomainOps::Paging as u64).await;
    0
}

/// `pt_iommu_deinit()`: frees every table, the top first.
pub async fn pt_iommu_deinit(t: &Task, domain: Ptr<Domain>) {
    let _in = t.call("pt_iommu_deinit");
    let mut list = IommuPagesList::EMPTY;
    collect_tables(t, domain, &mut list).await;
    iommu_put_pages_list(t, &mut list).await;
}

/// `iova_to_phys`: one load a level, no lock; 0 when nothing is mapped there.
pub async fn iova_to_phys(t: &Task, domain: Ptr<Domain>, iova: Iova) -> Pa {
    let (mut table, mut level) = load_top(t, domain).await;
    if iova.0 > last_of_top(level) {
        return Pa(0);
    }
    loop {
        let entry = t.read_once(slot(table, level, iova.0)).await;
        match classify(entry, level) {
            Entry::Empty => return Pa(0),
            Entry::Leaf(pa) => return Pa(pa.0 + (iova.0 & (size_of_leaf(level) - 1))),
            Entry::Table(next) => table = next,
        }
        level -= 1;
    }
}

/// What software takes an entry for. An entry with other bits than zero is never empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    /// All bits clear.
    Empty,
    /// Maps memory.
    Leaf(Pa),
    /// Points to the next lower table.
    Table(Ptr<u64>),
}

pub(crate) const fn classify(entry: u64, level: u8) -> Entry {
    let bits = SecondStageEntry::from_bits(entry);
    if entry == 0 {
        Entry::Empty
    } else if level == 0 || bits.page_size() {
        Entry::Leaf(Pa(bits.frame() << GRANULE_LG2 & !(size_of_leaf(level) - 1)))
    } else {
        Entry::Table(Ptr::from_pa(Pa(bits.frame() << GRANULE_LG2)))
    }
}

/// A table entry: R, W and the address.
pub(crate) const fn table_entry(table: Ptr<u64>) -> u64 {
    SecondStageEntry::new().with_read(true).with_write(true).with_frame(table.pa().0 >> GRANULE_LG2).into_bits()
}

/// A leaf at `level`. `prot`: `IOMMU_READ`, `IOMMU_WRITE`.
pub(crate) const fn leaf_entry(pa: Pa, level: u8, prot: u8) -> u64 {
    SecondStageEntry::new()
        .with_read(prot & super::iommu::IOMMU_READ != 0)
        .with_write(prot & super::iommu::IOMMU_WRITE != 0)
        .with_page_size(level > 0)
        .with_frame(pa.0 >> GRANULE_LG2)
        .into_bits()
}

pub(crate) const fn top_of_table(top: Ptr<u64>, level: u8) -> u64 {
    top.value() | level as u64
}

/// Loads `top_of_table`: the top table and its level.
pub(crate) async fn load_top(t: &Task, domain: Ptr<Domain>) -> (Ptr<u64>, u8) {
    let word = t.read_once(domain.at(Domain::TOP_OF_TABLE)).await;
    (Ptr::new(word & !0xfff), (word & 7) as u8)
}

/// log2 of the bytes one entry of `level` covers.
pub(crate) const fn size_lg2(level: u8) -> u32 {
    GRANULE_LG2 + LEVEL_BITS * level as u32
}

pub(crate) const fn size_of_leaf(level: u8) -> u64 {
    1 << size_lg2(level)
}

/// Highest address a table with its top at `level` translates.
pub(crate) const fn last_of_top(level: u8) -> u64 {
    (1 << size_lg2(level + 1)) - 1
}

/// Index of `va` in a table of `level`.
pub(crate) const fn index(level: u8, va: u64) -> u64 {
    va >> size_lg2(level) & (TABLE_ENTRIES - 1)
}

/// The entry for `va` in `table`, a table of `level`.
pub(crate) const fn slot(table: Ptr<u64>, level: u8, va: u64) -> Ptr<u64> {
    table.byte_add(index(level, va) * 8)
}

/// The pages of a domain's tables that the walk needs while it runs: the path from the top down.
pub(crate) type Path = [Ptr<u64>; LEVELS_MAX];

const _: () = assert!(LEVELS_MAX == 5 && size_lg2(0) == 12 && size_lg2(2) == 30);
