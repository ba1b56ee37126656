//! The RISC-V IOMMU.

use super::{run, watch};
use iommu_model::riscv::{
    AddressRange, Capabilities, CommandInput, CommandProgress, DeviceId, Gscid, GvmaScope, Invalidation, Pscid, Register, Unit, VmaScope,
};
use iommu_model::slot::riscv::{Command, Kind, Need, Place, RiscvRules};
use iommu_model::slot::{Checker, Event, State, Violation};
use iommu_model::spec::riscv::command::{FenceCommand, InvalidateCommand, OPCODE_IOFENCE, OPCODE_IOTINVAL};
use iommu_model::spec::riscv::device_context::{
    DirectoryEntry, MODE_PD8, MODE_SV39, SecondStagePointer, TablePointer, TranslationAttributes, TranslationControl,
};
use iommu_model::spec::riscv::msi::{MSI_MODE_BASIC, MsiEntryBasic};
use iommu_model::spec::riscv::paging::PageTableEntry;
use iommu_model::spec::riscv::process_context::ProcessAttributes;
use iommu_model::{Bdf, Decisions, DeviceInvalidation, Iova, Pa, PageRange, Params, Pasid, Pfn};

type E = Event<Command>;

const RULES: RiscvRules = RiscvRules { flush: false };
const DEVICE: DeviceId = DeviceId(0x3b00);
const PROCESS: Pasid = Pasid(2);
const GSCID: Gscid = Gscid(5);
const PSCID: Pscid = Pscid(9);
const IOVA: Iova = Iova(0x4020_3000);
const SLOT: Pa = Pa(0x1000);
const LEAF: Kind = Kind::First { level: 0 };

fn place() -> Place {
    let (first, span_bytes) = (IOVA, 4096);
    Place { device: DEVICE, process: PROCESS, gscid: None, pscid: PSCID, first, span_bytes, device_tlb: None }
}

fn guest() -> Place {
    Place { gscid: Some(GSCID), ..place() }
}

fn checker(kind: Kind, place: Place, words: &[u64]) -> Checker<RiscvRules> {
    let mut checker = Checker::new(RULES);
    checker.declare(SLOT, kind, place, words);
    checker
}

fn stored(word: u64, value: u64) -> E {
    Event::Stored { pa: SLOT.offset(8 * word), value }
}

fn unit(invalidation: Invalidation) -> E {
    Event::Issued(Command::Unit(invalidation))
}

fn vma(gscid: Option<Gscid>, pscid: Option<Pscid>, range: Option<AddressRange>) -> E {
    unit(Invalidation::Vma(VmaScope { gscid, pscid, range, non_leaf: false }))
}

fn gvma(gscid: Option<Gscid>, range: Option<AddressRange>) -> E {
    unit(Invalidation::Gvma(GvmaScope { gscid, range, non_leaf: false }))
}

fn ddt(device: Option<DeviceId>) -> E {
    unit(Invalidation::Ddt(device))
}

fn leaf(frame: u64) -> PageTableEntry {
    let plain = PageTableEntry::new().with_valid(true).with_read(true).with_write(true).with_user(true);
    plain.with_accessed(true).with_dirty(true).with_ppn(frame)
}

fn context(second: u8, process_directory: bool, first: u8) -> [u64; 4] {
    let control = TranslationControl::new().with_valid(true).with_process_directory(process_directory);
    let second = SecondStagePointer::new().with_mode(second).with_gscid(GSCID.0).with_ppn(8);
    let attributes = TranslationAttributes::new().with_pscid(PSCID.0);
    let first = TablePointer::new().with_mode(first).with_ppn(3);
    [control.into_bits(), second.into_bits(), attributes.into_bits(), first.into_bits()]
}

const CONTEXT: Kind = Kind::Device { extended: false };

fn unclean(checker: &Checker<RiscvRules>) -> bool {
    checker.unclean().next().is_some()
}

#[test]
fn good_a_device_context_is_cleared_cleaned_and_rewritten_valid_last() {
    let words = context(0, false, MODE_SV39);
    let mut checker = checker(CONTEXT, place(), &words);
    let events = [stored(0, 0), ddt(Some(DEVICE)), vma(None, Some(PSCID), None), Event::Waited, Event::Released(Pfn(3))];
    assert_eq!(run(&mut checker, &events), Ok(()));
    let other = TablePointer::new().with_mode(MODE_SV39).with_ppn(4).into_bits();
    assert_eq!(run(&mut checker, &[stored(3, other), stored(0, words[0])]), Ok(()));
    assert_eq!(checker.state(SLOT), Some(&State::Valid), "V = 0 is never cached");
}

