//! The flattened tree format, and KHO's root page in it.
//!
//! A writer and a reader for trees of one page with properties of strings and 64-bit words (native byte order, as KHO stores
//! them; structure tokens are big-endian). The string table of a tree is written whole when the tree is created. Everything read
//! is bounded by the page: a malformed tree is an error, never a run-away.
//!
//! Source of the format: Devicetree Specification 0.4, chapter 5. Of the root page: kernel/liveupdate/kexec_handover.c and
//! include/linux/kho/abi/kexec_handover.h (linux-mm, 2026).

use iommu_model::addr::Pa;
use sim::engine::{Object, Op, OpKind};
use sim::memory::Ptr;

use super::super::Task;
use super::super::mm::PAGE_SIZE;
use super::{Kho, SECTION};
use crate::abi::kho as abi;
use crate::errno::{EEXIST, EINVAL, ENOENT, ENOMEM, EOPNOTSUPP, Errno};

/// A tree.
#[derive(Clone, Copy, Debug)]
pub struct Fdt;

/// First bytes of every tree.
pub const FDT_MAGIC: u32 = 0xd00d_feed;
const FDT_BEGIN_NODE: u32 = 1;
const FDT_END_NODE: u32 = 2;
const FDT_PROP: u32 = 3;
const FDT_NOP: u32 = 4;
const FDT_END: u32 = 9;
/// Offset of the structure block in trees written here: behind the header and the empty reservation map.
const STRUCT_AT: u64 = 56;
/// Offset of the string block in trees written here.
const STRINGS_AT: u64 = 3072;

fn word(fdt: Ptr<Fdt>, offset: u64) -> Ptr<u32> {
    fdt.byte_add(offset)
}

async fn put(t: &Task, fdt: Ptr<Fdt>, offset: u64, value: u32) {
    t.write(word(fdt, offset), value.swap_bytes()).await;
}

async fn get(t: &Task, fdt: Ptr<Fdt>, offset: u64) -> u32 {
    t.read(word(fdt, offset)).await.swap_bytes()
}

/// Position of `name` in a string table of names that each end in NUL.
const fn string_offset(strings: &str, name: &str) -> Option<u32> {
    let (table, name) = (strings.as_bytes(), name.as_bytes());
    let mut start = 0;
    while start < table.len() {
        let mut end = start;
        while end < table.len() && table[end] != 0 {
            end += 1;
        }
        let mut same = end - start == name.len();
        let mut i = 0;
        while same && i < name.len() {
            same = table[start + i] == name[i];
            i += 1;
        }
        if same {
            return Some(start as u32);
        }
        start = end + 1;
    }
    None
}

/// A tree being written: where its next token goes.
pub struct FdtWriter {
    fdt: Ptr<Fdt>,
    strings: &'static str,
    at: u64,
    full: bool,
}

impl FdtWriter {
    /// `fdt_create()` on a page; `strings` are all property names, each ended by NUL.
    pub async fn create(t: &Task, fdt: Ptr<Fdt>, strings: &'static str) -> FdtWriter {
        let header =
            [FDT_MAGIC, PAGE_SIZE as u32, STRUCT_AT as u32, STRINGS_AT as u32, STRUCT_AT as u32 - 16, 17, 16, 0, strings.len() as u32, 0];
        for (i, value) in header.into_iter().enumerate() {
            put(t, fdt, i as u64 * 4, value).await;
        }
        let mut writer = FdtWriter { fdt, strings, at: STRINGS_AT, full: false };
        writer.bytes(t, strings, PAGE_SIZE).await;
        writer.at = STRUCT_AT;
        writer
    }

    /// A tree that [`FdtWriter::create`] wrote, opened before the end of its root node.
    async fn open(t: &Task, fdt: Ptr<Fdt>, strings: &'static str) -> FdtWriter {
        let size = u64::from(get(t, fdt, 36).await);
        FdtWriter { fdt, strings, at: STRUCT_AT + size - 8, full: false }
    }

    async fn token(&mut self, t: &Task, value: u32) {
        if self.at + 4 > STRINGS_AT {
            self.full = true;
            return;
        }
        put(t, self.fdt, self.at, value).await;
        self.at += 4;
    }

