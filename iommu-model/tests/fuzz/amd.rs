//! AMD-Vi.

use super::driver::{Reached, Target, all_reached, fuzz, hostile, run};
use super::input::{Bytes, Choices};
use iommu_model::amd::{Capabilities, CommandInput, CommandProgress, EventInput, EventProgress, Register, Unit};
use iommu_model::spec::amd::device_table::{DeviceEntryHigh, DeviceEntryLow};
use iommu_model::{Access, Attributes, Bdf, FetchKind, Fetched, Geometry, Iova, Pa, Params, Pasid, Progress, Request, WalkId};
use proptest::prelude::*;

struct Amd {
    unit: Unit,
}

impl Amd {
    /// One of 32 kinds of units.
    fn new(n: u64) -> Self {
        let flag = |bit: u32| n >> bit & 1 != 0;
        let cap = Capabilities {
            host_levels: 4 + (n % 3) as u8,
            guest_translation: !flag(0),
            guest_levels: 4 + (n % 2) as u8,
            guest_root_levels: 1 + (n % 3) as u8,
            pasid_bits: [1, 9, 16, 20][(n % 4) as usize],
            guest_io: flag(1),
            guest_root_in_guest: flag(2),
            host_accessed: flag(3),
            host_dirty: flag(3) && flag(4),
            not_present_cached: flag(1),
            invalidate_all: !flag(2),
            device_tlb: flag(3),
            prefetch: flag(4),
            checks_reserved: flag(0),
            checks_input_width: flag(2),
            ..Capabilities::default()
        };
        let two = Geometry { sets: 2, ways: 2 };
        let params = Params { context: two, iotlb: two, pasid: two, psc: [two; 4], walks_max: 3, ..Params::default() };
        Self { unit: Unit::new(cap, params) }
    }
}

/// EventLogEn, CmdBufEn, IommuEn, GTEn.
const ON: u64 = 0x1_1005;

impl Target for Amd {
    /// The device table entry; three levels of GCR3 table and five of guest table, each below six host levels; the page.
    const FETCHES_MAX: u32 = 1 + (3 + 5) * 7 + 6;
    /// As many entries, each tried sixteen times and once more.
    const UPDATES_MAX: u32 = 17 * Self::FETCHES_MAX;
    const WALKS_MAX: usize = 3;

    fn start(&mut self, bytes: &mut Bytes<'_>) {
        self.unit.reset();
        self.unit.write_register(Register::DeviceTableBase, bytes.frame() | 0x1ff);
        if bytes.below(8) != 0 {
            self.unit.write_register(Register::Control, ON);
        }
    }

