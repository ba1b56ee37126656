//! AMD-Vi.

use super::{run, watch};
use iommu_model::amd::{AddressRange, Capabilities, CommandInput, CommandProgress, Invalidation, PagesScope, Register, Unit};
use iommu_model::slot::amd::{AmdRules, Command, Kind, Need};
use iommu_model::slot::{Checker, Event, Place, State, Violation};
use iommu_model::spec::amd::command::{CompletionWait, InvalidatePages, OPCODE_COMPLETION_WAIT, OPCODE_INVALIDATE_PAGES};
use iommu_model::spec::amd::control::Control;
use iommu_model::spec::amd::device_table::{DeviceEntryHigh, DeviceEntryLow, GUEST_PAGING_5};
use iommu_model::spec::amd::guest_table::{GuestCr3Entry, GuestEntry};
use iommu_model::spec::amd::host_table::{HostEntry, NEXT_SIZED};
use iommu_model::spec::amd::register::{BufferBase, DeviceTableBase};
use iommu_model::{Bdf, Decisions, DeviceInvalidation, DomainId, Iova, Pa, PageRange, Params, Pasid, Pfn};

type E = Event<Command>;

const RULES: AmdRules = AmdRules { flush: false, caches_absence: false, wait_between: false };
const DEVICE: Bdf = Bdf::new(0x3b, 0, 0);
const DOMAIN: DomainId = DomainId(5);
const PASID: Pasid = Pasid(2);
const IOVA: Iova = Iova(0x4020_3000);
const SLOT: Pa = Pa(0x1000);
const LEAF: Kind = Kind::Host { level: 1 };

fn place() -> Place {
    Place { source: DEVICE, domain: DOMAIN, pasid: None, first: IOVA, span_bytes: 4096, device_tlb: false }
}

fn checker(rules: AmdRules, kind: Kind, place: Place, words: &[u64]) -> Checker<AmdRules> {
    let mut checker = Checker::new(rules);
    checker.declare(SLOT, kind, place, words);
    checker
}

fn stored(word: u64, value: u64) -> E {
    Event::Stored { pa: SLOT.offset(8 * word), value }
}

/// A 16-byte store of the lower (0) or upper (1) half.
fn half(which: u64, bits: u128) -> E {
    Event::StoredPair { pa: SLOT.offset(16 * which), values: [bits as u64, (bits >> 64) as u64] }
}

fn unit(invalidation: Invalidation) -> E {
    Event::Issued(Command::Unit(invalidation))
}

fn pages(pasid: Option<Pasid>, range: AddressRange, directories: bool) -> E {
    unit(Invalidation::Pages(PagesScope { domain: DOMAIN, pasid, range, directories }))
}

fn page(iova: Iova) -> AddressRange {
    AddressRange { first: iova.page_number(), last: iova.page_number() }
}

const fn low() -> DeviceEntryLow {
    DeviceEntryLow::new()
        .with_valid(true)
        .with_translation_valid(true)
        .with_mode(4)
        .with_root(3)
        .with_read(true)
        .with_write(true)
        .with_domain(DOMAIN.0)
}

/// What Linux leaves of an entry that must block.
const BLOCKS: DeviceEntryLow = DeviceEntryLow::new().with_valid(true);

fn device_words(low: DeviceEntryLow, high: DeviceEntryHigh) -> [u64; 4] {
    let (low, high) = (low.into_bits(), high.into_bits());
    [low as u64, (low >> 64) as u64, high as u64, (high >> 64) as u64]
}

fn device_checker(low: DeviceEntryLow, high: DeviceEntryHigh) -> Checker<AmdRules> {
    checker(RULES, Kind::Device, place(), &device_words(low, high))
}

fn host(frame: u64) -> HostEntry {
    HostEntry::new().with_present(true).with_read(true).with_write(true).with_frame(frame)
}

fn unclean(checker: &Checker<AmdRules>) -> bool {
    checker.unclean().next().is_some()
}

