//! The records of the IOMMU core, among each other, against the hardware, and against the promises.

use iommu_model::addr::{Bdf, Pa};
use iommu_model::spec::vtd::context::{AW_39, CONTEXT_ENTRIES, CONTEXT_ENTRY_BYTES, ContextEntry};
use iommu_model::spec::vtd::root::{ROOT_ENTRIES, ROOT_ENTRY_BYTES, RootEntry};
use iommu_model::spec::vtd::second_stage::SecondStageEntry;
use sim::oracle::View;

use super::Fault;
use super::files::{IommuFlb, State};
use super::read::{Reader, twice};
use crate::abi::AbiStruct;
use crate::abi::iommu::{ARRAY_HDR, ARRAY_PAGE_BYTES, CONTEXT_BITMAP_WORDS, DELETED, FLB_VERSION, HW_TYPE_INTEL};
use crate::oracle::ledger::Ledger;
use crate::topology::Topology;

/// A live domain record.
struct Domain {
    at: Pa,
    top: Pa,
    level: u64,
}

/// A live device record.
struct Device {
    at: Pa,
    bdf: Bdf,
    id: u64,
    domain: Pa,
    unit: Pa,
}

/// The live record of a unit.
struct Unit {
    at: Pa,
    holders: u64,
    registers: u64,
    root: Pa,
    /// Buses whose context tables it says are preserved.
    buses: Vec<u8>,
}

/// All live records.
pub(super) struct Records {
    domains: Vec<Domain>,
    devices: Vec<Device>,
    units: Vec<Unit>,
    /// Objects of each page of each array, in order.
    pages: Vec<Vec<u64>>,
}

/// Reads the arrays and names the tables that live records lead to.
pub(super) fn read(r: &mut Reader<'_>, flb: &IommuFlb) -> Result<Records, Fault> {
    let abi = flb.abi;
    if abi.flb.version.is_some() && r.member(&abi.flb.layout, flb.data, "version") != FLB_VERSION {
        return Err(("unknown-version", "iommu_flb_ser".to_owned()));
    }
    let mut records = Records { domains: Vec::new(), devices: Vec::new(), units: Vec::new(), pages: Vec::new() };
    let first = |r: &Reader<'_>, member: &str| Pa(r.member(&abi.flb.layout, flb.data, member));
    let (domains, devices, units) = (first(r, "iommu_domain_array_phys"), first(r, "device_array_phys"), first(r, "iommu_array_phys"));
    for at in array(r, domains, &abi.domain.layout, &mut records.pages)? {
        let layout = &abi.domain.layout;
        let (top, level) = (Pa(r.member(layout, at, "top_table_phys")), r.member(layout, at, "top_level"));
        let vasz = r.member(layout, at, "vasz");
        if level > 4 || vasz != 12 + 9 * (level + 1) {
            return Err(("domain-of-impossible-size", format!("record at pa {at}: top level {level}, 2^{vasz} bytes")));
        }
        tables(r, top, level);
        records.domains.push(Domain { at, top, level });
    }
    for at in array(r, devices, &abi.device.layout, &mut records.pages)? {
        let layout = &abi.device.layout;
        let bdf = Bdf(r.member(layout, at, "devid") as u16);
        let (domain, unit) = (Pa(r.member(layout, at, "map.domain_phys")), Pa(r.member(layout, at, "map.iommu_phys")));
        if r.member(layout, at, "devid") >> 16 != 0 || r.member(layout, at, "pci_domain_nr") != 0 {
            return Err(("device-of-another-segment", format!("record at pa {at}")));
        }
        records.devices.push(Device { at, bdf, id: r.member(layout, at, "map.attachment_id"), domain, unit });
    }
    for at in array(r, units, &abi.hw.layout, &mut records.pages)? {
        records.units.push(unit(r, &abi.hw.layout, at)?);
    }
    Ok(records)
}

