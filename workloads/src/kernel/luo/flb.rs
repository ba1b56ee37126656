//! FLB: global objects that live as long as files depend on them.
//!
//! Preserved with the first file of any session whose handler the FLB hangs on, unpreserved with the last; retrieved when
//! somebody first asks in the next kernel, finished with the last file. Callbacks run under the FLB's mutex of their direction.
//!
//! | step | [`Flb::Bare`] | [`Flb::Refcounted`] |
//! | --- | --- | --- |
//! | get_outgoing | bare pointer, possibly NULL | -ENOENT or a counted reference |
//! | get_incoming | unlocked look, then retrieve; no reference | under the lock; counted |
//! | failed retrieve | may be tried again | sticky |
//! | last file finished | count loaded by retrieve only | as put_incoming |
//!
//! Source: kernel/liveupdate/luo_flb.c, January 2026 (bare) and linux-mm with the series of 2026-05 and 2026-07 (refcounted).

use iommu_model::addr::Pa;
use sim::memory::{Field, Ptr, field};
use sim::sync::{Mutex, Refcount};

use super::super::kho::kho_is_preserved;
use super::super::{Section, Task, iommu, test_flb};
use super::handler::{HandlerId, flb_of};
use super::{Luo, liveupdate_enabled};
use crate::abi::iommu::IommuAbi;
use crate::abi::luo as abi;
use crate::defect::Defect;
use crate::errno::{EINVAL, ENODATA, ENOENT, EOPNOTSUPP, Errno};
use crate::mark::Mark;
use crate::revision::Flb;
use crate::verb::{self, FlbOp};

/// An FLB, by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum FlbId {
    /// The IOMMU's, on the iommufd handler.
    Iommu = 1,
    /// The in-kernel test's, on the memfd handler.
    Test = 2,
}

/// `struct liveupdate_flb_op_args`: on the caller's stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlbOpArgs {
    /// What is handed over.
    pub data: u64,
    /// The live object.
    pub obj: u64,
}

impl FlbId {
    /// All, in order of registration.
    pub const ALL: [FlbId; 2] = [FlbId::Iommu, FlbId::Test];

    /// The FLB of a number read from RAM.
    pub fn from_number(number: u64) -> Option<FlbId> {
        FlbId::ALL.into_iter().find(|id| *id as u64 == number)
    }

    /// `compatible` string.
    pub fn compatible(self, t: &Task) -> &'static str {
        match self {
            FlbId::Iommu => IommuAbi::of(t.k.rev.iommu).compatible,
            FlbId::Test => abi::TEST_FLB_COMPATIBLE,
        }
    }

    fn at<T>(self, t: &Task, member: Field<T>) -> Ptr<T> {
        Ptr::new(t.sym(SECTION, STATE).value() + (self as u64 - 1) * STATE_BYTES + u64::from(member.offset))
    }
}

const SECTION: Section = Section::Flb;
/// `luo_flb_global.outgoing.header_ser`.
pub(in crate::kernel) const OUT_HEADER: Field<Ptr<u64>> = field(0, "luo_flb_global.outgoing.header_ser");
/// `luo_flb_global.incoming.header_ser`.
pub(in crate::kernel) const IN_HEADER: Field<Ptr<u64>> = field(8, "luo_flb_global.incoming.header_ser");
/// `struct luo_flb_private` of the first FLB.
pub(in crate::kernel) const STATE: Field<u64> = field(64, "luo_flb_private");
pub(in crate::kernel) const STATE_BYTES: u64 = 128;
/// Outgoing references: files, and gets where they are counted.
pub(in crate::kernel) const OUT_COUNT: Field<u64> = field(0, "outgoing.count");
pub(in crate::kernel) const OUT_DATA: Field<u64> = field(8, "outgoing.data");
pub(in crate::kernel) const OUT_OBJ: Field<u64> = field(16, "outgoing.obj");
pub(in crate::kernel) const OUT_LOCK: Field<Mutex> = field(24, "outgoing.lock");
pub(in crate::kernel) const IN_COUNT: Field<u64> = field(32, "incoming.count");
pub(in crate::kernel) const IN_DATA: Field<u64> = field(40, "incoming.data");
pub(in crate::kernel) const IN_OBJ: Field<u64> = field(48, "incoming.obj");
pub(in crate::kernel) const IN_LOCK: Field<Mutex> = field(56, "incoming.lock");
pub(in crate::kernel) const IN_FINISHED: Field<u32> = field(64, "incoming.finished");
/// 0 not tried, 1 retrieved, negative: the error, kept by the refcounted generation only.
pub(in crate::kernel) const IN_STATUS: Field<i32> = field(68, "incoming.retrieve_status");