#[test]
fn bad_a_valid_context_is_changed_in_place() {
    let words = context(0, false, MODE_SV39);
    let other = TablePointer::new().with_mode(MODE_SV39).with_ppn(4).into_bits();
    assert_eq!(checker(CONTEXT, place(), &words).step(&stored(3, other)), Err(Violation::Torn { pa: SLOT }));
    let faults_off = TranslationControl::from_bits(words[0]).with_disable_faults(true).into_bits();
    assert_eq!(checker(CONTEXT, place(), &words).step(&stored(0, faults_off)), Err(Violation::Torn { pa: SLOT }));
    let custom = TranslationControl::from_bits(words[0]).with_custom(0xff).into_bits();
    let mut same = checker(CONTEXT, place(), &words);
    assert_eq!(run(&mut same, &[stored(0, custom)]), Ok(()));
    assert_eq!(same.state(SLOT), Some(&State::Valid));
}

#[test]
fn bad_a_context_is_rewritten_before_it_is_clean() {
    let words = context(0, false, MODE_SV39);
    let mut hasty = checker(CONTEXT, place(), &words);
    let broken = run(&mut hasty, &[stored(0, 0), stored(3, 0)]);
    assert_eq!(broken, Err(Violation::ReusedUnclean { pa: SLOT, missing: Some(Need::Directory(Some(DEVICE))) }));
    let mut half = checker(CONTEXT, place(), &words);
    let broken = run(&mut half, &[stored(0, 0), ddt(Some(DEVICE)), Event::Waited, stored(0, words[0])]);
    assert!(matches!(broken, Err(Violation::ReusedUnclean { missing: Some(Need::First { .. }), .. })), "{broken:?}");
}

#[test]
fn what_a_device_context_needs_depends_on_its_stages() {
    let device = ddt(Some(DEVICE));
    let host = vma(None, None, None);
    for (words, frame, events, good) in [
        (context(0, false, MODE_SV39), 3, vec![device, vma(None, Some(PSCID), None)], true),
        (context(0, false, MODE_SV39), 3, vec![device, vma(None, Some(Pscid(1)), None)], false),
        (context(0, false, MODE_SV39), 3, vec![device, vma(Some(GSCID), None, None)], false),
        (context(0, false, MODE_SV39), 3, vec![vma(None, Some(PSCID), None), device], false),
        (context(0, false, MODE_SV39), 3, vec![ddt(Some(DeviceId(1))), host], false),
        (context(0, true, MODE_PD8), 3, vec![device, host], true),
        (context(0, true, MODE_PD8), 3, vec![device, vma(None, Some(PSCID), None)], false),
        (context(MODE_SV39, false, 0), 8, vec![device, vma(Some(GSCID), None, None), gvma(Some(GSCID), None)], true),
        (context(MODE_SV39, false, 0), 8, vec![device, vma(Some(GSCID), None, None)], false),
        (context(MODE_SV39, false, 0), 8, vec![device, host, gvma(None, None)], false),
        (context(MODE_SV39, false, 0), 11, vec![ddt(None), vma(Some(GSCID), None, None), gvma(None, None)], true),
        (context(0, false, 0), 3, vec![device], true),
    ] {
        let mut checker = checker(CONTEXT, place(), &words);
        assert_eq!(run(&mut checker, &[stored(0, 0)]), Ok(()));
        assert_eq!(run(&mut checker, &events), Ok(()));
        assert_eq!(run(&mut checker, &[Event::Waited, Event::Released(Pfn(frame))]).is_ok(), good, "{events:?}");
    }
}

#[test]
fn a_directory_entry_needs_every_device_and_one_of_processes_its_device() {
    let word = DirectoryEntry::new().with_valid(true).with_ppn(7).into_bits();
    for (kind, event, good) in [
        (Kind::Directory, ddt(None), true),
        (Kind::Directory, ddt(Some(DEVICE)), false),
        (Kind::ProcessDirectory, ddt(Some(DEVICE)), true),
        (Kind::ProcessDirectory, ddt(None), true),
        (Kind::ProcessDirectory, ddt(Some(DeviceId(1))), false),
        (Kind::ProcessDirectory, unit(Invalidation::Pdt(DEVICE, PROCESS)), false),
        (Kind::ProcessDirectory, vma(None, None, None), false),
    ] {
        let mut checker = checker(kind, place(), &[word]);
        let events = [stored(0, 0), event, Event::Waited, Event::Released(Pfn(7))];
        assert_eq!(run(&mut checker, &events).is_ok(), good, "{kind:?}, {event:?}");
    }
}

