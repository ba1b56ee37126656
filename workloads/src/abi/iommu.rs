//! `include/linux/kho/abi/iommu.h`: what the IOMMU core hands over, by revision of the series.
//!
//! All structures are packed. [`IOMMU_V2`] is "[PATCH v2 00/16]" (2026-04-27): the header is a counter and one byte of bitfields,
//! five bytes together, so that every later member is misaligned. [`IOMMU_TIP`] is the author's branch of August 2026.
//!
//! Assumed, because the final form of v2 was not to be had:
//! - `iommu_device_ser` is that of v2 patch 02 (37 bytes). The scalable-mode members of patch 10 are left out: the model is legacy mode.
//! - `iommu_hw_ser` is that of v2 patch 02 (21 bytes), followed by the VT-d members in the order of tip without `restored`.

use sim::memory::Field;

use super::{AbiField, AbiStruct, member};
use crate::revision::Iommu;

/// Bytes of a page of an object array.
pub const ARRAY_PAGE_BYTES: u16 = 4096;
/// `hdr` flag: the object was removed, or making it failed.
pub const DELETED: u32 = 1 << 0;
/// `hdr` flag: the incoming kernel has matched the object.
pub const INCOMING: u32 = 1 << 1;
/// `iommu_hw_ser.type` of a VT-d unit.
pub const HW_TYPE_INTEL: u64 = 1;
/// `iommu_flb_ser.version` of tip.
pub const FLB_VERSION: u64 = 1;
/// Words of `intel.context_tables_bitmap`: one bit per bus half, bit = bus * 2 + (devfn >= 0x80).
pub const CONTEXT_BITMAP_WORDS: u16 = 8;

/// `struct iommu_array_hdr_ser`, in front of each page of an object array, both revisions.
pub const ARRAY_HDR: AbiStruct =
    AbiStruct { name: "iommu_array_hdr_ser", bytes: 16, fields: &[member("next_array_phys", 0, 8), member("nr_objects", 8, 8)] };
/// `next_array_phys`: 0 in the last page.
pub const ARRAY_NEXT: Field<u64> = ARRAY_HDR.field("next_array_phys");
/// `nr_objects`: slots used in this page, deleted ones included.
pub const ARRAY_NR_OBJECTS: Field<u64> = ARRAY_HDR.field("nr_objects");

const DOMAIN_V2: &[AbiField] = &[
    member("hdr.ref_count", 0, 4),
    member("hdr.flags", 4, 1),
    member("top_table_phys", 5, 8),
    member("top_level", 13, 8),
    member("vasz", 21, 4),
    member("sign_extend", 25, 1),
    member("restored_domain", 26, 8),
];
const DOMAIN_TIP: &[AbiField] = &[
    member("hdr.ref_count", 0, 4),
    member("hdr.flags", 4, 4),
    member("top_table_phys", 8, 8),
    member("top_level", 16, 8),
    member("vasz", 24, 4),
    member("sign_extend", 28, 1),
    member("restored_domain", 32, 8),
];
const DEVICE_V2: &[AbiField] = &[
    member("hdr.ref_count", 0, 4),
    member("hdr.flags", 4, 1),
    member("devid", 5, 4),
    member("pci_domain_nr", 9, 4),
    member("map.attachment_id", 13, 8),
    member("map.domain_phys", 21, 8),
    member("map.iommu_phys", 29, 8),
];
const DEVICE_TIP: &[AbiField] = &[
    member("hdr.ref_count", 0, 4),
    member("hdr.flags", 4, 4),
    member("devid", 8, 4),
    member("pci_domain_nr", 12, 4),
    member("dma_owner_token", 16, 8),
    member("map.attachment_id", 24, 8),
    member("map.domain_phys", 32, 8),
    member("map.iommu_phys", 40, 8),
    member("intel.restored", 48, 1),
    member("intel.pasid_table", 56, 8),
    member("intel.max_pasid", 64, 8),
];
const HW_V2: &[AbiField] = &[
    member("hdr.ref_count", 0, 4),
    member("hdr.flags", 4, 1),
    member("token", 5, 8),
    member("type", 13, 8),
    member("intel.phys_addr", 21, 8),
    member("intel.root_table", 29, 8),
    member("intel.context_tables_bitmap", 37, 64),
];
const HW_TIP: &[AbiField] = &[
    member("hdr.ref_count", 0, 4),
    member("hdr.flags", 4, 4),
    member("token", 8, 8),
    member("type", 16, 8),
    member("intel.restored", 24, 1),
    member("intel.phys_addr", 32, 8),
    member("intel.root_table", 40, 8),
    member("intel.context_tables_bitmap", 48, 64),
];
const FLB_V2: &[AbiField] =
    &[member("iommu_array_phys", 0, 8), member("iommu_domain_array_phys", 8, 8), member("device_array_phys", 16, 8)];
