//! L1: when nothing is preserved any more, tracker and metadata are what they were when nothing was preserved yet.
//!
//! Formal: at each quiet moment (no session, no call under way) of a kernel: the records of the tracker in RAM, the number of
//! allocated blocks of each metadata tag, and the number of live bookkeeping objects equal those at its first quiet moment (of the first kernel: before userspace opens anything); no
//! domain or address space is immutable, no device preserved; and every pinned folio is mapped somewhere. When userspace has closed
//! everything, the blocks and objects of every tag are as many as before it opened anything; in a later kernel, that has finished and
//! closed everything it took over, no more than the first kernel had before anything was opened.
//!
//! Why: what an abort leaves behind is lost until the next reboot, and a record left behind makes somebody else's memory
//! unusable after it. Source: facts/live-update.md 7 (L1), 10.3.
//!
//! While files are open, guest memory, page tables and slab pages vary legally and are not counted; tracker nodes and context tables
//! are never freed and may grow.
//!
//! Cannot see: a leak that the first quiet moment already has; one pin too many on a page that stays mapped. Bad twins:
//! `unpreserve-skips-folio`, `unpreserve-keeps-pins`.

use std::cell::RefCell;
use std::rc::Rc;

use iommu_model::addr::Pa;
use sim::memory::{FrameState, Memory, ObjectState, Tag};
use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};

use super::ledger::Ledger;
use super::{finding, inspect, kinds};
use crate::{tag, verb};

/// Tags of memory that holds serialized state, and nothing else.
pub(super) const METADATA: [Tag; 12] = [
    tag::LUO,
    tag::LUO_FLB,
    tag::IOMMU_FLB_SER,
    tag::IOMMU_DOMAIN_ARRAY,
    tag::IOMMU_DEVICE_ARRAY,
    tag::IOMMU_HW_ARRAY,
    tag::MEMFD_SER,
    tag::VMALLOC,
    tag::VMALLOC_CHUNK,
    tag::IOMMUFD_SER,
    tag::VFIO_SER,
    tag::TEST_FLB,
];

/// Tags of objects that exist only while something is preserved.
const OBJECTS: [Tag; 4] = [tag::LUO_SESSION, tag::LUO_FILE, tag::IOMMU_FLB_OBJ, tag::MEMFD_PRIVATE];

/// Tags whose blocks the kernel keeps for later, or carves into other things.
const KEPT: [Tag; 6] = [tag::SLAB, tag::MEMMAP, tag::KHO_RADIX, tag::VTD_CONTEXT, tag::XA_NODE, tag::OTHER];

/// Tags of what a kernel that came by live update has beside what every kernel has: the previous kernel's roots.
const BOOT: [Tag; 4] = [tag::KHO_FDT, tag::LUO, tag::LUO_FLB, tag::KERNEL_IMAGE];

/// Tags there are.
const NR_TAGS: usize = 64;

/// Blocks and live objects of every tag.
type Census = [u32; NR_TAGS];

fn census(memory: &Memory) -> Census {
    let mut census = [0; NR_TAGS];
    let mut count = |tag: Tag| {
        if !KEPT.contains(&tag)
            && let Some(count) = census.get_mut(usize::from(tag.0))
        {
            *count += 1;
        }
    };
    let heads = memory.frames.iter().enumerate().filter(|(pfn, frame)| frame.state == FrameState::Owned && frame.head as usize == *pfn);
    heads.for_each(|(_, frame)| count(frame.tag));
    let objects = memory.slabs.iter().flat_map(|slab| &slab.slots).filter(|object| object.state == ObjectState::Live);
    objects.for_each(|object| count(object.tag));
    census
}

/// What was there at a quiet moment.
#[derive(Clone, Default)]
struct Inventory {
    records: Vec<(Pa, u8)>,
    blocks: [u32; METADATA.len()],
    objects: [u32; OBJECTS.len()],
}

impl Inventory {
    fn take(&mut self, ledger: &Ledger, memory: &Memory) {
        self.records.clear();
        self.records.extend_from_slice(&ledger.tracker);
        self.blocks = [0; METADATA.len()];
        self.objects = [0; OBJECTS.len()];
        for (pfn, frame) in memory.frames.iter().enumerate() {
            // What is left of the previous kernel is L2's business.
            let counts = frame.state == FrameState::Owned && frame.head as usize == pfn && !ledger.came_over(pfn as u64, frame.version);
            if counts && let Some(at) = METADATA.iter().position(|tag| *tag == frame.tag) {
                self.blocks[at] += 1;
            }
        }
        for object in memory.slabs.iter().flat_map(|slab| &slab.slots).filter(|object| object.state == ObjectState::Live) {
            if let Some(at) = OBJECTS.iter().position(|tag| *tag == object.tag) {
                self.objects[at] += 1;
            }
        }
    }
}