#[test]
fn a_process_context_needs_its_process_and_its_address_space() {
    let words = [
        ProcessAttributes::new().with_valid(true).with_pscid(PSCID.0).into_bits(),
        TablePointer::new().with_mode(MODE_SV39).with_ppn(7).into_bits(),
    ];
    let process = unit(Invalidation::Pdt(DEVICE, PROCESS));
    for (place, events, good) in [
        (place(), vec![process, vma(None, Some(PSCID), None)], true),
        (place(), vec![process, vma(None, None, None)], true),
        (place(), vec![process], false),
        (place(), vec![unit(Invalidation::Pdt(DEVICE, Pasid(1))), vma(None, None, None)], false),
        (guest(), vec![process, vma(None, Some(PSCID), None)], false),
        (guest(), vec![process, vma(Some(GSCID), Some(PSCID), None)], true),
    ] {
        let mut checker = checker(Kind::Process, place, &words);
        assert_eq!(checker.clone().step(&stored(1, 0)), Err(Violation::Torn { pa: SLOT }));
        assert_eq!(run(&mut checker, &[stored(0, 0)]), Ok(()));
        assert_eq!(run(&mut checker, &events), Ok(()));
        assert_eq!(run(&mut checker, &[Event::Waited, Event::Released(Pfn(7))]).is_ok(), good, "{events:?}");
    }
}

#[test]
fn a_first_stage_page_needs_its_address_in_its_address_space() {
    let page = Some(AddressRange::page(IOVA));
    let elsewhere = Some(AddressRange::page(IOVA.offset(4096)));
    for (place, global, event, good) in [
        (place(), false, vma(None, Some(PSCID), page), true),
        (place(), false, vma(None, None, page), true),
        (place(), false, vma(None, Some(PSCID), None), true),
        (place(), false, vma(None, Some(PSCID), elsewhere), false),
        (place(), false, vma(None, Some(Pscid(1)), page), false),
        (place(), false, vma(Some(GSCID), Some(PSCID), page), false),
        (guest(), false, vma(Some(GSCID), Some(PSCID), page), true),
        (guest(), false, vma(None, Some(PSCID), page), false),
        (place(), true, vma(None, Some(PSCID), page), false),
        (place(), true, vma(None, None, page), true),
        (place(), false, gvma(Some(GSCID), page), false),
        (place(), false, ddt(None), false),
    ] {
        let mut checker = checker(LEAF, place, &[leaf(7).with_global(global).into_bits()]);
        let events = [stored(0, 0), event, Event::Waited, Event::Released(Pfn(7))];
        assert_eq!(run(&mut checker, &events).is_ok(), good, "{event:?}");
    }
}

#[test]
fn a_pointer_needs_every_address_or_the_non_leaf_extension() {
    let word = PageTableEntry::new().with_valid(true).with_ppn(7).into_bits();
    let place = Place { first: Iova(0x4020_0000), span_bytes: 2 << 20, ..place() };
    let range = AddressRange { first: 0x4_0200, last: 0x4_03ff };
    let scope = VmaScope { gscid: None, pscid: Some(PSCID), range: Some(range), non_leaf: true };
    for (scope, good) in [
        (scope, true),
        (VmaScope { non_leaf: false, ..scope }, false),
        (VmaScope { range: None, non_leaf: false, ..scope }, true),
        (VmaScope { range: Some(AddressRange { last: 0x4_03fe, ..range }), ..scope }, false),
    ] {
        let mut checker = checker(Kind::First { level: 1 }, place, &[word]);
        let events = [stored(0, 0), unit(Invalidation::Vma(scope)), Event::Waited, Event::Released(Pfn(7))];
        assert_eq!(run(&mut checker, &events).is_ok(), good, "{scope:?}");
    }
}

