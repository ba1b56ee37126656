//! Identification registers, sections 6.3.1 to 6.3.6.

use bitfield_struct::bitfield;

/// SMMU_IDR0.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Idr0 {
    /// S2P, bit 0: stage 2.
    pub stage_2: bool,
    /// S1P, bit 1: stage 1.
    pub stage_1: bool,
    /// TTF, bits 3:2: 2 VMSAv8-64 only.
    #[bits(2)]
    pub table_formats: u8,
    /// COHACC, bit 4: coherent table and queue accesses.
    pub coherent: bool,
    /// BTM, bit 5: broadcast invalidation.
    pub broadcast: bool,
    /// HTTU, bits 7:6: 0 none, 1 access flag, 2 access flag and dirty state.
    #[bits(2)]
    pub hardware_update: u8,
    /// DORMHINT, bit 8.
    pub dormant_hint: bool,
    /// HYP, bit 9: EL2 StreamWorlds.
    pub hypervisor: bool,
    /// ATS, bit 10.
    pub ats: bool,
    /// NS1ATS, bit 11.
    pub no_split_ats: bool,
    /// ASID16, bit 12.
    pub asid_16: bool,
    /// MSI, bit 13.
    pub msi: bool,
    /// SEV, bit 14.
    pub send_event: bool,
    /// ATOS, bit 15.
    pub atos: bool,
    /// PRI, bit 16.
    pub page_requests: bool,
    /// VMW, bit 17.
    pub vmid_wildcards: bool,
    /// VMID16, bit 18.
    pub vmid_16: bool,
    /// CD2L, bit 19: two-level CD tables.
    pub context_2_level: bool,
    /// VATOS, bit 20.
    pub vatos: bool,
    /// TTENDIAN, bits 22:21: 2 little-endian only.
    #[bits(2)]
    pub endianness: u8,
    /// ATSRECERR, bit 23: CR2.REC_CFG_ATS counts.
    pub ats_errors: bool,
    /// STALL_MODEL, bits 25:24: 1 no stalls.
    #[bits(2)]
    pub stall_model: u8,
    /// TERM_MODEL, bit 26: terminated requests are always aborted.
    pub terminate_model: bool,
    /// ST_LEVEL, bits 28:27: 1 two-level stream tables too.
    #[bits(2)]
    pub stream_levels: u8,
    /// Bits 31:29.
    #[bits(3)]
    pub reserved_29: u8,
}

/// SMMU_IDR1.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Idr1 {
    /// SIDSIZE, bits 5:0.
    #[bits(6)]
    pub stream_bits: u8,
    /// SSIDSIZE, bits 10:6.
    #[bits(5)]
    pub substream_bits: u8,
    /// PRIQS, bits 15:11.
    #[bits(5)]
    pub page_request_queue: u8,
    /// EVENTQS, bits 20:16.
    #[bits(5)]
    pub event_queue: u8,
    /// CMDQS, bits 25:21.
    #[bits(5)]
    pub command_queue: u8,
    /// ATTR_PERMS_OVR and others, bits 31:26.
    #[bits(6)]
    pub reserved_26: u8,
}

/// SMMU_IDR3.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Idr3 {
    /// Bits 1:0.
    #[bits(2)]
    pub reserved_0: u8,
    /// HAD, bit 2: limits in table descriptors can be ignored.
    pub hierarchical_disable: bool,
    /// PBHA, XNX, bits 4:3.
    #[bits(2)]
    pub reserved_3: u8,
    /// PPS, bit 5: the unit's own answers to page requests have their PASID, whatever PPAR says.
    pub page_response_pasid: bool,
    /// Bits 9:6.
    #[bits(4)]
    pub reserved_6: u8,
    /// RIL, bit 10: range invalidation and level hint.
    pub range_invalidation: bool,
    /// BBML, bits 12:11: how page sizes may be changed without break-before-make.
    #[bits(2)]
    pub break_before_make: u8,
    /// Bits 31:13.
    #[bits(19)]
    pub reserved_13: u32,
}

/// SMMU_IDR5.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Idr5 {
    /// OAS, bits 2:0: see [`ADDRESS_SIZES`].
    #[bits(3)]
    pub output_size: u8,
    /// Bit 3.
    pub reserved_3: bool,
    /// GRAN4K, bit 4.
    pub granule_4k: bool,
    /// GRAN16K, bit 5.
    pub granule_16k: bool,
    /// GRAN64K, bit 6.
    pub granule_64k: bool,
    /// Bits 9:7.
    #[bits(3)]
    pub reserved_7: u8,
    /// VAX, bits 11:10: 0 48-bit virtual addresses.
    #[bits(2)]
    pub virtual_size: u8,
    /// Bits 31:12.
    #[bits(20)]
    pub reserved_12: u32,
}

/// Bits of an address, by the coding of OAS, IPS and S2PS.
pub const ADDRESS_SIZES: [u8; 7] = [32, 36, 40, 42, 44, 48, 52];

/// TTF: VMSAv8-64 only.
pub const FORMATS_AARCH64: u8 = 2;
/// TTENDIAN: little-endian only.
pub const ENDIAN_LITTLE: u8 = 2;
/// STALL_MODEL: no stalls.
pub const STALL_NONE: u8 = 1;
/// SMMU_AIDR of SMMUv3.2.
pub const ARCHITECTURE_3_2: u32 = 2;

const _: () = assert!(Idr0::ENDIANNESS_OFFSET == 21 && Idr0::STREAM_LEVELS_OFFSET == 27 && Idr1::COMMAND_QUEUE_OFFSET == 21);
