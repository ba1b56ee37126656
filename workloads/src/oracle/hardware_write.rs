//! hardware-write: every hardware write hits memory that whoever programmed its address still owns.
//!
//! Formal: when software moves a queue's tail past a wait descriptor with a status write, the version of the memory at the
//! status address is remembered; the write must find that version, allocated, in the same generation. After a jump it may hit
//! only memory that was handed over, or a status page of the running kernel. Every DMA write hits memory that is not free.
//!
//! Why: a status word written after its page was freed is four bytes in somebody else's object; a queue that is on at the jump
//! still writes. Source: facts/iommu-hardware.md 2.2; facts/live-update.md 4.8 ("not preserved"), design.md 6.
//!
//! Cannot see: fault and interrupt messages; accessed and dirty bits (legacy mode writes none). Bad twin: `queue-freed`.

use std::cell::RefCell;
use std::rc::Rc;

use iommu_model::addr::Pa;
use iommu_model::spec::vtd::descriptor::{AnyDescriptor, DESCRIPTOR_BYTES, STATUS_ADDRESS_UNIT, TYPE_WAIT, WaitDescriptor};
use iommu_model::spec::vtd::register::{OFFSET_IQA, OFFSET_IQT, QUEUE_SHIFT, QueueAddress, QueueIndex};
use iommu_model::vtd::{Register, Unit};
use sim::memory::{FrameState, Memory, ObjectState, Tag};
use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};

use super::ledger::Ledger;
use super::{finding, inspect, kinds};
use crate::tag;
use crate::topology::Topology;

/// Status addresses remembered a unit; addresses that collide replace each other, and are then judged less strictly.
const SLOTS: usize = 1024;

/// The memory a status address was programmed for.
#[derive(Clone, Copy, Default)]
struct Programmed {
    pa: Pa,
    version: u32,
    object: Option<u32>,
    era: u8,
}

/// One unit's queue.
struct Queue {
    tail: u16,
    programmed: Vec<Programmed>,
}

/// The oracle.
pub(super) struct HardwareWrite {
    ledger: Rc<RefCell<Ledger>>,
    queues: Vec<Queue>,
}

/// Version of the frame, and of the live object in it, at an address; what it holds.
fn owner_at(memory: &Memory, pa: Pa) -> Option<(u32, Option<u32>, Tag)> {
    let frame = memory.frame(pa)?;
    match memory.slot_at(pa) {
        Some((page, slot)) => {
            let object = &memory.slabs[page].slots[slot];
            (object.state == ObjectState::Live).then_some((frame.version, Some(object.version), object.tag))
        }
        None => Some((frame.version, None, frame.tag)),
    }
}

const fn slot_of(pa: Pa) -> usize {
    (pa.0 >> 2) as usize % SLOTS
}

impl HardwareWrite {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>, topo: &Topology) -> HardwareWrite {
        let queue = || Queue { tail: 0, programmed: vec![Programmed::default(); SLOTS] };
        HardwareWrite { ledger, queues: topo.units.iter().map(|_| queue()).collect() }
    }

    /// Remembers what the descriptors up to the new tail name as status addresses.
    fn program(queue: &mut Queue, unit: &Unit, view: &View<'_>, era: u8) {
        let base = QueueAddress::from_bits(unit.read_register(Register::Iqa));
        let tail = QueueIndex::from_bits(unit.read_register(Register::Iqt)).index();
        let mask = (1u32 << (QUEUE_SHIFT + u32::from(base.size()))) - 1;
        if u32::from(tail) > mask {
            return;
        }
        let mut at = queue.tail & mask as u16;
        while at != tail {
            let pa = Pa((base.base() << 12) + u64::from(at) * DESCRIPTOR_BYTES);
            at = ((u32::from(at) + 1) & mask) as u16;
            let (Some(low), Some(high)) = (inspect::word(view.memory, pa), inspect::word(view.memory, Pa(pa.0 + 8))) else { continue };
            let bits = u128::from(low) | u128::from(high) << 64;
            let wait = WaitDescriptor::from_bits(bits);
            if AnyDescriptor::from_bits(bits).kind() != TYPE_WAIT || !wait.status_write() {
                continue;
            }
            let pa = Pa(wait.address() * STATUS_ADDRESS_UNIT);
            let (version, object, _) = owner_at(view.memory, pa).unwrap_or((u32::MAX, None, Tag(0)));
            queue.programmed[slot_of(pa)] = Programmed { pa, version, object, era };
        }
        queue.tail = tail;
    }

    fn status(&self, event: &Event, view: &View<'_>, unit: usize, pa: Pa) -> Option<Finding> {
        let details =
            |why: String| vec![format!("iommu{unit} writes a wait status at pa {:#x}", pa.0), why, inspect::describe(view.memory, pa)];
        let Some(frame) = view.memory.frame(pa) else {
            return finding("hardware-write", "status-write-outside-memory", event, details("no memory is there".to_owned()));
        };
        let owner = owner_at(view.memory, pa);
        let own_status =
            frame.state == FrameState::Owned && frame.era == event.era && owner.is_some_and(|owner| owner.2 == tag::VTD_STATUS);
        let programmed = self.queues.get(unit)?.programmed[slot_of(pa)];
        if programmed.pa != pa || programmed.pa == Pa(0) {
            return if own_status || frame.state == FrameState::HandedOver || frame.state == FrameState::Reserved {
                None
            } else {
                finding("hardware-write", "status-write-nobody-asked-for", event, details("no descriptor named this address".to_owned()))
            };
        }
        if programmed.era == event.era {
            let allocated = matches!(frame.state, FrameState::Owned | FrameState::Reserved);
            let same = owner.is_some_and(|(version, object, _)| (version, object) == (programmed.version, programmed.object));
            if allocated && same {
                return None;
            }
            return finding(
                "hardware-write",
                "status-write-into-freed-memory",
                event,
                details("freed since its address was programmed".to_owned()),
            );
        }
        // Right after the jump nothing has an owner yet; memory counts as reserved until the tracker was read.
        if own_status || matches!(frame.state, FrameState::HandedOver | FrameState::Reserved) {
            return None;
        }
        let why = format!("programmed by generation {}, which is gone", programmed.era);
        finding("hardware-write", "status-write-after-the-jump", event, details(why))
    }

    fn landed(&self, event: &Event, view: &View<'_>, pa: Pa) -> Option<Finding> {
        let frame = view.memory.frame(pa).filter(|frame| frame.state == FrameState::Free)?;
        let ledger = self.ledger.borrow();
        let (at, request) = ledger.completed.as_ref().filter(|(_, request)| !request.exempt)?;
        let details = vec![
            format!(
                "device {} writes to pa {:#x} through iova {:#x}; the frame held {}",
                ledger.devices[*at].bdf,
                pa.0,
                request.iova.0,
                tag::name(frame.tag)
            ),
            inspect::describe(view.memory, pa),
        ];
        // What was never mapped is I3's finding.
        let legal = request.legal_frames().any(|pfn| pfn == pa.0 >> 12);
        legal.then(|| finding("hardware-write", "dma-write-into-freed-memory", event, details)).flatten()
    }
}

