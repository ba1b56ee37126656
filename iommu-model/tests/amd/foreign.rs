//! Guest tables that another crate has encoded: they have the x86-64 format, so `x86_64`, made for CPUs, can build them. Model
//! and test then share no idea of where a bit lies. What leads to the tables is this crate's own.

use super::support::{Guest, PASID};
use iommu_model::spec::amd::event::EventFlags;
use iommu_model::{Access, Iova, Pa};
use x86_64::structures::paging::page_table::{PageTableEntry, PageTableFlags};
use x86_64::{PhysAddr, VirtAddr};

const USER: PageTableFlags = PageTableFlags::PRESENT.union(PageTableFlags::USER_ACCESSIBLE);
const TABLE: PageTableFlags = USER.union(PageTableFlags::WRITABLE);

fn encode(to: PhysAddr, flags: PageTableFlags) -> u64 {
    let mut entry = PageTableEntry::new();
    entry.set_addr(to, flags);
    entry.addr().as_u64() | entry.flags().bits()
}

/// Maps a page at `level` in tables of its own; returns where its entry lies.
fn map(guest: &mut Guest, at: VirtAddr, level: usize, to: PhysAddr, flags: PageTableFlags) -> Pa {
    let indices = [at.p4_index(), at.p3_index(), at.p2_index(), at.p1_index()];
    let mut table = guest.root.0;
    for index in &indices[..4 - level] {
        let slot = table.offset(8 * u64::from(*index));
        let next = guest.bench.tables.frame();
        guest.bench.memory.write(slot, encode(PhysAddr::new(next.0), TABLE));
        table = next;
    }
    let flags = if level == 1 { flags } else { flags | PageTableFlags::HUGE_PAGE };
    let leaf = table.offset(8 * u64::from(indices[4 - level]));
    guest.bench.memory.write(leaf, encode(to, flags));
    leaf
}

#[test]
fn pages_of_every_size_lead_where_the_foreign_crate_put_them() {
    let mut guest = Guest::new();
    let pages = [
        (0x0000_1234_5678_9000, 1, 0x0000_000a_bcde_f000, 0xfff),
        (0x0000_7fff_ffe0_0000, 2, 0x0000_0012_3460_0000, 0x1f_ffff),
        (0x0000_4000_4000_0000, 3, 0x0000_01c0_4000_0000, 0x3fff_ffff),
    ];
    for (at, level, to, mask) in pages {
        map(&mut guest, VirtAddr::new(at), level, PhysAddr::new(to), TABLE);
        for offset in [0, 0x123, 0x1_2345, 0x123_4567].map(|offset| offset & mask) {
            for access in [Access::Read, Access::Write] {
                let ended = guest.bench.access_pasid(Iova(at + offset), access, PASID);
                assert_eq!(ended.pa(), Pa(to + offset), "{access:?} of {at:#x} + {offset:#x}");
                assert_eq!(ended.translation().page_bytes, mask + 1);
            }
        }
    }
}

#[test]
fn flags_of_the_foreign_crate_allow_and_deny() {
    let (at, to) = (VirtAddr::new(0x55_0000_0000), PhysAddr::new(0x9_9000));
    let fault = EventFlags::new().with_guest(true).with_user(true);
    for (flags, read, write) in [
        (TABLE, None, None),
        (USER, None, Some(fault.with_present(true).with_permission(true).with_write(true))),
        (TABLE - PageTableFlags::PRESENT, Some(fault), Some(fault.with_write(true))),
        (TABLE - PageTableFlags::USER_ACCESSIBLE, Some(fault.with_present(true).with_permission(true)), None),
    ] {
        for (access, expected) in [(Access::Read, read), (Access::Write, write)] {
            let mut guest = Guest::new();
            map(&mut guest, at, 1, to, flags);
            let ended = guest.bench.access_pasid(Iova(at.as_u64()), access, PASID);
            match expected {
                Some(expected) => assert_eq!(ended.event().flags, expected, "{access:?} under {flags:?}"),
                None if flags.contains(PageTableFlags::USER_ACCESSIBLE) => assert_eq!(ended.pa(), Pa(to.as_u64())),
                None => {}
            }
        }
    }
}

#[test]
fn accessed_and_dirty_are_the_foreign_crates_flags() {
    let mut guest = Guest::new();
    let at = VirtAddr::new(0x55_0000_0000);
    let leaf = map(&mut guest, at, 1, PhysAddr::new(0x9_9000), TABLE);
    let flags = |guest: &Guest| PageTableFlags::from_bits_truncate(guest.bench.memory.read(leaf));
    assert!(!flags(&guest).intersects(PageTableFlags::ACCESSED | PageTableFlags::DIRTY));
    guest.bench.access_pasid(Iova(at.as_u64()), Access::Read, PASID).pa();
    assert!(flags(&guest).contains(PageTableFlags::ACCESSED) && !flags(&guest).contains(PageTableFlags::DIRTY));
    guest.bench.access_pasid(Iova(at.as_u64()), Access::Write, PASID).pa();
    assert!(flags(&guest).contains(PageTableFlags::ACCESSED | PageTableFlags::DIRTY));
}
