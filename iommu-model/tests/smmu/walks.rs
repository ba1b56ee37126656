//! Walks without faults and with: what is fetched, in which order, and how each field of a descriptor counts.

use super::support::bench::{ASID, Bench, GUEST, GUEST_PAGE, IOVA, OTHER_PAGE, PAGE, STREAM, VMID};
use super::support::tables::{context_0, context_table, page_1, page_2, pointer, shift_of, stage_2_words, stream_1};
use super::support::{DEVICE, Scripted};
use iommu_model::smmu::{Capabilities, Params};
use iommu_model::spec::smmu::context::Context0;
use iommu_model::spec::smmu::descriptor::{Stage1Leaf, Stage1Table, Stage2Leaf};
use iommu_model::spec::smmu::event::{EventId, FaultClass};
use iommu_model::spec::smmu::stream::{CONFIG_BYPASS, CONFIG_STAGE_2, StreamEntry0};
use iommu_model::{Access, CacheHit, FetchKind, Geometry, Iova, Pa, Question, Request};

const fn stage_1(level: u8) -> FetchKind {
    FetchKind::Stage1 { level }
}

const fn stage_2(level: u8) -> FetchKind {
    FetchKind::Stage2 { level }
}

#[test]
fn a_cold_stage_1_walk_fetches_ste_cd_and_four_levels() {
    let (mut bench, _) = Bench::mapped_1();
    let ended = bench.read(Iova(IOVA.0 | 0x123));
    assert_eq!(ended.translation().pa, Pa(PAGE.0 | 0x123));
    let kinds = [FetchKind::StreamEntry, FetchKind::ContextDescriptor, stage_1(0), stage_1(1), stage_1(2), stage_1(3)];
    assert_eq!(ended.fetched, kinds);
    assert_eq!(ended.provenance.len(), 4 + 3 + 4, "four words of the STE, three of the CD, one a level");
    let again = bench.read(IOVA);
    assert!(again.fetched.is_empty());
    assert_eq!((again.translation().from, again.translation().page_bytes), (CacheHit::Iotlb, 4096));
    assert_eq!(again.provenance, ended.provenance);
}

#[test]
fn a_neighbour_needs_its_leaf_only() {
    let mut bench = Bench::new();
    let (_, stage) = bench.attach_1();
    bench.map(stage, IOVA.0, 3, page_1(PAGE).into_bits());
    bench.map(stage, IOVA.0 + 4096, 3, page_1(OTHER_PAGE).into_bits());
    bench.read(IOVA);
    let next = bench.read(IOVA.offset(4096));
    assert_eq!((next.fetched, next.provenance.len()), (vec![stage_1(3)], 11));
}

#[test]
fn a_stage_2_walk_starts_where_sl0_says() {
    let (mut bench, _) = Bench::mapped_2();
    let ended = bench.read(IOVA);
    assert_eq!(ended.translation().pa, PAGE);
    assert_eq!(ended.fetched, [FetchKind::StreamEntry, stage_2(1), stage_2(2), stage_2(3)]);
    assert!(bench.write(IOVA).fetched.is_empty());
}

/// Every stage-1 address is an IPA: CD, four descriptors and the page go through stage 2 first.
#[test]
fn a_nested_walk_translates_every_address_of_stage_1() {
    let (mut bench, _, _) = Bench::mapped_nested();
    let ended = bench.read(Iova(IOVA.0 | 8));
    assert_eq!(ended.translation().pa, Pa(PAGE.0 | 8));
    // One block maps all tables, so that it is read once and then cached.
    let kinds = [
        FetchKind::StreamEntry,
        stage_2(1),
        FetchKind::ContextDescriptor,
        stage_1(0),
        stage_1(1),
        stage_1(2),
        stage_1(3),
        stage_2(1),
        stage_2(2),
        stage_2(3),
    ];
    assert_eq!(ended.fetched, kinds);
    assert!(bench.read(IOVA).fetched.is_empty());
}

/// Without any cache the count is that of the arithmetic: 5 x 4 stage-2 descriptors of pages, four of stage 1, and the CD.
#[test]
fn a_nested_walk_without_caches_fetches_what_the_levels_multiply_to() {
    let off = Geometry { sets: 1, ways: 0 };
    let params = Params { tlb: off, walk_1: [off; 3], walk_2: [off; 3], ..Params::default() };
    let (mut bench, first, second) = Bench::nested(Capabilities::default(), params);
    bench.map_above(first, IOVA.0, 3, page_1(GUEST_PAGE).into_bits(), GUEST);
    bench.map(second, GUEST_PAGE.0, 3, page_2(PAGE).into_bits());
    let ended = bench.read(IOVA);
    // CD and four descriptors lie in the block (one stage-2 fetch each), the page below three levels.
    assert_eq!(ended.fetched.iter().filter(|kind| matches!(kind, FetchKind::Stage2 { .. })).count(), 5 + 3);
    assert_eq!(ended.fetched.len(), 1 + 1 + 4 + 5 + 3);
    assert_eq!(ended.provenance.len(), 4 + 3 + 4 + 5 + 3);
    assert_eq!(ended.translation().fetches, 14);
}

