//! Any state and any table as stable text, for reports and snapshots. Lines depend on content only: cached entries are
//! sorted by tag, so that the history of a cache does not show.
//!
//! Tables are read through the caller's closure and may hold anything; [`Limits`] bound what is read and written.
//!
//! The state of a unit is the `snapshot` of its own type; the text of VT-d is here, [`smmu`], [`amd`] and [`riscv`] have
//! theirs. Only VT-d's tables are dumped.

pub mod amd;
pub mod riscv;
pub mod smmu;

use crate::addr::{Bdf, Iova, Pa, Pasid, Pfn};
use crate::cache::context::{ContextEntryCached, ContextTarget};
use crate::cache::iotlb::page_shift;
use crate::cache::pasid::PasidEntryCached;
use crate::cache::psc::PscEntry;
use crate::request::FetchKind;
use crate::spec::vtd::context::{AW_39, AW_48, AW_57, CONTEXT_ENTRIES, CONTEXT_ENTRY_BYTES, ContextEntry};
use crate::spec::vtd::context::{TT_PASS_THROUGH, TT_UNTRANSLATED};
use crate::spec::vtd::root::{ROOT_ENTRIES, ROOT_ENTRY_BYTES, RootEntry};
use crate::spec::vtd::second_stage::{ENTRY_BYTES, SecondStageEntry, TABLE_ENTRIES};
use crate::vtd::{Register, Unit};
use core::fmt::{self, Write};

/// Bounds of a table dump.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Most 64-bit words to read.
    pub words_max: u32,
    /// Most lines to write.
    pub lines_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { words_max: 1 << 20, lines_max: 4096 }
    }
}

/// A unit, printed by `Display`.
#[derive(Clone, Copy)]
pub struct UnitText<'a>(&'a Unit);

/// See [`Unit::snapshot`].
pub(crate) const fn unit(unit: &Unit) -> UnitText<'_> {
    UnitText(unit)
}

impl fmt::Display for UnitText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = self.0;
        let page_requests = unit.capabilities().page_requests;
        for register in Register::fixed().filter(|register| page_requests || !register.is_of_page_requests()) {
            writeln!(f, "{register:?} {:#x}", unit.read_register(register))?;
        }
        for (index, record) in unit.fault_records().iter().enumerate() {
            let bits = record.into_bits();
            if bits != 0 {
                writeln!(f, "Frcd{index} {bits:#x}")?;
            }
        }
        let mut contexts: Vec<_> = unit.caches().contexts().collect();
        contexts.sort_by_key(|entry| entry.source);
        for entry in contexts {
            write_context(f, entry)?;
        }
        let mut pasids: Vec<_> = unit.caches().pasids().collect();
        pasids.sort_by_key(|entry| (entry.source, entry.pasid));
        for entry in pasids {
            write_pasid_entry(f, entry)?;
        }
        let mut pages: Vec<_> = unit.caches().iotlb().collect();
        pages.sort_by_key(|entry| (entry.domain, entry.pasid, entry.page, entry.page_bytes));
        for e in pages {
            let permissions = permissions(e.readable, e.writable);
            write!(f, "iotlb did={}", e.domain)?;
            write_pasid(f, e.pasid)?;
            writeln!(f, " {}+{:#x} -> {} {permissions}", e.page, e.page_bytes, e.frame)?;
        }
        let mut pointers: Vec<_> = unit.caches().psc().collect();
        pointers.sort_by_key(|entry| (entry.domain, entry.pasid, entry.level, entry.first));
        for entry in pointers {
            write_pointer(f, entry)?;
        }
        for walk in unit.in_flight() {
            write!(f, "walk {} {} {:?} {}", walk.id.slot(), walk.request.source, walk.request.access, walk.request.iova)?;
            write_awaited(f, walk.fetch)?;
        }
        Ok(())
    }
}

