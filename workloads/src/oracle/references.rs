//! references: at rest every count of holders is what the holders make it.
//!
//! Formal: the first session is created while nothing else is under way; what userspace has open then, it has open at each quiet moment
//! after it, unless it closes it. So at each quiet moment each object that was there has the same count of holders as then; a memfd's
//! file counts one holder more for each area that pins pages of it, so for memfds the sum over all files, less the areas, is kept.
//! And for each pair of a unit and a domain that has a device attached there are exactly one `iommu_domain_info` and one cache tag.
//!
//! Why: a count too high keeps memory for ever, and a file preserved for ever busy; a count too low frees what is in use when the last
//! but one holder goes. Neither shows before everything is closed, which few runs do. Source: facts/live-update.md 7 (L1, L4), 4.12.
//!
//! Counts are read from the objects' bytes; which word of an object counts is the kernel's layout.
//!
//! Cannot see: anything in a later kernel whose first session is created before everything is finished; one holder too many and one too few of the same object. Bad twin: `unpreserve-keeps-hold`.

use std::cell::RefCell;
use std::rc::Rc;

use iommu_model::addr::Pa;
use sim::memory::{Memory, ObjectState, SlabObject, Tag};
use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};
use smallvec::SmallVec;

use super::contract::call;
use super::ledger::Ledger;
use super::{finding, kinds};
use crate::kernel::file::{File, FileKind};
use crate::kernel::iommu::group::Group;
use crate::kernel::iommufd::object::Object;
use crate::kernel::vfio::VfioDevice;
use crate::tag;
use crate::verb::{self, Phase};

/// Words that count holders: which objects, offset in them, name.
const COUNTS: [(Tag, u16, &str); 8] = [
    (tag::FILE, File::F_COUNT.offset, "f_count"),
    (tag::VFIO_DEVICE, VfioDevice::REFCOUNT.offset, "refcount"),
    (tag::GROUP, Group::OWNER_CNT.offset, "owner_cnt"),
    (tag::HWPT, Object::USERS.offset, "users"),
    (tag::IOAS, Object::USERS.offset, "users"),
    (tag::IOMMUFD_DEVICE, Object::USERS.offset, "users"),
    (tag::HWPT, Object::WAIT_CNT.offset, "wait_cnt"),
    (tag::IOAS, Object::WAIT_CNT.offset, "wait_cnt"),
];

/// A count of an object.
#[derive(Clone, Copy, Debug)]
struct Count {
    at: Pa,
    version: u32,
    tag: Tag,
    name: &'static str,
    value: u64,
}

/// What was counted at one moment.
#[derive(Default)]
struct Census {
    counts: Vec<Count>,
    /// Holders of memfds that are no areas.
    memfds: i64,
}

/// Every live object with its address.
fn objects(memory: &Memory) -> impl Iterator<Item = (Pa, &SlabObject)> {
    memory.slabs.iter().flat_map(|slab| {
        let page = Pa(u64::from(slab.pfn) << 12);
        let live = slab.slots.iter().enumerate().filter(|(_, object)| object.state == ObjectState::Live);
        live.map(move |(slot, object)| (page.offset(slab.offset_of(slot)), object))
    })
}

fn load(memory: &Memory, at: Pa) -> u64 {
    memory.ram.load(at, 4)
}

impl Census {
    fn take(memory: &Memory) -> Census {
        let mut census = Census::default();
        for (at, object) in objects(memory) {
            if object.tag == tag::IOPT_PAGES {
                census.memfds -= 1;
            }
            // Smaller objects of a tag are something else that hangs on it.
            let counts = COUNTS.into_iter().filter(|(tag, offset, _)| *tag == object.tag && offset + 4 <= object.bytes);
            for (_, offset, name) in counts {
                let value = load(memory, at.offset(u64::from(offset)));
                let kind = if object.tag == tag::FILE { load(memory, at.offset(u64::from(File::KIND.offset))) } else { 0 };
                if kind == FileKind::Memfd as u64 {
                    census.memfds += value as i64;
                } else if kind != FileKind::LuoSession as u64 {
                    census.counts.push(Count { at: at.offset(u64::from(offset)), version: object.version, tag: object.tag, name, value });
                }
            }
        }
        census
    }

