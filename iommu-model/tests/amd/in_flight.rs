//! Walks in flight: merging, walkers, restarts.

use super::support::tables::open;
use super::support::{Bench, DEVICE, DOMAIN, Guest, IOVA, OTHER_PAGE, PAGE, PASID, commands};
use iommu_model::{Access, Busy, DomainId, FetchKind, Iova, Params, Plain, Progress, Request};

const LEAF: FetchKind = FetchKind::Table { level: 1 };

#[test]
fn a_second_request_to_the_same_page_waits_for_the_first() {
    let (mut bench, _) = Bench::mapped();
    let first = bench.begin(IOVA, Access::Read);
    bench.run_to_fetch(first, LEAF);
    let second = bench.begin(IOVA.offset(8), Access::Read);
    assert!(matches!(bench.unit.advance(second, None, &mut Plain), Progress::Merged { leader, .. } if leader == first));
    bench.finish(first);
    assert!(bench.finish(second).fetched.is_empty());
}

#[test]
fn there_are_as_many_walkers_as_the_parameters_say() {
    let (mut bench, _) = Bench::mapped_with(Default::default(), Params { walks_max: 2, ..Params::default() });
    let first = bench.begin(IOVA, Access::Read);
    bench.begin(IOVA.offset(0x1000), Access::Read);
    let third = Bench::request(IOVA.offset(0x2000), Access::Read);
    assert_eq!(bench.unit.begin(third), Err(Busy));
    assert!(bench.unit.cancel(first));
    assert!(!bench.unit.cancel(first));
    assert!(bench.unit.begin(third).is_ok());
    assert_eq!(bench.unit.in_flight_count(), 2);
}

#[test]
fn a_covered_walk_starts_over_and_its_answer_is_thrown_away() {
    let (mut bench, leaf) = Bench::mapped();
    let walk = bench.begin(IOVA, Access::Read);
    let (pa, bytes) = bench.run_to_fetch(walk, LEAF);
    let stale = bench.memory.fetch(pa, bytes);
    bench.memory.write(leaf, open(0).with_frame(OTHER_PAGE.pfn().0).into_bits());
    bench.invalidate(&[commands::page(DOMAIN, IOVA).into_bits()]);
    assert!(!bench.unit.advance(walk, Some(stale), &mut Plain).is_end());
    let ended = bench.finish(walk);
    assert_eq!(ended.pa(), OTHER_PAGE);
    assert_eq!(ended.fetched, [LEAF], "the device entry and the non-leaf entries are still cached");
}

#[test]
fn a_walk_that_is_not_covered_goes_on_with_what_it_read() {
    for command in [
        commands::page(DOMAIN, IOVA.offset(0x20_0000)).into_bits(),
        commands::page(DomainId(DOMAIN.0 + 1), IOVA).into_bits(),
        commands::device(iommu_model::Bdf(DEVICE.0 + 1)),
        commands::of_pasid(commands::all_pages(DOMAIN), PASID),
    ] {
        let (mut bench, leaf) = Bench::mapped();
        let walk = bench.begin(IOVA, Access::Read);
        let (pa, bytes) = bench.run_to_fetch(walk, LEAF);
        let stale = bench.memory.fetch(pa, bytes);
        bench.memory.write(leaf, open(0).with_frame(OTHER_PAGE.pfn().0).into_bits());
        bench.invalidate(&[command]);
        match bench.unit.advance(walk, Some(stale), &mut Plain) {
            Progress::Done(translation) => assert_eq!(translation.pa, PAGE),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_walk_that_awaits_its_device_entry_starts_over_with_that_entry() {
    let (mut bench, _) = Bench::mapped();
    let walk = bench.begin(IOVA, Access::Read);
    let (pa, bytes) = bench.run_to_fetch(walk, FetchKind::DeviceTableEntry);
    let stale = bench.memory.fetch(pa, bytes);
    bench.change_device(|entry| entry.with_domain(9));
    bench.invalidate(&[commands::device(DEVICE)]);
    bench.unit.advance(walk, Some(stale), &mut Plain);
    assert_eq!(bench.finish(walk).translation().domain, DomainId(9));
}

#[test]
fn a_guest_walk_starts_over_for_its_pasid_and_for_every_host_page() {
    for (command, restarts) in [
        (commands::of_pasid(commands::page(DOMAIN, IOVA), PASID), true),
        (commands::of_pasid(commands::page(DOMAIN, IOVA), iommu_model::Pasid(9)), false),
        (commands::page(DOMAIN, Iova(0)).into_bits(), true),
        (commands::all(), true),
    ] {
        let mut guest = Guest::nested();
        let request = Request { pasid: Some(PASID), ..Bench::request(IOVA, Access::Read) };
        let walk = guest.bench.unit.begin(request).expect("a walker is free");
        guest.bench.run_to_fetch(walk, FetchKind::FirstStage { level: 1 });
        guest.bench.invalidate(&[command]);
        let view = guest.bench.unit.in_flight().next().expect("it is in flight");
        assert_eq!(view.fetch.is_none(), restarts, "{command:#x}");
        let answer = guest.bench.memory.fetch(guest.leaf, 8);
        guest.bench.unit.advance(walk, Some(answer), &mut Plain);
        assert_eq!(guest.bench.finish(walk).pa(), PAGE);
    }
}

#[test]
fn with_pde_a_walk_starts_over_for_any_address_that_an_entry_it_holds_leads_to() {
    // The walk awaits level 1 and holds the entries of levels 4 to 2; another 2 MiB of the same 1 GiB is named.
    let other = IOVA.offset(0x60_0000);
    for (directories, restarts) in [(true, true), (false, false)] {
        let (mut bench, leaf) = Bench::mapped();
        let walk = bench.begin(IOVA, Access::Read);
        bench.run_to_fetch(walk, LEAF);
        bench.invalidate(&[commands::page(DOMAIN, other).with_directories(directories).into_bits()]);
        assert_eq!(bench.unit.in_flight().all(|view| view.fetch.is_none()), restarts);
        let answer = bench.memory.fetch(leaf, 8);
        assert_eq!(bench.unit.advance(walk, Some(answer), &mut Plain).is_end(), !restarts);
    }
}
