//! HTTU: the access flag and the dirty state are set by one atomic compare-exchange each, which never resurrects anything.

use super::support::bench::{ASID, Bench, GUEST, GUEST_PAGE, IOVA, PAGE, STREAM, VMID};
use super::support::tables::{commands, context_0, context_table, page_1, page_2, stage_2_words, stream_nested};
use iommu_model::smmu::{Capabilities, HardwareUpdate, Params};
use iommu_model::spec::smmu::descriptor::{Stage1Leaf, Stage2Leaf};
use iommu_model::spec::smmu::event::{EventId, FaultClass};
use iommu_model::{Access, FetchKind, Fetched, Pa, Plain, Progress};

/// Stage 1 with HA and HD, and a writable-clean page that was not accessed. Returns where its leaf lies.
fn clean_1() -> (Bench, Pa) {
    let mut bench = Bench::new();
    let (context, stage) = bench.attach_1();
    bench.memory.write(context, context_0(ASID, 48).with_hardware_access(true).with_hardware_dirty(true).into_bits());
    let leaf = page_1(PAGE).with_accessed(false).with_read_only(true).with_dirty_bit_modifier(true);
    let slot = bench.map(stage, IOVA.0, 3, leaf.into_bits());
    (bench, slot)
}

#[test]
fn a_read_sets_the_access_flag_and_a_write_the_dirty_state() {
    let (mut bench, slot) = clean_1();
    let ended = bench.read(IOVA);
    assert_eq!(ended.updated, [slot]);
    let leaf = Stage1Leaf::from_bits(bench.memory.read(slot));
    assert!(leaf.accessed() && leaf.read_only());
    assert!(bench.read(IOVA).fetched.is_empty(), "cached");
    assert_eq!(ended.provenance.last().map(|source| source.value), Some(leaf.into_bits()), "as it was stored");
    // The cached entry is clean: a write walks again and makes the leaf dirty, once.
    assert_eq!(bench.write(IOVA).updated, [slot]);
    assert!(!Stage1Leaf::from_bits(bench.memory.read(slot)).read_only());
    assert!(bench.write(IOVA).fetched.is_empty());
}

#[test]
fn a_first_write_sets_both_with_one_update() {
    let (mut bench, slot) = clean_1();
    assert_eq!(bench.write(IOVA).updated, [slot]);
    let leaf = Stage1Leaf::from_bits(bench.memory.read(slot));
    assert!(leaf.accessed() && !leaf.read_only() && leaf.dirty_bit_modifier(), "DBM stays");
}

/// Race 9: the leaf is cleared between fetch and update.
#[test]
fn race_9_an_update_never_resurrects_a_cleared_leaf() {
    let (mut bench, slot) = clean_1();
    let walk = bench.begin(IOVA, Access::Write);
    let (pa, bytes) = bench.run_to_fetch(walk, FetchKind::Stage1 { level: 3 });
    let read = bench.memory.fetch(pa, bytes);
    let Progress::Update { pa, old, new, .. } = bench.unit.advance(walk, Some(read), &mut Plain) else { panic!("no update") };
    assert_eq!(pa, slot);
    bench.memory.write(slot, 0);
    let found = bench.memory.compare_exchange(pa, old, new);
    let end = bench.unit.advance(walk, Some(found), &mut Plain);
    assert!(matches!(end, Progress::Fault(fault) if fault.reason.code() == u16::from(EventId::TRANSLATION.0)), "{end:?}");
    assert_eq!(bench.memory.read(slot), 0);
}

#[test]
fn an_update_that_finds_another_leaf_goes_on_with_that_one() {
    let (mut bench, slot) = clean_1();
    let walk = bench.begin(IOVA, Access::Read);
    let (pa, bytes) = bench.run_to_fetch(walk, FetchKind::Stage1 { level: 3 });
    let read = bench.memory.fetch(pa, bytes);
    let Progress::Update { pa, old, new, .. } = bench.unit.advance(walk, Some(read), &mut Plain) else { panic!("no update") };
    bench.memory.write(slot, page_1(Pa(0x9_9000)).into_bits());
    let found = bench.memory.compare_exchange(pa, old, new);
    let Progress::Done(translation) = bench.unit.advance(walk, Some(found), &mut Plain) else { panic!("no end") };
    assert_eq!(translation.pa, Pa(0x9_9000));
}

