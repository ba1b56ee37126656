//! Tables, commands and registers that hold anything: nothing panics, and every walk ends within its level count.

use iommu_model::riscv::{
    AddressKind, Capabilities, CommandInput, CommandProgress, DeviceId, PageRequest, RecordInput, RecordProgress, Register, Transaction,
    Unit,
};
use iommu_model::spec::riscv::register::QueueBase;
use iommu_model::{Access, Decisions, Fetched, Geometry, Iova, Pa, Params, Pasid, Progress, Question, WalkId};
use proptest::prelude::*;

/// Most fetches and updates of a walk whose updates succeed: three directory levels; three of the process directory and
/// five first-stage entries, these with an update each, all below five second-stage entries with an update each; the
/// page below as many; an MSI entry.
const FETCHES_MAX: usize = 3 + 3 * (1 + 10) + 5 * (2 + 10) + 10 + 1;

/// Answers with a stream of numbers.
struct Stream(u64);

impl Stream {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

impl Decisions for Stream {
    fn decide(&mut self, question: Question) -> u32 {
        (self.next() >> 33) as u32 % (question.options() + 1)
    }
}

/// Words of which most look like entries.
fn words_of(seed: u64) -> Vec<u64> {
    let mut stream = Stream(seed | 1);
    let mut word = move || {
        let bits = stream.next() >> 3;
        let frame = bits >> 20 & 63;
        match stream.next() >> 8 & 15 {
            0..6 => frame << 10 | bits & 0x3fe | 1,
            6..8 => frame << 10 | 0xd7,
            8..11 => frame << 2 | (bits & 15) << 60 | (bits >> 8 & 3) << 44,
            11 => bits & 0xfff | 1,
            12 => bits.rotate_left(20),
            13 => 1 << (bits & 63),
            14 => frame << 10 | 1,
            _ => 0,
        }
    };
    (0..4096).map(|_| word()).collect()
}

/// 64 frames of words; what lies beyond is the same again, or nothing.
fn answer(words: &[u64], hole: bool, pa: Pa, bytes: u8) -> Fetched {
    if hole && pa.0 >> 40 != 0 {
        return Fetched::NoMemory;
    }
    let at = |n: u64| words[((pa.0 / 8 + n) % words.len() as u64) as usize];
    if bytes <= 16 { Fetched::Words([at(0), at(1)]) } else { Fetched::Wide(core::array::from_fn(|n| at(n as u64))) }
}

fn capabilities(bits: u32) -> Capabilities {
    let bit = |n: u32| bits >> n & 1 != 0;
    Capabilities {
        sv48: bit(0),
        sv57: bit(0) && bit(1),
        svpbmt: bit(2),
        svrsw60t59b: bit(3),
        msi_flat: bit(4),
        msi_mrif: bit(4) && bit(5),
        amo_hwad: bit(6),
        ats: bit(7),
        t2gpa: bit(7) && bit(8),
        physical_bits: if bit(9) { 32 } else { 56 },
        reserves_non_leaf_bits: bit(10),
        qosid: bit(11),
        ..Capabilities::default()
    }
}

fn params(bits: u32) -> Params {
    let geometry = match bits % 3 {
        0 => Geometry { sets: 1, ways: 0 },
        1 => Geometry { sets: 2, ways: 1 },
        _ => Geometry::fully_associative(4),
    };
    Params { context: geometry, pasid: geometry, iotlb: geometry, psc: [geometry; 4], walks_max: 3, ..Params::default() }
}

#[derive(Clone, Debug)]
enum Act {
    Send { device: u32, iova: u64, bits: u32 },
    PageRequest { device: u32, payload: u64 },
    Prefetch { device: u32, iova: u64 },
    Debug { iova: u64, control: u64 },
    Advance(u8),
    Cancel(u8),
    Register { offset: u64, wide: bool, value: u64 },
    Command([u64; 2]),
    Queue(u8),
    Faults(u8),
    Pages(u8),
    Drop(u8),
    Answered(u8),
    Drained,
}

fn command() -> impl Strategy<Value = [u64; 2]> {
    let known = (1u64..5, 0u64..3, any::<u32>(), 0u64..4, 0u64..4).prop_map(|(opcode, func, low, valid, id)| {
        [opcode | func << 7 | u64::from(low) & 0x3f_f400 | valid << 32 | id << 44, u64::from(low) << 10 & 0x3f_ffff_fc00]
    });
    prop_oneof![3 => known, 1 => any::<[u64; 2]>()]
}

fn act() -> impl Strategy<Value = Act> {
    let iova = || prop_oneof![(0u64..1 << 20).prop_map(|n| n << 10), any::<u64>()];
    let device = || prop_oneof![0u32..128, any::<u32>()];
    let offset =
        prop_oneof![(0u64..22).prop_map(|n| n * 4), (150u64..156).prop_map(|n| n * 4), (190u64..256).prop_map(|n| n * 4), any::<u64>()];
    prop_oneof![
        6 => (device(), iova(), any::<u32>()).prop_map(|(device, iova, bits)| Act::Send { device, iova, bits }),
        1 => (device(), any::<u64>()).prop_map(|(device, payload)| Act::PageRequest { device, payload }),
        1 => (device(), iova()).prop_map(|(device, iova)| Act::Prefetch { device, iova }),
        1 => (iova(), any::<u64>()).prop_map(|(iova, control)| Act::Debug { iova, control }),
        8 => any::<u8>().prop_map(Act::Advance),
        1 => any::<u8>().prop_map(Act::Cancel),
        2 => (offset, any::<bool>(), any::<u64>()).prop_map(|(offset, wide, value)| Act::Register { offset, wide, value }),
        3 => command().prop_map(Act::Command),
        2 => any::<u8>().prop_map(Act::Queue),
        1 => any::<u8>().prop_map(Act::Faults),
        1 => any::<u8>().prop_map(Act::Pages),
        1 => any::<u8>().prop_map(Act::Drop),
        1 => any::<u8>().prop_map(Act::Answered),
        1 => Just(Act::Drained),
    ]
}

fn transaction(device: u32, iova: u64, bits: u32) -> Transaction {
    Transaction {
        device: DeviceId(device),
        iova: Iova(iova),
        access: if bits & 1 == 0 { Access::Read } else { Access::Write },
        execute: bits & 2 != 0,
        kind: match bits >> 2 & 3 {
            0 => AddressKind::Translated,
            1 => AddressKind::TranslationRequest,
            _ => AddressKind::Untranslated,
        },
        process: (bits & 16 != 0).then_some(Pasid(if bits & 32 == 0 { bits >> 12 & 7 } else { bits >> 6 })),
        privileged: bits & 64 != 0,
    }
}

struct Hostile {
    unit: Unit,
    words: Vec<u64>,
    hole: bool,
    stream: Stream,
    walks: Vec<(WalkId, Option<Fetched>)>,
    command: CommandInput,
    /// Updates always succeed.
    calm: bool,
}

impl Hostile {
    fn start(&mut self, walk: Option<WalkId>) {
        self.walks.extend(walk.map(|walk| (walk, None)));
    }

