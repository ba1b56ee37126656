//! Bits of the kinds of events, for interest masks; and of the words of the workload.

use iommu_model::addr::{Iova, Pa, Pfn};
use sim::memory::Tag;
use sim::trace::{DeviceId, EventKind, Flavor, UnitId, Verb};

const NO_DEVICE: DeviceId = DeviceId(0);
const NOWHERE: Pa = Pa(0);

/// A CPU stored.
pub(super) const STORE: u32 = EventKind::Store { pa: NOWHERE, bytes: 0, old: 0, new: 0, flavor: Flavor::Plain }.bit();
/// Frames were handed out.
pub(super) const FRAMES_TAKEN: u32 = EventKind::FramesTaken { pfn: Pfn(0), order: 0, tag: Tag(0) }.bit();
/// Frames went back.
pub(super) const FRAMES_FREED: u32 = EventKind::FramesFreed { pfn: Pfn(0), order: 0, tag: Tag(0) }.bit();
/// A slab object was handed out.
pub(super) const OBJECT_TAKEN: u32 = EventKind::ObjectTaken { pa: NOWHERE, bytes: 0, tag: Tag(0) }.bit();
/// A slab object went back.
pub(super) const OBJECT_FREED: u32 = EventKind::ObjectFreed { pa: NOWHERE, tag: Tag(0) }.bit();
/// A call was made to fail.
pub(super) const INJECTED: u32 = EventKind::Injected { kind: sim::engine::ChoiceKind::AllocFails, class: 0 }.bit();
/// A register of a unit was written.
pub(super) const REGISTER_WRITTEN: u32 = EventKind::RegisterWritten { unit: UnitId(0), offset: 0, value: 0 }.bit();
/// A unit fetched.
pub(super) const FETCHED: u32 = EventKind::Fetched { unit: UnitId(0), device: None, pa: NOWHERE, bytes: 0, value: 0 }.bit();
/// A request was issued.
pub(super) const DMA_ISSUED: u32 = EventKind::DmaIssued { device: NO_DEVICE, serial: 0, iova: Iova(0), write: false }.bit();
/// A request was translated.
pub(super) const DMA_TRANSLATED: u32 =
    EventKind::DmaTranslated { device: NO_DEVICE, serial: 0, iova: Iova(0), pa: NOWHERE, domain: None, cached: false }.bit();
/// A request faulted.
pub(super) const DMA_FAULTED: u32 = EventKind::DmaFaulted { device: NO_DEVICE, serial: 0, iova: Iova(0), reason: 0, write: false }.bit();
/// A write landed.
pub(super) const DMA_LANDED: u32 = EventKind::DmaLanded { device: NO_DEVICE, serial: 0, iova: Iova(0), pa: NOWHERE, old: 0, new: 0 }.bit();
/// A read returned.
pub(super) const DMA_READ: u32 = EventKind::DmaRead { device: NO_DEVICE, serial: 0, iova: Iova(0), pa: NOWHERE, value: 0 }.bit();
/// A request left the memory map.
pub(super) const DMA_LOST: u32 = EventKind::DmaLost { device: NO_DEVICE, serial: 0, pa: NOWHERE, write: false }.bit();
/// All of DMA.
pub(super) const DMA: u32 = DMA_ISSUED | DMA_TRANSLATED | DMA_FAULTED | DMA_LANDED | DMA_READ | DMA_LOST;
/// A wait status was written.
pub(super) const STATUS_WRITTEN: u32 = EventKind::StatusWritten { unit: UnitId(0), pa: NOWHERE, data: 0 }.bit();
/// A generation ended.
pub(super) const JUMPED: u32 = EventKind::Jumped { era: 0 }.bit();
/// The union of the bits of the given words, for [`Oracle::verbs`](sim::oracle::Oracle::verbs).
pub(super) const fn verbs(list: &[Verb]) -> u64 {
    let mut mask = 0;
    let mut i = 0;
    while i < list.len() {
        mask |= list[i].bit();
        i += 1;
    }
    mask
}

/// A word of the workload.
pub(super) const NOTE: u32 = EventKind::Note { verb: Verb(0), args: [0; 4] }.bit();
