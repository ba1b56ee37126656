//! The outgoing side of the update: `reboot(KEXEC)` freezes and serialises every session, then the FLBs.
//!
//! The outgoing rwsem is held for writing for the whole of it. Guarded: `rebooting` stays set after success, so that nothing
//! changes until the jump. The first error unfreezes what was frozen, session by session in reverse.
//!
//! Source: kernel/liveupdate/luo_core.c, luo_session.c; the abort entry as posted (v4 2/5, 2026-03-24), not merged.

use sim::memory::Ptr;

use super::super::Task;
use super::super::kho_block::{
    BlockIterator, KhoBlockSet, kho_block_it_init, kho_block_it_read_entry, kho_block_it_reserve_entry, kho_block_set_clear,
};
use super::super::mm::list;
use super::file::{FileSetSer, luo_file_freeze, luo_file_unfreeze};
use super::session::{get_name, put_name, session_at};
use super::{Luo, SECTION, Session, SessionHeader, flb, header, liveupdate_enabled};
use crate::abi::luo as abi;
use crate::errno::{EBUSY, EINVAL, Errno};
use crate::mark::Mark;
use crate::revision;

/// Where a session's record has its file set.
const FILE_SET_AT: u64 = abi::SESSION.fields[1].offset as u64;

/// `liveupdate_reboot()`: called first by `kernel_kexec`; an error refuses the reboot.
pub async fn liveupdate_reboot(t: &Task) -> Errno {
    let _in = t.call("liveupdate_reboot");
    if !liveupdate_enabled(t).await {
        return 0;
    }
    let err = luo_session_serialize(t).await;
    if err != 0 {
        t.mark(Mark::RebootUnwound);
        return err;
    }
    flb::luo_flb_serialize(t).await;
    0
}

/// The record of session number `index`, from the array of generation 1 or the next entry of generation 2's blocks.
async fn record(t: &Task, index: u64, it: &mut BlockIterator, reserve: bool) -> Ptr<u64> {
    let blocks = header(t, Luo::OUTGOING, SessionHeader::BLOCKS);
    match t.k.rev.luo {
        revision::Luo::Unguarded => {
            let ser = t.read(header(t, Luo::OUTGOING, SessionHeader::SER)).await;
            ser.byte_add(u64::from(abi::SESSION_HEADER.bytes) + index * u64::from(abi::SESSION.bytes))
        }
        revision::Luo::Guarded if reserve => kho_block_it_reserve_entry(t, blocks, it).await,
        revision::Luo::Guarded => kho_block_it_read_entry(t, blocks, it).await,
    }
}

/// `luo_session_serialize()`.
async fn luo_session_serialize(t: &Task) -> Errno {
    let _in = t.call("luo_session_serialize");
    let rwsem = header(t, Luo::OUTGOING, SessionHeader::RWSEM);
    let head = header(t, Luo::OUTGOING, SessionHeader::LIST);
    let rebooting = header(t, Luo::OUTGOING, SessionHeader::REBOOTING);
    let blocks = header(t, Luo::OUTGOING, SessionHeader::BLOCKS);
    t.down_write(rwsem).await;
    if t.k.rev.luo == revision::Luo::Guarded {
        if t.read(rebooting).await != 0 {
            t.up_write(rwsem).await;
            return EBUSY;
        }
        t.write_once(rebooting, 1).await;
    }
    let mut it = kho_block_it_init(t, blocks).await;
    let mut index = 0;
    let mut err = 0;
    let mut at = list::first(t, head).await;
    while let Some(link) = at {
        let session = session_at(link);
        let ser = record(t, index, &mut it, true).await;
        err = if t.warn_on(ser.is_null(), "luo_session_serialize: no entry") {
            EINVAL
        } else {
            luo_session_freeze_one(t, session, ser).await
        };
        if err != 0 {
            break;
        }
        let name = get_name(t, session.at(Session::NAME)).await;
        put_name(t, ser, &name).await;
        index += 1;
        at = list::next(t, link, head).await;
    }
    if err == 0 {
        let count = t.read(header(t, Luo::OUTGOING, SessionHeader::COUNT)).await;
        luo_publish(t, count).await;
    } else {
        // err_undo
        luo_session_unserialize(t, index).await;
    }
    t.up_write(rwsem).await;
    err
}

