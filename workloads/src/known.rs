//! Findings of the modelled revisions themselves, listed: true as far as the model goes, not confirmed by the kernel's developers.
//!
//! A sweep counts their runs apart and does not fail for them. Each is told by the revisions it is in, its property and its
//! title, which names the kernel function. `workloads/docs/findings.md` tells the story of each. A planted defect is never masked.

use crate::run::RunSpec;

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
}

const ALL_REVISIONS: &[&str] = &["v1", "v2", "tip", "tip-reclaim"];

/// The list.
pub const LISTED: &[Known] = &[Known {
    id: "F1",
    kernels: ALL_REVISIONS,
    property: "LIFE",
    title: "null-pointer-dereference in read in iopt_check_liveupdate_areas",
}];

/// The listed finding that a violation is, if any.
pub fn lookup(spec: &RunSpec, property: &str, title: &str) -> Option<&'static str> {
    if !spec.defects.is_empty() {
        return None;
    }
    let kernel_matches = |known: &&Known| known.kernels.iter().any(|name| *name == spec.outgoing.name || *name == spec.incoming.name);
    LISTED.iter().filter(kernel_matches).find(|known| known.property == property && known.title == title).map(|known| known.id)
}
