//! A bench with guest translation: one device, one GCR3 table, one PASID with a guest page table, on host tables or not.

use super::bench::Ended;
use super::tables::{guest_open, host_device};
use super::{Bench, DEVICE, DOMAIN, IOVA, PAGE};
use iommu_model::amd::Capabilities;
use iommu_model::spec::amd::device_table::{DeviceEntryHigh, DeviceEntryLow, GUEST_PAGING_4, GUEST_PAGING_5};
use iommu_model::spec::amd::guest_table::GuestEntry;
use iommu_model::{Access, Geometry, Pa, Params, Pasid};

pub(crate) const PASID: Pasid = Pasid(0x3);

/// The bench.
#[derive(Clone)]
pub(crate) struct Guest {
    pub(crate) bench: Bench,
    /// GCR3 table and its levels.
    pub(crate) guest_root: (Pa, u8),
    /// Guest page table and its levels.
    pub(crate) root: (Pa, u8),
    /// Host page table and its levels, if nested.
    pub(crate) host: Option<(Pa, u8)>,
    /// Where the last GCR3 table entry lies.
    pub(crate) guest_root_entry: Pa,
    /// Where the guest's leaf lies.
    pub(crate) leaf: Pa,
}

/// How a bench is to be.
#[derive(Clone)]
pub(crate) struct Shape {
    pub(crate) root_levels: u8,
    pub(crate) levels: u8,
    pub(crate) host_levels: Option<u8>,
    pub(crate) params: Params,
}

impl Default for Shape {
    fn default() -> Self {
        Self { root_levels: 1, levels: 4, host_levels: None, params: Params::default() }
    }
}

/// Sizes of a unit without any cache.
pub(crate) fn uncached() -> Params {
    let off = Geometry { sets: 1, ways: 0 };
    Params { context: off, pasid: off, iotlb: off, psc: [off; 4], ..Params::default() }
}

impl Guest {
    pub(crate) fn with(shape: Shape) -> Self {
        let mut bench = Bench::with(Capabilities::default(), shape.params);
        let [guest_root, root] = [(); 2].map(|()| bench.tables.frame());
        let (guest_root, root) = ((guest_root, shape.root_levels), (root, shape.levels));
        let guest_root_entry = bench.tables.set_guest_root(&mut bench.memory, guest_root, PASID, root.0);
        let leaf = bench.tables.map_guest(&mut bench.memory, root, IOVA, PAGE, 1);
        let frames: Vec<Pa> = bench.tables.frames().collect();
        let host = shape.host_levels.map(|levels| (bench.tables.frame(), levels));
        let mut guest = Self { bench, guest_root, root, host, guest_root_entry, leaf };
        for frame in frames.into_iter().chain([PAGE]) {
            guest.map_host(frame);
        }
        guest.attach(|entry| entry);
        guest
    }

    pub(crate) fn new() -> Self {
        Self::with(Shape::default())
    }

    pub(crate) fn nested() -> Self {
        Self::with(Shape { host_levels: Some(4), ..Shape::default() })
    }

    /// Lets the host have a frame of the guest where it is. Returns where its entry lies.
    pub(crate) fn map_host(&mut self, frame: Pa) -> Option<Pa> {
        let Bench { tables, memory, .. } = &mut self.bench;
        self.host.map(|host| tables.map_host(memory, host, iommu_model::Iova(frame.0), frame, 12))
    }

    /// Writes the device table entry.
    pub(crate) fn attach(&mut self, change: impl Fn(DeviceEntryLow) -> DeviceEntryLow) {
        let low = match self.host {
            Some(host) => host_device(host, DOMAIN.0),
            None => host_device((Pa(0), 0), DOMAIN.0),
        };
        let low = change(low.with_guest_valid(true).with_guest_levels(self.guest_root.1 - 1).with_guest_root(self.guest_root.0.pfn().0));
        let paging = if self.root.1 == 5 { GUEST_PAGING_5 } else { GUEST_PAGING_4 };
        let Bench { tables, memory, .. } = &mut self.bench;
        tables.set_device(memory, DEVICE, low, DeviceEntryHigh::new().with_guest_paging(paging));
    }

    pub(crate) fn change_entry(&mut self, pa: Pa, change: impl Fn(GuestEntry) -> GuestEntry) {
        let entry = GuestEntry::from_bits(self.bench.memory.read(pa));
        self.bench.memory.write(pa, change(entry).into_bits());
    }

    /// Where the guest entry of a table of `level` lies that leads to the page.
    pub(crate) fn entry(&mut self, level: u8) -> Pa {
        self.bench.tables.guest_entry(&mut self.bench.memory, self.root, IOVA, level)
    }

    pub(crate) fn point_leaf_at(&mut self, page: Pa) {
        let entry = guest_open().with_accessed(true).with_dirty(true).with_frame(page.pfn().0);
        self.bench.memory.write(self.leaf, entry.into_bits());
    }

    pub(crate) fn read(&mut self) -> Ended {
        self.bench.access_pasid(IOVA, Access::Read, PASID)
    }

    pub(crate) fn store(&mut self) -> Ended {
        self.bench.access_pasid(IOVA, Access::Write, PASID)
    }
}
