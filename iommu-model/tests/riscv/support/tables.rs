//! Encoders of contexts, page tables and commands.

use super::Memory;
use iommu_model::riscv::{DeviceId, Gscid, Pscid};
use iommu_model::spec::riscv::device_context::{
    MODE_SV39, MODE_SV48, MODE_SV57, SecondStagePointer, TablePointer, TranslationAttributes, TranslationControl,
};
use iommu_model::spec::riscv::paging::PageTableEntry;
use iommu_model::{Iova, Pa, Pasid, Pfn};

/// A device context, doubleword by doubleword.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dc {
    pub(crate) tc: TranslationControl,
    pub(crate) iohgatp: SecondStagePointer,
    pub(crate) ta: TranslationAttributes,
    pub(crate) fsc: TablePointer,
    pub(crate) msiptp: TablePointer,
    pub(crate) mask: u64,
    pub(crate) pattern: u64,
    pub(crate) last: u64,
}

impl Dc {
    /// Valid, both stages Bare.
    pub(crate) fn bare() -> Self {
        Self {
            tc: TranslationControl::new().with_valid(true),
            iohgatp: SecondStagePointer::new(),
            ta: TranslationAttributes::new(),
            fsc: TablePointer::new(),
            msiptp: TablePointer::new(),
            mask: 0,
            pattern: 0,
            last: 0,
        }
    }

    pub(crate) fn first(mut self, tables: Tables, pscid: Pscid) -> Self {
        self.fsc = pointer(tables);
        self.ta.set_pscid(pscid.0);
        self
    }

    pub(crate) fn second(mut self, tables: Tables, gscid: Gscid) -> Self {
        self.iohgatp = SecondStagePointer::new().with_ppn(tables.root.pfn().0).with_gscid(gscid.0).with_mode(mode_of(tables.levels));
        self
    }

    /// fsc leads to a process directory.
    pub(crate) fn directory(mut self, root: Pa, mode: u8) -> Self {
        self.tc.set_process_directory(true);
        self.fsc = TablePointer::new().with_ppn(root.pfn().0).with_mode(mode);
        self
    }

    pub(crate) fn control(mut self, change: impl Fn(&mut TranslationControl)) -> Self {
        change(&mut self.tc);
        self
    }

    pub(crate) fn words(&self) -> [u64; 8] {
        let [tc, iohgatp, ta] = [self.tc.into_bits(), self.iohgatp.into_bits(), self.ta.into_bits()];
        [tc, iohgatp, ta, self.fsc.into_bits(), self.msiptp.into_bits(), self.mask, self.pattern, self.last]
    }
}

/// One set of page tables; the root of a second stage has four frames.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tables {
    pub(crate) root: Pa,
    pub(crate) levels: u8,
    pub(crate) is_second: bool,
    /// What addresses in its entries are above host addresses: tables of a guest.
    pub(crate) guest: u64,
}

fn mode_of(levels: u8) -> u8 {
    match levels {
        0 => 0,
        3 => MODE_SV39,
        4 => MODE_SV48,
        5 => MODE_SV57,
        _ => panic!("no scheme has {levels} levels"),
    }
}

/// The fsc of a first stage.
pub(crate) fn pointer(tables: Tables) -> TablePointer {
    TablePointer::new().with_ppn(Pa(tables.root.0 + tables.guest).pfn().0).with_mode(mode_of(tables.levels))
}

/// A leaf that allows everything to users, with A and D set.
pub(crate) fn leaf(pa: Pa) -> PageTableEntry {
    PageTableEntry::new()
        .with_valid(true)
        .with_read(true)
        .with_write(true)
        .with_execute(true)
        .with_user(true)
        .with_accessed(true)
        .with_dirty(true)
        .with_ppn(pa.pfn().0)
}

impl Tables {
    /// Where the entry for an address lies at a level; tables on the way are made.
    pub(crate) fn slot(&self, memory: &mut Memory, next: &mut Pfn, address: u64, level: u8) -> Pa {
        let mut table = self.root;
        let mut at = self.levels;
        loop {
            let bits = if at == self.levels && self.is_second { 11 } else { 9 };
            let slot = table.offset((address >> (12 + 9 * (u32::from(at) - 1)) & ((1 << bits) - 1)) * 8);
            if at == level {
                return slot;
            }
            let entry = PageTableEntry::from_bits(memory.read(slot));
            table = if entry.valid() {
                Pa(Pfn(entry.ppn()).pa().0 - self.guest)
            } else {
                let fresh = next.pa();
                next.0 += 1;
                memory.write(slot, PageTableEntry::new().with_valid(true).with_ppn(Pa(fresh.0 + self.guest).pfn().0).into_bits());
                fresh
            };
            at -= 1;
        }
    }
}

/// Commands as software writes them.
pub(crate) mod commands {
    use super::{DeviceId, Gscid, Iova, Pa, Pasid, Pscid};
    use iommu_model::spec::riscv::command::{
        DirectoryCommand, FUNC_GVMA, FUNC_INVAL_DDT, FUNC_INVAL_PDT, FUNC_VMA, FenceCommand, InvalidateCommand, OPCODE_IODIR,
        OPCODE_IOFENCE, OPCODE_IOTINVAL,
    };

    pub(crate) fn vma(gscid: Option<Gscid>, pscid: Option<Pscid>, address: Option<Iova>) -> InvalidateCommand {
        InvalidateCommand::new()
            .with_opcode(OPCODE_IOTINVAL)
            .with_func3(FUNC_VMA)
            .with_gscid_valid(gscid.is_some())
            .with_gscid(gscid.map_or(0, |gscid| gscid.0))
            .with_pscid_valid(pscid.is_some())
            .with_pscid(pscid.map_or(0, |pscid| pscid.0))
            .with_address_valid(address.is_some())
            .with_page(address.map_or(0, Iova::page_number))
    }

    pub(crate) fn gvma(gscid: Option<Gscid>, address: Option<Iova>) -> InvalidateCommand {
        vma(gscid, None, address).with_func3(FUNC_GVMA)
    }

    pub(crate) fn fence(store: Option<(Pa, u32)>) -> FenceCommand {
        FenceCommand::new()
            .with_opcode(OPCODE_IOFENCE)
            .with_address_valid(store.is_some())
            .with_data(store.map_or(0, |(_, data)| data))
            .with_address(store.map_or(0, |(pa, _)| pa.0 / 4))
    }

    pub(crate) fn inval_ddt(device: Option<DeviceId>) -> DirectoryCommand {
        DirectoryCommand::new()
            .with_opcode(OPCODE_IODIR)
            .with_func3(FUNC_INVAL_DDT)
            .with_device_valid(device.is_some())
            .with_device(device.map_or(0, |device| device.0))
    }

    pub(crate) fn inval_pdt(device: DeviceId, process: Pasid) -> DirectoryCommand {
        inval_ddt(Some(device)).with_func3(FUNC_INVAL_PDT).with_process(process.0)
    }
}
