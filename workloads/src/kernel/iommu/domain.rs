//! `struct dmar_domain` (`drivers/iommu/intel/iommu.h`) with the `struct iommu_domain` and `struct pt_iommu` inside it, and
//! the objects that hang on it.

use sim::memory::{Field, Ptr, field};
use sim::sync::SpinLock;

use super::super::mm::list::ListHead;
use crate::abi::iommu::DomainSer;

/// A domain: one address space of devices.
#[derive(Clone, Copy, Debug)]
pub struct Domain;

/// Most remapping units of a machine: entries of a domain's `iommu_array`.
pub const UNITS_MAX: u8 = 4;

impl Domain {
    /// Which operations the domain has: a [`DomainOps`].
    pub const OPS: Field<u64> = field(0, "ops");
    /// Table address with the level in its low bits: one word, read once an operation.
    pub const TOP_OF_TABLE: Field<u64> = field(8, "top_of_table");
    /// Sizes of leaves that may be used: bit n set for 2^n bytes.
    pub const PGSIZE_BITMAP: Field<u64> = field(16, "pgsize_bitmap");
    /// log2 of the size of the address space.
    pub const VASZ: Field<u32> = field(24, "max_vasz_lg2");
    /// Feature bits. VT-d: FLUSH_RANGE always; 0 in a restored domain.
    pub const FEATURES: Field<u32> = field(28, "features");
    /// Its record: made by preserve (outgoing kernel) or restored from (incoming kernel).
    pub const PRESERVED_STATE: Field<Ptr<DomainSer>> = field(32, "preserved_state");
    /// `domain->lock`: protects the list of devices.
    pub const LOCK: Field<SpinLock> = field(40, "lock");
    /// Attached devices.
    pub const DEVICES: Field<ListHead> = field(48, "devices");
    /// `domain->cache_lock`: protects the cache tags.
    pub const CACHE_LOCK: Field<SpinLock> = field(64, "cache_lock");
    /// Cache tags.
    pub const CACHE_TAGS: Field<ListHead> = field(72, "cache_tags");
    /// `iommu_array[]`: for each unit its [`DomainInfo`], or NULL. Protected by the unit's `did_lock`.
    pub const IOMMU_ARRAY: Field<Ptr<DomainInfo>> = field(88, "iommu_array");
    /// Bytes.
    pub const BYTES: u16 = 88 + 8 * UNITS_MAX as u16;
}

/// Operations of a domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum DomainOps {
    /// Second-stage paging domain.
    Paging = 1,
    /// Restored: immutable, it can only be freed (`deinit`).
    Restored = 2,
    /// The static blocking domain.
    Blocking = 3,
}

/// `struct iommu_domain_info`: a domain's use of one unit.
#[derive(Clone, Copy, Debug)]
pub struct DomainInfo;

impl DomainInfo {
    /// Attached devices of the unit. Protected by `did_lock`.
    pub const REFCNT: Field<u32> = field(0, "refcnt");
    /// Domain id in this unit.
    pub const DID: Field<u16> = field(4, "did");
    /// Number of the unit.
    pub const IOMMU: Field<u16> = field(6, "iommu");
    /// Bytes.
    pub const BYTES: u16 = 8;
}

/// `struct cache_tag`: what must be invalidated when the domain changes.
#[derive(Clone, Copy, Debug)]
pub struct CacheTag;

impl CacheTag {
    /// Link in the domain's list.
    pub const NODE: Field<ListHead> = field(0, "node");
    /// Number of the unit.
    pub const IOMMU: Field<u16> = field(16, "iommu");
    /// Domain id.
    pub const DOMAIN_ID: Field<u16> = field(18, "domain_id");
    /// Devices that share the tag.
    pub const USERS: Field<u32> = field(20, "users");
    /// Bytes.
    pub const BYTES: u16 = 24;
}
