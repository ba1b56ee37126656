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

/// Which of the free blocks that fit is handed out. All but the first are adversaries: each makes one kind of wrong access land where it
/// does harm, every time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Placement {
    /// A choice of the run among the most recently freed, the oldest and one in between.
    #[default]
    Drawn,
    /// What was freed last, even cut from a block it was merged into: who still uses what it freed meets the next owner at once.
    Reuse,
    /// The one that was freed longest ago: what nobody was to write stays as it was for as long as can be.
    Oldest,
    /// What lies behind the block handed out last, or near it: who writes past an end meets the next owner.
    Neighbour,
    /// One cut from the largest free block, while smaller ones would do: neighbours of one block belong to blocks of other orders.
    Split,
}

impl Placement {
    /// All, the drawn one first.
    pub const ALL: [Placement; 5] = [Placement::Drawn, Placement::Reuse, Placement::Oldest, Placement::Neighbour, Placement::Split];

    fn has_target(self) -> bool {
        matches!(self, Placement::Reuse | Placement::Neighbour)
    }
}

/// How far the frame `target` lies from the block of 2^`order` frames at `head`; 0 inside.
fn distance(head: u32, order: u8, target: u32) -> u32 {
    let last = head + (1 << order) - 1;
    target.clamp(head, last).abs_diff(target)
}

/// Free lists of one generation.
#[derive(Default)]
pub struct FrameAllocator {
    /// `free[scratch][order]`: heads of free blocks, most recently freed last.
    free: [[Vec<u32>; MAX_ORDER as usize + 1]; 2],
    placement: Placement,
    /// The frame that the next request is to get, where the placement goes by that.
    target: u32,
}

impl FrameAllocator {
    /// No free memory.
    pub fn new(placement: Placement) -> FrameAllocator {
        FrameAllocator { placement, ..FrameAllocator::default() }
    }

    /// Which blocks are handed out.
    pub fn placement(&self) -> Placement {
        self.placement
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

    /// Takes a block of 2^`order` frames. Where several would do, the [`Placement`] says which.
    pub fn take(&mut self, memory: &mut Memory, core: &Core, order: u8, zone: Zone, tag: Tag, actor: ActorId) -> Option<Pfn> {
        let areas: &[usize] = match zone {
            Zone::Normal => &[0],
            Zone::Movable => &[1, 0],
            Zone::ScratchOnly => &[1],
        };
        let (area, from) = areas.iter().find_map(|area| self.order_from(*area, order).map(|from| (*area, from)))?;
        let target = self.target;
        let list = &mut self.free[area][usize::from(from)];
        let last = list.len() - 1;
        let at = match self.placement {
            Placement::Drawn => match core.choose(ChoiceKind::Placement, list.len().min(3) as u32) {
                0 => last,
                1 => 0,
                _ => last / 2,
            },
            Placement::Reuse | Placement::Neighbour => (0..=last).min_by_key(|at| distance(list[*at], from, target)).unwrap_or(last),
            Placement::Oldest | Placement::Split => 0,
        };
        let mut pfn = list.remove(at);
        memory.frames[pfn as usize].free_order = 0;
        let mut have = from;
        while have > order {
            have -= 1;
            let upper = pfn + (1 << have);
            if self.placement.has_target() && target >= upper {
                self.insert(memory, pfn, have);
                pfn = upper;
            } else {
                self.insert(memory, upper, have);
            }
        }
        if self.placement == Placement::Neighbour {
            self.target = pfn + (1 << order);
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

    /// The order of the blocks that a request for `order` is cut from.
    fn order_from(&self, area: usize, order: u8) -> Option<u8> {
        let mut orders = (order..=MAX_ORDER).filter(|from| !self.free[area][usize::from(*from)].is_empty());
        let nearest = |from: &u8| self.free[area][usize::from(*from)].iter().map(|head| distance(*head, *from, self.target)).min();
        match self.placement {
            Placement::Drawn | Placement::Oldest => orders.next(),
            Placement::Split => orders.next_back(),
            Placement::Reuse | Placement::Neighbour => orders.min_by_key(nearest),
        }
    }

    /// Gives a block back and merges it with free buddies.
    ///
    /// # Panics
    /// When the block is not wholly owned: the caller judges double frees before.
    pub fn give(&mut self, memory: &mut Memory, core: &Core, pfn: Pfn, order: u8, actor: ActorId) {
        let step = core.steps() as u32;
        let mut head = pfn.0 as usize;
        if self.placement == Placement::Reuse {
            self.target = head as u32;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{FaultPlan, PolicySpec, Profile};

    /// Takes five frames, frees the second and then the fourth, and takes two more: the first five, and the last two.
    fn taken(placement: Placement, seed: u64) -> (Vec<u64>, Vec<u64>) {
        let core = Core::new(PolicySpec::Uniform.build(seed, &Profile::default(), FaultPlan::Never));
        let mut memory = Memory::new(64);
        memory.frames[1..].iter_mut().for_each(|frame| frame.state = FrameState::Free);
        let mut frames = FrameAllocator::new(placement);
        frames.rebuild(&mut memory);
        let take = |frames: &mut FrameAllocator, memory: &mut Memory| {
            frames.take(memory, &core, 0, Zone::Normal, Tag(1), ActorId(0)).expect("there is memory").0
        };
        let first: Vec<u64> = (0..5).map(|_| take(&mut frames, &mut memory)).collect();
        for at in [1, 3] {
            frames.give(&mut memory, &core, Pfn(first[at]), 0, ActorId(0));
        }
        let last = (0..2).map(|_| take(&mut frames, &mut memory)).collect();
        (first, last)
    }

    #[test]
    fn each_adversary_hands_out_what_it_says() {
        let (first, last) = taken(Placement::Reuse, 0);
        assert_eq!(last[0], first[3], "freed last");
        let (first, last) = taken(Placement::Neighbour, 0);
        assert!(first.windows(2).all(|pair| pair[1] == pair[0] + 1) && last == [first[4] + 1, first[4] + 2], "{first:?}, {last:?}");
        let (first, last) = taken(Placement::Split, 0);
        assert!(first[0] == 32, "{first:?}: smaller blocks would have done");
        let apart = |pfn: &u64| first.iter().all(|other| pfn == other || pfn.abs_diff(*other) > 1);
        assert!(first.iter().all(apart), "{first:?}, {last:?}: each cut from another block");
        let (first, last) = taken(Placement::Oldest, 0);
        assert_eq!(last, [first[1], first[3]], "freed first");
    }

    #[test]
    fn only_the_drawn_placement_depends_on_the_seed() {
        for placement in Placement::ALL {
            let differs = (0..20).any(|seed| taken(placement, seed) != taken(placement, 0));
            assert_eq!(differs, placement == Placement::Drawn, "{placement:?}");
        }
    }
}
