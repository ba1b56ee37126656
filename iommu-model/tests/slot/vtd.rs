//! VT-d.

use super::run;
use iommu_model::slot::vtd::{Command, Kind, Need, VtdRules};
use iommu_model::slot::{Checker, Event, Place, State, Violation};
use iommu_model::spec::vtd::context::{AW_48, ContextEntry};
use iommu_model::spec::vtd::descriptor::{GRANULARITY_DOMAIN, GRANULARITY_NARROW, IotlbDescriptor, TYPE_IOTLB};
use iommu_model::spec::vtd::pasid::{PGTT_FIRST, PGTT_SECOND, PasidDirectoryEntry, PasidEntryFirstStage, PasidEntryLow};
use iommu_model::spec::vtd::root::RootEntry;
use iommu_model::spec::vtd::second_stage::SecondStageEntry;
use iommu_model::{
    Access, Bdf, Capabilities, ContextScope, DeviceInvalidation, DomainId, Fetched, Geometry, Invalidation, IotlbScope, Iova, Pa,
    PageRange, Params, Pasid, PasidIotlbScope, PasidScope, Pfn, Plain, Progress, Question, QueueInput, QueueProgress, Register, Request,
    Unit,
};
use proptest::prelude::*;

type E = Event<Command>;
type Broken = Violation<Need>;

const DEVICE: Bdf = Bdf::new(0x3b, 0, 0);
const DOMAIN: DomainId = DomainId(5);
const SLOT: Pa = Pa(0x1000);
const IOVA: Iova = Iova(0x4020_3000);
const RULES: VtdRules = VtdRules { flush: false, caching_mode: false, scalable: false };

fn place() -> Place {
    Place { source: DEVICE, domain: DOMAIN, pasid: None, first: IOVA, span_bytes: 4096, device_tlb: false }
}

fn entry(frame: u64) -> u64 {
    SecondStageEntry::new().with_read(true).with_write(true).with_frame(frame).into_bits()
}

fn leaf_checker(rules: VtdRules, place: Place, word: u64) -> Checker<VtdRules> {
    let mut checker = Checker::new(rules);
    checker.declare(SLOT, Kind::Second { level: 1 }, place, &[word]);
    checker
}

fn stored(pa: Pa, value: u64) -> E {
    Event::Stored { pa, value }
}

fn iotlb(scope: IotlbScope) -> E {
    Event::Issued(Command::Unit(Invalidation::Iotlb(scope)))
}

fn pages(first: Iova, order: u8, leaf_only: bool) -> E {
    iotlb(IotlbScope::Pages { domain: DOMAIN, range: PageRange { address: first, order }, leaf_only })
}

fn context(scope: ContextScope) -> E {
    Event::Issued(Command::Unit(Invalidation::Context(scope)))
}

fn context_device() -> E {
    context(ContextScope::Device { domain: DOMAIN, source: DEVICE, function_mask: 0 })
}

fn context_words(frame: u64, domain: DomainId) -> [u64; 2] {
    let bits = ContextEntry::new().with_present(true).with_second_stage(frame).with_address_width(AW_48).with_domain(domain.0).into_bits();
    [bits as u64, (bits >> 64) as u64]
}

fn context_checker() -> Checker<VtdRules> {
    let mut checker = Checker::new(RULES);
    checker.declare(SLOT, Kind::Context, place(), &context_words(3, DOMAIN));
    checker
}

#[test]
fn good_a_page_is_unmapped_invalidated_waited_for_and_freed() {
    let mut checker = leaf_checker(RULES, place(), entry(7));
    assert_eq!(checker.state(SLOT), Some(&State::Valid));
    let events = [stored(SLOT, 0), pages(IOVA, 0, true), Event::Waited, Event::Released(Pfn(7))];
    assert_eq!(run(&mut checker, &events), Ok(()));
    assert_eq!(checker.state(SLOT), Some(&State::InvalidClean));
    assert_eq!(checker.unclean().count(), 0);
}

