//! The state of the unit as text.

use super::support::tables::open;
use super::support::{Bench, DEVICE, Guest, IOVA, OTHER_PAGE, PASID};
use iommu_model::{Access, FetchKind, Request};

#[test]
fn a_snapshot_shows_registers_caches_and_walks() {
    let mut guest = Guest::nested();
    guest.read();
    let request = Request { source: DEVICE, iova: IOVA.offset(4096), access: Access::Write, pasid: Some(PASID) };
    let walk = guest.bench.unit.begin(request).expect("a walker is free");
    let (pa, _) = guest.bench.run_to_fetch(walk, FetchKind::FirstStage { level: 1 });
    let text = guest.bench.unit.snapshot().to_string();
    for line in [
        "Status 0x18",
        "gcr3 3b:00.0 pasid=0x3 did=0x5 -> 0x1201000",
        "tlb did=0x5 pasid=0x3 0x40203000+0x1000 -> 0x77000 rw",
        "tlb did=0x5 0x77000+0x1000 -> 0x77000 rw",
        "directory2 did=0x5 pasid=0x3 0x40200000 -> table 0x1204000 of level 1 rw",
        &format!("walk 0 3b:00.0 Write 0x40204000 awaits FirstStage {{ level: 1 }} at {pa}"),
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
    assert!(text.lines().any(|line| line.starts_with("device 3b:00.0 did=0x5 rw tables=") && line.contains(" gcr3=")), "{text}");
}

#[test]
fn a_snapshot_does_not_depend_on_the_order_of_requests() {
    let text = |order: [u64; 2]| {
        let (mut bench, leaf) = Bench::mapped();
        bench.memory.write(leaf.offset(8), open(0).with_frame(OTHER_PAGE.pfn().0).into_bits());
        for n in order {
            bench.read(IOVA.offset(n * 4096)).pa();
        }
        bench.unit.snapshot().to_string()
    };
    assert_eq!(text([0, 1]), text([1, 0]));
}
