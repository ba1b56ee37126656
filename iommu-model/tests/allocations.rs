//! After `Unit::new`, no step allocates. A test binary of its own: the counting allocator serves a whole process.

use iommu_model::spec::vtd::context::{AW_48, ContextEntry};
use iommu_model::spec::vtd::descriptor::{GRANULARITY_DOMAIN, IotlbDescriptor, TYPE_IOTLB};
use iommu_model::spec::vtd::root::RootEntry;
use iommu_model::spec::vtd::second_stage::SecondStageEntry;
use iommu_model::{
    Access, Bdf, Capabilities, Fetched, Geometry, Iova, Pa, Params, Plain, Progress, QueueInput, QueueProgress, Register, Request, Unit,
};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const ROOT: u64 = 1;

/// Every bus and device leads to one second stage, whose every entry points on; the leaves alternate.
fn fetch(pa: Pa) -> Fetched {
    let words = |bits: u128| Fetched::Words([bits as u64, (bits >> 64) as u64]);
    let entry = |frame| SecondStageEntry::new().with_read(true).with_write(frame % 5 != 0).with_frame(frame);
    match pa.pfn().0 {
        ROOT => words(RootEntry::new().with_present(true).with_context_table(2).into_bits()),
        2 => words(ContextEntry::new().with_present(true).with_second_stage(3).with_address_width(AW_48).with_domain(7).into_bits()),
        frame @ 3..6 => Fetched::word(entry(frame + 1).with_write(true).into_bits()),
        _ => Fetched::word(entry(0x100 + pa.0 / 8 % 512).into_bits()),
    }
}

fn start(unit: &mut Unit) {
    unit.write_register(Register::Rtaddr, ROOT << 12, &mut Plain);
    unit.write_register(Register::Gcmd, 1 << 30 | 1 << 26, &mut Plain);
    unit.write_register(Register::Gcmd, 1 << 31 | 1 << 26, &mut Plain);
    unit.register_drained();
}

fn translate(unit: &mut Unit, request: Request) {
    if unit.translate_cached(&request).is_some() {
        return;
    }
    let walk = unit.begin(request).expect("a walker is free");
    let mut answer = None;
    loop {
        match unit.advance(walk, answer.take(), &mut Plain) {
            Progress::Fetch { pa, .. } => answer = Some(fetch(pa)),
            progress if progress.is_end() => return,
            _ => {}
        }
    }
}

fn invalidate(unit: &mut Unit, n: u64) {
    unit.write_register(Register::Iqt, (n % 256) << 4, &mut Plain);
    let flush = IotlbDescriptor::new().with_kind(TYPE_IOTLB).with_granularity(GRANULARITY_DOMAIN).with_domain(7).into_bits();
    let mut input = QueueInput::Continue;
    loop {
        input = match unit.queue_advance(input, &mut Plain) {
            QueueProgress::Idle => return,
            QueueProgress::FetchDescriptor { .. } => QueueInput::Descriptor([flush as u64, (flush >> 64) as u64]),
            QueueProgress::Drain { .. } => QueueInput::Drained,
            _ => QueueInput::Continue,
        };
    }
}

fn work(unit: &mut Unit) {
    for n in 0..20_000u64 {
        let access = if n % 3 == 0 { Access::Write } else { Access::Read };
        // Sixty devices and some thousand pages: every cache is full and evicts.
        let request = Request { source: Bdf((n % 60) as u16), iova: Iova((n * 7919 % 4096) << 20), access, pasid: None };
        translate(unit, request);
        translate(unit, request);
        if n % 1000 == 0 {
            invalidate(unit, n / 1000 + 1);
            unit.drop_cached(3);
        }
    }
    unit.reset();
    start(unit);
}

#[test]
fn no_step_allocates_after_the_unit_is_made() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let small = Geometry { sets: 2, ways: 4 };
    let shapes = [Params::default(), Params { context: small, iotlb: small, psc: [small; 4], walks_max: 2, ..Params::default() }];
    for params in shapes {
        let mut unit = Unit::new(Capabilities::default(), params);
        start(&mut unit);
        let mut copy = unit.clone();
        let before = dhat::HeapStats::get();
        work(&mut unit);
        work(&mut unit);
        work(&mut copy);
        let after = dhat::HeapStats::get();
        assert!(before.total_blocks > 0, "it counts");
        dhat::assert_eq!(after.total_blocks - before.total_blocks, 0);
    }
}
