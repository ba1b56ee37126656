//! The race detector in the machine: what it reports of small programs, over many schedules and under every memory model.

use iommu_model::addr::Pa;
use sim::bare::{Bare, BareOutcome};
use sim::cpu::Cpu;
use sim::engine::{Burst, Group, Life};
use sim::machine::MachineConfig;
use sim::memory::{Ptr, Tag};
use sim::memory_model::MemoryModel;
use sim::oracle::RaceRules;
use sim::policy::{Dpor, FaultPlan, PolicySpec, Profile};
use sim::sync::{Mutex, Refcount, RwSem, SpinLock, WaitQueue};

const SCHEDULES: u64 = 60;

/// A global word in the frame of globals.
fn global<T>(offset: u64) -> Ptr<T> {
    Ptr::from_pa(Pa(0x1000 + offset))
}

const LOCK: u64 = 0x100;
const DATA: u64 = 0x200;
const FLAG: u64 = 0x300;

/// Starts another program from inside a step.
fn start<F: Future<Output = ()> + 'static>(cpu: &Cpu, name: &str, program: impl FnOnce(Cpu) -> F) {
    cpu.machine.clone().spawn_from_step(name, Group(0), Life::Finite, program);
}

/// Runs `init`, which starts the others, under many schedules of every model. Titles of what was found, each once.
fn titles<F: Future<Output = ()> + 'static>(init: impl Fn(Cpu) -> F) -> Vec<String> {
    let mut titles = Vec::new();
    for (model, seed) in MemoryModel::ALL.into_iter().flat_map(|model| (0..SCHEDULES).map(move |seed| (model, seed))) {
        let policy = PolicySpec::Uniform.build(seed, &Profile::default(), FaultPlan::Never);
        let mut bare = Bare::new(policy, MachineConfig { model, races: Some(RaceRules::Strict), ..MachineConfig::default() });
        bare.spawn("init", &init);
        let BareOutcome { burst, finding, .. } = bare.run(100_000);
        assert!(matches!(burst, Burst::Finished | Burst::Halted), "{model}, seed {seed}: {burst:?}");
        if let Some(finding) = finding {
            let title = format!("{}: {}", finding.property, finding.title);
            if !titles.contains(&title) {
                titles.push(title);
            }
        }
    }
    titles
}

/// What protects the counter of [`counting`].
#[derive(Clone, Copy, PartialEq, Debug)]
enum Protection {
    None,
    Mutex,
    Spin,
    RwSem,
    Atomic,
}

/// Three programs add to one counter.
async fn counting(cpu: Cpu, protection: Protection) {
    cpu.init_lock(global::<u64>(LOCK)).await;
    for name in ["a", "b", "c"] {
        start(&cpu, name, move |cpu| async move {
            let _in = cpu.machine.enter("count");
            for _ in 0..3 {
                match protection {
                    Protection::Mutex => cpu.mutex_lock(global::<Mutex>(LOCK)).await,
                    Protection::Spin => cpu.spin_lock(global::<SpinLock>(LOCK)).await,
                    Protection::RwSem => cpu.down_write(global::<RwSem>(LOCK)).await,
                    Protection::None | Protection::Atomic => {}
                }
                if protection == Protection::Atomic {
                    cpu.rmw(global::<u64>(DATA), |seen| Some(seen + 1)).await;
                } else {
                    let seen = cpu.read(global::<u64>(DATA)).await;
                    cpu.write(global::<u64>(DATA), seen + 1).await;
                }
                match protection {
                    Protection::Mutex => cpu.mutex_unlock(global::<Mutex>(LOCK)).await,
                    Protection::Spin => cpu.spin_unlock(global::<SpinLock>(LOCK)).await,
                    Protection::RwSem => cpu.up_write(global::<RwSem>(LOCK)).await,
                    Protection::None | Protection::Atomic => {}
                }
            }
        });
    }
}

#[test]
fn locked_and_atomic_counters_do_not_race_and_an_unprotected_one_does() {
    for protection in [Protection::Mutex, Protection::Spin, Protection::RwSem, Protection::Atomic] {
        assert_eq!(titles(|cpu| counting(cpu, protection)), [""; 0], "{protection:?}");
    }
    assert_eq!(titles(|cpu| counting(cpu, Protection::None)), ["RACE: data-race in count / count"]);
}

