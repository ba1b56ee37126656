//! A bench in scalable mode: one device, one PASID directory, one PASID table, and first stages to put into it.

use super::bench::{DEVICE, Ended};
use super::tables::SecondStage;
use super::{Bench, Scripted};
use iommu_model::spec::vtd::first_stage::FirstStageEntry;
use iommu_model::spec::vtd::pasid::{
    PGTT_FIRST, PGTT_NESTED, PGTT_SECOND, PasidDirectoryEntry, PasidEntryFirstStage, PasidEntryLow, ScalableContextEntry,
};
use iommu_model::spec::vtd::root::{RootTableAddress, ScalableRootEntry, TTM_SCALABLE};
use iommu_model::{
    Access, Bdf, Capabilities, Decisions, DomainId, Iova, Pa, Params, Pasid, Pfn, Plain, Question, Request, Scalable, WalkId,
};

/// One first stage; in a nested one, `second` maps its tables.
#[derive(Clone, Copy)]
pub(crate) struct FirstTables {
    pub(crate) root: Pa,
    pub(crate) levels: u8,
    pub(crate) second: Option<SecondStage>,
}

/// What guest addresses of tables are above their host addresses.
const GUEST: u64 = 0x10_0000_0000;

/// The bench.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) bench: Bench,
    pub(crate) context_table: Pa,
    pub(crate) directory: Pa,
    pub(crate) pasid_table: Pa,
}

pub(crate) fn capabilities() -> Capabilities {
    Capabilities { scalable: Some(Scalable::default()), ..Capabilities::default() }
}

impl World {
    pub(crate) fn with(cap: Capabilities, params: Params) -> Self {
        let mut bench = Bench::with(cap, params);
        let [context_table, directory, pasid_table] = [(); 3].map(|()| bench.tables.frame());
        let root = ScalableRootEntry::new().with_lower_present(true).with_lower(context_table.pfn().0);
        bench.memory.write_wide(bench.tables.root_entry_pa(DEVICE), root.into_bits());
        let entry = PasidDirectoryEntry::new().with_present(true).with_table(pasid_table.pfn().0);
        bench.memory.write(directory, entry.into_bits());
        let mut world = Self { bench, context_table, directory, pasid_table };
        world.set_context(DEVICE, world.context());
        let root = RootTableAddress::new().with_mode(TTM_SCALABLE).with_table(world.bench.tables.root.pfn().0);
        world.bench.switch_root(Pa(root.into_bits()));
        world
    }

    pub(crate) fn new() -> Self {
        Self::with(capabilities(), Params::default())
    }

    /// A context entry that leads to the directory and allows PASIDs.
    pub(crate) fn context(&self) -> ScalableContextEntry {
        ScalableContextEntry::new().with_present(true).with_pasid_enable(true).with_directory(self.directory.pfn().0)
    }

    pub(crate) fn set_context(&mut self, source: Bdf, entry: ScalableContextEntry) {
        let pa = self.context_table.offset(u64::from(source.devfn() % 128) * 32);
        self.bench.memory.write_wide(pa, entry.into_bits());
    }

    pub(crate) fn pasid_pa(&self, pasid: Pasid) -> Pa {
        self.pasid_table.offset(u64::from(pasid.0) * 64)
    }

    pub(crate) fn set_pasid(&mut self, pasid: Pasid, low: PasidEntryLow, first: PasidEntryFirstStage) {
        let pa = self.pasid_pa(pasid);
        self.bench.memory.write_wide(pa, low.into_bits());
        self.bench.memory.write(pa.offset(16), first.into_bits());
    }

    /// Gives a PASID fresh second-stage tables.
    pub(crate) fn attach_second(&mut self, pasid: Pasid, domain: DomainId) -> SecondStage {
        let tables = self.bench.tables.second_stage(4);
        self.set_pasid(pasid, second(domain, tables), PasidEntryFirstStage::new());
        tables
    }

    /// Gives a PASID fresh first-stage tables.
    pub(crate) fn attach_first(&mut self, pasid: Pasid, domain: DomainId) -> FirstTables {
        let tables = FirstTables { root: self.bench.tables.frame(), levels: 4, second: None };
        let low = low(domain).with_translation_type(PGTT_FIRST);
        self.set_pasid(pasid, low, first(tables.root));
        tables
    }

    /// Gives a PASID fresh first-stage tables on a fresh second stage.
    pub(crate) fn attach_nested(&mut self, pasid: Pasid, domain: DomainId) -> FirstTables {
        let stage = self.bench.tables.second_stage(4);
        let mut tables = FirstTables { root: Pa(0), levels: 4, second: Some(stage) };
        tables.root = self.first_frame(tables);
        self.set_pasid(pasid, second(domain, stage).with_translation_type(PGTT_NESTED), first(tables.root));
        tables
    }

    /// A frame for a first-stage table, at the address by which the first stage knows it.
    pub(crate) fn first_frame(&mut self, tables: FirstTables) -> Pa {
        let host = self.bench.tables.frame();
        let Some(stage) = tables.second else { return host };
        let guest = host.offset(GUEST);
        self.map_guest(stage, guest, host);
        guest
    }

    /// Maps a guest page; returns where the second-stage leaf lies.
    pub(crate) fn map_guest(&mut self, stage: SecondStage, guest: Pa, host: Pa) -> Pa {
        self.bench.tables.map(&mut self.bench.memory, stage, Iova(guest.0), host, 12)
    }

    fn host(tables: FirstTables, pa: Pa) -> Pa {
        if tables.second.is_some() { Pa(pa.0 - GUEST) } else { pa }
    }

