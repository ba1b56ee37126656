//! Reading what kernels left in RAM: the KHO tracker, and the tables a remapping unit would walk. All of it bounded, none of
//! it trusted.
//!
//! Source: facts/live-update.md 1.2 and 1.4 (root FDT, radix tree of generation B), 5.1 and 5.2 (tables); Devicetree
//! Specification 0.4, chapter 5 (flattened tree).

use std::fmt;

use iommu_model::addr::{Bdf, Pa};
use iommu_model::cache::context::ContextTarget;
use iommu_model::spec::vtd::context::{CONTEXT_ENTRY_BYTES, ContextEntry, TT_PASS_THROUGH};
use iommu_model::spec::vtd::root::{ROOT_ENTRY_BYTES, RootEntry};
use iommu_model::spec::vtd::second_stage::{LEVEL_BITS, SecondStageEntry, TABLE_ENTRIES};
use iommu_model::vtd::Unit;
use iommu_model::{FetchKind, ProvenanceId, Source};
use sim::device::{Fabric, UnitSlot};
use sim::memory::{FrameState, Memory, ObjectState, Tag};
use sim::trace::UnitId;

use crate::tag;

/// Most words one look at a tracker or at a table may read.
const WORDS_MAX: u32 = 1 << 20;
/// Order 0 of a key: bit of its marker.
const ORDER_0_LOG2: u32 = 52;
/// Level of the tracker's root.
const TRACKER_TOP: u32 = 5;

/// The word at `pa`, if there is RAM.
pub(super) fn word(memory: &Memory, pa: Pa) -> Option<u64> {
    let exists = memory.frame(pa).is_some_and(|frame| frame.state != FrameState::Absent);
    exists.then(|| memory.ram.load(Pa(pa.0 & !7), 8))
}

/// The root FDT of the running kernel: the only page of its tag that this generation allocated.
pub(super) fn find_fdt(memory: &Memory) -> Option<Pa> {
    let is_fdt = |frame: &sim::memory::Frame| frame.state == FrameState::Owned && frame.tag == tag::KHO_FDT && frame.era == memory.era;
    memory.frames.iter().position(is_fdt).map(|pfn| Pa((pfn as u64) << 12))
}

/// The bytes of a flattened tree of one page, four at a time.
fn be(memory: &Memory, fdt: Pa, offset: u64) -> u64 {
    u64::from((memory.ram.load(Pa(fdt.0 + (offset & 0xffc)), 4) as u32).swap_bytes())
}

/// A property of a tree: the nodes it is in, without the root, the property's name, its value's place and length.
type Property<'a> = (&'a [String], &'a str, Pa, u64);

