//! The object table of a context and the two counts of each object: `drivers/iommu/iommufd/{main.c,iommufd_private.h}`.
//!
//! `users` counts everybody who holds the object, the table included; `wait_cnt` counts those who hold it for a short time only.
//! Userspace can destroy an object while `users` is 1. Destroying by a driver first waits for the short-term holders.
//!
//! The xarray is one node of [`SLOTS`] entries with one mark bit each, made at the first allocation and kept until the context is
//! released. [`iommufd_lock_obj`] changes two counts and never sleeps, so it may be called under the table's spinlock.
//!
//! Not modelled: nodes beyond the first (a full table is -ENOMEM), RCU, the time-out of 60 s in `iommufd_object_dec_wait` (the
//! engine finds the deadlock), vIOMMU, vdevice, fault queue and access objects.

use sim::memory::{Field, Ptr, Tag, field};
use sim::sync::Refcount;

use super::{IommufdCtx, device, hwpt, ioas};
use crate::errno::{EBUSY, ENOENT, ENOMEM, Errno};
use crate::kernel::Task;
use crate::kernel::mm::{Gfp, kfree, kzalloc};
use crate::tag;

/// `struct iommufd_object`, first member of every object.
#[derive(Clone, Copy, Debug)]
pub struct Object;

impl Object {
    /// `wait_cnt`.
    pub const WAIT_CNT: Field<Refcount> = field(0, "obj.wait_cnt");
    /// `users`.
    pub const USERS: Field<Refcount> = field(4, "obj.users");
    /// `type`, an [`ObjectType`].
    pub const TYPE: Field<u32> = field(8, "obj.type");
    /// `id`.
    pub const ID: Field<u32> = field(12, "obj.id");
    /// Bytes.
    pub const BYTES: u16 = 16;
}

/// `enum iommufd_object_type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum ObjectType {
    /// `IOMMUFD_OBJ_ANY`: matches all.
    Any = 0,
    /// `IOMMUFD_OBJ_DEVICE`.
    Device = 1,
    /// `IOMMUFD_OBJ_HWPT_PAGING`.
    HwptPaging = 2,
    /// `IOMMUFD_OBJ_IOAS`.
    Ioas = 4,
}

/// `struct xa_node` of the object table.
#[derive(Clone, Copy, Debug)]
pub struct XaNode;

/// Entries of the node.
pub const SLOTS: u32 = 60;
/// `XA_ZERO_ENTRY`: the id is taken, the object is not published.
pub const XA_ZERO_ENTRY: u64 = 257 << 2 | 2;

impl XaNode {
    /// Highest id ever used; bounds scans.
    const HIGHEST: Field<u32> = field(0, "xa_node.highest");
    /// `count`: entries that are not NULL.
    const COUNT: Field<u32> = field(4, "xa_node.count");
    /// `marks[XA_MARK_1]`: the object is to be preserved.
    const MARKS: Field<u64> = field(8, "xa_node.marks");
    /// Bytes.
    const BYTES: u16 = 16 + SLOTS as u16 * 8;

    const fn slot(id: u32) -> Field<u64> {
        field(16 + (id as u16 - 1) * 8, "xa_node.slot")
    }
}

/// `refcount_inc()`, with the warning for a count of 0.
pub async fn refcount_inc(t: &Task, at: Ptr<Refcount>) {
    let alive = t.refcount_inc(at).await;
    t.warn_on(!alive, "refcount_t: addition on 0");
}

/// `refcount_dec_and_test()`, with the warning for an underflow.
pub async fn refcount_dec_and_test(t: &Task, at: Ptr<Refcount>) -> bool {
    match t.refcount_dec_and_test(at).await {
        Ok(zero) => zero,
        Err(_) => {
            t.warn_on(true, "refcount_t: underflow");
            false
        }
    }
}

/// `refcount_dec()`: the caller knows that others hold the object.
pub async fn refcount_dec(t: &Task, at: Ptr<Refcount>) {
    let last = refcount_dec_and_test(t, at).await;
    t.warn_on(last, "refcount_t: decrement hit 0");
}

/// `refcount_dec_if_one()`.
async fn refcount_dec_if_one(t: &Task, at: Ptr<Refcount>) -> bool {
    t.rmw(at.cast::<u32>(), |count| (count == 1).then_some(0)).await == 1
}

/// `xa_load()`: NULL for ids outside the table.
async fn xa_load(t: &Task, ictx: Ptr<IommufdCtx>, id: u32) -> u64 {
    let node = t.read_once(ictx.at(IommufdCtx::XA_HEAD)).await;
    if node.is_null() || id == 0 || id > SLOTS {
        return 0;
    }
    t.read_once(node.at(XaNode::slot(id))).await
}

