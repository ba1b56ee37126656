//! Invalidation-queue descriptors. Type is bits 3:0, with bits 11:9 above it. The 256-bit form has the fields of the
//! 128-bit form in its low half and a reserved high half.
//!
//! VT-d specification, queued invalidation interface; facts agree in Linux `intel/iommu.h` 7.3 (`QI_*`).

use bitfield_struct::bitfield;

/// Bytes of a 128-bit descriptor.
pub const DESCRIPTOR_BYTES: u64 = 16;
/// Bytes of a 256-bit descriptor.
pub const WIDE_DESCRIPTOR_BYTES: u64 = 32;

/// Bytes in which a wait descriptor counts its status address.
pub const STATUS_ADDRESS_UNIT: u64 = 4;

/// Type 1: context-cache invalidate.
pub const TYPE_CONTEXT: u8 = 1;
/// Type 2: IOTLB invalidate.
pub const TYPE_IOTLB: u8 = 2;
/// Type 3: device-TLB invalidate.
pub const TYPE_DEVICE_TLB: u8 = 3;
/// Type 4: interrupt-entry-cache invalidate.
pub const TYPE_INTERRUPT_ENTRY: u8 = 4;
/// Type 5: invalidation wait.
pub const TYPE_WAIT: u8 = 5;
/// Type 6: PASID-based IOTLB invalidate.
pub const TYPE_PASID_IOTLB: u8 = 6;
/// Type 7: PASID-cache invalidate.
pub const TYPE_PASID_CACHE: u8 = 7;
/// Type 8: PASID-based device-TLB invalidate.
pub const TYPE_PASID_DEVICE_TLB: u8 = 8;
/// Type 9: page group response.
pub const TYPE_PAGE_RESPONSE: u8 = 9;

/// G 00 of a PASID-cache descriptor: every PASID of a domain.
pub const PASID_GRANULARITY_DOMAIN: u8 = 0;
/// G 01 of a PASID-cache descriptor: one PASID of a domain.
pub const PASID_GRANULARITY_PASID: u8 = 1;
/// G 11 of a PASID-cache descriptor: everything.
pub const PASID_GRANULARITY_GLOBAL: u8 = 3;

/// G 01: everything.
pub const GRANULARITY_GLOBAL: u8 = 1;
/// G 10: one domain.
pub const GRANULARITY_DOMAIN: u8 = 2;
/// G 11: one device (context cache) or a page range (IOTLB).
pub const GRANULARITY_NARROW: u8 = 3;

/// What every descriptor shares.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct AnyDescriptor {
    /// Type bits 3:0.
    #[bits(4)]
    pub kind: u8,
    /// Bits 8:4, by type.
    #[bits(5)]
    pub by_type_low: u8,
    /// Type bits 6:4, at bits 11:9.
    #[bits(3)]
    pub kind_high: u8,
    /// Bits 127:12, by type.
    #[bits(116)]
    pub by_type: u128,
}

/// Context-cache invalidate descriptor.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct ContextDescriptor {
    /// Type, bits 3:0.
    #[bits(4)]
    pub kind: u8,
    /// G, bits 5:4.
    #[bits(2)]
    pub granularity: u8,
    /// Bits 8:6, reserved.
    #[bits(3)]
    pub reserved_6: u8,
    /// Type bits 6:4, at bits 11:9.
    #[bits(3)]
    pub kind_high: u8,
    /// Bits 15:12, reserved.
    #[bits(4)]
    pub reserved_12: u8,
    /// DID, bits 31:16.
    pub domain: u16,
    /// SID, bits 47:32.
    pub source: u16,
    /// FM, bits 49:48: how many of the top bits of the function number to ignore.
    #[bits(2)]
    pub function_mask: u8,
    /// Bits 63:50, reserved.
    #[bits(14)]
    pub reserved_50: u16,
    /// Bits 127:64, reserved.
    #[bits(64)]
    pub reserved_64: u64,
}