/// What a walk waits for, to the end of its line.
fn write_awaited(f: &mut fmt::Formatter<'_>, fetch: Option<(Pa, FetchKind)>) -> fmt::Result {
    match fetch {
        Some((pa, kind)) => writeln!(f, " awaits {kind:?} at {pa}"),
        None => writeln!(f),
    }
}

/// Lines in the order of their text: what a cache holds, whatever its history.
fn write_sorted(f: &mut fmt::Formatter<'_>, lines: impl Iterator<Item = String>) -> fmt::Result {
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    lines.iter().try_for_each(|line| writeln!(f, "{line}"))
}

fn write_context(f: &mut fmt::Formatter<'_>, entry: &ContextEntryCached) -> fmt::Result {
    write!(f, "context {} did={} ", entry.source, entry.domain)?;
    match entry.target {
        ContextTarget::Tables { root, levels } => writeln!(f, "tables={root} levels={levels}"),
        ContextTarget::PassThrough => writeln!(f, "pass-through"),
        ContextTarget::Scalable { directory, pasid_bits, rid_pasid, pasid_enabled, .. } => {
            writeln!(f, "directory={directory} pasid-bits={pasid_bits} rid-pasid={rid_pasid} pasid-enabled={pasid_enabled}")
        }
        ContextTarget::Fault(reason) => writeln!(f, "fault {reason}"),
    }
}

fn write_pointer(f: &mut fmt::Formatter<'_>, e: &PscEntry) -> fmt::Result {
    let permissions = permissions(e.readable, e.writable);
    write!(f, "psc{} did={}", e.level, e.domain)?;
    write_pasid(f, e.pasid)?;
    writeln!(f, " {}+{:#x} -> table {} {permissions}", e.first, e.span_bytes, e.table)
}

fn write_pasid(f: &mut fmt::Formatter<'_>, pasid: Option<Pasid>) -> fmt::Result {
    match pasid {
        Some(pasid) => write!(f, " pasid={pasid}"),
        None => Ok(()),
    }
}

fn write_pasid_entry(f: &mut fmt::Formatter<'_>, e: &PasidEntryCached) -> fmt::Result {
    write!(f, "pasid {} pasid={} did={} {:?}", e.source, e.pasid, e.domain, e.target.stages)?;
    writeln!(f, " first={} second={}", e.target.first_root, e.target.second_root)
}

const fn permissions(readable: bool, writable: bool) -> &'static str {
    match (readable, writable) {
        (true, true) => "rw",
        (true, false) => "r-",
        (false, true) => "-w",
        (false, false) => "--",
    }
}

/// A run of pages that continue each other.
#[derive(Clone, Copy)]
struct Run {
    first: u64,
    bytes: u64,
    pa: u64,
    page_bytes: u64,
    permissions: &'static str,
}

/// Reads tables within its limits and writes lines within its limits.
struct Dump<'a> {
    read: &'a mut dyn FnMut(Pa) -> Option<u64>,
    out: String,
    words_left: u32,
    lines_left: u32,
    run: Option<Run>,
    indent: &'static str,
}

/// The whole translation state that a root table leads to: devices, their context entries, their mappings.
pub fn root_table(root: Pa, limits: Limits, read: &mut dyn FnMut(Pa) -> Option<u64>) -> String {
    let mut dump = Dump::new(limits, read, "    ");
    for bus in 0..ROOT_ENTRIES {
        let Some(bits) = dump.read_wide(root.offset(u64::from(bus) * ROOT_ENTRY_BYTES)) else { continue };
        let entry = RootEntry::from_bits(bits);
        if !entry.present() {
            continue;
        }
        let table = Pfn(entry.context_table()).pa();
        dump.line(format_args!("bus {bus:02x} context-table={table}"));
        for devfn in 0..CONTEXT_ENTRIES {
            let Some(bits) = dump.read_wide(table.offset(u64::from(devfn) * CONTEXT_ENTRY_BYTES)) else { continue };
            dump.context(Bdf((bus << 8) | devfn), ContextEntry::from_bits(bits));
        }
    }
    dump.finish()
}

