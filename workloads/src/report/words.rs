//! An event in words: `brief` for a cell of a table, `long` for a line of a report.

use iommu_model::addr::{Bdf, Pa, Pfn};
use iommu_model::spec::vtd::fault::FaultReason;
use iommu_model::spec::vtd::register::{self, GlobalCommand};
use sim::engine::ChoiceKind;
use sim::trace::{EventKind, LockKind, UnitId, Verb};

use super::history::{History, Holding};
use crate::errno::{self, Errno};
use crate::kernel::members;
use crate::mark::Mark;
use crate::run::Failure;
use crate::tag;
use crate::userspace::Call;
use crate::verb::{self, FileOp, FlbOp, Phase};

/// Values below this are counts, flags, or numbers of something.
const SMALL: u64 = 1 << 10;

/// An event in a few words.
pub fn brief(history: &History<'_>, at: usize) -> String {
    let event = history.event(at);
    match event.kind {
        EventKind::Load { pa, .. } => format!("load {}", place(history, pa, at)),
        EventKind::Store { pa, old, new, .. } => {
            let verb = if new == 0 { "clear" } else { "store to" };
            // A count or a flag is told by its values.
            let values = if old.max(new) < SMALL { format!(" ({old} -> {new})") } else { String::new() };
            format!("{verb} {}{values}", place(history, pa, at))
        }
        EventKind::Locked { pa, kind } => format!("take {} {}", lock(kind), place(history, pa, at)),
        EventKind::Unlocked { pa, kind } => format!("release {} {}", lock(kind), place(history, pa, at)),
        EventKind::FramesTaken { tag, .. } | EventKind::ObjectTaken { tag, .. } => format!("allocate {}", tag::name(tag)),
        EventKind::FramesFreed { tag, .. } | EventKind::ObjectFreed { tag, .. } => format!("free {}", tag::name(tag)),
        EventKind::Injected { kind, class } => format!("{} FAILS", fallible(kind, class)),
        EventKind::RegisterWritten { .. } => register_words(history, at),
        EventKind::TranslationSwitched { unit, on } => switched(unit, on),
        EventKind::Fetched { pa, .. } => format!("fetch {}", place(history, pa, at)),
        EventKind::DmaIssued { iova, write, .. } => format!("issue {} {iova}", read_write(write)),
        EventKind::DmaTranslated { iova, pa, domain, cached, .. } => match (domain, cached) {
            (None, _) => format!("{iova} not translated"),
            (Some(_), true) => format!("{iova} -> {pa} (IOTLB)"),
            (Some(_), false) => format!("{iova} -> {pa} (walk)"),
        },
        EventKind::DmaFaulted { iova, reason, .. } => format!("fault at {iova}: {}", FaultReason(reason).text()),
        EventKind::DmaLanded { pa, .. } => format!("DMA write to pa {pa}"),
        EventKind::DmaRead { pa, .. } => format!("DMA read of pa {pa}"),
        EventKind::DmaLost { pa, .. } => format!("DMA to pa {pa}, no RAM"),
        EventKind::Invalidated { descriptor, .. } => format!("invalidate {}", descriptor_name(descriptor)),
        EventKind::StatusWritten { pa, .. } => format!("wait status to pa {pa}"),
        EventKind::Jumped { .. } => "kexec".to_owned(),
        EventKind::Note { verb: verb::WARN, .. } => warned(history, at),
        EventKind::Note { verb, args } => note(verb, args),
    }
}

/// `WARN: title`, put together.
fn warned(history: &History<'_>, at: usize) -> String {
    let part = |at: usize, wanted: Verb| match history.event(at).kind {
        EventKind::Note { verb, args } if verb == wanted => verb::unpack_name(args),
        _ => String::new(),
    };
    let head = at.checked_sub(1).map_or(String::new(), |before| part(before, verb::WARN_HEAD));
    format!("WARN: {head}{}", part(at, verb::WARN))
}

