//! Builders for tables and descriptors.

use super::Memory;
use iommu_model::spec::vtd::context::{AW_39, AW_48, AW_57, ContextEntry, TT_PASS_THROUGH};
use iommu_model::spec::vtd::root::RootEntry;
use iommu_model::spec::vtd::second_stage::SecondStageEntry;
use iommu_model::{Bdf, DomainId, Iova, Pa, Pfn};

/// A root table and everything below it, in frames handed out upwards.
#[derive(Clone)]
pub(crate) struct Tables {
    pub(crate) root: Pa,
    next: Pfn,
}

/// One domain's second-stage tables.
#[derive(Clone, Copy)]
pub(crate) struct SecondStage {
    pub(crate) root: Pa,
    pub(crate) levels: u8,
}

impl Tables {
    /// An empty root table in the first of the frames from `first` on.
    pub(crate) fn new(first: Pfn) -> Self {
        Self { root: first.pa(), next: Pfn(first.0 + 1) }
    }

    pub(crate) fn frame(&mut self) -> Pa {
        let frame = self.next;
        self.next = Pfn(frame.0 + 1);
        frame.pa()
    }

    pub(crate) fn root_entry_pa(&self, source: Bdf) -> Pa {
        self.root.offset(u64::from(source.bus()) * 16)
    }

    /// Where the context entry lies; the context table is made if there is none.
    pub(crate) fn context_entry_pa(&mut self, memory: &mut Memory, source: Bdf) -> Pa {
        let slot = self.root_entry_pa(source);
        let mut entry = RootEntry::from_bits(u128::from(memory.read(slot)));
        if !entry.present() {
            entry = RootEntry::new().with_present(true).with_context_table(self.frame().pfn().0);
            memory.write_wide(slot, entry.into_bits());
        }
        Pfn(entry.context_table()).pa().offset(u64::from(source.devfn()) * 16)
    }

    /// Fresh, empty second-stage tables.
    pub(crate) fn second_stage(&mut self, levels: u8) -> SecondStage {
        SecondStage { root: self.frame(), levels }
    }

    pub(crate) fn attach(&mut self, memory: &mut Memory, source: Bdf, domain: DomainId, tables: SecondStage) -> Pa {
        let pa = self.context_entry_pa(memory, source);
        memory.write_wide(pa, context(domain, tables).into_bits());
        pa
    }

    pub(crate) fn attach_pass_through(&mut self, memory: &mut Memory, source: Bdf, domain: DomainId) -> Pa {
        let pa = self.context_entry_pa(memory, source);
        let entry = context(domain, SecondStage { root: Pa(0), levels: 4 }).with_translation_type(TT_PASS_THROUGH);
        memory.write_wide(pa, entry.into_bits());
        pa
    }

    /// Maps one page of `1 << shift` bytes, read-write; returns where the leaf entry lies.
    pub(crate) fn map(&mut self, memory: &mut Memory, tables: SecondStage, iova: Iova, pa: Pa, shift: u32) -> Pa {
        let slot = self.slot(memory, tables, iova, shift);
        memory.write(slot, leaf(pa, shift).into_bits());
        slot
    }

    /// Where the entry that maps `1 << shift` bytes at `iova` lies; tables on the way are made.
    pub(crate) fn slot(&mut self, memory: &mut Memory, tables: SecondStage, iova: Iova, shift: u32) -> Pa {
        let mut table = tables.root;
        let mut level = tables.levels;
        loop {
            let level_shift = 12 + 9 * (u32::from(level) - 1);
            let slot = table.offset(((iova.0 >> level_shift) % 512) * 8);
            if level_shift == shift {
                return slot;
            }
            let mut entry = SecondStageEntry::from_bits(memory.read(slot));
            if !entry.read() {
                entry = pointer(self.frame());
                memory.write(slot, entry.into_bits());
            }
            table = Pfn(entry.frame()).pa();
            level -= 1;
        }
    }
}

pub(crate) fn context(domain: DomainId, tables: SecondStage) -> ContextEntry {
    let width = match tables.levels {
        3 => AW_39,
        4 => AW_48,
        _ => AW_57,
    };
    ContextEntry::new().with_present(true).with_second_stage(tables.root.pfn().0).with_address_width(width).with_domain(domain.0)
}

pub(crate) fn pointer(table: Pa) -> SecondStageEntry {
    SecondStageEntry::new().with_read(true).with_write(true).with_frame(table.pfn().0)
}

pub(crate) fn leaf(pa: Pa, shift: u32) -> SecondStageEntry {
    pointer(pa).with_page_size(shift > 12)
}

/// Queue descriptors.
pub(crate) mod commands {
    use iommu_model::spec::vtd::descriptor::{
        ContextDescriptor, GRANULARITY_DOMAIN, GRANULARITY_GLOBAL, GRANULARITY_NARROW, IotlbDescriptor, TYPE_CONTEXT, TYPE_IOTLB,
        TYPE_WAIT, WaitDescriptor,
    };
    use iommu_model::{Bdf, DomainId, Iova, Pa};

    fn context() -> ContextDescriptor {
        ContextDescriptor::new().with_kind(TYPE_CONTEXT)
    }

    pub(crate) fn context_global() -> u128 {
        context().with_granularity(GRANULARITY_GLOBAL).into_bits()
    }

    pub(crate) fn context_domain(domain: DomainId) -> u128 {
        context().with_granularity(GRANULARITY_DOMAIN).with_domain(domain.0).into_bits()
    }

    pub(crate) fn context_device(domain: DomainId, source: Bdf) -> u128 {
        context().with_granularity(GRANULARITY_NARROW).with_domain(domain.0).with_source(source.0).into_bits()
    }

    fn iotlb() -> IotlbDescriptor {
        IotlbDescriptor::new().with_kind(TYPE_IOTLB)
    }

    pub(crate) fn iotlb_global() -> u128 {
        iotlb().with_granularity(GRANULARITY_GLOBAL).into_bits()
    }

    pub(crate) fn iotlb_domain(domain: DomainId) -> u128 {
        iotlb().with_granularity(GRANULARITY_DOMAIN).with_domain(domain.0).into_bits()
    }

    pub(crate) fn iotlb_domain_draining(domain: DomainId) -> u128 {
        IotlbDescriptor::from_bits(iotlb_domain(domain)).with_drain_reads(true).with_drain_writes(true).into_bits()
    }

    pub(crate) fn iotlb_pages(domain: DomainId, iova: Iova, order: u8, leaf_only: bool) -> u128 {
        iotlb()
            .with_granularity(GRANULARITY_NARROW)
            .with_domain(domain.0)
            .with_page(iova.page_number())
            .with_address_mask(order)
            .with_leaf_only(leaf_only)
            .into_bits()
    }

    pub(crate) fn wait(status: Pa, data: u32) -> u128 {
        WaitDescriptor::new().with_kind(TYPE_WAIT).with_status_write(true).with_data(data).with_address(status.0 / 4).into_bits()
    }

    pub(crate) fn wait_interrupt() -> u128 {
        WaitDescriptor::new().with_kind(TYPE_WAIT).with_interrupt(true).into_bits()
    }
}
