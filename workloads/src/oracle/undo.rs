//! undo: a call that fails leaves every object it found as it was.
//!
//! Formal: for a call of userspace that returns an error, and that no other call overlapped: each word of a kernel object, or of a global
//! variable, that the program stored to during the call, and whose object was there before the call and still is, has the value it had
//! before the call.
//!
//! Why: who retries, or closes, meets what an error path forgot: a count one too high, a flag that stays set, a descriptor that stays
//! reserved, a link into freed memory. Source: facts/live-update.md 2.4 to 2.9 ("errors undo exactly the steps before them"), 4.12, 6.
//!
//! Not judged: runs in which stores wait in a CPU's buffer when its call returns (memory models other than SC), pages that a memfd got
//! meanwhile, the blocking domain that a group keeps, an error that is remembered by design, and calls that had done all their
//! work when only their answer could not be copied out.
//!
//! Cannot see: tables and serialized memory (tables, tracker, handover, L1 judge those). Bad twins: `rollback-keeps-immutable`,
//! `rollback-leaks-hold`.

use std::cell::RefCell;
use std::rc::Rc;

use iommu_model::addr::Pa;
use sim::engine::ChoiceKind;
use sim::memory::{Memory, ObjectState, Tag};
use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};
use smallvec::SmallVec;

use super::contract::call;
use super::ledger::{Call, Ledger};
use super::{finding, kinds};
use crate::kernel::iommu::group::Group;
use crate::{callee, errno, tag, verb};

/// Objects whose words a failed call leaves alone.
const JUDGED: [Tag; 15] = [
    tag::FILE,
    tag::FD_TABLE,
    tag::LUO_SESSION,
    tag::LUO_FILE,
    tag::IOAS,
    tag::HWPT,
    tag::AREA,
    tag::IOMMUFD_CTX,
    tag::IOMMUFD_DEVICE,
    tag::VFIO_DEVICE,
    tag::DEVICE_INFO,
    tag::GROUP,
    tag::SHMEM_INODE,
    tag::DOMAIN_INFO,
    tag::CACHE_TAG,
];

/// Bytes of an inode before its page cache: guest memory that a failed call touched stays.
const INODE_BYTES: u64 = 32;

/// Calls that have done their work before they copy out an answer, and do not take it back, or take back more than they did.
const ANSWER_LAST: [u8; 9] = [
    call::IOAS_MAP,
    call::IOAS_UNMAP,
    call::PRESERVE_FD,
    call::RETRIEVE_FD,
    call::RETRIEVE_SESSION,
    call::FINISH,
    call::VFIO_BIND,
    call::VFIO_ATTACH,
    call::VFIO_REPLACE,
];

/// Stores of one call that are kept; one that stores more is not judged.
const STORES_MAX: usize = 4096;

/// A call under way.
#[derive(Debug, Default)]
struct Log {
    actor: u8,
    /// Word and the value it had, in order of the stores.
    stores: Vec<(Pa, u8, u64)>,
    /// Its answer could not be copied out.
    unanswered: bool,
}

/// The oracle.
pub(super) struct Undo {
    ledger: Rc<RefCell<Ledger>>,
    calls: SmallVec<[Log; 4]>,
    /// Logs that are not in use: their memory.
    spare: Vec<Log>,
}

impl Undo {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>) -> Undo {
        Undo { ledger, calls: SmallVec::new(), spare: Vec::new() }
    }

    fn begin(&mut self, event: &Event) {
        self.end(event);
        let mut log = self.spare.pop().unwrap_or_default();
        log.stores.clear();
        log.actor = event.actor.0;
        log.unanswered = false;
        self.calls.push(log);
    }

    fn end(&mut self, event: &Event) -> Option<&mut Log> {
        let at = self.calls.iter().position(|call| call.actor == event.actor.0)?;
        let log = self.calls.swap_remove(at);
        self.spare.push(log);
        self.spare.last_mut()
    }

    fn log(&mut self, event: &Event) -> Option<&mut Log> {
        self.calls.iter_mut().find(|call| call.actor == event.actor.0)
    }

    /// What the word belongs to, if that was there when the call began.
    fn found(memory: &Memory, pa: Pa, call: &Call) -> Option<Tag> {
        let frame = memory.frame(pa)?;
        if frame.tag != tag::SLAB {
            return None;
        }
        let (page, slot) = memory.slot_at(pa)?;
        let slab = memory.slabs.get(page)?;
        let object = slab.slots.get(slot)?;
        let there = object.state == ObjectState::Live && u64::from(object.since) < call.since;
        let cached = object.tag == tag::SHMEM_INODE && pa.0 % 4096 >= slab.offset_of(slot) + INODE_BYTES;
        // A group makes its blocking domain once, and keeps it (`__iommu_group_alloc_blocking_domain()`).
        let kept = object.tag == tag::GROUP && pa.0 % 4096 == slab.offset_of(slot) + u64::from(Group::BLOCKING_DOMAIN.offset);
        (there && !cached && !kept && JUDGED.contains(&object.tag)).then_some(object.tag)
    }

    /// True where a failure is remembered by design: what an incoming kernel could not take over, it does not try again.
    fn is_remembered(number: u8, era: u8, tag: Tag) -> bool {
        let takes_over = era > 0 && [call::CREATE_SESSION, call::RETRIEVE_SESSION, call::RETRIEVE_FD].contains(&number);
        takes_over && [tag::LUO_SESSION, tag::LUO_FILE].contains(&tag)
    }

    fn returned(&mut self, event: &Event, view: &View<'_>, number: u8, result: i32) -> Option<Finding> {
        let ledger = self.ledger.clone();
        let log = self.end(event)?;
        let ledger = ledger.borrow();
        let call = ledger.call_of(event);
        let unanswered = log.unanswered && ANSWER_LAST.contains(&number);
        if result >= 0 || call.overlapped || unanswered || log.stores.len() == STORES_MAX {
            return None;
        }
        // The first store of each word has the value from before.
        log.stores.sort_by_key(|store| store.0.0);
        log.stores.dedup_by_key(|store| store.0.0);
        for (pa, bytes, before) in &log.stores {
            let Some(owner) = Undo::found(view.memory, *pa, call) else { continue };
            let now = view.memory.ram.load(*pa, *bytes);
            if now != *before && !Undo::is_remembered(number, ledger.era, owner) {
                let name = tag::name(owner);
                let details = vec![
                    format!("{} returned {}", call::name(number), errno::name(result)),
                    format!("{name}, {bytes} bytes at pa {:#x}: {before:#x} before the call, {now:#x} after it", pa.0),
                ];
                return finding("undo", format!("failed-{}-changes: {name}", call::name(number)), event, details);
            }
        }
        None
    }
}