/// Initialises the globals of this file.
pub(super) async fn luo_flb_init(t: &Task) {
    t.write(t.sym(SECTION, OUT_HEADER), Ptr::NULL).await;
    t.write(t.sym(SECTION, IN_HEADER), Ptr::NULL).await;
    for flb in FlbId::ALL {
        for word in [OUT_COUNT, OUT_DATA, OUT_OBJ, IN_COUNT, IN_DATA, IN_OBJ] {
            t.write(flb.at(t, word), 0).await;
        }
        t.write(flb.at(t, IN_FINISHED), 0).await;
        t.write(flb.at(t, IN_STATUS), 0).await;
        t.init_lock(flb.at(t, OUT_LOCK)).await;
        t.init_lock(flb.at(t, IN_LOCK)).await;
    }
}

async fn call_op(t: &Task, flb: FlbId, op: FlbOp, args: &mut FlbOpArgs) -> Errno {
    let mut err = 0;
    match (flb, op) {
        (FlbId::Iommu, FlbOp::Preserve) => err = iommu::iommu_liveupdate_flb_preserve(t, args).await,
        (FlbId::Iommu, FlbOp::Unpreserve) => iommu::iommu_liveupdate_flb_unpreserve(t, args).await,
        (FlbId::Iommu, FlbOp::Retrieve) => err = iommu::iommu_liveupdate_flb_retrieve(t, args).await,
        (FlbId::Iommu, FlbOp::Finish) => iommu::iommu_liveupdate_flb_finish(t, args).await,
        (FlbId::Test, FlbOp::Preserve) => err = test_flb::test_flb_preserve(t, args).await,
        (FlbId::Test, FlbOp::Unpreserve) => test_flb::test_flb_unpreserve(t, args).await,
        (FlbId::Test, FlbOp::Retrieve) => err = test_flb::test_flb_retrieve(t, args).await,
        (FlbId::Test, FlbOp::Finish) => test_flb::test_flb_finish(t, args).await,
    }
    t.machine.note(verb::FLB_OP, [flb as u64, op as u64, i64::from(err) as u64, 0]);
    err
}

/// `luo_flb_file_preserve()`: each FLB of the handler gains a file.
pub(super) async fn luo_flb_file_preserve(t: &Task, handler: HandlerId) -> Errno {
    match flb_of(t, handler).await {
        Some(flb) => luo_flb_file_preserve_one(t, flb).await,
        None => 0,
    }
}

async fn luo_flb_file_preserve_one(t: &Task, flb: FlbId) -> Errno {
    let _in = t.call("luo_flb_file_preserve_one");
    let lock = flb.at(t, OUT_LOCK);
    let count = flb.at(t, OUT_COUNT);
    t.mutex_lock(lock).await;
    let held = t.read(count).await;
    if held == 0 {
        let mut args = FlbOpArgs::default();
        let err = call_op(t, flb, FlbOp::Preserve, &mut args).await;
        if err != 0 {
            t.mutex_unlock(lock).await;
            return err;
        }
        t.write(flb.at(t, OUT_DATA), args.data).await;
        t.write(flb.at(t, OUT_OBJ), args.obj).await;
    }
    match t.k.rev.flb {
        Flb::Bare => t.write(count, held + 1).await,
        Flb::Refcounted if held == 0 => t.refcount_set(count.cast::<Refcount>(), 1).await,
        Flb::Refcounted => {
            t.refcount_inc(count.cast::<Refcount>()).await;
        }
    }
    t.mutex_unlock(lock).await;
    0
}

