//! The KHO tracker of generation B: a radix tree of pages that is at all times in the format handed over.
//!
//! Key(pa, order) = 1 << (52 - order) | pa >> (12 + order). The highest set bit names the order, the bits below it the address.
//! Nodes hold physical addresses, so the next kernel walks the tree as it lies; a leaf is a bitmap of 32768 bits. The tree is a
//! set: adding twice is silent, removing what is not there is silent within an existing leaf. One mutex guards it.
//!
//! Source: kernel/liveupdate/kho_radix.c, include/linux/kho/abi/kexec_handover.h (linux-mm, 2026).

use iommu_model::addr::Pa;
use sim::engine::{Object, Op, OpKind};
use sim::memory::{FrameState, Ptr};

use super::super::Task;
use super::super::mm::{Gfp, PAGE_SIZE, callee_fails, free_page, get_zeroed_page};
use super::Kho;
use crate::callee;
use crate::defect::Defect;
use crate::errno::{EINVAL, ENOMEM, Errno};
use crate::tag;

/// Bit of the marker of order 0.
pub const KHO_ORDER_0_LOG2: u32 = 52;
/// Levels, leaf included.
pub const KHO_TREE_MAX_DEPTH: usize = 6;
/// Largest order a key can name.
pub const KHO_ORDER_MAX: u8 = 52;
/// Bits of a leaf.
const LEAF_BITS: u64 = PAGE_SIZE * 8;
const LEAF_LOG2: u32 = 15;
const NODE_LOG2: u32 = 9;
const NODE_SLOTS: u64 = 512;

/// A node or leaf of the tree.
#[derive(Clone, Copy, Debug)]
pub struct KhoRadixNode;

/// `kho_radix_encode_key()`.
pub const fn encode_key(pa: Pa, order: u8) -> u64 {
    1 << (KHO_ORDER_0_LOG2 - order as u32) | pa.0 >> (12 + order as u32)
}

/// `kho_radix_decode_key()`: none for a key without marker.
pub const fn decode_key(key: u64) -> Option<(Pa, u8)> {
    if key == 0 || key >> (KHO_ORDER_0_LOG2 + 1) != 0 {
        return None;
    }
    let marker = u64::BITS - 1 - key.leading_zeros();
    let order = KHO_ORDER_0_LOG2 - marker;
    Some((Pa((key ^ (1 << marker)) << (12 + order)), order as u8))
}

/// Slot of a key in a node of level 5 to 1.
pub const fn table_index(key: u64, level: usize) -> u64 {
    key >> (LEAF_LOG2 + NODE_LOG2 * (level as u32 - 1)) & (NODE_SLOTS - 1)
}

/// Bit of a key in its leaf.
pub const fn bitmap_index(key: u64) -> u64 {
    key & (LEAF_BITS - 1)
}

fn slot(node: Ptr<KhoRadixNode>, index: u64) -> Ptr<u64> {
    node.byte_add(index * 8)
}

/// `kho_radix_add_page()`, kernel/liveupdate/kho_radix.c.
pub async fn kho_radix_add_page(t: &Task, pa: Pa, order: u8) -> Errno {
    let root = t.read(t.sym(super::SECTION, Kho::RADIX_ROOT)).await;
    if t.warn_on(root.is_null(), "kho_radix_add_page without root") {
        return EINVAL;
    }
    t.might_sleep("kho_radix_add_page");
    let lock = t.sym(super::SECTION, Kho::RADIX_LOCK);
    let key = encode_key(pa, order);
    // On the stack in the kernel, too: nodes this call made, and where its new branch hangs.
    let mut created = [Ptr::<KhoRadixNode>::NULL; KHO_TREE_MAX_DEPTH];
    let mut anchor = Ptr::<u64>::NULL;
    let mut node = root;
    let mut level = KHO_TREE_MAX_DEPTH - 1;

    let locks = !t.k.has(Defect::TrackerUnlocked);
    if locks {
        t.mutex_lock(lock).await;
    }
    let err = loop {
        if level == 0 {
            if anchor.is_null() && callee_fails(t, callee::NEW_LEAF) {
                break ENOMEM;
            }
            let word = slot(node, bitmap_index(key) / 64);
            let bits = t.read(word).await;
            t.write(word, bits | 1 << (bitmap_index(key) % 64)).await;
            if locks {
                t.mutex_unlock(lock).await;
            }
            return 0;
        }
        let at = slot(node, table_index(key, level));
        let child = t.read(at).await;
        if child != 0 {
            node = Ptr::from_pa(Pa(child));
            level -= 1;
            continue;
        }
        let new = get_zeroed_page::<KhoRadixNode>(t, Gfp::Kernel, tag::KHO_RADIX).await;
        if new.is_null() {
            break ENOMEM;
        }
        t.write(at, new.pa().0).await;
        if anchor.is_null() {
            anchor = at;
        }
        created[level] = new;
        node = new;
        level -= 1;
    };

    // err_free_nodes
    for level in (1..KHO_TREE_MAX_DEPTH).rev() {
        if !created[level].is_null() {
            free_page(t, created[level]).await;
        }
    }
    if !anchor.is_null() && !t.k.has(Defect::TrackerSlotDangles) {
        t.write(anchor, 0).await;
    }
    if locks {
        t.mutex_unlock(lock).await;
    }
    err
}

