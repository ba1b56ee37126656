//! VT-d.

use super::input::{Bytes, Choices};
use iommu_model::inspect::{self, Limits};
use iommu_model::{
    Access, Attributes, Bdf, Capabilities, DeviceInvalidation, DeviceTlb, FetchKind, Fetched, Geometry, Iova, Pa, PageQueueInput,
    PageQueueProgress, PageRange, PageRequest, Params, Pasid, Progress, QueueInput, QueueProgress, Register, Request, RequestKind,
    Scalable, Unit, WalkId,
};
use proptest::prelude::*;

const fn is_scalable(unit: &Unit) -> bool {
    unit.capabilities().scalable.is_some()
}

/// What memory holds: mostly what belongs there, sometimes anything.
fn answer(bytes: &mut Bytes<'_>, scalable: bool, kind: FetchKind) -> Fetched {
    match bytes.below(4 * bytes.hostility) {
        0 => return Fetched::NoMemory,
        1 => return Fetched::Words([bytes.entry(), bytes.entry()]),
        2 | 3 => return Fetched::Wide([(); 8].map(|()| bytes.entry())),
        _ => {}
    }
    let (frame, bits) = (bytes.frame(), bytes.word());
    match kind {
        // The upper half is reserved in legacy mode.
        FetchKind::Root => Fetched::Words([frame | 1, if scalable { bytes.frame() | 1 } else { 0 }]),
        // T, AW, DID.
        FetchKind::Context => Fetched::Words([frame | ((bits % 3) << 2) | 1, (1 + (bits >> 8) % 3) | (bits >> 16 & 7) << 8]),
        // DTE, PASIDE, PRE; RID_PASID.
        FetchKind::ScalableContext => Fetched::Wide([frame | (bits & 0x12) | 0xd, bits >> 8 & 3, 0, 0, 0, 0, 0, 0]),
        FetchKind::PasidDirectory => Fetched::word(frame | 1),
        // AW, SSEE, PGTT, SSADE; DID, PWSNP; every flag of the first stage.
        FetchKind::PasidEntry => {
            let width = 1 + (bits >> 2) % 3;
            let low = frame | (bits & 0x220) | width << 2 | (1 + (bits >> 16) % 4) << 6 | 1;
            Fetched::Wide([low, (bits >> 24 & 7) | 1 << 23, bytes.frame() | (bits >> 32 & 0xf7), 0, 0, 0, 0, 0])
        }
        // Present, and most often allowed; A and D as they come.
        FetchKind::Table { .. } | FetchKind::FirstStage { .. } => Fetched::word(frame | 7 | (bits & 0x360)),
        other => unreachable!("VT-d fetches no {other:?}"),
    }
}

/// The units that inputs are tried on, made once; each input resets its own.
struct Bench {
    units: Vec<Unit>,
    device: DeviceTlb,
    /// Counters that say whether the inputs reach anything.
    reached: Reached,
}

#[derive(Clone, Copy, Default, Debug)]
struct Reached {
    translations: u64,
    faults: u64,
    updates: u64,
    invalidations: u64,
    stops: u64,
    hits: u64,
    records: u64,
}

fn capabilities(n: u64) -> Capabilities {
    let flag = |bit: u32| n >> bit & 1 != 0;
    Capabilities {
        scalable: flag(0).then(|| Scalable { walk_coherent: !flag(3), rid_pasid: !flag(2), ..Scalable::default() }),
        page_requests: flag(0) && flag(1),
        caching_mode: flag(2),
        root_switch_invalidates: flag(3),
        page_selective: !flag(4),
        device_throttle: flag(1),
        abort_mode: flag(4),
        host_width: if flag(3) { 39 } else { 52 },
        guest_width: if flag(4) { 48 } else { 57 },
        fault_records: 1 + (n % 3) as u16,
        domains: (n % 7) as u8,
        ..Capabilities::default()
    }
}

impl Bench {
    fn new() -> Self {
        let two = Geometry { sets: 2, ways: 2 };
        let units = (0..32u64).map(|n| {
            let params = Params {
                context: two,
                iotlb: two,
                pasid: two,
                psc: [two; 4],
                walks_max: 3,
                split_fetches: n % 5 == 4,
                ..Params::default()
            };
            Unit::new(capabilities(n), params)
        });
        Self { units: units.collect(), device: DeviceTlb::new(two), reached: Reached::default() }
    }

