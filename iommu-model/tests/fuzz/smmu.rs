//! SMMUv3.

use super::driver::{Reached, Target, all_reached, fuzz, hostile, run};
use super::input::{Bytes, Choices};
use iommu_model::smmu::{
    Capabilities, CommandInput, CommandProgress, ConfigFetch, EventInput, EventProgress, HardwareUpdate, PageQueueInput, PageQueueProgress,
    Params, Register, StreamId, Unit,
};
use iommu_model::spec::smmu::context::{Context0, ContextTable};
use iommu_model::spec::smmu::stream::{StreamEntry0, StreamEntry2};
use iommu_model::{Access, Attributes, Bdf, FetchKind, Fetched, Geometry, Iova, Pa, PageRequest, Pasid, Progress, Request, WalkId};
use proptest::prelude::*;

struct Smmu {
    unit: Unit,
}

impl Smmu {
    /// One of 32 kinds of units.
    fn new(n: u64) -> Self {
        let flag = |bit: u32| n >> bit & 1 != 0;
        let level = (n % 3) as u8;
        let cap = Capabilities {
            stage_1: !flag(0) || flag(1),
            stage_2: !flag(1) || flag(0),
            hardware_update: [HardwareUpdate::None, HardwareUpdate::Access, HardwareUpdate::AccessAndDirty][usize::from(level)],
            asid_16: flag(2),
            vmid_16: flag(3),
            msi: flag(4),
            substream_bits: [0, 6, 20][(n % 3) as usize],
            output_bits: [40, 44, 48, 48][(n % 4) as usize],
            break_before_make: level,
            range_invalidation: flag(2),
            ats: flag(4),
            page_requests: flag(2),
            split_ats: !flag(3),
            ..Capabilities::default()
        };
        let two = Geometry { sets: 2, ways: 2 };
        let base = Params { stream: two, context: two, level_1: two, tlb: two, walk_1: [two; 3], walk_2: [two; 3], ..Params::default() };
        let config_fetch = [ConfigFetch::Whole, ConfigFetch::Pairs, ConfigFetch::Words][(n % 3) as usize];
        let params = Params { walks_max: 3, events_max: 6, config_fetch, stream_base: StreamId(0), ..base };
        Self { unit: Unit::new(cap, params) }
    }
}

impl Target for Smmu {
    /// Level-1 STE and CD, both structures word by word, four levels, and four below each of seven addresses.
    const FETCHES_MAX: u32 = 1 + 4 + 1 + 3 + 4 + 7 * 4;
    /// Nine in a row, for each of the leaves.
    const UPDATES_MAX: u32 = 9 * 8;
    const WALKS_MAX: usize = 3;

    fn start(&mut self, bytes: &mut Bytes<'_>) {
        self.unit.reset();
        // Linear, or two levels split at 8.
        self.unit.write_register(Register::StrtabBaseCfg, if bytes.below(2) == 0 { 0x10 } else { 0x1_0210 });
        self.unit.write_register(Register::StrtabBase, bytes.frame());
        self.unit.write_register(Register::CmdqBase, 4);
        self.unit.write_register(Register::EventqBase, 2);
        self.unit.write_register(Register::Cr2, bytes.below(16));
        if bytes.below(8) != 0 {
            self.unit.write_register(Register::Cr0, 0xd | bytes.below(2) << 4);
            self.unit.register_drained();
        }
    }

    fn begin(&mut self, bytes: &mut Bytes<'_>) -> Option<WalkId> {
        let iova = match bytes.below(8) {
            0 => bytes.word(),
            1 | 2 => bytes.below(1 << 40),
            3 => !bytes.below(1 << 20),
            _ => bytes.below(1 << 14),
        };
        let pasid = match bytes.below(16) {
            0 => Some(Pasid(bytes.word() as u32)),
            1..4 => Some(Pasid(bytes.below(4) as u32)),
            _ => None,
        };
        let access = if bytes.below(2) == 0 { Access::Read } else { Access::Write };
        let request = Request { source: Bdf(bytes.below(4) as u16), iova: Iova(iova), access, pasid };
        match bytes.below(8) {
            0 => self.unit.begin_prefetch(request).ok(),
            1 => self.unit.begin_as(request, Attributes::translation(bytes.below(2) == 0)).ok(),
            2 => self.unit.begin_as(request, Attributes::translated()).ok(),
            _ => self.unit.begin(request).ok(),
        }
    }

    fn advance(&mut self, walk: WalkId, fetched: Option<Fetched>, d: &mut Choices) -> Progress {
        self.unit.advance(walk, fetched, d)
    }

    fn awaited(&self, walk: WalkId) -> Option<(Pa, FetchKind)> {
        self.unit.in_flight().find(|view| view.id == walk).and_then(|view| view.fetch)
    }

    fn cancel(&mut self, walk: WalkId) -> bool {
        self.unit.cancel(walk)
    }

    fn in_flight_count(&self) -> usize {
        self.unit.in_flight_count()
    }

