//! What a unit can do, and the capability registers that say so.

use crate::addr::Pa;
use crate::spec::vtd::capability::{Cap, Ecap, SAGAW_39, SAGAW_48, SAGAW_57, SSLPS_1G, SSLPS_2M};
use crate::spec::vtd::context::{AW_39, AW_48, AW_57};
use crate::spec::vtd::register::{OFFSET_FRCD, OFFSET_IVA};

/// Capabilities of one remapping unit. The default is a plain server-like unit with everything modelled switched on
/// except what makes software's life easier (ESRTPS) or harder (CM, RWBF); one fault record, as shipped parts have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// CAP.ESRTPS: SRTP invalidates every cache.
    pub root_switch_invalidates: bool,
    /// CAP.PSI: page-selective invalidation. Without it the model performs such a request domain-wide (assumption).
    pub page_selective: bool,
    /// CAP.MAMV, 0 to 63: largest AM of a page-selective invalidation.
    pub mask_max: u8,
    /// CAP.CM: not-present entries may be cached.
    pub caching_mode: bool,
    /// CAP.SSLPS bit 0.
    pub superpage_2m: bool,
    /// CAP.SSLPS bit 1.
    pub superpage_1g: bool,
    /// CAP.SAGAW bit 1.
    pub three_level: bool,
    /// CAP.SAGAW bit 2.
    pub four_level: bool,
    /// CAP.SAGAW bit 3.
    pub five_level: bool,
    /// CAP.ND, 0 to 6: 2^(4 + 2 ND) domains. Higher DID bits of a context entry count as reserved (assumption).
    pub domains: u8,
    /// CAP.DRD.
    pub read_drain: bool,
    /// CAP.DWD.
    pub write_drain: bool,
    /// CAP.MGAW plus 1: input address bits, 1 to 64.
    pub guest_width: u8,
    /// Host address width in bits, 13 to 52; software learns it from the DMAR table, not from a register.
    pub host_width: u8,
    /// CAP.RWBF: stores may sit in a write buffer. The buffer itself belongs to the caller.
    pub write_buffer: bool,
    /// CAP.NFR plus 1: fault records, 1 to 256.
    pub fault_records: u16,
    /// ECAP.C: table fetches see CPU caches. Only reported: whose store a fetch sees is the caller's business.
    pub coherent: bool,
    /// ECAP.DT: device-TLB descriptors and T=01 are allowed.
    pub device_tlb: bool,
    /// ECAP.DIT: no more invalidations are under way to a device than the descriptor says. Never more than 32 are, in all.
    pub device_throttle: bool,
    /// ECAP.PRS and PDS: page requests, and wait descriptors that drain them. Only with scalable mode.
    pub page_requests: bool,
    /// ECAP.ADMS: TTM 11 aborts every request.
    pub abort_mode: bool,
    /// ECAP.IR: reported; interrupt remapping itself is not modelled.
    pub interrupt_remapping: bool,
    /// ECAP.PT: T=10 is allowed.
    pub pass_through: bool,
    /// ECAP.SC: SNP is allowed in leaves.
    pub snoop_control: bool,
    /// ECAP.SMTS: scalable mode, and what of it.
    pub scalable: Option<Scalable>,
}

/// Capabilities that count in scalable mode only. The default has everything modelled switched on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scalable {
    /// ECAP.FSTS: first stage.
    pub first_stage: bool,
    /// CAP.FS5LP: five first-stage levels.
    pub first_stage_5: bool,
    /// CAP.FS1GP: 1 GiB leaves in the first stage. 2 MiB leaves are always there (assumption).
    pub first_stage_1g: bool,
    /// ECAP.SSTS: second stage.
    pub second_stage: bool,
    /// ECAP.NEST: first stage on second stage.
    pub nested: bool,
    /// ECAP.PASID: requests may carry a PASID.
    pub pasid: bool,
    /// ECAP.PSS plus 1: bits of a PASID, 1 to 20.
    pub pasid_bits: u8,
    /// ECAP.RPS: RID_PASID counts; else it is PASID 0.
    pub rid_pasid: bool,
    /// ECAP.RPRIVS: RID_PRIV counts.
    pub rid_privileged: bool,
    /// ECAP.SRS: SRE may allow privileged requests.
    pub supervisor_requests: bool,
    /// ECAP.SSADS: SSADE counts.
    pub second_stage_accessed_dirty: bool,
    /// ECAP.ERS: ERE and SSEE may allow execute requests.
    pub execute_requests: bool,
    /// ECAP.EAFS: EAFE counts.
    pub extended_accessed: bool,
    /// ECAP.SMPWC: walks snoop where PWSNP says so; else A and D cannot be set.
    pub walk_coherent: bool,
}

impl Default for Scalable {
    fn default() -> Self {
        Self {
            first_stage: true,
            first_stage_5: true,
            first_stage_1g: true,
            second_stage: true,
            nested: true,
            pasid: true,
            pasid_bits: 20,
            rid_pasid: true,
            rid_privileged: true,
            supervisor_requests: true,
            execute_requests: true,
            extended_accessed: true,
            second_stage_accessed_dirty: true,
            walk_coherent: true,
        }
    }
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            root_switch_invalidates: false,
            page_selective: true,
            mask_max: 18,
            caching_mode: false,
            superpage_2m: true,
            superpage_1g: true,
            three_level: true,
            four_level: true,
            five_level: true,
            domains: 6,
            read_drain: true,
            write_drain: true,
            guest_width: 57,
            host_width: 52,
            write_buffer: false,
            fault_records: 1,
            coherent: true,
            device_tlb: true,
            device_throttle: false,
            page_requests: false,
            abort_mode: false,
            interrupt_remapping: false,
            pass_through: true,
            snoop_control: true,
            scalable: None,
        }
    }
}

