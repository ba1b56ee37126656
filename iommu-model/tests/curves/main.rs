//! The shapes that published measurements agree on, as closed forms, against what the model's counted events add up to.
//!
//! Latencies and sizes in here are figures of the shape, parameters and not evidence; what is tested is that the unit's
//! caches, walkers and queue make the curve that follows from them.

mod machine;

use iommu_model::spec::vtd::descriptor::{GRANULARITY_NARROW, IotlbDescriptor, TYPE_IOTLB, TYPE_WAIT, WaitDescriptor};
use iommu_model::{Geometry, Iova, Params, Plain, QueueInput, QueueProgress, Register, Timing};
use machine::{FETCH, Load, MEMORY_READ, Numbers, OFF, params, read, translate, unit};
use std::collections::BTreeMap;

fn close(measured: f64, expected: f64, tolerance: f64) -> bool {
    (measured / expected - 1.0).abs() <= tolerance
}

/// 1. Random accesses over W pages with C entries, LRU: the hit rate is C/W, and each miss costs four fetches.
#[test]
fn random_reads_slow_down_as_the_hit_rate_falls() {
    const ENTRIES: u64 = 64;
    const READS: u64 = 60_000;
    for pages in [32, 64, 128, 256, 1024, 8192] {
        let mut unit = unit(params());
        let mut numbers = Numbers(1);
        let mut sum = 0;
        for n in 0..2 * READS {
            let translation = translate(&mut unit, Iova(numbers.below(pages) << 12), false);
            if n >= READS {
                assert_eq!(translation.cost_total, translation.fetches * FETCH, "nothing costs but fetches");
                sum += MEMORY_READ + u64::from(translation.cost_total);
            }
        }
        let hit_rate = (ENTRIES as f64 / pages as f64).min(1.0);
        let expected = MEMORY_READ as f64 + (1.0 - hit_rate) * f64::from(4 * FETCH);
        let mean = sum as f64 / READS as f64;
        assert!(close(mean, expected, 0.005), "{pages} pages: {mean} ns, closed form {expected} ns");
    }
}

/// 2. Cyclic accesses over W pages, LRU: all hit up to C pages, none beyond. Larger pages move the step.
#[test]
fn cyclic_reads_fall_off_a_cliff_at_the_capacity() {
    for (large, page) in [(false, 4096u64), (true, 2 << 20)] {
        for pages in [1, 63, 64, 65, 128, 200] {
            let mut unit = unit(params());
            let mut fetches = 0;
            for round in 0..4 {
                for n in 0..pages {
                    let translation = translate(&mut unit, Iova(n * page), large);
                    if round > 0 {
                        fetches += u64::from(translation.fetches);
                    }
                }
            }
            let walk = if large { 3 } else { 4 };
            assert_eq!(fetches, if pages <= 64 { 0 } else { 3 * pages * walk }, "{pages} pages of {page} bytes");
        }
    }
}

/// 3. Bandwidth is the least of what the link, the requests under way, and the walkers allow.
#[test]
fn bandwidth_is_bound_by_the_link_the_requests_or_the_walkers() {
    const WALK: u64 = 4 * FETCH as u64;
    let bound = |load: Load, walkers: u64| {
        let latency = MEMORY_READ + if load.misses { WALK } else { 0 };
        let requests = (load.outstanding * load.bytes * 1000) as f64 / latency as f64;
        let walks = if load.misses { (walkers * load.bytes * 1000) as f64 / WALK as f64 } else { f64::INFINITY };
        requests.min(walks).min(load.link_bytes_per_us as f64)
    };
    let link_bytes_per_us = 6800;
    let mut limits = BTreeMap::new();
    for (bytes, outstanding, walkers) in [(64, 32, 1), (64, 64, 16), (64, 4, 16), (256, 26, 6), (512, 26, 6), (4096, 26, 6), (64, 26, 6)] {
        for misses in [false, true] {
            let load = Load { outstanding, bytes, link_bytes_per_us, misses };
            let measured = read(Params { walks_max: walkers, ..params() }, load, 6_000);
            let expected = bound(load, u64::from(walkers));
            assert!(
                close(measured.bytes_per_us, expected, 0.03),
                "{bytes} B, {outstanding} at a time, {walkers} walkers, misses {misses}: {} MB/s, closed form {expected}",
                measured.bytes_per_us
            );
            assert!(measured.walks_max <= usize::from(walkers), "walkers are finite");
            assert!(measured.waiting_max < outstanding as usize + 1, "who finds none waits, and sends nothing meanwhile");
            limits.insert((bytes, outstanding, misses), measured.bytes_per_us);
        }
    }
    assert!(close(limits[&(64, 32, true)], 195.0, 0.03), "one walker");
    assert!(close(limits[&(64, 64, true)], 3122.0, 0.03), "sixteen");
    // The published shape: small reads lose most, reads of 512 bytes and more nothing.
    let loss = |bytes: u64| 1.0 - limits[&(bytes, 26, true)] / limits[&(bytes, 26, false)];
    assert!((0.65..0.75).contains(&loss(64)) && (0.25..0.35).contains(&loss(256)) && loss(512).abs() < 0.02, "{}", loss(256));
}

