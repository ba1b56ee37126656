//! Canaries: one planted bug an oracle, run through the whole machine in every sweep. An oracle that misses its canary is broken;
//! that another one catches it does not help.

use crate::defect::Defect;

/// A planted bug and the property that must catch it.
#[derive(Clone, Copy, Debug)]
pub struct Canary {
    /// What is planted.
    pub defect: Defect,
    /// In which scenario.
    pub scenario: &'static str,
    /// In which revision, both kernels.
    pub kernel: &'static str,
    /// Seeds tried before it counts as missed.
    pub runs: u32,
}

/// All canaries.
pub const ALL: &[Canary] = &[
    Canary { defect: Defect::NoFlushOnUnmap, scenario: "unmap-vs-dma", kernel: "tip", runs: 400 },
    Canary { defect: Defect::TableEntryKept, scenario: "unmap-vs-dma", kernel: "tip", runs: 400 },
    Canary { defect: Defect::NextAfterFree, scenario: "abort-and-reuse", kernel: "tip", runs: 100 },
    Canary { defect: Defect::PreserveSkipsTable, scenario: "update-with-dma", kernel: "tip-reclaim", runs: 50 },
    Canary { defect: Defect::WrongFrameMapped, scenario: "update-with-dma", kernel: "tip-reclaim", runs: 200 },
    Canary { defect: Defect::AllocBeforeReserve, scenario: "update-with-dma", kernel: "tip-reclaim", runs: 50 },
    Canary { defect: Defect::RestoreKeepsMagic, scenario: "update-with-dma", kernel: "tip-reclaim", runs: 50 },
    Canary { defect: Defect::MapWhileImmutable, scenario: "map-vs-preserve", kernel: "tip", runs: 400 },
    Canary { defect: Defect::FreeBeforeFlush, scenario: "unmap-vs-dma", kernel: "tip", runs: 400 },
    Canary { defect: Defect::UnpreserveSkipsFolio, scenario: "abort-and-reuse", kernel: "tip", runs: 200 },
    Canary { defect: Defect::FinishKeepsHeader, scenario: "update-with-dma", kernel: "tip-reclaim", runs: 50 },
    Canary { defect: Defect::FreeWithoutUnpreserve, scenario: "abort-and-reuse", kernel: "tip", runs: 1000 },
    Canary { defect: Defect::CloseInOrder, scenario: "abort-and-reuse", kernel: "tip", runs: 100 },
    Canary { defect: Defect::FlbFinishEarly, scenario: "update-with-dma", kernel: "tip-reclaim", runs: 100 },
    Canary { defect: Defect::PreserveUnderSpinlock, scenario: "update-with-dma", kernel: "tip-reclaim", runs: 50 },
    Canary { defect: Defect::LeaveLocked, scenario: "preserve-fails-midway", kernel: "tip", runs: 400 },
    Canary { defect: Defect::QueueFreedInUse, scenario: "update-with-dma", kernel: "tip-reclaim", runs: 200 },
    Canary { defect: Defect::AttachBlocksFirst, scenario: "update-with-dma", kernel: "tip-reclaim", runs: 400 },
    Canary { defect: Defect::UnpreserveKeepsPins, scenario: "abort-and-reuse", kernel: "tip", runs: 100 },
    Canary { defect: Defect::RollbackKeepsImmutable, scenario: "preserve-fails-midway", kernel: "tip", runs: 800 },
    Canary { defect: Defect::RollbackLeaksHold, scenario: "preserve-fails-midway", kernel: "tip", runs: 2000 },
    Canary { defect: Defect::PreserveFdStaysBusy, scenario: "preserve-fails-midway", kernel: "tip", runs: 800 },
    Canary { defect: Defect::RestoreSkipsTable, scenario: "update-with-dma", kernel: "tip-reclaim", runs: 50 },
    Canary { defect: Defect::LeafNotFlushed, scenario: "update-with-dma", kernel: "tip", runs: 100 },
    Canary { defect: Defect::ContextNotFlushed, scenario: "update-with-dma", kernel: "tip", runs: 100 },
    Canary { defect: Defect::DoorbellRelaxed, scenario: "unmap-vs-dma", kernel: "tip", runs: 400 },
    Canary { defect: Defect::RollbackShort, scenario: "preserve-fails-midway", kernel: "tip", runs: 400 },
    Canary { defect: Defect::TableInstallByStore, scenario: "map-vs-preserve", kernel: "tip", runs: 1000 },
    Canary { defect: Defect::UnpreserveWrongOrder, scenario: "abort-and-reuse", kernel: "tip", runs: 100 },
    Canary { defect: Defect::StrayWarn, scenario: "update-with-dma", kernel: "tip-reclaim", runs: 50 },
    Canary { defect: Defect::UndefinedByte, scenario: "update-with-dma", kernel: "tip-reclaim", runs: 50 },
    Canary { defect: Defect::DomainIdNotReserved, scenario: "update-with-dma", kernel: "tip-reclaim", runs: 200 },
    Canary { defect: Defect::ShutdownWithoutFlush, scenario: "abort-and-reuse", kernel: "tip", runs: 4000 },
    Canary { defect: Defect::LostRaceLeaksTable, scenario: "map-vs-preserve", kernel: "tip", runs: 1000 },
    Canary { defect: Defect::TrackerSlotDangles, scenario: "preserve-fails-midway", kernel: "v2", runs: 400 },
    Canary { defect: Defect::UnfreezeSkipped, scenario: "preserve-fails-midway", kernel: "tip", runs: 2000 },
    Canary { defect: Defect::DeletedFlagForgotten, scenario: "abort-and-reuse", kernel: "tip", runs: 4000 },
    Canary { defect: Defect::FailedPreserveKeepsFile, scenario: "preserve-fails-midway", kernel: "tip", runs: 400 },
    Canary { defect: Defect::PresentTooEarly, scenario: "update-with-dma", kernel: "tip", runs: 20 },
    Canary { defect: Defect::UnpreserveKeepsHold, scenario: "abort-and-reuse", kernel: "tip", runs: 200 },
    Canary { defect: Defect::PreservedDeviceStopped, scenario: "update-with-dma", kernel: "tip", runs: 100 },
    Canary { defect: Defect::TrackerUnlocked, scenario: "abort-and-reuse", kernel: "tip", runs: 1000 },
    Canary { defect: Defect::RetrieveLosesUptodate, scenario: "update-with-dma", kernel: "tip-reclaim", runs: 100 },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle;

    // Goal: a property is judged by a canary that no neighbour can stand in for. Method: its bad twin names it, and is in the list.
    #[test]
    fn every_property_has_a_canary_of_its_own() {
        for property in oracle::CATALOGUE {
            assert_eq!(property.bad.oracle(), property.name, "the bad twin of {}", property.name);
            assert!(ALL.iter().any(|canary| canary.defect == property.bad), "{} is in no canary", property.bad.id());
        }
    }
}