/// An event in a sentence without its actor.
pub fn long(history: &History<'_>, at: usize) -> String {
    let event = history.event(at);
    match event.kind {
        EventKind::Load { pa, bytes, value, .. } => format!("loads {value:#x} ({bytes} bytes) from {}", place_long(history, pa, at)),
        EventKind::Store { pa, bytes, old, new, .. } => {
            format!("stores {new:#x} over {old:#x} ({bytes} bytes) to {}", place_long(history, pa, at))
        }
        EventKind::Locked { pa, kind } => format!("takes the {} at {}", lock(kind), place_long(history, pa, at)),
        EventKind::Unlocked { pa, kind } => format!("releases the {} at {}", lock(kind), place_long(history, pa, at)),
        EventKind::FramesTaken { pfn, order, tag } => format!("gets frame pa {} (order {order}) for: {}", pfn.pa(), tag::name(tag)),
        EventKind::FramesFreed { pfn, order, tag } => format!("frees frame pa {} (order {order}), which was: {}", pfn.pa(), tag::name(tag)),
        EventKind::ObjectTaken { pa, bytes, tag } => format!("gets {bytes} bytes at pa {pa} for: {}", tag::name(tag)),
        EventKind::ObjectFreed { pa, tag } => format!("frees the object at pa {pa}, which was: {}", tag::name(tag)),
        EventKind::Injected { kind, class } => format!("{} is made to fail (injected)", fallible(kind, class)),
        EventKind::RegisterWritten { unit, .. } => format!("writes a register of unit {}: {}", unit.0, register_words(history, at)),
        EventKind::TranslationSwitched { unit, on } => format!("{}: GSTS.TES is {}", switched(unit, on), u8::from(on)),
        EventKind::Fetched { pa, value, .. } => format!("fetches {value:#x} from {}", place_long(history, pa, at)),
        EventKind::DmaIssued { iova, write, serial, .. } => format!("issues a {} of iova {iova} (request {serial})", read_write(write)),
        EventKind::DmaTranslated { iova, pa, domain, cached, .. } => match domain {
            None => format!("iova {iova} passes untranslated, as physical address {pa}"),
            Some(domain) => format!(
                "iova {iova} is translated to pa {pa} under domain {domain}, {}",
                if cached { "from the IOTLB" } else { "by a walk" }
            ),
        },
        EventKind::DmaFaulted { iova, reason, write, .. } => {
            format!("the {} of iova {iova} is blocked: fault {}", read_write(write), FaultReason(reason))
        }
        EventKind::DmaLanded { iova, pa, old, new, .. } => format!("the write of iova {iova} lands at pa {pa}: {old:#x} -> {new:#x}"),
        EventKind::DmaRead { iova, pa, value, .. } => format!("the read of iova {iova} gets {value:#x} from pa {pa}"),
        EventKind::DmaLost { pa, write, .. } => format!("the {} goes to pa {pa}, where there is no RAM", read_write(write)),
        EventKind::Invalidated { unit, descriptor } => format!("unit {} performs: invalidate {}", unit.0, descriptor_name(descriptor)),
        EventKind::StatusWritten { unit, pa, data } => format!("unit {} writes wait status {data:#x} to pa {pa}", unit.0),
        EventKind::Jumped { .. } => "kexec: the next kernel runs".to_owned(),
        EventKind::Note { verb: verb::WARN, .. } => warned(history, at),
        EventKind::Note { verb, args } => note(verb, args),
    }
}

/// An event without numbers: a word of a signature.
pub fn key(history: &History<'_>, at: usize) -> String {
    match history.event(at).kind {
        EventKind::Load { .. } => "load".to_owned(),
        EventKind::Store { pa, new, .. } => {
            let what = history.holding(pa, at).map_or("global", |holding| tag::name(holding.before));
            format!("{} {what}", if new == 0 { "clear" } else { "store" })
        }
        EventKind::Locked { kind, .. } => format!("lock {}", lock(kind)),
        EventKind::Unlocked { kind, .. } => format!("unlock {}", lock(kind)),
        EventKind::FramesTaken { .. } | EventKind::ObjectTaken { .. } => "taken".to_owned(),
        EventKind::FramesFreed { tag, .. } | EventKind::ObjectFreed { tag, .. } => format!("freed {}", tag::name(tag)),
        EventKind::Injected { kind, class } => format!("injected {}", fallible(kind, class)),
        EventKind::RegisterWritten { offset, .. } => match u64::from(offset) {
            register::OFFSET_GCMD => register_words(history, at),
            _ => register_name(offset),
        },
        EventKind::TranslationSwitched { on, .. } => format!("translation {}", if on { "on" } else { "off" }),
        EventKind::Fetched { .. } => "fetched".to_owned(),
        EventKind::DmaIssued { .. } => "issued".to_owned(),
        EventKind::DmaTranslated { domain, cached, .. } => match (domain, cached) {
            (None, _) => "untranslated".to_owned(),
            (Some(_), true) => "cached".to_owned(),
            (Some(_), false) => "walked".to_owned(),
        },
        EventKind::DmaFaulted { reason, .. } => format!("faulted {}", FaultReason(reason).text()),
        EventKind::DmaLanded { .. } => "landed".to_owned(),
        EventKind::DmaRead { .. } => "read".to_owned(),
        EventKind::DmaLost { .. } => "lost".to_owned(),
        EventKind::Invalidated { descriptor, .. } => format!("invalidated {}", descriptor_name(descriptor)),
        EventKind::StatusWritten { .. } => "status".to_owned(),
        EventKind::Jumped { .. } => "kexec".to_owned(),
        EventKind::Note { verb, .. } => verb::name(verb).to_ascii_lowercase(),
    }
}