/// `kho_radix_del_page()`, kernel/liveupdate/kho_radix.c. Nodes stay; an order that was not added clears another bit.
pub async fn kho_radix_del_page(t: &Task, pa: Pa, order: u8) {
    let root = t.read(t.sym(super::SECTION, Kho::RADIX_ROOT)).await;
    if t.warn_on(root.is_null(), "kho_radix_del_page without root") {
        return;
    }
    t.might_sleep("kho_radix_del_page");
    let lock = t.sym(super::SECTION, Kho::RADIX_LOCK);
    let key = encode_key(pa, order);
    let mut node = root;
    t.mutex_lock(lock).await;
    for level in (1..KHO_TREE_MAX_DEPTH).rev() {
        let child = t.read(slot(node, table_index(key, level))).await;
        if t.warn_on(child == 0, "kho_radix_del_page: no such node") {
            t.mutex_unlock(lock).await;
            return;
        }
        node = Ptr::from_pa(Pa(child));
    }
    let word = slot(node, bitmap_index(key) / 64);
    let bits = t.read(word).await;
    t.write(word, bits & !(1 << (bitmap_index(key) % 64))).await;
    t.mutex_unlock(lock).await;
}

/// Where a walk of a handed-over tree stands: the path from the root, and the bits of the leaf word at hand. Stands for the
/// recursion of `kho_radix_walk_tree()`, whose frames hold the same.
pub struct KhoRadixWalk {
    nodes: [Ptr<KhoRadixNode>; KHO_TREE_MAX_DEPTH],
    /// Next slot to look at, per level.
    next: [u64; KHO_TREE_MAX_DEPTH],
    level: usize,
    bits: u64,
    left: u64,
}

impl KhoRadixWalk {
    /// A walk from `root` that ends after at most `bound` records.
    pub fn new(root: Ptr<KhoRadixNode>, bound: u64) -> KhoRadixWalk {
        let mut nodes = [Ptr::NULL; KHO_TREE_MAX_DEPTH];
        nodes[KHO_TREE_MAX_DEPTH - 1] = root;
        KhoRadixWalk { nodes, next: [0; KHO_TREE_MAX_DEPTH], level: KHO_TREE_MAX_DEPTH - 1, bits: 0, left: bound }
    }

    /// The next record in ascending order of keys. `None` at the end. A node outside of memory is read, and faults, as in the
    /// kernel; a tree of more records than memory has frames ends in a panic instead of an endless walk.
    pub async fn next(&mut self, t: &Task) -> Option<(Pa, u8)> {
        loop {
            if self.bits != 0 {
                let bit = u64::from(self.bits.trailing_zeros());
                self.bits &= self.bits - 1;
                let Some(found) = decode_key(self.key(bit)) else { continue };
                if self.left == 0 {
                    match t.panic("kho_radix_walk_tree: more records than memory").await {}
                }
                self.left -= 1;
                return Some(found);
            }
            let node = self.nodes[self.level];
            match scan(t, node, self.next[self.level]).await {
                Some((index, value)) => {
                    self.next[self.level] = index + 1;
                    if self.level == 0 {
                        self.bits = value;
                    } else {
                        self.level -= 1;
                        self.nodes[self.level] = Ptr::from_pa(Pa(value));
                        self.next[self.level] = 0;
                    }
                }
                None if self.level == KHO_TREE_MAX_DEPTH - 1 => return None,
                None => self.level += 1,
            }
        }
    }

    /// The key of `bit` in the leaf word looked at last.
    fn key(&self, bit: u64) -> u64 {
        let mut key = (self.next[0] - 1) * 64 + bit;
        for level in 1..KHO_TREE_MAX_DEPTH {
            key |= (self.next[level] - 1) << (LEAF_LOG2 + NODE_LOG2 * (level as u32 - 1));
        }
        key
    }
}

/// The next word of a node that is not zero, from slot `from` on: a range scan, one step. Memblock does not mark the nodes, so
/// only their being memory at all is judged.
async fn scan(t: &Task, node: Ptr<KhoRadixNode>, from: u64) -> Option<(u64, u64)> {
    if from >= NODE_SLOTS {
        return None;
    }
    let aligned = node.pa().0.is_multiple_of(PAGE_SIZE);
    let present = t.machine.memory().frame(node.pa()).is_some_and(|frame| frame.state != FrameState::Absent);
    if !aligned || !present {
        // Faults, or reads the words of some other page: the first load decides.
        let value = t.read(slot(node, from)).await;
        return (value != 0).then_some((from, value));
    }
    t.step(Op::new(OpKind::Read, Object(node.pa().0), PAGE_SIZE as u16)).await;
    let memory = t.machine.memory();
    (from..NODE_SLOTS).map(|index| (index, memory.ram.load(Pa(node.pa().0 + index * 8), 8))).find(|(_, value)| *value != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: the key encoding is the ABI's. Method: the examples of the ABI's description, and the way back for every order.
    #[test]
    fn a_key_names_its_address_and_order() {
        assert_eq!(table_index(encode_key(Pa(0x1000), 0), 5), 2);
        assert_eq!(table_index(encode_key(Pa(0x2000), 1), 5), 1);
        assert_eq!(table_index(encode_key(Pa(0x4000), 2), 5), 0);
        assert_eq!(table_index(encode_key(Pa(0x4000), 2), 4), 256);
        for order in 0..=10 {
            let pa = Pa(5 << (12 + order));
            assert_eq!(decode_key(encode_key(pa, order)), Some((pa, order)));
        }
        assert_eq!(decode_key(0), None);
    }
}
