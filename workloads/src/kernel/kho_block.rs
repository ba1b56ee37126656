//! `kho_block`: growable arrays of equal entries in a chain of preserved pages.
//!
//! A block is one page: physical address of the next block, number of valid entries, then the entries. The in-memory side is a
//! list of `struct kho_block` in chain order. The set's `incoming` flag decides how a block is freed. No lock: callers serialise.
//! A chain is refused as a whole when it has a cycle, more than 10000 blocks, or a block with no or too many entries.
//!
//! Source: kernel/liveupdate/kho_block.c, include/linux/kho/abi/block.h (mainline, mid 2026).

use iommu_model::addr::Pa;
use sim::memory::{Field, Ptr, field};

use super::Task;
use super::kho::{kho_alloc_preserve, kho_restore_free, kho_unpreserve_free};
use super::mm::list::{self, ListHead};
use super::mm::{Gfp, kfree, kzalloc};
use crate::abi::kho as abi;
use crate::errno::{EINVAL, ENOMEM, ENOSPC, Errno};
use crate::tag;

/// `struct kho_block_header_ser`.
#[derive(Clone, Copy, Debug)]
pub struct BlockSer;

impl BlockSer {
    /// Physical address of the next block.
    pub const NEXT: Field<u64> = abi::BLOCK_HEADER.field("next");
    /// Valid entries.
    pub const COUNT: Field<u64> = abi::BLOCK_HEADER.field("count");
    const HEADER_BYTES: u64 = abi::BLOCK_HEADER.bytes as u64;
}

/// `struct kho_block`: one block of a set.
#[derive(Clone, Copy, Debug)]
pub struct KhoBlock;

impl KhoBlock {
    const LIST: Field<ListHead> = field(0, "list");
    const SER: Field<Ptr<BlockSer>> = field(16, "ser");
    const BYTES: u16 = 24;
}

/// `struct kho_block_set`, embedded in its owner.
#[derive(Clone, Copy, Debug)]
pub struct KhoBlockSet;

impl KhoBlockSet {
    const BLOCKS: Field<ListHead> = field(0, "blocks");
    /// Number of blocks.
    pub const NR_BLOCKS: Field<u64> = field(16, "nr_blocks");
    /// Physical address of the first block, 0 for none: what the owner hands over.
    pub const HEAD_PA: Field<u64> = field(24, "head_pa");
    const ENTRY_BYTES: Field<u32> = field(32, "entry_size");
    const INCOMING: Field<u32> = field(36, "incoming");
    /// Bytes.
    pub const BYTES: u16 = 40;
}

/// `struct kho_block_set_it`: a position, as a caller's stack holds it.
#[derive(Clone, Copy, Debug)]
pub struct BlockIterator {
    block: Ptr<ListHead>,
    index: u64,
}

fn block_of(link: Ptr<ListHead>) -> Ptr<KhoBlock> {
    list::entry(link, KhoBlock::LIST)
}

async fn count_per_block(t: &Task, set: Ptr<KhoBlockSet>) -> u64 {
    let fits = (abi::BLOCK_BYTES - BlockSer::HEADER_BYTES) / u64::from(t.read(set.at(KhoBlockSet::ENTRY_BYTES)).await.max(8));
    // Scaled, as arrays of the IOMMU FLB are: few entries fill a block, and a set has several.
    t.k.env.plan.slots.map_or(fits, |slots| slots.min(fits))
}

/// `kho_block_set_init()`: an empty set.
pub async fn kho_block_set_init(t: &Task, set: Ptr<KhoBlockSet>, entry_bytes: u16, incoming: bool) {
    list::init(t, set.at(KhoBlockSet::BLOCKS)).await;
    t.write(set.at(KhoBlockSet::NR_BLOCKS), 0).await;
    t.write(set.at(KhoBlockSet::HEAD_PA), 0).await;
    t.write(set.at(KhoBlockSet::ENTRY_BYTES), u32::from(entry_bytes)).await;
    t.write(set.at(KhoBlockSet::INCOMING), u32::from(incoming)).await;
}

/// `kho_block_set_grow()`: capacity for `count` entries; on an error the set is as before.
pub async fn kho_block_set_grow(t: &Task, set: Ptr<KhoBlockSet>, count: u64) -> Errno {
    let _in = t.call("kho_block_set_grow");
    if t.warn_on(t.read(set.at(KhoBlockSet::INCOMING)).await != 0, "kho_block_set_grow: incoming") {
        return EINVAL;
    }
    let per_block = count_per_block(t, set).await;
    let before = t.read(set.at(KhoBlockSet::NR_BLOCKS)).await;
    let mut nr = before;
    while nr * per_block < count {
        let err = if nr >= abi::BLOCKS_MAX { ENOSPC } else { kho_block_add(t, set).await };
        if err != 0 {
            kho_block_set_shrink(t, set, before * per_block).await;
            return err;
        }
        nr += 1;
    }
    0
}

