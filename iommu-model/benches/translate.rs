//! What one request costs on the host, in wall-clock time: `cargo bench -p iommu-model`.
//!
//! Memory is a flat array, so that a fetch costs next to nothing and what is measured is the unit. Each figure is of a
//! whole request, `begin` and every `advance` in. Compare two states of the code on one machine and in one hour only.

mod machine;

use criterion::{Criterion, criterion_group, criterion_main};
use iommu_model::spec::vtd::descriptor::{GRANULARITY_DOMAIN, GRANULARITY_NARROW, IotlbDescriptor, TYPE_IOTLB};
use iommu_model::{Access, Geometry, Params, Request};
use machine::{DEVICE, DOMAIN, Machine, page};
use std::hint::black_box;

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
