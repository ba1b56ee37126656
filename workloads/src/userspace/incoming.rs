//! The agent of the incoming kernel: retrieves the session, takes files back, replaces restored domains, finishes.

use std::rc::Rc;

use smallvec::SmallVec;

use super::agent::{self, SESSION};
use super::vmm::{Vm, device_token, hwpt_of, hwpt_token, nr_hwpts, tokens};
use super::{Helpers, Process, below, chance, neighbours};
use crate::mark::Mark;
use crate::verb::{self, Phase};

/// Runs the agent of an incoming kernel.
pub(super) async fn run(p: Process) {
    p.t.phase(Phase::Incoming);
    let env = p.t.k.env.clone();
    let core = p.t.machine.core.clone();
    let weights = env.scenario.weights;
    let helpers = Rc::new(Helpers::default());
    neighbours::spawn(&p, &helpers, &[]);
    if weights.finish == 0 {
        helpers.join(&core).await;
        return;
    }
    let mut names: Vec<u64> = (0..env.plan.vms.len()).filter_map(|index| env.vm(index).session).collect();
    names.dedup();
    if names.is_empty() {
        names.push(SESSION);
    }
    let nr_handed = names.len();
    let mut sessions = Vec::with_capacity(nr_handed);
    let mut vms = Vec::with_capacity(env.plan.vms.len());
    let mut whole = true;
    for name in names {
        let session = p.retrieve_session(name).await;
        if session < 0 {
            whole = false;
            continue;
        }
        sessions.push(session);
        for index in 0..env.plan.vms.len() {
            if env.vm(index).session != Some(name) {
                continue;
            }
            match take_back(&p, session, index).await {
                Some(vm) => vms.push(vm),
                None => whole = false,
            }
        }
    }
    if !p.t.k.rev.reclaim || sessions.is_empty() {
        // Phase one: nothing can be finished; the sessions stay as they are until the next reboot.
        helpers.join(&core).await;
        return;
    }
    if !whole && !chance(&core, 1) || !finish_all(&p, &sessions, whole).await {
        for session in sessions {
            p.close(session).await;
        }
        helpers.join(&core).await;
        return;
    }
    p.t.mark(Mark::FinishReached);
    p.t.phase(Phase::Finished);
    for session in &sessions {
        p.close(*session).await;
    }
    helpers.join(&core).await;
    let finished = neighbours::finish_other_sessions(&p).await && sessions.len() == nr_handed;
    if finished {
        p.t.machine.note(verb::ALL_FINISHED, [0; 4]);
    }
    for vm in &vms {
        for _ in 0..below(&core, u32::from(weights.reuse) + 1) {
            vm.guest_operation(&p, 0).await;
        }
    }
    if u32::from(p.t.k.era) < env.plan.updates {
        p.t.mark(Mark::SecondUpdate);
        agent::update(&p, &vms).await;
    }
    if whole && finished && below(&core, 2) == 1 {
        agent::end(&p, &vms).await;
    }
}

/// Finishes the sessions, one after the other; true when each was finished. `whole`: every file was taken back, nothing is in the way.
async fn finish_all(p: &Process, sessions: &[i32], whole: bool) -> bool {
    let mut all = true;
    for session in sessions {
        all &= p.finish(*session, whole).await == 0;
    }
    all
}

/// Takes one VM's files back. With a second phase: builds a new address space over the retrieved memory, replaces the restored
/// domain by it, and drops what was restored.
async fn take_back(p: &Process, session: i32, index: usize) -> Option<Vm> {
    let env = p.t.k.env.clone();
    let core = &p.t.machine.core;
    let plan = env.plan.vms[index].clone();
    let [memory, space] = tokens(index);
    // Any order is allowed.
    let devices_first = below(core, 2) == 1;
    let mut vfios = SmallVec::new();
    if devices_first {
        retrieve_devices(p, session, index, &mut vfios).await;
    }
    let memfd = p.retrieve_fd(session, memory).await;
    let iommufd = if p.t.k.rev.reclaim { p.retrieve_fd(session, space).await } else { -1 };
    if chance(core, env.scenario.weights.bad_arguments) {
        neighbours::meddle(p, session, memory).await;
    }
    if !devices_first {
        retrieve_devices(p, session, index, &mut vfios).await;
    }
    if memfd < 0 || iommufd < 0 || vfios.iter().any(|vfio| *vfio < 0) {
        return None;
    }
    let mut restored: SmallVec<[i32; 2]> = SmallVec::new();
    for number in 0..nr_hwpts(&plan) {
        let id = p.hwpt_restore(iommufd, hwpt_token(index, number)).await;
        if id < 0 {
            return None;
        }
        restored.push(id);
    }
    let mut objects: SmallVec<[i32; 2]> = SmallVec::new();
    for vfio in &vfios {
        let object = p.vfio_bind(*vfio, iommufd).await;
        if object < 0 {
            return None;
        }
        objects.push(object);
    }
    let ioas = p.ioas_alloc(iommufd).await;
    if ioas < 0 {
        return None;
    }
    let mappings = env.vm(index).mappings.clone();
    for mapping in &mappings {
        if p.ioas_map(iommufd, ioas, memfd, mapping.page, mapping.pages, mapping.iova).await != 0 {
            return None;
        }
    }
    let mut hwpts: SmallVec<[i32; 2]> = SmallVec::new();
    for object in objects.iter().take(nr_hwpts(&plan)) {
        let hwpt = p.hwpt_alloc(iommufd, *object, ioas).await;
        if hwpt < 0 {
            return None;
        }
        hwpts.push(hwpt);
    }
    for (device, vfio) in vfios.iter().enumerate() {
        if p.vfio_replace(*vfio, hwpt_of(&hwpts, device)).await != 0 {
            return None;
        }
    }
    for id in restored {
        p.iommufd_destroy(iommufd, id).await;
    }
    for (number, hwpt) in hwpts.iter().enumerate() {
        p.hwpt_mark(iommufd, *hwpt, hwpt_token(index, number)).await;
    }
    Some(Vm { plan, index, memfd, iommufd, ioas, hwpts, vfios })
}

/// Retrieves every device of a VM; descriptors or errors.
async fn retrieve_devices(p: &Process, session: i32, index: usize, vfios: &mut SmallVec<[i32; 2]>) {
    for device in 0..p.t.k.env.plan.vms[index].devices.len() {
        vfios.push(p.retrieve_fd(session, device_token(index, device)).await);
    }
}
