//! Races that the hardware allows, each with its legal bad outcome and with what forbids it.
//!
//! The numbers are those of the race catalogue in the project's hardware facts.

use super::support::bench::{DEVICE, DOMAIN, IOVA, OTHER_PAGE, PAGE};
use super::support::tables::{context, leaf, pointer};
use super::support::{Bench, Tables, commands};
use iommu_model::{Access, Capabilities, FetchKind, Pa, Params, Pfn, Plain, Progress, QueueInput, QueueProgress};

const LEVEL_1: FetchKind = FetchKind::Table { level: 1 };
const GARBAGE: Pa = Pa(0xdead_b000);

/// Race 1.
///
/// ```text
/// walker                         CPU
/// reads the level-2 entry
///                                clears it, frees the level-1 table
///                                the page is reused
/// reads the reused page
/// ```
#[test]
fn race_1_a_walk_goes_on_into_a_freed_table_unless_it_was_invalidated_first() {
    for invalidated in [false, true] {
        let (mut bench, slot) = Bench::mapped();
        let walk = bench.begin(IOVA, Access::Read);
        let (pa, bytes) = bench.run_to_fetch(walk, LEVEL_1);
        let level_2 = bench.unit.provenance(walk).expect("it is in flight")[6].pa;
        bench.memory.write(level_2, 0);
        if invalidated {
            bench.invalidate(&[commands::iotlb_pages(DOMAIN, IOVA, 0, false)]);
        }
        bench.memory.write(slot, leaf(GARBAGE, 12).into_bits());
        let answer = bench.memory.fetch(pa, bytes);
        let next = bench.unit.advance(walk, Some(answer), &mut Plain);
        if invalidated {
            assert_eq!(bench.finish(walk).fault().reason.code(), 0x06, "not present, and nothing worse");
        } else {
            assert!(matches!(next, Progress::Done(t) if t.pa == GARBAGE), "translated from garbage");
        }
    }
}

/// Race 2: the pointer to the old table is cached, software builds a new one.
#[test]
fn race_2_an_old_cached_pointer_leads_past_the_new_table() {
    let (mut bench, slot) = Bench::mapped();
    let level_2 = bench.read(IOVA).provenance[6].pa;
    let new_table = bench.tables.frame();
    bench.memory.write(new_table.offset(4 * 8), leaf(OTHER_PAGE, 12).into_bits());
    bench.memory.write(level_2, pointer(new_table).into_bits());
    bench.memory.write(slot.offset(8), leaf(GARBAGE, 12).into_bits());
    let neighbour = IOVA.offset(4096);
    let mut stale = bench.clone();
    assert_eq!(stale.read(neighbour).translation().pa, GARBAGE);
    bench.invalidate(&[commands::iotlb_pages(DOMAIN, neighbour, 0, false)]);
    assert_eq!(bench.read(neighbour).translation().pa, OTHER_PAGE);
}

/// Race 3: a refill between the two flushes brings the old domain back, if they come in the wrong order.
#[test]
fn race_3_a_refill_between_iotlb_and_context_flush_keeps_the_old_translation() {
    let outcome = |order: [u128; 2]| {
        let (mut bench, _) = Bench::mapped();
        bench.read(IOVA);
        let entry = bench.tables.context_entry_pa(&mut bench.memory, DEVICE);
        bench.memory.write(entry, 0);
        bench.invalidate(&order[..1]);
        bench.read(IOVA);
        bench.invalidate(&order[1..]);
        // The same domain id is used again, for another device's tables.
        let tables = bench.tables.second_stage(4);
        bench.tables.map(&mut bench.memory, tables, IOVA, OTHER_PAGE, 12);
        bench.memory.write_wide(entry, context(DOMAIN, tables).into_bits());
        bench.read(IOVA).translation().pa
    };
    let (context, iotlb) = (commands::context_device(DOMAIN, DEVICE), commands::iotlb_domain(DOMAIN));
    assert_eq!(outcome([iotlb, context]), PAGE);
    assert_eq!(outcome([context, iotlb]), OTHER_PAGE);
}

