//! The topology generator: what machine, how many VMs, which mappings. Boundary values first, every draw a recorded choice.

use std::rc::Rc;

use iommu_model::addr::{Bdf, Iova, Pa};
use sim::engine::{ChoiceKind, Core};
use smallvec::SmallVec;

use super::{Settings, Weights};
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

/// One virtual machine: a memfd of guest memory, one address space, and the devices passed through to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmPlan {
    /// The devices; at least one.
    pub devices: SmallVec<[Bdf; 2]>,
    /// Each device walks tables of its own over the one address space; else all walk the same.
    pub own_tables: bool,
    /// Pages of its memfd.
    pub pages: u32,
    /// Where its guest maps most: the border of a table.
    pub border: Iova,
    /// The memfd begins with a huge page.
    pub huge: bool,
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
    /// The first reboot fails after it has serialised (assumed: see `kernel/kexec.rs`).
    pub kexec_fails: bool,
    /// Objects in an array page of the IOMMU FLB and entries in a `kho_block`, where lowered so that both grow after few objects. A narrowing
    /// point.
    pub slots: Option<u64>,
}

/// Frames of the machine. Enough for two kernels' metadata and several VMs; small enough to be set up in microseconds.
const NR_FRAMES: u32 = 1024;
/// Frames of a machine that has VMs with huge pages.
const NR_FRAMES_HUGE: u32 = 4096;
/// Most VMs with a huge page in one machine.
const HUGE_VMS_MAX: usize = 3;
/// Base of the first unit's registers (typical of client chipsets).
const REGISTER_BASE: u64 = 0xfed9_0000;

/// A share of `weight` in `weight + others`, in 1/1024.
fn share(weight: u8, others: u32) -> u32 {
    u32::from(weight) * 1024 / (u32::from(weight) + others)
}

fn pick<T: Copy>(core: &Core, options: &[T]) -> T {
    options[core.choose(ChoiceKind::Workload, options.len() as u32) as usize]
}

impl Plan {
    /// Pages of the VM that the host level's VMM sets up.
    pub const HOSTED_PAGES: u32 = 4;

    /// Addresses behind a border of tables, beside where guest memory begins.
    pub const BORDERS: [u64; 4] = [0x20_0000, 0x4000_0000, 0x5_0000, 0x8020_0000];
    /// Pages of a huge page.
    pub const HUGE_PAGES: u32 = 512;

    /// Draws a plan by a scenario's weights. `settings` fix what they name.
    pub fn draw(core: &Core, weights: &Weights, settings: &Settings) -> Plan {
        let fixed = |key: &str| settings.get(key).copied();
        let nr_devices = fixed("devices").map_or_else(|| pick(core, &[1, 1, 1, 2, 2, 3]), |n| n.clamp(1, 8) as u32);
        let nr_units = if nr_devices > 1 { pick(core, &[1, 2]) } else { 1 };
        let levels = pick(core, &[4, 3, 5]);
        let root_switch_invalidates = pick(core, &[false, true]);
        let page_selective = pick(core, &[true, true, false]);
        let superpage_2m = pick(core, &[true, false]);
        let psc_entries = pick(core, &[4, 16, 0]);
        let iotlb_entries = pick(core, &[64, 4]);
        // Not drawn: a machine whose walkers do not snoop is asked for.
        let coherent = fixed("coherent-walker") != Some(0);
        let units = (0..nr_units)
            .map(|index| UnitTopology {
                register_base: Pa(REGISTER_BASE + 0x1000 * u64::from(index)),
                levels,
                root_switch_invalidates,
                page_selective,
                iotlb_entries,
                psc_entries,
                superpage_2m,
                coherent,
            })
            .collect();
        let devices = (0..nr_devices)
            .map(|index| DeviceTopology { bdf: Bdf::new(index as u8 / 2, 2 + index as u8, 0), unit: (index % nr_units) as u8 })
            .collect::<Vec<_>>();
        // The hole is not aligned to a large block, so that blocks around it end at odd places.
        let hole = pick(core, &[(900, 900), (767, 771)]);
        let hole = hole.0..hole.1;
        // A VM has one device, or the devices of a machine go to VMs in pairs (or as asked).
        let per_vm = match fixed("devices-per-vm") {
            Some(n) => n.clamp(1, 8) as usize,
            None if nr_devices > 1 => pick(core, &[1, 2]),
            None => 1,
        };
        let bdfs: Vec<Bdf> = devices.iter().map(|device| device.bdf).collect();
        let mut vms: Vec<VmPlan> = bdfs.chunks(per_vm).map(|devices| Plan::draw_vm(core, devices, weights, &fixed)).collect();
        for vm in vms.iter_mut().filter(|vm| vm.huge).skip(HUGE_VMS_MAX) {
            vm.huge = false;
        }
        let huge = vms.iter().any(|vm| vm.huge);
        // A larger machine needs more room for its page descriptors, which an incoming kernel has in scratch.
        let scratch = if huge { 4..260 } else { 4..132 };
        let image = scratch.end + 8;
        let topo = Topology {
            nr_frames: if huge { NR_FRAMES_HUGE } else { NR_FRAMES },
            holes: if hole.is_empty() { Vec::new() } else { vec![hole] },
            firmware: 0..1,
            scratch,
            image: image..image + crate::kernel::IMAGE_FRAMES,
            units,
            devices,
        };
        let more = weights.reuse > 0 && weights.finish > 0 && core.odds(ChoiceKind::Workload, share(weights.reuse, 4));
        let updates = fixed("updates").map_or_else(|| if more { pick(core, &[2, 3]) } else { 1 }, |n| n.clamp(1, 3) as u32);
        let slots = fixed("slots").unwrap_or_else(|| pick(core, &[0, 0, 1, 2, 3]));
        let kexec_fails = weights.abort > 0 && core.odds(ChoiceKind::Workload, share(weights.abort, 28));
        Plan { topo: Rc::new(topo), vms, updates, kexec_fails, slots: (slots > 0).then_some(slots) }
    }

    fn draw_vm(core: &Core, devices: &[Bdf], weights: &Weights, fixed: &impl Fn(&str) -> Option<u64>) -> VmPlan {
        let huge = weights.huge > 0 && core.odds(ChoiceKind::Workload, share(weights.huge, 31));
        let huge = fixed("huge").map_or(huge, |n| n > 0);
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
        let border = Iova(pick(core, &Plan::BORDERS));
        let own_tables = devices.len() > 1 && pick(core, &[false, true]);
        VmPlan { devices: SmallVec::from_slice(devices), own_tables, pages, border, huge, mappings }
    }
}
