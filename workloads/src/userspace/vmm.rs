//! A virtual machine monitor: guest memory, one passed-through device, and what it maps and unmaps while the guest runs.

use std::rc::Rc;

use iommu_model::addr::{Bdf, Iova};
use sim::device::DmaRange;

use super::{Helpers, Process, below, chance};
use crate::errno::EBUSY;
use crate::kernel::kexec::group_of;
use crate::mark::Mark;
use crate::scenario::{Mapping, Plan, VmPlan};
use crate::verb;

/// What a VMM tells its successor across the update: in real life a file beside the session.
#[derive(Clone, Debug, Default)]
pub struct VmState {
    /// Mappings that exist when the update begins.
    pub mappings: Vec<Mapping>,
    /// Name of the session it is preserved in.
    pub session: Option<u64>,
}

/// A running VM: its descriptors and object ids.
#[derive(Clone, Debug)]
pub struct Vm {
    /// Its plan.
    pub plan: VmPlan,
    /// Number of the VM.
    pub index: usize,
    /// Guest memory.
    pub memfd: i32,
    /// iommufd.
    pub iommufd: i32,
    /// IOAS id.
    pub ioas: i32,
    /// HWPT id.
    pub hwpt: i32,
    /// VFIO device.
    pub vfio: i32,
}

/// Tokens of a VM's files in a session.
pub(super) fn tokens(index: usize) -> [u64; 3] {
    let base = index as u64 * 16;
    [base + 1, base + 2, base + 3]
}

/// Token of a VM's HWPT mark.
pub(super) fn hwpt_token(index: usize) -> u64 {
    index as u64 + 1
}

impl Vm {
    /// Sets a VM up: memory, address space, device, mappings; then lets the device run. `None` when something of it cannot be had.
    pub async fn set_up(p: &Process, index: usize, plan: &VmPlan) -> Option<Vm> {
        let memfd = if plan.huge { p.memfd_create_huge(Plan::HUGE_PAGES + plan.pages).await } else { p.memfd_create(plan.pages).await };
        let iommufd = p.iommufd_open().await;
        let vfio = p.vfio_open(plan.bdf).await;
        let device = p.vfio_bind(vfio, iommufd).await;
        let ioas = p.ioas_alloc(iommufd).await;
        let hwpt = if device >= 0 && ioas >= 0 { p.hwpt_alloc(iommufd, device, ioas).await } else { -1 };
        let vm = Vm { plan: plan.clone(), index, memfd, iommufd, ioas, hwpt, vfio };
        let mut whole = memfd >= 0 && hwpt >= 0;
        if whole {
            for mapping in &plan.mappings {
                vm.map(p, *mapping).await;
            }
            whole = p.vfio_attach(vfio, hwpt).await == 0;
        }
        if !whole {
            vm.tear_down(p).await;
            return None;
        }
        p.hwpt_mark(iommufd, hwpt, hwpt_token(index)).await;
        vm.start_device(p);
        Some(vm)
    }

    /// Sets the bus-master bit: the guest driver starts the device.
    pub fn start_device(&self, p: &Process) {
        p.t.machine.fabric.set_bus_master(&p.t.machine.core, self.plan.bdf, true);
    }

    /// Ends the VM: the device is stopped, then every descriptor is closed, in any order.
    pub async fn tear_down(&self, p: &Process) {
        let core = &p.t.machine.core;
        p.t.machine.fabric.set_bus_master(core, self.plan.bdf, false);
        for mapping in std::mem::take(&mut p.t.k.env.vm(self.index).mappings) {
            unprogram(p, self.plan.bdf, mapping);
        }
        let mut open = vec![self.vfio, self.iommufd, self.memfd];
        while !open.is_empty() {
            let fd = open.remove(below(core, open.len() as u32) as usize);
            if fd >= 0 {
                p.close(fd).await;
            }
        }
    }

    /// Maps, and on success tells the device.
    pub async fn map(&self, p: &Process, mapping: Mapping) -> bool {
        let errno = p.ioas_map(self.iommufd, self.ioas, self.memfd, mapping.page, mapping.pages, mapping.iova).await;
        if errno == 0 {
            program(p, self.plan.bdf, mapping);
            p.t.k.env.vm(self.index).mappings.push(mapping);
        } else if errno == EBUSY {
            p.t.mark(Mark::MapRefused);
        }
        errno == 0
    }

    /// Unmaps. A well-behaved guest driver stops using the range first; a careless one does not.
    pub async fn unmap(&self, p: &Process, mapping: Mapping, careless: bool) {
        if !careless {
            unprogram(p, self.plan.bdf, mapping);
        }
        let (errno, bytes) = p.ioas_unmap(self.iommufd, self.ioas, mapping.iova, mapping.pages).await;
        if errno == 0 && bytes > 0 {
            unprogram(p, self.plan.bdf, mapping);
            p.t.k.env.vm(self.index).mappings.retain(|known| known.iova != mapping.iova);
        } else if !careless {
            program(p, self.plan.bdf, mapping);
        }
    }

