//! Event log. 48882 section 2.5.

use bitfield_struct::bitfield;
use core::fmt;

/// Bytes of an event log entry.
pub const EVENT_BYTES: u64 = 16;

/// Event code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventCode(pub u8);

impl EventCode {
    /// ILLEGAL_DEV_TABLE_ENTRY.
    pub const ILLEGAL_DEVICE_ENTRY: Self = Self(1);
    /// IO_PAGE_FAULT.
    pub const PAGE_FAULT: Self = Self(2);
    /// DEV_TAB_HARDWARE_ERROR.
    pub const DEVICE_TABLE_HARDWARE: Self = Self(3);
    /// PAGE_TAB_HARDWARE_ERROR.
    pub const PAGE_TABLE_HARDWARE: Self = Self(4);
    /// ILLEGAL_COMMAND_ERROR.
    pub const ILLEGAL_COMMAND: Self = Self(5);
    /// COMMAND_HARDWARE_ERROR.
    pub const COMMAND_HARDWARE: Self = Self(6);
    /// IOTLB_INV_TIMEOUT.
    pub const IOTLB_TIMEOUT: Self = Self(7);
    /// INVALID_DEVICE_REQUEST.
    pub const INVALID_DEVICE_REQUEST: Self = Self(8);

    /// The name of the event.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ILLEGAL_DEVICE_ENTRY => "ILLEGAL_DEV_TABLE_ENTRY",
            Self::PAGE_FAULT => "IO_PAGE_FAULT",
            Self::DEVICE_TABLE_HARDWARE => "DEV_TAB_HARDWARE_ERROR",
            Self::PAGE_TABLE_HARDWARE => "PAGE_TAB_HARDWARE_ERROR",
            Self::ILLEGAL_COMMAND => "ILLEGAL_COMMAND_ERROR",
            Self::COMMAND_HARDWARE => "COMMAND_HARDWARE_ERROR",
            Self::IOTLB_TIMEOUT => "IOTLB_INV_TIMEOUT",
            Self::INVALID_DEVICE_REQUEST => "INVALID_DEVICE_REQUEST",
            _ => "other event",
        }
    }
}

impl fmt::Debug for EventCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventCode({self})")
    }
}

impl fmt::Display for EventCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} {}", self.0, self.name())
    }
}

/// Flags of an event, bits 59:48 of its first quadword; which of them count depends on the code. VB; LX for I and RW.
#[bitfield(u16)]
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventFlags {
    /// GN, bit 48: the address is one of a guest translation, and the PASID counts.
    pub guest: bool,
    /// NX, bit 49: of a page fault.
    pub no_execute: bool,
    /// US, bit 50: of a page fault, a user request.
    pub user: bool,
    /// I, bit 51: an interrupt request.
    pub interrupt: bool,
    /// PR, bit 52: of a page fault, the page was present.
    pub present: bool,
    /// RW, bit 53: a write.
    pub write: bool,
    /// PE, bit 54: of a page fault, no permission.
    pub permission: bool,
    /// RZ, bit 55: a reserved bit was not zero; 0 for an invalid level.
    pub reserved_not_zero: bool,
    /// TR, bit 56: a translation request.
    pub translation: bool,
    /// Type, bits 58:57: of a hardware error, see [`HARDWARE_TARGET_ABORT`].
    #[bits(2)]
    pub hardware: u8,
    /// Bit 59, reserved.
    #[bits(5)]
    pub reserved: u8,
}

/// Type of a hardware error: a target abort, for requests of devices.
pub const HARDWARE_TARGET_ABORT: u8 = 2;
/// Type of a hardware error: a data error, for commands.
pub const HARDWARE_DATA_ERROR: u8 = 3;

/// First quadword of an event; the second is an address.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct EventWord {
    /// DeviceID, bits 15:0.
    pub device: u16,
    /// PASID 19:16, bits 19:16.
    #[bits(4)]
    pub pasid_high: u8,
    /// Bits 31:20, reserved.
    #[bits(12)]
    pub reserved_20: u16,
    /// DomainID, or PASID 15:0, bits 47:32.
    pub domain_or_pasid: u16,
    /// Flags, bits 59:48.
    #[bits(12)]
    pub flags: u16,
    /// Event code, bits 63:60.
    #[bits(4)]
    pub code: u8,
}

/// Bits of a PASID in [`EventWord::domain_or_pasid`]; the rest is in [`EventWord::pasid_high`].
pub const PASID_LOW_BITS: u32 = 16;
/// What of a PASID without its low bits finds room in [`EventWord::pasid_high`].
pub const PASID_HIGH_MASK: u32 = (1 << EventWord::PASID_HIGH_BITS) - 1;
/// Low address bits that are reserved in ILLEGAL_DEV_TABLE_ENTRY. VB.
pub const ILLEGAL_ENTRY_RESERVED_LOW: u64 = 3;

const _: () = assert!(EventWord::FLAGS_OFFSET == 48 && EventFlags::WRITE_OFFSET == 53 - 48 && EventFlags::HARDWARE_OFFSET == 57 - 48);
