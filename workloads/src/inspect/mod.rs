//! What one kernel hands to the next, decoded field by field from the bytes in RAM.
//!
//! The decoder starts at the KHO root FDT and follows addresses, as the next kernel would: root FDT, LUO (tree and arrays of
//! generation 1, `luo_ser` and blocks of generation 2), sessions, files, FLBs, the IOMMU arrays with root, context and page
//! tables, and last the tracker. Which layout holds is told by the `compatible` strings in the bytes, never by the run. Field
//! names and offsets come from [`abi`](crate::abi), the tables that the kernels themselves use.
//!
//! | file | decodes |
//! | --- | --- |
//! | `text` | nothing: bounded reading, lines, names of frames |
//! | `fdt` | flattened trees |
//! | `kho` | root FDT, tracker, what is named but not preserved |
//! | `luo` | LUO, sessions, files, FLBs |
//! | `files` | `memfd_luo_ser`, `iommufd_ser`, `vfio_pci_core_device_ser` |
//! | `iommu` | `iommu_flb_ser` with all below it |
//!
//! A frame is named by what the structures above it say it is (`IOMMU page table#2`), numbered in the order in which the
//! decoder meets it; its address stands behind the name. Entries stand in the order of their structure. The bytes are hostile:
//! words read and lines written are bounded, and what cannot be decoded is said where it stands.

mod fdt;
mod files;
mod iommu;
mod kho;
mod luo;
mod text;

use std::cell::RefCell;
use std::rc::Rc;

use iommu_model::addr::Pa;
use sim::memory::{FrameState, Memory, Ram};
use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind, Verb};

use crate::mark::Mark;
use crate::names;
use crate::tag;
use crate::verb;
use text::Decoder;

/// Most snapshots of one run.
const SNAPSHOTS_MAX: usize = 8;

/// When a snapshot is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// `machine_kexec()` is about to jump.
    Kexec,
    /// A mark is hit.
    Mark(Mark),
}

impl At {
    /// `kexec`, `adoption`, `finish`, or a mark by its name.
    ///
    /// # Errors
    /// Names the mark this build does not have.
    pub fn parse(text: &str) -> Result<At, String> {
        match text {
            "kexec" => return Ok(At::Kexec),
            "adoption" => return Ok(At::Mark(Mark::AdoptionDone)),
            "finish" => return Ok(At::Mark(Mark::FinishReached)),
            _ => {}
        }
        let candidates = || ["kexec", "adoption", "finish"].into_iter().chain(Mark::ALL.iter().map(|mark| mark.name()));
        let found = Mark::ALL.iter().copied().find(|mark| mark.name() == text);
        let fault = || format!("no mark `{}`{}; next: lurch list marks", names::shortened(text, 40), names::hint(text, candidates()));
        found.map(At::Mark).ok_or_else(fault)
    }

    /// The name that titles and file names show.
    pub const fn name(self) -> &'static str {
        match self {
            At::Kexec => "kexec",
            At::Mark(mark) => mark.name(),
        }
    }
}

/// Decodes everything that the root FDT at `fdt` leads to.
pub fn decode(ram: &Ram, fdt: Pa) -> String {
    let mut decoder = Decoder::new(ram);
    kho::handover(&mut decoder, fdt);
    decoder.finish()
}

/// Takes the snapshots that [`How::snapshot_at`](crate::run::How) asks for: (when, text).
pub struct Snapshotter {
    at: At,
    /// Root FDT that the last jump handed over.
    handed_over: Option<Pa>,
    out: Rc<RefCell<Vec<(String, String)>>>,
}

impl Snapshotter {
    /// A snapshotter that leaves its texts in `out`.
    pub fn new(at: At, out: Rc<RefCell<Vec<(String, String)>>>) -> Snapshotter {
        Snapshotter { at, handed_over: None, out }
    }

    fn take(&mut self, memory: &Memory) {
        let mut out = self.out.borrow_mut();
        if out.len() >= SNAPSHOTS_MAX {
            return;
        }
        let at = self.at.name();
        let text = match self.handed_over.or_else(|| outgoing_fdt(memory)) {
            Some(fdt) => format!("preserved state at {at}\n\n{}", decode(&memory.ram, fdt)),
            None => format!("preserved state at {at}: none, KHO is off\n"),
        };
        out.push((at.to_owned(), text));
    }
}

/// The root FDT that the running kernel writes: the one page its allocator gave out as such.
fn outgoing_fdt(memory: &Memory) -> Option<Pa> {
    let is_fdt = |frame: &sim::memory::Frame| frame.state == FrameState::Owned && frame.tag == tag::KHO_FDT && frame.era == memory.era;
    memory.frames.iter().position(is_fdt).map(|pfn| Pa((pfn as u64) << 12))
}

impl Oracle for Snapshotter {
    fn name(&self) -> &'static str {
        "snapshot"
    }

    fn interests(&self) -> u32 {
        EventKind::Note { verb: Verb(0), args: [0; 4] }.bit()
    }

    fn on_event(&mut self, event: &Event, view: &View<'_>) -> Option<Finding> {
        match event.kind {
            EventKind::Note { verb: verb::BEFORE_JUMP, args } => {
                self.handed_over = (args[0] != 0).then_some(Pa(args[0]));
                if self.at == At::Kexec {
                    // Without hand-over there is nothing; the page that this kernel wrote is nobody's business then.
                    match self.handed_over {
                        Some(_) => self.take(view.memory),
                        None => self.out.borrow_mut().push(("kexec".to_owned(), "preserved state at kexec: none, KHO is off\n".to_owned())),
                    }
                }
            }
            EventKind::Note { verb: verb::MARK, args } if Mark::from_number(args[0]).map(At::Mark) == Some(self.at) => {
                self.take(view.memory);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests;
