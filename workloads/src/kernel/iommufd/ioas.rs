//! `struct iommufd_ioas`: `drivers/iommu/iommufd/ioas.c`, the ioctls of an address space.

use iommu_model::addr::{Iova, PAGE_SIZE};
use sim::memory::{Field, Ptr, field};
use sim::sync::Mutex;

use super::io_pagetable::{IoPagetable, iopt_init_table, iopt_map_pages, iopt_unmap_iova_range};
use super::object::{
    Object, ObjectType, iommufd_get_object, iommufd_object_abort, iommufd_object_alloc, iommufd_object_finalize, iommufd_put_object,
};
use super::pages::iopt_alloc_file_pages;
use super::{IommufdCtx, iommufd_ctx_from_fd, iommufd_ctx_put};
use crate::errno::{EBADF, EFAULT, EINVAL, ENOENT, EOVERFLOW, Errno};
use crate::kernel::Task;
use crate::kernel::file::{FileKind, Files, copy_to_user_fails, fget, file_kind, fput};
use crate::kernel::iommu::IOMMU_WRITE;
use crate::kernel::mm::list::{self, ListHead};
use crate::tag;

/// `struct iommufd_ioas`.
#[derive(Clone, Copy, Debug)]
pub struct Ioas;

impl Ioas {
    /// `obj`.
    pub const OBJ: Field<Object> = field(0, "ioas.obj");
    /// `mutex`: protects `hwpt_list`, held while a HWPT is made.
    pub const MUTEX: Field<Mutex> = field(16, "ioas.mutex");
    /// `hwpt_list`.
    pub const HWPT_LIST: Field<ListHead> = field(24, "ioas.hwpt_list");
    /// `iopt`.
    pub const IOPT: Field<IoPagetable> = field(40, "ioas.iopt");
    const BYTES: u16 = 40 + IoPagetable::BYTES;
}

/// `IOMMU_IOAS_ALLOC`, `iommufd_ioas_alloc_ioctl()`: the id or an error.
pub async fn iommufd_ioas_alloc(t: &Task, files: Ptr<Files>, fd: i32) -> i32 {
    let _in = t.call("iommufd_ioas_alloc_ioctl");
    let ictx = iommufd_ctx_from_fd(t, files, fd).await;
    if let Some(errno) = ictx.errno() {
        return -errno;
    }
    let rc = 'out: {
        let ioas: Ptr<Ioas> = iommufd_object_alloc(t, ictx, Ioas::BYTES, ObjectType::Ioas, tag::IOAS).await;
        if let Some(errno) = ioas.errno() {
            break 'out -errno;
        }
        iopt_init_table(t, ioas.at(Ioas::IOPT)).await;
        list::init(t, ioas.at(Ioas::HWPT_LIST)).await;
        t.init_lock(ioas.at(Ioas::MUTEX)).await;
        let id = t.read(ioas.at(Ioas::OBJ).at(Object::ID)).await;
        if copy_to_user_fails(t) {
            iommufd_object_abort(t, ictx, ioas.at(Ioas::OBJ)).await;
            break 'out EFAULT;
        }
        iommufd_object_finalize(t, ictx, ioas.at(Ioas::OBJ)).await;
        id as i32
    };
    iommufd_ctx_put(t, ictx).await;
    rc
}

/// `iommufd_ioas_destroy()`: nothing holds the address space any more.
pub async fn iommufd_ioas_destroy(t: &Task, ioas: Ptr<Ioas>) {
    let _in = t.call("iommufd_ioas_destroy");
    let (rc, _) = iopt_unmap_iova_range(t, ioas.at(Ioas::IOPT), 0, u64::MAX).await;
    t.warn_on(rc != 0 && rc != ENOENT, "iommufd_ioas_destroy");
}

/// `iommufd_get_ioas()`. ERR pointer when `id` is not an address space.
pub async fn iommufd_get_ioas(t: &Task, ictx: Ptr<IommufdCtx>, id: i32) -> Ptr<Ioas> {
    iommufd_get_object(t, ictx, id as u32, ObjectType::Ioas).await
}

/// `struct iommu_ioas_map_file`. The offset must be a multiple of 4096 here, a limit of this model.
#[derive(Clone, Copy, Debug)]
struct MapFile {
    memfd: i32,
    offset: u64,
    bytes: u64,
    iova: Iova,
    prot: u8,
}

