//! Whatever lies in tables, commands and registers: nothing panics, everything ends.

use super::support::Bench;
use iommu_model::amd::{Capabilities, CommandInput, CommandProgress, EventInput, Unit};
use iommu_model::spec::amd::device_table::DeviceEntryLow;
use iommu_model::{Access, Bdf, Decisions, FetchKind, Fetched, Geometry, Iova, Params, Pasid, Plain, Progress, Question, Request};
use proptest::prelude::*;

/// Answers from a list, over and over, out of range included.
struct Arbitrary {
    answers: Vec<u32>,
    next: usize,
}

impl Decisions for Arbitrary {
    fn decide(&mut self, question: Question) -> u32 {
        assert!(question.options() >= 2);
        self.next += 1;
        self.answers[self.next % self.answers.len()]
    }
}

/// Words that look like entries of some kind more often than chance would have it.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        1 => any::<u64>(),
        3 => (0u64..1 << 40, 0u64..8).prop_map(|(frame, next)| 3 << 61 | frame << 12 | next << 9 | 1),
        2 => (0u64..1 << 40, 0u64..256).prop_map(|(frame, low)| frame << 12 | low | 7),
        1 => (0u64..40).prop_map(|ones| 3 << 61 | ((1 << ones) - 1) << 12 | 7 << 9 | 1),
        1 => Just(0),
    ]
}

