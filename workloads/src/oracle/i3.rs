//! I3: every DMA request reaches a frame that was legal for its address at some time of its life.
//!
//! Formal: for a request r of device d at address x with an access at pa: there is a moment between issue and landing at which
//! a mapping (x -> frame of pa, with r's permission) of a domain that hardware could walk for d was valid or being made or
//! taken away; and no unmap of it returned before the landing.
//!
//! Why: anything else is a device writing into, or reading from, somebody else's memory. Source: facts/live-update.md 7 (I3).
//!
//! The mapping is the ledger's, kept from the calls; the frame is where the model's walker really went. Across the jump the
//! reference stays that of the outgoing kernel until a user of the incoming kernel changes it.
//!
//! Cannot see: a wrong word inside the right frame beyond the address (offsets are checked), reads of stale data.
//! Bad twin: `wrong-frame-mapped`.

use std::cell::RefCell;
use std::rc::Rc;

use iommu_model::addr::Pa;
use sim::memory::FrameState;
use sim::oracle::{Finding, Oracle, View};
use sim::trace::{Event, EventKind};

use super::ledger::Ledger;
use super::ledger::device::{Request, Standing};
use super::{finding, inspect, kinds};

/// The oracle.
pub(super) struct Landing {
    ledger: Rc<RefCell<Ledger>>,
}

impl Landing {
    pub(super) fn new(ledger: Rc<RefCell<Ledger>>) -> Landing {
        Landing { ledger }
    }

    #[cold]
    fn report(
        event: &Event,
        view: &View<'_>,
        device: impl std::fmt::Display,
        request: &Request,
        pa: Pa,
        standing: Standing,
    ) -> Option<Finding> {
        let free = view.memory.frame(pa).is_some_and(|frame| frame.state == FrameState::Free);
        let access = if request.write { "write" } else { "read" };
        let what = match (standing, request.domain) {
            (Standing::Forbidden, _) => "without-permission",
            (Standing::Stale, _) => "after-unmap",
            (_, None) => "passes-untranslated",
            _ if view.memory.frame(pa).is_none() => "outside-memory",
            _ if free => "lands-in-free-memory",
            _ => "lands-outside-mapping",
        };
        let how = match (request.domain, request.cached) {
            (None, _) => "untranslated".to_owned(),
            (Some(domain), true) => format!("translated under domain id {:#x}, from the IOTLB", domain.0),
            (Some(domain), false) => format!("translated under domain id {:#x}", domain.0),
        };
        let mut details = vec![
            format!("device {device}: {access} at iova {:#x} went to pa {:#x}, {how}", request.iova.0, pa.0),
            inspect::describe(view.memory, pa),
        ];
        let mut legal = request.legal_frames().peekable();
        if legal.peek().is_none() {
            details.push("nothing was mapped at that address".to_owned());
        }
        details.extend(legal.map(|pfn| format!("mapped there: frame pa {:#x}", pfn << 12)));
        if request.era != event.era {
            details.push(format!("issued under generation {}, arrived under generation {}", request.era, event.era));
        }
        finding("I3", format!("dma-{access}-{what}"), event, details)
    }
}

