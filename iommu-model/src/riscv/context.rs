//! Device and process contexts: decoded, and checked as the specification's "Device-context configuration checks" and
//! "Process-context configuration checks" list it.
//!
//! The unit is little-endian and knows no 32-bit schemes (capabilities.END and fctl.GXL are hardwired to 0), so that SBE
//! and SXL must be 0. Custom encodings are not supported modes.

use super::capability::Capabilities;
use super::id::{Gscid, Pscid};
use crate::addr::{Pa, Pfn};
use crate::spec::riscv::device_context::{
    MODE_BARE, MODE_MSI_FLAT, MODE_MSI_OFF, MessagePages, SecondStagePointer, TablePointer, TranslationAttributes, TranslationControl,
};
use crate::spec::riscv::fault::Cause;
use crate::spec::riscv::paging::SECOND_STAGE_ROOT_FRAMES;
use crate::spec::riscv::process_context::ProcessAttributes;

/// A first or second stage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stage {
    /// The root table.
    pub root: Pa,
    /// Levels, 3 to 5; 0 is Bare: no translation and no protection.
    pub levels: u8,
}

impl Stage {
    /// No translation.
    pub const BARE: Self = Self { root: Pa(0), levels: 0 };

    /// Whether addresses pass as they are.
    #[must_use]
    pub const fn is_bare(self) -> bool {
        self.levels == 0
    }
}

/// The MSI page table of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageTable {
    /// The table.
    pub root: Pa,
    /// msi_addr_mask: page-number bits that number the interrupt file.
    pub mask: u64,
    /// msi_addr_pattern: what the other bits must be.
    pub pattern: u64,
}

/// A decoded device context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceContext {
    /// EN_ATS.
    pub ats: bool,
    /// EN_PRI.
    pub page_requests: bool,
    /// T2GPA.
    pub t2gpa: bool,
    /// DTF.
    pub disable_faults: bool,
    /// PRPR.
    pub response_pasid: bool,
    /// GADE.
    pub second_update: bool,
    /// SADE.
    pub first_update: bool,
    /// DPE.
    pub default_process: bool,
    /// GSCID; counts unless the second stage is Bare.
    pub gscid: Gscid,
    /// PSCID; counts unless PDTV.
    pub pscid: Pscid,
    /// iohgatp.
    pub second: Stage,
    /// Whether fsc is a process directory (PDTV).
    pub has_directory: bool,
    /// iosatp, or the process directory with its levels, 1 to 3; 0 is Bare.
    pub first: Stage,
    /// msiptp, unless Off.
    pub messages: Option<MessageTable>,
}

impl DeviceContext {
    pub(crate) const BLANK: Self = Self {
        ats: false,
        page_requests: false,
        t2gpa: false,
        disable_faults: false,
        response_pasid: false,
        second_update: false,
        first_update: false,
        default_process: false,
        gscid: Gscid(0),
        pscid: Pscid(0),
        second: Stage::BARE,
        has_directory: false,
        first: Stage::BARE,
        messages: None,
    };

    /// The GSCID, if there is a second stage.
    pub(crate) const fn guest(&self) -> Option<Gscid> {
        if self.second.is_bare() { None } else { Some(self.gscid) }
    }

    /// Decodes the doublewords of a context; in base format the last four are 0.
    ///
    /// # Errors
    ///
    /// DDT entry not valid, or misconfigured.
    pub(crate) fn decode(words: &[u64; 8], cap: &Capabilities) -> Result<Self, Cause> {
        let tc = TranslationControl::from_bits(words[0]);
        if !tc.valid() {
            return Err(Cause::DDT_INVALID);
        }
        Self::decode_valid(tc, words, cap).ok_or(Cause::DDT_MISCONFIGURED)
    }

