//! `struct list_head`, include/linux/list.h: circular doubly linked lists through memory, each word a store.

use sim::memory::{Field, Ptr, field};

use super::super::Task;

/// `struct list_head`: two words.
#[derive(Clone, Copy, Debug)]
pub struct ListHead;

impl ListHead {
    /// Next entry, or the head.
    pub const NEXT: Field<Ptr<ListHead>> = field(0, "next");
    /// Previous entry, or the head.
    pub const PREV: Field<Ptr<ListHead>> = field(8, "prev");
}

/// What `list_del` leaves in `next`.
pub const LIST_POISON1: u64 = 0xdead_0000_0000_0100;
/// What `list_del` leaves in `prev`.
pub const LIST_POISON2: u64 = 0xdead_0000_0000_0122;

/// `INIT_LIST_HEAD()`.
pub async fn init(t: &Task, head: Ptr<ListHead>) {
    t.write_once(head.at(ListHead::NEXT), head).await;
    t.write_once(head.at(ListHead::PREV), head).await;
}

/// `__list_add()`: `new` between two neighbours.
async fn insert(t: &Task, new: Ptr<ListHead>, prev: Ptr<ListHead>, next: Ptr<ListHead>) {
    t.write(next.at(ListHead::PREV), new).await;
    t.write(new.at(ListHead::NEXT), next).await;
    t.write(new.at(ListHead::PREV), prev).await;
    t.write_once(prev.at(ListHead::NEXT), new).await;
}

/// `list_add()`: at the front.
pub async fn add(t: &Task, new: Ptr<ListHead>, head: Ptr<ListHead>) {
    let next = t.read(head.at(ListHead::NEXT)).await;
    insert(t, new, head, next).await;
}

/// `list_add_tail()`: at the end.
pub async fn add_tail(t: &Task, new: Ptr<ListHead>, head: Ptr<ListHead>) {
    let prev = t.read(head.at(ListHead::PREV)).await;
    insert(t, new, prev, head).await;
}

/// `list_del()`: unlinks and poisons.
pub async fn del(t: &Task, entry: Ptr<ListHead>) {
    unlink(t, entry).await;
    t.write(entry.at(ListHead::NEXT), Ptr::new(LIST_POISON1)).await;
    t.write(entry.at(ListHead::PREV), Ptr::new(LIST_POISON2)).await;
}

/// `list_del_init()`: unlinks and makes an empty list.
pub async fn del_init(t: &Task, entry: Ptr<ListHead>) {
    unlink(t, entry).await;
    init(t, entry).await;
}

/// `__list_del_entry()`.
async fn unlink(t: &Task, entry: Ptr<ListHead>) {
    let next = t.read(entry.at(ListHead::NEXT)).await;
    let prev = t.read(entry.at(ListHead::PREV)).await;
    t.write(next.at(ListHead::PREV), prev).await;
    t.write_once(prev.at(ListHead::NEXT), next).await;
}

/// `list_empty()`.
pub async fn empty(t: &Task, head: Ptr<ListHead>) -> bool {
    t.read_once(head.at(ListHead::NEXT)).await == head
}

/// The entry after `at`; `None` when that is the head.
pub async fn next(t: &Task, at: Ptr<ListHead>, head: Ptr<ListHead>) -> Option<Ptr<ListHead>> {
    let next = t.read_once(at.at(ListHead::NEXT)).await;
    (next != head).then_some(next)
}

/// The entry before `at`; `None` when that is the head.
pub async fn prev(t: &Task, at: Ptr<ListHead>, head: Ptr<ListHead>) -> Option<Ptr<ListHead>> {
    let prev = t.read_once(at.at(ListHead::PREV)).await;
    (prev != head).then_some(prev)
}

/// `list_first_entry_or_null()`, as a link.
pub async fn first(t: &Task, head: Ptr<ListHead>) -> Option<Ptr<ListHead>> {
    next(t, head, head).await
}

/// The last link, if any.
pub async fn last(t: &Task, head: Ptr<ListHead>) -> Option<Ptr<ListHead>> {
    prev(t, head, head).await
}

/// `list_splice_tail_init()`: moves all entries of `from` to the end of `to`.
pub async fn splice_tail_init(t: &Task, from: Ptr<ListHead>, to: Ptr<ListHead>) {
    if empty(t, from).await {
        return;
    }
    let first = t.read(from.at(ListHead::NEXT)).await;
    let last = t.read(from.at(ListHead::PREV)).await;
    let tail = t.read(to.at(ListHead::PREV)).await;
    t.write(first.at(ListHead::PREV), tail).await;
    t.write(tail.at(ListHead::NEXT), first).await;
    t.write(last.at(ListHead::NEXT), to).await;
    t.write(to.at(ListHead::PREV), last).await;
    init(t, from).await;
}

/// `container_of()`: the structure whose member `member` is the link `link`.
pub const fn entry<T>(link: Ptr<ListHead>, member: Field<ListHead>) -> Ptr<T> {
    Ptr::new(link.value().wrapping_sub(member.offset as u64))
}
