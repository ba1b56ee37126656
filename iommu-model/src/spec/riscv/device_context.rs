//! Device directory: non-leaf entry and device context. Specification, "Device-Directory-Table (DDT)".

use bitfield_struct::bitfield;

/// Bytes of a non-leaf entry.
pub const DIRECTORY_ENTRY_BYTES: u64 = 8;
/// Bytes of a device context in base format.
pub const BASE_CONTEXT_BYTES: u64 = 32;
/// Bytes of a device context in extended format (capabilities.MSI_FLAT).
pub const EXTENDED_CONTEXT_BYTES: u64 = 64;
/// Bits of a device_id.
pub const DEVICE_ID_BITS: u32 = 24;
/// Bits of DDI\[0\], DDI\[1\], DDI\[2\] in base format: 6:0, 15:7, 23:16.
pub const BASE_INDEX_BITS: [u32; 3] = [7, 9, 8];
/// Bits of DDI\[0\], DDI\[1\], DDI\[2\] in extended format: 5:0, 14:6, 23:15.
pub const EXTENDED_INDEX_BITS: [u32; 3] = [6, 9, 9];

/// Non-leaf entry of the device directory.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct DirectoryEntry {
    /// V, bit 0.
    pub valid: bool,
    /// Bits 9:1, reserved 0.
    #[bits(9)]
    pub reserved_1: u16,
    /// PPN, bits 53:10: frame of the next table.
    #[bits(44)]
    pub ppn: u64,
    /// Bits 63:54, reserved 0.
    #[bits(10)]
    pub reserved_54: u16,
}

/// DC.tc, the first doubleword of a device context.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct TranslationControl {
    /// V, bit 0.
    pub valid: bool,
    /// EN_ATS, bit 1.
    pub enable_ats: bool,
    /// EN_PRI, bit 2.
    pub enable_pri: bool,
    /// T2GPA, bit 3: ATS completions hold guest-physical addresses, which translated requests bring back.
    pub t2gpa: bool,
    /// DTF, bit 4: translation faults are not recorded.
    pub disable_faults: bool,
    /// PDTV, bit 5: fsc is a process directory pointer.
    pub process_directory: bool,
    /// PRPR, bit 6: the unit's own page-request responses hold the PASID.
    pub response_pasid: bool,
    /// GADE, bit 7: A and D are set in the second stage.
    pub second_stage_update: bool,
    /// SADE, bit 8: A and D are set in the first stage.
    pub first_stage_update: bool,
    /// DPE, bit 9: requests without process_id use process_id 0.
    pub default_process: bool,
    /// SBE, bit 10: process directory and first stage are big-endian.
    pub big_endian: bool,
    /// SXL, bit 11: 32-bit first-stage schemes.
    pub narrow: bool,
    /// Bits 23:12, reserved 0.
    #[bits(12)]
    pub reserved_12: u16,
    /// Bits 31:24, custom.
    pub custom: u8,
    /// Bits 63:32, reserved 0.
    pub reserved_32: u32,
}

/// iohgatp.MODE and iosatp.MODE: no translation.
pub const MODE_BARE: u8 = 0;
/// iohgatp.MODE Sv39x4, iosatp.MODE Sv39.
pub const MODE_SV39: u8 = 8;
/// iohgatp.MODE Sv48x4, iosatp.MODE Sv48.
pub const MODE_SV48: u8 = 9;
/// iohgatp.MODE Sv57x4, iosatp.MODE Sv57.
pub const MODE_SV57: u8 = 10;

/// DC.iohgatp, the second doubleword.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct SecondStagePointer {
    /// PPN, bits 43:0: frame of the root table, 16 KiB aligned.
    #[bits(44)]
    pub ppn: u64,
    /// GSCID, bits 59:44.
    pub gscid: u16,
    /// MODE, bits 63:60.
    #[bits(4)]
    pub mode: u8,
}

/// DC.ta, the third doubleword.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct TranslationAttributes {
    /// Bits 11:0, reserved 0.
    #[bits(12)]
    pub reserved_0: u16,
    /// PSCID, bits 31:12.
    #[bits(20)]
    pub pscid: u32,
    /// Bits 39:32, reserved 0.
    pub reserved_32: u8,
    /// RCID, bits 51:40; reserved 0 without capabilities.QOSID.
    #[bits(12)]
    pub rcid: u16,
    /// MCID, bits 63:52; reserved 0 without capabilities.QOSID.
    #[bits(12)]
    pub mcid: u16,
}

/// pdtp.MODE: a process directory of one level, process ids of 8 bits. 0 is Bare.
pub const MODE_PD8: u8 = 1;
/// pdtp.MODE: two levels, 17 bits.
pub const MODE_PD17: u8 = 2;
/// pdtp.MODE: three levels, 20 bits.
pub const MODE_PD20: u8 = 3;

/// DC.fsc and PC.fsc as iosatp, DC.fsc as pdtp, and DC.msiptp: the fourth and fifth doubleword.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct TablePointer {
    /// PPN, bits 43:0: frame of the root table.
    #[bits(44)]
    pub ppn: u64,
    /// Bits 59:44, reserved 0.
    pub reserved: u16,
    /// MODE, bits 63:60.
    #[bits(4)]
    pub mode: u8,
}

/// msiptp.MODE: no MSI page table.
pub const MODE_MSI_OFF: u8 = 0;
/// msiptp.MODE: a flat MSI page table.
pub const MODE_MSI_FLAT: u8 = 1;

/// DC.msi_addr_mask and DC.msi_addr_pattern, the sixth and seventh doubleword.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct MessagePages {
    /// Bits 51:0: mask or pattern of page numbers.
    #[bits(52)]
    pub pages: u64,
    /// Bits 63:52, reserved 0.
    #[bits(12)]
    pub reserved: u16,
}
