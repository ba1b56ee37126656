//! The last accesses to each word.

use iommu_model::addr::Pa;
use rustc_hash::FxHashMap;

use super::Access;
use crate::engine::ActorId;

/// Accesses remembered a word.
const CELLS: usize = 4;

/// An access that has happened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Past {
    pub(super) actor: ActorId,
    /// The actor's own epoch then; 0 is a free cell.
    pub(super) epoch: u32,
    /// Bytes of the word: bit n is byte n.
    mask: u8,
    pub(super) bytes: u8,
    pub(super) store: bool,
    pub(super) marked: bool,
    pub(super) pa: Pa,
    pub(super) value: u64,
    pub(super) step: u64,
    pub(super) place: &'static str,
}

/// Cells of all words that were accessed.
#[derive(Default)]
pub(super) struct Cells {
    /// Place of a word's cells; look-up only.
    places: FxHashMap<u64, u32>,
    cells: Vec<[Past; CELLS]>,
}

impl Cells {
    /// Remembers an access and returns one it races with. `is_before` tells whether an earlier one is ordered before this one.
    pub(super) fn access(
        &mut self,
        access: &Access,
        marked: bool,
        epoch: u32,
        place: &'static str,
        is_before: impl Fn(&Past) -> bool,
    ) -> Option<Past> {
        let Access { pa, bytes, .. } = *access;
        let mask = u16::from(u8::MAX >> (8 - bytes.min(8))) << (pa.0 & 7);
        let mut race = None;
        for (word, mask) in [(pa.0 & !7, mask as u8), ((pa.0 & !7) + 8, (mask >> 8) as u8)] {
            if mask != 0 {
                let past = Past {
                    actor: access.actor,
                    epoch,
                    mask,
                    bytes,
                    store: access.store,
                    marked,
                    pa,
                    value: access.value,
                    step: access.step,
                    place,
                };
                race = race.or(self.access_word(word, past, &is_before));
            }
        }
        race
    }

    fn access_word(&mut self, word: u64, now: Past, is_before: impl Fn(&Past) -> bool) -> Option<Past> {
        let nr = self.cells.len() as u32;
        let at = *self.places.entry(word).or_insert(nr);
        if at == nr {
            self.cells.push(Default::default());
        }
        let cells = &mut self.cells[at as usize];
        let conflicts = |past: &Past| {
            past.epoch != 0
                && past.actor != now.actor
                && past.mask & now.mask != 0
                && (past.store || now.store)
                && !(past.marked && now.marked)
        };
        let race = cells.iter().find(|past| conflicts(past) && !is_before(past)).copied();
        // What this access takes the place of: the same access by the same actor, a free cell, one that everything from now on is as
        // ordered behind as this one, or the oldest.
        let same = |past: &Past| past.actor == now.actor && past.mask == now.mask && past.store == now.store && past.marked == now.marked;
        let covered =
            |past: &Past| past.mask & !now.mask == 0 && (now.store || !past.store) && (past.marked || !now.marked) && is_before(past);
        let choice = cells
            .iter()
            .position(same)
            .or_else(|| cells.iter().position(|past| past.epoch == 0))
            .or_else(|| cells.iter().position(covered));
        let oldest = || (0..CELLS).min_by_key(|&index| cells[index].step).unwrap_or(0);
        let index = choice.unwrap_or_else(oldest);
        cells[index] = now;
        race
    }

    /// Forgets the accesses to `bytes` bytes at `pa`.
    pub(super) fn forget(&mut self, pa: Pa, bytes: u64) {
        for word in (pa.0 & !7..pa.0 + bytes).step_by(8) {
            if let Some(at) = self.places.get(&word) {
                self.cells[*at as usize] = Default::default();
            }
        }
    }

    /// Forgets all accesses, keeping the buffers.
    pub(super) fn clear(&mut self) {
        self.places.clear();
        self.cells.clear();
    }
}
