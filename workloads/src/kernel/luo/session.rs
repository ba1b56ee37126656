//! Sessions: the user interface of LUO, and the lists of outgoing and incoming sessions.
//!
//! [`revision::Luo::Guarded`]: changes take the outgoing rwsem for reading and are refused while `rebooting`; a close sleeps
//! until a refused reboot is over. [`revision::Luo::Unguarded`]: nothing of this, and an incoming session is used after the list
//! lock that kept it was dropped.
//!
//! Source: kernel/liveupdate/luo_session.c and luo_core.c, mainline 7.0/7.1 and linux-mm, mid 2026.

use sim::memory::{Field, Ptr};

use super::super::Task;
use super::super::file::{
    File, FileKind, Files, alloc_file, copy_to_user_fails, fd_install, fget_kind, fput, get_unused_fd, put_unused_fd,
};
use super::super::kho_block::{kho_block_set_grow, kho_block_set_shrink};
use super::super::mm::list::{self, ListHead};
use super::super::mm::{Gfp, callee_fails, kfree, kzalloc};
use super::file::{luo_file_finish, luo_file_set_init, luo_file_unpreserve_files, luo_preserve_file, luo_retrieve_file};
use super::incoming::luo_session_deserialize;
use super::{
    DEVICE_CLOSED, DEVICE_OPEN, DEVICE_OPENING, FileSet, Luo, SECTION, Session, SessionHeader, header, liveupdate_enabled, session_of,
};
use crate::abi::luo as abi;
use crate::callee;
use crate::errno::{EBADF, EBUSY, EEXIST, EFAULT, EINVAL, EIO, ENOENT, ENOMEM, EOPNOTSUPP, Errno};
use crate::mark::Mark;
use crate::revision;
use crate::tag;

/// `char name[64]` on a caller's stack.
pub(super) type Name = [u64; 8];

/// The name that a number given by userspace stands for: "session-<number>".
pub(super) fn session_name(number: u64) -> Name {
    let text = format!("session-{number}");
    std::array::from_fn(|index| super::file::text_word(&text, index as u64))
}

fn ends_here(word: u64) -> bool {
    word.to_le_bytes().contains(&0)
}

/// `!strncmp(session->name, name)`.
async fn name_is(t: &Task, session: Ptr<Session>, name: &Name) -> bool {
    for (index, wanted) in name.iter().enumerate() {
        if t.read(session.at(Session::NAME).byte_add::<u64>(index as u64 * 8)).await != *wanted {
            return false;
        }
        if ends_here(*wanted) {
            return true;
        }
    }
    true
}

/// `strscpy()` of a name into zeroed memory.
pub(super) async fn put_name<T>(t: &Task, at: Ptr<T>, name: &Name) {
    for (index, word) in name.iter().enumerate() {
        t.write(at.byte_add::<u64>(index as u64 * 8), *word).await;
        if ends_here(*word) {
            return;
        }
    }
}

/// Reads a name from memory.
pub(super) async fn get_name<T>(t: &Task, at: Ptr<T>) -> Name {
    let mut name = [0; 8];
    for (index, word) in name.iter_mut().enumerate() {
        *word = t.read(at.byte_add::<u64>(index as u64 * 8)).await;
        if ends_here(*word) {
            break;
        }
    }
    name
}

pub(super) fn session_at(link: Ptr<ListHead>) -> Ptr<Session> {
    list::entry(link, Session::LIST)
}

/// `luo_session_alloc()`: a session on no list, or NULL.
pub(super) async fn luo_session_alloc(t: &Task, name: &Name, incoming: bool) -> Ptr<Session> {
    let session = kzalloc::<Session>(t, Session::BYTES, Gfp::Kernel, tag::LUO_SESSION).await;
    if session.is_null() {
        return session;
    }
    put_name(t, session.at(Session::NAME), name).await;
    list::init(t, session.at(Session::LIST)).await;
    t.init_lock(session.at(Session::MUTEX)).await;
    luo_file_set_init(t, session, incoming).await;
    session
}

/// `luo_session_free()`.
pub(super) async fn luo_session_free(t: &Task, session: Ptr<Session>) {
    let count = t.read(session.at(Session::FILE_SET).at(FileSet::COUNT)).await;
    t.warn_on(count != 0, "luo_session_free: files left");
    kfree(t, session).await;
}