impl Oracle for Landing {
    fn name(&self) -> &'static str {
        "I3"
    }

    fn interests(&self) -> u32 {
        kinds::DMA_LANDED | kinds::DMA_READ | kinds::DMA_LOST
    }

    fn on_event(&mut self, event: &Event, view: &View<'_>) -> Option<Finding> {
        let pa = match event.kind {
            EventKind::DmaLanded { pa, .. } | EventKind::DmaRead { pa, .. } | EventKind::DmaLost { pa, .. } => pa,
            _ => return None,
        };
        let ledger = self.ledger.borrow();
        let (at, request) = ledger.completed.as_ref()?;
        if request.exempt {
            return None;
        }
        let standing = match request.standing(pa.0 >> 12) {
            Standing::Legal if pa.0 & 0xfff == request.iova.0 & 0xfff => return None,
            Standing::Legal => Standing::Foreign,
            other => other,
        };
        Landing::report(event, view, ledger.devices[*at].bdf, request, pa, standing)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use crate::verb;

    const D: u64 = 0x1000_0000;
    const RW: u64 = 3 << 56;

    fn bench() -> Bench {
        let mut bench = Bench::new();
        bench.attach(D, 5);
        bench.map(D, 0x1000, 0x40_000, 4096);
        bench.judge_with(|ledger| Box::new(Landing::new(ledger)))
    }

    // Goal: the mapped frame is legal for writes and reads, any other is not.
    #[test]
    fn only_the_mapped_frame_is_legal() {
        let mut bench = bench();
        assert_eq!(bench.dma(0x1008, true, 0x40_008), None);
        assert_eq!(bench.dma(0x1008, false, 0x40_008), None);
        assert_eq!(bench.dma(0x1008, true, 0x41_008).expect("next frame").title, "dma-write-lands-outside-mapping");
        assert_eq!(bench.dma(0x1008, true, 0x40_010).expect("wrong offset").title, "dma-write-lands-outside-mapping");
        assert_eq!(bench.dma(0x5000, false, 0x40_000).expect("not mapped").title, "dma-read-lands-outside-mapping");
    }

    // Goal: a read-only mapping carries no write.
    #[test]
    fn a_write_needs_permission() {
        let mut bench = bench();
        bench.note(verb::MAP_BEGIN, [D, 0x2000, 0x41_000, 4096 | 1 << 56]);
        bench.note(verb::MAP_END, [D, 0x2000, 4096, 0]);
        assert_eq!(bench.dma(0x2000, false, 0x41_000), None);
        assert_eq!(bench.dma(0x2000, true, 0x41_000).expect("read-only").title, "dma-write-without-permission");
    }

    // Goal: while map and unmap are under way both outcomes are legal; after unmap has returned the old frame is not, not even
    // for a request issued before. Method: requests that straddle each boundary.
    #[test]
    fn the_old_frame_is_legal_until_unmap_returns() {
        let mut bench = bench();
        bench.note(verb::UNMAP_BEGIN, [D, 0x1000, 4096, 0]);
        assert_eq!(bench.dma(0x1000, true, 0x40_000), None);
        let late = bench.issue(0x1000, true);
        bench.note(verb::UNMAP_END, [D, 0x1000, 4096, 4096]);
        assert_eq!(bench.land(late, 0x1000, 0x40_000).expect("unmap has returned").title, "dma-write-after-unmap");
        bench.note(verb::MAP_BEGIN, [D, 0x1000, 0x42_000, 4096 | RW]);
        assert_eq!(bench.dma(0x1000, true, 0x42_000), None);
        bench.note(verb::MAP_END, [D, 0x1000, 4096, (-12i64) as u64]);
        assert!(bench.dma(0x1000, true, 0x42_000).is_some());
    }

    // Goal: a request issued before a map began may use it.
    #[test]
    fn a_map_that_begins_during_a_request_serves_it() {
        let mut bench = bench();
        let serial = bench.issue(0x3000, true);
        bench.note(verb::MAP_BEGIN, [D, 0x3000, 0x43_000, 4096 | RW]);
        assert_eq!(bench.land(serial, 0x3000, 0x43_000), None);
    }

    // Goal: a failed map over a mapped page does not take the page away.
    #[test]
    fn a_failed_map_leaves_what_was_there() {
        let mut bench = bench();
        let serial = bench.issue(0x1000, true);
        bench.note(verb::MAP_BEGIN, [D, 0x1000, 0x43_000, 4096 | RW]);
        bench.note(verb::MAP_END, [D, 0x1000, 4096, (-98i64) as u64]);
        assert_eq!(bench.land(serial, 0x1000, 0x40_000), None);
    }

    // Goal: while the domain of a device changes, old and new are legal; then only the new one.
    #[test]
    fn a_change_of_domain_allows_both_until_it_is_done() {
        let mut bench = bench();
        let other = D + 0x1000;
        bench.note(verb::DOMAIN_CREATED, [other, 0x31_000, 6, 0]);
        bench.map(other, 0x1000, 0x48_000, 4096);
        bench.changing(other);
        assert_eq!(bench.dma(0x1000, true, 0x40_000), None);
        assert_eq!(bench.dma(0x1000, true, 0x48_000), None);
        bench.attached(other, 6);
        assert_eq!(bench.dma(0x1000, true, 0x48_000), None);
        assert!(bench.dma(0x1000, true, 0x40_000).is_some());
    }

    // Goal: over the jump a preserved device keeps its reference; an unpreserved one has none, but its last request is exempt.
    #[test]
    fn the_reference_of_a_preserved_device_outlives_its_kernel() {
        let mut bench = bench();
        bench.preserve_device();
        let serial = bench.issue(0x1000, true);
        bench.jump(&[]);
        assert_eq!(bench.land(serial, 0x1000, 0x40_000), None);
        assert_eq!(bench.dma(0x1000, true, 0x40_000), None);
        // The boot path attaches something of its own: no legal ground.
        bench.changing(0x77_0000);
        bench.attached(0x77_0000, 9);
        assert_eq!(bench.dma(0x1000, true, 0x40_000), None);
        assert_eq!(bench.dma_untranslated(0x1000, true).expect("translation is off").title, "dma-write-passes-untranslated");
    }

    #[test]
    fn the_last_request_of_an_unpreserved_device_is_exempt() {
        let mut bench = bench();
        let serial = bench.issue(0x1000, true);
        bench.jump(&[]);
        assert_eq!(bench.land(serial, 0x1000, 0x40_000), None);
        assert_eq!(bench.dma(0x1000, true, 0x40_000), None, "one that was about to be issued");
        assert!(bench.dma(0x1000, true, 0x40_000).is_some());
    }

    // Goal: the adopted domain is the old one: an unmap through it takes the page away.
    #[test]
    fn an_adopted_domain_is_the_old_one() {
        let mut bench = bench();
        bench.preserve_device();
        bench.jump(&[]);
        bench.note(verb::DOMAIN_CREATED, [0x77_0000, 0x50_000, 0, 0]);
        bench.note(verb::ADOPTED, [bench.bdf(), 0x77_0000, 5, 0]);
        assert_eq!(bench.dma(0x1000, true, 0x40_000), None);
        bench.note(verb::UNMAP_BEGIN, [0x77_0000, 0x1000, 4096, 0]);
        bench.note(verb::UNMAP_END, [0x77_0000, 0x1000, 4096, 4096]);
        assert!(bench.dma(0x1000, true, 0x40_000).is_some());
    }
}
