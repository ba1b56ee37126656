//! Counts what happened: marks, DMA by phase, faults by reason, injected failures. Judges nothing.
//!
//! Marks come from the kernels' words, and some are derived here, where no kernel could know: walks that raced with a store,
//! table pages freed by an unmap, what was in flight at the jump, failures injected, jumps, adoptions.

use std::cell::RefCell;
use std::rc::Rc;

use iommu_model::addr::Pa;
use sim::engine::ChoiceKind;
use sim::memory::Memory;
use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};

use super::i1::is_table;
use super::kinds;
use super::ledger::Ledger;
use crate::mark::Mark;
use crate::run::{Counts, Failure};
use crate::tag;
use crate::topology::Topology;
use crate::verb::{self, FlbOp};

/// Words of a walk that are remembered: root, context and five levels, with one restart.
const WORDS_MAX: usize = 14;
/// Stores to tables that are remembered.
const STORES: usize = 16;

/// A device's walk.
#[derive(Clone, Copy)]
struct Walk {
    /// Step at which its request was issued.
    since: u64,
    /// Words fetched so far.
    words: [Pa; WORDS_MAX],
    nr: usize,
}

/// The oracle that counts.
pub(super) struct Counter {
    ledger: Rc<RefCell<Ledger>>,
    counts: Rc<RefCell<Counts>>,
    walks: Vec<Walk>,
    /// The last stores to tables: where and when.
    stores: [(Pa, u64); STORES],
    next_store: usize,
    /// Unmaps under way.
    unmaps: u32,
}

impl Counter {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>, counts: Rc<RefCell<Counts>>, topo: &Topology) -> Counter {
        let walk = Walk { since: u64::MAX, words: [Pa(0); WORDS_MAX], nr: 0 };
        let stores = [(Pa(u64::MAX), 0); STORES];
        Counter { ledger, counts, walks: vec![walk; topo.devices.len()], stores, next_store: 0, unmaps: 0 }
    }

    fn mark(&self, mark: Mark) {
        self.counts.borrow_mut().marks[mark as usize] += 1;
    }

    /// The device's walk is over, or begins at `since`.
    fn set_walk(&mut self, device: usize, since: u64) {
        if let Some(walk) = self.walks.get_mut(device) {
            walk.since = since;
            walk.nr = 0;
        }
    }

    /// A table word was stored: races with every walk that has fetched it.
    fn stored(&mut self, word: Pa, step: u64) {
        self.stores[self.next_store % STORES] = (word, step);
        self.next_store += 1;
        if self.walks.iter().any(|walk| walk.words[..walk.nr].contains(&word)) {
            self.mark(Mark::WalkRaced);
        }
    }

    /// A walk fetched a word: races with every store to it since the walk began.
    fn fetched(&mut self, device: usize, word: Pa) {
        let Some(walk) = self.walks.get_mut(device) else { return };
        if let Some(slot) = walk.words.get_mut(walk.nr) {
            *slot = word;
            walk.nr += 1;
        }
        let since = walk.since;
        if self.stores.iter().any(|(stored, step)| *stored == word && *step > since) {
            self.mark(Mark::WalkRaced);
        }
    }

    fn count_dma(&self) {
        let phase = self.ledger.borrow().phase;
        self.counts.borrow_mut().dma[phase as usize] += 1;
    }
}