/// `__xa_store()` over an entry that is there; NULL erases it with its mark. The caller holds `xa_lock`. Returns the old entry.
async fn xa_store_locked(t: &Task, ictx: Ptr<IommufdCtx>, id: u32, entry: u64) -> u64 {
    let node = t.read(ictx.at(IommufdCtx::XA_HEAD)).await;
    let old = t.read(node.at(XaNode::slot(id))).await;
    t.store_release(node.at(XaNode::slot(id)), entry).await;
    if entry == 0 && old != 0 {
        let marks = t.read(node.at(XaNode::MARKS)).await;
        if marks & 1 << id != 0 {
            t.write(node.at(XaNode::MARKS), marks & !(1 << id)).await;
        }
        let count = t.read(node.at(XaNode::COUNT)).await;
        t.write(node.at(XaNode::COUNT), count.wrapping_sub(1)).await;
    }
    old
}

/// `xa_alloc()` of `XA_ZERO_ENTRY` at the lowest free id, which goes to `id`.
async fn xa_alloc(t: &Task, ictx: Ptr<IommufdCtx>, id: Ptr<u32>) -> Errno {
    t.spin_lock(ictx.at(IommufdCtx::XA_LOCK)).await;
    let mut node = t.read(ictx.at(IommufdCtx::XA_HEAD)).await;
    if node.is_null() {
        // xas_nomem(): the lock is dropped to allocate, then everything is looked at again.
        t.spin_unlock(ictx.at(IommufdCtx::XA_LOCK)).await;
        let fresh: Ptr<XaNode> = kzalloc(t, XaNode::BYTES, Gfp::Kernel, tag::IOMMUFD_OBJECTS).await;
        if fresh.is_null() {
            return ENOMEM;
        }
        t.spin_lock(ictx.at(IommufdCtx::XA_LOCK)).await;
        node = t.read(ictx.at(IommufdCtx::XA_HEAD)).await;
        if node.is_null() {
            t.store_release(ictx.at(IommufdCtx::XA_HEAD), fresh).await;
            node = fresh;
        } else {
            t.spin_unlock(ictx.at(IommufdCtx::XA_LOCK)).await;
            kfree(t, fresh).await;
            t.spin_lock(ictx.at(IommufdCtx::XA_LOCK)).await;
        }
    }
    let mut free = 1;
    while free <= SLOTS && t.read(node.at(XaNode::slot(free))).await != 0 {
        free += 1;
    }
    if free > SLOTS {
        t.spin_unlock(ictx.at(IommufdCtx::XA_LOCK)).await;
        return ENOMEM;
    }
    t.write(id, free).await;
    t.store_release(node.at(XaNode::slot(free)), XA_ZERO_ENTRY).await;
    let count = t.read(node.at(XaNode::COUNT)).await;
    t.write(node.at(XaNode::COUNT), count + 1).await;
    if free > t.read(node.at(XaNode::HIGHEST)).await {
        t.write(node.at(XaNode::HIGHEST), free).await;
    }
    t.spin_unlock(ictx.at(IommufdCtx::XA_LOCK)).await;
    0
}

/// `xa_find()` from `id` on: the next published object, NULL at the end; reserved ids are skipped. `marked`: only those with the mark.
pub async fn xa_find(t: &Task, ictx: Ptr<IommufdCtx>, id: u32, marked: bool) -> (u32, Ptr<Object>) {
    let node = t.read_once(ictx.at(IommufdCtx::XA_HEAD)).await;
    if node.is_null() {
        return (id, Ptr::NULL);
    }
    let highest = t.read_once(node.at(XaNode::HIGHEST)).await;
    let marks = if marked { t.read_once(node.at(XaNode::MARKS)).await } else { u64::MAX };
    let mut at = id;
    while at <= highest.min(SLOTS) {
        if marks & 1 << at != 0 {
            let entry = t.read_once(node.at(XaNode::slot(at))).await;
            if entry != 0 && entry != XA_ZERO_ENTRY {
                return (at, Ptr::new(entry));
            }
        }
        at += 1;
    }
    (at, Ptr::NULL)
}

/// `__xa_set_mark()`. The caller holds `xa_lock`.
pub async fn xa_set_mark(t: &Task, ictx: Ptr<IommufdCtx>, id: u32) {
    let node = t.read(ictx.at(IommufdCtx::XA_HEAD)).await;
    let marks = t.read(node.at(XaNode::MARKS)).await;
    t.write(node.at(XaNode::MARKS), marks | 1 << id).await;
}