/// `luo_flb_file_unpreserve()`: each FLB of the handler loses a file, in reverse order.
pub(super) async fn luo_flb_file_unpreserve(t: &Task, handler: HandlerId) {
    if let Some(flb) = flb_of(t, handler).await {
        drop_outgoing(t, flb).await;
    }
}

/// `luo_flb_file_unpreserve_one()`, which the refcounted generation also calls from put_outgoing.
async fn drop_outgoing(t: &Task, flb: FlbId) {
    let _in = t.call("luo_flb_file_unpreserve_one");
    let lock = flb.at(t, OUT_LOCK);
    let count = flb.at(t, OUT_COUNT);
    t.mutex_lock(lock).await;
    let last = match t.k.rev.flb {
        Flb::Bare => {
            let held = t.read(count).await.wrapping_sub(1);
            t.write(count, held).await;
            held == 0
        }
        Flb::Refcounted => match t.refcount_dec_and_test(count.cast::<Refcount>()).await {
            Ok(last) => last,
            Err(_) => {
                t.warn_on(true, "outgoing FLB refcount underflow");
                false
            }
        },
    };
    if last {
        let mut args = FlbOpArgs { data: t.read(flb.at(t, OUT_DATA)).await, obj: t.read(flb.at(t, OUT_OBJ)).await };
        call_op(t, flb, FlbOp::Unpreserve, &mut args).await;
        t.write(flb.at(t, OUT_DATA), 0).await;
        t.write(flb.at(t, OUT_OBJ), 0).await;
    }
    t.mutex_unlock(lock).await;
}

/// `liveupdate_flb_get_outgoing()`: the live object. Bare: perhaps 0, and no reference.
pub async fn liveupdate_flb_get_outgoing(t: &Task, flb: FlbId) -> (Errno, u64) {
    let _in = t.call("liveupdate_flb_get_outgoing");
    if !liveupdate_enabled(t).await {
        return (EOPNOTSUPP, 0);
    }
    let lock = flb.at(t, OUT_LOCK);
    t.mutex_lock(lock).await;
    let obj = t.read(flb.at(t, OUT_OBJ)).await;
    let err = match t.k.rev.flb {
        Flb::Bare => 0,
        Flb::Refcounted if obj == 0 => ENOENT,
        Flb::Refcounted => {
            t.refcount_inc(flb.at(t, OUT_COUNT).cast::<Refcount>()).await;
            0
        }
    };
    t.mutex_unlock(lock).await;
    (err, obj)
}

/// `liveupdate_flb_put_outgoing()`: does not exist in the bare generation, where this does nothing.
pub async fn liveupdate_flb_put_outgoing(t: &Task, flb: FlbId) {
    match t.k.rev.flb {
        Flb::Bare => {}
        Flb::Refcounted => drop_outgoing(t, flb).await,
    }
}

/// `luo_flb_retrieve_one()`: finds the FLB's record and calls `retrieve`. The bare generation takes the lock here, the refcounted
/// one is called with it held.
async fn luo_flb_retrieve_one(t: &Task, flb: FlbId) -> Errno {
    let _in = t.call("luo_flb_retrieve_one");
    match t.k.rev.flb {
        Flb::Bare => {
            t.mutex_lock(flb.at(t, IN_LOCK)).await;
            let err = luo_flb_retrieve_locked(t, flb).await;
            t.mutex_unlock(flb.at(t, IN_LOCK)).await;
            err
        }
        Flb::Refcounted => {
            let status = t.read(flb.at(t, IN_STATUS)).await;
            if status < 0 {
                return status;
            }
            luo_flb_retrieve_locked(t, flb).await
        }
    }
}

