//! Late boot: LUO's blob and arrays for the next update.
//!
//! On failure LUO is off in this kernel. Assumed: what was allocated by then is given back in reverse.
//!
//! Source: kernel/liveupdate/luo_core.c, `luo_late_startup`, mainline 7.0/7.1 and linux-mm, mid 2026.

use sim::memory::Ptr;

use super::super::Task;
use super::super::kho::fdt::{Fdt, FdtWriter};
use super::super::kho::{kho_add_subtree, kho_alloc_preserve, kho_is_enabled, kho_unpreserve_free};
use super::{Luo, SECTION, SessionHeader, flb, header, liveupdate_enabled};
use crate::abi::luo as abi;
use crate::errno::{EOPNOTSUPP, Errno};
use crate::revision;
use crate::tag;

/// `luo_late_startup()`.
pub async fn luo_late_startup(t: &Task) -> Errno {
    let _in = t.call("luo_late_startup");
    if !liveupdate_enabled(t).await {
        return 0;
    }
    let err = match t.k.rev.luo {
        _ if !kho_is_enabled(t).await => EOPNOTSUPP,
        revision::Luo::Unguarded => luo_fdt_setup(t).await,
        revision::Luo::Guarded => luo_ser_setup(t).await,
    };
    if err != 0 {
        t.write(t.sym(SECTION, Luo::ENABLED), 0).await;
    }
    err
}

/// Generation 1: `luo_fdt_setup()`: tree, session array, FLB page; the tree is hung under KHO's root.
async fn luo_fdt_setup(t: &Task) -> Errno {
    let fdt = kho_alloc_preserve::<Fdt>(t, 4096, tag::LUO).await;
    if let Some(errno) = fdt.errno() {
        return -errno;
    }
    let mut err;
    'exit_free: {
        let sessions = kho_alloc_preserve::<u64>(t, abi::SESSION_PGCNT * 4096, tag::LUO).await;
        if let Some(errno) = sessions.errno() {
            err = -errno;
            break 'exit_free;
        }
        'exit_free_sessions: {
            let flbs = kho_alloc_preserve::<u64>(t, 4096, tag::LUO_FLB).await;
            if let Some(errno) = flbs.errno() {
                err = -errno;
                break 'exit_free_sessions;
            }
            'exit_free_flbs: {
                let number = t.read(t.sym(SECTION, Luo::LIVEUPDATE_NUM)).await + 1;
                let mut writer = FdtWriter::create(t, fdt, abi::STRINGS).await;
                writer.begin_node(t, "").await;
                writer.property_string(t, crate::abi::kho::PROP_COMPATIBLE, abi::COMPATIBLE).await;
                writer.property_u64(t, abi::PROP_LIVEUPDATE_NUM, number).await;
                writer.begin_node(t, abi::NODE_SESSION).await;
                writer.property_string(t, crate::abi::kho::PROP_COMPATIBLE, abi::SESSION_COMPATIBLE).await;
                writer.property_u64(t, abi::PROP_SESSION_HEADER, sessions.pa().0).await;
                writer.end_node(t).await;
                writer.begin_node(t, abi::NODE_FLB).await;
                writer.property_string(t, crate::abi::kho::PROP_COMPATIBLE, abi::FLB_COMPATIBLE).await;
                writer.property_u64(t, abi::PROP_FLB_HEADER, flbs.pa().0).await;
                writer.end_node(t).await;
                writer.end_node(t).await;
                err = writer.finish(t).await;
                if err != 0 {
                    break 'exit_free_flbs;
                }
                err = kho_add_subtree(t, abi::SUBTREE, fdt.pa(), 4096).await;
                if err != 0 {
                    break 'exit_free_flbs;
                }
                t.write(t.sym(SECTION, Luo::BLOB), fdt.cast()).await;
                t.write(header(t, Luo::OUTGOING, SessionHeader::SER), sessions).await;
                t.write(header(t, Luo::OUTGOING, SessionHeader::ACTIVE), 1).await;
                flb::luo_flb_setup_outgoing(t, flbs).await;
                return 0;
            }
            kho_unpreserve_free(t, flbs).await;
        }
        kho_unpreserve_free(t, sessions).await;
    }
    kho_unpreserve_free(t, fdt).await;
    err
}

/// Generation 2: `struct luo_ser` and FLB page; sessions come in blocks, whose first is named when the reboot serialises.
async fn luo_ser_setup(t: &Task) -> Errno {
    let ser = kho_alloc_preserve::<u64>(t, u64::from(abi::LUO.bytes), tag::LUO).await;
    if let Some(errno) = ser.errno() {
        return -errno;
    }
    let err;
    'exit_free: {
        let flbs = kho_alloc_preserve::<u64>(t, 4096, tag::LUO_FLB).await;
        if let Some(errno) = flbs.errno() {
            err = -errno;
            break 'exit_free;
        }
        let number = t.read(t.sym(SECTION, Luo::LIVEUPDATE_NUM)).await + 1;
        let word = |index: usize| -> Ptr<u64> { ser.byte_add(u64::from(abi::LUO.fields[index].offset)) };
        for index in 0..3 {
            t.write(word(index), abi::FEATURES).await;
        }
        t.write(word(4), number).await;
        t.write(word(6), flbs.pa().0).await;
        err = kho_add_subtree(t, abi::SUBTREE, ser.pa(), u64::from(abi::LUO.bytes)).await;
        if err != 0 {
            kho_unpreserve_free(t, flbs).await;
            break 'exit_free;
        }
        t.write(t.sym(SECTION, Luo::BLOB), ser).await;
        t.write(header(t, Luo::OUTGOING, SessionHeader::ACTIVE), 1).await;
        flb::luo_flb_setup_outgoing(t, flbs).await;
        return 0;
    }
    kho_unpreserve_free(t, ser).await;
    err
}
