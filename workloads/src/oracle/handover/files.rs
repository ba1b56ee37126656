//! Sessions, files and FLBs.

use iommu_model::addr::{Bdf, Pa};

use super::Fault;
use super::read::{Reader, twice};
use crate::abi::luo as abi;
use crate::abi::{AbiStruct, iommu as iommu_abi, iommufd, kho as kho_abi, memfd, vfio};
use crate::oracle::inspect;
use crate::oracle::ledger::Ledger;

/// A file's entry, with what its handler hands over.
pub(super) struct File {
    /// Number of its handler, as words carry it; 0 when it is not known.
    pub(super) handler: u8,
    pub(super) token: u64,
    /// iommufd: the domain records it leads to.
    pub(super) domains: Vec<Pa>,
    /// vfio: the device, and the token of its iommufd.
    pub(super) device: Option<(Bdf, u64)>,
}

/// The FLB of the IOMMU.
pub(super) struct IommuFlb {
    pub(super) abi: &'static iommu_abi::IommuAbi,
    pub(super) data: Pa,
}

/// All of it.
pub(super) struct State {
    /// Names with their files.
    pub(super) sessions: Vec<(String, Vec<File>)>,
    /// Names with the count of files.
    flbs: Vec<(String, u64)>,
    pub(super) iommu: Option<IommuFlb>,
}

impl State {
    pub(super) fn files(&self) -> impl Iterator<Item = &File> {
        self.sessions.iter().flat_map(|(_, files)| files)
    }
}

/// Reads LUO's blob.
pub(super) fn read(r: &mut Reader<'_>, blob: Pa) -> Result<State, Fault> {
    r.name(blob);
    let old = inspect::is_tree(r.memory(), blob);
    let (sessions, flbs) = if old {
        let property = |name: &str| inspect::property(r.memory(), blob, None, name).unwrap_or(0);
        (property(abi::PROP_SESSION_HEADER), property(abi::PROP_FLB_HEADER))
    } else {
        (r.member(&abi::LUO, blob, "sessions_pa"), r.member(&abi::LUO, blob, "flbs_pa"))
    };
    let mut state = State { sessions: Vec::new(), flbs: Vec::new(), iommu: None };
    for at in entries(r, Pa(sessions), old, Table { layout: &abi::SESSION, max: abi::SESSION_MAX, count: None })? {
        let name = r.text(at, 64);
        let first = Pa(r.member(&abi::SESSION, at, "file_set_ser.files"));
        let count = r.member(&abi::SESSION, at, "file_set_ser.count");
        let table = Table { layout: &abi::FILE, max: abi::FILE_MAX, count: Some(count) };
        let found = entries(r, first, old, table)?;
        if found.len() as u64 != count {
            return Err(("count-of-files-is-wrong", format!("session \"{name}\" counts {count}, its entries are {}", found.len())));
        }
        let mut files = Vec::new();
        for at in found {
            files.push(file(r, at)?);
        }
        state.sessions.push((name, files));
    }
    if flbs != 0 {
        read_flbs(r, Pa(flbs), &mut state)?;
    }
    Ok(state)
}

fn read_flbs(r: &mut Reader<'_>, header: Pa, state: &mut State) -> Result<(), Fault> {
    r.name(header);
    let count = r.member(&abi::FLB_HEADER, header, "count");
    if count > abi::FLB_MAX {
        return Err(("more-entries-than-fit", format!("{count} FLBs")));
    }
    for index in 0..count {
        let at = header.offset(u64::from(abi::FLB_HEADER.bytes) + index * u64::from(abi::FLB.bytes));
        let name = r.text(at, 48);
        let data = Pa(r.member(&abi::FLB, at, "data"));
        r.name(data);
        if let Some(abi) = [&iommu_abi::IOMMU_V2, &iommu_abi::IOMMU_TIP].into_iter().find(|abi| abi.compatible == name) {
            state.iommu = Some(IommuFlb { abi, data });
        }
        state.flbs.push((name, r.member(&abi::FLB, at, "count")));
    }
    Ok(())
}

/// Entries of one kind: an array of generation 1, or blocks.
struct Table {
    layout: &'static AbiStruct,
    max: u64,
    /// Of an array of generation 1; none when its header has it.
    count: Option<u64>,
}

fn entries(r: &mut Reader<'_>, first: Pa, old: bool, table: Table) -> Result<Vec<Pa>, Fault> {
    let bytes = u64::from(table.layout.bytes);
    if first.0 == 0 {
        return Ok(Vec::new());
    }
    if old {
        r.name(first);
        let header = if table.count.is_some() { 0 } else { u64::from(abi::SESSION_HEADER.bytes) };
        let count = table.count.unwrap_or_else(|| r.load(first, 8));
        if count > table.max {
            return Err(("more-entries-than-fit", format!("{count} of {}", table.layout.name)));
        }
        return Ok((0..count).map(|index| first.offset(header + index * bytes)).collect());
    }
    let header = u64::from(kho_abi::BLOCK_HEADER.bytes);
    let fits = (kho_abi::BLOCK_BYTES - header) / bytes;
    let mut all = Vec::new();
    for block in r.chain(first, table.layout.name)? {
        let count = r.member(&kho_abi::BLOCK_HEADER, block, "count");
        if count == 0 || count > fits {
            let title = if count == 0 { "block-without-entries" } else { "more-entries-than-fit" };
            return Err((title, format!("block of {} at pa {block} counts {count}", table.layout.name)));
        }
        all.extend((0..count).map(|index| block.offset(header + index * bytes)));
    }
    Ok(all)
}