async fn luo_flb_retrieve_locked(t: &Task, flb: FlbId) -> Errno {
    if t.read(flb.at(t, IN_FINISHED)).await != 0 {
        return ENODATA;
    }
    if t.read(flb.at(t, IN_STATUS)).await > 0 {
        return 0;
    }
    let header = t.read(t.sym(SECTION, IN_HEADER)).await;
    if header.is_null() {
        return ENODATA;
    }
    let nr = t.read(header.byte_add::<u64>(8)).await.min(abi::FLB_MAX);
    let mut found = Ptr::<u64>::NULL;
    for index in 0..nr {
        let entry = flb_entry(header, index);
        if super::file::text_is(t, entry, 48, flb.compatible(t)).await {
            found = entry;
            break;
        }
    }
    if found.is_null() {
        return ENOENT;
    }
    let data = t.read(found.byte_add::<u64>(48)).await;
    let count = t.read(found.byte_add::<u64>(56)).await;
    t.write(flb.at(t, IN_DATA), data).await;
    match t.k.rev.flb {
        Flb::Bare => t.write(flb.at(t, IN_COUNT), count).await,
        Flb::Refcounted => t.refcount_set(flb.at(t, IN_COUNT).cast::<Refcount>(), count as u32).await,
    }
    let mut args = FlbOpArgs { data, obj: 0 };
    let err = call_op(t, flb, FlbOp::Retrieve, &mut args).await;
    if err != 0 {
        if flb == FlbId::Iommu {
            t.mark(Mark::FlbRetrieveFailed);
        }
        if t.k.rev.flb == Flb::Refcounted {
            t.write(flb.at(t, IN_STATUS), err).await;
        }
        return err;
    }
    t.write(flb.at(t, IN_OBJ), args.obj).await;
    t.write(flb.at(t, IN_STATUS), 1).await;
    0
}

/// `liveupdate_flb_get_incoming()`: the object of the previous kernel's data. -ENODATA: nothing was handed over, or all is
/// finished; -ENOENT: no record of this FLB.
pub async fn liveupdate_flb_get_incoming(t: &Task, flb: FlbId) -> (Errno, u64) {
    let _in = t.call("liveupdate_flb_get_incoming");
    if !liveupdate_enabled(t).await {
        return (EOPNOTSUPP, 0);
    }
    let lock = flb.at(t, IN_LOCK);
    match t.k.rev.flb {
        Flb::Bare => {
            if t.read(flb.at(t, IN_OBJ)).await == 0 {
                let err = luo_flb_retrieve_one(t, flb).await;
                if err != 0 {
                    return (err, 0);
                }
            }
            t.mutex_lock(lock).await;
            let obj = t.read(flb.at(t, IN_OBJ)).await;
            t.mutex_unlock(lock).await;
            (0, obj)
        }
        Flb::Refcounted => {
            t.mutex_lock(lock).await;
            if t.read(flb.at(t, IN_OBJ)).await == 0 {
                let err = luo_flb_retrieve_one(t, flb).await;
                if err != 0 {
                    t.mutex_unlock(lock).await;
                    return (err, 0);
                }
            }
            t.refcount_inc(flb.at(t, IN_COUNT).cast::<Refcount>()).await;
            let obj = t.read(flb.at(t, IN_OBJ)).await;
            t.mutex_unlock(lock).await;
            (0, obj)
        }
    }
}

/// `liveupdate_flb_put_incoming()`: does not exist in the bare generation, where this does nothing.
pub async fn liveupdate_flb_put_incoming(t: &Task, flb: FlbId) {
    match t.k.rev.flb {
        Flb::Bare => {}
        Flb::Refcounted => drop_incoming(t, flb).await,
    }
}

/// `luo_flb_file_finish()`: each FLB of the handler has one file less.
pub(super) async fn luo_flb_file_finish(t: &Task, handler: HandlerId) {
    let Some(flb) = flb_of(t, handler).await else { return };
    match t.k.rev.flb {
        Flb::Bare => luo_flb_file_finish_one(t, flb).await,
        Flb::Refcounted => drop_incoming(t, flb).await,
    }
}

/// `luo_flb_file_finish_one()`, bare. The count is 0 until somebody retrieved: nobody's having asked makes it wrap.
async fn luo_flb_file_finish_one(t: &Task, flb: FlbId) {
    let _in = t.call("luo_flb_file_finish_one");
    let lock = flb.at(t, IN_LOCK);
    t.mutex_lock(lock).await;
    let count = t.read(flb.at(t, IN_COUNT)).await.wrapping_sub(1);
    t.write(flb.at(t, IN_COUNT), count).await;
    t.mutex_unlock(lock).await;
    if count != 0 && !t.k.has(Defect::FlbFinishEarly) {
        return;
    }
    if t.read(flb.at(t, IN_STATUS)).await == 0 {
        let err = luo_flb_retrieve_one(t, flb).await;
        if t.warn_on(err != 0, "luo_flb_file_finish_one: no data") {
            return;
        }
    }
    t.mutex_lock(lock).await;
    finish_locked(t, flb).await;
    t.mutex_unlock(lock).await;
}

