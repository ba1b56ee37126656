//! Between the host level and the machine: ioctls in, answers out.
//!
//! A madsim node that issues a call sends a [`Request`]; the machine node puts it into the [`Mailbox`]; inside the machine a
//! proxy task of that client performs it step by step and leaves the answer. Proxies are tasks of the kernel like any other:
//! a jump ends them, and the next kernel starts its own.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use iommu_model::addr::Iova;
use serde::{Deserialize, Serialize};
use sim::engine::{Core, Life, Object};
use smallvec::smallvec;

use crate::kernel::kexec::group_of;
use crate::scenario::Mapping;
use crate::userspace::{Process, Vm, start_device};
use crate::verb::Phase;

/// Programs of the host level that issue calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[repr(u8)]
pub enum Client {
    /// The update agent.
    Agent = 0,
    /// The VMM.
    Vmm = 1,
}

/// Number of clients.
const NR_CLIENTS: usize = 2;

/// One call of a client. Descriptors and object ids are those of the one process both clients stand for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as the calls of userspace::Process")]
pub enum Request {
    MemfdCreate {
        pages: u32,
    },
    IommufdOpen,
    VfioOpen {
        device: u8,
    },
    VfioBind {
        vfio: i32,
        iommufd: i32,
    },
    IoasAlloc {
        iommufd: i32,
    },
    HwptAlloc {
        iommufd: i32,
        device: i32,
        ioas: i32,
    },
    HwptMark {
        iommufd: i32,
        hwpt: i32,
        token: u64,
    },
    HwptRestore {
        iommufd: i32,
        token: u64,
    },
    Map {
        vm: Fds,
        page: u32,
        pages: u32,
        iova: u64,
    },
    VfioAttach {
        vfio: i32,
        hwpt: i32,
    },
    StartDevice {
        device: u8,
    },
    IommufdDestroy {
        iommufd: i32,
        id: i32,
    },
    CreateSession {
        name: u64,
    },
    PreserveFd {
        session: i32,
        fd: i32,
        token: u64,
    },
    KexecLoad,
    Reboot,
    RetrieveSession {
        name: u64,
    },
    RetrieveFd {
        session: i32,
        token: u64,
    },
    Finish {
        session: i32,
    },
    Close {
        fd: i32,
    },
    /// The client is done: its proxy ends.
    Exit,
}

/// A VM's descriptors, as one client hands them to the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Fds {
    /// Guest memory.
    pub memfd: i32,
    /// iommufd.
    pub iommufd: i32,
    /// VFIO device.
    pub vfio: i32,
    /// IOAS id.
    pub ioas: i32,
}

impl Fds {
    /// No VM: setting it up or taking it back failed.
    pub const NONE: Fds = Fds { memfd: -1, iommufd: -1, vfio: -1, ioas: -1 };

    /// True when all files are there.
    pub const fn are_open(&self) -> bool {
        self.memfd >= 0 && self.iommufd >= 0 && self.vfio >= 0
    }
}

/// See the module.
#[derive(Default)]
pub struct Mailbox {
    /// Each with the generation of the program that issued it.
    requests: RefCell<[VecDeque<(u8, Request)>; NR_CLIENTS]>,
    answers: RefCell<VecDeque<(Client, i64)>>,
    busy: Cell<u32>,
    era: Cell<u8>,
}

impl Mailbox {
    const fn object(client: Client) -> Object {
        Object::queue(0xf00 + client as u64)
    }

    /// Puts a request of a program of generation `era` in; the client's proxy goes on with the next burst, or when its kernel has
    /// booted. A request to a kernel that has ended is nobody's.
    pub fn post(&self, core: &Core, era: u8, client: Client, request: Request) {
        if era >= self.era.get() {
            self.requests.borrow_mut()[client as usize].push_back((era, request));
            core.wake(Self::object(client));
        }
    }

    /// Takes an answer out.
    pub fn answer(&self) -> Option<(Client, i64)> {
        self.answers.borrow_mut().pop_front()
    }

    /// The generation whose proxies serve now.
    pub fn era(&self) -> u8 {
        self.era.get()
    }

    /// True while no proxy has anything to do.
    pub fn is_idle(&self) -> bool {
        self.busy.get() == 0 && self.requests.borrow().iter().all(VecDeque::is_empty)
    }
}

