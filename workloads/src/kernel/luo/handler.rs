//! File handlers: who preserves which kind of file. The operation tables are matches; which handlers are registered, in which
//! order, and the FLB each depends on, is a table in RAM under the registration lock.

use sim::memory::Ptr;

use super::super::file::File;
use super::super::iommufd::liveupdate as iommufd;
use super::super::{Task, memfd_luo, vfio_liveupdate as vfio};
use super::flb::FlbId;
use super::{Luo, SECTION, Session};
use crate::abi;
use crate::errno::Errno;
use crate::verb::{self, FileOp};

/// A handler, by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum HandlerId {
    /// memfd.
    Memfd = 1,
    /// iommufd.
    Iommufd = 2,
    /// vfio-pci device files.
    Vfio = 3,
}

/// `struct liveupdate_file_op_args`: on the caller's stack.
#[derive(Clone, Copy, Debug)]
pub struct FileOpArgs {
    /// The file; NULL in retrieve, and in finish of a file that was not retrieved.
    pub file: Ptr<File>,
    /// The session (added by the IOMMU series).
    pub session: Ptr<Session>,
    /// What the handler hands over: a physical address or a number.
    pub serialized_data: u64,
    /// What the handler keeps in this kernel.
    pub private_data: u64,
    /// 0 never tried, 1 retrieved, negative: the sticky error.
    pub retrieve_status: i32,
}

impl HandlerId {
    /// Handlers in order of registration.
    pub const ALL: [HandlerId; 3] = [HandlerId::Memfd, HandlerId::Iommufd, HandlerId::Vfio];

    /// The handler of a number read from RAM.
    pub fn from_number(number: u64) -> Option<HandlerId> {
        HandlerId::ALL.into_iter().find(|id| *id as u64 == number)
    }

    /// `compatible` string.
    pub const fn compatible(self) -> &'static str {
        match self {
            HandlerId::Memfd => abi::memfd::COMPATIBLE,
            HandlerId::Iommufd => abi::iommufd::COMPATIBLE,
            HandlerId::Vfio => abi::vfio::COMPATIBLE,
        }
    }

    /// The FLB its files depend on.
    const fn depends_on(self) -> Option<FlbId> {
        match self {
            HandlerId::Memfd => Some(FlbId::Test),
            HandlerId::Iommufd => Some(FlbId::Iommu),
            HandlerId::Vfio => None,
        }
    }
}

/// `liveupdate_register_file_handler()` and `liveupdate_register_flb()` of everything built in.
pub(super) async fn register_all(t: &Task) {
    let lock = t.sym(SECTION, Luo::REGISTER_LOCK);
    t.down_write(lock).await;
    for (index, id) in HandlerId::ALL.into_iter().enumerate() {
        let flb = id.depends_on().map_or(0, |flb| flb as u64);
        t.write(t.sym(SECTION, Luo::HANDLERS).byte_add::<u64>(index as u64 * 8), id as u64 | flb << 32).await;
    }
    t.up_write(lock).await;
}

/// Entry `index` of the registration list: handler and FLB.
pub(super) async fn registered(t: &Task, index: usize) -> (Option<HandlerId>, Option<FlbId>) {
    if index >= HandlerId::ALL.len() {
        return (None, None);
    }
    let word = t.read(t.sym(SECTION, Luo::HANDLERS).byte_add::<u64>(index as u64 * 8)).await;
    (HandlerId::from_number(word & 0xffff_ffff), FlbId::from_number(word >> 32))
}

/// The FLB of a handler.
pub(super) async fn flb_of(t: &Task, handler: HandlerId) -> Option<FlbId> {
    registered(t, handler as usize - 1).await.1
}

/// Says that a callback returned.
pub(super) fn note(t: &Task, handler: HandlerId, token: u64, op: FileOp, errno: Errno, session: Ptr<Session>) {
    t.machine.note(verb::FILE_OP, [token, op as u64 | (handler as u64) << 8, i64::from(errno) as u64, session.value()]);
}

