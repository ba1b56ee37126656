//! Stream table: level-1 descriptor and stream table entry (STE).

use bitfield_struct::bitfield;

/// Bytes of a level-1 stream table descriptor.
pub const LEVEL_1_BYTES: u64 = 8;
/// Bytes of a stream table entry.
pub const STREAM_ENTRY_BYTES: u64 = 64;
/// Largest Span that is not reserved.
pub const SPAN_MAX: u8 = 11;

/// Level-1 stream table descriptor, section 5.1.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct StreamLevel1 {
    /// Span, bits 4:0: the level-2 table has 2^(Span - 1) entries; 0 and what is above 11 means that there is none.
    #[bits(5)]
    pub span: u8,
    /// Bit 5, RES0.
    pub reserved_5: bool,
    /// L2Ptr, bits 55:6: address of the level-2 table in units of 64 bytes; aligned to its size by the SMMU.
    #[bits(50)]
    pub table: u64,
    /// Bits 63:56, RES0.
    pub reserved_56: u8,
}

/// Bits 63:0 of a stream table entry, section 5.2.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct StreamEntry0 {
    /// V, bit 0.
    pub valid: bool,
    /// Config, bits 3:1: see the `CONFIG_` constants.
    #[bits(3)]
    pub config: u8,
    /// S1Fmt, bits 5:4: see the `FORMAT_` constants.
    #[bits(2)]
    pub format: u8,
    /// S1ContextPtr, bits 55:6: address of the CD or the CD table in units of 64 bytes; an IPA if stage 2 is on.
    #[bits(50)]
    pub context: u64,
    /// Bits 58:56, RES0.
    #[bits(3)]
    pub reserved_56: u8,
    /// S1CDMax, bits 63:59: log2 of the number of CDs.
    #[bits(5)]
    pub context_bits: u8,
}

/// Bits 127:64 of a stream table entry.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct StreamEntry1 {
    /// S1DSS, bits 65:64: see the `DEFAULT_` constants.
    #[bits(2)]
    pub default_substream: u8,
    /// S1CIR, S1COR, S1CSH, bits 71:66: memory attributes of CD fetches.
    #[bits(6)]
    pub context_attributes: u8,
    /// S2HWU59 to S2HWU62, DRE, bits 76:72.
    #[bits(5)]
    pub reserved_72: u8,
    /// CONT, bits 80:77: 2^CONT neighbouring entries are identical (hint).
    #[bits(4)]
    pub contiguous: u8,
    /// DCP, PPAR, bits 82:81.
    #[bits(2)]
    pub reserved_81: u8,
    /// MEV, bit 83: similar fault records may be merged.
    pub merge_events: bool,
    /// SW_RESERVED, S1PIE, S2FWB, S1MPAM, bits 90:84.
    #[bits(7)]
    pub reserved_84: u8,
    /// S1STALLD, bit 91.
    pub stall_disable: bool,
    /// EATS, bits 93:92.
    #[bits(2)]
    pub ats: u8,
    /// STRW, bits 95:94: StreamWorld; ignored by units without EL2.
    #[bits(2)]
    pub world: u8,
    /// MemAttr to INSTCFG, bits 115:96: attribute overrides; see the `OVERRIDES_` constants.
    #[bits(20)]
    pub attributes: u32,
    /// Bits 127:116.
    #[bits(12)]
    pub reserved_116: u16,
}

