//! Memory of the machine: bytes ([`Ram`]), what they are ([`Frame`], [`SlabObject`]), and typed kernel pointers ([`Ptr`]).
//!
//! CPUs reach RAM through a direct map at [`PAGE_OFFSET`]; hardware uses physical addresses. An access is judged against the
//! shadow first ([`Memory::judge`]), then performed on the bytes.

mod ptr;
mod ram;
mod shadow;

pub use ptr::{Field, PAGE_OFFSET, Ptr, Scalar, field};
pub use ram::{FRAME_BYTES, Ram};
pub use shadow::{Bad, Frame, FrameState, ObjectState, SHARED, SlabObject, SlabPage, Tag};

use iommu_model::addr::{Pa, Pfn};

use crate::engine::ActorId;

/// Bytes of one page descriptor in the array each generation keeps.
pub const PAGE_DESCRIPTOR_BYTES: u64 = 64;

/// Bytes and shadow together.
pub struct Memory {
    /// The bytes.
    pub ram: Ram,
    /// One shadow entry per frame.
    pub frames: Vec<Frame>,
    /// Frames carved into objects, indexed by [`Frame::slab`] - 1.
    pub slabs: Vec<SlabPage>,
    /// Where this generation's array of page descriptors lies; a pointer into it makes the described frame reachable.
    pub descriptors: Option<Pa>,
    /// The running generation, from 0.
    pub era: u8,
    /// True while several actors exist at all; before, nothing needs a scheduling point.
    pub concurrent: bool,
}

impl Memory {
    /// Memory of `nr_frames` frames, all absent.
    pub fn new(nr_frames: usize) -> Memory {
        Memory {
            ram: Ram::new(nr_frames),
            frames: vec![Frame { private_to: SHARED, ..Frame::default() }; nr_frames],
            slabs: Vec::new(),
            descriptors: None,
            era: 0,
            concurrent: true,
        }
    }

    /// Back to the state of [`Memory::new`], keeping the buffers.
    pub fn reset(&mut self) {
        self.ram.reset();
        self.frames.fill(Frame { private_to: SHARED, ..Frame::default() });
        self.slabs.clear();
        self.descriptors = None;
        self.era = 0;
    }

    /// Bytes of RAM, holes included.
    pub fn bytes(&self) -> u64 {
        self.frames.len() as u64 * FRAME_BYTES
    }

    /// The shadow of the frame at `pa`, if there is RAM.
    #[inline]
    pub fn frame(&self, pa: Pa) -> Option<&Frame> {
        self.frames.get((pa.0 / FRAME_BYTES) as usize)
    }

    /// The slab object at `pa`: page index, slot index.
    #[inline]
    pub fn slot_at(&self, pa: Pa) -> Option<(usize, usize)> {
        let frame = self.frame(pa)?;
        let page = usize::from(frame.slab).checked_sub(1)?;
        let slab = &self.slabs[page];
        let slot = (pa.0 % FRAME_BYTES) as usize >> slab.slot_log2;
        (slot < slab.slots.len()).then_some((page, slot))
    }

    /// Translates a kernel virtual address of the direct map.
    #[inline]
    pub fn direct_map(&self, va: u64) -> Result<Pa, Bad> {
        let pa = va.wrapping_sub(PAGE_OFFSET);
        if pa < self.bytes() {
            Ok(Pa(pa))
        } else if va < FRAME_BYTES {
            Err(Bad::Null)
        } else if va > u64::MAX - 4095 {
            Err(Bad::ErrPtr)
        } else {
            Err(Bad::Wild)
        }
    }

    /// True when only `actor` can reach `pa`, so that its accesses there need no scheduling point.
    #[inline]
    pub fn is_private(&self, pa: Pa, actor: ActorId) -> bool {
        self.private_to(pa) == Some(actor)
    }

    /// The actor that alone can reach `pa`.
    #[inline]
    fn private_to(&self, pa: Pa) -> Option<ActorId> {
        let frame = self.frame(pa)?;
        let private = if frame.slab == 0 {
            if frame.state == FrameState::Owned { frame.private_to } else { SHARED }
        } else {
            self.slabs[usize::from(frame.slab) - 1].slot_at(pa)?.private_to
        };
        (private != SHARED).then_some(ActorId(private))
    }

