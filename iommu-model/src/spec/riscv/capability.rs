//! The capabilities and the features-control register. Specification, "IOMMU capabilities" and "Features-control register".

use bitfield_struct::bitfield;

/// Version 1.0 in [`CapabilitiesRegister::version`]: major in the high nibble.
pub const VERSION_1_0: u8 = 0x10;
/// IGS: messages only.
pub const IGS_MSI: u8 = 0;
/// IGS: wires only.
pub const IGS_WSI: u8 = 1;
/// IGS: either, as fctl.WSI says.
pub const IGS_BOTH: u8 = 2;

/// capabilities, offset 0, read-only.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct CapabilitiesRegister {
    /// version, bits 7:0.
    pub version: u8,
    /// Sv32, bit 8.
    pub sv32: bool,
    /// Sv39, bit 9.
    pub sv39: bool,
    /// Sv48, bit 10.
    pub sv48: bool,
    /// Sv57, bit 11.
    pub sv57: bool,
    /// Bits 13:12, reserved.
    #[bits(2)]
    pub reserved_12: u8,
    /// Svrsw60t59b, bit 14: PTE bits 60:59 are for software.
    pub svrsw60t59b: bool,
    /// Svpbmt, bit 15: page-based memory types.
    pub svpbmt: bool,
    /// Sv32x4, bit 16.
    pub sv32x4: bool,
    /// Sv39x4, bit 17.
    pub sv39x4: bool,
    /// Sv48x4, bit 18.
    pub sv48x4: bool,
    /// Sv57x4, bit 19.
    pub sv57x4: bool,
    /// Bit 20, reserved.
    pub reserved_20: bool,
    /// AMO_MRIF, bit 21: atomic updates of memory-resident interrupt files.
    pub amo_mrif: bool,
    /// MSI_FLAT, bit 22: flat MSI page tables, extended device contexts.
    pub msi_flat: bool,
    /// MSI_MRIF, bit 23: MSI page-table entries in MRIF mode.
    pub msi_mrif: bool,
    /// AMO_HWAD, bit 24: atomic updates of A and D.
    pub amo_hwad: bool,
    /// ATS, bit 25: address translation services and page requests.
    pub ats: bool,
    /// T2GPA, bit 26: ATS completions may hold guest-physical addresses.
    pub t2gpa: bool,
    /// END, bit 27: both endiannesses.
    pub end: bool,
    /// IGS, bits 29:28: how interrupts are signalled.
    #[bits(2)]
    pub igs: u8,
    /// HPM, bit 30: performance monitor.
    pub hpm: bool,
    /// DBG, bit 31: translation-request registers.
    pub dbg: bool,
    /// PAS, bits 37:32: bits of a physical address.
    #[bits(6)]
    pub pas: u8,
    /// PD8, bit 38.
    pub pd8: bool,
    /// PD17, bit 39.
    pub pd17: bool,
    /// PD20, bit 40.
    pub pd20: bool,
    /// QOSID, bit 41.
    pub qosid: bool,
    /// NL, bit 42: IOTINVAL may remove non-leaf entries by address.
    pub nl: bool,
    /// S, bit 43: IOTINVAL takes address ranges.
    pub s: bool,
    /// Bits 55:44, reserved.
    #[bits(12)]
    pub reserved_44: u16,
    /// Bits 63:56, custom.
    pub custom: u8,
}

/// fctl, offset 8.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct FeaturesControl {
    /// BE, bit 0: tables and queues are big-endian.
    pub be: bool,
    /// WSI, bit 1: interrupts are wires.
    pub wsi: bool,
    /// GXL, bit 2: 32-bit second-stage schemes.
    pub gxl: bool,
    /// Bits 15:3, reserved.
    #[bits(13)]
    pub reserved: u16,
    /// Bits 31:16, custom.
    pub custom: u16,
}