/// Race 3, the harmless half: a refill between the store and the invalidation.
#[test]
fn race_3_a_refill_between_the_store_and_the_invalidation_is_fine() {
    let (mut bench, slot) = Bench::mapped();
    bench.memory.write(slot, leaf(OTHER_PAGE, 12).into_bits());
    bench.read(IOVA);
    bench.invalidate(&[commands::iotlb_pages(DOMAIN, IOVA, 0, true)]);
    assert_eq!(bench.read(IOVA).translation().pa, OTHER_PAGE);
}

/// Race 4: a posted write was translated before the invalidation and lands after the wait status.
#[test]
fn race_4_the_status_write_overtakes_a_posted_write_without_a_drain() {
    let status = Pa(0x600_0000);
    for draining in [false, true] {
        let (mut bench, slot) = Bench::mapped();
        let posted = bench.translate_with(IOVA, Access::Write, &mut Plain);
        assert_eq!(posted.translation().pa, PAGE);
        bench.memory.write(slot, 0);
        let flush = if draining { commands::iotlb_domain_draining(DOMAIN) } else { commands::iotlb_domain(DOMAIN) };
        bench.submit(&[flush, commands::wait(status, 1)]);
        let mut order = Vec::new();
        let mut input = QueueInput::Continue;
        loop {
            let progress = bench.step_queue(input, &mut Plain);
            input = match progress {
                QueueProgress::Idle => break,
                QueueProgress::Drain { writes: true, .. } => {
                    order.push("write lands");
                    QueueInput::Drained
                }
                QueueProgress::WriteStatus { .. } => {
                    order.push("status");
                    QueueInput::Written
                }
                _ => QueueInput::Continue,
            };
        }
        if !draining {
            order.push("write lands");
        }
        let expected = if draining { ["write lands", "status"] } else { ["status", "write lands"] };
        assert_eq!(order, expected);
    }
}

/// Race 6: after a root switch without ESRTPS old and new world are mixed until both caches are flushed.
#[test]
fn race_6_a_root_switch_mixes_old_and_new_tables_until_both_flushes() {
    let switched = |esrtps: bool| {
        let cap = Capabilities { root_switch_invalidates: esrtps, ..Default::default() };
        let (mut bench, _) = Bench::mapped_with(cap, Params::default());
        bench.read(IOVA);
        let mut tables = Tables::new(Pfn(0x2000));
        let stage = tables.second_stage(4);
        tables.attach(&mut bench.memory, DEVICE, DOMAIN, stage);
        tables.map(&mut bench.memory, stage, IOVA, OTHER_PAGE, 12);
        tables.map(&mut bench.memory, stage, IOVA.offset(4096), OTHER_PAGE, 12);
        bench.switch_root(tables.root);
        bench
    };
    let mut bench = switched(false);
    assert_eq!(bench.read(IOVA).translation().pa, PAGE, "old page");
    assert_eq!(bench.read(IOVA.offset(4096)).fault().reason.code(), 0x06, "old pointers, so the new page is missing");
    bench.invalidate(&[commands::iotlb_global()]);
    assert_eq!(bench.read(IOVA).translation().pa, PAGE, "old context entry");
    bench.invalidate(&[commands::context_global(), commands::iotlb_global()]);
    assert_eq!(bench.read(IOVA).translation().pa, OTHER_PAGE);
    assert_eq!(switched(true).read(IOVA).translation().pa, OTHER_PAGE, "ESRTPS needs no flush");
}

/// Race 6, in flight: the root entry comes from the old table, the switch happens, the walk goes on.
#[test]
fn race_6_a_walk_in_flight_keeps_to_the_old_root() {
    for (esrtps, expected) in [(false, PAGE), (true, OTHER_PAGE)] {
        let cap = Capabilities { root_switch_invalidates: esrtps, ..Default::default() };
        let (mut bench, _) = Bench::mapped_with(cap, Params::default());
        let walk = bench.begin(IOVA, Access::Read);
        bench.run_to_fetch(walk, FetchKind::Context);
        let mut tables = Tables::new(Pfn(0x2000));
        let stage = tables.second_stage(4);
        tables.attach(&mut bench.memory, DEVICE, DOMAIN, stage);
        tables.map(&mut bench.memory, stage, IOVA, OTHER_PAGE, 12);
        bench.switch_root(tables.root);
        assert_eq!(bench.finish(walk).translation().pa, expected);
    }
}

