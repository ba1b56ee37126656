//! The files of a session: preserve, unpreserve, freeze, retrieve, finish, and their entries in what is handed over.
//!
//! All of it runs under the session's mutex. A file is preserved by the first registered handler that says it can; each file has
//! a mutex of its own for freeze, retrieve and finish. Errors undo exactly the steps before them, in reverse.
//!
//! Source: kernel/liveupdate/luo_file.c, mainline 7.0/7.1 and linux-mm, mid 2026.

use sim::memory::{Field, Ptr, field};
use sim::sync::Mutex;

use super::super::Task;
use super::super::file::{File, Files, fget, fput, get_file};
use super::super::kho::{kho_alloc_preserve, kho_restore_free, kho_unpreserve_free};
use super::super::kho_block::{
    KhoBlockSet, kho_block_it_init, kho_block_it_read_entry, kho_block_it_reserve_entry, kho_block_set_clear, kho_block_set_destroy,
    kho_block_set_grow, kho_block_set_init, kho_block_set_restore, kho_block_set_shrink,
};
use super::super::mm::list::{self, ListHead};
use super::super::mm::{Gfp, kfree, kzalloc};
use super::handler::{self, FileOpArgs, HandlerId};
use super::{Luo, SECTION, Session, flb, preserved};
use crate::abi::luo as abi;
use crate::defect::Defect;
use crate::errno::{EBADF, EBUSY, EEXIST, EINVAL, ENOENT, ENOMEM, ENOSPC, Errno};
use crate::mark::Mark;
use crate::revision;
use crate::tag;
use crate::verb::FileOp;

/// `struct luo_file_set`, embedded in a session.
#[derive(Clone, Copy, Debug)]
pub struct FileSet;

impl FileSet {
    /// Files in order of preservation.
    pub const FILES_LIST: Field<ListHead> = field(0, "files_list");
    /// Number of files.
    pub const COUNT: Field<u64> = field(16, "count");
    /// Generation 1: array of `luo_file_ser`.
    pub const SER: Field<Ptr<u64>> = field(24, "files");
    /// Generation 2: blocks of `luo_file_ser`.
    pub const BLOCKS: Field<KhoBlockSet> = field(32, "block_set");
    /// Bytes.
    pub const BYTES: u16 = 32 + KhoBlockSet::BYTES;
}

/// `struct luo_file`.
#[derive(Clone, Copy, Debug)]
pub struct LuoFile;

impl LuoFile {
    /// Handler, by number.
    pub const HANDLER: Field<u64> = field(0, "fh");
    /// The file; NULL while an incoming one is not retrieved.
    pub const FILE: Field<Ptr<File>> = field(8, "file");
    /// What the handler hands over.
    pub const SERIALIZED_DATA: Field<u64> = field(16, "serialized_data");
    /// What the handler keeps.
    pub const PRIVATE_DATA: Field<u64> = field(24, "private_data");
    /// 0 never tried, 1 retrieved, negative: sticky error.
    pub const RETRIEVE_STATUS: Field<i32> = field(32, "retrieve_status");
    /// Userspace's name for the file.
    pub const TOKEN: Field<u64> = field(40, "token");
    /// Guards the handler's calls on this file.
    pub const MUTEX: Field<Mutex> = field(48, "mutex");
    /// Link in the file set.
    pub const LIST: Field<ListHead> = field(56, "list");
    /// Bytes.
    pub const BYTES: u16 = 72;
}

/// `struct luo_file_ser`.
#[derive(Clone, Copy, Debug)]
pub struct FileSer;

impl FileSer {
    const DATA: Field<u64> = abi::FILE.field("data");
    const TOKEN: Field<u64> = abi::FILE.field("token");
}

/// `struct luo_file_set_ser`, the tail of a session's record.
#[derive(Clone, Copy, Debug)]
pub struct FileSetSer;

impl FileSetSer {
    /// Physical address of the entries.
    pub const FILES: Field<u64> = field(0, "files");
    /// Number of entries.
    pub const COUNT: Field<u64> = field(8, "count");
}

