//! Shadow state: what each frame is, whose it is, and who can reach it.
//!
//! Every access is judged here before it happens. The shadow also decides reachability: memory fresh from an allocator belongs
//! to the actor that allocated it alone until its address is stored where others can see it. Accesses to such memory need no
//! scheduling point; the caller never decides that.

use iommu_model::addr::Pa;

use super::FRAME_BYTES;
use crate::engine::ActorId;

/// What a frame holds, as a number whose name the workload keeps (page table, slab page, pinned user memory, ...).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Tag(pub u16);

/// State of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FrameState {
    /// No memory here: a hole.
    #[default]
    Absent,
    /// Memory outside the allocator for good: firmware, kernel image.
    Reserved,
    /// On a free list.
    Free,
    /// Allocated.
    Owned,
    /// Handed over by the previous generation and not yet restored: may be read, not written or given out.
    HandedOver,
}

/// No actor: the frame or object can be reached by everybody.
pub const SHARED: u8 = u8::MAX;

/// Shadow of one frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frame {
    /// State.
    pub state: FrameState,
    /// Order of the block it belongs to, valid in the head.
    pub order: u8,
    /// The actor that alone can reach it, or [`SHARED`].
    pub private_to: u8,
    /// The generation that allocated or reserved it.
    pub era: u8,
    /// What it holds; for a free frame, what it held last.
    pub tag: Tag,
    /// Slab page number + 1 when the frame is carved into objects.
    pub slab: u16,
    /// Free list bookkeeping: order + 1 when this frame heads a free block.
    pub free_order: u8,
    /// True for scratch/CMA frames.
    pub scratch: bool,
    /// Head frame of the block it belongs to.
    pub head: u32,
    /// Counts how often it was allocated or freed: two references to one frame with different versions are not the same memory.
    pub version: u32,
    /// Step of the last allocation or free.
    pub since: u32,
    /// Actor of the last allocation or free.
    pub by: ActorId,
}

/// State of a slab object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ObjectState {
    /// Never handed out, or back on the free list.
    #[default]
    Free,
    /// Handed out.
    Live,
    /// Freed, not yet reusable.
    Quarantined,
}

/// Shadow of one slab object.
#[derive(Clone, Copy, Debug, Default)]
pub struct SlabObject {
    /// State.
    pub state: ObjectState,
    /// The actor that alone can reach it, or [`SHARED`].
    pub private_to: u8,
    /// Requested size in bytes: one byte beyond is a redzone hit.
    pub bytes: u16,
    /// What it is.
    pub tag: Tag,
    /// Counts allocations and frees.
    pub version: u32,
    /// Step of the last allocation or free.
    pub since: u32,
    /// Actor of the last allocation or free.
    pub by: ActorId,
}

/// A frame carved into objects of one size.
#[derive(Clone, Debug, Default)]
pub struct SlabPage {
    /// The frame.
    pub pfn: u32,
    /// Bytes per object slot, as a power of two.
    pub slot_log2: u8,
    /// Slots in state [`ObjectState::Free`].
    pub nr_free: u16,
    /// Slots in state [`ObjectState::Quarantined`].
    pub nr_quarantined: u16,
    /// The slots.
    pub slots: Vec<SlabObject>,
}

impl SlabPage {
    /// The object in whose slot `pa`, an address in this page, lies.
    #[inline]
    pub fn slot_at(&self, pa: Pa) -> Option<&SlabObject> {
        self.slots.get((pa.0 % FRAME_BYTES) as usize >> self.slot_log2)
    }

    /// Byte offset of a slot in the page.
    #[inline]
    pub const fn offset_of(&self, slot: usize) -> u64 {
        (slot as u64) << self.slot_log2
    }
}

/// Why an access is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bad {
    /// Below the first page: NULL or near it.
    Null,
    /// In the error pointer range (the top 4095 values).
    ErrPtr,
    /// Neither in the direct map nor in RAM.
    Wild,
    /// In a free frame.
    FreeFrame,
    /// In a freed slab object.
    FreeObject,
    /// Beyond the requested size of a slab object.
    OutOfBounds,
    /// A store to memory handed over and not yet restored.
    NotRestored,
}

impl Bad {
    /// What the kernel's checker would call it.
    pub const fn title(self) -> &'static str {
        match self {
            Bad::Null => "null-pointer-dereference",
            Bad::ErrPtr => "error-pointer-dereference",
            Bad::Wild => "wild-memory-access",
            Bad::FreeFrame | Bad::FreeObject => "use-after-free",
            Bad::OutOfBounds => "slab-out-of-bounds",
            Bad::NotRestored => "write-before-restore",
        }
    }
}