impl Oracle for Undo {
    fn name(&self) -> &'static str {
        "undo"
    }

    fn interests(&self) -> u32 {
        kinds::STORE | kinds::INJECTED | kinds::JUMPED | kinds::NOTE
    }

    fn verbs(&self) -> u64 {
        kinds::verbs(&[verb::USER_CALL, verb::USER_RETURN])
    }

    fn on_event(&mut self, event: &Event, view: &View<'_>) -> Option<Finding> {
        match event.kind {
            EventKind::Store { pa, bytes, old, .. } => {
                if let Some(log) = self.log(event).filter(|log| log.stores.len() < STORES_MAX) {
                    log.stores.push((pa, bytes, old));
                }
            }
            EventKind::Injected { kind: ChoiceKind::CalleeFails, class: callee::COPY_USER } => {
                if let Some(log) = self.log(event) {
                    log.unanswered = true;
                }
            }
            EventKind::Jumped { .. } => self.calls.clear(),
            EventKind::Note { verb: verb::USER_CALL, .. } => self.begin(event),
            EventKind::Note { verb: verb::USER_RETURN, args } => return self.returned(event, view, args[0] as u8, args[1] as i64 as i32),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use sim::engine::ActorId;
    use sim::memory::{FrameState, SlabObject, SlabPage};

    use super::super::testing::Bench;
    use super::*;
    use crate::errno::{EFAULT, ENOMEM};

    const WORD: Pa = Pa(0x70_008);

    /// A slab page with one live object at its head.
    fn bench(tag: Tag) -> Bench {
        let mut bench = Bench::new().judge_with(|ledger| Box::new(Undo::new(ledger)));
        bench.set_frame(WORD, FrameState::Owned, tag::SLAB);
        let object = SlabObject { state: ObjectState::Live, bytes: 64, tag, version: 1, by: ActorId(3), ..SlabObject::default() };
        bench.memory.slabs.push(SlabPage { pfn: 0x70, slot_log2: 6, nr_free: 0, nr_quarantined: 0, slots: vec![object; 64] });
        bench.memory.frames[0x70].slab = 1;
        bench
    }

    fn back(bench: &mut Bench, number: u8, result: i32) -> Option<String> {
        bench.note(verb::USER_RETURN, [u64::from(number), i64::from(result) as u64, 0, 0]).map(|found| found.title)
    }

    // Goal: a word that a failed call changed, and did not change back, is found; a call that succeeds may change what it likes.
    #[test]
    fn a_failed_call_changes_nothing() {
        for (stores, result, found) in
            [(&[1][..], ENOMEM, Some("failed-hwpt-alloc-changes: struct file".to_owned())), (&[1, 2, 0], ENOMEM, None), (&[1], 0, None)]
        {
            let mut bench = bench(tag::FILE);
            bench.user_call(call::HWPT_ALLOC);
            stores.iter().for_each(|value| assert_eq!(bench.store(WORD, *value), None));
            assert_eq!(back(&mut bench, call::HWPT_ALLOC, result), found);
        }
    }

    // Goal: only kernel objects that the call found are judged.
    #[test]
    fn other_memory_is_not_judged() {
        let mut bench = bench(tag::XA_NODE);
        bench.user_call(call::HWPT_ALLOC);
        bench.store(WORD, 1);
        bench.store(Pa(0x60_000), 1);
        assert_eq!(back(&mut bench, call::HWPT_ALLOC, ENOMEM), None);
        let mut bench = self::bench(tag::FILE);
        bench.user_call(call::HWPT_ALLOC);
        bench.memory.slabs[0].slots[0].since = 100;
        bench.store(WORD, 1);
        assert_eq!(back(&mut bench, call::HWPT_ALLOC, ENOMEM), None, "made by the call");
    }

    // Goal: a call whose answer alone failed has done its work, where that is its contract.
    #[test]
    fn a_call_that_could_not_answer_has_done_its_work() {
        for (number, judged) in [(call::PRESERVE_FD, false), (call::HWPT_ALLOC, true)] {
            let mut bench = bench(tag::FILE);
            bench.user_call(number);
            bench.store(WORD, 1);
            bench.feed(EventKind::Injected { kind: ChoiceKind::CalleeFails, class: callee::COPY_USER });
            assert_eq!(back(&mut bench, number, EFAULT).is_some(), judged);
        }
    }
}