/// Bits 191:128 of a stream table entry.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct StreamEntry2 {
    /// S2VMID, bits 143:128. Counts for stage-1-only streams too.
    pub vmid: u16,
    /// Bits 159:144.
    pub reserved_144: u16,
    /// S2T0SZ, bits 165:160: the input has 64 - S2T0SZ bits.
    #[bits(6)]
    pub input_size: u8,
    /// S2SL0, bits 167:166: starting level, coded by granule.
    #[bits(2)]
    pub start_level: u8,
    /// S2IR0, S2OR0, S2SH0, bits 173:168: memory attributes of table walks.
    #[bits(6)]
    pub walk_attributes: u8,
    /// S2TG, bits 175:174: granule, coded as CD.TG0.
    #[bits(2)]
    pub granule: u8,
    /// S2PS, bits 178:176: output size, coded as IDR5.OAS.
    #[bits(3)]
    pub output_size: u8,
    /// S2AA64, bit 179: VMSAv8-64 tables.
    pub aarch64: bool,
    /// S2ENDI, bit 180: big-endian tables.
    pub big_endian: bool,
    /// S2AFFD, bit 181: AF = 0 does not fault.
    pub access_flag_fault_disable: bool,
    /// S2PTW, bit 182: walks of stage 1 into device memory fault.
    pub protected_walk: bool,
    /// S2HD, bit 183: dirty state is maintained.
    pub hardware_dirty: bool,
    /// S2HA, bit 184: AF is maintained.
    pub hardware_access: bool,
    /// S2S, bit 185: stage-2 faults stall.
    pub stall: bool,
    /// S2R, bit 186: stage-2 faults are recorded.
    pub record: bool,
    /// Bits 191:187.
    #[bits(5)]
    pub reserved_187: u8,
}

/// Bits 255:192 of a stream table entry. What follows, up to bit 511, is reserved or of features that are not modelled.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct StreamEntry3 {
    /// S2NSW, S2NSA and others, bits 195:192.
    #[bits(4)]
    pub reserved_192: u8,
    /// S2TTB, bits 243:196: address of the stage-2 table in units of 16 bytes.
    #[bits(48)]
    pub table: u64,
    /// Bits 255:244.
    #[bits(12)]
    pub reserved_244: u16,
}

/// EATS 01: full ATS, translation at every stage that is on.
pub const ATS_FULL: u8 = 1;
/// EATS 10: split-stage ATS, devices hold IPAs.
pub const ATS_SPLIT: u8 = 2;

/// Overrides of MemAttr, MTCFG, ALLOCCFG, SHCFG, NSCFG: what a request is that no stage 1 has looked at.
pub const OVERRIDES_MEMORY: u32 = 0x0_ffff;
/// Overrides of PRIVCFG, INSTCFG: what a request is before any stage.
pub const OVERRIDES_ACCESS: u32 = 0xf_0000;

/// Config 100: both stages bypassed.
pub const CONFIG_BYPASS: u8 = 0b100;
/// Config 101: stage 1.
pub const CONFIG_STAGE_1: u8 = 0b101;
/// Config 110: stage 2.
pub const CONFIG_STAGE_2: u8 = 0b110;
/// Config 111: both.
pub const CONFIG_NESTED: u8 = 0b111;
/// The bit of Config without which everything is aborted.
pub const CONFIG_PASSES: u8 = 0b100;
/// The bit of Config that switches stage 1 on.
pub const CONFIG_HAS_STAGE_1: u8 = 0b001;
/// The bit of Config that switches stage 2 on.
pub const CONFIG_HAS_STAGE_2: u8 = 0b010;

/// S1Fmt 00, and 11 too: linear table.
pub const FORMAT_LINEAR: u8 = 0;
/// S1Fmt 01: two levels, 64 CDs in a leaf table.
pub const FORMAT_2_LEVEL_4K: u8 = 1;
/// S1Fmt 10: two levels, 1024 CDs in a leaf table.
pub const FORMAT_2_LEVEL_64K: u8 = 2;

/// S1DSS 00, and 11 too: requests without SubstreamID are refused.
pub const DEFAULT_TERMINATE: u8 = 0;
/// S1DSS 01: they bypass stage 1.
pub const DEFAULT_BYPASS: u8 = 1;
/// S1DSS 10: they use the first CD.
pub const DEFAULT_FIRST: u8 = 2;

const _: () = assert!(StreamEntry0::CONTEXT_BITS_OFFSET == 59 && StreamEntry1::MERGE_EVENTS_OFFSET == 83 - 64);
const _: () = assert!(StreamEntry1::STALL_DISABLE_OFFSET == 91 - 64 && StreamEntry1::WORLD_OFFSET == 94 - 64);
const _: () = assert!(StreamEntry2::OUTPUT_SIZE_OFFSET == 176 - 128 && StreamEntry2::RECORD_OFFSET == 186 - 128);
