//! Races between one walk and one store: device TLBs, torn entries, A and D, stores on their way, cached absence.
//!
//! The numbers are those of the race catalogue in the project's hardware facts. Each test shows the legal bad outcome and
//! what forbids it.

use super::support::bench::{DEVICE, DOMAIN, IOVA, OTHER_PAGE, PAGE};
use super::support::device::{Device, commands as device_commands, invalidate};
use super::support::scalable::{capabilities, commands as pasid_commands, second};
use super::support::tables::{context, leaf};
use super::support::{Bench, Scripted, World, commands};
use iommu_model::spec::vtd::context::TT_DEVICE_TLB;
use iommu_model::spec::vtd::pasid::PasidEntryFirstStage;
use iommu_model::{Access, Capabilities, DomainId, FetchKind, Pa, Params, Pasid, Plain, Progress, Question};

/// Race 5: the device is told to forget first, asks again, and gets the old page from the IOTLB.
#[test]
fn race_5_a_device_told_first_fetches_the_old_page_from_the_iotlb_again() {
    let outcome = |device_first: bool| {
        let mut bench = Bench::new();
        let tables = bench.tables.second_stage(4);
        let slot = bench.tables.map(&mut bench.memory, tables, IOVA, PAGE, 12);
        let pa = bench.tables.context_entry_pa(&mut bench.memory, DEVICE);
        bench.memory.write_wide(pa, context(DOMAIN, tables).with_translation_type(TT_DEVICE_TLB).into_bits());
        let mut device = Device::new(DEVICE);
        device.read(&mut bench, IOVA);
        bench.memory.write(slot, leaf(OTHER_PAGE, 12).into_bits());
        let mut order = [commands::iotlb_pages(DOMAIN, IOVA, 0, true), device_commands::device_page(DEVICE, IOVA)];
        if device_first {
            order.reverse();
        }
        for command in order {
            invalidate(&mut bench, &mut device, true, &[command]);
            device.read(&mut bench, IOVA);
        }
        device.read(&mut bench, IOVA).expect("it is mapped")
    };
    assert_eq!(outcome(true), PAGE, "and nothing is left that would take it back");
    assert_eq!(outcome(false), OTHER_PAGE);
}

/// Race 8: a PASID entry is replaced in place while the unit is between its words.
///
/// ```text
/// walker                                CPU
/// reads word 0: P, old table
///                                       writes words 0 and 1: new table, new DID
/// reads word 1: new DID
/// caches the old page under the new DID
/// ```
#[test]
fn race_8_a_torn_pasid_entry_puts_the_old_tables_under_the_new_domain() {
    const NEW: DomainId = DomainId(9);
    let pasid = Pasid(3);
    let outcome = |clears_p_first: bool| {
        let mut world = World::with(capabilities(), Params { split_fetches: true, ..Params::default() });
        let old = world.attach_second(pasid, DOMAIN);
        world.bench.tables.map(&mut world.bench.memory, old, IOVA, PAGE, 12);
        let new = world.bench.tables.second_stage(4);
        world.bench.tables.map(&mut world.bench.memory, new, IOVA, OTHER_PAGE, 12);
        let walk = world.begin(Some(pasid), IOVA, Access::Read);
        let (pa, bytes) = world.bench.run_to_fetch(walk, FetchKind::PasidEntry);
        let first_word = world.bench.memory.fetch(pa, bytes);
        let entry = world.pasid_pa(pasid);
        if clears_p_first {
            let low = world.bench.memory.read(entry);
            world.bench.memory.write(entry, low & !1);
            world.bench.invalidate(&[pasid_commands::pasid_one(DOMAIN, pasid), commands::iotlb_domain(DOMAIN)]);
        }
        world.set_pasid(pasid, second(NEW, new), PasidEntryFirstStage::new());
        world.bench.unit.advance(walk, Some(first_word), &mut Plain);
        world.bench.finish(walk);
        // Software flushes the old domain, as if that were all it had ever been.
        world.bench.invalidate(&[pasid_commands::pasid_one(DOMAIN, pasid), commands::iotlb_domain(DOMAIN)]);
        *world.read(Some(pasid), IOVA).translation()
    };
    let torn = outcome(false);
    assert_eq!((torn.pa, torn.domain), (PAGE, NEW));
    assert_eq!(outcome(true).pa, OTHER_PAGE, "P cleared, invalidated, and only then the rest");
}

