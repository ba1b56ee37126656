//! What each command removes, operand by operand, and what it leaves.

use crate::support::world::GUEST;
use crate::support::{DEVICE, Dc, GSCID, IOVA, PAGE, PSCID, Scripted, World, commands, leaf};
use iommu_model::riscv::{Capabilities, CommandProgress, DeviceId, Gscid, Pscid, Space, Transaction};
use iommu_model::{Access, Iova, Pa, Params, Pasid, Plain, Question};

const OTHER: Iova = Iova(IOVA.0 + 0x1000);
/// Global in its tables.
const SHARED: Iova = Iova(IOVA.0 + 0x2000);
/// In another table of the last level.
const FAR: Iova = Iova(IOVA.0 + (1 << 21));

const HOST: DeviceId = DeviceId(1);
const HOST_2: DeviceId = DeviceId(2);
const GUEST_1: DeviceId = DeviceId(3);
const GUEST_2: DeviceId = DeviceId(4);
const PHYSICAL: DeviceId = DeviceId(5);
const PSCID_2: Pscid = Pscid(4);
const GSCID_2: Gscid = Gscid(10);

/// Two host spaces, two guests with a first stage, one device with a second stage alone (that of the first guest); every
/// page touched once.
fn populated() -> World {
    let params = Params { iotlb: iommu_model::Geometry::fully_associative(256), ..Params::default() };
    let mut world = World::with(Capabilities::default(), params, 1);
    for (device, pscid) in [(HOST, PSCID), (HOST_2, PSCID_2)] {
        let tables = world.first_stage(3);
        world.set_device(device, Dc::bare().first(tables, pscid));
        map_all(&mut world, tables, 0);
    }
    for (device, gscid) in [(GUEST_1, GSCID), (GUEST_2, GSCID_2)] {
        let second = world.second_stage(3);
        let first = world.guest_stage(3, second);
        world.set_device(device, Dc::bare().first(first, PSCID).second(second, gscid));
        map_all(&mut world, first, GUEST);
        if device == GUEST_1 {
            world.map(second, IOVA, leaf(PAGE), 12);
            world.map(second, OTHER, leaf(PAGE), 12);
            world.set_device(PHYSICAL, Dc::bare().second(second, gscid));
        }
    }
    for device in [HOST, HOST_2, GUEST_1, GUEST_2] {
        for iova in [IOVA, OTHER, SHARED, FAR] {
            send(&mut world, device, iova);
        }
    }
    for iova in [IOVA, OTHER] {
        send(&mut world, PHYSICAL, iova);
    }
    world
}

fn map_all(world: &mut World, tables: crate::support::Tables, above: u64) {
    for (n, iova) in [IOVA, OTHER, SHARED, FAR].into_iter().enumerate() {
        let page = Pa(above + PAGE.0 + (n as u64) * 4096);
        world.map(tables, iova, leaf(page).with_global(iova == SHARED), 12);
    }
}

fn send(world: &mut World, device: DeviceId, iova: Iova) {
    world.send(Transaction::new(device, iova, Access::Read)).translation();
}

/// What of the IOTLB is left, by space and page.
fn left(world: &World) -> Vec<(Space, Iova)> {
    let mut left: Vec<_> = world.unit.caches().iotlb().map(|entry| (entry.space, entry.page)).collect();
    left.sort();
    left
}

/// Non-leaf entries that are left, by space.
fn pointers(world: &World) -> Vec<Space> {
    let mut left: Vec<_> = world.unit.caches().walk().map(|entry| entry.space).collect();
    left.sort();
    left.dedup();
    left
}

/// Runs one command on a populated world, and checks that exactly what `gone` names went from the IOTLB.
fn check(what: &str, bits: u128, gone: impl Fn(Space, Iova) -> bool) -> World {
    let mut world = populated();
    let before = left(&world);
    let contexts = world.unit.caches().devices().count();
    world.dropped_by(bits);
    let expected: Vec<_> = before.iter().copied().filter(|(space, page)| !gone(*space, *page)).collect();
    assert_ne!(expected.len(), before.len(), "{what}: the case removes something");
    assert_eq!(left(&world), expected, "{what}");
    assert_eq!(world.unit.caches().devices().count(), contexts, "{what}: IOTINVAL has no effect on the directory caches");
    world
}

fn is_host(space: Space) -> bool {
    space.gscid().is_none()
}

