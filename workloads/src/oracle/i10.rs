//! I10: at the jump nothing leads a device that is not preserved to memory, and no unit holds anything older than its tables.
//!
//! Formal: for each unit whose translation is on when the jump is about to come: no device behind it that is not preserved has a
//! path from the root table to a paging table; and each cached entry of the unit (context cache, paging-structure caches, IOTLB)
//! was made from words that stand in memory as they are now, accessed and dirty bits apart.
//!
//! Why: only one CPU is left and it changes tables no more, so what is stale now stays so until the next kernel flushes; that kernel
//! frees whatever nobody preserved, and frees it before it flushes. Source: facts/live-update.md 7 (I10), 4.9 (shutdown clears the
//! entries, then flushes context cache and IOTLB globally).
//!
//! That a flush was asked for is not enough, and not needed where nothing is held: the caches are the model's own, each entry with the
//! words it was made from.
//!
//! Cannot see: a flush that is missing where nothing stale was cached (other schedules show it). Bad twin: `shutdown-without-flush`.

use std::cell::RefCell;
use std::rc::Rc;

use iommu_model::addr::Pa;
use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};

use super::inspect::{self, Reach, Role};
use super::ledger::Ledger;
use super::{finding, kinds};
use crate::verb;

/// The oracle.
pub(super) struct CutOff {
    ledger: Rc<RefCell<Ledger>>,
}

impl CutOff {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>) -> CutOff {
        CutOff { ledger }
    }

    fn reachable(&self, event: &Event, view: &View<'_>) -> Option<Finding> {
        let ledger = self.ledger.borrow();
        for device in ledger.devices.iter().filter(|device| !device.preserved) {
            let unit = view.fabric.units().get(usize::from(device.unit.0))?.unit.borrow();
            if !unit.translation_enabled() {
                continue;
            }
            let root = Pa(unit.root_in_use().table() << 12);
            let mut found = None;
            Reach::new(view.memory, false).device(root, device.bdf, &mut |pa, _, role| {
                found = (role == Role::Table).then_some(pa);
                found.is_some()
            });
            if let Some(table) = found {
                let details = vec![
                    format!("device {} is not preserved; its entry leads to a page table", device.bdf),
                    inspect::describe(view.memory, table),
                ];
                return finding("I10", "unpreserved-device-is-not-cut-off", event, details);
            }
        }
        None
    }
}

impl Oracle for CutOff {
    fn name(&self) -> &'static str {
        "I10"
    }

    fn interests(&self) -> u32 {
        kinds::NOTE
    }

    fn verbs(&self) -> u64 {
        kinds::verbs(&[verb::BEFORE_JUMP])
    }

    fn on_event(&mut self, event: &Event, view: &View<'_>) -> Option<Finding> {
        let EventKind::Note { verb: verb::BEFORE_JUMP, .. } = event.kind else { return None };
        if let Some(found) = self.reachable(event, view) {
            return Some(found);
        }
        let (cached, source) = inspect::stale(view.memory, view.fabric)?;
        let now = inspect::word(view.memory, source.pa).unwrap_or(0);
        let details = vec![format!("{cached}, now {now:#x}"), inspect::describe(view.memory, source.pa)];
        finding("I10", format!("stale-{}-at-the-jump", cached.what.replace(' ', "-")), event, details)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Bench};
    use super::*;

    fn bench() -> Bench {
        let mut bench = Bench::new();
        bench.attach_tables(testing::TOP, &[(0x1000, Pa(0x40_000))]);
        bench.preserve_device();
        bench.judge_with(|ledger| Box::new(CutOff::new(ledger)))
    }

    // Goal: what is cached and still so in memory may stay; what changed since may not, until it is flushed.
    #[test]
    fn a_cached_entry_is_as_old_as_its_tables() {
        let mut bench = bench();
        bench.translate(0x1000);
        assert_eq!(bench.before_jump(&[]), None);
        bench.clear_leaf(0x1000);
        assert_eq!(bench.before_jump(&[]).expect("stale").title, "stale-IOTLB-entry-at-the-jump");
        bench.invalidate_all();
        assert_eq!(bench.before_jump(&[]), None);
    }

    // Goal: a unit that is off holds nothing to be judged; a device nobody preserves must be cut off.
    #[test]
    fn a_device_that_stays_behind_is_cut_off() {
        let mut bench = bench();
        bench.note(verb::DEVICE_UNPRESERVED, [bench.bdf(), 0, 0, 0]);
        assert_eq!(bench.before_jump(&[]).expect("leads to tables").title, "unpreserved-device-is-not-cut-off");
        bench.translation(false);
        assert_eq!(bench.before_jump(&[]), None);
    }
}