#[test]
fn readers_under_a_read_lock_do_not_race_and_a_writer_that_takes_it_for_reading_does() {
    let program = |writer_excludes: bool| {
        move |cpu: Cpu| async move {
            let lock = global::<RwSem>(LOCK);
            cpu.init_lock(lock).await;
            for name in ["reader", "other reader"] {
                start(&cpu, name, move |cpu| async move {
                    cpu.down_read(lock).await;
                    cpu.read(global::<u64>(DATA)).await;
                    cpu.up_read(lock).await;
                });
            }
            start(&cpu, "writer", move |cpu| async move {
                if writer_excludes {
                    cpu.down_write(lock).await
                } else {
                    cpu.down_read(lock).await
                }
                cpu.write(global::<u64>(DATA), 1).await;
                if writer_excludes { cpu.up_write(lock).await } else { cpu.up_read(lock).await }
            });
        }
    };
    assert_eq!(titles(program(true)), [""; 0]);
    assert_eq!(titles(program(false)), ["RACE: data-race in ? / ?"]);
}

#[test]
fn what_is_stored_before_a_release_may_be_read_after_the_acquire() {
    let program = |released: bool| {
        move |cpu: Cpu| async move {
            start(&cpu, "writer", move |cpu| async move {
                let _in = cpu.machine.enter("publish");
                cpu.write(global::<u64>(DATA), 7).await;
                if released { cpu.store_release(global::<u64>(FLAG), 1).await } else { cpu.write_once(global::<u64>(FLAG), 1).await }
            });
            start(&cpu, "reader", move |cpu| async move {
                let _in = cpu.machine.enter("consume");
                if cpu.load_acquire(global::<u64>(FLAG)).await == 1 {
                    cpu.read(global::<u64>(DATA)).await;
                }
            });
        }
    };
    assert_eq!(titles(program(true)), [""; 0]);
    assert_eq!(titles(program(false)), ["RACE: data-race in consume / publish"]);
}

#[test]
fn an_object_handed_over_by_its_last_reference_does_not_race_with_its_next_life() {
    let program = |cpu: Cpu| async move {
        let object = cpu.machine.take_object(64, Tag(1), Tag(2)).expect("there is memory");
        let (count, data): (Ptr<Refcount>, Ptr<u64>) = (Ptr::from_pa(object), Ptr::from_pa(Pa(object.0 + 8)));
        cpu.refcount_set(count, 2).await;
        cpu.write(data, 1).await;
        for name in ["a", "b"] {
            start(&cpu, name, move |cpu| async move {
                cpu.read(data).await;
                if cpu.refcount_dec_and_test(count).await == Ok(true) {
                    cpu.write(data, 0).await;
                    cpu.smp_mb().await;
                    cpu.machine.give_object(object);
                    let next = cpu.machine.take_object(64, Tag(1), Tag(2)).expect("there is memory");
                    cpu.write(Ptr::<u64>::from_pa(Pa(next.0 + 8)), 2).await;
                }
            });
        }
    };
    assert_eq!(titles(program), [""; 0]);
}

#[test]
fn who_was_woken_sees_what_the_waker_stored() {
    let program = |cpu: Cpu| async move {
        start(&cpu, "sleeper", |cpu| async move {
            while cpu.read_once(global::<u64>(FLAG)).await == 0 {
                cpu.sleep_on(global::<WaitQueue>(LOCK)).await;
            }
            cpu.smp_rmb();
            cpu.read(global::<u64>(DATA)).await;
        });
        start(&cpu, "waker", |cpu| async move {
            cpu.write(global::<u64>(DATA), 7).await;
            cpu.store_release(global::<u64>(FLAG), 1).await;
            cpu.wake_up(global::<WaitQueue>(LOCK)).await;
        });
    };
    assert_eq!(titles(program), [""; 0]);
}

#[test]
fn the_next_kernel_does_not_race_with_the_one_before() {
    let program = |cpu: Cpu| async move {
        start(&cpu, "old", |cpu| async move {
            cpu.write(global::<u64>(DATA), 1).await;
            cpu.machine.jump(&[], |_, frame| frame.state);
            cpu.machine.clone().spawn_from_step("new", Group(1), Life::Finite, |cpu| async move {
                cpu.write(global::<u64>(DATA), 2).await;
            });
        });
    };
    assert_eq!(titles(program), [""; 0]);
}