/// Eight bytes of a text from byte `8 * index` on, zero padded.
pub(super) fn text_word(text: &str, index: u64) -> u64 {
    let mut bytes = [0u8; 8];
    for (to, from) in bytes.iter_mut().zip(text.as_bytes().iter().skip(index as usize * 8)) {
        *to = *from;
    }
    u64::from_le_bytes(bytes)
}

/// `strscpy()` of a constant into zeroed memory: as many words as hold it and its NUL.
pub(super) async fn put_text<T>(t: &Task, at: Ptr<T>, text: &str) {
    for index in 0..=text.len() as u64 / 8 {
        t.write(at.byte_add::<u64>(index * 8), text_word(text, index)).await;
    }
}

/// `!strncmp()` of memory with a constant.
pub(super) async fn text_is<T>(t: &Task, at: Ptr<T>, bytes: u64, text: &str) -> bool {
    for index in 0..=text.len() as u64 / 8 {
        if index * 8 >= bytes || t.read(at.byte_add::<u64>(index * 8)).await != text_word(text, index) {
            return false;
        }
    }
    true
}

fn set_of(session: Ptr<Session>) -> Ptr<FileSet> {
    session.at(Session::FILE_SET)
}

fn file_of(link: Ptr<ListHead>) -> Ptr<LuoFile> {
    list::entry(link, LuoFile::LIST)
}

/// `luo_file_set_init()`.
pub(super) async fn luo_file_set_init(t: &Task, session: Ptr<Session>, incoming: bool) {
    let set = set_of(session);
    list::init(t, set.at(FileSet::FILES_LIST)).await;
    kho_block_set_init(t, set.at(FileSet::BLOCKS), abi::FILE.bytes, incoming).await;
}

/// `luo_alloc_files_mem()` of generation 1: room for all files a session can have. Generation 2: room for one more.
async fn luo_alloc_files_mem(t: &Task, set: Ptr<FileSet>, count: u64) -> Errno {
    match t.k.rev.luo {
        revision::Luo::Unguarded => {
            if !t.read(set.at(FileSet::SER)).await.is_null() {
                return 0;
            }
            let mem = kho_alloc_preserve::<u64>(t, abi::FILE_PGCNT * 4096, tag::LUO).await;
            if let Some(errno) = mem.errno() {
                return -errno;
            }
            t.write(set.at(FileSet::SER), mem).await;
            0
        }
        revision::Luo::Guarded => kho_block_set_grow(t, set.at(FileSet::BLOCKS), count + 1).await,
    }
}

/// `luo_free_files_mem()` of generation 1, when no file is left; generation 2 drops blocks that are not needed.
async fn luo_free_files_mem(t: &Task, set: Ptr<FileSet>) {
    let count = t.read(set.at(FileSet::COUNT)).await;
    match t.k.rev.luo {
        revision::Luo::Unguarded => {
            let mem = t.read(set.at(FileSet::SER)).await;
            if count == 0 && !mem.is_null() {
                kho_unpreserve_free(t, mem).await;
                t.write(set.at(FileSet::SER), Ptr::NULL).await;
            }
        }
        revision::Luo::Guarded => kho_block_set_shrink(t, set.at(FileSet::BLOCKS), count).await,
    }
}

/// The `luo_file` of a token, or NULL.
async fn luo_file_by_token(t: &Task, set: Ptr<FileSet>, token: u64) -> Ptr<LuoFile> {
    let head = set.at(FileSet::FILES_LIST);
    let mut at = list::first(t, head).await;
    while let Some(link) = at {
        let file = file_of(link);
        if t.read(file.at(LuoFile::TOKEN)).await == token {
            return file;
        }
        at = list::next(t, link, head).await;
    }
    Ptr::NULL
}

