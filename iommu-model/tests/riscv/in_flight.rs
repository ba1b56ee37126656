//! Many walks at once: merging, restarts, giving up, prefetch.

use crate::support::{DEVICE, Dc, IOVA, PAGE, PSCID, World, commands, leaf};
use iommu_model::riscv::{CommandProgress, DeviceId, Pscid, Transaction};
use iommu_model::{Access, Iova, Params, Plain, Progress};

fn request(device: DeviceId, iova: Iova) -> Transaction {
    Transaction::new(device, iova, Access::Read)
}

/// Advances until a fetch is outstanding.
fn to_fetch(world: &mut World, walk: iommu_model::WalkId) {
    while !matches!(world.unit.advance(walk, None, &mut Plain), Progress::Fetch { .. }) {}
}

#[test]
fn a_second_request_to_one_page_waits_for_the_first_and_finds_it_cached() {
    let (mut world, ..) = World::mapped_first(3);
    let (first, second) = (world.begin(request(DEVICE, IOVA)), world.begin(request(DEVICE, Iova(IOVA.0 + 8))));
    to_fetch(&mut world, first);
    assert!(matches!(world.unit.advance(second, None, &mut Plain), Progress::Merged { leader, .. } if leader == first));
    world.drive(first, &mut Plain);
    let ended = world.drive(second, &mut Plain);
    assert_eq!((ended.translation().pa.0, ended.fetched.len()), (PAGE.0 + 8, 0));
}

#[test]
fn walks_that_an_invalidation_does_not_cover_go_on() {
    let mut world = World::new();
    let devices = [(DEVICE, PSCID), (DeviceId(2), Pscid(8))];
    for (device, pscid) in devices {
        let tables = world.first_stage(3);
        world.map(tables, IOVA, leaf(PAGE), 12);
        world.set_device(device, Dc::bare().first(tables, pscid));
    }
    let walks = devices.map(|(device, _)| {
        let walk = world.begin(request(device, IOVA));
        let mut fetches = 0;
        let mut answer = None;
        while fetches < 3 {
            if let Progress::Fetch { pa, bytes, .. } = world.unit.advance(walk, answer.take(), &mut Plain) {
                fetches += 1;
                if fetches < 3 {
                    answer = Some(world.memory.fetch(pa, bytes));
                }
            }
        }
        walk
    });
    let restarted = |world: &mut World, bits: u128| {
        let said = world.command(bits);
        let of = |progress: &CommandProgress| match progress {
            CommandProgress::Invalidated { what, .. } => Some(what.walks_restarted),
            _ => None,
        };
        said.iter().find_map(of).expect("carried out")
    };
    assert_eq!(restarted(&mut world, commands::gvma(None, None).into_bits()), 0);
    assert_eq!(restarted(&mut world, commands::vma(None, Some(Pscid(99)), None).into_bits()), 0);
    assert_eq!(restarted(&mut world, commands::vma(None, Some(PSCID), Some(Iova(IOVA.0 ^ 1 << 35))).into_bits()), 0);
    assert_eq!(restarted(&mut world, commands::inval_ddt(Some(DeviceId(5))).into_bits()), 0);
    assert_eq!(restarted(&mut world, commands::vma(None, Some(PSCID), Some(IOVA)).into_bits()), 1);
    assert_eq!(restarted(&mut world, commands::inval_ddt(Some(DeviceId(2))).into_bits()), 1);
    for walk in walks {
        assert_eq!(world.drive(walk, &mut Plain).translation().pa, PAGE);
    }
}

#[test]
fn a_walk_given_up_leaves_its_walker_and_no_trace() {
    let (mut world, ..) = World::mapped_nested(3);
    let walk = world.begin(request(DEVICE, IOVA));
    to_fetch(&mut world, walk);
    assert!(world.unit.cancel(walk) && !world.unit.cancel(walk));
    assert_eq!((world.unit.in_flight_count(), world.unit.caches().len()), (0, 0));
    assert_eq!(world.where_is(IOVA), PAGE);
}

#[test]
fn a_unit_has_as_many_walkers_as_it_is_given() {
    let params = Params { walks_max: 2, ..Params::default() };
    let mut world = World::with(iommu_model::riscv::Capabilities::default(), params, 1);
    let walks = [0, 1].map(|n| world.begin(request(DEVICE, Iova(n << 12))));
    assert!(world.unit.begin(request(DEVICE, IOVA)).is_err());
    world.unit.cancel(walks[0]);
    assert!(world.unit.begin(request(DEVICE, IOVA)).is_ok());
}

#[test]
fn a_prefetch_fills_the_caches_and_records_no_fault() {
    let (mut world, ..) = World::mapped_first(3);
    let walk = world.unit.begin_prefetch(request(DEVICE, IOVA)).expect("a walker is free");
    world.drive(walk, &mut Plain);
    assert!(world.read(IOVA).fetched.is_empty());
    let walk = world.unit.begin_prefetch(request(DEVICE, Iova(0))).expect("a walker is free");
    assert!(!world.drive(walk, &mut Plain).fault().recorded);
    assert!(world.faults().is_empty());
}

#[test]
fn a_fetch_is_asked_for_again_until_it_is_answered() {
    let (mut world, ..) = World::mapped_first(3);
    let walk = world.begin(request(DEVICE, IOVA));
    to_fetch(&mut world, walk);
    let view = world.unit.in_flight().next().expect("it is in flight");
    let Progress::Fetch { pa, kind, cost: 0, .. } = world.unit.advance(walk, None, &mut Plain) else { panic!("asked again") };
    assert_eq!(view.fetch, Some((pa, kind)));
    assert_eq!(world.drive(walk, &mut Plain).translation().fetches, 4);
}

#[test]
fn gvma_sends_back_the_walks_of_its_guest() {
    for (gscid, expected) in [(Some(crate::support::GSCID), 1), (Some(iommu_model::riscv::Gscid(77)), 0), (None, 1)] {
        let (mut world, _, slot) = World::mapped_second(3);
        let walk = world.begin(request(DEVICE, IOVA));
        let mut answer = None;
        loop {
            match world.unit.advance(walk, answer.take(), &mut Plain) {
                Progress::Fetch { pa, .. } if pa == slot => break,
                Progress::Fetch { pa, bytes, .. } => answer = Some(world.memory.fetch(pa, bytes)),
                _ => {}
            }
        }
        // The old leaf is on its way while software changes it.
        let old = world.memory.fetch(slot, 8);
        world.memory.write(slot, leaf(iommu_model::Pa(0x9000)).into_bits());
        let said = world.command(commands::gvma(gscid, None).into_bits());
        let restarted = said.iter().find_map(|progress| match progress {
            CommandProgress::Invalidated { what, .. } => Some(what.walks_restarted),
            _ => None,
        });
        assert_eq!(restarted, Some(expected));
        let progress = world.unit.advance(walk, Some(old), &mut Plain);
        let ended = match progress {
            Progress::Done(translation) => translation.pa,
            _ => world.drive(walk, &mut Plain).translation().pa,
        };
        assert_eq!(ended, if expected == 1 { iommu_model::Pa(0x9000) } else { PAGE });
    }
}
