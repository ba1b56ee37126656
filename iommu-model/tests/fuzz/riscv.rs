//! The RISC-V IOMMU.

use super::driver::{Reached, Target, all_reached, fuzz, hostile, run};
use super::input::{Bytes, Choices};
use iommu_model::riscv::{
    AddressKind, Capabilities, CommandInput, CommandProgress, DeviceId, PageRequest, RecordInput, RecordProgress, Register, Transaction,
    Unit,
};
use iommu_model::spec::riscv::device_context::{SecondStagePointer, TablePointer, TranslationControl};
use iommu_model::{Access, FetchKind, Fetched, Geometry, Iova, Pa, Params, Pasid, Progress, WalkId};
use proptest::prelude::*;

struct Riscv {
    unit: Unit,
}

impl Riscv {
    /// One of 32 kinds of units.
    fn new(n: u64) -> Self {
        let flag = |bit: u32| n >> bit & 1 != 0;
        let cap = Capabilities {
            svpbmt: flag(0),
            svrsw60t59b: flag(1),
            msi_flat: !flag(2),
            msi_mrif: !flag(2) && flag(3),
            amo_hwad: !flag(3),
            ats: !flag(4),
            t2gpa: !flag(4) && flag(0),
            physical_bits: if flag(1) { 40 } else { 56 },
            reserves_non_leaf_bits: flag(2),
            qosid: flag(4),
            ..Capabilities::default()
        };
        let two = Geometry { sets: 2, ways: 2 };
        let params = Params { context: two, pasid: two, iotlb: two, psc: [two; 4], walks_max: 3, ..Params::default() };
        Self { unit: Unit::new(cap, params) }
    }
}

fn transaction(bytes: &mut Bytes<'_>) -> Transaction {
    let iova = match bytes.below(8) {
        0 => bytes.word(),
        1 | 2 => bytes.below(1 << 38),
        3 => !bytes.below(1 << 20),
        _ => bytes.below(1 << 14),
    };
    let process = match bytes.below(8) {
        0 => Some(Pasid(bytes.word() as u32)),
        1 | 2 => Some(Pasid(bytes.below(4) as u32)),
        _ => None,
    };
    Transaction {
        device: DeviceId(if bytes.below(16) == 0 { bytes.word() as u32 } else { bytes.below(4) as u32 }),
        iova: Iova(iova),
        access: if bytes.below(2) == 0 { Access::Read } else { Access::Write },
        execute: bytes.below(8) == 0,
        kind: [AddressKind::Translated, AddressKind::TranslationRequest, AddressKind::Untranslated][bytes.below(12).min(2) as usize],
        process,
        privileged: bytes.below(4) == 0,
    }
}

impl Target for Riscv {
    /// Three directory levels; three of the process directory and five first-stage entries, and the page, each below five
    /// second-stage entries; an MSI entry.
    const FETCHES_MAX: u32 = 3 + (3 + 5 + 1) * 6 + 1;
    /// As many entries, each tried sixteen times and once more.
    const UPDATES_MAX: u32 = 17 * Self::FETCHES_MAX;
    const WALKS_MAX: usize = 3;

    fn start(&mut self, bytes: &mut Bytes<'_>) {
        self.unit.reset();
        if bytes.below(16) != 0 {
            self.unit.write_register(Register::Ddtp, (bytes.frame() >> 2) & !0x3ff | [1, 2, 2, 3, 4][bytes.below(5) as usize]);
            self.unit.register_drained();
        }
        for (base, control) in [(Register::Fqb, Register::Fqcsr), (Register::Pqb, Register::Pqcsr), (Register::Cqb, Register::Cqcsr)] {
            self.unit.write_register(base, 4 | 4 << 10);
            self.unit.write_register(control, 3);
        }
    }

