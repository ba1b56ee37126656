//! What hardware may do while tables change under it: each race with its legal bad outcome, and with the invalidation that
//! forbids it.

use crate::support::world::GUEST;
use crate::support::{DEVICE, Dc, GSCID, IOVA, PAGE, PSCID, World, commands, leaf};
use iommu_model::riscv::{CommandProgress, DeviceId, Pscid, Transaction};
use iommu_model::spec::riscv::paging::PageTableEntry;
use iommu_model::{Access, FetchKind, Fetched, Iova, Pa, Plain, Progress, WalkId};

const GARBAGE: Pa = Pa(0xbad_b000);
const NEW: Pa = Pa(0x9_9000);

/// Drives a walk until it wants a word of this kind; returns where.
fn until(world: &mut World, walk: WalkId, kind: FetchKind) -> Pa {
    let mut answer = None;
    for _ in 0..100 {
        match world.unit.advance(walk, answer.take(), &mut Plain) {
            Progress::Fetch { pa, kind: wanted, .. } if wanted == kind => return pa,
            Progress::Fetch { pa, bytes, .. } => answer = Some(world.memory.fetch(pa, bytes)),
            Progress::Lookup { .. } => {}
            other => panic!("ended: {other:?}"),
        }
    }
    panic!("never asked for {kind:?}");
}

fn request() -> Transaction {
    Transaction::new(DEVICE, IOVA, Access::Read)
}

/// walker: reads the pointer     | CPU: clears it, frees the table, the page is used for something else
/// walker: reads the leaf from the reused page
#[test]
fn a_walk_reads_a_leaf_from_a_table_that_was_freed_and_used_again() {
    let (mut world, tables, slot) = World::mapped_first(3);
    let walk = world.begin(request());
    assert_eq!(until(&mut world, walk, FetchKind::FirstStage { level: 1 }), slot);
    let pointer = tables.slot(&mut world.memory, &mut world.next, IOVA.0, 2);
    world.memory.write(pointer, 0);
    world.memory.write(slot, leaf(GARBAGE).into_bits());
    assert_eq!(world.drive(walk, &mut Plain).translation().pa, GARBAGE);
}

#[test]
fn an_invalidation_sends_that_walk_back_before_the_table_is_freed() {
    let (mut world, tables, slot) = World::mapped_first(3);
    let walk = world.begin(request());
    until(&mut world, walk, FetchKind::FirstStage { level: 1 });
    let pointer = tables.slot(&mut world.memory, &mut world.next, IOVA.0, 2);
    world.memory.write(pointer, 0);
    let said = world.command(commands::vma(None, Some(PSCID), None).into_bits());
    assert!(said.iter().any(|progress| matches!(progress, CommandProgress::Invalidated { what, .. } if what.walks_restarted == 1)));
    world.memory.write(slot, leaf(GARBAGE).into_bits());
    // The answer that is still on its way is thrown away.
    let late = world.unit.advance(walk, Some(Fetched::word(leaf(GARBAGE).into_bits())), &mut Plain);
    assert!(matches!(late, Progress::Lookup { .. }));
    assert!(matches!(world.drive(walk, &mut Plain).progress, Progress::Fault(_)));
}

#[test]
fn a_walk_holds_an_old_device_context_until_inval_ddt() {
    for invalidate in [false, true] {
        let (mut world, ..) = World::mapped_first(3);
        let other = world.first_stage(3);
        world.map(other, IOVA, leaf(NEW), 12);
        let walk = world.begin(request());
        until(&mut world, walk, FetchKind::FirstStage { level: 3 });
        world.set_device(DEVICE, Dc::bare().first(other, PSCID));
        if invalidate {
            world.command(commands::inval_ddt(Some(DEVICE)).into_bits());
            let dropped = world.unit.advance(walk, None, &mut Plain);
            assert!(matches!(dropped, Progress::Lookup { .. }));
        }
        assert_eq!(world.drive(walk, &mut Plain).translation().pa, if invalidate { NEW } else { PAGE });
    }
}