/// The oracle.
pub(super) struct Quiescent {
    ledger: Rc<RefCell<Ledger>>,
    first: Option<Inventory>,
    now: Inventory,
    /// Before userspace opened anything.
    bare: Option<Census>,
    /// The same of the first kernel: what a kernel of this machine has when nothing is open.
    cold: Option<Census>,
}

impl Quiescent {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>) -> Quiescent {
        Quiescent { ledger, first: None, now: Inventory::default(), bare: None, cold: None }
    }

    /// What may not be at any quiet moment.
    fn at_rest(event: &Event, view: &View<'_>, ledger: &Ledger) -> Option<Finding> {
        if let Some(domain) = ledger.domains.iter().find(|domain| domain.ptr != 0 && (domain.immutable || domain.preserved)) {
            let what = if domain.preserved { "preserved" } else { "immutable" };
            return finding("L1", format!("domain-stays-{what}"), event, vec![format!("domain {:#x}", domain.ptr)]);
        }
        if let Some(device) = ledger.devices.iter().find(|device| device.preserved) {
            return finding("L1", "device-stays-preserved", event, vec![format!("device {}", device.bdf)]);
        }
        let pfn = ledger.pinned_but_not_mapped(view.memory)?;
        finding("L1", "pin-left-behind", event, vec![inspect::describe(view.memory, Pa(pfn << 12))])
    }

    fn closed(&mut self, event: &Event, view: &View<'_>) -> Option<Finding> {
        let now = census(view.memory);
        if self.ledger.borrow().era > 0 {
            return self.closed_later(event, &now);
        }
        let ledger = self.ledger.borrow();
        // Setting virtual machines up preserves nothing: whatever is preserved later is compared with this.
        if self.first.is_none() && ledger.era == 0 && ledger.tracker_error.is_none() {
            let mut first = Inventory::default();
            first.take(&ledger, view.memory);
            self.first = Some(first);
        }
        drop(ledger);
        let Some(bare) = &self.bare else {
            self.cold = Some(now);
            self.bare = Some(now);
            return None;
        };
        // A close that cannot give a device its old domain back leaves it blocked: then less is there than before.
        let excused = |tag: usize| now[tag] < bare[tag] && self.ledger.borrow().injected_here > 0;
        let tag = (0..NR_TAGS).find(|&tag| now[tag] != bare[tag] && !excused(tag))?;
        let title = if now[tag] > bare[tag] { "left-behind-by-the-last-close" } else { "lost-by-the-last-close" };
        let name = tag::name(Tag(tag as u16));
        let mut details = vec![format!("{name}: {} before anything was opened, {} after everything was closed", bare[tag], now[tag])];
        details.extend(inspect::newest(view.memory, Tag(tag as u16)));
        finding("L1", format!("{title}: {name}"), event, details)
    }

    /// A later kernel took everything over, finished it, and closed it: no more is open than in the first kernel before anything was.
    fn closed_later(&self, event: &Event, now: &Census) -> Option<Finding> {
        let cold = self.cold.as_ref()?;
        let tag = (0..NR_TAGS).find(|&tag| now[tag] > cold[tag] && !BOOT.contains(&Tag(tag as u16)))?;
        let name = tag::name(Tag(tag as u16));
        let details = vec![format!("{name}: {} in a kernel where nothing was opened, {} after everything was closed", cold[tag], now[tag])];
        finding("L1", format!("left-behind-by-the-last-close: {name}"), event, details)
    }

    fn compare(event: &Event, view: &View<'_>, first: &Inventory, now: &Inventory) -> Option<Finding> {
        let describe = |(pa, order): &(Pa, u8)| vec![format!("record pa {:#x} order {order}", pa.0), inspect::describe(view.memory, *pa)];
        if let Some(record) = now.records.iter().find(|record| first.records.binary_search(record).is_err()) {
            return finding("L1", "tracker-record-left-behind", event, describe(record));
        }
        if let Some(record) = first.records.iter().find(|record| now.records.binary_search(record).is_err()) {
            return finding("L1", "tracker-record-lost", event, describe(record));
        }
        let blocks = METADATA.iter().zip(first.blocks.iter().zip(&now.blocks)).map(|(tag, counts)| ("folio", *tag, counts));
        let objects = OBJECTS.iter().zip(first.objects.iter().zip(&now.objects)).map(|(tag, counts)| ("object", *tag, counts));
        let (kind, tag, (before, after)) = blocks.chain(objects).find(|(_, _, (before, after))| before != after)?;
        let title = if after > before { "left-behind" } else { "lost" };
        let mut details = vec![format!("{}: {before} at the first quiet moment of this kernel, {after} now", tag::name(tag))];
        if after > before {
            details.extend(inspect::newest(view.memory, tag));
        }
        finding("L1", format!("{kind}-{title}: {}", tag::name(tag)), event, details)
    }
}

