//! rollback: a call that fails frees whatever it had allocated.
//!
//! Formal: for a call of userspace that returns an error, and that no other call overlapped: for every tag, the program took as many blocks and
//! objects of it during the call as it gave back, or less.
//!
//! Why: error paths are what nobody runs. A leak there is lost memory in a kernel that lives for years, and a reference or a lock is often
//! forgotten beside it. In an incoming kernel there is no earlier quiet moment that L1 could compare with. Source: facts/live-update.md
//! 2.4 to 2.9 ("errors undo exactly the steps before them"), 4.12, 6.
//!
//! Not counted: what the kernel keeps for later by design (slab pages, nodes of trees and tables, array pages of the IOMMU FLB, guest memory
//! that was touched), what the first
//! call of an incoming kernel reads of the hand-over, and calls that had done all their work when only their answer could not be copied out.
//!
//! Cannot see: what a failed call freed too much; references and flags left behind. Bad twin: `failed-preserve-keeps-file`.

use std::cell::RefCell;
use std::rc::Rc;

use sim::engine::ChoiceKind;
use sim::memory::Tag;
use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};
use smallvec::SmallVec;

use super::contract::call;
use super::ledger::Ledger;
use super::{finding, kinds};
use crate::{callee, errno, tag, verb};

/// Tags there are.
const NR_TAGS: usize = 64;

/// What is kept for later, whoever asked for it first.
const KEPT: [Tag; 12] = [
    tag::SLAB,
    tag::MEMMAP,
    tag::KHO_RADIX,
    tag::VTD_CONTEXT,
    tag::XA_NODE,
    tag::OTHER,
    tag::IOMMU_TABLE,
    tag::MEMFD_FOLIO,
    tag::IOMMUFD_OBJECTS,
    tag::IOMMU_DOMAIN_ARRAY,
    tag::IOMMU_DEVICE_ARRAY,
    tag::IOMMU_HW_ARRAY,
];

/// What an incoming kernel makes of the hand-over when it first looks at it, and keeps although the call at hand fails.
const HANDED_OVER: [Tag; 5] = [tag::LUO_SESSION, tag::LUO_FILE, tag::KHO_BLOCK, tag::IOMMU_FLB_OBJ, tag::TEST_FLB];

/// Calls that have done their work before they copy out an answer, and do not take it back. A device whose bind cannot be told goes to its
/// default domain, not back to the one it came with.
const ANSWER_LAST: [u8; 5] = [call::VFIO_BIND, call::IOAS_MAP, call::PRESERVE_FD, call::RETRIEVE_FD, call::RETRIEVE_SESSION];

/// A call under way.
#[derive(Clone, Debug)]
struct Balance {
    actor: u8,
    /// Taken and not given back, by tag.
    taken: [i16; NR_TAGS],
    /// Its answer could not be copied out.
    unanswered: bool,
}

/// The oracle.
pub(super) struct Rollback {
    ledger: Rc<RefCell<Ledger>>,
    calls: SmallVec<[Balance; 4]>,
}

impl Rollback {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>) -> Rollback {
        Rollback { ledger, calls: SmallVec::new() }
    }

    fn call(&mut self, event: &Event) -> Option<&mut Balance> {
        self.calls.iter_mut().find(|call| call.actor == event.actor.0)
    }

    fn count(&mut self, event: &Event, tag: Tag, change: i16) {
        if let Some(count) = self.call(event).and_then(|call| call.taken.get_mut(usize::from(tag.0))) {
            *count = count.saturating_add(change);
        }
    }

    fn returned(&mut self, event: &Event, number: u8, result: i32) -> Option<Finding> {
        let at = self.calls.iter().position(|call| call.actor == event.actor.0)?;
        let balance = self.calls.swap_remove(at);
        let ledger = self.ledger.borrow();
        if result >= 0 || ledger.call_of(event).overlapped || balance.unanswered && ANSWER_LAST.contains(&number) {
            return None;
        }
        let kept = |tag: Tag| KEPT.contains(&tag) || ledger.era > 0 && number != call::PRESERVE_FD && HANDED_OVER.contains(&tag);
        let tag = (0..NR_TAGS as u16).map(Tag).find(|tag| balance.taken[usize::from(tag.0)] > 0 && !kept(*tag))?;
        let name = tag::name(tag);
        let details = vec![format!("{} returned {}, and keeps {}", call::name(number), errno::name(result), name)];
        finding("rollback", format!("failed-{}-leaves: {name}", call::name(number)), event, details)
    }
}

