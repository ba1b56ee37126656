//! Whatever lies in tables, commands and registers: nothing panics, everything ends.

use super::support::bench::{ASID, Bench, GUEST, VMID};
use super::support::tables::{context_0, context_table, stage_2_words};
use iommu_model::smmu::{
    Capabilities, CommandInput, CommandProgress, ConfigFetch, EventInput, EventProgress, HardwareUpdate, Params, Register, StreamId, Unit,
};
use iommu_model::spec::smmu::command::AnyCommand;
use iommu_model::spec::smmu::stream::StreamEntry0;
use iommu_model::{Access, Bdf, Decisions, FetchKind, Fetched, Geometry, Iova, Pa, Pasid, Progress, Question, Request};
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

/// Words that look like descriptors more often than chance would have it.
fn descriptor() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        (0u64..1 << 36, 0u64..4096).prop_map(|(frame, low)| (frame << 12) | low),
        (0u64..1 << 20).prop_map(|frame| (frame << 12) | 3),
        (0u64..1 << 20, any::<u16>()).prop_map(|(frame, high)| (u64::from(high) << 48) | (frame << 12) | 0x4c3),
        (0u64..1 << 18).prop_map(|frame| (frame << 30) | 0x4c1),
        Just(0),
    ]
}

/// STEs and CDs that are valid more often than chance would have it.
fn structure() -> impl Strategy<Value = [u64; 4]> {
    let nested = (0u8..8, 0u8..4, 0u8..21, any::<u16>()).prop_map(|(config, format, bits, spoil)| {
        let (entry, base) = stage_2_words(VMID, Pa(0x5000));
        let first = StreamEntry0::new().with_valid(true).with_config(config).with_format(format).with_context_bits(bits);
        let updates = u64::from(spoil & 3) << 55;
        [first.with_context(u64::from(spoil)).into_bits(), u64::from(spoil >> 14), entry.into_bits() | updates, base.into_bits()]
    });
    let context = (16u8..48, any::<u8>()).prop_map(|(bits, spoil)| {
        let entry = context_0(ASID, bits.max(25)).with_hardware_access(spoil & 1 != 0).with_hardware_dirty(spoil & 2 != 0);
        [entry.with_granule_0(spoil >> 6).into_bits(), context_table(Pa(0x6000)).into_bits(), 0, 0]
    });
    prop_oneof![any::<[u64; 4]>(), nested.clone(), nested, context.clone(), context]
}

fn request() -> impl Strategy<Value = Request> {
    let iova = prop_oneof![any::<u64>(), 0u64..1 << 39, 0u64..1 << 48];
    let pasid = prop_oneof![3 => Just(None), 1 => any::<u32>().prop_map(|p| Some(Pasid(p))), 1 => (0u32..64).prop_map(|p| Some(Pasid(p)))];
    (any::<u16>(), iova, any::<bool>(), pasid).prop_map(|(source, iova, write, pasid)| Request {
        source: Bdf(source % 4),
        iova: Iova(iova),
        access: if write { Access::Write } else { Access::Read },
        pasid,
    })
}

fn capabilities() -> impl Strategy<Value = Capabilities> {
    (any::<[bool; 16]>(), 0u8..=32, 0u8..=20, 0u8..=19, 0usize..6, 0u8..=2).prop_map(
        |(f, stream_bits, substream_bits, queue, oas, level)| Capabilities {
            stage_1: f[0] || !f[1],
            stage_2: f[1],
            hardware_update: [HardwareUpdate::None, HardwareUpdate::Access, HardwareUpdate::AccessAndDirty][usize::from(level)],
            ats: f[2],
            split_ats: f[14],
            ats_errors: f[15],
            page_requests: f[15],
            page_queue_bits: queue,
            asid_16: f[3],
            msi: f[4],
            send_event: f[5],
            vmid_16: f[6],
            context_2_level: f[7],
            stream_2_level: f[8],
            stream_bits,
            substream_bits,
            event_queue_bits: queue,
            command_queue_bits: queue,
            hierarchical_disable: f[9],
            range_invalidation: f[10],
            break_before_make: level,
            output_bits: [32, 36, 40, 42, 44, 48][oas],
            granule_4k: f[11],
            granule_16k: f[12],
            granule_64k: f[13],
        },
    )
}

