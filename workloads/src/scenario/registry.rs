//! The scenarios: one set of weights each.

use super::{Faults, Scenario, Weights};
use crate::mark::Mark;
use crate::tag;

/// The whole update and nothing beside it.
const WHOLE: Weights = Weights {
    map: 0,
    unmap: 0,
    abort: 0,
    other_session: 0,
    bad_arguments: 0,
    pressure: 0,
    reboot: 4,
    finish: 4,
    reuse: 0,
    huge: 1,
    faults: Faults::Never,
};

static SCENARIOS: [Scenario; 7] = [
    Scenario {
        name: "update-with-dma",
        about: "a whole update with DMA running through it: preserve, reboot, adopt, retrieve, finish; concurrent maps and unmaps",
        requires: &[Mark::KexecReached, Mark::AdoptionDone, Mark::FinishReached],
        kernel: "tip-reclaim",
        weights: Weights { map: 1, unmap: 1, pressure: 1, other_session: 1, reuse: 1, ..WHOLE },
    },
    Scenario {
        name: "flb-retrieve-enomem",
        about: "retrieve of the IOMMU FLB fails with -ENOMEM in the incoming kernel: is memory at risk?",
        requires: &[Mark::KexecReached, Mark::AllocFailed, Mark::FlbRetrieveFailed],
        kernel: "v2",
        weights: Weights { pressure: 1, faults: Faults::Class { class: tag::IOMMU_FLB_OBJ.0, skip: 1 }, ..WHOLE },
    },
    Scenario {
        name: "map-vs-preserve",
        about: "a map races with the preservation walk of its domain (LU-055, R2)",
        requires: &[Mark::KexecReached, Mark::MapRefused],
        kernel: "v1",
        weights: Weights { map: 8, ..WHOLE },
    },
    Scenario {
        name: "preserve-fails-midway",
        about: "each fallible call fails in turn, in preserve and in abort: nothing leaks, nothing stays half done",
        requires: &[Mark::AllocFailed, Mark::PreserveRolledBack, Mark::SessionAborted],
        kernel: "tip",
        weights: Weights { abort: 4, reboot: 1, reuse: 1, faults: Faults::Sweep, ..WHOLE },
    },
    Scenario {
        name: "abort-and-reuse",
        about: "the session is closed at any point, then map, unmap and a second update",
        requires: &[Mark::SessionAborted, Mark::KexecReached, Mark::SecondUpdate],
        kernel: "tip",
        weights: Weights { abort: 4, map: 2, unmap: 2, reuse: 4, other_session: 1, ..WHOLE },
    },
    Scenario {
        name: "unmap-vs-dma",
        about: "unmaps under running DMA: tables and pages go back to the allocator only after the invalidation",
        requires: &[Mark::TableFreed],
        kernel: "tip",
        weights: Weights { map: 4, unmap: 8, pressure: 4, reboot: 1, huge: 16, ..WHOLE },
    },
    Scenario {
        name: "any",
        about: "every operation with equal weight",
        requires: &[Mark::KexecReached],
        kernel: "tip-reclaim",
        weights: Weights {
            map: 1,
            unmap: 1,
            abort: 1,
            other_session: 1,
            bad_arguments: 1,
            pressure: 1,
            reboot: 1,
            finish: 1,
            reuse: 1,
            huge: 1,
            faults: Faults::Drawn { per_1024: 512 },
        },
    },
];

/// All scenarios.
pub fn all() -> &'static [Scenario] {
    &SCENARIOS
}

/// Looks a scenario up by name.
pub fn by_name(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}
