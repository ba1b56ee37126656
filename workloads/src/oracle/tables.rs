//! tables: every page-table page hangs in the tree of its domain, or was freed.
//!
//! Formal: a page becomes a domain's when it is the domain's top, when a map of that domain allocates it as a table, or when it hangs in
//! the tree of a restored domain. Whenever no map and no unmap of the domain is under way, each of its pages is either reached from
//! its top or not that allocation any more. When the call that freed a domain returns, none of its pages is; and at each quiet moment
//! every table page of this kernel belongs to a domain.
//!
//! Why: a table nobody reaches is lost for good; every map of a guest can lose one. Source: facts/live-update.md 5.1 (install by
//! compare-and-exchange: the loser frees its page), 5.4 (unmap: pages that leave the tree are freed after the flush).
//!
//! Trees are read from their bytes: whatever entry names an allocated table page leads to it, at any level.
//!
//! Cannot see: an entry that leads to a page that is no table any more (I8, I1 do). Bad twin: `lost-race-leaks-table`.

use std::cell::RefCell;
use std::rc::Rc;

use iommu_model::addr::Pa;
use iommu_model::spec::vtd::second_stage::SecondStageEntry;
use sim::engine::ActorId;
use sim::memory::{FrameState, Memory};
use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};
use smallvec::SmallVec;

use super::ledger::Ledger;
use super::{finding, inspect, kinds};
use crate::{tag, verb};

/// A page of a domain: frame, and version of the frame when it became one.
type Page = (u64, u32);

/// A domain that lives, or whose free is under way.
struct Tree {
    domain: u64,
    top: Pa,
    pages: Vec<Page>,
    /// Maps and unmaps under way.
    busy: u32,
    /// Who frees it.
    freed_by: Option<ActorId>,
}

/// The oracle.
pub(super) struct Tables {
    ledger: Rc<RefCell<Ledger>>,
    trees: Vec<Tree>,
    /// Maps under way: who, in which domain.
    maps: SmallVec<[(ActorId, u64); 16]>,
    reached: Vec<u64>,
}

/// An allocated table page.
fn is_table(memory: &Memory, pfn: u64) -> bool {
    memory.frames.get(pfn as usize).is_some_and(|frame| frame.state == FrameState::Owned && frame.tag == tag::IOMMU_TABLE)
}

/// Fills `out` with the table pages that the page `top` leads to, itself first.
fn reach(memory: &Memory, top: Pa, out: &mut Vec<u64>) {
    out.clear();
    if !is_table(memory, top.pfn().0) {
        return;
    }
    out.push(top.pfn().0);
    let mut next = 0;
    while let Some(&pfn) = out.get(next) {
        next += 1;
        for &word in memory.ram.frame_words(pfn).iter().filter(|word| **word != 0) {
            let entry = SecondStageEntry::from_bits(word);
            let lower = entry.frame();
            if !entry.page_size() && is_table(memory, lower) && !out.contains(&lower) {
                out.push(lower);
            }
        }
    }
}

impl Tables {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>) -> Tables {
        Tables { ledger, trees: Vec::new(), maps: SmallVec::new(), reached: Vec::new() }
    }

    fn tree(&mut self, domain: u64) -> Option<&mut Tree> {
        self.trees.iter_mut().find(|tree| tree.domain == domain && tree.freed_by.is_none())
    }

    fn created(&mut self, memory: &Memory, domain: u64, top: Pa) {
        reach(memory, top, &mut self.reached);
        let pages = self.reached.iter().map(|pfn| (*pfn, memory.frames[*pfn as usize].version)).collect();
        self.trees.push(Tree { domain, top, pages, busy: 0, freed_by: None });
    }

    /// A map or unmap of the domain is over: with the last one its pages are looked at.
    fn done(&mut self, event: &Event, view: &View<'_>, domain: u64) -> Option<Finding> {
        let memory = view.memory;
        let mut reached = std::mem::take(&mut self.reached);
        let tree = self.tree(domain)?;
        tree.busy = tree.busy.saturating_sub(1);
        let mut lost = None;
        if tree.busy == 0 {
            reach(memory, tree.top, &mut reached);
            let same = |page: &Page| is_table(memory, page.0) && memory.frames[page.0 as usize].version == page.1;
            lost = tree.pages.iter().find(|page| same(page) && !reached.contains(&page.0)).map(|page| page.0);
            tree.pages.clear();
            tree.pages.extend(reached.iter().map(|pfn| (*pfn, memory.frames[*pfn as usize].version)));
        }
        self.reached = reached;
        report(event, memory, "table-neither-linked-nor-freed", lost?)
    }

    /// The call in which domains were freed returns.
    fn freed(&mut self, event: &Event, view: &View<'_>) -> Option<Finding> {
        let memory = view.memory;
        let same = |page: &&Page| is_table(memory, page.0) && memory.frames[page.0 as usize].version == page.1;
        let gone = self.trees.iter().filter(|tree| tree.freed_by == Some(event.actor));
        let lost = gone.flat_map(|tree| &tree.pages).find(same).map(|page| page.0);
        self.trees.retain(|tree| tree.freed_by != Some(event.actor));
        report(event, memory, "table-outlives-its-domain", lost?)
    }

    fn quiet(&mut self, event: &Event, view: &View<'_>) -> Option<Finding> {
        let memory = view.memory;
        self.trees.retain(|tree| tree.freed_by.is_none());
        let mut known = Vec::new();
        for tree in &self.trees {
            reach(memory, tree.top, &mut self.reached);
            known.append(&mut self.reached);
        }
        let ledger = self.ledger.borrow();
        // What no kernel could restore is not lost here.
        let mine = |pfn: u64| is_table(memory, pfn) && memory.frames[pfn as usize].era == memory.era && !ledger.handed.has(pfn);
        let lost = (0..memory.frames.len() as u64).find(|pfn| mine(*pfn) && !known.contains(pfn))?;
        report(event, memory, "table-of-no-domain", lost)
    }
}

