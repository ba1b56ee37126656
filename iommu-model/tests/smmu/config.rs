//! Stream tables, CD tables, and what their entries may say.

use super::support::bench::{ASID, Bench, IOVA, PAGE, STREAM, VMID};
use super::support::tables::{commands, context_0, context_table, page_1, stage_2_words};
use iommu_model::smmu::{Asid, Capabilities, Params, Register, StreamId};
use iommu_model::spec::smmu::context::{Context0, ContextLevel1};
use iommu_model::spec::smmu::event::EventId;
use iommu_model::spec::smmu::register::{Control0, StreamTableConfig};
use iommu_model::spec::smmu::stream::{
    CONFIG_NESTED, CONFIG_STAGE_1, CONFIG_STAGE_2, StreamEntry0, StreamEntry1, StreamEntry2, StreamLevel1,
};
use iommu_model::{Access, Bdf, FetchKind, Iova, Pa, Pasid, Plain, Request};

/// Streams 0 to 2^`size` in two levels; the level-2 table of the device's part holds the entry that the bench writes.
fn two_levels(bench: &mut Bench, size: u8, split: u8, span: u8) -> Pa {
    bench.control(Control0::new());
    bench.unit.write_register(
        Register::StrtabBaseCfg,
        StreamTableConfig::new().with_size(size).with_split(split).with_format(1).into_bits().into(),
    );
    bench.unit.write_register(Register::StrtabBase, 0x400_0000);
    let slot = Pa(0x400_0000).offset(u64::from(STREAM.0 >> split) * 8);
    let table = StreamLevel1::new().with_span(span).with_table(Bench::stream_pa(StreamId(0)).0 >> 6);
    bench.memory.write(slot, table.into_bits());
    bench.control(Control0::new().with_enable(true).with_event_queue(true).with_command_queue(true));
    slot
}

#[test]
fn a_two_level_stream_table_is_split_where_the_register_says() {
    for split in [6, 8, 10] {
        let (mut bench, _) = Bench::mapped_1();
        two_levels(&mut bench, 16, split, split + 1);
        let ended = bench.read(IOVA);
        assert_eq!(ended.translation().pa, PAGE);
        assert_eq!(ended.fetched[..2], [FetchKind::StreamLevel1, FetchKind::StreamEntry]);
    }
}

#[test]
fn a_stream_that_no_level_covers_is_bad() {
    // Span: none, reserved, beyond the split, and too short for StreamID 0x20.
    for span in [0, 12, 31, 8, 5] {
        let (mut bench, _) = Bench::mapped_1();
        two_levels(&mut bench, 16, 6, span);
        assert_eq!(bench.read(IOVA).event(), EventId::BAD_STREAM_ID, "span {span}");
    }
    let (mut bench, _) = Bench::mapped_1();
    let beyond = Request { source: Bdf(256), iova: IOVA, access: Access::Read, pasid: None };
    assert_eq!(bench.request_with(beyond, &mut Plain).event(), EventId::BAD_STREAM_ID);
    assert_eq!(bench.events().len(), 1, "RECINVSID is set");
}

#[test]
fn the_stream_id_is_the_requester_id_above_a_base() {
    let params = Params { stream_base: StreamId(0x10), ..Params::default() };
    let mut bench = Bench::with(Capabilities::default(), params);
    let (_, stage) = bench.attach_1();
    bench.map(stage, IOVA.0, 3, page_1(PAGE).into_bits());
    let request = Request { source: Bdf(STREAM.0 as u16 - 0x10), iova: IOVA, access: Access::Read, pasid: None };
    assert_eq!(bench.request_with(request, &mut Plain).translation().pa, PAGE);
}

