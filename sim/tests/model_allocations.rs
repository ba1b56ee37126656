//! Once a machine is warm, no step allocates: under any memory model, with dirty lines, with the race detector. A test binary of its
//! own: the counting allocator serves a whole process.

use std::rc::Rc;

use iommu_model::addr::Pa;
use iommu_model::timing::Params;
use iommu_model::vtd::{Capabilities, Unit};
use sim::cpu::Cpu;
use sim::device::Fabric;
use sim::engine::{Burst, Core, Engine, Group};
use sim::machine::{Machine, MachineConfig};
use sim::memory::{FrameState, Memory, Ptr};
use sim::memory_model::MemoryModel;
use sim::oracle::RaceRules;
use sim::policy::{FaultPlan, PolicySpec, Profile};
use sim::sync::SpinLock;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const CPUS: u64 = 4;
/// Steps in which everything is touched once. The list of choices has room for these and for the measured ones.
const WARM_UP: u64 = 3000;
/// Steps that are measured.
const STEPS: u64 = 1500;

/// Accesses of every kind, for ever.
async fn work(cpu: Cpu, me: u64) {
    let word = |offset: u64| Ptr::<u64>::from_pa(Pa(0x1000 + offset));
    let lock: Ptr<SpinLock> = word(0x800).cast();
    for round in 0u64.. {
        cpu.write_once(word(round % 8 * 64), me).await;
        cpu.read_once(word((round + 3) % 8 * 64)).await;
        cpu.store_release(word(0x400), round).await;
        cpu.load_acquire(word(0x400)).await;
        cpu.smp_wmb();
        cpu.smp_rmb();
        cpu.rmw(word(0x440), |seen| Some(seen + 1)).await;
        cpu.spin_lock(lock).await;
        let seen = cpu.read(word(0x480)).await;
        cpu.write(word(0x480), seen + 1).await;
        cpu.spin_unlock(lock).await;
        cpu.clflush_cache_range(word(0x480), 8).await;
    }
}

#[test]
fn a_warm_machine_allocates_nothing_a_step() {
    let _profiler = dhat::Profiler::builder().testing().build();
    for model in MemoryModel::ALL {
        for (snoops, races) in [(true, None), (false, None), (true, Some(RaceRules::Strict))] {
            let core = Rc::new(Core::new(PolicySpec::Uniform.build(1, &Profile::default(), FaultPlan::Never)));
            let mut memory = Memory::new(2);
            memory.frames[1].state = FrameState::Reserved;
            memory.ram.fill(Pa(0x1000), 4096, 0, true);
            let mut fabric = Fabric::new();
            fabric.add_unit(Unit::new(Capabilities { coherent: snoops, ..Capabilities::default() }, Params::default()));
            let config = MachineConfig { model, races, ..MachineConfig::default() };
            let machine = Machine::with_config(core.clone(), memory, fabric, Vec::new(), config);
            let mut engine = Engine::new(core);
            machine.spawn_cpu(&engine, "init", Group(0), |cpu| async move {
                cpu.init_lock(Ptr::<SpinLock>::from_pa(Pa(0x1800))).await;
                for me in 0..CPUS {
                    let name = format!("cpu{me}");
                    cpu.machine.clone().spawn_from_step(&name, Group(0), sim::engine::Life::Finite, move |cpu| work(cpu, me));
                }
            });
            assert_eq!(engine.run(WARM_UP), Burst::Spent);
            let before = dhat::HeapStats::get().total_blocks;
            assert_eq!(engine.run(STEPS), Burst::Spent);
            let blocks = dhat::HeapStats::get().total_blocks - before;
            assert_eq!(machine.judge().finding(), None);
            assert_eq!(blocks, 0, "{model}, snooping {snoops}, races {races:?}: {blocks} blocks in {STEPS} steps");
        }
    }
}