/// Race 9: the walk wants to set A in an entry that software clears.
#[test]
fn race_9_setting_a_never_brings_a_cleared_entry_back() {
    for cleared_in_time in [false, true] {
        let mut world = World::new();
        let tables = world.attach_first(Pasid(3), DOMAIN);
        let slot = world.map_first(tables, IOVA, PAGE, 12);
        let walk = world.begin(Some(Pasid(3)), IOVA, Access::Write);
        let mut answer = None;
        let end = loop {
            match world.bench.unit.advance(walk, answer.take(), &mut Plain) {
                Progress::Fetch { pa, bytes, .. } => answer = Some(world.bench.memory.fetch(pa, bytes)),
                Progress::Update { pa, old, new, .. } => {
                    if pa == slot && cleared_in_time {
                        world.bench.memory.write(slot, 0);
                    }
                    answer = Some(world.bench.memory.compare_exchange(pa, old, new));
                }
                progress if progress.is_end() => break progress,
                _ => {}
            }
        };
        if cleared_in_time {
            assert!(matches!(end, Progress::Fault(fault) if fault.reason.code() == 0x71));
            assert_eq!(world.bench.memory.read(slot), 0);
        } else {
            assert!(matches!(end, Progress::Done(t) if t.pa == PAGE));
            assert_eq!(world.bench.memory.read(slot) >> 5 & 3, 3, "A and D");
        }
    }
}

/// Race 9, the other half: D cleared by software is not set again before an invalidation.
#[test]
fn race_9_a_cleared_d_stays_clear_until_the_page_is_invalidated() {
    for invalidated in [false, true] {
        let mut world = World::new();
        let tables = world.attach_first(Pasid(3), DOMAIN);
        let slot = world.map_first(tables, IOVA, PAGE, 12);
        world.write(Some(Pasid(3)), IOVA);
        world.bench.memory.write(slot, world.bench.memory.read(slot) & !(1 << 6));
        if invalidated {
            world.bench.invalidate(&[pasid_commands::pasid_iotlb_pages(DOMAIN, Pasid(3), IOVA, 0, true)]);
        }
        assert_eq!(world.write(Some(Pasid(3)), IOVA).translation().pa, PAGE);
        assert_eq!(world.bench.memory.read(slot) & 1 << 6 != 0, invalidated, "else a dirty page passes for a clean one");
    }
}

/// A store that the CPU has made and the walker does not see yet: in a cache line (ECAP.C = 0) or a write buffer (CAP.RWBF).
struct OnItsWay {
    pa: Pa,
    value: u64,
}

impl OnItsWay {
    fn lands(self, bench: &mut Bench) {
        bench.memory.write(self.pa, self.value);
    }
}

/// Race 13: the invalidation overtakes the store that it was meant for.
#[test]
fn race_13_an_invalidation_before_the_cache_line_flush_is_for_nothing() {
    for flushed_first in [false, true] {
        let (mut bench, slot) = Bench::mapped_with(Capabilities { coherent: false, ..Default::default() }, Params::default());
        bench.read(IOVA);
        let store = OnItsWay { pa: slot, value: leaf(OTHER_PAGE, 12).into_bits() };
        let command = commands::iotlb_pages(DOMAIN, IOVA, 0, true);
        if flushed_first {
            store.lands(&mut bench);
            bench.invalidate(&[command]);
            assert_eq!(bench.read(IOVA).translation().pa, OTHER_PAGE);
        } else {
            bench.invalidate(&[command]);
            assert_eq!(bench.read(IOVA).translation().pa, PAGE, "refilled from the old word");
            store.lands(&mut bench);
            assert_eq!(bench.read(IOVA).translation().pa, PAGE, "and kept");
        }
    }
}

/// Race 13 with a write buffer: the invalidation says that it flushes it.
#[test]
fn race_13_an_invalidation_flushes_the_write_buffer_before_it_removes_anything() {
    for write_buffer in [false, true] {
        let (mut bench, slot) = Bench::mapped_with(Capabilities { write_buffer, ..Default::default() }, Params::default());
        bench.read(IOVA);
        let mut store = Some(OnItsWay { pa: slot, value: leaf(OTHER_PAGE, 12).into_bits() });
        for progress in bench.invalidate(&[commands::iotlb_pages(DOMAIN, IOVA, 0, true)]) {
            if let iommu_model::QueueProgress::Invalidated { what, .. } = progress
                && what.flushes_write_buffer
                && let Some(store) = store.take()
            {
                store.lands(&mut bench);
            }
        }
        let expected = if write_buffer { OTHER_PAGE } else { PAGE };
        assert_eq!(bench.read(IOVA).translation().pa, expected, "without RWBF nothing says that a store is on its way");
    }
}

/// Race 14: under caching mode the absence of a page is cached, so that a fresh mapping faults.
#[test]
fn race_14_a_fresh_mapping_faults_where_its_absence_is_cached() {
    let cap = Capabilities { caching_mode: true, ..Default::default() };
    for invalidated in [false, true] {
        let (mut bench, slot) = Bench::mapped_with(cap, Params::default());
        bench.memory.write(slot, 0);
        let mut caches = Scripted::new(|question| question == Question::CacheNotPresent, 1);
        bench.translate_with(IOVA, Access::Read, &mut caches);
        assert_eq!(caches.asked, 1);
        bench.memory.write(slot, leaf(PAGE, 12).into_bits());
        if invalidated {
            bench.invalidate(&[commands::iotlb_pages(DOMAIN, IOVA, 0, true)]);
            assert_eq!(bench.read(IOVA).translation().pa, PAGE);
        } else {
            assert_eq!(bench.read(IOVA).fault().reason.code(), 0x06);
        }
    }
}
