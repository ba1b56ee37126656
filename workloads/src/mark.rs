//! Coverage marks: what must have happened sometimes before a clean claim means anything.

macro_rules! marks {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// A mark.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum Mark { $($(#[$doc])* $name,)* }

        impl Mark {
            /// All marks.
            pub const ALL: &[Mark] = &[$(Mark::$name),*];
            /// Name as lists and JSON show it.
            pub const fn name(self) -> &'static str {
                match self { $(Mark::$name => $text,)* }
            }
        }
    };
}

marks! {
    /// The machine jumped into the next kernel.
    KexecReached = "kexec-reached";
    /// A preserved domain was adopted and its device re-attached.
    AdoptionDone = "adoption-done";
    /// FINISH returned success.
    FinishReached = "finish-reached";
    /// An object array of the IOMMU FLB grew by a page.
    ArrayGrew = "array-grew";
    /// A session was closed while files were preserved in it.
    SessionAborted = "session-aborted";
    /// A preserve call was rolled back.
    PreserveRolledBack = "preserve-rolled-back";
    /// The reboot call was refused and unwound.
    RebootUnwound = "reboot-unwound";
    /// A map was refused because its IOAS is immutable.
    MapRefused = "map-refused";
    /// An unmap freed a table page.
    TableFreed = "table-freed";
    /// A walk fetched a word that was stored while it was in flight.
    WalkRaced = "walk-raced-with-store";
    /// An invalidation was pending at the jump.
    InvalidationPendingAtJump = "invalidation-pending-at-kexec";
    /// A posted write was in flight at the jump.
    WriteInFlightAtJump = "write-in-flight-at-kexec";
    /// A walk was in flight at the jump.
    WalkInFlightAtJump = "walk-in-flight-at-kexec";
    /// Retrieve of the IOMMU FLB failed.
    FlbRetrieveFailed = "flb-retrieve-failed";
    /// The boot path found a unit with translation enabled and disabled it.
    PreEnabledDisabled = "pre-enabled-unit-disabled";
    /// A second update was begun after a first.
    SecondUpdate = "second-update";
    /// An injected allocation failure.
    AllocFailed = "fault-allocation";
    /// An injected failure of another callee.
    CalleeFailed = "fault-callee";
    /// A domain was replaced hitlessly in the incoming kernel.
    DomainReplaced = "domain-replaced";
    /// The id of a preserved domain could not be reserved, and the failure was ignored.
    DomainIdNotReserved = "domain-id-not-reserved";
    /// A device came up without its restored domain: its probe failed, or fell back to the default domain.
    DeviceNotRestored = "device-not-restored";
    /// An address space became mutable while another HWPT of it may still be preserved.
    MutableWithFirstHwpt = "mutable-with-first-hwpt";
    /// Setting a unit up failed, and the error path disabled one whose translation was on.
    AdoptedUnitDisabled = "adopted-unit-disabled";
}

impl Mark {
    /// Looks a mark up by number.
    pub fn from_number(number: u64) -> Option<Mark> {
        Mark::ALL.get(number as usize).copied()
    }
}
