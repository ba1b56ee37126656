//! The caches that a change must clean, and the commands that do.

use crate::addr::{Bdf, Iova, Pasid};
use crate::smmu::{AddressRange, Asid, Invalidation, StreamId, Vmid};

/// A cache to clean, and of what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// Configuration caches: what is known of these streams; with `level_1` the descriptor above them too.
    Streams {
        /// First stream.
        first: StreamId,
        /// Last stream.
        last: StreamId,
        /// A level-1 descriptor changed.
        level_1: bool,
    },
    /// Configuration caches: one CD.
    Context {
        /// The stream.
        stream: StreamId,
        /// Index of the CD.
        substream: Pasid,
    },
    /// Configuration caches: a level-1 CD and every CD below.
    Contexts(StreamId),
    /// Translations of one ASID.
    Asid(Vmid, Asid),
    /// Stage-1 translations of a VMID, those joined with stage 2 included.
    Stage1(Vmid),
    /// Translations of a VMID, of both stages.
    Vmid(Vmid),
    /// Translations of some addresses.
    Pages {
        /// The VMID.
        vmid: Vmid,
        /// The ASID; none for stage 2.
        asid: Option<Asid>,
        /// It may be cached for every ASID.
        global: bool,
        /// First address.
        first: Iova,
        /// Bytes.
        span_bytes: u64,
        /// Level of the descriptor.
        level: u8,
        /// log2 of the granule.
        granule: u8,
        /// A table descriptor changed, so that Leaf must be 0.
        non_leaf: bool,
    },
    /// Device TLB of a function.
    Device {
        /// The function.
        source: Bdf,
        /// First address.
        first: Iova,
        /// Bytes; 0 for everything.
        span_bytes: u64,
    },
}

/// Whether a command of the SMMU's own caches does what is needed.
pub(super) fn covers(command: Invalidation, need: Need) -> bool {
    match (command, need) {
        (Invalidation::Stream { stream, leaf_only }, Need::Streams { first, last, level_1 }) => {
            first == stream && last == stream && !(level_1 && leaf_only)
        }
        (Invalidation::Streams { first, last }, Need::Streams { first: from, last: to, .. }) => first <= from && to <= last,
        // What is known of a stream holds what is known of its CDs.
        (Invalidation::Stream { stream: named, .. }, Need::Context { stream, .. } | Need::Contexts(stream)) => named == stream,
        (Invalidation::Streams { first, last }, Need::Context { stream, .. } | Need::Contexts(stream)) => (first..=last).contains(&stream),
        (Invalidation::Contexts { stream: named }, Need::Context { stream, .. } | Need::Contexts(stream)) => named == stream,
        (Invalidation::Context { stream: named, substream: one, .. }, Need::Context { stream, substream }) => {
            named == stream && one == substream
        }
        (Invalidation::TlbAll, Need::Asid(..) | Need::Stage1(_) | Need::Vmid(_) | Need::Pages { .. }) => true,
        (Invalidation::Vmid { vmid: named }, Need::Asid(vmid, _) | Need::Stage1(vmid) | Need::Vmid(vmid) | Need::Pages { vmid, .. }) => {
            named == vmid
        }
        (Invalidation::Stage1 { vmid: named }, Need::Asid(vmid, _) | Need::Stage1(vmid)) => named == vmid,
        (Invalidation::Stage1 { vmid: named }, Need::Pages { vmid, asid, .. }) => named == vmid && asid.is_some(),
        (Invalidation::Stage1Asid { vmid: named, asid: one }, Need::Asid(vmid, asid)) => named == vmid && one == asid,
        (Invalidation::Stage1Asid { vmid: named, asid: one }, Need::Pages { vmid, asid, global, .. }) => {
            named == vmid && Some(one) == asid && !global
        }
        (Invalidation::Stage1Range { vmid: named, asid: one, range }, Need::Pages { vmid, asid: Some(asid), .. }) => {
            named == vmid && one.is_none_or(|one| one == asid) && reaches(&range, &need)
        }
        (Invalidation::Stage2Range { vmid: named, range }, Need::Pages { vmid, asid: None, .. }) => named == vmid && reaches(&range, &need),
        _ => false,
    }
}

/// Whether a range of addresses reaches all that was mapped or led to. One address of a leaf is enough to name it (IHI 0070
/// section 4.4). TG and TTL must not spare it, and a TTL may spare what is below a table.
fn reaches(range: &AddressRange, need: &Need) -> bool {
    let Need::Pages { first, span_bytes, level, granule, non_leaf, .. } = *need else { return false };
    let last = Iova(first.0.saturating_add(span_bytes.max(1) - 1));
    let same_granule = range.granule.is_none_or(|named| named == granule);
    if non_leaf {
        return same_granule && !range.leaf_only && range.level.is_none() && range.first <= first && last <= range.last;
    }
    same_granule && range.level.is_none_or(|named| named == level) && first <= range.last && range.first <= last
}
