//! Check, then act: what a program had read in the call in which it went wrong, and somebody else changed before it did.
//!
//! Of each word the last load counts; a program that looks again, or stores to the word itself, knows what is there. Whether the change
//! mattered is not known here: most words a program has read are read for good.

use std::collections::BTreeMap;

use iommu_model::addr::Pa;
use sim::trace::{EventKind, Flavor};

use super::history::{FRAME_BYTES, History, overlap};

/// A word that changed between its load and the finding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stale {
    /// The last load before the change.
    pub(super) read: usize,
    /// The first store of another value, by another program.
    pub(super) changed: usize,
}

/// How far a freed object may reach: its event does not say. Words after it are forgotten with it, up to the next page.
const SLAB_BYTES_MAX: u64 = FRAME_BYTES / 4;

/// Takes the words of some memory out.
fn forget(seen: &mut BTreeMap<Pa, usize>, pa: Pa, bytes: u64) {
    let gone: Vec<Pa> = seen.range(pa..Pa(pa.0.saturating_add(bytes))).map(|(word, _)| *word).collect();
    for word in gone {
        seen.remove(&word);
    }
}

/// The last compare-and-exchange in its call that the program lost to another one: it read, and stored nothing, because of what the other
/// had stored since the call began.
pub(super) fn lost_exchange(history: &History<'_>, finding: usize) -> Option<Stale> {
    let acting = history.event(finding).actor;
    let begin = history.begin_of_call(finding);
    let stored = |at: usize, word: Pa| {
        let step = history.event(at).step;
        let same = (at..history.events().len()).map(|at| history.event(at)).take_while(|event| event.step == step);
        same.into_iter().any(|event| matches!(event.kind, EventKind::Store { pa, .. } if pa == word))
    };
    (begin..finding).rev().find_map(|at| {
        let event = history.event(at);
        let EventKind::Load { pa, flavor: Flavor::Atomic, .. } = event.kind else { return None };
        if event.actor != acting || stored(at, pa) {
            return None;
        }
        let winner = history.last_writer(pa, at).filter(|&winner| winner > begin && history.event(winner).actor != acting)?;
        Some(Stale { read: at, changed: winner })
    })
}

/// What the program that acts at `finding` had read in its call and did not see change; in the order of the changes.
pub(super) fn reads(history: &History<'_>, finding: usize) -> Vec<Stale> {
    let acting = history.event(finding).actor;
    if history.is_hardware(acting) {
        return Vec::new();
    }
    let mut seen: BTreeMap<Pa, usize> = BTreeMap::new();
    let mut stale: BTreeMap<Pa, Stale> = BTreeMap::new();
    for at in history.begin_of_call(finding)..finding {
        let event = history.event(at);
        match event.kind {
            EventKind::Load { pa, .. } if event.actor == acting => {
                seen.insert(pa, at);
                stale.remove(&pa);
            }
            EventKind::Store { pa, bytes, old, new, flavor } if event.actor != acting => {
                // Counters and the like are changed by many and read by none to decide.
                if old == new || flavor == Flavor::Atomic {
                    continue;
                }
                let near = seen.range(Pa(pa.0.saturating_sub(7))..Pa(pa.0.saturating_add(u64::from(bytes))));
                for (&word, &read) in near.filter(|(word, _)| overlap(pa, u64::from(bytes), **word, 1)) {
                    stale.entry(word).or_insert(Stale { read, changed: at });
                }
            }
            EventKind::Store { pa, .. } => {
                seen.remove(&pa);
                stale.remove(&pa);
            }
            // What was read is gone with its memory: what is stored there later is another object's.
            EventKind::ObjectFreed { pa, .. } => forget(&mut seen, pa, SLAB_BYTES_MAX),
            EventKind::ObjectTaken { pa, bytes, .. } => forget(&mut seen, pa, u64::from(bytes)),
            EventKind::FramesFreed { pfn, order, .. } | EventKind::FramesTaken { pfn, order, .. } => {
                forget(&mut seen, pfn.pa(), FRAME_BYTES << order.min(20));
            }
            _ => {}
        }
    }
    let mut stale: Vec<Stale> = stale.into_values().collect();
    stale.sort_by_key(|stale| stale.changed);
    stale
}
