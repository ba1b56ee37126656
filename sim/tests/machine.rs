//! The machine under small programs: reachability, locks and their misuse, allocators, determinism.

use std::rc::Rc;

use iommu_model::addr::{Pa, Pfn};
use sim::alloc::Zone;
use sim::cpu::Cpu;
use sim::device::Fabric;
use sim::engine::{Burst, Core, Engine, Group};
use sim::machine::Machine;
use sim::memory::{FrameState, Memory, Ptr, Tag};
use sim::policy::{FaultPlan, PolicySpec, Profile};
use sim::sync::{Mutex, SpinLock};

const TAG: Tag = Tag(1);
const SLAB: Tag = Tag(2);

struct Rig {
    machine: Rc<Machine>,
    engine: Engine,
}

/// A machine of 64 free frames, frame 0 reserved and cleared: room for globals.
fn rig(seed: u64) -> Rig {
    let core = Rc::new(Core::new(PolicySpec::Uniform.build(seed, &Profile::default(), FaultPlan::Never)));
    let mut memory = Memory::new(64);
    for (index, frame) in memory.frames.iter_mut().enumerate() {
        frame.state = if index == 1 { FrameState::Reserved } else { FrameState::Free };
    }
    memory.ram.fill(Pa(0x1000), 4096, 0, true);
    let machine = Machine::new(core.clone(), memory, Fabric::new(), Vec::new(), false);
    machine.rebuild_free_lists();
    Rig { machine, engine: Engine::new(core) }
}

impl Rig {
    fn cpu<F: Future<Output = ()> + 'static>(&self, name: &str, program: impl FnOnce(Cpu) -> F) {
        self.machine.spawn_cpu(&self.engine, name, Group(0), program);
    }
    fn finding(&self) -> Option<(String, String)> {
        self.machine.judge().finding().map(|finding| (finding.property.to_owned(), finding.title.clone()))
    }
}

fn global(offset: u64) -> Ptr<u64> {
    Ptr::from_pa(Pa(0x1000 + offset))
}

#[test]
fn two_plain_increments_lose_an_update_in_some_schedule_and_a_mutex_prevents_it() {
    let mut lost = [0, 0];
    for locked in [false, true] {
        for seed in 0..200 {
            let mut rig = rig(seed);
            rig.cpu("init", |cpu| async move {
                let lock: Ptr<Mutex> = global(64).cast();
                cpu.init_lock(lock).await;
                let machine = cpu.machine.clone();
                for name in ["a", "b"] {
                    machine.spawn_from_step(name, Group(0), sim::engine::Life::Finite, move |cpu| async move {
                        if locked {
                            cpu.mutex_lock(lock).await;
                        }
                        let seen = cpu.read(global(0)).await;
                        cpu.write(global(0), seen + 1).await;
                        if locked {
                            cpu.mutex_unlock(lock).await;
                        }
                    });
                }
            });
            assert_eq!(rig.engine.run(1000), Burst::Finished);
            let value = rig.machine.memory().ram.load(Pa(0x1000), 8);
            lost[usize::from(locked)] += u32::from(value == 1);
        }
    }
    assert!(lost[0] > 20, "only {} of 200 schedules lost an update", lost[0]);
    assert_eq!(lost[1], 0, "the mutex lost updates");
}

#[test]
fn memory_is_private_until_its_address_is_stored_where_others_see_it() {
    let mut rig = rig(1);
    rig.cpu("owner", |cpu| async move {
        let pfn = cpu.machine.take_frames(0, Zone::Normal, TAG).expect("there is memory");
        let page: Ptr<u64> = Ptr::from_pa(Pa(pfn.0 << 12));
        let before = cpu.machine.core.steps();
        cpu.write(page, 7).await;
        assert_eq!(cpu.machine.core.steps(), before, "a private store is not a step");
        assert!(cpu.machine.memory().is_private(page.pa(), cpu.id()));
        cpu.write(global(8), page.value()).await;
        assert!(!cpu.machine.memory().is_private(page.pa(), cpu.id()));
        let before = cpu.machine.core.steps();
        cpu.write(page, 8).await;
        assert_eq!(cpu.machine.core.steps(), before + 1, "a store to published memory is a step");
    });
    assert_eq!(rig.engine.run(100), Burst::Finished);
}

