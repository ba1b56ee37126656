//! The step that each call of `advance` takes: which comes next, what an answer means, how a walk ends.

use super::unit::Unit;
use super::walk::{Outstanding, Step};
use crate::addr::{DomainId, Pa};
use crate::decision::Decisions;
use crate::provenance::ProvenanceId;
use crate::request::{Fetched, Progress, Translation};
use crate::spec::smmu::event::{EventId, FaultClass, Termination};

/// What a finished walk grants.
#[derive(Clone, Copy)]
pub(crate) struct Grant {
    pub(crate) pa: Pa,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) page_bytes: u64,
    pub(crate) pass_through: bool,
}

impl Unit {
    /// One look-up, or one fetched word, of the walk in a taken slot.
    #[inline]
    pub(crate) fn step(&mut self, slot: usize, fetched: Option<Fetched>, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        match walk.outstanding {
            Outstanding::None => assert!(fetched.is_none(), "an answer without a fetch"),
            Outstanding::Wanted => {
                return match fetched {
                    Some(answer) => self.consume(slot, answer, d),
                    None => self.ask_again(slot),
                };
            }
            // The answer belongs to what a restart threw away.
            Outstanding::Dropped => walk.outstanding = Outstanding::None,
        }
        match walk.step {
            Step::Begin | Step::Merged => self.begin_walk(slot, d),
            Step::Tlb => self.look_up_tlb(slot, 0, d),
            Step::Walk1 => self.look_up_walk_1(slot, d),
            Step::Table1 | Step::Update1 => self.fetch_table_1(slot, d),
            Step::Tlb2 => self.look_up_tlb_2(slot, 0, d),
            Step::Walk2 => self.look_up_walk_2(slot, d),
            Step::Table2 | Step::Update2 => self.fetch_table_2(slot),
            Step::StreamLevel1 | Step::StreamEntry => self.fetch_stream(slot, d),
            Step::ContextLevel1 | Step::Context => self.fetch_context(slot, d),
        }
    }

    #[inline]
    fn consume(&mut self, slot: usize, answer: Fetched, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        walk.outstanding = Outstanding::None;
        let pa = walk.pending_pa;
        let Some([word, _]) = answer.pair() else { return self.refuse_fetch(slot, d) };
        let kind = walk.awaited();
        let words = &mut self.caches.words;
        match walk.step {
            Step::Table1 => {
                walk.words = words.push(walk.words, pa, word, kind);
                self.consume_table_1(slot, word, d)
            }
            Step::Table2 => {
                walk.words = words.push(walk.words, pa, word, kind);
                self.consume_table_2(slot, word, d)
            }
            Step::Update1 | Step::Update2 => self.consume_update(slot, word, d),
            Step::StreamLevel1 => {
                walk.words = words.push(walk.words, pa, word, kind);
                self.consume_stream_level_1(slot, word, false, d)
            }
            Step::ContextLevel1 => {
                walk.words = words.push(walk.words, pa, word, kind);
                self.consume_context_level_1(slot, word, false, d)
            }
            _ => self.consume_config(slot, &answer.all(), d),
        }
    }

    /// There is no memory where the walk wanted to read or write.
    #[cold]
    fn refuse_fetch(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let (address, purpose) = (walk.pending_pa.0, walk.stage_2.purpose);
        match walk.step {
            Step::StreamLevel1 | Step::StreamEntry => self.terminate_at(slot, EventId::STREAM_FETCH, address, d),
            Step::ContextLevel1 | Step::Context => self.terminate_at(slot, EventId::CONTEXT_FETCH, address, d),
            step => {
                let of_stage_1 = matches!(step, Step::Table1 | Step::Update1);
                let class = if of_stage_1 { FaultClass::Table } else { purpose.class() };
                let why = Termination { event: EventId::WALK_ABORT, stage_2: !of_stage_1, class };
                self.terminate_walk_after(slot, why, address, 0, d)
            }
        }
    }

    /// Issues the fetch of what the step says.
    #[inline]
    pub(crate) fn fetch(&mut self, slot: usize, pa: Pa, bytes: u8, cost: u32) -> Progress {
        let walk = self.walks.at(slot);
        walk.outstanding = Outstanding::Wanted;
        walk.pending_pa = pa;
        walk.fetches = walk.fetches.saturating_add(1);
        walk.spend(cost);
        Progress::Fetch { pa, bytes, kind: walk.awaited(), cost }
    }

    /// Asks again for what is outstanding.
    fn ask_again(&mut self, slot: usize) -> Progress {
        let config_bytes = self.config_bytes();
        let walk = self.walks.at(slot);
        let (pa, kind) = (walk.pending_pa, walk.awaited());
        match walk.step {
            Step::Update1 | Step::Update2 => {
                let [old, new] = walk.update;
                Progress::Update { pa, old, new, kind, cost: 0 }
            }
            Step::StreamEntry | Step::Context => Progress::Fetch { pa, bytes: config_bytes, kind, cost: 0 },
            _ => Progress::Fetch { pa, bytes: kind.bytes(), kind, cost: 0 },
        }
    }

    /// Ends the walk with a translation.
    pub(crate) fn grant(&mut self, slot: usize, grant: Grant, cost: u32) -> Progress {
        if self.walks.at(slot).asks() {
            return self.answer(slot, grant, cost);
        }
        self.grant_walked(slot, grant, cost)
    }

    /// The same for whatever request.
    pub(crate) fn grant_walked(&mut self, slot: usize, grant: Grant, cost: u32) -> Progress {
        let all = self.walks.at(slot).take_words(&mut self.caches.words);
        self.caches.words.release(core::mem::replace(&mut self.last_words, all));
        self.end_granted(slot, grant, cost)
    }

    /// Ends the walk with a translation that the TLB held, made from these words.
    #[inline(always)]
    pub(crate) fn grant_cached(&mut self, slot: usize, grant: Grant, made_from: ProvenanceId, cost: u32) -> Progress {
        let words = &mut self.caches.words;
        // Most look-ups repeat the one before.
        if made_from != self.last_words {
            words.hold(made_from);
            words.release(core::mem::replace(&mut self.last_words, made_from));
        }
        let walk = self.walks.at(slot);
        if walk.base_words.is_some() {
            words.release(core::mem::replace(&mut walk.base_words, ProvenanceId::NONE));
        }
        words.release(core::mem::replace(&mut walk.words, ProvenanceId::NONE));
        self.end_granted(slot, grant, cost)
    }

    #[inline(always)]
    fn end_granted(&mut self, slot: usize, grant: Grant, cost: u32) -> Progress {
        let walk = self.walks.at(slot);
        walk.spend(cost);
        let tag = if walk.has_context { walk.asid.0 } else { walk.vmid.0 };
        let translation = Translation {
            pa: grant.pa,
            readable: grant.readable,
            writable: grant.writable,
            page_bytes: grant.page_bytes,
            domain: DomainId(if grant.pass_through { 0 } else { tag }),
            pass_through: grant.pass_through,
            cost,
            cost_total: walk.cost_total,
            fetches: walk.fetches,
            from: walk.from,
        };
        self.walks.free(slot);
        Progress::Done(translation)
    }
}