/// `xa_get_mark()`, without the lock.
pub async fn xa_get_mark(t: &Task, ictx: Ptr<IommufdCtx>, id: u32) -> bool {
    let node = t.read_once(ictx.at(IommufdCtx::XA_HEAD)).await;
    !node.is_null() && t.read_once(node.at(XaNode::MARKS)).await & 1 << id != 0
}

/// `_iommufd_object_alloc()`, main.c: the object exists with an id that nobody can look up yet. ERR pointer on failure.
pub async fn iommufd_object_alloc<T>(t: &Task, ictx: Ptr<IommufdCtx>, bytes: u16, kind: ObjectType, tag: Tag) -> Ptr<T> {
    let obj: Ptr<Object> = kzalloc(t, bytes, Gfp::Kernel, tag).await;
    if obj.is_null() {
        return Ptr::err(-ENOMEM);
    }
    t.write(obj.at(Object::TYPE), kind as u32).await;
    t.refcount_set(obj.at(Object::USERS), 1).await;
    t.refcount_set(obj.at(Object::WAIT_CNT), 1).await;
    let rc = xa_alloc(t, ictx, obj.at(Object::ID)).await;
    if rc != 0 {
        kfree(t, obj).await;
        return Ptr::err(-rc);
    }
    obj.cast()
}

/// `iommufd_object_finalize()`, main.c: from here on userspace can look the object up, and destroy it.
pub async fn iommufd_object_finalize(t: &Task, ictx: Ptr<IommufdCtx>, obj: Ptr<Object>) {
    let id = t.read(obj.at(Object::ID)).await;
    t.spin_lock(ictx.at(IommufdCtx::XA_LOCK)).await;
    let old = xa_store_locked(t, ictx, id, obj.value()).await;
    t.spin_unlock(ictx.at(IommufdCtx::XA_LOCK)).await;
    t.warn_on(old != XA_ZERO_ENTRY, "iommufd_object_finalize");
}

/// `iommufd_object_abort()`, main.c: undoes [`iommufd_object_alloc`].
pub async fn iommufd_object_abort(t: &Task, ictx: Ptr<IommufdCtx>, obj: Ptr<Object>) {
    let id = t.read(obj.at(Object::ID)).await;
    t.spin_lock(ictx.at(IommufdCtx::XA_LOCK)).await;
    let old = xa_store_locked(t, ictx, id, 0).await;
    t.spin_unlock(ictx.at(IommufdCtx::XA_LOCK)).await;
    t.warn_on(old != XA_ZERO_ENTRY, "iommufd_object_abort");
    kfree(t, obj).await;
}

/// `iommufd_lock_obj()`, iommufd_private.h: a short-term hold, unless the object is being destroyed.
pub async fn iommufd_lock_obj(t: &Task, obj: Ptr<Object>) -> bool {
    if !t.refcount_inc_not_zero(obj.at(Object::USERS)).await {
        return false;
    }
    if !t.refcount_inc_not_zero(obj.at(Object::WAIT_CNT)).await {
        refcount_dec(t, obj.at(Object::USERS)).await;
        return false;
    }
    true
}

/// `iommufd_get_object()`, main.c: looks an object up and holds it for a short time. ERR pointer when it is not there.
pub async fn iommufd_get_object<T>(t: &Task, ictx: Ptr<IommufdCtx>, id: u32, kind: ObjectType) -> Ptr<T> {
    t.spin_lock(ictx.at(IommufdCtx::XA_LOCK)).await;
    let entry = xa_load(t, ictx, id).await;
    let mut obj: Ptr<Object> = if entry == XA_ZERO_ENTRY { Ptr::NULL } else { Ptr::new(entry) };
    if obj.is_null() || (kind != ObjectType::Any && t.read(obj.at(Object::TYPE)).await != kind as u32) || !iommufd_lock_obj(t, obj).await {
        obj = Ptr::err(-ENOENT);
    }
    t.spin_unlock(ictx.at(IommufdCtx::XA_LOCK)).await;
    obj.cast()
}

/// `iommufd_put_object()`, iommufd_private.h. `users` first, so that whoever waits for `wait_cnt` never sees a stray user.
pub async fn iommufd_put_object(t: &Task, ictx: Ptr<IommufdCtx>, obj: Ptr<Object>) {
    refcount_dec(t, obj.at(Object::USERS)).await;
    if refcount_dec_and_test(t, obj.at(Object::WAIT_CNT)).await {
        t.wake_up(ictx.at(IommufdCtx::DESTROY_WAIT)).await;
    }
}