fn is_guest(space: Space) -> bool {
    space.gscid() == Some(GSCID)
}

#[test]
fn vma_of_the_host_removes_what_its_operands_name() {
    let vma = |pscid, address| commands::vma(None, pscid, address).into_bits();
    let world = check("000", vma(None, None), |space, _| is_host(space));
    assert!(!pointers(&world).contains(&Space::Host(PSCID)), "non-leaf entries go too");
    let world = check("001", vma(Some(PSCID), None), |space, _| space == Space::Host(PSCID));
    assert!(!pointers(&world).contains(&Space::Host(PSCID)) && pointers(&world).contains(&Space::Host(PSCID_2)));
    let world = check("010", vma(None, Some(IOVA)), |space, page| is_host(space) && page == IOVA);
    assert!(pointers(&world).contains(&Space::Host(PSCID)), "only the leaf is named");
    check("010 global", vma(None, Some(SHARED)), |space, page| is_host(space) && page == SHARED);
    check("011", vma(Some(PSCID), Some(IOVA)), |space, page| space == Space::Host(PSCID) && page == IOVA);
}

#[test]
fn vma_of_a_guest_removes_what_its_operands_name() {
    let vma = |pscid, address| commands::vma(Some(GSCID), pscid, address).into_bits();
    let world = check("100", vma(None, None), |space, _| is_guest(space));
    assert!(!pointers(&world).contains(&Space::Guest(GSCID, PSCID)) && pointers(&world).contains(&Space::Guest(GSCID_2, PSCID)));
    check("101", vma(Some(PSCID), None), |space, _| space == Space::Guest(GSCID, PSCID));
    let first = |space: Space| is_guest(space) && space.has_first_stage();
    check("110", vma(None, Some(IOVA)), |space, page| first(space) && page == IOVA);
    check("110 global", vma(None, Some(SHARED)), |space, page| first(space) && page == SHARED);
    check("111", vma(Some(PSCID), Some(OTHER)), |space, page| space == Space::Guest(GSCID, PSCID) && page == OTHER);
}

#[test]
fn a_global_page_stays_when_a_pscid_is_named() {
    let mut world = populated();
    for address in [None, Some(SHARED)] {
        world.command(commands::vma(None, Some(PSCID), address).into_bits());
        assert!(left(&world).contains(&(Space::HostGlobal, SHARED)));
    }
}

#[test]
fn gvma_removes_what_came_through_the_second_stage() {
    let gvma = |gscid, address| commands::gvma(gscid, address).into_bits();
    let world = check("00", gvma(None, None), |space, _| !is_host(space));
    assert!(!pointers(&world).contains(&Space::GuestPhysical(GSCID)));
    assert!(pointers(&world).contains(&Space::Guest(GSCID, PSCID)), "first-stage pointers hold nothing of the second stage");
    check("01: the address is ignored without GV", gvma(None, Some(IOVA)), |space, _| !is_host(space));
    let world = check("10", gvma(Some(GSCID), None), |space, _| is_guest(space));
    assert!(!pointers(&world).contains(&Space::GuestPhysical(GSCID)) && pointers(&world).contains(&Space::GuestPhysical(GSCID_2)));
    let world = check("11", gvma(Some(GSCID), Some(IOVA)), |space, page| space == Space::GuestPhysical(GSCID) && page == IOVA);
    assert!(pointers(&world).contains(&Space::GuestPhysical(GSCID)), "only the leaf is named");
}

#[test]
fn gvma_by_address_removes_every_translation_that_ends_on_that_page_of_the_guest() {
    // All pages of the guest lie in one 2 MiB page of the second stage.
    let address = Iova(GUEST + 0x1f_f000);
    let in_guest = |space: Space| is_guest(space) && space.has_first_stage();
    let superpage = Iova(GUEST);
    check("fragments", commands::gvma(Some(GSCID), Some(address)).into_bits(), |space, page| {
        in_guest(space) || (space == Space::GuestPhysical(GSCID) && page == superpage)
    });
}

#[test]
fn vma_by_any_address_of_a_first_stage_superpage_removes_all_fragments_of_it() {
    let (mut world, first, ..) = World::mapped_nested(3);
    let wide = Iova(0x8000_0000);
    world.map(first, wide, leaf(Pa(GUEST)), 30);
    for n in 0..4 {
        world.where_is(Iova(wide.0 + (n << 21)));
    }
    let fragments = |world: &World| world.unit.caches().iotlb().filter(|entry| entry.first_shift == 30).count();
    assert_eq!(fragments(&world), 4);
    world.command(commands::vma(Some(GSCID), Some(PSCID), Some(Iova(wide.0 + 0x3fff_f000))).into_bits());
    assert_eq!(fragments(&world), 0);
}