    /// A string with its NUL, padded to words.
    async fn bytes(&mut self, t: &Task, text: &str, limit: u64) {
        let nr_words = text.len() / 4 + 1;
        if self.at + nr_words as u64 * 4 > limit {
            self.full = true;
            return;
        }
        for i in 0..nr_words {
            let mut chunk = [0u8; 4];
            for (to, from) in chunk.iter_mut().zip(text.as_bytes().iter().skip(i * 4)) {
                *to = *from;
            }
            t.write(word(self.fdt, self.at), u32::from_le_bytes(chunk)).await;
            self.at += 4;
        }
    }

    /// `fdt_begin_node()`.
    pub async fn begin_node(&mut self, t: &Task, name: &str) {
        self.token(t, FDT_BEGIN_NODE).await;
        self.bytes(t, name, STRINGS_AT).await;
    }

    async fn property(&mut self, t: &Task, name: &str, bytes: u32) {
        let offset = string_offset(self.strings, name).expect("a writer is created with all its property names");
        self.token(t, FDT_PROP).await;
        self.token(t, bytes).await;
        self.token(t, offset).await;
    }

    /// `fdt_property_string()`.
    pub async fn property_string(&mut self, t: &Task, name: &str, value: &str) {
        self.property(t, name, value.len() as u32 + 1).await;
        self.bytes(t, value, STRINGS_AT).await;
    }

    /// `fdt_property()` of a native 64-bit word.
    pub async fn property_u64(&mut self, t: &Task, name: &str, value: u64) {
        self.property(t, name, 8).await;
        if self.at + 8 > STRINGS_AT {
            self.full = true;
            return;
        }
        t.write(self.fdt.byte_add::<u64>(self.at), value).await;
        self.at += 8;
    }

    /// `fdt_end_node()`.
    pub async fn end_node(&mut self, t: &Task) {
        self.token(t, FDT_END_NODE).await;
    }

    /// `fdt_finish()`: ends the structure block. -ENOMEM when the tree did not fit; its size is then what it was.
    pub async fn finish(&mut self, t: &Task) -> Errno {
        self.token(t, FDT_END).await;
        if self.full {
            return ENOMEM;
        }
        put(t, self.fdt, 36, (self.at - STRUCT_AT) as u32).await;
        0
    }
}

/// A tree being read, after its header was checked.
#[derive(Clone, Copy)]
pub struct FdtReader {
    fdt: Ptr<Fdt>,
    structure: (u64, u64),
    strings: (u64, u64),
}

/// A node: offset of the first token inside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FdtNode(u64);

/// One token with what belongs to it: offsets into the tree.
enum Token {
    Begin { name: u64 },
    End,
    Property { name: u64, data: u64, bytes: u64 },
}

impl FdtReader {
    /// `fdt_check_header()`: none for anything that is not a tree inside one page.
    pub async fn open(t: &Task, fdt: Ptr<Fdt>) -> Option<FdtReader> {
        if get(t, fdt, 0).await != FDT_MAGIC {
            return None;
        }
        let total = u64::from(get(t, fdt, 4).await);
        let structure = u64::from(get(t, fdt, 8).await);
        let strings = u64::from(get(t, fdt, 12).await);
        let last_compatible = get(t, fdt, 24).await;
        let strings_bytes = u64::from(get(t, fdt, 32).await);
        let structure_bytes = u64::from(get(t, fdt, 36).await);
        let fits = total <= PAGE_SIZE
            && last_compatible <= 17
            && structure.is_multiple_of(4)
            && structure + structure_bytes <= total
            && strings + strings_bytes <= total;
        fits.then_some(FdtReader { fdt, structure: (structure, structure + structure_bytes), strings: (strings, strings + strings_bytes) })
    }

    /// The root node.
    pub async fn root(&self, t: &Task) -> Option<FdtNode> {
        let mut at = self.structure.0;
        match self.token(t, &mut at).await {
            Some(Token::Begin { .. }) => Some(FdtNode(at)),
            _ => None,
        }
    }

    /// `fdt_subnode_offset()`: the child of `node` with this name.
    pub async fn subnode(&self, t: &Task, node: FdtNode, name: &str) -> Option<FdtNode> {
        let mut at = node.0;
        let mut depth = 0;
        while let Some(token) = self.token(t, &mut at).await {
            match token {
                Token::Begin { name: found } => {
                    if depth == 0 && self.text_is(t, found, self.structure.1, name).await {
                        return Some(FdtNode(at));
                    }
                    depth += 1;
                }
                Token::End if depth == 0 => return None,
                Token::End => depth -= 1,
                Token::Property { .. } => {}
            }
        }
        None
    }

