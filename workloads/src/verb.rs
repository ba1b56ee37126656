//! The words that kernels, userspace and harness put on the event stream.
//!
//! Each is said at a boundary: the entry or the return of a call that promises something. Oracles keep their own ledger from
//! them and from the bytes; no word carries a verdict.

use sim::trace::Verb;

macro_rules! verbs {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        $($(#[$doc])* pub const $name: Verb = Verb($value);)*

        /// Name of a verb in traces.
        pub fn name(verb: Verb) -> &'static str {
            match verb.0 {
                $($value => stringify!($name),)*
                _ => "UNKNOWN",
            }
        }
    };
}

verbs! {
    /// A kernel function is entered. Args: its name, 32 bytes, zero padded.
    CALL = 1;
    /// WARN. Args: its title, or what is left of it after [`WARN_HEAD`], zero padded.
    WARN = 2;
    /// A phase of the update begins: see [`Phase`]. Args: phase.
    PHASE = 3;
    /// A coverage mark is hit: see `mark.rs`. Args: mark.
    MARK = 4;
    /// A system call or ioctl of userspace begins. Args: call number (see `userspace`), three arguments.
    USER_CALL = 5;
    /// It returns. Args: call number, errno as two's complement, two arguments of the call.
    USER_RETURN = 6;

    /// KHO add succeeded. Args: pa, order, owner (see [`owner`]).
    KHO_ADD = 10;
    /// KHO del is called. Args: pa, order, owner.
    KHO_DEL = 11;
    /// KHO restore succeeded. Args: pa, order.
    KHO_RESTORED = 12;
    /// The incoming kernel reserved a record it found in the tracker. Args: pa, order.
    KHO_RESERVED = 13;
    /// KHO restore failed. Args: pa.
    KHO_RESTORE_FAILED = 14;

    /// A domain object exists. Args: domain pointer, pa of the top table, domain id or 0.
    DOMAIN_CREATED = 20;
    /// A domain object is about to be freed. Args: domain pointer.
    DOMAIN_FREED = 21;
    /// A device is attached: hardware walks this domain's tables from now on. Args: bdf, domain pointer (0: blocked), domain id.
    DEVICE_ATTACHED = 22;
    /// Attaching or blocking of a device begins: its translation may change until DEVICE_ATTACHED. Args: bdf, new domain pointer.
    DEVICE_CHANGING = 23;
    /// `iommu_map` is entered. Args: domain pointer, iova, pa, bytes | prot << 56 (bit 0 read, bit 1 write).
    MAP_BEGIN = 24;
    /// It returns. Args: domain pointer, iova, bytes, errno.
    MAP_END = 25;
    /// `iommu_unmap` is entered. Args: domain pointer, iova, bytes.
    UNMAP_BEGIN = 26;
    /// It returns; invalidation is complete. Args: domain pointer, iova, bytes asked, bytes unmapped.
    UNMAP_END = 27;
    /// A frame is pinned for DMA. Args: pfn.
    PINNED = 28;
    /// A frame is unpinned. Args: pfn.
    UNPINNED = 29;

    /// Domain preserve returned. Args: domain pointer, pa of its record, errno.
    DOMAIN_PRESERVED = 30;
    /// Domain unpreserve returned. Args: domain pointer.
    DOMAIN_UNPRESERVED = 31;
    /// Device preserve returned. Args: bdf, domain pointer, errno.
    DEVICE_PRESERVED = 32;
    /// Device unpreserve returned. Args: bdf, errno (0, or what made it return early).
    DEVICE_UNPRESERVED = 33;
    /// An IOAS became immutable (`args[1]` = 1) or mutable (0). Args: domain pointer, state.
    IMMUTABLE = 34;

    /// An FLB callback returned. Args: FLB number, operation (see [`FlbOp`]), errno.
    FLB_OP = 40;
    /// A file handler callback returned. Args: token, operation (see [`FileOp`]) with the handler's number in bits 15:8, errno,
    /// session pointer.
    FILE_OP = 41;

    /// A domain id of a unit is taken (`args[2]` = 1) or given back (0). Args: unit, domain id, state, domain pointer.
    DOMAIN_ID = 50;
    /// A device programmed by its driver may use an IOVA range from now on. Args: bdf, iova, bytes.
    DEVICE_PROGRAMMED = 51;
    /// The incoming kernel adopted a preserved domain for a device. Args: bdf, domain pointer, domain id.
    ADOPTED = 52;
    /// A VMM put content into guest memory that the update must keep. Args: pa, value.
    CONTENT = 53;

    /// A guest starts its device (`args[1]` = 1: bus mastering on) or stops it (0). Args: bdf, state.
    DEVICE_STARTED = 54;
    /// A guest takes the ranges inside an IOVA range back from its device. Args: bdf, iova, bytes.
    DEVICE_UNPROGRAMMED = 55;
    /// The WARN that comes next has a longer title: its first 32 bytes.
    WARN_HEAD = 56;

    /// machine_kexec is about to jump. Args: pa of the KHO root FDT (0: no hand-over), first byte of scratch, bytes of scratch.
    BEFORE_JUMP = 60;
    /// No session exists and no call is under way: what is preserved must be what it was at the first such moment of this kernel.
    QUIESCENT = 61;
    /// Every session of the update was finished with success and closed.
    ALL_FINISHED = 62;
    /// An allocation found no free memory. Args: tag, bytes.
    NO_MEMORY = 63;
}