/// `ops->can_preserve()`.
pub(super) async fn can_preserve(t: &Task, handler: HandlerId, args: &mut FileOpArgs) -> bool {
    match handler {
        HandlerId::Memfd => memfd_luo::memfd_luo_can_preserve(t, args).await,
        HandlerId::Iommufd => iommufd::iommufd_liveupdate_can_preserve(t, args).await,
        HandlerId::Vfio => vfio::vfio_liveupdate_can_preserve(t, args).await,
    }
}

/// `ops->preserve()`.
pub(super) async fn preserve(t: &Task, handler: HandlerId, args: &mut FileOpArgs, token: u64) -> Errno {
    let err = match handler {
        HandlerId::Memfd => memfd_luo::memfd_luo_preserve(t, args).await,
        HandlerId::Iommufd => iommufd::iommufd_liveupdate_preserve(t, args).await,
        HandlerId::Vfio => vfio::vfio_liveupdate_preserve(t, args).await,
    };
    note(t, handler, token, FileOp::Preserve, err, args.session);
    err
}

/// `ops->unpreserve()`.
pub(super) async fn unpreserve(t: &Task, handler: HandlerId, args: &mut FileOpArgs, token: u64) {
    match handler {
        HandlerId::Memfd => memfd_luo::memfd_luo_unpreserve(t, args).await,
        HandlerId::Iommufd => iommufd::iommufd_liveupdate_unpreserve(t, args).await,
        HandlerId::Vfio => vfio::vfio_liveupdate_unpreserve(t, args).await,
    }
    note(t, handler, token, FileOp::Unpreserve, 0, args.session);
}

/// `ops->freeze()`, optional.
pub(super) async fn freeze(t: &Task, handler: HandlerId, args: &mut FileOpArgs, token: u64) -> Errno {
    let err = match handler {
        HandlerId::Memfd => memfd_luo::memfd_luo_freeze(t, args).await,
        HandlerId::Vfio => vfio::vfio_liveupdate_freeze(t, args).await,
        HandlerId::Iommufd => 0,
    };
    note(t, handler, token, FileOp::Freeze, err, args.session);
    err
}

/// `ops->unfreeze()`, optional: no handler here has it.
pub(super) async fn unfreeze(t: &Task, handler: HandlerId, args: &FileOpArgs, token: u64) {
    note(t, handler, token, FileOp::Unfreeze, 0, args.session);
}

/// `ops->retrieve()`.
pub(super) async fn retrieve(t: &Task, handler: HandlerId, args: &mut FileOpArgs, token: u64) -> Errno {
    let err = match handler {
        HandlerId::Memfd => memfd_luo::memfd_luo_retrieve(t, args).await,
        HandlerId::Iommufd => iommufd::iommufd_liveupdate_retrieve(t, args).await,
        HandlerId::Vfio => vfio::vfio_liveupdate_retrieve(t, args).await,
    };
    note(t, handler, token, FileOp::Retrieve, err, args.session);
    err
}

/// `ops->can_finish()`, optional.
pub(super) async fn can_finish(t: &Task, handler: HandlerId, args: &mut FileOpArgs, token: u64) -> bool {
    let can = match handler {
        HandlerId::Memfd => true,
        HandlerId::Iommufd => iommufd::iommufd_liveupdate_can_finish(t, args).await,
        HandlerId::Vfio => vfio::vfio_liveupdate_can_finish(t, args).await,
    };
    if !can {
        note(t, handler, token, FileOp::CannotFinish, 0, args.session);
    }
    can
}

/// `ops->finish()`.
pub(super) async fn finish(t: &Task, handler: HandlerId, args: &mut FileOpArgs, token: u64) {
    match handler {
        HandlerId::Memfd => memfd_luo::memfd_luo_finish(t, args).await,
        HandlerId::Iommufd => iommufd::iommufd_liveupdate_finish(t, args).await,
        HandlerId::Vfio => vfio::vfio_liveupdate_finish(t, args).await,
    }
    note(t, handler, token, FileOp::Finish, 0, args.session);
}