#[test]
fn good_a_device_entry_is_blocked_cleaned_and_its_tables_freed() {
    let mut checker = device_checker(low(), DeviceEntryHigh::new());
    let events = [
        half(0, BLOCKS.into_bits()),
        unit(Invalidation::Device(DEVICE)),
        pages(None, AddressRange::ALL, true),
        Event::Waited,
        Event::Released(Pfn(3)),
        half(0, low().with_root(4).into_bits()),
    ];
    assert_eq!(run(&mut checker, &events), Ok(()));
    assert!(unclean(&checker), "what blocked may be cached");
    assert_eq!(run(&mut checker, &[unit(Invalidation::Device(DEVICE)), pages(None, AddressRange::ALL, true), Event::Waited]), Ok(()));
    assert_eq!(checker.state(SLOT), Some(&State::Valid));
}

#[test]
fn bad_a_device_entry_is_zeroed_and_the_device_is_let_through() {
    for low in [low(), BLOCKS] {
        let mut checker = device_checker(low, DeviceEntryHigh::new());
        assert_eq!(checker.step(&half(0, 0)), Err(Violation::Opened { pa: SLOT }), "V = 0 blocks nothing");
    }
}

#[test]
fn bad_the_invalidations_of_a_device_entry_are_too_few_too_narrow_or_in_the_wrong_order() {
    let device = unit(Invalidation::Device(DEVICE));
    let all = pages(None, AddressRange::ALL, true);
    for (events, good) in [
        (vec![device, all, Event::Waited], true),
        (vec![unit(Invalidation::All), Event::Waited], true),
        (vec![device, all], false),
        (vec![device, Event::Waited], false),
        (vec![all, device, Event::Waited], false),
        (vec![unit(Invalidation::Device(Bdf::new(1, 0, 0))), all, Event::Waited], false),
        (vec![device, pages(None, AddressRange::ALL, false), Event::Waited], false),
        (vec![device, pages(None, page(IOVA), true), Event::Waited], false),
    ] {
        let mut checker = device_checker(low(), DeviceEntryHigh::new());
        assert_eq!(run(&mut checker, &[half(0, BLOCKS.into_bits())]), Ok(()));
        assert_eq!(run(&mut checker, &events), Ok(()));
        assert_eq!(run(&mut checker, &[Event::Released(Pfn(3))]).is_ok(), good, "{events:?}");
    }
}

#[test]
fn a_unit_may_need_each_stage_complete_before_the_next() {
    let device = unit(Invalidation::Device(DEVICE));
    let all = pages(None, AddressRange::ALL, true);
    for (events, good) in [(vec![device, all, Event::Waited], false), (vec![device, Event::Waited, all, Event::Waited], true)] {
        let rules = AmdRules { wait_between: true, ..RULES };
        let mut checker = checker(rules, Kind::Device, place(), &device_words(low(), DeviceEntryHigh::new()));
        assert_eq!(run(&mut checker, &[half(0, BLOCKS.into_bits())]), Ok(()));
        assert_eq!(run(&mut checker, &events), Ok(()));
        assert_eq!(!unclean(&checker), good, "{events:?}");
    }
}

#[test]
fn good_a_valid_device_entry_changes_root_and_domain_in_one_128_bit_store() {
    let mut checker = device_checker(low(), DeviceEntryHigh::new());
    assert_eq!(run(&mut checker, &[half(0, low().with_root(4).with_domain(6).into_bits())]), Ok(()));
    assert!(matches!(checker.step(&Event::Released(Pfn(3))), Err(Violation::ReleasedUnclean { .. })));
    let interrupts = DeviceEntryHigh::new().with_interrupt_table(0x1234).into_bits();
    assert_eq!(run(&mut checker, &[half(1, interrupts)]), Ok(()), "interrupts are no translation");
}

#[test]
fn bad_a_valid_device_entry_changes_root_and_domain_in_two_64_bit_stores() {
    let words = device_words(low().with_root(4).with_domain(6), DeviceEntryHigh::new());
    let clean = [unit(Invalidation::Device(DEVICE)), pages(None, AddressRange::ALL, true), Event::Waited];
    for (between, good) in [(&clean[..], true), (&[][..], false)] {
        let mut checker = device_checker(low(), DeviceEntryHigh::new());
        assert_eq!(run(&mut checker, &[stored(1, words[1])]), Ok(()));
        assert_eq!(run(&mut checker, between), Ok(()));
        let result = run(&mut checker, &[stored(0, words[0])]);
        assert_eq!(result.is_ok(), good, "the unit may have read the new domain with the old root: {result:?}");
    }
}