/// Visits the properties of the tree at `fdt` until the visitor says true.
///
/// # Errors
/// Says why the bytes are no tree.
fn each_property(memory: &Memory, fdt: Pa, visit: &mut dyn FnMut(Property<'_>) -> bool) -> Result<(), &'static str> {
    const BAD: &str = "the root FDT is malformed";
    word(memory, fdt).ok_or("the root FDT is outside RAM")?;
    let be = |offset: u64| be(memory, fdt, offset);
    if !is_tree(memory, fdt) {
        return Err(BAD);
    }
    let text = |start: u64| {
        let bytes = (start..4096).map(|at| memory.ram.load(Pa(fdt.0 + at), 1) as u8);
        String::from_utf8_lossy(&bytes.take_while(|byte| *byte != 0).collect::<Vec<u8>>()).into_owned()
    };
    let (mut at, strings, length) = (be(8), be(12), be(36));
    let end = at.saturating_add(length).min(4096);
    let mut nodes: Vec<String> = Vec::new();
    while at + 4 <= end {
        let token = be(at);
        at += 4;
        match token {
            1 => {
                let name = text(at);
                at = (at + name.len() as u64 + 1).next_multiple_of(4);
                nodes.push(name);
            }
            2 => drop(nodes.pop()),
            3 if at + 8 <= end => {
                let (bytes, name) = (be(at), be(at + 4));
                at += 8;
                let inner = nodes.get(1..).unwrap_or(&[]);
                if visit((inner, &text(strings.saturating_add(name)), Pa(fdt.0 + at), bytes)) {
                    return Ok(());
                }
                at = at.saturating_add(bytes).next_multiple_of(4);
            }
            4 => {}
            9 => return Ok(()),
            _ => return Err(BAD),
        }
    }
    Ok(())
}

/// True when a flattened tree may lie at `at`.
pub(super) fn is_tree(memory: &Memory, at: Pa) -> bool {
    at.is_aligned(4096) && word(memory, at).is_some() && be(memory, at, 0) == 0xd00d_feed
}

/// The native word that a property of the tree at `fdt` holds, by the property's name and the node it is in (none: in the root, or in any).
pub(super) fn property(memory: &Memory, fdt: Pa, node: Option<&str>, wanted: &str) -> Option<u64> {
    let mut found = None;
    let mut visit = |(nodes, name, at, bytes): Property<'_>| {
        let here = node.is_none_or(|node| nodes.len() == 1 && nodes[0] == node);
        if here && name == wanted && bytes == 8 && at.0 + 8 <= fdt.0 + 4096 {
            found = Some(memory.ram.load_unaligned(at, 8));
        }
        found.is_some()
    };
    each_property(memory, fdt, &mut visit).ok()?;
    found
}

/// The `preserved-memory-map` of a root FDT.
fn tracker_root(memory: &Memory, fdt: Pa) -> Result<Pa, &'static str> {
    let mut found = None;
    let mut visit = |(nodes, name, at, bytes): Property<'_>| {
        if nodes.is_empty() && bytes == 8 && name == "preserved-memory-map" && at.0 + 8 <= fdt.0 + 4096 {
            found = Some(Pa(memory.ram.load_unaligned(at, 8)));
        }
        found.is_some()
    };
    each_property(memory, fdt, &mut visit)?;
    found.ok_or("the root FDT names no tracker")
}

/// Fills `out` with every record of the tracker that the root FDT at `fdt` names, sorted by address.
///
/// # Errors
/// Says why the bytes are no tracker.
pub(super) fn read_tracker(memory: &Memory, fdt: Pa, out: &mut Vec<(Pa, u8)>) -> Result<(), &'static str> {
    out.clear();
    let root = tracker_root(memory, fdt)?;
    let mut budget = WORDS_MAX;
    let read = if root.0 == 0 { Ok(()) } else { read_node(memory, root, TRACKER_TOP, 0, &mut budget, out) };
    out.sort_unstable();
    read
}

fn read_node(memory: &Memory, node: Pa, level: u32, prefix: u64, budget: &mut u32, out: &mut Vec<(Pa, u8)>) -> Result<(), &'static str> {
    if !node.is_aligned(4096) || word(memory, node).is_none() {
        return Err("a tracker node is outside RAM");
    }
    let mut read = 0;
    for (index, &value) in (0..512u64).zip(memory.ram.frame_words(node.0 >> 12)) {
        if value == 0 {
            continue;
        }
        // What was skipped was read, too.
        *budget = budget.checked_sub(index as u32 + 1 - read).ok_or("the tracker is too large")?;
        read = index as u32 + 1;
        if level > 0 {
            let below = prefix | index << (15 + 9 * (level - 1));
            read_node(memory, Pa(value), level - 1, below, budget, out)?;
            continue;
        }
        let mut bits = value;
        while bits != 0 {
            let key = prefix | (index * 64) | u64::from(bits.trailing_zeros());
            bits &= bits - 1;
            out.push(decode_key(key).ok_or("a tracker key has no meaning")?);
        }
    }
    *budget = budget.checked_sub(512 - read).ok_or("the tracker is too large")?;
    Ok(())
}

