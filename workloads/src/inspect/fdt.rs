//! Flattened trees of one page (Devicetree Specification 0.4, chapter 5), as KHO and LUO of generation 1 write them.

use iommu_model::addr::Pa;

use super::text::Decoder;

const MAGIC: u64 = 0xd00d_feed;
const PAGE: u64 = 4096;
/// Most tokens of a tree that fits a page.
const TOKENS_MAX: u32 = 1024;

/// What stands in a tree, in its order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Item {
    /// A node begins.
    Begin(String),
    /// A node ends.
    End,
    /// A property: name, address and length of its value.
    Property(String, Pa, u64),
}

/// The items of the tree at `fdt`.
///
/// # Errors
/// Says why it is none, or where it stops being one; what was read by then is lost.
pub(super) fn read(d: &mut Decoder<'_>, fdt: Pa) -> Result<Vec<Item>, &'static str> {
    if !fdt.is_aligned(PAGE) || be(d, fdt, 0).is_none() {
        return Err("not a page of RAM");
    }
    if be(d, fdt, 0) != Some(MAGIC) {
        return Err("no magic word of a tree");
    }
    let field = |d: &mut Decoder<'_>, offset| be(d, fdt, offset).ok_or("the header is cut off");
    let (mut at, strings, bytes) = (field(d, 8)?, field(d, 12)?, field(d, 36)?);
    let end = at.saturating_add(bytes);
    if end > PAGE || strings > PAGE || !at.is_multiple_of(4) {
        return Err("the structure block lies outside the page");
    }
    let mut items = Vec::new();
    for _ in 0..TOKENS_MAX {
        let token = if at + 4 <= end { be(d, fdt, at) } else { None };
        at += 4;
        match token {
            Some(1) => {
                let name = d.text(Pa(fdt.0 + at), (end - at.min(end)) as u16);
                at = (at + name.len() as u64 + 1).next_multiple_of(4);
                items.push(Item::Begin(name));
            }
            Some(2) => items.push(Item::End),
            Some(3) => {
                let (Some(length), Some(name)) = (be(d, fdt, at), be(d, fdt, at + 4)) else { return Err("a property is cut off") };
                at += 8;
                if length > end.saturating_sub(at) || name >= PAGE - strings {
                    return Err("a property lies outside the page");
                }
                let name = d.text(Pa(fdt.0 + strings + name), 64);
                items.push(Item::Property(name, Pa(fdt.0 + at), length));
                at = (at + length).next_multiple_of(4);
            }
            Some(4) => {}
            Some(9) => return Ok(items),
            _ => return Err("a token has no meaning"),
        }
    }
    Err("too many tokens")
}

/// A big-endian word of the page.
fn be(d: &mut Decoder<'_>, fdt: Pa, offset: u64) -> Option<u64> {
    if offset + 4 > PAGE {
        return None;
    }
    d.read(Pa(fdt.0.checked_add(offset)?), 4).map(|value| u64::from((value as u32).swap_bytes()))
}

/// The value of a property that is one native word.
pub(super) fn value(d: &mut Decoder<'_>, at: Pa, bytes: u64) -> Option<u64> {
    if bytes == 8 { d.word(at) } else { None }
}