/// Handler and arguments of a callback on `file`.
async fn op_args(t: &Task, session: Ptr<Session>, file: Ptr<LuoFile>) -> (HandlerId, FileOpArgs, u64) {
    let handler = t.read(file.at(LuoFile::HANDLER)).await;
    let Some(handler) = HandlerId::from_number(handler) else { match t.bug("luo_file without handler").await {} };
    let args = FileOpArgs {
        file: t.read(file.at(LuoFile::FILE)).await,
        session,
        serialized_data: t.read(file.at(LuoFile::SERIALIZED_DATA)).await,
        private_data: t.read(file.at(LuoFile::PRIVATE_DATA)).await,
        retrieve_status: t.read(file.at(LuoFile::RETRIEVE_STATUS)).await,
    };
    (handler, args, t.read(file.at(LuoFile::TOKEN)).await)
}

/// The first registered handler that can preserve `file`, under the registration lock.
async fn luo_find_handler(t: &Task, session: Ptr<Session>, file: Ptr<File>) -> Option<HandlerId> {
    let lock = t.sym(SECTION, Luo::REGISTER_LOCK);
    let mut args = FileOpArgs { file, session, serialized_data: 0, private_data: 0, retrieve_status: 0 };
    let mut found = None;
    t.down_read(lock).await;
    for index in 0..HandlerId::ALL.len() {
        if let (Some(handler), _) = handler::registered(t, index).await
            && handler::can_preserve(t, handler, &mut args).await
        {
            found = Some(handler);
            break;
        }
    }
    t.up_read(lock).await;
    found
}

/// `luo_preserve_file()`, luo_file.c.
pub(super) async fn luo_preserve_file(t: &Task, session: Ptr<Session>, files: Ptr<Files>, token: u64, fd: i32) -> Errno {
    let _in = t.call("luo_preserve_file");
    let set = set_of(session);
    if !luo_file_by_token(t, set, token).await.is_null() {
        return EEXIST;
    }
    let count = t.read(set.at(FileSet::COUNT)).await;
    if t.k.rev.luo == revision::Luo::Unguarded && count == abi::FILE_MAX {
        return ENOSPC;
    }
    let file = fget(t, files, fd).await;
    if file.is_null() {
        return EBADF;
    }
    let mut err;
    'err_fput: {
        err = luo_alloc_files_mem(t, set, count).await;
        if err != 0 {
            break 'err_fput;
        }
        'err_free_files_mem: {
            let Some(handler) = luo_find_handler(t, session, file).await else {
                err = ENOENT;
                break 'err_free_files_mem;
            };
            err = preserved::insert(t, file.value()).await;
            if err != 0 {
                break 'err_free_files_mem;
            }
            'err_erase_xa: {
                err = flb::luo_flb_file_preserve(t, handler).await;
                if err != 0 {
                    break 'err_erase_xa;
                }
                'err_flb_unpreserve: {
                    let luo_file = kzalloc::<LuoFile>(t, LuoFile::BYTES, Gfp::Kernel, tag::LUO_FILE).await;
                    if luo_file.is_null() {
                        err = ENOMEM;
                        break 'err_flb_unpreserve;
                    }
                    t.write(luo_file.at(LuoFile::FILE), file).await;
                    t.write(luo_file.at(LuoFile::HANDLER), handler as u64).await;
                    t.write(luo_file.at(LuoFile::TOKEN), token).await;
                    t.init_lock(luo_file.at(LuoFile::MUTEX)).await;
                    let mut args = FileOpArgs { file, session, serialized_data: 0, private_data: 0, retrieve_status: 0 };
                    err = handler::preserve(t, handler, &mut args, token).await;
                    if err != 0 {
                        if !t.k.has(Defect::FailedPreserveKeepsFile) {
                            kfree(t, luo_file).await;
                        }
                        break 'err_flb_unpreserve;
                    }
                    t.write(luo_file.at(LuoFile::SERIALIZED_DATA), args.serialized_data).await;
                    t.write(luo_file.at(LuoFile::PRIVATE_DATA), args.private_data).await;
                    list::add_tail(t, luo_file.at(LuoFile::LIST), set.at(FileSet::FILES_LIST)).await;
                    t.write(set.at(FileSet::COUNT), count + 1).await;
                    t.warn_on(t.k.has(Defect::StrayWarn), "luo_preserve_file");
                    if t.k.era > 0 {
                        t.mark(Mark::SecondUpdate);
                    }
                    return 0;
                }
                flb::luo_flb_file_unpreserve(t, handler).await;
            }
            if !t.k.has(Defect::PreserveFdStaysBusy) {
                preserved::erase(t, file.value()).await;
            }
            t.mark(Mark::PreserveRolledBack);
        }
        luo_free_files_mem(t, set).await;
    }
    fput(t, file).await;
    err
}

