//! State and tables as text.

use super::support::Bench;
use super::support::bench::{DEVICE, DOMAIN, IOVA};
use super::support::tables::leaf;
use iommu_model::inspect::{self, Limits};
use iommu_model::{FetchKind, Pa};

#[test]
fn a_snapshot_shows_caches_and_walks() {
    let (mut bench, _) = Bench::mapped();
    bench.read(IOVA);
    let walk = bench.begin(IOVA.offset(4096), iommu_model::Access::Write);
    bench.run_to_fetch(walk, FetchKind::Table { level: 1 });
    let text = bench.unit.snapshot().to_string();
    for line in [
        "Gsts 0xc4000000",
        "context 3b:00.0 did=0x5 tables=0x1001000 levels=4",
        "iotlb did=0x5 0x40203000+0x1000 -> 0x77000 rw",
        "psc2 did=0x5 0x40200000+0x200000 -> table 0x1005000 rw",
        "walk 0 3b:00.0 Write 0x40204000 awaits Table { level: 1 } at 0x1005020",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
}

#[test]
fn a_snapshot_does_not_depend_on_the_order_of_requests() {
    let text = |order: [u64; 2]| {
        let (mut bench, slot) = Bench::mapped();
        bench.memory.write(slot.offset(8), leaf(Pa(0x9_9000), 12).into_bits());
        for n in order {
            bench.read(IOVA.offset(n * 4096));
        }
        bench.unit.snapshot().to_string()
    };
    assert_eq!(text([0, 1]), text([1, 0]));
}

#[test]
fn a_table_dump_merges_runs() {
    let mut bench = Bench::new();
    let tables = bench.tables.second_stage(4);
    bench.tables.attach(&mut bench.memory, DEVICE, DOMAIN, tables);
    for n in 0..4 {
        bench.tables.map(&mut bench.memory, tables, IOVA.offset(n * 4096), Pa(0x10_0000 + n * 4096), 12);
    }
    bench.tables.map(&mut bench.memory, tables, IOVA.offset(1 << 30), Pa(0x4000_0000), 30);
    let memory = bench.memory.clone();
    let mut read = |pa: Pa| Some(memory.read(pa));
    let text = inspect::second_stage(tables.root, 4, Limits::default(), &mut read);
    assert_eq!(text, "0x40203000+0x4000 -> 0x100000 rw page=0x1000\n0x80000000+0x40000000 -> 0x40000000 rw page=0x40000000\n");
    let text = inspect::root_table(bench.tables.root, Limits::default(), &mut read);
    assert!(text.starts_with("bus 3b context-table=0x1002000\n  3b:00.0 did=0x5 t=0 aw=2 tables=0x1001000\n    0x40203000"));
}

#[test]
fn a_dump_of_a_table_that_points_at_itself_ends_at_its_limits() {
    let mut read = |_: Pa| Some(0x1003);
    let limits = Limits { words_max: 10_000, lines_max: 10 };
    let text = inspect::second_stage(Pa(0x1000), 5, limits, &mut read);
    assert!(text.ends_with("... cut off by the limits\n"));
    assert!(text.lines().count() <= 11);
    let mut read = |_: Pa| Some(u64::MAX);
    assert!(inspect::root_table(Pa(0x1000), limits, &mut read).ends_with("... cut off by the limits\n"));
}
