//! The rules that the specification states outright, one a test.

use crate::support::world::GUEST;
use crate::support::{DEVICE, Dc, GSCID, IOVA, PAGE, PSCID, Scripted, World, commands, leaf, pointer};
use iommu_model::riscv::{Capabilities, CommandProgress, Space, Transaction};
use iommu_model::spec::riscv::device_context::MODE_PD17;
use iommu_model::spec::riscv::paging::PageTableEntry;
use iommu_model::{Access, Iova, Pa, Params, Pasid, Progress, Question};

const NEW: Pa = Pa(0x9_9000);

/// "Caching in-memory data structures": an entry whose V is 0 may not be cached, whichever of the six kinds it is.
#[test]
fn nothing_whose_v_is_clear_is_ever_cached() {
    // Non-leaf DDT entry, device context.
    let mut world = World::with(Capabilities::default(), Params::default(), 2);
    world.read(IOVA).fault();
    assert!(world.unit.caches().is_empty(), "non-leaf DDT entry");
    let pa = world.context_pa(DEVICE);
    world.read(IOVA).fault();
    assert_eq!(world.unit.caches().devices().count(), 0, "device context");
    // Non-leaf PDT entry, process context.
    let (root, table, tables) = (world.frames(1), world.frames(1), world.first_stage(3));
    world.set_device(DEVICE, Dc::bare().directory(root, MODE_PD17));
    let request = Transaction { process: Some(Pasid(5)), ..Transaction::new(DEVICE, IOVA, Access::Read) };
    world.send(request).fault();
    assert_eq!(world.unit.caches().process_nodes().count(), 0, "non-leaf PDT entry");
    world.memory.write(root, table.pfn().0 << 10 | 1);
    world.send(request).fault();
    assert_eq!(world.unit.caches().processes().count(), 0, "process context");
    // First-stage entries of every level.
    world.memory.write(table.offset(5 * 16), 1);
    world.memory.write(table.offset(5 * 16 + 8), pointer(tables).into_bits());
    for level in (1..=3u8).rev() {
        world.send(request).fault();
        let cached = world.unit.caches().walk().count();
        assert_eq!(cached, usize::from(3 - level), "first-stage entry of level {level}");
        assert_eq!(world.unit.caches().iotlb().count(), 0);
        tables.slot(&mut world.memory, &mut world.next, IOVA.0, level.max(2) - 1);
    }
    assert!(pa.0 != 0);
    // Second-stage entries, MSI entries.
    let (mut world, _, slot) = World::mapped_second(3);
    world.memory.write(slot, 0);
    world.read(IOVA).fault();
    assert_eq!(world.unit.caches().iotlb().count(), 0, "second-stage entry");
    let mut dc = Dc::bare().second(world.second_stage(3), GSCID);
    dc.msiptp = dc.msiptp.with_mode(1).with_ppn(0x42);
    dc.pattern = IOVA.page_number();
    world.set_device(DEVICE, dc);
    world.command(commands::inval_ddt(None).into_bits());
    world.write_to(IOVA).fault();
    assert_eq!(world.unit.caches().iotlb().count(), 0, "MSI entry");
}

/// The same section: stores do not reach the caches. Until the command that names it, each kind of entry is used as it
/// was read; after it, as it is.
#[test]
fn caches_do_not_snoop_first_and_second_stage_entries() {
    let (mut world, _, slot) = World::mapped_first(4);
    world.where_is(IOVA);
    world.memory.write(slot, leaf(NEW).into_bits());
    assert_eq!(world.where_is(IOVA), PAGE);
    world.command(commands::vma(None, Some(PSCID), Some(IOVA)).into_bits());
    assert_eq!(world.where_is(IOVA), NEW);
    let (mut world, _, slot) = World::mapped_second(4);
    world.where_is(IOVA);
    world.memory.write(slot, leaf(NEW).into_bits());
    assert_eq!(world.where_is(IOVA), PAGE);
    world.command(commands::gvma(Some(GSCID), Some(IOVA)).into_bits());
    assert_eq!(world.where_is(IOVA), NEW);
}

/// "Updating in-memory data structure entries": after a change either value may be used; both happen, by choice, and
/// nothing else.
#[test]
fn a_changed_entry_is_used_as_it_was_or_as_it_is_and_in_no_other_way() {
    for (drop_it, expected) in [(false, PAGE), (true, NEW)] {
        let (mut world, _, slot) = World::mapped_first(3);
        world.where_is(IOVA);
        world.memory.write(slot, leaf(NEW).into_bits());
        while drop_it && world.unit.drop_cached(0) {}
        assert_eq!(world.where_is(IOVA), expected);
    }
}

