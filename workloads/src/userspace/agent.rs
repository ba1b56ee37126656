//! The update agent of the outgoing kernel: sets VMs up, preserves their files in a session, reboots; or aborts and goes on.

use std::rc::Rc;

use super::vmm::Vm;
use super::{Helpers, Process, below, chance, neighbours};
use crate::mark::Mark;
use crate::verb::{self, Phase};

/// Name of the agent's session.
pub(super) const SESSION: u64 = 1;

/// How often a failed or aborted attempt is repeated.
const ATTEMPTS: u32 = 2;

/// Runs the agent.
pub(super) async fn run(p: Process) {
    let env = p.t.k.env.clone();
    // The VMs run long before an update; what is searched begins with it.
    p.t.machine.core.choices().borrow_mut().set_faults_off(true);
    let mut vms = Vec::with_capacity(env.plan.vms.len());
    for (index, plan) in env.plan.vms.iter().enumerate() {
        vms.push(Vm::set_up(&p, index, plan).await);
    }
    p.t.machine.core.choices().borrow_mut().set_faults_off(false);
    update(&p, &vms, SESSION).await;
}

/// One update with its attempts, from any kernel that has running VMs.
pub(super) async fn update(p: &Process, vms: &[Vm], name: u64) {
    let env = p.t.k.env.clone();
    let weights = env.scenario.weights;
    let core = p.t.machine.core.clone();
    p.t.machine.note(verb::QUIESCENT, [0; 4]);
    for attempt in 0..ATTEMPTS {
        let helpers = Rc::new(Helpers::default());
        for vm in vms {
            if weights.map > 0 || weights.unmap > 0 {
                vm.spawn_guest(p, &helpers);
            }
        }
        neighbours::spawn(p, &helpers, vms);
        if attempt > 0 {
            p.t.mark(Mark::SecondUpdate);
        }
        let session = p.create_session(name).await;
        if session < 0 {
            helpers.join(&core).await;
            continue;
        }
        let mut errno = 0;
        for vm in vms {
            errno = vm.preserve(p, session).await;
            if errno != 0 {
                break;
            }
            if chance(&core, weights.abort) && below(&core, 4) == 0 {
                errno = 1;
                break;
            }
        }
        if errno == 0 {
            p.t.phase(Phase::Preserved);
            if weights.reboot > 0 && !chance(&core, weights.abort) {
                let loaded = p.kexec_load().await;
                if loaded == 0 {
                    p.reboot().await;
                    // Refused. What refused it may be over.
                    if below(&core, 2) == 1 {
                        p.reboot().await;
                    }
                }
            }
        }
        // Whatever went wrong, or nothing: the session is given up.
        p.close(session).await;
        p.t.mark(Mark::SessionAborted);
        p.t.phase(Phase::Running);
        helpers.join(&core).await;
        p.t.machine.note(verb::QUIESCENT, [0; 4]);
        for vm in vms {
            for _ in 0..below(&core, u32::from(weights.reuse) + 1) {
                vm.guest_operation(p, 0).await;
            }
        }
        if !chance(&core, weights.reuse.saturating_mul(4)) {
            break;
        }
    }
}
