//! `struct file`, reference counts and descriptor tables.
//!
//! Assumed: the lock-free look-up of `fget` (RCU, take a reference, look again) is modelled by taking the table's spinlock; the
//! release of the last reference runs at once in `fput`, where the kernel defers it to the return to user mode of the same task.

use sim::memory::{Field, Ptr, field};
use sim::sync::{Refcount, SpinLock};

use super::mm::{Gfp, callee_fails, kfree, kzalloc};
use super::{Task, iommufd, luo, memfd, vfio};
use crate::callee;
use crate::errno::{EBADF, EMFILE, Errno};
use crate::tag;

/// What a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum FileKind {
    /// A memfd; private data is its inode.
    Memfd = 1,
    /// An iommufd context.
    Iommufd = 2,
    /// A VFIO device.
    VfioCdev = 3,
    /// A LUO session.
    LuoSession = 4,
}

/// `struct file`.
#[derive(Clone, Copy, Debug)]
pub struct File;

impl File {
    /// References.
    pub const F_COUNT: Field<Refcount> = field(0, "f_count");
    /// [`FileKind`]: stands for `f_op`.
    pub const KIND: Field<u64> = field(8, "f_op");
    /// What the kind keeps.
    pub const PRIVATE_DATA: Field<u64> = field(16, "private_data");
    /// Position.
    pub const F_POS: Field<u64> = field(24, "f_pos");
    /// Bytes.
    pub const BYTES: u16 = 32;
}

/// `struct files_struct`: one process's descriptor table.
#[derive(Clone, Copy, Debug)]
pub struct Files;

impl Files {
    /// `file_lock`.
    pub const LOCK: Field<SpinLock> = field(0, "file_lock");
    /// First word of the table.
    const FDT: Field<Ptr<File>> = field(8, "fdt");
    /// Descriptors of a process.
    pub const NR_OPEN: u64 = 31;
    /// Bytes.
    pub const BYTES: u16 = 256;
    /// Stands in the slot of a descriptor that is reserved and has no file yet.
    const RESERVED: u64 = 1;

    fn slot(files: Ptr<Files>, fd: u64) -> Ptr<Ptr<File>> {
        files.at(Files::FDT).byte_add(fd * 8)
    }
}

/// A new, empty table (`dup_fd` of nothing), or NULL.
pub async fn alloc_files(t: &Task) -> Ptr<Files> {
    let files = kzalloc::<Files>(t, Files::BYTES, Gfp::Kernel, tag::FD_TABLE).await;
    if files.is_null() {
        return files;
    }
    t.init_lock(files.at(Files::LOCK)).await;
    files
}

/// `copy_to_user()`: true when it failed.
pub fn copy_to_user_fails(t: &Task) -> bool {
    callee_fails(t, callee::COPY_USER)
}

/// `alloc_file_pseudo()`: a file with one reference, or NULL.
pub async fn alloc_file(t: &Task, kind: FileKind, private_data: u64) -> Ptr<File> {
    let file = kzalloc::<File>(t, File::BYTES, Gfp::Kernel, tag::FILE).await;
    if file.is_null() {
        return file;
    }
    t.refcount_set(file.at(File::F_COUNT), 1).await;
    t.write(file.at(File::KIND), kind as u64).await;
    t.write(file.at(File::PRIVATE_DATA), private_data).await;
    file
}

/// The kind of a file, by `f_op`.
pub async fn file_kind(t: &Task, file: Ptr<File>) -> Option<FileKind> {
    match t.read(file.at(File::KIND)).await {
        1 => Some(FileKind::Memfd),
        2 => Some(FileKind::Iommufd),
        3 => Some(FileKind::VfioCdev),
        4 => Some(FileKind::LuoSession),
        _ => None,
    }
}

/// `get_file()`: one more reference.
pub async fn get_file(t: &Task, file: Ptr<File>) {
    let live = t.refcount_inc(file.at(File::F_COUNT)).await;
    t.warn_on(!live, "get_file of a released file");
}

/// `fget()`, fs/file.c: the file of a descriptor with a reference, or NULL.
pub async fn fget(t: &Task, files: Ptr<Files>, fd: i32) -> Ptr<File> {
    if fd < 0 || fd as u64 >= Files::NR_OPEN {
        return Ptr::NULL;
    }
    t.spin_lock(files.at(Files::LOCK)).await;
    let mut file = t.read(Files::slot(files, fd as u64)).await;
    if file.value() == Files::RESERVED || (!file.is_null() && !t.refcount_inc_not_zero(file.at(File::F_COUNT)).await) {
        file = Ptr::NULL;
    }
    t.spin_unlock(files.at(Files::LOCK)).await;
    file
}

