//! What each invalidation must remove, and what may stay.

use super::support::Scripted;
use super::support::bench::{ASID, Bench, GUEST_PAGE, IOVA, OTHER_PAGE, PAGE, STREAM, VMID};
use super::support::tables::{commands, page_1, page_2, stream_1};
use iommu_model::smmu::{Asid, Capabilities, CommandProgress, Params, Register, StreamId, Vmid};
use iommu_model::spec::smmu::register::Control0;
use iommu_model::spec::smmu::stream::StreamLevel1;
use iommu_model::{Iova, Pa, Question};

/// Every TLB command against one cached stage-1 page whose leaf has changed: `true` must show the new page.
#[test]
fn each_tlb_command_removes_stage_1_pages_of_its_scope_only() {
    let other_page = IOVA.offset(4096);
    let cases: [(u128, bool); 13] = [
        (commands::nh_va(VMID, ASID, IOVA, true).into_bits(), true),
        (commands::nh_va(VMID, ASID, IOVA, false).into_bits(), true),
        (commands::nh_va(VMID, ASID, other_page, true).into_bits(), false),
        (commands::nh_va(VMID, Asid(6), IOVA, true).into_bits(), false),
        (commands::nh_va(Vmid(8), ASID, IOVA, true).into_bits(), false),
        (commands::nh_vaa(VMID, IOVA, true), true),
        (commands::nh_vaa(VMID, other_page, true), false),
        (commands::nh_asid(VMID, ASID), true),
        (commands::nh_asid(VMID, Asid(6)), false),
        (commands::nh_all(VMID), true),
        (commands::s12_vmall(VMID), true),
        (commands::s12_vmall(Vmid(8)), false),
        (commands::nsnh_all(), true),
    ];
    for (n, (command, removed)) in cases.into_iter().enumerate() {
        let (mut bench, leaf) = Bench::mapped_1();
        bench.read(IOVA);
        bench.memory.write(leaf, page_1(OTHER_PAGE).into_bits());
        assert_eq!(bench.read(IOVA).translation().pa, PAGE, "stale");
        bench.invalidate(&[command]);
        assert_eq!(bench.read(IOVA).translation().pa, if removed { OTHER_PAGE } else { PAGE }, "case {n}");
    }
}

#[test]
fn an_invalidation_by_ipa_serves_stage_2_streams() {
    for (ipa, removed) in [(IOVA, true), (IOVA.offset(4096), false)] {
        let (mut bench, leaf) = Bench::mapped_2();
        bench.read(IOVA);
        bench.memory.write(leaf, page_2(OTHER_PAGE).into_bits());
        bench.invalidate(&[commands::s2_ipa(VMID, ipa, true)]);
        assert_eq!(bench.read(IOVA).translation().pa, if removed { OTHER_PAGE } else { PAGE });
    }
}

/// A combined translation is one of a virtual address: by IPA it need not go.
#[test]
fn a_combined_translation_outlives_an_invalidation_by_ipa() {
    let (mut bench, _, leaf_2) = Bench::mapped_nested();
    bench.read(IOVA);
    bench.memory.write(leaf_2, page_2(OTHER_PAGE).into_bits());
    bench.invalidate(&[commands::s2_ipa(VMID, Iova(GUEST_PAGE.0), true)]);
    assert_eq!(bench.read(IOVA).translation().pa, PAGE, "it may stay");
    bench.invalidate(&[commands::nh_va(VMID, ASID, IOVA, true).into_bits()]);
    assert_eq!(bench.read(IOVA).translation().pa, OTHER_PAGE);
}

/// The other way round: without the command by IPA, stage 2 is found in its own entries.
#[test]
fn an_invalidation_by_va_leaves_what_stage_2_cached() {
    let (mut bench, _, leaf_2) = Bench::mapped_nested();
    bench.read(IOVA);
    bench.memory.write(leaf_2, page_2(OTHER_PAGE).into_bits());
    bench.invalidate(&[commands::nh_all(VMID)]);
    assert_eq!(bench.read(IOVA).translation().pa, PAGE);
    bench.invalidate(&[commands::s2_ipa(VMID, Iova(GUEST_PAGE.0), true), commands::nh_all(VMID)]);
    assert_eq!(bench.read(IOVA).translation().pa, OTHER_PAGE);
}