    /// What is not as it was in `before`.
    fn difference(&self, before: &Census) -> Option<(String, String)> {
        let was = |now: &Count| {
            let same = |count: &&Count| (count.at, count.version, count.name) == (now.at, now.version, now.name);
            before.counts.iter().find(same).map(|count| count.value)
        };
        let changed = self.counts.iter().find_map(|now| Some((now, was(now).filter(|was| *was != now.value)?)));
        if let Some((now, was)) = changed {
            let more = if now.value > was { "many" } else { "few" };
            let detail = format!("{} of {} at pa {}: was {was}, is {}", now.name, tag::name(now.tag), now.at, now.value);
            return Some((format!("too-{more}-holders: {}", tag::name(now.tag)), detail));
        }
        let (was, now) = (before.memfds, self.memfds);
        let more = if now > was { "many" } else { "few" };
        let detail = || format!("holders of all memfds, areas apart: {was} before, {now} now");
        (was != now).then(|| (format!("too-{more}-holders: memfd"), detail()))
    }
}

/// The oracle.
pub(super) struct References {
    ledger: Rc<RefCell<Ledger>>,
    before: Option<Census>,
    /// A session was created in this kernel.
    created: bool,
}

impl References {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>) -> References {
        References { ledger, before: None, created: false }
    }

    /// Bookkeeping of attachments, against the attachments.
    fn attachments(&self, event: &Event, memory: &Memory) -> Option<Finding> {
        let ledger = self.ledger.borrow();
        if ledger.failed_outside {
            return None;
        }
        let mut pairs: SmallVec<[(u8, u16); 16]> = SmallVec::new();
        for device in &ledger.devices {
            if let Some(domain) = device.domain().filter(|domain| ledger.domains[usize::from(*domain)].ptr != 0) {
                pairs.push((device.unit.0, domain));
            }
        }
        pairs.sort_unstable();
        pairs.dedup();
        let count = |tag: Tag| objects(memory).filter(|(_, object)| object.tag == tag).count();
        let tag = [tag::DOMAIN_INFO, tag::CACHE_TAG].into_iter().find(|tag| count(*tag) != pairs.len())?;
        let details = vec![format!("{} of {}, for {} pairs of a unit and an attached domain", count(tag), tag::name(tag), pairs.len())];
        let title = if count(tag) > pairs.len() { "kept-after-detach" } else { "missing-for-an-attached-domain" };
        finding("references", format!("{title}: {}", tag::name(tag)), event, details)
    }
}

