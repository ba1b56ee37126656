//! What one request through a RISC-V IOMMU costs on the host, in wall-clock time: `cargo bench -p iommu-model --bench riscv`.
//!
//! Memory is a flat array, so that a fetch costs next to nothing and what is measured is the unit. Each figure is of a
//! whole request, `begin` and every `advance` in. Compare two states of the code on one machine and in one hour only.

use criterion::{Criterion, criterion_group, criterion_main};
use iommu_model::riscv::{Capabilities, CommandInput, CommandProgress, DeviceId, Register, Transaction, Unit};
use iommu_model::spec::riscv::command::{InvalidateCommand, OPCODE_IOTINVAL};
use iommu_model::spec::riscv::device_context::{MODE_SV48, SecondStagePointer, TablePointer, TranslationAttributes};
use iommu_model::spec::riscv::paging::PageTableEntry;
use iommu_model::{Access, Fetched, Geometry, Iova, Pa, Params, Plain, Progress};
use std::hint::black_box;

/// Frames: directory; first stage, levels 4 to 1; second-stage root of four frames, then level 3, whose entry is a leaf.
const DIRECTORY: u64 = 1;
const FIRST: u64 = 2;
const SECOND: u64 = 8;
const FRAMES: usize = 16;
const PAGES: u64 = 512;
/// Devices: first stage alone, second stage alone, both.
const ALONE: DeviceId = DeviceId(0);
const GUEST: DeviceId = DeviceId(1);

/// A unit over a flat memory in which two devices have 512 pages.
#[derive(Clone)]
struct Machine {
    unit: Unit,
    words: Vec<u64>,
}

fn pointer(frame: u64) -> u64 {
    PageTableEntry::new().with_valid(true).with_ppn(frame).into_bits()
}

fn leaf(frame: u64) -> u64 {
    let entry = PageTableEntry::new().with_valid(true).with_read(true).with_write(true).with_user(true);
    entry.with_accessed(true).with_dirty(true).with_ppn(frame).into_bits()
}

impl Machine {
    fn new(params: Params) -> Self {
        let mut machine = Self { unit: Unit::new(Capabilities::default(), params), words: vec![0; FRAMES * 512] };
        let first = TablePointer::new().with_ppn(FIRST).with_mode(MODE_SV48).into_bits();
        let second = SecondStagePointer::new().with_ppn(SECOND).with_mode(MODE_SV48).with_gscid(9).into_bits();
        for (device, iohgatp) in [(ALONE, 0), (GUEST, second)] {
            let at = (DIRECTORY * 512) as usize + 8 * device.0 as usize;
            let ta = TranslationAttributes::new().with_pscid(3 + device.0).into_bits();
            machine.words[at..at + 4].copy_from_slice(&[1, iohgatp, ta, first]);
        }
        for frame in FIRST..FIRST + 3 {
            machine.words[(frame * 512) as usize] = pointer(frame + 1);
        }
        for page in 0..PAGES {
            machine.words[((FIRST + 3) * 512 + page) as usize] = leaf(0x100 + page);
        }
        machine.words[(SECOND * 512) as usize] = pointer(SECOND + 4);
        machine.words[((SECOND + 4) * 512) as usize] = pointer(SECOND + 5);
        machine.words[((SECOND + 5) * 512) as usize] = pointer(SECOND + 6);
        for page in 0..512 {
            machine.words[((SECOND + 6) * 512 + page) as usize] = leaf(page);
        }
        machine.start();
        machine
    }

    fn start(&mut self) {
        self.unit.write_register(Register::Cqb, 7 | 0x700 << 10);
        self.unit.write_register(Register::Cqcsr, 1);
        self.unit.write_register(Register::Ddtp, 2 | DIRECTORY << 10);
        self.unit.register_drained();
    }

    fn translate(&mut self, device: DeviceId, iova: Iova) -> Pa {
        let walk = self.unit.begin(Transaction::new(device, iova, Access::Read)).expect("a walker is free");
        let mut answer = None;
        loop {
            match self.unit.advance(walk, answer.take(), &mut Plain) {
                Progress::Fetch { pa, bytes, .. } => {
                    let at = (pa.0 / 8) as usize & (FRAMES * 512 - 1);
                    let word = |n: usize| self.words[(at + n) & (FRAMES * 512 - 1)];
                    answer = Some(match bytes {
                        64 => Fetched::Wide(core::array::from_fn(word)),
                        _ => Fetched::Words([word(0), word(1)]),
                    });
                }
                Progress::Done(translation) => return translation.pa,
                Progress::Lookup { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn invalidate(&mut self, command: u128) {
        let tail = (self.unit.read_register(Register::Cqt) + 1) % 256;
        self.unit.write_register(Register::Cqt, tail);
        let mut input = CommandInput::Continue;
        loop {
            input = match self.unit.command_queue_advance(input, &mut Plain) {
                CommandProgress::Idle => return,
                CommandProgress::Fetch { .. } => CommandInput::Command([command as u64, (command >> 64) as u64]),
                _ => CommandInput::Continue,
            };
        }
    }
}

fn page(n: u64) -> Iova {
    Iova((n % PAGES) << 12)
}

fn translations(c: &mut Criterion) {
    let mut group = c.benchmark_group("riscv translate");
    let mut machine = Machine::new(Params::default());
    assert_eq!((machine.translate(ALONE, page(3)), machine.translate(GUEST, page(3))), (Pa(0x10_3000), Pa(0x10_3000)));
    group.bench_function("cached, one page", |b| b.iter(|| machine.translate(ALONE, black_box(page(3)))));
    group.bench_function("cached, one page of a guest", |b| b.iter(|| machine.translate(GUEST, black_box(page(3)))));
    let mut n = 0;
    for k in 0..64 {
        machine.translate(ALONE, page(k));
    }
    group.bench_function("cached, 64 pages in turn", |b| {
        b.iter(|| {
            n += 1;
            machine.translate(ALONE, page(black_box(n) % 64))
        });
    });
    group.bench_function("leaf fetch only, IOTLB full", |b| {
        b.iter(|| {
            n += 1;
            machine.translate(ALONE, page(black_box(n)))
        });
    });
    let off = Geometry { sets: 1, ways: 0 };
    let mut bare = Machine::new(Params { context: off, pasid: off, iotlb: off, psc: [off; 4], ..Params::default() });
    group.bench_function("uncached, five fetches, caches off", |b| b.iter(|| bare.translate(ALONE, black_box(page(7)))));
    group.bench_function("uncached and nested, 25 fetches, caches off", |b| b.iter(|| bare.translate(GUEST, black_box(page(7)))));
    group.finish();
}

fn invalidations(c: &mut Criterion) {
    let mut group = c.benchmark_group("riscv invalidate");
    let vma = InvalidateCommand::new().with_opcode(OPCODE_IOTINVAL).with_pscid_valid(true).with_pscid(3);
    let mut machine = Machine::new(Params::default());
    for n in 0..64 {
        machine.translate(ALONE, page(n));
    }
    let one = vma.with_address_valid(true).with_page(3).into_bits();
    group.bench_function("page, and its refill", |b| {
        b.iter(|| {
            machine.invalidate(black_box(one));
            machine.translate(ALONE, page(3))
        });
    });
    group.finish();
}

criterion_group!(benches, translations, invalidations);
criterion_main!(benches);
