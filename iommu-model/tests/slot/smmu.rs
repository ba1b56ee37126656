//! SMMUv3.

use super::{run, watch};
use iommu_model::slot::smmu::{Command, Kind, Need, Place, SmmuRules};
use iommu_model::slot::{Checker, Event, State, Violation};
use iommu_model::smmu::{
    AddressRange, Asid, Capabilities, CommandInput, CommandProgress, Invalidation, Params, Register, StreamId, Unit, Vmid,
};
use iommu_model::spec::smmu::command::{SYNC, TLBI_NH_ASID, TLBI_NH_VA, TlbCommand};
use iommu_model::spec::smmu::context::{Context0, ContextLevel1, ContextTable};
use iommu_model::spec::smmu::descriptor::{Descriptor, Stage1Leaf, Stage1Table, Stage2Leaf};
use iommu_model::spec::smmu::stream::{
    CONFIG_BYPASS, CONFIG_NESTED, CONFIG_STAGE_1, CONFIG_STAGE_2, StreamEntry0, StreamEntry1, StreamEntry2, StreamEntry3, StreamLevel1,
};
use iommu_model::{Bdf, Decisions, DeviceInvalidation, Iova, Pa, PageRange, Pasid, Pfn};

type E = Event<Command>;

const RULES: SmmuRules = SmmuRules { flush: false, no_break: false };
const STREAM: StreamId = StreamId(0x20);
const SUBSTREAM: Pasid = Pasid(3);
const VMID: Vmid = Vmid(7);
const ASID: Asid = Asid(9);
const IOVA: Iova = Iova(0x4020_3000);
const SLOT: Pa = Pa(0x1000);

fn place() -> Place {
    let (first, span_bytes) = (IOVA, 4096);
    Place { stream: STREAM, substream: SUBSTREAM, vmid: VMID, asid: ASID, nested: false, first, span_bytes, device_tlb: None }
}

fn checker(rules: SmmuRules, kind: Kind, place: Place, words: &[u64]) -> Checker<SmmuRules> {
    let mut checker = Checker::new(rules);
    checker.declare(SLOT, kind, place, words);
    checker
}

fn stored(word: u64, value: u64) -> E {
    Event::Stored { pa: SLOT.offset(8 * word), value }
}

fn unit(invalidation: Invalidation) -> E {
    Event::Issued(Command::Unit(invalidation))
}

fn cfgi_ste() -> E {
    unit(Invalidation::Stream { stream: STREAM, leaf_only: true })
}

fn range(leaf_only: bool) -> AddressRange {
    AddressRange { first: IOVA, last: IOVA, leaf_only, granule: None, level: None }
}

/// A valid STE with both stages, its S2VMID, and pointers to frames 3 and 5.
fn stream_words(config: u8) -> [u64; 8] {
    let first = StreamEntry0::new().with_valid(true).with_config(config).with_context(3 << 6);
    let third = StreamEntry2::new().with_vmid(VMID.0).with_input_size(25).with_aarch64(true).with_record(true);
    let fourth = StreamEntry3::new().with_table(5 << 8);
    [first.into_bits(), 0, third.into_bits(), fourth.into_bits(), 0, 0, 0, 0]
}

fn context_words(table: u64) -> [u64; 8] {
    let first = Context0::new().with_valid(true).with_size_0(25).with_disable_1(true).with_aarch64(true).with_asid(ASID.0);
    [first.into_bits(), ContextTable::new().with_table(table << 8).into_bits(), 0, 0xff, 0, 0, 0, 0]
}

fn page(frame: u64) -> Stage1Leaf {
    Stage1Leaf::new().with_valid(true).with_page(true).with_accessed(true).with_not_global(true).with_frame(frame)
}

const LEAF: Kind = Kind::Stage1 { level: 3, granule: 12 };

fn unclean(checker: &Checker<SmmuRules>) -> bool {
    checker.unclean().next().is_some()
}