const FLB_TIP: &[AbiField] = &[
    member("version", 0, 8),
    member("iommu_array_phys", 8, 8),
    member("iommu_domain_array_phys", 16, 8),
    member("device_array_phys", 24, 8),
];

/// Kind of a kernel pointer to a `struct iommu_hdr_ser` or to the object it begins.
#[derive(Clone, Copy, Debug)]
pub struct HdrSer;
/// Kind of a kernel pointer to a page of an object array.
#[derive(Clone, Copy, Debug)]
pub struct ArrayPage;
/// Kind of a kernel pointer to a `struct iommu_domain_ser`.
#[derive(Clone, Copy, Debug)]
pub struct DomainSer;
/// Kind of a kernel pointer to a `struct iommu_device_ser`.
#[derive(Clone, Copy, Debug)]
pub struct DeviceSer;
/// Kind of a kernel pointer to a `struct iommu_hw_ser`.
#[derive(Clone, Copy, Debug)]
pub struct HwSer;
/// Kind of a kernel pointer to a `struct iommu_flb_ser`.
#[derive(Clone, Copy, Debug)]
pub struct FlbSer;

/// `struct iommu_hdr_ser`: first member of every object.
#[derive(Clone, Copy, Debug)]
pub struct HdrAbi {
    /// Users of the object.
    pub ref_count: Field<u32>,
    /// [`DELETED`], [`INCOMING`]. Only [`HdrAbi::flags_bytes`] bytes wide.
    pub flags: Field<u32>,
    /// 1 for the bitfields of v2, 4 for the word of tip.
    pub flags_bytes: u16,
}

/// `struct iommu_domain_ser`.
#[derive(Clone, Copy, Debug)]
pub struct DomainAbi {
    /// For the decoder.
    pub layout: AbiStruct,
    /// Objects per array page.
    pub per_page: u64,
    /// Physical address of the top table.
    pub top_table_phys: Field<u64>,
    /// Level of the top table, leaf tables are level 0.
    pub top_level: Field<u64>,
    /// log2 of the size of the address space.
    pub vasz: Field<u32>,
    /// Upper half of the address space is used, too. One bit in v2.
    pub sign_extend: Field<u8>,
    /// Pointer to the restored domain; means something in the incoming kernel only.
    pub restored_domain: Field<u64>,
}

/// `struct iommu_device_ser`, with the members of `struct iommu_dev_map_ser` in it.
#[derive(Clone, Copy, Debug)]
pub struct DeviceAbi {
    /// For the decoder.
    pub layout: AbiStruct,
    /// Objects per array page.
    pub per_page: u64,
    /// bus << 8 | devfn.
    pub devid: Field<u32>,
    /// PCI segment.
    pub pci_domain_nr: Field<u32>,
    /// Owner of the group's DMA; none in v2.
    pub dma_owner_token: Option<Field<u64>>,
    /// VT-d: the domain id.
    pub attachment_id: Field<u64>,
    /// The iommu_domain_ser.
    pub domain_phys: Field<u64>,
    /// The iommu_hw_ser.
    pub iommu_phys: Field<u64>,
}

/// `struct iommu_hw_ser`.
#[derive(Clone, Copy, Debug)]
pub struct HwAbi {
    /// For the decoder.
    pub layout: AbiStruct,
    /// Objects per array page.
    pub per_page: u64,
    /// VT-d: register base.
    pub token: Field<u64>,
    /// [`HW_TYPE_INTEL`].
    pub kind: Field<u64>,
    /// The incoming kernel adopted the tables; none in v2.
    pub restored: Option<Field<u8>>,
    /// Register base once more.
    pub phys_addr: Field<u64>,
    /// Physical address of the root table.
    pub root_table: Field<u64>,
    /// First of the eight words that say which context tables are preserved.
    pub context_tables_bitmap: Field<u64>,
}

/// `struct iommu_flb_ser`.
#[derive(Clone, Copy, Debug)]
pub struct FlbAbi {
    /// For the decoder.
    pub layout: AbiStruct,
    /// Version word; none in v2.
    pub version: Option<Field<u64>>,
    /// First page of the units.
    pub iommu_array_phys: Field<u64>,
    /// First page of the domains.
    pub iommu_domain_array_phys: Field<u64>,
    /// First page of the devices.
    pub device_array_phys: Field<u64>,
}

