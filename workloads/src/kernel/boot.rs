//! `start_kernel()` of both generations: memory, KHO, LUO, IOMMU, devices, userspace, in the kernel's order.

use std::rc::Rc;

use iommu_model::addr::Pa;
use sim::cpu::Cpu;

use super::{HandoverArgs, Kernel, Task};
use super::{iommu, kexec, kho, luo, mm, vfio};
use crate::run::Env;
use crate::userspace;
use crate::verb::Phase;

/// Boots a kernel of generation `era` whose image lies at `data`, then runs its userspace.
pub async fn start_kernel(cpu: Cpu, env: Rc<Env>, era: u8, data: Pa, handover: Option<HandoverArgs>) {
    let machine = cpu.machine.clone();
    let incoming = era > 0;
    let kernel = Kernel {
        rev: if incoming { env.incoming } else { env.outgoing },
        era,
        topo: env.plan.topo.clone(),
        data,
        memmap: mm::reserve_memmap(&machine, &env.plan.topo, era),
        handover,
        defects: env.defects,
        env: env.clone(),
    };
    let t = Task { cpu, k: Rc::new(kernel) };
    // Set-up of the first kernel is not what is searched: nothing else runs yet and nothing fails.
    machine.core.choices().borrow_mut().set_faults_off(!incoming);
    if incoming {
        t.phase(Phase::EarlyBoot);
        machine.set_scratch_only(true);
    } else {
        t.phase(Phase::ColdBoot);
    }
    mm::mm_init(&t).await;
    if incoming {
        kho::kho_memory_init(&t).await;
        t.phase(Phase::Boot);
    } else {
        machine.rebuild_free_lists();
    }
    kho::kho_init(&t).await;
    kexec::kexec_init(&t).await;
    luo::luo_early_startup(&t).await;
    iommu::iommu_init(&t).await;
    vfio::vfio_init(&t).await;
    t.phase(if incoming { Phase::Adopted } else { Phase::Running });
    luo::luo_late_startup(&t).await;
    machine.core.choices().borrow_mut().set_faults_off(false);
    userspace::init(t).await;
}
