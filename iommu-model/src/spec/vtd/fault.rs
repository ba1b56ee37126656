//! Fault reasons and the fault-recording register.

use bitfield_struct::bitfield;
use core::fmt;

/// An architectural fault reason (FR, 8 bits). Open: any value is representable; the named ones are those that
/// the model can generate. VT-d specification, fault conditions; facts agree in Linux `intel/dmar.c` 7.3.
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
    /// Page request in legacy mode.
    pub const PAGE_REQUEST_IN_LEGACY: Self = Self(0x32);
    /// Scalable mode: error fetching the root entry.
    pub const SCALABLE_ROOT_FETCH: Self = Self(0x38);
    /// Scalable mode: the half of the root entry is not present.
    pub const SCALABLE_ROOT_NOT_PRESENT: Self = Self(0x39);
    /// Scalable mode: reserved bits in a present root entry.
    pub const SCALABLE_ROOT_RESERVED: Self = Self(0x3a);
    /// Scalable mode: error fetching the context entry.
    pub const SCALABLE_CONTEXT_FETCH: Self = Self(0x40);
    /// Scalable mode: context entry not present.
    pub const SCALABLE_CONTEXT_NOT_PRESENT: Self = Self(0x41);
    /// Scalable mode: reserved bits in a present context entry.
    pub const SCALABLE_CONTEXT_RESERVED: Self = Self(0x42);
    /// Translation or translated request while DTE = 0.
    pub const DEVICE_TLB_DISABLED: Self = Self(0x44);
    /// Request with PASID while PASIDE = 0.
    pub const PASID_DISABLED: Self = Self(0x45);
    /// PASID beyond the directory.
    pub const PASID_BEYOND_DIRECTORY: Self = Self(0x46);
    /// Page request while PRE = 0.
    pub const PAGE_REQUESTS_DISABLED: Self = Self(0x47);
    /// Error fetching the PASID directory entry.
    pub const DIRECTORY_FETCH: Self = Self(0x50);
    /// PASID directory entry not present.
    pub const DIRECTORY_NOT_PRESENT: Self = Self(0x51);
    /// Reserved bits in a present PASID directory entry.
    pub const DIRECTORY_RESERVED: Self = Self(0x52);
    /// Error fetching the PASID table entry.
    pub const PASID_FETCH: Self = Self(0x58);
    /// PASID table entry not present.
    pub const PASID_NOT_PRESENT: Self = Self(0x59);
    /// Reserved bits in a present PASID table entry.
    pub const PASID_RESERVED: Self = Self(0x5a);
    /// PASID table entry with a PGTT, AW or FSPM that the unit does not have.
    pub const PASID_INVALID: Self = Self(0x5b);
    /// Execute request while ERE = 0.
    pub const NO_EXECUTE_REQUESTS: Self = Self(0x5c);
    /// Privileged request while SRE = 0.
    pub const NO_SUPERVISOR: Self = Self(0x5d);
    /// Error fetching a first-stage entry below the top.
    pub const FIRST_FETCH: Self = Self(0x70);
    /// First-stage entry not present.
    pub const FIRST_NOT_PRESENT: Self = Self(0x71);
    /// Reserved bits in a present first-stage entry.
    pub const FIRST_RESERVED: Self = Self(0x72);
    /// Error fetching from the first-stage root table.
    pub const FIRST_ROOT_FETCH: Self = Self(0x73);
    /// Nested: a first-stage table lies beyond the width of the second stage.
    pub const FIRST_TABLE_BEYOND_WIDTH: Self = Self(0x74);
    /// Nested: the second stage denies a read of the first-stage root table.
    pub const FIRST_ROOT_DENIED: Self = Self(0x75);
    /// Nested: the second stage denies a read of another first-stage table.
    pub const FIRST_TABLE_DENIED: Self = Self(0x76);
    /// Nested: the second stage denies the write that sets A or D.
    pub const FIRST_UPDATE_DENIED: Self = Self(0x77);
    /// Scalable mode: error fetching a second-stage entry.
    pub const SECOND_FETCH: Self = Self(0x78);
    /// Scalable mode: a second-stage entry with neither R nor W.
    pub const SECOND_NOT_PRESENT: Self = Self(0x79);
    /// Scalable mode: reserved bits in a present second-stage entry.
    pub const SECOND_RESERVED: Self = Self(0x7a);
    /// Second-stage A or D has to be set, but walks do not snoop.
    pub const SECOND_UPDATE_NO_SNOOP: Self = Self(0x7c);
    /// First stage: the address is not canonical.
    pub const NOT_CANONICAL: Self = Self(0x80);
    /// First stage: U/S = 0 and the request is not privileged.
    pub const NOT_USER: Self = Self(0x81);
    /// No execute permission.
    pub const NO_EXECUTE: Self = Self(0x82);
    /// Scalable mode: an address that passes through lies beyond the host address width.
    pub const BEYOND_DMA_WIDTH: Self = Self(0x83);
    /// Scalable mode: input of the second stage beyond its width.
    pub const BEYOND_SECOND_WIDTH: Self = Self(0x84);
    /// Scalable mode: no write permission.
    pub const SCALABLE_NO_WRITE: Self = Self(0x85);
    /// Scalable mode: no read permission.
    pub const SCALABLE_NO_READ: Self = Self(0x86);
    /// Scalable mode: translated address in the interrupt range.
    pub const SCALABLE_INTERRUPT_RANGE: Self = Self(0x87);
    /// First-stage A or D has to be set, but walks do not snoop.
    pub const FIRST_UPDATE_NO_SNOOP: Self = Self(0x90);
    /// Setting A or D in a first-stage entry failed.
    pub const FIRST_UPDATE_FAILED: Self = Self(0x91);

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
            Self::PAGE_REQUEST_IN_LEGACY => "page request in legacy mode",
            Self::SCALABLE_ROOT_FETCH => "error fetching the scalable-mode root entry",
            Self::SCALABLE_ROOT_NOT_PRESENT => "scalable-mode root entry not present",
            Self::SCALABLE_ROOT_RESERVED => "reserved bits in the scalable-mode root entry",
            Self::SCALABLE_CONTEXT_FETCH => "error fetching the scalable-mode context entry",
            Self::SCALABLE_CONTEXT_NOT_PRESENT => "scalable-mode context entry not present",
            Self::SCALABLE_CONTEXT_RESERVED => "reserved bits in the scalable-mode context entry",
            Self::DEVICE_TLB_DISABLED => "device TLB disabled",
            Self::PAGE_REQUESTS_DISABLED => "page requests disabled",
            Self::PASID_DISABLED => "requests with PASID are disabled",
            Self::PASID_BEYOND_DIRECTORY => "PASID beyond the directory",
            Self::DIRECTORY_FETCH => "error fetching the PASID directory entry",
            Self::DIRECTORY_NOT_PRESENT => "PASID directory entry not present",
            Self::DIRECTORY_RESERVED => "reserved bits in the PASID directory entry",
            Self::PASID_FETCH => "error fetching the PASID entry",
            Self::PASID_NOT_PRESENT => "PASID entry not present",
            Self::PASID_RESERVED => "reserved bits in the PASID entry",
            Self::PASID_INVALID => "PASID entry invalid",
            Self::NO_EXECUTE_REQUESTS => "execute requests are disabled",
            Self::NO_EXECUTE => "no execute permission",
            Self::NO_SUPERVISOR => "privileged requests are disabled",
            Self::FIRST_FETCH => "error fetching a first-stage entry",
            Self::FIRST_NOT_PRESENT => "first-stage entry not present",
            Self::FIRST_RESERVED => "reserved bits in a first-stage entry",
            Self::FIRST_ROOT_FETCH => "error fetching the top first-stage entry",
            Self::FIRST_TABLE_BEYOND_WIDTH => "first-stage table beyond the supported width",
            Self::FIRST_ROOT_DENIED => "the second stage denies reading the top first-stage table",
            Self::FIRST_TABLE_DENIED => "the second stage denies reading a first-stage table",
            Self::FIRST_UPDATE_DENIED => "the second stage denies setting A or D in a first-stage table",
            Self::SECOND_FETCH => "error fetching a second-stage entry",
            Self::SECOND_NOT_PRESENT => "second-stage entry not present",
            Self::SECOND_RESERVED => "reserved bits in a second-stage entry",
            Self::SECOND_UPDATE_NO_SNOOP => "second-stage A or D to be set without snooping",
            Self::NOT_CANONICAL => "address not canonical",
            Self::NOT_USER => "no user permission",
            Self::BEYOND_DMA_WIDTH => "address beyond the width of DMA",
            Self::BEYOND_SECOND_WIDTH => "input beyond the width of the second stage",
            Self::SCALABLE_NO_WRITE => "no write permission",
            Self::SCALABLE_NO_READ => "no read permission",
            Self::SCALABLE_INTERRUPT_RANGE => "output in the interrupt range",
            Self::FIRST_UPDATE_NO_SNOOP => "first-stage A or D to be set without snooping",
            Self::FIRST_UPDATE_FAILED => "setting A or D in a first-stage entry failed",
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

/// AT 00: an untranslated request, or none that has an address type.
pub const AT_UNTRANSLATED: u8 = 0;
/// AT 01: a translation request.
pub const AT_TRANSLATION: u8 = 1;
/// AT 10: a translated request.
pub const AT_TRANSLATED: u8 = 2;

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