#[test]
fn a_second_stage_page_and_an_msi_entry_need_gvma_of_their_guest() {
    let page = Some(AddressRange::page(IOVA));
    let message = MsiEntryBasic::new().with_valid(true).with_mode(MSI_MODE_BASIC).with_ppn(7).into_bits();
    for (kind, words) in [(Kind::Second { level: 0 }, vec![leaf(7).into_bits()]), (Kind::Message, vec![message, 0])] {
        for (event, good) in [
            (gvma(Some(GSCID), page), true),
            (gvma(Some(GSCID), None), true),
            (gvma(None, None), true),
            (gvma(Some(Gscid(1)), page), false),
            (gvma(Some(GSCID), Some(AddressRange::page(Iova(0)))), false),
            (vma(Some(GSCID), None, None), false),
        ] {
            let mut checker = checker(kind, guest(), &words);
            let events = [stored(0, 0), event, Event::Waited, Event::Released(Pfn(7))];
            assert_eq!(run(&mut checker, &events).is_ok(), good, "{kind:?}, {event:?}");
        }
    }
}

#[test]
fn good_and_bad_memory_is_given_away_after_a_fence_of_reads_and_writes() {
    let clean = vma(None, Some(PSCID), None);
    for (fence, good) in [(Event::Waited, true), (Event::Completed, false)] {
        let mut checker = checker(LEAF, place(), &[leaf(7).into_bits()]);
        assert_eq!(run(&mut checker, &[stored(0, 0), clean, fence]), Ok(()));
        let result = checker.step(&Event::Released(Pfn(7)));
        assert_eq!(result.is_ok(), good, "{fence:?}");
        if !good {
            assert_eq!(result, Err(Violation::ReleasedUnclean { pa: SLOT, frame: Pfn(7), missing: None }));
            assert_eq!(run(&mut checker, &[stored(0, leaf(8).into_bits())]), Ok(()), "the entry itself is clean");
            assert!(checker.step(&Event::Released(Pfn(7))).is_err());
            assert_eq!(run(&mut checker, &[Event::Waited, Event::Released(Pfn(7))]), Ok(()));
        }
    }
}

#[test]
fn bad_a_valid_page_entry_is_changed_in_place() {
    let old = leaf(7);
    for new in [old.with_ppn(8), old.with_write(false), old.with_user(false), old.with_global(true), old.with_memory_type(1)] {
        let mut checker = checker(LEAF, place(), &[old.into_bits()]);
        assert_eq!(checker.step(&stored(0, new.into_bits())), Err(Violation::Torn { pa: SLOT }), "{new:?}");
    }
}

#[test]
fn good_a_page_is_promoted_or_demoted_in_place_and_cleaned_afterwards() {
    let table = PageTableEntry::new().with_valid(true).with_ppn(7).into_bits();
    let large = leaf(0x200).into_bits();
    let place = Place { first: Iova(0x4020_0000), span_bytes: 2 << 20, ..place() };
    for (old, new, freed) in [(table, large, 7), (large, table, 0x234)] {
        let mut checker = checker(Kind::First { level: 1 }, place, &[old]);
        assert_eq!(run(&mut checker, &[stored(0, new)]), Ok(()));
        assert!(matches!(checker.step(&Event::Released(Pfn(freed))), Err(Violation::ReleasedUnclean { .. })));
        assert_eq!(run(&mut checker, &[vma(None, Some(PSCID), None), Event::Waited, Event::Released(Pfn(freed))]), Ok(()));
        assert_eq!(checker.state(SLOT), Some(&State::Valid));
    }
}

#[test]
fn cleared_a_and_d_owe_an_invalidation_and_set_ones_do_not() {
    let clear = leaf(7).with_dirty(false);
    let mut checker = checker(LEAF, place(), &[clear.into_bits()]);
    assert_eq!(run(&mut checker, &[stored(0, leaf(7).with_software(3).into_bits())]), Ok(()));
    assert_eq!(checker.state(SLOT), Some(&State::Valid));
    assert_eq!(run(&mut checker, &[stored(0, clear.into_bits())]), Ok(()));
    assert!(unclean(&checker));
}

#[test]
fn good_and_bad_a_device_tlb_is_told_after_the_unit_is_clean() {
    let source = Bdf::new(1, 0, 0);
    let range = PageRange { address: IOVA, order: 0 };
    let device = Event::Issued(Command::Device(DeviceInvalidation { source, pasid: None, every_pasid: false, range, itag: 0 }));
    let page = vma(None, Some(PSCID), Some(AddressRange::page(IOVA)));
    for (events, good) in [
        (vec![page, Event::Completed, device, Event::Waited], true),
        (vec![page, device, Event::Waited], false),
        (vec![device, Event::Waited, page, Event::Waited], false),
        (vec![page, Event::Waited], false),
    ] {
        let mut checker = checker(LEAF, Place { device_tlb: Some(source), ..place() }, &[leaf(7).into_bits()]);
        assert_eq!(run(&mut checker, &[stored(0, 0)]), Ok(()));
        assert_eq!(run(&mut checker, &events), Ok(()));
        assert_eq!(run(&mut checker, &[Event::Released(Pfn(7))]).is_ok(), good, "{events:?}");
    }
}