#[test]
fn good_a_valid_ste_is_broken_rewritten_and_made_valid_again() {
    let (old, new) = (stream_words(CONFIG_STAGE_2), stream_words(CONFIG_STAGE_1));
    let mut checker = checker(RULES, Kind::Stream, place(), &old);
    let s12 = unit(Invalidation::Vmid { vmid: VMID });
    let events = [stored(0, 0), cfgi_ste(), Event::Waited, s12, Event::Waited, Event::Released(Pfn(5))];
    assert_eq!(run(&mut checker, &events), Ok(()));
    let events = [stored(1, 2), stored(3, 0), cfgi_ste(), Event::Waited, stored(0, new[0]), cfgi_ste(), Event::Waited];
    assert_eq!(run(&mut checker, &events), Ok(()));
    assert_eq!(checker.state(SLOT), Some(&State::Valid));
    assert_eq!(run(&mut checker, &[Event::Released(Pfn(3))]), Err(Violation::ReleasedInUse { pa: SLOT, frame: Pfn(3) }));
}

#[test]
fn bad_two_words_that_count_are_changed_under_a_valid_ste() {
    // Stage 2: VMID and table lie in two words, and a fetch may get one of each.
    let mut checker = checker(RULES, Kind::Stream, place(), &stream_words(CONFIG_STAGE_2));
    let other_table = StreamEntry3::new().with_table(8 << 8).into_bits();
    let other_vmid = StreamEntry2::from_bits(stream_words(CONFIG_STAGE_2)[2]).with_vmid(8).into_bits();
    assert_eq!(run(&mut checker, &[stored(3, other_table)]), Ok(()), "one word is read whole");
    assert!(matches!(run(&mut checker, &[stored(2, other_vmid)]), Err(Violation::ReusedUnclean { pa: SLOT, missing: Some(_) })));
}

#[test]
fn bad_a_pair_of_words_is_stored_at_once_under_a_valid_ste() {
    let words = stream_words(CONFIG_STAGE_2);
    let mut checker = checker(RULES, Kind::Stream, place(), &words);
    let values = [StreamEntry2::from_bits(words[2]).with_vmid(8).into_bits(), StreamEntry3::new().with_table(8 << 8).into_bits()];
    let pair = Event::StoredPair { pa: SLOT.offset(16), values };
    assert_eq!(checker.step(&pair), Err(Violation::Torn { pa: SLOT }), "the SMMU reads 64 bits at a time");
}

#[test]
fn good_and_bad_an_ste_is_switched_by_one_word_after_what_it_needs_is_clean() {
    // From bypass to stage 2: the words of stage 2 do not count until Config says so.
    let (old, new) = ([StreamEntry0::new().with_valid(true).with_config(CONFIG_BYPASS).into_bits(), 0, 0, 0, 0, 0, 0, 0], CONFIG_STAGE_2);
    let new = stream_words(new);
    let prepare = [stored(2, new[2]), stored(3, new[3])];
    for (between, good) in [(&[cfgi_ste(), Event::Waited][..], true), (&[cfgi_ste()][..], false), (&[][..], false)] {
        let mut checker = checker(RULES, Kind::Stream, place(), &old);
        assert_eq!(run(&mut checker, &prepare), Ok(()));
        assert_eq!(run(&mut checker, between), Ok(()));
        assert_eq!(run(&mut checker, &[stored(0, new[0])]).is_ok(), good, "{between:?}");
    }
}

#[test]
fn good_and_bad_what_an_ste_no_longer_needs_is_cleared_after_the_switch_is_clean() {
    let words = stream_words(CONFIG_STAGE_2);
    let bypass = StreamEntry0::new().with_valid(true).with_config(CONFIG_BYPASS).into_bits();
    let clean = [cfgi_ste(), Event::Waited, unit(Invalidation::Vmid { vmid: VMID }), Event::Waited];
    for (between, good) in [(&clean[..], true), (&clean[..2], false), (&[][..], false)] {
        let mut checker = checker(RULES, Kind::Stream, place(), &words);
        assert_eq!(run(&mut checker, &[stored(0, bypass)]), Ok(()));
        assert_eq!(run(&mut checker, between), Ok(()));
        assert_eq!(run(&mut checker, &[stored(3, 0)]).is_ok(), good, "{between:?}");
    }
}

