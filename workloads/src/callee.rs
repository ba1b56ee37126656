//! Callees that can fail beside allocations: what they are, as reports name them. The numbers are classes of
//! [`ChoiceKind::CalleeFails`](sim::engine::ChoiceKind); allocations have classes of their own ([`tag`](crate::tag)).

macro_rules! callees {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        $($(#[$doc])* pub const $name: u16 = $value;)*

        /// Name of a callee in reports.
        pub const fn name(class: u16) -> &'static str {
            match class {
                $($value => $text,)*
                _ => "unknown callee",
            }
        }
    };
}

callees! {
    /// `copy_to_user` and `copy_from_user`.
    COPY_USER = 1, "copy_to_user";
    /// Anonymous inode and file creation beyond their allocation.
    ANON_INODE = 2, "anon_inode_getfile";
    /// No virtual range for a restored area.
    VM_AREA = 10, "get_vm_area";
    /// `mem_cgroup_charge` of a folio.
    CHARGE = 20, "mem_cgroup_charge";
    /// Accounting of blocks to an inode.
    ACCT_BLOCKS = 21, "shmem_inode_acct_blocks";
    /// Migration of a folio.
    MIGRATE = 22, "check_and_migrate_movable_folios";
    /// Freeze of a memfd.
    MEMFD_FREEZE = 30, "memfd_luo_freeze";
    /// An allocation inside the id allocator (a node of its xarray, -ENOMEM).
    IDA = 201, "ida_alloc";
    /// Charge of locked memory.
    LOCKED_VM = 0x301, "account_locked_vm";
    /// VFIO freeze: interrupts are enabled, or the device is not in D0.
    VFIO_FREEZE = 0x302, "vfio_pci_liveupdate_freeze";
    /// First open of a VFIO device: power-up, reset or saving the configuration.
    VFIO_ENABLE = 0x303, "vfio_pci_core_enable";
    /// What `kernel_kexec` does between the live-update part and the point of no return (assumed: see `kernel/kexec.rs`).
    KEXEC = 0x304, "kernel_kexec";
    /// A page lies outside the leaves of the tracker there are, and the new leaf cannot be had. Scaled: a leaf covers 128 MiB, more
    /// than the machines drawn here have, so that every page may be such a page.
    NEW_LEAF = 0x310, "new leaf of the KHO tracker";
}