#[test]
fn a_range_removes_the_pages_in_it_and_nl_the_pointers_to_it() {
    // 16 KiB around IOVA: pages 0x40200 to 0x40203, so not OTHER.
    let range = commands::vma(None, Some(PSCID), Some(IOVA)).with_range(true).with_page(0x4_0201);
    check("S", range.into_bits(), |space, page| space == Space::Host(PSCID) && page == IOVA);
    let leads_there = |world: &World, space, iova: Iova, level: u8| {
        let shift = 12 + 9 * (u32::from(level) - 1);
        world.unit.caches().walk().any(|entry| entry.space == space && entry.level == level && entry.first.0 == iova.0 >> shift << shift)
    };
    let mut world = populated();
    world.command(commands::vma(None, Some(PSCID), Some(IOVA)).with_non_leaf(true).into_bits());
    let space = Space::Host(PSCID);
    assert!(!leads_there(&world, space, IOVA, 2) && !leads_there(&world, space, IOVA, 3) && leads_there(&world, space, FAR, 2));
    assert!(leads_there(&world, Space::Host(PSCID_2), IOVA, 2));
    world.command(commands::gvma(Some(GSCID), Some(IOVA)).with_non_leaf(true).into_bits());
    let space = Space::GuestPhysical(GSCID);
    assert!(!leads_there(&world, space, IOVA, 2) && leads_there(&world, Space::GuestPhysical(GSCID_2), Iova(GUEST), 3));
}

#[test]
fn non_leaf_entries_may_go_with_a_leaf_and_everything_may_go_with_anything() {
    let mut world = populated();
    let mut drop = Scripted::new(|question| question == Question::KeepNonLeaf, 1);
    world.submit(&[commands::vma(None, Some(PSCID), Some(IOVA)).into_bits()]);
    world.run_with(&mut drop);
    assert_eq!(drop.asked, 1);
    assert!(world.unit.caches().walk().all(|entry| entry.space != Space::Host(PSCID) || entry.first == Iova(FAR.0 >> 21 << 21)));
    for (bits, wider) in [
        (commands::vma(None, Some(PSCID), Some(IOVA)).into_bits(), 1),
        (commands::gvma(Some(GSCID), Some(IOVA)).into_bits(), 2),
        (commands::gvma(Some(GSCID), None).into_bits(), 1),
    ] {
        let mut world = populated();
        let mut widest = Scripted::new(move |question| question == Question::OverInvalidate { wider }, wider);
        world.submit(&[bits]);
        world.run_with(&mut widest);
        assert_eq!((widest.asked, left(&world).len(), pointers(&world).len()), (1, 0, 0));
    }
}

#[test]
fn inval_ddt_removes_the_context_of_one_device_but_not_what_leads_to_it() {
    let mut world = World::with(Capabilities::default(), Params::default(), 2);
    let tables = world.first_stage(3);
    world.map(tables, IOVA, leaf(PAGE), 12);
    for device in [DEVICE, HOST] {
        world.set_device(device, Dc::bare().first(tables, PSCID));
        send(&mut world, device, IOVA);
    }
    let pages = world.unit.caches().iotlb().count();
    assert_eq!(world.dropped_by(commands::inval_ddt(Some(DEVICE)).into_bits()), 1);
    let caches = world.unit.caches();
    assert_eq!((caches.devices().count(), caches.device_nodes().count()), (1, 1));
    assert_eq!(world.dropped_by(commands::inval_ddt(None).into_bits()), 2);
    let caches = world.unit.caches();
    assert_eq!((caches.devices().count(), caches.device_nodes().count(), caches.iotlb().count()), (0, 0, pages));
}