impl Oracle for HardwareWrite {
    fn name(&self) -> &'static str {
        "hardware-write"
    }

    fn interests(&self) -> u32 {
        kinds::REGISTER_WRITTEN | kinds::STATUS_WRITTEN | kinds::DMA_LANDED
    }

    fn on_event(&mut self, event: &Event, view: &View<'_>) -> Option<Finding> {
        match event.kind {
            EventKind::RegisterWritten { unit, offset, .. } => {
                let (queue, slot) = (self.queues.get_mut(usize::from(unit.0))?, view.fabric.units().get(usize::from(unit.0))?);
                if u64::from(offset) == OFFSET_IQT {
                    Self::program(queue, &slot.unit.borrow(), view, event.era);
                } else if u64::from(offset) == OFFSET_IQA {
                    queue.tail = 0;
                }
                None
            }
            EventKind::StatusWritten { unit, pa, .. } => self.status(event, view, usize::from(unit.0), pa),
            EventKind::DmaLanded { pa, .. } => self.landed(event, view, pa),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use sim::trace::UnitId;

    const QUEUE: Pa = Pa(0x60_000);
    const STATUS: Pa = Pa(0x61_008);

    fn bench() -> Bench {
        let bench = Bench::new();
        let topo = bench.topo.clone();
        let mut bench = bench.judge_with(|ledger| Box::new(HardwareWrite::new(ledger, &topo)));
        bench.set_frame(QUEUE, FrameState::Owned, tag::VTD_QUEUE);
        bench.set_frame(STATUS, FrameState::Owned, tag::VTD_STATUS);
        bench.register(Register::Iqa, QUEUE.0);
        let wait = WaitDescriptor::new().with_kind(TYPE_WAIT).with_status_write(true).with_address(STATUS.0 / 4).with_data(2);
        bench.memory.ram.store(Pa(QUEUE.0 + 16), 8, wait.into_bits() as u64);
        bench.memory.ram.store(Pa(QUEUE.0 + 24), 8, (wait.into_bits() >> 64) as u64);
        bench.register(Register::Iqt, 2 << 4);
        bench
    }

    fn write(bench: &mut Bench, pa: Pa) -> Option<String> {
        bench.feed(EventKind::StatusWritten { unit: UnitId(0), pa, data: 2 }).map(|found| found.title)
    }

    // Goal: the status write finds the memory its address was programmed for.
    #[test]
    fn a_status_write_needs_the_memory_it_was_programmed_for() {
        let mut bench = bench();
        assert_eq!(write(&mut bench, STATUS), None);
        bench.memory.frames[0x61].version += 2;
        assert_eq!(write(&mut bench, STATUS).as_deref(), Some("status-write-into-freed-memory"));
        bench.set_frame(Pa(0x62_000), FrameState::Owned, tag::OTHER);
        assert_eq!(write(&mut bench, Pa(0x62_000)).as_deref(), Some("status-write-nobody-asked-for"));
    }

    // Goal: after the jump it may hit what was handed over and what is reserved, not what is free or anybody's.
    #[test]
    fn a_status_write_after_the_jump_needs_a_home() {
        for (state, bad) in [(FrameState::HandedOver, false), (FrameState::Reserved, false), (FrameState::Free, true)] {
            let mut bench = bench();
            bench.jump(&[]);
            bench.set_frame(STATUS, state, tag::VTD_STATUS);
            let found = write(&mut bench, STATUS);
            assert_eq!(found.as_deref(), bad.then_some("status-write-after-the-jump"));
        }
    }

    // Goal: a write through a valid mapping to a frame that was freed is found.
    #[test]
    fn a_write_into_a_freed_frame_is_found() {
        let mut bench = bench();
        bench.attach(0x1000_0000, 5);
        bench.map(0x1000_0000, 0x1000, 0x40_000, 4096);
        assert_eq!(bench.dma(0x1000, true, 0x40_000), None);
        bench.set_frame(Pa(0x40_000), FrameState::Free, tag::MEMFD_FOLIO);
        assert_eq!(bench.dma(0x1000, true, 0x40_000).expect("freed").title, "dma-write-into-freed-memory");
    }
}
