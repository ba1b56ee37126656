//! The contract of each call of userspace: which error it may return, and what must be true for that.
//!
//! A row holds when the call was made with sensible arguments and no failure was injected into it, and memory was there; each of those excuses any error
//! by itself. What an earlier failure leaves behind has rows of its own. What a row cannot express (who exactly overlapped whom) is decided in favour of the kernel.
//!
//! Source: facts/live-update.md 2.1, 2.4 to 2.9 (LUO), 4.11 to 4.13 (ownership, immutability), 6.3 (memfd), 6.5 (VFIO).

use crate::errno::{EADDRINUSE, EBUSY, EEXIST, EINVAL, EIO, EMFILE, ENODEV, ENOENT, EOPNOTSUPP, EPERM, Errno};

/// Numbers of the calls: first argument of USER_CALL and USER_RETURN.
pub mod call {
    /// LIVEUPDATE_IOCTL_CREATE_SESSION.
    pub const CREATE_SESSION: u8 = 1;
    /// LIVEUPDATE_SESSION_PRESERVE_FD.
    pub const PRESERVE_FD: u8 = 2;
    /// close.
    pub const CLOSE: u8 = 3;
    /// reboot(KEXEC).
    pub const REBOOT: u8 = 4;
    /// LIVEUPDATE_IOCTL_RETRIEVE_SESSION.
    pub const RETRIEVE_SESSION: u8 = 5;
    /// LIVEUPDATE_SESSION_RETRIEVE_FD.
    pub const RETRIEVE_FD: u8 = 6;
    /// LIVEUPDATE_SESSION_FINISH.
    pub const FINISH: u8 = 7;
    /// memfd_create.
    pub const MEMFD_CREATE: u8 = 8;
    /// open(/dev/iommu).
    pub const IOMMUFD_OPEN: u8 = 9;
    /// IOMMU_IOAS_ALLOC.
    pub const IOAS_ALLOC: u8 = 10;
    /// IOMMU_IOAS_MAP_FILE.
    pub const IOAS_MAP: u8 = 11;
    /// IOMMU_IOAS_UNMAP.
    pub const IOAS_UNMAP: u8 = 12;
    /// IOMMU_HWPT_ALLOC.
    pub const HWPT_ALLOC: u8 = 13;
    /// IOMMU_HWPT_LU_SET_PRESERVE.
    pub const HWPT_MARK: u8 = 14;
    /// open of a VFIO cdev.
    pub const VFIO_OPEN: u8 = 15;
    /// VFIO_DEVICE_BIND_IOMMUFD.
    pub const VFIO_BIND: u8 = 16;
    /// VFIO_DEVICE_ATTACH_IOMMUFD_PT.
    pub const VFIO_ATTACH: u8 = 17;
    /// VFIO_DEVICE_DETACH_IOMMUFD_PT.
    pub const VFIO_DETACH: u8 = 18;
    /// kexec_file_load.
    pub const KEXEC_LOAD: u8 = 19;
    /// IOMMU_DESTROY.
    pub const IOMMUFD_DESTROY: u8 = 20;
    /// Restore of a preserved HWPT (second phase).
    pub const HWPT_RESTORE: u8 = 21;
    /// VFIO_DEVICE_ATTACH_IOMMUFD_PT of an attached device.
    pub const VFIO_REPLACE: u8 = 22;
    /// fallocate, ftruncate.
    pub const FALLOCATE: u8 = 23;
    /// dup.
    pub const DUP: u8 = 24;

    /// Calls by which a user asks for another domain, or for none.
    ///
    /// A bind takes the device from its default domain, and gives it back when the answer cannot be told.
    pub const ASK_FOR_A_DOMAIN: [u8; 7] = [CLOSE, FINISH, VFIO_BIND, VFIO_ATTACH, VFIO_DETACH, VFIO_REPLACE, IOMMUFD_DESTROY];