/// Starts the proxies of a booted kernel.
pub fn serve(process: &Process, mailbox: &Rc<Mailbox>) {
    mailbox.era.set(process.t.k.era);
    mailbox.busy.set(0);
    // Requests of programs that ran on the kernel before are gone with it.
    for queue in mailbox.requests.borrow_mut().iter_mut() {
        queue.retain(|(era, _)| *era >= process.t.k.era);
    }
    for client in [Client::Agent, Client::Vmm] {
        let (process, mailbox) = (process.clone(), mailbox.clone());
        let name = match client {
            Client::Agent => "luod",
            Client::Vmm => "vmm",
        };
        let group = group_of(process.t.k.era);
        process.t.machine.clone().spawn_from_step(name, group, Life::Finite, move |cpu| proxy(process.on(cpu), mailbox, client));
    }
}

async fn proxy(process: Process, mailbox: Rc<Mailbox>, client: Client) {
    loop {
        let request = mailbox.requests.borrow_mut()[client as usize].pop_front();
        let Some((_, request)) = request else {
            process.t.machine.core.block(Mailbox::object(client)).await;
            continue;
        };
        if request == Request::Exit {
            return;
        }
        mailbox.busy.set(mailbox.busy.get() + 1);
        let answer = perform(&process, request).await;
        mailbox.busy.set(mailbox.busy.get() - 1);
        mailbox.answers.borrow_mut().push_back((client, answer));
    }
}

async fn perform(p: &Process, request: Request) -> i64 {
    let device = |index: u8| p.t.k.topo.devices.get(usize::from(index)).map(|device| device.bdf);
    i64::from(match request {
        Request::MemfdCreate { pages } => p.memfd_create(pages).await,
        Request::IommufdOpen => p.iommufd_open().await,
        Request::VfioOpen { device: index } => match device(index) {
            Some(bdf) => p.vfio_open(bdf).await,
            None => crate::errno::ENODEV,
        },
        Request::VfioBind { vfio, iommufd } => p.vfio_bind(vfio, iommufd).await,
        Request::IoasAlloc { iommufd } => p.ioas_alloc(iommufd).await,
        Request::HwptAlloc { iommufd, device, ioas } => p.hwpt_alloc(iommufd, device, ioas).await,
        Request::HwptMark { iommufd, hwpt, token } => p.hwpt_mark(iommufd, hwpt, token).await,
        Request::HwptRestore { iommufd, token } => p.hwpt_restore(iommufd, token).await,
        Request::Map { vm, page, pages, iova } => {
            let plan = p.t.k.env.plan.vms[0].clone();
            let known = p.t.k.env.vm(0).mappings.iter().any(|mapping| mapping.iova.0 == iova);
            let (hwpts, vfios) = (smallvec![], smallvec![vm.vfio]);
            let vm = Vm { plan, index: 0, memfd: vm.memfd, iommufd: vm.iommufd, ioas: vm.ioas, hwpts, vfios };
            if known {
                p.ioas_map(vm.iommufd, vm.ioas, vm.memfd, page, pages, Iova(iova)).await
            } else {
                let mapped = vm.map(p, Mapping { iova: Iova(iova), page, pages, writable: true }).await;
                if mapped { 0 } else { crate::errno::EBUSY }
            }
        }
        Request::VfioAttach { vfio, hwpt } => p.vfio_attach(vfio, hwpt).await,
        Request::StartDevice { device: index } => {
            if let Some(bdf) = device(index) {
                p.t.relax().await;
                start_device(p, bdf, true);
            }
            0
        }
        Request::IommufdDestroy { iommufd, id } => p.iommufd_destroy(iommufd, id).await,
        Request::CreateSession { name } => p.create_session(name).await,
        Request::PreserveFd { session, fd, token } => {
            let errno = p.preserve_fd(session, fd, token).await;
            if errno == 0 {
                p.t.phase(Phase::Preserved);
            }
            errno
        }
        Request::KexecLoad => p.kexec_load().await,
        Request::Reboot => p.reboot().await,
        Request::RetrieveSession { name } => {
            p.t.phase(Phase::Incoming);
            p.retrieve_session(name).await
        }
        Request::RetrieveFd { session, token } => p.retrieve_fd(session, token).await,
        Request::Finish { session } => {
            let errno = p.finish(session, false).await;
            if errno == 0 {
                p.t.mark(crate::mark::Mark::FinishReached);
                p.t.phase(Phase::Finished);
            }
            errno
        }
        Request::Close { fd } => {
            let errno = p.close(fd).await;
            if p.t.k.era == 0 {
                p.t.phase(Phase::Running);
            }
            errno
        }
        Request::Exit => 0,
    })
}