/// Packs up to 32 bytes of a name into the arguments of a note.
pub fn pack_name(name: &str) -> [u64; 4] {
    let mut bytes = [0u8; 32];
    let n = name.len().min(32);
    bytes[..n].copy_from_slice(&name.as_bytes()[..n]);
    let mut args = [0; 4];
    for (arg, chunk) in args.iter_mut().zip(bytes.chunks_exact(8)) {
        *arg = u64::from_le_bytes(chunk.try_into().expect("chunks of eight"));
    }
    args
}

/// The words that say `WARN: title`, in order: a title of more than 32 bytes goes in two.
///
/// # Panics
/// When a title is longer than 64 bytes, or not ASCII.
pub fn warn(title: &'static str) -> impl Iterator<Item = (Verb, [u64; 4])> {
    assert!(title.is_ascii() && title.len() <= 64, "a WARN has at most 64 bytes: {title}");
    let (head, rest) = title.split_at(if title.len() > 32 { 32 } else { 0 });
    let head = (!head.is_empty()).then(|| (WARN_HEAD, pack_name(head)));
    head.into_iter().chain([(WARN, pack_name(rest))])
}

/// The name packed by [`pack_name`].
pub fn unpack_name(args: [u64; 4]) -> String {
    let bytes: Vec<u8> = args.iter().flat_map(|arg| arg.to_le_bytes()).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Phases of an update, in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Phase {
    /// The outgoing kernel boots.
    ColdBoot = 0,
    /// Virtual machines run; nothing is preserved.
    Running = 1,
    /// Something is preserved.
    Preserved = 2,
    /// The reboot call serialises.
    Serialise = 3,
    /// device_shutdown and machine_shutdown.
    Shutdown = 4,
    /// After the jump, allocations come from scratch only.
    EarlyBoot = 5,
    /// Preserved memory is reserved, the rest is free.
    Boot = 6,
    /// IOMMU units are initialised, devices probed.
    Adopted = 7,
    /// Userspace of the incoming kernel runs.
    Incoming = 8,
    /// FINISH was called with success.
    Finished = 9,
}

impl Phase {
    /// All phases in order.
    pub const ALL: [Phase; 10] = [
        Phase::ColdBoot,
        Phase::Running,
        Phase::Preserved,
        Phase::Serialise,
        Phase::Shutdown,
        Phase::EarlyBoot,
        Phase::Boot,
        Phase::Adopted,
        Phase::Incoming,
        Phase::Finished,
    ];
}

/// FLB callbacks, the second argument of [`FLB_OP`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FlbOp {
    /// `preserve`.
    Preserve = 0,
    /// `unpreserve`.
    Unpreserve = 1,
    /// `retrieve`.
    Retrieve = 2,
    /// `finish`.
    Finish = 3,
}

/// File handler callbacks, the second argument of [`FILE_OP`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FileOp {
    /// `preserve`.
    Preserve = 0,
    /// `unpreserve`.
    Unpreserve = 1,
    /// `freeze`.
    Freeze = 2,
    /// `unfreeze`.
    Unfreeze = 3,
    /// `retrieve`.
    Retrieve = 4,
    /// `finish`.
    Finish = 5,
    /// `can_finish` that said no.
    CannotFinish = 6,
    /// The file's entry was written by the reboot call.
    Serialised = 7,
}

/// Owners in the multiset of KHO records.
pub mod owner {
    /// `kho_alloc_preserve` memory of whoever asked.
    pub const ALLOC: u64 = 1;
    /// memfd data folios.
    pub const MEMFD: u64 = 2;
    /// IOMMU page tables of a domain.
    pub const IOMMU_PAGES: u64 = 3;
    /// vmalloc blocks and chunks.
    pub const VMALLOC: u64 = 4;
    /// KHO's own (FDT and the like).
    pub const KHO: u64 = 5;
}
