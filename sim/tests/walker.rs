//! A table walker that does not snoop: which stores it sees, found exhaustively.
//!
//! A CPU stores an entry and rings a doorbell; the walker looks at the doorbell, which is coherent, and then fetches the entry,
//! which is not. Outcomes are what the walker read, in order.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use iommu_model::addr::Pa;
use iommu_model::timing::Params;
use iommu_model::vtd::{Capabilities, Unit};
use sim::cpu::Cpu;
use sim::device::{Fabric, HARDWARE};
use sim::engine::{ActorId, Burst, Core, Engine, Group, Life, Object, Op, OpKind};
use sim::machine::{Machine, MachineConfig};
use sim::memory::{FrameState, Memory, Ptr};
use sim::memory_model::MemoryModel;
use sim::policy::{Exhaustive, Explorer};
use sim::trace::UnitId;

const UNIT: UnitId = UnitId(0);
/// Two entries of one line, one of the next line, and the doorbell far away.
const ENTRY: Pa = Pa(0x1000);
const NEIGHBOUR: Pa = Pa(0x1008);
const FARTHER: Pa = Pa(0x1040);
const DOORBELL: Pa = Pa(0x1800);

type Outcomes = BTreeSet<Vec<u64>>;

fn word(pa: Pa) -> Ptr<u64> {
    Ptr::from_pa(pa)
}

/// A machine with one unit and one frame of cleared words.
fn machine(core: Rc<Core>, model: MemoryModel, snoops: bool) -> Rc<Machine> {
    let mut memory = Memory::new(2);
    memory.frames[1].state = FrameState::Reserved;
    memory.ram.fill(Pa(0x1000), 4096, 0, true);
    let mut fabric = Fabric::new();
    fabric.add_unit(Unit::new(Capabilities { coherent: snoops, ..Capabilities::default() }, Params::default()));
    Machine::with_config(core, memory, fabric, Vec::new(), MachineConfig { model, ..MachineConfig::default() })
}

/// What the walker may read: `fetches` one after the other once it has looked at the doorbell.
fn outcomes<F: Future<Output = ()> + 'static>(
    model: MemoryModel,
    snoops: bool,
    driver: impl Fn(Cpu) -> F,
    fetches: &'static [Pa],
) -> Outcomes {
    let mut exhaustive = Exhaustive::new();
    let (mut outcomes, mut runs) = (Outcomes::new(), 0);
    while let Some(policy) = exhaustive.next_policy() {
        let core = Rc::new(Core::new(policy));
        let machine = machine(core.clone(), model, snoops);
        let mut engine = Engine::new(core.clone());
        machine.spawn_cpu(&engine, "driver", Group(0), &driver);
        let seen = Rc::new(RefCell::new(Vec::new()));
        let walker = {
            let (machine, seen) = (machine.clone(), seen.clone());
            async move {
                core.step(Op::new(OpKind::DmaRead, Object(DOORBELL.0), 8)).await;
                seen.borrow_mut().push(machine.memory().ram.load(DOORBELL, 8));
                for &pa in fetches {
                    core.step(machine.fetch_op(UNIT, pa, 8)).await;
                    let words = machine.fetch_words(UNIT, pa, 1).expect("there is memory");
                    seen.borrow_mut().push(words[0]);
                }
            }
        };
        engine.spawn("walker", HARDWARE, Life::Finite, walker);
        let mut burst = Burst::Spent;
        while burst == Burst::Spent && !exhaustive.is_redundant() {
            burst = engine.run(8);
        }
        if !exhaustive.is_redundant() {
            assert_eq!(burst, Burst::Finished);
            outcomes.insert(seen.take());
            runs += 1;
            assert!(runs < 1_000_000, "the search is larger than a litmus test should be");
        }
    }
    outcomes
}

fn set(outcomes: &[&[u64]]) -> Outcomes {
    outcomes.iter().map(|outcome| outcome.to_vec()).collect()
}

#[test]
fn an_entry_stored_before_the_doorbell_is_missed_by_a_walker_that_does_not_snoop() {
    let driver = |cpu: Cpu| async move {
        cpu.write(word(ENTRY), 1).await;
        cpu.smp_mb().await;
        cpu.write(word(DOORBELL), 1).await;
    };
    for model in MemoryModel::ALL {
        assert_eq!(outcomes(model, true, driver, &[ENTRY]), set(&[&[0, 0], &[0, 1], &[1, 1]]), "{model}, snooping");
        assert_eq!(outcomes(model, false, driver, &[ENTRY]), set(&[&[0, 0], &[0, 1], &[1, 0], &[1, 1]]), "{model}, not snooping");
    }
}

#[test]
fn an_entry_flushed_before_the_doorbell_is_seen() {
    let driver = |cpu: Cpu| async move {
        cpu.write(word(ENTRY), 1).await;
        cpu.clflush_cache_range(word(ENTRY), 8).await;
        cpu.write(word(DOORBELL), 1).await;
    };
    for model in MemoryModel::ALL {
        for snoops in [false, true] {
            assert_eq!(outcomes(model, snoops, driver, &[ENTRY]), set(&[&[0, 0], &[0, 1], &[1, 1]]), "{model}");
        }
    }
}

#[test]
fn a_flush_without_a_barrier_behind_it_promises_nothing() {
    let driver = |cpu: Cpu| async move {
        cpu.write(word(ENTRY), 1).await;
        cpu.smp_mb().await;
        cpu.flush_line(word(ENTRY));
        cpu.write(word(DOORBELL), 1).await;
    };
    for model in MemoryModel::ALL {
        assert!(outcomes(model, false, driver, &[ENTRY]).contains([1, 0].as_slice()), "{model}");
    }
}