#[test]
fn good_and_bad_the_valid_bit_comes_last_and_after_a_clean_entry() {
    let words = stream_words(CONFIG_STAGE_2);
    for (between, good) in [(&[cfgi_ste(), Event::Waited][..], true), (&[][..], false)] {
        let mut checker = checker(RULES, Kind::Stream, place(), &[0; 8]);
        assert_eq!(run(&mut checker, &[stored(2, words[2]), stored(3, words[3])]), Ok(()));
        assert_eq!(run(&mut checker, between), Ok(()));
        let result = run(&mut checker, &[stored(0, words[0])]);
        assert_eq!(result.is_ok(), good, "a fetch that began before may hold old words: {result:?}");
    }
    let mut first = checker(RULES, Kind::Stream, place(), &[0; 8]);
    let broken = run(&mut first, &[stored(0, words[0]), stored(2, words[2])]);
    assert!(matches!(broken, Err(Violation::ReusedUnclean { .. })), "the valid bit came first: {broken:?}");
}

#[test]
fn a_fresh_ste_or_cd_owes_an_invalidation_because_an_invalid_one_may_be_cached() {
    let cd = unit(Invalidation::Context { stream: STREAM, substream: SUBSTREAM, leaf_only: true });
    let asid = unit(Invalidation::Stage1Asid { vmid: VMID, asid: ASID });
    for (kind, words, clean) in [
        (Kind::Stream, stream_words(CONFIG_STAGE_1), &[cfgi_ste(), Event::Waited][..]),
        (Kind::Context, context_words(3), &[cd, Event::Waited, asid, Event::Waited][..]),
    ] {
        let mut checker = checker(RULES, kind, place(), &{
            let mut words = words;
            words[0] = 0;
            words
        });
        assert_eq!(run(&mut checker, &[stored(0, words[0])]), Ok(()));
        assert!(unclean(&checker), "{kind:?}");
        assert_eq!(run(&mut checker, clean), Ok(()));
        assert_eq!(checker.state(SLOT), Some(&State::Valid), "{kind:?}");
    }
}

#[test]
fn what_an_ste_needs_depends_on_its_stages() {
    let s12 = unit(Invalidation::Vmid { vmid: VMID });
    let stranger = unit(Invalidation::Stream { stream: StreamId(0x21), leaf_only: false });
    let range = unit(Invalidation::Streams { first: StreamId(0x20), last: StreamId(0x2f) });
    for (config, frame, events, good) in [
        (CONFIG_STAGE_1, 3, vec![cfgi_ste(), Event::Waited], true),
        (CONFIG_STAGE_1, 3, vec![range, Event::Waited], true),
        (CONFIG_STAGE_1, 3, vec![stranger, Event::Waited], false),
        (CONFIG_STAGE_1, 3, vec![cfgi_ste()], false),
        (CONFIG_STAGE_2, 5, vec![cfgi_ste(), Event::Waited], false),
        (CONFIG_STAGE_2, 5, vec![cfgi_ste(), Event::Waited, s12, Event::Waited], true),
        (CONFIG_STAGE_2, 5, vec![s12, Event::Waited, cfgi_ste(), Event::Waited], false),
        // A stale STE may refill the TLB behind the invalidation.
        (CONFIG_STAGE_2, 5, vec![cfgi_ste(), s12, Event::Waited], false),
        (CONFIG_NESTED, 3, vec![cfgi_ste(), Event::Waited, unit(Invalidation::TlbAll), Event::Waited], true),
    ] {
        let mut checker = checker(RULES, Kind::Stream, place(), &stream_words(config));
        assert_eq!(run(&mut checker, &[stored(0, 0)]), Ok(()));
        assert_eq!(run(&mut checker, &events), Ok(()));
        assert_eq!(run(&mut checker, &[Event::Released(Pfn(frame))]).is_ok(), good, "Config {config}, {events:?}");
    }
}

#[test]
fn a_level_1_descriptor_needs_all_of_its_streams_without_the_leaf_hint() {
    let word = StreamLevel1::new().with_span(3).with_table(4 << 6).into_bits();
    let streams = |last| unit(Invalidation::Streams { first: STREAM, last: StreamId(last) });
    for (event, good) in [(cfgi_ste(), false), (streams(0x21), false), (streams(0x23), true), (streams(u32::MAX), true)] {
        let mut checker = checker(RULES, Kind::StreamLevel1, place(), &[word]);
        let events = [stored(0, 0), event, Event::Waited, Event::Released(Pfn(4))];
        assert_eq!(run(&mut checker, &events).is_ok(), good, "{event:?}");
    }
    let word = ContextLevel1::new().with_valid(true).with_table(4).into_bits();
    let one = unit(Invalidation::Context { stream: STREAM, substream: SUBSTREAM, leaf_only: false });
    for (event, good) in [(one, false), (unit(Invalidation::Contexts { stream: STREAM }), true), (cfgi_ste(), true)] {
        let mut checker = checker(RULES, Kind::ContextLevel1, place(), &[word]);
        let events = [stored(0, 0), event, Event::Waited, Event::Released(Pfn(4))];
        assert_eq!(run(&mut checker, &events).is_ok(), good, "{event:?}");
    }
}

