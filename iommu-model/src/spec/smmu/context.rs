//! Context descriptor (CD) table: level-1 descriptor and context descriptor.

use bitfield_struct::bitfield;

/// Bytes of a level-1 context descriptor.
pub const CONTEXT_LEVEL_1_BYTES: u64 = 8;
/// Bytes of a context descriptor.
pub const CONTEXT_BYTES: u64 = 64;

/// Level-1 context descriptor, section 5.3.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ContextLevel1 {
    /// V, bit 0.
    pub valid: bool,
    /// Bits 11:1, RES0.
    #[bits(11)]
    pub reserved_1: u16,
    /// L2Ptr, bits 55:12: frame of the level-2 table; an IPA if stage 2 is on.
    #[bits(44)]
    pub table: u64,
    /// Bits 63:56, RES0.
    pub reserved_56: u8,
}

/// Bits 63:0 of a context descriptor, section 5.4.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Context0 {
    /// T0SZ, bits 5:0: TTB0 covers 64 - T0SZ bits.
    #[bits(6)]
    pub size_0: u8,
    /// TG0, bits 7:6: 0 4 KiB, 1 64 KiB, 2 16 KiB.
    #[bits(2)]
    pub granule_0: u8,
    /// IR0, OR0, SH0, bits 13:8: memory attributes of table walks.
    #[bits(6)]
    pub walk_attributes_0: u8,
    /// EPD0, bit 14: no walks through TTB0.
    pub disable_0: bool,
    /// ENDI, bit 15: big-endian tables.
    pub big_endian: bool,
    /// T1SZ, bits 21:16.
    #[bits(6)]
    pub size_1: u8,
    /// TG1, bits 23:22: 1 16 KiB, 2 4 KiB, 3 64 KiB.
    #[bits(2)]
    pub granule_1: u8,
    /// IR1, OR1, SH1, bits 29:24.
    #[bits(6)]
    pub walk_attributes_1: u8,
    /// EPD1, bit 30: no walks through TTB1.
    pub disable_1: bool,
    /// V, bit 31.
    pub valid: bool,
    /// IPS, bits 34:32: output size, coded as IDR5.OAS.
    #[bits(3)]
    pub output_size: u8,
    /// AFFD, bit 35: AF = 0 does not fault.
    pub access_flag_fault_disable: bool,
    /// WXN, UWXN, bits 37:36: about execution.
    #[bits(2)]
    pub write_execute: u8,
    /// TBI0, bit 38: the top byte of addresses below is ignored.
    pub top_byte_ignore_0: bool,
    /// TBI1, bit 39: the top byte of addresses above is ignored.
    pub top_byte_ignore_1: bool,
    /// PAN, bit 40: privileged requests may not touch what unprivileged ones may.
    pub privileged_access_never: bool,
    /// AA64, bit 41: VMSAv8-64 tables.
    pub aarch64: bool,
    /// HD, bit 42: dirty state is maintained.
    pub hardware_dirty: bool,
    /// HA, bit 43: AF is maintained.
    pub hardware_access: bool,
    /// S, bit 44: faults stall.
    pub stall: bool,
    /// R, bit 45: faults are recorded.
    pub record: bool,
    /// A, bit 46: faults abort the request.
    pub abort: bool,
    /// ASET, bit 47: about broadcast invalidation.
    pub asid_set: bool,
    /// ASID, bits 63:48.
    pub asid: u16,
}

/// Bits 127:64 of a context descriptor; bits 191:128 are the same for TTB1.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ContextTable {
    /// NSCFG, bit 64.
    pub non_secure: bool,
    /// HAD, bit 65: limits in table descriptors are ignored.
    pub hierarchical_disable: bool,
    /// E0PD, bit 66; in the first word HAFT, bit 67.
    #[bits(2)]
    pub reserved_66: u8,
    /// TTB, bits 115:68: address of the table in units of 16 bytes; an IPA if stage 2 is on.
    #[bits(48)]
    pub table: u64,
    /// Bits 127:116.
    #[bits(12)]
    pub reserved_116: u16,
}

/// TG0, S2TG: 4 KiB.
pub const GRANULE_0_4K: u8 = 0;
/// TG0, S2TG: 64 KiB.
pub const GRANULE_0_64K: u8 = 1;
/// TG0, S2TG: 16 KiB.
pub const GRANULE_0_16K: u8 = 2;
/// TG1: 16 KiB.
pub const GRANULE_1_16K: u8 = 1;
/// TG1: 4 KiB.
pub const GRANULE_1_4K: u8 = 2;
/// TG1: 64 KiB.
pub const GRANULE_1_64K: u8 = 3;

/// Smallest TxSZ and S2T0SZ of tables with 48-bit input.
pub const SIZE_MIN: u8 = 16;
/// Largest TxSZ and S2T0SZ without small translation tables.
pub const SIZE_MAX: u8 = 39;

const _: () = assert!(Context0::VALID_OFFSET == 31 && Context0::AARCH64_OFFSET == 41 && Context0::ASID_OFFSET == 48);
const _: () = assert!(Context0::SIZE_1_OFFSET == 16 && Context0::DISABLE_1_OFFSET == 30 && ContextTable::TABLE_OFFSET == 4);
