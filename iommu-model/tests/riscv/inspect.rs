//! The state of the unit as text.

use crate::support::{DEVICE, IOVA, PAGE, World, leaf};
use iommu_model::riscv::Transaction;
use iommu_model::{Access, Fetched, Plain, Progress};

#[test]
fn a_snapshot_shows_registers_caches_and_walks() {
    let (mut world, ..) = World::mapped_nested(3);
    world.read(IOVA);
    let walk = world.begin(Transaction::new(DEVICE, IOVA.offset(4096), Access::Write));
    let pa = loop {
        if let Progress::Fetch { pa, .. } = world.unit.advance(walk, None::<Fetched>, &mut Plain) {
            break pa;
        }
    };
    let text = world.unit.snapshot().to_string();
    for line in [
        "device 0x18 gscid=0x9 second=0x1004000 levels=3 pscid=0x3 first=0x1001009000 levels=3",
        "iotlb gscid=0x9 pscid=0x3 0x40203000+0x1000 -> 0x77000 rwx",
        "iotlb gscid=0x9 gpa 0x1001000000+0x200000 -> 0x1000000 rwx",
        "walk-cache2 gscid=0x9 pscid=0x3 0x40200000 -> table 0x100100b000",
        &format!("walk 0 0x18 Write 0x40204000 awaits FirstStage {{ level: 1 }} at {pa}"),
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
    assert!(text.starts_with("Capabilities 0x"), "{text}");
}

#[test]
fn a_snapshot_does_not_depend_on_the_order_of_requests() {
    let text = |order: [u64; 2]| {
        let (mut world, tables, _) = World::mapped_first(3);
        world.map(tables, IOVA.offset(4096), leaf(PAGE), 12);
        for n in order {
            world.read(IOVA.offset(n * 4096)).translation();
        }
        world.unit.snapshot().to_string()
    };
    assert_eq!(text([0, 1]), text([1, 0]));
}
