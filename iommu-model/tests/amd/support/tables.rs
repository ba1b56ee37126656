//! Builders of device tables, host and guest page tables, and commands.

use super::Memory;
use iommu_model::spec::amd::device_table::{DEVICE_ENTRY_BYTES, DeviceEntryHigh, DeviceEntryLow};
use iommu_model::spec::amd::guest_table::{GuestCr3Entry, GuestEntry};
use iommu_model::spec::amd::host_table::{HostEntry, NEXT_LEAF, NEXT_SIZED};
use iommu_model::{Bdf, Iova, PAGE_SIZE, Pa, Pasid, Pfn};

/// Hands out frames.
#[derive(Clone)]
pub(crate) struct Tables {
    next: u64,
    pub(crate) device_table: Pa,
}

/// Frames of a device table of 64 Ki entries.
const DEVICE_TABLE_FRAMES: u64 = 512;

/// Bytes below an index of a table of `level`.
pub(crate) const fn shift_of(level: u8) -> u32 {
    12 + 9 * (level as u32 - 1)
}

const fn index(address: u64, level: u8) -> u64 {
    (address >> shift_of(level)) & 0x1ff
}

impl Tables {
    pub(crate) fn new(first: Pfn) -> Self {
        Self { next: first.0 + DEVICE_TABLE_FRAMES, device_table: first.pa() }
    }

    pub(crate) fn frame(&mut self) -> Pa {
        self.next += 1;
        Pfn(self.next - 1).pa()
    }

    /// Every frame handed out so far.
    pub(crate) fn frames(&self) -> impl Iterator<Item = Pa> + use<> {
        (self.device_table.pfn().0 + DEVICE_TABLE_FRAMES..self.next).map(|frame| Pfn(frame).pa())
    }

    pub(crate) fn device_entry_pa(&self, device: Bdf) -> Pa {
        self.device_table.offset(u64::from(device.0) * DEVICE_ENTRY_BYTES)
    }

    pub(crate) fn set_device(&self, memory: &mut Memory, device: Bdf, low: DeviceEntryLow, high: DeviceEntryHigh) {
        let pa = self.device_entry_pa(device);
        memory.write_wide(pa, low.into_bits());
        memory.write_wide(pa.offset(16), high.into_bits());
    }

    /// Where the host entry of a table of `level` lies for an address; tables are made as needed, from `(table, top)` down.
    pub(crate) fn host_entry(&mut self, memory: &mut Memory, (mut table, top): (Pa, u8), address: Iova, level: u8) -> Pa {
        for at in ((level + 1)..=top).rev() {
            let pa = table.offset(index(address.0, at) * 8);
            let mut entry = HostEntry::from_bits(memory.read(pa));
            if !entry.present() {
                entry = open(at - 1).with_frame(self.frame().pfn().0);
                memory.write(pa, entry.into_bits());
            }
            table = Pfn(entry.frame()).pa();
        }
        table.offset(index(address.0, level) * 8)
    }

    /// Maps a page of 2^`shift` bytes, in as many entries as it takes. Returns where the first lies.
    pub(crate) fn map_host(&mut self, memory: &mut Memory, root: (Pa, u8), address: Iova, page: Pa, shift: u32) -> Pa {
        let level = ((shift - 12) / 9 + 1) as u8;
        let first = self.host_entry(memory, root, address, level);
        let extra = shift - shift_of(level);
        let entry = match extra {
            0 => open(NEXT_LEAF).with_frame(page.pfn().0),
            _ => open(NEXT_SIZED).with_frame(page.pfn().0 | ((1 << (shift - 13)) - 1)),
        };
        for n in 0..1 << extra {
            memory.write(first.offset(8 * n), entry.into_bits());
        }
        first
    }

    /// The same for a guest page table whose frames the guest sees where they are.
    pub(crate) fn guest_entry(&mut self, memory: &mut Memory, (mut table, top): (Pa, u8), address: Iova, level: u8) -> Pa {
        for at in ((level + 1)..=top).rev() {
            let pa = table.offset(index(address.0, at) * 8);
            let mut entry = GuestEntry::from_bits(memory.read(pa));
            if !entry.present() {
                entry = guest_open().with_frame(self.frame().pfn().0);
                memory.write(pa, entry.into_bits());
            }
            table = Pfn(entry.frame()).pa();
        }
        table.offset(index(address.0, level) * 8)
    }