/// Fills `out` with every node and leaf of the tracker that the root FDT at `fdt` names, the root first. A slot that leads outside of RAM
/// counts as a node; what would be below it does not.
///
/// # Errors
/// Says why the bytes are no tracker.
pub(super) fn read_tracker_nodes(memory: &Memory, fdt: Pa, out: &mut Vec<Pa>) -> Result<(), &'static str> {
    out.clear();
    let root = tracker_root(memory, fdt)?;
    let mut budget = WORDS_MAX;
    if root.0 == 0 { Ok(()) } else { add_nodes(memory, root, TRACKER_TOP, &mut budget, out) }
}

fn add_nodes(memory: &Memory, node: Pa, level: u32, budget: &mut u32, out: &mut Vec<Pa>) -> Result<(), &'static str> {
    out.push(node);
    if level == 0 || !node.is_aligned(4096) || word(memory, node).is_none() {
        return Ok(());
    }
    *budget = budget.checked_sub(512).ok_or("the tracker is too large")?;
    for &value in memory.ram.frame_words(node.0 >> 12).iter().filter(|value| **value != 0) {
        add_nodes(memory, Pa(value), level - 1, budget, out)?;
    }
    Ok(())
}

/// Address and order that a tracker key stands for.
const fn decode_key(key: u64) -> Option<(Pa, u8)> {
    if key == 0 || key >> (ORDER_0_LOG2 + 1) != 0 {
        return None;
    }
    let marker = 63 - key.leading_zeros();
    let order = ORDER_0_LOG2 - marker;
    Some((Pa((key ^ 1 << marker) << (12 + order)), order as u8))
}

/// What a frame is to a walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// Root table.
    Root,
    /// Context table.
    Context,
    /// Paging table.
    Table,
    /// Target of a leaf.
    Page,
}

impl Role {
    /// As reports name it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Role::Root => "root table",
            Role::Context => "context table",
            Role::Table => "page table",
            Role::Page => "page",
        }
    }
}

/// One walk over all a device can reach.
pub(super) struct Reach<'a> {
    memory: &'a Memory,
    budget: u32,
    /// Leaves count, too; without them the lowest tables are not read.
    pages: bool,
}