/// Who has the memory at `pa`, as known before `end`.
pub fn owner(history: &History<'_>, pa: Pa, end: usize) -> (String, Option<Holding>) {
    if let Some(region) = history.region(pa, end) {
        return (tag::name(region.tag).to_owned(), None);
    }
    match history.holding(pa, end) {
        Some(Holding { tag: Some(tag), at, .. }) if history.is_lost_at_jump(pa, at, end) => {
            (format!("nobody since the jump (was: {})", tag::name(tag)), None)
        }
        Some(holding @ Holding { tag: Some(tag), .. }) => (tag::name(tag).to_owned(), Some(holding)),
        Some(holding @ Holding { before, .. }) => (format!("free list (was: {})", tag::name(before)), Some(holding)),
        None if history.outcome().verdict.details.iter().any(|line| *line == format!("pa {:#x} is outside RAM", pa.0)) => {
            ("none: there is no RAM".to_owned(), None)
        }
        None => ("free list (never handed out in this run)".to_owned(), None),
    }
}

/// `IOMMU page table` and the like: what lies at an address.
fn place(history: &History<'_>, pa: Pa, at: usize) -> String {
    if let Some(region) = history.region(pa, at) {
        let global = members::global(pa.0.saturating_sub(region.frames.start.pa().0)).filter(|_| region.era.is_some());
        return global.unwrap_or_else(|| format!("{} at pa {pa}", tag::name(region.tag)));
    }
    match history.holding(pa, at) {
        Some(Holding { tag: Some(tag), base, .. }) => {
            let offset = pa.0.saturating_sub(base.0);
            match members::name(tag, offset) {
                Some(member) => format!("{}: {member}", tag::name(tag)),
                None => format!("{}+{offset:#x}", tag::name(tag)),
            }
        }
        Some(Holding { before, .. }) => format!("freed {}", tag::name(before)),
        None => format!("pa {pa}"),
    }
}

fn place_long(history: &History<'_>, pa: Pa, at: usize) -> String {
    match history.holding(pa, at) {
        held if held.is_some() || history.region(pa, at).is_some() => format!("pa {pa} ({})", place(history, pa, at)),
        _ => format!("pa {pa}"),
    }
}

fn read_write(write: bool) -> &'static str {
    if write { "write" } else { "read" }
}

fn lock(kind: LockKind) -> &'static str {
    match kind {
        LockKind::Mutex => "mutex",
        LockKind::Spin => "spinlock",
        LockKind::Read => "rwsem (read)",
        LockKind::Write => "rwsem (write)",
    }
}

/// What a fallible call is, by kind and class.
pub fn fallible(kind: ChoiceKind, class: u16) -> String {
    Failure { kind, class }.name()
}

/// Type of an invalidation descriptor.
fn descriptor_name(kind: u8) -> String {
    use iommu_model::spec::vtd::descriptor::{TYPE_CONTEXT, TYPE_DEVICE_TLB, TYPE_INTERRUPT_ENTRY, TYPE_IOTLB, TYPE_WAIT};
    match kind {
        TYPE_CONTEXT => "context cache".to_owned(),
        TYPE_IOTLB => "IOTLB".to_owned(),
        TYPE_DEVICE_TLB => "device TLB".to_owned(),
        TYPE_INTERRUPT_ENTRY => "interrupt entry cache".to_owned(),
        TYPE_WAIT => "wait".to_owned(),
        other => format!("descriptor type {other}"),
    }
}

fn register_name(offset: u16) -> String {
    match u64::from(offset) {
        register::OFFSET_GCMD => "GCMD".to_owned(),
        register::OFFSET_RTADDR => "RTADDR".to_owned(),
        register::OFFSET_CCMD => "CCMD".to_owned(),
        register::OFFSET_FSTS => "FSTS".to_owned(),
        register::OFFSET_FECTL => "FECTL".to_owned(),
        register::OFFSET_IQT => "IQT".to_owned(),
        register::OFFSET_IQA => "IQA".to_owned(),
        register::OFFSET_IVA => "IVA".to_owned(),
        register::OFFSET_IOTLB => "IOTLB".to_owned(),
        other => format!("register {other:#x}"),
    }
}

