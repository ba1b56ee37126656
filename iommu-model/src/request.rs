//! The interface of a translation: what goes in, what the hardware asks for, what comes out.
//!
//! A walk is driven by its caller: `advance` does one look-up, or consumes one fetched word and says what it wants
//! next. Nothing here is particular to one architecture except the fault codes.

use crate::addr::{Bdf, DomainId, Iova, Pa, Pasid};
use crate::amd::Event;
use crate::spec::riscv::fault::Cause;
use crate::spec::smmu::event::Termination;
use crate::spec::vtd::fault::FaultReason;

/// What a device wants to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Access {
    /// A memory read.
    Read,
    /// A memory write.
    Write,
}

impl Access {
    /// Whether these permissions serve it.
    #[must_use]
    pub const fn allowed_by(self, readable: bool, writable: bool) -> bool {
        match self {
            Self::Read => readable,
            Self::Write => writable,
        }
    }
}

/// One untranslated request. It never crosses a 4 KiB page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Request {
    /// Requester id.
    pub source: Bdf,
    /// First byte.
    pub iova: Iova,
    /// Read or write.
    pub access: Access,
    /// PASID prefix, if the request has one.
    pub pasid: Option<Pasid>,
}

/// A walk in flight. Ids are not reused within 2^31 walks of one slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WalkId {
    pub(crate) slot: u16,
    pub(crate) generation: u32,
}

impl WalkId {
    /// The walker that serves it: 0 up to the number of parallel walks.
    #[must_use]
    pub const fn slot(self) -> u16 {
        self.slot
    }
}

/// Every walker is taken; try again when one has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("every walker is taken")]
pub struct Busy;

/// What a table fetch reads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FetchKind {
    /// A root entry, 16 bytes.
    Root,
    /// A context entry, 16 bytes.
    Context,
    /// A scalable-mode context entry, 32 bytes.
    ScalableContext,
    /// A PASID directory entry, 8 bytes.
    PasidDirectory,
    /// A PASID table entry, 64 bytes.
    PasidEntry,
    /// A paging entry of the only or the second stage, 8 bytes.
    Table {
        /// Level of the entry: 1 maps 4 KiB.
        level: u8,
    },
    /// A paging entry of the first stage, 8 bytes.
    FirstStage {
        /// Level of the entry: 1 maps 4 KiB.
        level: u8,
    },
    /// SMMU: a level-1 stream table descriptor, 8 bytes.
    StreamLevel1,
    /// SMMU: a stream table entry, 64 bytes.
    StreamEntry,
    /// SMMU: a level-1 context descriptor, 8 bytes.
    ContextLevel1,
    /// SMMU: a context descriptor, 64 bytes.
    ContextDescriptor,
    /// SMMU: a stage-1 translation table descriptor, 8 bytes.
    Stage1 {
        /// Level in Arm's order: 3 is the last.
        level: u8,
    },
    /// SMMU: a stage-2 translation table descriptor, 8 bytes.
    Stage2 {
        /// Level in Arm's order: 3 is the last.
        level: u8,
    },
    /// A non-leaf entry of a RISC-V device directory, 8 bytes.
    DeviceDirectory {
        /// Level of the entry: 1 leads to contexts.
        level: u8,
    },
    /// A RISC-V device context in base format, 32 bytes.
    DeviceContext,
    /// A RISC-V device context in extended format, 64 bytes.
    ExtendedDeviceContext,
    /// A non-leaf entry of a RISC-V process directory, 8 bytes.
    ProcessDirectory {
        /// Level of the entry: 1 leads to contexts.
        level: u8,
    },
    /// A RISC-V process context, 16 bytes.
    ProcessContext,
    /// A RISC-V MSI page-table entry, 16 bytes.
    MessageEntry,
    /// AMD-Vi: a device table entry, 32 bytes.
    DeviceTableEntry,
    /// AMD-Vi: an entry of a GCR3 table, 8 bytes.
    GuestCr3 {
        /// Level of the entry: 1 points at a guest page table.
        level: u8,
    },
}