#[test]
fn each_illegal_stream_table_entry_is_bad() {
    type Spoil = fn(StreamEntry2) -> StreamEntry2;
    let cases: [Spoil; 10] = [
        |e| e.with_aarch64(false),
        |e| e.with_big_endian(true),
        |e| e.with_stall(true),
        |e| e.with_granule(3),
        |e| e.with_input_size(15),
        |e| e.with_input_size(40),
        |e| e.with_start_level(3),
        |e| e.with_start_level(0),
        |e| e.with_input_size(39).with_start_level(1),
        |e| e.with_output_size(0).with_input_size(25),
    ];
    for (n, spoil) in cases.into_iter().enumerate() {
        let mut bench = Bench::new();
        let (entry, base) = stage_2_words(VMID, Pa(0x1_0000_0000));
        let first = StreamEntry0::new().with_valid(true).with_config(CONFIG_STAGE_2);
        bench.set_stream(STREAM, [first.into_bits(), 0, spoil(entry).into_bits(), base.into_bits()]);
        assert_eq!(bench.read(IOVA).event(), EventId::BAD_STREAM_ENTRY, "case {n}");
    }
    let mut bench = Bench::new();
    assert_eq!(bench.read(IOVA).event(), EventId::BAD_STREAM_ENTRY, "V = 0");
    let (mut bench, _) = Bench::mapped_1();
    bench.memory.write(Bench::stream_pa(STREAM).offset(8), StreamEntry1::new().with_stall_disable(true).into_bits());
    assert_eq!(bench.read(IOVA).event(), EventId::BAD_STREAM_ENTRY, "stalls cannot be disabled where there are none");
}

#[test]
fn stages_that_the_unit_does_not_have_make_an_entry_bad() {
    for (stage_1, stage_2, config, legal) in [
        (true, false, CONFIG_STAGE_1, true),
        (true, false, CONFIG_STAGE_2, false),
        (true, false, CONFIG_NESTED, false),
        (false, true, CONFIG_STAGE_2, true),
        (false, true, CONFIG_STAGE_1, false),
    ] {
        let mut bench = Bench::with(Capabilities { stage_1, stage_2, ..Capabilities::default() }, Params::default());
        let (entry, base) = stage_2_words(VMID, Pa(0x1_0000));
        let first = StreamEntry0::new().with_valid(true).with_config(config);
        bench.set_stream(STREAM, [first.into_bits(), 0, entry.into_bits(), base.into_bits()]);
        let bad = bench.read(IOVA).event() == EventId::BAD_STREAM_ENTRY;
        assert_eq!(bad, !legal, "{config:#b}");
    }
}

#[test]
fn each_illegal_context_descriptor_is_bad() {
    type Spoil = fn(Context0) -> Context0;
    let cases: [Spoil; 11] = [
        |e| e.with_valid(false),
        |e| e.with_aarch64(false),
        |e| e.with_abort(false),
        |e| e.with_stall(true),
        |e| e.with_big_endian(true),
        |e| e.with_size_0(15),
        |e| e.with_size_0(40),
        |e| e.with_granule_0(3),
        |e| e.with_disable_1(false).with_size_1(16).with_granule_1(0),
        |e| e.with_disable_1(false).with_size_1(0).with_granule_1(2),
        |e| e.with_output_size(0),
    ];
    for (n, spoil) in cases.into_iter().enumerate() {
        let mut bench = Bench::new();
        let (context, _) = bench.attach_1();
        let words = [spoil(context_0(ASID, 48)).into_bits(), context_table(Pa(0x1_0000_0000)).into_bits(), 0];
        bench.set_words(context, &words);
        assert_eq!(bench.read(IOVA).event(), EventId::BAD_CONTEXT, "case {n}");
    }
    // Nothing of a half without walks is checked, nor endianness if both have none.
    let mut bench = Bench::new();
    let (context, _) = bench.attach_1();
    let entry = context_0(ASID, 48).with_disable_0(true).with_size_0(0).with_granule_0(3).with_big_endian(true);
    bench.set_words(context, &[entry.into_bits(), u64::MAX, u64::MAX]);
    assert_eq!(bench.read(IOVA).event(), EventId::TRANSLATION);
}

