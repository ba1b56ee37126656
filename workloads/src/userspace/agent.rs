//! The update agent of the outgoing kernel: sets VMs up, preserves their files in a session, reboots; or aborts and goes on.

use std::rc::Rc;

use super::vmm::Vm;
use super::{Helpers, Process, below, chance, neighbours};
use crate::errno::ECANCELED;
use crate::mark::Mark;
use crate::verb::{self, Phase};

/// Name of the session that all VMs share.
pub(super) const SESSION: u64 = 1;

/// Name of the first VM's session when each has its own; the others follow.
const OWN_SESSION: u64 = 0x100;

/// Arguments of QUIESCENT when userspace has nothing open.
const NOTHING_OPEN: [u64; 4] = [0, 1, 0, 0];

/// How often a failed or aborted attempt is repeated.
const ATTEMPTS: u32 = 2;

/// Runs the agent.
pub(super) async fn run(p: Process) {
    let env = p.t.k.env.clone();
    // The VMs run long before an update; what is searched begins with it.
    p.t.machine.core.choices().borrow_mut().set_faults_off(true);
    p.t.machine.note(verb::QUIESCENT, NOTHING_OPEN);
    let mut vms = Vec::with_capacity(env.plan.vms.len());
    for (index, plan) in env.plan.vms.iter().enumerate() {
        // One that finds no memory does not come up.
        vms.extend(Vm::set_up(&p, index, plan).await);
    }
    p.t.machine.core.choices().borrow_mut().set_faults_off(false);
    update(&p, &vms).await;
    let weights = env.scenario.weights;
    if chance(&p.t.machine.core, weights.abort.saturating_add(weights.reuse)) {
        end(&p, &vms).await;
    }
}

/// The last close: the VMs end here, nothing of them may be left.
pub(super) async fn end(p: &Process, vms: &[Vm]) {
    for vm in vms {
        vm.tear_down(p).await;
    }
    p.t.machine.note(verb::QUIESCENT, NOTHING_OPEN);
}

/// One update with its attempts, from any kernel that has running VMs.
pub(super) async fn update(p: &Process, vms: &[Vm]) {
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
        let mut sessions = Vec::with_capacity(vms.len());
        let errno = preserve_all(p, vms, &mut sessions).await;
        if errno == 0 {
            p.t.phase(Phase::Preserved);
            if weights.reboot > 0 && !chance(&core, weights.abort) {
                // Somebody else who holds the last session gives it up while the machine reboots.
                if chance(&core, weights.abort) && below(&core, 2) == 1 {
                    neighbours::spawn_close(p, &helpers, sessions.pop());
                }
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
        // Whatever went wrong, or nothing: the sessions are given up.
        for session in sessions {
            p.close(session).await;
            p.t.mark(Mark::SessionAborted);
        }
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

/// Preserves every VM, in one session or each in its own; `sessions` are those left open. A VM may be withdrawn again while the
/// others stay. The first error, or a change of mind, ends it.
async fn preserve_all(p: &Process, vms: &[Vm], sessions: &mut Vec<i32>) -> i32 {
    let env = p.t.k.env.clone();
    let weights = env.scenario.weights;
    let core = p.t.machine.core.clone();
    let own = vms.len() > 1 && weights.other_session > 0 && below(&core, 2) == 1;
    (0..env.plan.vms.len()).for_each(|index| env.vm(index).session = None);
    if !own {
        let session = p.create_session(SESSION).await;
        if session < 0 {
            return session;
        }
        sessions.push(session);
    }
    for vm in vms {
        let name = if own { OWN_SESSION + vm.index as u64 } else { SESSION };
        if own {
            let session = p.create_session(name).await;
            if session < 0 {
                return session;
            }
            sessions.push(session);
        }
        let session = sessions[sessions.len() - 1];
        let errno = vm.preserve(p, session).await;
        if errno != 0 {
            return errno;
        }
        env.vm(vm.index).session = Some(name);
        if chance(&core, weights.abort) && below(&core, 4) == 0 {
            if !own || below(&core, 2) == 0 {
                return ECANCELED;
            }
            env.vm(vm.index).session = None;
            sessions.pop();
            p.close(session).await;
            p.t.mark(Mark::SessionAborted);
        }
    }
    0
}
