//! What a device table entry says, and which entries are illegal. 48882 section 2.2.2.

use super::capability::Capabilities;
use crate::addr::{DomainId, Pa, Pfn};
use crate::spec::amd::device_table::{DeviceEntryHigh, DeviceEntryLow, GUEST_PAGING_4, GUEST_PAGING_5, HAD_ACCESSED, HAD_ACCESSED_DIRTY};
use crate::spec::amd::event::EventFlags;

/// What becomes of addresses on the host's side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostTranslation {
    /// V = 0: every address passes untranslated, whatever the rest says.
    Invalid,
    /// TV = 0: no table walk.
    Off,
    /// Mode 0: addresses are host addresses.
    Direct,
    /// A host page table.
    Tables {
        /// Root table.
        root: Pa,
        /// Levels, 1 to 6.
        levels: u8,
    },
}

/// GV = 1: where guest translation finds its tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestTables {
    /// GCR3 table; an address of the guest under GCR3TRPMode.
    pub root: Pa,
    /// Levels of the GCR3 table, 1 to 3.
    pub root_levels: u8,
    /// Levels of guest page tables, 4 or 5.
    pub levels: u8,
    /// GIoV: requests without PASID are of PASID 0.
    pub without_pasid: bool,
}

/// A legal device table entry, as far as it matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceEntry {
    /// DomainID.
    pub domain: DomainId,
    /// Host side.
    pub host: HostTranslation,
    /// Guest side.
    pub guest: Option<GuestTables>,
    /// IR.
    pub readable: bool,
    /// IW.
    pub writable: bool,
    /// HAD: A of host entries is set.
    pub sets_accessed: bool,
    /// HAD: D of host entries is set.
    pub sets_dirty: bool,
    /// I: the device may translate for itself.
    pub device_tlb: bool,
    /// SA: page faults are not logged.
    pub suppress_all: bool,
    /// EX: the exclusion range holds.
    pub exclusion: bool,
}

impl DeviceEntry {
    /// V = 0.
    pub(crate) const BLANK: Self = Self {
        domain: DomainId(0),
        host: HostTranslation::Invalid,
        guest: None,
        readable: true,
        writable: true,
        sets_accessed: false,
        sets_dirty: false,
        device_tlb: false,
        suppress_all: false,
        exclusion: false,
    };

    /// Reads the four words of an entry.
    ///
    /// # Errors
    ///
    /// Flags of ILLEGAL_DEV_TABLE_ENTRY: with RZ a reserved bit is set, without it a level is invalid.
    pub(crate) fn decode(words: [u64; 4], cap: &Capabilities) -> Result<Self, EventFlags> {
        let low = DeviceEntryLow::from_bits(u128::from(words[0]) | u128::from(words[1]) << 64);
        let high = DeviceEntryHigh::from_bits(u128::from(words[2]) | u128::from(words[3]) << 64);
        if !low.valid() {
            return Ok(Self::BLANK);
        }
        if has_reserved_bits(low, cap) {
            return Err(EventFlags::new().with_reserved_not_zero(true));
        }
        let host = match low.mode() {
            _ if !low.translation_valid() => HostTranslation::Off,
            0 => HostTranslation::Direct,
            levels if levels <= cap.host_levels => HostTranslation::Tables { root: Pfn(low.root()).pa(), levels },
            _ => return Err(EventFlags::new()),
        };
        let guest = if low.guest_valid() && low.translation_valid() { Some(guest_tables(low, high, cap)?) } else { None };
        let had = low.host_access_dirty();
        Ok(Self {
            domain: DomainId(low.domain()),
            host,
            guest,
            readable: low.read(),
            writable: low.write(),
            sets_accessed: matches!(had, HAD_ACCESSED | HAD_ACCESSED_DIRTY),
            sets_dirty: had == HAD_ACCESSED_DIRTY,
            device_tlb: low.iotlb(),
            suppress_all: low.suppress_all(),
            exclusion: low.exclusion(),
        })
    }
}

/// Features that a unit lacks make their fields reserved. That HAD is one of them is an assumption.
fn has_reserved_bits(low: DeviceEntryLow, cap: &Capabilities) -> bool {
    let guest = low.guest_valid() || low.guest_levels() != 0 || low.guest_root() != 0;
    let had = low.host_access_dirty();
    low.reserved_2() != 0
        || low.reserved_63()
        || (guest && !cap.guest_translation)
        || (low.guest_io_valid() && !cap.guest_io)
        || ((low.page_requests() || low.page_response_pasid()) && !cap.page_requests)
        || (had != 0 && !cap.host_accessed)
        || (had == HAD_ACCESSED_DIRTY && !cap.host_dirty)
}

fn guest_tables(low: DeviceEntryLow, high: DeviceEntryHigh, cap: &Capabilities) -> Result<GuestTables, EventFlags> {
    let root_levels = low.guest_levels() + 1;
    let levels = match high.guest_paging() {
        GUEST_PAGING_4 => 4,
        GUEST_PAGING_5 => 5,
        _ => return Err(EventFlags::new()),
    };
    if root_levels > cap.guest_root_levels || levels > cap.guest_levels {
        return Err(EventFlags::new());
    }
    Ok(GuestTables { root: Pfn(low.guest_root()).pa(), root_levels, levels, without_pasid: low.guest_io_valid() })
}