#[test]
fn good_and_bad_a_cd_is_cleaned_before_its_asid() {
    let cd = unit(Invalidation::Context { stream: STREAM, substream: SUBSTREAM, leaf_only: true });
    let asid = unit(Invalidation::Stage1Asid { vmid: VMID, asid: ASID });
    let other = unit(Invalidation::Stage1Asid { vmid: VMID, asid: Asid(1) });
    for (events, good) in [
        (vec![cd, Event::Waited, asid, Event::Waited], true),
        (vec![cd, Event::Waited, other, Event::Waited], false),
        (vec![asid, Event::Waited, cd, Event::Waited], false),
        (
            vec![unit(Invalidation::Contexts { stream: STREAM }), Event::Waited, unit(Invalidation::Stage1 { vmid: VMID }), Event::Waited],
            true,
        ),
    ] {
        let mut checker = checker(RULES, Kind::Context, place(), &context_words(3));
        let clear = Context0::from_bits(context_words(3)[0]).with_valid(false).into_bits();
        assert_eq!(run(&mut checker, &[stored(0, clear)]), Ok(()));
        assert_eq!(run(&mut checker, &events), Ok(()));
        assert_eq!(run(&mut checker, &[Event::Released(Pfn(3))]).is_ok(), good, "{events:?}");
    }
}

#[test]
fn the_table_of_a_half_that_is_off_may_be_changed_at_will_and_that_of_one_that_is_on_in_one_word() {
    let mut checker = checker(RULES, Kind::Context, place(), &context_words(3));
    let elsewhere = ContextTable::new().with_table(8 << 8).into_bits();
    assert_eq!(run(&mut checker, &[stored(2, elsewhere)]), Ok(()), "EPD1");
    assert!(unclean(&checker), "and yet it may be cached, for when it counts");
    assert!(matches!(checker.step(&stored(1, elsewhere)), Err(Violation::ReusedUnclean { .. })));
}

#[test]
fn good_a_page_is_broken_cleaned_and_made() {
    let va = unit(Invalidation::Stage1Range { vmid: VMID, asid: Some(ASID), range: range(true) });
    let mut checker = checker(RULES, LEAF, place(), &[page(7).into_bits()]);
    let events = [stored(0, 0), va, Event::Waited, Event::Released(Pfn(7)), stored(0, page(8).into_bits())];
    assert_eq!(run(&mut checker, &events), Ok(()));
    assert_eq!(checker.state(SLOT), Some(&State::Valid), "no absent descriptor is ever cached");
}

#[test]
fn bad_break_before_make_is_left_out() {
    let old = page(7);
    for (what, new) in [
        ("output address", old.with_frame(8)),
        ("memory type", old.with_attribute_index(1)),
        ("shareability", old.with_shareability(2)),
        ("globality", old.with_not_global(false)),
        ("contiguous", old.with_contiguous(true)),
    ] {
        let mut one = checker(RULES, LEAF, place(), &[old.into_bits()]);
        assert_eq!(one.step(&stored(0, new.into_bits())), Err(Violation::Torn { pa: SLOT }), "{what}");
        let mut broken = checker(RULES, LEAF, place(), &[old.into_bits()]);
        let result = run(&mut broken, &[stored(0, 0), stored(0, new.into_bits())]);
        assert!(matches!(result, Err(Violation::ReusedUnclean { .. })), "{what}: broken, but not clean");
    }
    let stage_2 = Stage2Leaf::new().with_valid(true).with_page(true).with_readable(true).with_frame(7);
    let mut other = checker(RULES, Kind::Stage2 { level: 3, granule: 12 }, place(), &[stage_2.into_bits()]);
    assert_eq!(other.step(&stored(0, stage_2.with_memory_attributes(5).into_bits())), Err(Violation::Torn { pa: SLOT }));
}