#[test]
fn good_and_bad_stores_are_flushed_where_the_unit_does_not_snoop() {
    let page = vma(None, Some(PSCID), Some(AddressRange::page(IOVA)));
    for (events, good) in [(vec![Event::FlushedAll, page, Event::Waited], true), (vec![page, Event::FlushedAll, Event::Waited], false)] {
        let mut checker = Checker::new(RiscvRules { flush: true });
        checker.declare(SLOT, LEAF, place(), &[leaf(7).into_bits()]);
        assert_eq!(run(&mut checker, &[stored(0, 0)]), Ok(()));
        assert_eq!(run(&mut checker, &events), Ok(()));
        assert_eq!(!unclean(&checker), good, "{events:?}");
    }
}

impl watch::Architecture for Unit {
    type Rules = RiscvRules;

    fn unit(params: Params) -> Self {
        let mut unit = Self::new(Capabilities::default(), params);
        unit.write_register(Register::Ddtp, watch::DEVICE_TABLE << 10 | 2);
        unit.write_register(Register::Cqb, watch::CONTEXT << 10 | 7);
        unit.write_register(Register::Cqcsr, 1);
        unit.register_drained();
        unit
    }

    fn rules() -> RiscvRules {
        RULES
    }

    fn outer_words() -> Vec<(Pa, u64)> {
        let [control, second, attributes, _] = context(0, false, MODE_SV39);
        let first = TablePointer::new().with_mode(MODE_SV39).with_ppn(watch::TOP).into_bits();
        let words = [control, second & !0xffff_ffff_ffff, attributes, first];
        words.into_iter().enumerate().map(|(n, word)| (Pa(watch::DEVICE_TABLE << 12).offset(8 * n as u64), word)).collect()
    }

    fn pointer(_: u8, frame: u64) -> u64 {
        PageTableEntry::new().with_valid(true).with_ppn(frame).into_bits()
    }

    fn leaf(frame: u64) -> u64 {
        leaf(frame).into_bits()
    }

    fn declare(checker: &mut Checker<RiscvRules>, pa: Pa, level: u8, first: Iova, span_bytes: u64, word: u64) {
        checker.declare(pa, Kind::First { level: level - 1 }, Place { first, span_bytes, ..place() }, &[word]);
    }

    fn invalidate(&mut self, scope: watch::Scope, d: &mut dyn Decisions) -> Command {
        let plain = InvalidateCommand::new().with_opcode(OPCODE_IOTINVAL).with_pscid_valid(true).with_pscid(PSCID.0);
        let vma = match scope {
            watch::Scope::All => plain,
            watch::Scope::Page { page, .. } => plain.with_address_valid(true).with_page(page),
        };
        let fence = FenceCommand::new().with_opcode(OPCODE_IOFENCE).with_reads(true).with_writes(true);
        let mut commands = vec![fence.into_bits(), vma.into_bits()];
        let tail = self.read_register(Register::Cqt);
        self.write_register(Register::Cqt, (tail + 2) % 256);
        let (mut input, mut asked) = (CommandInput::Continue, None);
        loop {
            input = match self.command_queue_advance(input, d) {
                CommandProgress::Idle => break,
                CommandProgress::Fetch { .. } => {
                    let bits = commands.pop().expect("two are there");
                    CommandInput::Command([bits as u64, (bits >> 64) as u64])
                }
                CommandProgress::Invalidated { what, .. } => {
                    asked = asked.or(Some(what.asked));
                    CommandInput::Continue
                }
                CommandProgress::Drain { .. } => CommandInput::Drained,
                CommandProgress::Stopped { .. } | CommandProgress::Write { .. } => panic!("nothing here stops or writes"),
                _ => CommandInput::Continue,
            };
        }
        Command::Unit(asked.expect("it was carried out"))
    }
}

#[test]
fn the_model_never_uses_what_was_cleaned_away() {
    watch::never_uses_what_was_cleaned_away::<Unit>();
}
