//! One Intel VT-d remapping unit, in legacy and in scalable mode.
//!
//! Source: VT-d architecture specification, rev 4.1/5.0, Intel's register texts of shipped parts, and what Linux 7.3
//! `drivers/iommu/intel/` relies on. Where they leave the hardware free, a [`Question`](crate::Question) goes to
//! the caller. An assumption that none of them settles says so where it is made.
//!
//! | supported | how |
//! | --- | --- |
//! | root, context, second stage; 3, 4, 5 levels; 4 KiB, 2 MiB, 1 GiB leaves | one fetch a step |
//! | pass-through (T=10), translation off, interrupt range, abort mode (TTM=11) | [`Progress`](crate::Progress) says which |
//! | scalable mode: lower and upper context tables, PASID directory and table, RID_PASID, RID_PRIV | on units that have it |
//! | first stage, 4 and 5 levels; second stage; nested; pass-through by PASID | one fetch a step, 28 for a cold nested 4-level walk |
//! | A and D of the first stage, EA under EAFE, and under SSADE A and D of the second | an atomic update is asked of the caller |
//! | privileged requests (SRE, WPE, SMEP), execute requests (ERE, NXE, XD, SSEE, X) | [`Attributes`](crate::Attributes) of a request with PASID |
//! | translation and translated requests (T=01, DTE), device TLBs | [`Unit::begin_as`], [`DeviceTlb`](crate::DeviceTlb) |
//! | page requests (PRE), their queue in memory, overflow, drain (PD), responses | [`Unit::begin_page_request`], [`Unit::page_queue_advance`] |
//! | context cache, PASID cache, IOTLB, paging-structure caches | stale until removed; every entry keeps its source words |
//! | caching mode (CM=1) | whether a not-present entry is cached is asked |
//! | entries wider than 8 bytes, whole or word by word in either order | [`Params::split_fetches`](crate::Params) |
//! | invalidation queue: every descriptor, wait (IF, SW, PD), DR/DW, IQE | strictly in order; device-TLB invalidations overlap |
//! | device-TLB invalidations: ITags, throttling (DIT), ICE, ITE | the device completes ([`Unit::device_completes`]) or times out |
//! | 256-bit descriptors | with IQA.DW; scalable mode does not go without (assumption, IQEI 5) |
//! | register-based context and IOTLB invalidation | refused while the queue is on (assumption) |
//! | SRTP with and without ESRTPS, TE, WBF, QIE | a change that must drain completes at [`Unit::register_drained`] |
//! | fault records, overflow, collapse, FPD, AT, PRIV, EXE, event messages | |
//! | many walks in flight, same-page merge, prefetch | an invalidation restarts exactly the walks it covers |
//!
//! | accepted and ignored | |
//! | --- | --- |
//! | interrupt-entry descriptors | cost only |
//! | FN of a wait descriptor | every wait is a fence here; overlap with later descriptors is not modelled |
//! | SIRTP, IRE, CFI | mirrored in GSTS, no effect |
//! | EMT, IPAT, SNP, and without SSADE A and D, in second-stage entries | A and D are not defined in legacy mode |
//! | PAT, PWT, PCD, CD, EMT, PGSNP of a PASID entry; PWT, PCD, PAT of first-stage entries | memory types |
//! | G of first-stage entries | a PASID-based invalidation drops global pages too |
//! | XD without NXE | reserved on a CPU; whether here too is open |
//! | execute permission in the answer to a translation request; U and N of the answer | nobody asks for them here |
//! | private data of page requests | written as 0 |
//! | fault reasons 0x43, 0x48, 0x7b, 0x88, 0x89 | named by manuals, never raised: no condition of theirs is modelled |
//!
//! | not supported | |
//! | --- | --- |
//! | TTM=10; TTM=11 on units without abort mode | every request faults 0x30 |
//! | protected memory regions, advanced fault log, interrupt remapping and posting, virtual commands, enhanced commands | capabilities read 0 |
//! | reads in the interrupt range | treated as ordinary addresses |
//! | AtomicOps (T2 of fault records) | a request reads or writes |
//! | ZLR: zero-length reads | capability reads 0 |
//! | performance counters | the caller counts steps |
//! | write buffer, CPU-cache coherence | the caller's memory; RWBF and C are reported, flushes are announced |
//!
//! # How an invalidation meets walks in flight
//!
//! A walk holds words that it read earlier, and an outstanding fetch may be answered with what memory held before
//! the invalidation. When an invalidation is carried out, every walk that holds or awaits a word it covers goes back
//! to its beginning, and the answer to its outstanding fetch is thrown away. So no walk installs or uses a covered
//! word afterwards. An update that was asked for may still have been made; A or D is then set for nothing. Walks that it does not cover go on undisturbed: a wrong range leaves them stale, as on hardware.
//! Requests whose translation was already handed out are the caller's; that is what drains are for.

mod capability;
mod context_walk;
mod descriptors;
mod device_invalidations;
mod device_requests;
mod fault;
mod first_stage;
mod invalidate;
mod need;
mod page_requests;
mod queue;
mod register_file;
mod registers;
mod scalable_walk;
mod second_stage;
mod step;
mod unit;
mod walk;
mod walkers;

pub use crate::ats::PageRange;
pub use capability::{Capabilities, Scalable};
pub use device_invalidations::DeviceAnswer;
pub(crate) use invalidate::matches_source;
pub use invalidate::{ContextScope, Invalidation, InvalidationDone, IotlbScope, PasidIotlbScope, PasidScope};
pub use page_requests::{PageQueueInput, PageQueueProgress};
pub use queue::{QueueError, QueueInput, QueueProgress};
pub use register_file::{Register, locate_register};
pub use registers::{Drain, RegisterEffect};
pub use unit::Unit;
pub use walkers::WalkView;