#[test]
fn good_and_bad_a_size_changes_in_place_only_where_the_unit_does_without_a_break() {
    let block = Stage1Leaf::new().with_valid(true).with_accessed(true).with_frame(0x200).into_bits();
    let table = Stage1Table::new().with_low(3).with_frame(9).into_bits();
    let place = Place { first: Iova(0x4020_0000), span_bytes: 2 << 20, ..place() };
    for (no_break, result) in [(false, Err(Violation::Torn { pa: SLOT })), (true, Ok(()))] {
        let rules = SmmuRules { no_break, ..RULES };
        let mut checker = checker(rules, Kind::Stage1 { level: 2, granule: 12 }, place, &[block]);
        assert_eq!(checker.step(&stored(0, table)), result);
        assert!(unclean(&checker), "either way the block may be cached");
    }
}

#[test]
fn good_more_permission_owes_nothing_and_bad_less_is_not_cleaned() {
    let narrow = page(7).with_read_only(true).with_accessed(false);
    let wide = page(7).with_software(0x55);
    let mut checker = checker(RULES, LEAF, place(), &[narrow.into_bits()]);
    assert_eq!(run(&mut checker, &[stored(0, wide.into_bits())]), Ok(()));
    assert_eq!(checker.state(SLOT), Some(&State::Valid));
    assert_eq!(run(&mut checker, &[stored(0, page(7).with_read_only(true).into_bits())]), Ok(()));
    assert!(unclean(&checker));
    let limited = Stage1Table::new().with_low(3).with_frame(9).with_read_only(true);
    for (old, new, owes) in [(limited, limited.with_read_only(false), false), (limited.with_read_only(false), limited, true)] {
        let mut checker = self::checker(RULES, Kind::Stage1 { level: 2, granule: 12 }, place(), &[old.into_bits()]);
        assert_eq!(run(&mut checker, &[stored(0, new.into_bits())]), Ok(()));
        assert_eq!(unclean(&checker), owes, "the limits of a table count too");
    }
}

#[test]
fn bad_an_invalidation_that_spares_the_descriptor_pays_nothing() {
    let va = |range| unit(Invalidation::Stage1Range { vmid: VMID, asid: Some(ASID), range });
    let elsewhere = Iova(IOVA.0 + 4096);
    for (event, good) in [
        (va(range(true)), true),
        (unit(Invalidation::Stage1Range { vmid: VMID, asid: None, range: range(true) }), true),
        (va(AddressRange { level: Some(3), granule: Some(12), ..range(true) }), true),
        (va(AddressRange { level: Some(2), ..range(true) }), false),
        (va(AddressRange { granule: Some(16), ..range(true) }), false),
        (va(AddressRange { first: elsewhere, last: elsewhere, ..range(true) }), false),
        (unit(Invalidation::Stage1Range { vmid: Vmid(0), asid: Some(ASID), range: range(true) }), false),
        (unit(Invalidation::Stage1Range { vmid: VMID, asid: Some(Asid(1)), range: range(true) }), false),
        (unit(Invalidation::Stage2Range { vmid: VMID, range: range(true) }), false),
        (unit(Invalidation::Stage1Asid { vmid: VMID, asid: ASID }), true),
        (cfgi_ste(), false),
    ] {
        let mut checker = checker(RULES, LEAF, place(), &[page(7).into_bits()]);
        let events = [stored(0, 0), event, Event::Waited, Event::Released(Pfn(7))];
        assert_eq!(run(&mut checker, &events).is_ok(), good, "{event:?}");
    }
}

#[test]
fn a_global_page_is_not_cleaned_by_its_asid() {
    let asid = unit(Invalidation::Stage1Asid { vmid: VMID, asid: ASID });
    for (not_global, good) in [(true, true), (false, false)] {
        let mut checker = checker(RULES, LEAF, place(), &[page(7).with_not_global(not_global).into_bits()]);
        assert_eq!(run(&mut checker, &[stored(0, 0), asid, Event::Waited, Event::Released(Pfn(7))]).is_ok(), good);
    }
}

