//! What the file handlers hand over.

use iommu_model::addr::{Bdf, Pa, Pfn};

use super::text::Decoder;
use crate::abi::{iommufd as iommufd_abi, kho as kho_abi, memfd as abi, vfio as vfio_abi};
use crate::kernel::kho::vmalloc::CHUNK_SLOTS;
use crate::tag;

/// Most folios shown of one memfd.
const FOLIOS_MAX: u64 = 4096;
/// Most blocks of a vmalloc array.
const BLOCKS_MAX: usize = 1024;

/// `struct memfd_luo_ser`, its array of folios, the folios.
pub(super) fn memfd(d: &mut Decoder<'_>, at: Pa) {
    let layout = &abi::SER;
    d.heading(layout, tag::MEMFD_SER, at);
    d.deeper(|d| {
        for member in ["pos", "size", "seals", "flags"] {
            d.number(layout, at, member);
        }
        let nr_folios = d.number(layout, at, "nr_folios");
        d.member(layout, "folios", kho_abi::VMALLOC.name);
        let folios = Pa(at.0.wrapping_add(u64::from(layout.offset_of("folios").unwrap_or(0))));
        let mut blocks = Vec::new();
        d.deeper(|d| blocks = vmalloc(d, folios));
        let per_block = 4096 / u64::from(abi::FOLIO.bytes);
        let room = blocks.len() as u64 * per_block;
        if nr_folios > room {
            d.line(&format!("nr_folios is more than its array holds ({room})"));
        }
        for index in 0..nr_folios.min(room).min(FOLIOS_MAX) {
            if d.is_spent() {
                return;
            }
            let entry = Pa(blocks[(index / per_block) as usize].0.wrapping_add(index % per_block * u64::from(abi::FOLIO.bytes)));
            let word = d.value(&abi::FOLIO, entry, "pfn");
            let page = d.value(&abi::FOLIO, entry, "index");
            let folio = match Pfn(word & abi::FOLIO_PFN_MASK) {
                Pfn(pfn) if pfn >= 1 << 40 => format!("pfn {pfn:#x}, where there is no RAM"),
                pfn => d.name(tag::MEMFD_FOLIO, pfn.pa()),
            };
            let dirty = if word & abi::FOLIO_DIRTY != 0 { " dirty" } else { "" };
            let uptodate = if word & abi::FOLIO_UPTODATE != 0 { " uptodate" } else { "" };
            let unknown = word & !(abi::FOLIO_PFN_MASK | abi::FOLIO_DIRTY | abi::FOLIO_UPTODATE);
            let unknown = if unknown != 0 { format!(" unknown flags {unknown:#x}") } else { String::new() };
            d.line(&format!("{}[{index}] index {page}: {folio}{dirty}{uptodate}{unknown}", abi::FOLIO.name));
        }
    });
}

/// `struct kho_vmalloc`: the addresses of its blocks.
fn vmalloc(d: &mut Decoder<'_>, at: Pa) -> Vec<Pa> {
    let layout = &kho_abi::VMALLOC;
    let mut chunk = d.address(layout, at, "first", tag::VMALLOC_CHUNK);
    let total = d.number(layout, at, "total_pages");
    d.number(layout, at, "flags");
    d.number(layout, at, "order");
    let mut blocks = Vec::new();
    let mut chunks = Vec::new();
    while chunk.0 != 0 && !d.is_spent() {
        if chunks.contains(&chunk) {
            d.line("the chain of chunks is a cycle");
            break;
        }
        chunks.push(chunk);
        d.heading(&kho_abi::VMALLOC_CHUNK, tag::VMALLOC_CHUNK, chunk);
        let mut next = Pa(0);
        d.deeper(|d| {
            next = d.address(&kho_abi::VMALLOC_CHUNK, chunk, "next", tag::VMALLOC_CHUNK);
            for slot in 0..CHUNK_SLOTS {
                let offset = 8 + slot * 8;
                let Some(block) = d.word(Pa(chunk.0.wrapping_add(offset))).filter(|&block| block != 0) else { break };
                let name = d.name(tag::VMALLOC, Pa(block));
                d.line(&format!("+{offset:#05x} phys[{slot}] = {name}"));
                blocks.push(Pa(block));
                if blocks.len() >= BLOCKS_MAX {
                    return;
                }
            }
        });
        if blocks.len() >= BLOCKS_MAX {
            break;
        }
        chunk = next;
    }
    if blocks.len() as u64 != total {
        d.line(&format!("total_pages is not what the chunks hold ({})", blocks.len()));
    }
    blocks
}

/// `struct iommufd_ser` with its HWPTs.
pub(super) fn iommufd(d: &mut Decoder<'_>, at: Pa) {
    let layout = &iommufd_abi::IOMMUFD_SER;
    d.heading(layout, tag::IOMMUFD_SER, at);
    d.deeper(|d| {
        let nr_hwpts = d.number(layout, at, "nr_hwpts");
        for index in 0..nr_hwpts.min(1024) {
            if d.is_spent() {
                return;
            }
            let hwpt = &iommufd_abi::HWPT_SER;
            let entry = Pa(at.0.wrapping_add(iommufd_abi::bytes(index as u32)));
            d.line(&format!("{}[{index}]", hwpt.name));
            d.deeper(|d| {
                d.number(hwpt, entry, "token");
                d.address(hwpt, entry, "domain_data", tag::IOMMU_DOMAIN_ARRAY);
                d.number(hwpt, entry, "reclaimed");
            });
        }
    });
}

/// `struct vfio_pci_core_device_ser`.
pub(super) fn vfio(d: &mut Decoder<'_>, at: Pa) {
    let layout = &vfio_abi::VFIO_SER;
    d.heading(layout, tag::VFIO_SER, at);
    d.deeper(|d| {
        let bdf = Bdf(d.value(layout, at, "bdf") as u16);
        d.member(layout, "bdf", &bdf.to_string());
        d.number(layout, at, "domain");
        d.number(layout, at, "reset_works");
        if d.value(layout, at, "iommufd_token") == vfio_abi::NO_IOMMUFD {
            d.member(layout, "iommufd_token", "none");
        } else {
            d.number(layout, at, "iommufd_token");
        }
        d.padding(layout, at);
    });
}