    fn reads(&mut self, pa: Pa, bytes: u8) -> Fetched {
        assert!(pa.0.is_multiple_of(8), "{pa} is naturally aligned");
        answer(&self.words, self.hole, pa, bytes)
    }

    /// One step of one walk. Returns whether it fetched or updated.
    fn advance(&mut self, n: usize) -> bool {
        if self.walks.is_empty() {
            return false;
        }
        let at = n % self.walks.len();
        let (walk, fetched) = self.walks[at];
        self.walks[at].1 = None;
        match self.unit.advance(walk, fetched, &mut self.stream) {
            Progress::Fetch { pa, bytes, .. } => {
                self.walks[at].1 = Some(self.reads(pa, bytes));
                true
            }
            Progress::Update { pa, old, new, .. } => {
                let races = !self.calm && self.stream.next().is_multiple_of(3);
                let found = if races { self.reads(pa, 8) } else { Fetched::word(old) };
                assert_eq!(old | 0xc0, new | 0xc0, "nothing but A and D is set");
                self.walks[at].1 = Some(found);
                true
            }
            Progress::Lookup { .. } | Progress::Merged { .. } => false,
            _ => {
                self.walks.remove(at);
                false
            }
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Send { device, iova, bits } => {
                let walk = self.unit.begin(transaction(device, iova, bits)).ok();
                self.start(walk);
            }
            Act::PageRequest { device, payload } => {
                let process = (payload & 8 != 0).then_some(Pasid(device));
                let request = PageRequest { device: DeviceId(device), payload, process, privileged: true, execute: true };
                let walk = self.unit.begin_page_request(request).ok();
                self.start(walk);
            }
            Act::Prefetch { device, iova } => {
                let walk = self.unit.begin_prefetch(transaction(device, iova, 8)).ok();
                self.start(walk);
            }
            Act::Debug { iova, control } => {
                self.unit.write_register(Register::TrReqIova, iova);
                self.unit.write_register(Register::TrReqCtl, control | 1);
                let walk = self.unit.begin_debug().ok().flatten();
                self.start(walk);
            }
            Act::Advance(n) => {
                self.advance(usize::from(n));
            }
            Act::Cancel(n) => {
                if !self.walks.is_empty() {
                    let (walk, _) = self.walks.remove(usize::from(n) % self.walks.len());
                    assert!(self.unit.cancel(walk));
                }
            }
            Act::Register { offset, wide, value } => {
                self.unit.write_register_at(offset, if wide { 8 } else { 4 }, value);
                let _ = self.unit.read_register_at(offset, 8);
            }
            Act::Command(words) => {
                self.words[0x800] = words[0];
                self.words[0x801] = words[1];
                self.unit.write_register(Register::Cqb, QueueBase::new().with_ppn(4).into_bits());
                self.unit.write_register(Register::Cqcsr, 3 | 0xf00);
                let head = self.unit.read_register(Register::Cqh);
                self.unit.write_register(Register::Cqt, head + 1);
                for _ in 0..6 {
                    self.queue(3);
                }
            }
            Act::Queue(n) => self.queue(n),
            Act::Faults(n) => {
                let input = [RecordInput::Continue, RecordInput::Written, RecordInput::WriteFailed][usize::from(n) % 3];
                if let RecordProgress::Write { bytes, .. } = self.unit.fault_queue_advance(input) {
                    assert_eq!(bytes, 32);
                }
            }
            Act::Pages(n) => {
                let input = [RecordInput::Continue, RecordInput::Written, RecordInput::WriteFailed][usize::from(n) % 3];
                self.unit.page_queue_advance(input);
            }
            Act::Drop(n) => {
                self.unit.drop_cached(usize::from(n) % 16);
            }
            Act::Answered(n) => {
                if n & 1 == 0 {
                    self.unit.device_answered(n >> 1);
                } else {
                    self.unit.device_timed_out(n >> 1);
                }
            }
            Act::Drained => self.unit.register_drained(),
        }
    }