/// `luo_session_insert()`: -EEXIST for a name in use; outgoing: -ENOMEM when the array is full or cannot grow, -EBUSY during reboot.
pub(super) async fn luo_session_insert(
    t: &Task,
    direction: Field<SessionHeader>,
    outgoing: bool,
    session: Ptr<Session>,
    name: &Name,
) -> Errno {
    let rwsem = header(t, direction, SessionHeader::RWSEM);
    let head = header(t, direction, SessionHeader::LIST);
    let counter = header(t, direction, SessionHeader::COUNT);
    t.down_write(rwsem).await;
    let count = t.read(counter).await;
    let mut err = 0;
    if outgoing {
        err = match t.k.rev.luo {
            revision::Luo::Unguarded if count == abi::SESSION_MAX => ENOMEM,
            revision::Luo::Unguarded => 0,
            revision::Luo::Guarded if t.read(header(t, direction, SessionHeader::REBOOTING)).await != 0 => EBUSY,
            revision::Luo::Guarded => 0,
        };
    }
    if err == 0 {
        let mut at = list::first(t, head).await;
        while let Some(link) = at {
            if name_is(t, session_at(link), name).await {
                err = EEXIST;
                break;
            }
            at = list::next(t, link, head).await;
        }
    }
    if err == 0 && outgoing && t.k.rev.luo == revision::Luo::Guarded {
        err = kho_block_set_grow(t, header(t, direction, SessionHeader::BLOCKS), count + 1).await;
    }
    if err == 0 {
        list::add_tail(t, session.at(Session::LIST), head).await;
        t.write(counter, count + 1).await;
    }
    t.up_write(rwsem).await;
    err
}

/// `luo_session_remove()`. Assumed for the guarded generation: an outgoing session that was serialised meanwhile, without files,
/// stays until the reboot is refused, as its files would have.
async fn luo_session_remove(t: &Task, direction: Field<SessionHeader>, outgoing: bool, session: Ptr<Session>) {
    let rwsem = header(t, direction, SessionHeader::RWSEM);
    let counter = header(t, direction, SessionHeader::COUNT);
    t.down_write(rwsem).await;
    if outgoing && t.k.rev.luo == revision::Luo::Guarded {
        let rebooting = header(t, direction, SessionHeader::REBOOTING);
        while t.read(rebooting).await != 0 {
            t.up_write(rwsem).await;
            luo_wait_no_reboot(t).await;
            t.down_write(rwsem).await;
        }
    }
    list::del(t, session.at(Session::LIST)).await;
    let count = t.read(counter).await.wrapping_sub(1);
    t.write(counter, count).await;
    if outgoing && t.k.rev.luo == revision::Luo::Guarded {
        kho_block_set_shrink(t, header(t, direction, SessionHeader::BLOCKS), count).await;
    }
    t.up_write(rwsem).await;
}

/// `wait_event(sh->reboot_waitq, !sh->rebooting)`.
async fn luo_wait_no_reboot(t: &Task) {
    while t.read_once(header(t, Luo::OUTGOING, SessionHeader::REBOOTING)).await != 0 {
        t.sleep_on(header(t, Luo::OUTGOING, SessionHeader::WAIT)).await;
    }
}

/// `luo_session_getfile()`: a file for the session, which owns it from now on; NULL on failure.
async fn luo_session_getfile(t: &Task, session: Ptr<Session>) -> Ptr<File> {
    if callee_fails(t, callee::ANON_INODE) {
        return Ptr::NULL;
    }
    alloc_file(t, FileKind::LuoSession, session.value()).await
}

/// `luo_session_create()`.
async fn luo_session_create(t: &Task, name: &Name) -> (Errno, Ptr<File>) {
    let session = luo_session_alloc(t, name, false).await;
    if session.is_null() {
        return (ENOMEM, Ptr::NULL);
    }
    let err = luo_session_insert(t, Luo::OUTGOING, true, session, name).await;
    if err != 0 {
        luo_session_free(t, session).await;
        return (err, Ptr::NULL);
    }
    t.mutex_lock(session.at(Session::MUTEX)).await;
    let file = luo_session_getfile(t, session).await;
    t.mutex_unlock(session.at(Session::MUTEX)).await;
    if file.is_null() {
        luo_session_remove(t, Luo::OUTGOING, true, session).await;
        luo_session_free(t, session).await;
        return (ENOMEM, file);
    }
    (0, file)
}

/// `luo_session_retrieve()`: an incoming session by name, once.
async fn luo_session_retrieve(t: &Task, name: &Name) -> (Errno, Ptr<File>) {
    let rwsem = header(t, Luo::INCOMING, SessionHeader::RWSEM);
    let head = header(t, Luo::INCOMING, SessionHeader::LIST);
    t.down_read(rwsem).await;
    let mut session = Ptr::<Session>::NULL;
    let mut at = list::first(t, head).await;
    while let Some(link) = at {
        if name_is(t, session_at(link), name).await {
            session = session_at(link);
            break;
        }
        at = list::next(t, link, head).await;
    }
    if session.is_null() {
        t.up_read(rwsem).await;
        return (ENOENT, Ptr::NULL);
    }
    // Fixed by d3ae9e7fddb4 (7.2): before, the session could go away between these two lines.
    match t.k.rev.luo {
        revision::Luo::Unguarded => {
            t.up_read(rwsem).await;
            t.mutex_lock(session.at(Session::MUTEX)).await;
        }
        revision::Luo::Guarded => {
            t.mutex_lock(session.at(Session::MUTEX)).await;
            t.up_read(rwsem).await;
        }
    }
    let mut file = Ptr::NULL;
    let mut err = 0;
    if t.read(session.at(Session::RETRIEVED)).await != 0 {
        err = EINVAL;
    } else {
        file = luo_session_getfile(t, session).await;
        if file.is_null() {
            err = ENOMEM;
        } else {
            t.write(session.at(Session::RETRIEVED), 1).await;
        }
    }
    t.mutex_unlock(session.at(Session::MUTEX)).await;
    (err, file)
}

