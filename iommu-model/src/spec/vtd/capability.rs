//! CAP_REG (0x08), ECAP_REG (0x10) and VER_REG (0x00).

use bitfield_struct::bitfield;

/// VER_REG value of the modelled units: major 6, minor 0 (a knob; nothing here depends on it).
pub const VERSION: u64 = 0x60;

/// SAGAW bit 1: 39-bit second stage.
pub const SAGAW_39: u8 = 1 << 1;
/// SAGAW bit 2: 48-bit second stage.
pub const SAGAW_48: u8 = 1 << 2;
/// SAGAW bit 3: 57-bit second stage.
pub const SAGAW_57: u8 = 1 << 3;
/// SSLPS bit 0: 2 MiB leaves.
pub const SSLPS_2M: u8 = 1 << 0;
/// SSLPS bit 1: 1 GiB leaves.
pub const SSLPS_1G: u8 = 1 << 1;

/// CAP_REG. VT-d specification, capability register; facts agree in Linux `intel/iommu.h` 7.3.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Cap {
    /// ND, bits 2:0: 2^(4 + 2 ND) domains.
    #[bits(3)]
    pub domains: u8,
    /// AFL, bit 3: advanced fault logging.
    pub advanced_fault_log: bool,
    /// RWBF, bit 4: software must flush the write buffer.
    pub write_buffer_flush: bool,
    /// PLMR, bit 5.
    pub protected_low: bool,
    /// PHMR, bit 6.
    pub protected_high: bool,
    /// CM, bit 7: caching mode.
    pub caching_mode: bool,
    /// SAGAW, bits 12:8.
    #[bits(5)]
    pub sagaw: u8,
    /// Bits 15:13, reserved.
    #[bits(3)]
    pub reserved_13: u8,
    /// MGAW, bits 21:16: largest guest address width minus 1.
    #[bits(6)]
    pub mgaw: u8,
    /// ZLR, bit 22: zero-length reads of write-only pages.
    pub zero_length_read: bool,
    /// Bit 23, reserved.
    pub reserved_23: bool,
    /// FRO, bits 33:24: fault records at 16 x FRO.
    #[bits(10)]
    pub fault_offset: u16,
    /// SSLPS, bits 37:34.
    #[bits(4)]
    pub superpages: u8,
    /// Bit 38, reserved.
    pub reserved_38: bool,
    /// PSI, bit 39: page-selective invalidation.
    pub page_selective: bool,
    /// NFR, bits 47:40: fault records minus 1.
    pub fault_records: u8,
    /// MAMV, bits 53:48: largest AM.
    #[bits(6)]
    pub mask_max: u8,
    /// DWD, bit 54: write draining.
    pub write_drain: bool,
    /// DRD, bit 55: read draining.
    pub read_drain: bool,
    /// FS1GP, bit 56: 1 GiB leaves in the first stage.
    pub first_stage_1g: bool,
    /// Bits 59:57, not modelled.
    #[bits(3)]
    pub other_57: u8,
    /// FS5LP, bit 60: five levels in the first stage.
    pub first_stage_5: bool,
    /// Bits 62:61, not modelled.
    #[bits(2)]
    pub other_61: u8,
    /// ESRTPS, bit 63: SRTP invalidates everything.
    pub root_switch_invalidates: bool,
}

/// ECAP_REG. VT-d specification, extended capability register; facts agree in Linux `intel/iommu.h` 7.3.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Ecap {
    /// C, bit 0: table fetches snoop CPU caches.
    pub coherent: bool,
    /// QI, bit 1: invalidation queue.
    pub queued_invalidation: bool,
    /// DT, bit 2: device TLB.
    pub device_tlb: bool,
    /// IR, bit 3.
    pub interrupt_remapping: bool,
    /// EIM, bit 4.
    pub extended_interrupt_mode: bool,
    /// Bit 5, reserved.
    pub reserved_5: bool,
    /// PT, bit 6: pass-through.
    pub pass_through: bool,
    /// SC, bit 7: snoop control.
    pub snoop_control: bool,
    /// IRO, bits 17:8: IOTLB registers at 16 x IRO.
    #[bits(10)]
    pub iotlb_offset: u16,
    /// Bits 25:18, not modelled.
    pub other_18: u8,
    /// NEST, bit 26: nested translation.
    pub nested: bool,
    /// Bits 28:27, not modelled.
    #[bits(2)]
    pub other_27: u8,
    /// PRS, bit 29: page requests.
    pub page_requests: bool,
    /// ERS, bit 30: execute requests.
    pub execute_requests: bool,
    /// SRS, bit 31: privileged requests.
    pub supervisor_requests: bool,
    /// Bits 33:32, not modelled.
    #[bits(2)]
    pub other_32: u8,
    /// EAFS, bit 34: extended accessed bit.
    pub extended_accessed: bool,
    /// PSS, bits 39:35: PASIDs have PSS + 1 bits.
    #[bits(5)]
    pub pasid_bits: u8,
    /// PASID, bit 40: requests with PASID.
    pub pasid: bool,
    /// DIT, bit 41: invalidations of device TLBs are throttled by what the descriptor says.
    pub device_throttle: bool,
    /// PDS, bit 42: a wait descriptor can drain page requests.
    pub page_request_drain: bool,
    /// SMTS, bit 43: scalable mode.
    pub scalable: bool,
    /// VCS, bit 44.
    pub virtual_commands: bool,
    /// SSADS, bit 45: second-stage A and D bits.
    pub second_stage_accessed_dirty: bool,
    /// SSTS, bit 46: second stage in scalable mode.
    pub second_stage: bool,
    /// FSTS, bit 47: first stage.
    pub first_stage: bool,
    /// SMPWC, bit 48: walks below the PASID entry can snoop.
    pub scalable_walk_coherent: bool,
    /// RPS, bit 49: RID_PASID counts.
    pub rid_pasid: bool,
    /// Bits 51:50, not modelled.
    #[bits(2)]
    pub other_50: u8,
    /// ADMS, bit 52: abort-DMA mode.
    pub abort_mode: bool,
    /// RPRIVS, bit 53: RID_PRIV counts.
    pub rid_privileged: bool,
    /// Bits 63:54, not modelled.
    #[bits(10)]
    pub other_54: u16,
}

const _: () = assert!(Cap::MASK_MAX_OFFSET == 48 && Cap::FAULT_OFFSET_OFFSET == 24 && Cap::SUPERPAGES_OFFSET == 34);
const _: () = assert!(Cap::FIRST_STAGE_1G_OFFSET == 56 && Cap::FIRST_STAGE_5_OFFSET == 60 && Ecap::RID_PRIVILEGED_OFFSET == 53);
const _: () = assert!(Ecap::SCALABLE_OFFSET == 43 && Ecap::PASID_BITS_OFFSET == 35 && Ecap::NESTED_OFFSET == 26);
const _: () = assert!(Ecap::IOTLB_OFFSET_OFFSET == 8 && Ecap::SNOOP_CONTROL_OFFSET == 7);
