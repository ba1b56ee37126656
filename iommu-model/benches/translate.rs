//! What one request costs on the host, in wall-clock time: `cargo bench -p iommu-model`.
//!
//! Memory is a flat array, so that a fetch costs next to nothing and what is measured is the unit. Each figure is of a
//! whole request, `begin` and every `advance` in. Compare two states of the code on one machine and in one hour only.

use criterion::{Criterion, criterion_group, criterion_main};
use iommu_model::spec::vtd::context::{AW_48, ContextEntry};
use iommu_model::spec::vtd::descriptor::{GRANULARITY_DOMAIN, GRANULARITY_NARROW, IotlbDescriptor, TYPE_IOTLB};
use iommu_model::spec::vtd::root::RootEntry;
use iommu_model::spec::vtd::second_stage::SecondStageEntry;
use iommu_model::{
    Access, Bdf, Capabilities, DomainId, Fetched, Geometry, Iova, Pa, Params, Plain, Progress, QueueInput, QueueProgress, Register,
    Request, Unit,
};
use std::hint::black_box;

const DEVICE: Bdf = Bdf::new(0, 3, 0);
const DOMAIN: DomainId = DomainId(5);
/// Frames of the tables: root, context, levels 4 to 1.
const ROOT: u64 = 1;
const LEVEL_1: u64 = 6;
const FRAMES: usize = 8;
const PAGES: u64 = 512;

/// A unit over a flat memory in which one device has 512 pages.
#[derive(Clone)]
struct Machine {
    unit: Unit,
    words: Vec<u64>,
}

impl Machine {
    fn new(params: Params) -> Self {
        let mut machine = Self { unit: Unit::new(Capabilities::default(), params), words: vec![0; FRAMES * 512] };
        machine.store_wide(ROOT, 0, RootEntry::new().with_present(true).with_context_table(2).into_bits());
        let context = ContextEntry::new().with_present(true).with_second_stage(3).with_address_width(AW_48).with_domain(DOMAIN.0);
        machine.store_wide(2, u64::from(DEVICE.devfn()) * 2, context.into_bits());
        let entry = |frame| SecondStageEntry::new().with_read(true).with_write(true).with_frame(frame).into_bits();
        for frame in 3..LEVEL_1 {
            machine.words[(frame * 512) as usize] = entry(frame + 1);
        }
        for page in 0..PAGES {
            machine.words[(LEVEL_1 * 512 + page) as usize] = entry(0x100 + page);
        }
        machine.start();
        machine
    }

    fn store_wide(&mut self, frame: u64, word: u64, bits: u128) {
        let index = (frame * 512 + word) as usize;
        (self.words[index], self.words[index + 1]) = (bits as u64, (bits >> 64) as u64);
    }

    /// Root table set, queue and translation on.
    fn start(&mut self) {
        self.unit.write_register(Register::Rtaddr, ROOT << 12, &mut Plain);
        self.unit.write_register(Register::Gcmd, 1 << 30 | 1 << 26, &mut Plain);
        self.unit.write_register(Register::Gcmd, 1 << 31 | 1 << 26, &mut Plain);
        self.unit.register_drained();
    }

    fn translate(&mut self, iova: Iova) -> Pa {
        let request = Request { source: DEVICE, iova, access: Access::Read, pasid: None };
        let walk = self.unit.begin(request).expect("a walker is free");
        let mut answer = None;
        loop {
            match self.unit.advance(walk, answer.take(), &mut Plain) {
                Progress::Fetch { pa, .. } => {
                    let index = (pa.0 / 8) as usize & (FRAMES * 512 - 1);
                    answer = Some(Fetched::Words([self.words[index], self.words[index | 1]]));
                }
                Progress::Done(translation) => return translation.pa,
                Progress::Lookup { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn invalidate(&mut self, descriptor: u128) {
        let mut tail = self.unit.read_register(Register::Iqt) + 16;
        tail %= 4096;
        self.unit.write_register(Register::Iqt, tail, &mut Plain);
        let mut input = QueueInput::Continue;
        loop {
            input = match self.unit.queue_advance(input, &mut Plain) {
                QueueProgress::Idle => return,
                QueueProgress::FetchDescriptor { .. } => QueueInput::Descriptor([descriptor as u64, (descriptor >> 64) as u64]),
                QueueProgress::Drain { .. } => QueueInput::Drained,
                _ => QueueInput::Continue,
            };
        }
    }
}

fn page(n: u64) -> Iova {
    Iova((n % PAGES) << 12)
}

fn translations(c: &mut Criterion) {
    let mut group = c.benchmark_group("translate");
    let mut one = Machine::new(Params::default());
    one.translate(page(0));
    group.bench_function("cached, one page", |b| b.iter(|| one.translate(black_box(page(0)))));

    let mut many = Machine::new(Params::default());
    let mut n = 0;
    for k in 0..64 {
        many.translate(page(k));
    }
    group.bench_function("cached, 64 pages in turn", |b| {
        b.iter(|| {
            n += 1;
            many.translate(page(black_box(n) % 64))
        });
    });

    let request = |n| Request { source: DEVICE, iova: page(n), access: Access::Read, pasid: None };
    group.bench_function("cached, one page, in one call", |b| b.iter(|| one.unit.translate_cached(&request(black_box(0)))));
    group.bench_function("cached, 64 pages in turn, in one call", |b| {
        b.iter(|| {
            n += 1;
            many.unit.translate_cached(&request(black_box(n) % 64))
        });
    });

    group.bench_function("leaf fetch only, IOTLB full", |b| {
        b.iter(|| {
            n += 1;
            many.translate(page(black_box(n)))
        });
    });

    let mut fresh = Machine::new(Params::default());
    group.bench_function("uncached, six fetches, after a reset", |b| {
        b.iter(|| {
            fresh.unit.reset();
            fresh.start();
            fresh.translate(black_box(page(7)))
        });
    });
    group.bench_function("the reset and start alone", |b| {
        b.iter(|| {
            fresh.unit.reset();
            fresh.start();
        });
    });

    let off = Geometry { sets: 1, ways: 0 };
    let mut bare = Machine::new(Params { context: off, iotlb: off, psc: [off; 4], ..Params::default() });
    group.bench_function("uncached, six fetches, caches off", |b| b.iter(|| bare.translate(black_box(page(7)))));
    group.finish();
}

fn invalidations(c: &mut Criterion) {
    let mut group = c.benchmark_group("invalidate");
    let pages = IotlbDescriptor::new().with_kind(TYPE_IOTLB).with_granularity(GRANULARITY_NARROW).with_domain(DOMAIN.0);
    let domain = IotlbDescriptor::new().with_kind(TYPE_IOTLB).with_granularity(GRANULARITY_DOMAIN).with_domain(DOMAIN.0);
    let mut machine = Machine::new(Params::default());
    for n in 0..64 {
        machine.translate(page(n));
    }
    group.bench_function("page, nothing of it cached, IOTLB full", |b| {
        b.iter(|| machine.invalidate(black_box(pages.with_page(0x7_0000).into_bits())));
    });
    group.bench_function("page, and its refill", |b| {
        b.iter(|| {
            machine.invalidate(black_box(pages.with_page(3).with_leaf_only(true).into_bits()));
            machine.translate(page(3))
        });
    });
    group.bench_function("domain, and one refill", |b| {
        b.iter(|| {
            machine.invalidate(black_box(domain.into_bits()));
            machine.translate(page(3))
        });
    });
    group.finish();
}

criterion_group!(benches, translations, invalidations);
criterion_main!(benches);