#[test]
fn bad_a_page_is_freed_under_its_mapping() {
    let mut checker = leaf_checker(RULES, place(), entry(7));
    assert_eq!(run(&mut checker, &[Event::Released(Pfn(7))]), Err(Violation::ReleasedInUse { pa: SLOT, frame: Pfn(7) }));
}

#[test]
fn bad_a_page_is_freed_before_the_wait() {
    for events in [&[][..], &[pages(IOVA, 0, true)]] {
        let mut checker = leaf_checker(RULES, place(), entry(7));
        assert_eq!(run(&mut checker, &[stored(SLOT, 0)]), Ok(()));
        assert_eq!(run(&mut checker, events), Ok(()));
        let broken = run(&mut checker, &[Event::Released(Pfn(7))]);
        assert!(matches!(broken, Err(Violation::ReleasedUnclean { frame: Pfn(7), missing: Some(Need::Pages { .. }), .. })));
        assert_eq!(run(&mut checker, &[Event::Released(Pfn(8))]), Ok(()), "another frame is nobody's business");
    }
}

#[test]
fn bad_an_invalidation_that_does_not_cover_the_entry_pays_nothing() {
    let elsewhere = pages(IOVA.offset(4096), 0, true);
    let other_domain = iotlb(IotlbScope::Domain(DomainId(6)));
    let pasid = PasidIotlbScope { domain: DOMAIN, pasid: Pasid(0), pages: None };
    let other_cache = Event::Issued(Command::Unit(Invalidation::PasidIotlb(pasid)));
    for useless in [elsewhere, other_domain, other_cache, context_device()] {
        let mut checker = leaf_checker(RULES, place(), entry(7));
        let events = [stored(SLOT, 0), useless, Event::Waited, Event::Released(Pfn(7))];
        assert!(matches!(run(&mut checker, &events), Err(Violation::ReleasedUnclean { .. })), "{useless:?}");
    }
}

#[test]
fn good_a_wider_invalidation_pays_too() {
    let whole = Event::Issued(Command::Unit(Invalidation::All));
    for wider in
        [pages(Iova(0x4000_0000), 9, true), pages(Iova(0), 52, false), iotlb(IotlbScope::Domain(DOMAIN)), iotlb(IotlbScope::Global), whole]
    {
        let mut checker = leaf_checker(RULES, place(), entry(7));
        let covers =
            !matches!(wider, Event::Issued(Command::Unit(Invalidation::Iotlb(IotlbScope::Pages { range, .. }))) if range.order == 9);
        let result = run(&mut checker, &[stored(SLOT, 0), wider, Event::Waited, Event::Released(Pfn(7))]);
        assert_eq!(result.is_ok(), covers, "{wider:?}");
    }
}

#[test]
fn bad_an_entry_is_set_again_before_it_is_clean() {
    let mut checker = leaf_checker(RULES, place(), entry(7));
    let broken = run(&mut checker, &[stored(SLOT, 0), stored(SLOT, entry(8))]);
    assert!(matches!(broken, Err(Violation::ReusedUnclean { pa: SLOT, missing: Some(Need::Pages { .. }) })));
    assert!(matches!(checker.state(SLOT), Some(State::ValidUnclean(_))));
}

#[test]
fn good_a_page_is_replaced_in_one_store_and_the_old_one_freed_later() {
    let mut checker = leaf_checker(RULES, place(), entry(7));
    assert_eq!(run(&mut checker, &[stored(SLOT, entry(8))]), Ok(()));
    assert!(matches!(checker.clone().step(&Event::Released(Pfn(7))), Err(Violation::ReleasedUnclean { .. })));
    assert_eq!(run(&mut checker, &[pages(IOVA, 0, true), Event::Waited, Event::Released(Pfn(7))]), Ok(()));
    assert_eq!(checker.state(SLOT), Some(&State::Valid));
}