/// Lower halves of device table entries, often legal ones.
fn device() -> impl Strategy<Value = [u64; 2]> {
    prop_oneof![
        any::<[u64; 2]>(),
        (0u8..8, 0u64..1 << 40, any::<u16>(), 0u8..4, any::<[bool; 6]>(), 0u64..1 << 40).prop_map(
            |(mode, root, domain, glx, flags, guest)| {
                let low = DeviceEntryLow::new()
                    .with_valid(true)
                    .with_translation_valid(!flags[0] || !flags[1])
                    .with_mode(mode)
                    .with_root(root)
                    .with_domain(domain % 3)
                    .with_guest_valid(flags[2])
                    .with_guest_io_valid(flags[3])
                    .with_guest_levels(glx)
                    .with_guest_root(guest)
                    .with_host_access_dirty(glx)
                    .with_read(!flags[4] || !flags[5])
                    .with_write(!flags[1] || !flags[5])
                    .into_bits();
                [low as u64, (low >> 64) as u64]
            }
        ),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let iova = prop_oneof![any::<u64>(), 0u64..1 << 39, Just(0xfee0_0000)];
    let pasid = prop_oneof![Just(None), any::<u32>().prop_map(|p| Some(Pasid(p))), (0u32..600).prop_map(|p| Some(Pasid(p)))];
    (any::<u16>(), iova, any::<bool>(), pasid).prop_map(|(source, iova, write, pasid)| Request {
        source: Bdf(source % 4),
        iova: Iova(iova & !3),
        access: if write { Access::Write } else { Access::Read },
        pasid,
    })
}

fn capabilities() -> impl Strategy<Value = Capabilities> {
    (any::<[bool; 16]>(), 4u8..=6, 4u8..=5, 1u8..=3, 1u8..=20).prop_map(
        |(flags, host_levels, guest_levels, guest_root_levels, pasid_bits)| Capabilities {
            host_levels,
            guest_translation: flags[0] || flags[15],
            guest_levels,
            guest_root_levels,
            pasid_bits,
            guest_io: flags[1],
            guest_root_in_guest: flags[2],
            guest_update_disable: flags[3],
            host_accessed: flags[4] || flags[5],
            host_dirty: flags[5],
            not_present_cached: flags[6],
            invalidate_all: flags[7],
            device_tlb: flags[8],
            prefetch: flags[9],
            page_requests: flags[10],
            msi_registers: flags[11],
            checks_reserved: flags[12],
            checks_input_width: flags[13],
            blocks_without_translation: flags[14],
            wait_drains: flags[15],
        },
    )
}

fn small() -> Params {
    let two = Geometry { sets: 2, ways: 2 };
    Params { context: two, iotlb: two, pasid: two, psc: [two; 4], walks_max: 3, ..Params::default() }
}

/// One thing that somebody does to the unit.
#[derive(Clone, Debug)]
enum Act {
    Begin(Request),
    Prefetch(Request),
    Cached(Request),
    Advance { nth: usize, words: [u64; 2], device: [u64; 2], memory: bool },
    Cancel(usize),
    Write { offset: u64, bytes: u8, value: u64 },
    Read { offset: u64, bytes: u8 },
    Command { words: [u64; 2], input: u8 },
    Event(bool),
    Drop(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let offset = prop_oneof![0u64..0x40, 0x150u64..0x1b0, 0x2000u64..0x2030, any::<u64>()];
    let bytes = prop_oneof![Just(4u8), Just(8u8), any::<u8>()];
    prop_oneof![
        3 => request().prop_map(Act::Begin),
        1 => request().prop_map(Act::Prefetch),
        1 => request().prop_map(Act::Cached),
        12 => (0usize..3, word(), word(), device(), prop::bool::weighted(0.95))
            .prop_map(|(nth, low, high, device, memory)| Act::Advance { nth, words: [low, high], device, memory }),
        1 => (0usize..3).prop_map(Act::Cancel),
        2 => (offset.clone(), bytes.clone(), any::<u64>()).prop_map(|(offset, bytes, value)| Act::Write { offset, bytes, value }),
        1 => any::<u64>().prop_map(|value| Act::Write { offset: 0x18, bytes: 8, value: value | 0x1_1005 }),
        1 => (0u64..256).prop_map(|index| Act::Write { offset: 0x2008, bytes: 8, value: index << 4 }),
        1 => (offset, bytes).prop_map(|(offset, bytes)| Act::Read { offset, bytes }),
        4 => (command(), any::<u8>()).prop_map(|(words, input)| Act::Command { words, input }),
        1 => any::<bool>().prop_map(Act::Event),
        1 => (0usize..20).prop_map(Act::Drop),
    ]
}

/// Commands that are often legal.
fn command() -> impl Strategy<Value = [u64; 2]> {
    prop_oneof![
        any::<[u64; 2]>(),
        (1u64..9, any::<u16>(), any::<u16>(), any::<u64>(), 0u64..8).prop_map(|(opcode, low, domain, high, bits)| {
            [opcode << 60 | u64::from(domain % 3) << 32 | u64::from(low % 4), high & !0xfff | bits]
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn nothing_that_software_or_memory_holds_can_panic_the_unit(
        cap in capabilities(),
        answers in prop::collection::vec(any::<u32>().prop_map(|n| n % 5), 1..8),
        acts in prop::collection::vec(act(), 1..200),
    ) {
        let mut unit = Unit::new(cap, small());
        let mut d = Arbitrary { answers, next: 0 };
        let mut walks = Vec::new();
        // So that translation is on more often than by chance.
        unit.write_register_at(0x00, 8, 0x1ff);
        unit.write_register_at(0x18, 8, 0x1_1005);
        for act in acts {
            match act {
                Act::Begin(request) => walks.extend(unit.begin(request)),
                Act::Prefetch(request) => walks.extend(unit.begin_prefetch(request)),
                Act::Cached(request) => {
                    let _ = unit.translate_cached(&request);
                }
                Act::Advance { nth, words, device, memory } => {
                    let Some(&walk) = walks.get(nth) else { continue };
                    let asked = unit.in_flight().find(|view| view.id == walk).and_then(|view| view.fetch);
                    let answer = asked.map(|(_, kind)| match kind {
                        _ if !memory => Fetched::NoMemory,
                        FetchKind::DeviceTableEntry => Fetched::Wide([device[0], device[1], words[0] & 1 << 54, 0, 0, 0, 0, 0]),
                        _ => Fetched::Words(words),
                    });
                    if unit.advance(walk, answer, &mut d).is_end() {
                        walks.remove(nth);
                    }
                }
                Act::Cancel(nth) => {
                    if nth < walks.len() {
                        prop_assert!(unit.cancel(walks.remove(nth)));
                    }
                }
                Act::Write { offset, bytes, value } => {
                    unit.write_register_at(offset, bytes, value);
                }
                Act::Read { offset, bytes } => {
                    let _ = unit.read_register_at(offset, bytes);
                }
                Act::Command { words, input } => {
                    let input = match input % 8 {
                        0 => CommandInput::Continue,
                        1 => CommandInput::Unreadable,
                        2 => CommandInput::Drained,
                        3 => CommandInput::Written,
                        _ => CommandInput::Command(words),
                    };
                    unit.command_advance(input, &mut d);
                }
                Act::Event(written) => {
                    unit.event_log_advance(if written { EventInput::Written } else { EventInput::Continue });
                }
                Act::Drop(n) => {
                    unit.drop_cached(n);
                }
            }
            prop_assert_eq!(unit.in_flight_count(), walks.len());
        }
    }

    /// Tables of any words below any device entry; updates may find anything.
    #[test]
    fn every_walk_ends_within_its_levels(
        cap in capabilities(),
        device in device(),
        request in request(),
        in_guest in any::<bool>(),
        words in prop::collection::vec(word(), 1..8),
    ) {
        let mut bench = Bench::with(cap, small());
        bench.control(|control| control.with_guest_root_is_guest(in_guest));
        let walk = bench.unit.begin(request).expect("a walker is free");
        let (mut fetches, mut steps, mut answer) = (0usize, 0usize, None);
        loop {
            steps += 1;
            prop_assert!(steps < 2000);
            match bench.unit.advance(walk, answer.take(), &mut Plain) {
                Progress::Fetch { kind, .. } => {
                    answer = Some(match kind {
                        FetchKind::DeviceTableEntry => Fetched::Wide([device[0], device[1], 0, 0, 0, 0, 0, 0]),
                        _ => Fetched::word(words[fetches % words.len()]),
                    });
                    fetches += 1;
                }
                Progress::Update { old, .. } => answer = Some(Fetched::word(if steps.is_multiple_of(2) { old } else { words[steps % words.len()] })),
                progress if progress.is_end() => break,
                _ => {}
            }
        }
        prop_assert!(fetches <= 1 + (3 + 5) * 7 + 6, "{} fetches", fetches);
    }

    #[test]
    fn the_command_buffer_takes_any_command_to_an_end(words in command(), cap in capabilities(), answer in 0u32..3) {
        let mut unit = Unit::new(cap, small());
        unit.write_register_at(0x18, 8, 0x1005);
        unit.write_register_at(0x2008, 8, 1 << 4);
        let mut d = Arbitrary { answers: vec![answer], next: 0 };
        let mut input = CommandInput::Continue;
        for _ in 0..8 {
            input = match unit.command_advance(input, &mut d) {
                CommandProgress::Idle => break,
                CommandProgress::Fetch { .. } => CommandInput::Command(words),
                CommandProgress::Drain { .. } => CommandInput::Drained,
                CommandProgress::Write { .. } => CommandInput::Written,
                _ => CommandInput::Continue,
            };
        }
        prop_assert!(!unit.command_has_work());
        let running = unit.read_register_at(0x2020, 8) & 1 << 4 != 0;
        prop_assert!(!running || (1..=8).contains(&(words[0] >> 60)));
    }
}