#[test]
fn granules_and_blocks_of_both_stages_translate_as_their_arithmetic_says() {
    for (granule, coded, start, block) in [(12u32, 0u8, 0u8, 1u8), (12, 0, 0, 2), (14, 2, 0, 2), (16, 1, 1, 2)] {
        let mut bench = Bench::new();
        let (context, _) = bench.attach_1();
        let stage = bench.stage(granule, start);
        let words = [context_0(ASID, 48).with_granule_0(coded).into_bits(), context_table(stage.root).into_bits(), 0];
        bench.set_words(context, &words);
        let (page, span) = (1 << granule, 1 << shift_of(granule, block));
        bench.map(stage, 0x40_0000_0000, 3, page_1(Pa(page * 5)).into_bits());
        bench.map(stage, 0x60_0000_0000, block, page_1(Pa(span * 3)).with_page(false).into_bits());
        let ended = bench.read(Iova(0x40_0000_0000 + page - 4));
        assert_eq!((ended.translation().pa, ended.translation().page_bytes), (Pa(page * 6 - 4), page), "granule {granule}");
        let ended = bench.read(Iova(0x60_0000_0000 + span - 4));
        assert_eq!((ended.translation().pa, ended.translation().page_bytes), (Pa(span * 4 - 4), span), "granule {granule}");
    }
}

#[test]
fn stage_2_granules_start_where_their_own_code_says() {
    for (granule, coded, bits, start_coded, start) in [(12u32, 0u8, 48u8, 2u8, 0u8), (14, 2, 40, 1, 2), (16, 1, 42, 1, 2)] {
        let mut bench = Bench::new();
        let stage = Bench::stage(&mut bench, granule, start);
        // Concatenated starting tables need room.
        let root = bench.frames(64);
        let stage = super::support::bench::Stage { root, ..stage };
        let (entry, base) = stage_2_words(VMID, root);
        let entry = entry.with_granule(coded).with_input_size(64 - bits).with_start_level(start_coded);
        let first = StreamEntry0::new().with_valid(true).with_config(CONFIG_STAGE_2);
        bench.set_stream(STREAM, [first.into_bits(), 0, entry.into_bits(), base.into_bits()]);
        bench.map(stage, 0x1234_0000, 3, page_2(Pa(0x56_0000)).into_bits());
        assert_eq!(bench.read(Iova(0x1234_0008)).translation().pa, Pa(0x56_0008), "granule {granule}");
    }
}

#[test]
fn the_upper_half_has_its_own_table_and_granule_code() {
    let mut bench = Bench::new();
    let (context, _) = bench.attach_1();
    let stage = bench.stage(16, 1);
    let entry = context_0(ASID, 48).with_disable_1(false).with_size_1(16).with_granule_1(3).with_disable_0(true);
    bench.set_words(context, &[entry.into_bits(), 0, context_table(stage.root).into_bits()]);
    let high = 0xffff_8000_0001_0000;
    bench.map(stage, high & 0xffff_ffff_ffff, 3, page_1(Pa(0x9_0000)).into_bits());
    assert_eq!(bench.read(Iova(high + 4)).translation().pa, Pa(0x9_0004));
    assert_eq!(bench.read(IOVA).event(), EventId::TRANSLATION, "EPD0");
    assert_eq!(bench.read(Iova(0xff7f_8000_0001_0000)).event(), EventId::TRANSLATION, "not a copy of the top bit");
}

#[test]
fn the_top_byte_is_ignored_where_tbi_says_so() {
    for ignored in [false, true] {
        let mut bench = Bench::new();
        let (context, stage) = bench.attach_1();
        bench.map(stage, IOVA.0, 3, page_1(PAGE).into_bits());
        bench.memory.write(context, context_0(ASID, 48).with_top_byte_ignore_0(ignored).into_bits());
        let ended = bench.read(Iova(IOVA.0 | 0xab << 56));
        if ignored {
            assert_eq!(ended.translation().pa, PAGE);
        } else {
            assert_eq!(ended.event(), EventId::TRANSLATION);
        }
    }
}

