//! What an SMMUv3 translation costs the host: cached, walked, nested.

use criterion::{Criterion, criterion_group, criterion_main};
use iommu_model::smmu::{Capabilities, Params, Register, Unit};
use iommu_model::spec::smmu::context::{Context0, ContextTable};
use iommu_model::spec::smmu::descriptor::{Descriptor, Stage1Leaf, Stage2Leaf};
use iommu_model::spec::smmu::stream::{CONFIG_NESTED, CONFIG_STAGE_1, StreamEntry0, StreamEntry2, StreamEntry3};
use iommu_model::{Access, Bdf, Fetched, Geometry, Iova, Pa, Plain, Progress, Request};
use std::hint::black_box;

const FRAMES: usize = 1 << 9;
const DEVICE: Bdf = Bdf::new(0, 4, 0);
const STREAMS: u64 = 0;
const CONTEXT: u64 = 0x20;
/// Stage-1 tables of levels 0 to 3, then stage-2 tables of levels 1 to 3.
const LEVEL_0: u64 = 0x30;
const SECOND_1: u64 = 0x40;
const PAGES: u64 = 512;

struct Machine {
    unit: Unit,
    words: Vec<u64>,
}

impl Machine {
    fn new(params: Params, nested: bool) -> Self {
        let mut machine = Self { unit: Unit::new(Capabilities::default(), params), words: vec![0; FRAMES * 512] };
        let config = if nested { CONFIG_NESTED } else { CONFIG_STAGE_1 };
        let stream = StreamEntry0::new().with_valid(true).with_config(config).with_context(CONTEXT << 6);
        let second = StreamEntry2::new().with_vmid(1).with_input_size(25).with_start_level(1).with_output_size(5).with_aarch64(true);
        let base = StreamEntry3::new().with_table(SECOND_1 << 8);
        let words = [stream.into_bits(), 0, second.into_bits(), base.into_bits()];
        machine.store(STREAMS, u64::from(DEVICE.0) * 8, &words);
        let entry = Context0::new().with_size_0(16).with_disable_1(true).with_valid(true).with_output_size(5).with_aarch64(true);
        let entry = entry.with_record(true).with_abort(true).with_asid(5);
        machine.store(CONTEXT, 0, &[entry.into_bits(), ContextTable::new().with_table(LEVEL_0 << 8).into_bits()]);
        let pointer = |frame| Descriptor::new().with_valid(true).with_table_or_page(true).with_frame(frame).into_bits();
        for level in 0..3 {
            machine.store(LEVEL_0 + level, 0, &[pointer(LEVEL_0 + level + 1)]);
        }
        machine.store(SECOND_1, 0, &[pointer(SECOND_1 + 1)]);
        machine.store(SECOND_1 + 1, 0, &[pointer(SECOND_1 + 2)]);
        for page in 0..PAGES {
            let first = Stage1Leaf::new().with_valid(true).with_page(true).with_unprivileged(true).with_accessed(true);
            machine.store(LEVEL_0 + 3, page, &[first.with_not_global(true).with_frame(page).into_bits()]);
            // Identity, tables included.
            let second = Stage2Leaf::new().with_valid(true).with_page(true).with_readable(true).with_writable(true).with_accessed(true);
            machine.store(SECOND_1 + 2, page, &[second.with_frame(page).into_bits()]);
        }
        machine.start();
        machine
    }

    fn store(&mut self, frame: u64, word: u64, words: &[u64]) {
        let at = (frame * 512 + word) as usize;
        self.words[at..at + words.len()].copy_from_slice(words);
    }

    fn start(&mut self) {
        self.unit.write_register(Register::StrtabBase, STREAMS);
        self.unit.write_register(Register::StrtabBaseCfg, 8);
        self.unit.write_register(Register::Cr0, 0xd);
        self.unit.register_drained();
    }

    fn translate(&mut self, iova: Iova) -> Pa {
        let walk = self.unit.begin(Request { source: DEVICE, iova, access: Access::Read, pasid: None }).expect("a walker is free");
        let mut answer = None;
        loop {
            match self.unit.advance(walk, answer.take(), &mut Plain) {
                Progress::Fetch { pa, bytes, .. } => {
                    let index = (pa.0 / 8) as usize & (FRAMES * 512 - 8);
                    answer = Some(if bytes == 8 {
                        Fetched::word(self.words[(pa.0 / 8) as usize & (FRAMES * 512 - 1)])
                    } else {
                        Fetched::Wide(core::array::from_fn(|n| self.words[index + n]))
                    });
                }
                Progress::Done(translation) => return translation.pa,
                Progress::Lookup { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn page(n: u64) -> Iova {
    Iova((n % PAGES) << 12)
}

fn translations(c: &mut Criterion) {
    let mut group = c.benchmark_group("smmu");
    let off = Geometry { sets: 1, ways: 0 };
    for (name, nested) in [("stage 1", false), ("nested", true)] {
        let mut one = Machine::new(Params::default(), nested);
        one.translate(page(0));
        group.bench_function(format!("{name}: cached, one page"), |b| b.iter(|| one.translate(black_box(page(0)))));

        let request = Request { source: DEVICE, iova: page(0), access: Access::Read, pasid: None };
        group.bench_function(format!("{name}: cached, one page, in one call"), |b| {
            b.iter(|| one.unit.translate_cached(black_box(&request)));
        });

        let mut many = Machine::new(Params::default(), nested);
        let mut n = 0;
        for k in 0..32 {
            many.translate(page(k));
        }
        group.bench_function(format!("{name}: cached, 32 pages in turn"), |b| {
            b.iter(|| {
                n += 1;
                many.translate(page(black_box(n) % 32))
            });
        });
        group.bench_function(format!("{name}: leaf fetch only, TLB full"), |b| {
            b.iter(|| {
                n += 1;
                many.translate(page(black_box(n)))
            });
        });

        let bare = Params { stream: off, context: off, level_1: off, tlb: off, walk_1: [off; 3], walk_2: [off; 3], ..Params::default() };
        let mut bare = Machine::new(bare, nested);
        group.bench_function(format!("{name}: uncached, caches off"), |b| b.iter(|| bare.translate(black_box(page(7)))));
    }
    group.finish();
}

criterion_group!(benches, translations);
criterion_main!(benches);