/// Race 10: the incoming kernel uses a domain id whose old translations are still cached.
#[test]
fn race_10_a_reused_domain_id_serves_the_previous_owners_translations() {
    for flushed in [false, true] {
        let (mut bench, _) = Bench::mapped();
        bench.read(IOVA);
        let newcomer = iommu_model::Bdf::new(0x3b, 7, 0);
        let tables = bench.tables.second_stage(4);
        bench.tables.map(&mut bench.memory, tables, IOVA, OTHER_PAGE, 12);
        bench.tables.attach(&mut bench.memory, newcomer, DOMAIN, tables);
        if flushed {
            bench.invalidate(&[commands::iotlb_domain(DOMAIN)]);
        }
        let expected = if flushed { OTHER_PAGE } else { PAGE };
        assert_eq!(bench.read_from(newcomer, IOVA).translation().pa, expected);
    }
}

/// Race 15: IH=1 says that only leaves changed, but a pointer did.
#[test]
fn race_15_a_leaf_only_hint_after_a_pointer_changed_leaves_the_old_pointer() {
    for (leaf_only, expected) in [(true, PAGE), (false, OTHER_PAGE)] {
        let (mut bench, _) = Bench::mapped();
        let level_2 = bench.read(IOVA).provenance[6].pa;
        let new_table = bench.tables.frame();
        bench.memory.write(new_table.offset(3 * 8), leaf(OTHER_PAGE, 12).into_bits());
        bench.memory.write(level_2, pointer(new_table).into_bits());
        bench.invalidate(&[commands::iotlb_pages(DOMAIN, IOVA, 0, leaf_only)]);
        assert_eq!(bench.read(IOVA).translation().pa, expected);
    }
}

/// Race 15, in flight: the walk holds the old pointer in its own state.
#[test]
fn race_15_a_walk_in_flight_keeps_its_pointer_under_a_leaf_only_hint() {
    for (leaf_only, expected) in [(true, PAGE), (false, OTHER_PAGE)] {
        let (mut bench, _) = Bench::mapped();
        let neighbour = IOVA.offset(4096);
        let walk = bench.begin(IOVA, Access::Read);
        let (pa, bytes) = bench.run_to_fetch(walk, LEVEL_1);
        let level_2 = bench.unit.provenance(walk).expect("it is in flight")[6].pa;
        let new_table = bench.tables.frame();
        bench.memory.write(new_table.offset(3 * 8), leaf(OTHER_PAGE, 12).into_bits());
        bench.memory.write(level_2, pointer(new_table).into_bits());
        // The hint names the neighbour, which shares the pointer.
        bench.invalidate(&[commands::iotlb_pages(DOMAIN, neighbour, 0, leaf_only)]);
        let answer = bench.memory.fetch(pa, bytes);
        let translation = match bench.unit.advance(walk, Some(answer), &mut Plain) {
            Progress::Done(translation) => translation,
            _ => *bench.finish(walk).translation(),
        };
        assert_eq!(translation.pa, expected);
    }
}

/// Race 16: the address mask is smaller than the cached page.
#[test]
fn race_16_a_superpage_survives_an_invalidation_of_a_part_of_it() {
    for (order, expected) in [(0, Pa(0x3000)), (8, Pa(0x3000)), (9, Pa(0x20_3000)), (10, Pa(0x20_3000))] {
        let mut bench = Bench::new();
        let slot = bench.attach_and_map(4, 21);
        bench.read(IOVA);
        bench.memory.write(slot, leaf(Pa(0x20_0000), 21).into_bits());
        bench.invalidate(&[commands::iotlb_pages(DOMAIN, IOVA, order, true)]);
        assert_eq!(bench.read(IOVA).translation().pa, expected, "AM {order}");
    }
}
