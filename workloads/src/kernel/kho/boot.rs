//! KHO in a booting kernel: the scratch-only phase of a kernel that was handed something, and the tracker and root page for the
//! next hand-over.
//!
//! From the jump on every frame outside scratch counts as reserved, because nothing is known of it. [`kho_memory_init`] reads
//! the tracker, reserves what it names and writes the magic word into each head descriptor; only then is the rest free memory.
//!
//! Source: kernel/liveupdate/kexec_handover.c: `kho_populate`, `kho_memory_init`, `kho_init` (linux-mm, 2026).

use iommu_model::addr::{Pa, Pfn};
use sim::memory::{FrameState, Ptr};

use super::super::mm::boot::{memblock_alloc, memblock_free_all};
use super::super::mm::{Gfp, PAGE_SIZE, Page, free_page, get_zeroed_page, pfn_to_page};
use super::super::{HandoverArgs, Task};
use super::fdt::{Fdt, FdtReader, kho_out_fdt_setup};
use super::radix::{KhoRadixNode, KhoRadixWalk};
use super::{KHO_PAGE_MAGIC, Kho, SECTION, kho_alloc_preserve, kho_unpreserve_free};
use crate::abi::kho as abi;
use crate::defect::Defect;
use crate::errno::{ENOMEM, Errno};
use crate::tag;
use crate::verb;

/// Pages that early boot code takes before preserved memory is known (per-CPU areas and the like).
const EARLY_PAGES: u32 = 2;
/// Records a tracker may have for each frame of the machine before its walk is given up.
const RECORDS_PER_FRAME: u64 = 16;

/// `kho_reserve_scratch()`, or its part of `kho_populate()`: remembers the scratch area and marks its frames.
async fn kho_reserve_scratch(t: &Task, start: Pa, bytes: u64) {
    t.write(t.sym(SECTION, Kho::SCRATCH), start.0).await;
    t.write(t.sym(SECTION, Kho::SCRATCH_BYTES), bytes).await;
    t.machine.with_memory(|memory| {
        for (index, frame) in memory.frames.iter_mut().enumerate() {
            frame.scratch = (start.0..start.0 + bytes).contains(&(index as u64 * PAGE_SIZE));
        }
    });
}

/// Early boot allocations, from memblock.
async fn setup_per_cpu_areas(t: &Task) {
    let _in = t.call("setup_per_cpu_areas");
    for _ in 0..EARLY_PAGES {
        memblock_alloc::<u64>(t, 0, tag::OTHER).await;
    }
}

/// `kho_memory_init()` with the boot code around it, behind [`mm_init`](super::super::mm::mm_init): from the jump until all memory
/// that nobody preserved is free. Does nothing without hand-over.
pub async fn kho_memory_init(t: &Task) {
    let _in = t.call("kho_memory_init");
    let Some(args) = t.k.handover else { return };
    t.machine.set_scratch_only(true);
    t.write(t.sym(SECTION, Kho::ENABLE), 1).await;
    kho_reserve_scratch(t, args.scratch, args.scratch_bytes).await;
    t.machine.rebuild_free_lists();
    let tracker = kho_populate(t, args).await;
    if t.k.has(Defect::AllocBeforeReserve) {
        memblock_free_all(t).await;
    }
    setup_per_cpu_areas(t).await;
    if !tracker.is_null() {
        kho_mem_deserialize(t, tracker).await;
    }
    memblock_free_all(t).await;
}

/// `kho_populate()`: checks the root FDT. A tree of another generation is ignored as a whole: the kernel boots as if cold.
async fn kho_populate(t: &Task, args: HandoverArgs) -> Ptr<KhoRadixNode> {
    let _in = t.call("kho_populate");
    t.write(t.sym(SECTION, Kho::IN_FDT), 0).await;
    let Some(reader) = FdtReader::open(t, Ptr::<Fdt>::from_pa(args.fdt)).await else { return Ptr::NULL };
    let Some(root) = reader.root(t).await else { return Ptr::NULL };
    if !reader.is_compatible(t, root, abi::COMPATIBLE).await {
        return Ptr::NULL;
    }
    let Some(tracker) = reader.property_u64(t, root, abi::PROP_PRESERVED_MEMORY_MAP).await else { return Ptr::NULL };
    t.write(t.sym(SECTION, Kho::IN_FDT), args.fdt.0).await;
    if tracker == 0 { Ptr::NULL } else { Ptr::from_pa(Pa(tracker)) }
}

