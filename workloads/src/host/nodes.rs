//! The nodes: machine, agent, VMM, and the orchestrator that restarts programs after a jump.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use madsim::net::Endpoint;
use madsim::runtime::Handle;
use madsim::{task, time};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::mailbox::{Client, Fds, Mailbox, Request};
use super::{BURST, BURSTS_MAX, Hosted};
use crate::run::{How, Run, RunSpec, VerdictKind, Workspace};
use crate::scenario::Plan;

const MACHINE: &str = "10.0.0.1:1";
const ORCHESTRATOR: &str = "10.0.0.9:1";
const TAG_REQUEST: u64 = 1;
const TAG_ANSWER: u64 = 2;
const TAG_NEWS: u64 = 3;
const TAG_FDS: u64 = 4;
const NEWS_ERA: u8 = 1;
const NEWS_END: u8 = 2;
/// How long the machine node leaves the programs alone when its kernel has nothing to do for them: about one message.
const IDLE: Duration = Duration::from_millis(5);

thread_local! {
    /// Buffers and profiles between the hosted runs of a thread. Nothing in it changes the outcome of a run.
    static WORKSPACE: Cell<Workspace> = Cell::default();
}

fn address(client: Client) -> SocketAddr {
    let host = 2 + client as u8;
    SocketAddr::from(([10, 0, 0, host], 1))
}

fn encode<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("requests are plain data")
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> T {
    serde_json::from_slice(bytes).expect("nodes send what they encode")
}

async fn receive(endpoint: &Endpoint, tag: u64) -> Vec<u8> {
    let mut buffer = vec![0; 512];
    let (n, _) = endpoint.recv_from(tag, &mut buffer).await.expect("the endpoint is bound");
    buffer.truncate(n);
    buffer
}

/// Counts the programs of a kind that are alive, so that a restart waits until the old ones are really gone.
struct Alive(Arc<AtomicU32>);

