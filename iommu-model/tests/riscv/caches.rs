//! Capacity, replacement, what hardware may choose, and what the caches remember.

use crate::support::{DEVICE, Dc, IOVA, PAGE, PSCID, Scripted, World, leaf};
use iommu_model::riscv::{Capabilities, DeviceId, Pscid, Space, Transaction};
use iommu_model::{Access, CacheHit, Geometry, Iova, Pa, Params, Question};

fn small() -> Params {
    let two = Geometry::fully_associative(2);
    Params { context: two, pasid: two, iotlb: two, psc: [two; 4], ..Params::default() }
}

fn page(n: u64) -> Iova {
    Iova(IOVA.0 + (n << 12))
}

/// Four pages through a first stage, with caches of two entries.
fn crowded() -> World {
    let mut world = World::with(Capabilities::default(), small(), 1);
    let tables = world.first_stage(3);
    world.set_device(DEVICE, Dc::bare().first(tables, PSCID));
    for n in 0..4 {
        world.map(tables, page(n), leaf(Pa(PAGE.0 + (n << 12))), 12);
    }
    world
}

fn cached(world: &World) -> Vec<Iova> {
    let mut pages: Vec<_> = world.unit.caches().iotlb().map(|entry| entry.page).collect();
    pages.sort();
    pages
}

#[test]
fn a_full_iotlb_drops_the_least_recently_used_page_or_any_other() {
    let mut world = crowded();
    for n in [0, 1, 0] {
        world.where_is(page(n));
    }
    world.where_is(page(2));
    assert_eq!(cached(&world), [page(0), page(2)]);
    let mut newest = Scripted::new(|question| matches!(question, Question::EvictIotlb { ways: 2 }), 1);
    world.send_with(Transaction::new(DEVICE, page(3), Access::Read), &mut newest);
    assert_eq!((newest.asked, cached(&world)), (1, vec![page(0), page(3)]));
}

#[test]
fn full_directory_caches_ask_which_entry_goes() {
    let mut world = World::with(Capabilities::default(), small(), 2);
    let tables = world.first_stage(3);
    world.map(tables, IOVA, leaf(PAGE), 12);
    let devices = [1, 0x41, 0x81].map(DeviceId);
    let mut oldest = Scripted::new(|question| matches!(question, Question::EvictContext { ways: 2 }), 0);
    for device in devices {
        world.set_device(device, Dc::bare().first(tables, PSCID));
        world.send_with(Transaction::new(device, IOVA, Access::Read), &mut oldest);
    }
    assert_eq!(oldest.asked, 2, "a context and what leads to it");
    let held: Vec<_> = world.unit.caches().devices().map(|entry| entry.device).collect();
    assert_eq!(held, devices[1..]);
    let nodes: Vec<_> = world.unit.caches().device_nodes().map(|entry| (entry.device, entry.level)).collect();
    assert_eq!(nodes, [(DeviceId(0x40), 1), (DeviceId(0x80), 1)]);
}

#[test]
fn what_is_cached_of_a_directory_saves_its_upper_levels() {
    let mut world = World::with(Capabilities::default(), Params::default(), 3);
    for device in [1, 2] {
        world.set_device(DeviceId(device), Dc::bare());
    }
    let read = |world: &mut World, device| world.send(Transaction::new(DeviceId(device), IOVA, Access::Read)).fetched.len();
    assert_eq!((read(&mut world, 1), read(&mut world, 2), read(&mut world, 2)), (3, 1, 0));
}

#[test]
fn a_walk_cache_that_hits_may_be_ignored() {
    let mut world = crowded();
    world.where_is(page(0));
    let mut ignore = Scripted::new(|question| question == Question::UsePsc { level: 2 }, 1);
    let ended = world.send_with(Transaction::new(DEVICE, page(1), Access::Read), &mut ignore);
    assert_eq!((ignore.asked, ended.fetched.len(), ended.translation().from), (1, 3, CacheHit::None));
}

