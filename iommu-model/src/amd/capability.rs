//! What a unit can do, and the registers that say so.

use crate::spec::amd::control::{ExtendedFeatures, ExtendedFeatures2, GATS_4, GATS_5, HATS_4, HATS_5, HATS_6};

/// Capabilities of one unit, and what the specification, as far as it could be read, leaves to be settled. The default has
/// everything modelled switched on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// HATS: most levels of a host page table, 4 to 6.
    pub host_levels: u8,
    /// GTSup: guest translation.
    pub guest_translation: bool,
    /// GATS: most levels of a guest page table, 4 or 5.
    pub guest_levels: u8,
    /// GLXSup: most levels of a GCR3 table, 1 to 3.
    pub guest_root_levels: u8,
    /// PASMax: bits of a PASID, 1 to 20.
    pub pasid_bits: u8,
    /// GIoSup: GIoV.
    pub guest_io: bool,
    /// GCR3TRPMode: a GCR3 table may lie in the guest.
    pub guest_root_in_guest: bool,
    /// GAUpdateDisSup: the control bits that stop A and D of guest entries count.
    pub guest_update_disable: bool,
    /// HASup: A of host entries, with HAD.
    pub host_accessed: bool,
    /// HDSup: D of host entries, with HAD.
    pub host_dirty: bool,
    /// NpCache of the PCI capability header: entries that are not present may be cached.
    pub not_present_cached: bool,
    /// IASup: INVALIDATE_IOMMU_ALL.
    pub invalidate_all: bool,
    /// IotlbSup of the PCI capability header: INVALIDATE_IOTLB_PAGES, and I of a device table entry.
    pub device_tlb: bool,
    /// PreFSup: PREFETCH_IOMMU_PAGES.
    pub prefetch: bool,
    /// PPRSup: COMPLETE_PPR_REQUEST. With EPHSup: PPR and GPRP of a device table entry.
    pub page_requests: bool,
    /// MsiCapMmioSup: the MSI registers among the memory-mapped ones.
    pub msi_registers: bool,
    /// Reserved bits of host entries are checked. Knob: VirtualBox has the masks, QEMU does not check.
    pub checks_reserved: bool,
    /// Address bits above those that the host page table decodes must be 0. Knob: the rule for skipped levels, applied
    /// to the levels above the root.
    pub checks_input_width: bool,
    /// V = 1 with TV = 0 blocks every request; else IR and IW decide, as in QEMU. Knob: the texts say only that the table
    /// walk ends there; VirtualBox blocks.
    pub blocks_without_translation: bool,
    /// A COMPLETION_WAIT lets requests that were translated before an earlier invalidation land first. Knob: recalled.
    pub wait_drains: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            host_levels: 6,
            guest_translation: true,
            guest_levels: 5,
            guest_root_levels: 3,
            pasid_bits: 20,
            guest_io: true,
            guest_root_in_guest: true,
            guest_update_disable: true,
            host_accessed: true,
            host_dirty: true,
            not_present_cached: false,
            invalidate_all: true,
            device_tlb: true,
            prefetch: true,
            page_requests: true,
            msi_registers: true,
            checks_reserved: true,
            checks_input_width: true,
            blocks_without_translation: false,
            wait_drains: true,
        }
    }
}

impl Capabilities {
    /// Extended Feature Register.
    #[must_use]
    pub fn features(&self) -> u64 {
        let host_levels = match self.host_levels {
            4 => HATS_4,
            5 => HATS_5,
            _ => HATS_6,
        };
        ExtendedFeatures::new()
            .with_prefetch(self.prefetch)
            .with_page_requests(self.page_requests)
            .with_enhanced_page_requests(self.page_requests)
            .with_guest_translation(self.guest_translation)
            .with_invalidate_all(self.invalidate_all)
            .with_host_levels(host_levels)
            .with_guest_levels(if self.guest_levels == 4 { GATS_4 } else { GATS_5 })
            .with_guest_root_levels(self.guest_root_levels - 1)
            .with_pasid_bits(self.pasid_bits - 1)
            .with_user_supervisor(self.guest_translation)
            .with_msi_registers(self.msi_registers)
            .with_guest_io(self.guest_io)
            .with_host_accessed(self.host_accessed)
            .with_host_dirty(self.host_dirty)
            .with_guest_update_disable(self.guest_update_disable)
            .into_bits()
    }

    /// Extended Feature 2 Register.
    #[must_use]
    pub fn features_2(&self) -> u64 {
        ExtendedFeatures2::new().with_guest_root_is_guest(self.guest_root_in_guest).into_bits()
    }

    /// Panics on values outside the field comments.
    pub(crate) fn assert_valid(&self) {
        assert!((4..=6).contains(&self.host_levels), "HATS is 4 to 6 levels");
        assert!((4..=5).contains(&self.guest_levels), "GATS is 4 or 5 levels");
        assert!((1..=3).contains(&self.guest_root_levels), "GLXSup is 1 to 3 levels");
        assert!((1..=20).contains(&self.pasid_bits), "PASMax is 1 to 20 bits");
        assert!(!self.host_dirty || self.host_accessed, "HDSup implies HASup");
    }
}