    fn run(&mut self, bytes: &mut Bytes<'_>) {
        let which = bytes.below(32) as usize;
        let unit = &mut self.units[which];
        unit.reset();
        self.device.reset();
        let mut d = Choices(bytes.word());
        bytes.hostility = [1, 4, 16, 256][bytes.below(4) as usize];
        // On more often than by chance.
        let mode = if is_scalable(unit) { 1 << 10 } else { 0 };
        if bytes.below(8) != 0 {
            unit.write_register(Register::Rtaddr, (bytes.word() & 0xf_ffff_f000) | mode, &mut d);
            unit.write_register(Register::Iqa, if mode == 0 { 0 } else { 1 << 11 }, &mut d);
            unit.write_register(Register::Gcmd, 0xc400_0000, &mut d);
            unit.register_drained();
        }
        let mut walks: Vec<WalkId> = Vec::with_capacity(4);
        for _ in 0..bytes.below(24) + 1 {
            step(unit, &mut self.device, &mut self.reached, &mut walks, bytes, &mut d);
            assert!(unit.in_flight_count() == walks.len() && walks.len() <= 3);
        }
        for walk in walks.drain(..) {
            finish(unit, &mut self.reached, walk, bytes, &mut d);
        }
        assert_eq!(unit.in_flight_count(), 0);
        if bytes.below(1024) == 0 {
            assert!(unit.snapshot().to_string().starts_with("Ver"));
            let limits = Limits { words_max: 2000, lines_max: 50 };
            let mut read = |pa: Pa| (!pa.is_aligned(1 << 20)).then_some(pa.0.rotate_left(17) | 3);
            assert!(inspect::root_table(Pa(bytes.word() & !0xfff), limits, &mut read).lines().count() <= 51);
        }
    }
}

fn request(bytes: &mut Bytes<'_>, scalable: bool) -> Request {
    let iova = match bytes.below(12) {
        0 => bytes.word(),
        1 => 0xfee0_0000 | bytes.below(1 << 20),
        2..4 => bytes.below(1 << 40),
        _ => bytes.below(1 << 14),
    };
    Request {
        source: Bdf(bytes.below(4) as u16 * 0x81),
        iova: Iova(iova),
        access: if bytes.below(2) == 0 { Access::Read } else { Access::Write },
        pasid: match bytes.below(24) {
            0 => Some(Pasid(bytes.word() as u32)),
            1..9 if scalable => Some(Pasid(bytes.below(4) as u32)),
            _ => None,
        },
    }
}

fn attributes(bytes: &mut Bytes<'_>) -> Attributes {
    let kind = match bytes.below(8) {
        0 => RequestKind::Translation { no_write: false },
        1 => RequestKind::Translation { no_write: true },
        2 => RequestKind::Translated,
        _ => RequestKind::Untranslated,
    };
    Attributes { kind, privileged: bytes.below(4) == 0, execute: bytes.below(4) == 0 }
}

fn check(progress: &Progress, reached: &mut Reached) {
    match progress {
        Progress::Fetch { pa, bytes, .. } => assert!(pa.is_aligned(u64::from(*bytes)), "{pa} for {bytes} bytes"),
        Progress::Update { pa, old, new, .. } => {
            assert!(pa.is_aligned(8) && old & !new == 0, "an update only sets bits");
            reached.updates += 1;
        }
        Progress::Done(translation) => {
            assert!(translation.page_bytes.is_power_of_two());
            reached.translations += 1;
        }
        Progress::Fault(_) => reached.faults += 1,
        _ => {}
    }
}

/// What the walk waits for.
fn awaited(unit: &Unit, walk: WalkId) -> Option<FetchKind> {
    unit.in_flight().find(|view| view.id == walk).and_then(|view| view.fetch).map(|(_, kind)| kind)
}

/// Most fetches of a walk that nobody restarts: root, context, directory and PASID entry word by word; five levels of
/// first stage on five of second, and the page.
const FETCHES_MAX: u32 = 2 + 4 + 1 + 8 + 5 * 6 + 5;

/// Drives a walk to its end.
fn finish(unit: &mut Unit, reached: &mut Reached, walk: WalkId, bytes: &mut Bytes<'_>, d: &mut Choices) {
    let mut brought = awaited(unit, walk).map(|kind| answer(bytes, is_scalable(unit), kind));
    let (mut fetches, mut updates) = (0, 0);
    for _ in 0..2000 {
        let progress = unit.advance(walk, brought.take(), d);
        check(&progress, reached);
        match progress {
            Progress::Fetch { kind, .. } => {
                fetches += 1;
                assert!(fetches <= FETCHES_MAX, "more fetches than levels");
                brought = Some(answer(bytes, is_scalable(unit), kind));
            }
            Progress::Update { old, new, .. } => {
                updates += 1;
                assert!(updates <= 17 * 36, "more updates than tries");
                brought = Some(if bytes.below(2) == 0 { Fetched::word(old) } else { Fetched::word(bytes.entry() | new & 1) });
            }
            Progress::Merged { .. } => {
                assert!(unit.cancel(walk));
                return;
            }
            progress if progress.is_end() => return,
            _ => {}
        }
    }
    panic!("a walk without end");
}

