//! System calls and ioctls as userspace issues them, each announced and answered on the event stream.

use iommu_model::addr::{Bdf, Iova};
use sim::memory::Ptr;

use crate::errno::Errno;
use crate::kernel::file::{self, Files};
use crate::kernel::{Task, iommufd, kexec, luo, memfd, vfio};
use crate::verb;

/// Numbers of the calls, as the verbs USER_CALL and USER_RETURN carry them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs, reason = "each is named as the call")]
pub enum Call {
    CreateSession = 1,
    PreserveFd = 2,
    Close = 3,
    Reboot = 4,
    RetrieveSession = 5,
    RetrieveFd = 6,
    Finish = 7,
    MemfdCreate = 8,
    IommufdOpen = 9,
    IoasAlloc = 10,
    IoasMap = 11,
    IoasUnmap = 12,
    HwptAlloc = 13,
    HwptMark = 14,
    VfioOpen = 15,
    VfioBind = 16,
    VfioAttach = 17,
    VfioDetach = 18,
    KexecLoad = 19,
    IommufdDestroy = 20,
    HwptRestore = 21,
    VfioReplace = 22,
    Fallocate = 23,
    Dup = 24,
}

impl Call {
    /// Name in traces.
    pub const fn name(self) -> &'static str {
        match self {
            Call::CreateSession => "LIVEUPDATE_IOCTL_CREATE_SESSION",
            Call::PreserveFd => "LIVEUPDATE_SESSION_PRESERVE_FD",
            Call::Close => "close",
            Call::Reboot => "reboot",
            Call::RetrieveSession => "LIVEUPDATE_IOCTL_RETRIEVE_SESSION",
            Call::RetrieveFd => "LIVEUPDATE_SESSION_RETRIEVE_FD",
            Call::Finish => "LIVEUPDATE_SESSION_FINISH",
            Call::MemfdCreate => "memfd_create",
            Call::IommufdOpen => "open(/dev/iommu)",
            Call::IoasAlloc => "IOMMU_IOAS_ALLOC",
            Call::IoasMap => "IOMMU_IOAS_MAP_FILE",
            Call::IoasUnmap => "IOMMU_IOAS_UNMAP",
            Call::HwptAlloc => "IOMMU_HWPT_ALLOC",
            Call::HwptMark => "IOMMU_HWPT_LU_SET_PRESERVE",
            Call::VfioOpen => "open(/dev/vfio/devices)",
            Call::VfioBind => "VFIO_DEVICE_BIND_IOMMUFD",
            Call::VfioAttach => "VFIO_DEVICE_ATTACH_IOMMUFD_PT",
            Call::VfioDetach => "VFIO_DEVICE_DETACH_IOMMUFD_PT",
            Call::KexecLoad => "kexec_file_load",
            Call::IommufdDestroy => "IOMMU_DESTROY",
            Call::HwptRestore => "IOMMU_HWPT_LU_RESTORE",
            Call::VfioReplace => "VFIO_DEVICE_ATTACH_IOMMUFD_PT (replace)",
            Call::Fallocate => "fallocate",
            Call::Dup => "dup",
        }
    }
}

/// A process: a task with its file descriptors.
#[derive(Clone)]
pub struct Process {
    /// The task.
    pub t: Task,
    /// Its file descriptor table; threads share it.
    pub files: Ptr<Files>,
    /// Arguments are deliberately stale, duplicate or made up from here on (flag of USER_CALL).
    pub hostile: bool,
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) -> $ret:ty = $call:ident, [$a:expr, $b:expr], $body:expr;)*) => {
        impl Process {
            $($(#[$doc])*
            pub async fn $name(&self, $($arg: $type),*) -> $ret {
                let (a, b): (u64, u64) = ($a, $b);
                let flags = u64::from(self.hostile);
                self.t.machine.note(verb::USER_CALL, [Call::$call as u64, a, b, flags]);
                let ret: $ret = $body(self, $($arg),*).await;
                self.t.check_no_locks_held(Call::$call.name());
                let result = Answer::errno(&ret);
                self.t.machine.note(verb::USER_RETURN, [Call::$call as u64, i64::from(result) as u64, a, b]);
                ret
            })*
        }
    };
}