/// `luo_file_unpreserve_files()`: gives all files of a session up, the last one first.
pub(super) async fn luo_file_unpreserve_files(t: &Task, session: Ptr<Session>) {
    let _in = t.call("luo_file_unpreserve_files");
    let set = set_of(session);
    let head = set.at(FileSet::FILES_LIST);
    loop {
        let link = if t.k.has(Defect::CloseInOrder) { list::first(t, head).await } else { list::last(t, head).await };
        let Some(link) = link else { break };
        let luo_file = file_of(link);
        let (handler, mut args, token) = op_args(t, session, luo_file).await;
        handler::unpreserve(t, handler, &mut args, token).await;
        flb::luo_flb_file_unpreserve(t, handler).await;
        preserved::erase(t, args.file.value()).await;
        luo_file_drop(t, set, luo_file).await;
        if t.k.rev.luo == revision::Luo::Guarded {
            let count = t.read(set.at(FileSet::COUNT)).await;
            kho_block_set_shrink(t, set.at(FileSet::BLOCKS), count).await;
        }
        fput(t, args.file).await;
        kfree(t, luo_file).await;
    }
    luo_free_files_mem(t, set).await;
}

/// Takes a file off its set.
async fn luo_file_drop(t: &Task, set: Ptr<FileSet>, luo_file: Ptr<LuoFile>) {
    list::del(t, luo_file.at(LuoFile::LIST)).await;
    let count = t.read(set.at(FileSet::COUNT)).await;
    t.write(set.at(FileSet::COUNT), count.wrapping_sub(1)).await;
}

/// `luo_file_freeze_one()`.
async fn luo_file_freeze_one(t: &Task, session: Ptr<Session>, luo_file: Ptr<LuoFile>) -> Errno {
    t.mutex_lock(luo_file.at(LuoFile::MUTEX)).await;
    let (handler, mut args, token) = op_args(t, session, luo_file).await;
    let err = handler::freeze(t, handler, &mut args, token).await;
    if err == 0 {
        t.write(luo_file.at(LuoFile::SERIALIZED_DATA), args.serialized_data).await;
    }
    t.mutex_unlock(luo_file.at(LuoFile::MUTEX)).await;
    err
}

/// `luo_file_unfreeze_one()`.
async fn luo_file_unfreeze_one(t: &Task, session: Ptr<Session>, luo_file: Ptr<LuoFile>) {
    t.mutex_lock(luo_file.at(LuoFile::MUTEX)).await;
    let (handler, args, token) = op_args(t, session, luo_file).await;
    handler::unfreeze(t, handler, &args, token).await;
    t.write(luo_file.at(LuoFile::SERIALIZED_DATA), args.serialized_data).await;
    t.mutex_unlock(luo_file.at(LuoFile::MUTEX)).await;
}

