//! The walkers of a unit: which are taken, and by which walk.

use super::walk::{Step, Walk, WalkView};
use crate::ats::RequestKind;
use crate::provenance::{ProvenanceId, Words};
use crate::request::{Request, WalkId};

/// Most walkers of a unit.
pub(crate) const WALKS_MAX: u16 = 256;

/// All walkers.
#[derive(Clone, Debug)]
pub(crate) struct Walkers {
    slots: Vec<Walk>,
    /// Which walkers are taken, a bit each.
    live: [u64; WALKS_MAX as usize / 64],
    nr_live: u16,
}

impl Walkers {
    pub(crate) fn new(walks_max: u16) -> Self {
        Self { slots: vec![Walk::idle(); usize::from(walks_max)], live: [0; WALKS_MAX as usize / 64], nr_live: 0 }
    }

    /// Drops every walk; old ids stay invalid. The caller forgets their words.
    pub(crate) fn reset(&mut self) {
        for group in 0..self.live.len() {
            while self.live[group] != 0 {
                self.free(group * 64 + self.live[group].trailing_zeros() as usize);
            }
        }
    }

    /// Takes a free walker, the lowest one.
    #[inline]
    pub(crate) fn begin(&mut self, request: Request, kind: RequestKind, prefetch: bool, merge: bool) -> Option<WalkId> {
        let leader = if merge && self.nr_live != 0 { self.leader_of(&request, kind) } else { None };
        let (group, bit) = self.live.iter().enumerate().find_map(|(group, live)| {
            let bit = live.trailing_ones();
            (bit < u64::BITS).then_some((group, bit))
        })?;
        let slot = group * 64 + bit as usize;
        let walk = self.slots.get_mut(slot)?;
        walk.start(request, kind, prefetch);
        walk.generation = walk.generation.wrapping_add(1);
        if let Some(leader) = leader {
            walk.step = Step::Merged;
            walk.leader = leader;
        }
        let id = WalkId { slot: slot as u16, generation: walk.generation };
        self.live[group] |= 1 << bit;
        self.nr_live += 1;
        Some(id)
    }

    fn leader_of(&self, request: &Request, kind: RequestKind) -> Option<WalkId> {
        self.iter().find_map(|(id, walk)| {
            let other = &walk.request;
            let same_page = other.iova.page() == request.iova.page() && other.source == request.source && other.pasid == request.pasid;
            (same_page && walk.kind == kind && !walk.prefetch && walk.step != Step::Merged).then_some(id)
        })
    }

    #[inline]
    pub(crate) fn is_live(&self, id: WalkId) -> bool {
        // Ids are given out with odd generations only.
        self.slots.get(usize::from(id.slot)).is_some_and(|walk| walk.generation == id.generation)
    }

    /// The words that a walk holds, if it is in flight.
    pub(crate) fn words_of(&self, id: WalkId) -> Option<ProvenanceId> {
        self.is_live(id).then(|| self.slots[usize::from(id.slot)].words)
    }

    /// The walk in a taken slot.
    #[inline]
    pub(crate) fn at(&mut self, slot: usize) -> &mut Walk {
        &mut self.slots[slot]
    }

    /// Frees the walker; its words are the caller's.
    #[inline]
    pub(crate) fn free(&mut self, slot: usize) {
        let walk = &mut self.slots[slot];
        walk.generation = walk.generation.wrapping_add(1);
        self.live[slot / 64] &= !(1 << (slot % 64));
        self.nr_live -= 1;
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.nr_live)
    }

    fn iter(&self) -> impl Iterator<Item = (WalkId, &Walk)> {
        let taken = self.slots.iter().enumerate().filter(|(_, walk)| walk.generation % 2 != 0);
        taken.map(|(slot, walk)| (WalkId { slot: slot as u16, generation: walk.generation }, walk))
    }

    /// Whether a request would find no walker, or one that it had to wait for.
    #[inline]
    pub(crate) fn would_wait(&self, request: &Request, merge: bool) -> bool {
        self.nr_live != 0
            && (usize::from(self.nr_live) == self.slots.len() || (merge && self.leader_of(request, RequestKind::Untranslated).is_some()))
    }

    pub(crate) fn views(&self) -> impl Iterator<Item = WalkView> {
        self.iter().map(|(id, walk)| WalkView {
            id,
            request: walk.request,
            domain: walk.has_device.then_some(walk.device.domain),
            fetch: walk.is_pending().then(|| (walk.pending_pa, walk.awaited())),
            leader: (walk.step == Step::Merged).then_some(walk.leader),
            prefetch: walk.prefetch,
        })
    }

    /// Restarts the walks for which `covered` holds; returns how many.
    pub(crate) fn restart(&mut self, words: &mut Words, covered: impl Fn(&Walk) -> bool) -> u32 {
        if self.nr_live == 0 {
            return 0;
        }
        let mut restarted = 0;
        for walk in self.slots.iter_mut().filter(|walk| walk.generation % 2 != 0) {
            if walk.holds_anything() && covered(walk) {
                walk.restart(words);
                restarted += 1;
            }
        }
        restarted
    }
}