/// The mappings of one second-stage table of `levels` levels (1 to 5), runs of equal pages merged.
pub fn second_stage(root: Pa, levels: u8, limits: Limits, read: &mut dyn FnMut(Pa) -> Option<u64>) -> String {
    let mut dump = Dump::new(limits, read, "");
    dump.table(root, levels.clamp(1, 5), 0, (true, true));
    dump.end_run();
    dump.finish()
}

impl<'a> Dump<'a> {
    fn new(limits: Limits, read: &'a mut dyn FnMut(Pa) -> Option<u64>, indent: &'static str) -> Self {
        Self { read, out: String::new(), words_left: limits.words_max, lines_left: limits.lines_max, run: None, indent }
    }

    fn finish(mut self) -> String {
        if self.words_left == 0 || self.lines_left == 0 {
            self.out.push_str("... cut off by the limits\n");
        }
        self.out
    }

    fn line(&mut self, text: fmt::Arguments<'_>) {
        if self.lines_left == 0 {
            return;
        }
        self.lines_left -= 1;
        writeln!(self.out, "{text}").expect("a string takes everything");
    }

    fn read(&mut self, pa: Pa) -> Option<u64> {
        if self.lines_left == 0 {
            return None;
        }
        self.words_left = self.words_left.checked_sub(1)?;
        (self.read)(pa)
    }

    fn read_wide(&mut self, pa: Pa) -> Option<u128> {
        let low = self.read(pa)?;
        let high = self.read(pa.offset(8))?;
        Some(u128::from(low) | (u128::from(high) << 64))
    }

    fn context(&mut self, source: Bdf, entry: ContextEntry) {
        if !entry.present() {
            return;
        }
        let root = Pfn(entry.second_stage()).pa();
        let (kind, width) = (entry.translation_type(), entry.address_width());
        self.line(format_args!("  {source} did={:#x} t={kind} aw={width} tables={root}", entry.domain()));
        let levels = match width {
            AW_39 => 3,
            AW_48 => 4,
            AW_57 => 5,
            _ => return,
        };
        if (TT_UNTRANSLATED..TT_PASS_THROUGH).contains(&kind) {
            self.table(root, levels, 0, (true, true));
            self.end_run();
        }
    }

    fn table(&mut self, table: Pa, level: u8, first: u64, above: (bool, bool)) {
        for index in 0..TABLE_ENTRIES {
            let Some(word) = self.read(table.offset(index * ENTRY_BYTES)) else { continue };
            let entry = SecondStageEntry::from_bits(word);
            if !entry.read() && !entry.write() {
                continue;
            }
            let address = first | (index << page_shift(level));
            let allowed = (above.0 && entry.read(), above.1 && entry.write());
            let pa = Pfn(entry.frame()).pa();
            if level == 1 || entry.page_size() {
                self.page(address, pa.0, 1 << page_shift(level), permissions(allowed.0, allowed.1));
            } else {
                self.table(pa, level - 1, address, allowed);
            }
        }
    }

    fn page(&mut self, address: u64, pa: u64, page_bytes: u64, permissions: &'static str) {
        if let Some(run) = &mut self.run
            && run.first + run.bytes == address
            && run.pa.wrapping_add(run.bytes) == pa
            && run.page_bytes == page_bytes
            && run.permissions == permissions
        {
            run.bytes += page_bytes;
            return;
        }
        self.end_run();
        self.run = Some(Run { first: address, bytes: page_bytes, pa, page_bytes, permissions });
    }

    fn end_run(&mut self) {
        let Some(run) = self.run.take() else { return };
        let (first, pa, indent) = (Iova(run.first), Pa(run.pa), self.indent);
        let (bytes, page_bytes) = (run.bytes, run.page_bytes);
        self.line(format_args!("{indent}{first}+{bytes:#x} -> {pa} {} page={page_bytes:#x}", run.permissions));
    }
}