#[test]
fn a_table_needs_all_addresses_below_it_without_the_leaf_hint() {
    let table = Descriptor::new().with_valid(true).with_table_or_page(true).with_frame(9).into_bits();
    let place = Place { first: Iova(0x4020_0000), span_bytes: 2 << 20, ..place() };
    let all = AddressRange { first: place.first, last: Iova(0x403f_ffff), leaf_only: false, granule: Some(12), level: None };
    for (range, good) in [
        (all, true),
        (AddressRange { leaf_only: true, ..all }, false),
        (AddressRange { last: Iova(0x403f_efff), ..all }, false),
        (AddressRange { level: Some(3), ..all }, false),
    ] {
        let mut checker = checker(RULES, Kind::Stage1 { level: 2, granule: 12 }, place, &[table]);
        let va = unit(Invalidation::Stage1Range { vmid: VMID, asid: Some(ASID), range });
        assert_eq!(run(&mut checker, &[stored(0, 0), va, Event::Waited, Event::Released(Pfn(9))]).is_ok(), good, "{range:?}");
    }
}

#[test]
fn good_and_bad_stage_2_under_a_stage_1_needs_the_joined_translations_gone_too() {
    let leaf = Stage2Leaf::new().with_valid(true).with_page(true).with_readable(true).with_accessed(true).with_frame(7).into_bits();
    let ipa = unit(Invalidation::Stage2Range { vmid: VMID, range: range(true) });
    let stage_1 = unit(Invalidation::Stage1 { vmid: VMID });
    for (nested, events, good) in [
        (false, vec![ipa, Event::Waited], true),
        (true, vec![ipa, Event::Waited], false),
        (true, vec![ipa, Event::Waited, stage_1, Event::Waited], true),
        (true, vec![stage_1, Event::Waited, ipa, Event::Waited], false),
        (true, vec![unit(Invalidation::Vmid { vmid: VMID }), Event::Waited], true),
    ] {
        let mut checker = checker(RULES, Kind::Stage2 { level: 3, granule: 12 }, Place { nested, ..place() }, &[leaf]);
        assert_eq!(run(&mut checker, &[stored(0, 0)]), Ok(()));
        assert_eq!(run(&mut checker, &events), Ok(()));
        assert_eq!(run(&mut checker, &[Event::Released(Pfn(7))]).is_ok(), good, "{events:?}");
    }
}

#[test]
fn good_and_bad_a_device_tlb_is_told_after_the_smmu_is_clean() {
    let source = Bdf::new(1, 0, 0);
    let device = |source| {
        let range = PageRange { address: IOVA, order: 0 };
        Event::Issued(Command::Device(DeviceInvalidation { source, pasid: None, every_pasid: false, range, itag: 0 }))
    };
    let va = unit(Invalidation::Stage1Range { vmid: VMID, asid: Some(ASID), range: range(true) });
    for (events, good) in [
        (vec![va, Event::Waited, device(source), Event::Waited], true),
        (vec![va, device(source), Event::Waited], false),
        (vec![device(source), Event::Waited, va, Event::Waited], false),
        (vec![va, Event::Waited, device(Bdf::new(2, 0, 0)), Event::Waited], false),
    ] {
        let mut checker = checker(RULES, LEAF, Place { device_tlb: Some(source), ..place() }, &[page(7).into_bits()]);
        assert_eq!(run(&mut checker, &[stored(0, 0)]), Ok(()));
        assert_eq!(run(&mut checker, &events), Ok(()));
        let result = run(&mut checker, &[Event::Released(Pfn(7))]);
        assert_eq!(result.is_ok(), good, "{events:?}: {result:?}");
    }
}

