//! A deterministic machine for concurrent protocols over shared memory.
//!
//! Actors announce each shared access before it happens; a search policy picks who goes next; everything else a run decides
//! (which allocation fails, which frame is handed out, what the hardware does) is asked of the same policy and recorded. One
//! list of small integers is the run.
//!
//! # Map
//!
//! | module | what it is |
//! | --- | --- |
//! | [`engine`] | actors, announcements, choices: knows no memory and no hardware |
//! | [`policy`] | search policies, one a file |
//! | [`entropy`] | the one entropy source, in named streams |
//! | [`replay`] | choice lists as text |
//! | [`memory`] | RAM of real bytes with shadow; typed kernel pointers |
//! | [`memory_model`] | store buffers, stale loads and dirty cache lines over the coherent bytes |
//! | [`alloc`] | folio allocator and slab; what fails and what is handed out are choices |
//! | [`cpu`], [`sync`] | what a program can do: accesses, locks, refcounts, wait queues |
//! | [`device`] | DMA devices and remapping units (the silicon is the crate `iommu-model`) |
//! | [`trace`], [`oracle`] | the one event stream, its hash, and its judges |
//! | [`machine`] | all of it around one engine |
//! | [`programs`] | small public concurrency programs, to measure policies with |
//! | [`search`] | finding the first bug of a program, and how many schedules that takes |
//! | [`shrink`] | from a run that fails to its few decisive steps |
//! | [`window`] | who has to be stalled for how long before a run's order comes about by itself |
//! | [`figures`] | what all of this costs, measured, and the commands that measure it (no code) |
//! | [`shared`] | the smallest way in: shared cells and a lock, without simulated memory |
//! | [`bare`] | the smallest way to simulated memory, its models and the race detector |
//!
//! What the searches are worth, and how to repeat the figures: `docs/search.md`.
//!
//! `sim` knows no kernel: it is useful alone for any concurrent protocol over shared memory.

pub mod alloc;
pub mod bare;
pub mod cpu;
pub mod device;
pub mod engine;
pub mod entropy;
#[doc = include_str!("../docs/figures.md")]
pub mod figures {}
pub mod machine;
pub mod memory;
pub mod memory_model;
pub mod oracle;
pub mod policy;
pub mod programs;
pub mod replay;
pub mod search;
pub mod shared;
pub mod shrink;
pub mod sync;
pub mod trace;
pub mod window;