    /// Judges an access of a CPU to `bytes` bytes at `pa`.
    ///
    /// # Errors
    /// Says what is wrong with it.
    #[inline]
    pub fn judge(&self, pa: Pa, bytes: u8, store: bool) -> Result<(), Bad> {
        let Some(frame) = self.frame(pa) else { return Err(Bad::Wild) };
        match frame.state {
            FrameState::Absent => return Err(Bad::Wild),
            FrameState::Free => return Err(Bad::FreeFrame),
            FrameState::HandedOver if store => return Err(Bad::NotRestored),
            FrameState::HandedOver | FrameState::Reserved | FrameState::Owned => {}
        }
        if frame.slab == 0 {
            return Ok(());
        }
        let slab = &self.slabs[usize::from(frame.slab) - 1];
        let object = slab.slot_at(pa).ok_or(Bad::OutOfBounds)?;
        if object.state != ObjectState::Live {
            return Err(Bad::FreeObject);
        }
        let offset = pa.0 & ((1 << slab.slot_log2) - 1);
        if offset + u64::from(bytes) > u64::from(object.bytes) { Err(Bad::OutOfBounds) } else { Ok(()) }
    }

    /// Called before `actor` stores the low `bytes` bytes of `value` at `pa`: what others can see from now on is published. That is
    /// what the value points to, unless only `actor` can reach `pa`; and what `pa` lies in, if it was private to another one.
    #[inline]
    pub fn note_store(&mut self, pa: Pa, actor: ActorId, bytes: u8, value: u64) {
        let private = self.private_to(pa);
        if private == Some(actor) {
            return;
        }
        if private.is_some() {
            self.publish(pa);
        }
        if value != 0 && bytes == 8 {
            self.publish_value(value);
        }
    }

    /// The block or object that `value` points into, if it is a pointer or a table entry: its first byte and its size.
    pub(crate) fn pointee(&self, value: u64) -> Option<(Pa, u64)> {
        let direct = value.wrapping_sub(PAGE_OFFSET);
        let pa = Pa(if direct < self.bytes() { direct } else { value & 0x000f_ffff_ffff_f000 });
        let frame = self.frame(pa).filter(|_| value != 0)?;
        if frame.slab != 0 {
            let (page, slot) = self.slot_at(pa)?;
            let slab = &self.slabs[page];
            return Some((Pa(u64::from(slab.pfn) * FRAME_BYTES + slab.offset_of(slot)), u64::from(slab.slots[slot].bytes)));
        }
        match frame.state {
            FrameState::Absent => None,
            FrameState::Owned => {
                let head = u64::from(frame.head);
                Some((Pa(head * FRAME_BYTES), FRAME_BYTES << self.frames[head as usize].order))
            }
            FrameState::Reserved | FrameState::Free | FrameState::HandedOver => Some((Pa(pa.0 & !(FRAME_BYTES - 1)), FRAME_BYTES)),
        }
    }

    /// Called with every value stored where others can see it: memory the value points to is reachable from now on.
    #[inline]
    pub fn publish_value(&mut self, value: u64) {
        let direct = value.wrapping_sub(PAGE_OFFSET);
        let pa = if direct < self.bytes() { direct } else { value & 0x000f_ffff_ffff_f000 };
        if pa < self.bytes() {
            self.publish(Pa(pa));
        }
    }

    /// Makes the block or object at `pa`, and all memory it points to, reachable by everybody.
    pub fn publish(&mut self, pa: Pa) {
        let pa = self.described_by(pa).map_or(pa, |pfn| Pa(pfn.0 * FRAME_BYTES));
        let Some(frame) = self.frame(pa) else { return };
        let (start, bytes) = if frame.slab != 0 {
            let Some((page, slot)) = self.slot_at(pa) else { return };
            let slab = &mut self.slabs[page];
            if slab.slots[slot].private_to == SHARED {
                return;
            }
            slab.slots[slot].private_to = SHARED;
            (u64::from(slab.pfn) * FRAME_BYTES + slab.offset_of(slot), u64::from(slab.slots[slot].bytes))
        } else {
            if frame.private_to == SHARED {
                return;
            }
            let head = frame.head as usize;
            let nr_pages = 1usize << self.frames[head].order;
            for frame in &mut self.frames[head..head + nr_pages] {
                frame.private_to = SHARED;
            }
            (head as u64 * FRAME_BYTES, nr_pages as u64 * FRAME_BYTES)
        };
        let mut from = Pa(start);
        while let Some((at, value)) = self.ram.next_nonzero(from, Pa(start + bytes)) {
            self.publish_value(value);
            from = Pa(at.0 + 8);
        }
    }

    /// Makes everything reachable by everybody, as at the end of a generation.
    pub fn publish_all(&mut self) {
        for frame in &mut self.frames {
            frame.private_to = SHARED;
        }
        for slot in self.slabs.iter_mut().flat_map(|page| page.slots.iter_mut()) {
            slot.private_to = SHARED;
        }
    }

    /// The frame whose page descriptor lies at `pa`, if `pa` is in the descriptor array.
    fn described_by(&self, pa: Pa) -> Option<Pfn> {
        let base = self.descriptors?;
        let index = pa.0.checked_sub(base.0)? / PAGE_DESCRIPTOR_BYTES;
        (index < self.frames.len() as u64).then_some(Pfn(index))
    }
}
