//! Names of the registers, and which of them lies at a byte offset.

use crate::spec::amd::register::{
    OFFSET_COMMAND_BASE, OFFSET_COMMAND_HEAD, OFFSET_COMMAND_TAIL, OFFSET_CONTROL, OFFSET_DEVICE_TABLE, OFFSET_EVENT_BASE,
    OFFSET_EVENT_HEAD, OFFSET_EVENT_TAIL, OFFSET_EXCLUSION_BASE, OFFSET_EXCLUSION_LIMIT, OFFSET_EXTENDED_FEATURES,
    OFFSET_EXTENDED_FEATURES_2, OFFSET_MSI_ADDRESS_HIGH, OFFSET_MSI_ADDRESS_LOW, OFFSET_MSI_DATA, OFFSET_MSI_HEADER, OFFSET_STATUS,
};

/// A memory-mapped register.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Register {
    /// Device Table Base Address.
    DeviceTableBase,
    /// Command Buffer Base Address.
    CommandBase,
    /// Event Log Base Address.
    EventBase,
    /// IOMMU Control.
    Control,
    /// Exclusion Base.
    ExclusionBase,
    /// Exclusion Range Limit.
    ExclusionLimit,
    /// Extended Feature, read-only.
    ExtendedFeatures,
    /// MSI capability header, 32 bits.
    MsiHeader,
    /// MSI address, low half, 32 bits.
    MsiAddressLow,
    /// MSI address, high half, 32 bits.
    MsiAddressHigh,
    /// MSI data, 32 bits.
    MsiData,
    /// Extended Feature 2, read-only.
    ExtendedFeatures2,
    /// Command Buffer Head Pointer.
    CommandHead,
    /// Command Buffer Tail Pointer.
    CommandTail,
    /// Event Log Head Pointer.
    EventHead,
    /// Event Log Tail Pointer.
    EventTail,
    /// IOMMU Status.
    Status,
}

/// Offset and bytes.
const REGISTERS: [(u64, u8, Register); 17] = [
    (OFFSET_DEVICE_TABLE, 8, Register::DeviceTableBase),
    (OFFSET_COMMAND_BASE, 8, Register::CommandBase),
    (OFFSET_EVENT_BASE, 8, Register::EventBase),
    (OFFSET_CONTROL, 8, Register::Control),
    (OFFSET_EXCLUSION_BASE, 8, Register::ExclusionBase),
    (OFFSET_EXCLUSION_LIMIT, 8, Register::ExclusionLimit),
    (OFFSET_EXTENDED_FEATURES, 8, Register::ExtendedFeatures),
    (OFFSET_MSI_HEADER, 4, Register::MsiHeader),
    (OFFSET_MSI_ADDRESS_LOW, 4, Register::MsiAddressLow),
    (OFFSET_MSI_ADDRESS_HIGH, 4, Register::MsiAddressHigh),
    (OFFSET_MSI_DATA, 4, Register::MsiData),
    (OFFSET_EXTENDED_FEATURES_2, 8, Register::ExtendedFeatures2),
    (OFFSET_COMMAND_HEAD, 8, Register::CommandHead),
    (OFFSET_COMMAND_TAIL, 8, Register::CommandTail),
    (OFFSET_EVENT_HEAD, 8, Register::EventHead),
    (OFFSET_EVENT_TAIL, 8, Register::EventTail),
    (OFFSET_STATUS, 8, Register::Status),
];

impl Register {
    /// Every register.
    pub fn all() -> impl Iterator<Item = Self> {
        REGISTERS.iter().map(|(_, _, register)| *register)
    }
}

/// The register that holds the byte at an offset, where it starts, and how many bytes it has.
#[must_use]
pub fn locate_register(offset: u64) -> Option<(Register, u64, u8)> {
    let found = REGISTERS.iter().find(|(start, bytes, _)| (*start..*start + u64::from(*bytes)).contains(&offset));
    found.map(|&(start, bytes, register)| (register, start, bytes))
}
