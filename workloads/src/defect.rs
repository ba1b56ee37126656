//! Planted defects: each the reverse of a fix, at the place of the fix.

macro_rules! defects {
    ($($(#[$doc:meta])* $name:ident = $id:literal, $oracle:literal, $source:literal;)*) => {
        /// A planted defect.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Defect { $($(#[$doc])* $name,)* }

        impl Defect {
            /// All of them.
            pub const ALL: &[Defect] = &[$(Defect::$name),*];

            /// Id as `--defect` takes it.
            pub const fn id(self) -> &'static str {
                match self { $(Defect::$name => $id,)* }
            }
            /// The property that must catch it.
            pub const fn oracle(self) -> &'static str {
                match self { $(Defect::$name => $oracle,)* }
            }
            /// Where it comes from.
            pub const fn source(self) -> &'static str {
                match self { $(Defect::$name => $source,)* }
            }
        }
    };
}

defects! {
    /// Page-table pages go back to the allocator before the invalidation.
    FreeBeforeFlush = "LU-078", "I8", "reverse of ea8ea460c9ac (2014 unmap rework)";
    /// The unmap gather is not flushed at all before the pages are unpinned.
    NoFlushOnUnmap = "flush-missing", "I8", "reverse of the unmap contract, drivers/iommu/iommu.c";
    /// A table leaves the tree for the allocator while its parent's entry still leads to it.
    TableEntryKept = "table-entry-kept", "I1", "reverse of clearing the entry of a covered table in __unmap_range()";
    /// The next array page is read from one that has been freed.
    NextAfterFree = "next-after-free", "LIFE", "reverse of reading iommu_array_hdr_ser::next before kho_unpreserve_free()";
    /// Two mappers install one intermediate table by plain store.
    TableInstallByStore = "LU-093", "tables", "reverse of 2c3d273eabe8";
    /// The table list of the preserve walk leaves out the last table.
    PreserveSkipsTable = "table-not-preserved", "I2", "reverse of CLOSURE in generic_pt preserve";
    /// Rollback of a failed table list preserve stops one table early.
    RollbackShort = "rollback-short", "L1", "reverse of iommu-pages list rollback";
    /// An incoming kernel hands out memory before preserved ranges are reserved.
    AllocBeforeReserve = "alloc-before-reserve", "I5", "reverse of scratch-only early boot";
    /// KHO restore does not clear the page's magic, so that it can be restored twice.
    RestoreKeepsMagic = "restore-keeps-magic", "I6", "reverse of kho_restore_page clearing page->private";
    /// The immutability test of map is dropped.
    MapWhileImmutable = "map-while-immutable", "I7", "reverse of iommufd v2 13/16";
    /// memfd unpreserve does not unpreserve the last folio.
    UnpreserveSkipsFolio = "unpreserve-skips-folio", "L1", "reverse of memfd_luo_unpreserve_folios";
    /// iommufd finish does not free its serialized header.
    FinishKeepsHeader = "finish-keeps-header", "L2", "reverse of iommufd finish";
    /// A folio is freed without being unpreserved.
    FreeWithoutUnpreserve = "free-without-unpreserve", "L3", "reverse of kho_unpreserve_free";
    /// Session close unpreserves files in order of preservation.
    CloseInOrder = "close-in-order", "P1", "reverse of luo_file_unpreserve_files";
    /// FLB finish runs although files are left.
    FlbFinishEarly = "flb-finish-early", "P3", "reverse of luo_flb_file_finish counting";
    /// Preserve of context tables happens under the unit's spinlock.
    PreserveUnderSpinlock = "LU-057", "P7", "IOMMU series v1";
    /// A preserve call that fails leaves the mutex of the FLB object locked.
    LeaveLocked = "lock-left-held", "LOCK", "missing unlock on the error path of domain preserve";
    /// The wait status of the invalidation queue is in memory that was freed.
    QueueFreedInUse = "queue-freed", "hardware-write", "invalidation queue status page freed while the queue is on";
    /// The new kernel blocks a device whose restored domain it attaches.
    AttachBlocksFirst = "LU-054", "availability", "v2 attach of a restored domain";
    /// A WARN on an ordinary path.
    StrayWarn = "stray-warn", "unexplained", "WARN without cause";
    /// A header field is handed over without being written.
    UndefinedByte = "undefined-byte", "definedness", "missing __GFP_ZERO in kho_alloc_preserve";
    /// The wrong order is given to unpreserve.
    UnpreserveWrongOrder = "unpreserve-wrong-order", "unexplained", "reverse of kho_unpreserve_folio order";
    /// Domain ids in use by preserved devices are not reserved.
    DomainIdNotReserved = "did-not-reserved", "I9", "reverse of series patch 08";
    /// memfd unpreserve leaves the folios pinned.
    UnpreserveKeepsPins = "unpreserve-keeps-pins", "L1", "reverse of unpin in memfd_luo_unpreserve";
    /// A preserve of an iommufd that fails leaves the address space immutable.
    RollbackKeepsImmutable = "rollback-keeps-immutable", "undo", "reverse of the error path of iommufd_save_hwpt";
    /// A preserve of an iommufd that fails keeps its hold on the HWPT.
    RollbackLeaksHold = "rollback-leaks-hold", "undo", "reverse of the error path of iommufd preserve";
    /// A file whose preserve failed stays in the set of preserved files.
    PreserveFdStaysBusy = "preserve-fd-stays-busy", "unexplained", "reverse of the error path of luo_preserve_file";
    /// The restore of a tree leaves out its lowest tables.
    RestoreSkipsTable = "restore-skips-table", "adoption", "reverse of the restore walk of generic_pt";
    /// A preserved folio is migrated: the memfd hands the device's page to somebody else.
    WrongFrameMapped = "wrong-frame-mapped", "I3", "leaf written with the neighbour's frame";
    /// Leaves stay in the CPU's cache: a walker that does not snoop misses them. Needs `coherent-walker=no`.
    LeafNotFlushed = "leaf-not-flushed", "availability", "reverse of the flush at the end of __map_range_leaf()";
    /// A mapper goes on below a table that another one has installed and not yet flushed. Needs `coherent-walker=no`.
    ParentNotFlushed = "LU-092", "availability", "reverse of 81b3c2521844 in the generic page table";
    /// A context entry stays in the CPU's cache. Needs `coherent-walker=no`.
    ContextNotFlushed = "context-not-flushed", "availability", "reverse of clflush_cache_range() in domain_context_mapping_one()";
    /// A device that is unpreserved keeps a live record.
    DeletedFlagForgotten = "deleted-flag-forgotten", "handover", "R6: v2 of iommu_unpreserve_device(), reverse of tip's";
    /// A retrieved memfd's folios are not marked up to date: the next use of them clears them.
    RetrieveLosesUptodate = "retrieve-loses-uptodate", "CONTENT", "reverse of the flags of memfd_luo_retrieve_folios()";
    /// Shutdown cuts unpreserved devices off and flushes nothing.
    ShutdownWithoutFlush = "shutdown-without-flush", "I10", "reverse of the global flush in intel_iommu_shutdown()";
    /// A mapper that loses the race to install a table forgets its own.
    LostRaceLeaksTable = "lost-race-leaks-table", "tables", "reverse of the free in pt_iommu_new_table()";
    /// A failed add frees its nodes and leaves the slot that named them.
    TrackerSlotDangles = "tracker-slot-dangles", "tracker", "reverse of err_free_nodes in kho_radix_add_page()";
    /// A refused reboot leaves a session's files frozen.
    UnfreezeSkipped = "unfreeze-skipped", "callbacks", "reverse of __luo_file_unfreeze()";
    /// A preserve that its handler refuses keeps the `luo_file` made for it.
    FailedPreserveKeepsFile = "failed-preserve-keeps-file", "rollback", "reverse of the kfree on the error path of luo_preserve_file()";
    /// A context entry is made present before its other word is stored.
    PresentTooEarly = "present-too-early", "entries", "reverse of the order of stores in domain_context_mapping_one()";
    /// Unpreserve of an iommufd keeps its hold on the HWPTs.
    UnpreserveKeepsHold = "unpreserve-keeps-hold", "references", "reverse of the put in iommufd_liveupdate_unpreserve()";
    /// Shutdown switches bus mastering of preserved devices off, too.
    PreservedDeviceStopped = "preserved-device-stopped", "running", "reverse of the test for preserved devices in pci_device_shutdown()";
    /// The queue's doorbell is rung without a barrier behind the descriptors. Needs `memory-model=weak`.
    DoorbellRelaxed = "doorbell-relaxed", "I8", "writel_relaxed() in qi_submit_sync()";
    /// The KHO tracker is added to without its mutex. Needs `races=kcsan`.
    TrackerUnlocked = "tracker-unlocked", "RACE", "missing mutex in kho_radix_add_page()";
}