#[test]
fn a_flush_takes_the_whole_line_and_no_other() {
    let driver = |cpu: Cpu| async move {
        cpu.write(word(NEIGHBOUR), 1).await;
        cpu.write(word(FARTHER), 1).await;
        cpu.clflush_cache_range(word(ENTRY), 8).await;
        cpu.write(word(DOORBELL), 1).await;
    };
    let seen = outcomes(MemoryModel::Sc, false, driver, &[NEIGHBOUR, FARTHER]);
    assert!(seen.iter().all(|outcome| outcome[0] == 0 || outcome[1] == 1), "the neighbour was flushed along: {seen:?}");
    assert!(seen.contains([1, 1, 0].as_slice()), "the next line was not: {seen:?}");
}

#[test]
fn lines_are_evicted_in_any_order_but_each_as_a_whole() {
    let one_line = |cpu: Cpu| async move {
        cpu.write(word(ENTRY), 1).await;
        cpu.write(word(NEIGHBOUR), 1).await;
    };
    let two_lines = |cpu: Cpu| async move {
        cpu.write(word(ENTRY), 1).await;
        cpu.write(word(FARTHER), 1).await;
    };
    for model in [MemoryModel::Sc, MemoryModel::Tso] {
        let newer_first = |driver_line: &dyn Fn() -> Outcomes| driver_line().contains([0, 1, 0].as_slice());
        assert!(!newer_first(&|| outcomes(model, false, one_line, &[NEIGHBOUR, ENTRY])), "{model}: one line keeps its order");
        assert!(newer_first(&|| outcomes(model, false, two_lines, &[FARTHER, ENTRY])), "{model}: two lines do not");
        assert!(outcomes(model, false, one_line, &[ENTRY, NEIGHBOUR]).contains([0, 1, 0].as_slice()), "{model}: evicted between the two");
    }
    // Out-of-order drains let the newer word of a line reach the cache first.
    assert!(outcomes(MemoryModel::Weak, false, one_line, &[NEIGHBOUR, ENTRY]).contains([0, 1, 0].as_slice()));
}

#[test]
fn store_buffers_drain_at_the_jump_and_dirty_lines_outlive_it() {
    for model in MemoryModel::ALL {
        let mut behind = 0;
        let mut exhaustive = Exhaustive::new();
        while let Some(policy) = exhaustive.next_policy() {
            let core = Rc::new(Core::new(policy));
            let machine = machine(core.clone(), model, false);
            let mut engine = Engine::new(core);
            machine.spawn_cpu(&engine, "old kernel", Group(0), |cpu| async move {
                cpu.write(word(ENTRY), 1).await;
                cpu.write(word(FARTHER), 2).await;
                cpu.machine.jump(&[Group(0)], |_, frame| frame.state);
            });
            while engine.run(8) == Burst::Spent {}
            let coherent = [ENTRY, FARTHER].map(|pa| machine.memory().ram.load(pa, 8));
            assert_eq!(coherent, [1, 2], "{model}: the next kernel sees every store of the old one");
            behind += u32::from(machine.fetch_words(UNIT, ENTRY, 1) == Some([0, 0]));
            assert!(machine.dirty_line_owner(FARTHER).is_none_or(|owner| owner == ActorId(0)));
        }
        assert!(behind > 0, "{model}: the walker still reads what memory had");
    }
}

#[test]
fn a_line_belongs_to_its_writer_from_the_drain_to_the_flush() {
    let driver = |cpu: Cpu| async move {
        cpu.write(word(ENTRY), 1).await;
        cpu.smp_mb().await;
        assert_eq!(cpu.machine.dirty_line_owner(ENTRY), Some(cpu.id()), "the line is dirty once the store has drained");
        cpu.clflush_cache_range(word(ENTRY), 8).await;
        assert_eq!(cpu.machine.dirty_line_owner(ENTRY), None);
    };
    for model in MemoryModel::ALL {
        assert_eq!(outcomes(model, false, driver, &[ENTRY]), set(&[&[0, 0], &[0, 1]]), "{model}");
    }
}

/// Two mappers and one table: the first installs it with an atomic operation, flushes the entry and marks it flushed; the second
/// finds it, stores its leaf below, flushes the leaf and rings the doorbell. Returns whether the walker ever finds the doorbell rung
/// and the table missing. ENTRY is the parent's entry, FARTHER the leaf.
fn walker_misses_the_table(model: MemoryModel, second_mapper_flushes: bool) -> bool {
    const TABLE: u64 = 1;
    const FLUSHED: u64 = 2;
    let first = move |cpu: Cpu| async move {
        cpu.machine.clone().spawn_from_step("second mapper", Group(0), Life::Finite, move |cpu| async move {
            let entry = cpu.read_once(word(ENTRY)).await;
            if entry & TABLE == 0 {
                return;
            }
            if entry & FLUSHED == 0 && second_mapper_flushes {
                cpu.clflush_cache_range(word(ENTRY), 8).await;
            }
            cpu.write_once(word(FARTHER), 1).await;
            cpu.clflush_cache_range(word(FARTHER), 8).await;
            cpu.write_once(word(DOORBELL), 1).await;
        });
        cpu.rmw(word(ENTRY), |_| Some(TABLE)).await;
        cpu.clflush_cache_range(word(ENTRY), 8).await;
        cpu.rmw(word(ENTRY), |entry| Some(entry | FLUSHED)).await;
    };
    outcomes(model, false, first, &[ENTRY]).iter().any(|outcome| outcome[0] == 1 && outcome[1] & TABLE == 0)
}

#[test]
fn who_maps_below_a_table_somebody_else_installed_must_flush_its_entry_or_find_it_flushed() {
    for model in MemoryModel::ALL {
        assert!(!walker_misses_the_table(model, true), "{model}");
        assert!(walker_misses_the_table(model, false), "{model}");
    }
}