fn switched(unit: UnitId, on: bool) -> String {
    format!("unit {} {} translating", unit.0, if on { "starts" } else { "stops" })
}

fn register_words(history: &History<'_>, at: usize) -> String {
    let EventKind::RegisterWritten { unit, offset, value } = history.event(at).kind else { return String::new() };
    if u64::from(offset) != register::OFFSET_GCMD {
        return format!("{} = {value:#x}", register_name(offset));
    }
    let before = GlobalCommand::from_bits(history.register(unit, offset, at).unwrap_or(0) as u32);
    let now = GlobalCommand::from_bits(value as u32);
    let mut words = Vec::new();
    let mut switch = |name: &str, before: bool, now: bool| {
        if before != now {
            words.push(format!("{name} {}", if now { "ON" } else { "OFF" }));
        }
    };
    switch("translation (TE)", before.translation_enable(), now.translation_enable());
    switch("queued invalidation (QIE)", before.queue_enable(), now.queue_enable());
    switch("interrupt remapping (IRE)", before.interrupt_remapping(), now.interrupt_remapping());
    if now.set_root_table() {
        words.push("new root table (SRTP)".to_owned());
    }
    if words.is_empty() { format!("GCMD = {value:#x}, nothing changed") } else { format!("GCMD: {}", words.join(", ")) }
}

/// The error of a word of the workload: what it says went wrong, as a negative number.
pub fn error_of(verb: Verb, args: [u64; 4]) -> Option<Errno> {
    let word = match verb {
        verb::USER_RETURN | verb::DEVICE_UNPRESERVED => args[1],
        verb::FLB_OP | verb::FILE_OP | verb::DOMAIN_PRESERVED | verb::DEVICE_PRESERVED => args[2],
        verb::MAP_END => args[3],
        _ => return None,
    };
    let errno = word as i64;
    (-4095..0).contains(&errno).then_some(errno as Errno)
}

/// A word of the workload in words.
pub fn note(verb: Verb, args: [u64; 4]) -> String {
    let errno = |word: u64| errno::name(word as i64 as Errno);
    let bdf = |word: u64| Bdf(word as u16).to_string();
    let pa = |word: u64| Pa(word).to_string();
    match verb {
        verb::CALL => format!("{}()", verb::unpack_name(args)),
        verb::WARN => format!("WARN: {}", verb::unpack_name(args)),
        verb::NO_MEMORY => format!("no memory for {} ({} bytes)", tag::name(sim::memory::Tag(args[0] as u16)), args[1]),
        verb::PHASE => format!("phase: {}", phase_name(args[0])),
        verb::MARK => format!("mark: {}", Mark::from_number(args[0]).map_or("unknown", Mark::name)),
        verb::USER_CALL => format!("user calls {}", call_name(args[0])),
        verb::USER_RETURN if (args[1] as i64) < 0 => format!("{} fails: {}", call_name(args[0]), errno(args[1])),
        verb::USER_RETURN => format!("{} returns {}", call_name(args[0]), args[1]),
        verb::KHO_ADD => format!("KHO preserves pa {} order {}", pa(args[0]), args[1]),
        verb::KHO_DEL => format!("KHO unpreserves pa {} order {}", pa(args[0]), args[1]),
        verb::KHO_RESTORED => format!("KHO restores pa {} order {}", pa(args[0]), args[1]),
        verb::KHO_RESERVED => format!("KHO reserves pa {} order {}", pa(args[0]), args[1]),
        verb::KHO_RESTORE_FAILED => format!("KHO restore of pa {} fails", pa(args[0])),
        verb::DOMAIN_CREATED => format!("domain created, top table {}", pa(args[1])),
        verb::DOMAIN_FREED => "domain freed".to_owned(),
        verb::DEVICE_ATTACHED if args[1] == 0 => format!("{} blocked", bdf(args[0])),
        verb::DEVICE_ATTACHED => format!("{} attached to domain {}", bdf(args[0]), args[2]),
        verb::DEVICE_CHANGING if args[1] == 0 => format!("blocking of {} begins", bdf(args[0])),
        verb::DEVICE_CHANGING => format!("attach of {} begins", bdf(args[0])),
        verb::MAP_BEGIN => format!("map iova {:#x} -> pa {}", args[1], pa(args[2])),
        verb::MAP_END if error_of(verb, args).is_some() => format!("map of iova {:#x} fails: {}", args[1], errno(args[3])),
        verb::MAP_END => format!("map of iova {:#x} done", args[1]),
        verb::UNMAP_BEGIN => format!("unmap iova {:#x}", args[1]),
        verb::UNMAP_END => format!("unmap of iova {:#x} returns", args[1]),
        verb::PINNED => format!("pin pa {}", Pfn(args[0]).pa()),
        verb::UNPINNED => format!("unpin pa {}", Pfn(args[0]).pa()),
        verb::DOMAIN_PRESERVED => format!("domain preserve: {}", errno(args[2])),
        verb::DOMAIN_UNPRESERVED => "domain unpreserved".to_owned(),
        verb::DEVICE_PRESERVED => format!("preserve of {}: {}", bdf(args[0]), errno(args[2])),
        verb::DEVICE_UNPRESERVED => format!("unpreserve of {}: {}", bdf(args[0]), errno(args[1])),
        verb::IMMUTABLE => format!("IOAS {}", if args[1] == 1 { "immutable" } else { "mutable" }),
        verb::FLB_OP => format!("{} FLB {}: {}", flb_name(args[0]), flb_op(args[1]), errno(args[2])),
        verb::FILE_OP => format!("file {} {}: {}", args[0], file_op(args[1] & 0xff), errno(args[2])),
        verb::DOMAIN_ID => format!("domain id {} {}", args[1], if args[2] == 1 { "taken" } else { "given back" }),
        verb::DEVICE_PROGRAMMED => format!("{} may use iova {:#x}, {} bytes", bdf(args[0]), args[1], args[2]),
        verb::ADOPTED => format!("{} adopted with domain {}", bdf(args[0]), args[2]),
        verb::BEFORE_JUMP => "the jump is next".to_owned(),
        verb::QUIESCENT => "at rest: no session, no call under way".to_owned(),
        verb::ALL_FINISHED => "every session was finished and closed".to_owned(),
        verb::CONTENT => format!("guest content at pa {}", pa(args[0])),
        other => format!("{} {:#x} {:#x} {:#x} {:#x}", verb::name(other), args[0], args[1], args[2], args[3]),
    }
}