/// `luo_file_freeze()`: freezes each file in order and writes its entry. The file that fails gets no unfreeze.
pub(super) async fn luo_file_freeze(t: &Task, session: Ptr<Session>, ser: Ptr<FileSetSer>) -> Errno {
    let _in = t.call("luo_file_freeze");
    let set = set_of(session);
    let count = t.read(set.at(FileSet::COUNT)).await;
    if count == 0 {
        return 0;
    }
    let array = t.read(set.at(FileSet::SER)).await;
    let blocks = set.at(FileSet::BLOCKS);
    let head = set.at(FileSet::FILES_LIST);
    let mut it = kho_block_it_init(t, blocks).await;
    let mut index = 0;
    let mut at = list::first(t, head).await;
    while let Some(link) = at {
        let luo_file = file_of(link);
        let entry: Ptr<FileSer> = match t.k.rev.luo {
            revision::Luo::Unguarded => array.byte_add(index * u64::from(abi::FILE.bytes)),
            revision::Luo::Guarded => kho_block_it_reserve_entry(t, blocks, &mut it).await,
        };
        let err =
            if t.warn_on(entry.is_null(), "luo_file_freeze: no entry") { EINVAL } else { luo_file_freeze_one(t, session, luo_file).await };
        if err < 0 {
            __luo_file_unfreeze(t, session, luo_file).await;
            return err;
        }
        let (handler, args, token) = op_args(t, session, luo_file).await;
        put_text(t, entry, handler.compatible()).await;
        t.write(entry.at(FileSer::DATA), args.serialized_data).await;
        t.write(entry.at(FileSer::TOKEN), token).await;
        handler::note(t, handler, token, FileOp::Serialised, 0, session);
        index += 1;
        at = list::next(t, link, head).await;
    }
    t.write(ser.at(FileSetSer::COUNT), count).await;
    let pa = match t.k.rev.luo {
        revision::Luo::Unguarded => array.pa().0,
        revision::Luo::Guarded => t.read(blocks.at(KhoBlockSet::HEAD_PA)).await,
    };
    t.write(ser.at(FileSetSer::FILES), pa).await;
    0
}

/// `__luo_file_unfreeze()`: unfreezes in order the files before `failed` (all for NULL), then clears all entries.
async fn __luo_file_unfreeze(t: &Task, session: Ptr<Session>, failed: Ptr<LuoFile>) {
    let set = set_of(session);
    let head = set.at(FileSet::FILES_LIST);
    let mut at = list::first(t, head).await;
    while let Some(link) = at {
        if file_of(link) == failed {
            break;
        }
        if !t.k.has(Defect::UnfreezeSkipped) {
            luo_file_unfreeze_one(t, session, file_of(link)).await;
        }
        at = list::next(t, link, head).await;
    }
    match t.k.rev.luo {
        revision::Luo::Unguarded => {
            // The kernel clears both pages; entries beyond the count are zero anyhow.
            let array = t.read(set.at(FileSet::SER)).await;
            let count = t.read(set.at(FileSet::COUNT)).await;
            t.memset(array, 0, count * u64::from(abi::FILE.bytes)).await;
        }
        revision::Luo::Guarded => kho_block_set_clear(t, set.at(FileSet::BLOCKS)).await,
    }
}

/// `luo_file_unfreeze()`: undoes a whole [`luo_file_freeze`].
pub(super) async fn luo_file_unfreeze(t: &Task, session: Ptr<Session>, ser: Ptr<FileSetSer>) {
    if t.read(set_of(session).at(FileSet::COUNT)).await == 0 {
        return;
    }
    __luo_file_unfreeze(t, session, Ptr::NULL).await;
    t.write(ser.at(FileSetSer::FILES), 0).await;
    t.write(ser.at(FileSetSer::COUNT), 0).await;
}

