//! Fault reasons and the fault-recording register.

use bitfield_struct::bitfield;
use core::fmt;

/// An architectural fault reason (FR, 8 bits). Open: any value is representable; the named ones are those that
/// legacy mode can generate. VT-d specification, fault conditions; facts agree in Linux `intel/dmar.c` 7.3.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FaultReason(pub u8);

impl FaultReason {
    /// Root entry not present.
    pub const ROOT_NOT_PRESENT: Self = Self(0x01);
    /// Context entry not present.
    pub const CONTEXT_NOT_PRESENT: Self = Self(0x02);
    /// Context entry with an unsupported T or AW.
    pub const CONTEXT_INVALID: Self = Self(0x03);
    /// Input address beyond MGAW or the entry's AW.
    pub const BEYOND_WIDTH: Self = Self(0x04);
    /// No write permission.
    pub const NO_WRITE: Self = Self(0x05);
    /// No read permission.
    pub const NO_READ: Self = Self(0x06);
    /// Error fetching a paging entry.
    pub const TABLE_FETCH: Self = Self(0x07);
    /// Error fetching the root entry.
    pub const ROOT_FETCH: Self = Self(0x08);
    /// Error fetching the context entry.
    pub const CONTEXT_FETCH: Self = Self(0x09);
    /// Reserved bits in a present root entry.
    pub const ROOT_RESERVED: Self = Self(0x0a);
    /// Reserved bits in a present context entry.
    pub const CONTEXT_RESERVED: Self = Self(0x0b);
    /// Reserved bits in a present paging entry.
    pub const TABLE_RESERVED: Self = Self(0x0c);
    /// Translation or translated request blocked by T.
    pub const BLOCKED_BY_TYPE: Self = Self(0x0d);
    /// Translated address in the interrupt range.
    pub const INTERRUPT_RANGE: Self = Self(0x0e);
    /// RTADDR.TTM is not a mode of this unit.
    pub const ROOT_MODE: Self = Self(0x30);
    /// Request with PASID in legacy mode.
    pub const PASID_IN_LEGACY: Self = Self(0x31);

    /// One line for people, in our words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::ROOT_NOT_PRESENT => "root entry not present",
            Self::CONTEXT_NOT_PRESENT => "context entry not present",
            Self::CONTEXT_INVALID => "context entry invalid",
            Self::BEYOND_WIDTH => "address beyond the supported width",
            Self::NO_WRITE => "no write permission",
            Self::NO_READ => "no read permission",
            Self::TABLE_FETCH => "error fetching a paging entry",
            Self::ROOT_FETCH => "error fetching the root entry",
            Self::CONTEXT_FETCH => "error fetching the context entry",
            Self::ROOT_RESERVED => "reserved bits in the root entry",
            Self::CONTEXT_RESERVED => "reserved bits in the context entry",
            Self::TABLE_RESERVED => "reserved bits in a paging entry",
            Self::BLOCKED_BY_TYPE => "request blocked by the translation type",
            Self::INTERRUPT_RANGE => "output in the interrupt range",
            Self::ROOT_MODE => "unsupported root table mode",
            Self::PASID_IN_LEGACY => "request with PASID in legacy mode",
            _ => "other",
        }
    }
}

impl fmt::Debug for FaultReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultReason({:#04x})", self.0)
    }
}

impl fmt::Display for FaultReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x} {}", self.0, self.text())
    }
}

/// Largest PASID that a record can hold: 20 bits.
pub const PASID_MAX: u32 = 0xf_ffff;

/// Fault-recording register, 16 bytes. VT-d specification, FRCD_REG; facts agree in Linux `intel/iommu.h` 7.3.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct FaultRecord {
    /// Bits 11:0, reserved.
    #[bits(12)]
    pub reserved_low: u16,
    /// FI, bits 63:12: page of the faulting address.
    #[bits(52)]
    pub page: u64,
    /// SID, bits 79:64.
    pub source: u16,
    /// Bits 91:80, reserved.
    #[bits(12)]
    pub reserved_80: u16,
    /// T2, bit 92: with T1, the kind of request.
    pub type_2: bool,
    /// PRIV, bit 93.
    pub privileged: bool,
    /// EXE, bit 94.
    pub execute: bool,
    /// PP, bit 95: the PASID field is valid.
    pub pasid_present: bool,
    /// FR, bits 103:96.
    pub reason: u8,
    /// PV, bits 123:104: PASID.
    #[bits(20)]
    pub pasid: u32,
    /// AT, bits 125:124: address type.
    #[bits(2)]
    pub address_type: u8,
    /// T1, bit 126: 1 a read, 0 a write (with T2 = 0).
    pub type_1: bool,
    /// F, bit 127: the record is valid; write 1 to clear.
    pub fault: bool,
}

const _: () = assert!(FaultRecord::REASON_OFFSET == 96 && FaultRecord::FAULT_OFFSET == 127);