    fn begin(&mut self, bytes: &mut Bytes<'_>) -> Option<WalkId> {
        let iova = match bytes.below(8) {
            0 => bytes.word(),
            1 | 2 => bytes.below(1 << 40),
            3 => 0xfee0_0000 | bytes.below(1 << 20),
            _ => bytes.below(1 << 14),
        };
        let pasid = match bytes.below(8) {
            0 => Some(Pasid(bytes.word() as u32)),
            1 | 2 => Some(Pasid(bytes.below(4) as u32)),
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

    fn answer(&self, bytes: &mut Bytes<'_>, _: Pa, kind: FetchKind) -> Fetched {
        if let Some(fetched) = hostile(bytes) {
            return fetched;
        }
        let (frame, bits) = (bytes.frame(), bytes.word());
        match kind {
            FetchKind::DeviceTableEntry => {
                let guest = bits & 3 == 0;
                let low = DeviceEntryLow::new()
                    .with_valid(true)
                    .with_translation_valid(true)
                    .with_mode([1, 3, 4, 6][(bits >> 2 & 3) as usize])
                    .with_root(frame >> 12)
                    .with_domain((bits >> 4 & 3) as u16)
                    .with_guest_valid(guest)
                    .with_guest_io_valid(guest && bits >> 6 & 1 != 0)
                    .with_guest_levels(if guest { (bits >> 7 & 3) as u8 % 3 } else { 0 })
                    .with_guest_root(if guest { bytes.frame() >> 12 } else { 0 })
                    .with_host_access_dirty([0, 0, 1, 3][(bits >> 9 & 3) as usize])
                    .with_iotlb(bits >> 18 & 1 != 0)
                    .with_suppress_all(bits >> 11 & 7 == 0)
                    .with_read(true)
                    .with_write(bits >> 14 & 3 != 0)
                    .into_bits();
                let high = DeviceEntryHigh::new().with_guest_paging((bits >> 16 & 1) as u8).into_bits() as u64;
                Fetched::Wide([low as u64, (low >> 64) as u64, if guest { high } else { 0 }, 0, 0, 0, 0, 0])
            }
            FetchKind::GuestCr3 { .. } => Fetched::word(frame | 1),
            // Present, user, writable; A and D as they come.
            FetchKind::FirstStage { .. } => Fetched::word(frame | 7 | (bits & 0x60) | if bits & 7 == 0 { 0x80 } else { 0 }),
            FetchKind::Table { level } => {
                let next = match bits & 7 {
                    0 => 0,
                    1 => 7,
                    2 => bits >> 3 & 7,
                    _ => u64::from(level.saturating_sub(1)),
                };
                Fetched::word(3 << 61 | frame | next << 9 | (bits & 0x60) | 1)
            }
            other => unreachable!("AMD-Vi fetches no {other:?}"),
        }
    }

    fn disturb(&mut self, bytes: &mut Bytes<'_>, reached: &mut Reached, d: &mut Choices) {
        let unit = &mut self.unit;
        match bytes.below(8) {
            0 => {
                let offset = [bytes.below(0x40), 0x2000 + bytes.below(0x30), bytes.word()][bytes.below(3) as usize];
                let (size, value) = (if bytes.below(4) == 0 { bytes.word() as u8 } else { 4 + 4 * bytes.below(2) as u8 }, bytes.word());
                unit.write_register_at(offset, size, value);
                let _ = unit.read_register_at(offset, size);
            }
            1 => {
                unit.write_register(Register::Control, bytes.word() | ON);
            }
            2..5 => commands(unit, bytes, reached, d),
            5 => {
                for _ in 0..4 {
                    if let EventProgress::Write { pa, .. } = unit.event_log_advance(EventInput::Written) {
                        assert!(pa.is_aligned(16));
                        reached.records += 1;
                    }
                }
            }
            6 => {
                unit.drop_cached(bytes.below(16) as usize);
            }
            _ => {
                let request =
                    Request { source: Bdf(bytes.below(4) as u16), iova: Iova(bytes.below(1 << 14)), access: Access::Read, pasid: None };
                let _ = unit.translate_cached(&request);
            }
        }
    }
}

fn commands(unit: &mut Unit, bytes: &mut Bytes<'_>, reached: &mut Reached, d: &mut Choices) {
    unit.write_register(Register::CommandTail, bytes.below(256) << 4);
    let mut input = CommandInput::Continue;
    for _ in 0..bytes.below(12) {
        input = match unit.command_advance(input, d) {
            CommandProgress::Idle => return,
            CommandProgress::Fetch { pa, .. } => {
                assert!(pa.is_aligned(16));
                let (low, domain) = (bytes.below(4), bytes.below(4) << 32);
                match bytes.below(16) {
                    0 => CommandInput::Unreadable,
                    1 => CommandInput::Command([bytes.word(), bytes.word()]),
                    2..6 => CommandInput::Command([1 << 60 | bytes.below(1 << 30) << 3 | low, bytes.word()]),
                    6..8 => CommandInput::Command([2 << 60 | low, 0]),
                    8 => CommandInput::Command([8 << 60, 0]),
                    9 => CommandInput::Command([(4 + bytes.below(4)) << 60 | low, 0]),
                    _ => CommandInput::Command([3 << 60 | domain | low, bytes.below(1 << 40) << 12 | bytes.below(8)]),
                }
            }
            CommandProgress::Invalidated { .. } => {
                reached.invalidations += 1;
                CommandInput::Continue
            }
            CommandProgress::InvalidateDevice { request, .. } => {
                match bytes.below(4) {
                    0 => {
                        unit.device_times_out(request.itag);
                    }
                    1 => {}
                    _ => assert_eq!(unit.device_completes(request.source, 1 << request.itag), 1),
                }
                CommandInput::Continue
            }
            CommandProgress::AwaitDevices { itags } => {
                unit.device_times_out(itags.trailing_zeros() as u8);
                CommandInput::Continue
            }
            CommandProgress::Drain { .. } => CommandInput::Drained,
            CommandProgress::Write { pa, .. } => {
                assert!(pa.is_aligned(8));
                CommandInput::Written
            }
            CommandProgress::Stopped { .. } => {
                reached.stops += 1;
                // Off and on again, which starts it anew.
                unit.write_register(Register::Control, 0);
                unit.write_register(Register::Control, ON);
                CommandInput::Continue
            }
            _ => CommandInput::Continue,
        };
    }
}

fn units() -> Vec<Amd> {
    (0..32).map(Amd::new).collect()
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
    println!("AMD-Vi, 10000000 inputs: {reached:?}");
    assert!(all_reached(&reached, 10_000), "{reached:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    /// Short repeating lists of bytes reach what random streams do not: the same answer again and again.
    #[test]
    fn any_list_of_bytes_is_taken(which in 0u64..32, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        run(&mut Amd::new(which), &mut Bytes::given(&bytes), &mut Reached::default());
    }
}
