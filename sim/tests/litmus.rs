//! Litmus tests: for each memory model, the outcomes an exhaustive search finds are exactly the ones the model allows.
//!
//! Names and shapes are the usual ones (Alglave, Maranget and Tautschnig, "Herding cats", TOPLAS 2014; Sewell et al., "x86-TSO", CACM
//! 2010). An outcome is the registers in the order of the reads, then the final memory where a test asks for it. What is expected is
//! written as what is *forbidden* among all combinations of the values that the registers could hold.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use iommu_model::addr::Pa;
use sim::device::Fabric;
use sim::engine::{Burst, Core, Engine, Group};
use sim::machine::{Machine, MachineConfig};
use sim::memory::{FrameState, Memory, Ptr};
use sim::memory_model::MemoryModel::{self, Sc, Tso, Weak};
use sim::policy::{Exhaustive, Explorer};

/// A variable: its number; each lies in a line of its own.
type Var = u64;
const X: Var = 0;
const Y: Var = 1;
const Z: Var = 2;

/// One instruction of a litmus test.
#[derive(Clone, Copy, Debug)]
enum I {
    /// Plain store.
    W(Var, u64),
    /// Store-release.
    Rel(Var, u64),
    /// Plain load into the next register.
    R(Var),
    /// Load-acquire into the next register.
    Acq(Var),
    /// Load of a pointer into the next register, then a load through it into the one after; a null pointer gives 9.
    Deref(Var),
    /// Atomic exchange; the old value goes into the next register.
    Xchg(Var, u64),
    /// Full, write, read barrier.
    Mb,
    Wmb,
    Rmb,
}
use I::{Acq, Deref, Mb, R, Rel, Rmb, W, Wmb, Xchg};

type Outcomes = BTreeSet<Vec<u64>>;

fn at(var: Var) -> Ptr<u64> {
    Ptr::from_pa(Pa(0x1000 + var * 64))
}

/// One frame of cleared variables, and a free one.
fn memory() -> Memory {
    let mut memory = Memory::new(4);
    memory.frames[1].state = FrameState::Reserved;
    memory.frames[2].state = FrameState::Free;
    memory.ram.fill(Pa(0x1000), 4096, 0, true);
    memory
}

fn registers_of(program: &[I]) -> usize {
    program
        .iter()
        .map(|i| match i {
            R(_) | Acq(_) | Xchg(..) => 1,
            Deref(_) => 2,
            W(..) | Rel(..) | Mb | Wmb | Rmb => 0,
        })
        .sum()
}