impl Defect {
    /// Settings without which the defect cannot show.
    pub const fn needs(self) -> &'static [(&'static str, u64)] {
        match self {
            Defect::LeafNotFlushed | Defect::ParentNotFlushed | Defect::ContextNotFlushed => &[("coherent-walker", 0)],
            Defect::DoorbellRelaxed => &[("memory-model", 2)],
            Defect::TrackerUnlocked => &[("races", 1)],
            _ => &[],
        }
    }

    /// Looks a defect up by id.
    pub fn by_id(id: &str) -> Option<Defect> {
        Defect::ALL.iter().copied().find(|defect| defect.id() == id)
    }
}

/// A set of defects.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Defects(u64);

impl Defects {
    /// No defect.
    pub const NONE: Defects = Defects(0);

    /// This set with `defect` added.
    #[must_use]
    pub const fn with(self, defect: Defect) -> Defects {
        Defects(self.0 | 1 << defect as u8)
    }
    /// True when `defect` is in the set.
    pub const fn has(self, defect: Defect) -> bool {
        self.0 & 1 << defect as u8 != 0
    }
    /// The members.
    pub fn iter(self) -> impl Iterator<Item = Defect> {
        Defect::ALL.iter().copied().filter(move |defect| self.has(*defect))
    }
    /// True when empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}
