//! The oracles of live update: one property a file, each with its sentence, its reason and its bad twin.
//!
//! All of them read events, bytes, shadow state and the caches of the units; none reads a variable of a kernel. The words of
//! `verb.rs` are taken as promises made at a boundary, never as verdicts. [`ledger`] keeps the one record they share.
//!
//! Order matters where one cause breaks several properties: the first oracle that speaks names the finding.
//!
//! Kept by `sim` itself, and only listed here: LOCK, LIFE, P7.

pub mod contract;

mod adoption;
mod availability;
mod callbacks;
mod content;
mod counter;
mod definedness;
mod entries;
mod handover;
mod hardware_write;
mod i1;
mod i10;
mod i2;
mod i3;
mod i5;
mod i6;
mod i7;
mod i8;
mod i9;
mod inspect;
mod kinds;
mod l1;
mod l2;
mod l3;
pub mod ledger;
mod p1;
mod p3;
mod references;
mod rollback;
mod running;
mod tables;
#[cfg(test)]
mod testing;
mod tracker;
mod undo;
mod unexplained;

use std::cell::RefCell;
use std::rc::Rc;

use sim::memory_model::MemoryModel;
use sim::oracle::{Finding, Oracle};
use sim::trace::Event;

use crate::defect::Defect;
use crate::run::Counts;
use crate::topology::Topology;
pub use ledger::Ledger;

/// One line of `lurch list oracles`.
#[derive(Clone, Copy, Debug)]
pub struct OracleInfo {
    /// Name of the property.
    pub name: &'static str,
    /// The property in one sentence.
    pub sentence: &'static str,
    /// The planted bug it must catch, itself and no other property.
    pub bad: Defect,
}

const fn info(name: &'static str, sentence: &'static str, bad: Defect) -> OracleInfo {
    OracleInfo { name, sentence, bad }
}

/// Every property that is judged.
pub const CATALOGUE: &[OracleInfo] = &[
    info("I1", "No frame that a device can reach, by live tables or a cached translation, is free or handed out.", Defect::TableEntryKept),
    info(
        "I2",
        "At the jump every frame on the paths of preserved devices is in the tracker with exactly its block.",
        Defect::PreserveSkipsTable,
    ),
    info("I3", "Every DMA request reaches a frame that was legal for its address at some time of its life.", Defect::WrongFrameMapped),
    info(
        "I5",
        "A kernel hands out nothing outside scratch before it knows what was preserved, and never preserved memory it has not restored.",
        Defect::AllocBeforeReserve,
    ),
    info("I6", "Only what was handed over is restored, and that at most once.", Defect::RestoreKeepsMagic),
    info(
        "I7",
        "While a domain is immutable or preserved, nothing but accessed and dirty bits changes in its tables.",
        Defect::MapWhileImmutable,
    ),
    info("I8", "No table page is freed and no page unpinned while a unit holds something made from it.", Defect::FreeBeforeFlush),
    info("I9", "A domain id that hardware uses for a device is not given to another domain of its unit.", Defect::DomainIdNotReserved),
    info(
        "I10",
        "At the jump nothing leads an unpreserved device to memory, and no unit holds anything older than its tables.",
        Defect::ShutdownWithoutFlush,
    ),
    info(
        "L1",
        "When nothing is preserved any more, tracker and metadata are what they were when nothing was preserved yet.",
        Defect::UnpreserveSkipsFolio,
    ),
    info("L2", "After everything was finished nothing handed over is left, and its metadata is freed.", Defect::FinishKeepsHeader),
    info(
        "L3",
        "At the jump each record of the tracker is allocated memory of exactly its order, the same that was preserved.",
        Defect::FreeWithoutUnpreserve,
    ),
    info("P1", "Each preserved file is unpreserved at most once, the last preserved first, and none is forgotten.", Defect::CloseInOrder),
    info(
        "P3",
        "FLB callbacks alternate; retrieve succeeds at most once; finish runs at most once, after retrieve, when no file is left.",
        Defect::FlbFinishEarly,
    ),
    info(
        "LOCK",
        "Locks are taken and released in order, by their owner, and never slept under; nobody waits for ever.",
        Defect::LeaveLocked,
    ),
    info("LIFE", "No access touches memory that is free, beyond its object, or handed over and not restored.", Defect::NextAfterFree),
    info("P7", "Nothing that may sleep is called under a spinlock.", Defect::PreserveUnderSpinlock),
    info("CONTENT", "Guest memory keeps its place and its bytes over the update.", Defect::RetrieveLosesUptodate),
    info("handover", "What is handed over names what was promised, once, and nothing else.", Defect::DeletedFlagForgotten),
    info("tables", "Every page-table page hangs in the tree of its domain, or was freed.", Defect::LostRaceLeaksTable),
    info("tracker", "The KHO tracker is made of its own pages, and of all of them.", Defect::TrackerSlotDangles),
    info("callbacks", "The callbacks of a file come in the order of its life; none is skipped, none doubled.", Defect::UnfreezeSkipped),
    info("references", "At rest every count of holders is what the holders make it.", Defect::UnpreserveKeepsHold),
    info("rollback", "A call that fails frees whatever it had allocated.", Defect::FailedPreserveKeepsFile),
    info("undo", "A call that fails leaves every object it found as it was.", Defect::RollbackKeepsImmutable),
    info("entries", "A context entry that is present is complete.", Defect::PresentTooEarly),
    info("adoption", "Once devices are probed, they walk only tables that this kernel has restored.", Defect::RestoreSkipsTable),
    info(
        "availability",
        "A mapping valid during a device's whole request is never faulted, lost, or served from another frame.",
        Defect::AttachBlocksFirst,
    ),
    info(
        "running",
        "A device that its guest started stays able to issue what it was programmed with while it is preserved.",
        Defect::PreservedDeviceStopped,
    ),
    info("hardware-write", "Every hardware write hits memory that whoever programmed its address still owns.", Defect::QueueFreedInUse),
    info("unexplained", "Every error, warning and stop has a cause in the run.", Defect::StrayWarn),
    info("definedness", "No byte of handed-over metadata is undefined, and none is acted on.", Defect::UndefinedByte),
];

