//! Memory models: what a store and a load may do between the program and the coherent memory.
//!
//! [`Ram`](crate::memory::Ram)'s bytes are always the coherent view. A model lays something over it:
//!
//! | model | overlay | allowed beyond sequential consistency |
//! | --- | --- | --- |
//! | [`MemoryModel::Sc`] | none | nothing |
//! | [`MemoryModel::Tso`] | a FIFO store buffer for each CPU | a store is seen by others after later loads of its CPU (SB, R) |
//! | [`MemoryModel::Weak`] | a store buffer that drains in any allowed order, and loads that may return what was overwritten a moment ago | also MP, S, 2+2W, WRC, IRIW without barriers |
//! | a unit with ECAP.C = 0 | dirty 64-byte lines | the walker reads what was there before the line was written back |
//!
//! # TSO
//! Owens, Sarkar and Sewell, "A better x86 memory model: x86-TSO" (TPHOLs 2009). A store to memory others can reach enters the
//! buffer at once, without a scheduling point: nobody else can tell when. The **drain** is the step, announced by an actor of
//! its own beside the CPU, so that every policy orders drains as it orders everything else. A load takes the newest own
//! store that covers it; one that overlaps an own store in part waits until that has drained, as store forwarding that fails does.
//! Locked operations and `mfence` wait until the buffer is empty. The buffer is bounded: a store that finds it full waits.
//!
//! # Weak
//! A multi-copy-atomic machine in the manner of Arm: Pulte et al., "Simplifying ARM concurrency" (POPL 2018). Stores to different
//! words drain in any order unless a write barrier stands between them; a release store drains after everything older. A load may
//! return an overwritten value that was still there when the last barrier of its CPU was passed: as if it had been performed
//! earlier. An acquire load keeps later loads behind it; a load through a pointer is performed after the load of that pointer
//! (address dependency); no CPU sees one word go backwards (coherence). Not modelled: a load that is performed after a *later*
//! store of its CPU (load buffering, LB), since a program here needs the value before it can go on; in this the model is as RC11.
//! Atomic operations are full barriers, and so are register accesses, allocator calls and everything announced by hand.
//!
//! # Non-coherent walker
//! A store that has reached the caches makes its line dirty; table fetches of a unit with ECAP.C = 0 read the line as it was before,
//! until it is flushed ([`Cpu::clflush_cache_range`](crate::cpu::Cpu::clflush_cache_range)) or evicted. When an eviction happens is
//! asked at the two places where it makes a difference: before a further store to the line and before a fetch of it. A line has
//! at most one owner. Dirty lines outlive the jump. DMA, and a unit's reads of its invalidation queue, snoop. In scalable mode
//! ECAP.C counts for all tables here, ECAP.SMPWC for none.
//!
//! Under SC with coherent units there is no overlay: no extra step, choice, allocation or event.

mod barrier;
mod dirty_lines;
mod drain;
mod history;
mod overlay;
mod store_buffer;
mod view;

pub use barrier::Barrier;
pub(crate) use overlay::Overlay;

use std::fmt;
use std::str::FromStr;

/// Bytes of a cache line (x86 and Arm hosts alike).
pub const LINE_BYTES: u64 = 64;

/// How CPUs order their accesses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum MemoryModel {
    /// Sequential consistency: an access takes effect in the step that performs it.
    #[default]
    Sc,
    /// x86: total store order.
    Tso,
    /// Multi-copy atomic, otherwise unordered: Arm, without load buffering.
    Weak,
}

impl MemoryModel {
    /// All models, from the strongest to the weakest.
    pub const ALL: [MemoryModel; 3] = [MemoryModel::Sc, MemoryModel::Tso, MemoryModel::Weak];

    /// Name in settings: `sc`, `tso`, `weak`.
    pub const fn name(self) -> &'static str {
        match self {
            MemoryModel::Sc => "sc",
            MemoryModel::Tso => "tso",
            MemoryModel::Weak => "weak",
        }
    }
}

impl fmt::Display for MemoryModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No memory model has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown memory model `{0}`: one of sc, tso, weak")]
pub struct UnknownModel(String);

impl FromStr for MemoryModel {
    type Err = UnknownModel;

    fn from_str(text: &str) -> Result<MemoryModel, UnknownModel> {
        MemoryModel::ALL.into_iter().find(|model| model.name() == text).ok_or_else(|| UnknownModel(text.to_owned()))
    }
}