#[test]
fn publishing_one_object_publishes_what_it_points_to() {
    let mut rig = rig(1);
    rig.cpu("owner", |cpu| async move {
        let machine = cpu.machine.clone();
        let inner = machine.take_object(32, TAG, SLAB).expect("there is memory");
        let outer = machine.take_object(64, TAG, SLAB).expect("there is memory");
        cpu.write(Ptr::<u64>::from_pa(outer), Ptr::<u64>::from_pa(inner).value()).await;
        assert!(machine.memory().is_private(inner, cpu.id()));
        // The frame number with flags in the low bits, as a table entry holds it, counts as well.
        cpu.write(global(8), Ptr::<u64>::from_pa(outer).value()).await;
        assert!(!machine.memory().is_private(inner, cpu.id()));
    });
    assert_eq!(rig.engine.run(100), Burst::Finished);
}

#[test]
fn a_use_after_free_of_an_object_is_found() {
    let mut rig = rig(1);
    rig.cpu("user", |cpu| async move {
        let object = cpu.machine.take_object(48, TAG, SLAB).expect("there is memory");
        cpu.machine.give_object(object);
        cpu.read(Ptr::<u64>::from_pa(object)).await;
    });
    assert_eq!(rig.engine.run(100), Burst::Halted);
    assert_eq!(rig.finding(), Some(("LIFE".into(), "use-after-free in read".into())));
}

#[test]
fn one_byte_beyond_the_requested_size_is_out_of_bounds() {
    let mut rig = rig(1);
    rig.cpu("user", |cpu| async move {
        let object = cpu.machine.take_object(40, TAG, SLAB).expect("there is memory");
        cpu.write(Ptr::<u64>::from_pa(Pa(object.0 + 32)), 1).await;
        cpu.write(Ptr::<u8>::from_pa(Pa(object.0 + 40)), 1).await;
    });
    assert_eq!(rig.engine.run(100), Burst::Halted);
    assert_eq!(rig.finding(), Some(("LIFE".into(), "slab-out-of-bounds in write".into())));
}

#[test]
fn reading_what_nobody_wrote_is_found() {
    let mut rig = rig(1);
    rig.cpu("user", |cpu| async move {
        let pfn = cpu.machine.take_frames(0, Zone::Normal, TAG).expect("there is memory");
        cpu.read(Ptr::<u64>::from_pa(Pa(pfn.0 << 12))).await;
    });
    assert_eq!(rig.engine.run(100), Burst::Halted);
    assert_eq!(rig.finding(), Some(("definedness".into(), "use-of-uninitialised-memory".into())));
}

#[test]
fn double_free_of_frames_and_of_objects_is_found() {
    let mut frames = rig(1);
    frames.cpu("user", |cpu| async move {
        let pfn = cpu.machine.take_frames(1, Zone::Normal, TAG).expect("there is memory");
        cpu.machine.give_frames(pfn, 1);
        cpu.machine.give_frames(Pfn(pfn.0), 0);
    });
    frames.engine.run(100);
    assert_eq!(frames.finding(), Some(("LIFE".into(), "double-free of a folio".into())));

    let mut objects = rig(1);
    objects.cpu("user", |cpu| async move {
        let object = cpu.machine.take_object(64, TAG, SLAB).expect("there is memory");
        cpu.machine.give_object(object);
        cpu.machine.give_object(object);
    });
    objects.engine.run(100);
    assert_eq!(objects.finding(), Some(("LIFE".into(), "double-free of a slab object".into())));
}

#[test]
fn sleeping_under_a_spinlock_is_found() {
    let mut rig = rig(1);
    rig.cpu("user", |cpu| async move {
        let (spin, mutex): (Ptr<SpinLock>, Ptr<Mutex>) = (global(64).cast(), global(72).cast());
        cpu.init_lock(spin).await;
        cpu.init_lock(mutex).await;
        cpu.spin_lock(spin).await;
        cpu.mutex_lock(mutex).await;
    });
    rig.engine.run(100);
    assert_eq!(rig.finding().expect("a finding").0, "P7");
}