/// Makes the records reachable: the count of generation 1, the first block of generation 2.
async fn luo_publish(t: &Task, count: u64) {
    match t.k.rev.luo {
        revision::Luo::Unguarded => {
            let ser = t.read(header(t, Luo::OUTGOING, SessionHeader::SER)).await;
            t.write(ser, count).await;
        }
        revision::Luo::Guarded => {
            let blob = t.read(t.sym(SECTION, Luo::BLOB)).await;
            let head_pa = t.read(header(t, Luo::OUTGOING, SessionHeader::BLOCKS).at(KhoBlockSet::HEAD_PA)).await;
            t.write(blob.byte_add::<u64>(u64::from(abi::LUO.fields[5].offset)), head_pa).await;
        }
    }
}

/// Unfreezes the first `nr` sessions, the last of them first, clears their records, and lets changes in again.
async fn luo_session_unserialize(t: &Task, nr: u64) {
    let head = header(t, Luo::OUTGOING, SessionHeader::LIST);
    for index in (0..nr).rev() {
        let mut it = kho_block_it_init(t, header(t, Luo::OUTGOING, SessionHeader::BLOCKS)).await;
        let mut link = head;
        let mut ser = Ptr::NULL;
        for position in 0..=index {
            link = list::next(t, link, head).await.unwrap_or(head);
            ser = record(t, position, &mut it, false).await;
        }
        if link == head || ser.is_null() {
            continue;
        }
        luo_session_unfreeze_one(t, session_at(link), ser).await;
        t.memset(ser, 0, FILE_SET_AT).await;
    }
    luo_publish_none(t).await;
}

async fn luo_publish_none(t: &Task) {
    match t.k.rev.luo {
        revision::Luo::Unguarded => {
            let ser = t.read(header(t, Luo::OUTGOING, SessionHeader::SER)).await;
            t.write(ser, 0).await;
        }
        revision::Luo::Guarded => {
            kho_block_set_clear(t, header(t, Luo::OUTGOING, SessionHeader::BLOCKS)).await;
            let blob = t.read(t.sym(SECTION, Luo::BLOB)).await;
            t.write(blob.byte_add::<u64>(u64::from(abi::LUO.fields[5].offset)), 0).await;
            t.write_once(header(t, Luo::OUTGOING, SessionHeader::REBOOTING), 0).await;
            t.wake_up(header(t, Luo::OUTGOING, SessionHeader::WAIT)).await;
        }
    }
}

/// `luo_session_freeze_one()`.
async fn luo_session_freeze_one(t: &Task, session: Ptr<Session>, ser: Ptr<u64>) -> Errno {
    t.mutex_lock(session.at(Session::MUTEX)).await;
    let err = luo_file_freeze(t, session, ser.byte_add::<FileSetSer>(FILE_SET_AT)).await;
    t.mutex_unlock(session.at(Session::MUTEX)).await;
    err
}

/// `luo_session_unfreeze_one()`.
async fn luo_session_unfreeze_one(t: &Task, session: Ptr<Session>, ser: Ptr<u64>) {
    t.mutex_lock(session.at(Session::MUTEX)).await;
    luo_file_unfreeze(t, session, ser.byte_add::<FileSetSer>(FILE_SET_AT)).await;
    t.mutex_unlock(session.at(Session::MUTEX)).await;
}

/// `liveupdate_abort_reboot()` (posted): kexec failed after everything was serialised; all sessions are usable again.
pub async fn liveupdate_abort_reboot(t: &Task) {
    let _in = t.call("liveupdate_abort_reboot");
    if !liveupdate_enabled(t).await || t.k.rev.luo == revision::Luo::Unguarded {
        return;
    }
    let rwsem = header(t, Luo::OUTGOING, SessionHeader::RWSEM);
    t.down_write(rwsem).await;
    let count = t.read(header(t, Luo::OUTGOING, SessionHeader::COUNT)).await;
    if t.read(header(t, Luo::OUTGOING, SessionHeader::REBOOTING)).await != 0 {
        luo_session_unserialize(t, count).await;
    }
    t.up_write(rwsem).await;
    t.mark(Mark::RebootUnwound);
}
