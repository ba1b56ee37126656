//! The topology generator: what machine, how many VMs, which mappings. Boundary values first, every draw a recorded choice.

use std::rc::Rc;

use iommu_model::addr::{Bdf, Iova, Pa};
use sim::engine::{ChoiceKind, Core};
use smallvec::SmallVec;

use super::Settings;
use crate::topology::{DeviceTopology, Topology, UnitTopology};

/// One mapping of guest memory: pages of the VM's memfd at an IOVA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// First address.
    pub iova: Iova,
    /// First page of the memfd.
    pub page: u32,
    /// Number of pages.
    pub pages: u32,
    /// The device may write.
    pub writable: bool,
}

/// One virtual machine: a memfd of guest memory, and one passed-through device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmPlan {
    /// The device.
    pub bdf: Bdf,
    /// Pages of its memfd.
    pub pages: u32,
    /// What is mapped from the start.
    pub mappings: SmallVec<[Mapping; 4]>,
}

/// What a run is built from.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The machine.
    pub topo: Rc<Topology>,
    /// The VMs.
    pub vms: Vec<VmPlan>,
    /// Updates in a row.
    pub updates: u32,
}

/// Frames of the machine. Enough for two kernels' metadata and several VMs; small enough to be set up in microseconds.
const NR_FRAMES: u32 = 1024;
/// Base of the first unit's registers (typical of client chipsets).
const REGISTER_BASE: u64 = 0xfed9_0000;

fn pick<T: Copy>(core: &Core, options: &[T]) -> T {
    options[core.choose(ChoiceKind::Workload, options.len() as u32) as usize]
}

impl Plan {
    /// Pages of the VM that the host level's VMM sets up.
    pub const HOSTED_PAGES: u32 = 4;

    /// Draws a plan. `settings` fix what they name.
    pub fn draw(core: &Core, settings: &Settings) -> Plan {
        let fixed = |key: &str| settings.get(key).copied();
        let nr_devices = fixed("devices").map_or_else(|| pick(core, &[1, 1, 2]), |n| n.clamp(1, 8) as u32);
        let nr_units = if nr_devices > 1 { pick(core, &[1, 2]) } else { 1 };
        let levels = pick(core, &[4, 3, 5]);
        let root_switch_invalidates = pick(core, &[false, true]);
        let page_selective = pick(core, &[true, true, false]);
        let superpage_2m = pick(core, &[true, false]);
        let psc_entries = pick(core, &[4, 16, 0]);
        let iotlb_entries = pick(core, &[64, 4]);
        let units = (0..nr_units)
            .map(|index| UnitTopology {
                register_base: Pa(REGISTER_BASE + 0x1000 * u64::from(index)),
                levels,
                root_switch_invalidates,
                page_selective,
                iotlb_entries,
                psc_entries,
                superpage_2m,
            })
            .collect();
        let devices = (0..nr_devices)
            .map(|index| DeviceTopology { bdf: Bdf::new(index as u8 / 2, 2 + index as u8, 0), unit: (index % nr_units) as u8 })
            .collect::<Vec<_>>();
        // The hole is not aligned to a large block, so that blocks around it end at odd places.
        let hole = pick(core, &[(900, 900), (767, 771)]);
        let hole = hole.0..hole.1;
        let topo = Topology {
            nr_frames: NR_FRAMES,
            holes: if hole.is_empty() { Vec::new() } else { vec![hole] },
            firmware: 0..1,
            scratch: 4..132,
            image: 140..140 + crate::kernel::IMAGE_FRAMES,
            units,
            devices,
        };
        let vms = topo.devices.iter().map(|device| Plan::draw_vm(core, device.bdf, &fixed)).collect();
        let updates = fixed("updates").map_or(1, |n| n.clamp(1, 3) as u32);
        Plan { topo: Rc::new(topo), vms, updates }
    }

    fn draw_vm(core: &Core, bdf: Bdf, fixed: &impl Fn(&str) -> Option<u64>) -> VmPlan {
        let pages = fixed("pages").map_or_else(|| pick(core, &[1, 2, 4, 8]), |n| n.clamp(1, 256) as u32);
        let nr_mappings = fixed("mappings").map_or_else(|| pick(core, &[1, 2, 3]), |n| n.clamp(1, 64) as u32).min(pages);
        // Guest addresses start at 0; further mappings lie beside it, behind the next table border, or far up.
        let strides = [0x1_0000, 0x20_0000, 0x4000_0000];
        let stride = pick(core, &strides);
        let each = pages / nr_mappings;
        let mappings = (0..nr_mappings)
            .map(|index| Mapping {
                iova: Iova(u64::from(index) * stride),
                page: index * each,
                pages: if index + 1 == nr_mappings { pages - index * each } else { each },
                writable: true,
            })
            .collect();
        VmPlan { bdf, pages, mappings }
    }
}