    /// `fdt_getprop()`: address and length of a property of `node`.
    pub async fn property(&self, t: &Task, node: FdtNode, name: &str) -> Option<(Ptr<u8>, u64)> {
        let mut at = node.0;
        while let Some(Token::Property { name: found, data, bytes }) = self.token(t, &mut at).await {
            if self.text_is(t, found, self.strings.1, name).await {
                return Some((self.fdt.byte_add(data), bytes));
            }
        }
        None
    }

    /// A property that must be one native 64-bit word.
    pub async fn property_u64(&self, t: &Task, node: FdtNode, name: &str) -> Option<u64> {
        match self.property(t, node, name).await {
            Some((data, 8)) => Some(t.read(data.cast::<u64>()).await),
            _ => None,
        }
    }

    /// `fdt_node_check_compatible()`: true when the node's `compatible` is this string.
    pub async fn is_compatible(&self, t: &Task, node: FdtNode, compatible: &str) -> bool {
        match self.property(t, node, abi::PROP_COMPATIBLE).await {
            Some((data, bytes)) => {
                let start = data.value().wrapping_sub(self.fdt.value());
                self.text_is(t, start, start + bytes, compatible).await
            }
            None => false,
        }
    }

    /// The token at `at`, which moves behind it; none at the end or when malformed.
    async fn token(&self, t: &Task, at: &mut u64) -> Option<Token> {
        loop {
            if *at + 4 > self.structure.1 {
                return None;
            }
            let kind = get(t, self.fdt, *at).await;
            *at += 4;
            match kind {
                FDT_NOP => {}
                FDT_BEGIN_NODE => {
                    let name = *at;
                    *at += self.text_bytes(t, name).await?.next_multiple_of(4);
                    return Some(Token::Begin { name });
                }
                FDT_END_NODE => return Some(Token::End),
                FDT_PROP if *at + 8 <= self.structure.1 => {
                    let bytes = u64::from(get(t, self.fdt, *at).await);
                    let name = self.strings.0 + u64::from(get(t, self.fdt, *at + 4).await);
                    let data = *at + 8;
                    *at = data + bytes.next_multiple_of(4);
                    return (*at <= self.structure.1 && name < self.strings.1).then_some(Token::Property { name, data, bytes });
                }
                _ => return None,
            }
        }
    }

    /// Bytes of the string at `from`, its NUL included: a range scan, one step.
    async fn text_bytes(&self, t: &Task, from: u64) -> Option<u64> {
        t.step(Op::new(OpKind::Read, Object(self.fdt.pa().0 + from), 4)).await;
        (from..self.structure.1).find(|at| self.byte(t, *at) == 0).map(|end| end - from + 1)
    }

    /// Compares the string at `from`, that must end before `end`: a range scan, one step.
    async fn text_is(&self, t: &Task, from: u64, end: u64, text: &str) -> bool {
        t.step(Op::new(OpKind::Read, Object(self.fdt.pa().0 + from), text.len() as u16 + 1)).await;
        from + (text.len() as u64) < end.min(PAGE_SIZE)
            && text.bytes().chain([0]).enumerate().all(|(i, byte)| self.byte(t, from + i as u64) == byte)
    }

    fn byte(&self, t: &Task, at: u64) -> u8 {
        t.machine.memory().ram.load(Pa(self.fdt.pa().0 + at), 1) as u8
    }
}

/// `kho_out_fdt_setup()`: the root page with the tracker's address and no subtree.
pub(super) async fn kho_out_fdt_setup(t: &Task, fdt: Ptr<Fdt>, tracker: Pa) -> Errno {
    let mut writer = FdtWriter::create(t, fdt, abi::STRINGS).await;
    writer.begin_node(t, "").await;
    writer.property_string(t, abi::PROP_COMPATIBLE, abi::COMPATIBLE).await;
    writer.property_u64(t, abi::PROP_PRESERVED_MEMORY_MAP, tracker.0).await;
    writer.end_node(t).await;
    writer.finish(t).await
}