#[test]
fn good_more_permission_and_software_bits_owe_nothing() {
    let narrow = SecondStageEntry::from_bits(entry(7)).with_write(false);
    let mut checker = leaf_checker(RULES, place(), narrow.into_bits());
    let noted = narrow.with_write(true).with_ignored_high(0x155);
    assert_eq!(run(&mut checker, &[stored(SLOT, noted.with_write(false).into_bits()), stored(SLOT, noted.into_bits())]), Ok(()));
    assert_eq!(checker.state(SLOT), Some(&State::Valid));
}

#[test]
fn bad_less_permission_owes_an_invalidation() {
    let mut checker = leaf_checker(RULES, place(), entry(7));
    let narrow = SecondStageEntry::from_bits(entry(7)).with_write(false).into_bits();
    assert_eq!(run(&mut checker, &[stored(SLOT, narrow)]), Ok(()));
    assert_eq!(checker.unclean().collect::<Vec<_>>(), [SLOT]);
}

#[test]
fn a_pointer_needs_an_invalidation_without_the_leaf_only_hint_over_all_it_leads_to() {
    let place = Place { first: Iova(0x4020_0000), span_bytes: 2 << 20, ..place() };
    for (order, leaf_only, good) in [(9, false, true), (9, true, false), (8, false, false)] {
        let mut checker = Checker::new(RULES);
        checker.declare(SLOT, Kind::Second { level: 2 }, place, &[entry(7)]);
        let events = [stored(SLOT, 0), pages(place.first, order, leaf_only), Event::Waited, Event::Released(Pfn(7))];
        assert_eq!(run(&mut checker, &events).is_ok(), good, "AM {order}, IH {leaf_only}");
    }
}

#[test]
fn good_a_context_entry_is_cleared_cleaned_and_only_then_rewritten() {
    let mut checker = context_checker();
    let [low, high] = context_words(9, DomainId(6));
    let events = [
        stored(SLOT, context_words(3, DOMAIN)[0] & !1),
        context_device(),
        Event::Waited,
        iotlb(IotlbScope::Domain(DOMAIN)),
        Event::Waited,
        stored(SLOT.offset(8), high),
        stored(SLOT, low),
        Event::Released(Pfn(3)),
    ];
    assert_eq!(run(&mut checker, &events), Ok(()));
    assert_eq!(checker.state(SLOT), Some(&State::Valid));
}

#[test]
fn bad_a_present_context_entry_is_changed_in_place() {
    let [low, high] = context_words(9, DomainId(6));
    for word in [stored(SLOT, low), stored(SLOT.offset(8), high)] {
        assert_eq!(context_checker().step(&word), Err(Violation::Torn { pa: SLOT }));
    }
    let noted = context_words(3, DOMAIN)[1] | 0x78;
    assert_eq!(context_checker().step(&stored(SLOT.offset(8), noted)), Ok(()), "bits 70:67 are software's");
}

#[test]
fn bad_an_absent_context_entry_is_touched_before_it_is_clean() {
    let mut checker = context_checker();
    let broken = run(&mut checker, &[stored(SLOT, 0), stored(SLOT.offset(8), 0)]);
    assert!(matches!(broken, Err(Violation::ReusedUnclean { missing: Some(Need::Context(Some((DEVICE, _)))), .. })));
}

#[test]
fn bad_the_iotlb_is_cleaned_before_the_context_cache() {
    let clear = stored(SLOT, 0);
    let (outer, inner) = (context_device(), iotlb(IotlbScope::Domain(DOMAIN)));
    let orders = [
        (vec![clear, outer, Event::Waited, inner, Event::Waited], true),
        (vec![clear, inner, Event::Waited, outer, Event::Waited], false),
        // The refill may happen between the two, unless the outer one is complete.
        (vec![clear, outer, inner, Event::Waited], false),
        (vec![clear, context(ContextScope::Domain(DOMAIN)), Event::Waited, inner, Event::Waited], true),
        (vec![clear, context(ContextScope::Global), Event::Waited, iotlb(IotlbScope::Global), Event::Waited], true),
    ];
    for (order, good) in orders {
        let mut checker = context_checker();
        assert_eq!(run(&mut checker, &order), Ok(()));
        assert_eq!(checker.unclean().next().is_none(), good, "{order:?}");
    }
}

