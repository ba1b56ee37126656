//! MSI page tables: which writes are messages, where they go, and what can be wrong.

use crate::support::world::GUEST;
use crate::support::{DEVICE, Dc, GSCID, IOVA, PAGE, PSCID, World, commands, leaf};
use iommu_model::riscv::{Capabilities, InterruptFile, Space, Transaction};
use iommu_model::spec::riscv::fault::Cause;
use iommu_model::spec::riscv::msi::{MSI_MODE_BASIC, MSI_MODE_MRIF, MsiEntryBasic, MsiEntryMrif, MsiEntryNotice};
use iommu_model::{Access, FetchKind, Iova, Pa, Pasid, Progress};

/// Interrupt files lie at guest pages 0x28000, 0x28001, 0x28010 and 0x28011.
const FILES: u64 = 0x2_8000;
const MASK: u64 = 0x11;
const FILE: Pa = Pa(0x2_4000_0000);

fn basic(pa: Pa) -> MsiEntryBasic {
    MsiEntryBasic::new().with_valid(true).with_mode(MSI_MODE_BASIC).with_ppn(pa.pfn().0)
}

/// A device of a guest with an MSI page table of four entries. Returns where the table lies.
fn with_messages(change: impl Fn(Dc) -> Dc) -> (World, Pa) {
    let mut world = World::new();
    let (second, root) = (world.second_stage(3), world.frames(1));
    world.map(second, IOVA, leaf(PAGE), 12);
    let mut dc = Dc::bare().second(second, GSCID);
    dc.msiptp = dc.msiptp.with_mode(1).with_ppn(root.pfn().0);
    (dc.mask, dc.pattern) = (MASK, FILES);
    world.set_device(DEVICE, change(dc));
    for n in 0..4 {
        world.memory.write(root.offset(n * 16), basic(Pa(FILE.0 + (n << 12))).into_bits());
        world.memory.write(root.offset(n * 16 + 8), u64::MAX);
    }
    (world, root)
}

fn at(page: u64) -> Iova {
    Iova(page << 12)
}

#[test]
fn an_interrupt_file_is_numbered_by_the_bits_of_the_mask() {
    let (mut world, _) = with_messages(|dc| dc);
    for (n, page) in [FILES, FILES + 1, FILES + 0x10, FILES + 0x11].into_iter().enumerate() {
        let ended = world.write_to(Iova(at(page).0 + 4));
        assert_eq!(ended.translation().pa, Pa(FILE.0 + ((n as u64) << 12) + 4));
        assert_eq!(ended.fetched.last(), Some(&FetchKind::MessageEntry));
    }
    assert_eq!(world.write_to(at(FILES + 2)).cause(), Cause::WRITE_GUEST_PAGE, "an ordinary address");
    assert_eq!(world.where_is(IOVA), PAGE);
}

#[test]
fn a_message_entry_is_cached_by_guest_and_address_until_gvma() {
    let (mut world, root) = with_messages(|dc| dc);
    world.write_to(at(FILES));
    world.memory.write(root, basic(PAGE).into_bits());
    assert_eq!(world.write_to(at(FILES)).translation().pa, FILE);
    assert!(world.unit.caches().iotlb().any(|entry| entry.space == Space::GuestMessages(GSCID)));
    world.command(commands::gvma(Some(GSCID), Some(at(FILES + 1))).into_bits());
    assert_eq!(world.write_to(at(FILES)).translation().pa, FILE);
    world.command(commands::gvma(Some(GSCID), Some(at(FILES))).into_bits());
    assert_eq!(world.write_to(at(FILES)).translation().pa, PAGE);
}

#[test]
fn a_message_of_the_host_is_not_cached() {
    let (mut world, root) = with_messages(|mut dc| {
        dc.iohgatp = dc.iohgatp.with_mode(0);
        dc
    });
    assert_eq!(world.write_to(at(FILES)).translation().pa, FILE);
    world.memory.write(root, basic(PAGE).into_bits());
    assert_eq!(world.write_to(at(FILES)).translation().pa, PAGE);
    assert!(world.write_to(at(FILES + 2)).translation().pass_through);
}

