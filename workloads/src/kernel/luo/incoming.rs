//! The incoming side of the update: at boot LUO finds its blob, when the device is first opened it makes sessions of it.
//!
//! Anything malformed at boot is a panic, because the state of devices and memory is unknown then. An error of deserialisation is
//! kept for ever and everything not yet taken over stays reserved: a leak, never a free.
//!
//! Source: kernel/liveupdate/luo_core.c, luo_session.c, mainline 7.0/7.1 and linux-mm, mid 2026.

use iommu_model::addr::Pa;
use sim::memory::Ptr;

use super::super::kho::fdt::{Fdt, FdtReader};
use super::super::kho::{kho_is_enabled, kho_is_preserved, kho_restore_free, kho_retrieve_subtree};
use super::super::kho_block::{
    kho_block_it_init, kho_block_it_read_entry, kho_block_set_destroy, kho_block_set_init, kho_block_set_restore,
};
use super::super::mm::list;
use super::super::{Task, test_flb};
use super::file::{FileSetSer, luo_file_deserialize};
use super::session::{get_name, luo_session_alloc, luo_session_free, luo_session_insert};
use super::{DEVICE_CLOSED, Luo, SECTION, Session, SessionHeader, flb, handler, header, luo_restore_fail};
use crate::abi::luo as abi;
use crate::errno::{EINVAL, ENOENT, ENOMEM, Errno};
use crate::revision;

/// `liveupdate_early_init()`: globals, handlers, and what the previous kernel left.
pub async fn luo_early_startup(t: &Task) {
    let _in = t.call("luo_early_startup");
    luo_init_globals(t).await;
    // Runs before kho_init can fail in the kernel: what was handed over is found even when nothing can be handed on.
    if !kho_is_enabled(t).await && t.k.handover.is_none() {
        return;
    }
    t.write(t.sym(SECTION, Luo::ENABLED), 1).await;
    handler::register_all(t).await;
    let err = luo_setup_incoming(t).await;
    if err != 0 {
        t.write(t.sym(SECTION, Luo::ENABLED), 0).await;
        match luo_restore_fail(t).await {}
    }
    test_flb::liveupdate_test_init(t).await;
}

async fn luo_init_globals(t: &Task) {
    t.write(t.sym(SECTION, Luo::ENABLED), 0).await;
    t.write(t.sym(SECTION, Luo::LIVEUPDATE_NUM), 0).await;
    t.init_lock(t.sym(SECTION, Luo::REGISTER_LOCK)).await;
    t.write(t.sym(SECTION, Luo::DEVICE), DEVICE_CLOSED).await;
    t.write(t.sym(SECTION, Luo::DESERIALIZED), 0).await;
    t.write(t.sym(SECTION, Luo::DESERIALIZE_ERR), 0).await;
    t.write(t.sym(SECTION, Luo::PRESERVED), Ptr::NULL).await;
    t.init_lock(t.sym(SECTION, Luo::PRESERVED_LOCK)).await;
    t.write(t.sym(SECTION, Luo::BLOB), Ptr::NULL).await;
    for (direction, incoming) in [(Luo::OUTGOING, false), (Luo::INCOMING, true)] {
        t.init_lock(header(t, direction, SessionHeader::RWSEM)).await;
        list::init(t, header(t, direction, SessionHeader::LIST)).await;
        t.write(header(t, direction, SessionHeader::COUNT), 0).await;
        t.write(header(t, direction, SessionHeader::REBOOTING), 0).await;
        t.write(header(t, direction, SessionHeader::SER), Ptr::NULL).await;
        t.write(header(t, direction, SessionHeader::ACTIVE), 0).await;
        t.write(header(t, direction, SessionHeader::SESSIONS_PA), 0).await;
        kho_block_set_init(t, header(t, direction, SessionHeader::BLOCKS), abi::SESSION.bytes, incoming).await;
    }
    flb::luo_flb_init(t).await;
}

/// `luo_early_startup()`: 0 also when there was no update.
async fn luo_setup_incoming(t: &Task) -> Errno {
    let (err, pa, bytes) = kho_retrieve_subtree(t, abi::SUBTREE).await;
    if err == ENOENT {
        return 0;
    }
    if err != 0 {
        return err;
    }
    if !kho_is_preserved(t, pa).await {
        return EINVAL;
    }
    match t.k.rev.luo {
        revision::Luo::Unguarded => luo_setup_incoming_fdt(t, pa).await,
        revision::Luo::Guarded => luo_setup_incoming_ser(t, pa, bytes).await,
    }
}