/// IOTLB invalidate descriptor.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct IotlbDescriptor {
    /// Type, bits 3:0.
    #[bits(4)]
    pub kind: u8,
    /// G, bits 5:4.
    #[bits(2)]
    pub granularity: u8,
    /// DW, bit 6: drain writes.
    pub drain_writes: bool,
    /// DR, bit 7: drain reads.
    pub drain_reads: bool,
    /// Bit 8, reserved.
    pub reserved_8: bool,
    /// Type bits 6:4, at bits 11:9.
    #[bits(3)]
    pub kind_high: u8,
    /// Bits 15:12, reserved.
    #[bits(4)]
    pub reserved_12: u8,
    /// DID, bits 31:16.
    pub domain: u16,
    /// Bits 63:32, reserved.
    pub reserved_32: u32,
    /// AM, bits 69:64: 2^AM pages.
    #[bits(6)]
    pub address_mask: u8,
    /// IH, bit 70: only leaves changed.
    pub leaf_only: bool,
    /// Bits 75:71, reserved.
    #[bits(5)]
    pub reserved_71: u8,
    /// ADDR, bits 127:76: page number.
    #[bits(52)]
    pub page: u64,
}

/// PASID-based IOTLB invalidate descriptor. G 10 all pages of a PASID, 11 a page range.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct PasidIotlbDescriptor {
    /// Type, bits 3:0.
    #[bits(4)]
    pub kind: u8,
    /// G, bits 5:4.
    #[bits(2)]
    pub granularity: u8,
    /// Bits 8:6, reserved.
    #[bits(3)]
    pub reserved_6: u8,
    /// Type bits 6:4, at bits 11:9.
    #[bits(3)]
    pub kind_high: u8,
    /// Bits 15:12, reserved.
    #[bits(4)]
    pub reserved_12: u8,
    /// DID, bits 31:16.
    pub domain: u16,
    /// PASID, bits 51:32.
    #[bits(20)]
    pub pasid: u32,
    /// Bits 63:52, reserved.
    #[bits(12)]
    pub reserved_52: u16,
    /// AM, bits 69:64: 2^AM pages.
    #[bits(6)]
    pub address_mask: u8,
    /// IH, bit 70: only leaves changed.
    pub leaf_only: bool,
    /// Bits 75:71, reserved.
    #[bits(5)]
    pub reserved_71: u8,
    /// ADDR, bits 127:76: page number.
    #[bits(52)]
    pub page: u64,
}

/// PASID-cache invalidate descriptor.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct PasidCacheDescriptor {
    /// Type, bits 3:0.
    #[bits(4)]
    pub kind: u8,
    /// G, bits 5:4: see the `PASID_GRANULARITY_` constants.
    #[bits(2)]
    pub granularity: u8,
    /// Bits 8:6, reserved.
    #[bits(3)]
    pub reserved_6: u8,
    /// Type bits 6:4, at bits 11:9.
    #[bits(3)]
    pub kind_high: u8,
    /// Bits 15:12, reserved.
    #[bits(4)]
    pub reserved_12: u8,
    /// DID, bits 31:16.
    pub domain: u16,
    /// PASID, bits 51:32.
    #[bits(20)]
    pub pasid: u32,
    /// Bits 63:52, reserved.
    #[bits(12)]
    pub reserved_52: u16,
    /// Bits 127:64, reserved.
    pub reserved_64: u64,
}

/// Invalidation wait descriptor.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct WaitDescriptor {
    /// Type, bits 3:0.
    #[bits(4)]
    pub kind: u8,
    /// IF, bit 4: raise the completion interrupt.
    pub interrupt: bool,
    /// SW, bit 5: write the status data.
    pub status_write: bool,
    /// FN, bit 6: later descriptors wait for this one.
    pub fence: bool,
    /// PD, bit 7: page-request drain; reserved without page requests.
    pub page_request_drain: bool,
    /// Bit 8, reserved.
    pub reserved_8: bool,
    /// Type bits 6:4, at bits 11:9.
    #[bits(3)]
    pub kind_high: u8,
    /// Bits 31:12, reserved.
    #[bits(20)]
    pub reserved_12: u32,
    /// Status data, bits 63:32.
    pub data: u32,
    /// Bits 65:64, reserved.
    #[bits(2)]
    pub reserved_64: u8,
    /// Status address, bits 127:66, in 4-byte units.
    #[bits(62)]
    pub address: u64,
}

const _: () = assert!(size_of::<AnyDescriptor>() as u64 == DESCRIPTOR_BYTES);
const _: () = assert!(PasidIotlbDescriptor::PASID_OFFSET == 32 && PasidIotlbDescriptor::PAGE_OFFSET == 76);
const _: () = assert!(PasidCacheDescriptor::PASID_OFFSET == 32);
const _: () = assert!(IotlbDescriptor::PAGE_OFFSET == 76 && WaitDescriptor::ADDRESS_OFFSET == 66);
const _: () = assert!(ContextDescriptor::FUNCTION_MASK_OFFSET == 48 && ContextDescriptor::KIND_HIGH_OFFSET == 9);