#[test]
fn epd_lets_a_cached_translation_live_but_forbids_the_walk() {
    let (mut bench, _) = Bench::mapped_1();
    bench.read(IOVA);
    let context = Pa(0x300_0000);
    assert_eq!(Context0::from_bits(bench.memory.read(context)).asid(), ASID.0, "the first frame holds the CD");
    bench.memory.write(context, context_0(ASID, 48).with_disable_0(true).into_bits());
    bench.invalidate(&[super::support::tables::commands::cfgi_all()]);
    assert_eq!(bench.read(IOVA).translation().pa, PAGE, "a hit is allowed");
    assert_eq!(bench.read(IOVA.offset(4096)).event(), EventId::TRANSLATION);
}

/// One way to spoil a stage-1 leaf each, and the event it makes.
#[test]
fn each_field_of_a_stage_1_leaf_that_can_fault_does() {
    type Spoil = fn(Stage1Leaf) -> Stage1Leaf;
    let cases: [(Spoil, Access, Option<EventId>); 8] = [
        (|leaf| leaf.with_valid(false), Access::Read, Some(EventId::TRANSLATION)),
        (|leaf| leaf.with_page(false), Access::Read, Some(EventId::TRANSLATION)),
        (|leaf| leaf.with_accessed(false), Access::Read, Some(EventId::ACCESS)),
        (|leaf| leaf.with_unprivileged(false), Access::Read, Some(EventId::PERMISSION)),
        (|leaf| leaf.with_read_only(true), Access::Read, None),
        (|leaf| leaf.with_read_only(true), Access::Write, Some(EventId::PERMISSION)),
        (|leaf| leaf.with_read_only(true).with_dirty_bit_modifier(true), Access::Write, Some(EventId::PERMISSION)),
        (|leaf| leaf.with_read_only(true).with_accessed(false), Access::Write, Some(EventId::ACCESS)),
    ];
    for (n, (spoil, access, expected)) in cases.into_iter().enumerate() {
        let (mut bench, slot) = Bench::mapped_1();
        bench.memory.write(slot, spoil(page_1(PAGE)).into_bits());
        let ended = bench.request_with(Request { source: DEVICE, iova: IOVA, access, pasid: None }, &mut iommu_model::Plain);
        match expected {
            Some(event) => {
                let why = ended.why();
                assert_eq!((why.event, why.stage_2, why.class), (event, false, FaultClass::Input), "case {n}");
                assert_eq!(bench.unit.caches().tlb().count(), 0, "a fault is not cached");
            }
            None => assert!(!ended.translation().writable, "case {n}"),
        }
    }
}

#[test]
fn each_field_of_a_stage_2_leaf_that_can_fault_does() {
    type Spoil = fn(Stage2Leaf) -> Stage2Leaf;
    let cases: [(Spoil, Access, EventId); 6] = [
        (|leaf| leaf.with_valid(false), Access::Read, EventId::TRANSLATION),
        (|leaf| leaf.with_page(false), Access::Read, EventId::TRANSLATION),
        (|leaf| leaf.with_accessed(false), Access::Read, EventId::ACCESS),
        (|leaf| leaf.with_readable(false), Access::Read, EventId::PERMISSION),
        (|leaf| leaf.with_writable(false), Access::Write, EventId::PERMISSION),
        (|leaf| leaf.with_writable(false).with_dirty_bit_modifier(true), Access::Write, EventId::PERMISSION),
    ];
    for (n, (spoil, access, expected)) in cases.into_iter().enumerate() {
        let (mut bench, slot) = Bench::mapped_2();
        bench.memory.write(slot, spoil(page_2(PAGE)).into_bits());
        let ended = bench.request_with(Request { source: DEVICE, iova: IOVA, access, pasid: None }, &mut iommu_model::Plain);
        let why = ended.why();
        assert_eq!((why.event, why.stage_2, why.class), (expected, true, FaultClass::Input), "case {n}");
    }
}