/// `luo_open()`: /dev/liveupdate has one opener; the first open of a kernel deserialises. An error of that is kept for ever.
pub async fn luo_open(t: &Task) -> Errno {
    let _in = t.call("luo_open");
    if !liveupdate_enabled(t).await {
        return EOPNOTSUPP;
    }
    let device = t.sym(SECTION, Luo::DEVICE);
    if t.cmpxchg(device, DEVICE_CLOSED, DEVICE_OPENING).await != DEVICE_CLOSED {
        return EBUSY;
    }
    if luo_session_deserialize(t).await != 0 {
        t.store_release(device, DEVICE_CLOSED).await;
        return EIO;
    }
    t.store_release(device, DEVICE_OPEN).await;
    0
}

/// `luo_release()`: the opener is gone.
pub async fn luo_release(t: &Task) {
    t.store_release(t.sym(SECTION, Luo::DEVICE), DEVICE_CLOSED).await;
}

/// The daemon's side of a request: it opens the device when the first request comes and keeps it. Requests that come while the
/// open call is under way wait for it.
async fn luo_device(t: &Task) -> Errno {
    let device = t.sym(SECTION, Luo::DEVICE);
    loop {
        if t.spin_until(device, |state| state != DEVICE_OPENING).await == DEVICE_OPEN {
            return 0;
        }
        let err = luo_open(t).await;
        if err != EBUSY {
            return err;
        }
    }
}

/// Fills the descriptor of a session file, or gives everything back: the common end of both ioctls on the device.
async fn luo_install(t: &Task, files: Ptr<Files>, fd: i32, err: Errno, file: Ptr<File>) -> i32 {
    if err != 0 {
        put_unused_fd(t, files, fd).await;
        return err;
    }
    if copy_to_user_fails(t) {
        fput(t, file).await;
        put_unused_fd(t, files, fd).await;
        return EFAULT;
    }
    fd_install(t, files, fd, file).await;
    fd
}

/// `LIVEUPDATE_IOCTL_CREATE_SESSION`: a new outgoing session; its descriptor.
pub async fn luo_ioctl_create_session(t: &Task, files: Ptr<Files>, name: u64) -> i32 {
    let _in = t.call("luo_ioctl_create_session");
    let err = luo_device(t).await;
    if err != 0 {
        return err;
    }
    let fd = get_unused_fd(t, files).await;
    if fd < 0 {
        return fd;
    }
    let (err, file) = luo_session_create(t, &session_name(name)).await;
    luo_install(t, files, fd, err, file).await
}

/// `LIVEUPDATE_IOCTL_RETRIEVE_SESSION`: an incoming session; its descriptor.
pub async fn luo_ioctl_retrieve_session(t: &Task, files: Ptr<Files>, name: u64) -> i32 {
    let _in = t.call("luo_ioctl_retrieve_session");
    let err = luo_device(t).await;
    if err != 0 {
        return err;
    }
    let fd = get_unused_fd(t, files).await;
    if fd < 0 {
        return fd;
    }
    let (err, file) = luo_session_retrieve(t, &session_name(name)).await;
    luo_install(t, files, fd, err, file).await
}

/// `LIVEUPDATE_SESSION_PRESERVE_FD`. When only the reply cannot be copied the file stays preserved.
pub async fn luo_session_preserve_fd(t: &Task, files: Ptr<Files>, session_fd: i32, fd: i32, token: u64) -> Errno {
    let _in = t.call("luo_session_preserve_fd");
    let session_file = fget_kind(t, files, session_fd, FileKind::LuoSession).await;
    if session_file.is_null() {
        return EBADF;
    }
    let session = session_of(t, session_file).await;
    let rwsem = header(t, Luo::OUTGOING, SessionHeader::RWSEM);
    let mut err = 0;
    if t.k.rev.luo == revision::Luo::Guarded {
        t.down_read(rwsem).await;
        if t.read(header(t, Luo::OUTGOING, SessionHeader::REBOOTING)).await != 0 {
            err = EBUSY;
        } else if t.read(session.at(Session::RETRIEVED)).await != 0 {
            err = EINVAL;
        }
    }
    if err == 0 {
        t.mutex_lock(session.at(Session::MUTEX)).await;
        err = luo_preserve_file(t, session, files, token, fd).await;
        if err == 0 && copy_to_user_fails(t) {
            err = EFAULT;
        }
        t.mutex_unlock(session.at(Session::MUTEX)).await;
    }
    if t.k.rev.luo == revision::Luo::Guarded {
        t.up_read(rwsem).await;
    }
    fput(t, session_file).await;
    err
}