/// Note to the IOTINVAL commands: what was valid at some time since the last command that covers the address may be used,
/// and nothing older.
#[test]
fn a_translation_is_one_that_was_valid_since_the_last_invalidation() {
    let (mut world, _, slot) = World::mapped_first(3);
    let mut valid = vec![PAGE];
    let mut state = 1u64;
    for _ in 0..2000 {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let page = Pa((state >> 40 & 0xff) << 12);
        match state >> 60 {
            0..4 => {
                world.memory.write(slot, leaf(page).into_bits());
                valid.push(page);
            }
            4..6 => {
                world.command(commands::vma(None, Some(PSCID), Some(IOVA)).into_bits());
                valid = vec![Pa(PageTableEntry::from_bits(world.memory.read(slot)).ppn() << 12)];
            }
            6..8 => {
                world.unit.drop_cached((state >> 20 & 7) as usize);
            }
            _ => {
                let got = world.where_is(IOVA);
                assert!(valid.contains(&got), "{got} is none of {valid:?}");
            }
        }
    }
}

/// The same note: with a leaf put over a table, either of both entries may be used, and each as it stands.
#[test]
fn a_page_promoted_without_a_break_is_translated_by_either_entry() {
    let (mut world, tables, _) = World::mapped_first(3);
    let first = Iova(IOVA.0 >> 21 << 21);
    world.where_is(IOVA);
    world.map(tables, first, leaf(Pa(0x60_0000)), 21);
    let elsewhere = Iova(first.0 + 0x1000);
    world.map(tables, Iova(1 << 30), leaf(PAGE), 12);
    // The old pointer leads to what is not mapped; the new leaf covers everything.
    assert!(matches!(world.read(elsewhere).progress, Progress::Fault(_)));
    let mut ignore = Scripted::new(|question| matches!(question, Question::UsePsc { .. }), 1);
    let ended = world.send_with(Transaction::new(DEVICE, elsewhere, Access::Read), &mut ignore);
    assert_eq!(ended.translation().pa, Pa(0x60_1000));
    // Two entries now match the old page; which one is a choice.
    for (answer, expected) in [(0, PAGE), (1, Pa(0x60_3000))] {
        let mut choose = Scripted::new(|question| matches!(question, Question::ChooseIotlb { ways: 2 }), answer);
        let ended = world.send_with(Transaction::new(DEVICE, IOVA, Access::Read), &mut choose);
        assert_eq!((choose.asked, ended.translation().pa), (1, expected));
    }
    world.command(commands::vma(None, Some(PSCID), None).into_bits());
    assert_eq!(world.where_is(IOVA), Pa(0x60_3000));
}

/// A and D that software clears: a cached entry needs no look at them, so that without an invalidation they stay clear.
#[test]
fn a_cleared_dirty_bit_is_set_again_only_after_an_invalidation() {
    let mut world = World::new();
    let tables = world.first_stage(3);
    world.set_device(DEVICE, Dc::bare().first(tables, PSCID).control(|tc| tc.set_first_stage_update(true)));
    let slot = world.map(tables, IOVA, leaf(PAGE).with_dirty(false), 12);
    assert_eq!(world.write_to(IOVA).updated, [slot]);
    let dirty = |world: &World| PageTableEntry::from_bits(world.memory.read(slot)).dirty();
    assert!(dirty(&world));
    world.memory.write(slot, leaf(PAGE).with_dirty(false).into_bits());
    world.write_to(IOVA).translation();
    assert!(!dirty(&world), "a write went by unseen");
    world.command(commands::vma(None, Some(PSCID), Some(IOVA)).into_bits());
    world.write_to(IOVA).translation();
    assert!(dirty(&world));
}

/// The recipe that "Software guidelines" gives for the change of a device context; less is not enough.
#[test]
fn a_changed_device_context_needs_inval_ddt_and_the_translations_of_its_ids() {
    let (mut world, ..) = World::mapped_first(3);
    world.where_is(IOVA);
    let other = world.first_stage(3);
    world.map(other, IOVA, leaf(NEW), 12);
    world.map(other, Iova(IOVA.0 + 0x1000), leaf(NEW), 12);
    world.set_device(DEVICE, Dc::bare().first(other, PSCID));
    world.command(commands::vma(None, None, None).into_bits());
    assert_eq!(world.where_is(IOVA), PAGE, "IOTINVAL has no effect on the directory caches");
    world.command(commands::inval_ddt(Some(DEVICE)).into_bits());
    assert_eq!(world.where_is(IOVA), PAGE, "IODIR has none on translations");
    world.command(commands::vma(None, Some(PSCID), None).into_bits());
    assert_eq!(world.where_is(IOVA), NEW);
}

