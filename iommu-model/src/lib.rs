//! IOMMUs as silicon: one memory fetch, one look-up, one queue step at a time.
//!
//! The model is sans-I/O. A [`Unit`] owns registers, caches, walkers and a queue; memory, time and every free
//! decision belong to the caller. A request becomes a walk ([`Unit::begin`]); each [`Unit::advance`] does one look-up
//! or names one fetch and is told the answer by the next call. The invalidation queue is driven the same way
//! ([`Unit::queue_advance`]). Where the manuals leave the hardware a choice, a [`Question`] goes to the caller's
//! [`Decisions`]. So a simulator can put any store, from any CPU, between any two steps, and replay it.
//!
//! # Map
//!
//! | module | what |
//! | --- | --- |
//! | [`addr`] | typed addresses and ids |
//! | [`request`] | the interface of a translation |
//! | [`ats`] | kinds of requests, device-TLB invalidations, page requests |
//! | [`translator`] | the same as a trait, for any architecture |
//! | [`provenance`] | which words a result was made from |
//! | [`decision`] | the free decisions of the hardware |
//! | [`timing`] | sizes and costs, each with its source |
//! | [`spec`] | layouts of the manuals, no behaviour |
//! | [`riscv`] | RISC-V IOMMU: the unit, its capability table, its rules |
//! | [`amd`] | AMD-Vi: the unit, its capability table, its rules, its caches |
//! | [`vtd`] | Intel VT-d, legacy and scalable mode: the unit, its capability table, its rules |
//! | [`cache`] | context cache, PASID cache, IOTLB, paging-structure caches, device TLBs |
//! | [`smmu`] | Arm SMMUv3: the unit, its capability table, its rules, its caches |
//! | [`slot`] | a checker: whether software changes table entries as the manual demands |
//! | [`inspect`] | any state or table as stable text |
//!
//! # Invariants
//!
//! - Any bytes in tables, descriptors and registers are input: nothing panics on them.
//! - A walk asks for at most two more fetches than its table has levels, in scalable mode four more, then ends, unless an
//!   invalidation restarts it. Nested, each first-stage level counts as one more than the second stage has levels.
//! - Memory is written only as the caller is asked to: updates of A and D, each an atomic compare-exchange; the status of
//!   wait descriptors; page request records.
//! - Caches change by installs, invalidations, and evictions that the caller chose; never by looking at memory.
//! - A caller that brings an answer nobody asked for, or drives a walk that has ended, has a bug: that panics.
//!
//! # Who judges the model
//!
//! | what | where |
//! | --- | --- |
//! | rules, one test each, and every race with what forbids it | `tests/vtd`, `smmu`, `amd`, `riscv` |
//! | what the manual allows, as a set, both ways; written without this crate's layouts; with PASIDs, and inside walks | `tests/reference` |
//! | every rule of changing tables, kept and broken; nothing is used that was cleaned away, on all four | `tests/slot` |
//! | cycles add up to the published curves | `tests/curves` |
//! | arbitrary bytes: `cargo test --release -p iommu-model --test fuzz -- --ignored` for ten million inputs each | `tests/fuzz` |
//! | no step allocates | `tests/allocations.rs` and its neighbours |
//! | speed: `cargo bench -p iommu-model`; on a busy machine its bench `least` | `benches` |
#![doc = ""]
#![doc = include_str!("../docs/referee.md")]

pub mod addr;
pub mod amd;
pub mod ats;
pub mod cache;
pub mod decision;
pub mod inspect;
mod invalidation_tags;
mod page_span;
pub mod provenance;
pub mod request;
pub mod riscv;
pub mod slot;
pub mod smmu;
pub mod spec;
pub mod timing;
pub mod translator;
pub mod vtd;

pub use addr::{Bdf, DomainId, Iova, PAGE_SHIFT, PAGE_SIZE, Pa, Pasid, Pfn};
pub use ats::{AtsAnswer, Attributes, DeviceInvalidation, PageRange, PageRequest, PageResponse, RequestKind, ResponseCode};
pub use cache::Caches;
pub use cache::context::{ContextEntryCached, ContextTarget};
pub use cache::device_tlb::{DeviceTlb, DeviceTlbEntry, QuestionTag};
pub use cache::iotlb::IotlbEntry;
pub use cache::pasid::{PasidEntryCached, PasidTarget, Stages};
pub use cache::psc::PscEntry;
pub use decision::{Decisions, Plain, Question};
pub use provenance::{Provenance, ProvenanceId, SOURCES_MAX, SOURCES_NESTED_MAX, Source};
pub use request::{
    Access, Busy, CacheHit, CacheKind, Fault, FaultInfo, FetchKind, Fetched, Message, Progress, Request, Translation, WalkId,
};
pub use spec::vtd::fault::FaultReason;
pub use timing::{Geometry, Params, Timing};
pub use vtd::{
    Capabilities, ContextScope, DeviceAnswer, Drain, Invalidation, InvalidationDone, IotlbScope, PageQueueInput, PageQueueProgress,
    PasidIotlbScope, PasidScope, QueueError, QueueInput, QueueProgress, Register, RegisterEffect, Scalable, Unit, WalkView,
    locate_register,
};