/// `kho_block_add()`: one more block: first on the list, then linked into the chain.
async fn kho_block_add(t: &Task, set: Ptr<KhoBlockSet>) -> Errno {
    let block = kzalloc::<KhoBlock>(t, KhoBlock::BYTES, Gfp::Kernel, tag::KHO_BLOCK).await;
    if block.is_null() {
        return ENOMEM;
    }
    let ser = kho_alloc_preserve::<BlockSer>(t, abi::BLOCK_BYTES, tag::LUO).await;
    if let Some(errno) = ser.errno() {
        kfree(t, block).await;
        return -errno;
    }
    t.write(block.at(KhoBlock::SER), ser).await;
    let head = set.at(KhoBlockSet::BLOCKS);
    let last = list::last(t, head).await;
    list::add_tail(t, block.at(KhoBlock::LIST), head).await;
    match last {
        Some(last) => {
            let previous = t.read(block_of(last).at(KhoBlock::SER)).await;
            t.write(previous.at(BlockSer::NEXT), ser.pa().0).await;
        }
        None => t.write(set.at(KhoBlockSet::HEAD_PA), ser.pa().0).await,
    }
    let nr = t.read(set.at(KhoBlockSet::NR_BLOCKS)).await;
    t.write(set.at(KhoBlockSet::NR_BLOCKS), nr + 1).await;
    0
}

/// `kho_block_set_shrink()`: drops last blocks while `count` entries fit the rest.
pub async fn kho_block_set_shrink(t: &Task, set: Ptr<KhoBlockSet>, count: u64) {
    let per_block = count_per_block(t, set).await;
    let head = set.at(KhoBlockSet::BLOCKS);
    let mut nr = t.read(set.at(KhoBlockSet::NR_BLOCKS)).await;
    while nr > 0 && (nr - 1) * per_block >= count {
        let Some(last) = list::last(t, head).await else { return };
        let before = list::prev(t, last, head).await;
        match before {
            Some(before) => {
                let previous = t.read(block_of(before).at(KhoBlock::SER)).await;
                // A block of the previous kernel is read-only until it is restored, and freed without ever being walked again.
                if t.read(set.at(KhoBlockSet::INCOMING)).await == 0 {
                    t.write(previous.at(BlockSer::NEXT), 0).await;
                }
            }
            None => t.write(set.at(KhoBlockSet::HEAD_PA), 0).await,
        }
        kho_block_remove(t, set, last).await;
        nr -= 1;
    }
}

/// `kho_block_remove()`: unlinks and frees one block, as the set's direction demands.
async fn kho_block_remove(t: &Task, set: Ptr<KhoBlockSet>, link: Ptr<ListHead>) {
    let block = block_of(link);
    let ser = t.read(block.at(KhoBlock::SER)).await;
    list::del(t, link).await;
    let nr = t.read(set.at(KhoBlockSet::NR_BLOCKS)).await;
    t.write(set.at(KhoBlockSet::NR_BLOCKS), nr.wrapping_sub(1)).await;
    if t.read(set.at(KhoBlockSet::INCOMING)).await != 0 {
        kho_restore_free(t, ser).await;
    } else {
        kho_unpreserve_free(t, ser).await;
    }
    kfree(t, block).await;
}

/// `kho_block_set_destroy()`: frees every block.
pub async fn kho_block_set_destroy(t: &Task, set: Ptr<KhoBlockSet>) {
    let _in = t.call("kho_block_set_destroy");
    kho_block_set_shrink(t, set, 0).await;
}

/// `kho_block_set_clear()`: no entry is valid any more; the blocks stay. Entries that were reserved are zeroed.
pub async fn kho_block_set_clear(t: &Task, set: Ptr<KhoBlockSet>) {
    let entry_bytes = u64::from(t.read(set.at(KhoBlockSet::ENTRY_BYTES)).await);
    let head = set.at(KhoBlockSet::BLOCKS);
    let mut at = list::first(t, head).await;
    while let Some(link) = at {
        let ser = t.read(block_of(link).at(KhoBlock::SER)).await;
        let count = t.read(ser.at(BlockSer::COUNT)).await;
        t.write(ser.at(BlockSer::COUNT), 0).await;
        t.memset(ser.byte_add::<u64>(BlockSer::HEADER_BYTES), 0, count * entry_bytes).await;
        at = list::next(t, link, head).await;
    }
}