#[test]
fn good_and_bad_the_depth_of_guest_tables_changes_only_while_the_entry_is_absent() {
    let guest = low().with_mode(0).with_guest_valid(true).with_guest_levels(1).with_guest_root(8);
    let deep = DeviceEntryHigh::new().with_guest_paging(GUEST_PAGING_5).into_bits();
    let mut torn = device_checker(guest, DeviceEntryHigh::new());
    assert_eq!(torn.step(&half(1, deep)), Err(Violation::Torn { pa: SLOT }));
    let mut whole = device_checker(guest, DeviceEntryHigh::new());
    let clean = [
        unit(Invalidation::Device(DEVICE)),
        pages(None, AddressRange::ALL, true),
        pages(Some(Pasid(0)), AddressRange::ALL, true),
        Event::Waited,
    ];
    assert_eq!(run(&mut whole, &[half(0, BLOCKS.into_bits())]), Ok(()));
    assert_eq!(run(&mut whole, &clean), Ok(()));
    assert_eq!(run(&mut whole, &[half(1, deep), half(0, guest.into_bits())]), Ok(()), "upper half first, V and GV last");
    let mut hasty = device_checker(guest, DeviceEntryHigh::new());
    let broken = run(&mut hasty, &[half(0, BLOCKS.into_bits()), half(1, deep)]);
    assert_eq!(broken, Ok(()), "an absent upper half does not count");
    assert!(matches!(hasty.step(&half(0, guest.into_bits())), Err(Violation::ReusedUnclean { .. })));
    let mut host_only = device_checker(low(), DeviceEntryHigh::new());
    assert_eq!(host_only.step(&half(1, deep)), Ok(()), "without guest tables their depth does not count");
    let mut last = device_checker(BLOCKS, DeviceEntryHigh::new());
    let broken = run(&mut last, &[half(0, guest.into_bits()), half(1, deep)]);
    assert_eq!(broken, Err(Violation::Torn { pa: SLOT }), "GV was set before what it needs");
}

#[test]
fn a_guest_entry_needs_its_pasid_invalidated_and_a_host_entry_none() {
    let guest = GuestEntry::new().with_present(true).with_user(true).with_frame(7).into_bits();
    for (kind, word, pasid, good) in [
        (Kind::Guest { level: 1 }, guest, Some(PASID), true),
        (Kind::Guest { level: 1 }, guest, None, false),
        (Kind::Guest { level: 1 }, guest, Some(Pasid(1)), false),
        (LEAF, host(7).into_bits(), None, true),
        (LEAF, host(7).into_bits(), Some(PASID), false),
    ] {
        let place = Place { pasid: if kind == LEAF { None } else { Some(PASID) }, ..place() };
        let mut checker = checker(RULES, kind, place, &[word]);
        let events = [stored(0, 0), pages(pasid, page(IOVA), false), Event::Waited, Event::Released(Pfn(7))];
        assert_eq!(run(&mut checker, &events).is_ok(), good, "{kind:?}, {pasid:?}");
    }
}

#[test]
fn a_gcr3_entry_needs_every_page_of_its_pasid() {
    let word = GuestCr3Entry::new().with_valid(true).with_frame(7).into_bits();
    for (event, good) in [
        (pages(Some(PASID), AddressRange::ALL, true), true),
        (pages(Some(PASID), AddressRange::ALL, false), false),
        (pages(Some(PASID), page(IOVA), true), false),
        (pages(Some(Pasid(1)), AddressRange::ALL, true), false),
    ] {
        let mut checker = checker(RULES, Kind::GuestRoot, Place { pasid: Some(PASID), ..place() }, &[word]);
        let events = [stored(0, 0), event, Event::Waited, Event::Released(Pfn(7))];
        assert_eq!(run(&mut checker, &events).is_ok(), good, "{event:?}");
    }
}