    /// Maps a page of `1 << shift` bytes for users, read-write; returns the host address of the leaf entry.
    pub(crate) fn map_first(&mut self, tables: FirstTables, iova: Iova, pa: Pa, shift: u32) -> Pa {
        let mut table = tables.root;
        let mut level = tables.levels;
        loop {
            let level_shift = 12 + 9 * (u32::from(level) - 1);
            let slot = Self::host(tables, table).offset(((iova.0 >> level_shift) % 512) * 8);
            if level_shift == shift {
                self.bench.memory.write(slot, first_leaf(pa, shift).into_bits());
                return slot;
            }
            let mut entry = FirstStageEntry::from_bits(self.bench.memory.read(slot));
            if !entry.present() {
                entry = first_leaf(self.first_frame(tables), 12);
                self.bench.memory.write(slot, entry.into_bits());
            }
            table = Pfn(entry.frame()).pa();
            level -= 1;
        }
    }

    pub(crate) fn begin(&mut self, pasid: Option<Pasid>, iova: Iova, access: Access) -> WalkId {
        let request = Request { source: DEVICE, iova, access, pasid };
        self.bench.unit.begin(request).expect("a walker is free")
    }

    pub(crate) fn translate_with(&mut self, pasid: Option<Pasid>, iova: Iova, access: Access, d: &mut dyn Decisions) -> Ended {
        let walk = self.begin(pasid, iova, access);
        self.bench.finish_with(walk, d)
    }

    pub(crate) fn read(&mut self, pasid: Option<Pasid>, iova: Iova) -> Ended {
        self.translate_with(pasid, iova, Access::Read, &mut Plain)
    }

    pub(crate) fn write(&mut self, pasid: Option<Pasid>, iova: Iova) -> Ended {
        self.translate_with(pasid, iova, Access::Write, &mut Plain)
    }

    /// The reason why a read faults.
    pub(crate) fn code(&mut self, pasid: Option<Pasid>, iova: Iova) -> u16 {
        self.read(pasid, iova).fault().reason.code()
    }

    /// Runs descriptors with one question answered.
    pub(crate) fn invalidate_with(&mut self, descriptors: &[u128], which: fn(Question) -> bool, answer: u32) -> u32 {
        let mut d = Scripted::new(which, answer);
        self.bench.submit(descriptors);
        self.bench.run_queue_with(&mut d);
        d.asked
    }
}

pub(crate) fn low(domain: DomainId) -> PasidEntryLow {
    PasidEntryLow::new().with_present(true).with_domain(domain.0).with_walk_snoop(true)
}

pub(crate) fn second(domain: DomainId, tables: SecondStage) -> PasidEntryLow {
    low(domain).with_translation_type(PGTT_SECOND).with_address_width(tables.levels - 2).with_second_stage(tables.root.pfn().0)
}

pub(crate) fn first(root: Pa) -> PasidEntryFirstStage {
    PasidEntryFirstStage::new().with_first_stage(root.pfn().0)
}

pub(crate) fn first_leaf(pa: Pa, shift: u32) -> FirstStageEntry {
    FirstStageEntry::new().with_present(true).with_write(true).with_user(true).with_page_size(shift > 12).with_frame(pa.pfn().0)
}

/// Queue descriptors of scalable mode.
pub(crate) mod commands {
    use iommu_model::spec::vtd::descriptor::{
        GRANULARITY_DOMAIN, GRANULARITY_NARROW, PASID_GRANULARITY_DOMAIN, PASID_GRANULARITY_GLOBAL, PASID_GRANULARITY_PASID,
        PasidCacheDescriptor, PasidIotlbDescriptor, TYPE_PASID_CACHE, TYPE_PASID_IOTLB,
    };
    use iommu_model::{DomainId, Iova, Pasid};

    fn pasid_cache(granularity: u8, domain: DomainId, pasid: Pasid) -> u128 {
        let any = PasidCacheDescriptor::new().with_kind(TYPE_PASID_CACHE);
        any.with_granularity(granularity).with_domain(domain.0).with_pasid(pasid.0).into_bits()
    }

    pub(crate) fn pasid_global() -> u128 {
        pasid_cache(PASID_GRANULARITY_GLOBAL, DomainId(0), Pasid(0))
    }

    pub(crate) fn pasid_domain(domain: DomainId) -> u128 {
        pasid_cache(PASID_GRANULARITY_DOMAIN, domain, Pasid(0))
    }

    pub(crate) fn pasid_one(domain: DomainId, pasid: Pasid) -> u128 {
        pasid_cache(PASID_GRANULARITY_PASID, domain, pasid)
    }

    fn pasid_iotlb(domain: DomainId, pasid: Pasid) -> PasidIotlbDescriptor {
        PasidIotlbDescriptor::new().with_kind(TYPE_PASID_IOTLB).with_domain(domain.0).with_pasid(pasid.0)
    }

    pub(crate) fn pasid_iotlb_all(domain: DomainId, pasid: Pasid) -> u128 {
        pasid_iotlb(domain, pasid).with_granularity(GRANULARITY_DOMAIN).into_bits()
    }

    pub(crate) fn pasid_iotlb_pages(domain: DomainId, pasid: Pasid, iova: Iova, order: u8, leaf_only: bool) -> u128 {
        let page = pasid_iotlb(domain, pasid).with_granularity(GRANULARITY_NARROW).with_page(iova.page_number());
        page.with_address_mask(order).with_leaf_only(leaf_only).into_bits()
    }
}