fn small(fetch: u8) -> Params {
    let two = Geometry { sets: 2, ways: 2 };
    let config_fetch = [ConfigFetch::Whole, ConfigFetch::Pairs, ConfigFetch::Words][usize::from(fetch % 3)];
    let base = Params { stream: two, context: two, level_1: two, tlb: two, ..Params::default() };
    Params {
        walk_1: [two; 3],
        walk_2: [two; 3],
        walks_max: 3,
        events_max: 6,
        config_fetch,
        stream_base: StreamId(u32::from(fetch)),
        ..base
    }
}

/// One thing that somebody does to the unit.
#[derive(Clone, Debug)]
enum Act {
    Begin(Request),
    Prefetch(Request),
    Advance { nth: usize, word: u64, structure: [u64; 4], memory: bool },
    Cancel(usize),
    Write { offset: u64, bytes: u8, value: u64 },
    Read { offset: u64, bytes: u8 },
    Command { words: [u64; 2], input: u8 },
    Event(u8),
    Drained,
    Drop(usize),
    Reset,
}

fn act() -> impl Strategy<Value = Act> {
    let offset = prop_oneof![0u64..0x110, 0x10_0a0u64..0x10_0b0, any::<u64>(), (0u64..0x44).prop_map(|n| n * 4)];
    let bytes = prop_oneof![Just(4u8), Just(8u8), any::<u8>()];
    let opcode = prop_oneof![0u8..8, 0x10u8..0x14, Just(0x28u8), Just(0x2a), Just(0x30), Just(0x40), Just(0x46), any::<u8>()];
    let command = (opcode, any::<u128>(), any::<u64>()).prop_map(|(opcode, bits, mask)| {
        let bits = AnyCommand::from_bits(bits & (u128::from(mask) << 64 | 0xffff_ffff)).with_opcode(opcode).with_secure(mask & 7 == 0);
        [bits.into_bits() as u64, (bits.into_bits() >> 64) as u64]
    });
    prop_oneof![
        4 => request().prop_map(Act::Begin),
        1 => request().prop_map(Act::Prefetch),
        16 => (0usize..3, descriptor(), structure(), prop::bool::weighted(0.97))
            .prop_map(|(nth, word, structure, memory)| Act::Advance { nth, word, structure, memory }),
        1 => (0usize..3).prop_map(Act::Cancel),
        2 => (offset.clone(), bytes.clone(), any::<u64>()).prop_map(|(offset, bytes, value)| Act::Write { offset, bytes, value }),
        2 => (0u64..16).prop_map(|value| Act::Write { offset: 0x20, bytes: 4, value: value | 1 }),
        1 => (0u64..32).prop_map(|value| Act::Write { offset: 0x98, bytes: 4, value }),
        1 => (offset, bytes).prop_map(|(offset, bytes)| Act::Read { offset, bytes }),
        4 => (command, any::<u8>()).prop_map(|(words, input)| Act::Command { words, input }),
        2 => any::<u8>().prop_map(Act::Event),
        1 => Just(Act::Drained),
        1 => (0usize..20).prop_map(Act::Drop),
        1 => prop::bool::weighted(0.05).prop_map(|reset| if reset { Act::Reset } else { Act::Drained }),
    ]
}