    fn begin(&mut self, bytes: &mut Bytes<'_>) -> Option<WalkId> {
        let transaction = transaction(bytes);
        match bytes.below(16) {
            0 => {
                let Transaction { device, process, .. } = transaction;
                let request = PageRequest { device, payload: bytes.word(), process, privileged: true, execute: true };
                self.unit.begin_page_request(request).ok()
            }
            1 => self.unit.begin_prefetch(transaction).ok(),
            2 => {
                self.unit.write_register(Register::TrReqIova, transaction.iova.0);
                self.unit.write_register(Register::TrReqCtl, bytes.below(4) << 40 | bytes.below(16) | 1);
                self.unit.begin_debug().ok().flatten()
            }
            _ => self.unit.begin(transaction).ok(),
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
        let (ppn, bits) = ((bytes.frame() >> 12) & 0xff_ffff, bytes.word());
        let pointer = |ppn: u64| ppn << 10 | 1;
        match kind {
            FetchKind::DeviceDirectory { .. } | FetchKind::ProcessDirectory { .. } => Fetched::word(pointer(ppn)),
            FetchKind::DeviceContext | FetchKind::ExtendedDeviceContext => {
                let cap = self.unit.capabilities();
                let processes = bits & 3 == 0;
                let control = TranslationControl::new()
                    .with_valid(true)
                    .with_enable_ats(cap.ats && bits >> 2 & 1 != 0)
                    .with_enable_pri(cap.ats && bits >> 2 & 3 == 3)
                    .with_process_directory(processes)
                    .with_default_process(processes && bits >> 4 & 1 != 0)
                    .with_disable_faults(bits >> 5 & 7 == 0)
                    .with_first_stage_update(cap.amo_hwad && bits >> 8 & 1 != 0)
                    .with_second_stage_update(cap.amo_hwad && bits >> 9 & 1 != 0);
                let second = SecondStagePointer::new()
                    .with_mode([0, 8, 9, 10][(bits >> 10 & 3) as usize])
                    .with_gscid((bits >> 12 & 3) as u16)
                    .with_ppn(ppn & !3);
                let mode = if processes { 1 + (bits >> 14 & 3) as u8 % 3 } else { [0, 8, 9, 10][(bits >> 14 & 3) as usize] };
                let first = TablePointer::new().with_mode(mode).with_ppn(bytes.frame() >> 12);
                let messages =
                    if cap.msi_flat && bits >> 16 & 1 != 0 { TablePointer::new().with_mode(1).with_ppn(ppn) } else { TablePointer::new() };
                let words = [control.into_bits(), second.into_bits(), (bits >> 17 & 3) << 12, first.into_bits()];
                Fetched::Wide([words[0], words[1], words[2], words[3], messages.into_bits(), bits >> 19 & 7, bits >> 22 & 7, 0])
            }
            FetchKind::ProcessContext => {
                let first = TablePointer::new().with_mode([0, 8, 9, 10][(bits & 3) as usize]).with_ppn(ppn);
                Fetched::Words([1 | (bits & 6) | (bits >> 8 & 3) << 12, first.into_bits()])
            }
            FetchKind::MessageEntry => Fetched::Words([ppn << 10 | [3, 7][(bits & 1) as usize], bits >> 10 & 0x3f_ffff_ffff]),
            // A pointer or a leaf; A and D as they come.
            FetchKind::FirstStage { level } | FetchKind::Table { level } => {
                let leaf = level == 1 || bits & 7 == 0;
                let aligned = if leaf { ppn >> (9 * level.saturating_sub(1)) << (9 * level.saturating_sub(1)) } else { ppn };
                Fetched::word(pointer(aligned) | if leaf { 0x16 | (bits & 0xc8) } else { 0 })
            }
            other => unreachable!("a RISC-V IOMMU fetches no {other:?}"),
        }
    }

    fn disturb(&mut self, bytes: &mut Bytes<'_>, reached: &mut Reached, d: &mut Choices) {
        let unit = &mut self.unit;
        match bytes.below(8) {
            0 => {
                let offset = if bytes.below(2) == 0 { bytes.below(0x100) * 4 } else { bytes.word() };
                let (size, value) = (if bytes.below(4) == 0 { bytes.word() as u8 } else { 4 + 4 * bytes.below(2) as u8 }, bytes.word());
                unit.write_register_at(offset, size, value);
                let _ = unit.read_register_at(offset, size);
                unit.register_drained();
            }
            1..4 => commands(unit, bytes, reached, d),
            4 | 5 => {
                let input = [RecordInput::Continue, RecordInput::Written, RecordInput::WriteFailed][bytes.below(12).min(2) as usize];
                for _ in 0..3 {
                    let progress = if bytes.below(4) == 0 { unit.page_queue_advance(input) } else { unit.fault_queue_advance(input) };
                    if let RecordProgress::Write { pa, bytes: count, .. } = progress {
                        assert!(pa.is_aligned(u64::from(count).min(16)));
                        reached.records += 1;
                    }
                }
                unit.write_register(Register::Fqh, unit.read_register(Register::Fqt));
            }
            6 => {
                unit.drop_cached(bytes.below(16) as usize);
                unit.device_answered(bytes.word() as u8);
                unit.device_timed_out(bytes.word() as u8);
            }
            _ => {
                let _ = (unit.wires(), unit.last_provenance(), unit.last_interrupt_file());
            }
        }
    }
}

fn commands(unit: &mut Unit, bytes: &mut Bytes<'_>, reached: &mut Reached, d: &mut Choices) {
    unit.write_register(Register::Cqt, bytes.below(32));
    let mut input = CommandInput::Continue;
    for _ in 0..bytes.below(12) {
        input = match unit.command_queue_advance(input, d) {
            CommandProgress::Idle => return,
            CommandProgress::Fetch { pa, .. } => {
                assert!(pa.is_aligned(16));
                let (ids, address) = (bytes.below(4) << 12 | bytes.below(4) << 32 | bytes.below(4) << 44, bytes.below(1 << 20) << 10);
                match bytes.below(16) {
                    0 => CommandInput::Unreadable,
                    1 => CommandInput::Command([bytes.word(), bytes.word()]),
                    2..8 => CommandInput::Command([1 | bytes.below(2) << 7 | bytes.below(2) << 10 | ids, address]),
                    8..11 => CommandInput::Command([2 | bytes.below(16) << 10 & !0x800, bytes.below(1 << 30)]),
                    11..14 => CommandInput::Command([3 | bytes.below(2) << 7 | bytes.below(2) << 33 | bytes.below(4) << 40, 0]),
                    _ => CommandInput::Command([4 | bytes.below(2) << 7 | bytes.below(4) << 40, bytes.word()]),
                }
            }
            CommandProgress::Invalidated { .. } => {
                reached.invalidations += 1;
                CommandInput::Continue
            }
            CommandProgress::Drain { .. } => CommandInput::Drained,
            CommandProgress::Write { pa, .. } => {
                assert!(pa.is_aligned(4));
                if bytes.below(8) == 0 { CommandInput::WriteFailed } else { CommandInput::Written }
            }
            CommandProgress::Stopped { .. } => {
                reached.stops += 1;
                // The error bits are cleared by writing them.
                unit.write_register(Register::Cqcsr, 3 | 0xf00);
                CommandInput::Continue
            }
            _ => CommandInput::Continue,
        };
    }
}

fn units() -> Vec<Riscv> {
    (0..32).map(Riscv::new).collect()
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
    println!("RISC-V, 10000000 inputs: {reached:?}");
    assert!(all_reached(&reached, 10_000), "{reached:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    /// Short repeating lists of bytes reach what random streams do not: the same answer again and again.
    #[test]
    fn any_list_of_bytes_is_taken(which in 0u64..32, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        run(&mut Riscv::new(which), &mut Bytes::given(&bytes), &mut Reached::default());
    }
}
