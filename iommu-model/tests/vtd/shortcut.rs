//! The one-call path for cached requests does what the steps do, or nothing.

use super::support::bench::{DEVICE, DOMAIN, IOVA};
use super::support::tables::leaf;
use super::support::{Bench, commands};
use iommu_model::{Access, Bdf, Capabilities, Geometry, Iova, Pa, Params, Plain, Progress, Request};
use proptest::prelude::*;

const PAGES: u64 = 6;

/// One device, six neighbouring pages, the last of them read-only; an IOTLB of four entries.
fn bench() -> Bench {
    let params = Params { iotlb: Geometry { sets: 2, ways: 2 }, ..Params::default() };
    let (mut bench, slot) = Bench::mapped_with(Capabilities::default(), params);
    for n in 0..PAGES {
        let entry = leaf(Pa((0x100 + n) << 12), 12).with_write(n + 1 < PAGES);
        bench.memory.write(slot.offset(n * 8), entry.into_bits());
    }
    bench
}

fn request(page: u64, access: Access) -> Request {
    Request { source: DEVICE, iova: IOVA.offset(page << 12), access, pasid: None }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Two units see the same requests; one of them takes the shortcut where it can.
    #[test]
    fn a_shortcut_changes_neither_answers_nor_caches(requests in prop::collection::vec((0..PAGES, any::<bool>()), 1..60)) {
        let (mut short, mut long) = (bench(), bench());
        let mut taken = 0;
        for (page, write) in requests {
            let request = request(page, if write { Access::Write } else { Access::Read });
            let stepped = long.translate_with(request.iova, request.access, &mut Plain);
            match short.unit.translate_cached(&request) {
                Some(translation) => {
                    taken += 1;
                    prop_assert_eq!(Progress::Done(translation), stepped.progress);
                    prop_assert_eq!(short.unit.last_provenance(), stepped.provenance);
                }
                None => {
                    prop_assert!(!stepped.fetched.is_empty() || matches!(stepped.progress, Progress::Fault(_)));
                    prop_assert_eq!(short.translate_with(request.iova, request.access, &mut Plain).progress, stepped.progress);
                }
            }
            prop_assert_eq!(short.unit.snapshot().to_string(), long.unit.snapshot().to_string());
            let pages = |bench: &Bench| bench.unit.caches().iotlb().map(|entry| entry.page).collect::<Vec<_>>();
            prop_assert_eq!(pages(&short), pages(&long), "the order of use");
        }
        prop_assert!(taken < 60);
    }
}

#[test]
fn what_is_not_a_plain_hit_takes_the_long_way() {
    let mut bench = bench();
    let read = request(0, Access::Read);
    assert_eq!(bench.unit.translate_cached(&read), None, "nothing is cached");
    bench.read(IOVA);
    assert!(bench.unit.translate_cached(&read).is_some());
    let with_pasid = Request { pasid: Some(iommu_model::Pasid(1)), ..read };
    let of_another = Request { source: Bdf(0), ..read };
    let beyond = Request { iova: Iova(1 << 60), ..read };
    let message = Request { iova: Iova(0xfee0_0000), access: Access::Write, ..read };
    for other in [with_pasid, of_another, beyond, message, request(1, Access::Read)] {
        assert_eq!(bench.unit.translate_cached(&other), None, "{other:?}");
    }
    let leader = bench.begin(IOVA, Access::Read);
    assert_eq!(bench.unit.translate_cached(&read), None, "it would be merged");
    bench.unit.cancel(leader);
    assert!(bench.unit.translate_cached(&read).is_some());
    for n in 0..16 {
        bench.begin(IOVA.offset((n + 8) << 12), Access::Read);
    }
    assert_eq!(bench.unit.translate_cached(&read), None, "no walker is free");
    bench.invalidate(&[commands::iotlb_domain(DOMAIN)]);
    assert_eq!(bench.unit.translate_cached(&read), None);
    bench.enable(false);
    assert_eq!(bench.unit.translate_cached(&read), None);
}