#[test]
fn each_configuration_command_removes_streams_of_its_scope_only() {
    let other = StreamId(STREAM.0 ^ 1);
    let cases: [(u128, bool); 7] = [
        (commands::cfgi_ste(STREAM, true), true),
        (commands::cfgi_ste(other, false), false),
        (commands::cfgi_range(other, 0), true),
        (commands::cfgi_range(StreamId(STREAM.0 + 2), 0), false),
        (commands::cfgi_all(), true),
        (commands::cfgi_cd_all(STREAM), false),
        (commands::nsnh_all(), false),
    ];
    for (n, (command, removed)) in cases.into_iter().enumerate() {
        let (mut bench, _) = Bench::mapped_1();
        bench.read(IOVA);
        bench.set_stream(STREAM, [0; 4]);
        let done = bench.invalidate(&[command]);
        assert!(matches!(done[0], CommandProgress::Consumed { done: Some(_), .. }));
        let ended = bench.read(IOVA);
        assert_eq!(matches!(ended.progress, iommu_model::Progress::Fault(_)), removed, "case {n}");
    }
}

/// A range of (NUM + 1) x 2^SCALE granules from the address on.
#[test]
fn a_range_covers_what_num_and_scale_say() {
    for (number, scale, pages) in [(0u8, 0u8, 1u64), (0, 2, 4), (2, 0, 3), (4, 1, 10), (31, 63, 64)] {
        let mut bench = Bench::new();
        let (_, stage) = bench.attach_1();
        for n in 0..20 {
            bench.map(stage, IOVA.0 + n * 4096, 3, page_1(PAGE).into_bits());
            bench.read(IOVA.offset(n * 4096));
        }
        let range = commands::nh_va(VMID, ASID, IOVA, true).with_granule(1).with_level(3).with_number(number).with_scale(scale);
        bench.invalidate(&[range.into_bits()]);
        assert_eq!(bench.unit.caches().tlb().count() as u64, 20 - pages.min(20), "{number} {scale}");
    }
}

#[test]
fn a_block_goes_with_any_address_in_it() {
    let mut bench = Bench::new();
    let (_, stage) = bench.attach_1();
    bench.map(stage, IOVA.0, 2, page_1(Pa(0x4000_0000)).with_page(false).into_bits());
    bench.read(IOVA);
    let inside = Iova((IOVA.0 & !0x1f_ffff) | 0x3000);
    bench.invalidate(&[commands::nh_va(VMID, ASID, inside, true).into_bits()]);
    assert_eq!(bench.unit.caches().tlb().count(), 0);
}

#[test]
fn a_hint_of_another_level_or_granule_need_not_reach_an_entry() {
    let hint = commands::nh_va(VMID, ASID, IOVA, true);
    for (command, hinted) in [
        (hint.with_granule(1).with_level(3), false),
        (hint.with_granule(1).with_level(2), true),
        (hint.with_granule(3).with_level(3), true),
        (hint, false),
    ] {
        for dropped in [0, 1] {
            let (mut bench, _) = Bench::mapped_1();
            bench.read(IOVA);
            let mut d = Scripted::new(|q| matches!(q, Question::KeepOtherLevel), dropped);
            bench.invalidate_with(&[command.into_bits()], &mut d);
            assert_eq!(d.asked, u32::from(hinted));
            assert_eq!(bench.unit.caches().tlb().count() == 0, !hinted || dropped == 1);
        }
    }
}