#[test]
fn good_and_bad_a_page_is_freed_after_the_wait() {
    let one = pages(None, page(IOVA), false);
    let elsewhere = pages(None, page(IOVA.offset(4096)), false);
    let other = unit(Invalidation::Pages(PagesScope { domain: DomainId(6), pasid: None, range: AddressRange::ALL, directories: true }));
    for (events, good) in [
        (vec![one, Event::Waited], true),
        (vec![one], false),
        (vec![], false),
        (vec![elsewhere, Event::Waited], false),
        (vec![other, Event::Waited], false),
        (vec![unit(Invalidation::Device(DEVICE)), Event::Waited], false),
        (vec![unit(Invalidation::Interrupts(DEVICE)), Event::Waited], false),
    ] {
        let mut checker = checker(RULES, LEAF, place(), &[host(7).into_bits()]);
        assert_eq!(run(&mut checker, &[stored(0, 0)]), Ok(()));
        assert_eq!(run(&mut checker, &events), Ok(()));
        assert_eq!(run(&mut checker, &[Event::Released(Pfn(7))]).is_ok(), good, "{events:?}");
    }
}

#[test]
fn a_pointer_needs_pde_over_all_that_it_leads_to() {
    let word = host(7).with_next_level(1).into_bits();
    let place = Place { first: Iova(0x4020_0000), span_bytes: 2 << 20, ..place() };
    let range = AddressRange { first: 0x4_0200, last: 0x4_03ff };
    for (range, directories, good) in [(range, true, true), (range, false, false), (AddressRange { last: 0x4_03fe, ..range }, true, false)]
    {
        let mut checker = checker(RULES, Kind::Host { level: 2 }, place, &[word]);
        let events = [stored(0, 0), pages(None, range, directories), Event::Waited, Event::Released(Pfn(7))];
        assert_eq!(run(&mut checker, &events).is_ok(), good, "{range:?}, PDE {directories}");
    }
}

#[test]
fn a_page_of_coded_size_leads_to_all_of_it() {
    // 64 KiB: page-number bits 3:0 are 0111.
    let word = host(0x107).with_next_level(NEXT_SIZED).into_bits();
    let mut checker = checker(RULES, LEAF, place(), &[word]);
    for (frame, held) in [(0xff, false), (0x100, true), (0x10f, true), (0x110, false)] {
        assert_eq!(checker.step(&Event::Released(Pfn(frame))).is_err(), held, "{frame:#x}");
    }
}

#[test]
fn a_fresh_page_owes_an_invalidation_only_where_absence_is_cached() {
    for caches_absence in [false, true] {
        let mut checker = checker(AmdRules { caches_absence, ..RULES }, LEAF, place(), &[0]);
        assert_eq!(run(&mut checker, &[stored(0, host(7).into_bits())]), Ok(()));
        assert_eq!(unclean(&checker), caches_absence);
        assert_eq!(run(&mut checker, &[pages(None, page(IOVA), false), Event::Waited]), Ok(()));
        assert!(!unclean(&checker));
    }
}

#[test]
fn good_more_permission_owes_nothing_and_bad_less_is_not_cleaned() {
    let mut checker = checker(RULES, LEAF, place(), &[host(7).with_write(false).into_bits()]);
    assert_eq!(run(&mut checker, &[stored(0, host(7).with_ignored_1(5).into_bits())]), Ok(()));
    assert_eq!(checker.state(SLOT), Some(&State::Valid));
    assert_eq!(run(&mut checker, &[stored(0, host(7).with_write(false).into_bits())]), Ok(()));
    assert!(unclean(&checker));
    let broken = run(&mut checker, &[stored(0, 0), stored(0, host(8).into_bits())]);
    let missing = Some(Need::Pages { domain: DOMAIN, pasid: None, first: IOVA, span_bytes: 4096, non_leaf: false });
    assert_eq!(broken, Err(Violation::ReusedUnclean { pa: SLOT, missing }));
}

