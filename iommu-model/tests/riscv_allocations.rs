//! After `riscv::Unit::new`, no step allocates. A test binary of its own: the counting allocator serves a whole process.

use iommu_model::riscv::{
    AddressKind, Capabilities, CommandInput, CommandProgress, DeviceId, PageRequest, RecordInput, RecordProgress, Register, Transaction,
    Unit,
};
use iommu_model::spec::riscv::command::{InvalidateCommand, OPCODE_IOTINVAL};
use iommu_model::{Access, FetchKind, Fetched, Geometry, Iova, Params, Pasid, Plain, Progress};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Every pointer leads on, every third leaf needs an update, contexts of every kind.
fn answer(kind: FetchKind, n: u64) -> Fetched {
    let leaf = |frame: u64| Fetched::word(frame << 10 | if n.is_multiple_of(3) { 0x17 } else { 0xd7 });
    match kind {
        FetchKind::DeviceDirectory { .. } | FetchKind::ProcessDirectory { .. } => Fetched::word(5 << 10 | 1),
        FetchKind::ExtendedDeviceContext => {
            let (second, first) = (if n.is_multiple_of(2) { 8 << 60 | 0x40 } else { 0 }, if n.is_multiple_of(5) { 0 } else { 9 << 60 });
            let directory = n.is_multiple_of(7);
            let fsc = if directory { 2 << 60 | 0x80 } else { first | 0x80 };
            let tc = 1 | 1 << 7 | 1 << 8 | u64::from(directory) << 5 | u64::from(directory) << 9 | 1 << 1 | 1 << 2;
            Fetched::Wide([tc, second, (n % 9) << 12, fsc, 1 << 60 | 0x99, 0, 0x123, 0])
        }
        FetchKind::ProcessContext => Fetched::Words([1 | (n % 5) << 12, 8 << 60 | 0x80]),
        FetchKind::MessageEntry => Fetched::Words([7 | 0x77 << 10, 0]),
        FetchKind::FirstStage { level: 1 } | FetchKind::Table { level: 1 } => leaf(0x1000 + n % 512),
        _ => Fetched::word(6 << 10 | 1),
    }
}

fn translate(unit: &mut Unit, request: Transaction, n: u64) {
    let walk = unit.begin(request).expect("a walker is free");
    let mut fetched = None;
    for step in 0..2000 {
        match unit.advance(walk, fetched.take(), &mut Plain) {
            Progress::Fetch { kind, .. } => fetched = Some(answer(kind, n)),
            Progress::Update { old, new, .. } => fetched = Some(Fetched::word(if step % 4 == 0 { new } else { old })),
            progress if progress.is_end() => return,
            _ if step == 30 && n % 40 == 7 => {
                assert!(unit.cancel(walk));
                return;
            }
            _ => {}
        }
    }
    panic!("a walk without end");
}

fn command(unit: &mut Unit, n: u64) {
    let bits = InvalidateCommand::new()
        .with_opcode(OPCODE_IOTINVAL)
        .with_func3((n % 2) as u8)
        .with_gscid_valid(n.is_multiple_of(3))
        .with_address_valid(n.is_multiple_of(5))
        .into_bits();
    let tail = unit.read_register(Register::Cqt);
    unit.write_register(Register::Cqt, tail + 1);
    let mut input = CommandInput::Continue;
    loop {
        input = match unit.command_queue_advance(input, &mut |_| 1) {
            CommandProgress::Idle | CommandProgress::Stopped(_) => return,
            CommandProgress::Fetch { .. } => CommandInput::Command([bits as u64, (bits >> 64) as u64]),
            _ => CommandInput::Continue,
        };
    }
}

fn records(unit: &mut Unit) {
    let mut input = RecordInput::Continue;
    loop {
        input = match unit.fault_queue_advance(input) {
            RecordProgress::Idle => break,
            RecordProgress::Write { .. } => RecordInput::Written,
            RecordProgress::Done { .. } => RecordInput::Continue,
        };
    }
    let tail = unit.read_register(Register::Fqt);
    unit.write_register(Register::Fqh, tail);
}

fn work(unit: &mut Unit) {
    unit.write_register(Register::Cqb, 7 | 1 << 10);
    unit.write_register(Register::Cqcsr, 3);
    unit.write_register(Register::Fqb, 5 | 2 << 10);
    unit.write_register(Register::Fqcsr, 3);
    unit.write_register(Register::Pqb, 3 | 3 << 10);
    unit.write_register(Register::Pqcsr, 3);
    unit.write_register(Register::Ddtp, 4 | 4 << 10);
    unit.register_drained();
    for n in 0..20_000u64 {
        let request = Transaction {
            kind: if n % 11 == 0 { AddressKind::TranslationRequest } else { AddressKind::Untranslated },
            process: (n % 7 == 0).then_some(Pasid((n % 300) as u32)),
            ..Transaction::new(
                DeviceId((n % 90) as u32),
                Iova((n * 7919 % 4096) << 14),
                if n % 3 == 1 { Access::Write } else { Access::Read },
            )
        };
        translate(unit, request, n);
        translate(unit, request, n);
        if n % 50 == 0 {
            command(unit, n / 50);
            records(unit);
            unit.drop_cached(3);
            let request = PageRequest { device: DeviceId(1), payload: 7, process: None, privileged: false, execute: false };
            let walk = unit.begin_page_request(request).expect("a walker is free");
            unit.cancel(walk);
        }
    }
    unit.reset();
}

#[test]
fn no_step_allocates_after_the_unit_is_made() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let small = Geometry { sets: 2, ways: 4 };
    for params in
        [Params::default(), Params { context: small, pasid: small, iotlb: small, psc: [small; 4], walks_max: 2, ..Params::default() }]
    {
        let mut unit = Unit::new(Capabilities::default(), params);
        assert!(dhat::HeapStats::get().total_blocks > 0, "it counts");
        // Every round does the same, but the test harness may allocate in its own thread during any of them.
        let of_round = |unit: &mut Unit| {
            let before = dhat::HeapStats::get().total_blocks;
            work(unit);
            dhat::HeapStats::get().total_blocks - before
        };
        let rounds = [(); 3].map(|()| of_round(&mut unit));
        dhat::assert_eq!(rounds.into_iter().min(), Some(0));
    }
}