#[test]
fn invalidating_translations_before_the_context_leaves_a_stale_domain() {
    // The wrong order: the old context fills the IOTLB again after it was emptied.
    let (mut world, ..) = World::mapped_first(3);
    world.where_is(IOVA);
    let other = world.first_stage(3);
    world.map(other, IOVA, leaf(NEW), 12);
    world.set_device(DEVICE, Dc::bare().first(other, PSCID));
    world.command(commands::vma(None, Some(PSCID), None).into_bits());
    world.where_is(IOVA);
    world.command(commands::inval_ddt(Some(DEVICE)).into_bits());
    assert_eq!(world.where_is(IOVA), PAGE, "still the old page");
    world.command(commands::vma(None, Some(PSCID), None).into_bits());
    assert_eq!(world.where_is(IOVA), NEW);
}

#[test]
fn an_id_used_again_finds_what_was_cached_under_its_old_meaning() {
    let (mut world, ..) = World::mapped_first(3);
    world.where_is(IOVA);
    let (second, tables) = (DeviceId(7), world.first_stage(3));
    world.map(tables, IOVA, leaf(NEW), 12);
    world.set_device(second, Dc::bare().first(tables, PSCID));
    let of_second = Transaction::new(second, IOVA, Access::Read);
    assert_eq!(world.send(of_second).translation().pa, PAGE);
    world.command(commands::vma(None, Some(PSCID), None).into_bits());
    assert_eq!(world.send(of_second).translation().pa, NEW);
    // An id of its own has no such past.
    world.set_device(second, Dc::bare().first(tables, Pscid(0x77)));
    world.command(commands::inval_ddt(Some(second)).into_bits());
    world.command(commands::vma(None, Some(PSCID), None).into_bits());
    world.where_is(IOVA);
    assert_eq!(world.send(of_second).translation().pa, NEW);
}

#[test]
fn a_changed_second_stage_shows_through_a_joined_translation_until_gvma() {
    let (mut world, _, second, _) = World::mapped_nested(3);
    world.where_is(IOVA);
    // The guest's page moves.
    world.map(second, Iova(GUEST), leaf(Pa(0x20_0000)), 21);
    assert_eq!(world.where_is(IOVA), PAGE);
    world.command(commands::vma(Some(GSCID), Some(PSCID), Some(IOVA)).into_bits());
    assert_eq!(world.where_is(IOVA), PAGE, "the first stage alone is looked at again");
    world.command(commands::gvma(Some(GSCID), Some(Iova(GUEST + PAGE.0))).into_bits());
    assert_eq!(world.where_is(IOVA), Pa(0x20_0000 + PAGE.0));
}

#[test]
fn a_half_written_context_can_be_read() {
    // Software changes fsc and iohgatp of a valid context with two stores; the unit reads between them.
    let (mut world, ..) = World::mapped_first(3);
    let second = world.second_stage(3);
    world.map(second, IOVA, leaf(NEW), 12);
    let pa = world.context_pa(DEVICE);
    let new = Dc::bare().second(second, GSCID).words();
    world.memory.write(pa.offset(8), new[1]);
    assert!(matches!(world.read(IOVA).progress, Progress::Fault(_)), "the old first stage on the new second stage");
    world.memory.write(pa.offset(24), new[3]);
    world.memory.write(pa.offset(16), new[2]);
    assert!(matches!(world.read(IOVA).progress, Progress::Fault(_)), "and it stays so");
    world.command(commands::inval_ddt(Some(DEVICE)).into_bits());
    assert_eq!(world.where_is(IOVA), NEW);
}

