//! What a stream table entry says, decoded once and then cached.
//!
//! Validity as IHI 0070 section 5.2.2 `SteIllegal` for a non-secure stream of an SMMUv3.2 without EL2, stalls and DPT.

use super::capability::Capabilities;
use super::ids::Vmid;
use super::tables::{GRANULE_4K, GRANULE_16K, Tables, granule_0};
use crate::addr::Pa;
use crate::spec::smmu::context::{SIZE_MAX, SIZE_MIN};
use crate::spec::smmu::event::EventId;
use crate::spec::smmu::stream::{
    ATS_FULL, ATS_SPLIT, CONFIG_BYPASS, CONFIG_HAS_STAGE_1, CONFIG_HAS_STAGE_2, CONFIG_NESTED, CONFIG_PASSES, FORMAT_2_LEVEL_4K,
    FORMAT_2_LEVEL_64K, FORMAT_LINEAR, StreamEntry0, StreamEntry1, StreamEntry2, StreamEntry3,
};

/// Bytes of one unit of S1ContextPtr.
const CONTEXT_UNIT: u64 = 64;
/// Bytes of one unit of S2TTB.
const TABLE_UNIT: u64 = 16;

/// What stage 2 of a stream does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stage2 {
    /// The tables.
    pub tables: Tables,
    /// S2HA.
    pub updates_access: bool,
    /// S2HD, where S2HA is set too.
    pub updates_dirty: bool,
    /// S2AFFD.
    pub ignores_access: bool,
    /// S2R.
    pub records: bool,
}

/// What devices of a stream may do with ATS: the effective EATS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AtsMode {
    /// Neither translation requests nor, with ATSCHK, translated requests.
    Disabled,
    /// Translations of every stage that is on; translated requests pass.
    Full,
    /// Translations of stage 1; translated requests go through stage 2.
    Split,
}

/// Where requests of a stream go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamTarget {
    /// Aborted without an event.
    Abort,
    /// Past both stages.
    Bypass,
    /// Through one stage or both.
    Translate(StreamConfig),
    /// An invalid entry that was cached all the same.
    Fault(EventId),
}

/// A stream that is translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamConfig {
    /// Config\[0\].
    pub has_stage_1: bool,
    /// Config\[1\]; `stage_2` counts.
    pub has_stage_2: bool,
    /// S2VMID; 0 on units without stage 2.
    pub vmid: Vmid,
    /// S1ContextPtr, aligned to the size of the table; an IPA if stage 2 is on.
    pub context: Pa,
    /// S1CDMax; 0 on units without substreams.
    pub context_bits: u8,
    /// log2 of the CDs in a leaf table of two levels; 0 for a linear table.
    pub context_leaf_bits: u8,
    /// S1DSS.
    pub default_substream: u8,
    /// MEV.
    pub merges_events: bool,
    /// EATS, read with the ATSCHK of the time when the entry was fetched.
    pub ats: AtsMode,
    /// Stage 2.
    pub stage_2: Stage2,
}

impl Stage2 {
    const NONE: Self = Self { tables: Tables::NONE, updates_access: false, updates_dirty: false, ignores_access: false, records: true };
}

impl StreamConfig {
    pub(crate) const NONE: Self = Self {
        has_stage_1: false,
        has_stage_2: false,
        vmid: Vmid(0),
        context: Pa(0),
        context_bits: 0,
        context_leaf_bits: 0,
        default_substream: 0,
        merges_events: false,
        ats: AtsMode::Disabled,
        stage_2: Stage2::NONE,
    };
}

/// Decodes the four words that count. `None` if the entry is invalid or illegal.
pub(crate) fn decode_stream(words: [u64; 4], cap: &Capabilities, ats_check: bool) -> Option<StreamTarget> {
    let entry = StreamEntry0::from_bits(words[0]);
    let (entry_1, entry_2) = (StreamEntry1::from_bits(words[1]), StreamEntry2::from_bits(words[2]));
    if !entry.valid() {
        return None;
    }
    let config = entry.config();
    if config & CONFIG_PASSES == 0 {
        return Some(StreamTarget::Abort);
    }
    if config == CONFIG_BYPASS {
        return Some(StreamTarget::Bypass);
    }
    let has_stage_1 = config & CONFIG_HAS_STAGE_1 != 0;
    let has_stage_2 = config & CONFIG_HAS_STAGE_2 != 0;
    if (has_stage_1 && !cap.stage_1) || (has_stage_2 && !cap.stage_2) {
        return None;
    }
    // S2VMID counts whenever the unit has a stage 2, whether or not this stream uses it.
    if cap.stage_2 && !cap.vmid_16 && entry_2.vmid() > 0xff {
        return None;
    }
    let mut target = StreamConfig {
        has_stage_1,
        has_stage_2,
        vmid: Vmid(if cap.stage_2 { entry_2.vmid() } else { 0 }),
        default_substream: entry_1.default_substream(),
        merges_events: entry_1.merge_events(),
        ats: decode_ats(config, entry_1.ats(), cap, ats_check)?,
        ..StreamConfig::NONE
    };
    if has_stage_1 {
        decode_stage_1(entry, entry_1, &mut target, cap)?;
    }
    if has_stage_2 {
        target.stage_2 = decode_stage_2(entry_2, StreamEntry3::from_bits(words[3]), cap)?;
    }
    Some(StreamTarget::Translate(target))
}

