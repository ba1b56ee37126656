//! Folio allocator: blocks of 2^order frames, free lists by order, zones, scratch areas; which block is handed out is a choice.
//!
//! The allocator itself is not under test: a call is one step. What is under test is who calls it, when, and what the memory it
//! hands out is used for. Buddies merge on free, so a block freed next to a free one comes back as part of a larger one.

use iommu_model::addr::Pfn;

use crate::engine::{ActorId, ChoiceKind, Core};
use crate::memory::{FrameState, Memory, SHARED, Tag};

/// Largest order of a block (Linux `MAX_PAGE_ORDER` on x86-64: 4 MiB).
pub const MAX_ORDER: u8 = 10;

/// Which memory a request may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Zone {
    /// Ordinary memory, never scratch: unmovable kernel allocations.
    Normal,
    /// Scratch/CMA first, then ordinary: movable user memory.
    Movable,
    /// Scratch only: early boot, before preserved memory is known.
    ScratchOnly,
}

/// Free lists of one generation.
#[derive(Default)]
pub struct FrameAllocator {
    /// `free[scratch][order]`: heads of free blocks, most recently freed last.
    free: [[Vec<u32>; MAX_ORDER as usize + 1]; 2],
}

impl FrameAllocator {
    /// No free memory.
    pub fn new() -> FrameAllocator {
        FrameAllocator::default()
    }

    /// Forgets all free lists.
    pub fn reset(&mut self) {
        for lists in &mut self.free {
            for list in lists {
                list.clear();
            }
        }
    }

    /// Rebuilds the free lists from the frames whose state is [`FrameState::Free`].
    pub fn rebuild(&mut self, memory: &mut Memory) {
        self.reset();
        let nr = memory.frames.len();
        let mut pfn = 0;
        while pfn < nr {
            memory.frames[pfn].free_order = 0;
            if memory.frames[pfn].state != FrameState::Free {
                pfn += 1;
                continue;
            }
            let scratch = memory.frames[pfn].scratch;
            let fits = |order: u8| {
                let size = 1usize << order;
                pfn.is_multiple_of(size)
                    && pfn + size <= nr
                    && memory.frames[pfn..pfn + size].iter().all(|frame| frame.state == FrameState::Free && frame.scratch == scratch)
            };
            let order = (0..=MAX_ORDER).rev().find(|order| fits(*order)).unwrap_or(0);
            self.insert(memory, pfn as u32, order);
            for frame in &mut memory.frames[pfn + 1..pfn + (1 << order)] {
                frame.free_order = 0;
            }
            pfn += 1 << order;
        }
    }

    /// Takes a block of 2^`order` frames. Where several would do, the choice is the policy's: the most recently freed one, the
    /// oldest, or one in between.
    pub fn take(&mut self, memory: &mut Memory, core: &Core, order: u8, zone: Zone, tag: Tag, actor: ActorId) -> Option<Pfn> {
        let areas: &[usize] = match zone {
            Zone::Normal => &[0],
            Zone::Movable => &[1, 0],
            Zone::ScratchOnly => &[1],
        };
        let (area, from) = areas
            .iter()
            .find_map(|area| (order..=MAX_ORDER).find(|from| !self.free[*area][usize::from(*from)].is_empty()).map(|from| (*area, from)))?;
        let list = &mut self.free[area][usize::from(from)];
        let last = list.len() - 1;
        let at = match core.choose(ChoiceKind::Placement, list.len().min(3) as u32) {
            0 => last,
            1 => 0,
            _ => last / 2,
        };
        let pfn = list.remove(at);
        memory.frames[pfn as usize].free_order = 0;
        let mut have = from;
        while have > order {
            have -= 1;
            self.insert(memory, pfn + (1 << have), have);
        }
        let (era, step) = (memory.era, core.steps() as u32);
        for frame in &mut memory.frames[pfn as usize..pfn as usize + (1 << order)] {
            frame.state = FrameState::Owned;
            frame.tag = tag;
            frame.order = order;
            frame.head = pfn;
            frame.private_to = actor.0;
            frame.era = era;
            frame.version += 1;
            frame.since = step;
            frame.by = actor;
        }
        Some(Pfn(u64::from(pfn)))
    }

    /// Gives a block back and merges it with free buddies.
    ///
    /// # Panics
    /// When the block is not wholly owned: the caller judges double frees before.
    pub fn give(&mut self, memory: &mut Memory, core: &Core, pfn: Pfn, order: u8, actor: ActorId) {
        let step = core.steps() as u32;
        let mut head = pfn.0 as usize;
        for frame in &mut memory.frames[head..head + (1 << order)] {
            assert_eq!(frame.state, FrameState::Owned, "only owned frames are given back");
            frame.state = FrameState::Free;
            frame.private_to = SHARED;
            frame.slab = 0;
            frame.version += 1;
            frame.since = step;
            frame.by = actor;
            frame.free_order = 0;
        }
        let mut order = order;
        while order < MAX_ORDER {
            let buddy = head ^ (1 << order);
            let Some(frame) = memory.frames.get(buddy) else { break };
            if frame.free_order != order + 1 || frame.scratch != memory.frames[head].scratch {
                break;
            }
            let list = &mut self.free[usize::from(frame.scratch)][usize::from(order)];
            let at = list.iter().position(|pfn| *pfn as usize == buddy).expect("free_order says it is listed");
            list.remove(at);
            memory.frames[buddy].free_order = 0;
            head = head.min(buddy);
            order += 1;
        }
        self.insert(memory, head as u32, order);
    }

    fn insert(&mut self, memory: &mut Memory, pfn: u32, order: u8) {
        let frame = &mut memory.frames[pfn as usize];
        frame.free_order = order + 1;
        self.free[usize::from(frame.scratch)][usize::from(order)].push(pfn);
    }
}
