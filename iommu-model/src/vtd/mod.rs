//! One Intel VT-d remapping unit in legacy mode.
//!
//! Source: VT-d architecture specification, rev 4.1/5.0, Intel's register texts of shipped parts, and what Linux 7.3
//! `drivers/iommu/intel/` relies on. Where they leave the hardware free, a [`Question`](crate::Question) goes to
//! the caller. An assumption that none of them settles says so where it is made.
//!
//! | supported | how |
//! | --- | --- |
//! | root, context, second stage; 3, 4, 5 levels; 4 KiB, 2 MiB, 1 GiB leaves | one fetch a step |
//! | pass-through (T=10), translation off, interrupt range | [`Progress`](crate::Progress) says which |
//! | context cache, IOTLB, paging-structure caches | stale until removed; every entry keeps its source words |
//! | caching mode (CM=1) | whether a not-present entry is cached is asked |
//! | invalidation queue: context, IOTLB, wait (IF, SW), DR/DW, IQE | strictly in order |
//! | register-based context and IOTLB invalidation | refused while the queue is on (assumption) |
//! | SRTP with and without ESRTPS, TE, WBF, QIE | a change that must drain completes at [`Unit::register_drained`] |
//! | fault records, overflow, collapse, FPD, event messages | |
//! | many walks in flight, same-page merge, prefetch | an invalidation restarts exactly the walks it covers |
//!
//! | accepted and ignored | |
//! | --- | --- |
//! | device-TLB and interrupt-entry descriptors | cost only |
//! | FN of a wait descriptor | every wait is a fence here; overlap with later descriptors is not modelled |
//! | SIRTP, IRE, CFI | mirrored in GSTS, no effect |
//! | EMT, IPAT, SNP, A, D in paging entries | A and D are not defined in legacy mode |
//!
//! | not supported | |
//! | --- | --- |
//! | scalable mode, first stage, nested, PASID | a request with PASID faults 0x31; another TTM faults 0x30 |
//! | translated and translation requests (ATS), page requests | so reason 0x0d does not occur |
//! | ITE, ICE: device-TLB time-outs | |
//! | protected memory regions, advanced fault log, interrupt remapping | capabilities read 0 |
//! | reads in the interrupt range | treated as ordinary addresses |
//! | write buffer, CPU-cache coherence | the caller's memory; RWBF and C are reported, flushes are announced |
//!
//! # How an invalidation meets walks in flight
//!
//! A walk holds words that it read earlier, and an outstanding fetch may be answered with what memory held before
//! the invalidation. When an invalidation is carried out, every walk that holds or awaits a word it covers goes back
//! to its beginning, and the answer to its outstanding fetch is thrown away. So no walk installs or uses a covered
//! word afterwards. Walks that it does not cover go on undisturbed: a wrong range leaves them stale, as on hardware.
//! Requests whose translation was already handed out are the caller's; that is what drains are for.

mod capability;
mod context_walk;
mod fault;
mod invalidate;
mod queue;
mod register_file;
mod registers;
mod second_stage;
mod unit;
mod walk;

pub use capability::Capabilities;
pub use invalidate::{ContextScope, Invalidation, InvalidationDone, IotlbScope, PageRange};
pub use queue::{QueueError, QueueInput, QueueProgress};
pub use register_file::{Register, locate_register};
pub use registers::{Drain, RegisterEffect};
pub use unit::Unit;
pub use walk::WalkView;