#[test]
fn small_ids_are_checked_on_units_that_have_only_those() {
    for (bits_16, id, legal) in [(false, 0xff, true), (false, 0x100, false), (true, 0x100, true)] {
        let cap = Capabilities { asid_16: bits_16, vmid_16: bits_16, ..Capabilities::default() };
        let mut bench = Bench::with(cap, Params::default());
        let (context, stage) = bench.attach_1();
        bench.map(stage, IOVA.0, 3, page_1(PAGE).into_bits());
        bench.memory.write(context, context_0(Asid(id), 48).into_bits());
        assert_eq!(bench.read(IOVA).progress.is_end() && bench.unit.caches().tlb().count() == 1, legal, "ASID {id:#x}");
        let mut bench = Bench::with(cap, Params::default());
        let (_, stage) = bench.attach_1();
        bench.map(stage, IOVA.0, 3, page_1(PAGE).into_bits());
        bench.memory.write(Bench::stream_pa(STREAM).offset(16), u64::from(id));
        bench.read(IOVA);
        assert_eq!(bench.unit.caches().tlb().count() == 1, legal, "VMID {id:#x}");
    }
}

/// A CD table of 2^`bits` entries in one or two levels; the CD of SubstreamID `used` leads to a page. Returns the table.
fn with_substreams(format: u8, bits: u8, dss: u8, used: u32) -> (Bench, Pa) {
    let mut bench = Bench::new();
    let (_, stage) = bench.attach_1();
    bench.map(stage, IOVA.0, 3, page_1(PAGE).into_bits());
    let table = bench.frames(64);
    let leaf_bits = [0, 6, 10, 0][usize::from(format)];
    let context = if leaf_bits == 0 {
        table.offset(u64::from(used) * 64)
    } else {
        let leaf = bench.frames(16);
        let entry = ContextLevel1::new().with_valid(true).with_table(leaf.pfn().0);
        bench.memory.write(table.offset(u64::from(used >> leaf_bits) * 8), entry.into_bits());
        leaf.offset(u64::from(used & ((1 << leaf_bits) - 1)) * 64)
    };
    bench.set_words(context, &[context_0(ASID, 48).into_bits(), context_table(stage.root).into_bits(), 0]);
    let first = StreamEntry0::new().with_valid(true).with_config(CONFIG_STAGE_1).with_context(table.0 >> 6);
    let second = StreamEntry1::new().with_default_substream(dss);
    bench.set_stream(STREAM, [first.with_format(format).with_context_bits(bits).into_bits(), second.into_bits(), 0, 0]);
    (bench, table)
}

#[test]
fn a_substream_id_chooses_the_cd_in_one_or_two_levels() {
    for (format, bits, used, level_1) in [(0, 8, 200, false), (3, 8, 200, false), (1, 12, 3000, true), (2, 14, 9000, true), (1, 4, 9, true)]
    {
        let (mut bench, _) = with_substreams(format, bits, 0, used);
        let ended = bench.read_as(Pasid(used), IOVA);
        assert_eq!(ended.translation().pa, PAGE, "format {format}");
        assert_eq!(ended.fetched.contains(&FetchKind::ContextLevel1), level_1);
        assert_eq!(bench.read_as(Pasid(1 << bits), IOVA).event(), EventId::BAD_SUBSTREAM_ID);
    }
}

#[test]
fn an_invalid_level_1_context_descriptor_is_a_bad_substream() {
    let (mut bench, table) = with_substreams(1, 12, 0, 3000);
    bench.memory.write(table.offset((3000 >> 6) * 8), 0);
    assert_eq!(bench.read_as(Pasid(3000), IOVA).event(), EventId::BAD_SUBSTREAM_ID);
    let record = bench.events()[0];
    assert_eq!((record[0] >> 12 & 0xf_ffff, record[0] >> 11 & 1), (3000, 0), "always valid, so that there is no SSV");
}