    fn answer(&self, bytes: &mut Bytes<'_>, pa: Pa, kind: FetchKind) -> Fetched {
        if let Some(fetched) = hostile(bytes) {
            return fetched;
        }
        let (frame, bits) = (bytes.frame() & 0xffff_f000, bytes.word());
        // HA and HD: mostly as the unit has them.
        let updates = match self.unit.capabilities().hardware_update {
            HardwareUpdate::None => (false, false),
            HardwareUpdate::Access => (bits >> 62 & 1 != 0, false),
            HardwareUpdate::AccessAndDirty => (bits >> 62 & 1 != 0, bits >> 62 == 3),
        };
        match kind {
            FetchKind::StreamLevel1 => Fetched::word(frame | 9),
            FetchKind::StreamEntry => {
                let first = StreamEntry0::new().with_valid(true).with_config(4 + (bits & 3) as u8).with_context(frame >> 6);
                let first = first.with_format((bits >> 2 & 3) as u8).with_context_bits((bits >> 4 & 3) as u8);
                let third =
                    StreamEntry2::new().with_vmid((bits >> 8 & 3) as u16).with_input_size([25, 25, 24, 33][(bits >> 10 & 3) as usize]);
                let third =
                    third.with_start_level([1, 1, 1, 0][(bits >> 10 & 3) as usize]).with_granule(if bits >> 12 & 7 == 0 { 2 } else { 0 });
                let third = third.with_output_size(2 + (bits >> 14 & 3) as u8).with_aarch64(true).with_record(bits >> 17 & 1 != 0);
                let third = third.with_hardware_access(updates.0).with_hardware_dirty(updates.1);
                piece(
                    [
                        first.into_bits(),
                        (1 + (bits >> 20 & 1)) | (bits >> 21 & 3) << 28,
                        third.into_bits(),
                        bytes.frame() & 0xffff_f000,
                        0,
                        0,
                        0,
                        0,
                    ],
                    pa,
                )
            }
            FetchKind::ContextLevel1 => Fetched::word(frame | 1),
            FetchKind::ContextDescriptor => {
                let first = Context0::new().with_valid(true).with_aarch64(true).with_abort(true).with_record(bits & 1 != 0);
                let first = first.with_size_0(16 + (bits >> 1 & 15) as u8).with_granule_0((bits >> 5 & 3) as u8 % 3);
                let first = first.with_size_1(25).with_granule_1(1 + (bits >> 7 & 1) as u8).with_disable_1(bits >> 8 & 1 != 0);
                let first = first.with_hardware_access(updates.0).with_hardware_dirty(updates.1);
                let first = first.with_output_size(2 + (bits >> 11 & 3) as u8).with_asid((bits >> 14 & 3) as u16);
                let table = |frame: u64| ContextTable::new().with_table(frame >> 4).into_bits();
                piece([first.into_bits(), table(frame), table(bytes.frame() & 0xffff_f000), 0, 0, 0, 0, 0], pa)
            }
            // Tables, blocks and pages; AF, permissions and DBM as they come.
            FetchKind::Stage1 { .. } | FetchKind::Stage2 { .. } => {
                let kind = if bits & 7 == 0 { 1 } else { 3 };
                let stale = if bits >> 3 & 3 == 0 { 0 } else { 1 << 10 };
                Fetched::word(frame | kind | (bits & 0x80) | stale | 0x40 | (bits & 1 << 51))
            }
            other => unreachable!("an SMMU fetches no {other:?}"),
        }
    }

    fn disturb(&mut self, bytes: &mut Bytes<'_>, reached: &mut Reached, d: &mut Choices) {
        let unit = &mut self.unit;
        match bytes.below(8) {
            0 => {
                let offset = if bytes.below(2) == 0 { bytes.below(0x60) * 4 } else { bytes.word() };
                let (size, value) = (if bytes.below(4) == 0 { bytes.word() as u8 } else { 4 + 4 * bytes.below(2) as u8 }, bytes.word());
                unit.write_register_at(offset, size, value);
                let _ = unit.read_register_at(offset, size);
            }
            1 => {
                unit.write_register(Register::Cr0, bytes.below(32) | 1);
                unit.register_drained();
            }
            2..5 => commands(unit, bytes, reached, d),
            5 => {
                for _ in 0..4 {
                    match unit.event_advance(if bytes.below(8) == 0 { EventInput::Aborted } else { EventInput::Written }) {
                        EventProgress::Write { pa, .. } => {
                            assert!(pa.is_aligned(8));
                            reached.records += 1;
                        }
                        EventProgress::Aborted { .. } => {
                            unit.write_register(Register::Gerrorn, unit.read_register(Register::Gerror));
                        }
                        _ => {}
                    }
                }
                unit.write_register(Register::EventqCons, unit.read_register(Register::EventqProd));
                page_requests(unit, bytes);
            }
            6 => {
                unit.drop_cached(bytes.below(24) as usize);
            }
            _ => {
                let request =
                    Request { source: Bdf(bytes.below(4) as u16), iova: Iova(bytes.below(1 << 14)), access: Access::Read, pasid: None };
                let _ = unit.translate_cached(&request);
            }
        }
    }
}