/// `kho_mem_deserialize()`: reserves each record of the tracker.
async fn kho_mem_deserialize(t: &Task, tracker: Ptr<KhoRadixNode>) {
    let _in = t.call("kho_mem_deserialize");
    let bound = t.machine.memory().frames.len() as u64 * RECORDS_PER_FRAME;
    let mut walk = KhoRadixWalk::new(tracker, bound);
    while let Some((pa, order)) = walk.next(t).await {
        kho_preserved_memory_reserve(t, pa, order).await;
    }
}

/// `kho_preserved_memory_reserve()`: memblock reserves the block, and its head descriptor carries magic and order.
async fn kho_preserved_memory_reserve(t: &Task, pa: Pa, order: u8) {
    let page = pfn_to_page(t, pa.pfn());
    t.write(page.at(Page::PRIVATE), KHO_PAGE_MAGIC << 32 | u64::from(order)).await;
    let Pfn(first) = pa.pfn();
    t.machine.with_memory(|memory| {
        let last = first.saturating_add(1u64.checked_shl(u32::from(order)).unwrap_or(u64::MAX)).min(memory.frames.len() as u64);
        for index in first..last {
            let frame = &mut memory.frames[index as usize];
            if matches!(frame.state, FrameState::Reserved | FrameState::Free) && !frame.scratch {
                frame.state = FrameState::HandedOver;
                frame.order = order.min(10);
                frame.head = first as u32;
            }
        }
    });
    t.machine.note(verb::KHO_RESERVED, [pa.0, u64::from(order), 0, 0]);
}

/// `kho_init()`: tracker root and root FDT for the next hand-over. On failure KHO stays off.
pub async fn kho_init(t: &Task) -> Errno {
    let _in = t.call("kho_init");
    let tree_lock = t.sym(SECTION, Kho::RADIX_LOCK);
    let out_lock = t.sym(SECTION, Kho::OUT_LOCK);
    t.init_lock(tree_lock).await;
    t.init_lock(out_lock).await;
    t.write(t.sym(SECTION, Kho::ENABLE), 0).await;
    if t.k.handover.is_none() {
        t.write(t.sym(SECTION, Kho::IN_FDT), 0).await;
        let scratch = &t.k.topo.scratch;
        kho_reserve_scratch(t, Pfn(u64::from(scratch.start)).pa(), scratch.len() as u64 * PAGE_SIZE).await;
    }

    let root = get_zeroed_page::<KhoRadixNode>(t, Gfp::Kernel, tag::KHO_RADIX).await;
    if root.is_null() {
        return ENOMEM;
    }
    t.write(t.sym(SECTION, Kho::RADIX_ROOT), root).await;
    let fdt = kho_alloc_preserve::<Fdt>(t, PAGE_SIZE, tag::KHO_FDT).await;
    if let Some(errno) = fdt.errno() {
        free_page(t, root).await;
        t.write(t.sym(SECTION, Kho::RADIX_ROOT), Ptr::NULL).await;
        return -errno;
    }
    let err = kho_out_fdt_setup(t, fdt, root.pa()).await;
    if err != 0 {
        kho_unpreserve_free(t, fdt).await;
        free_page(t, root).await;
        t.write(t.sym(SECTION, Kho::RADIX_ROOT), Ptr::NULL).await;
        return err;
    }
    t.write(t.sym(SECTION, Kho::OUT_FDT), fdt).await;
    t.write(t.sym(SECTION, Kho::ENABLE), 1).await;
    0
}