impl FetchKind {
    /// Bytes of such an entry.
    #[must_use]
    pub const fn bytes(self) -> u8 {
        match self {
            Self::Root | Self::Context => 16,
            Self::ScalableContext => 32,
            Self::PasidEntry | Self::StreamEntry | Self::ContextDescriptor => 64,
            Self::PasidDirectory | Self::Table { .. } | Self::FirstStage { .. } => 8,
            Self::StreamLevel1 | Self::ContextLevel1 | Self::Stage1 { .. } | Self::Stage2 { .. } => 8,
            Self::DeviceDirectory { .. } | Self::ProcessDirectory { .. } => 8,
            Self::ProcessContext | Self::MessageEntry => 16,
            Self::DeviceContext => 32,
            Self::ExtendedDeviceContext => 64,
            Self::DeviceTableEntry => 32,
            Self::GuestCr3 { .. } => 8,
        }
    }
}

/// The answer to a fetch, or to an update.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fetched {
    /// The 64-bit words in address order; the second counts only for 16-byte fetches.
    Words([u64; 2]),
    /// The same for fetches of up to 64 bytes.
    Wide([u64; 8]),
    /// There is no memory at that address.
    NoMemory,
}

impl Fetched {
    /// The answer to an 8-byte fetch.
    #[must_use]
    pub const fn word(value: u64) -> Self {
        Self::Words([value, 0])
    }

    /// The first two words, if there is memory.
    #[inline]
    pub(crate) const fn pair(&self) -> Option<[u64; 2]> {
        match self {
            Self::Words([low, high]) | Self::Wide([low, high, ..]) => Some([*low, *high]),
            Self::NoMemory => None,
        }
    }

    /// All words; what was not brought reads 0.
    pub(crate) const fn all(&self) -> [u64; 8] {
        match self {
            Self::Words([low, high]) => [*low, *high, 0, 0, 0, 0, 0, 0],
            Self::Wide(words) => *words,
            Self::NoMemory => [0; 8],
        }
    }
}

/// Which cache a look-up went to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CacheKind {
    /// Context cache.
    Context,
    /// PASID cache.
    Pasid,
    /// IOTLB.
    Iotlb,
    /// Paging-structure caches, all levels at once.
    Psc,
}

/// Which cache gave the innermost part of a translation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CacheHit {
    /// None: every paging entry was fetched, or none is needed (pass-through). What helped with a stage below counts not.
    None,
    /// The IOTLB gave all of it.
    Iotlb,
    /// A paging-structure cache gave the entries down to this level.
    Psc(u8),
}

/// What a call of `advance` did. Every `cost` is that of this call, in cycles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// A look-up inside the unit; call again without an answer.
    Lookup {
        /// Which cache.
        cache: CacheKind,
        /// Whether it hit.
        hit: bool,
        /// Cycles.
        cost: u32,
    },
    /// The unit wants this memory; call again with the answer. Asked again if called without one.
    Fetch {
        /// First byte; naturally aligned.
        pa: Pa,
        /// 8 or 16; in scalable mode also 32 and 64; of an SMMU 8, 16 or 64.
        bytes: u8,
        /// What is there.
        kind: FetchKind,
        /// Cycles.
        cost: u32,
    },
    /// The unit wants this atomic compare-exchange of 8 bytes, to set A or D: if `old` is still there, `new` is stored.
    /// Call again with the word that was found, whichever it is.
    Update {
        /// 8-byte aligned.
        pa: Pa,
        /// What the unit read before.
        old: u64,
        /// The same with A, or A and D, set.
        new: u64,
        /// What is there.
        kind: FetchKind,
        /// Cycles.
        cost: u32,
    },
    /// The request waits for an earlier one to the same page; call again when that has ended.
    Merged {
        /// The earlier walk.
        leader: WalkId,
        /// Cycles.
        cost: u32,
    },
    /// Translated; the walk has ended.
    Done(Translation),
    /// Translation is off: the address passes as it is; the walk has ended.
    Untranslated {
        /// The address.
        pa: Pa,
        /// Cycles.
        cost: u32,
    },
    /// A write in the interrupt range: not memory; the walk has ended.
    InterruptMessage {
        /// The address, 0xFEEx_xxxx.
        address: Iova,
        /// Cycles.
        cost: u32,
    },
    /// Blocked; the walk has ended.
    Fault(FaultInfo),
}