#[test]
fn s1dss_says_what_requests_without_substream_do() {
    for (dss, used) in [(0u8, 0), (1, 0), (2, 0), (3, 0)] {
        let (mut bench, _) = with_substreams(0, 4, dss, used);
        let without = bench.read(IOVA);
        match dss {
            1 => assert!(without.translation().pass_through),
            2 => assert_eq!(without.translation().pa, PAGE),
            _ => assert_eq!(without.event(), EventId::STREAM_DISABLED),
        }
        let first = bench.read_as(Pasid(0), IOVA);
        if dss == 2 {
            assert_eq!(first.event(), EventId::STREAM_DISABLED, "SubstreamID 0 is taken");
        } else {
            assert_eq!(first.translation().pa, PAGE);
        }
    }
}

#[test]
fn a_substream_id_where_there_is_none_is_bad() {
    let (mut bench, _) = Bench::mapped_1();
    assert_eq!(bench.read_as(Pasid(0), IOVA).event(), EventId::BAD_SUBSTREAM_ID, "S1CDMax = 0");
    let (mut bench, _) = Bench::mapped_2();
    assert_eq!(bench.read_as(Pasid(1), IOVA).event(), EventId::BAD_SUBSTREAM_ID, "no stage 1");
    let mut bench = Bench::new();
    bench.set_stream(STREAM, [StreamEntry0::new().with_valid(true).with_config(4).into_bits(), 0, 0, 0]);
    assert_eq!(bench.read_as(Pasid(1), IOVA).event(), EventId::BAD_SUBSTREAM_ID, "bypass");
}

#[test]
fn a_cd_goes_by_stream_and_substream_and_its_level_1_only_without_leaf() {
    for (command, removed) in [
        (commands::cfgi_cd(STREAM, Pasid(3000), true), true),
        (commands::cfgi_cd(STREAM, Pasid(3001), true), false),
        (commands::cfgi_cd(StreamId(1), Pasid(3000), true), false),
        (commands::cfgi_cd_all(STREAM), true),
        (commands::cfgi_ste(STREAM, true), true),
        (commands::cfgi_cd_all(StreamId(1)), false),
    ] {
        let (mut bench, _) = with_substreams(1, 12, 0, 3000);
        bench.read_as(Pasid(3000), IOVA);
        bench.invalidate(&[command]);
        assert_eq!(bench.unit.caches().contexts().count() == 0, removed, "{command:#x}");
    }
    for (leaf, stays) in [(true, true), (false, false)] {
        let (mut bench, _) = with_substreams(1, 12, 0, 3000);
        bench.read_as(Pasid(3000), IOVA);
        bench.invalidate(&[commands::cfgi_cd(STREAM, Pasid(3000), leaf)]);
        assert_eq!(bench.unit.caches().level_1().count() == 1, stays);
    }
}

#[test]
fn disabled_translation_passes_or_aborts_as_gbpa_says() {
    let (mut bench, _) = Bench::mapped_1();
    bench.control(Control0::new());
    assert!(matches!(bench.read(IOVA).progress, iommu_model::Progress::Untranslated { pa, .. } if pa == Pa(IOVA.0)));
    assert_eq!(bench.read(Iova(1 << 48)).event(), EventId::NONE, "beyond OAS");
    bench.unit.write_register(Register::Gbpa, 1 << 20);
    assert!(matches!(bench.read(IOVA).progress, iommu_model::Progress::Untranslated { .. }), "without UPDATE nothing changes");
    bench.unit.write_register(Register::Gbpa, 1 << 31 | 1 << 20);
    assert_eq!(bench.unit.read_register(Register::Gbpa), 1 << 20);
    let fault = bench.read(IOVA).fault();
    assert_eq!((fault.reason.code(), fault.recorded), (0, false));
}