impl Oracle for Rollback {
    fn name(&self) -> &'static str {
        "rollback"
    }

    fn interests(&self) -> u32 {
        let memory = kinds::FRAMES_TAKEN | kinds::FRAMES_FREED | kinds::OBJECT_TAKEN | kinds::OBJECT_FREED;
        memory | kinds::INJECTED | kinds::JUMPED | kinds::NOTE
    }

    fn verbs(&self) -> u64 {
        kinds::verbs(&[verb::USER_CALL, verb::USER_RETURN])
    }

    fn on_event(&mut self, event: &Event, _: &View<'_>) -> Option<Finding> {
        match event.kind {
            EventKind::ObjectTaken { tag, .. } | EventKind::FramesTaken { tag, .. } => self.count(event, tag, 1),
            EventKind::ObjectFreed { tag, .. } | EventKind::FramesFreed { tag, .. } => self.count(event, tag, -1),
            EventKind::Injected { kind: ChoiceKind::CalleeFails, class: callee::COPY_USER } => {
                if let Some(call) = self.call(event) {
                    call.unanswered = true;
                }
            }
            EventKind::Jumped { .. } => self.calls.clear(),
            EventKind::Note { verb: verb::USER_CALL, .. } => {
                self.calls.retain(|call| call.actor != event.actor.0);
                self.calls.push(Balance { actor: event.actor.0, taken: [0; NR_TAGS], unanswered: false });
            }
            EventKind::Note { verb: verb::USER_RETURN, args } => return self.returned(event, args[0] as u8, args[1] as i64 as i32),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use iommu_model::addr::Pa;

    use super::super::testing::Bench;
    use super::*;
    use crate::errno::{EFAULT, ENOMEM};

    fn bench() -> Bench {
        Bench::new().judge_with(|ledger| Box::new(Rollback::new(ledger)))
    }

    fn take(bench: &mut Bench, tag: Tag) {
        assert_eq!(bench.feed(EventKind::ObjectTaken { pa: Pa(0x5000), bytes: 64, tag }), None);
    }

    fn back(bench: &mut Bench, number: u8, result: i32) -> Option<String> {
        bench.note(verb::USER_RETURN, [u64::from(number), i64::from(result) as u64, 0, 0]).map(|found| found.title)
    }

    // Goal: what a failed call allocated is freed when it returns; what a call that succeeds allocated is its own.
    #[test]
    fn a_failed_call_keeps_nothing() {
        let mut bench = bench();
        bench.user_call(call::IOAS_MAP);
        take(&mut bench, tag::AREA);
        assert_eq!(back(&mut bench, call::IOAS_MAP, 0), None);
        let mut bench = self::bench();
        bench.user_call(call::IOAS_MAP);
        take(&mut bench, tag::AREA);
        assert_eq!(back(&mut bench, call::IOAS_MAP, ENOMEM).as_deref(), Some("failed-ioas-map-leaves: struct iopt_area"));
        let mut bench = self::bench();
        bench.user_call(call::IOAS_MAP);
        take(&mut bench, tag::AREA);
        bench.feed(EventKind::ObjectFreed { pa: Pa(0x5000), tag: tag::AREA });
        take(&mut bench, tag::XA_NODE);
        assert_eq!(back(&mut bench, call::IOAS_MAP, ENOMEM), None);
    }

    // Goal: a file whose preservation cannot be told stays preserved; every other failure of the call gives it back.
    #[test]
    fn a_call_that_could_not_answer_has_done_its_work() {
        for (answered, leaves) in [(false, None), (true, Some("failed-preserve-fd-leaves: struct luo_file".to_owned()))] {
            let mut bench = bench();
            bench.user_call(call::PRESERVE_FD);
            take(&mut bench, tag::LUO_FILE);
            if !answered {
                bench.feed(EventKind::Injected { kind: ChoiceKind::CalleeFails, class: callee::COPY_USER });
            }
            assert_eq!(back(&mut bench, call::PRESERVE_FD, EFAULT), leaves);
        }
    }
}
