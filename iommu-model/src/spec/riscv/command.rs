//! Commands of the command queue, 16 bytes each. Specification, "Command-Queue (CQ)".

use bitfield_struct::bitfield;

/// Bytes of a command.
pub const COMMAND_BYTES: u64 = 16;
/// opcode: page-table caches.
pub const OPCODE_IOTINVAL: u8 = 1;
/// opcode: fence.
pub const OPCODE_IOFENCE: u8 = 2;
/// opcode: directory caches.
pub const OPCODE_IODIR: u8 = 3;
/// opcode: messages to devices.
pub const OPCODE_ATS: u8 = 4;
/// func3 of IOTINVAL: first stage.
pub const FUNC_VMA: u8 = 0;
/// func3 of IOTINVAL: second stage.
pub const FUNC_GVMA: u8 = 1;
/// func3 of IOFENCE.
pub const FUNC_FENCE_C: u8 = 0;
/// func3 of IODIR: device directory.
pub const FUNC_INVAL_DDT: u8 = 0;
/// func3 of IODIR: process directory.
pub const FUNC_INVAL_PDT: u8 = 1;
/// func3 of ATS: invalidation request.
pub const FUNC_ATS_INVAL: u8 = 0;
/// func3 of ATS: page request group response.
pub const FUNC_ATS_PRGR: u8 = 1;

/// What every command has.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct AnyCommand {
    /// opcode, bits 6:0.
    #[bits(7)]
    pub opcode: u8,
    /// func3, bits 9:7.
    #[bits(3)]
    pub func3: u8,
    /// Operands, bits 127:10.
    #[bits(118)]
    pub operands: u128,
}

/// IOTINVAL.VMA and IOTINVAL.GVMA.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct InvalidateCommand {
    /// opcode, bits 6:0.
    #[bits(7)]
    pub opcode: u8,
    /// func3, bits 9:7.
    #[bits(3)]
    pub func3: u8,
    /// AV, bit 10: the address counts.
    pub address_valid: bool,
    /// Bit 11, reserved 0.
    pub reserved_11: bool,
    /// PSCID, bits 31:12.
    #[bits(20)]
    pub pscid: u32,
    /// PSCV, bit 32: the PSCID counts.
    pub pscid_valid: bool,
    /// GV, bit 33: the GSCID counts.
    pub gscid_valid: bool,
    /// NL, bit 34: non-leaf entries too; reserved 0 without capabilities.NL.
    pub non_leaf: bool,
    /// Bits 43:35, reserved 0.
    #[bits(9)]
    pub reserved_35: u16,
    /// GSCID, bits 59:44.
    pub gscid: u16,
    /// Bits 63:60, reserved 0.
    #[bits(4)]
    pub reserved_60: u8,
    /// Bits 72:64, reserved 0.
    #[bits(9)]
    pub reserved_64: u16,
    /// S, bit 73: the address is a range; reserved 0 without capabilities.S.
    pub range: bool,
    /// ADDR\[63:12\], bits 125:74.
    #[bits(52)]
    pub page: u64,
    /// Bits 127:126, reserved 0.
    #[bits(2)]
    pub reserved_126: u8,
}

/// IOFENCE.C.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct FenceCommand {
    /// opcode, bits 6:0.
    #[bits(7)]
    pub opcode: u8,
    /// func3, bits 9:7.
    #[bits(3)]
    pub func3: u8,
    /// AV, bit 10: store the data.
    pub address_valid: bool,
    /// WSI, bit 11: raise the wire; reserved 0 without fctl.WSI.
    pub wire: bool,
    /// PR, bit 12: earlier reads first.
    pub reads: bool,
    /// PW, bit 13: earlier writes first.
    pub writes: bool,
    /// Bits 31:14, reserved 0.
    #[bits(18)]
    pub reserved_14: u32,
    /// DATA, bits 63:32.
    pub data: u32,
    /// ADDR\[63:2\], bits 125:64: in units of 4 bytes.
    #[bits(62)]
    pub address: u64,
    /// Bits 127:126, reserved 0.
    #[bits(2)]
    pub reserved_126: u8,
}

/// IODIR.INVAL_DDT and IODIR.INVAL_PDT.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct DirectoryCommand {
    /// opcode, bits 6:0.
    #[bits(7)]
    pub opcode: u8,
    /// func3, bits 9:7.
    #[bits(3)]
    pub func3: u8,
    /// Bits 11:10, reserved 0.
    #[bits(2)]
    pub reserved_10: u8,
    /// PID, bits 31:12; reserved 0 in INVAL_DDT.
    #[bits(20)]
    pub process: u32,
    /// Bit 32, reserved 0.
    pub reserved_32: bool,
    /// DV, bit 33: the DID counts.
    pub device_valid: bool,
    /// Bits 39:34, reserved 0.
    #[bits(6)]
    pub reserved_34: u8,
    /// DID, bits 63:40.
    #[bits(24)]
    pub device: u32,
    /// Bits 127:64, reserved 0.
    #[bits(64)]
    pub reserved_64: u64,
}

/// ATS.INVAL and ATS.PRGR.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct AtsCommand {
    /// opcode, bits 6:0.
    #[bits(7)]
    pub opcode: u8,
    /// func3, bits 9:7.
    #[bits(3)]
    pub func3: u8,
    /// Bits 11:10, reserved 0.
    #[bits(2)]
    pub reserved_10: u8,
    /// PID, bits 31:12.
    #[bits(20)]
    pub process: u32,
    /// PV, bit 32: the PID counts.
    pub process_valid: bool,
    /// DSV, bit 33: the segment counts.
    pub segment_valid: bool,
    /// Bits 39:34, reserved 0.
    #[bits(6)]
    pub reserved_34: u8,
    /// RID, bits 55:40.
    pub requester: u16,
    /// DSEG, bits 63:56.
    pub segment: u8,
    /// PAYLOAD, bits 127:64: the message's body.
    #[bits(64)]
    pub payload: u64,
}