/// The answer to what a walk wants.
fn answer(kind: Option<FetchKind>, word: u64, structure: [u64; 4], memory: bool) -> Fetched {
    let [a, b, c, e] = structure;
    match kind {
        _ if !memory => Fetched::NoMemory,
        Some(FetchKind::StreamEntry | FetchKind::ContextDescriptor) => Fetched::Wide([a, b, c, e, 0, 0, 0, 0]),
        _ => Fetched::Words([word, a]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn nothing_that_software_or_memory_holds_can_panic_the_unit(
        cap in capabilities(),
        fetch in any::<u8>(),
        table in any::<u32>(),
        answers in prop::collection::vec(any::<u32>().prop_map(|n| n % 5), 1..8),
        acts in prop::collection::vec(act(), 1..250),
    ) {
        let mut unit = Unit::new(cap, small(fetch));
        let mut d = Arbitrary { answers, next: 0 };
        let mut walks = Vec::new();
        unit.write_register(Register::StrtabBaseCfg, u64::from(table));
        unit.write_register(Register::CmdqBase, 4);
        unit.write_register(Register::EventqBase, 2);
        unit.write_register(Register::Cr2, u64::from(table >> 8));
        unit.write_register(Register::Cr0, 0xd);
        for act in acts {
            match act {
                Act::Begin(request) => walks.extend(unit.begin(request)),
                Act::Prefetch(request) => walks.extend(unit.begin_prefetch(request)),
                Act::Advance { nth, word, structure, memory } => {
                    let Some(&walk) = walks.get(nth) else { continue };
                    let asked = unit.in_flight().find(|view| view.id == walk).and_then(|view| view.fetch);
                    let brought = asked.map(|(_, kind)| answer(Some(kind), word, structure, memory));
                    if unit.advance(walk, brought, &mut d).is_end() {
                        walks.remove(nth);
                        let _ = unit.last_provenance();
                    }
                }
                Act::Cancel(nth) => {
                    if nth < walks.len() {
                        prop_assert!(unit.cancel(walks.remove(nth)));
                    }
                }
                Act::Write { offset, bytes, value } => { unit.write_register_at(offset, bytes, value); }
                Act::Read { offset, bytes } => {
                    let _ = unit.read_register_at(offset, bytes);
                }
                Act::Command { words, input } => {
                    let input = match input % 8 {
                        0 => CommandInput::Continue,
                        1 => CommandInput::Unreadable,
                        2 => CommandInput::Drained,
                        3 => CommandInput::Written,
                        4 => CommandInput::Aborted,
                        _ => CommandInput::Command(words),
                    };
                    if let CommandProgress::Stopped { .. } = unit.command_advance(input, &mut d) {
                        let active = unit.read_register(Register::Gerror);
                        unit.write_register(Register::Gerrorn, active);
                    }
                }
                Act::Event(input) => {
                    let input = [EventInput::Continue, EventInput::Written, EventInput::Written, EventInput::Aborted][usize::from(input % 4)];
                    if let EventProgress::Aborted { .. } = unit.event_advance(input) {
                        unit.write_register(Register::Gerrorn, unit.read_register(Register::Gerror));
                    }
                }
                Act::Drained => unit.register_drained(),
                Act::Drop(n) => { unit.drop_cached(n); }
                Act::Reset => {
                    unit.reset();
                    walks.clear();
                    unit.write_register(Register::Cr0, 0xd);
                }
            }
        }
        for walk in walks {
            prop_assert!(unit.cancel(walk));
        }
        prop_assert_eq!(unit.in_flight_count(), 0);
    }

    /// Both stages, two-level CD tables, every update lost or won: the fetches stay within the level count.
    #[test]
    fn any_walk_ends_within_its_level_count(
        words in prop::collection::vec(descriptor(), 1..32),
        structures in prop::collection::vec(structure(), 1..4),
        request in request(),
        fetch in any::<u8>(),
    ) {
        let mut unit = Unit::new(Capabilities::default(), Params { stream_base: StreamId(0), ..small(fetch) });
        // Linear, or two levels split at 8.
        unit.write_register(Register::StrtabBaseCfg, if fetch & 4 == 0 { 0x10 } else { 0x1_0210 });
        unit.write_register(Register::Cr0, 0xd);
        let walk = unit.begin(request).expect("a walker is free");
        let (mut fetches, mut updates, mut n) = (0, 0, 0);
        let mut brought = None;
        loop {
            match unit.advance(walk, brought.take(), &mut iommu_model::Plain) {
                Progress::Fetch { kind, .. } => {
                    fetches += 1;
                    n += 1;
                    brought = Some(answer(Some(kind), words[n % words.len()], structures[n % structures.len()], true));
                }
                Progress::Update { old, new, .. } => {
                    updates += 1;
                    n += 1;
                    brought = Some(Fetched::word(if n % 3 == 0 { words[n % words.len()] } else if n % 3 == 1 { old } else { new }));
                }
                progress if progress.is_end() => break,
                _ => {}
            }
        }
        // Level-1 STE and CD, both structures by words, four levels, and four below each of seven addresses.
        prop_assert!(fetches <= 1 + 4 + 1 + 3 + 4 + 7 * 4, "{fetches}");
        // At most nine in a row, for each of the leaves.
        prop_assert!(updates <= 9 * 8, "{updates}");
        prop_assert_eq!(unit.in_flight_count(), 0);
    }
}

#[test]
fn the_largest_queues_and_tables_of_the_registers_do_not_overflow() {
    let mut bench = Bench::new();
    bench.control(Default::default());
    for register in Register::all() {
        bench.unit.write_register(register, u64::MAX);
    }
    for register in Register::all() {
        let _ = bench.unit.read_register(register);
    }
    bench.unit.register_drained();
    let ended = bench.read(Iova(GUEST));
    assert!(ended.progress.is_end());
    bench.run_events();
}