fn step(unit: &mut Unit, device: &mut DeviceTlb, reached: &mut Reached, walks: &mut Vec<WalkId>, bytes: &mut Bytes<'_>, d: &mut Choices) {
    match bytes.below(24) {
        0..4 => {
            let (request, attributes) = (request(bytes, is_scalable(unit)), attributes(bytes));
            walks.extend(unit.begin_as(request, attributes));
        }
        4..9 => {
            let Some(n) = (!walks.is_empty()).then(|| bytes.below(walks.len() as u64) as usize) else { return };
            let asked = awaited(unit, walks[n]);
            let progress = unit.advance(walks[n], asked.map(|kind| answer(bytes, is_scalable(unit), kind)), d);
            check(&progress, reached);
            if progress.is_end() {
                walks.remove(n);
            }
        }
        9 | 10 => {
            if let Some(walk) = walks.pop() {
                finish(unit, reached, walk, bytes, d);
            }
        }
        11 => {
            if let Some(walk) = walks.pop() {
                assert!(unit.cancel(walk));
            }
        }
        12 => {
            let offset = if bytes.below(2) == 0 { bytes.below(0x60) * 4 } else { bytes.word() };
            let value = bytes.word();
            unit.write_register_at(offset, if bytes.below(4) == 0 { 4 } else { 8 }, value, d);
        }
        13 => {
            let fixed: Vec<Register> = Register::fixed().collect();
            let register = fixed[bytes.below(fixed.len() as u64) as usize];
            let value = if register == Register::Gcmd { bytes.word() | 1 << 31 | 1 << 26 } else { bytes.entry() };
            unit.write_register(register, value, d);
        }
        14 => {
            let offset = bytes.below(0x500) * 4;
            assert_eq!(unit.read_register_at(offset, 4), unit.read_register_at(offset & !7, 8) >> (8 * (offset & 7)) & 0xffff_ffff);
        }
        15 | 16 => queue(unit, reached, bytes, d),
        17 => {
            unit.register_drained();
            unit.drop_cached(bytes.below(16) as usize);
        }
        18 => {
            unit.device_completes(Bdf(bytes.below(4) as u16), 1 << bytes.below(32));
            unit.device_times_out(bytes.word() as u8);
        }
        19 => {
            let plain = request(bytes, is_scalable(unit));
            let request = PageRequest {
                source: plain.source,
                pasid: plain.pasid,
                address: plain.iova,
                read: bytes.below(2) == 0,
                write: plain.access == Access::Write,
                execute: false,
                privileged: bytes.below(2) == 0,
                last: bytes.below(2) == 0,
                group: bytes.word() as u16,
            };
            walks.extend(unit.begin_page_request(request));
        }
        20 => {
            let input = if bytes.below(2) == 0 { PageQueueInput::Continue } else { PageQueueInput::Written };
            if let PageQueueProgress::WriteRecord { pa, .. } = unit.page_queue_advance(input) {
                assert!(pa.is_aligned(32));
                reached.records += 1;
            }
        }
        21 => (0..8).for_each(|_| reached.hits += u64::from(unit.translate_cached(&request(bytes, is_scalable(unit))).is_some())),
        22 => {
            let request = request(bytes, is_scalable(unit));
            if let Ok(walk) = unit.begin_prefetch(request) {
                finish(unit, reached, walk, bytes, d);
            }
        }
        _ => keep(unit, device, bytes, d),
    }
}

