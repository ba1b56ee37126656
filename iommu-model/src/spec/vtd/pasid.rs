//! Scalable mode: context entry, PASID directory entry, PASID table entry.

use bitfield_struct::bitfield;

/// Bytes of a scalable-mode context entry; a lower and an upper table hold 128 of them each.
pub const SCALABLE_CONTEXT_ENTRY_BYTES: u64 = 32;
/// Entries of a scalable-mode context table: devfn bits 6:0; bit 7 chooses the table.
pub const SCALABLE_CONTEXT_ENTRIES: u8 = 128;
/// Bytes of a PASID directory entry.
pub const PASID_DIRECTORY_ENTRY_BYTES: u64 = 8;
/// Bytes of a PASID table entry.
pub const PASID_ENTRY_BYTES: u64 = 64;
/// log2 of the entries of a PASID table: PASID bits 5:0; the bits above index the directory.
pub const PASID_TABLE_BITS: u32 = 6;
/// log2 of the entries of the smallest PASID directory, PDTS = 0.
pub const PASID_DIRECTORY_BITS_MIN: u32 = 7;

/// Low half of a scalable-mode context entry, bits 127:0. The high half is reserved. VT-d specification, scalable-mode
/// context entry; facts agree in Linux `intel/iommu.h` 7.3.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct ScalableContextEntry {
    /// P, bit 0.
    pub present: bool,
    /// FPD, bit 1: qualified faults of this device are not recorded.
    pub fault_disable: bool,
    /// DTE, bit 2: device-TLB traffic is allowed.
    pub device_tlb: bool,
    /// PASIDE, bit 3: requests with PASID are allowed.
    pub pasid_enable: bool,
    /// PRE, bit 4: page requests are allowed.
    pub page_requests: bool,
    /// Bits 8:5, reserved 0.
    #[bits(4)]
    pub reserved_5: u8,
    /// PDTS, bits 11:9: the directory has 2^(PDTS + 7) entries.
    #[bits(3)]
    pub directory_size: u8,
    /// PASIDDIRPTR, bits 63:12: frame of the PASID directory.
    #[bits(52)]
    pub directory: u64,
    /// RID_PASID, bits 83:64: PASID of requests that carry none; counts only with ECAP.RPS.
    #[bits(20)]
    pub rid_pasid: u32,
    /// RID_PRIV, bit 84: requests without PASID are privileged; counts only with ECAP.RPRIVS.
    pub rid_privileged: bool,
    /// Bits 127:85, reserved 0.
    #[bits(43)]
    pub reserved_85: u64,
}

/// PASID directory entry. VT-d specification, scalable-mode PASID directory entry.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PasidDirectoryEntry {
    /// P, bit 0.
    pub present: bool,
    /// FPD, bit 1.
    pub fault_disable: bool,
    /// Bits 11:2, reserved 0.
    #[bits(10)]
    pub reserved: u16,
    /// SMPTBLPTR, bits 63:12: frame of a PASID table.
    #[bits(52)]
    pub table: u64,
}

/// Bits 127:0 of a PASID table entry. VT-d specification, scalable-mode PASID table entry; facts agree in Linux
/// `intel/pasid.h` 7.3, PAT and the reserved ranges excepted.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct PasidEntryLow {
    /// P, bit 0.
    pub present: bool,
    /// FPD, bit 1.
    pub fault_disable: bool,
    /// AW, bits 4:2: as in a legacy context entry.
    #[bits(3)]
    pub address_width: u8,
    /// SSEE, bit 5: second-stage execute enable.
    pub second_stage_execute: bool,
    /// PGTT, bits 8:6: see the `PGTT_` constants.
    #[bits(3)]
    pub translation_type: u8,
    /// SSADE, bit 9: second-stage A and D bits are maintained.
    pub second_stage_accessed_dirty: bool,
    /// Bits 11:10, reserved 0.
    #[bits(2)]
    pub reserved_10: u8,
    /// SSPTPTR, bits 63:12: frame of the second-stage root table.
    #[bits(52)]
    pub second_stage: u64,
    /// DID, bits 79:64.
    pub domain: u16,
    /// Bits 86:80, reserved 0.
    #[bits(7)]
    pub reserved_80: u8,
    /// PWSNP, bit 87: table walks snoop CPU caches; counts only with ECAP.SMPWC.
    pub walk_snoop: bool,
    /// PGSNP, bit 88: page accesses snoop.
    pub page_snoop: bool,
    /// CD, EMTE, EMT, PWT, PCD, bits 95:89: memory types.
    #[bits(7)]
    pub memory_type: u8,
    /// PAT, bits 127:96.
    pub pat: u32,
}

/// Bits 191:128 of a PASID table entry; bits 511:192 are reserved.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PasidEntryFirstStage {
    /// SRE, bit 128: privileged requests are allowed.
    pub supervisor_requests: bool,
    /// ERE, bit 129: execute requests are allowed.
    pub execute_requests: bool,
    /// FSPM, bits 131:130: see the `FSPM_` constants.
    #[bits(2)]
    pub paging_mode: u8,
    /// WPE, bit 132: privileged writes honour R/W.
    pub write_protect: bool,
    /// NXE, bit 133.
    pub no_execute: bool,
    /// SMEP, bit 134.
    pub supervisor_no_execute: bool,
    /// EAFE, bit 135: the extended accessed bit is maintained.
    pub extended_accessed: bool,
    /// Bits 139:136, reserved 0.
    #[bits(4)]
    pub reserved_136: u8,
    /// FSPTPTR, bits 191:140: frame of the first-stage root table.
    #[bits(52)]
    pub first_stage: u64,
}

/// PGTT 001: first stage only.
pub const PGTT_FIRST: u8 = 1;
/// PGTT 010: second stage only.
pub const PGTT_SECOND: u8 = 2;
/// PGTT 011: first stage on second stage.
pub const PGTT_NESTED: u8 = 3;
/// PGTT 100: pass-through.
pub const PGTT_PASS_THROUGH: u8 = 4;

/// FSPM 00: four levels.
pub const FSPM_4: u8 = 0;
/// FSPM 01: five levels.
pub const FSPM_5: u8 = 1;

const _: () = assert!(ScalableContextEntry::RID_PASID_OFFSET == 64 && ScalableContextEntry::DIRECTORY_SIZE_OFFSET == 9);
const _: () = assert!(PasidEntryLow::DOMAIN_OFFSET == 64 && PasidEntryLow::WALK_SNOOP_OFFSET == 87 && PasidEntryLow::PAT_OFFSET == 96);
const _: () = assert!(PasidEntryFirstStage::EXTENDED_ACCESSED_OFFSET == 7 && PasidEntryFirstStage::FIRST_STAGE_OFFSET == 12);