#[test]
fn the_address_that_the_first_stage_gives_is_looked_at() {
    let mut world = World::new();
    let second = world.second_stage(3);
    let first = world.guest_stage(3, second);
    let root = world.frames(1);
    let mut dc = Dc::bare().first(first, PSCID).second(second, GSCID);
    dc.msiptp = dc.msiptp.with_mode(1).with_ppn(root.pfn().0);
    (dc.mask, dc.pattern) = (0, (GUEST >> 12) + 7);
    world.set_device(DEVICE, dc);
    world.memory.write(root, basic(FILE).into_bits());
    world.map(first, IOVA, leaf(Pa(GUEST)), 21);
    // A superpage of the guest, of which one page is an interrupt file.
    let message = Iova((IOVA.0 >> 21 << 21) + 0x7000);
    world.map(first, Iova(IOVA.0 >> 21 << 21), leaf(Pa(GUEST)), 21);
    let translation = world.write_to(message).translation();
    assert_eq!((translation.pa, translation.page_bytes), (FILE, 4096));
    assert_eq!(world.where_is(Iova(message.0 + 0x1000)), Pa(0x8000));
    assert_eq!(world.write_to(message).translation().pa, FILE, "from the IOTLB too");
    assert!(world.write_to(message).fetched.is_empty());
}

#[test]
fn a_wrong_message_entry_is_told_by_its_cause() {
    let (mut world, root) = with_messages(|dc| dc);
    let mut check = |bits: u64, cause| {
        world.memory.write(root, bits);
        assert_eq!(world.write_to(at(FILES)).cause(), cause, "{bits:#x}");
    };
    check(basic(FILE).with_valid(false).into_bits(), Cause::MSI_INVALID);
    check(basic(FILE).with_custom(true).into_bits(), Cause::MSI_MISCONFIGURED);
    for mode in [0, 2] {
        check(basic(FILE).with_mode(mode).into_bits(), Cause::MSI_MISCONFIGURED);
    }
    for bit in (3..10).chain(54..63) {
        check(basic(FILE).into_bits() | 1 << bit, Cause::MSI_MISCONFIGURED);
    }
    let mrif = MsiEntryMrif::new().with_valid(true).with_mode(MSI_MODE_MRIF);
    for bit in (3..7).chain(54..63) {
        check(mrif.into_bits() | 1 << bit, Cause::MSI_MISCONFIGURED);
    }
    for bit in (54..60).chain(61..64) {
        world.memory.write(root, mrif.into_bits());
        world.memory.write(root.offset(8), 1 << bit);
        assert_eq!(world.write_to(at(FILES)).cause(), Cause::MSI_MISCONFIGURED, "second doubleword bit {bit}");
    }
    world.memory.end = Some(root);
    assert_eq!(world.write_to(at(FILES)).cause(), Cause::MSI_LOAD);
    let lacking = Capabilities { msi_mrif: false, ..Capabilities::default() };
    let ddtp = world.unit.read_register(iommu_model::riscv::Register::Ddtp);
    world.unit = iommu_model::riscv::Unit::new(lacking, iommu_model::Params::default());
    world.write(iommu_model::riscv::Register::Ddtp, ddtp);
    world.memory.end = None;
    world.memory.write(root, mrif.into_bits());
    assert_eq!(world.write_to(at(FILES)).cause(), Cause::MSI_MISCONFIGURED);
}

#[test]
fn a_message_to_a_memory_resident_file_is_left_to_the_caller() {
    let (mut world, root) = with_messages(|dc| dc);
    let entry = MsiEntryMrif::new().with_valid(true).with_mode(MSI_MODE_MRIF).with_file(0x1234);
    let notice = MsiEntryNotice::new().with_notice_low(0x155).with_notice_high(true).with_ppn(0x77);
    world.memory.write(root, entry.into_bits());
    world.memory.write(root.offset(8), notice.into_bits());
    let ended = world.write_to(at(FILES));
    assert!(matches!(ended.progress, Progress::InterruptMessage { address, .. } if address == at(FILES)));
    let expected = InterruptFile { file: Pa(0x1234 * 512), notice: Pa(0x7_7000), notice_id: 0x555 };
    assert_eq!(world.unit.last_interrupt_file(), Some(expected));
    assert!(world.unit.caches().iotlb().all(|entry| entry.space != Space::GuestMessages(GSCID)));
}

#[test]
fn an_interrupt_file_is_not_executed() {
    let (mut world, _) = with_messages(|dc| dc.directory(Pa(0), 0));
    let execute = Transaction { process: Some(Pasid(1)), execute: true, ..Transaction::new(DEVICE, at(FILES), Access::Read) };
    assert_eq!(world.send(execute).cause(), Cause::INSTRUCTION_ACCESS);
}
