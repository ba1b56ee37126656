//! Page requests: the record that hardware writes, the descriptor that answers, and the registers of the queue.
//!
//! VT-d specification, page request queue; facts agree in Linux `intel/prq.c` 7.3 and QEMU 10.2 `intel_iommu.c`.

use bitfield_struct::bitfield;

/// Bytes of a page request record.
pub const RECORD_BYTES: u64 = 32;
/// log2 of the records in one queue page.
pub const RECORDS_SHIFT: u32 = 7;
/// Largest group index: 9 bits.
pub const GROUP_MAX: u16 = 0x1ff;
/// Record type: page request.
pub const RECORD_PAGE_REQUEST: u8 = 1;

/// Low half of a page request record. The high half is private data.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct PageRequestRecord {
    /// Type, bits 7:0: see [`RECORD_PAGE_REQUEST`].
    pub kind: u8,
    /// PASID present, bit 8.
    pub pasid_present: bool,
    /// Private data present, bit 9; older units only.
    pub private_present: bool,
    /// Bits 15:10, reserved.
    #[bits(6)]
    pub reserved_10: u8,
    /// RID, bits 31:16.
    pub source: u16,
    /// PASID, bits 51:32.
    #[bits(20)]
    pub pasid: u32,
    /// EXE, bit 52: execute access wanted.
    pub execute: bool,
    /// PRIV, bit 53: privileged access wanted.
    pub privileged: bool,
    /// Bits 63:54, reserved.
    #[bits(10)]
    pub reserved_54: u16,
    /// RD, bit 64: read access wanted.
    pub read: bool,
    /// WR, bit 65: write access wanted.
    pub write: bool,
    /// LPIG, bit 66: last of its group, so that a response is awaited.
    pub last: bool,
    /// Group index, bits 75:67.
    #[bits(9)]
    pub group: u16,
    /// Address, bits 127:76: page number.
    #[bits(52)]
    pub page: u64,
}

/// Page group response descriptor, type 9. Linux `QI_PGRP_*` 7.3.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct PageResponseDescriptor {
    /// Type, bits 3:0.
    #[bits(4)]
    pub kind: u8,
    /// PASID_P, bit 4.
    pub pasid_present: bool,
    /// Bits 8:5, reserved.
    #[bits(4)]
    pub reserved_5: u8,
    /// Type bits 6:4, at bits 11:9.
    #[bits(3)]
    pub kind_high: u8,
    /// Response code, bits 15:12.
    #[bits(4)]
    pub code: u8,
    /// RID, bits 31:16.
    pub source: u16,
    /// PASID, bits 51:32.
    #[bits(20)]
    pub pasid: u32,
    /// Bits 63:52, reserved.
    #[bits(12)]
    pub reserved_52: u16,
    /// Bits 66:64, reserved; bit 66 was LPIG in older revisions.
    #[bits(3)]
    pub reserved_64: u8,
    /// Group index, bits 75:67.
    #[bits(9)]
    pub group: u16,
    /// Bits 127:76, reserved.
    #[bits(52)]
    pub reserved_76: u64,
}

/// PQH_REG, head of the page request queue.
pub const OFFSET_PQH: u64 = 0xc0;
/// PQT_REG, tail of the page request queue.
pub const OFFSET_PQT: u64 = 0xc8;
/// PQA_REG, place and size of the page request queue.
pub const OFFSET_PQA: u64 = 0xd0;
/// PRS_REG, 32 bits.
pub const OFFSET_PRS: u64 = 0xdc;
/// PECTL_REG, 32 bits.
pub const OFFSET_PECTL: u64 = 0xe0;
/// PEDATA_REG, 32 bits.
pub const OFFSET_PEDATA: u64 = 0xe4;
/// PEADDR_REG, 32 bits.
pub const OFFSET_PEADDR: u64 = 0xe8;
/// PEUADDR_REG, 32 bits.
pub const OFFSET_PEUADDR: u64 = 0xec;

/// PQH_REG and PQT_REG.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PageQueueIndex {
    /// Bits 4:0, reserved.
    #[bits(5)]
    pub reserved_low: u8,
    /// Bits 18:5: index of a record.
    #[bits(14)]
    pub index: u16,
    /// Bits 63:19, reserved.
    #[bits(45)]
    pub reserved_high: u64,
}

/// PQA_REG.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PageQueueAddress {
    /// PQS, bits 2:0: 2^PQS pages.
    #[bits(3)]
    pub size: u8,
    /// Bits 11:3, reserved.
    #[bits(9)]
    pub reserved: u16,
    /// Bits 63:12: frame of the queue.
    #[bits(52)]
    pub base: u64,
}

/// PRS_REG.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct PageRequestStatus {
    /// PPR, bit 0: a record was written; write 1 to clear.
    pub pending: bool,
    /// PRO, bit 1: a request found the queue full; write 1 to clear.
    pub overflow: bool,
    /// Bits 31:2, reserved.
    #[bits(30)]
    pub reserved: u32,
}

const _: () = assert!(size_of::<PageRequestRecord>() as u64 * 2 == RECORD_BYTES);
const _: () = assert!(PageRequestRecord::GROUP_OFFSET == 67 && PageRequestRecord::PAGE_OFFSET == 76);
const _: () = assert!(PageRequestRecord::PASID_OFFSET == 32 && PageRequestRecord::EXECUTE_OFFSET == 52);
const _: () = assert!(PageResponseDescriptor::GROUP_OFFSET == 67 && PageResponseDescriptor::CODE_OFFSET == 12);