fn file(r: &mut Reader<'_>, at: Pa) -> Result<File, Fault> {
    let compatible = r.text(at, 48);
    let data = Pa(r.member(&abi::FILE, at, "data"));
    let mut file = File { handler: 0, token: r.member(&abi::FILE, at, "token"), domains: Vec::new(), device: None };
    r.name(data);
    match compatible.as_str() {
        memfd::COMPATIBLE => {
            file.handler = 1;
            read_memfd(r, data)?;
        }
        iommufd::COMPATIBLE => {
            file.handler = 2;
            let nr = r.member(&iommufd::IOMMUFD_SER, data, "nr_hwpts");
            for index in 0..nr.min(1024) {
                let entry = data.offset(iommufd::bytes(index as u32));
                file.domains.push(Pa(r.member(&iommufd::HWPT_SER, entry, "domain_data")));
            }
        }
        vfio::COMPATIBLE => {
            file.handler = 3;
            let bdf = Bdf(r.member(&vfio::VFIO_SER, data, "bdf") as u16);
            file.device = Some((bdf, r.member(&vfio::VFIO_SER, data, "iommufd_token")));
        }
        _ => return Err(("entry-of-unknown-kind", format!("\"{}\"", compatible.escape_debug()))),
    }
    Ok(file)
}

/// The folios of a memfd: as many as it says, in ascending order, none outside the file.
fn read_memfd(r: &mut Reader<'_>, at: Pa) -> Result<(), Fault> {
    let nr_folios = r.member(&memfd::SER, at, "nr_folios");
    let pages = r.member(&memfd::SER, at, "size").div_ceil(4096);
    let vmalloc = at.offset(u64::from(memfd::SER.offset_of("folios").unwrap_or(0)));
    let mut blocks = Vec::new();
    let first = Pa(r.member(&kho_abi::VMALLOC, vmalloc, "first"));
    for chunk in r.chain(first, kho_abi::VMALLOC_CHUNK.name)? {
        let slots = (1..512).map(|slot| Pa(r.load(chunk.offset(slot * 8), 8))).take_while(|block| block.0 != 0);
        blocks.extend(slots.collect::<Vec<_>>());
    }
    blocks.iter().for_each(|block| r.name(*block));
    let total = r.member(&kho_abi::VMALLOC, vmalloc, "total_pages");
    let bytes = u64::from(memfd::FOLIO.bytes);
    let room = blocks.len() as u64 * 4096 / bytes;
    if total != blocks.len() as u64 || nr_folios > room {
        let text = format!("memfd at pa {at}: {nr_folios} folios, {total} pages of entries, {} in the chain", blocks.len());
        return Err(("count-of-folios-is-wrong", text));
    }
    let mut next = 0;
    for index in 0..nr_folios {
        let entry = blocks[(index * bytes / 4096) as usize].offset(index * bytes % 4096);
        let (word, page) = (r.member(&memfd::FOLIO, entry, "pfn"), r.member(&memfd::FOLIO, entry, "index"));
        if page < next || page >= pages {
            return Err(("folio-out-of-place", format!("memfd at pa {at}: folio {index} is page {page} of {pages}")));
        }
        next = page + 1;
        r.name(Pa((word & memfd::FOLIO_PFN_MASK) << 12));
    }
    Ok(())
}

/// Files and FLBs against the promises.
pub(super) fn judge(state: &State, ledger: &Ledger) -> Result<(), Fault> {
    if let Some(name) = twice(state.sessions.iter().map(|session| &session.0)) {
        return Err(("session-named-twice", format!("\"{name}\"")));
    }
    for (name, files) in &state.sessions {
        if let Some(token) = twice(files.iter().map(|file| file.token)) {
            return Err(("token-named-twice", format!("{token:#x} in session \"{name}\"")));
        }
        for (bdf, token) in files.iter().filter_map(|file| file.device).filter(|device| device.1 != vfio::NO_IOMMUFD) {
            if !files.iter().any(|file| file.handler == 2 && file.token == token) {
                return Err(("device-of-no-iommufd", format!("{bdf} names token {token:#x}, which is no iommufd of session \"{name}\"")));
            }
        }
    }
    if let Some((bdf, _)) = twice(state.files().filter_map(|file| file.device).map(|device| (device.0, 0))) {
        return Err(("device-named-twice", format!("{bdf}, by two files")));
    }
    let mut promised: Vec<(u8, u64)> = ledger.serialised().map(|file| (file.handler, file.token)).collect();
    let mut written: Vec<(u8, u64)> = state.files().map(|file| (file.handler, file.token)).collect();
    promised.sort_unstable();
    written.sort_unstable();
    if promised != written {
        return Err(("entries-are-not-the-files", format!("handler and token, promised {promised:x?}, written {written:x?}")));
    }
    if let Some(name) = twice(state.flbs.iter().map(|flb| &flb.0)) {
        return Err(("flb-named-twice", format!("\"{name}\"")));
    }
    for handler in 1..3 {
        let files = written.iter().filter(|file| file.0 == handler).count() as u64;
        let is_iommu = |name: &str| name != abi::TEST_FLB_COMPATIBLE;
        let flb = state.flbs.iter().find(|flb| is_iommu(&flb.0) == (handler == 2));
        let count = flb.map_or(0, |flb| flb.1);
        if count != files {
            let name = flb.map_or("none", |flb| flb.0.as_str());
            return Err(("flb-counts-other-files", format!("FLB \"{name}\" counts {count}, {files} files hang on it")));
        }
    }
    Ok(())
}