#[test]
fn a_stage_2_fault_on_a_stage_1_table_says_so() {
    let (mut bench, first, second) = Bench::nested(Capabilities::default(), Params::default());
    bench.map_above(first, IOVA.0, 3, page_1(GUEST_PAGE).into_bits(), GUEST);
    // The level-1 table of stage 1 is said to lie where stage 2 maps nothing.
    let slot = first.root.offset((IOVA.0 >> 39) * 8);
    bench.memory.write(slot, pointer(Pa(0x20_0000_0000)));
    let why = bench.read(IOVA).why();
    assert_eq!((why.event, why.stage_2, why.class), (EventId::TRANSLATION, true, FaultClass::Table));
    // And the CD.
    let (entry, base) = stage_2_words(VMID, second.root);
    let words = StreamEntry0::new().with_valid(true).with_config(7).with_context(0x20_0000_0000 >> 6);
    let other = iommu_model::smmu::StreamId(STREAM.0 + 8);
    bench.set_stream(other, [words.into_bits(), 0, entry.into_bits(), base.into_bits()]);
    let request = Request { source: iommu_model::Bdf(other.0 as u16), iova: IOVA, access: Access::Read, pasid: None };
    let why = bench.request_with(request, &mut iommu_model::Plain).why();
    assert_eq!((why.event, why.stage_2, why.class), (EventId::TRANSLATION, true, FaultClass::Context));
}

#[test]
fn limits_of_table_descriptors_bind_everything_below_unless_had_is_set() {
    for had in [false, true] {
        let mut bench = Bench::new();
        let (context, stage) = bench.attach_1();
        bench.map(stage, IOVA.0, 3, page_1(PAGE).into_bits());
        let slot = stage.root.offset((IOVA.0 >> 39) * 8);
        let limited = Stage1Table::from_bits(bench.memory.read(slot)).with_read_only(true);
        bench.memory.write(slot, limited.into_bits());
        bench.memory.write(context.offset(8), context_table(stage.root).with_hierarchical_disable(had).into_bits());
        assert_eq!(bench.read(IOVA).translation().writable, had);
        assert_eq!(bench.write(IOVA).fault_event(), (!had).then_some(EventId::PERMISSION));
        bench.memory.write(slot, limited.with_read_only(false).with_no_unprivileged(true).into_bits());
        bench.invalidate(&[super::support::tables::commands::nsnh_all()]);
        assert_eq!(bench.read(IOVA).fault_event(), (!had).then_some(EventId::PERMISSION));
    }
}

impl super::support::Ended {
    fn fault_event(&self) -> Option<EventId> {
        match self.progress {
            iommu_model::Progress::Fault(_) => Some(self.event()),
            _ => None,
        }
    }
}

#[test]
fn addresses_out_of_range_fault_where_they_leave_the_range() {
    // Stage 1: input beyond T0SZ, table and page beyond IPS.
    let mut bench = Bench::new();
    let (context, _) = bench.attach_1();
    let stage = bench.stage(12, 1);
    bench.set_words(context, &[context_0(ASID, 39).with_output_size(0).into_bits(), context_table(stage.root).into_bits(), 0]);
    bench.map(stage, 0x1000, 3, page_1(Pa(1 << 32)).into_bits());
    bench.map(stage, 0x2000, 3, page_1(Pa(0xffff_f000)).into_bits());
    assert_eq!(bench.read(Iova(1 << 39)).event(), EventId::TRANSLATION);
    assert_eq!(bench.read(Iova(0x1000)).event(), EventId::ADDRESS_SIZE);
    assert_eq!(bench.read(Iova(0x2000)).translation().pa, Pa(0xffff_f000));
    bench.memory.write(stage.root.offset(8), pointer(Pa(1 << 33)));
    assert_eq!(bench.read(Iova(1 << 30)).event(), EventId::ADDRESS_SIZE);
    // Stage 2: the same, and an input beyond IAS is one of stage 1.
    let (mut bench, _) = Bench::mapped_2();
    let why = bench.read(Iova(1 << 39)).why();
    assert_eq!((why.event, why.stage_2), (EventId::TRANSLATION, true));
    let why = bench.read(Iova(1 << 48)).why();
    assert_eq!((why.event, why.stage_2), (EventId::ADDRESS_SIZE, false));
}

#[test]
fn blocks_may_not_stand_at_level_0_and_not_at_level_1_of_large_granules() {
    for (granule, coded, start, level) in [(12u32, 0u8, 0u8, 0u8), (14, 2, 0, 1), (16, 1, 1, 1)] {
        let mut bench = Bench::new();
        let (context, _) = bench.attach_1();
        let stage = bench.stage(granule, start);
        let entry = context_0(ASID, 48).with_granule_0(coded);
        bench.set_words(context, &[entry.into_bits(), context_table(stage.root).into_bits(), 0]);
        bench.map(stage, IOVA.0, level, page_1(Pa(0)).with_page(false).into_bits());
        assert_eq!(bench.read(IOVA).event(), EventId::TRANSLATION, "granule {granule}");
    }
}

