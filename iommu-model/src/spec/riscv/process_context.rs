//! Process directory: process context. Specification, "Process-Directory-Table (PDT)". Its non-leaf entry is
//! [`DirectoryEntry`](super::device_context::DirectoryEntry), its fsc a [`TablePointer`](super::device_context::TablePointer).

use bitfield_struct::bitfield;

/// Bytes of a process context.
pub const PROCESS_CONTEXT_BYTES: u64 = 16;
/// Bits of a process_id.
pub const PROCESS_ID_BITS: u32 = 20;
/// Bits of PDI\[0\], PDI\[1\], PDI\[2\]: 7:0, 16:8, 19:17.
pub const INDEX_BITS: [u32; 3] = [8, 9, 3];

/// PC.ta, the first doubleword of a process context.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ProcessAttributes {
    /// V, bit 0.
    pub valid: bool,
    /// ENS, bit 1: supervisor requests are allowed.
    pub enable_supervisor: bool,
    /// SUM, bit 2: supervisor requests may touch user pages.
    pub supervisor_user_memory: bool,
    /// Bits 11:3, reserved 0.
    #[bits(9)]
    pub reserved_3: u16,
    /// PSCID, bits 31:12.
    #[bits(20)]
    pub pscid: u32,
    /// Bits 63:32, reserved 0.
    pub reserved_32: u32,
}
