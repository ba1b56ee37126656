//! `include/linux/kho/abi/iommufd.h`: what an iommufd file hands over.
//!
//! Layout of series v1 (2026-02-03): a counter, then packed entries of 13 bytes, so that all but the first are misaligned. The names
//! differ in v2 and its packing was not to be had; v2 and tip are **assumed** to keep this layout. The whole header is one block of
//! preserved memory (`kho_alloc_preserve`), its physical address is the file's `serialized_data`.

use sim::memory::{Field, Ptr, field};

use super::{AbiStruct, member};

/// `compatible` of the file handler.
pub const COMPATIBLE: &str = "iommufd-v1";

/// `struct iommufd_ser`, without its entries.
pub const IOMMUFD_SER: AbiStruct = AbiStruct { name: "iommufd_ser", bytes: 4, fields: &[member("nr_hwpts", 0, 4)] };
/// `struct iommufd_hwpt_ser`, one entry.
pub const HWPT_SER: AbiStruct = AbiStruct {
    name: "iommufd_hwpt_ser",
    bytes: 13,
    fields: &[member("token", 0, 4), member("domain_data", 4, 8), member("reclaimed", 12, 1)],
};

/// Kind of a kernel pointer to a `struct iommufd_ser`.
#[derive(Clone, Copy, Debug)]
pub struct IommufdSer;
/// Kind of a kernel pointer to a `struct iommufd_hwpt_ser`.
#[derive(Clone, Copy, Debug)]
pub struct HwptSer;

/// `nr_hwpts`: entries that follow.
pub const NR_HWPTS: Field<u32> = field(0, "nr_hwpts");
/// `token`: what userspace called the HWPT.
pub const TOKEN: Field<u32> = field(0, "token");
/// `domain_data`: physical address of the `iommu_domain_ser`.
pub const DOMAIN_DATA: Field<u64> = field(4, "domain_data");
/// `reclaimed`: userspace of the incoming kernel has taken the HWPT over.
pub const RECLAIMED: Field<u8> = field(12, "reclaimed");

/// Bytes of a header with `nr_hwpts` entries.
pub const fn bytes(nr_hwpts: u32) -> u64 {
    IOMMUFD_SER.bytes as u64 + nr_hwpts as u64 * HWPT_SER.bytes as u64
}

/// Entry `index` of the header at `ser`.
pub const fn hwpt(ser: Ptr<IommufdSer>, index: u32) -> Ptr<HwptSer> {
    ser.byte_add(bytes(index))
}

const _: () = assert!(TOKEN.offset == HWPT_SER.fields[0].offset && DOMAIN_DATA.offset == HWPT_SER.fields[1].offset);
const _: () = assert!(RECLAIMED.offset == HWPT_SER.fields[2].offset && RECLAIMED.offset + 1 == HWPT_SER.bytes);
const _: () = assert!(bytes(0) == 4 && bytes(2) == 30, "packed");