#[test]
fn good_and_bad_stores_are_flushed_where_the_smmu_does_not_snoop() {
    let va = unit(Invalidation::Stage1Range { vmid: VMID, asid: Some(ASID), range: range(true) });
    let flush = Event::Flushed { line: SLOT };
    for (events, good) in [(vec![flush, va, Event::Waited], true), (vec![va, flush, Event::Waited], false)] {
        let mut checker = checker(SmmuRules { flush: true, ..RULES }, LEAF, place(), &[page(7).into_bits()]);
        assert_eq!(run(&mut checker, &[stored(0, 0)]), Ok(()));
        assert_eq!(run(&mut checker, &events), Ok(()));
        assert_eq!(!unclean(&checker), good, "{events:?}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let mut checker = checker(RULES, Kind::Stream, place(), &stream_words(CONFIG_STAGE_2));
    let broken = run(&mut checker, &[stored(0, 0), cfgi_ste(), Event::Waited, stored(3, 0)]);
    assert_eq!(broken, Err(Violation::ReusedUnclean { pa: SLOT, missing: Some(Need::Vmid(VMID)) }));
    let merge = StreamEntry1::new().with_merge_events(true).into_bits();
    let mut fresh = self::checker(RULES, Kind::Stream, place(), &stream_words(CONFIG_STAGE_1));
    assert_eq!(run(&mut fresh, &[stored(1, merge)]), Ok(()));
    assert_eq!(fresh.state(SLOT), Some(&State::Valid), "MEV does not count");
}

impl watch::Architecture for Unit {
    type Rules = SmmuRules;

    fn unit(params: iommu_model::Params) -> Self {
        let two = params.iotlb;
        let sizes = Params { tlb: two, walk_1: [two; 3], walk_2: [two; 3], ..Params::default() };
        let mut unit = Self::new(Capabilities::default(), sizes);
        unit.write_register(Register::StrtabBase, watch::DEVICE_TABLE << 12);
        unit.write_register(Register::StrtabBaseCfg, 4);
        unit.write_register(Register::CmdqBase, 8);
        unit.write_register(Register::Cr0, 0x9);
        unit.register_drained();
        unit
    }

    fn rules() -> SmmuRules {
        RULES
    }

    fn outer_words() -> Vec<(Pa, u64)> {
        let stream = StreamEntry0::new().with_valid(true).with_config(CONFIG_STAGE_1).with_context(watch::CONTEXT << 6);
        let context = Context0::new().with_valid(true).with_size_0(25).with_disable_1(true).with_aarch64(true).with_abort(true);
        let context = context.with_output_size(4).with_asid(ASID.0);
        let (stream_pa, context_pa) = (Pa(watch::DEVICE_TABLE << 12), Pa(watch::CONTEXT << 12));
        let table = ContextTable::new().with_table(watch::TOP << 8);
        let vmid = StreamEntry2::new().with_vmid(VMID.0);
        vec![
            (stream_pa, stream.into_bits()),
            (stream_pa.offset(16), vmid.into_bits()),
            (context_pa, context.into_bits()),
            (context_pa.offset(8), table.into_bits()),
        ]
    }

    fn pointer(_: u8, frame: u64) -> u64 {
        Descriptor::new().with_valid(true).with_table_or_page(true).with_frame(frame).into_bits()
    }

    fn leaf(frame: u64) -> u64 {
        page(frame).with_unprivileged(true).into_bits()
    }

    fn declare(checker: &mut Checker<SmmuRules>, pa: Pa, level: u8, first: Iova, span_bytes: u64, word: u64) {
        checker.declare(pa, Kind::Stage1 { level: 4 - level, granule: 12 }, Place { first, span_bytes, ..place() }, &[word]);
    }

    fn invalidate(&mut self, scope: watch::Scope, d: &mut dyn Decisions) -> Command {
        let plain = TlbCommand::new().with_vmid(VMID.0).with_asid(ASID.0);
        let tlbi = match scope {
            watch::Scope::All => plain.with_opcode(TLBI_NH_ASID),
            watch::Scope::Page { page, leaf_only } => plain.with_opcode(TLBI_NH_VA).with_frame(page).with_leaf(leaf_only),
        };
        let mut commands = vec![u128::from(SYNC), tlbi.into_bits()];
        let producer = self.read_register(Register::CmdqProd);
        self.write_register(Register::CmdqProd, (producer + 2) % (2 << 8));
        let (mut input, mut asked) = (CommandInput::Continue, None);
        loop {
            input = match self.command_advance(input, d) {
                CommandProgress::Idle => break,
                CommandProgress::Fetch { .. } => {
                    let bits = commands.pop().expect("two are there");
                    CommandInput::Command([bits as u64, (bits >> 64) as u64])
                }
                CommandProgress::Consumed { done, .. } => {
                    asked = asked.or(done.map(|done| done.asked));
                    CommandInput::Continue
                }
                CommandProgress::Drain { .. } => CommandInput::Drained,
                CommandProgress::Synchronised { .. } => CommandInput::Continue,
                other => panic!("{other:?}"),
            };
        }
        Command::Unit(asked.expect("it was carried out"))
    }
}

#[test]
fn the_model_never_uses_what_was_cleaned_away() {
    watch::never_uses_what_was_cleaned_away::<Unit>();
}
