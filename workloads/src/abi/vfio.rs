//! `include/linux/kho/abi/vfio_pci.h`: what a VFIO device file hands over.
//!
//! Fields of VFIO series v2 (16-bit segment, `reset_works`) and the iommufd token that IOMMU series v1 adds. Offsets are
//! **assumed**: natural alignment, token last.

use sim::memory::{Field, field};

use super::{AbiStruct, member};

/// `compatible` of the file handler.
pub const COMPATIBLE: &str = "vfio-pci-v1";

/// `struct vfio_pci_core_device_ser`.
pub const VFIO_SER: AbiStruct = AbiStruct {
    name: "vfio_pci_core_device_ser",
    bytes: 16,
    fields: &[member("bdf", 0, 2), member("domain", 2, 2), member("reset_works", 4, 1), member("iommufd_token", 8, 8)],
};

/// Kind of a kernel pointer to a `struct vfio_pci_core_device_ser`.
#[derive(Clone, Copy, Debug)]
pub struct VfioSer;

/// `bdf`: bus, device, function.
pub const BDF: Field<u16> = field(0, "bdf");
/// `domain`: PCI segment.
pub const DOMAIN: Field<u16> = field(2, "domain");
/// `reset_works`: what the first open of the outgoing kernel found out.
pub const RESET_WORKS: Field<u8> = field(4, "reset_works");
/// Token of the iommufd file the device was attached to; [`NO_IOMMUFD`] when it was not attached.
pub const IOMMUFD_TOKEN: Field<u64> = field(8, "iommufd_token");
/// No iommufd (assumed: the series does not say what it stores then).
pub const NO_IOMMUFD: u64 = u64::MAX;

const _: () = assert!(BDF.offset == VFIO_SER.fields[0].offset && DOMAIN.offset == VFIO_SER.fields[1].offset);
const _: () = assert!(RESET_WORKS.offset == VFIO_SER.fields[2].offset && IOMMUFD_TOKEN.offset == VFIO_SER.fields[3].offset);
