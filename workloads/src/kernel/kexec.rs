//! kexec: load an image, reboot into it (`kernel/kexec_core.c`, `kernel/kexec_file.c`, `arch/x86/kernel/machine_kexec_64.c`).
//!
//! `reboot(KEXEC)` is a program of steps: the live-update part can refuse, what follows it cannot. Other tasks run until
//! `machine_shutdown` stops their CPUs, each wherever it is. Then the IOMMU shutdown hook, the copy of the image into scratch,
//! and the jump, on one CPU.
//!
//! Assumed: the mainline text read has no failing step between the live-update part and the jump. The posted abort entry (v4 2/5,
//! 2026-03-24) exists for one; so with the guarded generation a plan may have the first reboot fail there ([`callee::KEXEC`]), and everything is
//! taken back.
//!
//! Not modelled: reboot notifiers, CPU hotplug, syscore operations, crash images, `preserve_context` images.

use std::ops::Range;

use iommu_model::addr::{Pa, Pfn};
use sim::engine::{ChoiceKind, Group, Life};
use sim::memory::{Field, FrameState, Ptr, field};
use sim::sync::Mutex;
use sim::trace::EventKind;

use super::kho;
use super::luo;
use super::mm::{self, Gfp};
use super::{IMAGE_FRAMES, Section, Task};
use crate::callee;
use crate::defect::Defect;
use crate::errno::{EBUSY, EINVAL, ENOMEM, Errno};
use crate::mark::Mark;
use crate::revision::Luo;
use crate::tag;
use crate::topology::Topology;
use crate::verb::{self, Phase};

/// `system_transition_mutex`.
pub(super) const TRANSITION_LOCK: Field<Mutex> = field(0, "system_transition_mutex");
/// `__kexec_lock`: an atomic flag, tried, never waited for.
pub(super) const KEXEC_LOCK: Field<u32> = field(8, "__kexec_lock");
/// `kexec_image`: first source page, or NULL.
pub(super) const KEXEC_IMAGE: Field<u64> = field(16, "kexec_image");
/// `image->kho.fdt`.
pub(super) const IMAGE_FDT: Field<u64> = field(24, "image->kho.fdt");

/// Where the image of a generation lies. Later ones have two slots in scratch, used in turn: the copy must not overwrite the code
/// that does it.
pub fn image_of(topo: &Topology, era: u8) -> Range<u32> {
    match era.checked_sub(1) {
        None => topo.image.clone(),
        Some(before) => {
            let slot = topo.scratch.start + u32::from(before % 2) * IMAGE_FRAMES;
            slot..slot + IMAGE_FRAMES
        }
    }
}

/// The group of a generation's tasks.
pub fn group_of(era: u8) -> Group {
    Group(era)
}

/// Initialises the globals of this file.
pub async fn kexec_init(t: &Task) {
    t.init_lock(t.sym(Section::Kexec, TRANSITION_LOCK)).await;
    t.write(t.sym(Section::Kexec, KEXEC_LOCK), 0).await;
    t.write(t.sym(Section::Kexec, KEXEC_IMAGE), 0).await;
    t.write(t.sym(Section::Kexec, IMAGE_FDT), 0).await;
}

/// `kexec_file_load()`: source pages are allocated one by one; the hand-over arguments are attached; the image is published.
pub async fn sys_kexec_file_load(t: &Task) -> Errno {
    let _in = t.call("kexec_file_load");
    let lock = t.sym(Section::Kexec, KEXEC_LOCK);
    if t.cmpxchg(lock, 0, 1).await != 0 {
        return EBUSY;
    }
    let mut ret = 0;
    let image = mm::alloc_pages(t, Gfp::Kernel, 1, true, tag::OTHER).await;
    if image.is_null() {
        ret = ENOMEM;
    } else {
        let fdt = kho::kho_fdt_pa(t).await;
        t.write(t.sym(Section::Kexec, IMAGE_FDT), fdt.0).await;
        let old = t.xchg(t.sym(Section::Kexec, KEXEC_IMAGE), image.value()).await;
        if old != 0 {
            mm::folio_put(t, Ptr::new(old)).await;
        }
    }
    t.store_release(lock, 0).await;
    ret
}

/// `reboot(LINUX_REBOOT_CMD_KEXEC)`. Returns only with an error.
pub async fn sys_reboot_kexec(t: &Task) -> Errno {
    let _in = t.call("kernel_kexec");
    t.mutex_lock(t.sym(Section::Kexec, TRANSITION_LOCK)).await;
    let lock = t.sym(Section::Kexec, KEXEC_LOCK);
    let ret = if t.cmpxchg(lock, 0, 1).await != 0 {
        EBUSY
    } else {
        let ret = kernel_kexec(t).await;
        t.store_release(lock, 0).await;
        ret
    };
    t.mutex_unlock(t.sym(Section::Kexec, TRANSITION_LOCK)).await;
    ret
}

