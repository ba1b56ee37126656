//! What a context descriptor says, decoded once and then cached.
//!
//! Validity as IHI 0070 section 5.4.2 `CdIllegal` for an SMMUv3.2 without EL2, stalls, AArch32 and small tables.

use super::capability::Capabilities;
use super::ids::Asid;
use super::tables::{Tables, granule_0, granule_1};
use crate::spec::smmu::context::{Context0, ContextTable, SIZE_MAX, SIZE_MIN};

/// Bytes of one unit of TTB.
const TABLE_UNIT: u64 = 16;

/// One half of the virtual address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Half {
    /// The tables; `None` if EPD forbids walks.
    pub tables: Option<Tables>,
    /// TBI.
    pub ignores_top_byte: bool,
    /// HAD.
    pub ignores_limits: bool,
}

/// A valid context descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContextConfig {
    /// ASID.
    pub asid: Asid,
    /// Addresses with bit 55 clear, and with it set.
    pub halves: [Half; 2],
    /// HA.
    pub updates_access: bool,
    /// HD, where HA is set too.
    pub updates_dirty: bool,
    /// AFFD.
    pub ignores_access: bool,
    /// R.
    pub records: bool,
    /// PAN.
    pub privileged_access_never: bool,
}

impl ContextConfig {
    pub(crate) const NONE: Self = Self {
        asid: Asid(0),
        halves: [Half { tables: None, ignores_top_byte: false, ignores_limits: false }; 2],
        updates_access: false,
        updates_dirty: false,
        ignores_access: false,
        records: true,
        privileged_access_never: false,
    };
}

/// Decodes the three words that count. `None` if the descriptor is invalid or illegal.
pub(crate) fn decode_context(words: [u64; 3], cap: &Capabilities) -> Option<ContextConfig> {
    let entry = Context0::from_bits(words[0]);
    if !entry.valid() || !entry.aarch64() || !entry.abort() || entry.stall() {
        return None;
    }
    let walks = !entry.disable_0() || !entry.disable_1();
    if (walks && entry.big_endian()) || (!cap.asid_16 && entry.asid() > 0xff) {
        return None;
    }
    let (access, dirty) = (entry.hardware_access(), entry.hardware_dirty());
    if ((access || dirty) && !cap.updates_access()) || (dirty && !cap.updates_dirty()) {
        return None;
    }
    let output_bits = cap.output_bits_of(entry.output_size());
    let half = |disabled: bool, size: u8, granule: Option<u8>, word: u64, ignores_top_byte: bool| {
        let table = ContextTable::from_bits(word);
        let ignores_limits = cap.hierarchical_disable && table.hierarchical_disable();
        if disabled {
            return Some(Half { tables: None, ignores_top_byte, ignores_limits });
        }
        let base = table.table() * TABLE_UNIT;
        if !(SIZE_MIN..=SIZE_MAX).contains(&size) || base >> output_bits != 0 {
            return None;
        }
        let tables = Tables::stage_1(base, granule?, 64 - size, output_bits);
        Some(Half { tables: Some(tables), ignores_top_byte, ignores_limits })
    };
    let low = half(entry.disable_0(), entry.size_0(), granule_0(entry.granule_0(), cap), words[1], entry.top_byte_ignore_0())?;
    let high = half(entry.disable_1(), entry.size_1(), granule_1(entry.granule_1(), cap), words[2], entry.top_byte_ignore_1())?;
    Some(ContextConfig {
        asid: Asid(entry.asid()),
        halves: [low, high],
        updates_access: access,
        updates_dirty: access && dirty,
        ignores_access: entry.access_flag_fault_disable(),
        records: entry.record(),
        privileged_access_never: entry.privileged_access_never(),
    })
}
