//! Whatever lies in tables, descriptors and registers: nothing panics, everything ends.

use super::support::tables::context;
use super::support::{Bench, World, scalable, tables::SecondStage};
use iommu_model::spec::vtd::descriptor::AnyDescriptor;
use iommu_model::{
    Access, Bdf, Capabilities, Decisions, DomainId, FetchKind, Fetched, Geometry, Iova, Pa, Params, Pasid, Plain, Progress, Question,
    QueueInput, QueueProgress, Request, Scalable, Unit,
};
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

/// Words that look like table entries more often than chance would have it.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        (0u64..1 << 40, 0u64..4096).prop_map(|(frame, low)| (frame << 12) | low),
        (0u64..1 << 40).prop_map(|frame| (frame << 12) | 3),
        (0u64..1 << 20).prop_map(|frame| (frame << 30) | 0x83),
        Just(0),
        any::<u16>().prop_map(|did| (u64::from(did) << 8) | 2),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let iova = prop_oneof![any::<u64>(), 0u64..1 << 39, Just(0xfee0_0000)];
    let pasid = prop_oneof![9 => Just(None), 1 => any::<u32>().prop_map(|p| Some(Pasid(p)))];
    (any::<u16>(), iova, any::<bool>(), pasid).prop_map(|(source, iova, write, pasid)| Request {
        source: Bdf(source % 4),
        iova: Iova(iova & !3),
        access: if write { Access::Write } else { Access::Read },
        pasid,
    })
}

