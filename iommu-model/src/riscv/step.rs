//! The step that each call of `advance` takes.
//!
//! Steps of the specification's "Process to translate an IOVA", and where they are:
//!
//! - 1 to 6, locating the device context: `device_walk`
//! - 7 to 16, locating the process context: `process_walk`
//! - 17, first stage: `first_stage`; each of its fetches, and those of the process directory, goes through 19
//! - 18, MSI page table: `messages`
//! - 19, second stage: `second_stage`
//! - 20, the end: here

use super::cache::iotlb::TlbEntry;
use super::unit::Unit;
use super::walk::{Origin, Outstanding, Purpose, Step};
use crate::addr::Pa;
use crate::decision::Decisions;
use crate::provenance::ProvenanceId;
use crate::request::{Fetched, Progress, Translation};
use crate::spec::riscv::fault::Cause;

/// Updates that may find another word, in a row, before the walk gives up with an internal error (assumption: the
/// specification lets it go on for ever).
pub(crate) const TRIES_MAX: u8 = 16;

impl Unit {
    /// One look-up, or one fetched word, of the walk in a taken slot.
    #[inline]
    pub(crate) fn step(&mut self, slot: usize, fetched: Option<Fetched>, d: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
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
            Step::Iotlb => self.look_up_iotlb(slot, 0, d),
            Step::Device => self.fetch_device(slot, d),
            Step::ProcessLookup => self.look_up_process(slot, d),
            Step::Process => self.fetch_process(slot, d),
            Step::FirstLookup => self.look_up_first(slot, d),
            Step::First | Step::FirstUpdate => self.fetch_first(slot, d),
            Step::Message => self.fetch_message(slot, d),
            Step::SecondLookup => self.look_up_second(slot, d),
            Step::Second | Step::SecondUpdate => self.fetch_second(slot, d),
        }
    }

    fn consume(&mut self, slot: usize, answer: Fetched, d: &mut dyn Decisions) -> Progress {
        let extended = self.cap.msi_flat;
        let walk = self.walkers.at(slot);
        walk.outstanding = Outstanding::None;
        let Some([low, high]) = answer.pair() else { return self.refuse_fetch(slot, d) };
        let (pa, kind) = (walk.pending_pa, walk.kind(extended));
        let words = &mut self.caches.words;
        match walk.step {
            Step::Device if walk.level == 0 => {
                let all = answer.all();
                for at in 0..usize::from(kind.bytes() / 16) {
                    let pair = [all[2 * at], all[2 * at + 1]];
                    walk.words = words.push_wide(walk.words, pa.offset(16 * at as u64), pair, kind);
                }
                self.consume_device_context(slot, &all, d)
            }
            Step::Device => {
                walk.words = words.push(walk.words, pa, low, kind);
                self.consume_device_node(slot, low, d)
            }
            Step::Process if walk.level == 0 => {
                walk.words = words.push_wide(walk.words, pa, [low, high], kind);
                self.consume_process_context(slot, [low, high], d)
            }
            Step::Process => {
                walk.words = words.push(walk.words, pa, low, kind);
                self.consume_process_node(slot, low, d)
            }
            Step::Message => {
                walk.words = words.push_wide(walk.words, pa, [low, high], kind);
                self.consume_message(slot, [low, high], d)
            }
            Step::First => {
                walk.words = words.push(walk.words, pa, low, kind);
                self.consume_first(slot, low, d)
            }
            Step::FirstUpdate | Step::SecondUpdate => self.consume_update(slot, low, d),
            _ => {
                walk.words = words.push(walk.words, pa, low, kind);
                self.consume_second(slot, low, d)
            }
        }
    }

    /// There is no memory where the walk wanted to read.
    #[cold]
    fn refuse_fetch(&mut self, slot: usize, d: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
        let cause = match walk.step {
            Step::Device => Cause::DDT_LOAD,
            Step::Process => Cause::PDT_LOAD,
            Step::Message => Cause::MSI_LOAD,
            Step::Second | Step::SecondUpdate if walk.second.purpose == Purpose::Process => Cause::PDT_LOAD,
            _ => walk.access_fault(),
        };
        self.fault(slot, cause, 0, 0, d)
    }

    /// Issues the fetch of what the step says; beyond PAS there is no memory.
    pub(crate) fn fetch(&mut self, slot: usize, pa: Pa, cost: u32, d: &mut dyn Decisions) -> Progress {
        let extended = self.cap.msi_flat;
        if !self.cap.fits(pa) {
            return self.refuse_fetch(slot, d);
        }
        let walk = self.walkers.at(slot);
        let kind = walk.kind(extended);
        walk.outstanding = Outstanding::Wanted;
        walk.pending_pa = pa;
        walk.fetches = walk.fetches.saturating_add(1);
        walk.spend(cost);
        Progress::Fetch { pa, bytes: kind.bytes(), kind, cost }
    }

    /// Asks for the atomic update of the entry that was fetched last.
    pub(crate) fn ask_update(&mut self, slot: usize, step: Step, old: u64, new: u64) -> Progress {
        let cost = self.params.timing.table_update;
        let walk = self.walkers.at(slot);
        walk.step = step;
        walk.update = [old, new];
        walk.outstanding = Outstanding::Wanted;
        walk.spend(cost);
        Progress::Update { pa: walk.pending_pa, old, new, kind: walk.kind(false), cost }
    }

    /// The word that an update found. If it is not the one that was read, it is taken as the entry instead, so that
    /// nothing that software cleared comes back.
    fn consume_update(&mut self, slot: usize, found: u64, d: &mut dyn Decisions) -> Progress {
        let walk = self.walkers.at(slot);
        let [old, new] = walk.update;
        let word = if found == old { new } else { found };
        self.caches.words.amend(walk.words, word);
        walk.tries = if found == old { 0 } else { walk.tries + 1 };
        if walk.tries >= TRIES_MAX {
            return self.fault(slot, Cause::INTERNAL, 0, 0, d);
        }
        if walk.step == Step::FirstUpdate {
            walk.step = Step::First;
            return self.consume_first(slot, word, d);
        }
        walk.step = Step::Second;
        self.consume_second(slot, word, d)
    }

    /// Asks again for what is outstanding.
    fn ask_again(&mut self, slot: usize) -> Progress {
        let extended = self.cap.msi_flat;
        let walk = self.walkers.at(slot);
        let (pa, kind) = (walk.pending_pa, walk.kind(extended));
        if let Step::FirstUpdate | Step::SecondUpdate = walk.step {
            let [old, new] = walk.update;
            return Progress::Update { pa, old, new, kind, cost: 0 };
        }
        Progress::Fetch { pa, bytes: kind.bytes(), kind, cost: 0 }
    }

    /// Step 20 for what came out of a table or the IOTLB.
    #[inline]
    pub(crate) fn grant(&mut self, slot: usize, entry: &TlbEntry, cost: u32) -> Progress {
        let walk = self.walkers.at(slot);
        walk.spend(cost);
        let iova = walk.request.iova;
        let offset = iova.0 & ((1 << entry.shift) - 1);
        let allowed = entry.first.and(entry.second);
        let guest_address = walk.request.is_ats() && walk.context.t2gpa;
        let translation = Translation {
            pa: if guest_address { Pa(entry.guest_page.0 | offset) } else { Pa(entry.frame.0 | offset) },
            readable: allowed.read,
            writable: allowed.write,
            page_bytes: 1 << entry.shift,
            domain: walk.domain(),
            pass_through: false,
            cost,
            cost_total: walk.cost_total,
            fetches: walk.fetches,
            from: walk.from,
        };
        let debugs = walk.origin == Origin::Debug;
        if debugs {
            self.debug_done(Ok((entry, translation.pa)));
        }
        self.end(slot);
        Progress::Done(translation)
    }

    /// Step 20 for an address that passes as it is, because no stage translates it or the device has translated it.
    pub(crate) fn pass(&mut self, slot: usize, cost: u32) -> Progress {
        let walk = self.walkers.at(slot);
        walk.spend(cost);
        let translation = Translation {
            pa: Pa(walk.request.iova.0),
            readable: true,
            writable: true,
            page_bytes: crate::addr::PAGE_SIZE,
            domain: walk.domain(),
            pass_through: true,
            cost,
            cost_total: walk.cost_total,
            fetches: walk.fetches,
            from: walk.from,
        };
        if walk.origin == Origin::Debug {
            let entry = TlbEntry::identity(walk.request.iova);
            self.debug_done(Ok((&entry, translation.pa)));
        }
        self.end(slot);
        Progress::Done(translation)
    }

    /// Frees the walker; its words become those of the walk that ended last.
    #[inline]
    pub(crate) fn end(&mut self, slot: usize) {
        let walk = self.walkers.at(slot);
        let words = core::mem::replace(&mut walk.words, ProvenanceId::NONE);
        walk.release(&mut self.caches.words);
        self.caches.words.release(core::mem::replace(&mut self.last_words, words));
        self.walkers.free(slot);
    }
}