#[test]
fn a_root_entry_needs_global_invalidations_of_every_cache() {
    for scalable in [false, true] {
        let mut checker = Checker::new(VtdRules { scalable, ..RULES });
        let word = RootEntry::new().with_present(true).with_context_table(3).into_bits() as u64;
        checker.declare(SLOT, Kind::Root, place(), &[word, 0]);
        let mut events = vec![stored(SLOT, 0), context_device(), Event::Waited];
        assert_eq!(run(&mut checker, &events), Ok(()));
        assert_eq!(checker.unclean().count(), 1, "one function is not enough");
        events = vec![context(ContextScope::Global), Event::Waited];
        if scalable {
            events.extend([Event::Issued(Command::Unit(Invalidation::Pasid(PasidScope::Global))), Event::Waited]);
        }
        events.extend([iotlb(IotlbScope::Global), Event::Waited, Event::Released(Pfn(3))]);
        assert_eq!(run(&mut checker, &events), Ok(()));
        assert_eq!(checker.unclean().count(), 0);
    }
}

#[test]
fn a_pasid_directory_entry_needs_every_pasid_of_its_domain() {
    let word = PasidDirectoryEntry::new().with_present(true).with_table(3).into_bits();
    let cache = |scope| Event::Issued(Command::Unit(Invalidation::Pasid(scope)));
    let one = cache(PasidScope::One { domain: DOMAIN, pasid: Pasid(3) });
    for (outer, good) in [(cache(PasidScope::Domain(DOMAIN)), true), (cache(PasidScope::Global), true), (one, false)] {
        let mut checker = Checker::new(VtdRules { scalable: true, ..RULES });
        checker.declare(SLOT, Kind::PasidDirectory, place(), &[word]);
        let events = [stored(SLOT, 0), outer, Event::Waited, iotlb(IotlbScope::Domain(DOMAIN)), Event::Waited, Event::Released(Pfn(3))];
        assert_eq!(run(&mut checker, &events).is_ok(), good, "{outer:?}");
    }
}

#[test]
fn what_a_pasid_entry_needs_depends_on_its_stages() {
    let pasid = Pasid(3);
    let one = Event::Issued(Command::Unit(Invalidation::Pasid(PasidScope::One { domain: DOMAIN, pasid })));
    let by_pasid = Event::Issued(Command::Unit(Invalidation::PasidIotlb(PasidIotlbScope { domain: DOMAIN, pasid, pages: None })));
    for (kind, inner, good) in [
        (PGTT_SECOND, iotlb(IotlbScope::Domain(DOMAIN)), true),
        (PGTT_SECOND, by_pasid, false),
        (PGTT_FIRST, by_pasid, true),
        (PGTT_FIRST, iotlb(IotlbScope::Domain(DOMAIN)), true),
        (PGTT_FIRST, pages(IOVA, 0, false), false),
    ] {
        let low =
            PasidEntryLow::new().with_present(true).with_translation_type(kind).with_domain(DOMAIN.0).with_second_stage(3).into_bits();
        let first = PasidEntryFirstStage::new().with_first_stage(4).into_bits();
        let mut checker = Checker::new(VtdRules { scalable: true, ..RULES });
        let words = [low as u64, (low >> 64) as u64, first, 0, 0, 0, 0, 0];
        checker.declare(SLOT, Kind::PasidEntry, Place { pasid: Some(pasid), ..place() }, &words);
        let freed = if kind == PGTT_FIRST { Pfn(4) } else { Pfn(3) };
        let events = [stored(SLOT, words[0] & !1), one, Event::Waited, inner, Event::Waited, Event::Released(freed)];
        assert_eq!(run(&mut checker, &events).is_ok(), good, "PGTT {kind}, {inner:?}");
    }
}