    /// Maps a guest page of 4 KiB, 2 MiB or 1 GiB. Returns where its entry lies.
    pub(crate) fn map_guest(&mut self, memory: &mut Memory, root: (Pa, u8), address: Iova, page: Pa, level: u8) -> Pa {
        let pa = self.guest_entry(memory, root, address, level);
        memory.write(pa, guest_open().with_page_size(level > 1).with_frame(page.pfn().0).into_bits());
        pa
    }

    /// Points a GCR3 table of `levels` levels at a guest page table. Returns where the last entry lies.
    pub(crate) fn set_guest_root(&mut self, memory: &mut Memory, (mut table, levels): (Pa, u8), pasid: Pasid, root: Pa) -> Pa {
        for at in (1..=levels).rev() {
            let pa = table.offset((u64::from(pasid.0) >> (9 * (u32::from(at) - 1)) & 0x1ff) * 8);
            if at == 1 {
                memory.write(pa, GuestCr3Entry::new().with_valid(true).with_frame(root.pfn().0).into_bits());
                return pa;
            }
            let mut entry = GuestCr3Entry::from_bits(memory.read(pa));
            if !entry.valid() {
                entry = GuestCr3Entry::new().with_valid(true).with_frame(self.frame().pfn().0);
                memory.write(pa, entry.into_bits());
            }
            table = Pfn(entry.frame()).pa();
        }
        unreachable!("a GCR3 table has a level")
    }
}

/// Present, readable, writable.
pub(crate) fn open(next_level: u8) -> HostEntry {
    HostEntry::new().with_present(true).with_read(true).with_write(true).with_next_level(next_level)
}

pub(crate) fn guest_open() -> GuestEntry {
    GuestEntry::new().with_present(true).with_write(true).with_user(true)
}

/// A device table entry that leads to host tables.
pub(crate) fn host_device((root, levels): (Pa, u8), domain: u16) -> DeviceEntryLow {
    DeviceEntryLow::new()
        .with_valid(true)
        .with_translation_valid(true)
        .with_mode(levels)
        .with_root(root.pfn().0)
        .with_read(true)
        .with_write(true)
        .with_domain(domain)
}

/// Size field of a device table of 64 Ki entries.
pub(crate) const DEVICE_TABLE_SIZE: u16 = (DEVICE_TABLE_FRAMES - 1) as u16;

const _: () = assert!(DEVICE_TABLE_FRAMES * PAGE_SIZE == 0x1_0000 * DEVICE_ENTRY_BYTES);

/// Commands, ready to be written.
pub(crate) mod commands {
    use iommu_model::spec::amd::command::{
        AnyCommand, CompletionWait, InvalidateDevice, InvalidatePages, OPCODE_COMPLETION_WAIT, OPCODE_INVALIDATE_ALL,
        OPCODE_INVALIDATE_DEVICE, OPCODE_INVALIDATE_PAGES,
    };
    use iommu_model::{Bdf, DomainId, Iova, Pa, Pasid};

    pub(crate) fn wait(store: Option<(Pa, u64)>, interrupt: bool) -> u128 {
        let (pa, data) = store.unwrap_or((Pa(0), 0));
        CompletionWait::new()
            .with_opcode(OPCODE_COMPLETION_WAIT)
            .with_store(store.is_some())
            .with_interrupt(interrupt)
            .with_address(pa.0 / 8)
            .with_data(data)
            .into_bits()
    }

    pub(crate) fn device(device: Bdf) -> u128 {
        InvalidateDevice::new().with_opcode(OPCODE_INVALIDATE_DEVICE).with_device(device.0).into_bits()
    }

    /// One page.
    pub(crate) fn page(domain: DomainId, address: Iova) -> InvalidatePages {
        InvalidatePages::new().with_opcode(OPCODE_INVALIDATE_PAGES).with_domain(domain.0).with_page(address.0 >> 12)
    }

    /// Everything of a domain, non-leaf entries too, as Linux does it.
    pub(crate) fn all_pages(domain: DomainId) -> InvalidatePages {
        page(domain, Iova(0x7fff_ffff_ffff_f000)).with_sized(true).with_directories(true)
    }

    pub(crate) fn of_pasid(command: InvalidatePages, pasid: Pasid) -> u128 {
        command.with_guest(true).with_pasid(pasid.0).into_bits()
    }

    pub(crate) fn all() -> u128 {
        AnyCommand::new().with_opcode(OPCODE_INVALIDATE_ALL).into_bits()
    }
}