/// EATS of a stream that is translated. Full ATS together with S2S is illegal too, but S2S alone is so already.
fn decode_ats(config: u8, coded: u8, cap: &Capabilities, ats_check: bool) -> Option<AtsMode> {
    match coded {
        ATS_FULL if cap.ats => Some(AtsMode::Full),
        ATS_SPLIT if cap.ats && (config != CONFIG_NESTED || !cap.split_ats) => None,
        ATS_SPLIT if cap.ats && ats_check => Some(AtsMode::Split),
        _ => Some(AtsMode::Disabled),
    }
}

fn decode_stage_1(entry: StreamEntry0, attributes: StreamEntry1, target: &mut StreamConfig, cap: &Capabilities) -> Option<()> {
    // Stalls are not configurable here, so that they cannot be switched off either.
    if attributes.stall_disable() || (cap.substream_bits != 0 && entry.context_bits() > cap.substream_bits) {
        return None;
    }
    let bits = if cap.substream_bits == 0 { 0 } else { entry.context_bits() };
    let leaf_bits = match entry.format() {
        _ if bits == 0 => 0,
        FORMAT_2_LEVEL_4K => 6,
        FORMAT_2_LEVEL_64K => 10,
        _ => FORMAT_LINEAR,
    };
    if leaf_bits != 0 && !cap.context_2_level {
        return None;
    }
    let context = entry.context() * CONTEXT_UNIT;
    // IAS is OAS without AArch32 tables, so that the limit is the same with and without stage 2.
    if context >> cap.output_bits != 0 {
        return None;
    }
    let table_bytes = if leaf_bits == 0 { CONTEXT_UNIT << bits } else { (8 << bits.saturating_sub(leaf_bits)).max(CONTEXT_UNIT) };
    target.context = Pa(context & !(table_bytes - 1));
    (target.context_bits, target.context_leaf_bits) = (bits, leaf_bits);
    Some(())
}

fn decode_stage_2(entry: StreamEntry2, table: StreamEntry3, cap: &Capabilities) -> Option<Stage2> {
    if entry.stall() || !entry.aarch64() || entry.big_endian() {
        return None;
    }
    let (access, dirty) = (entry.hardware_access(), entry.hardware_dirty());
    if ((access || dirty) && !cap.updates_access()) || (dirty && !cap.updates_dirty()) {
        return None;
    }
    let granule = granule_0(entry.granule(), cap)?;
    let output_bits = cap.output_bits_of(entry.output_size());
    let base = table.table() * TABLE_UNIT;
    let size = entry.input_size();
    if base >> output_bits != 0 || !(SIZE_MIN.max(64 - cap.output_bits)..=SIZE_MAX).contains(&size) {
        return None;
    }
    let start = start_level(entry.start_level(), granule, cap.output_bits)?;
    Some(Stage2 {
        tables: Tables::stage_2(base, granule, start, 64 - size, output_bits)?,
        updates_access: access,
        updates_dirty: access && dirty,
        ignores_access: entry.access_flag_fault_disable(),
        records: entry.record(),
    })
}

/// The starting level that S2SL0 codes. Arm ARM: small address sizes do without the highest one.
fn start_level(coded: u8, granule: u8, output_bits: u8) -> Option<u8> {
    match (granule, coded) {
        (GRANULE_4K, 2) if output_bits < 44 => None,
        (GRANULE_4K, 0..=2) => Some(2 - coded),
        (GRANULE_4K, _) => None,
        (GRANULE_16K, 2) if output_bits < 42 => None,
        (GRANULE_16K, 0..=2) => Some(3 - coded),
        (GRANULE_16K, _) => None,
        (_, 2) if output_bits < 44 => None,
        (_, 0..=2) => Some(3 - coded),
        _ => None,
    }
}