/// `LIVEUPDATE_SESSION_RETRIEVE_FD`: a descriptor of the file of `token`.
pub async fn luo_session_retrieve_fd(t: &Task, files: Ptr<Files>, session_fd: i32, token: u64) -> i32 {
    let _in = t.call("luo_session_retrieve_fd");
    let session_file = fget_kind(t, files, session_fd, FileKind::LuoSession).await;
    if session_file.is_null() {
        return EBADF;
    }
    let session = session_of(t, session_file).await;
    let mut ret = get_unused_fd(t, files).await;
    if ret >= 0 {
        let fd = ret;
        t.mutex_lock(session.at(Session::MUTEX)).await;
        // The direction is tested since 507e3b479f9c (7.2).
        let outgoing = t.k.rev.luo == revision::Luo::Guarded && t.read(session.at(Session::RETRIEVED)).await == 0;
        let (err, file) = if outgoing { (EINVAL, Ptr::NULL) } else { luo_retrieve_file(t, session, token).await };
        ret = luo_install(t, files, fd, err, file).await;
        t.mutex_unlock(session.at(Session::MUTEX)).await;
    }
    fput(t, session_file).await;
    ret
}

/// `luo_session_finish_one()`.
async fn luo_session_finish_one(t: &Task, session: Ptr<Session>) -> Errno {
    t.mutex_lock(session.at(Session::MUTEX)).await;
    let err = luo_file_finish(t, session).await;
    t.mutex_unlock(session.at(Session::MUTEX)).await;
    err
}

/// `LIVEUPDATE_SESSION_FINISH`.
pub async fn luo_session_finish(t: &Task, files: Ptr<Files>, session_fd: i32) -> Errno {
    let _in = t.call("luo_session_finish");
    let session_file = fget_kind(t, files, session_fd, FileKind::LuoSession).await;
    if session_file.is_null() {
        return EBADF;
    }
    let session = session_of(t, session_file).await;
    // The direction is tested since 507e3b479f9c (7.2).
    let outgoing = t.k.rev.luo == revision::Luo::Guarded && t.read(session.at(Session::RETRIEVED)).await == 0;
    let mut err = if outgoing { EINVAL } else { luo_session_finish_one(t, session).await };
    if err == 0 && copy_to_user_fails(t) {
        err = EFAULT;
    }
    fput(t, session_file).await;
    err
}

/// `luo_session_release()`: the last close. An incoming session is finished, and stays for ever when that is refused; an outgoing
/// one is given up.
pub(crate) async fn luo_session_release(t: &Task, file: Ptr<File>) {
    let _in = t.call("luo_session_release");
    let session = session_of(t, file).await;
    if t.read(session.at(Session::RETRIEVED)).await != 0 {
        if luo_session_finish_one(t, session).await != 0 {
            return;
        }
        luo_session_remove(t, Luo::INCOMING, false, session).await;
    } else {
        if t.read(session.at(Session::FILE_SET).at(FileSet::COUNT)).await > 0 {
            t.mark(Mark::SessionAborted);
        }
        luo_session_abort(t, session).await;
    }
    luo_session_free(t, session).await;
}

/// Gives an outgoing session up. Guarded: not while a reboot has serialised; the close sleeps until the reboot is refused.
async fn luo_session_abort(t: &Task, session: Ptr<Session>) {
    let rwsem = header(t, Luo::OUTGOING, SessionHeader::RWSEM);
    match t.k.rev.luo {
        revision::Luo::Unguarded => {
            t.mutex_lock(session.at(Session::MUTEX)).await;
            luo_file_unpreserve_files(t, session).await;
            t.mutex_unlock(session.at(Session::MUTEX)).await;
        }
        revision::Luo::Guarded => {
            let rebooting = header(t, Luo::OUTGOING, SessionHeader::REBOOTING);
            loop {
                t.down_read(rwsem).await;
                if t.read(rebooting).await == 0 {
                    break;
                }
                t.up_read(rwsem).await;
                luo_wait_no_reboot(t).await;
            }
            t.mutex_lock(session.at(Session::MUTEX)).await;
            luo_file_unpreserve_files(t, session).await;
            t.mutex_unlock(session.at(Session::MUTEX)).await;
            t.up_read(rwsem).await;
        }
    }
    luo_session_remove(t, Luo::OUTGOING, true, session).await;
}