impl Oracle for Quiescent {
    fn name(&self) -> &'static str {
        "L1"
    }

    fn interests(&self) -> u32 {
        kinds::NOTE | kinds::JUMPED
    }

    fn verbs(&self) -> u64 {
        kinds::verbs(&[verb::QUIESCENT])
    }

    fn on_event(&mut self, event: &Event, view: &View<'_>) -> Option<Finding> {
        match event.kind {
            EventKind::Jumped { .. } => {
                self.first = None;
                self.bare = None;
                None
            }
            EventKind::Note { verb: verb::QUIESCENT, args } if args[1] != 0 => self.closed(event, view),
            EventKind::Note { verb: verb::QUIESCENT, .. } => {
                let ledger = self.ledger.borrow();
                if let Some(found) = Self::at_rest(event, view, &ledger) {
                    return Some(found);
                }
                if ledger.tracker_error.is_some() {
                    return None;
                }
                self.now.take(&ledger, view.memory);
                match &self.first {
                    Some(first) => Self::compare(event, view, first, &self.now),
                    None => {
                        self.first = Some(self.now.clone());
                        None
                    }
                }
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;

    fn quiet(bench: &mut Bench, records: &[(Pa, u8)]) -> Option<Finding> {
        let fdt = bench.write_tracker(records);
        bench.note(verb::QUIESCENT, [fdt.0, 0, 0, 0])
    }

    // Goal: a record more, a record less, a folio more are each found; the same again is fine.
    #[test]
    fn a_cycle_leaves_nothing_behind() {
        let mut bench = Bench::new().judge_with(|ledger| Box::new(Quiescent::new(ledger)));
        let records = [(Pa(0x60_000), 0), (Pa(0x62_000), 1)];
        assert_eq!(quiet(&mut bench, &records), None);
        assert_eq!(quiet(&mut bench, &records), None);
        assert_eq!(quiet(&mut bench, &records[..1]).expect("one less").title, "tracker-record-lost");
        let more = [records[0], records[1], (Pa(0x66_000), 0)];
        assert_eq!(quiet(&mut bench, &more).expect("one more").title, "tracker-record-left-behind");
        bench.set_frame(Pa(0x70_000), FrameState::Owned, tag::MEMFD_SER);
        assert_eq!(quiet(&mut bench, &records).expect("folio").title, "folio-left-behind: memfd_luo_ser");
    }

    // Goal: a later kernel that closed everything it took over has no more than the first one had before anything was opened.
    #[test]
    fn a_later_kernel_leaves_nothing_behind_either() {
        const CLOSED: [u64; 4] = [0, 1, 0, 0];
        let mut bench = Bench::new().judge_with(|ledger| Box::new(Quiescent::new(ledger)));
        bench.write_tracker(&[]);
        assert_eq!(bench.note(verb::QUIESCENT, CLOSED), None);
        bench.jump(&[]);
        bench.set_frame(Pa(0x70_000), FrameState::Owned, tag::LUO);
        bench.set_frame(Pa(0x71_000), FrameState::Free, tag::MEMFD_FOLIO);
        assert_eq!(bench.note(verb::QUIESCENT, CLOSED), None, "the previous kernel's roots stay");
        bench.set_frame(Pa(0x72_000), FrameState::Owned, tag::IOMMUFD_SER);
        let found = bench.note(verb::QUIESCENT, CLOSED).expect("a header more");
        assert_eq!(found.title, "left-behind-by-the-last-close: iommufd_ser");
    }

    // Goal: guest memory and page tables may come and go.
    #[test]
    fn guest_memory_is_not_counted() {
        let mut bench = Bench::new().judge_with(|ledger| Box::new(Quiescent::new(ledger)));
        assert_eq!(quiet(&mut bench, &[]), None);
        bench.set_frame(Pa(0x70_000), FrameState::Owned, tag::MEMFD_FOLIO);
        bench.set_frame(Pa(0x71_000), FrameState::Owned, tag::IOMMU_TABLE);
        assert_eq!(quiet(&mut bench, &[]), None);
    }
}
