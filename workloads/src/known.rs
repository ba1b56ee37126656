//! Findings of the modelled revisions themselves, listed: true as far as the model goes, not confirmed by the kernel's developers.
//!
//! A sweep counts their runs apart and does not fail for them. Each is told by its causal signature: the revisions it is in, its
//! property, its title, the kernel function in which it shows, the failure that must have been injected, and what must have befallen the
//! device or the domain id that it names.
//! `workloads/docs/findings.md` tells the story of each. A planted defect is never masked.

use iommu_model::addr::Bdf;
use sim::oracle::Finding;

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
    /// What must have befallen the device, or the domain id, that the finding is about.
    pub befell: Option<Befell>,
}

/// What befell whom.
#[derive(Clone, Copy, Debug)]
pub enum Befell {
    /// A mark of a device, which the finding names.
    Device(Mark),
    /// A mark of a domain id, which the finding names.
    DomainId(Mark),
    /// A mark that says it all: that it came suffices.
    Run(Mark),
}

impl Befell {
    /// True when it befell what one of the lines names.
    fn is_about(self, counts: &Counts, details: &[String]) -> bool {
        if let Befell::Run(mark) = self {
            return counts.mark(mark) > 0;
        }
        counts.befell.iter().any(|&(mark, of)| {
            let (wanted, name) = match self {
                Befell::Device(wanted) | Befell::Run(wanted) => (wanted, format!("device {}", Bdf(of))),
                Befell::DomainId(wanted) => (wanted, format!("domain id {of:#x}")),
            };
            let ends = |rest: &str| !rest.starts_with(|next: char| next.is_ascii_hexdigit());
            let names = |line: &String| line.match_indices(&name).any(|(at, _)| ends(&line[at + name.len()..]));
            mark == wanted && details.iter().any(names)
        })
    }
}

const ALL_REVISIONS: &[&str] = &["v1", "v2", "tip", "tip-reclaim"];
/// Those that test immutability under `domains_rwsem`, and undo it HWPT by HWPT.
const LOCKED_RULE: &[&str] = &["v2", "tip", "tip-reclaim"];

/// The list.
pub const LISTED: &[Known] = &[
    Known {
        id: "F1",
        kernels: ALL_REVISIONS,
        property: "LIFE",
        title: "null-pointer-dereference in read in iopt_check_liveupdate_areas",
        functions: &["iopt_check_liveupdate_areas"],
        injected: &[],
        befell: None,
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
        befell: None,
    },
    Known {
        id: "F3",
        kernels: ALL_REVISIONS,
        property: "I9",
        title: "domain-id-in-use-is-given-out",
        functions: &[],
        injected: &[],
        befell: Some(Befell::DomainId(Mark::DomainIdNotReserved)),
    },
    Known {
        id: "F3",
        kernels: ALL_REVISIONS,
        property: "I3",
        title: "dma-read-lands-outside-mapping",
        functions: &[],
        injected: &[],
        befell: Some(Befell::DomainId(Mark::DomainIdNotReserved)),
    },
    Known {
        id: "F3",
        kernels: ALL_REVISIONS,
        property: "I3",
        title: "dma-write-lands-outside-mapping",
        functions: &[],
        injected: &[],
        befell: Some(Befell::DomainId(Mark::DomainIdNotReserved)),
    },
    Known {
        id: "F3",
        kernels: ALL_REVISIONS,
        property: "availability",
        title: "valid-mapping-faults-after-the-jump",
        functions: &[],
        injected: &[],
        befell: Some(Befell::DomainId(Mark::DomainIdNotReserved)),
    },
    Known {
        id: "F4",
        kernels: ALL_REVISIONS,
        property: "adoption",
        title: "device-walks-tables-nobody-restored",
        functions: &[],
        injected: &[],
        befell: Some(Befell::Device(Mark::DeviceNotRestored)),
    },
    Known {
        id: "F4",
        kernels: ALL_REVISIONS,
        property: "availability",
        title: "valid-mapping-faults-after-the-jump",
        functions: &[],
        injected: &[],
        befell: Some(Befell::Device(Mark::DeviceNotRestored)),
    },
    Known {
        id: "F5",
        kernels: LOCKED_RULE,
        property: "I7",
        title: "entry-written-while-immutable",
        functions: &["map_range", "unmap_range"],
        injected: &[],
        befell: Some(Befell::Run(Mark::MutableWithFirstHwpt)),
    },
    Known {
        id: "F5",
        kernels: LOCKED_RULE,
        property: "I7",
        title: "entry-cleared-while-immutable",
        functions: &["map_range", "unmap_range"],
        injected: &[],
        befell: Some(Befell::Run(Mark::MutableWithFirstHwpt)),
    },
    Known {
        id: "F6",
        kernels: ALL_REVISIONS,
        property: "I3",
        title: "dma-read-passes-untranslated",
        functions: &[],
        injected: &[],
        befell: Some(Befell::Device(Mark::AdoptedUnitDisabled)),
    },
    Known {
        id: "F6",
        kernels: ALL_REVISIONS,
        property: "I3",
        title: "dma-write-passes-untranslated",
        functions: &[],
        injected: &[],
        befell: Some(Befell::Device(Mark::AdoptedUnitDisabled)),
    },
];

/// The listed finding that a violation is, if any. `title` is the reported one, `function` where the acting program was.
pub fn lookup(spec: &RunSpec, finding: &Finding, title: &str, function: Option<&str>, counts: &Counts) -> Option<&'static str> {
    let property = finding.property;
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
            && known.befell.is_none_or(|befell| befell.is_about(counts, &finding.details))
    };
    LISTED.iter().find(matches).map(|known| known.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: a listed finding is masked for what it befell, not for the whole run. Method: one device lost its domain; findings about it, about
    // another one, and about one whose number only begins like its.
    #[test]
    fn a_mask_is_about_the_device_and_the_domain_id_it_befell() {
        let befell = vec![(Mark::DeviceNotRestored, 0x10), (Mark::DomainIdNotReserved, 0x2)];
        let counts = Counts { befell, ..Counts::default() };
        let device = |line: &str| Befell::Device(Mark::DeviceNotRestored).is_about(&counts, &[line.to_owned()]);
        let id = |line: &str| Befell::DomainId(Mark::DomainIdNotReserved).is_about(&counts, &[line.to_owned()]);
        assert!(device("device 00:02.0 fetches from pa 0x1000"));
        assert!(!device("device 00:03.0 fetches from pa 0x1000"));
        assert!(id("device 00:03.0 (domain id 0x2): write at iova 0x0") && id("under domain id 0x2, from the IOTLB"));
        assert!(!id("device 00:03.0 (domain id 0x20): write at iova 0x0"));
        assert!(!Befell::Device(Mark::DomainIdNotReserved).is_about(&counts, &["device 00:02.0".to_owned()]));
    }
}