    /// One operation of the running guest: a map or an unmap, drawn by weight. `thread` tells the threads of a VMM apart: what they
    /// map does not overlap.
    pub async fn guest_operation(&self, p: &Process, thread: u32) {
        let core = &p.t.machine.core;
        let weights = &p.t.k.env.scenario.weights;
        let total = u32::from(weights.map) + u32::from(weights.unmap);
        if total == 0 {
            return;
        }
        if self.plan.huge && thread == 0 && weights.map > 0 && below(core, 3) == 0 {
            self.collapse(p).await;
            return;
        }
        let known = p.t.k.env.vm(self.index).mappings.clone();
        if below(core, total) < u32::from(weights.map) || known.is_empty() {
            // A new range beside, or behind a table border of, what is there; or one that is taken already.
            let at = below(core, 4 * Plan::BORDERS.len() as u32) as usize;
            let border = Plan::BORDERS.get(at).copied().unwrap_or(self.plan.border.0);
            let slot = u64::from(below(core, 3)) << 16;
            let page = below(core, self.plan.pages.min(8));
            let iova = Iova(border + slot + 0x3000 + u64::from(thread) * 0x4000);
            let mapping = Mapping { iova, page, pages: 1, writable: true };
            if !known.iter().any(|other| overlaps(other, &mapping)) {
                self.map(p, mapping).await;
            }
        } else {
            let mapping = known[below(core, known.len().min(16) as u32) as usize];
            let careless = below(core, 2) == 1;
            self.unmap(p, mapping, careless).await;
        }
    }

    /// Maps the huge page as a whole, where small mappings are taken away first if there are any.
    async fn collapse(&self, p: &Process) {
        let core = &p.t.machine.core;
        let known = p.t.k.env.vm(self.index).mappings.clone();
        let at = below(core, Plan::BORDERS.len() as u32 + known.len().min(16) as u32) as usize;
        let near = Plan::BORDERS.get(at).copied().unwrap_or_else(|| known[at - Plan::BORDERS.len()].iova.0);
        let border = near & !((u64::from(Plan::HUGE_PAGES) << 12) - 1);
        let huge = Mapping { iova: Iova(border), page: 0, pages: Plan::HUGE_PAGES, writable: true };
        for mapping in known.iter().filter(|mapping| overlaps(mapping, &huge)) {
            self.unmap(p, *mapping, false).await;
        }
        self.map(p, huge).await;
    }

    /// Starts threads of the VMM that issue a few guest operations each.
    pub fn spawn_guest(&self, p: &Process, helpers: &Rc<Helpers>) {
        // More than one mapper more often where maps are what is searched.
        let threads = match p.t.k.env.scenario.weights.map {
            0 => 1,
            1..4 => 1 + below(&p.t.machine.core, 3) / 2,
            _ => 1 + below(&p.t.machine.core, 3),
        };
        for thread in 0..threads {
            self.spawn_thread(p, helpers, thread);
        }
    }

    fn spawn_thread(&self, p: &Process, helpers: &Rc<Helpers>, thread: u32) {
        let core = &p.t.machine.core;
        let nr = 1 + below(core, 3 + u32::from(p.t.k.env.scenario.weights.unmap / 4));
        let (vm, process, helpers) = (self.clone(), p.clone(), helpers.clone());
        helpers.started();
        let group = group_of(p.t.k.era);
        let machine = p.t.machine.clone();
        let name = if thread == 0 { format!("vmm{}/map", self.index) } else { format!("vmm{}/map{thread}", self.index) };
        machine.spawn_from_step(&name, group, sim::engine::Life::Finite, move |cpu| async move {
            let process = process.on(cpu);
            for _ in 0..nr {
                vm.guest_operation(&process, thread).await;
                if chance(&process.t.machine.core, 1) {
                    process.t.relax().await;
                }
            }
            helpers.ended(&process.t.machine.core);
        });
    }

    /// Preserves the VM's files in `session`: memory, address spaces, device, in this order. The first error ends it.
    pub async fn preserve(&self, p: &Process, session: i32) -> i32 {
        let [memory, space, device] = tokens(self.index);
        for (fd, token) in [(self.memfd, memory), (self.iommufd, space), (self.vfio, device)] {
            // What is preserved is the file, not the descriptor.
            let other = if chance(&p.t.machine.core, p.t.k.env.scenario.weights.bad_arguments) { p.dup(fd).await } else { -1 };
            let errno = p.preserve_fd(session, if other >= 0 { other } else { fd }, token).await;
            if other >= 0 {
                p.close(other).await;
            }
            if errno != 0 {
                return errno;
            }
        }
        0
    }
}

impl Process {
    /// The same process on another thread.
    pub fn on(&self, cpu: sim::cpu::Cpu) -> Process {
        let mut other = self.clone();
        other.t.cpu = cpu;
        other
    }
}

fn overlaps(a: &Mapping, b: &Mapping) -> bool {
    let end = |mapping: &Mapping| mapping.iova.0 + (u64::from(mapping.pages) << 12);
    a.iova.0 < end(b) && b.iova.0 < end(a)
}

/// Tells the device of a range it may use.
pub(super) fn program(p: &Process, bdf: Bdf, mapping: Mapping) {
    let bytes = u64::from(mapping.pages) << 12;
    let range = DmaRange { iova: mapping.iova, bytes, writable: mapping.writable };
    p.t.machine.note(verb::DEVICE_PROGRAMMED, [u64::from(bdf.0), mapping.iova.0, bytes, 0]);
    p.t.machine.fabric.program(&p.t.machine.core, bdf, range);
}

/// Tells the device to leave a range alone.
pub(super) fn unprogram(p: &Process, bdf: Bdf, mapping: Mapping) {
    p.t.machine.fabric.unprogram(bdf, mapping.iova, u64::from(mapping.pages) << 12);
}
