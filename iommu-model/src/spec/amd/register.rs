//! Memory-mapped registers: offsets, bases, pointers. 48882 section 3.4. LX and VB agree but where a row says otherwise.

use bitfield_struct::bitfield;

/// Device table base.
pub const OFFSET_DEVICE_TABLE: u64 = 0x00;
/// Command buffer base.
pub const OFFSET_COMMAND_BASE: u64 = 0x08;
/// Event log base.
pub const OFFSET_EVENT_BASE: u64 = 0x10;
/// Control.
pub const OFFSET_CONTROL: u64 = 0x18;
/// Exclusion range base.
pub const OFFSET_EXCLUSION_BASE: u64 = 0x20;
/// Exclusion range limit.
pub const OFFSET_EXCLUSION_LIMIT: u64 = 0x28;
/// Extended features.
pub const OFFSET_EXTENDED_FEATURES: u64 = 0x30;
/// MSI capability header, 32 bits.
pub const OFFSET_MSI_HEADER: u64 = 0x158;
/// MSI address, low half, 32 bits.
pub const OFFSET_MSI_ADDRESS_LOW: u64 = 0x15c;
/// MSI address, high half, 32 bits.
pub const OFFSET_MSI_ADDRESS_HIGH: u64 = 0x160;
/// MSI data, 32 bits.
pub const OFFSET_MSI_DATA: u64 = 0x164;
/// Extended features 2 (LX).
pub const OFFSET_EXTENDED_FEATURES_2: u64 = 0x1a0;
/// Command buffer head.
pub const OFFSET_COMMAND_HEAD: u64 = 0x2000;
/// Command buffer tail.
pub const OFFSET_COMMAND_TAIL: u64 = 0x2008;
/// Event log head.
pub const OFFSET_EVENT_HEAD: u64 = 0x2010;
/// Event log tail.
pub const OFFSET_EVENT_TAIL: u64 = 0x2018;
/// Status.
pub const OFFSET_STATUS: u64 = 0x2020;

/// Device Table Base Address Register.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct DeviceTableBase {
    /// Size, bits 8:0: 4 KiB units less one.
    #[bits(9)]
    pub size: u16,
    /// Bits 11:9, reserved.
    #[bits(3)]
    pub reserved_9: u8,
    /// Bits 51:12: a frame.
    #[bits(40)]
    pub frame: u64,
    /// Bits 63:52, reserved.
    #[bits(12)]
    pub reserved_52: u16,
}

/// Command Buffer Base Address Register and Event Log Base Address Register.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct BufferBase {
    /// Bits 11:0, reserved.
    #[bits(12)]
    pub reserved_0: u16,
    /// Bits 51:12: a frame.
    #[bits(40)]
    pub frame: u64,
    /// Bits 55:52, reserved.
    #[bits(4)]
    pub reserved_52: u8,
    /// Length, bits 59:56: log2 of the number of entries, [`BUFFER_LENGTH_MIN`] or more.
    #[bits(4)]
    pub length: u8,
    /// Bits 63:60, reserved.
    #[bits(4)]
    pub reserved_60: u8,
}

/// Smallest length code of a buffer: 256 entries.
pub const BUFFER_LENGTH_MIN: u8 = 8;

/// Head and tail pointers of either buffer.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct BufferPointer {
    /// Bits 3:0, reserved.
    #[bits(4)]
    pub reserved_0: u8,
    /// Bits 18:4: an index.
    #[bits(15)]
    pub index: u16,
    /// Bits 63:19, reserved.
    #[bits(45)]
    pub reserved_19: u64,
}

/// Exclusion Base Register.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ExclusionBase {
    /// ExEn, bit 0.
    pub enable: bool,
    /// Allow, bit 1: for every device; else for those with EX.
    pub allow: bool,
    /// Bits 11:2, reserved.
    #[bits(10)]
    pub reserved_2: u16,
    /// Bits 51:12: page number of the first page.
    #[bits(40)]
    pub page: u64,
    /// Bits 63:52, reserved.
    #[bits(12)]
    pub reserved_52: u16,
}

/// Exclusion Range Limit Register.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ExclusionLimit {
    /// Bits 11:0, reserved.
    #[bits(12)]
    pub reserved_0: u16,
    /// Bits 51:12: page number of the last page. VB has 63:12.
    #[bits(40)]
    pub page: u64,
    /// Bits 63:52, reserved.
    #[bits(12)]
    pub reserved_52: u16,
}

/// MSI capability header: the PCI layout. Only the enable bit can be written.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct MsiHeader {
    /// Capability id and next pointer, bits 15:0.
    pub id: u16,
    /// MsiEn, bit 16.
    pub enable: bool,
    /// Bits 31:17: numbers of messages, 64-bit capable.
    #[bits(15)]
    pub other: u16,
}

const _: () = assert!(DeviceTableBase::FRAME_OFFSET == 12 && BufferBase::LENGTH_OFFSET == 56 && BufferPointer::INDEX_OFFSET == 4);
