//! Fault records and causes. Specification, "Fault/Event-Queue (FQ)".

use bitfield_struct::bitfield;
use core::fmt;

/// Bytes of a fault record.
pub const FAULT_RECORD_BYTES: u64 = 32;

/// CAUSE of a fault record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cause(pub u16);

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        impl Cause {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            /// The name of the cause in the specification's words.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($code => $text,)*
                    _ => "reserved",
                }
            }
        }
    };
}

causes! {
    /// Read for execution where there is no memory.
    INSTRUCTION_ACCESS = 1, "instruction access fault";
    /// Read of a misaligned address.
    READ_MISALIGNED = 4, "read address misaligned";
    /// Read where there is no memory.
    READ_ACCESS = 5, "read access fault";
    /// Write of a misaligned address.
    WRITE_MISALIGNED = 6, "write address misaligned";
    /// Write where there is no memory.
    WRITE_ACCESS = 7, "write access fault";
    /// First stage refuses a read for execution.
    INSTRUCTION_PAGE = 12, "instruction page fault";
    /// First stage refuses a read.
    READ_PAGE = 13, "read page fault";
    /// First stage refuses a write.
    WRITE_PAGE = 15, "write page fault";
    /// Second stage refuses a read for execution.
    INSTRUCTION_GUEST_PAGE = 20, "instruction guest page fault";
    /// Second stage refuses a read.
    READ_GUEST_PAGE = 21, "read guest page fault";
    /// Second stage refuses a write.
    WRITE_GUEST_PAGE = 23, "write guest page fault";
    /// ddtp.iommu_mode is Off.
    ALL_DISALLOWED = 256, "all inbound transactions disallowed";
    /// No memory at a device directory entry.
    DDT_LOAD = 257, "DDT entry load access fault";
    /// A device directory entry is not valid.
    DDT_INVALID = 258, "DDT entry not valid";
    /// A device directory entry is misconfigured.
    DDT_MISCONFIGURED = 259, "DDT entry misconfigured";
    /// This kind of request is not allowed.
    TYPE_DISALLOWED = 260, "transaction type disallowed";
    /// No memory at an MSI page-table entry.
    MSI_LOAD = 261, "MSI PTE load access fault";
    /// An MSI page-table entry is not valid.
    MSI_INVALID = 262, "MSI PTE not valid";
    /// An MSI page-table entry is misconfigured.
    MSI_MISCONFIGURED = 263, "MSI PTE misconfigured";
    /// No memory at a memory-resident interrupt file.
    MRIF_ACCESS = 264, "MRIF access fault";
    /// No memory at a process directory entry.
    PDT_LOAD = 265, "PDT entry load access fault";
    /// A process directory entry is not valid.
    PDT_INVALID = 266, "PDT entry not valid";
    /// A process directory entry is misconfigured.
    PDT_MISCONFIGURED = 267, "PDT entry misconfigured";
    /// Corrupted device directory entry.
    DDT_CORRUPTED = 268, "DDT data corruption";
    /// Corrupted process directory entry.
    PDT_CORRUPTED = 269, "PDT data corruption";
    /// Corrupted MSI page-table entry.
    MSI_CORRUPTED = 270, "MSI PT data corruption";
    /// Corrupted memory-resident interrupt file.
    MRIF_CORRUPTED = 271, "MSI MRIF data corruption";
    /// Error inside the unit.
    INTERNAL = 272, "internal data path error";
    /// The unit's own interrupt message found no memory.
    MESSAGE_ACCESS = 273, "IOMMU MSI write access fault";
    /// Corrupted page-table entry.
    TABLE_CORRUPTED = 274, "first/second-stage PT data corruption";
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0, self.name())
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cause({self})")
    }
}

/// TTYP: not from a request.
pub const TTYP_NONE: u8 = 0;
/// TTYP: untranslated read for execution.
pub const TTYP_EXECUTE: u8 = 1;
/// TTYP: untranslated read.
pub const TTYP_READ: u8 = 2;
/// TTYP: untranslated write.
pub const TTYP_WRITE: u8 = 3;
/// What TTYP of a translated request is above that of the same untranslated one.
pub const TTYP_TRANSLATED: u8 = 4;
/// TTYP: ATS translation request.
pub const TTYP_TRANSLATION_REQUEST: u8 = 8;
/// TTYP: message request.
pub const TTYP_MESSAGE: u8 = 9;

/// First doubleword of a fault record. The second is reserved and custom; the third is iotval, the fourth [`FaultValue2`].
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct FaultRecord {
    /// CAUSE, bits 11:0.
    #[bits(12)]
    pub cause: u16,
    /// PID, bits 31:12.
    #[bits(20)]
    pub process: u32,
    /// PV, bit 32.
    pub process_valid: bool,
    /// PRIV, bit 33.
    pub privileged: bool,
    /// TTYP, bits 39:34.
    #[bits(6)]
    pub transaction_type: u8,
    /// DID, bits 63:40.
    #[bits(24)]
    pub device: u32,
}

/// iotval2, the fourth doubleword: of guest page faults.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct FaultValue2 {
    /// Bit 0: the address is that of a first-stage or process directory entry.
    pub implicit: bool,
    /// Bit 1: the implicit access was a write.
    pub implicit_write: bool,
    /// Bits 63:2: guest-physical address in units of 4 bytes.
    #[bits(62)]
    pub address: u64,
}