/// `IOMMU_IOAS_MAP_FILE` with `IOMMU_IOAS_MAP_FIXED_IOVA`, `iommufd_ioas_map_file()`. When copying the result fails, the mapping stays.
#[expect(clippy::too_many_arguments, reason = "the members of the ioctl's structure")]
pub async fn iommufd_ioas_map_file(
    t: &Task,
    files: Ptr<Files>,
    fd: i32,
    ioas_id: i32,
    memfd: i32,
    offset: u64,
    bytes: u64,
    iova: Iova,
    prot: u8,
) -> Errno {
    let _in = t.call("iommufd_ioas_map_file");
    let map = MapFile { memfd, offset, bytes, iova, prot };
    let ictx = iommufd_ctx_from_fd(t, files, fd).await;
    if let Some(errno) = ictx.errno() {
        return -errno;
    }
    let rc = 'out: {
        if map.iova.0.checked_add(map.bytes).is_none() {
            break 'out EOVERFLOW;
        }
        if map.prot == 0 || !map.offset.is_multiple_of(PAGE_SIZE) {
            break 'out EINVAL;
        }
        let ioas = iommufd_get_ioas(t, ictx, ioas_id).await;
        if let Some(errno) = ioas.errno() {
            break 'out -errno;
        }
        let mut rc = iopt_map_file_pages(t, files, ioas.at(Ioas::IOPT), map).await;
        if rc == 0 && copy_to_user_fails(t) {
            rc = EFAULT;
        }
        iommufd_put_object(t, ictx, ioas.at(Ioas::OBJ)).await;
        rc
    };
    iommufd_ctx_put(t, ictx).await;
    rc
}

/// `iopt_map_file_pages()`, io_pagetable.c.
async fn iopt_map_file_pages(t: &Task, files: Ptr<Files>, iopt: Ptr<IoPagetable>, map: MapFile) -> Errno {
    let file = fget(t, files, map.memfd).await;
    if file.is_null() {
        return EBADF;
    }
    if file_kind(t, file).await != Some(FileKind::Memfd) {
        fput(t, file).await;
        return EINVAL;
    }
    let pages = iopt_alloc_file_pages(t, file, map.offset, map.bytes, map.prot & IOMMU_WRITE != 0).await;
    fput(t, file).await;
    if let Some(errno) = pages.errno() {
        return -errno;
    }
    iopt_map_pages(t, iopt, pages, map.bytes, map.iova, map.prot).await
}

/// `IOMMU_IOAS_UNMAP`, `iommufd_ioas_unmap()`: all areas inside the range. `iova` 0 with `bytes` of `u64::MAX` means everything. Returns
/// the bytes unmapped, too, which the ioctl reports on success only.
pub async fn iommufd_ioas_unmap(t: &Task, files: Ptr<Files>, fd: i32, ioas_id: i32, iova: Iova, bytes: u64) -> (Errno, u64) {
    let _in = t.call("iommufd_ioas_unmap");
    let ictx = iommufd_ctx_from_fd(t, files, fd).await;
    if let Some(errno) = ictx.errno() {
        return (-errno, 0);
    }
    let ioas = iommufd_get_ioas(t, ictx, ioas_id).await;
    if let Some(errno) = ioas.errno() {
        iommufd_ctx_put(t, ictx).await;
        return (-errno, 0);
    }
    let iopt = ioas.at(Ioas::IOPT);
    let mut rc;
    let mut unmapped = 0;
    if iova.0 == 0 && bytes == u64::MAX {
        (rc, unmapped) = iopt_unmap_iova_range(t, iopt, 0, u64::MAX).await;
        if rc == ENOENT {
            rc = 0;
        }
    } else if bytes == 0 {
        rc = EINVAL;
    } else if let Some(last) = iova.0.checked_add(bytes - 1) {
        (rc, unmapped) = iopt_unmap_iova_range(t, iopt, iova.0, last).await;
        if rc == 0 && unmapped == 0 {
            rc = ENOENT;
        }
    } else {
        rc = EOVERFLOW;
    }
    if rc == 0 && copy_to_user_fails(t) {
        rc = EFAULT;
    }
    iommufd_put_object(t, ictx, ioas.at(Ioas::OBJ)).await;
    iommufd_ctx_put(t, ictx).await;
    (rc, unmapped)
}