/// Generation 1: a tree of its own.
async fn luo_setup_incoming_fdt(t: &Task, pa: Pa) -> Errno {
    let Some(reader) = FdtReader::open(t, Ptr::<Fdt>::from_pa(pa)).await else { return EINVAL };
    let Some(root) = reader.root(t).await else { return EINVAL };
    if !reader.is_compatible(t, root, abi::COMPATIBLE).await {
        return EINVAL;
    }
    let Some(number) = reader.property_u64(t, root, abi::PROP_LIVEUPDATE_NUM).await else { return EINVAL };
    t.write(t.sym(SECTION, Luo::LIVEUPDATE_NUM), number).await;

    let Some(node) = reader.subnode(t, root, abi::NODE_SESSION).await else { return EINVAL };
    if !reader.is_compatible(t, node, abi::SESSION_COMPATIBLE).await {
        return EINVAL;
    }
    let Some(sessions) = reader.property_u64(t, node, abi::PROP_SESSION_HEADER).await else { return EINVAL };
    if !kho_is_preserved(t, Pa(sessions)).await {
        return EINVAL;
    }
    t.write(header(t, Luo::INCOMING, SessionHeader::SER), Ptr::from_pa(Pa(sessions))).await;
    t.write(header(t, Luo::INCOMING, SessionHeader::ACTIVE), 1).await;

    let Some(node) = reader.subnode(t, root, abi::NODE_FLB).await else { return EINVAL };
    if !reader.is_compatible(t, node, abi::FLB_COMPATIBLE).await {
        return EINVAL;
    }
    let Some(flbs) = reader.property_u64(t, node, abi::PROP_FLB_HEADER).await else { return EINVAL };
    flb::luo_flb_setup_incoming(t, Pa(flbs)).await
}

/// Generation 2: `struct luo_ser`. A required feature that this kernel does not know, or a known one that is missing, is an error.
async fn luo_setup_incoming_ser(t: &Task, pa: Pa, bytes: u64) -> Errno {
    let ser = Ptr::<u64>::from_pa(pa);
    let word = |index: usize| ser.byte_add::<u64>(u64::from(abi::LUO.fields[index].offset));
    if bytes != u64::from(abi::LUO.bytes) {
        return EINVAL;
    }
    let required = t.read(word(1)).await;
    let active = t.read(word(2)).await;
    if required & !abi::FEATURES != 0 || active & abi::FEATURES != abi::FEATURES {
        return EINVAL;
    }
    let number = t.read(word(4)).await;
    let sessions = t.read(word(5)).await;
    let flbs = t.read(word(6)).await;
    if sessions != 0 && !kho_is_preserved(t, Pa(sessions)).await {
        return EINVAL;
    }
    t.write(t.sym(SECTION, Luo::LIVEUPDATE_NUM), number).await;
    t.write(header(t, Luo::INCOMING, SessionHeader::SESSIONS_PA), sessions).await;
    t.write(header(t, Luo::INCOMING, SessionHeader::ACTIVE), 1).await;
    flb::luo_flb_setup_incoming(t, Pa(flbs)).await
}

/// `luo_session_deserialize()`: once; later calls return what the first one did. The opener of the device is alone here.
pub(super) async fn luo_session_deserialize(t: &Task) -> Errno {
    let saved = t.sym(SECTION, Luo::DESERIALIZE_ERR);
    if t.read(t.sym(SECTION, Luo::DESERIALIZED)).await != 0 {
        return t.read(saved).await;
    }
    let _in = t.call("luo_session_deserialize");
    t.write(t.sym(SECTION, Luo::DESERIALIZED), 1).await;
    if t.read(header(t, Luo::INCOMING, SessionHeader::ACTIVE)).await == 0 {
        return 0;
    }
    let err = match t.k.rev.luo {
        revision::Luo::Unguarded => deserialize_array(t).await,
        revision::Luo::Guarded => deserialize_blocks(t).await,
    };
    t.write(saved, err).await;
    err
}

async fn deserialize_array(t: &Task) -> Errno {
    let slot = header(t, Luo::INCOMING, SessionHeader::SER);
    let ser = t.read(slot).await;
    let count = t.read(ser).await;
    // Assumed bound; the kernel trusts the count.
    if count > abi::SESSION_MAX {
        return EINVAL;
    }
    for index in 0..count {
        let record = ser.byte_add(u64::from(abi::SESSION_HEADER.bytes) + index * u64::from(abi::SESSION.bytes));
        let err = luo_session_deserialize_one(t, record).await;
        if err != 0 {
            return err;
        }
    }
    kho_restore_free(t, ser).await;
    t.write(slot, Ptr::NULL).await;
    0
}

async fn deserialize_blocks(t: &Task) -> Errno {
    let blocks = header(t, Luo::INCOMING, SessionHeader::BLOCKS);
    let pa = t.read(header(t, Luo::INCOMING, SessionHeader::SESSIONS_PA)).await;
    let err = kho_block_set_restore(t, blocks, pa).await;
    if err != 0 {
        return err;
    }
    let mut it = kho_block_it_init(t, blocks).await;
    loop {
        let record = kho_block_it_read_entry::<u64>(t, blocks, &mut it).await;
        if record.is_null() {
            break;
        }
        let err = luo_session_deserialize_one(t, record).await;
        if err != 0 {
            return err;
        }
    }
    kho_block_set_destroy(t, blocks).await;
    0
}

async fn luo_session_deserialize_one(t: &Task, record: Ptr<u64>) -> Errno {
    let name = get_name(t, record).await;
    let session = luo_session_alloc(t, &name, true).await;
    if session.is_null() {
        return ENOMEM;
    }
    let err = luo_session_insert(t, Luo::INCOMING, false, session, &name).await;
    if err != 0 {
        luo_session_free(t, session).await;
        return err;
    }
    t.mutex_lock(session.at(Session::MUTEX)).await;
    let err = luo_file_deserialize(t, session, record.byte_add::<FileSetSer>(u64::from(abi::SESSION.fields[1].offset))).await;
    t.mutex_unlock(session.at(Session::MUTEX)).await;
    err
}