/// `kho_block_set_restore()`: takes over the chain that starts at `head_pa`. The blocks are not restored as folios yet: each is
/// when it is dropped. On an error nothing of the chain is left.
pub async fn kho_block_set_restore(t: &Task, set: Ptr<KhoBlockSet>, head_pa: u64) -> Errno {
    let _in = t.call("kho_block_set_restore");
    if !kho_block_chain_is_sound(t, set, head_pa).await {
        kho_block_chain_free(t, head_pa).await;
        return EINVAL;
    }
    t.write(set.at(KhoBlockSet::HEAD_PA), head_pa).await;
    let mut at = head_pa;
    while at != 0 {
        let ser = Ptr::<BlockSer>::from_pa(Pa(at));
        let block = kzalloc::<KhoBlock>(t, KhoBlock::BYTES, Gfp::Kernel, tag::KHO_BLOCK).await;
        if block.is_null() {
            kho_block_set_destroy(t, set).await;
            kho_block_chain_free(t, at).await;
            return ENOMEM;
        }
        t.write(block.at(KhoBlock::SER), ser).await;
        list::add_tail(t, block.at(KhoBlock::LIST), set.at(KhoBlockSet::BLOCKS)).await;
        let nr = t.read(set.at(KhoBlockSet::NR_BLOCKS)).await;
        t.write(set.at(KhoBlockSet::NR_BLOCKS), nr + 1).await;
        at = t.read(ser.at(BlockSer::NEXT)).await;
    }
    0
}

/// Floyd's cycle check, the bound on blocks, and the bounds on counts.
async fn kho_block_chain_is_sound(t: &Task, set: Ptr<KhoBlockSet>, head_pa: u64) -> bool {
    let per_block = count_per_block(t, set).await;
    let (mut slow, mut fast) = (head_pa, head_pa);
    let mut nr = 0;
    while fast != 0 {
        let block = Ptr::<BlockSer>::from_pa(Pa(fast));
        let count = t.read(block.at(BlockSer::COUNT)).await;
        if count == 0 || count > per_block || nr >= abi::BLOCKS_MAX {
            return false;
        }
        fast = t.read(block.at(BlockSer::NEXT)).await;
        nr += 1;
        if nr % 2 == 0 {
            slow = t.read(Ptr::<BlockSer>::from_pa(Pa(slow)).at(BlockSer::NEXT)).await;
        }
        if fast != 0 && fast == slow {
            return false;
        }
    }
    true
}

/// Restores and frees the blocks from `head_pa` on that are on no list. A block met twice does not restore twice: that ends it.
async fn kho_block_chain_free(t: &Task, head_pa: u64) {
    let mut at = head_pa;
    let mut nr = 0;
    while at != 0 && nr < abi::BLOCKS_MAX && super::kho::kho_is_preserved(t, Pa(at)).await {
        let ser = Ptr::<BlockSer>::from_pa(Pa(at));
        at = t.read(ser.at(BlockSer::NEXT)).await;
        kho_restore_free(t, ser).await;
        nr += 1;
    }
}

/// `kho_block_it_init()`: before the first entry.
pub async fn kho_block_it_init(t: &Task, set: Ptr<KhoBlockSet>) -> BlockIterator {
    let head = set.at(KhoBlockSet::BLOCKS);
    let block = t.read(head.at(ListHead::NEXT)).await;
    BlockIterator { block, index: 0 }
}

/// `kho_block_it_reserve_entry()`: the next entry, which becomes valid and the last of its block. NULL at the end of the set.
pub async fn kho_block_it_reserve_entry<T>(t: &Task, set: Ptr<KhoBlockSet>, it: &mut BlockIterator) -> Ptr<T> {
    let at = it_entry(t, set, it, count_per_block(t, set).await).await;
    if let Some((ser, index)) = at {
        t.write(ser.at(BlockSer::COUNT), index + 1).await;
        return entry(t, set, ser, index).await;
    }
    Ptr::NULL
}

/// `kho_block_it_read_entry()`: the next valid entry. NULL at the end.
pub async fn kho_block_it_read_entry<T>(t: &Task, set: Ptr<KhoBlockSet>, it: &mut BlockIterator) -> Ptr<T> {
    loop {
        if it.block == set.at(KhoBlockSet::BLOCKS) {
            return Ptr::NULL;
        }
        let ser = t.read(block_of(it.block).at(KhoBlock::SER)).await;
        let count = t.read(ser.at(BlockSer::COUNT)).await;
        if it.index < count {
            let index = it.index;
            it.index += 1;
            return entry(t, set, ser, index).await;
        }
        it.block = t.read(it.block.at(ListHead::NEXT)).await;
        it.index = 0;
    }
}

async fn it_entry(t: &Task, set: Ptr<KhoBlockSet>, it: &mut BlockIterator, limit: u64) -> Option<(Ptr<BlockSer>, u64)> {
    if it.index >= limit {
        it.block = t.read(it.block.at(ListHead::NEXT)).await;
        it.index = 0;
    }
    if it.block == set.at(KhoBlockSet::BLOCKS) {
        return None;
    }
    let ser = t.read(block_of(it.block).at(KhoBlock::SER)).await;
    let index = it.index;
    it.index += 1;
    Some((ser, index))
}

async fn entry<T>(t: &Task, set: Ptr<KhoBlockSet>, ser: Ptr<BlockSer>, index: u64) -> Ptr<T> {
    let bytes = u64::from(t.read(set.at(KhoBlockSet::ENTRY_BYTES)).await);
    ser.byte_add(BlockSer::HEADER_BYTES + index * bytes)
}
