//! After `amd::Unit::new`, no step allocates. A test binary of its own: the counting allocator serves a whole process.

use iommu_model::amd::{Capabilities, CommandInput, CommandProgress, EventInput, EventProgress, Unit};
use iommu_model::spec::amd::command::{AnyCommand, InvalidatePages, OPCODE_INVALIDATE_ALL, OPCODE_INVALIDATE_PAGES};
use iommu_model::spec::amd::device_table::{DeviceEntryLow, HAD_ACCESSED_DIRTY};
use iommu_model::spec::amd::guest_table::{GuestCr3Entry, GuestEntry};
use iommu_model::spec::amd::host_table::HostEntry;
use iommu_model::{Access, Bdf, FetchKind, Fetched, Geometry, Iova, Params, Pasid, Plain, Progress, Question, Request};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Devices are of three kinds: host tables of six levels, guest tables, both. Entries lead on; A is clear in every tenth.
fn answer(kind: FetchKind, source: Bdf, n: u64) -> Fetched {
    let accessed = !n.is_multiple_of(10);
    match kind {
        FetchKind::DeviceTableEntry => {
            let entry = DeviceEntryLow::new()
                .with_valid(true)
                .with_translation_valid(true)
                .with_read(true)
                .with_write(true)
                .with_domain(source.0 % 5)
                .with_mode(if source.0 % 3 == 1 { 0 } else { 6 })
                .with_root(0x1000)
                .with_host_access_dirty(if source.0.is_multiple_of(2) { HAD_ACCESSED_DIRTY } else { 0 })
                .with_guest_valid(!source.0.is_multiple_of(3))
                .with_guest_levels(2)
                .with_guest_root(0x2000)
                .into_bits();
            Fetched::Wide([entry as u64, (entry >> 64) as u64, 0, 0, 0, 0, 0, 0])
        }
        FetchKind::GuestCr3 { .. } => Fetched::word(GuestCr3Entry::new().with_valid(true).with_frame(0x3000).into_bits()),
        FetchKind::FirstStage { .. } => {
            let entry = GuestEntry::new().with_present(true).with_write(true).with_user(true).with_frame(0x4000);
            Fetched::word(entry.with_accessed(accessed).into_bits())
        }
        FetchKind::Table { level } => {
            let entry = HostEntry::new().with_present(n % 97 != 5).with_read(true).with_write(!n.is_multiple_of(7));
            Fetched::word(entry.with_next_level(level - 1).with_frame(0x5000).with_accessed(accessed).into_bits())
        }
        other => panic!("{other:?}"),
    }
}

fn translate(unit: &mut Unit, request: Request, n: u64) {
    if unit.translate_cached(&request).is_some() {
        return;
    }
    let walk = unit.begin(request).expect("a walker is free");
    let mut fetched = None;
    for step in 0..1000 {
        match unit.advance(walk, fetched.take(), &mut Plain) {
            Progress::Fetch { kind, .. } => fetched = Some(answer(kind, request.source, n)),
            Progress::Update { old, new, .. } => fetched = Some(Fetched::word(if step % 3 == 0 { new } else { old })),
            progress if progress.is_end() => return,
            _ if step == 20 && n % 50 == 7 => {
                assert!(unit.cancel(walk));
                return;
            }
            _ if step % 40 == 39 && n % 20 == 3 => invalidate(unit, n),
            _ => {}
        }
    }
    panic!("a walk without end");
}

fn invalidate(unit: &mut Unit, n: u64) {
    let tail = unit.read_register_at(0x2008, 8) + 16;
    unit.write_register_at(0x2008, 8, tail);
    let pages = InvalidatePages::new()
        .with_opcode(OPCODE_INVALIDATE_PAGES)
        .with_domain((n % 5) as u16)
        .with_sized(true)
        .with_page(0x7_ffff_ffff_ffff)
        .with_guest(n.is_multiple_of(2))
        .with_directories(true)
        .into_bits();
    let all = AnyCommand::new().with_opcode(OPCODE_INVALIDATE_ALL).into_bits();
    let bits = if n.is_multiple_of(3) { all } else { pages };
    let mut late = |question: Question| u32::from(question == Question::DelayCommand);
    let mut input = CommandInput::Continue;
    loop {
        input = match unit.command_advance(input, &mut late) {
            CommandProgress::Idle => return,
            CommandProgress::Fetch { .. } => CommandInput::Command([bits as u64, (bits >> 64) as u64]),
            CommandProgress::Drain { .. } => CommandInput::Drained,
            _ => CommandInput::Continue,
        };
    }
}

fn drain_log(unit: &mut Unit) {
    let mut input = EventInput::Continue;
    while let progress @ (EventProgress::Write { .. } | EventProgress::Done { .. }) = unit.event_log_advance(input) {
        input = if matches!(progress, EventProgress::Write { .. }) { EventInput::Written } else { EventInput::Continue };
    }
}

fn work(unit: &mut Unit) {
    unit.write_register_at(0x00, 8, 0x1ff);
    unit.write_register_at(0x18, 8, 0x1_1005);
    for n in 0..20_000u64 {
        let access = if n % 3 == 0 { Access::Write } else { Access::Read };
        let source = Bdf((n % 60) as u16);
        let pasid = (!source.0.is_multiple_of(3) && n % 5 != 0).then_some(Pasid((n % 64) as u32));
        let request = Request { source, iova: Iova((n * 7919 % 4096) << 20), access, pasid };
        translate(unit, request, n);
        translate(unit, request, n);
        if n % 100 == 0 {
            unit.drop_cached(3);
        }
        if n % 300 == 0 {
            drain_log(unit);
        }
        if n == 10_000 {
            unit.write_register_at(0x18, 8, 0x400_0000_0001_1005);
        }
    }
    unit.reset();
}

#[test]
fn no_step_allocates_after_the_unit_is_made() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let small = Geometry { sets: 2, ways: 4 };
    let shapes =
        [Params::default(), Params { context: small, pasid: small, iotlb: small, psc: [small; 4], walks_max: 2, ..Params::default() }];
    for params in shapes {
        let mut unit = Unit::new(Capabilities::default(), params);
        // The test harness may allocate on its own thread, once; a step that allocates does so in every round.
        let rounds = (0..3).map(|_| {
            let before = dhat::HeapStats::get().total_blocks;
            assert!(before > 0, "it counts");
            work(&mut unit);
            dhat::HeapStats::get().total_blocks - before
        });
        let fewest = rounds.min();
        dhat::assert_eq!(fewest, Some(0));
    }
}
