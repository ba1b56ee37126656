//! iommufd: `drivers/iommu/iommufd/`, mainline of 7.x with the live-update patches of the IOMMU series.
//!
//! | file | models |
//! | --- | --- |
//! | `mod` | main.c: context, open, release, `IOMMU_DESTROY` |
//! | [`object`] | main.c: object table, counts, look-up, destroy |
//! | [`ioas`] | ioas.c: the ioctls of an address space |
//! | [`io_pagetable`] | io_pagetable.c: areas, map, unmap, immutability |
//! | [`iopt_domain`] | io_pagetable.c: domains come and go |
//! | [`pages`], [`batch`] | pages.c: pinning, filling and unfilling |
//! | [`hwpt`] | hw_pagetable.c |
//! | [`device`] | device.c |
//! | [`liveupdate`] | liveupdate.c: mark, preserve, unpreserve |
//! | [`reclaim`] | the RFC's second phase; assumed code |
//!
//! Lock order: liveupdate_mutex, igroup lock, ioas mutex, domains_rwsem, iova_rwsem, pages mutex; `xa_lock` is a spinlock and inside
//! all of them. The session mutex of LUO is outside.
//!
//! | modelled | not modelled |
//! | --- | --- |
//! | IOAS, paging HWPT, device objects | auto domains, nested HWPT, vIOMMU, faults, noiommu |
//! | `IOAS_MAP_FILE` from a memfd to a fixed IOVA | user memory, dma-buf, IOVA allocation, `IOAS_COPY`, allowed and reserved ranges |
//! | one area for each pages object | splitting, accesses (`num_accesses` stays 0), so no xarray of pinned pfns |
//! | groups of one device, RID attachment | PASID attachment |
//! | charge of locked memory, as a call that can fail | dirty tracking |

pub mod batch;
pub mod device;
pub mod hwpt;
pub mod io_pagetable;
pub mod ioas;
pub mod iopt_domain;
pub mod liveupdate;
pub mod object;
pub mod pages;
pub mod reclaim;

use sim::memory::{Field, Ptr, field};
use sim::sync::{Mutex, SpinLock, WaitQueue};

use super::Task;
use super::file::{self, File, FileKind, Files};
use super::mm::{Gfp, kfree, kzalloc};
use crate::abi::iommufd::IommufdSer;
use crate::errno::{EBADF, ENOMEM, Errno};
use crate::tag;
use object::{Object, XaNode};

pub use hwpt::iommufd_hwpt_alloc;
pub use ioas::{iommufd_ioas_alloc, iommufd_ioas_map_file, iommufd_ioas_unmap};
pub use liveupdate::iommufd_hwpt_set_preserve;
pub use reclaim::iommufd_hwpt_restore;

/// `struct iommufd_ctx`.
#[derive(Clone, Copy, Debug)]
pub struct IommufdCtx;

impl IommufdCtx {
    /// `file`: holding the context is holding its file.
    pub const FILE: Field<Ptr<File>> = field(0, "ictx.file");
    /// `objects.xa_lock`.
    pub const XA_LOCK: Field<SpinLock> = field(8, "ictx.objects.xa_lock");
    /// `objects.xa_head`.
    pub const XA_HEAD: Field<Ptr<XaNode>> = field(16, "ictx.objects.xa_head");
    /// `destroy_wait`.
    pub const DESTROY_WAIT: Field<WaitQueue> = field(24, "ictx.destroy_wait");
    /// `liveupdate_mutex`: marks and preserve exclude each other.
    pub const LIVEUPDATE_MUTEX: Field<Mutex> = field(32, "ictx.liveupdate_mutex");
    /// Header of the outgoing kernel this context was retrieved from, or NULL (assumed, [`reclaim`] only).
    pub const INCOMING_SER: Field<Ptr<IommufdSer>> = field(40, "ictx.incoming_ser");
    /// Bitmap of its entries that userspace has reclaimed (assumed, [`reclaim`] only).
    pub const RECLAIMED: Field<u64> = field(48, "ictx.reclaimed");
    const BYTES: u16 = 56;
}

