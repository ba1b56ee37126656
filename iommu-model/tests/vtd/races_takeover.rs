//! Races at a hand-over: tables, queues and roots that one kernel leaves and the next one takes.
//!
//! The numbers are those of the race catalogue in the project's hardware facts. Each test shows the legal bad outcome and
//! what forbids it. Race 18 is one of AMD-Vi.

use super::support::bench::{DEVICE, DOMAIN, IOVA, OTHER_PAGE, PAGE};
use super::support::tables::context;
use super::support::{Bench, Tables, World, commands};
use iommu_model::spec::vtd::descriptor::WaitDescriptor;
use iommu_model::spec::vtd::page_request::PageQueueAddress;
use iommu_model::spec::vtd::register::FaultStatus;
use iommu_model::{
    Access, Bdf, Capabilities, DomainId, Pa, PageQueueInput, PageQueueProgress, PageRequest, Params, Pfn, Plain, Progress, QueueInput,
    QueueProgress, Register,
};
use std::collections::BTreeSet;

const STATUS: Pa = Pa(0x600_0000);
const NEW_OWNERS_DATA: u64 = 0x1234_5678_9abc_def0;

/// Race 7: the incoming kernel copies a context table word by word while the outgoing one still changes it.
#[test]
fn race_7_a_copied_context_entry_mixes_the_old_tables_with_the_new_domain() {
    const NEW: DomainId = DomainId(9);
    for clears_p_first in [false, true] {
        let (mut bench, _) = Bench::mapped();
        let live = bench.tables.context_entry_pa(&mut bench.memory, DEVICE);
        let new = bench.tables.second_stage(4);
        bench.tables.map(&mut bench.memory, new, IOVA, OTHER_PAGE, 12);
        let [low, high] = context(NEW, new).into_bits().to_words();
        let mut copy = Tables::new(Pfn(0x2000));
        let to = copy.context_entry_pa(&mut bench.memory, DEVICE);
        // The copier has the first word when the owner replaces the entry.
        if clears_p_first {
            bench.memory.write(live, bench.memory.read(live) & !1);
        }
        bench.memory.write(to, bench.memory.read(live));
        bench.memory.write(live, low);
        bench.memory.write(live.offset(8), high);
        bench.memory.write(to.offset(8), bench.memory.read(live.offset(8)));
        bench.switch_root(copy.root);
        bench.invalidate(&[commands::context_global(), commands::iotlb_global()]);
        let end = bench.read(IOVA);
        if clears_p_first {
            assert_eq!(end.fault().reason.code(), 0x02, "a word without P says nothing, whatever the other is");
        } else {
            assert_eq!((end.translation().pa, end.translation().domain), (PAGE, NEW), "no owner ever wrote that");
        }
    }
}

trait Words {
    fn to_words(self) -> [u64; 2];
}

impl Words for u128 {
    fn to_words(self) -> [u64; 2] {
        [self as u64, (self >> 64) as u64]
    }
}

/// Race 11: head equals tail, so the incoming kernel takes the queue for idle; the wait descriptor is still under way.
#[test]
fn race_11_a_wait_status_lands_in_memory_of_the_next_kernel() {
    for switched_off_first in [false, true] {
        let mut bench = Bench::new();
        bench.submit(&[commands::iotlb_domain_draining(DOMAIN), commands::wait(STATUS, 1)]);
        assert!(matches!(bench.step_queue(QueueInput::Continue, &mut Plain), QueueProgress::Drain { .. }));
        if switched_off_first {
            bench.command(|command| command.set_queue_enable(false));
            assert!(bench.status().queue_enable(), "not before the descriptor under way is over");
            bench.step_queue(QueueInput::Drained, &mut Plain);
            assert!(!bench.status().queue_enable());
        } else {
            bench.step_queue(QueueInput::Drained, &mut Plain);
            assert!(matches!(bench.step_queue(QueueInput::Continue, &mut Plain), QueueProgress::WriteStatus { .. }));
            assert_eq!(bench.unit.read_register(Register::Iqh), bench.unit.read_register(Register::Iqt));
        }
        bench.memory.write(STATUS, NEW_OWNERS_DATA);
        let mut input = QueueInput::Drained;
        for _ in 0..8 {
            let progress = bench.unit.queue_advance(input, &mut Plain);
            input = QueueInput::Written;
            if let QueueProgress::WriteStatus { pa, data, .. } = progress {
                bench.memory.write(pa, u64::from(data));
            }
        }
        let intact = bench.memory.read(STATUS) == NEW_OWNERS_DATA;
        assert_eq!(intact, switched_off_first);
    }
}

