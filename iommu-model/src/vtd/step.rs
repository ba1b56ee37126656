//! The step that each call of `advance` takes: which stage comes next, what an answer means, how a walk ends.

use super::need::Need;
use super::unit::Unit;
use super::walk::{Outstanding, Stage};
use crate::addr::Pa;
use crate::decision::{Decisions, Question, ask_bool};
use crate::provenance::ProvenanceId;
use crate::request::{CacheHit, FetchKind, Fetched, Progress, Translation};
use crate::spec::vtd::fault::FaultReason;
use crate::spec::vtd::register::{INTERRUPT_RANGE_FIRST, INTERRUPT_RANGE_LAST};

impl Unit {
    /// One look-up, or one fetched word, of the walk in a taken slot.
    #[inline]
    pub(crate) fn step(&mut self, slot: usize, fetched: Option<Fetched>, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        match walk.outstanding {
            Outstanding::None => assert!(fetched.is_none(), "an answer without a fetch"),
            Outstanding::Wanted => {
                return match &fetched {
                    Some(answer) => self.consume(slot, answer, d),
                    None => self.ask_again(slot),
                };
            }
            // The answer belongs to what a restart threw away.
            Outstanding::Dropped => walk.outstanding = Outstanding::None,
        }
        match walk.stage {
            Stage::Begin | Stage::Merged => self.begin_walk(slot, d),
            Stage::Iotlb => self.look_up_iotlb(slot, 0, d),
            Stage::Psc => self.look_up_psc(slot, d),
            Stage::Table | Stage::TableUpdate => self.fetch_table(slot),
            Stage::Root | Stage::Context => self.fetch_root(slot, d),
            _ => self.step_scalable(slot, d),
        }
    }

    #[inline]
    fn consume(&mut self, slot: usize, answer: &Fetched, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        walk.outstanding = Outstanding::None;
        let pa = walk.pending_pa;
        let Some([low, high]) = answer.pair() else { return self.refuse_fetch(slot, d) };
        if walk.split_left != 0 {
            return self.consume_part(slot, low, d);
        }
        let words = &mut self.caches.words;
        match walk.stage {
            Stage::Root => {
                walk.words = words.push_wide(walk.words, pa, [low, high], FetchKind::Root);
                self.consume_root(slot, wide([low, high]), d)
            }
            Stage::Context if !walk.is_scalable => {
                walk.words = words.push_wide(walk.words, pa, [low, high], FetchKind::Context);
                self.consume_context(slot, wide([low, high]), d)
            }
            Stage::Table => {
                let level = walk.level;
                walk.words = words.push(walk.words, pa, low, FetchKind::Table { level });
                self.consume_table(slot, low, level, d)
            }
            _ => self.consume_scalable(slot, &answer.all(), d),
        }
    }

    /// There is no memory where the walk wanted to read.
    #[cold]
    fn refuse_fetch(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let reason = match self.walks.at(slot).stage {
            Stage::Root => FaultReason::ROOT_FETCH,
            Stage::Context => FaultReason::CONTEXT_FETCH,
            Stage::Directory => FaultReason::DIRECTORY_FETCH,
            Stage::PasidEntry => FaultReason::PASID_FETCH,
            Stage::FirstTable => self.first_fetch_reason(slot),
            Stage::FirstUpdate => FaultReason::FIRST_UPDATE_FAILED,
            _ => FaultReason::TABLE_FETCH,
        };
        self.fault(slot, reason, 0, d)
    }

    /// Issues the fetch of what the stage says.
    #[inline]
    pub(crate) fn fetch(&mut self, slot: usize, pa: Pa, kind: FetchKind, cost: u32) -> Progress {
        let walk = self.walks.at(slot);
        walk.outstanding = Outstanding::Wanted;
        walk.pending_pa = pa;
        walk.fetches = walk.fetches.saturating_add(1);
        walk.spend(cost);
        Progress::Fetch { pa, bytes: kind.bytes(), kind, cost }
    }

    /// Issues the fetch of an entry of more than 8 bytes: at once, or word by word on units that do so.
    #[inline]
    pub(crate) fn fetch_wide(&mut self, slot: usize, pa: Pa, kind: FetchKind, cost: u32, d: &mut dyn Decisions) -> Progress {
        if self.params.split_fetches {
            let walk = self.walks.at(slot);
            walk.split_left = kind.bytes() / 8;
            walk.split_descending = ask_bool(d, Question::FetchDescending);
            walk.pending_pa = pa;
            return self.fetch_part(slot, kind, cost);
        }
        self.fetch(slot, pa, kind, cost)
    }

