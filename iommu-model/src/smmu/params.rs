//! Sizes, limits and costs: everything that software cannot read in the identification registers.

use super::ids::StreamId;
use crate::timing::{Geometry, Timing};

/// How many bytes of an STE or a CD one fetch reads at once. IHI 0070 section 3.21.3 obliges the SMMU to 8; with less than
/// the whole, stores can fall between the parts, and what is cached can be torn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigFetch {
    /// 64 bytes: never torn.
    Whole,
    /// 16 bytes, as with FEAT_LSE2 in the system.
    Pairs,
    /// 8 bytes.
    Words,
}

/// Parameters of a unit. Costs are those of the common table: a look-up in the configuration cache costs `context_lookup`,
/// in the TLB `iotlb_lookup`, in the walk caches `psc_lookup`; level-1 stream descriptor, STE, level-1 CD, CD cost
/// `root_fetch`, `context_fetch`, `directory_fetch`, `pasid_fetch`; configuration invalidations `invalidate_context`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Params {
    /// StreamID of requester id 0, as an IORT mapping gives it.
    pub stream_base: StreamId,
    /// Requests are privileged, so that AP\[1\] does not limit them. PCIe requests are not, unless they say so.
    pub privileged: bool,
    /// Stream table entries. gem5 24.0 configuration cache (STE and CD together): 64, 4-way.
    pub stream: Geometry,
    /// Context descriptors. As `stream`.
    pub context: Geometry,
    /// Level-1 descriptors of stream and CD tables. Knob: 16; 0 ways switch it off.
    pub level_1: Geometry,
    /// TLB, translations of both stages and of stage 2 alone together. gem5 24.0 has 2048, 4-way; 64 as the other units here.
    pub tlb: Geometry,
    /// Stage-1 walk caches of levels 0, 1, 2. gem5 24.0: 4, 28, 348.
    pub walk_1: [Geometry; 3],
    /// Stage-2 walk caches of levels 0, 1, 2. gem5 24.0: 4, 28, 92.
    pub walk_2: [Geometry; 3],
    /// Walks in flight, 1 to 256. gem5 24.0 `ptw_slots`: 16.
    pub walks_max: u16,
    /// Event records that wait to be written. When it may overflow, no request is taken. Knob.
    pub events_max: u16,
    /// A second request of one source to one page waits for the first. gem5 24.0 `hazard4k`: on.
    pub merge_same_page: bool,
    /// How STE and CD are read.
    pub config_fetch: ConfigFetch,
    /// Costs.
    pub timing: Timing,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            stream_base: StreamId(0),
            privileged: false,
            stream: Geometry { sets: 16, ways: 4 },
            context: Geometry { sets: 16, ways: 4 },
            level_1: Geometry::fully_associative(16),
            tlb: Geometry::fully_associative(64),
            walk_1: [4, 28, 348].map(Geometry::fully_associative),
            walk_2: [4, 28, 92].map(Geometry::fully_associative),
            walks_max: 16,
            events_max: 64,
            merge_same_page: true,
            config_fetch: ConfigFetch::Whole,
            timing: Timing::default(),
        }
    }
}
