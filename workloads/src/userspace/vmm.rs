//! A virtual machine monitor: guest memory, the devices passed through to it, and what it maps and unmaps while the guest runs.

use std::rc::Rc;

use iommu_model::addr::{Bdf, Iova};
use sim::device::DmaRange;
use smallvec::{SmallVec, smallvec};

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
    /// HWPT ids: one for all devices, or one each.
    pub hwpts: SmallVec<[i32; 2]>,
    /// VFIO devices, in the order of the plan.
    pub vfios: SmallVec<[i32; 2]>,
}

/// Tokens of a VM's files in a session: memory, address space.
pub(super) fn tokens(index: usize) -> [u64; 2] {
    let base = index as u64 * 16;
    [base + 1, base + 2]
}

/// Token of a VM's device in a session.
pub(super) fn device_token(index: usize, device: usize) -> u64 {
    index as u64 * 16 + 3 + device as u64
}

/// Token of the mark of a VM's HWPT.
pub(super) fn hwpt_token(index: usize, hwpt: usize) -> u64 {
    index as u64 * 8 + hwpt as u64 + 1
}

/// Number of the HWPTs a VM needs.
pub(super) fn nr_hwpts(plan: &VmPlan) -> usize {
    if plan.own_tables { plan.devices.len() } else { 1 }
}

/// The HWPT of a device.
pub(super) fn hwpt_of(hwpts: &[i32], device: usize) -> i32 {
    hwpts[device.min(hwpts.len() - 1)]
}

/// A guest's driver starts or stops its device: the bus-master bit.
pub(crate) fn start_device(p: &Process, bdf: Bdf, on: bool) {
    p.t.machine.note(verb::DEVICE_STARTED, [u64::from(bdf.0), u64::from(on), 0, 0]);
    p.t.machine.fabric.set_bus_master(&p.t.machine.core, bdf, on);
}

impl Vm {
    /// Sets a VM up: memory, address space, device, mappings; then lets the device run. `None` when something of it cannot be had.
    pub async fn set_up(p: &Process, index: usize, plan: &VmPlan) -> Option<Vm> {
        let memfd = if plan.huge { p.memfd_create_huge(Plan::HUGE_PAGES + plan.pages).await } else { p.memfd_create(plan.pages).await };
        let iommufd = p.iommufd_open().await;
        let mut vm = Vm { plan: plan.clone(), index, memfd, iommufd, ioas: -1, hwpts: smallvec![], vfios: smallvec![] };
        let mut objects: SmallVec<[i32; 2]> = smallvec![];
        for bdf in &plan.devices {
            let vfio = p.vfio_open(*bdf).await;
            vm.vfios.push(vfio);
            objects.push(p.vfio_bind(vfio, iommufd).await);
        }
        vm.ioas = p.ioas_alloc(iommufd).await;
        let mut whole = memfd >= 0 && vm.ioas >= 0 && objects.iter().all(|object| *object >= 0);
        if whole {
            for object in objects.iter().take(nr_hwpts(plan)) {
                vm.hwpts.push(p.hwpt_alloc(iommufd, *object, vm.ioas).await);
            }
            whole = vm.hwpts.iter().all(|hwpt| *hwpt >= 0);
        }
        if whole {
            for mapping in &plan.mappings {
                vm.map(p, *mapping).await;
            }
            for (device, vfio) in vm.vfios.iter().enumerate() {
                whole &= p.vfio_attach(*vfio, hwpt_of(&vm.hwpts, device)).await == 0;
            }
        }
        if !whole {
            vm.tear_down(p).await;
            return None;
        }
        for (number, hwpt) in vm.hwpts.iter().enumerate() {
            p.hwpt_mark(iommufd, *hwpt, hwpt_token(index, number)).await;
        }
        vm.start_devices(p);
        Some(vm)
    }

    /// Sets the bus-master bits: the guest's drivers start the devices.
    pub fn start_devices(&self, p: &Process) {
        self.plan.devices.iter().for_each(|bdf| start_device(p, *bdf, true));
    }

    /// Ends the VM: the devices are stopped, then every descriptor is closed, in any order.
    pub async fn tear_down(&self, p: &Process) {
        let core = &p.t.machine.core;
        self.plan.devices.iter().for_each(|bdf| start_device(p, *bdf, false));
        for mapping in std::mem::take(&mut p.t.k.env.vm(self.index).mappings) {
            self.unprogram(p, mapping);
        }
        let mut open = self.vfios.to_vec();
        open.extend([self.iommufd, self.memfd]);
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
            self.program(p, mapping);
            p.t.k.env.vm(self.index).mappings.push(mapping);
        } else if errno == EBUSY {
            p.t.mark(Mark::MapRefused);
        }
        errno == 0
    }

    /// Tells the devices of a range they may use.
    fn program(&self, p: &Process, mapping: Mapping) {
        let bytes = u64::from(mapping.pages) << 12;
        let range = DmaRange { iova: mapping.iova, bytes, writable: mapping.writable };
        for bdf in &self.plan.devices {
            p.t.machine.note(verb::DEVICE_PROGRAMMED, [u64::from(bdf.0), mapping.iova.0, bytes, 0]);
            p.t.machine.fabric.program(&p.t.machine.core, *bdf, range);
        }
    }

    /// Tells the devices to leave a range alone.
    fn unprogram(&self, p: &Process, mapping: Mapping) {
        for bdf in &self.plan.devices {
            p.t.machine.note(verb::DEVICE_UNPROGRAMMED, [u64::from(bdf.0), mapping.iova.0, u64::from(mapping.pages) << 12, 0]);
            p.t.machine.fabric.unprogram(*bdf, mapping.iova, u64::from(mapping.pages) << 12);
        }
    }

    /// Unmaps. A well-behaved guest driver stops using the range first; a careless one does not.
    pub async fn unmap(&self, p: &Process, mapping: Mapping, careless: bool) {
        if !careless {
            self.unprogram(p, mapping);
        }
        let (errno, bytes) = p.ioas_unmap(self.iommufd, self.ioas, mapping.iova, mapping.pages).await;
        if errno == 0 && bytes > 0 {
            self.unprogram(p, mapping);
            p.t.k.env.vm(self.index).mappings.retain(|known| known.iova != mapping.iova);
        } else if !careless {
            self.program(p, mapping);
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

    /// Preserves the VM's files in `session`: memory, address space, devices, in this order. The first error ends it.
    pub async fn preserve(&self, p: &Process, session: i32) -> i32 {
        let [memory, space] = tokens(self.index);
        let devices = self.vfios.iter().enumerate().map(|(device, vfio)| (*vfio, device_token(self.index, device)));
        for (fd, token) in [(self.memfd, memory), (self.iommufd, space)].into_iter().chain(devices) {
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
