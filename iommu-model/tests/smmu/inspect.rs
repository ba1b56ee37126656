//! The state of the unit as text.

use super::support::bench::{Bench, IOVA, PAGE};
use super::support::tables::page_1;
use iommu_model::{Access, FetchKind, Pa};

#[test]
fn a_snapshot_shows_registers_caches_and_walks() {
    let (mut bench, ..) = Bench::mapped_nested();
    bench.read(IOVA);
    let walk = bench.begin(IOVA.offset(4096), Access::Write);
    let (pa, _) = bench.run_to_fetch(walk, FetchKind::Stage1 { level: 3 });
    let text = bench.unit.snapshot().to_string();
    for line in [
        "Cr0 0xd",
        "stream sid=0x20 vmid=0x7 contexts=0x1003002000 tables=0x3001000",
        "context sid=0x20 ssid=0x0 asid=0x5",
        "tlb vmid=0x7 asid=0x5 0x1234567000+0x1000 -> 0x77000 rw both-stages",
        "tlb vmid=0x7 ipa 0x60000000+0x1000 -> 0x77000 rw",
        "walk-cache2 vmid=0x7 asid=0x5 0x1234400000+0x200000 -> table 0x1003005000",
        &format!("walk 0 sid=0x20 Write 0x1234568000 awaits Stage1 {{ level: 3 }} at {pa}"),
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
}

#[test]
fn a_snapshot_does_not_depend_on_the_order_of_requests() {
    let text = |order: [u64; 2]| {
        let (mut bench, leaf) = Bench::mapped_1();
        bench.memory.write(leaf.offset(8), page_1(Pa(PAGE.0 + 4096)).into_bits());
        for n in order {
            bench.read(IOVA.offset(n * 4096)).translation();
        }
        bench.unit.snapshot().to_string()
    };
    assert_eq!(text([0, 1]), text([1, 0]));
}