    fn queue(&mut self, n: u8) {
        let input = match n % 8 {
            0 => CommandInput::Unreadable,
            1 => CommandInput::WriteFailed,
            2 => CommandInput::Continue,
            _ => self.command,
        };
        self.command = match self.unit.command_queue_advance(input, &mut self.stream) {
            CommandProgress::Fetch { pa, .. } => match self.reads(pa, 16) {
                Fetched::Words(words) => CommandInput::Command(words),
                _ => CommandInput::Unreadable,
            },
            CommandProgress::Drain { .. } => CommandInput::Drained,
            CommandProgress::Write { .. } => CommandInput::Written,
            _ => CommandInput::Continue,
        };
    }
}

fn hostile(cap: u32, words: Vec<u64>, hole: bool, seed: u64, mode: u64) -> Hostile {
    let mut unit = Unit::new(capabilities(cap), params(cap >> 16));
    unit.write_register(Register::Ddtp, mode | 1 << 10);
    unit.register_drained();
    for (base, control) in [(Register::Fqb, Register::Fqcsr), (Register::Pqb, Register::Pqcsr)] {
        unit.write_register(base, 1 | 2 << 10);
        unit.write_register(control, 3);
    }
    Hostile { unit, words, hole, stream: Stream(seed | 1), walks: Vec::new(), command: CommandInput::Continue, calm: false }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_whatever_tables_commands_and_registers_hold(
        words in any::<u64>().prop_map(words_of),
        acts in prop::collection::vec(act(), 1..200),
        (cap, hole, seed, mode) in (any::<u32>(), any::<bool>(), any::<u64>(), 0u64..6),
    ) {
        let mut world = hostile(cap, words, hole, seed, mode);
        for act in acts {
            world.act(act);
        }
        for _ in 0..2000 {
            world.advance(0);
        }
        prop_assert!(world.walks.is_empty(), "every walk ends");
        prop_assert_eq!(world.unit.in_flight_count(), 0);
    }

    #[test]
    fn a_walk_ends_within_its_level_count(
        words in any::<u64>().prop_map(words_of),
        (cap, hole, seed, mode) in (any::<u32>(), any::<bool>(), any::<u64>(), 2u64..5),
        (device, iova, bits) in (0u32..128, any::<u64>(), any::<u32>()),
    ) {
        let mut world = hostile(cap, words, hole, seed, mode);
        let walk = world.unit.begin(transaction(device, iova & ((1 << 38) - 1), bits)).expect("a walker is free");
        world.start(Some(walk));
        world.calm = true;
        let mut fetches = 0;
        for _ in 0..1000 {
            fetches += usize::from(world.advance(0));
        }
        prop_assert!(world.walks.is_empty() && fetches <= FETCHES_MAX, "{} fetches", fetches);
    }
}