#[test]
fn good_and_bad_a_device_tlb_is_told_last_and_waited_for() {
    let place = Place { device_tlb: true, ..place() };
    let request =
        |source| DeviceInvalidation { source, pasid: None, every_pasid: false, range: PageRange { address: IOVA, order: 0 }, itag: 0 };
    let (unit, device) = (pages(IOVA, 0, true), Event::Issued(Command::Device(request(DEVICE))));
    let stranger = Event::Issued(Command::Device(request(Bdf::new(1, 0, 0))));
    for (order, good) in [
        (vec![unit, device, Event::Waited], true),
        (vec![unit, Event::Waited, device, Event::Waited], true),
        (vec![device, unit, Event::Waited], false),
        (vec![unit, Event::Waited], false),
        (vec![unit, stranger, Event::Waited], false),
    ] {
        let mut checker = leaf_checker(RULES, place, entry(7));
        assert_eq!(run(&mut checker, &[stored(SLOT, 0)]), Ok(()));
        assert_eq!(run(&mut checker, &order), Ok(()));
        assert_eq!(run(&mut checker, &[Event::Released(Pfn(7))]).is_ok(), good, "{order:?}");
    }
}

#[test]
fn good_and_bad_a_store_is_flushed_before_the_invalidation() {
    let rules = VtdRules::of(&Capabilities { coherent: false, ..Default::default() }, false);
    let (flush, other_line) = (Event::Flushed { line: SLOT.offset(60) }, Event::Flushed { line: SLOT.offset(64) });
    let clean = pages(IOVA, 0, true);
    for (order, good) in [
        (vec![flush, clean, Event::Waited], true),
        (vec![Event::FlushedAll, clean, Event::Waited], true),
        (vec![clean, flush, Event::Waited], false),
        (vec![other_line, clean, Event::Waited], false),
        (vec![clean, Event::Waited], false),
    ] {
        let mut checker = leaf_checker(rules, place(), entry(7));
        assert_eq!(run(&mut checker, &[stored(SLOT, 0)]), Ok(()));
        assert_eq!(run(&mut checker, &order), Ok(()));
        assert_eq!(checker.unclean().next().is_none(), good, "{order:?}");
    }
}

#[test]
fn a_fresh_mapping_owes_an_invalidation_only_under_caching_mode() {
    for caching_mode in [false, true] {
        let mut checker = leaf_checker(VtdRules { caching_mode, ..RULES }, place(), 0);
        assert_eq!(run(&mut checker, &[stored(SLOT, entry(7))]), Ok(()));
        assert_eq!(checker.unclean().count(), usize::from(caching_mode));
        assert_eq!(run(&mut checker, &[pages(IOVA, 0, true), Event::Waited]), Ok(()));
        assert_eq!(checker.unclean().count(), 0);
    }
}

#[test]
fn good_and_bad_hardware_uses_an_old_word_until_it_is_cleaned_away() {
    let used = |value| Event::Used { pa: SLOT, value };
    let mut checker = leaf_checker(RULES, place(), entry(7));
    assert_eq!(run(&mut checker, &[used(entry(7)), stored(SLOT, entry(8)), used(entry(7)), used(entry(8))]), Ok(()));
    assert_eq!(run(&mut checker, &[pages(IOVA, 0, true), Event::Waited, used(entry(8))]), Ok(()));
    assert_eq!(checker.step(&used(entry(7))), Err(Violation::StaleUse { pa: SLOT, value: entry(7) }));
    checker.retire(SLOT);
    assert_eq!(checker.step(&used(entry(7))), Ok(()), "it is no entry any more");
}

/// A unit over four tables of one device, and the checker beside it.
struct Watched {
    unit: Unit,
    words: Vec<u64>,
    checker: Checker<VtdRules>,
    tail: u64,
}

const ROOT: u64 = 1;