/// `kho_add_subtree()`: names a blob of `bytes` bytes at `pa`. -EEXIST for a name in use, -ENOMEM when the page is full. The blob's
/// own pages are the caller's to preserve.
pub async fn kho_add_subtree(t: &Task, name: &'static str, pa: Pa, bytes: u64) -> Errno {
    let _in = t.call("kho_add_subtree");
    if !super::kho_is_enabled(t).await {
        return EOPNOTSUPP;
    }
    let lock = t.sym(SECTION, Kho::OUT_LOCK);
    t.mutex_lock(lock).await;
    let fdt = t.read(t.sym(SECTION, Kho::OUT_FDT)).await;
    let err = if child(t, fdt, name).await.is_some() {
        EEXIST
    } else {
        let mut writer = FdtWriter::open(t, fdt, abi::STRINGS).await;
        let tail = writer.at;
        writer.begin_node(t, name).await;
        writer.property_u64(t, abi::PROP_PRESERVED_DATA, pa.0).await;
        writer.property_u64(t, abi::PROP_BLOB_SIZE, bytes).await;
        writer.end_node(t).await;
        writer.end_node(t).await;
        let err = writer.finish(t).await;
        if err != 0 {
            put(t, fdt, tail, FDT_END_NODE).await;
            put(t, fdt, tail + 4, FDT_END).await;
        }
        err
    };
    t.mutex_unlock(lock).await;
    err
}

async fn child(t: &Task, fdt: Ptr<Fdt>, name: &str) -> Option<FdtNode> {
    let reader = FdtReader::open(t, fdt).await?;
    let root = reader.root(t).await?;
    reader.subnode(t, root, name).await
}

/// `kho_remove_subtree()`: takes out the subtree whose blob is at `pa`, if there is one.
pub async fn kho_remove_subtree(t: &Task, pa: Pa) {
    let _in = t.call("kho_remove_subtree");
    if !super::kho_is_enabled(t).await {
        return;
    }
    let lock = t.sym(SECTION, Kho::OUT_LOCK);
    t.mutex_lock(lock).await;
    let fdt = t.read(t.sym(SECTION, Kho::OUT_FDT)).await;
    if let Some(reader) = FdtReader::open(t, fdt).await
        && let Some((start, end)) = subtree_of(t, &reader, pa).await
    {
        // fdt_del_node: what follows moves down.
        for from in (end..reader.structure.1).step_by(4) {
            let value = get(t, fdt, from).await;
            put(t, fdt, from - (end - start), value).await;
        }
        put(t, fdt, 36, (reader.structure.1 - reader.structure.0 - (end - start)) as u32).await;
    }
    t.mutex_unlock(lock).await;
}

/// First and last+1 offset of the child of the root whose blob is at `pa`.
async fn subtree_of(t: &Task, reader: &FdtReader, pa: Pa) -> Option<(u64, u64)> {
    let mut at = reader.root(t).await?.0;
    let mut start = None;
    let mut matches = false;
    loop {
        let before = at;
        match reader.token(t, &mut at).await? {
            Token::Begin { .. } => start = Some(before),
            Token::Property { data, bytes: 8, .. } if start.is_some() => {
                matches |= t.read(reader.fdt.byte_add::<u64>(data)).await == pa.0;
            }
            Token::Property { .. } => {}
            Token::End => match start.take() {
                Some(start) if matches => return Some((start, at)),
                Some(_) => matches = false,
                None => return None,
            },
        }
    }
}

/// `kho_retrieve_subtree()`: the blob that the previous kernel added under `name`. -ENOENT without hand-over or child, -EINVAL
/// when a property is malformed.
pub async fn kho_retrieve_subtree(t: &Task, name: &'static str) -> (Errno, Pa, u64) {
    let _in = t.call("kho_retrieve_subtree");
    let fdt = t.read(t.sym(SECTION, Kho::IN_FDT)).await;
    if fdt == 0 {
        return (ENOENT, Pa(0), 0);
    }
    let Some(reader) = FdtReader::open(t, Ptr::from_pa(Pa(fdt))).await else { return (ENOENT, Pa(0), 0) };
    let Some(root) = reader.root(t).await else { return (ENOENT, Pa(0), 0) };
    let Some(node) = reader.subnode(t, root, name).await else { return (ENOENT, Pa(0), 0) };
    let Some(pa) = reader.property_u64(t, node, abi::PROP_PRESERVED_DATA).await else { return (EINVAL, Pa(0), 0) };
    let Some(bytes) = reader.property_u64(t, node, abi::PROP_BLOB_SIZE).await else { return (EINVAL, Pa(0), 0) };
    (0, Pa(pa), bytes)
}