#[test]
fn an_update_of_a_and_d_never_brings_a_cleared_entry_back() {
    let mut world = World::new();
    let tables = world.first_stage(3);
    world.set_device(DEVICE, Dc::bare().first(tables, PSCID).control(|tc| tc.set_first_stage_update(true)));
    let slot = world.map(tables, IOVA, leaf(PAGE).with_accessed(false), 12);
    let walk = world.begin(request());
    let mut answer = None;
    let (pa, old, new) = loop {
        match world.unit.advance(walk, answer.take(), &mut Plain) {
            Progress::Fetch { pa, bytes, .. } => answer = Some(world.memory.fetch(pa, bytes)),
            Progress::Update { pa, old, new, .. } => break (pa, old, new),
            Progress::Lookup { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((pa, old, new), (slot, leaf(PAGE).with_accessed(false).into_bits(), leaf(PAGE).into_bits()));
    world.memory.write(slot, 0);
    let found = world.memory.compare_exchange(pa, old, new);
    assert!(matches!(world.unit.advance(walk, Some(found), &mut Plain), Progress::Fault(_)));
    assert_eq!(world.memory.read(slot), 0);
    // Changed to another page instead, that one is used.
    world.memory.write(slot, leaf(PAGE).with_accessed(false).into_bits());
    let walk = world.begin(request());
    let mut answer = None;
    loop {
        match world.unit.advance(walk, answer.take(), &mut Plain) {
            Progress::Fetch { pa, bytes, .. } => answer = Some(world.memory.fetch(pa, bytes)),
            Progress::Update { pa, old, new, .. } => {
                world.memory.write(slot, leaf(NEW).into_bits());
                answer = Some(world.memory.compare_exchange(pa, old, new));
            }
            Progress::Lookup { .. } => {}
            Progress::Done(translation) => break assert_eq!(translation.pa, NEW),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_walk_gives_up_on_an_entry_that_never_stands_still() {
    let mut world = World::new();
    let tables = world.first_stage(3);
    world.set_device(DEVICE, Dc::bare().first(tables, PSCID).control(|tc| tc.set_first_stage_update(true)));
    let slot = world.map(tables, IOVA, leaf(PAGE).with_accessed(false), 12);
    let walk = world.begin(request());
    let (mut answer, mut n) = (None, 0);
    let cause = loop {
        match world.unit.advance(walk, answer.take(), &mut Plain) {
            Progress::Fetch { pa, bytes, .. } => answer = Some(world.memory.fetch(pa, bytes)),
            Progress::Update { .. } => {
                n += 1;
                answer = Some(Fetched::word(leaf(Pa(n << 12)).with_accessed(false).into_bits()));
            }
            Progress::Lookup { .. } => {}
            Progress::Fault(fault) => break fault.reason.code(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((cause, n), (272, 16));
    assert!(!PageTableEntry::from_bits(world.memory.read(slot)).accessed());
}

#[test]
fn a_fence_without_pw_says_done_before_an_older_write_has_landed() {
    let (mut world, ..) = World::mapped_first(3);
    let flight = world.write_to(IOVA).translation().pa;
    let drains = |world: &mut World, writes| {
        world.submit(&[commands::vma(None, None, None).into_bits(), commands::fence(None).with_writes(writes).into_bits()]);
        world.run().iter().any(|progress| matches!(progress, CommandProgress::Drain { writes: true, .. }))
    };
    assert!(!drains(&mut world, false), "the write to {flight} may still be on its way");
    assert!(drains(&mut world, true));
}

#[test]
fn the_caches_outlive_off_and_bare() {
    let (mut world, _, slot) = World::mapped_first(3);
    world.where_is(IOVA);
    let ddtp = world.unit.read_register(iommu_model::riscv::Register::Ddtp);
    for mode in [0, 1] {
        world.write(iommu_model::riscv::Register::Ddtp, ddtp & !0xf | mode);
        world.unit.register_drained();
    }
    world.memory.write(slot, leaf(NEW).into_bits());
    world.write(iommu_model::riscv::Register::Ddtp, ddtp);
    world.unit.register_drained();
    assert_eq!(world.where_is(IOVA), PAGE);
}
