//! The FLB of the IOMMU core: three arrays of objects, root and context tables, page tables.

use iommu_model::addr::{Bdf, Iova, Pa, Pfn};
use iommu_model::spec::vtd::context::{AW_39, AW_57, CONTEXT_ENTRIES, CONTEXT_ENTRY_BYTES, ContextEntry};
use iommu_model::spec::vtd::root::{ROOT_ENTRIES, ROOT_ENTRY_BYTES, RootEntry};
use iommu_model::spec::vtd::second_stage::{ENTRY_BYTES, LEVEL_BITS, SecondStageEntry, TABLE_ENTRIES};
use sim::memory::Tag;

use super::text::Decoder;
use crate::abi::AbiStruct;
use crate::abi::iommu::{
    ARRAY_HDR, ARRAY_PAGE_BYTES, CONTEXT_BITMAP_WORDS, DELETED, HW_TYPE_INTEL, INCOMING, IOMMU_TIP, IOMMU_V2, IommuAbi,
};
use crate::tag;

/// Most pages of one object array.
const ARRAY_PAGES_MAX: usize = 256;
/// Most levels a domain's tables can have.
const LEVELS_MAX: u64 = 5;

/// The ABI whose FLB has this name.
pub(super) fn layout(compatible: &str) -> Option<&'static IommuAbi> {
    [&IOMMU_V2, &IOMMU_TIP].into_iter().find(|abi| abi.compatible == compatible)
}

/// `struct iommu_flb_ser` and the arrays, in the order of its members.
pub(super) fn flb(d: &mut Decoder<'_>, abi: &IommuAbi, at: Pa) {
    let layout = &abi.flb.layout;
    d.heading(layout, tag::IOMMU_FLB_SER, at);
    d.deeper(|d| {
        if abi.flb.version.is_some() {
            d.number(layout, at, "version");
        }
        let units = d.address(layout, at, "iommu_array_phys", tag::IOMMU_HW_ARRAY);
        let domains = d.address(layout, at, "iommu_domain_array_phys", tag::IOMMU_DOMAIN_ARRAY);
        let devices = d.address(layout, at, "device_array_phys", tag::IOMMU_DEVICE_ARRAY);
        array(d, abi, units, tag::IOMMU_HW_ARRAY, &abi.hw.layout, unit);
        array(d, abi, domains, tag::IOMMU_DOMAIN_ARRAY, &abi.domain.layout, domain);
        array(d, abi, devices, tag::IOMMU_DEVICE_ARRAY, &abi.device.layout, device);
    });
}

/// An object array, page by page; each object begins with its header.
fn array(d: &mut Decoder<'_>, abi: &IommuAbi, first: Pa, tag: Tag, layout: &AbiStruct, show: fn(&mut Decoder<'_>, &AbiStruct, Pa)) {
    let per_page = u64::from(ARRAY_PAGE_BYTES - ARRAY_HDR.bytes) / u64::from(layout.bytes);
    let mut page = first;
    let mut pages = Vec::new();
    while page.0 != 0 && !d.is_spent() {
        if pages.contains(&page) || pages.len() >= ARRAY_PAGES_MAX {
            d.line("the chain of array pages does not end");
            return;
        }
        pages.push(page);
        d.heading(&ARRAY_HDR, tag, page);
        let mut next = Pa(0);
        d.deeper(|d| {
            next = d.address(&ARRAY_HDR, page, "next_array_phys", tag);
            let nr_objects = d.number(&ARRAY_HDR, page, "nr_objects");
            if nr_objects > per_page {
                d.line(&format!("nr_objects is more than fits ({per_page})"));
            }
            for index in 0..nr_objects.min(per_page) {
                if d.is_spent() {
                    return;
                }
                let offset = u64::from(ARRAY_HDR.bytes) + index * u64::from(layout.bytes);
                let object = Pa(page.0.wrapping_add(offset));
                d.line(&format!("{}[{index}] at +{offset:#x}", layout.name));
                d.deeper(|d| {
                    d.number(layout, object, "hdr.ref_count");
                    let names = [(u64::from(DELETED), "DELETED"), (u64::from(INCOMING), "INCOMING")];
                    let flags = d.bits(layout, object, "hdr.flags", &names);
                    if flags & u64::from(DELETED) == 0 {
                        show(d, layout, object);
                    }
                    if abi.hdr.flags_bytes == 4 {
                        d.padding(layout, object);
                    }
                });
            }
        });
        page = next;
    }
}