/// `luo_retrieve_file()`: the file of a token, with a reference for the caller. An error of the handler is kept for ever.
pub(super) async fn luo_retrieve_file(t: &Task, session: Ptr<Session>, token: u64) -> (Errno, Ptr<File>) {
    let _in = t.call("luo_retrieve_file");
    let luo_file = luo_file_by_token(t, set_of(session), token).await;
    if luo_file.is_null() {
        return (ENOENT, Ptr::NULL);
    }
    let lock = luo_file.at(LuoFile::MUTEX);
    t.mutex_lock(lock).await;
    let (handler, mut args, _) = op_args(t, session, luo_file).await;
    let err = if args.retrieve_status < 0 {
        args.retrieve_status
    } else if args.retrieve_status > 0 {
        get_file(t, args.file).await;
        0
    } else {
        args.file = Ptr::NULL;
        // A handler may retrieve another file of the session: see liveupdate_get_file_incoming.
        let err = Box::pin(handler::retrieve(t, handler, &mut args, token)).await;
        if err != 0 {
            t.write(luo_file.at(LuoFile::RETRIEVE_STATUS), err).await;
        } else {
            t.write(luo_file.at(LuoFile::FILE), args.file).await;
            // LUO's own reference, until finish.
            get_file(t, args.file).await;
            let inserted = preserved::insert(t, args.file.value()).await;
            t.warn_on(inserted != 0, "luo_retrieve_file: xa_insert");
            t.write(luo_file.at(LuoFile::RETRIEVE_STATUS), 1).await;
        }
        err
    };
    t.mutex_unlock(lock).await;
    (err, if err == 0 { args.file } else { Ptr::NULL })
}

/// `luo_file_finish()`: -EBUSY, and nothing done, while some file cannot finish; else all files, the last one first.
pub(super) async fn luo_file_finish(t: &Task, session: Ptr<Session>) -> Errno {
    let _in = t.call("luo_file_finish");
    let set = set_of(session);
    let head = set.at(FileSet::FILES_LIST);
    let mut at = list::first(t, head).await;
    while let Some(link) = at {
        let luo_file = file_of(link);
        t.mutex_lock(luo_file.at(LuoFile::MUTEX)).await;
        let (handler, mut args, token) = op_args(t, session, luo_file).await;
        let can = handler::can_finish(t, handler, &mut args, token).await;
        t.mutex_unlock(luo_file.at(LuoFile::MUTEX)).await;
        if !can {
            return EBUSY;
        }
        at = list::next(t, link, head).await;
    }
    while let Some(link) = list::last(t, head).await {
        let luo_file = file_of(link);
        t.mutex_lock(luo_file.at(LuoFile::MUTEX)).await;
        let (handler, mut args, token) = op_args(t, session, luo_file).await;
        handler::finish(t, handler, &mut args, token).await;
        flb::luo_flb_file_finish(t, handler).await;
        t.mutex_unlock(luo_file.at(LuoFile::MUTEX)).await;
        let file = t.read(luo_file.at(LuoFile::FILE)).await;
        if !file.is_null() {
            preserved::erase(t, file.value()).await;
            fput(t, file).await;
        }
        luo_file_drop(t, set, luo_file).await;
        if t.k.rev.luo == revision::Luo::Guarded {
            let count = t.read(set.at(FileSet::COUNT)).await;
            kho_block_set_shrink(t, set.at(FileSet::BLOCKS), count).await;
        }
        kfree(t, luo_file).await;
    }
    match t.k.rev.luo {
        revision::Luo::Unguarded => {
            let array = t.read(set.at(FileSet::SER)).await;
            if !array.is_null() {
                kho_restore_free(t, array).await;
                t.write(set.at(FileSet::SER), Ptr::NULL).await;
            }
        }
        revision::Luo::Guarded => kho_block_set_destroy(t, set.at(FileSet::BLOCKS)).await,
    }
    0
}