#[test]
fn inval_pdt_removes_one_process_and_inval_ddt_all_of_its_device() {
    let mut world = World::new();
    let tables = world.first_stage(3);
    world.map(tables, IOVA, leaf(PAGE), 12);
    let (root, leaf_table) = (world.frames(1), world.frames(1));
    for device in [DEVICE, HOST] {
        world.set_device(device, Dc::bare().directory(root, 2));
    }
    world.memory.write(root, leaf_table.pfn().0 << 10 | 1);
    for process in [1, 2] {
        let pa = leaf_table.offset(process * 16);
        world.memory.write(pa, 1 | process << 12);
        world.memory.write(pa.offset(8), crate::support::pointer(tables).into_bits());
        for device in [DEVICE, HOST] {
            let request = Transaction { process: Some(Pasid(process as u32)), ..Transaction::new(device, IOVA, Access::Read) };
            world.send(request).translation();
        }
    }
    let processes = |world: &World| world.unit.caches().processes().map(|entry| (entry.device, entry.process.0)).collect::<Vec<_>>();
    assert_eq!(processes(&world).len(), 4);
    assert_eq!(world.dropped_by(commands::inval_pdt(DEVICE, Pasid(2)).into_bits()), 1);
    assert!(!processes(&world).contains(&(DEVICE, 2)) && processes(&world).contains(&(HOST, 2)));
    assert_eq!(world.unit.caches().process_nodes().count(), 2, "what leads to it stays");
    // Its context, the process left, the pointer to both.
    assert_eq!(world.dropped_by(commands::inval_ddt(Some(DEVICE)).into_bits()), 3);
    assert_eq!((processes(&world).len(), world.unit.caches().process_nodes().count()), (2, 1));
}

#[test]
fn a_command_carried_out_late_is_carried_out_by_the_next_fence() {
    let (mut world, tables, _) = World::mapped_first(3);
    world.where_is(IOVA);
    world.map(tables, IOVA, leaf(Pa(0x9000)), 12);
    let mut late = Scripted::new(|question| question == Question::DeferCommand, 1);
    world.submit(&[commands::vma(None, Some(PSCID), Some(IOVA)).into_bits()]);
    for _ in 0..2 {
        let input = match world.unit.command_queue_advance(iommu_model::riscv::CommandInput::Continue, &mut late) {
            iommu_model::riscv::CommandProgress::Fetch { pa, .. } => {
                iommu_model::riscv::CommandInput::Command([world.memory.read(pa), world.memory.read(pa.offset(8))])
            }
            other => panic!("{other:?}"),
        };
        if let iommu_model::riscv::CommandProgress::Deferred { .. } = world.unit.command_queue_advance(input, &mut late) {
            break;
        }
    }
    let cqh = world.unit.read_register(iommu_model::riscv::Register::Cqh);
    assert_eq!(cqh, world.unit.read_register(iommu_model::riscv::Register::Cqt), "the head has passed it");
    assert_eq!(world.where_is(IOVA), PAGE, "and yet it was not carried out");
    world.submit(&[commands::fence(None).into_bits()]);
    world.run_with(&mut Plain);
    assert_eq!(world.where_is(IOVA), Pa(0x9000));
}

#[test]
fn a_fence_is_complete_only_after_every_command_that_was_put_off() {
    let mut world = populated();
    let mut late = Scripted::new(|question| question == Question::DeferCommand, 1);
    let commands = [commands::vma(None, None, None).into_bits(), commands::gvma(None, None).into_bits(), commands::fence(None).into_bits()];
    world.submit(&commands);
    let said = world.run_with(&mut late);
    assert_eq!(late.asked, 2);
    let order: Vec<_> = said
        .iter()
        .filter_map(|progress| match progress {
            CommandProgress::Deferred { .. } => Some("put off"),
            CommandProgress::Invalidated { .. } => Some("carried out"),
            CommandProgress::Fenced { .. } => Some("fenced"),
            _ => None,
        })
        .collect();
    assert_eq!(order, ["put off", "put off", "carried out", "carried out", "fenced"]);
}

#[test]
fn a_global_pointer_stays_when_a_pscid_is_named() {
    let (mut world, tables, _) = World::mapped_first(3);
    let pointer = tables.slot(&mut world.memory, &mut world.next, IOVA.0, 3);
    let word = world.memory.read(pointer);
    world.memory.write(pointer, word | 1 << 5);
    world.where_is(IOVA);
    world.command(commands::vma(None, Some(PSCID), None).into_bits());
    assert_eq!(world.unit.caches().walk().filter(|entry| entry.global).count(), 2);
    world.command(commands::vma(None, None, None).into_bits());
    assert_eq!(world.unit.caches().walk().count(), 0);
}