fn capabilities() -> impl Strategy<Value = Capabilities> {
    (any::<[bool; 12]>(), 0u8..64, 0u8..=6, 1u8..=64, 13u8..=52, 1u16..=256).prop_map(
        |(flags, mask_max, domains, guest_width, host_width, fault_records)| Capabilities {
            root_switch_invalidates: flags[0],
            page_selective: flags[1],
            mask_max,
            caching_mode: flags[2],
            superpage_2m: flags[3],
            superpage_1g: flags[4],
            three_level: flags[5],
            four_level: true,
            five_level: flags[6],
            domains,
            read_drain: flags[7],
            write_drain: flags[8],
            guest_width,
            host_width,
            write_buffer: flags[9],
            fault_records,
            coherent: true,
            device_tlb: flags[10],
            device_throttle: flags[7],
            page_requests: flags[3] && flags[8],
            abort_mode: flags[9],
            interrupt_remapping: false,
            pass_through: flags[11],
            snoop_control: flags[0],
            scalable: flags[3].then(|| Scalable { walk_coherent: flags[4], rid_pasid: flags[5], ..Scalable::default() }),
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
    Advance { nth: usize, words: [u64; 2], memory: bool },
    Cancel(usize),
    Write { offset: u64, bytes: u8, value: u64 },
    Read { offset: u64, bytes: u8 },
    Queue { words: [u64; 2], input: u8 },
    Drained,
    Drop(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let offset = prop_oneof![0u64..0x200, 0x400u64..0x1500, any::<u64>(), (0u64..0x80).prop_map(|n| n * 4)];
    let bytes = prop_oneof![Just(4u8), Just(8u8), any::<u8>()];
    let command = prop_oneof![any::<u64>(), (0u32..8).prop_map(|n| ((n as u64) << 29) | (1 << 26))];
    prop_oneof![
        2 => request().prop_map(Act::Begin),
        8 => (0usize..3, word(), word(), prop::bool::weighted(0.95))
            .prop_map(|(nth, low, high, memory)| Act::Advance { nth, words: [low, high], memory }),
        1 => (0usize..3).prop_map(Act::Cancel),
        3 => (offset.clone(), bytes.clone(), any::<u64>())
            .prop_map(|(offset, bytes, value)| Act::Write { offset, bytes, value }),
        2 => command.prop_map(|value| Act::Write { offset: 0x18, bytes: 4, value }),
        1 => (offset, bytes).prop_map(|(offset, bytes)| Act::Read { offset, bytes }),
        4 => (descriptor(), any::<u8>()).prop_map(|(words, input)| Act::Queue { words, input }),
        1 => Just(Act::Drained),
        1 => (0usize..20).prop_map(Act::Drop),
    ]
}

/// Descriptors that are often of a known type.
fn descriptor() -> impl Strategy<Value = [u64; 2]> {
    prop_oneof![
        any::<[u64; 2]>(),
        (1u64..6, 0u64..4, any::<u16>(), any::<u64>())
            .prop_map(|(kind, granularity, did, high)| [kind | (granularity << 4) | (u64::from(did % 4) << 16), high & !0xf80]),
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
        unit.write_register_at(0x20, 8, if cap.scalable.is_some() { 0x400 } else { 0 }, &mut d);
        unit.write_register_at(0x18, 4, 0xc400_0000, &mut d);
        unit.register_drained();
        for act in acts {
            match act {
                Act::Begin(request) => walks.extend(unit.begin(request)),
                Act::Advance { nth, words, memory } => {
                    let Some(&walk) = walks.get(nth) else { continue };
                    let asked = unit.in_flight().any(|view| view.id == walk && view.fetch.is_some());
                    let [low, high] = words;
                    let answer = match (memory, high % 3) {
                        (false, _) => Fetched::NoMemory,
                        (true, 0) => Fetched::Wide([low, high, low, 0, 0, 0, 0, 0]),
                        (true, _) => Fetched::Words(words),
                    };
                    if unit.advance(walk, asked.then_some(answer), &mut d).is_end() {
                        walks.remove(nth);
                    }
                }
                Act::Cancel(nth) => {
                    if nth < walks.len() {
                        prop_assert!(unit.cancel(walks.remove(nth)));
                    }
                }
                Act::Write { offset, bytes, value } => {
                    unit.write_register_at(offset, bytes, value, &mut d);
                }
                Act::Read { offset, bytes } => {
                    let _ = unit.read_register_at(offset, bytes);
                }
                Act::Queue { words, input } => {
                    let input = match input % 8 {
                        0 => QueueInput::Continue,
                        1 => QueueInput::DescriptorUnreadable,
                        2 => QueueInput::Drained,
                        3 => QueueInput::Written,
                        _ => QueueInput::Descriptor(words),
                    };
                    unit.queue_advance(input, &mut d);
                }
                Act::Drained => {
                    unit.register_drained();
                }
                Act::Drop(n) => {
                    unit.drop_cached(n);
                }
            }
            prop_assert_eq!(unit.in_flight_count(), walks.len());
        }
        let _ = unit.snapshot().to_string();
    }

    #[test]
    fn every_walk_ends_within_its_levels_and_two_fetches(
        cap in capabilities(),
        levels in 3u8..=5,
        iova in 0u64..1 << 39,
        words in prop::collection::vec(word(), 1..8),
    ) {
        let cap = Capabilities { three_level: true, five_level: true, guest_width: 57, ..cap };
        let mut bench = Bench::with(cap, Params::default());
        let tables = SecondStage { root: Pa(0x1000), levels };
        let root = bench.tables.root;
        let walk_memory = |pa: Pa, bytes: u8, n: usize| {
            if bytes == 16 && pa.pfn() == root.pfn() {
                return Fetched::Words([0x3001, 0]);
            }
            if bytes == 16 {
                let entry = context(DomainId(1), tables).into_bits();
                return Fetched::Words([entry as u64, (entry >> 64) as u64]);
            }
            Fetched::word(words[n % words.len()])
        };
        let request = Request { source: Bdf(0), iova: Iova(iova), access: Access::Read, pasid: None };
        let walk = bench.unit.begin(request).expect("a walker is free");
        let (mut fetches, mut steps, mut answer) = (0usize, 0, None);
        loop {
            steps += 1;
            prop_assert!(steps < 16);
            match bench.unit.advance(walk, answer.take(), &mut Plain) {
                Progress::Fetch { pa, bytes, .. } => {
                    answer = Some(walk_memory(pa, bytes, fetches));
                    fetches += 1;
                }
                progress if progress.is_end() => break,
                _ => {}
            }
        }
        prop_assert!(fetches <= usize::from(levels) + 2);
    }

    /// Tables of any words below good outer structures, every stage arrangement; updates may find anything.
    #[test]
    fn every_scalable_walk_ends_within_its_levels(
        pgtt in 0u8..8,
        five in any::<bool>(),
        updates in any::<bool>(),
        iova in prop_oneof![0u64..1 << 39, any::<u64>()],
        write in any::<bool>(),
        words in prop::collection::vec(prop_oneof![word(), (0u64..1 << 30).prop_map(|frame| (frame << 12) | 7)], 1..8),
    ) {
        let params = if updates { Params::default() } else { small() };
        let mut world = World::with(scalable::capabilities(), params);
        let tables = SecondStage { root: Pa(0x1000), levels: if five { 5 } else { 4 } };
        let low = scalable::second(DomainId(1), tables).with_translation_type(pgtt).with_second_stage_accessed_dirty(updates);
        world.set_pasid(Pasid(1), low, scalable::first(Pa(0x2000)).with_paging_mode(u8::from(five)));
        let access = if write { Access::Write } else { Access::Read };
        let walk = world.begin(Some(Pasid(1)), Iova(iova), access);
        let (mut fetches, mut steps, mut answer) = (0usize, 0, None);
        loop {
            steps += 1;
            prop_assert!(steps < 400);
            match world.bench.unit.advance(walk, answer.take(), &mut Plain) {
                Progress::Fetch { pa, bytes, kind, .. } => {
                    let outer = !matches!(kind, FetchKind::Table { .. } | FetchKind::FirstStage { .. });
                    answer = Some(if outer { world.bench.memory.fetch(pa, bytes) } else { Fetched::word(words[fetches % words.len()]) });
                    fetches += 1;
                }
                Progress::Update { old, .. } => answer = Some(Fetched::word(if steps % 2 == 0 { old } else { words[steps % words.len()] })),
                progress if progress.is_end() => break,
                _ => {}
            }
        }
        let levels = usize::from(tables.levels);
        prop_assert!(fetches <= 4 + levels * (levels + 1) + levels);
    }

    #[test]
    fn the_queue_takes_any_descriptor_to_an_end(words in descriptor(), answer in 0u32..3) {
        let mut unit = Unit::new(Capabilities::default(), small());
        unit.write_register_at(0x18, 4, 1 << 26, &mut Plain);
        unit.write_register_at(0x88, 8, 1 << 4, &mut Plain);
        let mut d = Arbitrary { answers: vec![answer], next: 0 };
        let mut input = QueueInput::Continue;
        for _ in 0..8 {
            input = match unit.queue_advance(input, &mut d) {
                QueueProgress::Idle => break,
                QueueProgress::FetchDescriptor { .. } => QueueInput::Descriptor(words),
                QueueProgress::Drain { .. } => QueueInput::Drained,
                QueueProgress::WriteStatus { .. } => QueueInput::Written,
                _ => QueueInput::Continue,
            };
        }
        prop_assert!(!unit.queue_has_work());
        let stopped = unit.read_register_at(0x34, 4) & (1 << 4) != 0;
        let known = (1..=5).contains(&AnyDescriptor::from_bits(u128::from(words[0])).kind());
        prop_assert!(stopped || known);
    }
}