/// One revision of the IOMMU ABI.
#[derive(Clone, Copy, Debug)]
pub struct IommuAbi {
    /// `compatible` of the FLB.
    pub compatible: &'static str,
    /// Object header.
    pub hdr: HdrAbi,
    /// Domains.
    pub domain: DomainAbi,
    /// Devices.
    pub device: DeviceAbi,
    /// Units.
    pub hw: HwAbi,
    /// Root of it all.
    pub flb: FlbAbi,
}

const fn per_page(bytes: u16) -> u64 {
    ((ARRAY_PAGE_BYTES - ARRAY_HDR.bytes) / bytes) as u64
}

const fn optional<T: Copy>(layout: &AbiStruct, name: &'static str) -> Option<Field<T>> {
    match layout.offset_of(name) {
        Some(_) => Some(layout.field(name)),
        None => None,
    }
}

impl IommuAbi {
    const fn new(compatible: &'static str, domain: AbiStruct, device: AbiStruct, hw: AbiStruct, flb: AbiStruct) -> IommuAbi {
        IommuAbi {
            compatible,
            hdr: HdrAbi { ref_count: domain.field("hdr.ref_count"), flags: domain.field("hdr.flags"), flags_bytes: domain.fields[1].bytes },
            domain: DomainAbi {
                layout: domain,
                per_page: per_page(domain.bytes),
                top_table_phys: domain.field("top_table_phys"),
                top_level: domain.field("top_level"),
                vasz: domain.field("vasz"),
                sign_extend: domain.field("sign_extend"),
                restored_domain: domain.field("restored_domain"),
            },
            device: DeviceAbi {
                layout: device,
                per_page: per_page(device.bytes),
                devid: device.field("devid"),
                pci_domain_nr: device.field("pci_domain_nr"),
                dma_owner_token: optional(&device, "dma_owner_token"),
                attachment_id: device.field("map.attachment_id"),
                domain_phys: device.field("map.domain_phys"),
                iommu_phys: device.field("map.iommu_phys"),
            },
            hw: HwAbi {
                layout: hw,
                per_page: per_page(hw.bytes),
                token: hw.field("token"),
                kind: hw.field("type"),
                restored: optional(&hw, "intel.restored"),
                phys_addr: hw.field("intel.phys_addr"),
                root_table: hw.field("intel.root_table"),
                context_tables_bitmap: hw.field("intel.context_tables_bitmap"),
            },
            flb: FlbAbi {
                layout: flb,
                version: optional(&flb, "version"),
                iommu_array_phys: flb.field("iommu_array_phys"),
                iommu_domain_array_phys: flb.field("iommu_domain_array_phys"),
                device_array_phys: flb.field("device_array_phys"),
            },
        }
    }

    /// The ABI of a revision of the series.
    pub const fn of(revision: Iommu) -> &'static IommuAbi {
        match revision {
            Iommu::V2 => &IOMMU_V2,
            Iommu::Tip => &IOMMU_TIP,
        }
    }
}

/// Series v2.
pub static IOMMU_V2: IommuAbi = IommuAbi::new(
    "iommu-liveupdate-v1",
    AbiStruct { name: "iommu_domain_ser", bytes: 34, fields: DOMAIN_V2 },
    AbiStruct { name: "iommu_device_ser", bytes: 37, fields: DEVICE_V2 },
    AbiStruct { name: "iommu_hw_ser", bytes: 101, fields: HW_V2 },
    AbiStruct { name: "iommu_flb_ser", bytes: 24, fields: FLB_V2 },
);

/// The author's later branch.
pub static IOMMU_TIP: IommuAbi = IommuAbi::new(
    "iommu-liveupdate",
    AbiStruct { name: "iommu_domain_ser", bytes: 40, fields: DOMAIN_TIP },
    AbiStruct { name: "iommu_device_ser", bytes: 72, fields: DEVICE_TIP },
    AbiStruct { name: "iommu_hw_ser", bytes: 112, fields: HW_TIP },
    AbiStruct { name: "iommu_flb_ser", bytes: 32, fields: FLB_TIP },
);

const _: () = assert!(per_page(34) == 120 && per_page(40) == 102, "domains per page");
const _: () = assert!(per_page(37) == 110 && per_page(72) == 56, "devices per page");
const _: () = assert!(per_page(112) == 36, "units per page");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_do_not_overlap_and_end_inside_their_structure() {
        for abi in [&IOMMU_V2, &IOMMU_TIP] {
            for layout in [abi.domain.layout, abi.device.layout, abi.hw.layout, abi.flb.layout] {
                for pair in layout.fields.windows(2) {
                    assert!(pair[0].offset + pair[0].bytes <= pair[1].offset, "{} {}", layout.name, pair[1].name);
                }
                let last = layout.fields.last().expect("a structure has members");
                assert!(last.offset + last.bytes <= layout.bytes, "{}", layout.name);
            }
        }
    }
}
