//! I7: while a domain is immutable or preserved, nothing but accessed and dirty bits changes in its tables.
//!
//! Formal: from the moment a domain's IOAS is immutable, or the domain preserved, until neither holds, let T be the table frames
//! reached from its top table at that moment. Each store to T changes bits 8 and 9 only.
//!
//! Why: the tracker was filled by a walk of these tables; what changes later is not in it, or is in it for nothing.
//! Source: facts/live-update.md 7 (I7), 4.7, 4.13, 8 (R2, R4).
//!
//! Cannot see: stores to tables that enter the tree later (the store that links them is seen). Bad twin: `map-while-immutable`.

use std::cell::RefCell;
use std::rc::Rc;

use iommu_model::addr::Pa;
use iommu_model::spec::vtd::second_stage::SecondStageEntry;
use sim::memory::Memory;
use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};

use super::inspect::{self, Reach};
use super::ledger::{FrameSet, Ledger};
use super::{finding, kinds};
use crate::topology::Topology;
use crate::{tag, verb};

/// Accessed and dirty bits of a paging entry.
const FREE_BITS: u64 = SecondStageEntry::new().with_accessed(true).with_dirty(true).into_bits();

/// The oracle.
pub(super) struct Immutable {
    ledger: Rc<RefCell<Ledger>>,
    levels: u8,
    /// Tables of guarded domains.
    tables: FrameSet,
    any: bool,
}

impl Immutable {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>, topo: &Topology) -> Immutable {
        let tables = ledger.borrow().handed.clone();
        let levels = topo.units.first().map_or(4, |unit| unit.levels);
        Immutable { ledger, levels, tables, any: false }
    }

    /// Collects the tables of all guarded domains anew. Those of one that was guarded before and lost a table by a store were
    /// found at that store.
    fn collect(&mut self, view: &View<'_>) {
        self.tables.clear();
        self.any = false;
        let ledger = self.ledger.borrow();
        for domain in ledger.domains.iter().filter(|domain| (domain.immutable || domain.preserved) && domain.top.0 != 0) {
            self.any = true;
            let tables = &mut self.tables;
            Reach::new(view.memory, false).table(domain.top, self.levels, &mut |pa, _, _| {
                tables.insert(pa.0 >> 12);
                false
            });
        }
    }
}

impl Oracle for Immutable {
    fn name(&self) -> &'static str {
        "I7"
    }

    fn interests(&self) -> u32 {
        kinds::STORE | kinds::NOTE | kinds::JUMPED
    }

    fn verbs(&self) -> u64 {
        kinds::verbs(&[verb::IMMUTABLE, verb::DOMAIN_PRESERVED, verb::DOMAIN_UNPRESERVED, verb::DOMAIN_FREED])
    }

    fn wants_store(&self, pa: Pa, _: u64, _: &Memory) -> bool {
        self.any && self.tables.has(pa.0 >> 12)
    }

    fn on_event(&mut self, event: &Event, view: &View<'_>) -> Option<Finding> {
        match event.kind {
            EventKind::Store { pa, old, new, .. } => {
                if !self.any || !self.tables.has(pa.0 >> 12) || (old ^ new) & !(FREE_BITS >> (8 * (pa.0 & 7))) == 0 {
                    return None;
                }
                let title = if new == 0 { "entry-cleared-while-immutable" } else { "entry-written-while-immutable" };
                let details = vec![format!("table word at pa {:#x}: {old:#x} -> {new:#x}", pa.0), inspect::describe(view.memory, Pa(pa.0))];
                finding("I7", title, event, details)
            }
            EventKind::Jumped { .. } => {
                self.tables.clear();
                self.any = false;
                None
            }
            EventKind::Note { verb: verb::IMMUTABLE | verb::DOMAIN_PRESERVED | verb::DOMAIN_UNPRESERVED | verb::DOMAIN_FREED, .. } => {
                self.collect(view);
                None
            }
            // A table that was freed and is a table again may be anybody's.
            _ => None,
        }
    }
}

const _: () = assert!(FREE_BITS == 0x300);
const _: () = assert!(tag::IOMMU_TABLE.0 == 12);

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Bench};
    use super::*;

    const D: u64 = 0x1000_0000;

    fn bench() -> Bench {
        let mut bench = Bench::new();
        bench.attach_tables(testing::TOP, &[(0x1000, Pa(0x40_000))]);
        let topo = bench.topo.clone();
        let mut bench = bench.judge_with(|ledger| Box::new(Immutable::new(ledger, &topo)));
        bench.note(verb::DOMAIN_CREATED, [D, testing::TOP.0, 5, 0]);
        bench
    }

    // Goal: a leaf store is found while the domain is immutable, and is nobody's business before and after.
    #[test]
    fn a_leaf_store_is_found_only_while_immutable() {
        let mut bench = bench();
        let leaf = bench.leaf_address(0x2000);
        assert_eq!(bench.store(leaf, 0x41_003), None);
        bench.note(verb::IMMUTABLE, [D, 1, 0, 0]);
        assert_eq!(bench.store(leaf, 0x42_003).expect("immutable").title, "entry-written-while-immutable");
        assert_eq!(bench.store(leaf, 0).expect("immutable").title, "entry-cleared-while-immutable");
        bench.note(verb::IMMUTABLE, [D, 0, 0, 0]);
        assert_eq!(bench.store(leaf, 0x42_003), None);
    }

    // Goal: accessed and dirty bits may change; other memory may, too.
    #[test]
    fn accessed_and_dirty_bits_are_free() {
        let mut bench = bench();
        let leaf = bench.leaf_address(0x1000);
        bench.note(verb::IMMUTABLE, [D, 1, 0, 0]);
        assert_eq!(bench.store(leaf, 0x40_303), None);
        assert_eq!(bench.store(Pa(0x60_000), 77), None);
    }

    // Goal: preserved alone guards as well: another HWPT of the IOAS may have made it mutable again.
    #[test]
    fn a_preserved_domain_is_guarded_without_immutability() {
        let mut bench = bench();
        let leaf = bench.leaf_address(0x1000);
        bench.note(verb::IMMUTABLE, [D, 1, 0, 0]);
        bench.note(verb::DOMAIN_PRESERVED, [D, 0x60_000, 0, 0]);
        bench.note(verb::IMMUTABLE, [D, 0, 0, 0]);
        assert!(bench.store(leaf, 0).is_some());
        bench.note(verb::DOMAIN_UNPRESERVED, [D, 0, 0, 0]);
        assert_eq!(bench.store(leaf, 0x40_003), None);
    }
}
