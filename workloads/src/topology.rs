//! What machine a run has: memory map, remapping units, devices. Plain data, drawn by the generator in `scenario`.

use iommu_model::addr::{Bdf, Pa};
use std::ops::Range;

/// One remapping unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitTopology {
    /// Base address of its registers: the token of its record.
    pub register_base: Pa,
    /// Levels of second-stage tables its driver uses: 3, 4 or 5.
    pub levels: u8,
    /// CAP.ESRTPS.
    pub root_switch_invalidates: bool,
    /// CAP.PSI.
    pub page_selective: bool,
    /// Entries of the IOTLB.
    pub iotlb_entries: u16,
    /// Entries of each paging-structure cache; 0 switches them off.
    pub psc_entries: u16,
    /// CAP.SSLPS: 2 MiB leaves.
    pub superpage_2m: bool,
    /// ECAP.C: table walks snoop CPU caches.
    pub coherent: bool,
}

/// One PCI device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceTopology {
    /// Requester id (segment 0).
    pub bdf: Bdf,
    /// Index of the unit it is behind.
    pub unit: u8,
}

/// The machine of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Frames of RAM, holes included.
    pub nr_frames: u32,
    /// Frames where there is no RAM.
    pub holes: Vec<Range<u32>>,
    /// Low frames kept by firmware.
    pub firmware: Range<u32>,
    /// The scratch (CMA) area.
    pub scratch: Range<u32>,
    /// Where the kernel image of the first generation lies.
    pub image: Range<u32>,
    /// The units.
    pub units: Vec<UnitTopology>,
    /// The devices.
    pub devices: Vec<DeviceTopology>,
}