fn unit(d: &mut Decoder<'_>, layout: &AbiStruct, at: Pa) {
    let token = d.value(layout, at, "token");
    d.member(layout, "token", &format!("{token:#x}"));
    if d.number(layout, at, "type") != HW_TYPE_INTEL {
        d.line("not known to this decoder");
        return;
    }
    if layout.member("intel.restored").is_some() {
        d.number(layout, at, "intel.restored");
    }
    let registers = d.value(layout, at, "intel.phys_addr");
    d.member(layout, "intel.phys_addr", &format!("{registers:#x}"));
    let root = d.address(layout, at, "intel.root_table", tag::VTD_ROOT);
    let bitmap = layout.offset_of("intel.context_tables_bitmap").unwrap_or(0);
    let mut buses = Vec::new();
    for word in 0..CONTEXT_BITMAP_WORDS {
        let value = d.word(Pa(at.0.wrapping_add(u64::from(bitmap + word * 8)))).unwrap_or(0);
        let bits = (0..64u16).filter(move |bit| value >> bit & 1 != 0).map(move |bit| word * 64 + bit);
        buses.extend(bits.map(|bit| format!("{:02x}{}", bit / 2, if bit % 2 == 0 { "" } else { " upper half" })));
    }
    let text = if buses.is_empty() { "no bus".to_owned() } else { format!("bus {}", buses.join(", ")) };
    d.member(layout, "intel.context_tables_bitmap", &text);
    if root.0 != 0 {
        root_table(d, root);
    }
}

/// A root table and its context tables, present entries only.
fn root_table(d: &mut Decoder<'_>, root: Pa) {
    let place = d.name(tag::VTD_ROOT, root);
    d.line(&format!("root table at {place}"));
    d.deeper(|d| {
        for bus in 0..ROOT_ENTRIES {
            let Some(bits) = wide(d, root, u64::from(bus) * ROOT_ENTRY_BYTES) else { return };
            let entry = RootEntry::from_bits(bits);
            if !entry.present() {
                continue;
            }
            let table = Pfn(entry.context_table()).pa();
            let place = d.name(tag::VTD_CONTEXT, table);
            d.line(&format!("bus {bus:02x}: context table at {place}"));
            d.deeper(|d| {
                for devfn in 0..CONTEXT_ENTRIES {
                    let Some(bits) = wide(d, table, u64::from(devfn) * CONTEXT_ENTRY_BYTES) else { return };
                    let entry = ContextEntry::from_bits(bits);
                    if entry.present() {
                        let tables = d.name(tag::IOMMU_TABLE, Pfn(entry.second_stage()).pa());
                        let (did, tt, aw) = (entry.domain(), entry.translation_type(), entry.address_width());
                        let levels = if (AW_39..=AW_57).contains(&aw) { format!("{} levels", aw + 2) } else { format!("aw {aw}") };
                        d.line(&format!("{}: did {did:#x}, type {tt}, {levels}, top table {tables}", Bdf((bus << 8) | devfn)));
                    }
                }
            });
        }
    });
}

fn wide(d: &mut Decoder<'_>, table: Pa, offset: u64) -> Option<u128> {
    let at = Pa(table.0.wrapping_add(offset));
    let low = d.word(at)?;
    let high = d.word(Pa(at.0.wrapping_add(8)))?;
    Some(u128::from(low) | u128::from(high) << 64)
}