fn report(event: &Event, memory: &Memory, title: &str, pfn: u64) -> Option<Finding> {
    finding("tables", title, event, vec![inspect::describe(memory, Pa(pfn << 12))])
}

impl Oracle for Tables {
    fn name(&self) -> &'static str {
        "tables"
    }

    fn interests(&self) -> u32 {
        kinds::FRAMES_TAKEN | kinds::JUMPED | kinds::NOTE
    }

    fn verbs(&self) -> u64 {
        kinds::verbs(&[
            verb::DOMAIN_CREATED,
            verb::DOMAIN_FREED,
            verb::MAP_BEGIN,
            verb::MAP_END,
            verb::UNMAP_BEGIN,
            verb::UNMAP_END,
            verb::USER_RETURN,
            verb::QUIESCENT,
        ])
    }

    fn on_event(&mut self, event: &Event, view: &View<'_>) -> Option<Finding> {
        match event.kind {
            EventKind::FramesTaken { pfn, tag: tag::IOMMU_TABLE, .. } => {
                let (_, domain) = *self.maps.iter().find(|map| map.0 == event.actor)?;
                let version = view.memory.frames.get(pfn.0 as usize)?.version;
                self.tree(domain)?.pages.push((pfn.0, version));
                None
            }
            EventKind::Jumped { .. } => {
                self.trees.clear();
                self.maps.clear();
                None
            }
            EventKind::Note { verb, args } => match verb {
                verb::DOMAIN_CREATED => {
                    self.created(view.memory, args[0], Pa(args[1]));
                    None
                }
                verb::DOMAIN_FREED => {
                    let actor = event.actor;
                    if let Some(tree) = self.tree(args[0]) {
                        tree.freed_by = Some(actor);
                    }
                    None
                }
                verb::MAP_BEGIN | verb::UNMAP_BEGIN => {
                    if verb == verb::MAP_BEGIN {
                        self.maps.push((event.actor, args[0]));
                    }
                    self.tree(args[0])?.busy += 1;
                    None
                }
                verb::MAP_END | verb::UNMAP_END => {
                    if verb == verb::MAP_END {
                        self.maps.retain(|map| *map != (event.actor, args[0]));
                    }
                    self.done(event, view, args[0])
                }
                verb::USER_RETURN => self.freed(event, view),
                verb::QUIESCENT => self.quiet(event, view),
                _ => None,
            },
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Bench};
    use super::*;

    const D: u64 = 0x1000_0000;
    const LOST: Pa = Pa(0x50_000);

    fn bench() -> Bench {
        let mut bench = Bench::new().judge_with(|ledger| Box::new(Tables::new(ledger)));
        bench.attach_tables(testing::TOP, &[(0x1000, Pa(0x40_000))]);
        assert_eq!(bench.note(verb::DOMAIN_CREATED, [D, testing::TOP.0, 0, 0]), None);
        bench
    }

    fn begin(bench: &mut Bench) {
        bench.note(verb::MAP_BEGIN, [D, 0x2000, 0x41_000, 4096 | 3 << 56]);
    }

    fn end(bench: &mut Bench) -> Option<String> {
        bench.note(verb::MAP_END, [D, 0x2000, 4096, 0]).map(|found| found.title)
    }

    /// A map takes a page for a table and leaves it as `state`.
    fn map_taking(bench: &mut Bench, state: FrameState) -> Option<String> {
        begin(bench);
        bench.set_frame(LOST, FrameState::Owned, tag::IOMMU_TABLE);
        bench.take(LOST, 0, tag::IOMMU_TABLE);
        bench.set_frame(LOST, state, tag::IOMMU_TABLE);
        end(bench)
    }

    // Goal: a table that a map allocated is linked or freed when the map returns.
    #[test]
    fn a_map_links_or_frees_what_it_allocates() {
        assert_eq!(map_taking(&mut bench(), FrameState::Free), None);
        assert_eq!(map_taking(&mut bench(), FrameState::Owned).as_deref(), Some("table-neither-linked-nor-freed"));
        let mut bench = bench();
        bench.memory.ram.store(Pa(testing::TOP.0 + 16), 8, LOST.0 | 3);
        assert_eq!(map_taking(&mut bench, FrameState::Owned), None, "it is linked");
        bench.memory.ram.store(Pa(testing::TOP.0 + 16), 8, 0);
        begin(&mut bench);
        assert!(end(&mut bench).is_some(), "it left the tree and was not freed");
    }

    // Goal: while another map is under way nothing is judged.
    #[test]
    fn maps_under_way_may_hold_pages() {
        let mut bench = bench();
        begin(&mut bench);
        assert_eq!(map_taking(&mut bench, FrameState::Owned), None);
        assert!(end(&mut bench).is_some());
    }

    // Goal: a domain takes its tables with it; at a quiet moment every table has a domain.
    #[test]
    fn a_domain_takes_its_tables_with_it() {
        let mut bench = bench();
        assert_eq!(bench.note(verb::QUIESCENT, [0; 4]), None);
        bench.user_call(3);
        bench.note(verb::DOMAIN_FREED, [D, 0, 0, 0]);
        let mut back = || bench.note(verb::USER_RETURN, [3, 0, 0, 0]).map(|found| found.title);
        assert_eq!(back().as_deref(), Some("table-outlives-its-domain"));
        assert_eq!(bench.note(verb::QUIESCENT, [0; 4]).expect("still there").title, "table-of-no-domain");
    }
}
