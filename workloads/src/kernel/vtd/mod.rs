//! `drivers/iommu/intel/`: the VT-d driver in legacy mode.
//!
//! | file | what it is |
//! | --- | --- |
//! | [`registers`] | root pointer, translation enable, register-based invalidation |
//! | [`qi`] | queued invalidation |
//! | [`context`] | root and context entries |
//! | [`domain`] | domain ids, attach, block, re-attach of a restored domain |
//! | [`cache`] | cache tags, flush of a range |
//! | [`replace`] | reclaim: a restored domain is replaced without a gap |
//! | [`boot`] | `init_dmars()`, adoption or the pre-enabled path |
//! | [`liveupdate`] | preserve, unpreserve, restore of units and devices |
//! | [`shutdown`] | the hook of machine_shutdown |
//!
//! | not modelled | |
//! | --- | --- |
//! | scalable mode, PASIDs, page requests | |
//! | device TLBs, interrupt remapping, fault interrupts | |
//! | caching mode, write-buffer flush | |
//! | kdump copy of tables, suspend, DMA aliases | |

pub mod boot;
pub mod cache;
pub mod context;
pub mod domain;
pub mod liveupdate;
pub mod qi;
pub mod registers;
pub mod replace;
pub mod shutdown;

use iommu_model::addr::Pa;
use iommu_model::spec::vtd::capability::Cap;
use sim::memory::{Field, Ptr, field};
use sim::sync::{Mutex, SpinLock};
use sim::trace::UnitId;

use super::iommu::UNITS_MAX;
use super::{SECTION_BYTES, Section, Task};
use crate::abi::iommu::HwSer;

pub use shutdown::intel_iommu_shutdown;

/// `struct intel_iommu` with its `struct q_inval`: one per unit, in the image.
#[derive(Clone, Copy, Debug)]
pub struct IntelIommu;

/// Bytes of an [`IntelIommu`].
pub(super) const UNIT_BYTES: u16 = 128;

impl IntelIommu {
    /// `root_entry`: the root table.
    pub const ROOT_ENTRY: Field<Ptr<u64>> = field(0, "root_entry");
    /// `lock`: root and context entries.
    pub const LOCK: Field<SpinLock> = field(8, "lock");
    /// `register_lock`: GCMD and what belongs to it.
    pub const REGISTER_LOCK: Field<SpinLock> = field(16, "register_lock");
    /// `gcmd`: what was last written to GCMD, without one-shot bits.
    pub const GCMD: Field<u32> = field(24, "gcmd");
    /// `flags`: [`TRANS_PRE_ENABLED`], [`UNIT_IN_USE`].
    pub const FLAGS: Field<u32> = field(28, "flags");
    /// `qi->desc`: the queue; NULL when the register interface is used.
    pub const QI_DESC: Field<Ptr<u64>> = field(32, "qi->desc");
    /// `qi->desc_status`: one word a slot, see [`qi::Status`].
    pub const QI_DESC_STATUS: Field<Ptr<u32>> = field(40, "qi->desc_status");
    /// `qi->q_lock`.
    pub const QI_LOCK: Field<SpinLock> = field(48, "qi->q_lock");
    /// `qi->free_head`: next slot to fill.
    pub const QI_FREE_HEAD: Field<u32> = field(56, "qi->free_head");
    /// `qi->free_tail`: oldest slot in use.
    pub const QI_FREE_TAIL: Field<u32> = field(60, "qi->free_tail");
    /// `qi->free_cnt`: free slots.
    pub const QI_FREE_CNT: Field<u32> = field(64, "qi->free_cnt");
    /// `did_lock`: domain ids and the per-unit records of domains.
    pub const DID_LOCK: Field<Mutex> = field(72, "did_lock");
    /// `domain_ida`: used domain ids, one bit each; two words.
    pub const DOMAIN_IDA: Field<u64> = field(80, "domain_ida");
    /// `iommu.outgoing_preserved_state`.
    pub const OUTGOING_PRESERVED_STATE: Field<Ptr<HwSer>> = field(96, "outgoing_preserved_state");
    /// `cap`.
    pub const CAP: Field<u64> = field(104, "cap");
    /// `ecap`.
    pub const ECAP: Field<u64> = field(112, "ecap");
}

/// `VTD_FLAG_TRANS_PRE_ENABLED`: translation was on when the driver came.
pub const TRANS_PRE_ENABLED: u32 = 1 << 0;
/// The unit is set up; clear after a failed `init_dmars()`.
pub const UNIT_IN_USE: u32 = 1 << 1;

const _: () = assert!(UNIT_BYTES as u64 * UNITS_MAX as u64 <= SECTION_BYTES, "units fit their section");

/// The unit with this number.
pub fn iommu_of(t: &Task, unit: u16) -> Ptr<IntelIommu> {
    assert!(unit < u16::from(UNITS_MAX), "a machine has at most {UNITS_MAX} units");
    t.sym(Section::Vtd, field(unit * UNIT_BYTES, "intel_iommu"))
}

/// `seq_id`, which never changes: from its place in the image.
pub(crate) fn seq_id(t: &Task, iommu: Ptr<IntelIommu>) -> UnitId {
    UnitId(((iommu.pa().0 - iommu_of(t, 0).pa().0) / u64::from(UNIT_BYTES)) as u8)
}

/// `reg_phys`.
pub(crate) fn reg_phys(t: &Task, iommu: Ptr<IntelIommu>) -> Pa {
    t.k.topo.units[usize::from(seq_id(t, iommu).0)].register_base
}

/// `__iommu_flush_cache()`: what was stored at `at` reaches memory, unless the unit snoops (`ecap_coherent()`, which never changes).
pub(crate) async fn iommu_flush_cache<T>(t: &Task, iommu: Ptr<IntelIommu>, at: Ptr<T>, bytes: u64) {
    if !t.k.topo.units[usize::from(seq_id(t, iommu).0)].coherent {
        t.clflush_cache_range(at, bytes).await;
    }
}

/// `cap`, which never changes.
pub(crate) async fn cap(t: &Task, iommu: Ptr<IntelIommu>) -> Cap {
    Cap::from_bits(t.read(iommu.at(IntelIommu::CAP)).await)
}