/// Name of a phase.
pub fn phase_name(number: u64) -> &'static str {
    match Phase::ALL.get(number as usize) {
        Some(Phase::ColdBoot) => "cold-boot",
        Some(Phase::Running) => "running",
        Some(Phase::Preserved) => "preserved",
        Some(Phase::Serialise) => "serialise",
        Some(Phase::Shutdown) => "shutdown",
        Some(Phase::EarlyBoot) => "early-boot",
        Some(Phase::Boot) => "boot",
        Some(Phase::Adopted) => "adopted",
        Some(Phase::Incoming) => "incoming",
        Some(Phase::Finished) => "finished",
        None => "unknown",
    }
}

fn call_name(number: u64) -> &'static str {
    const CALLS: [Call; 23] = [
        Call::CreateSession,
        Call::PreserveFd,
        Call::Close,
        Call::Reboot,
        Call::RetrieveSession,
        Call::RetrieveFd,
        Call::Finish,
        Call::MemfdCreate,
        Call::IommufdOpen,
        Call::IoasAlloc,
        Call::IoasMap,
        Call::IoasUnmap,
        Call::HwptAlloc,
        Call::HwptMark,
        Call::VfioOpen,
        Call::VfioBind,
        Call::VfioAttach,
        Call::VfioDetach,
        Call::KexecLoad,
        Call::IommufdDestroy,
        Call::HwptRestore,
        Call::VfioReplace,
        Call::Fallocate,
    ];
    CALLS.into_iter().find(|&call| call as u64 == number).map_or("a call", Call::name)
}

fn flb_name(number: u64) -> &'static str {
    match number {
        1 => "IOMMU",
        2 => "test",
        _ => "unknown",
    }
}

fn flb_op(number: u64) -> &'static str {
    const OPS: [(FlbOp, &str); 4] =
        [(FlbOp::Preserve, "preserve"), (FlbOp::Unpreserve, "unpreserve"), (FlbOp::Retrieve, "retrieve"), (FlbOp::Finish, "finish")];
    OPS.into_iter().find(|(op, _)| *op as u64 == number).map_or("call", |(_, name)| name)
}

fn file_op(number: u64) -> &'static str {
    const OPS: [(FileOp, &str); 8] = [
        (FileOp::Preserve, "preserve"),
        (FileOp::Unpreserve, "unpreserve"),
        (FileOp::Freeze, "freeze"),
        (FileOp::Unfreeze, "unfreeze"),
        (FileOp::Retrieve, "retrieve"),
        (FileOp::Finish, "finish"),
        (FileOp::CannotFinish, "cannot finish"),
        (FileOp::Serialised, "serialised"),
    ];
    OPS.into_iter().find(|(op, _)| *op as u64 == number).map_or("call", |(_, name)| name)
}