/// Some steps of the invalidation queue.
fn queue(unit: &mut Unit, reached: &mut Reached, bytes: &mut Bytes<'_>, d: &mut Choices) {
    unit.write_register(Register::Iqt, bytes.below(128) << 5, d);
    let mut input = QueueInput::Continue;
    for _ in 0..bytes.below(12) {
        input = match unit.queue_advance(input, d) {
            QueueProgress::Idle | QueueProgress::Blocked { .. } => return,
            QueueProgress::FetchDescriptor { pa, bytes: count, .. } => {
                assert!(pa.is_aligned(u64::from(count)));
                let kind = 1 + bytes.below(9);
                let granularity = (1 + bytes.below(3)) << 4;
                let (domain, source) = (bytes.below(8) << 16, bytes.below(4) << 32);
                let (low, high) = match kind {
                    1 => (granularity | domain | source, 0),
                    2 | 6 => (granularity | domain | source, bytes.below(1 << 20) << 12 | bytes.below(0x50)),
                    3 => (source | bytes.below(32) << 16, bytes.below(1 << 20) << 12 | bytes.below(2)),
                    4 | 7 => (granularity & 0x10 | domain & if kind == 4 { 0 } else { u64::MAX } | source, 0),
                    5 => (bytes.below(8) << 4 | bytes.below(1 << 30) << 32, bytes.below(1 << 30) << 2),
                    8 => (domain | bytes.below(32) << 4 | source, bytes.below(1 << 20) << 12 | bytes.below(2)),
                    _ => (domain | source | 1 << 4, bytes.below(512) << 3),
                };
                let (low, high) = if bytes.below(8) == 0 { (bytes.word() & !0xf, bytes.word()) } else { (low, high) };
                let low = low | kind;
                match bytes.below(8) {
                    0 => QueueInput::DescriptorUnreadable,
                    1 => QueueInput::WideDescriptor([bytes.word(), bytes.word(), bytes.word(), 0]),
                    _ if count == 32 => QueueInput::WideDescriptor([low, high, 0, 0]),
                    _ => QueueInput::Descriptor([low, high]),
                }
            }
            QueueProgress::Drain { .. } => QueueInput::Drained,
            QueueProgress::WriteStatus { pa, .. } => {
                assert!(pa.is_aligned(4));
                QueueInput::Written
            }
            QueueProgress::Stopped(_) => {
                reached.stops += 1;
                unit.write_register(Register::Fsts, 0x7f, d);
                QueueInput::Continue
            }
            QueueProgress::Invalidated { .. } => {
                reached.invalidations += 1;
                QueueInput::Continue
            }
            _ => QueueInput::Continue,
        };
    }
}

/// A device TLB takes whatever answer, and forgets it again.
fn keep(unit: &Unit, device: &mut DeviceTlb, bytes: &mut Bytes<'_>, d: &mut Choices) {
    let request = request(bytes, is_scalable(unit));
    let Ok(tag) = device.ask(request.pasid, request.iova) else { return };
    let order = bytes.below(64) as u8;
    let what = DeviceInvalidation {
        source: request.source,
        pasid: request.pasid,
        every_pasid: bytes.below(2) == 0,
        range: PageRange { address: Iova(bytes.word()), order },
        itag: 0,
    };
    if bytes.below(2) == 0 {
        device.invalidate(&what);
    }
    let answer = iommu_model::Translation {
        pa: Pa(bytes.word()),
        readable: bytes.below(2) == 0,
        writable: bytes.below(2) == 0,
        page_bytes: 1 << (12 + 9 * bytes.below(3)),
        domain: iommu_model::DomainId(0),
        pass_through: false,
        cost: 0,
        cost_total: 0,
        fetches: 0,
        from: iommu_model::CacheHit::None,
    };
    device.keep(tag, &answer, &unit.last_provenance(), d);
    let _ = device.look_up(request.pasid, request.iova, request.access);
    device.invalidate(&what);
    assert!(device.entries().count() <= 4);
}

fn fuzz(inputs: u64, first: u64) -> Reached {
    let mut bench = Bench::new();
    for n in 0..inputs {
        bench.run(&mut Bytes::numbered(first + n));
    }
    bench.reached
}

#[test]
fn nothing_in_memory_or_registers_can_hurt_the_unit() {
    let reached = fuzz(40_000, 0);
    let Reached { translations, faults, updates, invalidations, stops, hits, records } = reached;
    assert!([translations, faults, updates, invalidations, stops, hits, records].iter().all(|count| *count > 50), "{reached:?}");
}

#[test]
#[ignore = "ten million inputs; in release mode some minutes"]
fn ten_million_inputs() {
    let reached = fuzz(10_000_000, 1 << 32);
    println!("VT-d, 10000000 inputs: {reached:?}");
    assert!(reached.translations > 1_000_000);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// Short repeating lists of bytes reach what random streams do not: the same answer again and again.
    #[test]
    fn any_list_of_bytes_is_taken(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        Bench::new().run(&mut Bytes::given(&bytes));
    }
}