impl Oracle for Counter {
    fn name(&self) -> &'static str {
        "counter"
    }

    fn interests(&self) -> u32 {
        kinds::STORE | kinds::FETCHED | kinds::FRAMES_FREED | kinds::INJECTED | kinds::DMA | kinds::JUMPED | kinds::NOTE
    }

    fn verbs(&self) -> u64 {
        kinds::verbs(&[verb::MARK, verb::UNMAP_BEGIN, verb::UNMAP_END, verb::ADOPTED, verb::FLB_OP])
    }

    fn wants_store(&self, pa: Pa, changed: u64, memory: &Memory) -> bool {
        changed != 0 && memory.frame(pa).is_some_and(|frame| is_table(frame.tag))
    }

    fn on_event(&mut self, event: &Event, view: &View<'_>) -> Option<Finding> {
        match event.kind {
            EventKind::Store { pa, old, new, .. } if old != new && view.memory.frame(pa).is_some_and(|frame| is_table(frame.tag)) => {
                self.stored(Pa(pa.0 & !7), event.step);
            }
            EventKind::Fetched { device: Some(device), pa, .. } => self.fetched(usize::from(device.0), pa),
            EventKind::DmaIssued { device, .. } => self.set_walk(usize::from(device.0), event.step),
            EventKind::DmaTranslated { device, .. } => self.set_walk(usize::from(device.0), u64::MAX),
            EventKind::DmaFaulted { device, reason, .. } => {
                self.set_walk(usize::from(device.0), u64::MAX);
                *self.counts.borrow_mut().dma_faults.entry(reason).or_default() += 1;
            }
            EventKind::DmaLanded { .. } | EventKind::DmaRead { .. } => self.count_dma(),
            EventKind::FramesFreed { tag: tag::IOMMU_TABLE, .. } if self.unmaps > 0 => self.mark(Mark::TableFreed),
            EventKind::Injected { kind, class } => {
                self.mark(if kind == ChoiceKind::AllocFails { Mark::AllocFailed } else { Mark::CalleeFailed });
                *self.counts.borrow_mut().injected.entry(Failure { kind, class }).or_default() += 1;
            }
            EventKind::Jumped { .. } => {
                self.unmaps = 0;
                let in_flight = [
                    (view.fabric.has_write_in_flight(), Mark::WriteInFlightAtJump),
                    (view.fabric.has_walk_in_flight(), Mark::WalkInFlightAtJump),
                    (view.fabric.has_invalidation_pending(), Mark::InvalidationPendingAtJump),
                ];
                for (_, mark) in in_flight.into_iter().filter(|(hit, _)| *hit) {
                    self.mark(mark);
                }
                self.mark(Mark::KexecReached);
            }
            EventKind::Note { verb, args } => match verb {
                verb::MARK => {
                    if let Some(mark) = Mark::from_number(args[0]).filter(|mark| !is_derived(*mark)) {
                        self.mark(mark);
                        let mut counts = self.counts.borrow_mut();
                        let befell = (mark, args[1] as u16);
                        if args[1] != 0 && !counts.befell.contains(&befell) {
                            counts.befell.push(befell);
                        }
                    }
                }
                verb::UNMAP_BEGIN => self.unmaps += 1,
                verb::UNMAP_END => self.unmaps = self.unmaps.saturating_sub(1),
                verb::ADOPTED => self.mark(Mark::AdoptionDone),
                verb::FLB_OP if args[1] == FlbOp::Retrieve as u64 && args[2] != 0 => self.mark(Mark::FlbRetrieveFailed),
                _ => {}
            },
            _ => {}
        }
        None
    }
}

/// Marks that are counted from events; a kernel's word for the same is not counted twice.
const fn is_derived(mark: Mark) -> bool {
    matches!(
        mark,
        Mark::WalkRaced
            | Mark::TableFreed
            | Mark::AllocFailed
            | Mark::CalleeFailed
            | Mark::WriteInFlightAtJump
            | Mark::WalkInFlightAtJump
            | Mark::InvalidationPendingAtJump
            | Mark::KexecReached
            | Mark::AdoptionDone
            | Mark::FlbRetrieveFailed
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Bench};
    use super::*;
    use sim::memory::FrameState;

    fn bench() -> (Bench, Rc<RefCell<Counts>>) {
        let counts = Rc::new(RefCell::new(Counts::default()));
        let bench = Bench::new();
        let (topo, shared) = (bench.topo.clone(), counts.clone());
        (bench.judge_with(|ledger| Box::new(Counter::new(ledger, shared, &topo))), counts)
    }

    // Goal: a store to a word that a walk under way has read, or reads later, counts as a race; before and after the walk it does
    // not.
    #[test]
    fn a_store_into_a_walk_is_a_race() {
        let (mut bench, counts) = bench();
        bench.set_frame(testing::TOP, FrameState::Owned, tag::IOMMU_TABLE);
        bench.store(testing::TOP, 3);
        let serial = bench.issue(0x1000, true);
        bench.fetch(testing::TOP);
        assert_eq!(counts.borrow().mark(Mark::WalkRaced), 0);
        bench.store(testing::TOP, 7);
        assert_eq!(counts.borrow().mark(Mark::WalkRaced), 1);
        bench.store(Pa(testing::TOP.0 + 8), 7);
        bench.fetch(Pa(testing::TOP.0 + 8));
        assert_eq!(counts.borrow().mark(Mark::WalkRaced), 2);
        bench.land(serial, 0x1000, 0x40_000);
        bench.store(testing::TOP, 9);
        assert_eq!(counts.borrow().mark(Mark::WalkRaced), 2);
    }

    // Goal: DMA counts in the phase in which it completes; injected failures by class.
    #[test]
    fn completions_count_in_their_phase() {
        let (mut bench, counts) = bench();
        bench.phase(verb::Phase::Serialise);
        bench.dma(0x1000, true, 0x40_000);
        bench.feed(EventKind::Injected { kind: ChoiceKind::AllocFails, class: 12 });
        let counts = counts.borrow();
        assert_eq!(counts.dma[verb::Phase::Serialise as usize], 1);
        assert_eq!((counts.injected[&Failure { kind: ChoiceKind::AllocFails, class: 12 }], counts.mark(Mark::AllocFailed)), (1, 1));
    }
}
