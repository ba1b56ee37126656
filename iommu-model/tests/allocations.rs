//! After `Unit::new`, no step allocates. A test binary of its own: the counting allocator serves a whole process.

use iommu_model::spec::vtd::context::{AW_48, ContextEntry};
use iommu_model::spec::vtd::descriptor::{GRANULARITY_DOMAIN, IotlbDescriptor, PasidIotlbDescriptor, TYPE_IOTLB, TYPE_PASID_IOTLB};
use iommu_model::spec::vtd::first_stage::FirstStageEntry;
use iommu_model::spec::vtd::pasid::{PasidDirectoryEntry, PasidEntryFirstStage, PasidEntryLow, ScalableContextEntry};
use iommu_model::spec::vtd::root::{RootEntry, ScalableRootEntry};
use iommu_model::spec::vtd::second_stage::SecondStageEntry;
use iommu_model::{
    Access, Attributes, Bdf, Capabilities, DeviceInvalidation, DeviceTlb, FetchKind, Fetched, Geometry, Iova, Pa, PageQueueInput,
    PageQueueProgress, PageRange, PageRequest, Params, Pasid, Plain, Progress, QueueInput, QueueProgress, Register, Request,
    SOURCES_NESTED_MAX, Scalable, Source, Unit,
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

/// The frames of the nested world: tables of both stages lead in circles, A clear in every tenth entry.
fn fetch_nested(pa: Pa, n: u64) -> Fetched {
    let frame = pa.pfn().0;
    let pair = |bits: u128| [bits as u64, (bits >> 64) as u64];
    match frame {
        ROOT => Fetched::Words(pair(ScalableRootEntry::new().with_lower_present(true).with_lower(2).into_bits())),
        2 => {
            let [low, high] = pair(ScalableContextEntry::new().with_present(true).with_pasid_enable(true).with_directory(3).into_bits());
            Fetched::Wide([low, high, 0, 0, 0, 0, 0, 0])
        }
        3 => Fetched::word(PasidDirectoryEntry::new().with_present(true).with_table(4).into_bits()),
        4 => {
            let entry = PasidEntryLow::new()
                .with_present(true)
                .with_domain(7)
                .with_walk_snoop(true)
                .with_second_stage_accessed_dirty(n.is_multiple_of(2));
            let kind = 1 + (pa.0 / 64 % 4) as u8;
            let [low, high] = pair(entry.with_translation_type(kind).with_address_width(AW_48).with_second_stage(5).into_bits());
            let first = PasidEntryFirstStage::new().with_first_stage(0x1000).into_bits();
            Fetched::Wide([low, high, first, 0, 0, 0, 0, 0])
        }
        // Second stage: every entry is of the same table, leaves included.
        5 => Fetched::word(
            SecondStageEntry::new().with_read(true).with_write(true).with_frame(5).with_accessed(!n.is_multiple_of(10)).into_bits(),
        ),
        _ => Fetched::word(0),
    }
}

fn translate_nested(unit: &mut Unit, request: Request, n: u64) {
    let Ok(walk) = unit.begin(request) else { return };
    let mut answer = None;
    for step in 0..400 {
        match unit.advance(walk, answer.take(), &mut Plain) {
            Progress::Fetch { kind: FetchKind::FirstStage { .. }, .. } => {
                let entry = FirstStageEntry::new().with_present(true).with_write(true).with_user(true).with_frame(0x1000);
                answer = Some(Fetched::word(entry.with_accessed(!n.is_multiple_of(10)).into_bits()));
            }
            Progress::Fetch { pa, .. } => answer = Some(fetch_nested(pa, n)),
            Progress::Update { old, new, .. } => answer = Some(Fetched::word(if step % 3 == 0 { new } else { old })),
            progress if progress.is_end() => return,
            _ if step == 20 && n % 50 == 7 => {
                assert!(unit.cancel(walk));
                return;
            }
            _ if step % 40 == 39 && n % 20 == 3 => {
                unit.write_register(Register::Iqt, (unit.read_register(Register::Iqt) + 32) % 4096, &mut Plain);
                invalidate_wide(unit, n);
            }
            _ => {}
        }
    }
    panic!("a walk without end");
}

fn invalidate_wide(unit: &mut Unit, n: u64) {
    let pasid = PasidIotlbDescriptor::new()
        .with_kind(TYPE_PASID_IOTLB)
        .with_granularity(GRANULARITY_DOMAIN)
        .with_domain(7)
        .with_pasid(n as u32 % 4);
    let domain = IotlbDescriptor::new().with_kind(TYPE_IOTLB).with_granularity(GRANULARITY_DOMAIN).with_domain(7);
    let bits = if n.is_multiple_of(3) { pasid.into_bits() } else { domain.into_bits() };
    let mut input = QueueInput::Continue;
    loop {
        input = match unit.queue_advance(input, &mut Plain) {
            QueueProgress::Idle => return,
            QueueProgress::FetchDescriptor { .. } => QueueInput::WideDescriptor([bits as u64, (bits >> 64) as u64, 0, 0]),
            QueueProgress::Drain { .. } => QueueInput::Drained,
            _ => QueueInput::Continue,
        };
    }
}

fn work_scalable(unit: &mut Unit) {
    unit.write_register(Register::Rtaddr, ROOT << 12 | 1 << 10, &mut Plain);
    unit.write_register(Register::Iqa, 1 << 11, &mut Plain);
    unit.write_register(Register::Gcmd, 1 << 30 | 1 << 26, &mut Plain);
    unit.write_register(Register::Gcmd, 1 << 31 | 1 << 26, &mut Plain);
    unit.register_drained();
    for n in 0..20_000u64 {
        let access = if n % 3 == 0 { Access::Write } else { Access::Read };
        let pasid = (n % 5 != 0).then_some(Pasid((n % 64) as u32));
        translate_nested(unit, Request { source: Bdf((n % 60) as u16), iova: Iova((n * 7919 % 4096) << 20), access, pasid }, n);
        if n % 100 == 0 {
            unit.drop_cached(3);
        }
    }
    unit.reset();
}

/// Translation requests, invalidations of the device, page requests.
fn work_with_a_device(unit: &mut Unit, device: &mut DeviceTlb) {
    unit.write_register(Register::Rtaddr, ROOT << 12 | 1 << 10, &mut Plain);
    unit.write_register(Register::Gcmd, 1 << 30 | 1 << 26, &mut Plain);
    unit.write_register(Register::Gcmd, 1 << 31 | 1 << 26, &mut Plain);
    unit.register_drained();
    let mut kept = 0;
    for n in 0..5_000u64 {
        let request = Request { source: Bdf(0), iova: Iova((n % 100) << 12), access: Access::Read, pasid: None };
        let tag = device.ask(None, request.iova).expect("a question is free");
        let walk = unit.begin_as(request, Attributes::translation(n % 2 == 0)).expect("a walker is free");
        let mut answer = None;
        loop {
            match unit.advance(walk, answer.take(), &mut Plain) {
                Progress::Fetch { pa, kind, .. } => {
                    answer = Some(match kind {
                        FetchKind::ScalableContext => Fetched::Wide([3 << 12 | 0b11101, 0, 0, 0, 0, 0, 0, 0]),
                        _ => fetch_nested(Pa(if kind == FetchKind::PasidEntry { 4 << 12 | 64 } else { pa.0 }), 1),
                    });
                }
                Progress::Done(translation) => {
                    let mut buffer = [Source::BLANK; SOURCES_NESTED_MAX];
                    kept += u32::from(device.keep(tag, &translation, unit.last_sources(&mut buffer), &mut Plain));
                    break;
                }
                Progress::Lookup { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        if n % 10 == 0 {
            let range = PageRange { address: request.iova, order: 1 };
            device.invalidate(&DeviceInvalidation { source: request.source, pasid: None, every_pasid: false, range, itag: 0 });
            let ask = PageRequest {
                source: request.source,
                pasid: None,
                address: request.iova,
                read: true,
                write: false,
                execute: false,
                privileged: false,
                last: true,
                group: 1,
            };
            let walk = unit.begin_page_request(ask).expect("a walker is free");
            while !unit.advance(walk, None, &mut Plain).is_end() {}
            while unit.page_queue_advance(PageQueueInput::Written) != PageQueueProgress::Idle {}
        }
    }
    assert!(kept > 1000, "{kept}");
    unit.reset();
    device.reset();
}

/// The least blocks that one of a few rounds of `work` allocates: the test harness has threads of its own, which may allocate meanwhile.
fn least_blocks(mut work: impl FnMut()) -> u64 {
    let round = |_| {
        let before = dhat::HeapStats::get().total_blocks;
        work();
        dhat::HeapStats::get().total_blocks - before
    };
    (0..4).map(round).min().expect("four rounds")
}

#[test]
fn no_step_allocates_after_the_unit_is_made() {
    let _profiler = dhat::Profiler::builder().testing().build();
    assert!(least_blocks(|| drop(std::hint::black_box(Box::new(1)))) > 0, "it counts");
    let small = Geometry { sets: 2, ways: 4 };
    let shapes = [Params::default(), Params { context: small, iotlb: small, psc: [small; 4], walks_max: 2, ..Params::default() }];
    for params in shapes {
        let mut unit = Unit::new(Capabilities::default(), params.clone());
        start(&mut unit);
        let mut copy = unit.clone();
        let blocks = least_blocks(|| {
            work(&mut unit);
            work(&mut copy);
        });
        assert_eq!(blocks, 0);

        let cap = Capabilities { scalable: Some(Scalable::default()), ..Capabilities::default() };
        let mut unit = Unit::new(cap, params);
        assert_eq!(least_blocks(|| work_scalable(&mut unit)), 0);

        let cap = Capabilities { page_requests: true, ..cap };
        let mut unit = Unit::new(cap, Params { split_fetches: false, ..Params::default() });
        let mut device = DeviceTlb::new(small);
        assert_eq!(least_blocks(|| work_with_a_device(&mut unit, &mut device)), 0);
    }
}
