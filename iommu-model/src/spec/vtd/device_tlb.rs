//! Device-TLB invalidate descriptors, without and with PASID.
//!
//! VT-d specification, queued invalidation interface; facts agree in Linux `intel/iommu.h` 7.3 (`QI_DEV_IOTLB_*`,
//! `QI_DEV_EIOTLB_*`). PFSID is the physical function that answers for a virtual one: its depth counts.

use bitfield_struct::bitfield;

/// Device-TLB invalidate descriptor, type 3.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct DeviceTlbDescriptor {
    /// Type, bits 3:0.
    #[bits(4)]
    pub kind: u8,
    /// Bits 8:4, reserved.
    #[bits(5)]
    pub reserved_4: u8,
    /// Type bits 6:4, at bits 11:9.
    #[bits(3)]
    pub kind_high: u8,
    /// PFSID bits 3:0, at bits 15:12.
    #[bits(4)]
    pub physical_low: u8,
    /// MIP, bits 20:16: requests that the device takes at a time; 0 means 32.
    #[bits(5)]
    pub depth: u8,
    /// Bits 31:21, reserved.
    #[bits(11)]
    pub reserved_21: u16,
    /// SID, bits 47:32.
    pub source: u16,
    /// Bits 51:48, reserved.
    #[bits(4)]
    pub reserved_48: u8,
    /// PFSID bits 15:4, at bits 63:52.
    #[bits(12)]
    pub physical_high: u16,
    /// S, bit 64: the lowest 0 of ADDR gives the size; else one 4 KiB page.
    pub sized: bool,
    /// Bits 75:65, reserved.
    #[bits(11)]
    pub reserved_65: u16,
    /// ADDR, bits 127:76: page number.
    #[bits(52)]
    pub page: u64,
}

/// PASID-based device-TLB invalidate descriptor, type 8.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct PasidDeviceTlbDescriptor {
    /// Type, bits 3:0.
    #[bits(4)]
    pub kind: u8,
    /// MIP, bits 8:4: requests that the device takes at a time; 0 means 32.
    #[bits(5)]
    pub depth: u8,
    /// Type bits 6:4, at bits 11:9.
    #[bits(3)]
    pub kind_high: u8,
    /// PFSID bits 3:0, at bits 15:12.
    #[bits(4)]
    pub physical_low: u8,
    /// SID, bits 31:16.
    pub source: u16,
    /// PASID, bits 51:32.
    #[bits(20)]
    pub pasid: u32,
    /// PFSID bits 15:4, at bits 63:52.
    #[bits(12)]
    pub physical_high: u16,
    /// G, bit 64: every PASID.
    pub global: bool,
    /// Bits 74:65, reserved.
    #[bits(10)]
    pub reserved_65: u16,
    /// S, bit 75: the lowest 0 of ADDR gives the size; else one 4 KiB page.
    pub sized: bool,
    /// ADDR, bits 127:76: page number.
    #[bits(52)]
    pub page: u64,
}

/// What a depth of 0 means: invalidate queue depth of the ATS capability, 5 bits.
pub const DEPTH_MAX: u8 = 32;

const _: () = assert!(DeviceTlbDescriptor::SOURCE_OFFSET == 32 && DeviceTlbDescriptor::PAGE_OFFSET == 76);
const _: () = assert!(DeviceTlbDescriptor::DEPTH_OFFSET == 16 && DeviceTlbDescriptor::PHYSICAL_HIGH_OFFSET == 52);
const _: () = assert!(PasidDeviceTlbDescriptor::PASID_OFFSET == 32 && PasidDeviceTlbDescriptor::SIZED_OFFSET == 75);
const _: () = assert!(PasidDeviceTlbDescriptor::SOURCE_OFFSET == 16 && PasidDeviceTlbDescriptor::GLOBAL_OFFSET == 64);
