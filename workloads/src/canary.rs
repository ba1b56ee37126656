//! Canaries: one planted bug an oracle, run through the whole machine in every sweep. An oracle that misses its canary is broken.

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
    /// Properties that count as caught: the first is the oracle it is for.
    pub properties: &'static [&'static str],
    /// Seeds tried before it counts as missed.
    pub runs: u32,
}

/// All canaries.
pub const ALL: &[Canary] = &[
    Canary { defect: Defect::NoFlushOnUnmap, scenario: "unmap-vs-dma", kernel: "tip", properties: &["I8", "I3"], runs: 400 },
    Canary { defect: Defect::PreserveSkipsTable, scenario: "update-with-dma", kernel: "tip-reclaim", properties: &["I2"], runs: 50 },
    Canary { defect: Defect::WrongFrameMapped, scenario: "update-with-dma", kernel: "tip-reclaim", properties: &["I3"], runs: 200 },
    Canary { defect: Defect::AllocBeforeReserve, scenario: "update-with-dma", kernel: "tip-reclaim", properties: &["I5"], runs: 50 },
    Canary { defect: Defect::RestoreKeepsMagic, scenario: "update-with-dma", kernel: "tip-reclaim", properties: &["I6"], runs: 50 },
    Canary { defect: Defect::MapWhileImmutable, scenario: "map-vs-preserve", kernel: "tip", properties: &["I7", "I2"], runs: 400 },
    Canary { defect: Defect::FreeBeforeFlush, scenario: "unmap-vs-dma", kernel: "tip", properties: &["I8"], runs: 400 },
    Canary { defect: Defect::UnpreserveSkipsFolio, scenario: "abort-and-reuse", kernel: "tip", properties: &["L1"], runs: 200 },
    Canary { defect: Defect::FinishKeepsHeader, scenario: "update-with-dma", kernel: "tip-reclaim", properties: &["L2"], runs: 50 },
    Canary { defect: Defect::FreeWithoutUnpreserve, scenario: "abort-and-reuse", kernel: "tip", properties: &["L3", "L1"], runs: 400 },
    Canary { defect: Defect::CloseInOrder, scenario: "abort-and-reuse", kernel: "tip", properties: &["P1"], runs: 100 },
    Canary { defect: Defect::FlbFinishEarly, scenario: "update-with-dma", kernel: "tip-reclaim", properties: &["P3"], runs: 100 },
    Canary { defect: Defect::PreserveUnderSpinlock, scenario: "update-with-dma", kernel: "tip-reclaim", properties: &["P7"], runs: 50 },
    Canary { defect: Defect::LeaveLocked, scenario: "preserve-fails-midway", kernel: "tip", properties: &["LOCK"], runs: 400 },
    Canary {
        defect: Defect::QueueFreedInUse,
        scenario: "update-with-dma",
        kernel: "tip-reclaim",
        properties: &["hardware-write"],
        runs: 200,
    },
    Canary {
        defect: Defect::AttachBlocksFirst,
        scenario: "update-with-dma",
        kernel: "tip-reclaim",
        properties: &["availability"],
        runs: 400,
    },
    Canary { defect: Defect::UnpreserveKeepsPins, scenario: "abort-and-reuse", kernel: "tip", properties: &["L1"], runs: 100 },
    Canary { defect: Defect::RollbackKeepsImmutable, scenario: "preserve-fails-midway", kernel: "tip", properties: &["L1"], runs: 800 },
    Canary {
        defect: Defect::RollbackLeaksHold,
        scenario: "preserve-fails-midway",
        kernel: "tip",
        properties: &["L1", "unexplained", "LOCK"],
        runs: 2000,
    },
    Canary {
        defect: Defect::PreserveFdStaysBusy,
        scenario: "preserve-fails-midway",
        kernel: "tip",
        properties: &["unexplained", "L1"],
        runs: 800,
    },
    Canary { defect: Defect::RestoreSkipsTable, scenario: "update-with-dma", kernel: "tip-reclaim", properties: &["adoption"], runs: 50 },
    Canary { defect: Defect::LeafNotFlushed, scenario: "update-with-dma", kernel: "tip", properties: &["availability"], runs: 100 },
    Canary { defect: Defect::ContextNotFlushed, scenario: "update-with-dma", kernel: "tip", properties: &["availability"], runs: 100 },
    Canary { defect: Defect::DoorbellRelaxed, scenario: "unmap-vs-dma", kernel: "tip", properties: &["I8", "I3"], runs: 400 },
    Canary { defect: Defect::RollbackShort, scenario: "preserve-fails-midway", kernel: "tip", properties: &["L1"], runs: 400 },
    Canary {
        defect: Defect::TableInstallByStore,
        scenario: "map-vs-preserve",
        kernel: "tip",
        properties: &["availability", "unexplained"],
        runs: 1000,
    },
    Canary {
        defect: Defect::UnpreserveWrongOrder,
        scenario: "abort-and-reuse",
        kernel: "tip",
        properties: &["unexplained", "L1"],
        runs: 100,
    },
    Canary { defect: Defect::StrayWarn, scenario: "update-with-dma", kernel: "tip-reclaim", properties: &["unexplained"], runs: 50 },
    Canary { defect: Defect::UndefinedByte, scenario: "update-with-dma", kernel: "tip-reclaim", properties: &["definedness"], runs: 50 },
    Canary { defect: Defect::DomainIdNotReserved, scenario: "update-with-dma", kernel: "tip-reclaim", properties: &["I9"], runs: 200 },
];
