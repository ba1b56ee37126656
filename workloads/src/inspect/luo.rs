//! LUO of both generations: sessions, files, FLBs.

use iommu_model::addr::Pa;

use super::fdt::{self, Item};
use super::text::Decoder;
use super::{files, iommu};
use crate::abi::kho as kho_abi;
use crate::abi::luo as abi;
use crate::abi::{AbiStruct, iommufd, memfd, vfio};
use crate::tag;

/// Most entries shown of one array or chain.
const ENTRIES_MAX: u64 = 256;

/// LUO's blob: a tree in generation 1, a `luo_ser` in generation 2.
pub(super) fn blob(d: &mut Decoder<'_>, at: Pa) {
    match fdt::read(d, at) {
        Ok(items) => tree(d, at, &items),
        Err(_) => ser(d, at),
    }
}

/// Generation 1.
fn tree(d: &mut Decoder<'_>, at: Pa, items: &[Item]) {
    let place = d.name(tag::LUO, at);
    d.line(&format!("LUO FDT at {place}"));
    let (mut sessions, mut flbs) = (Pa(0), Pa(0));
    let mut depth = 0usize;
    for item in items {
        let indent = "  ".repeat(depth);
        match item {
            Item::Begin(name) => {
                if depth > 0 {
                    d.line(&format!("{indent}{name}"));
                }
                depth += 1;
            }
            Item::End => depth = depth.saturating_sub(1),
            Item::Property(name, at, bytes) => {
                let value = fdt::value(d, *at, *bytes);
                let text = match (name.as_str(), value) {
                    (kho_abi::PROP_COMPATIBLE, _) => format!("\"{}\"", d.text(*at, *bytes as u16)),
                    (abi::PROP_SESSION_HEADER, Some(value)) => {
                        sessions = Pa(value);
                        d.name(tag::LUO, sessions)
                    }
                    (abi::PROP_FLB_HEADER, Some(value)) => {
                        flbs = Pa(value);
                        d.name(tag::LUO_FLB, flbs)
                    }
                    (_, Some(value)) => value.to_string(),
                    (_, None) => format!("{bytes} bytes"),
                };
                d.line(&format!("{indent}{name} = {text}"));
            }
        }
    }
    if sessions.0 != 0 {
        d.gap();
        d.heading(&abi::SESSION_HEADER, tag::LUO, sessions);
        d.deeper(|d| {
            let count = d.number(&abi::SESSION_HEADER, sessions, "count");
            let first = Pa(sessions.0.wrapping_add(u64::from(abi::SESSION_HEADER.bytes)));
            array(d, first, count, abi::SESSION_MAX, &abi::SESSION, |d, at| session(d, at, false));
        });
    }
    flb_header(d, flbs);
}

/// Generation 2.
fn ser(d: &mut Decoder<'_>, at: Pa) {
    d.heading(&abi::LUO, tag::LUO, at);
    let mut sessions = Pa(0);
    let mut flbs = Pa(0);
    d.deeper(|d| {
        let names = [(abi::FEATURE_NUMBER, "number"), (abi::FEATURE_SESSIONS, "sessions"), (abi::FEATURE_FLBS, "flbs")];
        for member in ["features.supp", "features.req", "features.active"] {
            d.bits(&abi::LUO, at, member, &names);
        }
        reserved(d, &abi::LUO, at, "features.reserved");
        d.number(&abi::LUO, at, "liveupdate_num");
        sessions = d.address(&abi::LUO, at, "sessions_pa", tag::LUO);
        flbs = d.address(&abi::LUO, at, "flbs_pa", tag::LUO_FLB);
    });
    if sessions.0 != 0 {
        d.gap();
        blocks(d, sessions, &abi::SESSION, |d, at| session(d, at, true));
    }
    flb_header(d, flbs);
}

/// Reserved bytes are shown when they are not zero.
fn reserved(d: &mut Decoder<'_>, layout: &AbiStruct, at: Pa, member: &str) {
    let Some(field) = layout.member(member) else { return };
    for offset in (field.offset..field.offset + field.bytes).step_by(8) {
        let value = d.word(Pa(at.0.wrapping_add(u64::from(offset)))).unwrap_or(0);
        if value != 0 {
            d.line(&format!("+{offset:#05x} {member} = {value:#x}"));
        }
    }
}

/// `count` entries one behind the other.
fn array(d: &mut Decoder<'_>, first: Pa, count: u64, max: u64, layout: &AbiStruct, show: impl Fn(&mut Decoder<'_>, Pa)) {
    if count > max {
        d.line(&format!("the count is more than fits ({max})"));
    }
    for index in 0..count.min(max).min(ENTRIES_MAX) {
        if d.is_spent() {
            return;
        }
        d.line(&format!("{}[{index}]", layout.name));
        let at = Pa(first.0.wrapping_add(index * u64::from(layout.bytes)));
        d.deeper(|d| show(d, at));
    }
}

