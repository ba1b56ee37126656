//! After `smmu::Unit::new`, no step allocates. A test binary of its own: the counting allocator serves a whole process.

use iommu_model::smmu::{Capabilities, CommandInput, CommandProgress, ConfigFetch, EventInput, EventProgress, Params, Register, Unit};
use iommu_model::spec::smmu::command::{TLBI_NH_ALL, TlbCommand};
use iommu_model::spec::smmu::context::{Context0, ContextTable};
use iommu_model::spec::smmu::descriptor::{Descriptor, Stage1Leaf, Stage2Leaf};
use iommu_model::spec::smmu::stream::{CONFIG_NESTED, StreamEntry0, StreamEntry1, StreamEntry2, StreamEntry3};
use iommu_model::{Access, Bdf, FetchKind, Fetched, Geometry, Iova, Pa, Pasid, Plain, Progress, Request};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Every stream is nested with two-level CD tables; tables of both stages lead in circles, AF clear in every tenth leaf.
fn structure(kind: FetchKind, at: u64) -> [u64; 8] {
    if kind == FetchKind::StreamEntry {
        let config = if at.is_multiple_of(3) { CONFIG_NESTED & !2 } else { CONFIG_NESTED };
        let first = StreamEntry0::new().with_valid(true).with_config(config).with_format(1).with_context_bits(12).with_context(0x100);
        let second = StreamEntry1::new().with_default_substream(2);
        let stage_2 = StreamEntry2::new().with_vmid((at % 5) as u16).with_input_size(25).with_start_level(1).with_output_size(5);
        let stage_2 = stage_2.with_aarch64(true).with_record(true).with_hardware_access(true).with_hardware_dirty(true);
        return [first.into_bits(), second.into_bits(), stage_2.into_bits(), StreamEntry3::new().into_bits(), 0, 0, 0, 0];
    }
    let entry = Context0::new().with_size_0(16).with_disable_1(true).with_valid(true).with_output_size(5).with_aarch64(true);
    let entry = entry.with_record(true).with_abort(true).with_asid(at as u16).with_hardware_access(true).with_hardware_dirty(true);
    [entry.into_bits(), ContextTable::new().with_table(0x1000).into_bits(), 0, 0, 0, 0, 0, 0]
}

fn answer(pa: Pa, bytes: u8, kind: FetchKind, n: u64) -> Fetched {
    let leaf = |level| level == 3;
    match kind {
        FetchKind::StreamEntry | FetchKind::ContextDescriptor => {
            let words = structure(kind, pa.0 / 64);
            let at = (pa.0 % 64 / 8) as usize;
            match bytes {
                64 => Fetched::Wide(words),
                _ => Fetched::Words([words[at], words[(at + 1) % 8]]),
            }
        }
        FetchKind::ContextLevel1 => Fetched::word(0x4_0001),
        FetchKind::Stage1 { level } if leaf(level) => {
            let entry = Stage1Leaf::new().with_valid(true).with_page(true).with_unprivileged(true).with_frame(n % 4096);
            Fetched::word(entry.with_accessed(!n.is_multiple_of(10)).with_not_global(true).into_bits())
        }
        FetchKind::Stage2 { level } if leaf(level) => {
            let entry = Stage2Leaf::new().with_valid(true).with_page(true).with_readable(true).with_frame(n % 4096);
            let entry = entry.with_writable(!n.is_multiple_of(7)).with_dirty_bit_modifier(!n.is_multiple_of(77));
            Fetched::word(entry.with_accessed(!n.is_multiple_of(10)).into_bits())
        }
        _ => Fetched::word(Descriptor::new().with_valid(!n.is_multiple_of(61)).with_table_or_page(true).with_frame(5).into_bits()),
    }
}

fn start(unit: &mut Unit) {
    unit.write_register(Register::StrtabBaseCfg, 16);
    unit.write_register(Register::CmdqBase, 8);
    unit.write_register(Register::EventqBase, 8);
    unit.write_register(Register::Cr0, 0xd);
}