    /// Name in titles.
    pub const fn name(number: u8) -> &'static str {
        match number {
            CREATE_SESSION => "create-session",
            PRESERVE_FD => "preserve-fd",
            CLOSE => "close",
            REBOOT => "reboot",
            RETRIEVE_SESSION => "retrieve-session",
            RETRIEVE_FD => "retrieve-fd",
            FINISH => "finish",
            MEMFD_CREATE => "memfd-create",
            IOMMUFD_OPEN => "iommufd-open",
            IOAS_ALLOC => "ioas-alloc",
            IOAS_MAP => "ioas-map",
            IOAS_UNMAP => "ioas-unmap",
            HWPT_ALLOC => "hwpt-alloc",
            HWPT_MARK => "hwpt-mark",
            VFIO_OPEN => "vfio-open",
            VFIO_BIND => "vfio-bind",
            VFIO_ATTACH => "vfio-attach",
            VFIO_DETACH => "vfio-detach",
            KEXEC_LOAD => "kexec-load",
            IOMMUFD_DESTROY => "iommufd-destroy",
            HWPT_RESTORE => "hwpt-restore",
            VFIO_REPLACE => "vfio-replace",
            FALLOCATE => "fallocate",
            DUP => "dup",
            _ => "unknown-call",
        }
    }
}

/// What must be true for an error to be in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// Nothing: the error belongs to the call.
    Always,
    /// Something was preserved, immutable, handed over and not finished, or rebooting, at some time during the call.
    Obstacle,
    /// Another call overlapped it.
    Overlapped,
    /// An incoming kernel runs.
    Incoming,
    /// No update was handed over, or a close met the reboot call.
    NothingHandedOver,
    /// No session of the name asked for was open at the jump.
    SessionUnknown,
    /// The token was not handed over.
    TokenUnknown,
    /// A file said no during the call, and userspace had not done its part.
    CannotFinish,
    /// The range was, or may have been, mapped.
    RangeTaken,
    /// The range was not, or may not have been, mapped as a whole.
    RangeNotMapped,
    /// No kernel image was loaded.
    NoImage,
    /// A failure was injected into an earlier call of this number, which returned an error.
    Failed(u8),
    /// The token's file is preserved.
    TokenPreserved,
    /// A reboot call is under way.
    Rebooting,
    /// Something was handed over and is not finished.
    HandedOver,
}

/// A row of the contract.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Call number; 0 stands for every call.
    pub call: u8,
    /// The error.
    pub errno: Errno,
    /// What must be true; one true row is enough.
    pub when: When,
}

const fn row(call: u8, errno: Errno, when: When) -> Row {
    Row { call, errno, when }
}

