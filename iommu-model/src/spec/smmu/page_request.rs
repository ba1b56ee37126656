//! PRI queue entries, chapter 8: 16 bytes each. The layout as Linux 7.3 `arm-smmu-v3.h` has it.

use bitfield_struct::bitfield;

/// Bytes of an entry.
pub const PAGE_REQUEST_BYTES: u64 = 16;

/// Bits 63:0 of an entry.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PageRequest0 {
    /// StreamID, bits 31:0.
    pub stream: u32,
    /// SubstreamID, bits 51:32.
    #[bits(20)]
    pub substream: u32,
    /// Bits 57:52.
    #[bits(6)]
    pub reserved_52: u8,
    /// Privileged, bit 58.
    pub privileged: bool,
    /// Execute, bit 59.
    pub execute: bool,
    /// Read, bit 60.
    pub read: bool,
    /// Write, bit 61.
    pub write: bool,
    /// Last, bit 62.
    pub last: bool,
    /// SSV, bit 63: the SubstreamID counts.
    pub substream_valid: bool,
}

/// Bits 127:64 of an entry.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PageRequest1 {
    /// Page request group index, bits 72:64.
    #[bits(9)]
    pub group: u16,
    /// Bits 75:73.
    #[bits(3)]
    pub reserved_73: u8,
    /// Address, bits 127:76: a page number.
    #[bits(52)]
    pub page: u64,
}

/// What of a PASID is the SubstreamID.
pub const SUBSTREAM_MASK: u32 = (1 << PageRequest0::SUBSTREAM_BITS) - 1;
/// What of a number is a group index.
pub const GROUP_MASK: u16 = (1 << PageRequest1::GROUP_BITS) - 1;

const _: () = assert!(PageRequest0::READ_OFFSET == 60 && PageRequest0::SUBSTREAM_OFFSET == 32 && PageRequest1::PAGE_OFFSET == 12);