#[test]
fn whoever_changes_the_leaf_all_the_time_cannot_keep_a_walk_for_ever() {
    let (mut bench, _) = clean_1();
    let walk = bench.begin(IOVA, Access::Read);
    let (pa, bytes) = bench.run_to_fetch(walk, FetchKind::Stage1 { level: 3 });
    let mut answer = bench.memory.fetch(pa, bytes);
    for n in 0..64u64 {
        match bench.unit.advance(walk, Some(answer), &mut Plain) {
            Progress::Update { old, .. } => answer = Fetched::word(Stage1Leaf::from_bits(old).with_software((n + 1) as u16).into_bits()),
            Progress::Fault(fault) => {
                assert_eq!(fault.reason.code(), u16::from(EventId::WALK_ABORT.0));
                return;
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("a walk without end");
}

#[test]
fn stage_2_maintains_its_own_flags() {
    let mut bench = Bench::new();
    let stage = bench.attach_2();
    let (entry, _) = stage_2_words(VMID, stage.root);
    let words = entry.with_hardware_access(true).with_hardware_dirty(true).into_bits();
    bench.memory.write(Bench::stream_pa(STREAM).offset(16), words);
    let leaf = page_2(PAGE).with_accessed(false).with_writable(false).with_dirty_bit_modifier(true);
    let slot = bench.map(stage, IOVA.0, 3, leaf.into_bits());
    assert_eq!(bench.read(IOVA).updated, [slot]);
    assert!(!Stage2Leaf::from_bits(bench.memory.read(slot)).writable());
    assert_eq!(bench.write(IOVA).updated, [slot]);
    assert!(Stage2Leaf::from_bits(bench.memory.read(slot)).writable());
}

/// The stage-1 update is a write through stage 2, which dirties the stage-2 page of the table, or is refused.
#[test]
fn a_nested_update_needs_the_right_to_write_the_table() {
    for (clean, allowed) in [(false, false), (true, true)] {
        let (mut bench, first, second) = Bench::nested(Capabilities::default(), Params::default());
        let leaf = page_1(GUEST_PAGE).with_accessed(false);
        let slot = bench.map_above(first, IOVA.0, 3, leaf.into_bits(), GUEST);
        bench.map(second, GUEST_PAGE.0, 3, page_2(PAGE).into_bits());
        // The block of all tables is read-only, or writable-clean.
        let block = page_2(Pa(0)).with_page(false).with_writable(false).with_dirty_bit_modifier(clean);
        let block_slot = bench.map(second, GUEST, 1, block.into_bits());
        let context = Pa(0x300_2000);
        assert_eq!(bench.memory.read(context), context_0(ASID, 48).into_bits(), "the third frame holds the CD");
        bench.memory.write(context, context_0(ASID, 48).with_hardware_access(true).into_bits());
        let [a, b, _, e] = stream_nested(context.offset(GUEST), VMID, second.root);
        let (entry, _) = stage_2_words(VMID, second.root);
        let words = entry.with_hardware_access(true).with_hardware_dirty(true).into_bits();
        bench.set_stream(STREAM, [a, b, words, e]);
        let ended = bench.read(IOVA);
        if allowed {
            assert_eq!(ended.updated, [block_slot, slot]);
            assert!(Stage2Leaf::from_bits(bench.memory.read(block_slot)).writable());
            assert!(Stage1Leaf::from_bits(bench.memory.read(slot)).accessed());
            assert_eq!(ended.translation().pa, PAGE);
            // Each word once, the leaf as it was stored.
            let leaves: Vec<_> = ended.provenance.iter().filter(|source| source.pa == slot).collect();
            assert!(matches!(leaves[..], [leaf] if leaf.value == bench.memory.read(slot)), "{leaves:?}");
        } else {
            let why = ended.why();
            assert_eq!((why.event, why.stage_2, why.class), (EventId::PERMISSION, true, FaultClass::Table));
            let record = bench.events()[0];
            assert_eq!(record[1] >> 44 & 1, 0, "TTRnW: the write was refused");
            assert_eq!(record[3], (slot.0 + GUEST) & !0xfff, "the IPA of the table");
        }
    }
}

#[test]
fn flags_that_the_unit_cannot_maintain_make_the_configuration_illegal() {
    for (update, access, dirty, legal) in [
        (HardwareUpdate::None, true, false, false),
        (HardwareUpdate::None, false, false, true),
        (HardwareUpdate::Access, true, false, true),
        (HardwareUpdate::Access, true, true, false),
        (HardwareUpdate::AccessAndDirty, true, true, true),
    ] {
        let mut bench = Bench::with(Capabilities { hardware_update: update, ..Capabilities::default() }, Params::default());
        let (context, stage) = bench.attach_1();
        bench.map(stage, IOVA.0, 3, page_1(PAGE).into_bits());
        let entry = context_0(ASID, 48).with_hardware_access(access).with_hardware_dirty(dirty);
        bench.set_words(context, &[entry.into_bits(), context_table(stage.root).into_bits(), 0]);
        let ended = bench.read(IOVA);
        assert_eq!(matches!(ended.progress, Progress::Done(_)), legal, "{update:?} {access} {dirty}");
        if !legal {
            assert_eq!(ended.event(), EventId::BAD_CONTEXT);
        }
        bench.invalidate(&[commands::cfgi_all()]);
    }
}

#[test]
fn affd_takes_pages_that_were_not_accessed() {
    let mut bench = Bench::new();
    let (context, stage) = bench.attach_1();
    bench.map(stage, IOVA.0, 3, page_1(PAGE).with_accessed(false).into_bits());
    bench.memory.write(context, context_0(ASID, 48).with_access_flag_fault_disable(true).into_bits());
    let ended = bench.read(IOVA);
    assert_eq!((ended.translation().pa, ended.updated.len()), (PAGE, 0));
}
