//! Control, status and feature registers. 48882 section 3.4.

use bitfield_struct::bitfield;

/// IOMMU Control Register. VB; LX agrees where it has a bit.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Control {
    /// IommuEn, bit 0.
    pub enable: bool,
    /// HtTunEn, bit 1.
    pub ht_tunnel: bool,
    /// EventLogEn, bit 2.
    pub event_log: bool,
    /// EventIntEn, bit 3.
    pub event_interrupt: bool,
    /// ComWaitIntEn, bit 4.
    pub wait_interrupt: bool,
    /// InvTimeOut, bits 7:5.
    #[bits(3)]
    pub invalidation_timeout: u8,
    /// PassPW to Isoc, bits 11:8: attributes of bus requests.
    #[bits(4)]
    pub bus_attributes: u8,
    /// CmdBufEn, bit 12.
    pub command_buffer: bool,
    /// PprLogEn, PprIntEn, PprEn, bits 15:13.
    #[bits(3)]
    pub page_requests: u8,
    /// GTEn, bit 16.
    pub guest_translation: bool,
    /// GAEn to IntCapXTEn and beyond, bits 45:17.
    #[bits(29)]
    pub other_17: u32,
    /// HADUpdate, bits 47:46: ignored here.
    #[bits(2)]
    pub host_update: u8,
    /// GDUpdateDis, bit 48.
    pub no_guest_dirty: bool,
    /// Bits 53:49.
    #[bits(5)]
    pub other_49: u8,
    /// GAUpdateDis, bit 54.
    pub no_guest_accessed: bool,
    /// Bits 57:55.
    #[bits(3)]
    pub other_55: u8,
    /// GCR3TRPMode, bit 58: the GCR3 table root pointer is an address of the guest (LX).
    pub guest_root_is_guest: bool,
    /// Bits 63:59.
    #[bits(5)]
    pub other_59: u8,
}

/// IOMMU Status Register. LX and VB.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Status {
    /// EventOverflow, bit 0: write 1 to clear.
    pub event_overflow: bool,
    /// EventLogInt, bit 1: write 1 to clear.
    pub event_interrupt: bool,
    /// ComWaitInt, bit 2: write 1 to clear.
    pub wait_interrupt: bool,
    /// EventLogRun, bit 3, read-only.
    pub event_run: bool,
    /// CmdBufRun, bit 4, read-only.
    pub command_run: bool,
    /// Bits 63:5: page requests and guest interrupts.
    #[bits(59)]
    pub other_5: u64,
}

/// Extended Feature Register. VB; LX agrees where it has a bit.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ExtendedFeatures {
    /// PreFSup, bit 0.
    pub prefetch: bool,
    /// PPRSup, bit 1.
    pub page_requests: bool,
    /// XTSup, bit 2.
    pub x2apic: bool,
    /// NXSup, bit 3.
    pub no_execute: bool,
    /// GTSup, bit 4.
    pub guest_translation: bool,
    /// Bit 5, reserved.
    pub reserved_5: bool,
    /// IASup, bit 6: INVALIDATE_IOMMU_ALL.
    pub invalidate_all: bool,
    /// GASup, HESup, PCSup, bits 9:7.
    #[bits(3)]
    pub other_7: u8,
    /// HATS, bits 11:10: see the `HATS_` constants.
    #[bits(2)]
    pub host_levels: u8,
    /// GATS, bits 13:12: see the `GATS_` constants.
    #[bits(2)]
    pub guest_levels: u8,
    /// GLXSup, bits 15:14: levels of the GCR3 table less one.
    #[bits(2)]
    pub guest_root_levels: u8,
    /// Bits 31:16.
    pub other_16: u16,
    /// PASMax, bits 36:32: bits of the largest PASID less one.
    #[bits(5)]
    pub pasid_bits: u8,
    /// USSup, bit 37: user and supervisor protection.
    pub user_supervisor: bool,
    /// Bits 45:38.
    pub other_38: u8,
    /// MsiCapMmioSup, bit 46: MSI registers at 0x158.
    pub msi_registers: bool,
    /// Bit 47, reserved.
    pub reserved_47: bool,
    /// GIoSup, bit 48: GIoV.
    pub guest_io: bool,
    /// HASup, bit 49: A of host entries.
    pub host_accessed: bool,
    /// EPHSup, bit 50.
    pub enhanced_page_requests: bool,
    /// AttrFWSup, bit 51.
    pub attribute_forward: bool,
    /// HDSup, bit 52: D of host entries.
    pub host_dirty: bool,
    /// Bits 60:53.
    pub other_53: u8,
    /// GAUpdateDisSup, bit 61.
    pub guest_update_disable: bool,
    /// Bits 63:62.
    #[bits(2)]
    pub other_62: u8,
}

/// HATS 00: four levels.
pub const HATS_4: u8 = 0;
/// HATS 01: five levels.
pub const HATS_5: u8 = 1;
/// HATS 10: six levels.
pub const HATS_6: u8 = 2;
/// GATS 00: four levels.
pub const GATS_4: u8 = 0;
/// GATS 01: five levels.
pub const GATS_5: u8 = 1;

/// Extended Feature 2 Register (LX).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ExtendedFeatures2 {
    /// Bits 2:0.
    #[bits(3)]
    pub other_0: u8,
    /// GCR3TRPMode, bit 3: [`Control::guest_root_is_guest`] can be set.
    pub guest_root_is_guest: bool,
    /// Bits 63:4.
    #[bits(60)]
    pub other_4: u64,
}

const _: () = assert!(Control::COMMAND_BUFFER_OFFSET == 12 && Control::GUEST_TRANSLATION_OFFSET == 16 && Control::HOST_UPDATE_OFFSET == 46);
const _: () = assert!(Control::NO_GUEST_ACCESSED_OFFSET == 54 && Control::GUEST_ROOT_IS_GUEST_OFFSET == 58);
const _: () = assert!(ExtendedFeatures::PASID_BITS_OFFSET == 32 && ExtendedFeatures::HOST_DIRTY_OFFSET == 52);
const _: () = assert!(ExtendedFeatures::MSI_REGISTERS_OFFSET == 46 && ExtendedFeatures::GUEST_UPDATE_DISABLE_OFFSET == 61);