/// A chain of blocks with entries of one kind.
fn blocks(d: &mut Decoder<'_>, first: Pa, layout: &AbiStruct, show: impl Fn(&mut Decoder<'_>, Pa)) {
    let per_block = (kho_abi::BLOCK_BYTES - u64::from(kho_abi::BLOCK_HEADER.bytes)) / u64::from(layout.bytes);
    let mut at = first;
    let mut seen = Vec::new();
    while at.0 != 0 && !d.is_spent() {
        if seen.contains(&at) {
            d.line("the chain of blocks is a cycle");
            return;
        }
        seen.push(at);
        d.heading(&kho_abi::BLOCK_HEADER, tag::LUO, at);
        let mut next = Pa(0);
        d.deeper(|d| {
            next = d.address(&kho_abi::BLOCK_HEADER, at, "next", tag::LUO);
            let count = d.number(&kho_abi::BLOCK_HEADER, at, "count");
            let entries = Pa(at.0.wrapping_add(u64::from(kho_abi::BLOCK_HEADER.bytes)));
            array(d, entries, count, per_block, layout, &show);
        });
        at = next;
    }
}

/// A session; its files stand in an array (generation 1) or in blocks.
fn session(d: &mut Decoder<'_>, at: Pa, in_blocks: bool) {
    let layout = &abi::SESSION;
    d.string(layout, at, "name");
    let first = d.address(layout, at, "file_set_ser.files", tag::LUO);
    let count = d.number(layout, at, "file_set_ser.count");
    if first.0 == 0 {
    } else if in_blocks {
        blocks(d, first, &abi::FILE, file);
    } else {
        array(d, first, count, abi::FILE_MAX, &abi::FILE, file);
    }
}

/// A file: what its handler handed over.
fn file(d: &mut Decoder<'_>, at: Pa) {
    let layout = &abi::FILE;
    let compatible = d.string(layout, at, "compatible");
    let tag = match compatible.as_str() {
        memfd::COMPATIBLE => Some(tag::MEMFD_SER),
        iommufd::COMPATIBLE => Some(tag::IOMMUFD_SER),
        vfio::COMPATIBLE => Some(tag::VFIO_SER),
        _ => None,
    };
    let data = match tag {
        Some(tag) => d.address(layout, at, "data", tag),
        None => Pa(d.number(layout, at, "data")),
    };
    d.number(layout, at, "token");
    if data.0 == 0 {
        return;
    }
    match compatible.as_str() {
        memfd::COMPATIBLE => files::memfd(d, data),
        iommufd::COMPATIBLE => files::iommufd(d, data),
        vfio::COMPATIBLE => files::vfio(d, data),
        _ => d.line("not known to this decoder"),
    }
}

/// The FLBs.
fn flb_header(d: &mut Decoder<'_>, at: Pa) {
    if at.0 == 0 {
        return;
    }
    d.gap();
    d.heading(&abi::FLB_HEADER, tag::LUO_FLB, at);
    d.deeper(|d| {
        d.number(&abi::FLB_HEADER, at, "pgcnt");
        let count = d.number(&abi::FLB_HEADER, at, "count");
        let first = Pa(at.0.wrapping_add(u64::from(abi::FLB_HEADER.bytes)));
        array(d, first, count, abi::FLB_MAX, &abi::FLB, flb);
    });
}

fn flb(d: &mut Decoder<'_>, at: Pa) {
    let layout = &abi::FLB;
    let name = d.string(layout, at, "name");
    let known = iommu::layout(&name);
    let data = match (known, name.as_str()) {
        (Some(_), _) => d.address(layout, at, "data", tag::IOMMU_FLB_SER),
        (None, abi::TEST_FLB_COMPATIBLE) => d.address(layout, at, "data", tag::TEST_FLB),
        (None, _) => Pa(d.number(layout, at, "data")),
    };
    d.number(layout, at, "count");
    match (known, name.as_str()) {
        _ if data.0 == 0 => {}
        (Some(abi), _) => iommu::flb(d, abi, data),
        (None, abi::TEST_FLB_COMPATIBLE) => {
            d.heading(&abi::TEST_FLB, tag::TEST_FLB, data);
            d.deeper(|d| {
                let text = d.text(data, 8);
                d.member(&abi::TEST_FLB, "magic", &format!("\"{text}\""));
                d.number(&abi::TEST_FLB, data, "era");
            });
        }
        _ => d.line("not known to this decoder"),
    }
}