/// Every outcome of the program under `model`, found by one run for each partial order; and the number of runs.
fn explore(model: MemoryModel, mut exhaustive: Exhaustive, threads: &[&'static [I]], finals: &[Var]) -> (Outcomes, u64) {
    let (mut outcomes, mut runs) = (Outcomes::new(), 0);
    while let Some(policy) = exhaustive.next_policy() {
        let core = Rc::new(Core::new(policy));
        let machine =
            Machine::with_config(core.clone(), memory(), Fabric::new(), Vec::new(), MachineConfig { model, ..MachineConfig::default() });
        let mut engine = Engine::new(core);
        let registers = Rc::new(RefCell::new(vec![u64::MAX; threads.iter().map(|program| registers_of(program)).sum()]));
        let mut first = 0;
        for (nth, &program) in threads.iter().enumerate() {
            let (registers, mut next) = (registers.clone(), first);
            first += registers_of(program);
            machine.spawn_cpu(&engine, &format!("P{nth}"), Group(0), move |cpu| async move {
                for &i in program {
                    let mut put = |value| {
                        registers.borrow_mut()[next] = value;
                        next += 1;
                    };
                    match i {
                        W(var, value) => cpu.write_once(at(var), value).await,
                        Rel(var, value) => cpu.store_release(at(var), value).await,
                        R(var) => put(cpu.read_once(at(var)).await),
                        Acq(var) => put(cpu.load_acquire(at(var)).await),
                        Xchg(var, value) => put(cpu.xchg(at(var), value).await),
                        Deref(var) => {
                            let pointer: Ptr<u64> = cpu.read_once(at(var).cast::<Ptr<u64>>()).await;
                            put(u64::from(!pointer.is_null()));
                            put(if pointer.is_null() { 9 } else { cpu.read_once(pointer).await });
                        }
                        Mb => cpu.smp_mb().await,
                        Wmb => cpu.smp_wmb(),
                        Rmb => cpu.smp_rmb(),
                    }
                }
            });
        }
        let mut burst = Burst::Spent;
        while burst == Burst::Spent && !exhaustive.is_redundant() {
            burst = engine.run(8);
        }
        if exhaustive.is_redundant() {
            continue;
        }
        assert_eq!(burst, Burst::Finished);
        machine.finish();
        let mut outcome = registers.borrow().clone();
        outcome.extend(finals.iter().map(|&var| machine.memory().ram.load(at(var).pa(), 8)));
        outcomes.insert(outcome);
        runs += 1;
        assert!(runs < 1_000_000, "the search is larger than a litmus test should be");
    }
    (outcomes, runs)
}

fn outcomes(model: MemoryModel, threads: &[&'static [I]], finals: &[Var]) -> Outcomes {
    explore(model, Exhaustive::new(), threads, finals).0
}

/// All combinations of the values in `domains`, without the `forbidden` ones.
fn all_but(domains: &[&[u64]], forbidden: &[&[u64]]) -> Outcomes {
    let mut all = vec![Vec::new()];
    for domain in domains {
        all = all.iter().flat_map(|head: &Vec<u64>| domain.iter().map(move |&value| [head.as_slice(), &[value]].concat())).collect();
    }
    all.into_iter().filter(|outcome| !forbidden.contains(&outcome.as_slice())).collect()
}

const BIT: &[u64] = &[0, 1];
const ONE_TWO: &[u64] = &[1, 2];

#[test]
fn sb_a_store_is_delayed_past_a_load_under_tso_and_weak_unless_a_full_barrier_stands_between() {
    let plain: &[&[I]] = &[&[W(X, 1), R(Y)], &[W(Y, 1), R(X)]];
    let fenced: &[&[I]] = &[&[W(X, 1), Mb, R(Y)], &[W(Y, 1), Mb, R(X)]];
    let one_fence: &[&[I]] = &[&[W(X, 1), Mb, R(Y)], &[W(Y, 1), R(X)]];
    let sequential = all_but(&[BIT, BIT], &[&[0, 0]]);
    assert_eq!(outcomes(Sc, plain, &[]), sequential);
    for model in [Tso, Weak] {
        assert_eq!(outcomes(model, plain, &[]), all_but(&[BIT, BIT], &[]), "{model}");
        assert_eq!(outcomes(model, one_fence, &[]), all_but(&[BIT, BIT], &[]), "{model}: one barrier is not enough");
        assert_eq!(outcomes(model, fenced, &[]), sequential, "{model} with barriers");
    }
}

#[test]
fn sb_release_and_acquire_do_not_forbid_what_a_locked_exchange_forbids() {
    let ordered: &[&[I]] = &[&[Rel(X, 1), Acq(Y)], &[Rel(Y, 1), Acq(X)]];
    let locked: &[&[I]] = &[&[Xchg(X, 1), R(Y)], &[Xchg(Y, 1), R(X)]];
    for model in [Tso, Weak] {
        assert_eq!(outcomes(model, ordered, &[]), all_but(&[BIT, BIT], &[]), "{model}");
        assert_eq!(outcomes(model, locked, &[]), all_but(&[&[0], BIT, &[0], BIT], &[&[0, 0, 0, 0]]), "{model}");
    }
}

#[test]
fn sb_with_forwarding_a_cpu_reads_its_own_store_early() {
    let test: &[&[I]] = &[&[W(X, 1), R(X), R(Y)], &[W(Y, 1), R(Y), R(X)]];
    let both_early: &[u64] = &[1, 0, 1, 0];
    assert_eq!(outcomes(Sc, test, &[]), all_but(&[&[1], BIT, &[1], BIT], &[both_early]));
    for model in [Tso, Weak] {
        assert_eq!(outcomes(model, test, &[]), all_but(&[&[1], BIT, &[1], BIT], &[]), "{model}");
    }
}

#[test]
fn mp_a_flag_overtakes_its_data_under_weak_unless_both_sides_are_ordered() {
    let plain: &[&[I]] = &[&[W(X, 1), W(Y, 1)], &[R(Y), R(X)]];
    let writer_ordered: &[&[I]] = &[&[W(X, 1), Wmb, W(Y, 1)], &[R(Y), R(X)]];
    let reader_ordered: &[&[I]] = &[&[W(X, 1), W(Y, 1)], &[R(Y), Rmb, R(X)]];
    let barriers: &[&[I]] = &[&[W(X, 1), Wmb, W(Y, 1)], &[R(Y), Rmb, R(X)]];
    let release_acquire: &[&[I]] = &[&[W(X, 1), Rel(Y, 1)], &[Acq(Y), R(X)]];
    let ordered = all_but(&[BIT, BIT], &[&[1, 0]]);
    for test in [plain, writer_ordered, reader_ordered, barriers, release_acquire] {
        assert_eq!(outcomes(Sc, test, &[]), ordered);
        assert_eq!(outcomes(Tso, test, &[]), ordered);
    }
    for test in [plain, writer_ordered, reader_ordered] {
        assert_eq!(outcomes(Weak, test, &[]), all_but(&[BIT, BIT], &[]), "{test:?}");
    }
    for test in [barriers, release_acquire] {
        assert_eq!(outcomes(Weak, test, &[]), ordered, "{test:?}");
    }
}

#[test]
fn mp_an_address_dependency_orders_the_reader_but_not_the_writer() {
    // The pointer in Y leads to Z.
    const POINTER: u64 = sim::memory::PAGE_OFFSET + 0x1000 + Z * 64;
    let ordered: &[&[I]] = &[&[W(Z, 1), Rel(Y, POINTER)], &[Deref(Y)]];
    let unordered: &[&[I]] = &[&[W(Z, 1), W(Y, POINTER)], &[Deref(Y)]];
    let initialised: Outcomes = [vec![0, 9], vec![1, 1]].into();
    let stale: Outcomes = [vec![0, 9], vec![1, 0], vec![1, 1]].into();
    for model in MemoryModel::ALL {
        assert_eq!(outcomes(model, ordered, &[]), initialised, "{model}");
        assert_eq!(outcomes(model, unordered, &[]), if model == Weak { stale.clone() } else { initialised.clone() }, "{model}");
    }
}

#[test]
fn lb_no_load_is_performed_after_a_later_store() {
    // Arm allows it; a program here needs a value before it can go on, as in RC11.
    let test: &[&[I]] = &[&[R(X), W(Y, 1)], &[R(Y), W(X, 1)]];
    for model in MemoryModel::ALL {
        assert_eq!(outcomes(model, test, &[]), all_but(&[BIT, BIT], &[&[1, 1]]), "{model}");
    }
}

#[test]
fn iriw_two_readers_disagree_about_two_stores_only_under_weak_and_only_unordered() {
    let plain: &[&[I]] = &[&[W(X, 1)], &[W(Y, 1)], &[R(X), R(Y)], &[R(Y), R(X)]];
    let acquire: &[&[I]] = &[&[W(X, 1)], &[W(Y, 1)], &[Acq(X), R(Y)], &[Acq(Y), R(X)]];
    let agreed = all_but(&[BIT, BIT, BIT, BIT], &[&[1, 0, 1, 0]]);
    assert_eq!(outcomes(Sc, plain, &[]), agreed);
    assert_eq!(outcomes(Tso, plain, &[]), agreed);
    assert_eq!(outcomes(Weak, plain, &[]), all_but(&[BIT, BIT, BIT, BIT], &[]));
    assert_eq!(outcomes(Weak, acquire, &[]), agreed, "the model is multi-copy atomic");
}

#[test]
fn r_the_last_store_is_delayed_past_the_load_under_tso_and_weak() {
    let plain: &[&[I]] = &[&[W(X, 1), W(Y, 1)], &[W(Y, 2), R(X)]];
    let fenced: &[&[I]] = &[&[W(X, 1), Mb, W(Y, 1)], &[W(Y, 2), Mb, R(X)]];
    let sequential = all_but(&[BIT, ONE_TWO], &[&[0, 2]]);
    assert_eq!(outcomes(Sc, plain, &[Y]), sequential);
    for model in [Tso, Weak] {
        assert_eq!(outcomes(model, plain, &[Y]), all_but(&[BIT, ONE_TWO], &[]), "{model}");
        assert_eq!(outcomes(model, fenced, &[Y]), sequential, "{model} with barriers");
    }
}

#[test]
fn two_plus_two_w_stores_drain_out_of_order_only_under_weak() {
    let plain: &[&[I]] = &[&[W(X, 1), W(Y, 2)], &[W(Y, 1), W(X, 2)]];
    let fenced: &[&[I]] = &[&[W(X, 1), Wmb, W(Y, 2)], &[W(Y, 1), Wmb, W(X, 2)]];
    let in_order = all_but(&[ONE_TWO, ONE_TWO], &[&[1, 1]]);
    assert_eq!(outcomes(Sc, plain, &[X, Y]), in_order);
    assert_eq!(outcomes(Tso, plain, &[X, Y]), in_order);
    assert_eq!(outcomes(Weak, plain, &[X, Y]), all_but(&[ONE_TWO, ONE_TWO], &[]));
    assert_eq!(outcomes(Weak, fenced, &[X, Y]), in_order);
}

#[test]
fn s_a_store_is_overwritten_by_an_older_one_only_under_weak() {
    let plain: &[&[I]] = &[&[W(X, 2), W(Y, 1)], &[R(Y), W(X, 1)]];
    let fenced: &[&[I]] = &[&[W(X, 2), Wmb, W(Y, 1)], &[R(Y), W(X, 1)]];
    let in_order = all_but(&[BIT, ONE_TWO], &[&[1, 2]]);
    assert_eq!(outcomes(Sc, plain, &[X]), in_order);
    assert_eq!(outcomes(Tso, plain, &[X]), in_order);
    assert_eq!(outcomes(Weak, plain, &[X]), all_but(&[BIT, ONE_TWO], &[]));
    assert_eq!(outcomes(Weak, fenced, &[X]), in_order);
}

#[test]
fn wrc_a_third_cpu_misses_what_the_second_has_seen_only_under_weak_and_only_unordered() {
    let plain: &[&[I]] = &[&[W(X, 1)], &[R(X), W(Y, 1)], &[R(Y), R(X)]];
    let ordered: &[&[I]] = &[&[W(X, 1)], &[R(X), Rel(Y, 1)], &[Acq(Y), R(X)]];
    let causal = all_but(&[BIT, BIT, BIT], &[&[1, 1, 0]]);
    assert_eq!(outcomes(Sc, plain, &[]), causal);
    assert_eq!(outcomes(Tso, plain, &[]), causal);
    assert_eq!(outcomes(Weak, plain, &[]), all_but(&[BIT, BIT, BIT], &[]));
    assert_eq!(outcomes(Weak, ordered, &[]), causal);
}

#[test]
fn corr_no_model_lets_one_word_go_backwards() {
    let one_writer: &[&[I]] = &[&[W(X, 1)], &[R(X), R(X)]];
    let two_writers: &[&[I]] = &[&[W(X, 1)], &[W(X, 2)], &[R(X), R(X)]];
    let own_store: &[&[I]] = &[&[W(X, 1), R(X)], &[W(X, 2)]];
    let read_then_write: &[&[I]] = &[&[R(X), W(X, 1)], &[W(X, 2)]];
    const THREE: &[u64] = &[0, 1, 2];
    for model in MemoryModel::ALL {
        assert_eq!(outcomes(model, one_writer, &[]), all_but(&[BIT, BIT], &[&[1, 0]]), "{model}");
        assert_eq!(outcomes(model, two_writers, &[]), all_but(&[THREE, THREE], &[&[1, 0], &[2, 0]]), "{model}");
        // Who reads 2 after its own store of 1 has seen 1 overwritten.
        assert_eq!(outcomes(model, own_store, &[X]), [vec![1, 1], vec![1, 2], vec![2, 2]].into(), "{model}");
        assert_eq!(outcomes(model, read_then_write, &[X]), [vec![0, 1], vec![0, 2], vec![2, 1]].into(), "{model}");
    }
}

#[test]
fn all_interleavings_give_the_outcomes_that_one_run_for_each_partial_order_gives() {
    let tests: [&[&[I]]; 3] =
        [&[&[W(X, 1), R(Y)], &[W(Y, 1), R(X)]], &[&[W(X, 1), W(Y, 1)], &[R(Y), R(X)]], &[&[W(X, 2), W(Y, 1)], &[R(Y), W(X, 1)]]];
    for model in MemoryModel::ALL {
        for test in tests {
            let (all, nr_all) = explore(model, Exhaustive::all_interleavings(), test, &[X, Y]);
            let (reduced, nr_reduced) = explore(model, Exhaustive::new(), test, &[X, Y]);
            assert_eq!(all, reduced, "{model}: {test:?}");
            assert!(nr_reduced < nr_all, "{model}: {nr_reduced} runs against {nr_all}");
        }
    }
}

#[test]
fn a_store_that_finds_the_buffer_full_waits_and_none_is_lost() {
    // More stores than any buffer holds, then a read of the other side's last one.
    const MANY: &[I] =
        &[W(X, 1), W(X, 2), W(X, 3), W(X, 4), W(X, 5), W(X, 6), W(X, 7), W(X, 8), W(X, 9), W(X, 10), W(X, 11), W(X, 12), R(X)];
    for model in MemoryModel::ALL {
        assert_eq!(outcomes(model, &[MANY], &[X]), [vec![12, 12]].into(), "{model}");
    }
}

#[test]
fn the_order_in_which_unrelated_stores_reached_memory_counts_for_who_reads_late() {
    // The reader sees Z, and so that X is stored; reads Y; and X as it was before. That needs Y to be stored before X, though no CPU
    // but the reader touches both: a search that takes the two stores for independent misses it.
    let test: &[&[I]] = &[&[W(X, 1), Wmb, W(Z, 1)], &[W(Y, 1)], &[R(Z), Acq(Y), R(X)]];
    let all: &[&[I]] = &[&[W(X, 1), Wmb, W(Z, 1)], &[W(Y, 1)], &[R(Z), Acq(Y), Rmb, R(X)]];
    assert_eq!(outcomes(Weak, test, &[]), all_but(&[BIT, BIT, BIT], &[]));
    assert_eq!(outcomes(Weak, all, &[]), all_but(&[BIT, BIT, BIT], &[&[1, 0, 0], &[1, 1, 0]]));
    assert_eq!(outcomes(Tso, test, &[]), all_but(&[BIT, BIT, BIT], &[&[1, 0, 0], &[1, 1, 0]]));
}

/// Two CPUs that each raise a flag, look at the other's, and go in when it is down. Returns whether both were inside in some
/// schedule, over all of them.
fn both_enter(model: MemoryModel, barrier: bool) -> bool {
    let program: [&'static [I]; 2] = match barrier {
        false => [&[W(X, 1), R(Y)], &[W(Y, 1), R(X)]],
        true => [&[W(X, 1), Mb, R(Y)], &[W(Y, 1), Mb, R(X)]],
    };
    outcomes(model, &program, &[]).contains(&vec![0, 0])
}

#[test]
fn a_lock_of_two_flags_is_broken_by_store_buffers_alone() {
    for model in MemoryModel::ALL {
        assert_eq!(both_enter(model, false), model != Sc, "{model}");
        assert!(!both_enter(model, true), "{model} with barriers");
    }
}

/// Fills an object that nobody else can reach and stores its address where another CPU looks: plainly, after a write barrier, or with
/// a release. Returns whether, in some schedule, the other one found the object without its content.
fn found_empty(model: MemoryModel, how: &'static str) -> bool {
    let mut exhaustive = Exhaustive::new();
    let empty = Rc::new(std::cell::Cell::new(false));
    while let Some(policy) = exhaustive.next_policy() {
        let core = Rc::new(Core::new(policy));
        let machine =
            Machine::with_config(core.clone(), memory(), Fabric::new(), Vec::new(), MachineConfig { model, ..MachineConfig::default() });
        machine.rebuild_free_lists();
        let mut engine = Engine::new(core);
        machine.spawn_cpu(&engine, "writer", Group(0), move |cpu| async move {
            let object = cpu.machine.take_object(64, sim::memory::Tag(1), sim::memory::Tag(2)).expect("there is memory");
            cpu.machine.fill_at_once(object, 64, 0);
            let object: Ptr<u64> = Ptr::from_pa(object);
            let before = cpu.machine.core.steps();
            cpu.write(object, 7).await;
            assert_eq!(cpu.machine.core.steps(), before, "nobody else can reach the object yet");
            assert_eq!(cpu.read(object).await, 7, "its own store a CPU always sees");
            match how {
                "plain" => cpu.write(at(X), object.value()).await,
                "barrier" => {
                    cpu.smp_wmb();
                    cpu.write(at(X), object.value()).await;
                }
                _ => cpu.store_release(at(X), object.value()).await,
            }
        });
        let found = empty.clone();
        machine.spawn_cpu(&engine, "reader", Group(0), move |cpu| async move {
            let object: Ptr<u64> = cpu.read_once(at(X).cast::<Ptr<u64>>()).await;
            if !object.is_null() && cpu.read_once(object).await == 0 {
                found.set(true);
            }
        });
        while engine.run(8) == Burst::Spent && !exhaustive.is_redundant() {}
        assert_eq!(machine.judge().finding(), None);
    }
    empty.get()
}

#[test]
fn an_object_published_without_a_barrier_is_found_empty_under_weak_alone() {
    for model in MemoryModel::ALL {
        assert_eq!(found_empty(model, "plain"), model == Weak, "{model}");
        assert!(!found_empty(model, "barrier"), "{model}");
        assert!(!found_empty(model, "release"), "{model}");
    }
}