/// All rows.
pub const ROWS: &[Row] = &[
    row(call::CREATE_SESSION, EBUSY, When::Obstacle),
    row(call::CREATE_SESSION, EEXIST, When::Overlapped),
    // The agent's previous session of that name may still wait for a reboot to be given up.
    row(call::CREATE_SESSION, EEXIST, When::Obstacle),
    row(call::PRESERVE_FD, EBUSY, When::TokenPreserved),
    row(call::PRESERVE_FD, EBUSY, When::Rebooting),
    row(call::PRESERVE_FD, EBUSY, When::HandedOver),
    row(call::PRESERVE_FD, EBUSY, When::Overlapped),
    // A handler that depends on another preserved file does not find it, or finds an area it cannot preserve.
    row(call::PRESERVE_FD, ENOENT, When::Overlapped),
    row(call::PRESERVE_FD, EINVAL, When::Overlapped),
    // Restored domains have no preserve operation.
    row(call::PRESERVE_FD, EOPNOTSUPP, When::Incoming),
    row(call::PRESERVE_FD, EINVAL, When::Incoming),
    row(call::PRESERVE_FD, ENOENT, When::Incoming),
    row(call::REBOOT, EBUSY, When::Overlapped),
    row(call::REBOOT, EINVAL, When::NoImage),
    // A restored or half retrieved file cannot be frozen.
    row(call::REBOOT, EINVAL, When::Incoming),
    row(call::RETRIEVE_SESSION, ENOENT, When::NothingHandedOver),
    row(call::RETRIEVE_SESSION, ENOENT, When::SessionUnknown),
    row(call::RETRIEVE_SESSION, EINVAL, When::Overlapped),
    row(call::RETRIEVE_SESSION, EIO, When::NothingHandedOver),
    row(call::CREATE_SESSION, EIO, When::NothingHandedOver),
    // What was handed over is read at the first call; a failure there is remembered.
    row(call::RETRIEVE_SESSION, EIO, When::Failed(call::RETRIEVE_SESSION)),
    row(call::RETRIEVE_SESSION, EIO, When::Failed(call::CREATE_SESSION)),
    row(call::CREATE_SESSION, EIO, When::Failed(call::RETRIEVE_SESSION)),
    row(call::CREATE_SESSION, EIO, When::Failed(call::CREATE_SESSION)),
    row(call::RETRIEVE_FD, ENOENT, When::TokenUnknown),
    // Series v2 and later: iommufd files cannot be retrieved yet.
    row(call::RETRIEVE_FD, EOPNOTSUPP, When::Always),
    row(call::FINISH, EBUSY, When::CannotFinish),
    row(call::IOAS_MAP, EBUSY, When::Obstacle),
    row(call::IOAS_MAP, EPERM, When::Obstacle),
    row(call::IOAS_MAP, EEXIST, When::RangeTaken),
    row(call::IOAS_MAP, EADDRINUSE, When::RangeTaken),
    row(call::IOAS_MAP, EEXIST, When::Overlapped),
    row(call::IOAS_MAP, EADDRINUSE, When::Overlapped),
    row(call::IOAS_UNMAP, EBUSY, When::Obstacle),
    row(call::IOAS_UNMAP, EBUSY, When::Overlapped),
    row(call::IOAS_UNMAP, ENOENT, When::RangeNotMapped),
    row(call::IOAS_UNMAP, ENOENT, When::Overlapped),
    // An unmap that cannot tell the caller how much it unmapped has unmapped it all the same.
    row(call::IOAS_UNMAP, ENOENT, When::Failed(call::IOAS_UNMAP)),
    row(call::HWPT_ALLOC, EBUSY, When::Obstacle),
    row(call::HWPT_MARK, EADDRINUSE, When::Overlapped),
    row(call::HWPT_MARK, EBUSY, When::Obstacle),
    // The cdev of a device that came over cannot be opened directly.
    row(call::VFIO_OPEN, EBUSY, When::Incoming),
    row(call::VFIO_OPEN, EBUSY, When::Obstacle),
    row(call::VFIO_BIND, EBUSY, When::Incoming),
    row(call::VFIO_ATTACH, EBUSY, When::Obstacle),
    row(call::VFIO_DETACH, EBUSY, When::Obstacle),
    row(call::VFIO_REPLACE, EBUSY, When::Obstacle),
    row(call::KEXEC_LOAD, EBUSY, When::Overlapped),
    row(call::IOMMUFD_DESTROY, EBUSY, When::Obstacle),
    row(call::IOMMUFD_DESTROY, EBUSY, When::Overlapped),
    row(call::HWPT_RESTORE, ENOENT, When::NothingHandedOver),
    row(call::HWPT_RESTORE, EOPNOTSUPP, When::Always),
    row(call::RETRIEVE_FD, ENODEV, When::NothingHandedOver),
    // Guest memory is sealed against resizing from the start, and frozen while preserved.
    row(call::FALLOCATE, EPERM, When::Always),
    row(call::FALLOCATE, EBUSY, When::Obstacle),
    // A process has few descriptors here.
    row(0, EMFILE, When::Always),
];