    /// Issues the fetch of the next word of a split entry.
    #[cold]
    fn fetch_part(&mut self, slot: usize, kind: FetchKind, cost: u32) -> Progress {
        let walk = self.walks.at(slot);
        walk.outstanding = Outstanding::Wanted;
        walk.fetches = walk.fetches.saturating_add(1);
        walk.spend(cost);
        Progress::Fetch { pa: walk.awaited_pa(), bytes: 8, kind, cost }
    }

    /// A word of a split entry has come; then the next one, or all of them are the answer.
    #[cold]
    fn consume_part(&mut self, slot: usize, word: u64, d: &mut dyn Decisions) -> Progress {
        let walk = self.walks.at(slot);
        let (kind, index) = (walk.kind(), walk.split_index());
        walk.split_left -= 1;
        let left = walk.split_left;
        let words = self.walks.split_words(slot);
        words[index] = word;
        if left == 0 {
            let answer = Fetched::Wide(*words);
            *words = [0; 8];
            return self.consume(slot, &answer, d);
        }
        let timing = &self.params.timing;
        let cost = match kind {
            FetchKind::Root => timing.root_fetch,
            FetchKind::PasidEntry => timing.pasid_fetch,
            _ => timing.context_fetch,
        };
        self.fetch_part(slot, kind, cost)
    }

    /// Asks again for what is outstanding.
    fn ask_again(&mut self, slot: usize) -> Progress {
        let walk = self.walks.at(slot);
        let kind = walk.kind();
        if let Stage::FirstUpdate | Stage::TableUpdate = walk.stage {
            let [old, new] = walk.scalable.update;
            return Progress::Update { pa: walk.pending_pa, old, new, kind, cost: 0 };
        }
        let bytes = if walk.split_left == 0 { kind.bytes() } else { 8 };
        Progress::Fetch { pa: walk.awaited_pa(), bytes, kind, cost: 0 }
    }

    /// Ends the walk with a translation. The output is known not to be in the interrupt range.
    #[inline(always)]
    pub(crate) fn grant(&mut self, slot: usize, grant: Grant, cost: u32) -> Progress {
        let walk = self.walks.at(slot);
        walk.spend(cost);
        let translation = Translation {
            pa: grant.pa,
            readable: grant.readable,
            writable: grant.writable & !walk.hides_write(),
            page_bytes: grant.page_bytes,
            domain: walk.domain,
            pass_through: grant.pass_through,
            cost,
            cost_total: walk.cost_total,
            fetches: walk.fetches,
            from: walk.from,
        };
        self.caches.words.end(walk.words);
        if walk.is_scalable {
            walk.forget_scalable(&mut self.caches.words);
        }
        self.walks.free(slot);
        Progress::Done(translation)
    }

    /// Ends a walk of legacy mode with a page of the IOTLB.
    #[inline(always)]
    pub(crate) fn grant_cached(&mut self, slot: usize, grant: Grant, words: ProvenanceId, cost: u32) -> Progress {
        let walk = self.walks.at(slot);
        let before = core::mem::replace(&mut walk.words, ProvenanceId::NONE);
        walk.from = CacheHit::Iotlb;
        self.caches.words.release(before);
        let progress = self.grant(slot, grant, cost);
        self.caches.words.end_with_cached(words);
        progress
    }

    /// The same, off the path that requests of legacy mode take.
    #[cold]
    pub(crate) fn grant_aside(&mut self, slot: usize, grant: Grant, cost: u32) -> Progress {
        self.grant(slot, grant, cost)
    }

    /// Ends the walk with something that came from no table.
    #[inline]
    pub(crate) fn pass(&mut self, slot: usize) -> u32 {
        self.caches.words.end(ProvenanceId::NONE);
        self.walks.free(slot);
        self.params.timing.bypass
    }

    /// The reason for a refused access.
    pub(crate) const fn denied(need: Need) -> FaultReason {
        if need.is_write() { FaultReason::NO_WRITE } else { FaultReason::NO_READ }
    }
}

/// What a finished walk grants.
#[derive(Clone, Copy)]
pub(crate) struct Grant {
    pub(crate) pa: Pa,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) page_bytes: u64,
    pub(crate) pass_through: bool,
}

const fn wide(words: [u64; 2]) -> u128 {
    words[0] as u128 | (words[1] as u128) << 64
}

/// Whether an address is in 0xFEEx_xxxx.
#[inline]
pub(crate) const fn in_interrupt_range(address: u64) -> bool {
    address >= INTERRUPT_RANGE_FIRST && address <= INTERRUPT_RANGE_LAST
}