/// `iommufd_fops_open()`, main.c, as an anonymous file: the context and its file. ERR pointer on failure.
pub async fn iommufd_fops_open(t: &Task) -> Ptr<File> {
    let _in = t.call("iommufd_fops_open");
    let ictx: Ptr<IommufdCtx> = kzalloc(t, IommufdCtx::BYTES, Gfp::Kernel, tag::IOMMUFD_CTX).await;
    if ictx.is_null() {
        return Ptr::err(-ENOMEM);
    }
    t.init_lock(ictx.at(IommufdCtx::XA_LOCK)).await;
    t.init_lock(ictx.at(IommufdCtx::LIVEUPDATE_MUTEX)).await;
    let filp = file::alloc_file(t, FileKind::Iommufd, ictx.value()).await;
    if filp.is_null() {
        kfree(t, ictx).await;
        return Ptr::err(-ENOMEM);
    }
    t.write(ictx.at(IommufdCtx::FILE), filp).await;
    filp
}

/// `open("/dev/iommu")`: a file descriptor or an error.
pub async fn sys_iommufd_open(t: &Task, files: Ptr<Files>) -> i32 {
    let fd = file::get_unused_fd(t, files).await;
    if fd < 0 {
        return fd;
    }
    let filp = iommufd_fops_open(t).await;
    if let Some(errno) = filp.errno() {
        file::put_unused_fd(t, files, fd).await;
        return -errno;
    }
    file::fd_install(t, files, fd, filp).await;
    fd
}

/// `iommufd_fops_release()`, main.c: the last reference to the file is gone.
pub async fn iommufd_fops_release(t: &Task, filp: Ptr<File>) {
    let _in = t.call("iommufd_fops_release");
    let ictx = iommufd_ctx(t, filp).await;
    object::iommufd_object_destroy_all(t, ictx).await;
    kfree(t, ictx).await;
}

/// The context of an iommufd file.
pub async fn iommufd_ctx(t: &Task, filp: Ptr<File>) -> Ptr<IommufdCtx> {
    Ptr::new(t.read(filp.at(File::PRIVATE_DATA)).await)
}

/// `iommufd_ctx_from_fd()`, main.c, and the look-up of every ioctl: holds the file. ERR pointer when `fd` is not an iommufd.
pub async fn iommufd_ctx_from_fd(t: &Task, files: Ptr<Files>, fd: i32) -> Ptr<IommufdCtx> {
    let filp = file::fget_kind(t, files, fd, FileKind::Iommufd).await;
    if filp.is_null() {
        return Ptr::err(-EBADF);
    }
    iommufd_ctx(t, filp).await
}

/// `iommufd_ctx_get()`.
pub async fn iommufd_ctx_get(t: &Task, ictx: Ptr<IommufdCtx>) {
    let filp = t.read(ictx.at(IommufdCtx::FILE)).await;
    file::get_file(t, filp).await;
}

/// `iommufd_ctx_put()`.
pub async fn iommufd_ctx_put(t: &Task, ictx: Ptr<IommufdCtx>) {
    let filp = t.read(ictx.at(IommufdCtx::FILE)).await;
    file::fput(t, filp).await;
}

/// `IOMMU_DESTROY`, main.c `iommufd_destroy()`.
pub async fn iommufd_destroy(t: &Task, files: Ptr<Files>, fd: i32, id: i32) -> Errno {
    let _in = t.call("iommufd_destroy");
    let ictx = iommufd_ctx_from_fd(t, files, fd).await;
    if let Some(errno) = ictx.errno() {
        return -errno;
    }
    let rc = object::iommufd_object_remove(t, ictx, Ptr::<Object>::NULL, id as u32).await;
    iommufd_ctx_put(t, ictx).await;
    rc
}
