//! Findings of the modelled revisions themselves, listed: true as far as the model goes, not confirmed by the kernel's developers.
//!
//! A sweep counts their runs apart and does not fail for them. Each is told by its causal signature: the revisions it is in, its
//! property, its title, the kernel function in which it shows, and the failure that must have been injected.
//! `workloads/docs/findings.md` tells the story of each. A planted defect is never masked.

use crate::mark::Mark;
use crate::run::{Counts, Failure, RunSpec};
use crate::{callee, tag};

/// One listed finding.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Id in `findings.md`.
    pub id: &'static str,
    /// Revisions it is in, by name; the outgoing or the incoming kernel must be one of them.
    pub kernels: &'static [&'static str],
    /// Property.
    pub property: &'static str,
    /// Title.
    pub title: &'static str,
    /// Functions in which it shows.
    pub functions: &'static [&'static str],
    /// Failures one of which was injected; empty: it needs none.
    pub injected: &'static [Failure],
    /// A mark that was hit before.
    pub mark: Option<Mark>,
}

const ALL_REVISIONS: &[&str] = &["v1", "v2", "tip", "tip-reclaim"];

/// The list.
pub const LISTED: &[Known] = &[
    Known {
        id: "F1",
        kernels: ALL_REVISIONS,
        property: "LIFE",
        title: "null-pointer-dereference in read in iopt_check_liveupdate_areas",
        functions: &["iopt_check_liveupdate_areas"],
        injected: &[],
        mark: None,
    },
    Known {
        id: "F2",
        kernels: ALL_REVISIONS,
        property: "I1",
        title: "freed-page-is-reachable",
        functions: &["memfd_luo_discard_folios", "memfd_luo_retrieve_folios", "shmem_evict_inode"],
        injected: &[
            Failure::in_callee(callee::COPY_USER),
            Failure::in_callee(callee::ANON_INODE),
            Failure::in_callee(callee::VM_AREA),
            Failure::in_callee(callee::CHARGE),
            Failure::in_callee(callee::ACCT_BLOCKS),
            Failure::of(tag::VMALLOC),
            Failure::of(tag::FILE),
            Failure::of(tag::SHMEM_INODE),
            Failure::of(tag::XA_NODE),
        ],
        mark: None,
    },
    Known {
        id: "F3",
        kernels: ALL_REVISIONS,
        property: "I9",
        title: "domain-id-in-use-is-given-out",
        functions: &[],
        injected: &[],
        mark: Some(Mark::DomainIdNotReserved),
    },
    Known {
        id: "F3",
        kernels: ALL_REVISIONS,
        property: "I3",
        title: "dma-read-lands-outside-mapping",
        functions: &[],
        injected: &[],
        mark: Some(Mark::DomainIdNotReserved),
    },
    Known {
        id: "F3",
        kernels: ALL_REVISIONS,
        property: "I3",
        title: "dma-write-lands-outside-mapping",
        functions: &[],
        injected: &[],
        mark: Some(Mark::DomainIdNotReserved),
    },
    Known {
        id: "F3",
        kernels: ALL_REVISIONS,
        property: "availability",
        title: "valid-mapping-faults-after-the-jump",
        functions: &[],
        injected: &[],
        mark: Some(Mark::DomainIdNotReserved),
    },
    Known {
        id: "F4",
        kernels: ALL_REVISIONS,
        property: "adoption",
        title: "device-walks-tables-nobody-restored",
        functions: &[],
        injected: &[],
        mark: Some(Mark::DeviceNotRestored),
    },
    Known {
        id: "F4",
        kernels: ALL_REVISIONS,
        property: "availability",
        title: "valid-mapping-faults-after-the-jump",
        functions: &[],
        injected: &[],
        mark: Some(Mark::DeviceNotRestored),
    },
];

/// The listed finding that a violation is, if any. `function` is where the acting program was.
pub fn lookup(spec: &RunSpec, property: &str, title: &str, function: Option<&str>, counts: &Counts) -> Option<&'static str> {
    // A planted defect is never masked.
    if spec.defects.iter().any(|defect| defect.oracle() == property) {
        return None;
    }
    let matches = |known: &&Known| {
        known.property == property
            && known.title == title
            && known.kernels.iter().any(|name| *name == spec.outgoing.name || *name == spec.incoming.name)
            && (known.functions.is_empty() || function.is_some_and(|function| known.functions.contains(&function)))
            && (known.injected.is_empty() || known.injected.iter().any(|failure| counts.injected.contains_key(failure)))
            && known.mark.is_none_or(|mark| counts.marks[mark as usize] > 0)
    };
    LISTED.iter().find(matches).map(|known| known.id)
}
