//! What a unit can do, and the register that says so.

use crate::addr::Pa;
use crate::spec::riscv::capability::{CapabilitiesRegister, IGS_BOTH, IGS_MSI, IGS_WSI, VERSION_1_0};
use crate::spec::riscv::device_context::{
    BASE_CONTEXT_BYTES, BASE_INDEX_BITS, EXTENDED_CONTEXT_BYTES, EXTENDED_INDEX_BITS, MODE_PD8, MODE_PD17, MODE_PD20, MODE_SV39, MODE_SV48,
    MODE_SV57,
};

/// How the unit signals interrupts (capabilities.IGS).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InterruptSignalling {
    /// Messages.
    Messages,
    /// Wires.
    Wires,
    /// Either, as fctl.WSI says.
    Both,
}

/// Capabilities of one unit. The default has everything modelled switched on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// Sv39.
    pub sv39: bool,
    /// Sv48. Implies Sv39.
    pub sv48: bool,
    /// Sv57. Implies Sv48.
    pub sv57: bool,
    /// Sv39x4.
    pub sv39x4: bool,
    /// Sv48x4.
    pub sv48x4: bool,
    /// Sv57x4.
    pub sv57x4: bool,
    /// Svpbmt: PBMT of entries is a memory type, else reserved.
    pub svpbmt: bool,
    /// Svrsw60t59b: bits 60:59 of entries are for software, else reserved.
    pub svrsw60t59b: bool,
    /// MSI_FLAT: MSI page tables, and device contexts of 64 bytes.
    pub msi_flat: bool,
    /// MSI_MRIF: MSI page-table entries in MRIF mode.
    pub msi_mrif: bool,
    /// AMO_HWAD: A and D can be set by the unit.
    pub amo_hwad: bool,
    /// ATS.
    pub ats: bool,
    /// T2GPA.
    pub t2gpa: bool,
    /// IGS.
    pub interrupts: InterruptSignalling,
    /// DBG: translation-request registers.
    pub debug: bool,
    /// PAS, 32 to 56: bits of a physical address.
    pub physical_bits: u8,
    /// PD8.
    pub pd8: bool,
    /// PD17.
    pub pd17: bool,
    /// PD20.
    pub pd20: bool,
    /// QOSID: RCID and MCID of a device context are not reserved.
    pub qosid: bool,
    /// NL: non-leaf entries can be removed by address.
    pub non_leaf_invalidation: bool,
    /// S: address ranges in IOTINVAL.
    pub range_invalidation: bool,
    /// A, D or U set in a non-leaf entry is a page fault. Knob: the privileged specification reserves them for the
    /// future, the IOMMU reference model ignores them.
    pub reserves_non_leaf_bits: bool,
    /// ddtp.iommu_mode after reset is Bare, else Off.
    pub resets_to_bare: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            sv39: true,
            sv48: true,
            sv57: true,
            sv39x4: true,
            sv48x4: true,
            sv57x4: true,
            svpbmt: true,
            svrsw60t59b: false,
            msi_flat: true,
            msi_mrif: true,
            amo_hwad: true,
            ats: true,
            t2gpa: true,
            interrupts: InterruptSignalling::Both,
            debug: true,
            physical_bits: 56,
            pd8: true,
            pd17: true,
            pd20: true,
            qosid: false,
            non_leaf_invalidation: true,
            range_invalidation: true,
            reserves_non_leaf_bits: false,
            resets_to_bare: false,
        }
    }
}

impl Capabilities {
    /// capabilities.
    #[must_use]
    pub fn register(&self) -> u64 {
        let igs = match self.interrupts {
            InterruptSignalling::Messages => IGS_MSI,
            InterruptSignalling::Wires => IGS_WSI,
            InterruptSignalling::Both => IGS_BOTH,
        };
        CapabilitiesRegister::new()
            .with_version(VERSION_1_0)
            .with_sv39(self.sv39)
            .with_sv48(self.sv48)
            .with_sv57(self.sv57)
            .with_sv39x4(self.sv39x4)
            .with_sv48x4(self.sv48x4)
            .with_sv57x4(self.sv57x4)
            .with_svpbmt(self.svpbmt)
            .with_svrsw60t59b(self.svrsw60t59b)
            .with_msi_flat(self.msi_flat)
            .with_msi_mrif(self.msi_mrif)
            .with_amo_hwad(self.amo_hwad)
            .with_ats(self.ats)
            .with_t2gpa(self.t2gpa)
            .with_igs(igs)
            .with_dbg(self.debug)
            .with_pas(self.physical_bits)
            .with_pd8(self.pd8)
            .with_pd17(self.pd17)
            .with_pd20(self.pd20)
            .with_qosid(self.qosid)
            .with_nl(self.non_leaf_invalidation)
            .with_s(self.range_invalidation)
            .into_bits()
    }

    /// Panics on values outside the field comments.
    pub(crate) fn assert_valid(&self) {
        assert!((32..=56).contains(&self.physical_bits), "PAS is 32 to 56 bits");
        assert!(!self.sv57 || self.sv48, "Sv57 implies Sv48");
        assert!(!self.sv48 || self.sv39, "Sv48 implies Sv39");
        assert!(!self.msi_mrif || self.msi_flat, "MRIF mode needs MSI page tables");
        assert!(!self.t2gpa || self.ats, "T2GPA needs ATS");
    }

    /// Levels of the first stage for a MODE, if the unit supports it and it is not Bare.
    pub(crate) const fn first_levels(&self, mode: u8) -> Option<u8> {
        match mode {
            MODE_SV39 if self.sv39 => Some(3),
            MODE_SV48 if self.sv48 => Some(4),
            MODE_SV57 if self.sv57 => Some(5),
            _ => None,
        }
    }

    /// The same for the second stage.
    pub(crate) const fn second_levels(&self, mode: u8) -> Option<u8> {
        match mode {
            MODE_SV39 if self.sv39x4 => Some(3),
            MODE_SV48 if self.sv48x4 => Some(4),
            MODE_SV57 if self.sv57x4 => Some(5),
            _ => None,
        }
    }

    /// The same for the process directory.
    pub(crate) const fn process_levels(&self, mode: u8) -> Option<u8> {
        match mode {
            MODE_PD8 if self.pd8 => Some(1),
            MODE_PD17 if self.pd17 => Some(2),
            MODE_PD20 if self.pd20 => Some(3),
            _ => None,
        }
    }

    /// Bits of the longest process_id.
    pub(crate) const fn process_bits(&self) -> u32 {
        match (self.pd20, self.pd17, self.pd8) {
            (true, ..) => 20,
            (_, true, _) => 17,
            (_, _, true) => 8,
            _ => 0,
        }
    }

    /// Bits of DDI\[0\] to DDI\[2\].
    pub(crate) const fn device_index_bits(&self) -> [u32; 3] {
        if self.msi_flat { EXTENDED_INDEX_BITS } else { BASE_INDEX_BITS }
    }

    /// Bytes of a device context.
    pub(crate) const fn context_bytes(&self) -> u64 {
        if self.msi_flat { EXTENDED_CONTEXT_BYTES } else { BASE_CONTEXT_BYTES }
    }

    /// Whether an address is below the limit that PAS sets.
    pub(crate) const fn fits(&self, pa: Pa) -> bool {
        pa.0 >> self.physical_bits == 0
    }
}