#[test]
fn a_lock_nobody_initialised_and_a_held_lock_in_freed_memory_are_found() {
    let mut never = rig(1);
    never.cpu("user", |cpu| async move { cpu.mutex_lock(global(64).cast()).await });
    never.engine.run(100);
    assert_eq!(never.finding(), Some(("LOCK".into(), "lock was never initialised".into())));

    let mut freed = rig(1);
    freed.cpu("user", |cpu| async move {
        let object = cpu.machine.take_object(64, TAG, SLAB).expect("there is memory");
        let lock: Ptr<Mutex> = Ptr::from_pa(object);
        cpu.init_lock(lock).await;
        cpu.mutex_lock(lock).await;
        cpu.machine.give_object(object);
    });
    freed.engine.run(100);
    assert_eq!(freed.finding(), Some(("LOCK".into(), "held lock freed".into())));
}

#[test]
fn crossed_lock_order_deadlocks_in_some_schedule_and_says_so() {
    let mut deadlocks = 0;
    for seed in 0..50 {
        let mut rig = rig(seed);
        rig.cpu("init", |cpu| async move {
            let (a, b): (Ptr<Mutex>, Ptr<Mutex>) = (global(64).cast(), global(96).cast());
            cpu.init_lock(a).await;
            cpu.init_lock(b).await;
            for (first, second) in [(a, b), (b, a)] {
                cpu.machine.spawn_from_step("user", Group(0), sim::engine::Life::Finite, move |cpu| async move {
                    cpu.mutex_lock(first).await;
                    cpu.mutex_lock(second).await;
                    cpu.mutex_unlock(second).await;
                    cpu.mutex_unlock(first).await;
                });
            }
        });
        let burst = rig.engine.run(1000);
        if burst == Burst::Deadlock {
            assert_eq!(rig.engine.blocked().count(), 2);
            deadlocks += 1;
        } else {
            assert_eq!(burst, Burst::Finished);
        }
    }
    assert!(deadlocks > 0);
}

#[test]
fn a_forgotten_group_does_nothing_more() {
    let mut rig = rig(3);
    rig.cpu("reboot", |cpu| async move {
        cpu.machine.spawn_from_step("victim", Group(1), sim::engine::Life::Finite, |cpu| async move {
            loop {
                let seen = cpu.read(global(0)).await;
                cpu.write(global(0), seen + 1).await;
            }
        });
        for _ in 0..20 {
            cpu.relax().await;
        }
        cpu.machine.core.forget(Group(1));
        cpu.relax().await;
        let seen = cpu.read(global(0)).await;
        for _ in 0..20 {
            cpu.relax().await;
        }
        assert_eq!(cpu.read(global(0)).await, seen);
    });
    assert_eq!(rig.engine.run(10_000), Burst::Finished);
}

#[test]
fn free_blocks_merge_back_to_what_they_were() {
    let mut rig = rig(5);
    rig.cpu("user", |cpu| async move {
        let before = cpu.machine.memory().frames.iter().filter(|frame| frame.free_order == 6).count();
        let mut taken = Vec::new();
        while let Some(pfn) = cpu.machine.take_frames(0, Zone::Normal, TAG) {
            taken.push(pfn);
        }
        assert_eq!(taken.len(), 63, "every free frame can be had one by one");
        for pfn in taken {
            cpu.machine.give_frames(pfn, 0);
        }
        let after = cpu.machine.memory().frames.iter().filter(|frame| frame.free_order == 6).count();
        assert_eq!(before, after);
    });
    assert_eq!(rig.engine.run(100), Burst::Finished);
}

#[test]
fn the_same_seed_gives_the_same_trace_hash() {
    let hash = |seed| {
        let mut rig = rig(seed);
        for name in ["a", "b", "c"] {
            rig.cpu(name, |cpu| async move {
                for _ in 0..10 {
                    cpu.rmw(global(0), |old| Some(old + 1)).await;
                }
            });
        }
        rig.engine.run(1000);
        rig.machine.judge().hash()
    };
    assert_eq!(hash(1), hash(1));
    assert_ne!(hash(1), hash(2));
}