#[test]
fn a_cached_refusal_may_be_looked_up_again() {
    let mut world = World::new();
    let tables = world.first_stage(3);
    world.set_device(DEVICE, Dc::bare().first(tables, PSCID));
    let slot = world.map(tables, IOVA, leaf(PAGE).with_write(false), 12);
    world.where_is(IOVA);
    world.memory.write(slot, leaf(PAGE).into_bits());
    assert_eq!(world.write_to(IOVA).fault().reason.code(), 15, "the stale entry refuses");
    let mut again = Scripted::new(|question| question == Question::RewalkDenied, 1);
    let ended = world.send_with(Transaction::new(DEVICE, IOVA, Access::Write), &mut again);
    assert_eq!((again.asked, ended.translation().pa), (1, PAGE));
    assert!(world.write_to(IOVA).fetched.is_empty());
}

#[test]
fn an_entry_that_is_not_dirty_serves_reads_and_sends_writes_to_the_tables() {
    let mut world = World::new();
    let tables = world.second_stage(3);
    let dc = Dc::bare().second(tables, crate::support::GSCID).control(|tc| tc.set_second_stage_update(true));
    world.set_device(DEVICE, dc);
    let slot = world.map(tables, IOVA, leaf(PAGE).with_accessed(false).with_dirty(false), 12);
    assert_eq!(world.read(IOVA).updated, [slot]);
    assert!(world.read(IOVA).fetched.is_empty());
    let write = world.write_to(IOVA);
    assert_eq!((write.updated, write.fetched.len()), (vec![slot], 1));
    assert!(world.write_to(IOVA).fetched.is_empty());
    assert_eq!(world.memory.read(slot), leaf(PAGE).into_bits());
}

#[test]
fn a_global_page_serves_every_process_of_its_stage() {
    let mut world = World::new();
    let tables = world.first_stage(3);
    world.map(tables, IOVA, leaf(PAGE).with_global(true), 12);
    for (device, pscid) in [(DEVICE, PSCID), (DeviceId(2), Pscid(8))] {
        world.set_device(device, Dc::bare().first(tables, pscid));
    }
    world.where_is(IOVA);
    let other = world.send(Transaction::new(DeviceId(2), IOVA, Access::Read));
    assert_eq!(other.translation().from, CacheHit::Iotlb);
    assert!(world.unit.caches().iotlb().all(|entry| entry.space == Space::HostGlobal));
}

#[test]
fn a_page_below_a_global_pointer_is_global() {
    let (mut world, tables, _) = World::mapped_first(3);
    let pointer = tables.slot(&mut world.memory, &mut world.next, IOVA.0, 3);
    let word = world.memory.read(pointer);
    world.memory.write(pointer, word | 1 << 5);
    world.where_is(IOVA);
    assert!(world.unit.caches().iotlb().all(|entry| entry.space == Space::HostGlobal));
}

#[test]
fn guests_whose_ids_differ_only_in_high_bits_share_nothing() {
    let mut world = World::new();
    for (n, gscid) in [0u16, 0x4000, 0x8000, 0xc000].into_iter().enumerate() {
        let tables = world.second_stage(3);
        world.map(tables, IOVA, leaf(Pa((n as u64 + 1) << 12)), 12);
        world.set_device(DeviceId(n as u32), Dc::bare().second(tables, iommu_model::riscv::Gscid(gscid)));
    }
    for _ in 0..2 {
        for n in 0..4 {
            let ended = world.send(Transaction::new(DeviceId(n), IOVA, Access::Read));
            assert_eq!(ended.translation().pa, Pa((u64::from(n) + 1) << 12));
        }
    }
}

#[test]
fn every_cached_entry_tells_the_words_it_was_made_from() {
    let (mut world, ..) = World::mapped_nested(3);
    world.where_is(IOVA);
    let caches = world.unit.caches();
    let memory = &world.memory;
    let mut entries = 0;
    let ids = caches.devices().map(|entry| entry.provenance);
    let ids = ids.chain(caches.iotlb().map(|entry| entry.provenance)).chain(caches.walk().map(|entry| entry.provenance));
    for id in ids {
        let words = caches.provenance(id);
        assert!(words.len() >= 8, "the device context at least");
        assert!(words.iter().all(|source| memory.read(source.pa) == source.value));
        entries += 1;
    }
    assert_eq!(entries, caches.len());
}