/// Drops an incoming reference, refcounted; the last one finishes. A count that was never loaded underflows.
async fn drop_incoming(t: &Task, flb: FlbId) {
    let lock = flb.at(t, IN_LOCK);
    t.mutex_lock(lock).await;
    let last = match t.refcount_dec_and_test(flb.at(t, IN_COUNT).cast::<Refcount>()).await {
        Ok(last) => last,
        Err(_) => {
            t.warn_on(true, "incoming FLB refcount underflow");
            false
        }
    };
    // Assumed: an FLB whose retrieve failed has no object to finish.
    if (last || t.k.has(Defect::FlbFinishEarly)) && t.read(flb.at(t, IN_STATUS)).await > 0 {
        finish_locked(t, flb).await;
    }
    t.mutex_unlock(lock).await;
}

async fn finish_locked(t: &Task, flb: FlbId) {
    let mut args = FlbOpArgs { data: t.read(flb.at(t, IN_DATA)).await, obj: t.read(flb.at(t, IN_OBJ)).await };
    call_op(t, flb, FlbOp::Finish, &mut args).await;
    t.write(flb.at(t, IN_DATA), 0).await;
    t.write(flb.at(t, IN_OBJ), 0).await;
    t.write(flb.at(t, IN_FINISHED), 1).await;
}

/// `luo_flb_serialize()`: one record for each FLB that files depend on. Reads counts and data without the FLB's mutex.
pub(super) async fn luo_flb_serialize(t: &Task) {
    let _in = t.call("luo_flb_serialize");
    let header = t.read(t.sym(SECTION, OUT_HEADER)).await;
    let lock = t.sym(super::SECTION, Luo::REGISTER_LOCK);
    t.down_read(lock).await;
    let mut nr = 0;
    for flb in FlbId::ALL {
        let count = match t.k.rev.flb {
            Flb::Bare => t.read(flb.at(t, OUT_COUNT)).await,
            Flb::Refcounted => u64::from(t.refcount_read(flb.at(t, OUT_COUNT).cast::<Refcount>()).await),
        };
        if count == 0 {
            continue;
        }
        let entry = flb_entry(header, nr);
        super::file::put_text(t, entry, flb.compatible(t)).await;
        let data = t.read(flb.at(t, OUT_DATA)).await;
        t.write(entry.byte_add::<u64>(48), data).await;
        t.write(entry.byte_add::<u64>(56), count).await;
        nr += 1;
    }
    t.write(header.byte_add::<u64>(8), nr).await;
    t.up_read(lock).await;
}

fn flb_entry(header: Ptr<u64>, index: u64) -> Ptr<u64> {
    header.byte_add(u64::from(abi::FLB_HEADER.bytes) + index * u64::from(abi::FLB.bytes))
}

/// `luo_flb_setup_outgoing()`: the header page, already allocated, gets its page count.
pub(super) async fn luo_flb_setup_outgoing(t: &Task, header: Ptr<u64>) {
    t.write(header, 1).await;
    t.write(t.sym(SECTION, OUT_HEADER), header).await;
}

/// `luo_flb_setup_incoming()`: remembers the previous kernel's header. -EINVAL for one that cannot be.
pub(super) async fn luo_flb_setup_incoming(t: &Task, pa: Pa) -> Errno {
    if !kho_is_preserved(t, pa).await {
        return EINVAL;
    }
    let header = Ptr::<u64>::from_pa(pa);
    let pages = t.read(header).await;
    let count = t.read(header.byte_add::<u64>(8)).await;
    if pages != 1 || count > abi::FLB_MAX {
        return EINVAL;
    }
    t.write(t.sym(SECTION, IN_HEADER), header).await;
    0
}