async fn kernel_kexec(t: &Task) -> Errno {
    let image: u64 = t.read(t.sym(Section::Kexec, KEXEC_IMAGE)).await;
    if image == 0 {
        return EINVAL;
    }
    t.phase(Phase::Serialise);
    let ret = luo::liveupdate_reboot(t).await;
    if ret != 0 {
        t.phase(Phase::Preserved);
        return ret;
    }
    if t.k.rev.luo == Luo::Guarded && t.k.env.kexec_fails() {
        t.machine.emit(EventKind::Injected { kind: ChoiceKind::CalleeFails, class: callee::KEXEC });
        luo::liveupdate_abort_reboot(t).await;
        t.phase(Phase::Preserved);
        return EBUSY;
    }
    t.phase(Phase::Shutdown);
    device_shutdown(t).await;
    machine_shutdown(t).await;
    machine_kexec(t).await;
    0
}

/// `device_shutdown()`: drivers of devices that are not preserved stop their DMA; bus mastering of preserved ones stays on
/// (`pci_device_shutdown`, PCI series v4 and later).
async fn device_shutdown(t: &Task) {
    let _in = t.call("device_shutdown");
    for device in &t.k.topo.devices {
        if !super::iommu::dev_is_preserved(t, device.bdf).await || t.k.has(Defect::PreservedDeviceStopped) {
            t.relax().await;
            t.machine.fabric.set_bus_master(&t.machine.core, device.bdf, false);
        }
    }
}

/// `machine_shutdown()`: the other CPUs stop where they are, then `x86_platform.iommu_shutdown`.
async fn machine_shutdown(t: &Task) {
    let _in = t.call("machine_shutdown");
    t.relax().await;
    t.machine.core.forget_others(group_of(t.k.era));
    t.relax().await;
    super::vtd::intel_iommu_shutdown(t).await;
}

/// `machine_kexec()`: copies the image into scratch and jumps. Never returns.
async fn machine_kexec(t: &Task) {
    let _in = t.call("machine_kexec");
    let fabric = &t.machine.fabric;
    if fabric.has_invalidation_pending() {
        t.mark(Mark::InvalidationPendingAtJump);
    }
    if fabric.has_write_in_flight() {
        t.mark(Mark::WriteInFlightAtJump);
    }
    if fabric.has_walk_in_flight() {
        t.mark(Mark::WalkInFlightAtJump);
    }
    let fdt: u64 = t.read(t.sym(Section::Kexec, IMAGE_FDT)).await;
    let scratch = t.k.topo.scratch.clone();
    let (scratch_pa, scratch_bytes) = (Pa(u64::from(scratch.start) << 12), u64::from(scratch.len() as u32) << 12);
    t.relax().await;
    t.machine.note(verb::BEFORE_JUMP, [fdt, scratch_pa.0, scratch_bytes, 0]);
    let image = image_of(&t.k.topo, t.k.era + 1);
    let slot = image.start;
    let firmware = t.k.topo.firmware.clone();
    let keep = move |pfn: Pfn, frame: &sim::memory::Frame| {
        let pfn = pfn.0 as u32;
        if image.contains(&pfn) || firmware.contains(&pfn) || !frame.scratch { FrameState::Reserved } else { FrameState::Free }
    };
    t.mark(Mark::KexecReached);
    let env = t.k.env.clone();
    let era = t.k.era + 1;
    let data = Pa(u64::from(slot) << 12);
    t.machine.jump(&[group_of(t.k.era)], keep);
    t.machine.with_memory(|memory| {
        for pfn in slot..slot + IMAGE_FRAMES {
            let frame = &mut memory.frames[pfn as usize];
            frame.tag = tag::KERNEL_IMAGE;
            frame.era = era;
            memory.ram.fill(Pa(u64::from(pfn) << 12), 4096, 0, true);
        }
    });
    let handover = (fdt != 0).then_some(super::HandoverArgs { fdt: Pa(fdt), scratch: scratch_pa, scratch_bytes });
    let name = format!("swapper/0.{era}");
    t.machine.spawn_from_step(&name, group_of(era), Life::Finite, move |cpu| super::boot::start_kernel(cpu, env, era, data, handover));
    match t.dead().await {}
}