impl Capabilities {
    /// CAP_REG.
    #[must_use]
    pub fn cap(&self) -> u64 {
        let scalable = |has: fn(Scalable) -> bool| self.scalable.is_some_and(has);
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        Cap::new()
            .with_domains(self.domains)
            .with_write_buffer_flush(self.write_buffer)
            .with_caching_mode(self.caching_mode)
            .with_sagaw(flag(self.three_level, SAGAW_39) | flag(self.four_level, SAGAW_48) | flag(self.five_level, SAGAW_57))
            .with_mgaw(self.guest_width - 1)
            .with_fault_offset((OFFSET_FRCD / 16) as u16)
            .with_superpages(flag(self.superpage_2m, SSLPS_2M) | flag(self.superpage_1g, SSLPS_1G))
            .with_page_selective(self.page_selective)
            .with_fault_records((self.fault_records - 1) as u8)
            .with_mask_max(self.mask_max)
            .with_write_drain(self.write_drain)
            .with_read_drain(self.read_drain)
            .with_root_switch_invalidates(self.root_switch_invalidates)
            .with_first_stage_5(scalable(|s| s.first_stage_5))
            .with_first_stage_1g(scalable(|s| s.first_stage_1g))
            .into_bits()
    }

    /// ECAP_REG.
    #[must_use]
    pub fn ecap(&self) -> u64 {
        let scalable = |has: fn(Scalable) -> bool| self.scalable.is_some_and(has);
        Ecap::new()
            .with_scalable(self.scalable.is_some())
            .with_first_stage(scalable(|s| s.first_stage))
            .with_second_stage(scalable(|s| s.second_stage))
            .with_nested(scalable(|s| s.nested))
            .with_pasid(scalable(|s| s.pasid))
            .with_pasid_bits(self.scalable.map_or(0, |s| s.pasid_bits - 1))
            .with_rid_pasid(scalable(|s| s.rid_pasid))
            .with_rid_privileged(scalable(|s| s.rid_privileged))
            .with_supervisor_requests(scalable(|s| s.supervisor_requests))
            .with_execute_requests(scalable(|s| s.execute_requests))
            .with_extended_accessed(scalable(|s| s.extended_accessed))
            .with_device_throttle(self.device_throttle)
            .with_page_requests(self.page_requests)
            .with_page_request_drain(self.page_requests)
            .with_abort_mode(self.abort_mode)
            .with_second_stage_accessed_dirty(scalable(|s| s.second_stage_accessed_dirty))
            .with_scalable_walk_coherent(scalable(|s| s.walk_coherent))
            .with_coherent(self.coherent)
            .with_queued_invalidation(true)
            .with_device_tlb(self.device_tlb)
            .with_interrupt_remapping(self.interrupt_remapping)
            .with_pass_through(self.pass_through)
            .with_snoop_control(self.snoop_control)
            .with_iotlb_offset((OFFSET_IVA / 16) as u16)
            .into_bits()
    }

    /// Panics on values outside the field comments.
    pub(crate) fn assert_valid(&self) {
        assert!(self.mask_max < 64, "MAMV has 6 bits");
        assert!(self.domains <= 6, "ND above 6 is reserved");
        assert!((1..=64).contains(&self.guest_width), "MGAW is 1 to 64 bits");
        assert!((13..=52).contains(&self.host_width), "the host address width is 13 to 52 bits");
        assert!((1..=256).contains(&self.fault_records), "NFR is 1 to 256 records");
        if let Some(scalable) = self.scalable {
            assert!((1..=20).contains(&scalable.pasid_bits), "a PASID has 1 to 20 bits");
        }
        assert!(!self.page_requests || self.scalable.is_some(), "page requests need scalable mode");
    }

    /// Levels of the second stage for an AW code, if the unit supports it.
    pub(crate) const fn levels(&self, address_width: u8) -> Option<u8> {
        match address_width {
            AW_39 if self.three_level => Some(3),
            AW_48 if self.four_level => Some(4),
            AW_57 if self.five_level => Some(5),
            _ => None,
        }
    }

    /// Whether a DID needs no more bits than ND gives.
    pub(crate) const fn domain_fits(&self, domain: u16) -> bool {
        let bits = 4 + 2 * self.domains as u32;
        bits >= u16::BITS || domain >> bits == 0
    }

    /// Whether the frame of a pointer lies below the host address width.
    pub(crate) const fn frame_fits(&self, pa: Pa) -> bool {
        pa.0 >> self.host_width == 0
    }

    /// Whether a leaf may stand at this level.
    pub(crate) const fn leaf_allowed(&self, level: u8) -> bool {
        match level {
            1 => true,
            2 => self.superpage_2m,
            3 => self.superpage_1g,
            _ => false,
        }
    }
}
