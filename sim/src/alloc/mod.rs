//! Allocators of the machine: frames in blocks, and slab objects over them. Any call can be made to fail.

mod frames;
pub(crate) mod slab;

pub use frames::{FrameAllocator, MAX_ORDER, Placement, Zone};
pub use slab::OBJECT_BYTES_MAX;