#[test]
fn a_flag_behind_a_barrier_hands_its_data_over() {
    let program = |barrier: &'static str| {
        move |cpu: Cpu| async move {
            start(&cpu, "writer", move |cpu| async move {
                cpu.write(global::<u64>(DATA), 7).await;
                match barrier {
                    "full" => cpu.smp_mb().await,
                    "write" => cpu.smp_wmb(),
                    _ => cpu.smp_rmb(),
                }
                cpu.write_once(global::<u64>(FLAG), 1).await;
            });
            start(&cpu, "reader", |cpu| async move {
                if cpu.read_once(global::<u64>(FLAG)).await == 1 {
                    cpu.smp_rmb();
                    cpu.read(global::<u64>(DATA)).await;
                }
            });
        }
    };
    assert_eq!(titles(program("full")), [""; 0]);
    assert_eq!(titles(program("write")), [""; 0]);
    assert_eq!(titles(program("read")), ["RACE: data-race in ? / ?"]);
}

#[test]
fn who_joins_sees_what_the_joined_ones_stored_and_who_does_not_join_races() {
    let program = |joins: bool| {
        move |cpu: Cpu| async move {
            cpu.write(global::<u64>(DATA), 1).await;
            let mut started = Vec::new();
            for number in 0..2 {
                let program = move |cpu: Cpu| async move {
                    let own = global::<u64>(DATA + 64 * number);
                    let seen = cpu.read(own).await;
                    cpu.write(own, seen + 1).await;
                };
                started.push(cpu.start("child", Group(0), program).await);
            }
            for program in started.iter().filter(|_| joins) {
                cpu.join(program).await;
            }
            assert!(!joins || cpu.read(global::<u64>(DATA)).await == 2, "the joiner sees the last store");
            cpu.write(global::<u64>(DATA + 64), 5).await;
        }
    };
    assert_eq!(titles(program(true)), [""; 0]);
    assert_eq!(titles(program(false)), ["RACE: data-race in ? / ?"]);
}

#[test]
fn a_lock_made_of_an_exchange_and_a_release_store_orders() {
    let program = |released: bool| {
        move |cpu: Cpu| async move {
            for name in ["a", "b"] {
                start(&cpu, name, move |cpu| async move {
                    let lock = global::<u64>(FLAG);
                    while cpu.cmpxchg(lock, 0, 1).await != 0 {
                        cpu.spin_until(lock, |seen| seen == 0).await;
                    }
                    let seen = cpu.read(global::<u64>(DATA)).await;
                    cpu.write(global::<u64>(DATA), seen + 1).await;
                    if released { cpu.store_release(lock, 0).await } else { cpu.write_once(lock, 0).await }
                });
            }
        }
    };
    assert_eq!(titles(program(true)), [""; 0]);
    assert_eq!(titles(program(false)), ["RACE: data-race in ? / ?"]);
}

#[test]
fn a_release_that_drains_after_another_store_to_its_flag_still_orders() {
    // Under store buffers the plain-marked 2 may be made after the release of 1, and reach memory before it.
    let program = |cpu: Cpu| async move {
        start(&cpu, "writer", |cpu| async move {
            cpu.write(global::<u64>(DATA), 7).await;
            cpu.store_release(global::<u64>(FLAG), 1).await;
        });
        start(&cpu, "other writer", |cpu| async move { cpu.write_once(global::<u64>(FLAG), 2).await });
        start(&cpu, "reader", |cpu| async move {
            if cpu.load_acquire(global::<u64>(FLAG)).await == 1 {
                cpu.read(global::<u64>(DATA)).await;
            }
        });
    };
    assert_eq!(titles(program), [""; 0]);
}

#[test]
fn every_order_of_a_small_program_is_judged() {
    // One class in which the reader comes late, and one in which it comes early; both race, whatever the order.
    for (locked, bugs) in [(true, false), (false, true)] {
        let config = MachineConfig { races: Some(RaceRules::Strict), ..MachineConfig::default() };
        let explored = Bare::explore(
            &mut Dpor::new(),
            config,
            |bare| {
                for name in ["a", "b"] {
                    bare.spawn(name, move |cpu| async move {
                        if locked {
                            cpu.rmw(global::<u64>(DATA), |seen| Some(seen + 1)).await;
                        } else {
                            cpu.write(global::<u64>(DATA), 1).await;
                        }
                    });
                }
            },
            |bare, ()| assert!(bare.final_word(DATA / 64) > 0),
        );
        assert_eq!((explored.runs, explored.bugs, explored.complete), (2, if bugs { 2 } else { 0 }, true));
    }
}
