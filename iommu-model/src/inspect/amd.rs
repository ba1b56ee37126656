//! The state of an AMD-Vi unit as text.

use super::{permissions, write_awaited, write_sorted};
use crate::amd::{DeviceEntry, HostTranslation, Register, Space, Unit};
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
        write_sorted(f, caches.devices().map(|e| format!("device {} {}", e.device, device(&e.entry))))?;
        let roots = caches.guest_roots().map(|e| format!("gcr3 {} pasid={} did={} -> {}", e.device, e.pasid, e.domain, e.root));
        write_sorted(f, roots)?;
        let pages = caches.tlb().map(|e| {
            let (tags, bytes) = (tags(e.space), 1u64 << e.shift);
            if e.not_present {
                return format!("tlb {tags} {}+{bytes:#x} not-present", e.page);
            }
            format!("tlb {tags} {}+{bytes:#x} -> {} {}", e.page, e.frame, permissions(e.readable, e.writable))
        });
        write_sorted(f, pages)?;
        let pointers = caches.directories().map(|e| {
            let permissions = permissions(e.readable, e.writable);
            format!("directory{} {} {} -> table {} of level {} {permissions}", e.level, tags(e.space), e.first, e.table, e.table_level)
        });
        write_sorted(f, pointers)?;
        for walk in unit.in_flight() {
            write!(f, "walk {} {} {:?} {}", walk.id.slot(), walk.request.source, walk.request.access, walk.request.iova)?;
            write_awaited(f, walk.fetch)?;
        }
        Ok(())
    }
}

fn tags(space: Space) -> String {
    match space.pasid() {
        Some(pasid) => format!("did={} pasid={pasid}", space.domain()),
        None => format!("did={}", space.domain()),
    }
}

fn device(entry: &DeviceEntry) -> String {
    let host = match entry.host {
        HostTranslation::Tables { root, levels } => format!("tables={root} levels={levels}"),
        other => format!("{other:?}").to_lowercase(),
    };
    let guest = entry.guest.map_or_else(String::new, |guest| format!(" gcr3={} levels={}", guest.root, guest.levels));
    format!("did={} {} {host}{guest}", entry.domain, permissions(entry.readable, entry.writable))
}