impl<'a> Reach<'a> {
    /// A walk that visits leaf targets only with `pages`.
    pub(super) fn new(memory: &'a Memory, pages: bool) -> Reach<'a> {
        Reach { memory, budget: WORDS_MAX, pages }
    }

    /// Visits every frame on the paths of `bdf` from the root table at `root` down, first address, bytes and role. Stops when the
    /// visitor says true; returns whether it did.
    pub(super) fn device(&mut self, root: Pa, bdf: Bdf, visit: &mut impl FnMut(Pa, u64, Role) -> bool) -> bool {
        let Some(bits) = self.wide(Pa(root.0 + u64::from(bdf.bus()) * ROOT_ENTRY_BYTES)) else { return false };
        if visit(root, 4096, Role::Root) {
            return true;
        }
        let entry = RootEntry::from_bits(bits);
        if !entry.present() {
            return false;
        }
        let table = Pa(entry.context_table() << 12);
        let Some(bits) = self.wide(Pa(table.0 + u64::from(bdf.devfn()) * CONTEXT_ENTRY_BYTES)) else { return false };
        if visit(table, 4096, Role::Context) {
            return true;
        }
        let entry = ContextEntry::from_bits(bits);
        let levels = entry.address_width() + 2;
        if !entry.present() || entry.translation_type() >= TT_PASS_THROUGH || !(3..=5).contains(&levels) {
            return false;
        }
        self.table(Pa(entry.second_stage() << 12), levels, visit)
    }

    /// Visits a second-stage table of `levels` levels and all below it.
    pub(super) fn table(&mut self, table: Pa, levels: u8, visit: &mut impl FnMut(Pa, u64, Role) -> bool) -> bool {
        if word(self.memory, table).is_none() {
            return false;
        }
        if visit(table, 4096, Role::Table) {
            return true;
        }
        if levels == 1 && !self.pages {
            return false;
        }
        let memory = self.memory;
        let mut read = 0;
        for (index, bits) in present_entries(memory.ram.frame_words(table.0 >> 12)) {
            // What was skipped was read, too.
            let Some(left) = self.budget.checked_sub(index + 1 - read) else {
                self.budget = 0;
                return false;
            };
            (self.budget, read) = (left, index + 1);
            let entry = SecondStageEntry::from_bits(bits);
            let next = Pa(entry.frame() << 12);
            let leaf = levels == 1 || entry.page_size();
            let stop = match leaf {
                false => self.table(next, levels - 1, visit),
                true if self.pages => visit(next, 4096 << (LEVEL_BITS * u32::from(levels - 1)), Role::Page),
                true => false,
            };
            if stop {
                return true;
            }
        }
        self.budget = self.budget.saturating_sub(TABLE_ENTRIES as u32 - read);
        false
    }

    fn wide(&self, pa: Pa) -> Option<u128> {
        Some(u128::from(word(self.memory, pa)?) | u128::from(word(self.memory, Pa(pa.0 + 8))?) << 64)
    }
}

/// The entries of a table that permit something, with their places. Tables are nearly empty: many are looked at at once.
fn present_entries(table: &[u64]) -> impl Iterator<Item = (u32, u64)> {
    const PERMITS: u64 = SecondStageEntry::new().with_read(true).with_write(true).into_bits();
    const GROUP: usize = 32;
    let (groups, rest) = table.as_chunks::<GROUP>();
    assert!(rest.is_empty(), "a table has a multiple of {GROUP} entries");
    let used = groups.iter().enumerate().filter(|(_, group)| group.iter().fold(0, |all, entry| all | entry) & PERMITS != 0);
    used.flat_map(|(nr, group)| ((nr * GROUP) as u32..).zip(group.iter().copied())).filter(|(_, entry)| entry & PERMITS != 0)
}

/// The device and the role under which live tables, from the root table each unit uses now, reach a byte of
/// `[first, first + bytes)`. Units whose translation is off reach nothing.
pub(super) fn reached(memory: &Memory, fabric: &Fabric, first: Pa, bytes: u64, pages: bool) -> Option<(Bdf, Role)> {
    let mut found = None;
    for device in fabric.devices() {
        let slot = fabric.units()[usize::from(device.unit.0)].unit.borrow();
        if !slot.translation_enabled() {
            continue;
        }
        let root = Pa(slot.root_in_use().table() << 12);
        let hit = Reach::new(memory, pages).device(root, device.bdf, &mut |pa, size, role| {
            let overlaps = pa.0 < first.0 + bytes && first.0 < pa.0 + size;
            if overlaps {
                found = Some((device.bdf, role));
            }
            overlaps
        });
        if hit {
            break;
        }
    }
    found
}

/// A cached entry, or a walk under way, that stands on `[first, first + bytes)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cached {
    /// Which unit.
    pub(super) unit: UnitId,
    /// Which kind of entry.
    pub(super) what: &'static str,
    /// The word it was made from that matters here; none for a walk, which keeps nothing.
    pub(super) source: Option<Source>,
}

impl fmt::Display for Cached {
    /// `iommu0 still has an IOTLB entry made from pa 0x2f8000: 0xc00003`; reports look the word up by this.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let article = if self.what.starts_with('I') { "an" } else { "a" };
        write!(f, "iommu{} still has {article} {}", self.unit.0, self.what)?;
        self.source.map_or(Ok(()), |source| write!(f, " made from pa {}: {:#x}", source.pa, source.value))
    }
}