fn translate(unit: &mut Unit, request: Request, n: u64) -> bool {
    let Ok(walk) = unit.begin(request) else { return false };
    let mut brought = None;
    for step in 0..400 {
        match unit.advance(walk, brought.take(), &mut Plain) {
            Progress::Fetch { pa, bytes, kind, .. } => brought = Some(answer(pa, bytes, kind, n + step)),
            Progress::Update { old, new, .. } => brought = Some(Fetched::word(if step % 3 == 0 { new } else { old })),
            progress if progress.is_end() => return matches!(progress, Progress::Done(_)),
            _ if step == 20 && n % 50 == 7 => {
                assert!(unit.cancel(walk));
                return false;
            }
            _ => {}
        }
    }
    panic!("a walk without end");
}

fn drive_queues(unit: &mut Unit, n: u64) {
    let bits = TlbCommand::new().with_opcode(TLBI_NH_ALL).with_vmid((n % 5) as u16).into_bits();
    unit.write_register(Register::CmdqProd, (unit.read_register(Register::CmdqProd) + 1) % 512);
    let mut input = CommandInput::Continue;
    loop {
        input = match unit.command_advance(input, &mut |_| 1) {
            CommandProgress::Idle => break,
            CommandProgress::Fetch { .. } if n.is_multiple_of(4) => CommandInput::Command([0x46, 0]),
            CommandProgress::Fetch { .. } => CommandInput::Command([bits as u64, (bits >> 64) as u64]),
            CommandProgress::Drain { .. } => CommandInput::Drained,
            CommandProgress::AwaitEvents => {
                write_events(unit);
                CommandInput::Continue
            }
            _ => CommandInput::Continue,
        };
    }
    write_events(unit);
    unit.write_register(Register::EventqCons, unit.read_register(Register::EventqProd));
}

fn write_events(unit: &mut Unit) {
    let mut input = EventInput::Continue;
    loop {
        input = match unit.event_advance(input) {
            EventProgress::Idle => return,
            EventProgress::Write { .. } => EventInput::Written,
            _ => EventInput::Continue,
        };
    }
}

fn work(unit: &mut Unit) {
    let mut translated = 0;
    for n in 0..20_000u64 {
        let access = if n % 3 == 0 { Access::Write } else { Access::Read };
        let pasid = (n % 5 != 0).then_some(Pasid(1 + (n % 64) as u32));
        let request = Request { source: Bdf((n % 60) as u16), iova: Iova((n * 7919 % 4096) << 20), access, pasid };
        translated += u64::from(translate(unit, request, n));
        translated += u64::from(translate(unit, request, n));
        if n % 50 == 0 {
            drive_queues(unit, n / 50);
            unit.drop_cached(3);
        }
    }
    assert!(translated > 10_000, "{translated}: it does work");
    unit.reset();
    start(unit);
}

#[test]
fn no_step_allocates_after_the_unit_is_made() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let small = Geometry { sets: 2, ways: 4 };
    let tight =
        Params { stream: small, context: small, level_1: small, tlb: small, walk_1: [small; 3], walk_2: [small; 3], ..Params::default() };
    for params in [Params::default(), Params { walks_max: 2, config_fetch: ConfigFetch::Words, ..tight }] {
        let mut unit = Unit::new(Capabilities::default(), params);
        start(&mut unit);
        let mut least = u64::MAX;
        // The harness has a thread that may allocate meanwhile; a step that allocates would do so in every round.
        for _ in 0..4 {
            let before = dhat::HeapStats::get();
            work(&mut unit);
            let after = dhat::HeapStats::get();
            assert!(before.total_blocks > 0, "it counts");
            least = least.min(after.total_blocks - before.total_blocks);
        }
        dhat::assert_eq!(least, 0);
    }
}
