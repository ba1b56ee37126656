//! Bounded reading of RAM, lines of text, and names of frames.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use iommu_model::addr::Pa;
use sim::memory::{FRAME_BYTES, Ram, Tag};

use crate::abi::AbiStruct;
use crate::tag;

/// Most words read for one text.
const WORDS_MAX: u32 = 1 << 20;
/// Most lines of one text.
const LINES_MAX: u32 = 4096;

/// One text under way.
pub(super) struct Decoder<'a> {
    ram: &'a Ram,
    out: String,
    depth: usize,
    words_left: u32,
    lines_left: u32,
    /// Records of the tracker, in the tracker's order.
    pub(super) records: Vec<(Pa, u8)>,
    /// What each block is, by the frame number of its head.
    named: BTreeMap<u64, (Tag, u32)>,
    counts: BTreeMap<u16, u32>,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(ram: &'a Ram) -> Decoder<'a> {
        Decoder {
            ram,
            out: String::new(),
            depth: 0,
            words_left: WORDS_MAX,
            lines_left: LINES_MAX,
            records: Vec::new(),
            named: BTreeMap::new(),
            counts: BTreeMap::new(),
        }
    }

    pub(super) fn finish(mut self) -> String {
        if self.words_left == 0 || self.lines_left == 0 {
            self.out.push_str("... cut off by the bounds of the decoder\n");
        }
        self.out
    }

    /// True when a bound was hit: loops over foreign counts end then.
    pub(super) fn is_spent(&self) -> bool {
        self.words_left == 0 || self.lines_left == 0
    }

    /// A line at the present depth.
    pub(super) fn line(&mut self, text: &str) {
        if self.lines_left > 0 {
            self.lines_left -= 1;
            let _ = writeln!(self.out, "{:width$}{text}", "", width = self.depth * 2);
        }
    }

    /// An empty line between parts.
    pub(super) fn gap(&mut self) {
        self.out.push('\n');
    }

    /// Lines of `body` stand one deeper.
    pub(super) fn deeper(&mut self, body: impl FnOnce(&mut Self)) {
        self.depth += 1;
        body(self);
        self.depth -= 1;
    }

    /// `bytes` (1 to 8) at `pa`, little-endian; none outside of RAM or beyond the bound.
    pub(super) fn read(&mut self, pa: Pa, bytes: u16) -> Option<u64> {
        self.words_left = self.words_left.checked_sub(1)?;
        let end = pa.0.checked_add(u64::from(bytes))?;
        (end <= self.ram.nr_frames() as u64 * FRAME_BYTES).then(|| self.ram.load_unaligned(pa, bytes as u8))
    }

    /// A word.
    pub(super) fn word(&mut self, pa: Pa) -> Option<u64> {
        self.read(pa, 8)
    }

    /// Up to `bytes` bytes of text at `pa`, up to its NUL, made printable.
    pub(super) fn text(&mut self, pa: Pa, bytes: u16) -> String {
        let mut text = Vec::new();
        for at in 0..u64::from(bytes) {
            match self.read(Pa(pa.0.wrapping_add(at)), 1) {
                Some(byte) if byte != 0 => text.push(byte as u8),
                _ => break,
            }
        }
        text.escape_ascii().to_string()
    }

    /// A structure's heading.
    pub(super) fn heading(&mut self, layout: &AbiStruct, tag: Tag, at: Pa) {
        let place = self.name(tag, at);
        self.line(&format!("{} at {place}, {} bytes", layout.name, layout.bytes));
    }

    /// The value of a member; 0 where there is no RAM, which is said.
    pub(super) fn value(&mut self, layout: &AbiStruct, at: Pa, member: &str) -> u64 {
        let Some(member) = layout.member(member) else { return 0 };
        self.read(Pa(at.0.wrapping_add(u64::from(member.offset))), member.bytes.min(8)).unwrap_or(0)
    }

    /// A member's line: offset, name, `text`.
    pub(super) fn member(&mut self, layout: &AbiStruct, member: &str, text: &str) {
        let offset = layout.offset_of(member).unwrap_or(0);
        self.line(&format!("+{offset:#05x} {member} = {text}"));
    }

    /// A member that is a number.
    pub(super) fn number(&mut self, layout: &AbiStruct, at: Pa, member: &str) -> u64 {
        let value = self.value(layout, at, member);
        let text = if value < 10 { value.to_string() } else { format!("{value} ({value:#x})") };
        self.member(layout, member, &text);
        value
    }

    /// A member that is a set of bits.
    pub(super) fn bits(&mut self, layout: &AbiStruct, at: Pa, member: &str, names: &[(u64, &str)]) -> u64 {
        let value = self.value(layout, at, member);
        let set: Vec<&str> = names.iter().filter(|(bit, _)| value & bit != 0).map(|(_, name)| *name).collect();
        let text = if set.is_empty() { format!("{value:#x}") } else { format!("{value:#x} ({})", set.join(" | ")) };
        self.member(layout, member, &text);
        value
    }

    /// A member that is the physical address of a `tag`.
    pub(super) fn address(&mut self, layout: &AbiStruct, at: Pa, member: &str, tag: Tag) -> Pa {
        let value = Pa(self.value(layout, at, member));
        let text = self.name(tag, value);
        self.member(layout, member, &text);
        value
    }

    /// A member that is text.
    pub(super) fn string(&mut self, layout: &AbiStruct, at: Pa, member: &str) -> String {
        let bytes = layout.member(member).map_or(0, |member| member.bytes);
        let offset = u64::from(layout.offset_of(member).unwrap_or(0));
        let text = self.text(Pa(at.0.wrapping_add(offset)), bytes);
        self.member(layout, member, &format!("\"{text}\""));
        text
    }

    /// Bytes that belong to no member are padding: shown where they are not zero.
    pub(super) fn padding(&mut self, layout: &AbiStruct, at: Pa) {
        let mut end = 0;
        for start in layout.fields.iter().map(|field| (field.offset, field.bytes)).chain([(layout.bytes, 0)]) {
            for offset in end..start.0 {
                if let Some(byte) = self.read(Pa(at.0.wrapping_add(u64::from(offset))), 1).filter(|&byte| byte != 0) {
                    self.line(&format!("+{offset:#05x} (padding) = {byte:#04x}"));
                }
            }
            end = start.0 + start.1;
        }
    }

    /// `tag#n pa ..`: the block at `pa` by what it holds, and its address. A block keeps the first name it gets.
    pub(super) fn name(&mut self, tag: Tag, pa: Pa) -> String {
        if pa.0 == 0 {
            return "none".to_owned();
        }
        if pa.0 >= self.ram.nr_frames() as u64 * FRAME_BYTES {
            return format!("pa {pa}, where there is no RAM");
        }
        let head = self.head(pa);
        let (tag, number) = *self.named.entry(head.0 / FRAME_BYTES).or_insert_with(|| {
            let count = self.counts.entry(tag.0).or_default();
            *count += 1;
            (tag, *count)
        });
        let offset = pa.0 - head.0;
        let inside = if offset == 0 { String::new() } else { format!("+{offset:#x}") };
        format!("{}#{number}{inside} pa {pa}", tag::name(tag))
    }

    /// First byte of the preserved block that `pa` lies in; of its frame when it lies in none.
    fn head(&self, pa: Pa) -> Pa {
        let holds = |(first, order): &&(Pa, u8)| pa.0 >= first.0 && (pa.0 - first.0) >> 12 < 1 << *order;
        let block = self.records.iter().filter(holds).min_by_key(|(_, order)| *order);
        block.map_or(Pa(pa.0 & !(FRAME_BYTES - 1)), |(first, _)| *first)
    }

    /// The name of the block that `pa` lies in, if a structure named it.
    pub(super) fn known(&self, pa: Pa) -> Option<String> {
        self.named.get(&(self.head(pa).0 / FRAME_BYTES)).map(|(tag, number)| format!("{}#{number}", tag::name(*tag)))
    }

    /// Everything that got a name, by kind and number.
    pub(super) fn everything(&self) -> Vec<(String, Pa)> {
        let mut all: Vec<_> = self.named.iter().map(|(pfn, (tag, number))| (tag.0, *number, Pa(pfn * FRAME_BYTES))).collect();
        all.sort_unstable();
        all.into_iter().map(|(tag, number, pa)| (format!("{}#{number}", tag::name(Tag(tag))), pa)).collect()
    }
}