/// 4. Strict unmapping: each core submits one invalidation and one wait, sleeps until its status is there, and works. The queue
///    serves one at a time, so that the latency of n cores is max(S, n S - Z) with service time S and work Z.
#[test]
fn cores_that_share_a_queue_wait_for_each_other() {
    let timing = Timing::default();
    let service = u64::from(2 * timing.descriptor_fetch + timing.invalidate_iotlb + timing.drain + timing.status_write);
    assert!((700..=800).contains(&service), "about the published round trip");
    let work = 12 * service;
    for cores in [1u64, 2, 8, 13, 14, 16] {
        let latency = unmap(cores, work);
        let expected = service.max((cores * service).saturating_sub(work));
        assert_eq!(latency, expected, "{cores} cores");
    }
    assert_eq!(unmap(16, work), 4 * service);
}

/// The latency of the last unmap of core 0, in the steady state.
fn unmap(cores: u64, work: u64) -> u64 {
    let mut unit = unit(params_of_a_queue());
    translate(&mut unit, Iova(0), false);
    // Descriptors by slot; when each core submits next, or submitted.
    let mut ring = [0u128; 256];
    let mut tail = 0usize;
    let mut ready: Vec<u64> = (0..cores).map(|core| core * 10).collect();
    let mut submitted = vec![None; cores as usize];
    let (mut now, mut latency, mut rounds) = (0u64, 0, 0);
    let mut input = QueueInput::Continue;
    while rounds < 40 {
        for core in 0..cores as usize {
            if submitted[core].is_none() && ready[core] <= now {
                submitted[core] = Some(ready[core]);
                let flush = IotlbDescriptor::new().with_kind(TYPE_IOTLB).with_granularity(GRANULARITY_NARROW).with_domain(5);
                let wait = WaitDescriptor::new().with_kind(TYPE_WAIT).with_status_write(true).with_data(core as u32);
                ring[tail] = flush.with_page(core as u64).with_drain_writes(true).with_drain_reads(true).into_bits();
                ring[(tail + 1) % 256] = wait.with_address(0x1000).into_bits();
                tail = (tail + 2) % 256;
                unit.write_register(Register::Iqt, (tail as u64) << 4, &mut Plain);
            }
        }
        let progress = unit.queue_advance(input, &mut Plain);
        input = QueueInput::Continue;
        match progress {
            QueueProgress::Idle => {
                now = ready.iter().zip(&submitted).filter(|(_, s)| s.is_none()).map(|(r, _)| *r).min().expect("one works")
            }
            QueueProgress::FetchDescriptor { pa, cost, .. } => {
                now += u64::from(cost);
                let bits = ring[(pa.0 as usize / 16) % 256];
                input = QueueInput::Descriptor([bits as u64, (bits >> 64) as u64]);
            }
            QueueProgress::Invalidated { cost, .. } => now += u64::from(cost),
            QueueProgress::Drain { cost, .. } => {
                now += u64::from(cost);
                input = QueueInput::Drained;
            }
            QueueProgress::WriteStatus { data, cost, .. } => {
                now += u64::from(cost);
                let core = data as usize;
                let begun = submitted[core].take().expect("it waits");
                ready[core] = now + work;
                if core == 0 {
                    (latency, rounds) = (now - begun, rounds + 1);
                }
            }
            other => panic!("{other:?}"),
        }
    }
    latency
}

fn params_of_a_queue() -> Params {
    Params { timing: Timing::default(), ..params() }
}

/// 5. With paging-structure caches a sequential miss costs one fetch, one more every 2 MiB, and one more every 1 GiB.
#[test]
fn sequential_misses_cost_one_fetch_and_a_little() {
    let ways = [32, 16, 4, 4].map(Geometry::fully_associative);
    let mut unit = unit(Params { psc: ways, iotlb: OFF, ..params() });
    let pages = (1 << 18) + 3 * 512 + 5u64;
    let fetches: u64 = (0..pages).map(|n| u64::from(translate(&mut unit, Iova(n << 12), false).fetches)).sum();
    let outer = 2;
    assert_eq!(fetches, outer + pages + pages.div_ceil(1 << 9) + pages.div_ceil(1 << 18) + pages.div_ceil(1 << 27));
    let mean = (fetches - outer) as f64 / pages as f64;
    assert!((1.0019..1.0021).contains(&mean), "{mean}");
}

/// 5, random: over more than a GiB the pointer to the leaf table is nearly always missing, the one above nearly never.
#[test]
fn random_misses_over_more_than_a_gibibyte_cost_two_fetches() {
    const READS: u64 = 60_000;
    let ways = [32, 16, 4, 4].map(Geometry::fully_associative);
    for gibibytes in [2u64, 8, 64] {
        let mut unit = unit(Params { psc: ways, iotlb: OFF, ..params() });
        let mut numbers = Numbers(3);
        let mut fetches = 0;
        for n in 0..2 * READS {
            let translation = translate(&mut unit, Iova(numbers.below(gibibytes << 18) << 12), false);
            fetches += if n >= READS { u64::from(translation.fetches) } else { 0 };
        }
        let miss = |entries: f64, blocks: f64| 1.0 - (entries / blocks).min(1.0);
        let spans = gibibytes as f64;
        let expected = 1.0 + miss(32.0, spans * 512.0) * (1.0 + miss(16.0, spans));
        let mean = fetches as f64 / READS as f64;
        assert!(close(mean, expected, 0.01), "{gibibytes} GiB: {mean} fetches, closed form {expected}");
    }
}
