//! Event records, section 7.3: 32 bytes each.

use bitfield_struct::bitfield;
use core::fmt;

/// Bytes of a record.
pub const RECORD_BYTES: u64 = 32;

/// The number of an event. Open: any value is representable; the named ones are those that the model can generate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(pub u8);

impl EventId {
    /// Aborted without an event: STE.Config = 000, or GBPA.ABORT, or beyond OAS while SMMUEN = 0. Not an event number.
    pub const NONE: Self = Self(0x00);
    /// C_BAD_STREAMID: no stream table entry for this StreamID.
    pub const BAD_STREAM_ID: Self = Self(0x02);
    /// F_STE_FETCH: external abort on the fetch of an STE or of its level-1 descriptor.
    pub const STREAM_FETCH: Self = Self(0x03);
    /// C_BAD_STE: V = 0, or an illegal STE.
    pub const BAD_STREAM_ENTRY: Self = Self(0x04);
    /// F_BAD_ATS_TREQ: a translation request where there is no ATS.
    pub const BAD_ATS_REQUEST: Self = Self(0x05);
    /// F_STREAM_DISABLED: S1DSS forbids requests without SubstreamID, or reserves SubstreamID 0.
    pub const STREAM_DISABLED: Self = Self(0x06);
    /// F_TRANSL_FORBIDDEN: a translated request that may not pass.
    pub const TRANSLATION_FORBIDDEN: Self = Self(0x07);
    /// C_BAD_SUBSTREAMID: SubstreamID out of range, or where there are none.
    pub const BAD_SUBSTREAM_ID: Self = Self(0x08);
    /// F_CD_FETCH: external abort on the fetch of a CD or of its level-1 descriptor.
    pub const CONTEXT_FETCH: Self = Self(0x09);
    /// C_BAD_CD: V = 0, or an illegal CD.
    pub const BAD_CONTEXT: Self = Self(0x0a);
    /// F_WALK_EABT: external abort on the fetch or the update of a translation table descriptor.
    pub const WALK_ABORT: Self = Self(0x0b);
    /// F_TRANSLATION: input out of range, walk disabled, or no valid descriptor.
    pub const TRANSLATION: Self = Self(0x10);
    /// F_ADDR_SIZE: output out of range.
    pub const ADDRESS_SIZE: Self = Self(0x11);
    /// F_ACCESS: AF = 0.
    pub const ACCESS: Self = Self(0x12);
    /// F_PERMISSION.
    pub const PERMISSION: Self = Self(0x13);
    /// F_TLB_CONFLICT: several TLB entries match.
    pub const TLB_CONFLICT: Self = Self(0x20);

    /// One line for people, in our words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NONE => "aborted without an event",
            Self::BAD_STREAM_ID => "no stream table entry for the StreamID",
            Self::STREAM_FETCH => "abort fetching the stream table",
            Self::BAD_STREAM_ENTRY => "stream table entry invalid",
            Self::BAD_ATS_REQUEST => "translation request where there is no ATS",
            Self::STREAM_DISABLED => "requests of this kind are disabled",
            Self::TRANSLATION_FORBIDDEN => "translated request that may not pass",
            Self::BAD_SUBSTREAM_ID => "SubstreamID out of range",
            Self::CONTEXT_FETCH => "abort fetching the context descriptor",
            Self::BAD_CONTEXT => "context descriptor invalid",
            Self::WALK_ABORT => "abort in a translation table walk",
            Self::TRANSLATION => "no translation",
            Self::ADDRESS_SIZE => "address out of range",
            Self::ACCESS => "access flag not set",
            Self::PERMISSION => "no permission",
            Self::TLB_CONFLICT => "several TLB entries match",
            _ => "unknown event",
        }
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventId({:#04x} {})", self.0, self.text())
    }
}

/// CLASS: what kind of access a translation fault happened on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FaultClass {
    /// 00 CD: fetch of a CD or of its level-1 descriptor.
    Context,
    /// 01 TTD: access to a stage-1 table.
    Table,
    /// 10 IN: the address that the stage was given.
    Input,
}

impl FaultClass {
    /// The two bits of the record.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Context => 0,
            Self::Table => 1,
            Self::Input => 2,
        }
    }
}

/// Why a request was terminated.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Termination {
    /// The event, whether or not it is recorded.
    pub event: EventId,
    /// S2: stage 2 refused.
    pub stage_2: bool,
    /// On what access; input for what is not a translation fault.
    pub class: FaultClass,
}

/// Bits 63:0 of a record.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Record0 {
    /// Event number, bits 7:0.
    pub event: u8,
    /// Bits 10:8, RES0.
    #[bits(3)]
    pub reserved_8: u8,
    /// SSV, bit 11: the request had a SubstreamID.
    pub substream_valid: bool,
    /// SubstreamID, bits 31:12.
    #[bits(20)]
    pub substream: u32,
    /// StreamID, bits 63:32.
    pub stream: u32,
}

/// Bits 127:64 of a record.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Record1 {
    /// STAG or Reason, bits 79:64.
    pub tag: u16,
    /// Bits 94:80.
    #[bits(15)]
    pub reserved_80: u16,
    /// Stall, bit 95.
    pub stall: bool,
    /// Bit 96.
    pub reserved_96: bool,
    /// PnU, bit 97: privileged.
    pub privileged: bool,
    /// InD, bit 98: instruction.
    pub instruction: bool,
    /// RnW, bit 99: read.
    pub read: bool,
    /// Bits 102:100.
    #[bits(3)]
    pub reserved_100: u8,
    /// S2, bit 103.
    pub stage_2: bool,
    /// CLASS, bits 105:104.
    #[bits(2)]
    pub class: u8,
    /// Bits 107:106.
    #[bits(2)]
    pub reserved_106: u8,
    /// TTRnW, bit 108: on a stage-1 table, a read was refused.
    pub table_read: bool,
    /// Bits 127:109.
    #[bits(19)]
    pub reserved_109: u32,
}

const _: () = assert!(Record1::READ_OFFSET == 99 - 64 && Record1::STAGE_2_OFFSET == 103 - 64 && Record1::TABLE_READ_OFFSET == 108 - 64);
