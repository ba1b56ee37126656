//! Named revisions: which generation of each subsystem a kernel is built from.
//!
//! A revision is a tuple with a name. Where the code of two revisions differs, the difference is one visible branch on these
//! axes in the function that differs, with its source.

/// LUO before and after the reboot guard (merged for 7.2, May/June 2026).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Luo {
    /// Generation 1: `luo-v1` FDT, fixed arrays, no guard against changes during reboot.
    Unguarded,
    /// Generation 2: `struct luo_ser`, kho_blocks, mutations refused while `rebooting`.
    Guarded,
}

/// FLB object life time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Flb {
    /// Early: bare pointers, plain counts, a failed retrieve may be retried.
    Bare,
    /// From 7.3: outgoing and incoming data are counted, retrieve status is sticky.
    Refcounted,
}

/// The IOMMU series.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Iommu {
    /// "[PATCH v2 00/16] iommu: Add live update state preservation", 2026-04-27.
    V2,
    /// The author's later branch (v3/v4 era, August 2026).
    Tip,
}

/// Where iommufd tests that an IOAS is immutable when it maps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum MapRule {
    /// v1: in area allocation, under iova_rwsem, outside domains_rwsem.
    AreaAllocation,
    /// v2 and later: in `iopt_map_pages`, under domains_rwsem held for reading.
    DomainsLocked,
}

/// One named revision of all subsystems.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Revision {
    /// Name as `--kernel` takes it.
    pub name: &'static str,
    /// LUO generation.
    pub luo: Luo,
    /// FLB generation.
    pub flb: Flb,
    /// IOMMU series.
    pub iommu: Iommu,
    /// Immutability rule of iommufd.
    pub map_rule: MapRule,
    /// The second phase sketched in "[RFC PATCH v2 00/32]", 2025-12-02: retrieve, replace and finish of iommufd files.
    pub reclaim: bool,
    /// One line for `lurch list kernels`.
    pub about: &'static str,
}

/// All revisions, oldest first.
pub const REVISIONS: [Revision; 4] = [
    Revision {
        name: "v1",
        luo: Luo::Unguarded,
        flb: Flb::Bare,
        iommu: Iommu::V2,
        map_rule: MapRule::AreaAllocation,
        reclaim: false,
        about: "v2 with the immutability rule of series v1 (2026-02-03); nothing else of v1 is modelled",
    },
    Revision {
        name: "v2",
        luo: Luo::Unguarded,
        flb: Flb::Bare,
        iommu: Iommu::V2,
        map_rule: MapRule::DomainsLocked,
        reclaim: false,
        about: "IOMMU series v2 (2026-04-27) on LUO without reboot guard and FLB with bare pointers",
    },
    Revision {
        name: "tip",
        luo: Luo::Guarded,
        flb: Flb::Refcounted,
        iommu: Iommu::Tip,
        map_rule: MapRule::DomainsLocked,
        reclaim: false,
        about: "the author's branch of August 2026 on guarded LUO (7.2) and refcounted FLB (7.3)",
    },
    Revision {
        name: "tip-reclaim",
        luo: Luo::Guarded,
        flb: Flb::Refcounted,
        iommu: Iommu::Tip,
        map_rule: MapRule::DomainsLocked,
        reclaim: true,
        about: "tip with the RFC's second phase (assumed code: iommufd retrieve, replace, finish), so that FINISH is reached",
    },
];

impl Revision {
    /// Looks a revision up by name.
    pub fn by_name(name: &str) -> Option<Revision> {
        REVISIONS.into_iter().find(|revision| revision.name == name)
    }
}
