//! One AMD-Vi unit.
//!
//! Source: AMD I/O Virtualization Technology specification (48882) as Linux 7.3 `drivers/iommu/amd` and
//! `generic_pt/fmt/amdv1.h`, VirtualBox 7 `DevIommuAmd.cpp`, and QEMU `amd_iommu.c` read it: its own text was not at hand. Where
//! they leave the hardware free, a [`Question`](crate::Question) goes to the caller. An assumption that none of them settles
//! says so where it is made; where they disagree, [`Capabilities`] has a knob.
//!
//! | supported | how |
//! | --- | --- |
//! | device table, one segment; V, TV, mode 0 to 6, IR, IW, HAD, GV, GIoV, GLX, SA, EX | one fetch of 32 bytes |
//! | host page tables of 1 to 6 levels, level skipping, leaves of every power of two | one fetch a step |
//! | GCR3 tables of 1 to 3 levels, in the host or under GCR3TRPMode in the guest | one fetch a step |
//! | guest page tables of 4 and 5 levels; 4 KiB, 2 MiB, 1 GiB; nested on the host's | each guest fetch through the host's tables |
//! | A and D of guest entries; of host entries with HAD | an atomic update is asked of the caller |
//! | exclusion range, interrupt range | |
//! | command buffer: COMPLETION_WAIT, INVALIDATE_DEVTAB_ENTRY, INVALIDATE_IOMMU_PAGES, INVALIDATE_IOMMU_ALL, PREFETCH_IOMMU_PAGES | an invalidation may be carried out late |
//! | translation requests and translated requests; I of a device table entry | [`Unit::begin_as`]; [`AtsAnswer`](crate::AtsAnswer); what is assumed is in `ats` |
//! | INVALIDATE_IOTLB_PAGES with tags, Maxpend, completion, IOTLB_INV_TIMEOUT; COMPLETE_PPR_REQUEST | a device holds its translations in a [`DeviceTlb`](crate::DeviceTlb) |
//! | event log with overflow; MSI | the caller stores the events |
//! | device table entry cache, GCR3 cache, TLB, page-directory caches of every level | stale until removed; every entry keeps its source words |
//! | NpCache | whether an entry that is not present is cached is asked |
//! | many walks in flight, same-page merge, prefetch | an invalidation restarts the walks it covers |
//!
//! | accepted and ignored | |
//! | --- | --- |
//! | INVALIDATE_INTERRUPT_TABLE | cost only |
//! | f of COMPLETION_WAIT | later commands always wait |
//! | SE, PPR, GPRP, IoCtl, Cache, SD, SysMgt, SATS of a device table entry; its upper half but GuestPagingMode | |
//! | U, FC of host entries; PWT, PCD, PAT, G, NX of guest entries | G: a guest invalidation drops global pages too |
//! | HADUpdate, invalidation time-out, bus attributes of the control register | |
//!
//! | not supported | |
//! | --- | --- |
//! | interrupt remapping | interrupts pass; IntCtl and IV do not count |
//! | page requests and their log; Type of INVALIDATE_IOTLB_PAGES | |
//! | device table segments, second logs, guest virtual APIC, vIOMMU, SNP | features read 0 |
//! | supervisor requests | every request of a guest translation is one of a user |
//! | HyperTransport address ranges but interrupts, port I/O, SMI filters | ordinary addresses |
//!
//! # How an invalidation meets walks in flight
//!
//! A walk holds words that it read earlier, and an outstanding fetch may be answered with what memory held before
//! the invalidation. When an invalidation is carried out, every walk that holds or awaits a word it covers goes back
//! to its beginning, and the answer to its outstanding fetch is thrown away. Walks that it does not cover go on.
//! Requests whose translation was already handed out are the caller's; that is what the drain of a COMPLETION_WAIT is
//! for.

mod ats;
pub(crate) mod cache;
mod capability;
mod command;
mod command_buffer;
mod device_commands;
mod device_entry;
mod device_walk;
mod event_log;
mod fault;
mod guest_walk;
mod host_walk;
mod invalidate;
mod paging;
mod register_file;
mod registers;
mod step;
mod unit;
mod walk;
mod walkers;

pub use crate::page_span::AddressRange;
pub use cache::Caches;
pub use cache::device::DeviceCached;
pub use cache::directory::DirectoryEntry;
pub use cache::guest_root::GuestRootCached;
pub use cache::space::Space;
pub use cache::tlb::TlbEntry;
pub use capability::Capabilities;
pub use command::PrefetchHint;
pub use command_buffer::{CommandError, CommandInput, CommandProgress};
pub use device_entry::{DeviceEntry, GuestTables, HostTranslation};
pub use event_log::{EventInput, EventProgress};
pub use fault::Event;
pub use invalidate::{Invalidation, InvalidationDone, PagesScope};
pub use register_file::{Register, locate_register};
pub use registers::RegisterEffect;
pub use unit::Unit;
pub use walk::WalkView;