/// What the hardware may do beyond the command: one step wider, or everything.
#[test]
fn the_unit_may_do_more_than_it_must() {
    let far = Iova(IOVA.0 + (1 << 40));
    for (answer, left) in [(0, 2), (1, 1), (2, 0)] {
        let mut bench = Bench::new();
        let (context, stage) = bench.attach_1();
        bench.map(stage, IOVA.0, 3, page_1(PAGE).into_bits());
        bench.read(IOVA);
        // Another VMID with the same tables.
        let mut words = stream_1(context);
        words[2] = 8;
        bench.set_stream(STREAM, words);
        bench.invalidate(&[commands::cfgi_ste(STREAM, true)]);
        bench.read(IOVA);
        assert_eq!(bench.unit.caches().tlb().count(), 2);
        let mut d = Scripted::new(|q| matches!(q, Question::OverInvalidate { .. }), answer);
        bench.invalidate_with(&[commands::nh_va(VMID, ASID, far, true).into_bits()], &mut d);
        assert_eq!(bench.unit.caches().tlb().count(), left, "answer {answer}");
    }
}

#[test]
fn combined_translations_and_table_descriptors_go_if_the_unit_chooses_so() {
    let (mut bench, _, _) = Bench::mapped_nested();
    bench.read(IOVA);
    let mut d = Scripted::new(|q| matches!(q, Question::KeepCombined), 1);
    bench.invalidate_with(&[commands::s2_ipa(VMID, Iova(GUEST_PAGE.0), true)], &mut d);
    assert!(d.asked > 0 && bench.unit.caches().tlb().all(|entry| !entry.combined));
    let (mut bench, _) = Bench::mapped_1();
    bench.read(IOVA);
    let mut d = Scripted::new(|q| matches!(q, Question::KeepNonLeaf), 1);
    bench.invalidate_with(&[commands::nh_va(VMID, ASID, IOVA, true).into_bits()], &mut d);
    assert_eq!((d.asked, bench.unit.caches().walks().count()), (1, 0));
}

#[test]
fn commands_by_asid_spare_global_pages_and_commands_by_address_do_not() {
    for (command, removed) in [
        (commands::nh_asid(VMID, ASID), false),
        (commands::nh_va(VMID, Asid(6), IOVA, true).into_bits(), true),
        (commands::nh_va(Vmid(8), ASID, IOVA, true).into_bits(), false),
        (commands::nh_vaa(VMID, IOVA, true), true),
    ] {
        let mut bench = Bench::new();
        let (_, stage) = bench.attach_1();
        bench.map(stage, IOVA.0, 3, page_1(PAGE).with_not_global(false).into_bits());
        bench.read(IOVA);
        bench.invalidate(&[command]);
        assert_eq!(bench.unit.caches().tlb().count() == 0, removed, "{command:#x}");
    }
}

/// Without stage 2 there are no VMIDs: the field is reserved, and whatever it holds names the only space.
#[test]
fn a_unit_without_stage_2_ignores_the_vmid() {
    let cap = Capabilities { stage_2: false, ..Capabilities::default() };
    let mut bench = Bench::with(cap, Params::default());
    let (_, stage) = bench.attach_1();
    bench.map(stage, IOVA.0, 3, page_1(PAGE).into_bits());
    bench.read(IOVA);
    bench.invalidate(&[commands::nh_asid(Vmid(99), ASID)]);
    assert_eq!(bench.unit.caches().tlb().count(), 0);
}

#[test]
fn leaf_spares_level_1_stream_descriptors() {
    for (leaf, stays) in [(true, true), (false, false)] {
        let (mut bench, _) = Bench::mapped_1();
        bench.control(Control0::new());
        bench.unit.write_register(Register::StrtabBaseCfg, 0x1_0210);
        bench.unit.write_register(Register::StrtabBase, 0x400_0000);
        let entry = StreamLevel1::new().with_span(9).with_table(Bench::stream_pa(StreamId(0)).0 >> 6);
        bench.memory.write(Pa(0x400_0000), entry.into_bits());
        bench.control(Control0::new().with_enable(true).with_event_queue(true).with_command_queue(true));
        assert_eq!(bench.read(IOVA).translation().pa, PAGE);
        assert_eq!(bench.unit.caches().level_1().count(), 1);
        bench.invalidate(&[commands::cfgi_ste(STREAM, leaf)]);
        assert_eq!(bench.unit.caches().level_1().count() == 1, stays);
    }
}
