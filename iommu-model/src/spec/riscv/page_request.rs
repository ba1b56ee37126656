//! Records of the page-request queue, and page request group responses. Specification, "Page-Request-Queue (PQ)".

use bitfield_struct::bitfield;

/// PCIe message code of a page request: iotval of its fault record.
pub const PAGE_REQUEST_CODE: u64 = 0x04;
/// Bytes of a record.
pub const PAGE_REQUEST_BYTES: u64 = 16;

/// First doubleword of a record.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PageRequestRecord {
    /// Bits 11:0, reserved.
    #[bits(12)]
    pub reserved_0: u16,
    /// PID, bits 31:12.
    #[bits(20)]
    pub process: u32,
    /// PV, bit 32.
    pub process_valid: bool,
    /// PRIV, bit 33.
    pub privileged: bool,
    /// EXEC, bit 34.
    pub execute: bool,
    /// Bits 39:35, reserved.
    #[bits(5)]
    pub reserved_35: u8,
    /// DID, bits 63:40.
    #[bits(24)]
    pub device: u32,
}

/// Second doubleword: the message's body.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PageRequestPayload {
    /// R, bit 0.
    pub read: bool,
    /// W, bit 1.
    pub write: bool,
    /// L, bit 2: last request of its group.
    pub last: bool,
    /// Page request group index, bits 11:3.
    #[bits(9)]
    pub group: u16,
    /// Page address, bits 63:12.
    #[bits(52)]
    pub page: u64,
}
