//! The root FDT and the tracker.

use iommu_model::addr::Pa;

use super::fdt::{self, Item};
use super::luo;
use super::text::Decoder;
use crate::abi::kho as abi;
use crate::abi::luo as luo_abi;
use crate::kernel::kho::radix::{KHO_TREE_MAX_DEPTH, decode_key};
use crate::tag;

/// Records after which a tracker is cut off: more than the machine has frames.
const RECORDS_MAX: usize = 4096;

/// Everything behind the root FDT at `fdt`.
pub(super) fn handover(d: &mut Decoder<'_>, fdt: Pa) {
    let items = fdt::read(d, fdt);
    let mut root = None;
    let mut faults = Vec::new();
    if let Ok(items) = &items {
        root = items.iter().find_map(|item| match item {
            Item::Property(name, at, bytes) if name == abi::PROP_PRESERVED_MEMORY_MAP => fdt::value(d, *at, *bytes).map(Pa),
            _ => None,
        });
    }
    // Read before anything is named, because names are given to whole blocks; shown last.
    if let Some(root) = root
        && let Err(fault) = tracker(d, root)
    {
        faults.push(fault);
    }
    let place = d.name(tag::KHO_FDT, fdt);
    d.line(&format!("KHO root FDT at {place}"));
    let items = match items {
        Ok(items) => items,
        Err(fault) => {
            d.line(&format!("  not readable: {fault}"));
            return;
        }
    };
    let subtree = root_tree(d, &items);
    for (name, blob) in subtree {
        d.gap();
        if name == luo_abi::SUBTREE {
            luo::blob(d, blob);
        } else {
            d.line(&format!("subtree \"{name}\": not known to this decoder"));
        }
    }
    d.gap();
    show_tracker(d, root, &faults);
}

/// Prints the root FDT; returns its subtrees with their blobs.
fn root_tree(d: &mut Decoder<'_>, items: &[Item]) -> Vec<(String, Pa)> {
    let mut subtrees: Vec<(String, Pa)> = Vec::new();
    let mut nodes: Vec<String> = Vec::new();
    for item in items {
        let indent = "  ".repeat(nodes.len());
        match item {
            Item::Begin(name) => {
                if !nodes.is_empty() {
                    d.line(&format!("{indent}{name}"));
                }
                nodes.push(name.clone());
            }
            Item::End => {
                nodes.pop();
            }
            Item::Property(name, at, bytes) => {
                let value = fdt::value(d, *at, *bytes);
                let text = match (name.as_str(), value) {
                    (abi::PROP_COMPATIBLE, _) => format!("\"{}\"", d.text(*at, *bytes as u16)),
                    (abi::PROP_PRESERVED_MEMORY_MAP, Some(value)) => d.name(tag::KHO_RADIX, Pa(value)),
                    (abi::PROP_PRESERVED_DATA, Some(value)) => {
                        subtrees.push((nodes.last().cloned().unwrap_or_default(), Pa(value)));
                        d.name(tag::LUO, Pa(value))
                    }
                    (_, Some(value)) => value.to_string(),
                    (_, None) => format!("{bytes} bytes"),
                };
                d.line(&format!("{indent}{name} = {text}"));
            }
        }
    }
    subtrees
}

/// Reads the records of the tracker, in ascending order of keys: large blocks first, then by address.
fn tracker(d: &mut Decoder<'_>, root: Pa) -> Result<(), &'static str> {
    if root.0 == 0 { Ok(()) } else { node(d, root, KHO_TREE_MAX_DEPTH - 1, 0) }
}

fn node(d: &mut Decoder<'_>, at: Pa, level: usize, prefix: u64) -> Result<(), &'static str> {
    if !at.is_aligned(4096) {
        return Err("the address of a node is not aligned");
    }
    for index in 0..512u64 {
        let Some(value) = d.word(Pa(at.0.wrapping_add(index * 8))) else { return Err("a node lies outside RAM, or there are too many") };
        if value == 0 {
            continue;
        }
        if level > 0 {
            node(d, Pa(value), level - 1, prefix | (index << (15 + 9 * (level as u32 - 1))))?;
            continue;
        }
        for bit in (0..64).filter(|bit| value >> bit & 1 != 0) {
            let (pa, order) = decode_key(prefix | (index * 64) | bit).ok_or("a key has no meaning")?;
            if d.records.len() >= RECORDS_MAX {
                return Err("too many records");
            }
            d.records.push((pa, order));
        }
    }
    Ok(())
}

/// The tracker, and how it agrees with what the structures name.
fn show_tracker(d: &mut Decoder<'_>, root: Option<Pa>, faults: &[&'static str]) {
    let Some(root) = root else {
        d.line("KHO tracker: the root FDT names none");
        return;
    };
    let place = d.name(tag::KHO_RADIX, root);
    d.line(&format!("KHO tracker at {place}, {} records", d.records.len()));
    let records = d.records.clone();
    d.deeper(|d| {
        for fault in faults {
            d.line(&format!("not readable to its end: {fault}"));
        }
        for (pa, order) in &records {
            let name = d.known(*pa).unwrap_or_else(|| "named by nothing above".to_owned());
            d.line(&format!("order {order}  {name} pa {pa}"));
        }
        // Nodes of the tracker are read before memory is given out; they need no record.
        let kept = |pa: Pa| records.iter().any(|(first, order)| pa.0 >= first.0 && (pa.0 - first.0) >> 12 < 1 << *order);
        for (name, pa) in d.everything() {
            if !kept(pa) && pa != root {
                d.line(&format!("NOT PRESERVED  {name} pa {pa}"));
            }
        }
    });
}
