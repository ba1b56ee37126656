//! The state of a RISC-V IOMMU as text.

use super::{write_awaited, write_sorted};
use crate::riscv::{DeviceContext, DirectoryNode, Permissions, Register, Space, Stage, Unit};
use core::fmt;

/// A unit, printed by `Display`. See [`Unit::snapshot`].
#[derive(Clone, Copy)]
pub struct UnitText<'a>(pub(crate) &'a Unit);

impl fmt::Display for UnitText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = self.0;
        for register in Register::fixed() {
            writeln!(f, "{register:?} {:#x}", unit.read_register(register))?;
        }
        let caches = unit.caches();
        write_sorted(f, caches.device_nodes().map(node))?;
        write_sorted(f, caches.devices().map(|e| format!("device {} {}", e.device, context(&e.context))))?;
        write_sorted(f, caches.process_nodes().map(node))?;
        let processes = caches.processes().map(|e| {
            let (pscid, first) = (e.context.pscid, stage(e.context.first));
            format!("process {} pid={} pscid={pscid} first={first}", e.device, e.process)
        });
        write_sorted(f, processes)?;
        let pages = caches.iotlb().map(|e| {
            let allowed = permissions(e.first.and(e.second));
            format!("iotlb {} {}+{:#x} -> {} {allowed}", tags(e.space), e.page, 1u64 << e.shift, e.frame)
        });
        write_sorted(f, pages)?;
        write_sorted(f, caches.walk().map(|e| format!("walk-cache{} {} {} -> table {}", e.level, tags(e.space), e.first, e.table)))?;
        for walk in unit.in_flight() {
            write!(f, "walk {} {} {:?} {}", walk.id.slot(), walk.request.device, walk.request.access, walk.request.iova)?;
            write_awaited(f, walk.fetch)?;
        }
        Ok(())
    }
}

fn node(e: &DirectoryNode) -> String {
    let process = e.process.map_or_else(String::new, |process| format!(" pid={process}"));
    format!("directory{} {}{process} -> table {}", e.level, e.device, e.table)
}

fn stage(stage: Stage) -> String {
    if stage.is_bare() { "bare".into() } else { format!("{} levels={}", stage.root, stage.levels) }
}

fn context(context: &DeviceContext) -> String {
    let (first, second) = (stage(context.first), stage(context.second));
    let kind = if context.has_directory { "processes" } else { "first" };
    format!("gscid={} second={second} pscid={} {kind}={first}", context.gscid, context.pscid)
}

fn tags(space: Space) -> String {
    match space {
        Space::Host(pscid) => format!("pscid={pscid}"),
        Space::HostGlobal => "global".into(),
        Space::Guest(gscid, pscid) => format!("gscid={gscid} pscid={pscid}"),
        Space::GuestGlobal(gscid) => format!("gscid={gscid} global"),
        Space::GuestPhysical(gscid) => format!("gscid={gscid} gpa"),
        Space::GuestMessages(gscid) => format!("gscid={gscid} msi"),
    }
}

fn permissions(p: Permissions) -> String {
    [(p.read, 'r'), (p.write, 'w'), (p.execute, 'x')].into_iter().map(|(allowed, letter)| if allowed { letter } else { '-' }).collect()
}
