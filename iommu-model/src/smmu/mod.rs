//! One Arm SMMUv3, its non-secure programming interface, as SMMUv3.2.
//!
//! Source: Arm IHI 0070 G.b; where it leaves tables to the Arm ARM, VMSAv8-64 there; what Linux 7.3
//! `drivers/iommu/arm/arm-smmu-v3/` relies on. Where they leave the hardware free, a [`Question`](crate::Question) goes to the
//! caller. An assumption that none of them settles says so where it is made.
//!
//! | supported | how |
//! | --- | --- |
//! | linear and two-level stream tables, CD tables of one and two levels (4 KiB and 64 KiB leaves) | one fetch a step; STE and CD whole or by parts, so that they can be torn |
//! | abort, bypass, stage 1, stage 2, nested; S1DSS | [`Progress`](crate::Progress) says which |
//! | SubstreamID | the PASID of the request |
//! | VMSAv8-64 tables of both stages, 4, 16, 64 KiB granules, 25 to 48 bits, blocks, concatenated stage-2 tables | one fetch a step, 23 table descriptors at most for a nested walk |
//! | EPD, TBI, HAD, APTable, AP, S2AP, PAN, AF, AFFD | priorities of the Arm ARM |
//! | HTTU: HA, HD, S2HA, S2HD, DBM | an atomic update is asked of the caller |
//! | contiguous hint | whether it is used is asked; a run that does not fit is ignored |
//! | SMMUEN, GBPA, CR0ACK | SMMUEN is acknowledged at [`Unit::register_drained`] |
//! | configuration cache, TLB by VMID and ASID, IPA entries, walk caches of every level | stale until removed; every entry keeps its source words |
//! | cached invalid STE, CD and level-1 descriptors | asked |
//! | command queue: CFGI_*, TLBI_NH_*, TLBI_S12_VMALL, TLBI_S2_IPA, TLBI_NSNH_ALL, range and level hint, CMD_SYNC | strictly in order; an invalidation may wait for CMD_SYNC |
//! | CERROR_ILL, CERROR_ABT, GERROR and GERRORN, interrupts by message or wire | |
//! | event queue: records, overflow, abort, RECINVSID, CD.R, STE.S2R, MEV | written one record a step |
//! | translation requests and translated requests; EATS full and split-stage, ATSCHK, REC_CFG_ATS | [`Unit::begin_as`]; [`AtsAnswer`](crate::AtsAnswer) |
//! | CMD_ATC_INV: tags, completion, time-out, CERROR_ATC_INV_SYNC | a device holds its translations in a [`DeviceTlb`](crate::DeviceTlb) |
//! | PRI queue with overflow, abort and the unit's own answers; CMD_PRI_RESP | [`Unit::page_request`] |
//! | BBML 0 to 2 | below 2 a look-up that matches several entries may raise F_TLB_CONFLICT: asked |
//! | many walks in flight, same-page merge, prefetch | an invalidation restarts exactly the walks it covers |
//!
//! | accepted and ignored | |
//! | --- | --- |
//! | CMD_PREFETCH_* | cost only |
//! | CONT of an STE; memory attributes everywhere; S2PTW, S2FWB, MPAM | no effect on where a request goes |
//! | PXN, UXN, XN, WXN, UWXN, INSTCFG, PRIVCFG | no execute requests; privilege is a parameter |
//! | ASET, CR2.PTM, CR1 | no broadcast invalidation |
//! | reserved bits of structures and commands | ignored, as section 5 allows |
//!
//! | not supported | |
//! | --- | --- |
//! | stalls (STALL_MODEL 1): CD.S, STE.S2S, CMD_RESUME, CMD_STALL_TERM | illegal, as on such a unit |
//! | AArch32 and 128-bit descriptors, 52-bit addresses, small tables, big-endian tables | illegal, as on such a unit |
//! | EL2 StreamWorlds, secure and realm interfaces | EL2 commands are illegal |
//! | PRIQ_IRQ_CFG2.LO; PPAR | IDR3.PPS is 1 |
//! | Exe and Priv of a PASID; PASIDs of translated requests; DPT; stash and atomic requests | |
//! | HAFT, permission indirection, ATOS, ECMDQ, performance monitors | |
//!
//! # How an invalidation meets walks in flight
//!
//! A walk holds words that it read earlier, and an outstanding fetch may be answered with what memory held before the
//! invalidation. When an invalidation takes effect, every walk that holds or awaits a word it covers goes back to its
//! beginning, and the answer to its outstanding fetch is thrown away: section 3.21 lets the SMMU stop and restart such a walk,
//! or finish it before CMD_SYNC completes. Walks that it does not cover go on undisturbed. Requests whose translation was
//! already handed out are the caller's; that is what the drain of CMD_SYNC is for.

mod ats;
pub mod cache;
mod capability;
mod command;
mod config_walk;
mod context;
mod device_commands;
mod event;
mod ids;
mod invalidate;
mod page_requests;
mod params;
mod register_file;
mod registers;
mod stage_1;
mod stage_2;
mod step;
mod stream;
mod tables;
mod unit;
mod walk;
mod walks;

pub use cache::Caches;
pub use capability::{Capabilities, HardwareUpdate};
pub use command::{CommandInput, CommandProgress, Completion};
pub use context::{ContextConfig, Half};
pub use event::{EventInput, EventProgress};
pub use ids::{Asid, StreamId, Vmid};
pub use invalidate::{AddressRange, Invalidation, InvalidationDone};
pub use page_requests::{PageQueueInput, PageQueueProgress, PageRequestOutcome};
pub use params::{ConfigFetch, Params};
pub use register_file::{Register, locate_register};
pub use registers::{RegisterEffect, Signal};
pub use stream::{AtsMode, Stage2, StreamConfig, StreamTarget};
pub use tables::Tables;
pub use unit::Unit;
pub use walk::WalkView;