    /// `None` if it is misconfigured.
    fn decode_valid(tc: TranslationControl, words: &[u64; 8], cap: &Capabilities) -> Option<Self> {
        let pointer = SecondStagePointer::from_bits(words[1]);
        let ta = TranslationAttributes::from_bits(words[2]);
        let fsc = TablePointer::from_bits(words[3]);
        let qos = !cap.qosid && (ta.rcid() != 0 || ta.mcid() != 0);
        let reserved = tc.reserved_12() != 0
            || tc.reserved_32() != 0
            || ta.reserved_0() != 0
            || ta.reserved_32() != 0
            || qos
            || fsc.reserved() != 0
            || tc.big_endian()
            || tc.narrow();
        let ats = !cap.ats && (tc.enable_ats() || tc.enable_pri() || tc.response_pasid());
        let alone = (!tc.enable_ats() && (tc.t2gpa() || tc.enable_pri())) || (!tc.enable_pri() && tc.response_pasid());
        let t2gpa = tc.t2gpa() && (!cap.t2gpa || pointer.mode() == MODE_BARE);
        let updates = !cap.amo_hwad && (tc.first_stage_update() || tc.second_stage_update());
        let default = tc.default_process() && !tc.process_directory();
        if reserved || ats || alone || t2gpa || updates || default {
            return None;
        }
        let first_levels = match fsc.mode() {
            MODE_BARE => 0,
            mode if tc.process_directory() => cap.process_levels(mode)?,
            mode => cap.first_levels(mode)?,
        };
        let second = match pointer.mode() {
            MODE_BARE => Stage::BARE,
            mode => {
                let levels = cap.second_levels(mode)?;
                if !pointer.ppn().is_multiple_of(SECOND_STAGE_ROOT_FRAMES) {
                    return None;
                }
                Stage { root: Pfn(pointer.ppn()).pa(), levels }
            }
        };
        Some(Self {
            ats: tc.enable_ats(),
            page_requests: tc.enable_pri(),
            t2gpa: tc.t2gpa(),
            disable_faults: tc.disable_faults(),
            response_pasid: tc.response_pasid(),
            second_update: tc.second_stage_update(),
            first_update: tc.first_stage_update(),
            default_process: tc.default_process(),
            gscid: Gscid(pointer.gscid()),
            pscid: Pscid(ta.pscid()),
            second,
            has_directory: tc.process_directory(),
            first: Stage { root: Pfn(fsc.ppn()).pa(), levels: first_levels },
            messages: decode_messages(words, cap)?,
        })
    }
}

/// The MSI fields of an extended context; the outer `None` if they are misconfigured.
fn decode_messages(words: &[u64; 8], cap: &Capabilities) -> Option<Option<MessageTable>> {
    if !cap.msi_flat {
        return Some(None);
    }
    let pointer = TablePointer::from_bits(words[4]);
    let [mask, pattern] = [words[5], words[6]].map(MessagePages::from_bits);
    if pointer.reserved() != 0 || mask.reserved() != 0 || pattern.reserved() != 0 || words[7] != 0 {
        return None;
    }
    match pointer.mode() {
        MODE_MSI_OFF => Some(None),
        MODE_MSI_FLAT => Some(Some(MessageTable { root: Pfn(pointer.ppn()).pa(), mask: mask.pages(), pattern: pattern.pages() })),
        _ => None,
    }
}

/// A decoded process context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProcessContext {
    /// ENS.
    pub supervisor: bool,
    /// SUM.
    pub supervisor_user_memory: bool,
    /// PSCID.
    pub pscid: Pscid,
    /// fsc.
    pub first: Stage,
}

impl ProcessContext {
    pub(crate) const BLANK: Self = Self { supervisor: false, supervisor_user_memory: false, pscid: Pscid(0), first: Stage::BARE };

    /// Decodes the doublewords of a context.
    ///
    /// # Errors
    ///
    /// PDT entry not valid, or misconfigured.
    pub(crate) fn decode(words: [u64; 2], cap: &Capabilities) -> Result<Self, Cause> {
        let ta = ProcessAttributes::from_bits(words[0]);
        let fsc = TablePointer::from_bits(words[1]);
        if !ta.valid() {
            return Err(Cause::PDT_INVALID);
        }
        if ta.reserved_3() != 0 || ta.reserved_32() != 0 || fsc.reserved() != 0 {
            return Err(Cause::PDT_MISCONFIGURED);
        }
        let levels = match fsc.mode() {
            MODE_BARE => 0,
            mode => cap.first_levels(mode).ok_or(Cause::PDT_MISCONFIGURED)?,
        };
        Ok(Self {
            supervisor: ta.enable_supervisor(),
            supervisor_user_memory: ta.supervisor_user_memory(),
            pscid: Pscid(ta.pscid()),
            first: Stage { root: Pfn(fsc.ppn()).pa(), levels },
        })
    }
}