/// `iommufd_object_dec_wait()`, main.c: gives the table's short-term hold back and waits for the others.
async fn iommufd_object_dec_wait(t: &Task, ictx: Ptr<IommufdCtx>, obj: Ptr<Object>) {
    if refcount_dec_and_test(t, obj.at(Object::WAIT_CNT)).await {
        return;
    }
    while t.refcount_read(obj.at(Object::WAIT_CNT)).await != 0 {
        t.sleep_on(ictx.at(IommufdCtx::DESTROY_WAIT)).await;
    }
}

/// `iommufd_object_remove()`, main.c. `to_destroy` is NULL for the ioctl; else the caller's own `users` hold goes with it, and the
/// short-term holders are waited for (`REMOVE_WAIT`).
pub async fn iommufd_object_remove(t: &Task, ictx: Ptr<IommufdCtx>, to_destroy: Ptr<Object>, id: u32) -> Errno {
    let _in = t.call("iommufd_object_remove");
    let mut zerod_wait_cnt = false;
    if !to_destroy.is_null() {
        iommufd_object_dec_wait(t, ictx, to_destroy).await;
        zerod_wait_cnt = true;
    }
    t.spin_lock(ictx.at(IommufdCtx::XA_LOCK)).await;
    let entry = xa_load(t, ictx, id).await;
    let ret = 'err_xa: {
        if entry == 0 || entry == XA_ZERO_ENTRY || t.warn_on(!to_destroy.is_null() && entry != to_destroy.value(), "iommufd_object_remove")
        {
            break 'err_xa ENOENT;
        }
        let obj: Ptr<Object> = Ptr::new(entry);
        if !to_destroy.is_null() {
            refcount_dec(t, obj.at(Object::USERS)).await;
        }
        if !refcount_dec_if_one(t, obj.at(Object::USERS)).await {
            if t.warn_on(zerod_wait_cnt, "iommufd_object_remove users") {
                t.refcount_set(obj.at(Object::WAIT_CNT), 1).await;
            }
            break 'err_xa EBUSY;
        }
        xa_store_locked(t, ictx, id, 0).await;
        t.spin_unlock(ictx.at(IommufdCtx::XA_LOCK)).await;

        if !zerod_wait_cnt {
            iommufd_object_dec_wait(t, ictx, obj).await;
        }
        iommufd_object_ops_destroy(t, obj).await;
        kfree(t, obj).await;
        return 0;
    };
    t.spin_unlock(ictx.at(IommufdCtx::XA_LOCK)).await;
    ret
}

/// `iommufd_object_ops[obj->type].destroy(obj)`.
async fn iommufd_object_ops_destroy(t: &Task, obj: Ptr<Object>) {
    let kind = t.read(obj.at(Object::TYPE)).await;
    if kind == ObjectType::Device as u32 {
        device::iommufd_device_destroy(t, obj.cast()).await;
    } else if kind == ObjectType::HwptPaging as u32 {
        hwpt::iommufd_hwpt_paging_destroy(t, obj.cast()).await;
    } else if kind == ObjectType::Ioas as u32 {
        ioas::iommufd_ioas_destroy(t, obj.cast()).await;
    }
}

/// The object loop of `iommufd_fops_release()`, main.c: holds form a tree, so each round frees what nothing holds any more.
pub async fn iommufd_object_destroy_all(t: &Task, ictx: Ptr<IommufdCtx>) {
    let node = t.read(ictx.at(IommufdCtx::XA_HEAD)).await;
    if node.is_null() {
        return;
    }
    while t.read(node.at(XaNode::COUNT)).await != 0 {
        let mut destroyed = 0;
        let mut id = 1;
        loop {
            let (at, obj) = xa_find(t, ictx, id, false).await;
            if obj.is_null() {
                break;
            }
            id = at + 1;
            if !refcount_dec_if_one(t, obj.at(Object::USERS)).await {
                continue;
            }
            destroyed += 1;
            t.spin_lock(ictx.at(IommufdCtx::XA_LOCK)).await;
            xa_store_locked(t, ictx, at, 0).await;
            t.spin_unlock(ictx.at(IommufdCtx::XA_LOCK)).await;
            iommufd_object_ops_destroy(t, obj).await;
            kfree(t, obj).await;
        }
        if t.warn_on(destroyed == 0, "iommufd_fops_release") {
            break;
        }
    }
    t.write(ictx.at(IommufdCtx::XA_HEAD), Ptr::NULL).await;
    kfree(t, node).await;
}