#[test]
fn good_and_bad_a_device_tlb_is_told_last() {
    let device = |source| {
        let range = PageRange { address: IOVA, order: 0 };
        Event::Issued(Command::Device(DeviceInvalidation { source, pasid: None, every_pasid: false, range, itag: 0 }))
    };
    let one = pages(None, page(IOVA), false);
    for (events, good) in [
        (vec![one, device(DEVICE), Event::Waited], true),
        (vec![device(DEVICE), one, Event::Waited], false),
        (vec![one, Event::Waited], false),
        (vec![one, device(Bdf::new(1, 0, 0)), Event::Waited], false),
    ] {
        let mut checker = checker(RULES, LEAF, Place { device_tlb: true, ..place() }, &[host(7).into_bits()]);
        assert_eq!(run(&mut checker, &[stored(0, 0)]), Ok(()));
        assert_eq!(run(&mut checker, &events), Ok(()));
        assert_eq!(run(&mut checker, &[Event::Released(Pfn(7))]).is_ok(), good, "{events:?}");
    }
}

#[test]
fn good_and_bad_stores_are_flushed_where_the_unit_does_not_snoop() {
    let (one, flush) = (pages(None, page(IOVA), false), Event::Flushed { line: SLOT });
    for (events, good) in [(vec![flush, one, Event::Waited], true), (vec![one, flush, Event::Waited], false)] {
        let mut checker = checker(AmdRules { flush: true, ..RULES }, LEAF, place(), &[host(7).into_bits()]);
        assert_eq!(run(&mut checker, &[stored(0, 0)]), Ok(()));
        assert_eq!(run(&mut checker, &events), Ok(()));
        assert_eq!(!unclean(&checker), good, "{events:?}");
    }
}

impl watch::Architecture for Unit {
    type Rules = AmdRules;

    fn unit(params: Params) -> Self {
        let mut unit = Self::new(Capabilities { not_present_cached: false, ..Capabilities::default() }, params);
        unit.write_register(Register::DeviceTableBase, DeviceTableBase::new().with_frame(watch::DEVICE_TABLE).into_bits());
        unit.write_register(Register::CommandBase, BufferBase::new().with_frame(watch::CONTEXT).with_length(8).into_bits());
        unit.write_register(Register::Control, Control::new().with_enable(true).with_command_buffer(true).into_bits());
        unit
    }

    fn rules() -> AmdRules {
        RULES
    }

    fn outer_words() -> Vec<(Pa, u64)> {
        let words = device_words(low().with_mode(3).with_root(watch::TOP), DeviceEntryHigh::new());
        words.into_iter().enumerate().map(|(n, word)| (Pa(watch::DEVICE_TABLE << 12).offset(8 * n as u64), word)).collect()
    }

    fn pointer(level: u8, frame: u64) -> u64 {
        host(frame).with_next_level(level - 1).into_bits()
    }

    fn leaf(frame: u64) -> u64 {
        host(frame).into_bits()
    }

    fn declare(checker: &mut Checker<AmdRules>, pa: Pa, level: u8, first: Iova, span_bytes: u64, word: u64) {
        checker.declare(pa, Kind::Host { level }, Place { first, span_bytes, ..place() }, &[word]);
    }

    fn invalidate(&mut self, scope: watch::Scope, d: &mut dyn Decisions) -> Command {
        let plain = InvalidatePages::new().with_opcode(OPCODE_INVALIDATE_PAGES).with_domain(DOMAIN.0);
        let pages = match scope {
            watch::Scope::All => plain.with_sized(true).with_page(u64::MAX >> 13).with_directories(true),
            watch::Scope::Page { page, leaf_only } => plain.with_page(page).with_directories(!leaf_only),
        };
        let mut commands = vec![CompletionWait::new().with_opcode(OPCODE_COMPLETION_WAIT).into_bits(), pages.into_bits()];
        let tail = self.read_register(Register::CommandTail);
        self.write_register(Register::CommandTail, (tail + 32) % 4096);
        let (mut input, mut asked) = (CommandInput::Continue, None);
        loop {
            input = match self.command_advance(input, d) {
                CommandProgress::Idle => break,
                CommandProgress::Fetch { .. } => {
                    let bits = commands.pop().expect("two are there");
                    CommandInput::Command([bits as u64, (bits >> 64) as u64])
                }
                CommandProgress::Invalidated { what, .. } => {
                    asked = asked.or(Some(what.asked));
                    CommandInput::Continue
                }
                CommandProgress::Deferred { .. } | CommandProgress::Completed { .. } => CommandInput::Continue,
                CommandProgress::Drain { .. } => CommandInput::Drained,
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
