//! What each invalidation must remove, and what may stay.

use super::support::bench::{ASID, Bench, GUEST_PAGE, IOVA, OTHER_PAGE, PAGE, STREAM, VMID};
use super::support::tables::{commands, page_1, page_2};
use iommu_model::Iova;
use iommu_model::smmu::{Asid, CommandProgress, StreamId, Vmid};

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
