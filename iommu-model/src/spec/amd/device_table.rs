//! Device table. 48882 section 2.2.2.

use bitfield_struct::bitfield;

/// Bytes of a device table entry; the table is indexed by device id.
pub const DEVICE_ENTRY_BYTES: u64 = 32;

/// Bits 127:0 of a device table entry. Checked by the unit when V is set. LX and VB agree on every row but those that say
/// otherwise.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct DeviceEntryLow {
    /// V, bit 0: bits 127:1 count. With V = 0 addresses pass untranslated.
    pub valid: bool,
    /// TV, bit 1: host page table root, mode and access permissions are valid for translation.
    pub translation_valid: bool,
    /// Bits 6:2, reserved 0 (6:4 are CXL attributes in revision 3.11).
    #[bits(5)]
    pub reserved_2: u8,
    /// HAD, bits 8:7: see the `HAD_` constants.
    #[bits(2)]
    pub host_access_dirty: u8,
    /// Mode, bits 11:9: levels of the host page table, 0 none, 7 reserved.
    #[bits(3)]
    pub mode: u8,
    /// Host page table root, bits 51:12: a frame.
    #[bits(40)]
    pub root: u64,
    /// PPR, bit 52.
    pub page_requests: bool,
    /// GPRP, bit 53.
    pub page_response_pasid: bool,
    /// GIoV, bit 54: requests without PASID are translated as those of PASID 0.
    pub guest_io_valid: bool,
    /// GV, bit 55: guest translation is valid.
    pub guest_valid: bool,
    /// GLX, bits 57:56: levels of the GCR3 table less one, 3 reserved.
    #[bits(2)]
    pub guest_levels: u8,
    /// GCR3 table root pointer 14:12, bits 60:58.
    #[bits(3)]
    pub guest_root_12: u8,
    /// IR, bit 61: reads are allowed.
    pub read: bool,
    /// IW, bit 62: writes are allowed.
    pub write: bool,
    /// Bit 63, reserved 0.
    pub reserved_63: bool,
    /// DomainID, bits 79:64.
    pub domain: u16,
    /// GCR3 table root pointer 30:15, bits 95:80.
    pub guest_root_15: u16,
    /// I, bit 96: ATS is allowed.
    pub iotlb: bool,
    /// SE, bit 97: page faults of the device are logged once.
    pub suppress_repeated: bool,
    /// SA, bit 98: page faults of the device are not logged.
    pub suppress_all: bool,
    /// IoCtl, bits 100:99.
    #[bits(2)]
    pub port_io: u8,
    /// Cache, bit 101.
    pub cache: bool,
    /// SD, bit 102.
    pub snoop_disable: bool,
    /// EX, bit 103: the exclusion range holds for the device.
    pub exclusion: bool,
    /// SysMgt, bits 105:104.
    #[bits(2)]
    pub system_management: u8,
    /// SATS, bit 106 (reserved in VB).
    pub secure_ats: bool,
    /// GCR3 table root pointer 51:31, bits 127:107.
    #[bits(21)]
    pub guest_root_31: u32,
}

impl DeviceEntryLow {
    /// Frame of the GCR3 table root.
    #[must_use]
    pub const fn guest_root(self) -> u64 {
        self.guest_root_12() as u64 | (self.guest_root_15() as u64) << 3 | (self.guest_root_31() as u64) << 19
    }

    /// The same with another frame of the GCR3 table root.
    #[must_use]
    pub const fn with_guest_root(self, frame: u64) -> Self {
        self.with_guest_root_12((frame & 7) as u8)
            .with_guest_root_15((frame >> 3) as u16)
            .with_guest_root_31(((frame >> 19) & 0x1f_ffff) as u32)
    }
}

/// Bits 255:128 of a device table entry: interrupt remapping, and the depth of guest page tables.
#[bitfield(u128)]
#[derive(PartialEq, Eq)]
pub struct DeviceEntryHigh {
    /// IV, IntTabLen, IG, IntRoot, bits 179:128: interrupt remapping.
    #[bits(52)]
    pub interrupt_table: u64,
    /// Bits 181:180, reserved 0 when IV is set.
    #[bits(2)]
    pub reserved_180: u8,
    /// GuestPagingMode, bits 183:182: see the `GUEST_PAGING_` constants (LX; reserved in VB).
    #[bits(2)]
    pub guest_paging: u8,
    /// InitPass to Lint1Pass, bits 191:184: interrupt remapping.
    pub interrupt_pass: u8,
    /// Bits 245:192, reserved 0 when IV is set.
    #[bits(54)]
    pub reserved_192: u64,
    /// AttrV, Mode0FC, Snoop Attribute, bits 255:246.
    #[bits(10)]
    pub attributes: u16,
}

/// HAD 01: A of host entries is set.
pub const HAD_ACCESSED: u8 = 1;
/// HAD 11: A and D of host entries are set.
pub const HAD_ACCESSED_DIRTY: u8 = 3;

/// GuestPagingMode 00: four levels.
pub const GUEST_PAGING_4: u8 = 0;
/// GuestPagingMode 01: five levels.
pub const GUEST_PAGING_5: u8 = 1;

const _: () = assert!(DeviceEntryLow::MODE_OFFSET == 9 && DeviceEntryLow::READ_OFFSET == 61 && DeviceEntryLow::DOMAIN_OFFSET == 64);
const _: () = assert!(DeviceEntryLow::IOTLB_OFFSET == 96 && DeviceEntryLow::GUEST_ROOT_31_OFFSET == 107);
const _: () = assert!(DeviceEntryHigh::GUEST_PAGING_OFFSET == 182 - 128 && DeviceEntryHigh::ATTRIBUTES_OFFSET == 246 - 128);