impl Progress {
    /// Cycles of the call.
    #[must_use]
    #[inline]
    pub const fn cost(&self) -> u32 {
        match self {
            Self::Lookup { cost, .. }
            | Self::Fetch { cost, .. }
            | Self::Update { cost, .. }
            | Self::Merged { cost, .. }
            | Self::Untranslated { cost, .. }
            | Self::InterruptMessage { cost, .. } => *cost,
            Self::Done(translation) => translation.cost,
            Self::Fault(fault) => fault.cost,
        }
    }

    /// Whether the walk has ended, so that its id is gone.
    #[must_use]
    #[inline]
    pub const fn is_end(&self) -> bool {
        !matches!(self, Self::Lookup { .. } | Self::Fetch { .. } | Self::Update { .. } | Self::Merged { .. })
    }
}

const _: () = assert!(size_of::<Progress>() <= 48, "it is returned from every step");

/// A granted request. The words it was made from are [`Unit::last_provenance`](crate::Unit::last_provenance).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The host-physical byte that the request starts at.
    pub pa: Pa,
    /// The translation allows reads.
    pub readable: bool,
    /// The translation allows writes.
    pub writable: bool,
    /// Page size of the leaf, in bytes; 4096 for pass-through.
    pub page_bytes: u64,
    /// The domain whose tag it was found or installed under.
    pub domain: DomainId,
    /// Passed through by the context entry rather than translated.
    pub pass_through: bool,
    /// Cycles of this call.
    pub cost: u32,
    /// Cycles since `begin`, this call included.
    pub cost_total: u32,
    /// Memory fetches since `begin`, those of restarts included.
    pub fetches: u32,
    /// Which cache helped.
    pub from: CacheHit,
}

/// Why a request was blocked, in the terms of its architecture.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// VT-d fault reason.
    Vtd(FaultReason),
    /// SMMUv3 event, with the stage and the access that it happened on.
    Smmu(Termination),
    /// RISC-V cause.
    Riscv(Cause),
    /// AMD-Vi event.
    Amd(Event),
}

impl Fault {
    /// The architectural number: FR of VT-d, the event number of SMMUv3, CAUSE of RISC-V, the event code of AMD-Vi.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Vtd(reason) => reason.0 as u16,
            Self::Smmu(why) => why.event.0 as u16,
            Self::Riscv(cause) => cause.0,
            Self::Amd(event) => event.code.0 as u16,
        }
    }

    /// The VT-d reason, if it is one.
    #[must_use]
    pub const fn vtd(self) -> Option<FaultReason> {
        match self {
            Self::Vtd(reason) => Some(reason),
            _ => None,
        }
    }

    /// The SMMUv3 event, if it is one.
    #[must_use]
    pub const fn smmu(self) -> Option<Termination> {
        match self {
            Self::Smmu(why) => Some(why),
            _ => None,
        }
    }

    /// The RISC-V cause, if it is one.
    #[must_use]
    pub const fn riscv(self) -> Option<Cause> {
        match self {
            Self::Riscv(cause) => Some(cause),
            _ => None,
        }
    }

    /// The AMD-Vi event, if it is one.
    #[must_use]
    pub const fn amd(self) -> Option<Event> {
        match self {
            Self::Amd(event) => Some(event),
            _ => None,
        }
    }
}

/// A blocked request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultInfo {
    /// Architectural reason.
    pub reason: Fault,
    /// Requester id.
    pub source: Bdf,
    /// Faulting address.
    pub iova: Iova,
    /// Read or write.
    pub access: Access,
    /// A fault record now holds it; false if suppressed, collapsed or lost to overflow.
    pub recorded: bool,
    /// The fault event message goes out with this fault.
    pub interrupt: Option<Message>,
    /// Cycles of this call.
    pub cost: u32,
}

/// An interrupt message that the unit sends: a 32-bit write to an interrupt address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Message {
    /// Destination, from the event address registers.
    pub address: Pa,
    /// Data, from the event data register.
    pub data: u32,
}