/// Live objects of an array.
fn array(r: &mut Reader<'_>, first: Pa, layout: &'static AbiStruct, pages: &mut Vec<Vec<u64>>) -> Result<Vec<Pa>, Fault> {
    let fits = u64::from((ARRAY_PAGE_BYTES - ARRAY_HDR.bytes) / layout.bytes);
    let mut live = Vec::new();
    let mut filled = Vec::new();
    for page in r.chain(first, layout.name)? {
        let nr = r.member(&ARRAY_HDR, page, "nr_objects");
        if nr > fits {
            return Err(("more-objects-than-fit", format!("{} at pa {page}: {nr}", layout.name)));
        }
        filled.push(nr);
        for index in 0..nr {
            let at = page.offset(u64::from(ARRAY_HDR.bytes) + index * u64::from(layout.bytes));
            let flags = r.member(layout, at, "hdr.flags");
            if flags & !u64::from(DELETED) != 0 {
                return Err(("object-marked-for-the-next-kernel", format!("{} at pa {at}: flags {flags:#x}", layout.name)));
            }
            if flags & u64::from(DELETED) != 0 {
                continue;
            }
            if r.member(layout, at, "hdr.ref_count") == 0 {
                return Err(("live-object-without-holder", format!("{} at pa {at}", layout.name)));
            }
            live.push(at);
        }
    }
    if filled.is_empty() {
        return Err(("array-is-missing", layout.name.to_owned()));
    }
    pages.push(filled);
    Ok(live)
}

fn unit(r: &mut Reader<'_>, layout: &AbiStruct, at: Pa) -> Result<Unit, Fault> {
    let root = Pa(r.member(layout, at, "intel.root_table"));
    let (token, registers) = (r.member(layout, at, "token"), r.member(layout, at, "intel.phys_addr"));
    if r.member(layout, at, "type") != HW_TYPE_INTEL || token != registers || r.member(layout, at, "intel.restored") != 0 {
        return Err(("unit-of-unknown-kind", format!("record at pa {at}: token {token:#x}, registers {registers:#x}")));
    }
    let bitmap = at.offset(u64::from(layout.offset_of("intel.context_tables_bitmap").unwrap_or(0)));
    let mut buses = Vec::new();
    r.name(root);
    for bus in 0..ROOT_ENTRIES {
        let bit = u64::from(bus) * 2;
        let word = r.load(bitmap.offset(bit / 64 * 8), 8) >> (bit % 64);
        if word & 2 != 0 {
            return Err(("context-table-that-cannot-be", format!("upper half of bus {bus:#x}")));
        }
        if word & 1 != 0 {
            buses.push(bus as u8);
            if let Some(table) = context_table(r, root, bus as u8) {
                r.name(table);
            }
        }
    }
    debug_assert!(u64::from(ROOT_ENTRIES) * 2 == u64::from(CONTEXT_BITMAP_WORDS) * 64 && CONTEXT_ENTRIES == 256);
    Ok(Unit { at, holders: r.member(layout, at, "hdr.ref_count"), registers, root, buses })
}

fn wide(r: &Reader<'_>, at: Pa) -> u128 {
    u128::from(r.load(at, 8)) | u128::from(r.load(at.offset(8), 8)) << 64
}

fn context_table(r: &Reader<'_>, root: Pa, bus: u8) -> Option<Pa> {
    let entry = RootEntry::from_bits(wide(r, root.offset(u64::from(bus) * ROOT_ENTRY_BYTES)));
    entry.present().then(|| Pa(entry.context_table() << 12))
}

/// Names a tree of tables.
fn tables(r: &mut Reader<'_>, top: Pa, level: u64) {
    r.name(top);
    if level == 0 {
        return;
    }
    for index in 0..512 {
        let word = r.load(top.offset(index * 8), 8);
        let entry = SecondStageEntry::from_bits(word);
        if word != 0 && !entry.page_size() {
            tables(r, Pa(entry.frame() << 12), level - 1);
        }
    }
}

/// See the module above.
pub(super) fn judge(records: &Records, state: &State, ledger: &Ledger, topo: &Topology, view: &View<'_>) -> Result<(), Fault> {
    pages_are_full(records, ledger)?;
    if let Some(bdf) = twice(records.devices.iter().map(|device| device.bdf)) {
        return Err(("device-named-twice", format!("{bdf}, by two live records")));
    }
    if let Some(registers) = twice(records.units.iter().map(|unit| unit.registers)) {
        return Err(("unit-named-twice", format!("registers at {registers:#x}")));
    }
    if let Some(top) = twice(records.domains.iter().map(|domain| domain.top)) {
        return Err(("domain-named-twice", format!("top table pa {top}, by two live records")));
    }
    for device in &records.devices {
        device_agrees(device, records, topo, view)?;
    }
    for unit in &records.units {
        let devices = records.devices.iter().filter(|device| device.unit == unit.at).count() as u64;
        if unit.holders != devices {
            return Err(("unit-counts-other-devices", format!("record at pa {} counts {}, {devices} name it", unit.at, unit.holders)));
        }
    }
    let led_to = |domain: &Domain| {
        records.devices.iter().any(|device| device.domain == domain.at) || state.files().any(|file| file.domains.contains(&domain.at))
    };
    if let Some(domain) = records.domains.iter().find(|domain| !led_to(domain)) {
        return Err(("domain-nobody-names", format!("record at pa {}, top table pa {}", domain.at, domain.top)));
    }
    let is_live = |at: &Pa| records.domains.iter().any(|domain| domain.at == *at);
    if let Some(at) = state.files().flat_map(|file| &file.domains).find(|at| !is_live(at)) {
        return Err(("file-names-no-live-domain", format!("pa {at}")));
    }
    promises(records, state, ledger)
}