/// What a unit holds that was made from words of the frames `[first, first + bytes)`, or points there as to a table.
pub(super) fn cached_table(fabric: &Fabric, first: Pa, bytes: u64) -> Option<Cached> {
    let inside = |pa: Pa| pa.0 >= first.0 && pa.0 < first.0 + bytes;
    let look = |unit: &Unit| {
        let caches = unit.caches();
        let made_inside = |id: ProvenanceId| caches.provenance(id).iter().find(|source| inside(source.pa)).copied();
        let points_inside = |target: &ContextTarget| matches!(target, ContextTarget::Tables { root, .. } if inside(*root));
        if unit.in_flight().any(|walk| walk.fetch.is_some_and(|(pa, _)| inside(pa))) {
            return Some(("walk under way", None));
        }
        // The entry that pointed to the table says more than an entry of it.
        let pointer = |id: ProvenanceId| caches.provenance(id).iter().last().copied();
        let led_inside = caches.psc().find(|entry| inside(entry.table)).map(|entry| pointer(entry.provenance));
        let of_table = || caches.psc().find_map(|entry| made_inside(entry.provenance)).map(Some);
        if let Some(source) = led_inside.or_else(of_table) {
            return Some(("paging-structure cache entry", source));
        }
        if let Some(source) = caches.iotlb().find_map(|entry| made_inside(entry.provenance)) {
            return Some(("IOTLB entry", Some(source)));
        }
        let context = caches.contexts().find(|entry| points_inside(&entry.target)).map(|entry| pointer(entry.provenance));
        let of_context = || caches.contexts().find_map(|entry| made_inside(entry.provenance)).map(Some);
        context.or_else(of_context).map(|source| ("context-cache entry", source))
    };
    first_unit(fabric, look)
}

/// An IOTLB entry that translates to the frames `[first, first + bytes)`.
pub(super) fn cached_page(fabric: &Fabric, first: Pa, bytes: u64) -> Option<Cached> {
    let look = |unit: &Unit| {
        let caches = unit.caches();
        let overlaps = |frame: Pa, size: u64| frame.0 < first.0 + bytes && first.0 < frame.0 + size;
        let entry = caches.iotlb().find(|entry| (entry.readable || entry.writable) && overlaps(entry.frame, entry.page_bytes))?;
        Some(("IOTLB entry", caches.provenance(entry.provenance).iter().last().copied()))
    };
    first_unit(fabric, look)
}

/// A cached entry of a unit that translates, and a word it was made from that now reads otherwise. Bits that hardware sets by itself or
/// ignores do not count.
pub(super) fn stale(memory: &Memory, fabric: &Fabric) -> Option<(Cached, Source)> {
    // Bits 61:52, ten of them.
    const IGNORED_HIGH: u16 = (1 << 10) - 1;
    const NOT_READ: u64 = SecondStageEntry::new()
        .with_accessed(true)
        .with_dirty(true)
        .with_ignored_10(true)
        .with_ignored_high(IGNORED_HIGH)
        .with_ignored_63(true)
        .into_bits();
    for (index, slot) in fabric.units().iter().enumerate() {
        let unit = slot.unit.borrow();
        if !unit.translation_enabled() {
            continue;
        }
        let caches = unit.caches();
        let changed = |id: ProvenanceId| {
            let moved = |source: &Source| {
                let ignored = if matches!(source.kind, FetchKind::Table { .. }) { NOT_READ } else { 0 };
                word(memory, source.pa).is_none_or(|now| (now ^ source.value) & !ignored != 0)
            };
            caches.provenance(id).into_iter().find(moved)
        };
        let contexts = caches.contexts().map(|entry| ("context-cache entry", entry.provenance));
        let tables = caches.psc().map(|entry| ("paging-structure cache entry", entry.provenance));
        let pages = caches.iotlb().map(|entry| ("IOTLB entry", entry.provenance));
        if let Some((what, source)) = contexts.chain(tables).chain(pages).find_map(|(what, id)| Some((what, changed(id)?))) {
            return Some((Cached { unit: UnitId(index as u8), what, source: Some(source) }, source));
        }
    }
    None
}

