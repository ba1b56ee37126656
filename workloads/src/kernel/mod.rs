//! The kernels under test, function by function in the kernel's own names and order.
//!
//! Conventions, which hold in every file below:
//!
//! - A kernel function is `pub async fn name(t: &Task, ...) -> Errno` (or a [`Ptr`] that may be NULL or an error pointer, as in
//!   C). Its doc names the kernel file, function and revision it models. Where revisions differ there is one visible branch on
//!   [`Kernel::rev`].
//! - All state lies in simulated RAM: globals in [`Section`]s of the kernel image, objects from `kzalloc`, pages with their
//!   `struct page`. A Rust variable may hold across a step only what a register or the stack would hold.
//! - Lock, unlock, get, put and every error exit stand written out in the original order. Nothing happens in `Drop` or behind
//!   `?`.
//! - A planted defect is a branch `if t.k.has(Defect::X)` that reverses a fix in place.
//! - [`Task::call`] on entry names the function in traces; what it returns lives as long as the function, and only names it.

pub mod boot;
pub mod file;
pub mod generic_pt;
pub mod iommu;
pub mod iommu_pages;
pub mod iommufd;
pub mod kexec;
pub mod kho;
pub mod kho_block;
pub mod luo;
pub mod members;
pub mod memfd;
pub mod memfd_luo;
pub mod mm;
pub mod test_flb;
pub mod vfio;
pub mod vfio_liveupdate;
pub mod vtd;

use std::ops::Deref;
use std::rc::Rc;

use iommu_model::addr::Pa;
use sim::cpu::Cpu;
use sim::memory::{Field, Ptr};
use sim::trace::InFunction;

use crate::defect::{Defect, Defects};
use crate::revision::Revision;
use crate::topology::Topology;
use crate::verb;

/// Bytes of the data part of a kernel image: what holds the globals.
pub const IMAGE_DATA_BYTES: u64 = 8192;
/// Frames of a kernel image.
pub const IMAGE_FRAMES: u32 = (IMAGE_DATA_BYTES / 4096) as u32;
/// Bytes of one [`Section`].
pub const SECTION_BYTES: u64 = 512;

/// Which subsystem a global belongs to; each has [`SECTION_BYTES`] bytes of the image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Section {
    /// Memory management.
    Mm = 0,
    /// KHO.
    Kho = 1,
    /// LUO core, sessions and files.
    Luo = 2,
    /// FLB.
    Flb = 3,
    /// memfd, shmem and the test FLB.
    Memfd = 4,
    /// IOMMU core.
    Iommu = 5,
    /// VT-d driver, two units at most per section half.
    Vtd = 6,
    /// VT-d driver, per device.
    VtdDevices = 7,
    /// iommufd.
    Iommufd = 8,
    /// VFIO.
    Vfio = 9,
    /// kexec.
    Kexec = 10,
    /// Groups of the IOMMU core.
    Groups = 11,
}

/// What the boot protocol hands the incoming kernel: an x86 `setup_data` element of type KEXEC_KHO.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HandoverArgs {
    /// Root FDT.
    pub fdt: Pa,
    /// Scratch area: first byte.
    pub scratch: Pa,
    /// Scratch area: bytes.
    pub scratch_bytes: u64,
}

/// One booted kernel: what its image knows by itself. Never changes after boot.
pub struct Kernel {
    /// Its revision.
    pub rev: Revision,
    /// Generation, from 0.
    pub era: u8,
    /// The machine it runs on, as firmware tables (memory map, DMAR, PCI enumeration) describe it.
    pub topo: Rc<Topology>,
    /// Data part of the image.
    pub data: Pa,
    /// Array of struct page (`vmemmap`).
    pub memmap: Pa,
    /// Hand-over arguments of the boot loader.
    pub handover: Option<HandoverArgs>,
    /// Planted defects.
    pub defects: Defects,
    /// What lies on disk and around the machine: the kernel to load next, its userspace, the scenario's plan.
    pub env: Rc<crate::run::Env>,
}

impl Kernel {
    /// True when the defect is planted in this kernel.
    pub fn has(&self, defect: Defect) -> bool {
        self.defects.has(defect)
    }
}

/// A program running in a kernel: a task, or the boot code.
#[derive(Clone)]
pub struct Task {
    /// The CPU it runs on.
    pub cpu: Cpu,
    /// The kernel it runs in.
    pub k: Rc<Kernel>,
}

impl Deref for Task {
    type Target = Cpu;

    fn deref(&self) -> &Cpu {
        &self.cpu
    }
}

impl Task {
    /// Address of a global.
    pub fn sym<T>(&self, section: Section, field: Field<T>) -> Ptr<T> {
        Ptr::from_pa(Pa(self.k.data.0 + section as u64 * SECTION_BYTES + u64::from(field.offset)))
    }

    /// Names the kernel function that is entered, for traces, and as long as the guard lives.
    pub fn call(&self, name: &'static str) -> InFunction<'_> {
        self.machine.note(verb::CALL, verb::pack_name(name));
        self.machine.enter(name)
    }

    /// `WARN_ON`: returns the condition; when it holds, the warning goes on the event stream.
    pub fn warn_on(&self, condition: bool, title: &'static str) -> bool {
        if condition {
            for (word, args) in verb::warn(title) {
                self.machine.note(word, args);
            }
        }
        condition
    }

    /// Says that a phase of the update begins.
    pub fn phase(&self, phase: verb::Phase) {
        self.machine.note(verb::PHASE, [phase as u64, 0, 0, 0]);
    }

    /// Counts a coverage mark.
    pub fn mark(&self, mark: crate::mark::Mark) {
        self.mark_of(mark, 0);
    }

    /// As [`Task::mark`], with what it befell: a device's requester id, a domain id.
    pub fn mark_of(&self, mark: crate::mark::Mark, of: u16) {
        self.machine.note(verb::MARK, [mark as u64, u64::from(of), 0, 0]);
    }
}
