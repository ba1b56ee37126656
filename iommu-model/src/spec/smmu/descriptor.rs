//! Translation table descriptors: VMSAv8-64 with 48-bit addresses, Arm ARM (DDI 0487) chapter D8. Bits agree in Linux 7.3
//! `io-pgtable-arm.c`.

use bitfield_struct::bitfield;

/// Bytes of a descriptor.
pub const DESCRIPTOR_BYTES: u64 = 8;
/// log2 of the bytes of a descriptor: a table of one granule holds 2^(granule - 3) of them.
pub const DESCRIPTOR_SHIFT: u8 = 3;
/// The last level; its entries map one granule.
pub const LAST_LEVEL: u8 = 3;
/// The bit of a virtual address that chooses TTB0 or TTB1.
pub const HALF_BIT: u32 = 55;
/// Bits of an output address.
pub const ADDRESS_BITS: u8 = 48;

/// A descriptor of either stage, as far as both agree.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Descriptor {
    /// Valid, bit 0.
    pub valid: bool,
    /// Bit 1: at levels 0 to 2 a table instead of a block; at level 3 it must be set.
    pub table_or_page: bool,
    /// Attributes, bits 11:2.
    #[bits(10)]
    pub attributes: u16,
    /// Address, bits 47:12: frame of the next table or of the output; low bits below the granule or block do not count.
    #[bits(36)]
    pub frame: u64,
    /// Bits 50:48.
    #[bits(3)]
    pub reserved_48: u8,
    /// DBM, bit 51 of blocks and pages.
    pub dirty_bit_modifier: bool,
    /// Contiguous, bit 52 of blocks and pages: one of a run of equal neighbours (hint).
    pub contiguous: bool,
    /// Bits 63:53.
    #[bits(11)]
    pub upper: u16,
}

/// A stage-1 table descriptor.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Stage1Table {
    /// Bits 11:0: valid, table, ignored.
    #[bits(12)]
    pub low: u16,
    /// Next-level table, bits 47:12.
    #[bits(36)]
    pub frame: u64,
    /// Bits 58:48, ignored.
    #[bits(11)]
    pub reserved_48: u16,
    /// PXNTable, UXNTable, bits 60:59: about execution.
    #[bits(2)]
    pub no_execute: u8,
    /// APTable[0], bit 61: no unprivileged access below.
    pub no_unprivileged: bool,
    /// APTable[1], bit 62: no writes below.
    pub read_only: bool,
    /// NSTable, bit 63.
    pub non_secure: bool,
}

/// A stage-1 block or page descriptor.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Stage1Leaf {
    /// Valid, bit 0.
    pub valid: bool,
    /// Bit 1: page.
    pub page: bool,
    /// AttrIndx, bits 4:2.
    #[bits(3)]
    pub attribute_index: u8,
    /// NS, bit 5.
    pub non_secure: bool,
    /// AP[1], bit 6: unprivileged access.
    pub unprivileged: bool,
    /// AP[2], bit 7: read-only.
    pub read_only: bool,
    /// SH, bits 9:8.
    #[bits(2)]
    pub shareability: u8,
    /// AF, bit 10: accessed.
    pub accessed: bool,
    /// nG, bit 11: of one ASID, not of all.
    pub not_global: bool,
    /// Output address, bits 47:12.
    #[bits(36)]
    pub frame: u64,
    /// Bits 50:48.
    #[bits(3)]
    pub reserved_48: u8,
    /// DBM, bit 51: AP[2] may be cleared by a write.
    pub dirty_bit_modifier: bool,
    /// Contiguous, bit 52.
    pub contiguous: bool,
    /// PXN, UXN, bits 54:53: about execution.
    #[bits(2)]
    pub no_execute: u8,
    /// Bits 63:55, ignored.
    #[bits(9)]
    pub software: u16,
}

/// A stage-2 block or page descriptor.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Stage2Leaf {
    /// Valid, bit 0.
    pub valid: bool,
    /// Bit 1: page.
    pub page: bool,
    /// MemAttr, bits 5:2.
    #[bits(4)]
    pub memory_attributes: u8,
    /// S2AP[0], bit 6: reads.
    pub readable: bool,
    /// S2AP[1], bit 7: writes.
    pub writable: bool,
    /// SH, bits 9:8.
    #[bits(2)]
    pub shareability: u8,
    /// AF, bit 10: accessed.
    pub accessed: bool,
    /// FnXS, bit 11.
    pub reserved_11: bool,
    /// Output address, bits 47:12.
    #[bits(36)]
    pub frame: u64,
    /// Bits 50:48.
    #[bits(3)]
    pub reserved_48: u8,
    /// DBM, bit 51: S2AP[1] may be set by a write.
    pub dirty_bit_modifier: bool,
    /// Contiguous, bit 52.
    pub contiguous: bool,
    /// XN, bits 54:53: about execution.
    #[bits(2)]
    pub no_execute: u8,
    /// Bits 63:55, ignored.
    #[bits(9)]
    pub software: u16,
}

const _: () = assert!(Stage1Leaf::DIRTY_BIT_MODIFIER_OFFSET == 51 && Stage2Leaf::DIRTY_BIT_MODIFIER_OFFSET == 51);
const _: () = assert!(Descriptor::DIRTY_BIT_MODIFIER_OFFSET == 51 && Stage1Table::NO_UNPRIVILEGED_OFFSET == 61);
