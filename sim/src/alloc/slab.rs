//! Slab over frames: objects of power-of-two slots, redzone from the requested size on, quarantine whose reuse is a choice.

use iommu_model::addr::{Pa, Pfn};

use crate::engine::{ActorId, ChoiceKind, Core};
use crate::memory::{FRAME_BYTES, Memory, ObjectState, SHARED, SlabObject, SlabPage, Tag};

/// Smallest slot in bytes.
const SLOT_BYTES_MIN: u16 = 32;
/// Largest object in bytes; larger ones come from the frame allocator.
pub const OBJECT_BYTES_MAX: u16 = 2048;

/// Slot size for an object of `bytes` bytes.
pub(crate) fn slot_bytes(bytes: u16) -> u16 {
    bytes.next_power_of_two().clamp(SLOT_BYTES_MIN, OBJECT_BYTES_MAX)
}

/// Finds a slot for `bytes` bytes: a free one, or a quarantined one when the policy says so. None: a new slab page is needed.
pub(crate) fn take_slot(memory: &mut Memory, core: &Core, bytes: u16, tag: Tag, actor: ActorId) -> Option<Pa> {
    let slot = slot_bytes(bytes);
    let mut fresh = None;
    let mut reusable = None;
    for (page, slab) in memory.slabs.iter().enumerate().filter(|(_, slab)| slab.slot_bytes == slot) {
        for (index, object) in slab.slots.iter().enumerate() {
            match object.state {
                ObjectState::Free => fresh = fresh.or(Some((page, index))),
                ObjectState::Quarantined => reusable = Some((page, index)),
                ObjectState::Live => {}
            }
        }
    }
    let (page, index) = match (fresh, reusable) {
        (Some(fresh), Some(reused)) => [fresh, reused][core.choose(ChoiceKind::Placement, 2) as usize],
        (Some(fresh), None) => fresh,
        (None, Some(reused)) => reused,
        (None, None) => return None,
    };
    let object = &mut memory.slabs[page].slots[index];
    *object = SlabObject {
        state: ObjectState::Live,
        private_to: actor.0,
        bytes,
        tag,
        version: object.version + 1,
        since: core.steps() as u32,
        by: actor,
    };
    let pa = Pa(u64::from(memory.slabs[page].pfn) * FRAME_BYTES + index as u64 * u64::from(slot));
    memory.ram.undefine(pa, u64::from(slot));
    Some(pa)
}

/// Makes the frame `pfn` a slab page for objects of `bytes` bytes.
pub(crate) fn add_page(memory: &mut Memory, pfn: Pfn, bytes: u16) {
    let slot = slot_bytes(bytes);
    let nr = FRAME_BYTES as usize / usize::from(slot);
    let empty = SlabObject { private_to: SHARED, ..SlabObject::default() };
    memory.slabs.push(SlabPage { pfn: pfn.0 as u32, slot_bytes: slot, slots: std::iter::repeat_n(empty, nr).collect() });
    memory.frames[pfn.0 as usize].slab = memory.slabs.len() as u16;
    memory.frames[pfn.0 as usize].private_to = SHARED;
}

/// Frees the object at `pa` into quarantine; its bytes stay as they are.
///
/// # Errors
/// `Err` with the state of what is there when it is not a live object's start.
pub(crate) fn give_slot(memory: &mut Memory, core: &Core, pa: Pa, actor: ActorId) -> Result<Tag, Option<ObjectState>> {
    let (page, index) = memory.slot_at(pa).ok_or(None)?;
    let start = u64::from(memory.slabs[page].pfn) * FRAME_BYTES + index as u64 * u64::from(memory.slabs[page].slot_bytes);
    let object = &mut memory.slabs[page].slots[index];
    if object.state != ObjectState::Live || start != pa.0 {
        return Err(Some(object.state));
    }
    object.state = ObjectState::Quarantined;
    object.private_to = SHARED;
    object.version += 1;
    object.since = core.steps() as u32;
    object.by = actor;
    Ok(object.tag)
}
