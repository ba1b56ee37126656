//! The state of an SMMUv3 as text.

use super::{permissions, write_awaited, write_sorted};
use crate::smmu::cache::config::Level1;
use crate::smmu::cache::tlb::Space;
use crate::smmu::{AtsMode, Register, StreamConfig, StreamTarget, Unit};
use core::fmt;

/// A unit, printed by `Display`. See [`Unit::snapshot`].
#[derive(Clone, Copy)]
pub struct UnitText<'a>(pub(crate) &'a Unit);

impl fmt::Display for UnitText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = self.0;
        for register in Register::all() {
            writeln!(f, "{register:?} {:#x}", unit.read_register(register))?;
        }
        let caches = unit.caches();
        write_sorted(f, caches.streams().map(|e| format!("stream sid={} {}", e.stream, target(&e.target))))?;
        let contexts = caches.contexts().map(|e| match e.config {
            Some(config) => format!("context sid={} ssid={} asid={}", e.stream, e.substream, config.asid),
            None => format!("context sid={} ssid={} invalid", e.stream, e.substream),
        });
        write_sorted(f, contexts)?;
        let level_1 = caches.level_1().map(|e| match e.covers {
            Level1::Streams { first, bits } => format!("level-1 sid={first}+{:#x} word={:#x}", 1u64 << bits, e.word),
            Level1::Contexts { stream, first, bits } => {
                format!("level-1 sid={stream} ssid={first}+{:#x} word={:#x}", 1u64 << bits, e.word)
            }
        });
        write_sorted(f, level_1)?;
        let pages = caches.tlb().map(|e| {
            let stages = if e.combined { " both-stages" } else { "" };
            let (tags, permissions) = (tags(e.vmid, e.space), permissions(e.readable, e.writable));
            format!("tlb {tags} {}+{:#x} -> {} {permissions}{stages}", e.page, e.page_bytes, e.frame)
        });
        write_sorted(f, pages)?;
        let tables = caches.walks().map(|e| {
            let tags = tags(e.vmid, e.space);
            format!("walk-cache{} {tags} {}+{:#x} -> table {}", e.level, e.first, e.span_bytes, e.table)
        });
        write_sorted(f, tables)?;
        for walk in unit.in_flight() {
            write!(f, "walk {} sid={} {:?} {}", walk.id.slot(), walk.stream, walk.request.access, walk.request.iova)?;
            write_awaited(f, walk.fetch)?;
        }
        Ok(())
    }
}

fn tags(vmid: crate::smmu::Vmid, space: Space) -> String {
    match space {
        Space::Virtual(asid) => format!("vmid={vmid} asid={asid}"),
        Space::Global => format!("vmid={vmid} global"),
        Space::Intermediate => format!("vmid={vmid} ipa"),
    }
}

fn target(target: &StreamTarget) -> String {
    match target {
        StreamTarget::Abort => "abort".into(),
        StreamTarget::Bypass => "bypass".into(),
        StreamTarget::Fault(event) => format!("fault {event:?}"),
        StreamTarget::Translate(config) => {
            let StreamConfig { has_stage_1, has_stage_2, vmid, context, stage_2, ats, .. } = config;
            let first = if *has_stage_1 { format!(" contexts={context}") } else { String::new() };
            let second = if *has_stage_2 { format!(" tables={}", stage_2.tables.base) } else { String::new() };
            let ats = match ats {
                AtsMode::Disabled => "",
                AtsMode::Full => " ats=full",
                AtsMode::Split => " ats=split",
            };
            format!("vmid={vmid}{first}{second}{ats}")
        }
    }
}
