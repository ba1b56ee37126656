//! Slab over frames: objects of power-of-two slots, redzone from the requested size on, quarantine whose reuse is a choice.

use iommu_model::addr::{Pa, Pfn};

use super::Placement;
use crate::engine::{ActorId, ChoiceKind, Core};
use crate::memory::{FRAME_BYTES, Memory, ObjectState, SHARED, SlabObject, SlabPage, Tag};

/// Smallest slot in bytes.
const SLOT_BYTES_MIN: u16 = 32;
/// Largest object in bytes; larger ones come from the frame allocator.
pub const OBJECT_BYTES_MAX: u16 = 2048;

/// Slot size for an object of `bytes` bytes, as a power of two.
fn slot_log2(bytes: u16) -> u8 {
    bytes.next_power_of_two().clamp(SLOT_BYTES_MIN, OBJECT_BYTES_MAX).trailing_zeros() as u8
}

/// Finds a slot for `bytes` bytes: a free one, or a quarantined one when the policy or the placement says so. None: a new slab page is
/// needed.
pub(crate) fn take_slot(memory: &mut Memory, core: &Core, placement: Placement, bytes: u16, tag: Tag, actor: ActorId) -> Option<Pa> {
    let slot_log2 = slot_log2(bytes);
    let pages = || memory.slabs.iter().enumerate().filter(|(_, slab)| slab.slot_log2 == slot_log2);
    let is = |state: ObjectState| move |object: &SlabObject| object.state == state;
    // The first free slot, and the last quarantined one.
    let fresh = pages().find(|(_, slab)| slab.nr_free > 0);
    let fresh = fresh.and_then(|(page, slab)| Some((page, slab.slots.iter().position(is(ObjectState::Free))?)));
    let reusable = pages().rfind(|(_, slab)| slab.nr_quarantined > 0);
    let reusable = reusable.and_then(|(page, slab)| Some((page, slab.slots.iter().rposition(is(ObjectState::Quarantined))?)));
    let (page, index) = match (fresh, reusable) {
        (Some(fresh), Some(reused)) => match placement {
            Placement::Drawn => [fresh, reused][core.choose(ChoiceKind::Placement, 2) as usize],
            Placement::Reuse => reused,
            Placement::Oldest | Placement::Neighbour | Placement::Split => fresh,
        },
        (Some(fresh), None) => fresh,
        (None, Some(reused)) => reused,
        (None, None) => return None,
    };
    let slab = &mut memory.slabs[page];
    let object = &mut slab.slots[index];
    match object.state {
        ObjectState::Free => slab.nr_free -= 1,
        ObjectState::Quarantined => slab.nr_quarantined -= 1,
        ObjectState::Live => {}
    }
    *object = SlabObject {
        state: ObjectState::Live,
        private_to: actor.0,
        bytes,
        tag,
        version: object.version + 1,
        since: core.steps() as u32,
        by: actor,
    };
    let pa = Pa(u64::from(slab.pfn) * FRAME_BYTES + slab.offset_of(index));
    memory.ram.undefine(pa, 1 << slot_log2);
    Some(pa)
}

/// Makes the frame `pfn` a slab page for objects of `bytes` bytes.
pub(crate) fn add_page(memory: &mut Memory, pfn: Pfn, bytes: u16) {
    let slot_log2 = slot_log2(bytes);
    let nr_free = (FRAME_BYTES >> slot_log2) as u16;
    let empty = SlabObject { private_to: SHARED, ..SlabObject::default() };
    let slots = vec![empty; usize::from(nr_free)];
    memory.slabs.push(SlabPage { pfn: pfn.0 as u32, slot_log2, nr_free, nr_quarantined: 0, slots });
    memory.frames[pfn.0 as usize].slab = memory.slabs.len() as u16;
    memory.frames[pfn.0 as usize].private_to = SHARED;
}

/// Frees the object at `pa` into quarantine; its bytes stay as they are.
///
/// # Errors
/// `Err` with the state of what is there when it is not a live object's start.
pub(crate) fn give_slot(memory: &mut Memory, core: &Core, pa: Pa, actor: ActorId) -> Result<Tag, Option<ObjectState>> {
    let (page, index) = memory.slot_at(pa).ok_or(None)?;
    let slab = &mut memory.slabs[page];
    let start = u64::from(slab.pfn) * FRAME_BYTES + slab.offset_of(index);
    let object = &mut slab.slots[index];
    if object.state != ObjectState::Live || start != pa.0 {
        return Err(Some(object.state));
    }
    slab.nr_quarantined += 1;
    object.state = ObjectState::Quarantined;
    object.private_to = SHARED;
    object.version += 1;
    object.since = core.steps() as u32;
    object.by = actor;
    Ok(object.tag)
}
