//! Boot-time memory: the array of page descriptors, memory from memblock, and the release of all other memory to the allocator.
//!
//! Nothing of the array survives kexec: it lies in memory that holds junk until [`memmap_init`] has run. Before
//! [`memblock_free_all`] only what memblock calls free can be handed out: after a hand-over that is scratch alone.

use std::ops::Range;

use iommu_model::addr::{Pa, Pfn};
use sim::alloc::Zone;
use sim::engine::{Object, Op, OpKind};
use sim::machine::Machine;
use sim::memory::{FrameState, Memory, Ptr, Tag};

use super::super::{IMAGE_FRAMES, Task};
use super::{PAGE_SIZE, Page, page_address, pfn_to_page};
use crate::tag;
use crate::topology::Topology;

/// Descriptors initialised in one step: a page of them.
const DESCRIPTORS_PER_STEP: u64 = PAGE_SIZE / Page::BYTES;

/// Picks where the descriptor array of generation `era` lies and reserves it: for a kernel that was handed something at the end
/// of scratch, because nothing else may be written yet; else at the end of ordinary memory.
///
/// # Panics
/// When there is no room, which no machine the generator draws can cause.
pub fn reserve_memmap(machine: &Machine, topo: &Topology, era: u8) -> Pa {
    let nr = (u64::from(topo.nr_frames) * Page::BYTES).div_ceil(PAGE_SIZE) as u32;
    machine.with_memory(|memory| {
        let scratch = era > 0;
        let fits = |start: u32| {
            memory.frames[start as usize..(start + nr) as usize]
                .iter()
                .all(|frame| frame.state == FrameState::Free && frame.scratch == scratch)
        };
        let start = (0..=topo.nr_frames - nr).rev().find(|start| fits(*start)).expect("the machine has room for its page descriptors");
        for frame in &mut memory.frames[start as usize..(start + nr) as usize] {
            frame.state = FrameState::Reserved;
            frame.tag = tag::MEMMAP;
            frame.era = era;
            frame.version += 1;
        }
        Pfn(u64::from(start)).pa()
    })
}

/// `mm_core_init()`: the descriptor array; and in the first kernel, which has nothing to wait for, the free lists.
pub async fn mm_init(t: &Task) {
    memmap_init(t).await;
    if t.k.handover.is_none() {
        memblock_free_all(t).await;
    }
}

/// `memmap_init()`, mm/mm_init.c: every descriptor gets count 1, as reserved pages have it.
pub async fn memmap_init(t: &Task) {
    let _in = t.call("memmap_init");
    let nr_frames = t.machine.memory().frames.len() as u64;
    let mut pfn = 0;
    while pfn < nr_frames {
        let nr = DESCRIPTORS_PER_STEP.min(nr_frames - pfn);
        let at = pfn_to_page(t, Pfn(pfn)).pa();
        t.step(Op::new(OpKind::Write, Object(at.0), (nr * Page::BYTES) as u16)).await;
        t.machine.with_memory(|memory| {
            memory.ram.fill(at, nr * Page::BYTES, 0, true);
            for i in 0..nr {
                memory.ram.store(Pa(at.0 + i * Page::BYTES + u64::from(Page::REFCOUNT.offset)), 4, 1);
            }
        });
        pfn += nr;
    }
    t.machine.with_memory(|memory| memory.descriptors = Some(t.k.memmap));
}

/// `memblock_alloc()`: early memory that is never given back. The kernel panics where there is none.
pub async fn memblock_alloc<T>(t: &Task, order: u8, tag: Tag) -> Ptr<T> {
    t.step(Op::new(OpKind::Alloc, Object::free_list(0), 0)).await;
    let Some(pfn) = t.machine.take_frames(order, Zone::Normal, tag) else { match t.panic("memblock_alloc: no memory").await {} };
    prep_new_page(t, pfn, order);
    let at = page_address::<T>(t, pfn_to_page(t, pfn));
    t.clear_frames(at, PAGE_SIZE << order).await;
    at
}

/// `memblock_free_all()`: everything that nobody reserved becomes free, in one step.
pub async fn memblock_free_all(t: &Task) {
    let _in = t.call("memblock_free_all");
    t.step(Op::new(OpKind::Free, Object::free_list(0), 0)).await;
    t.machine.with_memory(|memory| {
        let kept = kept(t, memory);
        for index in 0..memory.frames.len() {
            if kept.iter().any(|range| range.contains(&(index as u64))) {
                continue;
            }
            let frame = &mut memory.frames[index];
            if frame.state == FrameState::Reserved {
                frame.state = FrameState::Free;
                frame.version += 1;
            }
            if frame.state == FrameState::Free {
                memory.ram.store(Pa(t.k.memmap.0 + index as u64 * Page::BYTES + u64::from(Page::REFCOUNT.offset)), 4, 0);
            }
        }
    });
    t.machine.rebuild_free_lists();
    t.machine.set_scratch_only(false);
}

/// The frames that stay reserved for good: firmware, this kernel's image and its descriptor array.
fn kept(t: &Task, memory: &Memory) -> [Range<u64>; 4] {
    let from = |pa: Pa, nr: u64| pa.pfn().0..pa.pfn().0 + nr;
    let wide = |range: &Range<u32>| u64::from(range.start)..u64::from(range.end);
    let memmap = from(t.k.memmap, (memory.frames.len() as u64 * Page::BYTES).div_ceil(PAGE_SIZE));
    let first_image = if t.k.era == 0 { wide(&t.k.topo.image) } else { 0..0 };
    [wide(&t.k.topo.firmware), from(t.k.data, u64::from(IMAGE_FRAMES)), memmap, first_image]
}

/// `prep_new_page()`: the descriptors of a block that was just taken, in the step that took it.
pub(crate) fn prep_new_page(t: &Task, pfn: Pfn, order: u8) {
    t.machine.with_memory(|memory| init_block(memory, t.k.memmap, pfn, order, false));
}

/// `page_init` of a slab page in the step that took it. Does nothing when the page is in use already.
pub(crate) fn prep_slab_page(t: &Task, pa: Pa) {
    t.machine.with_memory(|memory| {
        let count = Pa(t.k.memmap.0 + pa.pfn().0 * Page::BYTES + u64::from(Page::REFCOUNT.offset));
        if memory.ram.load(count, 4) == 0 {
            init_block(memory, t.k.memmap, pa.pfn(), 0, false);
        }
    });
}

/// Writes the descriptors of a block: head count 1 and order, tails count 0 and the head's address with bit 0 set in the word that
/// is a list link in heads, or count 1 and order 0 each when `split`.
pub(crate) fn init_block(memory: &mut Memory, memmap: Pa, pfn: Pfn, order: u8, split: bool) {
    for i in 0..1u64 << order {
        let base = memmap.0 + (pfn.0 + i) * Page::BYTES;
        let head = i == 0 || split;
        for word in (0..Page::BYTES).step_by(8) {
            memory.ram.store(Pa(base + word), 8, 0);
        }
        memory.ram.store(Pa(base + u64::from(Page::REFCOUNT.offset)), 4, u64::from(head));
        memory.ram.store(Pa(base + u64::from(Page::ORDER.offset)), 4, if head && !split { u64::from(order) } else { 0 });
        if !head {
            let head = Ptr::<Page>::from_pa(Pa(memmap.0 + pfn.0 * Page::BYTES));
            memory.ram.store(Pa(base + u64::from(Page::LRU_NEXT.offset)), 8, head.value() | 1);
        }
    }
}
