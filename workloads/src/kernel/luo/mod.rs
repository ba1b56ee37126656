//! LUO, the live update orchestrator: sessions of preserved files, objects that live as long as such files (FLBs), and the
//! serialisation of both when the system reboots into the next kernel.
//!
//! Map: [`session`] user interface; [`mod@file`] preserve, retrieve, finish of one file; [`handler`] who does it, by kind of file;
//! [`preserved`] which files are preserved at all; [`flb`]; [`reboot`] the outgoing side of the update; [`incoming`] the incoming
//! side; [`startup`] the outgoing structures of the next update.
//!
//! Lock order: header rwsem, session mutex, registration lock (read), FLB mutex, locks of subsystems; a file's mutex is inside
//! its session's.
//!
//! | supported | not supported |
//! | --- | --- |
//! | both generations of the ABI, the reboot guard, sticky errors, in-kernel file look-up | un-registration, GET_NAME, module references |
//!
//! Assumed: handlers are built in and registered in the order memfd, iommufd, vfio-pci. /dev/liveupdate is opened by the first
//! caller and stays open in the daemon that passes requests on.
//!
//! Source: kernel/liveupdate/luo_*.c, mainline 6.19 to 7.1 (generation 1) and linux-mm, mid 2026 (generation 2).

pub mod file;
pub mod flb;
pub mod handler;
pub mod incoming;
pub mod preserved;
pub mod reboot;
pub mod session;
pub mod startup;

use sim::memory::{Field, Ptr, field};
use sim::sync::{Mutex, RwSem, WaitQueue};

use super::file::File;
use super::kho_block::KhoBlockSet;
use super::mm::list::ListHead;
use super::{Section, Task};

pub use file::{FileSet, LuoFile, liveupdate_get_file_incoming, liveupdate_get_token_outgoing};
pub use flb::{
    FlbId, FlbOpArgs, liveupdate_flb_get_incoming, liveupdate_flb_get_outgoing, liveupdate_flb_put_incoming, liveupdate_flb_put_outgoing,
};
pub use handler::{FileOpArgs, HandlerId};
pub use incoming::luo_early_startup;
pub use reboot::{liveupdate_abort_reboot, liveupdate_reboot};
pub use session::{
    luo_ioctl_create_session, luo_ioctl_retrieve_session, luo_open, luo_release, luo_session_finish, luo_session_preserve_fd,
    luo_session_retrieve_fd,
};
pub use startup::luo_late_startup;

/// Where LUO keeps its globals.
pub const SECTION: Section = Section::Luo;

/// Globals of LUO.
#[derive(Clone, Copy, Debug)]
pub struct Luo;

impl Luo {
    /// `luo_global.enabled`.
    pub const ENABLED: Field<u64> = field(0, "luo_global.enabled");
    /// `luo_global.liveupdate_num`.
    pub const LIVEUPDATE_NUM: Field<u64> = field(8, "luo_global.liveupdate_num");
    /// `luo_register_rwlock`.
    pub const REGISTER_LOCK: Field<RwSem> = field(16, "luo_register_rwlock");
    /// State of /dev/liveupdate: see the `DEVICE_` constants.
    pub const DEVICE: Field<u32> = field(24, "ldev.in_use");
    /// `is_deserialized`.
    pub const DESERIALIZED: Field<u32> = field(28, "is_deserialized");
    /// The error deserialisation ended with, for ever.
    pub const DESERIALIZE_ERR: Field<i32> = field(32, "saved_err");
    /// `luo_preserved_files`: first entry.
    pub const PRESERVED: Field<Ptr<preserved::Entry>> = field(40, "luo_preserved_files");
    /// Lock of `luo_preserved_files`.
    pub const PRESERVED_LOCK: Field<sim::sync::SpinLock> = field(48, "luo_preserved_files.xa_lock");
    /// The blob under KHO's `LUO`: the FDT of generation 1, `struct luo_ser` of generation 2.
    pub const BLOB: Field<Ptr<u64>> = field(56, "luo_global.fdt_out");
    /// `luo_session_global.outgoing`.
    pub const OUTGOING: Field<SessionHeader> = field(64, "luo_session_global.outgoing");
    /// `luo_session_global.incoming`.
    pub const INCOMING: Field<SessionHeader> = field(192, "luo_session_global.incoming");
    /// `luo_file_handler_list`: as many words as there are handlers, id in the low half, FLB in the high half.
    pub const HANDLERS: Field<u64> = field(320, "luo_file_handler_list");
}

/// `struct luo_session_header`: one direction's sessions.
#[derive(Clone, Copy, Debug)]
pub struct SessionHeader;

impl SessionHeader {
    /// Guards list, count and `rebooting`.
    pub const RWSEM: Field<RwSem> = field(0, "rwsem");
    /// Sessions in order of creation.
    pub const LIST: Field<ListHead> = field(8, "list");
    /// Number of sessions.
    pub const COUNT: Field<u64> = field(24, "count");
    /// Generation 2: the reboot call has serialised; nothing may change.
    pub const REBOOTING: Field<u64> = field(32, "rebooting");
    /// Generation 2: who waits for the reboot to be given up.
    pub const WAIT: Field<WaitQueue> = field(40, "reboot_waitq");
    /// Generation 1: `header_ser`.
    pub const SER: Field<Ptr<u64>> = field(48, "header_ser");
    /// There is something to deserialise, or room to serialise into.
    pub const ACTIVE: Field<u64> = field(56, "active");
    /// Generation 2: blocks of `luo_session_ser`.
    pub const BLOCKS: Field<KhoBlockSet> = field(64, "block_set");
    /// Generation 2, incoming: physical address of the first block.
    pub const SESSIONS_PA: Field<u64> = field(112, "sessions_pa");
}

/// `struct luo_session`.
#[derive(Clone, Copy, Debug)]
pub struct Session;

impl Session {
    /// Name, NUL-terminated inside 64 bytes.
    pub const NAME: Field<u64> = field(0, "name");
    /// Retrieved: an incoming session that userspace holds.
    pub const RETRIEVED: Field<u64> = field(64, "retrieved");
    /// Link in its header's list.
    pub const LIST: Field<ListHead> = field(72, "list");
    /// Guards the file set and `retrieved`.
    pub const MUTEX: Field<Mutex> = field(88, "mutex");
    /// The files.
    pub const FILE_SET: Field<FileSet> = field(96, "file_set");
    /// Bytes.
    pub const BYTES: u16 = 96 + FileSet::BYTES;
}

/// Nobody has /dev/liveupdate open.
pub const DEVICE_CLOSED: u32 = 0;
/// An open call is deserialising.
pub const DEVICE_OPENING: u32 = 1;
/// It is open.
pub const DEVICE_OPEN: u32 = 2;

/// `liveupdate_enabled()`.
pub async fn liveupdate_enabled(t: &Task) -> bool {
    t.read(t.sym(SECTION, Luo::ENABLED)).await != 0
}

/// A member of one direction's header.
pub(super) fn header<F>(t: &Task, direction: Field<SessionHeader>, member: Field<F>) -> Ptr<F> {
    t.sym(SECTION, direction).at(member)
}

/// `luo_restore_fail()`: state of memory and devices is unknown, going on would be worse.
pub async fn luo_restore_fail(t: &Task) -> std::convert::Infallible {
    t.panic("luo_restore_fail").await
}

/// The session a LUO session file stands for.
pub async fn session_of(t: &Task, file: Ptr<File>) -> Ptr<Session> {
    Ptr::new(t.read(file.at(File::PRIVATE_DATA)).await)
}