/// Every page but the last holds as many objects as fit.
fn pages_are_full(records: &Records, ledger: &Ledger) -> Result<(), Fault> {
    for filled in &records.pages {
        let Some((last, before)) = filled.split_last() else { continue };
        // Unless the plan lowers it, the capacity of a page is more than any run needs.
        let capacity = ledger.context.slots;
        let odd = before.iter().any(|nr| capacity.is_some_and(|capacity| *nr != capacity));
        if odd || capacity.is_some_and(|capacity| *last > capacity) {
            return Err(("objects-do-not-fill-their-pages", format!("pages of {capacity:?} objects hold {filled:?}")));
        }
    }
    Ok(())
}

/// A device's record against the records it names, and against its context entry.
fn device_agrees(device: &Device, records: &Records, topo: &Topology, view: &View<'_>) -> Result<(), Fault> {
    let bdf = device.bdf;
    let Some(domain) = records.domains.iter().find(|domain| domain.at == device.domain) else {
        return Err(("device-names-no-live-domain", format!("{bdf}: its record at pa {} names pa {}", device.at, device.domain)));
    };
    let Some(unit) = records.units.iter().find(|unit| unit.at == device.unit) else {
        return Err(("device-names-no-live-unit", format!("{bdf}: its record at pa {} names pa {}", device.at, device.unit)));
    };
    let known = topo.devices.iter().find(|known| known.bdf == bdf);
    let Some(number) = known.map(|known| usize::from(known.unit)).filter(|number| topo.units[*number].register_base.0 == unit.registers)
    else {
        return Err(("device-names-another-unit", format!("{bdf} names the unit with registers at {:#x}", unit.registers)));
    };
    let root = view.fabric.units().get(number).map(|slot| Pa(slot.unit.borrow().root_in_use().table() << 12));
    if root != Some(unit.root) {
        return Err(("unit-names-another-root", format!("record: pa {}, in use: {root:x?}", unit.root)));
    }
    let r = Reader::new(view.memory);
    let table = context_table(&r, unit.root, bdf.bus()).filter(|_| unit.buses.contains(&bdf.bus()));
    let Some(table) = table else { return Err(("context-table-is-not-named", format!("of device {bdf}"))) };
    let entry = ContextEntry::from_bits(wide(&r, table.offset(u64::from(bdf.devfn()) * CONTEXT_ENTRY_BYTES)));
    let says = (u64::from(entry.domain()), entry.second_stage() << 12, u64::from(entry.address_width()) + 2 - u64::from(AW_39));
    let record = (device.id, domain.top.0, domain.level);
    if !entry.present() || says != record {
        let text = format!("{bdf}: domain id, top table, level: record {record:x?}, context entry {says:x?}");
        return Err(("record-is-not-what-hardware-walks", text));
    }
    Ok(())
}

/// The records are the promises.
fn promises(records: &Records, state: &State, ledger: &Ledger) -> Result<(), Fault> {
    let mut promised: Vec<Bdf> = ledger.devices.iter().filter(|device| device.preserved).map(|device| device.bdf).collect();
    let mut live: Vec<Bdf> = records.devices.iter().map(|device| device.bdf).collect();
    promised.sort_unstable();
    live.sort_unstable();
    if promised != live {
        return Err(("records-are-not-the-preserved-devices", format!("preserved {promised:?}, live records {live:?}")));
    }
    let preserved = ledger.domains.iter().filter(|domain| domain.ptr != 0 && domain.preserved);
    let mut promised: Vec<Pa> = preserved.map(|domain| domain.top).collect();
    let mut live: Vec<Pa> = records.domains.iter().map(|domain| domain.top).collect();
    promised.sort_unstable();
    live.sort_unstable();
    if promised != live {
        return Err(("records-are-not-the-preserved-domains", format!("top tables preserved {promised:?}, live records {live:?}")));
    }
    let named = |bdf: Bdf| state.files().any(|file| file.device.is_some_and(|device| device.0 == bdf));
    match records.devices.iter().find(|device| !named(device.bdf)) {
        Some(device) => Err(("device-of-no-file", format!("{}", device.bdf))),
        None => Ok(()),
    }
}
