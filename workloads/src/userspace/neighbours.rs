//! Neighbours of the update: other sessions, hostile callers, and unrelated users of the allocator.

use std::rc::Rc;

use iommu_model::addr::Iova;
use sim::engine::Life;

use super::vmm::{Vm, device_token, tokens};
use super::{Helpers, Process, below, chance};
use crate::errno::ENOENT;
use crate::kernel::kexec::group_of;
use crate::kernel::mm::{self, Gfp};
use crate::mark::Mark;
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

/// Starts a program that closes a session.
pub(super) fn spawn_close(p: &Process, helpers: &Rc<Helpers>, session: Option<i32>) {
    if let Some(session) = session {
        start(p, helpers, "closer", move |p| async move {
            p.close(session).await;
            p.t.mark(Mark::SessionAborted);
        });
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

/// Tries to change the size of memory that is preserved, or was to be.
async fn resize(p: &Process, memfd: i32) {
    let mut p = p.clone();
    p.hostile = true;
    match below(&p.t.machine.core, 3) {
        0 => p.fallocate(memfd, 0, 2).await,
        1 => p.punch_hole(memfd, 0, 1).await,
        _ => p.ftruncate(memfd, 0).await,
    };
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
        if below(&p.t.machine.core, 2) == 1 {
            resize(&p, memfd).await;
        }
        p.t.relax().await;
    }
    p.close(session).await;
    if memfd >= 0 {
        p.close(memfd).await;
    }
}

/// The neighbours' sessions in the incoming kernel, if the update carried them over. False when something of them is left.
pub(super) async fn finish_other_sessions(p: &Process) -> bool {
    let hostile = p.t.k.env.scenario.weights.bad_arguments > 0;
    finish_session(p, OTHER_SESSION).await & (!hostile || finish_session(p, HOSTILE_SESSION).await)
}

/// A session that may have come over: its file may be taken back, then it is finished.
async fn finish_session(p: &Process, name: u64) -> bool {
    let mut guess = p.clone();
    guess.hostile = true;
    let session = guess.retrieve_session(name).await;
    if session < 0 {
        return session == ENOENT;
    }
    let memfd = if below(&p.t.machine.core, 2) == 1 { guess.retrieve_fd(session, OTHER_TOKEN).await } else { -1 };
    let finished = p.finish(session, false).await == 0;
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
        match below(&core, 9) {
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
                    p.hwpt_mark(vm.iommufd, vm.hwpts[0], super::vmm::hwpt_token(vm.index, 0)).await;
                }
            }
            4 => {
                if let Some(vm) = &vm {
                    steal(&p, vm).await;
                }
            }
            5 => wrong_way(&p).await,
            6 => {
                if let Some(vm) = &vm {
                    wrong_kinds(&p, vm).await;
                }
            }
            7 => {
                if let Some(vm) = &vm {
                    // Both are in use.
                    p.iommufd_destroy(vm.iommufd, vm.ioas).await;
                    p.iommufd_destroy(vm.iommufd, vm.hwpts[0]).await;
                }
            }
            _ => {
                p.close(97).await;
            }
        }
    }
}

/// Treats an outgoing session as an incoming one, and preserves the session itself.
async fn wrong_way(p: &Process) {
    let session = p.create_session(HOSTILE_SESSION).await;
    if session < 0 {
        return;
    }
    p.retrieve_fd(session, OTHER_TOKEN).await;
    p.finish(session, false).await;
    p.preserve_fd(session, session, OTHER_TOKEN).await;
    p.close(session).await;
}

/// Passes each descriptor where another kind is wanted.
async fn wrong_kinds(p: &Process, vm: &Vm) {
    p.preserve_fd(vm.memfd, vm.memfd, OTHER_TOKEN).await;
    p.vfio_bind(vm.memfd, vm.iommufd).await;
    p.vfio_bind(vm.vfios[0], vm.memfd).await;
    p.vfio_attach(vm.iommufd, vm.hwpts[0]).await;
    p.vfio_attach(vm.vfios[0], vm.ioas).await;
    p.ioas_map(vm.iommufd, vm.hwpts[0], vm.memfd, 0, 1, Iova(0x7000_0000)).await;
    p.ioas_map(vm.iommufd, vm.ioas, vm.iommufd, 0, 1, Iova(0x7000_0000)).await;
    p.hwpt_alloc(vm.iommufd, vm.ioas, vm.ioas).await;
}

/// Treats an incoming session as an outgoing one, takes a file back twice, and finishes too early.
pub(super) async fn meddle(p: &Process, session: i32, token: u64) {
    let mut p = p.clone();
    p.hostile = true;
    let fd = p.retrieve_fd(session, token).await;
    if fd >= 0 {
        p.preserve_fd(session, fd, OTHER_TOKEN).await;
        p.close(fd).await;
    }
    p.finish(session, false).await;
}

/// Preserves a file of the VM in a session of its own, under the VM's token: whoever comes second is refused, and a file that needs
/// another one does not find it here.
async fn steal(p: &Process, vm: &Vm) {
    let session = p.create_session(HOSTILE_SESSION).await;
    if session < 0 {
        return;
    }
    let [memory, space] = tokens(vm.index);
    let files = [(vm.memfd, memory), (vm.iommufd, space), (vm.vfios[0], device_token(vm.index, 0))];
    let (fd, token) = files[below(&p.t.machine.core, 3) as usize];
    p.preserve_fd(session, fd, token).await;
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