/// `fget()` that insists on a kind: NULL also when the file is another kind, whose reference is put again.
pub async fn fget_kind(t: &Task, files: Ptr<Files>, fd: i32, kind: FileKind) -> Ptr<File> {
    let file = fget(t, files, fd).await;
    if file.is_null() {
        return file;
    }
    if file_kind(t, file).await != Some(kind) {
        fput(t, file).await;
        return Ptr::NULL;
    }
    file
}

/// `fput()`: drops a reference; the last one releases the file.
pub async fn fput(t: &Task, file: Ptr<File>) {
    match t.refcount_dec_and_test(file.at(File::F_COUNT)).await {
        Ok(true) => {}
        Ok(false) => return,
        Err(_) => {
            t.warn_on(true, "fput of a released file");
            return;
        }
    }
    // Releases put other files: the one place where calls nest without bound in the type system.
    Box::pin(__fput(t, file)).await;
}

/// `__fput()`, fs/file_table.c: `f_op->release`, then the file itself.
async fn __fput(t: &Task, file: Ptr<File>) {
    match file_kind(t, file).await {
        Some(FileKind::Memfd) => memfd::shmem_release(t, file).await,
        Some(FileKind::Iommufd) => iommufd::iommufd_fops_release(t, file).await,
        Some(FileKind::VfioCdev) => vfio::vfio_device_fops_release(t, file).await,
        Some(FileKind::LuoSession) => luo::session::luo_session_release(t, file).await,
        None => {
            t.warn_on(true, "file without operations");
        }
    }
    kfree(t, file).await;
}

/// `get_unused_fd_flags()`: reserves a descriptor, or -EMFILE.
pub async fn get_unused_fd(t: &Task, files: Ptr<Files>) -> i32 {
    t.spin_lock(files.at(Files::LOCK)).await;
    let mut fd = 0;
    while fd < Files::NR_OPEN && !t.read(Files::slot(files, fd)).await.is_null() {
        fd += 1;
    }
    if fd < Files::NR_OPEN {
        t.write(Files::slot(files, fd), Ptr::new(Files::RESERVED)).await;
    }
    t.spin_unlock(files.at(Files::LOCK)).await;
    if fd < Files::NR_OPEN { fd as i32 } else { EMFILE }
}

/// `put_unused_fd()`: gives a reserved descriptor back.
pub async fn put_unused_fd(t: &Task, files: Ptr<Files>, fd: i32) {
    t.spin_lock(files.at(Files::LOCK)).await;
    t.write(Files::slot(files, fd as u64), Ptr::NULL).await;
    t.spin_unlock(files.at(Files::LOCK)).await;
}

/// `fd_install()`: the descriptor names the file from now on and owns the caller's reference.
pub async fn fd_install(t: &Task, files: Ptr<Files>, fd: i32, file: Ptr<File>) {
    t.spin_lock(files.at(Files::LOCK)).await;
    t.store_release(Files::slot(files, fd as u64), file).await;
    t.spin_unlock(files.at(Files::LOCK)).await;
}

/// `close_fd()` (close(2)): -EBADF for a descriptor that names nothing.
pub async fn close_fd(t: &Task, files: Ptr<Files>, fd: i32) -> Errno {
    let _in = t.call("close_fd");
    if fd < 0 || fd as u64 >= Files::NR_OPEN {
        return EBADF;
    }
    t.spin_lock(files.at(Files::LOCK)).await;
    let mut file = t.read(Files::slot(files, fd as u64)).await;
    if file.value() == Files::RESERVED {
        file = Ptr::NULL;
    }
    if !file.is_null() {
        t.write(Files::slot(files, fd as u64), Ptr::NULL).await;
    }
    t.spin_unlock(files.at(Files::LOCK)).await;
    if file.is_null() {
        return EBADF;
    }
    fput(t, file).await;
    0
}

/// dup(2): another descriptor of the same file.
pub async fn sys_dup(t: &Task, files: Ptr<Files>, fd: i32) -> i32 {
    let file = fget(t, files, fd).await;
    if file.is_null() {
        return EBADF;
    }
    let new = get_unused_fd(t, files).await;
    if new < 0 {
        fput(t, file).await;
        return new;
    }
    fd_install(t, files, new, file).await;
    new
}

/// `exit_files()`: closes every descriptor of a process in ascending order, then frees the table.
pub async fn exit_files(t: &Task, files: Ptr<Files>) {
    for fd in 0..Files::NR_OPEN {
        let file = t.read(Files::slot(files, fd)).await;
        if !file.is_null() && file.value() != Files::RESERVED {
            close_fd(t, files, fd as i32).await;
        }
    }
    kfree(t, files).await;
}