/// A call's answer: what of it is the error number.
trait Answer {
    fn errno(&self) -> Errno;
}
impl Answer for Errno {
    fn errno(&self) -> Errno {
        *self
    }
}
impl Answer for (Errno, u64) {
    fn errno(&self) -> Errno {
        self.0
    }
}

calls! {
    /// Creates an outgoing session; its fd.
    create_session(name: u64) -> i32 = CreateSession, [name, 0],
        async |p: &Process, name| luo::luo_ioctl_create_session(&p.t, p.files, name).await;
    /// Preserves the file of `fd` under `token`.
    preserve_fd(session: i32, fd: i32, token: u64) -> Errno = PreserveFd, [session as u64, token],
        async |p: &Process, session, fd, token| luo::luo_session_preserve_fd(&p.t, p.files, session, fd, token).await;
    /// Retrieves an incoming session by name; its fd.
    retrieve_session(name: u64) -> i32 = RetrieveSession, [name, 0],
        async |p: &Process, name| luo::luo_ioctl_retrieve_session(&p.t, p.files, name).await;
    /// Retrieves a file by token; its fd.
    retrieve_fd(session: i32, token: u64) -> i32 = RetrieveFd, [session as u64, token],
        async |p: &Process, session, token| luo::luo_session_retrieve_fd(&p.t, p.files, session, token).await;
    /// Finishes a session; `whole` when userspace has taken back every file of it and left nothing in the way.
    finish(session: i32, whole: bool) -> Errno = Finish, [session as u64, u64::from(whole)],
        async |p: &Process, session, _| luo::luo_session_finish(&p.t, p.files, session).await;
    /// Closes a file descriptor.
    close(fd: i32) -> Errno = Close, [fd as u64, 0],
        async |p: &Process, fd| file::close_fd(&p.t, p.files, fd).await;
    /// Another descriptor of the same file.
    dup(fd: i32) -> i32 = Dup, [fd as u64, 0],
        async |p: &Process, fd| file::sys_dup(&p.t, p.files, fd).await;
    /// Creates guest memory of `pages` pages, sealed against resizing.
    memfd_create(pages: u32) -> i32 = MemfdCreate, [u64::from(pages), 0],
        async |p: &Process, pages| memfd::sys_memfd_create(&p.t, p.files, pages).await;
    /// As [`Process::memfd_create`], with huge pages where they fit.
    memfd_create_huge(pages: u32) -> i32 = MemfdCreate, [u64::from(pages), 1],
        async |p: &Process, pages| memfd::sys_memfd_create_huge(&p.t, p.files, pages).await;
    /// Allocates pages of a memfd.
    fallocate(memfd: i32, page: u32, pages: u32) -> Errno = Fallocate, [u64::from(page), u64::from(pages)],
        async |p: &Process, memfd, page, pages| memfd::sys_fallocate(&p.t, p.files, memfd, page, pages).await;
    /// Drops pages of a memfd.
    punch_hole(memfd: i32, page: u32, pages: u32) -> Errno = Fallocate, [u64::from(page), u64::from(pages)],
        async |p: &Process, memfd, page, pages| memfd::sys_punch_hole(&p.t, p.files, memfd, page, pages).await;
    /// Resizes a memfd.
    ftruncate(memfd: i32, pages: u32) -> Errno = Fallocate, [u64::from(pages), 0],
        async |p: &Process, memfd, pages| memfd::sys_ftruncate(&p.t, p.files, memfd, pages).await;
    /// Opens iommufd.
    iommufd_open() -> i32 = IommufdOpen, [0, 0],
        async |p: &Process| iommufd::sys_iommufd_open(&p.t, p.files).await;
    /// Allocates an IOAS; its object id.
    ioas_alloc(iommufd: i32) -> i32 = IoasAlloc, [iommufd as u64, 0],
        async |p: &Process, iommufd| iommufd::iommufd_ioas_alloc(&p.t, p.files, iommufd).await;
    /// Maps pages of a memfd at a fixed IOVA.
    ioas_map(iommufd: i32, ioas: i32, memfd: i32, page: u32, pages: u32, iova: Iova) -> Errno = IoasMap, [iova.0, u64::from(pages)],
        async |p: &Process, iommufd, ioas, memfd, page: u32, pages: u32, iova| iommufd::iommufd_ioas_map_file(
            &p.t, p.files, iommufd, ioas, memfd, u64::from(page) << 12, u64::from(pages) << 12, iova, 3).await;
    /// Unmaps an IOVA range; the bytes unmapped.
    ioas_unmap(iommufd: i32, ioas: i32, iova: Iova, pages: u32) -> (Errno, u64) = IoasUnmap, [iova.0, u64::from(pages)],
        async |p: &Process, iommufd, ioas, iova, pages: u32| iommufd::iommufd_ioas_unmap(
            &p.t, p.files, iommufd, ioas, iova, u64::from(pages) << 12).await;
    /// Allocates a paging HWPT for a bound device; its object id.
    hwpt_alloc(iommufd: i32, device: i32, ioas: i32) -> i32 = HwptAlloc, [device as u64, ioas as u64],
        async |p: &Process, iommufd, device, ioas| iommufd::iommufd_hwpt_alloc(&p.t, p.files, iommufd, device, ioas).await;
    /// Marks a HWPT for preservation.
    hwpt_mark(iommufd: i32, hwpt: i32, token: u64) -> Errno = HwptMark, [hwpt as u64, token],
        async |p: &Process, iommufd, hwpt, token| iommufd::iommufd_hwpt_set_preserve(&p.t, p.files, iommufd, hwpt, token).await;
    /// Wraps the restored domain of `token` (second phase, assumed).
    hwpt_restore(iommufd: i32, token: u64) -> i32 = HwptRestore, [iommufd as u64, token],
        async |p: &Process, iommufd, token| iommufd::iommufd_hwpt_restore(&p.t, p.files, iommufd, token).await;
    /// Destroys an object of iommufd.
    iommufd_destroy(iommufd: i32, id: i32) -> Errno = IommufdDestroy, [iommufd as u64, id as u64],
        async |p: &Process, iommufd, id| iommufd::iommufd_destroy(&p.t, p.files, iommufd, id).await;
    /// Opens a VFIO device.
    vfio_open(bdf: Bdf) -> i32 = VfioOpen, [u64::from(bdf.0), 0],
        async |p: &Process, bdf| vfio::sys_vfio_open(&p.t, p.files, bdf).await;
    /// Binds a VFIO device to an iommufd; the device's object id.
    vfio_bind(vfio: i32, iommufd: i32) -> i32 = VfioBind, [vfio as u64, iommufd as u64],
        async |p: &Process, vfio, iommufd| vfio::vfio_bind_iommufd(&p.t, p.files, vfio, iommufd).await;
    /// Attaches a VFIO device to a HWPT.
    vfio_attach(vfio: i32, hwpt: i32) -> Errno = VfioAttach, [vfio as u64, hwpt as u64],
        async |p: &Process, vfio, hwpt| vfio::vfio_attach(&p.t, p.files, vfio, hwpt).await;
    /// Replaces the HWPT of an attached VFIO device.
    vfio_replace(vfio: i32, hwpt: i32) -> Errno = VfioReplace, [vfio as u64, hwpt as u64],
        async |p: &Process, vfio, hwpt| vfio::vfio_attach(&p.t, p.files, vfio, hwpt).await;
    /// Detaches a VFIO device from its HWPT.
    vfio_detach(vfio: i32) -> Errno = VfioDetach, [vfio as u64, 0],
        async |p: &Process, vfio| vfio::vfio_detach(&p.t, p.files, vfio).await;
    /// Loads the next kernel.
    kexec_load() -> Errno = KexecLoad, [0, 0],
        async |p: &Process| kexec::sys_kexec_file_load(&p.t).await;
    /// Reboots into the loaded kernel; returns only with an error.
    reboot() -> Errno = Reboot, [0, 0],
        async |p: &Process| kexec::sys_reboot_kexec(&p.t).await;
}