impl Alive {
    fn new(count: &Arc<AtomicU32>) -> Alive {
        count.fetch_add(1, Ordering::Relaxed);
        Alive(count.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Starts the nodes, restarts the programs after a jump, returns when the machine is done.
pub(super) async fn orchestrate(spec: RunSpec, keep_log: bool, result: Arc<Mutex<Option<Hosted>>>) {
    let handle = Handle::current();
    let era = Arc::new(AtomicU8::new(0));
    let alive = Arc::new(AtomicU32::new(0));
    let home = handle.create_node().name("orchestrator").ip("10.0.0.9".parse().expect("an address")).build();
    let (news, mut heard) = watch::channel((0u32, false));
    home.spawn(async move {
        let endpoint = Endpoint::bind(ORCHESTRATOR).await.expect("the port is free");
        loop {
            let message = receive(&endpoint, TAG_NEWS).await;
            let ended = message[0] == NEWS_END;
            news.send_modify(|(jumps, over)| {
                *jumps += u32::from(!ended);
                *over |= ended;
            });
            if ended {
                return;
            }
        }
    });
    let outcome = result.clone();
    let machine_spec = spec.clone();
    let machine = handle
        .create_node()
        .name("machine")
        .ip("10.0.0.1".parse().expect("an address"))
        .init(move || machine(machine_spec.clone(), keep_log, outcome.clone()))
        .build();
    let programs = [Client::Agent, Client::Vmm].map(|client| {
        let (era, alive) = (era.clone(), alive.clone());
        handle
            .create_node()
            .name(format!("{client:?}"))
            .ip(address(client).ip())
            .init(move || {
                let guard = Alive::new(&alive);
                let era = era.load(Ordering::Relaxed);
                async move {
                    let _guard = guard;
                    match client {
                        Client::Agent => agent(era).await,
                        Client::Vmm => vmm(era).await,
                    }
                }
            })
            .build()
    });
    while heard.changed().await.is_ok() {
        if heard.borrow().1 {
            break;
        }
        // The programs of the old kernel end with it; the next ones start only when nothing of them is left.
        for program in &programs {
            handle.kill(program.id());
        }
        while alive.load(Ordering::Relaxed) > 0 {
            task::yield_now().await;
        }
        era.fetch_add(1, Ordering::Relaxed);
        for program in &programs {
            handle.restart(program.id());
        }
    }
    for program in &programs {
        handle.kill(program.id());
    }
    handle.kill(machine.id());
}

/// The machine node.
async fn machine(spec: RunSpec, keep_log: bool, result: Arc<Mutex<Option<Hosted>>>) {
    let endpoint = Rc::new(Endpoint::bind(MACHINE).await.expect("the port is free"));
    let mailbox = Rc::new(Mailbox::default());
    let mut workspace = WORKSPACE.take();
    let mut run = Run::start_hosted(&mut workspace, &spec, &How { keep_log, ..How::default() }, mailbox.clone());
    let core = run.machine().core.clone();
    let receiver = {
        let (endpoint, mailbox) = (endpoint.clone(), mailbox.clone());
        task::spawn_local(async move {
            loop {
                let (era, client, request): (u8, Client, Request) = decode(&receive(&endpoint, TAG_REQUEST).await);
                mailbox.post(&core, era, client, request);
            }
        })
    };
    let (mut bursts, mut calls, mut era) = (0, 0, 0);
    let mut cut = false;
    while run.burst(BURST) {
        bursts += 1;
        if bursts == BURSTS_MAX {
            cut = true;
            break;
        }
        while let Some((client, answer)) = mailbox.answer() {
            calls += 1;
            endpoint.send_to(address(client), TAG_ANSWER, &encode(&answer)).await.expect("the network is up");
        }
        if mailbox.era() != era {
            era = mailbox.era();
            endpoint.send_to(ORCHESTRATOR, TAG_NEWS, &[NEWS_ERA]).await.expect("the network is up");
        }
        if mailbox.is_idle() {
            // The programs think; devices go on meanwhile.
            time::sleep(IDLE).await;
        } else {
            task::yield_now().await;
        }
    }
    receiver.abort();
    let mut outcome = run.end(&mut workspace);
    if cut && outcome.verdict.kind == VerdictKind::Bound {
        outcome.verdict.property = "bursts".to_owned();
        outcome.verdict.title = "bound on bursts reached: the programs wait for each other".to_owned();
    }
    WORKSPACE.set(workspace);
    *result.lock() = Some(Hosted { outcome, bursts, calls });
    endpoint.send_to(ORCHESTRATOR, TAG_NEWS, &[NEWS_END]).await.expect("the network is up");
}

/// A program's connection to the machine's kernel.
struct Kernel {
    endpoint: Endpoint,
    client: Client,
    era: u8,
}

impl Kernel {
    async fn connect(client: Client, era: u8) -> Kernel {
        Kernel { endpoint: Endpoint::bind(address(client)).await.expect("the port is free"), client, era }
    }

    async fn post(&self, client: Client, request: Request) {
        self.endpoint.send_to(MACHINE, TAG_REQUEST, &encode(&(self.era, client, request))).await.expect("the network is up");
    }

    async fn call(&self, request: Request) -> i64 {
        self.post(self.client, request).await;
        decode(&receive(&self.endpoint, TAG_ANSWER).await)
    }

    async fn fd(&self, request: Request) -> i32 {
        self.call(request).await as i32
    }

    /// A call that returns a descriptor or an object id; none when it failed.
    async fn open(&self, request: Request) -> Option<i32> {
        Some(self.fd(request).await).filter(|&fd| fd >= 0)
    }

    /// A call that returns nothing; none when it failed.
    async fn done(&self, request: Request) -> Option<()> {
        (self.call(request).await == 0).then_some(())
    }

    async fn send_fds(&self, to: Client, fds: Fds) {
        self.endpoint.send_to(address(to), TAG_FDS, &encode(&fds)).await.expect("the network is up");
    }

    async fn receive_fds(&self) -> Fds {
        decode(&receive(&self.endpoint, TAG_FDS).await)
    }
}

const SESSION: u64 = 1;
const HWPT_TOKEN: u64 = 1;

/// The update agent: preserves and reboots, or retrieves and finishes. What fails ends the attempt; the VM goes on as it is.
async fn agent(era: u8) {
    let kernel = Kernel::connect(Client::Agent, era).await;
    if era == 0 {
        let vm = kernel.receive_fds().await;
        if vm.are_open() {
            send_off(&kernel, vm).await;
        }
    } else {
        let session = kernel.fd(Request::RetrieveSession { name: SESSION }).await;
        if session >= 0 {
            take_back(&kernel, session).await;
        }
    }
    for client in [Client::Vmm, Client::Agent] {
        kernel.post(client, Request::Exit).await;
    }
}

/// Preserves the VM and reboots. Comes back only from a failure.
async fn send_off(kernel: &Kernel, vm: Fds) {
    let session = kernel.fd(Request::CreateSession { name: SESSION }).await;
    if session < 0 {
        return;
    }
    let mut errno = 0;
    for (token, fd) in [(1, vm.memfd), (2, vm.iommufd), (3, vm.vfio)] {
        if errno == 0 {
            errno = kernel.call(Request::PreserveFd { session, fd, token }).await;
        }
    }
    if errno == 0 && kernel.call(Request::KexecLoad).await == 0 {
        kernel.call(Request::Reboot).await;
    }
    kernel.call(Request::Close { fd: session }).await;
}

/// Takes the files back and, when all are there and the VMM has replaced its domain, finishes. A kernel without the second phase
/// gives no iommufd back: the session then stays as it is until the next reboot.
async fn take_back(kernel: &Kernel, session: i32) {
    let memfd = kernel.fd(Request::RetrieveFd { session, token: 1 }).await;
    let iommufd = kernel.fd(Request::RetrieveFd { session, token: 2 }).await;
    let vfio = kernel.fd(Request::RetrieveFd { session, token: 3 }).await;
    let fds = Fds { memfd, iommufd, vfio, ioas: 0 };
    if !fds.are_open() {
        return;
    }
    kernel.send_fds(Client::Vmm, fds).await;
    if kernel.receive_fds().await.are_open() {
        kernel.call(Request::Finish { session }).await;
    }
    kernel.call(Request::Close { fd: session }).await;
}

/// The VMM: sets the VM up and hands its descriptors to the agent, or takes them back and replaces the restored domain.
async fn vmm(era: u8) {
    let kernel = Kernel::connect(Client::Vmm, era).await;
    let fds = if era == 0 {
        set_up(&kernel).await
    } else {
        let fds = kernel.receive_fds().await;
        replace(&kernel, fds).await
    };
    kernel.send_fds(Client::Agent, fds.unwrap_or(Fds::NONE)).await;
}

/// Pages of the VM: what the guest looks like is the plan's, the VMM knows it by its configuration.
const PAGES: u32 = Plan::HOSTED_PAGES;

async fn set_up(kernel: &Kernel) -> Option<Fds> {
    let memfd = kernel.open(Request::MemfdCreate { pages: PAGES }).await?;
    let iommufd = kernel.open(Request::IommufdOpen).await?;
    let vfio = kernel.open(Request::VfioOpen { device: 0 }).await?;
    let device = kernel.open(Request::VfioBind { vfio, iommufd }).await?;
    let ioas = kernel.open(Request::IoasAlloc { iommufd }).await?;
    let hwpt = kernel.open(Request::HwptAlloc { iommufd, device, ioas }).await?;
    let fds = Fds { memfd, iommufd, vfio, ioas };
    kernel.done(Request::Map { vm: fds, page: 0, pages: PAGES, iova: 0 }).await?;
    kernel.done(Request::VfioAttach { vfio, hwpt }).await?;
    kernel.done(Request::HwptMark { iommufd, hwpt, token: HWPT_TOKEN }).await?;
    kernel.done(Request::StartDevice { device: 0 }).await?;
    Some(fds)
}

async fn replace(kernel: &Kernel, fds: Fds) -> Option<Fds> {
    let Fds { memfd: _, iommufd, vfio, ioas: _ } = fds;
    let restored = kernel.open(Request::HwptRestore { iommufd, token: HWPT_TOKEN }).await?;
    let device = kernel.open(Request::VfioBind { vfio, iommufd }).await?;
    let ioas = kernel.open(Request::IoasAlloc { iommufd }).await?;
    let fds = Fds { ioas, ..fds };
    kernel.done(Request::Map { vm: fds, page: 0, pages: PAGES, iova: 0 }).await?;
    let hwpt = kernel.open(Request::HwptAlloc { iommufd, device, ioas }).await?;
    kernel.done(Request::VfioAttach { vfio, hwpt }).await?;
    kernel.done(Request::IommufdDestroy { iommufd, id: restored }).await?;
    Some(fds)
}