/// What a run declares about itself.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Context {
    /// The two kernels differ in revision: the incoming one may refuse what it does not understand.
    pub incompatible: bool,
    /// Objects in a page of an object array, where the plan lowers it.
    pub slots: Option<u64>,
    /// How CPUs' stores reach memory.
    pub model: MemoryModel,
}

/// All oracles of a run, in the order in which they are asked, and what they count in `counts`.
pub fn all(topo: &Rc<Topology>, counts: &Rc<RefCell<Counts>>) -> Vec<Box<dyn Oracle>> {
    all_in(topo, counts, Context::default())
}

/// As [`all`], for a run that declares something about itself.
pub fn all_in(topo: &Rc<Topology>, counts: &Rc<RefCell<Counts>>, context: Context) -> Vec<Box<dyn Oracle>> {
    let ledger = Rc::new(RefCell::new(Ledger::new(topo, context)));
    let l = || ledger.clone();
    let mut oracles: Vec<Box<dyn Oracle>> = vec![
        Box::new(ledger::Keeper(l())),
        Box::new(counter::Counter::new(l(), counts.clone(), topo)),
        Box::new(i2::Closure::new(l())),
        Box::new(l3::Records::new(l())),
        Box::new(handover::Handover::new(l(), topo)),
        Box::new(i6::RestoreOnce::new(l())),
        Box::new(i5::Allocation::new(l())),
        Box::new(i8::BeforeInvalidation::new(l())),
        Box::new(i1::Reachable::new(l())),
        Box::new(i9::DomainIds::new(l(), topo)),
        Box::new(i7::Immutable::new(l(), topo)),
        Box::new(hardware_write::HardwareWrite::new(l(), topo)),
        Box::new(adoption::Adoption::new(l())),
        Box::new(i3::Landing::new(l())),
        Box::new(availability::Availability::new(l())),
        Box::new(running::Running::new(l())),
        Box::new(content::Content::new(l())),
        Box::new(i10::CutOff::new(l())),
        Box::new(tracker::Tracker::new(l())),
        Box::new(tables::Tables::new(l())),
        Box::new(p1::Unpreserve::new()),
        Box::new(callbacks::Callbacks::new(l())),
        Box::new(p3::Flb::new(l())),
        Box::new(l1::Quiescent::new(l())),
        Box::new(references::References::new(l())),
        Box::new(rollback::Rollback::new(l())),
        Box::new(l2::Finished::new(l())),
        Box::new(definedness::Definedness::new(l())),
    ];
    // Where stores of one CPU pass each other, no order of two of them is promised; a host with this unit has none such.
    if context.model != MemoryModel::Weak {
        oracles.push(Box::new(entries::Entries));
    }
    // What waits in a store buffer is not in the memory this one reads.
    if context.model == MemoryModel::Sc {
        oracles.push(Box::new(undo::Undo::new(l())));
    }
    // It closes the call that returns: whoever asks about that call is asked before.
    oracles.push(Box::new(unexplained::Unexplained::new(l())));
    oracles
}

/// A finding at `event`.
fn finding(property: &'static str, title: impl Into<String>, event: &Event, details: Vec<String>) -> Option<Finding> {
    Some(Finding { property, title: title.into(), details, step: event.step, actor: event.actor })
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: canaries and catalogue agree. Method: every bad twin names the property it is for, or one that the same cause breaks.
    #[test]
    fn every_property_is_named_once() {
        for (index, info) in CATALOGUE.iter().enumerate() {
            assert!(CATALOGUE[..index].iter().all(|other| other.name != info.name), "{} twice", info.name);
        }
    }
}