fn first_unit(fabric: &Fabric, look: impl Fn(&Unit) -> Option<(&'static str, Option<Source>)>) -> Option<Cached> {
    let cached = |(index, (what, source))| Cached { unit: UnitId(index as u8), what, source };
    let held = |(index, slot): (usize, &UnitSlot)| Some((index, look(&slot.unit.borrow())?));
    fabric.units().iter().enumerate().find_map(held).map(cached)
}

/// One line about the frame at `pa`.
pub(super) fn describe(memory: &Memory, pa: Pa) -> String {
    match memory.frame(pa) {
        None => format!("pa {:#x} is outside RAM", pa.0),
        Some(frame) if frame.since == 0 => format!("frame pa {:#x}: {:?} since the run began", pa.0 & !0xfff, frame.state),
        Some(frame) => format!(
            "frame pa {:#x}: {:?}, {}, order {}, allocated by generation {}, last change at step {} by {}",
            pa.0 & !0xfff,
            frame.state,
            tag::name(frame.tag),
            frame.order,
            frame.era,
            frame.since,
            frame.by
        ),
    }
}

/// The newest block and the newest object of a tag, for reports of what is left behind: it is one of the latest.
pub(super) fn newest(memory: &Memory, tag: Tag) -> Vec<String> {
    let heads = memory.frames.iter().enumerate().filter(|(pfn, frame)| frame.head as usize == *pfn);
    let block = heads.filter(|(_, frame)| frame.state == FrameState::Owned && frame.tag == tag).max_by_key(|(_, frame)| frame.since);
    let slots = memory.slabs.iter().flat_map(|slab| slab.slots.iter().enumerate().map(move |slot| (slab, slot)));
    let live = slots.filter(|(_, (_, object))| object.state == ObjectState::Live && object.tag == tag);
    let object = live.max_by_key(|(_, (_, object))| object.since).map(|(slab, (slot, object))| {
        let pa = Pa(u64::from(slab.pfn) << 12).offset(slab.offset_of(slot));
        format!("{} at pa {pa}: allocated at step {} by {}", tag::name(tag), object.since, object.by)
    });
    block.map(|(pfn, _)| describe(memory, Pa((pfn as u64) << 12))).into_iter().chain(object).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Bench};
    use super::*;

    // Goal: a tracker written as the ABI says is read back. Method: keys of several orders, out of order.
    #[test]
    fn a_tracker_is_read_from_its_bytes() {
        let mut bench = Bench::new();
        let records = [(Pa(0x5000), 0), (Pa(0x2000), 1), (Pa(0x4_0000), 4)];
        let fdt = bench.write_tracker(&records);
        let mut out = Vec::new();
        assert_eq!(read_tracker(&bench.memory, fdt, &mut out), Ok(()));
        assert_eq!(out, [(Pa(0x2000), 1), (Pa(0x5000), 0), (Pa(0x4_0000), 4)]);
    }

    // Goal: hostile bytes are an error, never a panic. Method: every 8-byte word of the FDT replaced in turn; nodes out of RAM.
    #[test]
    fn garbage_is_not_a_tracker() {
        let mut out = Vec::new();
        for at in (0..160).step_by(8) {
            for junk in [0, u64::MAX, 0x6b6b_6b6b_6b6b_6b6b] {
                let mut bench = Bench::new();
                let fdt = bench.write_tracker(&[(Pa(0x5000), 0)]);
                bench.memory.ram.store(Pa(fdt.0 + at), 8, junk);
                let _ = read_tracker(&bench.memory, fdt, &mut out);
            }
        }
        let mut bench = Bench::new();
        let fdt = bench.write_tracker(&[(Pa(0x5000), 0)]);
        bench.memory.ram.store(testing::TRACKER, 8, 0x7fff_ffff_f000);
        assert!(read_tracker(&bench.memory, fdt, &mut out).is_err());
    }

    // Goal: exactly the frames on a device's paths are visited. Method: one device, one mapping, four levels.
    #[test]
    fn a_walk_visits_every_frame_of_a_path() {
        let mut bench = Bench::new();
        bench.attach_tables(Pa(0x30_000), &[(0x1000, Pa(0x40_000))]);
        let mut seen = Vec::new();
        let root = testing::ROOT;
        Reach::new(&bench.memory, true).device(root, testing::DEVICE, &mut |pa, bytes, role| {
            seen.push((pa, bytes, role));
            false
        });
        let roles: Vec<Role> = seen.iter().map(|seen| seen.2).collect();
        assert_eq!(roles, [Role::Root, Role::Context, Role::Table, Role::Table, Role::Table, Role::Page]);
        assert_eq!(seen[5], (Pa(0x40_000), 4096, Role::Page));
    }
}