impl Oracle for References {
    fn name(&self) -> &'static str {
        "references"
    }

    fn interests(&self) -> u32 {
        kinds::NOTE | kinds::JUMPED
    }

    fn verbs(&self) -> u64 {
        kinds::verbs(&[verb::USER_CALL, verb::QUIESCENT])
    }

    fn on_event(&mut self, event: &Event, view: &View<'_>) -> Option<Finding> {
        match event.kind {
            EventKind::Jumped { .. } => {
                self.before = None;
                self.created = false;
                None
            }
            EventKind::Note { verb: verb::USER_CALL, args } => {
                let ledger = self.ledger.borrow();
                // Who has created a session before may have something open that is closed later.
                let creates = args[0] == u64::from(call::CREATE_SESSION);
                let first = creates && !self.created;
                self.created |= creates;
                // What came over the jump is taken back bit by bit, until everything is finished.
                let settled = ledger.era == 0 || ledger.phase == Phase::Finished;
                if first && settled && ledger.alone(event) {
                    self.before = Some(Census::take(view.memory));
                }
                None
            }
            EventKind::Note { verb: verb::QUIESCENT, args } => {
                if let Some(found) = self.attachments(event, view.memory) {
                    return Some(found);
                }
                // With the virtual machines go their holds on what outlives them.
                if args[1] != 0 {
                    return None;
                }
                let (title, detail) = Census::take(view.memory).difference(self.before.as_ref()?)?;
                finding("references", title, event, vec![detail])
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Bench};
    use super::*;
    use sim::memory::SlabPage;

    const D: u64 = 0x1000_0000;

    /// A slab page with live objects of 64 bytes.
    fn slab(pfn: u32, tags: &[Tag]) -> SlabPage {
        let object = |tag: &Tag| SlabObject { state: ObjectState::Live, bytes: 64, tag: *tag, version: 1, ..SlabObject::default() };
        SlabPage { pfn, slot_log2: 6, slots: tags.iter().map(object).collect(), ..SlabPage::default() }
    }

    fn bench(tags: &[Tag]) -> Bench {
        let mut bench = Bench::new().judge_with(|ledger| Box::new(References::new(ledger)));
        bench.memory.slabs.push(slab(0x60, tags));
        bench
    }

    fn put(bench: &mut Bench, slot: u64, offset: u16, value: u64) {
        bench.memory.ram.store(Pa(0x60_000 + slot * 64 + u64::from(offset)), 4, value);
    }

    fn quiet(bench: &mut Bench) -> Option<String> {
        bench.note(verb::QUIESCENT, [0; 4]).map(|found| found.title)
    }

    // Goal: a count that is not what it was is found; other memfds and areas may come and go together.
    #[test]
    fn a_count_at_rest_is_what_it_was() {
        let mut bench = bench(&[tag::HWPT, tag::FILE, tag::IOPT_PAGES]);
        put(&mut bench, 0, Object::USERS.offset, 2);
        put(&mut bench, 1, File::F_COUNT.offset, 2);
        put(&mut bench, 1, File::KIND.offset, FileKind::Memfd as u64);
        bench.user_call(call::CREATE_SESSION);
        assert_eq!(quiet(&mut bench), None);
        bench.memory.slabs[0].slots[2].state = ObjectState::Free;
        assert_eq!(quiet(&mut bench).as_deref(), Some("too-many-holders: memfd"));
        put(&mut bench, 1, File::F_COUNT.offset, 1);
        assert_eq!(quiet(&mut bench), None);
        put(&mut bench, 0, Object::USERS.offset, 1);
        assert_eq!(quiet(&mut bench).as_deref(), Some("too-few-holders: struct iommufd_hwpt_paging"));
    }

    // Goal: nothing is held against a moment at which an earlier creator of a session may have had more open.
    #[test]
    fn only_before_the_first_session_is_everything_known() {
        let mut bench = bench(&[tag::HWPT]);
        put(&mut bench, 0, Object::USERS.offset, 2);
        bench.jump(&[]);
        bench.user_call(call::CREATE_SESSION);
        bench.phase(Phase::Finished);
        bench.user_call(call::CREATE_SESSION);
        put(&mut bench, 0, Object::USERS.offset, 1);
        assert_eq!(quiet(&mut bench), None);
    }

    // Goal: one cache tag and one record a pair of unit and domain, whatever the number of devices.
    #[test]
    fn an_attachment_has_its_bookkeeping() {
        let mut bench = bench(&[tag::DOMAIN_INFO, tag::CACHE_TAG]);
        assert_eq!(quiet(&mut bench).as_deref(), Some("kept-after-detach: struct iommu_domain_info"));
        bench.attach(D, 5);
        assert_eq!(quiet(&mut bench), None);
        bench.note(verb::DEVICE_ATTACHED, [u64::from(testing::OTHER_DEVICE.0), D, 5, 0]);
        assert_eq!(quiet(&mut bench), None);
        bench.memory.slabs[0].slots[1].state = ObjectState::Free;
        assert_eq!(quiet(&mut bench).as_deref(), Some("missing-for-an-attached-domain: struct cache_tag"));
    }
}