fn domain(d: &mut Decoder<'_>, layout: &AbiStruct, at: Pa) {
    let top = d.address(layout, at, "top_table_phys", tag::IOMMU_TABLE);
    let level = d.number(layout, at, "top_level");
    d.number(layout, at, "vasz");
    d.number(layout, at, "sign_extend");
    let restored = d.value(layout, at, "restored_domain");
    d.member(layout, "restored_domain", &format!("{restored:#x}"));
    if top.0 == 0 {
    } else if level >= LEVELS_MAX {
        d.line("top_level is more than the hardware has");
    } else {
        let mut run = None;
        table(d, top, level as u32 + 1, 0, &mut run);
        end_run(d, &mut run);
    }
}

fn device(d: &mut Decoder<'_>, layout: &AbiStruct, at: Pa) {
    let devid = d.value(layout, at, "devid");
    d.member(layout, "devid", &Bdf(devid as u16).to_string());
    d.number(layout, at, "pci_domain_nr");
    if layout.member("dma_owner_token").is_some() {
        d.number(layout, at, "dma_owner_token");
    }
    d.number(layout, at, "map.attachment_id");
    d.address(layout, at, "map.domain_phys", tag::IOMMU_DOMAIN_ARRAY);
    d.address(layout, at, "map.iommu_phys", tag::IOMMU_HW_ARRAY);
    for member in ["intel.restored", "intel.pasid_table", "intel.max_pasid"] {
        if layout.member(member).is_some() {
            d.number(layout, at, member);
        }
    }
}

/// Pages that follow each other, in IOVA and in memory.
struct Run {
    iova: u64,
    pa: u64,
    bytes: u64,
    page_bytes: u64,
    access: &'static str,
}

/// A table with its entries in order; `levels` counts it and what can be below it.
fn table(d: &mut Decoder<'_>, at: Pa, levels: u32, base: u64, run: &mut Option<Run>) {
    end_run(d, run);
    let place = d.name(tag::IOMMU_TABLE, at);
    d.line(&format!("level {levels} table at {place}, from iova {}", Iova(base)));
    d.deeper(|d| {
        for index in 0..TABLE_ENTRIES {
            if d.is_spent() {
                return;
            }
            let Some(word) = d.word(Pa(at.0.wrapping_add(index * ENTRY_BYTES))) else { return };
            let entry = SecondStageEntry::from_bits(word);
            let access = match (entry.read(), entry.write()) {
                (false, false) if word == 0 => continue,
                (false, false) => {
                    end_run(d, run);
                    d.line(&format!("[{index}] not present, but {word:#x}"));
                    continue;
                }
                (true, true) => "rw",
                (true, false) => "r-",
                (false, true) => "-w",
            };
            let span = 4096u64 << (LEVEL_BITS * (levels - 1));
            let iova = base.wrapping_add(index.wrapping_mul(span));
            let pa = Pfn(entry.frame()).pa();
            if levels > 1 && !entry.page_size() {
                table(d, pa, levels - 1, iova, run);
                continue;
            }
            match run {
                Some(run)
                    if run.iova.wrapping_add(run.bytes) == iova
                        && run.pa.wrapping_add(run.bytes) == pa.0
                        && run.page_bytes == span
                        && run.access == access
                        && d.known(Pa(run.pa)) == d.known(pa) =>
                {
                    run.bytes += span;
                }
                _ => {
                    end_run(d, run);
                    *run = Some(Run { iova, pa: pa.0, bytes: span, page_bytes: span, access });
                }
            }
        }
        end_run(d, run);
    });
}

fn end_run(d: &mut Decoder<'_>, run: &mut Option<Run>) {
    let Some(run) = run.take() else { return };
    let place = d.name(tag::MEMFD_FOLIO, Pa(run.pa));
    let size = if run.page_bytes == 4096 { String::new() } else { format!(", pages of {:#x}", run.page_bytes) };
    d.line(&format!("iova {}+{:#x} -> {place} {}{size}", Iova(run.iova), run.bytes, run.access));
}