impl Watched {
    fn new() -> Self {
        let two = Geometry { sets: 1, ways: 2 };
        let params = Params { iotlb: two, psc: [two; 4], ..Params::default() };
        let mut it =
            Self { unit: Unit::new(Capabilities::default(), params), words: vec![0; 16 * 512], checker: Checker::new(RULES), tail: 0 };
        it.words[512 + usize::from(DEVICE.bus()) * 2] = RootEntry::new().with_present(true).with_context_table(2).into_bits() as u64;
        let context = context_words(3, DOMAIN);
        it.words[1024..1026].copy_from_slice(&context);
        // Two tables of each lower level, for software to switch between.
        for (frame, next) in [(3, 4), (4, 5), (5, 6), (7, 6)] {
            it.words[frame * 512] = entry(next);
        }
        for frame in [6, 8] {
            for page in 0..4 {
                it.words[frame * 512 + page] = entry(0x100 + frame as u64 * 16 + page as u64);
            }
        }
        for (frame, level) in [(3u64, 4u8), (4, 3), (5, 2)] {
            let place = Place { first: Iova(0), span_bytes: 4096 << (9 * (level - 1)), ..place() };
            it.checker.declare(Pa(frame << 12), Kind::Second { level }, place, &[it.words[frame as usize * 512]]);
        }
        for page in 0..4u64 {
            let place = Place { first: Iova(page << 12), ..place() };
            for frame in [6u64, 8] {
                let pa = Pa((frame << 12) + page * 8);
                it.checker.declare(pa, Kind::Second { level: 1 }, place, &[it.words[(pa.0 / 8) as usize]]);
            }
        }
        it.unit.write_register(Register::Rtaddr, ROOT << 12, &mut Plain);
        it.unit.write_register(Register::Gcmd, 1 << 30 | 1 << 26, &mut Plain);
        it.unit.write_register(Register::Gcmd, 1 << 31 | 1 << 26, &mut Plain);
        it.unit.register_drained();
        it
    }

    fn store(&mut self, pa: Pa, value: u64) {
        self.words[(pa.0 / 8) as usize] = value;
        // What software does here need not be allowed; what hardware makes of it is judged.
        let _ = self.checker.step(&stored(pa, value));
    }

    fn invalidate(&mut self, descriptor: IotlbDescriptor, d: &mut dyn iommu_model::Decisions) {
        self.tail = (self.tail + 16) % 4096;
        self.unit.write_register(Register::Iqt, self.tail, d);
        let bits = descriptor.into_bits();
        let mut input = QueueInput::Continue;
        loop {
            input = match self.unit.queue_advance(input, d) {
                QueueProgress::Idle => break,
                QueueProgress::FetchDescriptor { .. } => QueueInput::Descriptor([bits as u64, (bits >> 64) as u64]),
                QueueProgress::Drain { .. } => QueueInput::Drained,
                QueueProgress::Invalidated { what, .. } => {
                    self.checker.step(&Event::Issued(Command::Unit(what.asked))).expect("to issue is no crime");
                    QueueInput::Continue
                }
                other => panic!("{other:?}"),
            };
        }
        self.checker.step(&Event::Waited).expect("nor is waiting");
    }