/// `luo_file_deserialize()`: a `luo_file` without file for each entry. On an error what is there stays, and stays reserved.
pub(super) async fn luo_file_deserialize(t: &Task, session: Ptr<Session>, ser: Ptr<FileSetSer>) -> Errno {
    let _in = t.call("luo_file_deserialize");
    let set = set_of(session);
    let pa = t.read(ser.at(FileSetSer::FILES)).await;
    let count = t.read(ser.at(FileSetSer::COUNT)).await;
    if pa == 0 {
        t.warn_on(count != 0, "luo_file_deserialize: no entries");
        return 0;
    }
    let blocks = set.at(FileSet::BLOCKS);
    match t.k.rev.luo {
        revision::Luo::Unguarded => {
            // Assumed bound; the kernel trusts the count.
            if count > abi::FILE_MAX {
                return EINVAL;
            }
            t.write(set.at(FileSet::SER), Ptr::new(Ptr::<u64>::from_pa(iommu_model::addr::Pa(pa)).value())).await;
        }
        revision::Luo::Guarded => {
            let err = kho_block_set_restore(t, blocks, pa).await;
            if err != 0 {
                return err;
            }
        }
    }
    let array = t.read(set.at(FileSet::SER)).await;
    let mut it = kho_block_it_init(t, blocks).await;
    for index in 0..count {
        let entry: Ptr<FileSer> = match t.k.rev.luo {
            revision::Luo::Unguarded => array.byte_add(index * u64::from(abi::FILE.bytes)),
            revision::Luo::Guarded => kho_block_it_read_entry(t, blocks, &mut it).await,
        };
        if entry.is_null() {
            return EINVAL;
        }
        let err = luo_file_deserialize_one(t, set, entry).await;
        if err != 0 {
            return err;
        }
    }
    0
}

async fn luo_file_deserialize_one(t: &Task, set: Ptr<FileSet>, entry: Ptr<FileSer>) -> Errno {
    let lock = t.sym(SECTION, Luo::REGISTER_LOCK);
    let mut found = None;
    t.down_read(lock).await;
    for index in 0..HandlerId::ALL.len() {
        if let (Some(handler), _) = handler::registered(t, index).await
            && text_is(t, entry, 48, handler.compatible()).await
        {
            found = Some(handler);
            break;
        }
    }
    t.up_read(lock).await;
    let Some(handler) = found else { return ENOENT };
    let luo_file = kzalloc::<LuoFile>(t, LuoFile::BYTES, Gfp::Kernel, tag::LUO_FILE).await;
    if luo_file.is_null() {
        return ENOMEM;
    }
    let data = t.read(entry.at(FileSer::DATA)).await;
    let token = t.read(entry.at(FileSer::TOKEN)).await;
    t.write(luo_file.at(LuoFile::HANDLER), handler as u64).await;
    t.write(luo_file.at(LuoFile::SERIALIZED_DATA), data).await;
    t.write(luo_file.at(LuoFile::TOKEN), token).await;
    t.init_lock(luo_file.at(LuoFile::MUTEX)).await;
    list::add_tail(t, luo_file.at(LuoFile::LIST), set.at(FileSet::FILES_LIST)).await;
    let count = t.read(set.at(FileSet::COUNT)).await;
    t.write(set.at(FileSet::COUNT), count + 1).await;
    0
}

/// `liveupdate_get_token_outgoing()` (IOMMU series patch 01): the token under which `file` is preserved in `session`, whose mutex the
/// caller holds; -ENOENT when it is not.
pub async fn liveupdate_get_token_outgoing(t: &Task, session: Ptr<Session>, file: Ptr<File>) -> (Errno, u64) {
    let _in = t.call("liveupdate_get_token_outgoing");
    let head = set_of(session).at(FileSet::FILES_LIST);
    let mut at = list::first(t, head).await;
    while let Some(link) = at {
        if t.read(file_of(link).at(LuoFile::FILE)).await == file {
            return (0, t.read(file_of(link).at(LuoFile::TOKEN)).await);
        }
        at = list::next(t, link, head).await;
    }
    (ENOENT, 0)
}

/// `liveupdate_get_file_incoming()` (IOMMU series patch 01): the file of `token` in `session`, whose mutex the caller holds,
/// retrieved if need be, with a reference.
pub async fn liveupdate_get_file_incoming(t: &Task, session: Ptr<Session>, token: u64) -> (Errno, Ptr<File>) {
    let _in = t.call("liveupdate_get_file_incoming");
    luo_retrieve_file(t, session, token).await
}
