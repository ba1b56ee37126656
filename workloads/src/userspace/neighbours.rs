//! Neighbours of the update: other sessions, hostile callers, and unrelated users of the allocator.

use std::rc::Rc;

use sim::engine::Life;

use super::vmm::{Vm, tokens};
use super::{Helpers, Process, below, chance};
use crate::errno::ENOENT;
use crate::kernel::kexec::group_of;
use crate::kernel::mm::{self, Gfp};
use crate::tag;

/// Starts the neighbours the scenario's weights ask for.
pub(super) fn spawn(p: &Process, helpers: &Rc<Helpers>, vms: &[Vm]) {
    let core = p.t.machine.core.clone();
    let weights = p.t.k.env.scenario.weights;
    if chance(&core, weights.other_session) {
        start(p, helpers, "other-session", other_session);
    }
    if chance(&core, weights.bad_arguments) {
        let vm = vms.first().cloned();
        start(p, helpers, "hostile", move |p| hostile(p, vm));
    }
    if chance(&core, weights.pressure) {
        start(p, helpers, "pressure", pressure);
    }
}

fn start<F: Future<Output = ()> + 'static>(p: &Process, helpers: &Rc<Helpers>, name: &str, program: impl FnOnce(Process) -> F + 'static) {
    helpers.started();
    let (process, helpers) = (p.clone(), helpers.clone());
    let group = group_of(p.t.k.era);
    p.t.machine.clone().spawn_from_step(name, group, Life::Finite, move |cpu| async move {
        let process = process.on(cpu);
        let core = process.t.machine.core.clone();
        program(process).await;
        helpers.ended(&core);
    });
}

/// Name of the neighbour's session.
pub(super) const OTHER_SESSION: u64 = 7;

const OTHER_TOKEN: u64 = 99;
/// Name of the session the hostile caller creates.
const HOSTILE_SESSION: u64 = 9;

/// Another session with a memfd of its own, closed again; an update may carry it over.
async fn other_session(p: Process) {
    let session = p.create_session(OTHER_SESSION).await;
    if session < 0 {
        return;
    }
    let memfd = p.memfd_create(1 + below(&p.t.machine.core, 2)).await;
    if memfd >= 0 {
        p.preserve_fd(session, memfd, OTHER_TOKEN).await;
        p.t.relax().await;
    }
    p.close(session).await;
    if memfd >= 0 {
        p.close(memfd).await;
    }
}

/// The neighbour's session in the incoming kernel, if the update carried it over: its file may be taken back, then it is finished.
/// False when something of it is left.
pub(super) async fn finish_other_session(p: &Process) -> bool {
    let mut guess = p.clone();
    guess.hostile = true;
    let session = guess.retrieve_session(OTHER_SESSION).await;
    if session < 0 {
        return session == ENOENT;
    }
    let memfd = if below(&p.t.machine.core, 2) == 1 { guess.retrieve_fd(session, OTHER_TOKEN).await } else { -1 };
    let finished = p.finish(session).await == 0;
    p.close(session).await;
    if memfd >= 0 {
        p.close(memfd).await;
    }
    finished
}

/// Stale, duplicate and never-issued arguments.
async fn hostile(mut p: Process, vm: Option<Vm>) {
    p.hostile = true;
    let core = p.t.machine.core.clone();
    for _ in 0..2 {
        match below(&core, 6) {
            0 => {
                p.preserve_fd(99, 98, 1).await;
            }
            1 => {
                // A name of its own, twice: the second time it is taken.
                let fds = [p.create_session(HOSTILE_SESSION).await, p.create_session(HOSTILE_SESSION).await];
                for fd in fds {
                    if fd >= 0 {
                        p.close(fd).await;
                    }
                }
            }
            2 => {
                p.retrieve_session(1234).await;
            }
            3 => {
                if let Some(vm) = &vm {
                    p.hwpt_mark(vm.iommufd, vm.hwpt, super::vmm::hwpt_token(vm.index)).await;
                }
            }
            4 => {
                if let Some(vm) = &vm {
                    steal(&p, vm).await;
                }
            }
            _ => {
                p.close(97).await;
            }
        }
    }
}

/// Preserves a file of the VM in a session of its own, under the VM's token: whoever comes second is refused, and a file that needs
/// another one does not find it here.
async fn steal(p: &Process, vm: &Vm) {
    let session = p.create_session(HOSTILE_SESSION).await;
    if session < 0 {
        return;
    }
    let which = below(&p.t.machine.core, 3) as usize;
    let fd = [vm.memfd, vm.iommufd, vm.vfio][which];
    p.preserve_fd(session, fd, tokens(vm.index)[which]).await;
    p.close(session).await;
}

/// An unrelated driver that allocates, writes and frees pages: what is freed too early is soon somebody else's.
pub(super) async fn pressure(p: Process) {
    let t = &p.t;
    for _ in 0..3 {
        let page = mm::alloc_pages(t, Gfp::Kernel, below(&t.machine.core, 2) as u8, true, tag::OTHER).await;
        if page.is_null() {
            continue;
        }
        let at = mm::page_address::<u64>(t, page);
        t.write(at, 0x5a5a_5a5a_5a5a_5a5a).await;
        t.relax().await;
        mm::folio_put(t, page).await;
    }
}