    /// A read in two halves: `between` happens before the walk's `at`-th fetch is answered.
    fn read(&mut self, iova: Iova, at: usize, between: impl FnOnce(&mut Self), d: &mut dyn iommu_model::Decisions) -> Result<(), Broken> {
        let walk = self.unit.begin(Request { source: DEVICE, iova, access: Access::Read, pasid: None }).expect("a walker is free");
        let (mut answer, mut fetches, mut between) = (None, 0, Some(between));
        loop {
            let progress = self.unit.advance(walk, answer.take(), d);
            match progress {
                Progress::Fetch { pa, .. } => {
                    let index = (pa.0 / 8) as usize & (16 * 512 - 2);
                    let words = [self.words[(pa.0 / 8) as usize], self.words[index | 1]];
                    if fetches == at
                        && let Some(between) = between.take()
                    {
                        between(self);
                    }
                    fetches += 1;
                    answer = Some(Fetched::Words(words));
                }
                progress if progress.is_end() => break,
                _ => {}
            }
        }
        for word in &self.unit.last_provenance() {
            self.checker.step(&Event::Used { pa: word.pa, value: word.value })?;
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Act {
    Store { which: usize, value: u64 },
    Pages { page: u64, order: u8, leaf_only: bool },
    Domain,
    Read { page: u64, at: usize, between: Vec<Act> },
}

fn act() -> impl Strategy<Value = Act> {
    let leaf = (0usize..11, 0u64..6).prop_map(|(which, frame)| Act::Store { which, value: if frame == 0 { 0 } else { frame } });
    let flush = (0u64..4, 0u8..20, any::<bool>()).prop_map(|(page, order, leaf_only)| Act::Pages { page, order: order.min(18), leaf_only });
    let simple = prop_oneof![3 => leaf, 3 => flush, 1 => Just(Act::Domain)];
    let read =
        (0u64..4, 0usize..6, prop::collection::vec(simple.clone(), 0..4)).prop_map(|(page, at, between)| Act::Read { page, at, between });
    prop_oneof![2 => simple, 3 => read]
}

fn perform(it: &mut Watched, act: &Act, d: &mut dyn iommu_model::Decisions) -> Result<(), Broken> {
    let descriptor = IotlbDescriptor::new().with_kind(TYPE_IOTLB).with_domain(DOMAIN.0);
    match act {
        Act::Store { which, value } => {
            let (pa, target) = match *which {
                which @ 0..4 => (Pa((6 << 12) + which as u64 * 8), 0x200 + value),
                which @ 4..8 => (Pa((8 << 12) + (which as u64 - 4) * 8), 0x300 + value),
                8 => (Pa(5 << 12), if value % 2 == 0 { 6 } else { 8 }),
                9 => (Pa(4 << 12), if value % 2 == 0 { 5 } else { 7 }),
                _ => (Pa(3 << 12), 4),
            };
            it.store(pa, if *value == 0 { 0 } else { entry(target) });
        }
        Act::Pages { page, order, leaf_only } => {
            let descriptor = descriptor.with_granularity(GRANULARITY_NARROW).with_page(*page).with_address_mask(*order);
            it.invalidate(descriptor.with_leaf_only(*leaf_only), d);
        }
        Act::Domain => it.invalidate(descriptor.with_granularity(GRANULARITY_DOMAIN), d),
        Act::Read { page, at, between } => {
            // Plain to begin with, then anything.
            let mut answers = 0u32;
            let mut inner = |question: Question| {
                answers += 1;
                answers / 3 % question.options()
            };
            let run = |it: &mut Watched| {
                for act in between {
                    perform(it, act, &mut inner).expect("no use is judged here");
                }
            };
            it.read(Iova(page << 12), *at, run, d)?;
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// Whatever software does, in whatever order, and whatever the hardware may choose: no result comes from a word that
    /// an invalidation has cleaned away.
    #[test]
    fn the_model_never_uses_what_was_cleaned_away(acts in prop::collection::vec(act(), 1..60), answers in prop::collection::vec(0u32..4, 1..8)) {
        let mut it = Watched::new();
        let mut n = 0;
        let mut d = |question: Question| {
            n += 1;
            answers[n % answers.len()].min(question.options() - 1)
        };
        for act in &acts {
            prop_assert_eq!(perform(&mut it, act, &mut d), Ok(()));
        }
    }
}

#[test]
fn the_watched_unit_walks_down_to_its_leaves() {
    let mut it = Watched::new();
    for page in 0..4 {
        it.read(Iova(page << 12), 99, |_| (), &mut Plain).expect("nothing is stale");
        assert_eq!(it.unit.last_provenance().last().expect("it has words").pa, Pa((6 << 12) + page * 8));
    }
}
