//! `luo_preserved_files`: which files are preserved anywhere, so that none is preserved twice.
//!
//! The kernel uses an xarray keyed by the handler's `get_id` or the file's address; here it is a short singly linked table under
//! the same lock. Nodes are allocated outside of the lock, as `xa_insert` does with GFP_KERNEL.

use sim::memory::{Field, Ptr, field};

use super::super::Task;
use super::super::mm::{Gfp, kfree, kzalloc};
use super::{Luo, SECTION};
use crate::errno::{EBUSY, ENOMEM, Errno};
use crate::tag;

/// One preserved file.
#[derive(Clone, Copy, Debug)]
pub struct Entry;

impl Entry {
    const NEXT: Field<Ptr<Entry>> = field(0, "next");
    const KEY: Field<u64> = field(8, "key");
    const BYTES: u16 = 16;
}

/// `xa_insert(&luo_preserved_files, key)`: -EBUSY when the key is there.
pub async fn insert(t: &Task, key: u64) -> Errno {
    let entry = kzalloc::<Entry>(t, Entry::BYTES, Gfp::Kernel, tag::XA_NODE).await;
    if entry.is_null() {
        return ENOMEM;
    }
    t.write(entry.at(Entry::KEY), key).await;
    let lock = t.sym(SECTION, Luo::PRESERVED_LOCK);
    let root = t.sym(SECTION, Luo::PRESERVED);
    t.spin_lock(lock).await;
    let first = t.read(root).await;
    let mut at = first;
    while !at.is_null() && t.read(at.at(Entry::KEY)).await != key {
        at = t.read(at.at(Entry::NEXT)).await;
    }
    if at.is_null() {
        t.write(entry.at(Entry::NEXT), first).await;
        t.write(root, entry).await;
    }
    t.spin_unlock(lock).await;
    if !at.is_null() {
        kfree(t, entry).await;
        return EBUSY;
    }
    0
}

/// `xa_erase(&luo_preserved_files, key)`.
pub async fn erase(t: &Task, key: u64) {
    let lock = t.sym(SECTION, Luo::PRESERVED_LOCK);
    t.spin_lock(lock).await;
    let mut slot = t.sym(SECTION, Luo::PRESERVED);
    let mut at = t.read(slot).await;
    while !at.is_null() && t.read(at.at(Entry::KEY)).await != key {
        slot = at.at(Entry::NEXT);
        at = t.read(slot).await;
    }
    if !at.is_null() {
        let next = t.read(at.at(Entry::NEXT)).await;
        t.write(slot, next).await;
    }
    t.spin_unlock(lock).await;
    kfree(t, at).await;
}
