//! The same figures as `translate`, from a busy machine: the least time of many short batches, which nobody interrupted.
//! `cargo bench -p iommu-model --bench least`. One line a figure, nanoseconds a request.

mod machine;

use iommu_model::{Access, Geometry, Params, Request};
use machine::{DEVICE, Machine, page};
use std::hint::black_box;

/// Requests of a batch: some ten microseconds, far below a time slice.
const BATCH: u32 = 400;
const BATCHES: u32 = 20_000;

#[allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "a bench measures wall-clock time")]
fn least(name: &str, mut request: impl FnMut(u64)) -> f64 {
    // `-- NAME` runs the lines with this in their name only, for a profiler.
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    if wanted.is_some_and(|wanted| !name.contains(&wanted)) {
        return 0.0;
    }
    let mut least = u128::MAX;
    let mut n = 0;
    for _ in 0..BATCHES {
        let start = std::time::Instant::now();
        for _ in 0..BATCH {
            n += 1;
            request(n);
        }
        least = least.min(start.elapsed().as_nanos());
    }
    let each = least as f64 / f64::from(BATCH);
    println!("{name:<50} {each:7.1} ns");
    each
}

fn main() {
    let mut one = Machine::new(Params::default());
    one.translate(page(0));
    least("cached, one page", |_| {
        black_box(one.translate(black_box(page(0))));
    });
    let mut many = Machine::new(Params::default());
    for k in 0..64 {
        many.translate(page(k));
    }
    least("cached, 64 pages in turn", |n| {
        black_box(many.translate(black_box(page(n % 64))));
    });
    let request = |n| Request { source: DEVICE, iova: page(n), access: Access::Read, pasid: None };
    least("cached, one page, in one call", |_| {
        black_box(one.unit.translate_cached(&request(black_box(0))));
    });
    least("cached, 64 pages in turn, in one call", |n| {
        black_box(many.unit.translate_cached(&request(black_box(n % 64))));
    });
    least("leaf fetch only, IOTLB full", |n| {
        black_box(many.translate(black_box(page(n))));
    });
    let off = Geometry { sets: 1, ways: 0 };
    let mut bare = Machine::new(Params { context: off, iotlb: off, psc: [off; 4], ..Params::default() });
    least("uncached, six fetches, caches off", |_| {
        black_box(bare.translate(black_box(page(7))));
    });
    let mut fresh = Machine::new(Params::default());
    let whole = least("a reset, and six fetches that fill every cache", |_| {
        fresh.unit.reset();
        fresh.start();
        black_box(fresh.translate(black_box(page(7))));
    });
    let reset = least("the reset alone", |_| {
        fresh.unit.reset();
        fresh.start();
    });
    println!("{:<50} {:7.1} ns", "uncached, six fetches that fill every cache", whole - reset);
    let no_tlb = Params { iotlb: off, psc: [off; 4], ..Params::default() };
    let mut walks = Machine::new(no_tlb);
    least("four levels, context cached", |_| {
        black_box(walks.translate(black_box(page(7))));
    });
}