#[test]
fn a_changed_process_context_needs_inval_pdt_and_the_translations_of_its_pscid() {
    let mut world = World::new();
    let (old, new, root) = (world.first_stage(3), world.first_stage(3), world.frames(1));
    world.map(old, IOVA, leaf(PAGE), 12);
    world.map(new, IOVA, leaf(NEW), 12);
    world.set_device(DEVICE, Dc::bare().directory(root, 1));
    let request = Transaction { process: Some(Pasid(5)), ..Transaction::new(DEVICE, IOVA, Access::Read) };
    let set = |world: &mut World, tables| {
        world.memory.write(root.offset(5 * 16), 1 | u64::from(PSCID.0) << 12);
        world.memory.write(root.offset(5 * 16 + 8), pointer(tables).into_bits());
    };
    set(&mut world, old);
    assert_eq!(world.send(request).translation().pa, PAGE);
    set(&mut world, new);
    world.command(commands::vma(None, Some(PSCID), None).into_bits());
    assert_eq!(world.send(request).translation().pa, PAGE, "the old context fills the caches again");
    world.command(commands::inval_pdt(DEVICE, Pasid(5)).into_bits());
    world.command(commands::vma(None, Some(PSCID), None).into_bits());
    assert_eq!(world.send(request).translation().pa, NEW);
}

/// IOTINVAL.VMA by address names leaves: a changed non-leaf entry needs AV = 0, or NL.
#[test]
fn a_changed_pointer_needs_an_invalidation_without_address_or_with_nl() {
    for (bits, expected) in [
        (commands::vma(None, Some(PSCID), Some(IOVA)), PAGE),
        (commands::vma(None, Some(PSCID), Some(IOVA)).with_non_leaf(true), NEW),
        (commands::vma(None, Some(PSCID), None), NEW),
    ] {
        let (mut world, tables, _) = World::mapped_first(3);
        world.where_is(IOVA);
        let pointer = tables.slot(&mut world.memory, &mut world.next, IOVA.0, 2);
        let fresh = world.frames(1);
        world.memory.write(fresh.offset((IOVA.0 >> 12 & 511) * 8), leaf(NEW).into_bits());
        world.memory.write(pointer, PageTableEntry::new().with_valid(true).with_ppn(fresh.pfn().0).into_bits());
        world.command(bits.into_bits());
        assert_eq!(world.where_is(IOVA), expected);
    }
}

/// "IOMMU Command-queue Fence commands": a fence is complete after everything before it, with PR and PW also after the
/// requests that were translated before it.
#[test]
fn a_fence_drains_what_it_is_asked_to_before_it_stores() {
    let (mut world, ..) = World::mapped_first(3);
    world.where_is(IOVA);
    let store = Some((Pa(0x3000), 0xc0de));
    for (reads, writes) in [(false, false), (true, false), (false, true), (true, true)] {
        world.memory.write(Pa(0x3000), 0);
        let fence = commands::fence(store).with_reads(reads).with_writes(writes);
        world.submit(&[commands::vma(None, None, None).into_bits(), fence.into_bits()]);
        let said = world.run();
        let place = |found: fn(&CommandProgress) -> bool| said.iter().position(found);
        let removed = place(|progress| matches!(progress, CommandProgress::Invalidated { .. })).expect("carried out");
        let drained = said.iter().find_map(|progress| match progress {
            CommandProgress::Drain { reads, writes, .. } => Some((*reads, *writes)),
            _ => None,
        });
        let stored = place(|progress| matches!(progress, CommandProgress::Write { .. })).expect("stored");
        assert_eq!(drained, (reads || writes).then_some((reads, writes)));
        assert!(removed < stored && matches!(said[stored + 1], CommandProgress::Fenced { .. }), "{said:?}");
        assert_eq!(world.memory.read(Pa(0x3000)), 0xc0de);
    }
}

/// Table "Identifiers used to tag IOATC entries".
#[test]
fn translations_are_tagged_as_the_specification_lists() {
    let spaces = |world: &World| {
        let mut spaces: Vec<_> = world.unit.caches().iotlb().map(|entry| (entry.space, entry.page)).collect();
        spaces.sort();
        spaces
    };
    let (mut world, ..) = World::mapped_first(3);
    world.where_is(IOVA);
    assert_eq!(spaces(&world), [(Space::Host(PSCID), IOVA)]);
    let (mut world, ..) = World::mapped_second(3);
    world.where_is(IOVA);
    assert_eq!(spaces(&world), [(Space::GuestPhysical(GSCID), IOVA)]);
    let (mut world, ..) = World::mapped_nested(3);
    world.where_is(IOVA);
    let tables = Iova(GUEST + (world.directory.0 >> 21 << 21));
    let expected = [(Space::Guest(GSCID, PSCID), IOVA), (Space::GuestPhysical(GSCID), Iova(GUEST)), (Space::GuestPhysical(GSCID), tables)];
    assert_eq!(spaces(&world), expected);
}
