//! One RISC-V IOMMU.
//!
//! Source: the RISC-V IOMMU architecture specification, version 1.0 (text and reference model of
//! riscv-non-isa/riscv-iommu), its extensions chapter for NL and S, the privileged specification for page tables. Where
//! they leave the hardware free, a [`Question`](crate::Question) goes to the caller. An assumption that none of them
//! settles says so where it is made; those that the reference model makes are named as such.
//!
//! | supported | how |
//! | --- | --- |
//! | device directory of 1, 2, 3 levels; Off and Bare; base and extended contexts | one fetch a step |
//! | process directory PD8, PD17, PD20, on a second stage too; DPE; ENS, SUM | one fetch a step |
//! | first stage Sv39, Sv48, Sv57; second stage Sv39x4, Sv48x4, Sv57x4; nested | each first-stage fetch through the second stage |
//! | superpages of every level, NAPOT 64 KiB, Svpbmt | |
//! | A and D: SADE, GADE with AMO_HWAD, else faults | an atomic update is asked of the caller |
//! | flat MSI page tables, basic mode; MRIF mode | for MRIF the caller stores and sends: [`Unit::last_interrupt_file`] |
//! | translated and translation requests (ATS), T2GPA | [`Transaction::kind`]; [`AtsAnswer`] |
//! | page requests | [`Unit::begin_page_request`] |
//! | IOTINVAL.VMA, GVMA with NL and S; IODIR; IOFENCE.C with PR, PW, AV, WSI; ATS.INVAL, ATS.PRGR | a command may be carried out late |
//! | fault queue and page-request queue, with overflow and memory faults | the caller stores the records |
//! | ipsr, icvec, MSI configuration table, wires | |
//! | translation-request registers | [`Unit::begin_debug`] |
//! | directory caches with their non-leaf entries, IOTLB, walk caches of both stages | stale until removed; every entry keeps its source words |
//! | many walks in flight, same-page merge, prefetch | an invalidation restarts the walks it covers |
//!
//! | accepted and ignored | |
//! | --- | --- |
//! | RCID, MCID of a device context, with QOSID | |
//! | custom bits of a device context and of registers | |
//! | alignment of queues larger than a page | entries lie where base and index say |
//!
//! | not supported | |
//! | --- | --- |
//! | big-endian tables and queues, 32-bit schemes (fctl.BE, fctl.GXL) | hardwired 0: SBE and SXL must be 0 |
//! | performance monitor, iommu_qosid | registers read 0 |
//! | data corruption (RAS) | causes 268 to 271 and 274 do not occur |
//! | custom MSI entry formats | misconfigured, as in the reference model |
//! | pointers of a context cached after translation by the second stage | they are translated at each use |
//! | write addresses that are misaligned | causes 4 and 6 do not occur |
//!
//! [`Translation::domain`](crate::Translation::domain) is the GSCID; without second stage, the low 16 bits of the PSCID.
//!
//! # How an invalidation meets walks in flight
//!
//! A walk holds words that it read earlier, and an outstanding fetch may be answered with what memory held before
//! the invalidation. When an invalidation is carried out, every walk that holds or awaits a word it covers goes back
//! to its beginning, and the answer to its outstanding fetch is thrown away. Walks that it does not cover go on.
//! Requests whose translation was already handed out are the caller's; that is what PR and PW of a fence are for.

pub(crate) mod cache;
mod capability;
mod command;
mod command_queue;
mod context;
mod debug;
mod device_walk;
mod fault;
mod first_stage;
mod id;
mod interrupt;
mod invalidate;
mod messages;
mod page_request;
mod paging;
mod process_walk;
mod record_queue;
mod register_file;
mod registers;
mod request;
mod second_stage;
mod step;
mod unit;
mod walk;
mod walkers;

pub use crate::ats::AtsAnswer;
pub use crate::page_span::AddressRange;
pub use cache::Caches;
pub use cache::directory::{DeviceEntry, DirectoryNode, ProcessEntry};
pub use cache::iotlb::{Permissions, TlbEntry};
pub use cache::space::Space;
pub use cache::walk::WalkEntry;
pub use capability::{Capabilities, InterruptSignalling};
pub use command::DeviceMessage;
pub use command_queue::{CommandError, CommandInput, CommandProgress};
pub use context::{DeviceContext, MessageTable, ProcessContext, Stage};
pub use id::{DeviceId, Gscid, Pscid};
pub use invalidate::{GvmaScope, Invalidation, InvalidationDone, VmaScope};
pub use messages::InterruptFile;
pub use record_queue::{RecordInput, RecordProgress};
pub use register_file::{Register, locate_register};
pub use registers::RegisterEffect;
pub use request::{AddressKind, PageRequest, PageRequestOutcome, ResponseCode, Transaction};
pub use unit::Unit;
pub use walk::WalkView;
