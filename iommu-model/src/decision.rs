//! The free decisions of the hardware.
//!
//! Wherever a manual leaves the hardware a choice, the model asks instead of choosing. A question is asked only
//! where at least two answers are possible, so that a recorded run holds no empty choices. Option 0 is always
//! the plain behaviour: evict the least recently used entry, use what is cached, remove what the manual obliges
//! the hardware to remove and nothing else.

/// A decision that the caller takes for the hardware.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Question {
    /// The context cache is full: which entry goes? Option k is the k-th least recently used.
    EvictContext {
        /// Entries to choose from.
        ways: u32,
    },
    /// The PASID cache is full: which entry goes? Option k is the k-th least recently used.
    EvictPasid {
        /// Entries to choose from.
        ways: u32,
    },
    /// The IOTLB set is full: which entry goes? Option k is the k-th least recently used.
    EvictIotlb {
        /// Entries to choose from.
        ways: u32,
    },
    /// A device TLB is full: which entry goes? Option k is the k-th least recently used.
    EvictDeviceTlb {
        /// Entries to choose from.
        ways: u32,
    },
    /// A paging-structure cache is full: which entry goes? Option k is the k-th least recently used.
    EvictPsc {
        /// Entries to choose from.
        ways: u32,
        /// Level of the cached entries, 2 to 5.
        level: u8,
    },
    /// Is an invalidation widened? 0 as asked, 1 one step (page to domain, the others to global), 2 page to global.
    OverInvalidate {
        /// Wider granularities that exist.
        wider: u32,
    },
    /// A page-selective invalidation touches a superpage that its AM does not cover: 0 kept, 1 dropped.
    KeepSuperpage,
    /// A page-selective invalidation with IH = 1 meets non-leaf entries: 0 kept, 1 dropped.
    KeepNonLeaf,
    /// A page-selective invalidation without PASID meets pages of the domain that went through a first stage, whose
    /// addresses are of another kind: 0 kept, 1 dropped.
    KeepFirstStage,
    /// A device-selective context invalidation names another domain than the cached entry has: 0 dropped, as the
    /// source-id alone decides; 1 kept, as the domain must match too.
    KeepOtherDomain,
    /// A paging-structure cache hits: 0 the entry is used, 1 it is ignored and the walk starts at the top.
    UsePsc {
        /// Level of the entry that hit, 2 to 5.
        level: u8,
    },
    /// Several page sizes hit the IOTLB at once: option 0 is the smallest page.
    ChooseIotlb {
        /// Entries that match.
        ways: u32,
    },
    /// A cached entry denies the access: 0 fault, 1 ignore it and walk again.
    RewalkDenied,
    /// Caching mode: is a not-present or erroneous entry cached? 0 no, 1 yes.
    CacheNotPresent,
    /// An entry is fetched word by word: 0 from its first word on, 1 from its last one back.
    FetchDescending,
    /// SRTP without ESRTPS: 0 every cached entry stays, 1 all are dropped.
    RootSwitchDropsAll,
    /// A fault of a source that has an unread record: 0 collapsed into it, 1 recorded on its own.
    RecordRepeatedFault,
    /// SMMU: the cache of level-1 descriptors is full: which entry goes? Option k is the k-th least recently used. STEs ask
    /// `EvictContext`, CDs `EvictPasid`, the TLB `EvictIotlb`.
    EvictLevel1 {
        /// Entries to choose from.
        ways: u32,
    },
    /// SMMU: a walk cache is full: which entry goes? Option k is the k-th least recently used.
    EvictWalk {
        /// Entries to choose from.
        ways: u32,
        /// Level of the cached descriptors in Arm's order, 0 to 2.
        level: u8,
    },
    /// SMMU: a walk cache hits: 0 the entry is used, 1 it is ignored and the walk starts at the top.
    UseWalk {
        /// Level of the entry that hit, 0 to 2.
        level: u8,
    },
    /// SMMU: is an invalid STE, CD or level-1 descriptor cached? 0 no, 1 yes.
    CacheInvalidConfig,
    /// SMMU: a leaf has the contiguous bit: 0 only the leaf is cached, 1 the whole run.
    UseContiguous,
    /// SMMU with BBML below 2: several TLB entries match: 0 one is chosen, 1 F_TLB_CONFLICT.
    RaiseConflict,
    /// SMMU: TG or TTL of an invalidation names another granule or level than a covered entry has: 0 kept, 1 dropped.
    KeepOtherLevel,
    /// SMMU: an invalidation by IPA meets translations of both stages combined: 0 kept, 1 dropped.
    KeepCombined,
    /// SMMU: an invalidation was consumed: 0 it takes effect at once, 1 with the next CMD_SYNC.
    DeferInvalidation,
    /// SMMU: an event equals the one committed before, and may be merged: 0 recorded on its own, 1 merged.
    MergeEvent,
    /// A command that is not a fence was taken from a RISC-V command queue: 0 carried out now, 1 later, at the
    /// latest before the next fence is complete.
    DeferCommand,
    /// AMD-Vi: an invalidation was taken from the command buffer: 0 carried out now, 1 later, at the latest before the next
    /// COMPLETION_WAIT is complete.
    DelayCommand,
}

impl Question {
    /// How many answers there are; at least 2.
    #[must_use]
    pub const fn options(&self) -> u32 {
        match *self {
            Self::EvictContext { ways } | Self::EvictPasid { ways } | Self::EvictIotlb { ways } | Self::ChooseIotlb { ways } => ways,
            Self::EvictPsc { ways, .. } | Self::EvictDeviceTlb { ways } | Self::EvictLevel1 { ways } | Self::EvictWalk { ways, .. } => ways,
            Self::OverInvalidate { wider } => wider + 1,
            Self::KeepSuperpage
            | Self::KeepNonLeaf
            | Self::KeepFirstStage
            | Self::KeepOtherDomain
            | Self::UsePsc { .. }
            | Self::RewalkDenied
            | Self::CacheNotPresent
            | Self::FetchDescending
            | Self::RootSwitchDropsAll
            | Self::RecordRepeatedFault
            | Self::UseWalk { .. }
            | Self::CacheInvalidConfig
            | Self::UseContiguous
            | Self::RaiseConflict
            | Self::KeepOtherLevel
            | Self::KeepCombined
            | Self::DeferInvalidation
            | Self::MergeEvent
            | Self::DeferCommand
            | Self::DelayCommand => 2,
        }
    }
}

/// Whoever takes the decisions of the hardware.
pub trait Decisions {
    /// The answer to `question`, below [`Question::options`]. A larger answer is taken as the last option.
    fn decide(&mut self, question: Question) -> u32;
}

/// Always option 0.
#[derive(Clone, Copy, Default, Debug)]
pub struct Plain;

impl Decisions for Plain {
    fn decide(&mut self, _: Question) -> u32 {
        0
    }
}

impl<F: FnMut(Question) -> u32> Decisions for F {
    fn decide(&mut self, question: Question) -> u32 {
        self(question)
    }
}

/// Asks only where there is something to choose, and keeps the answer in range.
pub(crate) fn ask(d: &mut dyn Decisions, question: Question) -> u32 {
    let options = question.options();
    if options < 2 {
        return 0;
    }
    d.decide(question).min(options - 1)
}

/// Asks a two-option question.
pub(crate) fn ask_bool(d: &mut dyn Decisions, question: Question) -> bool {
    ask(d, question) != 0
}
