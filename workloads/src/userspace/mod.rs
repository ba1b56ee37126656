//! Userspace: the update agent, one VMM a virtual machine, and neighbours. Its own variables are plain Rust: user memory is not
//! under test. What it does next is drawn from the scenario's weights, choice by choice.

mod agent;
mod call;
mod incoming;
mod neighbours;
mod vmm;

use std::cell::Cell;

use sim::engine::{ChoiceKind, Core, Object};

pub use call::{Call, Process};
pub(crate) use vmm::start_device;
pub use vmm::{Vm, VmState};

use crate::kernel::{Task, file};

/// First program of a booted kernel: the agent, outgoing or incoming.
pub async fn init(t: Task) {
    // A kernel that cannot start init is no subject of a search.
    t.machine.core.choices().borrow_mut().set_faults_off(true);
    let files = file::alloc_files(&t).await;
    t.machine.core.choices().borrow_mut().set_faults_off(false);
    if files.is_null() {
        t.panic("no memory for init").await;
        return;
    }
    let process = Process { t: t.clone(), files, hostile: false };
    if let Some(mailbox) = t.k.env.host.clone() {
        crate::host::serve(&process, &mailbox);
    } else {
        let group = crate::kernel::kexec::group_of(t.k.era);
        t.machine.clone().spawn_from_step("luod", group, sim::engine::Life::Finite, |cpu| async move {
            let process = process.on(cpu);
            if process.t.k.era == 0 {
                agent::run(process).await;
            } else {
                incoming::run(process).await;
            }
        });
    }
}

/// Draws true with a share of `weight` in `weight + 4`: weight 0 never, weight 4 every other time.
pub(crate) fn chance(core: &Core, weight: u8) -> bool {
    weight > 0 && core.odds(ChoiceKind::Workload, u32::from(weight) * 1024 / (u32::from(weight) + 4))
}

/// Draws a number below `n`.
pub(crate) fn below(core: &Core, n: u32) -> u32 {
    core.choose(ChoiceKind::Workload, n)
}

/// Counts the helpers a program started, so that it can wait for them (`pthread_join`).
#[derive(Default)]
pub struct Helpers {
    running: Cell<u32>,
}

impl Helpers {
    /// What a waiting program blocks on.
    const GONE: Object = Object::queue(0xfff);

    /// One more helper runs.
    pub fn started(&self) {
        self.running.set(self.running.get() + 1);
    }
    /// A helper ends.
    pub fn ended(&self, core: &Core) {
        self.running.set(self.running.get() - 1);
        core.wake(Self::GONE);
    }
    /// Waits until all helpers have ended.
    pub async fn join(&self, core: &Core) {
        while self.running.get() > 0 {
            core.block(Self::GONE).await;
        }
    }
}