/// Race 12: a page request that came before the hand-over is written after it.
#[test]
fn race_12_a_page_request_record_lands_in_memory_of_the_next_kernel() {
    let queue = Pfn(0x700);
    for drained_first in [false, true] {
        let cap = Capabilities { page_requests: true, ..super::support::scalable::capabilities() };
        let mut world = World::with(cap, Params::default());
        let entry = world.context().with_page_requests(true);
        world.set_context(DEVICE, entry);
        let bench = &mut world.bench;
        bench.write(Register::Pqa, PageQueueAddress::new().with_base(queue.0).into_bits());
        let request = PageRequest {
            source: DEVICE,
            pasid: None,
            address: IOVA,
            read: true,
            write: false,
            execute: false,
            privileged: false,
            last: true,
            group: 1,
        };
        let walk = bench.unit.begin_page_request(request).expect("a walker is free");
        bench.finish(walk);
        let write = |bench: &mut Bench| {
            while let PageQueueProgress::WriteRecord { pa, words, .. } = bench.unit.page_queue_advance(PageQueueInput::Continue) {
                bench.memory.write(pa, words[0]);
                bench.unit.page_queue_advance(PageQueueInput::Written);
            }
        };
        if drained_first {
            let wait = WaitDescriptor::from_bits(commands::wait(STATUS, 1)).with_page_request_drain(true);
            bench.submit(&[wait.into_bits()]);
            while bench.memory.read(STATUS) == 0 {
                match bench.step_queue(QueueInput::Continue, &mut Plain) {
                    QueueProgress::Blocked { .. } => write(bench),
                    QueueProgress::WriteStatus { pa, data, .. } => bench.memory.write(pa, u64::from(data)),
                    _ => {}
                }
            }
        }
        bench.memory.write(queue.pa(), NEW_OWNERS_DATA);
        write(bench);
        assert_eq!(bench.memory.read(queue.pa()) == NEW_OWNERS_DATA, drained_first);
    }
}

/// Race 17: which tables a request in flight sees when the root is switched under it.
#[test]
fn race_17_a_request_in_flight_at_a_root_switch_gets_either_answer_unless_both_are_the_same() {
    let outcomes = |new_page: Pa| {
        let mut seen = BTreeSet::new();
        for switch_at in 0..12 {
            for esrtps in [false, true] {
                let cap = Capabilities { root_switch_invalidates: esrtps, ..Default::default() };
                let (mut bench, _) = Bench::mapped_with(cap, Params::default());
                let mut tables = Tables::new(Pfn(0x2000));
                let stage = tables.second_stage(4);
                tables.attach(&mut bench.memory, DEVICE, DOMAIN, stage);
                tables.map(&mut bench.memory, stage, IOVA, new_page, 12);
                let walk = bench.begin(IOVA, Access::Read);
                let mut answer = None;
                for step in 0..64 {
                    if step == switch_at {
                        bench.switch_root(tables.root);
                    }
                    match bench.unit.advance(walk, answer.take(), &mut Plain) {
                        Progress::Fetch { pa, bytes, .. } => answer = Some(bench.memory.fetch(pa, bytes)),
                        Progress::Done(translation) => {
                            seen.insert(translation.pa);
                            break;
                        }
                        Progress::Lookup { .. } => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
        }
        seen
    };
    assert_eq!(outcomes(OTHER_PAGE), BTreeSet::from([PAGE, OTHER_PAGE]));
    assert_eq!(outcomes(PAGE), BTreeSet::from([PAGE]), "the rule for a live update: same answer before and after");
}

/// Race 19: one bad descriptor, and the invalidations of every other device wait behind it.
#[test]
fn race_19_a_stopped_queue_leaves_other_devices_with_stale_translations() {
    let other = Bdf::new(7, 0, 0);
    let (mut bench, _) = Bench::mapped();
    let tables = bench.tables.second_stage(4);
    let slot = bench.tables.map(&mut bench.memory, tables, IOVA, PAGE, 12);
    bench.tables.attach(&mut bench.memory, other, DomainId(6), tables);
    bench.read_from(other, IOVA);
    bench.memory.write(slot, 0);
    let bad = 0xe;
    bench.invalidate(&[bad, commands::iotlb_domain(DomainId(6)), commands::wait(STATUS, 1)]);
    assert_eq!(bench.memory.read(STATUS), 0);
    assert_eq!(bench.read_from(other, IOVA).translation().pa, PAGE, "unmapped long ago");
    // Software replaces the descriptor and clears the bit.
    bench.memory.write_wide(Pa(0x50_0000), commands::iotlb_global());
    bench.write(Register::Fsts, u64::from(FaultStatus::new().with_queue_error(true).into_bits()));
    bench.run_queue_with(&mut Plain);
    assert_eq!(bench.memory.read(STATUS), 1);
    assert_eq!(bench.read_from(other, IOVA).fault().reason.code(), 0x06);
}