/// What is fetched of an entry from this address on: units may take one in pieces.
fn piece(mut words: [u64; 8], pa: Pa) -> Fetched {
    words.rotate_left((pa.0 / 8 % 8) as usize);
    Fetched::Wide(words)
}

fn page_requests(unit: &mut Unit, bytes: &mut Bytes<'_>) {
    let bits = bytes.word();
    for n in 0..bytes.below(4) {
        let flag = |bit: u32| bits >> bit & 1 != 0;
        unit.page_request(PageRequest {
            source: Bdf(bits as u16),
            pasid: flag(16).then_some(Pasid((bits >> 20) as u32)),
            address: Iova(bits),
            read: flag(17),
            write: flag(18),
            execute: flag(19),
            privileged: flag(20),
            last: flag(21 + n as u32),
            group: (bits >> 32) as u16,
        });
        let input = [PageQueueInput::Continue, PageQueueInput::Written, PageQueueInput::Aborted][bytes.below(3) as usize];
        if let PageQueueProgress::Write { pa, .. } = unit.page_queue_advance(input) {
            assert!(pa.is_aligned(16));
        }
    }
    if bits >> 63 != 0 {
        unit.write_register(Register::PriqCons, unit.read_register(Register::PriqProd));
    }
}

fn commands(unit: &mut Unit, bytes: &mut Bytes<'_>, reached: &mut Reached, d: &mut Choices) {
    unit.write_register(Register::CmdqProd, bytes.below(32));
    let mut input = CommandInput::Continue;
    for _ in 0..bytes.below(12) {
        input = match unit.command_advance(input, d) {
            CommandProgress::Idle => return,
            CommandProgress::Fetch { pa, .. } => {
                assert!(pa.is_aligned(16));
                let known = [1, 3, 4, 5, 6, 0x10, 0x11, 0x12, 0x13, 0x28, 0x2a, 0x30, 0x40, 0x41, 0x46, 0x46];
                let opcode = known[bytes.below(16) as usize];
                let ids = bytes.below(4) << 48 | bytes.below(4) << 32 | bytes.below(4) << 12;
                match bytes.below(16) {
                    0 => CommandInput::Unreadable,
                    1 => CommandInput::Command([bytes.word(), bytes.word()]),
                    _ => CommandInput::Command([opcode | ids, bytes.below(1 << 20) << 12 | bytes.below(32)]),
                }
            }
            CommandProgress::Consumed { done, .. } => {
                reached.invalidations += u64::from(done.is_some());
                CommandInput::Continue
            }
            CommandProgress::InvalidateDevice { request, .. } => {
                match bytes.below(4) {
                    0 => assert!(unit.device_times_out(request.itag)),
                    1 => {}
                    _ => assert_eq!(unit.device_completes(request.source, 1 << request.itag), 1),
                }
                CommandInput::Continue
            }
            CommandProgress::Respond { .. } => CommandInput::Continue,
            CommandProgress::AwaitDevices { itags } => {
                unit.device_times_out(itags.trailing_zeros() as u8);
                CommandInput::Continue
            }
            CommandProgress::Drain { .. } => CommandInput::Drained,
            CommandProgress::AwaitEvents => {
                unit.event_advance(EventInput::Written);
                CommandInput::Continue
            }
            CommandProgress::WriteMessage { pa, .. } => {
                assert!(pa.is_aligned(4));
                if bytes.below(4) == 0 { CommandInput::Aborted } else { CommandInput::Written }
            }
            CommandProgress::Synchronised { .. } => CommandInput::Continue,
            CommandProgress::Stopped { .. } => {
                reached.stops += 1;
                unit.write_register(Register::Gerrorn, unit.read_register(Register::Gerror));
                CommandInput::Continue
            }
        };
    }
}

fn units() -> Vec<Smmu> {
    (0..32).map(Smmu::new).collect()
}

#[test]
fn nothing_in_memory_or_registers_can_hurt_the_unit() {
    let reached = fuzz(&mut units(), 40_000, 0);
    assert!(all_reached(&reached, 50), "{reached:?}");
}

#[test]
#[ignore = "ten million inputs; in release mode some minutes"]
fn ten_million_inputs() {
    let reached = fuzz(&mut units(), 10_000_000, 1 << 32);
    println!("SMMUv3, 10000000 inputs: {reached:?}");
    assert!(all_reached(&reached, 10_000), "{reached:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    /// Short repeating lists of bytes reach what random streams do not: the same answer again and again.
    #[test]
    fn any_list_of_bytes_is_taken(which in 0u64..32, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        run(&mut Smmu::new(which), &mut Bytes::given(&bytes), &mut Reached::default());
    }
}