#[test]
fn bypass_passes_what_fits_the_output_size() {
    let cap = Capabilities { output_bits: 40, ..Capabilities::default() };
    let mut bench = Bench::with(cap, Params::default());
    bench.set_stream(STREAM, [StreamEntry0::new().with_valid(true).with_config(CONFIG_BYPASS).into_bits(), 0, 0, 0]);
    let ended = bench.read(Iova(0xff_1234_5678));
    assert!(ended.translation().pass_through);
    assert_eq!(ended.translation().pa, Pa(0xff_1234_5678));
    assert_eq!(bench.read(Iova(1 << 40)).event(), EventId::ADDRESS_SIZE);
}

#[test]
fn an_aborting_stream_is_silent() {
    let mut bench = Bench::new();
    bench.set_stream(STREAM, [StreamEntry0::new().with_valid(true).into_bits(), 0, 0, 0]);
    let fault = bench.read(IOVA).fault();
    assert_eq!((fault.reason.code(), fault.recorded), (0, false));
    assert!(bench.events().is_empty());
}

#[test]
fn the_contiguous_hint_caches_the_run_only_if_it_is_used_and_fits() {
    for (used, fits) in [(0, true), (1, true), (1, false)] {
        let mut bench = Bench::new();
        let (_, stage) = bench.attach_1();
        let frame = Pa(if fits { 0x13_7000 } else { 0x13_8000 });
        bench.map(stage, IOVA.0, 3, page_1(frame).with_contiguous(true).into_bits());
        let mut d = Scripted::new(|q| matches!(q, Question::UseContiguous), used);
        let ended = bench.read_with(IOVA, &mut d);
        assert_eq!((ended.translation().pa, d.asked), (frame, u32::from(fits)));
        let run = used == 1 && fits;
        assert_eq!(ended.translation().page_bytes, if run { 0x1_0000 } else { 0x1000 });
        if run {
            assert_eq!(bench.read(IOVA.offset(4096)).translation().pa, frame.offset(4096), "never mapped, but of the run");
        }
    }
}

#[test]
fn privileged_requests_ignore_ap1_and_respect_pan() {
    let params = Params { privileged: true, ..Params::default() };
    for pan in [false, true] {
        let mut bench = Bench::with(Capabilities::default(), params.clone());
        let (context, stage) = bench.attach_1();
        bench.memory.write(context, context_0(ASID, 48).with_privileged_access_never(pan).into_bits());
        bench.map(stage, IOVA.0, 3, page_1(PAGE).with_unprivileged(false).into_bits());
        bench.map(stage, IOVA.0 + 4096, 3, page_1(PAGE).into_bits());
        assert_eq!(bench.read(IOVA).translation().pa, PAGE);
        assert_eq!(bench.read(IOVA.offset(4096)).fault_event(), pan.then_some(EventId::PERMISSION));
    }
}

#[test]
fn global_pages_serve_every_asid_of_a_vmid() {
    let mut bench = Bench::new();
    let (context, stage) = bench.attach_1();
    bench.map(stage, IOVA.0, 3, page_1(PAGE).with_not_global(false).into_bits());
    bench.read(IOVA);
    bench.memory.write(context, context_0(iommu_model::smmu::Asid(9), 48).into_bits());
    bench.invalidate(&[super::support::tables::commands::cfgi_all()]);
    assert_eq!(bench.read(IOVA).translation().from, CacheHit::Iotlb);
    // Another VMID does not share it.
    let mut words = stream_1(context);
    words[2] = u64::from(VMID.0 + 1);
    bench.set_stream(STREAM, words);
    bench.invalidate(&[super::support::tables::commands::cfgi_all()]);
    assert_eq!(bench.read(IOVA).fetched.last(), Some(&stage_1(3)));
}

#[test]
fn a_fetch_without_memory_names_what_could_not_be_fetched() {
    let cases = [
        (Pa(0x100_0000), u64::from(STREAM.0) * 64, EventId::STREAM_FETCH),
        (Pa(0x300_0000), 0, EventId::CONTEXT_FETCH),
        (Pa(0x300_1000), 0, EventId::WALK_ABORT),
    ];
    for (end, offset, expected) in cases {
        let (mut bench, _) = Bench::mapped_1();
        bench.memory.end = Some(end);
        let why = bench.read(IOVA).why();
        assert_eq!((why.event, why.stage_2), (expected, false));
        let record = bench.events()[0];
        assert_eq!((record[0] & 0xff, record[3]), (u64::from(expected.0), end.0 + offset), "{expected:?}");
    }
    let (mut bench, _) = Bench::mapped_2();
    bench.memory.end = Some(Pa(0x300_0000));
    let why = bench.read(IOVA).why();
    assert_eq!((why.event, why.stage_2, why.class), (EventId::WALK_ABORT, true, FaultClass::Input));
}
